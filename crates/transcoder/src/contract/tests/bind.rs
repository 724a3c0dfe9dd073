//! Binding of requests to REST calls.

use super::*;
use crate::schema::Kind;

/// Compiles a GET of `/v1/{id}` whose request has further fields.
fn get(fields: &str, more: &str) -> TestContract {
    TestContract::new(&unary(
        "option (google.api.http) = {get: \"/v1/{id}\"};",
        &format!("message Req {{ string id = 1; {fields} }} message Res {{}} {more}"),
    ))
}

fn http(rule: &str, messages: &str) -> TestContract {
    TestContract::new(&unary(
        &format!("option (google.api.http) = {{ {rule} }};"),
        messages,
    ))
}

#[test]
fn verb_and_idempotency_come_from_the_annotations() {
    for (options, verb, idempotency) in [
        (
            "option (google.api.http) = {get: \"/x\"};",
            "GET",
            Idempotency::NoSideEffects,
        ),
        (
            "option (google.api.http) = {custom: {kind: \"HEAD\" path: \"/x\"}};",
            "HEAD",
            Idempotency::NoSideEffects,
        ),
        (
            "option (google.api.http) = {put: \"/x\"};",
            "PUT",
            Idempotency::Idempotent,
        ),
        (
            "option (google.api.http) = {post: \"/x\"};",
            "POST",
            Idempotency::NonIdempotent,
        ),
        // The level of the proto has precedence over the HTTP method.
        (
            "option (google.api.http) = {get: \"/x\"};
             option idempotency_level = IDEMPOTENCY_UNKNOWN;",
            "GET",
            Idempotency::NonIdempotent,
        ),
        (
            "option (google.api.http) = {delete: \"/x\"};
             option idempotency_level = IDEMPOTENCY_UNKNOWN;",
            "DELETE",
            Idempotency::NonIdempotent,
        ),
        (
            "option (google.api.http) = {post: \"/x\"};
             option idempotency_level = NO_SIDE_EFFECTS;",
            "POST",
            Idempotency::NoSideEffects,
        ),
        (
            "option (google.api.http) = {get: \"/x\"};
             option idempotency_level = NO_SIDE_EFFECTS;",
            "GET",
            Idempotency::NoSideEffects,
        ),
        (
            "option (google.api.http) = {put: \"/x\"}; option idempotency_level = IDEMPOTENT;",
            "PUT",
            Idempotency::Idempotent,
        ),
        (
            "option (google.api.http) = {post: \"/x\"};
             option idempotency_level = IDEMPOTENCY_UNKNOWN;",
            "POST",
            Idempotency::NonIdempotent,
        ),
        (
            "option (google.api.http) = {delete: \"/x\"};",
            "DELETE",
            Idempotency::Idempotent,
        ),
        (
            "option (google.api.http) = {patch: \"/x\"};",
            "PATCH",
            Idempotency::NonIdempotent,
        ),
        (
            "option (google.api.http) = {custom: {kind: \"PURGE\" path: \"/x\"}};",
            "PURGE",
            Idempotency::NonIdempotent,
        ),
    ] {
        let test = TestContract::new(&unary(options, "message Req {} message Res {}"));
        let call = test.bind(json!({})).unwrap();
        assert_eq!(call.verb.as_str(), verb, "{options}");
        assert_eq!(call.idempotency, idempotency, "{options}");
        assert_eq!((&*call.path, &*call.query, body(&call)), ("/x", "", None));
    }
}

