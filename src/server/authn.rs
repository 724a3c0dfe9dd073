//! Authenticates clients by a token in the request metadata. mTLS is in `tls`.

use std::sync::Arc;

use arc_swap::ArcSwap;
use ring::digest::{SHA256, digest};
use secrecy::{ExposeSecret, SecretString};

use crate::downstream::{ClientKey, Peer};
use crate::error::Error;

/// Request metadata with the client's token for the gateway.
pub const TOKEN: &str = "drawbridge-token";

/// Digests of the tokens that are accepted. Empty: no token is required.
#[derive(Clone, Debug, Default)]
pub struct ClientTokens(Arc<ArcSwap<Vec<[u8; 32]>>>);

impl ClientTokens {
    /// Accepts these tokens.
    pub fn new(tokens: &[SecretString]) -> Self {
        let accepted = Self::default();
        accepted.replace(tokens);
        accepted
    }

    /// Accepts these tokens instead, in all clones.
    pub(super) fn replace(&self, tokens: &[SecretString]) {
        let tokens = tokens.iter().map(|t| hash(t.expose_secret().as_bytes()));
        self.0.store(Arc::new(tokens.collect()));
    }

    /// Rejects a request without a valid token, where one is required. Otherwise returns which
    /// client it is: that of the token, else `peer`.
    pub(super) fn authenticate(
        &self,
        headers: &http::HeaderMap,
        peer: Peer,
    ) -> Result<Peer, Error> {
        let accepted = self.0.load();
        if accepted.is_empty() {
            return Ok(peer);
        }
        let token = headers.get(TOKEN);
        let given = token.map(|v| hash(v.as_bytes()));
        // Comparing digests takes a time that reveals nothing about a token.
        if let (Some(token), Some(given)) = (token, given)
            && accepted.contains(&given)
        {
            return Ok(Peer::authenticated(ClientKey::of_token(token)));
        }
        Err(Error::Credential {
            code: tonic::Code::Unauthenticated,
            problem: match given {
                Some(_) => format!("the metadata `{TOKEN}` is not a valid client token"),
                None => format!("this gateway requires a client token in metadata `{TOKEN}`"),
            },
        })
    }
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}
