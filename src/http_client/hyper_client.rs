//! hyper's client, for all requests that need no proxy. reqwest uses it underneath; used
//! directly it costs less per call, its read buffer can be bounded, and it is known whether
//! a connection was opened.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use bytes::Bytes;
use http::header::{ACCEPT, USER_AGENT};
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::connector::{Connector, Flooded};
use super::content_encoding::{self, DecodedBody};
use super::{
    HttpRequest, MAX_INFORMATIONAL, POOL_IDLE_TIMEOUT, Settings, connect_error, exchange_error,
};
use crate::error::Error;

/// Limit of a connection's read buffer, which must hold the response head. hyper's default,
/// which `reqwest` uses, is 400 KiB: 100 MB for 256 connections with long responses.
const MAX_READ_BUFFER_BYTES: usize = 32 << 10;

#[derive(Clone, Debug)]
pub(super) struct HyperClient(Client<Connector, Full<Bytes>>);

impl HyperClient {
    pub fn new(settings: &Settings, tls: Arc<rustls::ClientConfig>) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .http1_max_buf_size(MAX_READ_BUFFER_BYTES)
            .build(Connector::new(settings, tls));
        Self(client)
    }

    /// Sends the request and reads the head of the response. Sets `connection`, which knows
    /// whether there is one. Fails with `Connect` or `Certificate` if nothing was sent, else
    /// with `NoResponse`.
    pub async fn send(
        &self,
        request: HttpRequest,
        connection: &mut Option<CaptureConnection>,
    ) -> Result<Response<DecodedBody<Incoming>>, Error> {
        let mut outgoing = Request::new(Full::new(request.body.unwrap_or_default()));
        *outgoing.method_mut() = request.verb;
        *outgoing.uri_mut() = Uri::from_maybe_shared(Bytes::from(String::from(request.url)))
            .map_err(|_| Error::Connect("the URL is invalid".into()))?;
        *outgoing.headers_mut() = request.headers;
        let headers = outgoing.headers_mut();
        let any = HeaderValue::from_static("*/*");
        headers.entry(ACCEPT).or_insert(any);
        headers.insert(USER_AGENT, HeaderValue::from_static(super::USER_AGENT));
        let captured = capture_connection(&mut outgoing);
        limit_informational(&mut outgoing, captured.clone());
        *connection = Some(captured);
        let uri = outgoing.uri().clone();
        let response = self.0.request(outgoing).await;
        let response = response.map_err(|error| match error.is_connect() {
            true => connect_error(&origin(&uri), &error),
            false => exchange_error(&error),
        })?;
        Ok(content_encoding::decode(response))
    }
}

/// Fails the connection of a request if the upstream sends more than [`MAX_INFORMATIONAL`]
/// responses of 1xx, which hyper skips without a limit.
fn limit_informational(request: &mut Request<Full<Bytes>>, connection: CaptureConnection) {
    let received = AtomicU32::new(0);
    hyper::ext::on_informational(request, move |_| {
        if received.fetch_add(1, Relaxed) == MAX_INFORMATIONAL {
            Flooded::set(&connection);
        }
    });
}

/// Returns scheme, host and port of a URL.
fn origin(uri: &Uri) -> String {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    // Without user and password.
    let host_and_port = authority.rsplit('@').next().unwrap_or_default();
    format!("{}://{host_and_port}", uri.scheme_str().unwrap_or_default())
}
