//! `paging` and `pages`.

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

/// Returns what is known after a first page with so many items.
fn after_page(test: &TestContract, request: &Json, items: usize) -> PagesBefore {
    let paging = test.rpc("List").paging.as_ref().unwrap();
    let first = test.wire("t.ListRequest", request.clone());
    let mut before = paging.begin_walk(paging.page_request(&first, "").unwrap());
    let page = test.wire("t.ListResponse", json!({"things": vec![json!({}); items]}));
    paging.add(&mut before, &page).unwrap();
    before
}

#[test]
fn total_of_a_numbered_list_can_count_items() {
    let test = TestContract::new(&lists(
        r#"style: PAGING_STYLE_PAGE items: "things" total: "count" total_counts_items: true
           default_size: 4"#,
        MESSAGES,
    ));
    let paging = test.rpc("List").paging.as_ref().unwrap();
    for (size, page, items, total, before, want, by_total) in [
        (3, 1, 3, 6, None, Some("2"), true),
        (3, 2, 3, 6, None, None, false),
        (3, 2, 3, 7, None, Some("3"), true),
        (3, 3, 1, 7, None, None, false),
        // No size requested: the default.
        (0, 1, 4, 5, None, Some("2"), true),
        (0, 2, 1, 5, None, None, false),
        // No total.
        (3, 2, 3, 0, None, Some("3"), false),
        (3, 2, 2, 0, None, None, false),
        // A limit of 2 items that the option does not name: more pages than by the size.
        (3, 1, 2, 6, None, Some("2"), true),
        (9, 2, 2, 6, None, Some("3"), false),
        (9, 2, 2, 11, None, Some("3"), false),
        (9, 2, 2, 6, Some(2), Some("3"), true),
        (9, 3, 2, 6, Some(4), None, false),
        // A walk from the first page knows how many items came before.
        (9, 3, 1, 5, Some(4), None, false),
        // A page without items, where the total says that more pages follow.
        (3, 2, 0, 9, Some(3), Some("3"), true),
        (3, 2, 0, 9, None, Some("3"), true),
        // One page beyond the last one by the total: a page has no items.
        (3, 2, 0, 6, Some(3), Some("3"), true),
        (3, 2, 0, 6, None, Some("3"), true),
        (3, 3, 0, 6, None, None, false),
        (3, 3, 0, 9, Some(6), Some("4"), true),
        (9, 2, 0, 90, Some(2), Some("3"), true),
    ] {
        let request = json!({"pageSize": size, "pageToken": page.to_string()});
        let asked = paging
            .page_request(&test.wire("t.ListRequest", request), "")
            .unwrap();
        let ids: Vec<Json> = (0..items).map(|id| json!({"id": id.to_string()})).collect();
        let response = test.wire("t.ListResponse", json!({"things": ids, "count": total}));
        let pages_before = match before {
            None => PagesBefore::default(),
            Some(items) => after_page(&test, &json!({"pageSize": size}), items),
        };
        let following = paging.following(asked, &response, &pages_before).unwrap();
        let got = (following.token.as_deref(), following.by_total);
        let case = format!("{size} {page} {items} {total} {before:?}");
        assert_eq!(got, (want, by_total), "{case}");
    }
}

