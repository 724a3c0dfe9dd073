//! `drawbridge watch task`, the built binary, with the sandbox.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use drawbridge::cli::quickstart;
use drawbridge_sandbox::{FIRST_TASK_ID, Sandbox, Settings};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::support::Gateway;
use crate::support::client::json as to_json;
use crate::terminal::timeless;

/// Longer than any step here takes.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

struct Place {
    _sandbox: Sandbox,
    gateway: Gateway,
}

/// A running `drawbridge watch` with pipes.
struct Watch {
    lines: UnboundedReceiver<String>,
    /// The commands that were printed to respond to a question.
    commands: Vec<String>,
    end: tokio::task::JoinHandle<(ExitStatus, String)>,
}

impl Place {
    async fn new() -> Self {
        let settings = Settings {
            step: Duration::from_millis(20),
            ..Settings::default()
        };
        let sandbox = Sandbox::start(([127, 0, 0, 1], 0).into(), settings)
            .await
            .unwrap();
        Self {
            gateway: Gateway::with(vec![quickstart::upstreams(&sandbox).remove(2)]).await,
            _sandbox: sandbox,
        }
    }

    async fn ok(&self, method: &str, request: Value) -> Value {
        let answer = self.gateway.client.call(method, request).await;
        to_json(&answer.unwrap_or_else(|status| panic!("{method}: {status:?}")))
    }

    /// Submits a service; the sandbox counts its tasks.
    async fn submit(&self, request: Value) {
        let submit = "AutomationService/SubmitService";
        self.ok(submit, request).await;
    }

    fn watch(&self, task: u64, more: &[&str]) -> Watch {
        let mut child = Command::new(env!("CARGO_BIN_EXE_drawbridge"))
            .args(["watch", "task", &task.to_string()])
            .args([
                "--gateway",
                &format!("http://{}", self.gateway.running.grpc),
            ])
            .args(more)
            .env_clear()
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (told, lines) = unbounded_channel();
        let end = tokio::task::spawn_blocking(move || {
            for line in BufReader::new(out).lines() {
                let _ = told.send(line.unwrap());
            }
            let mut text = String::new();
            err.read_to_string(&mut text).unwrap();
            (child.wait().unwrap(), text)
        });
        Watch {
            lines,
            commands: Vec::new(),
            end,
        }
    }
}

impl Watch {
    /// Reads lines up to one that contains `what`, without times and without log lines.
    async fn until(&mut self, what: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let line = tokio::time::timeout(TEST_TIMEOUT, self.lines.recv()).await;
            let Some(line) = line.expect("it says more") else {
                panic!("no {what} in {lines:#?}");
            };
            if line.starts_with("  drawbridge call ") {
                self.commands.push(line.clone());
            } else if !line.starts_with("  ") {
                lines.push(timeless(&line).to_owned());
            }
            if line.contains(what) {
                return lines;
            }
        }
    }

    /// Reads the rest: the lines, the exit code and standard error.
    async fn rest(mut self) -> (Vec<String>, Option<i32>, String) {
        let (status, errors) = tokio::time::timeout(TEST_TIMEOUT, self.end)
            .await
            .unwrap()
            .unwrap();
        let mut lines = Vec::new();
        while let Some(line) = self.lines.recv().await {
            lines.push(line);
        }
        (lines, status.code(), errors)
    }
}

