//! The server around the rpcs: health, reflection, metrics, compression, authentication,
//! TLS.

use std::collections::BTreeSet;
use std::time::Duration;

use drawbridge::config::Tls;
use prost::Message as _;
use serde_json::json;
use tokio_stream::StreamExt;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::{v1, v1alpha};
use tonic_types::StatusExt;

use crate::support::log::{keep_log, logged};
use crate::support::recorder::{Answer, Recorder};
use crate::support::tls::{Ca, rcgen_ca, tls_connect};
use crate::support::{Gateway, http_get, nowhere, settings, upstream};

const LIST: &str = "SoftwareDeploymentService/ListSoftwareDeployments";

/// Returns the health of a service by its name in the proto.
pub async fn health(gateway: &Gateway, service: &str) -> Result<String, tonic::Status> {
    let mut client = HealthClient::new(gateway.client.channel.clone());
    let request = HealthCheckRequest {
        service: service.into(),
    };
    Ok(format!(
        "{:?}",
        client.check(request).await?.into_inner().status()
    ))
}

/// Returns the services that reflection lists.
pub async fn services(gateway: &Gateway) -> Vec<String> {
    use v1::server_reflection_request::MessageRequest;
    use v1::server_reflection_response::MessageResponse;
    let mut client =
        v1::server_reflection_client::ServerReflectionClient::new(gateway.client.channel.clone());
    let request = v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = client
        .server_reflection_info(tokio_stream::once(request))
        .await
        .unwrap()
        .into_inner();
    match answers
        .next()
        .await
        .unwrap()
        .unwrap()
        .message_response
        .unwrap()
    {
        MessageResponse::ListServicesResponse(list) => {
            list.service.into_iter().map(|s| s.name).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn health_follows_upstream_probes() {
    let recorder = Recorder::fixed(Answer::json(300, &json!({}))).await;
    let mut config = settings(vec![
        upstream("up", "heat", &recorder.url()),
        upstream("down", "jp1ao", &format!("http://{}", nowhere())),
    ]);
    config.server.health_check_interval = Duration::from_secs(60);
    let gateway = Gateway::start(config).await;
    assert_eq!(health(&gateway, "").await.unwrap(), "Serving");
    // The stream sends a status when the first probes are done.
    for (service, want) in [
        (
            "openstack.orchestration.v1.SoftwareDeploymentService",
            "Serving",
        ),
        ("hitachi.automation.v1.AutomationService", "NotServing"),
        ("huaweicloud.servicestage.v3.JobService", "NotServing"),
    ] {
        let mut client = HealthClient::new(gateway.client.channel.clone());
        let mut stream = client
            .watch(HealthCheckRequest {
                service: service.into(),
            })
            .await
            .unwrap()
            .into_inner();
        loop {
            let status = stream.next().await.unwrap().unwrap().status();
            if format!("{status:?}") == want {
                break;
            }
        }
    }
    assert_eq!(
        health(&gateway, "no.such.Service")
            .await
            .unwrap_err()
            .code(),
        Code::NotFound
    );
}

#[tokio::test]
async fn reflection_serves_both_versions() {
    let gateway = Gateway::with(
        ["heat", "servicestage"]
            .map(|family| upstream(family, family, "http://127.0.0.1:1"))
            .to_vec(),
    )
    .await;
    let listed = services(&gateway).await;
    for service in [
        "openstack.orchestration.v1.SoftwareConfigService",
        "openstack.orchestration.v1.SoftwareDeploymentService",
        "huaweicloud.servicestage.v3.AddonService",
        "huaweicloud.servicestage.v3.JobService",
        "drawbridge.v1.GatewayService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ] {
        assert!(
            listed.contains(&service.to_owned()),
            "{service} not in {listed:?}"
        );
        // What is served has a health.
        health(&gateway, service).await.unwrap();
    }
    let without_upstream = listed.iter().find(|s| s.starts_with("hitachi."));
    assert_eq!(without_upstream, None);
    use v1alpha::server_reflection_request::MessageRequest;
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(
        gateway.client.channel.clone(),
    );
    // An unknown symbol does not end the stream.
    let requests = [
        "no.such.Symbol",
        "openstack.orchestration.v1.SoftwareDeployment",
        "google.rpc.ErrorInfo",
    ]
    .map(|symbol| v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::FileContainingSymbol(symbol.into())),
    });
    let mut answers = client
        .server_reflection_info(tokio_stream::iter(requests))
        .await
        .unwrap()
        .into_inner();
    for want in [
        "ErrorResponse",
        "FileDescriptorResponse",
        "FileDescriptorResponse",
    ] {
        let answer = answers.next().await.unwrap().unwrap();
        let text = format!("{answer:?}");
        assert!(text.contains(want), "{text}");
    }
    assert!(answers.next().await.is_none());
}

#[tokio::test]
async fn unknown_method_is_unimplemented() {
    let gateway = Gateway::with(vec![]).await;
    let mut grpc = tonic::client::Grpc::new(gateway.client.channel.clone());
    grpc.ready().await.unwrap();
    let mut request = tonic::Request::new(bytes::Bytes::new());
    let id = "req-00000000-0000-4000-8000-000000000001".parse().unwrap();
    request.metadata_mut().insert("x-request-id", id);
    let status = grpc
        .unary(
            request,
            "/openstack.orchestration.v1.SoftwareConfigService/Nonsense"
                .parse()
                .unwrap(),
            crate::support::client::BytesCodec,
        )
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(
        status.message().contains("has no rpc Nonsense"),
        "{status:?}"
    );
    let details = tonic_types::StatusExt::get_error_details(&status);
    let info = details.request_info().unwrap();
    assert!(
        info.serving_data
            .contains("00000000-0000-4000-8000-000000000001"),
        "{info:?}"
    );
}

/// A message that is too long has one code, however it is sent and whichever rpc it is for.
#[tokio::test]
async fn oversized_request_is_resource_exhausted() {
    use tonic::codec::CompressionEncoding::Gzip;
    let recorder = Recorder::fixed(Answer::json(200, &json!({}))).await;
    let gateway = Gateway::with(vec![
        upstream("u", "heat", &recorder.url()),
        upstream("j", "jp1ao", &recorder.url()),
    ])
    .await;
    let limit = 4 << 20;
    let random: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..))
        .take(limit + 1)
        .collect();
    let messages = [
        bytes::Bytes::from(vec![0; limit + 1]),
        bytes::Bytes::from(vec![0; 8 * limit]),
        // Does not get shorter by compression.
        bytes::Bytes::from(random),
    ];
    for path in [
        "/openstack.orchestration.v1.StackService/ListStacks",
        "/openstack.orchestration.v1.StackService/CreateStack",
        "/openstack.orchestration.v1.StackService/StreamStacks",
        "/openstack.orchestration.v1.StackService/WatchStack",
        "/hitachi.automation.v1.ServiceTemplateService/ImportServiceTemplate",
        "/drawbridge.v1.GatewayService/ListUpstreams",
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ] {
        let is_own = path.starts_with("/grpc.") || path.starts_with("/drawbridge.");
        for compressed in [false, true] {
            if compressed && is_own {
                continue;
            }
            for message in &messages {
                let mut grpc = tonic::client::Grpc::new(gateway.client.channel.clone());
                if compressed {
                    grpc = grpc.send_compressed(Gzip);
                }
                grpc.ready().await.unwrap();
                let sent = tonic::Request::new(tokio_stream::once(message.clone()));
                let codec = crate::support::client::BytesCodec;
                let status = match grpc.streaming(sent, path.parse().unwrap(), codec).await {
                    Ok(response) => response.into_inner().message().await.unwrap_err(),
                    Err(status) => status,
                };
                let case = format!("{path} {compressed} {}: {status:?}", message.len());
                assert_eq!(status.code(), Code::ResourceExhausted, "{case}");
                assert!(
                    status.message().contains("server.max_request_bytes"),
                    "{case}"
                );
                assert!(!status.details().is_empty(), "{case}");
            }
        }
    }
    assert!(!recorder.seen().iter().any(|seen| seen.method == "POST"));
}

