//! AK/SK signing: Huawei Cloud's request signature, `SDK-HMAC-SHA256`. Pure: the time is an
//! argument.
//!
//! Source of the rules: the official Python signer (huaweicloudsdkcore,
//! `signer/signer.py`); its vectors are in `tests/fixtures/servicestage`.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use ring::{digest, hmac};
use secrecy::{ExposeSecret, SecretString};

use super::{AkSk, header_value};
use crate::error::Error;
use crate::http_client::HttpRequest;

const ALGORITHM: &str = "SDK-HMAC-SHA256";
const DATE: HeaderName = HeaderName::from_static("x-sdk-date");
const PROJECT: HeaderName = HeaderName::from_static("x-project-id");
const DOMAIN: HeaderName = HeaderName::from_static("x-domain-id");
const SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-security-token");
const PAYLOAD: HeaderName = HeaderName::from_static("x-sdk-content-sha256");
const UNSIGNED: HeaderValue = HeaderValue::from_static("UNSIGNED-PAYLOAD");

/// The headers that are signed if present, in sorted order. A proxy may add or change any
/// other header.
const SIGNED_HEADERS: [&str; 7] = [
    "content-type",
    "host",
    "x-domain-id",
    "x-project-id",
    "x-sdk-content-sha256",
    "x-sdk-date",
    "x-security-token",
];

/// The characters that are encoded in canonical paths and queries.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// The largest accepted difference between a request's date and the server's clock.
/// Source: Huaweicloud API Gateway, "AK/SK Signing and Authentication".
pub const MAX_CLOCK_SKEW: Duration = Duration::from_secs(15 * 60);

/// Access keys, ready to sign.
#[derive(Clone, Debug)]
pub struct Keys {
    access_key: String,
    // Contains only hash states of the secret key; its `Debug` prints the algorithm.
    secret_key: hmac::Key,
    security_token: Option<HeaderValue>,
    /// `x-project-id`, or `x-domain-id` without a project, of calls whose path has no project
    /// id.
    scope: Option<(HeaderName, HeaderValue)>,
}

impl Keys {
    /// Checks the keys. Fails with FAILED_PRECONDITION if one of them cannot be a header
    /// value.
    pub fn new(settings: &AkSk) -> Result<Self, Error> {
        header_value("access key", &settings.access_key)?;
        let scope = match (&settings.project_id, &settings.domain_id) {
            (Some(id), _) => Some((PROJECT, header_value("project id", id)?)),
            (None, Some(id)) => Some((DOMAIN, header_value("domain id", id)?)),
            (None, None) => None,
        };
        Ok(Self {
            access_key: settings.access_key.clone(),
            secret_key: secret_key(&settings.secret_key),
            security_token: settings
                .security_token
                .as_ref()
                .map(|token| header_value("security token", token.expose_secret()))
                .transpose()?,
            scope,
        })
    }

    /// Signs the request: sets the headers that a signature needs, and `authorization`. URL
    /// and body are unchanged. `project` is the project id in the path, percent-encoded; it
    /// is sent as `x-project-id`. Fails if it cannot be a header value.
    pub fn sign(
        &self,
        request: &mut HttpRequest,
        project: Option<&str>,
        now: SystemTime,
    ) -> Result<(), Error> {
        request
            .headers
            .insert(DATE, header_value("date", &date(now))?);
        if let Some(id) = project {
            request.headers.insert(PROJECT, project_header(id)?);
        } else if let Some((name, value)) = &self.scope {
            request.headers.insert(name.clone(), value.clone());
        }
        if let Some(token) = &self.security_token {
            request.headers.insert(SECURITY_TOKEN, token.clone());
        }
        if payload_is_unsigned(&request.headers) {
            request.headers.insert(PAYLOAD, UNSIGNED);
        }
        let canonical = Request {
            verb: &request.verb,
            authority: &request.url[url::Position::BeforeHost..url::Position::AfterPort],
            path: request.url.path(),
            query: request.url.query().unwrap_or_default(),
            headers: &request.headers,
            body: request.body.as_deref().unwrap_or_default(),
        };
        let signed: Vec<&str> = SIGNED_HEADERS
            .into_iter()
            .filter(|name| canonical.header(name).is_some())
            .collect();
        let authorization = self.authorization(&canonical, &signed);
        request.headers.insert(
            header::AUTHORIZATION,
            header_value("signature", &authorization)?,
        );
        Ok(())
    }

