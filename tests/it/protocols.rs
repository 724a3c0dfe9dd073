//! gRPC-Web and Connect: the same calls as by gRPC, over HTTP/1.1 and HTTP/2, with each form of
//! error, deadlines, compression and cancellation.

mod client;
mod own;

use std::io::{Read as _, Write as _};
use std::time::Duration;

use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use self::client::Protocol::*;
use self::client::{STREAMING, UNARY};
use crate::support::log::{keep_log, logged};
use crate::support::recorder::{Answer, Recorder};
use crate::support::web::{VERSIONS, Version, frame, frames, open, send};
use crate::support::{Gateway, http_get, settings, upstream};

const SERVICE: &str = "/openstack.orchestration.v1.SoftwareDeploymentService";
const GET: &str = "/openstack.orchestration.v1.SoftwareDeploymentService/GetSoftwareDeployment";

/// A gateway to an upstream of deployments: `d1` exists, `big` is long, and others do not.
async fn deployments() -> (Recorder, Gateway) {
    let recorder = Recorder::start(|seen| {
        let deployment = |id: &str, reason: &str| {
            json!({"id": id, "server_id": "s", "config_id": "c", "status": "COMPLETE",
                "status_reason": reason, "creation_time": "2026-01-01T00:00:00Z",
                "output_values": {"share": 0.5, "big": 1e300}})
        };
        match seen.path() {
            "/v1/p1/software_deployments/d1" => Answer::json(
                200,
                &json!({"software_deployment": deployment("d1", "größer")}),
            )
            .with("x-openstack-request-id", "req-up"),
            "/v1/p1/software_deployments/big" => Answer::json(
                200,
                &json!({"software_deployment": deployment("big", &"long ".repeat(40_000))}),
            ),
            _ => Answer::json(
                404,
                &json!({"code": 404, "title": "Not Found", "explanation": "x",
                    "error": {"type": "NotFound", "message": "gone", "traceback": null}}),
            ),
        }
    })
    .await;
    let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
    (recorder, gateway)
}

const GET_RPC: &str = "SoftwareDeploymentService/GetSoftwareDeployment";
const WATCH_RPC: &str = "SoftwareDeploymentService/WatchSoftwareDeployment";

#[tokio::test]
async fn unary_call_is_the_same_in_each_protocol() {
    let (recorder, gateway) = deployments().await;
    let by_grpc = gateway.client.call(GET_RPC, json!({"deployment_id": "d1"}));
    let by_grpc = serde_json::to_value(by_grpc.await.unwrap()).unwrap();
    let by_grpc_seen = recorder.take().remove(0);
    for version in VERSIONS {
        for protocol in UNARY {
            let request = json!({"deployment_id": "d1"});
            let headers = [("x-request-id", "r-1"), ("accept-language", "ja")];
            let response = protocol.call(&gateway, version, GET_RPC, &request, &headers);
            let response = response.await;
            let answered = protocol.read(&gateway, GET_RPC, &response);
            assert_eq!(answered.code, None, "{protocol:?} {answered:?}");
            assert_eq!(
                answered.messages,
                std::slice::from_ref(&by_grpc),
                "{protocol:?} {version:?}"
            );
            assert_eq!(response.header("x-openstack-request-id"), "req-up");
            let seen = recorder.take().remove(0);
            assert_eq!(seen.target, by_grpc_seen.target);
            assert_eq!(seen.header("x-request-id"), "r-1");
        }
    }
    // 64-bit integers and large numbers are those of proto3 JSON.
    assert_eq!(by_grpc["softwareDeployment"]["outputValues"]["big"], 1e300);
}

