//! What is refused at start, and how it is told.

use super::*;

const PLAIN: &str = r#"
    message Req { string id = 1; }
    message Res { string id = 1; }"#;

/// The one refusal of a proto, and that it names the file.
fn one(proto: &str) -> Refusal {
    let refusals = refusals(proto);
    assert_eq!(refusals.len(), 1, "{}\n{proto}", told(&refusals));
    assert_eq!(refusals[0].file, "t.proto", "{proto}");
    refusals[0].clone()
}

#[test]
fn routes_that_are_none() {
    let http = "google.api.http";
    for (options, messages, option, want) in [
        ("", PLAIN, http, "is missing: say which REST call"),
        (
            "option (google.api.http) = {body: \"*\"};",
            PLAIN,
            http,
            "has no path",
        ),
        (
            "option (google.api.http) = {get: \"v1/x\"};",
            PLAIN,
            http,
            "does not begin with `/`",
        ),
        (
            "option (google.api.http) = {get: \"/v1/{id\"};",
            PLAIN,
            http,
            "is not closed",
        ),
        (
            "option (google.api.http) = {get: \"/v1/{id=}\"};",
            PLAIN,
            http,
            "a segment is empty",
        ),
        (
            "option (google.api.http) = {custom: {kind: \"*\" path: \"/x\"}};",
            PLAIN,
            http,
            "`*` is not an HTTP method",
        ),
        (
            "option (google.api.http) = {custom: {kind: \"a b\" path: \"/x\"}};",
            PLAIN,
            http,
            "`a b` is not an HTTP method",
        ),
        (
            "option (google.api.http) = {get: \"/v1/{no}\"};",
            PLAIN,
            http,
            "path variable `{no}`: t.Req has no field `no`",
        ),
        (
            "option (google.api.http) = {get: \"/v1/{id.no}\"};",
            PLAIN,
            http,
            "`id` is not a message",
        ),
        (
            "option (google.api.http) = {get: \"/v1/{sub}\"};",
            "message Req { Sub sub = 1; } message Sub { string id = 1; } message Res {}",
            http,
            "`sub` is a message: name a field of it, as in `{sub.id}`",
        ),
        (
            "option (google.api.http) = {get: \"/v1/{sub.no}\"};",
            "message Req { Sub sub = 1; } message Sub { string id = 1; } message Res {}",
            http,
            "t.Sub has no field `no`",
        ),
        (
            "option (google.api.http) = {get: \"/v1/{ids}\"};",
            "message Req { repeated string ids = 1; } message Res {}",
            http,
            "`ids` is a list or map",
        ),
        (
            "option (google.api.http) = {post: \"/v1/{m}\" body: \"*\"};",
            "message Req { map<string, string> m = 1; } message Res {}",
            http,
            "`m` is a list or map",
        ),
        (
            "option (google.api.http) = {get: \"/v1/{id}\"};",
            "message Req { string id = 1 [(drawbridge.v1.field).absent_in = \"x\"]; } message Res {}",
            http,
            "`id` is not always sent",
        ),
        (
            "option (google.api.http) = {get: \"/v1/x\"};",
            "message Req { string p = 1 [(drawbridge.v1.field).upstream_value = \"project_id\"]; }
             message Res {}",
            http,
            "the field `p` takes the upstream's value and must stand in the path",
        ),
        (
            "option (google.api.http) = {post: \"/v1/x\" body: \"no\"};",
            PLAIN,
            http,
            "body `no`: t.Req has no such field",
        ),
        (
            "option (google.api.http) = {post: \"/v1/x\" body: \"id\"};",
            "message Req { string id = 1 [(drawbridge.v1.field).local = true]; } message Res {}",
            http,
            "body `id` is a field that is not sent",
        ),
        (
            "option (google.api.http) = {get: \"/v1/x\" response_body: \"no\"};",
            PLAIN,
            http,
            "response_body `no`: t.Res has no such field",
        ),
    ] {
        let refusal = one(&unary(options, messages));
        assert_eq!(refusal.element, "t.S.Do", "{options}");
        assert_eq!(refusal.option, option, "{options}");
        assert!(refusal.problem.contains(want), "{options}\n{refusal}");
    }
}

