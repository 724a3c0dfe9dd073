//! Decoding of replies.

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
        room: Default::default(),
    }
}

fn world(response_body: &str) -> World {
    World::new(&unary(
        &format!(
            "option (google.api.http) = {{get: \"/x\" response_body: \"{response_body}\"}};
             option (drawbridge.v1.method).also_success = 300;"
        ),
        "message Req {}
         message Res {
           Thing thing = 1; repeated Thing things = 2; string text = 3; repeated string names = 4;
           map<string, int32> counts = 5; google.protobuf.Value any = 6; int64 number = 7;
           google.protobuf.Struct object = 8; google.protobuf.Timestamp at = 9;
         }
         message Thing { string name = 1; int64 size = 2; }",
    ))
}

fn decode(world: &World, reply: &Reply) -> Result<Json, Error> {
    let decoded = world.rpc("Do").decode(reply)?;
    Ok(world.json("t.Res", &decoded.message))
}

#[test]
fn empty_replies_decode_only_where_the_contract_allows() {
    let thing =
        "message Req {} message Res { Thing thing = 1; } message Thing { string name = 1; }";
    let nothing = "message Req {} message Res {}";
    let of = |verb: &str, messages: &str| {
        let http = format!("option (google.api.http) = {{{verb}: \"/x\"}};");
        World::new(&unary(&http, messages))
    };
    let world_of_post = |messages: &str| {
        let safe = "option (google.api.http) = {post: \"/x\"};
                    option idempotency_level = NO_SIDE_EFFECTS;";
        World::new(&unary(safe, messages))
    };
    // Whether an empty body, and whether `null`, is an empty message.
    for (name, world, empty, null) in [
        ("a read", of("get", thing), false, false),
        ("a read by POST", world_of_post(thing), false, false),
        ("a read of a thing", world("thing"), false, false),
        ("a read of a list", world("things"), false, true),
        ("a read of texts", world("names"), false, true),
        ("a read of arbitrary JSON", world("any"), false, true),
        ("a read of nothing", of("get", nothing), true, true),
        ("a creation", of("post", thing), true, true),
        ("a change", of("put", thing), true, true),
        ("a change in part", of("patch", thing), true, true),
        ("a deletion", of("delete", thing), true, true),
    ] {
        for (status, body, good) in [
            (204, "", true),
            (204, "ignored", true),
            (200, "", empty),
            (202, " \r\n", empty),
            (200, "null", null),
            (200, " null\n", null),
        ] {
            let got = world.rpc("Do").decode(&reply(status, "", body));
            match got {
                Ok(decoded) => {
                    assert!(good, "{name}: {status} {body}");
                    assert!(decoded.message.is_empty(), "{name}: {status} {body}");
                    assert_eq!(decoded.notes, Default::default());
                }
                Err(Error::Decode { path, problem, .. }) => {
                    assert!(!good, "{name}: {status} {body}");
                    assert_eq!(path, "");
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
fn response_body_selects_the_field() {
    for (response_body, body, want) in [
        (
            "",
            r#"{"thing": {"name": "n", "size": 5}, "other": [1]}"#,
            json!({"thing": {"name": "n", "size": "5"}}),
        ),
        ("thing", r#"{"name": "n"}"#, json!({"thing": {"name": "n"}})),
        ("thing", "{}", json!({"thing": {}})),
        // `unwrap` does not apply within the field.
        ("thing", r#"{"thing": {"name": "n"}}"#, json!({"thing": {}})),
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
        let got = decode(&world(response_body), &reply(200, "application/json", body));
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
            "thing.name",
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
        let error = decode(&world(response_body), &reply(200, content_type, body)).unwrap_err();
        let Error::Decode { path, problem, .. } = &error else {
            panic!("{body}: {error:?}");
        };
        assert_eq!(path, want_path, "{body}: {problem}");
        assert!(problem.contains(want), "{body}: {problem}");
    }
}

#[test]
fn also_success_adds_statuses() {
    let world = world("");
    assert_eq!(*world.rpc("Do").also_success, [300]);
}
