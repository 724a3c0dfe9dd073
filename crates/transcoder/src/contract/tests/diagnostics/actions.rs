//! Actions, filters and odd bodies, and what settles a watch: options that JP1/AO
//! has brought.

use super::*;

const MESSAGES: &str = "
    message Req {
      int64 id = 1;
      Doc template = 2;
      string note = 3;
      map<string, string> properties = 4;
      repeated Doc data = 5;
      Doc more = 6;
      string near = 7 [(drawbridge.v1.field).gateway_only = true];
      repeated string words = 8;
    }
    message Doc { string name = 1; }
    message Res { Doc one = 1; string text = 2; repeated Doc many = 3; }";

const POST: &str = "post: \"/v1/{id}/go\" body: \"*\"";
const ACTION: &str = "post: \"/v1/{id}/go\"";

/// The diagnostics that are of a rule of the method: `(option, problem)`.
fn of_rules(proto: &str) -> Vec<(String, String)> {
    let diagnostics = diagnostics(proto);
    let rules = diagnostics.iter().filter_map(|diagnostic| {
        let option = diagnostic.option.strip_prefix("(drawbridge.v1.")?;
        Some((option.replace(").", " "), diagnostic.problem.clone()))
    });
    rules.collect()
}

#[track_caller]
fn refused(proto: &str, option: &str, want: &str, case: &str) {
    let found = of_rules(proto);
    let hit = |(at, problem): &(String, String)| at == option && problem.contains(want);
    assert!(found.len() == 1 && hit(&found[0]), "{case}\n{found:?}");
}

#[test]
fn paths_replies_and_maps() {
    for (http, rule, option, want) in [
        (
            POST,
            "path_in: {key: \"old\" value: \"/v0\"} absent_in: \"old\"",
            "path_in",
            "`old` lacks the operation",
        ),
        (
            POST,
            "response_choices: {member: \"a\" field: \"text\"}",
            "response_choices",
            "`text` must be one message",
        ),
        (
            POST,
            "response_choices: {member: \"a\" field: \"many\"}",
            "response_choices",
            "`many` must be one message",
        ),
        (
            POST,
            "response_choices: [{member: \"a\" field: \"one\"}, {member: \"a\" field: \"one\"}]",
            "response_choices",
            "`a` is told apart already",
        ),
        (
            POST,
            "required: \"properties.value\"",
            "required",
            "`properties` is no message with fields",
        ),
    ] {
        let options = format!(
            "option (google.api.http) = {{{http}}};\noption (drawbridge.v1.method) = {{{rule}}};"
        );
        let option = format!("method {option}");
        // What else the body or the query cannot take is no rule of these.
        refused(&unary(&options, MESSAGES), &option, want, rule);
    }
}

#[test]
fn checks_whose_definitions_do_not_fit() {
    for (check, want) in [
        (
            "checker: \"property-definitions\" field: \"properties\" id_field: \"id\" definitions: \"t.S/No\"",
            "there is no rpc `t.S/No`",
        ),
        (
            "checker: \"property-definitions\" field: \"properties\" id_field: \"id\" definitions: \"t.S/Do\"",
            "t.Req has no field ``",
        ),
        (
            "checker: \"property-definitions\" field: \"properties\" id_field: \"id\" definitions: \"t.S/Do\"
             argument: \"id\" page: \"note\" page_size: \"template\"",
            "t.Req has no field `template`",
        ),
    ] {
        let options = format!(
            "option (google.api.http) = {{{ACTION}}};
             option (drawbridge.v1.method) = {{action: {{}} check: {{{check}}}}};"
        );
        let proto = unary(&options, MESSAGES);
        let proto = format!("{proto}\noption (drawbridge.v1.file).family = \"jp1ao\";");
        refused(&proto, "method check", want, check);
    }
}

