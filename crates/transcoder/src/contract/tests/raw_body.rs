//! Bodies that are bytes, not JSON.

use super::*;
use crate::json::wire::write_bytes;

/// Compiles an rpc with this rule and media type.
fn test(rule: &str, media_type: &str, messages: &str) -> TestContract {
    TestContract::new(&with_http_body(rule, media_type, messages))
}

fn with_http_body(rule: &str, media_type: &str, messages: &str) -> String {
    let media_type = match media_type {
        "" => String::new(),
        text => format!("option (drawbridge.v1.method).body_media_type = \"{text}\";"),
    };
    let service = unary(
        &format!("option (google.api.http) = {{ {rule} }}; {media_type}"),
        messages,
    );
    service.replacen(
        "import \"google/api/annotations.proto\";",
        "import \"google/api/annotations.proto\"; import \"google/api/httpbody.proto\";",
        1,
    )
}

fn content_type(call: &Call) -> Option<&str> {
    call.media
        .content_type
        .as_ref()
        .map(|v| v.to_str().unwrap())
}

#[test]
fn bytes_are_the_body() {
    const OCTETS: &str = "application/octet-stream";
    let put = "put: \"/f/{id}\" body: \"data\"";
    // "\x00\xff{" in base64, as proto3 JSON has it.
    let bytes = json!("AP97");
    let raw: &[u8] = b"\x00\xff{";
    for (rule, media_type, field, value, want) in [
        (
            put,
            "",
            "bytes data = 2;",
            bytes.clone(),
            Some((OCTETS, raw)),
        ),
        (
            put,
            "image/png",
            "bytes data = 2;",
            bytes.clone(),
            Some(("image/png", raw)),
        ),
        (
            put,
            "application/vnd.acme.v1+cbor; version=\\\"1;2\\\"",
            "bytes data = 2;",
            bytes.clone(),
            Some(("application/vnd.acme.v1+cbor; version=\"1;2\"", raw)),
        ),
        // Bytes without presence are sent when empty, others only when set.
        (put, "", "bytes data = 2;", json!(null), Some((OCTETS, b""))),
        (put, "", "optional bytes data = 2;", json!(null), None),
        (
            put,
            "",
            "optional bytes data = 2;",
            json!(""),
            Some((OCTETS, b"")),
        ),
        (
            put,
            "",
            "oneof o { bytes data = 2; string other = 4; }",
            bytes.clone(),
            Some((OCTETS, raw)),
        ),
        (
            put,
            "",
            "google.protobuf.BytesValue data = 2;",
            bytes.clone(),
            Some((OCTETS, raw)),
        ),
        (
            put,
            "",
            "google.protobuf.BytesValue data = 2;",
            json!(null),
            None,
        ),
        (
            put,
            "",
            "google.api.HttpBody data = 2;",
            json!({"contentType": "text/csv; header=present", "data": "YSxi"}),
            Some(("text/csv; header=present", b"a,b")),
        ),
        (
            put,
            "image/png",
            "google.api.HttpBody data = 2;",
            json!({"data": "AP97"}),
            Some(("image/png", raw)),
        ),
        (
            put,
            "",
            "google.api.HttpBody data = 2;",
            json!({}),
            Some((OCTETS, b"")),
        ),
        (put, "", "google.api.HttpBody data = 2;", json!(null), None),
        // A string is JSON, unless a media type is declared.
        (
            put,
            "text/plain; charset=utf-8",
            "string data = 2;",
            json!("a: \"ä\"\n"),
            Some(("text/plain; charset=utf-8", "a: \"ä\"\n".as_bytes())),
        ),
        (
            put,
            "application/json",
            "string data = 2;",
            json!("{\"a\":1}"),
            Some(("application/json", b"{\"a\":1}")),
        ),
        (
            put,
            "application/yaml",
            "google.protobuf.StringValue data = 2;",
            json!("a: 1"),
            Some(("application/yaml", b"a: 1")),
        ),
    ] {
        let messages = format!("message Req {{ string id = 1; {field} }} message Res {{}}");
        let test = test(rule, media_type, &messages);
        let call = test
            .bind(json!({"id": "i", "data": value.clone()}))
            .unwrap();
        assert_eq!((&*call.path, &*call.query), ("/f/i", ""), "{field}");
        let sent = content_type(&call).zip(call.body.as_deref());
        assert_eq!(sent, want, "{field} {value}");
    }
    for (field, want) in [
        ("string data = 2;", "\"t\""),
        ("google.protobuf.StringValue data = 2;", "\"t\""),
        ("repeated string data = 2;", "[\"t\"]"),
    ] {
        let messages = format!("message Req {{ string id = 1; {field} }} message Res {{}}");
        let value = match field.starts_with("repeated") {
            true => json!(["t"]),
            false => json!("t"),
        };
        let call = test(put, "", &messages)
            .bind(json!({"id": "i", "data": value}))
            .unwrap();
        assert_eq!((content_type(&call), body(&call)), (None, Some(want)));
    }
}

