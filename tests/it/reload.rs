//! Configurations that change while the gateway serves.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use drawbridge::Config;
use drawbridge::config::ConfigSource;
use drawbridge::server::Reloaded;
use serde_json::json;
use tokio::sync::Semaphore;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use crate::drain::Serve;
use crate::support::client::Watch;
use crate::support::recorder::{Answer, Recorder};
use crate::support::tls::{Ca, rcgen_ca};
use crate::support::{Client, Gateway, http_get};

const WATCH: &str = "SoftwareDeploymentService/WatchSoftwareDeployment";
const GET: &str = "SoftwareDeploymentService/GetSoftwareDeployment";
const LIST: &str = "GatewayService/ListUpstreams";

const HEAD: &str = "[server]\nhealth_check_interval_secs = 0\ndrain_timeout_secs = 0\n\
    [listen]\ngrpc = '127.0.0.1:0'\nadmin = '127.0.0.1:0'\n";

fn upstream(name: &str, url: &str) -> String {
    format!(
        "[[upstream]]\nname = '{name}'\nfamily = 'heat'\nendpoint = '{url}'\n\
         project_id = 'p'\nproxy_from_env = false\nauth = {{ kind = 'none' }}\n"
    )
}

/// Loads a configuration that is read again.
fn load(path: &Path) -> Config {
    let path = path.to_owned();
    let source = ConfigSource::new(move || Config::load(&path, &|_| None));
    let mut config = source.read().unwrap();
    config.source = Some(source);
    config
}

/// An API whose deployment stays in progress.
async fn in_progress() -> Recorder {
    let deployment = json!({"id": "d", "status": "IN_PROGRESS"});
    Recorder::fixed(Answer::json(
        200,
        &json!({"software_deployment": deployment}),
    ))
    .await
}

/// A gateway and the file that it is configured by.
struct Reloadable {
    gateway: Gateway,
    folder: tempfile::TempDir,
}

impl Reloadable {
    async fn start(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.toml");
        std::fs::write(&path, text).unwrap();
        let gateway = Gateway::start(load(&path)).await;
        Self { gateway, folder }
    }

    async fn change(&self, text: &str) -> Reloaded {
        std::fs::write(self.folder.path().join("d.toml"), text).unwrap();
        self.gateway.running.reload.reload().await
    }

    async fn get(&self, upstream: &str) -> Result<(), Status> {
        let metadata = [("drawbridge-upstream", upstream)];
        let request = json!({"deployment_id": "d"});
        let call = self.gateway.client.call_with(GET, request, &metadata);
        call.await.map(|_| ())
    }

    /// Opens a watch and reads its first message.
    async fn watch(&self, upstream: &str) -> Watch {
        let metadata = [("drawbridge-upstream", upstream)];
        let request = json!({"deployment_id": "d"});
        let watch = self.gateway.client.watch(WATCH, request, &metadata);
        let mut watch = watch.await.unwrap();
        watch.next().await.unwrap().unwrap();
        watch
    }

    async fn upstreams(&self) -> Vec<String> {
        let listed = self.gateway.client.call(LIST, json!({})).await.unwrap();
        let listed = serde_json::to_value(&listed).unwrap();
        let names = listed["upstreams"].as_array().unwrap().iter();
        names
            .map(|one| one["name"].as_str().unwrap().to_owned())
            .collect()
    }

    async fn metric(&self, name: &str) -> String {
        let admin = self.gateway.running.admin.unwrap();
        let (_, text) = http_get(&format!("http://{admin}/metrics")).await;
        let mut lines = text.lines();
        let line = lines
            .find(|line| line.starts_with(name))
            .unwrap_or_default();
        line.trim_start_matches(name).trim().to_owned()
    }
}

/// Reads a watch to its end, which is an error.
async fn end(mut watch: Watch) -> Status {
    loop {
        match watch.next().await.expect("an error at the end") {
            Ok(_) => {}
            Err(status) => return status,
        }
    }
}

fn assert_changed(status: &Status) {
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.get_details_retry_info().is_some(), "{status:?}");
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.reason, "UPSTREAM_CHANGED", "{status:?}");
    assert_eq!(info.metadata["sent"], "false", "{status:?}");
}

