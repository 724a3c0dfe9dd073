//! The sandbox for newcomers: its upstreams, its banner, and lines to paste.

use drawbridge_sandbox::{self as sandbox, Sandbox};

use crate::credentials::{AkSk, IdOrName, Identity, Keystone, Named, Settings as Auth};
use crate::upstream::Settings;

/// One upstream per family, before the sandbox.
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
        settings.transport.proxy_from_env = false;
        if family != "jp1ao" {
            settings.project_id = Some(sandbox::PROJECT_ID.into());
        }
        Some(settings)
    })
    .collect()
}

/// The first line of the banner.
pub const ANNOUNCEMENT: &str =
    "SANDBOX: embedded OpenStack Heat, Huawei ServiceStage and Hitachi JP1/AO\n";

/// Returns the last lines of the banner: two calls to paste, and where more are.
pub fn hints(grpc: &str, tls: bool) -> String {
    let security = security(tls);
    format!(
        "Paste into another terminal:
  grpcurl {security} {grpc} list
  grpcurl {security} {grpc} hitachi.automation.v1.TaskService/ListTasks
`drawbridge examples` prints more. Ctrl-C stops.
"
    )
}

/// How grpcurl connects. The sandbox's certificate is whatever the user has made.
fn security(tls: bool) -> &'static str {
    match tls {
        true => "-insecure",
        false => "-plaintext",
    }
}

/// Returns calls to paste, for a sandbox behind the gateway at this address.
pub fn examples(grpc: &str, tls: bool) -> String {
    let security = security(tls);
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
        "With grpcurl, while `drawbridge sandbox` runs:

  grpcurl {security} -d '{server}' {grpc} {deployment}/ListSoftwareDeployments
  grpcurl {security} -d '{create}' {grpc} {deployment}/CreateSoftwareDeployment
  grpcurl {security} -d '{server}' {grpc} {deployment}/WatchSoftwareDeployments
  grpcurl {security} -d '{shop}' {grpc} {stack}/CreateStack
  grpcurl {security} -d '{{\"stack_name\": \"shop\"}}' {grpc} {stack}/WatchStack
  job=$(grpcurl {security} -d '{addon}' {grpc} {stage}.AddonService/ExecuteAddonAction | grep -o 'JOB[^\"]*'); echo $job
  grpcurl {security} -d '{{\"job_id\": \"'$job'\"}}' {grpc} {stage}.JobService/WatchJob
  grpcurl {security} -d '{addon}' {grpc} {stage}.AddonService/ExecuteAddonActionAndWatch
  grpcurl {security} -d '{{\"id\": 2004}}' {grpc} {automation}.AutomationServiceService/ReleaseService
  grpcurl {security} -d '{machines}' {grpc} {automation}.TaskService/SubmitServiceAndWatch

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

On a terminal, with a view that follows a resource to its end:

  drawbridge watch stack shop
"
    )
}
