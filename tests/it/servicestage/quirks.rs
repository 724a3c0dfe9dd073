//! Quirks of ServiceStage, numbered as in docs/apis/servicestage.md, "Quirks".

use serde_json::{Value, json};
use tonic::Code;
use tonic_types::StatusExt;

use super::{RecordedGateway, assert_signed, rpc};
use crate::support::client;
use crate::support::recorder::Answer;

/// Returns the message that a response is read as, as JSON.
async fn read(recording: &RecordedGateway, name: &str, request: Value, body: &Value) -> Value {
    let rpc = rpc(&recording.gateway.client, name);
    let (result, _) = recording
        .exchange(&rpc, request, Answer::json(200, body))
        .await;
    client::json(
        result
            .unwrap_or_else(|e| panic!("{name} {body}: {e:?}"))
            .get_ref(),
    )
}

fn job() -> Value {
    json!({"job_id": "JOB1"})
}

fn component() -> Value {
    json!({"application_id": "a", "component_id": "c"})
}

#[tokio::test]
async fn responses_are_read_in_all_forms() {
    let recording = RecordedGateway::new(false).await;
    let stack = json!({"name": "s", "create_time": "1718000000123"});
    let pipeline = json!({"id": "p", "status": 4, "create_time": 0});
    let addon = json!({"environment_id": "e", "addon_id": "d"});
    for (quirk, name, request, body, at, want) in [
        (
            "Q1",
            "ListRuntimeStacks",
            json!({}),
            json!({"runtimestacks": [stack], "total": "1"}),
            "/runtime_stacks/0/create_time",
            json!("2024-06-10T06:13:20.123Z"),
        ),
        (
            "Q1",
            "ListRuntimeStacks",
            json!({}),
            json!({"runtime_stacks": [stack]}),
            "/runtime_stacks/0/name",
            json!("s"),
        ),
        (
            "Q5",
            "GetApplicationConfiguration",
            json!({"application_id": "a"}),
            json!({"configuration": [{"environment_id": "e", "configuration": {"env": [], "assign_strategy": true}}]}),
            "/configuration/0/configuration/assign_strategy",
            json!(true),
        ),
        (
            "Q5",
            "UpdateApplicationConfiguration",
            json!({"application_id": "a", "environment_id": "e", "configuration": {"env": [{"name": "A", "value": ""}]}}),
            json!({"environment_id": "e", "configuration": {"env": [{"name": "A", "value": ""}]}}),
            "/configuration/configuration/env/0/value",
            json!(""),
        ),
        (
            "Q10",
            "GetJob",
            job(),
            json!({"job": {"EXECUTION_STATUS": "SUCCEEDED"}}),
            "/job/execution_status",
            json!("EXECUTION_STATUS_SUCCEEDED"),
        ),
        (
            "Q10",
            "GetJob",
            job(),
            json!({"job": {"execution_status": "PONDERING"}, "tasks": null}),
            "/job/execution_status_raw",
            json!("PONDERING"),
        ),
        (
            "Q10",
            "GetJob",
            job(),
            json!({"TASK_COUNT": 1, "JOB": {"JOB_ID": "JOB1"}, "TASKS": [{"TASK_ID": "t"}]}),
            "",
            json!({"task_count": 1, "job": {"job_id": "JOB1"}, "tasks": [{"task_id": "t"}]}),
        ),
        (
            "Q10",
            "GetJob",
            job(),
            json!({"task_count": "1", "tasks": [{"UPDATED_AT": "t"}]}),
            "/tasks/0/update_at",
            json!("t"),
        ),
        (
            "Q11",
            "GetAddon",
            addon.clone(),
            json!({"id": "d", "status": "UPGRADING"}),
            "/addon/status",
            json!("ADDON_STATUS_UPGRADING"),
        ),
        (
            "Q11",
            "GetAddon",
            addon.clone(),
            json!({"addons": [{"id": "d", "status": "NEW"}]}),
            "/addon/status_raw",
            json!("NEW"),
        ),
        (
            "Q11",
            "ListPipelines",
            json!({}),
            json!([pipeline]),
            "/pipelines/0/status",
            json!("PIPELINE_STATUS_RELEASING"),
        ),
        (
            "Q11",
            "ListPipelines",
            json!({}),
            json!({"pipelines": [pipeline]}),
            "/pipelines/0/create_time",
            json!("1970-01-01T00:00:00Z"),
        ),
        (
            "Q12",
            "ListPipelines",
            json!({}),
            json!({"pipelines": [{"id": "p", "status": "4"}]}),
            "/pipelines/0/status",
            json!("PIPELINE_STATUS_RELEASING"),
        ),
        (
            "Q12",
            "ListPipelines",
            json!({}),
            json!({"pipelines": [{"id": "p", "status": "HELD"}]}),
            "/pipelines/0/status_raw",
            json!("HELD"),
        ),
        (
            "Q12",
            "ExecutePipelineAction",
            json!({"pipeline_id": "p", "action_id": "PIPELINE_ACTION_START"}),
            json!({"id": 7, "status": "2"}),
            "/status",
            json!("PIPELINE_STATUS_RELEASED"),
        ),
        (
            "Q12",
            "ListEnvironments",
            json!({}),
            json!({"environments": [{"id": 7, "create_time": 1718000000123_i64}]}),
            "/environments/0/id",
            json!("7"),
        ),
        (
            "Q12",
            "GetReleasePlanDeployInfo",
            json!({"release_plan_id": "r"}),
            json!({"components": [{"seq": 1, "start_time": "soon"}]}),
            "/components/0/seq",
            json!("1"),
        ),
        (
            "Q12",
            "GetReleasePlanDeployInfo",
            json!({"release_plan_id": "r"}),
            json!({"components": [{"seq": "1", "start_time": "soon"}]}),
            "/components/0/start_time_raw",
            json!("soon"),
        ),
        (
            "Q12",
            "GetComponent",
            component(),
            json!({"replica": "2", "limit_cpu": 2, "version": "1a0b1"}),
            "/component/replica",
            json!(2),
        ),
        (
            "Q17",
            "ExecuteComponentAction",
            json!({"application_id": "a", "component_id": "c", "action_raw": "check_gray_release"}),
            json!({"result": "succeeded"}),
            "/result",
            json!("COMPONENT_ACTION_RESULT_SUCCEEDED"),
        ),
        (
            "extras",
            "ListManageableResources",
            json!({"resource_type": "cce"}),
            json!({"resources": [{"id": "r", "nodes": [1, {"x": null}]}]}),
            "/resources/0/others",
            json!({"nodes": [1.0, {"x": null}]}),
        ),
    ] {
        let message = read(&recording, name, request, &body).await;
        assert_eq!(
            message.pointer(at),
            Some(&want),
            "{quirk} {name} {body}: {message}"
        );
    }
    // An invalid time is an error that names it; so is an empty list instead of an item.
    for (name, request, body, says) in [
        (
            "GetEnvironment",
            json!({"environment_id": "e"}),
            json!({"create_time": "soon"}),
            "create_time",
        ),
        ("GetAddon", addon, json!({"addons": []}), "addons"),
    ] {
        let rpc = rpc(&recording.gateway.client, name);
        let answer = Answer::json(200, &body).with("x-request-id", "r1");
        let (result, _) = recording.exchange(&rpc, request, answer).await;
        let status = result.expect_err(name);
        assert_eq!(status.code(), Code::Internal, "{status:?}");
        assert!(status.message().contains(says), "{status:?}");
        // The request id of the upstream is in the metadata.
        let details = status.get_error_details();
        assert_eq!(details.request_info().unwrap().request_id, "r1");
    }
}

