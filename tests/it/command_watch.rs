//! `drawbridge watch` of any rpc, and of several subjects, with a gateway.

use std::io::BufRead as _;
use std::process::Stdio;

use serde_json::Value;

use crate::command_call::{command, fails, ok, own_api, run, sandbox, stack};
use crate::terminal::{text, timeless};

/// Returns the lines of a pipe without times, sorted: those of several subjects come in any
/// order.
fn sorted(out: &[u8]) -> Vec<String> {
    let mut lines: Vec<String> = text(out)
        .lines()
        .map(|line| timeless(line).into())
        .collect();
    lines.sort();
    lines
}

#[tokio::test]
async fn watch_of_an_own_api_has_its_outcome() {
    let (_recorder, gateway) = own_api().await;
    let (r1, r2) = (r#"{"rollout_id": "r1"}"#, r#"{"rolloutId": "r2"}"#);
    let watch = ["watch", "RolloutService/WatchRollout"];
    for (request, code, want) in [
        (
            r1,
            0,
            &["+ WatchRollout r1 done", "+ WatchRollout r1 succeeded done"],
        ),
        (
            r2,
            1,
            &[
                "! WatchRollout r2 broken",
                "! WatchRollout r2 failed broken",
            ],
        ),
    ] {
        let out = run(&gateway, &[&watch[..], &[request]].concat()).await;
        assert_eq!(out.status.code(), Some(code), "{out:?}");
        assert_eq!(sorted(&out.stdout), want);
    }
    // Both at once: one has failed.
    let out = run(&gateway, &[&watch[..], &[r1, "-d", r2]].concat()).await;
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    assert_eq!(sorted(&out.stdout).len(), 4, "{out:?}");
    let out = run(&gateway, &["watch", "WatchRollout", r1, r2, "-o", "name"]).await;
    assert_eq!(
        (out.status.code(), text(&out.stdout)),
        (Some(1), "r1\n"),
        "{out:?}"
    );
    let out = run(&gateway, &["watch", "WatchRollout", r1, r2, "--json"]).await;
    let mut subjects: Vec<String> = text(&out.stdout)
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["stream"], "WatchRollout");
            assert!(line["message"]["event"]["outcome"].is_string(), "{line}");
            line["subject"].as_str().unwrap().to_owned()
        })
        .collect();
    subjects.sort();
    assert_eq!(subjects, ["WatchRollout r1", "WatchRollout r2"]);

    let missing = r#"{"rollout_id": "r9"}"#;
    let said = fails(&gateway, &[&watch[..], &[missing]].concat(), 2).await;
    assert!(said.starts_with("drawbridge: NOT_FOUND: "), "{said}");
    let said = fails(
        &gateway,
        &[&watch[..], &[r#"{"rollout": "r9"}"#]].concat(),
        2,
    )
    .await;
    assert!(
        said.contains("rollout: WatchRolloutRequest has no such field"),
        "{said}"
    );
    let said = fails(&gateway, &["watch", "GetRollout"], 2).await;
    let want = "RolloutService/GetRollout is no watch: \
                use `drawbridge call RolloutService/GetRollout`";
    assert!(said.contains(want), "{said}");
}

fn stack_with_a_resource(name: &str) -> String {
    let template = serde_json::json!({"heat_template_version": "2018-08-31",
        "resources": {"one": {"type": "OS::Heat::RandomString"}}});
    serde_json::json!({"stack_name": name, "template_json": template}).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn several_stacks_are_watched_at_once() {
    let (_sandbox, gateway) = sandbox().await;
    ok(&gateway, &["call", "CreateStack", &stack("a"), &stack("b")]).await;
    let out = run(&gateway, &["watch", "stack", "a", "b"]).await;
    assert_eq!(out.status.code(), Some(0), "{out:?}");
    let lines = sorted(&out.stdout);
    for name in ["a", "b"] {
        let summary = format!("+ stack {name} succeeded CREATE_COMPLETE");
        assert!(
            lines.iter().any(|line| line.starts_with(&summary)),
            "{lines:#?}"
        );
    }
    // Each once.
    let out = run(&gateway, &["watch", "stack", "a", "a", "-o", "name"]).await;
    assert_eq!(text(&out.stdout), "a\n", "{out:?}");
    // One of them does not exist: the others are watched to their end.
    let out = run(&gateway, &["watch", "stack", "a", "nowhere", "-o", "name"]).await;
    assert_eq!(
        (out.status.code(), text(&out.stdout)),
        (Some(2), "a\n"),
        "{out:?}"
    );
    let said = text(&out.stderr);
    assert!(
        said.starts_with("drawbridge: stack nowhere: NOT_FOUND: "),
        "{said}"
    );

    for (args, want) in [
        (
            &["watch", "stak", "a"][..],
            "no kind `stak`, did you mean stack?",
        ),
        (
            &["watch"],
            "write what to watch: stack, deployment, job, task ",
        ),
        (
            &["watch", "WatchStak"],
            "no rpc WatchStak; did you mean StackService/WatchStack",
        ),
    ] {
        let said = fails(&gateway, args, 2).await;
        assert!(said.contains(want), "{args:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn starts_logs_and_lists_are_watched() {
    let (_sandbox, gateway) = sandbox().await;
    let submit = r#"{"id": 2008, "name": "night"}"#;
    let out = ok(&gateway, &["watch", "SubmitServiceAndWatch", submit]).await;
    let lines: Vec<&str> = out.lines().map(timeless).collect();
    let title = "SubmitServiceAndWatch 2008/night";
    assert!(
        lines[0].starts_with(&format!("~ {title} STARTED 10001")),
        "{lines:#?}"
    );
    assert!(
        lines.contains(&&*format!("+ {title} completed")),
        "{lines:#?}"
    );

    let tasks = ok(&gateway, &["call", "ListTasks", "-o", "name"]).await;
    let task = tasks.lines().next().unwrap();
    let log = ok(
        &gateway,
        &[
            "watch",
            "WatchTaskLog",
            &format!(r#"{{"task_id": {task}}}"#),
        ],
    )
    .await;
    assert!(log.starts_with("  2"), "{log}");
    assert!(log.contains(" KNAE08007-I The task completed.\n"), "{log}");
    assert!(!log.contains("{"), "{log}");

    // Resources with their states, and a resource that has none by which it ends.
    ok(
        &gateway,
        &["call", "CreateStack", &stack_with_a_resource("s")],
    )
    .await;
    ok(&gateway, &["watch", "stack", "s"]).await;
    for (rpc, request, want) in [
        (
            "WatchStackResources",
            r#"{"stack_name": "s"}"#,
            "+ one CREATE_COMPLETE",
        ),
        (
            "WatchService",
            r#"{"id": 2008}"#,
            "~ WatchService 2008 release",
        ),
    ] {
        let mut command = command(&gateway, &["watch", rpc, request]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            child.kill().unwrap();
            child.wait().unwrap();
            line
        });
        let line = line.await.unwrap();
        assert_eq!(timeless(line.trim_end()), want);
    }

    // The watch of a list ends when its client ends it.
    let mut command = command(&gateway, &["watch", "WatchSoftwareDeployments"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    let ended = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let id = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
        let rest = std::io::read_to_string(stdout).unwrap();
        (line, rest, child.wait().unwrap().code())
    });
    let (line, rest, code) = ended.await.unwrap();
    assert_eq!(code, Some(130));
    assert!(timeless(line.trim_end()).ends_with(" COMPLETE"), "{line}");
    assert!(
        rest.contains("WatchSoftwareDeployments interrupted 1 item"),
        "{rest}"
    );
}
