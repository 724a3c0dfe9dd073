//! `drawbridge health`: asks a running gateway for its health, for images without a shell.

use std::time::Duration;

use clap::Args;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::client::failure::Failure;
use super::client::gateway::Gateway;
use super::client::options::ConnectionOptions;
use super::client::{duration, exit_code, variable};

/// The exit codes that other commands do not have, as those of grpc_health_probe.
/// Source: grpc_health_probe, main.go.
const RPC_FAILED: u8 = 3;
const NOT_SERVING: u8 = 4;

/// Arguments of `drawbridge health`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  drawbridge health
  drawbridge health openstack.orchestration.v1.StackService

Exit codes: 0 SERVING, 4 any other status, 3 the gateway responded an error, 2 no gateway or \
invalid arguments, 124 --timeout, 130 Ctrl-C.")]
pub struct Options {
    /// The full name of a service. Default: the gateway itself, which is SERVING until it
    /// drains.
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
    /// Time for connection and response: 90 (seconds), 30s, 10m or 1h30m.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "5s")]
    timeout: Duration,
    #[command(flatten)]
    connection: ConnectionOptions,
}

/// Prints the status, and returns the exit code.
pub async fn run(options: &Options) -> u8 {
    tokio::select! {
        result = check(options) => match result {
            Ok(status) => {
                super::print_text(&format!("{}\n", status.as_str_name()));
                match status {
                    ServingStatus::Serving => exit_code::SUCCEEDED,
                    _ => NOT_SERVING,
                }
            }
            Err(failure) => {
                failure.print();
                failure.code
            }
        },
        () = tokio::time::sleep(options.timeout) => {
            super::print_error("no response within --timeout");
            exit_code::TIMED_OUT
        }
        _ = tokio::signal::ctrl_c() => exit_code::INTERRUPTED,
    }
}

async fn check(options: &Options) -> Result<ServingStatus, Failure> {
    let gateway = Gateway::connect(&options.connection, &variable).await;
    let gateway = gateway.map_err(Failure::unknown)?;
    let service = options.service.clone().unwrap_or_default();
    let request = gateway.request(HealthCheckRequest { service });
    match HealthClient::new(gateway.channel()).check(request).await {
        Ok(response) => Ok(response.into_inner().status()),
        Err(status) => Err(Failure {
            code: match exit_code::of_status(&status) {
                exit_code::FAILED => RPC_FAILED,
                code => code,
            },
            lines: gateway.describe(&status).await,
        }),
    }
}
