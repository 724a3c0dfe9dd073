//! A configured REST API: each call passes the circuit breaker, the concurrency limit and
//! the retries before it becomes an HTTP exchange.
//!
//! | what | module |
//! |---|---|
//! | attempts: login, exchange, redirect, retry | `attempt` |
//! | error replies | `fault` |
//! | which upstream serves a call | `registry` |
//! | circuit breaker (Envoy: outlier detection) | `circuit_breaker` |
//! | which client a call counts for | `client_keys` |
//! | concurrency limit and queue (Envoy: circuit breakers) | `concurrency_limit` |
//! | retry policy, backoff | `retry` |
//! | retry budget | `retry_budget` |
//! | redirects | `redirect` |
//! | a 404 of a proxy, or of an API that does not exist | `missing_api` |
//! | endpoint and URL of a call | `endpoint` |
//! | health checks, statistics | `health_check` |
//! | whether it is up: transitions, log lines | `availability` |
//! | what a family of APIs defines | `family` |

mod attempt;
mod availability;
mod circuit_breaker;
mod client_keys;
mod concurrency_limit;
mod download_limit;
mod endpoint;
pub mod family;
mod fault;
mod health_check;
mod missing_api;
mod redirect;
mod registry;
mod request_context;
mod retry;
mod retry_budget;
mod settings;
#[cfg(test)]
pub(crate) mod tests;

use std::borrow::Cow;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::header::{ACCEPT, ACCEPT_LANGUAGE, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::sync::Notify;
use tonic::Code;
use url::Url;

pub use self::settings::Settings;
use crate::credentials::{self, Credential, Credentials};
use crate::deadline::{CutOff, Deadline};
use crate::downstream::{Client, Downstream};
use crate::error::Error;
use crate::http_client::Transport;
use crate::upstream::availability::Availability;
pub use crate::upstream::availability::{Failure, Health, HealthRecord};
use crate::upstream::circuit_breaker::CircuitBreaker;
use crate::upstream::client_keys::AcceptedCredentials;
use crate::upstream::concurrency_limit::ConcurrencyLimit;
use crate::upstream::download_limit::DownloadLimit;
pub use crate::upstream::download_limit::{DownloadPermit, default_downloads};
use crate::upstream::endpoint::Endpoint;
use crate::upstream::family::Family;
pub use crate::upstream::health_check::Stats;
pub use crate::upstream::registry::{UPSTREAM_KEY, Upstreams};
pub use crate::upstream::request_context::{BodySlot, MethodProperties, RequestContext};
use crate::upstream::retry_budget::RetryBudget;
use drawbridge_transcoder::call::{Call, Idempotency, Reply};

/// One HTTP exchange with an upstream, for an [`ExchangeHook`].
#[derive(Clone, Copy, Debug)]
pub struct ExchangeRecord<'a> {
    /// The upstream's name.
    pub upstream: &'a str,
    /// The rpc's own name.
    pub rpc: &'a str,
    /// 1 for the first; the exchange after a redirect has the number of the one before.
    pub number: u32,
    /// The HTTP status; None if no complete response arrived before the deadline.
    pub status: Option<StatusCode>,
    /// From before connecting until the last byte of the response; of a download, until its
    /// head.
    pub elapsed: Duration,
}

/// Called after each exchange, while the call waits: it must not block.
pub type ExchangeHook = Arc<dyn Fn(&ExchangeRecord<'_>) + Send + Sync>;

/// The right to make one call at a time; returned when dropped.
#[derive(Debug)]
pub struct CallPermit<'a> {
    _permit: concurrency_limit::CallPermit<'a>,
}