/// HTTP/2 itself accepts more than the limit, so that clients get a status of gRPC.
#[tokio::test]
async fn long_metadata_gets_a_grpc_status() {
    let recorder = Recorder::fixed(Answer::json(200, &json!({"software_deployments": []}))).await;
    let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
    for (length, want) in [
        (20_000, None),
        (60_000, None),
        (70_000, Some(Code::ResourceExhausted)),
        (250_000, Some(Code::ResourceExhausted)),
    ] {
        let value = "x".repeat(length);
        let result = gateway
            .client
            .call_with(LIST, json!({}), &[("x-big", &value)])
            .await;
        let status = result.err();
        assert_eq!(status.as_ref().map(tonic::Status::code), want, "{length}");
        if let Some(status) = status {
            assert!(status.message().contains("65536"), "{status:?}");
        }
    }
}

#[tokio::test]
async fn list_upstreams_has_no_secrets() {
    let mut one = upstream("one", "heat", "http://127.0.0.1:1/v1");
    one.auth = drawbridge::credentials::Settings::Basic {
        username: "u".into(),
        password: "hidden-secret".into(),
    };
    let gateway = Gateway::with(vec![one, upstream("two", "jp1ao", "http://127.0.0.1:2")]).await;
    let got = gateway
        .client
        .call("GatewayService/ListUpstreams", json!({}))
        .await
        .unwrap();
    let got = crate::support::client::json(&got);
    let names: Vec<_> = got["upstreams"]
        .as_array()
        .unwrap()
        .iter()
        .map(|u| u["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["one", "two"]);
    assert_eq!(got["upstreams"][0]["dialect"], "openstack");
    assert_eq!(got["upstreams"][0]["credentials"], "basic");
    assert!(!got.to_string().contains("hidden-secret"));
    let got = gateway
        .client
        .call("GatewayService/ListUpstreams", json!({"family": "jp1ao"}))
        .await
        .unwrap();
    assert_eq!(
        crate::support::client::json(&got)["upstreams"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn admin_listener_serves_metrics_and_probes() {
    let recorder = Recorder::fixed(Answer::json(200, &json!({"software_deployments": []}))).await;
    let mut with_login = upstream("login", "servicestage", &recorder.url());
    with_login.auth = crate::health::keystone(&recorder.url());
    let heat = upstream("u", "heat", &recorder.url());
    let mut settings = settings(vec![heat, with_login]);
    settings.client_tokens = vec!["t0ken".into()];
    let gateway = Gateway::start(settings).await;
    let token = [("drawbridge-token", "t0ken")];
    let called = gateway.client.call_with(LIST, json!({}), &token).await;
    called.unwrap();
    let admin = gateway.running.admin.unwrap();
    assert_eq!(http_get(&format!("http://{admin}/livez")).await.0, 200);
    assert_eq!(http_get(&format!("http://{admin}/readyz")).await.0, 200);
    let (status, text) = http_get(&format!("http://{admin}/metrics")).await;
    assert_eq!(status, 200);
    for line in [
        r#"drawbridge_rpc_calls_total{operation="openstack.orchestration.v1.SoftwareDeploymentService/ListSoftwareDeployments",upstream="u",code="OK"} 1"#,
        r#"drawbridge_upstream_requests_total{upstream="u",http_status="200"}"#,
        "drawbridge_rpc_calls_in_flight 0",
        r#"drawbridge_upstream_circuit_breaker_open{upstream="u"} 0"#,
    ] {
        assert!(text.contains(line), "{line} not in\n{text}");
    }
    // Only with TLS, and after a login.
    let of_others = [
        "drawbridge_certificate_expiry_timestamp_seconds",
        "drawbridge_credential_expiry_timestamp_seconds",
    ];
    let served: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| match kind {
            "counter" => format!("{name}_total"),
            _ => name.to_owned(),
        })
        .chain(of_others.map(str::to_owned))
        .collect();
    let documented: BTreeSet<String> = include_str!("../../docs/operations.md")
        .lines()
        .filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0))
        .filter(|name| name.starts_with("drawbridge_"))
        .map(str::to_owned)
        .collect();
    assert_eq!(served, documented, "docs/operations.md lists every metric");
}

/// The failure of a stream after its first message is counted and logged, with the request
/// id of the status.
#[tokio::test]
async fn failed_stream_is_counted_and_logged_once() {
    const STREAM: &str = "StackService/StreamStacks";
    keep_log();
    let recorder = Recorder::start(|seen| match seen.query().contains("marker=b") {
        false => Answer::json(
            200,
            &json!({"stacks": [{"id": "a"}, {"id": "b"}],
                "links": [{"rel": "next", "href": "http://elsewhere.example.test/"}]}),
        ),
        true => Answer::json(
            403,
            &json!({"error": {"type": "Forbidden", "message": "hunter2"}}),
        ),
    })
    .await;
    let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
    let id = format!("{}{}", "r".repeat(128), "s".repeat(2_000));
    let mut stream = gateway
        .client
        .watch(STREAM, json!({"page_size": 2}), &[("x-request-id", &id)])
        .await
        .unwrap();
    for _ in 0..2 {
        stream.next().await.unwrap().unwrap();
    }
    let status = stream.next().await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    let request_id = status.metadata().get("x-request-id").unwrap();
    assert_eq!(
        request_id.to_str().unwrap(),
        &id[..128],
        "truncated: statuses are short"
    );
    assert!(stream.next().await.is_none());

    let admin = gateway.running.admin.unwrap();
    let (_, text) = http_get(&format!("http://{admin}/metrics")).await;
    let counted = |code| {
        format!(
            r#"drawbridge_rpc_calls_total{{operation="openstack.orchestration.v1.{STREAM}",upstream="u",code="{code}"}} 1"#
        )
    };
    assert!(text.contains(&counted("PERMISSION_DENIED")), "{text}");
    assert!(!text.contains(&counted("OK")), "{text}");
    assert!(text.contains("drawbridge_rpc_calls_in_flight 0"), "{text}");
    let lines = logged("call failed");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].contains(&id[..128]) && lines[0].contains(STREAM),
        "{lines:?}"
    );
    assert!(logged("hunter2").is_empty());
}

