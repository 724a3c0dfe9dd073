//! The composition root: builds every room, serves, drains. And the one way of
//! a request: deadline, upstream, bind, call, decode.

mod answer;
mod codec;
mod front;
mod health;
mod service;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_stream::Stream;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::server::Grpc;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::api::drawbridge::v1::gateway_service_server::GatewayServiceServer;
use crate::config::Config;
use crate::contract::{Contract, Decoded, Method, Source};
use crate::deadline::Deadline;
use crate::error::{self, Error};
use crate::files::{FileStream, Uploads};
use crate::pages::{self, PageStream};
use crate::resolve::{Errand, Names};
use crate::rest::Caller;
use crate::telemetry::{Metrics, Readiness, RpcMetrics, Sample, code_name, serve_admin};
use crate::unary;
use crate::upstream::{self, Upstream, Upstreams};
use crate::watch::{self, Watches};
use answer::Answer;
pub(crate) use codec::WireCodec;
pub use front::TOKEN;
use front::{CallerTokens, FrontLayer};

/// Response metadata: paths of integers that are rounded in the message.
const INEXACT: HeaderName = HeaderName::from_static("drawbridge-inexact");

/// Looks rpcs up and carries them out.
#[derive(Debug)]
pub struct Engine {
    methods: HashMap<Box<str>, Arc<Served>>,
    upstreams: Upstreams,
    watches: Watches,
    names: Names,
    metrics: Metrics,
    uploads: Uploads,
    max_request_bytes: usize,
    default_deadline: Duration,
    traces: bool,
}

/// A method and its metrics, at each upstream that can serve it.
#[derive(Debug)]
pub struct Served {
    method: Arc<Method>,
    at: Vec<(Arc<Upstream>, RpcMetrics)>,
    /// Calls that failed before an upstream was picked.
    nowhere: RpcMetrics,
    forwarded: Vec<HeaderName>,
}

