//! The explorer: lists methods, describes their requests, and calls them. A call goes to the
//! gateway's own gRPC listener, with what the visitor has typed and nothing else, so that it is
//! authenticated, limited, counted and logged as that of any client.

mod call;
mod describe;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request};
use axum::http::{Response, StatusCode};
use axum::routing::{get, post};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use prost_reflect::{DescriptorPool, MessageDescriptor, MethodDescriptor};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::guard::Guard;
use super::response::{checked, json, other_method, problem};
use crate::config::Config;
use crate::contract::{BUILT_IN, Contract};
use crate::downstream::ClientKey;
use crate::error::unknown_rpc;
use crate::memory::{Memory, MemoryBudget, Reservation};
use call::CallRequest;
use drawbridge_transcoder::contract::CanonicalJson;

/// How many calls of visitors run at once.
const MAX_CALLS: usize = 16;

/// After this time without a visitor, the descriptors are dropped: they take several megabytes.
const IDLE_TIME: Duration = Duration::from_secs(300);

/// The time in which a visitor must have sent a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a request is in memory until it is sent: its text, the texts of its messages, and what
/// is read of them.
const REQUEST_COPIES: usize = 3;

/// The gateway's own methods that the explorer lists.
const OWN_METHODS: [&str; 1] = ["drawbridge.v1.GatewayService/ListUpstreams"];

/// What the explorer lists and calls.
#[derive(Debug)]
pub struct Explorer {
    api: ArcSwap<Api>,
    connection: Connection,
    max_request_bytes: usize,
    pools: Mutex<Option<Arc<Pools>>>,
    uses: AtomicU64,
    calls: Arc<Semaphore>,
    /// That of all visitors, who count as one client.
    memory: Memory,
}

/// What a call of a visitor holds until it ends.
#[derive(Debug)]
struct CallPermit {
    _slot: OwnedSemaphorePermit,
    /// For the request.
    memory: Reservation,
}

/// What is served.
#[derive(Debug)]
struct Api {
    sets: Vec<Cow<'static, [u8]>>,
    /// The names of the upstreams that serve a method, by `package.Service/Method`.
    methods: BTreeMap<String, Vec<String>>,
}

impl Api {
    fn new(contract: &Contract, methods: impl IntoIterator<Item = (String, Vec<String>)>) -> Self {
        let sets = contract.descriptor_sets().iter();
        let own = OWN_METHODS.map(|name| (name.to_owned(), Vec::new()));
        Self {
            sets: sets
                .map(|set| match set == BUILT_IN {
                    true => Cow::Borrowed(BUILT_IN),
                    false => Cow::Owned(set.clone()),
                })
                .collect(),
            methods: methods.into_iter().chain(own).collect(),
        }
    }
}

/// How the gRPC listener is reached.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Connection {
    /// The address that this process connects to.
    #[serde(skip)]
    target: SocketAddr,
    /// The port, for clients.
    port: u16,
    /// Empty if clients reach the listener by the host of the page.
    host: String,
    has_tls: bool,
    needs_token: bool,
    is_sandbox: bool,
    /// Why the page makes no calls.
    problem: Option<&'static str>,
}

impl Connection {
    /// Reads how the gRPC listener at `grpc` is reached.
    pub fn new(config: &Config, grpc: SocketAddr) -> Self {
        let needs_certificate = config
            .tls
            .as_ref()
            .is_some_and(|tls| tls.client_ca.is_some());
        let is_local = |address: SocketAddr| address.ip().to_canonical().is_loopback();
        let opens_loopback = is_local(grpc)
            && !config.requires_token()
            && config.admin.is_some_and(|admin| !is_local(admin));
        let host = match grpc.ip() {
            ip if ip.is_unspecified() => String::new(),
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let ip = match grpc.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        Self {
            target: SocketAddr::new(ip, grpc.port()),
            port: grpc.port(),
            host,
            has_tls: config.tls.is_some(),
            needs_token: config.requires_token(),
            is_sandbox: config.sandbox,
            problem: if needs_certificate {
                Some(
                    "The gRPC listener requires a client certificate, which this page cannot \
                     present: copy the call, and make it with yours.",
                )
            } else if opens_loopback {
                Some(
                    "The gRPC listener serves this machine only and asks for no token, while \
                     this page is served to others: set listen.clients.tokens_file to call from \
                     here.",
                )
            } else {
                None
            },
        }
    }
}

/// The descriptors of all sets.
#[derive(Debug)]
struct Pools(Vec<Pool>);

#[derive(Debug)]
struct Pool {
    descriptors: DescriptorPool,
    /// Reads requests. Built for the first call.
    json: OnceLock<CanonicalJson>,
}

impl Pool {
    fn method(&self, name: &str) -> Option<MethodDescriptor> {
        let (service, method) = name.split_once('/')?;
        let service = self.descriptors.get_service_by_name(service)?;
        let mut methods = service.methods();
        methods.find(|one| one.name() == method)
    }

