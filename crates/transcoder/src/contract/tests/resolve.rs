//! `resolve` and `location`: path fields that another rpc looks up.

use super::*;

/// Returns a proto whose `Get` looks up its path by `Find`.
fn found(resolve: &str, location: &str, request: &str) -> String {
    proto(&format!(
        r#"service S {{
          rpc Find(FindRequest) returns (FindResponse) {{
            option (google.api.http) = {{get: "/v1/{{project_id}}/things/{{identity}}"}};
            option (drawbridge.v1.method).location = "{location}";
          }}
          rpc Get(GetRequest) returns (Res) {{
            option (google.api.http) = {{get: "/v1/{{project_id}}/things/{{name}}/{{id}}"}};
            option (drawbridge.v1.method).resolve = "{resolve}";
          }}
        }}
        message FindRequest {{ string project_id = 1; string identity = 2 [(google.api.field_behavior) = REQUIRED]; }}
        message FindResponse {{
          option (drawbridge.v1.message).unwrap = "thing";
          string name = 3;
          string id = 4;
          repeated string more = 5;
        }}
        message GetRequest {{ string project_id = 1; string name = 7; string id = 8; {request} }}
        message Res {{}}"#
    ))
}

#[test]
fn empty_path_fields_are_looked_up() {
    let test = TestContract::new(&found("Find", "/things/{name}/{id}", ""));
    let get = test.rpc("Get");
    let resolve = get.resolve.as_ref().unwrap();
    for (request, want) in [
        (json!({"name": "n", "id": "i"}), None),
        (
            json!({"project_id": "p", "name": "n"}),
            Some(json!({"project_id": "p", "identity": "n"})),
        ),
        (json!({"id": "i"}), Some(json!({"identity": "i"}))),
    ] {
        let question = resolve
            .lookup_request(&test.wire("t.GetRequest", request.clone()))
            .unwrap();
        let question = question.map(|question| test.json("t.FindRequest", &question));
        assert_eq!(question, want, "{request}");
    }
    let none = resolve.lookup_request(&test.wire("t.GetRequest", json!({"project_id": "p"})));
    assert_eq!(
        fault(&none.unwrap_err()),
        ("name", "is required: give name or id")
    );
    let long =
        resolve.lookup_request(&test.wire("t.GetRequest", json!({"name": "n".repeat(5_000)})));
    assert_eq!(fault(&long.unwrap_err()).0, "name");

    let request = test.wire(
        "t.GetRequest",
        json!({"project_id": "p", "name": "an alias"}),
    );
    let answer = test.wire("t.FindResponse", json!({"name": "n", "id": "i"}));
    let whole = resolve.with_lookup(&request, &answer).unwrap();
    assert_eq!(get.bind(&whole, "").unwrap().path, "/v1/p/things/n/i");
    let half = test.wire("t.FindResponse", json!({"name": "n"}));
    assert!(
        matches!(resolve.with_lookup(&request, &half), Err(Error::Decode { path, .. }) if path == "id")
    );
}

#[test]
fn redirect_and_body_decode_alike() {
    let test = TestContract::new(&found("Find", "/things/{name}/{id}", ""));
    let find = test.rpc("Find");
    let reply = |status, location: &'static str, body: &'static str| Reply {
        status: StatusCode::from_u16(status).unwrap(),
        headers: HeaderMap::from_iter([(
            http::header::LOCATION,
            HeaderValue::from_static(location),
        )]),
        body: Bytes::from_static(body.as_bytes()),
    };
    for reply in [
        reply(302, "http://elsewhere/v1/p/things/n/i", "<html>"),
        reply(301, "/things/n/i?x=y", ""),
        reply(
            200,
            "/things/no/no",
            r#"{"thing": {"name": "n", "id": "i"}}"#,
        ),
        // Each success has a location: with an empty body, a text, HTML, an object of
        // other members.
        reply(201, "http://h/things/n/i", ""),
        reply(201, "/things/n/i", "created"),
        reply(200, "/things/n/i", "<html>"),
        reply(202, "/things/n/i", r#"{"thing": {"name": "n"}}"#),
        reply(204, "/things/n/i", ""),
        reply(201, "/things/n/i/", ""),
        reply(201, "/things/n/i", "{}"),
        reply(201, "/things/n/i", r#"{"message": "created"}"#),
    ] {
        let status = reply.status.as_u16();
        assert!(status < 300 || find.also_success.contains(&status));
        let message = find.decode(&reply).unwrap().message;
        let want = json!({"name": "n", "id": "i"});
        assert_eq!(test.json("t.FindResponse", &message), want, "{reply:?}");
    }
    let name_only = r#"{"thing": {"name": "n"}}"#;
    for (status, location, body) in [
        (302, "http://elsewhere/login", ""),
        (201, "http://elsewhere/login", ""),
        (201, "", ""),
        (200, "/things/n", name_only),
    ] {
        let lost = find.decode(&reply(status, location, body));
        assert!(
            matches!(&lost, Err(Error::Decode { path, .. }) if path == "Location"),
            "{status} {location}: {lost:?}"
        );
    }
    assert!(!test.rpc("Get").also_success.contains(&302));
}

#[test]
fn contradictory_resolve_and_location_are_reported() {
    for (resolve, location, request, option, want) in [
        ("Find", "things/{name}", "", "location", "is not a path"),
        ("Find", "/things", "", "location", "has no variable"),
        (
            "Find",
            "/things/{no}",
            "",
            "location",
            "`no` is not a single string field",
        ),
        (
            "Find",
            "/things/{more}",
            "",
            "location",
            "`more` is not a single string field",
        ),
        (
            "Find",
            "/things/{name}/{name}",
            "",
            "location",
            "`name` is not a single string field",
        ),
        (
            "Get",
            "/things/{name}/{id}",
            "",
            "resolve",
            "`Get` is not a unary rpc",
        ),
        (
            "No",
            "/things/{name}/{id}",
            "",
            "resolve",
            "`No` is not a unary rpc",
        ),
        (
            "Find",
            "/things/{name}/{id}",
            "string identity = 9;",
            "resolve",
            "no REQUIRED string of its own",
        ),
    ] {
        let diagnostics = diagnostics(&found(resolve, location, request));
        let option = format!("(drawbridge.v1.method).{option}");
        assert!(
            diagnostics
                .iter()
                .any(|r| r.option == option && r.problem.contains(want)),
            "{resolve} {location}: {}",
            printed(&diagnostics)
        );
    }
    let required = found("Find", "/things/{name}/{id}", "").replace(
        "string id = 8;",
        "string id = 8 [(google.api.field_behavior) = REQUIRED];",
    );
    assert!(printed(&diagnostics(&required)).contains("is not REQUIRED"));
}
