//! A login: one exchange with an identity service. Making the request and reading the
//! response are pure functions.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tonic::Code;
use url::Url;

use super::credential_error;
use crate::credentials::credential::IssuedToken;
use crate::credentials::token_cache::{Attempt, LoginCounts, TokenCache, login_error};
use crate::downstream::CorrelationHeader;
use crate::error::{Error, LoginFailure};
use crate::http_client::retry_after::{is_rate_limit, retry_after};
use crate::http_client::{HttpRequest, Transport};
use drawbridge_transcoder::call::{Reply, without_mark};

/// Limit of an identity service's message in an error, in characters.
const MAX_MESSAGE_CHARS: usize = 200;

/// The protocol of one kind of identity service.
pub(super) trait Login: Send + Sync + 'static {
    /// Returns identity service and user, for messages: `https://… as user demo`.
    fn label(&self) -> String;
    /// Makes the request.
    fn request(&self, now: SystemTime) -> Result<HttpRequest, Error>;
    /// Reads the response. Fails with [`Error::Credential`].
    fn read(&self, reply: &Reply, now: SystemTime) -> Result<IssuedToken, Error>;
}

/// Returns a token cache that uses this login. `correlation` is the header with the request
/// id of the client whose call needs the login.
pub(super) fn token_cache(
    login: impl Login,
    correlation: Option<CorrelationHeader>,
    transport: Transport,
    counts: Arc<LoginCounts>,
) -> TokenCache {
    let login = Arc::new(login);
    let label = login.label();
    let log_in = move |request_uuid| -> Attempt {
        let (login, transport) = (login.clone(), transport.clone());
        let id = correlation.and_then(|header: CorrelationHeader| header.of(request_uuid));
        Box::pin(async move { log_in(&*login, &transport, id).await })
    };
    TokenCache::new(label, Box::new(log_in), counts)
}

/// Makes one attempt of a login. Fails with [`Error::Login`].
async fn log_in(
    login: &impl Login,
    transport: &Transport,
    id: Option<(HeaderName, HeaderValue)>,
) -> Result<IssuedToken, Error> {
    let mut request = login
        .request(SystemTime::now())
        .map_err(|error| failed(error, None))?;
    request.headers.extend(id);
    let reply = transport.exchange(request).await.map_err(|error| {
        let failure = match error {
            Error::Connect(_) | Error::NoResponse(_) => LoginFailure::Unavailable,
            _ => LoginFailure::Failed,
        };
        let label = login.label();
        let problem = format!(
            "cannot log in at {label}: {error}: check the URL, and that the identity service can \
             be reached from here"
        );
        login_error(failure, problem)
    })?;
    let token = login.read(&reply, SystemTime::now());
    token.map_err(|error| failed(error, Some(&reply)))
}

/// Returns the error of an attempt: why it failed, and when to try again.
fn failed(error: Error, reply: Option<&Reply>) -> Error {
    let (code, problem) = match error {
        Error::Credential { code, problem } => (code, problem),
        error => (Code::FailedPrecondition, error.to_string()),
    };
    // A success that cannot be read would be the same again.
    let is_error = reply.is_some_and(|reply| !reply.status.is_success());
    Error::Login {
        failure: match code {
            Code::Unauthenticated => LoginFailure::Rejected,
            Code::Unavailable if is_error => LoginFailure::Unavailable,
            Code::Unavailable => LoginFailure::Failed,
            _ => LoginFailure::NotPossible,
        },
        problem,
        retry_after: reply.and_then(|reply| retry_after(reply, SystemTime::now())),
    }
}

/// Returns a `POST` of JSON.
pub(super) fn post(url: Url, body: &Value) -> HttpRequest {
    let json = HeaderValue::from_static("application/json");
    HttpRequest {
        verb: Method::POST,
        url,
        headers: HeaderMap::from_iter([
            (header::CONTENT_TYPE, json.clone()),
            (header::ACCEPT, json),
        ]),
        body: Some(Bytes::from(body.to_string())),
        memory: Default::default(),
    }
}

/// Returns `base` with `path` appended, and this query.
pub(super) fn below(base: &Url, path: &str, query: Option<&str>) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
    url.set_query(query);
    url.set_fragment(None);
    url
}

