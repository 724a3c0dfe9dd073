//! Lifecycle of a stack through a gateway, on the sandbox and on real Heat. Each read is
//! also sent to Heat by REST, and the responses are compared member by member.

mod comparison;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tonic::Code;

use super::{HeatTarget, Rest, gateway_settings};
use crate::support::Gateway;
use crate::support::client::{Watch, json as to_json};

/// Ten resources, among them a nested stack, a deployment, `test`, which fails if the
/// parameter `fail` is set, and `wait`, which depends on all others and waits for `signals`
/// signals. So no other resource is in progress when `test` fails or `wait` waits: real
/// Heat has a race with a nested stack that is being updated
/// (tests/real-heat/OBSERVED.md, "Stacks"), and no update ends before its signal.
const TEMPLATE: &str = r#"# A comment, and an order, that must arrive as they are.
heat_template_version: 2018-08-31
description: ten resources
parameters:
  n: {type: number, default: 8}
  signals: {type: number, default: 1}
  fail: {type: boolean, default: false}
resources:
  rnd: {type: OS::Heat::RandomString, properties: {length: {get_param: n}}}
  val: {type: OS::Heat::Value, properties: {value: {get_attr: [rnd, value]}}}
  cfg: {type: OS::Heat::SoftwareConfig, properties: {group: script, config: echo hi}}
  dep:
    type: OS::Heat::SoftwareDeployment
    properties: {config: {get_resource: cfg}, server: drawbridge-life, signal_transport: NO_SIGNAL}
  handle: {type: OS::Heat::WaitConditionHandle}
  none: {type: OS::Heat::None}
  other: {type: OS::Heat::None}
  below: {type: nested.yaml}
  test:
    type: OS::Heat::TestResource
    depends_on: [val, dep, below]
    properties: {value: {get_param: n}, fail: {get_param: fail}}
  wait:
    type: OS::Heat::WaitCondition
    depends_on: [test, none, other]
    properties: {handle: {get_resource: handle}, timeout: 3600, count: {get_param: signals}}
outputs:
  text: {value: {get_attr: [val, value]}, description: the string}
  list: {value: [1, {a: true}, null]}
"#;

const NESTED_TEMPLATE: &str = r#"heat_template_version: 2018-08-31
resources:
  deep: {type: OS::Heat::Value, properties: {value: 1}}
  deeper: {type: OS::Heat::RandomString}
"#;

/// A stack whose resources have no dependencies, for abandon and adopt.
const ADOPTED_TEMPLATE: &str = r#"heat_template_version: 2018-08-31
parameters:
  n: {type: number, default: 8}
resources:
  rnd: {type: OS::Heat::RandomString, properties: {length: {get_param: n}}}
  val: {type: OS::Heat::Value, properties: {value: {get_attr: [rnd, value]}}}
  none: {type: OS::Heat::None}
  slow: {type: OS::Heat::TestResource, properties: {value: there}}
outputs:
  text: {value: {get_attr: [val, value]}}
"#;

const WATCH_RPC: &str = "StackService/WatchStack";

/// Reads a watch to its end. Returns the type of the first event and its status, then each
/// further status; the last one with its outcome and the parameter `n`.
async fn statuses_to_end(watch: &mut Watch) -> Vec<String> {
    let mut statuses = Vec::new();
    while let Some(event) = watch.next().await {
        let event = to_json(&event.unwrap());
        let kind = event["event"]["type"].as_str().unwrap();
        let Some(status) = event["stack"]["stack_status_raw"].as_str() else {
            continue;
        };
        let mut line = match kind.trim_start_matches("WATCH_EVENT_TYPE_") {
            "INITIAL" => format!("INITIAL {status}"),
            _ => status.to_owned(),
        };
        if let Some(outcome) = event["event"]["outcome"].as_str() {
            let outcome = outcome.trim_start_matches("OUTCOME_");
            let n = event["stack"]["parameters"]["n"].as_str().unwrap();
            line = format!("{status} {outcome} {n}");
        }
        if statuses.last() != Some(&line) {
            statuses.push(line);
        }
    }
    statuses
}

struct Suite {
    gateway: Gateway,
    rest: Rest,
    name: String,
    /// Compared rpcs.
    compared: BTreeSet<String>,
}

