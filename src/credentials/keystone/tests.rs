use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};

use super::*;

fn fixture(name: &str) -> Value {
    let path = format!("{}/tests/fixtures/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap()
}

fn reply(fixture: &Value) -> Reply {
    let response = &fixture["response"];
    Reply {
        status: StatusCode::from_u16(response["status"].as_u64().unwrap() as u16).unwrap(),
        headers: response["headers"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_bytes(name.as_bytes()).unwrap(),
                    value.as_str().unwrap().parse().unwrap(),
                )
            })
            .collect(),
        body: Bytes::from(response["body"].to_string()),
    }
}

fn name(name: &str) -> IdOrName {
    IdOrName::Name(name.into())
}

fn in_default(text: &str) -> Named {
    Named {
        id_or_name: name(text),
        domain: Some(name("Default")),
    }
}

fn password(secret: &str) -> Keystone {
    Keystone {
        auth_url: "http://127.0.0.1:15000/v3".parse().unwrap(),
        identity: Identity::Password {
            user: in_default("demo"),
            password: secret.into(),
        },
        project: Some(in_default("demo")),
        region: None,
        interfaces: vec!["public".into()],
    }
}

fn application_credential(id: &str) -> Keystone {
    Keystone {
        identity: Identity::ApplicationCredential {
            id_or_name: IdOrName::Id(id.into()),
            user: None,
            secret: "SECRET".into(),
        },
        ..password("")
    }
}

fn huawei() -> Keystone {
    Keystone {
        auth_url: "https://iam.example.test".parse().unwrap(),
        identity: Identity::Password {
            user: Named {
                id_or_name: name("UserA"),
                domain: Some(name("DomainA")),
            },
            password: "not-a-secret".into(),
        },
        project: Some(Named {
            id_or_name: name("region-1"),
            domain: None,
        }),
        ..password("")
    }
}

/// Requests of real clients, and the tokens of their responses.
#[test]
fn recorded_logins_are_sent_and_read() {
    let unscoped = Keystone {
        project: None,
        ..password("SECRET")
    };
    let heat = Some("orchestration");
    let uuid = "1acf51ab94b54a30b6596de5ae9fa89c";
    let demo = "d91f788dea90457093be2871ee40c820";
    for (file, settings, catalog, want) in [
        (
            "heat/auth.tokens.password.ok",
            password("SECRET"),
            heat,
            Ok(Some(demo)),
        ),
        (
            "heat/auth.tokens.application_credential.ok",
            application_credential(uuid),
            heat,
            Ok(Some(demo)),
        ),
        (
            "heat/auth.tokens.password.unscoped",
            unscoped.clone(),
            None,
            Ok(None),
        ),
        (
            "heat/auth.tokens.password.unscoped",
            unscoped,
            heat,
            Err((Code::FailedPrecondition, "has a project")),
        ),
        (
            "servicestage/IamCreateToken",
            huawei(),
            None,
            Ok(Some("0a1b2c3d4e5f60718293a4b5c6d7e8f9")),
        ),
        (
            "heat/auth.tokens.password.wrong",
            password("not-the-password"),
            heat,
            Err((Code::Unauthenticated, "127.0.0.1:15000/v3 as user demo")),
        ),
        (
            "heat/auth.tokens.application_credential.unknown",
            application_credential("00000000000000000000000000000000"),
            heat,
            Err((
                Code::Unauthenticated,
                "the application credential does not exist",
            )),
        ),
    ] {
        let fixture = fixture(file);
        let login = Login::new(settings, catalog);
        let sent = login.request(SystemTime::UNIX_EPOCH).unwrap();
        let body: Value = serde_json::from_slice(&sent.body.unwrap()).unwrap();
        assert_eq!(body, fixture["request"]["body"], "{file}");
        assert_eq!(sent.url.path(), fixture["request"]["path"], "{file}");
        assert_eq!(sent.verb, "POST", "{file}");
        assert_eq!(sent.headers["content-type"], "application/json", "{file}");

        match (login.read(&reply(&fixture), SystemTime::UNIX_EPOCH), want) {
            (Ok(token), Ok(project)) => {
                assert_eq!(token.project_id.as_deref(), project, "{file}");
                let expected = catalog.map(|_| format!("http://127.0.0.1:18004/v1/{demo}"));
                assert_eq!(token.endpoint.map(String::from), expected, "{file}");
                let Authorization::Headers(headers) = token.authorization else {
                    panic!("{file}");
                };
                assert_eq!(headers[0].0, "x-auth-token", "{file}");
                assert_eq!(
                    fixture["response"]["headers"]["X-Subject-Token"],
                    headers[0].1.to_str().unwrap(),
                    "{file}"
                );
                assert!(headers[0].1.is_sensitive(), "{file}");
                // An hour or a day, less a second for truncated times.
                let lifetime = token.lifetime.unwrap() + Duration::from_secs(1);
                assert!([3_600, 86_400].contains(&lifetime.as_secs()), "{file}");
            }
            (Err(Error::Credential { code, problem }), Err((want, part))) => {
                assert_eq!(code, want, "{file}: {problem}");
                assert!(problem.contains(part), "{file}: {problem}");
                for secret in ["SECRET", "not-the-password", "TOKEN"] {
                    assert!(!problem.contains(secret), "{file}: {problem}");
                }
            }
            (got, want) => panic!("{file}: {got:?}, not {want:?}"),
        }
    }
}

