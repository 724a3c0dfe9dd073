//! The gRPC listener: does the TLS handshakes of connections, and serves HTTP/2 or HTTP/1.1 on
//! them with hyper. The version is what TLS negotiates, or what the first bytes are.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use prometheus_client::metrics::counter::Counter;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::body::Body;

use super::accept::Acceptor;
use super::client_io::{ClientIo, Preface};
use super::connection_end::ConnectionEnd;
use super::connection_limits::{Activity, ConnectionLimits, Slot};
use super::connection_memory::ConnectionMemory;
use super::generation::Current;
use super::http1_body::Http1Body;
use super::http1_errors::ReadableErrors;
use super::stream_executor::{StreamBody, StreamExecutor};
use super::tls::{self, Handshakes};
use super::write_coalescing::CoalescedWrites;
use crate::config::{Config, ServerOptions, Tls};
use crate::downstream::Peer;
use crate::memory::MemoryBudget;
use crate::telemetry::ConnectionMetrics;

/// The flow control windows of a stream and of a connection, in bytes.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// What HTTP/2 buffers of one response. More would only be a second copy of it.
const MAX_SEND_BUFFER_BYTES: usize = 64 << 10;

/// How much more metadata HTTP/2 accepts than [`Router`]: what lies between gets a status of
/// gRPC, and more than this HTTP 431.
const HTTP2_METADATA_FACTOR: u32 = 4;

/// How much longer the read buffer of a connection over HTTP/1.1 is than the metadata of a
/// request: a head that does not fit gets HTTP 431.
const HTTP1_BUFFER_BYTES: usize = 16 << 10;

/// Time after GOAWAY until a connection without a call is closed.
const GOAWAY_GRACE: Duration = Duration::from_millis(500);

/// After how many times the write timeout the stream of an unread response is reset. After one,
/// the response is dropped: the client gets a status if it reads again.
const RESET_FACTOR: u32 = 2;

/// By which share of the maximum age connections end earlier or later. Source: gRPC A9,
/// "Server-side Connection Management".
const MAX_AGE_JITTER: f64 = 0.1;

/// Why the gateway closes a connection: labels of the metric.
const EVICTED: &str = "evicted";
const IDLE: &str = "idle";
/// Of HTTP/1.1: no head of a request.
const NO_PREFACE: &str = "no_preface";

