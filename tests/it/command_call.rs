//! `drawbridge call`, `ls` and `describe`, the built binary, with a gateway.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use drawbridge::cli::quickstart;
use drawbridge::contract::Source;
use drawbridge_sandbox::{Sandbox, Settings};
use serde_json::{Value, json};

use crate::support::recorder::{Answer, Recorder};
use crate::support::{Gateway, nowhere, settings, upstream};
use crate::terminal::text;

/// An API of a user, compiled with comments.
const PROTO: &str = r#"
syntax = "proto3";
package acme.v1;
import "drawbridge/v1/options.proto";
import "drawbridge/v1/watch.proto";
import "google/api/annotations.proto";
import "google/api/field_behavior.proto";
import "google/api/httpbody.proto";

option (drawbridge.v1.file) = { family: "acme" naming: NAMING_JSON_NAMES };

// Rolls out builds. One at a time.
service RolloutService {
  // Returns a rollout. Fails without one.
  rpc GetRollout(GetRolloutRequest) returns (Rollout) {
    option (google.api.http) = { get: "/rollouts/{rollout_id}" };
  }
  // Watches a rollout.
  rpc WatchRollout(WatchRolloutRequest) returns (stream WatchRolloutResponse) {
    option (google.api.http) = { get: "/rollouts/{rollout_id}" };
    option (drawbridge.v1.method).watch = {
      poll: "GetRollout" state: "phase" succeeded: "done" failed: "broken"
      initial_interval: { nanos: 20000000 } max_interval: { nanos: 50000000 }
    };
  }
  // Returns the report of a rollout.
  rpc GetReport(GetReportRequest) returns (google.api.HttpBody) {
    option (google.api.http) = { get: "/rollouts/{rollout_id}/report" };
  }
  // Attaches a file to a rollout.
  rpc Attach(AttachRequest) returns (AttachResponse) {
    option (google.api.http) = { post: "/rollouts/{rollout_id}/files" body: "file" };
  }
}
// A rollout of a build.
message Rollout {
  // Its id.
  string rollout_id = 1;
  Phase phase = 2; // How far it is.
  repeated Host hosts = 3;
  map<string, string> labels = 4;
  oneof end {
    string reason = 5;
    int64 code = 6;
  }
  optional bool dry = 7;
  message Host { string name = 1; }
}
// How far a rollout is.
enum Phase {
  PHASE_UNSPECIFIED = 0;
  // It is at work.
  PHASE_BUSY = 1 [(drawbridge.v1.enum_value).name = "busy"];
  PHASE_DONE = 2 [(drawbridge.v1.enum_value).name = "done"];
  PHASE_BROKEN = 3 [(drawbridge.v1.enum_value).name = "broken"];
}
message GetRolloutRequest { string rollout_id = 1 [(google.api.field_behavior) = REQUIRED]; }
message WatchRolloutRequest { string rollout_id = 1 [(google.api.field_behavior) = REQUIRED]; }
message WatchRolloutResponse {
  drawbridge.v1.WatchEvent event = 1;
  Rollout rollout = 2;
}
message GetReportRequest { string rollout_id = 1; }
message AttachRequest { string rollout_id = 1; google.api.HttpBody file = 2; }
message AttachResponse { string file_id = 1; }
"#;

fn compile(proto: &str) -> Source {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("acme.proto"), proto).unwrap();
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/proto");
    let mut compiler = protox::Compiler::new([folder.path(), own.as_ref()]).unwrap();
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_file("acme.proto")
        .unwrap();
    Source::new("acme.binpb", compiler.encode_file_descriptor_set())
}

/// Returns a command for this gateway, whose environment is empty.
pub fn command(gateway: &Gateway, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_drawbridge"));
    command
        .args(args)
        .env_clear()
        .env("DRAWBRIDGE_GATEWAY", gateway.running.grpc.to_string())
        .stdin(Stdio::null());
    command
}

/// Runs a command until it exits.
pub async fn output(mut command: Command) -> Output {
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    output.await.unwrap()
}

pub async fn run(gateway: &Gateway, args: &[&str]) -> Output {
    output(command(gateway, args)).await
}

/// Returns the output of a command that succeeds.
pub async fn ok(gateway: &Gateway, args: &[&str]) -> String {
    let out = run(gateway, args).await;
    assert_eq!(out.status.code(), Some(0), "{args:?} {out:?}");
    assert_eq!(text(&out.stderr), "", "{args:?}");
    text(&out.stdout).to_owned()
}

