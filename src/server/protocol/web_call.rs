//! One call of gRPC-Web or Connect: its request becomes one of gRPC, and its response is
//! written in the protocol's form. Between the two it is served as a call of gRPC, so that
//! credentials, limits, deadlines and errors are the same.

use drawbridge_transcoder::call::Idempotency;
use drawbridge_transcoder::contract::Method;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use tonic::Code;
use tonic::body::Body;

use super::trailers::{Base64Body, EndForm, TrailersInBody};
use super::{Rejection, WebProtocol, connect, connect_get};
use crate::error::Error;
use crate::server::message_format::Encoding;
use crate::telemetry::RpcProtocol;

const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const CONNECT_TIMEOUT: HeaderName = HeaderName::from_static("connect-timeout-ms");
const CONNECT_VERSION: HeaderName = HeaderName::from_static("connect-protocol-version");
const STREAM_ENCODING: HeaderName = HeaderName::from_static("connect-content-encoding");
const STREAM_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("connect-accept-encoding");

/// The most digits of a timeout of Connect.
const MAX_TIMEOUT_DIGITS: usize = 10;

/// The largest number of a timeout of gRPC, which has at most 8 digits.
const MAX_GRPC_TIMEOUT: u64 = 99_999_999;

/// How the response to a call is written.
#[derive(Clone, Debug)]
pub(in super::super) struct WebCall {
    protocol: WebProtocol,
    /// Whether the messages are JSON.
    is_json: bool,
    /// Whether a response of gRPC-Web is in base64.
    is_text: bool,
}

impl WebCall {
    /// Makes a request of gRPC of one of this protocol, and returns how its messages are
    /// encoded. An error is to be written as the response to the call.
    pub(in super::super) fn begin(
        protocol: WebProtocol,
        request: Request<Body>,
    ) -> (Self, Request<Body>, Result<Encoding, Error>) {
        let mut call = Self {
            protocol,
            is_json: false,
            is_text: false,
        };
        let (mut parts, mut body) = request.into_parts();
        let headers = &mut parts.headers;
        let encoding = match protocol {
            WebProtocol::GrpcWeb { text } => {
                call.is_text = wants_text(headers).unwrap_or(text);
                if text {
                    body = Body::new(Base64Body::new(body));
                }
                Ok(Encoding::default())
            }
            WebProtocol::Connect { json } => {
                call.is_json = json;
                let accepts_gzip = accepts_gzip(headers, &ACCEPT_ENCODING);
                take_content_encoding(headers);
                connect_headers(headers).map(|()| Encoding {
                    is_bare: true,
                    is_json: json,
                    accepts_gzip,
                })
            }
            WebProtocol::ConnectStream { json } => {
                call.is_json = json;
                let accepts_gzip = accepts_gzip(headers, &STREAM_ACCEPT_ENCODING);
                rename(headers, &STREAM_ENCODING, GRPC_ENCODING);
                connect_headers(headers).map(|()| Encoding {
                    is_bare: false,
                    is_json: json,
                    accepts_gzip,
                })
            }
            WebProtocol::ConnectGet => {
                let accepts_gzip = accepts_gzip(headers, &ACCEPT_ENCODING);
                headers.remove(CONTENT_ENCODING);
                headers.remove(GRPC_ENCODING);
                let query = connect_get::read(parts.uri.query().unwrap_or_default());
                query.and_then(|query| {
                    call.is_json = query.is_json;
                    if let Some(compression) = query.compression {
                        headers.insert(GRPC_ENCODING, compression);
                    }
                    body = Body::new(http_body_util::Full::from(query.message));
                    connect_headers(headers).map(|()| Encoding {
                        is_bare: true,
                        is_json: call.is_json,
                        accepts_gzip,
                    })
                })
            }
        };
        (call, Request::from_parts(parts, body), encoding)
    }