/// A gateway that serves.
#[derive(Debug)]
pub struct Running {
    /// Where gRPC is served.
    pub grpc: SocketAddr,
    /// Where metrics are served.
    pub admin: Option<SocketAddr>,
    stop: oneshot::Sender<()>,
    done: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Running {
    /// Takes no new calls, ends watches with UNAVAILABLE, lets calls finish, and
    /// returns when all is over or the drain time has passed.
    pub async fn stop(self) -> Result<(), String> {
        let _ = self.stop.send(());
        match self.done.await {
            Ok(result) => result.map_err(|e| format!("serving ended with: {e}")),
            Err(panic) => Err(format!("serving ended with: {panic}")),
        }
    }
}

/// Builds every room and serves. All that can be wrong is told at once.
/// `traces` says whether spans are exported.
pub async fn start(config: Config, traces: bool) -> Result<Running, Vec<String>> {
    let contract = compile(&config.descriptors)?;
    let metrics = Metrics::default();
    let upstreams = build_upstreams(&config.upstreams, &metrics)?;
    let watches = Watches::new(config.watch.clone());
    let engine = Arc::new(Engine::new(
        &config,
        traces,
        &contract,
        upstreams,
        watches,
        metrics.clone(),
    ));
    engine.report_gauges();

    let one = |e: String| vec![e];
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|e| one(format!("cannot listen on {}: {e}", config.listen)))?;
    let grpc = listener.local_addr().map_err(|e| one(e.to_string()))?;
    if config.tokens_in_the_clear() {
        tracing::warn!(
            listen = %grpc,
            "callers' tokens come in the clear: set [listen.tls], unless a proxy before the gateway speaks TLS"
        );
    }
    let readiness = Readiness::default();
    let mut admin_task = None;
    let mut admin = None;
    if let Some(address) = config.admin {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|e| one(format!("cannot listen on {address} (admin): {e}")))?;
        admin = listener.local_addr().ok();
        admin_task = Some(tokio::spawn(serve_admin(
            listener,
            metrics,
            readiness.clone(),
        )));
    }

    let (reporter, health) = tonic_health::server::health_reporter();
    let watched = engine.watched(&contract);
    let services: Vec<String> = watched.iter().map(|w| w.service.clone()).collect();
    let probing = tokio::spawn(health::report(
        reporter.clone(),
        watched,
        config.server.probe_interval,
    ));
    let broken = |e| one(format!("reflection: {e}"));
    let routes = Routes::new(health)
        .add_service(reflection(&contract).build_v1().map_err(broken)?)
        .add_service(reflection(&contract).build_v1alpha().map_err(broken)?)
        .add_service(GatewayServiceServer::new(service::Own(engine.clone())));

    let mut server = Server::builder()
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(16 << 20)
        .max_concurrent_streams(config.server.max_streams)
        .http2_keepalive_interval(Some(config.server.keepalive_interval))
        .http2_keepalive_timeout(Some(config.server.keepalive_timeout));
    if let Some(age) = config.server.max_connection_age {
        server = server
            .max_connection_age(age)
            .max_connection_age_grace(config.server.max_connection_age_grace);
    }
    if let Some(tls) = &config.tls {
        let mut config = ServerTlsConfig::new().identity(Identity::from_pem(
            &tls.certificate,
            tls.key.expose_secret(),
        ));
        if let Some(ca) = &tls.client_ca {
            config = config.client_ca_root(Certificate::from_pem(ca));
        }
        server = server
            .tls_config(config)
            .map_err(|e| one(format!("tls: {e}")))?;
    }
    let front = FrontLayer {
        engine: engine.clone(),
        tokens: CallerTokens::new(&config.caller_tokens),
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let drain = config.server.drain;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    readiness.set(true);
    let done = tokio::spawn(async move {
        let (closing, closed) = oneshot::channel::<()>();
        let serving = server
            .layer(front)
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, async move {
                // An error means that `Running` was dropped: stop as well.
                let _ = stopped.await;
                readiness.set(false);
                health::stop(&reporter, &services).await;
                engine.watches.drain();
                let _ = closing.send(());
            });
        let result = tokio::select! {
            result = serving => result,
            () = async { let _ = closed.await; tokio::time::sleep(drain).await } => {
                tracing::warn!(drain_secs = drain.as_secs(), "calls are cut off: the drain time has passed");
                Ok(())
            }
        };
        probing.abort();
        if let Some(task) = admin_task {
            task.abort();
        }
        result
    });
    Ok(Running {
        grpc,
        admin,
        stop,
        done,
    })
}

/// The contract of the built-in descriptor set and of users' own.
pub fn compile(descriptors: &[Source]) -> Result<Contract, Vec<String>> {
    let mut sources = vec![Source {
        name: "built-in".into(),
        bytes: crate::BUILT_IN.to_vec(),
    }];
    sources.extend(descriptors.iter().cloned());
    Contract::compile(sources)
        .map_err(|refusals| refusals.iter().map(ToString::to_string).collect())
}

/// What the built-in contract covers, as a Markdown table.
pub fn coverage() -> Result<String, Vec<String>> {
    Ok(compile(&[])?.coverage())
}

