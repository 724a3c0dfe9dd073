//! Telemetry: the log, traces and metrics.

mod audit;
mod connection_metrics;
mod failed_calls;
mod log_filter;
mod log_writer;
mod metrics;
mod reload_metrics;
mod repeated;
mod traces;

pub use audit::{AuditLine, AuditLog, Settings as AuditSettings};
pub use connection_metrics::ConnectionMetrics;
pub use failed_calls::{FailedCall, FailedCalls, MAX_FAILED_CALLS};
pub use log_filter::LogFilter;
pub use log_writer::{dropped_lines, flush};
pub use metrics::{
    ClientCalls, DURATION_BUCKETS, Metrics, RpcMetrics, RpcProtocol, Sample,
    UpstreamRequestMetrics, code_name,
};
pub use reload_metrics::ReloadMetrics;
pub use repeated::LineKind;
pub use traces::server_span;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{IsTerminal, Write as _};

use log_writer::LogWriter;
use repeated::Counted;

use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether each line is a JSON object. Default: plain text.
    pub json: bool,
    /// A level, or a filter like that of `RUST_LOG`; see [`LogFilter::parse`]. Default: `info`.
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
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`. A panic is a line
    /// of the log in its format, too. Traces that cannot be exported are a warning.
    pub fn start(log: &Settings) -> Result<Self, String> {
        let filter = LogFilter::parse(&log.level).map_err(|e| format!("log.level: {e}"))?;
        // Traces are no reason not to serve.
        let (traces, problem) = match traces::Exporter::from_env(&variable) {
            Ok(traces) => (traces, None),
            Err(problem) => (None, Some(problem)),
        };
        tracing_subscriber::registry()
            .with(lines(log.json, LogWriter::stderr()).with_filter(filter.filter()))
            .with(traces.as_ref().map(traces::Exporter::layer))
            .try_init()
            .map_err(|e| format!("cannot start the log: {e}"))?;
        if let Some(problem) = problem {
            tracing::warn!("traces are not exported: {problem}");
        }
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string);
            let payload = panic.payload();
            let text = payload.downcast_ref::<String>().map(String::as_str);
            let text = text.or(payload.downcast_ref::<&str>().copied());
            // If RUST_BACKTRACE is set.
            let backtrace = Backtrace::capture();
            let backtrace = (backtrace.status() == BacktraceStatus::Captured)
                .then(|| tracing::field::display(&backtrace));
            tracing::error!(panic = text, place, backtrace, "panic: this is a bug");
        }));
        Ok(Self { traces })
    }

    /// Returns whether spans are exported.
    pub fn traces(&self) -> bool {
        self.traces.is_some()
    }
}

/// Returns whether a line of this kind is to be written now; if not, it is part of a sum.
pub fn is_logged(kind: LineKind) -> bool {
    let counted = repeated::count(kind);
    if counted == Counted::FirstSummed {
        log_writer::wake();
    }
    counted == Counted::Written
}

/// Returns why traces cannot be exported as the environment says; none if they can be, or are
/// not to be.
pub fn traces_problem() -> Option<String> {
    traces::Settings::from_env(&variable).err()
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Returns the layer that writes the lines of the log to standard error.
fn lines<S>(json: bool, writer: LogWriter) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        // It would report a broken standard error there, and panic.
        .log_internal_errors(false);
    if json {
        lines.json().flatten_event(true).boxed()
    } else {
        lines.with_ansi(std::io::stderr().is_terminal()).boxed()
    }
}

/// Runs `write`, whose events become JSON lines on standard error, whatever the level of the
/// log and whether or not it has started. None of them is dropped.
pub fn with_json_lines(write: impl FnOnce()) {
    let subscriber = tracing_subscriber::registry().with(lines(true, LogWriter::urgent()));
    tracing::subscriber::with_default(subscriber, write);
}

/// Writes a line of text to standard error, after those of the log. It is not dropped.
pub fn print_line(text: &str) {
    // Writing into the queue does not fail.
    let _ = LogWriter::urgent().write_all(format!("{text}\n").as_bytes());
}