/// Rounded numbers are named in the metadata of unary and streaming responses.
#[tokio::test]
async fn rounded_numbers_are_named_in_metadata() {
    let events = json!({"events": [{"id": "e1"},
        {"id": "e2", "resource_properties": {"größe, in": 9_007_199_254_740_993_u64}}]});
    let recorder = Recorder::fixed(Answer::json(200, &events)).await;
    let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
    let request = json!({"stack_name": "web", "stack_id": "17"});
    let want = "events[1].resource_properties.gr%C3%B6%C3%9Fe%2C in";
    let response = gateway
        .client
        .call_with("StackEventService/ListStackEvents", request.clone(), &[])
        .await
        .unwrap();
    assert_eq!(response.metadata().get("drawbridge-inexact").unwrap(), want);
    let stream = gateway
        .client
        .watch("StackEventService/StreamStackEvents", request, &[])
        .await
        .unwrap();
    assert_eq!(stream.metadata.get("drawbridge-inexact").unwrap(), want);
}

#[tokio::test]
async fn response_is_compressed_as_the_request() {
    let item = json!({"id": "d", "status_reason": "x".repeat(10_000)});
    let recorder =
        Recorder::fixed(Answer::json(200, &json!({"software_deployments": [item]}))).await;
    let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
    let method = gateway.client.method(LIST);
    let gzip = tonic::codec::CompressionEncoding::Gzip;
    let mut grpc = tonic::client::Grpc::new(gateway.client.channel.clone())
        .send_compressed(gzip)
        .accept_compressed(gzip);
    grpc.ready().await.unwrap();
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let response = grpc
        .unary(
            tonic::Request::new(bytes::Bytes::from_static(b"\x12\x01s")),
            path.parse().unwrap(),
            crate::support::client::BytesCodec,
        )
        .await
        .unwrap();
    assert_eq!(response.metadata().get("grpc-encoding").unwrap(), "gzip");
    assert!(response.get_ref().len() > 10_000);
    assert!(recorder.seen().iter().any(|s| s.query() == "server_id=s"));
    let response = gateway
        .client
        .call_with(LIST, json!({}), &[])
        .await
        .unwrap();
    assert!(response.metadata().get("grpc-encoding").is_none());
}