#[tokio::test]
async fn unchanged_upstreams_stay_and_the_others_end() {
    let (kept, old, new) = (
        in_progress().await,
        in_progress().await,
        in_progress().await,
    );
    let text = |others: &[(&str, &Recorder)]| {
        let others = others.iter().map(|(name, api)| upstream(name, &api.url()));
        let others: String = others.collect();
        format!("{HEAD}{}{others}", upstream("kept", &kept.url()))
    };
    let test = Reloadable::start(&text(&[("changed", &old), ("removed", &old)])).await;
    let client = &test.gateway.client;
    assert_eq!(test.upstreams().await, ["changed", "kept", "removed"]);
    let mut stays = test.watch("kept").await;
    let ends = [test.watch("changed").await, test.watch("removed").await];
    assert_eq!(kept.take().len(), 1);

    let applied = test
        .change(&text(&[("changed", &new), ("added", &new)]))
        .await;
    assert_eq!(applied, Reloaded::Applied);
    for watch in ends {
        assert_changed(&end(watch).await);
    }
    assert_eq!(test.upstreams().await, ["added", "changed", "kept"]);
    old.take();
    for name in ["changed", "added"] {
        test.get(name).await.unwrap();
        test.watch(name).await;
    }
    assert!(old.take().is_empty());
    let unknown = test.get("removed").await.unwrap_err();
    assert_eq!(unknown.code(), Code::InvalidArgument, "{unknown:?}");

    // The poll loop of the upstream that has not changed is that of before: the next watch
    // joins it, and no read is added for its first message.
    let before = test.metric("drawbridge_watch_poll_loops").await;
    test.get("kept").await.unwrap();
    let request = json!({"deployment_id": "d"});
    let metadata = [("drawbridge-upstream", "kept")];
    let mut joined = client.watch(WATCH, request, &metadata).await.unwrap();
    joined.next().await.unwrap().unwrap();
    assert_eq!(test.metric("drawbridge_watch_poll_loops").await, before);
    let polled = tokio::time::timeout(Duration::ZERO, stays.next()).await;
    assert!(
        !matches!(&polled, Ok(None | Some(Err(_)))),
        "it has not ended: {polled:?}"
    );
    assert_eq!(
        test.metric("drawbridge_config_reloads_total{result=\"applied\"}")
            .await,
        "1"
    );
}

#[tokio::test]
async fn invalid_configuration_is_rejected_as_at_start() {
    let api = in_progress().await;
    let valid = format!("{HEAD}{}", upstream("u", &api.url()));
    let test = Reloadable::start(&valid).await;
    let watch = test.watch("u").await;
    let success = "drawbridge_config_last_reload_successful";
    assert_eq!(test.metric(success).await, "1");
    let at = test
        .metric("drawbridge_config_last_reload_success_timestamp_seconds")
        .await;
    assert!(at.parse::<u64>().unwrap() > 1_700_000_000, "{at}");
    for (number, text) in [
        format!("{valid}[servr]\n"),
        format!("{valid}[[upstream]]\n"),
        "no = toml = at = all".to_owned(),
        String::new() + &valid + &upstream("other", "http://127.0.0.1:1").replace("heat", "none"),
    ]
    .iter()
    .enumerate()
    {
        assert_eq!(test.change(text).await, Reloaded::Refused, "{text}");
        test.get("u").await.unwrap();
        assert_eq!(test.upstreams().await, ["u"]);
        assert_eq!(test.metric(success).await, "0");
        let rejected = test
            .metric("drawbridge_config_reloads_total{result=\"rejected\"}")
            .await;
        assert_eq!(rejected, (number + 1).to_string());
    }
    // The file of before is valid.
    assert_eq!(test.change(&valid).await, Reloaded::Applied);
    assert_eq!(test.metric(success).await, "1");
    assert_eq!(
        test.metric("drawbridge_config_reloads_total{result=\"applied\"}")
            .await,
        "0"
    );
    std::fs::remove_file(test.folder.path().join("d.toml")).unwrap();
    assert_eq!(
        test.gateway.running.reload.reload().await,
        Reloaded::Refused
    );
    test.get("u").await.unwrap();
    drop(watch);
}

