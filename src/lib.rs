//! Drawbridge: a gRPC gateway to the REST APIs that deploy and automate
//! infrastructure.
//!
//! A [`Config`] is read from a file. [`Gateway::build`] compiles its [`Contract`] and serves it
//! until the [`ServerHandle`] is stopped:
//!
//! ```no_run
//! # async fn run() -> Result<(), Vec<String>> {
//! use drawbridge::{Config, Gateway};
//!
//! let environment = |name: &str| std::env::var(name).ok();
//! let config = Config::load("drawbridge.toml".as_ref(), &environment)
//!     .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>())?;
//! let server = Gateway::build(config, false)?.bind().await?.serve()?;
//! println!("serving on {}", server.grpc);
//! tokio::signal::ctrl_c().await.map_err(|e| vec![e.to_string()])?;
//! server.stop().await.map_err(|e| vec![e])
//! # }
//! ```
//!
//! In the order of a request: `server` accepts an rpc and looks it up in the
//! `contract`. `engine` binds the message to a REST call by the transcoder
//! (`drawbridge_transcoder`), and `upstream` sends the call within its `deadline`, with
//! `credentials`, through an `http_client`. The reply is decoded and written back.
//! `watch` polls upstreams for streams of changes. What annotations cannot express of an
//! API is in its family, one of the `families`. `error` makes the status of a failed
//! call, and `telemetry` counts and logs it.
//!
//! `cli` is the command line, `config` reads the configuration, and `admin` serves
//! metrics and readiness. `docs/architecture.md` describes the parts and their
//! dependencies.

#[doc(hidden)]
pub mod admin;
#[doc(hidden)]
pub mod cli;
#[doc(hidden)]
pub mod config;
#[doc(hidden)]
pub mod contract;
#[doc(hidden)]
pub mod credentials;
#[doc(hidden)]
pub mod deadline;
#[doc(hidden)]
pub mod downstream;
#[doc(hidden)]
pub mod engine;
#[doc(hidden)]
pub mod error;
#[doc(hidden)]
pub mod families;
#[doc(hidden)]
pub mod http_client;
#[doc(hidden)]
pub mod memory;
#[doc(hidden)]
pub mod policy;
#[doc(hidden)]
pub mod reload;
#[doc(hidden)]
pub mod server;
mod spelling;
#[doc(hidden)]
pub mod telemetry;
#[doc(hidden)]
pub mod upstream;
#[doc(hidden)]
pub mod watch;

pub use config::Config;
#[doc(inline)]
pub use contract::Contract;
pub use server::{Gateway, ServerHandle};

/// Compiles the proto of a test; shared with the tests of the transcoder.
#[cfg(test)]
#[path = "../crates/transcoder/src/contract/tests/test_contract.rs"]
mod test_contract;

/// Messages generated from `proto/`: those that the gateway reads itself. All others are
/// wire bytes to it.
#[doc(hidden)]
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
