//! `path_in`, `response_choices` and `count_members`.

use super::action::{MESSAGES, POST};
use super::*;

#[test]
fn contradictory_path_in_response_choices_and_count_members_are_reported() {
    for (http, rule, option, want) in [
        (
            POST,
            "path_in: {key: \"old\" value: \"/v0\"} absent_in: \"old\"",
            "path_in",
            "`old` is also in `absent_in`",
        ),
        (
            POST,
            "response_choices: {member: \"a\" field: \"text\"}",
            "response_choices",
            "`text` must be a single message",
        ),
        (
            POST,
            "response_choices: {member: \"a\" field: \"many\"}",
            "response_choices",
            "`many` must be a single message",
        ),
        (
            POST,
            "response_choices: [{member: \"a\" field: \"one\"}, {member: \"a\" field: \"one\"}]",
            "response_choices",
            "`a` is listed twice",
        ),
        (
            POST,
            "required: \"properties.value\"",
            "required",
            "`properties` is not a message with fields",
        ),
    ] {
        let options = format!(
            "option (google.api.http) = {{{http}}};\noption (drawbridge.v1.method) = {{{rule}}};"
        );
        let option = format!("method {option}");
        // Diagnostics of body and query belong to `google.api.http`.
        refused(&unary(&options, MESSAGES), &option, want, rule);
    }
}