#[test]
fn page_without_items_is_the_last_unless_a_total_says_that_more_follow() {
    let page = r#"style: PAGING_STYLE_PAGE items: "things""#;
    for (rule, total, want) in [
        (page.to_owned(), 0, None),
        (format!(r#"{page} total: "count""#), 0, None),
        (format!(r#"{page} total: "count""#), 2, None),
        (format!(r#"{page} total: "count""#), 3, Some("3")),
        (
            r#"style: PAGING_STYLE_OFFSET items: "things" total: "count""#.into(),
            2,
            None,
        ),
    ] {
        let test = TestContract::new(&lists(&rule, MESSAGES));
        let paging = test.rpc("List").paging.as_ref().unwrap();
        let request = test.wire("t.ListRequest", json!({"pageSize": 3, "pageToken": "2"}));
        let asked = paging.page_request(&request, "").unwrap();
        let response = test.wire("t.ListResponse", json!({"things": [], "count": total}));
        let following = paging.following(asked, &response, &PagesBefore::default());
        let following = following.unwrap();
        let got = (following.token.as_deref(), following.by_total);
        assert_eq!(got, (want, want.is_some()), "{rule} {total}");
    }
}

/// Without a requested or declared size, a total of items does not say how many pages there
/// are.
#[test]
fn pages_of_unknown_size_may_end_before_the_total_shows_it() {
    let rule = r#"style: PAGING_STYLE_PAGE items: "things" total: "count"
        total_counts_items: true"#;
    for (more, want, by_total) in [("", Some("3"), false), (" default_size: 25", None, false)] {
        let test = TestContract::new(&lists(&format!("{rule}{more}"), MESSAGES));
        let paging = test.rpc("List").paging.as_ref().unwrap();
        let request = test.wire("t.ListRequest", json!({"pageToken": "2"}));
        let asked = paging.page_request(&request, "").unwrap();
        let ids: Vec<Json> = (0..15).map(|id| json!({"id": id.to_string()})).collect();
        let response = test.wire("t.ListResponse", json!({"things": ids, "count": 40}));
        let following = paging.following(asked, &response, &PagesBefore::default());
        let following = following.unwrap();
        let got = (following.token.as_deref(), following.by_total);
        assert_eq!(got, (want, by_total), "{more}");
        let before = paging.page_before(&request, asked).unwrap();
        let before = paging.page_request(&before, "").unwrap();
        assert_eq!(paging.page_before(&request, before), None);
        assert!(paging.ends_before(asked, Some(&following)));
        assert_eq!(paging.ends_before(asked, None), more.is_empty());
    }
}

#[test]
fn missing_page_ends_a_numbered_list_or_one_whose_next_page_is_a_guess() {
    let asked = |paging: &str, token: &str| {
        let test = TestContract::new(&lists(paging, MESSAGES));
        let request = json!({"pageSize": 3, "pageToken": token});
        let request = test.wire("t.ListRequest", request);
        let paging = test.rpc("List").paging.as_ref().unwrap();
        let asked = paging.page_request(&request, "").unwrap();
        let said = |by_total, is_guess| Following {
            token: Some("2".into()),
            by_total,
            is_guess,
        };
        [
            None,
            Some(said(false, false)),
            Some(said(true, false)),
            Some(said(false, true)),
        ]
        .map(|following| paging.ends_before(asked, following.as_ref()))
    };
    let page = r#"style: PAGING_STYLE_PAGE items: "things""#;
    let from_zero = format!("{page} first_page: 0");
    let total = format!(r#"{page} total: "count""#);
    for (paging, token, want) in [
        (page, "2", [true, true, false, true]),
        (page, "1", [false; 4]),
        (page, "", [false; 4]),
        (&from_zero, "1", [true, true, false, true]),
        (&from_zero, "0", [false; 4]),
        (&total, "2", [false, true, false, true]),
        (
            r#"style: PAGING_STYLE_OFFSET items: "things""#,
            "2",
            [false, false, false, true],
        ),
        (
            r#"style: PAGING_STYLE_MARKER items: "things" key: "id""#,
            "2",
            [false; 4],
        ),
    ] {
        assert_eq!(asked(paging, token), want, "{paging} {token}");
    }
}

/// Walks a list whose pages have so many items and such a total. Returns the tokens, and the
/// problem if the walk fails.
fn walk(rule: &str, size: i32, pages: &[(usize, i32)]) -> (Vec<String>, Option<String>) {
    let test = TestContract::new(&lists(rule, MESSAGES));
    let paging = test.rpc("List").paging.as_ref().unwrap();
    let first = test.wire("t.ListRequest", json!({"pageSize": size}));
    let mut request = Bytes::from(first);
    let mut before = None;
    let mut tokens = Vec::new();
    let mut id = 0;
    for (count, total) in pages {
        let requested = paging.page_request(&request, "").unwrap();
        let before = before.get_or_insert_with(|| paging.begin_walk(requested));
        let ids: Vec<Json> = (id..id + count)
            .map(|id| json!({"id": id.to_string()}))
            .collect();
        id += count;
        let page = test.wire("t.ListResponse", json!({"things": ids, "count": total}));
        let following = match paging.following(requested, &page, before) {
            Ok(following) => following,
            Err(error) => return (tokens, Some(error.to_string())),
        };
        paging.add(before, &page).unwrap();
        let Some(token) = following.token else {
            return (tokens, None);
        };
        request = paging.at(&request, &token);
        tokens.push(token);
    }
    panic!("{rule} {size} {pages:?}: the walk goes on after {tokens:?}");
}

#[test]
fn list_does_not_end_before_its_total() {
    let offset = r#"style: PAGING_STYLE_OFFSET items: "things" total: "count""#;
    let page = r#"style: PAGING_STYLE_PAGE items: "things" total: "count""#;
    let items = format!("{page} total_counts_items: true");
    for (rule, pages, want, problem) in [
        (offset, &[(3, 9), (3, 9), (3, 9)][..], &["3", "6"][..], ""),
        (offset, &[(3, 9), (3, 9), (0, 9)], &["3", "6"], "6 of 9"),
        (offset, &[(0, 9)], &[], "0 of 9"),
        // The total of the page before, where this one has none.
        (offset, &[(3, 9), (0, 0)], &["3"], "3 of 9"),
        // Items were deleted in between.
        (offset, &[(3, 9), (0, 3)], &["3"], ""),
        // A smaller limit than the requested size.
        (offset, &[(2, 5), (2, 5), (1, 5)], &["2", "4"], ""),
        (page, &[(3, 3), (0, 3), (3, 3)], &["2", "3"], ""),
        (page, &[(3, 3), (0, 0), (3, 3)], &["2", "3"], ""),
        (page, &[(3, 2), (0, 2)], &["2"], ""),
        (&items, &[(3, 6), (0, 6), (3, 6)], &["2", "3"], ""),
        (&items, &[(0, 6), (3, 6), (3, 6)], &["2", "3"], ""),
        (&items, &[(3, 6), (0, 6), (0, 6)], &["2", "3"], "3 of 6"),
        (
            &items,
            &[(3, 9), (0, 9), (0, 9), (3, 9), (3, 9)],
            &["2", "3", "4", "5"],
            "",
        ),
        (&items, &[(3, 9), (0, 3)], &["2"], ""),
    ] {
        let (tokens, end) = walk(rule, 3, pages);
        assert_eq!(tokens, want, "{rule} {pages:?}");
        match end {
            None => assert_eq!(problem, "", "{rule} {pages:?}"),
            Some(text) => assert!(
                !problem.is_empty() && text.contains(problem),
                "{rule} {pages:?}: {text}"
            ),
        }
    }
    // An upstream that names a huge total is not read for ever.
    let (tokens, end) = walk(page, 3, &[(0, i32::MAX); 1_001]);
    assert_eq!(tokens.len(), 1_000);
    assert!(end.unwrap().contains("empty pages"));
    // A link to a next page whose start is not known.
    let marker = r#"style: PAGING_STYLE_MARKER items: "things" key: "id" next_links: "links""#;
    let test = TestContract::new(&lists(marker, MESSAGES));
    let paging = test.rpc("List").paging.as_ref().unwrap();
    let page = test.wire("t.ListResponse", json!({"links": [{"rel": "next"}]}));
    let empty = test.wire("t.ListRequest", json!({"pageSize": 3}));
    // No item is requested: 0 of a field with presence.
    let none = [&empty[..empty.len() - 1], &[0]].concat();
    for (request, fails) in [(&empty, true), (&none, false)] {
        let requested = paging.page_request(request, "").unwrap();
        let following = paging.following(requested, &page, &paging.before(requested));
        match following {
            Err(error) => assert!(fails && error.to_string().contains("link"), "{error}"),
            Ok(following) => assert!(!fails && following.token.is_none()),
        }
    }
}

#[test]
fn page_size_of_the_api_is_that_of_the_first_page() {
    let marker = r#"style: PAGING_STYLE_MARKER items: "things" key: "id""#;
    let offset = r#"style: PAGING_STYLE_OFFSET items: "things""#;
    let page = r#"style: PAGING_STYLE_PAGE items: "things""#;
    let limited = format!("{page} default_size: 2");
    for (rule, counts, want) in [
        // More items than requested.
        (page, &[5, 5, 2][..], &["2", "3"][..]),
        (page, &[5, 5, 0], &["2", "3"]),
        (offset, &[5, 5, 2], &["5", "10"]),
        (marker, &[5, 5, 2], &["4", "9"]),
        (&limited, &[5, 5, 1], &["2", "3"]),
        // Fewer: the limit of the API is not known.
        (page, &[2, 2, 1], &["2", "3"]),
        (offset, &[2, 2, 0], &["2", "4"]),
        (page, &[2, 0], &["2"]),
        (page, &[0], &[]),
        // It is known.
        (marker, &[2], &[]),
        (&limited, &[1], &[]),
        (&limited, &[2, 2, 1], &["2", "3"]),
        // As requested.
        (page, &[3, 3, 2], &["2", "3"]),
        (offset, &[3, 3, 0], &["3", "6"]),
    ] {
        let pages: Vec<_> = counts.iter().map(|count| (*count, 0)).collect();
        let (tokens, end) = walk(rule, 3, &pages);
        assert_eq!(
            (tokens, end),
            (want.iter().map(|t| t.to_string()).collect(), None),
            "{rule} {counts:?}"
        );
    }
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