/// Q3: a delete returns 204, 200 without a body, `null`, or 200 with an id.
#[tokio::test]
async fn delete_accepts_all_reply_forms() {
    let recording = RecordedGateway::new(false).await;
    let addon = json!({"environment_id": "e", "addon_id": "d"});
    for (name, request, status, body, want) in [
        (
            "DeleteEnvironment",
            json!({"environment_id": "e"}),
            204,
            Value::Null,
            json!({}),
        ),
        (
            "DeleteEnvironment",
            json!({"environment_id": "e"}),
            200,
            Value::Null,
            json!({}),
        ),
        (
            "DeleteComponent",
            component(),
            200,
            json!({"component_id": "c"}),
            json!({"component_id": "c"}),
        ),
        ("DeleteComponent", component(), 200, Value::Null, json!({})),
        ("DeleteComponent", component(), 204, Value::Null, json!({})),
        (
            "DeleteAddon",
            addon.clone(),
            200,
            json!({"job_id": "JOB1"}),
            json!({"job_id": "JOB1"}),
        ),
        ("DeleteAddon", addon, 200, Value::Null, json!({})),
        (
            "DeleteConfigGroup",
            json!({"config_group_id": "g"}),
            200,
            Value::Null,
            json!({}),
        ),
    ] {
        let rpc = rpc(&recording.gateway.client, name);
        let (result, _) = recording
            .exchange(&rpc, request, Answer::json(status, &body))
            .await;
        assert_eq!(
            client::json(result.unwrap().get_ref()),
            want,
            "{name} {status}"
        );
    }
    let rpc = rpc(&recording.gateway.client, "DeleteComponent");
    let (result, _) = recording
        .exchange(&rpc, component(), Answer::text(200, "text/plain", "null"))
        .await;
    assert_eq!(client::json(result.unwrap().get_ref()), json!({}));
}

