//! Tests of what is read around a poll: lightly, beside, elsewhere, and after the
//! call that begins it. Own protos, and an HTTP server that answers by path.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio_stream::StreamExt;
use tonic::Code;

use super::*;
use crate::downstream::Downstream;
use crate::engine::call_context::{CallContext, StreamContext};
use crate::upstream::{Settings, Upstream};
use crate::watch::source::SnapshotSource;
use crate::watch::{self, WatchStream, Watches};
use crate::world::{DO, FIND, STARTED, World, jobs};
use drawbridge_transcoder::api::drawbridge::v1::WatchEvent;
use drawbridge_transcoder::contract::Method;

const JOB: &str = "GET /v1/p1/jobs/j1";
const ADDON: &str = "GET /v1/p1/addons/a1";
const DO_IT: &str = "POST /v1/p1/addons/a1/do";

/// Answers by verb and path: the answers in order, the last one again and again.
#[derive(Default)]
struct Cloud {
    answers: Mutex<HashMap<&'static str, VecDeque<(u16, Value)>>>,
    seen: Mutex<Vec<String>>,
}

async fn answer(State(cloud): State<Arc<Cloud>>, request: Request) -> Response {
    let path = request.uri().path_and_query().unwrap().as_str();
    let asked = format!("{} {path}", request.method());
    let place = format!("{} {}", request.method(), request.uri().path());
    cloud.seen.lock().unwrap().push(asked);
    let mut answers = cloud.answers.lock().unwrap();
    let answer = match answers.get_mut(&*place) {
        Some(rest) if rest.len() > 1 => rest.pop_front(),
        Some(rest) => rest.front().cloned(),
        None => None,
    };
    let (status, body) = answer.unwrap_or((404, json!({"message": "no such thing"})));
    (StatusCode::from_u16(status).unwrap(), axum::Json(body)).into_response()
}

impl Cloud {
    fn says(&self, place: &'static str, answers: impl IntoIterator<Item = (u16, Value)>) {
        let answers = answers.into_iter().collect();
        self.answers.lock().unwrap().insert(place, answers);
    }

    fn job(&self, state: &str) {
        self.says(JOB, [(200, job(state))]);
    }

    /// What was asked for since this was called last.
    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    fn count(&self, place: &str) -> usize {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|asked| asked.starts_with(place)).count()
    }

    async fn serve(self: &Arc<Self>) -> Arc<Upstream> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let router = axum::Router::new()
            .fallback(answer)
            .with_state(Arc::clone(self));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let mut settings = Settings {
            endpoint: Some(endpoint.parse().unwrap()),
            ..Settings::new("cloud", "t", crate::credentials::Settings::Passthrough)
        };
        settings.transport.proxy_from_env = false;
        settings.max_attempts = 1;
        Arc::new(Upstream::new(settings, crate::families::family(""), None).unwrap())
    }
}

fn job(state: &str) -> Value {
    json!({"job": {"uuid": "j1", "state": state}})
}

struct Stage {
    world: World,
    cloud: Arc<Cloud>,
    upstream: Arc<Upstream>,
}

impl Stage {
    async fn new(rules: &str, response: &str) -> Self {
        let world = World::new(&jobs(rules, response));
        let cloud = Arc::new(Cloud::default());
        let upstream = cloud.serve().await;
        Self {
            world,
            cloud,
            upstream,
        }
    }

    fn method(&self, path: &str) -> &Arc<Method> {
        self.world.contract.method(path).unwrap()
    }

    /// A source of `S.Watch`.
    fn source(&self, request: Value) -> RestSnapshotSource {
        let method = self.method("/t.S/Watch");
        let watch = method.watch.as_ref().unwrap();
        let request = Bytes::from(self.world.wire("t.WatchJobReq", request));
        let call = method.bind(&request, "").unwrap();
        let poll = watch.poll_request(&request).unwrap();
        let target = ResourceCalls::new(watch, poll, Some(call), "").unwrap();
        let context = StreamContext {
            upstream: self.upstream.clone(),
            client: caller(),
        };
        RestSnapshotSource::new(method, request, PollTarget::resource(target), context, 100)
            .unwrap()
    }

    /// What is told of a read, but for the event.
    fn told(&self, source: &RestSnapshotSource, item: &Item) -> Value {
        let message = source.message(&WatchEvent::default(), Some(item));
        let mut told = self.world.json("t.WatchJobRes", &message);
        told.as_object_mut().unwrap().remove("event");
        told
    }

