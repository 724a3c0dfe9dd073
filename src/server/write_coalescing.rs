//! Coalesces the writes of a connection. hyper flushes after each response: one system call
//! per response. Here a flush first lets all ready tasks run, then writes the complete buffer
//! with one system call.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The longest write that is buffered, in bytes. A longer one is written at once, after what
/// is buffered.
const MAX_BUFFERED_WRITE_BYTES: usize = 4 << 10;

/// The most that is buffered, in bytes.
const MAX_BUFFER_BYTES: usize = 32 << 10;

/// A connection that buffers short writes until it is flushed.
#[derive(Debug)]
pub struct CoalescedWrites<T> {
    io: T,
    buffer: BytesMut,
    /// The pending flush has yielded to other tasks.
    yielded: bool,
}

impl<T> CoalescedWrites<T> {
    /// Wraps a connection.
    pub fn new(io: T) -> Self {
        Self {
            io,
            buffer: BytesMut::new(),
            yielded: false,
        }
    }
}

impl<T: AsyncWrite + Unpin> CoalescedWrites<T> {
    /// Writes the buffer, and as much of `more` as fits into the same system call. Returns
    /// that length.
    fn poll_write_buffer(&mut self, cx: &mut Context<'_>, more: &[u8]) -> Poll<io::Result<usize>> {
        while !self.buffer.is_empty() {
            let parts = [IoSlice::new(&self.buffer), IoSlice::new(more)];
            let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &parts))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if let Some(written_of_more) = written.checked_sub(self.buffer.len()) {
                // An idle connection keeps no buffer.
                self.buffer = BytesMut::new();
                return Poll::Ready(Ok(written_of_more));
            }
            self.buffer.advance(written);
        }
        Poll::Ready(Ok(0))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for CoalescedWrites<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if data.len() <= MAX_BUFFERED_WRITE_BYTES
            && this.buffer.len() + data.len() <= MAX_BUFFER_BYTES
        {
            if this.buffer.is_empty() {
                this.buffer.reserve(MAX_BUFFERED_WRITE_BYTES);
            }
            this.buffer.extend_from_slice(data);
            return Poll::Ready(Ok(data.len()));
        }
        match ready!(this.poll_write_buffer(cx, data))? {
            0 => Pin::new(&mut this.io).poll_write(cx, data),
            written => Poll::Ready(Ok(written)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.buffer.is_empty() && !std::mem::replace(&mut this.yielded, true) {
            // A task that wakes itself is scheduled after all that are ready.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(this.poll_write_buffer(cx, &[]))?;
        this.yielded = false;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_write_buffer(cx, &[]))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for CoalescedWrites<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, buffer)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// Records each write, of which it accepts at most `max` bytes.
    #[derive(Default)]
    struct Writes {
        max: usize,
        all: Vec<Vec<u8>>,
    }

    impl AsyncWrite for Writes {
        fn poll_write(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            data: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(data)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            parts: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let mut written = Vec::new();
            for part in parts {
                let room = self.max - written.len();
                written.extend_from_slice(&part[..part.len().min(room)]);
            }
            let length = written.len();
            self.all.push(written);
            Poll::Ready(Ok(length))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn coalesced(max: usize) -> CoalescedWrites<Writes> {
        CoalescedWrites::new(Writes {
            max,
            all: Vec::new(),
        })
    }

    #[tokio::test]
    async fn short_writes_are_coalesced_until_flushed() {
        let mut coalesced = coalesced(usize::MAX);
        coalesced.write_all(b"ab").await.unwrap();
        coalesced.write_all(b"c").await.unwrap();
        assert!(coalesced.io.all.is_empty());
        // Other tasks run first, and their writes are included.
        assert!(poll_flush(&mut coalesced).is_pending());
        coalesced.write_all(b"d").await.unwrap();
        assert!(poll_flush(&mut coalesced).is_ready());
        assert_eq!(coalesced.io.all, [b"abcd"]);
        // A flush of an empty buffer does not yield.
        assert!(poll_flush(&mut coalesced).is_ready());
        coalesced.write_all(b"e").await.unwrap();
        coalesced.shutdown().await.unwrap();
        assert_eq!(coalesced.io.all, [&b"abcd"[..], b"e"]);
    }

    fn poll_flush(coalesced: &mut CoalescedWrites<Writes>) -> Poll<io::Result<()>> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        Pin::new(coalesced).poll_flush(&mut cx)
    }

    #[tokio::test]
    async fn bytes_keep_their_order_with_partial_writes() {
        for max in [1, 7, MAX_BUFFERED_WRITE_BYTES, usize::MAX] {
            let mut coalesced = coalesced(max);
            let mut want = Vec::new();
            for (i, length) in [
                3,
                MAX_BUFFERED_WRITE_BYTES,
                MAX_BUFFERED_WRITE_BYTES + 1,
                0,
                5,
                MAX_BUFFER_BYTES,
                1,
            ]
            .into_iter()
            .enumerate()
            {
                let data = vec![i as u8; length];
                coalesced.write_all(&data).await.unwrap();
                want.extend(data);
            }
            for i in 0..20 {
                let data = vec![i; MAX_BUFFERED_WRITE_BYTES];
                coalesced.write_all(&data).await.unwrap();
                want.extend(data);
                assert!(coalesced.buffer.len() <= MAX_BUFFER_BYTES);
            }
            coalesced.flush().await.unwrap();
            assert!(coalesced.io.all.concat() == want, "{max}");
        }
    }

    #[tokio::test]
    async fn long_write_is_sent_with_the_buffer() {
        let mut coalesced = coalesced(usize::MAX);
        coalesced.write_all(b"head").await.unwrap();
        coalesced
            .write_all(&[b'x'; MAX_BUFFERED_WRITE_BYTES + 1])
            .await
            .unwrap();
        assert_eq!(coalesced.io.all.len(), 1);
        assert_eq!(coalesced.io.all[0].len(), 4 + MAX_BUFFERED_WRITE_BYTES + 1);
    }

    #[tokio::test]
    async fn connection_that_accepts_no_bytes_is_an_error() {
        let mut coalesced = coalesced(0);
        coalesced.write_all(b"a").await.unwrap();
        let error = coalesced.flush().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
    }
}
