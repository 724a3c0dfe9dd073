//! Credentials of ServiceStage: temporary keys, IAM tokens, several accounts at once, and the
//! SDK's sources of keys. No secret is logged.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use drawbridge::cli::quickstart;
use drawbridge::credentials::{self, AkSk, IdOrName, Identity, Keystone, Named};
use drawbridge_sandbox::{self as sandbox, Sandbox};
use serde_json::{Value, json};
use tonic::Code;
use tonic_types::StatusExt;

use super::{RecordedGateway, assert_signed, signature};
use crate::support::client::json as to_json;
use crate::support::process::Process;
use crate::support::recorder::{Answer, Seen};
use crate::support::{Client, Gateway, Recorder, upstream};

const PROJECT: &str = "0a1b2c3d4e5f60718293a4b5c6d7e8f9";
const OTHER: &str = "ffffffffffffffffffffffffffffffff";
const LIST: &str = "EnvironmentService/ListEnvironments";
const ACTION: &str = "AddonService/ExecuteAddonAction";
const JOB: &str = "JobService/WatchJob";

fn redeploy() -> Value {
    json!({"environment_id": "e", "addon_id": "d", "action": "ADDON_ACTION_REDEPLOY"})
}

/// A rejection of the API gateway, as captured.
fn rejection(why: &str) -> Answer {
    let message = format!("Incorrect IAM authentication information: {why}");
    Answer::json(
        401,
        &json!({"error_code": "APIGW.0301", "error_msg": message, "request_id": "r"}),
    )
}

#[tokio::test]
async fn temporary_keys_are_signed_and_not_retried() {
    let recording = RecordedGateway::new(true).await;
    let config =
        json!({"config_id": "c", "config_group_id": "g", "content": "a: 1", "type_raw": "yaml"});
    for (rpc, request) in [
        (LIST, json!({"name": "a b"})),
        (ACTION, redeploy()),
        ("ConfigurationService/UpdateConfig", config),
        (
            "ApplicationService/DeleteApplicationConfiguration",
            json!({"application_id": "a", "environment_id": "e"}),
        ),
    ] {
        let good = Answer::json(200, &json!({"environments": [], "job_id": "j", "id": "c"}));
        let (result, seen) = recording.exchange(rpc, request.clone(), good).await;
        result.unwrap_or_else(|e| panic!("{rpc}: {e:?}"));
        // An expired token and a wrong signature are not retried: that could lock the key.
        for why in ["security token has expired", "verify aksk signature fail"] {
            let (result, again) = recording
                .exchange(rpc, request.clone(), rejection(why))
                .await;
            let status = result.expect_err(rpc);
            assert_eq!(status.code(), Code::FailedPrecondition, "{rpc}: {status:?}");
            assert!(status.message().contains(why), "{rpc}: {status:?}");
            assert_eq!(again.len(), 1, "{rpc}: {why}");
        }
        assert_eq!(seen.len(), 1, "{rpc}");
        assert_signed(&seen[0], rpc);
        assert_eq!(seen[0].header("x-security-token"), "SECURITYTOKENTEST+/=");
        let authorization = seen[0].header("authorization");
        assert!(authorization.contains("x-sdk-date;x-security-token,"));
    }
    // A watch ends with the same error.
    let before = recording.recorder.seen().len();
    let watch = recording
        .gateway
        .client
        .watch(JOB, json!({"job_id": "J"}), &[]);
    let status = watch.await.err().expect("refused");
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(recording.recorder.seen().len() - before, 1);
    recording.gateway.running.stop().await.unwrap();
}

