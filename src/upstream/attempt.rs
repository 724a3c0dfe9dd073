//! The attempts of a call: login, exchange, redirect, retry.

use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use drawbridge_transcoder::call::{Call, Idempotency, Reply};
use http::{HeaderMap, StatusCode};
use tokio::time::Instant;
use tonic::Code;
use url::Url;

use super::{BodySlot, ExchangeRecord, RequestContext, Upstream, redirect};
use crate::credentials::Credential;
use crate::downstream::{ClientKey, RestCall};
use crate::error::Error;
use crate::http_client::HttpRequest;

impl Upstream {
    /// Makes attempts until one succeeds or another one is not allowed or would not help.
    /// Sets `sent` once an attempt may have reached the upstream.
    pub(super) async fn attempts(
        &self,
        context: &RequestContext<'_>,
        call: &Call,
        sent: &mut bool,
    ) -> Result<Reply, Error> {
        let deadline = context.deadline;
        let key = self.accepted.client(context.client).verified();
        let _permit = match context.permit {
            Some(_) => None,
            None => Some(self.permit(context.client, deadline).await?),
        };
        self.retry_budget.deposit(key);
        let mut number = 1;
        let mut renewed = false;
        let mut last = None;
        loop {
            let credential = if context.method.anonymous && self.configured_endpoint.is_some() {
                Ok(self.credentials.anonymous())
            } else {
                self.credentials.get(context.client, deadline).await
            };
            let credential = match credential {
                Ok(credential) => {
                    self.record_login(None);
                    credential
                }
                // The error of the previous attempt says more than that of the login.
                Err(error @ (Error::Credential { .. } | Error::Login { .. })) => {
                    // Others may pass soon: a health check decides.
                    if !error.is_transient() {
                        self.record_login(Some(&error));
                    }
                    return Err(last.unwrap_or(error));
                }
                Err(error) => return Err(error),
            };
            let sent_before = *sent;
            let attempt = self.attempt(context, key, call, &credential, number, sent);
            let error = match attempt.await {
                Ok(reply) => {
                    if !context.method.anonymous {
                        self.accepted.accept(context.client);
                    }
                    return Ok(reply);
                }
                Err(error) if sent_before && is_already_deleted(call, &error) => {
                    return Ok(deleted());
                }
                // The circuit breaker has opened since the previous attempt, whose error says
                // more.
                Err(error @ Error::Overload { .. }) => return Err(last.unwrap_or(error)),
                Err(error) => error,
            };
            if matches!(&error, Error::Upstream(fault) if fault.credential_rejected)
                && self.credentials.invalidate(&credential)
                && !renewed
            {
                // Does not count as an attempt: the upstream did not process it.
                renewed = true;
                continue;
            }
            let pause = self.retry_policy.pause(
                &error,
                call.idempotency,
                number,
                deadline.remaining(),
                fastrand::f64(),
            );
            let Some(pause) = pause else {
                return Err(error);
            };
            if !self.retry_budget.withdraw(key) {
                tracing::debug!(upstream = self.settings.name, "retry budget exhausted");
                return Err(error);
            }
            last = Some(error);
            tokio::time::sleep(pause).await;
            self.retries.fetch_add(1, Relaxed);
            number += 1;
        }
    }

    /// Makes one attempt: an exchange, and a second one if the upstream redirects to the
    /// canonical path of the resource.
    pub(super) async fn attempt(
        &self,
        context: &RequestContext<'_>,
        client: ClientKey,
        call: &Call,
        credential: &Credential,
        number: u32,
        sent: &mut bool,
    ) -> Result<Reply, Error> {
        let method = &context.method;
        let endpoint = self.endpoint(credential)?;
        // A redirect leads to the same endpoint.
        if !method.anonymous
            && endpoint.is_exposed
            && !credential.is_empty()
            && !self.settings.allow_plaintext_credentials
        {
            return Err(Error::PlaintextCredentials {
                is_from_catalog: self.configured_endpoint.is_none(),
            });
        }
        let (path, project) = self.path(call, &endpoint, credential)?;
        let sent_before = *sent;
        let request = |url: Url| -> Result<HttpRequest, Error> {
            let mut request = HttpRequest {
                verb: call.verb.clone(),
                url,
                headers: self.headers(call, context.client),
                body: call.body.clone(),
                memory: context.client.memory.clone(),
            };
            if !method.anonymous {
                credential.authorize(&mut request, project.as_deref())?;
            }
            Ok(request)
        };
        let first = request(endpoint.url(&path, &call.query)?)?;
        let mut result = self.send(context, client, first, number, sent).await;
        if let Ok(reply) = &result
            && !method.succeeded(reply.status)
            && let Some(anchor) = self.family.redirect_anchor
            && let Some(target) = redirect::target(reply, anchor, &path, &call.query)
            // With an invalid `Location`, the redirect reply itself is the error.
            && let Ok(url) = endpoint.url(&target.path, &target.query)
        {
            self.credentials.observe(&reply.headers);
            result = match request(url) {
                Ok(second) => self.send(context, client, second, number, sent).await,
                Err(error) => Err(error),
            };
        }
        self.leave_trail(context, call, &path, &result);
        let (error, not_processed) = match result {
            Ok(reply) if method.succeeded(reply.status) => {
                self.credentials.observe(&reply.headers);
                if let Some(longest) = context.retry_after {
                    longest.observe(&reply.headers);
                }
                return Ok(reply);
            }
            Ok(reply) => {
                let fault = self.fault(context, call.idempotency, &reply);
                // On a rejection the header holds a challenge, not the next token.
                if !fault.credential_rejected {
                    self.credentials.observe(&reply.headers);
                }
                let not_processed = fault.not_processed || fault.credential_rejected;
                (Error::Upstream(fault), not_processed)
            }
            Err(error) => {
                let not_processed = matches!(
                    error,
                    Error::Connect(_) | Error::Certificate(_) | Error::Deadline { sent: false }
                );
                (error, not_processed)
            }
        };
        if not_processed {
            *sent = sent_before;
        }
        Err(error)
    }

