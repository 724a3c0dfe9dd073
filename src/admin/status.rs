//! The status that the page shows: one JSON document. It has no message, no token, and no text
//! that may hold values of a request. Times are milliseconds since 1970.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use drawbridge_transcoder::contract::Outcome;
use serde::Serialize;

use crate::credentials::Expiry;
use crate::telemetry::FailedCall;
use crate::upstream::{Failure, Health, Upstream};
use crate::watch::{OpenWatch, Progress};

/// How many watches are listed; the rest is only counted.
pub const MAX_LISTED_WATCHES: usize = 100;

/// How many calls have ended with each code, by its name.
pub type CallsByCode = BTreeMap<&'static str, u64>;

/// What the page shows.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// When it was read.
    pub now: u64,
    /// The gateway itself.
    pub gateway: GatewayStatus,
    /// Upper bounds of [`UpstreamStatus::latencies`], in seconds.
    pub latency_bounds: &'static [f64],
    /// The upstreams, in the order of the configuration.
    pub upstreams: Vec<UpstreamStatus>,
    /// All calls, those without an upstream included.
    pub calls: CallsByCode,
    /// The open watches.
    pub watches: WatchesStatus,
    /// The last failed calls, the newest first.
    pub failed_calls: Vec<FailedCallStatus>,
}

/// The gateway itself.
#[derive(Clone, Debug, Serialize)]
pub struct GatewayStatus {
    /// The version of the gateway.
    pub version: &'static str,
    /// Whether it serves embedded upstreams.
    pub is_sandbox: bool,
    /// When it was started, in milliseconds since 1970.
    pub started_at: u64,
    /// Whether it accepts calls.
    pub is_ready: bool,
    /// Calls without a response.
    pub calls_in_flight: i64,
    /// Requests rejected without a known client token.
    pub unauthenticated: u64,
    /// Requests that are not gRPC, or name no rpc.
    pub unsupported: u64,
}

/// One upstream.
#[derive(Clone, Debug, Serialize)]
pub struct UpstreamStatus {
    /// Its name in the configuration.
    pub name: String,
    /// The family of its API.
    pub family: String,
    /// The dialect of the family.
    pub dialect: String,
    /// Whether calls that name no upstream go to it.
    pub is_default: bool,
    /// From the configuration or the login's catalog; none before the first login.
    pub endpoint: Option<String>,
    /// The kind of its credentials.
    pub credentials: &'static str,
    /// `never`, `not_logged_in` or `at`.
    pub expiry: &'static str,
    /// When its credentials expire, in milliseconds since 1970.
    pub expires_at: Option<u64>,
    /// `unknown`, `healthy` or `unhealthy`.
    pub state: &'static str,
    /// When the state has changed last, in milliseconds since 1970.
    pub since: u64,
    /// Why it went down last.
    pub last_failure: Option<FailureStatus>,
    /// Whether its circuit breaker rejects calls.
    pub is_breaker_open: bool,
    /// Calls that hold a permit.
    pub in_flight: usize,
    /// Its permits.
    pub max_in_flight: usize,
    /// Calls that wait for a permit.
    pub queued: usize,
    /// Calls that may wait for one.
    pub max_queued: usize,
    /// Retries since the start.
    pub retries: u64,
    /// Responses by the time that they took; the last number is of those that took longer than
    /// all bounds.
    pub latencies: Vec<u64>,
    /// Its calls by code.
    pub calls: CallsByCode,
}

/// Why an upstream went down.
#[derive(Clone, Debug, Serialize)]
pub struct FailureStatus {
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// What failed, and what to do.
    pub reason: String,
}

/// The open watches.
#[derive(Clone, Debug, Serialize)]
pub struct WatchesStatus {
    /// Open streams of watches, lists and downloads.
    pub streams: usize,
    /// Polled resources, lists and logs.
    pub total: usize,
    /// At most [`MAX_LISTED_WATCHES`] of them.
    pub listed: Vec<WatchStatus>,
}

/// One polled resource, list or log.
#[derive(Clone, Debug, Serialize)]
pub struct WatchStatus {
    /// The rpc, `package.Service/Method`.
    pub operation: Box<str>,
    /// The name of the upstream.
    pub upstream: Box<str>,
    /// The polled REST path, without the project and the query.
    pub path: String,
    /// Its open streams.
    pub streams: usize,
    /// When it was opened, in milliseconds since 1970.
    pub since: u64,
    /// Its polls so far.
    pub reads: u64,
    /// `resource`, `list` or `log`; none before the first read.
    pub kind: Option<&'static str>,
    /// The state of the resource, as its upstream calls it.
    pub state: Option<String>,
    /// `pending`, `succeeded` or `failed`.
    pub outcome: Option<&'static str>,
    /// The items of a list.
    pub items: Option<usize>,
    /// When it was read last, in milliseconds since 1970.
    pub observed_at: Option<u64>,
    /// Whether the newest read has failed.
    pub is_unconfirmed: bool,
}

