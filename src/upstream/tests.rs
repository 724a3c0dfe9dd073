use crate::error::Fault;

/// A fault as the tests' family reads it.
pub(super) fn fault(http_status: u16) -> Fault {
    Fault {
        code: tonic::Code::Unknown,
        reason: String::new(),
        domain: "test",
        message: format!("said {http_status}"),
        http_status,
        request_id: None,
        retry_after: None,
        not_processed: false,
        transient: false,
        credential_rejected: false,
        fields: Vec::new(),
        metadata: Vec::new(),
        locale: None,
    }
}

use std::sync::Mutex;
use std::time::SystemTime;

use bytes::Bytes;
use http::Method;
use secrecy::SecretString;

use super::*;
use crate::credentials;
use crate::families::common;
use crate::families::error_body::retry_after;
use crate::http_client::test_server::{self, Answer, Script, reply};

static FAMILY: Family = Family {
    name: "test",
    dialects: &[],
    fault: read,
    endpoint_suffixes: &["/v1/{project_id}", "/v1"],
    catalog_type: None,
    bare_project_names: false,
    headers: &[("accept", "application/json"), ("x-client", "test")],
    accept_language: Some("en-us"),
    redirect_anchor: Some("stacks"),
    request_id_headers: &[],
    probe: "/healthcheck",
    login_check: None,
    checkers: &[],
};

fn read(context: &FaultContext<'_>, reply: &Reply) -> Fault {
    let status = reply.status.as_u16();
    Fault {
        code: common::code(context, reply),
        retry_after: retry_after(&reply.headers, SystemTime::now()),
        message: format!("said {status}, {} bytes", reply.body.len()),
        transient: matches!(status, 502..=504),
        not_processed: common::not_processed(reply),
        credential_rejected: status == 401,
        ..fault(status)
    }
}

const OPERATION: Operation<'static> = Operation {
    rpc: "Do",
    dialect_optional: false,
    unverified_in: &[],
    also_success: &[300],
    anonymous: false,
};

/// An upstream at the endpoint, with short pauses, as the tests wish.
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

/// Calls with nothing of the caller's and a deadline far away.
async fn call(upstream: &Upstream, call: &Call) -> Result<Reply, Error> {
    let deadline = Deadline::after(Duration::from_secs(60));
    upstream
        .call(OPERATION, call, &Caller::default(), deadline)
        .await
}

fn ok() -> Answer {
    Answer::Keep(reply(200, &[], "{}"))
}

fn says(status: u16) -> Answer {
    Answer::Keep(reply(status, &[], ""))
}

