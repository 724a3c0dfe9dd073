//! Rejects heads of requests that two programs can read in different ways, such as a proxy and
//! the gateway. hyper leaves these checks to its users.

use http::header::{HOST, TRANSFER_ENCODING};
use http::uri::Authority;
use http::{HeaderValue, Request, Version};

use super::Rejection;

const NO_HOST: Rejection = Rejection::Head("a request of HTTP/1.1 has the header host\n");
const TWO_HOSTS: Rejection = Rejection::Head("the request has more than one header host\n");
const INVALID_HOST: Rejection =
    Rejection::Head("the header host is not the name or the address of a host, with its port\n");
const OTHER_HOST: Rejection =
    Rejection::Head("the header host differs from the host of the request's URL\n");

/// Checks the host and the transfer coding of a request. Sources: RFC 9112, "Request Target" and
/// "Transfer-Encoding"; of HTTP/2, where `:authority` replaces the host, gRPC A41.
pub(in super::super) fn check_head<B>(request: &Request<B>) -> Result<(), Rejection> {
    let headers = request.headers();
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(TWO_HOSTS);
    }
    let target = request.uri();
    if request.version() >= Version::HTTP_2 {
        return match host {
            Some(host) if target.authority().is_none() => authority(host).map(drop),
            _ => Ok(()),
        };
    }
    match host {
        None if request.version() == Version::HTTP_11 => return Err(NO_HOST),
        None => {}
        Some(host) => {
            let host = authority(host)?;
            let default_port = match target.scheme_str() {
                Some("https") => 443,
                _ => 80,
            };
            let parts = |of: &Authority| {
                let port = of.port_u16().unwrap_or(default_port);
                (of.host().to_ascii_lowercase(), port)
            };
            let is_other = |target: &Authority| parts(target) != parts(&host);
            if target.authority().is_some_and(is_other) {
                return Err(OTHER_HOST);
            }
        }
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(only), None) if only.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Rejection::TransferCoding),
    }
}

/// Reads a host with an optional port.
fn authority(host: &HeaderValue) -> Result<Authority, Rejection> {
    let authority = Authority::try_from(host.as_bytes()).map_err(|_| INVALID_HOST)?;
    // What the type allows in addition: a user, and a port that is not a number.
    let port = authority.as_str().strip_prefix(authority.host());
    let is_port = |port: &str| match port.strip_prefix(':') {
        Some(number) => number.is_empty() || number.parse::<u16>().is_ok(),
        None => port.is_empty(),
    };
    match !authority.host().is_empty() && port.is_some_and(is_port) {
        true => Ok(authority),
        false => Err(INVALID_HOST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: Result<(), Rejection> = Ok(());

    fn check(
        version: Version,
        target: &str,
        headers: &[(&'static str, &'static str)],
    ) -> Result<(), Rejection> {
        let mut request = Request::post(target).version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        check_head(&request.body(()).unwrap())
    }

    #[test]
    fn request_is_for_one_host() {
        let (no, two, invalid, other) = (
            Err(NO_HOST),
            Err(TWO_HOSTS),
            Err(INVALID_HOST),
            Err(OTHER_HOST),
        );
        for (target, hosts, by_10, by_11, by_2) in [
            ("/s/M", &[][..], OK, no, OK),
            ("/s/M", &["a.test"], OK, OK, OK),
            ("/s/M", &["a.test", "b.test"], two, two, two),
            ("/s/M", &["a.test", "a.test"], two, two, two),
            ("/s/M", &["a_b:80"], OK, OK, OK),
            ("/s/M", &["A.test:"], OK, OK, OK),
            ("/s/M", &["[::1]:80"], OK, OK, OK),
            ("/s/M", &[""], invalid, invalid, invalid),
            ("/s/M", &["a b"], invalid, invalid, invalid),
            ("/s/M", &["a.test/x"], invalid, invalid, invalid),
            ("/s/M", &["a.test, b.test"], invalid, invalid, invalid),
            ("/s/M", &["user@a.test"], invalid, invalid, invalid),
            ("/s/M", &["a.test:x"], invalid, invalid, invalid),
            ("/s/M", &["a.test:65536"], invalid, invalid, invalid),
            ("/s/M", &[":80"], invalid, invalid, invalid),
            ("http://a.test/s/M", &["a.test"], OK, OK, OK),
            ("http://A.test:80/s/M", &["a.TEST"], OK, OK, OK),
            ("https://a.test/s/M", &["a.test:443"], OK, OK, OK),
            ("http://a.test/s/M", &["b.test"], other, other, OK),
            ("http://a.test/s/M", &["a.test:81"], other, other, OK),
            ("http://a.test:81/s/M", &["a.test"], other, other, OK),
            ("http://a.test/s/M", &[], OK, no, OK),
            ("http://a.test/s/M", &["a b"], invalid, invalid, OK),
        ] {
            let headers: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
            for (version, want) in [
                (Version::HTTP_10, by_10),
                (Version::HTTP_11, by_11),
                (Version::HTTP_2, by_2),
            ] {
                let got = check(version, target, &headers);
                assert_eq!(got, want, "{target} {hosts:?} {version:?}");
            }
        }
    }

    #[test]
    fn chunked_is_the_only_transfer_coding() {
        const CODING: Result<(), Rejection> = Err(Rejection::TransferCoding);
        for (codings, want) in [
            (&["chunked"][..], OK),
            (&["Chunked"], OK),
            (&["gzip, chunked"], CODING),
            (&["gzip", "chunked"], CODING),
            (&["gzip"], CODING),
            (&["chunked", "chunked"], CODING),
        ] {
            let codings = codings.iter().map(|coding| ("transfer-encoding", *coding));
            let headers: Vec<_> = [("host", "a.test")].into_iter().chain(codings).collect();
            let got = check(Version::HTTP_11, "/s/M", &headers);
            assert_eq!(got, want, "{headers:?}");
        }
    }
}
