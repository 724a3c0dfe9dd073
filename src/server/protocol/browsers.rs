//! Which web pages may call: the gateway serves none itself, so that a request of a browser is
//! for a page of another origin, or of a host name that leads here by mistake or by DNS
//! rebinding. Clients other than browsers are not affected: they send no `Origin`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    CACHE_CONTROL, HOST, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use tonic::body::Body;

use super::{Protocol, Rejection, WebProtocol};
use crate::config::WebOptions;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// How long a browser keeps the answer to its question: the most that Chromium allows.
const PREFLIGHT_MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

/// The response headers that pages may read, besides those of upstreams.
const EXPOSED: &[&str] = &[
    "grpc-status",
    "grpc-message",
    "grpc-status-details-bin",
    "grpc-encoding",
    "grpc-accept-encoding",
    "connect-content-encoding",
    "connect-accept-encoding",
    "x-request-id",
    "drawbridge-inexact",
    "drawbridge-sandbox",
];

/// The rules of `[listen.web]`.
#[derive(Clone, Debug)]
pub(in super::super) struct Browsers(Arc<Rules>);

#[derive(Debug)]
struct Rules {
    options: WebOptions,
    exposed: HeaderValue,
}

/// What the response to a request has in addition, also if it is a rejection: a page of an
/// allowed origin can read why.
#[derive(Clone, Debug)]
pub(in super::super) struct Cors {
    browsers: Browsers,
    /// That of an allowed page.
    origin: Option<HeaderValue>,
    is_get: bool,
}

impl Browsers {
    /// Allows the pages of these options, which may read these headers of upstreams.
    pub(in super::super) fn new(options: WebOptions, forwarded: &BTreeSet<&str>) -> Self {
        let all: Vec<&str> = EXPOSED.iter().chain(forwarded).copied().collect();
        let exposed = HeaderValue::from_str(&all.join(", "));
        Self(Arc::new(Rules {
            options,
            exposed: exposed.unwrap_or(HeaderValue::from_static("grpc-status")),
        }))
    }

    /// Returns whether GET is served.
    pub(in super::super) fn connect_get(&self) -> bool {
        self.0.options.connect_get
    }

    /// Checks host and origin of a request that is not of gRPC itself.
    pub(in super::super) fn check<B>(
        &self,
        protocol: Protocol,
        request: &Request<B>,
    ) -> Result<(), Rejection> {
        let options = &self.0.options;
        let headers = request.headers();
        let are_allowed = options.connect_get || !options.allowed_origins.is_empty();
        if are_allowed && !host(request).is_some_and(|host| options.is_host(host)) {
            return Err(Rejection::Host);
        }
        let origin = headers.get(ORIGIN);
        let mut origins = headers.get_all(ORIGIN).iter();
        if origins.any(|origin| !options.is_origin(origin)) {
            return Err(Rejection::Origin);
        }
        let is_get = protocol == Protocol::Web(WebProtocol::ConnectGet);
        // A page can send a GET without a question, and without an origin.
        let site = headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes);
        let is_own = matches!(site, None | Some(b"none" | b"same-origin"));
        if is_get && origin.is_none() && !is_own {
            return Err(Rejection::Origin);
        }
        Ok(())
    }

    /// Returns what the response to this request has in addition.
    pub(in super::super) fn cors<B>(&self, request: &Request<B>) -> Cors {
        let mut origins = request.headers().get_all(ORIGIN).iter();
        let origin = origins.next().filter(|_| origins.next().is_none());
        Cors {
            browsers: self.clone(),
            origin: origin.filter(|o| self.0.options.is_origin(o)).cloned(),
            is_get: request.method() == Method::GET,
        }
    }

    /// Answers the question of a browser whether it may send a request with these headers.
    pub(in super::super) fn preflight(&self, asked: &HeaderMap) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        let methods = match self.connect_get() {
            true => "POST, GET",
            false => "POST",
        };
        headers.insert(
            ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static(methods),
        );
        // Any metadata may be sent.
        if let Some(names) = asked.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
        }
        headers.insert(ACCESS_CONTROL_MAX_AGE, PREFLIGHT_MAX_AGE);
        response
    }
}

