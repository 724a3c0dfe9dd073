//! Broken upstreams, hostile input and cancelled calls: the status, its message, what is
//! sent, and that the gateway still serves.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use crate::support::client::json as to_json;
use crate::support::recorder::{Answer, Seen};
use crate::support::{Gateway, Recorder, nowhere, settings, upstream};

const GET: &str = "SoftwareDeploymentService/GetSoftwareDeployment";
const CREATE: &str = "SoftwareConfigService/CreateSoftwareConfig";

fn get() -> serde_json::Value {
    json!({"deployment_id": "d1"})
}

/// Reads the head of a request and its body by `content-length`.
async fn read_request(stream: &mut TcpStream) -> String {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&seen).to_lowercase();
        if let Some(end) = text.find("\r\n\r\n") {
            let length: usize = text
                .lines()
                .find_map(|l| l.strip_prefix("content-length: "))
                .map_or(0, |l| l.trim().parse().unwrap());
            if seen.len() >= end + 4 + length {
                return String::from_utf8_lossy(&seen).into_owned();
            }
        }
        let n = stream.read(&mut buffer).await.unwrap();
        if n == 0 {
            return String::from_utf8_lossy(&seen).into_owned();
        }
        seen.extend_from_slice(&buffer[..n]);
    }
}

async fn answered(answer: Answer) -> (Recorder, Gateway, Result<serde_json::Value, Status>) {
    let recorder = Recorder::fixed(answer).await;
    let gateway = Gateway::with(vec![upstream("up1", "heat", &recorder.url())]).await;
    let result = gateway.client.call(GET, get()).await.map(|m| to_json(&m));
    (recorder, gateway, result)
}

/// A body with HTTP 200 that is not the requested resource is an error: of the family where
/// it is one, else INTERNAL with the missing member.
#[tokio::test]
async fn success_with_another_body_is_an_error() {
    let create = "SoftwareDeploymentService/CreateSoftwareDeployment";
    let list = "StackService/ListStacks";
    let maintenance = json!({"error": {"message": "maintenance"}});
    let own = json!({"code": 404, "title": "Not Found", "explanation": "x",
        "error": {"type": "EntityNotFound", "message": "gone", "traceback": null}});
    for (rpc, request, body, code, text) in [
        (
            GET,
            get(),
            json!({}),
            Code::Internal,
            "`software_deployment` is missing",
        ),
        (
            GET,
            get(),
            serde_json::Value::Null,
            Code::Internal,
            "`software_deployment` is missing",
        ),
        (
            GET,
            get(),
            maintenance.clone(),
            Code::Internal,
            "maintenance",
        ),
        (GET, get(), own, Code::NotFound, "gone"),
        (
            GET,
            get(),
            json!({"software_deployment": {}}),
            Code::Internal,
            "in `software_deployment`, none of the members",
        ),
        // Arbitrary JSON, which could be the content.
        (
            "StackService/GetStackTemplate",
            json!({"stack_name": "n", "stack_id": "i"}),
            maintenance.clone(),
            Code::Internal,
            "maintenance",
        ),
        (
            "StackService/ExportStack",
            json!({"stack_name": "n", "stack_id": "i"}),
            json!({"itemNotFound": {"code": 404, "message": "no such stack"}}),
            Code::NotFound,
            "no such stack",
        ),
        (
            "StackService/AbandonStack",
            json!({"stack_name": "n", "stack_id": "i"}),
            maintenance.clone(),
            Code::Internal,
            "maintenance",
        ),
        (
            list,
            json!({}),
            json!({}),
            Code::Internal,
            "`stacks` is missing",
        ),
        (
            list,
            json!({}),
            maintenance.clone(),
            Code::Internal,
            "`stacks` is missing",
        ),
        (
            create,
            json!({"config_id": "c", "server_id": "s"}),
            json!({}),
            Code::Internal,
            "may have acted",
        ),
        (
            create,
            json!({"config_id": "c", "server_id": "s"}),
            maintenance,
            Code::Internal,
            "may have acted",
        ),
    ] {
        let recorder = Recorder::fixed(Answer::json(200, &body)).await;
        let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
        let status = gateway.client.call(rpc, request).await.unwrap_err();
        assert_eq!(status.code(), code, "{rpc} {body}: {status:?}");
        assert!(
            status.message().contains(text),
            "{rpc} {body}: {}",
            status.message()
        );
        assert_eq!(recorder.seen().len(), 1, "{rpc} {body}: not retried");
    }
}

