use std::time::Duration;

use http::Method;

use super::*;
use crate::error::LoginFailure;
use crate::http_client::test_server::{self, TestResponse, TestServer, reply};

/// Returns a transport with short timeouts.
fn transport() -> Transport {
    let settings = crate::http_client::Settings {
        ca_file: None,
        connect_timeout: Duration::from_secs(1),
        read_timeout: Duration::from_secs(1),
        max_response_bytes: 1024,
        proxy_from_env: false,
        ..crate::http_client::Settings::default()
    };
    Transport::new(&settings).unwrap()
}

fn credentials(settings: Settings) -> Credentials {
    Credentials::new(settings, None, None, None, transport())
}

fn request() -> HttpRequest {
    HttpRequest {
        verb: Method::GET,
        url: "https://api.test/v1/x?b=2&a=1".parse().unwrap(),
        headers: HeaderMap::new(),
        body: None,
        memory: Default::default(),
    }
}

fn client(token: Option<&str>, authorization: Option<&str>) -> Downstream {
    Downstream {
        token: token.map(|t| t.parse().unwrap()),
        authorization: authorization.map(|t| t.parse().unwrap()),
        ..Downstream::default()
    }
}

fn keys() -> AkSk {
    AkSk {
        access_key: "AKTEST".into(),
        secret_key: "SECRET".into(),
        security_token: Some("SECRET".into()),
        project_id: Some("P".into()),
        domain_id: Some("D".into()),
        iam_endpoint: None,
        region: Some("R".into()),
    }
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(5))
}

/// Without a login: the headers of a request, or the error.
#[tokio::test]
async fn credentials_without_login_authorize_requests() {
    let user = || "u".to_owned();
    let bearer = client(None, Some("Bearer SECRET"));
    let none = Downstream::default();
    for (settings, client, want) in [
        (Settings::None, &none, Ok(&[][..])),
        // The client's own credentials go nowhere else.
        (Settings::None, &bearer, Ok(&[])),
        (
            Settings::Token {
                header: X_AUTH_TOKEN,
                token: "SECRET".into(),
            },
            &bearer,
            Ok(&[("x-auth-token", "SECRET")]),
        ),
        (
            Settings::Basic {
                username: user(),
                password: "SECRET".into(),
            },
            &none,
            Ok(&[("authorization", "Basic dTpTRUNSRVQ=")]),
        ),
        (
            Settings::Hsso {
                username: user(),
                password: "SECRET".into(),
            },
            &none,
            Ok(&[("authorization", "Basic dTpTRUNSRVQ=")]),
        ),
        (
            Settings::Passthrough,
            &bearer,
            Ok(&[("authorization", "Bearer SECRET")]),
        ),
        (
            Settings::Passthrough,
            &client(Some("SECRET"), None),
            Ok(&[("x-auth-token", "SECRET")]),
        ),
        (
            Settings::Passthrough,
            &none,
            Err((Code::Unauthenticated, "`x-auth-token` or `authorization`")),
        ),
        (
            Settings::Token {
                header: X_AUTH_TOKEN,
                token: "SECRET\n".into(),
            },
            &none,
            Err((Code::FailedPrecondition, "line break")),
        ),
        (
            Settings::Basic {
                username: "u:v".into(),
                password: "SECRET".into(),
            },
            &none,
            Err((Code::FailedPrecondition, "colon")),
        ),
    ] {
        let credentials = credentials(settings.clone());
        for debug in [format!("{settings:?}"), format!("{credentials:?}")] {
            assert!(
                !debug.contains("SECRET") && !debug.contains("dTp"),
                "{debug}"
            );
        }
        match (credentials.get(client, soon()).await, want) {
            (Ok(credential), Ok(want)) => {
                let mut request = request();
                credential.authorize(&mut request, None).unwrap();
                let got: Vec<(&str, &str)> = request
                    .headers
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
                    .collect();
                assert_eq!(got, want, "{settings:?}");
                assert!(request.headers.values().all(HeaderValue::is_sensitive));
                let debug = format!("{credential:?} {request:?}");
                assert!(
                    !debug.contains("SECRET") && !debug.contains("dTp"),
                    "{debug}"
                );
                assert!(
                    !credentials.invalidate(&credential),
                    "there is no other one"
                );
            }
            (Err(Error::Credential { code, problem }), Err((want, part))) => {
                assert_eq!(code, want, "{problem}");
                assert!(problem.contains(part), "{problem}");
                assert!(!problem.contains("SECRET"), "{problem}");
            }
            (got, want) => panic!("{settings:?}: {got:?}, not {want:?}"),
        }
    }
}

/// Keys with a project id need no lookup, and a rejected signature is final.
#[tokio::test]
async fn signature_covers_project_and_is_not_renewed() {
    let credentials = credentials(Settings::AkSk(keys()));
    let credential = credentials
        .get(&Downstream::default(), soon())
        .await
        .unwrap();
    assert_eq!(credential.project_id.as_deref(), Some("P"));
    let mut request = request();
    credential.authorize(&mut request, None).unwrap();
    assert_eq!(request.headers["x-project-id"], "P");
    assert!(!request.headers.contains_key("x-domain-id"));
    assert_eq!(request.url.query(), Some("b=2&a=1"), "unchanged");
    let signed = request.headers[header::AUTHORIZATION].to_str().unwrap();
    let list = "SignedHeaders=host;x-project-id;x-sdk-date;x-security-token,";
    assert!(signed.contains(list), "{signed}");
    assert!(!credentials.invalidate(&credential));
    let debug = format!("{credentials:?} {credential:?} {request:?}");
    assert!(!debug.contains("SECRET"), "{debug}");
}

