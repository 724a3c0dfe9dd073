//! Pages, finding out, locations, and what a bare string is.

use super::*;

const MESSAGES: &str = r#"
    message ListRequest {
      string owner = 1;
      int32 page_size = 2 [(drawbridge.v1.field) = {name: "limit" absent_in: "old"}];
      string page_token = 3 [(drawbridge.v1.field).name = "start"];
    }
    message ListResponse {
      repeated Thing things = 1;
      repeated Link links = 2;
      int32 count = 3;
      Pagination pagination = 4;
      string next_page_token = 9 [(drawbridge.v1.field).gateway_only = true];
    }
    message Thing { string id = 1; int64 number = 2; }
    message Link { string rel = 1; string href = 2; }
    message Pagination { int32 page = 1; int64 num_pages = 2; }
    message StreamRequest {
      string owner = 1;
      int32 page_size = 2 [(drawbridge.v1.field).name = "limit"];
      string page_token = 3 [(drawbridge.v1.field).name = "start"];
    }
    message StreamResponse { Thing thing = 5; }
    "#;

fn lists(paging: &str, messages: &str) -> String {
    proto(&format!(
        r#"service S {{
          rpc List(ListRequest) returns (ListResponse) {{
            option (google.api.http) = {{get: "/v1/{{owner}}/things"}};
            option (drawbridge.v1.method).paging = {{{paging}}};
            option idempotency_level = NO_SIDE_EFFECTS;
          }}
          rpc Stream(StreamRequest) returns (stream StreamResponse) {{
            option (google.api.http) = {{get: "/v1/{{owner}}/things"}};
            option (drawbridge.v1.method).pages = "List";
          }}
        }} {messages}"#
    ))
}

/// The next token of a page.
fn next(world: &World, request: Json, dialect: &str, page: Json) -> Option<String> {
    let paging = world.rpc("List").paging.as_ref().unwrap();
    let request = world.wire("t.ListRequest", request);
    let asked = paging.asked(&request, dialect).unwrap();
    let page = world.wire("t.ListResponse", page);
    let next = paging.next(asked, &page).unwrap();
    let whole = paging.with_next(asked, page.into()).unwrap();
    let whole = world.json("t.ListResponse", &whole);
    assert_eq!(
        whole["nextPageToken"]
            .as_str()
            .or(whole["next_page_token"].as_str()),
        next.as_deref()
    );
    next
}

fn things(ids: &[&str]) -> Json {
    ids.iter().map(|id| json!({"id": id})).collect()
}

#[test]
fn a_marker_is_the_last_items_key() {
    let world = World::new(&lists(
        r#"style: PAGING_STYLE_MARKER items: "things" key: "id" next_links: "links""#,
        MESSAGES,
    ));
    let next_link = json!([{"rel": "self"}, {"rel": "next", "href": "http://elsewhere/"}]);
    for (request, dialect, page, want) in [
        (json!({}), "", json!({"things": things(&["a", "b"])}), None),
        (
            json!({"pageSize": 3}),
            "",
            json!({"things": things(&["a", "b"])}),
            None,
        ),
        (
            json!({"pageSize": 2}),
            "",
            json!({"things": things(&["a", "b"])}),
            Some("b"),
        ),
        (json!({"pageSize": 2}), "", json!({}), None),
        (
            json!({"pageSize": 0}),
            "",
            json!({"things": things(&["a"])}),
            None,
        ),
        // More than asked for: it does not page.
        (
            json!({"pageSize": 1}),
            "",
            json!({"things": things(&["a", "b"])}),
            None,
        ),
        // The size is not sent to this dialect.
        (
            json!({"pageSize": 2}),
            "old",
            json!({"things": things(&["a", "b"])}),
            None,
        ),
        // A server that gives less than was asked for says so.
        (
            json!({"pageSize": 9}),
            "",
            json!({"things": things(&["a"]), "links": next_link}),
            Some("a"),
        ),
        (
            json!({}),
            "",
            json!({"things": things(&["a"]), "links": next_link}),
            Some("a"),
        ),
        (json!({}), "", json!({"links": next_link}), None),
    ] {
        let got = next(&world, request.clone(), dialect, page.clone());
        assert_eq!(got.as_deref(), want, "{request} {dialect} {page}");
    }
    // Without a key there is no way on, and the list is not whole.
    let paging = world.rpc("List").paging.as_ref().unwrap();
    let asked = paging
        .asked(&world.wire("t.ListRequest", json!({"pageSize": 1})), "")
        .unwrap();
    let page = world.wire("t.ListResponse", json!({"things": [{"number": 1}]}));
    assert!(matches!(
        paging.next(asked, &page),
        Err(Error::Decode { .. })
    ));
}

