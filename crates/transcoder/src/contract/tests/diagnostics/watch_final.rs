//! When a watched resource is final: `follow_after`, `unknown`.

use super::*;

/// Returns a proto of a watch with all that these options refer to.
fn watch(rules: &str) -> String {
    proto(&format!(
        r#"service S {{
          rpc Watch(WatchReq) returns (stream WatchRes) {{
            option (google.api.http) = {{get: "/v1/x"}};
            option (drawbridge.v1.method).watch = {{ poll: "Get" {rules} }};
          }}
          rpc Get(Req) returns (Res) {{ option (google.api.http) = {{get: "/v1/x"}}; }}
        }}
        message Req {{}}
        message Res {{ Thing one = 1; repeated Thing all = 2; }}
        message Thing {{
          string id = 1; State state = 2; string text = 3; string end = 4;
          google.protobuf.Timestamp over = 5;
        }}
        enum State {{ STATE_UNSPECIFIED = 0; STATE_DONE = 1; STATE_FAILED = 2; STATE_BUSY = 3; }}
        message WatchReq {{ bool follow = 1 [(drawbridge.v1.field).gateway_only = true]; }}
        message WatchRes {{ drawbridge.v1.WatchEvent event = 1; Thing thing = 2; }}"#
    ))
}

#[test]
fn unsuitable_final_states_are_reported() {
    let one = "item: \"one\" state: \"state\" succeeded: \"DONE\" failed: \"FAILED\"";
    for (rules, option, want) in [
        (
            format!("{one} follow: \"follow\" follow_after: \"BUSY\""),
            "watch.follow_after",
            "states of `succeeded` or `failed`",
        ),
        (
            format!("{one} follow: \"follow\" follow_after: \"NO\""),
            "watch.follow_after",
            "`NO` is not a REST text",
        ),
        (
            format!("{one} follow_after: \"FAILED\""),
            "watch.follow_after",
            "needs `follow`",
        ),
        (
            "item: \"one\" follow: \"follow\" follow_after: \"FAILED\"".into(),
            "watch.follow_after",
            "has no `state`",
        ),
        (
            "item: \"one\" unknown: {final_when_set: \"over\"}".into(),
            "watch.unknown",
            "has no `state`",
        ),
        (
            "item: \"all\" key: \"id\" state: \"state\" succeeded: \"DONE\" unknown: {final_when_set: \"over\"}"
                .into(),
            "watch.unknown",
            "but `item` is a list",
        ),
        (
            "item: \"one\" state: \"text\" succeeded: \"DONE\" unknown: {final_when_set: \"over\"}".into(),
            "watch.unknown",
            "needs an enum as `state`",
        ),
        (
            format!("{one} unknown: {{}}"),
            "watch.unknown.final_when_set",
            "t.Thing has no field ``",
        ),
        (
            format!("{one} unknown: {{final_when_set: \"end\"}}"),
            "watch.unknown.final_when_set",
            "must be a single `optional` value or message",
        ),
        (
            format!("{one} unknown: {{final_when_set: \"over\" polls: -1}}"),
            "watch.unknown.polls",
            "must be 1 to 1000",
        ),
    ] {
        let option = format!("method {option}");
        refused(&watch(&rules), &option, want, &rules);
    }
}

#[test]
fn unknown_state_is_final_when_the_field_is_set() {
    let one = "item: \"one\" state: \"state\" succeeded: \"DONE\" failed: \"FAILED\"
        follow: \"follow\" follow_after: \"FAILED\" unknown: {final_when_set: \"over\"}";
    let test = TestContract::new(&watch(one));
    let watch = test.rpc("Watch").watch.as_ref().unwrap();
    let over = "2026-01-02T03:04:05Z";
    for (item, held, goes_on) in [
        (json!({"over": over}), true, false),
        (json!({"state": 9, "over": over}), true, false),
        (json!({}), false, false),
        (json!({"state": "STATE_BUSY", "over": over}), false, false),
        (json!({"state": "STATE_DONE", "over": over}), false, false),
        (json!({"state": "STATE_FAILED"}), false, true),
    ] {
        let wire = test.wire("t.Thing", item.clone());
        let got = watch.debounce_rule(&wire);
        assert_eq!(got.is_some(), held, "{item}");
        assert!(got.is_none_or(|held| {
            (held.outcome, held.polls, held.rule) == (Outcome::Failed, 2, None)
        }));
        assert_eq!(watch.follows_after(&wire), goes_on, "{item}");
    }
    let mark = |over: &str| {
        let wire = test.wire("t.Thing", json!({ "over": over }));
        watch.debounce_rule(&wire).unwrap().mark
    };
    assert_eq!(mark(over), mark(over));
    assert_ne!(mark(over), mark("2026-01-02T03:04:06Z"));
}