#[test]
fn edits_that_have_no_place() {
    for (edit, want) in [
        ("field: \"near\" target_member: \"x\"", "is local"),
        (
            "field: \"note\"",
            "has no place: name it in `target_member`",
        ),
        ("field: \"words\"", "has no place"),
        (
            "field: \"note\" keyed: true member_prefixes: \"k\" target_member: \"v\"",
            "`keyed` is for a map",
        ),
        (
            "field: \"properties\" keyed: true target_member: \"v\"",
            "needs `member_prefixes` and `target_member`",
        ),
        (
            "field: \"properties\" keyed: true member_prefixes: \"k\"",
            "needs `member_prefixes` and `target_member`",
        ),
        (
            "field: \"more\" as_text: true",
            "a message cannot be written",
        ),
        (
            "field: \"note\" target_member: \"x\" member_prefixes: \"\"",
            "`member_prefixes` is empty",
        ),
        (
            "field: \"note\" target_member: \"x\" members: {key: \"a\" value: \"nope\"}",
            "member `a`: is not JSON",
        ),
    ] {
        let options = format!(
            "option (google.api.http) = {{{ACTION}}};
             option (drawbridge.v1.method).action = {{document: \"template\" edits: {{{edit}}}}};"
        );
        let proto = unary(&options, MESSAGES);
        refused(&proto, "method action.edits", want, edit);
    }
    // The document's own path needs no segment behind it; another one does.
    let at = |rule: &str| {
        unary(
            &format!(
                "option (google.api.http) = {{put: \"/v1/{{id}}\"}};
                 option (drawbridge.v1.method).action = {{{rule} document: \"template\"
                   edits: [{{field: \"note\" target_member: \"n\"}}, {{field: \"words\" target_member: \"w\"}},
                     {{field: \"data\" target_member: \"d\"}}, {{field: \"more\" target_member: \"m\"}},
                     {{field: \"properties\" target_member: \"p\"}}]}};"
            ),
            MESSAGES,
        )
    };
    World::new(&at("same_path: true"));
    let want = "the path must end in a fixed segment";
    refused(&at(""), "method action", want, "same_path");
}

#[test]
fn conditions_extras_and_forms() {
    let expression = |field: &str| format!("Filter f = 1; }} message Filter {{ {field}");
    for (field, option, want) in [
        (
            expression("map<string, string> m = 1 [(drawbridge.v1.field).condition = {}];"),
            "field condition",
            "a map is no condition",
        ),
        (
            expression("double d = 1 [(drawbridge.v1.field).condition = {}];"),
            "field condition",
            "fractions and bytes",
        ),
        (
            expression("bytes b = 1 [(drawbridge.v1.field).condition = {}];"),
            "field condition",
            "fractions and bytes",
        ),
        (
            expression("google.protobuf.Struct s = 1 [(drawbridge.v1.field).condition = {}];"),
            "field condition",
            "a message is an expression by itself, or a time",
        ),
        (
            expression("string s = 1 [(drawbridge.v1.field).condition = {member: \"a'b\"}];"),
            "field condition",
            "printable ASCII without quotes",
        ),
        (
            expression("string s = 1 [(drawbridge.v1.field).condition = {operator: \"eq (\"}];"),
            "field condition",
            "printable ASCII without quotes",
        ),
        (
            "string n = 1 [(drawbridge.v1.field).additional_properties = true];".into(),
            "field additional_properties",
            "only a single google.protobuf.Struct",
        ),
        (
            "repeated google.protobuf.Struct n = 1 [(drawbridge.v1.field).additional_properties = true];".into(),
            "field additional_properties",
            "only a single google.protobuf.Struct",
        ),
        (
            "google.protobuf.Struct n = 1 [(drawbridge.v1.field) = {additional_properties: true name: \"x\"}];"
                .into(),
            "field additional_properties",
            "leave out name",
        ),
        (
            "google.protobuf.Struct a = 1 [(drawbridge.v1.field).additional_properties = true];
             google.protobuf.Struct b = 2 [(drawbridge.v1.field).additional_properties = true];"
                .into(),
            "field additional_properties",
            "another field takes them already",
        ),
        (
            "string s = 1 [(drawbridge.v1.field).form = FORM_EXPRESSION];".into(),
            "field form",
            "EXPRESSION is for a single message",
        ),
        (
            "repeated bool s = 1 [(drawbridge.v1.field).form = FORM_FLAG];".into(),
            "field form",
            "FLAG is for a single bool",
        ),
        (
            "string s = 1 [(drawbridge.v1.field).form = FORM_OFFSET_TIME];".into(),
            "field form",
            "OFFSET_TIME is for google.protobuf.Timestamp",
        ),
        (
            "string s = 1 [(drawbridge.v1.field).form = FORM_COMMA_LIST];".into(),
            "field form",
            "COMMA_LIST is for repeated",
        ),
    ] {
        let messages = format!("message Req {{ {field} }} message Res {{ string id = 1; }}");
        let options = "option (google.api.http) = {post: \"/v1/x\" body: \"*\"};";
        refused(&unary(options, &messages), option, want, &field);
    }
}

#[test]
fn bare_bodies() {
    for (res, option, want) in [
        (
            "option (drawbridge.v1.message).bare_text = \"n\"; int32 n = 1;",
            "message bare_text",
            "`n` is no single string",
        ),
        (
            "option (drawbridge.v1.message).bare_array = \"n\"; string n = 1;",
            "message bare_array",
            "`n` is no repeated field",
        ),
        (
            "option (drawbridge.v1.message).as_array = \"no\"; repeated string n = 1;",
            "message as_array",
            "`no` is no repeated field",
        ),
        (
            "option (drawbridge.v1.message) = {bare_array: \"n\" as_array: \"n\"};
             repeated string n = 1;",
            "message as_array",
            "goes with no other array",
        ),
    ] {
        let messages = format!("message Req {{ string id = 1; }} message Res {{ {res} }}");
        let options = "option (google.api.http) = {get: \"/v1/x\"};";
        refused(&unary(options, &messages), option, want, res);
    }
}

/// Watches with every part that the options below speak of.
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
fn what_settles_and_what_is_followed() {
    let one = "item: \"one\" state: \"state\" succeeded: \"DONE\" failed: \"FAILED\"";
    for (rules, option, want) in [
        (
            format!("{one} follow: \"follow\" follow_after: \"BUSY\""),
            "watch.follow_after",
            "states that stand in succeeded or failed",
        ),
        (
            format!("{one} follow: \"follow\" follow_after: \"NO\""),
            "watch.follow_after",
            "`NO` is not a REST text",
        ),
        (
            format!("{one} follow_after: \"FAILED\""),
            "watch.follow_after",
            "name the field of `follow`",
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
            "what is watched is a list",
        ),
        (
            "item: \"one\" state: \"text\" succeeded: \"DONE\" unknown: {final_when_set: \"over\"}".into(),
            "watch.unknown",
            "is for a state that is an enum",
        ),
        (
            format!("{one} unknown: {{}}"),
            "watch.unknown.final_when_set",
            "t.Thing has no field ``",
        ),
        (
            format!("{one} unknown: {{final_when_set: \"end\"}}"),
            "watch.unknown.final_when_set",
            "must be one value that may be unset",
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
fn an_unknown_state_is_over_when_it_says_so() {
    let one = "item: \"one\" state: \"state\" succeeded: \"DONE\" failed: \"FAILED\"
        follow: \"follow\" follow_after: \"FAILED\" unknown: {final_when_set: \"over\"}";
    let world = World::new(&watch(one));
    let watch = world.rpc("Watch").watch.as_ref().unwrap();
    let over = "2026-01-02T03:04:05Z";
    for (item, held, goes_on) in [
        (json!({"over": over}), true, false),
        (json!({"state": 9, "over": over}), true, false),
        (json!({}), false, false),
        (json!({"state": "STATE_BUSY", "over": over}), false, false),
        (json!({"state": "STATE_DONE", "over": over}), false, false),
        (json!({"state": "STATE_FAILED"}), false, true),
    ] {
        let wire = world.wire("t.Thing", item.clone());
        let got = watch.held(&wire);
        assert_eq!(got.is_some(), held, "{item}");
        assert!(got.is_none_or(|held| {
            (held.outcome, held.polls, held.rule) == (Outcome::Failed, 2, None)
        }));
        assert_eq!(watch.goes_on_after(&wire), goes_on, "{item}");
    }
    let mark = |over: &str| {
        let wire = world.wire("t.Thing", json!({ "over": over }));
        watch.held(&wire).unwrap().mark
    };
    assert_eq!(mark(over), mark(over));
    assert_ne!(mark(over), mark("2026-01-02T03:04:06Z"));
}
