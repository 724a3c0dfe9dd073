//! `watch`.

use super::*;

#[test]
fn streams_without_a_kind_are_reported() {
    for (rpc, option, want) in [
        (
            "rpc Do(stream Req) returns (Res)",
            "stream",
            "a client-streaming rpc must be an upload",
        ),
        (
            "rpc Do(stream Req) returns (stream Res)",
            "stream",
            "a client-streaming rpc must be an upload",
        ),
        (
            "rpc Do(Req) returns (stream Res)",
            "(drawbridge.v1.method).watch",
            "a server-streaming rpc must be a watch",
        ),
    ] {
        let diagnostic = one(&proto(&format!(
            "service S {{ {rpc} {{
               option (google.api.http) = {{get: \"/v1/x\"}};
               option (drawbridge.v1.method).anonymous = true;
             }} }} {PLAIN}"
        )));
        assert_eq!(diagnostic.option, option, "{rpc}");
        assert!(diagnostic.problem.contains(want), "{rpc}\n{diagnostic}");
    }
    let options = "option (google.api.http) = {get: \"/v1/x\"};
                   option (drawbridge.v1.method).watch = {poll: \"Do\"};";
    let diagnostic = one(&unary(options, PLAIN));
    assert!(
        diagnostic.problem.contains("a watch is server-streaming"),
        "{diagnostic}"
    );
}

/// Returns a proto of an rpc to poll, one to refresh, and a watch with these options.
fn watch(rules: &str) -> String {
    watch_with(
        rules,
        "option (google.api.http) = {get: \"/v1/{p}/things\"};",
        "string p = 1; bool follow = 2 [(drawbridge.v1.field).gateway_only = true];",
        "drawbridge.v1.WatchEvent event = 1; Thing thing = 2;",
    )
}

fn watch_with(rules: &str, route: &str, request: &str, response: &str) -> String {
    proto(&format!(
        r#"
        service S {{
          rpc List(ListReq) returns (ListRes) {{
            option (google.api.http) = {{get: "/v1/{{p}}/things"}};
          }}
          rpc Get(GetReq) returns (GetRes) {{
            option (google.api.http) = {{get: "/v1/{{p}}/things/{{id}}"}};
          }}
          rpc Odd(GetReq) returns (Empty) {{
            option (google.api.http) = {{get: "/v1/{{p}}/odd/{{id}}"}};
          }}
          rpc Act(ListReq) returns (ListRes) {{
            option (google.api.http) = {{post: "/v1/{{p}}/things/invoke"}};
            option (drawbridge.v1.method).action = {{}};
          }}
          rpc More(MoreReq) returns (GetRes) {{
            option (google.api.http) = {{get: "/v1/{{p}}/more/{{id}}"}};
          }}
          rpc Watch(WatchReq) returns (stream WatchRes) {{
            {route}
            option (drawbridge.v1.method).watch = {{ {rules} }};
          }}
        }}
        message Empty {{}}
        message ListReq {{ string p = 1; }}
        message GetReq {{ string p = 1; string id = 2; }}
        message MoreReq {{
          string p = 1;
          string id = 2;
          string q = 3 [(google.api.field_behavior) = REQUIRED];
        }}
        message GetRes {{ Thing thing = 1; }}
        message ListRes {{ repeated Thing things = 1; Thing one = 2; string name = 3; }}
        message Thing {{
          string id = 1; State state = 2; Inner inner = 3; int64 size = 4;
          repeated Inner inners = 5; double weight = 6;
        }}
        message Inner {{ string state = 1; }}
        enum State {{
          STATE_UNSPECIFIED = 0;
          STATE_BUSY = 1;
          STATE_DONE = 2 [(drawbridge.v1.enum_value) = {{name: "done" aliases: "finished"}}];
        }}
        message WatchReq {{ {request} }}
        message WatchRes {{ {response} }}"#
    ))
}

