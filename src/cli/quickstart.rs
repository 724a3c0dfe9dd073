//! What a newcomer sees: the sandbox's upstreams, and lines to paste.

use std::fmt::Write;

#[cfg(feature = "sandbox")]
use drawbridge_sandbox::{self as sandbox, Sandbox};

#[cfg(feature = "sandbox")]
use crate::credentials::{AkSk, IdOrName, Identity, Keystone, Named, Settings as Auth};
use crate::server::Running;
#[cfg(feature = "sandbox")]
use crate::upstream::Settings;

/// One upstream per family, before the sandbox.
#[cfg(feature = "sandbox")]
pub fn upstreams(sandbox: &Sandbox) -> Vec<Settings> {
    let named = |name: &str| Named {
        id_or_name: IdOrName::Name(name.into()),
        domain: Some(IdOrName::Name("Default".into())),
    };
    let keystone = url::Url::parse(&sandbox.keystone_url())
        .ok()
        .map(|auth_url| {
            Auth::Keystone(Keystone {
                auth_url,
                identity: Identity::Password {
                    user: named(sandbox::USERNAME),
                    password: sandbox::PASSWORD.into(),
                },
                project: Some(named(sandbox::PROJECT_NAME)),
                region: None,
                interface: "public".into(),
            })
        });
    let keys = Auth::AkSk(AkSk {
        access_key: sandbox::ACCESS_KEY.into(),
        secret_key: sandbox::SECRET_KEY.into(),
        security_token: None,
        project_id: Some(sandbox::PROJECT_ID.into()),
        domain_id: None,
        iam_endpoint: None,
        region: None,
    });
    let hsso = Auth::Hsso {
        username: sandbox::JP1AO_USERNAME.into(),
        password: sandbox::JP1AO_PASSWORD.into(),
    };
    [
        ("heat", sandbox.heat_url(), keystone),
        ("servicestage", sandbox.servicestage_url(), Some(keys)),
        ("jp1ao", sandbox.jp1ao_url(), Some(hsso)),
    ]
    .into_iter()
    .filter_map(|(family, url, auth)| {
        let mut settings = Settings::new(format!("sandbox-{family}"), family, auth?);
        settings.endpoint = url::Url::parse(&url).ok();
        let dialects = crate::families::family(family).dialects;
        settings.dialect = dialects.first().copied().unwrap_or_default().to_owned();
        settings.is_default = true;
        settings.transport.proxy_from_environment = false;
        if family != "jp1ao" {
            settings.project_id = Some(sandbox::PROJECT_ID.into());
        }
        Some(settings)
    })
    .collect()
}

/// What is listening.
pub fn listening(running: &Running) -> String {
    let mut text = format!("drawbridge serves gRPC on {}\n", running.grpc);
    if let Some(admin) = running.admin {
        let _ = writeln!(
            text,
            "metrics, liveness, readiness on http://{admin}/metrics /livez /readyz"
        );
    }
    text
}

/// What to paste to call the sandbox.
#[cfg(feature = "sandbox")]
pub fn examples(running: &Running, sandbox: &Sandbox) -> String {
    let grpc = running.grpc;
    let deployment = "openstack.orchestration.v1.SoftwareDeploymentService";
    let stack = "openstack.orchestration.v1.StackService";
    let stage = "huaweicloud.servicestage.v3";
    let automation = "hitachi.automation.v1";
    let server = format!(r#"{{"server_id": "{}"}}"#, sandbox::SERVER_ID);
    let create = format!(
        r#"{{"server_id": "{}", "config_id": "{}", "status": "DEPLOYMENT_STATUS_IN_PROGRESS"}}"#,
        sandbox::SERVER_ID,
        sandbox::CONFIG_ID
    );
    let shop = concat!(
        r#"{"stack_name": "shop", "template_json": {"heat_template_version": "2018-08-31", "#,
        r#""resources": {"network": {"type": "OS::Heat::TestResource"}, "#,
        r#""server": {"type": "OS::Heat::TestResource", "depends_on": "network"}, "#,
        r#""password": {"type": "OS::Heat::RandomString"}}, "#,
        r#""outputs": {"password": {"value": {"get_attr": ["password", "value"]}}}}}"#
    );
    let addon = format!(
        r#"{{"environment_id": "{}", "addon_id": "{}", "action": "ADDON_ACTION_REDEPLOY"}}"#,
        sandbox::ENVIRONMENT_ID,
        sandbox::ADDON_ID
    );
    let machines = r#"{"id": 2008, "name": "night shift", "steps": true}"#;
    format!(
        "before a sandbox of OpenStack Heat, Huawei ServiceStage and Hitachi JP1/AO on {sandbox}

Paste into another terminal, with grpcurl:

  grpcurl -plaintext -d '{server}' {grpc} {deployment}/ListSoftwareDeployments
  grpcurl -plaintext -d '{create}' {grpc} {deployment}/CreateSoftwareDeployment
  grpcurl -plaintext -d '{server}' {grpc} {deployment}/WatchSoftwareDeployments
  grpcurl -plaintext -d '{shop}' {grpc} {stack}/CreateStack
  grpcurl -plaintext -d '{{\"stack_name\": \"shop\"}}' {grpc} {stack}/WatchStack
  job=$(grpcurl -plaintext -d '{addon}' {grpc} {stage}.AddonService/ExecuteAddonAction | grep -o 'JOB[^\"]*'); echo $job
  grpcurl -plaintext -d '{{\"job_id\": \"'$job'\"}}' {grpc} {stage}.JobService/WatchJob
  grpcurl -plaintext -d '{addon}' {grpc} {stage}.AddonService/ExecuteAddonActionAndWatch
  grpcurl -plaintext -d '{{\"id\": 2004}}' {grpc} {automation}.AutomationServiceService/ReleaseService
  grpcurl -plaintext -d '{machines}' {grpc} {automation}.TaskService/SubmitServiceAndWatch

or the same with the small Python client (its first run sets itself up):

  clients/python/drawbridge call SoftwareDeploymentService/ListSoftwareDeployments '{server}'
  clients/python/drawbridge call SoftwareDeploymentService/CreateSoftwareDeployment '{create}'
  clients/python/drawbridge watch SoftwareDeploymentService/WatchSoftwareDeployments '{server}'
  clients/python/drawbridge call StackService/CreateStack '{shop}'
  clients/python/drawbridge watch StackService/WatchStack '{{\"stack_name\": \"shop\"}}'
  job=$(clients/python/drawbridge call AddonService/ExecuteAddonAction '{addon}' | grep -o 'JOB[^\"]*'); echo $job
  clients/python/drawbridge watch JobService/WatchJob '{{\"job_id\": \"'$job'\"}}'
  clients/python/drawbridge watch AddonService/ExecuteAddonActionAndWatch '{addon}'
  clients/python/drawbridge call AutomationServiceService/ReleaseService '{{\"id\": 2004}}'
  clients/python/drawbridge watch TaskService/SubmitServiceAndWatch '{machines}'

Ctrl-C stops. For your own upstreams see drawbridge.example.toml.
",
        sandbox = sandbox.servicestage_url(),
    )
}
