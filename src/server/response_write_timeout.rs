//! Drops a response body whose client has read nothing for a while, or reads below a minimum
//! rate, to free its buffer, its stream slot and its upstream connection. HTTP/2 keep-alive does
//! not detect this.

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
    limits: Limits,
    open: Arc<Mutex<Open>>,
}

/// How slowly a client may read.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Longest time without reading, and the time by which the client may lag behind the rate.
    timeout: Duration,
    /// Minimum rate while data is ready. Zero: none.
    min_bytes_per_sec: u32,
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
pub struct SlowReader(Arc<OnceLock<Unread>>);

/// Why a response was dropped.
#[derive(Clone, Copy, Debug)]
enum Unread {
    /// The client has read nothing for this time.
    Idle(Duration),
    /// The client reads less than this, in bytes per second.
    Slow(u32),
}

impl SlowReader {
    /// Returns why the response was dropped, if it was.
    pub fn error(&self) -> Option<Error> {
        self.0.get().copied().map(Unread::error)
    }
}

/// A response body that the check can drop while hyper holds it.
struct GuardedBody(Arc<Mutex<State>>);

/// The states of a response, in their order.
#[derive(Debug)]
enum State {
    /// Next: `Dropped` by the check, or `Ended`.
    Open(OpenBody),
    /// The client does not read, or too slowly. Next: `Ended`, once the client reads again and
    /// gets the status, or a reset where it has part of a message.
    Dropped { partial: bool, why: Unread },
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
    /// The length of what the client has not read.
    unread_bytes: usize,
    /// Since when the client waits for data.
    waiting_since: Option<Instant>,
    /// How long the client may read nothing: at most the timeout. The time without reading uses
    /// it up; what is read adds to it by the rate, and so does the time of waiting for data.
    allowance: Duration,
    limits: Limits,
    slow_reader: Option<SlowReader>,
    /// What the chunks draw from that HTTP/2 has and has not sent.
    memory: Memory,
}

impl ResponseWriteTimeout {
    /// Drops a response whose client reads nothing for `timeout`, or lags behind the rate for
    /// as long.
    pub fn new(timeout: Duration, min_bytes_per_sec: u32) -> Self {
        Self {
            limits: Limits {
                timeout,
                min_bytes_per_sec,
            },
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
                unread_bytes: 0,
                waiting_since: None,
                allowance: self.limits.timeout,
                limits: self.limits,
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
                let dropped = lock(&state).drop_if_unread(now);
                if let Some((body, why)) = &dropped {
                    tracing::debug!(?why, "response dropped: the client does not read it");
                    if let Some(slow_reader) = &body.slow_reader {
                        let _ = slow_reader.0.set(*why);
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
    fn drop_if_unread(&mut self, now: Instant) -> Option<(OpenBody, Unread)> {
        let Self::Open(open) = self else {
            return None;
        };
        let unread = now.duration_since(open.unread_since?);
        if unread < open.allowance {
            return None;
        }
        let Limits {
            timeout,
            min_bytes_per_sec,
        } = open.limits;
        let why = match unread >= timeout {
            true => Unread::Idle(timeout),
            false => Unread::Slow(min_bytes_per_sec),
        };
        // A body of known length is cut off here; in any other body each frame is a complete
        // message.
        let partial = !open.rest.is_empty() || open.body.size_hint().exact().is_some();
        let dropped = Self::Dropped { partial, why };
        match std::mem::replace(self, dropped) {
            Self::Open(open) => Some((open, why)),
            _ => None,
        }
    }
}

impl Limits {
    /// Returns the allowance of a client that has read `bytes` after it has not read for `unread`.
    fn after(self, allowance: Duration, unread: Duration, bytes: usize) -> Duration {
        let Self {
            timeout,
            min_bytes_per_sec: rate,
        } = self;
        if rate == 0 {
            return timeout;
        }
        let earned = Duration::from_secs_f64(bytes as f64 / f64::from(rate));
        (allowance.saturating_sub(unread) + earned).min(timeout)
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
        if let Some(since) = self.unread_since.take() {
            let now = Instant::now();
            self.allowance = self
                .limits
                .after(self.allowance, now - since, self.unread_bytes);
            self.waiting_since = Some(now);
        }
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
        let now = Instant::now();
        if let Some(since) = self.waiting_since.take() {
            self.allowance = (self.allowance + (now - since)).min(self.limits.timeout);
        }
        self.unread_since = Some(now);
        let data = frame.as_ref().and_then(|frame| frame.as_ref().ok());
        self.unread_bytes = data.and_then(Frame::data_ref).map_or(0, Bytes::len);
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
            State::Dropped { partial, why } => {
                let (partial, why) = (*partial, *why);
                *state = State::Ended;
                let status = why.error().status(&error::StatusContext {
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

impl Unread {
    /// Returns the error of a response that was dropped.
    fn error(self) -> Error {
        Error::ResponseNotDelivered {
            code: Code::DeadlineExceeded,
            problem: match self {
                Self::Idle(time) => format!(
                    "the client read nothing of the response for {} s",
                    time.as_secs()
                ),
                Self::Slow(rate) => {
                    format!("the client reads the response at less than {rate} bytes per second")
                }
            },
            retry_after: None,
        }
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
        let timeout = ResponseWriteTimeout::new(TIMEOUT, 0);
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
        let timeout = ResponseWriteTimeout::new(TIMEOUT, 0);
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
    async fn client_that_reads_below_the_rate_is_cut_off() {
        const CHUNK: usize = 1_000;
        // How long the client waits before each chunk, how long the chunk takes to arrive, and
        // after how many seconds the response is dropped, if it is.
        for (rate, unread, arrives, want) in [
            (1_000, 1, 0, None),
            (1_000, 29, 0, Some(29..65)),
            (1_000, 3, 0, Some(45..65)),
            (100, 10, 0, None),
            (100, 11, 0, Some(200..250)),
            (0, 29, 0, None),
            // The client waits for the data, too.
            (1_000, 3, 2, None),
            (1_000, 5, 2, Some(60..150)),
        ] {
            let timeout = ResponseWriteTimeout::new(TIMEOUT, rate);
            let frames = tokio_stream::iter(std::iter::repeat_with(|| frame(CHUNK)));
            let frames = frames.then(move |frame| async move {
                sleep(arrives * SECOND).await;
                frame
            });
            let (mut body, _, slow_reader) = stream(&timeout, Box::pin(frames));
            let start = Instant::now();
            while slow_reader.error().is_none() && start.elapsed() < Duration::from_secs(1_000) {
                assert_eq!(read(&mut body).await, CHUNK);
                sleep(unread * SECOND).await;
            }
            let dropped = slow_reader.error().map(|_| start.elapsed().as_secs());
            let case = format!("{rate} {unread} {arrives}: {dropped:?}");
            assert_eq!(dropped.is_some(), want.is_some(), "{case}");
            if let (Some(want), Some(error)) = (want, slow_reader.error()) {
                assert!(want.contains(&dropped.unwrap()), "{case}");
                let text = format!("at less than {rate} bytes per second");
                assert!(error.to_string().contains(&text), "{error}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn unread_response_of_known_length_is_reset() {
        let timeout = ResponseWriteTimeout::new(TIMEOUT, 0);
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
