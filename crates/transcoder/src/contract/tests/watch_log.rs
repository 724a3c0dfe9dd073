//! Watches of logs: `log` and `text_log`.

use super::*;

fn log_proto(watch: &str, request: &str, response: &str) -> String {
    proto(&format!(
        r#"
        service S {{
          rpc List(ListReq) returns (ListRes) {{
            option (google.api.http) = {{get: "/v1/{{thing}}/events"}};
            option idempotency_level = NO_SIDE_EFFECTS;
          }}
          rpc Get(GetReq) returns (Thing) {{
            option (google.api.http) = {{get: "/v1/{{id}}"}};
            option idempotency_level = NO_SIDE_EFFECTS;
          }}
          rpc WatchThing(GetReq) returns (stream ThingRes) {{
            option (google.api.http) = {{get: "/v1/{{id}}"}};
            option (drawbridge.v1.method).watch = {{poll: "Get" state: "state" succeeded: "done"}};
          }}
          rpc Watch(WatchReq) returns (stream WatchRes) {{
            option (google.api.http) = {{get: "/v1/{{thing}}/events"}};
            option (drawbridge.v1.method).watch = {{poll: "List" {watch}}};
          }}
        }}
        message ListReq {{
          string thing = 1 [(google.api.field_behavior) = REQUIRED];
          string after = 2 [(drawbridge.v1.field).absent_in = "old"];
          int32 count = 3 [(drawbridge.v1.field).absent_in = "old"];
          string kind = 4;
          int64 offset = 5;
        }}
        message ListRes {{
          repeated Event events = 1;
          repeated Part parts = 2;
          repeated string lines = 3;
          repeated ListRes groups = 4;
          Part part = 5;
        }}
        message Part {{ string text = 3; optional string note = 4; }}
        message Event {{ string id = 1; google.protobuf.Timestamp at = 2; int64 size = 3; Part part = 4; }}
        message GetReq {{ string id = 2 [(google.api.field_behavior) = REQUIRED]; }}
        message Thing {{ string state = 1; }}
        message ThingRes {{ drawbridge.v1.WatchEvent event = 1; Thing thing = 2; }}
        message WatchReq {{
          string thing = 1 [(google.api.field_behavior) = REQUIRED];
          string kind = 4;
          string marker = 6 [(drawbridge.v1.field).gateway_only = true];
          bool now = 7 [(drawbridge.v1.field).gateway_only = true];
          bool end = 8 [(drawbridge.v1.field).gateway_only = true];
          int64 offset = 9 [(drawbridge.v1.field).gateway_only = true];
          {request}
        }}
        message WatchRes {{ drawbridge.v1.WatchEvent event = 1; {response} }}"#
    ))
}

const EVENTS: &str = r#"item: "events" key: "id" resume: "marker" from_now: "now"
    log: {marker: "after" limit: "count" page_size: 2 ascending: "sort=asc" newest: "sort=desc"
        order_by: "at"}"#;
const ENDS: &str = r#"ends_with: "WatchThing" until_final: "end"
    ends_fields: {key: "id" value: "thing"}"#;
const EVENT: &str = "Event item = 2; string marker = 3;";
const TEXT: &str =
    r#"text_log: {offset: "offset" size: "count" text: "parts.text"} resume: "offset""#;
const LINE: &str = "drawbridge.v1.LogLine line = 2; int64 next = 3;";

#[test]
fn entries_are_read_after_the_marker() {
    let test = TestContract::new(&log_proto(&format!("{EVENTS} {ENDS}"), "", EVENT));
    let method = test.rpc("Watch");
    let log = method.log.as_ref().unwrap();
    let request = test.wire(
        "t.WatchReq",
        json!({"thing": "x", "kind": "k", "marker": "m"}),
    );
    let call = method.bind(&request, "").unwrap();
    for (dialect, slice, query) in [
        ("", Slice::Start, "kind=k&sort=asc&count=2"),
        (
            "",
            Slice::After("a&b"),
            "kind=k&sort=asc&count=2&after=a%26b",
        ),
        ("", Slice::Newest, "kind=k&sort=desc&count=2"),
        ("old", Slice::After("a"), "kind=k"),
        ("old", Slice::Newest, "kind=k"),
    ] {
        let call = log.entries_call(&call, dialect, slice);
        assert_eq!((&*call.path, &*call.query), ("/v1/x/events", query));
        assert_eq!(log.pages(dialect), dialect.is_empty());
    }
    assert_eq!(log.resume(&request).unwrap().as_deref(), Some("m"));
    assert!(!log.from_now(&request) && !log.ends_with_watch(&request));
    let request = test.wire(
        "t.WatchReq",
        json!({"thing": "x", "now": true, "end": true}),
    );
    assert_eq!(log.resume(&request).unwrap(), None);
    assert!(log.from_now(&request) && log.ends_with_watch(&request));
    let ends = log.ends_request(&request).unwrap();
    assert_eq!(test.json("t.GetReq", &ends), json!({"id": "x"}));
    assert!(log.ends_with.is_some());

    let response = json!({"events": [{"id": "b", "at": "1970-01-01T00:00:02Z"}, {"id": "a"}]});
    let response = Bytes::from(test.wire("t.ListRes", response));
    let entries = log.entries(&response).unwrap();
    let told: Vec<_> = entries.iter().map(|e| (&*e.key, e.order.clone())).collect();
    assert_eq!(told, [("b", Some(Order::Time(2, 0))), ("a", None)]);
    let message = log.message(&WatchEvent::default(), Some(&entries[1].bytes), "a");
    let want = json!({"event": {}, "item": {"id": "a"}, "marker": "a"});
    assert_eq!(test.json("t.WatchRes", &message), want);
    let nameless = Bytes::from(test.wire("t.ListRes", json!({"events": [{}]})));
    assert!(matches!(log.entries(&nameless), Err(Error::Decode { .. })));
}