#[test]
fn required_bytes_must_not_be_empty() {
    let field = "bytes data = 2 [(google.api.field_behavior) = REQUIRED];";
    let messages = format!("message Req {{ string id = 1; {field} }} message Res {{}}");
    let test = test("put: \"/f/{id}\" body: \"data\"", "", &messages);
    let error = test.bind(json!({"id": "i"})).unwrap_err();
    assert_eq!(fault(&error), ("data", "is required"));
}

#[test]
fn request_can_be_the_body() {
    let test = TestContract::new(
        &with_http_body("post: \"/f\" body: \"*\"", "", "message Res {}").replacen(
            "Do(Req)",
            "Do(google.api.HttpBody)",
            1,
        ),
    );
    let wire = test.wire(
        "google.api.HttpBody",
        json!({"contentType": "image/png", "data": "AP97"}),
    );
    let call = test.rpc("Do").bind(&wire, "").unwrap();
    assert_eq!(content_type(&call), Some("image/png"));
    assert_eq!(call.body.as_deref(), Some(&b"\x00\xff{"[..]));
    assert_eq!(call.query, "");
}

#[test]
fn invalid_media_type_or_text_is_rejected() {
    let messages = "message Req { google.api.HttpBody data = 2; } message Res {}";
    let http_body = test("post: \"/f\" body: \"data\"", "", messages);
    for text in [
        "png",
        "*/*",
        "image/",
        "a/b\r\nx: y",
        "text/plain;",
        "ä/b",
        " a/b",
    ] {
        let error = http_body
            .bind(json!({"data": {"contentType": text, "data": "AP97"}}))
            .unwrap_err();
        assert_eq!(fault(&error).0, "data.content_type", "{text}");
    }
    let messages = "message Req { string data = 2; } message Res {}";
    let text = test("post: \"/f\" body: \"data\"", "text/plain", messages);
    let error = text.rpc("Do").bind(b"\x12\x01\xff", "").unwrap_err();
    assert_eq!(fault(&error), ("data", "is not UTF-8"));
}

#[test]
fn large_bytes_are_not_copied() {
    for (field, nested) in [
        ("bytes data = 2;", false),
        ("google.api.HttpBody data = 2;", true),
    ] {
        let messages = format!("message Req {{ {field} }} message Res {{}}");
        let test = test("post: \"/f\" body: \"data\"", "", &messages);
        let large = vec![7; 1 << 20];
        let mut request = Vec::new();
        match nested {
            false => write_bytes(&mut request, 2, &large),
            true => {
                let mut inner = Vec::new();
                write_bytes(&mut inner, 2, &large);
                write_bytes(&mut request, 2, &inner);
            }
        }
        let request = Bytes::from(request);
        let sent = test
            .rpc("Do")
            .bind_shared(&request, "")
            .unwrap()
            .body
            .unwrap();
        assert_eq!(sent, large);
        assert!(request.as_ptr_range().contains(&sent.as_ptr()), "{field}");
    }
}

#[test]
fn reply_becomes_an_http_body() {
    let reply = |content_type: Option<&'static str>, body: &'static [u8]| Reply {
        status: StatusCode::OK,
        headers: content_type
            .map(|text| (http::header::CONTENT_TYPE, HeaderValue::from_static(text)))
            .into_iter()
            .collect(),
        body: Bytes::from_static(body),
    };
    let all = "message Req {} message Res { google.api.HttpBody file = 1; bytes raw = 2; }";
    for (rule, response, want) in [
        (
            "get: \"/f\"",
            "google.api.HttpBody",
            json!({"content_type": "text/html", "data": "PHA+"}),
        ),
        (
            "get: \"/f\" response_body: \"file\"",
            "Res",
            json!({"file": {"content_type": "text/html", "data": "PHA+"}}),
        ),
        (
            "get: \"/f\" response_body: \"raw\"",
            "Res",
            json!({"raw": "PHA+"}),
        ),
    ] {
        let proto = with_http_body(rule, "", all);
        let test = TestContract::new(&proto.replacen(
            "returns (Res)",
            &format!("returns ({response})"),
            1,
        ));
        let message = match response {
            "Res" => "t.Res",
            other => other,
        };
        let decoded = test
            .rpc("Do")
            .decode(&reply(Some("text/html"), b"<p>"))
            .unwrap();
        assert_eq!(test.json(message, &decoded.message), want, "{rule}");
        let empty = test.rpc("Do").decode(&reply(None, b""));
        assert!(empty.is_ok(), "{rule}");
        // The test's family recognizes `{"fault"`.
        for (media_type, is_ok) in [
            ("application/json", false),
            ("application/problem+json", false),
            ("text/plain", true),
        ] {
            let fault = reply(Some(media_type), b"{\"fault\": 1}");
            let got = test.rpc("Do").decode(&fault);
            assert_eq!(got.is_ok(), is_ok, "{rule} {media_type}");
        }
        let call = test.rpc("Do").bind(b"", "").unwrap();
        assert_eq!(call.media.accept.unwrap(), "*/*", "{rule}");
    }
}