    async fn begin(&self, watches: &Watches, request: Value) -> Result<WatchStream, Error> {
        let request = Bytes::from(self.world.wire("t.DoWatchReq", request));
        watches
            .watch(
                self.method("/t.AddonService/DoAndWatch"),
                request,
                CallContext {
                    upstream: &self.upstream,
                    client: &caller(),
                    deadline: Deadline::after(POLL_TIMEOUT),
                },
                None,
            )
            .await
    }

    /// The next message of `AddonService.DoAndWatch`, without its times.
    async fn next(&self, stream: &mut WatchStream) -> Value {
        let next = tokio::time::timeout(Duration::from_secs(60), stream.next()).await;
        match next.expect("it comes") {
            None => json!("END"),
            Some(Err(error)) => json!(format!("{:?}", error.code())),
            Some(Ok(message)) => {
                let mut told = self.world.json("t.WatchRes", &message);
                let event = told["event"].take();
                let kind = event["type"].as_str().unwrap();
                told["event"] = json!(kind.trim_start_matches("WATCH_EVENT_TYPE_"));
                if let Some(outcome) = event.get("outcome") {
                    told["outcome"] = outcome.clone();
                }
                told
            }
        }
    }
}

fn caller() -> Downstream {
    Downstream {
        token: Some(http::HeaderValue::from_static("t1")),
        ..Downstream::default()
    }
}

async fn one(source: &RestSnapshotSource) -> Item {
    match source.read().await {
        Ok(SnapshotRead::Items(mut items)) => items.pop().expect("one item"),
        other => panic!("{other:?}"),
    }
}

/// Lets the clock jump, and go on as before.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn it_is_read_lightly_until_it_is_final() {
    let stage = Stage::new(DO, STARTED).await;
    let Stage { cloud, .. } = &stage;
    cloud.job("WAITING");
    let source = stage.source(json!({"p": "p1", "jobId": "j1"}));
    one(&source).await;
    one(&source).await;
    assert_eq!(
        cloud.seen(),
        [
            "GET /v1/p1/jobs/j1?full=false",
            "GET /v1/p1/jobs/j1?full=false"
        ]
    );
    cloud.says(
        JOB,
        [
            (200, job("OK")),
            (
                200,
                json!({"job": {"uuid": "j1", "state": "OK", "more": {"a": "b"}}}),
            ),
            (200, job("OK")),
        ],
    );
    let settled = one(&source).await;
    assert_eq!(settled.outcome, Outcome::Succeeded);
    assert_eq!(
        stage.told(&source, &settled),
        json!({"job": {"uuid": "j1", "state": "OK", "more": {"a": "b"}}})
    );
    assert_eq!(
        cloud.seen(),
        ["GET /v1/p1/jobs/j1?full=false", "GET /v1/p1/jobs/j1"]
    );
    // For those who follow: what has not changed is not read in full again.
    assert_eq!(one(&source).await, settled);
    assert_eq!(cloud.seen(), ["GET /v1/p1/jobs/j1?full=false"]);

    // It has moved on between the two reads.
    cloud.says(
        JOB,
        [(200, job("BUSY")), (200, job("OK")), (200, job("BUSY"))],
    );
    assert_eq!(one(&source).await.outcome, Outcome::Pending);
    let moved = one(&source).await;
    assert_eq!((moved.outcome, moved.poll_soon), (Outcome::Pending, true));
}

#[tokio::test]
async fn states_are_an_end_when_they_last() {
    let stage = Stage::new(DO, STARTED).await;
    let Stage { cloud, .. } = &stage;
    let source = stage.source(json!({"p": "p1", "jobId": "j1"}));
    let read = async || {
        let item = one(&source).await;
        (item.outcome, item.poll_soon)
    };
    let (held, open) = ((Outcome::Pending, true), (Outcome::Pending, false));
    let bad = (Outcome::Failed, false);
    let secs = Duration::from_secs;
    cloud.job("BAD");
    assert_eq!(read().await, held);
    pass(secs(9)).await;
    assert_eq!(read().await, held);
    // A rollback follows, and another failure is held anew.
    cloud.job("BUSY");
    assert_eq!(read().await, open);
    cloud.job("BAD");
    assert_eq!(read().await, held);
    pass(secs(10)).await;
    assert_eq!(read().await, bad);
    assert_eq!(read().await, bad);

    let steadfast = json!({"job": {"uuid": "j1", "state": "BAD", "sticky": true}});
    cloud.says(JOB, [(200, steadfast)]);
    assert_eq!(read().await, bad);

    cloud.job("LOST");
    assert_eq!((read().await, read().await), (held, held));
    cloud.job("BUSY");
    assert_eq!(read().await, open);
    cloud.job("LOST");
    assert_eq!((read().await, read().await), (held, held));
    assert_eq!((read().await, read().await), (bad, bad));
}

