//! Watches of stacks, their resources and their events, end to end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::sync::Notify;
use tonic::Code;

use crate::support::client::Watch;
use crate::support::recorder::{Answer, Recorder, Seen};
use crate::support::{Gateway, upstream};
use crate::watch::{metric, metrics};

const STACK: &str = "StackService/WatchStack";
const RESOURCES: &str = "StackResourceService/WatchStackResources";
const EVENTS: &str = "StackEventService/WatchStackEvents";

/// Stacks by id, each with its resources.
#[derive(Clone, Default)]
struct Heat(Arc<Mutex<BTreeMap<String, (Value, Value)>>>);

impl Heat {
    fn has(&self, id: &str, stack: Value, resources: Value) {
        self.0.lock().unwrap().insert(id.into(), (stack, resources));
    }

    fn is(&self, id: &str, status: &str) {
        self.has(id, stack(id, status), json!([]));
    }

    fn loses(&self, id: &str) {
        self.0.lock().unwrap().remove(id);
    }

    /// `/v1/p1/stacks/{name}/{id}` and `.../resources`.
    fn answer(&self, seen: &Seen) -> Answer {
        let Some(rest) = seen.path().strip_prefix("/v1/p1/stacks/") else {
            return Answer::json(300, &json!({}));
        };
        let mut parts = rest.split('/').skip(1);
        let (id, below) = (parts.next().unwrap_or_default(), parts.next());
        let all = self.0.lock().unwrap();
        let Some((stack, resources)) = all.get(id) else {
            let error = json!({"type": "EntityNotFound", "message": "gone", "traceback": null});
            let body =
                json!({"code": 404, "title": "Not Found", "explanation": "x", "error": error});
            return Answer::json(404, &body);
        };
        if below.is_some() {
            return Answer::json(200, &json!({ "resources": resources }));
        }
        let mut stack = stack.clone();
        if seen.query().contains("resolve_outputs=false") {
            stack.as_object_mut().unwrap().remove("outputs");
        }
        Answer::json(200, &json!({ "stack": stack }))
    }

    async fn start(&self) -> Recorder {
        let heat = self.clone();
        Recorder::start(move |seen| heat.answer(seen)).await
    }
}

fn stack(id: &str, status: &str) -> Value {
    json!({"id": id, "stack_name": "s", "stack_status": status,
        "stack_status_reason": status, "disable_rollback": false,
        "parameters": {"a": "1", "b": "2"}, "creation_time": "2026-01-01T00:00:00Z",
        "outputs": [{"output_key": "ip", "output_value": "10.0.0.1", "description": "x"}]})
}

fn resource(name: &str, stack: &str, status: &str) -> Value {
    json!({"resource_name": name, "logical_resource_id": name, "resource_status": status,
        "resource_type": "OS::Heat::TestResource", "physical_resource_id": "",
        "links": [{"href": format!("http://h/stacks/{stack}/resources/{name}"), "rel": "self"}]})
}

fn one(id: &str) -> Value {
    json!({"stack_name": "s", "stack_id": id})
}

/// Reads the next event: type, outcome, status, and the number of resources by status.
async fn next_event(watch: &mut Watch) -> (String, String, String, Value) {
    let event = watch.event().await;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (
        text(&event["event"]["type"]).replace("WATCH_EVENT_TYPE_", ""),
        text(&event["event"]["outcome"]).replace("OUTCOME_", ""),
        text(&event["stack"]["stack_status"]).replace("STACK_STATUS_", ""),
        event.get("progress").cloned().unwrap_or(json!({})),
    )
}

fn tells(
    kind: &str,
    outcome: &str,
    status: &str,
    progress: Value,
) -> (String, String, String, Value) {
    (kind.into(), outcome.into(), status.into(), progress)
}

/// Returns how the stream ends: `None` for OK.
async fn end(watch: &mut Watch) -> Option<Code> {
    loop {
        match watch.next().await {
            None => return None,
            Some(Err(status)) => return Some(status.code()),
            Some(Ok(_)) => {}
        }
    }
}

