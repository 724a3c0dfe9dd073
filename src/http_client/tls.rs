//! TLS towards upstreams and identity services: which certificates are trusted, and what an
//! error says about one that is not.

use std::error::Error as StdError;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, InvalidMessage,
    RootCertStore, SignatureScheme,
};

use super::Settings;

/// What to do about a certificate that is not trusted.
const CA_ADVICE: &str = "name the PEM file of its CA, or of the certificate itself, in `ca_file` \
                         (`cacert` in clouds.yaml)";

/// What to do about a server that requires a certificate of its client.
const CLIENT_CERTIFICATE_MISSING: &str = "the server requires a client certificate, and the \
                                          gateway has none for upstreams: call it through a \
                                          proxy that has one";

/// Builds the configuration of TLS clients. Fails if `ca_file` cannot be read or contains no
/// certificate.
pub(super) fn client_config(settings: &Settings) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let named = match &settings.ca_file {
        Some(path) => read_certificates(path).map_err(|problem| format!("ca_file {problem}"))?,
        None => Vec::new(),
    };
    let platform = rustls_platform_verifier::Verifier::new_with_extra_roots(
        named.clone(),
        Arc::clone(&provider),
    );
    let trust = match platform {
        _ if settings.insecure_skip_verify => Trust::Anything,
        Ok(verifier) => Trust::Roots(Arc::new(verifier)),
        // Plaintext HTTP works on a machine without CA certificates.
        Err(error) if named.is_empty() => {
            tracing::warn!(
                %error,
                "no CA certificates found: calls to https upstreams will fail"
            );
            Trust::Nothing
        }
        Err(error) => return Err(format!("ca_file: {error}")),
    };
    with_verifier(Verifier {
        trust,
        named,
        provider,
    })
}

/// Builds a configuration that accepts any certificate.
pub(super) fn without_verification() -> Result<ClientConfig, String> {
    with_verifier(Verifier {
        trust: Trust::Anything,
        named: Vec::new(),
        provider: Arc::new(rustls::crypto::ring::default_provider()),
    })
}

fn with_verifier(verifier: Verifier) -> Result<ClientConfig, String> {
    let config = ClientConfig::builder_with_provider(Arc::clone(&verifier.provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(config)
}

/// Reads the certificates of a PEM file. Fails if it contains none, or one that is none.
pub(crate) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let problem = |problem: String| format!("{}: {problem}", path.display());
    let pem = std::fs::read(path).map_err(|error| problem(error.to_string()))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|error| problem(error.to_string()))?;
    if found.is_empty() {
        return Err(problem("contains no PEM certificate".to_owned()));
    }
    let mut roots = RootCertStore::empty();
    for (number, certificate) in found.iter().enumerate() {
        if let Err(error) = roots.add(certificate.clone()) {
            let number = number + 1;
            return Err(problem(format!(
                "its certificate {number} is invalid: {error}"
            )));
        }
    }
    Ok(found)
}

/// Which chains are trusted.
#[derive(Debug)]
enum Trust {
    /// Those of the system's CAs and of `ca_file`.
    Roots(Arc<dyn ServerCertVerifier>),
    /// None: there are no CA certificates.
    Nothing,
    /// All: `insecure_skip_verify`.
    Anything,
}

