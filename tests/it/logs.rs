//! Watches of events and logs, end to end.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::client::{Watch, json as to_json};
use crate::support::recorder::{Answer, Recorder, Seen};
use crate::support::{Gateway, upstream};

const EVENTS: &str = "StackEventService/WatchStackEvents";
const STACK: &str = "0f0e0d0c-0b0a-4908-8706-050403020100";

/// The events of one stack as Heat keeps them, oldest first.
#[derive(Clone, Default)]
struct Heat(Arc<Mutex<Vec<Value>>>);

impl Heat {
    fn add(&self, numbers: std::ops::Range<usize>) {
        let events = numbers.map(|n| {
            // Seven events per second.
            let second = n / 7;
            let time = format!(
                "2026-01-{:02}T{:02}:{:02}:{:02}Z",
                1 + second / 86_400,
                second / 3_600 % 24,
                second / 60 % 60,
                second % 60
            );
            json!({"id": format!("e{n}"), "event_time": time, "resource_name": "web",
                "resource_status": "CREATE_IN_PROGRESS", "links": []})
        });
        self.0.lock().unwrap().extend(events);
    }

    /// Pages as heat/db/api.py does: an unknown marker is ignored.
    fn answer(&self, seen: &Seen, pages: bool) -> Answer {
        if !seen
            .path()
            .ends_with(&format!("/stacks/web/{STACK}/events"))
        {
            return Answer::json(
                404,
                &json!({"code": 404, "title": "Not Found", "explanation": "x",
                    "error": {"type": "EntityNotFound", "message": "no such stack"}}),
            );
        }
        let query = seen.target.split_once('?').map_or("", |(_, query)| query);
        let get = |name: &str| {
            let mut pairs = url::form_urlencoded::parse(query.as_bytes());
            pairs
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.into_owned())
        };
        let mut events = self.0.lock().unwrap().clone();
        if !pages {
            assert_eq!(query, "", "the dialect documents no query");
            events.reverse();
            return Answer::json(200, &json!({ "events": events }));
        }
        if get("sort_dir").as_deref() != Some("asc") {
            events.reverse();
        }
        let marker = get("marker");
        let at = marker.and_then(|marker| events.iter().position(|e| e["id"] == marker));
        let limit: usize = get("limit").unwrap().parse().unwrap();
        let from = at.map_or(0, |at| at + 1);
        let page: Vec<_> = events.into_iter().skip(from).take(limit).collect();
        Answer::json(200, &json!({ "events": page }))
    }

    async fn start(&self, pages: bool) -> Recorder {
        let heat = self.clone();
        Recorder::start(move |seen| heat.answer(seen, pages)).await
    }
}

async fn watch(gateway: &Gateway, more: Value) -> Watch {
    let mut request = json!({"stack_name": "web", "stack_id": STACK});
    request
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    gateway.client.watch(EVENTS, request, &[]).await.unwrap()
}

/// Reads the next events: their numbers, and the marker of the last one.
async fn next(watch: &mut Watch, count: usize) -> (Vec<usize>, String) {
    let (mut ids, mut marker) = (Vec::new(), String::new());
    while ids.len() < count {
        let message = to_json(&watch.next().await.unwrap().unwrap());
        marker = message["marker"].as_str().unwrap_or_default().to_owned();
        if let Some(id) = message["stack_event"]["id"].as_str() {
            assert_eq!(id, marker);
            ids.push(id[1..].parse().unwrap());
        } else {
            assert_eq!(message["event"]["type"], "WATCH_EVENT_TYPE_BOOKMARK");
        }
    }
    (ids, marker)
}

fn numbers(range: std::ops::Range<usize>) -> Vec<usize> {
    range.collect()
}

