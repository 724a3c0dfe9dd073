//! `drawbridge watch`, the built binary, with a gateway.

use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::recorder::{Answer, Recorder};
use crate::support::{Gateway, upstream};

/// Runs the command with pipes until it exits.
pub async fn run(gateway: &Gateway, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_drawbridge"));
    command
        .arg("watch")
        .args(args)
        .args(["--gateway", &format!("http://{}", gateway.running.grpc)])
        .env_clear();
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

pub fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Starts a Heat with one deployment in progress, which has the status `end` from the third
/// read on.
async fn heat(end: &'static str) -> (Recorder, Gateway) {
    let reads = AtomicUsize::new(0);
    let recorder = Recorder::start(move |seen| {
        if !seen.path().ends_with("/software_deployments/d1") {
            return Answer::json(
                404,
                &json!({"code": 404, "title": "Not Found", "explanation": "x",
                    "error": {"type": "NotFound", "message": "no such deployment"}}),
            );
        }
        let done = reads.fetch_add(1, Ordering::SeqCst) >= 2;
        let (status, reason) = match done {
            true => (end, "Outputs\nreceived"),
            false => ("IN_PROGRESS", "Deploy data available"),
        };
        Answer::json(
            200,
            &json!({"software_deployment": {"id": "d1", "status": status, "status_reason": reason,
                "output_values": if done { json!({"result": "42"}) } else { json!({}) }}}),
        )
    })
    .await;
    let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
    (recorder, gateway)
}

#[tokio::test]
async fn deployment_is_printed_to_a_pipe() {
    for (end, code, sign) in [("COMPLETE", 0, "+"), ("FAILED", 1, "!")] {
        let (_recorder, gateway) = heat(end).await;
        let out = run(&gateway, &["deployment", "d1"]).await;
        assert_eq!(out.status.code(), Some(code), "{out:?}");
        // Without the times.
        let lines: Vec<&str> = text(&out.stdout).lines().map(|line| &line[9..]).collect();
        let end = format!("{sign} deployment d1 {end} Outputs received");
        assert_eq!(
            lines[0],
            "~ deployment d1 IN_PROGRESS Deploy data available"
        );
        assert_eq!(lines[1], end);
        assert!(lines[2].ends_with("output result 42"), "{lines:?}");
        assert_eq!((lines.len(), text(&out.stderr)), (3, ""));
    }
}

#[tokio::test]
async fn deployment_is_printed_as_json() {
    let (_recorder, gateway) = heat("COMPLETE").await;
    let out = run(&gateway, &["deployment", "d1", "--json"]).await;
    assert_eq!(out.status.code(), Some(0), "{out:?}");
    let lines: Vec<Value> = text(&out.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["stream"], "WatchSoftwareDeployment");
    assert_eq!(lines[0]["message"]["event"]["type"], "INITIAL");
    let last = lines.last().unwrap();
    assert_eq!(last["message"]["event"]["outcome"], "SUCCEEDED");
    assert_eq!(
        last["message"]["software_deployment"]["output_values"]["result"],
        "42"
    );
}

#[tokio::test]
async fn failed_watch_prints_the_error() {
    let (_recorder, gateway) = heat("COMPLETE").await;
    for (args, want) in [
        (
            &["deployment", "other"][..],
            "NOT_FOUND: no such deployment",
        ),
        (
            &["deployment", "d1", "--upstream", "nowhere"],
            "INVALID_ARGUMENT: ",
        ),
        (&["job", "J1"], "FAILED_PRECONDITION: "),
        (&["deployment", "d1", "--metadata", "x"], "write NAME=VALUE"),
        (
            &["deployment", "d1", "--ca", "x.pem"],
            "--ca, --cert and --key are for https://",
        ),
        (
            &["deployment", "d1", "--cert", "c.pem", "--key", "k.pem"],
            "--ca, --cert and --key are for https://",
        ),
    ] {
        let out = run(&gateway, args).await;
        assert_eq!(out.status.code(), Some(2), "{args:?} {out:?}");
        assert!(text(&out.stderr).contains(want), "{args:?} {out:?}");
        assert!(out.stdout.is_empty(), "{out:?}");
    }
}

#[tokio::test]
async fn job_is_printed_with_its_tasks() {
    let reads = AtomicUsize::new(0);
    let recorder = Recorder::start(move |seen| {
        if !seen.path().contains("/jobs/") {
            return Answer::json(200, &json!({}));
        }
        let read = reads.fetch_add(1, Ordering::SeqCst).min(2);
        let job = ["RUNNING", "RUNNING", "SUCCEEDED"][read];
        let task = ["RUNNING", "SUCCEEDED", "SUCCEEDED"][read];
        Answer::json(
            200,
            &json!({"task_count": 1, "job": {"job_id": "J", "execution_status": job},
                "tasks": [{"task_id": "t", "task_name": "pull", "task_status": task}]}),
        )
    })
    .await;
    let gateway = Gateway::with(vec![upstream("u", "servicestage", &recorder.url())]).await;
    let out = run(&gateway, &["job", "J"]).await;
    assert_eq!(out.status.code(), Some(0), "{out:?}");
    let lines: Vec<&str> = text(&out.stdout).lines().map(|line| &line[9..]).collect();
    assert_eq!(
        lines,
        [
            "~ pull RUNNING",
            "~ job J RUNNING",
            "+ pull SUCCEEDED",
            "+ job J SUCCEEDED"
        ]
    );
}

#[tokio::test]
async fn task_is_printed_with_its_log() {
    let ao = crate::logs::Ao::new("failed", "one\n\u{1b}[31mtwo\n");
    let recorder = ao.start().await;
    let gateway = Gateway::with(vec![upstream("u", "jp1ao", &recorder.url())]).await;
    let out = run(&gateway, &["task", "7"]).await;
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    let mut lines: Vec<&str> = text(&out.stdout).lines().collect();
    // The order of the two streams is undefined.
    lines.sort_by_key(|line| !line.starts_with(' '));
    assert_eq!(lines[..2], ["  one", "  \u{fffd}[31mtwo"]);
    assert_eq!(&lines[2][9..], "! task 7 failed");
}
