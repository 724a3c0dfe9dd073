//! A configured endpoint: deadline, retry, budget, breaker, redirect.

mod circuit_breaker;
mod concurrency_limit;
mod endpoint;
pub mod family;
mod health;
mod redirect;
mod registry;
mod retry;
mod retry_budget;
mod settings;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_LANGUAGE, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::time::Instant;
use tonic::Code;
use url::Url;

pub use self::settings::Settings;
use crate::credentials::{Credentials, Lease};
use crate::deadline::Deadline;
use crate::downstream::Caller;
use crate::error::{Error, Fault, HINT};
use crate::http_client::{Exchange, Transport};
use crate::upstream::circuit_breaker::Breaker;
use crate::upstream::concurrency_limit::Limit;
use crate::upstream::endpoint::Address;
use crate::upstream::family::{Family, FaultContext, absence_hint};
pub use crate::upstream::health::{State, Stats};
pub use crate::upstream::registry::Upstreams;
use crate::upstream::retry_budget::Budget;
use drawbridge_transcoder::call::{Call, Idempotency, Reply, Room};
use drawbridge_transcoder::contract;

/// What a method says of a call, beside the call itself.
#[derive(Clone, Copy, Debug)]
pub struct Operation<'a> {
    /// The rpc's own name.
    pub rpc: &'a str,
    /// Whether some dialect lacks it.
    pub dialect_optional: bool,
    /// Dialects that may lack it.
    pub unverified_in: &'a [Box<str>],
    /// Statuses outside 200 to 299 that are success.
    pub also_success: &'a [u16],
    /// The call needs no credential, and none is sent.
    pub anonymous: bool,
}

impl<'a> Operation<'a> {
    /// What this method says.
    pub fn of(method: &'a contract::Method) -> Self {
        Self {
            rpc: &method.name,
            dialect_optional: !method.absent_in.is_empty(),
            unverified_in: &method.unverified_in,
            also_success: &method.also_success,
            anonymous: method.anonymous,
        }
    }

    fn succeeded(&self, status: StatusCode) -> bool {
        status.is_success() || self.also_success.contains(&status.as_u16())
    }
}

/// One exchange with an upstream, as it is told to an [`AttemptHook`].
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// The upstream's name.
    pub upstream: &'a str,
    /// The rpc's own name.
    pub rpc: &'a str,
    /// 1 for the first; a redirect's second hop has the number of its first.
    pub number: u32,
    /// The HTTP status, or none when no whole answer came, until the deadline at most.
    pub status: Option<StatusCode>,
    /// From the first byte out to the last byte in, connecting included.
    pub elapsed: Duration,
}

