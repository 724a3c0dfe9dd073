//! The same suite against the sandbox and against real Heat.
//!
//! First plain REST: the responses to a script of requests must equal
//! `tests/fixtures/heat_transcript.jsonl`, which is recorded from real Heat, so a sandbox that
//! behaves differently fails the build. Then through the gateway: each read equals the
//! upstream's own response.

pub mod life;
mod stacks;

use std::collections::BTreeMap;

use bytes::Bytes;
use drawbridge::http_client::{Exchange, Transport};
use drawbridge::{credentials, upstream};
use http::{HeaderMap, HeaderValue, Method};
use serde_json::{Value, json};
use tonic::Code;

use super::Gateway;
use super::client::json as to_json;
use super::compare::differences;

/// A Heat and its Keystone.
#[derive(Clone)]
pub struct Place {
    /// Without the version: `http://127.0.0.1:18004`.
    pub heat: String,
    /// With the version: `http://127.0.0.1:15000/v3`.
    pub keystone: String,
    /// The password of all users.
    pub password: String,
}

/// A REST client that is logged in to a project.
pub struct Rest {
    transport: Transport,
    token: String,
    pub heat: String,
    pub project: String,
}

impl Rest {
    pub async fn login(place: &Place, user: &str, project: &str) -> Self {
        let transport =
            Transport::new(&super::upstream("t", "heat", &place.heat).transport).unwrap();
        let body = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": {
                "name": user, "domain": {"name": "Default"}, "password": place.password}}},
            "scope": {"project": {"name": project, "domain": {"name": "Default"}}}}});
        let reply = transport
            .exchange(Exchange {
                verb: Method::POST,
                url: format!("{}/auth/tokens", place.keystone).parse().unwrap(),
                headers: HeaderMap::from_iter([(
                    http::header::CONTENT_TYPE,
                    HeaderValue::from_static("application/json"),
                )]),
                body: Some(body.to_string().into()),
            })
            .await
            .unwrap();
        assert_eq!(reply.status, 201, "{:?}", reply.body);
        let grant: Value = serde_json::from_slice(&reply.body).unwrap();
        Self {
            transport,
            token: reply.headers["x-subject-token"]
                .to_str()
                .unwrap()
                .to_owned(),
            heat: place.heat.clone(),
            project: grant["token"]["project"]["id"].as_str().unwrap().to_owned(),
        }
    }

    /// Sends a request below `/v1/{project}`, or from the root where the path begins with `//`.
    /// Returns status, headers and body.
    pub async fn send(
        &self,
        verb: &str,
        path: &str,
        body: Option<&str>,
    ) -> (u16, HeaderMap, Value) {
        let url = match path.strip_prefix('/').filter(|p| p.starts_with('/')) {
            Some(root) => format!("{}{root}", self.heat),
            None => format!("{}/v1/{}{path}", self.heat, self.project),
        };
        let mut headers = HeaderMap::new();
        headers.insert("accept", HeaderValue::from_static("application/json"));
        if !self.token.is_empty() {
            headers.insert("x-auth-token", self.token.parse().unwrap());
        }
        if body.is_some() {
            headers.insert("content-type", HeaderValue::from_static("application/json"));
        }
        let reply = self
            .transport
            .exchange(Exchange {
                verb: verb.parse().unwrap(),
                url: url.parse().unwrap(),
                headers,
                body: body.map(|b| Bytes::copy_from_slice(b.as_bytes())),
            })
            .await
            .unwrap();
        let value = match serde_json::from_slice(&reply.body) {
            Ok(value) => value,
            Err(_) if reply.body.is_empty() => Value::Null,
            Err(_) => Value::from(String::from_utf8_lossy(&reply.body).into_owned()),
        };
        (reply.status.as_u16(), reply.headers, value)
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, _, body) = self.send("GET", path, None).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    pub async fn put(&self, path: &str, body: Value) -> Value {
        let (status, _, body) = self.send("PUT", path, Some(&body.to_string())).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }
}

/// A script of requests: the ids that it keeps, and the recorded exchanges.
struct Script {
    users: BTreeMap<&'static str, Rest>,
    names: BTreeMap<String, String>,
    transcript: Vec<Value>,
}

