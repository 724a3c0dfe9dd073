//! `drawbridge sandbox`: serves embedded upstreams of all three families.

use std::path::Path;
use std::process::ExitCode;

use drawbridge_sandbox::{Sandbox, Settings};

use super::serve::run_until_stopped;
use super::{Failure, log_warnings, quickstart};
use crate::config::{Config, Environment, Overlay};
use crate::telemetry::Telemetry;

/// Starts the embedded upstreams on loopback, and serves them: to clients of this machine,
/// unless `beyond_loopback`.
pub(super) async fn run(path: Option<&Path>, beyond_loopback: bool) -> Result<ExitCode, Failure> {
    let environment = Environment::default();
    let mut config =
        Config::load_sandbox(path, Overlay::of_process(), &|name| environment.get(name))?;
    config.warnings.extend(environment.warnings());
    if !beyond_loopback {
        check_loopback(&config)?;
    }
    let telemetry = Telemetry::start(&config.log).map_err(|e| vec![e])?;
    log_warnings(&config.warnings);
    let sandbox = Sandbox::start(([127, 0, 0, 1], 0).into(), Settings::default())
        .await
        .map_err(|e| vec![format!("cannot start the sandbox: {e}")])?;
    config.upstreams = quickstart::upstreams(&sandbox);
    Ok(run_until_stopped(config, telemetry).await?)
}

/// Rejects listeners that other machines can reach: the sandbox accepts any client.
fn check_loopback(config: &Config) -> Result<(), Vec<String>> {
    let grpc = ("listen.grpc or DRAWBRIDGE_LISTEN", config.listen);
    let admin = config
        .admin
        .map(|admin| ("listen.admin or DRAWBRIDGE_ADMIN", admin));
    let problems: Vec<String> = std::iter::once(grpc)
        .chain(admin)
        .filter(|(_, address)| !address.ip().to_canonical().is_loopback())
        .map(|(setting, address)| {
            format!(
                "the sandbox would listen on {address} ({setting}), where other machines reach \
                 it: choose an address of loopback, such as 127.0.0.1:{}, or add \
                 --listen-beyond-loopback",
                address.port()
            )
        })
        .collect();
    match problems.is_empty() {
        true => Ok(()),
        false => Err(problems),
    }
}
