//! The gateway's own services, and APIs of the user, in each protocol.

use serde_json::{Value, json};

use super::client::{STREAMING, UNARY};
use super::{deployments, gunzip, gzip};
use crate::files::acme;
use crate::own_api::{PROTO, compile};
use crate::support::recorder::{Answer, Recorder};
use crate::support::web::{VERSIONS, frame, frames, from_base64, send, to_base64};
use crate::support::{Gateway, settings, upstream};

#[tokio::test]
async fn own_services_are_served_in_each_protocol() {
    let (_recorder, gateway) = deployments().await;
    let address = gateway.running.grpc;
    for version in VERSIONS {
        for (content_type, body, want) in [
            (
                "application/json",
                &b"{}"[..],
                &br#"{"status":"SERVING"}"#[..],
            ),
            ("application/proto", b"", b"\x08\x01"),
        ] {
            let path = "/grpc.health.v1.Health/Check";
            let headers = [("content-type", content_type)];
            let response = send(address, version, "POST", path, &headers, body).await;
            assert_eq!(
                (response.status, &*response.body),
                (200, want),
                "{content_type}"
            );
            assert_eq!(response.header("content-type"), content_type);
        }
        let headers = [("content-type", "application/json")];
        let unknown = &br#"{"service":"no.Such"}"#[..];
        let path = "/grpc.health.v1.Health/Check";
        let response = send(address, version, "POST", path, &headers, unknown).await;
        assert_eq!(
            (response.status, &response.json()["code"]),
            (404, &json!("not_found"))
        );
        let path = "/drawbridge.v1.GatewayService/ListUpstreams";
        let wrong = &br#"{"famly":"heat"}"#[..];
        let response = send(address, version, "POST", path, &headers, wrong).await;
        assert_eq!(response.status, 400, "{}", response.text());
        assert!(
            response.text().contains("famly: no such field"),
            "{}",
            response.text()
        );
        let right = &br#"{"family":"heat"}"#[..];
        let response = send(address, version, "POST", path, &headers, right).await;
        assert_eq!(response.json()["upstreams"][0]["name"], "u");
        let headers = [headers[0], ("content-encoding", "gzip")];
        let response = send(address, version, "POST", path, &headers, gzip(right)).await;
        assert_eq!(response.header("content-encoding"), "gzip");
        let upstreams: Value = serde_json::from_slice(&gunzip(&response.body)).unwrap();
        assert_eq!(upstreams["upstreams"][0]["name"], "u");

        let path = "/drawbridge.v1.GatewayService/ListUpstreams";
        let headers = [("content-type", "application/grpc-web-text")];
        let body = to_base64(&frame(0, b""));
        let response = send(address, version, "POST", path, &headers, body).await;
        let all = frames(&from_base64(&response.body));
        assert_eq!([all[0].0, all[1].0], [0, 0x80]);

        // Reflection, a stream of requests.
        let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
        let headers = [("content-type", "application/connect+json")];
        let body = frame(0, br#"{"listServices":""}"#);
        let response = send(address, version, "POST", path, &headers, body).await;
        let all = frames(&response.body);
        let listed: Value = serde_json::from_slice(&all[0].1).unwrap();
        let services = listed["listServicesResponse"]["service"]
            .as_array()
            .unwrap();
        assert!(services.contains(&json!({"name": "grpc.health.v1.Health"})));
        assert_eq!(all[1], (2, b"{}".to_vec()));
        let body = frame(0, br#"{"listService":""}"#);
        let response = send(address, version, "POST", path, &headers, body).await;
        let all = frames(&response.body);
        let end: Value = serde_json::from_slice(&all[0].1).unwrap();
        assert_eq!(
            (all[0].0, &end["error"]["code"]),
            (2, &json!("invalid_argument"))
        );
    }
}

#[tokio::test]
async fn own_api_is_served_in_each_protocol() {
    let recorder = Recorder::start(|seen| match seen.method.as_str() {
        "POST" => Answer::json(200, &json!({"rolloutId": "new", "phase": "new"})),
        _ => Answer::json(
            200,
            &json!({"rolloutId": "r1", "phase": "done", "buildNumber": 9_007_199_254_740_993_u64}),
        ),
    })
    .await;
    let mut config = settings(vec![upstream("a", "acme", &recorder.url())]);
    config.descriptors = vec![compile(PROTO).unwrap()];
    let gateway = Gateway::start(config).await;
    for version in VERSIONS {
        for protocol in UNARY {
            let (rpc, request) = (
                "RolloutService/GetRollout",
                json!({"team": "t", "rollout_id": "r1"}),
            );
            let response = protocol.call(&gateway, version, rpc, &request, &[]).await;
            let answered = protocol.read(&gateway, rpc, &response);
            let want = json!({"rolloutId": "r1", "phase": "done",
                "buildNumber": "9007199254740993"});
            assert_eq!(answered.messages, [want], "{protocol:?} {answered:?}");
            let (rpc, request) = (
                "RolloutService/StartRollout",
                json!({"team": "t", "rollout": {"buildNumber": "18"}}),
            );
            let response = protocol.call(&gateway, version, rpc, &request, &[]).await;
            assert_eq!(protocol.read(&gateway, rpc, &response).code, None);
            assert_eq!(recorder.take()[1].json(), json!({"buildNumber": 18}));
        }
        for protocol in STREAMING {
            let (rpc, request) = (
                "RolloutService/WatchRollout",
                json!({"team": "t", "rollout_id": "r1"}),
            );
            let response = protocol.call(&gateway, version, rpc, &request, &[]).await;
            let answered = protocol.read(&gateway, rpc, &response);
            assert_eq!(answered.code, None, "{protocol:?} {answered:?}");
            assert_eq!(
                answered.messages[0]["event"]["type"],
                "WATCH_EVENT_TYPE_INITIAL"
            );
            assert_eq!(
                answered.messages[0]["rollout"]["buildNumber"],
                "9007199254740993"
            );
        }
        recorder.take();
    }
}

/// An upload is a stream of requests, a download one of responses.
#[tokio::test]
async fn files_are_sent_and_received_by_streams_of_connect() {
    let (recorder, gateway) = acme(Answer::json(200, &json!({"id": "f1"}))).await;
    let address = gateway.running.grpc;
    for version in VERSIONS {
        let headers = [("content-type", "application/connect+json")];
        let first = br#"{"place":"p","name":"n","data":"AQI="}"#;
        let body = [frame(0, first), frame(0, br#"{"data":"AwQ="}"#)].concat();
        let path = "/acme.v1.FileService/Put";
        let response = send(address, version, "POST", path, &headers, body).await;
        let all = frames(&response.body);
        let message: Value = serde_json::from_slice(&all[0].1).unwrap();
        assert_eq!(message, json!({"id": "f1"}));
        assert_eq!(all[1], (2, b"{}".to_vec()));
        let sent = recorder.take().remove(0).body;
        let file = sent.windows(4).any(|part| part == [1, 2, 3, 4]);
        assert!(file, "{sent:?}");

        let path = "/acme.v1.FileService/Take";
        let body = frame(0, br#"{"id":"f"}"#);
        let response = send(address, version, "POST", path, &headers, body).await;
        let all = frames(&response.body);
        assert_eq!(all.last().unwrap(), &(2, b"{}".to_vec()));
        assert!(all.len() >= 2, "{all:?}");
        recorder.take();

        // As unary rpcs, they are not served.
        let headers = [("content-type", "application/json")];
        for path in ["/acme.v1.FileService/Put", "/acme.v1.FileService/Take"] {
            let response = send(address, version, "POST", path, &headers, "{}").await;
            assert_eq!(response.status, 415);
        }
    }
    assert!(recorder.seen().is_empty());
}
