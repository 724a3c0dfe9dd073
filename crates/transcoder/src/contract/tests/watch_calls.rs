//! Further calls of a watch: `start`, `find`, `side_read`, `fallback`.

use super::test_contract::{DO, FIND, STARTED, jobs};
use super::*;

fn watch<'t>(test: &'t TestContract, path: &str) -> &'t Watch {
    let method = test.contract.method(path).unwrap();
    method.watch.as_ref().unwrap()
}

#[test]
fn started_call_fills_the_poll_request() {
    let test = TestContract::new(&jobs(DO, STARTED));
    let method = test.contract.method("/t.AddonService/DoAndWatch").unwrap();
    assert_eq!(method.idempotency, Idempotency::NonIdempotent);
    let watch = watch(&test, "/t.AddonService/DoAndWatch");
    let start = watch.start.as_ref().unwrap();
    assert_eq!(&*start.rpc.name, "Do");
    let asked = json!({"p": "p1", "addon": "a", "action": "go"});
    let request = test.wire("t.DoWatchReq", asked.clone());
    let call = start.request(&request).unwrap();
    assert_eq!(test.json("t.DoReq", &call), asked);
    for (response, want) in [
        (
            json!({"jobId": "j1"}),
            Some(json!({"p": "p1", "job_id": "j1"})),
        ),
        (json!({}), None),
    ] {
        let response = test.wire("t.DoRes", response);
        let poll = start.poll_request(&request, &response);
        assert_eq!(poll.map(|poll| test.json("t.JobReq", &poll)), want);
    }
    let started = test.wire("t.DoRes", json!({"jobId": "j1"}));
    let event = WatchEvent {
        r#type: crate::api::drawbridge::v1::WatchEventType::Started.into(),
        ..Default::default()
    };
    let message = watch.started_message(&event, &started);
    assert_eq!(
        test.json("t.WatchRes", &message),
        json!({"event": {"type": "WATCH_EVENT_TYPE_STARTED"}, "started": {"job_id": "j1"}})
    );
}

#[test]
fn ids_are_extracted_from_urls_and_lists() {
    let test = TestContract::new(&jobs(FIND, "DoRes begun = 9;"));
    let start = watch(&test, "/t.AddonService/DoAndWatch")
        .start
        .as_ref()
        .unwrap();
    let find = start.find.as_ref().unwrap();
    let request = test.wire("t.DoWatchReq", json!({"p": "p1"}));
    for (urls, poll, list) in [
        (
            json!(["http://h/groups/3", "http://h/jobs/j%201"]),
            Some("j 1"),
            Some("3"),
        ),
        (json!("http://h/jobs/7"), Some("7"), None),
        (
            json!([{"href": "/x"}, {"href": "/groups/5?a=b"}]),
            None,
            Some("5"),
        ),
        // Not a number, which the field needs.
        (json!(["/groups/five"]), None, None),
        (json!(null), None, None),
    ] {
        let started = test.wire("t.DoRes", json!({ "urls": urls }));
        let got = start.poll_request(&request, &started);
        let got = got.map(|poll| test.json("t.JobReq", &poll)["job_id"].clone());
        assert_eq!(got, poll.map(|id| json!(id)), "{urls}");
        let got = find.request(&request, &started);
        let got = got.map(|request| test.json("t.JobsReq", &request)["group"].clone());
        assert_eq!(got, list.map(|id| json!(id)), "{urls}");
    }
    for (jobs, want) in [
        (json!([]), None),
        (json!([{}, {"uuid": "b"}, {"uuid": "c"}]), Some("b")),
    ] {
        let list = Bytes::from(test.wire("t.JobsRes", json!({ "jobs": jobs })));
        let poll = find.poll_request(&request, &list).unwrap();
        let poll = poll.map(|poll| test.json("t.JobReq", &poll));
        assert_eq!(poll, want.map(|id| json!({"p": "p1", "job_id": id})));
    }
}

