//! `...AndWatch` calls and watches of jobs, components and add-ons.

use std::collections::VecDeque;
use std::sync::Mutex;

use serde_json::{Value, json};
use tonic::Status;

use super::{keys, rpc};
use crate::support::recorder::{Answer, Seen};
use crate::support::{Gateway, Recorder, client, upstream};

/// Responses by the end of the path, in order; the last one is repeated.
pub(super) struct Script(Mutex<Vec<(&'static str, &'static str, VecDeque<Answer>)>>);

impl Script {
    pub(super) fn new(parts: Vec<(&'static str, &'static str, Vec<Answer>)>) -> Self {
        let parts = parts.into_iter();
        Self(Mutex::new(
            parts
                .map(|(v, end, answers)| (v, end, answers.into()))
                .collect(),
        ))
    }

    pub(super) fn answer(&self, seen: &Seen) -> Answer {
        let mut parts = self.0.lock().unwrap();
        let part = parts
            .iter_mut()
            .find(|(verb, end, _)| *verb == seen.method && seen.target.ends_with(end));
        match part {
            Some((_, _, answers)) if answers.len() > 1 => answers.pop_front().unwrap(),
            Some((_, _, answers)) => answers[0].clone(),
            None => Answer::json(404, &json!({"error_code": "SVCSTG.00100408"})),
        }
    }
}

pub(super) fn ok(body: Value) -> Answer {
    Answer::json(200, &body)
}

pub(super) fn missing(status: u16, code: &str) -> Answer {
    Answer::json(
        status,
        &json!({"error_code": code, "error_message": "not found"}),
    )
}

pub(super) fn job(status: &str) -> Answer {
    ok(
        json!({"task_count": 1, "job": {"job_id": "JOB1", "execution_status": status},
              "tasks": [{"task_id": "TASK1", "task_status": status}]}),
    )
}

fn addon(status: &str, job: &str) -> Answer {
    ok(json!({"id": "d", "status": status, "job_id": job}))
}

fn component(status: &str) -> Answer {
    ok(json!({"name": "c", "status": {"component_status": status}}))
}

/// The events of a watch without bookmarks, how it ended, and the calls that were made.
struct Watched {
    events: Vec<Value>,
    end: Result<(), Status>,
    seen: Vec<Seen>,
}

impl Watched {
    fn types(&self) -> Vec<&str> {
        let text = |event: &Value| event["event"]["type"].as_str().unwrap().to_owned();
        self.events
            .iter()
            .map(|event| match text(event).as_str() {
                "WATCH_EVENT_TYPE_STARTED" => "started",
                "WATCH_EVENT_TYPE_INITIAL" => "present",
                "WATCH_EVENT_TYPE_MODIFIED" => "changed",
                "WATCH_EVENT_TYPE_DELETED" => "removed",
                _ => "other",
            })
            .collect()
    }

    fn last(&self) -> &Value {
        self.events.last().expect("an event")
    }

    fn outcome(&self) -> &str {
        self.last()["event"]["outcome"].as_str().unwrap_or("open")
    }

    fn calls(&self, verb: &str) -> usize {
        self.seen.iter().filter(|seen| seen.method == verb).count()
    }
}

async fn watch(
    name: &str,
    request: Value,
    script: Vec<(&'static str, &'static str, Vec<Answer>)>,
) -> Watched {
    let script = Script::new(script);
    let recorder = Recorder::start(move |seen| script.answer(seen)).await;
    let mut settings = upstream("u", "servicestage", &recorder.url());
    settings.auth = keys(false);
    let gateway = Gateway::with(vec![settings]).await;
    let rpc = rpc(&gateway.client, name);
    let mut stream = (gateway.client.watch(&rpc, request, &[]).await).expect("it begins");
    let mut events = Vec::new();
    let end = loop {
        match stream.next().await {
            None => break Ok(()),
            Some(Err(status)) => break Err(status),
            Some(Ok(message)) => events.push(client::json(&message)),
        }
    };
    events.retain(|event| event["event"]["type"] != "WATCH_EVENT_TYPE_BOOKMARK");
    let seen = recorder.seen();
    gateway.running.stop().await.unwrap();
    Watched { events, end, seen }
}

pub(super) fn redeploy() -> Value {
    json!({"environment_id": "e", "addon_id": "d", "action": "ADDON_ACTION_REDEPLOY"})
}

const SUCCEEDED: &str = "OUTCOME_SUCCEEDED";
const FAILED: &str = "OUTCOME_FAILED";

