//! Serves one request: looks its method up by path, selects the upstream, calls the engine
//! or opens a watch, and records the result.

use std::collections::{BTreeMap, HashMap};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tonic::Status;
use tonic::body::Body;

use crate::config::Config;
use crate::deadline::{CutOff, Deadline};
use crate::downstream::{Downstream, Peer};
use crate::engine::call_context::CallContext;
use crate::engine::list_stream::{self, ListStream};
use crate::engine::name_lookup::NameLookup;
use crate::engine::unary::{self, UnaryResponse};
use crate::engine::{FileStream, Uploads};
use crate::error::{self, Error};
use crate::families::family;
use crate::memory::{DOWNLOAD_BYTES, Memory, MemoryBudget, STREAM_BYTES};
use crate::policy::Policy;
use crate::server::admission::Admission;
use crate::server::client_json::ClientJson;
use crate::server::client_limits::{ClientLimits, ClientSlot};
use crate::server::connection_end::{self, ConnectionEnd};
use crate::server::message_format::{Encoding, MessageFormat};
use crate::server::messages_body::MessagesBody;
use crate::server::request_body_timeout::{RequestTimeouts, TimeoutBody};
use crate::server::request_message::MessageReader;
use crate::server::response_metadata::{SANDBOX, add_inexact, grpc_response};
use crate::server::response_stream::ResponseStream;
use crate::server::response_write_timeout::{ResponseWriteTimeout, SlowReader};
use crate::server::served_method::ServedMethod;
use crate::server::stream_info::{StreamInfo, is_logged, traced};
use crate::server::visibility::Visibility;
use crate::telemetry::{
    AuditLine, AuditLog, FailedCall, FailedCalls, Metrics, RpcProtocol, code_name,
};
use crate::upstream::{Upstream, Upstreams};
use crate::watch::Watches;
use drawbridge_transcoder::contract::{Contract, LeftOut, Method};
use drawbridge_transcoder::json::Notes;

/// The methods of the contract, and the state that all calls share.
#[derive(Debug)]
pub struct Dispatcher {
    pub(super) methods: HashMap<Box<str>, Arc<ServedMethod>>,
    /// By gRPC path, the rpcs that are in a descriptor set and are not served.
    left_out: BTreeMap<Box<str>, LeftOut>,
    pub(super) upstreams: Upstreams,
    pub(super) watches: Watches,
    pub(super) names: Arc<NameLookup>,
    pub(super) metrics: Metrics,
    pub(super) failed_calls: FailedCalls,
    pub(super) uploads: Uploads,
    pub(super) write_timeout: ResponseWriteTimeout,
    pub(super) request_timeouts: RequestTimeouts,
    pub(super) max_request_bytes: usize,
    pub(super) default_deadline: Duration,
    pub(super) traces: bool,
    /// Whether the embedded upstreams are served.
    pub(super) sandbox: bool,
    /// The JSON of clients.
    pub(super) client_json: ClientJson,
    /// What all calls draw from.
    pub(super) memory: MemoryBudget,
    /// None if no client is limited.
    pub(super) client_limits: Option<Arc<ClientLimits>>,
    /// None without `[audit]`.
    pub(super) audit: Option<Arc<AuditLog>>,
}

/// The state of all dispatchers that a gateway has one after the other.
pub(super) struct SharedState {
    pub(super) watches: Watches,
    pub(super) metrics: Metrics,
    pub(super) failed_calls: FailedCalls,
    pub(super) names: Arc<NameLookup>,
    pub(super) memory: MemoryBudget,
    /// None if no client is limited. Others apply if the settings have changed.
    pub(super) client_limits: Option<Arc<ClientLimits>>,
    /// None without `[audit]`.
    pub(super) audit: Option<Arc<AuditLog>>,
    pub(super) traces: bool,
}

impl SharedState {
    /// Returns the state of the first dispatcher, which has no audit log. `traces` says whether
    /// spans are exported.
    pub(super) fn new(config: &Config, traces: bool) -> Self {
        Self {
            watches: Watches::new(config.watch.clone()),
            metrics: Metrics::default(),
            failed_calls: FailedCalls::default(),
            names: Arc::default(),
            memory: MemoryBudget::new(config.server.max_memory_bytes()),
            client_limits: ClientLimits::new(config.client_limits.clone()),
            audit: None,
            traces,
        }
    }
}

/// A call that its metadata admits, and whose messages are not read yet.
struct Admitted {
    info: StreamInfo,
    upstream: Arc<Upstream>,
    messages: MessageReader,
    format: MessageFormat,
}

