//! Chooses the protocol of a request by its method, content type and version of HTTP: gRPC,
//! gRPC-Web or Connect. Anything else gets a readable 4xx before credentials or a body are
//! read. A web page of another origin cannot make a browser send one of these content types
//! unless `browsers` allows it.

mod browsers;
mod connect;
mod connect_get;
mod head;
mod own_response;
mod rejection;
mod trailers;
mod web_call;

use http::header::{ACCESS_CONTROL_REQUEST_METHOD, CONTENT_TYPE, ORIGIN};
use http::{HeaderMap, Method, Request, Version};

pub(super) use self::browsers::{Browsers, Cors};
pub(super) use self::head::check_head;
pub(super) use self::own_response::{OwnRequest, own_response};
pub(super) use self::rejection::Rejection;
pub(super) use self::web_call::WebCall;
use crate::telemetry::RpcProtocol;

/// The protocol of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// gRPC over HTTP/2.
    Grpc,
    Web(WebProtocol),
    /// The question of a browser whether it may send a request.
    Preflight,
}

/// A protocol that needs neither HTTP/2 nor trailers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WebProtocol {
    /// gRPC-Web; `text` is in base64.
    GrpcWeb { text: bool },
    /// A unary rpc of Connect.
    Connect { json: bool },
    /// A streaming rpc of Connect.
    ConnectStream { json: bool },
    /// A unary rpc of Connect whose message is in the query.
    ConnectGet,
}

impl WebProtocol {
    /// Returns the protocol as the log and the metrics name it.
    fn rpc_protocol(self) -> RpcProtocol {
        match self {
            Self::GrpcWeb { .. } => RpcProtocol::GrpcWeb,
            Self::Connect { .. } | Self::ConnectStream { .. } | Self::ConnectGet => {
                RpcProtocol::Connect
            }
        }
    }
}

use WebProtocol::{Connect, ConnectStream, GrpcWeb};

/// The content types of the protocols; parameters may follow. Sources: gRPC over HTTP/2,
/// "Content-Type"; gRPC-Web, "Protocol differences"; Connect protocol.
const CONTENT_TYPES: [(&str, Protocol); 10] = [
    ("application/grpc", Protocol::Grpc),
    ("application/grpc+proto", Protocol::Grpc),
    ("application/json", Protocol::Web(Connect { json: true })),
    ("application/proto", Protocol::Web(Connect { json: false })),
    (
        "application/connect+json",
        Protocol::Web(ConnectStream { json: true }),
    ),
    (
        "application/connect+proto",
        Protocol::Web(ConnectStream { json: false }),
    ),
    (
        "application/grpc-web",
        Protocol::Web(GrpcWeb { text: false }),
    ),
    (
        "application/grpc-web+proto",
        Protocol::Web(GrpcWeb { text: false }),
    ),
    (
        "application/grpc-web-text",
        Protocol::Web(GrpcWeb { text: true }),
    ),
    (
        "application/grpc-web-text+proto",
        Protocol::Web(GrpcWeb { text: true }),
    ),
];

/// Reads the head of a request. `connect_get` says whether GET is served.
pub(super) fn choose<B>(request: &Request<B>, connect_get: bool) -> Result<Protocol, Rejection> {
    let headers = request.headers();
    match *request.method() {
        Method::POST => {}
        Method::GET if connect_get && is_connect_get(request) => {
            return Ok(Protocol::Web(WebProtocol::ConnectGet));
        }
        Method::OPTIONS
            if headers.contains_key(ORIGIN)
                && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) =>
        {
            return Ok(Protocol::Preflight);
        }
        _ => return Err(Rejection::Method),
    }
    match of_content_type(headers).ok_or(Rejection::ContentType)? {
        Protocol::Grpc if request.version() != Version::HTTP_2 => Err(Rejection::Version),
        protocol => Ok(protocol),
    }
}

fn of_content_type(headers: &HeaderMap) -> Option<Protocol> {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(only), None) = (types.next(), types.next()) else {
        return None;
    };
    if only.as_bytes() == b"application/grpc" {
        return Some(Protocol::Grpc);
    }
    let text = only.to_str().ok()?;
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    let mut known = CONTENT_TYPES.into_iter();
    let (_, protocol) = known.find(|(known, _)| essence.eq_ignore_ascii_case(known))?;
    // JSON is UTF-8.
    let other_charset = parts.any(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or_default();
        name.eq_ignore_ascii_case("charset")
            && !value.trim_matches('"').eq_ignore_ascii_case("utf-8")
    });
    match protocol {
        Protocol::Web(_) if other_charset => None,
        protocol => Some(protocol),
    }
}

