//! Writes that go out together. A connection is flushed after each answer; where
//! many are ready at once, that is a system call for each. Here a flush lets all
//! else that is ready run first, and what has come by then goes out as one.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// What is longer than this, in bytes, is not copied but written at once, behind
/// what is held.
const SHORT: usize = 4 << 10;

/// The most that is held, in bytes.
const MOST: usize = 32 << 10;

/// A connection that holds short writes back until it is flushed.
#[derive(Debug)]
pub struct CoalescedWrites<T> {
    io: T,
    held: BytesMut,
    /// Others have run since the flush was asked for.
    yielded: bool,
}

impl<T> CoalescedWrites<T> {
    /// Holds nothing yet.
    pub fn new(io: T) -> Self {
        Self {
            io,
            held: BytesMut::new(),
            yielded: false,
        }
    }
}

impl<T: AsyncWrite + Unpin> CoalescedWrites<T> {
    /// Writes what is held, and of `more` as much as goes with it: that much.
    fn poll_out(&mut self, cx: &mut Context<'_>, more: &[u8]) -> Poll<io::Result<usize>> {
        while !self.held.is_empty() {
            let parts = [IoSlice::new(&self.held), IoSlice::new(more)];
            let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &parts))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            if let Some(of_more) = written.checked_sub(self.held.len()) {
                // An idle connection holds no memory.
                self.held = BytesMut::new();
                return Poll::Ready(Ok(of_more));
            }
            self.held.advance(written);
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
        if data.len() <= SHORT && this.held.len() + data.len() <= MOST {
            if this.held.is_empty() {
                this.held.reserve(SHORT);
            }
            this.held.extend_from_slice(data);
            return Poll::Ready(Ok(data.len()));
        }
        match ready!(this.poll_out(cx, data))? {
            0 => Pin::new(&mut this.io).poll_write(cx, data),
            written => Poll::Ready(Ok(written)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.held.is_empty() && !std::mem::replace(&mut this.yielded, true) {
            // Woken by itself, a task goes behind all that are ready.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(this.poll_out(cx, &[]))?;
        this.yielded = false;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_out(cx, &[]))?;
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

impl<T: Connected> Connected for CoalescedWrites<T> {
    type ConnectInfo = T::ConnectInfo;

    fn connect_info(&self) -> T::ConnectInfo {
        self.io.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// Takes `most` bytes a time and remembers each time.
    #[derive(Default)]
    struct Writes {
        most: usize,
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
                let room = self.most - written.len();
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

    fn batched(most: usize) -> CoalescedWrites<Writes> {
        CoalescedWrites::new(Writes {
            most,
            all: Vec::new(),
        })
    }

    #[tokio::test]
    async fn short_writes_go_out_as_one_when_flushed() {
        let mut batched = batched(usize::MAX);
        batched.write_all(b"ab").await.unwrap();
        batched.write_all(b"c").await.unwrap();
        assert!(batched.io.all.is_empty());
        // All else that is ready runs first, and its writes go along.
        assert!(poll_flush(&mut batched).is_pending());
        batched.write_all(b"d").await.unwrap();
        assert!(poll_flush(&mut batched).is_ready());
        assert_eq!(batched.io.all, [b"abcd"]);
        // With nothing held, a flush is one.
        assert!(poll_flush(&mut batched).is_ready());
        batched.write_all(b"e").await.unwrap();
        batched.shutdown().await.unwrap();
        assert_eq!(batched.io.all, [&b"abcd"[..], b"e"]);
    }

    fn poll_flush(batched: &mut CoalescedWrites<Writes>) -> Poll<io::Result<()>> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        Pin::new(batched).poll_flush(&mut cx)
    }

    #[tokio::test]
    async fn bytes_keep_their_order_however_they_are_taken() {
        for most in [1, 7, SHORT, usize::MAX] {
            let mut batched = batched(most);
            let mut want = Vec::new();
            for (i, length) in [3, SHORT, SHORT + 1, 0, 5, MOST, 1].into_iter().enumerate() {
                let data = vec![i as u8; length];
                batched.write_all(&data).await.unwrap();
                want.extend(data);
            }
            for i in 0..20 {
                let data = vec![i; SHORT];
                batched.write_all(&data).await.unwrap();
                want.extend(data);
                assert!(batched.held.len() <= MOST);
            }
            batched.flush().await.unwrap();
            assert!(batched.io.all.concat() == want, "{most}");
        }
    }

    #[tokio::test]
    async fn a_long_write_goes_out_with_what_is_held() {
        let mut batched = batched(usize::MAX);
        batched.write_all(b"head").await.unwrap();
        batched.write_all(&[b'x'; SHORT + 1]).await.unwrap();
        assert_eq!(batched.io.all.len(), 1);
        assert_eq!(batched.io.all[0].len(), 4 + SHORT + 1);
    }

    #[tokio::test]
    async fn a_connection_that_takes_nothing_is_an_error() {
        let mut batched = batched(0);
        batched.write_all(b"a").await.unwrap();
        let error = batched.flush().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
    }
}