/// A change without response fields succeeds whatever the body says, except for a web page
/// and an error.
#[tokio::test]
async fn change_without_response_fields_needs_no_body() {
    let page = "<html><body>Maintenance</body></html>";
    let error = r#"{"error": {"code": 503, "title": "Down", "message": "maintenance"}}"#;
    for (content_type, body, want) in [
        ("text/plain", "OK", None),
        ("application/json", "true", None),
        ("application/json", "[]", None),
        ("application/json", "{\"cut", None),
        ("text/html; charset=utf-8", page, Some("found text/html")),
        ("text/plain", page, Some("no web page")),
        ("text/plain", error, Some("maintenance")),
    ] {
        let recorder = Recorder::fixed(Answer::text(200, content_type, body)).await;
        let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
        let request = json!({"stack_name": "n", "stack_id": "i"});
        let call = gateway
            .client
            .call("StackActionService/SuspendStack", request);
        match (call.await, want) {
            (Ok(_), None) => {}
            (Err(status), Some(text)) => {
                assert_eq!(sent(&status), "true", "{body}");
                let message = status.message();
                assert!(message.contains(text), "{body}: {message}");
                assert!(message.contains("may have acted"), "{body}: {message}");
                let code = match text {
                    "maintenance" => Code::Unknown,
                    _ => Code::Internal,
                };
                assert_eq!(status.code(), code, "{body}: {status:?}");
            }
            (got, _) => panic!("{content_type} {body}: {got:?}"),
        }
    }
}

fn sent(status: &Status) -> String {
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    info.metadata["sent"].clone()
}

/// An error named in a 200 does not invite a client to repeat a call that may have acted.
#[tokio::test]
async fn error_in_a_success_does_not_invite_to_repeat_a_creation() {
    for (status, title, code, of_read) in [
        (503, "Service Unavailable", Code::Unknown, Code::Unavailable),
        (429, "Too Many", Code::Unknown, Code::ResourceExhausted),
        (409, "Conflict", Code::AlreadyExists, Code::Aborted),
    ] {
        let body = json!({"error": {"code": status, "title": title, "message": "later"}});
        let answer = Answer::json(200, &body).with("retry-after", "1");
        let recorder = Recorder::fixed(answer).await;
        let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
        let error = gateway
            .client
            .call(CREATE, json!({"name": "x"}))
            .await
            .unwrap_err();
        assert_eq!(error.code(), code, "{error:?}");
        assert!(error.get_error_details().retry_info().is_none());
        assert_eq!(sent(&error), "true");
        let error = gateway.client.call(GET, get()).await.unwrap_err();
        assert_eq!(error.code(), of_read, "{error:?}");
        assert_eq!(recorder.seen().len(), 2, "not retried");
    }
}

