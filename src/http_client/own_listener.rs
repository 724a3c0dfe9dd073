//! Connections of this process to its own gRPC listener.

use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::tls;

/// A connection.
pub(crate) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Does the TLS handshake, if the listener has TLS. The certificate is not verified: this
/// process has bound the address, so no other one serves it.
pub(crate) async fn secure(stream: TcpStream, has_tls: bool) -> io::Result<Box<dyn Connection>> {
    if !has_tls {
        return Ok(Box::new(stream));
    }
    let mut config = tls::without_verification().map_err(io::Error::other)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::IpAddress(stream.peer_addr()?.ip().into());
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream);
    Ok(Box::new(stream.await?))
}