fn cut_off() -> Answer {
    Answer::Close(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{".to_vec())
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

/// An address where nobody listens.
fn nowhere() -> Url {
    let address = test_server::nowhere();
    format!("http://{address}").parse().unwrap()
}

/// The output of a call once the clock has come to the next instant that anything
/// waits for. Until then time passes as it does, however long that takes.
async fn later<F: Future>(work: F) -> F::Output {
    tokio::time::pause();
    let output = work.await;
    tokio::time::resume();
    output
}

#[tokio::test]
async fn what_is_sent() {
    let mut server = Script::start([ok(), ok()]).await;
    let upstream = upstream(server.url("/base/v1/p%201/"), |settings| {
        settings.auth = credentials::Settings::Token {
            header: HeaderName::from_static("x-auth-token"),
            token: SecretString::from("s3cret"),
        };
    });
    let metadata = [
        ("x-auth-token", "callers"),
        ("authorization", "Bearer callers"),
        ("cookie", "callers"),
        ("x-request-id", "r-1"),
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
    let caller = Caller::of(&HeaderMap::from_iter(metadata));
    let deadline = Deadline::after(Duration::from_secs(60));
    let sent = Call {
        project: Some(4..4),
        query: "a=b%20c".into(),
        ..post("/v1//stacks/x%2Fy/~*")
    };
    upstream
        .call(OPERATION, &sent, &caller, deadline)
        .await
        .unwrap();
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
        ("traceparent", Some("00-1-1-00")),
        ("tracestate", Some("a=b")),
        ("accept-language", Some("ja")),
        ("authorization", None),
        ("cookie", None),
    ] {
        assert_eq!(header(&head, name), value, "{name}");
    }
    assert!(!head.contains("callers"));
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
async fn project_ids() {
    let mut server = Script::start([ok(), ok()]).await;
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
    assert_eq!(server.untaken(), 0);
}

#[tokio::test]
async fn nothing_is_sent_that_would_be_another_path() {
    let server = Script::start([]).await;
    let upstream = upstream(server.url(""), |_| {});
    for path in ["/v1/../admin", "/v1/%2e%2e/admin"] {
        let refused = call(&upstream, &get(path)).await;
        assert!(matches!(refused, Err(Error::Binding { .. })), "{refused:?}");
    }
    assert_eq!(server.untaken(), 0);
}

#[tokio::test]
async fn successes_and_faults() {
    let html = "<html><body>Bad Gateway</body></html>";
    for (answer, want) in [
        (reply(200, &[], "null"), Ok("null")),
        (b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(), Ok("")),
        (reply(300, &[], "[]"), Ok("[]")),
        (reply(502, &[], html), Err("said 502, 37 bytes")),
        (reply(404, &[], "{}"), Err("said 404, 2 bytes")),
        (
            reply(303, &[("location", "/stacks/x")], ""),
            Err("said 303, 0 bytes"),
        ),
        (
            reply(200, &[], vec![b' '; 20 << 20]),
            Err("the response is longer than 16777216 bytes (setting max_response_bytes)"),
        ),
    ] {
        let mut server = Script::start([Answer::Close(answer)]).await;
        let got = call(&upstream(server.url(""), |_| {}), &post("/x")).await;
        let got = got.map(|reply| String::from_utf8_lossy(&reply.body).into_owned());
        assert_eq!(
            got.as_deref().map_err(Error::to_string),
            want.map_err(str::to_owned)
        );
        server.request().await;
        assert_eq!(server.untaken(), 0, "sent once");
    }
}

#[tokio::test]
async fn what_is_sent_again() {
    let idempotent = || Call {
        verb: Method::DELETE,
        idempotency: Idempotency::Idempotent,
        ..get("/x")
    };
    type Answers = fn() -> Vec<Answer>;
    let cases: &[(Call, Answers, Result<(), &str>, usize)] = &[
        (get("/x"), || vec![says(503), says(504), ok()], Ok(()), 3),
        (
            get("/x"),
            || vec![says(502), says(502), says(502)],
            Err("said 502"),
            3,
        ),
        (get("/x"), || vec![says(500)], Err("said 500"), 1),
        (get("/x"), || vec![cut_off(), ok()], Ok(()), 2),
        (
            get("/x"),
            || vec![cut_off(), cut_off(), cut_off()],
            Err("no response"),
            3,
        ),
        // An attempt before has deleted it, or somebody else: it is gone.
        (idempotent(), || vec![cut_off(), says(404)], Ok(()), 2),
        (idempotent(), || vec![says(504), says(404)], Ok(()), 2),
        // But not where none before can have acted, or it was no delete.
        (idempotent(), || vec![says(404)], Err("said 404"), 1),
        (
            idempotent(),
            || vec![says(429), says(404)],
            Err("said 404"),
            2,
        ),
        (
            idempotent(),
            || vec![cut_off(), says(403)],
            Err("said 403"),
            2,
        ),
        (
            Call {
                verb: Method::PUT,
                ..idempotent()
            },
            || vec![cut_off(), says(404)],
            Err("said 404"),
            2,
        ),
        (post("/x"), || vec![cut_off()], Err("no response"), 1),
        (post("/x"), || vec![says(503)], Err("said 503"), 1),
        (post("/x"), || vec![says(429), says(429), ok()], Ok(()), 3),
    ];
    for (sent, answers, want, times) in cases {
        let mut server = Script::start(answers()).await;
        let upstream = upstream(server.url(""), |_| {});
        let got = call(&upstream, sent).await;
        match (&got, want) {
            (Ok(_), Ok(())) => {}
            (Err(error), Err(says)) => assert!(error.to_string().starts_with(says), "{error}"),
            _ => panic!("{got:?}, not {want:?}"),
        }
        for _ in 0..*times {
            let (_, body) = server.request().await;
            assert_eq!(body, sent.body.clone().unwrap_or_default());
        }
        assert_eq!(server.untaken(), 0);
        assert_eq!(upstream.stats().retries_total, *times as u64 - 1);
    }
}

#[tokio::test]
async fn an_outcome_unknown_is_said_to_be() {
    let server = Script::start([cut_off()]).await;
    let error = call(&upstream(server.url(""), |_| {}), &post("/x"))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown(_)), "{error:?}");
    // Nothing was sent: then it is known.
    let error = call(&upstream(nowhere(), |_| {}), &post("/x"))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Connect(_)), "{error:?}");
}

