//! Serves one request: looks its method up by path, picks the upstream, calls the engine
//! or opens a watch, and records the result. `router` admits requests, `gateway` builds
//! the dispatcher.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::server::Grpc;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::config::Config;
use crate::deadline::Deadline;
use crate::engine::call_context::CallContext;
use crate::engine::list_stream::{self, ListStream};
use crate::engine::name_lookup::NameLookup;
use crate::engine::unary::{self, UnaryResponse};
use crate::engine::{FileStream, Uploads};
use crate::error::{self, Error};
use crate::families::family;
use crate::server::codec::WireCodec;
use crate::server::request_body_timeout::{RequestTimeouts, TimeoutBody};
use crate::server::response_stream::ResponseStream;
use crate::server::response_write_timeout::{ResponseWriteTimeout, SlowReader};
use crate::server::served_method::{INEXACT, ServedMethod};
use crate::server::stream_info::{InstrumentedStream, StreamInfo, traced};
use crate::server::unary_response::{self, Answer};
use crate::telemetry::Metrics;
use crate::upstream::{Upstream, Upstreams};
use crate::watch::Watches;
use drawbridge_transcoder::contract::Contract;
use drawbridge_transcoder::contract::Method;

/// Response metadata of the sandbox: nothing real was called.
const SANDBOX: HeaderName = HeaderName::from_static("drawbridge-sandbox");

/// Looks rpcs up and carries them out.
#[derive(Debug)]
pub struct Dispatcher {
    pub(super) methods: HashMap<Box<str>, Arc<ServedMethod>>,
    pub(super) upstreams: Upstreams,
    pub(super) watches: Watches,
    pub(super) names: NameLookup,
    pub(super) metrics: Metrics,
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
    /// Makes the tables of methods and the parts that calls share.
    pub(super) fn new(
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
                let family = family(&method.family);
                let served = ServedMethod {
                    method: method.clone(),
                    at: upstreams
                        .of(&method.family)
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
            names: NameLookup::default(),
            metrics,
            uploads: Uploads::new(config.server.max_upload_bytes),
            write_timeout: ResponseWriteTimeout::new(config.server.response_write_timeout),
            request_timeouts: RequestTimeouts {
                idle: config.server.request_body_idle_timeout,
                total: config.server.request_timeout,
            },
            max_request_bytes: config.server.max_request_bytes,
            default_deadline: config.server.default_deadline,
            traces,
            sandbox: config.sandbox,
        }
    }

    /// The method at this gRPC path.
    pub(super) fn served(&self, path: &str) -> Option<Arc<ServedMethod>> {
        self.methods.get(path).cloned()
    }

    /// Adds to a response that it comes from the sandbox, if it does.
    pub(super) fn announce(&self, mut response: http::Response<Body>) -> http::Response<Body> {
        if self.sandbox {
            let yes = HeaderValue::from_static("true");
            response.headers_mut().insert(SANDBOX, yes);
        }
        response
    }

    /// The status of a call that was refused at the door.
    pub(super) fn refuse(&self, path: &str, error: &Error) -> Status {
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
        self.metrics.unauthenticated.inc();
        error.status(&error::StatusContext {
            operation,
            upstream: "",
            request_id: "",
            action_started: false,
        })
    }

    /// The deadline of a request whose headers have just come.
    pub(super) fn deadline(&self, headers: &HeaderMap) -> Deadline {
        Deadline::from_metadata(headers, self.default_deadline)
    }

    /// Serves one request of a method.
    pub(super) async fn serve(
        &self,
        served: &Arc<ServedMethod>,
        request: http::Request<TimeoutBody>,
        deadline: Deadline,
    ) -> http::Response<Body> {
        // It is taken when the message has come.
        let mut arriving = Some(StreamInfo::begin(
            served,
            self.traces,
            request.headers(),
            deadline,
        ));
        let mut response = self.answer(served, request, &mut arriving).await;
        if let Some(record) = arriving
            && let Some(status) = Status::from_header_map(response.headers())
        {
            let error = Error::RequestNotReceived {
                code: status.code(),
                problem: status.message().to_owned(),
            };
            // What else tonic says, of encodings that it takes, stays.
            let _ = record.fail(&error).add_header(response.headers_mut());
        }
        self.write_timeout.guard(response)
    }