/// Requires a Heat with abandon and adopt disabled, which is the default.
pub async fn create_update_and_delete(target: &HeatTarget) {
    let mut suite = Suite::new(target, "life").await;
    suite.run().await;
    suite.gateway.running.stop().await.unwrap();
}

/// Exports and abandons a stack, and adopts it under another name. Requires a Heat with
/// `enable_stack_abandon` and `enable_stack_adopt`.
pub async fn abandon_and_adopt(target: &HeatTarget) {
    let mut suite = Suite::new(target, "moved").await;
    suite.abandon_and_adopt().await;
    suite.gateway.running.stop().await.unwrap();
}

impl Suite {
    async fn new(target: &HeatTarget, name: &str) -> Self {
        let nonce = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_millis();
        Self {
            gateway: Gateway::with(vec![gateway_settings(target)]).await,
            rest: Rest::login(target, "demo", "demo").await,
            name: format!("{name}-{nonce}"),
            compared: BTreeSet::new(),
        }
    }

    /// Calls an rpc for the suite's stack.
    async fn call(&self, rpc: &str, mut request: Value) -> Value {
        if !rpc.ends_with("/FindStack") {
            request["stack_name"] = json!(self.name);
        }
        let got = self.gateway.client.call(rpc, request).await;
        to_json(&got.unwrap_or_else(|e| panic!("{rpc}: {e:?}")))
    }

