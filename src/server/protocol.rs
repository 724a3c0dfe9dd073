//! Rejects requests that are not gRPC over HTTP/2: another version, method or content type.
//! They get a readable 4xx before credentials or a body are read, so that a web page of
//! another origin cannot make a browser send a call.

use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, UPGRADE};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use tonic::body::Body;

/// The content types that are accepted; parameters may follow. Source: gRPC over HTTP/2,
/// "Content-Type".
const CONTENT_TYPES: [&str; 2] = ["application/grpc", "application/grpc+proto"];

/// Why a request is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rejection {
    /// Not HTTP/2.
    Version,
    /// Not a POST.
    Method,
    /// The content type is missing, duplicate, or not one of gRPC.
    ContentType,
}

/// Checks the head of a request.
pub(super) fn check<B>(request: &Request<B>) -> Result<(), Rejection> {
    if request.version() != Version::HTTP_2 {
        return Err(Rejection::Version);
    }
    if request.method() != Method::POST {
        return Err(Rejection::Method);
    }
    let mut types = request.headers().get_all(CONTENT_TYPE).iter();
    match (types.next(), types.next()) {
        (Some(only), None) if is_grpc(only) => Ok(()),
        _ => Err(Rejection::ContentType),
    }
}

fn is_grpc(content_type: &HeaderValue) -> bool {
    let Ok(text) = content_type.to_str() else {
        return false;
    };
    let essence = text.split(';').next().unwrap_or_default().trim();
    CONTENT_TYPES
        .iter()
        .any(|known| essence.eq_ignore_ascii_case(known))
}

impl Rejection {
    /// Returns the response to a request with this method: a status and a text. The response
    /// to a HEAD has no text. Source: RFC 9110, "HEAD".
    pub(super) fn response(self, method: &Method) -> Response<Body> {
        let (status, text) = match self {
            Self::Version => (
                StatusCode::UPGRADE_REQUIRED,
                "this port speaks gRPC over HTTP/2 only\n",
            ),
            Self::Method => (
                StatusCode::METHOD_NOT_ALLOWED,
                "this port speaks gRPC: every request is a POST\n",
            ),
            Self::ContentType => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "this port speaks gRPC: the content-type is application/grpc\n",
            ),
        };
        let mut response = Response::new(match *method {
            Method::HEAD => Body::empty(),
            _ => Body::new(http_body_util::Full::from(text)),
        });
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        match self {
            Self::Version => {
                headers.insert(UPGRADE, HeaderValue::from_static("HTTP/2.0"));
                headers.insert(CONNECTION, HeaderValue::from_static("upgrade, close"));
            }
            Self::Method => {
                headers.insert(ALLOW, HeaderValue::from_static("POST"));
            }
            Self::ContentType => {}
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_grpc_requests_are_accepted() {
        let cases: [(&str, &[&str], Result<(), Rejection>); 17] = [
            ("POST", &["application/grpc"], Ok(())),
            ("POST", &["application/grpc+proto"], Ok(())),
            ("POST", &["APPLICATION/gRPC"], Ok(())),
            ("POST", &["application/grpc; charset=utf-8"], Ok(())),
            ("POST", &["application/grpc+proto ;x=y"], Ok(())),
            ("GET", &["application/grpc"], Err(Rejection::Method)),
            ("PUT", &["application/grpc"], Err(Rejection::Method)),
            ("OPTIONS", &[], Err(Rejection::Method)),
            ("HEAD", &["application/grpc"], Err(Rejection::Method)),
            ("POST", &[], Err(Rejection::ContentType)),
            ("POST", &[""], Err(Rejection::ContentType)),
            ("POST", &["text/plain"], Err(Rejection::ContentType)),
            ("POST", &["application/json"], Err(Rejection::ContentType)),
            (
                "POST",
                &["application/grpc-web"],
                Err(Rejection::ContentType),
            ),
            (
                "POST",
                &["application/grpc+json"],
                Err(Rejection::ContentType),
            ),
            (
                "POST",
                &["text/plain; application/grpc"],
                Err(Rejection::ContentType),
            ),
            (
                "POST",
                &["application/grpc", "text/plain"],
                Err(Rejection::ContentType),
            ),
        ];
        for (method, types, want) in cases {
            let mut request = Request::builder().method(method).version(Version::HTTP_2);
            for content_type in types {
                request = request.header(CONTENT_TYPE, *content_type);
            }
            let request = request.body(()).unwrap();
            assert_eq!(check(&request), want, "{method} {types:?}");
        }
    }

    #[test]
    fn http_1_is_always_rejected() {
        for version in [Version::HTTP_10, Version::HTTP_11] {
            let request = Request::post("/")
                .version(version)
                .header(CONTENT_TYPE, "application/grpc")
                .body(())
                .unwrap();
            assert_eq!(check(&request), Err(Rejection::Version));
        }
    }
}
