//! Watches: items, states and messages.

use super::*;
use crate::api::drawbridge::v1::WatchEventType;

fn test(rules: &str) -> TestContract {
    TestContract::new(&world_proto(rules))
}

fn world_proto(rules: &str) -> String {
    proto(&format!(
        r#"
        service S {{
          rpc Watch(WatchReq) returns (stream WatchRes) {{
            option (google.api.http) = {{get: "/v1/{{p}}/{{group}}/things"}};
            option (drawbridge.v1.method).watch = {{ poll: "List" {rules} }};
          }}
          rpc List(ListReq) returns (ListRes) {{
            option (google.api.http) = {{get: "/v1/{{p}}/{{group}}/things"}};
            option idempotency_level = NO_SIDE_EFFECTS;
          }}
          rpc Get(GetReq) returns (GetRes) {{
            option (google.api.http) = {{get: "/v1/{{p}}/{{group}}/things/{{thing}}"}};
            option idempotency_level = IDEMPOTENT;
          }}
        }}
        message ListReq {{
          string p = 1 [(drawbridge.v1.field).upstream_value = "project_id"];
          string group = 2 [(google.api.field_behavior) = REQUIRED];
          string q = 3;
        }}
        message ListRes {{ repeated Thing things = 1; Thing one = 2; }}
        message GetReq {{
          string group = 7 [(google.api.field_behavior) = REQUIRED];
          string thing = 8 [(google.api.field_behavior) = REQUIRED];
          string p = 9 [(drawbridge.v1.field).upstream_value = "project_id"];
        }}
        message GetRes {{ Thing thing = 4; }}
        message Thing {{
          string id = 1;
          State state = 2;
          string state_raw = 3 [(drawbridge.v1.field).raw_of = "state"];
          Inner inner = 4;
          int64 number = 5;
          repeated string names = 6;
        }}
        message Inner {{ string state = 1; }}
        enum State {{
          STATE_UNSPECIFIED = 0;
          STATE_BUSY = 1;
          STATE_DONE = 2 [(drawbridge.v1.enum_value) = {{name: "done" aliases: "finished"}}];
          STATE_LOST = 3;
        }}
        message WatchReq {{
          string p = 1 [(drawbridge.v1.field).upstream_value = "project_id"];
          string group = 2 [(google.api.field_behavior) = REQUIRED];
          string q = 3;
          bool follow = 4 [(drawbridge.v1.field).gateway_only = true];
        }}
        message WatchRes {{ Thing thing = 3; drawbridge.v1.WatchEvent event = 5; }}"#
    ))
}

const LIST: &str = "item: \"things\" key: \"id\" state: \"state\" succeeded: \"done\"
    failed: \"LOST\" refresh: \"Get\" follow: \"follow\"";

fn watch(test: &TestContract) -> &Watch {
    test.rpc("Watch").watch.as_ref().unwrap()
}

#[test]
fn watch_rules_compile_with_defaults() {
    let secs = Duration::from_secs;
    for (rules, first, max) in [
        ("", secs(1), secs(10)),
        ("initial_interval: {seconds: 30}", secs(30), secs(30)),
        (
            "max_interval: {nanos: 500000000}",
            Duration::from_millis(500),
            Duration::from_millis(500),
        ),
        (
            "initial_interval: {seconds: 2} max_interval: {seconds: 60}",
            secs(2),
            secs(60),
        ),
    ] {
        let test = test(&format!("item: \"one\" {rules}"));
        let watch = watch(&test);
        assert_eq!(
            (watch.initial_interval, watch.max_interval),
            (first, max),
            "{rules}"
        );
        assert!(!watch.list && !watch.not_found_succeeds && watch.refresh.is_none());
    }
    let test = test(&format!("{LIST} on_not_found: ON_NOT_FOUND_SUCCEED"));
    let watch = watch(&test);
    assert!(watch.list && watch.not_found_succeeds);
    assert_eq!(&*watch.poll.name, "List");
    assert_eq!(watch.refresh.as_ref().map(|rpc| &*rpc.name), Some("Get"));
    // The calls of a watch are its polls, whose replies it decodes.
    let method = test.rpc("Watch");
    assert_eq!(method.idempotency, Idempotency::NoSideEffects);
    let wire = test.wire(
        "t.WatchReq",
        json!({"group": "g", "q": "x", "follow": true}),
    );
    let call = method.bind(&wire, "").unwrap();
    assert_eq!((&*call.path, &*call.query), ("/v1//g/things", "q=x"));
    assert_eq!(call.idempotency, Idempotency::NoSideEffects);
    assert!(watch.follows(&wire));
    assert!(!watch.follows(&test.wire("t.WatchReq", json!({"group": "g"}))));
    assert!(!watch.follows(b"\x20"));
}

