use super::*;

#[tokio::test]
async fn release_changes_the_state_once() {
    let client = TestClient::new();
    let path = "Services/2004/actions/release";
    let document = client.read(path).await;
    assert_eq!(document["parameters"], json!([]));
    assert!(
        document["href"]
            .as_str()
            .unwrap()
            .starts_with(" http://10.196.184.182:22015/")
    );
    let state = async || client.read("Services/2004").await["serviceState"].clone();
    assert_eq!(state().await, "test", "reading the action changes nothing");

    let invoke = format!("{path}/invoke");
    for body in [
        Value::Null,
        json!({}),
        json!({"name": "release", "method": "POST", "parameters": []}),
        json!({"name": "release", "method": "POST", "href": "x"}),
        json!({"name": "disable", "method": "POST", "href": "x", "parameters": []}),
        json!({"name": "release", "method": "GET", "href": "x", "parameters": []}),
        json!({"name": "release", "method": "POST", "href": "x", "parameters": [{"a": 1}]}),
        json!({"name": "release", "method": "POST", "href": "x", "parameters": ["a"]}),
        json!([1]),
    ] {
        assert_eq!(
            client.send("POST", &invoke, body.clone()).await.status,
            400,
            "{body}"
        );
    }
    let done = client.send("POST", &invoke, document.clone()).await;
    assert_eq!((done.status, &done.body["state"]), (200, &json!("success")));
    let affected = json!(["http://10.196.184.182:22015/Automation/v1/objects/Services/2004"]);
    assert_eq!(done.body["affectedResource"], affected);
    assert_eq!(done.body["created"], done.body["completed"]);
    assert!(done.body["created"].as_str().unwrap().ends_with("+09:00"));
    assert_eq!(state().await, "release");
    let again = client.send("POST", &invoke, document).await;
    assert_eq!(
        (again.status, &again.body["messageData"]),
        (409, &json!("release"))
    );
}

#[tokio::test]
async fn status_actions_follow_the_manual() {
    let client = TestClient::new();
    for (id, action, status) in [
        (2004, "maintenance", 409),
        (2004, "release", 200),
        (2004, "maintenance", 200),
        (2004, "disable", 409),
        (2004, "release", 200),
        (2004, "disable", 200),
        (2004, "release", 200),
        (2005, "release", 409),
        (2006, "release", 200),
        (2007, "release", 200),
        (2009, "release", 409),
        (9999, "release", 404),
    ] {
        let got = client.invoke(&format!("Services/{id}"), action).await;
        assert_eq!(got.status, status, "{id} {action}: {}", got.body);
    }
    let got = client.get("Services/9999").await;
    assert_eq!(
        (got.status, &got.body["messageID"]),
        (404, &json!("KNAE02102-E"))
    );
}

