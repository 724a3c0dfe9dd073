//! The harness itself: it serves honest calls, measures the gateway and sees it recover.

use crate::support::{Gateway, Honest, Options, Upstream, eventually, raw};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn honest_client_is_served_and_the_gateway_recovers() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&upstream.heat(""));
    let honest = Honest::start(gateway.grpc);
    honest.succeeds(4).await;
    honest.finish().await;
    let before = gateway.usage();
    assert!(before.rss_bytes > 0 && before.descriptors > 3, "{before:?}");
    assert!(gateway.peak_rss_bytes() >= before.rss_bytes);

    let mut connections = Vec::new();
    for _ in 0..20 {
        connections.push(raw::connect(gateway.grpc).await.unwrap());
    }
    eventually("connections are open", async || {
        // Fewer by those that the honest client has closed meanwhile.
        (gateway.usage().descriptors >= before.descriptors + 10).then_some(())
    })
    .await;
    drop(connections);
    gateway.recovers(before).await;
    gateway.assert_peak_below(before, 64 << 20);
    assert_eq!(upstream.requests(), 0);
    assert!(gateway.admin_get("/livez").await.is_ok());
    assert!(gateway.metric("drawbridge_rpc_calls_in_flight").await < 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn descriptors_of_the_gateway_can_be_limited() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start_with(Options {
        config: upstream.heat(""),
        max_descriptors: Some(64),
        ..Options::default()
    });
    let honest = Honest::start(gateway.grpc);
    honest.succeeds(1).await;
    honest.finish().await;
}