    /// Returns the protocol as the log and the metrics name it.
    pub(in super::super) fn rpc_protocol(&self) -> RpcProtocol {
        self.protocol.rpc_protocol()
    }

    /// Checks whether the protocol serves such an rpc: Connect has other content types for
    /// streams than for unary rpcs.
    pub(in super::super) fn check_kind(&self, method: &Method) -> Result<(), Rejection> {
        let is_unary = !method.is_stream() && method.upload.is_none();
        let is_read = method.idempotency == Idempotency::NoSideEffects;
        self.check(is_unary, is_read)
    }

    /// As [`Self::check_kind`], for an rpc that tonic serves.
    pub(in super::super) fn check_own_kind(&self, own: &str) -> Result<(), Rejection> {
        let is_unary = own.ends_with("/Check") || own.ends_with("/ListUpstreams");
        self.check(is_unary, true)
    }

    fn check(&self, is_unary: bool, is_read: bool) -> Result<(), Rejection> {
        match self.protocol {
            WebProtocol::ConnectGet if !is_unary || !is_read => Err(Rejection::NotARead),
            WebProtocol::Connect { .. } if !is_unary => Err(Rejection::Streaming),
            WebProtocol::ConnectStream { .. } if is_unary => Err(Rejection::Unary),
            _ => Ok(()),
        }
    }

    /// Writes a response of gRPC in the form of the protocol.
    pub(in super::super) fn respond(&self, response: Response<Body>) -> Response<Body> {
        // The request was not a call.
        if response.status() != StatusCode::OK {
            return response;
        }
        let (mut parts, body) = response.into_parts();
        let headers = &mut parts.headers;
        let has_status = headers.contains_key("grpc-status");
        let (content_type, body) = match self.protocol {
            WebProtocol::GrpcWeb { .. } => {
                let content_type = match self.is_text {
                    true => "application/grpc-web-text+proto",
                    false => "application/grpc-web+proto",
                };
                let body = match has_status {
                    // Headers only, with the status.
                    true => body,
                    false => Body::new(TrailersInBody::new(
                        body,
                        EndForm::GrpcWeb { text: self.is_text },
                    )),
                };
                (content_type, body)
            }
            WebProtocol::ConnectStream { .. } => {
                rename(headers, &GRPC_ENCODING, STREAM_ENCODING);
                rename(headers, &GRPC_ACCEPT_ENCODING, STREAM_ACCEPT_ENCODING);
                let content_type = match self.is_json {
                    true => "application/connect+json",
                    false => "application/connect+proto",
                };
                let body = match has_status {
                    true => {
                        let end = connect::end_of_stream(&connect::take_status(headers));
                        Body::new(http_body_util::Full::from(end))
                    }
                    false => Body::new(TrailersInBody::new(body, EndForm::Connect)),
                };
                (content_type, body)
            }
            WebProtocol::Connect { .. } | WebProtocol::ConnectGet => {
                rename(headers, &GRPC_ENCODING, CONTENT_ENCODING);
                rename(headers, &GRPC_ACCEPT_ENCODING, ACCEPT_ENCODING);
                if has_status {
                    let (status, json) = connect::unary_error(&connect::take_status(headers));
                    parts.status = status;
                    let headers = &mut parts.headers;
                    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                    headers.remove(CONTENT_ENCODING);
                    let body = Body::new(http_body_util::Full::from(json));
                    return Response::from_parts(parts, body);
                }
                match self.is_json {
                    true => ("application/json", body),
                    false => ("application/proto", body),
                }
            }
        };
        let headers = &mut parts.headers;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        Response::from_parts(parts, body)
    }
}

/// Returns whether the client accepts responses of gRPC-Web in base64, if it says so.
fn wants_text(headers: &HeaderMap) -> Option<bool> {
    let accepted = headers.get(ACCEPT)?.to_str().ok()?.to_ascii_lowercase();
    let mut types = accepted.split(',').map(str::trim);
    let first = types.find(|accepted| accepted.starts_with("application/grpc-web"))?;
    Some(first.starts_with("application/grpc-web-text"))
}

