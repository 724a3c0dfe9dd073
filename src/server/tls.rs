//! TLS and mTLS of the gRPC listener.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use secrecy::ExposeSecret;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::authn::certificate_identity;
use crate::config::Tls;
use crate::downstream::Peer;

/// HTTP/1.1 is negotiated with clients that speak nothing else, as on a plaintext listener: they
/// get a readable error instead of an alert.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The first byte of a TLS record that begins a handshake. Source: RFC 8446, "Record Protocol".
const HANDSHAKE_RECORD: u8 = 22;

/// The shortest time between two log lines about handshakes.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Does the TLS handshakes of a listener.
pub(super) struct Handshakes {
    config: ArcSwap<ServerConfig>,
    timeout: Duration,
    log: LogLimiter,
}

impl Handshakes {
    /// Uses the server's certificate and, for mTLS, the CA of client certificates.
    /// Connections whose handshake takes longer than `handshake_timeout` are closed.
    pub(super) fn new(tls: &Tls, handshake_timeout: Duration) -> Result<Self, String> {
        Ok(Self {
            config: ArcSwap::new(server_config(tls)?),
            timeout: handshake_timeout,
            log: LogLimiter::new(LOG_INTERVAL),
        })
    }

    /// Uses other certificates from the next handshake on.
    pub(super) fn replace(&self, tls: &Tls) -> Result<(), String> {
        self.config.store(server_config(tls)?);
        Ok(())
    }

    /// Does a handshake. Returns none for a client that closes the connection before it sends
    /// anything, as the TCP checks of load balancers do.
    ///
    /// # Errors
    ///
    /// Returns why the handshake was refused.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
    ) -> Result<Option<TlsStream<TcpStream>>, String> {
        let handshake = async {
            let mut first = [0];
            if !matches!(stream.peek(&mut first).await, Ok(1)) {
                return Ok(None);
            }
            match TlsAcceptor::from(self.config.load_full())
                .accept(stream)
                .await
            {
                Ok(stream) => Ok(Some(stream)),
                Err(_) if first[0] != HANDSHAKE_RECORD => {
                    Err("the client does not speak TLS".to_owned())
                }
                Err(e) => Err(e.to_string()),
            }
        };
        let seconds = self.timeout.as_secs_f64();
        let expired = |_| Err(format!("the handshake was not complete within {seconds} s"));
        let result = timeout(self.timeout, handshake).await;
        result.unwrap_or_else(expired)
    }

    /// Logs a refused handshake, at most once per [`LOG_INTERVAL`].
    pub(super) fn log_refused(&self, peer: std::net::SocketAddr, reason: &str) {
        if let Some(not_logged) = self.log.allow(Instant::now()) {
            tracing::warn!(%peer, reason, not_logged, "TLS handshake refused");
        }
    }
}

/// Returns the client that has authenticated itself by a certificate, if it has one. Fails for a
/// certificate that names no single client.
pub(super) fn peer(stream: &TlsStream<TcpStream>) -> Result<Option<Peer>, String> {
    let certificates = stream.get_ref().1.peer_certificates();
    let certificate = certificates.and_then(|certificates| certificates.first());
    let identity = certificate.map(|der| certificate_identity(der));
    Ok(identity
        .transpose()?
        .map(|identity| Arc::new(identity).into()))
}

/// Builds the settings of handshakes.
fn server_config(tls: &Tls) -> Result<Arc<ServerConfig>, String> {
    let invalid = |e: &dyn std::fmt::Display| format!("listen.tls: {e}");
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| invalid(&e))?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for ca in CertificateDer::pem_slice_iter(pem) {
                let ca = ca.map_err(|e| invalid(&e))?;
                roots.add(ca).map_err(|e| invalid(&e))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|e| invalid(&e))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&tls.certificate).collect();
    let chain = chain.map_err(|e| invalid(&e))?;
    let key = PrivateKeyDer::from_pem_slice(tls.key.expose_secret().as_bytes())
        .map_err(|e| invalid(&e))?;
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|e| invalid(&e))?;
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    Ok(Arc::new(config))
}

/// Limits log lines that any client can cause.
#[derive(Debug)]
pub(super) struct LogLimiter {
    interval: Duration,
    state: Mutex<LogState>,
}

#[derive(Debug, Default)]
struct LogState {
    last: Option<Instant>,
    not_logged: u64,
}

impl LogLimiter {
    /// Allows one line per `interval`.
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            state: Mutex::default(),
        }
    }

    /// Returns how many lines were suppressed since the last one, if a line may be logged now.
    pub(super) fn allow(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| now < last + self.interval) {
            state.not_logged += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.not_logged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_is_limited_and_counts_what_it_omits() {
        let (log, start) = (LogLimiter::new(LOG_INTERVAL), Instant::now());
        for (at_ms, want) in [
            (0, Some(0)),
            (1, None),
            (999, None),
            (1_000, Some(2)),
            (1_500, None),
            (9_000, Some(1)),
            (10_000, Some(0)),
        ] {
            let now = start + Duration::from_millis(at_ms);
            assert_eq!(log.allow(now), want, "{at_ms} ms");
        }
    }
}