#[test]
fn queries_that_cannot_be() {
    for (fields, want) in [
        (
            "map<string, string> m = 1;",
            "`m`: a map cannot be a query parameter",
        ),
        (
            "repeated Sub subs = 1;",
            "`subs`: a list of messages cannot be",
        ),
        (
            "google.protobuf.Struct s = 1;",
            "`s`: arbitrary JSON cannot be",
        ),
        (
            "google.protobuf.Value v = 1;",
            "`v`: arbitrary JSON cannot be",
        ),
        ("Sub sub = 1;", "`sub.map`: a map cannot be"),
        (
            "Bare bare = 1;",
            "`bare`: a message that stands as an array cannot be",
        ),
        ("Deep deep = 1;", "`deep.deep`: a message within itself"),
        ("Deep deep = 1;", "put it in a body, or mark it `local`"),
    ] {
        let messages = format!(
            "message Req {{ {fields} }} message Res {{}}
             message Sub {{ map<string, string> map = 1; }}
             message Bare {{ option (drawbridge.v1.message).as_array = \"a\"; repeated string a = 1; }}
             message Deep {{ string a = 1; Deep deep = 2; }}"
        );
        let options = "option (google.api.http) = {get: \"/v1/x\"};";
        let refusal = one(&unary(options, &messages));
        assert_eq!(refusal.option, "google.api.http", "{fields}");
        assert!(refusal.problem.contains(want), "{fields}\n{refusal}");
    }
}

#[test]
fn rules_of_an_rpc_that_contradict() {
    let get = "option (google.api.http) = {get: \"/v1/x\"};";
    let post = "option (google.api.http) = {post: \"/v1/x\" body: \"*\"};";
    let thing = "option (google.api.http) = {post: \"/v1/x/{id}\"};";
    let invoke = "option (google.api.http) = {post: \"/v1/x/invoke\"};";
    for (http, rule, option, want) in [
        (
            post,
            "constant_body: \"{}\"",
            "constant_body",
            "another body already",
        ),
        (get, "constant_body: \"{\"", "constant_body", "is not JSON"),
        (
            get,
            "unset_body: UNSET_BODY_EMPTY_OBJECT",
            "unset_body",
            "a body that is a field",
        ),
        (
            post,
            "unset_body: UNSET_BODY_EMPTY_OBJECT",
            "unset_body",
            "a body that is a field",
        ),
        (get, "also_success: 204", "also_success", "204 is not"),
        (get, "also_success: 99", "also_success", "99 is not"),
        (
            get,
            "constant_query: \"?a=b\"",
            "constant_query",
            "without `?` and `&`",
        ),
        (
            get,
            "constant_query: \"a=b c\"",
            "constant_query",
            "must be percent-encoded",
        ),
        (
            thing,
            "action: {}",
            "action",
            "the path must end in a fixed segment",
        ),
        (
            invoke,
            "action: {name_value: \"go\"}",
            "action.name_member",
            "is missing",
        ),
        (
            invoke,
            "action: {document: \"no\"}",
            "action.document",
            "t.Req has no field `no`",
        ),
        (
            invoke,
            "action: {document: \"id\"}",
            "action.document",
            "must be one message",
        ),
        (
            invoke,
            "action: {members: [{key: \"a\" value: \"nope\"}]}",
            "action.members",
            "`a`: is not JSON",
        ),
        (
            invoke,
            "action: {} constant_body: \"{}\"",
            "constant_body",
            "another body already",
        ),
    ] {
        let options = format!("{http} option (drawbridge.v1.method) = {{ {rule} }};");
        let refusal = one(&unary(&options, PLAIN));
        assert_eq!(refusal.element, "t.S.Do", "{rule}");
        assert_eq!(
            refusal.option,
            format!("(drawbridge.v1.method).{option}"),
            "{rule}"
        );
        assert!(refusal.problem.contains(want), "{rule}\n{refusal}");
    }
    let options = "option (google.api.http) = {post: \"/v1/x/invoke\" body: \"*\"};
                   option (drawbridge.v1.method).action = {};";
    let refusal = one(&unary(options, PLAIN));
    assert!(
        refusal
            .problem
            .contains("the body of an action is its document")
    );
}

#[test]
fn files_that_cannot_be() {
    const FILES: &str = r#"
        message Req { string id = 1; string name = 2 [(drawbridge.v1.field).local = true];
          bytes chunk = 3 [(drawbridge.v1.field).local = true];
          string sent = 4; repeated bytes chunks = 5 [(drawbridge.v1.field).local = true]; }
        message Res { string id = 1; string name = 2; bytes chunk = 3; }"#;
    const POST: &str = r#"(google.api.http) = {post: "/v1/files"}"#;
    const UP: &str = r#"upload = {file_name: "name" chunk: "chunk"}"#;
    const DOWN: &str = r#"download = {file_name: "name" chunk: "chunk"}"#;
    let (into, out) = (
        "Do(stream Req) returns (Res)",
        "Do(Req) returns (stream Res)",
    );
    let get = r#"(google.api.http) = {get: "/v1/files"}"#;
    let with_body = r#"(google.api.http) = {post: "/v1/files" body: "*"}"#;
    let with_response = r#"(google.api.http) = {post: "/v1/files" response_body: "id"}"#;
    let rule = |rule: &str| format!("(drawbridge.v1.method).{rule}");
    for (rpc, http, rules, option, want) in [
        (
            "Do(Req) returns (Res)",
            POST,
            &[UP][..],
            "upload",
            "is client-streaming",
        ),
        (
            "Do(stream Req) returns (stream Res)",
            POST,
            &[UP],
            "upload",
            "and no more",
        ),
        (
            "Do(Req) returns (Res)",
            POST,
            &[DOWN],
            "download",
            "is server-streaming",
        ),
        (
            into,
            get,
            &[UP],
            "upload",
            "a POST, PUT or PATCH without `body`",
        ),
        (into, with_body, &[UP], "upload", "without `body`"),
        (
            into,
            POST,
            &[UP, DOWN],
            "upload",
            "together with `download`",
        ),
        (
            into,
            POST,
            &[UP, "constant_body = \"{}\""],
            "upload",
            "with `constant_body`",
        ),
        (
            into,
            POST,
            &[UP, "resolve = \"Find\""],
            "upload",
            "with `resolve`",
        ),
        (
            out,
            POST,
            &[DOWN, "pages = \"List\""],
            "download",
            "with `pages`",
        ),
        (
            out,
            POST,
            &[DOWN, "location = \"/{id}\""],
            "download",
            "with `location`",
        ),
        (
            out,
            with_response,
            &[DOWN],
            "download",
            "with `response_body`",
        ),
        (
            into,
            POST,
            &["upload = {file_name: \"name\" chunk: \"no\"}"],
            "upload.chunk",
            "t.Req has no bytes field `no`",
        ),
        (
            into,
            POST,
            &["upload = {file_name: \"name\" chunk: \"chunks\"}"],
            "upload.chunk",
            "no bytes field `chunks`",
        ),
        (
            into,
            POST,
            &["upload = {file_name: \"chunk\" chunk: \"chunk\"}"],
            "upload.file_name",
            "no string field `chunk`",
        ),
        (
            into,
            POST,
            &["upload = {file_name: \"sent\" chunk: \"chunk\"}"],
            "upload.file_name",
            "make it `local`",
        ),
        (
            into,
            POST,
            &["upload = {part: \"a\\\"b\" file_name: \"name\" chunk: \"chunk\"}"],
            "upload.part",
            "must be of letters",
        ),
        (
            out,
            POST,
            &["download = {file_name: \"name\" chunk: \"name\"}"],
            "download.chunk",
            "t.Res has no bytes field `name`",
        ),
        (
            out,
            POST,
            &["download = {file_name: \"name\" chunk: \"chunk\" accept: \"\\n\"}"],
            "download.accept",
            "the value of a header",
        ),
    ] {
        let rules: String = rules
            .iter()
            .map(|r| format!("option {};\n", rule(r)))
            .collect();
        let text = proto(&format!(
            "service S {{ rpc {rpc} {{ option {http};\n{rules} }} }} {FILES}"
        ));
        let found = refusals(&text);
        let hit = found
            .iter()
            .any(|r| r.option == rule(option) && r.problem.contains(want) && r.element == "t.S.Do");
        assert!(hit, "{want}: {}\n{text}", told(&found));
    }
}

#[test]
fn streams_that_are_no_watches() {
    for (rpc, option, want) in [
        (
            "rpc Do(stream Req) returns (Res)",
            "stream",
            "client streaming",
        ),
        (
            "rpc Do(stream Req) returns (stream Res)",
            "stream",
            "client streaming",
        ),
        (
            "rpc Do(Req) returns (stream Res)",
            "(drawbridge.v1.method).watch",
            "a server-streaming rpc must be a watch",
        ),
    ] {
        let refusal = one(&proto(&format!(
            "service S {{ {rpc} {{ option (google.api.http) = {{get: \"/v1/x\"}}; }} }} {PLAIN}"
        )));
        assert_eq!(refusal.option, option, "{rpc}");
        assert!(refusal.problem.contains(want), "{rpc}\n{refusal}");
    }
    let options = "option (google.api.http) = {get: \"/v1/x\"};
                   option (drawbridge.v1.method).watch = {poll: \"Do\"};";
    let refusal = one(&unary(options, PLAIN));
    assert!(
        refusal.problem.contains("a watch is server-streaming"),
        "{refusal}"
    );
}

/// A service with an rpc to poll, one to refresh, and a watch of these rules.
fn watch(rules: &str) -> String {
    watch_with(
        rules,
        "option (google.api.http) = {get: \"/v1/{p}/things\"};",
        "string p = 1; bool follow = 2 [(drawbridge.v1.field).local = true];",
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
fn watches_that_contradict() {
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
            "poll: \"List\" item: \"things\" key: \"id\" key_with: \"nope\"",
            "watch.key_with",
            "t.Thing has no field `nope`",
        ),
        (
            "poll: \"List\" item: \"one\" key_with: \"id\"",
            "watch.key_with",
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
            "one string or integer",
        ),
        (
            "poll: \"List\" item: \"things\" key: \"inner\"",
            "watch.key",
            "one string or integer",
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
            "`id` is not one message",
        ),
        (
            "poll: \"List\" item: \"one\" state: \"inners.state\"",
            "watch.state",
            "`inners` is not one message",
        ),
        (
            "poll: \"List\" item: \"one\" state: \"size\"",
            "watch.state",
            "one string or enum",
        ),
        (
            "poll: \"List\" item: \"one\" state: \"inner\"",
            "watch.state",
            "one string or enum",
        ),
        (
            "poll: \"List\" item: \"one\" ended_well: \"done\"",
            "watch.state",
            "is missing: name the field",
        ),
        (
            "poll: \"List\" item: \"one\" state: \"state\" ended_well: \"DONE\"",
            "watch.ended_well",
            "`DONE` is not a REST text of t.State: it has UNSPECIFIED, BUSY, done",
        ),
        (
            "poll: \"List\" item: \"one\" state: \"state\" ended_badly: \"DONE\"",
            "watch.ended_badly",
            "`DONE` is not a REST text",
        ),
        (
            "poll: \"List\" item: \"one\" state: \"state\" ended_well: \"done\" ended_badly: \"done\"",
            "watch.ended_badly",
            "`done` stands in ended_well, too",
        ),
        (
            "poll: \"List\" item: \"one\" follow: \"no\"",
            "watch.follow",
            "has no field `no`",
        ),
        (
            "poll: \"List\" item: \"one\" follow: \"p\"",
            "watch.follow",
            "`p` must be one bool",
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
            "must have one path field beside those of the watch, for the key: it has 0",
        ),
        (
            "poll: \"List\" item: \"things\" key: \"id\" refresh: \"Odd\"",
            "watch.refresh",
            "t.Empty must have one field of type t.Thing",
        ),
        (
            "poll: \"List\" item: \"things\" key: \"id\" refresh: \"More\"",
            "watch.refresh",
            "nothing fills its REQUIRED field `q`",
        ),
        (
            "poll: \"List\" item: \"things\" key: \"size\" refresh: \"Get\"",
            "watch.refresh",
            "a key of another type",
        ),
        (
            "poll: \"List\" item: \"one\" first_interval: {seconds: -1}",
            "watch.first_interval",
            "10 ms to 1 day",
        ),
        (
            "poll: \"List\" item: \"one\" max_interval: {}",
            "watch.max_interval",
            "10 ms to 1 day",
        ),
        (
            "poll: \"List\" item: \"one\" first_interval: {seconds: 9} max_interval: {seconds: 8}",
            "watch.max_interval",
            "is shorter than first_interval",
        ),
    ] {
        let refusal = one(&watch(rules));
        assert_eq!(refusal.element, "t.S.Watch", "{rules}");
        assert_eq!(
            refusal.option,
            format!("(drawbridge.v1.method).{option}"),
            "{rules}"
        );
        assert!(refusal.problem.contains(want), "{rules}\n{refusal}");
    }
}

#[test]
fn watches_whose_messages_do_not_fit() {
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
            "the field `follow` of t.WatchReq is not one of t.ListReq: name it alike, or mark it",
        ),
        (
            "string p = 1 [(drawbridge.v1.field).name = \"q\"];",
            response,
            "the field `p` of t.WatchReq is not one of t.ListReq",
        ),
    ] {
        let refusal = one(&watch_with(rules, route, request, response));
        assert!(refusal.problem.contains(want), "{request}\n{refusal}");
    }
    let refusal = one(&watch_with(
        "poll: \"Act\" item: \"one\"",
        "option (google.api.http) = {post: \"/v1/{p}/things/invoke\"};",
        "string p = 1;",
        response,
    ));
    assert!(
        refusal.problem.contains("an action cannot be watched"),
        "{refusal}"
    );
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let refusals = refusals(&proto(
        r#"service S {
             rpc A(Req) returns (Res) {}
             rpc B(Req) returns (Res) { option (google.api.http) = {get: "/{a}/{b}"}; }
           }
           message Req { string id = 1; }
           message Res {}"#,
    ));
    let elements: Vec<&str> = refusals.iter().map(|r| &*r.element).collect();
    assert_eq!(elements, ["t.S.A", "t.S.B", "t.S.B"]);
    assert_eq!(
        refusals[1].to_string(),
        "t.proto: t.S.B: google.api.http: path variable `{a}`: t.Req has no field `a`"
    );
}

