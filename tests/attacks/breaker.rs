//! Clients whose calls fail or hang: others are served.

use crate::support::{Gateway, Honest, Reply, Upstream, eventually, raw};

const GET: &str = "openstack.orchestration.v1.SoftwareDeploymentService/GetSoftwareDeployment";

/// Field `deployment_id`.
const ID: u32 = 2;

/// Returns a request with this credential.
fn with_token(token: &str) -> http::Request<()> {
    let mut request = raw::request(GET);
    request
        .headers_mut()
        .insert("x-auth-token", token.parse().unwrap());
    request
}

/// One client's id of 30 kB makes the upstream close the connection: 30 times, and then during
/// the calls of the honest client. Also with another credential each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_that_breaks_connections_does_not_open_the_circuit_breaker() {
    let upstream = Upstream::start(|_| Reply::Close);
    let gateway = Gateway::start(&upstream.heat(""));
    eventually("the upstream is up", async || {
        let up = gateway.metric(r#"drawbridge_upstream_up{upstream="heat"}"#);
        (up.await > 0.5).then_some(())
    })
    .await;
    let before = gateway.usage();
    let hostile = raw::connect(gateway.grpc).await.unwrap();
    let message = raw::string_field(ID, &"x".repeat(30_000));
    let breaks = async |token: String| {
        let call = hostile.unary(with_token(&token), &message).await.unwrap();
        assert_eq!(call.code, 14, "{call:?}");
        // It is the upstream's failure, also for this client: the upstream responds to probes.
        assert!(!call.message.contains("circuit"), "{call:?}");
    };
    for number in 0..60 {
        breaks(format!("hostile {}", number % 2 * number)).await;
    }
    let honest = Honest::start(gateway.grpc);
    for number in 0..64 {
        honest.succeeds(3).await;
        breaks(format!("hostile {}", number % 2 * number)).await;
    }
    assert!(honest.finish().await >= 192);
    gateway.assert_peak_below(before, 64 << 20);
    gateway.recovers(before).await;
}

/// One client's calls hang, and more of them wait than the queue has places. The honest client
/// comes later; if the other one uses another credential each time, it comes from the same
/// address and is known already.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_whose_calls_hang_leaves_permits_to_others() {
    for is_one in [true, false] {
        let upstream = Upstream::start(|_| Reply::Hang);
        let gateway = Gateway::start(&upstream.heat("max_queued_calls = 64"));
        let before = gateway.usage();
        let mut honest = None;
        if !is_one {
            honest.insert(Honest::start(gateway.grpc)).succeeds(2).await;
        }
        let hostile = raw::connect(gateway.grpc).await.unwrap();
        let mut hanging = Vec::new();
        for number in 0..500 {
            let token = match is_one {
                true => "hostile".to_owned(),
                false => format!("hostile {number}"),
            };
            let message = raw::string_field(ID, "hang");
            hanging.push(hostile.send(with_token(&token), message).await.unwrap());
        }
        let in_flight = match is_one {
            true => 192,
            false => 224,
        };
        eventually("the calls hang", async || {
            (upstream.requests() == in_flight).then_some(())
        })
        .await;
        let honest = honest.unwrap_or_else(|| Honest::start(gateway.grpc));
        honest.succeeds(20).await;
        assert_eq!(upstream.requests(), in_flight);
        honest.finish().await;
        drop((hanging, hostile));
        gateway.recovers(before).await;
    }
}
