//! Bodies of the rpcs that tonic serves: health, reflection, `GatewayService`. What tonic holds
//! of them draws from the memory of the client.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use super::request_body_timeout::TimeoutBody;
use crate::error::{Error, StatusContext};
use crate::memory::{Exhausted, Memory, Reservation, SHORT_BYTES};

/// A request body that reserves the received bytes, at most the size of one message: tonic does
/// not hold more.
pub(super) struct ChargedBody {
    body: TimeoutBody,
    received: usize,
    max_bytes: usize,
    reservation: Reservation,
}

/// A response body that reserves each frame until HTTP/2 has sent it.
pub(super) struct ChargedResponse {
    pub(super) body: Body,
    pub(super) memory: Memory,
    /// That of the call.
    pub(super) reservation: Option<Reservation>,
}

fn status(exhausted: Exhausted) -> Status {
    Error::from(exhausted).status(&StatusContext::default())
}

impl ChargedBody {
    pub(super) fn new(body: TimeoutBody, memory: Memory, max_bytes: usize) -> Self {
        Self {
            body,
            received: 0,
            max_bytes,
            reservation: memory.empty(),
        }
    }
}

impl http_body::Body for ChargedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            this.received = (this.received + data.len()).min(this.max_bytes);
            if this.received > SHORT_BYTES
                && let Err(exhausted) = this.reservation.resize(this.received)
            {
                return Poll::Ready(Some(Err(status(exhausted))));
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl http_body::Body for ChargedResponse {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        let Some(Ok(frame)) = frame else {
            return Poll::Ready(frame);
        };
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
        };
        let reserved = this.memory.reserve(data.len());
        Poll::Ready(Some(match reserved {
            Ok(reservation) => Ok(Frame::data(reservation.attach(data))),
            Err(exhausted) => {
                // Nothing of the message was sent.
                this.body = Body::empty();
                this.reservation = None;
                let mut trailers = http::HeaderMap::new();
                let status = status(exhausted);
                (status.add_header(&mut trailers)).map(|()| Frame::trailers(trailers))
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