/// The project of the path is signed, whether it comes from the request or from the
/// configuration.
#[tokio::test]
async fn project_of_the_path_is_signed() {
    let recorder = Recorder::fixed(Answer::json(200, &json!({"environments": []}))).await;
    let domain = Some("d78cbac186b744899480f25bd0221111".to_owned());
    let of_path = format!("{}/v3/{OTHER}/cas", recorder.url());
    for (endpoint, own, domain_id, asked, want) in [
        (recorder.url(), Some(PROJECT), None, "", PROJECT),
        (recorder.url(), Some(PROJECT), None, OTHER, OTHER),
        (recorder.url(), None, None, OTHER, OTHER),
        (recorder.url(), None, domain, OTHER, OTHER),
        (of_path, None, None, "", OTHER),
        (recorder.url(), Some("a b"), None, "", "a b"),
    ] {
        let mut settings = upstream("u", "servicestage", &endpoint);
        settings.project_id = own.map(str::to_owned);
        settings.auth = credentials::Settings::AkSk(AkSk {
            access_key: "AKTEST".into(),
            secret_key: "SKTEST".into(),
            security_token: None,
            project_id: own.map(str::to_owned),
            domain_id,
            iam_endpoint: None,
            region: None,
        });
        let gateway = Gateway::with(vec![settings]).await;
        let request = json!({"project_id": asked});
        gateway.client.call(LIST, request).await.unwrap();
        let seen = &recorder.take()[0];
        let path = format!("/v3/{}/cas/environments", want.replace(' ', "%20"));
        assert_eq!(seen.path(), path);
        assert_eq!(seen.header("x-project-id"), want);
        assert_eq!(seen.header("x-domain-id"), "");
        let authorization = seen.header("authorization");
        assert!(authorization.contains("host;x-project-id;x-sdk-date,"));
        if !want.contains(' ') {
            assert!(authorization.ends_with(&signature(seen, "SKTEST")));
        }
        if want == PROJECT {
            let request = json!({"project_id": "a\nb"});
            let status = gateway.client.call(LIST, request).await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
            assert!(status.message().starts_with("project_id: "), "{status:?}");
            assert!(recorder.take().is_empty());
        }
        gateway.running.stop().await.unwrap();
    }
}

/// A rejected signature is final also for keys whose project was looked up, with the
/// upstream's own message.
#[tokio::test]
async fn keys_with_a_looked_up_project_are_not_retried() {
    let why = "security token has expired";
    let recorder = Recorder::start(move |_| rejection(why)).await;
    // The recorder ignores GETs without a request id, which lookups are.
    let body = json!({"projects": [{"id": PROJECT, "name": "eu-de"}]});
    let body = body.to_string();
    let lookups = Arc::new(AtomicUsize::new(0));
    let counted = lookups.clone();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let iam = format!("http://{}", listener.local_addr().unwrap());
    let router = axum::Router::new().fallback(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        let body = body.clone();
        async move { body }
    });
    let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let mut settings = upstream("u", "servicestage", &recorder.url());
    settings.project_id = None;
    settings.auth = credentials::Settings::AkSk(AkSk {
        access_key: "AKTEST".into(),
        secret_key: "SKTEST".into(),
        security_token: Some("SECURITYTOKENTEST".into()),
        project_id: None,
        domain_id: None,
        iam_endpoint: Some(iam.parse().unwrap()),
        region: Some("eu-de".into()),
    });
    let gateway = Gateway::with(vec![settings]).await;
    for calls in 1..=2 {
        let status = gateway.client.call(LIST, json!({})).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
        assert!(status.message().contains(why), "{status:?}");
        assert_eq!(recorder.seen().len(), calls);
        assert_eq!(lookups.load(Ordering::SeqCst), 1, "looked up once");
    }
    assert_eq!(recorder.seen()[0].header("x-project-id"), PROJECT);
    server.abort();
    gateway.running.stop().await.unwrap();
}

#[tokio::test]
async fn clock_skew_is_named() {
    let recording = RecordedGateway::new(false).await;
    let dated = |date: &str| rejection("verify aksk signature fail").with("date", date);
    for (answer, want) in [
        (
            dated("Sun, 06 Nov 1994 08:49:37 GMT"),
            Some("ahead of the upstream's: set the clock"),
        ),
        (
            dated("Thu, 06 Nov 2098 08:49:37 GMT"),
            Some("behind the upstream's: set the clock"),
        ),
        // The recorder's date is that of this machine.
        (rejection("verify aksk signature fail"), None),
    ] {
        let (result, seen) = recording.exchange(ACTION, redeploy(), answer).await;
        let status = result.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
        match want {
            Some(want) => assert!(status.message().contains(want), "{status:?}"),
            None => assert!(!status.message().contains("clock"), "{status:?}"),
        }
        let details = status.get_error_details();
        let hint = &details.error_info().unwrap().metadata;
        assert_eq!(hint["hint"].contains("clock"), want.is_some(), "{hint:?}");
        assert_eq!(seen.len(), 1);
    }
    recording.gateway.running.stop().await.unwrap();
}

