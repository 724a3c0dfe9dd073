//! Attacks on memory: what clients send and do not finish, what grows when it is converted,
//! and what they do not read.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use h2::client::Builder;

use crate::support::raw::{self, Connection};
use crate::support::{Gateway, Honest, MIB, Reply, Upstream, Usage, eventually};

/// The budget of the gateways here.
const BUDGET: u64 = 128 * MIB;

/// What a gateway may use in addition to its budget.
const MAX_OVERHEAD: u64 = 64 * MIB;

const GET: &str = "openstack.orchestration.v1.SoftwareDeploymentService/GetSoftwareDeployment";
const CREATE: &str = "openstack.orchestration.v1.StackService/CreateStack";
const REFLECTION: &str = "grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

fn start(upstream: &Upstream, more: &str) -> Gateway {
    let server = format!("[server]\nmax_memory_bytes = {BUDGET}\n");
    Gateway::start(&format!("{server}{}", upstream.heat(more)))
}

fn request(method: &str) -> http::Request<()> {
    let mut request = raw::request(method);
    let headers = request.headers_mut();
    headers.insert("x-auth-token", "attacker".parse().unwrap());
    request
}

/// Connects with windows in which nothing can be sent to the client.
async fn unreading(gateway: &Gateway) -> Connection {
    let mut builder = Builder::new();
    builder
        .initial_window_size(0)
        .initial_connection_window_size(1 << 20);
    raw::connect_with(gateway.grpc, &builder).await.unwrap()
}

/// Asserts what an attack may cost, after the honest client has succeeded meanwhile.
async fn held(gateway: &Gateway, honest: &Honest, before: Usage) {
    honest.succeeds(5).await;
    gateway.assert_peak_below(before, BUDGET + MAX_OVERHEAD);
}

async fn recovered(gateway: Gateway, honest: Honest, before: Usage) {
    recovered_from(BUDGET, gateway, honest, before).await;
}

