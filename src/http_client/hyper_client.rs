//! Clear HTTP without a proxy, by hyper's own client, which is also below `reqwest`:
//! alone it costs less, and lets what a connection reads ahead be bounded.

use bytes::Bytes;
use http::header::{ACCEPT, USER_AGENT};
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower::Service;
use tower_http::decompression::{Decompression, DecompressionBody};

use super::{Exchange, IDLE, KEEPALIVE, Settings, cause};
use crate::error::Error;

/// The most that a connection reads ahead, in bytes; a head must fit into it.
/// hyper's own bound, which `reqwest` keeps to, is 400 KiB: for 256 connections
/// with long answers, 100 MB.
const READ_AHEAD: usize = 32 << 10;

#[derive(Clone, Debug)]
pub(super) struct Direct(Decompression<Client<HttpConnector, Full<Bytes>>>);

impl Direct {
    pub fn new(settings: &Settings) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_keepalive(Some(KEEPALIVE));
        connector.set_connect_timeout(Some(settings.connect_timeout));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .http1_max_buf_size(READ_AHEAD)
            .build(connector);
        Self(Decompression::new(client))
    }

    /// Sends it, and reads the head of the answer.
    pub async fn send(
        &self,
        exchange: Exchange,
    ) -> Result<Response<DecompressionBody<Incoming>>, Error> {
        let mut request = Request::new(Full::new(exchange.body.unwrap_or_default()));
        *request.method_mut() = exchange.verb;
        *request.uri_mut() = Uri::from_maybe_shared(Bytes::from(String::from(exchange.url)))
            .map_err(|_| Error::Connect("the address cannot be used".into()))?;
        *request.headers_mut() = exchange.headers;
        let headers = request.headers_mut();
        let any = HeaderValue::from_static("*/*");
        headers.entry(ACCEPT).or_insert(any);
        headers.insert(USER_AGENT, HeaderValue::from_static(super::USER_AGENT));
        let answer = self.0.clone().call(request).await;
        // Whether anything can have been sent.
        answer.map_err(|error| match error.is_connect() {
            true => Error::Connect(cause(&error)),
            false => Error::NoResponse(cause(&error)),
        })
    }
}
