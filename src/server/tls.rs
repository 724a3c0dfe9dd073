//! TLS and mTLS of the gRPC listener.

use std::time::Duration;

use secrecy::ExposeSecret;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

use crate::config::Tls;

/// Configures the server's certificate and, for mTLS, the CA of client certificates.
/// Connections whose handshake takes longer than `handshake_timeout` are closed.
pub(super) fn config(tls: &Tls, handshake_timeout: Duration) -> ServerTlsConfig {
    let identity = Identity::from_pem(&tls.certificate, tls.key.expose_secret());
    let config = ServerTlsConfig::new()
        .identity(identity)
        .timeout(handshake_timeout);
    match &tls.client_ca {
        Some(ca) => config.client_ca_root(Certificate::from_pem(ca)),
        None => config,
    }
}