#[test]
fn zero_in_the_path_is_sent_where_the_field_has_presence() {
    let test = |field: &str| {
        http(
            "get: \"/pi/{i}\"",
            &format!(
                "message Req {{ {field} }} message Res {{}}
                 enum E {{ E_UNSPECIFIED = 0; E_ON = 1; }}"
            ),
        )
    };
    let zero = "is part of the path and must not be zero";
    let no = "is part of the path and must not be false";
    for (field, value, want) in [
        ("optional int32 i = 1;", json!(0), Ok("/pi/0")),
        ("optional sint64 i = 1;", json!(-7), Ok("/pi/-7")),
        ("optional double i = 1;", json!(0), Ok("/pi/0")),
        ("optional bool i = 1;", json!(false), Ok("/pi/false")),
        (
            "oneof o { int64 i = 1; bool b = 2; }",
            json!(0),
            Ok("/pi/0"),
        ),
        ("optional int32 i = 1;", json!(null), Err(zero)),
        ("int32 i = 1;", json!(0), Err(zero)),
        ("fixed64 i = 1;", json!(0), Err(zero)),
        ("bool i = 1;", json!(false), Err(no)),
        ("bool i = 1;", json!(true), Ok("/pi/true")),
        ("E i = 1;", json!("E_UNSPECIFIED"), Err(zero)),
        ("optional E i = 1;", json!("E_UNSPECIFIED"), Err(zero)),
        ("optional E i = 1;", json!("E_ON"), Ok("/pi/ON")),
        (
            "optional string i = 1;",
            json!(""),
            Err("is part of the path and must not be empty"),
        ),
        (
            "int32 i = 1 [(google.api.field_behavior) = REQUIRED];",
            json!(0),
            Err("is required"),
        ),
        (
            "optional int32 i = 1 [(google.api.field_behavior) = REQUIRED];",
            json!(0),
            Ok("/pi/0"),
        ),
        (
            "optional E i = 1 [(google.api.field_behavior) = REQUIRED];",
            json!("E_UNSPECIFIED"),
            Err("is required"),
        ),
    ] {
        let call = test(field).bind(json!({ "i": value }));
        match (&call, want) {
            (Ok(call), Ok(want)) => assert_eq!(call.path, want, "{field}"),
            (Err(error), Err(want)) => assert_eq!(fault(error), ("i", want), "{field}"),
            _ => panic!("{field} {value}: {call:?}"),
        }
    }

    let nested = http(
        "get: \"/pi/{sub.i}\"",
        "message Req { Sub sub = 1; } message Sub { optional int32 i = 1; } message Res {}",
    );
    assert_eq!(nested.bind(json!({"sub": {"i": 0}})).unwrap().path, "/pi/0");
    let error = nested.bind(json!({"sub": {}})).unwrap_err();
    assert_eq!(fault(&error), ("sub.i", zero));
}

#[test]
fn integers_below_their_minimum_are_rejected() {
    let minimum = "[(drawbridge.v1.field).minimum = 0]";
    for kind in ["int32", "int64", "sint32", "sint64", "sfixed32", "sfixed64"] {
        let test = http(
            "post: \"/v1/{id}/{sub.id}\" body: \"*\"",
            &format!(
                "message Req {{ {kind} id = 1 {minimum}; Sub sub = 2; repeated {kind} ids = 3 {minimum};
                   repeated Sub subs = 4; }}
                 message Sub {{ {kind} id = 1 {minimum}; }} message Res {{}}"
            ),
        );
        let fine = json!({"id": 5, "sub": {"id": 6}, "ids": [0, 1], "subs": [{"id": 7}]});
        assert_eq!(test.bind(fine.clone()).unwrap().path, "/v1/5/6", "{kind}");
        for (name, value, field) in [
            ("id", json!(-5), "id"),
            ("sub", json!({"id": -1}), "sub.id"),
            ("ids", json!([3, -2]), "ids[1]"),
            ("subs", json!([{"id": 1}, {"id": -9}]), "subs[1].id"),
        ] {
            let mut request = fine.clone();
            request[name] = value;
            let error = test.bind(request).unwrap_err();
            assert_eq!(fault(&error), (field, "must be at least 0"), "{kind}");
        }
    }
}

#[test]
fn built_in_requests_have_no_negative_jp1ao_ids() {
    let contract = random_input::built_in();
    let mut checked = 0;
    for method in contract.methods() {
        if &*method.family != "jp1ao" {
            continue;
        }
        for field in &method.schema.message(method.input).fields {
            let is_id = &*field.name == "id" || field.name.ends_with("_id");
            if !is_id || field.kind != Kind::Int64 || method.upload.is_some() {
                continue;
            }
            let mut wire = Vec::new();
            // The other fields are REQUIRED, or of the same oneof.
            for other in &method.schema.message(method.input).fields {
                match other.kind {
                    Kind::Int64 if other.required => {
                        crate::json::wire::write_uint(&mut wire, other.number, 1);
                    }
                    Kind::String if other.required => {
                        crate::json::wire::write_bytes(&mut wire, other.number, b"x");
                    }
                    _ => {}
                }
            }
            crate::json::wire::write_uint(&mut wire, field.number, -5_i64 as u64);
            let error = method.bind(&wire, "").expect_err(&method.path);
            let want = (&*field.name, "must be at least 0");
            assert_eq!(fault(&error), want, "{}", method.path);
            checked += 1;
        }
    }
    assert!(checked > 60, "{checked}");
}

