//! Responses to requests that are not calls of any protocol: a status and a line of text.

use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, UPGRADE};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};
use tonic::body::Body;

/// The content types that are accepted, in the header in which servers of Connect name them.
const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");
const ACCEPTED: HeaderValue = HeaderValue::from_static(
    "application/grpc, application/grpc+proto, application/grpc-web, application/grpc-web+proto, \
     application/grpc-web-text, application/grpc-web-text+proto, application/json, \
     application/proto, application/connect+json, application/connect+proto",
);

/// Why a request is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Rejection {
    /// The head is not valid HTTP, for this reason.
    Head(&'static str),
    /// The body has a transfer coding other than `chunked`.
    TransferCoding,
    /// gRPC over a version of HTTP that has no trailers.
    Version,
    /// Not a POST.
    Method,
    /// A GET of an rpc that may change something.
    NotARead,
    /// The content type is missing, duplicate, or not that of a protocol.
    ContentType,
    /// A streaming rpc with the content type of unary ones.
    Streaming,
    /// A unary rpc with the content type of streaming ones.
    Unary,
    /// A browser sends it for a page that is not allowed.
    Origin,
    /// It is for a host name that is not allowed.
    Host,
}

impl Rejection {
    /// Returns the response to a request with this method: a status and a text. The response
    /// to a HEAD has no text. Source: RFC 9110, "HEAD".
    pub(in super::super) fn response(self, method: &Method) -> Response<Body> {
        let (status, text) = match self {
            Self::Head(problem) => (StatusCode::BAD_REQUEST, problem),
            Self::TransferCoding => (
                StatusCode::NOT_IMPLEMENTED,
                "the only transfer-encoding is chunked; compress messages instead\n",
            ),
            Self::Version => (
                StatusCode::UPGRADE_REQUIRED,
                "gRPC needs HTTP/2; over HTTP/1.1 this port serves gRPC-Web and Connect\n",
            ),
            Self::Method => (
                StatusCode::METHOD_NOT_ALLOWED,
                "this port serves gRPC, gRPC-Web and Connect: a call is a POST to \
                 /package.Service/Method. Try\n\n  \
                 curl -H 'content-type: application/json' -d '{}' \
                 http://ADDRESS/drawbridge.v1.GatewayService/ListUpstreams\n",
            ),
            Self::NotARead => (
                StatusCode::METHOD_NOT_ALLOWED,
                "this rpc may change something, or is a stream: send a POST\n",
            ),
            Self::ContentType => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "this port serves gRPC (content-type application/grpc), gRPC-Web \
                 (application/grpc-web, application/grpc-web-text) and Connect \
                 (application/json, application/proto; of streams application/connect+json, \
                 application/connect+proto)\n",
            ),
            Self::Streaming => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "this rpc is a stream: with Connect, its content-type is application/connect+json \
                 or application/connect+proto\n",
            ),
            Self::Unary => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "this rpc is unary: with Connect, its content-type is application/json or \
                 application/proto\n",
            ),
            Self::Origin => (
                StatusCode::FORBIDDEN,
                "web pages of this origin may not call this gateway (setting \
                 listen.web.allowed_origins)\n",
            ),
            Self::Host => (
                StatusCode::MISDIRECTED_REQUEST,
                "this gateway is not called by this host name (setting \
                 listen.web.allowed_hosts)\n",
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
            Self::Method | Self::NotARead => {
                headers.insert(ALLOW, HeaderValue::from_static("POST"));
            }
            Self::ContentType | Self::Streaming | Self::Unary => {
                headers.insert(ACCEPT_POST, ACCEPTED);
            }
            Self::Head(_) | Self::TransferCoding | Self::Origin | Self::Host => {}
        }
        response
    }
}
