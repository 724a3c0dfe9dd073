//! The end of connections and of the process: drain, signals, the age of connections.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio_stream::StreamExt;
use tonic::{Code, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};
use tonic_types::StatusExt;

use crate::support::StoppedClock;
use crate::support::client::Watch;
use crate::support::recorder::{Answer, Recorder};
use crate::support::{Client, Gateway, http_get, settings, upstream};

const WATCH: &str = "SoftwareDeploymentService/WatchSoftwareDeployment";
const GET: &str = "SoftwareDeploymentService/GetSoftwareDeployment";
const HEAT: &str = "openstack.orchestration.v1.SoftwareDeploymentService";

/// A deployment that stays in progress.
async fn in_progress() -> Recorder {
    let deployment = json!({"id": "d", "status": "IN_PROGRESS"});
    Recorder::fixed(Answer::json(
        200,
        &json!({"software_deployment": deployment}),
    ))
    .await
}

async fn watch(client: &Client) -> Watch {
    let request = json!({"deployment_id": "d"});
    client.watch(WATCH, request, &[]).await.unwrap()
}

async fn health_watch(client: &Client, service: &str) -> tonic::Streaming<HealthCheckResponse> {
    let request = HealthCheckRequest {
        service: service.into(),
    };
    let mut health = HealthClient::new(client.channel.clone());
    health.watch(request).await.unwrap().into_inner()
}

/// Opens a reflection stream whose request stream stays open, and reads one response.
async fn reflection(client: &Client) -> tonic::Streaming<ServerReflectionResponse> {
    let requests = tokio_stream::once(ServerReflectionRequest::default());
    let requests = requests.chain(tokio_stream::pending());
    let mut client = ServerReflectionClient::new(client.channel.clone());
    let response = client.server_reflection_info(requests).await.unwrap();
    let mut stream = response.into_inner();
    stream.next().await.unwrap().unwrap();
    stream
}

fn assert_retryable(status: &Status, reason: &str) {
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.get_details_retry_info().is_some(), "{status:?}");
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.reason, reason, "{status:?}");
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

/// No stream holds the drain, whose timeout is an hour here.
#[tokio::test]
async fn drain_is_not_held_by_streams() {
    let recorder = in_progress().await;
    let mut config = settings(vec![upstream("u", "heat", &recorder.url())]);
    config.server.drain_timeout = Duration::from_secs(3_600);
    let gateway = Gateway::start(config).await;
    let client = &gateway.client;
    let mut watches = Vec::new();
    for _ in 0..200 {
        let mut watch = watch(client).await;
        watch.next().await.unwrap().unwrap();
        watches.push(watch);
    }
    let mut health = Vec::new();
    for service in ["", HEAT, "drawbridge.v1.GatewayService", "no.such.Service"] {
        for _ in 0..10 {
            let mut stream = health_watch(client, service).await;
            let status = stream.next().await.unwrap().unwrap().status();
            let known = service != "no.such.Service";
            let want = match known {
                true => ServingStatus::Serving,
                false => ServingStatus::ServiceUnknown,
            };
            assert_eq!(status, want, "{service:?}");
            health.push((stream, known));
        }
    }
    let mut reflections = Vec::new();
    for _ in 0..10 {
        reflections.push(reflection(client).await);
    }
    // A connection without a request, and one without a byte.
    let _idle = Client::connect(gateway.running.grpc, &[]).await;
    let _silent = tokio::net::TcpStream::connect(gateway.running.grpc)
        .await
        .unwrap();

    let started = Instant::now();
    let stop = tokio::spawn(gateway.running.stop());
    for (mut stream, known) in health {
        if known {
            let status = stream.next().await.unwrap().unwrap().status();
            assert_eq!(status, ServingStatus::NotServing);
        }
        assert_retryable(&stream.next().await.unwrap().unwrap_err(), "DRAINING");
    }
    for mut stream in reflections {
        assert_retryable(&stream.next().await.unwrap().unwrap_err(), "DRAINING");
    }
    for watch in watches {
        assert_retryable(&end(watch).await, "DRAINING");
    }
    let patience = Duration::from_secs(300);
    let stopped = tokio::time::timeout(patience, stop).await;
    stopped.expect("nothing holds the drain").unwrap().unwrap();
    println!("drained within {:?}", started.elapsed());
}