#[tokio::test]
async fn action_is_sent_once_and_its_job_watched() {
    let told = watch(
        "ExecuteAddonActionAndWatch",
        redeploy(),
        vec![
            (
                "POST",
                "/addons/d/action",
                vec![ok(json!({"job_id": "JOB1"}))],
            ),
            (
                "GET",
                "/jobs/JOB1",
                vec![
                    missing(400, "SVCSTG.00100429"),
                    job("RUNNING"),
                    job("SUCCEEDED"),
                ],
            ),
        ],
    )
    .await;
    told.end.as_ref().unwrap();
    assert_eq!(told.types(), ["started", "present", "changed"]);
    assert_eq!(told.events[0]["started"], json!({"job_id": "JOB1"}));
    assert_eq!(
        told.last()["snapshot"]["tasks"][0]["task_status_raw"],
        "SUCCEEDED"
    );
    assert_eq!((told.outcome(), told.calls("POST")), (SUCCEEDED, 1));
    assert_eq!(told.seen[0].json(), json!({"action": "redeploy"}));
}

#[tokio::test]
async fn unknown_job_falls_back_to_the_addon() {
    let no_job = || vec![missing(401, "SVCSTG.00100401")];
    let action = || {
        (
            "POST",
            "/addons/d/action",
            vec![ok(json!({"job_id": "JOB1"}))],
        )
    };
    let (well, replaced, deleted) = tokio::join!(
        watch(
            "ExecuteAddonActionAndWatch",
            redeploy(),
            vec![
                action(),
                ("GET", "/jobs/JOB1", no_job()),
                (
                    "GET",
                    "/addons/d",
                    vec![
                        addon("SUCCEEDED", "JOB0"),
                        addon("UPGRADING", "JOB1"),
                        addon("SUCCEEDED", "JOB1")
                    ]
                ),
            ],
        ),
        watch(
            "WatchJob",
            json!({"job_id": "JOB1", "environment_id": "e", "addon_id": "d"}),
            vec![
                ("GET", "/jobs/JOB1", no_job()),
                (
                    "GET",
                    "/addons/d",
                    vec![addon("UPGRADING", "JOB1"), addon("UPGRADING", "JOB2")]
                ),
            ],
        ),
        watch(
            "DeleteAddonAndWatch",
            json!({"environment_id": "e", "addon_id": "d"}),
            vec![
                ("DELETE", "/addons/d", vec![ok(json!({"job_id": "JOB1"}))]),
                ("GET", "/jobs/JOB1", no_job()),
                (
                    "GET",
                    "/addons/d",
                    vec![addon("DELETING", "JOB1"), missing(404, "SVCSTG.00100401")]
                ),
            ],
        ),
    );
    well.end.as_ref().unwrap();
    assert_eq!((well.outcome(), well.calls("POST")), (SUCCEEDED, 1));
    assert_eq!(well.last()["addon"]["job_id"], "JOB1");
    let status = replaced.end.as_ref().unwrap_err();
    assert_eq!(status.code(), tonic::Code::Aborted, "{status:?}");
    deleted.end.as_ref().unwrap();
    assert_eq!(deleted.types().last(), Some(&"removed"));
    assert_eq!(deleted.calls("DELETE"), 1);
}

#[tokio::test]
async fn job_ends_with_its_outcome() {
    let update = json!({"application_id": "a", "component_id": "c", "component": {
        "name": "c", "version": "1.0.0", "source": {"kind_raw": "image"},
        "runtime_stack": {"name": "Docker", "deploy_mode_raw": "container"}}});
    let (failed, lost, found, none) = tokio::join!(
        watch(
            "UpdateComponentAndWatch",
            update,
            vec![
                ("PUT", "/components/c", vec![ok(json!({"job_id": "JOB1"}))]),
                (
                    "GET",
                    "/jobs/JOB1",
                    vec![job("SUBMITTED"), job("ROLLBACKING"), job("ROLLBACKED")]
                ),
            ],
        ),
        watch(
            "WatchJob",
            json!({"job_id": "JOB1"}),
            vec![("GET", "/jobs/JOB1", vec![job("UNKNOWN")])],
        ),
        watch(
            "WatchJob",
            json!({"job_id": "JOB1"}),
            vec![(
                "GET",
                "/jobs/JOB1",
                vec![
                    job("UNKNOWN"),
                    job("UNKNOWN"),
                    job("PONDERING"),
                    job("SUCCEEDED")
                ]
            )],
        ),
        watch(
            "ExecuteComponentActionAndWatch",
            json!({"application_id": "a", "component_id": "c", "action": "COMPONENT_ACTION_CHECK_GRAY_RELEASE"}),
            vec![(
                "POST",
                "/components/c/action",
                vec![ok(json!({"result": "succeeded"}))]
            )],
        ),
    );
    for told in [&failed, &lost, &found, &none] {
        told.end.as_ref().unwrap();
    }
    // The failure of a job is data, not an error.
    assert_eq!((failed.outcome(), failed.calls("PUT")), (FAILED, 1));
    assert_eq!(failed.events[0]["started"]["job_id"], "JOB1");
    assert_eq!(lost.outcome(), FAILED);
    assert!(lost.calls("GET") >= 3, "{} reads", lost.calls("GET"));
    assert_eq!(found.outcome(), SUCCEEDED);
    assert_eq!((none.types(), none.calls("POST")), (vec!["started"], 1));
}