/// Verifies the certificate of a server. In addition to chains that end in a root, it trusts
/// a certificate that `ca_file` contains itself: a self-signed one, as
/// `openssl req -x509` makes it, is a CA's certificate and no valid end of a chain.
#[derive(Debug)]
struct Verifier {
    trust: Trust,
    /// The certificates of `ca_file`.
    named: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let result = match &self.trust {
            Trust::Roots(roots) => {
                roots.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
            Trust::Nothing => Err(CertificateError::UnknownIssuer.into()),
            Trust::Anything => Ok(ServerCertVerified::assertion()),
        };
        match result {
            Err(error) if self.named.contains(end_entity) && is_about_issuer(&error) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

/// Whether a certificate is rejected only since no other one vouches for it. The dates of
/// a certificate are verified before its issuer.
fn is_about_issuer(error: &rustls::Error) -> bool {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => true,
        rustls::Error::InvalidCertificate(error) => is_ca_as_end_entity(error),
        _ => false,
    }
}

/// Whether the certificate of a CA is used as that of a server. rustls has no variant for it.
fn is_ca_as_end_entity(error: &CertificateError) -> bool {
    matches!(error, CertificateError::Other(other)
        if format!("{other:?}").contains("CaUsedAsEndEntity"))
}

/// Returns what is wrong with a server's certificate and what to do, if that is why a
/// connection failed.
pub(super) fn certificate_problem(error: &(dyn StdError + 'static)) -> Option<String> {
    match tls_error(error)? {
        rustls::Error::InvalidCertificate(problem) => Some(format!(
            "the certificate of the server is not trusted: {}",
            describe(problem)
        )),
        _ => None,
    }
}

/// Returns why a handshake failed and what to do, if the cause alone does not say it.
pub(super) fn handshake_problem(error: &(dyn StdError + 'static)) -> Option<String> {
    match tls_error(error)? {
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => Some(
            "the server does not speak TLS at this port: correct the port, or write http://"
                .to_owned(),
        ),
        rustls::Error::AlertReceived(AlertDescription::HandshakeFailure) => Some(format!(
            "received fatal alert: HandshakeFailure: no TLS version or cipher in common, or \
             {CLIENT_CERTIFICATE_MISSING}"
        )),
        _ => missing_client_certificate(error),
    }
}

/// Returns what to do if the server requires a certificate of its client. With TLS 1.3 its
/// alert arrives when the client has completed the handshake and may have sent its request;
/// the server has not read it. Source: RFC 8446, sections 4.4.2.4 and 6.2; authentication
/// after the handshake (4.6.2) requires an extension that rustls does not send.
pub(super) fn missing_client_certificate(error: &(dyn StdError + 'static)) -> Option<String> {
    use AlertDescription::{BadCertificate, CertificateRequired, CertificateUnknown, UnknownCA};
    match tls_error(error)? {
        rustls::Error::AlertReceived(
            alert @ (CertificateRequired | BadCertificate | CertificateUnknown | UnknownCA),
        ) => Some(format!(
            "received fatal alert: {alert:?}: {CLIENT_CERTIFICATE_MISSING}"
        )),
        _ => None,
    }
}

/// Returns the error of rustls among the causes.
fn tls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    find_cause(error)
}

/// Returns the first of the causes that has this type.
pub(super) fn find_cause<'a, T: StdError + 'static>(
    error: &'a (dyn StdError + 'static),
) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        // The source of an I/O error is that of the error that it contains.
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(|error| error.get_ref());
        let found = match inner {
            Some(inner) => inner.downcast_ref::<T>(),
            None => error.downcast_ref::<T>(),
        };
        if found.is_some() {
            return found;
        }
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

fn describe(problem: &CertificateError) -> String {
    match problem {
        CertificateError::UnknownIssuer => format!("its issuer is unknown: {CA_ADVICE}"),
        problem if is_ca_as_end_entity(problem) => {
            format!("it is self-signed, or that of a CA: {CA_ADVICE}")
        }
        CertificateError::ExpiredContext { time, not_after } => format!(
            "it expired at {}; by the gateway's clock it is {}",
            date(*not_after),
            date(*time)
        ),
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "it is not valid before {}; by the gateway's clock it is {}",
            date(*not_before),
            date(*time)
        ),
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => {
            // rustls formats names as `DnsName("example.test")`.
            let names: Vec<&str> = presented
                .iter()
                .map(|name| name.split('"').nth(1).unwrap_or(name))
                .collect();
            let expected = expected.to_str();
            if names.is_empty() {
                return format!(
                    "it has no subjectAltName, and its common name (CN) does not count: add the \
                     subjectAltName {expected}, with openssl by -addext"
                );
            }
            let names = names.join(", ");
            format!("it is for {names}, not for {expected}: correct the host of the URL")
        }
        // Of rustls-platform-verifier, without a variant.
        CertificateError::Other(other) if format!("{other:?}").contains("EkuError") => {
            "it is not for servers (extended key usage)".to_owned()
        }
        problem => problem.to_string(),
    }
}

/// Returns a time as `2026-11-30T12:00:00Z`.
fn date(time: UnixTime) -> String {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs());
    prost_types::Timestamp::from(time).to_string()
}

#[cfg(test)]
mod tests;