#[tokio::test]
async fn events_are_sent_once_across_resumes_and_lost_markers() {
    let heat = Heat::default();
    heat.add(0..5_000);
    let recorder = heat.start(true).await;
    let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
    let mut stream = watch(&gateway, json!({})).await;
    let (ids, marker) = next(&mut stream, 2_345).await;
    assert_eq!(ids, numbers(0..2_345));
    // The stream breaks, and another one resumes; more events are added meanwhile.
    drop(stream);
    heat.add(5_000..5_100);
    let mut stream = watch(&gateway, json!({ "marker": marker })).await;
    let (ids, _) = next(&mut stream, 2_755).await;
    assert_eq!(ids, numbers(2_345..5_100));
    // A watch from now on gets the marker first, and shares the polls.
    let mut now = watch(&gateway, json!({"from_now": true})).await;
    let first = to_json(&now.next().await.unwrap().unwrap());
    assert_eq!(first["event"]["type"], "WATCH_EVENT_TYPE_BOOKMARK");
    assert_eq!(first["marker"], "e5099");
    // The marker is purged with many events: the upstream starts at the beginning.
    heat.0.lock().unwrap().drain(..5_100);
    heat.add(5_100..5_250);
    for stream in [&mut stream, &mut now] {
        assert_eq!(next(stream, 150).await.0, numbers(5_100..5_250));
    }
    // Each read has the filters.
    recorder.take();
    let mut nested = watch(&gateway, json!({"nested_depth": 2, "marker": "e5248"})).await;
    assert_eq!(next(&mut nested, 1).await.0, [5_249]);
    let seen = recorder.take();
    let mine = seen.iter().filter(|s| s.target.contains("nested_depth=2"));
    let mine: Vec<_> = mine.map(|s| s.target.split_once('?').unwrap().1).collect();
    assert!(
        mine.contains(&"nested_depth=2&sort_dir=asc&limit=100&marker=e5248"),
        "{mine:?}"
    );
}

#[tokio::test]
async fn unpaged_dialect_reads_the_complete_list() {
    let heat = Heat::default();
    heat.add(0..300);
    let recorder = heat.start(false).await;
    let mut settings = upstream("u", "heat", &recorder.url());
    settings.dialect = "rts".to_owned();
    let gateway = Gateway::with(vec![settings]).await;
    let mut stream = watch(&gateway, json!({"marker": "e99"})).await;
    let (mut ids, _) = next(&mut stream, 200).await;
    heat.add(300..310);
    ids.extend(next(&mut stream, 10).await.0);
    // Events of the same second keep the order of the list.
    assert_eq!(ids, numbers(100..310));
}

#[tokio::test]
async fn invalid_watch_fails_before_the_stream() {
    let heat = Heat::default();
    let recorder = heat.start(true).await;
    let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
    for (request, code) in [
        (
            json!({"stack_name": "other", "stack_id": STACK}),
            tonic::Code::NotFound,
        ),
        (
            json!({"stack_name": "web", "stack_id": STACK, "marker": "e1", "from_now": true}),
            tonic::Code::InvalidArgument,
        ),
    ] {
        let status = gateway
            .client
            .watch(EVENTS, request, &[])
            .await
            .err()
            .unwrap();
        assert_eq!(status.code(), code, "{status:?}");
    }
    // A stack without events can be watched.
    let mut stream = watch(&gateway, json!({})).await;
    let first = to_json(&stream.next().await.unwrap().unwrap());
    assert_eq!(first["event"]["type"], "WATCH_EVENT_TYPE_BOOKMARK");
    heat.add(0..1);
    assert_eq!(next(&mut stream, 1).await.0, [0]);
}