#[tokio::test]
async fn component_is_watched_until_final() {
    let ids = || json!({"application_id": "a", "component_id": "c"});
    let (gray, deleted) = tokio::join!(
        watch(
            "WatchComponent",
            ids(),
            vec![(
                "GET",
                "/components/c",
                vec![component("PENDING"), component("GRAYING")]
            )],
        ),
        watch(
            "DeleteComponentAndWatch",
            ids(),
            vec![
                (
                    "DELETE",
                    "/components/c",
                    vec![Answer::json(204, &Value::Null)]
                ),
                (
                    "GET",
                    "/components/c",
                    vec![
                        component("FAILED"),
                        component("DELETING"),
                        missing(401, "SVCSTG.00100401")
                    ]
                ),
            ],
        ),
    );
    gray.end.as_ref().unwrap();
    assert_eq!(
        (gray.types(), gray.outcome()),
        (vec!["present", "changed"], SUCCEEDED)
    );
    deleted.end.as_ref().unwrap();
    assert_eq!(deleted.types().last(), Some(&"removed"));
    assert_eq!(deleted.calls("DELETE"), 1);
}

/// A job of 45 tasks, of which the upstream returns 20 per page.
#[tokio::test]
async fn all_tasks_of_a_job_are_sent() {
    let page = |from: usize| {
        let tasks: Vec<Value> = (from..(from + 20).min(45))
            .map(|i| json!({"task_id": format!("TASK{i}"), "task_index": i}))
            .collect();
        ok(json!({"task_count": 45, "tasks": tasks,
                  "job": {"job_id": "JOB1", "execution_status": "SUCCEEDED"}}))
    };
    let told = watch(
        "WatchJob",
        json!({"job_id": "JOB1"}),
        vec![
            ("GET", "/jobs/JOB1", vec![page(0)]),
            ("GET", "/jobs/JOB1?offset=20", vec![page(20)]),
            ("GET", "/jobs/JOB1?offset=40", vec![page(40)]),
        ],
    )
    .await;
    told.end.as_ref().unwrap();
    let tasks = told.last()["snapshot"]["tasks"].as_array().unwrap();
    let found: Vec<u64> = tasks
        .iter()
        .map(|t| t["task_index"].as_u64().unwrap())
        .collect();
    assert_eq!(found, (0..45).collect::<Vec<_>>());
    let one = watch(
        "WatchJob",
        json!({"job_id": "JOB1", "limit": 20}),
        vec![("GET", "/jobs/JOB1?limit=20", vec![page(0)])],
    )
    .await;
    assert_eq!(
        one.last()["snapshot"]["tasks"].as_array().unwrap().len(),
        20
    );
    assert_eq!(one.calls("GET"), 1);
}

