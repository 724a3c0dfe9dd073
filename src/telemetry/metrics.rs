//! Prometheus metrics. Labels come from closed sets: operation, upstream, gRPC code, HTTP
//! status. `docs/operations.md` describes each metric.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
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

use super::connection_metrics::{ConnectionFamilies, ConnectionMetrics};

/// Upper bounds in seconds, from a cached lookup to Heat's 60 s for its engine.
pub const DURATION_BUCKETS: [f64; 13] = [
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
struct ProtocolLabels {
    protocol: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct UpstreamRequestLabels {
    upstream: String,
    http_status: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ClientLabels {
    identity: String,
}

/// The most identities that have a series of their own.
const MAX_IDENTITIES: usize = 100;

/// The label of identities beyond those.
const OTHER_IDENTITIES: &str = "other";

/// Counts the calls of each client.
#[derive(Clone, Debug, Default)]
pub struct ClientCalls {
    calls: Family<ClientLabels, Counter>,
    /// The identities that have a series.
    known: Arc<Mutex<BTreeSet<String>>>,
}

impl ClientCalls {
    /// Returns what counts the calls of an identity.
    pub fn of(&self, identity: &str) -> Counter {
        let mut known = self.known.lock().unwrap_or_else(|e| e.into_inner());
        let has_series = known.contains(identity)
            || known.len() < MAX_IDENTITIES && known.insert(identity.to_owned());
        let identity = if has_series {
            identity
        } else {
            OTHER_IDENTITIES
        }
        .to_owned();
        self.calls.get_or_create(&ClientLabels { identity }).clone()
    }
}

/// The protocol by which a client makes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RpcProtocol {
    Grpc,
    GrpcWeb,
    Connect,
}

impl RpcProtocol {
    const ALL: [Self; 3] = [Self::Grpc, Self::GrpcWeb, Self::Connect];

    /// Returns the name in the log and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::GrpcWeb => "grpc-web",
            Self::Connect => "connect",
        }
    }
}

/// All metrics of a gateway.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    calls: Family<CodeLabels, Counter>,
    durations: Family<RpcLabels, Histogram, fn() -> Histogram>,
    upstream_requests: Family<UpstreamRequestLabels, Counter>,
    /// In the order of [`RpcProtocol::ALL`].
    requests: [Counter; RpcProtocol::ALL.len()],
    in_flight: Gauge,
    connections: ConnectionFamilies,
    /// Counts the calls of each client.
    pub client_calls: ClientCalls,
    /// Counts requests without a known client token.
    pub unauthenticated: Counter,
    /// Counts requests that are not calls, whose metadata is too large or whose rpc does not
    /// exist.
    pub unsupported: Counter,
    /// Counts TLS handshakes that were refused or not completed.
    pub refused_tls_handshakes: Counter,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Counts and times the calls of one operation at one upstream. Each series is looked up
/// once.
#[derive(Clone, Debug)]
pub struct RpcMetrics {
    labels: RpcLabels,
    codes: [OnceLock<Counter>; 17],
    calls: Family<CodeLabels, Counter>,
    /// Created by the first call: most operations are never called, and a histogram is 16
    /// lines of text.
    duration: OnceLock<Histogram>,
    durations: Family<RpcLabels, Histogram, fn() -> Histogram>,
    /// Calls in flight in the gateway, of all operations.
    pub in_flight: Gauge,
}

/// Counts the HTTP exchanges with one upstream by status. Each series is looked up once.
#[derive(Debug)]
pub struct UpstreamRequestMetrics {
    upstream: String,
    /// By [`status_slot`].
    counters: Box<[OnceLock<Counter>; STATUS_SLOTS]>,
    /// How many responses took at most so long, by [`DURATION_BUCKETS`], and how many longer.
    latencies: [AtomicU64; DURATION_BUCKETS.len() + 1],
    upstream_requests: Family<UpstreamRequestLabels, Counter>,
}

/// One slot per status from 100 to 599, one for other statuses, one for no response.
const STATUS_SLOTS: usize = 502;

