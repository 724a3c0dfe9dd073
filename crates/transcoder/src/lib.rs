//! Binds protobuf messages to REST calls and decodes their replies, from descriptors
//! annotated with `google.api.http` and Drawbridge's own options. Pure: no I/O, no
//! clock, no async.
//!
//! [`contract::Contract`] compiles descriptor sets into methods; a method binds a
//! request message to a [`call::Call`] and decodes a [`call::Reply`] into a response
//! message. [`json`] maps one to the other by the tables of the [`schema`]. What a
//! family of APIs adds comes in as a value, [`family::FamilyRules`].

/// Lets a file of tests name this crate as the gateway names it.
#[cfg(test)]
extern crate self as drawbridge_transcoder;

pub mod call;
pub mod contract;
mod error;
pub mod family;
pub mod json;
pub mod schema;

pub use error::Error;

/// Messages generated from `proto/drawbridge/v1/{options,watch}.proto`.
#[allow(clippy::all, missing_docs, rustdoc::all, unreachable_pub)]
pub mod api {
    include!(concat!(env!("OUT_DIR"), "/api.rs"));
}