#[tokio::test]
async fn changed_rules_apply_to_new_calls() {
    let api = in_progress().await;
    let rule = |methods: &str| {
        let rule = format!("[[policy]]\nidentities = ['anonymous']\nmethods = ['{methods}']\n");
        format!("{HEAD}{}{rule}", upstream("u", &api.url()))
    };
    let none = format!("{HEAD}{}", upstream("u", &api.url()));
    let test = Reloadable::start(&none).await;
    test.get("u").await.unwrap();
    for (text, want, code) in [
        (
            rule("ListStacks"),
            Reloaded::Applied,
            Code::PermissionDenied,
        ),
        (rule("GetStak"), Reloaded::Refused, Code::PermissionDenied),
        (rule("GetSoftwareDeployment"), Reloaded::Applied, Code::Ok),
        (
            rule("ListStacks"),
            Reloaded::Applied,
            Code::PermissionDenied,
        ),
        (none, Reloaded::Applied, Code::Ok),
    ] {
        api.take();
        assert_eq!(test.change(&text).await, want, "{text}");
        let got = test.get("u").await;
        let got_code = got.as_ref().err().map_or(Code::Ok, Status::code);
        assert_eq!(got_code, code, "{text}: {got:?}");
        assert_eq!(api.take().is_empty(), code != Code::Ok, "{text}");
    }
}

/// A call that is in flight may finish in the drain timeout.
#[tokio::test]
async fn call_of_a_removed_upstream_finishes_or_is_cut_off() {
    for (timeout, want) in [(3_600, None), (0, Some(Code::Unavailable))] {
        let (release, held) = tokio::sync::watch::channel(false);
        let (arrived, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
        let app = axum::Router::new().fallback(move || {
            let (mut held, arrived) = (held.clone(), arrived.clone());
            async move {
                arrived.send(()).unwrap();
                // The test may have ended.
                let _ = held.wait_for(|released| *released).await;
                let body = json!({"software_deployment": {"id": "d"}}).to_string();
                ([("content-type", "application/json")], body)
            }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let head = HEAD.replace(
            "drain_timeout_secs = 0",
            &format!("drain_timeout_secs = {timeout}"),
        );
        let test = Reloadable::start(&format!("{head}{}", upstream("u", &url))).await;
        let call = test.get("u");
        let change = async {
            arrivals.recv().await.unwrap();
            let other = upstream("other", "http://127.0.0.1:1");
            assert_eq!(
                test.change(&format!("{head}{other}")).await,
                Reloaded::Applied
            );
            if want.is_none() {
                release.send_replace(true);
            }
        };
        let (result, ()) = tokio::join!(call, change);
        assert_eq!(result.as_ref().err().map(Status::code), want, "{result:?}");
        if let Err(status) = result {
            let info = status.get_details_error_info().unwrap();
            assert_eq!(info.reason, "NO_RESPONSE", "{status:?}");
            assert!(status.message().contains("configuration"), "{status:?}");
        }
    }
}

/// The address needs a restart: what is safe with it only is rejected.
#[tokio::test]
async fn credentials_never_serve_unauthenticated_clients() {
    let api = in_progress().await;
    let open = HEAD.replace("grpc = '127.0.0.1:0'", "grpc = '0.0.0.0:0'");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "secret").unwrap();
    let path = folder.path().join("d.toml");
    std::fs::write(&path, format!("{open}{}", upstream("u", &api.url()))).unwrap();
    let running = crate::support::start(load(&path)).await.unwrap();
    let held = upstream("u", &api.url()).replace("'none'", "'token', token_file = 'token'");
    for (head, want) in [(&open[..], Reloaded::Refused), (HEAD, Reloaded::Refused)] {
        std::fs::write(&path, format!("{head}{held}")).unwrap();
        assert_eq!(running.reload.reload().await, want, "{head}");
    }
    std::fs::write(folder.path().join("tokens"), "a-token-of-a-client\n").unwrap();
    let authenticated = format!("{open}[listen.clients]\ntokens_file = 'tokens'\n");
    std::fs::write(&path, format!("{authenticated}{held}")).unwrap();
    assert_eq!(running.reload.reload().await, Reloaded::Applied);
    // Nor do the tokens go with an address that applies later.
    std::fs::write(&path, format!("{HEAD}{held}")).unwrap();
    assert_eq!(running.reload.reload().await, Reloaded::Applied);
    let address = ([127, 0, 0, 1], running.grpc.port()).into();
    let client = Client::connect(address, &[drawbridge::contract::BUILT_IN.to_vec()]).await;
    let rejected = client.call(GET, json!({"deployment_id": "d"})).await;
    assert_eq!(rejected.unwrap_err().code(), Code::Unauthenticated);
}

/// Without SIGHUP the file is read at the interval, and once more.
#[tokio::test]
async fn change_applies_by_itself() {
    let (old, new) = (in_progress().await, in_progress().await);
    let text = |api: &Recorder| format!("{HEAD}{}", upstream("u", &api.url()));
    let test = Reloadable::start(&text(&old)).await;
    test.get("u").await.unwrap();
    std::fs::write(test.folder.path().join("d.toml"), text(&new)).unwrap();
    // The clock advances where no file is being read.
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(12)).await;
    tokio::time::resume();
    test.get("u").await.unwrap();
    assert_eq!((old.take().len(), new.take().len()), (1, 1));
}

/// Kubernetes replaces the files of a volume by a symbolic link.
#[tokio::test]
async fn swapped_link_is_a_change() {
    let (old, new) = (in_progress().await, in_progress().await);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let version = |name: &str, api: &Recorder| {
        std::fs::create_dir(path.join(name)).unwrap();
        let text = format!("{HEAD}{}", upstream("u", &api.url()));
        std::fs::write(path.join(name).join("d.toml"), text).unwrap();
        std::os::unix::fs::symlink(name, path.join("..data_tmp")).unwrap();
        std::fs::rename(path.join("..data_tmp"), path.join("..data")).unwrap();
    };
    version("..1", &old);
    std::os::unix::fs::symlink("..data/d.toml", path.join("d.toml")).unwrap();
    let gateway = Gateway::start(load(&path.join("d.toml"))).await;
    let get = async || {
        gateway
            .client
            .call(GET, json!({"deployment_id": "d"}))
            .await
    };
    get().await.unwrap();
    assert_eq!((old.take().len(), new.take().len()), (1, 0));
    version("..2", &new);
    std::fs::remove_dir_all(path.join("..1")).unwrap();
    assert_eq!(gateway.running.reload.reload().await, Reloaded::Applied);
    get().await.unwrap();
    assert_eq!((old.take().len(), new.take().len()), (0, 1));
}

const PROTO: &str = r#"
syntax = "proto3";
package acme.v1;
import "drawbridge/v1/options.proto";
import "google/api/annotations.proto";
option (drawbridge.v1.file) = { family: "acme" };
service ThingService {
  rpc GetThing(GetThingRequest) returns (Thing) {
    option (google.api.http) = { get: "/things/{id}" };
  }
}
message GetThingRequest { string id = 1; }
message Thing { string id = 1; }
"#;

fn compile(proto: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("acme.proto"), proto).unwrap();
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/proto");
    let mut compiler = protox::Compiler::new([folder.path(), own.as_ref()]).unwrap();
    let compiler = compiler
        .include_imports(true)
        .open_file("acme.proto")
        .unwrap();
    compiler.encode_file_descriptor_set()
}

