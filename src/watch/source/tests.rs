//! Tests of sources with the built-in contract and an HTTP server with the API of Heat.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use prost::Message as _;
use serde_json::{Value, json};
use tokio_stream::StreamExt;

use super::*;
use crate::downstream::Downstream;
use crate::engine::call_context::CallContext;
use crate::test_api::openstack::orchestration::v1 as api;
use crate::upstream::{Settings, Upstream};
use crate::watch::list::REFRESH_CONCURRENCY;
use crate::watch::poll_target::{PollTarget, ResourceCalls};
use crate::watch::{self, Watches};
use drawbridge_transcoder::api::drawbridge::v1::{Outcome as SentOutcome, WatchEventType};
use drawbridge_transcoder::contract::{self, Contract, Outcome};

const SERVICE: &str = "/openstack.orchestration.v1.SoftwareDeploymentService";

/// Responds by path with scripted deployments.
#[derive(Default)]
struct Heat {
    list: Mutex<Vec<Value>>,
    by_id: Mutex<HashMap<String, Value>>,
    /// Ids of the single reads, and the largest number of concurrent ones.
    read: Mutex<Vec<String>>,
    now: Mutex<usize>,
    peak: Mutex<usize>,
    /// Holds single reads back until so many have arrived.
    together: Option<tokio::sync::Barrier>,
}

fn deployment(id: &str, status: &str) -> Value {
    json!({
        "id": id, "server_id": "s1", "config_id": "c1", "action": "CREATE", "status": status,
        "status_reason": null, "input_values": {}, "output_values": {"n": 5},
        "creation_time": "2026-11-21T00:00:00Z", "updated_time": null
    })
}

async fn respond(State(heat): State<Arc<Heat>>, request: Request) -> Response {
    let path = request.uri().path();
    let Some((_, rest)) = path.split_once("/v1/p1/software_deployments") else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let Some(id) = rest.strip_prefix('/') else {
        let list = heat.list.lock().unwrap().clone();
        return axum::Json(json!({ "software_deployments": list })).into_response();
    };
    heat.read.lock().unwrap().push(id.to_owned());
    {
        let mut now = heat.now.lock().unwrap();
        *now += 1;
        let mut peak = heat.peak.lock().unwrap();
        *peak = (*peak).max(*now);
    }
    if let Some(together) = &heat.together {
        together.wait().await;
    }
    *heat.now.lock().unwrap() -= 1;
    match heat.by_id.lock().unwrap().get(id) {
        Some(found) => axum::Json(json!({ "software_deployment": found })).into_response(),
        None => {
            let body = json!({
                "code": 404, "title": "Not Found", "explanation": "The resource could not be found.",
                "error": {"type": "NotFound", "message": format!("Software Deployment ({id}) not found"), "traceback": null}
            });
            (StatusCode::NOT_FOUND, axum::Json(body)).into_response()
        }
    }
}

impl Heat {
    async fn serve(self: &Arc<Self>) -> Arc<Upstream> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let router = axum::Router::new()
            .fallback(respond)
            .with_state(Arc::clone(self));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let mut settings = Settings {
            endpoint: Some(endpoint.parse().unwrap()),
            ..Settings::new("cloud", "heat", crate::credentials::Settings::Passthrough)
        };
        settings.transport.proxy_from_env = false;
        Arc::new(Upstream::new(settings, crate::families::family(""), None).unwrap())
    }

    fn has(&self, deployment: Value) {
        let id = deployment["id"].as_str().unwrap().to_owned();
        self.by_id.lock().unwrap().insert(id, deployment);
    }

    fn lists(&self, deployments: impl IntoIterator<Item = Value>) {
        *self.list.lock().unwrap() = deployments.into_iter().collect();
    }
}

fn method(name: &str) -> Arc<Method> {
    let source = contract::Source::new("built-in".to_owned(), crate::contract::BUILT_IN.to_vec());
    let contract = Contract::compile(vec![source], &crate::contract::family_rules).unwrap();
    Arc::clone(contract.method(&format!("{SERVICE}/{name}")).unwrap())
}

fn caller(token: &'static str) -> Downstream {
    Downstream {
        token: Some(HeaderValue::from_static(token)),
        ..Downstream::default()
    }
}