#[tokio::test]
async fn stack_is_watched_until_final() {
    let heat = Heat::default();
    let resources = |first: &str| {
        json!([
            resource("a", "t", first),
            resource("b", "t", "INIT_COMPLETE")
        ])
    };
    heat.has(
        "t",
        stack("t", "CREATE_IN_PROGRESS"),
        resources("CREATE_IN_PROGRESS"),
    );
    let recorder = heat.start().await;
    let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
    let mut watch = gateway.client.watch(STACK, one("t"), &[]).await.unwrap();
    let first = watch.event().await;
    assert_eq!(first["event"]["type"], "WATCH_EVENT_TYPE_INITIAL");
    assert_eq!(
        first["progress"],
        json!({"CREATE_IN_PROGRESS": 1, "INIT_COMPLETE": 1})
    );
    assert!(first["stack"].get("outputs").is_none());

    // A change of a resource is a change; another order of members is not.
    heat.has(
        "t",
        stack("t", "CREATE_IN_PROGRESS"),
        resources("CREATE_COMPLETE"),
    );
    let progress = json!({"CREATE_COMPLETE": 1, "INIT_COMPLETE": 1});
    let changed = tells("MODIFIED", "", "CREATE_IN_PROGRESS", progress);
    assert_eq!(next_event(&mut watch).await, changed);

    heat.has(
        "t",
        stack("t", "CREATE_COMPLETE"),
        json!([resource("a", "t", "CREATE_COMPLETE")]),
    );
    let last = watch.event().await;
    assert_eq!(last["event"]["outcome"], "OUTCOME_SUCCEEDED");
    assert_eq!(last["stack"]["outputs"][0]["output_value"], "10.0.0.1");
    assert_eq!(last["progress"], json!({"CREATE_COMPLETE": 1}));
    assert_eq!(end(&mut watch).await, None);

    // Outputs are resolved once, in the final state.
    let full: Vec<_> = recorder
        .seen()
        .into_iter()
        .filter(|seen| seen.path().ends_with("/s/t") && seen.query().is_empty())
        .collect();
    assert_eq!(full.len(), 1);
    // An unknown name is an error of the rpc.
    let status = gateway
        .client
        .watch(STACK, one("x"), &[])
        .await
        .err()
        .unwrap();
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test]
async fn failure_before_a_rollback_is_not_final() {
    let heat = Heat::default();
    heat.is("t", "CREATE_IN_PROGRESS");
    let recorder = heat.start().await;
    let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
    let mut watch = gateway.client.watch(STACK, one("t"), &[]).await.unwrap();
    next_event(&mut watch).await;
    for (status, outcome) in [
        ("CREATE_FAILED", ""),
        ("ROLLBACK_IN_PROGRESS", ""),
        ("ROLLBACK_COMPLETE", "FAILED"),
    ] {
        heat.is("t", status);
        let changed = tells("MODIFIED", outcome, status, json!({}));
        assert_eq!(next_event(&mut watch).await, changed);
    }
    assert_eq!(end(&mut watch).await, None, "the failure is data");

    let mut failed = stack("t", "CREATE_FAILED");
    failed["disable_rollback"] = json!(true);
    heat.has("t", failed, json!([]));
    let mut watch = gateway.client.watch(STACK, one("t"), &[]).await.unwrap();
    let present = tells("INITIAL", "FAILED", "CREATE_FAILED", json!({}));
    assert_eq!(next_event(&mut watch).await, present);
    assert_eq!(end(&mut watch).await, None);
}

#[tokio::test]
async fn missing_stack_succeeds_only_after_a_deletion() {
    let heat = Heat::default();
    let recorder = heat.start().await;
    let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
    heat.is("t", "DELETE_IN_PROGRESS");
    let mut watch = gateway.client.watch(STACK, one("t"), &[]).await.unwrap();
    next_event(&mut watch).await;
    heat.loses("t");
    let removed = tells("DELETED", "SUCCEEDED", "DELETE_IN_PROGRESS", json!({}));
    assert_eq!(next_event(&mut watch).await, removed);
    assert_eq!(end(&mut watch).await, None);

    heat.is("t", "DELETE_IN_PROGRESS");
    let mut watch = gateway.client.watch(STACK, one("t"), &[]).await.unwrap();
    next_event(&mut watch).await;
    heat.is("t", "DELETE_COMPLETE");
    let changed = tells("MODIFIED", "SUCCEEDED", "DELETE_COMPLETE", json!({}));
    assert_eq!(next_event(&mut watch).await, changed);
    assert_eq!(end(&mut watch).await, None);

    heat.is("t", "UPDATE_IN_PROGRESS");
    let mut watch = gateway.client.watch(STACK, one("t"), &[]).await.unwrap();
    next_event(&mut watch).await;
    heat.loses("t");
    assert_eq!(end(&mut watch).await, Some(Code::NotFound));
}

