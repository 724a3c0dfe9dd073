//! Health checks: probes an upstream. Also its current statistics.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::Method;

use super::Upstream;
use crate::error::Error;
use crate::http_client::HttpRequest;

/// The current statistics of an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Calls with one of the `max_concurrent_calls` permits.
    pub in_flight: usize,
    /// Calls that wait for a permit.
    pub queued: usize,
    /// Retries since the start.
    pub retries_total: u64,
    /// Whether the circuit breaker rejects calls.
    pub circuit_breaker_open: bool,
}

/// Whether an upstream responded to the latest calls and probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Health {
    Unknown,
    Healthy,
    Unhealthy,
}

impl Upstream {
    /// Sends a request to the family's probe path, without credentials; any response means
    /// healthy. Returns the health as it was if the endpoint depends on a login that has
    /// not happened yet.
    pub async fn probe(&self, timeout: Duration) -> Health {
        match self.try_probe(timeout).await {
            None => self.health(),
            Some(Ok(())) => Health::Healthy,
            Some(Err(_)) => Health::Unhealthy,
        }
    }

    /// Probes as [`Self::probe`] does and returns why there was no response; None if the
    /// endpoint is not known yet.
    pub async fn try_probe(&self, timeout: Duration) -> Option<Result<(), Error>> {
        let catalog = self.catalog_endpoint.load();
        let endpoint = self
            .configured_endpoint
            .as_ref()
            .or(catalog.as_ref().map(|catalog| &catalog.1));
        let url = endpoint.and_then(|endpoint| endpoint.url(self.family.probe, "").ok())?;
        let request = HttpRequest {
            verb: Method::GET,
            url,
            headers: self.headers.clone(),
            body: None,
        };
        let result = match tokio::time::timeout(timeout, self.transport.exchange(request)).await {
            Ok(Ok(_) | Err(Error::ResponseTooLarge { .. })) => Ok(()),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Error::NoResponse(format!(
                "none within {} s",
                timeout.as_secs()
            ))),
        };
        self.circuit_breaker.set_health(match result {
            Ok(()) => Health::Healthy,
            Err(_) => Health::Unhealthy,
        });
        Some(result)
    }

    /// Returns whether the latest calls and probes got a response.
    pub fn health(&self) -> Health {
        self.circuit_breaker.health()
    }

    /// Returns the current statistics.
    pub fn stats(&self) -> Stats {
        Stats {
            in_flight: self.concurrency_limit.in_flight(),
            queued: self.concurrency_limit.queued(),
            retries_total: self.retries.load(Relaxed),
            circuit_breaker_open: self.circuit_breaker.is_open(),
        }
    }
}
