//! Problems of messages end the start only where a served rpc uses the message.

use super::*;

use prost::Message as _;

use crate::json::wire;

/// A served rpc, an excluded one, one without a REST call, and a message that no rpc uses. The
/// last three use `Bad`; of the first, `user` does.
fn source(bad: &str, user: &str) -> Source {
    let field = |place: &str| match place == user {
        true => "Bad bad = 2;",
        false => "",
    };
    let (request, nested, entry) = (field("request"), field("nested"), field("map entry"));
    let response = match user {
        "response" => "Bad bad = 2;",
        "list" => "repeated Bad bad = 2;",
        "map" => "map<string, Bad> bad = 2;",
        "oneof" => "oneof of { Bad bad = 2; string other = 4; }",
        "field names" => {
            "repeated string s = 2 [(drawbridge.v1.field).field_names = {message: \"Bad\"}];"
        }
        _ => "",
    };
    let text = format!(
        r#"
        service S {{
          rpc Get(GetReq) returns (GetRes) {{ option (google.api.http) = {{get: "/x/{{id}}"}}; }}
          rpc Excluded(ExcludedReq) returns (Res) {{ option (google.api.http) = {{get: "/y"}}; }}
          rpc Plain(PlainReq) returns (Res);
        }}
        message GetReq {{ string id = 1; {request} }}
        message GetRes {{
          string id = 1; {response} Nested nested = 3; map<string, Entry> entries = 5;
        }}
        message Nested {{ Nested next = 1; {nested} }}
        message Entry {{ {entry} }}
        message ExcludedReq {{ Bad bad = 1; }}
        message PlainReq {{ repeated Bad bad = 1; }}
        message Res {{}}
        message Unused {{ map<string, Bad> bad = 1; }}
        {bad}"#
    );
    Source {
        selection: Selection {
            include: Vec::new(),
            exclude: vec!["t.S.Excluded".to_owned()],
        },
        ..Source::new("t.binpb", descriptors(&proto(&text)))
    }
}

