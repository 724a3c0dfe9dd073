//! Stacks by name, by id and by ARN: redirects, lookups and their cache.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tonic::Code;
use tonic_types::StatusExt;

use crate::support::client::json as to_json;
use crate::support::recorder::{Answer, Seen};
use crate::support::{Gateway, Recorder, StoppedClock, http_get, upstream};

const GET: &str = "StackService/GetStack";

/// Stacks by name, of a Heat whose redirects name an internal address.
#[derive(Clone, Default)]
struct Stacks(Arc<Mutex<HashMap<String, String>>>);

impl Stacks {
    fn put(&self, name: &str, id: &str) {
        self.0.lock().unwrap().insert(name.into(), id.into());
    }

    fn answer(&self, seen: &Seen) -> Answer {
        let stacks = self.0.lock().unwrap();
        let path = seen.path().strip_prefix("/v1/p1/stacks").unwrap();
        let segments: Vec<String> = path
            .split('/')
            .skip(1)
            .map(|s| {
                percent_encoding::percent_decode_str(s)
                    .decode_utf8_lossy()
                    .into_owned()
            })
            .collect();
        match segments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [] => Answer::json(201, &json!({"stack": {"id": "new", "links": []}})),
            [identity] => stacks
                .iter()
                .find(|(name, id)| *name == identity || *id == identity)
                .map_or_else(missing, |(name, id)| redirect(name, id)),
            // An ARN is split only.
            [arn, name, id] if arn.starts_with("arn:openstack:heat::p1:stacks") => {
                redirect(name, id)
            }
            [name, id, ..] if stacks.get(name).is_none_or(|known| known != id) => missing(),
            [_, _, "outputs", "none"] => missing(),
            [name, id] if seen.method == "GET" => {
                Answer::json(200, &json!({"stack": {"stack_name": name, "id": id}}))
            }
            [_, _] if seen.method == "DELETE" => Answer::json(204, &Value::Null),
            [_, _] => Answer::json(202, &json!({"code": "202 Accepted"})),
            [_, _, "actions"] => Answer::text(200, "application/json", "null"),
            [_, _, "snapshots", _] if seen.method == "DELETE" => Answer::json(204, &Value::Null),
            [_, _, ref rest @ ..] => {
                let body = resource(&seen.method, rest);
                Answer::json(
                    200,
                    &body.unwrap_or_else(|| panic!("no response to {seen:?}")),
                )
            }
        }
    }
}

/// Returns the response of an operation below a stack.
fn resource(method: &str, path: &[&str]) -> Option<Value> {
    Some(match (method, path) {
        (_, ["export"]) => json!({"name": "web"}),
        (_, ["abandon"]) => json!({"name": "web", "resources": {}}),
        (_, ["preview"]) => json!({"resource_changes": {"added": []}}),
        (_, ["files"]) => json!({}),
        (_, ["template"]) => json!({"heat_template_version": "2018-08-31"}),
        (_, ["environment"]) => json!({"parameters": {}}),
        (_, ["outputs"]) => json!({"outputs": []}),
        (_, ["outputs", key]) => json!({"output": {"output_key": key}}),
        ("POST", ["snapshots"]) => json!({"id": "s", "status": "IN_PROGRESS"}),
        (_, ["snapshots"]) => json!({"snapshots": []}),
        ("GET", ["snapshots", id]) => json!({"snapshot": {"id": id}}),
        (_, ["snapshots", _, "restore"]) => json!({"code": "202 Accepted"}),
        (_, ["resources"]) => json!({"resources": []}),
        ("GET", ["resources", name]) => json!({"resource": {"resource_name": name}}),
        (_, ["resources", _, "metadata"]) => json!({"metadata": {}}),
        (_, ["resources", _, "signal"]) | ("PATCH", ["resources", _]) => Value::Null,
        (_, ["events"] | ["resources", _, "events"]) => json!({"events": []}),
        (_, ["resources", _, "events", id]) => json!({"event": {"id": id}}),
        _ => return None,
    })
}

fn redirect(name: &str, id: &str) -> Answer {
    let name = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
    Answer::json(302, &json!({"code": "302 Found", "title": "Found"})).with(
        "location",
        &format!("http://inner.example.test:8004/v1/p1/stacks/{name}/{id}"),
    )
}