    fn json(&self) -> &CanonicalJson {
        self.json
            .get_or_init(|| CanonicalJson::of(&self.descriptors))
    }
}

impl Pools {
    /// Returns a method, and the descriptors that have it.
    fn method(&self, name: &str) -> Option<(MethodDescriptor, &Pool)> {
        let mut pools = self.0.iter();
        pools.find_map(|pool| Some((pool.method(name)?, pool)))
    }

    fn message(&self, name: &str) -> Option<MessageDescriptor> {
        let mut pools = self.0.iter();
        pools.find_map(|pool| pool.descriptors.get_message_by_name(name))
    }
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

impl Explorer {
    /// Lists these methods, given as gRPC paths, with the names of the upstreams that serve
    /// them. Requests and responses draw from this budget.
    pub fn new(
        contract: &Contract,
        methods: impl IntoIterator<Item = (String, Vec<String>)>,
        connection: Connection,
        max_request_bytes: usize,
        budget: &MemoryBudget,
    ) -> Self {
        Self {
            api: ArcSwap::from_pointee(Api::new(contract, methods)),
            connection,
            max_request_bytes,
            pools: Mutex::default(),
            uses: AtomicU64::new(0),
            calls: Arc::new(Semaphore::new(MAX_CALLS)),
            memory: budget.open(ClientKey::default().digest()),
        }
    }

    /// Lists these methods instead.
    pub fn replace(
        &self,
        contract: &Contract,
        methods: impl IntoIterator<Item = (String, Vec<String>)>,
    ) {
        // Locked: no visitor decodes the descriptors of before meanwhile.
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        self.api.store(Arc::new(Api::new(contract, methods)));
        *pools = None;
    }

    /// Returns the routes of the explorer.
    pub(super) fn routes(self: Arc<Self>, guard: Guard) -> Router {
        let services = self.clone();
        let method = self.clone();
        let read = Router::new()
            .route(
                "/api/services",
                get(async move || services.list().await).fallback(other_method),
            )
            .route(
                "/api/method",
                get(async move |named| method.describe(named).await).fallback(other_method),
            );
        let call = Router::new().route(
            "/api/call",
            post(async move |request| self.call(request).await).fallback(other_method),
        );
        checked(read, guard, Guard::check_api).merge(checked(call, guard, Guard::check_call))
    }

    /// Returns the descriptors, which are kept for a while.
    async fn pools(self: &Arc<Self>) -> Result<Arc<Pools>, Response<Body>> {
        self.uses.fetch_add(1, Relaxed);
        let this = self.clone();
        let built = tokio::task::spawn_blocking(move || {
            let mut kept = this.pools.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(pools) = &*kept {
                return Ok((pools.clone(), false));
            }
            let api = this.api.load();
            let pools = api.sets.iter().map(|set| {
                Ok(Pool {
                    descriptors: DescriptorPool::decode(&**set)?,
                    json: OnceLock::new(),
                })
            });
            let pools: Result<Vec<_>, _> = pools.collect();
            let pools = Arc::new(Pools(pools?));
            *kept = Some(pools.clone());
            Ok::<_, prost_reflect::DescriptorError>((pools, true))
        });
        let failed = |text: String| problem(StatusCode::INTERNAL_SERVER_ERROR, &text);
        let (pools, is_new) = match built.await {
            Ok(Ok(built)) => built,
            Ok(Err(error)) => return Err(failed(error.to_string())),
            Err(error) => return Err(failed(error.to_string())),
        };
        if is_new {
            let this = Arc::downgrade(self);
            tokio::spawn(async move {
                let mut seen = 0;
                loop {
                    tokio::time::sleep(IDLE_TIME).await;
                    let Some(this) = this.upgrade() else { return };
                    let uses = this.uses.load(Relaxed);
                    if std::mem::replace(&mut seen, uses) == uses {
                        *this.pools.lock().unwrap_or_else(PoisonError::into_inner) = None;
                        return;
                    }
                }
            });
        }
        Ok(pools)
    }

