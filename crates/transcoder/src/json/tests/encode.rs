//! Messages to JSON.

use super::*;

#[test]
fn messages_encode_to_json() {
    let inner = |name: &str| bytes(1, name);
    let cases: Vec<(&str, &str, Vec<u8>, &str)> = vec![
        ("nothing", "All", vec![], "{}"),
        (
            "zeros without presence",
            "All",
            [number(3, 0), bytes(14, ""), number(13, 0)].concat(),
            "{}",
        ),
        (
            "zeros of optional fields",
            "All",
            [
                number(24, 0),
                number(33, 0),
                bytes(34, ""),
                bytes(35, ""),
                number(36, 0),
            ]
            .concat(),
            r#"{"opt_int64":0,"opt_bool":false,"opt_string":"","opt_bytes":"","opt_color":"UNKNOWN"}"#,
        ),
        (
            "zero of a oneof",
            "All",
            number(82, 0),
            r#"{"one_int32":0}"#,
        ),
        (
            "integers",
            "All",
            [
                number(3, -1_i64 as u64),
                number(4, i64::MIN as u64),
                number(6, u64::MAX),
                number(7, 1),
                number(8, u64::MAX),
            ]
            .concat(),
            r#"{"an_int32":-1,"an_int64":-9223372036854775808,"a_uint64":18446744073709551615,"a_sint32":-1,"a_sint64":-9223372036854775808}"#,
        ),
        (
            "doubles",
            "All",
            [
                &[0x09][..],
                &1.5_f64.to_le_bytes(),
                &[0x15],
                &0.1_f32.to_le_bytes(),
            ]
            .concat(),
            r#"{"a_double":1.5,"a_float":0.1}"#,
        ),
        (
            "no numbers",
            "All",
            [
                &[0x09][..],
                &f64::NAN.to_le_bytes(),
                &[0x15],
                &f32::NEG_INFINITY.to_le_bytes(),
            ]
            .concat(),
            r#"{"a_double":"NaN","a_float":"-Infinity"}"#,
        ),
        (
            "bytes",
            "All",
            bytes(15, [0xfb, 0xff]),
            r#"{"some_bytes":"+/8="}"#,
        ),
        (
            "enums",
            "All",
            [number(16, 1), number(56, -1_i64 as u64), number(56, 9)].concat(),
            r#"{"a_color":"RED","colors":["NEGATIVE",9]}"#,
        ),
        (
            "the last value wins",
            "All",
            [number(3, 1), bytes(14, "x"), number(3, 2)].concat(),
            r#"{"an_int32":2,"a_string":"x"}"#,
        ),
        (
            "a zero as the last value",
            "All",
            [number(3, 1), number(3, 0)].concat(),
            "{}",
        ),
        (
            "parts of a message merge",
            "All",
            [
                bytes(17, number(3, 1)),
                number(13, 1),
                bytes(17, number(4, 2)),
            ]
            .concat(),
            r#"{"a_bool":true,"a_message":{"an_int32":1,"an_int64":2}}"#,
        ),
        (
            "the last of a oneof wins",
            "All",
            [bytes(81, "x"), number(82, 5)].concat(),
            r#"{"one_int32":5}"#,
        ),
        (
            "a oneof merges after the other member only",
            "All",
            [
                bytes(83, number(3, 1)),
                number(82, 5),
                bytes(83, number(4, 2)),
                bytes(83, number(13, 1)),
            ]
            .concat(),
            r#"{"one_message":{"an_int64":2,"a_bool":true}}"#,
        ),
        (
            "packed and not packed",
            "All",
            [bytes(43, [1, 2]), number(43, 3), bytes(43, [4])].concat(),
            r#"{"int32s":[1,2,3,4]}"#,
        ),
        ("an empty packed list", "All", bytes(43, []), "{}"),
        (
            "interleaved lists",
            "All",
            [bytes(54, "a"), number(53, 1), bytes(54, "b"), number(53, 0)].concat(),
            r#"{"bools":[true,false],"strings":["a","b"]}"#,
        ),
        (
            "maps",
            "All",
            [
                bytes(61, [bytes(1, "k\""), bytes(2, "v")].concat()),
                bytes(62, [number(1, -1_i64 as u64), number(2, 5)].concat()),
                bytes(72, [number(1, 1), bytes(2, "t")].concat()),
                bytes(67, [number(1, 1), number(2, 1)].concat()),
            ]
            .concat(),
            r#"{"string_map":{"k\"":"v"},"int32_map":{"-1":5},"bool_map":{"true":"t"},"sint64_map":{"-1":true}}"#,
        ),
        (
            "map entries without key or value",
            "All",
            [
                bytes(61, []),
                bytes(63, number(1, 1)),
                bytes(72, bytes(2, "f")),
            ]
            .concat(),
            r#"{"string_map":{"":""},"int64_map":{"1":{}},"bool_map":{"false":"f"}}"#,
        ),
        (
            "the last of a key wins",
            "All",
            [
                bytes(61, [bytes(1, "a"), bytes(2, "1")].concat()),
                bytes(61, [bytes(1, "b"), bytes(2, "2")].concat()),
                bytes(61, [bytes(1, "a"), bytes(2, "3")].concat()),
            ]
            .concat(),
            r#"{"string_map":{"b":"2","a":"3"}}"#,
        ),
        (
            "a map value in parts merges",
            "All",
            bytes(
                63,
                [number(1, 1), bytes(2, number(3, 1)), bytes(2, number(4, 2))].concat(),
            ),
            r#"{"int64_map":{"1":{"an_int32":1,"an_int64":2}}}"#,
        ),
        (
            "interleaved maps",
            "All",
            [
                bytes(61, bytes(1, "a")),
                number(3, 1),
                bytes(61, bytes(1, "b")),
            ]
            .concat(),
            r#"{"an_int32":1,"string_map":{"a":"","b":""}}"#,
        ),
        (
            "unknown fields",
            "All",
            [number(999, 1), bytes(998, "x"), number(3, 1)].concat(),
            r#"{"an_int32":1}"#,
        ),
        (
            "a field number far out",
            "All",
            bytes(536_870_911, "x"),
            r#"{"far":"x"}"#,
        ),
        (
            "wrappers",
            "All",
            [
                bytes(93, []),
                bytes(97, number(1, 1)),
                bytes(98, bytes(1, "x")),
                bytes(112, []),
            ]
            .concat(),
            r#"{"w_int64":0,"w_bool":true,"w_string":"x","w_strings":[""]}"#,
        ),
        (
            "times",
            "All",
            [
                bytes(101, number(1, 1_422_717_156)),
                bytes(102, [number(1, 1), number(2, 1_000)].concat()),
                bytes(103, [bytes(1, "a_b.c"), bytes(1, "d")].concat()),
            ]
            .concat(),
            r#"{"time":"2015-01-31T15:12:36Z","duration":"1.000001s","mask":"a_b.c,d"}"#,
        ),
        (
            "empty messages",
            "All",
            [
                bytes(104, []),
                bytes(105, []),
                bytes(106, []),
                bytes(107, []),
                bytes(108, []),
            ]
            .concat(),
            r#"{"object":{},"value":null,"list":[],"any":{},"empty":{}}"#,
        ),
        (
            "a Value in parts",
            "All",
            bytes(
                105,
                [
                    bytes(
                        5,
                        bytes(1, [bytes(1, "a"), bytes(2, number(4, 1))].concat()),
                    ),
                    bytes(
                        5,
                        bytes(1, [bytes(1, "b"), bytes(2, number(1, 0))].concat()),
                    ),
                ]
                .concat(),
            ),
            r#"{"value":{"a":true,"b":null}}"#,
        ),
        (
            "the last kind of a Value",
            "All",
            bytes(105, [bytes(3, "x"), number(4, 1)].concat()),
            r#"{"value":true}"#,
        ),
        (
            "an integral number in a Value",
            "All",
            bytes(105, [&[0x11][..], &5.0_f64.to_le_bytes()].concat()),
            r#"{"value":5}"#,
        ),
        (
            "a key twice in a Struct",
            "All",
            bytes(
                104,
                [
                    bytes(1, [bytes(1, "a"), bytes(2, number(4, 1))].concat()),
                    bytes(1, [bytes(1, "a"), bytes(2, number(4, 0))].concat()),
                ]
                .concat(),
            ),
            r#"{"object":{"a":false}}"#,
        ),
        (
            "any",
            "All",
            bytes(
                107,
                [
                    bytes(1, "type.googleapis.com/test.Inner"),
                    bytes(2, inner("x")),
                ]
                .concat(),
            ),
            r#"{"any":{"@type":"type.googleapis.com/test.Inner","name":"x"}}"#,
        ),
        (
            "any, empty",
            "All",
            bytes(107, bytes(1, "t/test.Inner")),
            r#"{"any":{"@type":"t/test.Inner"}}"#,
        ),
        (
            "any, special",
            "All",
            bytes(
                107,
                [
                    bytes(1, "t/google.protobuf.Duration"),
                    bytes(2, number(1, 1)),
                ]
                .concat(),
            ),
            r#"{"any":{"@type":"t/google.protobuf.Duration","value":"1s"}}"#,
        ),
        (
            "null of an enum",
            "All",
            number(84, 0),
            r#"{"one_null":null}"#,
        ),
        // Annotations.
        (
            "enum texts",
            "Ruled",
            [number(1, 1), number(3, 2)].concat(),
            r#"{"status":"IN_PROGRESS","theState":"done","tags":"","items":[],"labels":{}}"#,
        ),
        (
            "the raw text where the enum is unset",
            "Ruled",
            bytes(2, "ODD"),
            r#"{"tags":"","items":[],"labels":{},"status":"ODD"}"#,
        ),
        (
            "the raw text where the enum is zero",
            "Ruled",
            [number(3, 0), bytes(4, "ODD")].concat(),
            r#"{"tags":"","items":[],"labels":{},"theState":"ODD"}"#,
        ),
        (
            "a zero without raw text",
            "Ruled",
            [number(3, 0), bytes(4, "")].concat(),
            r#"{"tags":"","items":[],"labels":{},"theState":"UNSPECIFIED"}"#,
        ),
        (
            "the enum where both are set",
            "Ruled",
            [bytes(2, "done"), number(1, 2)].concat(),
            r#"{"status":"done","tags":"","items":[],"labels":{}}"#,
        ),
        (
            "raw texts of lists",
            "Ruled",
            [bytes(6, "x"), bytes(6, "y"), bytes(26, "z")].concat(),
            r#"{"tags":"","items":[],"labels":{},"kinds":"x,y","plain_kinds":["z"]}"#,
        ),
        (
            "a list of enums with commas",
            "Ruled",
            bytes(5, [1, 2]),
            r#"{"kinds":"IN_PROGRESS,done","tags":"","items":[],"labels":{}}"#,
        ),
        (
            "the raw text of a time",
            "Ruled",
            bytes(8, "last week"),
            r#"{"tags":"","items":[],"labels":{},"created":"last week"}"#,
        ),
        (
            "milliseconds",
            "Ruled",
            bytes(9, [number(1, 1), number(2, 999_999_999)].concat()),
            r#"{"millis":1999,"tags":"","items":[],"labels":{}}"#,
        ),
        (
            "numbers as strings",
            "Ruled",
            [
                number(10, 5),
                number(11, 1),
                bytes(12, [1, 2]),
                bytes(13, []),
            ]
            .concat(),
            r#"{"number":"5","flag":"true","numbers":["1","2"],"wrapped":"0","tags":"","items":[],"labels":{}}"#,
        ),
        (
            "map values as strings",
            "Ruled",
            bytes(28, [bytes(1, "a"), number(2, 7)].concat()),
            r#"{"counts":{"a":"7"},"tags":"","items":[],"labels":{}}"#,
        ),
        (
            "comma lists",
            "Ruled",
            [bytes(14, "a"), bytes(14, "b\""), bytes(24, [1, 2])].concat(),
            r#"{"tags":"a,b\"","levels":"1,2","items":[],"labels":{}}"#,
        ),
        (
            "JSON as text",
            "Ruled",
            [bytes(15, inner("x")), bytes(16, [])].concat(),
            r#"{"text":"{\"name\":\"x\"}","text_object":"{}","tags":"","items":[],"labels":{}}"#,
        ),
        (
            "local fields",
            "Ruled",
            bytes(17, "x"),
            r#"{"tags":"","items":[],"labels":{}}"#,
        ),
        (
            "an explicit json_name",
            "Ruled",
            bytes(20, "x"),
            r#"{"links:self":"x","tags":"","items":[],"labels":{}}"#,
        ),
    ];
    for (what, message, wire, want) in cases {
        assert_eq!(json(message, &wire).as_deref(), Ok(want), "{what}");
    }
}

