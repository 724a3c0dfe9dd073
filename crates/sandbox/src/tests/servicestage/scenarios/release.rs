//! Scenarios of the resources around components.

use super::*;

#[tokio::test(start_paused = true)]
async fn runtime_stack_and_directory_scenario() {
    let stack = json!({"name": "own/jdk", "deploy_mode": "virtualmachine", "type": "Java", "version": "1.0.1",
        "spec": {"parameters": {"jdk_url": "u"}}});
    let directory = json!({"path": "/a", "user": "u", "group": "g", "mode": "0750"});
    let settings = json!({"run_as_user": "u", "app_home": directory, "log_home": directory});
    play(vec![
        get("runtimestacks", json!({"total": 4, "runtimestacks": null, "runtime_stacks":
            [{"name": "OpenJDK8", "system": 1, "id": "$system"}, {}, {"status": "Deprecated"}, {"name": "Docker"}]})),
        get("runtimestacks/$system", json!({"name": "OpenJDK8", "component_count": 0})),
        refused("DELETE", "runtimestacks/$system", json!(null), 400, "SVCSTG.00100400"),
        get("innerimages", json!({"runtime_stacks": [{"type": "Java"}, {"type": "Tomcat"}, {"type": "Php"}]})),
        call("POST", "runtimestacks", stack.clone(), 200, json!({"id": "$own", "status": "Disable", "system": 0,
            "component_count": 0, "spec": {"parameters": {"jdk_url": "u"}}, "creator": "demo"})),
        refused("POST", "runtimestacks", json!({"name": "x"}), 400, "SVCSTG.00100400"),
        call("POST", "runtimestacks/action", json!({"action": "Supported", "parameters": {"runtimestacks": [{"id": "$own"}]}}), 204, json!(null)),
        refused("POST", "runtimestacks/action", json!({"action": "Disable", "parameters": {"runtimestacks": [{"id": "$own"}, {"id": "x"}]}}), 404, "SVCSTG.00100401"),
        get("runtimestacks/$own", json!({"status": "Supported"})),
        call("PUT", "runtimestacks/$own", stack, 200, json!({"id": "$own", "status": "Supported"})),
        call("POST", "applications", json!({"name": "app"}), 200, json!({"id": "$app"})),
        call("POST", "applications/$app/components", component(json!({"runtime_stack":
            {"name": "own/jdk", "type": "Java", "deploy_mode": "virtualmachine"}})), 200, json!({"component_id": "$svc"})),
        get("runtimestacks/$own", json!({"component_count": 1})),
        get("components", json!({"components": [{"platform_type": "vmapp"}]})),
        refused("DELETE", "runtimestacks/$own", json!(null), 409, "SVCSTG.00100400"),
        call("DELETE", "applications/$app/components/$svc", json!(null), 200, json!({})),
        Wait(3),
        call("DELETE", "runtimestacks/$own", json!(null), 204, json!(null)),
        refused("GET", "runtimestacks/$own", json!(null), 404, "SVCSTG.00100401"),

        call("POST", "vmapp-configs", settings.clone(), 200, json!({"id": "$dir", "name": "", "run_as_user": "u", "project_id": "$project"})),
        refused("POST", "vmapp-configs", json!({"run_as_user": "u", "app_home": {}, "log_home": {}}), 400, "SVCSTG.00100400"),
        get("vmapp-configs", json!({"total": 1, "vmapp_configs": [{"id": "$dir"}]})),
        call("PUT", "vmapp-configs/$dir", settings, 200, json!({"id": "$dir"})),
        get("vmapp-configs/$dir", json!({"app_home": {"mode": "0750"}})),
        call("DELETE", "vmapp-configs/$dir", json!(null), 204, json!(null)),
        refused("DELETE", "vmapp-configs/$dir", json!(null), 404, "SVCSTG.00100401"),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn config_scenario() {
    let config = json!({"config_group_id": "$group", "name": "application", "content": "a: 1\n", "type": "yaml", "sensitive": false});
    let changed = json!({"config_group_id": "$group", "content": "a=2", "type": "properties"});
    play(vec![
        call("POST", "config-groups", json!({"name": "order-group"}), 200, json!({"id": "$group", "name": "order-group",
            "labels": null, "update_time": null, "project_id": "$project"})),
        get("config-groups?name=order", json!({"count": 1, "config_groups": [{"id": "$group", "labels": [], "enterprise_project_id": "0"}]})),
        get("config-groups?name=other", json!({"count": 0})),
        get("config-groups/$group", json!({"id": "$group"})),
        call("POST", "configs", config.clone(), 200, json!({"id": "$config", "version": "v1", "components": [], "content": "a: 1\n"})),
        refused("POST", "configs", json!({"config_group_id": "x", "name": "n", "content": "c", "type": "yaml", "sensitive": true}), 400, "SVCSTG.00100400"),
        refused("POST", "configs", json!({"config_group_id": "$group", "name": "n", "content": "c", "type": "xml", "sensitive": true}), 400, "SVCSTG.00100400"),
        get("configs/$config/histories", json!({"count": 0, "histories": []})),
        Wait(1),
        call("PUT", "configs/$config", changed.clone(), 200, json!({"id": "$config", "version": "v2", "type": "properties", "content": "a=2", "name": "application"})),
        call("PUT", "configs/$config", changed, 200, json!({"version": "v3"})),
        get("configs/$config/histories", json!({"count": 2, "histories": [{"version": "v2"}, {"version": "v1",
            "config_history_id": "$past", "config_id": "$config", "group_id": "$group", "config_name": "application", "content": "a: 1\n"}]})),
        get("configs/$config/histories/$past", json!({"version": "v1", "type": "yaml"})),
        call("DELETE", "configs/$config/histories/$past", json!(null), 204, json!(null)),
        refused("GET", "configs/$config/histories/$past", json!(null), 404, "SVCSTG.00100401"),
        get("configs?config_group_id=$group&name=appl&order_by=update_time", json!({"count": 1, "configs": [{"id": "$config"}]})),
        get("configs?component_id=x", json!({"count": 0})),
        call("DELETE", "configs/$config", json!(null), 204, json!(null)),
        refused("DELETE", "configs/$config", json!(null), 404, "SVCSTG.00100401"),
        call("POST", "configs", config, 200, json!({"id": "$second"})),
        call("DELETE", "config-groups/$group", json!(null), 200, json!(null)),
        call("DELETE", "config-groups/$group", json!(null), 200, json!(null)),
        refused("GET", "config-groups/$group", json!(null), 404, "SVCSTG.00100401"),
        refused("GET", "configs/$second", json!(null), 404, "SVCSTG.00100401"),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn release_plan_scenario() {
    let to =
        |version: &str| component(json!({"seq": 1, "component_id": "$svc", "version": version}));
    let plan = json!({"name": "june", "action": "upgrade", "components": [to("2.0.0")]});
    play(vec![
        call("POST", "applications", json!({"name": "app"}), 200, json!({"id": "$app"})),
        call("POST", "applications/$app/components", component(json!({})), 200, json!({"component_id": "$svc"})),
        call("POST", "release-plans", plan.clone(), 200, json!({"id": "$plan", "status": "READY", "execute_time": 0,
            "fail_strategy": "stop", "project_id": null, "update_time": null})),
        refused("POST", "release-plans", json!({"name": "n", "action": "upgrade", "components": [{"seq": 1, "component_id": "x", "name": "n"}]}), 400, "SVCSTG.00100404"),
        get("release-plans", json!({"count": 1, "release_plans": [{"id": "$plan", "components": null}]})),
        // The component is still being created.
        refused("POST", "release-plans/$plan/execute", json!(null), 409, "SVCSTG.00100402"),
        refused("POST", "release-plans/$plan/rollback", json!(null), 400, "SVCSTG.00100433"),
        Wait(3),
        call("POST", "release-plans/$plan/execute", json!(null), 200, json!(null)),
        refused("POST", "release-plans/$plan/execute", json!(null), 409, "SVCSTG.00100402"),
        get("release-plans/$plan", json!({"status": "RUNNING", "components": [{"component_id": "$svc", "seq": 1}]})),
        get("release-plans/$plan/deploy-info", json!({"id": "$plan", "components": [{"id": "$svc", "seq": "1",
            "version": "2.0.0", "job_id": "$job", "job_status": "SUBMITTED", "end_time": 0, "rollback_job_id": ""}]})),
        Wait(3),
        get("jobs/$job", json!({"job": {"execution_status": "SUCCEEDED"}})),
        get("release-plans/$plan", json!({"status": "SUCCESS"})),
        get("applications/$app/components/$svc", json!({"version": "2.0.0"})),
        refused("POST", "release-plans/$plan/abort", json!(null), 400, "SVCSTG.00100400"),
        call("POST", "release-plans/$plan/rollback", json!(null), 200, json!(null)),
        get("release-plans/$plan", json!({"status": "ROLLBACKING"})),
        Wait(3),
        get("release-plans/$plan", json!({"status": "ROLLBACKED"})),
        get("release-plans/$plan/deploy-info", json!({"components": [{"rollback_job_status": "SUCCEEDED"}]})),
        get("applications/$app/components/$svc", json!({"version": "1.0.1"})),
        call("PUT", "release-plans/$plan", json!({"name": "july", "components": [to("3.0.0")]}), 200, json!({"name": "july"})),
        call("POST", "release-plans/$plan/execute", json!(null), 200, json!(null)),
        call("POST", "release-plans/$plan/abort", json!(null), 200, json!(null)),
        get("release-plans/$plan", json!({"status": "ABORTED"})),
        call("DELETE", "release-plans/$plan", json!(null), 200, json!(null)),
        refused("GET", "release-plans/$plan", json!(null), 404, "SVCSTG.00100401"),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn pipeline_scenario() {
    let p = "/pipeline/pipelines";
    let source = json!([{"template_source": {"storage": "obs", "url": "obs://b/t"}, "input_values": {"tag": "1"}}]);
    let make = |name: &str| json!({"name": name, "model_version": 2, "config_mode": "template", "sources": source});
    let status = |status: i32| {
        get(
            "/pipeline/pipelines",
            json!({"pipelines": [{"id": "$gated"}, {"id": "$weekly", "status": status}]}),
        )
    };
    let act = |path: &'static str, status: i32| {
        call(
            "POST",
            path,
            json!(null),
            200,
            json!({"id": 288_506, "status": status}),
        )
    };
    play(vec![
        call(
            "POST",
            p,
            make("weekly"),
            200,
            json!({"id": "$weekly", "name": "weekly"}),
        ),
        call(
            "POST",
            p,
            make("approval-gate"),
            200,
            json!({"id": "$gated"}),
        ),
        refused(
            "POST",
            p,
            json!({"name": "n", "model_version": 1, "config_mode": "ui"}),
            400,
            "SVCSTG.00100400",
        ),
        refused(
            "POST",
            p,
            json!({"name": "n", "model_version": 2, "config_mode": "template"}),
            400,
            "SVCSTG.00100400",
        ),
        get(
            "/pipeline/pipelines/$weekly",
            json!({"fail_mode": "stop", "model_version": 2,
            "pipeline_declaration": {"sources": [{"input_values": {"tag": "1"}}], "stages": []}}),
        ),
        call(
            "GET",
            "/pipeline/pipelines/parse-template-package",
            json!({"sources": source}),
            200,
            json!({"variables": {"image": {}}}),
        ),
        status(1),
        refused(
            "POST",
            "/pipeline/pipelines/$weekly/action",
            json!(null),
            400,
            "SVCSTG.00100400",
        ),
        refused(
            "POST",
            "/pipeline/pipelines/$weekly/action?action_id=sing",
            json!(null),
            400,
            "SVCSTG.00100418",
        ),
        refused(
            "POST",
            "/pipeline/pipelines/$weekly/action?action_id=stop",
            json!(null),
            400,
            "SVCSTG.00100400",
        ),
        act("/pipeline/pipelines/$weekly/action?action_id=start", 4),
        status(4),
        Wait(2),
        status(2),
        act("/pipeline/pipelines/$weekly/action?action_id=rollback", 10),
        Wait(2),
        status(11),
        get(
            "/pipeline/pipelines/$weekly/records",
            json!({"count": 1, "records": [{"id": 288_506, "pipeline_id": "$weekly"}]}),
        ),
        act("/pipeline/pipelines/$gated/action?action_id=start", 4),
        Wait(1),
        get(p, json!({"pipelines": [{"status": 5}, {}]})),
        refused(
            "POST",
            "/pipeline/pipelines/$gated/action?action_id=approval",
            json!({}),
            400,
            "SVCSTG.00100400",
        ),
        call(
            "POST",
            "/pipeline/pipelines/$gated/action?action_id=approval",
            json!({"approval_type": "agree"}),
            200,
            json!({"status": 4}),
        ),
        Wait(1),
        get(p, json!({"pipelines": [{"status": 2}, {}]})),
        refused(
            "GET",
            "/pipeline/pipelines/$weekly/hooks",
            json!(null),
            404,
            "SVCSTG.00100401",
        ),
        call(
            "POST",
            "/pipeline/pipelines/$weekly/hooks",
            json!({"strategy_type": 1, "hooks":
            [{"schedule": "0 30 2 * * ?", "timezone_operator": "+", "timezone_hour": 8}]}),
            200,
            json!({"strategy_type": 1, "selected_tasks": []}),
        ),
        call(
            "PUT",
            "/pipeline/pipelines/$weekly/hooks",
            json!({"strategy_type": 0}),
            200,
            json!({"strategy_type": 0}),
        ),
        get(
            "/pipeline/pipelines/$weekly/hooks",
            json!({"strategy_type": 0, "hooks": []}),
        ),
        call(
            "PUT",
            "/pipeline/pipelines/$weekly",
            make("weekly"),
            200,
            json!({"id": "$weekly"}),
        ),
        get(p, json!({"pipelines": [{}, {"version": 2}]})),
        refused(
            "GET",
            "/pipeline/pipelines/x",
            json!(null),
            404,
            "SVCSTG.00100401",
        ),
        refused("GET", "/pipeline/other", json!(null), 404, "APIGW.0101"),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn lane_scenario() {
    let gateway = json!({"engine_id": "e", "id": "g", "name": "gw", "target_services": [{"host": "h", "id": "t"}]});
    let lanes = "swimlane-group/$group/swimlane";
    let lane = "swimlane-group/$group/swimlane/$gray";
    play(vec![
        call("POST", "swimlane-group", json!({"name": "full", "gateways": [gateway]}), 200, json!({"id": "$group",
            "engine_ids": ["e"], "swimlane_count": 0, "target_services": [{"host": "h"}], "create_time": "$when"})),
        refused("POST", "swimlane-group", json!({"name": "n", "gateways": [{}]}), 400, "SVCSTG.00100400"),
        refused("POST", lanes, json!({"name": "gray", "tag": "g", "type": "GRAY"}), 400, "SVCSTG.00100400"),
        call("POST", lanes, json!({"name": "base", "tag": "b", "type": "BASE"}), 200, json!({"id": "$base", "route_status": "ENABLE",
            "instance_count": 0, "swimlane_group_id": "$group", "update_time": "$when"})),
        refused("POST", lanes, json!({"name": "base2", "tag": "b", "type": "BASE"}), 400, "SVCSTG.00100400"),
        call("POST", lanes, json!({"name": "gray", "tag": "g", "type": "GRAY"}), 200, json!({"id": "$gray", "route_status": "DISABLED"})),
        get(lanes, json!({"count": 2, "swimlanes": [{"id": "$base"}, {"id": "$gray"}]})),
        get("swimlane-group", json!({"count": 1, "swimlaneGroups": [{"id": "$group", "swimlane_count": 2, "gateway_engine_ids": ["e"]}]})),
        get("swimlane-group/$group", json!({"swimlanes": [{"id": "$base"}, {"id": "$gray"}]})),
        get("swimlane-group/target-services?gateway_id=g", json!({"target_services": [{"host": "h"}]})),
        get("swimlane-group/target-services?gateway_id=x", json!({"target_services": []})),
        get("swimlane?engine_id=e", json!({"count": 2, "swimlanes": [{"swimlane_group": {"id": "$group", "routeInGroupTags": []}}, {}]})),
        get("swimlane?engine_id=x", json!({"count": 0, "swimlanes": []})),
        refused("GET", "swimlane", json!(null), 400, "SVCSTG.00100400"),
        call("PUT", "swimlane-group/$group", json!({"name": "full-2"}), 200, json!({"name": "full-2", "engine_ids": ["e"]})),
        call("PUT", "swimlane-group/$group/route", json!({"gray_release_type": "WEIGHT", "swimlanes": [{"id": "$gray", "weight": 20,
            "rule_match_mode": "ANY", "rules": [{"type": "HEADER", "key": "k", "value": "v", "condition": "EXACT"}]}]}), 200,
            json!({"gray_release_type": "WEIGHT"})),
        refused("PUT", "swimlane-group/$group/route", json!({"swimlanes": [{"id": "$gray", "weight": 101}]}), 400, "SVCSTG.00100400"),
        refused("PUT", "swimlane-group/$group/route", json!({"swimlanes": [{"id": "x"}]}), 404, "SVCSTG.00100401"),
        get(lane, json!({"weight": 20, "rule_match_mode": "ANY", "rules": [{"key": "k"}]})),
        get("swimlane-group/$group/view", json!({"swimlanes": ["$base", "$gray"]})),
        call("PUT", "swimlane-group/$group/view", json!({"swimlanes": ["$gray"]}), 200, json!({"swimlanes": ["$gray"]})),
        get("swimlane-group/$group/view", json!({"swimlanes": ["$gray"]})),
        call("PUT", lane, json!({"name": "grey"}), 200, json!({"name": "grey", "tag": "g"})),
        call("POST", "swimlane-group/$group/swimlane/$gray/action", json!({"route_status": "ENABLE"}), 200, json!({"route_status": "ENABLE"})),
        refused("POST", "swimlane-group/$group/swimlane/$gray/action", json!({"route_status": "on"}), 400, "SVCSTG.00100418"),
        call("PUT", "swimlane-group/$group/swimlane/$gray/instances", json!({"action": "ADD", "instance_ids": ["i", "j"]}), 200,
            json!({"instance_count": 2, "instances": [{"instance_id": "i"}, {"instance_id": "j"}]})),
        call("PUT", "swimlane-group/$group/swimlane/$gray/component-instances", json!({"action": "delete", "instance_ids": ["i"]}), 200, json!({"instance_count": 1})),
        refused("PUT", "swimlane-group/$group/swimlane/$gray/component-instances", json!({"action": "ADD", "instance_ids": ["i"]}), 400, "SVCSTG.00100418"),
        call("POST", "swimlane-group/$group/swimlane/$gray/components-action", json!({"action": "REMOVE", "instance_ids": ["j"]}), 200, json!({"instance_count": 0})),
        call("POST", "swimlane-group/$group/swimlanes-action", json!({"action": "DISABLED", "swimlanes": ["$gray"]}), 200, json!(null)),
        get(lane, json!({"route_status": "DISABLED"})),
        call("POST", "swimlane-group/$group/swimlanes-action", json!({"action": "DELETE", "swimlanes": ["$gray"]}), 200, json!(null)),
        refused("GET", lane, json!(null), 404, "SVCSTG.00100401"),
        call("DELETE", "swimlane-group/$group/swimlane/$base", json!(null), 200, json!(null)),
        call("DELETE", "swimlane-group/$group", json!(null), 200, json!(null)),
        refused("GET", lanes, json!(null), 404, "SVCSTG.00100401"),
    ])
    .await;
}

#[tokio::test]
async fn projects_are_isolated_and_readers_cannot_write() {
    let sandbox = TestSandbox::new(TEST_SETTINGS);
    let other = sandbox.login(OTHER_USERNAME, Some(OTHER_PROJECT_ID)).await;
    let path = format!("/v3/{OTHER_PROJECT_ID}/cas/environments");
    let got = sandbox.call(&other, "GET", &path, json!(null)).await;
    assert_eq!(got.body, json!({"count": 0, "environments": []}));
    let made = json!({"name": "mine", "vpc_id": "v"});
    assert_eq!(
        sandbox
            .call(&other, "POST", &path, made.clone())
            .await
            .status,
        200
    );
    let demo = sandbox.demo().await;
    let got = sandbox
        .call(&demo, "GET", &cas("environments"), json!(null))
        .await;
    assert_eq!(got.body["count"], 1);

    let reader = sandbox.login(READER_USERNAME, Some(PROJECT_ID)).await;
    let got = sandbox
        .call(&reader, "GET", &cas("environments"), json!(null))
        .await;
    assert_eq!(got.body["count"], 1);
    let got = sandbox
        .call(&reader, "POST", &cas("environments"), made)
        .await;
    assert_eq!(
        (got.status, &got.body["error_code"]),
        (403, &json!("APIGW.0302"))
    );
}

#[tokio::test]
async fn preloaded_component_is_running() {
    let sandbox = TestSandbox::new(Settings::default());
    let token = sandbox.demo().await;
    let path = cas(&format!(
        "applications/{APPLICATION_ID}/components/{COMPONENT_ID}"
    ));
    let got = sandbox.call(&token, "GET", &path, json!(null)).await.body;
    assert_eq!(got["status"]["component_status"], "RUNNING");
    let job = cas(&format!(
        "jobs/{}",
        got["status"]["last_job_id"].as_str().unwrap()
    ));
    let got = sandbox.call(&token, "GET", &job, json!(null)).await.body;
    assert_eq!(got["job"]["execution_status"], "SUCCEEDED");
}
