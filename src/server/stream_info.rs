//! What is kept of a call while it runs: for metrics, the log and traces.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use tokio_stream::Stream;
use tonic::{Code, Status};

use crate::deadline::Deadline;
use crate::downstream::Downstream;
use crate::error::{self, Error};
use crate::server::response_stream::ResponseStream;
use crate::server::response_write_timeout::SlowReader;
use crate::server::served_method::ServedMethod;
use crate::telemetry::{self, RpcMetrics, code_name};
use crate::upstream::Upstream;

/// Runs `work` within the call's span, if it has one.
pub async fn traced<T>(span: Option<tracing::Span>, work: impl Future<Output = T>) -> T {
    match span {
        None => work.await,
        Some(span) => tracing::Instrument::instrument(work, span).await,
    }
}

/// What is kept of a call while it runs: for metrics, the log and traces. A call
/// whose caller has left is counted when this is dropped.
pub struct StreamInfo {
    pub served: Arc<ServedMethod>,
    pub caller: Downstream,
    pub upstream: Option<Arc<Upstream>>,
    /// When the call ends, wherever it is by then.
    pub deadline: Deadline,
    begun: Instant,
    pub span: Option<tracing::Span>,
    /// Of a stream: whether it is dropped because nobody took it.
    untaken: Option<SlowReader>,
    /// The answer is there, or its first message: it was timed.
    answered: bool,
    ended: bool,
}

/// A stream, whose record ends with it.
pub struct InstrumentedStream {
    told: ResponseStream,
    /// None: it has ended.
    record: Option<StreamInfo>,
}

impl StreamInfo {
    /// Begins when the headers have come; the message may never.
    pub fn begin(
        served: &Arc<ServedMethod>,
        traces: bool,
        headers: &HeaderMap,
        deadline: Deadline,
    ) -> Self {
        let mut caller = Downstream::from_metadata(headers);
        if caller.request_id.is_none() {
            caller.request_id = Some(request_id(fastrand::u64(..)));
        }
        let span = traces.then(|| telemetry::server_span(&served.method, &mut caller));
        served.nowhere.in_flight.inc();
        Self {
            served: served.clone(),
            caller,
            upstream: None,
            deadline,
            begun: Instant::now(),
            span,
            untaken: None,
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
    pub fn stream(mut self, told: ResponseStream, untaken: SlowReader) -> InstrumentedStream {
        self.answer();
        self.untaken = Some(untaken);
        // The rest of it, credentials among them, is the stream's affair.
        self.caller = Downstream {
            request_id: self.caller.request_id.take(),
            ..Downstream::default()
        };
        InstrumentedStream {
            told,
            record: Some(self),
        }
    }

    /// Counts and logs how a unary call ended.
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
    pub fn fail(mut self, error: &Error) -> Status {
        self.failed(error)
    }

    fn failed(&mut self, error: &Error) -> Status {
        let operation = &self.served.method.path[1..];
        let (upstream, request_id) = (self.upstream_name(), self.request_id());
        let watch = self.served.method.watch.as_ref();
        let mut status = error.status(&error::StatusContext {
            operation,
            upstream,
            request_id,
            action_started: self.answered && watch.is_some_and(|watch| watch.start.is_some()),
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

impl Drop for StreamInfo {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        match self.untaken.as_ref().and_then(SlowReader::error) {
            Some(error) => drop(self.failed(&error)),
            None => self.end(Code::Cancelled),
        }
    }
}

impl Stream for InstrumentedStream {
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