/// Q4: a value is sent in the one of three shapes that it was read in; set empty lists are
/// sent, unset ones are not.
#[tokio::test]
async fn affinity_and_lists_keep_their_form() {
    let recording = RecordedGateway::new(false).await;
    let rule = json!({"condition": "required", "kind": "node", "weight": 100,
                      "match_expressions": [{"key": "arch", "operation": "In", "value": "amd64"}]});
    let odd = json!({"condition": "whenever", "kind": "pod"});
    let object = json!({"az": ["az-1"], "node": ["192.0.2.10"],
                        "component": [{"displayName": "Cart", "name": "cart"}]});
    for (affinity, envs) in [
        (json!([rule, odd]), Some(json!([]))),
        (rule.clone(), Some(json!([{"name": "A", "value": ""}]))),
        (object, None),
        (json!([]), None),
    ] {
        let mut body = json!({
            "name": "c", "version": "1.0.0", "affinity": affinity,
            "runtime_stack": {"name": "Docker", "deploy_mode": "container"},
            "source": {"kind": "image"}, "environment_id": "e", "application_id": "a",
            "status": {"component_status": "RUNNING"},
        });
        if let Some(envs) = envs {
            body["envs"] = envs;
        }
        let message = read(&recording, "GetComponent", component(), &body).await;
        let mut request = component();
        request["component"] = message["component"].clone();
        let update = rpc(&recording.gateway.client, "UpdateComponent");
        let (result, seen) = recording
            .exchange(&update, request, Answer::json(200, &job()))
            .await;
        result.unwrap();
        // Output-only and immutable fields are not sent.
        let mut want = body;
        want.as_object_mut().unwrap().remove("status");
        want.as_object_mut().unwrap().remove("environment_id");
        assert_eq!(seen[0].json(), want);
    }
    for (labels, want) in [
        (json!({"items": []}), json!({"name": "n", "labels": []})),
        (
            json!({"items": [{"key": "k", "value": "v"}]}),
            json!({"name": "n", "labels": [{"key": "k", "value": "v"}]}),
        ),
        (Value::Null, json!({"name": "n"})),
    ] {
        for (name, id) in [
            ("UpdateApplication", "application_id"),
            ("UpdateEnvironment", "environment_id"),
        ] {
            let request = json!({id: "x", "name": "n", "labels": labels});
            let rpc = rpc(&recording.gateway.client, name);
            let (result, seen) = recording.exchange(&rpc, request, recorded(name)).await;
            result.unwrap();
            assert_eq!(seen[0].json(), want, "{name}");
        }
    }
}

