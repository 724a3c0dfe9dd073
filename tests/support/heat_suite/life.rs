//! The lifecycle of a stack, with real Heat and with the sandbox. Each read-only operation is
//! called through the gateway and by plain REST, and compared member by member.

mod adoption;
mod comparison;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tonic::Code;

use super::{Place, Rest, before};
use crate::support::Gateway;
use crate::support::client::{Watch, json as to_json};
use crate::support::compare::differences;

/// Ten resources: a nested stack, a deployment, one that fails with the parameter `fail`, and a
/// wait condition, which is last and waits for `signals` signals. So nothing else is in
/// progress when one fails or the other waits: real Heat loses a race against a nested stack in
/// progress, and an update must not complete before its signal.
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

const NESTED: &str = r#"heat_template_version: 2018-08-31
resources:
  deep: {type: OS::Heat::Value, properties: {value: 1}}
  deeper: {type: OS::Heat::RandomString}
"#;

/// A stack whose resources are independent of other stacks.
const MOVED: &str = r#"heat_template_version: 2018-08-31
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

const WATCH: &str = "StackService/WatchStack";

/// Reads of one stack: rpc, path below the stack, and the field of a body without an envelope.
const STACK_READS: [(&str, &str, Option<&str>); 7] = [
    (
        "StackService/GetStackTemplate",
        "template",
        Some("template"),
    ),
    ("StackService/GetStackEnvironment", "environment", None),
    ("StackService/GetStackFiles", "files", Some("files")),
    ("StackOutputService/ListStackOutputs", "outputs", None),
    ("StackSnapshotService/ListStackSnapshots", "snapshots", None),
    ("StackResourceService/ListStackResources", "resources", None),
    ("StackEventService/ListStackEvents", "events", None),
];

/// Reads a watch to its end: the type of the first event and its status, then each further
/// status; the last with its outcome and the parameter `n`.
async fn follow(watch: &mut Watch) -> Vec<String> {
    let mut lines = Vec::new();
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
        if lines.last() != Some(&line) {
            lines.push(line);
        }
    }
    lines
}

struct Suite {
    gateway: Gateway,
    rest: Rest,
    name: String,
    /// Operations that were compared.
    compared: BTreeSet<String>,
}

/// Runs the suite with the default settings of Heat, without abandon and adopt.
pub async fn life(place: &Place) {
    let mut suite = Suite::new(place, "life").await;
    suite.run().await;
    suite.gateway.running.stop().await.unwrap();
}

/// With `enable_stack_abandon` and `enable_stack_adopt`: exports a stack, abandons it, and
/// adopts it under another name.
pub async fn moved(place: &Place) {
    let mut suite = Suite::new(place, "moved").await;
    suite.adopt().await;
    suite.gateway.running.stop().await.unwrap();
}

impl Suite {
    async fn new(place: &Place, name: &str) -> Self {
        let nonce = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_millis();
        Self {
            gateway: Gateway::with(vec![before(place)]).await,
            rest: Rest::login(place, "demo", "demo").await,
            name: format!("{name}-{nonce}"),
            compared: BTreeSet::new(),
        }
    }

    /// Makes a call for the suite's own stack.
    async fn call(&self, rpc: &str, mut request: Value) -> Value {
        if !rpc.ends_with("/FindStack") {
            request["stack_name"] = json!(self.name);
        }
        let got = self.gateway.client.call(rpc, request).await;
        to_json(&got.unwrap_or_else(|e| panic!("{rpc}: {e:?}")))
    }

