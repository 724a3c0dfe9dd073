//! The gRPC listener: its address, its connections and their HTTP/2 settings.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::tls;
use super::write_coalescing::CoalescedWrites;
use crate::config::Config;

/// The flow control windows of a stream and of a connection, in bytes.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Binds a listener. `what` names it and `setting` its address in the error.
pub(super) async fn bind(
    address: SocketAddr,
    what: &str,
    setting: &str,
) -> Result<TcpListener, Vec<String>> {
    TcpListener::bind(address).await.map_err(|e| {
        vec![format!(
            "cannot listen on {address}{what}: {e}; choose another address by {setting}"
        )]
    })
}

/// Accepts the connections of a listener.
pub(super) fn incoming(
    listener: TcpListener,
) -> impl Stream<Item = io::Result<CoalescedWrites<TcpStream>>> {
    TcpIncoming::from(listener)
        .with_nodelay(Some(true))
        .map(|connection| connection.map(CoalescedWrites::new))
}

/// Returns tonic's server with TLS and the limits of the configuration.
pub(super) fn server(config: &Config) -> Result<Server, Vec<String>> {
    let settings = &config.server;
    let mut server = Server::builder()
        // HTTP/1.1 is accepted only to be rejected with a readable error.
        .accept_http1(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(settings.max_concurrent_streams)
        .http2_keepalive_interval(Some(settings.keepalive_interval))
        .http2_keepalive_timeout(Some(settings.keepalive_timeout));
    if let Some(age) = settings.max_connection_age {
        server = server
            .max_connection_age(age)
            .max_connection_age_grace(settings.max_connection_age_grace);
    }
    if let Some(tls) = &config.tls {
        server = server
            .tls_config(tls::config(tls, settings.tls_handshake_timeout))
            .map_err(|e| vec![format!("tls: {e}")])?;
    }
    Ok(server)
}
