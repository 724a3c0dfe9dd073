//! Watches, logs and pages of the user's own APIs, with an upstream whose every answer the test
//! scripts.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use drawbridge::config::Config;
use serde_json::{Value, json};
use tonic::Code;

use crate::own_api::compile;
use crate::support::client::{Watch, json as to_json};
use crate::support::recorder::{Answer, Recorder};
use crate::support::{Gateway, settings, upstream};

const PROTO: &str = r#"
syntax = "proto3";
package acme.v1;
import "drawbridge/v1/options.proto";
import "drawbridge/v1/watch.proto";
import "google/api/annotations.proto";

option (drawbridge.v1.file) = { family: "acme" };

service JobService {
  rpc GetJob(GetJobRequest) returns (Job) {
    option (google.api.http) = {
      get: "/jobs/{id}"
      additional_bindings { get: "/teams/{team}/jobs/{name}" }
    };
    option (drawbridge.v1.method).also_success = 409;
  }
  rpc RemoveJob(GetJobRequest) returns (Job) {
    option (google.api.http) = {
      post: "/jobs/{id}/remove"
      additional_bindings { delete: "/teams/{team}/jobs/{name}" }
    };
  }
  rpc WatchJob(GetJobRequest) returns (stream WatchJobResponse) {
    option (google.api.http) = { get: "/jobs/{id}" };
    option (drawbridge.v1.method).watch = {
      poll: "GetJob" state: "phase" succeeded: "DONE" failed: "BROKEN"
      INTERVALS
    };
  }
  rpc ListJobs(ListJobsRequest) returns (ListJobsResponse) {
    option (google.api.http) = { get: "/jobs" };
  }
  rpc WatchJobs(ListJobsRequest) returns (stream WatchJobResponse) {
    option (google.api.http) = { get: "/jobs" };
    option (drawbridge.v1.method).watch = {
      poll: "ListJobs" item: "jobs" key: "id" INTERVALS
    };
  }
  rpc ListTasks(ListTasksRequest) returns (ListTasksResponse) {
    option (google.api.http) = { get: "/tasks" };
    option (drawbridge.v1.method).merge_pages = {
      items: "tasks" total: "count" offset: "offset" size: "limit"
    };
  }
  rpc WatchTasks(ListTasksRequest) returns (stream WatchJobResponse) {
    option (google.api.http) = { get: "/tasks" };
    option (drawbridge.v1.method).watch = {
      poll: "ListTasks" item: "tasks" key: "id" INTERVALS
    };
  }
  rpc GetOutput(GetOutputRequest) returns (GetOutputResponse) {
    option (google.api.http) = { get: "/output" };
  }
  rpc WatchOutput(WatchOutputRequest) returns (stream WatchOutputResponse) {
    option (google.api.http) = { get: "/output" };
    option (drawbridge.v1.method).watch = {
      poll: "GetOutput" INTERVALS
      text_log: { offset: "offset" size: "size" text: "entries.log" }
    };
  }
}
enum Phase { PHASE_UNSPECIFIED = 0; PHASE_BUSY = 1; PHASE_DONE = 2; PHASE_BROKEN = 3; }
message Job { string id = 1; Phase phase = 2; }
message GetJobRequest { string id = 1; string team = 2; string name = 3; }
message WatchJobResponse { drawbridge.v1.WatchEvent event = 1; Job job = 2; }
message ListJobsRequest {}
message ListJobsResponse { repeated Job jobs = 1; }
message ListTasksRequest { int32 offset = 1; int32 limit = 2; }
message ListTasksResponse { repeated Job tasks = 1; int32 count = 2; }
message GetOutputRequest { int64 offset = 1; int32 size = 2; }
message GetOutputResponse { repeated Entry entries = 1; }
message Entry { string log = 1; }
message WatchOutputRequest {}
message WatchOutputResponse {
  drawbridge.v1.WatchEvent event = 1;
  drawbridge.v1.LogLine line = 2;
  int64 next = 3;
}
"#;

const INTERVALS: &str = "initial_interval: { nanos: 10000000 } max_interval: { nanos: 20000000 }";

