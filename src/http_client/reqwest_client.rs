//! reqwest's client, for proxies.

use std::sync::Arc;

use http::Response;
use reqwest::{Body, ClientBuilder, Proxy, redirect, retry};
use url::Url;

use super::content_encoding::{self, DecodedBody};
use super::proxy::Proxies;
use super::{
    HttpRequest, POOL_IDLE_TIMEOUT, Settings, TCP_KEEPALIVE, USER_AGENT, cause, connect_error,
    exchange_error,
};
use crate::error::Error;

#[derive(Clone, Debug)]
pub(super) struct ReqwestClient(reqwest::Client);

impl ReqwestClient {
    pub fn new(
        settings: &Settings,
        tls: rustls::ClientConfig,
        proxies: Arc<Proxies>,
    ) -> Result<Self, String> {
        // reqwest's own reading of `NO_PROXY` ignores `*` for addresses, and ports.
        let find = move |url: &Url| proxies.find(url).ok().flatten().cloned();
        let builder = ClientBuilder::new()
            .user_agent(USER_AGENT)
            // A redirect would send `x-auth-token` to another host.
            .redirect(redirect::Policy::none())
            .referer(false)
            // `upstream` retries.
            .retry(retry::never())
            .http1_only()
            .tls_backend_preconfigured(tls)
            .connect_timeout(settings.connect_timeout)
            .tcp_nodelay(true)
            .tcp_keepalive(TCP_KEEPALIVE)
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .no_proxy()
            .proxy(Proxy::custom(find));
        builder.build().map(Self).map_err(|error| cause(&error))
    }

    /// Sends the request and reads the head of the response. Fails with `Connect`
    /// or `Certificate` if nothing was sent, else with `NoResponse`.
    pub async fn send(
        &self,
        request: HttpRequest,
        proxy: &Url,
    ) -> Result<Response<DecodedBody<Body>>, Error> {
        let mut outgoing = reqwest::Request::new(request.verb, request.url);
        *outgoing.headers_mut() = request.headers;
        *outgoing.body_mut() = request.body.map(Into::into);
        let response = self.0.execute(outgoing).await;
        let response = response.map_err(|error| failure(error, proxy))?;
        Ok(content_encoding::decode(response.into()))
    }
}

/// Returns the error of a request through this proxy, named without user and password.
fn failure(error: reqwest::Error, proxy: &Url) -> Error {
    // Fails before connecting, on a URL that hyper cannot parse.
    if error.is_builder() {
        Error::Connect("the URL is invalid".into())
    } else if error.is_connect() {
        let origin = error.url().map(|url| url.origin().ascii_serialization());
        let proxy = proxy.origin().ascii_serialization();
        let way = format!("{} through the proxy {proxy}", origin.unwrap_or_default());
        connect_error(&way, &error)
    } else {
        exchange_error(&error)
    }
}
