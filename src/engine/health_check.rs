//! The health check of an upstream: a login and one read, which the contract names per family.
//! `drawbridge check` reports its result; the server makes it when it starts.

use std::sync::Arc;
use std::time::Duration;

use drawbridge_transcoder::call::Idempotency;
use drawbridge_transcoder::contract::Method;
use http::StatusCode;

use super::call_context::CallContext;
use crate::credentials::Settings as Auth;
use crate::deadline::Deadline;
use crate::downstream::Downstream;
use crate::error::{Error, LoginFailure};
use crate::upstream::{MethodProperties, RequestContext, Upstream};

/// What a successful health check has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// The upstream serves its family's API and accepts the gateway's credentials.
    Serves,
    /// It responds with this status to a request without credentials. Whether it serves the
    /// API, or accepts the credentials, could not be checked.
    Responds(StatusCode),
}

/// Logs in and makes the read `method`. Without one, or where only clients have credentials,
/// checks as much as it can. Does not count for the circuit breaker and the retry budget.
///
/// # Errors
///
/// Returns what failed, where, and what to do.
pub async fn check(
    upstream: &Arc<Upstream>,
    method: Option<&Method>,
    timeout: Duration,
) -> Result<Shown, String> {
    let deadline = Deadline::after(timeout);
    let explained = |error: Error| explain(upstream, method, &error);
    let passthrough = matches!(upstream.settings.auth, Auth::Passthrough);
    if !passthrough {
        upstream.log_in(deadline).await.map_err(explained)?;
    }
    let Some(method) = method else {
        return responds(upstream, deadline, |status| {
            !matches!(status.as_u16(), 502..=504)
        })
        .await;
    };
    match read(upstream, method, deadline, passthrough).await {
        Ok(()) => Ok(Shown::Serves),
        // Only the client has credentials, and only it knows the project.
        Err(Error::Upstream(fault)) if passthrough && matches!(fault.http_status, 401 | 403) => {
            let status = StatusCode::from_u16(fault.http_status);
            Ok(Shown::Responds(status.unwrap_or_default()))
        }
        Err(Error::Binding { .. }) if passthrough => {
            responds(upstream, deadline, |status| {
                !matches!(status.as_u16(), 404 | 405 | 410 | 500..)
            })
            .await
        }
        Err(error) => Err(explained(error)),
    }
}

/// Checks whether the upstream responds to the probe, with a status that `accepts`.
async fn responds(
    upstream: &Upstream,
    deadline: Deadline,
    accepts: fn(StatusCode) -> bool,
) -> Result<Shown, String> {
    match upstream.probe(deadline.remaining()).await {
        Some(Ok(status)) if accepts(status) => Ok(Shown::Responds(status)),
        Some(Ok(status)) => {
            let endpoint = upstream.endpoint_text().unwrap_or_default();
            let family = &upstream.settings.family;
            let advice = match status.as_u16() {
                500.. => FAILS.to_owned(),
                _ => wrong_api(family),
            };
            Err(format!("{endpoint}: HTTP {}: {advice}", status.as_u16()))
        }
        Some(Err(error)) => Err(explain(upstream, None, &error)),
        // Only passthrough logs in nowhere, and it requires an endpoint.
        None => Err("has no endpoint: set `endpoint`".to_owned()),
    }
}

/// The advice for a response with a status of 500 and more.
const FAILS: &str = "the upstream, or a proxy in front of it, fails: check that it runs";

/// Returns the advice for a response that the family's API does not have.
fn wrong_api(family: &str) -> String {
    format!("it is not the API of the family {family}: check `endpoint`")
}

/// Makes the read `method`, and decodes its reply.
pub async fn read(
    upstream: &Arc<Upstream>,
    method: &Method,
    deadline: Deadline,
    anonymous: bool,
) -> Result<(), Error> {
    let client = &Downstream::default();
    let call = method.bind(b"", &upstream.settings.dialect)?;
    let mut properties = MethodProperties::of(method);
    properties.anonymous |= anonymous;
    let context = RequestContext {
        permit: None,
        method: properties,
        client,
        deadline,
        body_slot: None,
        retry_after: None,
        is_probe: true,
    };
    let reply = upstream.probe_call(&context, &call).await?;
    let context = CallContext {
        permit: None,
        upstream,
        client,
        deadline,
        retry_after: None,
    };
    let effect = Idempotency::NoSideEffects;
    context
        .decode(method, (&call.verb, effect), &reply)
        .await
        .map(|_| ())
}

/// Returns the text of a failed check: what failed, where, and what to do.
pub fn explain(upstream: &Upstream, method: Option<&Method>, error: &Error) -> String {
    let settings = &upstream.settings;
    let endpoint = upstream.endpoint_text().unwrap_or_default();
    let family = &*settings.family;
    let rpc = method.map_or("the probe", |method| &*method.name);
    let wrong_api = wrong_api(family);
    match error {
        Error::Login {
            failure: LoginFailure::Deadline,
            ..
        } => format!(
            "{error}: check the URL, and that the identity service can be reached from here"
        ),
        // They name the identity service, or the key to set.
        Error::Login { .. }
        | Error::Credential { .. }
        | Error::NotConfigured(_)
        | Error::PlaintextCredentials { .. }
        | Error::Binding { .. } => error.to_string(),
        Error::Connect(_) | Error::NoResponse(_) | Error::OutcomeUnknown(_) => format!(
            "{endpoint}: {error}: check `endpoint`, and that the upstream runs and can be reached \
             from here"
        ),
        Error::Deadline { .. } => format!(
            "{endpoint}: no response in time: check `endpoint`, and that the upstream runs and \
             can be reached from here"
        ),
        Error::Upstream(fault) => {
            let message = match fault.message.trim() {
                "" => String::new(),
                message => format!(" ({message})"),
            };
            let status = fault.http_status;
            let advice = match status {
                401 if matches!(settings.auth, Auth::None) => {
                    "it requires credentials: set [upstream.auth]".to_owned()
                }
                401 => format!(
                    "it rejects the credentials: check [upstream.auth], here kind `{}`",
                    settings.auth.kind()
                ),
                403 => format!(
                    "the credentials must not call {rpc}: check the roles of the user, and the \
                     project"
                ),
                300..=399 | 404 | 405 | 410 | 501 => wrong_api,
                429 => "too many requests: try again later".to_owned(),
                500..=599 => FAILS.to_owned(),
                _ => "check `endpoint` and `dialect`".to_owned(),
            };
            format!("{endpoint}: HTTP {status} to {rpc}{message}: {advice}")
        }
        Error::Decode { .. } | Error::NotTheResource { .. } | Error::ErrorInSuccess { .. } => {
            format!("{endpoint}: the response to {rpc} cannot be read ({error}): {wrong_api}")
        }
        // A certificate that is not trusted, or a limit: the text says what to do.
        error => format!("{endpoint}: {error}"),
    }
}
