//! Prometheus metrics. Labels come from closed lists: operation, upstream, code.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tonic::Code;

/// Seconds; from a cached read to a slow engine.
const BUCKETS: [f64; 13] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 20.0, 60.0,
];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RpcLabels {
    operation: String,
    upstream: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CodeLabels {
    operation: String,
    upstream: String,
    code: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AttemptLabels {
    upstream: String,
    outcome: String,
}

/// All metrics of a gateway.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    calls: Family<CodeLabels, Counter>,
    seconds: Family<RpcLabels, Histogram, fn() -> Histogram>,
    attempts: Family<AttemptLabels, Counter>,
    in_flight: Gauge,
    /// Requests without a known client token.
    pub refused: Counter,
    /// Requests that are not gRPC.
    pub unsupported: Counter,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// The metrics of one operation at one upstream; found once, then counted
/// without a look-up.
#[derive(Debug)]
pub struct RpcMetrics {
    labels: RpcLabels,
    codes: [OnceLock<Counter>; 17],
    calls: Family<CodeLabels, Counter>,
    /// Found with the first call: most operations never see one, and a histogram
    /// is 16 lines of text.
    timed: OnceLock<Histogram>,
    seconds: Family<RpcLabels, Histogram, fn() -> Histogram>,
    /// Calls under way in the whole gateway.
    pub in_flight: Gauge,
}

/// Counts what became of each HTTP exchange with one upstream; each counter is
/// found once.
#[derive(Debug)]
pub struct AttemptMetrics {
    upstream: String,
    /// By status from 100 to 599; the last is for what is no such status.
    outcomes: Box<[OnceLock<Counter>; 501]>,
    attempts: Family<AttemptLabels, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("drawbridge");
        let metrics = Self {
            calls: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            attempts: Family::default(),
            in_flight: Gauge::default(),
            refused: Counter::default(),
            unsupported: Counter::default(),
            registry: Arc::default(),
        };
        registry.register(
            "rpc_calls",
            "Calls and streams that have ended, by code",
            metrics.calls.clone(),
        );
        registry.register_with_unit(
            "rpc_duration",
            "From the request to the answer; for streams, to the first message",
            Unit::Seconds,
            metrics.seconds.clone(),
        );
        registry.register(
            "upstream_exchanges",
            "HTTP exchanges with an upstream, by status or failure",
            metrics.attempts.clone(),
        );
        registry.register(
            "rpc_in_flight",
            "Calls under way",
            metrics.in_flight.clone(),
        );
        registry.register(
            "callers_refused",
            "Requests refused for want of a token that the gateway knows",
            metrics.refused.clone(),
        );
        registry.register(
            "unsupported_requests",
            "Requests rejected for their HTTP version, method or content type",
            metrics.unsupported.clone(),
        );
        *metrics.registry.lock().unwrap_or_else(|e| e.into_inner()) = registry;
        metrics
    }
}

impl Metrics {
    /// The metrics of an operation at an upstream.
    pub fn rpc(&self, operation: &str, upstream: &str) -> RpcMetrics {
        RpcMetrics {
            labels: RpcLabels {
                operation: operation.to_owned(),
                upstream: upstream.to_owned(),
            },
            timed: OnceLock::new(),
            seconds: self.seconds.clone(),
            codes: Default::default(),
            calls: self.calls.clone(),
            in_flight: self.in_flight.clone(),
        }
    }

    /// The counter of an upstream's exchanges.
    pub fn attempts(&self, upstream: &str) -> AttemptMetrics {
        AttemptMetrics {
            upstream: upstream.to_owned(),
            outcomes: Box::new([const { OnceLock::new() }; 501]),
            attempts: self.attempts.clone(),
        }
    }

    /// Adds values that are read when the metrics are.
    pub fn add_source(&self, source: impl Fn() -> Vec<Sample> + Send + Sync + 'static) {
        self.registry
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .register_collector(Box::new(Source(Box::new(source))));
    }

    /// The metrics in OpenMetrics text.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(|e| e.into_inner());
        prometheus_client::encoding::text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

impl RpcMetrics {
    /// Counts a call that ended with this code.
    pub fn count(&self, code: Code) {
        self.codes[code as usize]
            .get_or_init(|| {
                let labels = CodeLabels {
                    operation: self.labels.operation.clone(),
                    upstream: self.labels.upstream.clone(),
                    code: code_name(code),
                };
                self.calls.get_or_create(&labels).clone()
            })
            .inc();
    }

    /// Takes in how long a caller has waited for an answer, or for the first message
    /// of a stream.
    pub fn time(&self, elapsed: Duration) {
        self.timed
            .get_or_init(|| self.seconds.get_or_create(&self.labels).clone())
            .observe(elapsed.as_secs_f64());
    }
}

impl AttemptMetrics {
    /// Counts an exchange that ended with this HTTP status, or with none.
    pub fn count(&self, status: Option<u16>) {
        let known = status.filter(|s| (100..600).contains(s));
        let slot = known.map_or(500, |s| usize::from(s - 100));
        self.outcomes[slot]
            .get_or_init(|| {
                let labels = AttemptLabels {
                    upstream: self.upstream.clone(),
                    outcome: known.map_or_else(|| "no_answer".to_owned(), |s| s.to_string()),
                };
                self.attempts.get_or_create(&labels).clone()
            })
            .inc();
    }
}

/// A value read when the metrics are.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Name without the prefix.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// The upstream, where the value is of one.
    pub upstream: Option<String>,
    /// The value.
    pub value: u64,
    /// It only grows.
    pub counts: bool,
}

impl Sample {
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        match self.counts {
            true => ConstCounter::new(self.value).encode(encoder),
            false => ConstGauge::new(self.value as i64).encode(encoder),
        }
    }
}