/// Returns the slot of a response's status, and its label.
fn status_slot(status: Option<u16>) -> (usize, String) {
    match status {
        Some(status @ 100..600) => (usize::from(status - 100), status.to_string()),
        Some(_) => (500, "other".to_owned()),
        None => (501, "no_response".to_owned()),
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("drawbridge");
        let requests: Family<ProtocolLabels, Counter> = Family::default();
        let of_protocol = |protocol: RpcProtocol| {
            let protocol = protocol.name();
            requests.get_or_create(&ProtocolLabels { protocol }).clone()
        };
        let metrics = Self {
            calls: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS)),
            upstream_requests: Family::default(),
            requests: RpcProtocol::ALL.map(of_protocol),
            in_flight: Gauge::default(),
            connections: ConnectionFamilies::default(),
            client_calls: ClientCalls::default(),
            unauthenticated: Counter::default(),
            unsupported: Counter::default(),
            refused_tls_handshakes: Counter::default(),
            registry: Arc::default(),
        };
        registry.register(
            "rpc_calls",
            "Calls and streams that have ended, by gRPC code",
            metrics.calls.clone(),
        );
        registry.register_with_unit(
            "rpc_duration",
            "Time from the request headers to the response, of a stream to its first message",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        registry.register(
            "rpc_requests",
            "Requests for an rpc, also for one that does not exist, by protocol of the client",
            requests,
        );
        registry.register(
            "rpc_calls_in_flight",
            "Calls and streams that have not ended",
            metrics.in_flight.clone(),
        );
        registry.register(
            "upstream_requests",
            "HTTP requests to an upstream, retries included, by status of the response",
            metrics.upstream_requests.clone(),
        );
        registry.register(
            "client_calls",
            "Calls and streams that have ended, by the identity of the client",
            metrics.client_calls.calls.clone(),
        );
        registry.register(
            "unauthenticated_requests",
            "Requests rejected because they have no known client token",
            metrics.unauthenticated.clone(),
        );
        registry.register(
            "unsupported_requests",
            "Requests rejected because of their HTTP version, method, content type, size of \
             metadata or unknown rpc",
            metrics.unsupported.clone(),
        );
        registry.register(
            "refused_tls_handshakes",
            "TLS handshakes of clients that were refused or not completed",
            metrics.refused_tls_handshakes.clone(),
        );
        metrics.connections.register(&mut registry);
        *metrics.registry.lock().unwrap_or_else(|e| e.into_inner()) = registry;
        metrics
    }
}

impl Metrics {
    /// Returns the number of calls and streams that have not ended.
    pub fn calls_in_flight(&self) -> i64 {
        self.in_flight.get()
    }

    /// Counts a request for an rpc.
    pub fn count_request(&self, protocol: RpcProtocol) {
        self.requests[protocol as usize].inc();
    }

    /// Returns the metrics of an operation at an upstream.
    pub fn rpc(&self, operation: &str, upstream: &str) -> RpcMetrics {
        RpcMetrics {
            labels: RpcLabels {
                operation: operation.to_owned(),
                upstream: upstream.to_owned(),
            },
            duration: OnceLock::new(),
            durations: self.durations.clone(),
            codes: Default::default(),
            calls: self.calls.clone(),
            in_flight: self.in_flight.clone(),
        }
    }

    /// Returns the metrics of a listener's connections.
    pub fn connections(&self, listener: &'static str) -> ConnectionMetrics {
        self.connections.of(listener)
    }

    /// Returns the counters of the HTTP exchanges with an upstream.
    pub fn upstream_requests(&self, upstream: &str) -> UpstreamRequestMetrics {
        UpstreamRequestMetrics {
            upstream: upstream.to_owned(),
            counters: Box::new([const { OnceLock::new() }; STATUS_SLOTS]),
            latencies: Default::default(),
            upstream_requests: self.upstream_requests.clone(),
        }
    }

    /// Registers values that `source` computes at each scrape.
    pub fn add_source(&self, source: impl Fn() -> Vec<Sample> + Send + Sync + 'static) {
        self.registry
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .register_collector(Box::new(Source(Box::new(source))));
    }

    /// Renders the metrics in the OpenMetrics text format.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(|e| e.into_inner());
        prometheus_client::encoding::text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

impl RpcMetrics {
    /// Counts a call that has ended with `code`.
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

    /// Returns how many calls have ended with each code.
    pub fn counts(&self) -> impl Iterator<Item = (Code, u64)> + '_ {
        let counters = self.codes.iter().enumerate();
        counters.filter_map(|(code, counter)| {
            let code = Code::from_i32(i32::try_from(code).unwrap_or_default());
            counter.get().map(|counter| (code, counter.get()))
        })
    }

    /// Observes the time to the response, or to the first message of a stream.
    pub fn time(&self, elapsed: Duration) {
        self.duration
            .get_or_init(|| self.durations.get_or_create(&self.labels).clone())
            .observe(elapsed.as_secs_f64());
    }
}

impl UpstreamRequestMetrics {
    /// Counts an exchange by the status of its response, if one arrived, and by its duration.
    pub fn count(&self, status: Option<u16>, elapsed: Duration) {
        let (slot, http_status) = status_slot(status);
        if status.is_some() {
            let secs = elapsed.as_secs_f64();
            let bucket = DURATION_BUCKETS.partition_point(|bound| *bound < secs);
            self.latencies[bucket].fetch_add(1, Relaxed);
        }
        self.counters[slot]
            .get_or_init(|| {
                let labels = UpstreamRequestLabels {
                    upstream: self.upstream.clone(),
                    http_status,
                };
                self.upstream_requests.get_or_create(&labels).clone()
            })
            .inc();
    }

    /// Returns the number of responses per bucket of [`DURATION_BUCKETS`]; the last one has
    /// those that took longer.
    pub fn latencies(&self) -> [u64; DURATION_BUCKETS.len() + 1] {
        std::array::from_fn(|bucket| self.latencies[bucket].load(Relaxed))
    }
}

