//! Which requests to the page are served. Any website may send requests from the browser of a
//! visitor: by a name that it resolves to this machine (DNS rebinding), or across origins.

use std::net::{IpAddr, SocketAddr};

use http::uri::Authority;
use http::{HeaderMap, StatusCode, header};

/// The header that a script of another origin cannot send without permission.
pub const PAGE_HEADER: &str = "x-drawbridge-page";

/// Why a request is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The status.
    pub status: StatusCode,
    /// What to do.
    pub problem: &'static str,
}

const fn forbidden(problem: &'static str) -> Rejection {
    Rejection {
        status: StatusCode::FORBIDDEN,
        problem,
    }
}

const FOREIGN_HOST: Rejection = forbidden(
    "this host is not one of the page: use http://localhost, the loopback address, or the address of \
     listen.admin, each with the port; from another machine, forward the port to it",
);
const FOREIGN_SITE: Rejection = forbidden("requests of other websites are not served");
const NO_PAGE_HEADER: Rejection = forbidden("send the header x-drawbridge-page: 1");
const NOT_JSON: Rejection = Rejection {
    status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
    problem: "send JSON, with content-type: application/json",
};

/// Checks requests to an admin listener.
#[derive(Clone, Copy, Debug)]
pub struct Guard {
    configured: IpAddr,
}

impl Guard {
    /// Checks requests to this address.
    pub fn new(configured: SocketAddr) -> Self {
        Self {
            configured: configured.ip().to_canonical(),
        }
    }

    /// Checks the host. An address cannot be rebound, so any is accepted where the listener has
    /// all of the machine's.
    pub fn check_host(&self, headers: &HeaderMap) -> Result<(), Rejection> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return Err(FOREIGN_HOST);
        };
        let authority = Authority::try_from(host.as_bytes()).map_err(|_| FOREIGN_HOST)?;
        let host = authority.host();
        if host.eq_ignore_ascii_case("localhost") {
            return Ok(());
        }
        let unbracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let is_accepted = |ip: IpAddr| {
            let ip = ip.to_canonical();
            ip.is_loopback() || ip == self.configured || self.configured.is_unspecified()
        };
        match unbracketed.unwrap_or(host).parse() {
            Ok(ip) if is_accepted(ip) => Ok(()),
            _ => Err(FOREIGN_HOST),
        }
    }

    /// Checks a request of the page's own scripts, or of a program.
    pub fn check_api(&self, headers: &HeaderMap) -> Result<(), Rejection> {
        self.check_host(headers)?;
        for site in headers.get_all("sec-fetch-site") {
            if !matches!(site.as_bytes(), b"same-origin" | b"none") {
                return Err(FOREIGN_SITE);
            }
        }
        let host = headers.get(header::HOST).map(|host| host.as_bytes());
        for origin in headers.get_all(header::ORIGIN) {
            let origin = origin.as_bytes();
            let http = origin.strip_prefix(b"http://");
            // A proxy may terminate TLS.
            if http.or_else(|| origin.strip_prefix(b"https://")) != host {
                return Err(FOREIGN_SITE);
            }
        }
        Ok(())
    }

    /// Checks a request that makes a call.
    pub fn check_call(&self, headers: &HeaderMap) -> Result<(), Rejection> {
        self.check_api(headers)?;
        let content_type = headers.get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        let media_type = content_type.and_then(|value| value.split(';').next());
        if media_type.is_none_or(|kind| !kind.trim().eq_ignore_ascii_case("application/json")) {
            return Err(NOT_JSON);
        }
        match headers.get(PAGE_HEADER) {
            Some(value) if value == "1" => Ok(()),
            _ => Err(NO_PAGE_HEADER),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name = HeaderName::from_static(name);
            headers.append(name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn host_is_loopback_or_the_configured_address() {
        let loopback = Guard::new(([127, 0, 0, 1], 50_052).into());
        let one = Guard::new(([192, 0, 2, 1], 50_052).into());
        let all = Guard::new(([0, 0, 0, 0], 50_052).into());
        for (host, want) in [
            ("127.0.0.1:50052", [true; 3]),
            ("127.0.0.1", [true; 3]),
            ("127.9.9.9:1", [true; 3]),
            ("localhost:8080", [true; 3]),
            ("LocalHost", [true; 3]),
            ("[::1]:50052", [true; 3]),
            ("[::ffff:127.0.0.1]:50052", [true; 3]),
            ("192.0.2.1:50052", [false, true, true]),
            ("192.0.2.2:50052", [false, false, true]),
            ("[2001:db8::1]:50052", [false, false, true]),
            ("localhost.attacker.test", [false; 3]),
            ("127.0.0.1.attacker.test:50052", [false; 3]),
            ("attacker.test:50052", [false; 3]),
            ("user@attacker.test", [false; 3]),
            ("2130706433", [false; 3]),
            ("", [false; 3]),
            ("127.0.0.1:50052/x", [false; 3]),
        ] {
            let headers = headers(&[("host", host)]);
            let got = [loopback, one, all].map(|guard| guard.check_host(&headers).is_ok());
            assert_eq!(got, want, "{host}");
        }
        for hosts in [&[][..], &[("host", "localhost"), ("host", "attacker.test")]] {
            assert!(loopback.check_host(&headers(hosts)).is_err(), "{hosts:?}");
        }
    }

    #[test]
    fn other_websites_are_rejected() {
        const HOST: (&str, &str) = ("host", "localhost:50052");
        let guard = Guard::new(([127, 0, 0, 1], 50_052).into());
        for (further, want) in [
            (&[][..], true),
            (&[("sec-fetch-site", "same-origin")], true),
            (&[("sec-fetch-site", "none")], true),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("sec-fetch-site", "cross-site")], false),
            (
                &[
                    ("sec-fetch-site", "same-origin"),
                    ("sec-fetch-site", "cross-site"),
                ],
                false,
            ),
            (&[("origin", "http://localhost:50052")], true),
            (&[("origin", "https://localhost:50052")], true),
            (&[("origin", "http://localhost:50053")], false),
            (&[("origin", "http://localhost")], false),
            (&[("origin", "http://attacker.test")], false),
            (&[("origin", "null")], false),
            (&[("origin", "")], false),
            (
                &[
                    ("sec-fetch-site", "same-origin"),
                    ("origin", "http://attacker.test"),
                ],
                false,
            ),
        ] {
            let headers = headers(&[&[HOST], further].concat());
            assert_eq!(guard.check_api(&headers).is_ok(), want, "{further:?}");
        }
    }

    #[test]
    fn call_needs_json_and_the_header_of_the_page() {
        let guard = Guard::new(([127, 0, 0, 1], 50_052).into());
        let json = ("content-type", "application/json");
        let page = (PAGE_HEADER, "1");
        for (further, want) in [
            (&[json, page][..], Ok(())),
            (
                &[("content-type", "Application/JSON; charset=utf-8"), page],
                Ok(()),
            ),
            (&[json], Err(NO_PAGE_HEADER)),
            (&[json, (PAGE_HEADER, "0")], Err(NO_PAGE_HEADER)),
            (&[page], Err(NOT_JSON)),
            // What a form of another website can send.
            (&[("content-type", "text/plain"), page], Err(NOT_JSON)),
            (
                &[json, page, ("origin", "http://attacker.test")],
                Err(FOREIGN_SITE),
            ),
        ] {
            let headers = headers(&[&[("host", "localhost")], further].concat());
            assert_eq!(guard.check_call(&headers), want, "{further:?}");
        }
    }
}
