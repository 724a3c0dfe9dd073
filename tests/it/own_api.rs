//! A REST API that is served from a descriptor set of the user.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use drawbridge::config::Config;
use drawbridge::contract::Source;
use serde_json::json;
use tonic::Code;
use tonic_types::StatusExt;

use crate::support::client::json as to_json;
use crate::support::recorder::{Answer, Recorder};
use crate::support::{Gateway, settings, upstream};
use crate::watch::metrics;

pub const PROTO: &str = r#"
syntax = "proto3";
package acme.v1;
import "drawbridge/v1/options.proto";
import "drawbridge/v1/watch.proto";
import "google/api/annotations.proto";
import "google/api/field_behavior.proto";

option (drawbridge.v1.file) = { family: "acme" naming: NAMING_JSON_NAMES };

service RolloutService {
  rpc GetRollout(GetRolloutRequest) returns (Rollout) {
    option (google.api.http) = { get: "/api/teams/{team}/rollouts/{rollout_id}" };
    option idempotency_level = NO_SIDE_EFFECTS;
  }
  rpc StartRollout(StartRolloutRequest) returns (StartRolloutResponse) {
    option (google.api.http) = {
      post: "/api/teams/{team}/rollouts" body: "rollout" response_body: "rollout"
    };
  }
  rpc WatchRollout(WatchRolloutRequest) returns (stream WatchRolloutResponse) {
    option (google.api.http) = { get: "/api/teams/{team}/rollouts/{rollout_id}" };
    option (drawbridge.v1.method).watch = {
      poll: "GetRollout" state: "phase" succeeded: "done" failed: "broken"
      initial_interval: { nanos: 20000000 } max_interval: { nanos: 50000000 }
    };
    option idempotency_level = NO_SIDE_EFFECTS;
  }
}
message Rollout {
  string rollout_id = 1;
  string phase = 2;
  int64 build_number = 3;
  repeated string host_names = 4;
}
message GetRolloutRequest {
  string team = 1 [(google.api.field_behavior) = REQUIRED];
  string rollout_id = 2;
  bool with_hosts = 3;
}
message StartRolloutRequest {
  string team = 1;
  Rollout rollout = 2 [(google.api.field_behavior) = REQUIRED];
  string dry_run = 3;
}
message StartRolloutResponse { Rollout rollout = 1; }
message WatchRolloutRequest {
  string team = 1 [(google.api.field_behavior) = REQUIRED];
  string rollout_id = 2;
  bool with_hosts = 3;
}
message WatchRolloutResponse {
  drawbridge.v1.WatchEvent event = 1;
  Rollout rollout = 2;
}
"#;

/// Compiles a proto as a user would, with the options from `proto/`.
pub fn compile(proto: &str) -> Result<Source, String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("acme/v1")).unwrap();
    std::fs::write(folder.path().join("acme/v1/rollout.proto"), proto).unwrap();
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/proto");
    let mut compiler = protox::Compiler::new([folder.path(), own.as_ref()]).unwrap();
    compiler
        .include_imports(true)
        .open_file("acme/v1/rollout.proto")
        .map_err(|e| format!("{e:?}"))?;
    Ok(Source::new(
        "rollout.binpb",
        compiler.encode_file_descriptor_set(),
    ))
}