    /// Keeps a REST call that can change something, for the audit log.
    fn leave_trail(
        &self,
        context: &RequestContext<'_>,
        call: &Call,
        path: &str,
        result: &Result<Reply, Error>,
    ) {
        let Some(trail) = &context.client.trail else {
            return;
        };
        if call.idempotency == Idempotency::NoSideEffects {
            return;
        }
        let headers = result.as_ref().ok().map(|reply| &reply.headers);
        trail.record(RestCall {
            verb: call.verb.clone(),
            path: path.into(),
            upstream_request_id: headers.and_then(|headers| self.family.request_id(headers)),
        });
    }

    /// Makes one exchange, unless the circuit breaker is open, and reports its result to
    /// the circuit breaker, the log and the hook.
    async fn send(
        &self,
        context: &RequestContext<'_>,
        client: ClientKey,
        request: HttpRequest,
        number: u32,
        sent: &mut bool,
    ) -> Result<Reply, Error> {
        // A call that was queued until the others were cut off.
        if self.cut_off.has_begun() {
            return Err(self.end());
        }
        let permit = match context.is_probe {
            true => None,
            false => Some(
                self.circuit_breaker
                    .acquire(client)
                    .map_err(|retry_after| self.circuit_open(retry_after))?,
            ),
        };
        *sent = true;
        let started = Instant::now();
        let result = match context.body_slot {
            None => {
                let exchange = self.transport.exchange_until(request, context.deadline);
                exchange.await
            }
            Some(slot) => self.open(context, slot, request).await,
        };
        let elapsed = started.elapsed();
        let status = result.as_ref().ok().map(|reply| reply.status);
        let Some(permit) = permit else {
            return result;
        };
        let wants_probe = match (&result, status) {
            // The deadline may have been too short to connect: that says nothing about the
            // upstream, and must not open the circuit breaker for other clients.
            (Err(Error::Deadline { .. }), _)
                if elapsed < self.settings.transport.connect_timeout =>
            {
                false
            }
            (Err(Error::Connect(_) | Error::Certificate(_)), _)
            | (Err(Error::NoResponse(_) | Error::Deadline { .. }), _) => permit.record_failure(),
            // From a proxy without a backend, or from an upstream that does not serve.
            (_, Some(StatusCode::BAD_GATEWAY))
            | (_, Some(StatusCode::SERVICE_UNAVAILABLE))
            | (_, Some(StatusCode::GATEWAY_TIMEOUT)) => permit.record_failure(),
            _ => {
                permit.record_success();
                false
            }
        };
        if wants_probe {
            self.probe_requests.notify_one();
        }
        self.record_exchange(&result);
        tracing::debug!(
            upstream = self.settings.name,
            operation = context.method.operation,
            attempt = number,
            status = status.map(|s| s.as_u16()),
            error = result.as_ref().err().map(tracing::field::display),
            elapsed_ms = elapsed.as_millis() as u64,
            "exchange"
        );
        if let Some(hook) = &self.on_exchange {
            hook(&ExchangeRecord {
                upstream: &self.settings.name,
                rpc: context.method.rpc,
                number,
                status,
                elapsed,
            });
        }
        result
    }

    /// Makes one exchange, and leaves the body of a success in `slot`.
    async fn open(
        &self,
        context: &RequestContext<'_>,
        slot: &BodySlot,
        request: HttpRequest,
    ) -> Result<Reply, Error> {
        let streams = |status| context.method.succeeded(status);
        let opened = self
            .transport
            .open_until(request, streams, context.deadline);
        let (reply, body) = Box::pin(opened).await?;
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = body;
        Ok(reply)
    }
}

/// Returns whether the error of an idempotent delete says that the resource does not exist.
fn is_already_deleted(call: &Call, error: &Error) -> bool {
    let missing = matches!(error, Error::Upstream(fault)
        if fault.code == Code::NotFound && fault.http_status == 404 && !fault.is_unrelated);
    missing && call.verb == http::Method::DELETE && call.idempotency == Idempotency::Idempotent
}

/// Returns the reply to a delete whose earlier attempt succeeded and whose response was
/// lost.
fn deleted() -> Reply {
    Reply {
        status: StatusCode::NO_CONTENT,
        headers: HeaderMap::new(),
        body: Bytes::new(),
    }
}
