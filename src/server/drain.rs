//! Drains the gateway: reports that it is not ready, ends streams, and lets calls finish
//! until the drain timeout.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tonic_health::server::HealthReporter;

use super::dispatcher::Dispatcher;
use super::health;
use crate::admin::Readiness;

/// What a drain changes, in its order.
pub(super) struct Drain {
    /// `/readyz`, so that load balancers send no more connections.
    pub readiness: Readiness,
    /// gRPC health and the services that it reports, for the same reason.
    pub health: HealthReporter,
    pub services: Vec<String>,
    /// Its streams end with UNAVAILABLE, and new ones are rejected.
    pub dispatcher: Arc<Dispatcher>,
    /// How long calls may take to finish.
    pub timeout: Duration,
}

/// Completes when the server stops accepting connections.
pub(super) type ShutdownSignal = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Drain {
    /// Runs a server, drains it when `stop` fires or is dropped, and returns when all calls
    /// have ended or the timeout has passed.
    pub(super) async fn serve<E, F>(
        self,
        stop: oneshot::Receiver<()>,
        server: impl FnOnce(ShutdownSignal) -> F,
    ) -> Result<(), E>
    where
        F: Future<Output = Result<(), E>>,
    {
        let timeout = self.timeout;
        let (begun, draining) = oneshot::channel::<()>();
        let serving = server(Box::pin(async move {
            // An error means that the handle was dropped, which stops the server, too.
            let _ = stop.await;
            self.begin().await;
            let _ = begun.send(());
        }));
        tokio::select! {
            result = serving => result,
            () = async { let _ = draining.await; tokio::time::sleep(timeout).await } => {
                tracing::warn!(
                    drain_timeout_secs = timeout.as_secs(),
                    "drain timeout: the remaining calls are cut off"
                );
                Ok(())
            }
        }
    }

    async fn begin(self) {
        self.readiness.set(false);
        health::set_not_serving(&self.health, &self.services).await;
        self.dispatcher.watches.drain();
    }
}
