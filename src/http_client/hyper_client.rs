//! hyper's client, for all requests that need no proxy. reqwest uses it underneath; used
//! directly it costs less per call, its read buffer can be bounded, and it is known whether
//! a connection was opened.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, USER_AGENT};
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::connector::Connector;
use super::content_encoding::{self, DecodedBody};
use super::{HttpRequest, POOL_IDLE_TIMEOUT, Settings, cause, connect_error};
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
        *connection = Some(capture_connection(&mut outgoing));
        let uri = outgoing.uri().clone();
        let response = self.0.request(outgoing).await;
        let response = response.map_err(|error| match error.is_connect() {
            true => connect_error(&origin(&uri), &error),
            false => Error::NoResponse(cause(&error)),
        })?;
        Ok(content_encoding::decode(response))
    }
}

/// Returns scheme, host and port of a URL.
fn origin(uri: &Uri) -> String {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    // Without user and password.
    let host_and_port = authority.rsplit('@').next().unwrap_or_default();
    format!("{}://{host_and_port}", uri.scheme_str().unwrap_or_default())
}
