use super::*;

/// The request of `tests/seeds/5-jp1ao-service-release.json`, byte by byte: its
/// document has 175 bytes.
#[tokio::test]
async fn release_document_has_the_length_of_the_example() {
    let client = TestClient::with(Jp1aoOptions {
        links: Jp1aoLinks::Plain,
        ..Jp1aoOptions::default()
    });
    let got = client.get("Services/2004/actions/release").await;
    assert_eq!(got.bytes.len(), 175);
    let basic = client.basic();
    assert_eq!(basic, "Basic c3lzdGVtOm1hbmFnZXI=", "the seed's own login");
    let headers = [
        ("authorization", basic.as_str()),
        ("user-agent", "curl/7.36.0"),
        ("host", "10.196.184.182:22015"),
        ("accept", "application/json"),
        ("content-type", "application/json"),
        ("content-length", "175"),
        ("accept-language", "ja"),
    ];
    let path = "/Automation/v1/objects/Services/2004/actions/release/invoke";
    let done = client.raw("POST", path, &headers, got.bytes).await;
    assert_eq!(done.status, 200);
    let members: Vec<&str> = done
        .body
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        members,
        [
            "instanceID",
            "created",
            "updated",
            "completed",
            "state",
            "affectedResource",
            "result"
        ]
    );
    for (name, want) in [
        ("server", "Cosminexus HTTP Server"),
        ("access-control-expose-headers", "WWW-Authenticate"),
        ("access-control-allow-origin", "*"),
        (
            "access-control-allow-methods",
            "GET, POST, DELETE, PUT, HEAD, OPTIONS",
        ),
        ("access-control-allow-credentials", "true"),
        ("cache-control", "no-cache"),
        ("content-type", "application/json"),
    ] {
        assert_eq!(done.header(name), want, "{name}");
    }
    let token = done
        .header("www-authenticate")
        .strip_prefix("HSSO ")
        .unwrap()
        .to_owned();
    assert!(
        token.ends_with("_V0810") && token.find('_') == Some(40),
        "{token}"
    );
}

#[tokio::test]
async fn all_options_change_the_output() {
    let options = Jp1aoOptions {
        compact_offsets: true,
        schema_envelope: true,
        links: Jp1aoLinks::Portless,
        nested_parameters: true,
        reset_envelope: true,
        submitted: Jp1aoSubmitted::Schedule,
        ..Jp1aoOptions::default()
    };
    let client = TestClient::with(options);
    let done = client.act("Services/2004", "release", |_| {}).await.body;
    let members: Vec<&str> = done
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        members,
        [
            "instanceId",
            "created",
            "updated",
            "completed",
            "state",
            "affectedResources",
            "result",
            "resultType"
        ]
    );
    assert_eq!(
        done["affectedResources"],
        json!([{"href": "http://10.196.184.182:/Automation/v1/objects/Services/2004"}])
    );
    assert!(done["created"].as_str().unwrap().ends_with("+0900"));
    // The format is not accepted as input (V12 2.2.12).
    let printed = client.read("Services/2004").await;
    let colon = printed.to_string().replace("+0900", "+09:00");
    let colon = serde_json::from_str(&colon).unwrap();
    for (service, want) in [(printed, 400), (colon, 200)] {
        let got = client.send("PUT", "Services/2004", service).await;
        assert_eq!(got.status, want, "{}", got.body);
    }
    let got = client.act("Services/2005", "submit", |document| {
        assert_eq!(
            document["parameters"].as_array().unwrap().len(),
            2,
            "{document}"
        );
        assert!(document["parameters"][1].is_array());
    });
    let submitted = got.await.body;
    let affected = submitted["affectedResources"].as_array().unwrap().clone();
    assert_eq!(affected.len(), 1);
    let schedule = affected[0]["href"]
        .as_str()
        .unwrap()
        .split_once("Schedules/")
        .unwrap()
        .1
        .to_owned();
    assert_eq!(
        client.read(&format!("Tasks?scheduleID={schedule}")).await["count"],
        1
    );
    assert_eq!(
        client.invoke("Services/2005", "reset").await.body["state"],
        "success"
    );
    // Filters by the format, but does not accept it as input.
    let made = client.read("Services/2005").await["createTime"]
        .as_str()
        .unwrap()
        .to_owned();
    let filter = |time: &str| {
        format!(
            "Services?HQL::filter={}",
            encoded(&format!("createTime = '{time}'"))
        )
    };
    assert_eq!(client.get(&filter(&made)).await.status, 400);
    assert_eq!(
        client.read(&filter(&made.replace("+0900", "+09:00"))).await["count"],
        6
    );
}

