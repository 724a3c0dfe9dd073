//! Settings of the environment: a proxy, a trace collector.

use std::time::Duration;

use axum::response::IntoResponse;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt, Full};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;

use crate::support::process::Process;
use crate::support::recorder::Answer;
use crate::support::{Client, Recorder};

const GET: &str = "SoftwareDeploymentService/GetSoftwareDeployment";

fn heat(endpoint: &str) -> String {
    format!(
        "[[upstream]]\nname = \"heat\"\nfamily = \"heat\"\nproject_id = \"p1\"\n\
         endpoint = \"{endpoint}\"\nauth = {{ kind = \"none\" }}\n"
    )
}

async fn deployment() -> Recorder {
    Recorder::fixed(Answer::json(
        200,
        &json!({"software_deployment": {"id": "d1"}}),
    ))
    .await
}

async fn get(process: &Process, metadata: &[(&str, &str)]) {
    let client = Client::connect(process.address, &[drawbridge::contract::BUILT_IN.to_vec()]).await;
    let request = json!({"deployment_id": "d1"});
    client.call_with(GET, request, metadata).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn proxy_of_the_environment_is_used() {
    for variable in ["HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
        let proxy = deployment().await;
        let process = Process::start(
            &heat("http://heat.nowhere.invalid:8004/v1"),
            &[(variable, &proxy.url())],
        );
        get(&process, &[]).await;
        let seen = proxy.seen();
        let asked = seen.iter().map(|seen| &*seen.target);
        let whole = "http://heat.nowhere.invalid:8004/v1/p1/software_deployments/d1";
        assert!(asked.clone().any(|target| target == whole), "{variable}");
    }
    // No proxy for this host, for this upstream, or for this machine. 0.0.0.0 connects to it.
    for (host, more, no_proxy) in [
        ("0.0.0.0", "", "0.0.0.0"),
        ("0.0.0.0", "", "*"),
        ("0.0.0.0", "", "0.0.0.0:PORT"),
        ("0.0.0.0", "", "0.0.0.0/8"),
        ("0.0.0.0", "proxy_from_env = false\n", ""),
        ("127.0.0.1", "", ""),
        ("localhost", "", ""),
    ] {
        let upstream = deployment().await;
        let port = upstream.url().rsplit(':').next().unwrap().to_owned();
        let no_proxy = no_proxy.replace("PORT", &port);
        let process = Process::start(
            &(heat(&upstream.url().replace("127.0.0.1", host)) + more),
            &[
                ("HTTP_PROXY", "http://127.0.0.1:1"),
                ("NO_PROXY", &no_proxy),
            ],
        );
        get(&process, &[]).await;
        let seen = upstream.seen();
        let mut asked = seen.iter().map(|seen| &*seen.target);
        assert!(
            asked.any(|target| target == "/v1/p1/software_deployments/d1"),
            "{host} {more}"
        );
    }
}

/// Starts a collector that passes the exports to the test.
async fn collector() -> (String, mpsc::UnboundedReceiver<Bytes>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let export = move |body: axum::body::Body| {
        let sender = sender.clone();
        async move {
            let _ = sender.send(body.collect().await.unwrap().to_bytes());
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let empty = Full::new(Bytes::from_static(&[0; 5]));
            let body = empty.with_trailers(std::future::ready(Some(Ok(trailers))));
            let kind = [("content-type", "application/grpc")];
            (kind, axum::body::Body::new(body)).into_response()
        }
    };
    let routes = tonic::service::Routes::from(axum::Router::new().fallback(export));
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_routes(routes)
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    (url, receiver)
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_are_exported_with_the_clients_trace() {
    let (url, mut spans) = collector().await;
    let upstream = deployment().await;
    let process = Process::start(
        &heat(&upstream.url()),
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &url),
            // Milliseconds.
            ("OTEL_BSP_SCHEDULE_DELAY", "10"),
            ("OTEL_SERVICE_NAME", "the-bridge"),
        ],
    );
    let (trace, parent) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let traceparent = format!("00-{trace}-{parent}-01");
    get(&process, &[("traceparent", &traceparent)]).await;

    // The gateway's span is a child of the client's, and the parent of the upstream's.
    let seen = upstream.seen();
    let passed = seen.iter().map(|seen| seen.header("traceparent"));
    let passed = passed.filter(|value| !value.is_empty()).last().unwrap();
    let parts: Vec<&str> = passed.split('-').collect();
    assert_eq!((parts[1], parts.len()), (trace, 4), "{passed}");
    let own = parts[2];
    assert_ne!(own, parent);
    let bytes = |hex: &str| -> Vec<u8> {
        let pairs = (0..hex.len()).step_by(2);
        pairs
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    };
    let rpc = "openstack.orchestration.v1.SoftwareDeploymentService/GetSoftwareDeployment";
    let parts = [
        bytes(trace),
        bytes(parent),
        bytes(own),
        rpc.into(),
        "the-bridge".into(),
    ];
    // One export has all spans of the call; others may be sent before.
    let found = async {
        loop {
            let exported = spans.recv().await.unwrap();
            let has = |part: &Vec<u8>| exported.windows(part.len()).any(|window| window == part);
            if parts.iter().all(has) {
                return;
            }
            eprintln!("another export: {exported:?}");
        }
    };
    let patience = Duration::from_secs(120);
    tokio::time::timeout(patience, found).await.expect("spans");
}

/// Traces are no reason not to serve.
#[tokio::test(flavor = "multi_thread")]
async fn invalid_collector_is_a_warning() {
    for (variable, value, want) in [
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "nonsense",
            Some("traces are not exported: OTEL_EXPORTER_OTLP_ENDPOINT is not the URL of a"),
        ),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://127.0.0.1:1", None),
    ] {
        let upstream = deployment().await;
        let process = Process::start(&heat(&upstream.url()), &[(variable, value)]);
        get(&process, &[]).await;
        let log = process.stop();
        let found = log.contains("traces are not exported");
        assert_eq!(found, want.is_some(), "{log}");
        assert!(log.contains(want.unwrap_or_default()), "{log}");
    }
}

/// The level `debug` is that of the gateway's own events; a directive names dependencies.
#[tokio::test(flavor = "multi_thread")]
async fn debug_logs_the_events_of_the_gateway_only() {
    for (level, has_h2) in [("debug", false), ("debug,h2=debug", true)] {
        let upstream = deployment().await;
        let process = Process::start(&heat(&upstream.url()), &[("DRAWBRIDGE_LOG", level)]);
        get(&process, &[]).await;
        let log = process.stop();
        let lines = || log.lines().filter(|line| line.contains("DEBUG"));
        assert!(lines().any(|line| line.contains(" drawbridge::")), "{log}");
        let of_h2 = lines().filter(|line| line.contains(" h2::"));
        assert_eq!(of_h2.count() > 0, has_h2, "{log}");
        let own = lines().filter(|line| !line.contains(" h2::"));
        for line in own {
            assert!(line.contains(" drawbridge"), "{level}: {line}");
        }
    }
}
