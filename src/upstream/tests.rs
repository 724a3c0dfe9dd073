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

use std::sync::Mutex;
use std::time::SystemTime;

use bytes::Bytes;
use http::Method;
use secrecy::SecretString;

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
async fn only_idempotent_or_unprocessed_calls_are_retried() {
    let idempotent = || Call {
        verb: Method::DELETE,
        idempotency: Idempotency::Idempotent,
        ..get("/x")
    };
    type Responses = fn() -> Vec<TestResponse>;
    let cases: &[(Call, Responses, Result<(), &str>, usize)] = &[
        (
            get("/x"),
            || vec![with_status(503), with_status(504), ok()],
            Ok(()),
            3,
        ),
        (
            get("/x"),
            || vec![with_status(502), with_status(502), with_status(502)],
            Err("HTTP 502"),
            3,
        ),
        (get("/x"), || vec![with_status(500)], Err("HTTP 500"), 1),
        (get("/x"), || vec![truncated(), ok()], Ok(()), 2),
        (
            get("/x"),
            || vec![truncated(), truncated(), truncated()],
            Err("no response"),
            3,
        ),
        // 404 after an attempt that may have deleted the resource is a success.
        (
            idempotent(),
            || vec![truncated(), with_status(404)],
            Ok(()),
            2,
        ),
        (
            idempotent(),
            || vec![with_status(504), with_status(404)],
            Ok(()),
            2,
        ),
        // Not if no earlier attempt can have acted, or the call is not a delete.
        (idempotent(), || vec![with_status(404)], Err("HTTP 404"), 1),
        (
            idempotent(),
            || vec![with_status(429), with_status(404)],
            Err("HTTP 404"),
            2,
        ),
        (
            idempotent(),
            || vec![truncated(), with_status(403)],
            Err("HTTP 403"),
            2,
        ),
        (
            Call {
                verb: Method::PUT,
                ..idempotent()
            },
            || vec![truncated(), with_status(404)],
            Err("HTTP 404"),
            2,
        ),
        (post("/x"), || vec![truncated()], Err("no response"), 1),
        (post("/x"), || vec![with_status(503)], Err("HTTP 503"), 1),
        (
            post("/x"),
            || vec![with_status(429), with_status(429), ok()],
            Ok(()),
            3,
        ),
    ];
    for (sent, responses, want, times) in cases {
        let mut server = TestServer::start(responses()).await;
        let upstream = upstream(server.url(""), |_| {});
        let got = call(&upstream, sent).await;
        match (&got, want) {
            (Ok(_), Ok(())) => {}
            (Err(error), Err(want)) => assert!(error.to_string().starts_with(want), "{error}"),
            _ => panic!("{got:?}, not {want:?}"),
        }
        for _ in 0..*times {
            let (_, body) = server.request().await;
            assert_eq!(body, sent.body.clone().unwrap_or_default());
        }
        assert_eq!(server.unread_requests(), 0);
        assert_eq!(upstream.stats().retries_total, *times as u64 - 1);
    }
}

#[tokio::test]
async fn non_idempotent_call_without_response_is_outcome_unknown() {
    let server = TestServer::start([truncated()]).await;
    let error = call(&upstream(server.url(""), |_| {}), &post("/x"))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown(_)), "{error:?}");
    // Without a connection nothing was sent.
    let error = call(&upstream(unused_url(), |_| {}), &post("/x"))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Connect(_)), "{error:?}");
}

/// Clients retry UNAVAILABLE by themselves.
#[tokio::test]
async fn gateway_error_of_a_non_idempotent_call_is_unknown() {
    let delete = Call {
        idempotency: Idempotency::Idempotent,
        ..post("/x")
    };
    for (status, headers, sent, code) in [
        (502, &[][..], &post("/x"), Code::Unknown),
        (503, &[], &post("/x"), Code::Unknown),
        (504, &[], &post("/x"), Code::Unknown),
        // A proxy may add the header after it has forwarded the call.
        (503, &[("retry-after", "9")], &post("/x"), Code::Unknown),
        // An idempotent call can be repeated.
        (504, &[], &delete, Code::Unavailable),
    ] {
        let server = TestServer::start([TestResponse::Keep(reply(status, headers, ""))]).await;
        let upstream = upstream(server.url(""), |settings| settings.max_attempts = 1);
        let fault = upstream_fault(call(&upstream, sent).await);
        assert_eq!(fault.code, code, "{status} {headers:?}");
        let hint = fault.metadata.iter().find(|(key, _)| *key == HINT);
        let hinted = hint.is_some_and(|(_, hint)| hint.contains("the upstream may have acted"));
        assert_eq!(hinted, code == Code::Unknown, "{status} {headers:?}");
    }
}

