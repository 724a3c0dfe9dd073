//! Lists that are walked to their end.

use super::*;

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
