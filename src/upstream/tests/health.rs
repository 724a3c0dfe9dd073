//! The circuit breaker and health checks.

use super::*;
use crate::downstream::ClientKey;

const LONG: Duration = Duration::from_secs(60);

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

/// Probes once and returns the recorded health.
async fn probe(upstream: &Upstream, timeout: Duration) -> Health {
    if let Some(result) = upstream.probe(timeout).await {
        upstream.record_response(&result);
    }
    upstream.responds()
}

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
