use super::*;

#[tokio::test]
async fn services_are_filtered_sorted_and_paged() {
    let client = TestClient::new();
    for (query, want, count) in [
        ("", vec![2004, 2005, 2006, 2007, 2008, 2009], 6),
        ("?q=disks", vec![2004, 2005], 2),
        ("?q=DISKS%20web", vec![2004], 1),
        ("?q=hitachi", vec![2004, 2005, 2006, 2007, 2008, 2009], 6),
        ("?tags=Server,Night%20shift", vec![2008], 1),
        ("?tags=Server", vec![2008, 2009], 2),
        ("?serviceGroupID=1002", vec![2008, 2009], 2),
        ("?serviceTemplateID=3002", vec![2006, 2007], 2),
        ("?favorite=true", vec![2005], 1),
        ("?favorite=false&q=disks", vec![2004], 1),
        ("?propertyKey=disk.", vec![2004, 2005], 2),
        ("?propertyKey=nothing", vec![], 0),
        ("?page=2&pageSize=2", vec![2006, 2007], 6),
        ("?page=9&pageSize=2", vec![], 6),
        ("?HQL::offset=4", vec![2008, 2009], 6),
        ("?HQL::offset=1&HQL::limit=2", vec![2005, 2006], 6),
        ("?page=1&pageSize=1&HQL::offset=4", vec![2004], 6),
        ("?HQL::sortBy=instanceID%20DESC&pageSize=1", vec![2009], 6),
        (
            "?HQL%3A%3AsortBy=serviceState%2CinstanceID%20desc&pageSize=3",
            vec![2009, 2007, 2006],
            6,
        ),
        (
            "?HQL::filter=serviceState%20%3D%20'release'",
            vec![2005, 2008],
            2,
        ),
        (
            "?HQL%3A%3Afilter=%28serviceState%20in%20%5B%27release%27%2C%27test%27%5D%29%20and%20%28serviceGroupID%20%3D%201001%29",
            vec![2004, 2005],
            2,
        ),
    ] {
        let got = client.get(&format!("Services{query}")).await;
        let ids: Vec<u64> = got
            .all("instanceID")
            .iter()
            .map(|id| id.as_u64().unwrap())
            .collect();
        assert_eq!(
            (ids, got.body["count"].as_u64()),
            (want, Some(count)),
            "{query}"
        );
    }
    let got = client.read("Services?page=2&pageSize=4").await;
    assert_eq!(
        got["pagination"],
        json!({"page": 2, "pageSize": 4, "numPages": 2})
    );
    let got = client
        .read("Services?HQL::fields=name,instanceID&pageSize=1")
        .await;
    assert_eq!(
        got["data"],
        json!([{"instanceID": 2004, "name": "Add disks to the web servers"}])
    );
    for query in [
        "favorite=perhaps",
        "serviceGroupID=x",
        "page=0",
        "pageSize=-1",
        "pageSize=0",
        "page=99999999",
        "HQL::offset=-1",
        "HQL::limit=x",
        "HQL::filter=x",
        "HQL::filter=tags%20%3D%20'x'",
        "HQL::sortBy=iconURL",
        "HQL::sortBy=name%20up",
        "HQL::fields=nothing",
        "hqlFilter=x",
        "limit=1",
        "%E6%97%A5=1",
        "=",
        "vendorID=x",
    ] {
        let got = client.get(&format!("Services?{query}")).await;
        assert_eq!(
            (got.status, &got.body["messageID"]),
            (400, &json!("KNAE02104-E")),
            "{query}"
        );
    }
}

/// Filters and `q` treat any text as data.
#[tokio::test]
async fn filters_match_special_characters() {
    let client = TestClient::new();
    let names = [
        "it's",
        "a/../b",
        "\"quoted\"",
        "two\r\nlines",
        "100%25 of %2F",
        "日本語の名前",
        "a;b=c&d?e#f",
        "[x] (y)",
        "''",
        "\\",
        "+ +",
    ];
    for name in names {
        let mut service = client.read("Services/2004").await;
        service["name"] = name.into();
        assert_eq!(
            client.send("PUT", "Services/2004", service).await.status,
            200,
            "{name}"
        );
        let filter = encoded(&format!("name = '{}'", name.replace('\'', "''")));
        let got = client.get(&format!("Services?HQL::filter={filter}")).await;
        assert_eq!(got.all("name"), [name]);
        let word = name.split_whitespace().next().unwrap();
        let got = client.get(&format!("Services?q={}", encoded(word))).await;
        assert!(got.all("name").contains(&json!(name)), "{name}");
    }
}

#[tokio::test]
async fn groups_and_tags_are_listed() {
    let client = TestClient::of(Settings::default());
    for (path, member, want) in [
        (
            "ServiceGroups",
            "objectID",
            json!(["Automation_RG_DEFAULT", "Automation_RG_OPERATIONS"]),
        ),
        (
            "ServiceGroups?HQL::filter=instanceID%20gt%201001",
            "name",
            json!(["Operations"]),
        ),
        ("ServiceGroups/1001/actions", "name", json!([])),
        (
            "TagGroups",
            "tags",
            json!(["Storage,Server,Network", "Night shift"]),
        ),
        (
            "Tags",
            "name",
            json!(["Storage", "Server", "Network", "Night shift"]),
        ),
        (
            "Tags?detail",
            "tagGroupName",
            json!(["Resources", "Resources", "Resources", "Times"]),
        ),
        (
            "Tags?resourceType=Service",
            "name",
            json!(["Night shift", "Server", "Storage"]),
        ),
        (
            "Tags?resourceType=Service&serviceGroupID=1001",
            "name",
            json!(["Storage"]),
        ),
        (
            "Tags?resourceType=Service&HQL::filter=instanceID%20%3D%202009&detail",
            "tagGroupName",
            json!(["Resources"]),
        ),
        (
            "Tags?resourceType=Task",
            "name",
            json!(["Night shift", "Server", "Storage"]),
        ),
        ("Tags?resourceType=TaskHistory", "name", json!([])),
        (
            "Tags?resourceType=ServiceTemplate",
            "name",
            json!(["Storage"]),
        ),
        ("Tasks", "status", json!(["completed", "failed"])),
        ("Schedules", "status", json!(["completed", "completed"])),
    ] {
        assert_eq!(json!(client.get(path).await.all(member)), want, "{path}");
    }
    assert_eq!(
        client.read("ServiceGroups/1002").await["name"],
        "Operations"
    );
    for (path, status) in [
        ("ServiceGroups/1", 404),
        ("Tags?resourceType=Plugin", 400),
        ("Tags?serviceGroupID=1", 400),
        ("Tags/1", 404),
        ("TagGroups/1", 404),
        ("Users", 404),
    ] {
        assert_eq!(client.get(path).await.status, status, "{path}");
    }
    assert_eq!(client.send("POST", "Services", json!({})).await.status, 405);
    assert_eq!(
        client
            .send("PATCH", "ServiceGroups/1001", json!({}))
            .await
            .status,
        405
    );
}