#[tokio::test]
async fn what_is_told_beside() {
    let stage = Stage::new(DO, STARTED).await;
    let Stage { cloud, .. } = &stage;
    let steps = json!({"steps": [{"name": "1", "state": "OK"}, {"name": "2", "state": "BUSY"}]});
    cloud.job("BUSY");
    cloud.says("GET /v1/p1/steps", [(200, steps)]);
    let plain = stage.source(json!({"p": "p1", "jobId": "j1"}));
    let counts = json!({"OK": 1, "BUSY": 1});
    assert_eq!(
        stage.told(&plain, &one(&plain).await),
        json!({"job": {"uuid": "j1", "state": "BUSY"}, "progress": counts})
    );
    assert_eq!(
        cloud.seen(),
        [
            "GET /v1/p1/jobs/j1?full=false",
            "GET /v1/p1/steps?filter.job=j1"
        ]
    );

    let asks = stage.source(json!({"p": "p1", "jobId": "j1", "steps": true, "depth": 2}));
    let told = stage.told(&asks, &one(&asks).await);
    assert_eq!(
        (told["steps"].as_array().map(Vec::len), &told["progress"]),
        (Some(2), &counts)
    );
    assert_eq!(cloud.count("GET /v1/p1/steps?filter.job=j1&depth=2"), 1);
    // Failures that may pass keep what was told; others leave it out.
    cloud.says("GET /v1/p1/steps", [(503, json!({}))]);
    assert_eq!(stage.told(&asks, &one(&asks).await), told);
    cloud.says("GET /v1/p1/steps", [(403, json!({}))]);
    assert_eq!(
        stage.told(&asks, &one(&asks).await),
        json!({"job": {"uuid": "j1", "state": "BUSY"}})
    );
    // In the end it is read once more, and then no more while nothing changes.
    cloud.job("OK");
    cloud.says(
        "GET /v1/p1/steps",
        [(200, json!({"steps": [{"name": "3"}]}))],
    );
    cloud.seen();
    for _ in 0..3 {
        assert_eq!(
            stage.told(&asks, &one(&asks).await),
            json!({"job": {"uuid": "j1", "state": "OK"}, "steps": [{"name": "3"}]})
        );
    }
    assert_eq!(cloud.count("GET /v1/p1/steps"), 1);
}

