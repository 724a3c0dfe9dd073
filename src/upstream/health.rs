//! Whether an upstream answers, and what it is doing.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::Method;

use super::Upstream;
use crate::error::Error;
use crate::http_client::Exchange;

/// What an upstream is doing now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Calls that hold one of `max_concurrent_calls` places.
    pub in_flight: usize,
    /// Calls that wait for a place.
    pub queued: usize,
    /// Retries since the start.
    pub retries_total: u64,
    /// Whether the breaker holds calls back.
    pub circuit_breaker_open: bool,
}

/// Whether an upstream answers, as last seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum State {
    Unknown,
    Healthy,
    Unhealthy,
}

impl Upstream {
    /// Asks the cheap path of the family whether the upstream is there, without
    /// credentials: any answer will do. Where the address is known by login only
    /// and nobody has logged in, the state is what it was.
    pub async fn probe(&self, timeout: Duration) -> State {
        match self.ask(timeout).await {
            None => self.state(),
            Some(Ok(())) => State::Healthy,
            Some(Err(_)) => State::Unhealthy,
        }
    }

    /// As [`Self::probe`], with the reason why it does not answer; None where
    /// its address is not known yet.
    pub async fn ask(&self, timeout: Duration) -> Option<Result<(), Error>> {
        let learned = self.learned.load();
        let address = self
            .configured
            .as_ref()
            .or(learned.as_ref().map(|learned| &learned.1));
        let url = address.and_then(|address| address.url(self.family.probe, "").ok())?;
        let exchange = Exchange {
            verb: Method::GET,
            url,
            headers: self.headers.clone(),
            body: None,
        };
        let answer = match tokio::time::timeout(timeout, self.transport.exchange(exchange)).await {
            Ok(Ok(_) | Err(Error::ResponseTooLarge { .. })) => Ok(()),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Error::NoResponse(format!(
                "nothing came within {} s",
                timeout.as_secs()
            ))),
        };
        self.breaker.saw(match answer {
            Ok(()) => State::Healthy,
            Err(_) => State::Unhealthy,
        });
        Some(answer)
    }

    /// Whether it answers, as last seen by calls and probes.
    pub fn state(&self) -> State {
        self.breaker.state()
    }

    /// What it is doing now.
    pub fn stats(&self) -> Stats {
        Stats {
            in_flight: self.limit.in_flight(),
            queued: self.limit.queued(),
            retries_total: self.retries.load(Relaxed),
            circuit_breaker_open: self.breaker.is_open(),
        }
    }
}