#[tokio::test]
async fn changed_descriptors_are_served() {
    let heat = in_progress().await;
    let acme = Recorder::fixed(Answer::json(200, &json!({"id": "t"}))).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let second = PROTO
        .replace("service", "service OtherService {}\nservice")
        .replace(
            "service ThingService {",
            "service ThingService {\n  rpc FindThing(GetThingRequest) returns (Thing) {\n    \
         option (google.api.http) = { get: \"/find/{id}\" };\n  }",
        );
    let sets = [compile(PROTO), compile(&second)];
    let write = |set: &[u8]| std::fs::write(path.join("acme.binpb"), set).unwrap();
    write(&sets[0]);
    let own = upstream("a", &acme.url()).replace("'heat'", "'acme'");
    let text = format!(
        "{HEAD}{}{own}[[descriptors]]\nfile = 'acme.binpb'\n",
        upstream("u", &heat.url())
    );
    std::fs::write(path.join("d.toml"), text).unwrap();
    let config = load(&path.join("d.toml"));
    let running = crate::support::start(config).await.unwrap();
    let built_in = drawbridge::contract::BUILT_IN.to_vec();
    let client = Client::connect(running.grpc, &[built_in, sets[1].clone()]).await;
    let find = async || {
        client
            .call("acme.v1.ThingService/FindThing", json!({"id": "t"}))
            .await
    };
    let mut health = HealthClient::new(client.channel.clone());
    let service = "acme.v1.ThingService".to_owned();
    let request = HealthCheckRequest { service };
    let status = health.check(request).await.unwrap().into_inner().status();
    assert_eq!(status, ServingStatus::Serving);
    assert_eq!(find().await.unwrap_err().code(), Code::Unimplemented);
    let request = json!({"deployment_id": "d"});
    let mut watch = client.watch(WATCH, request, &[]).await.unwrap();
    watch.next().await.unwrap().unwrap();

    // An annotation that does not hold is rejected.
    write(&compile(&PROTO.replace("/things/{id}", "/things/{ix}")));
    assert_eq!(running.reload.reload().await, Reloaded::Refused);
    client
        .call("acme.v1.ThingService/GetThing", json!({"id": "t"}))
        .await
        .unwrap();

    write(&sets[1]);
    assert_eq!(running.reload.reload().await, Reloaded::Applied);
    find().await.unwrap();
    client
        .call("acme.v1.ThingService/GetThing", json!({"id": "t"}))
        .await
        .unwrap();
    let polled = tokio::time::timeout(Duration::ZERO, watch.next()).await;
    assert!(!matches!(&polled, Ok(None | Some(Err(_)))), "{polled:?}");
}

