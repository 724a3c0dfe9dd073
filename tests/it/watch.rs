//! Watches, end to end: shared polls, separate credentials, the end of streams.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tonic::Code;

use crate::support::client::{Watch, json as to_json};
use crate::support::recorder::{Answer, Recorder, Seen};
use crate::support::{Gateway, settings, upstream};

const ONE: &str = "SoftwareDeploymentService/WatchSoftwareDeployment";
const ALL: &str = "SoftwareDeploymentService/WatchSoftwareDeployments";

/// Deployments of an upstream with two routes.
#[derive(Clone, Default)]
struct Heat(Arc<Mutex<Vec<Value>>>, Arc<AtomicUsize>);

impl Heat {
    fn set(&self, deployments: Value) {
        *self.0.lock().unwrap() = deployments.as_array().unwrap().clone();
    }

    fn answer(&self, seen: &Seen) -> Answer {
        let all = self.0.lock().unwrap();
        let Some(id) = seen.path().strip_prefix("/v1/p1/software_deployments") else {
            return Answer::json(300, &json!({}));
        };
        self.1.fetch_add(1, Ordering::SeqCst);
        match id.strip_prefix('/') {
            None => Answer::json(200, &json!({ "software_deployments": *all })),
            Some(id) => match all.iter().find(|d| d["id"] == id) {
                Some(found) => Answer::json(200, &json!({ "software_deployment": found })),
                None => Answer::json(
                    404,
                    &json!({"code": 404, "title": "Not Found", "explanation": "x",
                        "error": {"type": "NotFound", "message": "gone", "traceback": null}}),
                ),
            },
        }
    }

    async fn start(&self) -> Recorder {
        let heat = self.clone();
        Recorder::start(move |seen| heat.answer(seen)).await
    }
}

fn deployment(id: &str, status: &str) -> Value {
    json!({"id": id, "server_id": "s", "config_id": "c", "status": status,
        "creation_time": "2026-01-01T00:00:00Z"})
}

