//! Attacks on the memory of connections: what is received before a call has begun, and many
//! connections that each hold little.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::memory::recovered_from;
use crate::support::{Gateway, Honest, MIB, Reply, Upstream, eventually, frames, raw};

/// The budget of the gateways here.
const BUDGET: u64 = 32 * MIB;

const CREATE: &str = "openstack.orchestration.v1.StackService/CreateStack";

fn start(upstream: &Upstream, server: &str) -> Gateway {
    let budget = format!("[server]\nmax_memory_bytes = {BUDGET}\n{server}\n");
    Gateway::start(&(budget + &upstream.heat("")))
}

/// A header block of 5 kB is 5,000 headers, and takes 400 KiB before it is complete.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_sent_header_blocks_draw_from_the_budget() {
    let upstream = Upstream::plain();
    let gateway = start(&upstream, "preface_timeout_secs = 2");
    let honest = Honest::start(gateway.grpc);
    honest.succeeds(2).await;
    let before = gateway.usage();
    let mut block = frames::call(CREATE);
    // `accept-charset` of the static table.
    block.resize(5_300, 0x8f);
    let mut streams = Vec::new();
    for _ in 0..600 {
        let mut stream = frames::connect(gateway.grpc).await;
        let headers = frames::frame(frames::HEADERS, 0, 1, &block);
        // The gateway may have closed it.
        let _ = stream.write_all(&headers).await;
        streams.push(stream);
    }
    for mut stream in streams {
        frames::closed(&mut stream).await;
    }
    recovered_from(BUDGET, gateway, honest, before).await;
    assert_eq!(upstream.requests(), 0);
}

/// Parts of messages on as many connections over HTTP/1.1 as one address may have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_sent_requests_over_http1_draw_from_the_budget() {
    let upstream = Upstream::plain();
    let gateway = start(&upstream, "request_body_idle_timeout_secs = 2");
    let honest = Honest::start(gateway.grpc);
    honest.succeeds(2).await;
    let before = gateway.usage();
    let head = format!(
        "POST /{CREATE} HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n\
         x-auth-token: attacker\r\ncontent-length: 4000000\r\n\r\n"
    );
    let mut request = head.into_bytes();
    request.resize(60_000, b' ');
    let mut streams = Vec::new();
    // Another client than the honest one.
    let address = "127.0.0.2".parse().unwrap();
    for _ in 0..1_500 {
        let mut stream = raw::connect_from(address, gateway.grpc).await.unwrap();
        let _ = stream.write_all(&request).await;
        streams.push(stream);
    }
    for mut stream in streams {
        frames::closed(&mut stream).await;
    }
    recovered_from(BUDGET, gateway, honest, before).await;
    assert_eq!(upstream.requests(), 0);
}

/// One client with a part of a message on each of many connections: another one has room for a
/// long message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_connections_of_one_client_leave_memory_to_others() {
    let upstream = Upstream::start(|_| Reply::ok(r#"{"stack": {"id": "a", "links": []}}"#));
    let gateway = start(&upstream, "");
    let honest = Honest::start(gateway.grpc);
    honest.succeeds(2).await;
    let before = gateway.usage();
    let part = raw::frame(&vec![7; 240_000]).slice(..240_000);
    let mut attacks = Vec::new();
    for _ in 0..200 {
        let connection = raw::connect(gateway.grpc).await.unwrap();
        let (response, mut body) = connection.open(raw::attack(CREATE)).await.unwrap();
        body.send_data(part.clone(), false).unwrap();
        attacks.push((connection, response, body));
    }
    eventually("the share of the client is used up", async || {
        let rejected = gateway
            .metric(r#"drawbridge_memory_rejections_total{reason="client"}"#)
            .await;
        (rejected > 20.0).then_some(())
    })
    .await;
    let rejected = gateway
        .metric(r#"drawbridge_memory_rejections_total{reason="budget"}"#)
        .await;
    assert!(rejected < 1.0, "{rejected}");
    // Another address.
    let address = "127.0.0.2".parse().unwrap();
    let stream = raw::connect_from(address, gateway.grpc).await.unwrap();
    let builder = h2::client::Builder::new();
    let other = raw::handshake(stream, &builder).await.unwrap();
    let mut message = raw::string_field(2, "large").to_vec();
    message.extend_from_slice(&raw::string_field(3, &"x".repeat(1 << 20)));
    let call = other.unary(raw::attack(CREATE), &message).await.unwrap();
    assert_eq!(call.code, 0, "{call:?}");
    honest.succeeds(5).await;
    drop(attacks);
    recovered_from(BUDGET, gateway, honest, before).await;
}

/// A client that acknowledges pings that were not sent does not fill the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledgements_without_a_ping_are_not_logged() {
    let upstream = Upstream::plain();
    let gateway = start(&upstream, "");
    let before = gateway.log().len();
    let mut stream = frames::connect(gateway.grpc).await;
    let pongs = frames::frame(frames::PING, frames::ACK, 0, &[1; 8]).repeat(10_000);
    let ping = frames::frame(frames::PING, 0, 0, &[2; 8]);
    stream.write_all(&[pongs, ping].concat()).await.unwrap();
    // The answer to the ping comes after all that precedes it was handled.
    let mut received = Vec::new();
    eventually("the ping is answered", async || {
        let mut chunk = [0; 1024];
        let reading = tokio::io::AsyncReadExt::read(&mut stream, &mut chunk);
        if let Ok(read) = tokio::time::timeout(Duration::from_secs(1), reading).await {
            received.extend_from_slice(&chunk[..read.unwrap()]);
        }
        received
            .windows(8)
            .any(|bytes| bytes == [2; 8])
            .then_some(())
    })
    .await;
    let log = gateway.log();
    assert!(log.len() < before + 2_000, "{} bytes", log.len());
}