fn missing() -> Answer {
    Answer::json(
        404,
        &json!({"code": 404, "title": "Not Found", "explanation": "no", "error":
            {"type": "EntityNotFound", "message": "The Stack could not be found.", "traceback": null}}),
    )
}

async fn heat() -> (Stacks, Recorder, Gateway) {
    let stacks = Stacks::default();
    stacks.put("web", "17");
    let answering = stacks.clone();
    let recorder = Recorder::start(move |seen| answering.answer(seen)).await;
    let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
    (stacks, recorder, gateway)
}

fn targets(seen: &[Seen]) -> Vec<String> {
    seen.iter()
        .map(|seen| format!("{} {}", seen.method, seen.target))
        .collect()
}

#[tokio::test]
async fn every_stack_operation_accepts_the_name_only() {
    let template = json!({"heat_template_version": "2018-08-31"});
    for (rpc, more, verb, rest) in [
        (
            GET,
            json!({"resolve_outputs": false}),
            "GET",
            "?resolve_outputs=false",
        ),
        (
            "StackService/UpdateStack",
            json!({"template_json": template}),
            "PUT",
            "",
        ),
        ("StackService/PatchStack", json!({}), "PATCH", ""),
        (
            "StackService/PreviewStackUpdate",
            json!({"show_nested": true}),
            "PUT",
            "/preview?show_nested=true",
        ),
        (
            "StackService/PreviewStackPatch",
            json!({}),
            "PATCH",
            "/preview",
        ),
        ("StackService/DeleteStack", json!({}), "DELETE", ""),
        ("StackService/AbandonStack", json!({}), "DELETE", "/abandon"),
        ("StackService/ExportStack", json!({}), "GET", "/export"),
        (
            "StackService/GetStackTemplate",
            json!({}),
            "GET",
            "/template",
        ),
        (
            "StackService/GetStackEnvironment",
            json!({}),
            "GET",
            "/environment",
        ),
        ("StackService/GetStackFiles", json!({}), "GET", "/files"),
        (
            "StackOutputService/ListStackOutputs",
            json!({}),
            "GET",
            "/outputs",
        ),
        (
            "StackOutputService/GetStackOutput",
            json!({"output_key": "a"}),
            "GET",
            "/outputs/a",
        ),
        (
            "StackActionService/SuspendStack",
            json!({}),
            "POST",
            "/actions",
        ),
        (
            "StackActionService/ResumeStack",
            json!({}),
            "POST",
            "/actions",
        ),
        (
            "StackActionService/CheckStack",
            json!({}),
            "POST",
            "/actions",
        ),
        (
            "StackActionService/CancelStackUpdate",
            json!({}),
            "POST",
            "/actions",
        ),
        (
            "StackActionService/CancelStackWithoutRollback",
            json!({}),
            "POST",
            "/actions",
        ),
        (
            "StackSnapshotService/CreateStackSnapshot",
            json!({}),
            "POST",
            "/snapshots",
        ),
        (
            "StackSnapshotService/ListStackSnapshots",
            json!({}),
            "GET",
            "/snapshots",
        ),
        (
            "StackSnapshotService/GetStackSnapshot",
            json!({"snapshot_id": "s"}),
            "GET",
            "/snapshots/s",
        ),
        (
            "StackSnapshotService/DeleteStackSnapshot",
            json!({"snapshot_id": "s"}),
            "DELETE",
            "/snapshots/s",
        ),
        (
            "StackSnapshotService/RestoreStackSnapshot",
            json!({"snapshot_id": "s"}),
            "POST",
            "/snapshots/s/restore",
        ),
        (
            "StackResourceService/ListStackResources",
            json!({"nested_depth": 2}),
            "GET",
            "/resources?nested_depth=2",
        ),
        (
            "StackResourceService/GetStackResource",
            json!({"resource_name": "r"}),
            "GET",
            "/resources/r",
        ),
        (
            "StackResourceService/GetStackResourceMetadata",
            json!({"resource_name": "r"}),
            "GET",
            "/resources/r/metadata",
        ),
        (
            "StackResourceService/SignalStackResource",
            json!({"resource_name": "r", "data": {"n": 1}}),
            "POST",
            "/resources/r/signal",
        ),
        (
            "StackResourceService/MarkStackResourceHealth",
            json!({"resource_name": "r", "mark_unhealthy": false}),
            "PATCH",
            "/resources/r",
        ),
        (
            "StackEventService/ListStackEvents",
            json!({}),
            "GET",
            "/events",
        ),
        (
            "StackEventService/ListResourceEvents",
            json!({"resource_name": "r"}),
            "GET",
            "/resources/r/events",
        ),
        (
            "StackEventService/GetEvent",
            json!({"resource_name": "r", "event_id": "e"}),
            "GET",
            "/resources/r/events/e",
        ),
    ] {
        let (_, recorder, gateway) = heat().await;
        let mut request = more.clone();
        request["stack_name"] = json!("web");
        gateway
            .client
            .call(rpc, request)
            .await
            .unwrap_or_else(|e| panic!("{rpc}: {e:?}"));
        let seen = recorder.seen();
        assert_eq!(
            targets(&seen),
            [
                "GET /v1/p1/stacks/web".to_owned(),
                format!("{verb} /v1/p1/stacks/web/17{rest}")
            ],
            "{rpc}"
        );
        // Neither name nor id is in a body.
        for body in seen.iter().map(Seen::json).filter(|body| body.is_object()) {
            assert!(
                body.get("stack_name").is_none() && body.get("stack_id").is_none(),
                "{rpc}"
            );
        }
        gateway.running.stop().await.unwrap();
    }
}

