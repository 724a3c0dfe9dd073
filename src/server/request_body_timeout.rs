//! Request body with a minimum rate, an idle timeout and a total timeout. Also detects
//! RST_STREAM: tonic takes one with CANCEL or NO_ERROR for the end of the body; other resets
//! are errors.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::body::Body;
use tonic::{Code, Status};

use crate::deadline::Deadline;
use crate::error::{self, Error};

/// The length of the prefix of a gRPC message: the compressed flag and the length.
const MESSAGE_PREFIX_BYTES: usize = 5;

/// How long a request body may take to arrive.
#[derive(Clone, Copy, Debug)]
pub struct RequestTimeouts {
    /// Longest time without data, and the time by which data may lag behind the rate.
    pub idle: Duration,
    /// Minimum rate of data. Zero: none.
    pub min_bytes_per_sec: u32,
    /// Longest time until its end, even if the client's deadline is later. Also limits
    /// uploads and the request streams of reflection.
    pub total: Duration,
}

/// A request body that fails with DEADLINE_EXCEEDED when one of its timeouts passes. Only the
/// time counts in which its reader waits for the client.
pub struct TimeoutBody {
    body: Body,
    timeouts: RequestTimeouts,
    /// When the body must be complete.
    until: Instant,
    /// How long the reader may wait for more data: at most the idle timeout. Waiting uses it up
    /// and data adds to it by the rate, so that a fast start pays for no endless rest.
    allowance: Duration,
    /// Since when the reader waits, and the end of the wait.
    wait: Option<(Instant, Pin<Box<Sleep>>)>,
    /// Finds complete messages, each of which restores the allowance.
    messages: Option<MessageCounter>,
    /// The client has cancelled the request.
    reset: bool,
}

/// Finds the ends of gRPC messages in the data of a body.
#[derive(Debug, Default)]
struct MessageCounter {
    /// The prefix of a message, and how much of it has arrived.
    prefix: [u8; MESSAGE_PREFIX_BYTES],
    filled: usize,
    /// How much of the message is missing, once its prefix is complete.
    missing: usize,
}

impl TimeoutBody {
    /// Wraps a body that must be complete by `until`, and within the timeouts.
    pub fn new(body: Body, until: Deadline, timeouts: RequestTimeouts) -> Self {
        Self {
            body,
            timeouts,
            until: until.min(Deadline::after(timeouts.total)).instant(),
            allowance: timeouts.idle,
            wait: None,
            messages: None,
            reset: false,
        }
    }

    /// Wraps a stream of requests, between which the client may pause: the rate applies to
    /// each of them.
    pub fn of_requests(body: Body, until: Deadline, timeouts: RequestTimeouts) -> Self {
        Self {
            messages: Some(MessageCounter::default()),
            ..Self::new(body, until, timeouts)
        }
    }

    /// Adds to the allowance what data has earned.
    fn received(&mut self, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        if let Some((since, _)) = self.wait.take() {
            self.allowance = self.allowance.saturating_sub(since.elapsed());
        }
        let RequestTimeouts {
            idle,
            min_bytes_per_sec: rate,
            ..
        } = self.timeouts;
        let completed = self.messages.as_mut().is_some_and(|m| m.completes(data));
        if rate == 0 || completed {
            self.allowance = idle;
        } else {
            let earned = Duration::from_secs_f64(data.len() as f64 / f64::from(rate));
            self.allowance = (self.allowance + earned).min(idle);
        }
    }

    /// Returns what is wrong with a body whose allowance or time is used up.
    fn problem(&self, waited: Duration) -> String {
        let idle = self.timeouts.idle;
        if Instant::now() >= self.until {
            "the request body was not complete in time".to_owned()
        } else if waited >= idle {
            format!("the request body was idle for {} s", idle.as_secs_f64())
        } else {
            format!(
                "the request body arrives at less than {} bytes per second",
                self.timeouts.min_bytes_per_sec
            )
        }
    }
}

impl MessageCounter {
    /// Returns whether a message ends in `data`.
    fn completes(&mut self, mut data: &[u8]) -> bool {
        let mut completed = false;
        while !data.is_empty() {
            if self.missing == 0 {
                let length = data.len().min(MESSAGE_PREFIX_BYTES - self.filled);
                let (head, rest) = data.split_at(length);
                self.prefix[self.filled..][..length].copy_from_slice(head);
                self.filled += length;
                data = rest;
                if self.filled < MESSAGE_PREFIX_BYTES {
                    continue;
                }
                let [_, a, b, c, d] = self.prefix;
                self.filled = 0;
                self.missing = u32::from_be_bytes([a, b, c, d]) as usize;
                completed |= self.missing == 0;
                continue;
            }
            let length = data.len().min(self.missing);
            data = &data[length..];
            self.missing -= length;
            completed |= self.missing == 0;
        }
        completed
    }
}

