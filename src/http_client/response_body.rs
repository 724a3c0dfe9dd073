//! A response body that is read as a stream.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use tokio::time::{Instant, Sleep, sleep};

use super::{BoxError, body_error, no_data};
use crate::error::Error;

/// The body of a response, decompressed, as it arrives. One chunk is in memory. Dropping it
/// closes the upstream request.
pub struct ResponseBody {
    body: UnsyncBoxBody<Bytes, BoxError>,
    read_timeout: Duration,
    /// When the read in progress fails.
    timer: Pin<Box<Sleep>>,
    /// A read is in progress: the time between two reads does not count.
    is_reading: bool,
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseBody")
    }
}

impl ResponseBody {
    pub(super) fn new<B>(body: B, read_timeout: Duration) -> Self
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        Self {
            body: body.map_err(Into::into).boxed_unsync(),
            read_timeout,
            timer: Box::pin(sleep(read_timeout)),
            is_reading: false,
        }
    }

    /// Reads the next chunk, which is not empty; `None` at the end of the body. Fails with
    /// `NoResponse` if the body is cut off, or after `read_timeout` without a byte, and with
    /// `NotTheResource` if its content coding is invalid.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        loop {
            let frame = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    if !std::mem::replace(&mut self.is_reading, true) {
                        self.timer
                            .as_mut()
                            .reset(Instant::now() + self.read_timeout);
                    }
                    ready!(self.timer.as_mut().poll(cx));
                    return Poll::Ready(Some(Err(no_data(self.read_timeout))));
                }
            };
            self.is_reading = false;
            match frame {
                None => return Poll::Ready(None),
                Some(Err(error)) => {
                    return Poll::Ready(Some(Err(body_error(&*error))));
                }
                // Trailers are skipped.
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Poll::Ready(Some(Ok(data))),
                    _ => {}
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::poll_fn;

    use http_body::Frame;
    use http_body_util::StreamBody;
    use tokio::sync::mpsc;
    use tokio_stream::StreamExt;
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;

    const READ_TIMEOUT: Duration = Duration::from_secs(100);

    #[tokio::test(start_paused = true)]
    async fn silent_body_fails_and_a_pause_of_the_reader_does_not_count() {
        let (sender, receiver) = mpsc::channel::<&'static str>(8);
        let chunks = ReceiverStream::new(receiver);
        let frames = chunks.map(|chunk| Ok::<_, Infallible>(Frame::data(chunk.into())));
        let mut body = ResponseBody::new(StreamBody::new(frames), READ_TIMEOUT);
        for chunk in ["a", "", "b"] {
            sender.send(chunk).await.unwrap();
        }
        let next = async |body: &mut ResponseBody| poll_fn(|cx| body.poll_chunk(cx)).await;
        assert_eq!(next(&mut body).await.unwrap().unwrap(), "a");
        // The client is slow, not the upstream.
        tokio::time::sleep(3 * READ_TIMEOUT).await;
        assert_eq!(next(&mut body).await.unwrap().unwrap(), "b");
        tokio::time::sleep(3 * READ_TIMEOUT).await;
        let started = Instant::now();
        let late = async {
            tokio::time::sleep(READ_TIMEOUT - Duration::from_secs(1)).await;
            sender.send("c").await.unwrap();
        };
        let (chunk, ()) = tokio::join!(next(&mut body), late);
        assert_eq!(chunk.unwrap().unwrap(), "c");
        let error = next(&mut body).await.unwrap().unwrap_err();
        assert!(matches!(error, Error::NoResponse(_)), "{error:?}");
        assert!(error.to_string().contains("read_timeout"), "{error}");
        assert_eq!(started.elapsed(), 2 * READ_TIMEOUT - Duration::from_secs(1));
        drop(sender);
        assert!(next(&mut body).await.is_none());
    }
}
