//! Reads settings with files again: secrets that are rotated while the gateway runs.

use std::sync::{Mutex, PoisonError};

use ring::digest::{Context, SHA256};
use secrecy::ExposeSecret;
use tokio::time::Instant;

use super::{Identity, RackspaceSecret, Settings};
use crate::reload::{FileSource, INTERVAL};

/// Reads the settings of an upstream's credentials from their files.
pub type SettingsSource = FileSource<Settings>;

/// The source of an upstream's credentials, and what it had last.
#[derive(Debug)]
pub(super) struct Reload {
    source: SettingsSource,
    last: Mutex<Last>,
}

#[derive(Debug)]
struct Last {
    read_at: Instant,
    digest: [u8; 32],
    /// Where logins go. Only a restart changes it, after its checks.
    login_url: String,
    /// The last problem, which is logged once.
    problem: String,
}

impl Reload {
    pub(super) fn new(source: SettingsSource, settings: &Settings) -> Self {
        Self {
            source,
            last: Mutex::new(Last {
                read_at: Instant::now(),
                digest: digest(settings),
                login_url: login_url(settings),
                problem: String::new(),
            }),
        }
    }

    /// Reads the settings, after the interval or `now`. Returns them if they have changed.
    pub(super) fn changed(&self, now: bool) -> Option<Settings> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if !now && last.read_at.elapsed() < INTERVAL {
            return None;
        }
        last.read_at = Instant::now();
        let read =
            self.source
                .read()
                .and_then(|settings| match login_url(&settings) == last.login_url {
                    true => Ok(settings),
                    false => Err(
                        "auth_url has changed: the configuration has to be read again".to_owned(),
                    ),
                });
        match read {
            Ok(settings) => {
                last.problem.clear();
                let digest = digest(&settings);
                if digest == last.digest {
                    return None;
                }
                last.digest = digest;
                tracing::info!(
                    upstream = self.source.upstream(),
                    files = self.source.files(),
                    kind = settings.kind(),
                    "credentials have changed in their files"
                );
                Some(settings)
            }
            Err(problem) => {
                if problem != last.problem {
                    tracing::warn!(
                        upstream = self.source.upstream(),
                        files = self.source.files(),
                        problem,
                        "cannot read credentials again: the last ones stay"
                    );
                    last.problem = problem;
                }
                None
            }
        }
    }
}

fn login_url(settings: &Settings) -> String {
    let url = settings.login_url();
    url.map(|(_, url)| url.to_string()).unwrap_or_default()
}

/// Returns a digest of everything, secrets included.
fn digest(settings: &Settings) -> [u8; 32] {
    let secrets = match settings {
        Settings::Passthrough | Settings::None => Vec::new(),
        Settings::Token { token, .. } => vec![token],
        Settings::Basic { password, .. } | Settings::Hsso { password, .. } => vec![password],
        Settings::Keystone(login) => match &login.identity {
            Identity::Password { password, .. } => vec![password],
            Identity::ApplicationCredential { secret, .. } => vec![secret],
            Identity::Token(token) => vec![token],
        },
        Settings::Rackspace(login) => match &login.secret {
            RackspaceSecret::ApiKey(secret) | RackspaceSecret::Password(secret) => vec![secret],
        },
        Settings::AkSk(keys) => {
            let token = keys.security_token.iter();
            std::iter::once(&keys.secret_key).chain(token).collect()
        }
    };
    let mut context = Context::new(&SHA256);
    // `Debug` omits secrets only.
    context.update(format!("{settings:?}").as_bytes());
    for secret in secrets {
        context.update(&[0]);
        context.update(secret.expose_secret().as_bytes());
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

#[cfg(test)]
mod tests;