/// UNAVAILABLE would make clients send it again by themselves.
#[tokio::test]
async fn an_unsafe_call_that_a_proxy_answers_may_have_been_done() {
    let delete = Call {
        idempotency: Idempotency::Idempotent,
        ..post("/x")
    };
    for (status, headers, sent, code) in [
        (502, &[][..], &post("/x"), Code::Unknown),
        (503, &[], &post("/x"), Code::Unknown),
        (504, &[], &post("/x"), Code::Unknown),
        // It was surely not done.
        (503, &[("retry-after", "9")], &post("/x"), Code::Unavailable),
        // What is found out by sending it again.
        (504, &[], &delete, Code::Unavailable),
    ] {
        let server = Script::start([Answer::Keep(reply(status, headers, ""))]).await;
        let upstream = upstream(server.url(""), |settings| settings.max_attempts = 1);
        let fault = upstream_fault(call(&upstream, sent).await);
        assert_eq!(fault.code, code, "{status} {headers:?}");
        let hint = fault.metadata.iter().find(|(key, _)| *key == HINT);
        let hinted = hint.is_some_and(|(_, hint)| hint.contains("the upstream may have acted"));
        assert_eq!(hinted, code == Code::Unknown, "{status} {headers:?}");
    }
}

/// An attempt that surely did nothing says nothing of the one before.
#[tokio::test]
async fn what_an_earlier_attempt_may_have_done_is_told() {
    let sent = |error: Error| {
        let status = error.status(&crate::error::StatusContext {
            operation: "a.B/C",
            upstream: "cloud",
            request_id: "r",
            action_started: false,
        });
        let details = tonic_types::StatusExt::get_error_details(&status);
        details.error_info().unwrap().metadata["sent"].clone()
    };
    let limited = || Answer::Keep(reply(429, &[("retry-after", "9")], ""));
    for (answers, want) in [
        (vec![limited()], "false"),
        (vec![cut_off(), limited()], "true"),
    ] {
        let server = Script::start(answers).await;
        let error = call(&upstream(server.url(""), |_| {}), &get("/x")).await;
        assert_eq!(sent(error.unwrap_err()), want);
    }
    // The token ends before the second attempt, and there is no other.
    let token = r#"{"token":{"expires_at":"2000-01-01T00:00:00Z"}}"#;
    let server = Script::start([
        Answer::Keep(reply(201, &[("x-subject-token", "t1")], token)),
        Answer::Keep(reply(502, &[("retry-after", "1")], "")),
        says(401),
    ])
    .await;
    let upstream = upstream(server.url(""), |settings| {
        settings.max_backoff = Duration::from_secs(2);
        settings.auth = credentials::Settings::Keystone(credentials::Keystone {
            auth_url: server.url("/v3"),
            identity: credentials::Identity::Token(SecretString::from("s3cret")),
            project: None,
            region: None,
            interface: "public".into(),
        });
    });
    let error = call(&upstream, &get("/x")).await.unwrap_err();
    assert!(error.to_string().starts_with("said 502"), "{error}");
    assert_eq!(sent(error), "true");
}

