use http::{HeaderName, HeaderValue, header};
use serde_json::Value;

use super::*;

const FIXTURES: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../tests/fixtures/servicestage"
);

fn read(name: &str) -> Value {
    let text = std::fs::read_to_string(format!("{FIXTURES}/{name}")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{name}"))
}

fn headers(object: &Value) -> HeaderMap {
    let header = |(name, value): (&String, &Value)| {
        let value = value.as_str().unwrap();
        (
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        )
    };
    object.as_object().unwrap().iter().map(header).collect()
}

/// Signs a request without a body, as a client does, and returns its headers.
pub(crate) fn sign(
    access_key: &str,
    secret: &str,
    target: &str,
    at: SystemTime,
    more: &[(&'static str, &str)],
) -> HeaderMap {
    let mut sent = HeaderMap::new();
    let date = crate::message::seconds(at).replace(['-', ':'], "");
    sent.insert("x-sdk-date", date.parse().unwrap());
    sent.insert("host", HeaderValue::from_static("127.0.0.1:1"));
    for (name, value) in more {
        sent.insert(*name, value.parse().unwrap());
    }
    let mut signed: Vec<&str> = sent.keys().map(HeaderName::as_str).collect();
    signed.sort_unstable();
    let signed = signed.join(";");
    let request = Request {
        method: &Method::GET,
        target,
        headers: &sent,
        body: b"",
    };
    let canonical = hex_sha256(&canonical_request(request, &signed).unwrap());
    let string_to_sign = format!("{ALGORITHM}\n{date}\n{canonical}");
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, string_to_sign.as_bytes());
    let tag: String = tag.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    let authorization =
        format!("{ALGORITHM} Access={access_key}, SignedHeaders={signed}, Signature={tag}");
    sent.insert("authorization", authorization.parse().unwrap());
    sent
}

/// Each request of the official signer verifies, and its canonical form is equal.
#[test]
fn official_vectors_verify() {
    let file = read("signing_vectors.json");
    let vectors = file["vectors"].as_array().unwrap();
    assert!(vectors.len() >= 18, "{}", vectors.len());
    for vector in vectors {
        let name = text(vector, "name");
        let expected = &vector["expected"];
        let mut sent = headers(&vector["headers"]);
        sent.extend(headers(&expected["headers_added"]));
        sent.insert(
            "authorization",
            text(expected, "authorization").parse().unwrap(),
        );
        let method: Method = text(vector, "method").parse().unwrap();
        let request = Request {
            method: &method,
            target: text(expected, "request_target"),
            headers: &sent,
            body: text(vector, "body").as_bytes(),
        };
        let canonical = canonical_request(request, text(expected, "signed_headers")).unwrap();
        assert_eq!(
            String::from_utf8(canonical).unwrap(),
            text(expected, "canonical_request"),
            "{name}"
        );
        let date = parse_date(text(vector, "date").as_bytes()).unwrap();
        let secret = text(vector, "sk");
        assert_eq!(access_key(&sent), Some(text(vector, "ak")), "{name}");
        assert_eq!(verify(request, secret, Some(date)), Ok(()), "{name}");
        assert!(verify(request, "another", Some(date)).is_err(), "{name}");
    }
}

/// Requests of the official client verify; with any change they do not.
#[test]
fn only_the_request_that_was_signed_verifies() {
    let mut seen = 0;
    for entry in std::fs::read_dir(FIXTURES).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !name.ends_with(".json") {
            continue;
        }
        let capture = read(&name);
        let sent = &capture["request"];
        if sent["headers"]["Authorization"].is_null() {
            continue;
        }
        seen += 1;
        let all = headers(&sent["headers"]);
        let method: Method = text(sent, "method").parse().unwrap();
        let request = Request {
            method: &method,
            target: text(sent, "raw_target"),
            headers: &all,
            body: sent["body_text"].as_str().unwrap_or_default().as_bytes(),
        };
        let secret = "SKTEST";
        assert_eq!(access_key(&all), Some("AKTEST"), "{name}");
        assert_eq!(verify(request, secret, None), Ok(()), "{name}");

        let date = parse_date(all["x-sdk-date"].as_bytes()).unwrap();
        assert_eq!(verify(request, secret, Some(date + MAX_SKEW)), Ok(()));
        assert_eq!(verify(request, secret, Some(date - MAX_SKEW)), Ok(()));
        for off in [
            date + MAX_SKEW + Duration::from_secs(1),
            date - MAX_SKEW - Duration::from_secs(1),
        ] {
            assert!(verify(request, secret, Some(off)).is_err(), "{name}");
        }
        assert!(verify(request, "SKTESt", None).is_err(), "{name}");
        let other_body = Request {
            body: b"[]",
            ..request
        };
        // Clients that do not sign the body send a word in place of its hash.
        let unsigned = all.contains_key("x-sdk-content-sha256");
        assert!(
            unsigned || verify(other_body, secret, None).is_err(),
            "{name}"
        );
        let target = format!("{}x", request.target);
        let other_target = Request {
            target: &target,
            ..request
        };
        assert!(verify(other_target, secret, None).is_err(), "{name}");
        let mut hostless = all.clone();
        hostless.remove(header::HOST);
        let without_host = Request {
            headers: &hostless,
            ..request
        };
        assert!(verify(without_host, secret, None).is_err(), "{name}");
    }
    assert!(seen >= 50, "{seen} captures");
}

#[test]
fn paths_and_queries_have_one_canonical_form() {
    for (path, want) in [
        ("", "/"),
        ("/", "/"),
        ("/a", "/a/"),
        ("/a/", "/a/"),
        ("/a%2Fb", "/a/b/"),
        ("/a~b*c", "/a~b%2Ac/"),
        ("/%e8%ae%a2", "/%E8%AE%A2/"),
        ("/a%25c", "/a%25c/"),
        ("/a+b", "/a%2Bb/"),
        ("/a%zz", "/a%25zz/"),
    ] {
        assert_eq!(canonical_path(path), want, "{path}");
    }
    for (query, want) in [
        ("", ""),
        ("b=2&a=1", "a=1&b=2"),
        ("a=2&a=1&a", "a=&a=1&a=2"),
        ("a=b=c", "a=b%3Dc"),
        ("a=x+y", "a=x%20y"),
        ("a=x%2By", "a=x%2By"),
        ("a=%C3%A9&a=z", "a=z&a=%C3%A9"),
        ("&&a=1&", "a=1"),
    ] {
        assert_eq!(canonical_query(query), want, "{query}");
    }
}

#[test]
fn malformed_headers_are_rejected() {
    for value in [
        "",
        "Basic abc",
        "SDK-HMAC-SHA256",
        "SDK-HMAC-SHA256 Access=a",
        "SDK-HMAC-SHA256 Access=a, SignedHeaders=host",
        "SDK-HMAC-SHA256 SignedHeaders=host, Access=a, Signature=00",
    ] {
        let mut all = HeaderMap::new();
        all.insert("authorization", value.parse().unwrap());
        assert_eq!(access_key(&all), None, "{value}");
    }
    for date in [
        "",
        "20260314",
        "2026-03-14T09:26",
        "20261414T092653Z",
        "2026+314T092653Z",
    ] {
        assert_eq!(parse_date(date.as_bytes()), None, "{date}");
    }
    for hex in ["0", "0g", "+1", "é"] {
        assert_eq!(decode_hex(hex), None, "{hex}");
    }
}
