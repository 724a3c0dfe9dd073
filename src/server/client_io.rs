//! The bytes of a client's connection: notes whether the preface of HTTP/2 has arrived, and
//! fails a write that the client does not read. Over HTTP/1.1, fails a read when the head of a
//! request does not arrive in time.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::connection_limits::Activity;

/// The connection preface and the header of the SETTINGS frame that follows it. Source: RFC
/// 9113, "HTTP/2 Connection Preface".
const PREFACE_BYTES: usize = 24 + 9;

/// What HTTP/2 begins with, and no method of HTTP/1.1 that the gateway serves. Source: RFC 9113,
/// "HTTP/2 Connection Preface".
const PREFACE_START: &[u8] = b"PRI";

/// How much of the preface has arrived.
#[derive(Clone, Debug, Default)]
pub(super) struct Preface(Arc<Arrived>);

#[derive(Debug, Default)]
struct Arrived {
    bytes: AtomicUsize,
    /// Whether the head of a request over HTTP/1.1 has not arrived in time.
    is_head_late: AtomicBool,
}

/// A connection of a client.
#[derive(Debug)]
pub(super) struct ClientIo<T> {
    io: T,
    preface: Preface,
    /// Whether the preface is complete: nothing is counted any more.
    is_begun: bool,
    /// The first bytes, until the version of HTTP is known.
    start: Vec<u8>,
    /// Set for HTTP/1.1, and until the version is known.
    heads: Option<Heads>,
    write_timeout: Duration,
    /// Runs while the client's receive buffer is full.
    write_timer: Option<Pin<Box<Sleep>>>,
}

/// The heads of requests over HTTP/1.1.
#[derive(Debug)]
struct Heads {
    timeout: Duration,
    activity: Arc<Activity>,
    /// Runs while a head is incomplete: until a call has begun after so many.
    timer: Option<(u64, Pin<Box<Sleep>>)>,
}

impl Heads {
    fn stop_if_begun(&mut self) {
        let begun = self.activity.begun();
        self.timer.take_if(|(before, _)| *before != begun);
    }
}

impl Preface {
    /// Returns whether the preface has arrived, or as many bytes of HTTP/1.1.
    pub(super) fn is_complete(&self) -> bool {
        self.0.bytes.load(Ordering::Relaxed) >= PREFACE_BYTES
    }

    /// Returns whether the connection has failed since a head has not arrived in time.
    pub(super) fn is_head_late(&self) -> bool {
        self.0.is_head_late.load(Ordering::Relaxed)
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
            start: Vec::new(),
            heads: None,
            write_timeout,
            write_timer: None,
        }
    }

    /// Fails reads over HTTP/1.1 when the head of a request is incomplete for `timeout`: some of
    /// it has arrived, and no call has begun.
    pub(super) fn with_head_timeout(mut self, timeout: Duration, activity: Arc<Activity>) -> Self {
        self.heads = Some(Heads {
            timeout,
            activity,
            timer: None,
        });
        self
    }

    /// Notes bytes that have arrived.
    fn received(&mut self, bytes: &[u8]) {
        if !self.is_begun {
            let arrived = &self.preface.0.bytes;
            arrived.fetch_add(bytes.len(), Ordering::Relaxed);
            self.is_begun = self.preface.is_complete();
        }
        let Some(heads) = &mut self.heads else {
            return;
        };
        if self.start.len() < PREFACE_START.len() {
            let missing = PREFACE_START.len() - self.start.len();
            self.start.extend(bytes.iter().take(missing));
            if self.start == PREFACE_START {
                self.heads = None;
                return;
            }
        }
        heads.stop_if_begun();
        if heads.timer.is_none() && heads.activity.is_idle() {
            let timer = Box::pin(sleep(heads.timeout));
            heads.timer = Some((heads.activity.begun(), timer));
        }
    }

    /// Waits for more bytes, at most for the rest of the time for a head.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(heads) = &mut self.heads else {
            return Poll::Pending;
        };
        heads.stop_if_begun();
        let Some((_, timer)) = &mut heads.timer else {
            return Poll::Pending;
        };
        ready!(timer.as_mut().poll(cx));
        (self.preface.0.is_head_late).store(true, Ordering::Relaxed);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
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
        let before = buffer.filled().len();
        match Pin::new(&mut this.io).poll_read(cx, buffer) {
            Poll::Pending => return this.poll_head(cx),
            Poll::Ready(read) => read?,
        }
        if !this.is_begun || this.heads.is_some() {
            this.received(&buffer.filled()[before..]);
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

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
