use serde_json::Value;
use url::Url;

use super::*;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/servicestage");

fn keys(ak: &str, sk: &str) -> Keys {
    Keys::new(&settings(ak, sk)).unwrap()
}

fn settings(ak: &str, sk: &str) -> AkSk {
    AkSk {
        access_key: ak.into(),
        secret_key: sk.into(),
        security_token: None,
        project_id: None,
        domain_id: None,
        iam_endpoint: None,
        region: None,
    }
}

fn headers(object: &Value) -> HeaderMap {
    object
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| {
            (
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_bytes(value.as_str().unwrap().as_bytes()).unwrap(),
            )
        })
        .collect()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{name}"))
}

/// The instant of a `YYYYMMDDTHHMMSSZ`.
fn instant(text: &str) -> SystemTime {
    let (day, time) = (&text[..8], &text[8..]);
    let (year, month, day) = (&day[..4], &day[4..6], &day[6..]);
    let (hour, minute, second) = (&time[..3], &time[3..5], &time[5..]);
    let text = format!("{year}-{month}-{day}{hour}:{minute}:{second}");
    let time: prost_types::Timestamp = text.parse().unwrap();
    time.try_into().unwrap()
}

/// The intermediate texts and the signature are those of the official signer.
#[test]
fn signing_vectors_of_the_official_signer_match() {
    let file = std::fs::read_to_string(format!("{FIXTURES}/signing_vectors.json")).unwrap();
    let file: Value = serde_json::from_str(&file).unwrap();
    let vectors = file["vectors"].as_array().unwrap();
    assert!(vectors.len() >= 18, "{}", vectors.len());
    for vector in vectors {
        let name = text(vector, "name");
        let expected = &vector["expected"];
        let mut all = headers(&vector["headers"]);
        if payload_is_unsigned(&all) {
            all.insert(PAYLOAD, UNSIGNED);
        }
        assert_eq!(
            all.get(PAYLOAD).map(HeaderValue::as_bytes),
            expected["headers_added"]["X-Sdk-Content-Sha256"]
                .as_str()
                .map(str::as_bytes),
            "{name}"
        );
        let target = text(expected, "request_target");
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let request = Request {
            verb: &text(vector, "method").parse().unwrap(),
            authority: text(vector, "host"),
            path,
            query,
            headers: &all,
            body: text(vector, "body").as_bytes(),
        };
        let signed: Vec<&str> = text(expected, "signed_headers").split(';').collect();
        let canonical = String::from_utf8(request.canonical(&signed)).unwrap();
        assert_eq!(canonical, text(expected, "canonical_request"), "{name}");
        let to_sign = String::from_utf8(request.string_to_sign(&signed)).unwrap();
        assert_eq!(to_sign, text(expected, "string_to_sign"), "{name}");
        let keys = keys(text(vector, "ak"), text(vector, "sk"));
        assert_eq!(
            keys.authorization(&request, &signed),
            text(expected, "authorization"),
            "{name}"
        );

        // The order of the query does not matter.
        let mut pairs: Vec<&str> = query.split('&').collect();
        pairs.reverse();
        assert_eq!(canonical_query(&pairs.join("&")), query, "{name}");
    }
}

/// The same vectors as complete requests, signed at their time.
#[test]
fn signed_requests_match_the_vectors() {
    let file = std::fs::read_to_string(format!("{FIXTURES}/signing_vectors.json")).unwrap();
    let file: Value = serde_json::from_str(&file).unwrap();
    for vector in file["vectors"].as_array().unwrap() {
        let name = text(vector, "name");
        // The gateway never sends such headers.
        if name == "header_spacing_and_case" {
            continue;
        }
        let expected = &vector["expected"];
        let mut sent = headers(&vector["headers"]);
        sent.remove(DATE);
        let mut settings = settings(text(vector, "ak"), text(vector, "sk"));
        settings.project_id = sent.remove(PROJECT).map(|v| v.to_str().unwrap().to_owned());
        settings.security_token = sent
            .remove(SECURITY_TOKEN)
            .map(|v| v.to_str().unwrap().into());
        let url = format!(
            "https://{}{}",
            text(vector, "host"),
            text(expected, "request_target")
        );
        let body = text(vector, "body").as_bytes();
        let mut request = HttpRequest {
            verb: text(vector, "method").parse().unwrap(),
            url: url.parse().unwrap(),
            headers: sent,
            body: (!body.is_empty()).then(|| bytes::Bytes::copy_from_slice(body)),
            memory: Default::default(),
        };
        let now = instant(text(vector, "date"));
        Keys::new(&settings)
            .unwrap()
            .sign(&mut request, None, now)
            .unwrap();
        assert_eq!(request.url.as_str(), url, "{name}: the URL is unchanged");
        let authorization = &request.headers[header::AUTHORIZATION];
        assert_eq!(authorization, text(expected, "authorization"), "{name}");
        assert!(authorization.is_sensitive(), "{name}");
    }
}

