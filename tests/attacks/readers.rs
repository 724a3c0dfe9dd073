//! Clients that do not read their responses.

use h2::client::Builder;

use crate::support::{Gateway, Honest, Reply, Upstream, eventually, raw, within};

const MIB: u64 = 1 << 20;
const GET: &str = "openstack.orchestration.v1.SoftwareDeploymentService/GetSoftwareDeployment";
const WATCH: &str = "openstack.orchestration.v1.SoftwareDeploymentService/WatchSoftwareDeployment";
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
