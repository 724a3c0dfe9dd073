//! `[listen.tls]`: the certificate of the gRPC listener, and the CA of client certificates.

use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use secrecy::SecretString;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::reader::Section;
use super::{Problem, Tls};

/// Time before the end of a certificate in which it is a warning.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * 86_400);

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
        let is_encrypted = key.windows(9).any(|word| word == b"ENCRYPTED");
        let problem = match is_encrypted {
            true => "is encrypted with a passphrase: decrypt it (`openssl pkey`)",
            false => "contains no private key in PEM",
        };
        section.invalid("key_file", problem);
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

impl Tls {
    /// Returns the certificates with which no client can connect at this time.
    pub fn problems(&self, now: SystemTime) -> Vec<Problem> {
        self.dates(|subject, begin, end| {
            if now >= end {
                let end = text(end);
                return Some(format!(
                    "the certificate of {subject} expired at {end}: renew it"
                ));
            }
            (now < begin).then(|| {
                format!(
                    "the certificate of {subject} is not valid before {}: check it, and the clock \
                     of this machine",
                    text(begin)
                )
            })
        })
    }

    /// Returns the certificates that expire soon, and CAs of client certificates that have
    /// expired or will soon. The dates of a CA are not checked in a handshake: clients may be.
    pub fn warnings(&self, now: SystemTime) -> Vec<Problem> {
        let mut found = self.dates(|subject, _, end| {
            let soon = now < end && now + EXPIRES_SOON >= end;
            let left = end.duration_since(now).unwrap_or_default().as_secs() / 86_400;
            soon.then(|| {
                format!(
                    "the certificate of {subject} expires at {} (in {left} days): renew it",
                    text(end)
                )
            })
        });
        let client_ca = self.client_ca.as_deref().unwrap_or_default();
        found.extend(dates("listen.tls.client_ca_file", client_ca, true, |subject, _, end| {
            let verb = match now {
                now if now >= end => "expired",
                now if now + EXPIRES_SOON >= end => "expires",
                _ => return None,
            };
            Some(format!(
                "the CA certificate of {subject} {verb} at {}: renew it, and the certificates of \
                 clients that it has issued",
                text(end)
            ))
        }));
        found
    }

    /// Calls `check` with subject, begin and end of each certificate of the chain but its
    /// root, whose dates clients do not check.
    fn dates(
        &self,
        check: impl Fn(&str, SystemTime, SystemTime) -> Option<String>,
    ) -> Vec<Problem> {
        dates("listen.tls.cert_file", &self.certificate, false, check)
    }
}

/// Returns when the first certificate of the files expires, by the name of the file.
pub(crate) fn expiries(tls: &Tls) -> Vec<(&'static str, SystemTime)> {
    let client_ca = tls.client_ca.as_deref().unwrap_or_default();
    let files = [
        ("listener", &*tls.certificate, false),
        ("client_ca", client_ca, true),
    ];
    let ends = files.map(|(name, pem, with_roots)| Some((name, first_end(pem, with_roots)?)));
    ends.into_iter().flatten().collect()
}

/// Returns when the first certificate of a PEM file expires; of a chain without its root.
pub(crate) fn first_end(pem: &[u8], with_roots: bool) -> Option<SystemTime> {
    let first = std::cell::Cell::new(None::<SystemTime>);
    dates("", pem, with_roots, |_, _, end| {
        first.set(Some(first.get().map_or(end, |first| first.min(end))));
        None
    });
    first.get()
}

/// Calls `check` with subject, begin and end of each certificate of the PEM file that `key` names;
/// of a chain all but its root.
fn dates(
    key: &str,
    pem: &[u8],
    with_roots: bool,
    check: impl Fn(&str, SystemTime, SystemTime) -> Option<String>,
) -> Vec<Problem> {
    let time = |seconds: i64| {
        let since = Duration::from_secs(seconds.unsigned_abs());
        match seconds < 0 {
            true => SystemTime::UNIX_EPOCH - since,
            false => SystemTime::UNIX_EPOCH + since,
        }
    };
    let chain = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok);
    let problem = |(place, der): (usize, CertificateDer<'static>)| {
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        if !with_roots && place > 0 && certificate.subject() == certificate.issuer() {
            return None;
        }
        let subject = certificate.subject().to_string();
        let validity = certificate.validity();
        let [begin, end] = [validity.not_before, validity.not_after].map(|t| t.timestamp());
        Some(Problem {
            file: String::new(),
            line: None,
            key: key.to_owned(),
            problem: check(&subject, time(begin), time(end))?,
        })
    };
    chain.enumerate().filter_map(problem).collect()
}