#[tokio::test]
async fn two_thousand_watches_share_two_hundred_poll_loops() {
    let heat = Heat::default();
    let ids: Vec<String> = (0..200).map(|n| format!("t{n}")).collect();
    for id in &ids {
        heat.is(id, "CREATE_IN_PROGRESS");
    }
    let recorder = heat.start().await;
    let mut settings = upstream("u", "heat", &recorder.url());
    settings.auth = drawbridge::credentials::Settings::Passthrough;
    let gateway = Gateway::with(vec![settings]).await;
    // Five clients of each of two credentials per stack.
    let mut watches = Vec::new();
    for at in 0..2_000 {
        let token = ["t1", "t2"][at % 2];
        let id = &ids[at / 2 % ids.len()];
        let metadata = [("x-auth-token", token)];
        let watch = gateway.client.watch(STACK, one(id), &metadata).await;
        watches.push(watch.unwrap());
    }
    for watch in &mut watches {
        let present = tells("INITIAL", "", "CREATE_IN_PROGRESS", json!({}));
        assert_eq!(next_event(watch).await, present);
    }
    let text = metrics(&gateway).await;
    assert_eq!(metric(&text, "drawbridge_open_streams"), 2_000);
    assert_eq!(metric(&text, "drawbridge_watch_poll_loops"), 400);
    for id in &ids {
        heat.is(id, "CREATE_COMPLETE");
    }
    for watch in &mut watches {
        let changed = tells("MODIFIED", "SUCCEEDED", "CREATE_COMPLETE", json!({}));
        assert_eq!(next_event(watch).await, changed);
        assert_eq!(end(watch).await, None);
    }
    let text = metrics(&gateway).await;
    assert_eq!(metric(&text, "drawbridge_watch_poll_loops"), 0);
    let polls = metric(&text, "drawbridge_watch_polls_total") as usize;
    // Each poll is one light read and one of the resources; each loop reads all fields once.
    let seen = recorder.seen();
    let of = |wanted: &dyn Fn(&Seen) -> bool| seen.iter().filter(|seen| wanted(seen)).count();
    let stacks = |seen: &Seen| seen.path().starts_with("/v1/p1/stacks/s/t");
    assert_eq!(
        of(&|s| stacks(s) && s.query() == "resolve_outputs=false"),
        polls
    );
    assert_eq!(
        of(&|s| stacks(s) && s.path().ends_with("/resources")),
        polls
    );
    assert_eq!(of(&|s| stacks(s)), 2 * polls + 400);
    let eyes: BTreeSet<_> = seen
        .iter()
        .filter(|seen| stacks(seen))
        .map(|seen| {
            (
                seen.path().to_owned(),
                seen.header("x-auth-token").to_owned(),
            )
        })
        .collect();
    assert_eq!(
        eyes.len(),
        2 * 400,
        "a stack and its resources, by credential"
    );
}

#[tokio::test]
async fn resources_are_added_modified_and_deleted() {
    let heat = Heat::default();
    let set = |resources: Value| heat.has("t", stack("t", "UPDATE_IN_PROGRESS"), resources);
    // The same name in two nested stacks.
    let (a, b) = (
        resource("vm", "n1", "CREATE_COMPLETE"),
        resource("vm", "n2", "INIT_COMPLETE"),
    );
    set(json!([a, b]));
    let recorder = heat.start().await;
    let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
    let mut asked = one("t");
    asked["nested_depth"] = json!(2);
    let mut watch = gateway.client.watch(RESOURCES, asked, &[]).await.unwrap();
    let next = async |watch: &mut Watch| {
        let event = watch.event().await;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let kind = text(&event["event"]["type"]).replace("WATCH_EVENT_TYPE_", "");
        let resource = &event["resource"];
        let status = text(&resource["resource_status"]).replace("RESOURCE_STATUS_", "");
        format!("{kind} {} {status}", text(&resource["links"][0]["href"]))
    };
    let vm = |stack: &str| format!("http://h/stacks/{stack}/resources/vm");
    for (stack, status) in [("n1", "CREATE_COMPLETE"), ("n2", "INIT_COMPLETE")] {
        let present = format!("INITIAL {} {status}", vm(stack));
        assert_eq!(next(&mut watch).await, present);
    }
    // Another order is not a change, another link not another resource.
    let mut moved = resource("vm", "n2", "CREATE_IN_PROGRESS");
    let nested = json!({"href": "http://h/stacks/n3", "rel": "nested"});
    moved["links"].as_array_mut().unwrap().push(nested);
    set(json!([moved, a]));
    let changed = format!("MODIFIED {} CREATE_IN_PROGRESS", vm("n2"));
    assert_eq!(next(&mut watch).await, changed);
    set(json!([moved]));
    let removed = format!("DELETED {} CREATE_COMPLETE", vm("n1"));
    assert_eq!(next(&mut watch).await, removed);
    heat.loses("t");
    let removed = format!("DELETED {} CREATE_IN_PROGRESS", vm("n2"));
    assert_eq!(next(&mut watch).await, removed);
    assert_eq!(end(&mut watch).await, None);
    assert!(
        recorder
            .seen()
            .iter()
            .any(|seen| seen.query() == "nested_depth=2")
    );
}

/// A stack and its events, which the test adds; signals when the state is read.
#[derive(Clone, Default)]
struct Story(Arc<Mutex<(Value, Vec<Value>)>>, Arc<Notify>);

