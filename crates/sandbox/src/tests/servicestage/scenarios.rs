//! Scenarios of each resource, as sequences of calls.

mod release;

use super::*;

/// A step of a scenario.
enum Step {
    /// Advances the clock by a number of steps.
    Wait(u32),
    /// Method, path below `cas/` or after `/`, body, expected status, and expected
    /// members of the response. The first `$name` in an expected response stores the
    /// value under that name; later ones are compared with it. In paths and bodies it
    /// is replaced.
    Call(&'static str, &'static str, Value, u16, Value),
}

use Step::Wait;

fn call(method: &'static str, path: &'static str, body: Value, status: u16, want: Value) -> Step {
    Step::Call(method, path, body, status, want)
}

fn get(path: &'static str, want: Value) -> Step {
    call("GET", path, json!(null), 200, want)
}

fn refused(method: &'static str, path: &'static str, body: Value, status: u16, code: &str) -> Step {
    call(method, path, body, status, json!({"error_code": code}))
}

/// Runs the calls with the demo user on an empty sandbox with simulated progress.
async fn play(lines: Vec<Step>) {
    let sandbox = TestSandbox::new(Settings {
        play: true,
        ..TEST_SETTINGS
    });
    let token = sandbox.demo().await;
    let mut stored = vec![
        ("$env".to_owned(), json!(ENVIRONMENT_ID)),
        ("$project".to_owned(), json!(PROJECT_ID)),
    ];
    for line in lines {
        let (method, path, body, status, want) = match line {
            Wait(steps) => {
                tokio::time::advance(Duration::from_secs(2) * steps).await;
                continue;
            }
            Step::Call(method, path, body, status, want) => (method, path, body, status, want),
        };
        let put = |text: &str| {
            // The longest names first, so that `$a` does not replace the start of
            // `$ab`.
            let mut names: Vec<_> = stored.iter().collect();
            names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
            names.iter().fold(text.to_owned(), |text, (name, value)| {
                text.replace(name.as_str(), value.as_str().unwrap_or_default())
            })
        };
        let target = match path.strip_prefix('/') {
            Some(path) => format!("/v3/{PROJECT_ID}/{}", put(path)),
            None => cas(&put(path)),
        };
        let body = match body.is_null() {
            true => body,
            false => serde_json::from_str(&put(&body.to_string())).unwrap(),
        };
        let got = sandbox.call(&token, method, &target, body).await;
        let place = format!("{method} {path}: {} {}", got.status, got.body);
        assert_eq!(got.status, status, "{place}");
        compare(&want, &got.body, &mut stored, &place);
    }
}

/// Checks that all expected members exist. Lists must have all items, in order.
fn compare(want: &Value, got: &Value, stored: &mut Vec<(String, Value)>, place: &str) {
    match (want, got) {
        (Value::Object(want), Value::Object(got)) => {
            for (name, want) in want {
                let got = got.get(name).unwrap_or(&Value::Null);
                compare(want, got, stored, &format!("{place}\n at {name}"));
            }
        }
        (Value::Array(want), Value::Array(got)) => {
            assert_eq!(want.len(), got.len(), "{place}");
            for (want, got) in want.iter().zip(got) {
                compare(want, got, stored, place);
            }
        }
        (Value::String(name), got) if name.starts_with('$') => {
            match stored.iter().find(|(known, _)| known == name) {
                Some((_, known)) => assert_eq!(known, got, "{place}"),
                None => {
                    assert!(got.as_str().is_some_and(|text| !text.is_empty()), "{place}");
                    stored.push((name.clone(), got.clone()));
                }
            }
        }
        _ => assert_eq!(want, got, "{place}"),
    }
}

