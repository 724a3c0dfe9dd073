//! Heat's dialects: operations that each lacks, and the forms of timestamps.

use drawbridge::cli::quickstart;
use drawbridge_sandbox::{self as sandbox, Sandbox};
use serde_json::{Map, Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::operations::documented;
use crate::support::client::json as to_json;
use crate::support::recorder::{Answer, Recorder};
use crate::support::{Client, Gateway, request, upstream};

const DIALECTS: [&str; 3] = ["openstack", "rts", "rackspace"];

/// Calls an operation with the fields that its path needs.
async fn call(client: &Client, rpc: &str, dialect: &str) -> Result<(), Status> {
    let methods = client.methods("openstack.orchestration.v1");
    let method = methods.into_iter().find(|method| method.name() == rpc);
    let method = method.unwrap_or_else(|| panic!("no {rpc}"));
    let template = request::route(&method);
    let variables = template.split('/').filter_map(|part| {
        let name = part.strip_prefix('{')?.strip_suffix('}')?;
        Some((name.to_owned(), Value::from("x")))
    });
    let mut message: Map<String, Value> = variables.collect();
    message.insert("project_id".into(), sandbox::PROJECT_ID.into());
    message.retain(|name, _| method.input().get_field_by_name(name).is_some());
    let rpc = format!("{}/{rpc}", method.parent_service().full_name());
    let metadata = [("drawbridge-upstream", dialect)];
    let got = client.call_with(&rpc, message.into(), &metadata).await;
    got.map(drop)
}

#[tokio::test]
async fn operation_that_a_dialect_lacks_is_not_sent() {
    let sandbox = Sandbox::start(([127, 0, 0, 1], 0).into(), sandbox::Settings::default())
        .await
        .unwrap();
    let upstreams = DIALECTS.map(|dialect| {
        let mut settings = quickstart::upstreams(&sandbox).remove(0);
        settings.name = dialect.to_owned();
        settings.dialect = dialect.to_owned();
        settings.is_default = dialect == "openstack";
        settings
    });
    let gateway = Gateway::with(upstreams.into()).await;
    let operations = documented("heat");
    assert_eq!(operations.len(), 56);
    let refuses = |status: &Status, dialect: &str| {
        status.code() == Code::Unimplemented && status.message().contains(dialect)
    };

    let mut lacking = 0;
    for operation in &operations {
        for dialect in DIALECTS {
            if operation.dialects.contains(dialect) {
                continue;
            }
            lacking += 1;
            let rpc = operation.rpc;
            let status = call(&gateway.client, rpc, dialect).await.unwrap_err();
            assert!(refuses(&status, dialect), "{rpc} in {dialect}: {status:?}");
        }
    }
    assert!(lacking > 25, "{lacking}");
    // The gateway's health probes are not counted.
    let mut sent = sandbox.requests();
    sent.retain(|seen| seen.path_and_query != "/");
    assert!(sent.is_empty(), "{sent:?}");

    // An operation that the dialect has is sent, whatever the response.
    for operation in &operations {
        for dialect in DIALECTS {
            if operation.dialects.contains(dialect)
                && let Err(status) = call(&gateway.client, operation.rpc, dialect).await
            {
                let rpc = operation.rpc;
                assert!(!refuses(&status, dialect), "{rpc} in {dialect}: {status:?}");
            }
        }
    }
    gateway.running.stop().await.unwrap();
}

/// Timestamps of the upstream, and of the message.
const TIMES: [(&str, &str); 8] = [
    ("2015-01-31T15:12:36", "2015-01-31T15:12:36Z"),
    ("2015-01-31T15:12:36Z", "2015-01-31T15:12:36Z"),
    ("2015-01-31T15:12:36.123456", "2015-01-31T15:12:36.123456Z"),
    ("2015-01-31T15:12:36.000001Z", "2015-01-31T15:12:36.000001Z"),
    ("2015-01-31T16:12:36+01:00", "2015-01-31T15:12:36Z"),
    ("2015-01-31T15:12:36+0000", "2015-01-31T15:12:36Z"),
    (
        "2015-02-01T00:42:36.999999+09:30",
        "2015-01-31T15:12:36.999999Z",
    ),
    ("2015-01-31 07:12:36.5-0800", "2015-01-31T15:12:36.500Z"),
];

#[tokio::test]
async fn timestamps_are_read_in_all_forms() {
    // The id selects the timestamp.
    let recorder = Recorder::start(|seen| {
        let id = seen.path().rsplit('/').next().unwrap();
        let (text, _) = TIMES[id.parse::<usize>().unwrap()];
        let times = json!({"id": id, "creation_time": text, "updated_time": text});
        match seen.path().contains("/stacks/") {
            true => Answer::json(200, &json!({"stack": times})),
            false => Answer::json(200, &json!({"software_deployment": times})),
        }
    })
    .await;
    for dialect in DIALECTS {
        let mut settings = upstream("u", "heat", &recorder.url());
        settings.dialect = dialect.to_owned();
        let gateway = Gateway::with(vec![settings]).await;
        for (id, (text, want)) in TIMES.iter().enumerate() {
            let id = id.to_string();
            for (rpc, request, item) in [
                (
                    "StackService/GetStack",
                    json!({"stack_name": "s", "stack_id": id}),
                    "stack",
                ),
                (
                    "SoftwareDeploymentService/GetSoftwareDeployment",
                    json!({"deployment_id": id}),
                    "software_deployment",
                ),
            ] {
                let got = gateway.client.call(rpc, request).await;
                let got = to_json(&got.unwrap_or_else(|e| panic!("{rpc} {dialect} {text}: {e:?}")));
                for member in ["creation_time", "updated_time"] {
                    let told = &got[item][member];
                    assert_eq!(told, want, "{rpc} {dialect} {text}: {member}");
                }
            }
        }
        gateway.running.stop().await.unwrap();
    }
}

/// A 404 of an API gateway or a proxy does not mean a missing stack: a delete fails, and
/// the request id is kept.
#[tokio::test]
async fn missing_api_is_no_missing_stack() {
    let gateway_body = json!({"message": "API not found", "request_id": "r-body"});
    let apig_body = json!({"error_code": "APIGW.0101", "error_msg": "The API does not exist",
        "request_id": "r-body"});
    let html = "<!DOCTYPE html><html><body><h1>404 Not Found</h1><hr>nginx</body></html>";
    let stack = json!({"code": 404, "title": "Not Found", "explanation": "x",
        "error": {"type": "EntityNotFound", "message": "no stack", "traceback": null}});
    let router = json!({"code": "404 Not Found", "title": "Not Found",
        "message": "The resource could not be found.<br /><br />"});
    let json = |body: &serde_json::Value| Answer::json(404, body);
    for (dialect, answer, code, id) in [
        ("rts", json(&gateway_body), Code::Unimplemented, "r-body"),
        ("rts", json(&apig_body), Code::Unimplemented, "r-body"),
        // The code is that of docs/apis/heat.md; the hint names the endpoint.
        ("openstack", json(&router), Code::NotFound, ""),
        (
            "openstack",
            Answer::text(404, "text/html", html),
            Code::Unimplemented,
            "",
        ),
        ("rts", json(&stack), Code::NotFound, ""),
    ] {
        // The first response is lost, so that a missing stack counts as deleted.
        let times = std::sync::atomic::AtomicUsize::new(0);
        let reply = answer.clone();
        let recorder = Recorder::start(move |seen| match seen.method.as_str() {
            "DELETE" if times.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 => {
                Answer::json(502, &json!({}))
            }
            _ => reply.clone(),
        })
        .await;
        let mut settings = upstream("u", "heat", &recorder.url());
        settings.dialect = dialect.to_owned();
        let gateway = Gateway::with(vec![settings]).await;
        let request = json!({"stack_name": "s", "stack_id": "i"});
        let get = gateway
            .client
            .call("StackService/GetStack", request.clone());
        let status = get.await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
        let details = status.get_error_details();
        let hint = details.error_info().unwrap().metadata.contains_key("hint");
        let is_missing = answer.body == json(&stack).body;
        assert_eq!(hint, !is_missing, "{status:?}");
        let request_id = details.request_info().map(|info| info.request_id.clone());
        assert_eq!(request_id.unwrap_or_default(), id, "{status:?}");
        let delete = gateway
            .client
            .call("StackService/DeleteStack", request)
            .await;
        assert_eq!(delete.is_ok(), is_missing, "{delete:?}");
        gateway.running.stop().await.unwrap();
    }
}
