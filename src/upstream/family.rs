//! What the gateway knows of a family of APIs beside its protos.
//!
//! A family is data and a function that reads an error reply. [`crate::families`] has
//! them by name; an upstream gets its own as a value.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value};

use crate::error::Fault;
use drawbridge_transcoder::call::{Idempotency, Reply};

/// Reads an error reply.
pub type FaultReader = fn(&FaultContext<'_>, &Reply) -> Fault;

/// Compares values of a request with definitions of the upstream: takes the
/// definitions as messages, the values by key, and the action's document. Returns
/// what is wrong: key and problem, each.
pub type Checker = fn(&[Bytes], &Map<String, Value>, &[u8]) -> Vec<(String, String)>;

/// What a fault reader may look at beside the reply.
#[derive(Clone, Copy, Debug)]
pub struct FaultContext<'a> {
    /// The upstream's dialect.
    pub dialect: &'a str,
    /// The rpc's own name: `DeleteSoftwareConfig`.
    pub rpc: &'a str,
    /// Whether some dialect of the family lacks the operation.
    pub dialect_optional: bool,
    /// Whether the call may be sent twice.
    pub idempotency: Idempotency,
}

/// Returns the family of a name.
pub type Families = fn(&str) -> &'static Family;

/// A family of APIs: data, and the one function that reads its errors.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// The name used in protos, configuration, logs and metrics.
    pub name: &'static str,
    /// The dialects, the default one first. Empty: the family has none.
    pub dialects: &'static [&'static str],
    /// Reads an error reply.
    pub fault: FaultReader,
    /// What a configured or catalog endpoint may end in and the paths of the
    /// protos begin with: cut off. `{project_id}` stands for one segment, which
    /// then is the project id. Longest first.
    pub endpoint_suffixes: &'static [&'static str],
    /// The catalog's service type, for logins that bring a catalog.
    pub catalog_type: Option<&'static str>,
    /// A login may name a project by its name alone, without a domain.
    pub bare_project_names: bool,
    /// Headers of every call.
    pub headers: &'static [(&'static str, &'static str)],
    /// The caller's `accept-language` goes to the upstream; this is the default.
    pub accept_language: Option<&'static str>,
    /// A 302 whose `Location` has this path segment is followed once, re-based
    /// on the endpoint from this segment on, with the same method and body.
    pub redirect_anchor: Option<&'static str>,
    /// Reply headers that hold the upstream's request id, best first.
    pub request_id_headers: &'static [&'static str],
    /// A cheap path whose answer, whatever its status, shows that the upstream
    /// is there.
    pub probe: &'static str,
    /// A cheap call that every caller with credentials may make, for
    /// `drawbridge check`: path, with `{project_id}`, and query.
    pub login_check: Option<(&'static str, &'static str)>,
    /// What `(drawbridge.v1.method).check` can name.
    pub checkers: &'static [(&'static str, Checker)],
}

impl Family {
    /// The upstream's id of a request, from the reply's headers.
    pub fn request_id(&self, headers: &HeaderMap) -> Option<String> {
        self.request_id_headers
            .iter()
            .find_map(|name| headers.get(*name)?.to_str().ok().map(str::to_owned))
    }
}

/// What it means, and what to do, when the service behind the endpoint does not
/// answer for itself. None for other statuses.
pub(crate) fn absence_hint(
    status: StatusCode,
    idempotency: Idempotency,
    not_processed: bool,
) -> Option<String> {
    let what = match status.as_u16() {
        502 => "a proxy before it had no valid answer from it",
        503 => "it does not serve at the moment",
        504 => "a proxy before it had no answer from it in time",
        _ => return None,
    };
    let advice = match idempotency {
        Idempotency::NonIdempotent if !not_processed => {
            "the upstream may have acted, look before sending it again"
        }
        _ => "try again later, and if it lasts see whether it runs",
    };
    Some(format!("{what}; {advice}"))
}
