//! JSON Web Tokens of clients.

use std::collections::HashMap;
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use jsonwebtoken::dangerous::insecure_decode_claims;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde_json::{Map, Value};

use super::issuer_keys::{Found, IssuerKeys};
use super::signatures;
use crate::config::{JwtOptions, sha256};
use crate::downstream::{Identity, IdentityKind};

/// The most tokens whose result is remembered: verifying a signature costs more than a call.
const MAX_REMEMBERED: usize = 4_096;

/// Checks tokens of one issuer.
#[derive(Debug)]
pub(super) struct Jwt {
    options: JwtOptions,
    validation: Validation,
    keys: Arc<IssuerKeys>,
    remembered: Mutex<Remembered>,
}

/// Tokens that have been verified, by digest.
#[derive(Debug, Default)]
struct Remembered {
    /// That of the keys that have verified them.
    generation: u64,
    tokens: HashMap<[u8; 32], Verified>,
}

#[derive(Debug)]
struct Verified {
    identity: Arc<Identity>,
    expires: SystemTime,
}

/// The result of a check.
#[derive(Debug)]
pub(super) enum Checked {
    /// The token is valid.
    Identity(Arc<Identity>),
    /// Another issuer made it, or it is of another kind.
    OfOthers,
    /// It is one of this issuer, and invalid for this reason.
    Invalid(String),
    /// Its key is not known: the issuer may have a new one.
    UnknownKey,
}

impl Jwt {
    /// Checks tokens by these options. Begins to read the keys if they are at a URL.
    ///
    /// # Errors
    ///
    /// Fails for keys that cannot be used.
    pub(super) fn new(options: JwtOptions) -> Result<Self, String> {
        signatures::install();
        let algorithms = options.algorithms.iter();
        let algorithms: Result<Vec<_>, _> =
            algorithms.map(|name| Algorithm::from_str(name)).collect();
        let mut validation = Validation {
            algorithms: algorithms.map_err(|e| e.to_string())?,
            leeway: options.leeway.as_secs(),
            validate_nbf: true,
            ..Validation::default()
        };
        validation.set_audience(&options.audiences);
        validation.set_issuer(&[&options.issuer]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        Ok(Self {
            keys: IssuerKeys::new(&options.keys)?,
            validation,
            options,
            remembered: Mutex::default(),
        })
    }

    /// Returns the options.
    pub(super) fn options(&self) -> &JwtOptions {
        &self.options
    }

    /// Returns the keys of the issuer.
    pub(super) fn keys(&self) -> &Arc<IssuerKeys> {
        &self.keys
    }

    /// Checks a token.
    pub(super) fn check(&self, token: &[u8]) -> Checked {
        if token.iter().filter(|byte| **byte == b'.').count() != 2 {
            return Checked::OfOthers;
        }
        let digest = sha256(token);
        let generation = self.keys.generation();
        if let Some(identity) = self.recall(&digest, generation) {
            return Checked::Identity(identity);
        }
        let claims: Map<String, Value> = match insecure_decode_claims(token) {
            Ok(claims) => claims,
            Err(_) => return Checked::OfOthers,
        };
        // An issuer among several would be a match for `jsonwebtoken`.
        if claims.get("iss").and_then(Value::as_str) != Some(&self.options.issuer) {
            return Checked::OfOthers;
        }
        match self.verify(token) {
            Ok(Some((identity, expires))) => {
                let identity = Arc::new(identity);
                let verified = Verified {
                    identity: identity.clone(),
                    expires,
                };
                self.remember(digest, generation, verified);
                Checked::Identity(identity)
            }
            Ok(None) => Checked::UnknownKey,
            Err(problem) => Checked::Invalid(problem),
        }
    }

    /// Returns the identity in a token, and when it expires; none if its key is not known.
    fn verify(&self, token: &[u8]) -> Result<Option<(Identity, SystemTime)>, String> {
        let header = decode_header(token).map_err(|_| "cannot be read".to_owned())?;
        if !self.validation.algorithms.contains(&header.alg) {
            return Err(format!(
                "has the algorithm {:?}, which is not allowed",
                header.alg
            ));
        }
        let key = match self.keys.find(header.kid.as_deref(), header.alg) {
            Found::Key(key) => key,
            Found::Several => return Err("does not say which key has signed it (kid)".to_owned()),
            Found::None => return Ok(None),
        };
        let validation = Validation {
            algorithms: vec![header.alg],
            ..self.validation.clone()
        };
        let token = decode::<Map<String, Value>>(token, &key, &validation);
        let claims = token.map_err(|error| problem(error.kind()))?.claims;
        let claim = &self.options.identity_claim;
        let name = claims.get(claim).and_then(Value::as_str);
        let name = name.ok_or_else(|| format!("has no text as its claim `{claim}`"))?;
        let identity = Identity::new(IdentityKind::Jwt, name)
            .map_err(|problem| format!("has a claim `{claim}` that {problem}"))?;
        // Checked above.
        let expires = claims
            .get("exp")
            .and_then(Value::as_f64)
            .unwrap_or_default();
        let expires = Duration::try_from_secs_f64(expires).unwrap_or_default();
        let expires = SystemTime::UNIX_EPOCH.checked_add(expires + self.options.leeway);
        Ok(Some((identity, expires.unwrap_or(SystemTime::UNIX_EPOCH))))
    }

    fn recall(&self, digest: &[u8; 32], generation: u64) -> Option<Arc<Identity>> {
        let mut remembered = self.remembered();
        if remembered.generation != generation {
            remembered.tokens.clear();
            remembered.generation = generation;
        }
        let verified = remembered.tokens.get(digest)?;
        (verified.expires > SystemTime::now()).then(|| verified.identity.clone())
    }

    fn remember(&self, digest: [u8; 32], generation: u64, verified: Verified) {
        let mut remembered = self.remembered();
        if remembered.generation != generation {
            return;
        }
        let tokens = &mut remembered.tokens;
        if tokens.len() >= MAX_REMEMBERED {
            let now = SystemTime::now();
            tokens.retain(|_, verified| verified.expires > now);
            if tokens.len() >= MAX_REMEMBERED {
                tokens.clear();
            }
        }
        tokens.insert(digest, verified);
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, Remembered> {
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says why a token is invalid, without a value of it.
fn problem(kind: &ErrorKind) -> String {
    match kind {
        ErrorKind::ExpiredSignature => "has expired".to_owned(),
        ErrorKind::ImmatureSignature => "is not valid yet".to_owned(),
        ErrorKind::InvalidAudience => "is for another audience".to_owned(),
        ErrorKind::InvalidSignature => "has a signature that is not of its key".to_owned(),
        ErrorKind::MissingRequiredClaim(claim) => format!("has no valid claim `{claim}`"),
        ErrorKind::InvalidClaimFormat(claim) => format!("has an invalid claim `{claim}`"),
        _ => "cannot be read".to_owned(),
    }
}

#[cfg(test)]
mod tests;
