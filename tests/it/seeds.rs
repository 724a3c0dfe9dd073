//! The five documents that the project started from: their examples are sent and decoded
//! unchanged, with an upstream that responds as printed, and with the sandbox.

use serde_json::{Value, json};
use tonic::Code;
use tonic_types::StatusExt;

use crate::support::client::json as to_json;
use crate::support::compare::differences;
use crate::support::recorder::Answer;
use crate::support::{Gateway, Recorder, upstream};

const PROJECT: &str = "95d02433133a4c0a87ba6967474a2ad3";

fn create_body() -> Value {
    json!({
        "status": "IN_PROGRESS",
        "server_id": "ec14c864-096e-4e27-bb8a-2c2b4dc6f3f5",
        "config_id": "8da95794-2ad9-4979-8ae5-739ce314c5cd",
        "stack_user_project_id": "c024bfada67845ddb17d2b0c0be8cd79",
        "action": "CREATE",
        "status_reason": "Deploy data available",
    })
}

fn create_request() -> Value {
    json!({
        "project_id": PROJECT,
        "status": "DEPLOYMENT_STATUS_IN_PROGRESS",
        "server_id": "ec14c864-096e-4e27-bb8a-2c2b4dc6f3f5",
        "config_id": "8da95794-2ad9-4979-8ae5-739ce314c5cd",
        "stack_user_project_id": "c024bfada67845ddb17d2b0c0be8cd79",
        "action": "DEPLOYMENT_ACTION_CREATE",
        "status_reason": "Deploy data available",
    })
}

fn created(updated: bool) -> Value {
    let mut deployment = json!({
        "status": "IN_PROGRESS",
        "server_id": "ec14c864-096e-4e27-bb8a-2c2b4dc6f3f5",
        "config_id": "8da95794-2ad9-4979-8ae5-739ce314c5cd",
        "output_values": null,
        "input_values": null,
        "action": "CREATE",
        "status_reason": "Deploy data available",
        "id": "ef422fa5-719a-419e-a10c-72e3a367b0b8",
        "creation_time": "2015-01-31T15:12:36Z",
    });
    if updated {
        deployment["updated_time"] = json!("2015-01-31T15:18:21Z");
    }
    json!({ "software_deployment": deployment })
}

/// Seeds 1 and 2: the create of RTS, whose response has no `updated_time`, and
/// that of Rackspace, whose response has one.
#[tokio::test]
async fn deployment_is_created() {
    for (dialect, updated) in [("rts", false), ("rackspace", true)] {
        let recorder = Recorder::fixed(Answer::json(200, &created(updated))).await;
        let mut settings = upstream("u", "heat", &recorder.url());
        settings.dialect = dialect.into();
        let gateway = Gateway::with(vec![settings]).await;
        let got = gateway
            .client
            .call(
                "SoftwareDeploymentService/CreateSoftwareDeployment",
                create_request(),
            )
            .await
            .unwrap();
        assert_eq!(
            differences(&got, &created(updated)),
            Vec::<String>::new(),
            "{dialect}"
        );
        let seen = recorder.seen();
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].method, "POST");
        assert_eq!(
            seen[0].target,
            format!("/v1/{PROJECT}/software_deployments")
        );
        assert_eq!(seen[0].json(), create_body());
        assert_eq!(seen[0].header("content-type"), "application/json");
    }
}

