//! After a burst the memory returns to the system, although nothing is called any more.

use crate::support::{Gateway, Reply, Upstream, eventually, mib, raw};

const LIST: &str = "openstack.orchestration.v1.StackService/ListStacks";

const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_of_a_burst_is_returned_while_idle() {
    let stack = format!(r#"{{"id":"1","stack_name":"{}"}}"#, "x".repeat(1_000));
    let list = format!(r#"{{"stacks":[{}]}}"#, vec![stack; 4_000].join(","));
    let upstream = Upstream::start(move |_| Reply::ok(list.clone()));
    let gateway = Gateway::start(&upstream.heat(""));
    let client = raw::connect(gateway.grpc).await.unwrap();
    let request = || {
        let mut request = raw::request(LIST);
        let headers = request.headers_mut();
        headers.insert("x-auth-token", "t".parse().unwrap());
        request
    };
    client.unary(request(), b"").await.unwrap();
    let before = gateway.usage();
    let mut responses = Vec::new();
    for _ in 0..40 {
        let response = client.send(request(), b"").await.unwrap();
        responses.push(tokio::spawn(raw::finish(response)));
    }
    for response in responses {
        let call = response.await.unwrap().unwrap();
        assert_eq!(call.code, 0, "{}", call.message);
    }
    let peak = gateway.peak_rss_bytes();
    assert!(
        peak > before.rss_bytes + 64 * MIB,
        "the burst needs memory: {} MiB, {} MiB before",
        mib(peak),
        mib(before.rss_bytes)
    );
    drop(client);
    eventually("the memory is returned", async || {
        (gateway.usage().rss_bytes < before.rss_bytes + 24 * MIB).then_some(())
    })
    .await;
}
