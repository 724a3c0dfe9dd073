//! What web pages may call: origins, hosts, preflights and GET.

use serde_json::{Value, json};

use crate::support::recorder::{Answer, Recorder};
use crate::support::web::{Response, VERSIONS, Version, send};
use crate::support::{Gateway, settings, upstream};

const GET: &str = "/openstack.orchestration.v1.StackService/GetStack";
const DELETE: &str = "/openstack.orchestration.v1.StackService/DeleteStack";
const APP: &str = "https://ops.example.com";
const JSON: (&str, &str) = ("content-type", "application/json");

/// A gateway that allows the pages of [`APP`], or none, to an upstream with one stack.
async fn gateway(is_allowed: bool, connect_get: bool) -> (Recorder, Gateway) {
    let recorder = Recorder::fixed(Answer::json(
        200,
        &json!({"stack": {"id": "s1", "stack_name": "shop", "stack_status": "CREATE_COMPLETE"}}),
    ))
    .await;
    let mut config = settings(vec![upstream("u", "heat", &recorder.url())]);
    if is_allowed {
        config.web.allowed_origins = vec![APP.to_owned()];
        config.web.allowed_hosts = vec!["gateway.example.com".to_owned()];
    }
    config.web.connect_get = connect_get;
    (recorder, Gateway::start(config).await)
}

async fn post(
    gateway: &Gateway,
    version: Version,
    path: &str,
    headers: &[(&str, &str)],
    body: Value,
) -> Response {
    let address = gateway.running.grpc;
    send(address, version, "POST", path, headers, body.to_string()).await
}

#[tokio::test]
async fn pages_call_from_allowed_origins_only() {
    let request = json!({"stack_name": "shop", "stack_id": "s1"});
    for is_allowed in [false, true] {
        let (recorder, gateway) = gateway(is_allowed, false).await;
        for version in VERSIONS {
            // Clients other than browsers.
            let plain = post(&gateway, version, GET, &[JSON], request.clone()).await;
            assert_eq!(plain.status, 200, "{}", plain.text());
            assert_eq!(plain.header("vary"), if is_allowed { "origin" } else { "" });
            assert!(!plain.headers.contains_key("access-control-allow-origin"));
            recorder.take();

            for origin in [
                "https://evil.example.com",
                "null",
                "https://ops.example.com:8443",
            ] {
                let headers = [JSON, ("origin", origin)];
                let response = post(&gateway, version, GET, &headers, request.clone()).await;
                assert_eq!(response.status, 403, "{origin}");
                assert!(response.text().contains("listen.web.allowed_origins"));
                assert!(!response.headers.contains_key("access-control-allow-origin"));
            }
            assert!(recorder.take().is_empty());

            let headers = [JSON, ("origin", APP), ("sec-fetch-site", "cross-site")];
            let response = post(&gateway, version, GET, &headers, request.clone()).await;
            assert_eq!(response.status == 200, is_allowed, "{}", response.text());
            assert_eq!(recorder.take().len(), usize::from(is_allowed));
            if !is_allowed {
                continue;
            }
            // Errors can be read, too, and their headers.
            let wrong = post(&gateway, version, "/no.Such/Rpc", &headers, json!({})).await;
            for response in [response, wrong] {
                assert_eq!(response.header("access-control-allow-origin"), APP);
                let exposed = response.header("access-control-expose-headers");
                for name in [
                    "grpc-status",
                    "grpc-message",
                    "grpc-status-details-bin",
                    "x-request-id",
                    "x-openstack-request-id",
                ] {
                    assert!(exposed.split(", ").any(|one| one == name), "{exposed}");
                }
                // The gateway uses no cookies.
                assert!(
                    !response
                        .headers
                        .contains_key("access-control-allow-credentials")
                );
            }
        }
    }
}

/// A page can read why its request is rejected: a browser shows "Failed to fetch" for a response
/// without these headers.
#[tokio::test]
async fn allowed_pages_read_why_a_request_is_rejected() {
    const WATCH: &str = "/openstack.orchestration.v1.StackService/WatchStack";
    let (recorder, gateway) = gateway(true, false).await;
    for version in VERSIONS {
        for (method, path, headers, status) in [
            ("PUT", GET, &[JSON][..], 405),
            ("GET", GET, &[], 405),
            ("OPTIONS", GET, &[], 405),
            ("HEAD", GET, &[], 405),
            ("POST", GET, &[("content-type", "text/plain")], 415),
            ("POST", GET, &[], 415),
            ("POST", WATCH, &[JSON], 415),
            ("POST", GET, &[JSON, ("host", "evil.example.com")], 421),
            ("POST", GET, &[JSON, ("content-encoding", "br")], 501),
            ("POST", GET, &[JSON, ("drawbridge-upstream", "x")], 400),
            ("POST", GET, &[("content-type", "application/grpc")], 426),
            ("POST", GET, &[JSON, ("host", "a"), ("host", "b")], 400),
        ] {
            if version == Version::Http2 && [421, 426].contains(&status) {
                continue;
            }
            for (origin, allowed) in [(APP, APP), ("https://evil.example.com", "")] {
                let headers = [headers, &[("origin", origin)]].concat();
                let address = gateway.running.grpc;
                let response = send(address, version, method, path, &headers, "{}").await;
                let case = format!("{version:?} {method} {path} {headers:?}");
                assert_eq!(
                    response.header("access-control-allow-origin"),
                    allowed,
                    "{case}"
                );
                assert_eq!(response.header("vary"), "origin", "{case}");
                if origin == APP {
                    assert_eq!(response.status, status, "{case}");
                }
            }
        }
    }
    assert!(recorder.take().is_empty());
}