#[tokio::test]
async fn what_the_poll_does_not_find_is_looked_for_elsewhere() {
    let stage = Stage::new(DO, STARTED).await;
    let Stage { cloud, .. } = &stage;
    // Nobody says where.
    let nowhere = stage.source(json!({"p": "p1", "jobId": "j1"}));
    assert!(is_not_found(&nowhere.read().await.unwrap_err()));

    let addon = |job: &str, state: &str| json!({"id": "a1", "job_id": job, "state": state});
    let request = json!({"p": "p1", "jobId": "j1", "addon": "a1"});
    // In the third poll in a row; not before.
    let source = stage.source(request.clone());
    cloud.says(ADDON, [(200, addon("j0", "OK"))]);
    cloud.seen();
    for _ in 0..2 {
        assert!(matches!(source.read().await, Ok(SnapshotRead::NotFound)));
    }
    assert_eq!(cloud.count(ADDON), 0);
    // The job before is not the one that is watched: it has not settled.
    let item = one(&source).await;
    assert_eq!((item.outcome, item.poll_soon), (Outcome::Pending, true));
    assert_eq!(
        stage.told(&source, &item),
        json!({"addon": addon("j0", "OK")})
    );
    cloud.says(ADDON, [(200, addon("j1", "BUSY"))]);
    assert_eq!(one(&source).await.outcome, Outcome::Pending);
    cloud.says(ADDON, [(200, addon("j1", "OK"))]);
    assert_eq!(one(&source).await.outcome, Outcome::Succeeded);
    assert_eq!(cloud.count(JOB), 3, "the poll is over");
    // Gone is the good end of a deletion.
    cloud.says(ADDON, [(404, json!({}))]);
    match source.read().await {
        Ok(SnapshotRead::Deleted(item)) => {
            assert_eq!(item.outcome, Outcome::Succeeded);
            assert_eq!(
                stage.told(&source, &item),
                json!({"addon": addon("j1", "OK")})
            );
        }
        other => panic!("{other:?}"),
    }
    // A later job takes its place.
    cloud.says(ADDON, [(200, addon("j2", "OK"))]);
    let aborted = source.read().await.unwrap_err();
    assert_eq!(aborted.code(), Code::Aborted, "{aborted}");

    // It was never the one that is watched.
    let source = stage.source(request.clone());
    let mut reads = 0;
    let error = loop {
        match source.read().await {
            Ok(_) => reads += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((reads, error.code()), (11, Code::Aborted));

    // Neither here nor there.
    cloud.says(ADDON, [(404, json!({}))]);
    let source = stage.source(request);
    for _ in 0..2 {
        assert!(matches!(source.read().await, Ok(SnapshotRead::NotFound)));
    }
    assert!(is_not_found(&source.read().await.unwrap_err()));
}

#[tokio::test]
async fn gone_is_a_good_end_after_some_states() {
    let stage = Stage::new(DO, STARTED).await;
    let Stage { cloud, .. } = &stage;
    for (state, well) in [("LEAVING", true), ("BUSY", false)] {
        cloud.job(state);
        let source = stage.source(json!({"p": "p1", "jobId": "j1"}));
        one(&source).await;
        cloud.says(JOB, [(404, json!({}))]);
        match source.read().await {
            Ok(SnapshotRead::Deleted(item)) if well => {
                assert_eq!(item.outcome, Outcome::Succeeded);
                assert_eq!(stage.told(&source, &item)["job"]["state"], "LEAVING");
            }
            Err(error) if !well => assert!(is_not_found(&error), "{error}"),
            other => panic!("{state}: {other:?}"),
        }
    }
}

const QUICK: &str = r#"state: "state" succeeded: "OK" failed: "BAD"
    initial_interval: {nanos: 10000000} max_interval: {nanos: 20000000}"#;

fn do_request() -> Value {
    json!({"p": "p1", "addon": "a1", "action": "go"})
}

#[tokio::test]
async fn a_call_is_made_once_and_followed() {
    let stage = Stage::new(&format!("{DO} {QUICK}"), STARTED).await;
    let Stage { cloud, .. } = &stage;
    let watches = Watches::new(watch::Settings::default());
    cloud.says(DO_IT, [(200, json!({"job_id": "j1"}))]);
    // Not there so far, then not to be read for a while.
    let missing = (404, json!({}));
    let down = (503, json!({}));
    cloud.says(
        JOB,
        [
            missing.clone(),
            missing.clone(),
            missing,
            down,
            (200, job("BUSY")),
            (200, job("BUSY")),
            (200, job("OK")),
        ],
    );
    let mut stream = stage.begin(&watches, do_request()).await.unwrap();
    for want in [
        json!({"event": "STARTED", "started": {"job_id": "j1"}}),
        json!({"event": "INITIAL", "job": {"uuid": "j1", "state": "BUSY"}}),
        json!({"event": "MODIFIED", "job": {"uuid": "j1", "state": "OK"},
               "outcome": "OUTCOME_SUCCEEDED"}),
        json!("END"),
    ] {
        assert_eq!(stage.next(&mut stream).await, want);
    }
    assert_eq!(cloud.count(DO_IT), 1);
    assert_eq!(watches.stats().loops, 0);

    // Each one makes its own call and has its own loop.
    cloud.job("BUSY");
    let mut both = vec![
        stage.begin(&watches, do_request()).await.unwrap(),
        stage.begin(&watches, do_request()).await.unwrap(),
    ];
    for stream in &mut both {
        assert_eq!(stage.next(stream).await["event"], "STARTED");
        assert_eq!(stage.next(stream).await["event"], "INITIAL");
    }
    assert_eq!((cloud.count(DO_IT), watches.stats().loops), (3, 2));
    watches.drain();
    for stream in &mut both {
        assert_eq!(stage.next(stream).await, "Unavailable");
    }
    let refused = stage.begin(&watches, do_request()).await;
    assert!(matches!(refused.err(), Some(Error::Draining)));
    assert_eq!(cloud.count(DO_IT), 3);
}

#[tokio::test]
async fn a_call_that_fails_or_starts_nothing() {
    let stage = Stage::new(&format!("{DO} {QUICK}"), STARTED).await;
    let Stage { cloud, .. } = &stage;
    let watches = Watches::new(watch::Settings::default());
    cloud.says(DO_IT, [(503, json!({})), (200, json!({"job_id": "j1"}))]);
    let error = stage.begin(&watches, do_request()).await.err().unwrap();
    // A proxy may have said it: what became of the call is not known.
    assert_eq!(error.code(), Code::Unknown);
    assert_eq!(cloud.seen().len(), 1, "neither again nor polled");

    // The job never comes: the caller has the id, and is told.
    let mut stream = stage.begin(&watches, do_request()).await.unwrap();
    assert_eq!(stage.next(&mut stream).await["started"]["job_id"], "j1");
    assert_eq!(stage.next(&mut stream).await, "NotFound");
    assert_eq!(stage.next(&mut stream).await, "END");
    assert_eq!((cloud.count(DO_IT), cloud.count(JOB)), (1, 4));

    for (answer, end) in [(json!({}), "END"), (json!({"job_id": ".."}), "Internal")] {
        cloud.says(DO_IT, [(200, answer.clone())]);
        cloud.seen();
        let mut stream = stage.begin(&watches, do_request()).await.unwrap();
        let told = stage.next(&mut stream).await;
        assert_eq!(told, json!({"event": "STARTED", "started": answer}));
        assert_eq!(stage.next(&mut stream).await, end);
        assert_eq!(cloud.seen().len(), 1);
    }
    // Without a place for the watch nothing is done.
    let full = Watches::new(watch::Settings {
        max_poll_loops: 0,
        ..watch::Settings::default()
    });
    let error = stage.begin(&full, do_request()).await.err().unwrap();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert!(cloud.seen().is_empty());
}

#[tokio::test]
async fn who_leaves_after_the_call_ends_the_polls_and_no_more() {
    let stage = Stage::new(&format!("{DO} {QUICK}"), STARTED).await;
    let Stage { cloud, .. } = &stage;
    let watches = Watches::new(watch::Settings::default());
    cloud.says(DO_IT, [(200, json!({"job_id": "j1"}))]);
    cloud.job("BUSY");
    let stream = stage.begin(&watches, do_request()).await.unwrap();
    drop(stream);
    while watches.stats().loops > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(cloud.count(DO_IT), 1);
    assert_eq!(watches.stats().watchers, 0);
}

#[tokio::test]
async fn what_is_named_only_by_what_it_belongs_to_is_found() {
    let stage = Stage::new(&format!("{FIND} {QUICK}"), "DoRes begun = 3;").await;
    let Stage { cloud, .. } = &stage;
    let watches = Watches::new(watch::Settings::default());
    let urls = |url: &str| json!({ "urls": [format!("http://inner:22015{url}")] });
    cloud.says(DO_IT, [(200, urls("/x/groups/7"))]);
    cloud.says(
        "GET /v1/p1/jobs",
        [
            (404, json!({})),
            (200, json!({"jobs": []})),
            (200, json!({"jobs": [{"uuid": "j1"}, {"uuid": "j2"}]})),
        ],
    );
    cloud.job("BAD");
    let mut stream = stage.begin(&watches, do_request()).await.unwrap();
    assert_eq!(stage.next(&mut stream).await["event"], "STARTED");
    assert_eq!(
        stage.next(&mut stream).await,
        json!({"event": "INITIAL", "job": {"uuid": "j1", "state": "BAD"},
               "outcome": "OUTCOME_FAILED"})
    );
    assert_eq!(stage.next(&mut stream).await, "END");
    assert_eq!(
        cloud.seen(),
        [
            DO_IT,
            "GET /v1/p1/jobs?group=7",
            "GET /v1/p1/jobs?group=7",
            "GET /v1/p1/jobs?group=7",
            JOB
        ]
    );
    // Named at once, no list is read.
    cloud.says(DO_IT, [(200, urls("/jobs/j1"))]);
    let mut stream = stage.begin(&watches, do_request()).await.unwrap();
    stage.next(&mut stream).await;
    assert_eq!(stage.next(&mut stream).await["event"], "INITIAL");
    assert_eq!(cloud.seen(), [DO_IT, JOB]);
    cloud.says(DO_IT, [(200, urls("/others/3"))]);
    let mut stream = stage.begin(&watches, do_request()).await.unwrap();
    stage.next(&mut stream).await;
    assert_eq!(stage.next(&mut stream).await, "END");
}
