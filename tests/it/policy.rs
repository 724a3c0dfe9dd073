//! The policy end to end: what it denies is never sent, in all protocols and by all kinds of rpcs;
//! and clients see only what they may use.

use std::process::Command;

use drawbridge::config::ClientToken;
use drawbridge::policy::{Pattern, Rule, ValuePattern};
use prost::Message as _;
use serde_json::json;
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic_reflection::pb::v1;
use tonic_types::StatusExt;

use crate::support::recorder::{Answer, Recorder};
use crate::support::web::{self, Version};
use crate::support::{Gateway, settings, upstream};

const GET: &str = "StackService/GetStack";
const CI: (&str, &str) = ("drawbridge-token", "token-of-ci");
const OPS: (&str, &str) = ("drawbridge-token", "token-of-ops");

fn rule(identity: &str) -> Rule {
    Rule {
        name: format!("for {identity}"),
        place: "d.toml:7".to_owned(),
        identities: vec![Pattern::new(identity)],
        upstreams: Vec::new(),
        services: Vec::new(),
        methods: Vec::new(),
        read_only: false,
        fields: Vec::new(),
    }
}

fn methods(names: &[&str]) -> Vec<Pattern> {
    names.iter().map(|name| Pattern::new(name)).collect()
}

/// Starts a gateway with clients `ci` and `ops`, and an upstream of each family.
async fn gateway(recorder: &Recorder, rules: Vec<Rule>) -> Gateway {
    let families = ["heat", "servicestage", "jp1ao"];
    let upstreams = families.map(|family| upstream(family, family, &recorder.url()));
    let mut other = upstream("other", "heat", &recorder.url());
    other.is_default = false;
    let mut config = settings(upstreams.into_iter().chain([other]).collect());
    config.client_tokens = [("ci", CI.1), ("ops", OPS.1)]
        .map(|(name, token)| ClientToken::named(name, &token.into()))
        .to_vec();
    config.policy = rules;
    Gateway::start(config).await
}

async fn recorder() -> Recorder {
    Recorder::fixed(Answer::json(404, &json!({}))).await
}

#[tokio::test]
async fn what_no_rule_allows_is_never_sent() {
    let recorder = recorder().await;
    let gateway = gateway(&recorder, vec![rule("ops")]).await;
    let contract = drawbridge::contract::with_built_in(&[]).unwrap();
    let address = gateway.running.grpc;
    let mut count = 0;
    for method in contract.methods() {
        let is_unary = !method.is_stream() && method.upload.is_none();
        for (content_type, body) in [
            ("application/grpc", web::frame(0, b"")),
            ("application/grpc-web+proto", web::frame(0, b"")),
            ("application/grpc-web-text", b"AAAAAAA=".to_vec()),
            ("application/json", b"{}".to_vec()),
            ("application/connect+json", web::frame(0, b"{}")),
        ] {
            let (is_json, is_connect_stream) = (
                content_type == "application/json",
                content_type == "application/connect+json",
            );
            if is_json && !is_unary || is_connect_stream && is_unary {
                continue;
            }
            let headers = [("content-type", content_type), CI];
            let path = &method.path;
            let sent = web::send(address, Version::Http2, "POST", path, &headers, body).await;
            let text = format!("{path} {content_type}: {sent:?}");
            match content_type {
                "application/json" => {
                    assert_eq!(sent.json()["code"], "permission_denied", "{text}")
                }
                "application/connect+json" => {
                    assert!(sent.text().contains("permission_denied"), "{text}");
                }
                _ => assert_eq!(sent.header("grpc-status"), "7", "{text}"),
            }
            count += 1;
        }
    }
    assert!(count > 400, "{count}");
    assert_eq!(recorder.seen().len(), 0);
    // The same calls of another client are sent.
    let status = gateway
        .client
        .call_with(GET, json!({"stack_name": "a", "stack_id": "b"}), &[OPS]);
    assert_eq!(status.await.unwrap_err().code(), Code::NotFound);
    assert_eq!(recorder.seen().len(), 1);
}