/// Seed 2 requires `action`, seed 1 does not.
#[tokio::test]
async fn action_is_required_for_rackspace_only() {
    for (dialect, refused) in [("openstack", false), ("rts", false), ("rackspace", true)] {
        let recorder = Recorder::fixed(Answer::json(200, &created(false))).await;
        let mut settings = upstream("u", "heat", &recorder.url());
        settings.dialect = dialect.into();
        let gateway = Gateway::with(vec![settings]).await;
        let mut request = create_request();
        request.as_object_mut().unwrap().remove("action");
        let result = gateway
            .client
            .call(
                "SoftwareDeploymentService/CreateSoftwareDeployment",
                request,
            )
            .await;
        assert_eq!(result.is_err(), refused, "{dialect}");
        if let Err(status) = result {
            assert_eq!(status.code(), Code::InvalidArgument);
            assert!(status.message().contains("action"), "{}", status.message());
            assert!(
                status.message().contains("rackspace"),
                "{}",
                status.message()
            );
            let details = status.get_error_details();
            assert_eq!(
                details.bad_request().unwrap().field_violations[0].field,
                "action"
            );
            assert!(recorder.seen().is_empty(), "nothing is sent");
        }
    }
}

/// An operation that the dialect lacks is rejected before anything is sent.
#[tokio::test]
async fn operation_that_the_dialect_lacks_is_not_sent() {
    let recorder = Recorder::fixed(Answer::json(200, &json!({"software_configs": []}))).await;
    let mut settings = upstream("rax", "heat", &recorder.url());
    settings.dialect = "rackspace".into();
    let gateway = Gateway::with(vec![settings]).await;
    let status = gateway
        .client
        .call("SoftwareConfigService/ListSoftwareConfigs", json!({}))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(
        status.message().contains("rackspace"),
        "{}",
        status.message()
    );
    assert!(recorder.seen().is_empty());
}

/// Seed 3: the list of RTS, with a string and a number in `output_values`.
#[tokio::test]
async fn deployments_are_listed() {
    let body = json!({"software_deployments": [{
        "status": "COMPLETE",
        "server_id": "ec14c864-096e-4e27-bb8a-2c2b4dc6f3f5",
        "config_id": "8da95794-2ad9-4979-8ae5-739ce314c5cd",
        "output_values": {
            "deploy_stdout": "Writing to /tmp/barmy\nWritten to /tmp/barmy\n",
            "deploy_stderr": "+ echo Writing to /tmp/barmy\n+ echo fu\n+ cat /tmp/barmy\n+ echo -n The file /tmp/barmy contains fu for server ec14c864-096e-4e27-bb8a-2c2b4dc6f3f5 during CREATE\n+ echo Written to /tmp/barmy\n+ echo Output to stderr\nOutput to stderr\n",
            "deploy_status_code": 0,
            "result": "The file /tmp/barmy contains fu for server ec14c864-096e-4e27-bb8a-2c2b4dc6f3f5 during CREATE",
            "nothing": null
        },
        "input_values": null,
        "action": "CREATE",
        "status_reason": "Outputs received",
        "id": "ef422fa5-719a-419e-a10c-72e3a367b0b8",
        "creation_time": "2015-01-31T15:12:36Z",
        "updated_time": "2015-01-31T15:18:21Z"
    }]});
    let recorder = Recorder::fixed(Answer::json(200, &body)).await;
    let mut settings = upstream("u", "heat", &recorder.url());
    settings.dialect = "rts".into();
    settings.project_id = Some(PROJECT.into());
    let gateway = Gateway::with(vec![settings]).await;
    let got = gateway
        .client
        .call(
            "SoftwareDeploymentService/ListSoftwareDeployments",
            json!({}),
        )
        .await
        .unwrap();
    assert_eq!(differences(&got, &body), Vec::<String>::new());
    assert_eq!(
        recorder.seen()[0].target,
        format!("/v1/{PROJECT}/software_deployments")
    );
}

