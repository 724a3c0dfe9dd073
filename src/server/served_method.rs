//! One method as the gateway serves it, with its metrics.

use std::sync::Arc;

use http::HeaderName;
use http_body_util::Full;
use tonic::body::Body;

use crate::engine::unary::UnaryResponse;
use crate::error::Error;
use crate::memory::Reservation;
use crate::server::response_metadata::{add_inexact, forward, grpc_response};
use crate::server::unary_body::UnaryBody;
use crate::telemetry::{ClientCalls, FailedCalls, RpcMetrics};
use crate::upstream::Upstream;
use drawbridge_transcoder::contract::Method;

/// A method, and its metrics for each upstream that can serve it.
#[derive(Debug)]
pub struct ServedMethod {
    pub(super) method: Arc<Method>,
    pub(super) by_upstream: Vec<(Arc<Upstream>, RpcMetrics)>,
    /// Metrics of calls that fail before an upstream is selected.
    pub(super) unrouted: RpcMetrics,
    /// Counts the calls of each client.
    pub(super) client_calls: ClientCalls,
    /// Where its failed calls are kept.
    pub(super) failed_calls: FailedCalls,
    /// Headers of the upstream's response that become response metadata.
    pub(super) forwarded_headers: Vec<HeaderName>,
}

impl ServedMethod {
    /// Returns the metrics of an upstream; with an empty name of calls without one.
    pub(super) fn metrics_of(&self, upstream: &str) -> Option<RpcMetrics> {
        if upstream.is_empty() {
            return Some(self.unrouted.clone());
        }
        let mut all = self.by_upstream.iter();
        let found = all.find(|(one, _)| one.settings.name == upstream);
        found.map(|(_, metrics)| metrics.clone())
    }

    /// Makes the gRPC response and its metadata, of a message that may be compressed. It keeps
    /// `held`, the memory of the call.
    pub(super) fn response(
        &self,
        response: UnaryResponse,
        is_bare: bool,
        is_compressed: bool,
        held: Reservation,
    ) -> Result<http::Response<Body>, Error> {
        let UnaryResponse { decoded, headers } = response;
        let body = match is_bare {
            true => Body::new(Full::new(held.attach(decoded.message))),
            false => {
                let limit = u32::MAX as usize;
                let body = UnaryBody::new(decoded.message, is_compressed, held);
                Body::new(body.ok_or(Error::ResponseTooLarge { limit })?)
            }
        };
        let mut response = grpc_response(body, is_compressed);
        let metadata = response.headers_mut();
        forward(&self.forwarded_headers, &headers, metadata);
        add_inexact(&decoded.notes, metadata);
        Ok(response)
    }
}
