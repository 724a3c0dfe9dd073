//! JSON that cannot be decoded: errors name the path and the kind of the value found.

use super::*;

#[test]
fn decode_errors_name_path_and_kind() {
    for (message, text, path, problem) in [
        (
            "All",
            "<html><body>Bad gateway</body></html>",
            "",
            "expected an object, found invalid JSON",
        ),
        ("All", "[]", "", "expected an object, found a JSON array"),
        (
            "All",
            "\"x\"",
            "",
            "expected an object, found a JSON string",
        ),
        (
            "All",
            "nul",
            "",
            "expected a JSON value, found invalid JSON",
        ),
        (
            "All",
            "{",
            "",
            "expected a string, found the end of the text",
        ),
        ("All", "{} {}", "", "unexpected data after the JSON value"),
        (
            "All",
            "null null",
            "",
            "unexpected data after the JSON value",
        ),
        (
            "All",
            "{\"a_string\":\"x",
            "a_string",
            "the string is not terminated",
        ),
        (
            "All",
            "{\"a_string\":",
            "a_string",
            "expected a string, found the end of the text",
        ),
        (
            "All",
            "{\"a_string\"",
            "a_string",
            "expected `:`, found the end of the text",
        ),
        (
            "All",
            "{\"a_string\":\"x\"",
            "a_string",
            "expected `,` or `}`, found the end of the text",
        ),
        (
            "All",
            "{\"a_string\":\"x\",}",
            "",
            "expected a string, found `}`",
        ),
        (
            "All",
            "{\"strings\":[\"x\",]}",
            "strings[1]",
            "expected a string, found `]`",
        ),
        ("All", "{\"x\":[1,]}", "x[1]", "not a JSON value"),
        ("All", "{\"x\":{\"y\":tru}}", "x.y", "not a JSON value"),
        ("All", "{\"x\":[}", "x[0]", "not a JSON value"),
        (
            "All",
            "{\"a_message\":{\"messages\":[{},{\"an_int32\":2147483648}]}}",
            "a_message.messages[1].an_int32",
            "out of range",
        ),
        (
            "All",
            "{\"an_int32\":-2147483649}",
            "an_int32",
            "out of range",
        ),
        ("All", "{\"a_uint32\":-1}", "a_uint32", "out of range"),
        (
            "All",
            "{\"an_int64\":9223372036854775808}",
            "an_int64",
            "out of range",
        ),
        ("All", "{\"an_int64\":1e40}", "an_int64", "out of range"),
        (
            "All",
            "{\"an_int64\":1e99999999999999999999}",
            "an_int64",
            "out of range",
        ),
        (
            "All",
            "{\"an_int64\":1.5}",
            "an_int64",
            "expected an integer, found a JSON number",
        ),
        (
            "All",
            "{\"an_int64\":\"x\"}",
            "an_int64",
            "expected an integer, found a JSON string",
        ),
        (
            "All",
            "{\"an_int64\":true}",
            "an_int64",
            "expected an integer, found true",
        ),
        ("All", "{\"an_int64\":01}", "an_int64", "not a number"),
        ("All", "{\"an_int64\":-}", "an_int64", "not a number"),
        (
            "All",
            "{\"a_bool\":1}",
            "a_bool",
            "expected true or false, found a JSON number",
        ),
        (
            "All",
            "{\"a_bool\":\"yes\"}",
            "a_bool",
            "expected true or false, found a JSON string",
        ),
        (
            "All",
            "{\"an_int32\":NaN}",
            "an_int32",
            "expected an integer, found invalid JSON",
        ),
        (
            "All",
            "{\"an_int64\":-Infinity}",
            "an_int64",
            "not a number",
        ),
        ("All", "{\"an_int32\":1e400}", "an_int32", "out of range"),
        (
            "All",
            "{\"a_bool\":NaN}",
            "a_bool",
            "expected true or false, found invalid JSON",
        ),
        ("All", "{\"value\":Nan}", "value", "not a number"),
        ("All", "{\"value\":-Inf}", "value", "not a number"),
        (
            "All",
            "{\"a_double\":\"inf\"}",
            "a_double",
            "expected a number, found a JSON string",
        ),
        (
            "All",
            "{\"a_string\":{}}",
            "a_string",
            "expected a string, found a JSON object",
        ),
        (
            "All",
            "{\"strings\":\"x\"}",
            "strings",
            "expected an array, found a JSON string",
        ),
        (
            "All",
            "{\"strings\":{}}",
            "strings",
            "expected an array, found a JSON object",
        ),
        (
            "All",
            "{\"a_message\":[]}",
            "a_message",
            "expected an object, found a JSON array",
        ),
        (
            "All",
            "{\"string_map\":[]}",
            "string_map",
            "expected an object, found a JSON array",
        ),
        (
            "All",
            "{\"int32_map\":{\"x\":1}}",
            "int32_map",
            "expected an integer as a name, found a JSON string",
        ),
        (
            "All",
            "{\"some_bytes\":\"?\"}",
            "some_bytes",
            "expected base64, found a JSON string",
        ),
        (
            "All",
            "{\"time\":\"soon\"}",
            "time",
            "expected a time such as `2015-01-31T15:12:36Z`, found a JSON string",
        ),
        (
            "All",
            "{\"time\":5}",
            "time",
            "expected a time such as `2015-01-31T15:12:36Z`, found a JSON number",
        ),
        (
            "All",
            "{\"duration\":\"1h\"}",
            "duration",
            "expected a duration such as `3.5s`, found a JSON string",
        ),
        (
            "All",
            "{\"a_string\":\"a\nb\"}",
            "a_string",
            "a control character in a string",
        ),
        (
            "All",
            "{\"a_string\":\"\\x\"}",
            "a_string",
            "not a JSON escape sequence",
        ),
        (
            "All",
            "{\"a_string\":\"\\u12g4\"}",
            "a_string",
            "not four hexadecimal digits",
        ),
        (
            "All",
            "{\"a_string\":\"\\u12",
            "a_string",
            "the string is not terminated",
        ),
        (
            "All",
            "{\"any\":{\"name\":\"x\"}}",
            "any",
            "expected an object with `@type`, found a JSON object",
        ),
        (
            "All",
            "{\"any\":{\"@type\":\"x.Y\"}}",
            "any.@type",
            "expected a known type, found a JSON string",
        ),
        (
            "Ruled",
            "{\"text\":\"{\\\"inner\\\":{\\\"size\\\":[]}}\"}",
            "text.inner.size",
            "expected an integer, found a JSON array",
        ),
        (
            "Ruled",
            "{\"created\": ",
            "created",
            "expected a time such as `2015-01-31T15:12:36Z`, found the end of the text",
        ),
        (
            "Ruled",
            "{\"levels\":\"1,x\"}",
            "levels",
            "an element of the comma list cannot be read",
        ),
        (
            "Ruled",
            "{\"millis\":99999999999999999}",
            "millis",
            "expected a time such as `2015-01-31T15:12:36Z`, found a JSON number",
        ),
        (
            "Envelope",
            "{\"addon\":{\"id\":[]}}",
            "addon.id",
            "expected a string, found a JSON array",
        ),
    ] {
        let want = Problem {
            path: path.into(),
            problem: problem.into(),
        };
        assert_eq!(wire(message, text), Err(want), "{text}");
    }
}

