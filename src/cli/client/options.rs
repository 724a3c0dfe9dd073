//! Arguments of a connection to a gateway.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::Args;
use drawbridge_transcoder::contract::GATEWAY_SERVICES;
use prost_reflect::MethodDescriptor;
use tonic::codegen::http::Uri;

use super::failure::Failure;
use super::text::shell_quoted;

/// The gateway that `drawbridge sandbox` and `drawbridge serve` are by default.
const DEFAULT_GATEWAY: &str = "http://127.0.0.1:50051";

/// Reads a variable of the environment.
pub(in crate::cli) type Env<'e> = &'e dyn Fn(&str) -> Option<String>;

/// Arguments of a connection to a gateway, with variables of the environment as defaults.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "Connection")]
pub struct ConnectionOptions {
    /// URL of the gateway, or HOST:PORT for one without TLS. With https:// its certificate is
    /// checked against the CA certificates of the system, or against --ca. Default:
    /// DRAWBRIDGE_GATEWAY, or else http://127.0.0.1:50051.
    #[arg(long, value_name = "URL", global = true)]
    pub gateway: Option<String>,
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

/// The upstream of a call.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Connection")]
pub struct UpstreamOption {
    /// Name of the upstream, for `call` and `watch`. Default: the default upstream of the family.
    #[arg(long, value_name = "NAME", global = true)]
    pub upstream: Option<String>,
}

impl UpstreamOption {
    /// Returns the upstream for calls of this rpc. Fails for a service of the gateway itself, which
    /// reads no upstream.
    pub(in crate::cli) fn of(&self, method: &MethodDescriptor) -> Result<Option<&str>, Failure> {
        let service = method.parent_service();
        match &self.upstream {
            Some(_) if GATEWAY_SERVICES.contains(&service.full_name()) => {
                let problem = format!(
                    "--upstream: {} is served by the gateway itself, not by an upstream",
                    service.full_name()
                );
                Err(Failure::unknown(problem))
            }
            upstream => Ok(upstream.as_deref()),
        }
    }

    /// Returns the flag for another command, ready to paste into a shell.
    pub(in crate::cli) fn as_flag(&self) -> String {
        match &self.upstream {
            Some(upstream) => format!(" --upstream {}", shell_quoted(upstream)),
            None => String::new(),
        }
    }
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
    /// Returns the URL of the gateway, or what is wrong with it.
    pub(super) fn url(&self, env: Env<'_>) -> Result<Uri, String> {
        let (origin, url) = match (&self.gateway, env("DRAWBRIDGE_GATEWAY")) {
            (Some(url), _) => ("--gateway", url.clone()),
            (None, Some(url)) => ("DRAWBRIDGE_GATEWAY", url),
            (None, None) => ("--gateway", DEFAULT_GATEWAY.to_owned()),
        };
        parse_url(&url).map_err(|problem| match url.contains('@') {
            // It may be a password.
            true => format!("{origin}: {problem}"),
            false => format!("{origin} {}: {problem}", shell_quoted(&url)),
        })
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

/// Parses `http://HOST:PORT`, `https://HOST` or `HOST:PORT`.
fn parse_url(url: &str) -> Result<Uri, String> {
    let form = "write http://HOST:PORT, https://HOST:PORT or HOST:PORT";
    let full = match url.contains("://") {
        true => url.to_owned(),
        false => format!("http://{url}"),
    };
    let (scheme, rest) = full.split_once("://").unwrap_or_default();
    if !["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()) {
        return Err(format!("{scheme}:// is no scheme of a gateway: {form}"));
    }
    if rest.contains('@') {
        return Err(format!(
            "a user name or password in the URL is not sent: {form}, and set tokens in \
             DRAWBRIDGE_TOKEN or OS_TOKEN"
        ));
    }
    let uri: Uri = full
        .parse()
        .map_err(|_| format!("is no address of a gateway: {form}"))?;
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    // The colons of an IPv6 address are in brackets.
    let port = authority.rsplit_once(':').map(|(_, port)| port);
    let port = port.filter(|port| !port.contains(']'));
    match uri.path_and_query().map(|path| path.as_str()) {
        Some(path) if path != "/" => Err(format!("a gateway is not below a path ({path}): {form}")),
        _ => match port {
            Some("") => Err(format!("has no port: {form}")),
            Some(port) if port.parse::<u16>().is_ok_and(|port| port > 0) => Ok(uri),
            Some(_) => Err("the port is not between 1 and 65535".to_owned()),
            // A URL has the port of its scheme, 80 or 443, by default.
            None if url.contains("://") => Ok(uri),
            None => Err(format!("has no port: {form}")),
        },
    }
}

/// Hides the values of metadata, which can be secrets.
impl fmt::Debug for ConnectionOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.metadata.iter();
        let names = names.map(|text| text.split_once('=').map_or("", |(name, _)| name));
        f.debug_struct("ConnectionOptions")
            .field("gateway", &self.gateway)
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
        let url = |options: &ConnectionOptions, env| options.url(env).unwrap().to_string();
        assert_eq!(url(&by_default, &none), format!("{DEFAULT_GATEWAY}/"));
        assert_eq!(url(&by_default, &set), "http://gw.example:1/");
        let ca = by_default.ca_file(&set).unwrap();
        assert_eq!(ca.to_string(), "DRAWBRIDGE_GATEWAY_CA env.pem");
        let flags = ConnectionOptions {
            gateway: Some("https://a".into()),
            ca: Some("ca.pem".into()),
            ..ConnectionOptions::default()
        };
        assert_eq!(url(&flags, &set), "https://a/");
        assert_eq!(flags.ca_file(&set).unwrap().to_string(), "--ca ca.pem");
    }