/// Runs a pasted command in a shell that finds the built binary, and returns its output.
async fn run_pasted(command: &str) -> String {
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_drawbridge"));
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-euc", command])
        .env_clear()
        .env("PATH", binary.parent().unwrap());
    let output = tokio::task::spawn_blocking(move || shell.output().unwrap());
    let output = output.await.unwrap();
    assert!(output.status.success(), "{command}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A task is printed with steps, log and prompt, and continues after the response.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_task_prints_its_prompt() {
    let place = Place::new().await;
    let name = "disk \u{1b}[2J for web01";
    place
        .submit(json!({"id": 2005, "name": name, "properties": {"disk.sizeGB": 64}}))
        .await;
    let mut watch = place.watch(FIRST_TASK_ID, &[]);
    let mut lines = watch.until("labelbutton2: Cancel").await;
    // Whether a step is polled while it runs depends on timing.
    lines.retain(|line| !line.contains("inProgress"));
    let title = format!("~ task {FIRST_TASK_ID} waitingForInput");
    let want = [
        "+ Check the machine completed",
        "+ Create the disk completed",
        "~ Ask the operator waitingForInput The machine has to be restarted. Go on?",
        &title,
        "~ responses labelbutton1: Continue",
        "~ responses labelbutton2: Cancel",
    ];
    lines.retain(|line| !line.ends_with(" waiting"));
    assert_eq!(lines, want);
    // The command for the first button.
    let [command] = &watch.commands[..] else {
        panic!("{:?}", watch.commands);
    };
    run_pasted(command).await;
    let (rest, code, errors) = watch.rest().await;
    assert_eq!((code, &*errors), (Some(0), ""), "{rest:#?}");
    let has = |what: &str| rest.iter().any(|line| line.contains(what));
    assert!(has("+ Attach the disk completed"), "{rest:#?}");
    assert!(
        has(&format!("+ task {FIRST_TASK_ID} completed")),
        "{rest:#?}"
    );
    assert!(has("The response was Continue."), "the log: {rest:#?}");
    assert!(!has("\u{1b}"), "nothing that a terminal obeys: {rest:#?}");

    // Archived, it still has its outcome.
    let archive = json!({"id": FIRST_TASK_ID});
    place.ok("TaskService/ArchiveTask", archive).await;
    let (lines, code, _) = place.watch(FIRST_TASK_ID, &[]).rest().await;
    assert_eq!(code, Some(0), "{lines:?}");
    assert!(
        lines
            .iter()
            .any(|line| line.ends_with(&format!("+ task {FIRST_TASK_ID} completed"))),
        "{lines:?}"
    );
}

/// Runs the lines of docs/operations.md in a shell.
#[tokio::test(flavor = "multi_thread")]
async fn lines_of_the_docs_work_as_pasted() {
    let place = Place::new().await;
    let page = include_str!("../../docs/operations.md");
    let (_, rest) = page.split_once("<!-- jp1ao -->\n```sh\n").unwrap();
    let lines = rest.split_once("```\n<!-- /jp1ao -->").unwrap().0;
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_drawbridge"));
    let mut command = Command::new("bash");
    // As a script that stops at the first line that fails.
    command
        .args(["-euo", "pipefail", "-c", lines])
        .env_clear()
        .env(
            "PATH",
            format!("{}:/usr/bin:/bin", binary.parent().unwrap().display()),
        )
        .env("DRAWBRIDGE_GATEWAY", place.gateway.running.grpc.to_string());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = output.await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    for line in [
        // The steps of the task. Whether the question is seen depends on when it is polled.
        "+ Create the disk completed",
        // The log, including the lines after the response.
        "The response was Continue.",
        // The final state, and the history.
        "+ task 10001 succeeded completed",
        "\"taskId\": \"10001\"",
    ] {
        assert!(text.contains(line), "{line} is missing in:\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn outcome_sets_the_exit_code() {
    let place = Place::new().await;
    let fails = json!({"id": 2008, "properties": {"startvm.failAtStep": 2}});
    place.submit(fails).await;
    let (lines, code, errors) = place.watch(FIRST_TASK_ID, &[]).rest().await;
    assert_eq!((code, &*errors), (Some(1), ""), "{lines:#?}");
    let has = |what: &str| lines.iter().any(|line| line.contains(what));
    assert!(has("! Start the machines failed"), "{lines:#?}");
    assert!(has(&format!("! task {FIRST_TASK_ID} failed")), "{lines:#?}");

    // As JSON: each line is a message.
    let (lines, code, errors) = place.watch(FIRST_TASK_ID, &["--json"]).rest().await;
    assert_eq!((code, &*errors), (Some(1), ""), "{lines:#?}");
    let messages: Vec<Value> = lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of = |stream: &str| -> Vec<&Value> {
        let of = messages.iter().filter(|told| told["stream"] == stream);
        of.map(|told| &told["message"]).collect()
    };
    let (task, log) = (of("WatchTask"), of("WatchTaskLog"));
    assert_eq!(task.len() + log.len(), messages.len());
    let last = task.last().unwrap();
    assert_eq!(last["event"]["outcome"], "OUTCOME_FAILED", "{last}");
    assert_eq!(last["task"]["status"], "TASK_STATUS_FAILED", "{last}");
    assert_eq!(last["steps"].as_array().map(Vec::len), Some(3), "{last}");
    assert!(
        log.iter().any(|told| told["line"]["text"].is_string()),
        "{log:?}"
    );
    let outcome = &log.last().unwrap()["event"]["outcome"];
    assert_eq!(outcome, "OUTCOME_FAILED");

    let (lines, code, errors) = place.watch(99, &[]).rest().await;
    assert_eq!((code, lines.len()), (Some(2), 0), "{lines:?}");
    assert!(errors.contains("NOT_FOUND: "), "{errors}");
}
