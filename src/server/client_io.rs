//! The bytes of a client's connection: notes whether the preface of HTTP/2 has arrived, fails a
//! write that the client does not read, and lets other connections take their turn between reads.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// The connection preface and the header of the SETTINGS frame that follows it. Source: RFC
/// 9113, "HTTP/2 Connection Preface".
const PREFACE_BYTES: usize = 24 + 9;

/// How much a connection reads before the others of its worker take their turn, in bytes.
///
/// h2 handles all that has arrived before it returns, and a client that sends without a pause keeps
/// it there: tokio interrupts a task only after 128 reads, which can be 60,000 frames.
const MAX_TURN_BYTES: usize = 8 << 10;

/// How much of the preface has arrived.
#[derive(Clone, Debug, Default)]
pub(super) struct Preface(Arc<AtomicUsize>);

/// A connection of a client.
#[derive(Debug)]
pub(super) struct ClientIo<T> {
    io: T,
    preface: Preface,
    /// Whether the preface is complete: nothing is counted any more.
    is_begun: bool,
    /// Bytes read since the connection last waited.
    turn_bytes: usize,
    write_timeout: Duration,
    /// Runs while the client's receive buffer is full.
    write_timer: Option<Pin<Box<Sleep>>>,
}

impl Preface {
    /// Returns whether the preface has arrived, or as many bytes of HTTP/1.1.
    pub(super) fn is_complete(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= PREFACE_BYTES
    }
}

impl<T> ClientIo<T> {
    /// Wraps a connection that has read nothing yet. A write fails if the client reads nothing
    /// for `write_timeout`.
    pub(super) fn new(io: T, preface: Preface, write_timeout: Duration) -> Self {
        Self {
            io,
            preface,
            is_begun: false,
            turn_bytes: 0,
            write_timeout,
            write_timer: None,
        }
    }

    /// Returns the result of a write, or an error if writes have been pending for too long.
    fn limit<R>(
        &mut self,
        written: Poll<io::Result<R>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<R>> {
        if written.is_ready() {
            self.write_timer = None;
            return written;
        }
        let timeout = self.write_timeout;
        let timer = self
            .write_timer
            .get_or_insert_with(|| Box::pin(sleep(timeout)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for ClientIo<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.turn_bytes >= MAX_TURN_BYTES {
            this.turn_bytes = 0;
            // A task that wakes itself is scheduled after all that are ready.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.io).poll_read(cx, buffer);
        if read.is_pending() {
            this.turn_bytes = 0;
        }
        ready!(read)?;
        let length = buffer.filled().len() - before;
        this.turn_bytes += length;
        if !this.is_begun {
            this.preface.0.fetch_add(length, Ordering::Relaxed);
            this.is_begun = this.preface.is_complete();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for ClientIo<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write(cx, bytes);
        this.limit(written, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write_vectored(cx, parts);
        this.limit(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.io).poll_flush(cx);
        this.limit(flushed, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let closed = Pin::new(&mut this.io).poll_shutdown(cx);
        this.limit(closed, cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::task::Wake;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn write_fails_when_the_client_reads_nothing() {
        let (mut client, server) = duplex(8);
        let mut server = ClientIo::new(server, Preface::default(), TIMEOUT);
        let start = Instant::now();
        // A slow client that reads is served.
        let slow = tokio::spawn(async move {
            for _ in 0..4 {
                tokio::time::sleep(TIMEOUT - Duration::from_secs(1)).await;
                client.read_exact(&mut [0; 4]).await.unwrap();
            }
            client
        });
        server.write_all(&[1; 24]).await.unwrap();
        let client = slow.await.unwrap();
        let error = server.write_all(&[1; 16]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_secs(), (4 * 29) + 30);
        drop(client);
    }

    #[tokio::test]
    async fn client_that_never_pauses_leaves_turns_to_others() {
        let (mut client, server) = duplex(64 << 10);
        let mut server = ClientIo::new(server, Preface::default(), TIMEOUT);
        client.write_all(&[1; 5 * 4096]).await.unwrap();
        // What each turn reads, and whether another one follows at once.
        let mut turns = Vec::new();
        for _ in 0..3 {
            let woken = Arc::<Woken>::default();
            let waker = woken.clone().into();
            let cx = &mut Context::from_waker(&waker);
            let mut turn = 0;
            let mut bytes = [0; 4096];
            let mut buffer = ReadBuf::new(&mut bytes);
            while Pin::new(&mut server).poll_read(cx, &mut buffer).is_ready() {
                turn += buffer.filled().len();
                buffer.clear();
            }
            turns.push((turn, woken.0.load(Ordering::Relaxed)));
        }
        assert_eq!(turns, [(8192, true), (8192, true), (4096, false)]);
        client.write_all(&[1; 10]).await.unwrap();
        server.read_exact(&mut [0; 10]).await.unwrap();
    }

    #[tokio::test]
    async fn preface_is_complete_with_the_head_of_settings() {
        let (mut client, server) = duplex(1 << 10);
        let preface = Preface::default();
        let mut server = ClientIo::new(server, preface.clone(), TIMEOUT);
        for length in [24, 8, 1, 9] {
            assert_eq!(preface.is_complete(), length == 9);
            client.write_all(&[0; 33][..length]).await.unwrap();
            server.read_exact(&mut [0; 33][..length]).await.unwrap();
        }
    }
}