#[tokio::test]
async fn each_error_has_the_form_of_its_protocol() {
    let (_recorder, gateway) = deployments().await;
    for (request, headers, code, http, text, detail) in [
        (
            json!({"deployment_id": "d2"}),
            &[][..],
            "not_found",
            404,
            "gone",
            "google.rpc.ErrorInfo",
        ),
        (
            json!({}),
            &[],
            "invalid_argument",
            400,
            "deployment_id",
            "google.rpc.BadRequest",
        ),
        (
            json!({"deployment_id": "d1"}),
            &[("drawbridge-upstream", "other")],
            "invalid_argument",
            400,
            "other",
            "google.rpc.RequestInfo",
        ),
        (
            json!({"deployment_id": "x".repeat(5 << 20)}),
            &[],
            "resource_exhausted",
            429,
            "max_request_bytes",
            "google.rpc.ErrorInfo",
        ),
    ] {
        for version in VERSIONS {
            for protocol in UNARY {
                let response = protocol.call(&gateway, version, GET_RPC, &request, headers);
                let response = response.await;
                let answered = protocol.read(&gateway, GET_RPC, &response);
                assert_eq!(
                    answered.code.as_deref(),
                    Some(code),
                    "{protocol:?} {answered:?}"
                );
                assert!(answered.message.contains(text), "{answered:?}");
                assert!(answered.details.iter().any(|d| d == detail), "{answered:?}");
                assert!(response.headers.contains_key("x-request-id"));
                if matches!(protocol, Json | Proto) {
                    assert_eq!(response.status, http);
                    assert!(!response.headers.contains_key("grpc-status"));
                }
            }
            for protocol in STREAMING {
                // These fail before the stream begins.
                let response = protocol.call(&gateway, version, WATCH_RPC, &request, headers);
                let response = response.await;
                let answered = protocol.read(&gateway, WATCH_RPC, &response);
                assert_eq!(
                    answered.code.as_deref(),
                    Some(code),
                    "{protocol:?} {answered:?}"
                );
                assert_eq!(answered.messages, [] as [Value; 0]);
            }
        }
    }
}

#[tokio::test]
async fn requests_that_are_no_calls_of_a_protocol_are_rejected() {
    let (recorder, gateway) = deployments().await;
    let address = gateway.running.grpc;
    let json = "application/json";
    let connect_json = "application/connect+json";
    for version in VERSIONS {
        for (path, headers, body, status, text) in [
            // The kind of the rpc and the content type do not match.
            (
                &*format!("{SERVICE}/WatchSoftwareDeployment"),
                &[("content-type", json)][..],
                &b"{}"[..],
                415,
                "application/connect+json",
            ),
            (
                GET,
                &[("content-type", connect_json)],
                b"\0\0\0\0\x02{}",
                415,
                "application/json",
            ),
            (
                "/grpc.health.v1.Health/Watch",
                &[("content-type", json)],
                b"{}",
                415,
                "connect",
            ),
            // Unknown rpcs.
            (
                "/no.Such/Method",
                &[("content-type", json)],
                b"{}",
                501,
                "does not serve no.Such",
            ),
            (
                &*format!("{SERVICE}/GetSoftwareDeploymen"),
                &[("content-type", json)],
                b"{}",
                501,
                "did you mean GetSoftwareDeployment?",
            ),
            // Fields that do not exist, and values that would be lost.
            (
                GET,
                &[("content-type", json)],
                br#"{"deploymentId": "d1", "x": 1}"#,
                400,
                "x: no such field: GetSoftwareDeploymentRequest has",
            ),
            (
                GET,
                &[("content-type", json)],
                br#"{"deploymentId": 5}"#,
                400,
                "deploymentId: expected a string",
            ),
            (
                GET,
                &[("content-type", json)],
                b"",
                400,
                "the JSON is empty",
            ),
            (
                GET,
                &[("content-type", json)],
                b"{",
                400,
                "the end of the text",
            ),
            (
                GET,
                &[("content-type", "application/proto")],
                b"\xff",
                400,
                "malformed",
            ),
            (
                GET,
                &[("content-type", json), ("connect-timeout-ms", "5S")],
                b"{}",
                400,
                "connect-timeout-ms",
            ),
            (
                GET,
                &[("content-type", json), ("connect-protocol-version", "2")],
                b"{}",
                400,
                "connect-protocol-version",
            ),
            (
                GET,
                &[("content-type", json), ("content-encoding", "br")],
                b"{}",
                501,
                "use gzip or none",
            ),
            (
                GET,
                &[("content-type", json), ("content-encoding", "gzip")],
                b"{}",
                400,
                "decompressed",
            ),
            (
                GET,
                &[
                    ("content-type", json),
                    ("connect-timeout-ms", "5"),
                    ("connect-timeout-ms", "6"),
                ],
                b"{}",
                400,
                "connect-timeout-ms",
            ),
            (
                GET,
                &[("content-type", json), ("content-encoding", "gzip, gzip")],
                b"{}",
                501,
                "use gzip or none",
            ),
            (
                "//GetStack",
                &[("content-type", json)],
                b"{}",
                501,
                "not the path of an rpc",
            ),
        ] {
            let response = send(address, version, "POST", path, headers, body).await;
            let shown = response.text();
            assert_eq!(response.status, status, "{path} {headers:?}: {shown}");
            let shown = shown.to_lowercase();
            assert!(
                shown.contains(&text.to_lowercase()),
                "{path} {headers:?}: {shown}"
            );
        }
    }
    assert!(recorder.seen().is_empty(), "{:?}", recorder.seen());
}

