//! A connection to a gateway.

use std::error::Error as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tonic::client::Grpc;
use tonic::codegen::http::uri::Uri;
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};

use super::options::{ConnectionOptions, Env, NamedFile};
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
        let url = &options.url(env);
        let origin = match options.gateway {
            None if env("DRAWBRIDGE_GATEWAY").is_some() => "DRAWBRIDGE_GATEWAY",
            _ => "--gateway",
        };
        let bad = |problem: &dyn std::fmt::Display| format!("{origin} {url}: {problem}");
        let mut endpoint = Endpoint::from_shared(url.clone())
            .map_err(|e| bad(&e))?
            .connect_timeout(Duration::from_secs(10))
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(20));
        let (ca, cert, key) = (
            options.ca_file(env),
            options.cert_file(env),
            options.key_file(env),
        );
        let mut has_ca = false;
        match endpoint.uri().scheme_str() {
            Some("http") => {
                let files = [&ca, &cert, &key].into_iter().flatten();
                // Variables are those of other gateways.
                if files.into_iter().any(|file| file.is_flag) || options.server_name.is_some() {
                    return Err(bad(
                        &"--ca, --cert, --key and --server-name are for https://",
                    ));
                }
            }
            Some("https") => {
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
            _ => return Err(bad(&"must be http://HOST:PORT or https://HOST:PORT")),
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

    /// Describes a status of the gateway.
    pub(in crate::cli) fn details(&self, status: &Status) -> Vec<String> {
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
    let mut add = |name: &str, value: &str, secret: bool| {
        let key = MetadataKey::from_bytes(name.as_bytes());
        let value = MetadataValue::try_from(value);
        let (Ok(key), Ok(mut value)) = (key, value) else {
            return Err(format!(
                "the name or the value of the metadata `{name}` is invalid in gRPC"
            ));
        };
        value.set_sensitive(secret);
        metadata.insert(key, value);
        Ok(())
    };
    for (name, variable) in [(TOKEN, "DRAWBRIDGE_TOKEN"), (UPSTREAM_TOKEN, "OS_TOKEN")] {
        if let Some(token) = env(variable) {
            add(name, &token, true)?;
        }
    }
    if let Some(upstream) = &options.upstream {
        add("drawbridge-upstream", upstream, false)?;
    }
    for text in &options.metadata {
        match text.split_once('=') {
            Some((name, value)) => add(&name.to_ascii_lowercase(), value, true)?,
            None => return Err("--metadata: write NAME=VALUE".to_owned()),
        }
    }
    Ok(metadata)
}