/// Only a rate limit, a failed connection and what the family knows of prove that the
/// upstream did not act.
#[tokio::test]
async fn non_idempotent_calls_are_retried_only_if_certainly_not_processed() {
    let later = &[("retry-after", "0")][..];
    let (body, exhausted) = (
        "nobody has read the request",
        ("x-ratelimit-remaining", "0"),
    );
    for (status, headers, body, code, requests) in [
        (429, &[][..], "", None, 2),
        (429, later, "", None, 2),
        (503, &[], body, None, 2),
        (503, later, body, None, 2),
        (503, later, "", Some(Code::Unknown), 1),
        (502, later, body, Some(Code::Unknown), 1),
        (413, later, "", Some(Code::ResourceExhausted), 1),
        (413, &[], "", Some(Code::ResourceExhausted), 1),
        (403, later, "", Some(Code::ResourceExhausted), 1),
        (403, &[exhausted], "", Some(Code::ResourceExhausted), 1),
        (
            403,
            &[("x-ratelimit-remaining", "7")],
            "",
            Some(Code::PermissionDenied),
            1,
        ),
    ] {
        let error = TestResponse::Keep(reply(status, headers, body));
        let mut server = TestServer::start([error, ok()]).await;
        let upstream = upstream(server.url(""), |_| {});
        let got = call(&upstream, &post("/x")).await;
        let got = got.err().map(|error| error.code());
        assert_eq!(got, code, "{status} {headers:?} {body}");
        for _ in 0..requests {
            server.request().await;
        }
        assert_eq!(server.unread_requests(), 0, "{status} {headers:?} {body}");
    }
}

/// A 403 that is a rate limit says when to try again; an idempotent call waits for it.
#[tokio::test]
async fn forbidden_with_an_exhausted_rate_limit_is_retried_if_idempotent() {
    let limited = |headers: &[_]| TestResponse::Keep(reply(403, headers, ""));
    let server = TestServer::start([limited(&[("retry-after", "0")]), ok()]).await;
    call(&upstream(server.url(""), |_| {}), &get("/x"))
        .await
        .unwrap();
    for (headers, secs) in [
        (&[("retry-after", "30")][..], 30),
        (&[("retry-after", "99999999999999999999")], 86_400),
        (
            &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "40")],
            40,
        ),
        (&[("ratelimit", "\"default\";r=0;t=50")], 50),
        (&[("ratelimit-remaining", "0")], 60),
    ] {
        let mut server = TestServer::start([limited(headers)]).await;
        let fault = upstream_fault(call(&upstream(server.url(""), |_| {}), &get("/x")).await);
        assert_eq!(fault.code, Code::ResourceExhausted, "{headers:?}");
        assert_eq!(
            fault.retry_after,
            Some(Duration::from_secs(secs)),
            "{headers:?}"
        );
        server.request().await;
        assert_eq!(server.unread_requests(), 0, "longer than `max_backoff`");
    }
}

/// The client's own credentials are fine if the gateway's are rejected.
#[tokio::test]
async fn rejected_credentials_of_the_gateway_are_not_unauthenticated() {
    let token = || credentials::Settings::Token {
        header: HeaderName::from_static("x-auth-token"),
        token: SecretString::from("s3cret"),
    };
    let basic = credentials::Settings::Basic {
        username: "u".into(),
        password: SecretString::from("s3cret"),
    };
    for (auth, code) in [
        (token(), Code::FailedPrecondition),
        (basic, Code::FailedPrecondition),
        (credentials::Settings::None, Code::FailedPrecondition),
        (credentials::Settings::Passthrough, Code::Unauthenticated),
    ] {
        let server = TestServer::start([with_status(401)]).await;
        let kind = auth.kind();
        let upstream = upstream(server.url(""), |settings| settings.auth = auth);
        let client = Downstream::from_metadata(&HeaderMap::from_iter([(
            HeaderName::from_static("x-auth-token"),
            HeaderValue::from_static("of-client"),
        )]));
        let fault = upstream_fault(upstream.call(&context(&client, 60), &get("/x")).await);
        assert_eq!(fault.code, code, "{kind}");
        let hint = fault.metadata.iter().any(|(key, _)| *key == HINT);
        assert_eq!(hint, code == Code::FailedPrecondition, "{kind}");
    }
}

