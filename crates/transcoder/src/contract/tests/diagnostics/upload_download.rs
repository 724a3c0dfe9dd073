//! `upload` and `download`.

use super::*;

#[test]
fn unsuitable_uploads_and_downloads_are_reported() {
    const FILES: &str = r#"
        message Req { string id = 1; string name = 2 [(drawbridge.v1.field).gateway_only = true];
          bytes chunk = 3 [(drawbridge.v1.field).gateway_only = true];
          string sent = 4; repeated bytes chunks = 5 [(drawbridge.v1.field).gateway_only = true]; }
        message Res { string id = 1; string name = 2; bytes chunk = 3; }"#;
    const POST: &str = r#"(google.api.http) = {post: "/v1/files"}"#;
    const UP: &str = r#"upload = {file_name: "name" chunk: "chunk"}"#;
    const DOWN: &str = r#"download = {file_name: "name" chunk: "chunk"}"#;
    let (into, out) = (
        "Do(stream Req) returns (Res)",
        "Do(Req) returns (stream Res)",
    );
    let get = r#"(google.api.http) = {get: "/v1/files"}"#;
    let with_body = r#"(google.api.http) = {post: "/v1/files" body: "*"}"#;
    let with_response = r#"(google.api.http) = {post: "/v1/files" response_body: "id"}"#;
    let rule = |rule: &str| format!("(drawbridge.v1.method).{rule}");
    for (rpc, http, rules, option, want) in [
        (
            "Do(Req) returns (Res)",
            POST,
            &[UP][..],
            "upload",
            "is client-streaming",
        ),
        (
            "Do(stream Req) returns (stream Res)",
            POST,
            &[UP],
            "upload",
            "is client-streaming only",
        ),
        (
            "Do(Req) returns (Res)",
            POST,
            &[DOWN],
            "download",
            "is server-streaming",
        ),
        (
            into,
            get,
            &[UP],
            "upload",
            "use POST, PUT or PATCH without `body`",
        ),
        (into, with_body, &[UP], "upload", "without `body`"),
        (
            into,
            POST,
            &[UP, DOWN],
            "upload",
            "combined with `download`",
        ),
        (
            into,
            POST,
            &[UP, "constant_body = \"{}\""],
            "upload",
            "with `constant_body`",
        ),
        (
            into,
            POST,
            &[UP, "resolve = \"Find\""],
            "upload",
            "with `resolve`",
        ),
        (
            out,
            POST,
            &[DOWN, "pages = \"List\""],
            "download",
            "with `pages`",
        ),
        (
            out,
            POST,
            &[DOWN, "location = \"/{id}\""],
            "download",
            "with `location`",
        ),
        (
            out,
            with_response,
            &[DOWN],
            "download",
            "with `response_body`",
        ),
        (
            into,
            POST,
            &["upload = {file_name: \"name\" chunk: \"no\"}"],
            "upload.chunk",
            "t.Req has no bytes field `no`",
        ),
        (
            into,
            POST,
            &["upload = {file_name: \"name\" chunk: \"chunks\"}"],
            "upload.chunk",
            "no bytes field `chunks`",
        ),
        (
            into,
            POST,
            &["upload = {file_name: \"chunk\" chunk: \"chunk\"}"],
            "upload.file_name",
            "no string field `chunk`",
        ),
        (
            into,
            POST,
            &["upload = {file_name: \"sent\" chunk: \"chunk\"}"],
            "upload.file_name",
            "mark it `gateway_only`",
        ),
        (
            into,
            POST,
            &["upload = {part: \"a\\\"b\" file_name: \"name\" chunk: \"chunk\"}"],
            "upload.part",
            "must consist of letters",
        ),
        (
            out,
            POST,
            &["download = {file_name: \"name\" chunk: \"name\"}"],
            "download.chunk",
            "t.Res has no bytes field `name`",
        ),
        (
            out,
            POST,
            &["download = {file_name: \"name\" chunk: \"chunk\" accept: \"\\n\"}"],
            "download.accept",
            "the value of a header",
        ),
    ] {
        let rules: String = rules
            .iter()
            .map(|r| format!("option {};\n", rule(r)))
            .collect();
        let text = proto(&format!(
            "service S {{ rpc {rpc} {{ option {http};\n{rules} }} }} {FILES}"
        ));
        let found = diagnostics(&text);
        let hit = found
            .iter()
            .any(|r| r.option == rule(option) && r.problem.contains(want) && r.element == "t.S.Do");
        assert!(hit, "{want}: {}\n{text}", told(&found));
    }
}
