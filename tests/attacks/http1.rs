//! Attacks over HTTP/1.1: heads and bodies that do not end, and requests in advance.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Gateway, Honest, MIB, Upstream, eventually, frames, raw};

const CREATE: &str = "POST /openstack.orchestration.v1.StackService/CreateStack HTTP/1.1\r\n\
                      host: g\r\nx-auth-token: attacker\r\ncontent-type: application/json\r\n";

const CHECK: &str = "POST /grpc.health.v1.Health/Check HTTP/1.1\r\nhost: g\r\n\
                     content-type: application/json\r\ncontent-length: 2\r\n\r\n{}";

async fn connect(gateway: &Gateway) -> TcpStream {
    let from = "127.0.0.2".parse().unwrap();
    raw::connect_from(from, gateway.grpc).await.unwrap()
}

/// Sends a head, then a part of it again and again.
async fn drip(mut stream: TcpStream, head: &[u8], part: &[u8]) {
    let _ = stream.write_all(head).await;
    while stream.write_all(part).await.is_ok() {
        let pause = tokio::time::timeout(Duration::from_millis(50), stream.read_u8());
        if matches!(pause.await, Ok(Err(_))) {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_heads_are_closed() {
    let upstream = Upstream::plain();
    let settings = "[server]\npreface_timeout_secs = 1\n";
    let gateway = Gateway::start(&(settings.to_owned() + &upstream.heat("")));
    let honest = Honest::start(gateway.grpc);
    honest.succeeds(2).await;
    let before = gateway.usage();
    let mut tasks = Vec::new();
    for number in 0..200 {
        let stream = connect(&gateway).await;
        // The first request of the connection, and the second.
        let head = match number % 2 {
            0 => CREATE.to_owned(),
            _ => CHECK.to_owned() + CREATE,
        };
        tasks.push(tokio::spawn(async move {
            drip(stream, head.as_bytes(), b"x-a: b\r\n").await;
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    honest.finish().await;
    gateway.assert_peak_below(before, 64 * MIB);
    gateway.recovers(before).await;
    assert_eq!(upstream.requests(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_heads_and_chunks_are_cut_off() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&upstream.heat(""));
    let honest = Honest::start(gateway.grpc);
    honest.succeeds(2).await;
    let before = gateway.usage();
    let chunked = format!("{CREATE}transfer-encoding: chunked\r\n\r\n");
    for (beginning, part) in [
        // One header, and many.
        (format!("{CREATE}x-a: "), &b"aaaaaaaaaaaaaaaa"[..]),
        (CREATE.to_owned(), b"x-a: b\r\n"),
        // The extension of a chunk, extensions of all chunks, and trailers.
        (format!("{chunked}1;"), b"aaaaaaaaaaaaaaaa"),
        (chunked.clone(), b"1;aaaaaaaaaaaaaaaaaaaa\r\n \r\n"),
        (format!("{chunked}0\r\nx-a: "), b"aaaaaaaaaaaaaaaa"),
        // White space of a JSON text.
        (chunked.clone(), b"8\r\n        \r\n"),
    ] {
        let mut stream = connect(&gateway).await;
        stream.write_all(beginning.as_bytes()).await.unwrap();
        let part = part.repeat(1_000);
        assert!(
            frames::flood(stream, || part.clone(), 200 * MIB).await,
            "{beginning}"
        );
    }
    honest.finish().await;
    gateway.assert_peak_below(before, 40 * MIB);
    gateway.recovers(before).await;
    assert_eq!(upstream.requests(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_sent_bodies_draw_from_the_budget() {
    const BUDGET: u64 = 128 * MIB;
    let upstream = Upstream::plain();
    let server = format!("[server]\nmax_memory_bytes = {BUDGET}\n");
    let gateway = Gateway::start(&format!("{server}{}", upstream.heat("")));
    let honest = Honest::start(gateway.grpc);
    honest.succeeds(2).await;
    let before = gateway.usage();
    let length = 4 << 20;
    let head = format!("{CREATE}content-length: {length}\r\n\r\n");
    let body = vec![b' '; length - 1];
    let mut tasks = Vec::new();
    for _ in 0..150 {
        let mut stream = connect(&gateway).await;
        let request = [head.as_bytes(), &body].concat();
        tasks.push(tokio::spawn(async move {
            // A rejected request is not read to its end.
            let _ = stream.write_all(&request).await;
            drop(request);
            let mut response = Vec::new();
            let _ = stream.read_to_end(&mut response).await;
        }));
    }
    eventually("the share of the client is used up", async || {
        let rejected = gateway
            .metric(r#"drawbridge_memory_rejections_total{reason="client"}"#)
            .await;
        (rejected > 50.0).then_some(())
    })
    .await;
    honest.succeeds(5).await;
    gateway.assert_peak_below(before, BUDGET + 64 * MIB);
    for task in tasks {
        task.abort();
    }
    honest.finish().await;
    gateway.descriptors_recover(before).await;
    eventually("the budget is returned", async || {
        let used = gateway
            .metric(r#"drawbridge_memory_budget_bytes{state="used"}"#)
            .await;
        (used < 4.0 * MIB as f64).then_some(())
    })
    .await;
    assert_eq!(upstream.requests(), 0);
}

/// Requests in advance are served one after the other, and not read while their responses are
/// not read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_in_advance_wait_for_their_turn() {
    let upstream = Upstream::plain();
    let settings = "[server]\nresponse_write_timeout_secs = 2\n";
    let gateway = Gateway::start(&(settings.to_owned() + &upstream.heat("")));
    let honest = Honest::start(gateway.grpc);
    honest.succeeds(2).await;
    let before = gateway.usage();
    let many = CHECK.repeat(1_000);
    let mut tasks = Vec::new();
    for is_read in [true, false] {
        for _ in 0..4 {
            let stream = connect(&gateway).await;
            let many = many.clone();
            tasks.push(tokio::spawn(async move {
                let mut unread = stream;
                if is_read {
                    frames::flood(unread, || many.clone().into_bytes(), 4 * MIB).await;
                    return;
                }
                // Until the gateway closes the connection.
                while unread.write_all(many.as_bytes()).await.is_ok() {}
            }));
        }
    }
    honest.succeeds(5).await;
    for task in tasks {
        task.await.unwrap();
    }
    honest.finish().await;
    gateway.assert_peak_below(before, 40 * MIB);
    gateway.recovers(before).await;
}
