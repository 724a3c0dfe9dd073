//! Rules of messages and fields; those that others share stand with what they do.

use super::*;

#[test]
fn messages_and_fields_that_contradict() {
    for (messages, element, option, want) in [
        (
            "message Req { option (drawbridge.v1.message).bare_text = \"ids\"; repeated string ids = 1; }",
            "t.Req",
            "(drawbridge.v1.message).bare_text",
            "`ids` is no single string here",
        ),
        (
            "message Req { option (drawbridge.v1.message).bare_text = \"no\"; string id = 1; }",
            "t.Req",
            "(drawbridge.v1.message).bare_text",
            "`no` is no single string here",
        ),
        (
            "message Req {
               option (drawbridge.v1.message) = {bare_text: \"id\" text_is_error: true};
               string id = 1;
             }",
            "t.Req",
            "(drawbridge.v1.message).text_is_error",
            "leave out one of the two",
        ),
        (
            "message Req { int32 a = 1 [(drawbridge.v1.field).field_names = {message: \"Res\"}]; }",
            "t.Req.a",
            "(drawbridge.v1.field).field_names",
            "only a string can be the name of a field",
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
            "by its letters, `a` is the text of two values",
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
        assert!(hit, "{option}: {}\n{messages}", told(&found));
    }
}