#[test]
fn items_are_slices_of_the_response() {
    let test = test(LIST);
    let things = json!({"things": [{"id": "a"}, {}, {"id": "b", "state": "STATE_DONE"}]});
    let response = Bytes::from(test.wire("t.ListRes", things));
    let items = watch(&test).items(&response).unwrap();
    let told: Vec<Json> = items
        .iter()
        .map(|item| test.json("t.Thing", item))
        .collect();
    assert_eq!(
        told,
        [
            json!({"id": "a"}),
            json!({}),
            json!({"id": "b", "state": "STATE_DONE"})
        ]
    );
    let range = response.as_ptr_range();
    assert!(range.contains(&items[0].as_ptr()) && range.contains(&items[2].as_ptr()));
    assert!(watch(&test).items(&Bytes::new()).unwrap().is_empty());
    let broken = watch(&test)
        .items(&Bytes::from_static(b"\x0a\x05"))
        .unwrap_err();
    assert!(matches!(broken, Error::Decode { path, .. } if path == "things"));

    let test = self::test("item: \"one\"");
    let response = Bytes::from(test.wire("t.ListRes", json!({"one": {"id": "a"}})));
    let items = watch(&test).items(&response).unwrap();
    assert_eq!(test.json("t.Thing", &items[0]), json!({"id": "a"}));
    // Parts of a message are joined.
    let items = watch(&test)
        .items(&Bytes::from_static(b"\x12\x03\x0a\x01a\x12\x02\x10\x01"))
        .unwrap();
    assert_eq!(
        test.json("t.Thing", &items[0]),
        json!({"id": "a", "state": "STATE_BUSY"})
    );
    let error = watch(&test).items(&Bytes::new()).unwrap_err();
    let Error::Decode { path, problem, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(
        (&*path, &*problem),
        ("", "`one` is missing: it is the watched resource")
    );
}

#[test]
fn response_itself_can_be_the_item() {
    let proto = proto(
        r#"service S {
             rpc Watch(Req) returns (stream WatchRes) {
               option (google.api.http) = {get: "/x"};
               option (drawbridge.v1.method).watch =
                 {poll: "Get" state: "job.inner.state" succeeded: "ok" failed: "bad"};
             }
             rpc Get(Req) returns (GetRes) { option (google.api.http) = {get: "/x"}; }
           }
           message Req {}
           message GetRes { Job job = 1; }
           message Job { Inner inner = 1; }
           message Inner { string state = 1; }
           message WatchRes { drawbridge.v1.WatchEvent event = 1; GetRes snapshot = 2; }"#,
    );
    let test = TestContract::new(&proto);
    let watch = watch(&test);
    for (response, want, text) in [
        (json!({}), Outcome::Pending, None),
        (json!({"job": {}}), Outcome::Pending, None),
        (
            json!({"job": {"inner": {"state": "new"}}}),
            Outcome::Pending,
            Some("new"),
        ),
        (
            json!({"job": {"inner": {"state": "ok"}}}),
            Outcome::Succeeded,
            Some("ok"),
        ),
        (
            json!({"job": {"inner": {"state": "bad"}}}),
            Outcome::Failed,
            Some("bad"),
        ),
    ] {
        let bytes = Bytes::from(test.wire("t.GetRes", response.clone()));
        assert_eq!(watch.items(&bytes).unwrap(), vec![bytes.clone()]);
        assert_eq!(watch.outcome(&bytes), want, "{response}");
        assert_eq!(watch.state_text(&bytes).as_deref(), text, "{response}");
    }
}

#[test]
fn outcome_follows_the_rest_text_of_the_state() {
    let test = test(LIST);
    let watch = watch(&test);
    for (item, want, text) in [
        (json!({}), Outcome::Pending, None),
        (
            json!({"state": "STATE_BUSY"}),
            Outcome::Pending,
            Some("BUSY"),
        ),
        (
            json!({"state": "STATE_DONE"}),
            Outcome::Succeeded,
            Some("done"),
        ),
        (
            json!({"state": "STATE_LOST"}),
            Outcome::Failed,
            Some("LOST"),
        ),
        (json!({"state": 77}), Outcome::Pending, Some("77")),
        (
            json!({"state": "STATE_DONE", "stateRaw": "LOST"}),
            Outcome::Succeeded,
            Some("done"),
        ),
        // A text that the enum does not know is not final.
        (json!({"stateRaw": "NEW"}), Outcome::Pending, Some("NEW")),
        (
            json!({"stateRaw": "finished"}),
            Outcome::Succeeded,
            Some("finished"),
        ),
    ] {
        let wire = test.wire("t.Thing", item.clone());
        assert_eq!(watch.outcome(&wire), want, "{item}");
        assert_eq!(watch.state_text(&wire).as_deref(), text, "{item}");
    }
    assert_eq!(watch.outcome(b"\x10"), Outcome::Pending);
    let without = self::test("item: \"one\"");
    let done = without.wire("t.Thing", json!({"state": "STATE_DONE"}));
    assert_eq!(self::watch(&without).outcome(&done), Outcome::Pending);
    assert_eq!(self::watch(&without).state_text(&done), None);
}