/// Returns standard error of a command that fails with this code and has no output.
pub async fn fails(gateway: &Gateway, args: &[&str], code: i32) -> String {
    let out = run(gateway, args).await;
    assert_eq!(out.status.code(), Some(code), "{args:?} {out:?}");
    assert_eq!(text(&out.stdout), "", "{args:?}");
    text(&out.stderr).to_owned()
}

pub async fn sandbox() -> (Sandbox, Gateway) {
    let settings = Settings {
        step: Duration::from_millis(20),
        ..Settings::default()
    };
    let sandbox = Sandbox::start(([127, 0, 0, 1], 0).into(), settings)
        .await
        .unwrap();
    let gateway = Gateway::with(quickstart::upstreams(&sandbox)).await;
    (sandbox, gateway)
}

pub fn stack(name: &str) -> String {
    let template = json!({"heat_template_version": "2018-08-31"});
    json!({"stack_name": name, "template_json": template}).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn rpcs_of_the_sandbox_are_called_with_json() {
    let (_sandbox, gateway) = sandbox().await;
    // Full and short names; a document per call.
    let created = ok(
        &gateway,
        &["call", "StackService/CreateStack", &stack("a"), &stack("b")],
    )
    .await;
    let documents = serde_json::Deserializer::from_str(&created).into_iter::<Value>();
    let documents: Vec<Value> = documents.map(Result::unwrap).collect();
    assert_eq!(documents.len(), 2, "{created}");
    assert!(documents[0]["stack"]["id"].is_string(), "{created}");
    let full = "openstack.orchestration.v1.StackService/GetStack";
    let got = ok(&gateway, &["call", full, r#"{"stackName": "a"}"#]).await;
    let got: Value = serde_json::from_str(&got).unwrap();
    assert_eq!(got["stack"]["stackName"], "a");

    // Names only, of a list and of several calls.
    let names = ok(&gateway, &["call", "ListStacks", "-o", "name"]).await;
    assert_eq!(names, "b\na\n");
    let (a, b) = (r#"{"stack_name": "a"}"#, r#"{"stack_name": "b"}"#);
    let names = ok(&gateway, &["call", "GetStack", a, "-d", b, "-o", "name"]).await;
    assert_eq!(names, "a\nb\n");

    // A stream has a line per message.
    let stream = ok(&gateway, &["call", "StreamStacks"]).await;
    let lines: Vec<Value> = stream
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "{stream}");
    assert_eq!(lines[0]["stack"]["stackName"], "b");

    // A file, and standard input.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("requests.json");
    std::fs::write(&file, format!("{a}\n{b}\n")).unwrap();
    let argument = format!("@{}", file.display());
    let names = ok(
        &gateway,
        &["call", "GetStack", "-d", &argument, "-o", "name"],
    )
    .await;
    assert_eq!(names, "a\nb\n");
    let mut command = command(&gateway, &["call", "GetStack", "-d", "@-", "-o", "name"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(a.as_bytes()).unwrap();
    let out = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap());
    assert_eq!(text(&out.await.unwrap().stdout), "a\n");

    // Names of created or changed resources, as the next command takes them.
    let submit = ["call", "SubmitService", r#"{"id": 2008}"#, "-o", "name"];
    let task = ok(&gateway, &submit).await;
    assert_eq!(task, "10001\n");
    let out = run(&gateway, &["watch", "task", task.trim(), "-o", "name"]).await;
    assert_eq!(text(&out.stdout), "10001\n", "{out:?}");
    let delete = ["call", "DeleteStack", b, "-o", "name"];
    assert_eq!(ok(&gateway, &delete).await, "b\n");

    // The metadata of an error.
    let missing = ["call", "GetStack", r#"{"stack_name": "missing"}"#, "-v"];
    let said = fails(&gateway, &missing, 1).await;
    assert!(said.contains("\nx-request-id: req-"), "{said}");
    assert!(said.contains("\ndrawbridge: NOT_FOUND: "), "{said}");
    assert!(!said.contains("grpc-status-details-bin"), "{said}");

    // One of several calls fails: the others are made.
    let missing = r#"{"stack_name": "missing"}"#;
    let out = run(&gateway, &["call", "GetStack", missing, a, "-o", "name"]).await;
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    assert_eq!(text(&out.stdout), "a\n");
    let said = text(&out.stderr);
    for part in [
        "drawbridge: NOT_FOUND: ",
        "\n  reason: EntityNotFound (heat), sent: true, ",
        "\n  request id: ",
    ] {
        assert!(said.contains(part), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_answered_with_what_exists() {
    let (_sandbox, gateway) = sandbox().await;
    for (args, want) in [
        (
            &["call", "GetStak"][..],
            "drawbridge: no rpc GetStak; did you mean StackService/GetStack",
        ),
        (
            &["call", "StackServce/ListStacks"],
            "no rpc StackServce/ListStacks; did you mean StackService/ListStacks?\n",
        ),
        (
            &["call", "StackService"],
            "StackService is a service; `drawbridge ls \
             openstack.orchestration.v1.StackService` lists its rpcs\n",
        ),
        (
            &["call", "Zzz"],
            "no rpc Zzz; `drawbridge ls` lists the services\n",
        ),
        (
            &["call", "ServerReflectionInfo"],
            "ServerReflectionInfo is ambiguous: \
             grpc.reflection.v1.ServerReflection/ServerReflectionInfo, \
             grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo\n",
        ),
        (
            &["call", "GetStack", r#"{"stack_nam": "x", "id": 1}"#],
            "drawbridge: stack_nam: GetStackRequest has no such field; did you mean stack_name? \
             (fields: project_id, stack_name, stack_id, resolve_outputs)\n\
             id: GetStackRequest has no such field; did you mean project_id or stack_id? \
             (fields: project_id, stack_name, stack_id, resolve_outputs)\n",
        ),
        (
            &["call", "GetStack", r#"{"stack_name": 7}"#],
            "drawbridge: stack_name: expected a string, found a JSON number\n",
        ),
        (
            &["call", "GetStack", "{stack}"],
            "drawbridge: the request: is not JSON: key must be a string at line 1 column 2\n",
        ),
        (
            &["call", "GetStack", "@/no/such"],
            "drawbridge: /no/such: No such file",
        ),
        (
            &["call", "GetStack", "-o", "yaml"],
            "drawbridge: -o yaml: StackService/GetStack is no download; write json or name\n",
        ),
        (
            &["call", "GetStack", "--data-file", "x"],
            "drawbridge: --data-file: GetStackRequest has no field that holds a file\n",
        ),
        (
            &[
                "call",
                "GetStack",
                r#"{"stack_name": "a", "stackName": "b"}"#,
            ],
            "drawbridge: stackName: the field is there twice\n",
        ),
        (
            &["call", "GetStack", "--metadata", "grpc-timeout=1S"],
            "drawbridge: --metadata grpc-timeout: give the deadline with --timeout, ",
        ),
        (
            &["call", "ListStacks", "--gateway", "127.0.0.1"],
            "drawbridge: --gateway 127.0.0.1: has no port: write http://HOST:PORT, ",
        ),
        (
            &["call", "ListUpstreams", "--upstream", "heat"],
            "drawbridge: --upstream: drawbridge.v1.GatewayService is served by the gateway ",
        ),
        (
            &["ls", "--upstream", "sandbox-heat"],
            "error: unexpected argument '--upstream' found",
        ),
        (
            &["describe", "Stack", "--upstream", "sandbox-heat"],
            "error: unexpected argument '--upstream' found",
        ),
        (
            &["ls", "--config", "drawbridge.toml"],
            "drawbridge: --config: `ls` reads no configuration file; serve, check, ",
        ),
        (
            &["call", "ImportServiceTemplate", "--data-file", "-"],
            "drawbridge: --data-file -: give the name of the file in the request, as in \
             '{\"file_name\": \"NAME\"}'\n",
        ),
        (
            &[
                "call",
                "ExportServiceTemplate",
                r#"{"id": 3001}"#,
                "-o",
                "name",
            ],
            "drawbridge: -o name: ServiceTemplateService/ExportServiceTemplate is a download, ",
        ),
        (
            &["ls", ""],
            "drawbridge: the name is empty; `drawbridge ls` lists the services\n",
        ),
        (&["describe", ""], "drawbridge: the name is empty; "),
        (&["call", ""], "drawbridge: the name is empty; "),
        (&["watch", ""], "drawbridge: write what to watch: stack, "),
        (
            &["describe", "Stak"],
            "drawbridge: no symbol Stak; did you mean Stack?\n",
        ),
        (
            &["ls", "StakService"],
            "drawbridge: no service or rpc StakService; did you mean ",
        ),
    ] {
        let said = fails(&gateway, args, 2).await;
        assert!(said.contains(want), "{args:?}: {said}");
    }
    // The port of the admin listener.
    let admin = format!("http://{}", gateway.running.admin.unwrap());
    let said = fails(&gateway, &["ls", "--gateway", &admin], 2).await;
    assert!(
        said.contains("this is the port of an admin listener"),
        "{said}"
    );
    // A field violation of the gateway, with its path.
    let said = fails(&gateway, &["call", "CreateStack", "{}"], 1).await;
    assert!(said.starts_with("drawbridge: INVALID_ARGUMENT: "), "{said}");
    assert!(said.contains("\n  field stack_name: "), "{said}");
    // No gateway.
    let mut nobody = command(&gateway, &["call", "ListStacks"]);
    nobody.env("DRAWBRIDGE_GATEWAY", nowhere().to_string());
    let out = output(nobody).await;
    assert_eq!(out.status.code(), Some(2), "{out:?}");
    assert!(
        text(&out.stderr).contains("cannot reach the gateway at "),
        "{out:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn file_is_uploaded_and_downloaded() {
    let (_sandbox, gateway) = sandbox().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("template.zip");
    let path = file.to_str().unwrap();
    let export = ["call", "ExportServiceTemplate", r#"{"id": 3001}"#];
    let said = ok(&gateway, &[&export[..], &["-o", path]].concat()).await;
    assert_eq!(said, "");
    let exported = std::fs::read(&file).unwrap();
    assert!(!exported.is_empty());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

    // To a pipe, the same bytes.
    let out = run(&gateway, &export).await;
    assert_eq!((out.status.code(), out.stdout), (Some(0), exported));

    let import = ["call", "ImportServiceTemplate", "--data-file"];
    let imported = ok(&gateway, &[&import[..], &[path]].concat()).await;
    assert!(imported.contains("actionResult"), "{imported}");

    // A download that fails leaves no file.
    let missing = ["call", "ExportServiceTemplate", r#"{"id": 9}"#, "-o"];
    let other = folder.path().join("other.zip");
    let args = [&missing[..], &[other.to_str().unwrap()]].concat();
    fails(&gateway, &args, 1).await;
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let said = fails(&gateway, &[&import[..], &["/no/such"]].concat(), 2).await;
    assert!(
        said.contains("--data-file /no/such: No such file"),
        "{said}"
    );
}

/// Starts a gateway for the API of a user.
pub async fn own_api() -> (Recorder, Gateway) {
    let recorder = Recorder::start(move |seen| match seen.path() {
        "/rollouts/r1" => Answer::json(200, &json!({"rolloutId": "r1", "phase": "done"})),
        "/rollouts/r2" => Answer::json(200, &json!({"rolloutId": "r2", "phase": "broken"})),
        "/rollouts/r1/report" => Answer::text(200, "text/plain", "all\nis well\n"),
        "/rollouts/r1/files" => Answer::json(200, &json!({"fileId": "f1"})),
        "/" => Answer::json(200, &json!({})),
        _ => Answer::json(404, &json!({"error": "no_such_rollout"})),
    })
    .await;
    let mut settings = settings(vec![upstream("acme-prod", "acme", &recorder.url())]);
    settings.descriptors = vec![compile(PROTO)];
    (recorder, Gateway::start(settings).await)
}

#[tokio::test]
async fn own_api_is_listed_described_and_called() {
    let (recorder, gateway) = own_api().await;
    let listed = ok(&gateway, &["ls"]).await;
    let own = listed.lines().find(|line| line.starts_with("acme.v1"));
    let own: Vec<&str> = own
        .unwrap()
        .split("  ")
        .filter(|part| !part.is_empty())
        .collect();
    let own: Vec<&str> = own.iter().map(|part| part.trim()).collect();
    assert_eq!(own, ["acme.v1.RolloutService", "4", "Rolls out builds"]);
    let listed = ok(&gateway, &["ls", "RolloutService"]).await;
    assert_eq!(
        listed,
        "GetRollout    unary     Returns a rollout\n\
         WatchRollout  watch     Watches a rollout\n\
         GetReport     download  Returns the report of a rollout\n\
         Attach        unary     Attaches a file to a rollout\n"
    );
    let names = ok(&gateway, &["ls", "rollout", "-o", "name"]).await;
    assert_eq!(names.lines().count(), 4, "{names}");
    assert!(
        names.starts_with("acme.v1.RolloutService/GetRollout\n"),
        "{names}"
    );
    let listed = ok(&gateway, &["ls", "GetReport", "-o", "json"]).await;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(
        listed,
        json!([{"method": "acme.v1.RolloutService/GetReport", "kind": "download",
            "request": "acme.v1.GetReportRequest", "response": "google.api.HttpBody",
            "route": "GET /rollouts/{rollout_id}/report",
            "comment": "Returns the report of a rollout."}])
    );

    for (symbol, want) in [
        (
            "GetRollout",
            "package acme.v1;

// Returns a rollout. Fails without one.
rpc GetRollout(GetRolloutRequest) returns (Rollout);  // GET /rollouts/{rollout_id}

message GetRolloutRequest {
  string rollout_id = 1 [(google.api.field_behavior) = REQUIRED];
}

// A rollout of a build.
message Rollout {
  // Its id.
  string rollout_id = 1;
  // How far it is.
  Phase phase = 2;
  repeated Rollout.Host hosts = 3;
  map<string, string> labels = 4;
  oneof end {
    string reason = 5;
    int64 code = 6;
  }
  optional bool dry = 7;

  message Host {
    string name = 1;
  }
}

Example:
  drawbridge call RolloutService/GetRollout '{\"rollout_id\":\"...\"}'
",
        ),
        (
            "Phase",
            "package acme.v1;

// How far a rollout is.
enum Phase {
  PHASE_UNSPECIFIED = 0;
  // It is at work.
  PHASE_BUSY = 1;
  PHASE_DONE = 2;
  PHASE_BROKEN = 3;
}
",
        ),
        (
            "Rollout.rollout_id",
            "message acme.v1.Rollout:\n\n// Its id.\nstring rollout_id = 1;\n",
        ),
    ] {
        assert_eq!(ok(&gateway, &["describe", symbol]).await, want);
    }
    let service = ok(&gateway, &["describe", "RolloutService"]).await;
    assert!(
        service.contains("\n// Rolls out builds. One at a time.\nservice "),
        "{service}"
    );
    let rpc = "\n  rpc WatchRollout(WatchRolloutRequest) returns (stream WatchRolloutResponse);";
    assert!(service.contains(rpc), "{service}");

    let got = ok(&gateway, &["call", "GetRollout", r#"{"rollout_id": "r1"}"#]).await;
    let got: Value = serde_json::from_str(&got).unwrap();
    assert_eq!(got, json!({"rolloutId": "r1", "phase": "PHASE_DONE"}));
    // Files as messages of google.api.HttpBody.
    let report = ["call", "GetReport", r#"{"rollout_id": "r1"}"#];
    assert_eq!(ok(&gateway, &report).await, "all\nis well\n");
    let as_json = ok(&gateway, &[&report[..], &["-o", "json"]].concat()).await;
    assert!(
        as_json.contains("\"contentType\": \"text/plain\""),
        "{as_json}"
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.bin");
    std::fs::write(&file, b"\0\x01\xff").unwrap();
    let request = r#"{"rollout_id": "r1", "file": {"content_type": "image/png"}}"#;
    let args = [
        "call",
        "Attach",
        request,
        "--data-file",
        file.to_str().unwrap(),
    ];
    assert!(ok(&gateway, &args).await.contains("f1"));
    let sent = recorder
        .seen()
        .into_iter()
        .find(|seen| seen.path().ends_with("/files"));
    let sent = sent.unwrap();
    assert_eq!(
        (&*sent.body, sent.header("content-type")),
        (&b"\0\x01\xff"[..], "image/png")
    );
}

#[tokio::test]
async fn tokens_are_sent_and_never_printed() {
    let recorder = Recorder::start(|_| Answer::json(200, &json!({"stacks": []}))).await;
    let mut config = settings(vec![upstream("u", "heat", &recorder.url())]);
    config.client_tokens = vec!["s3cret-token".into()];
    let gateway = Gateway::start(config).await;
    let with = |token: &'static str, args: &[&str]| {
        let mut command = command(&gateway, args);
        command.env("DRAWBRIDGE_TOKEN", token);
        output(command)
    };
    let list = ["call", "ListStacks", "-v"];
    let out = with("s3cret-token", &list).await;
    assert_eq!(out.status.code(), Some(0), "{out:?}");
    assert!(!format!("{out:?}").contains("s3cret"), "{out:?}");
    for (token, hint) in [
        ("", "\n  set the token in the variable DRAWBRIDGE_TOKEN\n"),
        ("wr0ng", "\n  check the token in DRAWBRIDGE_TOKEN\n"),
    ] {
        for args in [
            &list[..],
            &["ls"],
            &["describe", "Stack"],
            &["watch", "stack", "s"],
        ] {
            let out = with(token, args).await;
            let code = if args[0] == "watch" { 2 } else { 1 };
            assert_eq!(out.status.code(), Some(code), "{args:?} {out:?}");
            let said = text(&out.stderr);
            assert!(said.starts_with("drawbridge: UNAUTHENTICATED: "), "{said}");
            assert!(said.contains(hint), "{args:?} {said}");
            assert!(!said.contains("wr0ng"), "{said}");
        }
    }
}

#[tokio::test]
async fn deadline_and_interrupt_end_a_call() {
    let recorder = Recorder::start(|_| {
        let busy = json!({"stack": {"id": "1", "stack_name": "s",
            "stack_status": "CREATE_IN_PROGRESS"}});
        Answer::json(200, &busy)
    })
    .await;
    let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
    let watch = [
        "call",
        "WatchStack",
        r#"{"stack_name": "s", "stack_id": "1"}"#,
    ];
    let out = run(&gateway, &[&watch[..], &["--timeout", "1"]].concat()).await;
    assert_eq!(out.status.code(), Some(124), "{out:?}");
    let said = text(&out.stderr);
    assert!(
        said.starts_with("drawbridge: DEADLINE_EXCEEDED: ") && !said.contains("no response"),
        "{said}"
    );

    let mut child = command(&gateway, &watch)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    let code = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
        let id = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
        child.wait().unwrap().code()
    });
    assert_eq!(code.await.unwrap(), Some(130));
}

/// Runs the script of bash as it is called for a line.
#[tokio::test]
async fn completions_have_the_rpcs_of_the_gateway() {
    let (_recorder, gateway) = own_api().await;
    let complete = |line: &str, address: String| {
        let binary = std::path::Path::new(env!("CARGO_BIN_EXE_drawbridge"));
        let script = format!(
            "source <(drawbridge completions bash)\nCOMP_LINE='{line}'\n\
             COMP_POINT=${{#COMP_LINE}}\n_drawbridge\nprintf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let mut bash = Command::new("bash");
        bash.args(["-uc", &script])
            .env_clear()
            .env(
                "PATH",
                format!("{}:/usr/bin:/bin", binary.parent().unwrap().display()),
            )
            .env("DRAWBRIDGE_GATEWAY", address);
        output(bash)
    };
    let address = gateway.running.grpc.to_string();
    for (line, want) in [
        ("drawbridge call RolloutS", "RolloutService/GetRollout\n"),
        ("drawbridge call GetRoll", "GetRollout\n"),
        ("drawbridge watch Watch", "WatchRollout\n"),
        ("drawbridge ls Roll", "RolloutService\n"),
        (
            "drawbridge describe acme.v1.RolloutService",
            "acme.v1.RolloutService\n",
        ),
        ("drawbridge desc", "describe\n"),
        ("drawbridge ls -o ", "json\nname\n"),
        ("drawbridge call -o ", "json\nname\n"),
        ("drawbridge config example key", "keystone\n"),
    ] {
        // It waits only for a second, which a busy machine can exceed.
        let out = loop {
            let out = complete(line, address.clone()).await;
            if !text(&out.stdout).trim().is_empty() {
                break out;
            }
        };
        assert_eq!(text(&out.stderr), "", "{line}");
        assert!(text(&out.stdout).starts_with(want), "{line}: {out:?}");
    }
    // No gateway is there: no names, and no message.
    let out = complete("drawbridge call Get", nowhere().to_string()).await;
    assert_eq!((text(&out.stdout), text(&out.stderr)), ("\n", ""));
}