/// What a client writes in another way than its protocol says is its own fault, in each protocol
/// and for the rpcs that tonic serves: neither INTERNAL nor 500, which alerts count.
#[tokio::test]
async fn invalid_bodies_are_the_fault_of_the_client() {
    let (recorder, gateway) = deployments().await;
    let address = gateway.running.grpc;
    let rpcs = [
        (
            GET,
            br#"{"deploymentId":"d1"}"#.to_vec(),
            b"\x0a\x02d1".to_vec(),
        ),
        ("/grpc.health.v1.Health/Check", b"{}".to_vec(), b"".to_vec()),
    ];
    let truncated = |bytes: &[u8]| bytes[..bytes.len() - 5].to_vec();
    let two = |bytes: &[u8]| [bytes, bytes].concat();
    for version in VERSIONS {
        for (path, json, proto) in &rpcs {
            for (content_type, encoding, body, code) in [
                (
                    "application/json",
                    "content-encoding",
                    truncated(&gzip(json)),
                    "400",
                ),
                (
                    "application/json",
                    "content-encoding",
                    [&gzip(json), json.as_slice()].concat(),
                    "400",
                ),
                ("application/proto", "content-encoding", json.clone(), "400"),
                (
                    "application/grpc",
                    "grpc-encoding",
                    frame(1, &truncated(&gzip(proto))),
                    "3",
                ),
                ("application/grpc", "grpc-encoding", frame(1, b"abc"), "3"),
                ("application/grpc", "grpc-encoding", frame(9, proto), "3"),
                ("application/grpc", "x-none", frame(1, &gzip(proto)), "3"),
                ("application/grpc", "x-none", frame(0, b"\xff"), "3"),
                (
                    "application/grpc-web",
                    "grpc-encoding",
                    frame(1, &truncated(&gzip(proto))),
                    "3",
                ),
                (
                    "application/grpc-web",
                    "x-none",
                    frame(1, &gzip(proto)),
                    "3",
                ),
                ("application/grpc-web", "x-none", frame(9, proto), "3"),
                (
                    "application/grpc-web",
                    "x-none",
                    two(&frame(0, proto)),
                    "12",
                ),
                ("application/grpc-web", "x-none", Vec::new(), "12"),
                (
                    "application/grpc-web",
                    "x-none",
                    truncated(&frame(0, &[8; 9])),
                    "3",
                ),
            ] {
                // tonic reads one message of a unary call, and ignores others.
                let is_own = *path != GET;
                let is_http1 = version == Version::Http1;
                if content_type == "application/grpc" && is_http1 || code == "12" && is_own {
                    continue;
                }
                let headers = [("content-type", content_type), (encoding, "gzip")];
                let response = send(address, version, "POST", path, &headers, body).await;
                let got = match response.status {
                    200 => response.header("grpc-status").to_owned(),
                    status => status.to_string(),
                };
                let case = format!("{version:?} {path} {content_type} {encoding} {response:?}");
                assert_eq!(got, code, "{case}");
            }
        }
        // A stream of Connect has its error in the last message.
        let path = format!("{SERVICE}/WatchSoftwareDeployment");
        let message = br#"{"deploymentId":"d1"}"#;
        for (encoding, body, code) in [
            (
                "connect-content-encoding",
                frame(1, &truncated(&gzip(message))),
                "invalid_argument",
            ),
            ("x-none", frame(1, &gzip(message)), "invalid_argument"),
            ("x-none", frame(9, message), "invalid_argument"),
            ("x-none", truncated(&frame(0, message)), "invalid_argument"),
            ("x-none", two(&frame(0, message)), "unimplemented"),
        ] {
            let headers = [
                ("content-type", "application/connect+json"),
                (encoding, "gzip"),
            ];
            let response = send(address, version, "POST", &path, &headers, body).await;
            let (flags, end) = frames(&response.body).pop().unwrap();
            let end: Value = serde_json::from_slice(&end).unwrap();
            assert_eq!(
                (flags, end["error"]["code"].as_str()),
                (2, Some(code)),
                "{encoding}"
            );
        }
    }
    assert!(recorder.seen().is_empty(), "{:?}", recorder.seen());
}

