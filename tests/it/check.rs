//! `drawbridge check`, with the upstreams of the sandbox and with scripted ones.

use std::sync::Arc;

use drawbridge::cli::{check, quickstart};
use drawbridge::{Config, credentials};
use drawbridge_sandbox as sandbox;
use serde_json::{Value, json};

use crate::own_api::compile;
use crate::support::recorder::{Answer, Recorder};
use crate::support::{nowhere, settings, upstream};

async fn report(config: &Config) -> check::Report {
    check::check(config, &[]).await.unwrap()
}

/// Returns the lines of a report without the times.
fn lines(report: &check::Report) -> Vec<String> {
    let text = report.text();
    let line = |line: &str| match line.split_once(" (") {
        Some((before, after)) if after.contains(" ms)") => {
            let (_, after) = after.split_once(" ms)").unwrap();
            format!("{before}{after}")
        }
        _ => line.to_owned(),
    };
    text.lines().map(line).collect()
}

async fn sandbox() -> sandbox::Sandbox {
    let address = ([127, 0, 0, 1], 0).into();
    sandbox::Sandbox::start(address, Default::default())
        .await
        .unwrap()
}

#[tokio::test]
async fn each_upstream_has_a_line() {
    let sandbox = sandbox().await;
    let mut upstreams = quickstart::upstreams(&sandbox);
    upstreams[0].endpoint = None;
    upstreams[0].project_id = None;
    let report = report(&settings(upstreams)).await;
    assert!(report.is_ok(), "{}", report.text());
    let (heat, stage, ao) = (
        sandbox.heat_url(),
        sandbox.servicestage_url(),
        sandbox.jp1ao_url(),
    );
    assert_eq!(
        lines(&report)[1..],
        [
            format!(
                "sandbox-heat          OK  demo@Default, project demo, region RegionOne, {heat}"
            ),
            format!(
                "sandbox-servicestage  OK  access key {}, project {}, {stage}",
                sandbox::ACCESS_KEY,
                sandbox::PROJECT_ID
            ),
            format!(
                "sandbox-jp1ao         OK  {}, {ao}",
                sandbox::JP1AO_USERNAME
            ),
        ]
    );
    let json = report.json();
    assert_eq!(json["ok"], true);
    assert_eq!((&json["checked"], &json["failed"]), (&json!(3), &json!(0)));
    assert_eq!(json["upstreams"][0]["user"], "demo@Default");
    assert_eq!(
        json["upstreams"][0]["read"],
        "openstack.orchestration.v1.MetaService/GetBuildInfo"
    );
}