/// The last attempt was not processed, but an earlier one may have been.
#[tokio::test]
async fn sent_is_true_if_an_earlier_attempt_was_sent() {
    let sent = |error: Error| {
        let status = error.status(&crate::error::StatusContext {
            operation: "a.B/C",
            upstream: "cloud",
            request_id: "r",
            start_succeeded: false,
        });
        let details = tonic_types::StatusExt::get_error_details(&status);
        details.error_info().unwrap().metadata["sent"].clone()
    };
    let limited = || TestResponse::Keep(reply(429, &[("retry-after", "9")], ""));
    for (responses, want) in [
        (vec![limited()], "false"),
        (vec![truncated(), limited()], "true"),
    ] {
        let server = TestServer::start(responses).await;
        let error = call(&upstream(server.url(""), |_| {}), &get("/x")).await;
        assert_eq!(sent(error.unwrap_err()), want);
    }
    // The token expires before the second attempt, and the next login fails.
    let token = r#"{"token":{"expires_at":"2000-01-01T00:00:00Z"}}"#;
    let server = TestServer::start([
        TestResponse::Keep(reply(201, &[("x-subject-token", "t1")], token)),
        TestResponse::Keep(reply(502, &[("retry-after", "1")], "")),
        with_status(401),
    ])
    .await;
    let upstream = upstream(server.url(""), |settings| {
        settings.max_backoff = Duration::from_secs(2);
        settings.auth = credentials::Settings::Keystone(credentials::Keystone {
            auth_url: server.url("/v3"),
            identity: credentials::Identity::Token(SecretString::from("s3cret")),
            project: None,
            region: None,
            interfaces: vec!["public".into()],
        });
    });
    let error = call(&upstream, &get("/x")).await.unwrap_err();
    assert!(error.to_string().starts_with("HTTP 502"), "{error}");
    assert_eq!(sent(error), "true");
}

#[tokio::test]
async fn long_retry_after_is_returned_and_short_one_waited_for() {
    // Longer than `max_backoff`, and than the test runs.
    let in_a_day = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(86_400));
    for (value, min, max) in [("7", 7, 7), (&*in_a_day, 3_600, 86_400)] {
        let response = reply(503, &[("retry-after", value)], "");
        let mut server = TestServer::start([TestResponse::Keep(response)]).await;
        let fault = upstream_fault(call(&upstream(server.url(""), |_| {}), &get("/x")).await);
        let secs = fault.retry_after.unwrap().as_secs();
        assert!((min..=max).contains(&secs), "{secs}");
        server.request().await;
        assert_eq!(server.unread_requests(), 0);
    }
    let busy = TestResponse::Keep(reply(503, &[("retry-after", "1")], ""));
    let server = TestServer::start([busy, ok()]).await;
    let upstream = upstream(server.url(""), |settings| {
        settings.max_backoff = Duration::from_secs(1);
    });
    let started = Instant::now();
    call(&upstream, &get("/x")).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn retry_budget_bounds_retries() {
    let mut server = TestServer::start((0..100).map(|_| with_status(502))).await;
    let upstream = upstream(server.url(""), |settings| {
        settings.circuit_breaker_failures = 0
    });
    for _ in 0..20 {
        upstream_fault(call(&upstream, &get("/x")).await);
    }
    // The initial balance of ten, and one for each ten calls.
    assert_eq!(upstream.stats().retries_total, 11);
    for _ in 0..31 {
        server.request().await;
    }
    assert_eq!(server.unread_requests(), 0);
}

