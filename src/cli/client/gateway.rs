//! A connection to a gateway.

use std::error::Error as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tonic::client::Grpc;
use tonic::codegen::http::uri::Uri;
use tonic::metadata::{Ascii, Binary, MetadataKey, MetadataMap, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};

use super::failure::Failure;
use super::options::{ConnectionOptions, Env, NamedFile};
use super::text::sanitize;
use super::{diagnosis, failure};
use crate::server::TOKEN;

/// Maximum size of a message.
const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// Metadata with the client's own token for upstreams.
const UPSTREAM_TOKEN: &str = "x-auth-token";

pub(in crate::cli) use diagnosis::last_cause;

/// A connection to a gateway, and the metadata of each call.
pub(in crate::cli) struct Gateway {
    channel: Channel,
    metadata: MetadataMap,
    uri: Uri,
    has_ca: bool,
    /// Whether any stream has had a message: the port is that of a gateway.
    is_established: AtomicBool,
}

impl Gateway {
    /// Connects.
    pub(in crate::cli) async fn connect(
        options: &ConnectionOptions,
        env: Env<'_>,
    ) -> Result<Self, String> {
        let url = options.url(env)?;
        let origin = match options.gateway {
            None if env("DRAWBRIDGE_GATEWAY").is_some() => "DRAWBRIDGE_GATEWAY",
            _ => "--gateway",
        };
        let bad = |problem: &dyn std::fmt::Display| format!("{origin} {url}: {problem}");
        let mut endpoint = Endpoint::from(url.clone())
            .connect_timeout(Duration::from_secs(10))
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(20));
        let (ca, cert, key) = (
            options.ca_file(env),
            options.cert_file(env),
            options.key_file(env),
        );
        let mut has_ca = false;
        match url.scheme_str() {
            Some("http") => {
                let files = [&ca, &cert, &key].into_iter().flatten();
                // Variables are those of other gateways.
                if files.into_iter().any(|file| file.is_flag) || options.server_name.is_some() {
                    return Err(bad(
                        &"--ca, --cert, --key and --server-name are for https://",
                    ));
                }
            }
            _ => {
                has_ca = ca.is_some();
                let mut tls = tls(ca.as_ref(), cert.as_ref(), key.as_ref())?;
                if let Some(name) = &options.server_name {
                    tls = tls.domain_name(name);
                }
                endpoint = endpoint.tls_config(tls).map_err(|e| {
                    let problem = diagnosis::last_cause(&e);
                    match has_ca {
                        true => bad(&problem),
                        false => bad(&format!(
                            "{problem}; or give the gateway's CA with --ca FILE"
                        )),
                    }
                })?;
            }
        }
        let metadata = metadata(options, env)?;
        let uri = endpoint.uri().clone();
        match endpoint.connect().await {
            Ok(channel) => Ok(Self {
                channel,
                metadata,
                uri,
                has_ca,
                is_established: AtomicBool::new(false),
            }),
            Err(e) => Err(diagnosis::of_connection(&uri, has_ca, e).await),
        }
    }

    pub(in crate::cli) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Returns a client for calls of any rpc.
    pub(in crate::cli) fn grpc(&self) -> Grpc<Channel> {
        Grpc::new(self.channel()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Sends calls to this upstream.
    pub(in crate::cli) fn set_upstream(&mut self, upstream: Option<&str>) -> Result<(), Failure> {
        let Some(upstream) = upstream else {
            return Ok(());
        };
        let value = MetadataValue::try_from(upstream).ok();
        let value = value.filter(|_| !upstream.is_empty()).ok_or_else(|| {
            let name = sanitize(upstream);
            Failure::unknown(format!("--upstream: `{name}` is no name of an upstream"))
        })?;
        self.metadata.insert("drawbridge-upstream", value);
        Ok(())
    }

    /// Returns a request with the metadata of each call.
    pub(in crate::cli) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        *request.metadata_mut() = self.metadata.clone();
        request
    }

    /// Notes that the port has responded as a gateway does.
    pub(in crate::cli) fn set_established(&self) {
        self.is_established.store(true, Ordering::Relaxed);
    }

    /// Describes the end of a call that is not worth another attempt.
    pub(in crate::cli) async fn permanent_problem(&self, status: &Status) -> Option<String> {
        // The gateway's own statuses have no source.
        let cause = status.source()?;
        let probes = !self.is_established.load(Ordering::Relaxed);
        diagnosis::permanent(&self.uri, self.has_ca, cause, probes).await
    }

    /// Describes a status: code and message, and a line per detail.
    pub(in crate::cli) async fn describe(&self, status: &Status) -> Vec<String> {
        match self.permanent_problem(status).await {
            Some(problem) => vec![problem],
            None => self.details(status),
        }
    }

    /// Describes why a call has no status of the gateway; none if it has.
    fn transport_problem(&self, status: &Status) -> Option<String> {
        let cause = diagnosis::last_cause(status.source()?);
        let uri = &self.uri;
        Some(format!(
            "the connection to the gateway at {uri} has failed: {cause}"
        ))
    }

    /// Describes a status in one line.
    pub(in crate::cli) fn line(&self, status: &Status) -> String {
        let problem = self.transport_problem(status);
        problem.unwrap_or_else(|| failure::line(status))
    }

    /// Describes a status of the gateway, or the failed connection.
    pub(in crate::cli) fn details(&self, status: &Status) -> Vec<String> {
        if let Some(problem) = self.transport_problem(status) {
            return vec![problem];
        }
        let mut lines = failure::lines(status);
        if status.code() == Code::Unauthenticated {
            let metadata = &self.metadata;
            lines.extend(failure::token_hint(status, |name| {
                metadata.contains_key(name)
            }));
        }
        lines
    }
}

