//! Names of fields and enum values in requests.

use super::*;

#[test]
fn field_mask_paths_follow_the_naming_of_the_file() {
    for (naming, want) in [
        ("NAMING_UNSPECIFIED", "display_name,foo_1.bar_baz,a"),
        ("NAMING_PROTO_NAMES", "display_name,foo_1.bar_baz,a"),
        ("NAMING_JSON_NAMES", "displayName,foo1.barBaz,a"),
    ] {
        let test = TestContract::new(&proto(&format!(
            r#"import "google/protobuf/field_mask.proto";
            option (drawbridge.v1.file).naming = {naming};
            service S {{
              rpc Do(Req) returns (Res) {{
                option (google.api.http) = {{patch: "/x" body: "body"}};
              }}
            }}
            message Req {{ google.protobuf.FieldMask mask = 1; Body body = 2; }}
            message Body {{
              google.protobuf.FieldMask one = 1;
              repeated google.protobuf.FieldMask many = 2;
              map<string, google.protobuf.FieldMask> named = 3;
            }}
            message Res {{ google.protobuf.FieldMask one = 1; }}"#
        )));
        let paths = |number| {
            let mut mask = Vec::new();
            for path in ["display_name", "foo_1.bar_baz", "a"] {
                crate::json::wire::write_bytes(&mut mask, 1, path.as_bytes());
            }
            let mut field = Vec::new();
            crate::json::wire::write_bytes(&mut field, number, &mask);
            field
        };
        let entry = [b"\x0a\x01k".to_vec(), paths(2)].concat();
        let mut inside = [paths(1), paths(2)].concat();
        crate::json::wire::write_bytes(&mut inside, 3, &entry);
        let mut request = paths(1);
        crate::json::wire::write_bytes(&mut request, 2, &inside);
        let call = test.rpc("Do").bind(&request, "").unwrap();
        assert_eq!(call.query, format!("mask={}", want.replace(',', "%2C")));
        let sent: Json = serde_json::from_slice(call.body.as_deref().unwrap()).unwrap();
        let all = json!({"one": want, "many": [want], "named": {"k": want}});
        assert_eq!(sent, all, "{naming}");
        // Both spellings are read.
        for text in ["display_name", "displayName"] {
            let reply = Reply {
                status: StatusCode::OK,
                headers: HeaderMap::new(),
                body: json!({ "one": text }).to_string().into(),
            };
            let decoded = test.rpc("Do").decode(&reply).unwrap();
            let path = b"\x0a\x0e\x0a\x0cdisplay_name";
            assert_eq!(&*decoded.message, path, "{naming} {text}");
        }
    }
}

/// A mask does not name its message: fields of the messages near it come first.
#[test]
fn field_mask_paths_are_those_of_the_messages_near_the_mask() {
    let other = r#"syntax = "proto3"; package o;
        message Other { string fooBar = 1; string a_1 = 2; string plainName = 3; }"#;
    for (fields, text, want) in [
        ("string foo_bar = 1;", "fooBar", "foo_bar"),
        ("o.Other other = 1;", "fooBar", "fooBar"),
        ("Near near = 1;", "fooBar", "foo_bar"),
        // Only another file has the name.
        ("string x = 1;", "plainName", "plainName"),
        // The JSON name of a field with a digit.
        ("string foo_1 = 1;", "foo1", "foo_1"),
        ("string foo1 = 1;", "foo1", "foo1"),
        ("string x = 1;", "a1", "a_1"),
        ("string a1 = 1;", "a1", "a1"),
        (
            "string odd = 1 [json_name = \"strange\"];",
            "strange",
            "odd",
        ),
    ] {
        let text_of = proto(&format!(
            r#"import "google/protobuf/field_mask.proto"; import "other.proto";
            service S {{
              rpc Do(Req) returns (Res) {{ option (google.api.http) = {{get: "/x"}}; }}
            }}
            message Req {{}}
            message Res {{
              google.protobuf.FieldMask mask = 1; Thing thing = 2;
              map<string, google.protobuf.FieldMask> named = 3;
            }}
            message Thing {{ {fields} }}
            message Near {{ string foo_bar = 1; }}"#
        ));
        let set = descriptors_of(&[("other.proto", other), ("t.proto", &text_of)]);
        let contract = Contract::compile(vec![Source::new("t", set)], &families);
        let contract = contract.unwrap_or_else(|all| panic!("{}", printed(&all)));
        let method = contract.method("/t.S/Do").unwrap();
        let decoded = method.decode(&Reply {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: json!({"mask": text, "named": {"k": text}})
                .to_string()
                .into(),
        });
        let mask = [&[0x0a, want.len() as u8], want.as_bytes()].concat();
        let mut message = Vec::new();
        crate::json::wire::write_bytes(&mut message, 1, &mask);
        let mut entry = b"\x0a\x01k".to_vec();
        crate::json::wire::write_bytes(&mut entry, 2, &mask);
        crate::json::wire::write_bytes(&mut message, 3, &entry);
        assert_eq!(decoded.unwrap().message, message, "{fields} {text}");
    }
}