/// Load balancers learn that the gateway is not ready while it still serves those that do not
/// know it yet.
#[tokio::test]
async fn connections_and_calls_are_accepted_until_the_drain_delay_ends() {
    let recorder = in_progress().await;
    let mut config = settings(vec![upstream("u", "heat", &recorder.url())]);
    let delay = Duration::from_secs(5);
    config.server.drain_delay = delay;
    let gateway = Gateway::start(config).await;
    let (grpc, admin) = (gateway.running.grpc, gateway.running.admin.unwrap());
    let client = &gateway.client;
    let mut before = watch(client).await;
    before.next().await.unwrap().unwrap();
    let mut health = health_watch(client, HEAT).await;
    let status = health.next().await.unwrap().unwrap().status();
    assert_eq!(status, ServingStatus::Serving);

    let clock = StoppedClock::new();
    let stop = tokio::spawn(gateway.running.stop());
    let status = health.next().await.unwrap().unwrap().status();
    assert_eq!(status, ServingStatus::NotServing);
    assert_eq!(http_get(&format!("http://{admin}/readyz")).await.0, 503);
    assert_eq!(http_get(&format!("http://{admin}/livez")).await.0, 200);
    let sets = [drawbridge::contract::BUILT_IN.to_vec()];
    let late = Client::connect(grpc, &sets).await;
    for client in [client, &late] {
        let request = json!({"deployment_id": "d"});
        client.call(GET, request).await.unwrap();
    }
    let mut during = watch(&late).await;
    during.next().await.unwrap().unwrap();
    let mut late_health = health_watch(&late, "").await;
    let status = late_health.next().await.unwrap().unwrap().status();
    assert_eq!(status, ServingStatus::NotServing);
    assert!(!stop.is_finished());

    tokio::time::advance(delay).await;
    drop(clock);
    for health in [&mut health, &mut late_health] {
        assert_retryable(&health.next().await.unwrap().unwrap_err(), "DRAINING");
    }
    for watch in [before, during] {
        assert_retryable(&end(watch).await, "DRAINING");
    }
    stop.await.unwrap().unwrap();
    tokio::net::TcpStream::connect(grpc).await.unwrap_err();
}