/// A byte order mark, and content codings in all spellings; others are named.
#[tokio::test]
async fn response_is_read_in_all_encodings() {
    let body = r#"{"software_deployment": {"id": "d1"}}"#;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, body.as_bytes()).unwrap();
    let gzip = encoder.finish().unwrap();
    let json = |body: Vec<u8>| Answer::text(200, "application/json", body);
    for answer in [
        json(["\u{feff}".as_bytes(), body.as_bytes()].concat()),
        json(gzip.clone()).with("content-encoding", "GZIP"),
        json(gzip.clone()).with("content-encoding", "x-gzip"),
        json(gzip.clone()).with("content-encoding", "gzip, identity"),
        json(body.into()).with("content-encoding", "identity"),
    ] {
        let (_recorder, _gateway, result) = answered(answer.clone()).await;
        let message = result.unwrap_or_else(|e| panic!("{:?}: {e:?}", answer.headers));
        assert_eq!(message["software_deployment"]["id"], "d1");
    }
    for status in [200, 404] {
        let mut answer = json(vec![0x8b, 1, 2, 3]).with("content-encoding", "br");
        answer.status = status;
        let (_recorder, _gateway, result) = answered(answer).await;
        let error = result.unwrap_err();
        assert!(
            error
                .message()
                .contains("the encoding `br` is not supported"),
            "{error:?}"
        );
    }
    // The error of an API gateway.
    let error = "\u{feff}{\"error_code\": \"APIGW.0101\", \"error_msg\": \"no such API\"}";
    let answer = Answer::text(404, "application/json", error);
    let (_recorder, _gateway, result) = answered(answer).await;
    let error = result.unwrap_err();
    assert!(error.message().starts_with("no such API ("), "{error:?}");
    // The limit holds for the decoded body.
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, &vec![b' '; 20 << 20]).unwrap();
    let long = json(encoder.finish().unwrap()).with("content-encoding", "deflate");
    let (_recorder, _gateway, result) = answered(long).await;
    assert_eq!(result.unwrap_err().code(), Code::ResourceExhausted);
}

/// A number that is not JSON makes no stack unreadable.
#[tokio::test]
async fn numbers_that_are_not_json_are_read() {
    let body = r#"{"software_deployment": {"id": "d1",
        "output_values": {"a": NaN, "b": [1e400, -Infinity], "c": 1}}}"#;
    let recorder = Recorder::fixed(Answer::text(200, "application/json", body)).await;
    let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
    let response = gateway.client.call_with(GET, get(), &[]).await.unwrap();
    let inexact = response.metadata().get("drawbridge-inexact").unwrap();
    let of = |name: &str| format!("software_deployment.output_values.{name}");
    let inexact: Vec<&str> = inexact
        .to_str()
        .unwrap()
        .split(',')
        .map(str::trim)
        .collect();
    assert_eq!(inexact, [of("a"), of("b[0]"), of("b[1]")]);
    let message = to_json(response.get_ref());
    assert_eq!(
        message["software_deployment"]["output_values"],
        json!({"a": "NaN", "b": ["1e400", "-Infinity"], "c": 1.0})
    );
}

#[tokio::test]
async fn undecodable_response_is_internal() {
    for (name, answer, path) in [
        (
            "html",
            Answer::text(200, "text/html", "<html>hello</html>"),
            "",
        ),
        (
            "cut off",
            Answer::text(
                200,
                "application/json",
                r#"{"software_deployment": {"id": "x""#,
            ),
            "",
        ),
        ("array", Answer::text(200, "application/json", "[]"), ""),
        (
            "garbage behind",
            Answer::text(200, "application/json", "{} x"),
            "",
        ),
        (
            "bad utf-8",
            Answer::text(200, "application/json", b"{\"a\": \"\xff\"}".to_vec()),
            "",
        ),
        (
            "wrong type",
            Answer::text(
                200,
                "application/json",
                r#"{"software_deployment": {"creation_time": true}}"#,
            ),
            "software_deployment.creation_time",
        ),
        (
            "wrong time",
            Answer::text(
                200,
                "application/json",
                r#"{"software_deployment": {"creation_time": "soon"}}"#,
            ),
            "software_deployment.creation_time",
        ),
    ] {
        let (_recorder, _gateway, result) = answered(answer).await;
        let status = result.expect_err(name);
        assert_eq!(status.code(), Code::Internal, "{name}: {status:?}");
        assert!(
            status.message().contains(path),
            "{name}: {}",
            status.message()
        );
        assert!(
            status.message().contains("up1"),
            "{name}: {}",
            status.message()
        );
        for text in ["hello", "\"x\"", "soon"] {
            assert!(!status.message().contains(text), "{name}: {status:?}");
        }
    }
}