/// Each a message `Bad`, and a part of its problem.
const PROBLEMS: [(&str, &str); 6] = [
    (
        "message Bad { int32 a = 1; int32 b = 2 [(drawbridge.v1.field).name = \"a\"]; }",
        "t.Bad.b: (drawbridge.v1.field).name: the name `a`",
    ),
    (
        "message Bad { string a = 1 [(drawbridge.v1.field).form = FORM_STRING]; }",
        "t.Bad.a: (drawbridge.v1.field).form: STRING is for numbers",
    ),
    (
        "message Bad { option (drawbridge.v1.message).bare_array = \"no\"; }",
        "t.Bad: (drawbridge.v1.message).bare_array",
    ),
    (
        "message Bad { string s = 1 [(drawbridge.v1.field).field_names = {message: \"No\"}]; }",
        "t.Bad.s: (drawbridge.v1.field).field_names: there is no message `No`",
    ),
    (
        "message Bad { E e = 1; }
         enum E { E_A = 0; E_B = 1 [(drawbridge.v1.enum_value).name = \"A\"]; }",
        "t.E: (drawbridge.v1.enum_value).name: the text `A`",
    ),
    (
        "message Bad { message In { int32 a = 1; int32 b = 2 [(drawbridge.v1.field).name = \"a\"]; }
           In in = 1; }",
        "t.Bad.In.b: (drawbridge.v1.field).name",
    ),
];

#[test]
fn only_problems_of_served_messages_end_the_start() {
    let compiled = |bad: &str, user: &str| Contract::compile(vec![source(bad, user)], &families);
    for (bad, want) in PROBLEMS {
        let unserved = compiled(bad, "none").unwrap_or_else(|all| panic!("{}", printed(&all)));
        assert!(unserved.method("/t.S/Get").is_some(), "{bad}");
        let all = compiled(bad, "response").map(|_| ()).expect_err(bad);
        assert_eq!(all.len(), 1, "{}", printed(&all));
        assert!(printed(&all).contains(want), "{}", printed(&all));
    }
    let (bad, want) = PROBLEMS[0];
    for user in [
        "request",
        "list",
        "map",
        "oneof",
        "field names",
        "nested",
        "map entry",
    ] {
        let all = compiled(bad, user).map(|_| ()).expect_err(user);
        assert_eq!(all.len(), 1, "{user}\n{}", printed(&all));
        assert!(printed(&all).contains(want), "{user}\n{}", printed(&all));
    }
}

/// Appends bytes to the file `google/protobuf/struct.proto` of a set.
fn with_struct_file(source: Source, more: &[u8]) -> Source {
    let mut bytes = Vec::new();
    for file in wire::all(&source.bytes, 1).unwrap() {
        let name = prost_types::FileDescriptorProto::decode(file).unwrap().name;
        let mut file = file.to_vec();
        if name.as_deref() == Some("google/protobuf/struct.proto") {
            file.extend_from_slice(more);
        }
        wire::write_bytes(&mut bytes, 1, &file);
    }
    Source { bytes, ..source }
}

#[test]
fn imported_file_with_an_edition_ends_the_start_where_it_is_served() {
    let mut edition = Vec::new();
    wire::write_bytes(&mut edition, 12, b"editions");
    wire::write_uint(&mut edition, 14, 1_000);
    for (user, type_name, is_served) in [
        ("none", "Struct", false),
        ("response", "Struct", true),
        ("nested", "NullValue", true),
    ] {
        let bad = format!("message Bad {{ google.protobuf.{type_name} field = 1; }}");
        let source = with_struct_file(source(&bad, user), &edition);
        match Contract::compile(vec![source], &families) {
            Ok(_) => assert!(!is_served, "{user} {type_name}"),
            Err(all) => {
                assert!(is_served, "{user} {type_name}\n{}", printed(&all));
                let want = "google/protobuf/struct.proto: uses edition 2023";
                assert!(printed(&all).starts_with(want), "{}", printed(&all));
                assert_eq!(all.len(), 1, "{}", printed(&all));
            }
        }
    }
}

#[test]
fn imported_group_that_no_served_rpc_uses_is_no_problem() {
    let mut field = Vec::new();
    wire::write_bytes(&mut field, 1, b"bad");
    wire::write_uint(&mut field, 3, 9);
    wire::write_uint(&mut field, 4, 1);
    wire::write_uint(&mut field, 5, 10);
    wire::write_bytes(&mut field, 6, b".google.protobuf.Bad");
    let mut message = Vec::new();
    wire::write_bytes(&mut message, 1, b"Bad");
    wire::write_bytes(&mut message, 2, &field);
    let mut group = Vec::new();
    wire::write_bytes(&mut group, 4, &message);
    compiles(with_struct_file(source("message Bad {}", "none"), &group));
}

#[track_caller]
fn compiles(source: Source) {
    let compiled = Contract::compile(vec![source], &families);
    assert!(compiled.is_ok(), "{}", printed(&compiled.unwrap_err()));
}

#[test]
fn no_any_is_a_message_with_a_problem() {
    let test = TestContract::new(&proto(
        r#"service S {
             rpc Do(Req) returns (Res) { option (google.api.http) = {get: "/x"}; }
           }
           message Req {}
           message Res { google.protobuf.Any any = 1; }
           message Good { int32 a = 1; }
           message Bad { int32 a = 1; int32 b = 2 [(drawbridge.v1.field).name = "a"]; }
           message UsesBad { repeated Bad bad = 1; }
           message UsesAgain { UsesBad bad = 1; }
           import "google/protobuf/any.proto";"#,
    ));
    for (name, is_known) in [
        ("Good", true),
        ("Bad", false),
        ("UsesBad", false),
        ("UsesAgain", false),
    ] {
        let body = format!(r#"{{"any": {{"@type": "x/t.{name}"}}}}"#);
        let got = test.rpc("Do").decode(&Reply {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: body.into(),
        });
        assert_eq!(got.is_ok(), is_known, "{name} {got:?}");
    }
}