/// Returns a warning if all of these certificates of CAs have expired: the first one, and how
/// many more. Bundles of the system contain expired ones, too.
pub(super) fn expired_ca(certificates: &[CertificateDer<'_>], now: SystemTime) -> Option<String> {
    let expired = certificates.iter().filter_map(|der| {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let end = certificate.validity().not_after.timestamp();
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(end.try_into().unwrap_or(0));
        (now >= end).then(|| (certificate.subject().to_string(), text(end)))
    });
    let expired: Vec<(String, String)> = expired.collect();
    let (subject, end) = expired.first()?;
    let more = match expired.len() - 1 {
        _ if expired.len() < certificates.len() => return None,
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    Some(format!(
        "the CA certificate of {subject} expired at {end}{more}: renew it"
    ))
}

/// Returns a time as in `2026-11-30T12:00:00Z`.
fn text(time: SystemTime) -> String {
    prost_types::Timestamp::from(time).to_string()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(begin: (i32, u8, u8), end: (i32, u8, u8)) -> Tls {
        let mut params = rcgen::CertificateParams::new(["gateway".to_owned()]).expect("a name");
        params.not_before = rcgen::date_time_ymd(begin.0, begin.1, begin.2);
        params.not_after = rcgen::date_time_ymd(end.0, end.1, end.2);
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        Tls {
            certificate: certificate.pem().into_bytes(),
            key: key.serialize_pem().into(),
            client_ca: None,
        }
    }

    #[test]
    fn expired_ca_of_an_upstream_is_a_warning() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_796_000_000);
        let [old, new] = [(2026, 1, 1), (2099, 1, 1)].map(|end| {
            let pem = certificate((2000, 1, 1), end).certificate;
            CertificateDer::from_pem_slice(&pem).expect("a certificate")
        });
        for (certificates, want) in [
            (vec![new.clone()], None),
            (vec![new, old.clone()], None),
            (vec![old.clone()], Some("2026-01-01T00:00:00Z: renew")),
            (
                vec![old.clone(), old],
                Some("2026-01-01T00:00:00Z (and 1 more): renew"),
            ),
        ] {
            let found = expired_ca(&certificates, now);
            assert_eq!(found.is_some(), want.is_some(), "{found:?}");
            assert!(found.unwrap_or_default().contains(want.unwrap_or_default()));
        }
    }

    #[test]
    fn expired_ca_of_clients_is_a_warning() {
        let mut tls = certificate((2000, 1, 1), (2100, 1, 1));
        for (end, want) in [
            (
                (2026, 1, 1),
                Some("expired at 2026-01-01T00:00:00Z: renew it, and"),
            ),
            ((2099, 1, 1), None),
        ] {
            tls.client_ca = Some(certificate((2000, 1, 1), end).certificate);
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_796_000_000);
            assert!(tls.problems(now).is_empty());
            let found = tls
                .warnings(now)
                .into_iter()
                .map(|warning| warning.to_string());
            let found: Vec<String> = found.collect();
            assert_eq!(found.len(), usize::from(want.is_some()), "{found:?}");
            if let Some(want) = want {
                let start = "listen.tls.client_ca_file: the CA certificate of CN=rcgen";
                assert!(
                    found[0].starts_with(start) && found[0].contains(want),
                    "{found:?}"
                );
            }
        }
    }

    #[test]
    fn expired_and_future_certificates_are_problems() {
        let tls = certificate((2026, 1, 10), (2026, 3, 1));
        let day = |text: &str| -> SystemTime {
            let time: prost_types::Timestamp = format!("{text}T00:00:00Z").parse().expect("a time");
            time.try_into().expect("a time")
        };
        for (now, problem, warning) in [
            (
                "2026-01-09",
                Some("is not valid before 2026-01-10T00:00:00Z"),
                None,
            ),
            ("2026-01-10", None, None),
            ("2026-02-14", None, None),
            (
                "2026-02-15",
                None,
                Some("expires at 2026-03-01T00:00:00Z (in 14 days): renew it"),
            ),
            ("2026-02-28", None, Some("(in 1 days): renew it")),
            (
                "2026-03-01",
                Some("expired at 2026-03-01T00:00:00Z: renew it"),
                None,
            ),
        ] {
            let found = [tls.problems(day(now)), tls.warnings(day(now))];
            for (found, want) in found.iter().zip([problem, warning]) {
                let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
                match want {
                    None => assert!(texts.is_empty(), "{now}: {texts:?}"),
                    Some(want) => {
                        let start = "listen.tls.cert_file: the certificate of CN=rcgen";
                        assert!(texts[0].starts_with(start), "{now}: {texts:?}");
                        assert!(texts[0].contains(want), "{now}: {texts:?}");
                    }
                }
            }
        }
    }
}