/// Returns the TLS settings of these files.
fn tls(
    ca: Option<&NamedFile>,
    cert: Option<&NamedFile>,
    key: Option<&NamedFile>,
) -> Result<ClientTlsConfig, String> {
    let mut tls = ClientTlsConfig::new();
    tls = match ca {
        Some(ca) => tls.ca_certificate(Certificate::from_pem(certificates(ca)?)),
        None => tls.with_native_roots(),
    };
    match (cert, key) {
        (Some(cert), Some(key)) => {
            let certificate = certificates(cert)?;
            let pem = read(key)?;
            if PrivateKeyDer::from_pem_slice(&pem).is_err() {
                let problem = match pem.windows(9).any(|word| word == b"ENCRYPTED") {
                    true => "is encrypted with a passphrase: decrypt it (`openssl pkey`)",
                    false => "has no private key in PEM",
                };
                return Err(format!("{key}: {problem}"));
            }
            Ok(tls.identity(Identity::from_pem(certificate, pem)))
        }
        (None, None) => Ok(tls),
        (Some(cert), None) => Err(format!("{cert}: needs its private key, with --key FILE")),
        (None, Some(key)) => Err(format!("{key}: needs its certificate, with --cert FILE")),
    }
}

/// Reads a file with certificates.
fn certificates(file: &NamedFile) -> Result<Vec<u8>, String> {
    let pem = read(file)?;
    match CertificateDer::pem_slice_iter(&pem).next() {
        Some(Ok(_)) => Ok(pem),
        Some(Err(e)) => Err(format!("{file}: is no valid PEM: {e}")),
        None => Err(format!(
            "{file}: has no certificate in PEM (`-----BEGIN CERTIFICATE-----`)"
        )),
    }
}

fn read(file: &NamedFile) -> Result<Vec<u8>, String> {
    let path: &Path = &file.path;
    std::fs::read(path).map_err(|e| format!("{file}: {e}"))
}