/// The upstreams, with their exchanges counted.
pub fn build_upstreams(
    settings: &[upstream::Settings],
    metrics: &Metrics,
) -> Result<Upstreams, Vec<String>> {
    let mut problems = Vec::new();
    let mut all = Vec::new();
    for settings in settings {
        let attempts = metrics.attempts(&settings.name);
        let hook: upstream::AttemptHook =
            Arc::new(move |attempt| attempts.count(attempt.status.map(|s| s.as_u16())));
        match Upstream::new(settings.clone(), Some(hook)) {
            Ok(upstream) => all.push(Arc::new(upstream)),
            Err(e) => problems.push(format!("upstream {}: {e}", settings.name)),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Upstreams::new(all).map_err(|e| vec![e])
}

impl Engine {
    fn new(
        config: &Config,
        traces: bool,
        contract: &Contract,
        upstreams: Upstreams,
        watches: Watches,
        metrics: Metrics,
    ) -> Self {
        let methods = contract
            .methods()
            .into_iter()
            .map(|method| {
                let operation = &method.path[1..];
                let family = crate::family::family(&method.family);
                let served = Served {
                    method: method.clone(),
                    at: upstreams
                        .all()
                        .iter()
                        .filter(|u| u.settings.family == *method.family)
                        .map(|u| (u.clone(), metrics.rpc(operation, &u.settings.name)))
                        .collect(),
                    nowhere: metrics.rpc(operation, ""),
                    forwarded: family
                        .request_id_headers
                        .iter()
                        .chain(&["warning"])
                        .filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
                        .collect(),
                };
                (method.path.clone(), Arc::new(served))
            })
            .collect();
        Self {
            methods,
            upstreams,
            watches,
            names: Names::default(),
            metrics,
            uploads: Uploads::new(config.server.max_upload_bytes),
            max_request_bytes: config.server.max_request_bytes,
            default_deadline: config.server.default_deadline,
            traces,
        }
    }

    /// The method at this gRPC path.
    fn served(&self, path: &str) -> Option<Arc<Served>> {
        self.methods.get(path).cloned()
    }

    /// The status of a call that was refused at the door.
    fn refuse(&self, path: &str, error: &Error) -> Status {
        // Whatever path somebody has thought of is nothing for the log.
        let operation = match self.methods.get(path) {
            Some(_) => &path[1..],
            None => "",
        };
        tracing::info!(
            operation,
            reason = error.log_text(),
            "call refused at the door"
        );
        self.metrics.refused.inc();
        error.status(&error::Context {
            operation,
            upstream: "",
            request_id: "",
            begun: false,
        })
    }

    /// Serves one request of a method.
    async fn serve(
        &self,
        served: &Arc<Served>,
        request: http::Request<Body>,
    ) -> http::Response<Body> {
        let stream = served.method.is_stream();
        let codec = if stream {
            WireCodec::stream()
        } else {
            WireCodec::unary()
        };
        let mut grpc = Grpc::new(codec)
            .max_decoding_message_size(self.max_request_bytes)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd);
        // Compressing costs more than most answers: the caller chooses it by
        // compressing the request, as gRPC servers commonly do.
        let encoding = request.headers().get("grpc-encoding");
        let compressed = match encoding.map(HeaderValue::as_bytes) {
            Some(b"gzip") => Some(CompressionEncoding::Gzip),
            Some(b"zstd") => Some(CompressionEncoding::Zstd),
            _ => None,
        };
        if let Some(encoding) = compressed {
            grpc = grpc.send_compressed(encoding);
        }
        if stream {
            return grpc
                .server_streaming(tower::service_fn(|r| self.stream(served, r)), request)
                .await;
        }
        if served.method.upload.is_some() {
            return grpc
                .client_streaming(tower::service_fn(|r| self.upload(served, r)), request)
                .await;
        }
        // Set aside where it goes out as it is; tonic would copy it.
        let answer = OnceLock::new();
        let aside = compressed.is_none().then_some(&answer);
        let response = grpc
            .unary(tower::service_fn(|r| self.unary(served, r, aside)), request)
            .await;
        match answer.into_inner() {
            Some(answer) => response.map(|_| Body::new(answer)),
            None => response,
        }
    }

    async fn unary(
        &self,
        served: &Arc<Served>,
        request: Request<Bytes>,
        aside: Option<&OnceLock<Answer>>,
    ) -> Result<Response<Bytes>, Status> {
        let headers = request.metadata().as_ref();
        let mut record = Record::begin(served, self.traces, headers);
        let span = record.span.clone();
        let work = self.call(&mut record, headers, request.get_ref());
        let result = traced(span, work).await;
        let (decoded, headers) = record.finish(result)?;
        let mut response = served.response(decoded, &headers);
        if let Some(aside) = aside
            && let Some(answer) = Answer::new(response.get_ref().clone())
            && aside.set(answer).is_ok()
        {
            *response.get_mut() = Bytes::new();
        }
        Ok(response)
    }

    /// Takes a file, and sends it on.
    async fn upload(
        &self,
        served: &Arc<Served>,
        request: Request<Streaming<Bytes>>,
    ) -> Result<Response<Bytes>, Status> {
        let (metadata, _, mut messages) = request.into_parts();
        let headers = metadata.into_headers();
        let mut record = Record::begin(served, self.traces, &headers);
        let span = record.span.clone();
        let work = self.send_on(&mut record, &headers, &mut messages);
        let result = traced(span, work).await;
        let (decoded, headers) = record.finish(result)?;
        Ok(served.response(decoded, &headers))
    }

    /// The way of a file.
    async fn send_on(
        &self,
        record: &mut Record,
        headers: &HeaderMap,
        messages: &mut Streaming<Bytes>,
    ) -> Result<(Decoded, HeaderMap), Error> {
        let served = record.served.clone();
        let method = &served.method;
        let Some(upload) = &method.upload else {
            return Err(Error::Malformed(format!("{} is no upload", method.path)));
        };
        let deadline = Deadline::of(headers, self.default_deadline);
        let upstream = self.upstreams.pick(&method.family, headers)?;
        record.upstream = Some(upstream.clone());
        offers(upstream, method)?;
        let dialect = &upstream.settings.dialect;
        let receiving = self.uploads.receive(method, upload, dialect, messages);
        let received = deadline.bound(receiving).await??;
        let operation = upstream::Operation::of(method);
        let reply = (upstream.call(operation, &received.call, &record.caller, deadline)).await?;
        let mut decoded = method.decode(&reply)?;
        decoded.message = reply.room.keep(decoded.message);
        Ok((decoded, reply.headers))
    }

    /// The way of a unary call.
    async fn call(
        &self,
        record: &mut Record,
        headers: &HeaderMap,
        request: &Bytes,
    ) -> Result<(Decoded, HeaderMap), Error> {
        let served = record.served.clone();
        let method = &served.method;
        let deadline = Deadline::of(headers, self.default_deadline);
        let upstream = self.upstreams.pick(&method.family, headers)?;
        record.upstream = Some(upstream.clone());
        offers(upstream, method)?;
        let caller = &record.caller;
        let errand = Errand {
            upstream,
            method,
            caller,
            deadline,
        };
        let _during = self.names.during(errand);
        let resolved = self.names.resolve(errand, request).await?;
        let mut result = unary::call(upstream, method, &resolved.request, caller, deadline).await;
        if let Err(error) = &result
            && let Some(request) = self.names.again(errand, &resolved, error).await?
        {
            result = unary::call(upstream, method, &request, caller, deadline).await;
        }
        result
    }

    async fn stream(
        &self,
        served: &Arc<Served>,
        request: Request<Bytes>,
    ) -> Result<Response<Recorded>, Status> {
        let headers = request.metadata().as_ref();
        let mut record = Record::begin(served, self.traces, headers);
        let result = self.open(&mut record, headers, request.get_ref()).await;
        let told = match result {
            Ok(told) => told,
            Err(error) => return Err(record.fail(&error)),
        };
        let inexact = match &told {
            Told::Pages(stream) => answer::inexact(stream.notes()),
            Told::Watch(_) | Told::File(_) => None,
        };
        let mut response = Response::new(record.stream(told));
        if let Some(paths) = inexact {
            let metadata = response.metadata_mut().as_mut();
            metadata.insert(INEXACT, paths);
        }
        Ok(response)
    }

    /// The way of a stream, up to its first message.
    async fn open(
        &self,
        record: &mut Record,
        headers: &HeaderMap,
        request: &Bytes,
    ) -> Result<Told, Error> {
        let served = record.served.clone();
        let method = &served.method;
        let call_by = Deadline::of(headers, self.default_deadline);
        let deadline = headers.contains_key("grpc-timeout").then_some(call_by);
        let upstream = self.upstreams.pick(&method.family, headers)?;
        record.upstream = Some(upstream.clone());
        offers(upstream, method)?;
        let caller = &record.caller;
        let errand = Errand {
            upstream,
            method,
            caller,
            deadline: call_by,
        };
        let _during = self.names.during(errand);
        let resolved = self.names.resolve(errand, request).await?;
        let mut result = self.begin(errand, deadline, &resolved.request).await;
        if let Err(error) = &result
            && let Some(request) = self.names.again(errand, &resolved, error).await?
        {
            result = self.begin(errand, deadline, &request).await;
        }
        result
    }

    /// Begins a stream whose request has all it needs.
    async fn begin(
        &self,
        errand: Errand<'_>,
        deadline: Option<Deadline>,
        request: &Bytes,
    ) -> Result<Told, Error> {
        let Errand {
            upstream,
            method,
            caller,
            ..
        } = errand;
        if method.download.is_some() {
            let file =
                FileStream::open(upstream, method, request, caller, errand.deadline, deadline);
            return file.await.map(Told::File);
        }
        if method.pages.is_none() {
            let watches = &self.watches;
            let request = request.clone();
            let watch = watches.watch(method, request, upstream, caller, deadline, errand.deadline);
            return watch.await.map(Told::Watch);
        }
        let route = pages::Route {
            method: method.clone(),
            upstream: upstream.clone(),
            caller: caller.clone(),
            deadline,
            page_timeout: self.default_deadline,
            watches: self.watches.clone(),
        };
        PageStream::open(route, request).await.map(Told::Pages)
    }

    fn watched(&self, contract: &Contract) -> Vec<health::Watched> {
        contract
            .services()
            .into_iter()
            .map(|(service, family)| health::Watched {
                service: service.to_owned(),
                upstreams: self
                    .upstreams
                    .all()
                    .iter()
                    .filter(|u| u.settings.family == family)
                    .cloned()
                    .collect(),
            })
            .collect()
    }

    /// Lets the metrics read what the rooms count themselves.
    fn report_gauges(self: &Arc<Self>) {
        let engine = Arc::downgrade(self);
        self.metrics.add_source(move || {
            let Some(engine) = engine.upgrade() else {
                return Vec::new();
            };
            let watches = engine.watches.stats();
            let own = |name, help, value: usize| Sample {
                name,
                help,
                upstream: None,
                value: value as i64,
            };
            let mut samples = vec![
                own(
                    "watchers",
                    "Open streams of watches and of lists",
                    watches.watchers,
                ),
                own("watch_loops", "Poll loops", watches.loops),
                own(
                    "watch_polls",
                    "Polls since the start",
                    watches.polls_total as usize,
                ),
            ];
            for upstream in engine.upstreams.all() {
                let stats = upstream.stats();
                let of = |name, help, value: u64| Sample {
                    name,
                    help,
                    upstream: Some(upstream.settings.name.clone()),
                    value: value as i64,
                };
                samples.extend([
                    of(
                        "upstream_in_flight",
                        "Calls at the upstream",
                        stats.in_flight as u64,
                    ),
                    of(
                        "upstream_queued",
                        "Calls waiting for a place",
                        stats.queued as u64,
                    ),
                    of(
                        "upstream_retries",
                        "Retries since the start",
                        stats.retries_total,
                    ),
                    of(
                        "upstream_breaker_open",
                        "1 while calls are refused",
                        stats.breaker_open.into(),
                    ),
                ]);
            }
            samples
        });
    }
}

impl Served {
    /// The response, with what goes into its metadata.
    fn response(&self, decoded: Decoded, headers: &HeaderMap) -> Response<Bytes> {
        let mut response = Response::new(decoded.message);
        let metadata = response.metadata_mut().as_mut();
        self.forward(headers, metadata);
        if let Some(paths) = answer::inexact(&decoded.notes) {
            metadata.insert(INEXACT, paths);
        }
        response
    }

    /// Copies what the upstream says of the request into response metadata.
    fn forward(&self, from: &HeaderMap, to: &mut HeaderMap) {
        for name in &self.forwarded {
            if let Some(value) = from.get(name) {
                to.insert(name.clone(), value.clone());
            }
        }
    }
}

/// What a stream tells.
enum Told {
    Watch(watch::WatchStream),
    Pages(PageStream),
    File(FileStream),
}

impl Stream for Told {
    type Item = Result<Bytes, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.get_mut() {
            Told::Watch(stream) => Pin::new(stream).poll_next(cx),
            Told::Pages(stream) => Pin::new(stream).poll_next(cx),
            Told::File(stream) => Pin::new(stream).poll_next(cx),
        }
    }
}

