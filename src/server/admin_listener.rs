//! The admin listener: HTTP/1.1, on a port of its own.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tower::Service;

use super::accept::Acceptor;
use super::client_io::{ClientIo, Preface};
use super::connection_limits::{ConnectionLimits, Slot};
use super::protocol::check_head;
use crate::config::ServerOptions;
use crate::telemetry::{ConnectionMetrics, Metrics};

/// The admin listener, with its limits.
pub(super) struct AdminListener {
    pages: Router,
    header_timeout: Duration,
    write_timeout: Duration,
    limits: Arc<ConnectionLimits>,
    metrics: ConnectionMetrics,
}

impl AdminListener {
    /// Serves these pages on at most `max_connections`.
    pub(super) fn new(
        pages: Router,
        settings: &ServerOptions,
        max_connections: usize,
        metrics: &Metrics,
    ) -> Self {
        let metrics = metrics.connections("admin");
        let open = metrics.open.clone();
        Self {
            pages,
            header_timeout: settings.preface_timeout,
            write_timeout: settings.response_write_timeout,
            limits: ConnectionLimits::new(max_connections, max_connections, open),
            metrics,
        }
    }

    /// Accepts connections until the future is dropped.
    pub(super) async fn serve(self, listener: TcpListener) {
        let (limits, metrics) = (self.limits.clone(), self.metrics.clone());
        let mut acceptor = Acceptor::new(listener, "admin", limits, metrics);
        let shared = Arc::new(self);
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let (stream, peer, slot) = tokio::select! {
                accepted = acceptor.next() => accepted,
                Some(_) = connections.join_next() => continue,
            };
            connections.spawn(shared.clone().connection(stream, peer, slot));
        }
    }

    /// Serves one connection until it ends. It never counts as busy: the limit can close it
    /// at any time.
    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, slot: Slot) {
        let service = hyper::service::service_fn(|request: http::Request<Incoming>| {
            slot.activity().touch();
            let mut pages = self.pages.clone();
            async move {
                match check_head(&request) {
                    Ok(()) => pages.call(request).await,
                    Err(rejection) => {
                        let response = rejection.response(request.method());
                        Ok(response.map(axum::body::Body::new))
                    }
                }
            }
        });
        let io = ClientIo::new(stream, Preface::default(), self.write_timeout);
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(self.header_timeout);
        let mut connection = pin!(http.serve_connection(TokioIo::new(io), service));
        tokio::select! {
            result = &mut connection => if let Err(error) = result {
                tracing::debug!(%peer, %error, "admin connection failed");
            },
            _ = slot.evicted() => self.metrics.closed("evicted"),
        }
    }
}
