//! `[listen.clients.jwt]`: JSON Web Tokens of clients.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use url::Url;

use super::reader::Section;
use crate::http_client::is_loopback;
use crate::spelling::nearest;

/// The algorithms that can be allowed. None with a shared secret: who verifies with it could
/// sign.
const ALGORITHMS: [&str; 9] = [
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA",
];

/// Those that are allowed by default. Sources: RFC 7518, "alg Header Parameter Values for JWS":
/// recommended; RFC 8037.
const DEFAULT_ALGORITHMS: [&str; 3] = ["RS256", "ES256", "EdDSA"];

/// The longest time by which clocks may differ.
const MAX_LEEWAY_SECS: u32 = 300;

/// Which JSON Web Tokens name a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtOptions {
    /// The only issuer, the claim `iss`.
    pub issuer: String,
    /// The audiences, of which the claim `aud` must have one.
    pub audiences: Vec<String>,
    /// The algorithms of signatures.
    pub algorithms: Vec<String>,
    /// By how much the clock of the issuer may differ. Default: 60 s.
    pub leeway: Duration,
    /// The claim that names the client. Default: `sub`.
    pub identity_claim: String,
    /// The keys of the issuer.
    pub keys: JwksSource,
}

/// Where the keys of an issuer are: a JWK set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwksSource {
    /// A file with these contents.
    File(Vec<u8>),
    /// A URL, and the file of a CA to trust in addition to those of the system.
    Url(Url, Option<PathBuf>),
}

impl JwtOptions {
    /// Reads the section.
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        let issuer = section.required_text("issuer");
        let audiences = audiences(section);
        let algorithms = algorithms(section);
        let mut leeway_secs = 60;
        section.number_into("leeway_secs", 0, MAX_LEEWAY_SECS, &mut leeway_secs);
        let identity_claim = section.text("identity_claim");
        section.describe_default("identity_claim", "sub");
        let keys = keys(section);
        section.finish();
        Some(Self {
            issuer: issuer?.value,
            audiences: audiences?,
            algorithms,
            leeway: Duration::from_secs(leeway_secs.into()),
            identity_claim: identity_claim.map_or_else(|| "sub".to_owned(), |found| found.value),
            keys: keys?,
        })
    }
}

/// Reads the audiences, at least one: without it, a token for any other service would do.
fn audiences(section: &Section<'_>) -> Option<Vec<String>> {
    const KEY: &str = "audiences";
    let found = section.texts(KEY);
    section.describe_required(KEY);
    if !section.has(KEY) {
        section.invalid(
            KEY,
            "is missing: name the audience that tokens for this gateway have",
        );
    }
    let audiences: Vec<String> = found?.into_iter().map(|one| one.value).collect();
    if audiences.is_empty() {
        section.invalid(KEY, "name the audience that tokens for this gateway have");
    }
    Some(audiences)
}

fn algorithms(section: &Section<'_>) -> Vec<String> {
    const KEY: &str = "algorithms";
    let found = section.texts(KEY);
    section.describe_default(KEY, &DEFAULT_ALGORITHMS[..]);
    section.describe_rule(KEY, "items", || json!({"enum": ALGORITHMS}));
    let Some(found) = found else {
        return DEFAULT_ALGORITHMS.map(str::to_owned).to_vec();
    };
    for one in &found {
        if ALGORITHMS.contains(&&*one.value) {
            continue;
        }
        let why = match one.value.to_ascii_uppercase() {
            name if name == "NONE" => "a token without a signature proves nothing".to_owned(),
            name if name.starts_with("HS") => {
                "with a shared secret, who verifies tokens could sign them".to_owned()
            }
            _ => {
                let near = nearest(&one.value, ALGORITHMS.into_iter());
                format!("must be of {}{near}", ALGORITHMS.join(", "))
            }
        };
        section.invalid_at(one.at, KEY, &format!("{}: {why}", one.value));
    }
    if found.is_empty() {
        section.invalid(KEY, "allows no token: name an algorithm, or remove the key");
    }
    found.into_iter().map(|one| one.value).collect()
}

fn keys(section: &Section<'_>) -> Option<JwksSource> {
    let [file, url] = ["jwks_file", "jwks_url"].map(|key| section.has(key));
    let (contents, address) = (section.file("jwks_file"), section.url("jwks_url"));
    let ca = section.path("jwks_ca_file");
    match (file, url) {
        (true, true) => section.invalid("jwks_url", "conflicts with jwks_file: remove one of them"),
        (false, false) => section.invalid("jwks_url", "is missing: set it, or jwks_file"),
        _ => {}
    }
    if let Some(address) = &address
        && address.scheme() == "http"
        && !is_loopback(address)
    {
        section.invalid(
            "jwks_url",
            "must begin with https://: who can change the keys can be any client",
        );
    }
    if section.has("jwks_ca_file") && !url {
        section.invalid("jwks_ca_file", "belongs to jwks_url");
    }
    let file = contents.map(JwksSource::File);
    file.or(address.map(|address| JwksSource::Url(address, ca)))
}
