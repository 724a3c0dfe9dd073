//! Transcript of a script of REST requests and Heat's responses.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{HeatTarget, Rest, stack_transcript};

/// Users, ids by name, and the exchanges so far.
struct Script {
    users: BTreeMap<&'static str, Rest>,
    names: BTreeMap<String, String>,
    transcript: Vec<Value>,
}

impl Script {
    /// Sends one request and records the exchange. If `keep` is not empty, it becomes the
    /// name of the id in the response.
    async fn step(&mut self, user: &str, verb: &str, path: &str, body: Option<Value>, keep: &str) {
        let body = body.map(|b| match b {
            Value::String(text) => text,
            other => other.to_string(),
        });
        let fill = |text: &str| {
            self.names.iter().fold(text.to_owned(), |t, (name, id)| {
                t.replace(&format!("<{name}>"), id)
            })
        };
        let (filled, sent) = (fill(path), body.as_deref().map(fill));
        let (status, headers, response) =
            self.users[user].send(verb, &filled, sent.as_deref()).await;
        if !keep.is_empty() {
            let id = response
                .as_object()
                .and_then(|o| o.values().next())
                .and_then(|v| v["id"].as_str())
                .unwrap_or_else(|| panic!("{verb} {path}: no id in {response}"));
            self.names.insert(keep.to_owned(), id.to_owned());
        }
        let request_id = headers
            .get("x-openstack-request-id")
            .is_some_and(|id| id.to_str().unwrap().starts_with("req-"));
        let mut entry = json!({
            "who": user, "request": format!("{verb} {path}"), "status": status,
            "request_id": request_id,
            "type": headers.get("content-type").map(|v| v.to_str().unwrap().split(';').next().unwrap()),
            "answer": self.normalize(&response),
        });
        if let Some(body) = body {
            entry["body"] = json!(if body.len() > 300 {
                format!("{} bytes", body.len())
            } else {
                body
            });
        }
        if headers.contains_key("www-authenticate") {
            entry["www_authenticate"] = json!(true);
        }
        self.transcript.push(entry);
    }

    /// Replaces ids with their names and times with a placeholder.
    fn normalize(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => {
                let b = text.as_bytes();
                if b.len() == 20 && b[4] == b'-' && b[10] == b'T' && b[19] == b'Z' {
                    return json!("<time>");
                }
                let mut text = text.clone();
                for (name, id) in &self.names {
                    text = text.replace(id, &format!("<{name}>"));
                }
                for (user, rest) in &self.users {
                    text = text.replace(&rest.project, &format!("<project of {user}>"));
                    text = text.replace(&rest.heat, "<heat>");
                }
                Value::from(text)
            }
            Value::Array(items) => items.iter().map(|v| self.normalize(v)).collect(),
            Value::Object(members) => members
                .iter()
                .map(|(k, v)| (k.clone(), self.normalize(v)))
                .collect(),
            other => other.clone(),
        }
    }
}

const UNKNOWN_ID: &str = "00000000-0000-4000-8000-000000000000";

