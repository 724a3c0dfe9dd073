//! The identity of clients: tokens, JSON Web Tokens, certificates that a sidecar forwards; and
//! that no upstream receives its proof.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use drawbridge::config::{ClientToken, JwksSource, JwtOptions};
use serde_json::{Value, json};
use tonic::Code;
use tonic_types::StatusExt;

use crate::support::jwt::{AUDIENCE, ISSUER, SigningKey};
use crate::support::recorder::{Answer, Recorder};
use crate::support::web::{self, Version};
use crate::support::{Gateway, http_get, settings, upstream};

const LIST: &str = "SoftwareDeploymentService/ListSoftwareDeployments";
const LIST_PATH: &str =
    "/openstack.orchestration.v1.SoftwareDeploymentService/ListSoftwareDeployments";

async fn empty_list() -> Recorder {
    Recorder::fixed(Answer::json(200, &json!({"software_deployments": []}))).await
}

/// Returns the settings of a gateway whose clients have credentials of their own for the upstream.
fn passthrough(recorder: &Recorder) -> drawbridge::Config {
    let mut heat = upstream("u", "heat", &recorder.url());
    heat.auth = drawbridge::credentials::Settings::Passthrough;
    settings(vec![heat])
}

/// Calls in all protocols, and returns whether each call has succeeded.
async fn call_in_all_protocols(gateway: &Gateway, metadata: &[(&str, &str)]) -> Vec<bool> {
    let grpc = gateway.client.call_with(LIST, json!({}), metadata).await;
    let mut succeeded = vec![grpc.is_ok()];
    for (content_type, body) in [
        ("application/json", b"{}".to_vec()),
        ("application/grpc-web+proto", web::frame(0, b"")),
        ("application/grpc-web-text", b"AAAAAAA=".to_vec()),
    ] {
        let mut headers = vec![("content-type", content_type)];
        headers.extend(metadata);
        let address = gateway.running.grpc;
        let response = web::send(address, Version::Http1, "POST", LIST_PATH, &headers, body).await;
        let is_ok = match content_type {
            "application/json" => response.status == 200,
            // A status in the headers is an error.
            _ => response.header("grpc-status").is_empty(),
        };
        succeeded.push(is_ok);
    }
    succeeded
}

#[tokio::test]
async fn bearer_that_the_gateway_accepts_is_never_sent_upstream() {
    let recorder = empty_list().await;
    let mut config = passthrough(&recorder);
    config.client_tokens = vec![ClientToken::named("ci", &"of-the-gateway".into())];
    let gateway = Gateway::start(config).await;
    let own = ("authorization", "Bearer of-the-gateway");
    let (token, keystone) = (
        ("drawbridge-token", "of-the-gateway"),
        ("x-auth-token", "k"),
    );
    for metadata in [&[own, keystone][..], &[own, token, keystone]] {
        let succeeded = call_in_all_protocols(&gateway, metadata).await;
        assert_eq!(succeeded, [true; 4], "{metadata:?}");
    }
    let seen = recorder.seen();
    assert_eq!(seen.len(), 8);
    for seen in seen {
        assert_eq!(seen.header("x-auth-token"), "k");
        let leaked = (seen.headers.values())
            .any(|value| String::from_utf8_lossy(value.as_bytes()).contains("of-the-gateway"));
        assert!(!leaked, "{:?}", seen.headers);
    }
    // Another one is the client's for the upstream.
    let theirs = ("authorization", "Bearer of-the-upstream");
    let succeeded = call_in_all_protocols(&gateway, &[token, theirs]).await;
    assert_eq!(succeeded, [true; 4]);
    let seen = recorder.seen();
    assert!(
        seen[8..]
            .iter()
            .all(|s| s.header("authorization") == theirs.1)
    );
    assert_eq!(call_in_all_protocols(&gateway, &[theirs]).await, [false; 4]);
    assert_eq!(recorder.seen().len(), 12);
}

fn jwt(keys: JwksSource) -> JwtOptions {
    JwtOptions {
        issuer: ISSUER.to_owned(),
        audiences: vec![AUDIENCE.to_owned()],
        algorithms: vec!["ES256".to_owned()],
        leeway: Duration::ZERO,
        identity_claim: "sub".to_owned(),
        keys,
    }
}