/// A missing add-on is final only after its deletion.
#[tokio::test]
async fn missing_addon_succeeds_only_after_a_deletion() {
    let unknown = || ("GET", "/jobs/JOB1", vec![missing(400, "SVCSTG.00100429")]);
    let gone = || missing(401, "SVCSTG.00100401");
    let ids = || json!({"job_id": "JOB1", "environment_id": "e", "addon_id": "d"});
    let (never, left, deleted, created) = tokio::join!(
        watch(
            "ExecuteAddonActionAndWatch",
            redeploy(),
            vec![
                (
                    "POST",
                    "/addons/d/action",
                    vec![ok(json!({"job_id": "JOB1"}))]
                ),
                unknown(),
                ("GET", "/addons/d", vec![gone()]),
            ],
        ),
        watch(
            "WatchJob",
            ids(),
            vec![
                unknown(),
                ("GET", "/addons/d", vec![addon("UPGRADING", "JOB1"), gone()])
            ],
        ),
        watch(
            "WatchJob",
            ids(),
            vec![
                unknown(),
                ("GET", "/addons/d", vec![addon("DELETING", "JOB1"), gone()])
            ],
        ),
        watch(
            "CreateAddonAndWatch",
            json!({"environment_id": "e", "name": "sermantInjector", "cce_id": "c", "cse_id": "s"}),
            vec![
                (
                    "POST",
                    "/addons",
                    vec![ok(json!({"job_id": "JOB1", "id": "d"}))]
                ),
                unknown(),
                ("GET", "/addons", vec![ok(json!({"addons": []}))]),
            ],
        ),
    );
    for (told, types, posts) in [
        (&never, vec!["started"], 1),
        (&left, vec!["present"], 0),
        (&created, vec!["started"], 1),
    ] {
        let status = told.end.as_ref().unwrap_err();
        assert_eq!(status.code(), tonic::Code::NotFound, "{status:?}");
        assert_eq!((told.types(), told.calls("POST")), (types, posts));
    }
    deleted.end.as_ref().unwrap();
    assert_eq!(
        (deleted.types(), deleted.outcome()),
        (vec!["present", "removed"], SUCCEEDED)
    );
}

/// Add-ons, whose jobs the job query may not find.
#[tokio::test]
async fn addon_is_watched_until_final() {
    let ids = || json!({"environment_id": "e", "addon_id": "d"});
    // As in the manuals of 2024.
    let wrapped = ok(json!({"addons": [{"id": "d", "status": "UPGRADING", "job_id": "JOB1"}]}));
    let (well, badly, deleted) = tokio::join!(
        watch(
            "WatchAddon",
            ids(),
            vec![(
                "GET",
                "/addons/d",
                vec![
                    wrapped,
                    addon("PONDERING", "JOB1"),
                    addon("SUCCEEDED", "JOB1")
                ]
            )],
        ),
        watch(
            "WatchAddon",
            ids(),
            vec![(
                "GET",
                "/addons/d",
                vec![addon("INITIALIZING", "JOB1"), addon("FAILED", "JOB1")]
            )],
        ),
        watch(
            "WatchAddon",
            ids(),
            vec![(
                "GET",
                "/addons/d",
                vec![addon("DELETING", "JOB1"), missing(401, "SVCSTG.00100401")]
            )],
        ),
    );
    for told in [&well, &badly, &deleted] {
        told.end.as_ref().unwrap();
        assert_eq!(told.calls("GET"), told.seen.len());
    }
    assert_eq!(well.types(), ["present", "changed", "changed"]);
    assert_eq!(well.events[0]["addon"]["job_id"], "JOB1");
    assert_eq!(well.events[1]["addon"]["status_raw"], "PONDERING");
    assert_eq!(well.outcome(), SUCCEEDED);
    assert_eq!(
        (badly.types(), badly.outcome()),
        (vec!["present", "changed"], FAILED)
    );
    assert_eq!(deleted.types(), ["present", "removed"]);
}

/// States of a component that are final, and states that are not.
#[tokio::test]
async fn component_ends_with_its_outcome() {
    let mut ends = tokio::task::JoinSet::new();
    for (states, types, outcome) in [
        (&["INITIALIZING", "RUNNING"][..], 2, SUCCEEDED),
        (&["STOPPING", "STOPPED"], 2, SUCCEEDED),
        (&["PENDING", "UPGRADING", "FAILED"], 3, FAILED),
        (&["RESTARTING", "PARTIALLY_FAILED"], 2, FAILED),
        (&["RESERVED", "DOWN"], 2, FAILED),
        // Final only after several polls.
        (&["UNKNOWN", "STARTING", "UNKNOWN"], 3, FAILED),
        (&["UNKNOWN", "UNKNOWN", "RUNNING"], 2, SUCCEEDED),
    ] {
        let answers: Vec<Answer> = states.iter().map(|state| component(state)).collect();
        ends.spawn(async move {
            let ids = json!({"application_id": "a", "component_id": "c"});
            let told = watch(
                "WatchComponent",
                ids,
                vec![("GET", "/components/c", answers)],
            )
            .await;
            told.end.as_ref().unwrap();
            assert_eq!(told.outcome(), outcome, "{states:?}: {:?}", told.events);
            // An event whose outcome alone changes is a change, too.
            assert!(
                told.types().len() >= types,
                "{states:?}: {:?}",
                told.types()
            );
        });
    }
    while let Some(ended) = ends.join_next().await {
        ended.unwrap();
    }
}