struct Source(Box<dyn Fn() -> Vec<Sample> + Send + Sync>);

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}

impl Collector for Source {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut samples = (self.0)();
        samples.sort_by(|a, b| (a.name, &a.upstream).cmp(&(b.name, &b.upstream)));
        for group in samples.chunk_by(|a, b| a.name == b.name) {
            let of = &group[0];
            let kind = match of.counts {
                true => MetricType::Counter,
                false => MetricType::Gauge,
            };
            let mut metric = encoder.encode_descriptor(of.name, of.help, None, kind)?;
            if of.upstream.is_none() {
                of.encode(metric)?;
                continue;
            }
            for sample in group {
                let upstream = sample.upstream.as_deref().unwrap_or_default();
                sample.encode(metric.encode_family(&[("upstream", upstream)])?)?;
            }
        }
        Ok(())
    }
}

/// The canonical name of a code. Source: google.rpc.Code.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_show_up_in_the_text() {
        let metrics = Metrics::default();
        let rpc = metrics.rpc("a.B/C", "up");
        for _ in 0..2 {
            rpc.time(Duration::from_millis(3));
            rpc.count(Code::NotFound);
        }
        metrics.refused.inc();
        metrics.unsupported.inc_by(2);
        let attempts = metrics.attempts("up");
        for status in [Some(404), Some(404), None] {
            attempts.count(status);
        }
        metrics.add_source(|| {
            let of = |name, upstream: Option<&str>, value, counts| Sample {
                name,
                help: "Some",
                upstream: upstream.map(str::to_owned),
                value,
                counts,
            };
            vec![
                of("watchers", None, 7, false),
                of("queued", Some("up"), 1, false),
                of("queued", Some("b"), 2, false),
                of("polls", None, 3, true),
                of("retries", Some("up"), 4, true),
            ]
        });
        let text = metrics.text().unwrap();
        for line in [
            r#"drawbridge_rpc_calls_total{operation="a.B/C",upstream="up",code="NOT_FOUND"} 2"#,
            r#"drawbridge_rpc_duration_seconds_count{operation="a.B/C",upstream="up"} 2"#,
            r#"drawbridge_upstream_exchanges_total{upstream="up",outcome="404"} 2"#,
            r#"drawbridge_upstream_exchanges_total{upstream="up",outcome="no_answer"} 1"#,
            "drawbridge_watchers 7",
            "drawbridge_callers_refused_total 1",
            "drawbridge_unsupported_requests_total 2",
            r#"drawbridge_queued{upstream="up"} 1"#,
            r#"drawbridge_queued{upstream="b"} 2"#,
            "# TYPE drawbridge_polls counter",
            "drawbridge_polls_total 3",
            r#"drawbridge_retries_total{upstream="up"} 4"#,
        ] {
            assert!(text.contains(line), "{line} not in\n{text}");
        }
    }
}