#[tokio::test]
async fn upstreams_that_do_not_respond_or_reject_the_login_are_reported() {
    let sandbox = sandbox().await;
    let mut wrong = quickstart::upstreams(&sandbox);
    let nowhere = nowhere();
    wrong[0].endpoint = Some(format!("http://{nowhere}/v1").parse().unwrap());
    let credentials::Settings::AkSk(keys) = &mut wrong[1].auth else {
        panic!("the sandbox's ServiceStage requires signatures");
    };
    keys.secret_key = "another".into();
    wrong[2].auth = credentials::Settings::Basic {
        username: sandbox::JP1AO_USERNAME.into(),
        password: "another".into(),
    };
    let report = report(&settings(wrong)).await;
    let lines = lines(&report);
    let down = format!(
        "sandbox-heat          FAILED  http://{nowhere}/v1: cannot connect: http://{nowhere}: "
    );
    for (line, want) in lines[1..].iter().zip([
        vec![&*down, "refused", ": check `endpoint`"],
        vec![
            "sandbox-servicestage  FAILED  http://127.0.0.1:",
            "HTTP 401 to ListEnvironments",
            "it rejects the credentials: check [upstream.auth], here kind `ak_sk`",
        ],
        vec![
            "sandbox-jp1ao         FAILED  http://127.0.0.1:",
            "HTTP 401 to GetVersion",
            "it rejects the credentials: check [upstream.auth], here kind `basic`",
        ],
        vec!["3 of 3 failed"],
    ]) {
        for part in want {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        assert!(!line.contains("another"), "{line}");
    }
    assert_eq!(lines.len(), 5, "{lines:?}");
    assert!(!report.is_ok());
    assert_eq!(
        (&report.json()["ok"], &report.json()["failed"]),
        (&json!(false), &json!(3))
    );
}

/// What an upstream of Heat responds to `check`, and the line.
#[tokio::test]
async fn responses_of_other_apis_and_rejections_fail() {
    let builds = json!({"api": {"revision": "1"}, "engine": {"revision": "1"}});
    let error = json!({"error": {"message": "no such thing", "type": "X"}});
    let html = Answer::text(200, "text/html", "<html>welcome</html>");
    let none = || credentials::Settings::None;
    let token = || credentials::Settings::Token {
        header: http::HeaderName::from_static("x-auth-token"),
        token: "s3cret".into(),
    };
    let own = || credentials::Settings::Passthrough;
    let wrong = "it is not the API of the family heat: check `endpoint`";
    for (auth, project, answer, want) in [
        (
            token(),
            true,
            Answer::json(200, &builds),
            "OK  a token in x-auth-token, project p1, ",
        ),
        (token(), true, Answer::json(404, &error), wrong),
        (
            token(),
            true,
            Answer::text(404, "text/html", "<html>nginx</html>"),
            wrong,
        ),
        (token(), true, html.clone(), wrong),
        (
            token(),
            true,
            Answer::json(200, &json!({"servers": []})),
            wrong,
        ),
        (
            token(),
            true,
            Answer::json(401, &error),
            "it rejects the credentials",
        ),
        (
            token(),
            true,
            Answer::json(403, &error),
            "the credentials must not call GetBuildInfo",
        ),
        (
            token(),
            true,
            Answer::json(503, &Value::Null),
            "check that it runs",
        ),
        (
            token(),
            false,
            Answer::json(200, &builds),
            "set `project_id` of upstream north",
        ),
        (
            none(),
            true,
            Answer::json(200, &builds),
            "OK  no credentials, project p1, ",
        ),
        (
            none(),
            true,
            Answer::json(401, &error),
            "it requires credentials: set [upstream.auth]",
        ),
        (
            own(),
            true,
            Answer::json(401, &error),
            ": it responds HTTP 401; not more is checked, since only clients have credentials",
        ),
        (own(), true, Answer::json(404, &error), wrong),
        (
            own(),
            false,
            Answer::json(300, &json!({})),
            ": it responds HTTP 300; not more is",
        ),
        (own(), false, Answer::json(404, &error), wrong),
    ] {
        let status = answer.status;
        let cloud = Recorder::with_health_checks(move |_| answer.clone()).await;
        let mut north = upstream("north", "heat", &format!("{}/v2/nothing", cloud.url()));
        north.project_id = project.then(|| "p1".to_owned());
        let kind = auth.kind();
        north.auth = auth;
        let report = report(&settings(vec![north])).await;
        let lines = lines(&report);
        assert!(
            lines[1].contains(want),
            "{kind} {status}: {want} is not in {lines:?}"
        );
        assert_eq!(
            report.is_ok(),
            lines[1].starts_with("north  OK"),
            "{lines:?}"
        );
        let address = cloud.url();
        let names_it = lines[1].contains(&address) || want.contains("project_id");
        assert!(names_it, "{lines:?}");
    }
}

/// The line of an untrusted certificate says nothing about the API.
#[tokio::test]
async fn untrusted_certificate_is_named_and_not_the_api() {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    let certificate = certificate.self_signed(&key).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(
        vec![certificate.der().clone()],
        rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
    )
    .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "https://localhost:{}",
        listener.local_addr().unwrap().port()
    );
    let server = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let _ = acceptor.accept(stream).await;
        }
    });
    let mut north = upstream("north", "heat", &url);
    north.project_id = Some("p1".to_owned());
    north.auth = credentials::Settings::None;
    let report = report(&settings(vec![north])).await;
    server.abort();
    let lines = lines(&report);
    let start = format!("north  FAILED  {url}");
    assert!(lines[1].starts_with(&start), "{lines:?}");
    assert!(lines[1].contains("`ca_file`"), "{lines:?}");
    for other in ["cannot be read", "check `endpoint`"] {
        assert!(!lines[1].contains(other), "{other} is in {lines:?}");
    }
}