/// Returns whether the client accepts gzip, if the header is there.
fn accepts_gzip(headers: &HeaderMap, name: &HeaderName) -> Option<bool> {
    if !headers.contains_key(name) {
        return None;
    }
    let values = headers.get_all(name).iter();
    let codings = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    let mut accepted = false;
    for coding in codings {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts
            .next()
            .is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        // Source: RFC 9110, "Quality Values".
        let is_refused = parts.any(|parameter| {
            let weight = parameter.strip_prefix("q=");
            weight.is_some_and(|weight| weight.parse() == Ok(0.0_f32))
        });
        accepted |= is_gzip && !is_refused;
    }
    Some(accepted)
}

/// Renames a header. One with the new name is replaced.
fn rename(headers: &mut HeaderMap, from: &HeaderName, to: HeaderName) {
    headers.remove(&to);
    if let Some(value) = headers.remove(from) {
        headers.insert(to, value);
    }
}

/// Makes `grpc-encoding` of the codings of a body of HTTP, whose names have no case. Source: RFC
/// 9110, "Content Codings".
fn take_content_encoding(headers: &mut HeaderMap) {
    headers.remove(&GRPC_ENCODING);
    let values = headers.get_all(CONTENT_ENCODING).iter();
    let all: Vec<&[u8]> = values.map(HeaderValue::as_bytes).collect();
    let coding = match &all[..] {
        [] => return,
        [only] if only.eq_ignore_ascii_case(b"gzip") || only.eq_ignore_ascii_case(b"x-gzip") => {
            Ok(HeaderValue::from_static("gzip"))
        }
        // Several are as one header with a list: not supported.
        several => HeaderValue::from_bytes(&several.join(&b", "[..])),
    };
    if let Ok(coding) = coding {
        headers.insert(GRPC_ENCODING, coding);
    }
    headers.remove(CONTENT_ENCODING);
}

/// Removes a header that a request has at most once.
fn take_only(headers: &mut HeaderMap, name: &HeaderName) -> Result<Option<HeaderValue>, Error> {
    let is_repeated = headers.get_all(name).iter().nth(1).is_some();
    let value = headers.remove(name);
    match is_repeated {
        true => Err(invalid(format!("the header `{name}` is there twice"))),
        false => Ok(value),
    }
}

fn invalid(problem: impl Into<String>) -> Error {
    Error::RequestNotReceived {
        code: Code::InvalidArgument,
        problem: problem.into(),
    }
}

