use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde_json::Value;

use super::*;

fn settings(region: Option<&str>, tenant_id: Option<&str>) -> Rackspace {
    Rackspace {
        auth_url: "https://identity.api.rackspacecloud.com/v2.0"
            .parse()
            .unwrap(),
        username: "u".into(),
        secret: RackspaceSecret::ApiKey("SECRET".into()),
        tenant_id: tenant_id.map(str::to_owned),
        region: region.map(str::to_owned),
    }
}

fn reply(status: u16, body: Value) -> Reply {
    Reply {
        status: StatusCode::from_u16(status).unwrap(),
        headers: HeaderMap::from_iter([(
            header::DATE,
            "Sat, 21 Nov 2026 02:00:00 GMT".parse().unwrap(),
        )]),
        body: Bytes::from(body.to_string()),
    }
}

fn issued(default_region: Option<&str>) -> Reply {
    let endpoint = |region: &str| {
        json!({"region": region, "tenantId": "123456", "publicURL": format!(
            "https://{}.orchestration.api.rackspacecloud.com/v1/123456", region.to_lowercase())})
    };
    reply(
        200,
        json!({"access": {
            "token": {"id": "TOKEN", "expires": "2026-11-22T02:00:00.115Z",
                "tenant": {"id": "123456", "name": "123456"},
                "RAX-AUTH:authenticatedBy": ["APIKEY"]},
            "serviceCatalog": [
                {"type": "compute", "name": "cloudServers",
                    "endpoints": [{"publicURL": "https://servers.test/v2"}]},
                {"type": "orchestration", "name": "cloudOrchestration",
                    "endpoints": [endpoint("ORD"), endpoint("DFW")]}],
            "user": {"id": "1", "name": "u", "RAX-AUTH:defaultRegion": default_region}}}),
    )
}

#[test]
fn login_sends_api_key_or_password() {
    let by_password = Rackspace {
        secret: RackspaceSecret::Password("p".into()),
        auth_url: "https://lon.identity.api.rackspacecloud.com/"
            .parse()
            .unwrap(),
        ..settings(None, None)
    };
    for (settings, url, want) in [
        (
            settings(None, Some("123456")),
            "https://identity.api.rackspacecloud.com/v2.0/tokens",
            json!({"auth": {"RAX-KSKEY:apiKeyCredentials":
                {"username": "u", "apiKey": "SECRET"}, "tenantId": "123456"}}),
        ),
        (
            by_password,
            "https://lon.identity.api.rackspacecloud.com/v2.0/tokens",
            json!({"auth": {"passwordCredentials": {"username": "u", "password": "p"}}}),
        ),
    ] {
        let sent = Login::new(settings, None)
            .request(SystemTime::UNIX_EPOCH)
            .unwrap();
        assert_eq!(sent.url.as_str(), url);
        let body: Value = serde_json::from_slice(&sent.body.unwrap()).unwrap();
        assert_eq!(body, want);
    }
}

#[test]
fn endpoint_is_looked_up_by_region() {
    let dfw = "https://dfw.orchestration.api.rackspacecloud.com/v1/123456";
    let ord = "https://ord.orchestration.api.rackspacecloud.com/v1/123456";
    for (region, default, want) in [
        (Some("dfw"), Some("ORD"), Ok(dfw)),
        (None, Some("ORD"), Ok(ord)),
        (
            Some("SYD"),
            Some("ORD"),
            Err("none in region SYD: there is DFW, ORD"),
        ),
        (None, None, Err("set the region: there is DFW, ORD")),
    ] {
        let login = Login::new(settings(region, None), Some("orchestration"));
        match (login.read(&issued(default), SystemTime::UNIX_EPOCH), want) {
            (Ok(token), Ok(url)) => {
                assert_eq!(token.endpoint.unwrap().as_str(), url);
                assert_eq!(token.project_id.as_deref(), Some("123456"));
                assert_eq!(token.lifetime.map(|l| l.as_secs()), Some(86_399));
            }
            (Err(Error::Credential { code, problem }), Err(part)) => {
                assert_eq!(code, Code::FailedPrecondition);
                assert!(problem.contains(part), "{problem}");
            }
            (got, want) => panic!("{got:?}, not {want:?}"),
        }
    }
}

/// As in the documented example of a second factor.
#[test]
fn tenant_catalog_and_user_are_optional() {
    let minimal = reply(200, json!({"access": {"token": {"id": "TOKEN"}}}));
    let token = Login::new(settings(None, Some("7")), None)
        .read(&minimal, SystemTime::UNIX_EPOCH)
        .unwrap();
    assert_eq!(token.project_id.as_deref(), Some("7"));
    assert_eq!((token.endpoint, token.lifetime), (None, None::<Duration>));
    assert!(!format!("{:?}", token.authorization).contains("TOKEN"));
}

#[test]
fn rejected_logins_are_errors_without_secrets() {
    let mut factor = reply(401, json!({}));
    factor.headers.insert(
        header::WWW_AUTHENTICATE,
        "OS-MF sessionId='s', factor='PASSCODE'".parse().unwrap(),
    );
    for (reply, code, part) in [
        (
            reply(
                401,
                json!({"unauthorized": {"code": 401, "message": "no such user"}}),
            ),
            Code::Unauthenticated,
            "no such user",
        ),
        (
            reply(403, json!({"forbidden": {}})),
            Code::Unauthenticated,
            "as user u",
        ),
        (
            reply(413, json!({"overLimit": {}})),
            Code::Unavailable,
            "HTTP 413",
        ),
        (reply(500, json!({})), Code::Unavailable, "HTTP 500"),
        (
            reply(200, json!({"access": {}})),
            Code::Unavailable,
            "cannot be read",
        ),
        (factor, Code::Unauthenticated, "use an API key"),
    ] {
        let login = Login::new(settings(None, None), None);
        let Err(Error::Credential { code: got, problem }) =
            login.read(&reply, SystemTime::UNIX_EPOCH)
        else {
            panic!("{part}");
        };
        assert_eq!(got, code, "{problem}");
        assert!(problem.contains(part), "{problem}");
        assert!(!problem.contains("SECRET"), "{problem}");
    }
}
