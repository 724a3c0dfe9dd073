//! Drains the gateway: reports that it is not ready, and after the drain delay ends streams
//! and lets calls finish until the drain timeout. The remaining ones then end with an error.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::generation::Current;
use super::health_service::HealthRegistry;
use crate::admin::Readiness;

/// How long a connection may take to send the errors of the calls that are cut off.
const CUT_OFF_GRACE: Duration = Duration::from_secs(1);

/// What a drain changes, in its order.
pub(super) struct Drain {
    /// The probes of upstreams and reloads, which end.
    pub background: Vec<AbortHandle>,
    /// `/readyz`, so that load balancers send no more connections.
    pub readiness: Readiness,
    /// gRPC health, for the same reason; its streams end with UNAVAILABLE after the delay.
    pub health: HealthRegistry,
    /// Its streams and those of reflection end with UNAVAILABLE, and new ones are rejected. Its
    /// configuration says how long connections and calls are accepted although the gateway is
    /// not ready, and how long calls may take to finish.
    pub current: Current,
}

/// How a gateway stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Drains after the drain delay.
    Delayed,
    /// Drains at once.
    Now,
}

impl Drain {
    /// Runs a server, drains it when `stop` fires or is dropped, and returns when all calls
    /// have ended. During the delay, only readiness and health change. After the timeout the
    /// remaining ones are cut off: they end with an error, and a connection that is still open
    /// [`CUT_OFF_GRACE`] later is closed. `server` gets the future that completes when it is to
    /// accept no more connections.
    pub(super) async fn serve<F: Future<Output = ()>>(
        self,
        stop: oneshot::Receiver<Stop>,
        server: impl FnOnce(oneshot::Receiver<()>) -> F,
    ) {
        let (shutdown, shut_down) = oneshot::channel::<()>();
        let drain = async {
            // An error means that the handle was dropped, which stops the server, too.
            let stop = stop.await.unwrap_or(Stop::Now);
            self.readiness.set(false);
            self.health.set_not_serving();
            let delay = self.current.load().generation.config.server.drain_delay;
            if stop == Stop::Delayed && !delay.is_zero() {
                tracing::info!(
                    drain_delay_secs = delay.as_secs_f64(),
                    "not ready: connections and calls are accepted until the drain begins"
                );
                tokio::time::sleep(delay).await;
            }
            tracing::info!("draining: watches end, calls may finish");
            // Without reloads, the configuration does not change any more.
            self.begin();
            let serving = self.current.load_full();
            let timeout = serving.generation.config.server.drain_timeout;
            let dispatcher = &serving.generation.dispatcher;
            let _ = shutdown.send(());
            tokio::time::sleep(timeout).await;
            tracing::warn!(
                drain_timeout_secs = timeout.as_secs(),
                calls = dispatcher.metrics.calls_in_flight(),
                "drain timeout: the remaining calls are cut off"
            );
            dispatcher.upstreams.cut_off();
            tokio::time::sleep(CUT_OFF_GRACE).await;
        };
        tokio::select! {
            () = server(shut_down) => {}
            () = drain => tracing::warn!("closing the connections that are still open"),
        }
    }

    fn begin(&self) {
        for task in &self.background {
            task.abort();
        }
        self.health.end_streams();
        self.current.load().generation.dispatcher.watches.drain();
    }
}