/// The vectors in the vendor's documentation, and one more.
/// Source: Open Telekom Cloud, API Gateway user guide, signing examples.
#[test]
fn documented_signatures_match() {
    const PROJECT_ID: &str = "95d02433133a4c0a87ba6967474a2ad3";
    let path = format!("/v1/{PROJECT_ID}/software_deployments");
    for (verb, path, query, date, more, body, signature) in [
        (
            Method::GET,
            "/path",
            "limit=1",
            "20060102T150405Z",
            &[][..],
            "",
            "5a2ce64c865e0e6046321c6f3d5a77ba8413eeaf355c3166c03d58d02ac79624",
        ),
        (
            Method::POST,
            "/path",
            "key=value",
            "20060102T150405Z",
            &[],
            "{\"Name\":\"test\",\"Id\":1}\n",
            "cecc2af119b18ab70b4d094c0750f3b42c02f254903179a0fc2cc72fc9db4f59",
        ),
        (
            Method::GET,
            &path,
            "server_id=ec14c864-096e-4e27-bb8a-2c2b4dc6f3f5",
            "20220102T030405Z",
            &["host", "x-project-id"],
            "",
            "04b3e8e4dea8dc5697b402fc1aa9b0c9fc705acd1e473553f6a17b7237339bb8",
        ),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(DATE, date.parse().unwrap());
        headers.insert(PROJECT, HeaderValue::from_static(PROJECT_ID));
        let request = Request {
            verb: &verb,
            authority: "rts.example.test",
            path,
            query,
            headers: &headers,
            body: body.as_bytes(),
        };
        let signed: Vec<&str> = more.iter().copied().chain(["x-sdk-date"]).collect();
        let authorization = keys("AccessKey", "SecretKey").authorization(&request, &signed);
        assert!(
            authorization.ends_with(signature),
            "{path}: {authorization}"
        );
    }
}

#[test]
fn path_and_query_are_canonicalized() {
    for (path, want) in [
        ("", "/"),
        ("/", "/"),
        ("/a", "/a/"),
        ("/a/", "/a/"),
        ("/a%2Fb", "/a/b/"),
        ("/a~b*c", "/a~b%2Ac/"),
        ("/%E8%AE%A2", "/%E8%AE%A2/"),
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
        ("a=%C3%A9&a=z", "a=z&a=%C3%A9"),
        ("&&a=1&", "a=1"),
    ] {
        assert_eq!(canonical_query(query), want, "{query}");
    }
}

#[test]
fn default_port_is_not_in_the_authority() {
    for (url, host) in [
        ("https://h.test/a", "h.test"),
        ("https://h.test:443/a", "h.test"),
        ("https://h.test:8443/a", "h.test:8443"),
        ("http://[::1]:80/a", "[::1]"),
        ("http://u:p@h.test:81/a", "h.test:81"),
    ] {
        let url: Url = url.parse().unwrap();
        let authority = &url[url::Position::BeforeHost..url::Position::AfterPort];
        assert_eq!(authority, host, "{url}");
    }
}

#[test]
fn clock_skew_is_read_from_the_date() {
    let now = httpdate::parse_http_date("Sat, 21 Nov 2026 04:00:00 GMT").unwrap();
    for (date, want) in [
        ("Sat, 21 Nov 2026 04:00:10 GMT", Some(10)),
        ("Sat, 21 Nov 2026 03:00:00 GMT", Some(3600)),
        ("yesterday", None),
    ] {
        let headers = HeaderMap::from_iter([(header::DATE, date.parse().unwrap())]);
        assert_eq!(
            clock_skew(&headers, now),
            want.map(Duration::from_secs),
            "{date}"
        );
    }
    assert_eq!(clock_skew(&HeaderMap::new(), now), None);
}

#[test]
fn invalid_key_is_named_without_its_value() {
    let mut bad = settings("AK\n", "SK");
    assert!(
        Keys::new(&bad)
            .unwrap_err()
            .to_string()
            .contains("access key")
    );
    bad = settings("AK", "SK");
    bad.security_token = Some("secret\n".into());
    let problem = Keys::new(&bad).unwrap_err().to_string();
    assert!(problem.contains("security token"), "{problem}");
    assert!(!problem.contains("secret\n"), "{problem}");
}