fn one(id: &str) -> Bytes {
    let request = api::WatchSoftwareDeploymentRequest {
        project_id: "p1".to_owned(),
        deployment_id: id.to_owned(),
        follow: false,
    };
    request.encode_to_vec().into()
}

fn all() -> Bytes {
    let request = api::WatchSoftwareDeploymentsRequest {
        project_id: "p1".to_owned(),
        server_id: String::new(),
    };
    request.encode_to_vec().into()
}

fn source(method: &Arc<Method>, request: Bytes, upstream: Arc<Upstream>) -> RestSnapshotSource {
    let watch = method.watch.as_ref().unwrap();
    let call = method.bind(&request, "").unwrap();
    let poll = watch.poll_request(&request).unwrap();
    let target = ResourceCalls::new(watch, poll, Some(call), "").unwrap();
    let caller = caller("t1");
    let context = StreamContext {
        upstream,
        client: caller,
        retry_after: Arc::default(),
    };
    RestSnapshotSource::new(method, request, PollTarget::resource(target), context, 100).unwrap()
}

async fn read(source: &RestSnapshotSource) -> Vec<Item> {
    match source.read().await {
        Ok(SnapshotRead::Items(items)) => items,
        other => panic!("{other:?}"),
    }
}

fn bytes(item: &Item) -> Bytes {
    item.bytes.clone().expect("it has a message")
}

fn states(items: &[Item]) -> Vec<(&str, Outcome)> {
    items
        .iter()
        .map(|item| (&*item.key, item.outcome))
        .collect()
}

#[tokio::test]
async fn single_resource_is_read_with_its_outcome() {
    let heat = Arc::new(Heat::default());
    let source = source(
        &method("WatchSoftwareDeployment"),
        one("d1"),
        heat.serve().await,
    );
    assert!(is_not_found(&source.read().await.unwrap_err()));
    for (status, want) in [
        ("IN_PROGRESS", Outcome::Pending),
        ("COMPLETE", Outcome::Succeeded),
        ("FAILED", Outcome::Failed),
        ("PAUSED", Outcome::Pending),
    ] {
        heat.has(deployment("d1", status));
        let items = read(&source).await;
        assert_eq!(states(&items), [("", want)], "{status}");
        let read = api::SoftwareDeployment::decode(bytes(&items[0])).unwrap();
        assert_eq!((&*read.id, &*read.server_id), ("d1", "s1"));
    }
}

#[tokio::test]
async fn items_that_are_not_final_are_refreshed() {
    let heat = Arc::new(Heat::default());
    let source = source(
        &method("WatchSoftwareDeployments"),
        all(),
        heat.serve().await,
    );
    assert!(read(&source).await.is_empty());

    heat.lists([
        deployment("moves", "IN_PROGRESS"),
        deployment("final", "COMPLETE"),
        deployment("gone", "IN_PROGRESS"),
        deployment("stays", "IN_PROGRESS"),
    ]);
    heat.has(deployment("moves", "FAILED"));
    heat.has(deployment("stays", "IN_PROGRESS"));
    let items = read(&source).await;
    assert_eq!(
        states(&items),
        [
            ("moves", Outcome::Failed),
            ("final", Outcome::Succeeded),
            ("stays", Outcome::Pending)
        ]
    );
    let moves = api::SoftwareDeployment::decode(bytes(&items[0])).unwrap();
    assert_eq!(moves.id, "moves");
    let read: HashSet<_> = std::mem::take(&mut *heat.read.lock().unwrap())
        .into_iter()
        .collect();
    let want = ["moves", "gone", "stays"].map(str::to_owned);
    assert_eq!(read, HashSet::from(want));
}

