//! Embedded upstreams of the three families with their state in memory, for trying the
//! gateway and for testing it.
//!
//! One listener serves all of them; the path selects the upstream:
//!
//! | path | upstream | file |
//! | --- | --- | --- |
//! | `/identity/v3/...`, `/v3/auth/...`, `/v3/projects` | Keystone v3, also as Huawei's IAM | `keystone.rs` |
//! | `/v3/{project_id}/cas/...`, `/v3/{project_id}/pipeline/...` | Huawei ServiceStage | `servicestage.rs` |
//! | `/Automation/...` | Hitachi JP1/AO | `jp1ao.rs` |
//! | everything else | OpenStack Heat | `heat.rs` |
//!
//! Each upstream is one function from a `Request` to a `Response` over its own
//! state, without I/O or timers. Each request first advances the state to the current
//! time.

mod heat;
mod jp1ao;
mod keystone;
mod message;
mod python_json;
mod servicestage;
pub mod signature;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::response::IntoResponse;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use jp1ao::{Jp1aoLinks, Jp1aoOptions, Jp1aoSubmitted, Jp1aoVersion};
use message::{Request, Response};

/// User of Keystone and IAM with all rights in [`PROJECT_ID`].
pub const USERNAME: &str = "demo";
/// Password of [`USERNAME`], [`OTHER_USERNAME`] and [`READER_USERNAME`].
pub const PASSWORD: &str = "sandbox";
/// Name of the domain of all users and projects; its id is `default`.
pub const DOMAIN: &str = "Default";
/// Project of [`USERNAME`] and [`READER_USERNAME`].
pub const PROJECT_ID: &str = "d91f788dea90457093be2871ee40c820";
/// Name of [`PROJECT_ID`].
pub const PROJECT_NAME: &str = "demo";
/// Region of every endpoint; Huawei's IAM also accepts it as the project's name.
pub const REGION: &str = "RegionOne";
/// User of [`OTHER_PROJECT_ID`], without access to [`PROJECT_ID`].
pub const OTHER_USERNAME: &str = "other";
/// Project of [`OTHER_USERNAME`]; its name is `other`.
pub const OTHER_PROJECT_ID: &str = "40a6d264b4eb4907854a7fc4764d0190";
/// User of [`PROJECT_ID`] with read-only access.
pub const READER_USERNAME: &str = "reader";
/// Id of an application credential of [`USERNAME`].
pub const APPLICATION_CREDENTIAL_ID: &str = "1acf51ab94b54a30b6596de5ae9fa89c";
/// Name of the application credential, for login_count that name the user as well.
pub const APPLICATION_CREDENTIAL_NAME: &str = "sandbox";
/// Secret of the application credential.
pub const APPLICATION_CREDENTIAL_SECRET: &str = "sandbox-credential";
/// Access key (AK) of ServiceStage.
pub const ACCESS_KEY: &str = "AKSANDBOX";
/// Secret key (SK) of [`ACCESS_KEY`].
pub const SECRET_KEY: &str = "SKSANDBOX";
/// Temporary access key, valid only together with [`SECURITY_TOKEN`].
pub const TEMPORARY_ACCESS_KEY: &str = "AKTEMPORARY";
/// Secret key of [`TEMPORARY_ACCESS_KEY`].
pub const TEMPORARY_SECRET_KEY: &str = "SKTEMPORARY";
/// Security token of [`TEMPORARY_ACCESS_KEY`].
pub const SECURITY_TOKEN: &str = "sandbox-security-token";
/// ServiceStage environment that exists at the start.
pub const ENVIRONMENT_ID: &str = "7f8f6c9b-1d2e-4b3a-9c4d-5e6f7a8b9c0d";
/// Add-on in [`ENVIRONMENT_ID`].
pub const ADDON_ID: &str = "d2e4f6a8-1c3b-4d5e-9f70-8b6a4c2e0d13";
/// ServiceStage application that exists at the start.
pub const APPLICATION_ID: &str = "9c1f6f0e-2f5d-4a0c-8d1a-3f1b7e6c5d4e";
/// Running component of [`APPLICATION_ID`] in [`ENVIRONMENT_ID`].
pub const COMPONENT_ID: &str = "3d5b8a12-7e4c-4f0b-a6d9-0c1e2f3a4b5c";
/// Administrator of JP1/AO.
pub const JP1AO_USERNAME: &str = "system";
/// User of JP1/AO with the Submit role on the default service group only.
pub const JP1AO_OPERATOR: &str = "operator";
/// User of JP1/AO without any service group.
pub const JP1AO_OUTSIDER: &str = "outsider";
/// Id of the first task that is submitted.
pub const FIRST_TASK_ID: u64 = jp1ao::FIRST_TASK_ID;
/// Password of all users of JP1/AO.
pub const JP1AO_PASSWORD: &str = "manager";
/// Software config that Heat has at the start.
pub const CONFIG_ID: &str = "8da95794-2ad9-4979-8ae5-739ce314c5cd";
/// Server of the software config and deployment that Heat has at the start.
pub const SERVER_ID: &str = "ec14c864-096e-4e27-bb8a-2c2b4dc6f3f5";

