//! `drawbridge serve`: serves until SIGTERM or SIGINT, then drains. A JSON log has a line
//! `listening` instead of the banner.

use super::banner::{GrpcurlFlags, banner};
use super::log_warnings;
use crate::config::Config;
use crate::server::Gateway;
use crate::telemetry::Telemetry;

/// Serves the configured upstreams.
pub(super) async fn run(config: Config) -> Result<(), Vec<String>> {
    let telemetry = Telemetry::start(&config.log).map_err(|e| vec![e])?;
    log_warnings(&config.warnings);
    if let Some(tls) = &config.tls {
        let now = std::time::SystemTime::now();
        log_warnings(&tls.problems(now));
        log_warnings(&tls.warnings(now));
    }
    run_until_stopped(config, &telemetry).await
}

/// Starts the gateway, prints the banner, waits for a signal and drains.
pub(super) async fn run_until_stopped(
    config: Config,
    telemetry: &Telemetry,
) -> Result<(), Vec<String>> {
    let is_sandbox = config.sandbox;
    let is_json = config.log.json;
    let flags = GrpcurlFlags::new(&config);
    let upstreams = names(&config);
    let gateway = Gateway::build(config, telemetry.traces())?;
    let gateway = gateway.bind().await?.serve()?;
    if is_json {
        tracing::info!(
            address = %gateway.grpc,
            admin = gateway.admin.map(tracing::field::display),
            version = env!("CARGO_PKG_VERSION"),
            upstreams,
            sandbox = is_sandbox,
            "listening"
        );
    } else {
        print!(
            "{}",
            banner(is_sandbox, gateway.grpc, gateway.admin, &flags)
        );
    }
    let signal = stop_signal()
        .await
        .map_err(|e| vec![format!("cannot wait for signals: {e}")])?;
    tracing::info!(signal, "draining: watches end, calls may finish");
    gateway.stop().await.map_err(|e| vec![e])
}

/// Returns the names of the upstreams with their families.
fn names(config: &Config) -> String {
    let names = config.upstreams.iter();
    let names: Vec<String> = names
        .map(|upstream| format!("{} ({})", upstream.name, upstream.family))
        .collect();
    names.join(", ")
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
