//! The example calls that the sandbox prints work, and the README has the same.

use std::time::Duration;

use drawbridge::cli::quickstart;
use drawbridge_sandbox::{self as sandbox, Sandbox};
use serde_json::Value;

use crate::support::Gateway;
use crate::support::client::json as to_json;

/// Reads the grpcurl lines of a text: method and request. `'$job'` in a request is the job of
/// the line before.
fn calls(text: &str, address: &str) -> Vec<(String, String)> {
    let text = text.replace("\\\n  ", "");
    text.lines()
        .filter_map(|line| {
            let (_, rest) = line.split_once("grpcurl -plaintext -d '")?;
            let (request, rest) = rest.split_once(&format!("' {address} "))?;
            let method = rest.split_whitespace().next()?;
            Some((method.to_owned(), request.to_owned()))
        })
        .collect()
}

/// Reads the lines for the Python client, whose services have no package.
fn python_calls(text: &str) -> Vec<(String, String)> {
    text.lines()
        .filter_map(|line| {
            let (_, rest) = line.split_once("clients/python/drawbridge ")?;
            let (_, rest) = rest.split_once(' ')?;
            let (method, rest) = rest.split_once(" '")?;
            let (request, _) = rest.rsplit_once("}'")?;
            Some((method.to_owned(), format!("{request}}}")))
        })
        .collect()
}

#[tokio::test]
async fn printed_examples_work_and_match_the_readme() {
    let settings = sandbox::Settings {
        step: Duration::from_millis(50),
        ..sandbox::Settings::default()
    };
    let sandbox = Sandbox::start(([127, 0, 0, 1], 0).into(), settings)
        .await
        .unwrap();
    let gateway = Gateway::with(quickstart::upstreams(&sandbox)).await;
    let printed = quickstart::examples(&gateway.running.grpc.to_string(), false);
    let lines = calls(&printed, &gateway.running.grpc.to_string());
    assert!(lines.len() >= 6, "{printed}");
    let readme = include_str!("../../README.md");
    let in_readme = calls(readme, "127.0.0.1:50051");
    assert!(in_readme.len() >= 4, "{in_readme:?}");
    for line in in_readme {
        assert!(lines.contains(&line), "README.md has other lines: {line:?}");
    }

    let mut job = String::new();
    for (method, request) in &lines {
        let request: Value = serde_json::from_str(&request.replace("'$job'", &job)).unwrap();
        if !gateway.client.method(method).is_server_streaming() {
            let got = gateway.client.call(method, request).await;
            let got = to_json(&got.unwrap_or_else(|e| panic!("{method}: {e:?}")));
            if let Some(id) = got["job_id"].as_str() {
                job = id.to_owned();
            }
            continue;
        }
        let mut watch = gateway.client.watch(method, request, &[]).await.unwrap();
        if method.contains("WatchSoftwareDeployments") {
            watch.event().await;
            continue;
        }
        // A stack or a job is watched until its final state.
        let mut last = Value::Null;
        while let Some(event) = watch.next().await {
            last = to_json(&event.unwrap());
        }
        assert_eq!(last["event"]["outcome"], "OUTCOME_SUCCEEDED", "{last}");
    }
    assert!(job.starts_with("JOB"), "{job}");

    let short = |(method, request): &(String, String)| {
        let method = method.rsplit('.').next().unwrap().to_owned();
        (method, request.clone())
    };
    let same: Vec<_> = lines.iter().map(short).collect();
    assert_eq!(python_calls(&printed), same, "for Python");
    gateway.running.stop().await.unwrap();
}