/// Called after each exchange, on the path of the call: it must be quick.
pub type AttemptHook = Arc<dyn Fn(&Attempt<'_>) + Send + Sync>;

/// A configured endpoint.
pub struct Upstream {
    /// Its settings.
    pub settings: Settings,
    /// Its family.
    pub family: &'static Family,
    /// Its credentials.
    pub credentials: Credentials,
    transport: Transport,
    on_attempt: Option<AttemptHook>,
    /// Where the configuration says it is.
    configured: Option<Arc<Address>>,
    /// Where the last login said it is, kept since it seldom changes.
    learned: ArcSwapOption<(Url, Arc<Address>)>,
    /// The configured project id, percent-encoded.
    project_id: Option<String>,
    /// Headers of every call.
    headers: HeaderMap,
    /// Sent where the caller says nothing. None: not sent at all.
    accept_language: Option<HeaderValue>,
    retry: retry::Policy,
    budget: Budget,
    breaker: Breaker,
    limit: Limit,
    retries: AtomicU64,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream")
            .field("settings", &self.settings)
            .field("state", &self.state())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// Whether what was to be deleted is not there.
fn is_gone(call: &Call, error: &Error) -> bool {
    let missing = matches!(error, Error::Upstream(fault)
        if fault.code == Code::NotFound && fault.http_status == 404);
    missing && call.verb == http::Method::DELETE && call.idempotency == Idempotency::Idempotent
}

/// What is answered where an attempt before has deleted it and its own answer was
/// lost.
fn deleted() -> Reply {
    Reply {
        status: StatusCode::NO_CONTENT,
        headers: HeaderMap::new(),
        body: Bytes::new(),
        room: Room::default(),
    }
}

/// A call on its way.
struct Journey<'a> {
    operation: Operation<'a>,
    call: &'a Call,
    caller: &'a Caller,
    deadline: Deadline,
    /// Whether the upstream may have acted on it.
    may_have_acted: AtomicBool,
}

impl Upstream {
    /// Builds clients; connects nowhere. Fails on an endpoint, a project id or a
    /// certificate file that cannot be used. `on_attempt` is told of each exchange.
    pub fn new(
        settings: Settings,
        family: &'static Family,
        on_attempt: Option<AttemptHook>,
    ) -> Result<Self, String> {
        let transport = Transport::new(&settings.transport)?;
        let configured = match &settings.endpoint {
            Some(endpoint) => Some(Arc::new(
                Address::of(endpoint, family.endpoint_suffixes)
                    .map_err(|problem| format!("endpoint: {problem}"))?,
            )),
            None => None,
        };
        let project_id = match &settings.project_id {
            Some(id) => {
                Some(endpoint::segment(id).ok_or("project_id: cannot be empty, `.` or `..`")?)
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
                // A catalog is looked at only where it must say the endpoint.
                family.catalog_type.filter(|_| settings.endpoint.is_none()),
                transport.clone(),
            ),
            transport,
            on_attempt,
            configured,
            learned: ArcSwapOption::empty(),
            project_id,
            headers,
            accept_language: family.accept_language.map(HeaderValue::from_static),
            retry: retry::Policy {
                max_attempts: settings.max_attempts,
                max_backoff: settings.max_backoff,
            },
            budget: Budget::new(),
            breaker: Breaker::new(
                settings.circuit_breaker_failures,
                settings.circuit_breaker_open,
            ),
            limit: Limit::new(settings.max_concurrent_calls, settings.max_queued_calls),
            retries: AtomicU64::new(0),
            settings,
        })
    }

    /// Sends the call and returns a reply that is a success; everything that
    /// happens on the way ends at the deadline. Dropping the future closes the
    /// upstream request.
    pub async fn call(
        &self,
        operation: Operation<'_>,
        call: &Call,
        caller: &Caller,
        deadline: Deadline,
    ) -> Result<Reply, Error> {
        let journey = Journey {
            operation,
            call,
            caller,
            deadline,
            may_have_acted: AtomicBool::new(false),
        };
        // An elapsed timeout still polls once, which would send.
        if deadline.remaining().is_zero() {
            return Err(Error::Deadline { sent: false });
        }
        let result = self.attempts(&journey).await;
        let acted = journey.may_have_acted.load(Relaxed);
        result.map_err(|error| told(call, acted, error))
    }

    /// Attempts, until one succeeds or another would not help. All that is waited
    /// for ends at the deadline.
    async fn attempts(&self, journey: &Journey<'_>) -> Result<Reply, Error> {
        let deadline = journey.deadline;
        self.breaker.check().map_err(|wait| self.held(wait))?;
        let _place = deadline
            .bound(self.limit.admit(&self.settings.name))
            .await??;
        self.budget.deposit();
        let mut number = 1;
        let mut renewed = false;
        let mut last = None;
        loop {
            let lease = if journey.operation.anonymous && self.configured.is_some() {
                Ok(self.credentials.nobody())
            } else {
                self.credentials.lease(journey.caller, deadline).await
            };
            let lease = match lease {
                Ok(lease) => lease,
                // What became of the call says more than that it cannot be sent again.
                Err(error @ (Error::Credential { .. } | Error::Login { .. })) => {
                    return Err(last.unwrap_or(error));
                }
                Err(error) => return Err(error),
            };
            let acted_before = journey.may_have_acted.load(Relaxed);
            let error = match self.attempt(journey, &lease, number).await {
                Ok(reply) => return Ok(reply),
                Err(error) if acted_before && is_gone(journey.call, &error) => {
                    return Ok(deleted());
                }
                // The breaker has opened meanwhile: likewise.
                Err(error @ Error::Overload { .. }) => return Err(last.unwrap_or(error)),
                Err(error) => error,
            };
            if matches!(&error, Error::Upstream(fault) if fault.credential_rejected)
                && self.credentials.refuse(&lease)
                && !renewed
            {
                // With other credentials this is the first attempt still.
                renewed = true;
                continue;
            }
            let pause = self.retry.pause(
                &error,
                journey.call.idempotency,
                number,
                deadline.remaining(),
                fastrand::f64(),
            );
            let Some(pause) = pause else {
                return Err(error);
            };
            if !self.budget.withdraw() {
                tracing::debug!(upstream = self.settings.name, "no retries left for now");
                return Err(error);
            }
            last = Some(error);
            tokio::time::sleep(pause).await;
            self.retries.fetch_add(1, Relaxed);
            number += 1;
        }
    }

    /// One attempt: an exchange, and another where the upstream says that the
    /// thing has another address.
    async fn attempt(
        &self,
        journey: &Journey<'_>,
        lease: &Arc<Lease>,
        number: u32,
    ) -> Result<Reply, Error> {
        let Journey {
            operation, call, ..
        } = journey;
        let address = self.address(lease)?;
        let (path, project) = self.path(call, &address, lease)?;
        let project = project.as_deref();
        let acted_before = journey.may_have_acted.load(Relaxed);
        let url = address.url(&path, &call.query)?;
        let mut sent = self.send(journey, lease, url, project, number).await;
        if let Ok(reply) = &sent
            && !operation.succeeded(reply.status)
            && let Some(anchor) = self.family.redirect_anchor
            && let Some(target) = redirect::target(reply, anchor, &path, &call.query)
            // What cannot be an address is the reply's fault, not the call's.
            && let Ok(url) = address.url(&target.path, &target.query)
        {
            self.credentials.observe(&reply.headers);
            sent = self.send(journey, lease, url, project, number).await;
        }
        let (error, surely_not) = match sent {
            Ok(reply) if operation.succeeded(reply.status) => {
                self.credentials.observe(&reply.headers);
                return Ok(reply);
            }
            Ok(reply) => {
                let fault = self.fault(journey, &reply);
                // What comes with a refusal is no next token.
                if !fault.credential_rejected {
                    self.credentials.observe(&reply.headers);
                }
                let surely_not = fault.not_processed || fault.credential_rejected;
                (Error::Upstream(fault), surely_not)
            }
            Err(error) => {
                let surely_not = matches!(error, Error::Connect(_));
                (error, surely_not)
            }
        };
        if surely_not {
            journey.may_have_acted.store(acted_before, Relaxed);
        }
        Err(error)
    }

    /// One exchange, if the breaker lets it through.
    async fn send(
        &self,
        journey: &Journey<'_>,
        lease: &Arc<Lease>,
        url: Url,
        project: Option<&str>,
        number: u32,
    ) -> Result<Reply, Error> {
        let mut exchange = Exchange {
            verb: journey.call.verb.clone(),
            url,
            headers: self.headers(journey.call, journey.caller),
            body: journey.call.body.clone(),
        };
        if !journey.operation.anonymous {
            lease.authorize(&mut exchange, project)?;
        }
        let pass = self.breaker.pass().map_err(|wait| self.held(wait))?;
        journey.may_have_acted.store(true, Relaxed);
        let began = Instant::now();
        let answer = self.transport.exchange(exchange);
        let sent = journey.deadline.bound(answer).await.unwrap_or_else(Err);
        let elapsed = began.elapsed();
        let status = sent.as_ref().ok().map(|reply| reply.status);
        match (&sent, status) {
            // An upstream that hangs, or a caller in a hurry, who shall not open the
            // breaker for others: in time for a connection, nothing is known.
            (Err(Error::Deadline { .. }), _)
                if elapsed < self.settings.transport.connect_timeout => {}
            (Err(Error::Connect(_) | Error::NoResponse(_) | Error::Deadline { .. }), _) => {
                pass.failed();
            }
            // A proxy's word that nobody is behind it, or the upstream's own.
            (_, Some(StatusCode::BAD_GATEWAY))
            | (_, Some(StatusCode::SERVICE_UNAVAILABLE))
            | (_, Some(StatusCode::GATEWAY_TIMEOUT)) => pass.failed(),
            _ => pass.answered(),
        }
        tracing::debug!(
            upstream = self.settings.name,
            rpc = journey.operation.rpc,
            attempt = number,
            status = status.map(|s| s.as_u16()),
            error = sent.as_ref().err().map(tracing::field::display),
            elapsed_ms = elapsed.as_millis() as u64,
            "attempt"
        );
        if let Some(hook) = &self.on_attempt {
            hook(&Attempt {
                upstream: &self.settings.name,
                rpc: journey.operation.rpc,
                number,
                status,
                elapsed,
            });
        }
        sent
    }

    /// The headers of a call, less its authorization. Nothing else of the
    /// caller's metadata goes out.
    fn headers(&self, call: &Call, caller: &Caller) -> HeaderMap {
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
            let language = caller.accept_language.as_ref().unwrap_or(default);
            headers.insert(ACCEPT_LANGUAGE, language.clone());
        }
        for (name, value) in [
            ("x-request-id", &caller.request_id),
            ("traceparent", &caller.traceparent),
            ("tracestate", &caller.tracestate),
        ] {
            if let Some(value) = value {
                headers.insert(HeaderName::from_static(name), value.clone());
            }
        }
        headers
    }

    /// Where the upstream is: what is configured, else what the login said.
    fn address(&self, lease: &Lease) -> Result<Arc<Address>, Error> {
        if let Some(address) = &self.configured {
            return Ok(address.clone());
        }
        let Some(endpoint) = &lease.endpoint else {
            return Err(Error::NotConfigured(format!(
                "upstream {}: neither the configuration nor the login says where it is: set `endpoint`",
                self.settings.name
            )));
        };
        if let Some(learned) = &*self.learned.load()
            && learned.0 == *endpoint
        {
            return Ok(learned.1.clone());
        }
        let address = Address::of(endpoint, self.family.endpoint_suffixes).map_err(|problem| {
            Error::NotConfigured(format!(
                "upstream {}: the endpoint that the login brought {problem}: set `endpoint`",
                self.settings.name
            ))
        })?;
        let address = Arc::new(address);
        self.learned
            .store(Some(Arc::new((endpoint.clone(), address.clone()))));
        Ok(address)
    }

    /// The call's path, with the project id where the caller left it out; and that
    /// id, percent-encoded, if the path has one.
    fn path<'a>(
        &self,
        call: &'a Call,
        address: &Address,
        lease: &Lease,
    ) -> Result<(Cow<'a, str>, Option<Cow<'a, str>>), Error> {
        let whole = Cow::Borrowed(&*call.path);
        let Some(at) = call.project.clone() else {
            return Ok((whole, None));
        };
        let start = at.start;
        if let Some(given) = call.path.get(at).filter(|id| !id.is_empty()) {
            return Ok((whole, Some(Cow::Borrowed(given))));
        }
        let leased = match (&self.project_id, &lease.project_id) {
            (None, Some(id)) => endpoint::segment(id),
            _ => None,
        };
        let project_id = self
            .project_id
            .as_deref()
            .or(leased.as_deref())
            .or(address.project_id());
        match (project_id, call.path.split_at_checked(start)) {
            (Some(project_id), Some((before, after))) => Ok((
                Cow::Owned([before, project_id, after].concat()),
                Some(Cow::Owned(project_id.to_owned())),
            )),
            _ => Err(Error::Binding {
                field: "project_id".into(),
                problem: format!(
                    "is empty and the upstream knows none: give it in the request, or set `project_id` of upstream {}",
                    self.settings.name
                ),
            }),
        }
    }

    fn fault(&self, journey: &Journey<'_>, reply: &Reply) -> Box<Fault> {
        let (operation, call) = (&journey.operation, journey.call);
        let dialect = &*self.settings.dialect;
        let uncertain = operation.unverified_in.iter().any(|one| **one == *dialect);
        let context = FaultContext {
            dialect,
            rpc: operation.rpc,
            dialect_optional: operation.dialect_optional || uncertain,
            idempotency: call.idempotency,
        };
        let mut fault = (self.family.fault)(&context, reply);
        // A proxy says this of what the upstream may have done, or may do yet; and
        // UNAVAILABLE would make clients send it again by themselves.
        if call.idempotency == Idempotency::NonIdempotent
            && fault.code == Code::Unavailable
            && !fault.not_processed
            && matches!(reply.status.as_u16(), 502..=504)
        {
            fault.code = Code::Unknown;
        }
        if fault.metadata.iter().all(|(key, _)| *key != HINT)
            && let Some(hint) = absence_hint(reply.status, call.idempotency, fault.not_processed)
        {
            fault.metadata.push((HINT, hint));
        }
        // Words that the family could not tell the language of are in the one that
        // was asked for.
        if fault.locale.is_none() && self.accept_language.is_some() && !fault.message.is_ascii() {
            let asked = journey.caller.accept_language.as_ref();
            fault.locale = asked.and_then(|asked| language(asked.to_str().ok()?));
        }
        Box::new(fault)
    }

    /// The breaker's answer.
    fn held(&self, wait: Duration) -> Error {
        Error::Overload {
            code: Code::Unavailable,
            problem: format!(
                "upstream {} does not answer; nothing is sent to it for a moment",
                self.settings.name
            ),
            retry_after: wait,
        }
    }
}

/// The first language that an `accept-language` names.
fn language(asked: &str) -> Option<String> {
    let first = asked.split([',', ';']).next()?.trim();
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    (!first.is_empty() && first.len() <= 35 && first.chars().all(plain)).then(|| first.to_owned())
}

/// The error of a call, one of whose attempts may have `acted`, if only an earlier one.
fn told(call: &Call, acted: bool, error: Error) -> Error {
    match error {
        Error::Deadline { .. } => Error::Deadline { sent: acted },
        Error::Connect(cause) if acted => no_answer(call, cause),
        Error::NoResponse(cause) => no_answer(call, cause),
        Error::Upstream(mut fault) if acted && fault.not_processed => {
            fault.not_processed = false;
            fault.transient = true;
            Error::Upstream(fault)
        }
        error => error,
    }
}

/// What a call without an answer is to its caller.
fn no_answer(call: &Call, cause: String) -> Error {
    match call.idempotency {
        Idempotency::NoSideEffects | Idempotency::Idempotent => Error::NoResponse(cause),
        Idempotency::NonIdempotent => Error::OutcomeUnknown(cause),
    }
}