#[test]
fn numbers_can_be_keys() {
    let world = World::new(&lists(
        r#"style: PAGING_STYLE_MARKER items: "things" key: "number""#,
        MESSAGES,
    ));
    let page = json!({"things": [{"number": 7}, {"number": -8}]});
    assert_eq!(
        next(&world, json!({"pageSize": 2}), "", page).as_deref(),
        Some("-8")
    );
}

#[test]
fn offsets_and_pages_are_counted() {
    let offset = World::new(&lists(
        r#"style: PAGING_STYLE_OFFSET items: "things" total: "count""#,
        MESSAGES,
    ));
    let page = World::new(&lists(
        r#"style: PAGING_STYLE_PAGE items: "things" total: "pagination.num_pages""#,
        MESSAGES,
    ));
    let from_zero = World::new(&lists(
        r#"style: PAGING_STYLE_PAGE items: "things" first_page: 0 total: "pagination.num_pages""#,
        MESSAGES,
    ));
    let by_itself = World::new(&lists(
        r#"style: PAGING_STYLE_PAGE items: "things" total: "pagination.num_pages" default_size: 2"#,
        MESSAGES,
    ));
    let two = things(&["a", "b"]);
    let pages = |n: i32| json!({"things": two, "pagination": {"numPages": n.to_string()}});
    for (world, request, page, want) in [
        (
            &offset,
            json!({"pageSize": 2}),
            json!({"things": two}),
            Some("2"),
        ),
        (
            &offset,
            json!({"pageSize": 3}),
            json!({"things": two}),
            None,
        ),
        (
            &offset,
            json!({}),
            json!({"things": two, "count": 5}),
            Some("2"),
        ),
        (
            &offset,
            json!({"pageToken": "2"}),
            json!({"things": two, "count": 5}),
            Some("4"),
        ),
        (
            &offset,
            json!({"pageToken": "3"}),
            json!({"things": two, "count": 5}),
            None,
        ),
        (
            &offset,
            json!({"pageToken": "3"}),
            json!({"count": 5}),
            None,
        ),
        (
            &offset,
            json!({"pageToken": "18446744073709551615", "pageSize": 2}),
            json!({"things": two, "count": 5}),
            None,
        ),
        (&page, json!({}), pages(2), Some("2")),
        (&page, json!({"pageToken": "1"}), pages(2), Some("2")),
        (&page, json!({"pageToken": "2"}), pages(2), None),
        (
            &page,
            json!({"pageSize": 2, "pageToken": "4"}),
            json!({"things": two}),
            Some("5"),
        ),
        (
            &page,
            json!({"pageSize": 3, "pageToken": "4"}),
            json!({"things": two}),
            None,
        ),
        // As many as the API sends by itself, or at most, and no word of more.
        (&by_itself, json!({}), json!({"things": two}), Some("2")),
        (
            &by_itself,
            json!({}),
            json!({"things": things(&["a"])}),
            None,
        ),
        (
            &by_itself,
            json!({}),
            json!({"things": things(&["a", "b", "c"])}),
            None,
        ),
        (&by_itself, json!({}), pages(1), None),
        (
            &by_itself,
            json!({"pageSize": 9, "pageToken": "4"}),
            json!({"things": two}),
            Some("5"),
        ),
        (
            &by_itself,
            json!({"pageSize": 1}),
            json!({"things": two}),
            None,
        ),
        (&from_zero, json!({}), pages(2), Some("1")),
        (&from_zero, json!({"pageToken": "1"}), pages(2), None),
    ] {
        let got = next(world, request.clone(), "", page.clone());
        assert_eq!(got.as_deref(), want, "{request} {page}");
    }
    for token in ["-1", "+1", "1.0", "a", " 1", "99999999999999999999"] {
        for world in [&offset, &page] {
            let paging = world.rpc("List").paging.as_ref().unwrap();
            let request = world.wire("t.ListRequest", json!({"pageToken": token}));
            let error = paging.asked(&request, "").unwrap_err();
            assert_eq!(fault(&error).0, "page_token", "{token}");
        }
    }
}

