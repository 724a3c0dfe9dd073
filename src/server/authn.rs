//! Authenticates clients: by their certificate or that which a sidecar forwards, and by a token
//! in the metadata of the request. A token takes precedence over a certificate.

mod certificate;
mod forwarded_certificate;
mod issuer_keys;
mod jwt;
mod signatures;
mod tokens;

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderMap;
use http::header::AUTHORIZATION;

pub(super) use self::certificate::identity as certificate_identity;
use self::issuer_keys::IssuerKeys;
use self::jwt::{Checked, Jwt};
use self::tokens::Tokens;
use crate::config::Config;
use crate::downstream::{Identity, Peer};
use crate::error::Error;
use crate::policy::Policy;

/// Request metadata with the client's token for the gateway.
pub const TOKEN: &str = "drawbridge-token";

/// How clients prove their identity. Immutable: [`SharedAccess`] replaces it.
#[derive(Debug, Default)]
pub(super) struct Access {
    tokens: Tokens,
    jwt: Option<Arc<Jwt>>,
    /// Whether `x-forwarded-client-cert` names the client.
    trusts_sidecar: bool,
    /// What clients may do; none if it is everything.
    policy: Option<Arc<Policy>>,
}

/// The [`Access`] of all calls, which clones share.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedAccess(Arc<ArcSwap<Access>>);

/// A client that has been let in.
#[derive(Debug)]
pub(super) struct Caller {
    /// The client.
    pub(super) peer: Peer,
    /// Whether `authorization` has proved its identity: no upstream may receive it.
    pub(super) by_bearer: bool,
    /// What it may do; none if it is everything.
    pub(super) policy: Option<Arc<Policy>>,
}

/// A client that may do everything, and needs no token.
impl From<Peer> for Caller {
    fn from(peer: Peer) -> Self {
        Self {
            peer,
            by_bearer: false,
            policy: None,
        }
    }
}

impl SharedAccess {
    /// Authenticates clients as this says.
    pub(super) fn new(access: Access) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(access)))
    }

    /// Authenticates clients of further calls as this says, in all clones.
    pub(super) fn replace(&self, access: Access) {
        self.0.store(Arc::new(access));
    }

    /// Returns what applies now.
    pub(super) fn load(&self) -> arc_swap::Guard<Arc<Access>> {
        self.0.load()
    }
}

impl Access {
    /// Reads how clients authenticate themselves, and what they may do by `policy`. Keeps the
    /// keys of `previous` if their settings are the same.
    ///
    /// # Errors
    ///
    /// Fails for keys of JSON Web Tokens that cannot be used.
    pub(super) fn new(
        config: &Config,
        policy: Option<Arc<Policy>>,
        previous: Option<&Self>,
    ) -> Result<Self, String> {
        let previous = previous.and_then(|access| access.jwt.as_ref());
        let jwt = config.jwt.as_ref().map(|options| {
            match previous.filter(|jwt| jwt.options() == options) {
                Some(jwt) => Ok(jwt.clone()),
                None => Jwt::new(options.clone()).map(Arc::new),
            }
        });
        let jwt = jwt.transpose();
        Ok(Self {
            tokens: Tokens::new(&config.client_tokens),
            jwt: jwt.map_err(|problem| format!("listen.clients.jwt: {problem}"))?,
            trusts_sidecar: config.trusts_sidecar,
            policy,
        })
    }

    /// Returns what clients may do; none if it is everything.
    pub(super) fn policy(&self) -> Option<&Arc<Policy>> {
        self.policy.as_ref()
    }