impl Story {
    /// Sets the state of the stack and the number of its events.
    fn is(&self, stack: Value, events: usize) {
        let events = (0..events).map(|n| {
            json!({"id": format!("e{n}"), "event_time": "2026-01-01T00:00:00Z",
                "resource_name": "s", "resource_status": "CREATE_IN_PROGRESS", "links": []})
        });
        *self.0.lock().unwrap() = (stack, events.collect());
    }

    async fn start(&self) -> (Recorder, Gateway) {
        let story = self.clone();
        let recorder = Recorder::start(move |seen| {
            let story = (story.0.lock().unwrap(), &story.1);
            let (stack, events) = &*story.0;
            match seen.path().trim_start_matches("/v1/p1/stacks/s/t") {
                "" => {
                    story.1.notify_one();
                    Answer::json(200, &json!({ "stack": stack }))
                }
                "/resources" => Answer::json(200, &json!({"resources": []})),
                _ => {
                    let pairs = seen.pairs();
                    let get = |name: &str| pairs.iter().find(|(n, _)| n == name);
                    let mut events = events.clone();
                    if get("sort_dir").is_none_or(|(_, way)| way != "asc") {
                        events.reverse();
                    }
                    if let Some((_, marker)) = get("marker")
                        && let Some(at) = events.iter().position(|e| e["id"] == **marker)
                    {
                        events.drain(..=at);
                    }
                    if let Some((_, limit)) = get("limit") {
                        events.truncate(limit.parse().unwrap());
                    }
                    Answer::json(200, &json!({ "events": events }))
                }
            }
        })
        .await;
        let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
        (recorder, gateway)
    }

    /// Waits until a poll has read the state and evaluated it: the loop polls again only
    /// then.
    async fn known(&self) {
        for _ in 0..3 {
            self.1.notified().await;
        }
    }
}

/// Reads a stream that must end with OK: the ids of events, and the outcome of the last
/// bookmark.
async fn rest(watch: &mut Watch) -> (Vec<String>, String) {
    let (mut ids, mut outcome) = (Vec::new(), String::new());
    while let Some(message) = watch.next().await {
        let message = crate::support::client::json(&message.unwrap());
        if let Some(id) = message["stack_event"]["id"].as_str() {
            ids.push(id.to_owned());
        }
        let told = message["event"]["outcome"].as_str().unwrap_or_default();
        outcome = told.replace("OUTCOME_", "");
    }
    (ids, outcome)
}

fn ids(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("e{n}")).collect()
}

#[tokio::test]
async fn events_are_watched_until_the_stack_is_final() {
    let story = Story::default();
    story.is(stack("t", "CREATE_IN_PROGRESS"), 2);
    let (_recorder, gateway) = story.start().await;
    let mut asked = one("t");
    asked["until_final"] = json!(true);
    let open = async || {
        let watch = gateway.client.watch(EVENTS, asked.clone(), &[]).await;
        watch.unwrap()
    };
    let mut watch = open().await;
    for id in ids(0..2) {
        assert_eq!(watch.event().await["stack_event"]["id"], *id);
    }
    // The stack has failed: a rollback follows, whose events must be sent.
    story.is(stack("t", "CREATE_FAILED"), 4);
    for id in ids(2..4) {
        assert_eq!(watch.event().await["stack_event"]["id"], *id);
    }
    story.known().await;
    story.is(stack("t", "ROLLBACK_IN_PROGRESS"), 5);
    assert_eq!(watch.event().await["stack_event"]["id"], "e4");
    story.is(stack("t", "ROLLBACK_COMPLETE"), 8);
    assert_eq!(rest(&mut watch).await, (ids(5..8), "FAILED".into()));

    // Final from the start: the existing events are sent, and the stream ends.
    assert_eq!(rest(&mut open().await).await, (ids(0..8), "FAILED".into()));
    // No rollback follows: the state is final.
    let mut failed = stack("t", "UPDATE_FAILED");
    failed["disable_rollback"] = json!(true);
    story.is(failed, 3);
    assert_eq!(rest(&mut open().await).await, (ids(0..3), "FAILED".into()));

    // A success whose last events arrive with the state; from now on, and from a marker.
    story.is(stack("t", "UPDATE_IN_PROGRESS"), 3);
    let mut new = asked.clone();
    new["from_now"] = json!(true);
    let mut new = gateway.client.watch(EVENTS, new, &[]).await.unwrap();
    let mut behind = asked.clone();
    behind["marker"] = json!("e1");
    let mut behind = gateway.client.watch(EVENTS, behind, &[]).await.unwrap();
    assert_eq!(behind.event().await["stack_event"]["id"], "e2");
    // The first bookmark: the end of the list is known.
    assert!(new.next().await.unwrap().is_ok());
    story.is(stack("t", "UPDATE_COMPLETE"), 6);
    for watch in [&mut new, &mut behind] {
        assert_eq!(rest(watch).await, (ids(3..6), "SUCCEEDED".into()));
    }
}
