use std::time::Duration;

use http::Method;

use super::*;
use crate::http_client::test_server::{self, Answer, Script, reply};

/// A transport that is never used.
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
    Credentials::new(settings, None, transport())
}

fn exchange() -> Exchange {
    Exchange {
        verb: Method::GET,
        url: "https://api.test/v1/x?b=2&a=1".parse().unwrap(),
        headers: HeaderMap::new(),
        body: None,
    }
}

fn caller(token: Option<&str>, authorization: Option<&str>) -> Caller {
    Caller {
        token: token.map(|t| t.parse().unwrap()),
        authorization: authorization.map(|t| t.parse().unwrap()),
        ..Caller::default()
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

/// What each provider that needs no login puts onto a request.
#[tokio::test]
async fn authorizations() {
    let user = || "u".to_owned();
    let bearer = caller(None, Some("Bearer SECRET"));
    let none = Caller::default();
    for (settings, caller, want) in [
        (Settings::None, &none, Ok(&[][..])),
        // The caller's own credentials go nowhere else.
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
            &caller(Some("SECRET"), None),
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
        for shown in [format!("{settings:?}"), format!("{credentials:?}")] {
            assert!(
                !shown.contains("SECRET") && !shown.contains("dTp"),
                "{shown}"
            );
        }
        match (credentials.lease(caller, soon()).await, want) {
            (Ok(lease), Ok(want)) => {
                let mut exchange = exchange();
                lease.authorize(&mut exchange, None).unwrap();
                let got: Vec<(&str, &str)> = exchange
                    .headers
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
                    .collect();
                assert_eq!(got, want, "{settings:?}");
                assert!(exchange.headers.values().all(HeaderValue::is_sensitive));
                let shown = format!("{lease:?} {exchange:?}");
                assert!(
                    !shown.contains("SECRET") && !shown.contains("dTp"),
                    "{shown}"
                );
                assert!(!credentials.refuse(&lease), "there is no other");
            }
            (Err(Error::Credential { code, problem }), Err((want, words))) => {
                assert_eq!(code, want, "{problem}");
                assert!(problem.contains(words), "{problem}");
                assert!(!problem.contains("SECRET"), "{problem}");
            }
            (got, want) => panic!("{settings:?}: {got:?}, not {want:?}"),
        }
    }
}

/// Keys with a known project sign at once, and a refused signature is final.
#[tokio::test]
async fn signatures() {
    let credentials = credentials(Settings::AkSk(keys()));
    let lease = credentials.lease(&Caller::default(), soon()).await.unwrap();
    assert_eq!(lease.project_id.as_deref(), Some("P"));
    let mut exchange = exchange();
    lease.authorize(&mut exchange, None).unwrap();
    assert_eq!(exchange.headers["x-project-id"], "P");
    assert!(!exchange.headers.contains_key("x-domain-id"));
    assert_eq!(exchange.url.query(), Some("b=2&a=1"), "sent as it was");
    let signed = exchange.headers[header::AUTHORIZATION].to_str().unwrap();
    let list = "SignedHeaders=host;x-project-id;x-sdk-date;x-security-token,";
    assert!(signed.contains(list), "{signed}");
    assert!(!credentials.refuse(&lease));
    let shown = format!("{credentials:?} {lease:?} {exchange:?}");
    assert!(!shown.contains("SECRET"), "{shown}");
}

/// Only keys without a project, whose region is known, ask for it.
#[test]
fn lookups() {
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
        let provider = credentials(Settings::AkSk(keys)).provider;
        assert_eq!(matches!(provider, Provider::Kept(_)), want, "{region:?}");
    }
}

#[test]
fn viewers() {
    let passthrough = credentials(Settings::Passthrough);
    let other = credentials(Settings::Passthrough);
    let callers = [
        caller(None, None),
        caller(Some("a"), None),
        caller(None, Some("a")),
        caller(Some(""), Some("a")),
        caller(Some("a"), Some("a")),
        caller(Some("aa"), None),
    ];
    for (i, a) in callers.iter().enumerate() {
        assert_eq!(passthrough.viewer(a), other.viewer(a), "{i}");
        for (j, b) in callers.iter().enumerate() {
            let same = passthrough.viewer(a) == passthrough.viewer(b);
            assert_eq!(same, i == j, "{i} {j}");
        }
    }
    let (held, another) = (credentials(Settings::None), credentials(Settings::None));
    assert_eq!(held.viewer(&callers[0]), held.viewer(&callers[1]));
    assert_ne!(held.viewer(&callers[0]), another.viewer(&callers[0]));
}

/// Over a real connection: one login for all, another after a refusal, and what
/// is told when nobody is there.
#[tokio::test]
async fn logins() {
    let granted = |token: &str| {
        let body = r#"{"token": {"project": {"id": "P"}, "catalog": [{"type": "orchestration",
            "endpoints": [{"interface": "public", "url": "http://heat.test/v1/P"}]}]}}"#;
        Answer::Keep(reply(201, &[("x-subject-token", token)], body))
    };
    let mut identity = Script::start([granted("one"), granted("two")]).await;
    let keystone = |auth_url: Url| {
        Settings::Keystone(Keystone {
            auth_url,
            identity: Identity::Token("SECRET".into()),
            project: None,
            region: None,
            interface: "public".into(),
        })
    };
    let heat = Some("orchestration");
    let login = Credentials::new(keystone(identity.url("/v3")), heat, transport());
    let caller = Caller::default();
    let (one, same) = tokio::join!(login.lease(&caller, soon()), login.lease(&caller, soon()));
    let one = one.unwrap();
    assert!(Arc::ptr_eq(&one, &same.unwrap()));
    assert_eq!(one.project_id.as_deref(), Some("P"));
    assert_eq!(one.endpoint.as_ref().unwrap().path(), "/v1/P");
    let (head, body) = identity.request().await;
    assert!(head.starts_with("POST /v3/auth/tokens HTTP/1.1"), "{head}");
    let body = String::from_utf8(body).unwrap();
    assert!(body.contains("SECRET"), "{body}");

    assert!(login.refuse(&one));
    let mut exchange = exchange();
    let two = login.lease(&caller, soon()).await.unwrap();
    two.authorize(&mut exchange, None).unwrap();
    assert_eq!(exchange.headers[X_AUTH_TOKEN], "two");
    identity.request().await;
    assert_eq!(identity.untaken(), 0);

    let auth_url = identity.url("/v3");
    drop(identity);
    let mut nowhere = auth_url;
    nowhere
        .set_port(Some(test_server::nowhere().port()))
        .unwrap();
    let login = Credentials::new(keystone(nowhere), heat, transport());
    let Err(Error::Login { code, problem }) = login.lease(&caller, soon()).await else {
        panic!("a lease from nowhere");
    };
    assert_eq!(code, Code::Unavailable, "{problem}");
    assert!(
        problem.contains("/v3 as the bearer of a token"),
        "{problem}"
    );
    assert!(!problem.contains("SECRET"), "{problem}");
}
