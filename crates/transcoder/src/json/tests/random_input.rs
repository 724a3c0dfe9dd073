//! Properties of any message and any text. The oracle is the proto3 JSON of
//! prost-reflect.

use proptest::collection::vec;
use proptest::prelude::*;
use prost_reflect::{DynamicMessage, SerializeOptions};
use serde_json::Value as Json;

use super::*;

/// `test.All` has no annotations, which the oracle does not know.
const MESSAGE: &str = "All";

fn oracle_json(message: &DynamicMessage) -> Option<Json> {
    let options = SerializeOptions::new()
        .stringify_64_bit_integers(false)
        .use_proto_field_name(true);
    message
        .serialize_with_options(serde_json::value::Serializer, &options)
        .ok()
}

fn our_json(wire: &[u8]) -> Result<Json, Problem> {
    let mut out = Vec::new();
    to_json(&SCHEMA, id(MESSAGE), wire, &|_| false, &mut out)?;
    Ok(serde_json::from_slice(&out).expect("what is written is JSON"))
}

/// Compares numbers by value: one implementation writes `5.0` where the other writes
/// `5`, serde_json reads doubles only to within their last digit, and the oracle writes
/// floats with the digits of doubles. Another test checks that ours are exact.
fn same(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Number(a), Json::Number(b)) => {
            let close = |a: f64, b: f64| a == b || a as f32 == b as f32;
            a == b
                || ((a.is_f64() || b.is_f64())
                    && a.as_f64().zip(b.as_f64()).is_some_and(|(a, b)| close(a, b)))
        }
        (Json::Array(a), Json::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Json::Object(a), Json::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

/// Arbitrary JSON, as deep as other implementations accept in a Struct.
fn json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i32>().prop_map(Json::from),
        finite().prop_map(Json::from),
        any::<String>().prop_map(Json::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![vec(inner.clone(), 0..4).prop_map(Json::from), object(inner),]
    })
}

fn object(value: impl Strategy<Value = Json>) -> impl Strategy<Value = Json> {
    vec((any::<String>(), value), 0..4)
        .prop_map(|members| Json::Object(members.into_iter().collect()))
}

/// Finite numbers except -0, which the oracle takes for unset in a field without
/// presence.
fn finite() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<f64>().prop_filter("a JSON number", |v| v.is_finite() && v.to_bits() != 1 << 63),
        (-1_000_i32..1_000).prop_map(f64::from),
    ]
}

fn map(
    key: impl Strategy<Value = String>,
    value: impl Strategy<Value = Json>,
) -> impl Strategy<Value = Json> {
    vec((key, value), 0..4).prop_map(|members| Json::Object(members.into_iter().collect()))
}

fn color() -> impl Strategy<Value = Json> {
    prop::sample::select(vec!["UNKNOWN", "RED", "GREEN", "NEGATIVE"]).prop_map(Json::from)
}

fn base64() -> impl Strategy<Value = Json> {
    vec(any::<u8>(), 0..20).prop_map(|bytes| {
        let mut out = Vec::new();
        print::base64(&mut out, &bytes);
        String::from_utf8(out).expect("base64 is ASCII").into()
    })
}

fn timestamp() -> impl Strategy<Value = Json> {
    let nanos = prop_oneof![
        Just(0),
        (0..1_000).prop_map(|n| n * 1_000_000),
        0..1_000_000_000
    ];
    (-62_135_596_800_i64..=253_402_300_799, nanos).prop_map(|(seconds, nanos)| {
        let mut out = Vec::new();
        time::write_timestamp(&mut out, time::Seconds { seconds, nanos });
        String::from_utf8(out).expect("times are ASCII").into()
    })
}

fn duration() -> impl Strategy<Value = Json> {
    (any::<bool>(), 0..=315_575_999_999_i64, 0..1_000_000_000).prop_map(
        |(minus, seconds, nanos)| {
            let sign = if minus { -1 } else { 1 };
            let mut out = Vec::new();
            let duration = time::Seconds {
                seconds: sign * seconds,
                nanos: sign as i32 * nanos,
            };
            time::write_duration(&mut out, duration);
            String::from_utf8(out).expect("durations are ASCII").into()
        },
    )
}

