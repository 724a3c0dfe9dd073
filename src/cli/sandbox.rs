//! `drawbridge sandbox`: serves embedded upstreams of all three families.

use std::path::Path;

use drawbridge_sandbox::{Sandbox, Settings};

use super::serve::run_until_stopped;
use super::{Failure, log_warnings, quickstart};
use crate::config::{Config, Environment};
use crate::telemetry::Telemetry;

/// Starts the embedded upstreams on loopback, and serves them.
pub(super) async fn run(path: Option<&Path>) -> Result<(), Failure> {
    let environment = Environment::default();
    let mut config = Config::load_sandbox(path, &|name| environment.get(name))?;
    config.warnings.extend(environment.warnings());
    let telemetry = Telemetry::start(&config.log).map_err(|e| vec![e])?;
    log_warnings(&config.warnings);
    let sandbox = Sandbox::start(([127, 0, 0, 1], 0).into(), Settings::default())
        .await
        .map_err(|e| vec![format!("cannot start the sandbox: {e}")])?;
    config.upstreams = quickstart::upstreams(&sandbox);
    run_until_stopped(config, &telemetry).await?;
    Ok(())
}
