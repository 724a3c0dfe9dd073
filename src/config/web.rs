//! `[listen.web]`: which web pages may call, and by which host names.

use url::Url;

use super::reader::Section;

/// Calls of web pages: `[listen.web]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebOptions {
    /// The origins whose pages may call, as browsers write them: `https://ops.example.com`.
    /// Default: none.
    pub allowed_origins: Vec<String>,
    /// Names by which the gateway may be called where browsers are allowed, each with or without
    /// a port. IP addresses and `localhost` always are. Default: none.
    pub allowed_hosts: Vec<String>,
    /// Whether rpcs without side effects can be called by the GET of Connect. Default: no.
    pub connect_get: bool,
}

impl WebOptions {
    /// Reads the section.
    pub(super) fn read(section: &Section<'_>) -> Self {
        let mut options = Self::default();
        for origin in section.texts("allowed_origins").unwrap_or_default() {
            match origin_problem(&origin.value) {
                None => options.allowed_origins.push(origin.value),
                Some(problem) => section.invalid_at(origin.at, "allowed_origins", &problem),
            }
        }
        for host in section.texts("allowed_hosts").unwrap_or_default() {
            match host_problem(&host.value) {
                None => options.allowed_hosts.push(host.value),
                Some(problem) => section.invalid_at(host.at, "allowed_hosts", &problem),
            }
        }
        section.flag_into("connect_get", &mut options.connect_get);
        let is_unused = options.allowed_origins.is_empty() && !options.connect_get;
        if is_unused && !options.allowed_hosts.is_empty() {
            section.warn(
                "allowed_hosts",
                "has no effect: no browser may call (keys `allowed_origins`, `connect_get`)",
            );
        }
        section.finish();
        options
    }
}

/// Returns what is wrong with an origin, which is compared as written.
fn origin_problem(text: &str) -> Option<String> {
    if text == "*" {
        return Some("name each origin: `*` would let any web page call".to_owned());
    }
    let url = Url::parse(text).ok();
    let url = url.filter(|url| {
        matches!(url.scheme(), "http" | "https") && url.has_host() && !text.contains('*')
    });
    let Some(url) = url else {
        return Some(format!(
            "`{text}` is not an origin like https://ops.example.com"
        ));
    };
    let origin = url.origin().ascii_serialization();
    (origin != text).then(|| format!("`{text}` is not an origin: write {origin}"))
}

/// Returns what is wrong with a host name, which may have a port.
fn host_problem(text: &str) -> Option<String> {
    let (host, port) = text.split_once(':').unwrap_or((text, "1"));
    let is_host = !host.is_empty()
        && (host.bytes()).all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    let is_port = port.parse::<u16>().is_ok();
    let problem = || format!("`{text}` is not a host name, with or without a port");
    (!is_host || !is_port).then(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_and_hosts_are_written_as_browsers_send_them() {
        for (origin, want) in [
            ("https://ops.example.com", None),
            ("http://localhost:3000", None),
            ("http://[::1]:8080", None),
            ("*", Some("any web page")),
            ("null", Some("like https://")),
            ("ops.example.com", Some("like https://")),
            ("ftp://a.test", Some("like https://")),
            ("https://a.test/", Some("write https://a.test")),
            ("https://a.test:443", Some("write https://a.test")),
            ("https://A.test", Some("write https://a.test")),
            ("https://a.test/app", Some("write https://a.test")),
            ("https://*.a.test", Some("like https://")),
        ] {
            let problem = origin_problem(origin);
            match want {
                None => assert_eq!(problem, None, "{origin}"),
                Some(want) => assert!(problem.unwrap().contains(want), "{origin}"),
            }
        }
        for (host, is_valid) in [
            ("gateway.example.com", true),
            ("gateway:8443", true),
            ("https://gateway", false),
            ("gateway:port", false),
            ("*.example.com", false),
            (":80", false),
        ] {
            assert_eq!(host_problem(host).is_none(), is_valid, "{host}");
        }
    }
}