#[tokio::test]
async fn retry_after_is_waited_for_or_told() {
    // Longer than any call waits, and than this test runs.
    let in_a_day = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(86_400));
    for (value, least, most) in [("7", 7, 7), (&*in_a_day, 3_600, 86_400)] {
        let answer = reply(503, &[("retry-after", value)], "");
        let mut server = Script::start([Answer::Keep(answer)]).await;
        let fault = upstream_fault(call(&upstream(server.url(""), |_| {}), &get("/x")).await);
        let told = fault.retry_after.unwrap().as_secs();
        assert!((least..=most).contains(&told), "{told}");
        server.request().await;
        assert_eq!(server.untaken(), 0);
    }
    let again = Answer::Keep(reply(503, &[("retry-after", "1")], ""));
    let server = Script::start([again, ok()]).await;
    let patient = upstream(server.url(""), |settings| {
        settings.max_backoff = Duration::from_secs(1);
    });
    let began = Instant::now();
    call(&patient, &get("/x")).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn retries_have_a_budget() {
    let mut server = Script::start((0..100).map(|_| says(502))).await;
    let upstream = upstream(server.url(""), |settings| {
        settings.circuit_breaker_failures = 0
    });
    for _ in 0..20 {
        upstream_fault(call(&upstream, &get("/x")).await);
    }
    // Ten at first, and one for each ten calls.
    assert_eq!(upstream.stats().retries_total, 11);
    for _ in 0..31 {
        server.request().await;
    }
    assert_eq!(server.untaken(), 0);
}

#[tokio::test]
async fn the_breaker() {
    let upstream = upstream(nowhere(), |settings| {
        settings.max_attempts = 1;
        settings.circuit_breaker_failures = 2;
        settings.circuit_breaker_open = Duration::from_secs(3_600);
    });
    assert_eq!(upstream.state(), State::Unknown);
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
            assert!(problem.starts_with("upstream cloud does not answer"));
            assert!(retry_after > Duration::from_secs(60));
        }
        other => panic!("{other:?}"),
    }
    assert!(upstream.stats().circuit_breaker_open);
    assert_eq!(upstream.state(), State::Unhealthy);
}