/// Long messages of a stream take turns to be compressed, short ones share frames: the order
/// stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_a_stream_are_compressed_in_order() {
    let lengths = [
        10, 300_000, 20, 30, 400_000, 500_000, 100_000, 100_001, 100_002, 100_003, 100_004, 40,
        600_000,
    ];
    let event = |length: &usize| {
        let reason = "x".repeat(*length);
        json!({"id": format!("e{length}"), "resource_status_reason": reason})
    };
    let events: Vec<_> = lengths.iter().map(event).collect();
    let recorder = Recorder::fixed(Answer::json(200, &json!({"events": events}))).await;
    let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
    let name = "StackEventService/StreamStackEvents";
    let method = gateway.client.method(name);
    let request = json!({"stack_name": "web", "stack_id": "17"});
    let request = prost_reflect::DynamicMessage::deserialize(method.input(), request).unwrap();
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let gzip = tonic::codec::CompressionEncoding::Gzip;
    let mut grpc = tonic::client::Grpc::new(gateway.client.channel.clone())
        .send_compressed(gzip)
        .accept_compressed(gzip);
    grpc.ready().await.unwrap();
    let response = grpc
        .server_streaming(
            tonic::Request::new(bytes::Bytes::from(request.encode_to_vec())),
            path.parse().unwrap(),
            crate::support::client::BytesCodec,
        )
        .await
        .unwrap();
    assert_eq!(response.metadata().get("grpc-encoding").unwrap(), "gzip");
    let mut stream = response.into_inner();
    let mut got = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        got.push(message.iter().filter(|byte| **byte == b'x').count());
    }
    assert_eq!(got, lengths);
}

