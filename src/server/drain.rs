//! Drains the gateway: reports that it is not ready, ends streams, and lets calls finish
//! until the drain timeout.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::dispatcher::Dispatcher;
use super::health_service::HealthRegistry;
use crate::admin::Readiness;

/// What a drain changes, in its order.
pub(super) struct Drain {
    /// The probes of upstreams, which end.
    pub probing: AbortHandle,
    /// `/readyz`, so that load balancers send no more connections.
    pub readiness: Readiness,
    /// gRPC health, for the same reason; its streams end with UNAVAILABLE.
    pub health: HealthRegistry,
    /// Its streams and those of reflection end with UNAVAILABLE, and new ones are rejected.
    pub dispatcher: Arc<Dispatcher>,
    /// How long calls may take to finish.
    pub timeout: Duration,
}

impl Drain {
    /// Runs a server, drains it when `stop` fires or is dropped, and returns when all calls
    /// have ended or the timeout has passed. `server` gets the future that completes when it
    /// is to accept no more connections.
    pub(super) async fn serve<F: Future<Output = ()>>(
        self,
        stop: oneshot::Receiver<()>,
        server: impl FnOnce(oneshot::Receiver<()>) -> F,
    ) {
        let timeout = self.timeout;
        let (shutdown, shut_down) = oneshot::channel::<()>();
        let drain = async {
            // An error means that the handle was dropped, which stops the server, too.
            let _ = stop.await;
            self.begin();
            let _ = shutdown.send(());
            tokio::time::sleep(timeout).await;
        };
        tokio::select! {
            () = server(shut_down) => {}
            () = drain => {
                tracing::warn!(
                    drain_timeout_secs = timeout.as_secs(),
                    "drain timeout: the remaining calls are cut off"
                );
            }
        }
    }

    fn begin(&self) {
        self.probing.abort();
        self.readiness.set(false);
        self.health.drain();
        self.dispatcher.watches.drain();
    }
}