/// Returns whether the query is that of Connect. Source: Connect protocol, "Unary-Get-Request".
fn is_connect_get<B>(request: &Request<B>) -> bool {
    let query = request.uri().query().unwrap_or_default();
    query
        .split('&')
        .any(|parameter| parameter.starts_with("encoding="))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRPC: Result<Protocol, Rejection> = Ok(Protocol::Grpc);
    const METHOD: Result<Protocol, Rejection> = Err(Rejection::Method);
    const TYPE: Result<Protocol, Rejection> = Err(Rejection::ContentType);

    #[test]
    fn protocol_is_that_of_the_content_type() {
        let web = |protocol| Ok(Protocol::Web(protocol));
        for (method, types, want) in [
            ("POST", &["application/grpc"][..], GRPC),
            ("POST", &["application/grpc+proto"], GRPC),
            ("POST", &["APPLICATION/gRPC"], GRPC),
            ("POST", &["application/grpc; charset=utf-8"], GRPC),
            ("POST", &["application/grpc+proto ;x=y"], GRPC),
            (
                "POST",
                &["application/grpc-web"],
                web(GrpcWeb { text: false }),
            ),
            (
                "POST",
                &["application/grpc-web+proto"],
                web(GrpcWeb { text: false }),
            ),
            (
                "POST",
                &["application/grpc-web-text"],
                web(GrpcWeb { text: true }),
            ),
            ("POST", &["application/json"], web(Connect { json: true })),
            (
                "POST",
                &["application/json; charset=UTF-8"],
                web(Connect { json: true }),
            ),
            ("POST", &["application/proto"], web(Connect { json: false })),
            (
                "POST",
                &["application/connect+json"],
                web(ConnectStream { json: true }),
            ),
            (
                "POST",
                &["application/connect+proto"],
                web(ConnectStream { json: false }),
            ),
            ("POST", &["application/json; charset=latin1"], TYPE),
            ("GET", &["application/grpc"], METHOD),
            ("GET", &["application/json"], METHOD),
            ("PUT", &["application/grpc"], METHOD),
            ("PUT", &["application/json"], METHOD),
            ("OPTIONS", &[], METHOD),
            ("HEAD", &["application/grpc"], METHOD),
            ("POST", &[], TYPE),
            ("POST", &[""], TYPE),
            ("POST", &["text/plain"], TYPE),
            ("POST", &["application/x-www-form-urlencoded"], TYPE),
            ("POST", &["multipart/form-data; boundary=x"], TYPE),
            ("POST", &["application/grpc+json"], TYPE),
            ("POST", &["application/grpc-web+json"], TYPE),
            ("POST", &["application/connect"], TYPE),
            ("POST", &["text/plain; application/grpc"], TYPE),
            ("POST", &["text/plain; application/json"], TYPE),
            ("POST", &["application/grpc", "text/plain"], TYPE),
            ("POST", &["application/json", "text/plain"], TYPE),
        ] {
            let request = |version| {
                let mut request = Request::builder().method(method).version(version);
                for content_type in types {
                    request = request.header(CONTENT_TYPE, *content_type);
                }
                request.body(()).unwrap()
            };
            let got = choose(&request(Version::HTTP_2), true);
            assert_eq!(got, want, "{method} {types:?}");
            for version in [Version::HTTP_10, Version::HTTP_11] {
                let want = match want {
                    GRPC => Err(Rejection::Version),
                    want => want,
                };
                assert_eq!(choose(&request(version), true), want, "{method} {types:?}");
            }
        }
    }

    #[test]
    fn get_is_that_of_connect_where_it_is_on() {
        for (path, connect_get, want) in [
            ("/s/M?encoding=json&message=%7B%7D", true, true),
            ("/s/M?connect=v1&encoding=proto&message=", true, true),
            ("/s/M?encoding=json&message=%7B%7D", false, false),
            ("/s/M", true, false),
            ("/", true, false),
        ] {
            let request = Request::get(path).body(()).unwrap();
            let want = match want {
                true => Ok(Protocol::Web(WebProtocol::ConnectGet)),
                false => METHOD,
            };
            assert_eq!(choose(&request, connect_get), want, "{path}");
        }
    }

    #[test]
    fn preflight_has_an_origin_and_a_method() {
        for (names, want) in [
            (
                &["origin", "access-control-request-method"][..],
                Ok(Protocol::Preflight),
            ),
            (&["origin"], METHOD),
            (&["access-control-request-method"], METHOD),
        ] {
            let mut request = Request::options("/");
            for name in names {
                request = request.header(*name, "x");
            }
            assert_eq!(choose(&request.body(()).unwrap(), false), want, "{names:?}");
        }
    }
}