#[test]
fn field_mask_path_with_the_exact_name_of_a_field_is_that_field() {
    // protoc allows both names in two messages, or in a proto2 file.
    let both = "string foo_bar = 1; Other other = 2; } message Other { string fooBar = 1;";
    for (fields, text, want) in [
        ("string foo_bar = 1;", "fooBar", "foo_bar"),
        ("string foo_bar = 1;", "foo_bar", "foo_bar"),
        ("string fooBar = 1;", "fooBar", "fooBar"),
        ("string fooBar = 1;", "a.fooBar.bazQux", "a.fooBar.baz_qux"),
        (both, "fooBar", "fooBar"),
        (both, "foo_bar", "foo_bar"),
    ] {
        for naming in ["NAMING_PROTO_NAMES", "NAMING_JSON_NAMES"] {
            let test = TestContract::new(&proto(&format!(
                r#"import "google/protobuf/field_mask.proto";
                option (drawbridge.v1.file).naming = {naming};
                service S {{
                  rpc Do(Req) returns (Res) {{ option (google.api.http) = {{get: "/x"}}; }}
                }}
                message Req {{}}
                message Res {{ google.protobuf.FieldMask mask = 1; Thing thing = 2; }}
                message Thing {{ {fields} }}"#
            )));
            let decoded = test.rpc("Do").decode(&Reply {
                status: StatusCode::OK,
                headers: HeaderMap::new(),
                body: json!({ "mask": text }).to_string().into(),
            });
            let (mut mask, mut message) = (Vec::new(), Vec::new());
            crate::json::wire::write_bytes(&mut mask, 1, want.as_bytes());
            crate::json::wire::write_bytes(&mut message, 1, &mask);
            assert_eq!(
                *decoded.unwrap().message,
                *message,
                "{naming} {fields} {text}"
            );
        }
    }
}

