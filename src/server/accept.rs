//! Accepts the connections of a listener within its limits. Pauses while the process has no
//! descriptors left.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::connection_limits::{ConnectionLimits, ReachedLimit, Slot};
use super::tls::LogLimiter;
use crate::telemetry::ConnectionMetrics;

/// The longest pause after the process could not accept a connection. It ends sooner when a
/// connection of the listener ends.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// The shortest time between two log lines about the same limit.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// A listener with limits.
#[derive(Debug)]
pub(super) struct Acceptor {
    listener: TcpListener,
    /// The name of the listener in the log.
    name: &'static str,
    limits: Arc<ConnectionLimits>,
    metrics: ConnectionMetrics,
    pauses: LogLimiter,
    refusals: LogLimiter,
    is_paused: bool,
}

impl Acceptor {
    /// Accepts connections within these limits.
    pub(super) fn new(
        listener: TcpListener,
        name: &'static str,
        limits: Arc<ConnectionLimits>,
        metrics: ConnectionMetrics,
    ) -> Self {
        Self {
            listener,
            name,
            limits,
            metrics,
            pauses: LogLimiter::new(LOG_INTERVAL),
            refusals: LogLimiter::new(LOG_INTERVAL),
            is_paused: false,
        }
    }

    /// Returns the next connection.
    pub(super) async fn next(&mut self) -> (TcpStream, SocketAddr, Slot) {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    self.is_paused = false;
                    match self.limits.admit(peer.ip()) {
                        Ok(slot) => {
                            self.limits.evictions_complete().await;
                            return (stream, peer, slot);
                        }
                        Err(limit) => self.refuse(peer, limit),
                    }
                }
                Err(e) if is_of_one_connection(&e) => {}
                Err(error) => self.pause(&error).await,
            }
        }
    }

    /// Counts and logs a connection that is closed because of a limit.
    fn refuse(&self, peer: SocketAddr, limit: ReachedLimit) {
        self.metrics.refused(match limit {
            ReachedLimit::Total => "total",
            ReachedLimit::PerAddress => "per_address",
        });
        if let Some(not_logged) = self.refusals.allow(Instant::now()) {
            let setting = match limit {
                ReachedLimit::Total => "server.max_connections",
                ReachedLimit::PerAddress => "server.max_connections_per_address",
            };
            tracing::warn!(
                listener = self.name,
                %peer,
                setting,
                not_logged,
                "connection refused: each one within the limit has a call"
            );
        }
    }

    /// Waits until the process may have a descriptor again.
    async fn pause(&mut self, error: &io::Error) {
        let released = self.limits.released();
        // An idle connection makes room.
        self.limits.evict_one();
        if !std::mem::replace(&mut self.is_paused, true) {
            self.metrics.accept_pauses.inc();
            if let Some(not_logged) = self.pauses.allow(Instant::now()) {
                tracing::warn!(
                    listener = self.name,
                    %error,
                    not_logged,
                    "connections wait: they cannot be accepted (raise `ulimit -n`)"
                );
            }
        }
        let _ = tokio::time::timeout(MAX_PAUSE, released).await;
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
