//! Drops a response body whose client has read nothing for a while, to free its buffer
//! and stream slot. HTTP/2 keep-alive does not detect this.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::{HeaderMap, Response};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::error::{self, Error};
use crate::memory::Memory;

/// How often open responses are checked. A timeout fires up to this much late.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// The longest chunk that is handed to HTTP/2 at once, which may buffer it: the payload of
/// one frame.
pub const MAX_CHUNK_BYTES: usize = 16 << 10;

/// The length of the prefix of a gRPC message: the compressed flag and the length.
const MESSAGE_PREFIX_BYTES: usize = 5;

/// The responses that are guarded: long ones and streams. One task checks them as long as
/// there are any.
#[derive(Clone, Debug)]
pub struct ResponseWriteTimeout {
    /// How long a client may read nothing.
    timeout: Duration,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    responses: Vec<Weak<Mutex<State>>>,
    /// Whether the check task runs.
    checked: bool,
}

/// Set when a stream is dropped because its client does not read. An extension of the
/// response; the stream info holds a clone.
#[derive(Clone, Debug, Default)]
pub struct SlowReader(Arc<OnceLock<Duration>>);

impl SlowReader {
    /// Returns why the response was dropped, if it was.
    pub fn error(&self) -> Option<Error> {
        self.0.get().copied().map(unread)
    }
}

/// A response body that the check can drop while hyper holds it.
struct GuardedBody(Arc<Mutex<State>>);

/// The states of a response, in their order.
#[derive(Debug)]
enum State {
    /// Next: `Dropped` by the check, or `Ended`.
    Open(OpenBody),
    /// The client has read nothing for `idle`. Next: `Ended`, once the client reads again
    /// and gets the status, or a reset where it has part of a message.
    Dropped { partial: bool, idle: Duration },
    /// Nothing is left to send.
    Ended,
}

#[derive(Debug)]
struct OpenBody {
    body: Body,
    /// The part of a long frame that is not sent yet.
    rest: Bytes,
    /// Since when data has been ready that the client has not read; `None` while the client
    /// waits for data.
    unread_since: Option<Instant>,
    slow_reader: Option<SlowReader>,
    /// What the chunks draw from that HTTP/2 has and has not sent.
    memory: Memory,
}

impl ResponseWriteTimeout {
    /// Drops a response whose client reads nothing for `timeout`.
    pub fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            open: Arc::default(),
        }
    }

    /// Guards a response of a client with this memory.
    pub fn guard(&self, mut response: Response<Body>, memory: Memory) -> Response<Body> {
        let length = response.body().size_hint().exact();
        if length.is_some_and(|length| length <= (MESSAGE_PREFIX_BYTES + MAX_CHUNK_BYTES) as u64) {
            // Not guarded: HTTP/2 buffers it at once, whether the client reads or not.
            return response;
        }
        let slow_reader = response.extensions_mut().remove::<SlowReader>();
        response.map(|body| {
            let state = Arc::new(Mutex::new(State::Open(OpenBody {
                body,
                rest: Bytes::new(),
                unread_since: Some(Instant::now()),
                slow_reader,
                memory,
            })));
            let mut open = lock(&self.open);
            open.responses.push(Arc::downgrade(&state));
            if !std::mem::replace(&mut open.checked, true) {
                tokio::spawn(check(self.clone()));
            }
            Body::new(GuardedBody(state))
        })
    }
}

/// Checks the open responses as long as there are any.
async fn check(all: ResponseWriteTimeout) {
    loop {
        tokio::time::sleep(CHECK_INTERVAL).await;
        let now = Instant::now();
        let mut responses = std::mem::take(&mut lock(&all.open).responses);
        responses.retain(|state| match state.upgrade() {
            Some(state) => {
                // The lock is released before the body is dropped, which runs other code.
                let dropped = lock(&state).drop_if_unread(now, all.timeout);
                if let Some(body) = &dropped {
                    tracing::debug!("response dropped: the client does not read it");
                    if let Some(slow_reader) = &body.slow_reader {
                        let _ = slow_reader.0.set(all.timeout);
                    }
                }
                dropped.is_none()
            }
            None => false,
        });
        responses.shrink_to(2 * responses.len());
        let mut open = lock(&all.open);
        responses.append(&mut open.responses);
        open.responses = responses;
        if open.responses.is_empty() {
            open.checked = false;
            return;
        }
    }
}