/// Refuses an operation that the upstream's dialect lacks.
fn offers(upstream: &Upstream, method: &Method) -> Result<(), Error> {
    let dialect = &upstream.settings.dialect;
    if !method.is_in(dialect) {
        return Err(Error::Unsupported {
            family: upstream.settings.family.as_str().into(),
            dialect: dialect.as_str().into(),
        });
    }
    Ok(())
}

/// Server reflection from the encoded descriptor sets, so that options survive.
fn reflection(contract: &Contract) -> tonic_reflection::server::Builder<'_> {
    let health = tonic_health::pb::FILE_DESCRIPTOR_SET;
    contract.descriptor_sets().iter().fold(
        tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(health),
        |builder, set| builder.register_encoded_file_descriptor_set(set),
    )
}

/// Runs `work` within the call's span, if it has one.
async fn traced<T>(span: Option<tracing::Span>, work: impl Future<Output = T>) -> T {
    match span {
        None => work.await,
        Some(span) => tracing::Instrument::instrument(work, span).await,
    }
}

/// What is kept of a call while it runs: for metrics, the log and traces. A call
/// whose caller has left is counted when this is dropped.
struct Record {
    served: Arc<Served>,
    caller: Caller,
    upstream: Option<Arc<Upstream>>,
    begun: Instant,
    span: Option<tracing::Span>,
    /// The answer is there, or its first message: it was timed.
    answered: bool,
    ended: bool,
}