    fn authorization(&self, request: &Request<'_>, signed: &[&str]) -> String {
        let tag = hmac::sign(&self.secret_key, &request.string_to_sign(signed));
        format!(
            "{ALGORITHM} Access={}, SignedHeaders={}, Signature={}",
            self.access_key,
            signed.join(";"),
            hex(tag.as_ref()),
        )
    }
}

/// Returns the project id of a path as a header value.
fn project_header(id: &str) -> Result<HeaderValue, Error> {
    let id: Cow<'_, [u8]> = percent_decode_str(id).into();
    HeaderValue::from_bytes(&id).map_err(|_| Error::Binding {
        field: "project_id".into(),
        problem: "has a character that is invalid in a header, perhaps a line break".into(),
    })
}

/// Returns the difference between the gateway's clock and the reply's `Date`, which has a
/// resolution of 1 s. None without a valid `Date`.
pub fn clock_skew(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let date = headers.get(header::DATE)?.to_str().ok()?;
    Some(difference(httpdate::parse_http_date(date).ok()?, now))
}

/// The parts of a request that a signature covers.
struct Request<'a> {
    verb: &'a Method,
    /// The value of `host` if the headers have none.
    authority: &'a str,
    path: &'a str,
    query: &'a str,
    headers: &'a HeaderMap,
    body: &'a [u8],
}

impl Request<'_> {
    fn header(&self, name: &str) -> Option<&[u8]> {
        match self.headers.get(name) {
            Some(value) => Some(value.as_bytes()),
            None if name == "host" && !self.authority.is_empty() => Some(self.authority.as_bytes()),
            None => None,
        }
    }

    fn canonical(&self, signed: &[&str]) -> Vec<u8> {
        let mut text = format!(
            "{}\n{}\n{}\n",
            self.verb,
            canonical_path(self.path),
            canonical_query(self.query)
        )
        .into_bytes();
        for name in signed {
            text.extend_from_slice(name.as_bytes());
            text.push(b':');
            text.extend_from_slice(self.header(name).unwrap_or_default().trim_ascii());
            text.push(b'\n');
        }
        text.push(b'\n');
        text.extend_from_slice(signed.join(";").as_bytes());
        text.push(b'\n');
        match self.headers.get(PAYLOAD) {
            // An empty body is always hashed.
            Some(header) if !self.body.is_empty() => text.extend_from_slice(header.as_bytes()),
            _ => text.extend_from_slice(sha256(self.body).as_bytes()),
        }
        text
    }

    fn string_to_sign(&self, signed: &[&str]) -> Vec<u8> {
        let mut text = format!("{ALGORITHM}\n").into_bytes();
        text.extend_from_slice(self.header(DATE.as_str()).unwrap_or_default());
        text.push(b'\n');
        text.extend_from_slice(sha256(&self.canonical(signed)).as_bytes());
        text
    }
}

/// Decodes the path, then encodes each segment, so that `%2F` becomes a separator. Ends in
/// `/`, which the sent path may not.
fn canonical_path(path: &str) -> String {
    let decoded: Cow<'_, [u8]> = percent_decode_str(path).into();
    let mut text = decoded
        .split(|byte| *byte == b'/')
        .map(escape)
        .collect::<Vec<_>>()
        .join("/");
    if !text.ends_with('/') {
        text.push('/');
    }
    text
}

/// Decodes the pairs, sorts them by key and value and encodes them. `+` is decoded as a
/// space, as the servers do.
fn canonical_query(query: &str) -> String {
    let decode = |text: &str| -> Vec<u8> { percent_decode_str(&text.replace('+', " ")).collect() };
    let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (decode(key), decode(value)))
        .collect();
    // The byte order of UTF-8 is the order of code points.
    pairs.sort_unstable();
    pairs
        .iter()
        .map(|(key, value)| format!("{}={}", escape(key), escape(value)))
        .collect::<Vec<_>>()
        .join("&")
}

fn escape(bytes: &[u8]) -> String {
    percent_encode(bytes, ESCAPED).to_string()
}

/// Returns whether the body is not signed: if it is neither JSON nor BSON.
fn payload_is_unsigned(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        !["application/json", "application/bson"]
            .iter()
            .any(|json| value.as_bytes().starts_with(json.as_bytes()))
    })
}

/// Formats a time as `YYYYMMDDTHHMMSSZ`, in UTC.
fn date(now: SystemTime) -> String {
    let mut time = prost_types::Timestamp::from(now);
    time.nanos = 0;
    time.to_string().replace(['-', ':'], "")
}

fn difference(a: SystemTime, b: SystemTime) -> Duration {
    a.duration_since(b).unwrap_or_else(|e| e.duration())
}

fn secret_key(secret: &SecretString) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes())
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

#[cfg(test)]
mod tests;