/// Q6 to Q9: the places of values in a request, and their escaping.
#[tokio::test]
async fn request_fields_are_placed_and_escaped() {
    let recording = RecordedGateway::new(false).await;
    let cas = "/v3/p1/cas";
    let pipelines = "/v3/p1/pipeline/pipelines";
    let source = json!({"template_source": {"storage": "TEMPLATE_STORAGE_OBS", "url": "obs://b"}});
    for (quirk, name, request, verb, target, body) in [
        (
            "Q6",
            "DeleteApplicationConfiguration",
            json!({"application_id": "a", "environment_id": "e"}),
            "DELETE",
            format!("{cas}/applications/a/configuration?environment_id=e"),
            Value::Null,
        ),
        (
            "Q6",
            "ExecutePipelineAction",
            json!({"pipeline_id": "p", "action_id": "PIPELINE_ACTION_START"}),
            "POST",
            format!("{pipelines}/p/action?action_id=start"),
            json!({}),
        ),
        (
            "Q6",
            "ExecutePipelineAction",
            json!({"pipeline_id": "p", "action_id_raw": "skip", "message": "m"}),
            "POST",
            format!("{pipelines}/p/action?action_id=skip"),
            json!({"message": "m"}),
        ),
        (
            "Q6",
            "ParsePipelineTemplatePackage",
            json!({"sources": [source]}),
            "GET",
            format!("{pipelines}/parse-template-package"),
            json!({"sources": [{"template_source": {"storage": "obs", "url": "obs://b"}}]}),
        ),
        (
            "Q6",
            "RefreshEnvironment",
            json!({"environment_id": "e"}),
            "POST",
            format!("{cas}/environments/e/refresh"),
            Value::Null,
        ),
        (
            "Q6",
            "RefreshComponent",
            component(),
            "PUT",
            format!("{cas}/applications/a/components/c/refresh"),
            Value::Null,
        ),
        (
            "Q7",
            "ListEnvironments",
            json!({"name": "a b+c&d/e~f*g=ü", "environment_id": "", "page_size": 0}),
            "GET",
            format!(
                "{cas}/environments?limit=0&name=a%20b%2Bc%26d%2Fe~f%2Ag%3D%C3%BC&environment_id="
            ),
            Value::Null,
        ),
        (
            "Q8",
            "GetEnvironment",
            json!({"environment_id": "a/b c"}),
            "GET",
            format!("{cas}/environments/a%2Fb%20c"),
            Value::Null,
        ),
        (
            "Q9",
            "ListManageableResources",
            json!({"resource_type": "cce"}),
            "GET",
            format!("{cas}/environments/resources?resource_type=cce"),
            Value::Null,
        ),
        (
            "Q9",
            "GetComponentFilterOptions",
            json!({}),
            "GET",
            format!("{cas}/components/filterOptions"),
            Value::Null,
        ),
        (
            "Q9",
            "ParseComponentTemplatePackage",
            source.clone(),
            "POST",
            format!("{cas}/components/parse-template-package"),
            json!({"template_source": {"storage": "obs", "url": "obs://b"}}),
        ),
        (
            "Q9",
            "ListLaneTargetServices",
            json!({}),
            "GET",
            format!("{cas}/swimlane-group/target-services"),
            Value::Null,
        ),
        (
            "import",
            "ImportComponent",
            json!({"application_id": "a", "component": {"name": "n", "version": "1a0b1", "create_mode": "other",
                "workload_name": "w", "workload_kind": "k", "environment_id": "e",
                "runtime_stack": {"name": "Docker", "deploy_mode": "DEPLOY_MODE_CONTAINER"},
                "source": {"kind": "SOURCE_KIND_IMAGE"}}}),
            "POST",
            format!("{cas}/applications/a/components"),
            json!({"create_mode": "import", "name": "n", "version": "1a0b1", "workload_name": "w", "workload_kind": "k",
                "environment_id": "e", "runtime_stack": {"name": "Docker", "deploy_mode": "container"},
                "source": {"kind": "image"}}),
        ),
        (
            "Q18",
            "ExecuteComponentAction",
            json!({"application_id": "a", "component_id": "c", "action": "COMPONENT_ACTION_CONTINUE_DEPLOY"}),
            "POST",
            format!("{cas}/applications/a/components/c/action"),
            json!({"action": "continue_deploy"}),
        ),
        (
            "Q18",
            "ExecuteComponentAction",
            json!({"application_id": "a", "component_id": "c", "action": "COMPONENT_ACTION_SCALE",
                "parameters": {"replica": 0, "others": {"force": true}}}),
            "POST",
            format!("{cas}/applications/a/components/c/action"),
            json!({"action": "scale", "parameters": {"replica": 0, "force": true}}),
        ),
        (
            "resources",
            "UpdateEnvironmentResources",
            json!({"environment_id": "e"}),
            "PUT",
            format!("{cas}/environments/e/resources"),
            json!({"resources": []}),
        ),
        (
            "lists",
            "UpdateLaneGroupRoute",
            json!({"lane_group_id": "g", "swimlanes": [{"id": "l", "weight": 20},
                {"id": "m", "rules": {"items": []}}]}),
            "PUT",
            format!("{cas}/swimlane-group/g/route"),
            json!({"swimlanes": [{"id": "l", "weight": 20}, {"id": "m", "rules": []}]}),
        ),
        (
            "lists",
            "UpdatePipeline",
            json!({"pipeline_id": "p", "name": "n", "model_version": 2,
                "config_mode": "PIPELINE_CONFIG_MODE_UI", "sources": {"items": []},
                "stages": {"items": [{"name": "s"}]}}),
            "PUT",
            format!("{pipelines}/p"),
            json!({"name": "n", "model_version": 2, "config_mode": "ui", "sources": [],
                "stages": [{"name": "s"}]}),
        ),
        (
            "lists",
            "UpdatePipeline",
            json!({"pipeline_id": "p", "name": "n", "model_version": 2,
                "config_mode": "PIPELINE_CONFIG_MODE_UI", "stages": {"items": []}}),
            "PUT",
            format!("{pipelines}/p"),
            json!({"name": "n", "model_version": 2, "config_mode": "ui", "stages": []}),
        ),
        (
            "lists",
            "UpdatePipelineHooks",
            json!({"pipeline_id": "p", "strategy_type": 0, "hooks": {"items": []},
                "selected_tasks": {"items": []}}),
            "PUT",
            format!("{pipelines}/p/hooks"),
            json!({"strategy_type": 0, "hooks": [], "selected_tasks": []}),
        ),
    ] {
        let rpc = rpc(&recording.gateway.client, name);
        let (result, seen) = recording.exchange(&rpc, request, recorded(name)).await;
        result.unwrap_or_else(|e| panic!("{quirk} {name}: {e:?}"));
        assert_eq!(
            (seen[0].method.as_str(), &seen[0].target),
            (verb, &target),
            "{quirk}"
        );
        assert_eq!(seen[0].json(), body, "{quirk} {name}");
        assert_signed(&seen[0], name);
    }
    // A request without required fields of path or body is not sent.
    for (name, request, field) in [
        ("DeleteEnvironment", json!({}), "environment_id"),
        (
            "DeleteEnvironment",
            json!({"environment_id": ".."}),
            "environment_id",
        ),
        (
            "DeleteApplicationConfiguration",
            json!({"application_id": "a"}),
            "environment_id",
        ),
        (
            "ExecutePipelineAction",
            json!({"pipeline_id": "p"}),
            "action_id",
        ),
        (
            "CreateComponent",
            json!({"application_id": "a", "component": {"name": "n", "version": "1",
            "runtime_stack": {"name": "s", "deploy_mode_raw": "container"}, "source": {"kind_raw": "image"}}}),
            "component.refer_resources",
        ),
        (
            "ImportComponent",
            json!({"application_id": "a", "component": {"name": "n"}}),
            "component.runtime_stack",
        ),
        (
            "CreatePipelineHooks",
            json!({"pipeline_id": "p"}),
            "strategy_type",
        ),
    ] {
        let rpc = rpc(&recording.gateway.client, name);
        let (result, seen) = recording.exchange(&rpc, request, recorded(name)).await;
        let status = result.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{name}: {status:?}");
        let details = status.get_error_details();
        let violations = &details.bad_request().unwrap().field_violations;
        assert_eq!(violations[0].field, field, "{name}");
        assert!(seen.is_empty(), "{name}");
    }
}