impl State {
    /// Takes the body of a response that its client does not read.
    fn drop_if_unread(&mut self, now: Instant, timeout: Duration) -> Option<OpenBody> {
        let Self::Open(open) = self else {
            return None;
        };
        if now.duration_since(open.unread_since?) < timeout {
            return None;
        }
        // A body of known length is cut off here; in any other body each frame is a complete
        // message.
        let partial = !open.rest.is_empty() || open.body.size_hint().exact().is_some();
        let dropped = Self::Dropped {
            partial,
            idle: timeout,
        };
        match std::mem::replace(self, dropped) {
            Self::Open(open) => Some(open),
            _ => None,
        }
    }
}

impl OpenBody {
    /// Returns the next chunk: a copy, since a slice would keep the memory of the frame after
    /// the body is dropped. Without memory for a copy it is a slice, which needs none.
    fn chunk(&mut self) -> Bytes {
        let length = self.rest.len().min(MAX_CHUNK_BYTES);
        let chunk = match self.memory.reserve(length) {
            Ok(reservation) => reservation.attach(self.rest[..length].to_vec()),
            Err(_) => self.rest.slice(..length),
        };
        self.rest.advance(length);
        if self.rest.is_empty() {
            self.rest = Bytes::new();
        }
        chunk
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.unread_since = None;
        let mut frame = None;
        if self.rest.is_empty() {
            frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
            if let Some(Ok(data)) = &frame
                && let Some(data) = data.data_ref()
                && data.len() > MAX_CHUNK_BYTES
            {
                self.rest = data.clone();
            }
        }
        if !self.rest.is_empty() {
            frame = Some(Ok(Frame::data(self.chunk())));
        }
        self.unread_since = Some(Instant::now());
        Poll::Ready(frame)
    }
}

impl http_body::Body for GuardedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut state = lock(&self.0);
        match &mut *state {
            State::Open(open) => {
                let frame = ready!(open.poll_frame(cx));
                if !matches!(&frame, Some(Ok(frame)) if frame.is_data()) {
                    *state = State::Ended;
                }
                Poll::Ready(frame)
            }
            State::Dropped { partial, idle } => {
                let (partial, idle) = (*partial, *idle);
                *state = State::Ended;
                let status = unread(idle).status(&error::StatusContext {
                    operation: "",
                    upstream: "",
                    request_id: "",
                    start_succeeded: false,
                });
                let mut trailers = HeaderMap::new();
                Poll::Ready(Some(match partial {
                    // Resets the stream: part of a message must not look like a complete one.
                    true => Err(status),
                    false => (status.add_header(&mut trailers)).map(|()| Frame::trailers(trailers)),
                }))
            }
            State::Ended => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &*lock(&self.0) {
            State::Open(open) => open.rest.is_empty() && open.body.is_end_stream(),
            State::Dropped { .. } => false,
            State::Ended => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &*lock(&self.0) {
            State::Open(open) if open.rest.is_empty() => open.body.size_hint(),
            State::Ended => SizeHint::with_exact(0),
            State::Open(_) | State::Dropped { .. } => SizeHint::default(),
        }
    }
}

