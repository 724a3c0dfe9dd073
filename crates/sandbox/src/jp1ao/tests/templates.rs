use super::*;

async fn upload(client: &TestClient, name: &str, file: &[u8]) -> TestResponse {
    let mut body = format!(
        "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n"
    )
    .into_bytes();
    body.extend_from_slice(file);
    body.extend_from_slice(b"\r\n--b--\r\n");
    let basic = client.basic();
    let headers = [
        ("authorization", basic.as_str()),
        ("content-type", "multipart/form-data; boundary=b"),
    ];
    client
        .raw(
            "POST",
            "/Automation/v1/services/ServiceTemplates/actions/import/invoke",
            &headers,
            body,
        )
        .await
}

#[tokio::test]
async fn exported_template_can_be_imported_and_bound() {
    let client = TestClient::new();
    let before = client.read("ServiceTemplates/3004").await;
    let exported = client.act("ServiceTemplates/3004", "export", |_| {}).await;
    assert_eq!(
        (exported.status, exported.header("content-type")),
        (200, "application/octet-stream")
    );
    assert_eq!(
        exported.header("content-disposition"),
        "attachment; filename=\"com.hitachi.software.dna_addDisk_01.14.00.st\""
    );
    for _ in 0..2 {
        let got = client
            .send("DELETE", "ServiceTemplates/3004", Value::Null)
            .await;
        // An empty body with a JSON content type (docs/apis/jp1ao.md, "Quirks").
        assert_eq!(
            (got.status, got.bytes.len(), got.header("content-type")),
            (204, 0, "application/json")
        );
    }
    assert_eq!(client.get("ServiceTemplates/3004").await.status, 404);
    assert_eq!(client.read("Services/2005").await["latest"], true);

    let got = upload(&client, "addDisk.st", &exported.bytes).await;
    assert_eq!(got.status, 200, "{}", got.body);
    let path = got.body["affectedResource"][0]
        .as_str()
        .unwrap()
        .split_once("/objects/")
        .unwrap()
        .1
        .to_owned();
    let mut after = client.read(&path).await;
    for name in [
        "instanceID",
        "iconURL",
        "imageURL",
        "createTime",
        "modifyTime",
    ] {
        after[name] = before[name].clone();
    }
    // The file does not contain the included templates.
    after["usedTemplates"] = before["usedTemplates"].clone();
    assert_eq!(after, before);
    let again = client.act(&path, "export", |_| {}).await;
    assert_eq!(again.bytes, exported.bytes, "the very file comes back");
    let replaced = upload(&client, "addDisk.zip", &exported.bytes).await;
    assert!(
        replaced.body["affectedResource"][0]
            .as_str()
            .unwrap()
            .ends_with(&path)
    );

    let got = client
        .act(&path, "bind", |document| {
            document["parameters"][0]["name"] = "imported".into()
        })
        .await;
    assert_eq!(got.status, 200, "{}", got.body);
    assert_eq!(
        client.send("DELETE", &path, Value::Null).await.status,
        409,
        "it has a service"
    );
    assert_eq!(
        client
            .send("DELETE", "ServiceTemplates/3005", Value::Null)
            .await
            .status,
        409,
        "it is a component"
    );
    assert_eq!(
        client
            .get("ServiceTemplates?usingServiceTemplateID=3005")
            .await
            .all("instanceID"),
        [3001]
    );
}

#[tokio::test]
async fn invalid_uploads_are_rejected() {
    let client = TestClient::new();
    let good = client
        .act("ServiceTemplates/3002", "export", |_| {})
        .await
        .bytes;
    let unknown = multipart_and_zip::zip("else.xml", b"<x/>").unwrap();
    let wrong = multipart_and_zip::zip("template.json", b"{}").unwrap();
    for (name, file, status) in [
        ("a.st", &good[..], 200),
        ("a.zip", &good[..], 200),
        ("a.txt", &good[..], 400),
        ("a.st", &b"hello"[..], 400),
        ("a.st", &b""[..], 400),
        ("a.st", &wrong[..], 400),
        ("日本.zip", &unknown[..], 200),
    ] {
        assert_eq!(upload(&client, name, file).await.status, status, "{name}");
    }
    assert_eq!(
        client
            .get("ServiceTemplates?vendorID=IMPORTED")
            .await
            .all("keyName"),
        ["日本"]
    );
    let basic = client.basic();
    let path = "/Automation/v1/services/ServiceTemplates/actions/import";
    let invoke = format!("{path}/invoke");
    let form = "multipart/form-data; boundary=b";
    let basic = ("authorization", basic.as_str());
    for (method, path, headers, body, status) in [
        (
            "POST",
            &*invoke,
            vec![basic, ("content-type", "application/json")],
            "{}",
            415,
        ),
        ("POST", &invoke, vec![basic], "", 415),
        (
            "POST",
            &invoke,
            vec![basic, ("content-type", "multipart/form-data")],
            "",
            415,
        ),
        (
            "POST",
            &invoke,
            vec![basic, ("content-type", form)],
            "",
            400,
        ),
        (
            "POST",
            &invoke,
            vec![basic, ("content-type", form)],
            "--b\r\n\r\n--b--",
            400,
        ),
        ("GET", &invoke, vec![basic], "", 405),
        (
            "GET",
            path,
            vec![basic, ("accept", "application/json")],
            "",
            406,
        ),
        ("GET", path, vec![basic, ("accept", "text/html")], "", 200),
    ] {
        let got = client.raw(method, path, &headers, body).await;
        assert_eq!(got.status, status, "{method} {path} {headers:?}");
    }
    let got = client
        .raw("GET", path, &[basic, ("accept", "text/*;q=0.5")], "")
        .await;
    assert_eq!(got.header("content-type"), "text/html");
}

#[tokio::test]
async fn templates_are_listed() {
    let client = TestClient::new();
    for (query, want) in [
        ("", vec![3001, 3002, 3003, 3004, 3005]),
        ("?keyName=ADDDISK", vec![3001, 3004]),
        ("?keyName=addDisk&version=01.14.00", vec![3004]),
        ("?vendorID=com.hitachi.software.dna&q=volumes", vec![3002]),
        (
            "?tags=Storage&HQL::filter=latest%20%3D%20true",
            vec![3002, 3003, 3004],
        ),
        ("?HQL::filter=releaseState%20%3D%20'debug'", vec![3005]),
    ] {
        let got = client.get(&format!("ServiceTemplates{query}")).await;
        assert_eq!(json!(got.all("instanceID")), json!(want), "{query}");
    }
    let shown = client.read("ServiceTemplates/3001").await;
    assert_eq!(
        (
            &shown["usedServices"],
            &shown["serviceSpecificationVersion"]
        ),
        (&json!(2), &json!("1.0"))
    );
    assert_eq!(
        client
            .get("ServiceTemplates/3001/actions")
            .await
            .all("name")
            .len(),
        4
    );
    let help = client
        .read("ServiceTemplates/3001/actions/detailhelp")
        .await;
    assert!(help["href"].as_str().unwrap().contains("/help/"), "{help}");
    // Clients that do not accept binary data get none.
    let basic = client.basic();
    let got = client
        .raw(
            "POST",
            "/Automation/v1/objects/ServiceTemplates/3001/actions/export/invoke",
            &[("authorization", &basic), ("accept", "application/json")],
            r#"{"name":"export","href":"x","method":"POST","parameters":[]}"#,
        )
        .await;
    assert_eq!((got.status, got.bytes.len()), (406, 0));
}
