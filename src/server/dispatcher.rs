//! Serves one request: looks its method up by path, selects the upstream, calls the engine
//! or opens a watch, and records the result.

use std::collections::{BTreeMap, HashMap};
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::server::Grpc;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::config::Config;
use crate::deadline::Deadline;
use crate::downstream::{Downstream, Peer};
use crate::engine::call_context::CallContext;
use crate::engine::list_stream::{self, ListStream};
use crate::engine::name_lookup::NameLookup;
use crate::engine::unary::{self, UnaryResponse};
use crate::engine::{FileStream, Uploads};
use crate::error::{self, Error};
use crate::families::family;
use crate::server::codec::WireCodec;
use crate::server::connection_end::{self, ConnectionEnd};
use crate::server::request_body_timeout::{RequestTimeouts, TimeoutBody};
use crate::server::response_metadata::{SANDBOX, add_inexact};
use crate::server::response_stream::ResponseStream;
use crate::server::response_write_timeout::{ResponseWriteTimeout, SlowReader};
use crate::server::served_method::ServedMethod;
use crate::server::stream_info::{InstrumentedStream, StreamInfo, is_logged, traced};
use crate::server::unary_body::UnaryBody;
use crate::telemetry::{FailedCall, FailedCalls, Metrics, code_name};
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
    pub(super) names: NameLookup,
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
}