#[tokio::test]
async fn empty_response_is_not_the_resource() {
    let none = Answer {
        status: 204,
        headers: Vec::new(),
        body: Vec::new(),
    };
    let (_recorder, _gateway, result) = answered(none).await;
    assert_eq!(result.unwrap_err().code(), Code::Internal);
    for body in ["", " \n", "null"] {
        let answer = Answer::text(200, "application/json", body);
        let (_recorder, _gateway, result) = answered(answer).await;
        let status = result.expect_err(body);
        assert_eq!(status.code(), Code::Internal, "{body}: {status:?}");
        assert!(
            status.message().contains("found none"),
            "{}",
            status.message()
        );
    }
}

#[tokio::test]
async fn response_over_the_limit_is_resource_exhausted() {
    let recorder =
        Recorder::fixed(Answer::text(200, "application/json", vec![b' '; 20 << 20])).await;
    let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
    let status = gateway.client.call(GET, get()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(
        status.message().contains("max_response_bytes"),
        "{}",
        status.message()
    );
}

#[tokio::test]
async fn refused_connection_is_unavailable() {
    let mut settings = upstream("u", "heat", &format!("http://{}", nowhere()));
    settings.max_attempts = 1;
    let gateway = Gateway::with(vec![settings]).await;
    let status = gateway.client.call(GET, get()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.message().contains("connect"), "{}", status.message());
}

#[tokio::test]
async fn error_page_of_a_proxy_depends_on_idempotency() {
    let page = "<html><body><h1>502 Bad Gateway</h1><hr>nginx</body></html>";
    let recorder = Recorder::fixed(Answer::text(502, "text/html", page)).await;
    let mut settings = upstream("up1", "heat", &recorder.url());
    settings.max_attempts = 1;
    let gateway = Gateway::with(vec![settings]).await;
    for (method, request, code, message) in [
        (
            GET,
            get(),
            Code::Unavailable,
            "upstream up1: 502 Bad Gateway nginx (a proxy in front of it got no valid response from it; \
             try again later; if it persists, check that the upstream is running)",
        ),
        (
            CREATE,
            json!({"name": "x"}),
            Code::Unknown,
            "upstream up1: 502 Bad Gateway nginx (a proxy in front of it got no valid response from it; \
             the upstream may have acted: check before you repeat the call)",
        ),
    ] {
        let status = gateway.client.call(method, request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
        assert_eq!(status.message(), message);
    }
    assert_eq!(recorder.seen().len(), 2);
    gateway.running.stop().await.unwrap();
}

#[tokio::test]
async fn unavailable_with_retry_after_is_retried() {
    let (recorder, _gateway, result) =
        answered(Answer::json(503, &json!({"message": "busy"})).with("retry-after", "3600")).await;
    let status = result.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let delay = status
        .get_error_details()
        .retry_info()
        .unwrap()
        .retry_delay
        .unwrap();
    assert_eq!(delay, Duration::from_secs(3600));
    assert_eq!(
        recorder.seen().len(),
        1,
        "an hour is longer than anyone waits"
    );

    // A create is retried only after what certainly was not processed: a proxy may add
    // `retry-after` to the 503 of a call that it has forwarded.
    let token_middleware = "The server is currently unavailable. Please try again at a later \
                            time.<br /><br />\nThe Keystone service is temporarily unavailable.";
    for (message, requests) in [("busy", 1), (token_middleware, 2)] {
        let times = std::sync::atomic::AtomicUsize::new(0);
        let body = json!({"code": "503 Service Unavailable", "title": "Service Unavailable",
            "message": message});
        let recorder = Recorder::start(move |_| {
            match times.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
                0 => Answer::json(503, &body).with("retry-after", "0"),
                _ => Answer::json(200, &json!({"software_config": {"id": "c"}})),
            }
        })
        .await;
        let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
        let result = gateway.client.call(CREATE, json!({"name": "x"})).await;
        let code = result.err().map(|status| status.code());
        assert_eq!(code, (requests == 1).then_some(Code::Unknown), "{message}");
        assert_eq!(recorder.seen().len(), requests, "{message}");
    }
}

#[tokio::test]
async fn non_idempotent_call_is_not_retried() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let request = read_request(&mut stream).await;
            if !request.starts_with("GET / ") && !request.is_empty() {
                tell.send(request).unwrap();
            }
            // Closed without a response.
            drop(stream);
        }
    });
    let gateway = Gateway::with(vec![upstream("u", "heat", &url)]).await;
    let status = gateway
        .client
        .call(CREATE, json!({"name": "x"}))
        .await
        .unwrap_err();
    assert!(
        matches!(status.code(), Code::Unknown | Code::Unavailable),
        "an unsafe call without an answer: {status:?}"
    );
    assert!(
        status.message().contains("may have"),
        "{}",
        status.message()
    );
    assert!(told.recv().await.unwrap().starts_with("POST "));
    // A read is retried up to the limit of attempts.
    let status = gateway.client.call(GET, get()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    let mut gets = 0;
    while let Ok(request) = told.try_recv() {
        assert!(request.starts_with("GET "), "{request}");
        gets += 1;
    }
    assert_eq!(gets, 3);
}