/// A call that has failed.
#[derive(Clone, Debug, Serialize)]
pub struct FailedCallStatus {
    /// When it failed last, in milliseconds since 1970.
    pub at: u64,
    /// The gRPC code.
    pub code: &'static str,
    /// The kind of the failure: `reason` of `ErrorInfo`, or `HTTP_503`.
    pub kind: String,
    /// The rpc, `package.Service/Method`; empty if the request named none.
    pub operation: Box<str>,
    /// The name of the upstream; empty if it reached none.
    pub upstream: Box<str>,
    /// The gateway's id of the request.
    pub request_id: Box<str>,
    /// How long it took, in milliseconds; none for a request that was rejected at once.
    pub elapsed_ms: Option<u64>,
    /// How many requests in a row were rejected like this one.
    pub count: u64,
}

/// Returns a time as milliseconds since 1970.
pub fn millis(time: SystemTime) -> u64 {
    duration_millis(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn duration_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl UpstreamStatus {
    /// Reads the status of an upstream. The counts of its calls and responses are added by the
    /// caller.
    pub fn of(upstream: &Upstream, is_default: bool, now: SystemTime) -> Self {
        let settings = &upstream.settings;
        let stats = upstream.stats();
        let health = upstream.health_record();
        let (expiry, expires_at) = match upstream.credentials.expiry() {
            Expiry::Never => ("never", None),
            Expiry::NotLoggedIn => ("not_logged_in", None),
            Expiry::In(left) => ("at", Some(millis(now + left))),
        };
        Self {
            name: settings.name.clone(),
            family: settings.family.clone(),
            dialect: settings.dialect.clone(),
            is_default,
            endpoint: upstream.endpoint_text(),
            credentials: settings.auth.kind(),
            expiry,
            expires_at,
            state: match health.health {
                Health::Unknown => "unknown",
                Health::Healthy => "healthy",
                Health::Unhealthy => "unhealthy",
            },
            since: millis(health.since),
            last_failure: health.last_failure.map(FailureStatus::from),
            is_breaker_open: stats.circuit_breaker_open,
            in_flight: stats.in_flight,
            max_in_flight: settings.max_concurrent_calls,
            queued: stats.queued,
            max_queued: settings.max_queued_calls,
            retries: stats.retries_total,
            latencies: Vec::new(),
            calls: CallsByCode::new(),
        }
    }
}

impl From<Failure> for FailureStatus {
    fn from(failure: Failure) -> Self {
        Self {
            at: millis(failure.at),
            reason: failure.reason,
        }
    }
}

impl From<OpenWatch> for WatchStatus {
    fn from(watch: OpenWatch) -> Self {
        let mut status = Self {
            operation: watch.operation,
            upstream: watch.upstream,
            path: watch.path,
            streams: watch.streams,
            since: millis(watch.since),
            reads: watch.reads,
            kind: None,
            state: None,
            outcome: None,
            items: None,
            observed_at: None,
            is_unconfirmed: false,
        };
        let Some(observed) = watch.observed else {
            return status;
        };
        status.observed_at = Some(millis(observed.at));
        status.is_unconfirmed = observed.is_unconfirmed;
        status.kind = Some(match observed.progress {
            Progress::Resource(state, outcome) => {
                status.state = state;
                status.outcome = Some(match outcome {
                    Outcome::Pending => "pending",
                    Outcome::Succeeded => "succeeded",
                    Outcome::Failed => "failed",
                });
                "resource"
            }
            Progress::List(items) => {
                status.items = Some(items);
                "list"
            }
            Progress::Log => "log",
        });
        status
    }
}

impl From<FailedCall> for FailedCallStatus {
    fn from(call: FailedCall) -> Self {
        Self {
            at: millis(call.at),
            code: call.code,
            kind: call.kind,
            operation: call.operation,
            upstream: call.upstream,
            request_id: call.request_id,
            elapsed_ms: call.elapsed.map(duration_millis),
            count: call.count,
        }
    }
}