    /// Reads the message, and has it answered.
    pub(super) async fn answer(
        &self,
        served: &Arc<ServedMethod>,
        request: http::Request<TimeoutBody>,
        arriving: &mut Option<StreamInfo>,
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
        // Compressing costs more than most answers: the caller chooses it by
        // compressing the request, as gRPC servers commonly do.
        let encoding = request.headers().get("grpc-encoding");
        let compressed = encoding.map(HeaderValue::as_bytes) == Some(b"gzip");
        if compressed {
            grpc = grpc.send_compressed(CompressionEncoding::Gzip);
        }
        if stream {
            return grpc
                .server_streaming(
                    tower::service_fn(|r| self.stream(once(arriving), r)),
                    request,
                )
                .await;
        }
        if served.method.upload.is_some() {
            return grpc
                .client_streaming(
                    tower::service_fn(|r| self.upload(once(arriving), r)),
                    request,
                )
                .await;
        }
        // Set aside where it goes out as it is; tonic would copy it.
        let answer = OnceLock::new();
        let aside = (!compressed).then_some(&answer);
        let response = grpc
            .unary(
                tower::service_fn(|r| self.unary(once(arriving), r, aside)),
                request,
            )
            .await;
        match answer.into_inner() {
            Some(answer) => response.map(|_| Body::new(answer)),
            None => response,
        }
    }

    pub(super) async fn unary(
        &self,
        record: Result<StreamInfo, Status>,
        request: Request<Bytes>,
        aside: Option<&OnceLock<Answer>>,
    ) -> Result<Response<Bytes>, Status> {
        let mut record = record?;
        let served = record.served.clone();
        let headers = request.metadata().as_ref();
        let span = record.span.clone();
        let work = self.call(&mut record, headers, request.get_ref());
        let result = traced(span, work).await;
        let mut response = served.response(record.finish(result)?);
        if let Some(aside) = aside
            && let Some(answer) = Answer::new(response.get_ref().clone())
            && aside.set(answer).is_ok()
        {
            *response.get_mut() = Bytes::new();
        }
        Ok(response)
    }

    /// The way of a unary call.
    pub(super) async fn call(
        &self,
        record: &mut StreamInfo,
        headers: &HeaderMap,
        request: &Bytes,
    ) -> Result<UnaryResponse, Error> {
        let served = record.served.clone();
        let method = &served.method;
        let deadline = record.deadline;
        let upstream = self.pick(record, headers)?;
        let context = CallContext {
            upstream,
            client: &record.caller,
            deadline,
        };
        let mut resolved = self.names.resolve(context, method, request).await?;
        loop {
            let result = unary::call(context, method, &resolved.request).await;
            if !resolved.retry(result.as_ref().err()).await? {
                return result;
            }
        }
    }

    /// The upstream of a call, whose dialect has the operation.
    pub(super) fn pick(
        &self,
        record: &mut StreamInfo,
        headers: &HeaderMap,
    ) -> Result<&Arc<Upstream>, Error> {
        let method = &record.served.method;
        let upstream = self.upstreams.select(&method.family, headers)?;
        record.upstream = Some(upstream.clone());
        let dialect = &upstream.settings.dialect;
        if !method.is_in(dialect) {
            return Err(Error::Unsupported {
                family: upstream.settings.family.as_str().into(),
                dialect: dialect.as_str().into(),
            });
        }
        Ok(upstream)
    }