/// Q2 and Q13: errors of all producers and in all shapes.
#[tokio::test]
async fn errors_are_read_in_all_shapes() {
    let recording = RecordedGateway::new(false).await;
    let rpc = rpc(&recording.gateway.client, "RefreshEnvironment");
    let json = |body: Value| body.to_string().into_bytes();
    for (status, body, code, reason, said) in [
        (
            401,
            json(json!({"error_code": "SVCSTG.00100401", "error_message": "gone"})),
            Code::NotFound,
            "SVCSTG.00100401",
            "gone",
        ),
        (
            401,
            json(json!({"error_code": "APIGW.0301", "error_msg": "verify aksk signature fail"})),
            Code::FailedPrecondition,
            "APIGW.0301",
            "signature",
        ),
        (
            400,
            json(json!({"error": {"error_code": "SVCSTG.00100429", "error_message": "no job"}})),
            Code::NotFound,
            "SVCSTG.00100429",
            "no job",
        ),
        (
            400,
            json(json!({"data": {"errorCode": "SVCSTG.00100400", "errorMsg": "bad"}})),
            Code::InvalidArgument,
            "SVCSTG.00100400",
            "bad",
        ),
        (
            403,
            json(
                json!({"errorCode": "X", "errorMessage": "no", "encoded_authorization_message": "e"}),
            ),
            Code::PermissionDenied,
            "X",
            "no",
        ),
        (
            401,
            json(json!({"error": {"code": 401, "message": "token", "title": "Unauthorized"}})),
            Code::FailedPrecondition,
            "401",
            "token",
        ),
        (
            404,
            json(json!({"error_code": "APIGW.0101", "error_msg": "no api"})),
            Code::Unimplemented,
            "APIGW.0101",
            "no api",
        ),
        (
            409,
            json(json!({"code": "C", "message": "busy", "detail": "d"})),
            Code::Aborted,
            "C",
            "busy",
        ),
        (
            413,
            json(json!({"error_code": "APIGW.0201", "error_msg": "large"})),
            Code::ResourceExhausted,
            "APIGW.0201",
            "large",
        ),
        (
            504,
            json(json!({"error_code": "APIGW.0201", "error_msg": "slow"})),
            Code::DeadlineExceeded,
            "APIGW.0201",
            "slow",
        ),
        (
            502,
            b"<html><h1>Bad Gateway</h1></html>".to_vec(),
            // The upstream may have acted: clients must not retry.
            Code::Unknown,
            "HTTP_502",
            "Bad Gateway",
        ),
        (500, Vec::new(), Code::Internal, "HTTP_500", ""),
        (
            500,
            b"\xff\xfe oops".to_vec(),
            Code::Internal,
            "HTTP_500",
            "oops",
        ),
        // The vendor's message is in GBK: the text of the code is used.
        (
            401,
            b"{\"error_code\":\"SVCSTG.00100401\",\"error_message\":\"\xb2\xbb\xb4\xe6!\"}"
                .to_vec(),
            Code::NotFound,
            "SVCSTG.00100401",
            "!",
        ),
        (
            400,
            json(json!({"error_code": "SVCSTG.00100400", "error_message": "<order svc> is bad"})),
            Code::InvalidArgument,
            "SVCSTG.00100400",
            "<order svc> is bad",
        ),
        // No response that a request allows.
        (304, Vec::new(), Code::Internal, "HTTP_304", ""),
    ] {
        let answer = Answer::text(status, "application/json", body).with("x-request-id", "r1");
        let (result, seen) = recording
            .exchange(&rpc, json!({"environment_id": "e"}), answer)
            .await;
        let error = result.unwrap_err();
        // The call may start a job, so it is not retried; nor are invalid signatures.
        assert_eq!(seen.len(), 1, "{status} {reason}");
        assert_eq!(error.code(), code, "{status} {reason}: {error:?}");
        let details = error.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, reason, "{status}");
        assert!(error.message().contains(said), "{status}: {error:?}");
        assert_eq!(details.request_info().unwrap().request_id, "r1", "{status}");
    }
    // Throttling without `retry-after`.
    let answer = Answer::json(
        429,
        &json!({"error_code": "APIGW.0308", "error_msg": "throttled"}),
    );
    let (result, _) = recording
        .exchange(&rpc, json!({"environment_id": "e"}), answer)
        .await;
    let error = result.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted, "{error:?}");
    assert!(error.get_error_details().retry_info().is_some());
}

/// Returns the response of the rpc of this name: the recorded one, where there is one.
fn recorded(name: &str) -> Answer {
    let body = match name {
        "DeleteComponent" | "DeleteConfigGroup" => Value::Null,
        "GetComponentFilterOptions" => json!({"filter_options": {"applications": []}}),
        "ListLaneTargetServices" => json!({"target_services": []}),
        "ParseComponentTemplatePackage" => json!({"template": {}}),
        "ImportComponent" => json!({"job_id": "j", "component_id": "c"}),
        "UpdateApplicationConfiguration" => json!({"configuration": []}),
        "UpdateEnvironment" => json!({"id": "x", "name": "n"}),
        "UpdatePipeline" => json!({"id": "x"}),
        "UpdatePipelineHooks" => json!({"hooks": []}),
        _ => {
            let path = format!("tests/fixtures/servicestage/{name}.json");
            let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
            let exchange: Value = serde_json::from_str(&text).unwrap();
            let status = exchange["response"]["status"].as_u64().unwrap();
            return Answer::json(status as u16, &exchange["response"]["body"]);
        }
    };
    Answer::json(200, &body)
}