impl Dispatcher {
    /// Builds the dispatcher of all methods, with the state of the one `before` a reload.
    pub(super) fn new(
        config: &Config,
        contract: &Contract,
        upstreams: Upstreams,
        shared: SharedState,
        before: Option<&Self>,
    ) -> Self {
        let SharedState {
            watches,
            metrics,
            failed_calls,
            names,
            memory,
            client_limits,
            audit,
            traces,
        } = shared;
        let same_limits = client_limits.filter(|limits| limits.has(&config.client_limits));
        let client_limits = same_limits.or_else(|| ClientLimits::new(config.client_limits.clone()));
        // Counters are looked up once.
        let counters = |path: &str, upstream: &str| {
            let served = before.and_then(|before| before.methods.get(path));
            let known = served.and_then(|served| served.metrics_of(upstream));
            known.unwrap_or_else(|| metrics.rpc(&path[1..], upstream))
        };
        let methods = contract
            .methods()
            .into_iter()
            .map(|method| {
                let family = family(&method.family);
                let served = ServedMethod {
                    method: method.clone(),
                    by_upstream: upstreams
                        .of(&method.family)
                        .map(|u| (u.clone(), counters(&method.path, &u.settings.name)))
                        .collect(),
                    unrouted: counters(&method.path, ""),
                    client_calls: metrics.client_calls.clone(),
                    failed_calls: failed_calls.clone(),
                    forwarded_headers: family
                        .request_id_headers
                        .iter()
                        .chain(&["warning"])
                        .filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
                        .collect(),
                };
                (method.path.clone(), Arc::new(served))
            })
            .collect();
        let sets = contract.descriptor_sets().iter();
        let sets = sets.map(|set| Bytes::copy_from_slice(set)).collect();
        Self {
            client_json: ClientJson::new(sets),
            methods,
            left_out: contract.left_out().clone(),
            upstreams,
            watches,
            names,
            metrics,
            failed_calls,
            uploads: Uploads::new(config.server.max_upload_bytes),
            write_timeout: ResponseWriteTimeout::new(
                config.server.response_write_timeout,
                config.server.min_response_bytes_per_sec,
            ),
            request_timeouts: RequestTimeouts {
                idle: config.server.request_body_idle_timeout,
                min_bytes_per_sec: config.server.min_request_bytes_per_sec,
                total: config.server.request_timeout,
            },
            max_request_bytes: config.server.max_request_bytes,
            default_deadline: config.server.default_deadline,
            traces,
            sandbox: config.sandbox,
            memory,
            client_limits,
            audit,
        }
    }

    /// Returns the state for the dispatcher after a reload.
    pub(super) fn shared_state(&self) -> SharedState {
        SharedState {
            watches: self.watches.clone(),
            metrics: self.metrics.clone(),
            failed_calls: self.failed_calls.clone(),
            names: self.names.clone(),
            memory: self.memory.clone(),
            client_limits: self.client_limits.clone(),
            audit: self.audit.clone(),
            traces: self.traces,
        }
    }

    /// Returns the method at a gRPC path.
    pub(super) fn method(&self, path: &str) -> Option<Arc<ServedMethod>> {
        self.methods.get(path).cloned()
    }

    /// Returns whether a client may use some rpc by this upstream.
    pub(super) fn may_use(&self, visibility: &Visibility, upstream: &str) -> bool {
        self.methods.iter().any(|(path, served)| {
            let mut upstreams = served.by_upstream.iter();
            upstreams.any(|(known, _)| known.settings.name == upstream)
                && visibility.method(path, Some(upstream))
        })
    }

    /// Marks the response of a gateway that serves the sandbox.
    pub(super) fn mark_sandbox(&self, mut response: http::Response<Body>) -> http::Response<Body> {
        if self.sandbox {
            let yes = HeaderValue::from_static("true");
            response.headers_mut().insert(SANDBOX, yes);
        }
        response
    }

