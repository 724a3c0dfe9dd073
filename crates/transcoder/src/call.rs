//! A REST call and its reply, as values.

use std::any::Any;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};

/// Whether a call can be repeated, by protobuf's `idempotency_level` of its rpc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idempotency {
    /// The call only reads.
    NoSideEffects,
    /// The call changes something, and a repetition changes nothing more.
    Idempotent,
    /// A repetition may act again. Never retried once the upstream may have acted.
    NonIdempotent,
}

/// All but the unreserved characters: what is escaped in paths and queries.
/// Source: RFC 3986, section 2.3.
pub const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A REST call, bound from a request message. It knows neither the upstream's
/// address nor credentials.
#[derive(Clone, Debug)]
pub struct Call {
    /// The HTTP method.
    pub verb: Method,
    /// The path below the upstream's endpoint, percent-encoded, from `/` on.
    pub path: String,
    /// Where in `path` the project id stands; empty where the upstream's is to be
    /// inserted, since the caller left it out. None: the path has none.
    pub project: Option<Range<usize>>,
    /// The query, percent-encoded, without `?`; empty for none.
    pub query: String,
    /// The JSON body, or none.
    pub body: Option<Bytes>,
    /// Whether it may be sent twice.
    pub idempotency: Idempotency,
    /// What it carries and asks for.
    pub media: Media,
}

/// Types of content. Default: JSON, and what the family asks for with every call.
#[derive(Clone, Debug, Default)]
pub struct Media {
    /// The body's, where it is not JSON.
    pub content_type: Option<HeaderValue>,
    /// What is asked for, where it is not what the family asks for.
    pub accept: Option<HeaderValue>,
}

/// The answer to a call, read whole.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, decompressed.
    pub body: Bytes,
    /// What a long body takes of the room for such.
    pub room: Room,
}

/// A share of a bounded room, given back when the last clone is dropped. Short
/// replies have none.
#[derive(Clone, Debug, Default)]
pub struct Room(pub Option<Arc<dyn Any + Send + Sync>>);

impl Room {
    /// Shares that belong together. None of them is no room.
    pub fn of<T: Any + Send + Sync>(shares: Vec<T>) -> Self {
        Self((!shares.is_empty()).then(|| Arc::new(shares) as Arc<dyn Any + Send + Sync>))
    }
}
