//! The gRPC listener: accepts connections, does their TLS handshakes, and serves HTTP/2 on
//! them with hyper.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tonic::body::Body;

use super::connection_end::ConnectionEnd;
use super::router::Router;
use super::tls::{self, Handshakes};
use super::write_coalescing::CoalescedWrites;
use crate::config::{Config, Tls};
use crate::downstream::Peer;

/// The flow control windows of a stream and of a connection, in bytes.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// How much more metadata HTTP/2 accepts than [`Router`]: what lies between gets a status of
/// gRPC, and more than this HTTP 431.
const HTTP2_METADATA_FACTOR: u32 = 4;

/// Pause after a connection could not be accepted because of the gateway's own limits, such as
/// that of open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// By which share of the maximum age connections end earlier or later. Source: gRPC A9,
/// "Server-side Connection Management".
const MAX_AGE_JITTER: f64 = 0.1;

/// The ages of a connection, in their order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Age {
    Young,
    /// GOAWAY was sent, and calls continue.
    Grace,
    /// Streams end; other calls complete.
    Over,
}

/// What the connections of a listener share.
pub(super) struct Connections {
    http: auto::Builder<TokioExecutor>,
    tls: Option<Handshakes>,
    max_age: Option<Duration>,
    max_age_grace: Duration,
    router: Router,
}

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

impl Connections {
    /// Serves connections with TLS and the limits of the configuration.
    pub(super) fn new(config: &Config, router: Router) -> Result<Self, String> {
        let settings = &config.server;
        let tls = config
            .tls
            .as_ref()
            .map(|tls| Handshakes::new(tls, settings.tls_handshake_timeout));
        // HTTP/1.1 is accepted only to be rejected with a readable error.
        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http1().timer(TokioTimer::new());
        http.http2()
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(settings.max_concurrent_streams)
            .max_header_list_size(HTTP2_METADATA_FACTOR * settings.max_metadata_bytes)
            .keep_alive_interval(settings.keepalive_interval)
            .keep_alive_timeout(settings.keepalive_timeout);
        Ok(Self {
            http,
            tls: tls.transpose()?,
            max_age: settings.max_connection_age,
            max_age_grace: settings.max_connection_age_grace,
            router,
        })
    }

    /// Uses other certificates for new connections.
    pub(super) fn replace_tls(&self, tls: &Tls) -> Result<(), String> {
        self.tls.as_ref().map_or(Ok(()), |own| own.replace(tls))
    }

    /// Accepts connections until `shutdown` completes, and returns when all of them have
    /// ended.
    pub(super) async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) {
        let (drain, draining) = watch::channel(());
        let mut shutdown = pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                () = &mut shutdown => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let connection = self.clone().connection(stream, peer, draining.clone());
                    tokio::spawn(connection);
                }
                Err(e) if is_of_one_connection(&e) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        // New clients are refused at once, instead of waiting in the backlog.
        drop(listener);
        drop(draining);
        drain.send_replace(());
        drain.closed().await;
    }

    /// Serves one connection until it ends.
    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        mut draining: watch::Receiver<()>,
    ) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "connection closed before it was served");
            return;
        }
        let Some(tls) = &self.tls else {
            return self.serve_http(stream, Peer::at(peer.ip()), draining).await;
        };
        let handshake = tokio::select! {
            handshake = tls.accept(stream) => handshake,
            _ = draining.changed() => return,
        };
        match handshake {
            Ok(Some(stream)) => {
                let peer = tls::peer(&stream).unwrap_or(Peer::at(peer.ip()));
                self.serve_http(stream, peer, draining).await;
            }
            Ok(None) => {}
            Err(reason) => {
                let metrics = &self.router.dispatcher().metrics;
                metrics.refused_tls_handshakes.inc();
                tls.log_refused(peer, &reason);
            }
        }
    }

    /// Serves HTTP on a connection. It gets GOAWAY at its maximum age or when the gateway
    /// drains, and ends with its last call.
    async fn serve_http<T>(&self, io: T, peer: Peer, mut draining: watch::Receiver<()>)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (end, connection_end) = ConnectionEnd::new();
        let connection_end = self.max_age.map(|_| connection_end);
        let service = hyper::service::service_fn(|request: http::Request<Incoming>| {
            let mut request = request.map(Body::new);
            if let Some(end) = &connection_end {
                request.extensions_mut().insert(end.clone());
            }
            let response = self.router.respond(request, peer);
            async move { Ok::<_, Infallible>(response.await) }
        });
        let io = TokioIo::new(CoalescedWrites::new(io));
        let mut connection = pin!(self.http.serve_connection(io, service));
        let has_age = self.max_age.is_some();
        // Connections that were opened at the same time do not end at the same time.
        let jitter = 1.0 + MAX_AGE_JITTER * (2.0 * fastrand::f64() - 1.0);
        let max_age = self.max_age.unwrap_or_default().mul_f64(jitter);
        let mut timer = pin!(tokio::time::sleep(max_age));
        let mut age = Age::Young;
        let mut is_draining = false;
        loop {
            tokio::select! {
                result = &mut connection => {
                    if let Err(error) = result {
                        tracing::debug!(error, "connection failed");
                    }
                    return;
                }
                _ = draining.changed(), if !is_draining => {
                    is_draining = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = &mut timer, if has_age && age != Age::Over => match age {
                    Age::Young => {
                        age = Age::Grace;
                        connection.as_mut().graceful_shutdown();
                        timer.set(tokio::time::sleep(self.max_age_grace));
                    }
                    Age::Grace | Age::Over => {
                        age = Age::Over;
                        end.send_replace(true);
                    }
                },
            }
        }
    }
}

/// Returns whether an error of `accept` concerns only the connection that was accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}
