//! A login: one exchange with an identity service, whose two ends are pure.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tonic::Code;
use url::Url;

use super::credential;
use crate::credentials::credential::Grant;
use crate::credentials::token_cache::Keeper;
use crate::error::Error;
use crate::http_client::{Exchange, Transport};
use drawbridge_transcoder::call::Reply;

/// Longest text of an identity service that goes into a message, in characters.
const WORDS: usize = 200;

/// How one kind of identity service is asked and answers.
pub(super) trait Login: Send + Sync + 'static {
    /// Who logs in where, for messages: `https://… as user demo`.
    fn place(&self) -> String;
    /// The request.
    fn request(&self, now: SystemTime) -> Result<Exchange, Error>;
    /// What the answer brings. Fails with [`Error::Credential`].
    fn read(&self, reply: &Reply, now: SystemTime) -> Result<Grant, Error>;
}

/// Keeps what this login brings.
pub(super) fn keeper(login: impl Login, transport: Transport) -> Keeper {
    let login = Arc::new(login);
    Keeper::new(Box::new(move || {
        let (login, transport) = (login.clone(), transport.clone());
        Box::pin(async move {
            let request = login.request(SystemTime::now())?;
            let reply = transport.exchange(request).await.map_err(|error| {
                let place = login.place();
                credential(
                    Code::Unavailable,
                    format!("cannot log in at {place}: {error}"),
                )
            })?;
            login.read(&reply, SystemTime::now())
        })
    }))
}

/// A `POST` of JSON.
pub(super) fn post(url: Url, body: &Value) -> Exchange {
    let json = HeaderValue::from_static("application/json");
    Exchange {
        verb: Method::POST,
        url,
        headers: HeaderMap::from_iter([
            (header::CONTENT_TYPE, json.clone()),
            (header::ACCEPT, json),
        ]),
        body: Some(Bytes::from(body.to_string())),
    }
}

/// `base` with `path` after its own, and this query.
pub(super) fn below(base: &Url, path: &str, query: Option<&str>) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
    url.set_query(query);
    url.set_fragment(None);
    url
}

/// A url for messages: without what might be secret in it.
pub(super) fn shown(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

/// The error of a login that was not granted. `secret` never gets into it.
pub(super) fn refusal(place: &str, reply: &Reply, secret: &str) -> Error {
    let status = reply.status.as_u16();
    let (code, hint) = match status {
        401 | 403 => (
            Code::Unauthenticated,
            "check user, secret, domain and project",
        ),
        400 => (Code::FailedPrecondition, "check user, domain and project"),
        300..=399 | 404 | 405 | 410 => (
            Code::FailedPrecondition,
            "no identity service answers there: check the url",
        ),
        _ => (Code::Unavailable, "try again later"),
    };
    // A 400 repeats what was sent.
    let words = match words(&reply.body) {
        Some(words) if status != 400 && !(words.contains(secret)) => format!(" ({words})"),
        _ => String::new(),
    };
    let what = if code == Code::Unauthenticated {
        "the login was refused"
    } else {
        "cannot log in"
    };
    credential(
        code,
        format!("{what} at {place}: HTTP {status}{words}: {hint}"),
    )
}

/// The service's own words: Keystone's `error.message`, Huawei's `error_msg`,
/// Rackspace's `unauthorized.message`.
pub(super) fn words(body: &Bytes) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let text = body
        .get("error_msg")
        .or_else(|| body.as_object()?.values().find_map(|v| v.get("message")))?
        .as_str()?;
    Some(
        text.chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(WORDS)
            .collect(),
    )
}

/// Reads the JSON of an answer that granted the login.
pub(super) fn json<T: DeserializeOwned>(place: &str, reply: &Reply) -> Result<T, Error> {
    // Only where it went wrong is told: the text may hold the token.
    serde_json::from_slice(&reply.body).map_err(|e| {
        unreadable(
            place,
            &format!("line {}, column {} is unexpected", e.line(), e.column()),
        )
    })
}

/// The error of an answer that is not what an identity service sends.
pub(super) fn unreadable(place: &str, problem: &str) -> Error {
    credential(
        Code::Unavailable,
        format!("the answer to the login at {place} cannot be read: {problem}"),
    )
}

/// A header of a grant.
pub(super) fn token(
    place: &str,
    name: HeaderName,
    mut value: HeaderValue,
) -> Result<(HeaderName, HeaderValue), Error> {
    if value.is_empty() {
        return Err(unreadable(place, "the token is empty"));
    }
    value.set_sensitive(true);
    Ok((name, value))
}

/// The error of a catalog that lacks what is looked for.
pub(super) fn not_in_catalog(
    place: &str,
    wanted: &str,
    region: Option<&str>,
    regions: impl IntoIterator<Item = String>,
) -> Error {
    let mut regions: Vec<String> = regions.into_iter().take(100).collect();
    regions.sort();
    regions.dedup();
    let problem = match (region, regions.is_empty()) {
        (_, true) => "there is none at all: check that the service exists and that the login \
                      has a project, or configure `endpoint`"
            .to_owned(),
        (Some(region), false) => {
            format!("none in region {region}: there is {}", regions.join(", "))
        }
        (None, false) => format!("set the region: there is {}", regions.join(", ")),
    };
    credential(
        Code::FailedPrecondition,
        format!("no endpoint for {wanted} in the catalog of {place}: {problem}"),
    )
}
