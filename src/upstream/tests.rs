use crate::error::Fault;

/// Returns a fault as the test family maps it.
pub(crate) fn fault(http_status: u16) -> Fault {
    Fault {
        code: tonic::Code::Unknown,
        reason: String::new(),
        domain: "test",
        message: format!("HTTP {http_status}"),
        http_status,
        request_id: None,
        retry_after: None,
        not_processed: false,
        transient: false,
        is_unrelated: false,
        credential_rejected: false,
        fields: Vec::new(),
        metadata: Vec::new(),
        locale: None,
        in_success: false,
    }
}

mod health;
mod retries;

use std::sync::Mutex;
use std::time::SystemTime;

use bytes::Bytes;
use http::Method;
use secrecy::SecretString;

use super::family::FaultContext;
use super::*;
use crate::credentials;
use crate::deadline::Deadline;
use crate::families::common;
use crate::http_client::retry_after::retry_after;
use crate::http_client::test_server::{self, TestResponse, TestServer, reply};

static FAMILY: Family = Family {
    name: "test",
    error_status: |_, _| None,
    dialects: &[],
    fault: read,
    endpoint_suffixes: &["/v1/{project_id}", "/v1"],
    credential_kinds: &[],
    catalog_type: None,
    bare_project_names: false,
    headers: &[("accept", "application/json"), ("x-client", "test")],
    accept_language: Some("en-us"),
    redirect_anchor: Some("stacks"),
    correlation: Some(crate::downstream::CorrelationHeader {
        name: "x-test-request-id",
        prefix: "id-",
    }),
    request_id_headers: &[],
    probe: "/healthcheck",
    not_processed: &[(503, "nobody has read the request")],
    checkers: &[],
};

fn read(context: &FaultContext<'_>, reply: &Reply) -> Fault {
    let status = reply.status.as_u16();
    Fault {
        code: common::code(context, reply),
        retry_after: retry_after(reply, SystemTime::now()),
        message: match String::from_utf8_lossy(&reply.body) {
            text if text.contains("nobody") => text.into_owned(),
            text => format!("HTTP {status}, {} bytes", text.len()),
        },
        transient: matches!(status, 502..=504),
        not_processed: common::not_processed(reply),
        is_unrelated: false,
        credential_rejected: status == 401,
        ..fault(status)
    }
}

const METHOD: MethodProperties<'static> = MethodProperties {
    operation: "test.v1.Service/Do",
    rpc: "Do",
    dialect_optional: false,
    unverified_in: &[],
    also_success: &[300],
    anonymous: false,
};

/// Returns an upstream at the endpoint, with short backoff and changed settings.
fn upstream(endpoint: Url, change: impl FnOnce(&mut Settings)) -> Upstream {
    let mut settings = Settings {
        endpoint: Some(endpoint),
        max_backoff: Duration::from_millis(1),
        ..Settings::new("cloud", "test", credentials::Settings::None)
    };
    settings.transport.proxy_from_env = false;
    change(&mut settings);
    Upstream::new(settings, &FAMILY, None).unwrap()
}

fn get(path: &str) -> Call {
    Call {
        verb: Method::GET,
        path: path.into(),
        project: None,
        query: String::new(),
        body: None,
        idempotency: Idempotency::NoSideEffects,
        declares_idempotency: false,
        media: drawbridge_transcoder::call::Media::default(),
    }
}

fn post(path: &str) -> Call {
    Call {
        verb: Method::POST,
        body: Some(Bytes::from_static(b"{\"a\":1}")),
        idempotency: Idempotency::NonIdempotent,
        ..get(path)
    }
}

fn context(client: &Downstream, timeout_secs: u64) -> RequestContext<'_> {
    RequestContext {
        permit: None,
        method: METHOD,
        client,
        deadline: Deadline::after(Duration::from_secs(timeout_secs)),
        body_slot: None,
        retry_after: None,
        is_probe: false,
    }
}