    /// Records and logs a call of a client, known by this identity, that is rejected before its rpc
    /// is called, and returns its status.
    pub(super) fn reject(
        &self,
        message: &'static str,
        (operation, protocol, headers): (&str, RpcProtocol, &HeaderMap),
        identity: Option<&str>,
        error: &Error,
    ) -> Status {
        let mut client = Downstream::from_metadata(headers);
        client.identify();
        let request_id = client.request_id.as_ref();
        let request_id = request_id.and_then(|id| id.to_str().ok());
        if is_logged(message, error, false) {
            let (protocol, reason) = (protocol.name(), error.log_text());
            tracing::info!(
                operation,
                protocol,
                request_id,
                identity,
                reason,
                "{message}"
            );
        }
        let request_id = request_id.unwrap_or_default();
        if let Some(audit) = &self.audit {
            audit.write(&AuditLine {
                is_rejection: true,
                identity,
                operation,
                upstream: "",
                rest_call: None,
                code: code_name(error.code()),
                reason: &error.log_kind(),
                rule: None,
                request_id,
                upstream_request_id: None,
                elapsed: None,
            });
        }
        self.failed_calls.add(FailedCall {
            at: SystemTime::now(),
            code: code_name(error.code()),
            kind: error.log_kind(),
            operation: operation.into(),
            upstream: "".into(),
            request_id: request_id.into(),
            elapsed: None,
            count: 1,
        });
        let mut status = error.status(&error::StatusContext {
            operation,
            request_id,
            ..error::StatusContext::default()
        });
        if let Some(id) = client.request_id {
            status.metadata_mut().as_mut().insert("x-request-id", id);
        }
        status
    }

    /// Rejects a call of an rpc that is in a descriptor set and is not served; the status says
    /// why. None for a path that is in no descriptor set.
    pub(super) fn not_served(
        &self,
        path: &str,
        protocol: RpcProtocol,
        headers: &HeaderMap,
        identity: Option<&str>,
    ) -> Option<Status> {
        let left_out = self.left_out.get(path)?;
        let operation = &path[1..];
        let error = Error::NotServed(left_out.to_string().into());
        let call = (operation, protocol, headers);
        let status = self.reject("call failed: not served", call, identity, &error);
        self.metrics.rpc(operation, "").count(status.code());
        Some(status)
    }

    /// Counts a call, or a stream, of a client. Fails if it has reached a limit.
    pub(super) fn client_slot(
        &self,
        peer: &Peer,
        is_stream: bool,
    ) -> Result<Option<ClientSlot>, Error> {
        let limits = self.client_limits.as_ref();
        limits
            .map(|limits| limits.acquire(peer.key, is_stream))
            .transpose()
    }

    /// Reads the metadata of a request whose headers have just arrived, of a call by this protocol
    /// that counts for `call_bytes`.
    pub(super) fn admission(
        &self,
        headers: &HeaderMap,
        protocol: RpcProtocol,
        call_bytes: usize,
        memory: Memory,
    ) -> Result<Admission, Error> {
        let default = self.default_deadline;
        Admission::of(headers, protocol, default, call_bytes, memory)
    }

    /// Serves one request of a method, and records it from its headers on. Its messages are in
    /// this encoding.
    pub(super) async fn serve(
        &self,
        served: &Arc<ServedMethod>,
        request: http::Request<TimeoutBody>,
        (peer, policy): (Peer, Option<Arc<Policy>>),
        (admission, encoding): (Admission, Encoding),
    ) -> http::Response<Body> {
        let (parts, body) = request.into_parts();
        let mut info = StreamInfo::begin(served, self.traces, &parts.headers, peer, admission);
        info.policy = policy;
        info.audit_by(self.audit.as_ref());
        let upstream = match self.admit(&mut info, &parts.headers) {
            Ok(upstream) => upstream,
            // The body is dropped unread.
            Err(error) => return info.fail(&error).into_http(),
        };
        let is_compressed = info.is_compressed;
        let memory = info.client.memory.clone();
        let mut messages = MessageReader::new(
            body,
            self.max_request_bytes,
            is_compressed,
            memory,
            info.deadline,
        );
        let mut json = None;
        if encoding != Encoding::default() {
            if encoding.is_json {
                // Boxed, so that calls without JSON do not have its space.
                json = match Box::pin(self.client_json.rpc(&served.method.path)).await {
                    Ok(json) => Some(json),
                    Err(error) => return info.fail(&error).into_http(),
                };
            }
            messages = messages.in_format(encoding.is_bare, json.clone());
        }
        let call = Admitted {
            // Compressing costs more than most responses save: the client opts in by
            // compressing the request, as with other gRPC servers.
            format: MessageFormat::new(encoding, json, is_compressed),
            messages,
            info,
            upstream,
        };
        let memory = call.info.client.memory.clone();
        let upstream = call.upstream.clone();
        let handled = {
            let handled = pin!(self.handle(call, parts));
            until_cut_off(upstream.cut_off(), handled).await
        };
        // A call that has begun ends with its own error.
        let response = handled.unwrap_or_else(|| {
            let context = error::StatusContext::default();
            upstream.end().status(&context).into_http()
        });
        self.write_timeout.guard(response, memory)
    }

