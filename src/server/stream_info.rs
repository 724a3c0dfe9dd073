//! Records a call while it runs, for metrics, the access log and traces.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::HeaderMap;
use tokio_stream::Stream;
use tonic::{Code, Status};

use crate::deadline::{CutOff, Deadline};
use crate::downstream::{Downstream, Peer};
use crate::error::{self, Error};
use crate::memory::Reservation;
use crate::policy::{self, Policy};
use crate::server::admission::Admission;
use crate::server::client_limits::ClientSlot;
use crate::server::connection_end::EndReached;
use crate::server::response_stream::ResponseStream;
use crate::server::response_write_timeout::SlowReader;
use crate::server::served_method::ServedMethod;
use crate::telemetry::{
    self, AuditLine, AuditLog, FailedCall, LineKind, RpcMetrics, RpcProtocol, code_name,
};
use crate::upstream::{CUT_OFF, UPSTREAM_KEY, Upstream};
use drawbridge_transcoder::call::Idempotency;

/// Runs `work` within the call's span, if it has one.
pub async fn traced<T>(span: Option<tracing::Span>, work: impl Future<Output = T>) -> T {
    match span {
        None => work.await,
        Some(span) => tracing::Instrument::instrument(work, span).await,
    }
}

/// Returns whether a line about this error is written; if not, it is part of a sum: clients can
/// cause as many as they like.
pub(super) fn is_logged(message: &'static str, error: &Error, is_warning: bool) -> bool {
    let kind = LineKind {
        message,
        code: code_name(error.code()),
        reason: error.log_kind(),
        is_warning,
    };
    telemetry::is_logged(kind)
}

/// The record of a call. If it is dropped before the call has ended, the call counts as
/// CANCELLED, or as failed if its client did not read.
pub struct StreamInfo {
    pub served: Arc<ServedMethod>,
    pub client: Downstream,
    pub upstream: Option<Arc<Upstream>>,
    protocol: RpcProtocol,
    /// When the call ends at the latest.
    pub deadline: Deadline,
    /// Whether the messages of the request are compressed.
    pub is_compressed: bool,
    /// What checks the call; none if the client may do everything, or nothing of the request
    /// matters.
    pub policy: Option<Arc<Policy>>,
    /// Where its line of the audit log goes; none once that is written, or if there is none.
    audit: Option<Arc<AuditLog>>,
    /// Counts the call among those of its client, where that is limited.
    _slot: Option<ClientSlot>,
    /// What the call holds for its metadata and all that is short.
    pub memory: Reservation,
    started_at: Instant,
    pub span: Option<tracing::Span>,
    /// Streams only: why the stream was dropped, if its client did not read.
    slow_reader: Option<SlowReader>,
    /// Whether the time to the response, or to the first message, was recorded.
    is_timed: bool,
    is_ended: bool,
}

/// Records a stream until its end.
pub struct InstrumentedStream {
    stream: ResponseStream,
    /// Ends the stream; `None` if its connection has no maximum age.
    connection_end: Option<EndReached>,
    /// Completes when the gateway cuts off its calls; none after that.
    cut_off: Option<EndReached>,
    /// `None` after the end.
    info: Option<StreamInfo>,
}

impl StreamInfo {
    /// Creates the record when the request's headers have arrived.
    pub fn begin(
        served: &Arc<ServedMethod>,
        traces: bool,
        headers: &HeaderMap,
        peer: Peer,
        admission: Admission,
    ) -> Self {
        let mut client = Downstream::from_metadata(headers);
        client.peer = peer;
        client.identify();
        client.memory = admission.memory;
        let span =
            traces.then(|| telemetry::server_span(&served.method, admission.protocol, &mut client));
        served.unrouted.in_flight.inc();
        Self {
            served: served.clone(),
            client,
            upstream: None,
            protocol: admission.protocol,
            deadline: admission.deadline,
            is_compressed: admission.is_compressed,
            policy: None,
            audit: None,
            _slot: admission.slot,
            memory: admission.reservation,
            started_at: Instant::now(),
            span,
            slow_reader: None,
            is_timed: false,
            is_ended: false,
        }
    }

