//! Tokens that live for 5 seconds, under load.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::heat_suite::{HeatTarget, gateway_settings};
use crate::support::{Client, Gateway};

/// 1,000 calls in 30 seconds on 50 connections succeed, and logins are single flight.
#[tokio::test(flavor = "multi_thread")]
async fn calls_succeed_while_tokens_expire() {
    let sandbox = drawbridge_sandbox::Sandbox::start(
        ([127, 0, 0, 1], 0).into(),
        drawbridge_sandbox::Settings {
            token_ttl: Duration::from_secs(5),
            ..drawbridge_sandbox::Settings::default()
        },
    )
    .await
    .unwrap();
    let target = HeatTarget {
        heat: sandbox.servicestage_url(),
        keystone: sandbox.keystone_url(),
        password: drawbridge_sandbox::PASSWORD.into(),
    };
    let gateway = Gateway::with(vec![gateway_settings(&target)]).await;
    let began = Instant::now();
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..50_u32 {
        let address = gateway.running.grpc;
        callers.spawn(async move {
            let client = Client::connect(address, &[drawbridge::contract::BUILT_IN.to_vec()]).await;
            // Paces the load; does not wait for anything to be ready.
            let mut pace = tokio::time::interval(Duration::from_millis(1500));
            tokio::time::sleep(Duration::from_millis(30) * n).await;
            for _ in 0..20 {
                pace.tick().await;
                client
                    .call("SoftwareConfigService/ListSoftwareConfigs", json!({}))
                    .await
                    .unwrap();
            }
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    // Independent of the machine's speed: one login per token, and at least half of a token's
    // life is used. A slow machine needs fewer.
    let lives = began.elapsed().as_secs() / 5;
    let logins = sandbox.login_count();
    assert!(
        (2..=2 * lives + 2).contains(&logins),
        "{logins} logins in {lives} lives of a token"
    );
}