#[tokio::test(start_paused = true)]
async fn service_is_created_edited_and_deleted() {
    let client = TestClient::new();
    let name = "x'y/../\\\"\n%2F日本";
    let set = |document: &mut Value| {
        let arguments = document["parameters"].as_array_mut().unwrap();
        for argument in arguments {
            if argument.get("serviceGroupName").is_some() {
                argument["name"] = name.into();
                argument["tags"] = " a , b,,".into();
                argument["serviceState"] = "release".into();
            } else if argument["keyName"] == "disk.sizeGB" {
                argument["value"] = "77".into();
            }
        }
    };
    let got = client.act("ServiceTemplates/3004", "bind", set).await;
    assert_eq!(got.status, 200, "{}", got.body);
    let url = got.body["affectedResource"][0].as_str().unwrap();
    let path = url.split_once("/objects/").unwrap().1;
    let mut shown = client.read(path).await;
    for (member, want) in [
        ("name", json!(name)),
        ("tags", json!("a,b")),
        ("serviceState", json!("release")),
        ("latest", json!(true)),
        ("version", json!("01.14.00")),
        ("serviceGroupName", json!("DefaultServiceGroup")),
        ("lastSubmitTime", Value::Null),
    ] {
        assert_eq!(shown[member], want, "{member}");
    }
    let values = client
        .get(&format!("PropertyValues?serviceID={}", shown["instanceID"]))
        .await;
    let size = values.body["data"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["keyName"] == "disk.sizeGB");
    assert_eq!(size.unwrap()["value"], "77");

    assert_eq!(
        client
            .act("ServiceTemplates/3004", "bind", set)
            .await
            .status,
        400,
        "the name is taken"
    );
    for (argument, value) in [
        ("name", json!("")),
        ("name", json!(7)),
        ("name", json!("x".repeat(129))),
        ("serviceGroupName", json!("Nobody's")),
        ("serviceState", json!("disabled")),
        ("supportedScheduleType", json!("never")),
    ] {
        let got = client
            .act("ServiceTemplates/3004", "bind", |document| {
                document["parameters"][0]["name"] = "other".into();
                document["parameters"][0][argument] = value.clone();
            })
            .await;
        assert_eq!(got.status, 400, "{argument} {value}");
    }

    // The complete service is sent; only the editable members change.
    shown["name"] = "renamed".into();
    shown["favorite"] = true.into();
    shown["submitCount"] = 99.into();
    shown["serviceState"] = "maintenance".into();
    let got = client.send("PUT", path, shown.clone()).await;
    assert_eq!(got.status, 200, "{}", got.body);
    let now = client.read(path).await;
    assert_eq!(now, got.body);
    for (member, want) in [
        ("name", json!("renamed")),
        ("favorite", json!(true)),
        ("submitCount", json!(0)),
        ("serviceState", json!("maintenance")),
    ] {
        assert_eq!(now[member], want, "{member}");
    }
    for (member, value) in [
        ("name", json!("Add disks to the databases")),
        ("name", json!("")),
        ("serviceState", json!("test")),
        ("favorite", json!("yes")),
        ("instanceID", json!(2004)),
        ("description", json!(["x"])),
    ] {
        let mut wrong = now.clone();
        wrong[member] = value.clone();
        assert_eq!(
            client.send("PUT", path, wrong).await.status,
            400,
            "{member} {value}"
        );
    }
    assert_eq!(client.read(path).await, now, "nothing of that was taken");

    let id = now["instanceID"].as_u64().unwrap();
    assert_eq!(client.act(path, "release", |_| {}).await.status, 200);
    client.submit(id, |_| {}).await;
    assert_eq!(
        client.send("DELETE", path, Value::Null).await.status,
        409,
        "it has a task"
    );
    steps(100).await;
    let task = client
        .get(&format!("Tasks?serviceID={id}"))
        .await
        .all("instanceID")[0]
        .clone();
    let task = format!("Tasks/{task}");
    assert_eq!(client.invoke(&task, "forceStop").await.status, 200);
    assert_eq!(client.invoke(&task, "archive").await.status, 200);
    for _ in 0..2 {
        assert_eq!(client.send("DELETE", path, Value::Null).await.status, 204);
    }
    assert_eq!(client.get(path).await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn reset_clears_task_counters() {
    let client = TestClient::new();
    client.submit(2008, |_| {}).await;
    client
        .submit(2008, |document| {
            for argument in document["parameters"].as_array_mut().unwrap() {
                if argument["keyName"] == preload::FAIL_AT_PROPERTY {
                    argument["value"] = "2".into();
                }
            }
        })
        .await;
    steps(10).await;
    let counts = async || {
        let shown = client.read("Services/2008").await;
        [
            "submitCount",
            "executedCount",
            "completedCount",
            "failedCount",
        ]
        .map(|name| shown[name].as_u64().unwrap())
    };
    assert_eq!(counts().await, [2, 2, 1, 1]);
    assert!(client.read("Services/2008").await["lastFailedTime"].is_string());
    let got = client.invoke("Services/2008", "reset").await;
    // The document in place of the envelope (V12 2.5.9).
    assert_eq!(
        (got.status, &got.body["name"], &got.body["state"]),
        (200, &json!("reset"), &Value::Null)
    );
    assert_eq!(counts().await, [0; 4]);
    assert!(client.read("Services/2008").await["resetTime"].is_string());
}

#[tokio::test]
async fn apply_template_changes_the_version() {
    let client = TestClient::new();
    assert_eq!(client.read("Services/2005").await["latest"], false);
    for (target, status) in [
        (3002, 400),
        (9999, 400),
        (3004, 200),
        (3004, 200),
        (3001, 200),
    ] {
        let got = client
            .act("Services/2005", "applyTemplate", |document| {
                document["parameters"] = json!([{"instanceID": target}]);
            })
            .await;
        assert_eq!(got.status, status, "{target}: {}", got.body);
    }
    assert_eq!(
        client
            .act("Services/2005", "applyTemplate", |_| {})
            .await
            .status,
        200
    );
    assert_eq!(
        client.read("Services/2005").await["latest"],
        true,
        "the template names the newest"
    );
    assert_eq!(
        client
            .act("Services/2007", "applyTemplate", |_| {})
            .await
            .status,
        409,
        "disabled"
    );
    let got = client
        .send("POST", "Services/2005/applyTemplate/invoke", json!({}))
        .await;
    assert_eq!(got.status, 404, "only version 11 has that path");
}

#[tokio::test]
async fn roles_restrict_functions() {
    let client = TestClient::new();
    let operator = client.by(crate::JP1AO_OPERATOR);
    // Other groups are invisible; a function that the role lacks is 403 or 404.
    for (method, path, status) in [
        ("GET", "Services/2005", 200),
        ("GET", "Services/2008", 404),
        ("POST", "Services/2008/actions/submit/invoke", 404),
        ("POST", "Services/2004/actions/release/invoke", 404),
        ("POST", "Services/2005/actions/reset/invoke", 403),
        ("DELETE", "Services/2004", 403),
        ("DELETE", "TaskHistories?serviceGroupID=1", 403),
        ("DELETE", "ServiceTemplates/3001", 403),
        ("GET", "ServiceTemplates/3001", 403),
        ("POST", "ServiceTemplates/3001/actions/bind/invoke", 404),
        ("PUT", "PropertyValues/5001", 403),
        ("GET", "ServiceGroups/1002", 404),
    ] {
        let body = json!({"name": "x"});
        let got = operator
            .send(
                method,
                path,
                if method == "GET" { Value::Null } else { body },
            )
            .await;
        assert_eq!(got.status, status, "{method} {path}: {}", got.body);
    }
    assert_eq!(
        operator.get("Services").await.all("instanceID"),
        [2004, 2005, 2006, 2007]
    );
    let mut service = operator.read("Services/2004").await;
    service["favorite"] = true.into();
    service["name"] = "mine".into();
    let got = operator.send("PUT", "Services/2004", service).await;
    assert_eq!(
        (&got.body["favorite"], &got.body["name"]),
        (&json!(true), &json!("Add disks to the web servers"))
    );
    let task = operator.submit(2005, |_| {}).await;
    assert_eq!(client.read(&task).await["submitter"], "operator");

    let outsider = client.by(crate::JP1AO_OUTSIDER);
    assert_eq!(outsider.get("Services").await.status, 401);
    let basic = outsider.basic();
    let got = client
        .raw(
            "GET",
            "/Automation/v1/user",
            &[("authorization", &basic)],
            "",
        )
        .await;
    assert_eq!((got.status, &got.body["resourceGroup"]), (200, &json!([])));
}