    /// Writes a line to the audit log if the call can change something, or is rejected.
    pub(super) fn audit_by(&mut self, audit: Option<&Arc<AuditLog>>) {
        let Some(audit) = audit else { return };
        self.audit = Some(audit.clone());
        if self.can_change() {
            self.client.trail = Some(Arc::default());
        }
    }

    fn can_change(&self) -> bool {
        let method = &self.served.method;
        method.idempotency != Idempotency::NoSideEffects || method.may_change()
    }

    /// Writes the line of the audit log, unless it is written.
    fn write_audit(&mut self, code: Code, error: Option<&Error>) {
        let Some(audit) = self.audit.take() else {
            return;
        };
        let is_rejection = error.is_some_and(Error::is_rejection);
        if !is_rejection && !self.can_change() {
            return;
        }
        let rest_call = self.client.trail.take().and_then(|trail| trail.take());
        let rest_call = rest_call.as_ref();
        let reason = error.map(Error::log_kind).unwrap_or_default();
        audit.write(&AuditLine {
            is_rejection,
            identity: self.client.peer.identity(),
            operation: &self.served.method.path[1..],
            upstream: self.upstream_name(),
            rest_call: rest_call.map(|call| (call.verb.as_str(), &*call.path)),
            code: code_name(code),
            reason: &reason,
            rule: error.and_then(Error::rule),
            request_id: self.request_id(),
            upstream_request_id: rest_call.and_then(|call| call.upstream_request_id.as_deref()),
            elapsed: Some(self.started_at.elapsed()),
        });
    }

    fn request_id(&self) -> &str {
        self.client
            .request_id
            .as_ref()
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
    }

    /// Returns the id that the upstream was sent, where it is not the request id.
    fn correlation_id(&self) -> Option<String> {
        let family = self.upstream.as_ref()?.family;
        let (_, id) = family.correlation?.of(self.client.request_uuid)?;
        let is_other = self.client.request_id.as_ref() != Some(&id);
        is_other.then(|| id.to_str().unwrap_or_default().to_owned())
    }

    fn upstream_name(&self) -> &str {
        self.upstream.as_ref().map_or("", |u| &u.settings.name)
    }

    fn metrics(&self) -> &RpcMetrics {
        let routed = self.upstream.as_ref().and_then(|upstream| {
            let mut all = self.served.by_upstream.iter();
            all.find(|(known, _)| Arc::ptr_eq(known, upstream))
        });
        routed.map_or(&self.served.unrouted, |(_, metrics)| metrics)
    }

