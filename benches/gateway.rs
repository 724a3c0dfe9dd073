//! The gateway under load on one core, compared with the hand-written gateway of `plain` in
//! the same run: calls per second, CPU time per call, latency of one stream, memory at 256
//! concurrent long lists, and 10,000 watches.
//!
//!     cargo bench --bench gateway [SECONDS PER MEASUREMENT]
//!
//! The measured gateway runs alone on core 0; the upstream stub and the load share core 1.
//! Ratios are more reliable than absolute values.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark may panic, and prints its results"
)]

#[path = "support/api.rs"]
mod api;
#[path = "support/plain.rs"]
#[allow(dead_code)]
mod plain;
#[path = "support/sample.rs"]
mod sample;

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use api::openstack::orchestration::v1 as pb;
use bytes::{Buf, BufMut, Bytes};
use pb::software_deployment_service_client::SoftwareDeploymentServiceClient;
use pb::software_deployment_service_server::SoftwareDeploymentServiceServer;
use prost::Message;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Server};
use tonic::{Request, Status};

const SERVICE: &str = "/openstack.orchestration.v1.SoftwareDeploymentService";

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("stub") => run(stub()),
        Some("plain") => run(plain_gateway(&args[2])),
        _ => {
            let seconds = args
                .iter()
                .skip(1)
                .find_map(|a| a.parse().ok())
                .unwrap_or(5);
            run(measure(Duration::from_secs(seconds)));
        }
    }
}

fn run(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
        .block_on(work);
}