#[test]
fn encode_errors_name_the_path() {
    let deep = |levels: usize| (0..levels).fold(Vec::new(), |inner, _| bytes(17, inner));
    assert!(json("All", &deep(100)).is_ok());
    let cases: Vec<(&str, Vec<u8>, &str, &str)> = vec![
        ("All", vec![0x08], "", "the message is cut off"),
        (
            "All",
            bytes(57, bytes(14, [0xff])),
            "messages[0].a_string",
            "the string is not UTF-8",
        ),
        (
            "All",
            [bytes(57, []), bytes(57, [0x0b])].concat(),
            "messages[1]",
            "wire type 3 is not supported",
        ),
        (
            "All",
            number(14, 1),
            "a_string",
            "the wire type is not that of the field",
        ),
        (
            "All",
            bytes(13, "xy"),
            "a_bool",
            "the wire type is not that of the field",
        ),
        (
            "All",
            bytes(3, []),
            "an_int32",
            "the wire type is not that of the field",
        ),
        (
            "All",
            bytes(49, [1, 2]),
            "fixed32s[0]",
            "the message is cut off",
        ),
        (
            "All",
            bytes(61, bytes(1, [0xff])),
            "string_map",
            "the string is not UTF-8",
        ),
        (
            "All",
            bytes(61, [bytes(1, "k"), number(2, 1)].concat()),
            "string_map",
            "the wire type is not that of the field",
        ),
        (
            "All",
            bytes(63, [number(1, 7), bytes(2, number(14, 1))].concat()),
            "int64_map.7.a_string",
            "the wire type is not that of the field",
        ),
        (
            "All",
            bytes(
                104,
                bytes(
                    1,
                    [
                        bytes(1, "k"),
                        bytes(2, [&[0x11][..], &f64::NAN.to_le_bytes()].concat()),
                    ]
                    .concat(),
                ),
            ),
            "object.k",
            "NaN and infinities are not JSON numbers",
        ),
        (
            "All",
            bytes(101, number(2, 1_000_000_000)),
            "time",
            "the time is out of range: years 1 to 9999 are possible",
        ),
        (
            "All",
            bytes(102, number(1, u64::MAX >> 1)),
            "duration",
            "the duration is out of range",
        ),
        (
            "All",
            bytes(103, bytes(1, "foo,bar")),
            "mask",
            "the path `foo,bar` must not contain a comma",
        ),
        (
            "All",
            bytes(107, bytes(1, "t/x.Y")),
            "any",
            "the type `t/x.Y` is not known",
        ),
        (
            "All",
            bytes(107, bytes(2, "x")),
            "any",
            "an Any with a value has no type_url",
        ),
        (
            "Ruled",
            [bytes(14, "a"), bytes(14, "b,c")].concat(),
            "tags[1]",
            "`b,c` has a comma",
        ),
        (
            "Ruled",
            bytes(2, [0xff]),
            "status_raw",
            "the string is not UTF-8",
        ),
    ];
    for (message, wire, path, problem) in cases {
        let want = Problem {
            path: path.into(),
            problem: problem.into(),
        };
        assert_eq!(json(message, &wire), Err(want), "{message} {wire:?}");
    }
    let problem = json("All", &deep(101)).unwrap_err();
    assert_eq!(problem.problem, "nested deeper than 100 messages");
}

