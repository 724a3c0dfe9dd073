//! Replies that are bare strings, and members of a oneof that share a name.

use super::*;

#[test]
fn bare_strings_are_values_or_errors() {
    let test = TestContract::new(&proto(
        r#"service S {
          rpc Types(Req) returns (Types) { option (google.api.http) = {get: "/types"}; }
          rpc Check(Req) returns (Checked) { option (google.api.http) = {post: "/check" body: "*"}; }
          rpc Start(Req) returns (Nothing) { option (google.api.http) = {post: "/start"}; }
        }
        message Req {}
        message Types { repeated Type types = 1; }
        message Type {
          option (drawbridge.v1.message).bare_text = "name";
          string name = 1;
          optional string description = 2;
        }
        message Checked {
          option (drawbridge.v1.message).text_is_error = true;
          string description = 1;
        }
        message Nothing {}"#,
    ));
    let reply = |status, body: &'static str| Reply {
        status: StatusCode::from_u16(status).unwrap(),
        headers: HeaderMap::new(),
        body: Bytes::from_static(body.as_bytes()),
    };
    let types = test
        .rpc("Types")
        .decode(&reply(
            200,
            r#"{"types": ["a\u0062", {"name": "c", "description": "d"}, ""]}"#,
        ))
        .unwrap();
    assert_eq!(
        test.json("t.Types", &types.message),
        json!({"types": [{"name": "ab"}, {"name": "c", "description": "d"}, {}]})
    );
    assert!(
        test.rpc("Types")
            .decode(&reply(200, r#"{"types": [5]}"#))
            .is_err()
    );

    let check = test.rpc("Check");
    let refused = check
        .decode(&reply(200, r#" "Invalid codes: \u005b'x'\u005d" "#))
        .unwrap_err();
    assert!(
        matches!(&refused, Error::ErrorInSuccess { problem, .. } if problem == "Invalid codes: ['x']")
    );
    assert!(check.decode(&reply(200, r#"{"description": "d"}"#)).is_ok());
    assert!(matches!(
        check.decode(&reply(200, r#""cut"#)),
        Err(Error::NotTheResource { .. })
    ));

    // A response without fields: the body of a 202 repeats its status.
    let start = test.rpc("Start");
    for body in [
        "<html><title>202 Accepted</title></html>",
        "202 Accepted",
        r#"{"code": "202 Accepted"}"#,
        "null",
        "",
    ] {
        assert!(
            start.decode(&reply(202, body)).unwrap().message.is_empty(),
            "{body}"
        );
    }
    assert!(start.decode(&reply(200, "<html>")).is_err());
    assert!(start.decode(&reply(200, "null")).is_ok());
}

#[test]
fn oneof_members_can_share_a_name() {
    let test = TestContract::new(&unary(
        r#"option (google.api.http) = {post: "/v1/x" body: "*"};"#,
        r#"message Req {
          oneof template_as {
            string template = 1 [(drawbridge.v1.field).required_in = "strict"];
            google.protobuf.Struct template_json = 2 [(drawbridge.v1.field).name = "template"];
          }
        }
        message Res {}"#,
    ));
    for (request, want) in [
        (
            json!({"template": "a: 1 # why\n"}),
            r##"{"template":"a: 1 # why\n"}"##,
        ),
        (
            json!({"template_json": {"a": 1}}),
            r#"{"template":{"a":1}}"#,
        ),
        (json!({}), "{}"),
    ] {
        assert_eq!(
            body(&test.bind(request.clone()).unwrap()),
            Some(want),
            "{request}"
        );
    }
    // Any member of the oneof is enough.
    assert!(test.bind_in(json!({"template_json": {}}), "strict").is_ok());
    assert_eq!(
        fault(&test.bind_in(json!({}), "strict").unwrap_err()).0,
        "template"
    );
    let apart = r#"message Req {
          string template = 1;
          google.protobuf.Struct template_json = 2 [(drawbridge.v1.field).name = "template"];
        }
        message Res {}"#;
    let refused = diagnostics(&unary(
        r#"option (google.api.http) = {post: "/v1/x" body: "*"};"#,
        apart,
    ));
    assert!(printed(&refused).contains("the name `template` is also the name"));
}
