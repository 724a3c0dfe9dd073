//! Bodies of requests.

use super::*;

#[test]
fn body_holds_the_fields_outside_path_and_query() {
    let messages = r#"
        message Req {
          string id = 1;
          Thing thing = 2;
          repeated string tags = 3;
          bool dry_run = 4 [(drawbridge.v1.field).query = true];
          bool follow = 5 [(drawbridge.v1.field).gateway_only = true];
          string made = 6 [(google.api.field_behavior) = OUTPUT_ONLY];
          string text = 7;
        }
        message Thing {
          string name = 1;
          optional int64 size = 2;
          string state = 3 [(google.api.field_behavior) = OUTPUT_ONLY];
          repeated Thing parts = 4;
          string own = 5 [(drawbridge.v1.field).gateway_only = true];
        }
        message Res {}"#;
    let all = json!({
        "id": "i", "tags": ["a"], "dryRun": true, "follow": true, "made": "m",
        "thing": {"name": "n", "size": 5, "state": "s", "parts": [{"state": "s"}, {"name": "p"}]},
    });
    let some = json!({"id": "i"});
    let thing = r#"{"name":"n","size":5,"parts":[{},{"name":"p"}]}"#;
    for (rule, request, query, want) in [
        (
            "post: \"/{id}\" body: \"*\"",
            &all,
            "dry_run=true",
            Some(format!(r#"{{"thing":{thing},"tags":["a"]}}"#)),
        ),
        ("post: \"/{id}\" body: \"*\"", &some, "", Some("{}".into())),
        (
            "put: \"/{id}\" body: \"thing\"",
            &json!({"id": "i", "thing": all["thing"]}),
            "",
            Some(thing.into()),
        ),
        ("put: \"/{id}\" body: \"thing\"", &some, "", None),
        (
            "put: \"/{id}\" body: \"thing\"",
            &json!({"id": "i", "thing": {}}),
            "",
            Some("{}".into()),
        ),
        // Path fields are never in the body, at any depth.
        (
            "patch: \"/{thing.name}\" body: \"thing\"",
            &json!({"thing": all["thing"]}),
            "",
            Some(r#"{"size":5,"parts":[{},{"name":"p"}]}"#.into()),
        ),
        (
            "patch: \"/{thing.name}\" body: \"*\"",
            &json!({"thing": {"name": "n"}, "text": "t"}),
            "",
            Some(r#"{"thing":{},"text":"t"}"#.into()),
        ),
    ] {
        let test = http(rule, messages);
        let call = test.bind(request.clone());
        let call = call.unwrap_or_else(|error| panic!("{rule}: {error}"));
        assert_eq!(call.query, query, "{rule} {request}");
        assert_eq!(body(&call), want.as_deref(), "{rule} {request}");
    }
}

#[test]
fn body_can_be_one_field() {
    let test = http(
        "post: \"/{id}\" body: \"things\"",
        "message Req { string id = 1; repeated Thing things = 2; string text = 3; }
         message Thing { string name = 1; E kind = 2 [(drawbridge.v1.field).absent_in = \"b\"];
           string kind_raw = 3 [(drawbridge.v1.field).raw_of = \"kind\"]; }
         enum E { E_UNSPECIFIED = 0; E_ONE = 1; }
         message Res {}",
    );
    let call = test
        .bind(json!({"id": "i", "things": [{"name": "a", "kind": "E_ONE"}, {}], "text": "t"}))
        .unwrap();
    assert_eq!(body(&call), Some(r#"[{"name":"a","kind":"ONE"},{}]"#));
    // All other fields are in the query.
    assert_eq!(call.query, "text=t");
    let call = test
        .bind_in(
            json!({"id": "i", "things": [{"name": "a", "kindRaw": "new"}]}),
            "b",
        )
        .unwrap();
    assert_eq!(body(&call), Some(r#"[{"name":"a"}]"#));

    let test = TestContract::new(&unary(
        "option (google.api.http) = {post: \"/{id}\" body: \"text\"};",
        "message Req { string id = 1; string text = 2; } message Res {}",
    ));
    let call = test.bind(json!({"id": "i", "text": "a\"b"})).unwrap();
    assert_eq!(body(&call), Some(r#""a\"b""#));
    let call = test.bind(json!({"id": "i"})).unwrap();
    assert_eq!(body(&call), None);

    for (kind, value, want) in [
        ("google.protobuf.Struct", json!({"a": 5}), r#"{"a":5}"#),
        ("google.protobuf.Struct", json!({}), "{}"),
        ("google.protobuf.Value", json!([1, null]), "[1,null]"),
        ("google.protobuf.Value", Json::Null, "null"),
        ("optional int64", json!(0), "0"),
    ] {
        let test = http(
            "post: \"/x\" body: \"value\"",
            &format!("message Req {{ {kind} value = 1; }} message Res {{}}"),
        );
        let call = test.bind(json!({ "value": value })).unwrap();
        assert_eq!(body(&call), Some(want), "{kind}");
    }
}

#[test]
fn constant_body_is_sent_verbatim() {
    let test = TestContract::new(&unary(
        "option (google.api.http) = {post: \"/{id}/actions\"};
         option (drawbridge.v1.method).constant_body = '{\"suspend\": null}';",
        "message Req { string id = 1; string q = 2; } message Res {}",
    ));
    let call = test.bind(json!({"id": "i", "q": "x"})).unwrap();
    assert_eq!(body(&call), Some(r#"{"suspend": null}"#));
    assert_eq!(call.query, "q=x");
}

#[test]
fn action_document_is_optional() {
    let test = TestContract::new(&unary(
        r#"option (google.api.http) = {
             post: "/objects/{project_id}/Services/{id}/actions/release/invoke"
             body: "document"
           };
           option (drawbridge.v1.method) = {
             constant_query: "v=1"
             action: {
               name_member: "name" name_value: "release" document: "document"
               members: [{key: "parameters" value: "[]"}, {key: "method" value: "\"POST\""}]
             }
           };"#,
        "message Req { string project_id = 3 [
           (drawbridge.v1.field).upstream_value = \"project_id\"];
           int64 id = 1; google.protobuf.Struct document = 2; string q = 4; }
         message Res {}",
    ));
    let rpc = test.rpc("Do");
    let action = rpc.action.as_ref().unwrap();
    assert_eq!(action.name, Some(("name".into(), "release".into())));
    let members: Vec<(&str, &str)> = action.members.iter().map(|(n, j)| (&**n, &**j)).collect();
    assert_eq!(members, [("method", "\"POST\""), ("parameters", "[]")]);

    let call = test.bind(json!({"id": 41, "q": "x"})).unwrap();
    assert_eq!(call.path, "/objects//Services/41/actions/release/invoke");
    assert_eq!((&*call.query, body(&call)), ("q=x&v=1", None));
    let wire = test.wire("t.Req", json!({"id": 41, "q": "x"}));
    let get = rpc.document_call(&wire).unwrap();
    assert_eq!(get.path, "/objects//Services/41/actions/release");
    assert_eq!(get.verb, http::Method::GET);
    assert_eq!((&*get.query, body(&get)), ("v=1", None));
    assert_eq!(get.project, Some(9..9));
    assert_eq!(get.idempotency, Idempotency::NoSideEffects);

    let wire = test.wire(
        "t.Req",
        json!({"id": 41, "document": {"name": "x", "n": 5}}),
    );
    let document = rpc.document(&wire).unwrap().unwrap();
    let sent: Json = serde_json::from_slice(&document).unwrap();
    assert_eq!(sent, json!({"name": "x", "n": 5}));
    assert_eq!(rpc.bind(&wire, "").unwrap().body, Some(document));
    let none = test.wire("t.Req", json!({"id": 41}));
    assert_eq!(rpc.document(&none).unwrap(), None);
}