    /// Takes a file, and sends it on.
    pub(super) async fn upload(
        &self,
        record: Result<StreamInfo, Status>,
        request: Request<Streaming<Bytes>>,
    ) -> Result<Response<Bytes>, Status> {
        let mut record = record?;
        let served = record.served.clone();
        let (metadata, _, mut messages) = request.into_parts();
        let headers = metadata.into_headers();
        let span = record.span.clone();
        let work = self.send_on(&mut record, &headers, &mut messages);
        let result = traced(span, work).await;
        Ok(served.response(record.finish(result)?))
    }

    /// The way of a file.
    pub(super) async fn send_on(
        &self,
        record: &mut StreamInfo,
        headers: &HeaderMap,
        messages: &mut Streaming<Bytes>,
    ) -> Result<UnaryResponse, Error> {
        let served = record.served.clone();
        let method = &served.method;
        let Some(upload) = &method.upload else {
            return Err(Error::Malformed(format!("{} is no upload", method.path)));
        };
        let deadline = record.deadline;
        let upstream = self.pick(record, headers)?;
        let dialect = &upstream.settings.dialect;
        let received = (self.uploads.receive(method, upload, dialect, messages)).await?;
        let context = CallContext {
            upstream,
            client: &record.caller,
            deadline,
        };
        let reply = context.call(method, &received.call).await?;
        Ok(UnaryResponse {
            decoded: method.decode(&reply)?,
            headers: reply.headers,
            room: reply.room,
        })
    }

    pub(super) async fn stream(
        &self,
        record: Result<StreamInfo, Status>,
        request: Request<Bytes>,
    ) -> Result<Response<InstrumentedStream>, Status> {
        let mut record = record?;
        let headers = request.metadata().as_ref();
        let result = self.open(&mut record, headers, request.get_ref()).await;
        let told = match result {
            Ok(told) => told,
            Err(error) => return Err(record.fail(&error)),
        };
        let inexact = match &told {
            ResponseStream::Pages(stream) => unary_response::inexact(stream.notes()),
            ResponseStream::Watch(_) | ResponseStream::File(_) => None,
        };
        let untaken = SlowReader::default();
        let mut response = Response::new(record.stream(told, untaken.clone()));
        response.extensions_mut().insert(untaken);
        if let Some(paths) = inexact {
            let metadata = response.metadata_mut().as_mut();
            metadata.insert(INEXACT, paths);
        }
        Ok(response)
    }

    /// The way of a stream, up to its first message.
    pub(super) async fn open(
        &self,
        record: &mut StreamInfo,
        headers: &HeaderMap,
        request: &Bytes,
    ) -> Result<ResponseStream, Error> {
        let served = record.served.clone();
        let method = &served.method;
        let call_by = record.deadline;
        let deadline = headers.contains_key("grpc-timeout").then_some(call_by);
        let upstream = self.pick(record, headers)?;
        let context = CallContext {
            upstream,
            client: &record.caller,
            deadline: call_by,
        };
        let mut resolved = self.names.resolve(context, method, request).await?;
        loop {
            let result = (self.begin(context, method, deadline, &resolved.request)).await;
            if !resolved.retry(result.as_ref().err()).await? {
                return result;
            }
        }
    }

    /// Begins a stream whose request has all it needs.
    pub(super) async fn begin(
        &self,
        context: CallContext<'_>,
        method: &Arc<Method>,
        deadline: Option<Deadline>,
        request: &Bytes,
    ) -> Result<ResponseStream, Error> {
        if method.download.is_some() {
            let file = FileStream::open(context, method, request, deadline);
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
        ListStream::open(settings, request)
            .await
            .map(ResponseStream::Pages)
    }
}

/// The record for the one call that tonic makes when the message has come.
fn once(arriving: &mut Option<StreamInfo>) -> Result<StreamInfo, Status> {
    let record = arriving.take();
    record.ok_or_else(|| {
        let error = Error::RequestNotReceived {
            code: Code::Internal,
            problem: "the request has more than one message".to_owned(),
        };
        error.status(&error::StatusContext::default())
    })
}
