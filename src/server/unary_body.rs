//! The response body of a unary call. A long message is an HTTP frame of its own, without a
//! copy.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame, SizeHint};

use crate::memory::Reservation;
use crate::server::response_write_timeout::MAX_CHUNK_BYTES;

/// A message and the status OK. Source: gRPC over HTTP/2,
/// "Length-Prefixed-Message" and "Trailers".
#[derive(Debug)]
pub struct UnaryBody {
    /// The prefix, and a short message; until it is sent.
    prefix: Option<Bytes>,
    /// A long message; until it is sent.
    message: Option<Bytes>,
    /// The trailers are not sent yet.
    trailers: bool,
}

impl UnaryBody {
    /// Creates the body of a message; `None` for one longer than the prefix can express.
    /// `reservation` is returned when HTTP/2 has sent the message: a client that does not
    /// read keeps it there.
    pub fn new(message: Bytes, is_compressed: bool, reservation: Reservation) -> Option<Self> {
        let length = u32::try_from(message.len()).ok()?;
        // Copying a short message costs less than a second frame.
        let short = message.len() <= MAX_CHUNK_BYTES;
        let mut prefix = Vec::with_capacity(5 + if short { message.len() } else { 0 });
        prefix.put_u8(is_compressed.into());
        prefix.put_u32(length);
        if short {
            prefix.put_slice(&message);
        }
        Some(Self {
            prefix: Some(reservation.attach(prefix)),
            message: (!short).then_some(message),
            trailers: true,
        })
    }
}

impl Body for UnaryBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        if let Some(data) = this.prefix.take().or_else(|| this.message.take()) {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if !std::mem::take(&mut this.trailers) {
            return Poll::Ready(None);
        }
        let ok = HeaderValue::from_static("0");
        let trailers = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), ok)]);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        !self.trailers
    }

    fn size_hint(&self) -> SizeHint {
        let parts = [&self.prefix, &self.message];
        let length: usize = parts.into_iter().flatten().map(Bytes::len).sum();
        SizeHint::with_exact(length as u64)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn long_message_is_a_frame_of_its_own() {
        for (length, data_frames) in [
            (0, 1),
            (3, 1),
            (MAX_CHUNK_BYTES, 1),
            (MAX_CHUNK_BYTES + 1, 2),
        ] {
            let message = Bytes::from(vec![7; length]);
            let mut body = UnaryBody::new(message.clone(), false, Reservation::default()).unwrap();
            assert_eq!(body.size_hint().exact(), Some(5 + length as u64));
            let mut data = Vec::new();
            for _ in 0..data_frames {
                let frame = body.frame().await.unwrap().unwrap();
                data.extend_from_slice(&frame.into_data().unwrap());
            }
            assert_eq!(data[0], 0);
            assert_eq!(data[1..5], (length as u32).to_be_bytes());
            assert_eq!(data[5..], message);
            assert!(!body.is_end_stream());
            let trailers = body.frame().await.unwrap().unwrap();
            assert_eq!(trailers.into_trailers().unwrap()["grpc-status"], "0");
            assert!(body.is_end_stream() && body.frame().await.is_none());
        }
    }
}
