//! What an upstream is configured with.

use std::time::Duration;

use url::Url;

use crate::credentials;
use crate::http_client;

/// A configured endpoint, as checked values.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name in metadata, logs and metrics.
    pub name: String,
    /// The family's name.
    pub family: String,
    /// The dialect; empty when the family has none.
    pub dialect: String,
    /// Used where the caller names none; the only one of its family is anyhow.
    pub is_default: bool,
    /// Where it is. None: the login says.
    pub endpoint: Option<Url>,
    /// The project id, where the caller leaves it empty. None: the login says.
    pub project_id: Option<String>,
    /// Credentials.
    pub auth: credentials::Settings,
    /// Connections.
    pub transport: http_client::Settings,
    /// Calls under way at once. Default: 256.
    pub max_concurrent_calls: usize,
    /// Calls that may wait for a place. Default: 1,024.
    pub max_queued_calls: usize,
    /// Attempts of one call, the first included. Default: 3.
    pub max_attempts: u32,
    /// The longest pause between attempts. Default: 5 s. A `Retry-After` that is
    /// longer is not waited for but told to the caller.
    pub max_backoff: Duration,
    /// Failures in a row that open the breaker. Default: 20. 0: no breaker.
    pub circuit_breaker_failures: u32,
    /// How long the breaker stays open. Default: 5 s.
    pub circuit_breaker_open: Duration,
}

impl Settings {
    /// The defaults, for an upstream of this name and family.
    pub fn new(
        name: impl Into<String>,
        family: impl Into<String>,
        auth: credentials::Settings,
    ) -> Self {
        Self {
            name: name.into(),
            family: family.into(),
            dialect: String::new(),
            is_default: false,
            endpoint: None,
            project_id: None,
            auth,
            transport: http_client::Settings::default(),
            max_concurrent_calls: 256,
            max_queued_calls: 1_024,
            max_attempts: 3,
            max_backoff: Duration::from_secs(5),
            circuit_breaker_failures: 20,
            circuit_breaker_open: Duration::from_secs(5),
        }
    }
}