/// Maximum size of a request body; a larger one is answered with 413. Heat's own limit
/// of 1 MiB is far below.
const MAX_BODY_BYTES: usize = 16 << 20;
/// Number of requests kept for [`Sandbox::requests`].
const MAX_RECORDED_REQUESTS: usize = 4096;
/// Number of bytes kept of a request's body.
const MAX_RECORDED_BODY_BYTES: usize = 64 << 10;
/// Time that [`Sandbox::stop`] waits for requests in flight.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// Behaviour of a sandbox.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Duration of one step of a deployment or job. Default: 2 s.
    pub step: Duration,
    /// Lifetime of a Keystone token. Default: 1 h, as in Keystone.
    pub token_ttl: Duration,
    /// Whether deployments and jobs progress by themselves. Default: true. If false,
    /// Heat behaves as with servers that run no agent.
    pub play: bool,
    /// Whether resources exist at the start. Default: true. ServiceStage's environment
    /// with its add-on and JP1/AO's services exist in any case.
    pub preload: bool,
    /// Variants of JP1/AO's behaviour.
    pub jp1ao: Jp1aoOptions,
    /// Whether Heat adopts and abandons stacks. Default: true. Heat's own default is
    /// false (`enable_stack_adopt`, `enable_stack_abandon`).
    pub adopt_and_abandon: bool,
    /// Maximum number of stacks of a project. Default: 512, as in Heat
    /// (`max_stacks_per_tenant`).
    pub stack_quota: usize,
    /// Maximum number of events of a stack. When there are more, Heat deletes the
    /// oldest fifth. Default: 1,000, as in Heat (`max_events_per_stack`,
    /// `event_purge_batch_size`).
    pub events_kept: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            step: Duration::from_secs(2),
            token_ttl: Duration::from_secs(3600),
            play: true,
            preload: true,
            jp1ao: Jp1aoOptions::default(),
            adopt_and_abandon: true,
            stack_quota: 512,
            events_kept: 1_000,
        }
    }
}

/// A request that the sandbox received.
#[derive(Clone, Debug)]
pub struct RecordedRequest {
    /// HTTP method.
    pub method: Method,
    /// Request target as received, still percent-encoded.
    pub path_and_query: String,
    /// All headers; the values of those that carry a secret are `***`.
    pub headers: HeaderMap,
    /// First 64 KiB of the body; empty for a login, whose body contains a password.
    pub body: Bytes,
}

/// A running sandbox. Stops when dropped.
#[derive(Debug)]
pub struct Sandbox {
    /// Address of the listener.
    pub addr: SocketAddr,
    upstreams: Arc<Upstreams>,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
}

