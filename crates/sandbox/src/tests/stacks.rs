//! Stack actions progress with the clock and with nothing else.

use serde_json::{Value, json};

use super::*;

fn template(resources: Value) -> Value {
    json!({"heat_template_version": "2018-08-31", "resources": resources})
}

struct StackClient {
    sandbox: TestSandbox,
    token: String,
}

impl StackClient {
    async fn new() -> Self {
        let sandbox = TestSandbox::new(Settings {
            play: true,
            adopt_and_abandon: true,
            ..TEST_SETTINGS
        });
        let token = sandbox.demo().await;
        Self { sandbox, token }
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> TestResponse {
        self.sandbox
            .call(&self.token, method, &heat(path), body)
            .await
    }

    /// Creates a stack. Returns its path.
    async fn make(&self, body: Value) -> String {
        let made = self.call("POST", "stacks", body).await;
        assert_eq!(made.status, 201, "{}", made.body);
        let location = made.header("location");
        let at = location.find("stacks/").unwrap();
        location[at..].to_owned()
    }

    async fn status(&self, path: &str) -> String {
        let got = self.call("GET", path, Value::Null).await;
        got.body["stack"]["stack_status"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Returns `name STATUS` of each event, oldest first.
    async fn events(&self, path: &str) -> Vec<String> {
        let got = self
            .call("GET", &format!("{path}/events?sort_dir=asc"), Value::Null)
            .await;
        let text = |event: &Value, name: &str| event[name].as_str().unwrap().to_owned();
        got.body["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| {
                format!(
                    "{} {}",
                    text(e, "resource_name"),
                    text(e, "resource_status")
                )
            })
            .collect()
    }
}

/// Advances the clock by one step of [`TEST_SETTINGS`].
async fn step() {
    tokio::time::advance(Duration::from_secs(2)).await;
}

#[tokio::test(start_paused = true)]
async fn resources_are_created_in_dependency_order() {
    let client = StackClient::new().await;
    let resources = json!({
        "a": {"type": "OS::Heat::Value", "properties": {"value": 1}},
        "b": {"type": "OS::Heat::TestResource", "depends_on": "a", "properties": {"wait_secs": 3}},
        "c": {"type": "OS::Heat::None", "depends_on": "a"},
    });
    let path = client
        .make(json!({"stack_name": "s", "template": template(resources)}))
        .await;
    assert_eq!(client.status(&path).await, "CREATE_IN_PROGRESS");
    step().await;
    assert_eq!(
        client.events(&path).await,
        [
            "s CREATE_IN_PROGRESS",
            "a CREATE_IN_PROGRESS",
            "a CREATE_COMPLETE",
            "b CREATE_IN_PROGRESS",
            "c CREATE_IN_PROGRESS",
        ]
    );
    step().await;
    assert_eq!(client.status(&path).await, "CREATE_IN_PROGRESS");
    tokio::time::advance(Duration::from_secs(3)).await;
    assert_eq!(client.status(&path).await, "CREATE_COMPLETE");
    // The times do not depend on when the first read happens.
    let got = client
        .call("GET", &format!("{path}/events"), Value::Null)
        .await;
    let times: std::collections::BTreeSet<&str> = got.body["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["event_time"].as_str().unwrap())
        .collect();
    assert!(times.len() >= 4, "{times:?}");

    assert_eq!(client.call("DELETE", &path, Value::Null).await.status, 204);
    step().await;
    assert_eq!(client.status(&path).await, "DELETE_IN_PROGRESS");
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(client.status(&path).await, "DELETE_COMPLETE");
}

#[tokio::test(start_paused = true)]
async fn failed_stack_is_rolled_back() {
    let client = StackClient::new().await;
    let resources = json!({
        "ok": {"type": "OS::Heat::TestResource"},
        "bad": {"type": "OS::Heat::TestResource", "depends_on": "ok", "properties": {"fail": true}},
    });
    let body =
        json!({"stack_name": "s", "template": template(resources), "disable_rollback": false});
    let path = client.make(body).await;
    tokio::time::advance(Duration::from_secs(4)).await;
    assert_eq!(client.status(&path).await, "ROLLBACK_IN_PROGRESS");
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(
        client.events(&path).await,
        [
            "s CREATE_IN_PROGRESS",
            "ok CREATE_IN_PROGRESS",
            "ok CREATE_COMPLETE",
            "bad CREATE_IN_PROGRESS",
            "bad CREATE_FAILED",
            "s CREATE_FAILED",
            "s ROLLBACK_IN_PROGRESS",
            "bad DELETE_IN_PROGRESS",
            "bad DELETE_COMPLETE",
            "ok DELETE_IN_PROGRESS",
            "ok DELETE_COMPLETE",
            "s ROLLBACK_COMPLETE",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn stack_action_times_out() {
    let client = StackClient::new().await;
    let resources =
        json!({"t": {"type": "OS::Heat::TestResource", "properties": {"wait_secs": -1}}});
    let body = json!({"stack_name": "s", "template": template(resources), "timeout_mins": 1});
    let path = client.make(body).await;
    tokio::time::advance(Duration::from_secs(59)).await;
    assert_eq!(client.status(&path).await, "CREATE_IN_PROGRESS");
    tokio::time::advance(Duration::from_secs(1)).await;
    let got = client.call("GET", &path, Value::Null).await;
    assert_eq!(got.body["stack"]["stack_status"], "CREATE_FAILED");
    assert_eq!(got.body["stack"]["stack_status_reason"], "Timed out");
}

#[tokio::test(start_paused = true)]
async fn deployment_in_stack_completes() {
    let client = StackClient::new().await;
    let resources = json!({
        "cfg": {"type": "OS::Heat::SoftwareConfig", "properties": {"config": "echo", "outputs": [{"name": "result"}]}},
        "dep": {"type": "OS::Heat::SoftwareDeployment", "properties": {
            "config": {"get_resource": "cfg"}, "server": "s1", "signal_transport": "HEAT_SIGNAL"}},
    });
    let path = client
        .make(json!({"stack_name": "s", "template": template(resources)}))
        .await;
    step().await;
    let deployments = async || {
        let got = client
            .call("GET", "software_deployments?server_id=s1", Value::Null)
            .await;
        got.body["software_deployments"][0]["status"].clone()
    };
    assert_eq!(deployments().await, "IN_PROGRESS");
    step().await;
    assert_eq!(deployments().await, "COMPLETE");
    assert_eq!(client.status(&path).await, "CREATE_COMPLETE");
}

#[tokio::test(start_paused = true)]
async fn abandoned_stack_can_be_adopted() {
    let client = StackClient::new().await;
    let resources = json!({"r": {"type": "OS::Heat::RandomString"}});
    let path = client
        .make(json!({"stack_name": "s", "template": template(resources)}))
        .await;
    tokio::time::advance(Duration::from_secs(10)).await;
    let export = client
        .call("GET", &format!("{path}/export"), Value::Null)
        .await;
    let gone = client
        .call("DELETE", &format!("{path}/abandon"), Value::Null)
        .await;
    assert_eq!((gone.status, &gone.body), (200, &export.body));
    let data = gone.body.to_string();
    let again = client
        .make(json!({"stack_name": "s", "adopt_stack_data": data}))
        .await;
    assert_eq!(client.status(&again).await, "ADOPT_IN_PROGRESS");
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(client.status(&again).await, "ADOPT_COMPLETE");
    let got = client
        .call("GET", &format!("{again}/resources/r"), Value::Null)
        .await;
    assert_eq!(
        got.body["resource"]["physical_resource_id"],
        gone.body["resources"]["r"]["resource_id"]
    );
    assert_eq!(
        got.body["resource"]["attributes"]["value"],
        gone.body["resources"]["r"]["resource_data"]["value"]
    );
}

#[tokio::test(start_paused = true)]
async fn nesting_text_size_and_events_are_limited() {
    let client = StackClient::new().await;
    // A stack that contains itself.
    let endless = "heat_template_version: 2018-08-31\nresources:\n  i: {type: me.yaml}\n";
    let body = json!({"stack_name": "deep", "template": endless, "files": {"me.yaml": endless}});
    let path = client.make(body).await;
    tokio::time::advance(Duration::from_secs(120)).await;
    let got = client.call("GET", &path, Value::Null).await;
    assert_eq!(got.body["stack"]["stack_status"], "CREATE_FAILED");
    let reason = got.body["stack"]["stack_status_reason"].as_str().unwrap();
    assert!(reason.contains("Recursion depth exceeds"), "{reason}");

    let many = json!({"g": {"type": "OS::Heat::ResourceGroup", "properties": {
        "count": 100_000, "resource_def": {"type": "OS::Heat::None"}}}});
    let path = client
        .make(json!({"stack_name": "many", "template": template(many)}))
        .await;
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(client.status(&path).await, "CREATE_FAILED");

    // A text that doubles many times.
    let mut value = json!("x".repeat(100));
    for _ in 0..17 {
        value = json!({"str_replace": {"template": "aa", "params": {"a": value}}});
    }
    let body = template(json!({"v": {"type": "OS::Heat::Value", "properties": {"value": value}}}));
    let got = client
        .call(
            "POST",
            "stacks",
            json!({"stack_name": "long", "template": body}),
        )
        .await;
    assert_eq!(got.status, 400, "{}", got.body);

    // The oldest events are deleted when there are too many.
    let path = client
        .make(json!({"stack_name": "busy", "template": template(json!({}))}))
        .await;
    for _ in 0..600 {
        tokio::time::advance(Duration::from_millis(1)).await;
        let check = client
            .call("POST", &format!("{path}/actions"), json!({"check": null}))
            .await;
        assert_eq!(check.status, 200);
    }
    let events = client.events(&path).await.len();
    assert!((700..=1000).contains(&events), "{events}");
}

#[tokio::test(start_paused = true)]
async fn list_pages_reach_every_stack() {
    let client = StackClient::new().await;
    client.sandbox.upstreams.seed_stacks(5_000, 10);
    let mut seen = std::collections::BTreeSet::new();
    let mut marker = String::new();
    loop {
        let path = format!("stacks?limit=1000{marker}");
        let got = client.call("GET", &path, Value::Null).await;
        let stacks = got.body["stacks"].as_array().unwrap();
        for stack in stacks {
            assert!(seen.insert(stack["id"].as_str().unwrap().to_owned()));
        }
        match stacks.last() {
            Some(last) => marker = format!("&marker={}", last["id"].as_str().unwrap()),
            None => break,
        }
    }
    assert_eq!(seen.len(), 5_000);
    let got = client
        .call("GET", "stacks?with_count=true&limit=1", Value::Null)
        .await;
    assert_eq!(got.body["count"], 5_000);
    let stack = &got.body["stacks"][0];
    let path = format!(
        "stacks/{}/{}",
        stack["stack_name"].as_str().unwrap(),
        stack["id"].as_str().unwrap()
    );
    assert_eq!(client.events(&path).await.len(), 10);
}
