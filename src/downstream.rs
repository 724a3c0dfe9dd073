//! The downstream client of a call: the metadata that an upstream or the log may receive.

use http::{HeaderMap, HeaderValue};

/// Limit of a request id, since statuses have little space for it.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// The metadata of a client that matters to a call.
#[derive(Clone, Default)]
pub struct Downstream {
    /// `x-auth-token`, for upstreams with passthrough.
    pub token: Option<HeaderValue>,
    /// `authorization`, for upstreams with passthrough.
    pub authorization: Option<HeaderValue>,
    /// The first 128 bytes of `x-request-id`: sent to the upstream, logged, and returned with
    /// an error.
    pub request_id: Option<HeaderValue>,
    /// W3C `traceparent`.
    pub traceparent: Option<HeaderValue>,
    /// W3C `tracestate`.
    pub tracestate: Option<HeaderValue>,
    /// `accept-language`, for families that forward it.
    pub accept_language: Option<HeaderValue>,
}

impl Downstream {
    /// Reads the metadata of an rpc. Secret values are marked sensitive.
    pub fn from_metadata(metadata: &HeaderMap) -> Self {
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
                HeaderValue::from_bytes(&bytes[..bytes.len().min(MAX_REQUEST_ID_BYTES)]).ok()
            }),
            traceparent: get("traceparent"),
            tracestate: get("tracestate"),
            accept_language: get("accept-language"),
        }
    }
}