#[tokio::test]
async fn missing_or_invalid_client_token_is_unauthenticated() {
    let recorder = Recorder::fixed(Answer::json(200, &json!({"software_deployments": []}))).await;
    let mut settings = settings(vec![upstream("u", "heat", &recorder.url())]);
    settings.client_tokens = vec!["first".into(), "second".into()];
    let gateway = Gateway::start(settings).await;
    for token in [None, Some("third")] {
        let mut metadata: Vec<_> = token.iter().map(|t| ("drawbridge-token", *t)).collect();
        metadata.push(("x-request-id", "r-1"));
        let status = gateway
            .client
            .call_with(LIST, json!({}), &metadata)
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
        assert!(
            status.message().contains("drawbridge-token"),
            "{}",
            status.message()
        );
        assert_eq!(status.metadata().get("x-request-id").unwrap(), "r-1");
        let info = status.get_details_request_info().unwrap();
        assert_eq!(info.serving_data, "r-1");
    }
    let admin = gateway.running.admin.unwrap();
    let (_, text) = http_get(&format!("http://{admin}/metrics")).await;
    assert!(
        text.contains("drawbridge_unauthenticated_requests_total 2"),
        "guesses leave a trace: {text}"
    );
    for token in ["first", "second"] {
        gateway
            .client
            .call_with(LIST, json!({}), &[("drawbridge-token", token)])
            .await
            .unwrap();
    }
    assert_eq!(
        health(&gateway, "").await.unwrap(),
        "Serving",
        "health needs no token"
    );
    assert!(
        recorder
            .seen()
            .iter()
            .all(|s| s.headers.get("drawbridge-token").is_none())
    );
}

#[tokio::test]
async fn client_certificate_is_required_with_mtls() {
    use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};
    let ca = rcgen_ca();
    let (server_cert, server_key) = ca.issue("localhost");
    let (client_cert, client_key) = ca.issue("caller");
    let mut settings = settings(vec![]);
    settings.tls = Some(Tls {
        certificate: server_cert.into_bytes(),
        key: server_key.into(),
        client_ca: Some(ca.pem.clone().into_bytes()),
    });
    let running = crate::support::start(settings).await.unwrap();
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&ca.pem))
        .domain_name("localhost");
    let call = async |tls: ClientTlsConfig| {
        let channel = Channel::from_shared(format!("https://{}", running.grpc))
            .unwrap()
            .tls_config(tls)
            .unwrap()
            .connect()
            .await
            .map_err(|e| format!("{e:?}"))?;
        HealthClient::new(channel)
            .check(HealthCheckRequest {
                service: String::new(),
            })
            .await
            .map_err(|e| format!("{e:?}"))
    };
    call(
        tls.clone()
            .identity(Identity::from_pem(client_cert, client_key)),
    )
    .await
    .unwrap();
    assert!(call(tls).await.is_err(), "a caller without a certificate");
    running.stop().await.unwrap();
}

