//! Options of an rpc that say what is sent.

use super::*;

#[test]
fn media_type_of_a_json_body_is_reported() {
    let messages = r#"
        message Req {
          string id = 1; bytes data = 2; repeated bytes parts = 3; M m = 4; string text = 5;
        }
        message M { bytes data = 1; }
        message Res {}"#;
    for (http, media_type, more, want) in [
        ("put: \"/{id}\"", "a/b", "", "the rpc has no body"),
        ("put: \"/{id}\" body: \"*\"", "a/b", "", "the body is JSON"),
        ("put: \"/{id}\" body: \"m\"", "a/b", "", "the body is JSON"),
        (
            "put: \"/{id}\" body: \"parts\"",
            "a/b",
            "",
            "the body is JSON",
        ),
        (
            "put: \"/{id}\"",
            "a/b",
            "option (drawbridge.v1.method).constant_body = \"{}\";",
            "the body is JSON",
        ),
        (
            "put: \"/{id}\" body: \"data\" additional_bindings {put: \"/x\" body: \"m\"}",
            "a/b",
            "",
            "the body is JSON",
        ),
        (
            "put: \"/{id}\" body: \"data\"",
            "png",
            "",
            "`png` is not a media type",
        ),
        (
            "put: \"/{id}\" body: \"data\"",
            "*/*",
            "",
            "`*/*` is not a media type",
        ),
        (
            "put: \"/{id}\" body: \"text\"",
            "text/plain; charset=latin1",
            "",
            "a string is UTF-8",
        ),
    ] {
        let proto = unary(
            &format!(
                "option (google.api.http) = {{ {http} }}; {more}
                 option (drawbridge.v1.method).body_media_type = \"{media_type}\";"
            ),
            messages,
        );
        refused(&proto, "method body_media_type", want, http);
    }
}

#[test]
fn contradictory_method_rules_are_reported() {
    let get = "option (google.api.http) = {get: \"/v1/x\"};";
    let post = "option (google.api.http) = {post: \"/v1/x\" body: \"*\"};";
    let thing = "option (google.api.http) = {post: \"/v1/x/{id}\"};";
    let invoke = "option (google.api.http) = {post: \"/v1/x/invoke\"};";
    for (http, rule, option, want) in [
        (
            post,
            "constant_body: \"{}\"",
            "constant_body",
            "already has a body",
        ),
        (get, "constant_body: \"{\"", "constant_body", "is not JSON"),
        (get, "also_success: 204", "also_success", "204 is not"),
        (get, "also_success: 99", "also_success", "99 is not"),
        (
            get,
            "constant_query: \"?a=b\"",
            "constant_query",
            "must not begin with `?` or `&`",
        ),
        (
            get,
            "constant_query: \"a=b c\"",
            "constant_query",
            "must be percent-encoded",
        ),
        (
            thing,
            "action: {}",
            "action",
            "the path must end in a fixed segment",
        ),
        (
            invoke,
            "action: {name_value: \"go\"}",
            "action.name_member",
            "is missing",
        ),
        (
            invoke,
            "action: {document: \"no\"}",
            "action.document",
            "t.Req has no field `no`",
        ),
        (
            invoke,
            "action: {document: \"id\"}",
            "action.document",
            "must be a single message",
        ),
        (
            invoke,
            "action: {members: [{key: \"a\" value: \"nope\"}]}",
            "action.members",
            "`a`: is not JSON",
        ),
        (
            invoke,
            "action: {} constant_body: \"{}\"",
            "constant_body",
            "already has a body",
        ),
    ] {
        let options = format!("{http} option (drawbridge.v1.method) = {{ {rule} }};");
        let diagnostic = one(&unary(&options, PLAIN));
        assert_eq!(diagnostic.element, "t.S.Do", "{rule}");
        assert_eq!(
            diagnostic.option,
            format!("(drawbridge.v1.method).{option}"),
            "{rule}"
        );
        assert!(diagnostic.problem.contains(want), "{rule}\n{diagnostic}");
    }
    let options = "option (google.api.http) = {post: \"/v1/x/invoke\" body: \"*\"};
                   option (drawbridge.v1.method).action = {};";
    let diagnostic = one(&unary(options, PLAIN));
    assert!(
        diagnostic
            .problem
            .contains("the body of an action is its document")
    );
}