#[test]
fn enum_names_are_read_short_and_full_and_written_by_the_rule_of_the_file() {
    for (names, path, query) in [
        ("", "/DONE", "all=ACTIVE&all=the+one"),
        ("ENUM_NAMES_SHORT", "/DONE", "all=ACTIVE&all=the+one"),
        (
            "ENUM_NAMES_FULL",
            "/PHASE_DONE",
            "all=PHASE_ACTIVE&all=the+one",
        ),
    ] {
        let rule = match names {
            "" => String::new(),
            names => format!("option (drawbridge.v1.file).enum_names = {names};"),
        };
        let test = TestContract::new(&proto(&format!(
            r#"{rule}
            service S {{ rpc Do(Req) returns (Res) {{ option (google.api.http) = {{post: "/{{one}}" body: "body"}}; }} }}
            message Req {{ Phase one = 1; repeated Phase all = 2; Body body = 3; }}
            message Body {{ Phase phase = 1; map<string, Phase> phases = 2; }}
            message Res {{ Phase phase = 1; repeated Loose loose = 2; }}
            enum Phase {{
              PHASE_UNSPECIFIED = 0;
              PHASE_DONE = 1;
              PHASE_ACTIVE = 2;
              PHASE_ONE = 3 [(drawbridge.v1.enum_value).name = "the+one"];
              // The short name is the text of another value.
              PHASE_OTHER = 4 [(drawbridge.v1.enum_value).name = "PHASE_ONE"];
            }}
            enum Loose {{
              option (drawbridge.v1.enum_type).lenient = true;
              LOOSE_UNSPECIFIED = 0;
              LOOSE_A_B = 1;
            }}"#
        )));
        let call = test
            .bind(json!({
                "one": "PHASE_DONE", "all": ["PHASE_ACTIVE", "PHASE_ONE"],
                "body": {"phase": "PHASE_ACTIVE", "phases": {"k": "PHASE_DONE"}},
            }))
            .unwrap();
        assert_eq!(call.path, path, "{names}");
        assert_eq!(call.query, query.replace('+', "%2B"), "{names}");
        let sent: Json = serde_json::from_str(body(&call).unwrap()).unwrap();
        let prefix = if names == "ENUM_NAMES_FULL" {
            "PHASE_"
        } else {
            ""
        };
        let want = json!({
            "phase": format!("{prefix}ACTIVE"), "phases": {"k": format!("{prefix}DONE")},
        });
        assert_eq!(sent, want, "{names}");

        for (text, want) in [
            ("DONE", 1),
            ("PHASE_DONE", 1),
            ("ACTIVE", 2),
            ("PHASE_ACTIVE", 2),
            ("the+one", 3),
            ("PHASE_ONE", 4),
            ("PHASE_OTHER", 4),
            ("GONE", 0),
        ] {
            let reply = Reply {
                status: StatusCode::OK,
                headers: HeaderMap::new(),
                body: json!({ "phase": text, "loose": ["loose a-b", "ab"] })
                    .to_string()
                    .into(),
            };
            let decoded = test.rpc("Do").decode(&reply).unwrap();
            let mut message = Vec::new();
            if want > 0 {
                crate::json::wire::write_uint(&mut message, 1, want);
            }
            crate::json::wire::write_bytes(&mut message, 2, &[1, 1]);
            assert_eq!(decoded.message, message, "{names} {text}");
        }
    }
}

#[test]
fn text_without_letters_is_no_lenient_match() {
    let test = http(
        "get: \"/x\"",
        r#"message Req {} message Res { E e = 1; string e_raw = 2 [(drawbridge.v1.field).raw_of = "e"]; }
        enum E {
          option (drawbridge.v1.enum_type).lenient = true;
          E_UNSPECIFIED = 0;
          E_NONE = 1 [(drawbridge.v1.enum_value).name = "-"];
          E_HALF = 2 [(drawbridge.v1.enum_value).name = "1/2"];
          E_A_B = 3;
        }"#,
    );
    for (text, want) in [
        ("-", json!("E_NONE")),
        ("1/2", json!("E_HALF")),
        ("a-b", json!("E_A_B")),
        ("--", json!(null)),
        ("12", json!(null)),
        ("", json!(null)),
    ] {
        let reply = Reply {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: json!({ "e": text }).to_string().into(),
        };
        let message = test.rpc("Do").decode(&reply).unwrap().message;
        let got = test.json("t.Res", &message);
        assert_eq!(got.get("e").cloned().unwrap_or_default(), want, "{text}");
    }
}

#[test]
fn json_names_follow_the_file_rule() {
    let test = TestContract::new(
        &unary(
            "option (google.api.http) = {get: \"/x\"};",
            "message Req { string server_id = 1; } message Res {}",
        )
        .replace(
            "service S",
            "option (drawbridge.v1.file).naming = NAMING_JSON_NAMES; service S",
        ),
    );
    let call = test.bind(json!({"serverId": "s"})).unwrap();
    assert_eq!(call.query, "serverId=s");
}