    fn policy_call(&self) -> policy::Call<'_> {
        policy::Call {
            identity: self.client.peer.identity.as_deref(),
            path: &self.served.method.path,
            upstream: self.upstream_name(),
        }
    }

    /// Fails if the client may not use the rpc by any upstream.
    pub(super) fn check_method(&self) -> Result<(), Error> {
        let Some(policy) = &self.policy else {
            return Ok(());
        };
        let call = self.policy_call();
        match policy.may_use(call.identity, call.path, None) {
            true => Ok(()),
            false => Err(policy.denied(call, None).into()),
        }
    }

    /// Returns the error of a call by an upstream that does not exist, which is that of one which
    /// the client may not use.
    pub(super) fn unknown_upstream(&self, headers: &HeaderMap) -> Error {
        let name = headers
            .get(UPSTREAM_KEY)
            .and_then(|name| name.to_str().ok());
        let call = policy::Call {
            upstream: name.unwrap_or_default(),
            ..self.policy_call()
        };
        match &self.policy {
            Some(policy) => policy.denied(call, None).into(),
            None => Error::UnknownUpstream(String::new()),
        }
    }

    /// Fails if the client may not use the rpc by the selected upstream. Drops the policy if the
    /// request does not matter.
    pub(super) fn check_upstream(&mut self) -> Result<(), Error> {
        let Some(policy) = &self.policy else {
            return Ok(());
        };
        let allowed = policy.check(self.policy_call(), policy::Request::NotRead)?;
        if !allowed.by_request {
            self.policy = None;
        }
        Ok(())
    }

    /// Fails if the client may not make the call with this request.
    pub(super) fn check_request(&self, request: &[u8]) -> Result<(), Error> {
        self.check(policy::Request::OfClient(request))
    }

    /// Fails if the client may not make the call for the resource that a name lookup has found.
    pub(super) fn check_found(&self, request: &[u8]) -> Result<(), Error> {
        match self.served.method.resolve {
            Some(_) => self.check(policy::Request::LookedUp(request)),
            None => Ok(()),
        }
    }

    fn check(&self, request: policy::Request<'_>) -> Result<(), Error> {
        if let Some(policy) = &self.policy {
            policy.check(self.policy_call(), request)?;
        }
        Ok(())
    }

    /// Times the response, or the first message of a stream.
    fn record_response(&mut self) {
        if !std::mem::replace(&mut self.is_timed, true) {
            self.metrics().time(self.started_at.elapsed());
        }
    }

    fn end(&mut self, code: Code, error: Option<&Error>) {
        self.write_audit(code, error);
        self.record_response();
        self.is_ended = true;
        self.served.unrouted.in_flight.dec();
        self.metrics().count(code);
        if let Some(identity) = &self.client.peer.identity {
            identity
                .calls(|text| self.served.client_calls.of(text))
                .inc();
        }
        if let Some(span) = &self.span {
            span.record("rpc.grpc.status_code", code as i32);
            span.record("drawbridge.upstream", self.upstream_name());
        }
    }

    /// Records a stream that has its first message until its end, or until that of the
    /// connection.
    pub fn stream(
        mut self,
        stream: ResponseStream,
        slow_reader: SlowReader,
        connection_end: Option<EndReached>,
        cut_off: CutOff,
    ) -> InstrumentedStream {
        self.record_response();
        // What a watch begins with is done; the rest of it only reads.
        self.write_audit(Code::Ok, None);
        self.slow_reader = Some(slow_reader);
        // The stream has its own copy of the client: the record keeps no credentials.
        self.client = Downstream {
            request_id: self.client.request_id.take(),
            request_uuid: self.client.request_uuid,
            peer: std::mem::take(&mut self.client.peer),
            ..Downstream::default()
        };
        InstrumentedStream {
            stream,
            connection_end,
            cut_off: Some(Box::pin(async move { cut_off.begun().await })),
            info: Some(self),
        }
    }

    /// Counts and logs the result of a unary call.
    pub fn finish<T>(self, result: Result<T, Error>) -> Result<T, Status> {
        match result {
            Ok(value) => {
                self.succeed();
                Ok(value)
            }
            Err(error) => Err(self.fail(&error)),
        }
    }

    fn succeed(mut self) {
        self.end(Code::Ok, None);
        tracing::debug!(
            operation = &self.served.method.path[1..],
            protocol = self.protocol.name(),
            upstream = self.upstream_name(),
            request_id = self.request_id(),
            correlation_id = self.correlation_id(),
            identity = self.client.peer.identity(),
            elapsed_us = self.started_at.elapsed().as_micros() as u64,
            "call succeeded"
        );
    }

    /// Counts and logs a failure, and returns its status.
    pub fn fail(mut self, error: &Error) -> Status {
        self.record_failure(error)
    }

    fn record_failure(&mut self, error: &Error) -> Status {
        let operation = &self.served.method.path[1..];
        let (upstream, request_id) = (self.upstream_name(), self.request_id());
        let (correlation_id, protocol) = (self.correlation_id(), self.protocol.name());
        let identity = self.client.peer.identity();
        let watch = self.served.method.watch.as_ref();
        let mut status = error.status(&error::StatusContext {
            operation,
            upstream,
            request_id,
            start_succeeded: self.is_timed && watch.is_some_and(|watch| watch.start.is_some()),
        });
        if let Some(id) = &self.client.request_id {
            let metadata = status.metadata_mut().as_mut();
            metadata.insert("x-request-id", id.clone());
        }
        let code = code_name(status.code());
        let elapsed_ms = self.started_at.elapsed().as_millis() as u64;
        let reason = error.log_text();
        let is_server_error = matches!(
            status.code(),
            Code::Internal | Code::Unknown | Code::Unavailable | Code::DataLoss
        );
        // A drain, a reload and the age of a connection end streams on purpose.
        let is_planned = matches!(
            error,
            Error::Draining | Error::ConnectionTooOld | Error::UpstreamChanged
        );
        let is_warning = is_server_error && !is_planned;
        if !is_planned {
            self.served.failed_calls.add(FailedCall {
                at: SystemTime::now(),
                code,
                kind: error.log_kind(),
                operation: operation.into(),
                upstream: upstream.into(),
                request_id: request_id.into(),
                elapsed: Some(self.started_at.elapsed()),
                count: 1,
            });
        }
        let is_logged = is_logged("call failed", error, is_warning);
        if is_logged && is_warning {
            tracing::warn!(
                operation,
                protocol,
                upstream,
                request_id,
                correlation_id,
                identity,
                code,
                elapsed_ms,
                reason,
                "call failed"
            );
        } else if is_logged {
            tracing::info!(
                operation,
                protocol,
                upstream,
                request_id,
                correlation_id,
                identity,
                code,
                elapsed_ms,
                reason,
                "call failed"
            );
        }
        self.end(status.code(), Some(error));
        status
    }
}