#[tokio::test]
async fn redirect_to_another_host_is_not_followed() {
    let other = Recorder::fixed(Answer::json(
        200,
        &json!({"software_deployment": {"id": "d1"}}),
    ))
    .await;
    let location = format!("{}/v1/p1/software_deployments/d1", other.url());
    for status in [301, 302, 303, 307, 308] {
        let (recorder, _gateway, result) =
            answered(Answer::json(status, &json!({})).with("location", &location)).await;
        let error = result.unwrap_err();
        assert_ne!(error.code(), Code::Ok);
        assert_eq!(recorder.seen().len(), 1, "{status}: {error:?}");
    }
    assert!(other.seen().is_empty(), "nothing reaches the other host");
}

#[tokio::test]
async fn hostile_path_values_are_escaped_or_rejected() {
    let recorder = Recorder::fixed(Answer::json(
        200,
        &json!({"software_deployment": {"id": "d1"}}),
    ))
    .await;
    let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
    for id in ["", ".", "..", "../x", "a/../b"] {
        let status = gateway
            .client
            .call(GET, json!({"deployment_id": id}))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{id:?}");
        let details = status.get_error_details();
        assert_eq!(
            details.bad_request().unwrap().field_violations[0].field,
            "deployment_id"
        );
    }
    assert!(recorder.seen().is_empty());
    for (id, sent) in [
        ("a/b", "a%2Fb"),
        ("%2e%2e", "%252e%252e"),
        ("a b?c#d", "a%20b%3Fc%23d"),
        ("é\n", "%C3%A9%0A"),
        ("日本", "%E6%97%A5%E6%9C%AC"),
        ("a~b-c_d.e", "a~b-c_d.e"),
    ] {
        gateway
            .client
            .call(GET, json!({"deployment_id": id}))
            .await
            .unwrap();
        assert_eq!(
            recorder.take()[0].target,
            format!("/v1/p1/software_deployments/{sent}"),
            "{id:?}"
        );
    }
}

