//! Drawbridge: a gRPC gateway to the REST APIs that deploy and automate
//! infrastructure.
//!
//! Read in this order, which is the way of a request: [`gateway`] takes an rpc
//! and looks it up in the [`contract`]; the contract binds the message to a REST
//! [`rest::Call`] with [`transcode`], which walks the tables of the [`schema`];
//! [`upstream`] sends it within its [`deadline`], as whom [`auth`] says, over
//! [`transport`]; the reply goes back the same way ([`unary`] says it in one
//! sentence). [`resolve`] finds out what a caller left out of the path, [`action`]
//! makes a call in two steps, [`watch`] polls for streams, [`pages`] walks long lists,
//! both in places that [`streams`] gives, and [`files`] takes and gives files. What no
//! annotation can say of an API is in its [`family`], one of the [`families`].
//! [`error`] makes every status.

pub mod admin;
pub mod cli;
pub mod config;
pub mod contract;
pub mod credentials;
pub mod deadline;
pub mod downstream;
pub mod engine;
pub mod error;
pub mod families;
pub mod http_client;
pub mod server;
pub mod telemetry;
pub mod upstream;
pub mod watch;

#[cfg(test)]
#[path = "../crates/transcoder/src/contract/tests/world.rs"]
mod world;

/// Messages generated from `proto/`: those that the gateway looks into. It carries all
/// others as wire bytes.
#[allow(clippy::all, missing_docs, rustdoc::all)]
pub mod api {
    include!(concat!(env!("OUT_DIR"), "/library/api.rs"));
}

/// Messages generated from `proto/` for tests.
#[cfg(test)]
#[allow(clippy::all, dead_code, unreachable_pub)]
mod test_api {
    include!(concat!(env!("OUT_DIR"), "/tests/api.rs"));
}