/// A child process on one core that prints its address.
struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    fn start(core: usize, program: &str, args: &[&str]) -> Self {
        let mut child = Command::new("taskset")
            .args(["-c", &core.to_string(), program])
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .expect("taskset, of util-linux");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("a line that says the address").unwrap();
            if let Some(address) = line
                .split_whitespace()
                .find_map(|w| w.trim_start_matches("http://").parse().ok())
            {
                break address;
            }
        };
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }

    /// Returns the CPU time used so far, and the resident memory in MB.
    fn usage(&self) -> (Duration, f64) {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        // In ticks of 10 ms.
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        let pages: f64 = fields[21].parse().unwrap();
        (Duration::from_millis(ticks * 10), pages * 4096.0 / 1e6)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves the upstream: fixed bodies, and a deployment that a request changes.
async fn stub() {
    let many100 = Bytes::from(sample::many(100));
    let many1000 = Bytes::from(sample::many(1000));
    let one = Bytes::from(sample::one());
    let version = Arc::new(AtomicUsize::new(0));
    let router = axum::Router::new().fallback(move |request: axum::extract::Request| {
        let path = request.uri().path();
        let query = request.uri().query().unwrap_or_default();
        let body = if path == "/tick" {
            version.fetch_add(1, Ordering::SeqCst);
            Bytes::new()
        } else if path.ends_with("/watched") {
            let n = version.load(Ordering::SeqCst);
            let text = sample::one().replace("Outputs received", &format!("version {n}"));
            Bytes::from(text.replace("COMPLETE", "IN_PROGRESS"))
        } else if query == "server_id=many100" {
            many100.clone()
        } else if query == "server_id=many1000" {
            many1000.clone()
        } else if path.ends_with("/build_info") {
            Bytes::from_static(br#"{"api": {"revision": "1"}, "engine": {"revision": "1"}}"#)
        } else {
            one.clone()
        };
        async move { ([("content-type", "application/json")], body) }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    std::io::stdout().flush().unwrap();
    let listener = axum::serve::ListenerExt::tap_io(listener, |tcp| {
        let _ = tcp.set_nodelay(true);
    });
    axum::serve(listener, router).await.unwrap();
}

async fn plain_gateway(upstream: &str) {
    let service = SoftwareDeploymentServiceServer::new(plain::Plain::new(upstream));
    let incoming =
        tonic::transport::server::TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    println!("{}", incoming.local_addr().unwrap());
    std::io::stdout().flush().unwrap();
    Server::builder()
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(16 << 20)
        .max_concurrent_streams(4096)
        .add_service(service)
        .serve_with_incoming(incoming.with_nodelay(Some(true)))
        .await
        .unwrap();
}

fn drawbridge_gateway(upstream: &str) -> (Process, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("drawbridge.toml");
    std::fs::write(
        &config,
        format!(
            "[listen]\ngrpc = \"127.0.0.1:0\"\n\n[server]\nmax_concurrent_streams = 20000\n\n[log]\nlevel = \"warn\"\n\n[[upstream]]\nname = \"stub\"\nfamily = \"heat\"\nendpoint = \"{upstream}\"\nproject_id = \"p1\"\n\n[upstream.auth]\nkind = \"none\"\n"
        ),
    )
    .unwrap();
    let process = Process::start(
        0,
        env!("CARGO_BIN_EXE_drawbridge"),
        &["--config", config.to_str().unwrap()],
    );
    (process, folder)
}

#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = usize;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        *self
    }
    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn encode(&mut self, item: Bytes, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = usize;
    type Error = Status;
    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<usize>, Status> {
        let n = src.remaining();
        src.advance(n);
        Ok(Some(n))
    }
}

async fn channel(address: SocketAddr) -> Channel {
    Channel::from_shared(format!("http://{address}"))
        .unwrap()
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(16 << 20)
        .connect()
        .await
        .unwrap()
}

async fn call(channel: &Channel, rpc: &str, request: &Bytes) -> usize {
    let mut grpc = tonic::client::Grpc::new(channel.clone()).max_decoding_message_size(64 << 20);
    grpc.ready().await.unwrap();
    let path = format!("{SERVICE}/{rpc}").parse().unwrap();
    grpc.unary(Request::new(request.clone()), path, Raw)
        .await
        .unwrap()
        .into_inner()
}

/// Measures calls per second and CPU time per call of the server, with concurrent `streams`.
async fn load(
    process: &Process,
    rpc: &'static str,
    request: Bytes,
    streams: usize,
    time: Duration,
) -> (f64, f64, Vec<Duration>) {
    let channel = channel(process.address).await;
    let end = Instant::now() + time;
    let cpu = process.usage().0;
    let count = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..streams {
        let (channel, request, count) = (channel.clone(), request.clone(), count.clone());
        clients.spawn(async move {
            let mut times = Vec::new();
            while Instant::now() < end {
                let at = Instant::now();
                call(&channel, rpc, &request).await;
                if streams == 1 {
                    times.push(at.elapsed());
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
            times
        });
    }
    let mut times = Vec::new();
    while let Some(result) = clients.join_next().await {
        times.extend(result.unwrap());
    }
    times.sort();
    let calls = count.load(Ordering::Relaxed) as f64;
    let cpu = (process.usage().0 - cpu).as_secs_f64();
    (calls / begun.elapsed().as_secs_f64(), cpu / calls, times)
}

async fn measure(time: Duration) {
    let own = std::env::current_exe().unwrap();
    let own = own.to_str().unwrap();
    // This process is the load.
    let _ = Command::new("taskset")
        .args(["-cp", "-a", "1"])
        .arg(std::process::id().to_string())
        .stdout(Stdio::null())
        .status();
    let stub = Process::start(1, own, &["stub"]);
    let upstream = format!("http://{}", stub.address);
    let (ours, _folder) = drawbridge_gateway(&upstream);
    let plain = Process::start(0, own, &["plain", &upstream]);

    let get = pb::GetSoftwareDeploymentRequest {
        deployment_id: "a9c794b3-edd8-418a-b2b6-11c5398f7068".into(),
        ..Default::default()
    };
    let create = pb::CreateSoftwareDeploymentRequest {
        config_id: "c71455e5-6e81-4f9c-9728-3e9505f64cf3".into(),
        server_id: "a61842cd-668b-4675-a826-aa3438a96e03".into(),
        action: pb::DeploymentAction::Create.into(),
        status: pb::DeploymentStatus::InProgress.into(),
        status_reason: Some("Deploy data available".into()),
        input_values: Some(plain::to_value(
            serde_json::json!({"port": 80, "hosts": ["a", "b"]}),
        )),
        ..Default::default()
    };
    let list = |n: usize| {
        let server_id = format!("many{n}");
        pb::ListSoftwareDeploymentsRequest {
            server_id,
            ..Default::default()
        }
        .encode_to_vec()
    };
    println!(
        "one core for the gateway, {} s a measurement, 64 streams",
        time.as_secs()
    );
    println!(
        "{:22} {:>26}   {:>26}   ratio of CPU",
        "", "drawbridge", "plain tonic + reqwest"
    );
    for (name, rpc, request) in [
        ("get", "GetSoftwareDeployment", get.encode_to_vec()),
        ("create", "CreateSoftwareDeployment", create.encode_to_vec()),
        ("list of 100", "ListSoftwareDeployments", list(100)),
        ("list of 1,000", "ListSoftwareDeployments", list(1000)),
    ] {
        let request = Bytes::from(request);
        let (mut a, mut b) = ((0.0, f64::MAX), (0.0, f64::MAX));
        // Rounds are interleaved, so that other load on the machine affects both.
        for _ in 0..3 {
            let (rate, cpu, _) = load(&ours, rpc, request.clone(), 64, time / 3).await;
            a = (f64::max(a.0, rate), f64::min(a.1, cpu));
            let (rate, cpu, _) = load(&plain, rpc, request.clone(), 64, time / 3).await;
            b = (f64::max(b.0, rate), f64::min(b.1, cpu));
        }
        println!(
            "{name:22} {:8.0}/s {:9.1} us CPU   {:8.0}/s {:9.1} us CPU   {:.2}x",
            a.0,
            a.1 * 1e6,
            b.0,
            b.1 * 1e6,
            b.1 / a.1
        );
    }
    for (name, process) in [("drawbridge", &ours), ("plain", &plain)] {
        let request = Bytes::from(get.encode_to_vec());
        let (_, _, times) = load(process, "GetSoftwareDeployment", request, 1, time).await;
        let at = |p: f64| times[((times.len() - 1) as f64 * p) as usize].as_secs_f64() * 1e3;
        println!(
            "one stream, {name:10} p50 {:.3} ms  p99 {:.3} ms",
            at(0.5),
            at(0.99)
        );
    }
    for (name, process) in [("drawbridge", &ours), ("plain", &plain)] {
        println!(
            "256 big lists at once, {name:10} {:.0} MB resident at most",
            big_lists(process, Bytes::from(list(1000))).await
        );
    }
    drop(plain);
    drop(ours);
    let (ours, _folder) = drawbridge_gateway(&upstream);
    watchers(&ours, &upstream).await;
}

/// Measures the peak memory while 256 lists of 1,000 are read concurrently, in two rounds.
async fn big_lists(process: &Process, request: Bytes) -> f64 {
    let channel = channel(process.address).await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..256 {
        let (channel, request) = (channel.clone(), request.clone());
        clients.spawn(async move {
            for _ in 0..2 {
                call(&channel, "ListSoftwareDeployments", &request).await;
            }
        });
    }
    let mut most = 0.0;
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    loop {
        tokio::select! {
            next = clients.join_next() => match next { Some(done) => done.unwrap(), None => break },
            _ = tick.tick() => most = f64::max(most, process.usage().1),
        }
    }
    most
}

/// Measures 10,000 watches of one deployment: memory, CPU time, and the time until all have
/// received a change.
async fn watchers(process: &Process, upstream: &str) {
    const COUNT: usize = 10_000;
    let before = process.usage().1;
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    for batch in 0..10 {
        let channel = channel(process.address).await;
        let client =
            SoftwareDeploymentServiceClient::new(channel).max_decoding_message_size(1 << 20);
        let mut opening = tokio::task::JoinSet::new();
        for _ in 0..COUNT / 10 {
            let (mut client, tell) = (client.clone(), tell.clone());
            opening.spawn(async move {
                let request = pb::WatchSoftwareDeploymentRequest {
                    deployment_id: "watched".into(),
                    ..Default::default()
                };
                let mut stream = client
                    .watch_software_deployment(request)
                    .await
                    .unwrap()
                    .into_inner();
                stream.message().await.unwrap();
                tokio::spawn(async move {
                    while let Ok(Some(event)) = stream.message().await {
                        let reason = event.software_deployment.and_then(|d| d.status_reason);
                        if reason.as_deref() == Some("version 1") {
                            let _ = tell.send(Instant::now());
                        }
                    }
                });
            });
        }
        while let Some(done) = opening.join_next().await {
            done.unwrap();
        }
        let _ = batch;
    }
    let (cpu, after) = process.usage();
    println!(
        "10,000 watchers: {:.0} MB for all, {:.1} KiB each",
        after - before,
        (after - before) * 1e6 / 1024.0 / COUNT as f64
    );
    let mut tick = tokio::net::TcpStream::connect(upstream.trim_start_matches("http://"))
        .await
        .unwrap();
    let request = b"GET /tick HTTP/1.0
host: stub

";
    tokio::io::AsyncWriteExt::write_all(&mut tick, request)
        .await
        .unwrap();
    let mut first = None;
    for _ in 0..COUNT {
        let at = told.recv().await.unwrap();
        first.get_or_insert(at);
    }
    println!(
        "a change told to all of them within {:.0} ms of the first, {:.1} us CPU each",
        first.unwrap().elapsed().as_secs_f64() * 1e3,
        (process.usage().0 - cpu).as_secs_f64() * 1e6 / COUNT as f64
    );
}
