//! One method as the gateway serves it, with its metrics.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderName;
use tonic::Response;

use crate::engine::unary::UnaryResponse;
use crate::server::response_metadata::{add_inexact, forward};
use crate::telemetry::{FailedCalls, RpcMetrics};
use crate::upstream::Upstream;
use drawbridge_transcoder::contract::Method;

/// A method, and its metrics for each upstream that can serve it.
#[derive(Debug)]
pub struct ServedMethod {
    pub(super) method: Arc<Method>,
    pub(super) by_upstream: Vec<(Arc<Upstream>, RpcMetrics)>,
    /// Metrics of calls that fail before an upstream is selected.
    pub(super) unrouted: RpcMetrics,
    /// Where its failed calls are kept.
    pub(super) failed_calls: FailedCalls,
    /// Headers of the upstream's response that become response metadata.
    pub(super) forwarded_headers: Vec<HeaderName>,
}

impl ServedMethod {
    /// Makes the gRPC response and its metadata.
    pub(super) fn response(&self, response: UnaryResponse) -> Response<Bytes> {
        let UnaryResponse {
            decoded,
            headers,
            buffer_permit,
        } = response;
        let mut response = Response::new(decoded.message);
        if buffer_permit.0.is_some() {
            response.extensions_mut().insert(buffer_permit);
        }
        let metadata = response.metadata_mut().as_mut();
        forward(&self.forwarded_headers, &headers, metadata);
        add_inexact(&decoded.notes, metadata);
        response
    }
}
