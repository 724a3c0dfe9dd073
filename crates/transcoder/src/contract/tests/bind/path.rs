//! Paths, and which binding is chosen by them.

use super::*;

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