/// What the timer of a connection waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The preface of HTTP/2.
    Preface,
    /// The connection has been idle for too long.
    Open,
    /// The last call ends, after GOAWAY.
    Closing,
}

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
    tls: Option<Handshakes>,
    limits: Arc<ConnectionLimits>,
    metrics: ConnectionMetrics,
    refused_tls_handshakes: Counter,
    memory: MemoryBudget,
    current: Current,
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
    /// Serves at most `max_connections`, with TLS and the limits of the configuration.
    pub(super) fn new(
        config: &Config,
        current: Current,
        max_connections: usize,
    ) -> Result<Self, String> {
        let settings = &config.server;
        let tls = config
            .tls
            .as_ref()
            .map(|tls| Handshakes::new(tls, settings.tls_handshake_timeout));
        let dispatcher = current.load().generation.dispatcher.clone();
        let metrics = dispatcher.metrics.connections("grpc");
        let max_per_address = match settings.max_connections_per_address {
            0 => max_connections.div_ceil(2),
            n => n as usize,
        };
        let open = metrics.open.clone();
        let limits = ConnectionLimits::new(max_connections, max_per_address, open);
        Ok(Self {
            tls: tls.transpose()?,
            limits,
            metrics,
            refused_tls_handshakes: dispatcher.metrics.refused_tls_handshakes.clone(),
            memory: dispatcher.memory.clone(),
            current,
        })
    }

    /// Uses other certificates for new connections.
    pub(super) fn replace_tls(&self, tls: &Tls) -> Result<(), String> {
        self.tls.as_ref().map_or(Ok(()), |own| own.replace(tls))
    }

    /// Returns hyper's settings of one connection.
    fn http(settings: &ServerOptions, activity: &Arc<Activity>) -> auto::Builder<StreamExecutor> {
        let unread_timeout = settings.response_write_timeout * RESET_FACTOR;
        let executor = StreamExecutor::new(activity.clone(), unread_timeout);
        let mut http = auto::Builder::new(executor);
        // The timeout of heads is that of `ClientIo`: hyper's includes the time in which a
        // connection is idle.
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .max_buf_size(settings.max_metadata_bytes as usize + HTTP1_BUFFER_BYTES);
        http.http2()
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(settings.max_concurrent_streams)
            .max_send_buf_size(MAX_SEND_BUFFER_BYTES)
            .max_header_list_size(HTTP2_METADATA_FACTOR * settings.max_metadata_bytes)
            .keep_alive_interval(settings.keepalive_interval)
            .keep_alive_timeout(settings.keepalive_timeout);
        http
    }

    /// Accepts connections until `shutdown` completes, and returns when all of them have
    /// ended.
    pub(super) async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) {
        let (limits, metrics) = (self.limits.clone(), self.metrics.clone());
        let mut acceptor = Acceptor::new(listener, "grpc", limits, metrics);
        let (drain, draining) = watch::channel(());
        let mut shutdown = pin!(shutdown);
        loop {
            let (stream, peer, slot) = tokio::select! {
                () = &mut shutdown => break,
                accepted = acceptor.next() => accepted,
            };
            let connection = self
                .clone()
                .connection(stream, peer, slot, draining.clone());
            tokio::spawn(connection);
        }
        // New clients are refused at once, instead of waiting in the backlog.
        drop(acceptor);
        drop(draining);
        drain.send_replace(());
        drain.closed().await;
    }

    /// Serves one connection until it ends.
    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        slot: Slot,
        mut draining: watch::Receiver<()>,
    ) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "connection closed before it was served");
            return;
        }
        let memory = |peer| Arc::new(ConnectionMemory::new(self.memory.clone(), peer));
        let Some(tls) = &self.tls else {
            return self
                .serve_http(stream, memory(Peer::at(peer.ip())), slot, draining)
                .await;
        };
        let handshake = tokio::select! {
            handshake = tls.accept(stream) => handshake,
            _ = slot.evicted() => return self.metrics.closed(EVICTED),
            _ = draining.changed() => return,
        };
        let client = match handshake {
            Ok(Some(stream)) => tls::peer(&stream).map(|client| Some((stream, client))),
            Ok(None) => Ok(None),
            Err(reason) => Err(reason),
        };
        match client {
            Ok(Some((stream, client))) => {
                let client = client.unwrap_or(Peer::at(peer.ip()));
                (self.serve_http(stream, memory(client), slot, draining)).await;
            }
            Ok(None) => {}
            Err(reason) => {
                self.refused_tls_handshakes.inc();
                tls.log_refused(peer, &reason);
            }
        }
    }

    /// Serves HTTP on a connection. It gets GOAWAY at its maximum age, when it has been idle
    /// for too long, when it makes room for another or when the gateway drains, and ends with
    /// its last call.
    async fn serve_http<T>(
        &self,
        io: T,
        memory: Arc<ConnectionMemory>,
        slot: Slot,
        mut draining: watch::Receiver<()>,
    ) where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // A reload changes those of new connections.
        let settings = &self.current.load().generation.config.server.clone();
        let (end, connection_end) = ConnectionEnd::new();
        let connection_end = settings.max_connection_age.map(|_| connection_end);
        let activity = slot.activity();
        let service = hyper::service::service_fn(|request: http::Request<Incoming>| {
            // Over HTTP/2, each stream is a task of the executor, which counts it.
            let is_http1 = request.version() < http::Version::HTTP_2;
            let call = is_http1.then(|| activity.begin());
            let mut request = request.map(|body| match is_http1 {
                true => Body::new(Http1Body::new(body)),
                false => Body::new(body),
            });
            if let Some(end) = &connection_end {
                request.extensions_mut().insert(end.clone());
            }
            let response = self.current.load().router.respond(request, &memory);
            async move {
                let response = response.await;
                Ok::<_, Infallible>(response.map(|body| StreamBody::new(body, call)))
            }
        });
        let preface = Preface::default();
        let io = ClientIo::new(io, preface.clone(), settings.response_write_timeout);
        let io = io.with_head_timeout(settings.preface_timeout, activity.clone());
        let max_headers = (HTTP2_METADATA_FACTOR * settings.max_metadata_bytes) as usize;
        let io = io.with_header_blocks(memory.header_blocks(max_headers, settings.preface_timeout));
        let io = ReadableErrors::new(io, activity.clone());
        let io = TokioIo::new(CoalescedWrites::new(io));
        let http = Self::http(settings, activity);
        let mut connection = pin!(http.serve_connection(io, service));
        let has_age = settings.max_connection_age.is_some();
        // Connections that were opened at the same time do not end at the same time.
        let jitter = 1.0 + MAX_AGE_JITTER * (2.0 * fastrand::f64() - 1.0);
        let max_age = settings
            .max_connection_age
            .unwrap_or_default()
            .mul_f64(jitter);
        let mut age_timer = pin!(sleep(max_age));
        let mut age = Age::Young;
        let mut idle_timer = pin!(sleep(settings.preface_timeout));
        let mut phase = Phase::Preface;
        let mut is_draining = false;
        loop {
            tokio::select! {
                result = &mut connection => {
                    if let Err(error) = result {
                        tracing::debug!(error, "connection failed");
                    }
                    if preface.is_head_late() {
                        self.metrics.closed(NO_PREFACE);
                    }
                    return;
                }
                _ = draining.changed(), if !is_draining => {
                    is_draining = true;
                    connection.as_mut().graceful_shutdown();
                }
                at_once = slot.evicted() => {
                    self.metrics.closed(EVICTED);
                    if at_once {
                        return;
                    }
                    phase = Phase::Closing;
                    connection.as_mut().graceful_shutdown();
                    idle_timer.set(sleep(GOAWAY_GRACE));
                }
                () = &mut idle_timer => {
                    let next = match phase {
                        Phase::Preface if !preface.is_complete() && !activity.is_used() => {
                            tracing::debug!("connection closed: no preface of HTTP/2, and no request of HTTP/1.1");
                            return self.metrics.closed(NO_PREFACE);
                        }
                        Phase::Closing if activity.is_idle() => return,
                        Phase::Closing => Instant::now() + GOAWAY_GRACE,
                        Phase::Preface | Phase::Open => {
                            phase = Phase::Open;
                            activity.idle_deadline(settings.connection_idle_timeout)
                        }
                    };
                    if next <= Instant::now() {
                        self.metrics.closed(IDLE);
                        phase = Phase::Closing;
                        connection.as_mut().graceful_shutdown();
                        idle_timer.set(sleep(GOAWAY_GRACE));
                    } else {
                        idle_timer.set(sleep_until(next));
                    }
                }
                () = &mut age_timer, if has_age && age != Age::Over => match age {
                    Age::Young => {
                        age = Age::Grace;
                        connection.as_mut().graceful_shutdown();
                        age_timer.set(sleep(settings.max_connection_age_grace));
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