#[tokio::test]
async fn stack_is_found_by_name_id_or_arn() {
    let (stacks, recorder, gateway) = heat().await;
    // The result is cached for some seconds.
    let _clock = StoppedClock::new();
    stacks.put("x.json é", "18");
    for (request, first) in [
        (json!({"stack_name": "web"}), "web"),
        (json!({"stack_id": "17"}), "17"),
        (
            json!({"stack_name": "arn:openstack:heat::p1:stacks/web/17"}),
            "arn%3Aopenstack%3Aheat%3A%3Ap1%3Astacks/web/17",
        ),
    ] {
        let got = gateway.client.call(GET, request.clone()).await.unwrap();
        assert_eq!(to_json(&got)["stack"]["id"], "17", "{request}");
        assert_eq!(
            targets(&recorder.take()),
            [
                format!("GET /v1/p1/stacks/{first}"),
                "GET /v1/p1/stacks/web/17".into()
            ],
            "{request}"
        );
    }
    // An id instead of the name: its lookup is cached.
    let id = json!({"stack_name": "17"});
    gateway.client.call(GET, id).await.unwrap();
    assert_eq!(targets(&recorder.take()), ["GET /v1/p1/stacks/web/17"]);
    // With both, no lookup is made.
    let both = json!({"stack_name": "web", "stack_id": "17"});
    gateway.client.call(GET, both).await.unwrap();
    assert_eq!(targets(&recorder.take()), ["GET /v1/p1/stacks/web/17"]);
    let got = gateway
        .client
        .call(GET, json!({"stack_id": "18"}))
        .await
        .unwrap();
    assert_eq!(to_json(&got)["stack"]["stack_name"], "x.json é");

    let status = gateway.client.call(GET, json!({})).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(
        status.message(),
        "stack_name: is required: give stack_name or stack_id"
    );
    recorder.take();
    for name in ["..", "a/../b", "."] {
        let status = gateway
            .client
            .call(GET, json!({"stack_name": name}))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{name}");
    }
    assert!(recorder.seen().is_empty(), "nothing was sent");

    let status = gateway
        .client
        .call(GET, json!({"stack_name": "no"}))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(
        status.get_error_details().error_info().unwrap().reason,
        "EntityNotFound"
    );
    gateway.running.stop().await.unwrap();
}