/// The error of a response that its client has not read for `idle`.
fn unread(idle: Duration) -> Error {
    Error::ResponseNotDelivered {
        code: Code::DeadlineExceeded,
        problem: format!(
            "the client read nothing of the response for {} s",
            idle.as_secs()
        ),
        retry_after: None,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code under these locks can panic halfway through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full, StreamBody};
    use tokio::time::{advance, sleep};
    use tokio_stream::{Stream, StreamExt};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const TIMEOUT: Duration = Duration::from_secs(30);

    fn frame(length: usize) -> Result<Frame<Bytes>, Status> {
        Ok(Frame::data(vec![7; length].into()))
    }

    /// Guards a stream. The `Arc` counts the references to its memory: of the stream and
    /// of the test.
    fn stream(
        timeout: &ResponseWriteTimeout,
        frames: impl Stream<Item = Result<Frame<Bytes>, Status>> + Send + 'static,
    ) -> (Body, Arc<()>, SlowReader) {
        let memory = Arc::new(());
        let inner = memory.clone();
        let frames = frames.map(move |frame| {
            let _keep = &inner;
            frame
        });
        let mut response = Response::new(Body::new(StreamBody::new(frames)));
        let slow_reader = SlowReader::default();
        response.extensions_mut().insert(slow_reader.clone());
        (
            timeout.guard(response, Memory::default()).into_body(),
            memory,
            slow_reader,
        )
    }

    /// Reads a chunk and returns its length.
    async fn read(body: &mut Body) -> usize {
        let frame = body.frame().await.unwrap().unwrap();
        frame.into_data().unwrap().len()
    }

    #[tokio::test(start_paused = true)]
    async fn unread_response_is_dropped() {
        let timeout = ResponseWriteTimeout::new(TIMEOUT);
        // Never read; read once; and read to the middle of a message.
        for (length, reads) in [(3, 0), (3, 1), (3 * MAX_CHUNK_BYTES, 1)] {
            let frames = tokio_stream::iter([frame(length), frame(length), frame(length)]);
            let (mut body, memory, slow_reader) = stream(&timeout, frames);
            for _ in 0..reads {
                assert_eq!(read(&mut body).await, length.min(MAX_CHUNK_BYTES));
            }
            sleep(TIMEOUT - SECOND).await;
            assert_eq!(Arc::strong_count(&memory), 2);
            sleep(SECOND + CHECK_INTERVAL).await;
            assert_eq!(Arc::strong_count(&memory), 1);
            assert_eq!(slow_reader.error().unwrap().code(), Code::DeadlineExceeded);
            // A client that reads again gets the status; part of a message is reset.
            let end = body.frame().await.unwrap();
            match length > MAX_CHUNK_BYTES {
                true => assert_eq!(end.unwrap_err().code(), Code::DeadlineExceeded),
                false => {
                    let trailers = end.unwrap().into_trailers().unwrap();
                    let status = Status::from_header_map(&trailers).unwrap();
                    assert_eq!(status.code(), Code::DeadlineExceeded);
                    assert!(status.message().contains("read nothing"), "{status:?}");
                }
            }
            assert!(body.is_end_stream() && body.frame().await.is_none());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn slow_or_waiting_client_is_not_cut_off() {
        let timeout = ResponseWriteTimeout::new(TIMEOUT);
        let frames = tokio_stream::iter([frame(2 * MAX_CHUNK_BYTES), frame(3)]);
        let (mut body, memory, slow_reader) =
            stream(&timeout, frames.chain(tokio_stream::pending()));
        for want in [MAX_CHUNK_BYTES, MAX_CHUNK_BYTES, 3] {
            assert_eq!(read(&mut body).await, want);
            sleep(TIMEOUT - SECOND).await;
        }
        // The client waits for data that does not arrive.
        assert!(tokio::time::timeout(SECOND, body.frame()).await.is_err());
        sleep(10 * TIMEOUT).await;
        assert!(Arc::strong_count(&memory) == 2 && slow_reader.error().is_none());
        drop(body);
        assert_eq!(Arc::strong_count(&memory), 1);
        // The check ends where no response is open.
        assert!(lock(&timeout.open).checked);
        advance(2 * CHECK_INTERVAL).await;
        sleep(CHECK_INTERVAL).await;
        let open = lock(&timeout.open);
        assert!(!open.checked && open.responses.capacity() == 0);
    }

    #[tokio::test(start_paused = true)]
    async fn unread_response_of_known_length_is_reset() {
        let timeout = ResponseWriteTimeout::new(TIMEOUT);
        let response = |length| Response::new(Body::new(Full::new(Bytes::from(vec![7; length]))));
        let mut body = timeout
            .guard(response(3 * MAX_CHUNK_BYTES), Memory::default())
            .into_body();
        assert_eq!(body.size_hint().exact(), Some(3 * MAX_CHUNK_BYTES as u64));
        sleep(TIMEOUT + CHECK_INTERVAL).await;
        body.frame().await.unwrap().unwrap_err();
        // HTTP/2 buffers a short one.
        let body = timeout
            .guard(response(MAX_CHUNK_BYTES), Memory::default())
            .into_body();
        assert!(lock(&timeout.open).responses.is_empty());
        assert_eq!(
            body.collect().await.unwrap().to_bytes().len(),
            MAX_CHUNK_BYTES
        );
    }
}