fn metadata(options: &ConnectionOptions, env: Env<'_>) -> Result<MetadataMap, String> {
    let mut metadata = MetadataMap::new();
    let mut add = |name: &str, value: &str| -> Result<(), String> {
        let invalid = |what| format!("the {what} of the metadata `{name}` is invalid in gRPC");
        if name.ends_with("-bin") {
            let key = MetadataKey::<Binary>::from_bytes(name.as_bytes());
            let decoded = STANDARD
                .decode(value)
                .or_else(|_| STANDARD_NO_PAD.decode(value));
            let bytes = decoded.map_err(|_| format!("the metadata `{name}` is not base64"))?;
            let mut value = MetadataValue::from_bytes(&bytes);
            value.set_sensitive(true);
            metadata.append_bin(key.map_err(|_| invalid("name"))?, value);
            return Ok(());
        }
        let key = MetadataKey::<Ascii>::from_bytes(name.as_bytes()).map_err(|_| invalid("name"))?;
        let mut value = MetadataValue::try_from(value).map_err(|_| invalid("value"))?;
        value.set_sensitive(true);
        metadata.append(key, value);
        Ok(())
    };
    let is_given = |wanted: &str| {
        let mut names = options.metadata.iter();
        names.any(|text| {
            let name = text.split_once('=').map_or("", |(name, _)| name);
            name.eq_ignore_ascii_case(wanted)
        })
    };
    for (name, variable) in [(TOKEN, "DRAWBRIDGE_TOKEN"), (UPSTREAM_TOKEN, "OS_TOKEN")] {
        // A flag has precedence over its variable.
        if let Some(token) = env(variable).filter(|_| !is_given(name)) {
            add(name, &token)?;
        }
    }
    for text in &options.metadata {
        let Some((name, value)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err("--metadata: write NAME=VALUE".to_owned());
        };
        let name = name.to_ascii_lowercase();
        if let Some(problem) = reserved_name(&name) {
            return Err(format!("--metadata {name}: {problem}"));
        }
        add(&name, value)?;
    }
    Ok(metadata)
}

/// Returns why metadata of this name cannot be given: it is part of the protocol, or has a flag.
fn reserved_name(name: &str) -> Option<&'static str> {
    match name {
        "grpc-timeout" => Some("give the deadline with --timeout, of `call` and `watch`"),
        "drawbridge-upstream" => Some("give the upstream with --upstream, of `call` and `watch`"),
        "content-type" | "te" | "user-agent" | "content-length" | "connection" | "host"
        | "transfer-encoding" | "upgrade" | "keep-alive" | "proxy-connection" => {
            Some("is a header of the protocol, which this program sets")
        }
        _ if name.starts_with("grpc-") => Some("is a header of gRPC, which this program sets"),
        _ if name.starts_with(':') => Some("is a header of HTTP/2, which this program sets"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_has_all_values_and_no_header_of_the_protocol() {
        let read = |given: &[&str]| {
            let options = ConnectionOptions {
                metadata: given.iter().map(|text| (*text).to_owned()).collect(),
                ..ConnectionOptions::default()
            };
            metadata(&options, &|name| (name == "OS_TOKEN").then(|| "env".into()))
        };
        let values = |metadata: &MetadataMap, name: &str| {
            let values = metadata.get_all(name).iter();
            let values = values.map(|value| value.to_str().unwrap().to_owned());
            values.collect::<Vec<_>>()
        };
        let all = read(&["x-a=1", "X-A=2", "b-bin=aGk"]).unwrap();
        assert_eq!(values(&all, "x-a"), ["1", "2"]);
        assert_eq!(values(&all, UPSTREAM_TOKEN), ["env"]);
        let bytes = all.get_bin("b-bin").unwrap().to_bytes().unwrap();
        assert_eq!(bytes, "hi");
        let own = read(&["x-auth-token=flag"]).unwrap();
        assert_eq!(values(&own, UPSTREAM_TOKEN), ["flag"]);
        for (text, want) in [
            (
                "grpc-timeout=1S",
                "--metadata grpc-timeout: give the deadline with --timeout",
            ),
            (
                "GRPC-Encoding=gzip",
                "--metadata grpc-encoding: is a header of gRPC",
            ),
            ("te=x", "--metadata te: is a header of the protocol"),
            (
                "drawbridge-upstream=u",
                "--metadata drawbridge-upstream: give the upstream with",
            ),
            ("=x", "--metadata: write NAME=VALUE"),
            ("x", "--metadata: write NAME=VALUE"),
            ("a b=hidden", "the name of the metadata `a b` is invalid"),
            ("a=hidden\n", "the value of the metadata `a` is invalid"),
            ("a-bin=hidden!", "the metadata `a-bin` is not base64"),
        ] {
            let problem = read(&[text]).unwrap_err();
            assert!(problem.starts_with(want), "{text}: {problem}");
            assert!(!problem.contains("hidden"), "{problem}");
        }
    }
}
