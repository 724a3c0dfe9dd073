//! `[listen.clients]`: how clients prove their identity.

use std::fmt::Write as _;

use ring::digest::{SHA256, digest};
use secrecy::{ExposeSecret, SecretString};

use super::Config;
use super::reader::Section;
use crate::downstream::{Identity, IdentityKind};

/// A client token with fewer bytes is a warning.
const MIN_TOKEN_BYTES: usize = 16;

/// The word between the name and the digest of a token.
const HASHED: &str = ":sha256:";

/// The bytes of a digest that name a token without a name.
const UNNAMED_BYTES: usize = 4;

/// A token that authenticates clients: its name and its SHA-256 digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientToken {
    /// The name, which several tokens may have. Of a token without one, `unnamed-` and the
    /// beginning of its digest.
    pub name: Box<str>,
    /// The digest.
    pub sha256: [u8; 32],
}

impl ClientToken {
    /// Returns a token of this name.
    pub fn named(name: &str, token: &SecretString) -> Self {
        Self {
            name: name.into(),
            sha256: sha256(token.expose_secret().as_bytes()),
        }
    }

    /// Returns the line of the tokens file: name and digest.
    pub fn line(&self) -> String {
        format!("{}{HASHED}{}", self.name, hex(&self.sha256))
    }

    /// Reads a line of the tokens file that has a name and a digest; none for one that is a
    /// token itself.
    fn of_line(line: &str) -> Option<Result<Self, String>> {
        let (name, digest) = line.split_once(HASHED)?;
        Some(match (name_problem(name), of_hex(digest)) {
            (Some(problem), _) => Err(problem),
            (None, None) => {
                Err("the digest after `sha256:` must have 64 hexadecimal digits".into())
            }
            (None, Some(sha256)) => Ok(Self {
                name: name.into(),
                sha256,
            }),
        })
    }
}

/// A token without a name.
impl From<&str> for ClientToken {
    fn from(token: &str) -> Self {
        let sha256 = sha256(token.as_bytes());
        Self {
            name: format!("unnamed-{}", hex(&sha256[..UNNAMED_BYTES])).into(),
            sha256,
        }
    }
}

/// `[listen.limits]`: what one client may use. Zero: as much as there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientLimitSettings {
    /// Maximum number of concurrent unary calls and uploads.
    pub max_calls: u32,
    /// Maximum number of open streams: watches, list streams and downloads.
    pub max_streams: u32,
    /// Maximum rate of calls and streams.
    pub calls_per_sec: u32,
    /// How many of them may come at once. Zero: those of one second.
    pub burst: u32,
}

impl ClientLimitSettings {
    /// Reads the section.
    pub(super) fn read(section: &Section<'_>) -> Self {
        const MAX: u32 = 1_000_000;
        let mut limits = Self::default();
        section.number_into("max_calls", 0, MAX, &mut limits.max_calls);
        section.number_into("max_streams", 0, MAX, &mut limits.max_streams);
        section.number_into("calls_per_sec", 0, MAX, &mut limits.calls_per_sec);
        section.number_into("burst", 0, MAX, &mut limits.burst);
        if limits.burst > 0 && limits.calls_per_sec == 0 {
            section.invalid("burst", "belongs to calls_per_sec, which is not set");
        }
        section.finish();
        limits
    }
}

/// Returns what is wrong with the name of a token.
pub fn name_problem(name: &str) -> Option<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.@/".contains(c);
    let is_name = name.chars().all(is_plain) && Identity::new(IdentityKind::Token, name).is_ok();
    (!is_name).then(|| {
        "the name before `:sha256:` must have 1 to 512 letters, digits and characters of `-_.@/`"
            .to_owned()
    })
}

