//! `merge_pages`, `paging` and `pages`.

use super::*;

const MESSAGES: &str = r#"
    message Req {
      string id = 1; int32 offset = 2; string limit = 3; string text = 4;
      repeated int32 many = 5; int32 local = 6 [(drawbridge.v1.field).gateway_only = true];
    }
    message Res {
      repeated Task tasks = 1; int32 task_count = 2; string name = 3; repeated string names = 4;
      Task one = 5; repeated int32 counts = 6;
    }
    message Task { string id = 1; }"#;
const GET: &str = "get: \"/v1/{id}\"";
const READS: &str = "NO_SIDE_EFFECTS";

/// Returns a proto of one unary rpc with `merge_pages`.
fn gathering(http: &str, level: &str, rules: &str, messages: &str) -> String {
    let options = format!(
        "option (google.api.http) = {{ {http} }};
         option idempotency_level = {level};
         option (drawbridge.v1.method) = {{ {rules} }};"
    );
    unary(&options, messages)
}

#[test]
fn unsuitable_merge_pages_is_reported() {
    let whole =
        "merge_pages: {items: \"tasks\" total: \"task_count\" offset: \"offset\" size: \"limit\"}";
    TestContract::new(&gathering(GET, READS, whole, MESSAGES));
    let with = |items: &str, total: &str, offset: &str, size: &str| {
        format!(
            "merge_pages: {{items: \"{items}\" total: \"{total}\" offset: \"{offset}\" size: \"{size}\"}}"
        )
    };
    let post = "post: \"/v1/{id}\" body: \"*\"";
    let paging = format!("{whole} paging: {{style: PAGING_STYLE_OFFSET items: \"tasks\"}}");
    for (http, level, rules, option, want) in [
        (
            "post: \"/v1/{id}\"",
            "IDEMPOTENCY_UNKNOWN",
            whole,
            "merge_pages",
            "is for reads: set `idempotency_level = NO_SIDE_EFFECTS`",
        ),
        (
            "get: \"/v1/{id}\" response_body: \"one\"",
            READS,
            whole,
            "merge_pages",
            "the response must be the complete body: remove `response_body`",
        ),
        (
            post,
            READS,
            whole,
            "merge_pages",
            "`offset` and `size` must name query parameters",
        ),
        (
            "get: \"/v1/{id}/{offset}\"",
            READS,
            whole,
            "merge_pages",
            "`offset` and `size` must name query parameters",
        ),
        (
            GET,
            READS,
            &with("tasks", "task_count", "local", ""),
            "merge_pages",
            "`offset` and `size` must name query parameters",
        ),
        (
            GET,
            READS,
            &paging,
            "merge_pages",
            "cannot be combined with `paging`: remove one of them",
        ),
        (
            GET,
            READS,
            &with("no", "task_count", "offset", ""),
            "merge_pages.items",
            "t.Res has no field `no` of a suitable type",
        ),
        (
            GET,
            READS,
            &with("names", "task_count", "offset", ""),
            "merge_pages.items",
            "t.Res has no field `names` of a suitable type",
        ),
        (
            GET,
            READS,
            &with("one", "task_count", "offset", ""),
            "merge_pages.items",
            "t.Res has no field `one` of a suitable type",
        ),
        (
            GET,
            READS,
            &with("tasks", "", "offset", ""),
            "merge_pages.total",
            "t.Res has no field `` of a suitable type",
        ),
        (
            GET,
            READS,
            &with("tasks", "name", "offset", ""),
            "merge_pages.total",
            "t.Res has no field `name` of a suitable type",
        ),
        (
            GET,
            READS,
            &with("tasks", "counts", "offset", ""),
            "merge_pages.total",
            "t.Res has no field `counts` of a suitable type",
        ),
        (
            GET,
            READS,
            &with("tasks", "task_count", "text", ""),
            "merge_pages.offset",
            "t.Req has no field `text` of a suitable type",
        ),
        (
            GET,
            READS,
            &with("tasks", "task_count", "", ""),
            "merge_pages.offset",
            "t.Req has no field `` of a suitable type",
        ),
        (
            GET,
            READS,
            &with("tasks", "task_count", "offset", "many"),
            "merge_pages.size",
            "t.Req has no field `many` of a suitable type",
        ),
    ] {
        let found = diagnostics(&gathering(http, level, rules, MESSAGES));
        let option = format!("(drawbridge.v1.method).{option}");
        let hit = found.iter().any(|diagnostic| {
            (&*diagnostic.file, &*diagnostic.element) == ("t.proto", "t.S.Do")
                && diagnostic.option == option
                && diagnostic.problem.contains(want)
        });
        assert!(hit, "{option}: {want}: {}\n{rules}", printed(&found));
    }
}

#[test]
fn unary_options_on_streams_are_reported() {
    for (rule, option, want) in [
        (
            "merge_pages: {items: \"tasks\" total: \"task_count\" offset: \"offset\"}",
            "merge_pages",
            "is for unary rpcs: a watch merges the pages that its poll returns",
        ),
        (
            "paging: {style: PAGING_STYLE_OFFSET items: \"tasks\"}",
            "paging",
            "is for unary rpcs: a stream names the list rpc in `pages`",
        ),
        (
            "pages: \"Do\"",
            "pages",
            "the rpc is already a watch: remove one of them",
        ),
    ] {
        let found = diagnostics(&proto(&format!(
            "service S {{
               rpc Do(Req) returns (stream Res) {{
                 option (google.api.http) = {{ {GET} }};
                 option idempotency_level = {READS};
                 option (drawbridge.v1.method) = {{ watch: {{poll: \"Get\"}} {rule} }};
               }}
               rpc Get(Req) returns (Res) {{ option (google.api.http) = {{ {GET} }}; }}
             }} {MESSAGES}"
        )));
        let option = format!("(drawbridge.v1.method).{option}");
        let hit = found.iter().any(|diagnostic| {
            diagnostic.element == "t.S.Do"
                && diagnostic.option == option
                && diagnostic.problem.contains(want)
        });
        assert!(hit, "{option}: {}", printed(&found));
    }
}