/// Runs the script, which deletes everything that it creates. Returns the exchanges.
pub async fn transcript(target: &HeatTarget) -> Vec<Value> {
    let demo = Rest::login(target, "demo", "demo").await;
    let mut nobody = Rest::login(target, "demo", "demo").await;
    nobody.token = String::new();
    let mut forged = Rest::login(target, "demo", "demo").await;
    forged.token = "gAAAAA-forged".into();
    let mut strayed = Rest::login(target, "demo", "demo").await;
    let other = Rest::login(target, "other", "other").await;
    strayed.project = other.project.clone();
    let users = BTreeMap::from([
        ("demo", demo),
        ("other", other),
        ("reader", Rest::login(target, "reader", "demo").await),
        ("nobody", nobody),
        ("forged", forged),
        ("strayed", strayed),
    ]);
    let mut s = Script {
        users,
        names: BTreeMap::new(),
        transcript: Vec::new(),
    };
    let server = "11111111-2222-4333-8444-555555555555";

    // Authorization.
    for user in ["nobody", "forged", "strayed"] {
        s.step(user, "GET", "/software_configs", None, "").await;
        s.step(
            user,
            "POST",
            "/software_configs",
            Some(json!({"name": "x"})),
            "",
        )
        .await;
    }
    s.step(
        "reader",
        "POST",
        "/software_configs",
        Some(json!({"name": "x"})),
        "",
    )
    .await;
    s.step(
        "reader",
        "POST",
        "/software_deployments",
        Some(json!({"server_id": "x", "config_id": UNKNOWN_ID})),
        "",
    )
    .await;
    s.step(
        "demo",
        "GET",
        "/software_configs?global_tenant=true",
        None,
        "",
    )
    .await;

    // Configs.
    let full = json!({"name": "b-install", "group": "script", "config": "#!/bin/sh\necho \"$port\" > $heat_outputs_path.result\n",
        "inputs": [
            {"name": "port", "type": "Number", "default": 80, "description": "listen port"},
            {"name": "tls", "type": "Boolean", "default": false},
            {"name": "hosts", "type": "CommaDelimitedList", "default": "a,b"},
            {"name": "extra", "type": "Json", "default": {"k": [1, null]}},
            {"name": "plain"}],
        "outputs": [{"name": "result", "type": "String", "description": "d"}, {"name": "err", "error_output": true}],
        "options": {"k": {"deep": [true, null, 1.5]}}});
    s.step("demo", "POST", "/software_configs", Some(full), "full")
        .await;
    s.step(
        "demo",
        "POST",
        "/software_configs",
        Some(json!({"name": "a-minimal"})),
        "minimal",
    )
    .await;
    s.step(
        "demo",
        "POST",
        "/software_configs",
        Some(json!({})),
        "empty",
    )
    .await;
    s.step("demo", "POST", "/software_configs", Some(json!({"name": "c-nulls", "group": null, "config": null, "inputs": null, "outputs": null, "options": null})), "nulls").await;
    s.step(
        "demo",
        "POST",
        "/software_configs",
        Some(json!({"name": "d-object", "config": {"k": ["v", 1, null]}, "bogus": 1})),
        "object",
    )
    .await;
    for body in [
        json!("{\"name\": \"x\", "),
        json!("not json"),
        json!("[]"),
        json!(" {}"),
        json!({"inputs": {"a": 1}}),
        json!({"inputs": [{"type": "String"}]}),
        json!({"inputs": [{"name": "a", "type": "Nonsense"}]}),
        json!({"inputs": [{"name": "a", "type": "Number", "default": "abc"}]}),
        json!({"inputs": [{"name": "a", "what": 1}]}),
        json!({"outputs": {"a": 1}}),
        json!({"config": "x".repeat(1_100_000)}),
    ] {
        s.step("demo", "POST", "/software_configs", Some(body), "")
            .await;
    }
    s.step("demo", "POST", "/software_configs", None, "").await;
    for id in ["full", "minimal", "empty", "nulls", "object"] {
        s.step(
            "demo",
            "GET",
            &format!("/software_configs/<{id}>"),
            None,
            "",
        )
        .await;
    }
    s.step(
        "demo",
        "GET",
        &format!("/software_configs/{UNKNOWN_ID}"),
        None,
        "",
    )
    .await;
    s.step("demo", "GET", "/software_configs/some-name", None, "")
        .await;
    s.step("other", "GET", "/software_configs/<full>", None, "")
        .await;
    s.step("demo", "GET", "/software_configs/<full>/", None, "")
        .await;
    s.step("demo", "GET", "/nonsense", None, "").await;
    s.step(
        "demo",
        "PUT",
        "/software_configs/<full>",
        Some(json!({"name": "x"})),
        "",
    )
    .await;
    s.step("demo", "DELETE", "/software_configs", None, "")
        .await;
    for query in ["limit=0", "limit=-1", "limit=abc"] {
        s.step(
            "demo",
            "GET",
            &format!("/software_configs?{query}"),
            None,
            "",
        )
        .await;
    }
    s.step("other", "GET", "/software_configs", None, "").await;

    // Deployments.
    let values = json!({"i": 7, "f": 1.5, "b": true, "n": null, "s": "text", "l": [1, "two", null, {"x": false}],
        "o": {"deep": {"er": [1]}}, "big": 1_152_921_504_606_846_976_i64, "empty": ""});
    let create = |config: &str, more: Value| {
        let mut body = json!({"config_id": config, "server_id": server});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        Some(body)
    };
    let path = "/software_deployments";
    s.step("demo", "POST", path, create("<full>", json!({"action": "CREATE", "status": "IN_PROGRESS", "status_reason": "Deploy data available", "input_values": values})), "first").await;
    s.step(
        "demo",
        "POST",
        path,
        create("<minimal>", json!({})),
        "second",
    )
    .await;
    s.step(
        "demo",
        "POST",
        path,
        create(
            "<minimal>",
            json!({"status": "WHATEVER", "action": "DANCE"}),
        ),
        "odd",
    )
    .await;
    s.step("demo", "POST", path, create("<minimal>", json!({"input_values": [1, 2], "output_values": {"a": 1}, "deployment_id": "x", "bogus": 1})), "list").await;
    s.step(
        "demo",
        "POST",
        path,
        create(
            "<minimal>",
            json!({"status": null, "status_reason": null, "action": null, "input_values": null}),
        ),
        "nullish",
    )
    .await;
    for body in [
        json!({}),
        json!({"config_id": "<full>"}),
        json!({"server_id": server}),
        json!({"config_id": UNKNOWN_ID, "server_id": server}),
        json!("[]"),
        json!("not json"),
    ] {
        s.step("demo", "POST", path, Some(body), "").await;
    }
    s.step(
        "demo",
        "POST",
        path,
        create(
            "<minimal>",
            json!({"stack_user_project_id": "x".repeat(65)}),
        ),
        "",
    )
    .await;
    for id in ["first", "second", "odd", "list", "nullish"] {
        s.step("demo", "GET", &format!("{path}/<{id}>"), None, "")
            .await;
    }
    s.step("demo", "GET", &format!("{path}/{UNKNOWN_ID}"), None, "")
        .await;
    s.step("other", "GET", &format!("{path}/<first>"), None, "")
        .await;
    s.step(
        "demo",
        "GET",
        &format!("{path}?server_id={server}"),
        None,
        "",
    )
    .await;
    s.step(
        "demo",
        "GET",
        &format!("{path}?server_id={server}&limit=1&status=COMPLETE"),
        None,
        "",
    )
    .await;
    s.step(
        "demo",
        "GET",
        &format!("{path}?server_id={UNKNOWN_ID}"),
        None,
        "",
    )
    .await;
    s.step(
        "other",
        "GET",
        &format!("{path}?server_id={server}"),
        None,
        "",
    )
    .await;
    s.step(
        "demo",
        "GET",
        &format!("{path}/metadata/{server}"),
        None,
        "",
    )
    .await;
    s.step(
        "demo",
        "GET",
        &format!("{path}/metadata/{UNKNOWN_ID}"),
        None,
        "",
    )
    .await;
    s.step(
        "other",
        "GET",
        &format!("{path}/metadata/{server}"),
        None,
        "",
    )
    .await;
    s.step("demo", "GET", &format!("{path}/metadata"), None, "")
        .await;
    for body in [
        json!({"status": "IN_PROGRESS", "action": "UPDATE", "status_reason": "working"}),
        json!({"status": "COMPLETE", "status_reason": "Outputs received", "output_values": values}),
        json!({"output_values": {}}),
        json!({"output_values": null}),
        json!({"status": null, "status_reason": null, "action": ""}),
        json!({}),
        json!({"server_id": "elsewhere", "bogus": 1, "updated_at": "yesterday"}),
        json!({"status": "IN_PROGRESS"}),
        json!({"output_values": {"only": [1.5, "x"]}}),
        json!({"config_id": "<object>"}),
        json!({"config_id": UNKNOWN_ID}),
        json!("not json"),
    ] {
        s.step("demo", "PUT", &format!("{path}/<first>"), Some(body), "")
            .await;
    }
    s.step("demo", "PUT", &format!("{path}/<first>"), None, "")
        .await;
    s.step("demo", "GET", &format!("{path}/<first>"), None, "")
        .await;
    s.step(
        "other",
        "PUT",
        &format!("{path}/<first>"),
        Some(json!({"status": "COMPLETE"})),
        "",
    )
    .await;
    s.step(
        "reader",
        "PUT",
        &format!("{path}/<first>"),
        Some(json!({"status": "COMPLETE"})),
        "",
    )
    .await;
    s.step(
        "demo",
        "PUT",
        &format!("{path}/{UNKNOWN_ID}"),
        Some(json!({"status": "COMPLETE"})),
        "",
    )
    .await;
    s.step(
        "demo",
        "PATCH",
        &format!("{path}/<first>"),
        Some(json!({})),
        "",
    )
    .await;
    s.step(
        "demo",
        "POST",
        &format!("{path}/<first>"),
        Some(json!({})),
        "",
    )
    .await;

    // The end.
    s.step("demo", "DELETE", "/software_configs/<minimal>", None, "")
        .await;
    s.step("other", "DELETE", &format!("{path}/<first>"), None, "")
        .await;
    for id in ["first", "second", "odd", "list", "nullish"] {
        s.step("demo", "DELETE", &format!("{path}/<{id}>"), None, "")
            .await;
    }
    s.step("demo", "DELETE", &format!("{path}/<first>"), None, "")
        .await;
    s.step("demo", "GET", &format!("{path}/<first>"), None, "")
        .await;
    for id in ["full", "minimal", "empty", "nulls", "object"] {
        s.step(
            "demo",
            "DELETE",
            &format!("/software_configs/<{id}>"),
            None,
            "",
        )
        .await;
    }
    s.step("demo", "DELETE", "/software_configs/<full>", None, "")
        .await;
    s.step(
        "demo",
        "DELETE",
        &format!("/software_configs/{UNKNOWN_ID}"),
        None,
        "",
    )
    .await;
    s.step("nobody", "GET", "//", None, "").await;
    let mut all = s.transcript;
    all.extend(stack_transcript::transcript(s.users).await);
    all
}

