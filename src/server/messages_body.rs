//! The response body of a stream: messages that are ready together share an HTTP frame.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame};
use tokio_stream::Stream;
use tonic::Status;

use super::message_format::MessageFormat;
use super::stream_info::InstrumentedStream;
use crate::error::Error;
use crate::memory::{Memory, Reservation, SHORT_BYTES};

/// The length at which a frame with several messages is sent.
const FRAME_BYTES: usize = 16 << 10;

/// The messages of a stream, and its status.
pub(super) struct MessagesBody {
    stream: InstrumentedStream,
    format: MessageFormat,
    memory: Memory,
    /// The trailers that follow the last frame.
    trailers: Option<HeaderMap>,
    is_ended: bool,
}

impl MessagesBody {
    pub(super) fn new(stream: InstrumentedStream, format: MessageFormat, memory: Memory) -> Self {
        Self {
            stream,
            format,
            memory,
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
        let length = u32::try_from(message.len()).map_err(|_| Error::ResponseTooLarge {
            limit: u32::MAX as usize,
        })?;
        frame.reserve_exact(5 + message.len());
        frame.put_u8(is_compressed.into());
        frame.put_u32(length);
        frame.put_slice(&message);
        Ok(())
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

impl Body for MessagesBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let mut frame = Vec::new();
        let mut reservation = this.memory.empty();
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
            if let Err(error) = this.append(&mut frame, &mut reservation, message) {
                let status = this.stream.fail(&error);
                this.end(Err(status));
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