/// A configured REST API.
pub struct Upstream {
    /// Its settings.
    pub settings: Settings,
    /// Its family.
    pub family: &'static Family,
    /// Its credentials.
    pub credentials: Credentials,
    transport: Transport,
    on_exchange: Option<ExchangeHook>,
    configured_endpoint: Option<Arc<Endpoint>>,
    /// The endpoint of the last login's catalog, with the URL it was made of.
    catalog_endpoint: ArcSwapOption<(Url, Arc<Endpoint>)>,
    /// The configured project id, percent-encoded.
    project_id: Option<String>,
    /// Headers of every call.
    headers: HeaderMap,
    /// Sent if the client sends none. None: the family does not use the header.
    accept_language: Option<HeaderValue>,
    retry_policy: retry::RetryPolicy,
    retry_budget: RetryBudget,
    circuit_breaker: CircuitBreaker,
    concurrency_limit: ConcurrencyLimit,
    download_limit: DownloadLimit,
    accepted: AcceptedCredentials,
    retries: AtomicU64,
    availability: Availability,
    /// Wakes the health checks.
    check_requests: Notify,
    /// Wakes them, too: whether the upstream responds.
    probe_requests: Notify,
    /// Ends the streams that wait for changes: the configuration has another upstream instead,
    /// or none.
    replaced: CutOff,
    /// Ends the calls in flight.
    cut_off: CutOff,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream")
            .field("settings", &self.settings)
            .field("health", &self.health())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// Why a call that was sent has no response when the gateway stops.
pub(crate) const CUT_OFF: &str = "the gateway is stopping, and its drain timeout has passed";

/// The same for a call of an upstream that a reload has removed or changed.
const CUT_OFF_BY_RELOAD: &str = "the configuration of this upstream has changed, and the drain \
                                 timeout has passed";

/// The problem of configured credentials with an `http` URL of another host.
pub(crate) const PLAINTEXT: &str = "credentials would be sent over plaintext HTTP, where anyone \
                                    on the network can read them: use https://, or set \
                                    allow_plaintext_credentials = true";

impl Upstream {
    /// Builds the HTTP clients; opens no connection. Fails on an invalid endpoint, project
    /// id or certificate file. `on_exchange` is called after each exchange.
    pub fn new(
        settings: Settings,
        family: &'static Family,
        on_exchange: Option<ExchangeHook>,
    ) -> Result<Self, String> {
        let transport = Transport::new(&settings.transport)?;
        if settings.transport.insecure_skip_verify {
            tracing::warn!(
                upstream = settings.name,
                "INSECURE: the certificates of this upstream and of its identity service are not \
                 verified (insecure_skip_verify, or verify in clouds.yaml): anyone on the network \
                 can read its credentials and change its calls; name its CA in ca_file instead"
            );
        }
        let configured_endpoint = match &settings.endpoint {
            Some(endpoint) => Some(Arc::new(
                Endpoint::new(endpoint, family.endpoint_suffixes)
                    .map_err(|problem| format!("endpoint: {problem}"))?,
            )),
            None => None,
        };
        if let Some(key) = settings.plaintext_key() {
            if settings.auth.is_held() {
                return Err(format!("{key}: {PLAINTEXT}"));
            }
            // Clients may send none: a call fails only with one.
            if matches!(settings.auth, credentials::Settings::Passthrough) {
                tracing::warn!(
                    upstream = settings.name,
                    "the endpoint is plaintext HTTP: calls with the client's credentials are \
                     rejected, since anyone on the network could read them; set endpoint to an \
                     https URL, or set allow_plaintext_credentials = true"
                );
            }
        }
        let project_id = match &settings.project_id {
            Some(id) => {
                Some(endpoint::segment(id).ok_or("project_id: must not be empty, `.` or `..`")?)
            }
            None => None,
        };
        if settings.max_concurrent_calls == 0 || settings.max_attempts == 0 {
            return Err("max_concurrent_calls and max_attempts must be at least 1".into());
        }
        let mut headers = HeaderMap::with_capacity(2 * family.headers.len());
        for (name, value) in family.headers {
            headers.insert(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        Ok(Self {
            family,
            credentials: Credentials::new(
                settings.auth.clone(),
                settings.auth_source.clone(),
                // A configured endpoint makes the catalog unnecessary.
                family.catalog_type.filter(|_| settings.endpoint.is_none()),
                family.correlation,
                transport.clone(),
            ),
            transport,
            on_exchange,
            configured_endpoint,
            catalog_endpoint: ArcSwapOption::empty(),
            project_id,
            headers,
            accept_language: family.accept_language.map(HeaderValue::from_static),
            retry_policy: retry::RetryPolicy {
                max_attempts: settings.max_attempts,
                max_backoff: settings.max_backoff,
            },
            retry_budget: RetryBudget::new(),
            circuit_breaker: CircuitBreaker::new(
                settings.circuit_breaker_failures,
                settings.circuit_breaker_open,
            ),
            concurrency_limit: ConcurrencyLimit::new(
                settings.max_concurrent_calls,
                settings.max_queued_calls,
            ),
            download_limit: DownloadLimit::new(settings.downloads()),
            accepted: AcceptedCredentials::new(matches!(
                settings.auth,
                credentials::Settings::Passthrough
            )),
            retries: AtomicU64::new(0),
            availability: Availability::new(settings.auth.has_login(), settings.auth.is_held()),
            check_requests: Notify::new(),
            probe_requests: Notify::new(),
            replaced: CutOff::default(),
            cut_off: CutOff::default(),
            settings,
        })
    }

    /// Fails if the metadata of a call shows that it cannot be sent: the client's own
    /// credentials are missing, or would be sent over plaintext HTTP.
    pub fn check_client(&self, anonymous: bool, client: &Downstream) -> Result<(), Error> {
        if anonymous && self.configured_endpoint.is_some() {
            return Ok(());
        }
        self.credentials.require(client)?;
        let endpoint = self.configured_endpoint.as_ref();
        if endpoint.is_some_and(|endpoint| endpoint.is_exposed)
            && matches!(self.settings.auth, credentials::Settings::Passthrough)
            && !anonymous
            && !self.settings.allow_plaintext_credentials
        {
            return Err(Error::PlaintextCredentials {
                is_from_catalog: false,
            });
        }
        Ok(())
    }

    /// Sends the call, retries it if allowed, and returns the reply of a success. Queueing,
    /// login, attempts and backoff end at the deadline. Dropping the future closes the
    /// upstream request.
    pub async fn call(&self, context: &RequestContext<'_>, call: &Call) -> Result<Reply, Error> {
        // tokio polls the future of an elapsed timeout once, which would send the request.
        if context.deadline.remaining().is_zero() {
            return Err(Error::Deadline { sent: false });
        }
        let mut sent = false;
        let result = {
            let attempts = pin!(self.attempts(context, call, &mut sent));
            self.cut_off.bound(attempts).await
        };
        let result = result.unwrap_or_else(|| Err(self.end()));
        if !context.method.anonymous {
            self.record_call(&result);
        }
        result.map_err(|error| adjust(call, sent, error))
    }

    /// Returns which client a call counts for, in limits that clients share.
    pub fn client(&self, client: &Downstream) -> Client {
        self.accepted.client(client)
    }

    /// Returns the permit of a download. Fails if too many are open.
    pub fn download_permit(&self, client: &Downstream) -> Result<DownloadPermit, Error> {
        let client = self.accepted.client(client);
        self.download_limit.acquire(client, &self.settings.name)
    }

    /// Waits for the permit of a call, or of all calls of one rpc. Fails if the circuit
    /// breaker is open or the queue is full.
    pub async fn permit(
        &self,
        client: &Downstream,
        deadline: Deadline,
    ) -> Result<CallPermit<'_>, Error> {
        // tokio polls the future of an elapsed timeout once.
        if deadline.remaining().is_zero() {
            return Err(Error::Deadline { sent: false });
        }
        let client = self.accepted.client(client);
        self.circuit_breaker
            .check(client.verified())
            .map_err(|retry_after| self.circuit_open(retry_after))?;
        let acquired = self.concurrency_limit.acquire(client, &self.settings.name);
        Ok(CallPermit {
            _permit: deadline.bound(acquired).await??,
        })
    }

    /// Returns what ends the calls in flight.
    pub(crate) fn cut_off(&self) -> &CutOff {
        &self.cut_off
    }

    /// Ends watches and lists with [`Error::UpstreamChanged`], at once or when they need the
    /// upstream next. Other calls may finish until [`Self::cut_off`].
    pub(crate) fn replace(&self) {
        self.replaced.begin();
    }

    /// Returns what [`Self::replace`] begins.
    pub(crate) fn replaced(&self) -> &CutOff {
        &self.replaced
    }

    /// Returns the error of calls and streams that end before anything was sent.
    pub(crate) fn end(&self) -> Error {
        match self.replaced.has_begun() {
            true => Error::UpstreamChanged,
            false => Error::Draining,
        }
    }

    /// Returns why a call that was sent and cut off has no response.
    pub(crate) fn cut_off_text(&self) -> String {
        match self.replaced.has_begun() {
            true => CUT_OFF_BY_RELOAD.to_owned(),
            false => CUT_OFF.to_owned(),
        }
    }

    /// Returns the headers of a call without its authorization. No other metadata of the
    /// client is forwarded.
    fn headers(&self, call: &Call, client: &Downstream) -> HeaderMap {
        let mut headers = self.headers.clone();
        if call.body.is_some() {
            let json = || HeaderValue::from_static("application/json");
            let content_type = call.media.content_type.clone();
            headers.insert(CONTENT_TYPE, content_type.unwrap_or_else(json));
        }
        if let Some(accept) = &call.media.accept {
            headers.insert(ACCEPT, accept.clone());
        }
        if let Some(default) = &self.accept_language {
            let language = client.accept_language.as_ref().unwrap_or(default);
            headers.insert(ACCEPT_LANGUAGE, language.clone());
        }
        for (name, value) in [
            ("x-request-id", &client.request_id),
            ("traceparent", &client.traceparent),
            ("tracestate", &client.tracestate),
        ] {
            if let Some(value) = value {
                headers.insert(HeaderName::from_static(name), value.clone());
            }
        }
        headers.extend(
            self.family
                .correlation
                .and_then(|header| header.of(client.request_uuid)),
        );
        headers
    }

    /// Returns the configured endpoint, else that of the login's catalog.
    fn endpoint(&self, credential: &Credential) -> Result<Arc<Endpoint>, Error> {
        if let Some(endpoint) = &self.configured_endpoint {
            return Ok(endpoint.clone());
        }
        let Some(url) = &credential.endpoint else {
            return Err(Error::NotConfigured(format!(
                "upstream {}: neither the configuration nor the login has an endpoint: set `endpoint`",
                self.settings.name
            )));
        };
        if let Some(cached) = &*self.catalog_endpoint.load()
            && cached.0 == *url
        {
            return Ok(cached.1.clone());
        }
        let endpoint = Endpoint::new(url, self.family.endpoint_suffixes).map_err(|problem| {
            Error::NotConfigured(format!(
                "upstream {}: the endpoint in the login's catalog {problem}: set `endpoint`",
                self.settings.name
            ))
        })?;
        let endpoint = Arc::new(endpoint);
        self.catalog_endpoint
            .store(Some(Arc::new((url.clone(), endpoint.clone()))));
        Ok(endpoint)
    }

    /// Returns the call's path, with a project id if the client left it empty; and the
    /// project id of the path, percent-encoded.
    fn path<'a>(
        &self,
        call: &'a Call,
        endpoint: &Endpoint,
        credential: &Credential,
    ) -> Result<(Cow<'a, str>, Option<Cow<'a, str>>), Error> {
        let unchanged = Cow::Borrowed(&*call.path);
        let Some(range) = call.project.clone() else {
            return Ok((unchanged, None));
        };
        let start = range.start;
        if let Some(id) = call.path.get(range).filter(|id| !id.is_empty()) {
            return Ok((unchanged, Some(Cow::Borrowed(id))));
        }
        let of_login = match (&self.project_id, &credential.project_id) {
            (None, Some(id)) => endpoint::segment(id),
            _ => None,
        };
        let project_id = self
            .project_id
            .as_deref()
            .or(of_login.as_deref())
            .or(endpoint.project_id());
        match (project_id, call.path.split_at_checked(start)) {
            (Some(project_id), Some((before, after))) => Ok((
                Cow::Owned([before, project_id, after].concat()),
                Some(Cow::Owned(project_id.to_owned())),
            )),
            _ => Err(Error::Binding {
                field: "project_id".into(),
                problem: format!(
                    "is empty and the upstream has no default: set it in the request, or set `project_id` of upstream {}",
                    self.settings.name
                ),
            }),
        }
    }