#[tokio::test]
async fn own_api_is_called_and_watched() {
    let phase = Arc::new(AtomicUsize::new(0));
    let polls = phase.clone();
    let recorder = Recorder::start(move |seen| match (seen.method.as_str(), seen.path()) {
        ("GET", "/api/teams/a%20b/rollouts/r1") => {
            let phase = ["busy", "busy", "done"][polls.fetch_add(1, Ordering::SeqCst).min(2)];
            Answer::json(
                200,
                &json!({"rolloutId": "r1", "phase": phase, "buildNumber": 9007199254740993_i64,
                    "hostNames": ["h1", "h2"], "unknown": {"x": 1}}),
            )
        }
        ("POST", "/api/teams/t/rollouts") => Answer::json(201, &json!({"rolloutId": "r2"})),
        ("GET", "/") => Answer::json(200, &json!({})),
        _ => Answer::json(
            404,
            &json!({"error": "no_such_rollout", "error_description": "look elsewhere"}),
        ),
    })
    .await;
    let mut settings = settings(vec![upstream("acme-prod", "acme", &recorder.url())]);
    settings.descriptors = vec![compile(PROTO).unwrap()];
    let gateway = Gateway::start(settings).await;
    let client = &gateway.client;

    // A watch until the final state.
    let request = json!({"team": "a b", "rollout_id": "r1", "with_hosts": true});
    let mut watch = client
        .watch("RolloutService/WatchRollout", request.clone(), &[])
        .await
        .unwrap();
    assert_eq!(watch.event().await["rollout"]["phase"], "busy");
    let last = watch.event().await;
    assert_eq!(last["rollout"]["phase"], "done");
    assert_eq!(last["event"]["outcome"], "OUTCOME_SUCCEEDED");
    assert!(watch.next().await.is_none());

    // Path, query, names, a number beyond a double.
    let got = to_json(
        &client
            .call("RolloutService/GetRollout", request)
            .await
            .unwrap(),
    );
    assert_eq!(
        got,
        json!({"rollout_id": "r1", "phase": "done", "build_number": 9007199254740993_i64,
            "host_names": ["h1", "h2"]})
    );
    let seen = recorder
        .seen()
        .into_iter()
        .rfind(|s| s.path() != "/")
        .unwrap();
    assert_eq!(seen.target, "/api/teams/a%20b/rollouts/r1?withHosts=true");

    // A body of one field, a bare response, the rest in the query.
    let got = client
        .call(
            "RolloutService/StartRollout",
            json!({"team": "t", "dry_run": "no & yes",
                "rollout": {"build_number": 7, "host_names": ["h"]}}),
        )
        .await
        .unwrap();
    assert_eq!(to_json(&got), json!({"rollout": {"rollout_id": "r2"}}));
    let seen = recorder
        .seen()
        .into_iter()
        .rfind(|s| s.method == "POST")
        .unwrap();
    assert_eq!(seen.target, "/api/teams/t/rollouts?dryRun=no%20%26%20yes");
    assert_eq!(seen.json(), json!({"buildNumber": 7, "hostNames": ["h"]}));

    // Errors are mapped by the common table, with details.
    let status = client
        .call(
            "RolloutService/GetRollout",
            json!({"team": "t", "rollout_id": "x"}),
        )
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(
        status.message().contains("look elsewhere"),
        "{}",
        status.message()
    );
    assert_eq!(
        status.get_error_details().error_info().unwrap().reason,
        "no_such_rollout"
    );
    let status = client
        .call("RolloutService/GetRollout", json!({"rollout_id": "x"}))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);

    // Metrics, health and reflection include the service.
    let text = metrics(&gateway).await;
    assert!(
        text.contains(
            r#"operation="acme.v1.RolloutService/GetRollout",upstream="acme-prod",code="NOT_FOUND""#
        ),
        "{text}"
    );
    let health = crate::server::health(&gateway, "acme.v1.RolloutService")
        .await
        .unwrap();
    assert_eq!(health, "Serving");
    let services = crate::server::services(&gateway).await;
    assert!(
        services.contains(&"acme.v1.RolloutService".to_owned()),
        "{services:?}"
    );
}

#[tokio::test]
async fn invalid_annotation_stops_the_start() {
    for (from, to, want) in [
        (
            "rollouts/{rollout_id}\" };\n    option idempotency_level",
            "rollouts/{rollout}\" };\n    option idempotency_level",
            [
                "acme/v1/rollout.proto",
                "GetRollout",
                "google.api.http",
                "rollout",
            ],
        ),
        (
            "poll: \"GetRollout\"",
            "poll: \"GetRollot\"",
            [
                "acme/v1/rollout.proto",
                "WatchRollout",
                "watch",
                "GetRollot",
            ],
        ),
        (
            "body: \"rollout\"",
            "body: \"rolout\"",
            [
                "acme/v1/rollout.proto",
                "StartRollout",
                "google.api.http",
                "rolout",
            ],
        ),
        (
            "state: \"phase\"",
            "state: \"fase\"",
            ["acme/v1/rollout.proto", "WatchRollout", "state", "fase"],
        ),
    ] {
        let proto = PROTO.replace(from, to);
        assert_ne!(proto, PROTO, "{from}");
        let mut settings = settings(vec![upstream("a", "acme", "http://127.0.0.1:1")]);
        settings.descriptors = vec![compile(&proto).unwrap()];
        let problems = crate::support::start(settings)
            .await
            .unwrap_err()
            .join("\n");
        for part in want {
            assert!(problems.contains(part), "{part} not in {problems}");
        }
    }
}