#[test]
fn first_binding_whose_path_fields_are_set_is_used() {
    let test = http(
        "get: \"/a/{a}\"
         additional_bindings {post: \"/b/{b.id}/{n}\" body: \"b\"}
         additional_bindings {put: \"/c/{name=things/*}\" body: \"*\"}
         additional_bindings {delete: \"/d/{name=others/**}\"}
         additional_bindings {get: \"/e\"}",
        "message Req { string a = 1; B b = 2; optional int32 n = 3; string name = 4; string q = 5; }
         message B { string id = 1; string more = 2; } message Res {}",
    );
    for (request, want, query, sent, idempotency) in [
        (
            json!({"a": "1", "n": 0, "q": "x"}),
            "GET /a/1",
            "n=0&q=x",
            None,
            Idempotency::NoSideEffects,
        ),
        (
            json!({"a": "1", "b": {"id": "2"}, "n": 0}),
            "GET /a/1",
            "b.id=2&n=0",
            None,
            Idempotency::NoSideEffects,
        ),
        (
            json!({"b": {"id": "2", "more": "m"}, "n": 0, "q": "x"}),
            "POST /b/2/0",
            "q=x",
            Some("{\"more\":\"m\"}"),
            Idempotency::NonIdempotent,
        ),
        (
            json!({"name": "things/7", "q": "x"}),
            "PUT /c/things/7",
            "",
            Some("{\"q\":\"x\"}"),
            Idempotency::Idempotent,
        ),
        (
            json!({"name": "others/7/8"}),
            "DELETE /d/others/7/8",
            "",
            None,
            Idempotency::Idempotent,
        ),
        (
            json!({"b": {"id": "2"}, "q": "x"}),
            "GET /e",
            "b.id=2&q=x",
            None,
            Idempotency::NoSideEffects,
        ),
    ] {
        let call = test.bind(request.clone()).unwrap();
        assert_eq!(format!("{} {}", call.verb, call.path), want, "{request}");
        assert_eq!((&*call.query, body(&call)), (query, sent), "{request}");
        assert_eq!(call.idempotency, idempotency, "{request}");
    }
    // A value that must not be in a path selects no other binding.
    let error = test
        .bind(json!({"a": "..", "name": "things/7"}))
        .unwrap_err();
    assert_eq!(fault(&error).0, "a");

    let test = http(
        "get: \"/a/{a}\" additional_bindings {get: \"/b/{b}\"}",
        "message Req { string a = 1; string b = 2; } message Res {}",
    );
    let error = test.bind(json!({})).unwrap_err();
    let want = ("a", "is part of the path and must not be empty");
    assert_eq!(
        fault(&error),
        want,
        "where none fits, the first one is used"
    );
}

#[test]
fn requests_of_streams_are_checked_by_the_binding_that_they_choose() {
    let test = http(
        "get: \"/a/{p.id}\" additional_bindings {get: \"/b/{b}\"}",
        "message Req { P p = 1; string b = 2; } message Res {}
         message P { string id = 1 [(google.api.field_behavior) = REQUIRED]; string q = 2; }",
    );
    for (request, want) in [
        (json!({"p": {"id": "1"}, "b": "2"}), None),
        (json!({"b": "2"}), None),
        // In the path of the first binding, but not of the second one.
        (json!({"p": {"q": "x"}, "b": "2"}), Some("p.id")),
    ] {
        let bound = test.bind(request.clone()).err();
        let wire = test.wire("t.Req", request.clone());
        let checked = test.rpc("Do").binding.check(&wire, "").err();
        for error in [bound, checked] {
            let field = error.map(|error| fault(&error).0.to_owned());
            assert_eq!(field.as_deref(), want, "{request}");
        }
    }
}

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
fn path_values_stay_in_their_segment() {
    let test = http(
        "get: \"/v1/{id}/x\"",
        "message Req { string id = 1; } message Res {}",
    );
    for (value, want) in [
        ("plain-._~", Ok("/v1/plain-._~/x")),
        ("a/b", Ok("/v1/a%2Fb/x")),
        ("%2e%2e", Ok("/v1/%252e%252e/x")),
        ("a\nb", Ok("/v1/a%0Ab/x")),
        ("?#&", Ok("/v1/%3F%23%26/x")),
        ("é ü", Ok("/v1/%C3%A9%20%C3%BC/x")),
        ("", Err("is part of the path and must not be empty")),
        (
            ".",
            Err("must not have `.` as a path segment: it would name another resource"),
        ),
        (
            "..",
            Err("must not have `..` as a path segment: it would name another resource"),
        ),
        (
            "../b",
            Err("must not have `..` as a path segment: it would name another resource"),
        ),
    ] {
        let call = test.bind(json!({ "id": value }));
        match (&call, want) {
            (Ok(call), Ok(want)) => assert_eq!(call.path, want, "{value}"),
            (Err(error), Err(want)) => assert_eq!(fault(error), ("id", want), "{value}"),
            _ => panic!("{value}: {call:?}"),
        }
    }
}

#[test]
fn path_fields_can_have_any_scalar_type() {
    let test = http(
        "get: \"/{a.b.name=things/*/**}/{n}/{e}/{opt}/{flag}:do\"",
        "message Req { A a = 1; int64 n = 2; E e = 3; string e_raw = 4 [
           (drawbridge.v1.field).raw_of = \"e\"]; optional int32 opt = 5; bool flag = 6; }
         message A { B b = 1; }
         message B { string name = 1; }
         enum E { E_UNSPECIFIED = 0; E_ONE = 1 [(drawbridge.v1.enum_value).name = \"the one\"]; }
         message Res {}",
    );
    let all = json!({
        "a": {"b": {"name": "things/1/a b/c"}},
        "n": "-9007199254740993", "e": "E_ONE", "opt": 0, "flag": true,
    });
    let call = test.bind(all.clone()).unwrap();
    assert_eq!(
        call.path,
        "/things/1/a%20b/c/-9007199254740993/the%20one/0/true:do"
    );
    assert_eq!(call.query, "");

    let with = |key: &str, value: Json| {
        let mut request = all.clone();
        request[key] = value;
        request
    };
    // The raw field has the text of an enum value that the proto does not know.
    let mut raw = with("e", json!(0));
    raw["e_raw"] = json!("other");
    assert!(test.bind(raw).unwrap().path.contains("/other/"));
    for (request, field, want) in [
        (with("a", json!({})), "a.b.name", "empty"),
        (with("a", json!({"b": {}})), "a.b.name", "empty"),
        (with("n", json!(0)), "n", "zero"),
        (with("e", json!(0)), "e", "zero"),
        (with("flag", json!(false)), "flag", "false"),
    ] {
        let error = test.bind(request).unwrap_err();
        let want = format!("is part of the path and must not be {want}");
        assert_eq!(fault(&error), (field, &*want));
    }
    let error = test
        .bind(with("a", json!({"b": {"name": "other/1"}})))
        .unwrap_err();
    assert_eq!(
        fault(&error),
        ("a.b.name", "must have the form `things/*/**`")
    );
}

#[test]
fn empty_project_id_is_left_to_the_upstream() {
    let test = http(
        "get: \"/v1/{project_id}/things/{id}\"",
        "message Req { string project_id = 1 [(drawbridge.v1.field).upstream_value = \"project_id\",
           (google.api.field_behavior) = REQUIRED]; string id = 2; }
         message Res {}",
    );
    let call = test.bind(json!({"id": "i"})).unwrap();
    assert_eq!((&*call.path, call.project), ("/v1//things/i", Some(4..4)));
    let call = test.bind(json!({"project_id": "p", "id": "i"})).unwrap();
    assert_eq!((&*call.path, call.project), ("/v1/p/things/i", Some(4..5)));
}

#[test]
fn query_parameters_follow_the_order_of_the_proto() {
    let test = get(
        r#"string s = 2;
           optional string o = 3;
           repeated string list = 4;
           repeated int32 numbers = 5;
           Sub sub = 6;
           bool flag = 7 [(drawbridge.v1.field).form = FORM_FLAG];
           repeated string comma = 8 [(drawbridge.v1.field).form = FORM_COMMA_LIST];
           google.protobuf.Timestamp since = 9;
           google.protobuf.Int32Value limit = 10;
           google.protobuf.Struct filter = 11 [(drawbridge.v1.field).form = FORM_JSON_TEXT];
           E e = 12;
           string e_raw = 13 [(drawbridge.v1.field).raw_of = "e"];
           double d = 14;
           bytes b = 15;
           string own = 16 [(drawbridge.v1.field).name = "HQL::own"];
           bool hidden = 17 [(drawbridge.v1.field).gateway_only = true];
           string made = 18 [(google.api.field_behavior) = OUTPUT_ONLY];
           google.protobuf.Timestamp at = 19 [(drawbridge.v1.field).form = FORM_EPOCH_MILLIS];
           oneof which { string left = 20; string right = 21; }
           int32 n = 22 [(drawbridge.v1.field).form = FORM_STRING];"#,
        "message Sub { string name = 1; Deep deep = 2; repeated string many = 3; }
         message Deep { optional bool on = 1; }
         enum E { E_UNSPECIFIED = 0; E_ONE = 1; }",
    );
    for (request, want) in [
        (json!({}), ""),
        (json!({"s": ""}), ""),
        (json!({"s": "a b+c&d=e/f?"}), "s=a%20b%2Bc%26d%3De%2Ff%3F"),
        (json!({"s": "ü\n"}), "s=%C3%BC%0A"),
        (json!({"o": ""}), "o="),
        (json!({"o": "x", "s": "y"}), "s=y&o=x"),
        (json!({"list": ["b", "", "a"]}), "list=b&list=&list=a"),
        (
            json!({"numbers": [1, 0, -2]}),
            "numbers=1&numbers=0&numbers=-2",
        ),
        (json!({"sub": {}}), ""),
        (
            json!({"sub": {"many": ["x", "y"], "deep": {"on": false}, "name": "n"}}),
            "sub.name=n&sub.deep.on=false&sub.many=x&sub.many=y",
        ),
        (json!({"flag": true}), "flag"),
        (json!({"flag": false}), ""),
        (json!({"flag": true, "s": "x"}), "s=x&flag"),
        (json!({"comma": ["a", "b c"]}), "comma=a%2Cb%20c"),
        (json!({"comma": []}), ""),
        (
            json!({"since": "2015-01-31T15:12:36Z"}),
            "since=2015-01-31T15%3A12%3A36Z",
        ),
        (json!({"at": "1970-01-01T00:00:01.5Z"}), "at=1500"),
        (json!({"limit": 0}), "limit=0"),
        (
            json!({"filter": {"a": [1, null]}}),
            "filter=%7B%22a%22%3A%5B1%2Cnull%5D%7D",
        ),
        (json!({"e": "E_ONE"}), "e=ONE"),
        (json!({"eRaw": "NEW"}), "e=NEW"),
        (json!({"e": "E_ONE", "eRaw": "NEW"}), "e=ONE"),
        (json!({"d": 0.5}), "d=0.5"),
        (json!({"own": "x"}), "HQL::own=x"),
        (json!({"hidden": true, "made": "x"}), ""),
        (json!({"left": ""}), "left="),
        (json!({"right": "r"}), "right=r"),
        (json!({"n": 5}), "n=5"),
    ] {
        let mut request = request;
        request["id"] = json!("i");
        let call = test.bind(request.clone()).unwrap();
        assert_eq!(call.query, want, "{request}");
        assert_eq!((&*call.path, body(&call)), ("/v1/i", None), "{request}");
    }
    let error = test
        .bind(json!({"id": "i", "comma": ["a", "b,c"]}))
        .unwrap_err();
    let (field, problem) = fault(&error);
    assert_eq!(field, "comma[1]");
    assert!(problem.starts_with("must not contain a comma"), "{problem}");
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

#[test]
fn constant_query_is_appended() {
    let test = TestContract::new(&unary(
        "option (google.api.http) = {get: \"/x\"};
         option (drawbridge.v1.method).constant_query = \"alt=json&v=1\";",
        "message Req { string s = 1; } message Res {}",
    ));
    assert_eq!(test.bind(json!({})).unwrap().query, "alt=json&v=1");
    let call = test.bind(json!({"s": "x"})).unwrap();
    assert_eq!(call.query, "s=x&alt=json&v=1");
}

#[test]
fn body_holds_the_fields_outside_path_and_query() {
    let messages = r#"
        message Req {
          string id = 1;
          Thing thing = 2;
          repeated string tags = 3;
          bool dry_run = 4 [(drawbridge.v1.field).query = true];
          bool follow = 5 [(drawbridge.v1.field).gateway_only = true];
          string made = 6 [(google.api.field_behavior) = OUTPUT_ONLY];
          string text = 7;
        }
        message Thing {
          string name = 1;
          optional int64 size = 2;
          string state = 3 [(google.api.field_behavior) = OUTPUT_ONLY];
          repeated Thing parts = 4;
          string own = 5 [(drawbridge.v1.field).gateway_only = true];
        }
        message Res {}"#;
    let all = json!({
        "id": "i", "tags": ["a"], "dryRun": true, "follow": true, "made": "m",
        "thing": {"name": "n", "size": 5, "state": "s", "parts": [{"state": "s"}, {"name": "p"}]},
    });
    let some = json!({"id": "i"});
    let thing = r#"{"name":"n","size":5,"parts":[{},{"name":"p"}]}"#;
    for (rule, request, query, want) in [
        (
            "post: \"/{id}\" body: \"*\"",
            &all,
            "dry_run=true",
            Some(format!(r#"{{"thing":{thing},"tags":["a"]}}"#)),
        ),
        ("post: \"/{id}\" body: \"*\"", &some, "", Some("{}".into())),
        (
            "put: \"/{id}\" body: \"thing\"",
            &json!({"id": "i", "thing": all["thing"]}),
            "",
            Some(thing.into()),
        ),
        ("put: \"/{id}\" body: \"thing\"", &some, "", None),
        (
            "put: \"/{id}\" body: \"thing\"",
            &json!({"id": "i", "thing": {}}),
            "",
            Some("{}".into()),
        ),
        // Path fields are never in the body, at any depth.
        (
            "patch: \"/{thing.name}\" body: \"thing\"",
            &json!({"thing": all["thing"]}),
            "",
            Some(r#"{"size":5,"parts":[{},{"name":"p"}]}"#.into()),
        ),
        (
            "patch: \"/{thing.name}\" body: \"*\"",
            &json!({"thing": {"name": "n"}, "text": "t"}),
            "",
            Some(r#"{"thing":{},"text":"t"}"#.into()),
        ),
    ] {
        let test = http(rule, messages);
        let call = test.bind(request.clone());
        let call = call.unwrap_or_else(|error| panic!("{rule}: {error}"));
        assert_eq!(call.query, query, "{rule} {request}");
        assert_eq!(body(&call), want.as_deref(), "{rule} {request}");
    }
}

#[test]
fn body_can_be_one_field() {
    let test = http(
        "post: \"/{id}\" body: \"things\"",
        "message Req { string id = 1; repeated Thing things = 2; string text = 3; }
         message Thing { string name = 1; E kind = 2 [(drawbridge.v1.field).absent_in = \"b\"];
           string kind_raw = 3 [(drawbridge.v1.field).raw_of = \"kind\"]; }
         enum E { E_UNSPECIFIED = 0; E_ONE = 1; }
         message Res {}",
    );
    let call = test
        .bind(json!({"id": "i", "things": [{"name": "a", "kind": "E_ONE"}, {}], "text": "t"}))
        .unwrap();
    assert_eq!(body(&call), Some(r#"[{"name":"a","kind":"ONE"},{}]"#));
    // All other fields are in the query.
    assert_eq!(call.query, "text=t");
    let call = test
        .bind_in(
            json!({"id": "i", "things": [{"name": "a", "kindRaw": "new"}]}),
            "b",
        )
        .unwrap();
    assert_eq!(body(&call), Some(r#"[{"name":"a"}]"#));

    let test = TestContract::new(&unary(
        "option (google.api.http) = {post: \"/{id}\" body: \"text\"};",
        "message Req { string id = 1; string text = 2; } message Res {}",
    ));
    let call = test.bind(json!({"id": "i", "text": "a\"b"})).unwrap();
    assert_eq!(body(&call), Some(r#""a\"b""#));
    let call = test.bind(json!({"id": "i"})).unwrap();
    assert_eq!(body(&call), None);

    for (kind, value, want) in [
        ("google.protobuf.Struct", json!({"a": 5}), r#"{"a":5}"#),
        ("google.protobuf.Struct", json!({}), "{}"),
        ("google.protobuf.Value", json!([1, null]), "[1,null]"),
        ("google.protobuf.Value", Json::Null, "null"),
        ("optional int64", json!(0), "0"),
    ] {
        let test = http(
            "post: \"/x\" body: \"value\"",
            &format!("message Req {{ {kind} value = 1; }} message Res {{}}"),
        );
        let call = test.bind(json!({ "value": value })).unwrap();
        assert_eq!(body(&call), Some(want), "{kind}");
    }
}

#[test]
fn constant_body_is_sent_verbatim() {
    let test = TestContract::new(&unary(
        "option (google.api.http) = {post: \"/{id}/actions\"};
         option (drawbridge.v1.method).constant_body = '{\"suspend\": null}';",
        "message Req { string id = 1; string q = 2; } message Res {}",
    ));
    let call = test.bind(json!({"id": "i", "q": "x"})).unwrap();
    assert_eq!(body(&call), Some(r#"{"suspend": null}"#));
    assert_eq!(call.query, "q=x");
}

#[test]
fn error_names_the_missing_required_field() {
    let required = "[(google.api.field_behavior) = REQUIRED]";
    let messages = format!(
        r#"message Req {{
          string id = 1 {required};
          Thing thing = 2 {required};
          repeated Thing things = 3;
          map<string, Thing> named = 4;
          optional string text = 5;
          repeated string always = 6
            [(google.api.field_behavior) = REQUIRED, (drawbridge.v1.field).emit_empty = true];
          Tree tree = 7;
          E e = 8 {required};
          string e_raw = 9 [(drawbridge.v1.field).raw_of = "e"];
          Made made = 10 [(google.api.field_behavior) = OUTPUT_ONLY];
        }}
        message Thing {{ int32 size = 1 {required}; optional string name = 2 {required}; }}
        message Tree {{ Tree left = 1; repeated string leaves = 2 {required}; }}
        message Made {{ string by = 1 {required}; }}
        enum E {{ E_UNSPECIFIED = 0; E_ONE = 1; }}
        message Res {{}}"#
    );
    let test = http("post: \"/x\" body: \"*\"", &messages);
    let thing = json!({"size": 1, "name": "n"});
    let whole = json!({"id": "i", "thing": thing, "e": "E_ONE"});
    test.bind(whole.clone()).unwrap();
    for (key, value, field) in [
        ("id", json!(""), "id"),
        ("thing", Json::Null, "thing"),
        ("thing", json!({}), "thing.size"),
        ("thing", json!({"size": 1}), "thing.name"),
        ("thing", json!({"size": 1, "name": ""}), "thing.name"),
        ("things", json!([thing, {"size": 1}]), "things[1].name"),
        ("named", json!({"k": {"name": "n"}}), "named[0].value.size"),
        ("tree", json!({"left": {"leaves": ["l"]}}), "tree.leaves"),
        (
            "tree",
            json!({"left": {}, "leaves": ["l"]}),
            "tree.left.leaves",
        ),
        ("e", json!("E_UNSPECIFIED"), "e"),
    ] {
        let mut request = whole.clone();
        request[key] = value.clone();
        let error = test.bind(request).unwrap_err();
        // A message that contains the missing field is checked first.
        let (found, problem) = fault(&error);
        if key == "tree" && value.get("leaves").is_none() {
            assert_eq!(found, "tree.leaves");
        } else {
            assert_eq!(found, field, "{key}: {value}");
        }
        assert_eq!(problem, "is required", "{key}: {value}");
    }
    // Fields that are not sent are not checked; an empty list counts as set, and so
    // does a raw field.
    let mut request = whole.clone();
    request["made"] = json!({});
    request["e"] = json!("E_UNSPECIFIED");
    request["eRaw"] = json!("NEW");
    let call = test.bind(request).unwrap();
    let sent: Json = serde_json::from_slice(&call.body.unwrap()).unwrap();
    let want = json!({"id": "i", "thing": {"size": 1, "name": "n"}, "always": [], "e": "NEW"});
    assert_eq!(sent, want);
}

#[test]
fn dialects_differ_in_required_and_absent_fields() {
    let test = http(
        "post: \"/{id}\" body: \"*\"",
        r#"message Req {
             string id = 1;
             string action = 2 [(drawbridge.v1.field).required_in = "rackspace"];
             string project = 3 [(drawbridge.v1.field).absent_in = "rackspace"];
             Sub sub = 4;
             string scope = 5 [(drawbridge.v1.field) = {query: true absent_in: "rts"}];
             string kind = 6
               [(google.api.field_behavior) = REQUIRED, (drawbridge.v1.field).absent_in = "rts"];
           }
           message Sub {
             string a = 1 [(drawbridge.v1.field).absent_in = "rackspace"];
             string b = 2 [(drawbridge.v1.field).required_in = "rts"];
           }
           message Res {}"#,
    );
    let request = json!({
        "id": "i", "action": "A", "project": "p", "sub": {"a": "a"}, "scope": "s", "kind": "k",
    });
    for (dialect, query, want) in [
        (
            "",
            "scope=s",
            r#"{"action":"A","project":"p","sub":{"a":"a"},"kind":"k"}"#,
        ),
        (
            "heat",
            "scope=s",
            r#"{"action":"A","project":"p","sub":{"a":"a"},"kind":"k"}"#,
        ),
        (
            "rackspace",
            "scope=s",
            r#"{"action":"A","sub":{},"kind":"k"}"#,
        ),
    ] {
        let call = test.bind_in(request.clone(), dialect).unwrap();
        assert_eq!(
            (&*call.query, body(&call)),
            (query, Some(want)),
            "{dialect}"
        );
    }
    let error = test.bind_in(request.clone(), "rts").unwrap_err();
    assert_eq!(fault(&error), ("sub.b", "is required by the dialect rts"));
    let error = test
        .bind_in(json!({"id": "i", "kind": "k"}), "rackspace")
        .unwrap_err();
    assert_eq!(
        fault(&error),
        ("action", "is required by the dialect rackspace")
    );
    assert!(test.bind_in(json!({"id": "i"}), "heat").is_err());
    let call = test
        .bind_in(json!({"id": "i", "scope": "s"}), "rts")
        .unwrap();
    assert_eq!((&*call.query, body(&call)), ("", Some("{}")));
}

#[test]
fn last_value_wins_and_message_parts_merge() {
    let test = http(
        "post: \"/{id}/{a.id}\" body: \"*\"",
        "message Req { string id = 1; A a = 2; repeated int32 n = 3
             [(drawbridge.v1.field).query = true];
           oneof one { string x = 4 [(drawbridge.v1.field).query = true];
                       string y = 5 [(drawbridge.v1.field).query = true]; } }
         message A { string id = 1; string name = 2 [(google.api.field_behavior) = REQUIRED]; }
         message Res {}",
    );
    let rpc = test.rpc("Do");
    // The last value wins, messages merge, lists are packed or not, the last member of
    // a oneof is set, unknown fields are ignored.
    let wire = b"\x0a\x01a\x12\x03\x0a\x01b\x1a\x02\x01\x02\x18\x03\x22\x01x\x2a\x01y\
                 \x0a\x01c\x12\x03\x12\x01n\x1a\x01\x04\x7a\x01z\xa0\x06\x05";
    let call = rpc.bind(wire, "").unwrap();
    assert_eq!(call.path, "/c/b");
    assert_eq!(call.query, "n=1&n=2&n=3&n=4&y=y");
    assert_eq!(body(&call), Some(r#"{"a":{"name":"n"}}"#));

    for (wire, want) in [
        (&b"\x0a\x05a"[..], "cut off"),
        (b"\x0a", "cut off"),
        (b"\x00\x00", "field number"),
        (b"\x0b\x0c", "wire type 3"),
        (b"\x08\x01", "not that of the field"),
        (b"\x0a\x01a\x12\x02\x0a\x05", "a: the message is cut off"),
        (
            b"\x0a\x01a\x12\x02\x08\x05",
            "a: the wire type is not that of the field",
        ),
        (b"\x1a\x01\x80", "cut off"),
        (b"\x1a\x03\x01\x02\x80", "cut off"),
    ] {
        let error = rpc.bind(wire, "").unwrap_err();
        let Error::Malformed(problem) = &error else {
            panic!("{wire:?}: {error:?}");
        };
        assert!(problem.contains(want), "{wire:?}: {problem}");
    }
    let error = rpc
        .bind(b"\x0a\x02\xff\xfe\x12\x06\x0a\x01b\x12\x01n", "")
        .unwrap_err();
    assert_eq!(fault(&error), ("id", "is not UTF-8"));
}

#[test]
fn nesting_depth_is_limited() {
    let test = http(
        "post: \"/x\" body: \"*\"",
        "message Req { Req in = 1; string name = 2 [(google.api.field_behavior) = OUTPUT_ONLY]; }
         message Res {}",
    );
    let nested = |depth: usize| {
        let mut wire = b"\x12\x01n".to_vec();
        for _ in 0..depth {
            let mut outer = Vec::with_capacity(wire.len() + 6);
            crate::json::wire::write_bytes(&mut outer, 1, &wire);
            wire = outer;
        }
        wire
    };
    let rpc = test.rpc("Do");
    let call = rpc.bind(&nested(20), "").unwrap();
    let want = format!("{}{{}}{}", r#"{"in":"#.repeat(20), "}".repeat(20));
    assert_eq!(body(&call), Some(&*want));
    let error = rpc.bind(&nested(10_000), "").unwrap_err();
    assert!(error.to_string().contains("nested deeper"), "{error}");
}

#[test]
fn action_document_is_optional() {
    let test = TestContract::new(&unary(
        r#"option (google.api.http) = {
             post: "/objects/{project_id}/Services/{id}/actions/release/invoke"
             body: "document"
           };
           option (drawbridge.v1.method) = {
             constant_query: "v=1"
             action: {
               name_member: "name" name_value: "release" document: "document"
               members: [{key: "parameters" value: "[]"}, {key: "method" value: "\"POST\""}]
             }
           };"#,
        "message Req { string project_id = 3 [
           (drawbridge.v1.field).upstream_value = \"project_id\"];
           int64 id = 1; google.protobuf.Struct document = 2; string q = 4; }
         message Res {}",
    ));
    let rpc = test.rpc("Do");
    let action = rpc.action.as_ref().unwrap();
    assert_eq!(action.name, Some(("name".into(), "release".into())));
    let members: Vec<(&str, &str)> = action.members.iter().map(|(n, j)| (&**n, &**j)).collect();
    assert_eq!(members, [("method", "\"POST\""), ("parameters", "[]")]);

    let call = test.bind(json!({"id": 41, "q": "x"})).unwrap();
    assert_eq!(call.path, "/objects//Services/41/actions/release/invoke");
    assert_eq!((&*call.query, body(&call)), ("q=x&v=1", None));
    let wire = test.wire("t.Req", json!({"id": 41, "q": "x"}));
    let get = rpc.document_call(&wire).unwrap();
    assert_eq!(get.path, "/objects//Services/41/actions/release");
    assert_eq!(get.verb, http::Method::GET);
    assert_eq!((&*get.query, body(&get)), ("v=1", None));
    assert_eq!(get.project, Some(9..9));
    assert_eq!(get.idempotency, Idempotency::NoSideEffects);

    let wire = test.wire(
        "t.Req",
        json!({"id": 41, "document": {"name": "x", "n": 5}}),
    );
    let document = rpc.document(&wire).unwrap().unwrap();
    let sent: Json = serde_json::from_slice(&document).unwrap();
    assert_eq!(sent, json!({"name": "x", "n": 5}));
    assert_eq!(rpc.bind(&wire, "").unwrap().body, Some(document));
    let none = test.wire("t.Req", json!({"id": 41}));
    assert_eq!(rpc.document(&none).unwrap(), None);
}
