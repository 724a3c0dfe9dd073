//! `drawbridge watch job`, the built binary: its output and its exit code.

use std::time::Duration;

use drawbridge::cli::quickstart;
use drawbridge_sandbox::{self as sandbox, ADDON_ID, APPLICATION_ID, ENVIRONMENT_ID, Sandbox};
use serde_json::{Value, json};

use crate::support::client::json as to_json;
use crate::support::recorder::{Answer, Recorder};
use crate::support::{Gateway, upstream};
use crate::terminal::{lines, run, text};

/// Starts the sandbox's ServiceStage with quick steps, and a gateway.
async fn stage() -> (Sandbox, Gateway) {
    let settings = sandbox::Settings {
        step: Duration::from_millis(100),
        ..sandbox::Settings::default()
    };
    let sandbox = Sandbox::start(([127, 0, 0, 1], 0).into(), settings)
        .await
        .unwrap();
    let gateway = Gateway::with(quickstart::upstreams(&sandbox)).await;
    (sandbox, gateway)
}

/// Makes a call and returns the job that it starts.
async fn job(gateway: &Gateway, rpc: &str, request: Value) -> String {
    let started = gateway.client.call(rpc, request).await.unwrap();
    to_json(&started)["job_id"].as_str().unwrap().to_owned()
}

async fn redeploy(gateway: &Gateway) -> String {
    let request = json!({"environment_id": ENVIRONMENT_ID, "addon_id": ADDON_ID,
        "action": "ADDON_ACTION_REDEPLOY"});
    job(gateway, "AddonService/ExecuteAddonAction", request).await
}

#[tokio::test]
async fn redeploy_is_printed_until_it_succeeds() {
    let (sandbox, gateway) = stage().await;
    let id = redeploy(&gateway).await;
    let out = run(&gateway, &["job", &id]).await;
    assert_eq!(out.status.code(), Some(0), "{out:?}");
    assert_eq!(text(&out.stderr), "");
    // Which states before the last are polled depends on timing.
    let told = lines(&out.stdout);
    let last = [
        format!("+ job {id} SUCCEEDED"),
        format!("+ job {id} succeeded SUCCEEDED, 2 of 2 complete"),
    ];
    assert!(told.ends_with(&last), "{told:?}");
    for task in ["InitializeTask", "DeployTask"] {
        let end = format!("+ {task} SUCCEEDED");
        let found = told.iter().filter(|line| **line == end).count();
        assert_eq!(found, 1, "{told:?}");
    }

    // Again as JSON, when the job is final.
    let out = run(&gateway, &["job", &id, "--json"]).await;
    assert_eq!(out.status.code(), Some(0), "{out:?}");
    let told: Vec<Value> = (text(&out.stdout).lines())
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let [only] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(only["stream"], "WatchJob");
    let message = &only["message"];
    assert_eq!(message["event"]["type"], "WATCH_EVENT_TYPE_INITIAL");
    assert_eq!(message["event"]["outcome"], "OUTCOME_SUCCEEDED");
    let job = &message["snapshot"]["job"];
    assert_eq!(job["jobId"], id);
    assert_eq!(job["executionStatus"], "EXECUTION_STATUS_SUCCEEDED");
    let tasks = message["snapshot"]["tasks"].as_array().unwrap();
    assert_eq!(tasks.len(), 2);
    gateway.running.stop().await.unwrap();
    sandbox.stop().await;
}

#[tokio::test]
async fn failed_deployment_sets_the_exit_code() {
    let (sandbox, gateway) = stage().await;
    let request = json!({"application_id": APPLICATION_ID, "component": {
        "name": "to-fail", "version": "1.0.1", "replica": 1, "environment_id": ENVIRONMENT_ID,
        "runtime_stack": {"name": "Docker", "type": "Docker", "version": "1.0.0",
            "deploy_mode_raw": "container"},
        "source": {"kind_raw": "image", "url": "swr.example.com/acme/svc:1.0.1", "storage_raw": "swr"},
        "refer_resources": {"items": [{"id": "c", "type": "cce"}]}}});
    let id = job(&gateway, "ComponentService/CreateComponent", request).await;
    let out = run(&gateway, &["job", &id]).await;
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    assert_eq!(text(&out.stderr), "");
    let told = lines(&out.stdout);
    let last = format!("! job {id} FAILED");
    assert_eq!(told[told.len() - 2], last, "{told:?}");
    let summary = told.last().unwrap();
    assert!(
        summary.ends_with("complete, failed: DeployTask"),
        "{told:?}"
    );
    let task = "! DeployTask FAILED the sandbox failed it".to_owned();
    assert!(told.contains(&task), "{told:?}");
    let out = run(&gateway, &["job", &id, "--json"]).await;
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    let last: Value = serde_json::from_str(text(&out.stdout).lines().last().unwrap()).unwrap();
    let outcome = &last["message"]["event"]["outcome"];
    assert_eq!(outcome, "OUTCOME_FAILED");
    gateway.running.stop().await.unwrap();
    sandbox.stop().await;
}

#[tokio::test]
async fn failed_job_watch_prints_the_error() {
    let (sandbox, gateway) = stage().await;
    let out = run(&gateway, &["job", "JOBnone"]).await;
    assert_eq!(out.status.code(), Some(2), "{out:?}");
    let said = text(&out.stderr);
    let start = "drawbridge: NOT_FOUND: The job does not exist.\n  reason: SVCSTG.00100429 (";
    assert!(said.starts_with(start), "{said}");
    assert_eq!(text(&out.stdout), "");
    gateway.running.stop().await.unwrap();
    sandbox.stop().await;

    // A job that cannot be polled any more, after the first poll.
    let reads = std::sync::atomic::AtomicUsize::new(0);
    let recorder =
        Recorder::start(
            move |_| match reads.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
                0 => Answer::json(
                    200,
                    &json!({"job": {"job_id": "J", "execution_status": "RUNNING"}}),
                ),
                _ => Answer::json(
                    403,
                    &json!({"error_code": "APIGW.0302", "error_msg": "no longer"}),
                ),
            },
        )
        .await;
    let gateway = Gateway::with(vec![upstream("u", "servicestage", &recorder.url())]).await;
    let out = run(&gateway, &["job", "J", "--json"]).await;
    assert_eq!(out.status.code(), Some(2), "{out:?}");
    let first = text(&out.stdout).lines().next().unwrap();
    let first: Value = serde_json::from_str(first).unwrap();
    assert_eq!(
        first["message"]["snapshot"]["job"]["executionStatus"],
        "EXECUTION_STATUS_RUNNING"
    );
    let said = text(&out.stderr);
    let start = "drawbridge: PERMISSION_DENIED: no longer\n  reason: APIGW.0302 (";
    assert!(said.starts_with(start), "{said}");
    gateway.running.stop().await.unwrap();
}
