//! An own descriptor set with rpcs that are not served: without a REST call, plain streams, and
//! those that the configuration leaves out.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use drawbridge::contract::{Selection, Source};
use serde_json::json;
use tonic::Code;
use tonic_types::StatusExt;

use crate::own_api::compile;
use crate::support::client::json as to_json;
use crate::support::recorder::{Answer, Recorder};
use crate::support::{Gateway, settings, start, upstream};
use crate::watch::metrics;

const PROTO: &str = r#"
syntax = "proto3";
package acme.v1;
import "google/api/annotations.proto";

service Orders {
  rpc GetOrder(Order) returns (Order) {
    option (google.api.http) = { get: "/orders/{id}" };
  }
  rpc CancelOrder(Order) returns (Order) {
    option (google.api.http) = { post: "/orders/{id}:cancel" };
  }
  rpc Audit(Order) returns (Order);
  rpc Follow(Order) returns (stream Order) {
    option (google.api.http) = { get: "/orders/{id}/events" };
  }
  rpc Send(stream Order) returns (Order);
  rpc Chat(stream Order) returns (stream Order);
}
service Internal {
  rpc Reset(Order) returns (Order);
  rpc Dump(Order) returns (Order);
}
message Order { string id = 1; }
"#;

fn selected(include: &[&str], exclude: &[&str]) -> Source {
    let owned = |entries: &[&str]| entries.iter().map(|entry| (*entry).to_owned()).collect();
    Source {
        selection: Selection {
            include: owned(include),
            exclude: owned(exclude),
        },
        ..compile(PROTO).unwrap()
    }
}

async fn orders() -> Recorder {
    Recorder::start(|_| Answer::json(200, &json!({"id": "o1"}))).await
}

