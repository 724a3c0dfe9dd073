//! The settings of an upstream.

use std::time::Duration;

use url::Url;

use crate::credentials;
use crate::http_client;
use crate::upstream::download_limit::default_downloads;
use crate::upstream::endpoint::is_exposed;

/// The settings of an upstream, as checked values.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name in metadata, logs and metrics.
    pub name: String,
    /// The family's name.
    pub family: String,
    /// The dialect; empty if the family has none.
    pub dialect: String,
    /// Serves the clients that name no upstream. Implied for the only upstream of a family.
    pub is_default: bool,
    /// The URL. None: from the login's catalog.
    pub endpoint: Option<Url>,
    /// The project id for requests that leave it empty. None: from the login.
    pub project_id: Option<String>,
    /// Credentials.
    pub auth: credentials::Settings,
    /// Where `auth` is, if it is not in the configuration file itself, for `check`.
    pub auth_place: Option<String>,
    /// Reads `auth` again, if it has files.
    pub auth_source: Option<credentials::SettingsSource>,
    /// Whether credentials may be sent over plaintext HTTP to another host. Default: false:
    /// configured ones are an error at start, those of clients at the call.
    pub allow_plaintext_credentials: bool,
    /// Connections.
    pub transport: http_client::Settings,
    /// Calls in flight at once. Default: 256.
    pub max_concurrent_calls: usize,
    /// Open downloads. Default: 0, a quarter of `max_concurrent_calls`.
    pub max_downloads: usize,
    /// Calls that may wait for a permit. Default: 1,024.
    pub max_queued_calls: usize,
    /// Attempts of one call, the first included. Default: 3.
    pub max_attempts: u32,
    /// The longest pause between attempts. Default: 5 s. A longer `Retry-After` is sent to
    /// the client instead.
    pub max_backoff: Duration,
    /// Consecutive failures that open the circuit breaker. Default: 20. 0: never.
    pub circuit_breaker_failures: u32,
    /// How long the circuit breaker stays open. Default: 5 s.
    pub circuit_breaker_open: Duration,
    /// Digest of what the configuration says about the upstream, without the secrets that
    /// `auth_source` reads again. None: the settings were made in code.
    pub digest: Option<[u8; 32]>,
}

impl Settings {
    /// Returns how many downloads may be open.
    pub fn downloads(&self) -> usize {
        match self.max_downloads {
            0 => default_downloads(self.max_concurrent_calls),
            downloads => downloads,
        }
    }

    /// Returns the key of a URL to which credentials, configured or a client's, must not be sent:
    /// plaintext HTTP to another host, unless that is allowed.
    pub(crate) fn plaintext_key(&self) -> Option<&'static str> {
        let endpoint = self.endpoint.as_ref().map(|url| ("endpoint", url));
        let urls = [endpoint, self.auth.login_url()].into_iter().flatten();
        let mut exposed = urls.filter(|(_, url)| is_exposed(url)).map(|(key, _)| key);
        exposed.next().filter(|_| !self.allow_plaintext_credentials)
    }

    /// Returns the defaults for an upstream of this name and family.
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
            auth_place: None,
            auth_source: None,
            allow_plaintext_credentials: false,
            transport: http_client::Settings::default(),
            max_concurrent_calls: 256,
            max_downloads: 0,
            max_queued_calls: 1_024,
            max_attempts: 3,
            max_backoff: Duration::from_secs(5),
            circuit_breaker_failures: 20,
            circuit_breaker_open: Duration::from_secs(5),
            digest: None,
        }
    }

    /// Returns whether the configuration says the same about this upstream.
    pub fn is_configured_as(&self, other: &Self) -> bool {
        self.name == other.name && self.digest.is_some() && self.digest == other.digest
    }
}
