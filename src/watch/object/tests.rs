//! Tests of the reads of one resource: light reads, debounced states, side reads, the
//! fallback, and watches that begin with a call. Protos of the tests, and an HTTP server
//! that responds by path.

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
use crate::test_contract::{DO, FIND, STARTED, TestContract, jobs};
use crate::upstream::{Settings, Upstream};
use crate::watch::source::SnapshotSource;
use crate::watch::{self, WatchStream, Watches};
use drawbridge_transcoder::api::drawbridge::v1::WatchEvent;
use drawbridge_transcoder::contract::Method;

const JOB: &str = "GET /v1/p1/jobs/j1";
const ADDON: &str = "GET /v1/p1/addons/a1";
const DO_IT: &str = "POST /v1/p1/addons/a1/do";

/// Responds by verb and path with the scripted responses in order; the last one repeats.
#[derive(Default)]
struct ScriptedUpstream {
    answers: Mutex<HashMap<&'static str, VecDeque<(u16, Value)>>>,
    seen: Mutex<Vec<String>>,
}

async fn respond(State(cloud): State<Arc<ScriptedUpstream>>, request: Request) -> Response {
    let path = request.uri().path_and_query().unwrap().as_str();
    let line = format!("{} {path}", request.method());
    let key = format!("{} {}", request.method(), request.uri().path());
    cloud.seen.lock().unwrap().push(line);
    let mut answers = cloud.answers.lock().unwrap();
    let answer = match answers.get_mut(&*key) {
        Some(rest) if rest.len() > 1 => rest.pop_front(),
        Some(rest) => rest.front().cloned(),
        None => None,
    };
    let (status, body) = answer.unwrap_or((404, json!({"message": "no such thing"})));
    (StatusCode::from_u16(status).unwrap(), axum::Json(body)).into_response()
}

impl ScriptedUpstream {
    fn script(&self, place: &'static str, answers: impl IntoIterator<Item = (u16, Value)>) {
        let answers = answers.into_iter().collect();
        self.answers.lock().unwrap().insert(place, answers);
    }

    fn job(&self, state: &str) {
        self.script(JOB, [(200, job(state))]);
    }

    /// Returns the requests since the last call of this function.
    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    fn count(&self, place: &str) -> usize {
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .filter(|request| request.starts_with(place))
            .count()
    }

    async fn serve(self: &Arc<Self>) -> Arc<Upstream> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let router = axum::Router::new()
            .fallback(respond)
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

struct Fixture {
    test: TestContract,
    cloud: Arc<ScriptedUpstream>,
    upstream: Arc<Upstream>,
}

impl Fixture {
    async fn new(rules: &str, response: &str) -> Self {
        Self::of(&jobs(rules, response)).await
    }

    async fn of(proto: &str) -> Self {
        let test = TestContract::new(proto);
        let cloud = Arc::new(ScriptedUpstream::default());
        let upstream = cloud.serve().await;
        Self {
            test,
            cloud,
            upstream,
        }
    }

    fn method(&self, path: &str) -> &Arc<Method> {
        self.test.contract.method(path).unwrap()
    }

    /// Returns a source of `S.Watch`.
    fn source(&self, request: Value) -> RestSnapshotSource {
        let method = self.method("/t.S/Watch");
        let watch = method.watch.as_ref().unwrap();
        let request = Bytes::from(self.test.wire("t.WatchJobReq", request));
        let call = method.bind(&request, "").unwrap();
        let poll = watch.poll_request(&request).unwrap();
        let target = ResourceCalls::new(watch, poll, Some(call), "").unwrap();
        let context = StreamContext {
            upstream: self.upstream.clone(),
            client: caller(),
            retry_after: Arc::default(),
        };
        RestSnapshotSource::new(method, request, PollTarget::resource(target), context, 100)
            .unwrap()
    }

    /// Returns the message of an item, without its event.
    fn message_of(&self, source: &RestSnapshotSource, item: &Item) -> Value {
        let message = source.message(&WatchEvent::default(), Some(item));
        let mut json = self.test.json("t.WatchJobRes", &message);
        json.as_object_mut().unwrap().remove("event");
        json
    }