/// Follows docs/own-api.md: compiles with the import paths of its command, configures with its
/// lines, watches with its call.
#[tokio::test]
async fn documented_own_api_is_served() {
    let readme = include_str!("../../docs/own-api.md");
    let (_, section) = readme.split_once("<!-- own api -->").unwrap();
    let (section, _) = section.split_once("<!-- /own api -->").unwrap();
    let block = |kind: &str| {
        let (_, rest) = section.split_once(&format!("```{kind}\n")).unwrap();
        rest.split_once("```").unwrap().0
    };
    let after = |text: &'static str, what: &str| {
        let (_, rest) = text.split_once(what).unwrap_or_else(|| panic!("{what}"));
        rest.split_whitespace().next().unwrap()
    };

    // As protoc in a directory with a clone of the project.
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::os::unix::fs::symlink(env!("CARGO_MANIFEST_DIR"), at("drawbridge")).unwrap();
    std::fs::write(at("acme.proto"), block("proto")).unwrap();
    let protoc = section.lines().find(|line| line.starts_with("protoc "));
    let protoc = protoc.unwrap();
    assert!(protoc.contains("--include_imports") && protoc.ends_with(" acme.proto"));
    let imports = protoc.split(" -I ").skip(1);
    let imports = imports.map(|rest| at(rest.split(' ').next().unwrap()));
    let mut compiler = protox::Compiler::new(imports).unwrap();
    compiler.include_imports(true);
    compiler.open_file("acme.proto").unwrap();
    let set = compiler.encode_file_descriptor_set();
    std::fs::write(at(after(protoc, "--descriptor_set_out=")), set).unwrap();

    let polls = AtomicUsize::new(0);
    let recorder = Recorder::start(move |seen| {
        assert_eq!(seen.target, "/api/rollouts/r1");
        let phase = ["running", "done"][polls.fetch_add(1, Ordering::SeqCst).min(1)];
        Answer::json(200, &json!({"rollout_id": "r1", "phase": phase}))
    })
    .await;
    let lines = block("toml");
    let endpoint = after(lines, "endpoint = ").trim_matches('"');
    let lines = lines.replace(endpoint, &recorder.url());
    std::fs::write(at("drawbridge.toml"), lines).unwrap();
    let coverage = std::process::Command::new(env!("CARGO_BIN_EXE_drawbridge"))
        .arg("coverage")
        .arg("--config")
        .arg(at("drawbridge.toml"))
        .env_clear()
        .output()
        .unwrap();
    let coverage = String::from_utf8(coverage.stdout).unwrap();
    assert!(coverage.contains("GetRollout"), "{coverage}");
    let mut config = Config::load(&at("drawbridge.toml"), &|_| None).unwrap();
    let free = crate::support::settings(Vec::new());
    (config.listen, config.admin) = (free.listen, free.admin);
    let gateway = Gateway::start(config).await;

    let watch = after(section, "127.0.0.1:50051 ");
    let (_, request) = section.split_once("grpcurl -plaintext -d '").unwrap();
    let (request, _) = request.split_once('\'').unwrap();
    let request: serde_json::Value = serde_json::from_str(request).unwrap();
    let watch = gateway.client.watch(watch, request.clone(), &[]).await;
    let mut watch = watch.unwrap();
    assert_eq!(watch.event().await["rollout"]["phase"], "running");
    let last = watch.event().await;
    assert_eq!(last["rollout"]["phase"], "done");
    assert_eq!(last["event"]["outcome"], "OUTCOME_SUCCEEDED");
    assert!(watch.next().await.is_none());
    let got = gateway.client.call("RolloutService/GetRollout", request);
    let got = to_json(&got.await.unwrap());
    assert_eq!(got, json!({"rollout_id": "r1", "phase": "done"}));
    gateway.running.stop().await.unwrap();
}
