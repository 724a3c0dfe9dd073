//! Runs the streams of an HTTP/2 connection: counts them, and resets one whose client has not
//! read its response for too long. hyper itself waits for the client without a limit.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::rt::Executor;
use tokio::time::{Sleep, sleep};
use tonic::Status;
use tonic::body::Body;

use super::connection_limits::{ActiveCall, Activity};

tokio::task_local! {
    /// The part of the response that hyper holds until the client of this task's stream reads:
    /// its number, from 1; 0 while hyper waits for the response.
    static UNREAD_PART: Cell<u64>;
}

/// Spawns the streams of one connection.
#[derive(Clone, Debug)]
pub(super) struct StreamExecutor {
    activity: Arc<Activity>,
    unread_timeout: Duration,
}

/// The shortest part of which the last byte is a part of its own, in bytes.
///
/// A client may have a window for a part of the response only. HTTP/2 accepts a part if there is
/// a window for one byte of it, and the stream's task ends with the last part: what HTTP/2 then
/// still holds has no timeout. With this it is a byte.
const MIN_DIVIDED_BYTES: usize = 1 << 10;

/// A response body that notes in the task of its stream which part of it hyper holds.
#[derive(Debug)]
pub(super) struct StreamBody {
    body: Body,
    /// Over HTTP/1.1, whose calls have no task.
    _call: Option<ActiveCall>,
    parts: u64,
    /// The last byte of the part before.
    last_byte: Option<Bytes>,
}

impl StreamExecutor {
    /// Resets streams whose client reads nothing for `unread_timeout`.
    pub(super) fn new(activity: Arc<Activity>, unread_timeout: Duration) -> Self {
        Self {
            activity,
            unread_timeout,
        }
    }
}

impl<F> Executor<F> for StreamExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let call = self.activity.begin();
        let timeout = self.unread_timeout;
        tokio::spawn(UNREAD_PART.scope(Cell::new(0), async move {
            let _call = call;
            // A stream that is dropped before its end is reset.
            run(stream, timeout).await;
        }));
    }
}

/// Runs a stream until it ends, or until its response was unread for `timeout`.
async fn run(stream: impl Future<Output = ()>, timeout: Duration) {
    let mut stream = pin!(stream);
    let mut timer: Option<(u64, Pin<Box<Sleep>>)> = None;
    poll_fn(|cx| {
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let part = UNREAD_PART.with(Cell::get);
        if part == 0 {
            timer = None;
            return Poll::Pending;
        }
        if timer.as_ref().is_none_or(|(of, _)| *of != part) {
            timer = Some((part, Box::pin(sleep(timeout))));
        }
        let Some((_, sleep)) = &mut timer else {
            return Poll::Pending;
        };
        let expired = sleep.as_mut().poll(cx);
        if expired.is_ready() {
            tracing::debug!("stream reset: the client does not read its response");
        }
        expired
    })
    .await;
}

impl StreamBody {
    /// Wraps the response body of a stream, which belongs to a call over HTTP/1.1 if `call` is
    /// set.
    pub(super) fn new(body: Body, call: Option<ActiveCall>) -> Self {
        Self {
            body,
            _call: call,
            parts: 0,
            last_byte: None,
        }
    }
}

impl StreamBody {
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(last) = self.last_byte.take() {
            return Poll::Ready(Some(Ok(Frame::data(last))));
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let Poll::Ready(Some(Ok(frame))) = polled else {
            return polled;
        };
        let length = frame.data_ref().map_or(0, Bytes::len);
        // Before another part HTTP/2 waits anyway.
        if length < MIN_DIVIDED_BYTES || self.body.size_hint().lower() > 0 {
            return Poll::Ready(Some(Ok(frame)));
        }
        let frame = frame.map_data(|mut data| {
            self.last_byte = Some(data.split_off(length - 1));
            data
        });
        Poll::Ready(Some(Ok(frame)))
    }
}

impl http_body::Body for StreamBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let polled = this.poll_part(cx);
        let part = match polled.is_ready() {
            true => {
                this.parts += 1;
                this.parts
            }
            false => 0,
        };
        // Over HTTP/1.1, responses have no task of their own.
        let _ = UNREAD_PART.try_with(|unread| unread.set(part));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.last_byte.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.last_byte {
            None => self.body.size_hint(),
            Some(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, StreamBody as Frames};
    use tokio::time::Instant;
    use tokio_stream::{Stream, StreamExt};

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(60);

    /// Reads a body as hyper does, with a pause after each part; the last one is endless.
    /// Returns after how many seconds the stream ended.
    async fn serve<S>(frames: S, pauses: &[u64]) -> u64
    where
        S: Stream<Item = Result<Frame<Bytes>, Status>> + Send + 'static,
    {
        let start = Instant::now();
        let pauses = pauses.to_vec();
        let mut body = StreamBody::new(Body::new(Frames::new(Box::pin(frames))), None);
        let stream = async move {
            for pause in pauses {
                body.frame().await.unwrap().unwrap();
                tokio::time::sleep(Duration::from_secs(pause)).await;
            }
        };
        let task = UNREAD_PART.scope(Cell::new(0), run(stream, TIMEOUT));
        tokio::spawn(task).await.unwrap();
        start.elapsed().as_secs()
    }

    fn parts() -> impl Stream<Item = Result<Frame<Bytes>, Status>> {
        let part = || Ok(Frame::data(Bytes::from_static(b"x")));
        tokio_stream::iter(std::iter::repeat_with(part))
    }

    #[tokio::test(start_paused = true)]
    async fn unread_response_is_reset() {
        assert_eq!(serve(parts(), &[10, 1_000]).await, 10 + 60);
        // Slow, and never without reading for too long.
        assert_eq!(serve(parts(), &[59, 59, 59, 59]).await, 4 * 59);
        // Waits for the response, not for the client.
        let slow = parts().throttle(Duration::from_secs(500));
        assert_eq!(serve(slow, &[1, 1, 1_000]).await, 1_000 + 60);
    }

    #[tokio::test]
    async fn last_byte_of_a_long_part_is_a_part() {
        for (lengths, want) in [
            (vec![1_023], vec![1_023]),
            (vec![1_024], vec![1_023, 1]),
            (vec![16_384, 10, 2_000], vec![16_383, 1, 10, 1_999, 1]),
        ] {
            let parts = lengths.iter().map(|n| Ok(Frame::data(vec![7; *n].into())));
            let parts: Vec<Result<_, Status>> = parts.collect();
            let mut body = StreamBody::new(Body::new(Frames::new(tokio_stream::iter(parts))), None);
            let mut got = Vec::new();
            while let Some(frame) = body.frame().await {
                got.push(frame.unwrap().into_data().unwrap().len());
            }
            assert_eq!(got, want);
        }
        // The last part ends the stream, not the one before.
        let full = http_body_util::Full::new(Bytes::from(vec![7; 2_000]));
        let mut body = StreamBody::new(Body::new(full), None);
        assert_eq!(body.size_hint().exact(), Some(2_000));
        body.frame().await.unwrap().unwrap();
        assert!(!body.is_end_stream());
        body.frame().await.unwrap().unwrap();
        assert!(body.is_end_stream());
    }
}
