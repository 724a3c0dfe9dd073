//! The response body of a stream: messages that are ready together share an HTTP frame.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame};
use tokio_stream::Stream;
use tonic::Status;

use super::message_format::MessageFormat;
use super::stream_info::InstrumentedStream;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::memory::{LONG_BYTES, Memory, Reservation, SHORT_BYTES};

/// The length at which a frame with several messages is sent.
const FRAME_BYTES: usize = 16 << 10;

/// How long a message waits for its turn to be encoded. Then it is sent uncompressed; one that
/// becomes JSON fails.
const MAX_TURN_WAIT: Duration = Duration::from_secs(30);

/// A long message that is being encoded, and whether it is then compressed.
type Encoding = Pin<Box<dyn Future<Output = Result<(Bytes, bool), Error>> + Send>>;

/// Messages, of which one may fail to be encoded.
pub(super) trait Messages: Stream<Item = Result<Bytes, Status>> + Send + Unpin {
    /// Ends the stream with an error, and returns its status.
    fn fail(&mut self, error: &Error) -> Status;
}

impl Messages for InstrumentedStream {
    fn fail(&mut self, error: &Error) -> Status {
        InstrumentedStream::fail(self, error)
    }
}

/// The messages of a stream, and its status.
pub(super) struct MessagesBody<S = InstrumentedStream> {
    stream: S,
    format: MessageFormat,
    memory: Memory,
    encoding: Option<Encoding>,
    /// Other tasks take their turn before the next message is encoded.
    yields: bool,
    /// The trailers that follow the last frame.
    trailers: Option<HeaderMap>,
    is_ended: bool,
}

impl<S: Messages> MessagesBody<S> {
    pub(super) fn new(stream: S, format: MessageFormat, memory: Memory) -> Self {
        Self {
            stream,
            format,
            memory,
            encoding: None,
            yields: false,
            trailers: None,
            is_ended: false,
        }
    }

    /// Appends a message to a frame, whose memory `reservation` has. The frame is complete
    /// messages only.
    fn append(
        &self,
        frame: &mut Vec<u8>,
        reservation: &mut Reservation,
        message: Bytes,
    ) -> Result<(), Error> {
        let reserve = |reservation: &mut Reservation, length: usize| {
            let all = frame.len() + length;
            match all <= SHORT_BYTES {
                true => Ok(()),
                false => reservation.resize(all),
            }
        };
        reserve(reservation, message.len())?;
        let (message, is_compressed) = self.format.encode_now(message, &self.memory)?;
        reserve(reservation, message.len())?;
        append(frame, &message, is_compressed)
    }

    /// Returns whether messages are sent in another form than they arrive in.
    fn encodes(&self) -> bool {
        self.format.json.is_some() || self.format.may_compress()
    }

    /// Returns the frame of a long message when it is encoded.
    fn poll_long(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Some(encoding) = &mut self.encoding else {
            return Poll::Ready(None);
        };
        let encoded = ready!(encoding.as_mut().poll(cx));
        self.encoding = None;
        let framed = encoded.and_then(|(message, is_compressed)| {
            let reservation = self.memory.reserve(5 + message.len())?;
            let mut frame = Vec::new();
            append(&mut frame, &message, is_compressed)?;
            Ok(reservation.attach(frame))
        });
        Poll::Ready(match framed {
            Ok(frame) => Some(frame),
            Err(error) => {
                let status = self.stream.fail(&error);
                self.end(Err(status));
                None
            }
        })
    }

    fn end(&mut self, result: Result<(), Status>) {
        let mut trailers = HeaderMap::new();
        let added = match &result {
            Ok(()) => None,
            Err(status) => status.add_header(&mut trailers).err(),
        };
        if result.is_ok() || added.is_some() {
            let code = if result.is_ok() { "0" } else { "13" };
            let name = HeaderName::from_static("grpc-status");
            trailers.insert(name, HeaderValue::from_static(code));
        }
        self.trailers = Some(trailers);
    }
}