#[test]
fn streams_ask_page_by_page() {
    let world = World::new(&lists(
        r#"style: PAGING_STYLE_MARKER items: "things" key: "id" default_size: 30"#,
        MESSAGES,
    ));
    let stream = world.rpc("Stream");
    assert!(stream.is_stream());
    assert_eq!(stream.idempotency, Idempotency::NoSideEffects);
    let pages = stream.pages.as_ref().unwrap();
    for (request, want) in [
        (json!({"owner": "o"}), "limit=30"),
        (
            json!({"owner": "o", "pageSize": 5, "pageToken": "a b"}),
            "limit=5&start=a%20b",
        ),
    ] {
        let first = pages
            .first(&world.wire("t.StreamRequest", request))
            .unwrap();
        assert_eq!(stream.bind(&first, "").unwrap().query, want);
        let next = pages.at(&first, "x/y");
        let call = stream.bind(&next, "").unwrap();
        assert_eq!(call.path, "/v1/o/things");
        assert!(call.query.ends_with("&start=x%2Fy"), "{}", call.query);
        assert!(!call.query.contains("a%20b"), "{}", call.query);
    }
    for (size, want) in [(1, 1), (1_000, 1_000), (1_001, 1_000), (i32::MAX, 1_000)] {
        let request = world.wire("t.StreamRequest", json!({"owner": "o", "pageSize": size}));
        let first = pages.first(&request).unwrap();
        let call = stream.bind(&first, "").unwrap();
        assert_eq!(call.query, format!("limit={want}"), "{size}");
    }
    let below = world.wire("t.StreamRequest", json!({"pageSize": -1}));
    assert_eq!(fault(&pages.first(&below).unwrap_err()).0, "page_size");
    let item = world.wire("t.Thing", json!({"id": "a"}));
    let message = pages.message(&item);
    assert_eq!(
        world.json("t.StreamResponse", &message),
        json!({"thing": {"id": "a"}})
    );
}

