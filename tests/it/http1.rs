//! Connections over HTTP/1.1: keep-alive, pipelining, limits, timeouts and drain.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::recorder::{Answer, Recorder};
use crate::support::{Gateway, settings, upstream};

const CHECK: &str = "POST /grpc.health.v1.Health/Check HTTP/1.1\r\nhost: x\r\n\
                     content-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
const SERVING: &str = r#"{"status":"SERVING"}"#;

/// Reads from a connection until the text is there.
async fn read_until(tcp: &mut TcpStream, seen: &mut String, text: &str) {
    while !seen.contains(text) {
        let mut buffer = [0; 4_096];
        let length = tcp.read(&mut buffer).await.unwrap();
        assert!(length > 0, "closed after {seen}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
}

#[tokio::test]
async fn connection_serves_one_request_after_another() {
    let gateway = Gateway::with(vec![]).await;
    let mut tcp = TcpStream::connect(gateway.running.grpc).await.unwrap();
    for _ in 0..3 {
        tcp.write_all(CHECK.as_bytes()).await.unwrap();
        let mut seen = String::new();
        read_until(&mut tcp, &mut seen, SERVING).await;
        assert!(seen.starts_with("HTTP/1.1 200 OK\r\n"), "{seen}");
    }
    // In chunks, and with requests in advance, which are served in their order.
    let chunked = "POST /drawbridge.v1.GatewayService/ListUpstreams HTTP/1.1\r\nhost: x\r\n\
                   content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n\
                   1\r\n{\r\n1;x=y\r\n}\r\n0\r\n\r\n";
    let unknown = CHECK.replace("Check", "Chek");
    let all = [chunked, CHECK, &unknown, CHECK].concat();
    tcp.write_all(all.as_bytes()).await.unwrap();
    let mut seen = String::new();
    while seen.matches(SERVING).count() < 2 {
        let before = seen.len();
        let missing = if before == 0 { "HTTP/1.1" } else { SERVING };
        let mut more = String::new();
        read_until(&mut tcp, &mut more, missing).await;
        seen.push_str(&more);
    }
    let statuses: Vec<&str> = seen
        .match_indices("HTTP/1.1 ")
        .map(|(at, _)| &seen[at + 9..at + 12])
        .collect();
    assert_eq!(statuses, ["200", "200", "501", "200"], "{seen}");
    gateway.running.stop().await.unwrap();
}

/// Paused time advances to the next timer while no data arrives.
#[tokio::test(start_paused = true)]
async fn incomplete_head_and_idle_connection_time_out() {
    let mut config = settings(vec![]);
    config.server.preface_timeout = Duration::from_secs(10);
    config.server.connection_idle_timeout = Duration::from_secs(300);
    let running = crate::support::start(config).await.unwrap();
    let closed_after = async |before: &[&str]| {
        let mut tcp = TcpStream::connect(running.grpc).await.unwrap();
        for text in before {
            tcp.write_all(text.as_bytes()).await.unwrap();
            if text.ends_with("{}") {
                let mut seen = String::new();
                read_until(&mut tcp, &mut seen, SERVING).await;
            }
        }
        let start = tokio::time::Instant::now();
        let mut rest = Vec::new();
        let _ = tcp.read_to_end(&mut rest).await;
        start.elapsed().as_secs()
    };
    let head = "POST /grpc.health.v1.Health/Check HTTP/1.1\r\nhost: x\r\nx-a: ";
    for (before, at_least, at_most) in [
        // Nothing, and a part of the first head: less and more than a preface of HTTP/2 has.
        (&[][..], 9, 11),
        (&["POST /"], 9, 11),
        (&[head], 9, 11),
        // A part of the second head.
        (&[CHECK, "P"], 9, 11),
        (&[CHECK, head], 9, 11),
        // Nothing after a request.
        (&[CHECK], 298, 303),
    ] {
        let seconds = closed_after(before).await;
        assert!(
            (at_least..=at_most).contains(&seconds),
            "{before:?}: {seconds} s"
        );
    }
}

#[tokio::test]
async fn long_heads_are_rejected() {
    let gateway = Gateway::with(vec![]).await;
    let limit = drawbridge::config::ServerOptions::default().max_metadata_bytes as usize;
    for (length, status) in [
        (limit - 1_000, "200 OK"),
        // A status of Connect, then one of HTTP.
        (limit + 1_000, "429 Too Many Requests"),
        (4 * limit, "431 Request Header Fields Too Large"),
    ] {
        let mut tcp = TcpStream::connect(gateway.running.grpc).await.unwrap();
        let long = format!(
            "host: x\r\nconnection: close\r\nx-a: {}\r\n",
            "a".repeat(length)
        );
        let request = CHECK.replace("host: x\r\n", &long);
        // The rest may not be read.
        let _ = tcp.write_all(request.as_bytes()).await;
        let mut seen = Vec::new();
        let _ = tcp.read_to_end(&mut seen).await;
        let seen = String::from_utf8_lossy(&seen);
        assert!(
            seen.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{length}: {seen}"
        );
        if length > limit {
            assert!(seen.contains("server.max_metadata_bytes"), "{seen}");
        }
    }
}

/// What hyper rejects has a text, too: on a new connection, and after a request.
#[tokio::test]
async fn unreadable_heads_are_rejected_with_a_text() {
    let gateway = Gateway::with(vec![]).await;
    let many: String = (0..101)
        .map(|number| format!("x-{number}: a\r\n"))
        .collect();
    for (change, status, text) in [
        (("host: x", "host x"), "400 Bad Request", "valid HTTP/1.1"),
        (("POST", "P@ST"), "400 Bad Request", "valid HTTP/1.1"),
        (
            ("length: 2", "length: 2\r\ncontent-length: 3"),
            "400 Bad Request",
            "valid HTTP/1.1",
        ),
        (
            ("host: x\r\n", &*format!("host: x\r\n{many}")),
            "431 Request Header Fields Too Large",
            "max_metadata_bytes",
        ),
        (
            ("/Check", &*format!("/{}", "a".repeat(65_535))),
            "414 URI Too Long",
            "path",
        ),
    ] {
        let wrong = CHECK.replace(change.0, change.1);
        for before in ["", CHECK] {
            let mut tcp = TcpStream::connect(gateway.running.grpc).await.unwrap();
            tcp.write_all(before.as_bytes()).await.unwrap();
            if !before.is_empty() {
                read_until(&mut tcp, &mut String::new(), SERVING).await;
            }
            let _ = tcp.write_all(wrong.as_bytes()).await;
            let mut seen = Vec::new();
            let _ = tcp.read_to_end(&mut seen).await;
            let seen = String::from_utf8_lossy(&seen);
            let (head, body) = seen.split_once("\r\n\r\n").unwrap_or_default();
            assert!(
                head.starts_with(&format!("HTTP/1.1 {status}\r\n")),
                "{seen}"
            );
            assert!(body.contains(text), "{seen}");
            let length = format!("content-length: {}\r\n", body.len());
            assert!(head.contains(&length), "{seen}");
        }
    }
}

/// Both listeners serve a request for one host, and close the connection where two programs
/// could read its length in different ways.
#[tokio::test]
async fn heads_that_can_be_read_in_two_ways_are_rejected() {
    let gateway = Gateway::with(vec![]).await;
    let admin = gateway.running.admin.unwrap();
    let live = "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";
    for (host, status) in [
        ("host: x\r\n", "200 OK"),
        ("", "400 Bad Request"),
        ("host: x\r\nhost: x\r\n", "400 Bad Request"),
        ("host: x\r\nhost: y\r\n", "400 Bad Request"),
        ("host: x y\r\n", "400 Bad Request"),
        ("host:\r\n", "400 Bad Request"),
        (
            "host: x\r\ntransfer-encoding: gzip, chunked\r\n",
            "501 Not Implemented",
        ),
    ] {
        for (address, request, end) in [(gateway.running.grpc, CHECK, "{}"), (admin, live, "")] {
            let mut request = request.replace("host: x\r\n", host);
            if host.contains("chunked") && end == "{}" {
                request = request.replace("content-length: 2\r\n", "");
                request = request.replace("{}", "2\r\n{}\r\n0\r\n\r\n");
            }
            let mut tcp = TcpStream::connect(address).await.unwrap();
            tcp.write_all(request.as_bytes()).await.unwrap();
            let mut seen = String::new();
            read_until(&mut tcp, &mut seen, "\r\n\r\n").await;
            assert!(
                seen.starts_with(&format!("HTTP/1.1 {status}\r\n")),
                "{request}\n{seen}"
            );
        }
    }
    // The target of the request and the host differ.
    for (target, status) in [
        ("x", "200 OK"),
        ("X:80", "200 OK"),
        ("y", "400 Bad Request"),
    ] {
        let absolute = format!("POST http://{target}/grpc");
        let mut tcp = TcpStream::connect(gateway.running.grpc).await.unwrap();
        let request = CHECK.replace("POST /grpc", &absolute);
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut seen = String::new();
        read_until(&mut tcp, &mut seen, "\r\n\r\n").await;
        assert!(
            seen.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{target}: {seen}"
        );
    }
    // Chunks count, and nothing else of the connection is read.
    let both = CHECK.replace("{}", "2\r\n{}\r\n0\r\n\r\n");
    let both = both.replace(
        "content-length",
        "transfer-encoding: chunked\r\ncontent-length",
    );
    let mut tcp = TcpStream::connect(gateway.running.grpc).await.unwrap();
    tcp.write_all((both + CHECK).as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    let _ = tcp.read_to_end(&mut seen).await;
    let seen = String::from_utf8_lossy(&seen);
    assert!(seen.contains("connection: close\r\n"), "{seen}");
    assert_eq!(seen.matches(SERVING).count(), 1, "{seen}");
}

/// A call over HTTP/1.1 is not cut off by a drain, and its connection ends with it.
#[tokio::test]
async fn drain_waits_for_calls_over_http_1() {
    let (arrived, arrives) = std::sync::mpsc::channel();
    let (go, wait) = std::sync::mpsc::channel();
    let wait = std::sync::Mutex::new(wait);
    let recorder = Recorder::start(move |_| {
        arrived.send(()).unwrap();
        // The recorder has a thread of its own.
        wait.lock().unwrap().recv().unwrap();
        Answer::json(200, &json!({"stack": {"id": "s1", "stack_name": "shop"}}))
    });
    let recorder = on_its_own_thread(recorder);
    let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
    let idle = {
        let mut tcp = TcpStream::connect(gateway.running.grpc).await.unwrap();
        tcp.write_all(CHECK.as_bytes()).await.unwrap();
        read_until(&mut tcp, &mut String::new(), SERVING).await;
        tcp
    };
    let mut busy = TcpStream::connect(gateway.running.grpc).await.unwrap();
    let body = r#"{"stack_name":"shop","stack_id":"s1"}"#;
    let request = format!(
        "POST /openstack.orchestration.v1.StackService/GetStack HTTP/1.1\r\nhost: x\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    busy.write_all(request.as_bytes()).await.unwrap();
    tokio::task::spawn_blocking(move || arrives.recv().unwrap())
        .await
        .unwrap();
    let stop = tokio::spawn(gateway.running.stop());
    // An idle connection is closed at once.
    let mut idle = idle;
    assert_eq!(idle.read(&mut [0; 16]).await.unwrap(), 0);
    go.send(()).unwrap();
    let mut seen = String::new();
    busy.read_to_string(&mut seen).await.unwrap();
    assert!(seen.starts_with("HTTP/1.1 200 OK\r\n"), "{seen}");
    assert!(seen.contains("\"stackName\":\"shop\""), "{seen}");
    stop.await.unwrap().unwrap();
}

/// Starts a recorder in a runtime of its own, where it may block.
fn on_its_own_thread(
    start: impl Future<Output = Recorder> + Send + 'static,
) -> std::sync::Arc<Recorder> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        runtime.block_on(async {
            let recorder = std::sync::Arc::new(start.await);
            sender.send(recorder.clone()).unwrap();
            std::future::pending::<()>().await;
        });
    });
    receiver.recv().unwrap()
}