/// Seed 4: an add-on is redeployed; the response is a job.
#[tokio::test]
async fn addon_is_redeployed() {
    let body = json!({"job_id": "JOB7e9317bb-a63a-46f4-a026-244de2f6eac3"});
    let recorder = Recorder::fixed(Answer::json(200, &body)).await;
    let gateway = Gateway::with(vec![upstream("u", "servicestage", &recorder.url())]).await;
    let got = gateway
        .client
        .call(
            "AddonService/ExecuteAddonAction",
            json!({"project_id": PROJECT, "environment_id": "e1", "addon_id": "a1", "action": "ADDON_ACTION_REDEPLOY"}),
        )
        .await
        .unwrap();
    assert_eq!(to_json(&got), body);
    let seen = &recorder.seen()[0];
    assert_eq!(seen.method, "POST");
    assert_eq!(
        seen.target,
        format!("/v3/{PROJECT}/cas/environments/e1/addons/a1/action")
    );
    assert_eq!(seen.json(), json!({"action": "redeploy"}));
}

const RELEASE: &str = "/Automation/v1/objects/Services/2004/actions/release";

/// The envelope as the seed's example prints it.
fn envelope() -> Value {
    json!({
        "instanceID": "4c63e655-1ec2-4c70-912f-c1d80be59066",
        "created": "2015-07-30T13:55:39.457+09:00",
        "updated": "2015-07-30T13:55:39.457+09:00",
        "completed": "2015-07-30T13:55:39.457+09:00",
        "state": "success",
        "affectedResource": ["http://10.196.184.182:22015/Automation/v1/objects/Services/2004"],
        "result": []
    })
}

async fn jp1ao(invoke: Answer) -> (Recorder, Gateway) {
    let recorder = Recorder::start(move |seen| match (seen.method.as_str(), seen.path()) {
        // A foreign host and a leading space, as manuals print them.
        ("GET", RELEASE) => Answer::text(
            200,
            "application/json",
            r#"{"name":"release","extra":1.50,"href":" http://evil.test:1/steal","method":"POST","parameters":[]}"#,
        ),
        ("POST", path) if path == format!("{RELEASE}/invoke") => invoke.clone(),
        _ => Answer::json(404, &json!({"message": "no"})),
    })
    .await;
    let gateway = Gateway::with(vec![upstream("ao", "jp1ao", &recorder.url())]).await;
    (recorder, gateway)
}

/// Seed 5: the action document is fetched, edited in place and invoked.
#[tokio::test]
async fn service_is_released_in_two_steps() {
    let (recorder, gateway) = jp1ao(Answer::json(200, &envelope())).await;
    let got = gateway
        .client
        .call("AutomationService/ReleaseService", json!({"id": 2004}))
        .await
        .unwrap();
    let result = got.get_field_by_name("action_result").unwrap();
    assert_eq!(
        differences(result.as_message().unwrap(), &envelope()),
        Vec::<String>::new()
    );
    let seen = recorder.seen();
    let calls: Vec<_> = seen
        .iter()
        .map(|s| (s.method.as_str(), s.target.as_str()))
        .collect();
    assert_eq!(
        calls,
        [("GET", RELEASE), ("POST", &format!("{RELEASE}/invoke"))]
    );
    assert!(seen[0].body.is_empty());
    // In place: order, unknown members and digits are unchanged.
    assert_eq!(
        std::str::from_utf8(&seen[1].body).unwrap(),
        r#"{"name":"release","extra":1.50,"href":" http://evil.test:1/steal","method":"POST","parameters":[]}"#
    );
    assert_eq!(seen[1].header("content-type"), "application/json");
    assert_eq!(seen[1].header("accept-language"), "en");
}

/// A document in the request saves the first step.
#[tokio::test]
async fn service_is_released_with_the_clients_document() {
    let (recorder, gateway) = jp1ao(Answer::json(200, &envelope())).await;
    let template = json!({"name": "release", "href": "", "method": "POST", "parameters": []});
    gateway
        .client
        .call_with(
            "AutomationService/ReleaseService",
            json!({"id": 2004, "template": template}),
            &[("accept-language", "ja")],
        )
        .await
        .unwrap();
    let seen = recorder.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].json(), template);
    assert_eq!(seen[0].header("accept-language"), "ja");
}

