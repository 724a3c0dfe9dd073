//! Embedded upstreams of the three families, with state in memory: something to
//! try the gateway on, and something to test it against.
//!
//! One listener, paths apart:
//!
//! | path | upstream | file |
//! | --- | --- | --- |
//! | `/identity/v3/...`, `/v3/auth/...`, `/v3/projects` | Keystone v3, also as Huawei's IAM | `keystone.rs` |
//! | `/v3/{project_id}/cas/...`, `/v3/{project_id}/pipeline/...` | Huawei ServiceStage | `servicestage.rs` |
//! | `/Automation/...` | Hitachi JP1/AO | `jp1ao.rs` |
//! | everything else | OpenStack Heat | `heat.rs` |
//!
//! Each upstream is one function from an [`Ask`] to an [`Answer`] over its own
//! state: no I/O, no timers. What moves on by itself is worked out from the time
//! that has passed when somebody looks.

mod heat;
mod jp1ao;
mod keystone;
mod plain;
mod python;
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
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use jp1ao::{Jp1aoLinks, Jp1aoRules, Jp1aoSubmitted, Jp1aoVersion};
use plain::{Answer, Ask};

/// The user of Keystone and of IAM with all rights in [`PROJECT_ID`].
pub const USERNAME: &str = "demo";
/// The password of [`USERNAME`], [`OTHER_USERNAME`] and [`READER_USERNAME`].
pub const PASSWORD: &str = "sandbox";
/// The name of the domain of all users and projects; its id is `default`.
pub const DOMAIN: &str = "Default";
/// The project of [`USERNAME`] and [`READER_USERNAME`].
pub const PROJECT_ID: &str = "d91f788dea90457093be2871ee40c820";
/// Its name.
pub const PROJECT_NAME: &str = "demo";
/// The region of every endpoint; Huawei's IAM also knows the project by it.
pub const REGION: &str = "RegionOne";
/// A user of another project, who sees nothing of the first.
pub const OTHER_USERNAME: &str = "other";
/// The project of [`OTHER_USERNAME`]; its name is `other`.
pub const OTHER_PROJECT_ID: &str = "40a6d264b4eb4907854a7fc4764d0190";
/// A user who may look but not touch.
pub const READER_USERNAME: &str = "reader";
/// An application credential of [`USERNAME`].
pub const APPLICATION_CREDENTIAL_ID: &str = "1acf51ab94b54a30b6596de5ae9fa89c";
/// Its name, for a login that names the user as well.
pub const APPLICATION_CREDENTIAL_NAME: &str = "sandbox";
/// Its secret.
pub const APPLICATION_CREDENTIAL_SECRET: &str = "sandbox-credential";
/// ServiceStage's access key (AK).
pub const ACCESS_KEY: &str = "AKSANDBOX";
/// The secret key (SK) of [`ACCESS_KEY`].
pub const SECRET_KEY: &str = "SKSANDBOX";
/// A temporary access key, good with [`SECURITY_TOKEN`] only.
pub const TEMPORARY_ACCESS_KEY: &str = "AKTEMPORARY";
/// The secret key of [`TEMPORARY_ACCESS_KEY`].
pub const TEMPORARY_SECRET_KEY: &str = "SKTEMPORARY";
/// The security token of [`TEMPORARY_ACCESS_KEY`].
pub const SECURITY_TOKEN: &str = "sandbox-security-token";
/// The environment that ServiceStage starts with.
pub const ENVIRONMENT_ID: &str = "7f8f6c9b-1d2e-4b3a-9c4d-5e6f7a8b9c0d";
/// The add-on in [`ENVIRONMENT_ID`].
pub const ADDON_ID: &str = "d2e4f6a8-1c3b-4d5e-9f70-8b6a4c2e0d13";
/// The application that ServiceStage starts with.
pub const APPLICATION_ID: &str = "9c1f6f0e-2f5d-4a0c-8d1a-3f1b7e6c5d4e";
/// The running component of [`APPLICATION_ID`] in [`ENVIRONMENT_ID`].
pub const COMPONENT_ID: &str = "3d5b8a12-7e4c-4f0b-a6d9-0c1e2f3a4b5c";
/// The administrator of JP1/AO.
pub const JP1AO_USERNAME: &str = "system";
/// A user of JP1/AO with the Submit role on the default service group alone.
pub const JP1AO_OPERATOR: &str = "operator";
/// A user of JP1/AO without any service group.
pub const JP1AO_OUTSIDER: &str = "outsider";
/// The id of the first task that is submitted.
pub const FIRST_TASK_ID: u64 = jp1ao::FIRST_TASK_ID;
/// The password of all users of JP1/AO.
pub const JP1AO_PASSWORD: &str = "manager";
/// The config that Heat starts with.
pub const CONFIG_ID: &str = "8da95794-2ad9-4979-8ae5-739ce314c5cd";
/// The server whose config and deployment Heat starts with.
pub const SERVER_ID: &str = "ec14c864-096e-4e27-bb8a-2c2b4dc6f3f5";