impl Drop for StreamInfo {
    fn drop(&mut self) {
        if self.is_ended {
            return;
        }
        match self.slow_reader.as_ref().and_then(SlowReader::error) {
            Some(error) => drop(self.record_failure(&error)),
            None if self
                .upstream
                .as_ref()
                .is_some_and(|u| u.cut_off().has_begun()) =>
            {
                // Its client does not read: the connection is closed without a status.
                drop(self.record_failure(&Error::NoResponse(CUT_OFF.to_owned())));
            }
            None => self.end(Code::Cancelled, None),
        }
    }
}

impl InstrumentedStream {
    /// Ends the stream with an error, and returns its status.
    pub fn fail(&mut self, error: &Error) -> Status {
        match self.info.take() {
            Some(info) => info.fail(error),
            None => error.status(&error::StatusContext::default()),
        }
    }
}

impl Stream for InstrumentedStream {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.info.is_none() {
            return Poll::Ready(None);
        }
        if let Some(end) = &mut self.connection_end
            && end.as_mut().poll(cx).is_ready()
        {
            self.connection_end = None;
            let error = Error::ConnectionTooOld;
            return Poll::Ready(self.info.take().map(|info| Err(info.fail(&error))));
        }
        let mut message = Pin::new(&mut self.stream).poll_next(cx);
        let is_cut_off = |cut_off: &mut EndReached| cut_off.as_mut().poll(cx).is_ready();
        if message.is_pending() && self.cut_off.as_mut().is_none_or(is_cut_off) {
            self.cut_off = None;
            // Ends with what is known of the call, where it waits for an upstream.
            message = Pin::new(&mut self.stream).poll_next(cx);
            if message.is_pending() {
                let upstream = self.info.as_ref().and_then(|info| info.upstream.as_ref());
                let error = upstream.map_or(Error::Draining, |one| self.stream.cut_off(one));
                message = Poll::Ready(Some(Err(error)));
            }
        }
        let message = std::task::ready!(message);
        Poll::Ready(match message {
            Some(Ok(message)) => Some(Ok(message)),
            Some(Err(error)) => self.info.take().map(|info| Err(info.fail(&error))),
            None => {
                if let Some(info) = self.info.take() {
                    info.succeed();
                }
                None
            }
        })
    }
}
