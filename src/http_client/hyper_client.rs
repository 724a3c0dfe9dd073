//! hyper's client, for all requests that need no proxy. reqwest uses it underneath; used
//! directly it costs less per call, its read buffer can be bounded, and it is known whether
//! the request was begun.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{ACCEPT, USER_AGENT};
use http::{HeaderValue, Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::Notify;

use super::connector::Connector;
use super::content_encoding::{self, DecodedBody};
use super::{
    HttpRequest, MAX_INFORMATIONAL, POOL_IDLE_TIMEOUT, Settings, connect_error, exchange_error,
};
use crate::error::Error;

/// Limit of a connection's read buffer, which must hold the response head. hyper's default,
/// which `reqwest` uses, is 400 KiB: 100 MB for 256 connections with long responses.
const MAX_READ_BUFFER_BYTES: usize = 32 << 10;

/// Whether a connection has begun to write a request: before, nothing was sent.
#[derive(Clone, Debug, Default)]
pub(super) struct Begun(Arc<Progress>);

#[derive(Debug, Default)]
struct Progress {
    is_begun: AtomicBool,
    /// Responses of 1xx that have arrived, and whether they are too many.
    informational: AtomicU32,
    flooded: Notify,
}

impl Begun {
    pub fn is_set(&self) -> bool {
        self.0.is_begun.load(Ordering::Acquire)
    }
}

impl Progress {
    /// Counts a response of 1xx, which hyper skips without a limit.
    fn count_informational(&self) {
        if self.informational.fetch_add(1, Ordering::Relaxed) == MAX_INFORMATIONAL {
            self.flooded.notify_one();
        }
    }
}

/// The body of a request. Records that the request is begun.
struct RequestBody {
    /// Until it is sent; none if it is empty.
    data: Option<Bytes>,
    begun: Begun,
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.data.take().map(|data| Ok(Frame::data(data))))
    }

    /// A connection of hyper calls this when it encodes the head, and nothing calls it before.
    fn is_end_stream(&self) -> bool {
        self.begun.0.is_begun.store(true, Ordering::Release);
        self.data.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.as_ref().map_or(0, Bytes::len) as u64)
    }
}

#[derive(Clone, Debug)]
pub(super) struct HyperClient(Client<Connector, RequestBody>);

impl HyperClient {
    pub fn new(settings: &Settings, tls: Arc<rustls::ClientConfig>) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .http1_max_buf_size(MAX_READ_BUFFER_BYTES)
            .build(Connector::new(settings, tls));
        Self(client)
    }

    /// Sends the request and reads the head of the response. Fails with `Connect` or
    /// `Certificate` if there was no connection, else with `NoResponse`.
    pub async fn send(
        &self,
        request: HttpRequest,
        begun: Begun,
    ) -> Result<Response<DecodedBody<Incoming>>, Error> {
        let mut outgoing = Request::new(RequestBody {
            data: request.body.filter(|body| !body.is_empty()),
            begun: begun.clone(),
        });
        let progress = begun.0.clone();
        hyper::ext::on_informational(&mut outgoing, move |_| progress.count_informational());
        *outgoing.method_mut() = request.verb;
        let url = Bytes::from(String::from(request.url));
        *outgoing.uri_mut() = Uri::from_maybe_shared(url.clone())
            .map_err(|_| Error::Connect("the URL is invalid".into()))?;
        *outgoing.headers_mut() = request.headers;
        let headers = outgoing.headers_mut();
        let any = HeaderValue::from_static("*/*");
        headers.entry(ACCEPT).or_insert(any);
        headers.insert(USER_AGENT, HeaderValue::from_static(super::USER_AGENT));
        let response = tokio::select! {
            biased;
            response = self.0.request(outgoing) => response,
            () = begun.0.flooded.notified() => return Err(Error::NoResponse(format!(
                "the upstream sent more than {MAX_INFORMATIONAL} informational responses (1xx)"
            ))),
        };
        let response = response.map_err(|error| match error.is_connect() {
            true => connect_error(&origin(&url), &error),
            false => exchange_error(&error),
        })?;
        Ok(content_encoding::decode(response))
    }
}

/// Returns scheme, host and port of a URL.
fn origin(url: &Bytes) -> String {
    let uri = Uri::from_maybe_shared(url.clone()).unwrap_or_default();
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    // Without user and password.
    let host_and_port = authority.rsplit('@').next().unwrap_or_default();
    format!("{}://{host_and_port}", uri.scheme_str().unwrap_or_default())
}
