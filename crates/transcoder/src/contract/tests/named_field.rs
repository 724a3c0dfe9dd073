//! Fields that name the resource of a call.

use super::*;
use crate::contract::Unnamed;

const MESSAGES: &str = r#"
    message Req {
      string id = 1;
      string name = 2;
      repeated string names = 3;
      oneof by { string key = 4; string other = 5; }
      Thing thing = 6;
      int64 number = 7;
      bool flag = 8;
      string own = 9 [(drawbridge.v1.field).gateway_only = true];
      repeated Thing things = 10;
    }
    message Thing { string id = 1; Thing below = 2; }
    message Res { repeated Thing items = 1; }"#;

fn contract(http: &str) -> TestContract {
    TestContract::new(&unary(
        &format!("option (google.api.http) = {{{http}}};"),
        MESSAGES,
    ))
}

/// Returns the result as text: the value, or why there is none.
fn named(test: &TestContract, field: &str, also: &[&str], request: &[u8]) -> String {
    match test.rpc("Do").named_field(field, also) {
        Err(why) => why.to_owned(),
        Ok(named) => match named.of(request) {
            Ok(value) => value.into_owned(),
            Err(Unnamed::Other(name)) => format!("also {name}"),
            Err(why) => format!("{why:?}"),
        },
    }
}

#[test]
fn field_names_the_resource_where_the_path_or_nothing_else_does() {
    let in_path = "patch: \"/things/{id}\" body: \"*\"";
    let nested = "patch: \"/things/{thing.id}\" body: \"*\"";
    let create = "post: \"/things\" body: \"*\"";
    for (http, field, also, want) in [
        (in_path, "id", &[][..], "Unset"),
        (
            in_path,
            "name",
            &[],
            "does not name the resource: the path does",
        ),
        (in_path, "name", &["id"], "Unset"),
        (in_path, "names", &[], "has several values"),
        (in_path, "flag", &[], "is no text and no integer"),
        (in_path, "thing", &[], "is no text and no integer"),
        (in_path, "missing", &[], "has no such field"),
        (in_path, "things.id", &[], "has no such field"),
        (in_path, "id.x", &[], "has no such field"),
        (nested, "thing.id", &[], "Unset"),
        (
            nested,
            "id",
            &[],
            "does not name the resource: the path does",
        ),
        (create, "name", &[], "Unset"),
        (create, "number", &[], "Unset"),
        (create, "thing.below.id", &[], "Unset"),
        (create, "own", &[], "is not sent"),
        // One of the paths names the resource by another field.
        (
            "patch: \"/things/{id}\" body: \"*\" additional_bindings {patch: \"/named/{name}\" body: \"*\"}",
            "id",
            &[],
            "does not name the resource: the path does",
        ),
        (
            "patch: \"/{name}/things/{id}\" body: \"*\" additional_bindings {patch: \"/things/{id}\" body: \"*\"}",
            "id",
            &[],
            "Unset",
        ),
    ] {
        assert_eq!(
            named(&contract(http), field, also, b""),
            want,
            "{http} {field}"
        );
    }
}

#[test]
fn value_must_be_the_only_one() {
    let test = contract("post: \"/things\" body: \"*\"");
    let wire = |json| test.wire("t.Req", json);
    let a = || wire(json!({"name": "a"}));
    for (field, request, want) in [
        ("name", a(), "a"),
        ("name", wire(json!({"name": "a", "number": "1"})), "a"),
        ("name", [a(), a()].concat(), "Ambiguous"),
        (
            "name",
            [a(), wire(json!({"name": "b"}))].concat(),
            "Ambiguous",
        ),
        ("name", b"\x12\x01\xff".to_vec(), "Ambiguous"),
        ("name", b"\x10\x01".to_vec(), "Ambiguous"),
        ("name", [a(), b"\xff".to_vec()].concat(), "Ambiguous"),
        ("name", b"\x12\x00".to_vec(), "Unset"),
        ("key", wire(json!({"key": "a"})), "a"),
        ("key", wire(json!({"other": "a"})), "Ambiguous"),
        (
            "key",
            [wire(json!({"other": "b"})), wire(json!({"key": "a"}))].concat(),
            "Ambiguous",
        ),
        ("number", wire(json!({"number": "12"})), "12"),
        ("number", wire(json!({"number": "0"})), "Unset"),
        ("thing.id", wire(json!({"thing": {"id": "a"}})), "a"),
        (
            "thing.id",
            wire(json!({"thing": {"below": {"id": "a"}}})),
            "Unset",
        ),
        (
            "thing.below.id",
            wire(json!({"thing": {"below": {"id": "a"}}})),
            "a",
        ),
        // Protobuf merges the parts of a message.
        (
            "thing.id",
            [
                wire(json!({"thing": {"id": "a"}})),
                wire(json!({"thing": {"id": "b"}})),
            ]
            .concat(),
            "Ambiguous",
        ),
    ] {
        assert_eq!(
            named(&test, field, &[], &request),
            want,
            "{field} {request:?}"
        );
    }
}
