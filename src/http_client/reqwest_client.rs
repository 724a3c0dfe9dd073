//! reqwest's client, for TLS and for proxies.

use std::sync::{Arc, OnceLock};

use http::Response;
use reqwest::{Body, Certificate, ClientBuilder, Proxy, redirect, retry};
use url::Url;

use super::content_encoding::{self, DecodedBody};
use super::proxy::Proxies;
use super::{HttpRequest, POOL_IDLE_TIMEOUT, Settings, TCP_KEEPALIVE, USER_AGENT, cause};
use crate::error::Error;

#[derive(Clone, Debug)]
pub(super) struct ReqwestClient(reqwest::Client);

impl ReqwestClient {
    /// Fails if `ca_file` cannot be read or contains no certificate.
    pub fn new(settings: &Settings, proxies: Arc<Proxies>) -> Result<Self, String> {
        install_crypto_provider();
        let ca_certificates = match &settings.ca_file {
            None => Vec::new(),
            Some(path) => {
                let in_file = |problem: String| format!("ca_file {}: {problem}", path.display());
                let pem = std::fs::read(path).map_err(|e| in_file(e.to_string()))?;
                let found = Certificate::from_pem_bundle(&pem).map_err(|e| in_file(cause(&e)))?;
                if found.is_empty() {
                    return Err(in_file("contains no PEM certificate".into()));
                }
                found
            }
        };
        let builder = || {
            let builder = ClientBuilder::new()
                .user_agent(USER_AGENT)
                // A redirect would send `x-auth-token` to another host.
                .redirect(redirect::Policy::none())
                .referer(false)
                // `upstream` retries.
                .retry(retry::never())
                .http1_only()
                .connect_timeout(settings.connect_timeout)
                .tcp_nodelay(true)
                .tcp_keepalive(TCP_KEEPALIVE)
                .pool_idle_timeout(POOL_IDLE_TIMEOUT);
            if proxies.is_empty() {
                return builder.no_proxy();
            }
            // reqwest's own reading of `NO_PROXY` ignores `*` for addresses, and ports.
            let proxies = proxies.clone();
            let find = move |url: &Url| proxies.find(url).ok().flatten().cloned();
            builder.no_proxy().proxy(Proxy::custom(find))
        };
        match builder().tls_certs_merge(ca_certificates.clone()).build() {
            Ok(client) => Ok(Self(client)),
            // Plaintext HTTP works on a machine without CA certificates.
            Err(error) if ca_certificates.is_empty() => {
                tracing::warn!(
                    error = cause(&error),
                    "no CA certificates found: calls to https upstreams will fail"
                );
                let client = builder().tls_certs_only([]).build();
                client.map(Self).map_err(|e| cause(&e))
            }
            Err(error) => Err(cause(&error)),
        }
    }

    /// Sends the request and reads the head of the response. Fails with `Connect` if
    /// nothing was sent, else with `NoResponse`.
    pub async fn send(&self, request: HttpRequest) -> Result<Response<DecodedBody<Body>>, Error> {
        let mut outgoing = reqwest::Request::new(request.verb, request.url);
        *outgoing.headers_mut() = request.headers;
        *outgoing.body_mut() = request.body.map(Into::into);
        let response = self.0.execute(outgoing).await.map_err(failure)?;
        Ok(content_encoding::decode(response.into()).await)
    }
}

fn failure(error: reqwest::Error) -> Error {
    // Fails before connecting, on a URL that hyper cannot parse.
    if error.is_builder() {
        Error::Connect("the URL is invalid".into())
    } else if error.is_connect() {
        Error::Connect(cause(&error))
    } else {
        Error::NoResponse(cause(&error))
    }
}

/// Makes ring the process's TLS crypto provider, once, unless there is one already.
fn install_crypto_provider() {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}