#[tokio::test]
async fn field_rule_is_checked_before_and_after_the_name_lookup() {
    // Heat finds stacks by id, too, and by names in other cases.
    let recorder = Recorder::start(|seen| {
        let found = match seen.path() {
            "/v1/p1/stacks/shop-1" => "/p1/stacks/shop-1/s1",
            "/v1/p1/stacks/shop-2" => "/p1/stacks/other/s2",
            _ => return Answer::json(200, &json!({"stack": {"id": "s1", "stack_name": "shop-1"}})),
        };
        Answer::json(302, &json!({})).with("location", &format!("http://heat.example/v1{found}"))
    })
    .await;
    let shop = Rule {
        fields: vec![("stack_name".to_owned(), vec![ValuePattern::new("shop-*")])],
        ..rule("ci")
    };
    let gateway = gateway(&recorder, vec![shop]).await;
    let call = async |json| gateway.client.call_with(GET, json, &[CI]).await;
    call(json!({"stack_name": "shop-1"})).await.unwrap();
    assert_eq!(recorder.seen().len(), 2);
    for json in [
        json!({}),
        json!({"stack_name": "other"}),
        json!({"stack_id": "s1"}),
        json!({"stack_name": "shop-1", "stack_id": "s2"}),
        json!({"stack_name": "shop-1/../other"}),
        json!({"stack_name": "Shop-1"}),
    ] {
        let status = call(json.clone()).await.unwrap_err();
        assert_eq!(
            status.code(),
            Code::PermissionDenied,
            "{json} {}",
            status.message()
        );
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.reason, "POLICY_DENIED");
        assert_eq!(info.metadata["identity"], "token:ci");
        assert_eq!(info.metadata["rule"], "for ci");
        assert_eq!(info.metadata["sent"], "false");
    }
    assert_eq!(recorder.seen().len(), 2, "nothing of these is sent");
    // Only the lookup is sent, which finds another stack.
    let status = call(json!({"stack_name": "shop-2"})).await.unwrap_err();
    assert_eq!(
        status.code(),
        Code::PermissionDenied,
        "{}",
        status.message()
    );
    assert_eq!(recorder.seen().len(), 3);
    let watch = "StackService/WatchStack";
    let json = json!({"stack_name": "x"});
    let status = match gateway.client.watch(watch, json, &[CI]).await {
        Ok(mut stream) => stream.next().await.unwrap().unwrap_err(),
        Err(status) => status,
    };
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(recorder.seen().len(), 3);
}

#[tokio::test]
async fn clients_see_only_what_they_may_use() {
    let recorder = recorder().await;
    let rules = vec![
        Rule {
            upstreams: methods(&["heat"]),
            methods: methods(&["GetStack"]),
            ..rule("ci")
        },
        rule("ops"),
    ];
    let gateway = gateway(&recorder, rules).await;
    // One that does not exist, one that the client may not use.
    for upstream in ["none", "other"] {
        let named = ("drawbridge-upstream", upstream);
        let json = json!({"stack_name": "a", "stack_id": "b"});
        let status = gateway
            .client
            .call_with(GET, json, &[CI, named])
            .await
            .unwrap_err();
        assert_eq!(
            status.code(),
            Code::PermissionDenied,
            "{}",
            status.message()
        );
        assert!(!status.message().contains("jp1ao"), "{}", status.message());
    }
    let list = "GatewayService/ListUpstreams";
    for (client, want) in [(CI, 1), (OPS, 4)] {
        let response = gateway
            .client
            .call_with(list, json!({}), &[client])
            .await
            .unwrap();
        let text = crate::support::client::json(&response.into_inner()).to_string();
        assert_eq!(text.matches("\"family\"").count(), want, "{text}");
    }
    use v1::server_reflection_request::MessageRequest;
    use v1::server_reflection_response::MessageResponse;
    let reflect = async |client: (&'static str, &'static str), message: MessageRequest| {
        let channel = gateway.client.channel.clone();
        let mut reflection = v1::server_reflection_client::ServerReflectionClient::new(channel);
        let request = v1::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(message),
        };
        let mut request = tonic::Request::new(tokio_stream::once(request));
        request
            .metadata_mut()
            .insert(client.0, client.1.parse().unwrap());
        let mut responses = reflection
            .server_reflection_info(request)
            .await
            .unwrap()
            .into_inner();
        let response = responses.next().await.unwrap().unwrap();
        response.message_response.unwrap()
    };
    let services =
        async |client| match reflect(client, MessageRequest::ListServices(String::new())).await {
            MessageResponse::ListServicesResponse(list) => {
                list.service.into_iter().map(|s| s.name).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        };
    let of_ci = services(CI).await;
    let own = |name: &&String| !name.starts_with("grpc.") && !name.starts_with("drawbridge.");
    let of_ci: Vec<_> = of_ci.iter().filter(own).collect();
    assert_eq!(of_ci, ["openstack.orchestration.v1.StackService"]);
    assert!(services(OPS).await.len() > 20);
    let symbol = |name: &str| MessageRequest::FileContainingSymbol(name.to_owned());
    let template = "openstack.orchestration.v1.TemplateService";
    assert!(matches!(
        reflect(CI, symbol(template)).await,
        MessageResponse::ErrorResponse(error) if error.error_code == Code::NotFound as i32
    ));
    for (client, want) in [(CI, 1), (OPS, 10)] {
        let found = reflect(client, symbol("openstack.orchestration.v1.StackService")).await;
        let MessageResponse::FileDescriptorResponse(files) = found else {
            panic!("{found:?}");
        };
        let file = &files.file_descriptor_proto[0];
        let file = prost_types::FileDescriptorProto::decode(&**file).unwrap();
        assert!(file.service[0].method.len() >= want);
        assert!(client == OPS || file.service[0].method.len() == want);
    }
}

