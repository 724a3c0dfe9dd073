//! Messages that are arrays in JSON, and additional properties.

use super::*;

const PROTO: &str = r#"
    syntax = "proto3";
    package shapes;
    import "drawbridge/v1/options.proto";
    import "google/protobuf/struct.proto";
    message Thing {
      string name = 1 [(drawbridge.v1.field).aliases = "NAME"];
      Labels labels = 2;
      repeated Rules each = 3;
      Rules affinity = 4;
      google.protobuf.Struct others = 5 [(drawbridge.v1.field).additional_properties = true];
      Thing thing = 6;
      map<string, Labels> sets = 7;
    }
    message Labels {
      option (drawbridge.v1.message).as_array = "items";
      repeated Label items = 1;
    }
    message Label { string key = 1; string value = 2; }
    // A list of rules, or one rule.
    message Rules {
      option (drawbridge.v1.message).as_array = "rules";
      repeated Rules rules = 1;
      optional string kind = 2;
      repeated string az = 3;
    }"#;

static SHAPES: LazyLock<Schema> = LazyLock::new(|| {
    let pool = compile(PROTO).expect("it compiles");
    Schema::build(&pool).expect("it holds together")
});

fn thing() -> MessageId {
    SHAPES.message_id("shapes.Thing").expect("it is there")
}

fn read(text: &str) -> Result<Vec<u8>, Problem> {
    let mut wire = Vec::new();
    to_wire(&SHAPES, thing(), text.as_bytes(), &mut wire).map(|_| wire)
}

fn written(wire: &[u8]) -> Result<String, Problem> {
    let mut out = Vec::new();
    to_json(&SHAPES, thing(), wire, &|_| false, &mut out)?;
    Ok(String::from_utf8(out).expect("JSON is UTF-8"))
}

#[test]
fn arrays_round_trip() {
    for text in [
        "{}",
        r#"{"labels":[]}"#,
        r#"{"labels":[{"key":"a","value":"b"},{}]}"#,
        r#"{"each":[[],[{"kind":"pod"}],{"kind":"node"}]}"#,
        r#"{"affinity":[{"kind":"node"},[{"az":["1"]}]]}"#,
        r#"{"affinity":{"kind":""}}"#,
        r#"{"affinity":{"kind":"pod","az":["a","b"]}}"#,
        r#"{"sets":{"a":[],"b":[{"key":"k"}]}}"#,
        r#"{"name":"n","more":{"a":[1,null,{}]},"less":null,"others":"a member by that name"}"#,
        r#"{"x":1,"thing":{"y":[],"thing":{"z":2.5}}}"#,
    ] {
        let wire = read(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        let back: serde_json::Value = serde_json::from_str(&written(&wire).unwrap()).unwrap();
        let want: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(back, want, "{text}");
    }
}

#[test]
fn array_message_with_another_member_becomes_an_object() {
    let rules = bytes(4, [bytes(1, bytes(2, "pod")), bytes(2, "node")].concat());
    assert_eq!(
        written(&rules).unwrap(),
        r#"{"affinity":{"kind":"node","rules":[{"kind":"pod"}]}}"#
    );
    // In parts, and out of order.
    let labels = [
        bytes(2, bytes(1, bytes(1, "a"))),
        bytes(1, "n"),
        bytes(2, bytes(1, "")),
    ]
    .concat();
    assert_eq!(
        written(&labels).unwrap(),
        r#"{"name":"n","labels":[{"key":"a"},{}]}"#
    );
}

#[test]
fn additional_properties_survive_duplicate_members() {
    let wire = read(r#"{"a":1,"name":"x","b":2,"name":"y","a":3,"c":4,"NAME":"z"}"#).unwrap();
    let back: serde_json::Value = serde_json::from_str(&written(&wire).unwrap()).unwrap();
    assert_eq!(
        back,
        serde_json::json!({"a": 3, "b": 2, "name": "z", "c": 4})
    );
}

#[test]
fn invalid_arrays_are_reported_with_their_path() {
    let entry = |key: &str| bytes(1, [bytes(1, key), bytes(2, [0x08, 0])].concat());
    for (wire, path, problem) in [
        (
            bytes(5, entry("name")),
            "others.name",
            "has a field of its own: set that",
        ),
        (
            bytes(6, bytes(5, entry("NAME"))),
            "thing.others.NAME",
            "has a field of its own: set that",
        ),
        (
            number(5, 1),
            "others",
            "the wire type is not that of the field",
        ),
    ] {
        let found = written(&wire).unwrap_err();
        assert_eq!(found.path, path);
        assert_eq!(found.problem, problem);
    }
    for (text, path) in [
        (r#"{"labels":7}"#, "labels"),
        (r#"{"labels":[7]}"#, "labels[0]"),
        (r#"{"more":[1,}"#, "more[1]"),
        (r#"{"more"}"#, "more"),
    ] {
        assert_eq!(read(text).unwrap_err().path, path, "{text}");
    }
    let deep = format!("{{\"x\":{}1{}}}", "[".repeat(200), "]".repeat(200));
    assert!(read(&deep).unwrap_err().problem.starts_with("nested"));
}
