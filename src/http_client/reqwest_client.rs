//! HTTP by `reqwest`: with TLS, and through proxies.

use std::sync::OnceLock;

use http::Response;
use reqwest::{Body, Certificate, ClientBuilder, redirect, retry};

use super::{Exchange, IDLE, KEEPALIVE, Settings, USER_AGENT, cause};
use crate::error::Error;

#[derive(Clone, Debug)]
pub(super) struct General(reqwest::Client);

impl General {
    /// Fails when `ca_file` cannot be read or holds no certificate.
    pub fn new(settings: &Settings) -> Result<Self, String> {
        provide_crypto();
        let authorities = match &settings.ca_file {
            None => Vec::new(),
            Some(path) => {
                let told = |problem: String| format!("ca_file {}: {problem}", path.display());
                let pem = std::fs::read(path).map_err(|e| told(e.to_string()))?;
                let found = Certificate::from_pem_bundle(&pem).map_err(|e| told(cause(&e)))?;
                if found.is_empty() {
                    return Err(told("holds no PEM certificate".into()));
                }
                found
            }
        };
        let builder = || {
            let builder = ClientBuilder::new()
                .user_agent(USER_AGENT)
                // A redirect would carry `x-auth-token` to wherever it points.
                .redirect(redirect::Policy::none())
                .referer(false)
                // Retries have one layer, and it is not this one.
                .retry(retry::never())
                .http1_only()
                .gzip(true)
                .connect_timeout(settings.connect_timeout)
                .tcp_nodelay(true)
                .tcp_keepalive(KEEPALIVE)
                .pool_idle_timeout(IDLE);
            if settings.proxy_from_env {
                builder
            } else {
                builder.no_proxy()
            }
        };
        match builder().tls_certs_merge(authorities.clone()).build() {
            Ok(client) => Ok(Self(client)),
            // A machine without any certificate authority can still speak clear HTTP.
            Err(error) if authorities.is_empty() => {
                tracing::warn!(
                    error = cause(&error),
                    "no certificate authorities: https upstreams will not be trusted"
                );
                let client = builder().tls_certs_only([]).build();
                client.map(Self).map_err(|e| cause(&e))
            }
            Err(error) => Err(cause(&error)),
        }
    }

    /// Sends it, and reads the head of the answer.
    pub async fn send(&self, exchange: Exchange) -> Result<Response<Body>, Error> {
        let mut request = reqwest::Request::new(exchange.verb, exchange.url);
        *request.headers_mut() = exchange.headers;
        *request.body_mut() = exchange.body.map(Into::into);
        let response = self.0.execute(request).await.map_err(failure)?;
        Ok(response.into())
    }
}

/// What a failure of the client means: whether anything can have been sent.
fn failure(error: reqwest::Error) -> Error {
    // A builder's error is about an address that no request can be made of.
    if error.is_builder() {
        Error::Connect("the address cannot be used".into())
    } else if error.is_connect() {
        Error::Connect(cause(&error))
    } else {
        Error::NoResponse(cause(&error))
    }
}

/// Chooses ring for all TLS of the process, once. Whoever has chosen before keeps
/// their choice.
fn provide_crypto() {
    static CHOSEN: OnceLock<()> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}
