//! `[listen.tls]`: the certificate of the gRPC listener, and the CA of client certificates.

use rustls::RootCertStore;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use secrecy::SecretString;

use super::Tls;
use super::reader::Section;

/// Reads `[listen.tls]`, and reports what rustls would not accept.
pub(super) fn read(section: &Section<'_>) -> Option<Tls> {
    let certificate = section.required_file("cert_file");
    let key = section.required_file("key_file");
    let client_ca = section.file("client_ca_file");
    if let Some(pem) = &client_ca {
        let mut roots = RootCertStore::empty();
        for ca in certificates(section, "client_ca_file", pem)? {
            if let Err(problem) = roots.add(ca) {
                section.invalid(
                    "client_ca_file",
                    &format!("is not a CA certificate: {problem}"),
                );
            }
        }
    }
    let (certificate, key) = (certificate?, key?);
    let chain = certificates(section, "cert_file", &certificate)?;
    let Ok(own) = PrivateKeyDer::from_pem_slice(&key) else {
        section.invalid("key_file", "contains no private key in PEM");
        return None;
    };
    if let Err(problem) = CertifiedKey::from_der(chain, own, &default_provider()) {
        let problem = format!("does not match cert_file: {problem}");
        section.invalid("key_file", &problem);
        return None;
    }
    Some(Tls {
        certificate,
        key: SecretString::from(String::from_utf8(key).ok()?),
        client_ca,
    })
}

/// Returns the certificates of a PEM file, at least one.
fn certificates(
    section: &Section<'_>,
    key: &str,
    pem: &[u8],
) -> Option<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Some(found),
        _ => {
            section.invalid(key, "contains no certificate in PEM");
            None
        }
    }
}
