//! The explorer of the admin listener: lists, descriptions, and calls through the gRPC listener.

use std::net::SocketAddr;
use std::time::Duration;

use drawbridge::config::{Config, Tls};
use serde_json::{Value, json};

use crate::admin_page::{Page, get, send};
use crate::support::recorder::{Answer, Recorder};
use crate::support::tls::rcgen_ca;
use crate::support::{Gateway, nowhere, settings, start, upstream};

const STACKS: &str = "openstack.orchestration.v1.StackService";
const CONFIGS: &str = "openstack.orchestration.v1.SoftwareConfigService";

/// Sends a call as the page does.
async fn call(admin: SocketAddr, call: &Value) -> Page {
    send_call(admin, &call.to_string()).await
}

async fn send_call(admin: SocketAddr, call: &str) -> Page {
    let headers = [
        ("content-type", "application/json"),
        ("x-drawbridge-page", "1"),
        ("sec-fetch-site", "same-origin"),
    ];
    send(admin, ("POST", "/api/call"), &headers, call).await
}

/// Returns the lines of a call.
fn lines(page: &Page) -> Vec<Value> {
    assert_eq!(page.status, 200, "{}", page.body);
    let lines = page.body.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn config(url: &str) -> Config {
    settings(vec![upstream("north", "heat", url)])
}

fn of_message(described: &Value, message: &str, field: &str) -> Value {
    let fields = described["messages"][message].as_array().unwrap().iter();
    let mut found = fields.filter(|one| one["proto"] == field);
    found
        .next()
        .unwrap_or_else(|| panic!("{message} has no {field}"))
        .clone()
}

#[tokio::test]
async fn methods_are_listed_with_their_comments() {
    let gateway = Gateway::start(config(&format!("http://{}", nowhere()))).await;
    let admin = gateway.running.admin.unwrap();
    let list = get(admin, "/api/services").await.json();
    let services = list["services"].as_array().unwrap();
    let service = |name: &str| services.iter().find(|one| one["name"] == name).unwrap();
    let stacks = service(STACKS);
    assert!(stacks["comment"].as_str().unwrap().len() > 20);
    let methods = stacks["methods"].as_array().unwrap();
    let method = |name: &str| methods.iter().find(|one| one["name"] == name).unwrap();
    assert_eq!(method("WatchStack")["kind"], "server_streaming");
    assert_eq!(method("GetStack")["kind"], "unary");
    assert_eq!(method("GetStack")["upstreams"], json!(["north"]));
    for each in services
        .iter()
        .flat_map(|one| one["methods"].as_array().unwrap())
    {
        assert_ne!(each["comment"], "", "{each}");
    }
    assert_eq!(
        service("drawbridge.v1.GatewayService")["methods"][0]["name"],
        "ListUpstreams"
    );
    let connection = &list["connection"];
    assert_eq!(connection["port"], gateway.running.grpc.port());
    assert_eq!(
        (&connection["has_tls"], &connection["problem"]),
        (&json!(false), &Value::Null)
    );
}

#[tokio::test]
async fn request_is_described_with_all_that_it_refers_to() {
    let gateway = Gateway::start(config(&format!("http://{}", nowhere()))).await;
    let admin = gateway.running.admin.unwrap();
    let described = async |name: &str| get(admin, &format!("/api/method?name={name}")).await;
    let create = described(&format!("{STACKS}/CreateStack")).await.json();
    let message = "openstack.orchestration.v1.CreateStackRequest";
    assert_eq!(create["input"], message);
    let name = of_message(&create, message, "stack_name");
    assert_eq!(
        (&name["name"], &name["type"]),
        (&json!("stackName"), &json!("string"))
    );
    assert_eq!(name["required"], true);
    assert!(
        name["comment"]
            .as_str()
            .unwrap()
            .starts_with("Name of the stack")
    );
    assert!(!name["comment"].as_str().unwrap().contains("\n "));
    assert_eq!(
        of_message(&create, message, "template")["oneof"],
        "template_as"
    );
    let parameters = of_message(&create, message, "parameters");
    assert_eq!(parameters["type"]["message"], "google.protobuf.Struct");
    let files = of_message(&create, message, "files");
    assert_eq!(
        [&files["label"], &files["key"], &files["type"]],
        ["map", "string", "string"]
    );
    assert_eq!(of_message(&create, message, "tags")["label"], "repeated");
    assert_eq!(
        of_message(&create, message, "disable_rollback")["label"],
        "optional"
    );
    // Nested messages and enums, for each method of the contract.
    let list = get(admin, "/api/services").await.json();
    let mut enums = 0;
    for service in list["services"].as_array().unwrap() {
        let methods = service["methods"].as_array().unwrap();
        for method in methods {
            let name = format!(
                "{}/{}",
                service["name"].as_str().unwrap(),
                method["name"].as_str().unwrap()
            );
            let described = described(&name).await.json();
            for fields in described["messages"].as_object().unwrap().values() {
                for field in fields.as_array().unwrap() {
                    if let Some(nested) = field["type"]["message"].as_str()
                        && !nested.starts_with("google.protobuf.")
                    {
                        assert!(described["messages"][nested].is_array(), "{name}: {nested}");
                    }
                    if let Some(of) = field["type"]["enum"].as_str() {
                        enums += 1;
                        assert!(described["enums"][of].is_array(), "{name}: {of}");
                    }
                }
            }
        }
    }
    assert!(enums > 0);
    assert_eq!(described("a.B/C").await.status, 404);
    // In the descriptor sets, and not served: its family has no upstream.
    assert_eq!(
        described("hitachi.automation.v1.TaskService/ListTask")
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn call_is_that_of_any_client() {
    let recorder = Recorder::start(|seen| match seen.path() {
        path if path.ends_with("/software_configs/none") => Answer::json(
            404,
            &json!({"error": {"type": "EntityNotFound", "message": "no none"}}),
        ),
        _ => Answer::json(
            200,
            &json!({"software_config": {"id": "c1", "name": "x", "config": "y"}}),
        ),
    })
    .await;
    let mut config = config(&recorder.url());
    config.client_tokens = vec!["a-token-of-a-client".into()];
    let gateway = Gateway::start(config).await;
    let admin = gateway.running.admin.unwrap();
    let method = format!("{CONFIGS}/GetSoftwareConfig");
    let get_config = |id: &str, metadata: Value| json!({"method": method, "messages": [{"configId": id}], "metadata": metadata});
    let token = ["drawbridge-token", "a-token-of-a-client"];

    let answer = lines(&call(admin, &get_config("c1", json!([]))).await);
    assert_eq!(answer[0]["status"]["code"], "UNAUTHENTICATED");
    assert!(
        recorder.take().is_empty(),
        "the page has no credentials of its own"
    );

    let with_id = json!([token, ["X-Request-Id", "r-9"], ["x-note-bin", "AAE="]]);
    let answer = lines(&call(admin, &get_config("c1", with_id)).await);
    assert_eq!(answer.len(), 3, "{answer:?}");
    assert!(answer[0]["metadata"].is_array());
    assert_eq!(answer[1]["message"]["softwareConfig"]["id"], "c1");
    assert_eq!(answer[2]["status"]["code"], "OK");
    let seen = recorder.take();
    assert_eq!(seen.len(), 1);
    for header in ["origin", "x-drawbridge-page", "drawbridge-token"] {
        assert_eq!(seen[0].header(header), "", "{header}");
    }

    let answer = lines(&call(admin, &get_config("none", json!([token]))).await);
    let status = &answer[0]["status"];
    assert_eq!(
        (&status["code"], &status["number"]),
        (&json!("NOT_FOUND"), &json!(5))
    );
    let details = status["details"].as_array().unwrap().iter();
    let info = details
        .into_iter()
        .find(|one| one["@type"] == "type.googleapis.com/google.rpc.ErrorInfo");
    let info = info.unwrap();
    assert_eq!(info["metadata"]["upstream"], "north");
    assert_eq!(info["metadata"]["sent"], "true");

    // Rejected by the rules of the rpc: with violations.
    let answer = lines(&call(admin, &get_config("", json!([token]))).await);
    let text = answer[0]["status"]["details"].to_string();
    assert!(
        text.contains("fieldViolations") && text.contains("config_id"),
        "{text}"
    );

    let short = json!({"method": method, "messages": [{"configId": "c1"}], "metadata": [token], "timeout_ms": 0});
    let answer = lines(&call(admin, &short).await);
    assert_eq!(answer[0]["status"]["code"], "DEADLINE_EXCEEDED");

    // All of them were counted as calls.
    let status = get(admin, "/api/status").await.json();
    assert_eq!(status["upstreams"][0]["calls"]["OK"], 1);
    assert_eq!(status["calls"]["NOT_FOUND"], 1);
    assert_eq!(status["gateway"]["unauthenticated"], 1);
}

#[tokio::test]
async fn invalid_call_is_not_made() {
    let recorder = Recorder::fixed(Answer::json(200, &json!({}))).await;
    let gateway = Gateway::start(config(&recorder.url())).await;
    let admin = gateway.running.admin.unwrap();
    let method = format!("{CONFIGS}/GetSoftwareConfig");
    for (request, status, want) in [
        (
            json!({"method": method, "messages": [{"configID": "c"}]}),
            400,
            "configID",
        ),
        (
            json!({"method": method, "messages": [{"configId": 7}]}),
            400,
            "string",
        ),
        (
            json!({"method": method, "messages": []}),
            400,
            "one message",
        ),
        (
            json!({"method": method, "messages": [{}, {}]}),
            400,
            "one message",
        ),
        (json!({"messages": [{}]}), 400, "method"),
        (
            json!({"method": "a.B/C", "messages": [{}]}),
            404,
            "does not serve a.B",
        ),
        (
            json!({"method": "grpc.health.v1.Health/Check", "messages": [{}]}),
            404,
            "this page does not serve grpc.health.v1.Health",
        ),
        (
            json!({"method": format!("{CONFIGS}/GetSoftwareConfg"), "messages": [{}]}),
            404,
            "did you mean GetSoftwareConfig?",
        ),
        (
            json!({"method": method, "messages": [{}], "metadata": [["grpc-timeout", "1S"]]}),
            400,
            "grpc-timeout",
        ),
        (
            json!({"method": method, "messages": [{}], "metadata": [["a b", "c"]]}),
            400,
            "a b",
        ),
        (
            json!({"method": method, "messages": [{}], "metadata": [["a", "b\nc"]]}),
            400,
            "a",
        ),
        (
            json!({"method": method, "messages": [{}], "metadata": [["a-bin", "?"]]}),
            400,
            "base64",
        ),
        (
            json!({"method": method, "messages": [{}], "timeout_ms": u64::MAX}),
            400,
            "deadline",
        ),
    ] {
        let page = call(admin, &request).await;
        let error = page.json()["error"].as_str().unwrap_or_default().to_owned();
        assert_eq!(page.status, status, "{request}: {error}");
        assert!(error.contains(want), "{request}: {error}");
    }
    // As Connect: what would be lost is rejected.
    let twice =
        format!(r#"{{"method": "{method}", "messages": [{{"configId": "c", "config_id": "d"}}]}}"#);
    let page = send_call(admin, &twice).await;
    let error = &page.json()["error"];
    let want = json!("config_id: the field is there twice");
    assert_eq!((page.status, error), (400, &want));
    let json_type = ("content-type", "application/json");
    let valid = json!({"method": method, "messages": [{"configId": "c"}]}).to_string();
    for headers in [
        &[json_type][..],
        &[("x-drawbridge-page", "1"), ("content-type", "text/plain")],
        &[
            ("x-drawbridge-page", "1"),
            json_type,
            ("origin", "http://attacker.test"),
        ],
        &[
            ("x-drawbridge-page", "1"),
            json_type,
            ("sec-fetch-site", "cross-site"),
        ],
        &[
            ("x-drawbridge-page", "1"),
            json_type,
            ("host", "attacker.test"),
        ],
    ] {
        let page = send(admin, ("POST", "/api/call"), headers, &valid).await;
        assert!(
            [403, 415].contains(&page.status),
            "{headers:?}: {}",
            page.status
        );
    }
    assert!(recorder.take().is_empty());
}

/// Whatever is wrong, the page and scripts get JSON with a text.
#[tokio::test]
async fn every_problem_is_json() {
    let gateway = Gateway::start(config(&format!("http://{}", nowhere()))).await;
    let admin = gateway.running.admin.unwrap();
    for (method, path, status, want) in [
        ("GET", "/api/method", 400, "/api/method?name="),
        ("GET", "/api/method?x=y", 400, "/api/method?name="),
        ("GET", "/api/method?name=x", 404, "not the path of an rpc"),
        (
            "GET",
            "/api/method?name=StackServise/GetStack",
            404,
            "did you mean openstack.orchestration.v1.StackService?",
        ),
        (
            "GET",
            "/api/method?name=openstack.orchestration.v1.StackService/GetStak",
            404,
            "did you mean GetStack?",
        ),
        ("GET", "/api/call", 405, "POST"),
        ("POST", "/api/status", 405, "GET"),
        ("POST", "/api/services", 405, "GET"),
        ("GET", "/api/stats", 404, "/api/status"),
    ] {
        let headers = [
            ("content-type", "application/json"),
            ("x-drawbridge-page", "1"),
        ];
        let page = send(admin, (method, path), &headers, "").await;
        let error = page.json()["error"].as_str().unwrap_or_default().to_owned();
        assert_eq!(page.status, status, "{method} {path}: {error}");
        assert!(error.contains(want), "{method} {path}: {error}");
    }
}

/// Requests of visitors and the messages that they are shown draw from the memory budget.
#[tokio::test]
async fn calls_of_visitors_draw_from_the_memory_budget() {
    let long = "long ".repeat(200_000);
    let body = json!({"software_config": {"id": "c", "name": "n", "config": long}});
    let recorder = Recorder::fixed(Answer::json(200, &body)).await;
    let setting = "server.max_memory_bytes";
    for (max_memory_bytes, blanks, want, calls) in [
        (256 << 20, 1_000_000, "\"OK\"", json!({"OK": 1})),
        // Without memory for the request, the call is not made.
        (8 << 20, 1_000_000, setting, json!({})),
        // The gateway has memory for the response, and the page has none.
        (12 << 20, 0, setting, json!({"OK": 1})),
    ] {
        let mut config = config(&recorder.url());
        config.server.max_memory_bytes = Some(max_memory_bytes);
        let gateway = Gateway::start(config).await;
        let admin = gateway.running.admin.unwrap();
        let method = format!("{CONFIGS}/GetSoftwareConfig");
        let metadata = json!([["x-blank", " ".repeat(blanks)]]);
        let request =
            json!({"method": method, "messages": [{"configId": "c"}], "metadata": metadata});
        let page = call(admin, &request).await;
        assert!(page.body.contains(want), "{blanks}: {:.300}", page.body);
        let is_shown = page.body.contains("long long");
        assert_eq!(is_shown, want != setting, "{blanks}: {:.300}", page.body);
        let status = get(admin, "/api/status").await.json();
        assert_eq!(status["calls"], calls, "{blanks}");
    }
}

/// The lines of a response that goes on.
type OpenLines = tokio::io::Lines<tokio::io::BufReader<tokio::net::TcpStream>>;

/// Opens a stream, and reads up to its first message.
async fn open_stream(admin: SocketAddr, request: &str) -> OpenLines {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    let mut stream = tokio::net::TcpStream::connect(admin).await.unwrap();
    let head = format!(
        "POST /api/call HTTP/1.1\r\nhost: {admin}\r\ncontent-type: application/json\r\n\
         x-drawbridge-page: 1\r\ncontent-length: {}\r\n\r\n{request}",
        request.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    while !lines
        .next_line()
        .await
        .unwrap()
        .unwrap()
        .contains("INITIAL")
    {}
    lines
}

#[tokio::test]
async fn stream_arrives_line_by_line_and_ends_with_its_reader() {
    let recorder = Recorder::fixed(Answer::json(
        200,
        &json!({"software_deployment": {"id": "d1", "status": "IN_PROGRESS"}}),
    ))
    .await;
    let gateway = Gateway::start(config(&recorder.url())).await;
    let admin = gateway.running.admin.unwrap();
    let request = json!({
        "method": "openstack.orchestration.v1.SoftwareDeploymentService/WatchSoftwareDeployment",
        "messages": [{"deploymentId": "d1"}],
    })
    .to_string();
    let lines = open_stream(admin, &request).await;
    let open = async || get(admin, "/api/status").await.json()["watches"]["streams"].clone();
    assert_eq!(open().await, 1);
    let mut others = Vec::new();
    for _ in 1..16 {
        others.push(open_stream(admin, &request).await);
    }
    let one_more = send_call(admin, &request).await;
    assert_eq!(one_more.status, 429, "{}", one_more.body);
    drop((lines, others));
    while open().await != 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn call_passes_tls_but_not_the_requirement_of_a_client_certificate() {
    let recorder =
        Recorder::fixed(Answer::json(200, &json!({"software_config": {"id": "c1"}}))).await;
    let ca = rcgen_ca();
    let (certificate, key) = ca.issue("localhost");
    for (client_ca, host) in [
        (None, [127, 0, 0, 1]),
        (Some(()), [127, 0, 0, 1]),
        (None, [0, 0, 0, 0]),
    ] {
        let mut config = config(&recorder.url());
        config.listen = (host, 0).into();
        config.tls = Some(Tls {
            certificate: certificate.clone().into(),
            key: key.clone().into(),
            client_ca: client_ca.map(|()| ca.pem.clone().into()),
        });
        config.server.health_check_interval = Duration::ZERO;
        let running = start(config).await.unwrap();
        let admin = running.admin.unwrap();
        let request = json!({"method": format!("{CONFIGS}/GetSoftwareConfig"), "messages": [{"configId": "c1"}]});
        let page = call(admin, &request).await;
        match client_ca {
            None => assert_eq!(lines(&page)[2]["status"]["code"], "OK", "{host:?}"),
            Some(()) => {
                assert_eq!(page.status, 403);
                assert!(page.body.contains("client certificate"), "{}", page.body);
            }
        }
    }
}

/// Else a page for everyone would open a gRPC listener that is for this machine.
#[tokio::test]
async fn page_beyond_loopback_does_not_open_a_listener_on_loopback() {
    let recorder =
        Recorder::fixed(Answer::json(200, &json!({"software_config": {"id": "c1"}}))).await;
    for (token, want) in [(None, 403), (Some("a-token-of-a-client"), 200)] {
        let mut config = config(&recorder.url());
        config.admin = Some(([0, 0, 0, 0], 0).into());
        config.admin_page = Some(true);
        config.client_tokens = token.into_iter().map(Into::into).collect();
        let running = start(config).await.unwrap();
        let admin = SocketAddr::from(([127, 0, 0, 1], running.admin.unwrap().port()));
        let request = json!({"method": format!("{CONFIGS}/GetSoftwareConfig"), "messages": [{"configId": "c1"}]});
        assert_eq!(call(admin, &request).await.status, want);
    }
    assert!(recorder.take().is_empty());
}