/// A stream, whose record ends with it.
struct Recorded {
    told: Told,
    /// None: it has ended.
    record: Option<Record>,
}

impl Record {
    fn begin(served: &Arc<Served>, traces: bool, headers: &HeaderMap) -> Self {
        let mut caller = Caller::of(headers);
        if caller.request_id.is_none() {
            caller.request_id = Some(request_id(fastrand::u64(..)));
        }
        let span = traces.then(|| span(&served.method, &mut caller));
        served.nowhere.in_flight.inc();
        Self {
            served: served.clone(),
            caller,
            upstream: None,
            begun: Instant::now(),
            span,
            answered: false,
            ended: false,
        }
    }

    fn request_id(&self) -> &str {
        self.caller
            .request_id
            .as_ref()
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
    }

    fn upstream_name(&self) -> &str {
        self.upstream.as_ref().map_or("", |u| &u.settings.name)
    }

    fn metrics(&self) -> &RpcMetrics {
        let at = self.upstream.as_ref().and_then(|upstream| {
            let mut all = self.served.at.iter();
            all.find(|(at, _)| Arc::ptr_eq(at, upstream))
        });
        at.map_or(&self.served.nowhere, |(_, metrics)| metrics)
    }

    fn answer(&mut self) {
        if !std::mem::replace(&mut self.answered, true) {
            self.metrics().time(self.begun.elapsed());
            self.served.nowhere.in_flight.dec();
        }
    }

