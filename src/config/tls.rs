//! The certificate that the gateway shows, and whose callers' it trusts.

use rustls::RootCertStore;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use secrecy::SecretString;

use super::Tls;
use super::reader::Section;

/// Reads `[listen.tls]`; what TLS could not be served with is told.
pub(super) fn read(section: &Section<'_>) -> Option<Tls> {
    let certificate = section.required_file("cert_file");
    let key = section.required_file("key_file");
    let client_ca = section.file("client_ca_file");
    if let Some(pem) = &client_ca {
        let mut roots = RootCertStore::empty();
        for authority in certificates(section, "client_ca_file", pem)? {
            if let Err(problem) = roots.add(authority) {
                section.wrong("client_ca_file", &format!("is no authority: {problem}"));
            }
        }
    }
    let (certificate, key) = (certificate?, key?);
    let chain = certificates(section, "cert_file", &certificate)?;
    let Ok(own) = PrivateKeyDer::from_pem_slice(&key) else {
        section.wrong("key_file", "holds no private key in PEM");
        return None;
    };
    if let Err(problem) = CertifiedKey::from_der(chain, own, &default_provider()) {
        let problem = format!("does not go with cert_file: {problem}");
        section.wrong("key_file", &problem);
        return None;
    }
    Some(Tls {
        certificate,
        key: SecretString::from(String::from_utf8(key).ok()?),
        client_ca,
    })
}

/// The certificates of a PEM file: one at least.
fn certificates(
    section: &Section<'_>,
    key: &str,
    pem: &[u8],
) -> Option<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Some(found),
        _ => {
            section.wrong(key, "holds no certificate in PEM");
            None
        }
    }
}
