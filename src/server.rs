//! The gRPC server: what `router` admits is dispatched to the engine or to a watch,
//! and its response is written back. `start` builds and runs it.

mod codec;
mod dispatcher;
mod gateway_service;
mod gauges;
mod health;
mod protocol;
mod request_body_timeout;
mod response_write_timeout;
mod router;
mod start;
mod stream_info;
#[cfg(test)]
mod tests;
mod unary_response;
mod write_coalescing;

pub(crate) use codec::WireCodec;
pub use dispatcher::{Engine, Served};
pub use router::TOKEN;
pub use start::{Running, start};