#[test]
fn text_is_read_from_its_offset() {
    let test = TestContract::new(&log_proto(TEXT, "", LINE));
    let method = test.rpc("Watch");
    let log = method.log.as_ref().unwrap();
    let request = test.wire("t.WatchReq", json!({"thing": "x", "offset": "7"}));
    assert_eq!(log.resume(&request).unwrap().as_deref(), Some("7"));
    let call = method.bind(&request, "").unwrap();
    assert_eq!(call.query, "", "it is set by the watch");
    assert_eq!(log.text_call(&call, "", 7, 100).query, "offset=7&count=100");
    let negative = test.wire("t.WatchReq", json!({"thing": "x", "offset": "-1"}));
    assert_eq!(fault(&log.resume(&negative).unwrap_err()).0, "offset");
    let response = test.wire("t.ListRes", json!({"parts": [{"text": "a\n"}]}));
    assert_eq!(log.text(&response).unwrap(), "a\n");
    let message = log.message(&WatchEvent::default(), Some(&Log::line("a", 7)), "9");
    let want = json!({"event": {}, "line": {"text": "a", "offset": "7"}, "next": "9"});
    assert_eq!(test.json("t.WatchRes", &message), want);
}

/// As Rundeck answers: an entry per line, without its line break.
#[test]
fn each_element_of_a_list_ends_its_line() {
    let text_at = |path: &str| {
        let rule = TEXT.replace("parts.text", path);
        TestContract::new(&log_proto(&rule, "", LINE))
    };
    for (path, response, want) in [
        ("parts.text", json!({"parts": []}), ""),
        (
            "parts.text",
            json!({"parts": [{"text": "step 0"}]}),
            "step 0\n",
        ),
        (
            "parts.text",
            json!({"parts": [{"text": "step 0"}, {"text": "step 1"}]}),
            "step 0\nstep 1\n",
        ),
        (
            "parts.text",
            json!({"parts": [{"text": "a\n"}, {"text": "b\r\n"}, {"text": "c\r"}, {"text": "d\ne"}]}),
            "a\nb\r\nc\r\nd\ne\n",
        ),
        // An empty entry is an empty line, unless nothing else is in the response.
        (
            "parts.text",
            json!({"parts": [{"text": "a"}, {"text": ""}, {}, {"text": "\n"}]}),
            "a\n\n\n\n",
        ),
        ("parts.text", json!({"parts": [{"text": ""}]}), ""),
        ("parts.text", json!({"parts": [{}]}), ""),
        // The text may be absent: such an element has no line.
        (
            "parts.note",
            json!({"parts": [{"note": "a"}, {}, {"note": ""}]}),
            "a\n\n",
        ),
        ("lines", json!({"lines": ["a", "", "b"]}), "a\n\nb\n"),
        ("lines", json!({"lines": [""]}), ""),
        (
            "groups.lines",
            json!({"groups": [{"lines": ["a", "b"]}, {}, {"lines": ["c"]}]}),
            "a\nb\nc\n",
        ),
        // No list: the text is sent unchanged.
        ("part.text", json!({"part": {"text": "a"}}), "a"),
    ] {
        let test = text_at(path);
        let wire = test.wire("t.ListRes", response.clone());
        let method = test.rpc("Watch");
        let text = method.log.as_ref().unwrap().text(&wire).unwrap();
        assert_eq!(text, want, "{path} {response}");
    }
}