/// An upstream that hangs is one that does not answer; who asks for an answer at
/// once opens no breaker.
#[tokio::test]
async fn the_breaker_opens_for_an_upstream_that_hangs() {
    for (connect_timeout, opens) in [(30, true), (90, false)] {
        let mut server = Script::start([Answer::Hang]).await;
        let told = Arc::new(Mutex::new(Vec::new()));
        let hook: AttemptHook = {
            let told = told.clone();
            Arc::new(move |attempt: &Attempt<'_>| told.lock().unwrap().push(attempt.status))
        };
        let settings = upstream(server.url(""), |settings| {
            settings.circuit_breaker_failures = 1;
            settings.transport.connect_timeout = Duration::from_secs(connect_timeout);
            settings.transport.read_timeout = Duration::from_secs(3_600);
        })
        .settings;
        let upstream = Upstream::new(settings, &FAMILY, Some(hook)).unwrap();
        let deadline = Deadline::after(Duration::from_secs(60));
        let (sent, caller) = (get("/x"), Caller::default());
        let mut hangs = Box::pin(upstream.call(OPERATION, &sent, &caller, deadline));
        tokio::select! {
            result = &mut hangs => panic!("{result:?}"),
            _ = server.request() => {}
        }
        let result = later(hangs).await;
        assert!(
            matches!(result, Err(Error::Deadline { sent: true })),
            "{result:?}"
        );
        server.left().await;
        assert_eq!(*told.lock().unwrap(), [None], "it is counted");
        assert_eq!(upstream.stats().circuit_breaker_open, opens);
    }
}

#[tokio::test]
async fn recovery() {
    let mut server = Script::start([says(503), says(503), ok(), ok()]).await;
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
    assert_eq!(upstream.state(), State::Healthy);
}

#[tokio::test]
async fn the_failure_itself_is_told_when_it_opens_the_breaker() {
    let mut server = Script::start([says(502)]).await;
    let upstream = upstream(server.url(""), |settings| {
        settings.circuit_breaker_failures = 1
    });
    assert_eq!(
        upstream_fault(call(&upstream, &get("/x")).await).http_status,
        502
    );
    server.request().await;
    assert_eq!(server.untaken(), 0);
}

#[tokio::test]
async fn a_redirect_is_followed_once_and_only_here() {
    let elsewhere = Script::start([ok()]).await;
    let location = format!("http://{}/v1/p/stacks/web%2Fx/17?a=b", elsewhere.address);
    let redirect = || Answer::Keep(reply(302, &[("location", &location)], "moved"));
    let sent = Call {
        query: "a=b".into(),
        ..post("/v1/p/stacks/web%2Fx")
    };
    let mut server = Script::start([redirect(), ok(), redirect(), redirect()]).await;
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
    // A second one is an error.
    assert_eq!(
        upstream_fault(call(&upstream, &sent).await).http_status,
        302
    );
    assert_eq!(server.untaken(), 2);
    assert_eq!(elsewhere.untaken(), 0);
}

#[tokio::test]
async fn redirects_that_lead_astray() {
    for location in [
        "http://192.0.2.1/login",
        "http://192.0.2.1/v1/p/stacks/../../admin",
        "/v1/p/stacks/%2e%2e/admin",
        "/v1/p/stacks/x\\..\\admin",
        "https://192.0.2.1",
        "",
    ] {
        let answer = reply(302, &[("location", location)], "");
        let mut server = Script::start([Answer::Keep(answer)]).await;
        let upstream = upstream(server.url(""), |_| {});
        let fault = upstream_fault(call(&upstream, &get("/v1/p/stacks/web")).await);
        assert_eq!(fault.http_status, 302, "{location}");
        server.request().await;
        assert_eq!(server.untaken(), 0, "{location}");
    }
}

#[tokio::test]
async fn a_refused_token_that_cannot_be_renewed() {
    let mut server = Script::start([says(401)]).await;
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
    assert_eq!(server.untaken(), 0);
}

#[tokio::test]
async fn a_refused_token_is_renewed_once() {
    let token = |token: &str| {
        let body = r#"{"token":{"expires_at":"2999-01-01T00:00:00Z","project":{"id":"p1"}}}"#;
        Answer::Keep(reply(201, &[("x-subject-token", token)], body))
    };
    let sent = Call {
        project: Some(4..4),
        ..post("/v1//x")
    };
    // The login, then the call; another login, and the call again, unsafe as it is.
    for (last, status) in [(ok(), 200), (says(401), 401)] {
        let mut server = Script::start([token("t1"), says(401), token("t2"), last]).await;
        let upstream = upstream(server.url(""), |settings| {
            settings.auth = credentials::Settings::Keystone(credentials::Keystone {
                auth_url: server.url("/v3"),
                identity: credentials::Identity::Token(SecretString::from("s3cret")),
                project: None,
                region: None,
                interface: "public".into(),
            });
        });
        match call(&upstream, &sent).await {
            Ok(reply) => assert_eq!(reply.status.as_u16(), status),
            refused => assert_eq!(upstream_fault(refused).http_status, status),
        }
        for want in ["t1", "t2"] {
            let (head, _) = server.request().await;
            assert!(line(&head).starts_with("POST /v3/auth/tokens"), "{head}");
            let (head, _) = server.request().await;
            assert_eq!(line(&head), "POST /v1/p1/x HTTP/1.1");
            assert_eq!(header(&head, "x-auth-token"), Some(want));
        }
        assert_eq!(server.untaken(), 0);
        assert_eq!(upstream.stats().retries_total, 0);
    }
}

#[tokio::test]
async fn deadlines() {
    let mut server = Script::start([Answer::Hang, says(503), Answer::Hang]).await;
    let upstream = upstream(server.url(""), |settings| {
        settings.transport.read_timeout = Duration::from_secs(3_600);
    });
    let (sent, caller) = (get("/x"), Caller::default());
    let within = |seconds| {
        let deadline = Deadline::after(Duration::from_secs(seconds));
        Box::pin(upstream.call(OPERATION, &sent, &caller, deadline))
    };
    match within(0).await {
        Err(Error::Deadline { sent: false }) => assert_eq!(server.untaken(), 0),
        other => panic!("{other:?}"),
    }
    // The only attempt hangs, and then the second one.
    for attempts in [1, 2] {
        let mut hangs = within(60);
        for _ in 0..attempts {
            tokio::select! {
                result = &mut hangs => panic!("{result:?}"),
                _ = server.request() => {}
            }
        }
        match later(hangs).await {
            Err(Error::Deadline { sent: true }) => {}
            other => panic!("{other:?}"),
        }
        server.left().await;
    }
    assert_eq!(upstream.stats().in_flight, 0);
}

#[tokio::test]
async fn a_caller_that_leaves_closes_the_request() {
    let mut server = Script::start([Answer::Hang, ok()]).await;
    let upstream = Arc::new(upstream(server.url(""), |_| {}));
    let task = tokio::spawn({
        let upstream = upstream.clone();
        async move { call(&upstream, &post("/x")).await }
    });
    server.request().await;
    assert_eq!(upstream.stats().in_flight, 1);
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    server.left().await;
    assert_eq!(upstream.stats().in_flight, 0);
    call(&upstream, &get("/x")).await.unwrap();
}

#[tokio::test]
async fn a_full_queue() {
    let mut server = Script::start([Answer::Hang]).await;
    let upstream = Arc::new(upstream(server.url(""), |settings| {
        settings.max_concurrent_calls = 1;
        settings.max_queued_calls = 1;
    }));
    let hanging = tokio::spawn({
        let upstream = upstream.clone();
        async move { call(&upstream, &get("/x")).await }
    });
    server.request().await;
    // One that waits ends at its deadline, and has sent nothing.
    let deadline = Deadline::after(Duration::from_secs(30));
    let (sent, caller) = (get("/x"), Caller::default());
    let waiting = upstream.call(OPERATION, &sent, &caller, deadline);
    // Polled in this order: the first is in the queue before the second comes.
    let both = async { tokio::join!(biased; waiting, call(&upstream, &sent)) };
    let (waited, refused) = later(both).await;
    assert!(
        matches!(waited, Err(Error::Deadline { sent: false })),
        "{waited:?}"
    );
    match refused {
        Err(Error::Overload { code, .. }) => assert_eq!(code, Code::ResourceExhausted),
        other => panic!("{other:?}"),
    }
    hanging.abort();
    assert!(hanging.await.unwrap_err().is_cancelled());
    server.left().await;
    assert_eq!(server.untaken(), 0);
    assert_eq!(upstream.stats(), Stats::default());
}

#[tokio::test]
async fn probes() {
    let mut server = Script::start([says(404), Answer::Hang]).await;
    let upstream_ = upstream(server.url("/base/v1/p"), |settings| {
        settings.auth = credentials::Settings::Token {
            header: HeaderName::from_static("x-auth-token"),
            token: SecretString::from("s3cret"),
        };
    });
    assert_eq!(
        upstream_.probe(Duration::from_secs(60)).await,
        State::Healthy
    );
    assert_eq!(upstream_.state(), State::Healthy);
    let (head, _) = server.request().await;
    assert_eq!(line(&head), "GET /base/healthcheck HTTP/1.1");
    assert_eq!(header(&head, "x-auth-token"), None);
    assert_eq!(
        upstream_.probe(Duration::from_millis(20)).await,
        State::Unhealthy
    );
    assert_eq!(upstream_.state(), State::Unhealthy);
    let down = upstream(nowhere(), |_| {});
    assert_eq!(down.probe(Duration::from_secs(60)).await, State::Unhealthy);
    // Nobody has said where it is.
    let unknown = upstream(nowhere(), |settings| settings.endpoint = None);
    assert_eq!(unknown.probe(Duration::from_secs(60)).await, State::Unknown);
    let error = call(&unknown, &get("/x")).await.unwrap_err();
    assert!(matches!(error, Error::NotConfigured(_)), "{error:?}");
}

#[tokio::test]
async fn attempts_are_told() {
    let server = Script::start([says(503), cut_off(), ok()]).await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let hook: AttemptHook = {
        let told = told.clone();
        Arc::new(move |attempt: &Attempt<'_>| {
            assert_eq!((attempt.upstream, attempt.rpc), ("cloud", "Do"));
            let status = attempt.status.map(|status| status.as_u16());
            told.lock().unwrap().push((attempt.number, status));
        })
    };
    let settings = upstream(server.url(""), |_| {}).settings;
    let upstream = Upstream::new(settings, &FAMILY, Some(hook)).unwrap();
    call(&upstream, &get("/x")).await.unwrap();
    let told = told.lock().unwrap();
    assert_eq!(*told, [(1, Some(503)), (2, None), (3, Some(200))]);
}

#[test]
fn settings_that_cannot_be() {
    type Change = fn(&mut Settings);
    let cases: [(Change, &str); 4] = [
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
    ];
    for (change, says) in cases {
        let mut settings = Settings::new("cloud", "test", credentials::Settings::None);
        change(&mut settings);
        let problem = Upstream::new(settings, &FAMILY, None).unwrap_err();
        assert!(problem.starts_with(says), "{problem}");
    }
}