impl Dispatcher {
    /// Builds the dispatcher of all methods.
    pub(super) fn new(
        config: &Config,
        traces: bool,
        contract: &Contract,
        upstreams: Upstreams,
        watches: Watches,
        metrics: Metrics,
    ) -> Self {
        let failed_calls = FailedCalls::default();
        let methods = contract
            .methods()
            .into_iter()
            .map(|method| {
                let operation = &method.path[1..];
                let family = family(&method.family);
                let served = ServedMethod {
                    method: method.clone(),
                    by_upstream: upstreams
                        .of(&method.family)
                        .map(|u| (u.clone(), metrics.rpc(operation, &u.settings.name)))
                        .collect(),
                    unrouted: metrics.rpc(operation, ""),
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
        Self {
            methods,
            left_out: contract.left_out().clone(),
            upstreams,
            watches,
            names: NameLookup::default(),
            metrics,
            failed_calls,
            uploads: Uploads::new(
                config.server.max_upload_bytes,
                config.server.max_request_bytes,
            ),
            write_timeout: ResponseWriteTimeout::new(config.server.response_write_timeout),
            request_timeouts: RequestTimeouts {
                idle: config.server.request_body_idle_timeout,
                min_bytes_per_sec: config.server.min_request_bytes_per_sec,
                total: config.server.request_timeout,
            },
            max_request_bytes: config.server.max_request_bytes,
            default_deadline: config.server.default_deadline,
            traces,
            sandbox: config.sandbox,
        }
    }

    /// Returns the method at a gRPC path.
    pub(super) fn method(&self, path: &str) -> Option<Arc<ServedMethod>> {
        self.methods.get(path).cloned()
    }

    /// Marks the response of a gateway that serves the sandbox.
    pub(super) fn mark_sandbox(&self, mut response: http::Response<Body>) -> http::Response<Body> {
        if self.sandbox {
            let yes = HeaderValue::from_static("true");
            response.headers_mut().insert(SANDBOX, yes);
        }
        response
    }

    /// Counts and logs a request that is not authenticated, and returns its status.
    pub(super) fn reject(&self, path: &str, headers: &HeaderMap, error: &Error) -> Status {
        let mut client = Downstream::from_metadata(headers);
        client.identify();
        let request_id = client.request_id.as_ref();
        let request_id = request_id
            .and_then(|id| id.to_str().ok())
            .unwrap_or_default();
        // A path that is not in the contract could be any text: it is not logged.
        let operation = match self.methods.get(path) {
            Some(_) => &path[1..],
            None => "",
        };
        let message = "request rejected: unauthenticated";
        if is_logged(message, error, false) {
            tracing::info!(
                operation,
                request_id,
                reason = error.log_text(),
                "{message}"
            );
        }
        self.metrics.unauthenticated.inc();
        self.record_rejection(operation, request_id, error);
        let mut status = error.status(&error::StatusContext {
            operation,
            upstream: "",
            request_id,
            start_succeeded: false,
        });
        if let Some(id) = client.request_id {
            status.metadata_mut().as_mut().insert("x-request-id", id);
        }
        status
    }

    /// Counts and logs a call of an rpc that is in a descriptor set and is not served, and
    /// returns its status, which says why. None for a path that is in no descriptor set.
    pub(super) fn not_served(&self, path: &str, headers: &HeaderMap) -> Option<Status> {
        let left_out = self.left_out.get(path)?;
        let operation = &path[1..];
        let mut client = Downstream::from_metadata(headers);
        client.identify();
        let request_id = client.request_id.as_ref();
        let request_id = request_id.and_then(|id| id.to_str().ok());
        let error = Error::NotServed(left_out.to_string().into());
        let mut status = error.status(&error::StatusContext {
            operation,
            request_id: request_id.unwrap_or_default(),
            ..error::StatusContext::default()
        });
        self.metrics.rpc(operation, "").count(status.code());
        self.record_rejection(operation, request_id.unwrap_or_default(), &error);
        let reason = error.log_text();
        let message = "call failed: not served";
        if is_logged(message, &error, false) {
            tracing::info!(operation, request_id, reason, "{message}");
        }
        if let Some(id) = client.request_id {
            status.metadata_mut().as_mut().insert("x-request-id", id);
        }
        Some(status)
    }

    /// Keeps a request that was rejected before an rpc was called.
    pub(super) fn record_rejection(&self, operation: &str, request_id: &str, error: &Error) {
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
    }

    /// Returns the deadline of a request whose headers have just arrived.
    pub(super) fn deadline(&self, headers: &HeaderMap) -> Deadline {
        Deadline::from_metadata(headers, self.default_deadline)
    }

    /// Serves one request of a method, and records it from its headers on.
    pub(super) async fn serve(
        &self,
        served: &Arc<ServedMethod>,
        request: http::Request<TimeoutBody>,
        peer: Peer,
        deadline: Deadline,
    ) -> http::Response<Body> {
        // Taken when tonic calls the handler: not for a request that it rejects itself.
        let mut pending = Some(StreamInfo::begin(
            served,
            self.traces,
            request.headers(),
            peer,
            deadline,
        ));
        let handled = {
            let handled = pin!(self.handle(served, request, &mut pending));
            self.until_cut_off(handled).await
        };
        let mut response = match handled {
            Some(response) => response,
            // The request has not arrived: a call that has begun ends with its own error.
            None => match pending.take() {
                Some(info) => info.fail(&Error::Draining),
                None => Error::Draining.status(&error::StatusContext::default()),
            }
            .into_http(),
        };
        if let Some(info) = pending
            && let Some(status) = Status::from_header_map(response.headers())
        {
            let error = Error::request_not_received(&status, self.max_request_bytes);
            // Keeps tonic's other metadata: the encodings that it accepts.
            let _ = info.fail(&error).add_header(response.headers_mut());
        }
        self.write_timeout.guard(response)
    }

    /// Runs `work`, which is polled once more after a cut-off; None if that does not complete
    /// it.
    async fn until_cut_off<T>(&self, mut work: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        let cut_off = self.upstreams.cut_off();
        tokio::select! {
            biased;
            done = &mut work => Some(done),
            () = cut_off.begun() => cut_off.bound(work).await,
        }
    }

    /// Runs the work of a call, which ends itself after a cut-off where it waits for an
    /// upstream.
    async fn bound<T>(
        &self,
        work: Pin<&mut impl Future<Output = Result<T, Error>>>,
    ) -> Result<T, Error> {
        let done = self.upstreams.cut_off().bound(work).await;
        done.unwrap_or(Err(Error::Draining))
    }

    /// Reads the request message and calls the handler of its kind.
    async fn handle(
        &self,
        served: &Arc<ServedMethod>,
        request: http::Request<TimeoutBody>,
        pending: &mut Option<StreamInfo>,
    ) -> http::Response<Body> {
        let stream = served.method.is_stream();
        let codec = if stream {
            WireCodec::stream()
        } else {
            WireCodec::unary()
        };
        let mut grpc = Grpc::new(codec)
            .max_decoding_message_size(self.max_request_bytes)
            .accept_compressed(CompressionEncoding::Gzip);
        // Compressing costs more than most responses save: the client opts in by
        // compressing the request, as with other gRPC servers.
        let encoding = request.headers().get("grpc-encoding");
        let compressed = encoding.map(HeaderValue::as_bytes) == Some(b"gzip");
        if compressed {
            grpc = grpc.send_compressed(CompressionEncoding::Gzip);
        }
        if stream {
            return grpc
                .server_streaming(
                    tower::service_fn(|r| self.stream(take_info(pending), r)),
                    request,
                )
                .await;
        }
        if served.method.upload.is_some() {
            return grpc
                .client_streaming(
                    tower::service_fn(|r| self.upload(take_info(pending), r)),
                    request,
                )
                .await;
        }
        // An uncompressed response bypasses tonic, which would copy it.
        let body = OnceLock::new();
        let bypass = (!compressed).then_some(&body);
        let response = grpc
            .unary(
                tower::service_fn(|r| self.unary(take_info(pending), r, bypass)),
                request,
            )
            .await;
        match body.into_inner() {
            Some(body) => response.map(|_| Body::new(body)),
            None => response,
        }
    }

    /// Serves a unary call. If there is a `bypass`, the message is stored there and the
    /// returned one is empty.
    async fn unary(
        &self,
        info: Result<StreamInfo, Status>,
        request: Request<Bytes>,
        bypass: Option<&OnceLock<UnaryBody>>,
    ) -> Result<Response<Bytes>, Status> {
        let mut info = info?;
        let served = info.served.clone();
        let headers = request.metadata().as_ref();
        let span = info.span.clone();
        let result = {
            let work = pin!(self.call(&mut info, headers, request.get_ref()));
            traced(span, self.bound(work)).await
        };
        let mut response = served.response(info.finish(result)?);
        if let Some(bypass) = bypass
            && let Some(body) = UnaryBody::new(response.get_ref().clone())
            && bypass.set(body).is_ok()
        {
            *response.get_mut() = Bytes::new();
        }
        Ok(response)
    }

    /// Looks up empty path fields and makes the call.
    async fn call(
        &self,
        info: &mut StreamInfo,
        headers: &HeaderMap,
        request: &Bytes,
    ) -> Result<UnaryResponse, Error> {
        let served = info.served.clone();
        let method = &served.method;
        let deadline = info.deadline;
        let upstream = self.select_upstream(info, headers)?;
        let context = CallContext {
            upstream,
            client: &info.client,
            deadline,
            retry_after: None,
        };
        let mut resolved = self.names.resolve(context, method, request).await?;
        loop {
            let result = unary::call(context, method, &resolved.request).await;
            if !resolved.retry(result.as_ref().err()).await? {
                return result;
            }
        }
    }

    /// Selects the upstream of a call. Fails where its dialect lacks the operation.
    fn select_upstream(
        &self,
        info: &mut StreamInfo,
        headers: &HeaderMap,
    ) -> Result<&Arc<Upstream>, Error> {
        let method = &info.served.method;
        let upstream = self.upstreams.select(&method.family, headers)?;
        info.upstream = Some(upstream.clone());
        let dialect = &upstream.settings.dialect;
        if !method.is_in(dialect) {
            return Err(Error::Unsupported {
                family: upstream.settings.family.as_str().into(),
                dialect: dialect.as_str().into(),
            });
        }
        Ok(upstream)
    }

    /// Serves an upload.
    async fn upload(
        &self,
        info: Result<StreamInfo, Status>,
        request: Request<Streaming<Bytes>>,
    ) -> Result<Response<Bytes>, Status> {
        let mut info = info?;
        let served = info.served.clone();
        let (metadata, _, mut messages) = request.into_parts();
        let headers = metadata.into_headers();
        let span = info.span.clone();
        let result = {
            let work = pin!(self.call_with_file(&mut info, &headers, &mut messages));
            traced(span, self.bound(work)).await
        };
        Ok(served.response(info.finish(result)?))
    }

    /// Collects the file and makes the call that sends it.
    async fn call_with_file(
        &self,
        info: &mut StreamInfo,
        headers: &HeaderMap,
        messages: &mut Streaming<Bytes>,
    ) -> Result<UnaryResponse, Error> {
        let served = info.served.clone();
        let method = &served.method;
        let Some(upload) = &method.upload else {
            return Err(Error::Malformed(format!(
                "{} is not an upload",
                method.path
            )));
        };
        let deadline = info.deadline;
        let upstream = self.select_upstream(info, headers)?;
        let dialect = &upstream.settings.dialect;
        let file = (self.uploads.receive(method, upload, dialect, messages)).await?;
        let context = CallContext {
            upstream,
            client: &info.client,
            deadline,
            retry_after: None,
        };
        let reply = context.call(method, &file.call).await?;
        Ok(UnaryResponse {
            decoded: context.decode(method, (&file.call.verb, file.call.effect()), &reply)?,
            headers: reply.headers,
            buffer_permit: reply.buffer_permit,
        })
    }

    /// Serves a server-streaming call up to its first message.
    async fn stream(
        &self,
        info: Result<StreamInfo, Status>,
        request: Request<Bytes>,
    ) -> Result<Response<InstrumentedStream>, Status> {
        let mut info = info?;
        let headers = request.metadata().as_ref();
        let end = || ConnectionEnd::of(request.extensions());
        let served = info.served.clone();
        let method = &served.method;
        // The call that a watch begins with is not interrupted, nor a download.
        let starts = method.watch.as_ref().is_some_and(|w| w.start.is_some());
        let is_interruptible = !starts && method.download.is_none();
        let result = {
            let opened = pin!(self.open(&mut info, headers, request.get_ref()));
            tokio::select! {
                biased;
                result = self.bound(opened) => result,
                () = connection_end::reached(end()), if is_interruptible => Err(Error::ConnectionTooOld),
            }
        };
        let stream = match result {
            Ok(stream) => stream,
            Err(error) => return Err(info.fail(&error)),
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
        let mut response = Response::new(info.stream(
            stream,
            slow_reader.clone(),
            end,
            self.upstreams.cut_off().clone(),
        ));
        response.extensions_mut().insert(slow_reader);
        add_inexact(&notes, response.metadata_mut().as_mut());
        Ok(response)
    }

    /// Looks up empty path fields and opens the stream.
    async fn open(
        &self,
        info: &mut StreamInfo,
        headers: &HeaderMap,
        request: &Bytes,
    ) -> Result<ResponseStream, Error> {
        let served = info.served.clone();
        let method = &served.method;
        let opening_deadline = info.deadline;
        // The default deadline is for what precedes a stream: the name lookup, and the
        // call that a watch begins with.
        let deadline = headers
            .contains_key("grpc-timeout")
            .then_some(opening_deadline);
        let upstream = self.select_upstream(info, headers)?;
        let context = CallContext {
            upstream,
            client: &info.client,
            deadline: opening_deadline,
            retry_after: None,
        };
        let mut resolved = self.names.resolve(context, method, request).await?;
        loop {
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

/// Takes the stream info when tonic calls the handler, which it does once, when the request
/// message (of an upload, its headers) has arrived.
fn take_info(pending: &mut Option<StreamInfo>) -> Result<StreamInfo, Status> {
    pending.take().ok_or_else(|| {
        let error = Error::RequestNotReceived {
            code: Code::Internal,
            problem: "the request has more than one message".to_owned(),
        };
        error.status(&error::StatusContext::default())
    })
}