/// A mark that some editors and shells put before a text. Source: RFC 8259, "Character Encoding".
#[tokio::test]
async fn byte_order_mark_before_json_is_ignored() {
    let (_recorder, gateway) = deployments().await;
    let address = gateway.running.grpc;
    let message = "\u{feff}{\"deploymentId\":\"d1\"}".as_bytes();
    let json = [("content-type", "application/json")];
    let response = send(address, Version::Http1, "POST", GET, &json, message).await;
    assert_eq!(response.status, 200, "{}", response.text());
    let path = format!("{SERVICE}/WatchSoftwareDeployment");
    let stream = [("content-type", "application/connect+json")];
    let body = frame(0, message);
    let response = send(address, Version::Http1, "POST", &path, &stream, body).await;
    assert_eq!(frames(&response.body).pop().unwrap().1, b"{}");
}

/// The log and the metrics name the protocol of a call.
#[tokio::test]
async fn protocol_is_logged_and_counted() {
    keep_log();
    // Lines about the same code and status are summed up, those of other tests, too: they have none
    // of these.
    let recorder = Recorder::fixed(Answer::json(451, &json!({}))).await;
    let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
    let request = json!({"deployment_id": "d1"});
    for (protocol, id) in [
        (Json, "protocol-connect"),
        (Proto, "protocol-connect"),
        (GrpcWeb, "protocol-grpc-web"),
        (GrpcWebText, "protocol-grpc-web"),
    ] {
        let headers = [("x-request-id", id)];
        let call = protocol.call(&gateway, Version::Http1, GET_RPC, &request, &headers);
        call.await;
    }
    let headers = [("x-request-id", "protocol-grpc")];
    let failed = gateway.client.call_with(GET_RPC, request, &headers).await;
    failed.unwrap_err();
    // One that is rejected before its rpc is called.
    let long = "a".repeat(65 << 10);
    let headers = [
        ("content-type", "application/json"),
        ("x-request-id", "protocol-rejected"),
        ("x-long", &long),
    ];
    let rejected = send(
        gateway.running.grpc,
        Version::Http1,
        "POST",
        GET,
        &headers,
        "{}",
    );
    assert_eq!(rejected.await.status, 429);
    for (id, protocol, count) in [
        ("protocol-connect", "connect", 2),
        ("protocol-grpc-web", "grpc-web", 2),
        ("protocol-grpc", "grpc", 1),
        ("protocol-rejected", "connect", 1),
    ] {
        let lines = logged(id);
        let lines: Vec<_> = lines
            .iter()
            .filter(|line| line.contains(&format!("{id}\"")))
            .collect();
        assert_eq!(lines.len(), count, "{lines:?}");
        let field = format!("protocol=\"{protocol}\"");
        assert!(lines.iter().all(|line| line.contains(&field)), "{lines:?}");
    }
    let (_, text) = http_get(&format!(
        "http://{}/metrics",
        gateway.running.admin.unwrap()
    ))
    .await;
    for (protocol, count) in [("grpc", 1), ("grpc-web", 2), ("connect", 3)] {
        let line = format!("drawbridge_rpc_requests_total{{protocol=\"{protocol}\"}} {count}\n");
        assert!(text.contains(&line), "{line}{text}");
    }
}

