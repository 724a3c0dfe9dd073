//! Adds a line of text to the errors that hyper sends for a head that it cannot read: they have a
//! status only, and no request reaches the router.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection_limits::Activity;

/// What hyper's errors end with, except for the date.
const NO_BODY: &str = "\r\ncontent-length: 0\r\n";

/// A connection whose errors of HTTP/1.1 have a text.
#[derive(Debug)]
pub(super) struct ReadableErrors<T> {
    io: T,
    activity: Arc<Activity>,
    /// How many calls had begun when all was flushed and none was active: until another one
    /// begins, hyper writes nothing but an error.
    begun_when_quiet: Option<u64>,
    /// What is sent instead of an error.
    readable: Bytes,
}

impl<T> ReadableErrors<T> {
    /// Wraps a connection that has not been used yet.
    pub(super) fn new(io: T, activity: Arc<Activity>) -> Self {
        Self {
            io,
            activity,
            begun_when_quiet: Some(0),
            readable: Bytes::new(),
        }
    }

    fn is_quiet(&self) -> bool {
        self.begun_when_quiet == Some(self.activity.begun()) && self.activity.is_idle()
    }
}

impl<T: AsyncWrite + Unpin> ReadableErrors<T> {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.readable.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.readable))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.readable.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

/// Returns the error with a text, if it is one of hyper's. It begins no frame of HTTP/2: that
/// would be longer than any that hyper sends.
fn readable(error: &[u8]) -> Option<Bytes> {
    let text = match error.strip_prefix(b"HTTP/1.1 ")?.get(..3)? {
        b"400" => "the request is not valid HTTP/1.1\n",
        b"414" => "the path of the request is too long\n",
        b"431" => {
            "the headers of the request are too long (setting server.max_metadata_bytes), or more \
             than 100\n"
        }
        _ => return None,
    };
    let head = std::str::from_utf8(error).ok()?;
    let (before, after) = head.split_once(NO_BODY)?;
    let length = text.len();
    let readable = format!(
        "{before}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {length}\r\n\
         {after}{text}"
    );
    after.ends_with("\r\n\r\n").then(|| readable.into())
}

impl<T: AsyncWrite + Unpin> AsyncWrite for ReadableErrors<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_readable(cx))?;
        let mut parts_with_bytes = parts.iter().filter(|part| !part.is_empty());
        if this.is_quiet()
            && let Some(first) = parts_with_bytes.next()
            && let Some(readable) = readable(first)
        {
            this.readable = readable;
            return Poll::Ready(Ok(first.len()));
        }
        Pin::new(&mut this.io).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_readable(cx))?;
        let flushed = ready!(Pin::new(&mut this.io).poll_flush(cx));
        let begun = this.activity.begun();
        this.begun_when_quiet = this.activity.is_idle().then_some(begun);
        Poll::Ready(flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_readable(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for ReadableErrors<T> {
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
    use super::*;

    const DATE: &str = "date: Mon, 30 Nov 2026 22:00:00 GMT\r\n\r\n";

    #[test]
    fn only_errors_without_a_body_get_a_text() {
        let head = |status: &str, length| {
            format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n{DATE}")
        };
        for (error, is_readable) in [
            (head("400 Bad Request", "0"), true),
            (head("414 URI Too Long", "0"), true),
            (head("431 Request Header Fields Too Large", "0"), true),
            (head("200 OK", "0"), false),
            (head("400 Bad Request", "2") + "{}", false),
            (head("400 Bad Request", "0") + "x", false),
            ("HTTP/1.1 400".to_owned(), false),
            ("\0\0\u{c}\u{4}\0".to_owned(), false),
        ] {
            let got = readable(error.as_bytes());
            assert_eq!(got.is_some(), is_readable, "{error}");
            let Some(got) = got else { continue };
            let got = std::str::from_utf8(&got).unwrap();
            let (head, text) = got.split_once("\r\n\r\n").unwrap();
            let length = format!("\r\ncontent-length: {}\r\n", text.len());
            assert!(head.contains(&length), "{got}");
            assert!(head.starts_with(&error[..50]) && head.ends_with(DATE.trim_end()));
        }
    }
}
