//! `action`, its edits, and `check`.

use super::*;

pub(super) const MESSAGES: &str = "
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

pub(super) const POST: &str = "post: \"/v1/{id}/go\" body: \"*\"";
const ACTION: &str = "post: \"/v1/{id}/go\"";

#[test]
fn check_with_unsuitable_definitions_is_reported() {
    for (check, want) in [
        (
            "checker: \"property-definitions\" field: \"properties\" id_field: \"id\" definitions: \"t.S/No\"",
            "there is no rpc `t.S/No`",
        ),
        (
            "checker: \"property-definitions\" field: \"properties\" id_field: \"id\" definitions: \"t.S/Plain\"",
            "t.S.Plain (t.proto) is not served: it has no `google.api.http`",
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
        let proto = proto.replace("service S {", "service S { rpc Plain(Req) returns (Res);");
        let proto = format!("{proto}\noption (drawbridge.v1.file).family = \"jp1ao\";");
        refused(&proto, "method check", want, check);
    }
}

#[test]
fn unsuitable_edits_are_reported() {
    for (edit, want) in [
        ("field: \"near\" target_member: \"x\"", "is `gateway_only`"),
        ("field: \"note\"", "has no target: set `target_member`"),
        ("field: \"words\"", "has no target"),
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
    // With `same_path` the path needs no fixed last segment; otherwise it does.
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
    TestContract::new(&at("same_path: true"));
    let want = "the path must end in a fixed segment";
    refused(&at(""), "method action", want, "same_path");
}
