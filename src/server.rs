//! The gRPC server. A request passes, in this order:
//!
//! 1. `accept` admits the connection within `connection_limits`, `tls` does its handshake, and
//!    `listener` serves HTTP/2 or HTTP/1.1 on it with hyper. `client_io` and `stream_executor` end
//!    connections and streams whose client sends or reads nothing. A connection that is too
//!    old ends its streams by `connection_end`.
//! 2. `router` chooses the protocol (`protocol`), which makes a call of gRPC-Web or Connect one
//!    of gRPC. It rejects what is not a call, has too much metadata, is not authenticated (`authn`)
//!    or names no rpc, and looks up the `served_method`.
//!    `health_service` (probes: `health`), `reflection` and `gateway_service` are services of
//!    their own.
//! 3. `dispatcher` opens the record of the call (`stream_info`), selects the upstream, and reads
//!    the message within `request_body_timeout`, in its `message_format` (JSON: `client_json`).
//! 4. `crate::engine` turns the request message into the response message; a streaming
//!    call, which may be a watch (`crate::watch`), has a `response_stream`.
//! 5. The response gets its `response_metadata`. `unary_body` frames a message without a
//!    copy, and `response_write_timeout` drops a response whose client does not read.
//! 6. `write_coalescing` writes the responses that are ready to the socket at once.
//!
//! `gateway` builds all of it and serves; `drain` ends it. `generation` is what one
//! configuration determines, and `reloader` replaces it; `listen_files` rereads certificates and
//! client tokens. `admin_listener` serves the pages of `crate::admin`; `status` reads what
//! their page shows. `descriptors` divides the open files of the process.

mod accept;
mod admin_listener;
mod admission;
mod authn;
mod charged_body;
mod client_io;
mod client_json;
mod client_limits;
mod codec;
mod compression;
mod connection_end;
mod connection_limits;
mod connection_memory;
mod descriptors;
mod dispatcher;
mod drain;
mod gateway;
mod gateway_service;
mod gauges;
mod generation;
mod header_blocks;
mod health;
mod health_service;
mod http1_body;
mod http1_errors;
mod listen_files;
mod listener;
mod message_format;
mod messages_body;
mod protocol;
mod reflection;
mod reloader;
mod request_body_timeout;
mod request_message;
mod response_metadata;
mod response_stream;
mod response_write_timeout;
mod router;
mod served_method;
mod status;
mod stream_executor;
mod stream_info;
#[cfg(test)]
mod tests;
mod tls;
mod unary_body;
mod visibility;
mod write_coalescing;

pub use authn::TOKEN;
pub(crate) use codec::WireCodec;
pub(crate) use descriptors::raise_limit as raise_descriptor_limit;
pub use gateway::{BoundGateway, Gateway, ServerHandle};
pub use listen_files::Reloaded;
pub use reloader::ReloadHandle;