    /// Returns the error of a call that the circuit breaker rejects, and requests the probe
    /// that may close it.
    fn circuit_open(&self, retry_after: Duration) -> Error {
        self.probe_requests.notify_one();
        Error::Overload {
            code: Code::Unavailable,
            problem: format!(
                "upstream {} does not respond: its circuit breaker is open",
                self.settings.name
            ),
            retry_after,
        }
    }
}

/// Adjusts the error of the last attempt if any attempt may have reached the upstream.
fn adjust(call: &Call, sent: bool, error: Error) -> Error {
    match error {
        Error::Deadline { .. } => Error::Deadline { sent },
        Error::Connect(cause) | Error::Certificate(cause) if sent => {
            no_response(call.idempotency, cause)
        }
        Error::ResponseNotDelivered { code, problem, .. }
            if call.effect() == Idempotency::NonIdempotent =>
        {
            Error::ResponseNotDelivered {
                code,
                problem,
                retry_after: None,
            }
        }
        Error::Draining if sent => no_response(call.idempotency, CUT_OFF.to_owned()),
        Error::UpstreamChanged if sent => {
            no_response(call.idempotency, CUT_OFF_BY_RELOAD.to_owned())
        }
        Error::Upstream(mut fault) if sent && fault.not_processed => {
            fault.not_processed = false;
            fault.transient = true;
            Error::Upstream(fault)
        }
        error => not_read(call.idempotency, error),
    }
}

/// Returns the error of a call whose response was not read, by its idempotency.
pub(crate) fn not_read(idempotency: Idempotency, error: Error) -> Error {
    match (error, idempotency) {
        (Error::NoResponse(cause), _) => no_response(idempotency, cause),
        (
            Error::NotTheResource {
                problem,
                request_id,
            },
            Idempotency::NonIdempotent,
        ) => Error::NotTheResource {
            problem: problem + "; the upstream may have acted: check before you repeat the call",
            request_id,
        },
        (error, _) => error,
    }
}

/// Returns the error of a call without a response, by its idempotency.
pub(crate) fn no_response(idempotency: Idempotency, cause: String) -> Error {
    match idempotency {
        Idempotency::NoSideEffects | Idempotency::Idempotent => Error::NoResponse(cause),
        Idempotency::NonIdempotent => Error::OutcomeUnknown(cause),
    }
}