/// Returns the standard output of `drawbridge check` with these arguments, and its exit code.
fn check(config: &std::path::Path, arguments: &[&str]) -> (String, i32) {
    let output = Command::new(env!("CARGO_BIN_EXE_drawbridge"))
        .args(["check", "--config"])
        .arg(config)
        .args(arguments)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        String::from_utf8(text).unwrap(),
        output.status.code().unwrap(),
    )
}

#[test]
fn check_names_the_deciding_rule() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("d.toml");
    let rules = "[[policy]]\nidentities = ['ops']\n\
                 [[policy]]\nname = 'shop'\nidentities = ['token:ci']\nmethods = ['*Stack']\n\
                 fields = { stack_name = ['shop-*', 'cart'] }\n\
                 [[upstream]]\nname = 'north'\nfamily = 'heat'\nendpoint = 'https://h.test/v1'\n";
    std::fs::write(&path, rules).unwrap();
    let file = path.display();
    for (arguments, want, code) in [
        (
            vec!["--as", "token:ops", GET],
            format!(
                "allow: openstack.orchestration.v1.{GET} of upstream north: {file}:1: rule `policy 1`"
            ),
            0,
        ),
        (
            vec!["--as", "token:ci", GET, "{\"stackName\": \"cart\"}"],
            format!("{file}:3: rule `shop`"),
            0,
        ),
        (
            vec!["--as", "token:ci", GET, "{\"stackId\": \"s\"}"],
            format!(
                "deny: openstack.orchestration.v1.{GET} of upstream north: {file}:3: token:ci may"
            ),
            1,
        ),
        (
            vec!["--as", "token:ci", GET],
            "give the request as JSON".to_owned(),
            1,
        ),
        (
            vec!["--as", "anonymous", GET],
            "no rule allows anonymous".to_owned(),
            1,
        ),
        (vec!["--as", "ci", GET], "is not an identity".to_owned(), 2),
        (
            vec!["--as", "token:ci", "StackService/GetStak"],
            "did you mean StackService/GetStack?".to_owned(),
            2,
        ),
        (
            vec!["--as", "token:ci", GET, "{"],
            "the request:".to_owned(),
            2,
        ),
        (vec!["--as", "token:ci"], "SERVICE/METHOD".to_owned(), 2),
    ] {
        let (text, found) = check(&path, &arguments);
        assert!(text.contains(&want), "{arguments:?}: {text}");
        assert_eq!(found, code, "{arguments:?}: {text}");
    }
    let wrong = rules.replace("'*Stack'", "'GetStak'");
    std::fs::write(&path, wrong).unwrap();
    for arguments in [vec![], vec!["--as", "token:ci", GET]] {
        let (text, code) = check(&path, &arguments);
        let want =
            format!("{file}:3: policy.methods: GetStak is not an rpc, did you mean GetStack?");
        assert!(text.contains(&want), "{text}");
        assert_eq!(code, 1);
    }
}

