//! Clients that do not read their responses.

use h2::client::Builder;

use crate::support::{Gateway, Honest, Reply, Upstream, eventually, raw, within};

const MIB: u64 = 1 << 20;
const GET: &str = "openstack.orchestration.v1.SoftwareDeploymentService/GetSoftwareDeployment";
const WATCH: &str = "openstack.orchestration.v1.SoftwareDeploymentService/WatchSoftwareDeployment";
const EXPORT: &str = "hitachi.automation.v1.ServiceTemplateService/ExportServiceTemplate";
const HEALTH_CHECK: &str = "grpc.health.v1.Health/Check";
const HEALTH_WATCH: &str = "grpc.health.v1.Health/Watch";
const REFLECTION: &str = "grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

/// Streams of each kind whose client has a window of no byte are reset: short responses, a
/// watch, health and reflection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_streams_are_reset() {
    let upstream = Upstream::start(|_| {
        Reply::ok(r#"{"software_deployment":{"id":"d","status":"IN_PROGRESS"}}"#)
    });
    let settings = "[server]\nresponse_write_timeout_secs = 1\n";
    let gateway = Gateway::start(&(settings.to_owned() + &upstream.heat("")));
    let honest = Honest::start(gateway.grpc);
    honest.succeeds(2).await;
    let before = gateway.usage();
    let mut builder = Builder::new();
    builder.initial_window_size(0);
    let connection = raw::connect_with(gateway.grpc, &builder).await.unwrap();
    // ServerReflectionRequest.list_services
    let list_services = raw::string_field(7, "*");
    let deployment = raw::string_field(2, "d");
    let mut unread = Vec::new();
    for (method, message) in [
        (GET, &deployment),
        (WATCH, &deployment),
        (HEALTH_CHECK, &bytes::Bytes::new()),
        (HEALTH_WATCH, &bytes::Bytes::new()),
        (REFLECTION, &list_services),
    ] {
        for _ in 0..50 {
            let call = connection.send(raw::attack(method), message).await;
            // Headers need no window.
            let response = raw::head(call.unwrap()).await.unwrap();
            unread.push((method, response.into_body()));
        }
    }
    for (method, mut body) in unread {
        let end = within(method, body.data()).await;
        let end = end.expect("no complete response");
        let error = end.expect_err(method);
        assert!(error.is_reset(), "{method}: {error}");
    }
    // The connection itself stays, and responses without a body need no window.
    let unknown = raw::request("no.such.Service/Rpc");
    assert_eq!(connection.unary(unknown, b"").await.unwrap().code, 12);
    eventually("no stream is left", async || {
        let streams = gateway.metric("drawbridge_open_streams").await;
        (streams < 1.0).then_some(())
    })
    .await;
    honest.finish().await;
    drop(connection);
    gateway.assert_peak_below(before, 64 * MIB);
    gateway.recovers(before).await;
}

/// A window for a part of each response does not keep the rest in memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_read_in_part_are_reset() {
    let reason = "x".repeat(8_000);
    let upstream = Upstream::start(move |_| {
        Reply::ok(format!(
            r#"{{"software_deployment":{{"id":"d","status":"COMPLETE","status_reason":"{reason}"}}}}"#
        ))
    });
    let settings = "[server]\nresponse_write_timeout_secs = 1\n";
    let gateway = Gateway::start(&(settings.to_owned() + &upstream.heat("")));
    let honest = Honest::start(gateway.grpc);
    honest.succeeds(2).await;
    let before = gateway.usage();
    let deployment = raw::string_field(2, "d");
    for window in [1, 4_000] {
        let mut builder = Builder::new();
        builder.initial_window_size(window);
        builder.initial_connection_window_size(16 << 20);
        let connection = raw::connect_with(gateway.grpc, &builder).await.unwrap();
        let mut partly_read = Vec::new();
        for _ in 0..100 {
            let call = connection.send(raw::attack(GET), &deployment).await;
            let response = raw::head(call.unwrap()).await.unwrap();
            let mut body = response.into_body();
            body.data().await.unwrap().unwrap();
            partly_read.push(body);
        }
        for mut body in partly_read {
            let end = within("the stream ends", body.data()).await;
            let error = end.expect("no complete response").expect_err("a reset");
            assert!(error.is_reset(), "{window}: {error}");
        }
    }
    honest.finish().await;
    gateway.assert_peak_below(before, 64 * MIB);
    gateway.recovers(before).await;
}

/// Downloads of an endless file, of which the client reads a chunk every quarter of a second: never
/// idle, and below the minimum rate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_downloads_are_cut_off() {
    let upstream = Upstream::start(|request| {
        if !request.target.contains("invoke") {
            return Reply::ok(r#"{"name":"export","instanceID":1,"parameters":[]}"#);
        }
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\n\r\n";
        Reply::Endless(head.into(), vec![7; 64 << 10])
    });
    let settings = "[server]\nresponse_write_timeout_secs = 5\n\
                    min_response_bytes_per_sec = 1000000\n";
    let upstreams = upstream.heat("") + &upstream.jp1ao("");
    let gateway = Gateway::start(&(settings.to_owned() + &upstreams));
    let honest = Honest::start(gateway.grpc);
    honest.succeeds(2).await;
    let before = gateway.usage();
    let mut builder = Builder::new();
    builder.initial_window_size(16 << 10);
    builder.initial_connection_window_size(16 << 20);
    let connection = raw::connect_with(gateway.grpc, &builder).await.unwrap();
    let mut downloads = tokio::task::JoinSet::new();
    for _ in 0..20 {
        // ExportServiceTemplateRequest.id
        let call = connection.send(raw::attack(EXPORT), [8, 1]).await.unwrap();
        downloads.spawn(async move {
            let response = raw::head(call).await.unwrap();
            assert!(!response.headers().contains_key("grpc-status"));
            let mut body = response.into_body();
            let mut chunks = 0;
            while let Some(Ok(chunk)) = body.data().await {
                chunks += 1;
                tokio::time::sleep(std::time::Duration::from_millis(250)).await;
                let _ = body.flow_control().release_capacity(chunk.len());
            }
            chunks
        });
    }
    while let Some(chunks) = within("downloads end", downloads.join_next()).await {
        assert!(chunks.unwrap() > 0);
    }
    eventually("no stream is left", async || {
        let streams = gateway.metric("drawbridge_open_streams").await;
        (streams < 1.0).then_some(())
    })
    .await;
    honest.finish().await;
    drop(connection);
    gateway.assert_peak_below(before, 64 * MIB);
    gateway.recovers(before).await;
}
