//! Tests of the router without a connection: clients that stall, timeouts, slow readers.

use std::collections::BTreeSet;
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
use tower::{Service, ServiceExt};

use crate::config::Config;
use crate::deadline::Deadline;
use crate::downstream::Peer;
use crate::server::authn::SharedAccess;
use crate::server::connection_memory::ConnectionMemory;
use crate::server::dispatcher::{Dispatcher, SharedState};
use crate::server::protocol::Browsers;
use crate::server::request_body_timeout::{RequestTimeouts, TimeoutBody};
use crate::server::router::{ResponseFuture, Router};
use crate::upstream::{self, Upstreams};

const TIMEOUTS: RequestTimeouts = RequestTimeouts {
    min_bytes_per_sec: 0,
    idle: Duration::from_secs(30),
    total: Duration::from_secs(15 * 60),
};

const GET_BUILD_INFO: &str = "/openstack.orchestration.v1.MetaService/GetBuildInfo";

/// Builds the router of a gateway with these upstreams.
fn router(upstreams: Vec<upstream::Settings>) -> (Arc<Dispatcher>, Router) {
    let mut config = Config::sandbox();
    config.upstreams = upstreams;
    config.server.max_memory_bytes = Some(32 << 20);
    let contract = crate::contract::with_built_in(&[]).unwrap();
    let dispatcher = Arc::new(Dispatcher::new(
        &config,
        &contract,
        Upstreams::build(&config.upstreams, crate::families::family, |_| None).unwrap(),
        SharedState::new(&config, false),
        None,
    ));
    let access = SharedAccess::default();
    let max_metadata_bytes = config.server.max_metadata_bytes;
    let routes = Routes::default();
    let browsers = Browsers::new(config.web.clone(), &BTreeSet::new());
    let router = Router::new(
        dispatcher.clone(),
        access,
        routes,
        browsers,
        max_metadata_bytes,
    );
    (dispatcher, router)
}

/// Starts a Heat that accepts connections and never responds.
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

/// Makes a request whose body is sent in these chunks.
fn request(
    path: &str,
    timeout: &str,
    chunks: impl Stream<Item = &'static [u8]> + Send + 'static,
) -> http::Request<Body> {
    let frames = chunks.map(|chunk| Ok::<_, Status>(http_body::Frame::data(Bytes::from(chunk))));
    http::Request::post(path)
        .version(http::Version::HTTP_2)
        .header("content-type", "application/grpc")
        .header("grpc-timeout", timeout)
        .body(Body::new(StreamBody::new(frames)))
        .unwrap()
}

/// Serves a request on a connection of its own.
fn respond(router: &Router, request: http::Request<Body>) -> ResponseFuture {
    let budget = router.dispatcher().memory.clone();
    let memory = ConnectionMemory::new(budget, Peer::default());
    router.respond(request, &Arc::new(memory))
}

fn status(response: &http::Response<Body>) -> Status {
    Status::from_header_map(response.headers()).unwrap()
}

/// Returns the first metric whose line contains `text`.
fn metric(dispatcher: &Dispatcher, text: &str) -> String {
    let metrics = dispatcher.metrics.text().unwrap();
    let mut lines = metrics
        .lines()
        .filter(|line| !line.starts_with('#') && line.contains(text));
    lines.next().unwrap_or_default().to_owned()
}

/// Returns the settings of an upstream that no test calls.
fn unused(name: &str, family: &str, auth: crate::credentials::Settings) -> upstream::Settings {
    let mut settings = upstream::Settings::new(name, family, auth);
    settings.dialect = crate::families::family(family).dialects[0].to_owned();
    settings.endpoint = Some("http://127.0.0.1:1".parse().unwrap());
    settings.project_id = Some("p1".into());
    settings.transport.proxy_from_env = false;
    settings
}

