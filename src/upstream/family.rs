//! The interface of a family of APIs: what an upstream needs in addition to its protos.
//!
//! A family is data and one function, the error mapping. [`crate::families`] defines them;
//! an upstream gets one as a value.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value};

use crate::downstream::CorrelationHeader;
use crate::error::Fault;
use drawbridge_transcoder::call::{Idempotency, Reply};
use drawbridge_transcoder::family::ErrorStatus;

/// Maps an error reply to a fault.
pub type ErrorMapping = fn(&FaultContext<'_>, &Reply) -> Fault;

/// Compares values of a request with definitions of the upstream. Arguments: the
/// definitions as messages, the values by key, the action's document. Returns the invalid
/// keys, each with its problem.
pub type Checker = fn(&[Bytes], &Map<String, Value>, &[u8]) -> Vec<(String, String)>;

/// What an error mapping reads in addition to the reply.
#[derive(Clone, Copy, Debug)]
pub struct FaultContext<'a> {
    /// The upstream's dialect.
    pub dialect: &'a str,
    /// The rpc's own name: `DeleteSoftwareConfig`.
    pub rpc: &'a str,
    /// Whether some dialect of the family lacks the operation.
    pub dialect_optional: bool,
    /// Whether the call can be repeated.
    pub idempotency: Idempotency,
}

/// Returns the family of a name.
pub type Families = fn(&str) -> &'static Family;

/// A family of APIs: data, and its error mapping.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// The name used in protos, configuration, logs and metrics.
    pub name: &'static str,
    /// The dialects, the default first. Empty if the family has none.
    pub dialects: &'static [&'static str],
    /// Maps an error reply to a fault.
    pub fault: ErrorMapping,
    /// Recognizes an error body in a response with a success status, and returns the HTTP
    /// status of the error: the one that the body names, else 500.
    pub error_status: ErrorStatus,
    /// Path suffixes of a configured or catalog endpoint that the paths of the protos begin
    /// with; removed from the endpoint. `{project_id}` matches one segment, which becomes
    /// the project id. Longest first.
    pub endpoint_suffixes: &'static [&'static str],
    /// The kinds of credentials that the API accepts. Empty: any.
    pub credential_kinds: &'static [&'static str],
    /// The service type in the catalog, for logins that return a catalog.
    pub catalog_type: Option<&'static str>,
    /// Whether a login may name a project without a domain.
    pub bare_project_names: bool,
    /// Headers of every call.
    pub headers: &'static [(&'static str, &'static str)],
    /// The default of `accept-language`. None: the header is not forwarded.
    pub accept_language: Option<&'static str>,
    /// A redirect whose `Location` has this path segment is followed once, below the
    /// endpoint and from this segment on, with the same method and body.
    pub redirect_anchor: Option<&'static str>,
    /// The request header by which the API and its login correlate a call. None: only
    /// `x-request-id` is sent, to the API.
    pub correlation: Option<CorrelationHeader>,
    /// Reply headers with the upstream's request id, the preferred one first.
    pub request_id_headers: &'static [&'static str],
    /// An inexpensive path for health probes: a response of any status means healthy.
    pub probe: &'static str,
    /// Errors in addition to 429 with which the upstream certainly did not act, so that any
    /// call is retried: the HTTP status, and a part of the message. Only what the API
    /// documents.
    pub not_processed: &'static [(u16, &'static str)],
    /// The checks that `(drawbridge.v1.method).check` can name.
    pub checkers: &'static [(&'static str, Checker)],
}

impl Family {
    /// Returns the upstream's id of a request, from the reply's headers.
    pub fn request_id(&self, headers: &HeaderMap) -> Option<String> {
        self.request_id_headers
            .iter()
            .find_map(|name| headers.get(*name)?.to_str().ok().map(str::to_owned))
    }
}

/// Returns the cause and the advice for a 502, 503 or 504; None for other statuses.
pub(crate) fn gateway_error_hint(
    status: StatusCode,
    idempotency: Idempotency,
    not_processed: bool,
) -> Option<String> {
    let cause = match status.as_u16() {
        502 => "a proxy in front of it got no valid response from it",
        503 => "it does not serve at the moment",
        504 => "a proxy in front of it got no response from it in time",
        _ => return None,
    };
    let advice = match idempotency {
        Idempotency::NonIdempotent if !not_processed => {
            "the upstream may have acted: check before you repeat the call"
        }
        _ => "try again later; if it persists, check that the upstream is running",
    };
    Some(format!("{cause}; {advice}"))
}
