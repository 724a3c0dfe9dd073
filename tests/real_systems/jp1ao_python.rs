//! A Python client that runs a JP1/AO task through a gateway to the sandbox.

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

fn told(out: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&out.stdout) + &text(&out.stderr)
}
