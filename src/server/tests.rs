//! The router, called without a connection: clients that stall.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use tokio::time::{Instant, sleep};
use tokio_stream::{Stream, StreamExt};
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower::{Layer, Service, ServiceExt};

use crate::config::Config;
use crate::deadline::Deadline;
use crate::server::authn::ClientTokens;
use crate::server::dispatcher::Dispatcher;
use crate::server::request_body_timeout::{RequestTimeouts, TimeoutBody};
use crate::server::router::{Router, RouterLayer};
use crate::telemetry::Metrics;
use crate::upstream::{self, Upstreams};
use crate::watch::Watches;

const TIMEOUTS: RequestTimeouts = RequestTimeouts {
    idle: Duration::from_secs(30),
    total: Duration::from_secs(15 * 60),
};

const GET: &str = "/openstack.orchestration.v1.MetaService/GetBuildInfo";

/// A gateway before these upstreams.
fn router(upstreams: Vec<upstream::Settings>) -> (Arc<Dispatcher>, Router) {
    let mut config = Config::sandbox();
    config.upstreams = upstreams;
    let contract = crate::contract::with_built_in(&[]).unwrap();
    let dispatcher = Arc::new(Dispatcher::new(
        &config,
        false,
        &contract,
        Upstreams::build(&config.upstreams, crate::families::family, |_| None).unwrap(),
        Watches::new(config.watch.clone()),
        Metrics::default(),
    ));
    let tokens = ClientTokens::default();
    let layer = RouterLayer {
        dispatcher: dispatcher.clone(),
        tokens,
    };
    (dispatcher, layer.layer(Routes::default()))
}

/// A Heat that takes connections and says nothing.
async fn silent() -> (tokio::net::TcpListener, upstream::Settings) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut settings = upstream::Settings::new("u", "heat", crate::credentials::Settings::None);
    settings.dialect = "openstack".into();
    settings.is_default = true;
    settings.endpoint = Some(url.parse().unwrap());
    settings.project_id = Some("p1".into());
    settings.transport.proxy_from_env = false;
    (listener, settings)
}

/// A request whose body comes in these pieces.
fn request(
    path: &str,
    timeout: &str,
    pieces: impl Stream<Item = &'static [u8]> + Send + 'static,
) -> http::Request<Body> {
    let frames = pieces.map(|piece| Ok::<_, Status>(http_body::Frame::data(Bytes::from(piece))));
    http::Request::post(path)
        .version(http::Version::HTTP_2)
        .header("content-type", "application/grpc")
        .header("grpc-timeout", timeout)
        .body(Body::new(StreamBody::new(frames)))
        .unwrap()
}

fn status(response: &http::Response<Body>) -> Status {
    Status::from_header_map(response.headers()).unwrap()
}