#[tokio::test]
async fn deadline_and_cancellation_end_the_upstream_call() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // The default deadline: a client's own timer would also end the call.
    let mut short = settings(vec![upstream("u", "heat", &url)]);
    short.server.default_deadline = Duration::from_secs(20);
    let hasty = Gateway::start(short).await;
    let gateway = Gateway::with(vec![upstream("u", "heat", &url)]).await;
    // The health probe connects, too: it gets a response.
    let accept = async || {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let request = read_request(&mut stream).await;
            if request.starts_with("GET / ") {
                stream
                    .write_all(b"HTTP/1.1 300 x\r\ncontent-length: 0\r\n\r\n")
                    .await
                    .unwrap();
                continue;
            }
            return stream;
        }
    };

    let method = gateway.client.method(GET);
    let message = Bytes::from_static(b"\x12\x02d1");
    let call = hasty.client.raw(&method, Request::new(message.clone()));
    let mut call = Box::pin(call);
    let mut stream = tokio::select! {
        result = &mut call => panic!("{result:?}"),
        stream = accept() => stream,
    };
    // The call is sent, however long that took; the deadline is next.
    tokio::time::pause();
    let result = call.await;
    tokio::time::resume();
    let status = result.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert_eq!(
        stream.read(&mut [0; 64]).await.unwrap(),
        0,
        "the upstream request is closed"
    );

    let client = gateway.client.clone();
    let call = tokio::spawn(async move { client.raw(&method, Request::new(message)).await });
    let mut stream = accept().await;
    call.abort();
    assert_eq!(
        stream.read(&mut [0; 64]).await.unwrap(),
        0,
        "the upstream request is closed"
    );
}

#[tokio::test]
async fn unknown_upstream_and_method_are_rejected() {
    let recorder = Recorder::fixed(Answer::json(
        200,
        &json!({"software_deployment": {"id": "d1"}}),
    ))
    .await;
    let gateway = Gateway::with(vec![upstream("one", "heat", &recorder.url())]).await;
    let status = gateway
        .client
        .call_with(GET, get(), &[("drawbridge-upstream", "two")])
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert!(status.message().contains("one"), "{}", status.message());
    // No upstream of the family at all.
    let status = gateway
        .client
        .call("JobService/GetJob", json!({"job_id": "j"}))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    assert!(
        status.message().contains("servicestage"),
        "{}",
        status.message()
    );
    assert!(recorder.seen().iter().all(|s| s.target == "/"));
}

#[tokio::test]
async fn malformed_request_is_rejected() {
    let recorder = Recorder::fixed(Answer::json(
        200,
        &json!({"software_deployment": {"id": "d1"}}),
    ))
    .await;
    let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
    let method = gateway.client.method(GET);
    for bytes in [
        &b"\x12\x05ab"[..],
        b"\x12\x01\xff",
        b"\x07",
        b"\x0b",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        let status = gateway
            .client
            .raw(&method, Request::new(Bytes::copy_from_slice(bytes)))
            .await
            .unwrap_err();
        assert_eq!(
            status.code(),
            Code::InvalidArgument,
            "{bytes:?}: {status:?}"
        );
    }
    let mut settings = settings(vec![upstream("u", "heat", &recorder.url())]);
    settings.server.max_request_bytes = 1000;
    let gateway = Gateway::start(settings).await;
    let status = gateway
        .client
        .call(CREATE, json!({"name": "x".repeat(2000)}))
        .await
        .unwrap_err();
    assert!(
        matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted),
        "{status:?}"
    );
    assert!(recorder.seen().iter().all(|s| s.target == "/"));
}

/// Rackspace's documents do not list some operations: a 404 of the router shows that one is
/// missing.
#[tokio::test]
async fn not_found_of_an_unverified_operation_is_unimplemented() {
    let body = json!({"code": "404 Not Found", "title": "Not Found",
        "message": "The resource could not be found.<br /><br />\n\n\n"});
    let recorder = Recorder::fixed(Answer::json(404, &body)).await;
    let config = json!({"project_id": "p", "config_id": "c"});
    let stack = json!({"project_id": "p", "stack_name": "s", "stack_id": "i"});
    for (dialect, rpc, request, want) in [
        (
            "rackspace",
            "SoftwareConfigService/GetSoftwareConfig",
            &config,
            Code::Unimplemented,
        ),
        (
            "openstack",
            "SoftwareConfigService/GetSoftwareConfig",
            &config,
            Code::NotFound,
        ),
        ("rackspace", "StackService/GetStack", &stack, Code::NotFound),
    ] {
        let mut settings = upstream("u", "heat", &recorder.url());
        settings.dialect = dialect.to_owned();
        let gateway = Gateway::with(vec![settings]).await;
        let status = gateway.client.call(rpc, request.clone()).await.unwrap_err();
        assert_eq!(status.code(), want, "{dialect} {rpc}: {status:?}");
    }
}