#[test]
fn depth_limit_counts_all_messages() {
    // Each level is a Value, a list and a Value.
    let lists =
        |levels: usize| (0..levels).fold(number(4, 1), |value, _| bytes(6, bytes(1, value)));
    assert!(json("All", &bytes(105, lists(49))).is_ok());
    assert!(json("All", &bytes(105, lists(50))).is_err());
}

/// Each level has its fields out of order. If a level were written before that is
/// noticed, and then again, the innermost one would be written more than 2^30 times,
/// and the test would not end.
#[test]
fn duplicate_fields_are_written_once() {
    let entry = |key: &str, value: &[u8]| bytes(1, [bytes(1, key), bytes(2, value)].concat());
    let structs = (0..30).fold(number(4, 1), |value, _| {
        bytes(
            5,
            [entry("a", &value), entry("b", &[]), entry("b", &[])].concat(),
        )
    });
    let maps = (0..40).fold(Vec::new(), |all, _| {
        let entry = |key: u64, all: &[u8]| bytes(63, [number(1, key), bytes(2, all)].concat());
        [entry(1, &all), entry(2, &[]), entry(2, &[])].concat()
    });
    let messages = (0..90).fold(Vec::new(), |all, _| {
        [bytes(17, all), number(3, 1), number(3, 2)].concat()
    });
    for (wire, end) in [
        (
            bytes(105, structs),
            r#"{"a":true,"b":null},"b":null},"b":null"#,
        ),
        (maps, r#"{"1":{},"2":{}}},"2":{}}},"2":{}"#),
        (
            messages,
            r#"{"an_int32":2,"a_message":{"an_int32":2,"a_message":{}}}"#,
        ),
    ] {
        let text = json("All", &wire).unwrap();
        assert!(text.contains(end), "{text}");
    }
}

#[test]
fn skipped_fields_are_not_written() {
    let wire = [
        bytes(21, "x"),
        bytes(22, [bytes(1, "n"), bytes(3, "y")].concat()),
        bytes(2, "raw"),
        bytes(23, [bytes(1, "k"), bytes(2, bytes(3, "z"))].concat()),
    ]
    .concat();
    let ruled = SCHEMA.message(id("Ruled"));
    let (status, _) = ruled.field("status").unwrap();
    let always = [
        ruled.field("tags").unwrap().0,
        ruled.field("items").unwrap().0,
        ruled.field("labels").unwrap().0,
    ];
    let skip = |index| always.contains(&index) || index == status;
    for (dialect, want) in [
        ("rackspace", r#"{"inner":{"name":"n"},"inners":{"k":{}}}"#),
        (
            "openstack",
            r#"{"not_rackspace":"x","inner":{"name":"n","not_rackspace":"y"},"inners":{"k":{"not_rackspace":"z"}}}"#,
        ),
    ] {
        let mut out = Vec::new();
        to_json_in(&SCHEMA, id("Ruled"), &wire, dialect, &skip, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }
}

#[test]
fn large_maps_keep_the_last_value_per_key() {
    let entry = |i: usize| bytes(61, [bytes(1, i.to_string()), bytes(2, "v")].concat());
    let wire: Vec<u8> = (0..100).chain([50]).flat_map(entry).collect();
    let text = json("All", &wire).unwrap();
    assert_eq!(text.matches("\"50\":").count(), 1);
    assert_eq!(text.matches(":\"v\"").count(), 100);
}

#[test]
fn messages_with_many_fields_encode() {
    let fields: String = (1..=300).map(|i| format!("int32 f{i} = {i};")).collect();
    let pool = compile(&format!(
        "syntax = \"proto3\"; package many; message Many {{ {fields} }}"
    ))
    .unwrap();
    let schema = Schema::build(&pool).unwrap();
    let many = schema.message_id("many.Many").unwrap();
    let wire: Vec<u8> = (1..=300)
        .chain([1, 300])
        .flat_map(|i| number(i, i.into()))
        .collect();
    let mut text = Vec::new();
    to_json(&schema, many, &wire, &|_| false, &mut text).unwrap();
    let want: Vec<String> = (1..=300).map(|i| format!("\"f{i}\":{i}")).collect();
    assert_eq!(
        String::from_utf8(text.clone()).unwrap(),
        format!("{{{}}}", want.join(","))
    );
    let mut back = Vec::new();
    // A duplicate name, above and below the first 256 fields.
    let text = String::from_utf8(text)
        .unwrap()
        .replacen('{', "{\"f1\":7,\"f300\":9,", 1);
    to_wire(&schema, many, text.as_bytes(), &mut back).unwrap();
    let want: Vec<u8> = (1..=300).flat_map(|i| number(i, i.into())).collect();
    assert_eq!(back, want);
}