/// What the upstream answers, one after the other; the last answer is repeated until others
/// follow. A test adds them after it has received the event of an earlier one: a client that
/// reads late gets only the newest state.
#[derive(Clone)]
struct Script(Arc<Mutex<VecDeque<Answer>>>);

impl Script {
    fn then(&self, answers: impl IntoIterator<Item = Answer>) {
        self.0.lock().unwrap().extend(answers);
    }

    fn next(&self) -> Answer {
        let mut answers = self.0.lock().unwrap();
        match answers.len() {
            1 => answers[0].clone(),
            _ => answers.pop_front().unwrap(),
        }
    }
}

/// Starts a gateway to an upstream with these answers.
async fn acme(answers: impl IntoIterator<Item = Answer>) -> (Script, Recorder, Gateway) {
    acme_with(answers, |_| {}).await
}

async fn acme_with(
    answers: impl IntoIterator<Item = Answer>,
    set: impl FnOnce(&mut Config),
) -> (Script, Recorder, Gateway) {
    let script = Script(Arc::new(Mutex::new(answers.into_iter().collect())));
    let answers = script.clone();
    let recorder = Recorder::start(move |_| answers.next()).await;
    let mut config = settings(vec![upstream("acme", "acme", &recorder.url())]);
    let proto = PROTO.replace("INTERVALS", INTERVALS);
    config.descriptors = vec![compile(&proto).unwrap()];
    set(&mut config);
    let gateway = Gateway::start(config).await;
    (script, recorder, gateway)
}

fn ok(body: Value) -> Answer {
    Answer::json(200, &body)
}

/// A list of jobs, as text: `a=BUSY b=DONE`.
fn jobs(text: &str) -> Value {
    let jobs = text.split_whitespace().map(|job| {
        let (id, phase) = job.split_once('=').unwrap();
        json!({"id": id, "phase": phase})
    });
    jobs.collect()
}

/// Reads the next event that is not a bookmark, as text: `ADDED a=BUSY`.
async fn event(watch: &mut Watch) -> String {
    loop {
        let message = match watch.next().await {
            None => return "END".to_owned(),
            Some(Err(status)) => return format!("{:?}", status.code()),
            Some(Ok(message)) => to_json(&message),
        };
        let kind = message["event"]["type"].as_str().unwrap();
        let kind = kind.trim_start_matches("WATCH_EVENT_TYPE_");
        let job = &message["job"];
        let phase = job["phase"].as_str().unwrap_or_default();
        let phase = phase.trim_start_matches("PHASE_");
        match kind {
            "BOOKMARK" => {}
            _ => return format!("{kind} {}={phase}", job["id"].as_str().unwrap_or_default()),
        }
    }
}

async fn events(watch: &mut Watch, count: usize) -> String {
    let mut events = Vec::new();
    for _ in 0..count {
        events.push(event(watch).await);
    }
    events.join(", ")
}