impl http_body::Body for TimeoutBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if !this.reset {
            match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Pending => {}
                // gRPC requests have no trailers; tonic would take trailers for the end of a
                // message.
                Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => return Poll::Ready(None),
                Poll::Ready(Some(Ok(frame))) => {
                    this.received(frame.data_ref().map_or(&[], |data| data));
                    return Poll::Ready(Some(Ok(frame)));
                }
                // END_STREAM has arrived.
                Poll::Ready(None) if this.body.is_end_stream() => return Poll::Ready(None),
                // RST_STREAM with NO_ERROR or CANCEL, which tonic would take for a complete
                // message. The body stays pending instead: hyper notices the reset and drops
                // the future that reads the body.
                Poll::Ready(None) => this.reset = true,
                Poll::Ready(Some(Err(e))) if e.code() == Code::Cancelled => this.reset = true,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
            }
        }
        let (until, allowance) = (this.until, this.allowance);
        let (since, timer) = this.wait.get_or_insert_with(|| {
            let now = Instant::now();
            (now, Box::pin(sleep_until(until.min(now + allowance))))
        });
        ready!(timer.as_mut().poll(cx));
        let waited = since.elapsed();
        let problem = this.problem(waited);
        let error = Error::RequestNotReceived {
            code: Code::DeadlineExceeded,
            problem,
        };
        let context = error::StatusContext {
            operation: "",
            upstream: "",
            request_id: "",
            start_succeeded: false,
        };
        Poll::Ready(Some(Err(error.status(&context))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, StreamBody};
    use tokio_stream::{Stream, StreamExt};

    use super::*;

    const TIMEOUTS: RequestTimeouts = RequestTimeouts {
        idle: Duration::from_secs(30),
        min_bytes_per_sec: 10,
        total: Duration::from_secs(15 * 60),
    };

    const NO_RATE: RequestTimeouts = RequestTimeouts {
        min_bytes_per_sec: 0,
        ..TIMEOUTS
    };

    type FrameResult = Result<Frame<Bytes>, Status>;

    /// A body that ends with END_STREAM if `end_stream`, otherwise with a reset.
    struct TestBody<S> {
        frames: S,
        end_stream: bool,
    }

    impl<S: Stream<Item = FrameResult> + Unpin> http_body::Body for TestBody<S> {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Pin::new(&mut self.frames).poll_next(cx)
        }

        fn is_end_stream(&self) -> bool {
            self.end_stream && self.frames.size_hint().1 == Some(0)
        }
    }

    fn chunk() -> FrameResult {
        Ok(Frame::data(Bytes::from_static(b"x")))
    }

    fn in_an_hour() -> Deadline {
        Deadline::after(Duration::from_secs(3_600))
    }

    /// Reads a body whose deadline is in an hour: its length, and how it ends.
    async fn read<B>(body: B) -> (usize, Result<(), Code>)
    where
        B: http_body::Body<Data = Bytes, Error = Status> + Send + 'static,
    {
        read_to_end(TimeoutBody::new(Body::new(body), in_an_hour(), NO_RATE)).await
    }

    async fn read_to_end(mut body: TimeoutBody) -> (usize, Result<(), Code>) {
        let mut length = 0;
        loop {
            match body.frame().await {
                Some(Ok(frame)) => length += frame.into_data().unwrap().len(),
                Some(Err(error)) => return (length, Err(error.code())),
                None => return (length, Ok(())),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn idle_and_endless_bodies_time_out() {
        let start = Instant::now();
        let silent = tokio_stream::iter([chunk()]).chain(tokio_stream::pending());
        let timed_out = Err(Code::DeadlineExceeded);
        assert_eq!(read(StreamBody::new(silent)).await, (1, timed_out));
        assert_eq!(start.elapsed().as_secs(), TIMEOUTS.idle.as_secs());

        // A body that is never idle meets the total timeout.
        let pause = TIMEOUTS.idle - Duration::from_secs(1);
        let start = Instant::now();
        let endless = tokio_stream::iter(std::iter::repeat_with(chunk)).throttle(pause);
        let (length, end) = read(StreamBody::new(Box::pin(endless))).await;
        assert_eq!(end, timed_out);
        assert_eq!(start.elapsed().as_secs(), TIMEOUTS.total.as_secs());
        assert_eq!(
            length as u64,
            1 + TIMEOUTS.total.as_secs() / pause.as_secs()
        );
    }

    /// Reads parts that arrive with a pause before each: the second at which the body fails.
    async fn seconds_until_failure(parts: &[(u64, &'static [u8])], rate: u32) -> u64 {
        let start = Instant::now();
        let parts: Vec<_> = parts.to_vec();
        // The last part is repeated for ever.
        let last = *parts.last().unwrap();
        let parts = parts.into_iter().chain(std::iter::repeat(last));
        let frames = tokio_stream::iter(parts).then(|(pause, data)| async move {
            tokio::time::sleep(Duration::from_secs(pause)).await;
            FrameResult::Ok(Frame::data(Bytes::from_static(data)))
        });
        let timeouts = RequestTimeouts {
            min_bytes_per_sec: rate,
            ..TIMEOUTS
        };
        let frames = Body::new(StreamBody::new(Box::pin(frames)));
        let body = TimeoutBody::new(frames, in_an_hour(), timeouts);
        let (_, end) = read_to_end(body).await;
        assert_eq!(end, Err(Code::DeadlineExceeded));
        start.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn slow_bodies_time_out_within_the_idle_timeout() {
        const TEN: &[u8] = &[0; 10];
        const THOUSAND: &[u8] = &[0; 1_000];
        let total = TIMEOUTS.total.as_secs();
        for (parts, rate, seconds) in [
            // One byte a second earns 0.1 s of it.
            (vec![(1, &TEN[..1])], 10, 33),
            (vec![(20, &TEN[..1])], 10, 30),
            // As fast as the rate, in parts of any size.
            (vec![(1, TEN)], 10, total),
            (vec![(29, &THOUSAND[..290])], 10, total),
            // A fast start pays for the idle timeout only.
            (vec![(0, THOUSAND), (1, &TEN[..1])], 10, 33),
            // Empty frames are no data.
            (vec![(1, &TEN[..0])], 10, 30),
            (vec![(1, &TEN[..0])], 0, 30),
            // Without a rate any data will do.
            (vec![(20, &TEN[..1])], 0, total),
        ] {
            let got = seconds_until_failure(&parts, rate).await;
            assert_eq!(got, seconds, "{} parts, rate {rate}", parts.len());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_of_a_slow_reader_is_not_the_clients() {
        let frames = tokio_stream::iter([chunk(), chunk(), chunk()]);
        let frames = Body::new(StreamBody::new(frames));
        let mut body = TimeoutBody::new(frames, in_an_hour(), TIMEOUTS);
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(100)).await;
            body.frame().await.unwrap().unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_of_a_stream_may_pause() {
        // A message of one byte, in two parts, with a pause after it.
        let parts = [&[0, 0, 0, 0][..], &[1, 7][..]];
        let frames = tokio_stream::iter(std::iter::repeat(parts).flatten());
        let frames = frames.then(|part| async move {
            tokio::time::sleep(Duration::from_secs(14)).await;
            FrameResult::Ok(Frame::data(Bytes::from_static(part)))
        });
        let start = Instant::now();
        let frames = Body::new(StreamBody::new(Box::pin(frames)));
        let body = TimeoutBody::of_requests(frames, in_an_hour(), TIMEOUTS);
        assert_eq!(read_to_end(body).await.1, Err(Code::DeadlineExceeded));
        assert_eq!(start.elapsed(), TIMEOUTS.total);

        // One message that never ends.
        let frames = tokio_stream::iter([&[0, 0, 0, 1, 0][..]]);
        let frames = frames.chain(tokio_stream::iter(std::iter::repeat(&[7][..])));
        let frames = frames.then(|part| async move {
            tokio::time::sleep(Duration::from_secs(10)).await;
            FrameResult::Ok(Frame::data(Bytes::from_static(part)))
        });
        let start = Instant::now();
        let frames = Body::new(StreamBody::new(Box::pin(frames)));
        let body = TimeoutBody::of_requests(frames, in_an_hour(), TIMEOUTS);
        assert_eq!(read_to_end(body).await.1, Err(Code::DeadlineExceeded));
        assert_eq!(start.elapsed().as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn cancelled_request_never_completes() {
        let two_chunks = |end_stream| TestBody {
            frames: tokio_stream::iter(vec![chunk(), chunk()]),
            end_stream,
        };
        assert_eq!(read(two_chunks(true)).await, (2, Ok(())));
        // hyper reports RST_STREAM with NO_ERROR as the end of the body.
        let timed_out = Err(Code::DeadlineExceeded);
        assert_eq!(read(two_chunks(false)).await, (2, timed_out));
        // tonic mistakes RST_STREAM with CANCEL for it; other resets are errors.
        for (code, want) in [
            (Code::Cancelled, Code::DeadlineExceeded),
            (Code::Unavailable, Code::Unavailable),
        ] {
            let reset = TestBody {
                frames: tokio_stream::iter(vec![chunk(), Err(Status::new(code, "reset"))]),
                end_stream: true,
            };
            assert_eq!(read(reset).await, (1, Err(want)));
        }
    }

    #[tokio::test]
    async fn trailers_end_the_request() {
        let trailers = Ok(Frame::trailers(http::HeaderMap::new()));
        let frames = tokio_stream::iter(vec![chunk(), trailers]);
        let mut body = TimeoutBody::new(
            Body::new(StreamBody::new(frames)),
            Deadline::after(Duration::from_secs(1)),
            TIMEOUTS,
        );
        assert!(body.frame().await.unwrap().unwrap().is_data());
        assert!(body.frame().await.is_none());
    }
}