/// Recorded transcript with one exchange per line.
const TRANSCRIPT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/fixtures/heat_transcript.jsonl"
);

/// Replaces the recorded transcript. Only the tests with real systems call it.
#[allow(dead_code)]
pub fn write_transcript(transcript: &[Value]) {
    let lines: String = transcript.iter().map(|e| format!("{e}\n")).collect();
    std::fs::write(TRANSCRIPT, lines).unwrap();
}

/// Reads the recorded transcript, whose lines must be as [`write_transcript`] writes
/// them, so that a new recording differs only where Heat does.
fn read_transcript() -> Vec<Value> {
    let text = std::fs::read_to_string(TRANSCRIPT).unwrap();
    let lines = text.lines().enumerate().map(|(i, line)| {
        let entry: Value =
            serde_json::from_str(line).unwrap_or_else(|e| panic!("{TRANSCRIPT}:{}: {e}", i + 1));
        assert_eq!(entry.to_string(), line, "{TRANSCRIPT}:{}", i + 1);
        entry
    });
    lines.collect()
}

/// Compares with the transcript of real Heat, entry by entry.
pub fn check_transcript(got: &[Value]) {
    let want = read_transcript();
    let mut differing = Vec::new();
    for (got, want) in got.iter().zip(&want) {
        if got != want {
            differing.push(format!("real Heat: {want:#}\nhere:      {got:#}"));
        }
    }
    assert!(
        differing.is_empty(),
        "{} differ:\n{}",
        differing.len(),
        differing.join("\n\n")
    );
    assert_eq!(got.len(), want.len());
}