#[tokio::test]
async fn long_error_keeps_its_code() {
    let body = json!({"code": 404, "title": "Not Found", "explanation": "x",
        "error": {"type": "NotFound", "message": "é\n".repeat(10_000), "traceback": "secret"}});
    let (_recorder, _gateway, result) = answered(Answer::json(404, &body)).await;
    let status = result.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let size: usize = status.message().len() * 3 + status.details().len() * 4 / 3;
    assert!(size < 8 << 10 || status.message().len() < 4 << 10, "{size}");
    assert!(!format!("{status:?}").contains("secret"));
}

#[tokio::test]
async fn only_listed_metadata_is_forwarded() {
    let recorder = Recorder::fixed(Answer::json(
        200,
        &json!({"software_deployment": {"id": "d1"}}),
    ))
    .await;
    let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
    gateway
        .client
        .call_with(
            GET,
            get(),
            &[
                ("x-auth-token", "caller-token"),
                ("authorization", "Bearer caller"),
                ("cookie", "c=1"),
                ("x-request-id", "r-1"),
                (
                    "traceparent",
                    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                ),
                ("x-other", "o"),
            ],
        )
        .await
        .unwrap();
    let seen = recorder
        .seen()
        .into_iter()
        .find(|s| s.target != "/")
        .unwrap();
    let mut names: Vec<_> = seen.headers.keys().map(|n| n.as_str()).collect();
    names.sort();
    // No credentials: this upstream has `auth` none.
    assert_eq!(
        names,
        [
            "accept",
            "accept-encoding",
            "host",
            "traceparent",
            "user-agent",
            "x-openstack-request-id",
            "x-request-id"
        ]
    );
    assert_eq!(seen.header("x-request-id"), "r-1");
}

/// OpenStack logs the client's request id only from its own header, and only in its own form.
#[tokio::test]
async fn openstack_is_sent_the_request_id_of_the_client() {
    const ID: &str = "req-3f9e01b3-7d1b-4f6e-9a5c-0123456789ab";
    let recorder = Recorder::fixed(Answer::json(404, &json!({}))).await;
    let gateway = Gateway::with(vec![
        upstream("heat", "heat", &recorder.url()),
        upstream("ao", "jp1ao", &recorder.url()),
        upstream("huawei", "servicestage", &recorder.url()),
    ])
    .await;
    let get_task = json!({"id": 1});
    let get_job = json!({"project_id": "p", "job_id": "j"});
    for (rpc, request, metadata, want) in [
        (GET, get(), ("x-openstack-request-id", ID), Some(ID)),
        (GET, get(), ("x-request-id", ID), Some(ID)),
        (GET, get(), ("x-request-id", &ID[4..]), Some(ID)),
        (GET, get(), ("x-openstack-request-id", "req-1"), None),
        (GET, get(), ("x-request-id", "r-1"), None),
        ("TaskService/GetTask", get_task, ("x-request-id", ID), None),
        ("JobService/GetJob", get_job, ("x-request-id", ID), None),
    ] {
        let before = recorder.seen().len();
        let status = gateway
            .client
            .call_with(rpc, request, &[metadata])
            .await
            .unwrap_err();
        let seen = recorder.seen().split_off(before);
        let is_call = |seen: &&Seen| seen.headers.contains_key("x-request-id");
        let seen = seen.iter().find(is_call).unwrap();
        let sent = seen.header("x-openstack-request-id");
        let gateway_id = status
            .metadata()
            .get("x-request-id")
            .unwrap()
            .to_str()
            .unwrap();
        assert_eq!(seen.header("x-request-id"), gateway_id, "{metadata:?}");
        let info = status.get_details_request_info().unwrap();
        assert_eq!(info.serving_data, gateway_id, "{metadata:?}");
        match (rpc, want) {
            (GET, Some(want)) => assert_eq!(sent, want, "{metadata:?}"),
            (GET, None) => {
                assert!(sent.starts_with("req-") && sent.len() == ID.len(), "{sent}");
                assert_ne!(sent, ID);
            }
            _ => assert_eq!(sent, "", "{rpc}"),
        }
        if metadata == ("x-openstack-request-id", "req-1") {
            assert_eq!(sent, gateway_id);
        }
    }
}