/// An IAM, and a ServiceStage that accepts its tokens, if they are of the project in the path
/// and not among the first `expired` ones of the project.
#[derive(Default)]
struct Cloud {
    expired: usize,
    /// Logins by project.
    logins: Mutex<HashMap<String, usize>>,
    /// Authenticated calls: verb, path and token.
    done: Mutex<Vec<String>>,
    /// The response to an authenticated call, by the end of its path; once.
    answers: Mutex<Vec<(&'static str, Value)>>,
}

impl Cloud {
    fn answer(&self, seen: &Seen) -> Answer {
        if seen.path() == "/v3/auth/tokens" {
            let project = &seen.json()["auth"]["scope"]["project"]["id"];
            let project = project.as_str().unwrap().to_owned();
            let mut logins = self.logins.lock().unwrap();
            let count = logins.entry(project.clone()).or_default();
            *count += 1;
            let body = json!({"token": {"expires_at": "2098-11-21T02:14:38.000000Z",
                "methods": ["password"], "project": {"id": project, "name": "region-1"}}});
            return Answer::json(201, &body)
                .with("x-subject-token", &format!("TOKEN-{project}-{count}"));
        }
        let token = seen.header("x-auth-token");
        let project = seen.path().split('/').nth(2).unwrap();
        let number: Option<usize> = token
            .strip_prefix(&format!("TOKEN-{project}-"))
            .and_then(|number| number.parse().ok());
        if number.is_none_or(|number| number <= self.expired) {
            return rejection("decrypt token fail");
        }
        let call = format!("{} {} {token}", seen.method, seen.path());
        self.done.lock().unwrap().push(call);
        let mut answers = self.answers.lock().unwrap();
        let found = answers
            .iter()
            .position(|(end, _)| seen.path().ends_with(end));
        let body = found.map_or(
            json!({"environments": [], "count": 0, "job_id": "j", "task_count": 0}),
            |at| answers.remove(at).1,
        );
        Answer::json(200, &body)
    }

    fn logins(&self, project: &str) -> usize {
        let logins = self.logins.lock().unwrap();
        logins.get(project).copied().unwrap_or_default()
    }

