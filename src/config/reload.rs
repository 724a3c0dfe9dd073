//! What a reload compares, and what it does not change.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use ring::digest::{Context, SHA256};
use toml::de::DeValue;

use super::{Config, Problem};
use crate::credentials;
use crate::upstream;

/// Reads the configuration again, with its files.
#[derive(Clone)]
pub struct ConfigSource(Arc<dyn Fn() -> Result<Config, Vec<Problem>> + Send + Sync>);

impl ConfigSource {
    /// Makes a source of a function, which may wait for files.
    pub fn new(read: impl Fn() -> Result<Config, Vec<Problem>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// Reads the configuration.
    ///
    /// # Errors
    ///
    /// Returns the problems that a start would return.
    pub fn read(&self) -> Result<Config, Vec<Problem>> {
        (self.0)()
    }
}

impl fmt::Debug for ConfigSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigSource").finish_non_exhaustive()
    }
}

/// Keeps these values of a running gateway, and collects the keys of those that differ.
macro_rules! keep {
    ($changed:ident, $next:ident, $running:ident, $($key:literal => $($field:ident).+),+ $(,)?) => {
        $(
            let texts = [&$next.$($field).+, &$running.$($field).+].map(|value| format!("{value:?}"));
            if texts[0] != texts[1] {
                $changed.push($key);
            }
            $next.$($field).+.clone_from(&$running.$($field).+);
        )+
    };
}

impl Config {
    /// Keeps the values of a running gateway that only a restart changes. Returns the keys of
    /// the values that differ.
    pub(crate) fn keep_fixed(&mut self, running: &Self) -> Vec<&'static str> {
        let mut changed = Vec::new();
        keep!(changed, self, running,
            "listen.grpc" => listen,
            "listen.admin" => admin,
            "listen.clients.trust_forwarded_client_cert" => trusts_sidecar,
            "admin.page" => admin_page,
            "server.worker_threads" => server.worker_threads,
            "server.max_connections" => server.max_connections,
            "server.max_connections_per_address" => server.max_connections_per_address,
            "server.max_memory_bytes" => server.max_memory_bytes,
            "server.tls_handshake_timeout_secs" => server.tls_handshake_timeout,
            "server.health_check_interval_secs" => server.health_check_interval,
            "watch" => watch,
            "audit" => audit,
            "log" => log,
        );
        if self.tls.is_some() != running.tls.is_some() {
            changed.push("listen.tls");
            self.tls.clone_from(&running.tls);
        }
        self.sandbox = running.sandbox;
        changed
    }

    /// Returns a digest of the text of the file and of the contents of its files, without
    /// those of `[listen]` and of credentials, which are read again by themselves.
    pub(super) fn digest_of(&self, text: &str) -> [u8; 32] {
        let mut context = Context::new(&SHA256);
        let mut add = |bytes: &[u8]| {
            context.update(&bytes.len().to_be_bytes());
            context.update(bytes);
        };
        add(text.as_bytes());
        add(self.overlay.text().as_bytes());
        for source in &self.descriptors {
            add(source.name.as_bytes());
            add(&source.bytes);
        }
        for upstream in &self.upstreams {
            add(&upstream.digest.unwrap_or_default());
        }
        finish(context)
    }
}

/// Returns a digest of what the configuration says about an upstream whose table `auth` has
/// this text. The login that `auth_source` reads again is not part of it, unless it goes
/// elsewhere.
pub(super) fn digest_of_upstream(settings: &upstream::Settings, auth: &str) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    let mut add = |bytes: &[u8]| {
        context.update(&bytes.len().to_be_bytes());
        context.update(bytes);
    };
    let login = settings.auth.login_url();
    add(format!("{:?}", login.map(|(_, url)| url)).as_bytes());
    let shown = upstream::Settings {
        auth: credentials::Settings::None,
        auth_source: None,
        ..settings.clone()
    };
    add(format!("{shown:?}").as_bytes());
    add(auth.as_bytes());
    if let Some(path) = &settings.transport.ca_file {
        // Its problems have been reported.
        add(&std::fs::read(path).unwrap_or_default());
    }
    finish(context)
}

fn finish(context: Context) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

/// Writes a value without the places of its parts, and tables by their keys.
pub(super) fn write_value(value: &DeValue<'_>, text: &mut String) {
    match value {
        DeValue::Table(table) => {
            let mut keys: Vec<_> = table.iter().collect();
            keys.sort_by(|(one, _), (other, _)| one.get_ref().cmp(other.get_ref()));
            text.push('{');
            for (key, value) in keys {
                // Writing to a string does not fail.
                let _ = write!(text, "{:?}=", key.get_ref());
                write_value(value.get_ref(), text);
                text.push(';');
            }
            text.push('}');
        }
        DeValue::Array(items) => {
            text.push('[');
            for item in items.iter() {
                write_value(item.get_ref(), text);
                text.push(';');
            }
            text.push(']');
        }
        DeValue::String(string) => {
            let _ = write!(text, "{string:?}");
        }
        other => {
            let _ = write!(text, "{other:?}");
        }
    }
}
