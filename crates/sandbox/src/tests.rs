mod replay;
mod servicestage;
mod stacks;

use std::net::SocketAddr;

use super::*;
use serde_json::{Value, json};
use tower::ServiceExt;

/// A sandbox without a socket.
struct TestSandbox {
    upstreams: Arc<Upstreams>,
}

struct TestResponse {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl TestResponse {
    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

const TEST_SETTINGS: Settings = Settings {
    step: Duration::from_secs(2),
    token_ttl: Duration::from_secs(3600),
    play: false,
    preload: false,
    jp1ao: Jp1aoOptions {
        version: Jp1aoVersion::V12,
        compact_offsets: false,
        schema_envelope: false,
        links: Jp1aoLinks::Spaced,
        nested_parameters: false,
        reset_envelope: false,
        submitted: Jp1aoSubmitted::TaskAndSchedule,
    },
    adopt_and_abandon: false,
    stack_quota: 512,
    events_kept: 1_000,
};

impl TestSandbox {
    fn new(settings: Settings) -> Self {
        Self {
            upstreams: Arc::new(Upstreams::new("http://127.0.0.1:1".to_owned(), settings)),
        }
    }

    async fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> TestResponse {
        let mut request = http::Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.header("content-length", body.len());
        }
        let request = request
            .body(Body::from(body.unwrap_or_default().to_owned()))
            .unwrap();
        let response = router(self.upstreams.clone())
            .oneshot(request)
            .await
            .unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap();
        let body = match bytes.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&bytes).unwrap(),
        };
        TestResponse {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
        }
    }

    async fn call(&self, token: &str, method: &str, target: &str, body: Value) -> TestResponse {
        let text = (!body.is_null()).then(|| body.to_string());
        self.send(method, target, &[("x-auth-token", token)], text.as_deref())
            .await
    }

    async fn login(&self, user: &str, project: Option<&str>) -> String {
        let user = json!({"name": user, "domain": {"name": DOMAIN}, "password": PASSWORD});
        let mut auth = json!({"identity": {"methods": ["password"], "password": {"user": user}}});
        if let Some(id) = project {
            auth["scope"] = json!({"project": {"id": id}});
        }
        self.token_of(json!({"auth": auth})).await
    }

    async fn token_of(&self, body: Value) -> String {
        let got = self
            .call("", "POST", "/identity/v3/auth/tokens", body)
            .await;
        assert_eq!(got.status, 201, "{}", got.body);
        got.header("x-subject-token").to_owned()
    }

    async fn demo(&self) -> String {
        self.login(USERNAME, Some(PROJECT_ID)).await
    }
}

fn heat(rest: &str) -> String {
    format!("/v1/{PROJECT_ID}/{rest}")
}

#[tokio::test]
async fn public_listen_address_is_rejected() {
    let listen: SocketAddr = "0.0.0.0:0".parse().unwrap();
    let refused = Sandbox::start(listen, Settings::default())
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("loopback"), "{refused}");
}