    /// Polls the stack through the gateway until it has the status `want`. Panics if the
    /// action ends with another one.
    async fn wait_for_status(&self, want: &str) -> Value {
        let action = want.split('_').next().unwrap();
        for _ in 0..600 {
            let request = json!({"resolve_outputs": false});
            let got = self.call("StackService/GetStack", request).await;
            let status = got["stack"]["stack_status_raw"]
                .as_str()
                .unwrap()
                .to_owned();
            if status == want {
                return got;
            }
            let ended = status.starts_with(action) && !status.ends_with("_IN_PROGRESS");
            assert!(!ended, "{status} instead of {want}: {got}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let resources = self
            .call("StackResourceService/ListStackResources", json!({}))
            .await;
        let at: Vec<String> = resources["resources"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| format!("{} {}", r["resource_name"], r["resource_status_raw"]))
            .collect();
        panic!("the stack has not reached {want}: {at:?}");
    }

    async fn run(&mut self) {
        let preview = json!({"stack_name": self.name, "template": TEMPLATE, "files": {"nested.yaml": NESTED_TEMPLATE}});
        let planned = self.call("StackService/PreviewStack", preview).await;
        assert_eq!(planned["stack"]["resources"].as_array().unwrap().len(), 10);

        let created = self
            .call(
                "StackService/CreateStack",
                json!({
                    "template": TEMPLATE, "files": {"nested.yaml": NESTED_TEMPLATE}, "parameters": {"n": 12},
                    "tags": ["blue", "green"], "timeout_mins": 10,
                }),
            )
            .await;
        let id = created["stack"]["id"].as_str().unwrap().to_owned();
        let mut watches = self.watches(&id).await;
        self.signal(1).await;
        for watch in &mut watches {
            let statuses = statuses_to_end(watch).await;
            assert_eq!(statuses[0], "INITIAL CREATE_IN_PROGRESS", "{statuses:?}");
            assert_eq!(statuses.last().unwrap(), "CREATE_COMPLETE SUCCEEDED 12");
        }
        self.wait_for_status("CREATE_COMPLETE").await;
        self.compare_all_reads(&id).await;
        self.mark_health(&id).await;

        // An update with a template drops what it does not repeat: tags, and here the
        // parameter `fail`. A waiting update can be watched.
        let replacement = json!({"template": TEMPLATE, "files": {"nested.yaml": NESTED_TEMPLATE},
            "parameters": {"n": 13, "signals": 2}});
        self.call("StackService/UpdateStack", replacement).await;
        self.wait_for_status("UPDATE_IN_PROGRESS").await;
        let mut watches = self.watches(&id).await;
        self.signal(2).await;
        for watch in &mut watches {
            let statuses = statuses_to_end(watch).await;
            assert_eq!(statuses[0], "INITIAL UPDATE_IN_PROGRESS", "{statuses:?}");
            assert_eq!(statuses.last().unwrap(), "UPDATE_COMPLETE SUCCEEDED 13");
        }
        let got = self.wait_for_status("UPDATE_COMPLETE").await;
        assert_eq!(got["stack"]["parameters"]["n"], "13");
        assert_eq!(got["stack"].get("tags"), None, "{got}");
        self.compare_stack(&id).await;

        // A patch keeps the members that it does not mention.
        self.call("StackService/PatchStack", json!({"parameters": {"n": 14}}))
            .await;
        let got = self.wait_for_status("UPDATE_COMPLETE").await;
        assert_eq!(got["stack"]["parameters"]["n"], "14");
        assert_eq!(got["stack"]["parameters"]["signals"], "2", "it is kept");
        self.compare_stack(&id).await;

        // A failed update is rolled back.
        let failing = json!({"parameters": {"n": 15, "fail": true}, "disable_rollback": false});
        self.call("StackService/PatchStack", failing).await;
        self.wait_for_status("ROLLBACK_COMPLETE").await;
        self.compare_stack(&id).await;

        self.call("StackActionService/SuspendStack", json!({}))
            .await;
        self.wait_for_status("SUSPEND_COMPLETE").await;
        self.compare_stack(&id).await;
        self.call("StackActionService/ResumeStack", json!({})).await;
        self.wait_for_status("RESUME_COMPLETE").await;

        let taken = self
            .call(
                "StackSnapshotService/CreateStackSnapshot",
                json!({"name": "before"}),
            )
            .await;
        let snapshot = taken["snapshot"]["id"].as_str().unwrap().to_owned();
        self.wait_for_status("SNAPSHOT_COMPLETE").await;
        self.compare_snapshots(&id, &snapshot).await;
        let restore = json!({"snapshot_id": snapshot});
        self.call("StackSnapshotService/RestoreStackSnapshot", restore.clone())
            .await;
        self.wait_for_status("RESTORE_COMPLETE").await;
        self.compare_stack(&id).await;
        self.call("StackSnapshotService/DeleteStackSnapshot", restore)
            .await;

        self.call("StackActionService/CheckStack", json!({})).await;
        self.wait_for_status("CHECK_COMPLETE").await;

        // A cancelled update does not interrupt the running resource action; the rollback
        // ends after it.
        let waiting = json!({"parameters": {"n": 16, "signals": 3}});
        self.call("StackService/PatchStack", waiting).await;
        self.wait_for_pending_update().await;
        self.call("StackActionService/CancelStackUpdate", json!({}))
            .await;
        self.wait_for_status("ROLLBACK_IN_PROGRESS").await;
        self.signal(3).await;
        self.wait_for_status("ROLLBACK_COMPLETE").await;

        // An update cancelled without rollback stays UPDATE_FAILED, although a failure would
        // have caused a rollback.
        let waiting = json!({"parameters": {"n": 17, "signals": 4}, "disable_rollback": false});
        self.call("StackService/PatchStack", waiting).await;
        self.wait_for_pending_update().await;
        self.call("StackActionService/CancelStackWithoutRollback", json!({}))
            .await;
        let got = self.wait_for_status("UPDATE_FAILED").await;
        let reason = &got["stack"]["stack_status_reason"];
        assert_eq!(reason, "Stack UPDATE cancelled");
        let request = json!({"stack_name": self.name});
        let watch = self.gateway.client.watch(WATCH_RPC, request, &[]).await;
        let statuses = statuses_to_end(&mut watch.unwrap()).await;
        assert_eq!(statuses.last().unwrap(), "UPDATE_FAILED FAILED 17");

        self.compare_events(&id).await;
        self.call("StackService/DeleteStack", json!({})).await;
        let of = json!({"stack_name": self.name, "stack_id": id});
        self.wait_until_deleted(&of).await;
        let path = format!("/stacks/{}/{id}", self.name);
        self.compare("StackService/GetStack", of.clone(), &path)
            .await;
        self.compare(
            "StackEventService/ListStackEvents",
            of.clone(),
            &format!("{path}/events"),
        )
        .await;
        self.compare_error(
            "StackService/DeleteStack",
            of,
            "DELETE",
            &path,
            Code::NotFound,
        )
        .await;
        assert!(self.compared.len() >= 32, "{:?}", self.compared);
    }

    /// Waits until lists omit the stack, which happens shortly after
    /// DELETE_COMPLETE.
    async fn wait_until_deleted(&self, of: &Value) {
        for _ in 0..600 {
            let client = &self.gateway.client;
            let listed = client.call("StackService/ListStacks", json!({})).await;
            let listed = to_json(&listed.unwrap());
            let mut stacks = listed["stacks"].as_array().into_iter().flatten();
            if stacks.all(|stack| stack["id"] != of["stack_id"]) {
                let got = client.call("StackService/GetStack", of.clone()).await;
                let status = &to_json(&got.unwrap())["stack"]["stack_status_raw"];
                assert_eq!(status, "DELETE_COMPLETE");
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        panic!("the stack is still listed");
    }

    /// Watches the stack by name, by id, and by both.
    async fn watches(&self, id: &str) -> Vec<Watch> {
        let mut watches = Vec::new();
        for request in [
            json!({"stack_name": self.name}),
            json!({"stack_name": id}),
            json!({"stack_name": self.name, "stack_id": id}),
        ] {
            let watch = self.gateway.client.watch(WATCH_RPC, request, &[]).await;
            watches.push(watch.unwrap());
        }
        watches
    }

    /// Marks a resource as unhealthy and as healthy again.
    async fn mark_health(&mut self, id: &str) {
        const MARK: &str = "StackResourceService/MarkStackResourceHealth";
        let at = format!("/stacks/{}/{id}/resources/other", self.name);
        let one = json!({"stack_name": self.name, "resource_name": "other"});
        let broken = json!({"resource_name": "other", "mark_unhealthy": true,
            "resource_status_reason": "it smells"});
        self.call(MARK, broken).await;
        let got = self
            .compare("StackResourceService/GetStackResource", one.clone(), &at)
            .await;
        let resource = &got["resource"];
        assert_eq!(resource["resource_status"], "RESOURCE_STATUS_CHECK_FAILED");
        assert_eq!(resource["resource_status_reason"], "it smells");
        // The physical id identifies it as well.
        let physical = resource["physical_resource_id"].clone();
        let well = json!({"resource_name": physical, "mark_unhealthy": false});
        self.call(MARK, well).await;
        let got = self
            .compare("StackResourceService/GetStackResource", one, &at)
            .await;
        assert_eq!(
            got["resource"]["resource_status"],
            "RESOURCE_STATUS_CHECK_COMPLETE"
        );
        let body = json!({"mark_unhealthy": true});
        let mut unknown = body.clone();
        unknown["stack_name"] = json!(self.name);
        unknown["resource_name"] = json!("nothing");
        let path = format!("/stacks/{}/{id}/resources/nothing", self.name);
        self.compare_error_body(MARK, unknown, "PATCH", &path, Some(body), Code::NotFound)
            .await;
    }

    /// Exports, abandons and adopts the stack.
    async fn abandon_and_adopt(&mut self) {
        let created = self
            .call(
                "StackService/CreateStack",
                json!({"template": ADOPTED_TEMPLATE, "parameters": {"n": 12}, "tags": ["blue"]}),
            )
            .await;
        let id = created["stack"]["id"].as_str().unwrap().to_owned();
        self.wait_for_status("CREATE_COMPLETE").await;
        let at = format!("/stacks/{}/{id}", self.name);
        let text = self.output_text().await;
        let exported = self
            .compare_body(
                "GET",
                "StackService/ExportStack",
                json!({"stack_name": self.name}),
                &format!("{at}/export"),
                None,
                Some("data"),
            )
            .await;
        let abandoned = self.call("StackService/AbandonStack", json!({})).await;
        assert_eq!(abandoned, exported, "nothing has changed in between");
        let of = json!({"stack_name": self.name, "stack_id": id});
        self.wait_until_deleted(&of).await;
        self.compare("StackService/GetStack", of, &at).await;

        // The adopted stack has the same resources with the same physical ids.
        self.name += "-again";
        let data = &abandoned["data"];
        let adopted = self
            .call(
                "StackService/AdoptStack",
                json!({"adopt_stack_data": data, "parameters": {"n": 12}}),
            )
            .await;
        let id = adopted["stack"]["id"].as_str().unwrap().to_owned();
        self.wait_for_status("ADOPT_COMPLETE").await;
        assert_eq!(self.output_text().await, text);
        let got = self
            .compare(
                "StackResourceService/ListStackResources",
                json!({"stack_name": self.name}),
                &format!("/stacks/{}/{id}/resources", self.name),
            )
            .await;
        let resources = got["resources"].as_array().unwrap();
        assert_eq!(resources.len(), 4);
        for resource in resources {
            let name = resource["resource_name"].as_str().unwrap();
            assert_eq!(
                resource["physical_resource_id"], data["resources"][name]["resource_id"],
                "{name}"
            );
            assert_eq!(resource["resource_status_raw"], "ADOPT_COMPLETE", "{name}");
        }
        self.compare(
            "StackEventService/ListStackEvents",
            json!({"stack_name": self.name}),
            &format!("/stacks/{}/{id}/events", self.name),
        )
        .await;
        // Invalid data is rejected with Heat's message.
        for data in [json!({}), json!({"template": {}})] {
            let body = json!({"stack_name": "none", "adopt_stack_data": data.to_string()});
            self.compare_error_body(
                "StackService/AdoptStack",
                json!({"stack_name": "none", "adopt_stack_data": data}),
                "POST",
                "/stacks",
                Some(body),
                Code::InvalidArgument,
            )
            .await;
        }
        self.call("StackService/DeleteStack", json!({})).await;
        self.wait_until_deleted(&json!({"stack_name": self.name, "stack_id": id}))
            .await;
    }

    /// Returns the output `text` of the stack.
    async fn output_text(&self) -> String {
        let request = json!({"output_key": "text"});
        let got = self.call("StackOutputService/GetStackOutput", request);
        got.await["output"]["output_value"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Waits until the resource exists and its status satisfies `wanted`.
    async fn wait_for_resource(&self, name: &str, wanted: fn(&str) -> bool) {
        let request = json!({"stack_name": self.name, "resource_name": name});
        for _ in 0..600 {
            let got = self
                .gateway
                .client
                .call("StackResourceService/GetStackResource", request.clone());
            match got.await {
                Ok(got) => {
                    let status = &to_json(&got)["resource"]["resource_status_raw"];
                    if wanted(status.as_str().unwrap()) {
                        return;
                    }
                }
                Err(status) => assert_eq!(status.code(), Code::NotFound, "{status:?}"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        panic!("{name} has not come to the wanted status");
    }

    /// Waits until only the wait condition of an update is in progress.
    async fn wait_for_pending_update(&self) {
        self.wait_for_resource("wait", |status| status == "UPDATE_IN_PROGRESS")
            .await;
    }

    /// Sends the wait condition's signal number `number`. Heat answers a signal with 200 and
    /// drops it while the handle is being created.
    async fn signal(&self, number: u32) {
        self.wait_for_resource("handle", |status| {
            status.ends_with("_COMPLETE") && status != "INIT_COMPLETE"
        })
        .await;
        let signal = json!({"resource_name": "handle",
            "data": {"status": "SUCCESS", "id": number.to_string(), "data": "done"}});
        self.call("StackResourceService/SignalStackResource", signal)
            .await;
    }

    /// Compares the events of all pages with those of one unpaged list.
    async fn compare_events(&mut self, id: &str) {
        let at = format!(
            "/stacks/{}/{id}/events?sort_dir=asc&nested_depth=3",
            self.name
        );
        let all = self.rest.get(&at).await;
        let want: Vec<&str> = all["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["id"].as_str().unwrap())
            .collect();
        let request = json!({"stack_name": self.name, "page_size": 7, "nested_depth": 3,
            "sort_dir": "SORT_DIRECTION_ASC"});
        let mut stream = self
            .gateway
            .client
            .watch("StackEventService/StreamStackEvents", request, &[])
            .await
            .unwrap();
        let mut got = Vec::new();
        while let Some(event) = stream.next().await {
            let event = to_json(&event.unwrap());
            got.push(event["event"]["id"].as_str().unwrap().to_owned());
        }
        assert_eq!(got, want);
        assert!(got.len() > 40, "{}", got.len());
    }
}
