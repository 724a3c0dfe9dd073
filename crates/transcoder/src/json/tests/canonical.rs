//! The JSON mapping of protobuf, compared with prost-reflect.

use serde_json::{Value, json};

use super::*;
use crate::contract::CanonicalJson;

static JSON: LazyLock<CanonicalJson> = LazyLock::new(|| {
    let set = POOL.encode_to_vec();
    CanonicalJson::new(&set).expect("the test proto is a descriptor set")
});

fn to_wire(message: &str, text: &str) -> Result<bytes::Bytes, Problem> {
    let id = JSON.message(&format!("test.{message}")).expect("a message");
    JSON.to_wire(id, text.as_bytes())
}

/// Integers and doubles of the same value are equal.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(a, b)| same(a, b))
        }
        (Value::Object(one), Value::Object(other)) => {
            let has = |(name, value): (&String, &Value)| {
                other.get(name).is_some_and(|other| same(value, other))
            };
            one.len() == other.len() && one.iter().all(has)
        }
        _ => one == other,
    }
}

#[test]
fn canonical_json_is_that_of_another_implementation() {
    for (message, text) in [
        ("All", json!({})),
        (
            "All",
            json!({"aDouble": 1.5, "aFloat": 0.25, "anInt32": -7, "anInt64": "9007199254740993",
                "aUint64": "18446744073709551615", "aSint64": "-1", "aFixed64": "1",
                "aSfixed64": "-9223372036854775808", "aBool": true, "aString": "ü\n\"",
                "someBytes": "AQL/", "aColor": "GREEN", "aMessage": {"aString": "inner"}}),
        ),
        (
            "All",
            json!({"a_double": "Infinity", "an_int64": 12, "a_color": 1, "a_float": "-Infinity"}),
        ),
        ("All", json!({"aColor": 77, "colors": ["RED", -1, 5]})),
        (
            "All",
            json!({"optDouble": 0, "optInt64": "0", "optBool": false, "optString": "",
                "optBytes": "", "optColor": "UNKNOWN"}),
        ),
        (
            "All",
            json!({"doubles": [1, "Infinity"], "int64s": ["1", 2], "bools": [true, false],
                "strings": ["", "a"], "messages": [{}, {"anInt32": 1}], "byteses": ["_-8="]}),
        ),
        (
            "All",
            json!({"stringMap": {"a": "b"}, "int32Map": {"-1": "5"}, "int64Map": {"7": {}},
                "boolMap": {"true": "x"}, "valueMap": {"v": null, "w": [1, {"x": "y"}]},
                "uint32Map": {"3": "GREEN"}}),
        ),
        (
            "All",
            json!({"wInt64": "5", "wUint64": "7", "wBool": false, "wString": "", "wDouble": 0,
                "time": "2026-11-21T12:00:01.500Z", "duration": "-3.000000001s",
                "mask": "aString,aMessage.anInt32", "object": {"n": 5, "big": 1e300},
                "list": [null, true], "value": null, "empty": {}}),
        ),
        ("All", json!({"oneNull": null})),
        ("All", json!({"oneMessage": {"oneString": "x"}})),
        (
            "All",
            json!({"any": {"@type": "type.googleapis.com/test.All", "anInt64": "5",
                "aMessage": {"aBool": true}}}),
        ),
        (
            "All",
            json!({"any": {"@type": "type.googleapis.com/google.protobuf.Duration",
                "value": "1s"}}),
        ),
        // No rule of an upstream applies.
        (
            "Ruled",
            json!({"status": "STATUS_DONE", "statusRaw": "x", "state": 0,
                "number": "5", "flag": true, "numbers": ["1"], "tags": ["a"],
                "secret": "s", "links:self": "l", "text": {}, "counts": {"a": "1"}}),
        ),
    ] {
        let text = text.to_string();
        let descriptor = POOL
            .get_message_by_name(&format!("test.{message}"))
            .expect("a message");
        let mut deserializer = serde_json::Deserializer::from_str(&text);
        let theirs = DynamicMessage::deserialize(descriptor, &mut deserializer)
            .unwrap_or_else(|e| panic!("{text}: {e}"));
        let ours = to_wire(message, &text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert!(dynamic(message, &ours) == theirs, "{text}");
        let id = JSON.message(&format!("test.{message}")).expect("a message");
        let written = JSON.to_json(id, &theirs.encode_to_vec()).expect("JSON");
        let written: Value = serde_json::from_slice(&written).expect("JSON");
        let want = serde_json::to_value(&theirs).expect("JSON");
        assert!(same(&written, &want), "{written}\n{want}");
    }
}

#[test]
fn what_would_be_lost_or_guessed_is_an_error() {
    for (text, path, problem) in [
        ("", "", "the JSON is empty"),
        ("null", "", "expected an object"),
        (
            r#"{"aStrin": 1}"#,
            "aStrin",
            "no such field: All has a_double, a_float",
        ),
        (
            r#"{"messages": [{}, {"x": {"y": 1}}]}"#,
            "messages[1].x",
            "no such field: All has",
        ),
        (r#"{"empty": {"a": 1}}"#, "empty.a", "Empty has none"),
        (r#"{"@type": "x"}"#, "@type", "no such field"),
        (
            r#"{"any": {"@type": "type.googleapis.com/test.All", "aMessage": {"@type": "x"}}}"#,
            "any.aMessage.@type",
            "no such field",
        ),
        (r#"{"aString": 5}"#, "aString", "expected a string"),
        (r#"{"aBool": "true"}"#, "aBool", "expected true or false"),
        (r#"{"aBool": 1}"#, "aBool", "expected true or false"),
        (r#"{"anInt32": ""}"#, "anInt32", "expected an integer"),
        (r#"{"anInt32": " 5"}"#, "anInt32", "expected an integer"),
        (r#"{"anInt32": 1.5}"#, "anInt32", "expected an integer"),
        (r#"{"anInt32": 3000000000}"#, "anInt32", "out of range"),
        (
            r#"{"aUint64": 18446744073709551616}"#,
            "aUint64",
            "out of range",
        ),
        (r#"{"aUint32": -1}"#, "aUint32", "out of range"),
        (
            r#"{"aDouble": 9007199254740993}"#,
            "aDouble",
            "held exactly",
        ),
        (
            r#"{"doubles": [1, 9007199254740993]}"#,
            "doubles[1]",
            "held exactly",
        ),
        (r#"{"aDouble": 1e400}"#, "aDouble", ""),
        (r#"{"aDouble": NaN}"#, "aDouble", ""),
        (r#"{"value": 9007199254740993}"#, "value", "held exactly"),
        (
            r#"{"object": {"a": [1e400]}}"#,
            "object.a[0]",
            "held exactly",
        ),
        (
            r#"{"aColor": "BLUE"}"#,
            "aColor",
            "no such value: Color has NEGATIVE, UNKNOWN, RED",
        ),
        (r#"{"aColor": "red"}"#, "aColor", "no such value"),
        (r#"{"aColor": 1.5}"#, "aColor", "an integer"),
        (
            r#"{"strings": [null]}"#,
            "strings[0]",
            "expected an element",
        ),
        (r#"{"int32s": [null]}"#, "int32s[0]", "expected an integer"),
        (
            r#"{"messages": [null]}"#,
            "messages[0]",
            "expected an element",
        ),
        (
            r#"{"stringMap": {"a": null}}"#,
            "stringMap.a",
            "expected a value",
        ),
        (r#"{"time": ""}"#, "time", "expected a time"),
        (
            r#"{"time": "2026-11-21T12:00:01"}"#,
            "time",
            "expected a time",
        ),
        (
            r#"{"time": "2026-11-21 12:00:01Z"}"#,
            "time",
            "expected a time",
        ),
        (r#"{"duration": ""}"#, "duration", "expected a duration"),
        (r#"{"aString": "a", "a_string": "b"}"#, "a_string", "twice"),
        (
            r#"{"stringMap": {"a": "1", "b": "", "\u0061": "2"}}"#,
            r"stringMap.\u0061",
            "the key is there twice",
        ),
        (
            r#"{"int64Map": {"7": {}, "07": {}}}"#,
            "int64Map.07",
            "twice",
        ),
        (
            r#"{"object": {"x": {"k": 1, "k": 2}}}"#,
            "object.x.k",
            "the key is there twice",
        ),
        (r#"{"aString": "a\ud800b"}"#, "aString", "surrogate"),
        (
            r#"{"aString": "\ud83d\ude00\ude00"}"#,
            "aString",
            "surrogate",
        ),
        (r#"{"aString": "\\\udc00"}"#, "aString", "surrogate"),
        (
            r#"{"oneString": "a", "oneInt32": 5}"#,
            "oneInt32",
            "excludes the field one_string",
        ),
        (r#"{"aString": "a"} x"#, "", "unexpected data"),
        (r#"{"aString": "a""#, "aString", "the end of the text"),
    ] {
        let failed = to_wire("All", text).expect_err(text);
        assert_eq!(failed.path, path, "{text}: {failed}");
        assert!(failed.problem.contains(problem), "{text}: {failed}");
    }
    // The names of the proto and of REST are not mixed up.
    let failed = to_wire("Ruled", r#"{"status": "done"}"#).expect_err("a REST text");
    assert!(failed.problem.contains("STATUS_DONE"), "{failed}");
}
