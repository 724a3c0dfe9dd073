//! A 404 that says nothing about the resource: an API gateway does not know the API, or a
//! proxy does not know the upstream. Read as NOT_FOUND it would make a delete succeed and end a
//! watch with DELETED.

use http::header::CONTENT_TYPE;

use crate::error::Fault;
use drawbridge_transcoder::call::Reply;

/// Codes of Huawei's and Open Telekom Cloud's API gateway.
/// Source: docs/apis/servicestage.md, "Codes".
const REASONS: &[&str] = &["APIGW.0101", "APIGW.0103"];

/// Messages of API gateways, in lower case. Sources: docs/apis/heat.md, "Body shapes"; Kong,
/// `kong/runloop/handler.lua`.
const GATEWAY_MESSAGES: &[&str] = &["api not found", "no route matched with those values"];

/// Messages of proxies, in lower case. Source: ingress-nginx, "Default backend".
const PROXY_MESSAGES: &[&str] = &["default backend - 404"];

/// Who does not know what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// An API gateway does not know the API.
    Gateway,
    /// A proxy does not know the upstream.
    Proxy,
}

impl Cause {
    /// Returns what to do.
    pub(super) fn hint(self) -> &'static str {
        match self {
            Self::Gateway => {
                "the upstream does not offer this operation: check the region and the endpoint \
                 in the gateway's configuration"
            }
            Self::Proxy => {
                "the response is not the API's, but a proxy's: check the endpoint in the \
                 gateway's configuration, and that the upstream is running"
            }
        }
    }
}

/// Parts of the 400 with which servers respond to plaintext HTTP at a TLS port, in lower case.
/// Sources: nginx, "497"; Apache, mod_ssl; Go, `net/http/server.go`; Jetty and Tomcat do not
/// respond so.
const PLAINTEXT_MESSAGES: &[&str] = &[
    "plain http request was sent to https port",
    "speaking plain http to an ssl-enabled server port",
    "client sent an http request to an https server",
];

/// Returns the hint for a response to plaintext HTTP at a TLS port: the request was not read.
pub(super) fn plaintext_hint(fault: &Fault) -> Option<&'static str> {
    let message = fault.message.to_ascii_lowercase();
    let is_plaintext =
        fault.http_status == 400 && PLAINTEXT_MESSAGES.iter().any(|part| message.contains(part));
    is_plaintext.then_some(
        "write https:// instead of http:// in the endpoint of the gateway's configuration",
    )
}

/// Returns the cause of a 404 that says nothing about the resource.
pub(super) fn cause(reply: &Reply, fault: &Fault) -> Option<Cause> {
    if !matches!(fault.http_status, 404 | 410) {
        return None;
    }
    let message = fault.message.trim().to_ascii_lowercase();
    let message = message.trim_end_matches(['.', '!']);
    if REASONS.contains(&&*fault.reason) || GATEWAY_MESSAGES.contains(&message) {
        Some(Cause::Gateway)
    } else if is_html(reply) || PROXY_MESSAGES.contains(&message) {
        Some(Cause::Proxy)
    } else {
        None
    }
}

/// Whether the body is a web page. No API describes its resources with one; the content type
/// alone proves nothing.
fn is_html(reply: &Reply) -> bool {
    let body = reply.body.trim_ascii_start();
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let begins = |tag: &[u8]| {
        body.get(..tag.len())
            .is_some_and(|begin| begin.eq_ignore_ascii_case(tag))
    };
    let is_declared = || {
        let content_type = reply.headers.get(CONTENT_TYPE);
        content_type.is_some_and(|value| value.as_bytes().starts_with(b"text/html"))
    };
    begins(b"<!doctype html")
        || begins(b"<html")
        || begins(b"<head")
        || begins(b"<body")
        || (body.first() == Some(&b'<') && is_declared())
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, StatusCode};

    use super::*;

    #[test]
    fn response_to_plaintext_at_a_tls_port_is_recognized() {
        for (status, message, want) in [
            (
                400,
                "400 The plain HTTP request was sent to HTTPS port nginx/1.24",
                true,
            ),
            (
                400,
                "Reason: You're speaking plain HTTP to an SSL-enabled server port.",
                true,
            ),
            (400, "Client sent an HTTP request to an HTTPS server.", true),
            (
                404,
                "Client sent an HTTP request to an HTTPS server.",
                false,
            ),
            (400, "Bad Request", false),
        ] {
            let fault = Fault {
                message: message.into(),
                ..crate::upstream::tests::fault(status)
            };
            assert_eq!(plaintext_hint(&fault).is_some(), want, "{message}");
        }
    }

    #[test]
    fn responses_of_gateways_and_proxies_are_recognized() {
        use Cause::{Gateway, Proxy};
        let html = Some("text/html; charset=utf-8");
        for (content_type, body, reason, message, want) in [
            (None, "{}", "APIGW.0101", "x", Some(Gateway)),
            (None, "{}", "APIGW.0103", "", Some(Gateway)),
            (None, "{}", "APIGW.0106", "", None),
            (None, "{}", "HTTP_404", "API not found", Some(Gateway)),
            (None, "{}", "HTTP_404", " API not found. ", Some(Gateway)),
            (
                None,
                "{}",
                "HTTP_404",
                "no Route matched with those values",
                Some(Gateway),
            ),
            (None, "{}", "HTTP_404", "The API not found by name x", None),
            (None, "{}", "EntityNotFound", "stack not found", None),
            (None, "", "HTTP_404", "", None),
            (html, "", "HTTP_404", "", None),
            (html, "{}", "HTTP_404", "", None),
            (html, "<h1>404</h1>", "HTTP_404", "404", Some(Proxy)),
            (None, "<h1>404</h1>", "HTTP_404", "404", None),
            (None, "\r\n<HTML><body>", "HTTP_404", "", Some(Proxy)),
            (None, "\u{feff}<!DOCTYPE html>", "HTTP_404", "", Some(Proxy)),
            (None, "<?xml version='1.0'?><Error/>", "HTTP_404", "", None),
            (
                None,
                "default backend - 404",
                "HTTP_404",
                "default backend - 404",
                Some(Proxy),
            ),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(value) = content_type {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(value));
            }
            let reply = Reply {
                status: StatusCode::NOT_FOUND,
                headers,
                body: bytes::Bytes::copy_from_slice(body.as_bytes()),
            };
            let fault = Fault {
                reason: reason.into(),
                message: message.into(),
                ..crate::upstream::tests::fault(404)
            };
            assert_eq!(cause(&reply, &fault), want, "{body} {reason} {message}");
        }
    }
}