/// The action result in all the forms that the manuals print. docs/apis/jp1ao.md, "Action
/// result".
#[tokio::test]
async fn action_result_is_read_in_all_forms() {
    let url = "http://h/Automation/v1/objects/Services/2004";
    for (name, body, resource) in [
        (
            "text",
            json!({"instanceID": "i", "affectedResource": url}),
            json!(url),
        ),
        (
            "plural",
            json!({"instanceID": "i", "affectedResources": [url]}),
            json!([url]),
        ),
        (
            "id",
            json!({"instanceId": "i", "affectedResource": [url, url]}),
            json!([url, url]),
        ),
        (
            "null",
            json!({"instanceID": "i", "affectedResource": null}),
            json!(null),
        ),
        (
            "objects",
            json!({"instanceID": "i", "affectedResources": [{"href": url}]}),
            json!([{"href": url}]),
        ),
    ] {
        let (_recorder, gateway) = jp1ao(Answer::json(200, &body)).await;
        let got = gateway
            .client
            .call("AutomationService/ReleaseService", json!({"id": 2004}))
            .await
            .unwrap();
        let got = to_json(&got);
        assert_eq!(got["action_result"]["instance_id"], "i", "{name}");
        assert_eq!(
            got["action_result"]["affected_resource"], resource,
            "{name}"
        );
        let count = resource.to_string().matches(url).count();
        let reference = json!({"resource": "Services", "id": 2004});
        for (field, want) in [
            ("affected_resources", json!(url)),
            ("affected_refs", reference),
        ] {
            let got = &got["action_result"][field];
            let got = got.as_array().map_or(&[][..], |all| all);
            assert_eq!(got, vec![want; count], "{name}");
        }
    }
    // A failure within a 200 is returned as data.
    let (_recorder, gateway) = jp1ao(Answer::json(200, &json!({"state": "failed"}))).await;
    let got = gateway
        .client
        .call("AutomationService/ReleaseService", json!({"id": 2004}))
        .await
        .unwrap();
    assert_eq!(
        to_json(&got)["action_result"]["state"],
        "ACTION_STATE_FAILED"
    );
}

/// The gRPC codes of the seed's status table.
#[tokio::test]
async fn release_errors_are_mapped() {
    for (status, code) in [
        (400, Code::InvalidArgument),
        // The client has no credentials of its own, and the gateway has none either.
        (401, Code::FailedPrecondition),
        (404, Code::NotFound),
        (409, Code::FailedPrecondition),
        (412, Code::Unavailable),
        (500, Code::Internal),
        (303, Code::Internal),
    ] {
        let body = json!({
            "errorSource": "http://10.1.2.3:22015/Automation/v1/objects/Services/2004",
            "message": "it cannot be", "messageID": "KNAE02102-E", "application": "Automation"
        });
        let mut answer = Answer::json(status, &body);
        if status == 303 {
            answer = Answer::text(303, "text/html", "<html></html>")
                .with("location", "/Automation/v1/objects/Tasks/1/actions/archive");
        }
        let (recorder, gateway) = jp1ao(answer).await;
        let error = gateway
            .client
            .call("AutomationService/ReleaseService", json!({"id": 2004}))
            .await
            .unwrap_err();
        assert_eq!(error.code(), code, "{status}: {error:?}");
        let details = error.get_error_details();
        if status != 303 {
            assert_eq!(
                details.error_info().unwrap().reason,
                "KNAE02102-E",
                "{status}"
            );
            assert!(
                error.message().contains("it cannot be"),
                "{}",
                error.message()
            );
        }
        assert!(
            !format!("{error:?}").contains("10.1.2.3"),
            "{status}: the host leaks"
        );
        assert_eq!(details.retry_info().is_some(), status == 412, "{status}");
        // The invoke is not retried, and no redirect is followed.
        let posts = recorder
            .seen()
            .iter()
            .filter(|s| s.method == "POST")
            .count();
        assert_eq!(posts, 1, "{status}");
    }
}
