//! HTTP requests and responses as plain values, and the time formats of the upstreams.

use std::convert::Infallible;
use std::time::SystemTime;

use axum::body::Body;
use axum::response::IntoResponse;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use percent_encoding::percent_decode_str;
use prost_types::Timestamp;
use serde_json::Value;

/// Size of the chunks in which a raw body is sent.
const CHUNK_BYTES: usize = 64 << 10;

/// A request with its complete body.
pub(super) struct Request {
    pub method: Method,
    /// Percent-decoded path. Decoded before it is split at `/`, as Python's WSGI
    /// servers do.
    pub path: String,
    /// Request target as received, for signatures.
    pub target: String,
    pub query: Vec<(String, String)>,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Request {
    pub fn new(parts: &Parts, body: Bytes) -> Self {
        let query = parts.uri.query().unwrap_or_default();
        Self {
            method: parts.method.clone(),
            path: percent_decode_str(parts.uri.path())
                .decode_utf8_lossy()
                .into_owned(),
            target: parts
                .uri
                .path_and_query()
                .map_or("/", |target| target.as_str())
                .to_owned(),
            query: url::form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect(),
            headers: parts.headers.clone(),
            body,
        }
    }

    /// Splits the path at `/`; a trailing slash yields an empty last segment.
    pub fn segments(&self) -> Vec<&str> {
        self.path
            .strip_prefix('/')
            .unwrap_or(&self.path)
            .split('/')
            .collect()
    }

    /// Returns the last non-empty value of a query parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().rfind(|(key, _)| key == name);
        found
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// Checks for a query parameter, with or without a value.
    pub fn has(&self, name: &str) -> bool {
        self.query.iter().any(|(key, _)| key == name)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Parses the body as a JSON object.
    pub fn object(&self) -> Option<serde_json::Map<String, Value>> {
        serde_json::from_slice(&self.body).ok()
    }
}

/// A response with a JSON body or none.
#[derive(Debug)]
pub(super) struct Response {
    pub status: StatusCode,
    /// Of several entries with one name the last is sent.
    headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Option<Value>,
    /// Body sent in chunks instead of `body`. Boxed, because responses are also error
    /// values and must be small.
    raw: Option<Box<Bytes>>,
}

impl Response {
    pub fn json(status: StatusCode, body: Value) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Some(body),
            raw: None,
        }
    }

    pub fn ok(body: Value) -> Self {
        Self::json(StatusCode::OK, body)
    }

    pub fn empty(status: StatusCode) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: None,
            raw: None,
        }
    }

    /// A body without Content-Length, as Java's servers send it.
    pub fn raw(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self {
            raw: Some(Box::new(body.into())),
            ..Self::empty(status).with_header("content-type", content_type)
        }
    }

    /// Adds a header. Omits it if the value, which may come from a client, is not a
    /// valid header value.
    pub fn with_header(mut self, name: &'static str, value: impl AsRef<str>) -> Self {
        if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
            self.headers.push((HeaderName::from_static(name), value));
        }
        self
    }
}

impl IntoResponse for Response {
    fn into_response(self) -> axum::response::Response {
        let mut headers = HeaderMap::new();
        if self.body.is_some() {
            let json = HeaderValue::from_static("application/json");
            headers.insert(header::CONTENT_TYPE, json);
        }
        for (name, value) in self.headers {
            headers.insert(name, value);
        }
        if let Some(raw) = self.raw {
            let chunks: Vec<Result<Bytes, Infallible>> = (0..raw.len())
                .step_by(CHUNK_BYTES)
                .map(|at| Ok(raw.slice(at..raw.len().min(at + CHUNK_BYTES))))
                .collect();
            let body = Body::from_stream(tokio_stream::iter(chunks));
            return (self.status, headers, body).into_response();
        }
        match self.body {
            Some(body) => {
                (self.status, headers, Body::from(ascii(&body.to_string()))).into_response()
            }
            None => (self.status, headers).into_response(),
        }
    }
}

/// Escapes all non-ASCII characters of a JSON text as `\u`, as Python does
/// (tests/real-heat/OBSERVED.md, "All responses"). Only strings can contain such
/// characters.
fn ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c.is_ascii() {
            true => out.push(c),
            false => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    out
}

/// Formats as `2026-11-21T02:31:11Z`, without a fraction.
pub(super) fn seconds(at: SystemTime) -> String {
    Timestamp {
        nanos: 0,
        ..Timestamp::from(at)
    }
    .to_string()
}

/// Formats as `2026-11-21T02:31:11.000000Z`, as Keystone does.
pub(super) fn microseconds(at: SystemTime) -> String {
    seconds(at).replace('Z', ".000000Z")
}

/// Formats as `2026-11-21 02:31:11`, as in ServiceStage's jobs.
pub(super) fn space_separated_seconds(at: SystemTime) -> String {
    seconds(at).replace('T', " ").replace('Z', "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_438_232_139_457);
        assert_eq!(seconds(at), "2015-07-30T04:55:39Z");
        assert_eq!(microseconds(at), "2015-07-30T04:55:39.000000Z");
        assert_eq!(space_separated_seconds(at), "2015-07-30 04:55:39");
    }

    #[test]
    fn non_ascii_is_escaped() {
        assert_eq!(ascii("\"é日𝄞a\""), r#""\u00e9\u65e5\ud834\udd1ea""#);
    }
}