/// The longest request body that is read at all. Longer ones get 413; Heat's own
/// limit of 1 MiB is far below.
const MAX_BODY: usize = 16 << 20;
/// How many requests the log keeps.
const MAX_SEEN: usize = 4096;
/// How much of a request's body the log keeps.
const MAX_SEEN_BODY: usize = 64 << 10;
/// How long [`Sandbox::stop`] waits for requests in flight.
const STOP_WAIT: Duration = Duration::from_secs(1);

/// How a sandbox behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long one step of a deployment or job takes. Default: 2 s.
    pub step: Duration,
    /// How long a Keystone token lives. Default: 1 h, as Keystone's.
    pub token_ttl: Duration,
    /// Whether deployments and jobs move on by themselves. Default: yes. Without
    /// it Heat is exactly a Heat whose servers have no agent.
    pub play: bool,
    /// Whether there is something to list at the start. Default: yes.
    /// ServiceStage's environment with its add-on and JP1/AO's services are there
    /// in any case.
    pub preload: bool,
    /// What JP1/AO does this way or that.
    pub jp1ao: Jp1aoRules,
    /// Whether Heat adopts and abandons stacks. Default: yes. Heat's own default
    /// is no (`enable_stack_adopt`, `enable_stack_abandon`).
    pub adopt_and_abandon: bool,
    /// How many stacks a project may have. Default: 512, as Heat's
    /// (`max_stacks_per_tenant`).
    pub stack_quota: usize,
    /// How many events Heat keeps of a stack; a fifth of them goes when there are
    /// more. Default: 1,000, as Heat's (`max_events_per_stack`,
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
            jp1ao: Jp1aoRules::default(),
            adopt_and_abandon: true,
            stack_quota: 512,
            events_kept: 1_000,
        }
    }
}

/// A request that the sandbox got.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The method.
    pub method: Method,
    /// The target as it was sent, still percent-encoded.
    pub path_and_query: String,
    /// All headers; the values of those that carry a secret read `***`.
    pub headers: HeaderMap,
    /// The body's first 64 KiB; empty for a login, which holds a password.
    pub body: Bytes,
}

/// A running sandbox. It stops when dropped.
#[derive(Debug)]
pub struct Sandbox {
    /// Where it listens.
    pub addr: SocketAddr,
    world: Arc<World>,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
}

impl Sandbox {
    /// Starts to listen; port 0 takes a free one.
    ///
    /// Fails when `listen` is not a loopback address, since the passwords are
    /// printed in the manual, and when the port cannot be had.
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
        let world = Arc::new(World::new(format!("http://{addr}"), settings));
        let router = router(world.clone());
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
            world,
            stop: Some(stop),
            server,
        })
    }

    /// Stops listening and waits for the requests in flight, at most a second.
    pub async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            // It fails only when the server has ended already.
            let _ = stop.send(());
        }
        if tokio::time::timeout(STOP_WAIT, &mut self.server)
            .await
            .is_err()
        {
            self.server.abort();
        }
    }

    /// The last 4,096 requests, oldest first.
    pub fn requests(&self) -> Vec<Seen> {
        lock(&self.world.log).seen.iter().cloned().collect()
    }

    /// How many requests came in all.
    pub fn request_count(&self) -> u64 {
        lock(&self.world.log).requests
    }

    /// How many of them were logins at Keystone or IAM, failed ones included.
    pub fn login_count(&self) -> u64 {
        lock(&self.world.log).logins
    }

    /// Keystone's URL, for `auth_url`.
    pub fn keystone_url(&self) -> String {
        format!("{}/identity/v3", self.world.base)
    }

    /// Heat's endpoint, project included, as the catalog has it.
    pub fn heat_url(&self) -> String {
        heat::endpoint(&self.world.base, PROJECT_ID)
    }

    /// Adds complete stacks to Heat's project, each with so many events (at most
    /// [`Settings::events_kept`]): what lists are paged for. Their names are
    /// `seeded-0` and so on; where there are some already, the next ones.
    pub fn seed_stacks(&self, stacks: usize, events: usize) {
        self.world.seed_stacks(stacks, events);
    }

    /// Lets time stand still for all upstreams until [`Sandbox::go_on`]: what has
    /// begun stays as far as it is, and tokens stay as old as they are.
    pub fn stand_still(&self) {
        self.world.clock.stand_still();
    }

    /// Lets time go on from where it stood still.
    pub fn go_on(&self) {
        self.world.clock.go_on();
    }

    /// ServiceStage's endpoint; IAM is at the same place.
    pub fn servicestage_url(&self) -> String {
        self.world.base.clone()
    }

    /// Lets JP1/AO answer so many of the next requests with 412: not running.
    pub fn jp1ao_goes_down(&self, requests: u32) {
        lock(&self.world.jp1ao).go_down(requests);
    }

    /// JP1/AO's endpoint.
    pub fn jp1ao_url(&self) -> String {
        self.world.base.clone()
    }
}

