//! The part of the engine's `CallContext` that an upstream reads.

use std::sync::Mutex;

use drawbridge_transcoder::contract::Method;
use http::StatusCode;

use crate::deadline::Deadline;
use crate::downstream::Downstream;
use crate::http_client::ResponseBody;
use crate::http_client::retry_after::LongestWait;
use crate::upstream::CallPermit;

/// Where the body of a success is left, to be read as it arrives.
pub type BodySlot = Mutex<Option<ResponseBody>>;

/// The client, deadline and method of a REST call.
///
/// The engine's `CallContext` makes one for each REST call of an rpc: it adds the method to
/// its own client and deadline. It is a type of its own since `upstream` cannot import the
/// engine.
#[derive(Clone, Copy)]
pub struct RequestContext<'a> {
    /// The method's properties.
    pub method: MethodProperties<'a>,
    /// The client, whose credentials and headers may be forwarded.
    pub client: &'a Downstream,
    /// When the call must be over, retries included.
    pub deadline: Deadline,
    /// The permit of the rpc; none: each call waits for its own.
    pub permit: Option<&'a CallPermit<'a>>,
    /// None: the body is read completely.
    pub body_slot: Option<&'a BodySlot>,
    /// Where the `Retry-After` of a success is recorded, for those that read again.
    pub(crate) retry_after: Option<&'a LongestWait>,
    /// Whether it is a health check, which does not count for the circuit breaker.
    pub is_probe: bool,
}

/// The properties of a method that matter to an upstream.
#[derive(Clone, Copy, Debug)]
pub struct MethodProperties<'a> {
    /// The rpc, as `package.Service/Method`.
    pub operation: &'a str,
    /// The rpc's own name.
    pub rpc: &'a str,
    /// Whether some dialect lacks it.
    pub dialect_optional: bool,
    /// Dialects that may lack it.
    pub unverified_in: &'a [Box<str>],
    /// HTTP statuses outside 200 to 299 that are a success.
    pub also_success: &'a [u16],
    /// Whether it needs no credential: then none is sent.
    pub anonymous: bool,
}

impl<'a> MethodProperties<'a> {
    /// Returns the properties of this method.
    pub fn of(method: &'a Method) -> Self {
        Self {
            operation: &method.path[1..],
            rpc: &method.name,
            dialect_optional: !method.absent_in.is_empty(),
            unverified_in: &method.unverified_in,
            also_success: &method.also_success,
            anonymous: method.anonymous,
        }
    }

    /// Returns whether the HTTP status is a success.
    pub(super) fn succeeded(&self, status: StatusCode) -> bool {
        status.is_success() || self.also_success.contains(&status.as_u16())
    }
}
