//! Each rpc with the sandbox: the gateway's message equals the sandbox's response, member by
//! member.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use drawbridge::cli::quickstart;
use drawbridge_sandbox::{self as sandbox, Sandbox};
use serde_json::{Value, json};
use tonic_types::StatusExt;

use super::captures::lost;
use super::rpc;
use crate::support::tee::Tee;
use crate::support::{Gateway, request};

/// The time of a step of the sandbox.
const STEP: Duration = Duration::from_millis(20);
/// The most time that a job takes.
const JOB_TIMEOUT: Duration = Duration::from_secs(120);

/// A gateway and a sandbox, with a recording proxy between them.
struct Stage {
    gateway: Gateway,
    tee: Tee,
    sandbox: Sandbox,
    /// The values of `$name` in a line.
    names: BTreeMap<&'static str, String>,
    /// The rpcs that have succeeded.
    called: BTreeSet<String>,
    /// Differences between message and response.
    problems: Vec<String>,
}

impl Stage {
    async fn new() -> Self {
        let settings = sandbox::Settings {
            step: STEP,
            ..sandbox::Settings::default()
        };
        let sandbox = Sandbox::start(([127, 0, 0, 1], 0).into(), settings)
            .await
            .unwrap();
        let tee = Tee::before(&sandbox.servicestage_url()).await;
        let mut upstreams = quickstart::upstreams(&sandbox);
        for settings in upstreams.iter_mut().filter(|s| s.family == "servicestage") {
            settings.endpoint = Some(tee.url().parse().unwrap());
        }
        Self {
            gateway: Gateway::with(upstreams).await,
            tee,
            sandbox,
            names: BTreeMap::from([
                ("$env", sandbox::ENVIRONMENT_ID.to_owned()),
                ("$addon", sandbox::ADDON_ID.to_owned()),
            ]),
            called: BTreeSet::new(),
            problems: Vec::new(),
        }
    }

    fn put(&self, text: &str) -> String {
        // The longest names first: `$app` is a prefix of `$app2`.
        let mut names: Vec<_> = self.names.iter().collect();
        names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        names
            .iter()
            .fold(text.to_owned(), |text, (name, id)| text.replace(*name, id))
    }

    /// Calls the rpc of a REST request (`path` below the project, a null body for none), compares,
    /// and returns the sandbox's response.
    async fn call(&mut self, name: &str, path: &str, body: Value) -> Value {
        let (path, query) = self.target(path);
        let body: Value = serde_json::from_str(&self.put(&body.to_string())).unwrap();
        let rpc = rpc(&self.gateway.client, name);
        let method = self.gateway.client.method(&rpc);
        let message =
            request::of(&method, &path, &query, &body).unwrap_or_else(|e| panic!("{name}: {e}"));
        let got = self.gateway.client.call(&rpc, message).await;
        let answers = self.tee.take();
        let [(status, answer)] = &answers[..] else {
            self.problems
                .push(format!("{name}: not asked once: {answers:?} {got:?}"));
            return Value::Null;
        };
        let problem = match &got {
            Ok(message) => {
                let lost = lost(&method, message, answer);
                self.called.insert(name.to_owned());
                *status >= 300 || !lost.is_empty()
            }
            Err(error) => {
                let details = error.get_error_details();
                let reason = details.error_info().map(|info| info.reason.as_str());
                let said = (answer["error_message"].as_str()).or(answer["error_msg"].as_str());
                *status < 400
                    || answer["error_code"].as_str() != reason
                    || said != Some(error.message())
            }
        };
        if problem {
            let lost = got.map(|message| lost(&method, &message, answer));
            self.problems
                .push(format!("{name} {path}: {status} {answer}: {lost:?}"));
        }
        answer.clone()
    }

    async fn play(&mut self, lines: Vec<Line>) {
        for line in lines {
            match line {
                Line::Call(name, path, body, keep) => {
                    let answer = self.call(name, &path, body).await;
                    let Some((id, member)) = keep else { continue };
                    let value = answer.pointer(member).and_then(Value::as_str);
                    if value.is_none() {
                        let problem = format!("{name}: no {member} in {answer}");
                        self.problems.push(problem);
                    }
                    self.names.insert(id, value.unwrap_or("none").to_owned());
                }
                Line::Finish(job) => self.finish(job).await,
                Line::StandStill => self.sandbox.pause_clock(),
                Line::GoOn => self.sandbox.resume_clock(),
            }
        }
    }

