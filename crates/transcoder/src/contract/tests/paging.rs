//! `paging` and `pages`.

mod walk;

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

/// Returns the next token of a page.
fn next(test: &TestContract, request: Json, dialect: &str, page: Json) -> Option<String> {
    let paging = test.rpc("List").paging.as_ref().unwrap();
    let request = test.wire("t.ListRequest", request);
    let asked = paging.page_request(&request, dialect).unwrap();
    let page = test.wire("t.ListResponse", page);
    let next = paging.following(asked, &page, &paging.before(asked));
    let next = next.unwrap().token;
    let whole = paging.with_token(page.into(), next.as_deref());
    let whole = test.json("t.ListResponse", &whole);
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
fn marker_is_the_key_of_the_last_item() {
    let test = TestContract::new(&lists(
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
        // More items than requested: the API has its own page size, or does not page.
        (
            json!({"pageSize": 1}),
            "",
            json!({"things": things(&["a", "b"])}),
            Some("b"),
        ),
        // The dialect does not have the size.
        (
            json!({"pageSize": 2}),
            "old",
            json!({"things": things(&["a", "b"])}),
            None,
        ),
        // An API with a smaller limit has a link to the next page.
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
    ] {
        let got = next(&test, request.clone(), dialect, page.clone());
        assert_eq!(got.as_deref(), want, "{request} {dialect} {page}");
    }
    // Without a key the next page cannot be requested.
    let paging = test.rpc("List").paging.as_ref().unwrap();
    let asked = paging
        .page_request(&test.wire("t.ListRequest", json!({"pageSize": 1})), "")
        .unwrap();
    let page = test.wire("t.ListResponse", json!({"things": [{"number": 1}]}));
    assert!(matches!(
        paging.following(asked, &page, &paging.before(asked)),
        Err(Error::Decode { .. })
    ));
}

#[test]
fn keys_can_be_numbers() {
    let test = TestContract::new(&lists(
        r#"style: PAGING_STYLE_MARKER items: "things" key: "number""#,
        MESSAGES,
    ));
    let page = json!({"things": [{"number": 7}, {"number": -8}]});
    assert_eq!(
        next(&test, json!({"pageSize": 2}), "", page).as_deref(),
        Some("-8")
    );
}

#[test]
fn offsets_and_pages_are_counted() {
    let offset = TestContract::new(&lists(
        r#"style: PAGING_STYLE_OFFSET items: "things" total: "count""#,
        MESSAGES,
    ));
    let page = TestContract::new(&lists(
        r#"style: PAGING_STYLE_PAGE items: "things" total: "pagination.num_pages""#,
        MESSAGES,
    ));
    let from_zero = TestContract::new(&lists(
        r#"style: PAGING_STYLE_PAGE items: "things" first_page: 0 total: "pagination.num_pages""#,
        MESSAGES,
    ));
    let by_itself = TestContract::new(&lists(
        r#"style: PAGING_STYLE_PAGE items: "things" total: "pagination.num_pages" default_size: 2"#,
        MESSAGES,
    ));
    let two = things(&["a", "b"]);
    let pages = |n: i32| json!({"things": two, "pagination": {"numPages": n.to_string()}});
    for (test, request, page, want) in [
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
            json!({"pageToken": "5"}),
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
        // As many items as the API returns by default, or at most, and no total.
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
            Some("2"),
        ),
        (&from_zero, json!({}), pages(2), Some("1")),
        (&from_zero, json!({"pageToken": "1"}), pages(2), None),
    ] {
        let got = next(test, request.clone(), "", page.clone());
        assert_eq!(got.as_deref(), want, "{request} {page}");
    }
    for token in ["-1", "+1", "1.0", "a", " 1", "99999999999999999999"] {
        for test in [&offset, &page] {
            let paging = test.rpc("List").paging.as_ref().unwrap();
            let request = test.wire("t.ListRequest", json!({"pageToken": token}));
            let error = paging.page_request(&request, "").unwrap_err();
            assert_eq!(fault(&error).0, "page_token", "{token}");
        }
    }
}

#[test]
fn streams_request_page_by_page() {
    let test = TestContract::new(&lists(
        r#"style: PAGING_STYLE_MARKER items: "things" key: "id" default_size: 30"#,
        MESSAGES,
    ));
    let stream = test.rpc("Stream");
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
        let first = pages.first(&test.wire("t.StreamRequest", request)).unwrap();
        assert_eq!(stream.bind(&first, "").unwrap().query, want);
        let next = pages.at(&first, "x/y");
        let call = stream.bind(&next, "").unwrap();
        assert_eq!(call.path, "/v1/o/things");
        assert!(call.query.ends_with("&start=x%2Fy"), "{}", call.query);
        assert!(!call.query.contains("a%20b"), "{}", call.query);
    }
    for (size, want) in [(1, 1), (1_000, 1_000), (1_001, 1_000), (i32::MAX, 1_000)] {
        let request = test.wire("t.StreamRequest", json!({"owner": "o", "pageSize": size}));
        let first = pages.first(&request).unwrap();
        let call = stream.bind(&first, "").unwrap();
        assert_eq!(call.query, format!("limit={want}"), "{size}");
    }
    let below = test.wire("t.StreamRequest", json!({"pageSize": -1}));
    assert_eq!(fault(&pages.first(&below).unwrap_err()).0, "page_size");
    let item = test.wire("t.Thing", json!({"id": "a"}));
    let message = pages.message(&item);
    assert_eq!(
        test.json("t.StreamResponse", &message),
        json!({"thing": {"id": "a"}})
    );
}

