//! The gateway with the embedded sandbox, as on the first run.

use std::time::Duration;

use drawbridge::cli::quickstart;
use drawbridge_sandbox::{self as sandbox, Sandbox};
use serde_json::json;
use tonic::Code;
use tonic_types::StatusExt;

use crate::support::client::json as to_json;
use crate::support::heat_suite::transcript::{check_transcript, transcript};
use crate::support::heat_suite::{HeatTarget, configs_and_deployments, stack_lifecycle};
use crate::support::{Gateway, upstream};

async fn start(settings: sandbox::Settings) -> (Sandbox, HeatTarget) {
    let sandbox = Sandbox::start(([127, 0, 0, 1], 0).into(), settings)
        .await
        .unwrap();
    let target = HeatTarget {
        heat: sandbox.servicestage_url(),
        keystone: sandbox.keystone_url(),
        password: sandbox::PASSWORD.into(),
    };
    (sandbox, target)
}

/// Settings as in real Heat: no simulated progress, no sample resources.
fn like_real_heat() -> sandbox::Settings {
    sandbox::Settings {
        play: false,
        preload: false,
        adopt_and_abandon: false,
        ..sandbox::Settings::default()
    }
}

#[tokio::test]
async fn responses_equal_real_heat() {
    let (_sandbox, target) = start(like_real_heat()).await;
    check_transcript(&transcript(&target).await);
}

#[tokio::test]
async fn heat_through_the_gateway() {
    let (_sandbox, target) = start(like_real_heat()).await;
    configs_and_deployments(&target).await;
}

#[tokio::test]
async fn stack_lifecycle_equals_real_heat() {
    let (_sandbox, target) = start(like_real_heat()).await;
    stack_lifecycle::create_update_and_delete(&target).await;
}

#[tokio::test]
async fn abandon_and_adopt_equal_real_heat() {
    let mut settings = like_real_heat();
    settings.adopt_and_abandon = true;
    let (_sandbox, target) = start(settings).await;
    stack_lifecycle::abandon_and_adopt(&target).await;
}

/// Steps short enough for a test to wait for.
fn quick() -> sandbox::Settings {
    sandbox::Settings {
        step: Duration::from_millis(50),
        ..sandbox::Settings::default()
    }
}

#[tokio::test]
async fn deployment_becomes_final() {
    let (sandbox, _) = start(quick()).await;
    let gateway = Gateway::with(quickstart::upstreams(&sandbox)).await;
    let service = "SoftwareDeploymentService";
    for (config, outcome) in [
        ("echo ok", "OUTCOME_SUCCEEDED"),
        ("exit 1", "OUTCOME_FAILED"),
    ] {
        let config = gateway
            .client
            .call(
                "SoftwareConfigService/CreateSoftwareConfig",
                json!({
                "name": "c", "group": "script", "config": config, "outputs": [{"name": "result"}]}),
            )
            .await
            .unwrap();
        let config = to_json(&config)["software_config"]["id"].clone();
        let created = gateway
            .client
            .call(
                &format!("{service}/CreateSoftwareDeployment"),
                json!({
                "config_id": config, "server_id": sandbox::SERVER_ID,
                "status": "DEPLOYMENT_STATUS_IN_PROGRESS"}),
            )
            .await
            .unwrap();
        let id = to_json(&created)["software_deployment"]["id"].clone();
        let mut watch = gateway
            .client
            .watch(
                &format!("{service}/WatchSoftwareDeployment"),
                json!({"deployment_id": id}),
                &[],
            )
            .await
            .unwrap();
        let mut last = json!(null);
        while let Some(event) = watch.next().await {
            last = to_json(&event.unwrap());
        }
        assert_eq!(last["event"]["outcome"], outcome, "{last}");
        assert!(last["software_deployment"]["output_values"]["deploy_status_code"].is_number());
    }
}