/// One member of `test.All`, of any kind.
fn member(inner: BoxedStrategy<Json>) -> impl Strategy<Value = (String, Json)> {
    fn named(
        name: &'static str,
        value: impl Strategy<Value = Json> + 'static,
    ) -> BoxedStrategy<(String, Json)> {
        value
            .prop_map(move |value| (name.to_owned(), value))
            .boxed()
    }
    fn list(
        name: &'static str,
        value: impl Strategy<Value = Json> + 'static,
    ) -> BoxedStrategy<(String, Json)> {
        named(name, vec(value, 0..4).prop_map(Json::from))
    }
    let text = || any::<String>().prop_map(Json::from);
    let special =
        || prop::sample::select(vec!["NaN", "Infinity", "-Infinity"]).prop_map(Json::from);
    prop::strategy::Union::new(vec![
        named(
            "a_double",
            prop_oneof![finite().prop_map(Json::from), special()],
        ),
        named(
            "a_float",
            prop_oneof![
                any::<f32>()
                    .prop_filter("a JSON number", |v| v.is_finite() && v.to_bits() != 1 << 31)
                    .prop_map(Json::from),
                special()
            ],
        ),
        named("an_int32", any::<i32>().prop_map(Json::from)),
        named(
            "an_int64",
            prop_oneof![
                any::<i64>().prop_map(Json::from),
                any::<i64>().prop_map(|v| v.to_string().into())
            ],
        ),
        named("a_uint32", any::<u32>().prop_map(Json::from)),
        named("a_uint64", any::<u64>().prop_map(Json::from)),
        named("a_sint32", any::<i32>().prop_map(Json::from)),
        named("a_sint64", any::<i64>().prop_map(Json::from)),
        named("a_fixed32", any::<u32>().prop_map(Json::from)),
        named("a_fixed64", any::<u64>().prop_map(Json::from)),
        named("a_sfixed32", any::<i32>().prop_map(Json::from)),
        named("a_sfixed64", any::<i64>().prop_map(Json::from)),
        named("a_bool", any::<bool>().prop_map(Json::from)),
        named("a_string", text()),
        named("some_bytes", base64()),
        named("a_color", color()),
        named("a_message", inner.clone()),
        named("opt_int64", (-1_i64..2).prop_map(Json::from)),
        named("opt_bool", any::<bool>().prop_map(Json::from)),
        named("opt_string", text()),
        named("opt_bytes", base64()),
        named("opt_color", color()),
        list("doubles", finite().prop_map(Json::from)),
        list("int32s", any::<i32>().prop_map(Json::from)),
        list("sint64s", any::<i64>().prop_map(Json::from)),
        list("fixed32s", any::<u32>().prop_map(Json::from)),
        list("bools", any::<bool>().prop_map(Json::from)),
        list("strings", text()),
        list("byteses", base64()),
        list("colors", color()),
        list("messages", inner.clone()),
        named("string_map", map(any::<String>(), text())),
        named(
            "int32_map",
            map(
                any::<i32>().prop_map(|k| k.to_string()),
                any::<i64>().prop_map(Json::from),
            ),
        ),
        named(
            "int64_map",
            map(any::<i64>().prop_map(|k| k.to_string()), inner.clone()),
        ),
        named(
            "uint32_map",
            map(any::<u32>().prop_map(|k| k.to_string()), color()),
        ),
        named(
            "uint64_map",
            map(
                any::<u64>().prop_map(|k| k.to_string()),
                finite().prop_map(Json::from),
            ),
        ),
        named(
            "sint32_map",
            map(any::<i32>().prop_map(|k| k.to_string()), base64()),
        ),
        named(
            "sint64_map",
            map(
                any::<i64>().prop_map(|k| k.to_string()),
                any::<bool>().prop_map(Json::from),
            ),
        ),
        named(
            "fixed64_map",
            map(any::<u64>().prop_map(|k| k.to_string()), text()),
        ),
        named(
            "sfixed32_map",
            map(any::<i32>().prop_map(|k| k.to_string()), text()),
        ),
        named(
            "bool_map",
            map(any::<bool>().prop_map(|k| k.to_string()), text()),
        ),
        named("value_map", map(any::<String>(), json())),
        named("one_string", text()),
        named("one_null", Just(Json::Null)),
        named("one_value", json()),
        named("w_double", finite().prop_map(Json::from)),
        named("w_int64", any::<i64>().prop_map(Json::from)),
        named("w_uint32", any::<u32>().prop_map(Json::from)),
        named("w_bool", any::<bool>().prop_map(Json::from)),
        named("w_string", text()),
        named("w_bytes", base64()),
        named("time", timestamp()),
        named("duration", duration()),
        named(
            "mask",
            prop::sample::select(vec!["", "a", "foo,baz.qux"]).prop_map(Json::from),
        ),
        named("object", object(json())),
        named("value", json()),
        named("list", vec(json(), 0..4).prop_map(Json::from)),
        named(
            "any",
            text().prop_map(|name| serde_json::json!({"@type": "t/test.Inner", "name": name})),
        ),
        named("empty", Just(serde_json::json!({}))),
        list("values", json()),
        list("times", timestamp()),
        list("objects", object(json())),
        list("w_strings", text()),
        named("far", text()),
        named("a member that is not known", json()),
    ])
}

