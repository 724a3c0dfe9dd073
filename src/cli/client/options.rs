//! Arguments of a connection to a gateway.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::Args;

use super::text::shell_quoted;

/// The gateway that `drawbridge sandbox` and `drawbridge serve` are by default.
const DEFAULT_GATEWAY: &str = "http://127.0.0.1:50051";

/// Reads a variable of the environment.
pub(in crate::cli) type Env<'e> = &'e dyn Fn(&str) -> Option<String>;

/// Arguments of a connection to a gateway, with variables of the environment as defaults.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "Connection")]
pub struct ConnectionOptions {
    /// URL of the gateway; http:// may be left out. With https:// its certificate is checked
    /// against the CA certificates of the system, or against --ca. Default: DRAWBRIDGE_GATEWAY,
    /// or else http://127.0.0.1:50051.
    #[arg(long, value_name = "URL", global = true)]
    pub gateway: Option<String>,
    /// Name of the upstream. Default: the default upstream of the family.
    #[arg(long, value_name = "NAME", global = true)]
    pub upstream: Option<String>,
    /// Further request metadata; may be repeated. Set secrets in the environment instead:
    /// DRAWBRIDGE_TOKEN is sent as `drawbridge-token`, which authenticates clients of the
    /// gateway, OS_TOKEN as `x-auth-token`, for upstreams of the kind passthrough.
    #[arg(long, value_name = "NAME=VALUE", global = true)]
    pub metadata: Vec<String>,
    /// CA certificates that sign the gateway's, PEM. Default: DRAWBRIDGE_GATEWAY_CA, or else
    /// those of the system.
    #[arg(long, value_name = "FILE", global = true)]
    pub ca: Option<PathBuf>,
    /// Client certificate, PEM. Default: DRAWBRIDGE_GATEWAY_CERT.
    #[arg(long, value_name = "FILE", global = true)]
    pub cert: Option<PathBuf>,
    /// Private key of the client certificate, PEM. Default: DRAWBRIDGE_GATEWAY_KEY.
    #[arg(long, value_name = "FILE", global = true)]
    pub key: Option<PathBuf>,
    /// Name that the gateway's certificate must have. Default: the host of the URL.
    #[arg(long, value_name = "NAME", global = true)]
    pub server_name: Option<String>,
}

/// Where a file is named: the flag or the variable.
#[derive(Clone, Debug)]
pub(super) struct NamedFile {
    pub(super) origin: &'static str,
    pub(super) path: PathBuf,
    pub(super) is_flag: bool,
}

impl fmt::Display for NamedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.origin, self.path.display())
    }
}

impl ConnectionOptions {
    /// Returns the URL of the gateway.
    pub(super) fn url(&self, env: Env<'_>) -> String {
        let url = self.gateway.clone().or_else(|| env("DRAWBRIDGE_GATEWAY"));
        let url = url.unwrap_or_else(|| DEFAULT_GATEWAY.to_owned());
        match url.contains("://") {
            true => url,
            false => format!("http://{url}"),
        }
    }

    pub(super) fn ca_file(&self, env: Env<'_>) -> Option<NamedFile> {
        file(self.ca.as_deref(), "--ca", "DRAWBRIDGE_GATEWAY_CA", env)
    }

    pub(super) fn cert_file(&self, env: Env<'_>) -> Option<NamedFile> {
        let flag = self.cert.as_deref();
        file(flag, "--cert", "DRAWBRIDGE_GATEWAY_CERT", env)
    }

    pub(super) fn key_file(&self, env: Env<'_>) -> Option<NamedFile> {
        file(self.key.as_deref(), "--key", "DRAWBRIDGE_GATEWAY_KEY", env)
    }

    /// Returns the flags with which another command of this program reaches the same gateway,
    /// in the same environment and ready to paste into a shell. Values of metadata, which can be
    /// secrets, are in it as the names of variables.
    pub(in crate::cli) fn as_flags(&self) -> String {
        let mut flags = String::new();
        let mut add = |flag: &str, value: &str| {
            flags += &format!(" --{flag} {}", shell_quoted(value));
        };
        if let Some(url) = &self.gateway {
            add("gateway", url);
        }
        for (flag, file) in [("ca", &self.ca), ("cert", &self.cert), ("key", &self.key)] {
            if let Some(file) = file {
                add(flag, &file.to_string_lossy());
            }
        }
        if let Some(name) = &self.server_name {
            add("server-name", name);
        }
        if let Some(upstream) = &self.upstream {
            add("upstream", upstream);
        }
        for text in &self.metadata {
            if let Some((name, _)) = text.split_once('=') {
                let variable = variable_of(name);
                flags += &match shell_quoted(name) == name {
                    true => format!(r#" --metadata "{name}=${variable}""#),
                    false => {
                        let name = shell_quoted(&format!("{name}="));
                        format!(r#" --metadata {name}"${variable}""#)
                    }
                };
            }
        }
        flags
    }
}

/// Hides the values of metadata, which can be secrets.
impl fmt::Debug for ConnectionOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.metadata.iter();
        let names = names.map(|text| text.split_once('=').map_or("", |(name, _)| name));
        f.debug_struct("ConnectionOptions")
            .field("gateway", &self.gateway)
            .field("upstream", &self.upstream)
            .field("metadata", &names.collect::<Vec<_>>())
            .field("ca", &self.ca)
            .field("cert", &self.cert)
            .field("key", &self.key)
            .field("server_name", &self.server_name)
            .finish()
    }
}

fn file(
    flag: Option<&Path>,
    name: &'static str,
    variable: &'static str,
    env: Env<'_>,
) -> Option<NamedFile> {
    let (origin, path) = match flag {
        Some(path) => (name, path.to_owned()),
        None => (variable, env(variable)?.into()),
    };
    Some(NamedFile {
        origin,
        path,
        is_flag: flag.is_some(),
    })
}

/// Returns the variable for the value of a header, for example `X_KEY` for `x-key`.
fn variable_of(name: &str) -> String {
    let mut variable = String::new();
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        variable.push('_');
    }
    variable.extend(name.chars().map(|c| match c.is_ascii_alphanumeric() {
        true => c.to_ascii_uppercase(),
        false => '_',
    }));
    variable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_take_precedence_over_variables() {
        let set = |name: &str| match name {
            "DRAWBRIDGE_GATEWAY" => Some("gw.example:1".to_owned()),
            "DRAWBRIDGE_GATEWAY_CA" => Some("env.pem".to_owned()),
            _ => None,
        };
        let none = |_: &str| None;
        let by_default = ConnectionOptions::default();
        assert_eq!(by_default.url(&none), DEFAULT_GATEWAY);
        assert_eq!(by_default.url(&set), "http://gw.example:1");
        let ca = by_default.ca_file(&set).unwrap();
        assert_eq!(ca.to_string(), "DRAWBRIDGE_GATEWAY_CA env.pem");
        let flags = ConnectionOptions {
            gateway: Some("https://a".into()),
            ca: Some("ca.pem".into()),
            ..ConnectionOptions::default()
        };
        assert_eq!(flags.url(&set), "https://a");
        assert_eq!(flags.ca_file(&set).unwrap().to_string(), "--ca ca.pem");
    }

    #[test]
    fn debug_output_has_no_values_of_metadata() {
        let options = ConnectionOptions {
            metadata: vec!["x-key=hidden".into(), "alone".into()],
            ..ConnectionOptions::default()
        };
        let text = format!("{options:?}");
        assert!(text.contains("x-key") && !text.contains("hidden"), "{text}");
        assert!(!text.contains("alone"), "{text}");
    }
}