#[tokio::test(start_paused = true)]
async fn versions() {
    let with = |version| {
        TestClient::with(Jp1aoOptions {
            version,
            ..Jp1aoOptions::default()
        })
    };
    let old = with(Jp1aoVersion::V10);
    let version = async |client: &TestClient| {
        let basic = client.basic();
        client
            .raw(
                "GET",
                "/Automation/v1/configuration/version",
                &[("authorization", &basic)],
                "",
            )
            .await
            .body
    };
    assert_eq!(version(&old).await["productVersion"], "10-50-00");
    assert_eq!(version(&TestClient::new()).await["apiVersion"], "01.01.00");
    let document = old.read("Services/2005/actions/submit").await;
    let got = old
        .send("POST", "Services/2005/actions/submit/invoke", document)
        .await;
    assert_eq!(got.status, 201);
    let task = old.get("Tasks").await.all("instanceID")[0].clone();
    let task = format!("Tasks/{task}");
    assert_eq!(old.status(&task).await, "running");
    assert_eq!(
        old.read(&format!("{task}/actions/stop")).await["parameters"],
        Value::Null
    );
    for (method, path, status) in [
        ("GET", "ServiceTemplates".to_owned(), 404),
        ("GET", "Services?favorite=true".to_owned(), 400),
        ("GET", "Services/2004/actions/release".to_owned(), 404),
        ("POST", format!("{task}/actions/forceStop/invoke"), 404),
        ("DELETE", task.clone(), 404),
        ("PUT", "PropertyValues/5001".to_owned(), 404),
        ("GET", "TaskHistories".to_owned(), 404),
        ("GET", format!("FlowSteps?taskID={}", &task[6..]), 200),
        ("GET", "Services/2004".to_owned(), 200),
    ] {
        let got = old.send(method, &path, Value::Null).await;
        assert_eq!(got.status, status, "{method} {path}");
    }
    let members = old.read("Services/2004").await;
    assert_eq!(members.as_object().unwrap().len(), 10);
    steps(3).await;
    assert_eq!(old.status(&task).await, "waitingResponse");

    let middle = with(Jp1aoVersion::V11);
    let document = middle.read("Services/2005/actions/applyTemplate").await;
    assert_eq!(document["parameters"], json!([{"insatnceID": 3004}]));
    let got = middle
        .send(
            "POST",
            "Services/2005/actions/applyTemplate/invoke",
            document.clone(),
        )
        .await;
    assert_eq!(got.status, 404);
    let got = middle
        .send("POST", "Services/2005/applyTemplate/invoke", document)
        .await;
    assert_eq!(got.status, 200, "{}", got.body);
    let template = middle.read("ServiceTemplates/3001").await;
    assert_eq!(template.get("serviceSpecificationVersion"), None);
}