impl Sandbox {
    /// Starts the listener; port 0 selects a free port.
    ///
    /// Fails if `listen` is not a loopback address, because the passwords are public,
    /// and if the port is not available.
    pub async fn start(listen: SocketAddr, settings: Settings) -> io::Result<Self> {
        if !listen.ip().is_loopback() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "the sandbox listens on loopback only, not on {listen}: its passwords are public"
                ),
            ));
        }
        let listener = TcpListener::bind(listen).await?;
        let addr = listener.local_addr()?;
        let upstreams = Arc::new(Upstreams::new(format!("http://{addr}"), settings));
        let router = router(upstreams.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(async move {
            let served = axum::serve(listener, router).with_graceful_shutdown(async {
                // An error means that the sandbox was dropped: stop as well.
                let _ = stopped.await;
            });
            if let Err(error) = served.await {
                tracing::error!(%error, "the sandbox stopped");
            }
        });
        Ok(Self {
            addr,
            upstreams,
            stop: Some(stop),
            server,
        })
    }

    /// Stops the listener and waits up to a second for requests in flight.
    pub async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            // Fails only if the server has already ended.
            let _ = stop.send(());
        }
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, &mut self.server)
            .await
            .is_err()
        {
            self.server.abort();
        }
    }

    /// Returns the last 4,096 requests, oldest first.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        lock(&self.upstreams.log).requests.iter().cloned().collect()
    }

    /// Returns the number of all requests received.
    pub fn request_count(&self) -> u64 {
        lock(&self.upstreams.log).request_count
    }

    /// Returns the number of logins at Keystone or IAM, failed ones included.
    pub fn login_count(&self) -> u64 {
        lock(&self.upstreams.log).login_count
    }

    /// Returns the URL of Keystone, for `auth_url`.
    pub fn keystone_url(&self) -> String {
        format!("{}/identity/v3", self.upstreams.base)
    }

    /// Returns Heat's endpoint with the project id, as in the catalog.
    pub fn heat_url(&self) -> String {
        heat::endpoint(&self.upstreams.base, PROJECT_ID)
    }

    /// Adds complete stacks to Heat's project, each with `events` events (at most
    /// [`Settings::events_kept`]), to test paging. Their names are `seeded-0` and so
    /// on; a second call continues the numbering.
    pub fn seed_stacks(&self, stacks: usize, events: usize) {
        self.upstreams.seed_stacks(stacks, events);
    }

    /// Stops the clock of all upstreams until [`Sandbox::resume_clock`]: running jobs
    /// make no progress and tokens do not expire.
    pub fn pause_clock(&self) {
        self.upstreams.clock.pause_clock();
    }

    /// Resumes the clock after [`Sandbox::pause_clock`].
    pub fn resume_clock(&self) {
        self.upstreams.clock.resume_clock();
    }

    /// Returns the endpoint of ServiceStage; IAM has the same one.
    pub fn servicestage_url(&self) -> String {
        self.upstreams.base.clone()
    }

    /// Makes JP1/AO answer the next `requests` requests with 412: server not running.
    pub fn make_jp1ao_unavailable(&self, requests: u32) {
        lock(&self.upstreams.jp1ao).set_unavailable(requests);
    }

    /// Returns the endpoint of JP1/AO.
    pub fn jp1ao_url(&self) -> String {
        self.upstreams.base.clone()
    }
}

/// State of all upstreams. Each has its own lock, held for one request.
struct Upstreams {
    /// `http://host:port`, without a trailing slash.
    base: String,
    settings: Settings,
    clock: Clock,
    keystone: Mutex<keystone::Tokens>,
    heat: Mutex<heat::Heat>,
    servicestage: Mutex<servicestage::ServiceStage>,
    jp1ao: Mutex<jp1ao::Jp1ao>,
    log: Mutex<Log>,
}

impl std::fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstreams")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Log {
    requests: VecDeque<RecordedRequest>,
    request_count: u64,
    login_count: u64,
}

