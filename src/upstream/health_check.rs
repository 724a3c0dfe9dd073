//! Health checks: logs in and probes an upstream, and records what that and the calls of
//! clients show. Also its current statistics.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::{Method, StatusCode};

use super::availability::{Aspect, Health, HealthRecord};
use super::{RequestContext, Upstream};
use crate::credentials::{self, Credential};
use crate::deadline::Deadline;
use crate::downstream::{ClientKey, Downstream};
use crate::error::{Error, LoginFailure};
use crate::http_client::HttpRequest;
use drawbridge_transcoder::call::{Call, Reply};

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

impl Upstream {
    /// Logs in, unless there is a valid token, and records whether that succeeds. The endpoint
    /// of the login's catalog is known from then on. Calls nothing if the credentials need no
    /// login. The client's own credentials are not known: it fails.
    pub async fn log_in(&self, deadline: Deadline) -> Result<Arc<Credential>, Error> {
        let result = self
            .credentials
            .get(&Downstream::default(), deadline)
            .await
            .and_then(|credential| {
                self.endpoint(&credential)?;
                Ok(credential)
            });
        match &result {
            // The login goes on: the one before it may have failed.
            Err(
                Error::Deadline { .. }
                | Error::Login {
                    failure: LoginFailure::Deadline,
                    ..
                },
            ) => {
                if let Some(error) = self.credentials.last_login_failure() {
                    self.record_login(Some(&error));
                }
            }
            result => self.record_login(result.as_ref().err()),
        }
        result
    }

    /// Records whether the credentials of a call were available.
    pub(super) fn record_login(&self, error: Option<&Error>) {
        if matches!(self.settings.auth, credentials::Settings::Passthrough) {
            return;
        }
        let health = match error {
            None => Health::Healthy,
            Some(_) => Health::Unhealthy,
        };
        self.availability
            .set(&self.settings.name, Aspect::LogsIn, health, || {
                error.map(ToString::to_string).unwrap_or_default()
            });
    }

    /// Makes a call as a health check: one attempt, and another one with a new token if the
    /// first is rejected. It does not count for the circuit breaker, the retry budget, the
    /// concurrency limit or the metrics.
    pub async fn probe_call(
        &self,
        context: &RequestContext<'_>,
        call: &Call,
    ) -> Result<Reply, Error> {
        let context = &RequestContext {
            permit: None,
            is_probe: true,
            ..*context
        };
        let mut renewed = false;
        loop {
            let credential = match context.method.anonymous {
                true => self.credentials.anonymous(),
                false => self.log_in(context.deadline).await?,
            };
            let mut sent = false;
            let attempt = self.attempt(
                context,
                ClientKey::default(),
                call,
                &credential,
                1,
                &mut sent,
            );
            match attempt.await {
                Err(Error::Upstream(fault))
                    if fault.credential_rejected
                        && !renewed
                        && self.credentials.invalidate(&credential) =>
                {
                    renewed = true;
                }
                result => return result,
            }
        }
    }

    /// Records the result of a health check. `reason` says why it failed, and what to do. A
    /// response says that the upstream accepts the credentials, unless it rejects them or
    /// comes from a proxy.
    pub fn record_probe(&self, result: Result<(), &Error>, reason: impl Fn() -> String) {
        let (responds, accepts) = match result {
            Ok(()) => (Health::Healthy, Some(Health::Healthy)),
            Err(Error::Upstream(fault)) if is_from_proxy(fault.http_status) => {
                (Health::Unhealthy, None)
            }
            Err(Error::Upstream(fault)) if fault.credential_rejected => {
                (Health::Healthy, Some(Health::Unhealthy))
            }
            Err(Error::Connect(_) | Error::NoResponse(_) | Error::Deadline { .. }) => {
                (Health::Unhealthy, None)
            }
            Err(
                Error::Upstream(_)
                | Error::Decode { .. }
                | Error::NotTheResource { .. }
                | Error::ErrorInSuccess { .. }
                | Error::ResponseTooLarge { .. },
            ) => (Health::Healthy, Some(Health::Healthy)),
            // Nothing was sent, or nothing is known.
            Err(_) => return,
        };
        self.circuit_breaker
            .record_probe(responds == Health::Healthy);
        let name = &self.settings.name;
        self.availability
            .set(name, Aspect::Responds, responds, &reason);
        if let Some(accepts) = accepts {
            self.availability
                .set(name, Aspect::Accepts, accepts, &reason);
        }
    }

