//! The banner of `drawbridge serve` and `drawbridge sandbox`: what is listening, and two calls
//! to paste. At most eight lines of 80 columns.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::Config;

/// Width of the terminal.
const MAX_COLUMNS: usize = 80;

/// The flags with which grpcurl calls a gateway.
#[derive(Clone, Debug)]
pub(super) struct GrpcurlFlags(String);

impl GrpcurlFlags {
    /// Returns the flags for a gateway with this configuration. The certificate of a sandbox
    /// is not verified: it is usually self-signed.
    pub(super) fn new(config: &Config) -> Self {
        let mut flags = match (&config.tls, config.sandbox) {
            (None, _) => "-plaintext",
            (Some(_), true) => "-insecure",
            (Some(_), false) => "-cacert ca.pem",
        }
        .to_owned();
        if config
            .tls
            .as_ref()
            .is_some_and(|tls| tls.client_ca.is_some())
        {
            flags += " -cert me.pem -key me.key";
        }
        if config.requires_token() {
            flags += " -H \"drawbridge-token: $T\"";
        }
        Self(flags)
    }
}

/// Returns the banner. The first line of a sandbox says that it is one.
pub(super) fn banner(
    is_sandbox: bool,
    grpc: SocketAddr,
    admin: Option<SocketAddr>,
    has_page: bool,
    flags: &GrpcurlFlags,
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
        true => "Paste into another terminal (`drawbridge examples` prints more):\n",
        false => "Paste into another terminal:\n",
    };
    let address = reachable(grpc);
    let call = match is_sandbox {
        true => "hitachi.automation.v1.TaskService/ListTasks",
        false => "drawbridge.v1.GatewayService/ListUpstreams",
    };
    for call in ["list", call] {
        let line = format!("  grpcurl {} {address} {call}", flags.0);
        if line.len() <= MAX_COLUMNS {
            let _ = writeln!(text, "{line}");
        } else {
            let _ = writeln!(text, "  grpcurl {} \\\n    {address} {call}", flags.0);
        }
    }
    text
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
                let text = banner(sandbox, grpc, admin, sandbox, &GrpcurlFlags::new(&config));
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
