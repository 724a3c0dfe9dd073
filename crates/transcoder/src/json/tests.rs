//! JSON conversion: tables of cases.

mod canonical;
mod decode;
mod decode_errors;
mod encode;
mod output_limit;
mod random_input;
mod shapes;

use std::sync::LazyLock;

use prost_reflect::prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};

use super::*;

/// `tests/test.proto`, compiled.
pub(super) static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| compile(include_str!("tests/test.proto")).expect("the test proto compiles"));

pub(super) static SCHEMA: LazyLock<Schema> =
    LazyLock::new(|| Schema::build(&POOL).expect("the test proto has no contradictions"));

/// Compiles one proto file, which can import Drawbridge's options.
pub(crate) fn compile(proto: &str) -> Result<DescriptorPool, protox::Error> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("test.proto"), proto).expect("the folder is writable");
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto");
    let mut compiler = protox::Compiler::new([folder.path(), own.as_ref()])?;
    compiler.include_imports(true).open_file("test.proto")?;
    Ok(
        DescriptorPool::decode(compiler.encode_file_descriptor_set().as_slice())
            .expect("protox encodes what it compiles"),
    )
}

pub(super) fn id(message: &str) -> MessageId {
    SCHEMA
        .message_id(&format!("test.{message}"))
        .expect("a message of the test proto")
}

/// Encodes a message as JSON.
pub(super) fn json(message: &str, wire: &[u8]) -> Result<String, Problem> {
    let mut out = b"before".to_vec();
    to_json(&SCHEMA, id(message), wire, &|_| false, &mut out)?;
    let text = String::from_utf8(out).expect("JSON is UTF-8");
    Ok(text
        .strip_prefix("before")
        .expect("the output is appended")
        .to_owned())
}

/// Decodes JSON to wire bytes.
pub(super) fn wire(message: &str, text: impl AsRef<[u8]>) -> Result<Vec<u8>, Problem> {
    let mut out = b"before".to_vec();
    let result = to_wire(&SCHEMA, id(message), text.as_ref(), &mut out);
    let wire = out.strip_prefix(b"before").expect("the output is appended");
    if result.is_err() {
        assert_eq!(wire, b"", "a failed text leaves no output");
    }
    result.map(|_| wire.to_vec())
}

/// Decodes wire bytes by prost-reflect.
pub(super) fn dynamic(message: &str, wire: &[u8]) -> DynamicMessage {
    let descriptor = POOL
        .get_message_by_name(&format!("test.{message}"))
        .expect("a message of the test proto");
    DynamicMessage::decode(descriptor, wire).expect("another implementation reads it")
}

/// Encodes a field with a number.
pub(super) fn number(field: u32, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    wire::write_uint(&mut out, field, value);
    out
}