#[tokio::test]
async fn other_rpcs_of_the_set_are_served() {
    let recorder = orders().await;
    let mut settings = settings(vec![upstream("acme", "acme.v1", &recorder.url())]);
    settings.descriptors = vec![selected(&[], &["acme.v1.Orders.CancelOrder"])];
    let gateway = Gateway::start(settings).await;
    let client = &gateway.client;
    let id = || json!({"id": "o1"});
    let order = client.call("acme.v1.Orders/GetOrder", id()).await.unwrap();
    assert_eq!(to_json(&order), id());
    recorder.take();

    for (rpc, want) in [
        (
            "Orders/Audit",
            "it has no `google.api.http`: annotate the REST call",
        ),
        (
            "Orders/CancelOrder",
            "`include` or `exclude` of its descriptor set",
        ),
        ("Internal/Reset", "it has no `google.api.http`"),
    ] {
        let status = client
            .call(&format!("acme.v1.{rpc}"), id())
            .await
            .unwrap_err();
        check(&status, rpc, want);
    }
    let follow = client.watch("acme.v1.Orders/Follow", id(), &[]).await;
    check(
        &follow.err().unwrap(),
        "Orders/Follow",
        "it is server-streaming: set `watch`, `pages` or `download`",
    );
    assert!(recorder.take().iter().all(|seen| seen.path() == "/"));
    let text = metrics(&gateway).await;
    assert!(
        text.contains(r#"operation="acme.v1.Orders/Audit",upstream="",code="UNIMPLEMENTED"} 1"#),
        "{text}"
    );

    // A service without a served rpc is unknown to health and reflection.
    let health = |service: &'static str| crate::server::health(&gateway, service);
    assert_eq!(health("acme.v1.Orders").await.unwrap(), "Serving");
    assert_eq!(
        health("acme.v1.Internal").await.unwrap_err().code(),
        Code::NotFound
    );
    let services = crate::server::services(&gateway).await;
    assert!(
        services.contains(&"acme.v1.Orders".to_owned()),
        "{services:?}"
    );
    assert!(
        !services.contains(&"acme.v1.Internal".to_owned()),
        "{services:?}"
    );
    assert!(
        services.contains(&"grpc.reflection.v1.ServerReflection".to_owned()),
        "{services:?}"
    );
}

fn check(status: &tonic::Status, rpc: &str, want: &str) {
    assert_eq!(status.code(), Code::Unimplemented, "{rpc}");
    let name = rpc.replace('/', ".");
    let want = format!("acme.v1.{name} (acme/v1/rollout.proto) is not served: {want}");
    assert!(status.message().starts_with(&want), "{}", status.message());
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!(info.reason, "RPC_NOT_SERVED");
    assert_eq!(info.metadata["sent"], "false");
    assert_eq!(info.metadata["operation"], format!("acme.v1.{rpc}"));
}

#[tokio::test]
async fn selection_that_serves_nothing_stops_the_start() {
    let cases = [
        (
            &["acme.v1.Orders.Audit"][..],
            "acme.v1.Orders.Audit: google.api.http: `include` selects",
        ),
        (
            &["acme.v1.Internal"],
            "acme.v1.Internal: include: selects no rpc that can be served",
        ),
    ];
    for (include, want) in cases {
        let mut settings = settings(vec![upstream("acme", "acme.v1", "http://127.0.0.1:1")]);
        settings.descriptors = vec![selected(include, &[])];
        let problems = start(settings).await.unwrap_err().join("\n");
        assert!(problems.contains(want), "{problems}");
    }
    let mut settings =
        crate::support::settings(vec![upstream("acme", "acme.v1", "http://127.0.0.1:1")]);
    settings.descriptors = vec![selected(&[], &["acme"])];
    let problems = start(settings.clone()).await.unwrap_err().join("\n");
    let file = settings.descriptors[0].name.clone();
    let want = format!("{file}: no rpc of this descriptor set is served: `exclude` leaves out");
    assert!(problems.contains(&want), "{problems}");
    settings.descriptors[0].bytes.clear();
    let problems = start(settings).await.unwrap_err().join("\n");
    let want = format!("{file}: not a complete descriptor set (it has no file): create one");
    assert!(problems.contains(&want), "{problems}");

    // The family of the upstream is that of a service without a served rpc: both are said.
    let mut settings =
        crate::support::settings(vec![upstream("acme", "acme.v1", "http://127.0.0.1:1")]);
    let plain = PROTO.replace("option (google.api.http)", "// option");
    settings.descriptors = vec![compile(&plain).unwrap()];
    let problems = start(settings).await.unwrap_err().join("\n");
    assert!(
        problems.contains("upstream acme: no rpc has the family acme.v1"),
        "{problems}"
    );
    assert!(
        problems.contains("acme.v1.Orders: no rpc of this service is served"),
        "{problems}"
    );
}

/// `check` lists what is not served, and the log of `serve` has a warning for each.
#[tokio::test]
async fn check_and_serve_say_what_is_left_out() {
    let recorder = orders().await;
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    std::fs::write(at("acme.binpb"), compile(PROTO).unwrap().bytes).unwrap();
    let config = format!(
        "[[descriptors]]\nfile = 'acme.binpb'\nexclude = ['acme.v1.Orders/CancelOrder']\n\
         [[upstream]]\nname = 'acme'\nfamily = 'acme.v1'\nendpoint = '{}'\n\
         auth = {{ kind = 'none' }}\n",
        recorder.url()
    );
    std::fs::write(at("drawbridge.toml"), config).unwrap();
    let command = |name: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_drawbridge"));
        command
            .args([name, "--config"])
            .arg(at("drawbridge.toml"))
            .env_clear()
            .env("DRAWBRIDGE_LISTEN", "127.0.0.1:0")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    };
    let mut check = command("check");
    let output = tokio::task::spawn_blocking(move || check.output())
        .await
        .unwrap()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let named = |kind: &str| -> Vec<String> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(kind));
        let names = lines.filter_map(|line| line.split(": ").nth(1));
        names.map(ToOwned::to_owned).collect()
    };
    assert_eq!(
        named("warning: "),
        [
            "acme.v1.Internal",
            "acme.v1.Orders.Audit",
            "acme.v1.Orders.Chat",
            "acme.v1.Orders.Follow",
            "acme.v1.Orders.Send",
        ]
    );
    assert_eq!(named("not selected: "), ["acme.v1.Orders.CancelOrder"]);

    let mut child = command("serve").spawn().unwrap();
    let mut banner = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut banner).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let mut log = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut log)
        .unwrap();
    assert!(banner.starts_with("drawbridge serves"), "{banner}{log}");
    let warnings = log.lines().filter(|line| line.contains("served: ")).count();
    assert_eq!(warnings, 5, "{log}");
}
