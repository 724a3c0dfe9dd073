//! Request body with an idle timeout and a total timeout. Also detects RST_STREAM: tonic
//! takes one with CANCEL or NO_ERROR for the end of the body; other resets are errors.

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

/// How long a request body may take to arrive.
#[derive(Clone, Copy, Debug)]
pub struct RequestTimeouts {
    /// Longest time without data.
    pub idle: Duration,
    /// Longest time until its end, even if the client's deadline is later. Also limits
    /// uploads and the request streams of reflection.
    pub total: Duration,
}

/// A request body that fails with DEADLINE_EXCEEDED when one of its timeouts passes.
pub struct TimeoutBody {
    body: Body,
    idle: Duration,
    /// When the body must be complete.
    until: Instant,
    /// Fires at the idle timeout; `None` while data arrives.
    timer: Option<Pin<Box<Sleep>>>,
    /// The client has cancelled the request.
    reset: bool,
}

impl TimeoutBody {
    /// Wraps a body that must be complete by `until`, and within the timeouts.
    pub fn new(body: Body, until: Deadline, timeouts: RequestTimeouts) -> Self {
        Self {
            body,
            idle: timeouts.idle,
            until: until.min(Deadline::after(timeouts.total)).instant(),
            timer: None,
            reset: false,
        }
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
                    this.timer = None;
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
        let until = this.until;
        let idle = this.idle;
        let timer = this
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(until.min(Instant::now() + idle))));
        ready!(timer.as_mut().poll(cx));
        let problem = match Instant::now() < until {
            true => format!("the request body was idle for {} s", idle.as_secs()),
            false => "the request body was not complete in time".to_owned(),
        };
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
        total: Duration::from_secs(15 * 60),
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

    /// Reads a body whose deadline is in an hour: its length, and how it ends.
    async fn read<B>(body: B) -> (usize, Result<(), Code>)
    where
        B: http_body::Body<Data = Bytes, Error = Status> + Send + 'static,
    {
        let mut body = TimeoutBody::new(
            Body::new(body),
            Deadline::after(Duration::from_secs(3_600)),
            TIMEOUTS,
        );
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
