//! `drawbridge serve`: serves until SIGTERM or SIGINT, then drains.

use super::banner::{GrpcurlFlags, banner};
use crate::config::Config;
use crate::server::Gateway;
use crate::telemetry::Telemetry;

/// Serves the configured upstreams.
pub(super) async fn run(config: Config) -> Result<(), Vec<String>> {
    let telemetry = Telemetry::start(&config.log).map_err(|e| vec![e])?;
    run_until_stopped(config, &telemetry).await
}

/// Starts the gateway, prints the banner, waits for a signal and drains.
pub(super) async fn run_until_stopped(
    config: Config,
    telemetry: &Telemetry,
) -> Result<(), Vec<String>> {
    let is_sandbox = config.sandbox;
    let flags = GrpcurlFlags::new(&config);
    let gateway = Gateway::build(config, telemetry.traces())?;
    let gateway = gateway.bind().await?.serve()?;
    print!(
        "{}",
        banner(is_sandbox, gateway.grpc, gateway.admin, &flags)
    );
    let signal = stop_signal()
        .await
        .map_err(|e| vec![format!("cannot wait for signals: {e}")])?;
    tracing::info!(signal, "draining: watches end, calls may finish");
    gateway.stop().await.map_err(|e| vec![e])
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
