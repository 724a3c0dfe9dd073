//! Telemetry: the log, traces and metrics.

mod metrics;
mod traces;

pub use metrics::{Metrics, RpcMetrics, Sample, UpstreamRequestMetrics, code_name};
pub use traces::server_span;

use std::io::IsTerminal;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether each line is a JSON object. Default: plain text.
    pub json: bool,
    /// A level, or a filter like that of `RUST_LOG`. Default: `info`.
    pub level: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            json: false,
            level: "info".to_owned(),
        }
    }
}

/// Owns the trace exporter. Dropping it exports the remaining spans.
#[derive(Debug)]
pub struct Telemetry {
    traces: Option<traces::Exporter>,
}

impl Telemetry {
    /// Starts the log on standard error, and the traces if the environment has
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`. `RUST_LOG` takes
    /// precedence over the configured level.
    pub fn start(log: &Settings) -> Result<Self, String> {
        let filter = match std::env::var("RUST_LOG") {
            Ok(text) if !text.is_empty() => {
                EnvFilter::try_new(&text).map_err(|e| format!("RUST_LOG={text}: {e}"))?
            }
            _ => EnvFilter::try_new(&log.level)
                .map_err(|e| format!("log level {:?}: {e}", log.level))?,
        };
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            // It would report a broken standard error there, and panic.
            .log_internal_errors(false);
        let lines = if log.json {
            lines.json().flatten_event(true).boxed()
        } else {
            lines.with_ansi(std::io::stderr().is_terminal()).boxed()
        };
        let traces = traces::Exporter::from_env(&|name| std::env::var(name).ok())?;
        tracing_subscriber::registry()
            .with(lines.with_filter(filter))
            .with(traces.as_ref().map(traces::Exporter::layer))
            .try_init()
            .map_err(|e| format!("cannot start the log: {e}"))?;
        Ok(Self { traces })
    }

    /// Returns whether spans are exported.
    pub fn traces(&self) -> bool {
        self.traces.is_some()
    }
}