#[test]
fn project_is_looked_up_for_keys_with_a_region_only() {
    for (project_id, region, want) in [
        (None, Some("R"), true),
        (None, None, false),
        (Some("P"), Some("R"), false),
    ] {
        let keys = AkSk {
            project_id: project_id.map(str::to_owned),
            region: region.map(str::to_owned),
            ..keys()
        };
        let credentials = credentials(Settings::AkSk(keys));
        let provider = credentials.provider.load();
        assert_eq!(
            matches!(**provider, Provider::Cached(_)),
            want,
            "{region:?}"
        );
    }
}

#[test]
fn credential_ids_differ_for_different_credentials() {
    let passthrough = credentials(Settings::Passthrough);
    let other = credentials(Settings::Passthrough);
    let clients = [
        client(None, None),
        client(Some("a"), None),
        client(None, Some("a")),
        client(Some(""), Some("a")),
        client(Some("a"), Some("a")),
        client(Some("aa"), None),
    ];
    for (i, a) in clients.iter().enumerate() {
        assert_eq!(passthrough.credential_id(a), other.credential_id(a), "{i}");
        for (j, b) in clients.iter().enumerate() {
            let same = passthrough.credential_id(a) == passthrough.credential_id(b);
            assert_eq!(same, i == j, "{i} {j}");
        }
    }
    let (one, another) = (credentials(Settings::None), credentials(Settings::None));
    assert_eq!(
        one.credential_id(&clients[0]),
        one.credential_id(&clients[1])
    );
    assert_ne!(
        one.credential_id(&clients[0]),
        another.credential_id(&clients[0])
    );
}

/// Over a connection: one login for concurrent calls, another one after a rejection, and the
/// error without a connection.
#[tokio::test]
async fn login_is_shared_and_repeated_after_a_rejection() {
    let issued = |token: &str| {
        let body = r#"{"token": {"project": {"id": "P"}, "catalog": [{"type": "orchestration",
            "endpoints": [{"interface": "public", "url": "http://heat.test/v1/P"}]}]}}"#;
        TestResponse::Keep(reply(201, &[("x-subject-token", token)], body))
    };
    let mut identity = TestServer::start([issued("one"), issued("two")]).await;
    let keystone = |auth_url: Url| {
        Settings::Keystone(Keystone {
            auth_url,
            identity: Identity::Token("SECRET".into()),
            project: None,
            region: None,
            interfaces: vec!["public".into()],
        })
    };
    let heat = Some("orchestration");
    let correlation = Some(CorrelationHeader {
        name: "x-openstack-request-id",
        prefix: "req-",
    });
    let settings = keystone(identity.url("/v3"));
    let login = Credentials::new(settings, None, heat, correlation, transport());
    let id = "req-3f9e01b3-7d1b-4f6e-9a5c-0123456789ab";
    let client = Downstream {
        request_uuid: id[4..].parse().ok(),
        ..Downstream::default()
    };
    let (one, same) = tokio::join!(login.get(&client, soon()), login.get(&client, soon()));
    let one = one.unwrap();
    assert!(Arc::ptr_eq(&one, &same.unwrap()));
    assert_eq!(one.project_id.as_deref(), Some("P"));
    assert_eq!(one.endpoint.as_ref().unwrap().path(), "/v1/P");
    let (head, body) = identity.request().await;
    assert!(head.starts_with("POST /v3/auth/tokens HTTP/1.1"), "{head}");
    assert!(
        head.contains(&format!("x-openstack-request-id: {id}\r\n")),
        "{head}"
    );
    let body = String::from_utf8(body).unwrap();
    assert!(body.contains("SECRET"), "{body}");

    assert!(login.invalidate(&one));
    let mut request = request();
    let two = login.get(&client, soon()).await.unwrap();
    two.authorize(&mut request, None).unwrap();
    assert_eq!(request.headers[X_AUTH_TOKEN], "two");
    identity.request().await;
    assert_eq!(identity.unread_requests(), 0);

    let auth_url = identity.url("/v3");
    drop(identity);
    let mut unused_url = auth_url;
    unused_url
        .set_port(Some(test_server::unused_address().port()))
        .unwrap();
    let login = Credentials::new(keystone(unused_url), None, heat, None, transport());
    // The next attempt would be after the deadline. On a busy machine, so is the end of the
    // first one.
    let error = loop {
        let deadline = Deadline::after(Duration::from_millis(50));
        match login.get(&client, deadline).await {
            Err(Error::Login {
                failure: LoginFailure::Deadline,
                ..
            }) => {}
            result => break result.unwrap_err(),
        }
    };
    let problem = error.to_string();
    assert!(
        matches!(
            error,
            Error::Login {
                failure: LoginFailure::Unavailable,
                ..
            }
        ),
        "{problem}"
    );
    assert!(error.retry_after().is_some(), "{problem}");
    assert!(problem.contains("/v3 as the owner of a token"), "{problem}");
    assert!(!problem.contains("SECRET"), "{problem}");
}
