//! `drawbridge serve`: serves until SIGTERM or SIGINT, then drains. A JSON log has a line
//! `listening` instead of the banner.

use std::io::{self, Write as _};
use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::banner::{ClientFlags, banner, program};
use super::{idle_memory, log_warnings};
use crate::config::Config;
use crate::server::{Gateway, ReloadHandle, Reloaded, raise_descriptor_limit};
use crate::telemetry::Telemetry;

/// Serves the configured upstreams.
pub(super) async fn run(config: Config) -> Result<ExitCode, Vec<String>> {
    let telemetry = Telemetry::start(&config.log).map_err(|e| vec![e])?;
    log_warnings(&config.warnings);
    if let Some(tls) = &config.tls {
        let now = std::time::SystemTime::now();
        log_warnings(&tls.problems(now));
        log_warnings(&tls.warnings(now));
    }
    run_until_stopped(config, telemetry).await
}

/// Starts the gateway, prints the banner, waits for a signal and drains. Exits at once on a
/// second signal.
pub(super) async fn run_until_stopped(
    config: Config,
    telemetry: Telemetry,
) -> Result<ExitCode, Vec<String>> {
    let mut signals = Signals::new().map_err(|e| vec![format!("cannot wait for signals: {e}")])?;
    raise_descriptor_limit();
    let is_sandbox = config.sandbox;
    let is_json = config.log.json;
    let has_page = config.serves_page();
    let flags = ClientFlags::new(&config);
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
        let (grpc, admin) = (gateway.grpc, gateway.admin);
        print_banner(banner(
            is_sandbox,
            grpc,
            admin,
            has_page,
            (&program(), &flags),
        ));
    }
    let reload = gateway.reload.clone();
    let stop = tokio::select! {
        stop = signals.next_stop(&reload) => stop,
        never = idle_memory::watch() => match never {},
    };
    tracing::info!(signal = stop.name, "stopping");
    let stopping = async {
        match stop.is_delayed {
            true => gateway.stop().await,
            false => gateway.stop_without_delay().await,
        }
    };
    tokio::select! {
        stopped = stopping => match stopped {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(problem) => Err(vec![problem]),
        },
        second = signals.next_stop(&reload) => {
            tracing::warn!(
                signal = second.name,
                "second signal: exiting at once, the remaining calls are cut off"
            );
            // Dropped, it would wait until the remaining spans are exported.
            std::mem::forget(telemetry);
            Ok(ExitCode::from(second.exit_code))
        }
    }
}

/// Writes the banner on a thread of its own: nothing may read standard output.
fn print_banner(banner: String) {
    let write = move || {
        let mut stdout = io::stdout();
        if let Err(error) = (stdout.write_all(banner.as_bytes())).and_then(|()| stdout.flush()) {
            tracing::warn!(%error, "cannot write the banner to standard output");
        }
    };
    if let Err(error) = std::thread::Builder::new().spawn(write) {
        tracing::warn!(%error, "cannot write the banner to standard output");
    }
}

/// Returns the names of the upstreams with their families.
fn names(config: &Config) -> String {
    let names = config.upstreams.iter();
    let names: Vec<String> = names
        .map(|upstream| format!("{} ({})", upstream.name, upstream.family))
        .collect();
    names.join(", ")
}

/// A signal that stops the gateway.
#[derive(Clone, Copy)]
struct StopSignal {
    name: &'static str,
    /// Whether the drain waits for its delay. SIGINT is Ctrl-C on a terminal, where no load
    /// balancer sends connections.
    is_delayed: bool,
    /// The exit code if it is the second signal: 128 and the number of the signal, as shells
    /// report a process that a signal has ended.
    exit_code: u8,
}

const SIGTERM: StopSignal = StopSignal {
    name: "SIGTERM",
    is_delayed: true,
    exit_code: 128 + 15,
};

const SIGINT: StopSignal = StopSignal {
    name: "SIGINT",
    is_delayed: false,
    exit_code: 128 + 2,
};

/// The signals that the gateway handles.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Handles the signals from now on.
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for SIGTERM or SIGINT. At SIGHUP the configuration and its files are read again.
    async fn next_stop(&mut self, reload: &ReloadHandle) -> StopSignal {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return SIGTERM,
                _ = self.interrupt.recv() => return SIGINT,
                _ = self.hangup.recv() => match reload.reload().await {
                    Reloaded::Applied => {
                        tracing::info!("SIGHUP: the configuration and its files were read again");
                    }
                    Reloaded::Refused => tracing::warn!(
                        "SIGHUP: the configuration or a file of it is invalid: the last one stays"
                    ),
                    Reloaded::NoFiles => tracing::info!(
                        "SIGHUP ignored: the gateway has no files"
                    ),
                },
            }
        }
    }
}