/// Asserts what an attack has cost a gateway with this budget, and that it has returned it.
pub async fn recovered_from(budget: u64, gateway: Gateway, honest: Honest, before: Usage) {
    honest.finish().await;
    gateway.assert_peak_below(before, budget + MAX_OVERHEAD);
    eventually("the budget is returned", async || {
        let used = gateway
            .metric(r#"drawbridge_memory_budget_bytes{state="used"}"#)
            .await;
        (used < 4.0 * MIB as f64).then_some(())
    })
    .await;
    gateway.recovers(before).await;
}

/// Sends so many requests of 4 MiB without their last byte.
async fn half_send(
    connection: &Connection,
    count: usize,
    token: bool,
) -> Vec<tokio::task::JoinHandle<()>> {
    let message = raw::frame(&vec![7; (4 << 20) - 10]);
    let part = message.slice(..message.len() - 1);
    let mut tasks = Vec::new();
    for _ in 0..count {
        let head = match token {
            true => request(CREATE),
            false => raw::request(CREATE),
        };
        let (response, mut body) = connection.open(head).await.unwrap();
        let part = part.clone();
        tasks.push(tokio::spawn(async move {
            // A rejected request is reset, or its response arrives.
            let _ = body.send_data(part, false);
            let _ = response.await;
        }));
    }
    tasks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_sent_requests_without_credentials_are_not_received() {
    let upstream = Upstream::plain();
    let gateway = start(&upstream, "");
    let honest = Honest::start(gateway.grpc);
    honest.succeeds(2).await;
    let before = gateway.usage();
    let connection = raw::connect(gateway.grpc).await.unwrap();
    for task in half_send(&connection, 300, false).await {
        task.await.unwrap();
    }
    honest.succeeds(2).await;
    gateway.assert_peak_below(before, 40 * MIB);
    drop(connection);
    recovered(gateway, honest, before).await;
    assert_eq!(upstream.requests(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_sent_requests_hold_at_most_half_of_the_budget() {
    let upstream = Upstream::plain();
    let gateway = start(&upstream, "");
    let honest = Honest::start(gateway.grpc);
    honest.succeeds(2).await;
    let before = gateway.usage();
    let mut connections = Vec::new();
    let mut tasks = Vec::new();
    for _ in 0..3 {
        let connection = raw::connect(gateway.grpc).await.unwrap();
        tasks.extend(half_send(&connection, 100, true).await);
        connections.push(connection);
    }
    eventually("the share of the client is used up", async || {
        let rejected = gateway
            .metric(r#"drawbridge_memory_rejections_total{reason="client"}"#)
            .await;
        (rejected > 100.0).then_some(())
    })
    .await;
    held(&gateway, &honest, before).await;
    drop(connections);
    recovered(gateway, honest, before).await;
    assert_eq!(upstream.requests(), 0);
}

fn gzip(message: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(message).unwrap();
    encoder.finish().unwrap()
}

/// Calls whose messages are a thousandth of what they become: decompressed, and six times as
/// long again as JSON.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_requests_draw_from_the_budget_as_they_grow() {
    let upstream = Upstream::start(|_| Reply::Hang);
    let gateway = start(&upstream, "");
    let honest = Honest::start(gateway.grpc);
    honest.succeeds(2).await;
    let before = gateway.usage();
    // CreateStackRequest.stack_name
    let mut message = raw::string_field(2, "attack").to_vec();
    message.extend_from_slice(&raw::string_field(3, &"\u{1}".repeat((4 << 20) - 100)));
    let compressed = gzip(&message);
    let mut frame = vec![1];
    frame.extend_from_slice(&(compressed.len() as u32).to_be_bytes());
    frame.extend_from_slice(&compressed);
    let frame = Bytes::from(frame);
    let connection = raw::connect(gateway.grpc).await.unwrap();
    let mut responses = Vec::new();
    for _ in 0..600 {
        let mut head = request(CREATE);
        let headers = head.headers_mut();
        headers.insert("grpc-encoding", "gzip".parse().unwrap());
        headers.insert("grpc-timeout", "7S".parse().unwrap());
        let (response, mut body) = connection.open(head).await.unwrap();
        body.send_data(frame.clone(), true).unwrap();
        responses.push(response);
    }
    let mut ends = 0;
    for response in responses {
        let end = raw::finish(response).await.unwrap();
        // At its deadline, without a response, or without memory.
        assert!(matches!(end.code, 2 | 4 | 8), "{end:?}");
        ends += 1;
    }
    assert_eq!(ends, 600);
    held(&gateway, &honest, before).await;
    drop(connection);
    recovered(gateway, honest, before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_responses_of_any_length_draw_from_the_budget() {
    let name = "x".repeat(60_000);
    let json = format!(r#"{{"software_deployment":{{"id":"a","status_reason":"{name}"}}}}"#);
    // Without keep-alive, no pooled connections count at the end.
    let response = format!(
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{json}",
        json.len()
    );
    let upstream = Upstream::start(move |_| Reply::Raw(response.clone().into_bytes()));
    let gateway = start(&upstream, "max_concurrent_calls = 8");
    let honest = Honest::start(gateway.grpc);
    honest.succeeds(2).await;
    let before = gateway.usage();
    let mut connections = Vec::new();
    for _ in 0..5 {
        connections.push(unreading(&gateway).await);
    }
    // 1.2 GB in all, in parts that fit into the queue of the upstream.
    let mut unread = Vec::new();
    for _ in 0..50 {
        let mut responses = Vec::new();
        for connection in &connections {
            for _ in 0..80 {
                let message = raw::string_field(2, "a");
                responses.push(connection.send(request(GET), message).await.unwrap());
            }
        }
        for response in responses {
            // The head of the response, or that of the rejection.
            unread.push(response.await.unwrap());
        }
    }
    let rejected = gateway
        .metric(r#"drawbridge_memory_rejections_total{reason="client"}"#)
        .await;
    assert!(rejected > 100.0, "{rejected}");
    held(&gateway, &honest, before).await;
    drop(connections);
    recovered(gateway, honest, before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_reflection_draws_from_the_budget() {
    let upstream = Upstream::plain();
    let gateway = start(&upstream, "");
    let honest = Honest::start(gateway.grpc);
    honest.succeeds(2).await;
    let before = gateway.usage();
    // ServerReflectionRequest.file_containing_symbol
    let message = raw::string_field(4, "openstack.orchestration.v1.StackService");
    let connection = unreading(&gateway).await;
    let mut responses = Vec::new();
    for _ in 0..4_000 {
        let response = connection.send(request(REFLECTION), &message).await;
        responses.push(response.unwrap());
    }
    for response in &mut responses {
        response.await.unwrap();
    }
    eventually("the share of the client is used up", async || {
        let rejected = gateway
            .metric(r#"drawbridge_memory_rejections_total{reason="client"}"#)
            .await;
        (rejected > 100.0).then_some(())
    })
    .await;
    held(&gateway, &honest, before).await;
    drop(connection);
    recovered(gateway, honest, before).await;
}

/// Numbers of arbitrary JSON: the message is five times as long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn message_draws_from_the_budget_while_it_is_made() {
    let zeros = "0,".repeat((15 << 20) / 2);
    let json =
        format!(r#"{{"software_deployment":{{"id":"a","input_values":{{"a":[{zeros}0]}}}}}}"#);
    let upstream = Upstream::start(move |_| Reply::ok(json.clone()));
    let gateway = start(&upstream, "");
    let honest = Honest::start(gateway.grpc);
    honest.succeeds(2).await;
    let before = gateway.usage();
    let connection = unreading(&gateway).await;
    let mut responses = Vec::new();
    for _ in 0..16 {
        let message = raw::string_field(2, "a");
        responses.push(connection.send(request(GET), message).await.unwrap());
    }
    for response in &mut responses {
        response.await.unwrap();
    }
    held(&gateway, &honest, before).await;
    drop(connection);
    recovered(gateway, honest, before).await;
}
