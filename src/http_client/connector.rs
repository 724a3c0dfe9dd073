//! Opens connections for `hyper_client`: TCP, and TLS for `https`, within one timeout.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::{
    CaptureConnection, Connected, Connection, HttpConnector,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower::Service;

use super::{BoxError, MAX_INFORMATIONAL, Settings, TCP_KEEPALIVE};

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
        let connect = self.0.call(uri);
        Box::pin(async move { Ok(TcpConnection::new(connect.await?)) })
    }
}

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
    flooded: Flooded,
}

/// Whether the peer of a connection sends more than a response may have: it fails when it is
/// read next. An extra of hyper's [`Connected`].
#[derive(Clone, Debug, Default)]
pub(super) struct Flooded(Arc<AtomicBool>);

impl Flooded {
    /// Fails the connection that a request uses.
    pub(super) fn set(connection: &CaptureConnection) {
        let mut extras = http::Extensions::new();
        if let Some(connected) = connection.connection_metadata().as_ref() {
            connected.get_extras(&mut extras);
        }
        if let Some(Self(flag)) = extras.get() {
            flag.store(true, Relaxed);
        }
    }
}

impl TcpConnection {
    fn new(stream: TokioIo<TcpStream>) -> Self {
        Self {
            stream,
            write_failed: false,
            flooded: Flooded::default(),
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

fn is_closed_by_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionAborted | ConnectionReset
    )
}

impl Connection for TcpConnection {
    fn connected(&self) -> Connected {
        self.stream.connected().extra(self.flooded.clone())
    }
}

impl Read for TcpConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.flooded.0.load(Relaxed) {
            let problem = format!(
                "the upstream sent more than {MAX_INFORMATIONAL} informational responses (1xx)"
            );
            return Poll::Ready(Err(io::Error::other(problem)));
        }
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
        let mut connection = TcpConnection::new(TokioIo::new(client.unwrap()));
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
