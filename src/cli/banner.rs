//! The banner of `drawbridge serve` and `drawbridge sandbox`: what is listening, and a call to
//! paste, with `drawbridge` and with grpcurl. At most eight lines of 80 columns.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::Config;

/// Width of the terminal.
const MAX_COLUMNS: usize = 80;

/// What `drawbridge call` calls by default.
const DEFAULT_GATEWAY: &str = "127.0.0.1:50051";

/// How clients at a terminal call a gateway.
#[derive(Clone, Debug)]
pub(super) struct ClientFlags {
    grpcurl: String,
    /// What precedes `drawbridge`, and what follows the arguments of the call.
    drawbridge: (&'static str, String),
}

impl ClientFlags {
    /// Returns the flags for a gateway with this configuration. grpcurl does not verify the
    /// certificate of a sandbox: it is usually self-signed.
    pub(super) fn new(config: &Config) -> Self {
        let mut grpcurl = match (&config.tls, config.sandbox) {
            (None, _) => "-plaintext",
            (Some(_), true) => "-insecure",
            (Some(_), false) => "-cacert ca.pem",
        }
        .to_owned();
        let mut drawbridge = match config.tls {
            None => "",
            Some(_) => "--ca ca.pem",
        }
        .to_owned();
        let tls = config.tls.as_ref();
        if tls.is_some_and(|tls| tls.client_ca.is_some()) {
            grpcurl += " -cert me.pem -key me.key";
            drawbridge += " --cert me.pem --key me.key";
        }
        let needs_token = config.requires_token();
        if needs_token {
            grpcurl += " -H \"drawbridge-token: $T\"";
        }
        let before = if needs_token {
            "DRAWBRIDGE_TOKEN=$T "
        } else {
            ""
        };
        Self {
            grpcurl,
            drawbridge: (before, drawbridge),
        }
    }
}

/// Returns the banner. The first line of a sandbox says that it is one. `program` is what
/// `drawbridge` was started as, so that the lines run as pasted.
pub(super) fn banner(
    is_sandbox: bool,
    grpc: SocketAddr,
    admin: Option<SocketAddr>,
    has_page: bool,
    (program, flags): (&str, &ClientFlags),
) -> String {
    let mut text = String::new();
    if is_sandbox {
        text += "SANDBOX: embedded OpenStack Heat, Huawei ServiceStage and Hitachi JP1/AO\n";
    }
    let _ = writeln!(text, "drawbridge serves gRPC on {grpc}");
    if let Some(admin) = admin {
        let admin = reachable(admin);
        let page = if has_page { " (a page), /" } else { "" };
        let _ = writeln!(
            text,
            "admin listener: http://{admin}/{page}metrics /livez /readyz"
        );
    }
    text += match is_sandbox {
        true => "Paste into another terminal; `examples` prints more; grpcurl if installed:\n",
        false => "Paste into another terminal; grpcurl if it is installed:\n",
    };
    let address = reachable(grpc);
    let call = match is_sandbox {
        true => "TaskService/ListTasks",
        false => "GatewayService/ListUpstreams",
    };
    let (before, after) = &flags.drawbridge;
    let scheme = if after.is_empty() { "" } else { "https://" };
    let gateway = match after.is_empty() && address.to_string() == DEFAULT_GATEWAY {
        true => String::new(),
        false => format!("--gateway {scheme}{address}"),
    };
    let start = format!("{before}{program}");
    push_command(
        &mut text,
        &[&start, &format!("call {call}"), &gateway, after],
    );
    let start = format!("grpcurl {}", flags.grpcurl);
    push_command(&mut text, &[&start, &format!("{address} list")]);
    text
}

/// Appends a command, continued on a line that is indented where it is too long.
fn push_command(text: &mut String, parts: &[&str]) {
    let mut line = String::new();
    let mut parts = parts.iter().filter(|part| !part.is_empty()).peekable();
    while let Some(part) = parts.next() {
        let continuation = if parts.peek().is_some() { 2 } else { 0 };
        if !line.is_empty() && line.len() + 1 + part.len() + continuation > MAX_COLUMNS {
            let _ = writeln!(text, "{line} \\");
            line = "   ".to_owned();
        }
        line = match line.is_empty() {
            true => format!("  {part}"),
            false => format!("{line} {part}"),
        };
    }
    let _ = writeln!(text, "{line}");
}

/// Returns what this program was started as; its name where a shell finds it by that.
pub(super) fn program() -> String {
    let started_as = std::env::args().next().unwrap_or_default();
    match started_as.contains('/') && started_as.chars().all(is_plain) {
        true => started_as,
        false => "drawbridge".to_owned(),
    }
}

/// Returns whether a shell needs no quotes for the character.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "/._-+".contains(c)
}

/// Returns an address that a client on this machine can connect to.
fn reachable(listener: SocketAddr) -> SocketAddr {
    let ip = match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listener.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Tls;

    #[test]
    fn banner_fits_a_terminal_and_the_security_of_the_listener() {
        let tls = |client_ca: Option<&[u8]>| {
            Some(Tls {
                certificate: Vec::new(),
                key: "key".into(),
                client_ca: client_ca.map(<[u8]>::to_vec),
            })
        };
        let admin = Some(SocketAddr::from(([255, 255, 255, 255], 50_052)));
        for sandbox in [false, true] {
            for (tls, with_token, want) in [
                (None, false, "  grpcurl -plaintext 127.0.0.1:50051 list\n"),
                (None, true, "-plaintext -H \"drawbridge-token: $T\" 127"),
                (None, false, "  target/release/drawbridge call "),
                (
                    None,
                    true,
                    "  DRAWBRIDGE_TOKEN=$T target/release/drawbridge ",
                ),
                (
                    tls(None),
                    false,
                    " --gateway https://127.0.0.1:50051 --ca ca.pem\n",
                ),
                (
                    tls(Some(b"ca")),
                    false,
                    " --ca ca.pem --cert me.pem --key me.key\n",
                ),
                (tls(None), false, " 127.0.0.1:50051 list\n"),
                (tls(Some(b"ca")), false, " -cert me.pem -key me.key 127"),
                (
                    tls(Some(b"ca")),
                    true,
                    "me.key -H \"drawbridge-token: $T\" ",
                ),
            ] {
                let is_tls = tls.is_some();
                let mut config = Config::sandbox();
                config.sandbox = sandbox;
                config.tls = tls;
                if with_token {
                    config.client_tokens = vec!["secret".into()];
                }
                let grpc = SocketAddr::from(([0, 0, 0, 0], 50_051));
                let flags = ClientFlags::new(&config);
                let program = "target/release/drawbridge";
                let text = banner(sandbox, grpc, admin, sandbox, (program, &flags));
                assert!(text.contains(want), "{text}");
                assert_eq!(
                    text.contains(":50052/ (a page), /metrics"),
                    sandbox,
                    "{text}"
                );
                assert_eq!(text.contains(":50052/metrics"), !sandbox, "{text}");
                assert_eq!(text.contains("-plaintext"), !is_tls, "{text}");
                assert_eq!(text.contains("-insecure"), is_tls && sandbox, "{text}");
                assert!(!text.contains("secret"), "{text}");
                assert!(text.lines().count() <= 8, "{text}");
                assert!(text.lines().all(|line| line.len() <= MAX_COLUMNS), "{text}");
            }
        }
    }
}