#[tokio::test]
async fn passthrough_sends_the_clients_credentials() {
    let recorder = Recorder::fixed(Answer::json(
        200,
        &json!({"software_deployment": {"id": "d1"}}),
    ))
    .await;
    let mut settings = upstream("u", "heat", &recorder.url());
    settings.auth = drawbridge::credentials::Settings::Passthrough;
    let gateway = Gateway::with(vec![settings.clone()]).await;
    let status = gateway.client.call(GET, get()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    assert!(
        status.message().contains("x-auth-token"),
        "{}",
        status.message()
    );
    gateway
        .client
        .call_with(GET, get(), &[("x-auth-token", "t1")])
        .await
        .unwrap();
    let seen = recorder
        .seen()
        .into_iter()
        .find(|s| s.target != "/")
        .unwrap();
    assert_eq!(seen.header("x-auth-token"), "t1");

    let recorder = Recorder::fixed(Answer::json(
        401,
        &json!({"error": {"code": 401, "title": "Unauthorized", "message": "m"}}),
    ))
    .await;
    settings.endpoint = Some(recorder.url().parse().unwrap());
    let gateway = Gateway::with(vec![settings]).await;
    let status = gateway
        .client
        .call_with(GET, get(), &[("x-auth-token", "t1")])
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    let sent = recorder.seen().iter().filter(|s| s.target != "/").count();
    assert_eq!(sent, 1, "the caller's token is not tried twice");
}

#[tokio::test]
async fn calls_over_the_concurrency_limit_fail_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut one = upstream("u", "heat", &url);
    one.max_concurrent_calls = 2;
    one.max_queued_calls = 2;
    let gateway = Gateway::with(vec![one]).await;
    // The upstream accepts and never responds.
    let held = tokio::spawn(async move {
        let mut streams = Vec::new();
        loop {
            streams.push(listener.accept().await.unwrap());
        }
    });
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let client = gateway.client.clone();
        calls.spawn(async move { client.call(GET, get()).await });
    }
    // 46 get no permit and no place in the queue; the others still wait.
    for _ in 0..46 {
        let status = calls.join_next().await.unwrap().unwrap().unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        assert!(status.get_error_details().retry_info().is_some());
    }
    assert_eq!(calls.len(), 4);
    calls.abort_all();
    while calls.join_next().await.is_some() {}
    held.abort();
    assert!(
        gateway
            .client
            .call("GatewayService/ListUpstreams", json!({}))
            .await
            .is_ok()
    );
}

/// Headers that some gRPC clients reject are not forwarded; the response is.
#[tokio::test]
async fn invalid_response_headers_are_not_forwarded() {
    for (value, passed) in [
        ("199 - \"old\"".to_owned(), true),
        ("199 - \"für alle\"".to_owned(), false),
        ("x".repeat(1 << 10), true),
        ("x".repeat((1 << 10) + 1), false),
    ] {
        let answer = Answer::json(200, &json!({"software_deployment": {"id": "d1"}}));
        let recorder = Recorder::fixed(answer.with("warning", &value)).await;
        let gateway = Gateway::with(vec![upstream("up1", "heat", &recorder.url())]).await;
        let got = gateway.client.call_with(GET, get(), &[]).await.unwrap();
        let warning = got
            .metadata()
            .get("warning")
            .map(|v| v.to_str().unwrap().to_owned());
        assert_eq!(warning, passed.then_some(value));
        gateway.running.stop().await.unwrap();
    }
}
