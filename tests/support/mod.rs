//! Helpers that the test targets share.

pub mod client;
pub mod compare;
pub mod heat_suite;
pub mod jwt;
pub mod log;
pub mod process;
pub mod recorder;
pub mod request;
pub mod tee;
pub mod tls;
pub mod web;

use std::net::SocketAddr;
use std::time::Duration;

use drawbridge::{Config, ServerHandle, credentials, upstream};
use url::Url;

pub use client::Client;
pub use recorder::Recorder;

/// Settings of an upstream for tests: short timeouts, nothing from the environment.
pub fn upstream(name: &str, family: &str, endpoint: &str) -> upstream::Settings {
    let dialect = drawbridge::families::family(family)
        .dialects
        .first()
        .copied()
        .unwrap_or_default();
    let mut settings = upstream::Settings::new(name, family, credentials::Settings::None);
    settings.dialect = dialect.to_owned();
    settings.is_default = true;
    settings.endpoint = Some(Url::parse(endpoint).unwrap());
    settings.project_id = Some("p1".to_owned());
    settings.transport.proxy_from_env = false;
    settings
}

/// Builds a gateway, binds its listeners and serves.
pub async fn start(config: Config) -> Result<ServerHandle, Vec<String>> {
    drawbridge::Gateway::build(config, false)?
        .bind()
        .await?
        .serve()
}

/// A gateway on a free port and a client to it.
pub struct Gateway {
    pub running: ServerHandle,
    pub client: Client,
}

impl Gateway {
    /// Starts one with these upstreams.
    pub async fn with(upstreams: Vec<upstream::Settings>) -> Self {
        Self::start(settings(upstreams)).await
    }

    /// Starts one with these settings.
    pub async fn start(settings: Config) -> Self {
        let sets: Vec<Vec<u8>> = std::iter::once(drawbridge::contract::BUILT_IN.to_vec())
            .chain(settings.descriptors.iter().map(|d| d.bytes.clone()))
            .collect();
        let running = start(settings)
            .await
            .unwrap_or_else(|e| panic!("{}", e.join("\n")));
        let client = Client::connect(running.grpc, &sets).await;
        Self { running, client }
    }
}

/// Returns an address without a listener. It stays bound until the process ends, so that no
/// other socket gets its port.
pub fn nowhere() -> SocketAddr {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    std::mem::forget(socket);
    address
}

/// Stops tokio's clock of this thread until dropped, so that caches do not expire on a slow
/// machine.
pub struct StoppedClock {
    /// A blocking task: while one runs, a paused clock does not advance by itself.
    _stops: std::sync::mpsc::Sender<()>,
}

impl StoppedClock {
    pub fn new() -> Self {
        let (stops, stopped) = std::sync::mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || stopped.recv());
        tokio::time::pause();
        Self { _stops: stops }
    }
}

impl Drop for StoppedClock {
    fn drop(&mut self) {
        tokio::time::resume();
    }
}

/// Settings of a gateway for tests, on a free port.
pub fn settings(upstreams: Vec<upstream::Settings>) -> Config {
    let mut config = Config::sandbox();
    config.sandbox = false;
    config.listen = ([127, 0, 0, 1], 0).into();
    config.admin = Some(([127, 0, 0, 1], 0).into());
    // `Config::sandbox` has no drain delay.
    config.server.drain_timeout = Duration::from_secs(5);
    // Logins and probes come at any time: tests of them set an interval.
    config.server.health_check_interval = Duration::ZERO;
    config.upstreams = upstreams;
    config
}

/// Reads a JSON file below `tests/`.
pub fn json_file(path: &str) -> serde_json::Value {
    let path = format!("{}/tests/{path}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Sends a GET and returns status and text.
pub async fn http_get(url: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let url: Url = url.parse().unwrap();
    let host = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
    let mut stream = tokio::net::TcpStream::connect(&host).await.unwrap();
    let request = format!("GET {} HTTP/1.0\r\nhost: {host}\r\n\r\n", url.path());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let status = text.split(' ').nth(1).unwrap().parse().unwrap();
    (status, text.split_once("\r\n\r\n").unwrap().1.to_owned())
}