/// The line of the metrics with this word.
fn ended(dispatcher: &Dispatcher, code: &str) -> String {
    let text = dispatcher.metrics.text().unwrap();
    let mut lines = text
        .lines()
        .filter(|line| !line.starts_with('#') && line.contains(code));
    lines.next().unwrap_or_default().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_message_that_does_not_come_is_not_waited_for() {
    let (dispatcher, mut router) = router(vec![]);
    // Nothing; a piece of the prefix; a message that is whole, of a request that is not.
    for (pieces, named) in [(vec![], 1), (vec![&[0, 0][..]], 2), (vec![&[0; 5][..]], 3)] {
        let silent = tokio_stream::iter(pieces).chain(tokio_stream::pending());
        let begun = Instant::now();
        let call = router.call(request(GET, "1H", silent));
        let hour = Duration::from_secs(3_600);
        let response = tokio::time::timeout(hour, call).await.expect("it ends");
        let response = response.unwrap();
        assert_eq!(begun.elapsed().as_secs(), 30);
        let status = status(&response);
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
        assert!(status.message().contains("for 30 s"), "{status:?}");
        assert!(!status.details().is_empty());
        assert!(response.headers().contains_key("x-request-id"));
        let line = ended(&dispatcher, "DEADLINE_EXCEEDED");
        assert!(
            line.contains(&GET[1..]) && line.ends_with(&format!(" {named}")),
            "{line}"
        );
    }
    // While it is read, it is to be seen; a caller who leaves then is counted.
    let call = router.call(request(GET, "1H", tokio_stream::pending()));
    let mut call = Box::pin(call);
    tokio::select! {
        _ = &mut call => panic!("it does not come"),
        () = sleep(Duration::from_secs(1)) => {}
    }
    let in_flight = || ended(&dispatcher, "rpc_calls_in_flight");
    assert!(in_flight().ends_with(" 1"), "{}", in_flight());
    drop(call);
    assert!(in_flight().ends_with(" 0"), "{}", in_flight());
    let line = ended(&dispatcher, "CANCELLED");
    assert!(line.ends_with(" 1"), "{line}");
}

/// The client learns which encodings there are.
#[tokio::test]
async fn other_encodings_than_gzip_are_unimplemented() {
    use crate::test_api::openstack::orchestration::v1::ListStacksRequest;
    let (_engine, mut router) = router(vec![heat().await]);
    let list = "/openstack.orchestration.v1.StackService/ListStacks";
    for encoding in ["zstd", "deflate", "br"] {
        let request = ListStacksRequest::default();
        let response = open(&mut router, list, request, Some(encoding)).await;
        let status = status(&response);
        assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
        assert!(status.message().contains(encoding), "{status:?}");
        let accepted = response.headers().get("grpc-accept-encoding");
        assert_eq!(accepted.unwrap(), "gzip,identity");
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_counts_from_the_headers() {
    let (_listener, settings) = silent().await;
    let (_, mut router) = router(vec![settings]);
    for slowly in [false, true] {
        let begun = Instant::now();
        let pieces = async_pieces(slowly);
        let response = router.call(request(GET, "10S", pieces)).await.unwrap();
        let status = status(&response);
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
        assert_eq!(begun.elapsed().as_millis(), 9_950, "{status:?}");
    }
}

/// What hyper and h2 say of a caller who leaves in the middle of his request.
#[tokio::test]
async fn a_request_that_is_taken_back_has_no_end() {
    let (came, mut coming) = tokio::sync::mpsc::unbounded_channel();
    let (left, mut leaving) = tokio::sync::mpsc::channel::<()>(1);
    let left = std::sync::Mutex::new(Some(left));
    let left = Arc::new(left);
    // Reads on where hyper has dropped whoever answers.
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let came = came.clone();
        let left = left.lock().unwrap().take();
        tokio::spawn(async move {
            let hour = Deadline::after(Duration::from_secs(3_600));
            let mut body = TimeoutBody::new(request.into_body(), hour, TIMEOUTS);
            while let Some(frame) = body.frame().await {
                let frame = frame.map(|frame| frame.into_data().unwrap());
                came.send(Some(frame)).unwrap();
            }
            came.send(None).unwrap();
        });
        async move {
            let _left = left;
            std::future::pending::<Result<http::Response<Body>, Infallible>>().await
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let layer = tower::layer::layer_fn(move |_: Routes| service.clone());
    tokio::spawn(
        tonic::transport::Server::builder()
            .layer(layer)
            .add_routes(Routes::default())
            .serve_with_incoming(tonic::transport::server::TcpIncoming::from(listener)),
    );
    let channel = tonic::transport::Channel::from_shared(url).unwrap();
    let mut channel = channel.connect().await.unwrap();
    let piece: &[u8] = &[0, 0, 0, 0, 1, 7];
    let pieces = tokio_stream::iter([piece]).chain(tokio_stream::pending());
    let mut call = Box::pin(
        channel
            .ready()
            .await
            .unwrap()
            .call(request(GET, "1H", pieces)),
    );
    tokio::select! {
        _ = &mut call => panic!("nobody answers"),
        first = coming.recv() => assert_eq!(first.unwrap().unwrap().unwrap(), piece),
    }
    drop(call);
    drop(channel);
    // hyper has seen it.
    assert!(leaving.recv().await.is_none());
    tokio::time::pause();
    let end = coming.recv().await.unwrap().expect("no end").unwrap_err();
    assert_eq!(end.code(), Code::DeadlineExceeded, "{end:?}");
}

/// An empty message; slowly, it takes 5 s.
fn async_pieces(slowly: bool) -> impl Stream<Item = &'static [u8]> + Send {
    let pause = Duration::from_secs(if slowly { 5 } else { 0 });
    let parts: [&[u8]; 2] = [&[0, 0], &[0, 0, 0]];
    Box::pin(tokio_stream::iter(parts).throttle(pause))
}

/// A Heat with one long list and a deployment that goes on.
async fn heat() -> upstream::Settings {
    let stack = serde_json::json!({"id": "s", "stack_name": "x".repeat(900_000)});
    let list = serde_json::json!({"stacks": [stack]}).to_string();
    let going = serde_json::json!({"software_deployment": {"id": "d", "status": "IN_PROGRESS"}});
    let router = axum::Router::new().fallback(move |request: axum::extract::Request| {
        let body = match request.uri().path().ends_with("/stacks") {
            true => list.clone(),
            false => going.to_string(),
        };
        async move { ([("content-type", "application/json")], body) }
    });
    let (listener, mut settings) = silent().await;
    tokio::spawn(async move { axum::serve(listener, router).await });
    // Room for one list, and for eight beyond.
    settings.transport.max_response_bytes = 1 << 20;
    settings.transport.max_buffered_bytes = 1 << 20;
    settings
}

/// A call, with its answer untouched.
async fn open(
    router: &mut Router,
    path: &str,
    message: impl prost::Message,
    encoding: Option<&'static str>,
) -> http::Response<Body> {
    let mut bytes = vec![0];
    bytes.extend((message.encoded_len() as u32).to_be_bytes());
    bytes.extend(message.encode_to_vec());
    let whole = http_body_util::Full::new(Bytes::from(bytes));
    let mut request = http::Request::post(path)
        .version(http::Version::HTTP_2)
        .header("content-type", "application/grpc");
    if let Some(encoding) = encoding {
        request = request.header("grpc-encoding", encoding);
        request = request.header("grpc-accept-encoding", encoding);
    }
    let request = request.body(Body::new(whole)).unwrap();
    router.call(request).await.unwrap()
}

/// Lets time pass, and no longer than that: what goes over sockets takes as long as it
/// takes, and no time-out ends it sooner.
async fn passes<T>(work: impl Future<Output = T>) -> T {
    tokio::time::pause();
    let done = work.await;
    tokio::time::resume();
    done
}

#[tokio::test]
async fn who_takes_nothing_keeps_nothing() {
    use crate::test_api::openstack::orchestration::v1 as pb;
    let list = "/openstack.orchestration.v1.StackService/ListStacks";
    let stream = "/openstack.orchestration.v1.StackService/StreamStacks";
    let watch = "/openstack.orchestration.v1.SoftwareDeploymentService/WatchSoftwareDeployment";
    let (dispatcher, mut router) = router(vec![heat().await]);
    let router = &mut router;
    let short = pb::ListStacksRequest::default;
    for (path, encoding) in [(list, None), (list, Some("gzip")), (stream, None)] {
        // At once: each of them waits for room before it gets the room beyond.
        let mut opened = tokio::task::JoinSet::new();
        for _ in 0..9 {
            let mut router = router.clone();
            opened.spawn(async move { open(&mut router, path, short(), encoding).await });
        }
        let untouched = opened.join_all().await;
        for response in &untouched {
            assert!(Status::from_header_map(response.headers()).is_none());
        }
        let none = status(&passes(open(router, list, short(), None)).await);
        assert_eq!(none.code(), Code::ResourceExhausted, "{path} {encoding:?}");
        passes(sleep(Duration::from_secs(40))).await;
        let response = open(router, list, short(), encoding).await;
        let last = response.into_body().collect().await.unwrap();
        assert_eq!(last.trailers().unwrap()["grpc-status"], "0");
        drop(untouched);
    }
    let request = pb::WatchSoftwareDeploymentRequest {
        deployment_id: "d".into(),
        ..Default::default()
    };
    let watch_there = open(router, watch, request.clone(), None).await;
    let mut quiet = open(router, watch, request, None).await.into_body();
    quiet.frame().await.unwrap().unwrap();
    assert_eq!(dispatcher.watches.streams().open(), 2);
    // Bookmarks come meanwhile, and are taken.
    let reads = async { while quiet.frame().await.transpose().unwrap().is_some() {} };
    let _ = passes(tokio::time::timeout(Duration::from_secs(40), reads)).await;
    assert_eq!(dispatcher.watches.streams().open(), 1);
    let line = |word| {
        ended(
            &dispatcher,
            &format!("{}\",upstream=\"u\",code=\"{word}", &watch[1..]),
        )
    };
    assert!(
        line("DEADLINE_EXCEEDED").ends_with(" 1"),
        "{}",
        dispatcher.metrics.text().unwrap()
    );
    drop(watch_there);
    drop(quiet);
    assert!(line("CANCELLED").ends_with(" 1"));
}
