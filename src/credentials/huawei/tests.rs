use std::collections::HashMap;

use bytes::Bytes;
use http::StatusCode;

use super::*;

fn keys(variables: &[(&str, &str)]) -> Result<Option<AkSk>, String> {
    let variables: HashMap<&str, &str> = variables.iter().copied().collect();
    from_env(&|name| variables.get(name).map(|v| (*v).to_owned()))
}

/// Returns all values as one text.
fn keys_as_text(keys: AkSk) -> String {
    let text = |value: Option<String>| value.unwrap_or_else(|| "-".into());
    [
        keys.access_key,
        keys.secret_key.expose_secret().to_owned(),
        text(keys.security_token.map(|t| t.expose_secret().to_owned())),
        text(keys.project_id),
        text(keys.domain_id),
        text(keys.iam_endpoint.map(String::from)),
        text(keys.region),
    ]
    .join(" ")
}

#[test]
fn keys_are_read_from_the_environment() {
    let ak = ("HUAWEICLOUD_SDK_AK", "A");
    let sk = ("HUAWEICLOUD_SDK_SK", "S");
    for (variables, want) in [
        (&[][..], Ok("")),
        (&[("HUAWEICLOUD_SDK_AK", " ")], Ok("")),
        (&[ak, sk], Ok("A S - - - - -")),
        (
            &[
                ak,
                sk,
                ("HUAWEICLOUD_SDK_SECURITY_TOKEN", "T"),
                ("HUAWEICLOUD_SDK_PROJECT_ID", "P"),
                ("HUAWEICLOUD_SDK_DOMAIN_ID", "D"),
                ("HUAWEICLOUD_SDK_REGION", "R"),
                ("HUAWEICLOUD_SDK_IAM_ENDPOINT", "https://iam.test"),
            ],
            Ok("A S T P D https://iam.test/ R"),
        ),
        (&[ak], Err("HUAWEICLOUD_SDK_SK is not")),
        (&[sk], Err("HUAWEICLOUD_SDK_AK is not")),
        (
            &[ak, sk, ("HUAWEICLOUD_SDK_IAM_ENDPOINT", "iam.test")],
            Err("HUAWEICLOUD_SDK_IAM_ENDPOINT is not a URL"),
        ),
        (
            &[("HUAWEICLOUD_SDK_CREDENTIALS_FILE", "/nowhere/credentials")],
            Err("/nowhere/credentials: cannot be read"),
        ),
    ] {
        match (keys(variables), want) {
            (Ok(got), Ok(want)) => {
                assert_eq!(
                    got.map(keys_as_text).unwrap_or_default(),
                    want,
                    "{variables:?}"
                );
            }
            (Err(got), Err(want)) => assert!(got.contains(want), "{got}"),
            (got, want) => panic!("{variables:?}: {got:?}, not {want:?}"),
        }
    }
}

#[test]
fn keys_are_read_from_the_credentials_file() {
    for (text, want) in [
        ("[basic]\nak = A\nsk = S=\n", Ok("A S= - P - - -")),
        (
            "# mine\n[global]\nak=G\nsk=g\n[basic]\nak=A\nsk=S\nsecurity_token=T\nproject_id=X\niam_endpoint=https://iam.test\n",
            Ok("A S T P - https://iam.test/ -"),
        ),
        ("[global]\nak=G\nsk=g\ndomain_id=D", Ok("G g - P D - -")),
        // The syntax of Python's configparser.
        (
            "[DEFAULT]\niam_endpoint = https://iam.test\n[basic]\nAK: A\n  ; a note\nSK = a=b:c%%d\n",
            Ok("A a=b:c%d - P - https://iam.test/ -"),
        ),
        ("[basic]\nak = A\nsk =\n", Err("[basic] has no `sk`")),
        ("[other]\nak = A\n", Err("no [basic] or [global]")),
        ("", Err("no [basic] or [global]")),
    ] {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join(".huaweicloud");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("credentials"), text).unwrap();
        // The environment's project takes precedence.
        let variables = [
            ("HOME", home.path().to_str().unwrap()),
            ("HUAWEICLOUD_SDK_PROJECT_ID", "P"),
        ];
        match (keys(&variables), want) {
            (Ok(got), Ok(want)) => assert_eq!(got.map(keys_as_text).unwrap(), want, "{text}"),
            (Err(got), Err(want)) => assert!(got.contains(want), "{got}"),
            (got, want) => panic!("{text}: {got:?}, not {want:?}"),
        }
    }
}

