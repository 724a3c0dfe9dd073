use std::io::Write as _;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;

use super::*;
use crate::error::Error;
use crate::http_client::proxy::Proxies;
use crate::http_client::{HttpRequest, Transport};

/// A server's certificate, its key and, in PEM, the file to name.
struct Chain {
    server: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    pem: String,
}

/// Returns a self-signed certificate, as `openssl req -x509` makes it.
fn self_signed(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Chain {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    Chain {
        server: certificate.der().clone(),
        key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        pem: certificate.pem(),
    }
}

/// Makes one request to a server with this certificate.
async fn exchange(chain: &Chain, change: impl FnOnce(&mut Settings)) -> Result<u16, String> {
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(vec![chain.server.clone()], chain.key.clone_key())
    .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "https://localhost:{}/",
        listener.local_addr().unwrap().port()
    );
    let server = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (stream, _) = listener.accept().await.unwrap();
        if let Ok(mut stream) = acceptor.accept(stream).await {
            let _ = stream.read_u8().await;
            let response = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
            let _ = stream.write_all(response).await;
            let _ = stream.shutdown().await;
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        }
    });
    let mut settings = Settings {
        proxy_from_env: false,
        ..Settings::default()
    };
    change(&mut settings);
    let transport = Transport::new(&settings).unwrap();
    let result = transport
        .exchange(HttpRequest {
            verb: http::Method::GET,
            url: url.parse().unwrap(),
            headers: http::HeaderMap::new(),
            body: None,
            memory: Default::default(),
        })
        .await;
    server.abort();
    match result {
        Ok(reply) => Ok(reply.status.as_u16()),
        Err(Error::Certificate(text)) => Err(text),
        Err(other) => panic!("{other:?}"),
    }
}

fn file(pem: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(pem.as_bytes()).unwrap();
    file
}

/// A self-signed certificate that `ca_file` names is trusted; its name and its dates are
/// verified.
#[tokio::test]
async fn self_signed_certificate_is_trusted_if_ca_file_names_it() {
    let nameless = self_signed("localhost", |params| params.subject_alt_names.clear());
    let good = self_signed("localhost", |_| {});
    let leaf = self_signed("localhost", |params| params.is_ca = IsCa::NoCa);
    let other_name = self_signed("other.test", |_| {});
    let expired = self_signed("localhost", |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 2, 3);
    });
    let future = self_signed("localhost", |params| {
        params.not_before = date_time_ymd(2090, 1, 1);
        params.not_after = date_time_ymd(2091, 2, 3);
    });
    for (chain, named, want) in [
        (&good, Some(&good), Ok(204)),
        (&leaf, Some(&leaf), Ok(204)),
        (&good, None, Err(["`ca_file`", "`cacert`"])),
        (&leaf, None, Err(["`ca_file`", "`cacert`"])),
        (&good, Some(&other_name), Err(["`ca_file`", "`cacert`"])),
        (
            &other_name,
            Some(&other_name),
            Err(["it is for other.test, not for localhost", "the URL"]),
        ),
        (
            &nameless,
            Some(&nameless),
            Err([
                "it has no subjectAltName",
                "add the subjectAltName localhost",
            ]),
        ),
        (
            &expired,
            Some(&expired),
            Err(["expired at 2021-02-03T00:00:00Z", "clock it is 20"]),
        ),
        (
            &expired,
            None,
            Err(["expired at 2021-02-03T00:00:00Z", "clock it is 20"]),
        ),
        (
            &future,
            Some(&future),
            Err(["not valid before 2090-01-01T00:00:00Z", "clock"]),
        ),
    ] {
        let named = named.map(|named| file(&named.pem));
        let got = exchange(chain, |settings| {
            settings.ca_file = named.as_ref().map(|file| file.path().to_owned());
        })
        .await;
        match (got, want) {
            (Err(text), Err(parts)) => {
                for part in parts {
                    assert!(text.contains(part), "{part}: {text}");
                }
            }
            (got, want) => assert_eq!(got.ok(), want.ok()),
        }
    }
}

#[tokio::test]
async fn insecure_skip_verify_trusts_any_certificate() {
    let expired = self_signed("other.test", |params| {
        params.not_after = date_time_ymd(2021, 2, 3);
    });
    let got = exchange(&expired, |settings| settings.insecure_skip_verify = true).await;
    assert_eq!(got, Ok(204));
}

/// Connects to a server that requires a client certificate, with this version of TLS; with
/// `proxied` by the client that proxies need.
async fn exchange_without_client_certificate(
    version: &'static rustls::SupportedProtocolVersion,
    proxied: bool,
) -> Error {
    let chain = self_signed("localhost", |_| {});
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(chain.server.clone()).unwrap();
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots),
        Arc::clone(&provider),
    );
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![chain.server.clone()], chain.key.clone_key())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        use tokio::io::AsyncReadExt;
        let (stream, _) = listener.accept().await.unwrap();
        // Read to the end: closing with unread data would reset the connection, and with it
        // the alert.
        if let Err((_, mut stream)) = acceptor.accept(stream).into_fallible().await {
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    });
    let named = file(&chain.pem);
    let mut transport = Transport::new(&Settings {
        ca_file: Some(named.path().to_owned()),
        proxy_from_env: false,
        ..Settings::default()
    })
    .unwrap();
    if proxied {
        // reqwest reads its own proxies: none.
        let proxy = ("ALL_PROXY".to_owned(), "http://proxy.invalid".to_owned());
        transport.proxies = Arc::new(Proxies::new([proxy].into_iter()));
    }
    let result = transport
        .exchange(HttpRequest {
            verb: http::Method::POST,
            url: format!("https://localhost:{port}/").parse().unwrap(),
            headers: http::HeaderMap::new(),
            body: Some("{}".into()),
            memory: Default::default(),
        })
        .await;
    server.abort();
    result.unwrap_err()
}

/// With TLS 1.3 the client has completed the handshake when the alert arrives.
#[tokio::test]
async fn server_that_requires_a_client_certificate_has_not_read_the_request() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for proxied in [false, true] {
            match exchange_without_client_certificate(version, proxied).await {
                Error::Connect(text) => {
                    assert!(text.contains("requires a client certificate"), "{text}");
                }
                other => panic!("{version:?}, proxied {proxied}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn server_without_tls_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let settings = Settings {
        proxy_from_env: false,
        ..Settings::default()
    };
    let transport = Transport::new(&settings).unwrap();
    let request = HttpRequest {
        verb: http::Method::GET,
        url: url.parse().unwrap(),
        headers: http::HeaderMap::new(),
        body: None,
        memory: Default::default(),
    };
    match transport.exchange(request).await {
        Err(Error::Connect(text)) => assert!(text.contains("write http://"), "{text}"),
        other => panic!("{other:?}"),
    }
    server.abort();
}