#[tokio::test]
async fn errors_are_localized() {
    let client = TestClient::new();
    let basic = client.basic();
    for (language, message, said) in [
        (
            "ja",
            "指定されたリソースが存在しないか、アクセスする権限がありません。",
            "ja",
        ),
        (
            "ja-JP,en;q=0.5",
            "指定されたリソースが存在しないか、アクセスする権限がありません。",
            "ja",
        ),
        (
            "en",
            "The specified resource does not exist, or you do not have permission to access it.",
            "en",
        ),
        (
            "zh-CN",
            "The specified resource does not exist, or you do not have permission to access it.",
            "en",
        ),
        (
            "",
            "The specified resource does not exist, or you do not have permission to access it.",
            "en",
        ),
    ] {
        let path = "/Automation/v1/objects/Services/1";
        let got = client
            .raw(
                "GET",
                path,
                &[("authorization", &basic), ("accept-language", language)],
                "",
            )
            .await;
        assert_eq!(
            (got.status, got.header("language")),
            (404, said),
            "{language}"
        );
        let want = json!({
            "errorSource": "http://10.196.184.182:22015/Automation/v1/objects/Services/1",
            "message": message, "messageID": "KNAE02102-E", "application": "Automation",
        });
        assert_eq!(got.body, want, "{language}");
    }
}

#[tokio::test]
async fn wrong_types_methods_and_paths_are_rejected() {
    let client = TestClient::new();
    let basic = client.basic();
    let basic = ("authorization", basic.as_str());
    let release = "/Automation/v1/objects/Services/2004/actions/release/invoke";
    for (method, path, headers, status) in [
        (
            "GET",
            "/Automation/v1/user",
            vec![basic, ("accept", "application/xml")],
            406,
        ),
        ("GET", "/Automation/v1/user?alt=xml", vec![basic], 406),
        (
            "GET",
            "/Automation/v1/user?alt=json",
            vec![basic, ("accept", "text/html, */*;q=0.1")],
            200,
        ),
        ("GET", "/Automation/v1/user?x=1", vec![basic], 400),
        ("POST", "/Automation/v1/user", vec![basic], 405),
        (
            "POST",
            release,
            vec![basic, ("content-type", "application/xml")],
            400,
        ),
        ("GET", "/Automation/v2/user", vec![basic], 404),
        ("GET", "/Automation/version", vec![], 404),
        ("GET", "/Automation", vec![], 404),
        ("GET", "/Automation/v1", vec![basic], 404),
        ("GET", "/Automation/v1/%00%FF/..%2F", vec![basic], 404),
    ] {
        assert_eq!(
            client.raw(method, path, &headers, "<x>").await.status,
            status,
            "{method} {path}"
        );
    }
    let got = client
        .raw(
            "POST",
            release,
            &[basic, ("content-type", "text/xml")],
            "<x>",
        )
        .await;
    assert_eq!(got.body["messageID"], "generic error");
    // The web server responds to paths outside the product.
    let got = client.raw("GET", "/Automation/version", &[], "").await;
    assert_eq!(got.header("content-type"), "text/html");
    let got = client.raw("GET", "/Automation/v1/user", &[basic], "").await;
    assert_eq!(got.header("cache-control"), "no-store, no-transform");
}

#[tokio::test]
async fn unavailable_server_answers_412() {
    let client = TestClient::new();
    lock(&client.upstreams.jp1ao).set_unavailable(2);
    for status in [412, 412, 200] {
        assert_eq!(client.get("Services/2004").await.status, status);
    }
}

