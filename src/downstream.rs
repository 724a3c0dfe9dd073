//! The downstream client of a call: the metadata that an upstream or the log may receive.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

use crate::memory::Memory;

mod identity;
mod shares;
mod trail;

pub use identity::{Identity, IdentityKind, MAX_IDENTITY_BYTES};
pub use shares::{ClientShares, NoShare};
pub use trail::{RestCall, Trail};

/// Limit of a request id, since statuses have little space for it.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// The metadata of a request id for OpenStack, which accepts no other form than `req-` and a
/// UUID in lower case. Source: `ID_FORMAT` in oslo_middleware/request_id.py.
const OPENSTACK_REQUEST_ID: &str = "x-openstack-request-id";
const OPENSTACK_PREFIX: &str = "req-";

/// Keys the digests of [`ClientKey`], so that no client can choose its own.
static DIGEST_KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Identifies a client towards limits that clients share: a digest, from which no secret can
/// be read. The default is the gateway itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClientKey(u64);

impl ClientKey {
    /// Identifies the clients at an address, of IPv6 in a network of 64 bits.
    pub fn of_address(address: IpAddr) -> Self {
        let address = match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
            v4 => v4,
        };
        Self::of("address", address)
    }

    /// Identifies the clients with a token for an upstream.
    pub fn of_token(token: &HeaderValue) -> Self {
        Self::of("token", token.as_bytes())
    }

    fn of(kind: &str, value: impl std::hash::Hash) -> Self {
        Self(DIGEST_KEY.hash_one((kind, value)))
    }

    /// Returns a key that is equal to those of the same number only.
    #[cfg(test)]
    pub const fn test(number: u64) -> Self {
        Self(number)
    }

    /// Returns the digest.
    pub fn digest(self) -> u64 {
        self.0
    }
}

/// Which client a call counts for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// The client.
    pub key: ClientKey,
    /// The address of a client whose credential the upstream has not accepted yet. All of them
    /// at an address are limited together.
    pub group: Option<ClientKey>,
}

impl Client {
    /// Returns the key that no client can choose.
    pub fn verified(self) -> ClientKey {
        self.group.unwrap_or(self.key)
    }
}

impl From<ClientKey> for Client {
    fn from(key: ClientKey) -> Self {
        Self { key, group: None }
    }
}

/// How many times as much of a limited resource a client may have as is then left for others:
/// one client gets at most three quarters of it.
const MAX_SHARE_FACTOR: usize = 3;

/// Returns whether a client that has `own` units of a limited resource may take one more of
/// those that are `free`. What is left shrinks with each client that takes its share, so that
/// there is something for another one. Source: Choudhury and Hahne, "Dynamic queue length
/// thresholds in a shared memory ATM switch".
pub fn may_take(own: usize, free: usize) -> bool {
    own < MAX_SHARE_FACTOR.saturating_mul(free)
}

/// The same for clients that may all be one: seven eighths of it.
const MAX_SHARE_FACTOR_TOGETHER: usize = 7;

/// As [`may_take`], for all clients together that may be one, which have `own` units.
pub fn may_take_together(own: usize, free: usize) -> bool {
    own < MAX_SHARE_FACTOR_TOGETHER.saturating_mul(free)
}

/// A peer that has authenticated itself.
impl From<Arc<Identity>> for Peer {
    fn from(identity: Arc<Identity>) -> Self {
        Self {
            key: identity.key(),
            identity: Some(identity),
        }
    }
}

/// Which client sends a request, as far as the gateway has verified it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// That of the identity, else the address of the connection.
    pub key: ClientKey,
    /// The name that the client has proved; none if it has not authenticated itself.
    pub identity: Option<Arc<Identity>>,
}

impl Peer {
    /// Returns the peer at an address, which has not authenticated itself.
    pub fn at(address: IpAddr) -> Self {
        Self {
            key: ClientKey::of_address(address),
            identity: None,
        }
    }

    /// Returns whether the client has authenticated itself, so that `key` is its own.
    pub fn is_authenticated(&self) -> bool {
        self.identity.is_some()
    }

    /// Returns the identity as text, if the client has one.
    pub fn identity(&self) -> Option<&str> {
        self.identity.as_ref().map(|identity| identity.as_str())
    }
}