#[test]
fn invalid_utf8_is_rejected() {
    let problem = wire("All", b"{\"strings\":[\"a\",\"\xff\"]}").unwrap_err();
    assert_eq!(problem.path, "strings[1]");
    assert_eq!(problem.problem, "the text is not UTF-8");
}

#[test]
fn errors_contain_member_names_but_no_values() {
    for member in [
        "\"a_bool\":\"SECRET\"",
        "\"a_string\":{\"SECRET\":1}",
        "\"time\":\"SECRET\"",
        "\"some_bytes\":\"SECRET?\"",
        "\"any\":{\"@type\":\"SECRET\"}",
        "\"int32_map\":{\"x\":\"SECRET\"}",
        "\"a_string\":SECRET",
        "\"an_int64\":1.5} SECRET",
    ] {
        let problem = wire("All", format!("{{{member}}}")).unwrap_err();
        assert!(!problem.to_string().contains("SECRET"), "{problem}");
    }
}

#[test]
fn nesting_depth_is_limited() {
    let nested = |open: &str, close: &str, levels: usize| {
        open.repeat(levels) + close.repeat(levels).as_str()
    };
    for (text, deepest) in [
        (
            &(|n| format!("{}{{}}{}", "{\"a_message\":".repeat(n), "}".repeat(n)))
                as &dyn Fn(usize) -> String,
            100,
        ),
        (&|n| format!("{{\"value\":{}}}", nested("[", "]", n)), 50),
        (&|n| format!("{{\"x\":{}}}", nested("[", "]", n)), 100),
        (
            &|n| format!("{{\"x\":{}1{}}}", "{\"a\":".repeat(n), "}".repeat(n)),
            100,
        ),
    ] {
        let read = wire("All", text(deepest)).unwrap();
        dynamic("All", &read);
        json("All", &read).unwrap();
        let problem = wire("All", text(deepest + 1)).unwrap_err();
        assert!(problem.problem.starts_with("nested"), "{problem}");
        assert!(wire("All", text(100_000)).is_err());
    }
}

