//! A configured endpoint: deadline, retry, budget, breaker, redirect.

use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::auth::{self, Credentials};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::family::Family;
use crate::rest::{Call, Caller, Reply};
use crate::transport::{self, Transport};

/// A configured endpoint, as checked values.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name in metadata, logs and metrics.
    pub name: String,
    /// The family's name.
    pub family: String,
    /// The dialect; empty when the family has none.
    pub dialect: String,
    /// Used where the caller names none.
    pub is_default: bool,
    /// Where it is. None: the login says.
    pub endpoint: Option<Url>,
    /// The project id, where the caller leaves it empty. None: the login says.
    pub project_id: Option<String>,
    /// Credentials.
    pub auth: auth::Settings,
    /// Connections.
    pub transport: transport::Settings,
    /// Calls under way at once. Default: 256.
    pub max_concurrent: usize,
    /// Calls that may wait for a place. Default: 1,024.
    pub max_queued: usize,
    /// Attempts of one call, the first included. Default: 3.
    pub max_attempts: u32,
    /// The longest pause between attempts. Default: 5 s.
    pub max_backoff: Duration,
    /// Failures in a row that open the breaker. Default: 20. 0: no breaker.
    pub breaker_failures: u32,
    /// How long the breaker stays open. Default: 5 s.
    pub breaker_open: Duration,
}

/// What a method says of a call, beside the call itself.
#[derive(Clone, Copy, Debug)]
pub struct Operation<'a> {
    /// The rpc's own name.
    pub rpc: &'a str,
    /// Whether some dialect lacks it.
    pub dialect_optional: bool,
    /// Statuses outside 200 to 299 that are success.
    pub also_success: &'a [u16],
}

/// A configured endpoint.
#[derive(Debug)]
pub struct Upstream {
    /// Its settings.
    pub settings: Settings,
    /// Its family.
    pub family: &'static Family,
    /// Its credentials.
    pub credentials: Credentials,
    transport: Transport,
}

/// Whether an upstream answers, as last seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum State {
    Unknown,
    Answering,
    NotAnswering,
}

impl Upstream {
    /// Builds clients; connects nowhere.
    pub fn new(_settings: Settings) -> Result<Self, String> {
        todo!()
    }

    /// Sends the call and returns a reply that is a success; everything that
    /// happens on the way ends at the deadline.
    pub async fn call(
        &self,
        _operation: Operation<'_>,
        _call: &Call,
        _caller: &Caller,
        _deadline: Deadline,
    ) -> Result<Reply, Error> {
        todo!()
    }

    /// Asks the cheap path of the family whether the upstream is there.
    pub async fn probe(&self, _timeout: Duration) -> State {
        todo!()
    }

    /// Whether it answers, as last seen.
    pub fn state(&self) -> State {
        todo!()
    }
}

/// All upstreams, by name and by family.
#[derive(Debug, Default)]
pub struct Upstreams {
    all: Vec<Arc<Upstream>>,
}
