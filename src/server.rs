//! The gRPC server: `router` admits a request, `dispatcher` serves it by the engine or
//! by a watch, and the response is written back. `gateway` builds and runs it all.

mod authn;
mod codec;
mod dispatcher;
mod gateway;
mod gateway_service;
mod gauges;
mod health;
mod protocol;
mod reflection;
mod request_body_timeout;
mod response_stream;
mod response_write_timeout;
mod router;
mod served_method;
mod stream_info;
#[cfg(test)]
mod tests;
mod tls;
mod unary_response;
mod write_coalescing;

pub use authn::TOKEN;
pub(crate) use codec::WireCodec;
pub use gateway::{BoundGateway, Gateway, ServerHandle, start};