/// One value of a source, see [`Metrics::add_source`].
#[derive(Clone, Debug)]
pub struct Sample {
    /// The name, without the prefix `drawbridge_` and without `_total`.
    pub name: &'static str,
    /// The help text.
    pub help: &'static str,
    /// The label `upstream`, if the value is that of one upstream.
    pub upstream: Option<String>,
    /// Another label and its value, if there is a value for each: `("result", "rejected")`.
    pub label: Option<(&'static str, &'static str)>,
    /// The value.
    pub value: u64,
    /// Whether it is a counter; otherwise it is a gauge.
    pub is_counter: bool,
}

impl Sample {
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        match self.is_counter {
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
            let first = &group[0];
            let kind = match first.is_counter {
                true => MetricType::Counter,
                false => MetricType::Gauge,
            };
            let mut metric = encoder.encode_descriptor(first.name, first.help, None, kind)?;
            if first.upstream.is_none() && first.label.is_none() {
                first.encode(metric)?;
                continue;
            }
            for sample in group {
                let upstream = sample.upstream.as_deref();
                let upstream = upstream.map(|upstream| ("upstream", upstream));
                let labels: Vec<_> = upstream.into_iter().chain(sample.label).collect();
                sample.encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

/// Returns the canonical name of a code, as in `google.rpc.Code`.
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
    fn identities_beyond_the_first_ones_share_a_series() {
        let metrics = Metrics::default();
        for number in 0..MAX_IDENTITIES + 3 {
            metrics.client_calls.of(&format!("jwt:{number}")).inc();
        }
        metrics.client_calls.of("jwt:0").inc();
        let text = metrics.text().unwrap();
        let series = text.lines().filter(|line| line.contains("identity=\""));
        assert_eq!(series.count(), MAX_IDENTITIES + 1);
        for line in ["jwt:0\"} 2", "other\"} 3"] {
            assert!(text.contains(line), "{text}");
        }
    }

    #[test]
    fn text_has_counters_histograms_and_samples() {
        let metrics = Metrics::default();
        let rpc = metrics.rpc("a.B/C", "up");
        for _ in 0..2 {
            rpc.time(Duration::from_millis(3));
            rpc.count(Code::NotFound);
        }
        metrics.unauthenticated.inc();
        metrics.count_request(RpcProtocol::Connect);
        metrics.unsupported.inc_by(2);
        let connections = metrics.connections("grpc");
        connections.open.set(3);
        connections.refused("total");
        connections.closed("idle");
        let requests = metrics.upstream_requests("up");
        for status in [Some(404), Some(404), Some(999), None] {
            requests.count(status, Duration::from_millis(7));
        }
        let mut want = [0; 14];
        want[4] = 3;
        assert_eq!(requests.latencies(), want, "no response is not timed");
        metrics.add_source(|| {
            let sample = |name, upstream: Option<&str>, value, is_counter| Sample {
                name,
                help: "Help",
                upstream: upstream.map(str::to_owned),
                label: None,
                value,
                is_counter,
            };
            vec![
                sample("open_streams", None, 7, false),
                sample("queued", Some("up"), 1, false),
                sample("queued", Some("b"), 2, false),
                sample("polls", None, 3, true),
                sample("retries", Some("up"), 4, true),
                Sample {
                    label: Some(("result", "rejected")),
                    ..sample("logins", Some("up"), 5, true)
                },
            ]
        });
        let text = metrics.text().unwrap();
        for line in [
            r#"drawbridge_rpc_calls_total{operation="a.B/C",upstream="up",code="NOT_FOUND"} 2"#,
            r#"drawbridge_rpc_duration_seconds_count{operation="a.B/C",upstream="up"} 2"#,
            r#"drawbridge_upstream_requests_total{upstream="up",http_status="404"} 2"#,
            r#"drawbridge_upstream_requests_total{upstream="up",http_status="other"} 1"#,
            r#"drawbridge_upstream_requests_total{upstream="up",http_status="no_response"} 1"#,
            "drawbridge_open_streams 7",
            "drawbridge_unauthenticated_requests_total 1",
            r#"drawbridge_rpc_requests_total{protocol="grpc"} 0"#,
            r#"drawbridge_rpc_requests_total{protocol="connect"} 1"#,
            "drawbridge_unsupported_requests_total 2",
            r#"drawbridge_connections{listener="grpc"} 3"#,
            r#"drawbridge_refused_connections_total{listener="grpc",limit="total"} 1"#,
            r#"drawbridge_closed_connections_total{listener="grpc",reason="idle"} 1"#,
            r#"drawbridge_accept_pauses_total{listener="grpc"} 0"#,
            r#"drawbridge_queued{upstream="up"} 1"#,
            r#"drawbridge_queued{upstream="b"} 2"#,
            "# TYPE drawbridge_polls counter",
            "drawbridge_polls_total 3",
            r#"drawbridge_retries_total{upstream="up"} 4"#,
            r#"drawbridge_logins_total{upstream="up",result="rejected"} 5"#,
        ] {
            assert!(text.contains(line), "{line} not in\n{text}");
        }
    }
}