#[tokio::test]
async fn what_metadata_rejects_is_rejected_before_the_body_is_read() {
    use crate::credentials::Settings::{None as NoAuth, Passthrough};
    let mut old = unused("old", "heat", NoAuth);
    old.dialect = "rackspace".into();
    let mut exposed = unused("exposed", "heat", Passthrough);
    exposed.endpoint = Some("http://heat.example".parse().unwrap());
    let mut own = unused("own", "jp1ao", Passthrough);
    own.is_default = true;
    let (dispatcher, router) = router(vec![
        old,
        exposed,
        unused("own_heat", "heat", Passthrough),
        own,
    ]);
    let get_stack = "/openstack.orchestration.v1.StackService/GetStack";
    let watch_stack = "/openstack.orchestration.v1.StackService/WatchStack";
    let upload = "/hitachi.automation.v1.ServiceTemplateService/ImportServiceTemplate";
    let list_outputs = "/openstack.orchestration.v1.StackOutputService/ListStackOutputs";
    let passthrough = ("drawbridge-upstream", "own_heat");
    let long = "x".repeat(70_000);
    let token = ("x-auth-token", "t");
    for (path, metadata, want, text) in [
        (get_stack, vec![], Code::FailedPrecondition, "no default"),
        (
            get_stack,
            vec![("drawbridge-upstream", "none")],
            Code::InvalidArgument,
            "no upstream",
        ),
        (
            get_stack,
            vec![passthrough],
            Code::Unauthenticated,
            "x-auth-token",
        ),
        (
            watch_stack,
            vec![passthrough],
            Code::Unauthenticated,
            "x-auth-token",
        ),
        (upload, vec![], Code::Unauthenticated, "x-auth-token"),
        (
            get_stack,
            vec![("drawbridge-upstream", "exposed"), token],
            Code::FailedPrecondition,
            "plaintext",
        ),
        (
            list_outputs,
            vec![("drawbridge-upstream", "old")],
            Code::Unimplemented,
            "rackspace",
        ),
        (
            get_stack,
            vec![passthrough, token, ("grpc-encoding", "zstd")],
            Code::Unimplemented,
            "zstd",
        ),
        (
            get_stack,
            vec![passthrough, token, ("grpc-timeout", "soon")],
            Code::InvalidArgument,
            "grpc-timeout",
        ),
        (
            get_stack,
            vec![passthrough, token, ("x-long", &*long)],
            Code::ResourceExhausted,
            "max_metadata_bytes",
        ),
        (
            "/no.Such/Method",
            vec![token],
            Code::Unimplemented,
            "no.Such",
        ),
    ] {
        let unread = tokio_stream::once(()).map(|()| panic!("the body is read"));
        let mut request = request(path, "1H", unread);
        for (name, value) in metadata {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let response = respond(&router, request).await;
        let status = status(&response);
        assert_eq!(status.code(), want, "{path} {status:?}");
        assert!(status.message().contains(text), "{path} {status:?}");
        let accepted = response.headers().get("grpc-accept-encoding");
        assert_eq!(accepted.is_some(), text == "zstd", "{path}");
    }
    // A rejection by the upstream's settings is counted as a call.
    let line = metric(&dispatcher, "UNAUTHENTICATED");
    assert!(line.contains("own") && line.ends_with(" 1"), "{line}");
}

#[tokio::test(start_paused = true)]
async fn incomplete_message_times_out_and_is_counted() {
    let heat = unused("u", "heat", crate::credentials::Settings::None);
    let (dispatcher, router) = router(vec![heat]);
    // No data; a part of the prefix; a complete message without END_STREAM.
    for (chunks, count) in [(vec![], 1), (vec![&[0, 0][..]], 2), (vec![&[0; 5][..]], 3)] {
        let silent = tokio_stream::iter(chunks).chain(tokio_stream::pending());
        let start = Instant::now();
        let call = respond(&router, request(GET_BUILD_INFO, "1H", silent));
        let hour = Duration::from_secs(3_600);
        let response = tokio::time::timeout(hour, call)
            .await
            .expect("a response within the hour");
        assert_eq!(start.elapsed().as_secs(), 30);
        let status = status(&response);
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
        assert!(status.message().contains("for 30 s"), "{status:?}");
        assert!(!status.details().is_empty());
        assert!(response.headers().contains_key("x-request-id"));
        let line = metric(&dispatcher, "DEADLINE_EXCEEDED");
        assert!(
            line.contains(&GET_BUILD_INFO[1..]) && line.ends_with(&format!(" {count}")),
            "{line}"
        );
    }
    // A request that is being read is in flight; cancelled, it is counted.
    let call = respond(
        &router,
        request(GET_BUILD_INFO, "1H", tokio_stream::pending()),
    );
    let mut call = Box::pin(call);
    tokio::select! {
        _ = &mut call => panic!("no message was sent"),
        () = sleep(Duration::from_secs(1)) => {}
    }
    let in_flight = || metric(&dispatcher, "rpc_calls_in_flight");
    assert!(in_flight().ends_with(" 1"), "{}", in_flight());
    drop(call);
    assert!(in_flight().ends_with(" 0"), "{}", in_flight());
    let line = metric(&dispatcher, "CANCELLED");
    assert!(line.ends_with(" 1"), "{line}");
}

/// A path that names no rpc is answered with the most similar one.
#[tokio::test]
async fn unknown_methods_are_explained() {
    let (_, mut router) = router(vec![]);
    for (path, want) in [
        (
            "/openstack.orchestration.v1.StackService/GetStak",
            "openstack.orchestration.v1.StackService has no rpc GetStak, did you mean GetStack?",
        ),
        (
            "/openstack.orchestration.v1.StackService/Zzzzzzzz",
            "openstack.orchestration.v1.StackService has no rpc Zzzzzzzz",
        ),
        (
            "/grpc.health.v1.Health/Chek",
            "grpc.health.v1.Health has no rpc Chek, did you mean Check?",
        ),
        (
            "/StackService/GetStack",
            "this gateway does not serve StackService (reflection lists its services), did you \
             mean openstack.orchestration.v1.StackService?",
        ),
        (
            "/openstack.orchestration.v2.StackService/GetStack",
            "this gateway does not serve openstack.orchestration.v2.StackService (reflection \
             lists its services), did you mean openstack.orchestration.v1.StackService?",
        ),
        (
            "/com.example.Nothing/At",
            "this gateway does not serve com.example.Nothing (reflection lists its services)",
        ),
        (
            "/openstack.orchestration.v1.StackService",
            "/openstack.orchestration.v1.StackService is not the path of an rpc: \
             /package.Service/Method",
        ),
        ("/", "/ is not the path of an rpc: /package.Service/Method"),
    ] {
        let status = status(&open(&mut router, path, (), None).await);
        assert_eq!(status.code(), Code::Unimplemented, "{path}");
        assert_eq!(status.message(), want);
        assert!(!status.details().is_empty());
    }
    let long = format!("/a.{}/M", "x".repeat(50_000));
    let status = status(&open(&mut router, &long, (), None).await);
    assert!(status.message().len() < 1_000, "{status:?}");
}

/// The limit of the metadata holds for every rpc, also before the token is checked.
#[tokio::test]
async fn metadata_that_is_too_long_is_rejected_with_the_setting() {
    let (dispatcher, router) = router(vec![]);
    // Name, value and 32 bytes; `content-type: application/grpc` counts, too.
    let rest = 64 * 1024 - ("content-type".len() + "application/grpc".len() + 32);
    for (path, size, is_rejected) in [
        (GET_BUILD_INFO, rest, false),
        (GET_BUILD_INFO, rest + 1, true),
        ("/grpc.health.v1.Health/Check", rest + 1, true),
        ("/no.Such/Method", rest + 1, true),
        (GET_BUILD_INFO, 10 * rest, true),
    ] {
        let value = "x".repeat(size - "big".len() - 32);
        let mut request = request(path, "1H", tokio_stream::iter([&[0; 5][..]]));
        request.headers_mut().remove("grpc-timeout");
        request.headers_mut().insert("big", value.parse().unwrap());
        let status = status(&respond(&router, request).await);
        if !is_rejected {
            assert_ne!(status.code(), Code::ResourceExhausted, "{status:?}");
            continue;
        }
        assert_eq!(status.code(), Code::ResourceExhausted, "{path} {size}");
        for part in ["65536", "server.max_metadata_bytes"] {
            assert!(status.message().contains(part), "{status:?}");
        }
    }
    let line = metric(&dispatcher, "unsupported_requests_total");
    assert!(line.ends_with(" 4"), "{line}");
}

/// The response names the encodings that are accepted.
#[tokio::test]
async fn other_encodings_than_gzip_are_unimplemented() {
    use crate::test_api::openstack::orchestration::v1::ListStacksRequest;
    let (_, mut router) = router(vec![heat().await]);
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
async fn deadline_counts_from_the_headers() {
    let (_listener, settings) = silent().await;
    let (_, router) = router(vec![settings]);
    for slow in [false, true] {
        let start = Instant::now();
        let chunks = empty_message(slow);
        let response = respond(&router, request(GET_BUILD_INFO, "10S", chunks)).await;
        let status = status(&response);
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
        assert_eq!(start.elapsed().as_millis(), 9_950, "{status:?}");
    }
}

/// The same as `cancelled_request_never_completes`, with real hyper and h2.
#[tokio::test]
async fn request_cancelled_midway_never_completes() {
    let (frames_tx, mut frames_rx) = tokio::sync::mpsc::unbounded_channel();
    let (dropped_tx, mut dropped_rx) = tokio::sync::mpsc::channel::<()>(1);
    let dropped_tx = Arc::new(std::sync::Mutex::new(Some(dropped_tx)));
    // Continues to read the body after hyper has dropped the handler.
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let frames_tx = frames_tx.clone();
        let dropped_tx = dropped_tx.lock().unwrap().take();
        tokio::spawn(async move {
            let hour = Deadline::after(Duration::from_secs(3_600));
            let mut body = TimeoutBody::new(request.into_body(), hour, TIMEOUTS);
            while let Some(frame) = body.frame().await {
                let frame = frame.map(|frame| frame.into_data().unwrap());
                frames_tx.send(Some(frame)).unwrap();
            }
            frames_tx.send(None).unwrap();
        });
        async move {
            let _dropped_tx = dropped_tx;
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
    let chunk: &[u8] = &[0, 0, 0, 0, 1, 7];
    let chunks = tokio_stream::iter([chunk]).chain(tokio_stream::pending());
    let mut call = Box::pin(channel.ready().await.unwrap().call(request(
        GET_BUILD_INFO,
        "1H",
        chunks,
    )));
    tokio::select! {
        _ = &mut call => panic!("the service never responds"),
        first = frames_rx.recv() => assert_eq!(first.unwrap().unwrap().unwrap(), chunk),
    }
    drop(call);
    drop(channel);
    // hyper has received the reset.
    assert!(dropped_rx.recv().await.is_none());
    tokio::time::pause();
    let end = frames_rx
        .recv()
        .await
        .unwrap()
        .expect("an error")
        .unwrap_err();
    assert_eq!(end.code(), Code::DeadlineExceeded, "{end:?}");
}

/// Sends an empty message; a slow one takes 5 s.
fn empty_message(slow: bool) -> impl Stream<Item = &'static [u8]> + Send {
    let pause = Duration::from_secs(if slow { 5 } else { 0 });
    let parts: [&[u8]; 2] = [&[0, 0], &[0, 0, 0]];
    Box::pin(tokio_stream::iter(parts).throttle(pause))
}

/// Starts a Heat with one long list and a deployment that stays in progress.
async fn heat() -> upstream::Settings {
    let stack = serde_json::json!({"id": "s", "stack_name": "x".repeat(900_000)});
    let list = serde_json::json!({"stacks": [stack]}).to_string();
    let in_progress =
        serde_json::json!({"software_deployment": {"id": "d", "status": "IN_PROGRESS"}});
    let router = axum::Router::new().fallback(move |request: axum::extract::Request| {
        let body = match request.uri().path().ends_with("/stacks") {
            true => list.clone(),
            false => in_progress.to_string(),
        };
        async move { ([("content-type", "application/json")], body) }
    });
    let (listener, mut settings) = silent().await;
    tokio::spawn(async move { axum::serve(listener, router).await });
    settings.transport.max_response_bytes = 1 << 20;
    settings
}

/// Makes a call and returns its response unread.
async fn open(
    router: &mut Router,
    path: &str,
    message: impl prost::Message,
    encoding: Option<&'static str>,
) -> http::Response<Body> {
    let mut bytes = vec![0];
    bytes.extend((message.encoded_len() as u32).to_be_bytes());
    bytes.extend(message.encode_to_vec());
    let body = http_body_util::Full::new(Bytes::from(bytes));
    let mut request = http::Request::post(path)
        .version(http::Version::HTTP_2)
        .header("content-type", "application/grpc");
    if let Some(encoding) = encoding {
        request = request.header("grpc-encoding", encoding);
        request = request.header("grpc-accept-encoding", encoding);
    }
    let request = request.body(Body::new(body)).unwrap();
    respond(router, request).await
}

/// Runs `work` in paused time. Time runs again afterwards, so that no timeout fires while
/// data is on a socket.
async fn in_paused_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::pause();
    let done = work.await;
    tokio::time::resume();
    done
}

/// Opens a watch whose state does not change.
async fn open_watch(router: &mut Router) -> Body {
    let path = "/openstack.orchestration.v1.SoftwareDeploymentService/WatchSoftwareDeployment";
    let request = crate::test_api::openstack::orchestration::v1::WatchSoftwareDeploymentRequest {
        deployment_id: "d".into(),
        ..Default::default()
    };
    open(router, path, request, None).await.into_body()
}

#[tokio::test]
async fn open_stream_is_in_flight_until_it_ends() {
    let (dispatcher, mut router) = router(vec![heat().await]);
    let mut watch = open_watch(&mut router).await;
    watch.frame().await.unwrap().unwrap();
    let in_flight = || metric(&dispatcher, "rpc_calls_in_flight");
    assert!(in_flight().ends_with(" 1"), "{}", in_flight());
    drop(watch);
    assert!(in_flight().ends_with(" 0"), "{}", in_flight());
}

#[tokio::test]
async fn unread_responses_free_memory_and_permits() {
    use crate::test_api::openstack::orchestration::v1 as pb;
    let list = "/openstack.orchestration.v1.StackService/ListStacks";
    let stream = "/openstack.orchestration.v1.StackService/StreamStacks";
    let watch = "/openstack.orchestration.v1.SoftwareDeploymentService/WatchSoftwareDeployment";
    let (dispatcher, mut router) = router(vec![heat().await]);
    let router = &mut router;
    let request = pb::ListStacksRequest::default;
    for path in [list, stream] {
        let mut unread = Vec::new();
        let full = loop {
            let response = open(router, path, request(), None).await;
            match Status::from_header_map(response.headers()) {
                None => unread.push(response),
                Some(status) => break status,
            }
        };
        assert_eq!(full.code(), Code::ResourceExhausted, "{path}");
        assert!(full.message().contains("one client"), "{full:?}");
        // Half of the budget and what each connection has of its own, in responses of 0.9 MB.
        assert!((8..30).contains(&unread.len()), "{path}: {}", unread.len());
        in_paused_time(sleep(Duration::from_secs(40))).await;
        let response = open(router, path, request(), None).await;
        let last = response.into_body().collect().await.unwrap();
        assert_eq!(last.trailers().unwrap()["grpc-status"], "0");
        drop(unread);
    }
    let request = pb::WatchSoftwareDeploymentRequest {
        deployment_id: "d".into(),
        ..Default::default()
    };
    let unread_watch = open(router, watch, request.clone(), None).await;
    let mut read_watch = open(router, watch, request, None).await.into_body();
    read_watch.frame().await.unwrap().unwrap();
    assert_eq!(dispatcher.watches.streams().open(), 2);
    // Reads the bookmarks, which are sent meanwhile.
    let reads = async { while read_watch.frame().await.transpose().unwrap().is_some() {} };
    let _ = in_paused_time(tokio::time::timeout(Duration::from_secs(40), reads)).await;
    assert_eq!(dispatcher.watches.streams().open(), 1);
    let count = |code| {
        metric(
            &dispatcher,
            &format!("{}\",upstream=\"u\",code=\"{code}", &watch[1..]),
        )
    };
    assert!(
        count("DEADLINE_EXCEEDED").ends_with(" 1"),
        "{}",
        dispatcher.metrics.text().unwrap()
    );
    drop(unread_watch);
    drop(read_watch);
    assert!(count("CANCELLED").ends_with(" 1"));
}