/// The JSON of a `test.All`, with at most one member of its oneof.
fn all() -> impl Strategy<Value = Json> {
    Just(serde_json::json!({})).prop_recursive(3, 40, 6, |inner| {
        vec(member(inner.boxed()), 0..8).prop_map(|members| {
            let mut object = serde_json::Map::new();
            for (name, value) in members {
                if !name.starts_with("one_") || !object.keys().any(|k| k.starts_with("one_")) {
                    object.insert(name, value);
                }
            }
            Json::Object(object)
        })
    })
}

/// Duplicates, splits and reorders the fields of a message.
fn torn(wire: &[u8], order: &[usize]) -> Vec<u8> {
    let mut whole = wire::fields(wire);
    let mut records = Vec::new();
    let mut before = whole.rest();
    while whole.next().is_some() {
        let length = before.len() - whole.rest().len();
        records.push(&before[..length]);
        before = whole.rest();
    }
    let mut out = Vec::new();
    for (i, at) in order.iter().enumerate() {
        if !records.is_empty() {
            out.extend_from_slice(records[(at + i) % records.len()]);
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn json_decodes_as_in_the_oracle(value in all()) {
        let text = value.to_string();
        let mut ours = Vec::new();
        to_wire(&SCHEMA, id(MESSAGE), text.as_bytes(), &mut ours).unwrap();
        let descriptor = POOL.get_message_by_name("test.All").unwrap();
        let options = prost_reflect::DeserializeOptions::new().deny_unknown_fields(false);
        let mut deserializer = serde_json::Deserializer::from_str(&text);
        let theirs = DynamicMessage::deserialize_with_options(descriptor, &mut deserializer, &options).unwrap();
        // NaN does not equal itself, but its text does.
        let ours = oracle_json(&dynamic(MESSAGE, &ours)).unwrap();
        let theirs = oracle_json(&theirs).unwrap();
        prop_assert!(same(&ours, &theirs), "{} is not {}", ours, theirs);
    }

    #[test]
    fn messages_encode_as_in_the_oracle(value in all()) {
        let mut wire = Vec::new();
        to_wire(&SCHEMA, id(MESSAGE), value.to_string().as_bytes(), &mut wire).unwrap();
        let ours = our_json(&wire).unwrap();
        let theirs = oracle_json(&dynamic(MESSAGE, &wire)).unwrap();
        prop_assert!(same(&ours, &theirs), "{} is not {}", ours, theirs);
    }

    #[test]
    fn messages_round_trip(value in all()) {
        let mut wire = Vec::new();
        to_wire(&SCHEMA, id(MESSAGE), value.to_string().as_bytes(), &mut wire).unwrap();
        let mut text = Vec::new();
        to_json(&SCHEMA, id(MESSAGE), &wire, &|_| false, &mut text).unwrap();
        let mut again = Vec::new();
        to_wire(&SCHEMA, id(MESSAGE), &text, &mut again).unwrap();
        prop_assert_eq!(oracle_json(&dynamic(MESSAGE, &again)), oracle_json(&dynamic(MESSAGE, &wire)));
    }

    #[test]
    fn reordered_fields_encode_as_in_the_oracle(value in all(), order in vec(0_usize..50, 0..20)) {
        let mut wire = Vec::new();
        to_wire(&SCHEMA, id(MESSAGE), value.to_string().as_bytes(), &mut wire).unwrap();
        let wire = torn(&wire, &order);
        let message = dynamic(MESSAGE, &wire);
        let ours = our_json(&wire).unwrap();
        // The oracle joins the parts of a oneof's members as we do, and writes each
        // field once.
        let theirs = oracle_json(&message).unwrap();
        prop_assert!(same(&ours, &theirs), "{} is not {}", ours, theirs);
    }

    #[test]
    fn doubles_round_trip_exactly(value in any::<f64>().prop_filter("a JSON number", |v| v.is_finite()), small in any::<f32>().prop_filter("a JSON number", |v| v.is_finite())) {
        let mut wire = [&[0x09][..], &value.to_le_bytes(), &[0x15], &small.to_le_bytes()].concat();
        wire.extend(super::bytes(105, [&[0x11][..], &value.to_le_bytes()].concat()));
        let mut text = Vec::new();
        to_json(&SCHEMA, id(MESSAGE), &wire, &|_| false, &mut text).unwrap();
        let mut again = Vec::new();
        to_wire(&SCHEMA, id(MESSAGE), &text, &mut again).unwrap();
        if value.to_bits() != 0 && small.to_bits() != 0 {
            prop_assert_eq!(again, wire);
        }
    }

    #[test]
    fn random_wire_data_does_not_panic(wire in vec(any::<u8>(), 0..200), at in 0..4) {
        let message = ["All", "Ruled", "Envelope", "Inner"][at as usize];
        let mut out = Vec::new();
        if to_json(&SCHEMA, id(message), &wire, &|_| false, &mut out).is_ok() {
            prop_assert!(serde_json::from_slice::<Json>(&out).is_ok(), "{:?}", String::from_utf8_lossy(&out));
        }
        for index in 0..SCHEMA.message(id(message)).fields.len() {
            let _ = texts(&SCHEMA, id(message), index as FieldIndex, &wire);
        }
    }

    #[test]
    fn random_text_does_not_panic(text in vec(any::<u8>(), 0..200), at in 0..4) {
        let message = ["All", "Ruled", "Envelope", "Inner"][at as usize];
        let mut out = Vec::new();
        if to_wire(&SCHEMA, id(message), &text, &mut out).is_ok() {
            dynamic(message, &out);
        }
    }

    #[test]
    fn damaged_json_does_not_panic(value in all(), edits in vec((any::<prop::sample::Index>(), any::<u8>(), 0..3), 0..6)) {
        let mut text = value.to_string().into_bytes();
        for (index, byte, how) in edits {
            let byte = b"{}[],:\"\\n0-1eE. tu"[usize::from(byte) % 18];
            match how {
                0 if !text.is_empty() => { let at = index.index(text.len()); text[at] = byte; }
                1 if !text.is_empty() => { text.remove(index.index(text.len())); }
                _ => text.insert(index.index(text.len() + 1), byte),
            }
        }
        let mut out = Vec::new();
        match to_wire(&SCHEMA, id(MESSAGE), &text, &mut out) {
            Ok(_) => {
                dynamic(MESSAGE, &out);
                // Skipped values are checked, too: they are JSON for other
                // implementations, except where this one is more lenient.
                let mut read = Vec::new();
                to_json(&SCHEMA, id(MESSAGE), &out, &|_| false, &mut read).unwrap();
            }
            Err(problem) => prop_assert!(problem.problem.len() < 200, "{}", problem),
        }
    }
}
