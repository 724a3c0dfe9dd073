//! The client tokens of the tokens file.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::{ClientToken, sha256};
use crate::downstream::{Identity, IdentityKind};

/// The identities of the tokens that are accepted, by digest. Finding a digest takes a time that
/// reveals nothing about a token.
#[derive(Debug, Default)]
pub(super) struct Tokens(HashMap<[u8; 32], Arc<Identity>>);

impl Tokens {
    /// Accepts these tokens. Those of the same name are one identity.
    pub(super) fn new(tokens: &[ClientToken]) -> Self {
        let mut identities: HashMap<&str, Arc<Identity>> = HashMap::new();
        let mut accepted = HashMap::new();
        for token in tokens {
            let identity = match identities.get(&*token.name) {
                Some(identity) => identity.clone(),
                // The names are checked when the file is read.
                None => match Identity::new(IdentityKind::Token, &token.name) {
                    Ok(identity) => Arc::new(identity),
                    Err(_) => continue,
                },
            };
            identities.insert(&token.name, identity.clone());
            accepted.insert(token.sha256, identity);
        }
        Self(accepted)
    }

    /// Returns whether no token is accepted.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the identity of a token.
    pub(super) fn find(&self, token: &[u8]) -> Option<Arc<Identity>> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&sha256(token)).cloned()
    }
}