#[test]
fn descriptor_sets_that_cannot_be_read_or_stand_twice() {
    let sources = |second: Vec<u8>| {
        [
            (
                "first.binpb",
                descriptors(&unary("option (google.api.http) = {get: \"/x\"};", PLAIN)),
            ),
            ("second.binpb", second),
        ]
        .map(|(name, bytes)| Source {
            name: name.into(),
            bytes,
        })
        .to_vec()
    };
    let refusals = Contract::compile(sources(b"no descriptors".to_vec())).unwrap_err();
    assert_eq!(refusals.len(), 1);
    assert_eq!(refusals[0].file, "second.binpb");
    assert!(
        refusals[0].problem.contains("make one with `buf build"),
        "{}",
        refusals[0]
    );
    assert!(
        refusals[0]
            .to_string()
            .starts_with("second.binpb: not a whole"),
        "{}",
        refusals[0]
    );

    let again = descriptors(&unary("option (google.api.http) = {get: \"/y\"};", PLAIN));
    let refusals = Contract::compile(sources(again)).unwrap_err();
    assert_eq!(
        told(&refusals),
        "t.proto: t.S: service: stands in two descriptor sets, first.binpb and second.binpb: \
         leave one out"
    );
}

#[test]
fn a_file_needs_a_family() {
    let refusals = refusals(
        r#"syntax = "proto3";
           import "google/api/annotations.proto";
           service S { rpc Do(Req) returns (Req) { option (google.api.http) = {get: "/x"}; } }
           message Req {}"#,
    );
    assert_eq!(refusals[0].option, "(drawbridge.v1.file).family");
}

