//! `drawbridge serve`: serves until SIGTERM or SIGINT, then drains.

use std::fmt::Write as _;

use crate::config::Config;
use crate::server::{self, ServerHandle};
use crate::telemetry::Telemetry;

/// Serves the configured upstreams.
pub(super) async fn run(config: Config) -> Result<(), Vec<String>> {
    let telemetry = Telemetry::start(&config.log).map_err(|e| vec![e])?;
    let running = server::start(config, telemetry.traces()).await?;
    print!("{}", listening(&running));
    until_stopped(running).await
}

/// Waits for a signal, then drains.
pub(super) async fn until_stopped(running: ServerHandle) -> Result<(), Vec<String>> {
    let signal = stop_signal()
        .await
        .map_err(|e| vec![format!("cannot wait for signals: {e}")])?;
    tracing::info!(signal, "draining: watches end, calls may finish");
    running.stop().await.map_err(|e| vec![e])
}

/// Returns what is listening.
pub(super) fn listening(running: &ServerHandle) -> String {
    let mut text = format!("drawbridge serves gRPC on {}\n", running.grpc);
    if let Some(admin) = running.admin {
        let _ = writeln!(
            text,
            "metrics, liveness, readiness on http://{admin}/metrics /livez /readyz"
        );
    }
    text
}

/// Waits for SIGTERM or SIGINT and returns its name.
async fn stop_signal() -> std::io::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}