/// The log says what is wrong with file and line, and what needs a restart.
#[test]
fn hangup_rereads_the_configuration() {
    let text = |rest: &str| {
        let head = HEAD.replace("drain_timeout_secs = 0", "drain_delay_secs = 0");
        format!("{head}{}{rest}", upstream("u", "http://127.0.0.1:1"))
    };
    let folder = tempfile::tempdir().unwrap();
    let mut gateway = Serve::start_in(folder, &text(""), Stdio::piped());
    gateway.address();
    let path = gateway.folder.path().join("d.toml");
    let path = path.with_file_name("drawbridge.toml");
    std::fs::write(&path, text("max_attemps = 2\n")).unwrap();
    gateway.send("HUP");
    gateway.wait_for("the changed configuration is invalid: the last one stays");
    gateway.wait_for("unknown key, did you mean max_attempts?");
    gateway.wait_for("SIGHUP: the configuration or a file of it is invalid");
    let changed = text("max_attempts = 2\n[watch]\nmax_streams = 7\n");
    std::fs::write(
        &path,
        changed.replace("admin = '127.0.0.1:0'", "admin = 'off'"),
    )
    .unwrap();
    gateway.send("HUP");
    gateway.wait_for("the configuration has changed: new calls are served by it changed=\"u\"");
    gateway.wait_for("apply after a restart keys=\"listen.admin, watch\"");
    gateway.wait_for("SIGHUP: the configuration and its files were read again");
    gateway.send("INT");
    assert_eq!(gateway.wait().0, Some(0));
}

/// Variables have precedence over the file, which is optional with them.
#[test]
fn keys_come_from_the_environment() {
    let text = format!("{HEAD}{}", upstream("u", "http://127.0.0.1:1"));
    let env = [
        ("DRAWBRIDGE__SERVER__DRAIN_DELAY_SECS", "3600"),
        ("DRAWBRIDGE__SERVER__DRAIN_SECS", "1"),
        ("DRAWBRIDGE__SERVER__WORKER_THREADS", "1"),
    ];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let folder = tempfile::tempdir().unwrap();
    let mut gateway = Serve::start_with(folder, &text, Stdio::piped(), &env);
    gateway.wait_for("key=\"DRAWBRIDGE__SERVER__DRAIN_SECS\"");
    gateway.address();
    gateway.send("TERM");
    gateway.wait_for("drain_delay_secs=3600");
    gateway.send("TERM");
    assert_eq!(gateway.wait().0, Some(143));
    let mut check = std::process::Command::new(env!("CARGO_BIN_EXE_drawbridge"));
    check.arg("check").env_clear();
    check.env("DRAWBRIDGE__UPSTREAM__A__FAMILY", "heat");
    check.env("DRAWBRIDGE__UPSTREAM__A__ENDPOINT", "nowhere");
    let output = check.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("DRAWBRIDGE__UPSTREAM__A__ENDPOINT: is not a URL"),
        "{text}"
    );
}