impl Script {
    /// Sends one request; `keep` names the id in the response.
    async fn step(&mut self, who: &str, verb: &str, path: &str, body: Option<Value>, keep: &str) {
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
        let (status, headers, answer) = self.users[who].send(verb, &filled, sent.as_deref()).await;
        if !keep.is_empty() {
            let id = answer
                .as_object()
                .and_then(|o| o.values().next())
                .and_then(|v| v["id"].as_str())
                .unwrap_or_else(|| panic!("{verb} {path}: no id in {answer}"));
            self.names.insert(keep.to_owned(), id.to_owned());
        }
        let request_id = headers
            .get("x-openstack-request-id")
            .is_some_and(|id| id.to_str().unwrap().starts_with("req-"));
        let mut entry = json!({
            "who": who, "request": format!("{verb} {path}"), "status": status,
            "request_id": request_id,
            "type": headers.get("content-type").map(|v| v.to_str().unwrap().split(';').next().unwrap()),
            "answer": self.tidy(&answer),
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

    /// Replaces ids by their names, and times by a word.
    fn tidy(&self, value: &Value) -> Value {
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
            Value::Array(items) => items.iter().map(|v| self.tidy(v)).collect(),
            Value::Object(members) => members
                .iter()
                .map(|(k, v)| (k.clone(), self.tidy(v)))
                .collect(),
            other => other.clone(),
        }
    }
}

const NOWHERE: &str = "00000000-0000-4000-8000-000000000000";

/// Runs the script, which deletes what it creates.
pub async fn transcript(place: &Place) -> Vec<Value> {
    let demo = Rest::login(place, "demo", "demo").await;
    let mut nobody = Rest::login(place, "demo", "demo").await;
    nobody.token = String::new();
    let mut forged = Rest::login(place, "demo", "demo").await;
    forged.token = "gAAAAA-forged".into();
    let mut strayed = Rest::login(place, "demo", "demo").await;
    let other = Rest::login(place, "other", "other").await;
    strayed.project = other.project.clone();
    let users = BTreeMap::from([
        ("demo", demo),
        ("other", other),
        ("reader", Rest::login(place, "reader", "demo").await),
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
    for who in ["nobody", "forged", "strayed"] {
        s.step(who, "GET", "/software_configs", None, "").await;
        s.step(
            who,
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
        Some(json!({"server_id": "x", "config_id": NOWHERE})),
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
        &format!("/software_configs/{NOWHERE}"),
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
        json!({"config_id": NOWHERE, "server_id": server}),
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
    s.step("demo", "GET", &format!("{path}/{NOWHERE}"), None, "")
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
        &format!("{path}?server_id={NOWHERE}"),
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
        &format!("{path}/metadata/{NOWHERE}"),
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
        json!({"config_id": NOWHERE}),
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
        &format!("{path}/{NOWHERE}"),
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
        &format!("/software_configs/{NOWHERE}"),
        None,
        "",
    )
    .await;
    s.step("nobody", "GET", "//", None, "").await;
    let mut all = s.transcript;
    all.extend(stacks::transcript(s.users).await);
    all
}

/// The recorded transcript: one exchange per line.
const TRANSCRIPT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/fixtures/heat_transcript.jsonl"
);

/// Replaces the recorded transcript. Only called with real Heat.
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

/// An upstream that logs in to Keystone and finds Heat's endpoint in the catalog.
pub fn before(place: &Place) -> upstream::Settings {
    let mut settings = super::upstream("heat", "heat", &place.heat);
    settings.endpoint = None;
    settings.project_id = None;
    let named = |name: &str| credentials::Named {
        id_or_name: credentials::IdOrName::Name(name.into()),
        domain: Some(credentials::IdOrName::Name("Default".into())),
    };
    settings.auth = credentials::Settings::Keystone(credentials::Keystone {
        auth_url: place.keystone.parse().unwrap(),
        identity: credentials::Identity::Password {
            user: named("demo"),
            password: place.password.as_str().into(),
        },
        project: Some(named("demo")),
        region: None,
        interface: "public".into(),
    });
    settings
}

const CONFIG: &str = "SoftwareConfigService";
const DEPLOYMENT: &str = "SoftwareDeploymentService";

/// Creates, changes and deletes configs and deployments through a gateway; each read is
/// compared with the upstream's own response.
pub async fn through_the_gateway(place: &Place) {
    let rest = Rest::login(place, "demo", "demo").await;
    let gateway = Gateway::with(vec![before(place)]).await;
    let client = &gateway.client;
    let same = |got: &prost_reflect::DynamicMessage, want: &Value, what: &str| {
        assert_eq!(differences(got, want), Vec::<String>::new(), "{what}");
    };
    let server = "22222222-2222-4333-8444-555555555555";

    let created = client
        .call(&format!("{CONFIG}/CreateSoftwareConfig"), json!({
            "name": "gw", "group": "script", "config": "echo hi\n",
            "inputs": [{"name": "n", "type": "SOFTWARE_CONFIG_IO_TYPE_NUMBER", "default": 5}, {"name": "l", "type": "SOFTWARE_CONFIG_IO_TYPE_COMMA_DELIMITED_LIST", "default": "a,b"}],
            "outputs": [{"name": "result"}], "options": {"k": [1, 2.5, null, {"x": false}]},
        }))
        .await
        .unwrap();
    let config = to_json(&created)["software_config"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let want = rest.get(&format!("/software_configs/{config}")).await;
    same(&created, &want, "create config");
    let got = client
        .call(
            &format!("{CONFIG}/GetSoftwareConfig"),
            json!({"config_id": config}),
        )
        .await
        .unwrap();
    same(&got, &want, "get config");
    let got = client
        .call(&format!("{CONFIG}/ListSoftwareConfigs"), json!({}))
        .await
        .unwrap();
    same(&got, &rest.get("/software_configs").await, "list configs");
    let got = client
        .call(
            &format!("{CONFIG}/ListSoftwareConfigs"),
            json!({"page_size": 0}),
        )
        .await
        .unwrap();
    same(
        &got,
        &rest.get("/software_configs?limit=0").await,
        "list no configs",
    );

    let created = client
        .call(
            &format!("{DEPLOYMENT}/CreateSoftwareDeployment"),
            json!({
                "config_id": config, "server_id": server, "action": "DEPLOYMENT_ACTION_CREATE",
                "status": "DEPLOYMENT_STATUS_IN_PROGRESS", "status_reason": "Deploy data available",
                "input_values": {"i": 7, "f": 1.5, "n": null, "l": [1, "two"], "u": "é日本\n"},
            }),
        )
        .await
        .unwrap();
    let id = to_json(&created)["software_deployment"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("/software_deployments/{id}");
    same(&created, &rest.get(&path).await, "create deployment");

    // Watched while it is changed at the upstream.
    let mut one = client
        .watch(
            &format!("{DEPLOYMENT}/WatchSoftwareDeployment"),
            json!({"deployment_id": id}),
            &[],
        )
        .await
        .unwrap();
    let mut all = client
        .watch(
            &format!("{DEPLOYMENT}/WatchSoftwareDeployments"),
            json!({"server_id": server}),
            &[],
        )
        .await
        .unwrap();
    let first = one.event().await;
    assert_eq!(
        first["software_deployment"]["status"],
        "DEPLOYMENT_STATUS_IN_PROGRESS"
    );
    assert_eq!(all.event().await["software_deployment"]["id"], json!(id));
    rest.put(
        &path,
        json!({"status": "COMPLETE", "status_reason": "Outputs received",
        "output_values": {"deploy_status_code": 0, "result": "done", "n": null, "f": 2.5}}),
    )
    .await;
    let last = one.event().await;
    assert_eq!(last["event"]["outcome"], "OUTCOME_SUCCEEDED");
    assert_eq!(
        last["software_deployment"]["output_values"],
        json!({"deploy_status_code": 0.0, "result": "done", "n": null, "f": 2.5})
    );
    assert!(one.next().await.is_none());
    let changed = all.event().await;
    assert_eq!(changed["event"]["type"], "WATCH_EVENT_TYPE_MODIFIED");

    let got = client
        .call(
            &format!("{DEPLOYMENT}/GetSoftwareDeployment"),
            json!({"deployment_id": id}),
        )
        .await
        .unwrap();
    same(&got, &rest.get(&path).await, "get deployment");
    let got = client
        .call(
            &format!("{DEPLOYMENT}/ListSoftwareDeployments"),
            json!({"server_id": server}),
        )
        .await
        .unwrap();
    same(
        &got,
        &rest
            .get(&format!("/software_deployments?server_id={server}"))
            .await,
        "list",
    );
    let got = client
        .call(
            &format!("{DEPLOYMENT}/ListServerDeploymentMetadata"),
            json!({"server_id": server}),
        )
        .await
        .unwrap();
    same(
        &got,
        &rest
            .get(&format!("/software_deployments/metadata/{server}"))
            .await,
        "metadata",
    );

    let got = client
        .call(
            &format!("{DEPLOYMENT}/UpdateSoftwareDeployment"),
            json!({
            "deployment_id": id, "status": "DEPLOYMENT_STATUS_FAILED", "status_reason": "boom",
            "output_values": {"deploy_status_code": "1"}}),
        )
        .await
        .unwrap();
    same(&got, &rest.get(&path).await, "update");

    // A config in use cannot be deleted.
    let status = client
        .call(
            &format!("{CONFIG}/DeleteSoftwareConfig"),
            json!({"config_id": config}),
        )
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    let delete = format!("{DEPLOYMENT}/DeleteSoftwareDeployment");
    let got = client
        .call(&delete, json!({"deployment_id": id}))
        .await
        .unwrap();
    assert_eq!(to_json(&got), json!({}));
    let removed = all.event().await;
    assert_eq!(removed["event"]["type"], "WATCH_EVENT_TYPE_DELETED");
    for rpc in ["GetSoftwareDeployment", "DeleteSoftwareDeployment"] {
        let status = client
            .call(&format!("{DEPLOYMENT}/{rpc}"), json!({"deployment_id": id}))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{status:?}");
    }
    client
        .call(
            &format!("{CONFIG}/DeleteSoftwareConfig"),
            json!({"config_id": config}),
        )
        .await
        .unwrap();
    gateway.running.stop().await.unwrap();
}