#[tokio::test]
async fn stream_is_the_same_in_each_protocol() {
    let (_recorder, gateway) = deployments().await;
    let mut by_grpc = Vec::new();
    let request = json!({"deployment_id": "d1"});
    let mut watch = (gateway.client.watch(WATCH_RPC, request.clone(), &[]).await).unwrap();
    let without_time = |mut message: Value| {
        message["event"]["observedAt"] = Value::Null;
        message
    };
    while let Some(message) = watch.next().await {
        let message = serde_json::to_value(message.unwrap()).unwrap();
        by_grpc.push(without_time(message));
    }
    assert_eq!(by_grpc.len(), 1);
    for version in VERSIONS {
        for protocol in STREAMING {
            let response = protocol
                .call(&gateway, version, WATCH_RPC, &request, &[])
                .await;
            let answered = protocol.read(&gateway, WATCH_RPC, &response);
            assert_eq!(answered.code, None, "{protocol:?} {answered:?}");
            let messages = answered.messages.into_iter().map(without_time);
            assert_eq!(messages.collect::<Vec<_>>(), by_grpc, "{protocol:?}");
        }
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    flate2::read::GzDecoder::new(bytes)
        .read_to_end(&mut all)
        .unwrap();
    all
}

#[tokio::test]
async fn messages_are_compressed_as_the_protocol_says() {
    let (_recorder, gateway) = deployments().await;
    let address = gateway.running.grpc;
    let big = br#"{"deployment_id":"big"}"#;
    let small = br#"{"deployment_id":"d1"}"#;
    let unary = ("content-type", "application/json");
    for version in VERSIONS {
        for (request, compress, accept, compressed) in [
            (&big[..], false, None, false),
            (big, false, Some("gzip"), true),
            (big, false, Some("br"), false),
            (small, false, Some("gzip"), false),
            (small, true, None, true),
            (big, true, Some("identity"), false),
        ] {
            let mut headers = vec![unary];
            headers.extend(compress.then_some(("content-encoding", "gzip")));
            headers.extend(accept.map(|accept| ("accept-encoding", accept)));
            let body = if compress {
                gzip(request)
            } else {
                request.to_vec()
            };
            let response = send(address, version, "POST", GET, &headers, body).await;
            assert_eq!(response.status, 200, "{}", response.text());
            let case = format!("{compress} {accept:?}");
            assert_eq!(
                response.header("content-encoding") == "gzip",
                compressed,
                "{case}"
            );
            assert!(!response.headers.contains_key("grpc-encoding"));
            let text = if compressed {
                gunzip(&response.body)
            } else {
                response.body.to_vec()
            };
            let message: Value = serde_json::from_slice(&text).unwrap();
            assert!(message["softwareDeployment"]["id"].is_string());
        }
        // An empty body is not decompressed, so that it is an empty text.
        let headers = [unary, ("content-encoding", "gzip")];
        let response = send(address, version, "POST", GET, &headers, "").await;
        assert!(
            response.text().contains("the JSON is empty"),
            "{}",
            response.text()
        );

        // A stream: flag 1 is a compressed message, and its end is not compressed.
        let path = format!("{SERVICE}/WatchSoftwareDeployment");
        for (name, accept, compress) in [
            ("connect-accept-encoding", "gzip", false),
            ("connect-content-encoding", "gzip", true),
        ] {
            let headers = [("content-type", "application/connect+json"), (name, accept)];
            let body = match compress {
                true => frame(1, &gzip(big)),
                false => frame(0, big),
            };
            let response = send(address, version, "POST", &path, &headers, body).await;
            assert_eq!(response.header("connect-content-encoding"), "gzip");
            let all = frames(&response.body);
            assert_eq!([all[0].0, all[1].0], [1, 2], "{name}");
            let message: Value = serde_json::from_slice(&gunzip(&all[0].1)).unwrap();
            assert_eq!(message["softwareDeployment"]["id"], "big");
            assert_eq!(all[1].1, b"{}");
        }
        // gRPC-Web compresses as gRPC does.
        let proto = GrpcWeb.body(&gateway, GET_RPC, &json!({"deployment_id": "d1"}));
        let headers = [
            ("content-type", "application/grpc-web"),
            ("grpc-encoding", "gzip"),
        ];
        let body = frame(1, &gzip(&proto[5..]));
        let response = send(address, version, "POST", GET, &headers, body).await;
        assert_eq!(response.header("grpc-encoding"), "gzip");
        let all = frames(&response.body);
        assert_eq!([all[0].0, all[1].0], [1, 0x80]);
        assert!(!gunzip(&all[0].1).is_empty());
    }
}

#[tokio::test]
async fn credentials_come_before_the_body() {
    let mut config = settings(vec![]);
    config.client_tokens = vec!["t0ken".into()];
    let gateway = Gateway::start(config).await;
    for protocol in [Json, Proto, StreamJson, GrpcWeb, GrpcWebText] {
        // The body never arrives.
        let mut tcp = tokio::net::TcpStream::connect(gateway.running.grpc)
            .await
            .unwrap();
        let content_type = protocol.content_type();
        let head = format!(
            "POST {GET} HTTP/1.1\r\nhost: x\r\ncontent-type: {content_type}\r\n\
             content-length: 100\r\nexpect: 100-continue\r\n\r\n"
        );
        tcp.write_all(head.as_bytes()).await.unwrap();
        let mut text = Vec::new();
        tcp.read_to_end(&mut text).await.unwrap();
        let text = String::from_utf8_lossy(&text);
        let is_unary = matches!(protocol, Json | Proto);
        let status = if is_unary {
            "401 Unauthorized"
        } else {
            "200 OK"
        };
        assert!(
            text.starts_with(&format!("HTTP/1.1 {status}")),
            "{protocol:?}: {text}"
        );
        let code = match protocol {
            GrpcWeb | GrpcWebText => "grpc-status: 16",
            _ => r#""code":"unauthenticated""#,
        };
        assert!(text.contains(code), "{protocol:?}: {text}");
        let valid = [("drawbridge-token", "t0ken")];
        let request = json!({"deployment_id": "d1"});
        if is_unary {
            let response = protocol.call(&gateway, Version::Http1, GET_RPC, &request, &valid);
            let answered = protocol.read(&gateway, GET_RPC, &response.await);
            assert_eq!(answered.code.as_deref(), Some("failed_precondition"));
        }
    }
}

/// Accepts connections, and returns each when its request has arrived.
async fn silent_upstream() -> (tokio::net::TcpListener, Gateway) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let gateway = Gateway::with(vec![upstream("u", "heat", &url)]).await;
    (listener, gateway)
}

