//! Fields with the URLs of another field.

use super::*;

const MESSAGES: &str = r#"
    message Req {}
    message Res {
      google.protobuf.Value link = 1 [(drawbridge.v1.field).aliases = "links"];
      repeated string links = 2 [
        (google.api.field_behavior) = OUTPUT_ONLY, (drawbridge.v1.field).urls_of = "link"
      ];
      repeated Ref refs = 3 [
        (google.api.field_behavior) = OUTPUT_ONLY,
        (drawbridge.v1.field) = {urls_of: "link" url_pattern: "/objects/{kind}/{id}"}
      ];
      string state = 4;
    }
    message Ref { optional string kind = 1; optional int64 id = 2; repeated string s = 3; }"#;

#[test]
fn urls_and_their_segments_are_read() {
    let test = TestContract::new(&unary(
        "option (google.api.http) = {get: \"/x\"};",
        MESSAGES,
    ));
    let url = "http://h/v1/objects/Services/2004";
    let reference = json!({"kind": "Services", "id": "2004"});
    let odd = "/objects/a%20b/-5/?x=/objects/y/6#/objects/z/7";
    for (body, links, refs) in [
        (json!({"link": url}), json!([url]), json!([reference])),
        (json!({"links": [url]}), json!([url]), json!([reference])),
        (
            json!({"state": "s", "link": [url, url], "other": 1}),
            json!([url, url]),
            json!([reference, reference]),
        ),
        (
            json!({"link": [null, 5, url, {"href": url}, {"id": 1}, [url]]}),
            json!([url, url]),
            json!([reference, reference]),
        ),
        (
            json!({"link": {"href": url}}),
            json!([url]),
            json!([reference]),
        ),
        // URLs of another form are kept as texts only.
        (
            json!({"link": [odd, "/objects/Tasks", "/objects/Tasks/x", "/other/a/1", "", "1"]}),
            json!([
                odd,
                "/objects/Tasks",
                "/objects/Tasks/x",
                "/other/a/1",
                "",
                "1"
            ]),
            json!([{"kind": "a b", "id": "-5"}]),
        ),
        (
            json!({"link": "/objects/Tasks/9223372036854775808"}),
            json!(["/objects/Tasks/9223372036854775808"]),
            json!(null),
        ),
        (
            json!({"link": null, "state": "s"}),
            json!(null),
            json!(null),
        ),
        (json!({"link": [], "state": "s"}), json!(null), json!(null)),
        (json!({"link": 5, "state": "s"}), json!(null), json!(null)),
    ] {
        let got = decode(&test, body.to_string().as_bytes());
        let of = |name: &str| got.get(name).cloned().unwrap_or_default();
        assert_eq!((of("links"), of("refs")), (links, refs), "{body}");
    }
    // Of duplicate names the last one counts, for the URLs, too.
    let other = "http://h/v1/objects/Tasks/1";
    let twice = format!(r#"{{"link": ["{url}"], "state": "s", "links": "{other}"}}"#);
    let got = decode(&test, twice.as_bytes());
    assert_eq!(got["links"], json!([other]));
    assert_eq!(got["refs"], json!([{"kind": "Tasks", "id": "1"}]));
}

fn decode(test: &TestContract, body: &[u8]) -> Json {
    let reply = Reply {
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        body: Bytes::copy_from_slice(body),
    };
    let decoded = test.rpc("Do").decode(&reply).unwrap();
    test.json("t.Res", &decoded.message)
}

#[test]
fn invalid_url_fields_are_reported() {
    const OUT: &str = "(google.api.field_behavior) = OUTPUT_ONLY, (drawbridge.v1.field)";
    for (field, option, want) in [
        (
            format!("repeated string s = 9 [{OUT}.urls_of = \"no\"];"),
            "urls_of",
            "there is no field `no`",
        ),
        (
            format!("repeated string s = 9 [{OUT}.urls_of = \"s\"];"),
            "urls_of",
            "is not read from a member of its own",
        ),
        (
            format!("string s = 9 [{OUT}.urls_of = \"link\"];"),
            "urls_of",
            "is for OUTPUT_ONLY repeated strings and messages",
        ),
        (
            "repeated string s = 9 [(drawbridge.v1.field).urls_of = \"link\"];".into(),
            "urls_of",
            "is for OUTPUT_ONLY repeated strings and messages",
        ),
        (
            "string s = 9 [(drawbridge.v1.field).url_pattern = \"/{id}\"];".into(),
            "url_pattern",
            "is for a repeated message with `urls_of`",
        ),
        (
            format!("repeated Ref s = 9 [{OUT}.urls_of = \"link\"];"),
            "url_pattern",
            "is not a path with variables",
        ),
        (
            format!("repeated Ref s = 9 [{OUT} = {{urls_of: \"link\" url_pattern: \"/{{no}}\"}}];"),
            "url_pattern",
            "`no` is not a single string or int64 of t.Ref",
        ),
        (
            format!("repeated Ref s = 9 [{OUT} = {{urls_of: \"link\" url_pattern: \"/{{s}}\"}}];"),
            "url_pattern",
            "`s` is not a single string or int64 of t.Ref",
        ),
        (
            format!(
                "repeated Ref s = 9 [{OUT} = {{urls_of: \"link\" url_pattern: \"//{{id}}\"}}];"
            ),
            "url_pattern",
            "is neither text nor",
        ),
    ] {
        let messages = MESSAGES.replacen("string state = 4;", &field, 1);
        let found = diagnostics(&unary(
            "option (google.api.http) = {get: \"/x\"};",
            &messages,
        ));
        let hit = |d: &Diagnostic| d.option.ends_with(option) && d.problem.contains(want);
        assert!(
            found.len() == 1 && hit(&found[0]),
            "{field}\n{}",
            printed(&found)
        );
    }
}