#[tokio::test]
async fn find_stack_returns_name_and_id() {
    let (_, recorder, gateway) = heat().await;
    for identity in ["web", "17", "arn:openstack:heat::p1:stacks/web/17"] {
        let found = gateway
            .client
            .call("StackService/FindStack", json!({"identity": identity}))
            .await
            .unwrap();
        assert_eq!(
            to_json(&found),
            json!({"stack_name": "web", "stack_id": "17"}),
            "{identity}"
        );
    }
    assert_eq!(recorder.seen().len(), 3);
    gateway.running.stop().await.unwrap();
    // An upstream that follows its own redirect, and a redirect to another host.
    for (answer, want) in [
        (
            Answer::json(200, &json!({"stack": {"stack_name": "web", "id": "17"}})),
            Ok(()),
        ),
        (
            Answer::json(302, &Value::Null).with("location", "http://evil.example.test/login"),
            Err(Code::Internal),
        ),
        (Answer::json(302, &Value::Null), Err(Code::Internal)),
    ] {
        let recorder = Recorder::fixed(answer).await;
        let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
        let found = gateway
            .client
            .call("StackService/FindStack", json!({"identity": "web"}))
            .await;
        assert_eq!(found.map(|_| ()).map_err(|status| status.code()), want);
        assert_eq!(recorder.seen().len(), 1);
        gateway.running.stop().await.unwrap();
    }
}

#[tokio::test]
async fn lookup_is_cached_per_credential_until_it_is_stale() {
    let stacks = Stacks::default();
    stacks.put("web", "17");
    let answering = stacks.clone();
    let recorder = Recorder::start(move |seen| answering.answer(seen)).await;
    let mut settings = upstream("u", "heat", &recorder.url());
    settings.auth = drawbridge::credentials::Settings::Passthrough;
    let gateway = Gateway::with(vec![settings]).await;
    let _clock = StoppedClock::new();
    let call = async |rpc: &str, mut request: Value, token: &str| {
        request["stack_name"] = json!("web");
        gateway
            .client
            .call_with(rpc, request, &[("x-auth-token", token)])
            .await
            .map(|response| to_json(response.get_ref()))
    };
    let lookups = |recorder: &Recorder| {
        let seen = recorder.take();
        seen.iter()
            .filter(|seen| seen.path() == "/v1/p1/stacks/web")
            .count()
    };
    for _ in 0..3 {
        call(GET, json!({}), "one").await.unwrap();
    }
    assert_eq!(lookups(&recorder), 1);
    // The cache is separate for each credential.
    call(GET, json!({}), "two").await.unwrap();
    assert_eq!(lookups(&recorder), 1);

    // Another stack has the name: one more lookup, and the call is retried, even if it is
    // not idempotent.
    stacks.put("web", "18");
    assert_eq!(
        call(GET, json!({}), "one").await.unwrap()["stack"]["id"],
        "18"
    );
    assert_eq!(
        targets(&recorder.take()),
        [
            "GET /v1/p1/stacks/web/17",
            "GET /v1/p1/stacks/web",
            "GET /v1/p1/stacks/web/18"
        ]
    );
    stacks.put("web", "19");
    call("StackActionService/SuspendStack", json!({}), "one")
        .await
        .unwrap();
    assert_eq!(
        targets(&recorder.take()),
        [
            "POST /v1/p1/stacks/web/18/actions",
            "GET /v1/p1/stacks/web",
            "POST /v1/p1/stacks/web/19/actions"
        ]
    );

    // A 404 of another resource: one more lookup, and no retry.
    call(GET, json!({}), "one").await.unwrap();
    recorder.take();
    let none = json!({"output_key": "none"});
    let status = call("StackOutputService/GetStackOutput", none.clone(), "one")
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(
        targets(&recorder.take()),
        [
            "GET /v1/p1/stacks/web/19/outputs/none",
            "GET /v1/p1/stacks/web"
        ]
    );

    // Creating and deleting a stack invalidates the lookups.
    call("StackService/DeleteStack", json!({}), "one")
        .await
        .unwrap();
    recorder.take();
    call(GET, json!({}), "one").await.unwrap();
    assert_eq!(lookups(&recorder), 1);
    call("StackService/CreateStack", json!({"template": "{}"}), "two")
        .await
        .unwrap();
    recorder.take();
    call(GET, json!({}), "one").await.unwrap();
    assert_eq!(lookups(&recorder), 1);

    // The stack is deleted: NOT_FOUND after one lookup.
    stacks.0.lock().unwrap().clear();
    let status = call(GET, json!({}), "one").await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(
        targets(&recorder.take()),
        ["GET /v1/p1/stacks/web/19", "GET /v1/p1/stacks/web"]
    );
    gateway.running.stop().await.unwrap();
}

