//! Each `...AndWatch` rpc, with the sandbox: the action is sent once, its response is the first
//! message, and the target is watched until it is final.

use std::time::Duration;

use drawbridge::cli::quickstart;
use drawbridge_sandbox::{self as sandbox, APPLICATION_ID, COMPONENT_ID, ENVIRONMENT_ID, Sandbox};
use serde_json::{Value, json};

use super::rpc;
use super::sandbox::component;
use crate::support::client::json as to_json;
use crate::support::{Client, Gateway, request};

/// The time of a step of the sandbox.
const STEP: Duration = Duration::from_millis(20);

/// An rpc by its REST request (the path below `cas/`), and its outcome.
struct Start {
    rpc: &'static str,
    path: String,
    body: Value,
    outcome: &'static str,
}

fn start(rpc: &'static str, path: impl Into<String>, body: Value) -> Start {
    Start {
        rpc,
        path: path.into(),
        body,
        outcome: "OUTCOME_SUCCEEDED",
    }
}

/// Returns the rpc and the message of a REST request below the project.
fn message(client: &Client, name: &str, path: &str, body: &Value) -> (String, Value) {
    let rpc = rpc(client, name);
    let path = format!("/v3/{}/cas/{path}", sandbox::PROJECT_ID);
    let message = request::of(&client.method(&rpc), &path, &[], body);
    (rpc, message.unwrap_or_else(|e| panic!("{name}: {e}")))
}

async fn call(client: &Client, name: &str, path: &str, body: Value) -> Value {
    let (rpc, message) = message(client, name, path, &body);
    let got = client.call(&rpc, message).await;
    to_json(&got.unwrap_or_else(|e| panic!("{name}: {e:?}")))
}

/// Starts the action and watches it until its outcome.
async fn follow(client: Client, start: Start) {
    let Start {
        rpc: name,
        path,
        body,
        outcome,
    } = start;
    let (rpc, message) = message(&client, name, &path, &body);
    let mut watch = client.watch(&rpc, message, &[]).await.unwrap();
    let first = to_json(&watch.next().await.expect(name).expect(name));
    let started = &first["started"];
    assert!(started.is_object(), "{name}: {first}");
    if name != "DeleteComponentAndWatch" {
        let job = started["job_id"].as_str().unwrap_or_default();
        assert!(job.starts_with("JOB"), "{name}: {first}");
    }
    let mut last = first;
    while let Some(event) = watch.next().await {
        last = to_json(&event.unwrap_or_else(|e| panic!("{name}: {e:?} after {last}")));
    }
    assert_eq!(last["event"]["outcome"], outcome, "{name}: {last}");
}

#[tokio::test]
async fn started_jobs_are_watched_until_final() {
    let settings = sandbox::Settings {
        step: STEP,
        ..sandbox::Settings::default()
    };
    let sandbox = Sandbox::start(([127, 0, 0, 1], 0).into(), settings)
        .await
        .unwrap();
    let gateway = Gateway::with(quickstart::upstreams(&sandbox)).await;
    let client = &gateway.client;

    // One component per action: a component runs one job at a time.
    let within = format!("applications/{APPLICATION_ID}/components");
    let spec = |name: &str| component(name, json!({"environment_id": ENVIRONMENT_ID}));
    let mut own = Vec::new();
    for name in ["redeployed", "acted-on", "deleted"] {
        let made = call(client, "CreateComponent", &within, spec(name)).await;
        own.push(format!(
            "{within}/{}",
            made["component_id"].as_str().unwrap()
        ));
    }
    for path in &own {
        let running = async {
            loop {
                let got = call(client, "GetComponent", path, Value::Null).await;
                if got["component"]["status"]["component_status_raw"] == "RUNNING" {
                    break;
                }
            }
        };
        let patience = Duration::from_secs(120);
        tokio::time::timeout(patience, running).await.expect(path);
    }
    let environment = format!("environments/{ENVIRONMENT_ID}");
    let addons = format!("{environment}/addons");
    let addon = json!({"name": "sermantInjector", "cce_id": "c", "cse_id": "e"});
    let made = call(client, "CreateAddon", &addons, addon.clone()).await;
    let spare = format!("{addons}/{}", made["id"].as_str().unwrap());
    let seed = format!("{addons}/{}/action", sandbox::ADDON_ID);
    let import = json!({"name": "old", "create_mode": "import", "workload_name": "w", "workload_kind": "Deployment",
        "runtime_stack": {"name": "Docker", "type": "Docker", "deploy_mode": "container"},
        "environment_id": ENVIRONMENT_ID, "version": "1.0.0"});
    let template = json!({"environment_id": ENVIRONMENT_ID, "application_id": APPLICATION_ID,
        "template_source": {"storage": "obs", "url": "obs://b/t"}, "input_values": {"name": "tpl"}});
    let next = |name: &str| component(name, json!({"version": "2.0.0"}));
    let updated = format!("{within}/{COMPONENT_ID}");
    let (redeployed, acted) = (
        format!("{}/redeployment", own[0]),
        format!("{}/action", own[1]),
    );
    let lines = vec![
        start(
            "RefreshEnvironmentAndWatch",
            format!("{environment}/refresh"),
            Value::Null,
        ),
        start("CreateAddonAndWatch", &addons, addon),
        start(
            "ExecuteAddonActionAndWatch",
            seed,
            json!({"action": "redeploy"}),
        ),
        start("DeleteAddonAndWatch", spare, Value::Null),
        start("CreateComponentAndWatch", &within, spec("made")),
        Start {
            outcome: "OUTCOME_FAILED",
            ..start("CreateComponentAndWatch", &within, spec("to-fail"))
        },
        start("ImportComponentAndWatch", &within, import),
        start(
            "CreateComponentFromTemplateAndWatch",
            "components",
            template,
        ),
        start("UpdateComponentAndWatch", updated, next("order-svc")),
        start("RedeployComponentAndWatch", redeployed, next("redeployed")),
        start(
            "ExecuteComponentActionAndWatch",
            acted,
            json!({"action": "restart"}),
        ),
        start("DeleteComponentAndWatch", &own[2], Value::Null),
    ];
    let services = client.services("huaweicloud.servicestage.v3");
    let all = services.iter().flat_map(|service| service.methods());
    let missed: Vec<String> = all
        .map(|method| method.name().to_owned())
        .filter(|name| name.ends_with("AndWatch") && lines.iter().all(|line| line.rpc != name))
        .collect();
    assert_eq!(missed, Vec::<String>::new(), "are not followed");

    let before = started(&sandbox);
    let count = lines.len();
    let mut tasks = tokio::task::JoinSet::new();
    for line in lines {
        tasks.spawn(follow(client.clone(), line));
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    assert_eq!(started(&sandbox) - before, count, "each once");
    gateway.running.stop().await.unwrap();
}

/// Counts the mutating requests so far.
fn started(sandbox: &Sandbox) -> usize {
    let seen = sandbox.requests();
    seen.iter().filter(|seen| seen.method != "GET").count()
}