#[tokio::test]
async fn open_circuit_breaker_rejects_calls() {
    let upstream = upstream(unused_url(), |settings| {
        settings.max_attempts = 1;
        settings.circuit_breaker_failures = 2;
        settings.circuit_breaker_open = Duration::from_secs(3_600);
    });
    assert_eq!(upstream.health(), Health::Unknown);
    for _ in 0..2 {
        let error = call(&upstream, &get("/x")).await.unwrap_err();
        assert!(matches!(error, Error::Connect(_)), "{error:?}");
    }
    match call(&upstream, &get("/x")).await {
        Err(Error::Overload {
            code,
            problem,
            retry_after,
        }) => {
            assert_eq!(code, Code::Unavailable);
            assert!(problem.starts_with("upstream cloud does not respond"));
            assert!(retry_after > Duration::from_secs(60));
        }
        other => panic!("{other:?}"),
    }
    assert!(upstream.stats().circuit_breaker_open);
    assert_eq!(upstream.health(), Health::Unhealthy);
}

/// A deadline counts as a failure only if it was long enough to connect.
#[tokio::test]
async fn circuit_breaker_opens_for_an_upstream_that_hangs() {
    for (connect_timeout, opens) in [(30, true), (90, false)] {
        let mut server = TestServer::start([TestResponse::Hang]).await;
        let statuses = Arc::new(Mutex::new(Vec::new()));
        let hook: ExchangeHook = {
            let statuses = statuses.clone();
            Arc::new(move |exchange: &ExchangeRecord<'_>| {
                statuses.lock().unwrap().push(exchange.status)
            })
        };
        let settings = upstream(server.url(""), |settings| {
            settings.circuit_breaker_failures = 1;
            settings.transport.connect_timeout = Duration::from_secs(connect_timeout);
            settings.transport.read_timeout = Duration::from_secs(3_600);
        })
        .settings;
        let upstream = Upstream::new(settings, &FAMILY, Some(hook)).unwrap();
        let (sent, client) = (get("/x"), Downstream::default());
        let context = context(&client, 60);
        let mut hangs = Box::pin(upstream.call(&context, &sent));
        tokio::select! {
            result = &mut hangs => panic!("{result:?}"),
            _ = server.request() => {}
        }
        let result = with_paused_clock(hangs).await;
        assert!(
            matches!(result, Err(Error::Deadline { sent: true })),
            "{result:?}"
        );
        server.expect_disconnect().await;
        assert_eq!(*statuses.lock().unwrap(), [None]);
        assert_eq!(upstream.stats().circuit_breaker_open, opens);
    }
}

#[tokio::test]
async fn success_after_failures_makes_healthy() {
    let mut server = TestServer::start([with_status(503), with_status(503), ok(), ok()]).await;
    let upstream = upstream(server.url(""), |settings| {
        settings.max_attempts = 2;
        settings.circuit_breaker_failures = 2;
        settings.circuit_breaker_open = Duration::ZERO;
    });
    upstream_fault(call(&upstream, &get("/x")).await);
    for _ in 0..2 {
        call(&upstream, &get("/x")).await.unwrap();
    }
    for _ in 0..4 {
        server.request().await;
    }
    assert_eq!(upstream.health(), Health::Healthy);
}