    async fn list(self: &Arc<Self>) -> Response<Body> {
        match self.pools().await {
            Ok(pools) => json(&describe::services(
                &self.api.load().methods,
                &pools,
                &self.connection,
            )),
            Err(response) => response,
        }
    }

    async fn describe(
        self: &Arc<Self>,
        named: Result<Query<Named>, QueryRejection>,
    ) -> Response<Body> {
        let Ok(Query(Named { name })) = named else {
            let text = "name a method: /api/method?name=package.Service/Method";
            return problem(StatusCode::BAD_REQUEST, text);
        };
        let name = &*name;
        let pools = match self.pools().await {
            Ok(pools) => pools,
            Err(response) => return response,
        };
        match pools
            .method(name)
            .filter(|_| self.api.load().methods.contains_key(name))
        {
            Some((method, _)) => json(&describe::request(&method)),
            None => self.unknown_method(name),
        }
    }

    /// Explains a method that the explorer does not list, with a similar one.
    fn unknown_method(&self, name: &str) -> Response<Body> {
        let api = self.api.load();
        let known = api.methods.keys().map(|name| &**name);
        let page = ("this page", "the explorer lists its services");
        let text = unknown_rpc(page, &format!("/{name}"), known);
        problem(StatusCode::NOT_FOUND, &text)
    }

    /// Reads a request, which draws from the memory budget while it arrives.
    async fn read(
        &self,
        mut body: Body,
        max_bytes: usize,
    ) -> Result<(Bytes, Reservation), Response<Body>> {
        let mut reservation = self.memory.empty();
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let broken = |_| problem(StatusCode::BAD_REQUEST, "the request is incomplete");
            let Ok(data) = frame.map_err(broken)?.into_data() else {
                continue;
            };
            let length = bytes.len() + data.len();
            if length > max_bytes {
                let text = "the request is too long (setting server.max_request_bytes)";
                return Err(problem(StatusCode::PAYLOAD_TOO_LARGE, text));
            }
            // The buffer doubles.
            let held = reservation.resize(2 * REQUEST_COPIES * length);
            held.map_err(|_| {
                let text = "the gateway has no memory for the request (setting \
                            server.max_memory_bytes): try again later";
                problem(StatusCode::SERVICE_UNAVAILABLE, text)
            })?;
            bytes.extend_from_slice(&data);
        }
        Ok((bytes.freeze(), reservation))
    }

    async fn call(self: &Arc<Self>, request: Request) -> Response<Body> {
        if let Some(why) = self.connection.problem {
            return problem(StatusCode::FORBIDDEN, why);
        }
        // Held while the request is read, which takes memory.
        let Ok(slot) = self.calls.clone().try_acquire_owned() else {
            let text = format!("visitors of this page have {MAX_CALLS} calls open: stop one");
            return problem(StatusCode::TOO_MANY_REQUESTS, &text);
        };
        // Base64 makes a file a third longer.
        let max_bytes = self.max_request_bytes.saturating_mul(2);
        let read = self.read(request.into_body(), max_bytes);
        let (body, memory) = match tokio::time::timeout(REQUEST_TIMEOUT, read).await {
            Ok(Ok(read)) => read,
            Ok(Err(response)) => return response,
            Err(_) => return problem(StatusCode::REQUEST_TIMEOUT, "the request has not arrived"),
        };
        let mut permit = CallPermit {
            _slot: slot,
            memory,
        };
        let request: CallRequest = match serde_json::from_slice(&body) {
            Ok(request) => request,
            Err(error) => return problem(StatusCode::BAD_REQUEST, &error.to_string()),
        };
        let pools = match self.pools().await {
            Ok(pools) => pools,
            Err(response) => return response,
        };
        if !self.api.load().methods.contains_key(&request.method) {
            return self.unknown_method(&request.method);
        }
        let name = request.method.clone();
        let read = pools.clone();
        let prepared = tokio::task::spawn_blocking(move || {
            let (method, pool) = read.method(&request.method)?;
            Some(request.prepare(&method, pool.json()))
        });
        match prepared.await {
            Ok(Some(Ok(prepared))) => {
                // Less is never an error. The messages stay until the call ends.
                let _ = permit.memory.resize(body.len());
                prepared.run(self.connection.clone(), pools, permit, self.memory.clone())
            }
            Ok(Some(Err(text))) => problem(StatusCode::BAD_REQUEST, &text),
            Ok(None) => self.unknown_method(&name),
            Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    }
}
