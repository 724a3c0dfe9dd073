//! The proxies of the environment, and which URLs are reached without one.
//!
//! The tools that read these variables disagree about `NO_PROXY`. A host that any of the usual
//! readings excludes is reached directly: a token that goes to an excluded proxy is lost, a
//! connection that lacks its proxy fails visibly. Sources: curl, `lib/noproxy.c`; Python,
//! `urllib.request.proxy_bypass_environment`; requests, `utils.should_bypass_proxies`; Go,
//! `golang.org/x/net/http/httpproxy`, which never uses a proxy for this machine.
//! `tests/fixtures/config/no_proxy.tsv` compares them.

use std::net::IpAddr;

use url::{Host, Url};

use crate::error::Error;

/// The proxies of the environment. No `Debug`: their URLs may contain passwords.
#[derive(Default)]
pub(super) struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    no_proxy: Vec<Exclusion>,
}

/// A proxy; or why it cannot be used.
type Proxy = Result<Url, String>;

/// An entry of `NO_PROXY`.
#[derive(Clone, Debug, PartialEq)]
enum Exclusion {
    /// `*`.
    All,
    /// Of the host and of the port, if there is one.
    Name(String, Option<u16>),
    /// The text of the host or of host and port, with `*` for any characters.
    Pattern(String),
    Network(IpAddr, u32, Option<u16>),
}

impl Proxies {
    /// Reads the variables of the process.
    pub(super) fn of_process() -> Self {
        let text = |name: std::ffi::OsString| name.into_string().ok();
        let variables = std::env::vars_os();
        Self::new(variables.filter_map(|(name, value)| Some((text(name)?, text(value)?))))
    }

    /// Reads `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`. The lower-case name takes
    /// precedence, as in curl and Python, even if it is empty, as in Python. All `NO_PROXY`
    /// apply, whatever their case.
    pub(super) fn new(variables: impl Iterator<Item = (String, String)>) -> Self {
        let variables: Vec<(String, String)> = variables.collect();
        // A CGI program's HTTP_PROXY is a header of the request. Source: CVE-2016-5385.
        let is_cgi = variables.iter().any(|(name, _)| name == "REQUEST_METHOD");
        let proxy = |name: &str| {
            let usable = |found: &str| !(is_cgi && found == "HTTP_PROXY");
            let get = |name: &str| {
                let mut variables = variables.iter();
                variables.find(|(found, _)| found == name && usable(found))
            };
            let (name, value) = get(name).or_else(|| get(&name.to_ascii_uppercase()))?;
            let value = value.trim();
            (!value.is_empty()).then(|| parse(name, value))
        };
        let all = proxy("all_proxy");
        let is_no_proxy = |name: &str| name.eq_ignore_ascii_case("no_proxy");
        let lists = variables.iter().filter(|(name, _)| is_no_proxy(name));
        Self {
            http: proxy("http_proxy").or_else(|| all.clone()),
            https: proxy("https_proxy").or(all),
            no_proxy: lists.flat_map(|(_, list)| exclusions(list)).collect(),
        }
    }

    /// Returns the proxy that requests to this URL are sent to; None if they are sent directly.
    ///
    /// # Errors
    ///
    /// Fails with [`Error::Connect`] if the proxy cannot be used.
    pub(super) fn find(&self, url: &Url) -> Result<Option<&Url>, Error> {
        let proxy = match url.scheme() {
            "http" => &self.http,
            _ => &self.https,
        };
        match proxy {
            None => Ok(None),
            Some(_) if is_loopback(url) || self.excludes(url) => Ok(None),
            Some(Ok(proxy)) => Ok(Some(proxy)),
            Some(Err(problem)) => Err(Error::Connect(problem.clone())),
        }
    }

