//! Watches of tasks.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{Ao, start, submitting};
use crate::support::client::json as to_json;
use crate::support::recorder::Answer;

/// A submission is sent once; its result and then its task are streamed.
#[tokio::test]
async fn submission_is_sent_once_and_watched() {
    let ao = Ao::new().await;
    for (affected, listed) in [
        (
            json!(["http://inside.example/Automation/v1/objects/Tasks/77"]),
            false,
        ),
        (
            json!("http://inside.example/Automation/v1/objects/Schedules/9"),
            true,
        ),
    ] {
        let ok = submitting(false);
        let (recorder, gateway) = ao.answers(move |seen| match (&*seen.method, seen.path()) {
            ("POST", _) => Answer::json(
                200,
                &json!({"state": "success", "affectedResource": affected}),
            ),
            (_, path) if path.ends_with("/Tasks/77") => {
                Answer::json(200, &json!({"instanceID": 77, "status": "Completed"}))
            }
            (_, path) if path.ends_with("/Tasks") => Answer::json(
                200,
                &json!({"data": [{"instanceID": 77, "scheduleID": 9}], "count": 1}),
            ),
            _ => ok(seen),
        });
        let request = json!({"id": 41, "properties": {"host": "a"}});
        let mut watch = gateway
            .client
            .watch("TaskService/SubmitServiceAndWatch", request, &[])
            .await
            .unwrap();
        let first = watch.event().await;
        assert_eq!(
            first["started"]["action_result"]["state"], "ACTION_STATE_SUCCESS",
            "{first}"
        );
        let event = watch.event().await;
        assert_eq!(event["task"]["instance_id"], 77, "{event}");
        assert_eq!(event["event"]["outcome"], "OUTCOME_SUCCEEDED", "{event}");
        assert!(watch.next().await.is_none());
        let seen = recorder.seen();
        assert_eq!(seen.iter().filter(|s| s.method == "POST").count(), 1);
        let lists = seen
            .iter()
            .filter(|s| s.target.contains("/Tasks?scheduleID=9"));
        assert_eq!(lists.count() > 0, listed);
    }
}

/// A waiting task has its prompt; an archived one ends with its history.
#[tokio::test]
async fn archived_task_ends_with_its_history() {
    let reads = std::sync::atomic::AtomicU32::new(0);
    let (recorder, gateway) = start(move |seen| match seen.path() {
        path if path.ends_with("/Tasks/7") => {
            match reads.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
                0 => Answer::json(200, &json!({"instanceID": 7, "status": "waitingResponse"})),
                _ => Answer::json(404, &json!({"messageID": "KNAE02102-E", "message": "no"})),
            }
        }
        path if path.ends_with("/actions/response") => Answer::json(
            200,
            &json!({"name": "response", "parameters": [{"labelbutton1": "Go"}]}),
        ),
        path if path.ends_with("/FlowSteps") => Answer::json(
            200,
            &json!({"data": [{"name": "copy", "status": "Completed"}], "count": 1}),
        ),
        // The history is on the second page.
        _ if seen.pairs().iter().any(|(name, _)| name == "page") => Answer::json(
            200,
            &json!({"data": [{"instanceID": 3, "taskID": 7, "status": "failed"}],
                    "pagination": {"numPages": 2}}),
        ),
        _ => Answer::json(200, &json!({"data": [], "pagination": {"numPages": 2}})),
    })
    .await;
    let request = json!({"id": 7, "steps": true});
    let mut watch = gateway
        .client
        .watch("TaskService/WatchTask", request, &[])
        .await
        .unwrap();
    let first = watch.event().await;
    assert_eq!(
        first["task"]["status"], "TASK_STATUS_WAITING_FOR_INPUT",
        "{first}"
    );
    assert_eq!(
        first["respond_action"]["parameters"][0]["labelbutton1"], "Go",
        "{first}"
    );
    assert_eq!(first["steps"][0]["name"], "copy", "{first}");
    let last = watch.event().await;
    assert_eq!(last["event"]["type"], "WATCH_EVENT_TYPE_DELETED", "{last}");
    assert_eq!(last["history"]["status"], "TASK_STATUS_FAILED", "{last}");
    assert!(watch.next().await.is_none());
    let seen = recorder.seen();
    let history = seen
        .iter()
        .find(|s| s.path().ends_with("/TaskHistories"))
        .unwrap();
    assert_eq!(
        history.pairs()[0],
        ("HQL::filter".to_owned(), "(taskID eq 7)".to_owned())
    );
}