/// Calls without client metadata and with a deadline of 60 s.
async fn call(upstream: &Upstream, call: &Call) -> Result<Reply, Error> {
    let client = Downstream::default();
    upstream.call(&context(&client, 60), call).await
}

fn ok() -> TestResponse {
    TestResponse::Keep(reply(200, &[], "{}"))
}

fn with_status(status: u16) -> TestResponse {
    TestResponse::Keep(reply(status, &[], ""))
}

fn truncated() -> TestResponse {
    TestResponse::Close(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{".to_vec())
}

fn line(head: &str) -> &str {
    head.lines().next().unwrap()
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn upstream_fault(result: Result<Reply, Error>) -> Box<Fault> {
    match result {
        Err(Error::Upstream(fault)) => fault,
        other => panic!("{other:?}"),
    }
}

/// Returns a URL whose port accepts no connections.
fn unused_url() -> Url {
    let address = test_server::unused_address();
    format!("http://{address}").parse().unwrap()
}

/// Runs `work` with a paused clock, which advances to the next timer when all tasks wait.
async fn with_paused_clock<F: Future>(work: F) -> F::Output {
    tokio::time::pause();
    let output = work.await;
    tokio::time::resume();
    output
}

#[tokio::test]
async fn configured_and_forwarded_headers_are_sent() {
    let mut server = TestServer::start([ok(), ok()]).await;
    let upstream = upstream(server.url("/base/v1/p%201/"), |settings| {
        settings.auth = credentials::Settings::Token {
            header: HeaderName::from_static("x-auth-token"),
            token: SecretString::from("s3cret"),
        };
    });
    let metadata = [
        ("x-auth-token", "of-client"),
        ("authorization", "Bearer of-client"),
        ("cookie", "of-client"),
        ("x-request-id", "r-1"),
        (
            "x-openstack-request-id",
            "req-3f9e01b3-7d1b-4f6e-9a5c-0123456789ab",
        ),
        ("traceparent", "00-1-1-00"),
        ("tracestate", "a=b"),
        ("accept-language", "ja"),
    ];
    let metadata = metadata.map(|(name, value)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    });
    let client = Downstream::from_metadata(&HeaderMap::from_iter(metadata));
    let sent = Call {
        project: Some(4..4),
        query: "a=b%20c".into(),
        ..post("/v1//stacks/x%2Fy/~*")
    };
    upstream.call(&context(&client, 60), &sent).await.unwrap();
    let (head, body) = server.request().await;
    assert_eq!(
        line(&head),
        "POST /base/v1/p%201/stacks/x%2Fy/~*?a=b%20c HTTP/1.1"
    );
    for (name, value) in [
        ("accept", Some("application/json")),
        ("x-client", Some("test")),
        ("content-type", Some("application/json")),
        ("x-auth-token", Some("s3cret")),
        ("x-request-id", Some("r-1")),
        ("x-openstack-request-id", None),
        (
            "x-test-request-id",
            Some("id-3f9e01b3-7d1b-4f6e-9a5c-0123456789ab"),
        ),
        ("traceparent", Some("00-1-1-00")),
        ("tracestate", Some("a=b")),
        ("accept-language", Some("ja")),
        ("authorization", None),
        ("cookie", None),
    ] {
        assert_eq!(header(&head, name), value, "{name}");
    }
    assert!(!head.contains("of-client"));
    assert_eq!(body, b"{\"a\":1}");

    call(&upstream, &get("/v1/p/stacks")).await.unwrap();
    let (head, body) = server.request().await;
    assert_eq!(line(&head), "GET /base/v1/p/stacks HTTP/1.1");
    assert_eq!(header(&head, "accept-language"), Some("en-us"));
    for name in [
        "content-type",
        "content-length",
        "x-request-id",
        "traceparent",
    ] {
        assert_eq!(header(&head, name), None, "{name}");
    }
    assert!(body.is_empty());
    assert!(!format!("{upstream:?}").contains("s3cret"));
}

#[tokio::test]
async fn empty_project_id_is_filled_from_settings_or_endpoint() {
    let mut server = TestServer::start([ok(), ok()]).await;
    let without = Call {
        project: Some(4..4),
        ..get("/v1//stacks")
    };
    let configured = upstream(server.url("/v1/endpoints"), |settings| {
        settings.project_id = Some("config/ured".into());
    });
    call(&configured, &without).await.unwrap();
    let (head, _) = server.request().await;
    assert_eq!(line(&head), "GET /v1/config%2Fured/stacks HTTP/1.1");

    call(&upstream(server.url("/v1/endpoints"), |_| {}), &without)
        .await
        .unwrap();
    let (head, _) = server.request().await;
    assert_eq!(line(&head), "GET /v1/endpoints/stacks HTTP/1.1");

    match call(&upstream(server.url("/v1"), |_| {}), &without).await {
        Err(Error::Binding { field, problem }) => {
            assert_eq!(field, "project_id");
            assert!(
                problem.ends_with("or set `project_id` of upstream cloud"),
                "{problem}"
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(server.unread_requests(), 0);
}

#[tokio::test]
async fn paths_that_change_in_a_url_are_not_sent() {
    let server = TestServer::start([]).await;
    let upstream = upstream(server.url(""), |_| {});
    for path in ["/v1/../admin", "/v1/%2e%2e/admin"] {
        let result = call(&upstream, &get(path)).await;
        assert!(matches!(result, Err(Error::Binding { .. })), "{result:?}");
    }
    assert_eq!(server.unread_requests(), 0);
}

#[tokio::test]
async fn status_decides_success_or_fault() {
    let html = "<html><body>Bad Gateway</body></html>";
    for (response, want) in [
        (reply(200, &[], "null"), Ok("null")),
        (b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(), Ok("")),
        (reply(300, &[], "[]"), Ok("[]")),
        (reply(502, &[], html), Err("HTTP 502, 37 bytes")),
        (reply(404, &[], "{}"), Err("HTTP 404, 2 bytes")),
        (
            reply(303, &[("location", "/stacks/x")], ""),
            Err("HTTP 303, 0 bytes"),
        ),
        (
            reply(200, &[], vec![b' '; 20 << 20]),
            Err("the response is longer than 16777216 bytes (setting max_response_bytes)"),
        ),
    ] {
        let mut server = TestServer::start([TestResponse::Close(response)]).await;
        let got = call(&upstream(server.url(""), |_| {}), &post("/x")).await;
        let got = got.map(|reply| String::from_utf8_lossy(&reply.body).into_owned());
        assert_eq!(
            got.as_deref().map_err(Error::to_string),
            want.map_err(str::to_owned)
        );
        server.request().await;
        assert_eq!(server.unread_requests(), 0, "sent once");
    }
}

#[tokio::test]
async fn redirect_is_followed_once_on_the_same_host() {
    let other_host = TestServer::start([ok()]).await;
    let location = format!("http://{}/v1/p/stacks/web%2Fx/17?a=b", other_host.address);
    let redirect = || TestResponse::Keep(reply(302, &[("location", &location)], "moved"));
    let sent = Call {
        query: "a=b".into(),
        ..post("/v1/p/stacks/web%2Fx")
    };
    let mut server = TestServer::start([redirect(), ok(), redirect(), redirect()]).await;
    let upstream = upstream(server.url("/base"), |settings| {
        settings.auth = credentials::Settings::Token {
            header: HeaderName::from_static("x-auth-token"),
            token: SecretString::from("s3cret"),
        };
    });
    call(&upstream, &sent).await.unwrap();
    for path in ["web%2Fx", "web%2Fx/17"] {
        let (head, body) = server.request().await;
        assert_eq!(
            line(&head),
            format!("POST /base/v1/p/stacks/{path}?a=b HTTP/1.1")
        );
        assert_eq!(header(&head, "x-auth-token"), Some("s3cret"));
        assert_eq!(header(&head, "content-type"), Some("application/json"));
        assert_eq!(body, b"{\"a\":1}");
    }
    // A second redirect is an error.
    assert_eq!(
        upstream_fault(call(&upstream, &sent).await).http_status,
        302
    );
    assert_eq!(server.unread_requests(), 2);
    assert_eq!(other_host.unread_requests(), 0);
}

#[tokio::test]
async fn redirects_to_other_resources_are_not_followed() {
    for location in [
        "http://192.0.2.1/login",
        "http://192.0.2.1/v1/p/stacks/../../admin",
        "/v1/p/stacks/%2e%2e/admin",
        "/v1/p/stacks/x\\..\\admin",
        "https://192.0.2.1",
        "",
    ] {
        let response = reply(302, &[("location", location)], "");
        let mut server = TestServer::start([TestResponse::Keep(response)]).await;
        let upstream = upstream(server.url(""), |_| {});
        let fault = upstream_fault(call(&upstream, &get("/v1/p/stacks/web")).await);
        assert_eq!(fault.http_status, 302, "{location}");
        server.request().await;
        assert_eq!(server.unread_requests(), 0, "{location}");
    }
}

#[tokio::test]
async fn full_queue_rejects_calls() {
    let mut server = TestServer::start([TestResponse::Hang]).await;
    let upstream = Arc::new(upstream(server.url(""), |settings| {
        settings.max_concurrent_calls = 1;
        settings.max_queued_calls = 1;
    }));
    let hanging = tokio::spawn({
        let upstream = upstream.clone();
        async move { call(&upstream, &get("/x")).await }
    });
    server.request().await;
    // A queued call fails at its deadline, with nothing sent.
    let (sent, client) = (get("/x"), Downstream::default());
    let context = context(&client, 30);
    let waiting = upstream.call(&context, &sent);
    // Polled in this order: the first fills the queue.
    let both = async { tokio::join!(biased; waiting, call(&upstream, &sent)) };
    let (waited, rejected) = with_paused_clock(both).await;
    assert!(
        matches!(waited, Err(Error::Deadline { sent: false })),
        "{waited:?}"
    );
    match rejected {
        Err(Error::Overload { code, .. }) => assert_eq!(code, Code::ResourceExhausted),
        other => panic!("{other:?}"),
    }
    hanging.abort();
    assert!(hanging.await.unwrap_err().is_cancelled());
    server.expect_disconnect().await;
    assert_eq!(server.unread_requests(), 0);
    assert_eq!(upstream.stats(), Stats::default());
}

#[tokio::test]
async fn failed_connection_names_the_address() {
    let url = unused_url();
    let error = call(&upstream(url.clone(), |_| {}), &get("/x")).await;
    let text = error.unwrap_err().to_string();
    let origin = url.origin().ascii_serialization();
    assert!(
        text.starts_with(&format!("cannot connect: {origin}: ")),
        "{text}"
    );
}

#[tokio::test]
async fn hook_is_called_after_each_attempt() {
    let server = TestServer::start([with_status(503), truncated(), ok()]).await;
    let attempts = Arc::new(Mutex::new(Vec::new()));
    let hook: ExchangeHook = {
        let attempts = attempts.clone();
        Arc::new(move |exchange: &ExchangeRecord<'_>| {
            assert_eq!((exchange.upstream, exchange.rpc), ("cloud", "Do"));
            let status = exchange.status.map(|status| status.as_u16());
            attempts.lock().unwrap().push((exchange.number, status));
        })
    };
    let settings = upstream(server.url(""), |_| {}).settings;
    let upstream = Upstream::new(settings, &FAMILY, Some(hook)).unwrap();
    call(&upstream, &get("/x")).await.unwrap();
    let attempts = attempts.lock().unwrap();
    assert_eq!(*attempts, [(1, Some(503)), (2, None), (3, Some(200))]);
}

#[test]
fn invalid_settings_are_rejected() {
    type Change = fn(&mut Settings);
    let cases: [(Change, &str); 7] = [
        (
            |s| s.endpoint = Some("ftp://h".parse().unwrap()),
            "endpoint: must begin with http",
        ),
        (|s| s.project_id = Some("..".into()), "project_id: "),
        (|s| s.max_concurrent_calls = 0, "max_concurrent_calls and "),
        (
            |s| s.transport.ca_file = Some("/nowhere".into()),
            "ca_file /nowhere: ",
        ),
        (
            |s| {
                s.auth = credentials::Settings::Basic {
                    username: "u".into(),
                    password: SecretString::from("s3cret"),
                };
                s.endpoint = Some("http://heat.test/".parse().unwrap());
            },
            "endpoint: credentials would be sent over plaintext HTTP",
        ),
        (
            |s| {
                s.auth = credentials::Settings::Keystone(credentials::Keystone {
                    auth_url: "http://keystone.test/v3".parse().unwrap(),
                    identity: credentials::Identity::Token(SecretString::from("s3cret")),
                    project: None,
                    region: None,
                    interfaces: vec!["public".into()],
                });
            },
            "auth_url: credentials would be sent over plaintext HTTP",
        ),
        (
            |s| {
                s.auth = credentials::Settings::AkSk(credentials::AkSk {
                    access_key: "ak".into(),
                    secret_key: SecretString::from("s3cret"),
                    security_token: None,
                    project_id: None,
                    domain_id: None,
                    iam_endpoint: Some("http://iam.test".parse().unwrap()),
                    region: Some("R".into()),
                });
            },
            "iam_endpoint: credentials would be sent over plaintext HTTP",
        ),
    ];
    for (change, want) in cases {
        let mut settings = Settings::new("cloud", "test", credentials::Settings::None);
        change(&mut settings);
        let allowed = Settings {
            allow_plaintext_credentials: true,
            ..settings.clone()
        };
        let problem = Upstream::new(settings, &FAMILY, None).unwrap_err();
        assert!(problem.starts_with(want), "{problem}");
        let is_allowed = Upstream::new(allowed, &FAMILY, None).is_ok();
        assert_eq!(is_allowed, want.contains("plaintext"), "{want}");
    }
}

/// `0.0.0.0` is another host by its name, and leads to this one.
#[tokio::test]
async fn client_credentials_are_not_sent_over_plaintext() {
    let server = TestServer::start((0..10).map(|_| ok())).await;
    let mut endpoint = server.url("");
    endpoint.set_host(Some("0.0.0.0")).unwrap();
    let with = |allowed| {
        upstream(endpoint.clone(), |settings| {
            settings.auth = credentials::Settings::Passthrough;
            settings.allow_plaintext_credentials = allowed;
        })
    };
    let (strict, lax) = (with(false), with(true));
    let secret = Some(HeaderValue::from_static("s3cret"));
    let token = Downstream {
        token: secret.clone(),
        ..Downstream::default()
    };
    let authorization = Downstream {
        authorization: secret,
        ..Downstream::default()
    };
    let mut anonymous = context(&token, 60);
    anonymous.method.anonymous = true;
    for client in [&token, &authorization] {
        for call in [get("/x"), post("/x")] {
            let rejected = strict.call(&context(client, 60), &call).await;
            let error = rejected.unwrap_err();
            assert!(
                matches!(error, Error::PlaintextCredentials { .. }),
                "{error:?}"
            );
            assert!(!format!("{error:?} {error}").contains("s3cret"));
        }
    }
    assert_eq!(strict.health(), Health::Unknown);
    let none = call(&strict, &get("/x")).await.unwrap_err();
    assert_eq!(none.code(), Code::Unauthenticated, "{none:?}");
    assert_eq!(server.unread_requests(), 0);
    // Nothing to protect, or allowed.
    strict.call(&anonymous, &get("/x")).await.unwrap();
    lax.call(&context(&token, 60), &get("/x")).await.unwrap();
    assert_eq!(server.unread_requests(), 2);
}