#[test]
fn sets_without_drawbridges_options_and_services_of_others() {
    let proto = r#"syntax = "proto3";
        package grpc.own;
        import "drawbridge/v1/gateway.proto";
        service S { rpc Do(stream Req) returns (Req) {} }
        message Req {}"#;
    assert!(World::new(proto).contract.methods().is_empty());

    let world = World::new(
        r#"syntax = "proto3";
        package t;
        import "google/api/annotations.proto";
        service S {
          rpc Do(Req) returns (Req) {
            option (google.api.http) = {
              get: "/x/{id}"
              additional_bindings {get: "/y/{id}"}
            };
          }
        }
        message Req { string id = 1; }"#,
    );
    assert_eq!(world.contract.services(), BTreeMap::from([("t.S", "t")]));
    assert_eq!(world.bind(json!({"id": "1"})).unwrap().path, "/x/1");
}

#[test]
fn the_built_in_contract_holds_together() {
    let source = Source {
        name: "built-in".into(),
        bytes: crate::BUILT_IN.to_vec(),
    };
    let contract = Contract::compile(vec![source]).unwrap_or_else(|r| panic!("{}", told(&r)));
    assert!(!contract.methods().is_empty());
    assert_eq!(contract.descriptor_sets(), [crate::BUILT_IN]);
    let services = contract.services();
    assert_eq!(services.get("drawbridge.v1.GatewayService"), None);
    let family = services.get("openstack.orchestration.v1.SoftwareDeploymentService");
    assert_eq!(family, Some(&"heat"));
    let table = contract.coverage();
    let row = "| `openstack.orchestration.v1.SoftwareDeploymentService` | \
               `WatchSoftwareDeployment` (stream) | \
               `GET /v1/{project_id}/software_deployments/{deployment_id}` |";
    assert!(table.contains(row), "{table}");
    assert_eq!(table.lines().count(), contract.methods().len() + 2);
}