#[test]
fn auth_url_may_lack_the_version() {
    for (auth_url, catalog, want) in [
        (
            "https://k.test",
            None,
            "https://k.test/v3/auth/tokens?nocatalog=true",
        ),
        (
            "https://k.test/v3/",
            Some("x"),
            "https://k.test/v3/auth/tokens",
        ),
        (
            "https://k.test/identity",
            Some("x"),
            "https://k.test/identity/v3/auth/tokens",
        ),
        (
            "https://k.test/identity/v3?a#b",
            Some("x"),
            "https://k.test/identity/v3/auth/tokens",
        ),
    ] {
        let settings = Keystone {
            auth_url: auth_url.parse().unwrap(),
            ..password("")
        };
        let sent = Login::new(settings, catalog).request(SystemTime::UNIX_EPOCH);
        assert_eq!(sent.unwrap().url.as_str(), want, "{auth_url}");
    }
}

#[test]
fn login_body_has_identity_and_scope() {
    let by_name = Identity::ApplicationCredential {
        id_or_name: name("ci"),
        user: Some(in_default("demo")),
        secret: "s".into(),
    };
    let project_id = Some(Named {
        id_or_name: IdOrName::Id("p1".into()),
        domain: Some(name("ignored")),
    });
    for (identity, project, want) in [
        (
            by_name,
            project_id.clone(),
            json!({"auth": {"identity": {
                "methods": ["application_credential"],
                "application_credential": {"name": "ci", "secret": "s",
                    "user": {"name": "demo", "domain": {"name": "Default"}}}}}}),
        ),
        (
            Identity::Token("t".into()),
            project_id,
            json!({"auth": {
                "identity": {"methods": ["token"], "token": {"id": "t"}},
                "scope": {"project": {"id": "p1"}}}}),
        ),
    ] {
        let settings = Keystone {
            identity,
            project,
            ..password("")
        };
        assert_eq!(Login::new(settings, None).body(), want);
    }
}

fn issued(catalog: Value) -> Reply {
    let body = json!({"token": {"expires_at": null, "catalog": catalog}});
    Reply {
        status: StatusCode::CREATED,
        headers: HeaderMap::from_iter([(
            HeaderName::from_static("x-subject-token"),
            "T".parse().unwrap(),
        )]),
        body: Bytes::from(body.to_string()),
    }
}