#[tokio::test]
async fn deadline_and_cancellation_end_the_upstream_call() {
    let (listener, gateway) = silent_upstream().await;
    let address = gateway.running.grpc;
    for version in VERSIONS {
        for protocol in [Json, GrpcWeb] {
            let header = match protocol {
                Json => ("connect-timeout-ms", "50"),
                _ => ("grpc-timeout", "50m"),
            };
            let request = json!({"deployment_id": "d1"});
            let response = protocol
                .call(&gateway, version, GET_RPC, &request, &[header])
                .await;
            let answered = protocol.read(&gateway, GET_RPC, &response);
            assert_eq!(
                answered.code.as_deref(),
                Some("deadline_exceeded"),
                "{answered:?}"
            );
        }
        while tokio::time::timeout(Duration::ZERO, listener.accept())
            .await
            .is_ok()
        {}
        const WATCH: &str =
            "/openstack.orchestration.v1.SoftwareDeploymentService/WatchSoftwareDeployment";
        let by_grpc_web = GrpcWeb.body(&gateway, GET_RPC, &json!({"deployment_id": "c1"}));
        for (path, content_type, body) in [
            (
                GET,
                "application/json",
                br#"{"deployment_id":"c1"}"#.to_vec(),
            ),
            (
                WATCH,
                "application/connect+json",
                frame(0, br#"{"deployment_id":"c1"}"#),
            ),
            (GET, "application/grpc-web", by_grpc_web.clone()),
        ] {
            // Over HTTP/1.1 the client closes its connection, over HTTP/2 it resets the stream.
            let call = tokio::spawn(async move {
                let headers = [("content-type", content_type)];
                if version == Version::Http2 {
                    open(address, version, "POST", path, &headers, body).await;
                    return;
                }
                let mut tcp = tokio::net::TcpStream::connect(address).await.unwrap();
                let length = body.len();
                let head = format!(
                    "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {content_type}\r\n\
                     content-length: {length}\r\n\r\n"
                );
                tcp.write_all(&[head.as_bytes(), &body].concat())
                    .await
                    .unwrap();
                tcp.read_u8().await.unwrap();
            });
            let mut upstream = loop {
                let (mut upstream, _) = listener.accept().await.unwrap();
                let mut head = vec![0; 4_096];
                let length = upstream.read(&mut head).await.unwrap();
                if String::from_utf8_lossy(&head[..length]).contains("/c1") {
                    break upstream;
                }
            };
            call.abort();
            let _ = call.await;
            // The gateway closes the connection of a call that has no client.
            let mut rest = Vec::new();
            upstream.read_to_end(&mut rest).await.unwrap();
        }
    }
}

/// The first message arrives while the stream is open, and the connection serves other calls
/// after it.
#[tokio::test]
async fn stream_over_http_1_is_sent_message_by_message() {
    let recorder = Recorder::start(|_| {
        Answer::json(
            200,
            &json!({"software_deployment": {"id": "d1", "status": "IN_PROGRESS"}}),
        )
    })
    .await;
    let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
    let path = format!("{SERVICE}/WatchSoftwareDeployment");
    let headers = [("content-type", "application/connect+json")];
    let body = frame(0, br#"{"deployment_id":"d1"}"#);
    let address = gateway.running.grpc;
    let response = open(address, Version::Http1, "POST", &path, &headers, body).await;
    let mut body = response.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    let (flags, message) = frames(&first).remove(0);
    let message: Value = serde_json::from_slice(&message).unwrap();
    assert_eq!(
        (flags, &message["event"]["type"]),
        (0, &json!("WATCH_EVENT_TYPE_INITIAL"))
    );
    // A drain ends it with UNAVAILABLE.
    let stop = tokio::spawn(gateway.running.stop());
    let mut rest = Vec::new();
    while let Some(frame) = body.frame().await {
        rest.extend_from_slice(&frame.unwrap().into_data().unwrap());
    }
    let (flags, end) = frames(&rest).pop().unwrap();
    let end: Value = serde_json::from_slice(&end).unwrap();
    assert_eq!(
        (flags, &end["error"]["code"]),
        (2, &json!("unavailable")),
        "{end}"
    );
    assert!(end["metadata"]["x-request-id"][0].is_string(), "{end}");
    stop.await.unwrap().unwrap();
}
