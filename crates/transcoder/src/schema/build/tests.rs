use super::enumeration::without_prefix;
use super::*;

#[test]
fn enum_prefixes_are_removed() {
    for (of, value, want) in [
        (
            "DeploymentStatus",
            "DEPLOYMENT_STATUS_IN_PROGRESS",
            "IN_PROGRESS",
        ),
        ("JP1State", "JP1_STATE_OPEN", "OPEN"),
        ("Jp1State", "JP_1_STATE_OPEN", "OPEN"),
        ("Status", "STATUS", "STATUS"),
        ("Status", "STATUS_", "STATUS_"),
        ("Status", "STATUSES", "STATUSES"),
        ("Status", "OPEN", "OPEN"),
    ] {
        assert_eq!(without_prefix(of, value), want, "{of} {value}");
    }
}

#[test]
fn json_names_follow_protobuf() {
    for (name, want) in [("server_id", "serverId"), ("a__b_1", "aB1"), ("_x", "X")] {
        assert_eq!(lower_camel(name), want, "{name}");
    }
}

#[test]
fn contradictions_are_reported_with_file_and_element() {
    for (what, element, option) in [
        (
            "message M { int32 a = 1; int32 r = 2 [(drawbridge.v1.field).raw_of = \"a\"]; }",
            "t.M.r",
            "field).raw_of",
        ),
        (
            "message M { string r = 2 [(drawbridge.v1.field).raw_of = \"x\"]; }",
            "t.M.r",
            "field).raw_of",
        ),
        (
            "message M { string r = 2 [(drawbridge.v1.field).raw_of = \"r\"]; }",
            "t.M.r",
            "field).raw_of",
        ),
        (
            "message M { repeated int32 a = 1; string r = 2 [(drawbridge.v1.field).raw_of = \"a\"]; }",
            "t.M.r",
            "field).raw_of",
        ),
        (
            "message M { int32 a = 1; string r = 2 [(drawbridge.v1.field).raw_of = \"a\"]; string s = 3 [(drawbridge.v1.field).raw_of = \"a\"]; }",
            "t.M.s",
            "field).raw_of",
        ),
        (
            "message M { string a = 1 [(drawbridge.v1.field).form = FORM_STRING]; }",
            "t.M.a",
            "field).form",
        ),
        (
            "message M { int64 a = 1 [(drawbridge.v1.field).form = FORM_EPOCH_MILLIS]; }",
            "t.M.a",
            "field).form",
        ),
        (
            "message M { string a = 1 [(drawbridge.v1.field).form = FORM_COMMA_LIST]; }",
            "t.M.a",
            "field).form",
        ),
        (
            "message M { string a = 1 [(drawbridge.v1.field).form = FORM_JSON_TEXT]; }",
            "t.M.a",
            "field).form",
        ),
        (
            "message M { repeated bool a = 1 [(drawbridge.v1.field).form = FORM_FLAG]; }",
            "t.M.a",
            "field).form",
        ),
        (
            "message M { int32 a = 1 [(drawbridge.v1.field).emit_empty = true]; }",
            "t.M.a",
            "field).emit_empty",
        ),
        (
            "message M { string a = 1 [(drawbridge.v1.field).null_is_empty = true]; }",
            "t.M.a",
            "field).null_is_empty",
        ),
        (
            "message M { int32 a = 1 [(drawbridge.v1.field) = {query: true, gateway_only: true}]; }",
            "t.M.a",
            "field).gateway_only",
        ),
        (
            "message M { string a = 1 [(drawbridge.v1.field).upstream_value = \"region\"]; }",
            "t.M.a",
            "field).upstream_value",
        ),
        (
            "message M { int32 a = 1 [(drawbridge.v1.field).upstream_value = \"project_id\"]; }",
            "t.M.a",
            "field).upstream_value",
        ),
        (
            "message M { int32 a = 1 [(drawbridge.v1.field).aliases = \"\"]; }",
            "t.M.a",
            "field).aliases",
        ),
        (
            "message M { int32 a = 1; int32 b = 2 [(drawbridge.v1.field).name = \"a\"]; }",
            "t.M.b",
            "field).name",
        ),
        (
            "message M { int32 a = 1; int32 b = 2 [(drawbridge.v1.field).aliases = \"a\"]; }",
            "t.M.b",
            "field).name",
        ),
        (
            "message M { option (drawbridge.v1.message).bare_array = \"a\"; int32 a = 1; }",
            "t.M",
            "message).bare_array",
        ),
        (
            "message M { option (drawbridge.v1.message).as_array = \"a\"; string a = 1; }",
            "t.M",
            "message).as_array",
        ),
        (
            "message M { option (drawbridge.v1.message) = {as_array: \"a\", bare_array: \"a\"}; repeated string a = 1; }",
            "t.M",
            "message).as_array",
        ),
        (
            "message M { M a = 1 [(drawbridge.v1.field).additional_properties = true]; }",
            "t.M.a",
            "field).additional_properties",
        ),
        (
            "message M { google.protobuf.Struct a = 1 [(drawbridge.v1.field) = {additional_properties: true, name: \"b\"}]; }",
            "t.M.a",
            "field).additional_properties",
        ),
        (
            "message M { google.protobuf.Struct a = 1 [(drawbridge.v1.field).additional_properties = true]; google.protobuf.Struct b = 2 [(drawbridge.v1.field).additional_properties = true]; }",
            "t.M.b",
            "field).additional_properties",
        ),
        (
            "enum E { E_A = 0; E_B = 1 [(drawbridge.v1.enum_value).name = \"A\"]; }",
            "t.E",
            "enum_value).name",
        ),
    ] {
        let proto = format!(
            "syntax = \"proto3\"; package t; import \"drawbridge/v1/options.proto\"; \
             import \"google/protobuf/struct.proto\"; {what}"
        );
        let pool = crate::json::tests::compile(&proto).expect(what);
        let diagnostics = Schema::build(&pool).expect_err(what);
        let [diagnostic] = &diagnostics[..] else {
            panic!("one diagnostic for {what}: {diagnostics:?}");
        };
        assert_eq!(diagnostic.file, "test.proto", "{what}");
        assert_eq!(diagnostic.element, element, "{what}");
        assert_eq!(
            diagnostic.option,
            format!("(drawbridge.v1.{option}"),
            "{what}"
        );
    }
}