#[test]
fn paging_that_contradicts_is_reported() {
    let marker = r#"style: PAGING_STYLE_MARKER items: "things" key: "id""#;
    for (paging, messages, option, want) in [
        (
            r#"items: "things""#,
            MESSAGES.to_owned(),
            "paging.style",
            "is missing",
        ),
        (
            r#"style: PAGING_STYLE_MARKER items: "things""#,
            MESSAGES.into(),
            "paging.key",
            "is missing",
        ),
        (
            r#"style: PAGING_STYLE_OFFSET items: "count""#,
            MESSAGES.into(),
            "paging.items",
            "no repeated message",
        ),
        (
            r#"style: PAGING_STYLE_OFFSET items: "things" key: "no""#,
            MESSAGES.into(),
            "paging.key",
            "`no` is no single",
        ),
        (
            r#"style: PAGING_STYLE_OFFSET items: "things" total: "pagination""#,
            MESSAGES.into(),
            "paging.total",
            "no single integer",
        ),
        (
            r#"style: PAGING_STYLE_OFFSET items: "things" total: "links.rel""#,
            MESSAGES.into(),
            "paging.total",
            "no single integer",
        ),
        (
            r#"style: PAGING_STYLE_OFFSET items: "things" first_page: 1"#,
            MESSAGES.into(),
            "paging.first_page",
            "is for PAGE",
        ),
        (
            r#"style: PAGING_STYLE_PAGE items: "things" first_page: -1"#,
            MESSAGES.into(),
            "paging.first_page",
            "negative",
        ),
        (
            r#"style: PAGING_STYLE_PAGE items: "things" default_size: -1"#,
            MESSAGES.into(),
            "paging.default_size",
            "negative",
        ),
        (
            r#"style: PAGING_STYLE_PAGE items: "things" next_links: "links""#,
            MESSAGES.into(),
            "paging.next_links",
            "is for MARKER",
        ),
        (
            &format!(r#"{marker} total: "count""#),
            MESSAGES.into(),
            "paging.total",
            "is for OFFSET and PAGE",
        ),
        (
            &format!(r#"{marker} next_links: "things""#),
            MESSAGES.into(),
            "paging.next_links",
            "a string `rel`",
        ),
        (
            marker,
            MESSAGES.replace(
                "string next_page_token = 9 [(drawbridge.v1.field).gateway_only = true]",
                "string next_page_token = 9",
            ),
            "paging",
            "marked `gateway_only`",
        ),
        (
            marker,
            MESSAGES.replace(
                "message StreamResponse { Thing thing = 5; }",
                "message StreamResponse { Link thing = 5; }",
            ),
            "pages",
            "of the type t.Thing",
        ),
    ] {
        let diagnostics = diagnostics(&lists(paging, &messages));
        let option = format!("(drawbridge.v1.method).{option}");
        assert!(
            diagnostics
                .iter()
                .any(|r| r.option == option && r.problem.contains(want)),
            "{paging}: {}",
            told(&diagnostics)
        );
    }
    let unary = lists(marker, MESSAGES).replace(
        "returns (stream StreamResponse)",
        "returns (StreamResponse)",
    );
    assert!(told(&diagnostics(&unary)).contains("a stream of pages is server-streaming"));
    let none = lists(marker, MESSAGES).replace("pages = \"List\"", "pages = \"Stream\"");
    assert!(told(&diagnostics(&none)).contains("`Stream` is not a unary rpc"));
    let other = lists(marker, MESSAGES).replace(
        r#"option (google.api.http) = {get: "/v1/{owner}/things"};
            option (drawbridge.v1.method).pages"#,
        r#"option (google.api.http) = {get: "/v1/{owner}/others"};
            option (drawbridge.v1.method).pages"#,
    );
    assert!(told(&diagnostics(&other)).contains("the routes must be the same"));
}

/// A thing that is found by name.
fn found(resolve: &str, location: &str, request: &str) -> String {
    proto(&format!(
        r#"service S {{
          rpc Find(FindRequest) returns (FindResponse) {{
            option (google.api.http) = {{get: "/v1/{{project_id}}/things/{{identity}}"}};
            option (drawbridge.v1.method).location = "{location}";
          }}
          rpc Get(GetRequest) returns (Res) {{
            option (google.api.http) = {{get: "/v1/{{project_id}}/things/{{name}}/{{id}}"}};
            option (drawbridge.v1.method).resolve = "{resolve}";
          }}
        }}
        message FindRequest {{ string project_id = 1; string identity = 2 [(google.api.field_behavior) = REQUIRED]; }}
        message FindResponse {{
          option (drawbridge.v1.message).unwrap = "thing";
          string name = 3;
          string id = 4;
          repeated string more = 5;
        }}
        message GetRequest {{ string project_id = 1; string name = 7; string id = 8; {request} }}
        message Res {{}}"#
    ))
}

#[test]
fn path_fields_are_found_out() {
    let world = World::new(&found("Find", "/things/{name}/{id}", ""));
    let get = world.rpc("Get");
    let resolve = get.resolve.as_ref().unwrap();
    for (request, want) in [
        (json!({"name": "n", "id": "i"}), None),
        (
            json!({"project_id": "p", "name": "n"}),
            Some(json!({"project_id": "p", "identity": "n"})),
        ),
        (json!({"id": "i"}), Some(json!({"identity": "i"}))),
    ] {
        let question = resolve
            .question(&world.wire("t.GetRequest", request.clone()))
            .unwrap();
        let question = question.map(|question| world.json("t.FindRequest", &question));
        assert_eq!(question, want, "{request}");
    }
    let none = resolve.question(&world.wire("t.GetRequest", json!({"project_id": "p"})));
    assert_eq!(
        fault(&none.unwrap_err()),
        ("name", "is required: give name or id")
    );
    let long = resolve.question(&world.wire("t.GetRequest", json!({"name": "n".repeat(5_000)})));
    assert_eq!(fault(&long.unwrap_err()).0, "name");

    let request = world.wire(
        "t.GetRequest",
        json!({"project_id": "p", "name": "an alias"}),
    );
    let answer = world.wire("t.FindResponse", json!({"name": "n", "id": "i"}));
    let whole = resolve.answered(&request, &answer).unwrap();
    assert_eq!(get.bind(&whole, "").unwrap().path, "/v1/p/things/n/i");
    let half = world.wire("t.FindResponse", json!({"name": "n"}));
    assert!(
        matches!(resolve.answered(&request, &half), Err(Error::Decode { path, .. }) if path == "id")
    );
}