#[test]
fn side_reads_and_fallback_fill_their_fields() {
    let test = TestContract::new(&jobs(DO, STARTED));
    let watch = watch(&test, "/t.S/Watch");
    let request = test.wire(
        "t.WatchJobReq",
        json!({"p": "p1", "jobId": "name", "addon": "a", "depth": 2}),
    );
    let poll = watch.poll_request(&request).unwrap();
    assert_eq!(
        test.json("t.JobReq", &poll),
        json!({"p": "p1", "job_id": "name"})
    );
    let light = watch.light_request(&poll).unwrap();
    assert_eq!(
        test.json("t.JobReq", &light),
        json!({"p": "p1", "job_id": "name", "full": false})
    );
    let item = test.wire("t.Job", json!({"uuid": "u1", "state": "BUSY"}));
    let [steps, progress] = &watch.side_reads[..] else {
        panic!("two side reads");
    };
    assert!(!steps.is_enabled(&request) && progress.is_enabled(&request));
    let asks = test.wire("t.WatchJobReq", json!({"steps": true}));
    assert!(steps.is_enabled(&asks));
    let beside = steps.request(&item, &poll, &request).unwrap();
    assert_eq!(
        test.json("t.StepsReq", &beside),
        json!({"p": "p1", "filter": {"job": "u1"}, "depth": 2})
    );
    for (state, want) in [("BUSY", true), ("OK", false)] {
        let item = test.wire("t.Job", json!({ "state": state }));
        assert!(watch.makes_side_read(steps, &item));
        assert_eq!(watch.makes_side_read(progress, &item), want, "{state}");
    }
    let response = Bytes::from(test.wire(
        "t.StepsRes",
        json!({"steps": [
            {"name": "1", "state": "OK"}, {"name": "2", "state": "BUSY"},
            {"name": "3", "state": "OK"}, {"name": "4"}
        ]}),
    ));
    let told = [
        steps.stream_fields(&response).unwrap(),
        progress.stream_fields(&response).unwrap(),
    ]
    .concat();
    let message = watch.message(&WatchEvent::default(), Some(&item), &told);
    let message = test.json("t.WatchJobRes", &message);
    assert_eq!(message["steps"].as_array().map(Vec::len), Some(4));
    assert_eq!(message["progress"], json!({"OK": 2, "BUSY": 1}));
    assert_eq!(message["job"]["uuid"], "u1");

    let fallback = watch.fallback.as_ref().unwrap();
    assert!(fallback.not_found_succeeds && !fallback.is_final && fallback.after == 3);
    let instead = fallback.request(&[], &poll, &request).unwrap();
    assert_eq!(
        test.json("t.AddonReq", &instead),
        json!({"p": "p1", "addon": "a"})
    );
    let without = test.wire("t.WatchJobReq", json!({"p": "p1", "jobId": "j"}));
    assert_eq!(fallback.request(&[], &poll, &without), None);
    for (addon, same, outcome) in [
        (
            json!({"jobId": "name", "state": "OK"}),
            true,
            Outcome::Succeeded,
        ),
        (
            json!({"jobId": "other", "state": "OK"}),
            false,
            Outcome::Succeeded,
        ),
        (json!({}), false, Outcome::Pending),
    ] {
        let response = Bytes::from(test.wire("t.Addon", addon));
        let found = fallback.found(&response, &poll).unwrap().unwrap();
        assert_eq!((found.matches, found.outcome), (same, outcome));
        assert_eq!(found.item, response);
    }
}

#[test]
fn final_after_and_not_found_depend_on_the_state() {
    let test = TestContract::new(&jobs(DO, STARTED));
    let watch = watch(&test, "/t.S/Watch");
    for (item, held, gone_well) in [
        (json!({"state": "BAD"}), Some((0, 10, 1)), false),
        (json!({"state": "BAD", "sticky": true}), None, false),
        (
            json!({"state": "LOST", "sticky": true}),
            Some((1, 0, 3)),
            false,
        ),
        (json!({"state": "OK"}), None, false),
        (json!({"state": "LEAVING"}), None, true),
        (json!({}), None, false),
    ] {
        let wire = test.wire("t.Job", item.clone());
        let got = watch
            .debounce_rule(&wire)
            .map(|held| (held.rule.unwrap(), held.time.as_secs(), held.polls));
        assert_eq!(got, held, "{item}");
        assert_eq!(watch.not_found_succeeds_after(&wire), gone_well, "{item}");
    }
}