/// Options of an rpc, each with a contradiction.
#[test]
fn unknown_names_in_method_rules_are_reported() {
    const MESSAGES: &str = r#"
        message Req {
          string id = 1; string other = 2; repeated string ids = 3; Thing thing = 4;
          map<string, string> labels = 5 [(drawbridge.v1.field).gateway_only = true];
        }
        message Res { string id = 1; Thing thing = 2; }
        message Thing { string id = 1; repeated string ids = 2; }"#;
    let get = "option (google.api.http) = {get: \"/v1/{id}\"};";
    let post = "option (google.api.http) = {post: \"/v1/x\" body: \"*\"};";
    let invoke = "option (google.api.http) = {post: \"/v1/x/invoke\"};";
    for (http, rule, option, want) in [
        (
            post,
            "path_in: {key: \"d\" value: \"v1/x\"}",
            "path_in",
            "path `v1/x`: `v1/x` does not begin with `/`",
        ),
        (
            post,
            "at_least_one: {fields: [\"id\", \"no\"]}",
            "at_least_one",
            "t.Req has no field `no`",
        ),
        (
            post,
            "at_least_one: {fields: \"id\"}",
            "at_least_one",
            "needs at least two fields: mark a single one REQUIRED",
        ),
        (
            post,
            "count_members: {key: \"n\" value: \"id\"}",
            "count_members",
            "`n`: `id` is not a repeated field of this message",
        ),
        (
            post,
            "count_members: {key: \"n\" value: \"no\"}",
            "count_members",
            "`n`: `no` is not a repeated field of this message",
        ),
        (
            post,
            "count_members: {key: \"other\" value: \"ids\"}",
            "count_members",
            "`other`: must have a name that no field has",
        ),
        (
            get,
            "count_members: {key: \"n\" value: \"ids\"}",
            "count_members",
            "`n`: needs the body `*`",
        ),
        (
            post,
            "response_choices: {field: \"thing\"}",
            "response_choices",
            "`member` is empty",
        ),
        (
            post,
            "response_choices: {member: \"m\" field: \"no\"}",
            "response_choices",
            "t.Res has no field `no`",
        ),
        (
            invoke,
            "action: {edits: {field: \"no\"}}",
            "action.edits",
            "`no`: t.Req has no such field",
        ),
        (
            post,
            "check: {checker: \"x\" field: \"labels\" id_field: \"id\"}",
            "check",
            "is for a two-step call: it has no `action`",
        ),
        (
            invoke,
            "action: {} check: {checker: \"x\" field: \"labels\" id_field: \"id\"}",
            "check",
            "the family t has no checker `x`",
        ),
    ] {
        let options = format!("{http} option (drawbridge.v1.method) = {{ {rule} }};");
        let found = diagnostics(&unary(&options, MESSAGES));
        // Diagnostics of the query are reported, too.
        let of_rules: Vec<_> = found
            .iter()
            .filter(|diagnostic| diagnostic.option != "google.api.http")
            .collect();
        let [diagnostic] = &of_rules[..] else {
            panic!("{rule}: {}", printed(&found));
        };
        assert_eq!(
            diagnostic.option,
            format!("(drawbridge.v1.method).{option}"),
            "{rule}"
        );
        assert_eq!(
            (&*diagnostic.file, &*diagnostic.element),
            ("t.proto", "t.S.Do"),
            "{rule}"
        );
        assert!(diagnostic.problem.contains(want), "{rule}\n{diagnostic}");
    }
}

/// Only the family of JP1/AO has checkers.
#[test]
fn check_with_unknown_fields_is_reported() {
    for (check, want) in [
        (
            "checker: \"nope\"",
            "the family jp1ao has no checker `nope`",
        ),
        (
            "checker: \"property-definitions\" field: \"no\" id_field: \"id\"",
            "t.Req has no field `no`",
        ),
        (
            "checker: \"property-definitions\" field: \"id\" id_field: \"id\"",
            "`id` is not a map",
        ),
        (
            "checker: \"property-definitions\" field: \"labels\" id_field: \"no\"",
            "t.Req has no field `no`",
        ),
    ] {
        let diagnostic = one(&unary(
            &format!(
                "option (google.api.http) = {{post: \"/v1/x/invoke\"}};
                 option (drawbridge.v1.method) = {{ action: {{}} check: {{ {check} }} }};"
            ),
            "option (drawbridge.v1.file).family = \"jp1ao\";
             message Req {
               string id = 1 [(drawbridge.v1.field).gateway_only = true];
               map<string, string> labels = 2 [(drawbridge.v1.field).gateway_only = true];
             }
             message Res {}",
        ));
        assert_eq!(diagnostic.option, "(drawbridge.v1.method).check", "{check}");
        assert!(diagnostic.problem.contains(want), "{check}\n{diagnostic}");
    }
}