#[tokio::test]
async fn stop_closes_the_listener() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let sandbox = Sandbox::start("127.0.0.1:0".parse().unwrap(), Settings::default())
        .await
        .unwrap();
    let addr = sandbox.addr;
    let mut socket = tokio::net::TcpStream::connect(addr).await.unwrap();
    let request = "GET /healthcheck?a=%20b HTTP/1.1\r\nHost: x\r\nX-Auth-Token: geheim\r\nConnection: close\r\n\r\n";
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    socket.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 200 OK"), "{response}");
    let seen = sandbox.requests();
    assert_eq!(seen[0].path_and_query, "/healthcheck?a=%20b");
    assert_eq!(seen[0].headers["x-auth-token"], "***");
    assert_eq!((sandbox.request_count(), sandbox.login_count()), (1, 0));
    assert!(!format!("{sandbox:?}{seen:?}").contains("geheim"));
    sandbox.stop().await;
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn tokens_expire_and_are_rescoped_and_revoked() {
    let sandbox = TestSandbox::new(TEST_SETTINGS);
    let token = sandbox.demo().await;
    tokio::time::advance(Duration::from_secs(3599)).await;
    // Exchanging a token keeps the expiry (docs/apis/heat.md, "Keystone v3").
    let again = sandbox
        .token_of(json!({"auth": {
            "identity": {"methods": ["token"], "token": {"id": token}},
            "scope": {"project": {"id": PROJECT_ID}},
        }}))
        .await;
    assert_eq!(
        sandbox
            .call(&again, "GET", &heat("software_configs"), Value::Null)
            .await
            .status,
        200
    );
    tokio::time::advance(Duration::from_secs(1)).await;
    for token in [token, again] {
        let got = sandbox
            .call(&token, "GET", &heat("software_configs"), Value::Null)
            .await;
        assert_eq!(got.status, 401);
        assert!(got.header("www-authenticate").starts_with("Keystone uri="));
    }
    let token = sandbox.demo().await;
    let headers = [
        ("x-auth-token", token.as_str()),
        ("x-subject-token", token.as_str()),
    ];
    let shown = sandbox
        .send("GET", "/identity/v3/auth/tokens", &headers, None)
        .await;
    assert_eq!(shown.body["token"]["project"]["id"], PROJECT_ID);
    assert_eq!(
        sandbox
            .send("DELETE", "/identity/v3/auth/tokens", &headers, None)
            .await
            .status,
        204
    );
    assert_eq!(
        sandbox
            .send("GET", "/identity/v3/auth/tokens", &headers, None)
            .await
            .status,
        401
    );
}

#[tokio::test]
async fn unscoped_tokens_are_forbidden() {
    let sandbox = TestSandbox::new(TEST_SETTINGS);
    let token = sandbox.login(USERNAME, None).await;
    let got = sandbox
        .call(&token, "GET", &heat("software_configs"), Value::Null)
        .await;
    assert_eq!(
        (got.status, &got.body["error"]["type"]),
        (403, &json!("HTTPForbidden"))
    );
}

#[tokio::test]
async fn heat_routing_and_body_errors() {
    let sandbox = TestSandbox::new(TEST_SETTINGS);
    let token = sandbox.demo().await;
    for (method, path, status) in [
        ("GET", "/".to_owned(), 300),
        ("GET", "/v9/x".to_owned(), 300),
        ("GET", "/healthcheck".to_owned(), 200),
        ("GET", "/v1/".to_owned(), 404),
        ("HEAD", heat("software_configs"), 405),
        ("OPTIONS", heat("software_configs"), 204),
        ("GET", heat("software_configs/"), 404),
        ("GET", heat("nothing"), 404),
        ("GET", heat("software_configs/a%2Fb"), 404),
        ("GET", heat("software_configs?global_tenant=maybe"), 400),
        ("GET", heat("software_configs?limit="), 200),
        ("GET", heat("software_configs?limit=+1"), 400),
        ("GET", heat("software_deployments?server_id="), 200),
        ("GET", heat("stacks"), 200),
    ] {
        let got = sandbox.call(&token, method, &path, Value::Null).await;
        assert_eq!(got.status, status, "{method} {path}: {}", got.body);
        assert!(
            got.header("x-openstack-request-id").starts_with("req-"),
            "{path}"
        );
    }
    // A body without a length is ignored, and so is one with a leading space.
    let headers = [("x-auth-token", token.as_str())];
    for body in [" {}", "[]", "\"{}\""] {
        let got = sandbox
            .send("POST", &heat("software_configs"), &headers, Some(body))
            .await;
        assert_eq!(got.status, 400, "{body}");
    }
    let used = sandbox
        .call(&token, "POST", &heat("software_configs"), json!({}))
        .await;
    let config = used.body["software_config"]["id"].as_str().unwrap();
    let server = json!({"config_id": config, "server_id": "s"});
    assert_eq!(
        sandbox
            .call(
                &token,
                "POST",
                &heat("software_deployments"),
                server.clone()
            )
            .await
            .status,
        200
    );
    let got = sandbox
        .call(
            &token,
            "DELETE",
            &heat(&format!("software_configs/{config}")),
            Value::Null,
        )
        .await;
    assert_eq!(
        (got.status, &got.body["error"]["type"]),
        (500, &json!("InvalidRestrictedAction"))
    );
    let mut long = server;
    long["stack_user_project_id"] = json!("x".repeat(65));
    let got = sandbox
        .call(&token, "POST", &heat("software_deployments"), long)
        .await;
    assert_eq!(
        (got.status, &got.body["error"]["type"]),
        (400, &json!("Invalid"))
    );
}