    async fn begin(&self, watches: &Watches, request: Value) -> Result<WatchStream, Error> {
        let request = Bytes::from(self.test.wire("t.DoWatchReq", request));
        watches
            .watch(
                self.method("/t.AddonService/DoAndWatch"),
                request,
                CallContext {
                    upstream: &self.upstream,
                    client: &caller(),
                    deadline: Deadline::after(POLL_TIMEOUT),
                    permit: None,
                    retry_after: None,
                },
                None,
            )
            .await
    }

    /// Returns the next message of `AddonService.DoAndWatch`, without its times.
    async fn next(&self, stream: &mut WatchStream) -> Value {
        let next = tokio::time::timeout(Duration::from_secs(60), stream.next()).await;
        match next.expect("a message within a minute") {
            None => json!("END"),
            Some(Err(error)) => json!(format!("{:?}", error.code())),
            Some(Ok(message)) => {
                let mut message = self.test.json("t.WatchRes", &message);
                let event = message["event"].take();
                let kind = event["type"].as_str().unwrap();
                message["event"] = json!(kind.trim_start_matches("WATCH_EVENT_TYPE_"));
                if let Some(outcome) = event.get("outcome") {
                    message["outcome"] = outcome.clone();
                }
                message
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

#[tokio::test]
async fn final_state_is_sent_although_its_full_read_fails() {
    let fixture = Fixture::new(DO, STARTED).await;
    let Fixture { cloud, .. } = &fixture;
    let broken = [
        (500, json!({"message": "cannot resolve outputs"})),
        (403, json!({"message": "no outputs for you"})),
        (200, json!({"job": {"uuid": 1, "state": [true]}})),
    ];
    for full in broken {
        let source = fixture.source(json!({"p": "p1", "jobId": "j1"}));
        let polls = (0..6).flat_map(|_| [(200, job("OK")), full.clone()]);
        cloud.script(JOB, polls.chain([(200, job("OK"))]));
        for _ in 1..MAX_FAILED_FULL_READS {
            let read = source.read().await.unwrap();
            assert!(matches!(read, SnapshotRead::NotFound), "{read:?}");
        }
        for _ in 0..2 {
            let item = one(&source).await;
            assert!(item.incomplete, "{full:?}");
            assert_eq!(item.outcome, Outcome::Succeeded);
            let want = json!({"job": {"uuid": "j1", "state": "OK"}});
            assert_eq!(fixture.message_of(&source, &item), want);
        }
    }
    // A full read that succeeds meanwhile is sent, with `follow`.
    let source = fixture.source(json!({"p": "p1", "jobId": "j1"}));
    let failures = (0..MAX_FAILED_FULL_READS).flat_map(|_| [(200, job("OK")), (500, json!({}))]);
    cloud.script(JOB, failures.chain([(200, job("OK"))]));
    for _ in 1..MAX_FAILED_FULL_READS {
        source.read().await.unwrap();
    }
    assert!(one(&source).await.incomplete);
    assert!(!one(&source).await.incomplete);
}

#[tokio::test]
async fn final_state_is_kept_although_it_cannot_be_read_again() {
    let fixture = Fixture::new(DO, STARTED).await;
    let Fixture { cloud, .. } = &fixture;
    let ok = || (200, job("OK"));
    let failed = || (500, json!({}));
    let empty = || (200, json!({}));
    let gone = || (404, json!({"message": "no such job"}));
    for (name, polls, misses, incomplete) in [
        (
            "500, then read",
            vec![ok(), failed(), failed(), ok()],
            2,
            false,
        ),
        (
            "empty, then read",
            vec![ok(), empty(), empty(), ok()],
            2,
            false,
        ),
        ("404, then read", vec![ok(), gone(), ok()], 1, false),
        (
            "500 and 404, then read",
            vec![ok(), failed(), gone(), ok()],
            2,
            false,
        ),
        ("always 500", vec![ok(), failed()], 3, true),
        ("always empty", vec![ok(), empty()], 3, true),
        ("always 404", vec![ok(), gone()], 1, true),
        (
            "500, then always 404",
            vec![ok(), failed(), gone()],
            2,
            true,
        ),
    ] {
        for before in [None, Some((200, job("BUSY")))] {
            let source = fixture.source(json!({"p": "p1", "jobId": "j1"}));
            cloud.script(JOB, before.iter().chain(&polls).cloned());
            if before.is_some() {
                assert_eq!(one(&source).await.outcome, Outcome::Pending, "{name}");
            }
            for _ in 0..misses {
                let read = source.read().await;
                assert!(
                    matches!(read, Ok(SnapshotRead::NotFound)),
                    "{name}: {read:?}"
                );
            }
            let item = one(&source).await;
            let got = (item.outcome, item.incomplete);
            assert_eq!(got, (Outcome::Succeeded, incomplete), "{name}");
            let want = json!({"job": {"uuid": "j1", "state": "OK"}});
            assert_eq!(fixture.message_of(&source, &item), want, "{name}");
        }
    }
    // After it was sent, failures are those of any watch.
    let source = fixture.source(json!({"p": "p1", "jobId": "j1"}));
    cloud.script(JOB, [ok(), ok(), failed()]);
    assert!(!one(&source).await.incomplete);
    assert!(source.read().await.is_err());
    // A state that is not final any more is not sent.
    let source = fixture.source(json!({"p": "p1", "jobId": "j1"}));
    cloud.script(JOB, [ok(), failed(), (200, job("BUSY")), failed()]);
    source.read().await.unwrap();
    assert_eq!(one(&source).await.outcome, Outcome::Pending);
    assert!(source.read().await.is_err());
}

#[tokio::test]
async fn stream_ends_with_the_final_state_although_its_full_read_fails() {
    let fixture = Fixture::new(DO, STARTED).await;
    let Fixture { cloud, .. } = &fixture;
    let failures = (0..9).flat_map(|_| [(200, job("OK")), (500, json!({}))]);
    let busy = [(200, job("BUSY")), (500, json!({}))];
    cloud.script(JOB, busy.into_iter().chain(failures));
    let watches = Watches::new(watch::Settings::default());
    let request = json!({"p": "p1", "jobId": "j1"});
    let request = Bytes::from(fixture.test.wire("t.WatchJobReq", request));
    let context = CallContext {
        upstream: &fixture.upstream,
        client: &caller(),
        deadline: Deadline::after(POLL_TIMEOUT),
        permit: None,
        retry_after: None,
    };
    let stream = watches.watch(fixture.method("/t.S/Watch"), request, context, None);
    let messages: Vec<_> = stream.await.unwrap().collect().await;
    let messages: Vec<Value> = messages
        .into_iter()
        .map(|message| fixture.test.json("t.WatchJobRes", &message.unwrap()))
        .collect();
    let last = messages.last().unwrap();
    assert_eq!(
        last["event"]["outcome"], "OUTCOME_SUCCEEDED",
        "{messages:?}"
    );
    assert_eq!(last["event"]["incomplete"], true, "{messages:?}");
    assert_eq!(messages[0]["job"]["state"], "BUSY", "{messages:?}");
}

/// Advances the clock.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn light_read_is_used_until_the_state_is_final() {
    let fixture = Fixture::new(DO, STARTED).await;
    let Fixture { cloud, .. } = &fixture;
    cloud.job("WAITING");
    let source = fixture.source(json!({"p": "p1", "jobId": "j1"}));
    one(&source).await;
    one(&source).await;
    assert_eq!(
        cloud.seen(),
        [
            "GET /v1/p1/jobs/j1?full=false",
            "GET /v1/p1/jobs/j1?full=false"
        ]
    );
    cloud.script(
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
    let final_item = one(&source).await;
    assert_eq!(final_item.outcome, Outcome::Succeeded);
    assert_eq!(
        fixture.message_of(&source, &final_item),
        json!({"job": {"uuid": "j1", "state": "OK", "more": {"a": "b"}}})
    );
    assert_eq!(
        cloud.seen(),
        ["GET /v1/p1/jobs/j1?full=false", "GET /v1/p1/jobs/j1"]
    );
    // With `follow`: an unchanged resource is not read in full again.
    assert_eq!(one(&source).await, final_item);
    assert_eq!(cloud.seen(), ["GET /v1/p1/jobs/j1?full=false"]);

    // The state has changed between the light and the full read.
    cloud.script(
        JOB,
        [(200, job("BUSY")), (200, job("OK")), (200, job("BUSY"))],
    );
    assert_eq!(one(&source).await.outcome, Outcome::Pending);
    let moved = one(&source).await;
    assert_eq!((moved.outcome, moved.poll_soon), (Outcome::Pending, true));
}

#[tokio::test]
async fn debounced_state_is_final_only_when_it_lasts() {
    let fixture = Fixture::new(DO, STARTED).await;
    let Fixture { cloud, .. } = &fixture;
    let source = fixture.source(json!({"p": "p1", "jobId": "j1"}));
    let read = async || {
        let item = one(&source).await;
        (item.outcome, item.poll_soon)
    };
    let (debounced, open) = ((Outcome::Pending, true), (Outcome::Pending, false));
    let failed = (Outcome::Failed, false);
    let secs = Duration::from_secs;
    cloud.job("BAD");
    assert_eq!(read().await, debounced);
    pass(secs(9)).await;
    assert_eq!(read().await, debounced);
    // A rollback follows, and another failure is debounced anew.
    cloud.job("BUSY");
    assert_eq!(read().await, open);
    cloud.job("BAD");
    assert_eq!(read().await, debounced);
    pass(secs(10)).await;
    assert_eq!(read().await, failed);
    assert_eq!(read().await, failed);

    let immediate = json!({"job": {"uuid": "j1", "state": "BAD", "sticky": true}});
    cloud.script(JOB, [(200, immediate)]);
    assert_eq!(read().await, failed);

    cloud.job("LOST");
    assert_eq!((read().await, read().await), (debounced, debounced));
    cloud.job("BUSY");
    assert_eq!(read().await, open);
    cloud.job("LOST");
    assert_eq!((read().await, read().await), (debounced, debounced));
    assert_eq!((read().await, read().await), (failed, failed));
}

#[tokio::test]
async fn side_reads_are_part_of_the_message() {
    let fixture = Fixture::new(DO, STARTED).await;
    let Fixture { cloud, .. } = &fixture;
    let steps = json!({"steps": [{"name": "1", "state": "OK"}, {"name": "2", "state": "BUSY"}]});
    cloud.job("BUSY");
    cloud.script("GET /v1/p1/steps", [(200, steps)]);
    let plain = fixture.source(json!({"p": "p1", "jobId": "j1"}));
    let counts = json!({"OK": 1, "BUSY": 1});
    assert_eq!(
        fixture.message_of(&plain, &one(&plain).await),
        json!({"job": {"uuid": "j1", "state": "BUSY"}, "progress": counts})
    );
    assert_eq!(
        cloud.seen(),
        [
            "GET /v1/p1/jobs/j1?full=false",
            "GET /v1/p1/steps?filter.job=j1"
        ]
    );

    let with_steps = fixture.source(json!({"p": "p1", "jobId": "j1", "steps": true, "depth": 2}));
    let message = fixture.message_of(&with_steps, &one(&with_steps).await);
    assert_eq!(
        (
            message["steps"].as_array().map(Vec::len),
            &message["progress"]
        ),
        (Some(2), &counts)
    );
    assert_eq!(cloud.count("GET /v1/p1/steps?filter.job=j1&depth=2"), 1);
    // A transient failure keeps the part that was sent, another one omits it.
    cloud.script("GET /v1/p1/steps", [(503, json!({}))]);
    assert_eq!(
        fixture.message_of(&with_steps, &one(&with_steps).await),
        message
    );
    cloud.script("GET /v1/p1/steps", [(403, json!({}))]);
    assert_eq!(
        fixture.message_of(&with_steps, &one(&with_steps).await),
        json!({"job": {"uuid": "j1", "state": "BUSY"}})
    );
    // With the final state the side read is repeated once, then only after a change.
    cloud.job("OK");
    cloud.script(
        "GET /v1/p1/steps",
        [(200, json!({"steps": [{"name": "3"}]}))],
    );
    cloud.seen();
    for _ in 0..3 {
        assert_eq!(
            fixture.message_of(&with_steps, &one(&with_steps).await),
            json!({"job": {"uuid": "j1", "state": "OK"}, "steps": [{"name": "3"}]})
        );
    }
    assert_eq!(cloud.count("GET /v1/p1/steps"), 1);
}

#[tokio::test]
async fn fallback_is_read_after_not_found() {
    let fixture = Fixture::new(DO, STARTED).await;
    let Fixture { cloud, .. } = &fixture;
    // The request has no id for the fallback.
    let nowhere = fixture.source(json!({"p": "p1", "jobId": "j1"}));
    assert!(is_not_found(&nowhere.read().await.unwrap_err()));

    let addon = |job: &str, state: &str| json!({"id": "a1", "job_id": job, "state": state});
    let request = json!({"p": "p1", "jobId": "j1", "addon": "a1"});
    // From the third miss in a row on.
    let source = fixture.source(request.clone());
    cloud.script(ADDON, [(200, addon("j0", "OK"))]);
    cloud.seen();
    for _ in 0..2 {
        assert!(matches!(source.read().await, Ok(SnapshotRead::NotFound)));
    }
    assert_eq!(cloud.count(ADDON), 0);
    // The previous job is not the watched one, so its state is not final.
    let item = one(&source).await;
    assert_eq!((item.outcome, item.poll_soon), (Outcome::Pending, true));
    assert_eq!(
        fixture.message_of(&source, &item),
        json!({"addon": addon("j0", "OK")})
    );
    cloud.script(ADDON, [(200, addon("j1", "BUSY"))]);
    assert_eq!(one(&source).await.outcome, Outcome::Pending);
    cloud.script(ADDON, [(200, addon("j1", "OK"))]);
    assert_eq!(one(&source).await.outcome, Outcome::Succeeded);
    assert_eq!(cloud.count(JOB), 3, "the job is not polled any more");
    // NOT_FOUND is the success of a deletion, when a second read confirms it.
    cloud.script(ADDON, [(404, json!({}))]);
    assert!(is_not_found(&source.read().await.unwrap_err()));
    match source.read().await {
        Ok(SnapshotRead::Deleted(item)) => {
            assert_eq!(item.outcome, Outcome::Succeeded);
            assert_eq!(
                fixture.message_of(&source, &item),
                json!({"addon": addon("j1", "OK")})
            );
        }
        other => panic!("{other:?}"),
    }
    // A later job replaces it.
    cloud.script(ADDON, [(200, addon("j2", "OK"))]);
    let aborted = source.read().await.unwrap_err();
    assert_eq!(aborted.code(), Code::Aborted, "{aborted}");

    // The fallback never describes the watched job.
    let source = fixture.source(request.clone());
    let mut reads = 0;
    let error = loop {
        match source.read().await {
            Ok(_) => reads += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((reads, error.code()), (11, Code::Aborted));

    // Neither the poll nor the fallback finds it.
    cloud.script(ADDON, [(404, json!({}))]);
    let source = fixture.source(request);
    for _ in 0..2 {
        assert!(matches!(source.read().await, Ok(SnapshotRead::NotFound)));
    }
    assert!(is_not_found(&source.read().await.unwrap_err()));
}

/// A single NOT_FOUND of the poll may come from an older replica, also where the fallback is
/// read at once and finds nothing.
#[tokio::test]
async fn deletion_that_the_fallback_does_not_know_is_confirmed() {
    let proto = jobs(DO, STARTED)
        .replace("on_not_found: ON_NOT_FOUND_SUCCEED", "")
        .replace("after: 3", "after: 1")
        .replace(
            "not_found_succeeds_after: \"LEAVING\"",
            "on_not_found: ON_NOT_FOUND_SUCCEED",
        );
    let fixture = Fixture::of(&proto).await;
    let Fixture { cloud, .. } = &fixture;
    cloud.job("BUSY");
    let source = fixture.source(json!({"p": "p1", "jobId": "j1", "addon": "a1"}));
    one(&source).await;
    cloud.script(ADDON, [(404, json!({}))]);
    cloud.script(JOB, [(404, json!({}))]);
    assert!(is_not_found(&source.read().await.unwrap_err()));
    // The job is there: the miss does not count any more.
    cloud.job("BUSY");
    one(&source).await;
    cloud.script(JOB, [(404, json!({}))]);
    assert!(is_not_found(&source.read().await.unwrap_err()));
    match source.read().await {
        Ok(SnapshotRead::Deleted(item)) => assert_eq!(item.outcome, Outcome::Succeeded),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn not_found_succeeds_only_after_listed_states() {
    let fixture = Fixture::new(DO, STARTED).await;
    let Fixture { cloud, .. } = &fixture;
    for (state, succeeds) in [("LEAVING", true), ("BUSY", false)] {
        cloud.job(state);
        let source = fixture.source(json!({"p": "p1", "jobId": "j1"}));
        one(&source).await;
        cloud.script(JOB, [(404, json!({}))]);
        match source.read().await {
            Ok(SnapshotRead::Deleted(item)) if succeeds => {
                assert_eq!(item.outcome, Outcome::Succeeded);
                assert_eq!(
                    fixture.message_of(&source, &item)["job"]["state"],
                    "LEAVING"
                );
            }
            Err(error) if !succeeds => assert!(is_not_found(&error), "{error}"),
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
async fn started_call_is_made_once_and_its_resource_watched() {
    let fixture = Fixture::new(&format!("{DO} {QUICK}"), STARTED).await;
    let Fixture { cloud, .. } = &fixture;
    let watches = Watches::new(watch::Settings::default());
    cloud.script(DO_IT, [(200, json!({"job_id": "j1"}))]);
    // NOT_FOUND at first, then a transient failure.
    let missing = (404, json!({}));
    let down = (503, json!({}));
    cloud.script(
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
    let mut stream = fixture.begin(&watches, do_request()).await.unwrap();
    for want in [
        json!({"event": "STARTED", "started": {"job_id": "j1"}}),
        json!({"event": "INITIAL", "job": {"uuid": "j1", "state": "BUSY"}}),
        json!({"event": "MODIFIED", "job": {"uuid": "j1", "state": "OK"},
               "outcome": "OUTCOME_SUCCEEDED"}),
        json!("END"),
    ] {
        assert_eq!(fixture.next(&mut stream).await, want);
    }
    assert_eq!(cloud.count(DO_IT), 1);
    assert_eq!(watches.stats().loops, 0);

    // Each watch makes its own call and has its own loop.
    cloud.job("BUSY");
    let mut both = vec![
        fixture.begin(&watches, do_request()).await.unwrap(),
        fixture.begin(&watches, do_request()).await.unwrap(),
    ];
    for stream in &mut both {
        assert_eq!(fixture.next(stream).await["event"], "STARTED");
        assert_eq!(fixture.next(stream).await["event"], "INITIAL");
    }
    assert_eq!((cloud.count(DO_IT), watches.stats().loops), (3, 2));
    watches.drain();
    for stream in &mut both {
        assert_eq!(fixture.next(stream).await, "Unavailable");
    }
    let rejected = fixture.begin(&watches, do_request()).await;
    assert!(matches!(rejected.err(), Some(Error::Draining)));
    assert_eq!(cloud.count(DO_IT), 3);
}

#[tokio::test]
async fn started_call_that_fails_or_starts_nothing_ends_the_watch() {
    let fixture = Fixture::new(&format!("{DO} {QUICK}"), STARTED).await;
    let Fixture { cloud, .. } = &fixture;
    let watches = Watches::new(watch::Settings::default());
    cloud.script(DO_IT, [(503, json!({})), (200, json!({"job_id": "j1"}))]);
    let error = fixture.begin(&watches, do_request()).await.err().unwrap();
    // A proxy may have responded: whether the call was processed is unknown.
    assert_eq!(error.code(), Code::Unknown);
    assert_eq!(cloud.seen().len(), 1, "neither retried nor polled");

    // The job never appears: the client has its id, and gets the error.
    let mut stream = fixture.begin(&watches, do_request()).await.unwrap();
    assert_eq!(fixture.next(&mut stream).await["started"]["job_id"], "j1");
    assert_eq!(fixture.next(&mut stream).await, "NotFound");
    assert_eq!(fixture.next(&mut stream).await, "END");
    assert_eq!((cloud.count(DO_IT), cloud.count(JOB)), (1, 4));

    // A success that is not the response of the call: the started job is unknown.
    cloud.script(DO_IT, [(200, json!({"error": {"message": "maintenance"}}))]);
    cloud.seen();
    let error = fixture.begin(&watches, do_request()).await.err().unwrap();
    assert_eq!(error.code(), Code::Internal);
    assert!(error.to_string().contains("may have acted"), "{error}");
    assert_eq!(cloud.seen().len(), 1);

    for (answer, end) in [
        (json!({"job_id": ""}), "Internal"),
        (json!({"job_id": ".."}), "Internal"),
    ] {
        cloud.script(DO_IT, [(200, answer.clone())]);
        cloud.seen();
        let mut stream = fixture.begin(&watches, do_request()).await.unwrap();
        let message = fixture.next(&mut stream).await;
        assert_eq!(message["event"], "STARTED");
        assert_eq!(fixture.next(&mut stream).await, end);
        assert_eq!(cloud.seen().len(), 1);
    }
    // At the limit of loops the call is not made.
    let full = Watches::new(watch::Settings {
        max_poll_loops: 0,
        ..watch::Settings::default()
    });
    let error = fixture.begin(&full, do_request()).await.err().unwrap();
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert!(cloud.seen().is_empty());
}

#[tokio::test]
async fn client_that_leaves_after_the_call_ends_only_the_polls() {
    let fixture = Fixture::new(&format!("{DO} {QUICK}"), STARTED).await;
    let Fixture { cloud, .. } = &fixture;
    let watches = Watches::new(watch::Settings::default());
    cloud.script(DO_IT, [(200, json!({"job_id": "j1"}))]);
    cloud.job("BUSY");
    let stream = fixture.begin(&watches, do_request()).await.unwrap();
    drop(stream);
    while watches.stats().loops > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(cloud.count(DO_IT), 1);
    assert_eq!(watches.stats().open_streams, 0);
}

#[tokio::test]
async fn resource_is_searched_in_a_list_by_its_parent() {
    let fixture = Fixture::new(&format!("{FIND} {QUICK}"), "DoRes begun = 3;").await;
    let Fixture { cloud, .. } = &fixture;
    let watches = Watches::new(watch::Settings::default());
    let urls = |url: &str| json!({ "urls": [format!("http://inner:22015{url}")] });
    cloud.script(DO_IT, [(200, urls("/x/groups/7"))]);
    cloud.script(
        "GET /v1/p1/jobs",
        [
            (404, json!({})),
            (200, json!({"jobs": []})),
            (200, json!({"jobs": [{"uuid": "j1"}, {"uuid": "j2"}]})),
        ],
    );
    cloud.job("BAD");
    let mut stream = fixture.begin(&watches, do_request()).await.unwrap();
    assert_eq!(fixture.next(&mut stream).await["event"], "STARTED");
    assert_eq!(
        fixture.next(&mut stream).await,
        json!({"event": "INITIAL", "job": {"uuid": "j1", "state": "BAD"},
               "outcome": "OUTCOME_FAILED"})
    );
    assert_eq!(fixture.next(&mut stream).await, "END");
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
    // A response that names the job needs no search.
    cloud.script(DO_IT, [(200, urls("/jobs/j1"))]);
    let mut stream = fixture.begin(&watches, do_request()).await.unwrap();
    fixture.next(&mut stream).await;
    assert_eq!(fixture.next(&mut stream).await["event"], "INITIAL");
    assert_eq!(cloud.seen(), [DO_IT, JOB]);
    cloud.script(DO_IT, [(200, urls("/others/3"))]);
    let mut stream = fixture.begin(&watches, do_request()).await.unwrap();
    fixture.next(&mut stream).await;
    assert_eq!(fixture.next(&mut stream).await, "Internal");
}