#[tokio::test(start_paused = true)]
async fn hsso_token_expires_after_1000_seconds() {
    let client = TestClient::new();
    let version = "/Automation/v1/configuration/version";
    let request = async |authorization: &str| {
        client
            .raw("GET", version, &[("authorization", authorization)], "")
            .await
    };
    assert_eq!(client.raw("GET", version, &[], "").await.status, 401);
    for wrong in [
        "Basic c3lzdGVtOndyb25n",
        "Basic !",
        "HSSO x",
        "HSSO a_b_V0810",
        "HSSO __V0810",
        "HSSO é_é_V0810",
        "Bearer x",
        "HSSO",
    ] {
        // A header value beyond ASCII is sent as bytes.
        let value = http::HeaderValue::from_bytes(wrong.as_bytes()).unwrap();
        let request = http::Request::get(version)
            .header("authorization", value)
            .body(Body::empty())
            .unwrap();
        let got = router(client.upstreams.clone())
            .oneshot(request)
            .await
            .unwrap();
        assert_eq!(
            (got.status().as_u16(), got.headers().get("www-authenticate")),
            (401, None),
            "{wrong}"
        );
    }
    let first = request(&client.basic())
        .await
        .header("www-authenticate")
        .to_owned();
    tokio::time::advance(Duration::from_secs(999)).await;
    let got = client
        .raw(
            "GET",
            "/Automation/v1/user",
            &[("authorization", &first)],
            "",
        )
        .await;
    assert_eq!(
        (got.status, &got.body["userName"]),
        (200, &json!(JP1AO_USERNAME))
    );
    let second = got.header("www-authenticate").to_owned();
    assert_ne!(first, second);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(request(&first).await.status, 401);
    assert_eq!(request(&second).await.status, 200);
    // An error response has the next token, too.
    let got = client.get("Services/1").await;
    assert!(got.status == 404 && got.header("www-authenticate").starts_with("HSSO "));
    // A token belongs to the user it was issued to.
    let token = client
        .by(crate::JP1AO_OPERATOR)
        .get("Services/2005")
        .await
        .header("www-authenticate")
        .to_owned();
    let got = client
        .raw(
            "GET",
            "/Automation/v1/user",
            &[("authorization", &token)],
            "",
        )
        .await;
    assert_eq!(got.body["userName"], "operator");
}

proptest::proptest! {
    /// Every input gets a response, and none an internal error.
    #[test]
    fn arbitrary_input_does_not_panic(
        method in 0usize..5,
        pieces in proptest::collection::vec(0usize..40, 0..9),
        query in proptest::collection::vec((0usize..20, ".{0,12}"), 0..4),
        body in ".{0,60}",
    ) {
        const PIECES: [&str; 40] = [
            "objects", "Services", "Tasks", "2004", "2005", "6001", "actions", "invoke", "release", "submit", "response",
            "archive", "rerunStart", "reset", "applyTemplate", "ServiceTemplates", "3001", "bind", "export", "detailhelp",
            "services", "import", "Schedules", "7001", "cancel", "FlowSteps", "TaskLogs", "TaskHistories", "PropertyValues",
            "5001", "PropertyDefinitions", "4100", "PropertyInformations", "PropertyGroups", "ServiceGroups", "Tags", "user",
            "%2e%2e", "99999999999999999999", "",
        ];
        const NAMES: [&str; 20] = [
            "HQL::filter", "HQL::sortBy", "HQL::fields", "HQL::offset", "HQL::limit", "page", "pageSize", "q", "tags",
            "serviceID", "taskID", "scheduleID", "offset", "readSize", "reverse", "shared", "start", "end", "detail",
            "resourceType",
        ];
        let mut path = pieces.iter().map(|at| PIECES[*at]).collect::<Vec<_>>().join("/");
        if pieces.len() > 2 {
            path = format!("objects/{path}");
        }
        let query: Vec<String> =
            query.iter().map(|(at, value)| format!("{}={}", NAMES[*at], encoded(value))).collect();
        let target = format!("/Automation/v1/{path}?{}", query.join("&"));
        let method = ["GET", "POST", "PUT", "DELETE", "PATCH"][method];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let status = runtime.block_on(async {
            let client = TestClient::of(Settings::default());
            let basic = client.basic();
            let action = pieces.iter().rev().map(|at| PIECES[*at]).find(|piece| *piece != "invoke").unwrap_or("");
            let document = json!({"name": action, "href": "", "method": "POST", "parameters": [{"name": body, "keyName": body}]});
            let document = if body.len() % 2 == 0 { document.to_string() } else { body };
            client.raw(method, &target, &[("authorization", &basic)], document).await.status
        });
        proptest::prop_assert!(status < 500, "{} {}: {}", method, target, status);
    }
}
