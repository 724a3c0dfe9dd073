//! Decoding of replies.

mod success;

use super::*;

fn reply(status: u16, content_type: &str, body: &str) -> Reply {
    let mut headers = HeaderMap::new();
    if !content_type.is_empty() {
        let value = HeaderValue::from_str(content_type).unwrap();
        headers.insert(http::header::CONTENT_TYPE, value);
    }
    Reply {
        status: StatusCode::from_u16(status).unwrap(),
        headers,
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

fn test(response_body: &str) -> TestContract {
    TestContract::new(&unary(
        &format!(
            "option (google.api.http) = {{get: \"/x\" response_body: \"{response_body}\"}};
             option (drawbridge.v1.method).also_success = 300;"
        ),
        "message Req {}
         message Res {
           Thing thing = 1; repeated Thing things = 2; string text = 3; repeated string names = 4;
           map<string, int32> counts = 5; google.protobuf.Value any = 6; int64 number = 7;
           google.protobuf.Struct object = 8; google.protobuf.Timestamp at = 9;
           repeated Thing items = 10 [(drawbridge.v1.field).null_is_empty = true];
         }
         message Thing { string name = 1; int64 size = 2; }",
    ))
}

fn decode(test: &TestContract, reply: &Reply) -> Result<Json, Error> {
    let decoded = test.rpc("Do").decode(reply)?;
    Ok(test.json("t.Res", &decoded.message))
}

/// The service `S` with an rpc `Do` by POST, whose response has these fields.
fn change(options: &str, fields: &str) -> TestContract {
    TestContract::new(&unary(
        &format!("option (google.api.http) = {{post: \"/x\" {options}}};"),
        &format!(
            "message Req {{}} message Res {{ {fields} }} message Thing {{ string name = 1; }}"
        ),
    ))
}

#[test]
fn reply_to_a_delete_may_be_empty_whichever_binding_made_the_call() {
    use http::Method as Verb;
    for (first, second) in [("get", "delete"), ("delete", "get")] {
        let test = TestContract::new(&unary(
            &format!(
                "option (google.api.http) = {{{first}: \"/x/{{id}}\"
                   additional_bindings {{{second}: \"/y/{{name}}\"}}}};"
            ),
            "message Req { string id = 1; string name = 2; }
             message Res { Thing thing = 1; } message Thing { string name = 1; }",
        ));
        for (status, body) in [(204, ""), (200, ""), (200, "null"), (200, "{\"a\":1}")] {
            for (verb, is_ok) in [(Verb::GET, false), (Verb::DELETE, true)] {
                let reply = reply(status, "application/json", body);
                let got = test.rpc("Do").decode_reply_to(&verb, &reply);
                assert_eq!(got.is_ok(), is_ok, "{first} {verb} {status} {body}");
            }
        }
    }
}

#[test]
fn empty_replies_decode_only_where_the_contract_allows() {
    let thing =
        "message Req {} message Res { Thing thing = 1; } message Thing { string name = 1; }";
    let nothing = "message Req {} message Res {}";
    let of = |verb: &str, messages: &str| {
        let http = format!("option (google.api.http) = {{{verb}: \"/x\"}};");
        TestContract::new(&unary(&http, messages))
    };
    let of_post = |messages: &str| {
        let safe = "option (google.api.http) = {post: \"/x\"};
                    option idempotency_level = NO_SIDE_EFFECTS;";
        TestContract::new(&unary(safe, messages))
    };
    // Whether an empty body and a 204, and whether `null`, is an empty message.
    for (name, test, empty, null) in [
        ("a read", of("get", thing), false, false),
        ("a read by POST", of_post(thing), false, false),
        ("a read of a thing", test("thing"), false, false),
        ("a read of a list", test("things"), false, false),
        ("a read of texts", test("names"), false, false),
        (
            "a read of a list that may be null",
            test("items"),
            false,
            true,
        ),
        ("a read of arbitrary JSON", test("any"), true, true),
        ("a read of a map", test("counts"), true, true),
        ("a read of an object", test("object"), true, true),
        ("a read of nothing", of("get", nothing), true, true),
        ("a creation", of("post", thing), false, false),
        ("a change", of("put", thing), false, false),
        ("a change in part", of("patch", thing), false, false),
        ("a deletion", of("delete", thing), true, true),
    ] {
        for (status, body, good) in [
            (204, "", empty),
            (200, "", empty),
            (202, " \r\n", empty),
            (200, "null", null),
            (200, " null\n", null),
        ] {
            let got = test.rpc("Do").decode(&reply(status, "", body));
            match got {
                Ok(decoded) => {
                    assert!(good, "{name}: {status} {body}");
                    assert!(decoded.message.is_empty(), "{name}: {status} {body}");
                    assert_eq!(decoded.notes, Default::default());
                }
                Err(Error::NotTheResource { problem, .. }) => {
                    assert!(!good, "{name}: {status} {body}");
                    assert!(
                        problem.contains("expected a response body, found none"),
                        "{problem}"
                    );
                }
                Err(other) => panic!("{name}: {other}"),
            }
        }
    }
}

#[test]
fn error_body_of_the_family_is_recognized() {
    let test = test("thing");
    let body = r#"{"fault": {"message": "maintenance"}}"#;
    let got = test.rpc("Do").decode(&reply(200, "application/json", body));
    let Err(Error::ErrorBody {
        status, missing, ..
    }) = got
    else {
        panic!("{got:?}");
    };
    assert_eq!(status, 503);
    assert!(missing.contains("`name`"), "{missing}");
}

#[test]
fn response_body_selects_the_field() {
    for (response_body, body, want) in [
        (
            "",
            r#"{"thing": {"name": "n", "size": 5}, "other": [1]}"#,
            json!({"thing": {"name": "n", "size": "5"}}),
        ),
        ("thing", r#"{"name": "n"}"#, json!({"thing": {"name": "n"}})),
        // `unwrap` does not apply within the field.
        (
            "thing",
            r#"{"thing": {"name": "n"}, "size": 1}"#,
            json!({"thing": {"size": "1"}}),
        ),
        (
            "things",
            r#" [{"name": "a"}, {"name": "b"}] "#,
            json!({"things": [{"name": "a"}, {"name": "b"}]}),
        ),
        ("things", "[]", json!({})),
        ("text", r#""a\nb""#, json!({"text": "a\nb"})),
        ("names", r#"["a", "b"]"#, json!({"names": ["a", "b"]})),
        ("counts", r#"{"a": 1}"#, json!({"counts": {"a": 1}})),
        ("any", r#"[1, "x"]"#, json!({"any": [1.0, "x"]})),
        ("object", r#"{"a": null}"#, json!({"object": {"a": null}})),
        (
            "number",
            "9007199254740993",
            json!({"number": "9007199254740993"}),
        ),
        (
            "at",
            "\"2015-01-31T15:12:36\"",
            json!({"at": "2015-01-31T15:12:36Z"}),
        ),
    ] {
        let got = decode(&test(response_body), &reply(200, "application/json", body));
        assert_eq!(got.unwrap(), want, "{response_body}: {body}");
    }
}

#[test]
fn unexpected_replies_are_decode_errors() {
    for (response_body, content_type, body, want_path, want) in [
        (
            "",
            "text/html; charset=utf-8",
            "<html>",
            "",
            "expected JSON, found text/html; charset=utf-8",
        ),
        (
            "",
            "",
            "<html>",
            "",
            "found a response without a content type",
        ),
        (
            "thing",
            "text/plain",
            "OK",
            "",
            "found text/plain: check the upstream's endpoint",
        ),
        (
            "",
            "application/json",
            "{\"thing\": {\"name\": ",
            "",
            "thing.name: ",
        ),
        (
            "things",
            "application/json",
            "[{\"size\": 1, \"name\": \"a",
            "",
            "broken JSON at line 1",
        ),
        // The contract: a member has another type.
        (
            "",
            "application/json",
            "{\"thing\": {\"size\": NaN, \"name\": []}}",
            "thing.size",
            "",
        ),
        (
            "",
            "application/json",
            "{\"thing\": {\"size\": {}}}",
            "thing.size",
            "",
        ),
        (
            "",
            "application/json",
            "{\"things\": [{}, {\"size\": \"x\"}]}",
            "things[1].size",
            "",
        ),
        ("thing", "application/json", "{\"size\": []}", "size", ""),
        ("", "application/json", "{} {}", "", ""),
        ("", "application/json", "[{\"thing\": {}}]", "", ""),
        (
            "things",
            "application/json",
            "[{}",
            "",
            "broken JSON at line 1",
        ),
        (
            "things",
            "application/json",
            "[],\"text\":\"x\"",
            "",
            "broken JSON at line 1",
        ),
        (
            "names",
            "application/json",
            "[\"a\"]} {",
            "",
            "broken JSON at line 1",
        ),
        (
            "text",
            "application/json",
            "\"a\", \"number\": 1",
            "",
            "broken JSON at line 1",
        ),
        (
            "",
            "text/plain",
            "not json",
            "",
            "(the response is text/plain)",
        ),
    ] {
        let error = decode(&test(response_body), &reply(200, content_type, body)).unwrap_err();
        let (path, problem) = match &error {
            Error::Decode { path, problem, .. } => (&**path, problem),
            // Without a path: it is not about a member of the resource.
            Error::NotTheResource { problem, .. } => ("", problem),
            _ => panic!("{body}: {error:?}"),
        };
        assert_eq!(path, want_path, "{body}: {problem}");
        assert!(problem.contains(want), "{body}: {problem}");
    }
}

#[test]
fn response_without_fields_of_the_upstream_needs_no_body() {
    let of_gateway = "string next = 1 [(drawbridge.v1.field).gateway_only = true];";
    let decoded = change("", of_gateway)
        .rpc("Do")
        .decode(&reply(200, "text/plain", "OK"));
    assert!(decoded.unwrap().message.is_empty());
}

#[test]
fn byte_order_mark_is_no_part_of_the_body() {
    let mark = "\u{feff}";
    for (response_body, body, want) in [
        (
            "",
            r#"{"thing": {"name": "n"}}"#,
            json!({"thing": {"name": "n"}}),
        ),
        (
            "thing",
            r#" {"name": "n"}"#,
            json!({"thing": {"name": "n"}}),
        ),
        ("things", "[]", json!({})),
        ("counts", r#"{"a": 1}"#, json!({"counts": {"a": 1}})),
        ("text", r#""a""#, json!({"text": "a"})),
    ] {
        let reply = reply(200, "application/json", &format!("{mark}{body}"));
        let got = decode(&test(response_body), &reply).unwrap();
        assert_eq!(got, want, "{response_body}: {body}");
    }
    let utf16: Vec<u8> = "\u{feff}{}"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let mut reply = reply(200, "application/json", "");
    for body in [&utf16[..], &utf16[2..]] {
        reply.body = Bytes::copy_from_slice(body);
        let error = decode(&test(""), &reply).unwrap_err();
        assert!(error.to_string().contains("UTF-16"), "{error}");
    }
    for body in [&b"{\0\0\0}\0\0\0"[..], b"\xff\xfe\0\0{\0\0\0"] {
        reply.body = Bytes::from_static(body);
        let error = decode(&test(""), &reply).unwrap_err();
        assert!(error.to_string().contains("UTF-32"), "{error}");
    }
}

#[test]
fn document_of_a_two_step_call_is_read_by_the_rpc_of_its_path() {
    let test = TestContract::new(&proto(
        "service S {
           rpc GetThing(Req) returns (Thing) {
             option (google.api.http) = {get: \"/things/{id}\"};
           }
           rpc UpdateThing(UpdateReq) returns (Res) {
             option (google.api.http) = {put: \"/things/{thing_id}\"};
             option (drawbridge.v1.method).action = {
               same_path: true edits: {field: \"name\" target_member: \"name\"}
             };
           }
           rpc InvokeThing(Req) returns (Res) {
             option (google.api.http) = {post: \"/things/{id}/invoke\"};
             option (drawbridge.v1.method).action = {};
           }
           rpc InvokeOther(Req) returns (Res) {
             option (google.api.http) = {post: \"/others/{id}/invoke\"};
             option (drawbridge.v1.method).action = {};
           }
         }
         message Req { string id = 1; }
         message UpdateReq { string thing_id = 1; string name = 2; }
         message Res {}
         message Thing { string name = 1; string fault = 2; }",
    ));
    for (rpc, read) in [
        ("UpdateThing", Some("GetThing")),
        ("InvokeThing", Some("GetThing")),
        ("InvokeOther", None),
        ("GetThing", None),
    ] {
        let found = test.rpc(rpc).document_read().map(|read| &*read.name);
        assert_eq!(found, read, "{rpc}");
    }
    let read = test.rpc("UpdateThing").document_read().unwrap();
    for (body, is_document) in [
        (r#"{"name": "n"}"#, true),
        // A member that error bodies have, too.
        (r#"{"fault": "disk full", "more": 1}"#, true),
        (r#"{"maintenance": true}"#, false),
    ] {
        let got = read.decode(&reply(200, "application/json", body));
        assert_eq!(got.is_ok(), is_document, "{body}: {got:?}");
    }
}
