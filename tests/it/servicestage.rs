//! ServiceStage through the gateway, with requests and responses of the official client.

mod captures;
mod credentials;
mod follow;
mod once;
mod pages;
mod quirks;
mod sandbox;
mod watches;

use std::sync::{Arc, Mutex};

use prost_reflect::DynamicMessage;
use serde_json::Value;
use tonic::{Response, Status};

use crate::support::recorder::{Answer, Seen};
use crate::support::{Gateway, Recorder, upstream};

/// The keys of the captures.
fn keys(security_token: bool) -> drawbridge::credentials::Settings {
    drawbridge::credentials::Settings::AkSk(drawbridge::credentials::AkSk {
        access_key: "AKTEST".into(),
        secret_key: "SKTEST".into(),
        security_token: security_token.then(|| "SECURITYTOKENTEST+/=".into()),
        project_id: Some("0a1b2c3d4e5f60718293a4b5c6d7e8f9".into()),
        domain_id: None,
        iam_endpoint: None,
        region: None,
    })
}

/// A gateway with these credentials, and a recorder whose responses the test sets.
struct RecordedGateway {
    gateway: Gateway,
    recorder: Recorder,
    answer: Arc<Mutex<Answer>>,
}

impl RecordedGateway {
    async fn new(temporary: bool) -> Self {
        let answer = Arc::new(Mutex::new(Answer::json(500, &Value::Null)));
        let told = answer.clone();
        let recorder = Recorder::start(move |_| told.lock().unwrap().clone()).await;
        let mut settings = upstream("u", "servicestage", &recorder.url());
        settings.auth = keys(temporary);
        let gateway = Gateway::with(vec![settings]).await;
        Self {
            gateway,
            recorder,
            answer,
        }
    }

    /// Makes one call with this response, and returns what the upstream has received.
    async fn exchange(
        &self,
        rpc: &str,
        request: Value,
        answer: Answer,
    ) -> (Result<Response<DynamicMessage>, Status>, Vec<Seen>) {
        *self.answer.lock().unwrap() = answer;
        let before = self.recorder.seen().len();
        let result = self.gateway.client.call_with(rpc, request, &[]).await;
        (result, self.recorder.seen().split_off(before))
    }
}

/// Finds the rpc of ServiceStage with this name, and its service.
fn rpc(client: &crate::support::Client, name: &str) -> String {
    let services = client.services("huaweicloud.servicestage.v3");
    let found: Vec<String> = services
        .iter()
        .filter(|service| service.methods().any(|m| m.name() == name))
        .map(|service| format!("{}/{name}", service.full_name()))
        .collect();
    assert_eq!(found.len(), 1, "one rpc {name}: {found:?}");
    found[0].clone()
}

/// Computes the signature of a received request anew. Shares no code with the
/// gateway. Source: docs/apis/servicestage.md, "AK/SK signature".
fn signature(seen: &Seen, secret: &str) -> String {
    use ring::{digest, hmac};
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let sha = |bytes: &[u8]| hex(digest::digest(&digest::SHA256, bytes).as_ref());
    let names = (seen.header("authorization").split("SignedHeaders=").nth(1))
        .and_then(|rest| rest.split(',').next())
        .expect("signed headers");
    let headers: String = names
        .split(';')
        .map(|n| format!("{n}:{}\n", seen.header(n).trim()))
        .collect();
    // The official signer decodes the path before it splits it.
    let mut path = seen.path().replace("%2F", "/");
    if !path.ends_with('/') {
        path.push('/');
    }
    let mut query: Vec<&str> = seen.query().split('&').filter(|p| !p.is_empty()).collect();
    query.sort();
    let canonical = format!(
        "{}\n{path}\n{}\n{headers}\n{names}\n{}",
        seen.method,
        query.join("&"),
        sha(&seen.body)
    );
    let to_sign = format!(
        "SDK-HMAC-SHA256\n{}\n{}",
        seen.header("x-sdk-date"),
        sha(canonical.as_bytes())
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    hex(hmac::sign(&key, to_sign.as_bytes()).as_ref())
}

/// Asserts that a request has a valid signature.
fn assert_signed(seen: &Seen, what: &str) {
    let authorization = seen.header("authorization");
    let found = authorization.rsplit("Signature=").next().unwrap();
    assert_eq!(found, signature(seen, "SKTEST"), "{what}: signature");
    assert!(authorization.contains("Access=AKTEST"), "{what}");
    // The project of the path is signed, not that of the keys.
    let project = seen.path().split('/').nth(2).unwrap();
    assert_eq!(seen.header("x-project-id"), project, "{what}");
}