    /// Polls Heat through the gateway until the stack has this status; another final status of
    /// the action fails.
    async fn settled(&self, want: &str) -> Value {
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

    /// Compares a read-only operation with plain REST.
    async fn both(&mut self, rpc: &str, request: Value, path: &str) -> Value {
        self.both_by("GET", rpc, request, path, None, None).await
    }

    async fn both_by(
        &mut self,
        verb: &str,
        rpc: &str,
        request: Value,
        path: &str,
        body: Option<Value>,
        whole: Option<&str>,
    ) -> Value {
        let got = self
            .gateway
            .client
            .call(rpc, request)
            .await
            .unwrap_or_else(|e| panic!("{rpc}: {e:?}"));
        let body = body.map(|body| body.to_string());
        let (status, _, want) = self.rest.send(verb, path, body.as_deref()).await;
        assert!(status < 301, "{path}: {status} {want}");
        let want = match whole {
            Some(field) => json!({field: want}),
            None => want,
        };
        assert_eq!(differences(&got, &want), Vec::<String>::new(), "{rpc}");
        self.compared.insert(rpc.to_owned());
        to_json(&got)
    }

    /// Compares the error of an operation with that of plain REST.
    async fn both_fail(&mut self, rpc: &str, request: Value, verb: &str, path: &str, code: Code) {
        self.both_fail_by(rpc, request, verb, path, None, code)
            .await;
    }

    async fn both_fail_by(
        &mut self,
        rpc: &str,
        request: Value,
        verb: &str,
        path: &str,
        body: Option<Value>,
        code: Code,
    ) {
        let status = self.gateway.client.call(rpc, request).await.err();
        let status = status.unwrap_or_else(|| panic!("{rpc} has not failed"));
        let body = body.map(|body| body.to_string());
        let (http, _, body) = self.rest.send(verb, path, body.as_deref()).await;
        assert!(http >= 400, "{path}: {http}");
        assert_eq!(status.code(), code, "{rpc}: {status:?}");
        if let Some(message) = body["error"]["message"].as_str() {
            assert_eq!(
                status.message().split(" (").next(),
                message.split(" (").next(),
                "{rpc}"
            );
        }
        self.compared.insert(rpc.to_owned());
    }

    async fn run(&mut self) {
        let preview = json!({"stack_name": self.name, "template": TEMPLATE, "files": {"nested.yaml": NESTED}});
        let planned = self.call("StackService/PreviewStack", preview).await;
        assert_eq!(planned["stack"]["resources"].as_array().unwrap().len(), 10);

        let created = self
            .call(
                "StackService/CreateStack",
                json!({
                    "template": TEMPLATE, "files": {"nested.yaml": NESTED}, "parameters": {"n": 12},
                    "tags": ["blue", "green"], "timeout_mins": 10,
                }),
            )
            .await;
        let id = created["stack"]["id"].as_str().unwrap().to_owned();
        let mut watches = self.watches(&id).await;
        self.signal(1).await;
        for watch in &mut watches {
            let lines = follow(watch).await;
            assert_eq!(lines[0], "INITIAL CREATE_IN_PROGRESS", "{lines:?}");
            assert_eq!(lines.last().unwrap(), "CREATE_COMPLETE SUCCEEDED 12");
        }
        self.settled("CREATE_COMPLETE").await;
        self.compare(&id).await;
        self.health(&id).await;

        // An update with a template drops what it does not repeat: tags, and here the
        // parameter `fail`. An update that waits can be watched.
        let update = json!({"template": TEMPLATE, "files": {"nested.yaml": NESTED},
            "parameters": {"n": 13, "signals": 2}});
        self.call("StackService/UpdateStack", update).await;
        self.settled("UPDATE_IN_PROGRESS").await;
        let mut watches = self.watches(&id).await;
        self.signal(2).await;
        for watch in &mut watches {
            let lines = follow(watch).await;
            assert_eq!(lines[0], "INITIAL UPDATE_IN_PROGRESS", "{lines:?}");
            assert_eq!(lines.last().unwrap(), "UPDATE_COMPLETE SUCCEEDED 13");
        }
        let got = self.settled("UPDATE_COMPLETE").await;
        assert_eq!(got["stack"]["parameters"]["n"], "13");
        assert_eq!(got["stack"].get("tags"), None, "{got}");
        self.reads(&id).await;

        // A patch keeps what it does not set.
        self.call("StackService/PatchStack", json!({"parameters": {"n": 14}}))
            .await;
        let got = self.settled("UPDATE_COMPLETE").await;
        assert_eq!(got["stack"]["parameters"]["n"], "14");
        assert_eq!(got["stack"]["parameters"]["signals"], "2", "it is kept");
        self.reads(&id).await;

        // One that fails is rolled back.
        let failing = json!({"parameters": {"n": 15, "fail": true}, "disable_rollback": false});
        self.call("StackService/PatchStack", failing).await;
        self.settled("ROLLBACK_COMPLETE").await;
        self.reads(&id).await;

        self.call("StackActionService/SuspendStack", json!({}))
            .await;
        self.settled("SUSPEND_COMPLETE").await;
        self.reads(&id).await;
        self.call("StackActionService/ResumeStack", json!({})).await;
        self.settled("RESUME_COMPLETE").await;

        let taken = self
            .call(
                "StackSnapshotService/CreateStackSnapshot",
                json!({"name": "before"}),
            )
            .await;
        let snapshot = taken["snapshot"]["id"].as_str().unwrap().to_owned();
        self.settled("SNAPSHOT_COMPLETE").await;
        self.snapshots(&id, &snapshot).await;
        let restore = json!({"snapshot_id": snapshot});
        self.call("StackSnapshotService/RestoreStackSnapshot", restore.clone())
            .await;
        self.settled("RESTORE_COMPLETE").await;
        self.reads(&id).await;
        self.call("StackSnapshotService/DeleteStackSnapshot", restore)
            .await;

        self.call("StackActionService/CheckStack", json!({})).await;
        self.settled("CHECK_COMPLETE").await;

        // An update that is cancelled while it waits: resources in progress are not
        // interrupted, and the rollback ends after them.
        let waiting = json!({"parameters": {"n": 16, "signals": 3}});
        self.call("StackService/PatchStack", waiting).await;
        self.waits().await;
        self.call("StackActionService/CancelStackUpdate", json!({}))
            .await;
        self.settled("ROLLBACK_IN_PROGRESS").await;
        self.signal(3).await;
        self.settled("ROLLBACK_COMPLETE").await;

        // An update that is cancelled without a rollback, although a failure would be rolled
        // back.
        let waiting = json!({"parameters": {"n": 17, "signals": 4}, "disable_rollback": false});
        self.call("StackService/PatchStack", waiting).await;
        self.waits().await;
        self.call("StackActionService/CancelStackWithoutRollback", json!({}))
            .await;
        let got = self.settled("UPDATE_FAILED").await;
        let reason = &got["stack"]["stack_status_reason"];
        assert_eq!(reason, "Stack UPDATE cancelled");
        let request = json!({"stack_name": self.name});
        let watch = self.gateway.client.watch(WATCH, request, &[]).await;
        let lines = follow(&mut watch.unwrap()).await;
        assert_eq!(lines.last().unwrap(), "UPDATE_FAILED FAILED 17");

        self.events(&id).await;
        self.call("StackService/DeleteStack", json!({})).await;
        let of = json!({"stack_name": self.name, "stack_id": id});
        self.gone(&of).await;
        let path = format!("/stacks/{}/{id}", self.name);
        self.both("StackService/GetStack", of.clone(), &path).await;
        self.both(
            "StackEventService/ListStackEvents",
            of.clone(),
            &format!("{path}/events"),
        )
        .await;
        self.both_fail(
            "StackService/DeleteStack",
            of,
            "DELETE",
            &path,
            Code::NotFound,
        )
        .await;
        assert!(self.compared.len() >= 32, "{:?}", self.compared);
    }

    /// Waits until the stack is deleted: it has DELETE_COMPLETE shortly before it leaves the
    /// list.
    async fn gone(&self, of: &Value) {
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
        panic!("the stack is not deleted");
    }

    /// Watches the stack by its name, by its id, and by both.
    async fn watches(&self, id: &str) -> Vec<Watch> {
        let mut watches = Vec::new();
        for request in [
            json!({"stack_name": self.name}),
            json!({"stack_name": id}),
            json!({"stack_name": self.name, "stack_id": id}),
        ] {
            let watch = self.gateway.client.watch(WATCH, request, &[]).await;
            watches.push(watch.unwrap());
        }
        watches
    }

    /// Marks a resource as unhealthy, and as healthy again.
    async fn health(&mut self, id: &str) {
        const MARK: &str = "StackResourceService/MarkStackResourceHealth";
        let at = format!("/stacks/{}/{id}/resources/other", self.name);
        let one = json!({"stack_name": self.name, "resource_name": "other"});
        let broken = json!({"resource_name": "other", "mark_unhealthy": true,
            "resource_status_reason": "it smells"});
        self.call(MARK, broken).await;
        let got = self
            .both("StackResourceService/GetStackResource", one.clone(), &at)
            .await;
        let resource = &got["resource"];
        assert_eq!(resource["resource_status"], "RESOURCE_STATUS_CHECK_FAILED");
        assert_eq!(resource["resource_status_reason"], "it smells");
        // Its physical id is accepted, too.
        let physical = resource["physical_resource_id"].clone();
        let well = json!({"resource_name": physical, "mark_unhealthy": false});
        self.call(MARK, well).await;
        let got = self
            .both("StackResourceService/GetStackResource", one, &at)
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
        self.both_fail_by(MARK, unknown, "PATCH", &path, Some(body), Code::NotFound)
            .await;
    }

    /// Returns the output `text` of the suite's stack.
    async fn text(&self) -> String {
        let request = json!({"output_key": "text"});
        let got = self.call("StackOutputService/GetStackOutput", request);
        got.await["output"]["output_value"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Waits until the resource exists and has such a status.
    async fn resource(&self, name: &str, wanted: fn(&str) -> bool) {
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
        panic!("{name} has not reached the status");
    }

    /// Waits until only the wait condition of an update is in progress.
    async fn waits(&self) {
        self.resource("wait", |status| status == "UPDATE_IN_PROGRESS")
            .await;
    }

    /// Sends a signal to the wait condition. Heat responds 200 and loses the signal while the
    /// handle is being created.
    async fn signal(&self, number: u32) {
        self.resource("handle", |status| {
            status.ends_with("_COMPLETE") && status != "INIT_COMPLETE"
        })
        .await;
        let signal = json!({"resource_name": "handle",
            "data": {"status": "SUCCESS", "id": number.to_string(), "data": "done"}});
        self.call("StackResourceService/SignalStackResource", signal)
            .await;
    }
}