#[test]
fn contradictory_watches_are_reported() {
    for (rules, option, want) in [
        ("", "watch.poll", "is missing: name the rpc to poll"),
        (
            "poll: \"No\"",
            "watch.poll",
            "`No` is not a unary rpc of this service",
        ),
        (
            "poll: \"Watch\"",
            "watch.poll",
            "`Watch` is not a unary rpc",
        ),
        (
            "poll: \"Get\" item: \"thing\"",
            "watch.poll",
            "`Get` is GET /v1/{p}/things/{id}, the stream is GET /v1/{p}/things",
        ),
        (
            "poll: \"List\" item: \"no\"",
            "watch.item",
            "t.ListRes has no field `no`",
        ),
        (
            "poll: \"List\" item: \"name\"",
            "watch.item",
            "must be a message or a list",
        ),
        ("poll: \"List\" item: \"things\"", "watch.key", "is missing"),
        (
            "poll: \"List\" item: \"things\" key: \"id\" additional_keys: \"nope\"",
            "watch.additional_keys",
            "t.Thing has no field `nope`",
        ),
        (
            "poll: \"List\" item: \"one\" additional_keys: \"id\"",
            "watch.additional_keys",
            "is for lists",
        ),
        (
            "poll: \"List\" item: \"things\" key: \"no\"",
            "watch.key",
            "t.Thing has no field `no`",
        ),
        (
            "poll: \"List\" item: \"things\" key: \"weight\"",
            "watch.key",
            "a single string or integer",
        ),
        (
            "poll: \"List\" item: \"things\" key: \"inner\"",
            "watch.key",
            "a single string or integer",
        ),
        (
            "poll: \"List\" item: \"one\" key: \"id\"",
            "watch.key",
            "is for lists",
        ),
        (
            "poll: \"List\" item: \"one\" state: \"no\"",
            "watch.state",
            "t.Thing has no field `no`",
        ),
        (
            "poll: \"List\" item: \"one\" state: \"inner.no\"",
            "watch.state",
            "t.Inner has no field",
        ),
        (
            "poll: \"List\" item: \"one\" state: \"id.no\"",
            "watch.state",
            "`id` is not a single message",
        ),
        (
            "poll: \"List\" item: \"one\" state: \"inners.state\"",
            "watch.state",
            "`inners` is not a single message",
        ),
        (
            "poll: \"List\" item: \"one\" state: \"size\"",
            "watch.state",
            "a single string or enum",
        ),
        (
            "poll: \"List\" item: \"one\" state: \"inner\"",
            "watch.state",
            "a single string or enum",
        ),
        (
            "poll: \"List\" item: \"one\" succeeded: \"done\"",
            "watch.state",
            "is missing: name the field",
        ),
        (
            "poll: \"List\" item: \"one\" state: \"state\" succeeded: \"DONE\"",
            "watch.succeeded",
            "`DONE` is not a REST text of t.State: it has UNSPECIFIED, BUSY, done",
        ),
        (
            "poll: \"List\" item: \"one\" state: \"state\" failed: \"DONE\"",
            "watch.failed",
            "`DONE` is not a REST text",
        ),
        (
            "poll: \"List\" item: \"one\" state: \"state\" succeeded: \"done\" failed: \"done\"",
            "watch.failed",
            "`done` is also in `succeeded`",
        ),
        (
            "poll: \"List\" item: \"one\" follow: \"no\"",
            "watch.follow",
            "has no field `no`",
        ),
        (
            "poll: \"List\" item: \"one\" follow: \"p\"",
            "watch.follow",
            "`p` must be a single bool",
        ),
        (
            "poll: \"List\" item: \"one\" refresh: \"Get\"",
            "watch.refresh",
            "is for lists",
        ),
        (
            "poll: \"List\" item: \"things\" key: \"id\" refresh: \"No\"",
            "watch.refresh",
            "`No` is not a unary rpc",
        ),
        (
            "poll: \"List\" item: \"things\" key: \"id\" refresh: \"List\"",
            "watch.refresh",
            "must have exactly one path field more than the watch, for the key: it has 0",
        ),
        (
            "poll: \"List\" item: \"things\" key: \"id\" refresh: \"Odd\"",
            "watch.refresh",
            "t.Empty must have one field of type t.Thing",
        ),
        (
            "poll: \"List\" item: \"things\" key: \"id\" refresh: \"More\"",
            "watch.refresh",
            "nothing sets its REQUIRED field `q`",
        ),
        (
            "poll: \"List\" item: \"things\" key: \"size\" refresh: \"Get\"",
            "watch.refresh",
            "a key of another type",
        ),
        (
            "poll: \"List\" item: \"one\" initial_interval: {seconds: -1}",
            "watch.initial_interval",
            "10 ms to 1 day",
        ),
        (
            "poll: \"List\" item: \"one\" max_interval: {}",
            "watch.max_interval",
            "10 ms to 1 day",
        ),
        (
            "poll: \"List\" item: \"one\" initial_interval: {seconds: 9} max_interval: {seconds: 8}",
            "watch.max_interval",
            "is shorter than initial_interval",
        ),
    ] {
        let diagnostic = one(&watch(rules));
        assert_eq!(diagnostic.element, "t.S.Watch", "{rules}");
        assert_eq!(
            diagnostic.option,
            format!("(drawbridge.v1.method).{option}"),
            "{rules}"
        );
        assert!(diagnostic.problem.contains(want), "{rules}\n{diagnostic}");
    }
}

#[test]
fn unsuitable_watch_messages_are_reported() {
    let rules = "poll: \"List\" item: \"one\"";
    let route = "option (google.api.http) = {get: \"/v1/{p}/things\"};";
    let event = "drawbridge.v1.WatchEvent event = 1;";
    let response = "drawbridge.v1.WatchEvent event = 1; Thing thing = 2;";
    for (request, response, want) in [
        (
            "string p = 1;",
            "Thing thing = 2;",
            "t.WatchRes must have two fields",
        ),
        (
            "string p = 1;",
            event,
            "one drawbridge.v1.WatchEvent and one t.Thing",
        ),
        (
            "string p = 1;",
            &format!("{event} Inner inner = 2;"),
            "and one t.Thing",
        ),
        (
            "string p = 1;",
            &format!("{event} repeated Thing t = 2;"),
            "and one t.Thing",
        ),
        (
            "string p = 1;",
            &format!("{response} string x = 3;"),
            "must have two fields",
        ),
        (
            "string p = 1; bool follow = 2;",
            response,
            "the field `follow` of t.WatchReq is not one of t.ListReq: use the same name and type, or mark it",
        ),
        (
            "string p = 1 [(drawbridge.v1.field).name = \"q\"];",
            response,
            "the field `p` of t.WatchReq is not one of t.ListReq",
        ),
    ] {
        let diagnostic = one(&watch_with(rules, route, request, response));
        assert!(diagnostic.problem.contains(want), "{request}\n{diagnostic}");
    }
    let diagnostic = one(&watch_with(
        "poll: \"Act\" item: \"one\"",
        "option (google.api.http) = {post: \"/v1/{p}/things/invoke\"};",
        "string p = 1;",
        response,
    ));
    assert!(
        diagnostic.problem.contains("an action cannot be polled"),
        "{diagnostic}"
    );
}