impl Cors {
    /// Adds the headers by which a browser lets the page read the response.
    pub(in super::super) fn add(&self, response: &mut Response<Body>) {
        let headers = response.headers_mut();
        if self.is_get {
            // What the credentials of one client may read is not for others.
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        if self.browsers.0.options.allowed_origins.is_empty() {
            return;
        }
        headers.append(VARY, HeaderValue::from_static("origin"));
        let Some(origin) = &self.origin else {
            return;
        };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        let exposed = self.browsers.0.exposed.clone();
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
}

impl WebOptions {
    fn is_origin(&self, origin: &HeaderValue) -> bool {
        let mut allowed = self.allowed_origins.iter();
        allowed.any(|allowed| allowed.as_bytes() == origin.as_bytes())
    }

    /// Returns whether a request may be for this host, with or without a port. A page cannot
    /// have an address as its host by DNS rebinding, nor `localhost`.
    fn is_host(&self, authority: &str) -> bool {
        let host = host_of(authority);
        let address = host.strip_prefix('[').and_then(|v6| v6.strip_suffix(']'));
        let is_address = address.unwrap_or(host).parse::<IpAddr>().is_ok();
        let is_local = host.eq_ignore_ascii_case("localhost");
        is_address
            || is_local
            || self.allowed_hosts.iter().any(|allowed| {
                allowed.eq_ignore_ascii_case(authority) || allowed.eq_ignore_ascii_case(host)
            })
    }
}

/// Returns the host that a request is for.
fn host<B>(request: &Request<B>) -> Option<&str> {
    match request.uri().authority() {
        Some(authority) => Some(authority.as_str()),
        None => request.headers().get(HOST)?.to_str().ok(),
    }
}

/// Returns the host without its port.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POST: Protocol = Protocol::Web(WebProtocol::Connect { json: true });
    const GET: Protocol = Protocol::Web(WebProtocol::ConnectGet);

    fn browsers(origins: &[&str], hosts: &[&str], connect_get: bool) -> Browsers {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Browsers::new(
            WebOptions {
                allowed_origins: texts(origins),
                allowed_hosts: texts(hosts),
                connect_get,
            },
            &BTreeSet::new(),
        )
    }

    fn check(
        browsers: &Browsers,
        protocol: Protocol,
        headers: &[(&str, &str)],
    ) -> Result<(), Rejection> {
        let mut request = Request::get("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        browsers.check(protocol, &request)
    }

    #[test]
    fn pages_are_allowed_by_origin() {
        const ORIGIN: Result<(), Rejection> = Err(Rejection::Origin);
        let none = browsers(&[], &[], false);
        let some = browsers(&["https://a.test", "http://b.test:81"], &[], false);
        for (headers, by_none, by_some) in [
            (&[("host", "127.0.0.1:1")][..], Ok(()), Ok(())),
            (
                &[("host", "127.0.0.1:1"), ("origin", "https://a.test")],
                ORIGIN,
                Ok(()),
            ),
            (
                &[("host", "localhost:1"), ("origin", "http://b.test:81")],
                ORIGIN,
                Ok(()),
            ),
            (
                &[("host", "[::1]:1"), ("origin", "http://a.test")],
                ORIGIN,
                ORIGIN,
            ),
            (
                &[("host", "[::1]"), ("origin", "https://a.test:443")],
                ORIGIN,
                ORIGIN,
            ),
            (
                &[("host", "[::1]"), ("origin", "https://a.test.evil")],
                ORIGIN,
                ORIGIN,
            ),
            (&[("host", "[::1]"), ("origin", "null")], ORIGIN, ORIGIN),
            (&[("host", "[::1]"), ("origin", "")], ORIGIN, ORIGIN),
        ] {
            assert_eq!(check(&none, POST, headers), by_none, "{headers:?}");
            assert_eq!(check(&some, POST, headers), by_some, "{headers:?}");
        }
    }

    #[test]
    fn host_names_are_checked_where_browsers_may_call() {
        const HOST: Result<(), Rejection> = Err(Rejection::Host);
        let off = browsers(&[], &["g.test"], false);
        let on = browsers(&["https://a.test"], &["G.test", "h.test:81"], false);
        let get = browsers(&[], &[], true);
        for (host, by_off, by_on, by_get) in [
            ("127.0.0.1:50051", Ok(()), Ok(()), Ok(())),
            ("10.0.0.1", Ok(()), Ok(()), Ok(())),
            ("[fe80::1]:50051", Ok(()), Ok(()), Ok(())),
            ("LOCALHOST:50051", Ok(()), Ok(()), Ok(())),
            ("g.test", Ok(()), Ok(()), HOST),
            ("g.TEST:443", Ok(()), Ok(()), HOST),
            ("h.test:81", Ok(()), Ok(()), HOST),
            ("h.test:82", Ok(()), HOST, HOST),
            ("evil.test", Ok(()), HOST, HOST),
            ("127.0.0.1.evil.test", Ok(()), HOST, HOST),
            ("localhost.evil.test", Ok(()), HOST, HOST),
            ("", Ok(()), HOST, HOST),
        ] {
            let headers = &[("host", host)];
            assert_eq!(check(&off, POST, headers), by_off, "{host}");
            assert_eq!(check(&on, POST, headers), by_on, "{host}");
            assert_eq!(check(&get, POST, headers), by_get, "{host}");
        }
        assert_eq!(check(&on, POST, &[]), HOST);
        // Over HTTP/2, the host is the authority.
        let request = |uri: &str| Request::post(uri).body(()).unwrap();
        let by_authority = |uri| on.check(POST, &request(uri));
        assert_eq!(by_authority("http://g.test:1/"), Ok(()));
        assert_eq!(by_authority("http://evil.test/"), HOST);
    }

    #[test]
    fn get_is_for_the_own_site_and_allowed_pages() {
        let browsers = browsers(&["https://a.test"], &[], true);
        for (headers, want) in [
            (&[][..], Ok(())),
            (&[("sec-fetch-site", "none")], Ok(())),
            (&[("sec-fetch-site", "same-origin")], Ok(())),
            (&[("sec-fetch-site", "same-site")], Err(Rejection::Origin)),
            (&[("sec-fetch-site", "cross-site")], Err(Rejection::Origin)),
            (&[("sec-fetch-site", "")], Err(Rejection::Origin)),
            (
                &[
                    ("sec-fetch-site", "cross-site"),
                    ("origin", "https://a.test"),
                ],
                Ok(()),
            ),
            (
                &[("sec-fetch-site", "none"), ("origin", "https://b.test")],
                Err(Rejection::Origin),
            ),
        ] {
            let headers = [&[("host", "127.0.0.1")], headers].concat();
            assert_eq!(check(&browsers, GET, &headers), want, "{headers:?}");
        }
        // A POST has an origin, or is not from a page.
        let headers = [("host", "127.0.0.1"), ("sec-fetch-site", "cross-site")];
        assert_eq!(check(&browsers, POST, &headers), Ok(()));
    }
}