    fn done(&self) -> Vec<String> {
        self.done.lock().unwrap().clone()
    }
}

async fn start(cloud: &Arc<Cloud>) -> Recorder {
    let cloud = cloud.clone();
    Recorder::start(move |seen| cloud.answer(seen)).await
}

/// An upstream with the login of an IAM user for this project.
fn user(name: &str, recorder: &Recorder, project: &str) -> drawbridge::upstream::Settings {
    let mut settings = upstream(name, "servicestage", &recorder.url());
    settings.is_default = false;
    settings.project_id = Some(project.into());
    settings.auth = credentials::Settings::Keystone(Keystone {
        auth_url: format!("{}/v3", recorder.url()).parse().unwrap(),
        identity: Identity::Password {
            user: Named {
                id_or_name: IdOrName::Name("UserA".into()),
                domain: Some(IdOrName::Name("DomainA".into())),
            },
            password: "not-a-secret".into(),
        },
        project: Some(Named {
            id_or_name: IdOrName::Id(project.into()),
            domain: None,
        }),
        region: None,
        interfaces: vec!["public".into()],
    });
    settings
}

const AT_A: &[(&str, &str)] = &[("drawbridge-upstream", "a")];
const AT_B: &[(&str, &str)] = &[("drawbridge-upstream", "b")];

#[tokio::test]
async fn expired_token_is_renewed_once() {
    // The sixth token is valid: each call uses one token and renews it once.
    for (rpc, request) in [(LIST, json!({})), (ACTION, redeploy())] {
        for (expired, logins, sent, good) in [(0, 1, 1, true), (1, 2, 2, true), (9, 2, 2, false)] {
            let cloud = Arc::new(Cloud {
                expired,
                ..Cloud::default()
            });
            let recorder = start(&cloud).await;
            let gateway = Gateway::with(vec![user("a", &recorder, PROJECT)]).await;
            let result = gateway.client.call_with(rpc, request.clone(), AT_A).await;
            match &result {
                Ok(_) => assert!(good, "{rpc} {expired}"),
                Err(status) => {
                    assert!(!good, "{rpc} {expired}: {status:?}");
                    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
                }
            }
            assert_eq!(cloud.logins(PROJECT), logins, "{rpc} {expired}");
            let calls = recorder
                .seen()
                .iter()
                .filter(|s| s.path().contains("/cas/"))
                .count();
            assert_eq!(calls, sent, "{rpc} {expired}");
            assert_eq!(cloud.done().len(), usize::from(good), "done once");
            gateway.running.stop().await.unwrap();
        }
    }
}

#[tokio::test]
async fn action_is_sent_once_while_tokens_expire() {
    let job = |status: &str| json!({"task_count": 0, "job": {"job_id": "JOB1", "execution_status": status}});
    let cloud = Arc::new(Cloud {
        expired: 1,
        answers: Mutex::new(vec![
            ("/action", json!({"job_id": "JOB1"})),
            ("/jobs/JOB1", job("RUNNING")),
            ("/jobs/JOB1", job("SUCCEEDED")),
        ]),
        ..Cloud::default()
    });
    let recorder = start(&cloud).await;
    let gateway = Gateway::with(vec![user("a", &recorder, PROJECT)]).await;
    let rpc = "AddonService/ExecuteAddonActionAndWatch";
    let mut watch = gateway.client.watch(rpc, redeploy(), AT_A).await.unwrap();
    let mut last = Value::Null;
    while let Some(event) = watch.next().await {
        last = to_json(&event.unwrap());
    }
    assert_eq!(last["event"]["outcome"], "OUTCOME_SUCCEEDED", "{last}");
    let cas = format!("/v3/{PROJECT}/cas");
    let token = format!("TOKEN-{PROJECT}-2");
    assert_eq!(
        cloud.done(),
        [
            format!("POST {cas}/environments/e/addons/d/action {token}"),
            format!("GET {cas}/jobs/JOB1 {token}"),
            format!("GET {cas}/jobs/JOB1 {token}"),
        ]
    );
    gateway.running.stop().await.unwrap();
}

#[tokio::test]
async fn accounts_share_no_token_and_no_watch() {
    let cloud = Arc::new(Cloud::default());
    let recorder = start(&cloud).await;
    let (a, b) = (user("a", &recorder, PROJECT), user("b", &recorder, OTHER));
    let gateway = Gateway::with(vec![a, b]).await;
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..40 {
        let client = gateway.client.clone();
        let at = if n % 2 == 0 { AT_A } else { AT_B };
        calls.spawn(async move { client.call_with(LIST, json!({}), at).await.map(drop) });
    }
    while let Some(call) = calls.join_next().await {
        call.unwrap().unwrap();
    }
    // Each project has its own token, and one login.
    assert_eq!(cloud.done().len(), 40);
    assert_eq!((cloud.logins(PROJECT), cloud.logins(OTHER)), (1, 1));

    // The token is not valid for a project of the other account.
    let request = json!({"project_id": OTHER});
    let error = gateway.client.call_with(LIST, request, AT_A).await;
    assert_eq!(error.unwrap_err().code(), Code::FailedPrecondition);

    // The same job, watched with both accounts, is polled with both.
    let mut watches = Vec::new();
    for at in [AT_A, AT_B] {
        let request = json!({"job_id": "JOB1"});
        let mut watch = gateway.client.watch(JOB, request, at).await.unwrap();
        watch.event().await;
        watches.push(watch);
    }
    let done = cloud.done();
    for project in [PROJECT, OTHER] {
        let path = format!("GET /v3/{project}/cas/jobs/JOB1 ");
        assert!(done.iter().any(|call| call.starts_with(&path)), "{done:?}");
    }
    drop(watches);
    gateway.running.stop().await.unwrap();
}

#[tokio::test]
async fn clients_with_passthrough_tokens_share_no_watch() {
    let recorder = Recorder::start(|seen| match seen.header("x-auth-token") {
        "good" => Answer::json(
            200,
            &json!({"job": {"job_id": "JOB1", "execution_status": "RUNNING"}}),
        ),
        _ => rejection("decrypt token fail"),
    })
    .await;
    let mut settings = upstream("u", "servicestage", &recorder.url());
    settings.auth = credentials::Settings::Passthrough;
    let gateway = Gateway::with(vec![settings]).await;
    let ask = || json!({"job_id": "JOB1"});
    let mine = &[("x-auth-token", "good")];
    let mut watch = gateway.client.watch(JOB, ask(), mine).await.unwrap();
    watch.event().await;
    for metadata in [&[("x-auth-token", "bad")][..], &[]] {
        let other = gateway.client.watch(JOB, ask(), metadata).await;
        let status = other.err().expect("refused");
        assert_eq!(status.code(), Code::Unauthenticated, "{metadata:?}");
    }
    drop(watch);
    gateway.running.stop().await.unwrap();
}

#[tokio::test]
async fn sandbox_requires_the_token_of_temporary_keys() {
    let sandbox = Sandbox::start(([127, 0, 0, 1], 0).into(), sandbox::Settings::default())
        .await
        .unwrap();
    for (access_key, secret_key, token, good) in [
        (
            sandbox::TEMPORARY_ACCESS_KEY,
            sandbox::TEMPORARY_SECRET_KEY,
            Some(sandbox::SECURITY_TOKEN),
            true,
        ),
        (
            sandbox::TEMPORARY_ACCESS_KEY,
            sandbox::TEMPORARY_SECRET_KEY,
            None,
            false,
        ),
        (
            sandbox::TEMPORARY_ACCESS_KEY,
            sandbox::TEMPORARY_SECRET_KEY,
            Some("another"),
            false,
        ),
        (sandbox::ACCESS_KEY, sandbox::SECRET_KEY, None, true),
        (sandbox::ACCESS_KEY, "another", None, false),
    ] {
        let mut all = quickstart::upstreams(&sandbox);
        all.retain(|settings| settings.family == "servicestage");
        all[0].auth = credentials::Settings::AkSk(AkSk {
            access_key: access_key.into(),
            secret_key: secret_key.into(),
            security_token: token.map(Into::into),
            project_id: Some(sandbox::PROJECT_ID.into()),
            domain_id: None,
            iam_endpoint: None,
            region: None,
        });
        let gateway = Gateway::with(all).await;
        let result = gateway.client.call(LIST, json!({})).await;
        let code = result.err().map(|status| status.code());
        let want = (!good).then_some(Code::FailedPrecondition);
        assert_eq!(code, want, "{access_key} {token:?}");
        gateway.running.stop().await.unwrap();
    }
    sandbox.stop().await;
}

/// Keys are read from the SDK's environment variables or file, and the log has no secret, even
/// at level trace.
#[tokio::test(flavor = "multi_thread")]
async fn sdk_keys_are_found_and_never_logged() {
    let recorder = Recorder::start(|seen| match seen.path().ends_with("/environments") {
        true => Answer::json(200, &json!({"environments": []})),
        false => rejection("verify aksk signature fail"),
    })
    .await;
    let file = "[basic]\nak = AKTEST\nsk = SECRET-SK\nsecurity_token = SECRET-TOKEN\n\
                project_id = 0a1b2c3d4e5f60718293a4b5c6d7e8f9\n";
    let variables = [
        ("HUAWEICLOUD_SDK_AK", "AKTEST"),
        ("HUAWEICLOUD_SDK_SK", "SECRET-SK"),
        ("HUAWEICLOUD_SDK_SECURITY_TOKEN", "SECRET-TOKEN"),
        ("HUAWEICLOUD_SDK_PROJECT_ID", PROJECT),
    ];
    for in_file in [false, true] {
        let home = tempfile::tempdir().unwrap();
        let upstreams = format!(
            "[[upstream]]\nname = \"stage\"\nfamily = \"servicestage\"\nendpoint = \"{}\"\n\
             default = true\nauth = {{ kind = \"ak_sk\", from_env = true }}\n\
             [[upstream]]\nname = \"mine\"\nfamily = \"servicestage\"\nendpoint = \"{}\"\n\
             project_id = \"{PROJECT}\"\n",
            recorder.url(),
            recorder.url()
        );
        let mut env = vec![("RUST_LOG", "trace")];
        if in_file {
            std::fs::create_dir(home.path().join(".huaweicloud")).unwrap();
            std::fs::write(home.path().join(".huaweicloud/credentials"), file).unwrap();
        } else {
            env.extend(variables);
        }
        let process = Process::start_in(home, &upstreams, &env);
        let client =
            Client::connect(process.address, &[drawbridge::contract::BUILT_IN.to_vec()]).await;
        recorder.take();
        client.call(LIST, json!({})).await.unwrap();
        let status = client.call(ACTION, redeploy()).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
        let own = &[
            ("drawbridge-upstream", "mine"),
            ("x-auth-token", "SECRET-OWN"),
        ];
        client.call_with(LIST, json!({}), own).await.unwrap();
        let status = client.call_with(ACTION, redeploy(), own).await;
        assert_eq!(status.unwrap_err().code(), Code::Unauthenticated);

        let seen = recorder.take();
        assert_eq!(seen.len(), 4, "{in_file}");
        let mut secrets: Vec<String> = ["SECRET-SK", "SECRET-TOKEN", "SECRET-OWN"]
            .map(str::to_owned)
            .to_vec();
        for seen in &seen[..2] {
            assert_eq!(seen.header("x-security-token"), "SECRET-TOKEN");
            assert_eq!(seen.header("x-project-id"), PROJECT);
            assert!(seen.path().starts_with(&format!("/v3/{PROJECT}/")));
            let signature = signature(seen, "SECRET-SK");
            assert!(seen.header("authorization").ends_with(&signature));
            secrets.push(signature);
        }
        for seen in &seen[2..] {
            assert_eq!(seen.header("x-auth-token"), "SECRET-OWN");
            assert_eq!(seen.header("authorization"), "");
        }
        let log = process.stop();
        assert!(log.contains("ExecuteAddonAction"), "nothing is logged");
        for secret in secrets {
            let line = log.lines().find(|line| line.contains(&secret));
            assert_eq!(line, None, "{secret}");
        }
    }
}