#[test]
fn json_names_follow_file_and_field_rules() {
    let proto = "syntax = \"proto3\"; package t; import \"drawbridge/v1/options.proto\";
        import \"google/api/field_behavior.proto\";
        option (drawbridge.v1.file).naming = NAMING_JSON_NAMES;
        message M {
          int32 server_id = 1 [(google.api.field_behavior) = REQUIRED];
          int32 user_id = 2 [(drawbridge.v1.field) = {name: \"userID\", aliases: [\"uid\"]}];
          int32 links_self = 3 [json_name = \"links:self\"];
          oneof of { int32 a = 4; int32 b = 5; }
          optional int32 c = 6;
        }";
    let pool = crate::json::tests::compile(proto).expect("it compiles");
    let schema = Schema::build(&pool).expect("it holds together");
    let message = schema.message(schema.message_id("t.M").expect("it is there"));
    let names: Vec<_> = message.fields.iter().map(|f| &*f.wire_name).collect();
    assert_eq!(names, ["serverId", "userID", "links:self", "a", "b", "c"]);
    let required: Vec<_> = message.fields.iter().map(|f| f.required).collect();
    assert_eq!(required, [true, false, false, false, false, false]);
    let oneofs: Vec<_> = message.fields.iter().map(|f| f.oneof).collect();
    assert_eq!(oneofs, [None, None, None, Some(0), Some(0), None]);
    assert_eq!(message.names.get(b"uid"), Some(1));
    assert_eq!(message.names.get(b"user_id"), None);
}
