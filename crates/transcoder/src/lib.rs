//! Binds protobuf messages to REST calls and decodes their replies, from descriptors
//! annotated with `google.api.http` and Drawbridge's own options. Pure: no I/O, no
//! clock, no async.
//!
//! [`contract::Contract`] compiles descriptor sets into methods; a method binds a
//! request message to a [`call::Call`] and decodes a [`call::Reply`] into a response
//! message. [`json`] maps one to the other by the tables of the [`schema`]. What a
//! family of APIs adds comes in as a value, [`family::FamilyRules`].
//!
//! # Example
//!
//! ```
//! use drawbridge_transcoder::call::Reply;
//! use drawbridge_transcoder::contract::{Contract, Source};
//! use drawbridge_transcoder::family::FamilyRules;
//!
//! const PROTO: &str = r#"
//!     syntax = "proto3";
//!     package shop.v1;
//!     import "google/api/annotations.proto";
//!
//!     service OrderService {
//!       rpc GetOrder(GetOrderRequest) returns (Order) {
//!         option (google.api.http) = { get: "/orders/{order_id}" };
//!       }
//!     }
//!     message GetOrderRequest { string order_id = 1; bool details = 2; }
//!     message Order { string state = 1; }
//! "#;
//!
//! // A descriptor set, as `buf build -o shop.binpb` or protoc write it.
//! # let folder = tempfile::tempdir()?;
//! # std::fs::write(folder.path().join("shop.proto"), PROTO)?;
//! # let protos = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto");
//! # let mut compiler = protox::Compiler::new([folder.path(), protos.as_ref()])?;
//! # compiler.include_imports(true).open_file("shop.proto")?;
//! # let bytes = compiler.encode_file_descriptor_set();
//! let source = Source::new("shop.binpb", bytes);
//! let contract = Contract::compile(vec![source], &|_| FamilyRules::default())
//!     .expect("the annotations are consistent");
//! let method = contract.method("/shop.v1.OrderService/GetOrder").expect("it is there");
//!
//! // GetOrderRequest { order_id: "a/b", details: true } on the wire.
//! let call = method.bind(b"\x0a\x03a/b\x10\x01", "")?;
//! assert_eq!(call.path, "/orders/a%2Fb");
//! assert_eq!(call.query, "details=true");
//!
//! let reply = Reply {
//!     status: http::StatusCode::OK,
//!     headers: http::HeaderMap::new(),
//!     body: r#"{"state": "PAID"}"#.into(),
//! };
//! assert_eq!(method.decode(&reply)?.message, &b"\x0a\x04PAID"[..]);
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

/// Lets a file of tests name this crate as the gateway names it.
#[cfg(test)]
extern crate self as drawbridge_transcoder;

pub mod call;
pub mod contract;
mod error;
pub mod family;
pub mod json;
pub mod output_limit;
pub mod schema;

pub use error::Error;

/// Messages generated from `proto/drawbridge/v1/{options,watch}.proto`.
#[allow(clippy::all, missing_docs, rustdoc::all, unreachable_pub)]
pub mod api {
    include!(concat!(env!("OUT_DIR"), "/api.rs"));
}