impl Upstreams {
    fn new(base: String, settings: Settings) -> Self {
        let clock = Clock::new();
        Self {
            base,
            keystone: Mutex::default(),
            heat: Mutex::new(heat::Heat::new(settings.preload, &clock)),
            servicestage: Mutex::new(servicestage::ServiceStage::new(
                settings.preload,
                clock.now(),
            )),
            jp1ao: Mutex::new(jp1ao::Jp1ao::new(
                settings.jp1ao,
                settings.preload,
                clock.now(),
            )),
            log: Mutex::default(),
            settings,
            clock,
        }
    }

    fn seed_stacks(&self, stacks: usize, events: usize) {
        lock(&self.heat).seed(stacks, events, &self.clock, &self.settings);
    }

    fn handle(&self, request: &Request) -> Response {
        match request.segments()[..] {
            ["identity", ..] | ["v3", "auth" | "projects", ..] => keystone::handle(self, request),
            ["v3", _, "cas" | "pipeline", ..] => servicestage::handle(self, request),
            ["Automation", ..] => jp1ao::handle(self, request),
            _ => heat::handle(self, request),
        }
    }

    fn record(&self, parts: &http::request::Parts, request: &Request) {
        let login = request.method == Method::POST && request.path.ends_with("/auth/tokens");
        let mut headers = parts.headers.clone();
        for name in [
            "authorization",
            "x-auth-token",
            "x-subject-token",
            "x-security-token",
            "cookie",
        ] {
            if headers.contains_key(name) {
                headers.insert(name, HeaderValue::from_static("***"));
            }
        }
        let body = match login {
            true => Bytes::new(),
            // Copied, because a slice would keep up to 16 MiB alive.
            false => Bytes::copy_from_slice(
                &request.body[..request.body.len().min(MAX_RECORDED_BODY_BYTES)],
            ),
        };
        let mut log = lock(&self.log);
        log.request_count += 1;
        log.login_count += u64::from(login);
        if log.requests.len() == MAX_RECORDED_REQUESTS {
            log.requests.pop_front();
        }
        log.requests.push_back(RecordedRequest {
            method: parts.method.clone(),
            path_and_query: parts.uri.to_string(),
            headers,
            body,
        });
    }
}

/// Wall time and elapsed time, both from tokio's clock, so that a test with paused time
/// also controls the expiry of tokens.
struct Clock {
    at_start: SystemTime,
    started: Instant,
    pause: Mutex<PauseState>,
}

/// Pause state of a clock.
#[derive(Default)]
struct PauseState {
    /// Start of the current pause, if paused.
    since: Option<Instant>,
    /// Total duration of all earlier pauses.
    total: Duration,
}

impl Clock {
    fn new() -> Self {
        Self {
            at_start: SystemTime::now(),
            started: Instant::now(),
            pause: Mutex::default(),
        }
    }

    fn now(&self) -> SystemTime {
        self.wall(self.instant())
    }

    fn instant(&self) -> Instant {
        let pause = lock(&self.pause);
        pause.since.unwrap_or_else(Instant::now) - pause.total
    }

    fn pause_clock(&self) {
        lock(&self.pause).since.get_or_insert_with(Instant::now);
    }

    fn resume_clock(&self) {
        let mut pause = lock(&self.pause);
        if let Some(since) = pause.since.take() {
            pause.total += since.elapsed();
        }
    }

    fn wall(&self, at: Instant) -> SystemTime {
        self.at_start + at.saturating_duration_since(self.started)
    }
}

fn router(upstreams: Arc<Upstreams>) -> Router {
    Router::new().fallback(handle).with_state(upstreams)
}

async fn handle(
    State(upstreams): State<Arc<Upstreams>>,
    request: http::Request<Body>,
) -> axum::response::Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_BODY_BYTES).await else {
        return (
            StatusCode::PAYLOAD_TOO_LARGE,
            [(header::CONNECTION, "close")],
        )
            .into_response();
    };
    let request = Request::new(&parts, body);
    upstreams.record(&parts, &request);
    upstreams.handle(&request).into_response()
}

/// Ignores poisoning: a panic cannot leave this state inconsistent in a way that
/// matters to a sandbox.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
