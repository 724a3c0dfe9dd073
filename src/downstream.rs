//! What a call needs to know of the client that made it.

use http::{HeaderMap, HeaderValue};

/// The longest request id, in bytes; statuses have little room for it.
const MAX_REQUEST_ID: usize = 128;

/// What of the caller's metadata matters to a call.
#[derive(Clone, Default)]
pub struct Caller {
    /// `x-auth-token`, for upstreams with passthrough.
    pub token: Option<HeaderValue>,
    /// `authorization`, for upstreams with passthrough.
    pub authorization: Option<HeaderValue>,
    /// `x-request-id`, its first 128 bytes: goes to the upstream and into the log,
    /// and back to the caller with a failure.
    pub request_id: Option<HeaderValue>,
    /// W3C `traceparent` and `tracestate`.
    pub traceparent: Option<HeaderValue>,
    /// See `traceparent`.
    pub tracestate: Option<HeaderValue>,
    /// `accept-language`, where the family passes it on.
    pub accept_language: Option<HeaderValue>,
}

impl Caller {
    /// Reads the metadata of an rpc. Secret values are marked sensitive.
    pub fn of(metadata: &HeaderMap) -> Self {
        let get = |name: &str| metadata.get(name).cloned();
        let secret = |name: &str| {
            get(name).map(|mut value| {
                value.set_sensitive(true);
                value
            })
        };
        Self {
            token: secret("x-auth-token"),
            authorization: secret("authorization"),
            request_id: get("x-request-id").and_then(|id| {
                let bytes = id.as_bytes();
                HeaderValue::from_bytes(&bytes[..bytes.len().min(MAX_REQUEST_ID)]).ok()
            }),
            traceparent: get("traceparent"),
            tracestate: get("tracestate"),
            accept_language: get("accept-language"),
        }
    }
}