    /// Rejects a request without a valid token, where one is required. Otherwise returns which
    /// client it is: that of the token, else that of the connection or of the sidecar.
    pub(super) fn authenticate(
        &self,
        headers: &HeaderMap,
        connection: &Peer,
    ) -> Result<Caller, Refusal> {
        let forwarded = match self.trusts_sidecar {
            true => {
                let identity = forwarded_certificate::identity(headers);
                Some(Peer::from(Arc::new(identity.map_err(unauthenticated)?)))
            }
            false => None,
        };
        if self.tokens.is_empty() && self.jwt.is_none() {
            let peer = forwarded.unwrap_or_else(|| connection.clone());
            return Ok(Caller {
                policy: self.policy.clone(),
                ..Caller::from(peer)
            });
        }
        let own = single(headers, TOKEN)?;
        let bearer = bearer(headers)?;
        let of_bearer = match bearer {
            Some(token) => self.identity(token, "the bearer of `authorization`")?,
            None => None,
        };
        let of_own = match own {
            Some(token) => {
                let place = "the metadata `drawbridge-token`";
                let invalid = || unauthenticated(format!("{place} is not a valid client token"));
                Some(self.identity(token, place)?.ok_or_else(invalid)?)
            }
            None => None,
        };
        let by_bearer = of_bearer.is_some();
        let identity = match (of_own, of_bearer) {
            (Some(own), Some(bearer)) if own != bearer => {
                let problem = format!("`{TOKEN}` and `authorization` name different clients");
                return Err(unauthenticated(problem).into());
            }
            (Some(identity), _) | (None, Some(identity)) => identity,
            (None, None) => {
                let problem = match bearer {
                    Some(_) => format!(
                        "the bearer of `authorization` is not a valid client token; metadata \
                         `{TOKEN}` can have one, too"
                    ),
                    None => format!(
                        "this gateway requires a client token in metadata `{TOKEN}`, or as bearer \
                         in `authorization`"
                    ),
                };
                return Err(unauthenticated(problem).into());
            }
        };
        Ok(Caller {
            peer: Peer::from(identity),
            by_bearer,
            policy: self.policy.clone(),
        })
    }

    /// Returns the identity of a token; none for one that is not for the gateway. `place` names
    /// the token in errors.
    fn identity(&self, token: &[u8], place: &str) -> Result<Option<Arc<Identity>>, Refusal> {
        if let Some(identity) = self.tokens.find(token) {
            return Ok(Some(identity));
        }
        let Some(jwt) = &self.jwt else {
            return Ok(None);
        };
        match jwt.check(token) {
            Checked::Identity(identity) => Ok(Some(identity)),
            Checked::OfOthers => Ok(None),
            Checked::Invalid(problem) => Err(unauthenticated(format!("{place} {problem}")).into()),
            Checked::UnknownKey => Err(Refusal::UnknownKey(jwt.keys().clone())),
        }
    }
}

/// Why a request is not served.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It is not authenticated.
    Error(Error),
    /// The keys of the issuer of its token may have changed: they can be read again.
    UnknownKey(Arc<IssuerKeys>),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl Refusal {
    /// Returns the error of a request, after the keys have been read again.
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Error(error) => error,
            Self::UnknownKey(keys) if keys.is_known() => unauthenticated(
                "the client token is signed with a key that is not its issuer's".to_owned(),
            ),
            Self::UnknownKey(_) => Error::IssuerKeysUnknown,
        }
    }
}

/// Returns the error of a client that has not authenticated itself.
fn unauthenticated(problem: String) -> Error {
    Error::Credential {
        code: tonic::Code::Unauthenticated,
        problem,
    }
}

/// Returns the only value of this name. Fails for several: a proxy and the gateway might read
/// different ones.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a [u8]>, Error> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (first, None) => Ok(first.map(|value| value.as_bytes())),
        _ => Err(unauthenticated(format!(
            "the metadata has several `{name}`"
        ))),
    }
}

/// Returns the bearer token of `authorization`; none for other schemes, which are those of
/// upstreams. Source: RFC 6750, "Authorization Request Header Field".
fn bearer(headers: &HeaderMap) -> Result<Option<&[u8]>, Error> {
    let Some(value) = single(headers, AUTHORIZATION.as_str())? else {
        return Ok(None);
    };
    let Some((scheme, token)) = value.split_at_checked("bearer".len()) else {
        return Ok(None);
    };
    let is_bearer = scheme.eq_ignore_ascii_case(b"bearer")
        && token.first().is_some_and(u8::is_ascii_whitespace);
    Ok(is_bearer.then(|| token.trim_ascii()))
}

#[cfg(test)]
mod tests;
