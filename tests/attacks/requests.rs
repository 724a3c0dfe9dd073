//! Requests and uploads that arrive slowly or never.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::support::{Gateway, Honest, Reply, Upstream, eventually, raw, within};

const GET: &str = "openstack.orchestration.v1.SoftwareDeploymentService/GetSoftwareDeployment";
const WATCH: &str = "openstack.orchestration.v1.SoftwareDeploymentService/WatchSoftwareDeployment";
const IMPORT: &str = "hitachi.automation.v1.ServiceTemplateService/ImportServiceTemplate";
const REFLECTION: &str = "grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

const OK: u32 = 0;
const DEADLINE_EXCEEDED: u32 = 4;
const RESOURCE_EXHAUSTED: u32 = 8;

/// How often a byte is sent: more often than the idle timeout of these tests.
const PAUSE: Duration = Duration::from_millis(300);

/// Sends one byte again and again until the call ends. Returns its code.
async fn trickle(connection: &raw::Connection, method: &str, beginning: &[u8]) -> u32 {
    send_again(connection, method, beginning, b"x").await
}

/// As [`trickle`], with empty frames only.
async fn trickle_nothing(connection: &raw::Connection, method: &str) -> u32 {
    send_again(connection, method, b"", b"").await
}

async fn send_again(
    connection: &raw::Connection,
    method: &str,
    beginning: &[u8],
    again: &'static [u8],
) -> u32 {
    let (response, mut body) = connection.open(raw::attack(method)).await.unwrap();
    let beginning = Bytes::copy_from_slice(beginning);
    body.send_data(beginning, false).unwrap();
    let mut response = tokio::spawn(raw::finish(response));
    loop {
        tokio::select! {
            ended = &mut response => return ended.unwrap().unwrap().code,
            () = tokio::time::sleep(PAUSE) => {
                // The stream may have ended.
                let _ = body.send_data(Bytes::from_static(again), false);
            }
        }
    }
}

/// One byte at a time keeps no request: neither of a unary call, a watch or an upload, nor of
/// reflection. Nor do empty frames.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trickling_requests_time_out() {
    let upstream = Upstream::plain();
    let settings = "[server]\nrequest_body_idle_timeout_secs = 1\n";
    let upstreams = upstream.heat("") + &upstream.jp1ao("");
    let gateway = Gateway::start(&(settings.to_owned() + &upstreams));
    let honest = Honest::start(gateway.grpc);
    honest.succeeds(2).await;
    let before = gateway.usage();
    let connection = Arc::new(raw::connect(gateway.grpc).await.unwrap());
    // A message of 4 MB, of which nothing has arrived.
    let prefix = [0, 0, 0x3f, 0, 0];
    let mut tasks = tokio::task::JoinSet::new();
    for method in [GET, WATCH, IMPORT, REFLECTION] {
        for _ in 0..5 {
            let of_bytes = connection.clone();
            tasks.spawn(async move { (method, trickle(&of_bytes, method, &prefix).await) });
            let of_nothing = connection.clone();
            tasks.spawn(async move { (method, trickle_nothing(&of_nothing, method).await) });
        }
    }
    while let Some(ended) = within("requests end", tasks.join_next()).await {
        let (method, code) = ended.unwrap();
        assert_eq!(code, DEADLINE_EXCEEDED, "{method}");
    }
    honest.finish().await;
    assert_eq!(upstream.requests(), 0);
    gateway.recovers(before).await;
}

/// An upload that is as fast as the minimum rate takes longer than the idle timeout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_upload_at_the_minimum_rate_succeeds() {
    let upstream = Upstream::start(|_| Reply::ok(r#"{"instanceID":1,"name":"a"}"#));
    let settings = "[server]\nrequest_body_idle_timeout_secs = 2\nmin_request_bytes_per_sec = 20\n";
    let gateway = Gateway::start(&(settings.to_owned() + &upstream.jp1ao("")));
    let connection = raw::connect(gateway.grpc).await.unwrap();
    let (response, mut body) = connection.open(raw::attack(IMPORT)).await.unwrap();
    let name = raw::frame(&raw::string_field(1, "a.st"));
    body.send_data(name, false).unwrap();
    for _ in 0..12 {
        // Twice the rate, if the clock of this test is exact.
        tokio::time::sleep(PAUSE).await;
        let chunk = raw::frame(&raw::string_field(2, "0123456789"));
        body.send_data(chunk, false).unwrap();
    }
    body.send_data(Bytes::new(), true).unwrap();
    let ended = raw::finish(response).await.unwrap();
    assert_eq!(ended.code, OK, "{}", ended.message);
    assert_eq!(upstream.requests(), 1);
}

/// Uploads that fill the buffer and then send one byte at a time are cut off: a good upload
/// succeeds after a few attempts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_uploads_do_not_keep_the_buffer() {
    let upstream = Upstream::start(|_| Reply::ok(r#"{"instanceID":1,"name":"good"}"#));
    // Half of the budget has room for a few of these uploads.
    let settings = "[server]\nrequest_body_idle_timeout_secs = 1\nmax_memory_bytes = 16777216\n";
    let upstreams = upstream.heat("") + &upstream.jp1ao("");
    let gateway = Gateway::start(&(settings.to_owned() + &upstreams));
    let honest = Honest::start(gateway.grpc);
    let before = gateway.usage();
    let attacker = Arc::new(raw::connect(gateway.grpc).await.unwrap());
    let mut beginning = raw::frame(&raw::string_field(1, "a.st")).to_vec();
    let chunk = "x".repeat((1 << 20) - 64);
    beginning.extend_from_slice(&raw::frame(&raw::string_field(2, &chunk)));
    // Of the next message, 4 kB long, the bytes arrive one by one.
    beginning.extend_from_slice(&[0, 0, 0, 0x10, 0]);
    let beginning: Arc<[u8]> = beginning.into();
    let mut slow = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (attacker, beginning) = (attacker.clone(), beginning.clone());
        slow.spawn(async move { trickle(&attacker, IMPORT, &beginning).await });
    }
    // Some hold the share of the client, the others are rejected.
    let mut codes = Vec::new();
    while !codes.contains(&RESOURCE_EXHAUSTED) {
        let code = within("an upload ends", slow.join_next()).await;
        codes.push(code.expect("an upload is rejected").unwrap());
    }
    let good = raw::connect(gateway.grpc).await.unwrap();
    let mut file = raw::frame(&raw::string_field(1, "good.st")).to_vec();
    file.extend_from_slice(&raw::frame(&raw::string_field(2, &"y".repeat(500_000))));
    let file = Bytes::from(file);
    eventually("the good upload is sent", async || {
        let (response, mut body) = good.open(raw::attack(IMPORT)).await.unwrap();
        body.send_data(file.clone(), true).unwrap();
        let ended = raw::finish(response).await.unwrap();
        assert!([OK, RESOURCE_EXHAUSTED].contains(&ended.code), "{ended:?}");
        (ended.code == OK).then_some(())
    })
    .await;
    assert_eq!(upstream.requests(), 1);
    while let Some(code) = within("uploads end", slow.join_next()).await {
        codes.push(code.unwrap());
    }
    codes.retain(|code| *code != RESOURCE_EXHAUSTED);
    assert!(!codes.is_empty(), "the buffer was held");
    assert!(
        codes.iter().all(|code| *code == DEADLINE_EXCEEDED),
        "{codes:?}"
    );
    honest.finish().await;
    gateway.recovers(before).await;
}
