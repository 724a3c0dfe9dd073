//! Python clients that run a JP1/AO task through a gateway to the sandbox.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use drawbridge::cli::quickstart;
use drawbridge_sandbox::{self as sandbox, Sandbox};

use crate::python::{python, tests};
use crate::support::Gateway;

/// A gateway to a sandbox, and a Python with the packages of the client.
struct Place {
    sandbox: Sandbox,
    gateway: Gateway,
    python: std::path::PathBuf,
}

impl Place {
    async fn new() -> Self {
        let requirements = "../clients/python/requirements.txt";
        let python = tokio::task::spawn_blocking(|| python("jp1ao-venv", requirements));
        let python = python.await.unwrap();
        let settings = sandbox::Settings {
            step: Duration::from_millis(50),
            ..sandbox::Settings::default()
        };
        let sandbox = Sandbox::start(([127, 0, 0, 1], 0).into(), settings)
            .await
            .unwrap();
        Self {
            gateway: Gateway::with(quickstart::upstreams(&sandbox)).await,
            sandbox,
            python,
        }
    }

    async fn run(&self, mut command: Command) -> Output {
        command
            .env("DRAWBRIDGE_ADDR", self.gateway.running.grpc.to_string())
            .env("NO_PROXY", "127.0.0.1");
        tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap()
    }

    async fn stop(self) {
        self.gateway.running.stop().await.unwrap();
        self.sandbox.stop().await;
    }
}

/// Uses stubs generated from the protos.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_submitted_answered_and_archived() {
    let place = Place::new().await;
    let mut command = Command::new(&place.python);
    command
        .arg(tests("python/jp1ao_main_job.py"))
        .env("JP1AO_URL", place.sandbox.jp1ao_url())
        .env("JP1AO_USERNAME", sandbox::JP1AO_USERNAME)
        .env("JP1AO_PASSWORD", sandbox::JP1AO_PASSWORD);
    let out = place.run(command).await;
    assert!(out.status.success(), "{}", told(&out));
    place.stop().await;
}

/// Runs the lines of docs/operations.md as pasted.
#[tokio::test(flavor = "multi_thread")]
async fn the_readmes_lines_work_as_pasted() {
    let place = Place::new().await;
    let readme = include_str!("../../docs/operations.md");
    let (_, rest) = readme.split_once("<!-- jp1ao -->\n```sh\n").unwrap();
    let lines = rest.split_once("```\n<!-- /jp1ao -->").unwrap().0;
    let mut command = Command::new("bash");
    // Run as a script that stops at the first failing line.
    command
        .args(["-euo", "pipefail", "-c", lines])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        // The environment that the client would create on first use.
        .env(
            "DRAWBRIDGE_PYTHON_ENV",
            place.python.ancestors().nth(2).unwrap_or(Path::new("/")),
        );
    let out = place.run(command).await;
    let text = told(&out);
    assert!(out.status.success(), "{text}");
    for told in [
        // The steps next to the task, then the question in both watches.
        "\"steps\": [{",
        "\"labelbutton1\": \"Continue\"",
        "\"status\": \"TASK_STATUS_WAITING_FOR_INPUT\"",
        // The log, including the lines after the response.
        "\"line\": {\"text\": ",
        "The response was Continue.",
        // Both streams end with OK, and the history is listed.
        "\"outcome\": \"OUTCOME_SUCCEEDED\"",
        "\"task_id\": \"10001\"",
    ] {
        assert!(text.contains(told), "{told} is missing in:\n{text}");
    }
    let ended = text.matches("OUTCOME_SUCCEEDED").count();
    assert_eq!(ended, 2, "task and log:\n{text}");
    place.stop().await;
}

fn told(out: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&out.stdout) + &text(&out.stderr)
}
