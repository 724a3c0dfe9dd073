//! Tests that run against the sandbox and against real Heat.
//!
//! The transcript is REST only: the responses to a script of requests must equal
//! `tests/fixtures/heat_transcript.jsonl`, which was recorded from real Heat. It fails where
//! the sandbox deviates. The other tests run through a gateway and compare every read with
//! the response of the upstream itself.

pub mod stack_lifecycle;
mod stack_transcript;
pub mod transcript;

use bytes::Bytes;
use drawbridge::http_client::{HttpRequest, Transport};
use drawbridge::{credentials, upstream};
use http::{HeaderMap, HeaderValue, Method};
use serde_json::{Value, json};
use tonic::Code;

use super::Gateway;
use super::client::json as to_json;
use super::compare::differences;

/// URLs and password of a Heat and its Keystone.
#[derive(Clone)]
pub struct HeatTarget {
    /// URL without the version: `http://127.0.0.1:18004`.
    pub heat: String,
    /// URL with the version: `http://127.0.0.1:15000/v3`.
    pub keystone: String,
    /// Password of all users.
    pub password: String,
}

/// REST client with the token of a user for a project.
pub struct Rest {
    transport: Transport,
    token: String,
    pub heat: String,
    pub project: String,
}

impl Rest {
    pub async fn login(target: &HeatTarget, user: &str, project: &str) -> Self {
        let transport =
            Transport::new(&super::upstream("t", "heat", &target.heat).transport).unwrap();
        let body = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": {
                "name": user, "domain": {"name": "Default"}, "password": target.password}}},
            "scope": {"project": {"name": project, "domain": {"name": "Default"}}}}});
        let reply = transport
            .exchange(HttpRequest {
                verb: Method::POST,
                url: format!("{}/auth/tokens", target.keystone).parse().unwrap(),
                headers: HeaderMap::from_iter([(
                    http::header::CONTENT_TYPE,
                    HeaderValue::from_static("application/json"),
                )]),
                body: Some(body.to_string().into()),
                memory: Default::default(),
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
            heat: target.heat.clone(),
            project: grant["token"]["project"]["id"].as_str().unwrap().to_owned(),
        }
    }

    /// Sends a request to a path below `/v1/{project}`, or below the root if the path
    /// begins with `//`. Returns status, headers and body.
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
            .exchange(HttpRequest {
                verb: verb.parse().unwrap(),
                url: url.parse().unwrap(),
                headers,
                body: body.map(|b| Bytes::copy_from_slice(b.as_bytes())),
                memory: Default::default(),
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

/// Settings of an upstream that logs in at Keystone and takes the endpoint from the catalog.
pub fn gateway_settings(target: &HeatTarget) -> upstream::Settings {
    let mut settings = super::upstream("heat", "heat", &target.heat);
    settings.endpoint = None;
    settings.project_id = None;
    let named = |name: &str| credentials::Named {
        id_or_name: credentials::IdOrName::Name(name.into()),
        domain: Some(credentials::IdOrName::Name("Default".into())),
    };
    settings.auth = credentials::Settings::Keystone(credentials::Keystone {
        auth_url: target.keystone.parse().unwrap(),
        identity: credentials::Identity::Password {
            user: named("demo"),
            password: target.password.as_str().into(),
        },
        project: Some(named("demo")),
        region: None,
        interfaces: vec!["public".into()],
    });
    settings
}

const CONFIG: &str = "SoftwareConfigService";
const DEPLOYMENT: &str = "SoftwareDeploymentService";

/// Creates, updates and deletes configs and deployments through a gateway and compares
/// every read with the upstream's response.
pub async fn configs_and_deployments(target: &HeatTarget) {
    let rest = Rest::login(target, "demo", "demo").await;
    let gateway = Gateway::with(vec![gateway_settings(target)]).await;
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

    // Watched, while it is changed straight at the upstream.
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

    // A config in use cannot go.
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
