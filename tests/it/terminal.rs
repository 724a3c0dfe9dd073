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

/// Removes the time and the elapsed time from a line of a pipe. The time has its date and its
/// zone.
pub fn timeless(line: &str) -> &str {
    let (time, rest) = line.split_at(21);
    let form = time.replace(|c: char| c.is_ascii_digit(), "0");
    assert!(
        form == "0000-00-00T00:00:00Z " || time.trim().is_empty(),
        "{line}"
    );
    match rest.rsplit_once(" (") {
        Some((start, end)) if end.ends_with("s)") => start,
        _ => rest,
    }
}

/// Returns the lines of a pipe without times. The last one is the summary.
pub fn lines(out: &[u8]) -> Vec<String> {
    let summary = text(out).lines().last().unwrap_or_default();
    assert!(summary.contains(" (watched for "), "{summary}");
    text(out)
        .lines()
        .map(|line| timeless(line).to_owned())
        .collect()
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
        let lines = lines(&out.stdout);
        let ends = if code == 0 { "succeeded" } else { "failed" };
        let output_sign = if code == 0 { "+" } else { " " };
        let want = [
            "~ deployment d1 IN_PROGRESS Deploy data available".to_owned(),
            format!("{sign} deployment d1 {end} Outputs received"),
            format!("{output_sign} output result 42"),
            format!("{sign} deployment d1 {ends} {end}"),
        ];
        assert_eq!(lines, want);
        assert_eq!(text(&out.stderr), "");
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
    let first = &lines[0]["message"];
    assert_eq!(first["event"]["type"], "WATCH_EVENT_TYPE_INITIAL");
    let last = &lines.last().unwrap()["message"];
    assert_eq!(last["event"]["outcome"], "OUTCOME_SUCCEEDED");
    let deployment = &last["softwareDeployment"];
    assert_eq!(deployment["status"], "DEPLOYMENT_STATUS_COMPLETE");
    assert_eq!(deployment["outputValues"]["result"], "42");
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
            "--ca, --cert, --key and --server-name are for https://",
        ),
        (
            &["deployment", "d1", "--cert", "c.pem", "--key", "k.pem"],
            "--ca, --cert, --key and --server-name are for https://",
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
    assert_eq!(
        lines(&out.stdout),
        [
            "~ pull RUNNING",
            "~ job J RUNNING",
            "+ pull SUCCEEDED",
            "+ job J SUCCEEDED",
            "+ job J succeeded SUCCEEDED, 1 of 1 complete",
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
    let lines: Vec<&str> = text(&out.stdout).lines().collect();
    // The final state is the last line before the summary.
    assert_eq!(lines[..2], ["  one", "  \u{fffd}[31mtwo"]);
    assert_eq!(timeless(lines[2]), "! task 7 failed");
    assert_eq!(timeless(lines[3]), "! task 7 failed failed");
    assert_eq!(lines.len(), 4);
}
