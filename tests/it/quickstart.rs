//! The calls that `drawbridge examples` prints and those in the README are the same, and they
//! succeed.

use std::time::Duration;

use drawbridge::cli::quickstart;
use drawbridge_sandbox::{self as sandbox, Sandbox};
use serde_json::Value;

use crate::support::Gateway;
use crate::support::client::json as to_json;

/// Returns the grpcurl calls in a text: method and request. `'$job'` in a request is the job
/// of the line before.
fn calls(text: &str, address: &str) -> Vec<(String, String)> {
    let text = text.replace("\\\n  ", "");
    text.lines()
        .filter_map(|line| {
            // That of a stream without an end.
            let line = line.replace("' -max-time 5 ", "' ");
            let (_, rest) = line.split_once("grpcurl -plaintext -d '")?;
            let (request, rest) = rest.split_once(&format!("' {address} "))?;
            let method = rest.split_whitespace().next()?;
            Some((method.to_owned(), request.to_owned()))
        })
        .collect()
}

/// Returns the calls with `drawbridge` in a text. Their services have no package.
fn own_calls(text: &str) -> Vec<(String, String)> {
    text.lines()
        .filter_map(|line| {
            let starts = ["drawbridge call ", "drawbridge watch "];
            let (_, rest) = starts.iter().find_map(|start| line.split_once(start))?;
            let (method, rest) = rest.split_once(" '")?;
            let (request, _) = rest.rsplit_once("}'")?;
            Some((method.to_owned(), format!("{request}}}")))
        })
        .collect()
}

#[tokio::test]
async fn examples_succeed_and_contain_those_of_the_readme() {
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
    let own = own_calls(&printed);
    for (in_readme, printed) in [
        (calls(readme, "127.0.0.1:50051"), &lines),
        (own_calls(readme), &own),
    ] {
        assert!(!in_readme.is_empty());
        for line in in_readme {
            assert!(
                printed.contains(&line),
                "README.md has other calls: {line:?}"
            );
        }
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
        // The watch of a stack, a job or a task ends with its final state.
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
    assert_eq!(own, same);
    gateway.running.stop().await.unwrap();
}
