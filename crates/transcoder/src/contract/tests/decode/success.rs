//! Replies that look like success.

use super::*;

#[test]
fn success_must_hold_the_requested_resource() {
    let messages =
        "message Req { string page_token = 1 [(drawbridge.v1.field).gateway_only = true]; }
        message Wrapped { Thing thing = 1; }
        message Id { optional string job_id = 1; }
        message Things { repeated Thing things = 1; optional int32 count = 2; }
        message Items { repeated Thing items = 1; string version = 2; }
        message Nullable { repeated Thing items = 1 [(drawbridge.v1.field).null_is_empty = true]; }
        message Named { string name = 1; map<string, string> labels = 2; repeated Thing parts = 3; }
        message Empties { map<string, string> labels = 1; repeated Thing parts = 2; }
        message Unwrapped {
          option (drawbridge.v1.message).unwrap = \"thing\";
          string name = 1; string text = 2;
        }
        message Open {
          optional string id = 1;
          google.protobuf.Struct rest = 2 [(drawbridge.v1.field).additional_properties = true];
        }
        message Document {
          optional string name = 1; optional string href = 2;
          google.protobuf.Struct more = 3 [(drawbridge.v1.field).additional_properties = true];
        }
        message Options { Empties options = 1; }
        message Valued { string name = 1; google.protobuf.Value data = 2; }
        message Free { google.protobuf.Struct any = 1; }
        message Labels { map<string, string> labels = 1; }
        message Thing { string name = 1; int64 size = 2; }";
    for (name, response, response_body, body, missing) in [
        ("Get", "Wrapped", "", r#"{"thing": {"name": "n"}}"#, None),
        ("Get", "Wrapped", "", r#"{"thing": {"size": 0}}"#, None),
        (
            "Get",
            "Wrapped",
            "",
            r#"{"thing": {}}"#,
            Some("in `thing`, none of the members `name`, `size`"),
        ),
        (
            "Get",
            "Wrapped",
            "",
            r#"{"thing": {"error": "gone", "name": null}}"#,
            Some("in `thing`, none of the members `name`, `size`"),
        ),
        (
            "Get",
            "Wrapped",
            "",
            r#"{"thing": null}"#,
            Some("`thing` is null"),
        ),
        (
            "Get",
            "Wrapped",
            "",
            r#"{"error": {"message": "m"}}"#,
            Some("thing"),
        ),
        // An object of lists: an API may leave out each that is empty.
        ("Get", "Options", "", r#"{"options": {}}"#, None),
        ("Get", "Options", "", r#"{"options": {"x": null}}"#, None),
        (
            "Get",
            "Options",
            "",
            r#"{"options": {"error": "gone"}}"#,
            Some("in `options`, none of the members `labels`, `parts`"),
        ),
        ("Get", "Options", "", r#"{"options": null}"#, Some("null")),
        ("Get", "Options", "", "{}", Some("options")),
        ("Get", "Wrapped", "", "{}", Some("thing")),
        ("Get", "Wrapped", "thing", "{}", Some("`name`, `size`")),
        (
            "Get",
            "Wrapped",
            "thing",
            r#"{"error": 1}"#,
            Some("`name`, `size`"),
        ),
        ("Get", "Wrapped", "thing", r#"{"size": 0}"#, None),
        ("Get", "Id", "", r#"{"job_id": ""}"#, None),
        (
            "Get",
            "Id",
            "",
            r#"{"job_id": null}"#,
            Some("`job_id` is null"),
        ),
        (
            "Get",
            "Named",
            "",
            r#"{"name": null, "other": 1}"#,
            Some("`name`, `labels`, `parts`"),
        ),
        (
            "Get",
            "Named",
            "",
            r#"{"labels": null, "parts": null, "other": 1}"#,
            Some("`name`, `labels`, `parts`"),
        ),
        ("Get", "Empties", "", r#"{"labels": null}"#, None),
        (
            "Get",
            "Valued",
            "",
            r#"{"data": null, "other": 1}"#,
            Some("`name`, `data`"),
        ),
        ("Get", "Valued", "", r#"{"data": false}"#, None),
        ("Get", "Free", "", r#"{"any": null}"#, None),
        ("Get", "Id", "", "{}", Some("job_id")),
        // Lists: with nothing else but totals, or of a standard List method.
        ("Get", "Things", "", r#"{"things": []}"#, None),
        (
            "Get",
            "Things",
            "",
            r#"{"things": null}"#,
            Some("`things` is null"),
        ),
        (
            "Get",
            "Things",
            "",
            r#"{"things": [null, {"name": "b"}]}"#,
            Some("in `things`, an item is null"),
        ),
        (
            "Get",
            "Things",
            "things",
            r#"[null]"#,
            Some("an item is null"),
        ),
        // A list that is not the response: without the item.
        (
            "Get",
            "Named",
            "",
            r#"{"name": "n", "parts": [null]}"#,
            None,
        ),
        ("Get", "Nullable", "", r#"{"items": null}"#, None),
        ("Get", "Nullable", "", r#"{"items": []}"#, None),
        ("Get", "Nullable", "", "{}", Some("items")),
        (
            "ListItems",
            "Items",
            "",
            r#"{"items": null}"#,
            Some("`items` is null"),
        ),
        ("Get", "Things", "", r#"{"count": 0}"#, Some("things")),
        ("ListItems", "Items", "", r#"{"items": []}"#, None),
        (
            "ListItems",
            "Items",
            "",
            r#"{"version": "1"}"#,
            Some("items"),
        ),
        ("Get", "Items", "", r#"{"version": "1"}"#, None),
        (
            "Get",
            "Things",
            "things",
            r#"{"error": 1}"#,
            Some("an array"),
        ),
        // A plain object: at least one known member.
        ("Get", "Named", "", r#"{"name": ""}"#, None),
        ("Get", "Named", "", r#"{"labels": {}, "other": 1}"#, None),
        ("Get", "Named", "", r#"{"parts": []}"#, None),
        (
            "Get",
            "Named",
            "",
            r#"{"other": {"name": "n"}}"#,
            Some("`name`, `labels`, `parts`"),
        ),
        ("Get", "Unwrapped", "", r#"{"thing": {"name": "n"}}"#, None),
        (
            "Get",
            "Unwrapped",
            "",
            r#"{"thing": [{"text": "t"}]}"#,
            None,
        ),
        ("Get", "Unwrapped", "", r#"{"name": "n"}"#, None),
        (
            "Get",
            "Unwrapped",
            "",
            r#"{"thing": {"error": 1}}"#,
            Some("thing"),
        ),
        ("Get", "Unwrapped", "", r#"{"error": 1}"#, Some("thing")),
        ("Get", "Open", "", r#"{"other": 1}"#, None),
        ("Get", "Open", "", "{}", Some("`id`")),
        // It describes what it has: one of it must be there.
        (
            "Get",
            "Document",
            "",
            r#"{"maintenance": true}"#,
            Some("`name`, `href`"),
        ),
        ("Get", "Document", "", r#"{"href": "h", "other": 1}"#, None),
        // Arbitrary JSON and maps.
        ("Get", "Free", "any", "{}", None),
        ("Get", "Free", "", "{}", Some("any")),
        ("Get", "Labels", "labels", "{}", None),
        ("Get", "Labels", "", r#"{"labels": {}}"#, None),
        ("Get", "Labels", "", "{}", Some("labels")),
    ] {
        let proto = unary(
            &format!(
                "option (google.api.http) = {{get: \"/x\" response_body: \"{response_body}\"}};"
            ),
            messages,
        );
        let proto = proto
            .replace("rpc Do(", &format!("rpc {name}("))
            .replace("returns (Res)", &format!("returns ({response})"));
        let test = TestContract::new(&proto);
        let got = test.rpc(name).decode(&reply(200, "application/json", body));
        match (got, missing) {
            (Ok(_), None) => {}
            (Err(error @ Error::NotTheResource { .. }), Some(missing)) => {
                assert!(
                    error.to_string().contains(missing),
                    "{response} {body}: {error}"
                );
            }
            (got, _) => panic!("{response} {body}: {got:?}"),
        }
    }
}

#[test]
fn list_next_to_an_error_is_not_the_list() {
    let test = |name: &str, fields: &str| {
        let proto = unary(
            "option (google.api.http) = {get: \"/x\"};",
            &format!(
                "message Req {{}} message Res {{ {fields} }}
                 message Thing {{ string name = 1; }} message Fault {{ string text = 1; }}"
            ),
        );
        TestContract::new(&proto.replace("rpc Do(", &format!("rpc {name}(")))
    };
    let list = "repeated Thing items = 1; string next = 2;";
    let lists = "repeated Thing items = 1; repeated Thing others = 2;";
    let map = "map<string, string> labels = 1;";
    for (name, fields, body, is_error) in [
        ("ListThings", list, r#"{"items": [], "fault": {}}"#, true),
        (
            "ListThings",
            list,
            r#"{"fault": {}, "items": [{"name": "n"}], "next": "n"}"#,
            true,
        ),
        // Another member, and one in an item.
        ("ListThings", list, r#"{"items": [], "other": {}}"#, false),
        (
            "ListThings",
            list,
            r#"{"items": [{"name": "n", "fault": {}}]}"#,
            false,
        ),
        // The response declares it: the client can read it.
        (
            "ListThings",
            "repeated Thing items = 1; Fault fault = 2;",
            r#"{"items": [], "fault": {}}"#,
            false,
        ),
        ("Get", lists, r#"{"items": [], "fault": {}}"#, true),
        (
            "Get",
            lists,
            r#"{"items": [{"name": "n"}], "fault": {}}"#,
            false,
        ),
        ("Get", map, r#"{"labels": {}, "fault": {}}"#, true),
        ("Get", map, r#"{"labels": {"a": "b"}, "fault": {}}"#, false),
    ] {
        let test = test(name, fields);
        let got = test.rpc(name).decode(&reply(200, "application/json", body));
        let found = matches!(got, Err(Error::ErrorBody { status: 503, .. }));
        assert_eq!(found, is_error, "{name} {body}: {got:?}");
        assert_eq!(got.is_ok(), !is_error, "{name} {body}: {got:?}");
    }
}

#[test]
fn values_are_not_absent() {
    for (response, body, is_ok) in [
        ("ListValue", "", false),
        ("ListValue", "null", false),
        ("ListValue", "[]", true),
        ("StringValue", "", false),
        ("StringValue", "null", false),
        ("StringValue", "\"\"", true),
        ("Timestamp", "", false),
        ("Duration", "null", false),
        ("Value", "null", true),
        ("Struct", "", true),
    ] {
        for verb in ["get", "delete"] {
            let proto = unary(
                &format!("option (google.api.http) = {{{verb}: \"/x\"}};"),
                "message Req {} message Res {}",
            );
            let of = format!("returns (google.protobuf.{response})");
            let test = TestContract::new(&proto.replace("returns (Res)", &of));
            for status in [200, 204] {
                let got = test
                    .rpc("Do")
                    .decode(&reply(status, "application/json", body));
                let is_ok = is_ok || verb == "delete";
                let has_content = status == 204 && !body.is_empty();
                let case = format!("{verb} {response} {status} {body}: {got:?}");
                assert!(has_content || got.is_ok() == is_ok, "{case}");
            }
        }
    }
}

#[test]
fn also_success_adds_statuses() {
    let test = test("");
    assert_eq!(*test.rpc("Do").also_success, [300]);
}

#[test]
fn deletion_may_answer_any_object() {
    let messages =
        "message Req {} message Res { Thing thing = 1; } message Thing { string name = 1; }";
    let of = |verb: &str| {
        TestContract::new(&unary(
            &format!("option (google.api.http) = {{{verb}: \"/x\"}};"),
            messages,
        ))
    };
    for body in ["{}", r#"{"job_id": "j"}"#] {
        let reply = reply(200, "application/json", body);
        let decoded = of("delete").rpc("Do").decode(&reply).unwrap();
        assert!(decoded.message.is_empty(), "{body}");
        let error = of("put").rpc("Do").decode(&reply).unwrap_err();
        assert!(
            matches!(error, Error::NotTheResource { .. }),
            "{body}: {error:?}"
        );
    }
}

#[test]
fn change_without_response_fields_succeeds_with_any_text() {
    let test = change("", "");
    let page = "<html><title>Maintenance</title></html>";
    for (status, content_type, body, want) in [
        (200, "text/plain", "OK", "OK"),
        (200, "text/plain; charset=utf-8", "true", "OK"),
        (200, "application/json", "[]", "OK"),
        (200, "application/json", "{\"cut", "OK"),
        (200, "application/json", "NaN", "OK"),
        (
            200,
            "application/json",
            r#"{"job_id": "j", "more": 1}"#,
            "OK",
        ),
        (200, "application/octet-stream", "\u{0}\u{1}", "OK"),
        (200, "application/xml", "<?xml version=\"1.0\"?><ok/>", "OK"),
        (200, "", "", "OK"),
        (200, "text/html", "", "OK"),
        (200, "text/html", r#"{"ok": true}"#, "OK"),
        (201, "text/plain", "created", "OK"),
        (204, "", "", "OK"),
        (
            202,
            "text/html",
            "<html><head><title>202 Accepted</title></head></html>",
            "OK",
        ),
        (200, "text/html", page, "page"),
        (200, "Text/HTML; charset=utf-8", "OK", "page"),
        (202, "text/html", page, "page"),
        (200, "application/xhtml+xml", page, "page"),
        (200, "", page, "page"),
        (200, "text/plain", " \n<!DOCTYPE HTML PUBLIC>\n", "page"),
        (
            200,
            "application/xml",
            "<?xml version=\"1.0\"?>\n<!-- a --><!doctype html>",
            "page",
        ),
        (200, "application/json", "\u{feff}<html>", "page"),
        (200, "text/plain", r#"{"fault": 1}"#, "error 503"),
        (200, "text/html", r#"{"fault": 1}"#, "error 503"),
        (200, "", "\u{feff} {\"fault\": 1}", "error 503"),
        (202, "application/json", r#"{"fault": 1}"#, "error 503"),
        (
            200,
            "application/problem+json",
            r#"{"title": "Low"}"#,
            "error 500",
        ),
    ] {
        let got = match test.rpc("Do").decode(&reply(status, content_type, body)) {
            Ok(decoded) if decoded.message.is_empty() => "OK".to_owned(),
            Err(Error::ErrorBody { status, .. }) => format!("error {status}"),
            Err(Error::NotTheResource { problem, .. }) if problem.contains("web page") => {
                "page".to_owned()
            }
            got => panic!("{content_type} {body}: {got:?}"),
        };
        assert_eq!(got, want, "{status} {content_type} {body}");
    }
}

#[test]
fn error_body_is_not_the_content_of_an_open_response() {
    let text = "optional string message = 1;";
    let fault = "google.protobuf.Value fault = 1; string name = 2;";
    let open = "optional string id = 1;
        google.protobuf.Struct more = 2 [(drawbridge.v1.field).additional_properties = true];";
    let any = "google.protobuf.Value any = 1;";
    let map = "map<string, google.protobuf.Value> any = 1;";
    let object = "google.protobuf.Struct any = 1;";
    let two = "google.protobuf.Struct any = 1; map<string, string> labels = 2;";
    let null = r#"{"fault": {"message": "m"}, "any": null}"#;
    let of_any = "response_body: \"any\"";
    let body = r#"{"fault": {"message": "m"}}"#;
    let problem = "application/problem+json";
    for (options, fields, content_type, body, is_error) in [
        // `null` next to an error is not a value.
        ("", object, "application/json", null, true),
        ("", any, "application/json", null, true),
        ("", map, "application/json", null, true),
        ("", two, "application/json", null, true),
        ("", object, "application/json", r#"{"any": null}"#, false),
        (
            "",
            object,
            "application/json",
            r#"{"fault": {"message": "m"}, "any": {}}"#,
            false,
        ),
        // Arbitrary JSON.
        (of_any, any, "application/json", body, true),
        (of_any, map, "application/json", body, true),
        (of_any, object, "application/json", body, true),
        (of_any, any, problem, r#"{"status": 503}"#, true),
        (of_any, any, "application/json", "{}", false),
        (of_any, object, "application/json", r#"{"a": 1}"#, false),
        (of_any, any, "application/json", "[1]", false),
        // Members without a field only.
        ("", open, "application/json", body, true),
        ("", open, "application/json", r#"{"a": 1}"#, false),
        // A text that is known, and what an error body has.
        (
            "",
            text,
            "application/json",
            r#"{"fault": 1, "message": "m"}"#,
            true,
        ),
        ("", text, "application/json", r#"{"message": "m"}"#, false),
        ("", text, problem, r#"{"message": "m"}"#, true),
        // The response declares the member.
        ("", fault, "application/json", body, false),
        (
            "",
            fault,
            "application/json",
            r#"{"fault": 1, "more": 2}"#,
            false,
        ),
        ("", fault, problem, body, true),
    ] {
        let got = change(options, fields)
            .rpc("Do")
            .decode(&reply(200, content_type, body));
        match got {
            Ok(_) => assert!(!is_error, "{fields} {content_type} {body}"),
            Err(Error::ErrorBody { .. }) => assert!(is_error, "{fields} {content_type} {body}"),
            got => panic!("{fields} {content_type} {body}: {got:?}"),
        }
    }
}