#[test]
fn shared_watch_key_has_the_fields_of_further_calls() {
    let test = TestContract::new(&jobs(DO, STARTED));
    let watch = watch(&test, "/t.S/Watch");
    let aside = |request: Json| {
        let wire = test.wire("t.WatchJobReq", request);
        watch.further_call_fields(&wire).unwrap()
    };
    let plain = aside(json!({"p": "p1", "jobId": "j", "other": true}));
    assert!(plain.is_empty(), "neither sent fields nor those of no call");
    let mut all = vec![plain];
    for request in [
        json!({"addon": "a"}),
        json!({"addon": "b"}),
        json!({"steps": true}),
        json!({"depth": 1}),
    ] {
        let one = aside(request);
        assert!(!all.contains(&one));
        all.push(one);
    }
}

#[test]
fn contradictory_watch_calls_are_reported() {
    let plain =
        r#"poll: "S.GetJob" item: "job" start: {call: "Do" bind: {from: "job_id" to: "job_id"}}"#;
    let with = |more: &str| format!("{plain} {more}");
    let start = |start: &str| format!(r#"poll: "S.GetJob" item: "job" start: {{{start}}}"#);
    let side = |side: &str| with(&format!("side_read: {{{side}}}"));
    let fallback = |rule: &str| with(&format!("fallback: {{{rule}}}"));
    let take = r#"bind: {from: "uuid" to: "filter.job"}"#;
    for (rules, response, option, want) in [
        (
            r#"poll: "GetJob" item: "job""#.to_owned(),
            "",
            "watch.poll",
            "`GetJob` is not a unary rpc of this service or package",
        ),
        (
            r#"poll: "S.GetJob" item: "job""#.to_owned(),
            "",
            "watch.poll",
            "the routes must be the same",
        ),
        (
            start(r#"call: "Nope""#),
            STARTED,
            "watch.start.call",
            "`Nope` is not a unary rpc",
        ),
        (
            start(r#"call: "GetAddon""#),
            STARTED,
            "watch.start.call",
            "the routes must be the same",
        ),
        (
            start(r#"call: "Do""#),
            STARTED,
            "watch.start.bind",
            "nothing sets its field `job_id`",
        ),
        (
            plain.to_owned(),
            "",
            "watch.start.field",
            "has no field `started`",
        ),
        (
            plain.to_owned(),
            "Job started = 3;",
            "watch.start.field",
            "`started` of t.WatchRes must be a single t.DoRes",
        ),
        (
            plain.to_owned(),
            "DoRes started = 3; DoRes x = 4;",
            "watch",
            "must have two fields besides the named ones",
        ),
        (
            start(r#"call: "Do" bind: {from: "nope" to: "job_id"}"#),
            STARTED,
            "watch.start.bind",
            "t.DoRes has no field `nope`",
        ),
        (
            start(r#"call: "Do" bind: {from: "urls" to: "job_id"}"#),
            STARTED,
            "watch.start.bind",
            "set `pattern`",
        ),
        (
            start(r#"call: "Do" bind: {from: "urls" pattern: "x" to: "job_id"}"#),
            STARTED,
            "watch.start.bind",
            "must have one `{}`",
        ),
        (
            start(r#"call: "Do" bind: {from: "job_id" value: "x" to: "job_id"}"#),
            STARTED,
            "watch.start.bind",
            "exactly one of",
        ),
        (
            start(r#"call: "Do" bind: {poll: "p" to: "job_id"}"#),
            STARTED,
            "watch.start.bind",
            "the poll has no request yet",
        ),
        (
            start(r#"call: "Do" bind: {value: "maybe" to: "full"}"#),
            STARTED,
            "watch.start.bind",
            "`maybe` is not a value of `full`",
        ),
        (
            start(r#"call: "Do" bind: {value: "x" pattern: "/{}" to: "job_id"}"#),
            STARTED,
            "watch.start.bind",
            "a pattern needs `from`",
        ),
        (
            start(r#"call: "Do" bind: {request: "p" to: "full"}"#),
            STARTED,
            "watch.start.bind",
            "of another type",
        ),
        (
            start(r#"call: "Do" bind: {from: "job_id" to: "job_id"} find: {call: "S.ListJobs"}"#),
            STARTED,
            "watch.start.find.item",
            "must name a list",
        ),
        (
            start(
                r#"call: "Do" bind: {from: "job_id" to: "job_id"} find: {call: "S.ListJobs" item: "no"}"#,
            ),
            STARTED,
            "watch.start.find.item",
            "t.JobsRes has no field `no`",
        ),
        (
            side(r#"call: "Invoke" field: "started""#),
            STARTED,
            "watch",
            "named twice",
        ),
        (
            side(&format!(r#"call: "Invoke" field: "x" {take}"#)),
            "DoRes started = 3; DoRes x = 4;",
            "watch.side_read.call",
            "is an action",
        ),
        (
            side(r#"call: "S.ListSteps" item: "name" field: "x""#),
            "DoRes started = 3; Step x = 4;",
            "watch.side_read.item",
            "must be a message or a list",
        ),
        (
            side(r#"call: "S.ListSteps" item: "steps" field: "x""#),
            "DoRes started = 3; Step x = 4;",
            "watch.side_read.field",
            "must be of the type of `steps`",
        ),
        (
            side(r#"call: "S.ListSteps" item: "steps" field: "x" count_by: "state""#),
            "DoRes started = 3; map<string, string> x = 4;",
            "watch.side_read.field",
            "must be a map<string, int32>",
        ),
        (
            side(r#"call: "S.ListSteps" field: "x" count_by: "name""#),
            "DoRes started = 3; map<string, int32> x = 4;",
            "watch.side_read.count_by",
            "is for lists",
        ),
        (
            side(r#"call: "S.ListJobs" item: "jobs" field: "x" count_by: "more""#),
            "DoRes started = 3; map<string, int32> x = 4;",
            "watch.side_read.count_by",
            "`more` must be a single string, enum or bool",
        ),
        (
            side(r#"call: "S.ListSteps" item: "steps" field: "x" count_by: "no""#),
            "DoRes started = 3; map<string, int32> x = 4;",
            "watch.side_read.count_by",
            "t.Step has no field `no`",
        ),
        (
            side(r#"call: "S.ListSteps" item: "steps" field: "x" when: "p""#),
            "DoRes started = 3; repeated Step x = 4;",
            "watch.side_read.when",
            "must be a single bool",
        ),
        (
            side(r#"call: "S.ListSteps" item: "steps" field: "x" states: "A""#),
            "DoRes started = 3; repeated Step x = 4;",
            "watch.side_read.states",
            "has no `state`",
        ),
        (
            with(r#"not_found_succeeds_after: "A""#),
            STARTED,
            "watch.not_found_succeeds_after",
            "has no `state`",
        ),
        (
            with(r#"state: "state" not_found_succeeds_after: "A" on_not_found: ON_NOT_FOUND_SUCCEED"#),
            STARTED,
            "watch.not_found_succeeds_after",
            "has no effect with",
        ),
        (
            with(r#"final_after: {states: "A" polls: 2}"#),
            STARTED,
            "watch.final_after",
            "has no `state`",
        ),
        (
            with(r#"state: "state" succeeded: "A" final_after: {states: "B" polls: 2}"#),
            STARTED,
            "watch.final_after.states",
            "must name states of",
        ),
        (
            with(r#"state: "state" succeeded: "A" final_after: {states: "A"}"#),
            STARTED,
            "watch.final_after",
            "has no effect",
        ),
        (
            with(r#"state: "state" succeeded: "A" final_after: {states: "A" polls: -2}"#),
            STARTED,
            "watch.final_after.polls",
            "must be 1 to 1000",
        ),
        (
            with(r#"state: "state" succeeded: "A" final_after: {states: "A" duration: {seconds: -1}}"#),
            STARTED,
            "watch.final_after.duration",
            "must be 0 to 1 day",
        ),
        (
            with(r#"state: "state" succeeded: "A" final_after: {states: "A" polls: 2 value: "x"}"#),
            STARTED,
            "watch.final_after.field",
            "is missing",
        ),
        (
            with(r#"state: "state" succeeded: "A" final_after: {states: "A" polls: 2 field: "more"}"#),
            STARTED,
            "watch.final_after.field",
            "must be a single value",
        ),
        (
            with(r#"state: "state" succeeded: "A" final_after: {states: "A" polls: 2 field: "no"}"#),
            STARTED,
            "watch.final_after.field",
            "t.Job has no field `no`",
        ),
        (
            with(r#"set_when_final: "nope""#),
            STARTED,
            "watch.set_when_final",
            "t.JobReq has no field `nope`",
        ),
        (
            with(r#"set_when_final: "p""#),
            STARTED,
            "watch.set_when_final",
            "must be a single bool",
        ),
        (
            fallback(
                r#"call: "GetAddon" field: "addon" bind: {poll: "job_id" to: "addon"} state: "nope" succeeded: "A""#,
            ),
            "DoRes started = 3; Addon addon = 4;",
            "watch.fallback.state",
            "has no field `nope`",
        ),
        (
            fallback(
                r#"call: "GetAddon" item: "no" field: "addon" bind: {poll: "job_id" to: "addon"}"#,
            ),
            "DoRes started = 3; Addon addon = 4;",
            "watch.fallback.item",
            "t.Addon has no field `no`",
        ),
        (
            fallback(
                r#"call: "S.ListJobs" field: "x" bind: {poll: "p" to: "p"} must_match: {item: "jobs" poll: "p"}"#,
            ),
            "DoRes started = 3; JobsRes x = 4;",
            "watch.fallback.must_match",
            "`jobs` must be a single value",
        ),
        (
            fallback(r#"call: "GetAddon" field: "addon""#),
            "DoRes started = 3; Addon addon = 4;",
            "watch.fallback.bind",
            "nothing sets its field `addon`",
        ),
        (
            fallback(
                r#"call: "GetAddon" field: "addon" bind: {poll: "job_id" to: "addon"} after: -1"#,
            ),
            "DoRes started = 3; Addon addon = 4;",
            "watch.fallback.after",
            "must be 1 to 100",
        ),
        (
            fallback(
                r#"call: "GetAddon" field: "addon" bind: {poll: "job_id" to: "addon"} must_match: {item: "state"}"#,
            ),
            "DoRes started = 3; Addon addon = 4;",
            "watch.fallback.must_match",
            "t.JobReq has no field `state`",
        ),
        (
            fallback(
                r#"call: "GetAddon" field: "addon" bind: {poll: "job_id" to: "addon"} is_final: true on_not_found: ON_NOT_FOUND_SUCCEED"#,
            ),
            "DoRes started = 3; Addon addon = 4;",
            "watch.fallback.on_not_found",
            "has no effect with `is_final`",
        ),
        (
            fallback(
                r#"call: "GetAddon" field: "addon" bind: {poll: "job_id" to: "addon"} not_found_succeeds_after: "LEAVING""#,
            ),
            "DoRes started = 3; Addon addon = 4;",
            "watch.fallback.not_found_succeeds_after",
            "the fallback has no `state`",
        ),
        (
            fallback(
                r#"call: "GetAddon" field: "addon" bind: {poll: "job_id" to: "addon"} state: "state" not_found_succeeds_after: "A" is_final: true"#,
            ),
            "DoRes started = 3; Addon addon = 4;",
            "watch.fallback.not_found_succeeds_after",
            "has no effect with `is_final`",
        ),
        (
            fallback(
                r#"call: "GetAddon" field: "addon" bind: {poll: "job_id" to: "addon"} state: "state" not_found_succeeds_after: "A" on_not_found: ON_NOT_FOUND_SUCCEED"#,
            ),
            "DoRes started = 3; Addon addon = 4;",
            "watch.fallback.not_found_succeeds_after",
            "has no effect with ON_NOT_FOUND_SUCCEED",
        ),
        (
            r#"poll: "S.ListJobs" item: "jobs" key: "uuid" set_when_final: "x" start: {call: "Do"}"#
                .to_owned(),
            STARTED,
            "watch.set_when_final",
            "but `item` is a list",
        ),
    ] {
        let bytes = descriptors(&jobs(&rules, response));
        let source = Source::new("t.binpb", bytes);
        let diagnostics = Contract::compile(vec![source], &super::families).unwrap_err();
        let place = (
            "t.AddonService.DoAndWatch",
            format!("(drawbridge.v1.method).{option}"),
        );
        assert!(
            diagnostics.iter().any(
                |r| (&*r.element, &r.option) == (place.0, &place.1) && r.problem.contains(want)
            ),
            "{rules}\nwanted {option}: {want}\n{}",
            printed(&diagnostics)
        );
    }
}

#[test]
fn member_order_does_not_change_the_canonical_message() {
    let test = TestContract::new(&jobs(DO, STARTED));
    let watch = watch(&test, "/t.S/Watch");
    // uuid, then two entries of `more`; and in the other order.
    let (a, b) = (b"\x22\x06\x0a\x01a\x12\x01x", b"\x22\x06\x0a\x01b\x12\x01y");
    let uuid = b"\x0a\x02u1";
    let one = [&uuid[..], a, b].concat();
    let same = |other: &[u8], beside: &[u8]| {
        watch.canonical(Some(&one), b"") == watch.canonical(Some(other), beside)
    };
    assert!(same(&[&b[..], a, uuid].concat(), b""));
    assert!(!same(&[&uuid[..], a].concat(), b""));
    assert!(!same(&[&uuid[..], a, a].concat(), b""));
    assert!(!same(&one, b"\x2a\x00"));
    // Lists keep their order: two steps of a side read.
    let (a, b) = (b"\x1a\x03\x0a\x01a", b"\x1a\x03\x0a\x01b");
    let beside = |told: [&[u8]; 2]| watch.canonical(None, &told.concat());
    assert_ne!(beside([a, b]), beside([b, a]));
    // An unreadable message equals only itself.
    assert!(!same(b"\x0a\x05", b""));
}

#[test]
fn find_needs_no_bindings_of_the_start() {
    let rules = r#"poll: "S.GetJob" item: "job" start: {
        call: "Do" field: "begun"
        find: {
          call: "S.ListJobs" item: "jobs" bind: {from: "number" to: "group"}
          bind_poll: {from: "uuid" to: "job_id"}
        }}"#;
    let test = TestContract::new(&jobs(rules, "DoRes begun = 9;"));
    let path = "/t.AddonService/DoAndWatch";
    let watch = test.contract.method(path).unwrap().watch.as_ref().unwrap();
    let start = watch.start.as_ref().unwrap();
    let request = test.wire("t.DoWatchReq", json!({"p": "p1", "addon": "a"}));
    let response = test.wire("t.DoRes", json!({"jobId": "j", "number": "7"}));
    assert!(start.poll_request(&request, &response).is_none());
    let find = start.find.as_ref().unwrap();
    let list = find.request(&request, &response).unwrap();
    assert_eq!(find.rpc.bind(&list, "").unwrap().query, "group=7");
}