    /// Selects the upstream of a call. Fails where its dialect lacks the operation, or where
    /// the client's own credentials are missing or cannot be sent.
    fn admit(&self, info: &mut StreamInfo, headers: &HeaderMap) -> Result<Arc<Upstream>, Error> {
        info.check_method()?;
        let method = &info.served.method;
        let upstream = match self.upstreams.select(&method.family, headers) {
            Ok(upstream) => upstream.clone(),
            // The names of upstreams are for clients that may use them.
            Err(Error::UnknownUpstream(_)) if info.policy.is_some() => {
                return Err(info.unknown_upstream(headers));
            }
            Err(error) => return Err(error),
        };
        info.upstream = Some(upstream.clone());
        info.check_upstream()?;
        let method = &info.served.method;
        let dialect = &upstream.settings.dialect;
        if !method.is_in(dialect) {
            return Err(Error::Unsupported {
                family: upstream.settings.family.as_str().into(),
                dialect: dialect.as_str().into(),
            });
        }
        upstream.check_client(method.anonymous, &info.client)?;
        Ok(upstream)
    }

    async fn handle(&self, call: Admitted, parts: http::request::Parts) -> http::Response<Body> {
        if call.info.served.method.is_stream() {
            return self.stream(call, parts).await;
        }
        drop(parts);
        self.unary(call).await
    }

    /// Serves a unary call, or an upload.
    async fn unary(&self, mut call: Admitted) -> http::Response<Body> {
        let served = call.info.served.clone();
        let span = call.info.span.clone();
        let upstream = call.upstream.clone();
        let result = match served.method.upload {
            Some(_) => {
                let work = pin!(self.call_with_file(&mut call));
                traced(span, bound(&upstream, work)).await
            }
            None => {
                let work = pin!(self.call(&mut call));
                traced(span, bound(&upstream, work)).await
            }
        };
        let mut info = call.info;
        // Held until HTTP/2 has sent the message.
        let held = std::mem::take(&mut info.memory);
        let memory = &info.client.memory;
        let encoded = match result {
            Ok(mut response) => {
                let message = &mut response.decoded.message;
                let encoded = call.format.encode(message, memory, info.deadline).await;
                encoded.map(|is_compressed| (response, is_compressed))
            }
            Err(error) => Err(error),
        };
        let is_bare = call.format.is_bare;
        let result = encoded.and_then(|(response, is_compressed)| {
            served.response(response, is_bare, is_compressed, held)
        });
        info.finish(result)
            .unwrap_or_else(|status| status.into_http())
    }

    /// Looks up empty path fields and makes the call.
    async fn call(&self, call: &mut Admitted) -> Result<UnaryResponse, Error> {
        let raw = call.messages.only().await?;
        let (info, upstream) = (&call.info, &call.upstream);
        let method = &info.served.method;
        // A request that waits for its permit is neither decoded nor bound.
        let permit = upstream.permit(&info.client, info.deadline).await?;
        let request = raw.decode(info.deadline).await?;
        info.check_request(&request)?;
        let context = CallContext {
            upstream,
            client: &info.client,
            deadline: info.deadline,
            permit: Some(&permit),
            retry_after: None,
        };
        let mut resolved = self.names.resolve(context, method, &request).await?;
        loop {
            info.check_found(&resolved.request)?;
            let result = unary::call(context, method, &resolved.request).await;
            if !resolved.retry(result.as_ref().err()).await? {
                return result;
            }
        }
    }

    /// Collects the file and makes the call that sends it.
    async fn call_with_file(&self, call: &mut Admitted) -> Result<UnaryResponse, Error> {
        let (info, upstream) = (&call.info, &call.upstream);
        let method = &info.served.method;
        let Some(upload) = &method.upload else {
            return Err(Error::Malformed(format!(
                "{} is not an upload",
                method.path
            )));
        };
        let dialect = &upstream.settings.dialect;
        let received = (self.uploads).receive(
            (method, upload, dialect),
            (&info.client.memory, info.deadline),
            &mut call.messages,
            |first| info.check_request(first),
        );
        let file = received.await?;
        let context = CallContext {
            upstream,
            client: &info.client,
            deadline: info.deadline,
            permit: None,
            retry_after: None,
        };
        let reply = context.call(method, &file).await?;
        Ok(UnaryResponse {
            decoded: context
                .decode(method, (&file.verb, file.effect()), &reply)
                .await?,
            headers: reply.headers,
        })
    }