/// The metadata of a client that matters to a call.
#[derive(Clone, Default)]
pub struct Downstream {
    /// The client, for limits that clients share.
    pub peer: Peer,
    /// `x-auth-token`, for upstreams with passthrough.
    pub token: Option<HeaderValue>,
    /// `authorization`, for upstreams with passthrough.
    pub authorization: Option<HeaderValue>,
    /// The first 128 bytes of `x-request-id`: sent to the upstream, logged, and returned with
    /// an error.
    pub request_id: Option<HeaderValue>,
    /// The same id for APIs that accept only UUIDs: that of `x-openstack-request-id`, else of
    /// `x-request-id` where it is one, else the gateway's own.
    pub request_uuid: Option<Uuid>,
    /// W3C `traceparent`.
    pub traceparent: Option<HeaderValue>,
    /// W3C `tracestate`.
    pub tracestate: Option<HeaderValue>,
    /// `accept-language`, for families that forward it.
    pub accept_language: Option<HeaderValue>,
    /// What its calls draw from.
    pub memory: Memory,
    /// Where the REST call that changes something is kept; none without an audit log.
    pub trail: Option<Arc<Trail>>,
}

impl Downstream {
    /// Reads the metadata of an rpc. Secret values are marked sensitive.
    pub fn from_metadata(metadata: &HeaderMap) -> Self {
        let get = |name: &str| metadata.get(name).cloned();
        let secret = |name: &str| {
            get(name).map(|mut value| {
                value.set_sensitive(true);
                value
            })
        };
        let openstack_id = metadata.get(OPENSTACK_REQUEST_ID).and_then(openstack_uuid);
        let request_id = get("x-request-id").and_then(|id| {
            let bytes = id.as_bytes();
            HeaderValue::from_bytes(&bytes[..bytes.len().min(MAX_REQUEST_ID_BYTES)]).ok()
        });
        Self {
            peer: Peer::default(),
            token: secret("x-auth-token"),
            authorization: secret("authorization"),
            request_uuid: openstack_id.or_else(|| request_id.as_ref().and_then(any_uuid)),
            request_id,
            traceparent: get("traceparent"),
            tracestate: get("tracestate"),
            accept_language: get("accept-language"),
            memory: Memory::default(),
            trail: None,
        }
    }

    /// Returns the length of all values.
    pub fn metadata_bytes(&self) -> usize {
        self.values().flatten().map(HeaderValue::len).sum()
    }

    /// Returns a copy for a stream. Its values do not keep the memory of the metadata that they
    /// arrived in.
    pub fn to_stream(&self) -> Self {
        let copy = |value: &Option<HeaderValue>| {
            let value = value.as_ref()?;
            let mut copied = HeaderValue::from_bytes(value.as_bytes()).ok()?;
            copied.set_sensitive(value.is_sensitive());
            Some(copied)
        };
        Self {
            token: copy(&self.token),
            authorization: copy(&self.authorization),
            request_id: copy(&self.request_id),
            traceparent: copy(&self.traceparent),
            tracestate: copy(&self.tracestate),
            accept_language: copy(&self.accept_language),
            ..self.clone()
        }
    }

    fn values(&self) -> impl Iterator<Item = Option<&HeaderValue>> {
        [
            &self.token,
            &self.authorization,
            &self.request_id,
            &self.traceparent,
            &self.tracestate,
            &self.accept_language,
        ]
        .into_iter()
        .map(Option::as_ref)
    }

    /// Adds a request id where the client has sent none: the one for OpenStack, or a random
    /// one of the same form.
    pub fn identify(&mut self) {
        let uuid = *self
            .request_uuid
            .get_or_insert_with(|| uuid::Builder::from_random_bytes(random()).into_uuid());
        if self.request_id.is_none() {
            self.request_id = Some(prefixed(OPENSTACK_PREFIX, uuid));
        }
    }
}

/// A request header with the id of the client's request, in the only form that the API
/// accepts: a prefix and a UUID.
#[derive(Clone, Copy, Debug)]
pub struct CorrelationHeader {
    /// The name of the header.
    pub name: &'static str,
    /// What precedes the UUID.
    pub prefix: &'static str,
}

