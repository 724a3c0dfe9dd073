//! Limits that clients share: one client cannot take what others need.

use std::net::SocketAddr;
use std::time::Duration;

use drawbridge::Config;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tonic::Code;

use crate::support::{Gateway, http_get, settings, upstream};

const GET: &str = "SoftwareDeploymentService/GetSoftwareDeployment";

fn get(id: &str) -> Value {
    json!({"deployment_id": id})
}

/// Starts an upstream that responds to each request; it closes the connection if the head is
/// longer than 2,000 bytes, and never responds if it contains `hang`.
async fn fragile_upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream));
        }
    });
    address
}

async fn serve(mut stream: TcpStream) {
    // Of a deployment, and of `GetBuildInfo`, the health check.
    let body = r#"{"software_deployment": {"id": "d1"}, "api": {"revision": "1"}, "engine": {}}"#;
    let response = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut head = Vec::new();
    loop {
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_buf(&mut head).await {
                Ok(1..) if head.len() <= 2_000 => {}
                _ => return,
            }
        }
        if String::from_utf8_lossy(&head).contains("hang") {
            std::future::pending::<()>().await;
        }
        head.clear();
        stream.write_all(response.as_bytes()).await.unwrap();
    }
}

async fn metrics(gateway: &Gateway) -> String {
    let admin = gateway.running.admin.unwrap();
    http_get(&format!("http://{admin}/metrics")).await.1
}

/// Servers with a small buffer for the request line close the connection on a long path. One
/// client uses such ids, as often as it can.
#[tokio::test]
async fn client_that_breaks_connections_does_not_stop_others() {
    let url = format!("http://{}", fragile_upstream().await);
    let mut config = settings(vec![upstream("u", "heat", &url)]);
    // One probe at start; others only because calls fail.
    config.server.health_check_interval = Duration::from_secs(3_600);
    let gateway = Gateway::start(config).await;
    while !metrics(&gateway)
        .await
        .contains(r#"upstream_up{upstream="u"} 1"#)
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let long = "x".repeat(3_000);
    let breaks = async || {
        let status = gateway.client.call(GET, get(&long)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert!(!status.message().contains("circuit breaker"), "{status:?}");
    };
    for _ in 0..30 {
        breaks().await;
    }
    for call in 0..192 {
        if call % 10 == 0 {
            breaks().await;
        }
        let result = gateway.client.call(GET, get("d1")).await;
        assert!(result.is_ok(), "call {call}: {result:?}");
    }
    let text = metrics(&gateway).await;
    for line in [
        r#"drawbridge_upstream_up{upstream="u"} 1"#,
        r#"drawbridge_upstream_circuit_breaker_open{upstream="u"} 0"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

/// A gateway with two clients, `hostile` and `honest`.
fn two_clients(config: &mut Config) {
    config.client_tokens = vec!["hostile".into(), "honest".into()];
}

/// Without health checks nothing but calls shows whether the upstream responds: the circuit
/// breaker opens for the client whose calls fail.
#[tokio::test]
async fn circuit_breaker_opens_for_the_failing_client_without_probes() {
    let url = format!("http://{}", fragile_upstream().await);
    let mut config = settings(vec![upstream("u", "heat", &url)]);
    two_clients(&mut config);
    let gateway = Gateway::start(config).await;
    let call = async |token: &'static str, id: &str| {
        let token = [("drawbridge-token", token)];
        gateway.client.call_with(GET, get(id), &token).await
    };
    let long = "x".repeat(3_000);
    let mut rejected = 0;
    for _ in 0..40 {
        let status = call("hostile", &long).await.unwrap_err();
        rejected += u32::from(status.message().contains("circuit breaker"));
    }
    assert!(rejected > 0);
    let result = call("honest", "d1").await;
    assert!(result.is_ok(), "{result:?}");
}

#[tokio::test]
async fn client_whose_calls_hang_leaves_permits_to_others() {
    let mut one = upstream("u", "heat", &format!("http://{}", fragile_upstream().await));
    one.max_concurrent_calls = 8;
    one.max_queued_calls = 8;
    let mut config = settings(vec![one]);
    two_clients(&mut config);
    let gateway = Gateway::start(config).await;
    let start = |calls: &mut JoinSet<_>, token: &'static str, id: &'static str| {
        let client = gateway.client.clone();
        calls.spawn(async move {
            let token = [("drawbridge-token", token)];
            client.call_with(GET, get(id), &token).await
        });
    };
    let mut hanging = JoinSet::new();
    for _ in 0..50 {
        start(&mut hanging, "hostile", "hang");
    }
    // Six have a permit, eight wait.
    for _ in 0..36 {
        let status = hanging.join_next().await.unwrap().unwrap().unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    }
    // More than are free: some wait, in places that the others give up.
    let mut honest = JoinSet::new();
    for _ in 0..6 {
        start(&mut honest, "honest", "d1");
    }
    for result in honest.join_all().await {
        assert!(result.is_ok(), "{result:?}");
    }
}