#[test]
fn contradictory_log_rules_are_reported() {
    let swap = |from: &str, to: &str| {
        assert!(EVENTS.contains(from), "{from}");
        EVENTS.replace(from, to)
    };
    let cases = [
        (
            swap("\"after\"", "\"no\""),
            "",
            EVENT,
            "log.marker",
            "has no field `no`",
        ),
        (
            swap("\"after\"", "\"thing\""),
            "",
            EVENT,
            "log.marker",
            "must be a single query parameter",
        ),
        (
            EVENTS.to_owned(),
            "string after = 2;",
            EVENT,
            "log.marker",
            "is set by the watch",
        ),
        (
            swap("order_by: \"at\"", ""),
            "",
            EVENT,
            "log.order_by",
            "is missing",
        ),
        (
            swap("\"at\"", "\"part\""),
            "",
            EVENT,
            "log.order_by",
            "must be a Timestamp",
        ),
        (
            swap("\"at\"", "\"nope\""),
            "",
            EVENT,
            "log.order_by",
            "t.Event has no field `nope`",
        ),
        (
            swap("\"events\"", "\"nope\""),
            "",
            EVENT,
            "item",
            "t.ListRes has no field `nope`",
        ),
        (
            swap("\"sort=asc\"", "\"a b\""),
            "",
            EVENT,
            "log.ascending",
            "percent-encoded",
        ),
        (
            swap("page_size: 2", "page_size: -2"),
            "",
            EVENT,
            "log.page_size",
            "must be 1 to",
        ),
        (
            swap("\"marker\"", "\"kind\""),
            "",
            EVENT,
            "resume",
            "must be marked `gateway_only`",
        ),
        (
            swap("\"marker\"", "\"now\""),
            "",
            EVENT,
            "resume",
            "must be a single string",
        ),
        (
            swap("\"now\"", "\"marker\""),
            "",
            EVENT,
            "from_now",
            "must be a single bool",
        ),
        (
            EVENTS.to_owned(),
            "",
            "Event item = 2;",
            "",
            "must have three fields",
        ),
        (
            format!("{EVENTS} state: \"id\""),
            "",
            EVENT,
            "state",
            "is not for logs",
        ),
        (
            format!("{EVENTS} until_final: \"end\""),
            "",
            EVENT,
            "ends_with",
            "is missing",
        ),
        (
            format!("{EVENTS} ends_with: \"Get\" until_final: \"end\""),
            "",
            EVENT,
            "ends_with",
            "is not a watch of a single resource",
        ),
        (
            format!("{EVENTS} ends_with: \"WatchThing\" until_final: \"end\""),
            "",
            EVENT,
            "ends_with",
            "nothing sets its REQUIRED field `id`",
        ),
        (
            format!("{EVENTS} {ENDS} follow: \"now\""),
            "",
            EVENT,
            "ends_with",
            "needs exactly one of",
        ),
        (
            format!("{EVENTS} {}", ENDS.replace("\"id\"", "\"nope\"")),
            "",
            EVENT,
            "ends_fields",
            "cannot fill",
        ),
        (
            format!("{EVENTS} {TEXT}").replacen("resume: \"marker\"", "", 1),
            "",
            EVENT,
            "text_log",
            "remove one",
        ),
        (
            format!("{TEXT} item: \"events\""),
            "",
            LINE,
            "item",
            "is not for text logs",
        ),
        (
            format!("{TEXT} from_now: \"now\""),
            "",
            LINE,
            "from_now",
            "is for entry logs",
        ),
        (
            TEXT.replace("parts.text", "parts.nope"),
            "",
            LINE,
            "text_log.text",
            "t.Part has no field `nope`",
        ),
        (
            TEXT.replace("parts.text", "parts"),
            "",
            LINE,
            "text_log.text",
            "must lead to a string",
        ),
    ];
    for (watch, request, response, option, want) in cases {
        let diagnostics = diagnostics(&log_proto(&watch, request, response));
        let option = match option {
            "" => "(drawbridge.v1.method).watch".to_owned(),
            option => format!("(drawbridge.v1.method).watch.{option}"),
        };
        let found = diagnostics
            .iter()
            .any(|r| r.option == option && r.problem.contains(want) && r.element == "t.S.Watch");
        assert!(found, "{option}: {want}\n{}", printed(&diagnostics));
    }
}

#[test]
fn options_of_the_polled_rpc_hold_in_a_log() {
    let proto = log_proto(&format!("{EVENTS} {ENDS}"), "", EVENT).replace(
        "rpc List(ListReq) returns (ListRes) {",
        "rpc List(ListReq) returns (ListRes) {
         option (drawbridge.v1.method).constant_query = \"v=1&sort=id&count=9&x=y\";
         option (drawbridge.v1.method).path_in = {key: \"old\" value: \"/v0/{thing}\"};",
    );
    let test = TestContract::new(&proto);
    let (rpc, request) = (test.rpc("Watch"), json!({"thing": "t", "kind": "k"}));
    let request = test.wire("t.WatchReq", request);
    let log = rpc.log.as_ref().unwrap();
    let call = rpc.bind(&request, "").unwrap();
    for (slice, want) in [
        (Slice::Start, "kind=k&v=1&x=y&sort=asc&count=2"),
        (Slice::After("e"), "kind=k&v=1&x=y&sort=asc&count=2&after=e"),
        (Slice::Newest, "kind=k&v=1&x=y&sort=desc&count=2"),
    ] {
        assert_eq!(log.entries_call(&call, "", slice).query, want);
    }
    let call = rpc.bind(&request, "old").unwrap();
    assert_eq!(call.path, "/v0/t");
    let call = log.entries_call(&call, "old", Slice::Start);
    assert_eq!(call.query, "kind=k&v=1&sort=id&count=9&x=y");
}