/// Reads the tokens of `tokens_file`.
pub(super) fn tokens(section: &Section<'_>) -> Vec<ClientToken> {
    const KEY: &str = "tokens_file";
    let Some(bytes) = section.file(KEY) else {
        return Vec::new();
    };
    let text = String::from_utf8_lossy(&bytes);
    let mut tokens: Vec<ClientToken> = Vec::new();
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let token = match ClientToken::of_line(line) {
            Some(Ok(token)) => token,
            Some(Err(problem)) => {
                section.invalid(KEY, &format!("line {number} of the file: {problem}"));
                continue;
            }
            None => {
                check_plain(section, number, line);
                ClientToken::from(line)
            }
        };
        let same = (tokens.iter()).find(|known| known.sha256 == token.sha256);
        if let Some(same) = same.filter(|same| same.name != token.name) {
            let problem = format!(
                "line {number} of the file: the token of `{}` is that of `{}`, too",
                token.name, same.name
            );
            section.invalid(KEY, &problem);
        }
        tokens.push(token);
    }
    if tokens.is_empty() {
        section.invalid(KEY, "has no token: write one per line");
    }
    tokens
}

/// Reports a token that no client can send, and warns of one that can be guessed.
fn check_plain(section: &Section<'_>, line: usize, token: &str) {
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        let problem = format!(
            "line {line} of the file is no token: write one per line, of ASCII characters without \
             blanks"
        );
        section.invalid("tokens_file", &problem);
    } else if token.len() < MIN_TOKEN_BYTES {
        let problem = format!(
            "the token in line {line} of the file is shorter than {MIN_TOKEN_BYTES} characters \
             and can be guessed: make one with `drawbridge token NAME`"
        );
        section.warn("tokens_file", &problem);
    }
}

/// Returns the digest of a token.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn of_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut out = [0; 32];
    for (byte, digits) in out.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).ok()?;
        *byte = u8::from_str_radix(digits, 16)
            .ok()
            .filter(|_| !digits.starts_with('+'))?;
    }
    Some(out)
}

impl Config {
    /// Returns whether each client has an identity.
    pub fn authenticates_clients(&self) -> bool {
        let mutual = self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        mutual || self.requires_token() || self.trusts_sidecar
    }

    /// Returns whether clients must send a token of the gateway.
    pub fn requires_token(&self) -> bool {
        !self.client_tokens.is_empty() || self.jwt.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_a_name_and_a_digest_or_are_a_token() {
        let token = SecretString::from("0123456789abcdef0123456789abcdef");
        let named = ClientToken::named("ci", &token);
        assert_eq!(ClientToken::of_line(&named.line()), Some(Ok(named.clone())));
        let digest = hex(&named.sha256);
        for (line, want) in [
            (
                format!("ci:sha256:{}", digest.to_uppercase()),
                Some(Ok(named)),
            ),
            ("0123456789abcdef".to_owned(), None),
            ("a:b".to_owned(), None),
            (format!(":sha256:{digest}"), Some(Err("the name"))),
            (format!("a b:sha256:{digest}"), Some(Err("the name"))),
            (format!("a:b:sha256:{digest}"), Some(Err("the name"))),
            ("ci:sha256:12".to_owned(), Some(Err("the digest"))),
            (format!("ci:sha256:{digest}0"), Some(Err("the digest"))),
            (
                format!("ci:sha256:+{}", &digest[1..]),
                Some(Err("the digest")),
            ),
        ] {
            let got = ClientToken::of_line(&line);
            match want {
                Some(Err(begin)) => {
                    let problem = got.and_then(Result::err);
                    assert!(problem.is_some_and(|p| p.starts_with(begin)), "{line}");
                }
                want => assert_eq!(got, want.map(|ok| ok.map_err(str::to_owned)), "{line}"),
            }
        }
    }

    #[test]
    fn token_without_a_name_is_named_by_its_digest() {
        let token = ClientToken::from("t0ken");
        assert_eq!(
            &*token.name,
            &*format!("unnamed-{}", &hex(&token.sha256)[..8])
        );
    }
}