/// Returns a URL for messages: without user, password and query, which may be secret.
pub(super) fn display_url(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

/// Returns the error of a rejected login, never with `secret` in it.
pub(super) fn rejection(label: &str, reply: &Reply, secret: &str) -> Error {
    rejection_of(
        label,
        reply,
        secret,
        "check user, secret, domain and project",
    )
}

/// Returns the error of a rejected login. `to_check` is what to do about invalid credentials.
pub(super) fn rejection_of(label: &str, reply: &Reply, secret: &str, to_check: &str) -> Error {
    let status = reply.status.as_u16();
    let (code, hint) = match status {
        403 if is_rate_limit(reply) => (Code::Unavailable, "try again later"),
        401 | 403 => (Code::Unauthenticated, to_check),
        400 => (Code::FailedPrecondition, "check user, domain and project"),
        // Rackspace limits rates with 413.
        408 | 413 | 423 | 425 | 429 => (Code::Unavailable, "try again later"),
        300..=499 => (
            Code::FailedPrecondition,
            "it is not an identity service: check the URL",
        ),
        _ => (Code::Unavailable, "try again later"),
    };
    let location = location(reply).filter(|location| !location.contains(secret));
    let hint = match (status, location) {
        (300..=399, Some(location)) => {
            format!("it redirects to {location}, and a login follows no redirect: check the URL")
        }
        _ => hint.to_owned(),
    };
    // The message of a 400 can contain values of the request.
    let message = match message(&reply.body) {
        Some(message) if status != 400 && !message.contains(secret) => format!(" ({message})"),
        _ => String::new(),
    };
    let what = if code == Code::Unauthenticated {
        "the login was rejected"
    } else {
        "cannot log in"
    };
    credential_error(
        code,
        format!("{what} at {label}: HTTP {status}{message}: {hint}"),
    )
}

/// Returns where a redirect leads, without what may be secret.
fn location(reply: &Reply) -> Option<String> {
    let location = reply.headers.get(header::LOCATION)?.to_str().ok()?;
    let location = match Url::parse(location) {
        Ok(url) => display_url(&url),
        Err(_) => location.split(['?', '#']).next()?.to_owned(),
    };
    let location: String = location.chars().take(MAX_MESSAGE_CHARS).collect();
    (!location.is_empty()).then_some(location)
}

/// Returns the service's own message: Keystone's `error.message`, Huawei's `error_msg`,
/// Rackspace's `unauthorized.message`.
pub(super) fn message(body: &Bytes) -> Option<String> {
    let body: Value = serde_json::from_slice(without_mark(body)).ok()?;
    let text = body
        .get("error_msg")
        .or_else(|| body.as_object()?.values().find_map(|v| v.get("message")))?
        .as_str()?;
    Some(
        text.chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(MAX_MESSAGE_CHARS)
            .collect(),
    )
}

/// Parses the body of a successful login.
pub(super) fn json<T: DeserializeOwned>(label: &str, reply: &Reply) -> Result<T, Error> {
    // Only the position: the body may contain the token.
    serde_json::from_slice(reply.text()).map_err(|e| {
        let problem = match reply.text().trim_ascii() {
            b"" => "it is empty".to_owned(),
            _ if is_web_page(reply) => "it is a web page".to_owned(),
            _ => format!("line {}, column {} is unexpected", e.line(), e.column()),
        };
        unreadable(label, &problem)
    })
}

/// Returns whether the response is HTML or XML.
pub(super) fn is_web_page(reply: &Reply) -> bool {
    reply.text().trim_ascii_start().starts_with(b"<")
}

/// Returns the error of a response that no identity service sends.
pub(super) fn unreadable(label: &str, problem: &str) -> Error {
    credential_error(
        Code::Unavailable,
        format!(
            "the response to the login at {label} cannot be read: {problem}: it may be no identity \
             service: check the URL"
        ),
    )
}

/// Returns the header with an issued token. Fails on an empty token.
pub(super) fn token_header(
    label: &str,
    name: HeaderName,
    mut value: HeaderValue,
) -> Result<(HeaderName, HeaderValue), Error> {
    if value.is_empty() {
        return Err(unreadable(label, "the token is empty"));
    }
    value.set_sensitive(true);
    Ok((name, value))
}
