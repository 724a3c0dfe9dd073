//! Binding of requests to REST calls.

mod body;
mod names;
mod path;

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
