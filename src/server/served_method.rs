//! One method as the gateway serves it, with its metrics.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tonic::Response;

use crate::engine::unary::UnaryResponse;
use crate::server::unary_response;
use crate::telemetry::RpcMetrics;
use crate::upstream::Upstream;
use drawbridge_transcoder::contract::Method;

/// Longest header value of the upstream that is forwarded to the client.
const MAX_FORWARDED_BYTES: usize = 1 << 10;

/// Response metadata: paths of integers that are rounded in the message.
pub(super) const INEXACT: HeaderName = HeaderName::from_static("drawbridge-inexact");

/// A method and its metrics, at each upstream that can serve it.
#[derive(Debug)]
pub struct ServedMethod {
    pub(super) method: Arc<Method>,
    pub(super) at: Vec<(Arc<Upstream>, RpcMetrics)>,
    /// Calls that failed before an upstream was picked.
    pub(super) nowhere: RpcMetrics,
    pub(super) forwarded: Vec<HeaderName>,
}

impl ServedMethod {
    /// The response, with what goes into its metadata.
    pub(super) fn response(&self, answered: UnaryResponse) -> Response<Bytes> {
        let UnaryResponse {
            decoded,
            headers,
            room,
        } = answered;
        let mut response = Response::new(decoded.message);
        if room.0.is_some() {
            response.extensions_mut().insert(room);
        }
        let metadata = response.metadata_mut().as_mut();
        self.forward(&headers, metadata);
        if let Some(paths) = unary_response::inexact(&decoded.notes) {
            metadata.insert(INEXACT, paths);
        }
        response
    }

    /// Copies what the upstream says of the request into response metadata; but not
    /// what some clients take for a broken answer.
    pub(super) fn forward(&self, from: &HeaderMap, to: &mut HeaderMap) {
        for name in &self.forwarded {
            let value = from.get(name);
            let fits =
                |value: &&HeaderValue| value.len() <= MAX_FORWARDED_BYTES && value.to_str().is_ok();
            if let Some(value) = value.filter(fits) {
                to.insert(name.clone(), value.clone());
            }
        }
    }
}
