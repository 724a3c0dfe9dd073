//! Request body with an idle timeout and a total timeout. Also detects RST_STREAM, which
//! tonic takes for the end of the message.

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

/// How long a request may take to arrive.
#[derive(Clone, Copy, Debug)]
pub struct RequestTimeouts {
    /// Without a byte.
    pub idle: Duration,
    /// Until its end, even where the client's deadline is later: an upload, or the
    /// requests of a reflection stream.
    pub total: Duration,
}

/// A request body that fails with DEADLINE_EXCEEDED when one of its timeouts passes.
pub struct TimeoutBody {
    body: Body,
    idle: Duration,
    /// When the body must be complete.
    until: Instant,
    /// Fires when the body is idle for too long; none while data arrives.
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
                // gRPC requests have no trailers, and tonic takes them for a complete message.
                Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => return Poll::Ready(None),
                Poll::Ready(Some(Ok(frame))) => {
                    this.timer = None;
                    return Poll::Ready(Some(Ok(frame)));
                }
                // END_STREAM has arrived.
                Poll::Ready(None) if this.body.is_end_stream() => return Poll::Ready(None),
                // RST_STREAM with NO_ERROR or CANCEL, which tonic takes for a complete
                // message. The body then never ends: its reader is dropped, since hyper
                // checks for a reset while a response is pending.
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
            false => "the request was not complete in time".to_owned(),
        };
        let error = Error::RequestNotReceived {
            code: Code::DeadlineExceeded,
            problem,
        };
        let nowhere = error::StatusContext {
            operation: "",
            upstream: "",
            request_id: "",
            action_started: false,
        };
        Poll::Ready(Some(Err(error.status(&nowhere))))
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

    type Came = Result<Frame<Bytes>, Status>;

    /// A body whose end is one, or is that of a stream that was reset.
    struct Ends<S>(S, bool);

    impl<S: Stream<Item = Came> + Unpin> http_body::Body for Ends<S> {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Pin::new(&mut self.0).poll_next(cx)
        }

        fn is_end_stream(&self) -> bool {
            self.1 && self.0.size_hint().1 == Some(0)
        }
    }

    fn piece() -> Came {
        Ok(Frame::data(Bytes::from_static(b"x")))
    }

    /// How much comes of a body, and how it ends; all of it is due in an hour.
    async fn read<B>(body: B) -> (usize, Result<(), Code>)
    where
        B: http_body::Body<Data = Bytes, Error = Status> + Send + 'static,
    {
        let mut body = TimeoutBody::new(
            Body::new(body),
            Deadline::after(Duration::from_secs(3_600)),
            TIMEOUTS,
        );
        let mut came = 0;
        loop {
            match body.frame().await {
                Some(Ok(frame)) => came += frame.into_data().unwrap().len(),
                Some(Err(error)) => return (came, Err(error.code())),
                None => return (came, Ok(())),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_nothing_is_not_waited_for() {
        let begun = Instant::now();
        let silent = tokio_stream::iter([piece()]).chain(tokio_stream::pending());
        let late = Err(Code::DeadlineExceeded);
        assert_eq!(read(StreamBody::new(silent)).await, (1, late));
        assert_eq!(begun.elapsed().as_secs(), TIMEOUTS.idle.as_secs());

        // Nor who sends a little for ever.
        let pause = TIMEOUTS.idle - Duration::from_secs(1);
        let begun = Instant::now();
        let little = tokio_stream::iter(std::iter::repeat_with(piece)).throttle(pause);
        let (came, end) = read(StreamBody::new(Box::pin(little))).await;
        assert_eq!(end, late);
        assert_eq!(begun.elapsed().as_secs(), TIMEOUTS.total.as_secs());
        assert_eq!(came as u64, 1 + TIMEOUTS.total.as_secs() / pause.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_taken_back_is_never_whole() {
        let whole = || tokio_stream::iter(vec![piece(), piece()]);
        assert_eq!(read(Ends(whole(), true)).await, (2, Ok(())));
        // RST_STREAM with NO_ERROR looks like an end, ...
        let late = Err(Code::DeadlineExceeded);
        assert_eq!(read(Ends(whole(), false)).await, (2, late));
        // ... and so does, to tonic, one with CANCEL; another one is an error.
        for (code, want) in [
            (Code::Cancelled, Code::DeadlineExceeded),
            (Code::Unavailable, Code::Unavailable),
        ] {
            let error = tokio_stream::iter(vec![piece(), Err(Status::new(code, "reset"))]);
            assert_eq!(read(Ends(error, true)).await, (1, Err(want)));
        }
    }

    #[tokio::test]
    async fn trailers_end_a_request() {
        let trailers = Ok(Frame::trailers(http::HeaderMap::new()));
        let frames = tokio_stream::iter(vec![piece(), trailers]);
        let mut body = TimeoutBody::new(
            Body::new(StreamBody::new(frames)),
            Deadline::after(Duration::from_secs(1)),
            TIMEOUTS,
        );
        assert!(body.frame().await.unwrap().unwrap().is_data());
        assert!(body.frame().await.is_none());
    }
}