/// Bodies of HTTP 200 that cannot be read, and what the error says.
fn unreadable() -> [(Answer, &'static str); 5] {
    let json = |body: &str| Answer::text(200, "application/json", body);
    [
        (json(r#"{"jobs":[{"id":"a""#), "jobs[0]"),
        (json(r#"{"jobs":["#), "the end of the text"),
        (
            json(r#"{"jobs":[]}"#).with("content-encoding", "br"),
            "Content-Encoding: the encoding `br`",
        ),
        (
            json(r#"{"jobs":[]}"#).with("content-encoding", "gzip"),
            "Content-Encoding: the gzip coding is invalid",
        ),
        (Answer::text(200, "text/html", "<html>"), "text/html"),
    ]
}

/// A poll that cannot be read is tolerated like a failed one: for as long, and with its own
/// error at the end.
#[tokio::test]
async fn unreadable_polls_end_a_watch_with_their_error() {
    for (answer, text) in unreadable() {
        let first = [ok(json!({"jobs": jobs("a=BUSY")}))];
        let tolerance = Duration::ZERO;
        let (script, _recorder, gateway) = acme_with(first, |config| {
            config.watch.failure_tolerance = tolerance;
        })
        .await;
        let opened = gateway
            .client
            .watch("acme.v1.JobService/WatchJobs", json!({}), &[]);
        let mut watch = opened.await.unwrap();
        assert_eq!(event(&mut watch).await, "INITIAL a=BUSY");
        script.then([answer]);
        let status = loop {
            match watch.next().await {
                Some(Ok(_)) => {}
                Some(Err(status)) => break status,
                None => panic!("{text}"),
            }
        };
        assert_eq!(status.code(), Code::Internal, "{status:?}");
        assert!(status.message().contains(text), "{status:?}");
    }
}

/// After the polls of a row and its events, a change is the next event.
#[tokio::test]
async fn one_wrong_poll_of_a_list_is_no_event() {
    let all = || ok(json!({"jobs": jobs("a=BUSY b=BUSY")}));
    let changed = || ok(json!({"jobs": jobs("a=BUSY b=BUSY c=BUSY")}));
    let without_b = || ok(json!({"jobs": jobs("a=BUSY")}));
    let none = || ok(json!({"jobs": []}));
    for (name, polls, deleted, added) in [
        ("one lacks an item", vec![without_b()], "", "ADDED c=BUSY"),
        ("one has no items", vec![none()], "", "ADDED c=BUSY"),
        (
            "every other one lacks an item",
            vec![without_b(), all(), without_b(), all(), without_b()],
            "",
            "ADDED c=BUSY",
        ),
        (
            "a list that is null",
            vec![ok(json!({"jobs": null})); 3],
            "",
            "ADDED c=BUSY",
        ),
        (
            "a body without the list",
            vec![ok(json!({})); 3],
            "",
            "ADDED c=BUSY",
        ),
        (
            "bodies that cannot be read",
            unreadable().into_iter().map(|(answer, _)| answer).collect(),
            "",
            "ADDED c=BUSY",
        ),
        (
            "no items, or not all, and an error",
            [json!([]), jobs("a=BUSY"), json!([])]
                .map(|jobs| ok(json!({"jobs": jobs, "error": "backend timeout"})))
                .into(),
            "",
            "ADDED c=BUSY",
        ),
        (
            "an item that is null",
            vec![ok(json!({"jobs": [null, {"id": "a", "phase": "BUSY"}]})); 3],
            "",
            "ADDED c=BUSY",
        ),
        (
            "one 404",
            vec![Answer::json(404, &json!({}))],
            "",
            "ADDED c=BUSY",
        ),
        (
            "two lack an item",
            vec![without_b(), without_b()],
            "DELETED b=BUSY",
            "ADDED b=BUSY, ADDED c=BUSY",
        ),
        (
            "two lack an item, with a failure in between",
            vec![without_b(), Answer::json(500, &json!({})), without_b()],
            "DELETED b=BUSY",
            "ADDED b=BUSY, ADDED c=BUSY",
        ),
        (
            "two have no items",
            vec![none(), none()],
            "DELETED a=BUSY, DELETED b=BUSY",
            "ADDED a=BUSY, ADDED b=BUSY, ADDED c=BUSY",
        ),
    ] {
        let (script, _recorder, gateway) = acme([all()]).await;
        let opened = gateway
            .client
            .watch("acme.v1.JobService/WatchJobs", json!({}), &[]);
        let mut watch = opened.await.unwrap();
        let initial = events(&mut watch, 2).await;
        assert_eq!(initial, "INITIAL a=BUSY, INITIAL b=BUSY");
        if deleted.is_empty() {
            // In one step: the last poll is not repeated.
            script.then(polls.into_iter().chain([changed()]));
        } else {
            script.then(polls);
            let count = deleted.split(", ").count();
            assert_eq!(events(&mut watch, count).await, deleted, "{name}");
            script.then([changed()]);
        }
        let count = added.split(", ").count();
        assert_eq!(events(&mut watch, count).await, added, "{name}");
    }
}

#[tokio::test]
async fn not_found_ends_a_watch_when_the_next_poll_confirms_it() {
    let busy = || ok(json!({"id": "a", "phase": "BUSY"}));
    let gone = || Answer::json(404, &json!({"error": "no_such_job"}));
    // A success by `also_success`, with an error of the API as its body.
    let conflict = || Answer::json(409, &json!({"error": {"code": 404, "message": "x"}}));
    let done = || ok(json!({"id": "a", "phase": "DONE"}));
    for (name, polls, want) in [
        ("one 404", vec![gone(), done()], "MODIFIED a=DONE, END"),
        (
            "404 in every other poll",
            vec![gone(), busy(), gone(), busy(), gone(), done()],
            "MODIFIED a=DONE, END",
        ),
        ("two 404", vec![gone(), gone(), done()], "NotFound, END"),
        (
            "a success with an error body",
            vec![conflict(), conflict(), conflict(), done()],
            "MODIFIED a=DONE, END",
        ),
    ] {
        let (script, _recorder, gateway) = acme([busy()]).await;
        let request = json!({"id": "a"});
        let opened = gateway
            .client
            .watch("acme.v1.JobService/WatchJob", request, &[]);
        let mut watch = opened.await.unwrap();
        assert_eq!(event(&mut watch).await, "INITIAL a=BUSY");
        script.then(polls);
        assert_eq!(events(&mut watch, 2).await, want, "{name}");
    }
    // Before the job was ever read, it is the response to the rpc.
    let (_, _recorder, gateway) = acme([gone(), done()]).await;
    let request = json!({"id": "a"});
    let opened = gateway
        .client
        .watch("acme.v1.JobService/WatchJob", request, &[]);
    assert_eq!(opened.await.err().unwrap().code(), Code::NotFound);
}

#[tokio::test]
async fn watch_makes_the_calls_of_the_binding_that_fits() {
    // With the full name of the enum's value, as a server writes it that uses protobuf.
    let poll = |phase: &str| ok(json!({"id": "a", "phase": phase}));
    let (script, recorder, gateway) = acme([poll("PHASE_BUSY")]).await;
    let request = json!({"team": "red", "name": "build"});
    let opened = gateway
        .client
        .watch("acme.v1.JobService/WatchJob", request, &[]);
    let mut watch = opened.await.unwrap();
    assert_eq!(event(&mut watch).await, "INITIAL a=BUSY");
    script.then([poll("PHASE_DONE")]);
    assert_eq!(events(&mut watch, 2).await, "MODIFIED a=DONE, END");
    for seen in recorder.seen() {
        assert_eq!(seen.target, "/teams/red/jobs/build");
    }
    let opened = gateway
        .client
        .watch("acme.v1.JobService/WatchJob", json!({"team": "red"}), &[]);
    assert_eq!(opened.await.err().unwrap().code(), Code::InvalidArgument);
}

/// Without `idempotency_level`, a GET has no side effects.
#[tokio::test]
async fn get_is_retried() {
    let done = || ok(json!({"id": "a", "phase": "PHASE_DONE"}));
    let busy = || ok(json!({"id": "a", "phase": "PHASE_BUSY"}));
    let broken = || Answer::json(502, &json!({}));
    let (_, recorder, gateway) = acme([broken(), done()]).await;
    let get = gateway
        .client
        .call("acme.v1.JobService/GetJob", json!({"id": "a"}));
    assert_eq!(to_json(&get.await.unwrap())["phase"], "PHASE_DONE");
    assert_eq!(recorder.take().len(), 2);

    let (script, _recorder, gateway) = acme([broken(), busy()]).await;
    let opened = gateway
        .client
        .watch("acme.v1.JobService/WatchJob", json!({"id": "a"}), &[]);
    let mut watch = opened.await.unwrap();
    assert_eq!(event(&mut watch).await, "INITIAL a=BUSY");
    script.then([broken(), done()]);
    assert_eq!(events(&mut watch, 2).await, "MODIFIED a=DONE, END");
}

#[tokio::test]
async fn null_is_not_a_list() {
    let (_, _recorder, gateway) = acme([ok(json!({"jobs": null}))]).await;
    let status = gateway
        .client
        .call("acme.v1.JobService/ListJobs", json!({}))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().contains("`jobs` is null"), "{status:?}");
}

#[tokio::test]
async fn merged_list_that_ends_before_its_total_is_not_a_list() {
    let page = |ids: &str, count: i32| ok(json!({"tasks": jobs(ids), "count": count}));
    let (_, recorder, gateway) = acme([page("a=BUSY b=BUSY", 3), page("", 3)]).await;
    let list = || {
        gateway
            .client
            .call("acme.v1.JobService/ListTasks", json!({}))
    };
    let status = list().await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert!(
        status.message().contains("after 2 of 3 items"),
        "{status:?}"
    );
    assert_eq!(recorder.seen()[1].target, "/tasks?offset=2");

    // The upstream ignores the offset.
    let repeated = page("a=BUSY b=BUSY", 4);
    let (_, recorder, gateway) = acme([repeated.clone(), repeated]).await;
    let list = gateway
        .client
        .call("acme.v1.JobService/ListTasks", json!({}));
    let status = list.await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert!(
        status.message().contains("ignores the offset"),
        "{status:?}"
    );
    assert_eq!(recorder.seen().len(), 2);

    // An item was deleted while the pages were read.
    let (_, _recorder, gateway) = acme([page("a=BUSY b=BUSY", 3), page("", 2)]).await;
    let list = gateway
        .client
        .call("acme.v1.JobService/ListTasks", json!({}));
    let tasks = to_json(&list.await.unwrap())["tasks"].clone();
    assert_eq!(tasks.as_array().unwrap().len(), 2);

    // Neither do its items look deleted.
    let all = || page("a=BUSY b=BUSY c=BUSY", 3);
    let (script, _recorder, gateway) =
        acme([page("a=BUSY b=BUSY", 3), page("c=BUSY", 3), all()]).await;
    let opened = gateway
        .client
        .watch("acme.v1.JobService/WatchTasks", json!({}), &[]);
    let mut watch = opened.await.unwrap();
    assert_eq!(
        events(&mut watch, 3).await,
        "INITIAL a=BUSY, INITIAL b=BUSY, INITIAL c=BUSY"
    );
    script.then([
        page("a=BUSY b=BUSY", 3),
        page("", 3),
        page("", 3),
        page("a=BUSY b=BUSY c=DONE", 3),
    ]);
    assert_eq!(event(&mut watch).await, "MODIFIED c=DONE");
}

/// As Rundeck answers: an entry per line, without its line break.
#[tokio::test]
async fn entries_of_a_text_log_are_lines() {
    let entries = Arc::new(Mutex::new(vec!["step 0", "step 1"]));
    let shown = entries.clone();
    let recorder = Recorder::start(move |seen| {
        let offset = seen.pairs().into_iter().find(|(name, _)| name == "offset");
        let offset: usize = offset.unwrap().1.parse().unwrap();
        let entries = shown.lock().unwrap();
        let text = entries.iter().map(|entry| format!("{entry}\n"));
        let text: String = text.collect();
        let rest = text.get(offset..).unwrap_or_default();
        let rest = rest.lines().map(|line| json!({"log": line}));
        ok(json!({"entries": rest.collect::<Vec<_>>()}))
    })
    .await;
    let mut config = settings(vec![upstream("acme", "acme", &recorder.url())]);
    let proto = PROTO.replace("INTERVALS", INTERVALS);
    config.descriptors = vec![compile(&proto).unwrap()];
    let gateway = Gateway::start(config).await;
    let opened = gateway
        .client
        .watch("acme.v1.JobService/WatchOutput", json!({}), &[]);
    let mut watch = opened.await.unwrap();
    let mut line = async || {
        let event = watch.event().await;
        assert_ne!(event["event"]["type"], "WATCH_EVENT_TYPE_GAP");
        event["line"]["text"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!([line().await, line().await], ["step 0", "step 1"]);
    for added in [&["step 2"][..], &["", "step 4\r"], &[""], &["", "step 7"]] {
        entries.lock().unwrap().extend(added);
        for want in added {
            assert_eq!(line().await, want.trim_end());
        }
    }
}

#[tokio::test]
async fn empty_reply_to_a_delete_of_an_additional_binding_is_ok() {
    let (_, recorder, gateway) = acme([Answer::json(200, &json!(null))]).await;
    let remove = async |request: Value| {
        let call = gateway.client.call("acme.v1.JobService/RemoveJob", request);
        call.await.map(|_| ()).map_err(|status| status.code())
    };
    assert_eq!(remove(json!({"team": "t", "name": "n"})).await, Ok(()));
    assert_eq!(remove(json!({"id": "a"})).await, Err(Code::Internal));
    assert_eq!(recorder.take().len(), 2);
}
