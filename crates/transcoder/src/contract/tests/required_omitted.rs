//! `required`, `omitted` and `constant_members`: messages that several rpcs share.

use super::*;

const MESSAGES: &str = r#"
    message Req { string id = 1; Thing thing = 2; string note = 3 [(drawbridge.v1.field).query = true]; }
    message Thing {
      string name = 1;
      string place = 2;
      optional string mode = 3;
      Thing inner = 4;
      repeated Thing items = 5;
    }
    message Bare { option (drawbridge.v1.message).as_array = "a"; repeated string a = 1; }
    message Res {}"#;

fn document(call: &Call) -> Json {
    serde_json::from_str(body(call).expect("a body")).expect("the body is JSON")
}

fn options(http: &str, rules: &str) -> String {
    format!(
        "option (google.api.http) = {{ {http} }};
         option (drawbridge.v1.method) = {{ {rules} }};"
    )
}

#[test]
fn required_and_omitted_apply_per_rpc() {
    let test = TestContract::new(&unary(
        &options(
            "put: \"/things/{id}\" body: \"thing\"",
            "required: [\"thing.name\", \"thing.items.name\"]
             omitted: [\"thing.place\", \"thing.inner.mode\"]
             constant_members: [{key: \"z\", value: \"[1]\"}, {key: \"kind\", value: \"\\\"x\\\"\"}]",
        ),
        MESSAGES,
    ));
    for (thing, want) in [
        (
            json!({"name": "n", "place": "p", "mode": "m"}),
            Ok(json!({"name": "n", "mode": "m", "kind": "x", "z": [1]})),
        ),
        (
            json!({"name": "n", "inner": {"mode": "m", "place": "p"}, "items": [{"name": "i", "place": "q"}]}),
            Ok(
                json!({"name": "n", "inner": {"place": "p"}, "items": [{"name": "i", "place": "q"}],
                      "kind": "x", "z": [1]}),
            ),
        ),
        (json!({"place": "p"}), Err(("thing.name", "is required"))),
        (
            json!({"name": "n", "items": [{}]}),
            Err(("thing.items[0].name", "is required")),
        ),
    ] {
        let call = test.bind(json!({"id": "1", "thing": thing}));
        match (&call, want) {
            (Ok(call), Ok(want)) => assert_eq!(document(call), want, "{thing}"),
            (Err(error), Err(want)) => assert_eq!(fault(error), want, "{thing}"),
            _ => panic!("{thing}: {call:?}"),
        }
    }
    // An unset body has the constant members, too.
    let call = test.bind(json!({"id": "1"})).unwrap();
    assert_eq!(document(&call), json!({"kind": "x", "z": [1]}));
}

#[test]
fn constant_members_are_added_to_an_object_body() {
    let test = TestContract::new(&unary(
        &options(
            "post: \"/things/{id}\" body: \"*\"",
            "omitted: \"thing.place\" constant_members: {key: \"mode\", value: \"null\"}",
        ),
        MESSAGES,
    ));
    for (request, want) in [
        (json!({"id": "1", "note": "n"}), json!({"mode": null})),
        (
            json!({"id": "1", "thing": {"name": "n", "place": "p"}}),
            json!({"mode": null, "thing": {"name": "n"}}),
        ),
    ] {
        assert_eq!(document(&test.bind(request).unwrap()), want);
    }
}

#[test]
fn contradictory_body_rules_are_reported() {
    let put = "put: \"/things/{id}\" body: \"thing\"";
    let post = "post: \"/things/{id}\" body: \"*\"";
    let get = "get: \"/things/{id}\"";
    let nested = "put: \"/things/{thing.name}\" body: \"*\"";
    let member = "constant_members: {key: \"name\", value: \"1\"}";
    for (http, rule, option, want) in [
        (
            put,
            "required: \"thing.no\"",
            "required",
            "t.Thing has no field `no`",
        ),
        (
            put,
            "required: \"no.name\"",
            "required",
            "t.Req has no field `no`",
        ),
        (put, "required: \"\"", "required", "t.Req has no field ``"),
        (post, "required: \"thing\"", "required", "annotate it there"),
        (
            put,
            "omitted: \"thing.name.x\"",
            "omitted",
            "`name` is not a message",
        ),
        (
            get,
            "omitted: \"thing.name\"",
            "omitted",
            "is not in the body",
        ),
        (
            nested,
            "omitted: \"thing.name\"",
            "omitted",
            "is not in the body",
        ),
        (
            put,
            "required: \"thing.inner.name\" omitted: \"thing.inner\"",
            "omitted",
            "a field in `required` cannot be omitted",
        ),
        (
            get,
            member,
            "constant_members",
            "the body must be a message",
        ),
        (
            put,
            member,
            "constant_members",
            "`name` is also a field of t.Thing",
        ),
        (
            post,
            "constant_members: {key: \"a\", value: \"x\"}",
            "constant_members",
            "`a`: is not JSON",
        ),
    ] {
        let diagnostics = diagnostics(&unary(&options(http, rule), MESSAGES));
        // Diagnostics of the query are reported, too.
        let of_rules: Vec<_> = diagnostics
            .iter()
            .filter(|r| r.option != "google.api.http")
            .collect();
        let [diagnostic] = &of_rules[..] else {
            panic!("{rule}: {diagnostics:?}");
        };
        assert_eq!(
            diagnostic.option,
            format!("(drawbridge.v1.method).{option}"),
            "{rule}"
        );
        assert!(diagnostic.problem.contains(want), "{rule}\n{diagnostic}");
    }
    let bare = "message Req { Bare bare = 1; } message Res {}
        message Bare { option (drawbridge.v1.message).as_array = \"a\"; repeated string a = 1; }";
    let rules = options("post: \"/x\" body: \"bare\"", member);
    assert_eq!(diagnostics(&unary(&rules, bare)).len(), 1);
}