#[tokio::test]
async fn keys_of_the_issuer_are_read_again_when_a_token_has_a_new_one() {
    let (first, second, other) = (
        SigningKey::new("1"),
        SigningKey::new("2"),
        SigningKey::new("3"),
    );
    let published = Arc::new(Mutex::new(vec![first.jwk()]));
    let keys = published.clone();
    let issuer = Recorder::with_health_checks(move |_| {
        Answer::json(200, &json!({"keys": *keys.lock().unwrap()}))
    });
    let (issuer, recorder) = (issuer.await, empty_list().await);
    let mut config = passthrough(&recorder);
    let url = format!("{}/keys", issuer.url()).parse().unwrap();
    config.jwt = Some(jwt(JwksSource::Url(url, None)));
    let gateway = Gateway::start(config).await;
    let call = async |token: &str| {
        let bearer = format!("Bearer {token}");
        let metadata = [("authorization", &*bearer), ("x-auth-token", "k")];
        gateway.client.call_with(LIST, json!({}), &metadata).await
    };
    call(&first.token("shop", 600)).await.unwrap();
    *published.lock().unwrap() = vec![first.jwk(), second.jwk()];
    call(&second.token("shop", 600)).await.unwrap();
    let reads = issuer.seen().len();
    assert_eq!(reads, 2);
    // Tokens with unknown keys do not make the gateway read the keys as often as they like.
    for _ in 0..5 {
        let status = call(&other.token("shop", 600)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
    }
    assert_eq!(issuer.seen().len(), reads);
    for (token, want) in [
        (first.token("shop", -60), "expired"),
        (first.token("", 600), "empty"),
        ("x".to_owned(), "not a valid"),
    ] {
        let status = call(&token).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
        assert!(status.message().contains(want), "{}", status.message());
        assert!(token.len() < 2 || !status.message().contains(&token));
    }
    let seen = recorder.seen();
    assert_eq!(seen.len(), 2);
    assert!(
        seen.iter()
            .all(|s| s.headers.get("authorization").is_none())
    );
    assert_eq!(call_in_all_protocols(&gateway, &[]).await, [false; 4]);
}

#[tokio::test]
async fn tokens_cannot_be_checked_without_the_keys_of_the_issuer() {
    let issuer = Recorder::with_health_checks(|_| Answer::json(500, &Value::Null)).await;
    let recorder = empty_list().await;
    let mut config = passthrough(&recorder);
    let url = format!("{}/keys", issuer.url()).parse().unwrap();
    config.jwt = Some(jwt(JwksSource::Url(url, None)));
    let gateway = Gateway::start(config).await;
    let token = SigningKey::new("1").token("shop", 600);
    let metadata = [("drawbridge-token", &*token)];
    let status = gateway.client.call_with(LIST, json!({}), &metadata).await;
    let status = status.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{}", status.message());
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.reason, "ISSUER_KEYS_UNKNOWN");
    assert!(status.get_details_retry_info().is_some());
    assert!(recorder.seen().is_empty());
}

#[tokio::test]
async fn sidecar_names_the_client_where_the_configuration_says_so() {
    const ID: &str = "By=spiffe://a/gateway;URI=spiffe://a/shop";
    let recorder = empty_list().await;
    let mut config = passthrough(&recorder);
    config.trusts_sidecar = true;
    let gateway = Gateway::start(config).await;
    let header = "x-forwarded-client-cert";
    let credential = ("x-auth-token", "k");
    let two_hops = format!("URI=spiffe://a/admin,{ID}");
    for (metadata, want) in [
        (vec![(header, ID)], true),
        (vec![], false),
        (vec![(header, &*two_hops)], false),
        (vec![(header, "shop")], false),
    ] {
        let metadata: Vec<_> = metadata.into_iter().chain([credential]).collect();
        let succeeded = call_in_all_protocols(&gateway, &metadata).await;
        assert_eq!(succeeded, [want; 4], "{metadata:?}");
    }
    assert_eq!(
        crate::server::health(&gateway, "").await.unwrap(),
        "Serving"
    );
    let seen = recorder.seen();
    assert_eq!(seen.len(), 4);
    assert!(seen.iter().all(|s| s.headers.get(header).is_none()));
    let admin = gateway.running.admin.unwrap();
    let (_, text) = http_get(&format!("http://{admin}/metrics")).await;
    assert!(
        text.contains("drawbridge_unauthenticated_requests_total 12"),
        "{text}"
    );
    // Elsewhere the header is that of any client.
    let gateway = Gateway::start(passthrough(&recorder)).await;
    let metadata = [(header, "shop"), credential];
    assert_eq!(call_in_all_protocols(&gateway, &metadata).await, [true; 4]);
}