#[test]
fn contradictory_paging_is_reported() {
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
            "is not a repeated message",
        ),
        (
            r#"style: PAGING_STYLE_OFFSET items: "things" key: "no""#,
            MESSAGES.into(),
            "paging.key",
            "`no` is not a single",
        ),
        (
            r#"style: PAGING_STYLE_OFFSET items: "things" total: "pagination""#,
            MESSAGES.into(),
            "paging.total",
            "not a single integer",
        ),
        (
            r#"style: PAGING_STYLE_OFFSET items: "things" total: "links.rel""#,
            MESSAGES.into(),
            "paging.total",
            "not a single integer",
        ),
        (
            r#"style: PAGING_STYLE_OFFSET items: "things" first_page: 1"#,
            MESSAGES.into(),
            "paging.first_page",
            "is for the style PAGE",
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
            "is for the style MARKER",
        ),
        (
            &format!(r#"{marker} total: "count""#),
            MESSAGES.into(),
            "paging.total",
            "is for the styles OFFSET and PAGE",
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
            printed(&diagnostics)
        );
    }
    let unary = lists(marker, MESSAGES).replace(
        "returns (stream StreamResponse)",
        "returns (StreamResponse)",
    );
    assert!(printed(&diagnostics(&unary)).contains("a stream of pages is server-streaming"));
    let none = lists(marker, MESSAGES).replace("pages = \"List\"", "pages = \"Stream\"");
    assert!(printed(&diagnostics(&none)).contains("`Stream` is not a unary rpc"));
    let other = lists(marker, MESSAGES).replace(
        r#"option (google.api.http) = {get: "/v1/{owner}/things"};
            option (drawbridge.v1.method).pages"#,
        r#"option (google.api.http) = {get: "/v1/{owner}/others"};
            option (drawbridge.v1.method).pages"#,
    );
    assert!(printed(&diagnostics(&other)).contains("the routes must be the same"));
}

/// The watch would report items of later pages as deleted.
#[test]
fn watch_of_a_paged_list_is_reported() {
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
    let told = printed(&diagnostics(&watched));
    assert!(told.contains("watch.poll: has `paging`"), "{told}");
}

#[test]
fn options_of_the_list_hold_in_its_stream() {
    let proto = lists(
        r#"style: PAGING_STYLE_OFFSET items: "things""#,
        &MESSAGES.replace(
            "string page_token = 3 [(drawbridge.v1.field).name = \"start\"];
    }
    message StreamResponse",
            "string page_token = 7 [(drawbridge.v1.field).name = \"start\"];
    }
    message StreamResponse",
        ),
    )
    .replace(
        "option idempotency_level",
        "option (drawbridge.v1.method).constant_query = \"v=1\";
         option (drawbridge.v1.method).absent_in = \"none\";
         option (drawbridge.v1.method).also_success = 404;
         option (drawbridge.v1.method).unverified_in = \"new\";
         option (drawbridge.v1.method).anonymous = true;
         option (drawbridge.v1.method).at_least_one = {fields: [\"owner\", \"page_size\"]};
         option idempotency_level",
    );
    let test = TestContract::new(&proto);
    let stream = test.rpc("Stream");
    let request = json!({"owner": "o", "pageSize": 2, "pageToken": "4"});
    let request = test.wire("t.StreamRequest", request);
    let query = |dialect| stream.bind(&request, dialect).unwrap().query;
    assert_eq!(query(""), "limit=2&start=4&v=1");
    assert_eq!(query("old"), "start=4&v=1", "an option of the list's field");
    assert!(!stream.is_in("none") && stream.is_in("new"));
    assert_eq!(*stream.also_success, [404]);
    assert_eq!(&*stream.unverified_in[0], "new");
    assert!(stream.anonymous);
    let list = stream.pages.as_ref().unwrap().list.paging.as_ref().unwrap();
    let listed = stream.polled_request(&request).unwrap().unwrap();
    let asked = list.page_request(&listed, "").unwrap();
    let page = test.wire("t.ListResponse", json!({"things": things(&["a", "b"])}));
    let following = list.following(asked, &page, &list.before(asked)).unwrap();
    assert_eq!(following.token.as_deref(), Some("6"));
}

#[test]
fn negative_page_size_is_rejected() {
    for style in ["MARKER", "OFFSET", "PAGE"] {
        let rule = format!(r#"style: PAGING_STYLE_{style} items: "things" key: "id""#);
        let test = TestContract::new(&lists(&rule, MESSAGES));
        let paging = test.rpc("List").paging.as_ref().unwrap();
        // The dialect `old` does not have the parameter.
        for (size, dialect) in [(-1, ""), (i32::MIN, ""), (-1, "old")] {
            let request = test.wire("t.ListRequest", json!({"pageSize": size}));
            let error = paging.page_request(&request, dialect).unwrap_err();
            assert_eq!(fault(&error).0, "page_size", "{style} {size} {dialect}");
        }
    }
}