#[tokio::test]
async fn preflight_is_answered_for_allowed_origins_without_credentials() {
    for (is_allowed, connect_get, methods) in [
        (false, false, ""),
        (true, false, "POST"),
        (true, true, "POST, GET"),
    ] {
        let (_recorder, gateway) = gateway(is_allowed, connect_get).await;
        for version in VERSIONS {
            let preflight = async |origin| {
                let headers = [
                    ("origin", origin),
                    ("access-control-request-method", "POST"),
                    (
                        "access-control-request-headers",
                        "content-type,x-auth-token",
                    ),
                ];
                let address = gateway.running.grpc;
                send(address, version, "OPTIONS", GET, &headers, "").await
            };
            let other = preflight("https://evil.example.com").await;
            assert_eq!(other.status, 403);
            assert!(!other.headers.contains_key("access-control-allow-methods"));
            let response = preflight(APP).await;
            if !is_allowed {
                assert_eq!(response.status, 403);
                continue;
            }
            assert_eq!(response.status, 204);
            for (name, want) in [
                ("access-control-allow-origin", APP),
                ("access-control-allow-methods", methods),
                ("access-control-allow-headers", "content-type,x-auth-token"),
                ("access-control-max-age", "7200"),
                ("vary", "origin"),
            ] {
                assert_eq!(response.header(name), want, "{name}");
            }
        }
    }
}

#[tokio::test]
async fn host_names_are_those_of_the_configuration_where_browsers_may_call() {
    let request = json!({"stack_name": "shop", "stack_id": "s1"});
    for (is_allowed, host, status) in [
        (false, "evil.example.com", 200),
        (true, "evil.example.com", 421),
        (true, "gateway.example.com", 200),
        (true, "gateway.example.com:443", 200),
        (true, "localhost:50051", 200),
        (true, "[::1]:50051", 200),
    ] {
        let (recorder, gateway) = gateway(is_allowed, false).await;
        let headers = [JSON, ("host", host)];
        let response = post(&gateway, Version::Http1, GET, &headers, request.clone()).await;
        assert_eq!(response.status, status, "{host}");
        assert_eq!(recorder.take().is_empty(), status != 200);
        if status == 421 {
            assert!(response.text().contains("listen.web.allowed_hosts"));
        }
    }
}

#[tokio::test]
async fn get_serves_reads_for_the_own_site_and_allowed_pages() {
    let query = "?connect=v1&encoding=json&message=%7B%22stack_name%22%3A%22shop%22%2C%22stack_id%22%3A%22s1%22%7D";
    let read = format!("{GET}{query}");
    let delete = format!("{DELETE}{query}");
    let watch = format!("/openstack.orchestration.v1.StackService/WatchStack{query}");
    // `stack_name: "shop"`, `stack_id: "s1"`.
    let binary = format!("{GET}?encoding=proto&base64=1&message=EgRzaG9wGgJzMQ&connect=v1");
    for is_on in [false, true] {
        let (recorder, gateway) = gateway(true, is_on).await;
        for (path, headers, status) in [
            (&read, &[][..], 200),
            (&binary, &[], 200),
            (&read, &[("sec-fetch-site", "none")], 200),
            (&read, &[("sec-fetch-site", "same-origin")], 200),
            (
                &read,
                &[("sec-fetch-site", "cross-site"), ("origin", APP)],
                200,
            ),
            (&read, &[("sec-fetch-site", "cross-site")], 403),
            (&read, &[("sec-fetch-site", "same-site")], 403),
            (&read, &[("origin", "https://evil.example.com")], 403),
            (&read, &[("host", "evil.example.com")], 421),
            (&delete, &[], 405),
            (&watch, &[], 405),
            (&format!("{GET}?encoding=xml&message=a"), &[], 400),
            (&format!("{GET}?encoding=json"), &[], 400),
            (
                &"/no.Such/Rpc?encoding=json&message=%7B%7D".to_owned(),
                &[],
                501,
            ),
            (&GET.to_owned(), &[], 405),
        ] {
            let address = gateway.running.grpc;
            let response = send(address, Version::Http1, "GET", path, headers, "").await;
            let status = if is_on { status } else { 405 };
            let text = response.text();
            assert_eq!(response.status, status, "{path} {headers:?}: {text}");
            assert_eq!(recorder.take().len(), usize::from(status == 200), "{path}");
            if status == 200 {
                assert_eq!(response.header("cache-control"), "no-store");
                assert!(text.contains("shop"), "{text}");
            }
            if status == 405 {
                assert_eq!(response.header("allow"), "POST");
            }
        }
    }
}
