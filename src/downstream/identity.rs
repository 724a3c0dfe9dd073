//! The identity of an authenticated client.

use std::fmt;
use std::sync::OnceLock;

use prometheus_client::metrics::counter::Counter;

use super::ClientKey;

/// The longest name of an identity, in bytes. A longer one is rejected: shortened names of
/// different clients could be equal.
pub const MAX_IDENTITY_BYTES: usize = 512;

/// How an identity was proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IdentityKind {
    /// A client certificate, of the connection or of the sidecar's.
    Certificate,
    /// A client token.
    Token,
    /// A JSON Web Token.
    Jwt,
}

impl IdentityKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Certificate, Self::Token, Self::Jwt];

    /// Returns the word before the name in the text of an identity.
    pub fn word(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Token => "token",
            Self::Jwt => "jwt",
        }
    }
}

/// A client that has proved its name: what policy, log, metrics and limits know of it. Its text
/// is kind and name: `token:ci`, `certificate:spiffe://example.org/shop`.
pub struct Identity {
    kind: IdentityKind,
    text: Box<str>,
    key: ClientKey,
    /// Looked up once.
    calls: OnceLock<Counter>,
}

impl Identity {
    /// Returns the identity of this name.
    ///
    /// # Errors
    ///
    /// Fails for a name that is empty, too long or has control characters.
    pub fn new(kind: IdentityKind, name: &str) -> Result<Self, &'static str> {
        let problem = match name {
            "" => "is empty",
            name if name.len() > MAX_IDENTITY_BYTES => "is longer than 512 bytes",
            name if name.chars().any(char::is_control) => "has control characters",
            _ => {
                let text: Box<str> = format!("{}:{name}", kind.word()).into();
                let key = ClientKey::of("identity", &text);
                return Ok(Self {
                    kind,
                    text,
                    key,
                    calls: OnceLock::new(),
                });
            }
        };
        Err(problem)
    }

    /// Reads the text of an identity.
    pub fn parse(text: &str) -> Option<Self> {
        IdentityKind::ALL.into_iter().find_map(|kind| {
            let name = text.strip_prefix(kind.word())?.strip_prefix(':')?;
            Self::new(kind, name).ok()
        })
    }

    /// Returns how it was proved.
    pub fn kind(&self) -> IdentityKind {
        self.kind
    }

    /// Returns kind and name, as in `token:ci`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the name without its kind.
    pub fn name(&self) -> &str {
        &self.text[self.kind.word().len() + 1..]
    }

    /// Returns what counts the calls of the client, which `find` finds.
    pub fn calls(&self, find: impl FnOnce(&str) -> Counter) -> &Counter {
        self.calls.get_or_init(|| find(&self.text))
    }

    /// Returns the key towards limits that clients share.
    pub fn key(&self) -> ClientKey {
        self.key
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Identity {}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_names_are_told_apart() {
        use IdentityKind::{Certificate, Jwt, Token};
        for (kind, name, want) in [
            (Token, "ci", Ok("token:ci")),
            (Jwt, "ci", Ok("jwt:ci")),
            (
                Certificate,
                "spiffe://example.org/a",
                Ok("certificate:spiffe://example.org/a"),
            ),
            (Token, "", Err("is empty")),
            (Jwt, "a\nb", Err("has control characters")),
            (
                Jwt,
                &"x".repeat(MAX_IDENTITY_BYTES + 1),
                Err("is longer than 512 bytes"),
            ),
        ] {
            let identity = Identity::new(kind, name);
            assert_eq!(
                identity.as_ref().map(Identity::as_str),
                want.as_ref().copied()
            );
            if let Ok(identity) = identity {
                assert_eq!(identity.name(), name);
                assert_eq!(Identity::parse(identity.as_str()), Some(identity));
            }
        }
        let key = |text| Identity::parse(text).map(|identity| identity.key());
        assert!(key("token:ci") != key("jwt:ci"));
        assert_eq!(key("ci"), None);
        assert_eq!(key("token:"), None);
    }
}