#[test]
fn locations_and_bodies_answer_alike() {
    let world = World::new(&found("Find", "/things/{name}/{id}", ""));
    let find = world.rpc("Find");
    let reply = |status, location: &'static str, body: &'static str| Reply {
        status: StatusCode::from_u16(status).unwrap(),
        headers: HeaderMap::from_iter([(
            http::header::LOCATION,
            HeaderValue::from_static(location),
        )]),
        body: Bytes::from_static(body.as_bytes()),
        room: Default::default(),
    };
    for reply in [
        reply(302, "http://elsewhere/v1/p/things/n/i", "<html>"),
        reply(301, "/things/n/i?x=y", ""),
        reply(
            200,
            "/things/no/no",
            r#"{"thing": {"name": "n", "id": "i"}}"#,
        ),
    ] {
        let status = reply.status.as_u16();
        assert!(status == 200 || find.also_success.contains(&status));
        let message = find.decode(&reply).unwrap().message;
        let want = json!({"name": "n", "id": "i"});
        assert_eq!(world.json("t.FindResponse", &message), want, "{reply:?}");
    }
    let lost = find.decode(&reply(302, "http://elsewhere/login", ""));
    assert!(matches!(lost, Err(Error::Decode { path, .. }) if path == "Location"));
    assert!(!world.rpc("Get").also_success.contains(&302));
}

#[test]
fn finding_out_that_contradicts_is_reported() {
    for (resolve, location, request, option, want) in [
        ("Find", "things/{name}", "", "location", "is not a path"),
        ("Find", "/things", "", "location", "has no variable"),
        (
            "Find",
            "/things/{no}",
            "",
            "location",
            "`no` is no single string",
        ),
        (
            "Find",
            "/things/{more}",
            "",
            "location",
            "`more` is no single string",
        ),
        (
            "Find",
            "/things/{name}/{name}",
            "",
            "location",
            "`name` is no single string",
        ),
        (
            "Get",
            "/things/{name}/{id}",
            "",
            "resolve",
            "`Get` is not a unary rpc",
        ),
        (
            "No",
            "/things/{name}/{id}",
            "",
            "resolve",
            "`No` is not a unary rpc",
        ),
        (
            "Find",
            "/things/{name}/{id}",
            "string identity = 9;",
            "resolve",
            "no REQUIRED string of its own",
        ),
    ] {
        let diagnostics = diagnostics(&found(resolve, location, request));
        let option = format!("(drawbridge.v1.method).{option}");
        assert!(
            diagnostics
                .iter()
                .any(|r| r.option == option && r.problem.contains(want)),
            "{resolve} {location}: {}",
            told(&diagnostics)
        );
    }
    let required = found("Find", "/things/{name}/{id}", "").replace(
        "string id = 8;",
        "string id = 8 [(google.api.field_behavior) = REQUIRED];",
    );
    assert!(told(&diagnostics(&required)).contains("is not REQUIRED"));
}

