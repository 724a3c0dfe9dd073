//! The gateway's own login at an identity service that rejects it, or that fails for a moment.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use drawbridge::credentials::{self, Identity, Keystone};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::support::recorder::{Answer, Seen};
use crate::support::{Gateway, Recorder, upstream};

const GET: &str = "SoftwareDeploymentService/GetSoftwareDeployment";

/// The response of an identity service to one login.
#[derive(Clone, Copy)]
enum Reply {
    /// A token.
    Token,
    /// An error with this status and `Retry-After`.
    Status(u16, Option<&'static str>),
    /// A token, and a catalog with this endpoint of Heat.
    Catalog(&'static str),
    /// The connection is closed without one.
    Reset,
}

/// An identity service; the last reply is repeated.
struct IdentityService {
    url: String,
    logins: Arc<Mutex<usize>>,
}

impl IdentityService {
    async fn start(replies: &[Reply]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v3", listener.local_addr().unwrap());
        let logins = Arc::new(Mutex::new(0));
        let counted = logins.clone();
        let mut replies: VecDeque<Reply> = replies.iter().copied().collect();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "));
                let mut body = vec![0; length.unwrap().parse().unwrap()];
                stream.read_exact(&mut body).await.unwrap();
                *counted.lock().unwrap() += 1;
                let reply = match replies.len() {
                    1 => replies[0],
                    _ => replies.pop_front().unwrap(),
                };
                let (status, header, body) = match reply {
                    Reply::Token => {
                        let body = r#"{"token":{"expires_at":"2099-01-01T00:00:00Z"}}"#;
                        (201, "x-subject-token: t\r\n".to_owned(), body.to_owned())
                    }
                    Reply::Status(status, wait) => {
                        let header = wait.map(|wait| format!("retry-after: {wait}\r\n"));
                        (status, header.unwrap_or_default(), "{}".to_owned())
                    }
                    Reply::Catalog(url) => {
                        let endpoint = json!({"interface": "public", "region": "R", "url": url});
                        let service = json!({"type": "orchestration", "endpoints": [endpoint]});
                        let body = json!({"token": {"catalog": [service]}}).to_string();
                        (201, "x-subject-token: t\r\n".to_owned(), body)
                    }
                    Reply::Reset => continue,
                };
                let reply = format!(
                    "HTTP/1.1 {status} X\r\nconnection: close\r\n{header}content-length: {}\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(reply.as_bytes()).await.unwrap();
            }
        });
        Self { url, logins }
    }

    fn logins(&self) -> usize {
        *self.logins.lock().unwrap()
    }

    /// Starts a gateway that logs in here.
    async fn gateway(&self, recorder: &Recorder) -> Gateway {
        let mut settings = upstream("u", "heat", &recorder.url());
        settings.auth = credentials::Settings::Keystone(Keystone {
            auth_url: self.url.parse().unwrap(),
            identity: Identity::Token("SECRET".into()),
            project: None,
            region: None,
            interfaces: vec!["public".into()],
        });
        Gateway::with(vec![settings]).await
    }
}

async fn recorder() -> Recorder {
    let body = json!({"software_deployment": {"id": "d1"}});
    Recorder::fixed(Answer::json(200, &body)).await
}

fn reason(status: &Status) -> String {
    status
        .get_error_details()
        .error_info()
        .unwrap()
        .reason
        .clone()
}

/// Also a call that is not idempotent: the login is not the call. All calls that wait share
/// the attempts.
#[tokio::test]
async fn login_that_fails_for_a_moment_is_repeated_within_the_deadline() {
    use Reply::{Reset, Status, Token};
    for replies in [
        &[Token][..],
        &[Status(429, Some("1")), Token],
        &[Status(429, None), Token],
        &[
            Status(502, None),
            Status(503, Some("0")),
            Status(504, None),
            Token,
        ],
        &[Reset, Reset, Token],
        &[Status(403, Some("0")), Token],
        &[Status(413, Some("0")), Token],
        &[Status(500, None), Token],
    ] {
        let (identity, recorder) = (IdentityService::start(replies).await, recorder().await);
        let gateway = identity.gateway(&recorder).await;
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..10 {
            let client = gateway.client.clone();
            calls.spawn(async move { client.call(GET, json!({"deployment_id": "d1"})).await });
        }
        for result in calls.join_all().await {
            result.unwrap();
        }
        assert_eq!(identity.logins(), replies.len());
        gateway.running.stop().await.unwrap();
    }
}