#[tokio::test]
async fn version_list_needs_no_token() {
    let versions = json!({"versions": [{"id": "v1.0", "status": "CURRENT", "links":
        [{"rel": "self", "href": "http://inner.example.test/v1/"}]}]});
    let recorder = Recorder::fixed(Answer::json(300, &versions)).await;
    let mut settings = upstream("u", "heat", &format!("{}/v1/p1", recorder.url()));
    settings.auth = drawbridge::credentials::Settings::Passthrough;
    let gateway = Gateway::with(vec![settings]).await;
    for metadata in [&[][..], &[("x-auth-token", "secret")]] {
        let got = gateway
            .client
            .call_with("MetaService/ListApiVersions", json!({}), metadata)
            .await
            .unwrap();
        assert_eq!(
            to_json(got.get_ref())["versions"][0]["status"],
            "API_VERSION_STATUS_CURRENT"
        );
        let seen = recorder.take();
        assert_eq!(targets(&seen), ["GET /"]);
        assert_eq!(seen[0].header("x-auth-token"), "");
    }
    gateway.running.stop().await.unwrap();
}

/// A cancelled call invalidates the lookups, too: it may have freed the name.
#[tokio::test(flavor = "multi_thread")]
async fn cancelled_mutation_invalidates_lookups() {
    let stacks = Stacks::default();
    stacks.put("web", "17");
    let answering = stacks.clone();
    let (came, mut coming) = tokio::sync::mpsc::unbounded_channel();
    let (go_on, waiting) = std::sync::mpsc::channel::<()>();
    let waiting = Mutex::new(waiting);
    let recorder = Recorder::start(move |seen| {
        // Heat returns deleted stacks by their id.
        if seen.method == "GET" && seen.path().ends_with("/stacks/web/17") {
            return Answer::json(200, &json!({"stack": {"stack_name": "web", "id": "17"}}));
        }
        if seen.method == "DELETE" {
            came.send(()).unwrap();
            // Gets no response before the test ends.
            let _ = tokio::task::block_in_place(|| waiting.lock().unwrap().recv());
        }
        answering.answer(seen)
    })
    .await;
    let gateway = Gateway::with(vec![upstream("u", "heat", &recorder.url())]).await;
    let request = json!({"stack_name": "web"});
    let read = async || {
        let got = gateway.client.call(GET, request.clone()).await.unwrap();
        to_json(&got)["stack"]["id"].clone()
    };
    assert_eq!(read().await, "17");
    let client = gateway.client.clone();
    let deletes = request.clone();
    let leaves =
        tokio::spawn(async move { client.call("StackService/DeleteStack", deletes).await });
    coming.recv().await.unwrap();
    // The stack is deleted by now, and another one has its name.
    stacks.put("web", "18");
    leaves.abort();
    let metrics = format!("http://{}/metrics", gateway.running.admin.unwrap());
    let left = async {
        while !http_get(&metrics).await.1.contains("code=\"CANCELLED\"} 1") {
            tokio::task::yield_now().await;
        }
    };
    let patience = std::time::Duration::from_secs(60);
    tokio::time::timeout(patience, left)
        .await
        .expect("the call is counted as cancelled");
    assert_eq!(read().await, "18");
    drop(go_on);
    gateway.running.stop().await.unwrap();
}

#[tokio::test]
async fn failed_lookup_names_the_field_of_the_request() {
    let (_stacks, recorder, gateway) = heat().await;
    for (field, text) in [
        ("stack_name", ".."),
        ("stack_name", "."),
        ("stack_id", ".."),
    ] {
        let status = gateway
            .client
            .call("StackService/DeleteStack", json!({field: text}))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        let details = status.get_error_details();
        let fields: Vec<&str> = details
            .bad_request()
            .unwrap()
            .field_violations
            .iter()
            .map(|violation| violation.field.as_str())
            .collect();
        assert_eq!(fields, [field], "{status:?}");
        assert!(!status.message().contains("identity"), "{status:?}");
    }
    assert!(recorder.seen().is_empty());
    // In a call of the lookup rpc itself, the field is its own.
    let rpc = "StackService/FindStack";
    let status = gateway.client.call(rpc, json!({"identity": ".."})).await;
    let status = status.unwrap_err();
    assert!(status.message().contains("identity"), "{status:?}");
}