/// All upstreams' state. Each has its own lock, held for one request.
struct World {
    /// `http://host:port`, without a slash at the end.
    base: String,
    settings: Settings,
    clock: Clock,
    keystone: Mutex<keystone::Tokens>,
    heat: Mutex<heat::Heat>,
    servicestage: Mutex<servicestage::ServiceStage>,
    jp1ao: Mutex<jp1ao::Jp1ao>,
    log: Mutex<Log>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Log {
    seen: VecDeque<Seen>,
    requests: u64,
    logins: u64,
}

impl World {
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

    fn answer(&self, ask: &Ask) -> Answer {
        match ask.segments()[..] {
            ["identity", ..] | ["v3", "auth" | "projects", ..] => keystone::answer(self, ask),
            ["v3", _, "cas" | "pipeline", ..] => servicestage::answer(self, ask),
            ["Automation", ..] => jp1ao::answer(self, ask),
            _ => heat::answer(self, ask),
        }
    }

    fn note(&self, parts: &http::request::Parts, ask: &Ask) {
        let login = ask.method == Method::POST && ask.path.ends_with("/auth/tokens");
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
            // A copy, so that a kept slice does not keep 16 MiB alive.
            false => Bytes::copy_from_slice(&ask.body[..ask.body.len().min(MAX_SEEN_BODY)]),
        };
        let mut log = lock(&self.log);
        log.requests += 1;
        log.logins += u64::from(login);
        if log.seen.len() == MAX_SEEN {
            log.seen.pop_front();
        }
        log.seen.push_back(Seen {
            method: parts.method.clone(),
            path_and_query: parts.uri.to_string(),
            headers,
            body,
        });
    }
}

/// Wall time and elapsed time, both of tokio's clock, so that a test that pauses
/// time moves tokens' expiry along with everything else.
struct Clock {
    at_start: SystemTime,
    started: Instant,
    still: Mutex<Still>,
}

/// How a clock has stood still.
#[derive(Default)]
struct Still {
    /// Since when it stands, if it does.
    since: Option<Instant>,
    /// How far earlier stands have left it behind tokio's.
    behind: Duration,
}

impl Clock {
    fn new() -> Self {
        Self {
            at_start: SystemTime::now(),
            started: Instant::now(),
            still: Mutex::default(),
        }
    }

    fn now(&self) -> SystemTime {
        self.wall(self.instant())
    }

    fn instant(&self) -> Instant {
        let still = lock(&self.still);
        still.since.unwrap_or_else(Instant::now) - still.behind
    }

    fn stand_still(&self) {
        lock(&self.still).since.get_or_insert_with(Instant::now);
    }

    fn go_on(&self) {
        let mut still = lock(&self.still);
        if let Some(since) = still.since.take() {
            still.behind += since.elapsed();
        }
    }

    fn wall(&self, at: Instant) -> SystemTime {
        self.at_start + at.saturating_duration_since(self.started)
    }
}

fn router(world: Arc<World>) -> Router {
    Router::new().fallback(handle).with_state(world)
}

async fn handle(State(world): State<Arc<World>>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_BODY).await else {
        return (
            StatusCode::PAYLOAD_TOO_LARGE,
            [(header::CONNECTION, "close")],
        )
            .into_response();
    };
    let ask = Ask::new(&parts, body);
    world.note(&parts, &ask);
    world.answer(&ask).into_response()
}

/// A panic while a lock is held cannot leave these states half changed in a way
/// that matters to a sandbox.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