    /// Polls a job until it is final.
    async fn finish(&mut self, job: &str) {
        let path = format!("cas/jobs/{job}?limit=20&offset=0&desc=false");
        let over = async {
            loop {
                let answer = self.call("GetJob", &path, Value::Null).await;
                let status = answer["job"]["execution_status"].as_str();
                if !matches!(status, Some("SUBMITTED" | "RUNNING")) {
                    break;
                }
            }
        };
        tokio::time::timeout(JOB_TIMEOUT, over).await.expect(job);
    }

    fn target(&self, path: &str) -> (String, Vec<(String, String)>) {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let query = self.put(query);
        let pairs = url::form_urlencoded::parse(query.as_bytes()).into_owned();
        let path = format!("/v3/{}/{}", sandbox::PROJECT_ID, self.put(path));
        (path, pairs.collect())
    }
}

/// A line of the script.
enum Line {
    /// An rpc by its REST request: the path below the project and the body (null for none); and
    /// a name for a member of the response, by its JSON pointer.
    Call(
        &'static str,
        String,
        Value,
        Option<(&'static str, &'static str)>,
    ),
    /// Waits for a job.
    Finish(&'static str),
    /// Pauses the sandbox's time: nothing that starts now is final before [`Line::GoOn`],
    /// however long the calls take.
    StandStill,
    /// Resumes the sandbox's time.
    GoOn,
}

use Line::{Finish, GoOn, StandStill};

fn call(name: &'static str, path: impl Into<String>, body: Value) -> Line {
    Line::Call(name, path.into(), body, None)
}

fn keep(
    id: &'static str,
    member: &'static str,
    name: &'static str,
    path: impl Into<String>,
    body: Value,
) -> Line {
    Line::Call(name, path.into(), body, Some((id, member)))
}

/// A component's body, overridden by `more`.
pub(super) fn component(name: &str, more: Value) -> Value {
    let mut body = json!({
        "name": name,
        "description": "Übung 一",
        "labels": [{"key": "team", "value": "payments"}],
        "runtime_stack": {"name": "Docker", "type": "Docker", "version": "1.0.0", "deploy_mode": "container"},
        "source": {"kind": "image", "url": "swr.example.com/acme/svc:1.0.1", "storage": "swr", "auth": "iam"},
        "limit_cpu": 1.5,
        "limit_memory": 2,
        "replica": 2,
        "version": "1.0.1",
        "envs": [{"name": "A", "value": "1"}],
        "affinity": [{"condition": "required", "kind": "node", "weight": 100, "match_expressions":
            [{"key": "arch", "operation": "In", "value": "amd64"}]}],
        "refer_resources": [{"id": "c", "type": "cce", "parameters": {"namespace": "default"}}],
    });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

const NO: Value = Value::Null;

#[tokio::test]
async fn every_rpc_matches_the_sandbox_response() {
    let mut stage = Stage::new().await;
    stage.play(environments_and_addons()).await;
    stage.play(applications()).await;
    stage.play(components()).await;
    stage.play(stacks_configs_directories()).await;
    stage.play(releases()).await;
    stage.play(lanes()).await;
    tidy_up(&mut stage).await;

    assert!(stage.problems.is_empty(), "{}", stage.problems.join("\n"));
    let services = stage.gateway.client.services("huaweicloud.servicestage.v3");
    let all = services.iter().flat_map(|service| service.methods());
    let missed: Vec<String> = all
        .filter(|method| !method.is_server_streaming())
        .map(|method| method.name().to_owned())
        .filter(|name| !stage.called.contains(name))
        .collect();
    assert_eq!(missed, Vec::<String>::new(), "were not called");
    assert!(stage.called.len() >= 102, "{}", stage.called.len());
    stage.gateway.running.stop().await.unwrap();
}

fn environments_and_addons() -> Vec<Line> {
    let one = json!({"name": "dev-1", "vpc_id": "v", "deploy_mode": "mixed", "labels": [{"key": "k", "value": "vv"}]});
    let resources = json!({"resources": [{"id": "r", "name": "n", "type": "vpc"}]});
    let addons = "cas/environments/$env/addons";
    let made = json!({"name": "sermantInjector", "cce_id": "c", "cse_id": "e"});
    let act = "cas/environments/$env/addons/$addon/action";
    vec![
        keep(
            "$dev",
            "/id",
            "CreateEnvironment",
            "cas/environments",
            one.clone(),
        ),
        call("CreateEnvironment", "cas/environments", one),
        call(
            "ListEnvironments",
            "cas/environments?limit=1&offset=1&order_by=name&order=asc",
            NO,
        ),
        call("GetEnvironment", "cas/environments/$env", NO),
        call("GetEnvironment", "cas/environments/none", NO),
        call(
            "UpdateEnvironment",
            "cas/environments/$dev",
            json!({"name": "dev-1", "description": "d"}),
        ),
        call(
            "UpdateEnvironmentResources",
            "cas/environments/$dev/resources",
            resources,
        ),
        call(
            "GetEnvironmentResources",
            "cas/environments/$dev/resources",
            NO,
        ),
        call(
            "ListManageableResources",
            "cas/environments/resources?resource_type=cce",
            NO,
        ),
        keep(
            "$job",
            "/job_id",
            "RefreshEnvironment",
            "cas/environments/$dev/refresh",
            NO,
        ),
        Finish("$job"),
        call(
            "ListAddonsMetadata",
            "cas/environments/$env/addons-metadata",
            NO,
        ),
        keep("$addon2", "/id", "CreateAddon", addons, made),
        call("ListAddons", addons, NO),
        call("GetAddon", "cas/environments/$env/addons/$addon2", NO),
        keep(
            "$job",
            "/job_id",
            "ExecuteAddonAction",
            act,
            json!({"action": "redeploy"}),
        ),
        Finish("$job"),
        call("ExecuteAddonAction", act, json!({"action": "dance"})),
        keep(
            "$job",
            "/job_id",
            "DeleteAddon",
            "cas/environments/$env/addons/$addon2",
            NO,
        ),
        Finish("$job"),
        call("GetAddon", "cas/environments/$env/addons/$addon2", NO),
    ]
}

fn applications() -> Vec<Line> {
    let one = json!({"name": "app", "description": "x", "labels": []});
    let path = "cas/applications/$app/configuration";
    let set = json!({"environment_id": "$env", "configuration":
        {"env": [{"name": "A", "value": "eu west/1"}], "assign_strategy": true}});
    let gone = "cas/applications/$app/configuration?environment_id=$env";
    vec![
        keep("$app", "/id", "CreateApplication", "cas/applications", one),
        call("ListApplications", "cas/applications?limit=10", NO),
        call(
            "UpdateApplication",
            "cas/applications/$app",
            json!({"description": ""}),
        ),
        call("GetApplication", "cas/applications/$app", NO),
        call("GetApplicationConfiguration", path, NO),
        call("UpdateApplicationConfiguration", path, set),
        call("GetApplicationConfiguration", path, NO),
        call("DeleteApplicationConfiguration", gone, NO),
    ]
}

fn components() -> Vec<Line> {
    let within = "cas/applications/$app/components";
    let one = "cas/applications/$app/components/$svc";
    let in_env = json!({"environment_id": "$env"});
    let ill = component("to-fail", in_env.clone());
    let old = json!({"name": "old", "create_mode": "import", "workload_name": "w", "workload_kind": "Deployment",
        "runtime_stack": {"name": "Docker", "type": "Docker", "deploy_mode": "container"},
        "environment_id": "$env", "version": "1.0.0"});
    let template = json!({"storage": "obs", "url": "obs://b/t.tgz"});
    let made = json!({"environment_id": "$env", "application_id": "$app", "template_source": template,
        "input_values": {"name": "tpl", "replicas": "4"}});
    let parse = json!({"template_source": template});
    let next = component("svc", json!({"version": "1.0.2", "replica": 3}));
    let gray = json!({"version": "2.0.0", "deploy_strategy": {"type": "GrayRelease", "gray_release":
        {"type": "weight", "replica_surge_mode": "EXTRA", "deployment_mode": 1, "first_batch_weight": 20}}});
    let redeploy = "cas/applications/$app/components/$svc/redeployment";
    let action = "cas/applications/$app/components/$svc/action";
    let go = json!({"action": "continue_deploy"});
    let scale = json!({"action": "scale", "parameters": {"replica": 5}});
    let some = json!({"action": "query", "components": [{"id": "$svc", "application_id": "$app"}]});
    let all = json!({"action": "restart", "parameters": {"components": [{"id": "$svc"}]}});
    vec![
        keep(
            "$svc",
            "/component_id",
            "CreateComponent",
            within,
            component("svc", in_env.clone()),
        ),
        call("CreateComponent", within, component("svc", in_env.clone())),
        keep("$ill", "/component_id", "CreateComponent", within, ill),
        keep("$old", "/component_id", "ImportComponent", within, old),
        keep(
            "$tpl",
            "/component_id",
            "CreateComponentFromTemplate",
            "cas/components",
            made,
        ),
        keep(
            "$job",
            "/status/last_job_id",
            "GetComponent",
            "cas/applications/$app/components/$tpl",
            NO,
        ),
        Finish("$job"),
        call(
            "ParseComponentTemplatePackage",
            "cas/components/parse-template-package",
            parse,
        ),
        call(
            "ListComponents",
            "cas/components?order_by=update_time&component_name=s",
            NO,
        ),
        call("ListComponentsInApplication", within, NO),
        call(
            "GetComponentFilterOptions",
            "cas/components/filterOptions",
            NO,
        ),
        call("GetComponent", one, NO),
        call("GetComponent", "cas/applications/$app/components/$ill", NO),
        call("GetComponent", "cas/applications/$app/components/none", NO),
        StandStill,
        keep("$job", "/job_id", "UpdateComponent", one, next.clone()),
        // A job of the component is running.
        call("UpdateComponent", one, next),
        GoOn,
        Finish("$job"),
        keep(
            "$job",
            "/job_id",
            "RedeployComponent",
            redeploy,
            component("svc", gray),
        ),
        Finish("$job"),
        call("GetComponent", one, NO),
        call(
            "ExecuteComponentAction",
            action,
            json!({"action": "check_gray_release"}),
        ),
        keep("$job", "/job_id", "ExecuteComponentAction", action, go),
        Finish("$job"),
        keep("$job", "/job_id", "ExecuteComponentAction", action, scale),
        Finish("$job"),
        call("GetComponent", one, NO),
        call(
            "ListComponentRecords",
            "cas/applications/$app/components/$svc/records?limit=10",
            NO,
        ),
        call(
            "RefreshComponent",
            "cas/applications/$app/components/$svc/refresh",
            NO,
        ),
        call("BatchComponentAction", "cas/components/action", some),
        call(
            "BatchOperateComponents",
            "cas/applications/$app/action",
            all.clone(),
        ),
        call(
            "BatchOperateComponents",
            "cas/applications/$app/action",
            all,
        ),
        keep("$job", "/status/last_job_id", "GetComponent", one, NO),
        Finish("$job"),
    ]
}

fn stacks_configs_directories() -> Vec<Line> {
    let stacks = "cas/runtimestacks";
    let stack = json!({"name": "own/jdk", "deploy_mode": "virtualmachine", "type": "Java", "version": "1.0.1",
        "spec": {"parameters": {"jdk_url": "u"}}, "description": "d"});
    let release =
        json!({"action": "Supported", "parameters": {"runtimestacks": [{"id": "$stack"}]}});
    let config = json!({"config_group_id": "$group", "name": "application", "content": "a: 配置\n", "type": "yaml", "sensitive": false});
    let changed = json!({"config_group_id": "$group", "content": "a=2", "type": "properties"});
    let past = "/histories/0/config_history_id";
    let directory = json!({"path": "/a", "user": "u", "group": "g", "mode": "0750"});
    let settings =
        json!({"name": "n", "run_as_user": "u", "app_home": directory, "log_home": directory});
    vec![
        call("ListRuntimeStacks", stacks, NO),
        call("ListInnerImages", "cas/innerimages", NO),
        keep("$stack", "/id", "CreateRuntimeStack", stacks, stack.clone()),
        call("UpdateRuntimeStack", "cas/runtimestacks/$stack", stack),
        call("ReleaseRuntimeStacks", "cas/runtimestacks/action", release),
        call("GetRuntimeStack", "cas/runtimestacks/$stack", NO),
        call("DeleteRuntimeStack", "cas/runtimestacks/$stack", NO),
        call("GetRuntimeStack", "cas/runtimestacks/$stack", NO),
        keep(
            "$group",
            "/id",
            "CreateConfigGroup",
            "cas/config-groups",
            json!({"name": "order-group"}),
        ),
        call("ListConfigGroups", "cas/config-groups?name=order", NO),
        call("GetConfigGroup", "cas/config-groups/$group", NO),
        keep("$config", "/id", "CreateConfig", "cas/configs", config),
        call("UpdateConfig", "cas/configs/$config", changed),
        call("GetConfig", "cas/configs/$config", NO),
        call(
            "ListConfigs",
            "cas/configs?config_group_id=$group&limit=10",
            NO,
        ),
        keep(
            "$past",
            past,
            "ListConfigHistories",
            "cas/configs/$config/histories",
            NO,
        ),
        call(
            "GetConfigHistory",
            "cas/configs/$config/histories/$past",
            NO,
        ),
        call(
            "DeleteConfigHistory",
            "cas/configs/$config/histories/$past",
            NO,
        ),
        call("DeleteConfig", "cas/configs/$config", NO),
        call("DeleteConfigGroup", "cas/config-groups/$group", NO),
        keep(
            "$dir",
            "/id",
            "CreateVmAppConfig",
            "cas/vmapp-configs",
            settings.clone(),
        ),
        call("UpdateVmAppConfig", "cas/vmapp-configs/$dir", settings),
        call("GetVmAppConfig", "cas/vmapp-configs/$dir", NO),
        call("ListVmAppConfigs", "cas/vmapp-configs", NO),
        call("DeleteVmAppConfig", "cas/vmapp-configs/$dir", NO),
    ]
}

fn releases() -> Vec<Line> {
    let plan = json!({"name": "june", "action": "upgrade", "components":
        [component("svc", json!({"seq": 1, "component_id": "$svc", "version": "3.0.0"}))]});
    let info = "cas/release-plans/$plan/deploy-info";
    let changed = json!({"name": "july", "components":
        [component("svc", json!({"seq": 2, "component_id": "$svc", "version": "4.0.0"}))]});
    let sources = json!([{"template_source": {"storage": "obs", "url": "obs://b/t"}, "input_values": {"tag": "1"}}]);
    let pipeline = json!({"name": "weekly", "model_version": 2, "config_mode": "template", "sources": sources});
    let start = "pipeline/pipelines/$pipe/action?action_id=start";
    let tasks = json!([{"stage_name": "s", "tasks": ["t"]}]);
    let hooks = "pipeline/pipelines/$pipe/hooks";
    let hook = json!({"schedule": "0 30 2 * * ?", "timezone_operator": "+", "timezone_hour": 8});
    let set = json!({"strategy_type": 1, "selected_tasks": tasks, "hooks": [hook]});
    let parse = "pipeline/pipelines/parse-template-package";
    vec![
        keep(
            "$plan",
            "/id",
            "CreateReleasePlan",
            "cas/release-plans",
            plan,
        ),
        call("ListReleasePlans", "cas/release-plans", NO),
        StandStill,
        call("ExecuteReleasePlan", "cas/release-plans/$plan/execute", NO),
        keep(
            "$job",
            "/components/0/job_id",
            "GetReleasePlanDeployInfo",
            info,
            NO,
        ),
        call("AbortReleasePlan", "cas/release-plans/$plan/abort", NO),
        GoOn,
        call("GetReleasePlan", "cas/release-plans/$plan", NO),
        Finish("$job"),
        call(
            "RollbackReleasePlan",
            "cas/release-plans/$plan/rollback",
            NO,
        ),
        keep(
            "$job",
            "/components/0/rollback_job_id",
            "GetReleasePlanDeployInfo",
            info,
            NO,
        ),
        Finish("$job"),
        call("UpdateReleasePlan", "cas/release-plans/$plan", changed),
        call("DeleteReleasePlan", "cas/release-plans/$plan", NO),
        keep(
            "$pipe",
            "/id",
            "CreatePipeline",
            "pipeline/pipelines",
            pipeline.clone(),
        ),
        call("UpdatePipeline", "pipeline/pipelines/$pipe", pipeline),
        call(
            "ExecutePipelineAction",
            start,
            json!({"selected_tasks": tasks}),
        ),
        call("ListPipelines", "pipeline/pipelines", NO),
        call("GetPipeline", "pipeline/pipelines/$pipe", NO),
        call(
            "ListPipelineRecords",
            "pipeline/pipelines/$pipe/records",
            NO,
        ),
        call("GetPipelineHooks", hooks, NO),
        call("CreatePipelineHooks", hooks, set.clone()),
        call("UpdatePipelineHooks", hooks, set),
        call("GetPipelineHooks", hooks, NO),
        call(
            "ParsePipelineTemplatePackage",
            parse,
            json!({"sources": sources}),
        ),
    ]
}

fn lanes() -> Vec<Line> {
    let gateway = json!({"engine_id": "e", "id": "g", "name": "gw", "target_services":
        [{"host": "h", "id": "t", "name": "n", "engine_id": "e", "engine_type": "cse"}]});
    let group = json!({"name": "full", "gateways": [gateway]});
    let lanes = "cas/swimlane-group/$lg/swimlane";
    let gray = json!({"name": "gray", "tag": "g", "type": "GRAY"});
    let route = json!({"gray_release_type": "WEIGHT", "swimlanes": [{"id": "$gray", "weight": 20, "rule_match_mode": "ANY",
        "rules": [{"type": "HEADER", "key": "k", "value": "v", "condition": "EXACT"}]}]});
    let enable = json!({"route_status": "ENABLE"});
    let (ids, action) = (json!(["i", "j"]), "cas/swimlane-group/$lg/swimlane/$gray");
    let add = json!({"action": "ADD", "instance_ids": ids});
    let less = json!({"action": "delete", "instance_ids": ["i"]});
    let remove = json!({"action": "REMOVE", "instance_ids": ["j"]});
    let all = json!({"action": "DISABLED", "swimlanes": ["$gray"]});
    vec![
        keep(
            "$lg",
            "/id",
            "CreateLaneGroup",
            "cas/swimlane-group",
            group.clone(),
        ),
        // The first lane must be BASE.
        call("CreateLane", lanes, gray.clone()),
        keep(
            "$base",
            "/id",
            "CreateLane",
            lanes,
            json!({"name": "base", "tag": "b", "type": "BASE"}),
        ),
        keep("$gray", "/id", "CreateLane", lanes, gray),
        call("ListLanes", lanes, NO),
        call("ListLaneGroups", "cas/swimlane-group", NO),
        call("UpdateLaneGroup", "cas/swimlane-group/$lg", group),
        call(
            "ListLaneTargetServices",
            "cas/swimlane-group/target-services?gateway_id=g",
            NO,
        ),
        call(
            "UpdateLaneGroupRoute",
            "cas/swimlane-group/$lg/route",
            route,
        ),
        call(
            "UpdateLaneGroupView",
            "cas/swimlane-group/$lg/view",
            json!({"swimlanes": ["$gray"]}),
        ),
        call("GetLaneGroupView", "cas/swimlane-group/$lg/view", NO),
        call(
            "UpdateLane",
            "cas/swimlane-group/$lg/swimlane/$gray",
            json!({"name": "grey"}),
        ),
        call(
            "ExecuteLaneAction",
            "cas/swimlane-group/$lg/swimlane/$gray/action",
            enable,
        ),
        call("UpdateLaneInstances", format!("{action}/instances"), add),
        call("GetLane", action, NO),
        call(
            "UpdateLaneComponentInstances",
            format!("{action}/component-instances"),
            less,
        ),
        call(
            "ExecuteLaneComponentsAction",
            format!("{action}/components-action"),
            remove,
        ),
        call("GetLaneGroup", "cas/swimlane-group/$lg", NO),
        call("ListLanesByEngine", "cas/swimlane?engine_id=e", NO),
        call(
            "ExecuteLanesAction",
            "cas/swimlane-group/$lg/swimlanes-action",
            all,
        ),
        call("DeleteLane", "cas/swimlane-group/$lg/swimlane/$gray", NO),
        call("DeleteLaneGroup", "cas/swimlane-group/$lg", NO),
        call("GetLaneGroup", "cas/swimlane-group/$lg", NO),
    ]
}

async fn tidy_up(stage: &mut Stage) {
    stage
        .play(vec![
            // It still has components.
            call("DeleteApplication", "cas/applications/$app", NO),
            call("DeleteEnvironment", "cas/environments/$env", NO),
        ])
        .await;
    for component in ["$svc", "$ill", "$old", "$tpl"] {
        let path = format!("cas/applications/$app/components/{component}");
        stage.call("DeleteComponent", &path, NO).await;
        let gone = async {
            loop {
                let answer = stage.call("GetComponent", &path, NO).await;
                if answer["status"]["component_status"] != "DELETING" {
                    break answer;
                }
            }
        };
        let last = tokio::time::timeout(JOB_TIMEOUT, gone)
            .await
            .expect(component);
        assert_eq!(last["error_code"], "SVCSTG.00100401", "{component}");
    }
    stage
        .play(vec![
            call("DeleteApplication", "cas/applications/$app", NO),
            call("DeleteEnvironment", "cas/environments/$dev", NO),
            call("GetEnvironment", "cas/environments/$dev", NO),
        ])
        .await;
}