#[test]
fn items_are_identified_by_their_key() {
    let strings = test(LIST);
    let wire = strings.wire("t.Thing", json!({"id": "ключ"}));
    assert_eq!(&*watch(&strings).key(&wire).unwrap(), "ключ");
    for item in [json!({}), json!({"state": 1})] {
        let error = watch(&strings)
            .key(&strings.wire("t.Thing", item))
            .unwrap_err();
        assert!(matches!(error, Error::Decode { path, .. } if path == "id"));
    }
    assert!(watch(&strings).key(b"\x0a\x01\xff").is_err());

    let both = test("item: \"things\" key: \"id\" additional_keys: [\"inner.state\", \"names\"]");
    let thing = |names: Json, state: &str| {
        let thing = json!({"id": "a", "names": names, "inner": {"state": state}});
        watch(&both).key(&both.wire("t.Thing", thing)).unwrap()
    };
    let first = thing(json!(["x", "y"]), "s");
    assert_eq!(&*first, "a\0s\0x");
    assert_eq!(first, thing(json!(["x"]), "s"));
    for other in [
        thing(json!(["y"]), "s"),
        thing(json!([]), "s"),
        thing(json!(["x"]), "t"),
    ] {
        assert_ne!(first, other);
    }

    let numbers = test("item: \"things\" key: \"number\"");
    let wire = numbers.wire("t.Thing", json!({"number": "-5"}));
    assert_eq!(&*watch(&numbers).key(&wire).unwrap(), "-5");
}

#[test]
fn refresh_reads_one_item_by_its_key() {
    let test = test(LIST);
    let watch = watch(&test);
    let request = test.wire(
        "t.WatchReq",
        json!({"group": "g", "q": "x", "follow": true}),
    );
    let call = watch.refresh_call(&request, "a/b", "").unwrap();
    assert_eq!(call.path, "/v1//g/things/a%2Fb");
    assert_eq!((&*call.query, call.project), ("", Some(4..4)));
    assert_eq!(call.idempotency, Idempotency::Idempotent);
    let request = test.wire("t.WatchReq", json!({"p": "p", "group": "g"}));
    let call = watch.refresh_call(&request, "a", "").unwrap();
    assert_eq!(
        (&*call.path, call.project),
        ("/v1/p/g/things/a", Some(4..5))
    );
    for key in ["", ".."] {
        let error = watch.refresh_call(&request, key, "").unwrap_err();
        assert_eq!(fault(&error).0, "thing", "{key}");
    }

    let response = Bytes::from(test.wire("t.GetRes", json!({"thing": {"id": "a"}})));
    let item = watch.refreshed(&response).unwrap();
    assert_eq!(test.json("t.Thing", &item), json!({"id": "a"}));
    assert!(response.as_ptr_range().contains(&item.as_ptr()));
    assert!(watch.refreshed(&Bytes::new()).is_err());
}

#[test]
fn stream_message_holds_event_and_item() {
    let test = test(LIST);
    let event = WatchEvent {
        r#type: WatchEventType::Modified.into(),
        ..Default::default()
    };
    let item = test.wire("t.Thing", json!({"id": "a"}));
    let message = watch(&test).message(&event, Some(&item), &[]);
    assert_eq!(
        test.json("t.WatchRes", &message),
        json!({"event": {"type": "WATCH_EVENT_TYPE_MODIFIED"}, "thing": {"id": "a"}})
    );
    let message = watch(&test).message(&event, None, &[]);
    assert_eq!(
        test.json("t.WatchRes", &message),
        json!({"event": {"type": "WATCH_EVENT_TYPE_MODIFIED"}})
    );
    let mut empty = watch(&test).message(&WatchEvent::default(), Some(b""), &[]);
    let told = test.json("t.WatchRes", &empty.split_off(0));
    assert_eq!(told, json!({"event": {}, "thing": {}}));
}

#[test]
fn options_of_the_polled_rpc_hold_in_a_watch() {
    let polled = |own: &str| {
        let with = "option (drawbridge.v1.method).constant_query = \"fields=id,state\";
             option idempotency_level = NO_SIDE_EFFECTS;";
        let rules = format!("option (drawbridge.v1.method).constant_query = \"{own}\";");
        let mut proto = world_proto(LIST);
        proto = proto.replacen("option idempotency_level = NO_SIDE_EFFECTS;", with, 1);
        if !own.is_empty() {
            let watch = "option (drawbridge.v1.method).watch";
            proto = proto.replacen(watch, &format!("{rules} {watch}"), 1);
        }
        TestContract::new(&proto)
    };
    for (own, want) in [
        ("", "q=x&fields=id,state"),
        ("fields=id,state", "q=x&fields=id,state"),
        ("v=1", "q=x&fields=id,state&v=1"),
        ("v=1&fields=id,state", "q=x&fields=id,state&v=1"),
        ("fields=id", "q=x&fields=id,state&fields=id"),
    ] {
        let test = polled(own);
        let request = json!({"group": "g", "q": "x", "follow": true});
        let request = test.wire("t.WatchReq", request);
        let call = test.rpc("Watch").bind(&request, "").unwrap();
        assert_eq!(call.query, want, "{own}");
        let poll = watch(&test).poll_request(&request).unwrap();
        let polled = watch(&test).poll.bind(&poll, "").unwrap();
        assert_eq!(polled.query, "q=x&fields=id,state");
    }
}