    fn excludes(&self, url: &Url) -> bool {
        let Some(host) = url.host() else { return false };
        let port = url.port_or_known_default();
        let address = match host {
            Host::Ipv4(address) => Some(IpAddr::V4(address)),
            Host::Ipv6(address) => Some(IpAddr::V6(address).to_canonical()),
            Host::Domain(_) => None,
        };
        // requests compares an IPv6 address without brackets, urllib with them.
        let text = match host {
            Host::Ipv6(address) => address.to_string(),
            host => host.to_string().trim_end_matches('.').to_owned(),
        };
        let with_port = port.map(|port| format!("{text}:{port}"));
        let excluded_port = |wanted: Option<u16>| wanted.is_none() || wanted == port;
        self.no_proxy.iter().any(|exclusion| match exclusion {
            Exclusion::All => true,
            Exclusion::Name(name, wanted) => excluded_port(*wanted) && is_below(&text, name),
            Exclusion::Pattern(pattern) => {
                let mut texts = [Some(&text), with_port.as_ref()].into_iter().flatten();
                texts.any(|text| matches(text.as_bytes(), pattern.as_bytes()))
            }
            Exclusion::Network(network, bits, wanted) => {
                excluded_port(*wanted)
                    && address.is_some_and(|address| contains(*network, *bits, address))
            }
        })
    }
}

/// Returns whether this `NO_PROXY` excludes the URL. Public for the fuzz target.
pub fn bypasses_proxy(no_proxy: &str, url: &Url) -> bool {
    let proxies = Proxies {
        no_proxy: exclusions(no_proxy),
        ..Proxies::default()
    };
    proxies.excludes(url)
}

/// Returns whether the host of the URL is this machine: `localhost`, a name below it, or an
/// address of loopback. Such requests use no proxy, which also means that their credentials are
/// on no network.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.to_canonical().is_loopback(),
        Some(Host::Domain(name)) => is_below(name.trim_end_matches('.'), "localhost"),
        None => false,
    }
}

/// Returns the URL of a proxy. A value without a scheme is a host and port, as in curl.
fn parse(variable: &str, value: &str) -> Proxy {
    // The value may contain a password.
    let problem = |what: &str| {
        format!("{variable} {what}: set it to http://HOST:PORT, or set proxy_from_env = false")
    };
    let with_scheme = match value.contains("://") {
        true => value.to_owned(),
        false => format!("http://{value}"),
    };
    match Url::parse(&with_scheme) {
        Ok(url) if !url.has_host() => Err(problem("is not the URL of a proxy")),
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(url),
        Ok(url) => Err(problem(&format!(
            "has a proxy of the kind {}, which is not supported",
            url.scheme()
        ))),
        Err(_) => Err(problem("is not the URL of a proxy")),
    }
}

/// Returns the entries of a list. Commas and blanks separate them.
fn exclusions(list: &str) -> Vec<Exclusion> {
    let mut found = Vec::new();
    for entry in list.split(',') {
        let words: Vec<&str> = entry.split_whitespace().collect();
        for word in &words {
            entry_of(word, &mut found);
        }
        // requests removes blanks.
        if words.len() > 1 {
            entry_of(&words.concat(), &mut found);
        }
    }
    found
}