/// Seed 4: redeploy an add-on with a signed request, watch the job to its end.
#[tokio::test]
async fn addon_is_redeployed_and_watched() {
    let (sandbox, _) = start(quick()).await;
    let gateway = Gateway::with(quickstart::upstreams(&sandbox)).await;
    let addon = json!({"environment_id": sandbox::ENVIRONMENT_ID, "addon_id": sandbox::ADDON_ID,
        "action": "ADDON_ACTION_REDEPLOY"});
    let got = gateway
        .client
        .call("AddonService/ExecuteAddonAction", addon.clone())
        .await
        .unwrap();
    let job = to_json(&got)["job_id"].as_str().unwrap().to_owned();
    assert!(job.starts_with("JOB"), "{job}");
    let mut watch = gateway
        .client
        .watch("JobService/WatchJob", json!({"job_id": job}), &[])
        .await
        .unwrap();
    let mut last = json!(null);
    while let Some(event) = watch.next().await {
        last = to_json(&event.unwrap());
    }
    assert_eq!(last["event"]["outcome"], "OUTCOME_SUCCEEDED", "{last}");
    let got = gateway
        .client
        .call(
            "AddonService/GetAddon",
            json!({"environment_id": sandbox::ENVIRONMENT_ID, "addon_id": sandbox::ADDON_ID}),
        )
        .await
        .unwrap();
    assert_eq!(to_json(&got)["addon"]["status_raw"], "SUCCEEDED");

    // A wrong key is rejected, as by the real service.
    let mut wrong = quickstart::upstreams(&sandbox);
    let drawbridge::credentials::Settings::AkSk(keys) = &mut wrong[1].auth else {
        panic!()
    };
    keys.secret_key = "wrong".into();
    let gateway = Gateway::with(wrong).await;
    let status = gateway
        .client
        .call("AddonService/ExecuteAddonAction", addon)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(
        status.get_error_details().error_info().unwrap().reason,
        "APIGW.0301"
    );

    // An IAM token is accepted instead of a signature.
    let mut token = upstream("token", "servicestage", &sandbox.servicestage_url());
    token.project_id = None;
    token.auth = quickstart::upstreams(&sandbox)[0].auth.clone();
    let gateway = Gateway::with(vec![token]).await;
    gateway
        .client
        .call(
            "AddonService/ListAddons",
            json!({"environment_id": sandbox::ENVIRONMENT_ID}),
        )
        .await
        .unwrap();
}

/// Errors name the dialect of a sandbox upstream.
#[tokio::test]
async fn sandbox_upstreams_have_a_dialect() {
    let (sandbox, _) = start(quick()).await;
    let gateway = Gateway::with(quickstart::upstreams(&sandbox)).await;
    let unknown = json!({"stack_name": "nowhere"});
    let call = gateway.client.call("StackService/GetStack", unknown);
    let status = call.await.unwrap_err();
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!(info.reason, "EntityNotFound");
    assert_eq!(info.metadata["dialect"], "openstack");
}

/// Seed 5: release a service, which cannot be released twice.
#[tokio::test]
async fn service_is_released_once() {
    let (sandbox, _) = start(quick()).await;
    let gateway = Gateway::with(quickstart::upstreams(&sandbox)).await;
    let service = "AutomationService";
    let got = gateway
        .client
        .call(&format!("{service}/ListServices"), json!({}))
        .await
        .unwrap();
    assert!(to_json(&got)["data"].as_array().unwrap().len() > 1);
    let got = gateway
        .client
        .call(&format!("{service}/ReleaseService"), json!({"id": 2004}))
        .await
        .unwrap();
    let got = to_json(&got);
    assert_eq!(got["action_result"]["state"], "ACTION_STATE_SUCCESS");
    assert!(
        got["action_result"]["affected_resource"][0]
            .as_str()
            .unwrap()
            .ends_with("/Services/2004")
    );
    let got = gateway
        .client
        .call(&format!("{service}/GetService"), json!({"id": 2004}))
        .await
        .unwrap();
    assert_eq!(
        to_json(&got)["service"]["service_state"],
        "SERVICE_STATE_RELEASE"
    );
    let status = gateway
        .client
        .call(&format!("{service}/ReleaseService"), json!({"id": 2004}))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    let status = gateway
        .client
        .call(&format!("{service}/GetService"), json!({"id": 99}))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
}
