//! The log: nothing waits for its reader, and no client can fill it.

use crate::support::{Gateway, Honest, Options, Reply, Upstream, eventually, raw};

const LIST: &str = "openstack.orchestration.v1.StackService/ListStacks";

/// Standard error is a pipe without a reader, and each call writes several lines.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_log_stops_nothing() {
    let upstream = Upstream::start(|_| Reply::ok(r#"{"stacks": []}"#));
    let mut gateway = Gateway::start_with(Options {
        config: format!("[log]\nlevel = \"debug\"\n{}", upstream.heat("")),
        unread_log: true,
        ..Options::default()
    });
    let before = gateway.usage();
    let honest = Honest::start(gateway.grpc);
    let hostile = raw::connect(gateway.grpc).await.unwrap();
    let mut request = raw::request(LIST);
    let id = "x".repeat(120).parse().unwrap();
    request.headers_mut().insert("x-request-id", id);
    let token = "t".parse().unwrap();
    request.headers_mut().insert("x-auth-token", token);
    eventually("lines are dropped", async || {
        for _ in 0..100 {
            let call = hostile.unary(clone(&request), b"").await.unwrap();
            assert_eq!(call.code, 0, "{call:?}");
        }
        let dropped = gateway.metric("drawbridge_log_lines_dropped_total").await;
        (dropped > 100.0).then_some(())
    })
    .await;
    honest.succeeds(10).await;
    assert!(gateway.admin_get("/livez").await.is_ok());
    honest.finish().await;
    gateway.assert_peak_below(before, 64 << 20);
    // Nor does the end of the process.
    gateway.terminate();
    assert!(gateway.exits().success());
}

fn clone(request: &http::Request<()>) -> http::Request<()> {
    let mut clone = raw::request(LIST);
    *clone.headers_mut() = request.headers().clone();
    clone
}

/// Rejected calls, as many as one connection carries: the log has some of each kind and second,
/// and sums.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejected_calls_are_summed_up_in_the_log() {
    const CALLS: usize = 5_000;
    let upstream = Upstream::plain();
    let gateway = Gateway::start_with(Options {
        config: upstream.heat(""),
        listen: "[listen.clients]\ntokens_file = \"tokens\"\n".to_owned(),
        files: vec![("tokens", b"the-token-of-a-client\n".to_vec())],
        ..Options::default()
    });
    let before = gateway.usage();
    let honest = Honest::start_with(
        gateway.grpc,
        &[("drawbridge-token", "the-token-of-a-client")],
    );
    let hostile = raw::connect(gateway.grpc).await.unwrap();
    for _ in 0..CALLS {
        // The response does not wait for a body: none is sent.
        let mut h2 = hostile.h2.clone().ready().await.unwrap();
        let (response, _) = h2.send_request(raw::request(LIST), true).unwrap();
        let call = raw::finish(response).await.unwrap();
        assert_eq!(call.code, 16, "{call:?}");
    }
    honest.finish().await;
    eventually("the last sum is written", async || {
        let (lines, summed) = counted(&gateway.log());
        (lines + summed == CALLS).then_some(())
    })
    .await;
    let (lines, _) = counted(&gateway.log());
    // Ten lines a second: a tenth of the calls would be a minute.
    assert!(lines <= CALLS / 10, "{lines} lines");
    gateway.assert_peak_below(before, 64 << 20);
}

/// Returns how many rejections have a line of their own, and how many are in sums.
fn counted(log: &str) -> (usize, usize) {
    let lines = log
        .lines()
        .filter(|line| line.contains("request rejected: unauthenticated"));
    let (sums, lines): (Vec<_>, Vec<_>) = lines.partition(|line| line.contains("repeated="));
    let sum = |line: &&str| -> usize {
        let number = line.split("repeated=").nth(1).unwrap();
        number.split(' ').next().unwrap().parse().unwrap()
    };
    (lines.len(), sums.iter().map(sum).sum())
}
