//! Huawei's own Python SDK works with the sandbox's ServiceStage.

use std::process::Command;
use std::time::Duration;

use drawbridge_sandbox::{self as sandbox, Sandbox};

use crate::python::{python, tests};

/// Steps short enough for a waiting client.
async fn start(step: Duration) -> Sandbox {
    let settings = sandbox::Settings {
        step,
        ..sandbox::Settings::default()
    };
    Sandbox::start(([127, 0, 0, 1], 0).into(), settings)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn huaweis_own_sdk_works_on_it() {
    let requirements = "python/servicestage-requirements.txt";
    let python = tokio::task::spawn_blocking(|| python("servicestage-venv", requirements));
    let python = python.await.unwrap();
    let sandbox = start(Duration::from_millis(50)).await;
    let mut command = Command::new(python);
    command
        .arg(tests("python/servicestage_sdk.py"))
        .env("SERVICESTAGE_ENDPOINT", sandbox.servicestage_url())
        .env("SERVICESTAGE_PROJECT", sandbox::PROJECT_ID)
        .env("SERVICESTAGE_OTHER", sandbox::OTHER_PROJECT_ID)
        .env("SERVICESTAGE_AK", sandbox::ACCESS_KEY)
        .env("SERVICESTAGE_SK", sandbox::SECRET_KEY)
        .env(
            "SERVICESTAGE_TEMPORARY",
            [
                sandbox::TEMPORARY_ACCESS_KEY,
                sandbox::TEMPORARY_SECRET_KEY,
                sandbox::SECURITY_TOKEN,
            ]
            .join(" "),
        )
        .env("NO_PROXY", "127.0.0.1");
    let status = tokio::task::spawn_blocking(move || command.status().unwrap());
    assert!(status.await.unwrap().success(), "servicestage_sdk.py");
    sandbox.stop().await;
}
