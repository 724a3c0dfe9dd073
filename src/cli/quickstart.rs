//! The upstreams of `drawbridge sandbox`, and the example calls of `drawbridge examples`.

use drawbridge_sandbox::{self as sandbox, Sandbox};

use crate::credentials::{AkSk, IdOrName, Identity, Keystone, Named, Settings as Auth};
use crate::upstream::Settings;

/// Where the gateway listens by default.
pub const DEFAULT_ADDRESS: &str = "127.0.0.1:50051";

/// Returns one upstream per family, each an endpoint of the sandbox.
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
                interfaces: vec!["public".into()],
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

/// Returns lines to paste with the name of the program in its place: `target/release/drawbridge`.
pub fn as_started(examples: &str, program: &str) -> String {
    let starts = ["  drawbridge ", "$(drawbridge "];
    starts.iter().fold(examples.to_owned(), |text, start| {
        text.replace(start, &start.replace("drawbridge", program))
    })
}

/// Returns calls to paste, for a sandbox behind the gateway at this address: with `drawbridge`,
/// and with grpcurl.
pub fn examples(gateway: &str, tls: bool) -> String {
    // The certificate of a sandbox is usually self-signed.
    let (security, flags) = match tls {
        true => (
            "-insecure",
            format!(" --gateway https://{gateway} --ca ca.pem"),
        ),
        false if gateway == DEFAULT_ADDRESS => ("-plaintext", String::new()),
        false => ("-plaintext", format!(" --gateway {gateway}")),
    };
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
        "Paste into another terminal while `drawbridge sandbox` runs:

  drawbridge call SoftwareDeploymentService/ListSoftwareDeployments '{server}'{flags}
  drawbridge call SoftwareDeploymentService/CreateSoftwareDeployment '{create}'{flags}
  drawbridge watch SoftwareDeploymentService/WatchSoftwareDeployments '{server}' --timeout 5s{flags}
  drawbridge call StackService/CreateStack '{shop}'{flags}
  drawbridge watch StackService/WatchStack '{{\"stack_name\": \"shop\"}}'{flags}
  job=$(drawbridge call AddonService/ExecuteAddonAction '{addon}'{flags} | grep -o 'JOB[^\"]*'); echo $job
  drawbridge watch JobService/WatchJob '{{\"job_id\": \"'$job'\"}}'{flags}
  drawbridge watch AddonService/ExecuteAddonActionAndWatch '{addon}'{flags}
  drawbridge call AutomationService/ReleaseService '{{\"id\": 2004}}'{flags}
  drawbridge watch TaskService/SubmitServiceAndWatch '{machines}'{flags}

Watch a stack with its events, list what there is, and describe it:

  drawbridge watch stack shop{flags}
  drawbridge ls StackService{flags}
  drawbridge describe StackService/GetStack{flags}

The same with grpcurl (https://github.com/fullstorydev/grpcurl), which is not part of Drawbridge:

  grpcurl {security} -d '{server}' {gateway} {deployment}/ListSoftwareDeployments
  grpcurl {security} -d '{create}' {gateway} {deployment}/CreateSoftwareDeployment
  grpcurl {security} -d '{server}' -max-time 5 {gateway} {deployment}/WatchSoftwareDeployments
  grpcurl {security} -d '{shop}' {gateway} {stack}/CreateStack
  grpcurl {security} -d '{{\"stack_name\": \"shop\"}}' {gateway} {stack}/WatchStack
  job=$(grpcurl {security} -d '{addon}' {gateway} {stage}.AddonService/ExecuteAddonAction | grep -o 'JOB[^\"]*'); echo $job
  grpcurl {security} -d '{{\"job_id\": \"'$job'\"}}' {gateway} {stage}.JobService/WatchJob
  grpcurl {security} -d '{addon}' {gateway} {stage}.AddonService/ExecuteAddonActionAndWatch
  grpcurl {security} -d '{{\"id\": 2004}}' {gateway} {automation}.AutomationService/ReleaseService
  grpcurl {security} -d '{machines}' {gateway} {automation}.TaskService/SubmitServiceAndWatch
"
    )
}
