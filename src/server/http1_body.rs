//! The body of a request over HTTP/1.1.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// A body that knows when it is complete. hyper's own does not, in chunks; one that is broken off
/// is an error there, unlike over HTTP/2.
pub(super) struct Http1Body {
    body: Incoming,
    is_complete: bool,
}

impl Http1Body {
    pub(super) fn new(body: Incoming) -> Self {
        Self {
            is_complete: body.is_end_stream(),
            body,
        }
    }
}

impl Body for Http1Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if self.is_complete {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        self.is_complete = matches!(polled, Poll::Ready(None)) || self.body.is_end_stream();
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.is_complete
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