#[tokio::test]
async fn failed_login_is_never_unauthenticated() {
    use Reply::Status;
    for (reply, code, want, wait) in [
        (
            Status(401, None),
            Code::FailedPrecondition,
            "LOGIN_REJECTED",
            None,
        ),
        (
            Status(403, None),
            Code::FailedPrecondition,
            "LOGIN_REJECTED",
            None,
        ),
        (
            Status(400, None),
            Code::FailedPrecondition,
            "LOGIN_NOT_POSSIBLE",
            None,
        ),
        (
            Status(404, None),
            Code::FailedPrecondition,
            "LOGIN_NOT_POSSIBLE",
            None,
        ),
        (
            Status(429, Some("3600")),
            Code::Unavailable,
            "LOGIN_UNAVAILABLE",
            Some(3_600),
        ),
        (
            Status(503, Some("3600")),
            Code::Unavailable,
            "LOGIN_UNAVAILABLE",
            Some(3_600),
        ),
        (
            Status(503, Some("99999999999999999999")),
            Code::Unavailable,
            "LOGIN_UNAVAILABLE",
            Some(86_400),
        ),
    ] {
        let (identity, recorder) = (IdentityService::start(&[reply]).await, recorder().await);
        let gateway = identity.gateway(&recorder).await;
        // The second call gets the remembered failure.
        for _ in 0..2 {
            let result = gateway
                .client
                .call(GET, json!({"deployment_id": "d1"}))
                .await;
            let status = result.unwrap_err();
            assert_eq!(
                (status.code(), &*reason(&status)),
                (code, want),
                "{status:?}"
            );
            assert!(!status.message().contains("127.0.0.1"), "{status:?}");
            let details = status.get_error_details();
            let delay = details.retry_info().and_then(|info| info.retry_delay);
            // A moment has passed since.
            let delay = delay.map(|delay| delay.as_secs_f64().round() as u64);
            assert!(
                delay <= wait && delay.is_some() == wait.is_some(),
                "{delay:?}"
            );
            assert_eq!(details.error_info().unwrap().metadata["sent"], "false");
        }
        assert_eq!(identity.logins(), 1);
        assert!(recorder.seen().iter().all(|seen| seen.target == "/"));
        gateway.running.stop().await.unwrap();
    }
}

/// The gateway starts with such an upstream, since clients may send no credentials.
/// `0.0.0.0` is another host by its name, and leads to the recorder.
#[tokio::test]
async fn client_credentials_over_plaintext_are_refused_at_the_call() {
    let recorder = recorder().await;
    let mut settings = upstream("cloud", "heat", &recorder.url());
    let endpoint = settings.endpoint.as_mut().unwrap();
    endpoint.set_host(Some("0.0.0.0")).unwrap();
    settings.auth = credentials::Settings::Passthrough;
    let gateway = Gateway::with(vec![settings.clone()]).await;
    let stack = json!({"stack_name": "s", "stack_id": "i"});
    for (header, rpc, request) in [
        ("x-auth-token", GET, json!({"deployment_id": "d1"})),
        ("authorization", GET, json!({"deployment_id": "d1"})),
        (
            "x-auth-token",
            "StackService/CreateStack",
            json!({"stack_name": "s"}),
        ),
        ("x-auth-token", "StackService/DeleteStack", stack.clone()),
        ("x-auth-token", "StackService/WatchStack", stack),
    ] {
        let metadata = [(header, "s3cret")];
        let result = gateway.client.call_with(rpc, request, &metadata).await;
        let status = result.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition, "{rpc}: {status:?}");
        assert_eq!(reason(&status), "PLAINTEXT_CREDENTIALS");
        let text = status.message();
        assert!(text.starts_with("upstream cloud: "), "{text}");
        assert!(text.contains("allow_plaintext_credentials"), "{text}");
        assert!(!format!("{status:?}").contains("s3cret"));
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().metadata["sent"], "false");
    }
    assert!(recorder.seen().iter().all(|seen| seen.target == "/"));
    settings.allow_plaintext_credentials = true;
    let lax = Gateway::with(vec![settings]).await;
    let metadata = [("x-auth-token", "s3cret")];
    lax.client
        .call_with(GET, json!({"deployment_id": "d1"}), &metadata)
        .await
        .unwrap();
    let sent = |seen: &[_]| {
        seen.iter()
            .any(|s: &Seen| s.header("x-auth-token") == "s3cret")
    };
    assert!(sent(&recorder.seen()));
    gateway.running.stop().await.unwrap();
    lax.running.stop().await.unwrap();
}

/// The token would be readable on the network.
#[tokio::test]
async fn plaintext_endpoint_of_a_catalog_is_refused() {
    let catalog = Reply::Catalog("http://heat.inside.test:8004/v1/p");
    let identity = IdentityService::start(&[catalog]).await;
    let mut settings = upstream("u", "heat", "http://127.0.0.1:1");
    settings.endpoint = None;
    settings.auth = credentials::Settings::Keystone(Keystone {
        auth_url: identity.url.parse().unwrap(),
        identity: Identity::Token("SECRET".into()),
        project: None,
        region: None,
        interfaces: vec!["public".into()],
    });
    let gateway = Gateway::with(vec![settings]).await;
    let result = gateway
        .client
        .call(GET, json!({"deployment_id": "d1"}))
        .await;
    let status = result.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    assert_eq!(reason(&status), "PLAINTEXT_CREDENTIALS");
    let text = status.message();
    assert!(
        text.starts_with("upstream u: the endpoint in the login's catalog")
            && text.contains("allow_plaintext_credentials"),
        "{text}"
    );
    gateway.running.stop().await.unwrap();
}