    /// Serves a server-streaming call up to its first message.
    async fn stream(
        &self,
        mut call: Admitted,
        parts: http::request::Parts,
    ) -> http::Response<Body> {
        let end = || ConnectionEnd::of(&parts.extensions);
        let served = call.info.served.clone();
        let method = &served.method;
        // The call that a watch begins with is not interrupted, nor a download.
        let starts = method.watch.as_ref().is_some_and(|w| w.start.is_some());
        let upstream = call.upstream.clone();
        let is_interruptible = !starts && method.download.is_none();
        let result = {
            let opened = pin!(self.open(&mut call, &parts.headers));
            tokio::select! {
                biased;
                result = bound(&upstream, opened) => result,
                () = connection_end::reached(end()), if is_interruptible => Err(Error::ConnectionTooOld),
            }
        };
        let (mut info, format) = (call.info, call.format);
        let stream = match result.and_then(|stream| {
            let buffers = match &stream {
                ResponseStream::File(_) => DOWNLOAD_BYTES,
                ResponseStream::List(_) | ResponseStream::Watch(_) => 0,
            };
            // The stream has a copy of the client's credentials.
            let client = info.client.metadata_bytes();
            (info.memory).resize(STREAM_BYTES + buffers + client)?;
            Ok(stream)
        }) {
            Ok(stream) => stream,
            Err(error) => return info.fail(&error).into_http(),
        };
        let notes = match &stream {
            ResponseStream::List(stream) => stream.notes().clone(),
            ResponseStream::Watch(_) | ResponseStream::File(_) => Notes::default(),
        };
        let slow_reader = SlowReader::default();
        // A file is finite, as a unary response is.
        let end = match &stream {
            ResponseStream::Watch(_) | ResponseStream::List(_) => end(),
            ResponseStream::File(_) => None,
        };
        let memory = info.client.memory.clone();
        let cut_off = upstream.cut_off().clone();
        let stream = info.stream(stream, slow_reader.clone(), end, cut_off);
        let may_compress = format.may_compress();
        let body = Body::new(MessagesBody::new(stream, format, memory));
        let mut response = grpc_response(body, may_compress);
        response.extensions_mut().insert(slow_reader);
        add_inexact(&notes, response.headers_mut());
        response
    }

    /// Looks up empty path fields and opens the stream.
    async fn open(
        &self,
        call: &mut Admitted,
        headers: &HeaderMap,
    ) -> Result<ResponseStream, Error> {
        let raw = call.messages.only().await?;
        let (info, upstream) = (&call.info, &call.upstream);
        let request = raw.decode(info.deadline).await?;
        info.check_request(&request)?;
        let method = &info.served.method;
        let opening_deadline = info.deadline;
        // The default deadline is for what precedes a stream: the name lookup, and the
        // call that a watch begins with.
        let deadline = headers
            .contains_key("grpc-timeout")
            .then_some(opening_deadline);
        let context = CallContext {
            upstream,
            client: &info.client,
            deadline: opening_deadline,
            permit: None,
            retry_after: None,
        };
        let mut resolved = self.names.resolve(context, method, &request).await?;
        loop {
            info.check_found(&resolved.request)?;
            let result = (self.open_resolved(context, method, deadline, &resolved.request)).await;
            if !resolved.retry(result.as_ref().err()).await? {
                return result;
            }
        }
    }

    /// Opens a download, a list stream or a watch.
    async fn open_resolved(
        &self,
        context: CallContext<'_>,
        method: &Arc<Method>,
        deadline: Option<Deadline>,
        request: &Bytes,
    ) -> Result<ResponseStream, Error> {
        if method.download.is_some() {
            let limiter = self.watches.streams();
            let file = FileStream::open(context, method, request, deadline, limiter);
            return file.await.map(ResponseStream::File);
        }
        if method.pages.is_none() {
            let watches = &self.watches;
            let request = request.clone();
            let watch = watches.watch(method, request, context, deadline);
            return watch.await.map(ResponseStream::Watch);
        }
        let settings = list_stream::Settings {
            method: method.clone(),
            context: context.to_stream(),
            deadline,
            page_timeout: self.default_deadline,
            limiter: self.watches.streams().clone(),
        };
        let stream = ListStream::open(settings, request);
        stream.await.map(ResponseStream::List)
    }
}

/// Runs `work`, which is polled once more after a cut-off; None if that does not complete it.
async fn until_cut_off<T>(
    cut_off: &CutOff,
    mut work: Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    tokio::select! {
        biased;
        done = &mut work => Some(done),
        () = cut_off.begun() => cut_off.bound(work).await,
    }
}

/// Runs the work of a call, which ends itself after a cut-off where it waits for an upstream.
async fn bound<T>(
    upstream: &Upstream,
    work: Pin<&mut impl Future<Output = Result<T, Error>>>,
) -> Result<T, Error> {
    let done = upstream.cut_off().bound(work).await;
    done.unwrap_or_else(|| Err(upstream.end()))
}
