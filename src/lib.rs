//! Drawbridge: a gRPC gateway to the REST APIs that deploy and automate
//! infrastructure.
//!
//! In the order of a request: [`server`] accepts an rpc and looks it up in the
//! [`contract`]. [`engine`] binds the message to a REST call by the transcoder
//! (`drawbridge_transcoder`), and [`upstream`] sends the call within its [`deadline`], with
//! [`credentials`], through an [`http_client`]. The reply is decoded and written back.
//! [`watch`] polls upstreams for streams of changes. What annotations cannot express of an
//! API is in its family, one of the [`families`]. [`error`] makes the status of a failed
//! call, and [`telemetry`] counts and logs it.
//!
//! [`cli`] is the command line, [`config`] reads the configuration, and [`admin`] serves
//! metrics and readiness. `docs/architecture.md` describes the parts and their
//! dependencies.

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

/// Compiles the proto of a test; shared with the tests of the transcoder.
#[cfg(test)]
#[path = "../crates/transcoder/src/contract/tests/test_contract.rs"]
mod test_contract;

/// Messages generated from `proto/`: those that the gateway reads itself. All others are
/// wire bytes to it.
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