/// Reads the version and the timeout of Connect, and writes the timeout as one of gRPC.
fn connect_headers(headers: &mut HeaderMap) -> Result<(), Error> {
    headers.remove(&GRPC_TIMEOUT);
    if let Some(version) = take_only(headers, &CONNECT_VERSION)?
        && version != "1"
    {
        return Err(invalid("the header `connect-protocol-version` is not 1"));
    }
    let Some(timeout) = take_only(headers, &CONNECT_TIMEOUT)? else {
        return Ok(());
    };
    let digits = timeout.to_str().ok().filter(|text| {
        let is_digit = |byte: u8| byte.is_ascii_digit();
        text.len() <= MAX_TIMEOUT_DIGITS && text.bytes().all(is_digit)
    });
    let Some(millis) = digits.and_then(|text| text.parse::<u64>().ok()) else {
        return Err(invalid(
            "the header `connect-timeout-ms` is not valid: it has 1 to 10 digits, of milliseconds",
        ));
    };
    let value = match millis <= MAX_GRPC_TIMEOUT {
        true => format!("{millis}m"),
        false => format!("{}S", millis / 1_000),
    };
    if let Ok(value) = HeaderValue::from_str(&value) {
        headers.insert(GRPC_TIMEOUT, value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(entries: &[(&'static str, &'static str)]) -> HeaderMap {
        let entry = |(name, value): &(&'static str, &'static str)| {
            let value = HeaderValue::from_static(value);
            (HeaderName::from_static(name), value)
        };
        entries.iter().map(entry).collect()
    }

    #[test]
    fn timeout_of_connect_is_one_of_grpc() {
        for (timeout, want) in [
            ("5000", Ok("5000m")),
            ("0", Ok("0m")),
            ("99999999", Ok("99999999m")),
            ("100000000", Ok("100000S")),
            ("9999999999", Ok("9999999S")),
            ("10000000000", Err(())),
            ("", Err(())),
            ("-1", Err(())),
            ("1.5", Err(())),
            ("5S", Err(())),
        ] {
            // That of gRPC is not one of Connect.
            let mut headers = headers(&[("connect-timeout-ms", timeout), ("grpc-timeout", "1H")]);
            let read = connect_headers(&mut headers).map_err(|error| {
                assert_eq!(error.code(), Code::InvalidArgument);
            });
            let got = read.map(|()| headers["grpc-timeout"].to_str().unwrap());
            assert_eq!(got, want, "{timeout:?}");
        }
        let mut without = headers(&[("grpc-timeout", "1H"), ("connect-protocol-version", "1")]);
        connect_headers(&mut without).unwrap();
        assert!(without.is_empty(), "{without:?}");
        assert!(connect_headers(&mut headers(&[("connect-protocol-version", "2")])).is_err());
        for twice in [
            [("connect-timeout-ms", "5"), ("connect-timeout-ms", "500")],
            [
                ("connect-protocol-version", "1"),
                ("connect-protocol-version", "1"),
            ],
        ] {
            let error = connect_headers(&mut headers(&twice)).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{twice:?}");
        }
    }

    #[test]
    fn coding_of_a_body_has_no_case() {
        for (codings, want) in [
            (&[][..], None),
            (&["gzip"], Some("gzip")),
            (&["GZip"], Some("gzip")),
            (&["x-gzip"], Some("gzip")),
            (&["identity"], Some("identity")),
            (&["br"], Some("br")),
            (&["gzip", "gzip"], Some("gzip, gzip")),
        ] {
            let all = codings.iter().map(|coding| ("content-encoding", *coding));
            let all: Vec<_> = all.chain([("grpc-encoding", "zstd")]).collect();
            let mut headers = headers(&all);
            take_content_encoding(&mut headers);
            let got = headers.get("grpc-encoding").map(|v| v.to_str().unwrap());
            assert_eq!(got, want, "{codings:?}");
            assert!(!headers.contains_key("content-encoding"));
        }
    }

    #[test]
    fn gzip_is_accepted_by_name() {
        for (value, want) in [
            (None, None),
            (Some(""), Some(false)),
            (Some("identity"), Some(false)),
            (Some("br, gzip"), Some(true)),
            (Some("GZIP;q=0.5"), Some(true)),
            (Some("gzip;q=0"), Some(false)),
            (Some("gzip; q=0.0, br"), Some(false)),
            (Some("xgzip"), Some(false)),
        ] {
            let headers = match value {
                None => HeaderMap::new(),
                Some(value) => headers(&[("accept-encoding", value)]),
            };
            assert_eq!(accepts_gzip(&headers, &ACCEPT_ENCODING), want, "{value:?}");
        }
    }

    #[test]
    fn response_of_grpc_web_is_text_where_it_is_accepted() {
        for (accept, want) in [
            (None, None),
            (Some("*/*"), None),
            (Some("application/grpc-web-text"), Some(true)),
            (Some("application/grpc-web+proto"), Some(false)),
            (
                Some("text/html, Application/gRPC-web-text+proto"),
                Some(true),
            ),
        ] {
            let headers = match accept {
                None => HeaderMap::new(),
                Some(value) => headers(&[("accept", value)]),
            };
            assert_eq!(wants_text(&headers), want, "{accept:?}");
        }
    }
}