/// A poll that gets HTTP 200 with an error says nothing about the deployments: none is
/// reported as deleted.
#[tokio::test]
async fn error_body_between_two_polls_deletes_nothing() {
    let polls = AtomicUsize::new(0);
    let recorder = Recorder::start(move |seen| {
        if seen.path() != "/v1/p1/software_deployments" {
            return Answer::json(
                200,
                &json!({"software_deployment": deployment("d", "COMPLETE")}),
            );
        }
        let known = deployment("d", "COMPLETE");
        match polls.fetch_add(1, Ordering::SeqCst) {
            0 => Answer::json(200, &json!({"software_deployments": [known]})),
            1 => Answer::json(200, &json!({"error": {"message": "maintenance"}})),
            _ => Answer::json(
                200,
                &json!({"software_deployments": [known, deployment("e", "COMPLETE")]}),
            ),
        }
    })
    .await;
    let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
    let mut watch = gateway.client.watch(ALL, json!({}), &[]).await.unwrap();
    let mut seen = Vec::new();
    loop {
        let event = to_json(&watch.next().await.unwrap().unwrap());
        let kind = event["event"]["type"].as_str().unwrap().to_owned();
        let is_unconfirmed = !event["event"]["unconfirmed_since"].is_null();
        let id = event["software_deployment"]["id"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let is_last = id == "e";
        seen.push((kind, id, is_unconfirmed));
        if is_last {
            break;
        }
    }
    let changes: Vec<_> = seen
        .iter()
        .map(|(kind, id, _)| (kind.trim_start_matches("WATCH_EVENT_TYPE_"), &**id))
        .filter(|(kind, _)| *kind != "BOOKMARK")
        .collect();
    assert_eq!(changes, [("INITIAL", "d"), ("ADDED", "e")], "{seen:?}");
    assert!(
        seen.iter().any(|(_, _, is_unconfirmed)| *is_unconfirmed),
        "{seen:?}"
    );
}

async fn end(watch: &mut Watch) -> Option<tonic::Status> {
    loop {
        match watch.next().await {
            None => return None,
            Some(Err(status)) => return Some(status),
            Some(Ok(_)) => {}
        }
    }
}

#[tokio::test]
async fn deployment_is_watched_until_final() {
    let heat = Heat::default();
    heat.set(json!([deployment("d", "IN_PROGRESS")]));
    let recorder = heat.start().await;
    let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
    let mut watch = gateway
        .client
        .watch(ONE, json!({"deployment_id": "d"}), &[])
        .await
        .unwrap();
    let first = watch.event().await;
    assert_eq!(first["event"]["type"], "WATCH_EVENT_TYPE_INITIAL");
    assert_eq!(
        first["software_deployment"]["status"],
        "DEPLOYMENT_STATUS_IN_PROGRESS"
    );
    let mut done = deployment("d", "COMPLETE");
    done["output_values"] = json!({"deploy_status_code": 0, "result": "ok"});
    heat.set(json!([done]));
    let last = watch.event().await;
    assert_eq!(last["event"]["type"], "WATCH_EVENT_TYPE_MODIFIED");
    assert_eq!(last["event"]["outcome"], "OUTCOME_SUCCEEDED");
    assert_eq!(last["software_deployment"]["output_values"]["result"], "ok");
    assert!(end(&mut watch).await.is_none(), "the good end is OK");

    // An unknown name is an error of the rpc.
    let status = gateway
        .client
        .watch(ONE, json!({"deployment_id": "x"}), &[])
        .await
        .err()
        .unwrap();
    assert_eq!(status.code(), Code::NotFound, "{status:?}");

    // A final one ends at once, except with `follow`.
    let mut watch = gateway
        .client
        .watch(ONE, json!({"deployment_id": "d"}), &[])
        .await
        .unwrap();
    assert_eq!(watch.event().await["event"]["outcome"], "OUTCOME_SUCCEEDED");
    assert!(end(&mut watch).await.is_none());
    let mut watch = gateway
        .client
        .watch(ONE, json!({"deployment_id": "d", "follow": true}), &[])
        .await
        .unwrap();
    assert_eq!(watch.event().await["event"]["outcome"], "OUTCOME_SUCCEEDED");
    heat.set(json!([deployment("d", "IN_PROGRESS")]));
    assert_eq!(
        watch.event().await["software_deployment"]["status"],
        "DEPLOYMENT_STATUS_IN_PROGRESS"
    );
    heat.set(json!([]));
    let status = end(&mut watch).await.unwrap();
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
}

#[tokio::test]
async fn deployments_of_a_server_are_watched() {
    let heat = Heat::default();
    heat.set(json!([
        deployment("a", "COMPLETE"),
        deployment("b", "IN_PROGRESS")
    ]));
    let recorder = heat.start().await;
    let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
    let mut watch = gateway
        .client
        .watch(ALL, json!({"server_id": "s"}), &[])
        .await
        .unwrap();
    let mut present = Vec::new();
    loop {
        let event = crate::support::client::json(&watch.next().await.unwrap().unwrap());
        match event["event"]["type"].as_str().unwrap() {
            "WATCH_EVENT_TYPE_INITIAL" => {
                present.push(
                    event["software_deployment"]["id"]
                        .as_str()
                        .unwrap()
                        .to_owned(),
                );
            }
            "WATCH_EVENT_TYPE_BOOKMARK" => break,
            other => panic!("{other}"),
        }
    }
    assert_eq!(present, ["a", "b"]);
    assert!(
        recorder
            .seen()
            .iter()
            .any(|s| s.target.ends_with("?server_id=s"))
    );
    // The one in progress is also read by id: Heat refreshes it only then.
    assert!(recorder.seen().iter().any(|s| s.path().ends_with("/b")));
    assert!(!recorder.seen().iter().any(|s| s.path().ends_with("/a")));

    heat.set(json!([
        deployment("a", "COMPLETE"),
        deployment("b", "FAILED"),
        deployment("c", "COMPLETE")
    ]));
    let mut told = [watch.event().await, watch.event().await];
    told.sort_by_key(|e| e["software_deployment"]["id"].to_string());
    assert_eq!(told[0]["event"]["type"], "WATCH_EVENT_TYPE_MODIFIED");
    assert_eq!(
        told[0]["software_deployment"]["status"],
        "DEPLOYMENT_STATUS_FAILED"
    );
    assert_eq!(told[1]["event"]["type"], "WATCH_EVENT_TYPE_ADDED");
    heat.set(json!([
        deployment("b", "FAILED"),
        deployment("c", "COMPLETE")
    ]));
    let told = watch.event().await;
    assert_eq!(told["event"]["type"], "WATCH_EVENT_TYPE_DELETED");
    assert_eq!(told["software_deployment"]["id"], "a");
}

#[tokio::test]
async fn thousand_watches_share_one_poll_loop() {
    let heat = Heat::default();
    heat.set(json!([deployment("d", "IN_PROGRESS")]));
    let recorder = heat.start().await;
    let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
    let mut watches = Vec::new();
    for _ in 0..1000 {
        let mut watch = gateway
            .client
            .watch(ONE, json!({"deployment_id": "d"}), &[])
            .await
            .unwrap();
        watch.event().await;
        watches.push(watch);
    }
    let before = heat.1.load(Ordering::SeqCst);
    let metrics = metrics(&gateway).await;
    let after = heat.1.load(Ordering::SeqCst);
    assert_eq!(metric(&metrics, "drawbridge_open_streams"), 1000);
    assert_eq!(metric(&metrics, "drawbridge_watch_poll_loops"), 1);
    // Each read of the upstream is a poll of the one loop; another one may have begun.
    let polls = metric(&metrics, "drawbridge_watch_polls_total") as usize;
    assert!(
        (before..=after + 1).contains(&polls),
        "{before} {polls} {after}"
    );
    heat.set(json!([deployment("d", "COMPLETE")]));
    for watch in &mut watches {
        assert_eq!(watch.event().await["event"]["outcome"], "OUTCOME_SUCCEEDED");
        assert!(end(watch).await.is_none());
    }
    drop(watches);
    gone(&gateway).await;
}

/// Waits until all poll loops have ended.
async fn gone(gateway: &Gateway) {
    loop {
        let metrics = metrics(gateway).await;
        if metric(&metrics, "drawbridge_open_streams") == 0
            && metric(&metrics, "drawbridge_watch_poll_loops") == 0
        {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn clients_with_different_tokens_share_no_watch() {
    let heat = Heat::default();
    heat.set(json!([deployment("d", "IN_PROGRESS")]));
    let recorder = heat.start().await;
    let mut settings = upstream("u", "heat", &recorder.url());
    settings.auth = drawbridge::credentials::Settings::Passthrough;
    let gateway = Gateway::with(vec![settings]).await;
    let mut watches = Vec::new();
    for token in ["t1", "t2", "t1"] {
        let mut watch = gateway
            .client
            .watch(
                ONE,
                json!({"deployment_id": "d"}),
                &[("x-auth-token", token)],
            )
            .await
            .unwrap();
        watch.event().await;
        watches.push(watch);
    }
    assert_eq!(
        metric(&metrics(&gateway).await, "drawbridge_watch_poll_loops"),
        2
    );
    let tokens: Vec<_> = recorder
        .seen()
        .iter()
        .filter(|s| s.target != "/")
        .map(|s| s.header("x-auth-token").to_owned())
        .collect();
    assert!(tokens.contains(&"t1".to_owned()) && tokens.contains(&"t2".to_owned()));
    drop(watches);
    gone(&gateway).await;
}

#[tokio::test]
async fn drain_ends_watches() {
    let heat = Heat::default();
    heat.set(json!([deployment("d", "IN_PROGRESS")]));
    let recorder = heat.start().await;
    let gateway = Gateway::start(settings(vec![upstream("u", "heat", &recorder.url())])).await;
    let mut watch = gateway
        .client
        .watch(ONE, json!({"deployment_id": "d"}), &[])
        .await
        .unwrap();
    watch.event().await;
    let (stopped, status) = tokio::join!(gateway.running.stop(), end(&mut watch));
    stopped.unwrap();
    let status = status.unwrap();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    let details = tonic_types::StatusExt::get_error_details(&status);
    assert!(details.retry_info().is_some());
}

#[tokio::test]
async fn job_is_watched_until_final() {
    let polls = AtomicUsize::new(0);
    let recorder = Recorder::start(move |seen| {
        if !seen.path().contains("/jobs/") {
            return Answer::json(200, &json!({}));
        }
        let status = ["SUBMITTED", "RUNNING", "SUCCEEDED"]
            [polls.fetch_add(1, Ordering::SeqCst).min(2)];
        Answer::json(200, &json!({"task_count": 0, "job": {"job_id": "J", "execution_status": status}, "tasks": null}))
    })
    .await;
    let gateway = Gateway::with(vec![upstream("u", "servicestage", &recorder.url())]).await;
    let mut watch = gateway
        .client
        .watch("JobService/WatchJob", json!({"job_id": "J"}), &[])
        .await
        .unwrap();
    let mut states = Vec::new();
    while let Some(event) = watch.next().await {
        let event = crate::support::client::json(&event.unwrap());
        states.push(find(&event, "execution_status_raw"));
    }
    assert_eq!(states, ["SUBMITTED", "RUNNING", "SUCCEEDED"]);
}

/// Finds the first member of this name at any depth.
fn find(value: &Value, name: &str) -> String {
    match value {
        Value::Object(members) => members
            .iter()
            .map(|(k, v)| {
                if k == name {
                    v.as_str().unwrap().to_owned()
                } else {
                    find(v, name)
                }
            })
            .find(|found| !found.is_empty())
            .unwrap_or_default(),
        _ => String::new(),
    }
}

pub async fn metrics(gateway: &Gateway) -> String {
    let url = format!("http://{}/metrics", gateway.running.admin.unwrap());
    crate::support::http_get(&url).await.1
}

pub fn metric(text: &str, name: &str) -> i64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .unwrap_or_else(|| panic!("no {name} in\n{text}"))
        .parse()
        .unwrap()
}