#[test]
fn endpoint_is_looked_up_by_interface_and_region() {
    let endpoint = |interface: &str, region: &str, url: &str| json!({"interface": interface, "region": region, "region_id": region, "url": url});
    let catalog = json!([
        {"type": "cloudformation", "endpoints": [endpoint("public", "A", "http://cfn.test")]},
        {"type": "orchestration", "endpoints": [
            endpoint("public", "B", "http://b.test/v1/p"),
            endpoint("public", "A", "http://a.test/heat-api/v1/p"),
            endpoint("internal", "A", "http://inner.test/v1/p"),
            endpoint("public", "C", "not a url"),
            endpoint("public", "D", "http://d1.test"),
            endpoint("public", "D", "http://d2.test"),
            {"interface": 7},
        ]},
        {"type": 7, "endpoints": "none"},
        {"endpoints": [endpoint("public", "E", "http://e.test")]},
        {"type": "compute", "endpoints": [{"interface": "public", "url": null}]},
        {"type": "compute", "endpoints": null},
        "orchestration",
    ]);
    for (region, interface, want) in [
        (None, "public", Err("set the region: there is A, B, C, D")),
        (Some("A"), "public", Ok("http://a.test/heat-api/v1/p")),
        (Some("A"), "internal", Ok("http://inner.test/v1/p")),
        (
            Some("Z"),
            "public",
            Err("none in region Z: there is A, B, C, D"),
        ),
        (Some("B"), "internal", Err("none in region B: there is A")),
        (
            Some("A"),
            "admin",
            Err("there is internal, public in region A: set interface"),
        ),
        (
            None,
            "admin",
            Err("there is internal, public: set interface"),
        ),
        (Some("A"), "internal,public", Ok("http://inner.test/v1/p")),
        (
            Some("A"),
            "public,internal",
            Ok("http://a.test/heat-api/v1/p"),
        ),
        (Some("B"), "internal,public", Ok("http://b.test/v1/p")),
        (
            Some("D"),
            "public",
            Err("there are several: set `endpoint` to one of http://d1.test, http://d2.test"),
        ),
        (Some("C"), "public", Err("invalid URL")),
    ] {
        let settings = Keystone {
            region: region.map(str::to_owned),
            interfaces: interface.split(',').map(str::to_owned).collect(),
            ..password("SECRET")
        };
        let login = Login::new(settings, Some("orchestration"));
        match (
            login.read(&issued(catalog.clone()), SystemTime::UNIX_EPOCH),
            want,
        ) {
            (Ok(token), Ok(url)) => {
                assert_eq!(token.endpoint.unwrap().as_str(), url);
                assert_eq!(token.lifetime, None);
            }
            (Err(Error::Credential { code, problem }), Err(part)) => {
                assert_eq!(code, Code::FailedPrecondition);
                assert!(problem.contains(part), "{problem}");
            }
            (got, want) => panic!("{got:?}, not {want:?}"),
        }
    }
}

#[test]
fn rejected_or_invalid_logins_are_errors_without_secrets() {
    let response = |status: u16, body: &'static str| Reply {
        status: StatusCode::from_u16(status).unwrap(),
        headers: HeaderMap::new(),
        body: Bytes::from_static(body.as_bytes()),
    };
    let redirect = |status, location: &str| {
        let mut reply = response(status, "");
        let location = location.parse().unwrap();
        reply.headers.insert(http::header::LOCATION, location);
        reply
    };
    let mut factor = response(401, "");
    factor
        .headers
        .insert("openstack-auth-receipt", "r".parse().unwrap());
    let mut html = issued(json!([]));
    html.body = Bytes::from_static(b"<html>SECRET</html>");
    let mut empty = issued(json!([]));
    empty.headers.insert("x-subject-token", "".parse().unwrap());
    let echo = r#"{"error": {"message": "'SECRET' is not a password"}}"#;
    for (reply, code, part) in [
        (response(401, echo), Code::Unauthenticated, "check user"),
        (response(403, ""), Code::Unauthenticated, "HTTP 403"),
        (response(400, echo), Code::FailedPrecondition, "HTTP 400"),
        (
            response(404, "<html>"),
            Code::FailedPrecondition,
            "check the URL",
        ),
        (response(302, ""), Code::FailedPrecondition, "check the URL"),
        (
            redirect(301, "https://new.test/v3/auth/tokens?t=SECRET"),
            Code::FailedPrecondition,
            "HTTP 301: it redirects to https://new.test/v3/auth/tokens, and",
        ),
        (
            redirect(307, "/identity/v3"),
            Code::FailedPrecondition,
            "it redirects to /identity/v3, and",
        ),
        (
            redirect(307, "/SECRET"),
            Code::FailedPrecondition,
            "check the URL",
        ),
        (response(429, ""), Code::Unavailable, "HTTP 429"),
        (response(503, echo), Code::Unavailable, "HTTP 503"),
        (response(200, "{}"), Code::Unavailable, "X-Subject-Token"),
        (
            response(200, "<!DOCTYPE html>"),
            Code::Unavailable,
            "it is a web page: it may be no identity service: check the URL",
        ),
        (
            response(200, ""),
            Code::Unavailable,
            "X-Subject-Token: it may be no identity service: check the URL",
        ),
        (factor, Code::Unauthenticated, "second factor"),
        (html, Code::Unavailable, "it is a web page"),
        (empty, Code::Unavailable, "the token is empty"),
    ] {
        let login = Login::new(password("SECRET"), None);
        let Err(Error::Credential { code: got, problem }) =
            login.read(&reply, SystemTime::UNIX_EPOCH)
        else {
            panic!("{part}");
        };
        assert_eq!(got, code, "{problem}");
        assert!(problem.contains(part), "{problem}");
        assert!(problem.contains("127.0.0.1:15000"), "{problem}");
        assert!(!problem.contains("SECRET"), "{problem}");
    }
}