#[tokio::test]
async fn failure_that_opens_the_circuit_breaker_is_returned() {
    let mut server = TestServer::start([with_status(502)]).await;
    let upstream = upstream(server.url(""), |settings| {
        settings.circuit_breaker_failures = 1
    });
    assert_eq!(
        upstream_fault(call(&upstream, &get("/x")).await).http_status,
        502
    );
    server.request().await;
    assert_eq!(server.unread_requests(), 0);
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
async fn rejected_fixed_token_is_not_retried() {
    let mut server = TestServer::start([with_status(401)]).await;
    let upstream = upstream(server.url(""), |settings| {
        settings.auth = credentials::Settings::Token {
            header: HeaderName::from_static("x-auth-token"),
            token: SecretString::from("s3cret"),
        };
    });
    assert_eq!(
        upstream_fault(call(&upstream, &get("/x")).await).http_status,
        401
    );
    server.request().await;
    assert_eq!(server.unread_requests(), 0);
}

#[tokio::test]
async fn rejected_token_is_renewed_once() {
    let token = |token: &str| {
        let body = r#"{"token":{"expires_at":"2999-01-01T00:00:00Z","project":{"id":"p1"}}}"#;
        TestResponse::Keep(reply(201, &[("x-subject-token", token)], body))
    };
    let sent = Call {
        project: Some(4..4),
        ..post("/v1//x")
    };
    // Login, call, login, call: even a non-idempotent call is repeated.
    for (last, status) in [(ok(), 200), (with_status(401), 401)] {
        let mut server =
            TestServer::start([token("t1"), with_status(401), token("t2"), last]).await;
        let upstream = upstream(server.url(""), |settings| {
            settings.auth = credentials::Settings::Keystone(credentials::Keystone {
                auth_url: server.url("/v3"),
                identity: credentials::Identity::Token(SecretString::from("s3cret")),
                project: None,
                region: None,
                interfaces: vec!["public".into()],
            });
        });
        match call(&upstream, &sent).await {
            Ok(reply) => assert_eq!(reply.status.as_u16(), status),
            rejected => assert_eq!(upstream_fault(rejected).http_status, status),
        }
        for want in ["t1", "t2"] {
            let (head, _) = server.request().await;
            assert!(line(&head).starts_with("POST /v3/auth/tokens"), "{head}");
            let (head, _) = server.request().await;
            assert_eq!(line(&head), "POST /v1/p1/x HTTP/1.1");
            assert_eq!(header(&head, "x-auth-token"), Some(want));
        }
        assert_eq!(server.unread_requests(), 0);
        assert_eq!(upstream.stats().retries_total, 0);
    }
}

#[tokio::test]
async fn deadline_bounds_all_attempts() {
    let mut server =
        TestServer::start([TestResponse::Hang, with_status(503), TestResponse::Hang]).await;
    let upstream = upstream(server.url(""), |settings| {
        settings.transport.read_timeout = Duration::from_secs(3_600);
    });
    let (sent, client) = (get("/x"), Downstream::default());
    let within = |timeout_secs| {
        let (upstream, sent, client) = (&upstream, &sent, &client);
        Box::pin(async move { upstream.call(&context(client, timeout_secs), sent).await })
    };
    match within(0).await {
        Err(Error::Deadline { sent: false }) => assert_eq!(server.unread_requests(), 0),
        other => panic!("{other:?}"),
    }
    // First the only attempt hangs, then the second of two.
    for attempts in [1, 2] {
        let mut hangs = within(60);
        for _ in 0..attempts {
            tokio::select! {
                result = &mut hangs => panic!("{result:?}"),
                _ = server.request() => {}
            }
        }
        match with_paused_clock(hangs).await {
            Err(Error::Deadline { sent: true }) => {}
            other => panic!("{other:?}"),
        }
        server.expect_disconnect().await;
    }
    assert_eq!(upstream.stats().in_flight, 0);
}

#[tokio::test]
async fn cancelled_call_closes_the_request() {
    let mut server = TestServer::start([TestResponse::Hang, ok()]).await;
    let upstream = Arc::new(upstream(server.url(""), |_| {}));
    let task = tokio::spawn({
        let upstream = upstream.clone();
        async move { call(&upstream, &post("/x")).await }
    });
    server.request().await;
    assert_eq!(upstream.stats().in_flight, 1);
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    server.expect_disconnect().await;
    assert_eq!(upstream.stats().in_flight, 0);
    call(&upstream, &get("/x")).await.unwrap();
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

/// Probes once and returns the recorded health.
async fn probe(upstream: &Upstream, timeout: Duration) -> Health {
    if let Some(result) = upstream.probe(timeout).await {
        upstream.record_response(&result);
    }
    upstream.responds()
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn any_response_to_a_probe_is_healthy() {
    let mut server =
        TestServer::start([with_status(404), with_status(503), TestResponse::Hang]).await;
    let upstream_ = upstream(server.url("/base/v1/p"), |settings| {
        settings.auth = credentials::Settings::Token {
            header: HeaderName::from_static("x-auth-token"),
            token: SecretString::from("s3cret"),
        };
    });
    assert_eq!(probe(&upstream_, LONG).await, Health::Healthy);
    let (head, _) = server.request().await;
    assert_eq!(line(&head), "GET /base/healthcheck HTTP/1.1");
    assert_eq!(header(&head, "x-auth-token"), None);
    assert_eq!(
        probe(&upstream_, LONG).await,
        Health::Unhealthy,
        "of a proxy"
    );
    upstream_.record_response(&Ok(StatusCode::OK));
    let hanging = probe(&upstream_, Duration::from_millis(20)).await;
    assert_eq!(hanging, Health::Unhealthy);
    let down = upstream(unused_url(), |_| {});
    assert_eq!(probe(&down, LONG).await, Health::Unhealthy);
    assert_eq!(down.health(), Health::Unhealthy);
    // Without an endpoint and a login.
    let unknown = upstream(unused_url(), |settings| settings.endpoint = None);
    assert_eq!(probe(&unknown, LONG).await, Health::Unknown);
    let error = call(&unknown, &get("/x")).await.unwrap_err();
    assert!(matches!(error, Error::NotConfigured(_)), "{error:?}");
}

#[tokio::test]
async fn health_checks_do_not_count_as_calls() {
    let down = upstream(unused_url(), |settings| {
        settings.circuit_breaker_failures = 1
    });
    for _ in 0..30 {
        let client = Downstream::default();
        let error = down.probe_call(&context(&client, 60), &get("/x")).await;
        let error = error.unwrap_err();
        assert!(matches!(error, Error::Connect(_)), "{error}");
        down.record_probe(Err(&error), || "reason".to_owned());
    }
    assert_eq!(down.stats(), Stats::default());
    assert_eq!(down.health(), Health::Unhealthy);
    assert!(down.retry_budget.withdraw(ClientKey::default()));
}

#[tokio::test]
async fn rejected_credentials_make_an_upstream_unhealthy_until_a_call_succeeds() {
    let server = TestServer::start([with_status(401), with_status(401), ok()]).await;
    let upstream = upstream(server.url(""), |settings| {
        settings.auth = credentials::Settings::Basic {
            username: "u".into(),
            password: SecretString::from("s3cret"),
        };
    });
    // A single operation may have its own rules: only a health check decides.
    call(&upstream, &get("/x")).await.unwrap_err();
    assert_eq!(upstream.health(), Health::Unknown);
    let client = Downstream::default();
    let error = upstream.probe_call(&context(&client, 60), &get("/x")).await;
    upstream.record_probe(Err(&error.unwrap_err()), || "reason".to_owned());
    assert_eq!(upstream.health(), Health::Unhealthy);
    assert_eq!(upstream.responds(), Health::Healthy);
    call(&upstream, &get("/x")).await.unwrap();
    assert_eq!(upstream.health(), Health::Healthy);
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

/// A request that is too large says nothing about the upstream's health.
#[tokio::test]
async fn too_large_request_is_no_failure_of_the_upstream() {
    let server = TestServer::start((0..5).map(|_| with_status(413))).await;
    let upstream = upstream(server.url(""), |settings| {
        settings.circuit_breaker_failures = 1;
    });
    for _ in 0..5 {
        let fault = upstream_fault(call(&upstream, &post("/x")).await);
        assert_eq!(fault.code, Code::ResourceExhausted);
        assert!(!fault.not_processed && !fault.transient, "{fault:?}");
    }
    assert_eq!(upstream.health(), Health::Healthy);
}

/// The health check gives up earlier than the login that it waits for.
#[tokio::test(start_paused = true)]
async fn hanging_login_makes_the_upstream_unhealthy() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let auth_url = format!("http://{}/v3", silent.local_addr().unwrap());
    let upstream = upstream("http://127.0.0.1:1".parse().unwrap(), |settings| {
        settings.auth = credentials::Settings::Keystone(credentials::Keystone {
            auth_url: auth_url.parse().unwrap(),
            identity: credentials::Identity::Token(SecretString::from("s3cret")),
            project: None,
            region: None,
            interfaces: vec!["public".into()],
        });
    });
    // The login ends between two health checks.
    for _ in 0..4 {
        let deadline = Deadline::after(Duration::from_secs(4));
        assert!(upstream.log_in(deadline).await.is_err());
        tokio::time::sleep(Duration::from_secs(8)).await;
    }
    assert_eq!(upstream.health(), Health::Unhealthy);
}
