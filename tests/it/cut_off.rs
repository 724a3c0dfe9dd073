//! Calls that the drain timeout cuts off end with a status that says what is known of them.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use prost_reflect::{DynamicMessage, Value};
use serde_json::json;
use tokio::sync::watch;
use tokio_stream::StreamExt;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::own_api::compile;
use crate::support::{Client, Gateway, settings, upstream};
use crate::watch::{metric, metrics};

const PROTO: &str = r#"
syntax = "proto3";
package acme.v1;
import "drawbridge/v1/options.proto";
import "google/api/annotations.proto";

option (drawbridge.v1.file) = { family: "acme" };

service HeldService {
  rpc Get(HeldRequest) returns (HeldResponse) {
    option (google.api.http) = { get: "/held/{id}" };
    option idempotency_level = NO_SIDE_EFFECTS;
  }
  rpc Create(HeldRequest) returns (HeldResponse) {
    option (google.api.http) = { post: "/held/{id}" };
  }
  rpc Put(stream PutRequest) returns (HeldResponse) {
    option (google.api.http) = { post: "/files/{id}" };
    option (drawbridge.v1.method).upload = { part: "doc" file_name: "name" chunk: "data" };
  }
  rpc Take(HeldRequest) returns (stream TakeResponse) {
    option (google.api.http) = { get: "/files/{id}" };
    option (drawbridge.v1.method).download = { file_name: "name" chunk: "data" accept: "*/*" };
    option idempotency_level = NO_SIDE_EFFECTS;
  }
}
message HeldRequest { string id = 1; }
message HeldResponse { string id = 1; }
message PutRequest {
  string id = 1;
  string name = 2 [(drawbridge.v1.field).gateway_only = true];
  bytes data = 3 [(drawbridge.v1.field).gateway_only = true];
}
message TakeResponse { string name = 1; bytes data = 2; }
"#;

/// Starts an upstream that sends the beginning of files and nothing else. Counts its calls.
async fn held() -> (String, watch::Receiver<usize>) {
    let (arrived, arrivals) = watch::channel(0);
    let app = axum::Router::new().fallback(move |request: axum::extract::Request| {
        let arrived = arrived.clone();
        async move {
            if !request.headers().contains_key("x-request-id") {
                return axum::response::Response::new(Body::empty());
            }
            arrived.send_modify(|n| *n += 1);
            if !request.uri().path().starts_with("/files/") {
                std::future::pending::<()>().await;
            }
            let begin = tokio_stream::once(Ok::<_, std::io::Error>(Bytes::from("begin")));
            let file = begin.chain(tokio_stream::pending());
            axum::response::Response::new(Body::from_stream(file))
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, arrivals)
}

fn assert_status(status: &Status, code: Code, reason: &str, sent: &str) {
    assert_eq!(status.code(), code, "{status:?}");
    let info = status.get_details_error_info().expect("details");
    assert_eq!(info.reason, reason, "{status:?}");
    assert_eq!(info.metadata["sent"], sent, "{status:?}");
    assert!(
        status.message().contains("the gateway is stopping"),
        "{status:?}"
    );
}

#[tokio::test]
async fn cut_off_calls_say_whether_the_upstream_may_have_acted() {
    let (url, mut arrivals) = held().await;
    let mut at = upstream("acme", "acme", &url);
    // A download counts until its first message.
    at.max_concurrent_calls = 2;
    let mut config = settings(vec![at]);
    config.descriptors = vec![compile(PROTO).unwrap()];
    config.server.drain_timeout = Duration::ZERO;
    let gateway = Gateway::start(config).await;
    let client = &gateway.client;
    let call = |client: &Client, method: &'static str| {
        let client = client.clone();
        tokio::spawn(async move { client.call(method, json!({"id": "1"})).await.unwrap_err() })
    };

    let request = json!({"id": "1"});
    let mut file = client
        .watch("HeldService/Take", request, &[])
        .await
        .unwrap();
    for _ in 0..2 {
        file.next().await.unwrap().unwrap();
    }
    let get = call(client, "HeldService/Get");
    let create = call(client, "HeldService/Create");
    arrivals.wait_for(|n| *n == 3).await.unwrap();
    let queued = call(client, "HeldService/Create");
    let mut half = DynamicMessage::new(client.method("HeldService/Put").input());
    half.set_field_by_name("id", Value::String("1".to_owned()));
    half.set_field_by_name("name", Value::String("f".to_owned()));
    half.set_field_by_name("data", Value::Bytes(Bytes::from_static(b"half")));
    let upload = {
        let client = client.clone();
        let messages = tokio_stream::once(half).chain(tokio_stream::pending());
        tokio::spawn(async move { client.send("HeldService/Put", messages).await.unwrap_err() })
    };
    let all_wait = async {
        loop {
            let text = metrics(&gateway).await;
            let queued = metric(&text, "drawbridge_upstream_calls_queued{upstream=\"acme\"}");
            if queued == 1 && metric(&text, "drawbridge_rpc_calls_in_flight") == 5 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), all_wait).await;
    waited.expect("five calls, one of them queued");

    let stop = tokio::spawn(gateway.running.stop());
    assert_status(
        &get.await.unwrap(),
        Code::Unavailable,
        "NO_RESPONSE",
        "true",
    );
    assert_status(
        &create.await.unwrap(),
        Code::Unknown,
        "OUTCOME_UNKNOWN",
        "true",
    );
    assert_status(
        &queued.await.unwrap(),
        Code::Unavailable,
        "DRAINING",
        "false",
    );
    assert_status(
        &upload.await.unwrap(),
        Code::Unavailable,
        "DRAINING",
        "false",
    );
    let status = file.next().await.expect("an error").unwrap_err();
    assert_status(&status, Code::Unavailable, "NO_RESPONSE", "true");
    stop.await.unwrap().unwrap();
    assert_eq!(*arrivals.borrow(), 3);
}