/// Encodes a field with bytes.
pub(super) fn bytes(field: u32, value: impl AsRef<[u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    wire::write_bytes(&mut out, field, value.as_ref());
    out
}

#[test]
fn each_value_has_a_text() {
    let schema = &*SCHEMA;
    let texts = |message: &str, field: &str, wire: &[u8]| {
        let (index, _) = schema.message(id(message)).field(field).expect("a field");
        texts(schema, id(message), index, wire).map_err(|p| p.problem)
    };
    type Texts<'a> = Result<Vec<&'a str>, &'a str>;
    let cases: Vec<(&str, &str, Vec<u8>, Texts<'_>)> = vec![
        ("All", "an_int32", vec![], Ok(vec![])),
        ("All", "an_int32", number(3, 0), Ok(vec![])),
        ("All", "an_int32", number(3, -5_i64 as u64), Ok(vec!["-5"])),
        ("All", "a_bool", number(13, 1), Ok(vec!["true"])),
        ("All", "opt_bool", number(33, 0), Ok(vec!["false"])),
        (
            "All",
            "a_string",
            [bytes(14, "a"), bytes(14, "b/ c")].concat(),
            Ok(vec!["b/ c"]),
        ),
        (
            "All",
            "some_bytes",
            bytes(15, [0xfb, 0xff]),
            Ok(vec!["-_8"]),
        ),
        (
            "All",
            "int32s",
            [bytes(43, [1, 2]), number(43, 3)].concat(),
            Ok(vec!["1", "2", "3"]),
        ),
        (
            "All",
            "time",
            bytes(101, [number(1, 1), number(2, 500_000_000)].concat()),
            Ok(vec!["1970-01-01T00:00:01.500Z"]),
        ),
        (
            "All",
            "time",
            [bytes(101, number(1, 1)), bytes(101, number(2, 1_000))].concat(),
            Ok(vec!["1970-01-01T00:00:01.000001Z"]),
        ),
        ("All", "duration", bytes(102, number(1, 3)), Ok(vec!["3s"])),
        (
            "All",
            "mask",
            bytes(103, bytes(1, "foo_bar")),
            Ok(vec!["foo_bar"]),
        ),
        ("All", "w_int64", bytes(93, []), Ok(vec!["0"])),
        (
            "All",
            "one_string",
            [bytes(81, "x"), number(82, 1)].concat(),
            Ok(vec![]),
        ),
        (
            "All",
            "one_int32",
            [bytes(81, "x"), number(82, 0)].concat(),
            Ok(vec!["0"]),
        ),
        (
            "All",
            "a_message",
            bytes(17, []),
            Err("a test.All has no text"),
        ),
        (
            "All",
            "string_map",
            vec![],
            Err("a map cannot be a single text"),
        ),
        ("All", "a_string", bytes(14, [0xff]), Err("is not UTF-8")),
        (
            "All",
            "a_string",
            number(14, 1),
            Err("the wire type is not that of the field"),
        ),
        ("All", "a_string", vec![0x08], Err("the message is cut off")),
        ("Ruled", "status", number(1, 1), Ok(vec!["IN_PROGRESS"])),
        ("Ruled", "status", number(1, 7), Ok(vec!["7"])),
        ("Ruled", "status", bytes(2, "odd"), Ok(vec!["odd"])),
        ("Ruled", "state", number(3, 0), Ok(vec!["UNSPECIFIED"])),
        (
            "Ruled",
            "state",
            [number(3, 0), bytes(4, "odd")].concat(),
            Ok(vec!["odd"]),
        ),
        ("Ruled", "millis", bytes(9, number(1, 2)), Ok(vec!["2000"])),
        (
            "Ruled",
            "tags",
            [bytes(14, "a"), bytes(14, "b")].concat(),
            Ok(vec!["a,b"]),
        ),
        (
            "Ruled",
            "tags",
            bytes(14, "a,b"),
            Err("the element `a,b` has a comma"),
        ),
        (
            "Ruled",
            "text",
            bytes(15, bytes(1, "a\"")),
            Ok(vec![r#"{"name":"a\""}"#]),
        ),
    ];
    for (message, field, wire, want) in cases {
        let want = want
            .map(|texts| texts.into_iter().map(str::to_owned).collect::<Vec<_>>())
            .map_err(str::to_owned);
        assert_eq!(
            texts(message, field, &wire),
            want,
            "{message}.{field} {wire:?}"
        );
    }
}

#[test]
fn one_field_can_be_the_body() {
    let schema = &*SCHEMA;
    for (field, text, wire) in [
        (
            "messages",
            r#"[{"a_bool":true},{}]"#,
            [bytes(57, number(13, 1)), bytes(57, [])].concat(),
        ),
        ("a_message", r#"{"a_bool":true}"#, bytes(17, number(13, 1))),
        ("a_message", "{}", bytes(17, [])),
        ("a_string", r#""x""#, bytes(14, "x")),
        (
            "string_map",
            r#"{"k":"v"}"#,
            bytes(61, [bytes(1, "k"), bytes(2, "v")].concat()),
        ),
        ("value", "null", bytes(105, number(1, 0))),
    ] {
        let all = id("All");
        let (index, _) = schema.message(all).field(field).unwrap();
        let mut out = b"before".to_vec();
        // Other fields have no influence.
        let more = [wire, number(3, 5)].concat();
        assert_eq!(
            field_to_json(schema, all, index, &more, "openstack", &mut out),
            Ok(true)
        );
        assert_eq!(String::from_utf8(out).unwrap(), format!("before{text}"));
    }
    let (index, _) = schema.message(id("All")).field("messages").unwrap();
    let mut out = Vec::new();
    assert_eq!(
        field_to_json(schema, id("All"), index, b"", "", &mut out),
        Ok(false)
    );
}

/// Returns the wire bytes of JSON by prost-reflect.
pub(super) fn oracle(message: &str, json: &str) -> Vec<u8> {
    let descriptor = POOL
        .get_message_by_name(&format!("test.{message}"))
        .unwrap();
    let mut text = serde_json::Deserializer::from_str(json);
    DynamicMessage::deserialize(descriptor, &mut text)
        .unwrap()
        .encode_to_vec()
}