/// Steps on further pages are in the watch's events, too.
#[tokio::test]
async fn all_pages_of_steps_are_sent() {
    let (recorder, gateway) = start(move |seen| {
        if seen.path().ends_with("/Tasks/7") {
            return Answer::json(200, &json!({"instanceID": 7, "status": "completed"}));
        }
        // A page without items is not the end of a list that has more pages.
        let (from, to) = match seen.pairs().iter().find(|(name, _)| name == "page") {
            None => (1, 100),
            Some((_, page)) if page == "2" => (1, 0),
            Some(_) => (101, 130),
        };
        let data: Vec<_> = (from..=to)
            .map(|id| json!({"instanceID": id, "status": "Completed"}))
            .collect();
        let body = json!({"data": data, "count": 130, "pagination": {"numPages": 3}});
        Answer::json(200, &body)
    })
    .await;
    let request = json!({"id": 7, "steps": true});
    let mut watch = gateway
        .client
        .watch("TaskService/WatchTask", request, &[])
        .await
        .unwrap();
    let event = watch.event().await;
    let steps = event["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 130);
    assert_eq!(steps[129]["instance_id"], 130);
    assert!(watch.next().await.is_none());
    let queries: Vec<_> = recorder
        .seen()
        .iter()
        .map(|seen| seen.query().to_owned())
        .collect();
    let steps = ["taskID=7", "taskID=7&page=2", "taskID=7&page=3"];
    assert_eq!(queries, [&[""], &steps[..]].concat());
}

/// An unknown status is final where two polls in a row find the same completion time.
/// docs/apis/jp1ao.md, "Watching a task".
#[tokio::test]
async fn unknown_status_is_final_with_a_stable_completion_time() {
    const OVER: &str = "2026-01-02T03:04:05.678+09:00";
    const LATER: &str = "2026-01-02T03:04:06.000+09:00";
    const NONE: &str = "";
    // Status and completion time of each read, then the outcome of each event.
    type Case = (
        &'static [(&'static str, &'static str)],
        &'static [&'static str],
    );
    const CASES: &[Case] = &[
        (&[("完了", OVER), ("完了", OVER)], &["", "FAILED"]),
        (
            &[("paused", OVER), ("paused", LATER), ("paused", LATER)],
            &["", "", "FAILED"],
        ),
        (
            &[("paused", OVER), ("halted", OVER), ("halted", OVER)],
            &["", "", "FAILED"],
        ),
        (
            &[("paused", OVER), ("inProgress", NONE), ("completed", OVER)],
            &["", "", "SUCCEEDED"],
        ),
        // Without a time it is not final: here until a known status follows.
        (
            &[
                ("paused", NONE),
                ("paused", NONE),
                ("paused", NONE),
                ("failed", NONE),
            ],
            &["", "FAILED"],
        ),
        // A known status is not final by its time.
        (
            &[
                ("inProgress", OVER),
                ("inProgress", OVER),
                ("completed", OVER),
            ],
            &["", "SUCCEEDED"],
        ),
    ];
    let reads: Arc<Mutex<[usize; CASES.len()]>> = Arc::default();
    let counted = Arc::clone(&reads);
    let (_recorder, gateway) = start(move |seen| {
        let Some(case) = seen.path().strip_prefix("/Automation/v1/objects/Tasks/") else {
            return Answer::json(200, &json!({"data": [], "count": 0}));
        };
        let case: usize = case.parse().unwrap();
        let (polls, _) = CASES[case - 1];
        let mut reads = counted.lock().unwrap();
        let at = reads[case - 1].min(polls.len() - 1);
        reads[case - 1] += 1;
        let (status, completion) = polls[at];
        let completion = if completion.is_empty() {
            Value::Null
        } else {
            json!(completion)
        };
        Answer::json(
            200,
            &json!({"instanceID": case, "status": status, "completionTime": completion}),
        )
    })
    .await;
    let mut watches = tokio::task::JoinSet::new();
    for (case, (polls, want)) in CASES.iter().enumerate() {
        let client = gateway.client.clone();
        let reads = Arc::clone(&reads);
        watches.spawn(async move {
            let request = json!({"id": case + 1});
            let watch = client.watch("TaskService/WatchTask", request, &[]).await;
            let (mut watch, mut outcomes) = (watch.unwrap(), Vec::new());
            while let Some(message) = watch.next().await {
                let message = to_json(&message.unwrap());
                assert!(message["task"]["status_raw"].is_string(), "{message}");
                let outcome = message["event"]["outcome"].as_str().unwrap_or_default();
                outcomes.push(outcome.replace("OUTCOME_", ""));
            }
            assert_eq!(outcomes, *want, "{polls:?}");
            assert_eq!(reads.lock().unwrap()[case], polls.len(), "{polls:?}");
        });
    }
    watches.join_all().await;
}
