//! JP1/AO's main job as a user has it: a Python client with stubs generated from
//! the protos, before the sandbox.

use std::process::Command;
use std::time::Duration;

use drawbridge::first_run;
use drawbridge::sandbox::{self, Sandbox};

use crate::support::Gateway;
use crate::support::python::{python, tests};

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_submitted_answered_and_archived() {
    let what = "JP1/AO's main job by a Python client";
    let requirements = "../clients/python/requirements.txt";
    let found = tokio::task::spawn_blocking(move || python("jp1ao-venv", requirements, what));
    let Some(python) = found.await.unwrap() else {
        return;
    };
    let settings = sandbox::Settings {
        step: Duration::from_millis(50),
        ..sandbox::Settings::default()
    };
    let sandbox = Sandbox::start(([127, 0, 0, 1], 0).into(), settings)
        .await
        .unwrap();
    let gateway = Gateway::with(first_run::upstreams(&sandbox)).await;
    let mut command = Command::new(python);
    command
        .arg(tests("python/jp1ao_main_job.py"))
        .env("DRAWBRIDGE_ADDR", gateway.running.grpc.to_string())
        .env("JP1AO_URL", sandbox.jp1ao_url())
        .env("JP1AO_USERNAME", sandbox::JP1AO_USERNAME)
        .env("JP1AO_PASSWORD", sandbox::JP1AO_PASSWORD)
        .env("NO_PROXY", "127.0.0.1");
    let status = tokio::task::spawn_blocking(move || command.status().unwrap());
    assert!(status.await.unwrap().success(), "jp1ao_main_job.py");
    gateway.running.stop().await.unwrap();
    sandbox.stop().await;
}
