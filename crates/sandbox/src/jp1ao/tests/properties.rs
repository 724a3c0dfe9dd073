use super::*;

#[tokio::test]
async fn values_are_updated_singly_and_in_bulk() {
    let client = TestClient::new();
    let mut all = client.read("PropertyValues?serviceID=2004").await;
    let at = |all: &Value, key: &str| {
        let data = all["data"].as_array().unwrap();
        data.iter().position(|one| one["keyName"] == key).unwrap()
    };
    let size = at(&all, "disk.sizeGB");
    let path = format!("PropertyValues/{}", all["data"][size]["instanceID"]);
    let mut one = client.read(&path).await;
    assert_eq!(
        (&one["value"], &one["type"], &one["serviceID"]),
        (&json!("10"), &json!("integer"), &json!(2004))
    );
    one["value"] = "20".into();
    let got = client.send("PUT", &path, one).await;
    assert_eq!((got.status, &got.body["value"]), (200, &json!("20")));
    for wrong in [
        json!({"value": "x"}),
        json!({"value": 20}),
        json!({}),
        json!({"value": "1", "instanceID": 1}),
        Value::Null,
    ] {
        assert_eq!(
            client.send("PUT", &path, wrong.clone()).await.status,
            400,
            "{wrong}"
        );
    }
    assert_eq!(
        client.get(&format!("{path}/actions")).await.all("name"),
        ["update"]
    );

    // All or none: the second value is invalid, so the first is not set either.
    let (name, fixed) = (at(&all, "common.vmName"), at(&all, "common.vcenter"));
    all["data"][name]["value"] = "日本'\"/..%\n".into();
    all["data"][size]["value"] = "0".into();
    assert_eq!(
        client
            .send("PUT", "PropertyValues?serviceID=2004", all.clone())
            .await
            .status,
        400
    );
    assert_eq!(
        client.read("PropertyValues?serviceID=2004").await["data"][name]["value"],
        "web01"
    );
    all["data"][size]["value"] = "30".into();
    all["data"][fixed]["value"] = "other".into();
    assert_eq!(
        client
            .send("PUT", "PropertyValues?serviceID=2004", all.clone())
            .await
            .status,
        400,
        "it is read-only"
    );
    all["data"][fixed]["readOnly"] = false.into();
    let got = client
        .send("PUT", "PropertyValues?serviceID=2004", all)
        .await;
    assert_eq!(got.status, 200, "{}", got.body);
    assert_eq!(got.body["data"][name]["value"], "日本'\"/..%\n");
    assert_eq!(got.body["data"][fixed]["value"], "other");

    // A password is never shown, and writing its mask has no effect.
    let secret = got.body["data"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["type"] == "password")
        .unwrap();
    assert_eq!(secret["value"], "********");
    assert!(!got.bytes.windows(6).any(|window| window == b"secret"));

    // Without a service: the share properties, of which only the value changes.
    let mut shared = client.read("PropertyValues").await;
    assert_eq!(shared["count"], 2);
    shared["data"][1]["value"] = "587".into();
    shared["data"][1]["readOnly"] = true.into();
    let got = client.send("PUT", "PropertyValues", shared).await;
    assert_eq!(
        (
            &got.body["data"][1]["value"],
            &got.body["data"][1]["readOnly"]
        ),
        (&json!("587"), &json!(false))
    );
    for (path, body, status) in [
        ("PropertyValues?serviceID=1", json!({"data": []}), 404),
        ("PropertyValues?serviceID=2004", json!({}), 400),
        ("PropertyValues?serviceID=2004", json!({"data": [1]}), 400),
        (
            "PropertyValues?serviceID=2004",
            json!({"data": [{"instanceID": 5900}]}),
            400,
        ),
        ("PropertyValues?taskID=1", json!({"data": []}), 400),
    ] {
        assert_eq!(
            client.send("PUT", path, body.clone()).await.status,
            status,
            "{path} {body}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn definitions_informations_and_groups_are_listed() {
    let client = TestClient::new();
    let task = client.submit(2005, |_| {}).await;
    let shown = client.read(&task).await;
    let (task, schedule) = (shown["instanceID"].clone(), shown["scheduleID"].clone());
    for (path, count) in [
        ("PropertyDefinitions".to_owned(), 21),
        ("PropertyDefinitions?serviceID=2005".to_owned(), 8),
        ("PropertyDefinitions?serviceTemplateID=3003".to_owned(), 2),
        (
            "PropertyDefinitions?serviceTemplateID=3003&serviceID=2005".to_owned(),
            0,
        ),
        (
            "PropertyDefinitions?serviceTemplateID=3001&serviceID=2005".to_owned(),
            8,
        ),
        ("PropertyDefinitions?serviceID=1".to_owned(), 0),
        (format!("PropertyDefinitions?taskID={task}"), 8),
        ("PropertyInformations?shared".to_owned(), 2),
        ("PropertyInformations?shared&serviceID=2005".to_owned(), 10),
        (
            format!("PropertyInformations?taskID={task}&scheduleID={schedule}"),
            16,
        ),
        (
            "PropertyInformations?serviceID=2005&HQL::filter=required%20%3D%20true".to_owned(),
            2,
        ),
        ("PropertyGroups?serviceTemplateID=3001".to_owned(), 2),
        ("PropertyGroups?serviceID=2008".to_owned(), 1),
        (format!("PropertyGroups?scheduleID={schedule}"), 2),
        (format!("PropertyGroups?taskID={task}"), 2),
        ("PropertyGroups?taskID=1".to_owned(), 0),
        (format!("PropertyValues?taskID={task}"), 8),
        (
            format!("PropertyValues?scheduleID={schedule}&serviceID=2005"),
            16,
        ),
        (
            "PropertyValues?HQL::filter=keyName%20ends%20'Port'".to_owned(),
            1,
        ),
    ] {
        assert_eq!(client.read(&path).await["count"], count, "{path}");
    }
    let definition = client
        .get("PropertyDefinitions?serviceID=2005&HQL::filter=keyName%20%3D%20'disk.sizeGB'")
        .await;
    let id = definition.all("instanceID")[0].clone();
    let definition = client.read(&format!("PropertyDefinitions/{id}")).await;
    for (member, want) in [
        ("minValue", json!(1)),
        ("maxValue", json!(1024)),
        ("required", json!(true)),
        ("mode", json!("in")),
        ("visibility", json!("exec")),
        ("serviceTemplateID", json!(3001)),
    ] {
        assert_eq!(definition[member], want, "{member}");
    }
    assert_eq!(
        client
            .get(&format!("PropertyDefinitions/{id}/actions"))
            .await
            .body["count"],
        0
    );
    let information = client
        .read(&format!("PropertyInformations?taskID={task}"))
        .await;
    assert!(
        information["data"]
            .as_array()
            .unwrap()
            .iter()
            .all(|one| one["taskID"] == task && one["value"].is_string())
    );
    for (path, status) in [
        ("PropertyInformations", 400),
        ("PropertyGroups", 400),
        ("PropertyGroups?serviceID=2005&taskID=1", 400),
        ("PropertyGroups?serviceID=2005&serviceTemplateID=3001", 400),
        ("PropertyDefinitions/1", 404),
        ("PropertyValues/1", 404),
        ("PropertyValues?serviceID=x", 400),
    ] {
        assert_eq!(client.get(path).await.status, status, "{path}");
    }
    // The values of a task do not change any more.
    let of_task = client
        .get(&format!("PropertyValues?taskID={task}"))
        .await
        .all("instanceID")[0]
        .clone();
    let got = client
        .send(
            "PUT",
            &format!("PropertyValues/{of_task}"),
            json!({"value": "x"}),
        )
        .await;
    assert_eq!(got.status, 400);
}