/// Returns the lines of an audit log, once there are `count`.
async fn audit_lines(path: &std::path::Path, count: usize) -> Vec<serde_json::Value> {
    loop {
        let text = std::fs::read_to_string(path).unwrap();
        if text.lines().count() >= count {
            let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
            return lines.collect();
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn changes_and_rejections_are_in_the_audit_log() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let recorder = Recorder::start(|seen| match &*seen.method {
        "DELETE" => Answer::json(204, &json!(null)).with("x-openstack-request-id", "req-of-heat"),
        _ => Answer::json(200, &json!({"stack": {"id": "s1", "stack_name": "shop-1"}})),
    })
    .await;
    let mut config = settings(vec![upstream("north", "heat", &recorder.url())]);
    config.client_tokens = vec![ClientToken::named("ci", &CI.1.into())];
    config.policy = vec![Rule {
        methods: methods(&["GetStack", "DeleteStack"]),
        ..rule("ci")
    }];
    config.audit = Some(drawbridge::telemetry::AuditSettings {
        log: false,
        file: Some(path.clone()),
    });
    let gateway = Gateway::start(config).await;
    let stack = || json!({"stack_name": "shop-1", "stack_id": "s1"});
    let id = ("x-request-id", "r-1");
    let call = async |method: &str, json, metadata: &[(&str, &str)]| {
        gateway
            .client
            .call_with(method, json, metadata)
            .await
            .map(drop)
    };
    // A read is in no line.
    call(GET, stack(), &[CI]).await.unwrap();
    call("StackService/DeleteStack", stack(), &[CI, id])
        .await
        .unwrap();
    call("StackService/AbandonStack", stack(), &[CI])
        .await
        .unwrap_err();
    call(GET, stack(), &[("drawbridge-token", "secret-guess"), id])
        .await
        .unwrap_err();
    call(GET, stack(), &[CI, ("grpc-encoding", "zstd")])
        .await
        .unwrap_err();
    let lines = audit_lines(&path, 4).await;
    let text = std::fs::read_to_string(&path).unwrap();
    for secret in ["secret-guess", CI.1] {
        assert!(!text.contains(secret), "{text}");
    }
    let member = |line: usize, name: &str| lines[line][name].as_str().unwrap_or_default();
    let stacks = "openstack.orchestration.v1.StackService";
    for (line, want) in [
        [
            ("kind", "call"),
            ("identity", "token:ci"),
            ("operation", &*format!("{stacks}/DeleteStack")),
            ("upstream", "north"),
            ("http_method", "DELETE"),
            ("path", "/v1/p1/stacks/shop-1/s1"),
            ("code", "OK"),
            ("reason", ""),
            ("request_id", "r-1"),
            ("upstream_request_id", "req-of-heat"),
        ],
        [
            ("kind", "rejection"),
            ("identity", "token:ci"),
            ("operation", &*format!("{stacks}/AbandonStack")),
            ("upstream", ""),
            ("http_method", ""),
            ("path", ""),
            ("code", "PERMISSION_DENIED"),
            ("reason", "POLICY_DENIED"),
            ("rule", ""),
            ("upstream_request_id", ""),
        ],
        [
            ("kind", "rejection"),
            ("identity", ""),
            ("operation", &*format!("{stacks}/GetStack")),
            ("upstream", ""),
            ("http_method", ""),
            ("path", ""),
            ("code", "UNAUTHENTICATED"),
            ("reason", "CREDENTIALS_REJECTED"),
            ("request_id", "r-1"),
            ("upstream_request_id", ""),
        ],
        [
            ("kind", "rejection"),
            ("identity", "token:ci"),
            ("operation", &*format!("{stacks}/GetStack")),
            ("upstream", ""),
            ("http_method", ""),
            ("path", ""),
            ("code", "UNIMPLEMENTED"),
            ("reason", "REQUEST_NOT_RECEIVED"),
            ("rule", ""),
            ("upstream_request_id", ""),
        ],
    ]
    .into_iter()
    .enumerate()
    {
        for (name, want) in want {
            assert_eq!(member(line, name), want, "{line} {name}: {text}");
        }
        assert!(!member(line, "time").is_empty());
    }
    assert_eq!(lines.len(), 4);
    gateway.running.stop().await.unwrap();
}

#[tokio::test]
async fn flooding_client_does_not_change_the_success_of_others() {
    let recorder = Recorder::fixed(Answer::json(200, &json!({"stack": {"id": "s1"}}))).await;
    let mut config = settings(vec![upstream("north", "heat", &recorder.url())]);
    config.client_tokens = [("ci", CI.1), ("ops", OPS.1)]
        .map(|(name, token)| ClientToken::named(name, &token.into()))
        .to_vec();
    config.client_limits.calls_per_sec = 1;
    config.client_limits.burst = 20;
    let gateway = Gateway::start(config).await;
    let stack = || json!({"stack_name": "a", "stack_id": "s1"});
    let mut flood = tokio::task::JoinSet::new();
    for _ in 0..300 {
        let (client, stack) = (gateway.client.clone(), stack());
        flood.spawn(async move { client.call_with(GET, stack, &[CI]).await });
    }
    let honest = async {
        for _ in 0..20 {
            gateway
                .client
                .call_with(GET, stack(), &[OPS])
                .await
                .unwrap();
        }
    };
    let (results, ()) = tokio::join!(flood.join_all(), honest);
    let errors: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    assert!(!errors.is_empty());
    for status in errors {
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(
            status
                .get_details_retry_info()
                .unwrap()
                .retry_delay
                .is_some()
        );
    }
}