#[tokio::test]
async fn refreshes_and_items_are_limited() {
    // Responds to none before so many have arrived.
    let heat = Arc::new(Heat {
        together: Some(tokio::sync::Barrier::new(REFRESH_CONCURRENCY)),
        ..Heat::default()
    });
    let source = source(
        &method("WatchSoftwareDeployments"),
        all(),
        heat.serve().await,
    );
    let ids: Vec<_> = (0..12 * REFRESH_CONCURRENCY)
        .map(|n| format!("d{n}"))
        .collect();
    heat.lists(ids.iter().map(|id| deployment(id, "IN_PROGRESS")));
    for id in &ids {
        heat.has(deployment(id, "IN_PROGRESS"));
    }
    let items = read(&source).await;
    let keys: Vec<_> = items.iter().map(|item| item.key.to_string()).collect();
    assert_eq!(keys, ids, "in order");
    assert_eq!(heat.read.lock().unwrap().len(), ids.len());
    assert_eq!(*heat.peak.lock().unwrap(), REFRESH_CONCURRENCY);

    heat.lists((0..101).map(|n| deployment(&n.to_string(), "COMPLETE")));
    let error = source.read().await.unwrap_err();
    assert!(error.to_string().contains("`watch.max_items`"), "{error}");
}

#[tokio::test]
async fn watch_sends_events_from_polls() {
    let heat = Arc::new(Heat::default());
    let upstream = heat.serve().await;
    let method = method("WatchSoftwareDeployment");
    let watches = Watches::new(watch::Settings::default());
    let watch = |id, token| {
        let (watches, method, upstream) = (watches.clone(), method.clone(), upstream.clone());
        async move {
            let caller = caller(token);
            watches
                .watch(
                    &method,
                    one(id),
                    CallContext {
                        upstream: &upstream,
                        client: &caller,
                        deadline: Deadline::after(POLL_TIMEOUT),
                        permit: None,
                        retry_after: None,
                    },
                    None,
                )
                .await
        }
    };
    assert!(is_not_found(&watch("d1", "t1").await.unwrap_err()));
    assert!(matches!(
        watch("", "t1").await.unwrap_err(),
        Error::Binding { .. }
    ));

    heat.has(deployment("d1", "IN_PROGRESS"));
    let mut streams = vec![
        watch("d1", "t1").await.unwrap(),
        watch("d1", "t1").await.unwrap(),
    ];
    assert_eq!(watches.stats().loops, 1);
    streams.push(watch("d1", "t2").await.unwrap());
    assert_eq!(watches.stats().loops, 2, "another token has another loop");
    for stream in &mut streams {
        let message = stream.next().await.unwrap().unwrap();
        let message = api::WatchSoftwareDeploymentResponse::decode(message).unwrap();
        assert_eq!(message.event.unwrap().r#type(), WatchEventType::Initial);
        assert_eq!(message.software_deployment.unwrap().id, "d1");
    }
    heat.has(deployment("d1", "COMPLETE"));
    for stream in &mut streams {
        let message = stream.next().await.unwrap().unwrap();
        let message = api::WatchSoftwareDeploymentResponse::decode(message).unwrap();
        let event = message.event.unwrap();
        assert_eq!(event.r#type(), WatchEventType::Modified);
        assert_eq!(event.outcome(), SentOutcome::Succeeded);
        assert!(stream.next().await.is_none());
    }
    assert_eq!(watches.stats().loops, 0);
    // A method without the option `watch`.
    let get = Arc::clone(&method.watch.as_ref().unwrap().poll);
    let error = watches
        .watch(
            &get,
            one("d1"),
            CallContext {
                upstream: &upstream,
                client: &caller("t1"),
                deadline: Deadline::after(POLL_TIMEOUT),
                permit: None,
                retry_after: None,
            },
            None,
        )
        .await
        .unwrap_err();
    assert!(error.to_string().contains("is not a watch"), "{error}");
}

#[test]
fn poll_is_idempotent_unless_its_rpc_says_otherwise() {
    use drawbridge_transcoder::call::Idempotency::{Idempotent, NoSideEffects, NonIdempotent};
    let mut call = method("WatchSoftwareDeployment")
        .bind(&one("d1"), "")
        .unwrap();
    for (idempotency, is_declared, want) in [
        (NoSideEffects, false, NoSideEffects),
        (Idempotent, true, Idempotent),
        (NonIdempotent, false, Idempotent),
        (NonIdempotent, true, NonIdempotent),
    ] {
        call.idempotency = idempotency;
        call.declares_idempotency = is_declared;
        assert_eq!(repeatable(call.clone()).idempotency, want);
    }
}