fn entry_of(word: &str, found: &mut Vec<Exclusion>) {
    let word = word.to_lowercase();
    if word == "*" {
        found.push(Exclusion::All);
        return;
    }
    // A URL is meant as its host and port.
    let word = match word.split_once("://") {
        Some((_, rest)) => rest.split('/').next().unwrap_or_default(),
        None => &*word,
    };
    let (base, bits) = match word.split_once('/') {
        // curl reads the digits at the beginning.
        Some((base, bits)) => {
            let end = bits.find(|c: char| !c.is_ascii_digit());
            (base, Some(bits[..end.unwrap_or(bits.len())].parse().ok()))
        }
        None => (word, None),
    };
    // An IPv6 address without brackets may also be an address and a port.
    for (host, port) in hosts_and_ports(base) {
        if let Some(address) = address(host) {
            let width = if address.is_ipv4() { 32 } else { 128 };
            // An IPv4 address that is written as an IPv6 address.
            let prefix = if address.is_ipv4() && host.contains(':') {
                96
            } else {
                0
            };
            let bits: u32 = bits.flatten().unwrap_or(prefix + width);
            match bits.checked_sub(prefix) {
                Some(bits) if bits <= width => found.push(Exclusion::Network(address, bits, port)),
                _ => {}
            }
        }
        if bits.is_some() {
            continue;
        }
        let name = host.strip_prefix('*').unwrap_or(host);
        let name = match name.starts_with('.') || name.len() == host.len() {
            true => name.trim_matches('.'),
            false => host,
        };
        if name.contains('*') {
            found.push(Exclusion::Pattern(base.to_owned()));
        } else if !name.is_empty() {
            // Names beyond ASCII are in punycode in a URL.
            let name = match Host::parse(name) {
                Ok(Host::Domain(name)) => name,
                _ => name.to_owned(),
            };
            found.push(Exclusion::Name(name, port));
        }
    }
}

/// Splits `host`, `host:port`, `[v6]`, `[v6]:port` and `v6`, which may be a `v6:port`.
fn hosts_and_ports(text: &str) -> Vec<(&str, Option<u16>)> {
    if let Some((host, rest)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let port = rest.strip_prefix(':').and_then(|port| port.parse().ok());
        return match port.is_some() || rest.is_empty() {
            true => vec![(host, port)],
            false => Vec::new(),
        };
    }
    match text.rsplit_once(':') {
        None => vec![(text, None)],
        Some((host, port)) => {
            let of_host = match port {
                "*" => Some((host, None)),
                port => port.parse().ok().map(|port| (host, Some(port))),
            };
            let is_v6 = host.contains(':').then_some((text, None));
            of_host.into_iter().chain(is_v6).collect()
        }
    }
}

/// Parses an address as a URL would, so that `10.1` is `10.0.0.1`, as for requests.
fn address(host: &str) -> Option<IpAddr> {
    let (host, _zone) = host.split_once('%').unwrap_or((host, ""));
    let parsed = match host.contains(':') {
        true => Host::parse(&format!("[{host}]")),
        false => Host::parse(host),
    };
    match parsed.ok()? {
        Host::Ipv4(address) => Some(IpAddr::V4(address)),
        Host::Ipv6(address) => Some(IpAddr::V6(address).to_canonical()),
        Host::Domain(_) => None,
    }
}

/// Returns whether `text` is `name`, or ends in `.name`.
fn is_below(text: &str, name: &str) -> bool {
    match text.strip_suffix(name) {
        Some(rest) => rest.is_empty() || rest.ends_with('.'),
        None => false,
    }
}

fn contains(network: IpAddr, bits: u32, address: IpAddr) -> bool {
    let value = |address| match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    };
    let ((network, width), (address, other_width)) = (value(network), value(address));
    let differing = (network ^ address).checked_shr(width - bits).unwrap_or(0);
    width == other_width && differing == 0
}

/// Returns whether the text matches the pattern, whose `*` matches any characters.
fn matches(text: &[u8], pattern: &[u8]) -> bool {
    let (mut at, mut of_pattern) = (0, 0);
    // After the last `*`, and where the text goes on if it matches nothing more.
    let mut last_star = None;
    while at < text.len() {
        match pattern.get(of_pattern) {
            Some(b'*') => {
                of_pattern += 1;
                last_star = Some((of_pattern, at));
            }
            Some(byte) if *byte == text[at] => {
                at += 1;
                of_pattern += 1;
            }
            _ => {
                let Some((after, from)) = last_star else {
                    return false;
                };
                last_star = Some((after, from + 1));
                (of_pattern, at) = (after, from + 1);
            }
        }
    }
    pattern[of_pattern..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests;