impl CorrelationHeader {
    /// Returns the header with a client's id; none for a call that no client has made.
    pub fn of(&self, request_uuid: Option<Uuid>) -> Option<(HeaderName, HeaderValue)> {
        let value = prefixed(self.prefix, request_uuid?);
        Some((HeaderName::from_static(self.name), value))
    }
}

/// Returns a UUID as a header value, after a prefix.
fn prefixed(prefix: &str, uuid: Uuid) -> HeaderValue {
    let mut digits = [0; uuid::fmt::Hyphenated::LENGTH];
    let value = [prefix, uuid.hyphenated().encode_lower(&mut digits)].concat();
    HeaderValue::from_maybe_shared(bytes::Bytes::from(value))
        .unwrap_or_else(|_| HeaderValue::from_static("-"))
}

fn random() -> [u8; 16] {
    fastrand::u128(..).to_be_bytes()
}

/// Returns the UUID of an id that OpenStack accepts.
fn openstack_uuid(id: &HeaderValue) -> Option<Uuid> {
    let uuid = any_uuid(id)?;
    (prefixed(OPENSTACK_PREFIX, uuid) == id).then_some(uuid)
}

/// Returns the UUID of an id that is one, with or without `req-`.
fn any_uuid(id: &HeaderValue) -> Option<Uuid> {
    let text = id.to_str().ok()?;
    let digits = text.strip_prefix(OPENSTACK_PREFIX).unwrap_or(text);
    Uuid::try_parse(digits)
        .ok()
        .filter(|_| digits.len() == uuid::fmt::Hyphenated::LENGTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_ipv6_network_are_one_client() {
        let key = |text: &str| ClientKey::of_address(text.parse().unwrap());
        assert!(key("2001:db8::1") == key("2001:db8::ffff:1"));
        assert!(key("2001:db8::1") != key("2001:db8:0:1::1"));
        assert!(key("::ffff:10.0.0.1") == key("10.0.0.1"));
        assert!(key("10.0.0.1") != key("10.0.0.2"));
    }

    #[test]
    fn request_ids_of_the_client_are_used_where_they_are_valid() {
        const A: &str = "req-3f9e01b3-7d1b-4f6e-9a5c-0123456789ab";
        const B: &str = "req-aaaaaaaa-7d1b-4f6e-9a5c-0123456789ab";
        for (openstack, request_id, want_request_id, want_openstack) in [
            (None, None, None, None),
            (Some(A), None, Some(A), Some(A)),
            (None, Some(A), Some(A), Some(A)),
            (Some(A), Some("r-1"), Some("r-1"), Some(A)),
            (Some(A), Some(B), Some(B), Some(A)),
            (None, Some("r-1"), Some("r-1"), None),
            (None, Some(&A[4..]), Some(&A[4..]), Some(A)),
            // oslo.middleware ignores each of these.
            (Some(&A[4..]), None, None, None),
            (
                Some("req-3F9E01B3-7D1B-4F6E-9A5C-0123456789AB"),
                None,
                None,
                None,
            ),
            (
                Some("req-3f9e01b37d1b4f6e9a5c0123456789ab"),
                None,
                None,
                None,
            ),
            (Some("req-1"), None, None, None),
            (Some(""), None, None, None),
            (Some("req-1"), Some(B), Some(B), Some(B)),
        ] {
            let metadata = [
                ("x-openstack-request-id", openstack),
                ("x-request-id", request_id),
            ]
            .into_iter()
            .filter_map(|(name, value)| {
                let value = HeaderValue::from_str(value?).unwrap();
                Some((HeaderName::from_static(name), value))
            });
            let mut client = Downstream::from_metadata(&metadata.collect());
            client.identify();
            let id = client.request_id.unwrap();
            let sent = prefixed("req-", client.request_uuid.unwrap());
            let case = format!("{openstack:?} {request_id:?}");
            assert_eq!(
                Some(sent.clone()),
                openstack_uuid(&sent).map(|u| prefixed("req-", u))
            );
            match want_request_id {
                Some(want) => assert_eq!(id, want, "{case}"),
                None => assert_eq!(id, sent, "{case}"),
            }
            if let Some(want) = want_openstack {
                assert_eq!(sent, want, "{case}");
            }
        }
    }
}