/// Connects with TLS and a client certificate that is valid for an hour.
async fn connect(address: std::net::SocketAddr, ca: &Ca, clients: &Ca) -> Client {
    use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};
    let (certificate, key) = clients.issue_for_an_hour("client");
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&ca.pem))
        .identity(Identity::from_pem(certificate, key))
        .domain_name("localhost");
    let endpoint = Channel::from_shared(format!("https://{address}")).unwrap();
    let channel = endpoint.tls_config(tls).unwrap().connect().await.unwrap();
    Client::over(channel)
}

/// Each round replaces the certificate of the listener and the configuration, while clients
/// connect and call. `RELOAD_TEST_SECS` makes it as long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotation_and_reload_under_load_fail_no_call() {
    const ROUNDS: usize = 10;
    const CALLS_PER_ROUND: u32 = 40;
    let least = std::env::var("RELOAD_TEST_SECS").map_or(0, |secs| secs.parse().unwrap());
    let until = Instant::now() + Duration::from_secs(least);
    let api = in_progress().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let (ca, clients) = (Arc::new(rcgen_ca()), Arc::new(rcgen_ca()));
    let kept = upstream("kept", &api.url());
    let url = api.url();
    let write = |round: usize| {
        let (certificate, key) = ca.issue_for_an_hour("localhost");
        std::fs::write(path.join("server.pem"), certificate).unwrap();
        std::fs::write(path.join("server.key"), key).unwrap();
        std::fs::write(path.join("clients.pem"), &clients.pem).unwrap();
        let head = HEAD.replace("drain_timeout_secs = 0", "drain_timeout_secs = 20");
        let tls = "[listen.tls]\ncert_file = 'server.pem'\nkey_file = 'server.key'\n\
                   client_ca_file = 'clients.pem'\n";
        let other = upstream(&format!("other-{round}"), &url);
        let text = format!("{head}{tls}{kept}default = true\n{other}");
        std::fs::write(path.join("d.toml"), text).unwrap();
    };
    write(0);
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let running = crate::support::start(load(&path.join("d.toml")))
        .await
        .unwrap();
    let address = running.grpc;
    let stop = Arc::new(AtomicBool::new(false));
    // A permit for each call that has succeeded.
    let calls = Arc::new(Semaphore::new(0));
    let watching = connect(address, &ca, &clients).await;
    let request = json!({"deployment_id": "d"});
    let mut watch = watching.watch(WATCH, request.clone(), &[]).await.unwrap();
    watch.next().await.unwrap().unwrap();
    let mut load = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (ca, clients) = (ca.clone(), clients.clone());
        let (stop, calls, request) = (stop.clone(), calls.clone(), request.clone());
        load.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                // Some calls on each connection, old ones and new ones.
                let client = connect(address, &ca, &clients).await;
                for _ in 0..10 {
                    client.call(GET, request.clone()).await.unwrap();
                    calls.add_permits(1);
                }
            }
        });
    }
    let (mut round, mut total) = (0, 0);
    while round < ROUNDS || Instant::now() < until {
        round += 1;
        write(round);
        assert_eq!(running.reload.reload().await, Reloaded::Applied);
        let seen = connect(address, &ca, &clients).await;
        let listed = seen.call(LIST, json!({})).await.unwrap();
        let listed = serde_json::to_value(&listed).unwrap().to_string();
        assert!(listed.contains(&format!("other-{round}")), "{listed}");
        tokio::select! {
            enough = calls.acquire_many(CALLS_PER_ROUND) => enough.unwrap().forget(),
            ended = load.join_next() => panic!("a call has failed: {ended:?}"),
        }
        total += CALLS_PER_ROUND;
    }
    stop.store(true, Ordering::Relaxed);
    let admin = running.admin.unwrap();
    let (_, metrics) = http_get(&format!("http://{admin}/metrics")).await;
    let expiry = r#"drawbridge_certificate_expiry_timestamp_seconds{certificate="listener"} "#;
    let (_, expiry) = metrics.split_once(expiry).expect(&metrics);
    let expiry: u64 = expiry.lines().next().unwrap().parse().unwrap();
    assert!((now + 3_600..now + 10_800).contains(&expiry), "{expiry}");
    while let Some(ended) = load.join_next().await {
        ended.unwrap();
    }
    let polled = tokio::time::timeout(Duration::ZERO, watch.next()).await;
    assert!(!matches!(&polled, Ok(None | Some(Err(_)))), "{polled:?}");
    println!("{round} rounds, {total} calls");
}
