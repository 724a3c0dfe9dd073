//! Which responses to a download are the file.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::{TestContract, proto};
use crate::call::Reply;
use crate::contract::ObjectScan;

fn test(accept: &str) -> TestContract {
    TestContract::new(&proto(&format!(
        r#"service S {{
          rpc Take(Req) returns (stream Res) {{
            option (google.api.http) = {{get: "/f"}};
            option (drawbridge.v1.method).download = {{
              file_name: "name" chunk: "data" accept: "{accept}"
            }};
          }}
        }}
        message Req {{}}
        message Res {{ string name = 1; bytes data = 2; }}"#
    )))
}

fn reply(media_type: &str, body: &'static str) -> Reply {
    let mut headers = HeaderMap::new();
    if !media_type.is_empty() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_str(media_type).unwrap());
    }
    Reply {
        status: StatusCode::OK,
        headers,
        body: Bytes::from_static(body.as_bytes()),
    }
}

#[test]
fn media_type_of_the_request_decides() {
    // The test's family recognizes `{"fault"`.
    const FAULT: &str = r#"{"fault":1}"#;
    for (accept, media_type, body, is_file) in [
        ("", "text/html", "<p>", false),
        ("application/octet-stream", "text/html", "<p>", false),
        ("text/plain", "text/html", "<p>", false),
        ("text/plain, text/html;q=0.5", "TEXT/HTML", "<p>", true),
        ("text/*", "text/html;charset=x", "<p>", true),
        ("*/*", "text/html", "<p>", true),
        ("application/*", "application/xhtml+xml", "<p>", true),
        ("application/*", "text/html", "<p>", false),
        ("", "application/json", FAULT, false),
        ("application/json", "application/json", FAULT, false),
        ("", "application/hal+json", FAULT, false),
        ("", "text/plain", FAULT, true),
        ("", "", FAULT, true),
        ("", "application/zip", FAULT, true),
        ("", "application/x-ndjson", FAULT, true),
        ("", "application/problem+json", "{}", false),
        ("*/*", "application/problem+json", "{}", false),
        (
            "application/problem+json",
            "application/problem+json",
            "{}",
            true,
        ),
    ] {
        let test = test(accept);
        let method = test.rpc("Take");
        let reply = reply(media_type, body);
        let case = format!("{accept:?} {media_type} {body}");
        assert_eq!(method.check_file(&reply).is_ok(), is_file, "{case}");
        // A check of the body has read its start.
        let needs_start = method.download.as_ref().unwrap().needs_start(&reply);
        assert!(needs_start || is_file || body == "<p>", "{case}");
    }
}

#[test]
fn end_of_the_first_object_is_found() {
    for (body, want) in [
        ("", None),
        ("  \n", None),
        ("[1", Some(1)),
        ("text", Some(1)),
        ("\u{feff}x", Some(4)),
        ("{}", Some(2)),
        (" {\"a\": [1, {}]} {", Some(15)),
        ("\u{feff}{\"a\": 1}", Some(11)),
        ("{\"}\\\"}\\\\\": \"[\"}x", Some(15)),
        ("{\"a\": {\"b\": \"}", None),
    ] {
        let mut scan = ObjectScan::default();
        let bytes = body.as_bytes();
        let ends = (0..=bytes.len()).find(|end| {
            let scanned = end.saturating_sub(1);
            !scan.needs_more(&bytes[..*end], scanned)
        });
        assert_eq!(ends, want, "{body}");
        let all = ObjectScan::default().needs_more(bytes, 0);
        assert_eq!(all, want.is_none(), "{body}");
    }
}