#[test]
fn bare_strings_are_values_or_errors() {
    let world = World::new(&proto(
        r#"service S {
          rpc Types(Req) returns (Types) { option (google.api.http) = {get: "/types"}; }
          rpc Check(Req) returns (Checked) { option (google.api.http) = {post: "/check" body: "*"}; }
          rpc Start(Req) returns (Nothing) { option (google.api.http) = {post: "/start"}; }
        }
        message Req {}
        message Types { repeated Type types = 1; }
        message Type {
          option (drawbridge.v1.message).bare_text = "name";
          string name = 1;
          optional string description = 2;
        }
        message Checked {
          option (drawbridge.v1.message).text_is_error = true;
          string description = 1;
        }
        message Nothing {}"#,
    ));
    let reply = |status, body: &'static str| Reply {
        status: StatusCode::from_u16(status).unwrap(),
        headers: HeaderMap::new(),
        body: Bytes::from_static(body.as_bytes()),
        room: Default::default(),
    };
    let types = world
        .rpc("Types")
        .decode(&reply(
            200,
            r#"{"types": ["a\u0062", {"name": "c", "description": "d"}, ""]}"#,
        ))
        .unwrap();
    assert_eq!(
        world.json("t.Types", &types.message),
        json!({"types": [{"name": "ab"}, {"name": "c", "description": "d"}, {}]})
    );
    assert!(
        world
            .rpc("Types")
            .decode(&reply(200, r#"{"types": [5]}"#))
            .is_err()
    );

    let check = world.rpc("Check");
    let refused = check
        .decode(&reply(200, r#" "Invalid codes: \u005b'x'\u005d" "#))
        .unwrap_err();
    assert!(
        matches!(&refused, Error::Refused { problem, .. } if problem == "Invalid codes: ['x']")
    );
    assert!(check.decode(&reply(200, r#"{"description": "d"}"#)).is_ok());
    assert!(matches!(
        check.decode(&reply(200, r#""cut"#)),
        Err(Error::Decode { .. })
    ));

    // What comes with a 202 says nothing; with a 200 it may come from elsewhere.
    let start = world.rpc("Start");
    for body in [
        "<html>",
        "202 Accepted",
        r#"{"code": "202 Accepted"}"#,
        "null",
        "",
    ] {
        assert!(
            start.decode(&reply(202, body)).unwrap().message.is_empty(),
            "{body}"
        );
    }
    assert!(start.decode(&reply(200, "<html>")).is_err());
    assert!(start.decode(&reply(200, "null")).is_ok());
}

#[test]
fn members_of_a_oneof_share_a_name() {
    let world = World::new(&unary(
        r#"option (google.api.http) = {post: "/v1/x" body: "*"};"#,
        r#"message Req {
          oneof template_as {
            string template = 1 [(drawbridge.v1.field).required_in = "strict"];
            google.protobuf.Struct template_json = 2 [(drawbridge.v1.field).name = "template"];
          }
        }
        message Res {}"#,
    ));
    for (request, want) in [
        (
            json!({"template": "a: 1 # why\n"}),
            r##"{"template":"a: 1 # why\n"}"##,
        ),
        (
            json!({"template_json": {"a": 1}}),
            r#"{"template":{"a":1}}"#,
        ),
        (json!({}), "{}"),
    ] {
        assert_eq!(
            body(&world.bind(request.clone()).unwrap()),
            Some(want),
            "{request}"
        );
    }
    // Any of them is what is required.
    assert!(
        world
            .bind_in(json!({"template_json": {}}), "strict")
            .is_ok()
    );
    assert_eq!(
        fault(&world.bind_in(json!({}), "strict").unwrap_err()).0,
        "template"
    );
    let apart = r#"message Req {
          string template = 1;
          google.protobuf.Struct template_json = 2 [(drawbridge.v1.field).name = "template"];
        }
        message Res {}"#;
    let refused = diagnostics(&unary(
        r#"option (google.api.http) = {post: "/v1/x" body: "*"};"#,
        apart,
    ));
    assert!(told(&refused).contains("the name `template` is also that"));
}

/// What stands on a later page would be told as gone.
#[test]
fn a_watch_of_a_list_reads_it_whole() {
    let paging = r#"style: PAGING_STYLE_MARKER items: "things" key: "id""#;
    let watched = lists(paging, MESSAGES).replace(
        "service S {",
        r#"message WatchRequest { string owner = 1; }
        message WatchResponse { drawbridge.v1.WatchEvent event = 1; Thing thing = 2; }
        service S {
          rpc Watch(WatchRequest) returns (stream WatchResponse) {
            option (google.api.http) = {get: "/v1/{owner}/things"};
            option (drawbridge.v1.method).watch = {poll: "List" item: "things" key: "id"};
          }"#,
    );
    let told = told(&diagnostics(&watched));
    assert!(told.contains("watch.poll: comes in pages"), "{told}");
}
