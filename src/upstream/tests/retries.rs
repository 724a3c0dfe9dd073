//! Which calls are retried, and what their clients learn.

use tokio::time::Instant;

use super::*;
use crate::error::HINT;

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
