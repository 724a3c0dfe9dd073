//! Who may call: tokens of clients. mTLS is in `tls`.

use std::sync::Arc;

use ring::digest::{SHA256, digest};
use secrecy::{ExposeSecret, SecretString};

use crate::error::Error;

/// Request metadata for the gateway's own token, where the configuration requires one.
pub const TOKEN: &str = "drawbridge-token";

/// The tokens of clients, as digests. Empty: none is required.
#[derive(Clone, Debug, Default)]
pub struct ClientTokens(Arc<[[u8; 32]]>);

impl ClientTokens {
    /// Keeps digests of the tokens.
    pub fn new(tokens: &[SecretString]) -> Self {
        Self(
            tokens
                .iter()
                .map(|t| hash(t.expose_secret().as_bytes()))
                .collect(),
        )
    }

    /// Rejects a request without a known token, where one is required.
    pub(super) fn admit(&self, headers: &http::HeaderMap) -> Result<(), Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        let given = headers.get(TOKEN).map(|v| hash(v.as_bytes()));
        // Digests are compared, so that the time it takes says nothing about a token.
        let known = given.is_some_and(|given| self.0.contains(&given));
        if known {
            return Ok(());
        }
        Err(Error::Credential {
            code: tonic::Code::Unauthenticated,
            problem: match given {
                Some(_) => format!("the gateway does not know this `{TOKEN}`"),
                None => {
                    format!("the gateway wants a token of its own: send it as metadata `{TOKEN}`")
                }
            },
        })
    }
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}
