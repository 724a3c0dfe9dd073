//! The messages of a server-streaming response.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio_stream::Stream;

use crate::engine::FileStream;
use crate::engine::list_stream::ListStream;
use crate::error::Error;
use crate::upstream::Upstream;
use crate::watch::WatchStream;

/// The messages of a server-streaming response, by the kind of the rpc.
pub(super) enum ResponseStream {
    Watch(WatchStream),
    List(ListStream),
    File(FileStream),
}

impl ResponseStream {
    /// Returns the error of a stream that ends before its end, since its upstream is cut off.
    pub(super) fn cut_off(&self, upstream: &Upstream) -> Error {
        match self {
            ResponseStream::Watch(_) | ResponseStream::List(_) => upstream.end(),
            ResponseStream::File(stream) => stream.cut_off(upstream),
        }
    }
}

impl Stream for ResponseStream {
    type Item = Result<Bytes, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.get_mut() {
            ResponseStream::Watch(stream) => Pin::new(stream).poll_next(cx),
            ResponseStream::List(stream) => Pin::new(stream).poll_next(cx),
            ResponseStream::File(stream) => Pin::new(stream).poll_next(cx),
        }
    }
}