/// A JP1/AO with one task, its state and its log, which it returns in complete lines.
#[derive(Clone)]
pub struct Ao(Arc<Mutex<(&'static str, String)>>);

impl Ao {
    pub fn new(status: &'static str, log: &str) -> Self {
        Self(Arc::new(Mutex::new((status, log.to_owned()))))
    }

    fn answer(&self, seen: &Seen) -> Answer {
        let (status, log) = self.0.lock().unwrap().clone();
        let (path, query) = seen.target.split_once('?').unwrap_or((&seen.target, ""));
        if path.ends_with("/objects/Tasks/7") {
            return Answer::json(
                200,
                &json!({"instanceID": 7, "name": "t", "status": status}),
            );
        }
        if path.ends_with("/objects/FlowSteps") {
            return Answer::json(200, &json!({"data": [], "count": 0}));
        }
        if !path.ends_with("/objects/TaskLogs") {
            return Answer::json(404, &json!({"messageID": "KNAE1-E", "message": "no such"}));
        }
        let get = |name: &str| -> usize {
            let mut pairs = url::form_urlencoded::parse(query.as_bytes());
            let (_, value) = pairs.find(|(key, _)| key == name).unwrap();
            value.parse().unwrap()
        };
        assert_eq!(get("taskID"), 7);
        let (offset, size) = (get("offset"), get("readSize"));
        let rest = log.get(offset..).unwrap_or_default();
        let mut end = 0;
        for line in rest.split_inclusive('\n') {
            if !line.ends_with('\n') || end + line.len() > size {
                break;
            }
            end += line.len();
        }
        Answer::json(200, &json!({"data": [{"text": rest[..end]}], "count": 1}))
    }

    pub async fn start(&self) -> Recorder {
        let ao = self.clone();
        Recorder::start(move |seen| ao.answer(seen)).await
    }
}

/// A full log drops its oldest lines: the watch continues behind the last line that it sent,
/// and sends a GAP where lines are lost.
#[tokio::test]
async fn truncated_task_log_has_a_gap() {
    const LOG: &str = "TaskService/WatchTaskLog";
    let ao = Ao::new("inProgress", "one\ntwo\nthree\n");
    let recorder = ao.start().await;
    let gateway = Gateway::with(vec![upstream("u", "jp1ao", &recorder.url())]).await;
    let client = &gateway.client;
    let mut stream = client.watch(LOG, json!({"task_id": 7}), &[]).await.unwrap();
    // Lines, `GAP` for lost lines, and the outcome at the end.
    let told = async |stream: &mut Watch, count: usize| {
        let mut told = Vec::new();
        while told.len() < count {
            let Some(message) = stream.next().await else {
                break;
            };
            let message = to_json(&message.unwrap());
            let event = &message["event"];
            if let Some(text) = message["line"]["text"].as_str() {
                told.push(text.to_owned());
            } else if event["type"] == "WATCH_EVENT_TYPE_GAP" {
                told.push("GAP".to_owned());
            } else if let Some(outcome) = event["outcome"].as_str() {
                told.push(outcome.to_owned());
            }
        }
        told
    };
    let becomes = |status: &'static str, log: &str| {
        let mut state = ao.0.lock().unwrap();
        state.0 = status;
        state.1 = log.to_owned();
    };
    assert_eq!(told(&mut stream, 3).await, ["one", "two", "three"]);
    becomes("inProgress", "three\nfour\n");
    assert_eq!(told(&mut stream, 1).await, ["four"]);
    becomes("completed", "six\n");
    assert_eq!(
        told(&mut stream, 9).await,
        ["GAP", "six", "OUTCOME_SUCCEEDED"]
    );
    // Resumed from a marker that is still in the log.
    let request = json!({"task_id": 7, "offset": 500});
    let mut stream = client.watch(LOG, request, &[]).await.unwrap();
    assert_eq!(
        told(&mut stream, 9).await,
        ["GAP", "six", "OUTCOME_SUCCEEDED"]
    );
}

#[tokio::test]
async fn task_log_is_sent_line_by_line_until_final() {
    const LOG: &str = "TaskService/WatchTaskLog";
    // One line is longer than the first read.
    let long = "x".repeat(100_000);
    let ao = Ao::new("inProgress", &format!("one\n日本\n{long}\nhalf a "));
    let recorder = ao.start().await;
    let gateway = Gateway::with(vec![upstream("u", "jp1ao", &recorder.url())]).await;
    let client = &gateway.client;
    let mut stream = client.watch(LOG, json!({"task_id": 7}), &[]).await.unwrap();
    let mut lines = Vec::new();
    let mut told = async |stream: &mut Watch, until: usize| {
        while lines.len() < until {
            let message = to_json(&stream.next().await.unwrap().unwrap());
            if let Some(text) = message["line"]["text"].as_str() {
                lines.push(text.to_owned());
            }
        }
        lines.clone()
    };
    assert_eq!(told(&mut stream, 3).await, ["one", "日本", &long]);
    // The stream breaks, and is resumed behind the last line.
    drop(stream);
    let offset = 4 + 7 + 100_001;
    ao.0.lock().unwrap().1.push_str("line\n");
    let request = json!({"task_id": 7, "offset": offset});
    let mut stream = client.watch(LOG, request, &[]).await.unwrap();
    assert_eq!(told(&mut stream, 4).await[3], "half a line");
    {
        let mut state = ao.0.lock().unwrap();
        state.0 = "completed";
        state.1.push_str("last\n");
    }
    assert_eq!(told(&mut stream, 5).await[4], "last");
    let mut end = Value::Null;
    while let Some(message) = stream.next().await {
        end = to_json(&message.unwrap());
        assert!(end["line"].is_null(), "{end}");
    }
    assert_eq!(end["event"]["outcome"], "OUTCOME_SUCCEEDED");
    let status = client.watch(LOG, json!({"task_id": 8}), &[]).await.err();
    assert_eq!(status.unwrap().code(), tonic::Code::NotFound);
}