    fn end(&mut self, code: Code) {
        self.answer();
        self.ended = true;
        self.metrics().count(code);
        if let Some(span) = &self.span {
            span.record("rpc.grpc.status_code", code as i32);
            span.record("drawbridge.upstream", self.upstream_name());
        }
    }

    /// The stream, recorded to its end; it has its first message.
    fn stream(mut self, told: Told) -> Recorded {
        self.answer();
        // The rest of it, credentials among them, is the stream's affair.
        self.caller = Caller {
            request_id: self.caller.request_id.take(),
            ..Caller::default()
        };
        Recorded {
            told,
            record: Some(self),
        }
    }

    /// Counts and logs how a unary call ended.
    fn finish<T>(self, result: Result<T, Error>) -> Result<T, Status> {
        match result {
            Ok(value) => {
                self.succeed();
                Ok(value)
            }
            Err(error) => Err(self.fail(&error)),
        }
    }

    fn succeed(mut self) {
        self.end(Code::Ok);
        tracing::debug!(
            operation = &self.served.method.path[1..],
            upstream = self.upstream_name(),
            request_id = self.request_id(),
            elapsed_us = self.begun.elapsed().as_micros() as u64,
            "call answered"
        );
    }

    /// Counts and logs a failure, and makes its status.
    fn fail(mut self, error: &Error) -> Status {
        let operation = &self.served.method.path[1..];
        let (upstream, request_id) = (self.upstream_name(), self.request_id());
        let watch = self.served.method.watch.as_ref();
        let mut status = error.status(&error::Context {
            operation,
            upstream,
            request_id,
            begun: self.answered && watch.is_some_and(|watch| watch.start.is_some()),
        });
        if let Some(id) = &self.caller.request_id {
            let metadata = status.metadata_mut().as_mut();
            metadata.insert("x-request-id", id.clone());
        }
        let code = code_name(status.code());
        let elapsed_ms = self.begun.elapsed().as_millis() as u64;
        let reason = error.log_text();
        let ours = matches!(
            status.code(),
            Code::Internal | Code::Unknown | Code::Unavailable | Code::DataLoss
        );
        // A gateway that stops has ended its streams on purpose.
        if ours && !matches!(error, Error::Draining) {
            tracing::warn!(
                operation,
                upstream,
                request_id,
                code,
                elapsed_ms,
                reason,
                "call failed"
            );
        } else {
            tracing::info!(
                operation,
                upstream,
                request_id,
                code,
                elapsed_ms,
                reason,
                "call refused"
            );
        }
        self.end(status.code());
        status
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Code::Cancelled);
        }
    }
}

