//! A REST call and its reply, as values.

use std::ops::Range;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};

/// Whether a call can be repeated, by protobuf's `idempotency_level` of its rpc, or
/// by the HTTP method where that is unset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idempotency {
    /// The call only reads.
    NoSideEffects,
    /// The call changes something, and a repetition changes nothing more.
    Idempotent,
    /// A repetition may act again. Never retried once the upstream may have acted.
    NonIdempotent,
}

/// Limit of a call's path and query, in bytes: few servers accept more.
pub const MAX_URL_BYTES: usize = 32 << 10;

/// Characters to escape in paths and queries: all but the unreserved ones. Source: RFC
/// 3986, section 2.3.
pub const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A REST call, bound from a request message. It contains neither the upstream's
/// address nor credentials.
#[derive(Clone, Debug)]
pub struct Call {
    /// The HTTP method.
    pub verb: Method,
    /// The path below the upstream's endpoint, percent-encoded, with its leading `/`.
    pub path: String,
    /// The range of the project id in `path`; empty where the client left it out, and
    /// the upstream's project id is to be inserted. None: the path has no project id.
    pub project: Option<Range<usize>>,
    /// The query, percent-encoded, without `?`; empty for none.
    pub query: String,
    /// The body, or none.
    pub body: Option<Bytes>,
    /// Whether the call can be repeated.
    pub idempotency: Idempotency,
    /// Whether that is the `idempotency_level` of its rpc, not that of the HTTP method.
    pub declares_idempotency: bool,
    /// Media types of request and response.
    pub media: Media,
}

impl Call {
    /// Returns what a repetition of the call may do: a GET changes nothing, whatever its rpc
    /// declares.
    pub fn effect(&self) -> Idempotency {
        match self.verb {
            Method::GET => Idempotency::NoSideEffects,
            _ => self.idempotency,
        }
    }
}

/// Media types. Default: JSON, and what the family requests in every call.
#[derive(Clone, Debug, Default)]
pub struct Media {
    /// The media type of the body, if not JSON.
    pub content_type: Option<HeaderValue>,
    /// The requested media type, if not the family's.
    pub accept: Option<HeaderValue>,
}

/// The reply to a call, read completely.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, decompressed.
    pub body: Bytes,
}

impl Reply {
    /// Returns the body as text: without a byte order mark and white space around it.
    pub fn text(&self) -> &[u8] {
        without_mark(&self.body).trim_ascii()
    }

    /// Names the encoding of a body in UTF-16 or UTF-32, by its byte order mark or its first
    /// character. Such text has a length in units of it; other bytes can begin like a mark.
    pub fn wide_encoding(&self) -> Option<&'static str> {
        let (name, unit) = match *self.body {
            [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => ("UTF-32", 4),
            [b'{' | b'[', 0, 0, 0, ..] | [0, 0, 0, b'{' | b'[', ..] => ("UTF-32", 4),
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => ("UTF-16", 2),
            [b'{' | b'[', 0, ..] | [0, b'{' | b'[', ..] => ("UTF-16", 2),
            _ => return None,
        };
        self.body.len().is_multiple_of(unit).then_some(name)
    }

    /// Names the coding of a body that could not be decoded, and says what to do. The HTTP
    /// client removes the header of a coding that it has decoded.
    pub fn unsupported_encoding(&self) -> Option<String> {
        let value = self.headers.get(CONTENT_ENCODING)?;
        let name: String = value.to_str().unwrap_or("?").chars().take(100).collect();
        Some(format!(
            "the encoding `{name}` is not supported: let the upstream, or the proxy in front of \
             it, send gzip or no encoding"
        ))
    }

    /// Returns the media type, without parameters; empty for none.
    pub fn media_type(&self) -> &str {
        let value = self.headers.get(CONTENT_TYPE);
        let value = value.and_then(|value| value.to_str().ok());
        let value = value.unwrap_or_default();
        value.split(';').next().unwrap_or_default().trim()
    }

    /// Returns whether the media type is this one.
    pub fn is_media_type(&self, name: &str) -> bool {
        self.media_type().eq_ignore_ascii_case(name)
    }
}

/// Returns the text without the byte order mark of UTF-8.
pub fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}