    /// Sends a request to the family's probe path, without credentials, and returns the
    /// status of the response; None if the endpoint depends on a login that has not happened
    /// yet. Any response shows that the upstream responds, unless it is one of a proxy.
    pub async fn probe(&self, timeout: Duration) -> Option<Result<StatusCode, Error>> {
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
            memory: Default::default(),
        };
        let result = match tokio::time::timeout(timeout, self.transport.exchange(request)).await {
            Ok(Ok(reply)) => Ok(reply.status),
            Ok(Err(Error::ResponseTooLarge { .. })) => Ok(StatusCode::OK),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Error::NoResponse(format!(
                "none within {} s",
                timeout.as_secs_f32()
            ))),
        };
        Some(result)
    }

    /// Records the result of [`Self::probe`].
    pub fn record_response(&self, result: &Result<StatusCode, Error>) {
        let problem = match result {
            Ok(status) if is_from_proxy(status.as_u16()) => {
                Some(self.unreachable(&format!("HTTP {status}")))
            }
            Ok(_) => None,
            Err(error) => Some(self.failed(error)),
        };
        let health = match problem {
            None => Health::Healthy,
            Some(_) => Health::Unhealthy,
        };
        self.circuit_breaker.record_probe(problem.is_none());
        let reason = || problem.unwrap_or_default();
        self.availability
            .set(&self.settings.name, Aspect::Responds, health, reason);
    }

    /// Records that nothing can show whether the upstream accepts the credentials: it counts
    /// as available.
    pub fn record_unverified(&self) {
        let name = &self.settings.name;
        if self.availability.aspect(Aspect::Accepts) == Health::Unknown {
            self.availability
                .set(name, Aspect::Accepts, Health::Healthy, String::new);
        }
    }

    /// Records the result of an exchange of a call.
    pub(super) fn record_exchange(&self, result: &Result<Reply, Error>) {
        let health = self.circuit_breaker.health();
        self.availability.set(
            &self.settings.name,
            Aspect::Responds,
            health,
            || match result {
                Ok(reply) => self.unreachable(&format!("HTTP {}", reply.status)),
                Err(error) => self.failed(error),
            },
        );
    }

    /// Records whether the upstream accepts the credentials, by the result of a call. The next
    /// health check decides about a rejection: a single operation may have its own rules.
    pub(super) fn record_call(&self, result: &Result<Reply, Error>) {
        match result {
            Ok(_) => {
                let name = &self.settings.name;
                self.availability
                    .set(name, Aspect::Accepts, Health::Healthy, String::new);
            }
            Err(Error::Upstream(fault))
                if fault.credential_rejected
                    && self.availability.aspect(Aspect::Accepts) == Health::Healthy =>
            {
                self.check_requests.notify_one();
            }
            Err(Error::Login { .. }) => self.check_requests.notify_one(),
            Err(_) => {}
        }
    }

    /// Waits until the result of a call makes a health check necessary.
    pub async fn check_requested(&self) {
        self.check_requests.notified().await;
    }

    /// Waits until calls that fail make a probe necessary: the upstream may not respond.
    pub async fn probe_requested(&self) {
        self.probe_requests.notified().await;
    }

    /// Returns the text of an exchange that failed: where, and what to do.
    fn failed(&self, error: &Error) -> String {
        match error {
            // It says itself what to do.
            Error::Certificate(_) => {
                format!("{}: {error}", self.endpoint_text().unwrap_or_default())
            }
            error => self.unreachable(&error.to_string()),
        }
    }

    /// Returns the text of a failure to respond: where, and what to do.
    fn unreachable(&self, problem: &str) -> String {
        let endpoint = self.endpoint_text().unwrap_or_default();
        format!(
            "{endpoint}: {problem}: check that the upstream runs and can be reached from here, \
             or correct `endpoint`"
        )
    }

    /// Returns the endpoint, from the configuration or from the login's catalog.
    pub fn endpoint_text(&self) -> Option<String> {
        if let Some(endpoint) = &self.settings.endpoint {
            return Some(endpoint.as_str().trim_end_matches('/').to_owned());
        }
        let catalog = self.catalog_endpoint.load();
        catalog
            .as_ref()
            .map(|catalog| catalog.0.as_str().trim_end_matches('/').to_owned())
    }

    /// Returns whether calls can succeed, as far as the latest calls, logins and probes show.
    pub fn health(&self) -> Health {
        self.availability.health()
    }

    /// Returns [`Self::health`], since when, and why the upstream went down last.
    pub fn health_record(&self) -> HealthRecord {
        self.availability.record()
    }

    /// Returns whether the upstream has accepted the credentials, or needs none.
    pub fn accepts_credentials(&self) -> Health {
        self.availability.aspect(Aspect::Accepts)
    }

    /// Returns whether the upstream responded to the latest calls and probes.
    pub fn responds(&self) -> Health {
        self.availability.aspect(Aspect::Responds)
    }

    /// Completes when [`Self::health`] changes after this call.
    pub fn health_change(&self) -> impl Future<Output = ()> + Send + 'static {
        self.availability.changes()
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

/// Returns whether a proxy without a backend sends this status, or an upstream that does not
/// serve.
fn is_from_proxy(status: u16) -> bool {
    matches!(status, 502..=504)
}