impl Stream for Recorded {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.record.is_none() {
            return Poll::Ready(None);
        }
        let event = std::task::ready!(Pin::new(&mut self.told).poll_next(cx));
        Poll::Ready(match event {
            Some(Ok(message)) => Some(Ok(message)),
            Some(Err(error)) => self.record.take().map(|record| Err(record.fail(&error))),
            None => {
                if let Some(record) = self.record.take() {
                    record.succeed();
                }
                None
            }
        })
    }
}

/// A request id: 16 hexadecimal digits.
fn request_id(id: u64) -> HeaderValue {
    let digits: [u8; 16] =
        std::array::from_fn(|i| b"0123456789abcdef"[(id >> (60 - 4 * i)) as usize & 15]);
    HeaderValue::from_bytes(&digits).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

/// A span below the caller's, of which the upstream's will be below.
fn span(method: &Method, caller: &mut Caller) -> tracing::Span {
    use tracing_opentelemetry::OpenTelemetrySpanExt;
    let span = tracing::info_span!(
        target: crate::telemetry::TRACE_TARGET,
        "rpc",
        otel.name = &method.path[1..],
        otel.kind = "server",
        rpc.system = "grpc",
        rpc.service = &*method.service,
        rpc.method = &*method.name,
        rpc.grpc.status_code = tracing::field::Empty,
        drawbridge.upstream = tracing::field::Empty,
    );
    opentelemetry::global::get_text_map_propagator(|propagator| {
        let _ = span.set_parent(propagator.extract(&Parent(caller)));
        propagator.inject_context(&span.context(), &mut Child(caller));
    });
    span
}

struct Parent<'a>(&'a Caller);

impl opentelemetry::propagation::Extractor for Parent<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => self.0.traceparent.as_ref()?.to_str().ok(),
            "tracestate" => self.0.tracestate.as_ref()?.to_str().ok(),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

struct Child<'a>(&'a mut Caller);

impl opentelemetry::propagation::Injector for Child<'_> {
    fn set(&mut self, key: &str, value: String) {
        let value = HeaderValue::try_from(value).ok().filter(|v| !v.is_empty());
        match key {
            "traceparent" => self.0.traceparent = value,
            "tracestate" => self.0.tracestate = value,
            _ => {}
        }
    }
}