    #[test]
    fn address_has_a_host_and_a_port_and_nothing_else() {
        let form = "write http://HOST:PORT, https://HOST:PORT or HOST:PORT";
        for (url, want) in [
            ("gw:1", Ok("http://gw:1/")),
            ("[::1]:50051", Ok("http://[::1]:50051/")),
            ("http://gw", Ok("http://gw/")),
            ("HTTPS://gw:8443/", Ok("https://gw:8443/")),
            ("gw", Err("--gateway gw: has no port: write ")),
            ("gw:", Err("--gateway gw:: has no port: write ")),
            ("http://gw:", Err("--gateway http://gw:: has no port: ")),
            ("", Err("--gateway '': is no address of a gateway: write ")),
            (
                "http://",
                Err("--gateway http://: is no address of a gateway: "),
            ),
            (
                "my host:1",
                Err("--gateway 'my host:1': is no address of a gateway: "),
            ),
            (
                "gw:99999",
                Err("--gateway gw:99999: the port is not between 1 and 65535"),
            ),
            (
                "gw:1/api",
                Err("--gateway gw:1/api: a gateway is not below a path (/api): "),
            ),
            (
                "http://gw:1/?x=y",
                Err("--gateway 'http://gw:1/?x=y': a gateway is not below "),
            ),
            (
                "http://me:hidden@gw:1",
                Err("--gateway: a user name or password in the URL is not "),
            ),
            (
                "grpc://gw:1",
                Err("--gateway grpc://gw:1: grpc:// is no scheme of a gateway: "),
            ),
            (
                "unix:///run/gw",
                Err("--gateway unix:///run/gw: unix:// is no scheme of a "),
            ),
        ] {
            let options = ConnectionOptions {
                gateway: Some(url.into()),
                ..ConnectionOptions::default()
            };
            match (options.url(&|_| None), want) {
                (Ok(got), Ok(want)) => assert_eq!(got.to_string(), want),
                (Err(got), Err(want)) => {
                    assert!(got.starts_with(want), "{url}: {got}");
                    assert!(!got.contains("hidden"), "{got}");
                    assert!(got.contains(form) || got.contains("the port is"), "{got}");
                }
                (got, _) => panic!("{url}: {got:?}"),
            }
        }
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