#[tokio::test(start_paused = true)]
async fn deployments_complete_by_themselves() {
    let sandbox = TestSandbox::new(Settings {
        play: true,
        ..TEST_SETTINGS
    });
    let token = sandbox.demo().await;
    let make = async |config: Value, inputs: Value| {
        let config = sandbox
            .call(&token, "POST", &heat("software_configs"), config)
            .await;
        let body = json!({
            "config_id": config.body["software_config"]["id"], "server_id": "s", "status": "IN_PROGRESS",
            "input_values": inputs,
        });
        let made = sandbox
            .call(&token, "POST", &heat("software_deployments"), body)
            .await;
        made.body["software_deployment"]["id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let outputs = json!([{"name": "result"}, {"name": "err", "error_output": true}]);
    let well = make(json!({"outputs": outputs}), json!({})).await;
    let script = make(json!({"config": "#!/bin/sh\nexit 1\n"}), json!({})).await;
    let asked = make(json!({}), json!({"fail": true})).await;
    let lazy = make(
        json!({}),
        json!({"deploy_signal_transport": "TEMP_URL_SIGNAL"}),
    )
    .await;
    let taken = make(json!({}), json!({})).await;
    let path = |id: &str| heat(&format!("software_deployments/{id}"));
    let working = json!({"status": "IN_PROGRESS", "status_reason": "by hand"});
    assert_eq!(
        sandbox
            .call(&token, "PUT", &path(&taken), working)
            .await
            .status,
        200
    );
    let statuses = async || {
        let list = sandbox
            .call(&token, "GET", &heat("software_deployments"), Value::Null)
            .await;
        let found = list.body["software_deployments"]
            .as_array()
            .unwrap()
            .clone();
        found
            .iter()
            .map(|found| found["status"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    tokio::time::advance(Duration::from_millis(1999)).await;
    assert_eq!(statuses().await, ["IN_PROGRESS"; 5]);
    tokio::time::advance(Duration::from_millis(1)).await;
    let want = ["COMPLETE", "FAILED", "FAILED", "IN_PROGRESS", "IN_PROGRESS"];
    assert_eq!(
        statuses().await,
        want,
        "a list does not fetch what lies in Swift"
    );
    let show = async |id: &str| {
        sandbox
            .call(&token, "GET", &path(id), Value::Null)
            .await
            .body["software_deployment"]
            .clone()
    };
    assert_eq!(show(&lazy).await["status"], "COMPLETE");
    assert_eq!(show(&taken).await["status"], "IN_PROGRESS");
    let well = show(&well).await;
    assert_eq!(well["status_reason"], "Outputs received");
    assert_eq!(
        well["output_values"],
        json!({"result": "result of s", "deploy_stdout": "Deployed to s\n", "deploy_stderr": "", "deploy_status_code": 0})
    );
    assert!(well["updated_time"].is_string());
    for id in [script, asked] {
        let failed = show(&id).await;
        let reason = "deploy_status_code : Deployment exited with non-zero status code: 1";
        assert_eq!(
            (
                &failed["status_reason"],
                &failed["output_values"]["deploy_status_code"]
            ),
            (&json!(reason), &json!(1))
        );
    }
}

#[tokio::test]
async fn preloaded_objects_exist_at_start() {
    let sandbox = TestSandbox::new(Settings::default());
    let token = sandbox.demo().await;
    let path = heat(&format!("software_deployments?server_id={SERVER_ID}"));
    let list = sandbox.call(&token, "GET", &path, Value::Null).await;
    let found = &list.body["software_deployments"][0];
    assert_eq!(found["status"], "COMPLETE");
    let config = heat(&format!(
        "software_configs/{}",
        found["config_id"].as_str().unwrap()
    ));
    assert_eq!(
        sandbox
            .call(&token, "GET", &config, Value::Null)
            .await
            .status,
        200
    );
}
