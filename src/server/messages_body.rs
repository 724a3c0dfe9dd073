//! The response body of a stream: messages that are ready together share an HTTP frame.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame};
use tokio_stream::Stream;
use tonic::Status;

use super::compression::{compressed, gzip};
use super::stream_info::InstrumentedStream;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::memory::{LONG_BYTES, Memory, SHORT_BYTES};

/// The length at which a frame with several messages is sent.
const FRAME_BYTES: usize = 16 << 10;

/// How long a message waits for its turn to be compressed. Then it is sent uncompressed.
const MAX_TURN_WAIT: Duration = Duration::from_secs(10);

/// A long message that is being compressed; with the compressed one, if that succeeds.
type Compressing = Pin<Box<dyn Future<Output = (Bytes, Option<Bytes>)> + Send>>;

/// The messages of a stream, and its status.
pub(super) struct MessagesBody {
    stream: InstrumentedStream,
    is_compressed: bool,
    memory: Memory,
    compressing: Option<Compressing>,
    /// Other tasks take their turn before the next message is compressed.
    yields: bool,
    /// The trailers that follow the last frame.
    trailers: Option<HeaderMap>,
    is_ended: bool,
}

impl MessagesBody {
    pub(super) fn new(stream: InstrumentedStream, is_compressed: bool, memory: Memory) -> Self {
        Self {
            stream,
            is_compressed,
            memory,
            compressing: None,
            yields: false,
            trailers: None,
            is_ended: false,
        }
    }

    /// Compresses a message, and appends it to a frame.
    fn append(&self, frame: &mut Vec<u8>, message: &Bytes) -> Result<(), Error> {
        match self.is_compressed {
            true => append(frame, &gzip(message)?, true),
            false => append(frame, message, false),
        }
    }

    /// Returns the frame of a long message when it is compressed.
    fn poll_long(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Some(compressing) = &mut self.compressing else {
            return Poll::Ready(None);
        };
        let (message, compressed) = ready!(compressing.as_mut().poll(cx));
        self.compressing = None;
        let (message, is_compressed) = match compressed {
            Some(compressed) => (compressed, true),
            None => (message, false),
        };
        let mut frame = Vec::new();
        let reserved = self.memory.reserve(5 + message.len()).map_err(Error::from);
        let framed = reserved.and_then(|reservation| {
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

/// Appends a message to a frame, which has complete messages only. Its memory is reserved before.
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

impl Body for MessagesBody {
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
            if this.is_compressed && message.len() > LONG_BYTES {
                let memory = this.memory.clone();
                this.compressing = Some(Box::pin(async move {
                    let deadline = Deadline::after(MAX_TURN_WAIT);
                    let compressed = compressed(&message, &memory, deadline).await;
                    (message, compressed)
                }));
                if !frame.is_empty() {
                    break;
                }
                match ready!(this.poll_long(cx)) {
                    Some(frame) => return Poll::Ready(Some(Ok(Frame::data(frame)))),
                    None => break,
                }
            }
            let length = frame.len() + message.len();
            let reserved = match length <= SHORT_BYTES {
                true => Ok(()),
                false => reservation.resize(length).map_err(Error::from),
            };
            if let Err(error) = reserved.and_then(|()| this.append(&mut frame, &message)) {
                let status = this.stream.fail(&error);
                this.end(Err(status));
            }
            // Compression may make little of much.
            input += message.len();
            if this.is_compressed && input > LONG_BYTES {
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
