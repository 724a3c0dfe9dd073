//! Reads error replies, by the rules of the family and of the upstream.

use std::borrow::Cow;
use std::time::SystemTime;

use drawbridge_transcoder::call::{Idempotency, Reply};
use http::StatusCode;
use tonic::Code;

use super::family::{FaultContext, gateway_error_hint};
use super::{RequestContext, Upstream, missing_api};
use crate::credentials;
use crate::error::{Fault, HINT, visible};
use crate::http_client::retry_after::{is_rate_limit, rate_limit_wait};

impl Upstream {
    /// Reads the error body of a reply with a success status. `status` is the HTTP status
    /// of the error; the fault has the reply's own, and never says that a repetition is
    /// safe: the upstream did respond with a success. Nothing in it invites a client to
    /// repeat a call that is not idempotent: neither the code nor `Retry-After`.
    pub fn fault_in_success(
        &self,
        context: &RequestContext<'_>,
        idempotency: Idempotency,
        reply: &Reply,
        status: u16,
        hint: String,
    ) -> Box<Fault> {
        let error = Reply {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            ..reply.clone()
        };
        let mut fault = self.fault(context, idempotency, &error);
        fault.http_status = reply.status.as_u16();
        fault.in_success = true;
        fault.not_processed = false;
        fault.transient = false;
        fault.credential_rejected = false;
        if idempotency == Idempotency::NonIdempotent {
            fault.retry_after = None;
            if matches!(
                fault.code,
                Code::Unavailable | Code::ResourceExhausted | Code::Aborted
            ) {
                fault.code = Code::Unknown;
            }
        }
        fault.metadata.retain(|(key, _)| *key != HINT);
        fault.metadata.push((HINT, hint));
        fault
    }

    /// Reads an error reply with the family's error mapping.
    pub(super) fn fault(
        &self,
        context: &RequestContext<'_>,
        idempotency: Idempotency,
        reply: &Reply,
    ) -> Box<Fault> {
        let method = &context.method;
        let dialect = &*self.settings.dialect;
        let unverified = method.unverified_in.iter().any(|one| **one == *dialect);
        let fault_context = FaultContext {
            dialect,
            rpc: method.rpc,
            dialect_optional: method.dialect_optional || unverified,
            idempotency,
        };
        let mut fault = (self.family.fault)(&fault_context, reply);
        // The log shows some of them.
        for text in [&mut fault.message, &mut fault.reason] {
            if let Cow::Owned(shown) = visible(text) {
                *text = shown;
            }
        }
        let status = reply.status.as_u16();
        fault.not_processed |= (self.family.not_processed.iter())
            .any(|(one, text)| *one == status && fault.message.contains(text));
        if is_rate_limit(reply) {
            fault.code = Code::ResourceExhausted;
            fault.retry_after = Some(rate_limit_wait(reply, SystemTime::now()));
            // Not `not_processed`: a 403 may also mean something else.
            fault.transient = true;
        }
        // The client's own credentials may be valid: it must not replace them.
        let auth = &self.settings.auth;
        if fault.code == Code::Unauthenticated && matches!(auth, credentials::Settings::None) {
            fault.code = Code::FailedPrecondition;
            fault.metadata.retain(|(key, _)| *key != HINT);
            let hint = "it requires credentials: set [upstream.auth]".to_owned();
            fault.metadata.push((HINT, hint));
        } else if fault.code == Code::Unauthenticated && self.credentials.are_configured() {
            fault.code = Code::FailedPrecondition;
            if fault.metadata.iter().all(|(key, _)| *key != HINT) {
                let hint = "the upstream rejects the gateway's own credentials: its operator \
                            must check `auth` in its configuration";
                fault.metadata.push((HINT, hint.to_owned()));
            }
        }
        if matches!(fault.code, Code::NotFound | Code::Unimplemented)
            && let Some(cause) = missing_api::cause(reply, &fault)
        {
            fault.code = Code::Unimplemented;
            fault.is_unrelated |= cause == missing_api::Cause::Proxy;
            // A hint of the family is about the resource.
            fault.metadata.retain(|(key, _)| *key != HINT);
            fault.metadata.push((HINT, cause.hint().to_owned()));
        }
        if let Some(hint) = missing_api::plaintext_hint(&fault) {
            fault.code = Code::FailedPrecondition;
            fault.is_unrelated = true;
            fault.metadata.retain(|(key, _)| *key != HINT);
            fault.metadata.push((HINT, hint.to_owned()));
        }
        if status == 407 && fault.metadata.iter().all(|(key, _)| *key != HINT) {
            let hint = "a proxy requires credentials: set HTTP_PROXY or HTTPS_PROXY of the gateway \
                        to http://USER:PASSWORD@HOST:PORT";
            fault.metadata.push((HINT, hint.to_owned()));
        }
        // From a proxy: the upstream may have acted, or may still act. Clients retry
        // UNAVAILABLE by themselves.
        if idempotency == Idempotency::NonIdempotent
            && fault.code == Code::Unavailable
            && !fault.not_processed
            && matches!(status, 502..=504)
        {
            fault.code = Code::Unknown;
            // Not an invitation to repeat the call.
            fault.retry_after = None;
        }
        if fault.metadata.iter().all(|(key, _)| *key != HINT)
            && let Some(hint) = gateway_error_hint(reply.status, idempotency, fault.not_processed)
        {
            fault.metadata.push((HINT, hint));
        }
        // Without a language in the reply, the message is in the requested one.
        if fault.locale.is_none() && self.accept_language.is_some() && !fault.message.is_ascii() {
            let requested = context.client.accept_language.as_ref();
            fault.locale = requested.and_then(|value| first_language(value.to_str().ok()?));
        }
        Box::new(fault)
    }
}

/// Returns the first language of an `accept-language` header.
fn first_language(header: &str) -> Option<String> {
    let first = header.split([',', ';']).next()?.trim();
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    (!first.is_empty() && first.len() <= 35 && first.chars().all(plain)).then(|| first.to_owned())
}
