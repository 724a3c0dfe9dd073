//! JSON to messages.

use super::*;

#[test]
fn json_decodes_to_messages() {
    let entry = |key: &str, value: Vec<u8>| [bytes(1, key), value].concat();
    let float = |tag: u8, value: f64| [&[tag][..], &value.to_le_bytes()].concat();
    let cases: Vec<(&str, &str, &str, Vec<u8>)> = vec![
        ("an empty object", "All", "{}", vec![]),
        ("empty text", "All", "", vec![]),
        ("space alone", "All", " \r\n\t", vec![]),
        ("null", "All", " null ", vec![]),
        (
            "a byte order mark",
            "All",
            "\u{feff}{\"a_bool\":true}",
            number(13, 1),
        ),
        ("a byte order mark alone", "All", "\u{feff}", vec![]),
        (
            "unknown members",
            "All",
            r#"{"x":{"y":[1,{"z":"\u0041"}],"w":{},"v":[]},"an_int32":1,"u":null,"t":-1.5e+3}"#,
            number(3, 1),
        ),
        (
            "null is unset",
            "All",
            r#"{"an_int32":null,"a_string":null,"opt_bool":null,"strings":null,"string_map":null,"time":null,"object":null,"w_int64":null,"one_string":null,"a_color":null,"some_bytes":null}"#,
            vec![],
        ),
        (
            "null of a Value",
            "All",
            r#"{"value":null}"#,
            bytes(105, number(1, 0)),
        ),
        (
            "null of a NullValue",
            "All",
            r#"{"one_null":null}"#,
            number(84, 0),
        ),
        (
            "null in lists",
            "All",
            r#"{"int32s":[1,null],"strings":[null,"a"],"messages":[null],"values":[null],"bools":[null]}"#,
            [
                bytes(43, [1, 0]),
                bytes(54, ""),
                bytes(54, "a"),
                bytes(109, number(1, 0)),
                bytes(53, [0]),
            ]
            .concat(),
        ),
        (
            "null in maps",
            "All",
            r#"{"string_map":{"a":null},"int32_map":{"1":null},"value_map":{"a":null}}"#,
            [
                bytes(61, bytes(1, "a")),
                bytes(62, number(1, 1)),
                bytes(73, entry("a", bytes(2, number(1, 0)))),
            ]
            .concat(),
        ),
        (
            "zeros",
            "All",
            r#"{"an_int32":0,"a_string":"","a_bool":false,"a_double":0}"#,
            vec![],
        ),
        (
            "zeros of optional fields",
            "All",
            r#"{"opt_int64":0,"opt_string":"","opt_bool":false,"one_int32":0}"#,
            [number(24, 0), bytes(34, ""), number(33, 0), number(82, 0)].concat(),
        ),
        (
            "integers however written",
            "All",
            r#"{"an_int32":"5","an_int64":5.0,"a_uint32":1e3,"a_uint64":"18446744073709551615","a_sint32":-1,"a_sint64":" 1 "}"#,
            [
                number(3, 5),
                number(4, 5),
                number(5, 1_000),
                number(6, u64::MAX),
                number(7, 1),
                number(8, 2),
            ]
            .concat(),
        ),
        (
            "integers at their limits",
            "All",
            r#"{"an_int32":-2147483648,"an_int64":9223372036854775807,"a_fixed32":4294967295,"a_sfixed64":-9223372036854775808}"#,
            [
                number(3, i64::from(i32::MIN) as u64),
                number(4, i64::MAX as u64),
                vec![0x4d, 255, 255, 255, 255],
                vec![0x61, 0, 0, 0, 0, 0, 0, 0, 0x80],
            ]
            .concat(),
        ),
        (
            "an odd exponent",
            "All",
            r#"{"an_int64":120e-1,"a_uint64":0.0012e4,"an_int32":0e999}"#,
            [number(4, 12), number(6, 12)].concat(),
        ),
        (
            "an empty text for a number",
            "All",
            r#"{"an_int32":"","a_bool":"","opt_double":"","time":"","duration":" ","w_int64":""}"#,
            vec![],
        ),
        (
            "doubles",
            "All",
            r#"{"a_double":"NaN","a_float":"-Infinity","opt_double":"1.5"}"#,
            [
                float(0x09, f64::NAN),
                vec![0x15, 0, 0, 0x80, 0xff],
                float(0xa9, 1.5),
            ]
            .concat(),
        ),
        (
            "bools",
            "All",
            r#"{"a_bool":"True","opt_bool":"false","bools":[true,"TRUE","False"]}"#,
            [number(13, 1), number(33, 0), bytes(53, [1, 1, 0])].concat(),
        ),
        (
            "numbers and bools for strings",
            "All",
            r#"{"a_string":5.50,"opt_string":true,"strings":[1,false]}"#,
            [
                bytes(14, "5.50"),
                bytes(34, "true"),
                bytes(54, "1"),
                bytes(54, "false"),
            ]
            .concat(),
        ),
        (
            "enums",
            "All",
            r#"{"a_color":"RED","opt_color":1,"colors":["GREEN","NEGATIVE","mauve",7,-1,1]}"#,
            [
                number(16, 1),
                bytes(
                    56,
                    [
                        2, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1, 0, 0, 0, 0,
                    ],
                ),
            ]
            .concat(),
        ),
        (
            "bytes",
            "All",
            r#"{"some_bytes":"-_8","byteses":["+/8=",""]}"#,
            [
                bytes(15, [0xfb, 0xff]),
                bytes(55, [0xfb, 0xff]),
                bytes(55, []),
            ]
            .concat(),
        ),
        (
            "a name twice",
            "All",
            r#"{"an_int32":1,"an_int32":2}"#,
            number(3, 2),
        ),
        (
            "a name twice, zero last",
            "All",
            r#"{"an_int32":1,"a_bool":true,"an_int32":0}"#,
            number(13, 1),
        ),
        (
            "a message twice",
            "All",
            r#"{"a_message":{"an_int32":1},"a_bool":true,"a_message":{"a_bool":true}}"#,
            [number(13, 1), bytes(17, number(13, 1))].concat(),
        ),
        (
            "a list twice",
            "All",
            r#"{"strings":["a","b"],"an_int32":1,"strings":["c"]}"#,
            [number(3, 1), bytes(54, "c")].concat(),
        ),
        (
            "a map twice",
            "All",
            r#"{"string_map":{"a":"1","b":"2"},"string_map":{}}"#,
            vec![],
        ),
        (
            "null does not undo",
            "All",
            r#"{"an_int32":1,"an_int32":null}"#,
            number(3, 1),
        ),
        (
            "escapes",
            "All",
            r#"{"a_string":"\"\\\/\b\f\n\r\t\u00e9\ud83e\udd80","a\u005fbool":true}"#,
            [bytes(14, "\"\\/\u{8}\u{c}\n\r\té🦀"), number(13, 1)].concat(),
        ),
        (
            "surrogates alone",
            "All",
            r#"{"strings":["\ud83e","\udd80x","\ud83e\u0041","\ud83e\ud83e\udd80"]}"#,
            [
                bytes(54, "\u{fffd}"),
                bytes(54, "\u{fffd}x"),
                bytes(54, "\u{fffd}A"),
                bytes(54, "\u{fffd}🦀"),
            ]
            .concat(),
        ),
        (
            "times",
            "All",
            r#"{"time":"2015-02-01T00:12:36.5+0900","times":["1970-01-01 00:00:01",null],"duration":"-1.5s"}"#,
            [
                bytes(
                    101,
                    [number(1, 1_422_717_156), number(2, 500_000_000)].concat(),
                ),
                bytes(110, number(1, 1)),
                bytes(110, []),
                bytes(
                    102,
                    [number(1, -1_i64 as u64), number(2, -500_000_000_i64 as u64)].concat(),
                ),
            ]
            .concat(),
        ),
        (
            "1970 is a time",
            "All",
            r#"{"time":"1970-01-01T00:00:00Z"}"#,
            bytes(101, []),
        ),
        (
            "a field mask",
            "All",
            r#"{"mask":"fooBar.baz,c"}"#,
            bytes(103, [bytes(1, "foo_bar.baz"), bytes(1, "c")].concat()),
        ),
        (
            "wrappers",
            "All",
            r#"{"w_int64":0,"w_bool":true,"w_string":"","w_bytes":"AQ==","w_strings":["a",null]}"#,
            [
                bytes(93, []),
                bytes(97, number(1, 1)),
                bytes(98, []),
                bytes(99, bytes(1, [1])),
                bytes(112, bytes(1, "a")),
                bytes(112, []),
            ]
            .concat(),
        ),
        (
            "maps",
            "All",
            r#"{"int32_map":{"-1":5},"bool_map":{"true":"t"},"int64_map":{"1":{}},"fixed32_map":{"7":""}}"#,
            [
                bytes(62, [number(1, -1_i64 as u64), number(2, 5)].concat()),
                bytes(72, [number(1, 1), bytes(2, "t")].concat()),
                bytes(63, [number(1, 1), bytes(2, [])].concat()),
                bytes(68, [0x0d, 7, 0, 0, 0]),
            ]
            .concat(),
        ),
        (
            "arbitrary JSON",
            "All",
            r#"{"object":{"s":"x","n":1.5,"b":false,"z":null,"l":[1,[]],"o":{}}}"#,
            bytes(
                104,
                [
                    bytes(1, entry("s", bytes(2, bytes(3, "x")))),
                    bytes(1, entry("n", bytes(2, float(0x11, 1.5)))),
                    bytes(1, entry("b", bytes(2, number(4, 0)))),
                    bytes(1, entry("z", bytes(2, number(1, 0)))),
                    bytes(
                        1,
                        entry(
                            "l",
                            bytes(
                                2,
                                bytes(
                                    6,
                                    [bytes(1, float(0x11, 1.0)), bytes(1, bytes(6, []))].concat(),
                                ),
                            ),
                        ),
                    ),
                    bytes(1, entry("o", bytes(2, bytes(5, [])))),
                ]
                .concat(),
            ),
        ),
        (
            "a list of arbitrary JSON",
            "All",
            r#"{"list":[-5,"x"]}"#,
            bytes(
                106,
                [bytes(1, float(0x11, -5.0)), bytes(1, bytes(3, "x"))].concat(),
            ),
        ),
        (
            "any",
            "All",
            r#"{"any":{"name":"x","@type":"t/test.Inner"}}"#,
            bytes(
                107,
                [bytes(1, "t/test.Inner"), bytes(2, bytes(1, "x"))].concat(),
            ),
        ),
        (
            "any, special",
            "All",
            r#"{"any":{"value":"1s","@type":"t/google.protobuf.Duration"}}"#,
            bytes(
                107,
                [
                    bytes(1, "t/google.protobuf.Duration"),
                    bytes(2, number(1, 1)),
                ]
                .concat(),
            ),
        ),
        ("any, empty", "All", r#"{"any":{ }}"#, bytes(107, [])),
        (
            "space everywhere",
            "All",
            " { \"strings\" : [ \"a\" , \"b\" ] , \"a_message\" : { } } ",
            [bytes(54, "a"), bytes(54, "b"), bytes(17, [])].concat(),
        ),
        // Annotations.
        (
            "an enum with its raw text",
            "Ruled",
            r#"{"status":"IN_PROGRESS","theState":"finished"}"#,
            [
                number(1, 1),
                bytes(2, "IN_PROGRESS"),
                number(3, 2),
                bytes(4, "finished"),
            ]
            .concat(),
        ),
        (
            "an unknown enum text",
            "Ruled",
            r#"{"status":"ODD","theState":"\u004fDD"}"#,
            [bytes(2, "ODD"), bytes(4, "ODD")].concat(),
        ),
        (
            "an enum as a number",
            "Ruled",
            r#"{"status":2}"#,
            bytes(2, "2"),
        ),
        (
            "an enum as a number that is an alias",
            "Ruled",
            r#"{"status":20}"#,
            [number(1, 2), bytes(2, "20")].concat(),
        ),
        (
            "an enum as a number that no value has",
            "Ruled",
            r#"{"status":-1}"#,
            bytes(2, "-1"),
        ),
        (
            "an enum with its prefix",
            "Ruled",
            r#"{"status":"STATUS_IN_PROGRESS"}"#,
            [number(1, 1), bytes(2, "STATUS_IN_PROGRESS")].concat(),
        ),
        (
            "a raw text has no name of its own",
            "Ruled",
            r#"{"status_raw":"x","state_raw":"x"}"#,
            vec![],
        ),
        (
            "an enum twice",
            "Ruled",
            r#"{"status":"ODD","status":"done"}"#,
            [number(1, 2), bytes(2, "done")].concat(),
        ),
        (
            "enums in a list with commas",
            "Ruled",
            r#"{"kinds":" IN_PROGRESS , odd"}"#,
            [
                number(5, 1),
                number(5, 0),
                bytes(6, "IN_PROGRESS"),
                bytes(6, "odd"),
            ]
            .concat(),
        ),
        (
            "enums in an array",
            "Ruled",
            r#"{"plain_kinds":["DONE","odd",1]}"#,
            [
                bytes(25, [2, 0, 0]),
                bytes(26, "DONE"),
                bytes(26, "odd"),
                bytes(26, "1"),
            ]
            .concat(),
        ),
        (
            "aliases",
            "Ruled",
            r#"{"created_at":"1970-01-01T00:00:01Z"}"#,
            [bytes(7, number(1, 1)), bytes(8, "1970-01-01T00:00:01Z")].concat(),
        ),
        (
            "an alias and the name",
            "Ruled",
            r#"{"creation_time":"1970-01-01","created":"1970-01-01T00:00:01Z"}"#,
            [bytes(7, number(1, 1)), bytes(8, "1970-01-01T00:00:01Z")].concat(),
        ),
        (
            "a time that cannot be read, with a raw text",
            "Ruled",
            r#"{"created":"last week"}"#,
            bytes(8, "last week"),
        ),
        (
            "milliseconds",
            "Ruled",
            r#"{"millis":1999}"#,
            bytes(9, [number(1, 1), number(2, 999_000_000)].concat()),
        ),
        (
            "milliseconds as a string",
            "Ruled",
            r#"{"millis":"-1"}"#,
            bytes(
                9,
                [number(1, -1_i64 as u64), number(2, 999_000_000)].concat(),
            ),
        ),
        (
            "a time in place of milliseconds",
            "Ruled",
            r#"{"millis":"1970-01-01T00:00:01"}"#,
            bytes(9, number(1, 1)),
        ),
        (
            "numbers in strings",
            "Ruled",
            r#"{"number":"5","flag":"true","numbers":["1",2],"wrapped":"7"}"#,
            [
                number(10, 5),
                number(11, 1),
                bytes(12, [1, 2]),
                bytes(13, number(1, 7)),
            ]
            .concat(),
        ),
        (
            "a comma list",
            "Ruled",
            r#"{"tags":" a, b c ,","levels":"1, 2"}"#,
            [
                bytes(14, "a"),
                bytes(14, "b c"),
                bytes(14, ""),
                number(24, 1),
                number(24, 2),
            ]
            .concat(),
        ),
        ("an empty comma list", "Ruled", r#"{"tags":" "}"#, vec![]),
        (
            "a comma list as an array",
            "Ruled",
            r#"{"tags":["a","b"],"levels":[1]}"#,
            [bytes(14, "a"), bytes(14, "b"), bytes(24, [1])].concat(),
        ),
        ("a comma list as null", "Ruled", r#"{"tags":null}"#, vec![]),
        (
            "JSON as text",
            "Ruled",
            r#"{"text":"{\"name\":\"x\"}","text_object":""}"#,
            bytes(15, bytes(1, "x")),
        ),
        (
            "JSON as it is",
            "Ruled",
            r#"{"text":{"name":"x"}}"#,
            bytes(15, bytes(1, "x")),
        ),
        (
            "an explicit json_name",
            "Ruled",
            r#"{"links:self":"x","links_self":"y"}"#,
            bytes(20, "x"),
        ),
        (
            "wrapped",
            "Envelope",
            r#"{"x":1,"addon":{"id":"a"},"id":"b"}"#,
            bytes(1, "a"),
        ),
        (
            "wrapped in an array",
            "Envelope",
            r#"{"addon":[ {"id":"a"},{"id":"b"}]}"#,
            bytes(1, "a"),
        ),
        (
            "not wrapped",
            "Envelope",
            r#"{"id":"b","addon":null}"#,
            bytes(1, "b"),
        ),
        (
            "not wrapped: an array of other things",
            "Envelope",
            r#"{"addon":[],"id":"b"}"#,
            vec![],
        ),
        (
            "a bare array",
            "Envelope",
            r#"[{"name":"a"},{}]"#,
            [bytes(2, bytes(1, "a")), bytes(2, [])].concat(),
        ),
        (
            "a bare array in it",
            "Envelope",
            r#"{"items":[{"name":"a"}]}"#,
            bytes(2, bytes(1, "a")),
        ),
    ];
    for (what, message, text, want) in cases {
        if what == "doubles" {
            // NaN, and a tag of two bytes.
            let read = wire(message, text).unwrap();
            assert_eq!(
                json(message, &read).unwrap(),
                r#"{"a_double":"NaN","a_float":"-Infinity","opt_double":1.5}"#
            );
            continue;
        }
        if what == "not wrapped: an array of other things" {
            assert_eq!(wire(message, text).unwrap_err().path, "addon", "{what}");
            continue;
        }
        let read = wire(message, text).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(read, want, "{what}: {}", json(message, &read).unwrap());
        dynamic(message, &read);
    }
}

#[test]
fn rounded_integers_are_noted() {
    let notes = |text: &str| {
        to_wire(&SCHEMA, id("All"), text.as_bytes(), &mut Vec::new())
            .unwrap()
            .inexact
    };
    for (number, exact) in [
        ("9007199254740992", true),
        ("9007199254740993", false),
        ("-9007199254740993", false),
        ("1152921504606846976", true),
        ("100000000000000000000000", false),
        ("1e23", true),
        ("0.1", true),
    ] {
        let noted = notes(&format!("{{\"object\":{{\"a\":[1,{number}]}}}}"));
        let want: &[&str] = if exact { &[] } else { &["object.a[1]"] };
        assert_eq!(noted, want, "{number}");
    }
    for (text, noted) in [
        (r#"{"a_double":9007199254740993}"#, &["a_double"][..]),
        (r#"{"a_double":"9007199254740993"}"#, &["a_double"]),
        (r#"{"a_double":9007199254740992,"a_float":16777216}"#, &[]),
        (r#"{"a_float":16777217}"#, &["a_float"]),
        (r#"{"a_float":0.1,"a_double":1e23}"#, &[]),
        (r#"{"a_double":"Infinity"}"#, &[]),
    ] {
        assert_eq!(notes(text), noted, "{text}");
    }
    let many = format!("{{\"value\":[{}1]}}", "9007199254740993,".repeat(20));
    assert_eq!(notes(&many).len(), 16);
    assert_eq!(notes(&many)[15], "value[15]");
    let text = r#"{"text_object":"{\"a\":9007199254740993}"}"#;
    let noted = to_wire(&SCHEMA, id("Ruled"), text.as_bytes(), &mut Vec::new()).unwrap();
    assert_eq!(noted.inexact, ["text_object.a"]);
}

#[test]
fn numbers_that_are_not_json_are_read_and_noted() {
    let long = "9".repeat(400);
    for (text, want, noted) in [
        // In arbitrary JSON: their texts.
        (
            r#"{"object":{"a":[NaN,-Infinity,{"b":Infinity}],"c":1}}"#,
            r#"{"object":{"a":["NaN","-Infinity",{"b":"Infinity"}],"c":1}}"#,
            &["object.a[0]", "object.a[1]", "object.a[2].b"][..],
        ),
        (
            r#"{"object":{"a":1e400,"b":-1e400,"c":1e-400}}"#,
            r#"{"object":{"a":"1e400","b":"-1e400","c":0}}"#,
            &["object.a", "object.b"],
        ),
        (
            &format!(r#"{{"value":{long}}}"#),
            &format!(r#"{{"value":"{long}"}}"#),
            &["value"],
        ),
        (r#"{"value":NaN}"#, r#"{"value":"NaN"}"#, &["value"]),
        // In a double or a float: the value, and none for one that is too large.
        (
            r#"{"a_double":NaN,"a_float":-Infinity,"opt_double":Infinity}"#,
            r#"{"a_double":"NaN","a_float":"-Infinity","opt_double":"Infinity"}"#,
            &["a_double", "a_float", "opt_double"],
        ),
        (
            r#"{"a_double":1e400,"a_float":1e40,"opt_double":-1e400,"a_bool":true}"#,
            r#"{"a_bool":true}"#,
            &["a_double", "a_float", "opt_double"],
        ),
        (r#"{"a_double":"1e400"}"#, "{}", &["a_double"]),
        (
            r#"{"w_double":1e400,"doubles":[1,NaN,1e400,"-1e400",""]}"#,
            r#"{"doubles":[1,"NaN","Infinity","-Infinity",0]}"#,
            &["w_double", "doubles[1]", "doubles[2]", "doubles[3]"],
        ),
        (
            r#"{"uint64_map":{"1":1e400,"2":0,"3":"","4":-1e400}}"#,
            r#"{"uint64_map":{"2":0,"3":0}}"#,
            &["uint64_map.1", "uint64_map.4"],
        ),
        (
            r#"{"w_double":NaN}"#,
            r#"{"w_double":"NaN"}"#,
            &["w_double"],
        ),
        // In a string: the text, as of other numbers. In an unknown member: skipped.
        (r#"{"a_string":NaN}"#, r#"{"a_string":"NaN"}"#, &[]),
        (
            r#"{"unknown":[NaN,{"a":-Infinity},1e400],"a_bool":true}"#,
            r#"{"a_bool":true}"#,
            &[],
        ),
    ] {
        let mut out = Vec::new();
        let notes = to_wire(&SCHEMA, id("All"), text.as_bytes(), &mut out).unwrap();
        assert_eq!(json("All", &out).unwrap(), want, "{text}");
        assert_eq!(notes.inexact, noted, "{text}");
    }
    let text = r#"{"text_object":"{\"a\":NaN}"}"#;
    let notes = to_wire(&SCHEMA, id("Ruled"), text.as_bytes(), &mut Vec::new()).unwrap();
    assert_eq!(notes.inexact, ["text_object.a"]);
    let value = SCHEMA.message_id("google.protobuf.Value").unwrap();
    for (text, noted) in [("NaN", &["."][..]), ("-Infinity", &["."]), ("1", &[])] {
        let notes = to_wire(&SCHEMA, value, text.as_bytes(), &mut Vec::new()).unwrap();
        assert_eq!(notes.inexact, noted, "{text}");
    }
}

#[test]
fn plain_json_decodes_as_in_prost_reflect() {
    for text in [
        r#"{"a_double":1.5,"a_float":0.1,"an_int32":-1,"a_string":"é\n","colors":["RED"],"some_bytes":"AQI="}"#,
        r#"{"object":{"a":[1,2.5,null,true,"x",{"b":{}}]},"time":"2015-01-31T15:12:36.5Z","duration":"1.5s","mask":"a.b,cD"}"#,
        r#"{"int64_map":{"5":{"a_bool":true}},"any":{"@type":"t/test.Inner","name":"x"},"w_uint64":"7","empty":{}}"#,
    ] {
        assert_eq!(
            dynamic("All", &wire("All", text).unwrap()),
            dynamic("All", &oracle("All", text)),
            "{text}"
        );
    }
}
