//! The bytes of a client's connection: notes whether the preface of HTTP/2 has arrived, fails a
//! write that the client does not read, and lets other connections take their turn between reads.
//! Fails a read when the head of a request does not arrive in time.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::connection_limits::Activity;
use super::header_blocks::HeaderBlocks;

/// The connection preface and the header of the SETTINGS frame that follows it. Source: RFC
/// 9113, "HTTP/2 Connection Preface".
const PREFACE_BYTES: usize = 24 + 9;

/// How much a connection reads before the others of its worker take their turn, in bytes.
///
/// h2 handles all that has arrived before it returns, and a client that sends without a pause keeps
/// it there: tokio interrupts a task only after 128 reads, which can be 60,000 frames.
const MAX_TURN_BYTES: usize = 8 << 10;

/// How much a connection over HTTP/1.1 reads at once: as much as the first read buffer of hyper
/// has. A read that fills it makes hyper double it for all later reads, up to the length of a head
/// of a request.
const MAX_HTTP1_READ_BYTES: usize = 8 << 10;

/// What HTTP/2 begins with, and no method of HTTP/1.1 that the gateway serves. Source: RFC 9113,
/// "HTTP/2 Connection Preface".
const PREFACE_START: &[u8] = b"PRI";

/// How much of the preface has arrived.
#[derive(Clone, Debug, Default)]
pub(super) struct Preface(Arc<Arrived>);

#[derive(Debug, Default)]
struct Arrived {
    bytes: AtomicUsize,
    /// Whether the head of a request has not arrived in time.
    is_head_late: AtomicBool,
}

/// A connection of a client.
#[derive(Debug)]
pub(super) struct ClientIo<T> {
    io: T,
    preface: Preface,
    /// Whether the preface is complete: nothing is counted any more.
    is_begun: bool,
    /// Bytes read since the connection last waited.
    turn_bytes: usize,
    /// The first bytes, until the version of HTTP is known.
    start: Vec<u8>,
    /// Set for HTTP/1.1, and until the version is known.
    heads: Option<Heads>,
    /// Set for HTTP/2, and until the version is known.
    header_blocks: Option<HeaderBlocks>,
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
            turn_bytes: 0,
            start: Vec::new(),
            heads: None,
            header_blocks: None,
            write_timeout,
            write_timer: None,
        }
    }

    /// Fails reads over HTTP/2 when a header block is late, or has no space in the budget.
    pub(super) fn with_header_blocks(mut self, header_blocks: HeaderBlocks) -> Self {
        self.header_blocks = Some(header_blocks);
        self
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
            if self.start.len() == PREFACE_START.len() {
                self.header_blocks = None;
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
        if let Some(blocks) = &mut self.header_blocks
            && blocks.poll_late(cx).is_ready()
        {
            return self.head_is_late();
        }
        let Some(heads) = &mut self.heads else {
            return Poll::Pending;
        };
        heads.stop_if_begun();
        let Some((_, timer)) = &mut heads.timer else {
            return Poll::Pending;
        };
        ready!(timer.as_mut().poll(cx));
        self.head_is_late()
    }

    fn head_is_late(&self) -> Poll<io::Result<()>> {
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

/// Reads less than [`MAX_HTTP1_READ_BYTES`].
fn poll_short_read<T: AsyncRead + Unpin>(
    io: &mut T,
    cx: &mut Context<'_>,
    buffer: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    let length = buffer.remaining().min(MAX_HTTP1_READ_BYTES - 1);
    let mut short = ReadBuf::new(buffer.initialize_unfilled_to(length));
    ready!(Pin::new(io).poll_read(cx, &mut short))?;
    let read = short.filled().len();
    buffer.advance(read);
    Poll::Ready(Ok(()))
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
        let read = match this.heads {
            Some(_) => poll_short_read(&mut this.io, cx, buffer),
            None => Pin::new(&mut this.io).poll_read(cx, buffer),
        };
        match read {
            Poll::Pending => {
                this.turn_bytes = 0;
                return this.poll_head(cx);
            }
            Poll::Ready(read) => read?,
        }
        this.turn_bytes += buffer.filled().len() - before;
        if !this.is_begun || this.heads.is_some() {
            this.received(&buffer.filled()[before..]);
        }
        Poll::Ready(match &mut this.header_blocks {
            Some(blocks) => blocks.received(&buffer.filled()[before..]),
            None => Ok(()),
        })
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
