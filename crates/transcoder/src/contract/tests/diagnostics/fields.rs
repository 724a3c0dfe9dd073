//! Options of messages, fields and enums.

use super::*;

#[test]
fn contradictory_message_and_field_rules_are_reported() {
    for (messages, element, option, want) in [
        (
            "message Req { option (drawbridge.v1.message).bare_text = \"ids\"; repeated string ids = 1; }",
            "t.Req",
            "(drawbridge.v1.message).bare_text",
            "`ids` is not a single string field of this message",
        ),
        (
            "message Req { option (drawbridge.v1.message).bare_text = \"no\"; string id = 1; }",
            "t.Req",
            "(drawbridge.v1.message).bare_text",
            "`no` is not a single string field of this message",
        ),
        (
            "message Req {
               option (drawbridge.v1.message) = {bare_text: \"id\" text_is_error: true};
               string id = 1;
             }",
            "t.Req",
            "(drawbridge.v1.message).text_is_error",
            "remove one of them",
        ),
        (
            "message Req { int32 a = 1 [(drawbridge.v1.field).field_names = {message: \"Res\"}]; }",
            "t.Req.a",
            "(drawbridge.v1.field).field_names",
            "only for strings",
        ),
        (
            "message Req { string a = 1 [(drawbridge.v1.field).field_names = {message: \"No\"}]; }",
            "t.Req.a",
            "(drawbridge.v1.field).field_names",
            "there is no message `No`",
        ),
        (
            "message Req {
               string a = 1 [(drawbridge.v1.field).condition = {operator: \"eq\"}];
               repeated E e = 2;
             }
             enum E {
               option (drawbridge.v1.enum_type).lenient = true;
               E_UNSPECIFIED = 0;
               E_A = 1 [(drawbridge.v1.enum_value).name = \"a 1\"];
               E_B = 2 [(drawbridge.v1.enum_value).name = \"A-2\"];
             }",
            "t.E",
            "(drawbridge.v1.enum_type).lenient",
            "compared by letters only, `a` is the text of two values",
        ),
    ] {
        let options = "option (google.api.http) = {get: \"/v1/x\"};";
        let found = diagnostics(&unary(
            options,
            &format!("{messages} message Res {{ string id = 1; }}"),
        ));
        let hit = found.iter().any(|diagnostic| {
            (&*diagnostic.file, &*diagnostic.element) == ("t.proto", element)
                && diagnostic.option == option
                && diagnostic.problem.contains(want)
        });
        assert!(hit, "{option}: {}\n{messages}", printed(&found));
    }
}

#[test]
fn unsuitable_conditions_and_forms_are_reported() {
    let expression = |field: &str| format!("Filter f = 1; }} message Filter {{ {field}");
    for (field, option, want) in [
        (
            expression("map<string, string> m = 1 [(drawbridge.v1.field).condition = {}];"),
            "field condition",
            "a map cannot be a condition",
        ),
        (
            expression("double d = 1 [(drawbridge.v1.field).condition = {}];"),
            "field condition",
            "fractions and bytes",
        ),
        (
            expression("bytes b = 1 [(drawbridge.v1.field).condition = {}];"),
            "field condition",
            "fractions and bytes",
        ),
        (
            expression("google.protobuf.Struct s = 1 [(drawbridge.v1.field).condition = {}];"),
            "field condition",
            "a condition is a scalar, an enum or a Timestamp, not a message",
        ),
        (
            expression("string s = 1 [(drawbridge.v1.field).condition = {member: \"a'b\"}];"),
            "field condition",
            "printable ASCII without quotes",
        ),
        (
            expression("string s = 1 [(drawbridge.v1.field).condition = {operator: \"eq (\"}];"),
            "field condition",
            "printable ASCII without quotes",
        ),
        (
            "string n = 1 [(drawbridge.v1.field).additional_properties = true];".into(),
            "field additional_properties",
            "only for a single google.protobuf.Struct",
        ),
        (
            "repeated google.protobuf.Struct n = 1 [(drawbridge.v1.field).additional_properties = true];".into(),
            "field additional_properties",
            "only for a single google.protobuf.Struct",
        ),
        (
            "google.protobuf.Struct n = 1 [(drawbridge.v1.field) = {additional_properties: true name: \"x\"}];"
                .into(),
            "field additional_properties",
            "cannot be combined with `name`",
        ),
        (
            "google.protobuf.Struct a = 1 [(drawbridge.v1.field).additional_properties = true];
             google.protobuf.Struct b = 2 [(drawbridge.v1.field).additional_properties = true];"
                .into(),
            "field additional_properties",
            "another field already has this option",
        ),
        (
            "string s = 1 [(drawbridge.v1.field).form = FORM_EXPRESSION];".into(),
            "field form",
            "EXPRESSION is for a single message",
        ),
        (
            "repeated bool s = 1 [(drawbridge.v1.field).form = FORM_FLAG];".into(),
            "field form",
            "FLAG is for a single bool",
        ),
        (
            "string s = 1 [(drawbridge.v1.field).form = FORM_OFFSET_TIME];".into(),
            "field form",
            "OFFSET_TIME is for google.protobuf.Timestamp",
        ),
        (
            "string s = 1 [(drawbridge.v1.field).form = FORM_COMMA_LIST];".into(),
            "field form",
            "COMMA_LIST is for repeated",
        ),
    ] {
        let messages = format!("message Req {{ {field} }} message Res {{ string id = 1; }}");
        let options = "option (google.api.http) = {post: \"/v1/x\" body: \"*\"};";
        refused(&unary(options, &messages), option, want, &field);
    }
}

#[test]
fn unsuitable_bare_text_and_arrays_are_reported() {
    for (res, option, want) in [
        (
            "option (drawbridge.v1.message).bare_text = \"n\"; int32 n = 1;",
            "message bare_text",
            "`n` is not a single string field",
        ),
        (
            "option (drawbridge.v1.message).bare_array = \"n\"; string n = 1;",
            "message bare_array",
            "`n` is not a repeated field",
        ),
        (
            "option (drawbridge.v1.message).as_array = \"no\"; repeated string n = 1;",
            "message as_array",
            "`no` is not a repeated field",
        ),
        (
            "option (drawbridge.v1.message) = {bare_array: \"n\" as_array: \"n\"};
             repeated string n = 1;",
            "message as_array",
            "cannot be combined with `bare_array`",
        ),
    ] {
        let messages = format!("message Req {{ string id = 1; }} message Res {{ {res} }}");
        let options = "option (google.api.http) = {get: \"/v1/x\"};";
        refused(&unary(options, &messages), option, want, res);
    }
}

#[test]
fn minimum_is_for_integers() {
    for field in ["string id = 1", "double id = 1", "E id = 1", "Res id = 1"] {
        let proto = unary(
            "option (google.api.http) = {post: \"/x\" body: \"*\"};",
            &format!(
                "message Req {{ {field} [(drawbridge.v1.field).minimum = 1]; }}
                 message Res {{}} enum E {{ E_UNSPECIFIED = 0; }}"
            ),
        );
        refused(&proto, "field minimum", "only for integers", field);
    }
}