fn lookup() -> ProjectLookup {
    ProjectLookup::of(&AkSk {
        access_key: "AKTEST".into(),
        secret_key: "SKTEST".into(),
        security_token: None,
        project_id: None,
        domain_id: None,
        iam_endpoint: Some("https://iam.test".parse().unwrap()),
        region: Some("eu-de 1".into()),
    })
    .unwrap()
}

/// The sandbox verifies the signature.
#[cfg(feature = "sandbox")]
#[test]
fn project_lookup_is_signed() {
    let lookup = lookup();
    let mut sent = lookup.request(SystemTime::now()).unwrap();
    assert_eq!(sent.url.path(), "/v3/projects");
    sent.headers
        .insert(header::HOST, HeaderValue::from_static("iam.test"));
    let target = &sent.url[url::Position::BeforePath..];
    let request = drawbridge_sandbox::signature::Request {
        method: &sent.verb,
        target,
        headers: &sent.headers,
        body: b"",
    };
    let now = Some(SystemTime::now());
    assert_eq!(
        drawbridge_sandbox::signature::verify(request, "SKTEST", now),
        Ok(())
    );
}

#[test]
fn project_lookup_returns_the_only_project() {
    let response = |status: u16, body: &'static str| Reply {
        status: StatusCode::from_u16(status).unwrap(),
        headers: HeaderMap::from_iter([(
            header::DATE,
            HeaderValue::from_static("Sat, 21 Nov 2026 02:00:00 GMT"),
        )]),
        body: Bytes::from_static(body.as_bytes()),
    };
    let now = httpdate::parse_http_date("Sat, 21 Nov 2026 03:00:00 GMT").unwrap();
    for (reply, want) in [
        (response(200, r#"{"projects": [{"id": "P"}]}"#), Ok("P")),
        (
            response(
                200,
                r#"{"projects": [{"id": "Q", "name": "eu-de 1_test"}, {"id": "P", "name": "eu-de 1"}]}"#,
            ),
            Ok("P"),
        ),
        (
            response(200, r#"{"projects": [{"id": "P"}, {"id": "Q"}]}"#),
            Err((
                Code::FailedPrecondition,
                "several projects of region eu-de 1: configure `project_id`: one of P, Q",
            )),
        ),
        (
            response(200, r#"{"projects": []}"#),
            Err((Code::FailedPrecondition, "no project of region eu-de 1")),
        ),
        (
            response(
                401,
                r#"{"error_msg": "wrong key", "error_code": "APIGW.0301"}"#,
            ),
            Err((Code::Unauthenticated, "(wrong key)")),
        ),
        (
            response(401, ""),
            Err((Code::Unauthenticated, "differ by 60 minutes")),
        ),
        (
            response(502, ""),
            Err((
                Code::Unavailable,
                "https://iam.test/ with access key AKTEST",
            )),
        ),
        (
            response(200, "<html>"),
            Err((Code::Unavailable, "cannot be read")),
        ),
    ] {
        match (lookup().read(&reply, now), want) {
            (Ok(token), Ok(project)) => {
                assert_eq!(token.project_id.as_deref(), Some(project));
                assert!(matches!(token.authorization, Authorization::Signature(_)));
            }
            (Err(Error::Credential { code, problem }), Err((want, part))) => {
                assert_eq!(code, want, "{problem}");
                assert!(problem.contains(part), "{problem}");
                assert!(!problem.contains("SKTEST"), "{problem}");
            }
            (got, want) => panic!("{got:?}, not {want:?}"),
        }
    }
}