/// A gateway with a certificate of `ca` for `localhost`.
async fn tls_gateway(ca: &Ca, client_ca: Option<&str>) -> drawbridge::ServerHandle {
    let (certificate, key) = ca.issue("localhost");
    let mut settings = settings(vec![]);
    settings.tls = Some(Tls {
        certificate: certificate.into_bytes(),
        key: key.into(),
        client_ca: client_ca.map(|pem| pem.as_bytes().to_vec()),
    });
    crate::support::start(settings).await.unwrap()
}

async fn refused_handshakes(running: &drawbridge::ServerHandle) -> u64 {
    let admin = running.admin.unwrap();
    let (_, text) = http_get(&format!("http://{admin}/metrics")).await;
    let name = "drawbridge_refused_tls_handshakes_total ";
    let mut values = text.lines().filter_map(|line| line.strip_prefix(name));
    values.next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn refused_tls_handshakes_are_logged_and_counted() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    keep_log();
    let ca = rcgen_ca();
    let running = tls_gateway(&ca, Some(&ca.pem)).await;
    let address = running.grpc;
    let plaintext = async |bytes: &[u8]| {
        let mut tcp = tokio::net::TcpStream::connect(address).await.unwrap();
        tcp.write_all(bytes).await.unwrap();
        tcp.shutdown().await.unwrap();
        let peer = tcp.local_addr().unwrap();
        // The end is EOF, or a reset where the gateway has not read everything.
        let _ = tcp.read_to_end(&mut Vec::new()).await;
        peer
    };
    // A TCP check of a load balancer.
    plaintext(b"").await;
    assert_eq!(refused_handshakes(&running).await, 0);
    let peer = plaintext(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(refused_handshakes(&running).await, 1);
    let lines = logged("TLS handshake refused");
    assert_eq!(lines.len(), 1, "{lines:?}");
    for part in [&peer.to_string(), "the client does not speak TLS"] {
        assert!(lines[0].contains(part), "{lines:?}");
    }
    // The alert reaches a client without a certificate, after its side of the handshake.
    let mut client = tls_connect(address, &ca, &["h2"]).await.unwrap();
    let end = client.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert!(end.to_string().contains("CertificateRequired"), "{end}");
    assert_eq!(refused_handshakes(&running).await, 2);
    // A client that does not trust the gateway.
    assert!(tls_connect(address, &rcgen_ca(), &["h2"]).await.is_err());
    // A client that speaks another protocol.
    let other = tls_connect(address, &ca, &["smtp"]).await.unwrap_err();
    assert!(
        other.to_string().contains("NoApplicationProtocol"),
        "{other}"
    );
    while refused_handshakes(&running).await < 4 {}
    // Limited: any client can cause them.
    let lines = logged("TLS handshake refused");
    assert!((1..=4).contains(&lines.len()), "{lines:?}");
    running.stop().await.unwrap();
}

/// A client that speaks only HTTP/1.1 is served as over plaintext: by Connect and gRPC-Web, and
/// gRPC gets a readable error.
#[tokio::test]
async fn http_1_over_tls_is_served() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let ca = rcgen_ca();
    let running = tls_gateway(&ca, None).await;
    for alpn in [&["http/1.1"][..], &[]] {
        let mut client = tls_connect(running.grpc, &ca, alpn).await.unwrap();
        let request = b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-type: application/grpc\r\n\r\n";
        client.write_all(request).await.unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert!(text.contains(" 426 Upgrade Required\r\n"), "{text}");
        let mut client = tls_connect(running.grpc, &ca, alpn).await.unwrap();
        let request = b"POST /grpc.health.v1.Health/Check HTTP/1.1\r\nhost: x\r\n\
            content-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
        client.write_all(request).await.unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert!(text.contains("{\"status\":\"SERVING\"}"), "{text}");
    }
    // HTTP/2 is preferred, whatever the order of the client.
    let client = tls_connect(running.grpc, &ca, &["http/1.1", "h2"])
        .await
        .unwrap();
    assert_eq!(client.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    drop(client);
    assert_eq!(refused_handshakes(&running).await, 0);
    running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn stalled_tls_handshake_times_out() {
    use tokio::io::AsyncReadExt;
    let ca = rcgen_ca();
    let (certificate, key) = ca.issue("localhost");
    let mut settings = settings(vec![]);
    settings.tls = Some(Tls {
        certificate: certificate.into_bytes(),
        key: key.into(),
        client_ca: None,
    });
    let running = crate::support::start(settings).await.unwrap();
    let mut silent = tokio::net::TcpStream::connect(running.grpc).await.unwrap();
    let mut byte = [0];
    // Paused time advances to the next timer while no data arrives: this is the last one.
    let end = tokio::time::timeout(Duration::from_secs(86_400), silent.read(&mut byte)).await;
    assert!(matches!(end, Ok(Ok(0) | Err(_))), "{end:?}");
    running.stop().await.unwrap();
}

#[tokio::test]
async fn port_in_use_is_an_error_with_its_setting() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap();
    for (admin, variable) in [(false, "DRAWBRIDGE_LISTEN"), (true, "DRAWBRIDGE_ADMIN")] {
        let mut config = settings(Vec::new());
        match admin {
            true => config.admin = Some(taken),
            false => config.listen = taken,
        }
        let problems = crate::support::start(config).await.unwrap_err();
        let told = problems.join("\n");
        assert!(
            told.contains(&taken.to_string()) && told.contains(variable),
            "{told}"
        );
    }
}

/// Sends a request over HTTP/2, gRPC or not.
async fn send(gateway: &Gateway, request: http::Request<tonic::body::Body>) -> (u16, String) {
    use http_body_util::BodyExt;
    use tower::{Service, ServiceExt};
    let mut channel = gateway.client.channel.clone();
    let response = channel.ready().await.unwrap().call(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn requests_that_are_not_grpc_are_rejected_and_not_executed() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let recorder = Recorder::fixed(Answer::json(200, &json!({}))).await;
    let upstreams = || vec![upstream("u", "jp1ao", &recorder.url())];
    let gateway = Gateway::with(upstreams()).await;
    let mut config = settings(upstreams());
    config.client_tokens = vec!["t0ken".into()];
    let guarded = Gateway::start(config).await;
    let release = "/hitachi.automation.v1.AutomationService/ReleaseService";
    // The message `id: 4`, as a web page can send it.
    let message = &b"\0\0\0\0\x02\x08\x04"[..];
    // The rejection does not wait for the body.
    let again = |method: &str, path: &str, content_type: &str| {
        let frames =
            tokio_stream::pending::<Result<http_body::Frame<bytes::Bytes>, tonic::Status>>();
        http::Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", content_type)
            .body(tonic::body::Body::new(http_body_util::StreamBody::new(
                frames,
            )))
            .unwrap()
    };
    for path in [
        release,
        "/grpc.health.v1.Health/Check",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/drawbridge.v1.GatewayService/ListUpstreams",
        "/no.Such/Method",
        "/",
    ] {
        for (method, content_type, want) in [
            ("GET", "application/grpc", 405),
            ("PUT", "application/grpc", 405),
            ("HEAD", "application/grpc", 405),
            ("GET", "application/json", 405),
            ("PUT", "application/json", 405),
            ("OPTIONS", "application/json", 405),
            ("POST", "text/plain", 415),
            ("POST", "text/plain; application/json", 415),
            ("POST", "application/x-www-form-urlencoded", 415),
            ("POST", "multipart/form-data", 415),
            ("POST", "application/grpc+json", 415),
            ("POST", "application/grpc-web+json", 415),
            ("POST", "application/json; charset=latin1", 415),
            ("POST", "", 415),
        ] {
            let request = http::Request::builder()
                .method(method)
                .uri(path)
                .header("content-type", content_type)
                .body(tonic::body::Body::new(http_body_util::Full::from(message)))
                .unwrap();
            let (status, text) = send(&gateway, request).await;
            assert_eq!(status, want, "{method} {path} {content_type}");
            assert_eq!(text.contains("gRPC"), method != "HEAD", "{text}");
            let (status, _) = send(&guarded, again(method, path, content_type)).await;
            assert_eq!(
                status, want,
                "before tokens: {method} {path} {content_type}"
            );
        }
    }
    // gRPC needs HTTP/2; anything else gets the same text as there.
    for (line, content_type, want, hint) in [
        (
            "POST /x HTTP/1.1",
            "application/grpc",
            "426 Upgrade Required",
            "needs HTTP/2",
        ),
        (
            "POST /x HTTP/1.0",
            "application/grpc+proto",
            "426 Upgrade Required",
            "needs HTTP/2",
        ),
        (
            "GET / HTTP/1.1",
            "application/grpc",
            "405 Method Not Allowed",
            "curl -H",
        ),
        (
            "GET / HTTP/1.0",
            "text/html",
            "405 Method Not Allowed",
            "curl -H",
        ),
        (
            "PUT /x HTTP/1.1",
            "application/json",
            "405 Method Not Allowed",
            "curl -H",
        ),
        (
            "POST / HTTP/1.1",
            "text/plain",
            "415 Unsupported Media Type",
            "gRPC-Web",
        ),
    ] {
        let mut tcp = tokio::net::TcpStream::connect(gateway.running.grpc)
            .await
            .unwrap();
        let request = format!(
            "{line}\r\nhost: x\r\ncontent-type: {content_type}\r\nconnection: close\r\n\r\n"
        );
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        tcp.read_to_string(&mut text).await.unwrap();
        assert!(text.contains(&format!(" {want}\r\n")), "{line}: {text}");
        assert!(text.contains(hint), "{line}: {text}");
    }
    assert!(recorder.seen().is_empty());
    // Parameters and upper case do not change the content type.
    for content_type in ["application/grpc+proto", "Application/GRPC; charset=utf-8"] {
        let request = http::Request::post(release)
            .header("content-type", content_type)
            .body(tonic::body::Body::new(http_body_util::Full::from(message)))
            .unwrap();
        assert_eq!(send(&gateway, request).await.0, 200, "{content_type}");
    }
    assert!(!recorder.seen().is_empty());
}

#[tokio::test]
async fn sandbox_marks_every_response() {
    let recorder = Recorder::fixed(Answer::json(200, &json!({"stacks": []}))).await;
    for sandbox in [true, false] {
        let mut config = settings(vec![upstream("u", "heat", &recorder.url())]);
        config.sandbox = sandbox;
        let gateway = Gateway::start(config).await;
        for (method, request) in [
            ("StackService/ListStacks", json!({})),
            ("StackService/GetStack", json!({})),
        ] {
            let headers = match gateway.client.call_with(method, request, &[]).await {
                Ok(response) => response.metadata().clone(),
                Err(status) => status.metadata().clone(),
            };
            assert_eq!(
                headers.contains_key("drawbridge-sandbox"),
                sandbox,
                "{method}"
            );
        }
        for (method, path) in [
            ("GET", "/"),
            ("POST", "/grpc.health.v1.Health/Check"),
            (
                "POST",
                "/openstack.orchestration.v1.StackService/StreamStacks",
            ),
            ("POST", "/drawbridge.v1.GatewayService/ListUpstreams"),
            ("POST", "/no.Such/Method"),
        ] {
            use tower::{Service, ServiceExt};
            let request = http::Request::builder()
                .method(method)
                .uri(path)
                .header("content-type", "application/grpc")
                .body(tonic::body::Body::new(http_body_util::Full::from(
                    &[0u8; 5][..],
                )))
                .unwrap();
            let mut channel = gateway.client.channel.clone();
            let response = channel.ready().await.unwrap().call(request).await.unwrap();
            let says = response.headers().contains_key("drawbridge-sandbox");
            assert_eq!(says, sandbox, "{method} {path}");
        }
    }
}