/// A recursive part of a message: its JSON and its bytes, around the same part.
type Level = (&'static str, &'static str, fn(Vec<u8>) -> Vec<u8>);

/// A stack smaller than that of any worker thread holds the deepest messages, and deeper ones are
/// an error.
#[test]
fn nesting_limit_holds_for_each_recursive_type() {
    let any = |inner: Vec<u8>| {
        let all = bytes(107, inner);
        [bytes(1, "x/test.All"), bytes(2, all)].concat()
    };
    let levels: [Level; 4] = [
        ("{\"a_message\":", "}", |inner| bytes(17, inner)),
        ("{\"messages\":[", "]}", |inner| bytes(57, inner)),
        ("{\"int64_map\":{\"1\":", "}}", |inner| {
            bytes(63, [number(1, 1), bytes(2, inner)].concat())
        }),
        ("{\"one_message\":", "}", |inner| bytes(83, inner)),
    ];
    let check = move || {
        for (open, close, level) in &levels {
            let text = |n: usize| format!("{}{{}}{}", open.repeat(n), close.repeat(n));
            let message = |n: usize| (0..n).fold(Vec::new(), |inner, _| level(inner));
            // A level of a map is two messages: the entry is one.
            let is_map = open.contains("_map");
            let deepest = if is_map { 50 } else { 100 };
            let wire_text = wire("All", text(deepest)).unwrap();
            assert!(json("All", &wire_text).is_ok(), "{open}");
            assert_eq!(wire_text, message(deepest), "{open}");
            for deep in [deepest + 1, 3_000] {
                assert!(wire("All", text(deep)).is_err(), "{open} {deep}");
                assert!(json("All", &message(deep)).is_err(), "{open} {deep}");
            }
        }
        for (open, close) in [
            ("{\"a\":", "}"),
            ("[", "]"),
            ("{\"@type\":\"x/google.protobuf.Any\",\"value\":", "}"),
        ] {
            for member in ["object", "value", "list", "any", "unknown"] {
                for deep in [101, 100_000] {
                    let inner = format!("{}1{}", open.repeat(deep), close.repeat(deep));
                    let text = format!("{{\"{member}\":{inner}}}");
                    assert!(wire("All", text).is_err(), "{open} {member} {deep}");
                }
            }
        }
        // On the wire: a Struct, a list and a Value in each other, and an Any in an Any.
        let entry = |inner: Vec<u8>| bytes(1, [bytes(1, "a"), bytes(2, bytes(5, inner))].concat());
        let list = |inner: Vec<u8>| bytes(1, bytes(6, inner));
        let nested = |level: &dyn Fn(Vec<u8>) -> Vec<u8>| {
            (0..3_000).fold(Vec::new(), |inner, _| level(inner))
        };
        for (number, deep) in [
            (104, nested(&entry)),
            (106, nested(&list)),
            (107, nested(&any)),
        ] {
            assert!(json("All", &bytes(number, deep)).is_err(), "{number}");
        }
    };
    let thread = std::thread::Builder::new().stack_size(1 << 20);
    thread.spawn(check).unwrap().join().unwrap();
}