#[tokio::test(start_paused = true)]
async fn environment_scenario() {
    let one = json!({"name": "dev-1", "vpc_id": "v", "labels": [{"key": "a", "value": "bb"}]});
    play(vec![
        call("POST", "environments", one.clone(), 200, json!({"id": "$dev", "name": "dev-1",
            "project_id": PROJECT_ID, "creator": "demo", "enterprise_project_id": "0",
            "description": "", "deploy_mode": "container", "vpc_id": "v",
            "labels": [{"key": "a", "value": "bb"}], "resources": null})),
        refused("POST", "environments", one, 400, "SVCSTG.00100449"),
        refused("POST", "environments", json!({"name": "Dev", "vpc_id": "v"}), 400, "SVCSTG.00100400"),
        refused("POST", "environments", json!({"name": "dev-2"}), 400, "SVCSTG.00100400"),
        refused("POST", "environments", json!({"name": "dev-2", "vpc_id": "v", "deploy_mode": "x"}), 400, "SVCSTG.00100400"),
        get("environments/$dev", json!({"id": "$dev", "resources": []})),
        get("environments/resources?resource_type=cce", json!({"resources": [{"name": "cce-prod", "type": "cce"}]})),
        refused("GET", "environments/resources", json!(null), 400, "SVCSTG.00100400"),
        call("PUT", "environments/$dev/resources", json!({"resources": [{"id": "r", "type": "vpc"}]}), 200,
            json!({"resources": [{"id": "r", "type": "vpc"}]})),
        get("environments/$dev/resources", json!({"resources": [{"id": "r"}]})),
        refused("PUT", "environments/$dev/resources", json!({"resources": [{"id": "r"}]}), 400, "SVCSTG.00100400"),
        refused("PUT", "environments/$dev/resources", json!({}), 400, "SVCSTG.00100400"),
        call("PUT", "environments/$dev/resources", json!({"resources": []}), 200, json!({"resources": []})),
        Wait(1),
        call("PUT", "environments/$dev", json!({"name": "dev-1", "description": "d"}), 200,
            json!({"id": "$dev", "description": "d", "labels": [{"key": "a", "value": "bb"}]})),
        refused("PUT", "environments/$dev", json!({"name": "env-prod-1"}), 400, "SVCSTG.00100449"),
        get("environments", json!({"count": 2, "environments": [{"id": "$dev", "resources": null}, {"id": ENVIRONMENT_ID}]})),
        get("environments?order=asc", json!({"environments": [{"id": ENVIRONMENT_ID}, {"id": "$dev"}]})),
        get("environments?order_by=name", json!({"environments": [{"name": "env-prod-1"}, {"name": "dev-1"}]})),
        get("environments?order_by=update_time&order=asc", json!({"environments": [{"name": "env-prod-1"}, {"name": "dev-1"}]})),
        get("environments?limit=1&offset=1", json!({"count": 2, "environments": [{"id": ENVIRONMENT_ID}]})),
        get("environments?limit=0", json!({"count": 2, "environments": []})),
        get("environments?offset=9", json!({"count": 2, "environments": []})),
        get("environments?name=prod", json!({"count": 1, "environments": [{"id": ENVIRONMENT_ID}]})),
        get("environments?environment_id=$dev", json!({"count": 1, "environments": [{"id": "$dev"}]})),
        get("environments?enterprise_project_id=7", json!({"count": 0, "environments": []})),
        refused("GET", "environments?limit=101", json!(null), 400, "SVCSTG.00100400"),
        refused("GET", "environments?offset=-1", json!(null), 400, "SVCSTG.00100400"),
        refused("GET", "environments?order_by=size", json!(null), 400, "SVCSTG.00100400"),
        refused("GET", "environments?order=up", json!(null), 400, "SVCSTG.00100400"),
        call("POST", "environments/$dev/refresh", json!(null), 200, json!({"job_id": "$job", "environment_id": "$dev"})),
        get("jobs/$job", json!({"job": {"execution_status": "SUBMITTED", "job_type": "DAILY_OPERATION"}})),
        Wait(3),
        get("jobs/$job", json!({"job": {"execution_status": "SUCCEEDED"}})),
        call("DELETE", "environments/$dev", json!(null), 204, json!(null)),
        refused("GET", "environments/$dev", json!(null), 401, "SVCSTG.00100401"),
        refused("GET", "environments/$dev/resources", json!(null), 401, "SVCSTG.00100401"),
        refused("PUT", "environments/$dev", json!({"name": "x"}), 401, "SVCSTG.00100401"),
        refused("POST", "environments/$dev/refresh", json!(null), 401, "SVCSTG.00100401"),
        refused("DELETE", "environments/$dev", json!(null), 401, "SVCSTG.00100401"),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn application_scenario() {
    let list = json!([{"name": "A", "value": "1"}, {"name": "EMPTY", "value": ""}]);
    let configured =
        json!({"environment_id": "$env", "configuration": {"env": list, "assign_strategy": true}});
    play(vec![
        call("POST", "applications", json!({"name": "Order_1"}), 200, json!({"id": "$app", "name": "Order_1",
            "component_count": null, "labels": [], "description": "", "enterprise_project_id": "0"})),
        refused("POST", "applications", json!({"name": "Order_1"}), 400, "SVCSTG.00100458"),
        refused("POST", "applications", json!({"name": "a b"}), 400, "SVCSTG.00100400"),
        get("applications/$app", json!({"id": "$app", "component_count": 0})),
        call("PUT", "applications/$app", json!({"description": "d", "labels": [{"key": "k", "value": "vv"}]}), 200,
            json!({"name": "Order_1", "description": "d", "component_count": 0, "labels": [{"key": "k"}]})),
        call("POST", "applications", json!({"name": "b"}), 200, json!({"id": "$b"})),
        refused("PUT", "applications/$b", json!({"name": "Order_1"}), 400, "SVCSTG.00100458"),
        get("applications", json!({"count": 2, "applications": [{"id": "$b"}, {"id": "$app", "component_count": 0}]})),
        get("applications?limit=1&order=asc", json!({"count": 2, "applications": [{"id": "$app"}]})),

        refused("GET", "applications/$app/configuration", json!(null), 404, "SVCSTG.00100401"),
        refused("GET", "applications/$app/configuration?environment_id=x", json!(null), 404, "SVCSTG.00100411"),
        call("PUT", "applications/$app/configuration", configured.clone(), 200,
            json!({"application_id": "$app", "environment_id": ENVIRONMENT_ID,
                "configuration": {"env": [{"name": "A", "value": "1"}, {"value": ""}], "assign_strategy": true}})),
        get("applications/$app/configuration", json!({"configuration": [{"environment_id": ENVIRONMENT_ID,
            "configuration": {"env": [{"name": "A"}, {"name": "EMPTY"}]}}]})),
        get("applications/$app/configuration?environment_id=$env", json!({"configuration": [{"application_id": "$app"}]})),
        refused("PUT", "applications/$app/configuration", json!({"environment_id": "x", "configuration": {"env": []}}), 404, "SVCSTG.00100411"),
        refused("PUT", "applications/$app/configuration", json!({"environment_id": "$env", "configuration": {}}), 400, "SVCSTG.00100400"),
        refused("DELETE", "applications/$app/configuration", json!(null), 400, "SVCSTG.00100400"),
        call("DELETE", "applications/$app/configuration?environment_id=$env", json!(null), 204, json!(null)),
        call("DELETE", "applications/$app/configuration?environment_id=$env", json!(null), 204, json!(null)),

        refused("POST", "applications/$app/action", json!({"action": "dance", "parameters": {"components": []}}), 400, "SVCSTG.00100418"),
        refused("POST", "applications/$app/action", json!({"action": "stop", "parameters": {"components": [{"id": "x"}]}}), 401, "SVCSTG.00100401"),
        call("DELETE", "applications/$b", json!(null), 204, json!(null)),
        refused("GET", "applications/$b", json!(null), 401, "SVCSTG.00100401"),
        refused("GET", "applications/$b/configuration", json!(null), 401, "SVCSTG.00100401"),
        refused("GET", "applications/$b/components", json!(null), 401, "SVCSTG.00100401"),
        refused("DELETE", "applications/$b", json!(null), 401, "SVCSTG.00100401"),
    ])
    .await;
}

/// Builds a component's body, with `more` merged into it.
fn component(more: Value) -> Value {
    let mut body = json!({
        "name": "svc",
        "runtime_stack": {"name": "Docker", "type": "Docker", "version": "1.0.0", "deploy_mode": "container"},
        "source": {"kind": "image", "url": "swr/svc:1", "storage": "swr"},
        "environment_id": "$env",
        "replica": 2,
        "version": "1.0.1",
        "refer_resources": [{"id": "c", "type": "cce", "parameters": {"namespace": "default"}}],
    });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// Expects a status of `$svc`.
fn is(status: &str, job: &str) -> Step {
    get(
        "applications/$app/components/$svc",
        json!({"status": {"component_status": status, "last_job_id": job}}),
    )
}

#[tokio::test(start_paused = true)]
async fn component_scenario() {
    let c = "applications/$app/components";
    let one = "applications/$app/components/$svc";
    let action = "applications/$app/components/$svc/action";
    play(vec![
        call("POST", "applications", json!({"name": "app"}), 200, json!({"id": "$app"})),
        // Invalid bodies, in the order of the codes.
        refused("POST", c, component(json!({"version": "1"})), 400, "SVCSTG.00100400"),
        refused("POST", c, component(json!({"environment_id": null})), 400, "SVCSTG.00100400"),
        refused("POST", c, component(json!({"environment_id": "x"})), 400, "SVCSTG.00100411"),
        refused("POST", c, component(json!({"runtime_stack": {"name": "A", "type": "Ada", "deploy_mode": "container"}})), 400, "SVCSTG.00100420"),
        refused("POST", c, component(json!({"refer_resources": []})), 400, "SVCSTG.00100422"),
        refused("POST", c, component(json!({"source": {"kind": "image"}})), 400, "SVCSTG.00100425"),
        refused("POST", c, component(json!({"replica": -1})), 400, "SVCSTG.00100400"),
        refused("POST", c, component(json!({"create_mode": "import"})), 400, "SVCSTG.00100400"),
        refused("POST", "applications/x/components", component(json!({})), 401, "SVCSTG.00100401"),

        call("POST", c, component(json!({})), 200, json!({"component_id": "$svc", "job_id": "$made"})),
        refused("POST", c, component(json!({})), 400, "SVCSTG.00100400"),
        get(one, json!({"name": "svc", "application_id": "$app", "environment_id": "$env", "id": null,
            "replica": 2, "status": {"component_status": "INITIALIZING", "available_replica": 0,
            "last_job_id": "$made", "creator": "demo", "artifact": {"type": "image", "url": "swr/svc:1"}}})),
        get("jobs/$made", json!({"task_count": 2, "job": {"execution_status": "SUBMITTED", "job_type": "PROVISION"}})),
        refused("DELETE", "applications/$app", json!(null), 400, "SVCSTG.00100402"),
        refused("DELETE", "environments/$env", json!(null), 400, "SVCSTG.00100402"),
        // Another job is running.
        refused("PUT", one, component(json!({})), 409, "SVCSTG.00100402"),
        refused("POST", action, json!({"action": "stop"}), 409, "SVCSTG.00100402"),
        Wait(2),
        is("INITIALIZING", "$made"),
        get("jobs/$made", json!({"job": {"execution_status": "RUNNING"}, "tasks": [
            {"task_name": "InitializeTask", "task_status": "SUCCEEDED"}, {"task_name": "DeployTask", "task_status": "RUNNING"}]})),
        Wait(1),
        get(one, json!({"status": {"component_status": "RUNNING", "available_replica": 2, "fail_detail": null}})),
        get("components", json!({"count": 1, "components": [{"id": "$svc", "name": "svc", "application_name": "app",
            "environment_name": "env-prod-1", "application_id": "$app", "platform_type": "cce",
            "status": {"component_status": "RUNNING"}, "source": {"kind": "image"}, "version": "1.0.1"}]})),
        get("components?application_name=ap&component_name=sv", json!({"count": 1})),
        get("components?component_name=other", json!({"count": 0})),
        get("components/filterOptions", json!({"filter_options": {"applications": [{"id": "$app", "label": "app"}],
            "enterprise_projects": ["0"], "environments": [{"id": "$env"}]}})),
        get("applications/$app/components?limit=1", json!({"count": 1, "components": [{"id": "$svc"}]})),
        get("applications/$app", json!({"component_count": 1})),

        // A change: the old state is visible until the job leaves SUBMITTED.
        refused("PUT", one, component(json!({"name": "other"})), 400, "SVCSTG.00100400"),
        call("PUT", one, component(json!({"version": "1.0.2", "replica": 3})), 200, json!({"job_id": "$changed"})),
        is("RUNNING", "$changed"),
        Wait(1),
        is("UPGRADING", "$changed"),
        Wait(2),
        get(one, json!({"version": "1.0.2", "replica": 3, "status": {"component_status": "RUNNING", "replica": 3}})),
        get("applications/$app/components/$svc?version=1.0.1", json!({"version": "1.0.1", "replica": 2})),
        refused("GET", "applications/$app/components/$svc?version=9.9.9", json!(null), 400, "SVCSTG.00100436"),

        // Actions.
        refused("POST", action, json!({"action": "dance"}), 400, "SVCSTG.00100418"),
        refused("POST", action, json!({"action": "scale"}), 400, "SVCSTG.00100400"),
        refused("POST", action, json!({"action": "rollback", "parameters": {"version": "7.7.7"}}), 400, "SVCSTG.00100433"),
        refused("POST", action, json!({"action": "continue_deploy"}), 400, "SVCSTG.00100400"),
        call("POST", action, json!({"action": "sync_workload"}), 200, json!({"job_id": null, "result": "succeeded"})),
        call("POST", action, json!({"action": "scale", "parameters": {"replica": 5}}), 200, json!({"job_id": "$scaled"})),
        Wait(3),
        get(one, json!({"replica": 5, "status": {"available_replica": 5, "last_job_id": "$scaled"}})),
        call("POST", action, json!({"action": "stop"}), 200, json!({"job_id": "$stopped"})),
        Wait(1),
        is("STOPPING", "$stopped"),
        Wait(2),
        get(one, json!({"status": {"component_status": "STOPPED", "available_replica": 0}})),
        call("POST", action, json!({"action": "start"}), 200, json!({"job_id": "$started"})),
        Wait(1),
        is("STARTING", "$started"),
        Wait(2),
        is("RUNNING", "$started"),
        call("POST", action, json!({"action": "rollback", "parameters": {"version": "1.0.1"}}), 200, json!({"job_id": "$back"})),
        Wait(3),
        get(one, json!({"version": "1.0.1", "replica": 2, "status": {"component_status": "RUNNING"}})),
        call("POST", "applications/$app/action", json!({"action": "restart", "parameters": {"components": [{"id": "$svc"}]}}), 204, json!(null)),
        refused("POST", "applications/$app/action", json!({"action": "restart", "parameters": {"components": [{"id": "$svc"}]}}), 409, "SVCSTG.00100402"),
        Wait(1),
        get(one, json!({"status": {"component_status": "RESTARTING"}})),
        Wait(2),
        call("PUT", "applications/$app/components/$svc/refresh", json!(null), 200, json!({"message": "OK"})),

        // A gray release: waits, then continues or rolls back.
        call("PUT", "applications/$app/components/$svc/redeployment", component(json!({"version": "2.0.0", "deploy_strategy":
            {"type": "GrayRelease", "gray_release": {"type": "weight", "first_batch_weight": 20}}})), 200, json!({"job_id": "$gray"})),
        Wait(3),
        is("GRAYING", "$gray"),
        Wait(9),
        is("GRAYING", "$gray"),
        call("POST", action, json!({"action": "check_gray_release"}), 200, json!({"result": "succeeded", "job_id": null})),
        call("POST", action, json!({"action": "modify_gray_rule"}), 200, json!({"result": "succeeded"})),
        call("POST", action, json!({"action": "continue_deploy"}), 200, json!({"job_id": "$on"})),
        call("POST", action, json!({"action": "check_gray_release"}), 200, json!({"result": "failed"})),
        Wait(3),
        is("RUNNING", "$on"),
        get("applications/$app/components/$svc/records?limit=1", json!({"count": 4, "records": [{"version": "2.0.0",
            "current_used": true, "status": "SUCCEEDED", "deploy_type": "gray_release", "instance_id": "$svc", "jobs": [
                {"sequence": 0, "job_id": "$gray", "job_info": {"first_batch_weight": 20, "source_url": "swr/svc:1"}},
                {"sequence": 1, "deploy_type": "continue_deploy", "job_id": "$on"}]}]})),
        call("PUT", one, component(json!({"version": "3.0.0"})), 200, json!({"job_id": "$gray2"})),
        Wait(3),
        is("GRAYING", "$gray2"),
        call("POST", action, json!({"action": "rollback_current"}), 200, json!({"job_id": "$reverted"})),
        Wait(3),
        get(one, json!({"version": "2.0.0", "status": {"component_status": "RUNNING"}})),

        // The deletion is asynchronous.
        call("DELETE", one, json!(null), 200, json!({"component_id": "$svc"})),
        get(one, json!({"status": {"component_status": "DELETING"}})),
        Wait(2),
        get(one, json!({"status": {"component_status": "DELETING"}})),
        Wait(1),
        refused("GET", one, json!(null), 401, "SVCSTG.00100401"),
        refused("POST", action, json!({"action": "stop"}), 401, "SVCSTG.00100401"),
        get("components", json!({"count": 0, "components": []})),
        call("DELETE", "applications/$app", json!(null), 204, json!(null)),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn components_from_templates_imports_and_source_code() {
    let c = "applications/$app/components";
    let source = json!({"storage": "obs", "url": "obs://b/t.tgz"});
    play(vec![
        call("POST", "applications", json!({"name": "app"}), 200, json!({"id": "$app"})),
        call("POST", c, component(json!({"name": "to-fail"})), 200, json!({"component_id": "$ill", "job_id": "$bad"})),
        call("POST", c, component(json!({"name": "coded", "source": {"kind": "code", "repo_url": "https://x"}})), 200,
            json!({"component_id": "$coded", "job_id": "$build"})),
        call("POST", c, json!({"name": "old", "create_mode": "import", "workload_name": "w", "workload_kind": "Deployment",
            "runtime_stack": {"name": "Docker", "type": "Docker", "deploy_mode": "container"}, "environment_id": "$env",
            "version": "1.0.0"}), 200, json!({"component_id": "$old"})),
        call("POST", "components", json!({"environment_id": "$env", "application_id": "$app", "template_source": source,
            "input_values": {"name": "tpl", "replicas": "4"}}), 200, json!({"component_id": "$tpl", "job_id": "$t"})),
        refused("POST", "components", json!({"environment_id": "$env", "application_id": "x", "template_source": source}), 401, "SVCSTG.00100401"),
        refused("POST", "components", json!({"environment_id": "$env", "application_id": "$app", "template_source": source,
            "input_values": {"name": "No Name"}}), 400, "SVCSTG.00100400"),
        call("POST", "components/parse-template-package", json!({"template_source": source}), 200,
            json!({"variables": {"replicas": {"default": 1}}})),
        call("POST", "components/action", json!({"action": "query", "components": [{"id": "$tpl", "application_id": "$app"}]}), 200, json!({})),
        refused("POST", "components/action", json!({"action": "query", "components": [{"id": "$tpl", "application_id": "x"}]}), 401, "SVCSTG.00100401"),
        refused("POST", "components/action", json!({"action": "sing", "components": []}), 400, "SVCSTG.00100418"),
        get("jobs/$build", json!({"task_count": 3})),
        Wait(3),
        get("applications/$app/components/$tpl", json!({"name": "tpl", "replica": 4, "status": {"component_status": "RUNNING"}})),
        get("applications/$app/components/$coded", json!({"status": {"component_status": "INITIALIZING"}})),
        get("applications/$app/components/$ill", json!({"status": {"component_status": "FAILED", "fail_detail": "create_failed"}})),
        get("jobs/$bad", json!({"job": {"execution_status": "FAILED"}, "tasks": [
            {"task_status": "SUCCEEDED"}, {"task_status": "FAILED", "messages": "the sandbox failed it"}]})),
        get("applications/$app/components/$ill/records", json!({"records": [{"status": "FAILED", "deploy_type": "create"}]})),
        get("components?order_by=name&order=asc&limit=2", json!({"count": 4, "components": [{"name": "coded"}, {"name": "old"}]})),
        Wait(1),
        get("applications/$app/components/$coded", json!({"status": {"component_status": "RUNNING"}})),
        get("components?order_by=update_time&limit=1", json!({"components": [{"name": "coded"}]})),
    ])
    .await;
}
