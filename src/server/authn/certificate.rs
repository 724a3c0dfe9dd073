//! The identity that a client certificate names.

use std::fmt::Write as _;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use crate::downstream::{Identity, IdentityKind};

/// The scheme of SPIFFE ids. Source: SPIFFE-ID, "SPIFFE Identity".
const SPIFFE: &str = "spiffe://";

/// Returns the identity of a verified certificate, in DER: its SPIFFE id, else its first DNS
/// name, else its subject.
///
/// # Errors
///
/// Returns why the certificate names no single client.
pub(in crate::server) fn identity(der: &[u8]) -> Result<Identity, String> {
    let invalid = |problem: &str| format!("the client certificate {problem}");
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| invalid("cannot be read"))?;
    let names = certificate.subject_alternative_name();
    let names = names.map_err(|_| invalid("has names that cannot be read"))?;
    let names = names.map_or(&[][..], |names| &names.value.general_names);
    let mut ids = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) if uri.starts_with(SPIFFE) => Some(*uri),
        _ => None,
    });
    let dns = names.iter().find_map(|name| match name {
        GeneralName::DNSName(dns) => Some(dns.to_ascii_lowercase()),
        _ => None,
    });
    let name = match (ids.next(), ids.next(), dns) {
        // Source: X509-SVID, "Leaf Certificates".
        (Some(_), Some(_), _) => return Err(invalid("has several SPIFFE ids")),
        (Some(id), None, _) => id.to_owned(),
        (None, _, Some(dns)) => dns,
        (None, _, None) => {
            let subject = certificate.subject();
            subject_text(subject).ok_or_else(|| invalid("has a subject that cannot be read"))?
        }
    };
    Identity::new(IdentityKind::Certificate, &name)
        .map_err(|problem| invalid(&format!("has a name that {problem}")))
}

/// Returns a subject as Envoy writes it: `CN=shop,O=Example`. Source: RFC 2253, "Converting
/// DistinguishedName from ASN.1 to a String".
fn subject_text(subject: &X509Name<'_>) -> Option<String> {
    let mut text = String::new();
    let parts: Vec<_> = subject.iter().collect();
    for part in parts.into_iter().rev() {
        for (place, attribute) in part.iter().enumerate() {
            if !text.is_empty() {
                text.push(if place == 0 { ',' } else { '+' });
            }
            let kind = attribute.attr_type();
            match oid2abbrev(kind, oid_registry()) {
                Ok(word) => text.push_str(word),
                Err(_) => write!(text, "{kind}").ok()?,
            }
            text.push('=');
            escape(attribute.as_str().ok()?, &mut text);
        }
    }
    Some(text)
}

/// Escapes what separates the parts of a subject, so that no value can look like another part.
fn escape(value: &str, text: &mut String) {
    let last = value.chars().count().saturating_sub(1);
    for (place, c) in value.chars().enumerate() {
        let at_edge = c == ' ' && (place == 0 || place == last) || c == '#' && place == 0;
        if at_edge || ",+\"\\<>;=".contains(c) {
            text.push('\\');
        }
        text.push(c);
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(names: &[SanType], subject: &[(DnType, &str)]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.subject_alt_names = names.to_vec();
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn certificate_is_named_by_spiffe_id_then_dns_then_subject() {
        let uri = |text: &str| SanType::URI(text.try_into().unwrap());
        let dns = |text: &str| SanType::DnsName(text.try_into().unwrap());
        let (cn, o) = (DnType::CommonName, DnType::OrganizationName);
        let id = uri("spiffe://example.org/ns/shop");
        for (names, subject, want) in [
            (
                vec![dns("shop.example"), uri("https://example.org"), id.clone()],
                vec![(cn.clone(), "shop")],
                Ok("certificate:spiffe://example.org/ns/shop"),
            ),
            (
                vec![
                    uri("https://example.org"),
                    dns("Shop.example"),
                    dns("b.example"),
                ],
                vec![(cn.clone(), "other")],
                Ok("certificate:shop.example"),
            ),
            (
                vec![],
                vec![(o.clone(), "Example"), (cn.clone(), "shop")],
                Ok("certificate:CN=shop,O=Example"),
            ),
            (
                vec![],
                vec![(cn.clone(), "shop,O=Example")],
                Ok("certificate:CN=shop\\,O\\=Example"),
            ),
            (
                vec![id.clone(), uri("spiffe://example.org/b")],
                vec![],
                Err("several"),
            ),
            (
                vec![],
                vec![(cn.clone(), "a\nb")],
                Err("control characters"),
            ),
            (vec![], vec![], Err("is empty")),
        ] {
            let got = identity(&certificate(&names, &subject));
            match (got, want) {
                (Ok(got), Ok(want)) => assert_eq!(got.as_str(), want),
                (Err(got), Err(want)) => assert!(got.contains(want), "{got}"),
                (got, want) => panic!("{got:?}, not {want:?}"),
            }
        }
        assert!(identity(b"no certificate").is_err());
    }
}
