//! Health of upstreams: logins at start, probes, and what they show in gRPC health, metrics
//! and the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::SeqCst};
use std::time::Duration;

use drawbridge::credentials::{self, IdOrName, Identity, Keystone, Named};
use drawbridge::{Config, upstream as upstreams};
use serde_json::json;
use tokio_stream::StreamExt;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::support::client::Client;
use crate::support::process::Process;
use crate::support::recorder::{Answer, Recorder, Seen};
use crate::support::{Gateway, http_get, nowhere, settings, upstream};

const HEAT: &str = "openstack.orchestration.v1.StackService";
const JP1AO: &str = "hitachi.automation.v1.TaskService";

/// Settings of a gateway that checks its upstreams often.
fn checking(upstreams: Vec<upstreams::Settings>) -> Config {
    let mut config = settings(upstreams);
    config.server.health_check_interval = Duration::from_millis(200);
    config
}

/// Waits until a service has this status.
async fn until(channel: &Channel, service: &str, want: ServingStatus) {
    let request = HealthCheckRequest {
        service: service.into(),
    };
    let mut client = HealthClient::new(channel.clone());
    let mut statuses = client.watch(request).await.unwrap().into_inner();
    while statuses.next().await.unwrap().unwrap().status() != want {}
}

/// Waits until the metrics have this line, and returns them.
async fn until_metric(gateway: &Gateway, line: &str) -> String {
    let admin = gateway.running.admin.unwrap();
    loop {
        let (_, text) = http_get(&format!("http://{admin}/metrics")).await;
        if text.lines().any(|found| found == line) {
            return text;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A Keystone with this status to logins, whose catalog has this endpoint, and a Heat with
/// this status to reads.
async fn cloud(login: u16, catalog: Option<String>, read: u16) -> Recorder {
    Recorder::with_health_checks(move |seen: &Seen| match (&*seen.method, seen.path()) {
        ("POST", "/v3/auth/tokens") => {
            let heat = format!("http://{}/v1/p1", seen.header("host"));
            let url = catalog.clone().unwrap_or(heat);
            let endpoint = json!({"interface": "public", "region": "r1", "url": url});
            let token = json!({"token": {
                "expires_at": "2100-01-01T00:00:00Z", "project": {"id": "p1", "name": "demo"},
                "catalog": [{"type": "orchestration", "endpoints": [endpoint]}]}});
            Answer::json(login, &token).with("x-subject-token", "t")
        }
        ("GET", "/") => Answer::json(300, &json!({})),
        _ => Answer::json(read, &json!({"api": {"revision": "1"}, "engine": {}})),
    })
    .await
}

pub fn keystone(url: &str) -> credentials::Settings {
    let named = |name: &str| Named {
        id_or_name: IdOrName::Name(name.into()),
        domain: Some(IdOrName::Name("Default".into())),
    };
    credentials::Settings::Keystone(Keystone {
        auth_url: url.parse().unwrap(),
        identity: Identity::Password {
            user: named("demo"),
            password: "s3cret".into(),
        },
        project: Some(named("demo")),
        region: None,
        interfaces: vec!["public".into()],
    })
}

fn basic() -> credentials::Settings {
    credentials::Settings::Basic {
        username: "demo".into(),
        password: "s3cret".into(),
    }
}

#[tokio::test]
async fn wrong_credentials_show_before_the_first_call() {
    let dead = format!("http://{}/v1/p1", nowhere());
    for (what, auth, login, catalog, read, up, logins) in [
        ("accepted", "keystone", 201, None, 200, 1, Some("succeeded")),
        (
            "wrong password",
            "keystone",
            401,
            None,
            200,
            0,
            Some("rejected"),
        ),
        (
            "wrong project",
            "keystone",
            400,
            None,
            200,
            0,
            Some("rejected"),
        ),
        (
            "no identity service",
            "keystone",
            503,
            None,
            200,
            0,
            Some("failed"),
        ),
        (
            "catalog of a dead host",
            "keystone",
            201,
            Some(dead),
            200,
            0,
            Some("succeeded"),
        ),
        (
            "rejected token",
            "keystone",
            201,
            None,
            401,
            0,
            Some("succeeded"),
        ),
        (
            "role without the read",
            "keystone",
            201,
            None,
            403,
            1,
            Some("succeeded"),
        ),
        ("accepted password", "basic", 0, None, 200, 1, None),
        ("rejected password", "basic", 0, None, 401, 0, None),
        ("own credentials", "passthrough", 0, None, 401, 1, None),
        ("no credentials", "none", 0, None, 401, 0, None),
        ("none needed", "none", 0, None, 200, 1, None),
        (
            "none needed, and no such path",
            "none",
            0,
            None,
            404,
            1,
            None,
        ),
        ("a proxy without a backend", "basic", 0, None, 502, 0, None),
    ] {
        let cloud = cloud(login, catalog, read).await;
        let mut settings = upstream("north", "heat", &cloud.url());
        settings.auth = match auth {
            "keystone" => keystone(&cloud.url()),
            "basic" => basic(),
            "passthrough" => credentials::Settings::Passthrough,
            _ => credentials::Settings::None,
        };
        if auth == "keystone" {
            settings.endpoint = None;
        }
        let gateway = Gateway::start(checking(vec![settings])).await;
        let line = format!("drawbridge_upstream_up{{upstream=\"north\"}} {up}");
        let metrics = until_metric(&gateway, &line).await;
        let want = match up {
            0 => ServingStatus::NotServing,
            _ => ServingStatus::Serving,
        };
        until(&gateway.client.channel, HEAT, want).await;
        until(&gateway.client.channel, "", ServingStatus::Serving).await;
        match logins {
            None => assert!(
                !metrics.contains("drawbridge_logins_total"),
                "{what}: {metrics}"
            ),
            Some(result) => {
                let line =
                    format!("drawbridge_logins_total{{upstream=\"north\",result=\"{result}\"}} ");
                let count = metrics.lines().find_map(|found| found.strip_prefix(&line));
                assert_ne!(count.unwrap_or("0"), "0", "{what}: {metrics}");
            }
        }
        // Readiness does not depend on upstreams.
        let admin = gateway.running.admin.unwrap();
        let ready = http_get(&format!("http://{admin}/readyz")).await;
        assert_eq!(ready, (200, "ok\n".to_owned()), "{what}");
    }
}

#[tokio::test]
async fn family_is_served_while_one_of_its_upstreams_is_up() {
    let cloud = cloud(201, None, 200).await;
    let mut down = upstream("down", "heat", &format!("http://{}", nowhere()));
    down.is_default = false;
    let gateway = Gateway::start(checking(vec![
        upstream("up", "heat", &cloud.url()),
        down,
        upstream("ao", "jp1ao", &format!("http://{}", nowhere())),
    ]))
    .await;
    until(&gateway.client.channel, JP1AO, ServingStatus::NotServing).await;
    until_metric(&gateway, "drawbridge_upstream_up{upstream=\"down\"} 0").await;
    until_metric(&gateway, "drawbridge_upstream_up{upstream=\"up\"} 1").await;
    until(&gateway.client.channel, HEAT, ServingStatus::Serving).await;
}

/// A failed password is not tried at each interval, which would lock its account.
#[tokio::test]
async fn rejected_credentials_are_not_repeated_at_each_interval() {
    let cloud = cloud(0, None, 401).await;
    let mut settings = upstream("north", "heat", &cloud.url());
    settings.auth = basic();
    let mut config = checking(vec![settings]);
    config.server.health_check_interval = Duration::from_millis(10);
    let gateway = Gateway::start(config).await;
    until(&gateway.client.channel, HEAT, ServingStatus::NotServing).await;
    let probes = || {
        cloud
            .seen()
            .iter()
            .filter(|seen| seen.target == "/")
            .count()
    };
    while probes() < 20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let seen = cloud.seen();
    let reads = seen
        .iter()
        .filter(|seen| !seen.header("authorization").is_empty());
    let reads = reads.count();
    assert!((1..=3).contains(&reads), "{reads} reads with the password");
}

/// Credentials that are revoked show without a call of a client: each check has them. A login
/// follows a rejection, and not each check.
#[tokio::test]
async fn revoked_credentials_show_without_a_call() {
    // Logins and reads after the revocation; whether the identity service rejects, too.
    for (auth, login_after) in [
        ("keystone", 401),
        ("keystone", 201),
        ("basic", 0),
        ("hsso", 0),
    ] {
        let what = format!("{auth} {login_after}");
        let revoked = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let is_revoked = revoked.clone();
        let cloud = Recorder::with_health_checks(move |seen: &Seen| {
            let revoked = is_revoked.load(SeqCst);
            match (&*seen.method, seen.path()) {
                ("POST", "/v3/auth/tokens") => {
                    let url = format!("http://{}/v1/p1", seen.header("host"));
                    let endpoint = json!({"interface": "public", "region": "r1", "url": url});
                    let token = json!({"token": {
                        "expires_at": "2100-01-01T00:00:00Z",
                        "project": {"id": "p1", "name": "demo"},
                        "catalog": [{"type": "orchestration", "endpoints": [endpoint]}]}});
                    let status = if revoked { login_after } else { 201 };
                    Answer::json(status, &token).with("x-subject-token", "t")
                }
                // Without credentials it answers as before.
                ("GET", "/") => Answer::json(300, &json!({})),
                _ if revoked => Answer::json(401, &json!({"message": "revoked"})),
                // Not the resource: the credentials are accepted all the same.
                _ if auth == "basic" => Answer::json(200, &json!({"api": {}, "engine": {}})),
                _ => Answer::json(200, &json!({"api": {"revision": "1"}, "productName": "x"})),
            }
        })
        .await;
        let (family, service) = match auth {
            "hsso" => ("jp1ao", JP1AO),
            _ => ("heat", HEAT),
        };
        let mut settings = upstream("north", family, &cloud.url());
        settings.auth = match auth {
            "keystone" => keystone(&cloud.url()),
            "hsso" => credentials::Settings::Hsso {
                username: "demo".into(),
                password: "s3cret".into(),
            },
            _ => basic(),
        };
        if auth == "keystone" {
            settings.endpoint = None;
        }
        let mut config = checking(vec![settings]);
        config.server.health_check_interval = Duration::from_secs(1);
        let gateway = Gateway::start(config).await;
        until_metric(&gateway, "drawbridge_upstream_up{upstream=\"north\"} 1").await;
        let before = cloud.seen().len();
        revoked.store(true, SeqCst);
        until(&gateway.client.channel, service, ServingStatus::NotServing).await;
        // Every read has the credentials, and few follow the rejection.
        let seen = cloud.seen().split_off(before);
        let logins = seen.iter().filter(|seen| seen.method == "POST").count();
        assert!(logins <= 2, "{what}: {seen:?}");
    }
}

/// One WARN when an upstream goes down, with the reason and what to do, and one INFO when it
/// returns, however many probes and calls fail.
#[tokio::test(flavor = "multi_thread")]
async fn log_has_a_line_per_transition() {
    let status = Arc::new(AtomicU16::new(503));
    let answer = status.clone();
    let upstream = Recorder::with_health_checks(move |_| {
        Answer::json(answer.load(SeqCst), &json!({"software_deployments": []}))
    })
    .await;
    // Checks are those that calls request: their time limit, the interval or 5 s, is longer than
    // any response takes.
    let process = Process::start(
        &format!(
            "[server]\nhealth_check_interval_secs = 3600\n[log]\nformat = 'json'\n\
             [[upstream]]\nname = 'north'\nfamily = 'heat'\nproject_id = 'p1'\n\
             endpoint = '{}'\nauth = {{ kind = 'none' }}\n",
            upstream.url()
        ),
        &[("DRAWBRIDGE_LOG_FORMAT", "text")],
    );
    let set = drawbridge::contract::BUILT_IN.to_vec();
    let client = Client::connect(process.address, &[set]).await;
    let call = || {
        client.call(
            "SoftwareDeploymentService/ListSoftwareDeployments",
            json!({}),
        )
    };
    until(&client.channel, HEAT, ServingStatus::NotServing).await;
    let is_probe = |seen: &Seen| seen.header("x-request-id").is_empty();
    let probes = || upstream.seen().into_iter().filter(is_probe).count();
    let before = probes();
    assert_ne!(before, 0);
    while probes() < before + 2 {
        call().await.unwrap_err();
    }
    status.store(200, SeqCst);
    // Until one succeeds: the circuit breaker may reject it, and requests a probe then.
    while call().await.is_err() {}
    until(&client.channel, HEAT, ServingStatus::Serving).await;
    let log = process.stop();
    let lines = |text: &str| log.lines().filter(|l| l.contains(text)).collect::<Vec<_>>();
    let down = lines("upstream is down");
    assert_eq!(down.len(), 1, "{log}");
    for part in [
        "WARN",
        "upstream=\"north\"",
        "HTTP 503",
        &upstream.url(),
        "check that",
    ] {
        assert!(down[0].contains(part), "{part}: {}", down[0]);
    }
    let up = lines("upstream is up again");
    assert_eq!(up.len(), 1, "{log}");
    assert!(
        up[0].contains("INFO") && up[0].contains("upstream=\"north\""),
        "{}",
        up[0]
    );
}