/// An old connection ends its streams as a drain does; unary calls complete, and the client
/// can go on with another connection.
#[tokio::test]
async fn streams_of_an_old_connection_end_with_unavailable() {
    let (release, held) = tokio::sync::watch::channel(false);
    let app = axum::Router::new().fallback(move |request: axum::extract::Request| {
        let mut held = held.clone();
        async move {
            if request.uri().path().ends_with("/held") {
                held.wait_for(|released| *released).await.unwrap();
            }
            let deployment = json!({"id": "d", "status": "IN_PROGRESS"});
            let body = json!({"software_deployment": deployment}).to_string();
            ([("content-type", "application/json")], body)
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let mut config = settings(vec![upstream("u", "heat", &url)]);
    config.server.max_connection_age = Some(Duration::from_millis(500));
    config.server.max_connection_age_grace = Duration::from_millis(100);
    let gateway = Gateway::start(config).await;
    // hyper's client cancels the first call after GOAWAY: each stream has a connection.
    let connect = async || {
        let sets = [drawbridge::contract::BUILT_IN.to_vec()];
        Client::connect(gateway.running.grpc, &sets).await
    };
    let client = &connect().await;
    let unary = client.call(GET, json!({"deployment_id": "held"}));
    let streams = async {
        let request = json!({"deployment_id": "d"});
        let ended = match client.watch(WATCH, request, &[]).await {
            Ok(watch) => end(watch).await,
            Err(status) => status,
        };
        assert_retryable(&ended, "CONNECTION_TOO_OLD");
        // A watch that has no first message yet.
        let request = json!({"deployment_id": "held"});
        let ended = connect().await.watch(WATCH, request, &[]).await;
        assert_retryable(&ended.err().unwrap(), "CONNECTION_TOO_OLD");
        let client = &connect().await;
        let mut health = health_watch(client, "").await;
        let _ = health.next().await.unwrap();
        assert_retryable(
            &health.next().await.unwrap().unwrap_err(),
            "CONNECTION_TOO_OLD",
        );
        let mut reflection = reflection(&connect().await).await;
        assert_retryable(
            &reflection.next().await.unwrap().unwrap_err(),
            "CONNECTION_TOO_OLD",
        );
        release.send_replace(true);
    };
    let (response, ()) = tokio::join!(unary, streams);
    response.unwrap();
    let admin = gateway.running.admin.unwrap();
    let (_, text) = http_get(&format!("http://{admin}/metrics")).await;
    let counted = |code| {
        format!(
            r#"rpc_calls_total{{operation="openstack.orchestration.v1.{WATCH}",upstream="u",code="{code}"}} 2"#
        )
    };
    assert!(text.contains(&counted("UNAVAILABLE")), "{text}");
    assert!(!text.contains("CANCELLED"), "{text}");
}

/// The built gateway, whose log the test reads line by line.
pub struct Serve {
    child: Child,
    log: BufReader<ChildStderr>,
    pub folder: tempfile::TempDir,
}

impl Serve {
    /// Starts it for an upstream, with this standard output.
    fn start(upstream: &str, stdout: impl Into<Stdio>) -> Self {
        Self::start_delayed(upstream, 0, stdout)
    }

    /// As [`Serve::start`], with this drain delay.
    fn start_delayed(upstream: &str, delay_secs: u64, stdout: impl Into<Stdio>) -> Self {
        let text = format!(
            "[listen]\ngrpc = \"127.0.0.1:0\"\n[server]\ndrain_delay_secs = {delay_secs}\n\
             [[upstream]]\nname = \"u\"\nfamily = \"heat\"\n\
             project_id = \"p1\"\nendpoint = \"{upstream}\"\nauth = {{ kind = \"none\" }}\n"
        );
        Self::start_in(tempfile::tempdir().unwrap(), &text, stdout)
    }

    /// Starts it with this configuration, in a folder.
    pub fn start_in(folder: tempfile::TempDir, text: &str, stdout: impl Into<Stdio>) -> Self {
        Self::start_with(folder, text, stdout, &[])
    }

    /// As [`Serve::start_in`], with these variables.
    pub fn start_with(
        folder: tempfile::TempDir,
        text: &str,
        stdout: impl Into<Stdio>,
        env: &[(String, String)],
    ) -> Self {
        let config = folder.path().join("drawbridge.toml");
        std::fs::write(&config, text).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_drawbridge"))
            .arg("--config")
            .arg(&config)
            .env_clear()
            .envs(env.iter().cloned())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { child, log, folder }
    }

    /// Reads the address from the banner.
    pub fn address(&mut self) -> std::net::SocketAddr {
        let mut stdout = BufReader::new(self.child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("serves gRPC on ") {
            line.clear();
            assert_ne!(stdout.read_line(&mut line).unwrap(), 0, "no banner");
        }
        // Keeps reading: a closed pipe is another test.
        std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        line.trim().rsplit(' ').next().unwrap().parse().unwrap()
    }

    pub fn send(&self, signal: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &id]).status();
        assert!(sent.unwrap().success());
    }

    /// Reads the log up to a line with this text.
    pub fn wait_for(&mut self, text: &str) {
        let mut log = String::new();
        while !log.contains(text) {
            assert_ne!(self.log.read_line(&mut log).unwrap(), 0, "{text}: {log}");
        }
    }

    /// Waits for its end. Returns the exit code and the rest of the log.
    pub fn wait(mut self) -> (Option<i32>, String) {
        let log = std::io::read_to_string(&mut self.log).unwrap();
        (self.child.wait().unwrap().code(), log)
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A pipe whose reader has left.
fn closed_pipe() -> std::io::PipeWriter {
    std::io::pipe().unwrap().1
}

#[test]
fn hangup_without_a_change_changes_nothing() {
    let mut gateway = Serve::start("http://127.0.0.1:1", Stdio::piped());
    let address = gateway.address();
    for _ in 0..2 {
        gateway.send("HUP");
        gateway.wait_for("SIGHUP: the configuration and its files were read again");
        std::net::TcpStream::connect(address).unwrap();
    }
    gateway.send("TERM");
    gateway.wait_for("draining");
    assert_eq!(gateway.wait().0, Some(0));
}

/// A call holds the drain; the second signal does not wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn second_signal_exits_at_once() {
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        // Accepts and never responds.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        let mut gateway = Serve::start(&url, Stdio::piped());
        let address = gateway.address();
        let client = Client::connect(address, &[drawbridge::contract::BUILT_IN.to_vec()]).await;
        let mut health = health_watch(&client, "").await;
        let status = health.next().await.unwrap().unwrap().status();
        assert_eq!(status, ServingStatus::Serving);
        let call = tokio::spawn(async move {
            let call = client.call(GET, json!({"deployment_id": "d"}));
            call.await.unwrap_err().code()
        });
        // Both the probe and the call connect; each waits for its response.
        let _first = silent.accept().await.unwrap();
        let _second = silent.accept().await.unwrap();
        gateway.send("TERM");
        gateway.wait_for("draining");
        let status = health.next().await.unwrap().unwrap().status();
        assert_eq!(status, ServingStatus::NotServing);
        gateway.send(signal);
        let (exit, log) = gateway.wait();
        assert_eq!(exit, Some(code), "{log}");
        assert!(log.contains("second signal"), "{log}");
        assert_ne!(call.await.unwrap(), Code::Ok);
    }
}

/// SIGINT has no delay; a second signal ends that of SIGTERM.
#[tokio::test(flavor = "multi_thread")]
async fn drain_delay_is_that_of_sigterm() {
    for second in [("TERM", 143), ("INT", 130)] {
        let mut gateway = Serve::start_delayed("http://127.0.0.1:1", 3_600, Stdio::piped());
        let address = gateway.address();
        gateway.send("TERM");
        gateway.wait_for("drain_delay_secs=3600");
        let client = Client::connect(address, &[]).await;
        let mut health = health_watch(&client, "").await;
        let status = health.next().await.unwrap().unwrap().status();
        assert_eq!(status, ServingStatus::NotServing);
        gateway.send(second.0);
        let (exit, log) = gateway.wait();
        assert_eq!(exit, Some(second.1), "{log}");
        assert!(!log.contains("draining"), "{log}");
    }
    let mut gateway = Serve::start_delayed("http://127.0.0.1:1", 3_600, Stdio::piped());
    gateway.address();
    gateway.send("INT");
    gateway.wait_for("draining");
    assert_eq!(gateway.wait().0, Some(0));
}

#[test]
fn broken_output_is_not_a_panic() {
    // The banner has no reader, or no space.
    let full = std::fs::File::options().write(true).open("/dev/full");
    for stdout in [Stdio::from(closed_pipe()), full.unwrap().into()] {
        let mut gateway = Serve::start("http://127.0.0.1:1", stdout);
        gateway.wait_for("cannot write the banner");
        gateway.send("TERM");
        let (code, log) = gateway.wait();
        assert_eq!(code, Some(0), "{log}");
    }
    // The log has no reader.
    let mut gateway = Serve::start("http://127.0.0.1:1", Stdio::piped());
    gateway.address();
    drop(std::mem::replace(
        &mut gateway.log,
        BufReader::new(
            Command::new("true")
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
                .stderr
                .take()
                .unwrap(),
        ),
    ));
    gateway.send("HUP");
    gateway.send("TERM");
    assert_eq!(gateway.wait().0, Some(0));
    // Commands that print: a reader may leave, a full disk is a failure.
    for command in ["coverage", "examples"] {
        let run = |stdout: Stdio| {
            let mut process = Command::new(env!("CARGO_BIN_EXE_drawbridge"));
            let process = process.arg(command).env_clear().stdout(stdout);
            process
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
                .wait_with_output()
                .unwrap()
        };
        let output = run(closed_pipe().into());
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), &*text), (Some(0), ""), "{command}");
        let full = std::fs::File::options().write(true).open("/dev/full");
        let output = run(full.unwrap().into());
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{command}: {text}");
        assert!(text.contains("cannot write to standard output"), "{text}");
    }
}
