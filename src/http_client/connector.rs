//! Opens connections for `hyper_client`: TCP, and TLS for `https`, within one timeout.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower::Service;

use super::{BoxError, Settings, TCP_KEEPALIVE};

/// A connection to an upstream.
pub(super) type Stream = MaybeHttpsStream<TcpConnection>;

/// Opens connections. The timeout includes the TLS handshake.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    inner: HttpsConnector<TcpConnector>,
    timeout: Duration,
}

impl Connector {
    pub(super) fn new(settings: &Settings, tls: Arc<rustls::ClientConfig>) -> Self {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_keepalive(Some(TCP_KEEPALIVE));
        http.set_connect_timeout(Some(settings.connect_timeout));
        Self {
            inner: HttpsConnector::from((TcpConnector(http), tls)),
            timeout: settings.connect_timeout,
        }
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connect = self.inner.call(uri);
        let timeout = self.timeout;
        Box::pin(async move {
            let result = tokio::time::timeout(timeout, connect).await;
            result.unwrap_or_else(|_| {
                Err(format!("no connection in {timeout:?} (setting connect_timeout_secs)").into())
            })
        })
    }
}

/// Opens TCP connections.
#[derive(Clone, Debug)]
pub(super) struct TcpConnector(HttpConnector);

impl Service<Uri> for TcpConnector {
    type Response = TcpConnection;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<TcpConnection, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let is_plaintext = uri.scheme() == Some(&Scheme::HTTP);
        let connect = self.0.call(uri);
        Box::pin(async move { Ok(TcpConnection::new(connect.await?, is_plaintext)) })
    }
}

/// What is known of the first byte that the peer sends, if the connection is plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FirstRead {
    /// It has not arrived. `has_written` says whether a request was begun.
    Pending { has_written: bool },
    /// It has arrived, or does not matter.
    Done,
}

/// The first byte of a TLS record with an alert or a handshake. Source: RFC 8446, section 5.1.
const TLS_ALERT: u8 = 0x15;
const TLS_HANDSHAKE: u8 = 0x16;

/// The server responds to plaintext HTTP with TLS: it has not read the request.
#[derive(Debug, thiserror::Error)]
#[error("the server speaks TLS at this port: write https://")]
pub(super) struct SpeaksTls;

/// The first connection to a plaintext port ended without a byte. A server that expects TLS
/// may do that, but also one that has read the request.
#[derive(Debug, thiserror::Error)]
#[error("{0}, before the first byte of a response: if the port expects TLS, write https://")]
struct NoFirstByte(String);

/// A TCP connection that can be read after the peer has closed it for writing.
///
/// A server that rejects a request by its headers (413, 401) may respond and close the
/// connection while the body is being sent. hyper ends a connection at the first error of a
/// write, without reading the response. So such an error is hidden: the rest of the body is
/// discarded, and reading returns the response, or fails in its turn.
#[derive(Debug)]
pub(super) struct TcpConnection {
    stream: TokioIo<TcpStream>,
    write_failed: bool,
    first_read: FirstRead,
}

impl TcpConnection {
    fn new(stream: TokioIo<TcpStream>, is_plaintext: bool) -> Self {
        Self {
            stream,
            write_failed: false,
            first_read: match is_plaintext {
                true => FirstRead::Pending { has_written: false },
                false => FirstRead::Done,
            },
        }
    }

    /// Hides the error of a write to a connection that the peer has closed. `len` is what
    /// counts as written then.
    fn hide(&mut self, result: io::Result<usize>, len: usize) -> io::Result<usize> {
        match result {
            Err(error) if is_closed_by_peer(&error) => {
                self.write_failed = true;
                Ok(len)
            }
            result => result,
        }
    }
}

impl TcpConnection {
    /// Looks at the first byte of the peer without reading it. Fails if it is none of a
    /// response, or if the connection ends before it.
    fn poll_first_byte(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let FirstRead::Pending { has_written } = self.first_read else {
            return Poll::Ready(Ok(()));
        };
        let mut byte = [0; 1];
        let mut buffer = tokio::io::ReadBuf::new(&mut byte);
        let peeked = ready!(self.stream.inner().poll_peek(context, &mut buffer));
        self.first_read = FirstRead::Done;
        let (kind, end) = match peeked {
            Ok(1..) if matches!(byte[0], TLS_ALERT | TLS_HANDSHAKE) => {
                return Poll::Ready(Err(io::Error::other(SpeaksTls)));
            }
            Ok(1..) => return Poll::Ready(Ok(())),
            Ok(0) => (
                io::ErrorKind::UnexpectedEof,
                "the connection was closed".to_owned(),
            ),
            Err(error) => (error.kind(), error.to_string()),
        };
        // Without a request, hyper decides what the end means.
        Poll::Ready(match has_written {
            true => Err(io::Error::new(kind, NoFirstByte(end))),
            false => Ok(()),
        })
    }

    fn begin_write(&mut self) {
        if let FirstRead::Pending { has_written } = &mut self.first_read {
            *has_written = true;
        }
    }
}

fn is_closed_by_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionAborted | ConnectionReset
    )
}

impl Connection for TcpConnection {
    fn connected(&self) -> Connected {
        self.stream.connected()
    }
}

impl Read for TcpConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_first_byte(context))?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl Write for TcpConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.write_failed {
            return Poll::Ready(Ok(data.len()));
        }
        let result = ready!(Pin::new(&mut self.stream).poll_write(context, data));
        self.begin_write();
        Poll::Ready(self.hide(result, data.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len = data.iter().map(|slice| slice.len()).sum();
        if self.write_failed {
            return Poll::Ready(Ok(len));
        }
        let result = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, data));
        self.begin_write();
        Poll::Ready(self.hide(result, len))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.write_failed {
            return Poll::Ready(Ok(()));
        }
        let result = ready!(Pin::new(&mut self.stream).poll_flush(context));
        Poll::Ready(self.hide(result.map(|()| 0), 0).map(drop))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// What the peer sent before it reset the connection can be read after a failed write.
    #[tokio::test]
    async fn response_can_be_read_after_a_failed_write() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await;
        let mut connection = TcpConnection::new(TokioIo::new(client.unwrap()), false);
        let (mut server, _) = listener.accept().await.unwrap();
        let mut write = async || {
            poll_fn(|context| Pin::new(&mut connection).poll_write(context, &[b'x'; 100])).await
        };
        assert_eq!(write().await.unwrap(), 100);
        server.read_u8().await.unwrap();
        server.write_all(b"413").await.unwrap();
        // Unread data resets the connection.
        drop(server);
        for _ in 0..3 {
            assert_eq!(write().await.unwrap(), 100);
        }
        let mut response = Vec::new();
        let mut stream = TokioIo::new(connection);
        let _ = stream.read_to_end(&mut response).await;
        assert_eq!(response, b"413");
        assert!(stream.into_inner().write_failed);
    }
}