#[tokio::test]
async fn own_api_is_checked_by_the_rpc_that_it_names() {
    let proto = |option: &str| {
        format!(
            r#"syntax = "proto3";
            package acme.v1;
            import "drawbridge/v1/options.proto";
            import "google/api/annotations.proto";
            option (drawbridge.v1.file) = {{family: "acme" {option}}};
            service RolloutService {{
              rpc ListRollouts(ListRolloutsRequest) returns (ListRolloutsResponse) {{
                option (google.api.http) = {{get: "/api/rollouts"}};
              }}
            }}
            message ListRolloutsRequest {{}}
            message ListRolloutsResponse {{ repeated string rollouts = 1; }}"#
        )
    };
    let check = r#"health_check: "RolloutService.ListRollouts""#;
    for (option, path, status, want) in [
        (check, "/api/rollouts", 200, "OK  demo, "),
        (check, "/api/rollouts", 401, "it rejects the credentials"),
        (
            check,
            "/api/others",
            200,
            "it is not the API of the family acme",
        ),
        (
            "",
            "/api/others",
            200,
            "not more is checked, since the protos name no `health_check`",
        ),
        ("", "/", 502, "check that it runs"),
    ] {
        let acme = Recorder::with_health_checks(move |seen| match seen.path() == path {
            true => Answer::json(status, &json!({"rollouts": []})),
            false => Answer::json(404, &json!({"message": "no such page"})),
        })
        .await;
        let mut settings_ = upstream("acme", "acme", &acme.url());
        settings_.project_id = None;
        settings_.auth = credentials::Settings::Basic {
            username: "demo".into(),
            password: "s3cret".into(),
        };
        let mut config = settings(vec![settings_]);
        config.descriptors = vec![compile(&proto(option)).unwrap()];
        let report = report(&config).await;
        assert!(
            lines(&report)[1].contains(want),
            "{want}: {}",
            report.text()
        );
    }
}

#[tokio::test]
async fn upstreams_are_chosen_by_name_and_a_missing_default_is_a_warning() {
    let cloud = Recorder::with_health_checks(|_| Answer::json(401, &json!({}))).await;
    let mut upstreams = ["north", "south"].map(|name| upstream(name, "heat", &cloud.url()));
    for upstream in &mut upstreams {
        upstream.is_default = false;
        upstream.auth = credentials::Settings::Passthrough;
    }
    let config = settings(upstreams.to_vec());
    let all = lines(&report(&config).await);
    assert!(
        all[1].starts_with(
            "warning: family heat: no upstream is the default: calls without the metadata \
             `drawbridge-upstream` fail; set `default = true` of one of north, south"
        ),
        "{all:?}"
    );
    assert_eq!(all.len(), 4, "{all:?}");
    let south = check::check(&config, &["south".to_owned()]).await.unwrap();
    assert_eq!(south.json()["checked"], 1);
    assert_eq!(south.json()["upstreams"][0]["name"], "south");
    let unknown = check::check(&config, &["nort".to_owned()])
        .await
        .unwrap_err();
    let unknown = format!("{unknown:?}");
    assert!(
        unknown.contains("no upstream is named nort, did you mean north?; there are: north, south"),
        "{unknown}"
    );
}