/// Appends an encoded message to a frame.
fn append(frame: &mut Vec<u8>, message: &[u8], is_compressed: bool) -> Result<(), Error> {
    let length = u32::try_from(message.len()).map_err(|_| Error::ResponseTooLarge {
        limit: u32::MAX as usize,
    })?;
    frame.reserve_exact(5 + message.len());
    frame.put_u8(is_compressed.into());
    frame.put_u32(length);
    frame.put_slice(message);
    Ok(())
}

impl<S: Messages> Body for MessagesBody<S> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if std::mem::take(&mut this.yields) {
            // A task that wakes itself is scheduled after all that are ready.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(frame) = ready!(this.poll_long(cx)) {
            return Poll::Ready(Some(Ok(Frame::data(frame))));
        }
        let mut frame = Vec::new();
        let mut reservation = this.memory.empty();
        let mut input = 0;
        while !this.is_ended && this.trailers.is_none() && frame.len() < FRAME_BYTES {
            let message = match Pin::new(&mut this.stream).poll_next(cx) {
                Poll::Pending if frame.is_empty() => return Poll::Pending,
                Poll::Pending => break,
                Poll::Ready(None) => {
                    this.end(Ok(()));
                    break;
                }
                Poll::Ready(Some(Err(status))) => {
                    this.end(Err(status));
                    break;
                }
                Poll::Ready(Some(Ok(message))) => message,
            };
            if this.encodes() && message.len() > LONG_BYTES {
                let (format, memory) = (this.format.clone(), this.memory.clone());
                let mut message = message;
                this.encoding = Some(Box::pin(async move {
                    let deadline = Deadline::after(MAX_TURN_WAIT);
                    let encoded = format.encode(&mut message, &memory, deadline).await;
                    encoded.map(|is_compressed| (message, is_compressed))
                }));
                if !frame.is_empty() {
                    break;
                }
                match ready!(this.poll_long(cx)) {
                    Some(frame) => return Poll::Ready(Some(Ok(Frame::data(frame)))),
                    None => break,
                }
            }
            input += message.len();
            if let Err(error) = this.append(&mut frame, &mut reservation, message) {
                let status = this.stream.fail(&error);
                this.end(Err(status));
            }
            // Compression may make little of much.
            if this.encodes() && input > LONG_BYTES {
                this.yields = true;
                break;
            }
        }
        if !frame.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(reservation.attach(frame)))));
        }
        this.is_ended = true;
        Poll::Ready(
            this.trailers
                .take()
                .map(|trailers| Ok(Frame::trailers(trailers))),
        )
    }

    fn is_end_stream(&self) -> bool {
        self.is_ended && self.trailers.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Waker;

    use http_body_util::BodyExt;

    use super::*;
    use crate::memory::MemoryBudget;
    use crate::server::message_format::Encoding;

    struct Script(Vec<Bytes>);

    impl Stream for Script {
        type Item = Result<Bytes, Status>;

        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            Poll::Ready(self.0.pop().map(Ok))
        }
    }

    impl Messages for Script {
        fn fail(&mut self, _: &Error) -> Status {
            Status::unknown("failed")
        }
    }

    /// A long message is not compressed before its turn, and a short one needs none.
    #[tokio::test]
    async fn long_message_of_a_stream_waits_for_its_turn() {
        let budget = MemoryBudget::new(64 << 20);
        let memory = budget.open(1);
        let long = Bytes::from(vec![7; LONG_BYTES + 1]);
        let short = Bytes::from_static(b"short");
        let format = MessageFormat::new(Encoding::default(), None, true);
        let mut body = MessagesBody::new(Script(vec![long, short]), format, memory.clone());
        let mut cx = Context::from_waker(Waker::noop());
        // The turns of all.
        let others: Vec<_> = (2..100).map(|client| budget.open(client)).collect();
        let mut running = Vec::new();
        for other in &others {
            if let Poll::Ready(turn) = pin!(other.turn(LONG_BYTES + 1)).poll(&mut cx) {
                running.push(turn);
            }
        }
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(first.len() < 100, "{}", first.len());
        assert!(Pin::new(&mut body).poll_frame(&mut cx).is_pending());
        drop(running);
        let second = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(second[0], 1, "compressed");
        assert!(body.frame().await.unwrap().unwrap().is_trailers());
    }
}
