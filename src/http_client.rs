//! The HTTP client of the upstreams and identity services: one request, one response.
//!
//! `reqwest_client` sends requests through a proxy, `hyper_client` all others over the
//! connections of `connector`; `tls` decides which certificates are trusted. Neither client
//! follows redirects nor retries: `upstream` does. (hyper sends a request again if a pooled
//! connection was closed before the request was begun.)

use std::error::Error as StdError;
use std::fmt;
use std::fmt::Write as _;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt;
use tonic::Code;
use url::Url;

use crate::deadline::Deadline;
use crate::error::Error;
use crate::memory::{self, Exhausted, Memory};
use drawbridge_transcoder::call::Reply;

use crate::http_client::content_encoding::CodingError;
use crate::http_client::hyper_client::{Begun, HyperClient};
use crate::http_client::proxy::Proxies;
use crate::http_client::reqwest_client::ReqwestClient;
pub use crate::http_client::response_body::ResponseBody;

mod connector;
mod content_encoding;
mod hyper_client;
pub(crate) mod own_listener;
mod proxy;
mod reqwest_client;
mod response_body;
pub(crate) mod retry_after;
#[cfg(test)]
pub(crate) mod test_server;
#[cfg(test)]
mod tests;
mod tls;

pub use crate::http_client::proxy::bypasses_proxy;
pub(crate) use crate::http_client::proxy::is_loopback;
pub(crate) use crate::http_client::tls::read_certificates;

const USER_AGENT: &str = concat!("drawbridge/", env!("CARGO_PKG_VERSION"));

/// How long an idle connection is pooled. Shorter than the keep-alive timeout of common
/// servers (uWSGI and nginx: 60 s and more), which may close one while it is being reused.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// Interval of TCP keep-alive probes.
const TCP_KEEPALIVE: Duration = Duration::from_secs(15);

/// Limit of the memory that is allocated because of `Content-Length`, before the data
/// arrives.
const MAX_RESERVE_BYTES: usize = 1 << 20;

/// Unused capacity that the buffer of a complete body may keep.
const MAX_SPARE_BYTES: usize = 4 << 10;

/// Limit of the informational responses (1xx) before a response. A WebDAV server sends one each
/// 20 s while it works; source: RFC 2518, "102 Processing".
const MAX_INFORMATIONAL: u32 = 32;

/// Limit of a failure's cause in an error.
const MAX_CAUSE_BYTES: usize = 300;

/// The settings of connections to an upstream.
#[derive(Clone, Debug)]
pub struct Settings {
    /// PEM file with certificates to trust in addition to the system's: of CAs, or of the
    /// server itself.
    pub ca_file: Option<std::path::PathBuf>,
    /// Whether any certificate is trusted, so that anyone on the network can read and change
    /// the calls. Default: false.
    pub insecure_skip_verify: bool,
    /// Timeout of connecting, TLS handshake included. Default: 10 s.
    pub connect_timeout: std::time::Duration,
    /// Longest time without a byte from the upstream. Default: 100 s (Heat waits 60 s for
    /// its engine).
    pub read_timeout: std::time::Duration,
    /// Limit of a response body that is read completely, in bytes. Default: 16 MiB.
    pub max_response_bytes: usize,
    /// Whether `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` are used. Default: true.
    pub proxy_from_env: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ca_file: None,
            insecure_skip_verify: false,
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(100),
            max_response_bytes: 16 << 20,
            proxy_from_env: true,
        }
    }
}

/// An HTTP request, in its final form.
#[derive(Clone)]
pub struct HttpRequest {
    /// The HTTP method.
    pub verb: Method,
    /// The URL, percent-encoded.
    pub url: Url,
    /// The headers; secret values are marked sensitive.
    pub headers: HeaderMap,
    /// The body, or none.
    pub body: Option<Bytes>,
    /// What the response draws from.
    pub memory: Memory,
}

/// Omits the body, which may be a login.
impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRequest")
            .field("verb", &self.verb)
            .field("url", &self.url.as_str())
            .field("headers", &self.headers)
            .field("body_bytes", &self.body.as_ref().map(Bytes::len))
            .finish()
    }
}

/// A connection pool to one upstream. Never follows redirects, never retries. Clones share
/// the pool.
#[derive(Clone)]
pub struct Transport {
    /// For URLs with a proxy.
    reqwest_client: ReqwestClient,
    hyper_client: HyperClient,
    proxies: Arc<Proxies>,
    read_timeout: Duration,
    max_response_bytes: usize,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").finish_non_exhaustive()
    }
}

impl Transport {
    /// Builds the HTTP clients; opens no connection. Fails if `ca_file` cannot be read or
    /// contains no certificate.
    pub fn new(settings: &Settings) -> Result<Self, String> {
        let proxies = match settings.proxy_from_env {
            true => Proxies::of_process(),
            false => Proxies::default(),
        };
        Self::with_proxies(settings, Arc::new(proxies))
    }

    fn with_proxies(settings: &Settings, proxies: Arc<Proxies>) -> Result<Self, String> {
        let tls = Arc::new(tls::client_config(settings)?);
        Ok(Self {
            reqwest_client: ReqwestClient::new(
                settings,
                rustls::ClientConfig::clone(&tls),
                proxies.clone(),
            )?,
            hyper_client: HyperClient::new(settings, tls),
            proxies,
            read_timeout: settings.read_timeout,
            max_response_bytes: settings.max_response_bytes,
        })
    }

    /// Sends the request and reads the complete response. Dropping the future closes the
    /// upstream request. Fails with `Connect`, `Certificate`, `NoResponse`,
    /// `ResponseTooLarge` or `ResponseNotDelivered`.
    pub async fn exchange(&self, request: HttpRequest) -> Result<Reply, Error> {
        self.exchange_over(request, &mut None).await
    }

    /// As [`Self::exchange`]; fails also with [`Error::Deadline`], which says whether anything
    /// may have been sent.
    pub async fn exchange_until(
        &self,
        request: HttpRequest,
        deadline: Deadline,
    ) -> Result<Reply, Error> {
        let mut begun = None;
        let exchange = self.exchange_over(request, &mut begun);
        let result = deadline.bound(exchange).await;
        result.unwrap_or_else(|_| {
            Err(Error::Deadline {
                sent: may_be_sent(begun.as_ref()),
            })
        })
    }

    /// Makes the exchange. Sets `begun` if the client knows whether the request was begun.
    async fn exchange_over(
        &self,
        request: HttpRequest,
        begun: &mut Option<Begun>,
    ) -> Result<Reply, Error> {
        let mut request = prepared(request);
        let memory = std::mem::take(&mut request.memory);
        let result = match self.proxies.find(&request.url)? {
            None => {
                let begun = begun.insert(Begun::default()).clone();
                self.reply(self.hyper_client.send(request, begun), &memory)
                    .await
            }
            // Boxed since the future is large; a proxy costs more than the allocation.
            Some(proxy) => {
                let response = self.reqwest_client.send(request, proxy);
                Box::pin(self.reply(response, &memory)).await
            }
        };
        result.map_err(|error| not_begun(error, begun.as_ref()))
    }

    /// Sends the request and reads the head of the response. The body is read completely, as
    /// by [`Transport::exchange`], unless `streams` returns true for the status: the reply
    /// has no body then, and the returned one is read as it arrives, without a limit. Fails
    /// as [`Transport::exchange_until`].
    pub async fn open_until(
        &self,
        request: HttpRequest,
        streams: impl Fn(StatusCode) -> bool,
        deadline: Deadline,
    ) -> Result<(Reply, Option<ResponseBody>), Error> {
        let mut request = prepared(request);
        let memory = std::mem::take(&mut request.memory);
        let mut begun = None;
        let result = match self.proxies.find(&request.url)? {
            None => {
                let begun = begun.insert(Begun::default()).clone();
                let response = self.hyper_client.send(request, begun);
                let opened = self.opened(response, streams, &memory);
                deadline.bound(opened).await
            }
            Some(proxy) => {
                let response = self.reqwest_client.send(request, proxy);
                deadline
                    .bound(Box::pin(self.opened(response, streams, &memory)))
                    .await
            }
        };
        let begun = begun.as_ref();
        match result {
            Ok(result) => result.map_err(|error| not_begun(error, begun)),
            Err(_) => Err(Error::Deadline {
                sent: may_be_sent(begun),
            }),
        }
    }

    async fn opened<B>(
        &self,
        response: impl Future<Output = Result<Response<B>, Error>>,
        streams: impl Fn(StatusCode) -> bool,
        memory: &Memory,
    ) -> Result<(Reply, Option<ResponseBody>), Error>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let response = self.head(response).await?;
        if !streams(response.status()) {
            let reply = self.reply(std::future::ready(Ok(response)), memory).await?;
            return Ok((reply, None));
        }
        let (head, body) = response.into_parts();
        let reply = Reply {
            status: head.status,
            headers: head.headers,
            body: Bytes::new(),
        };
        Ok((reply, Some(ResponseBody::new(body, self.read_timeout))))
    }

    async fn reply<B>(
        &self,
        response: impl Future<Output = Result<Response<B>, Error>>,
        memory: &Memory,
    ) -> Result<Reply, Error>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>>,
    {
        let (head, body) = self.head(response).await?.into_parts();
        let content_length = head.headers.get(CONTENT_LENGTH);
        let content_length = content_length.and_then(|length| length.to_str().ok()?.parse().ok());
        let content_length = content_length.unwrap_or(0);
        let body = match self.read(pin!(body), content_length, memory).await {
            // The status says more than the body would.
            Err(Error::NotTheResource { .. }) if !head.status.is_success() => Bytes::new(),
            read => read?,
        };
        Ok(Reply {
            status: head.status,
            headers: head.headers,
            body,
        })
    }

    /// Reads the decompressed body up to the limit. A body of one chunk is not copied. What
    /// is read draws from the memory of the client before it is kept.
    async fn read<B>(
        &self,
        mut from: Pin<&mut B>,
        content_length: usize,
        memory: &Memory,
    ) -> Result<Bytes, Error>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>>,
    {
        let limit = self.max_response_bytes;
        if content_length > limit {
            return Err(Error::ResponseTooLarge { limit });
        }
        let first = self.chunk(from.as_mut()).await?.unwrap_or_default();
        if first.len() > limit {
            return Err(Error::ResponseTooLarge { limit });
        }
        let Some(second) = self.chunk(from.as_mut()).await? else {
            let reservation = memory.reserve_long(first.len()).map_err(not_delivered)?;
            return Ok(reservation.attach(first));
        };
        // `Content-Length` is trusted only up to a limit: it costs its sender nothing.
        let max_reserve = MAX_RESERVE_BYTES.max(2 * first.len());
        let mut capacity = content_length
            .clamp(2 * first.len(), max_reserve)
            .min(limit);
        let mut reservation = memory.empty();
        let mut body = Vec::new();
        let mut next = Some(first);
        let mut after = Some(second);
        while let Some(chunk) = next {
            let length = body.len() + chunk.len();
            if length > limit {
                return Err(Error::ResponseTooLarge { limit });
            }
            if length > body.capacity() {
                capacity = capacity.max(length);
                reservation.replace(capacity).map_err(not_delivered)?;
                let mut larger = Vec::with_capacity(capacity);
                larger.extend_from_slice(&body);
                body = larger;
                reservation.resize(capacity).map_err(not_delivered)?;
                capacity = capacity.saturating_mul(2).min(limit);
            }
            body.extend_from_slice(&chunk);
            drop(chunk);
            next = match after.take() {
                Some(chunk) => Some(chunk),
                None => self.chunk(from.as_mut()).await?,
            };
        }
        if body.capacity() > body.len() + MAX_SPARE_BYTES {
            body.shrink_to_fit();
            reservation.resize(body.len()).map_err(not_delivered)?;
        }
        Ok(reservation.attach(body))
    }

    /// Returns the next chunk of a body; None at its end.
    async fn chunk<B>(&self, mut from: Pin<&mut B>) -> Result<Option<Bytes>, Error>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>>,
    {
        loop {
            match self.with_read_timeout(from.frame()).await? {
                None => return Ok(None),
                Some(Err(error)) => return Err(body_error(&*error.into())),
                // Trailers are skipped.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// Waits for the head of a response; fails with `NoResponse` after `read_timeout`, however
    /// many bytes of it have arrived.
    async fn head<B>(
        &self,
        response: impl Future<Output = Result<Response<B>, Error>>,
    ) -> Result<Response<B>, Error> {
        let result = tokio::time::timeout(self.read_timeout, response).await;
        result.unwrap_or_else(|_| {
            Err(Error::NoResponse(format!(
                "no complete response head for {:?} (setting read_timeout)",
                self.read_timeout
            )))
        })
    }

    /// Runs a read; fails with `NoResponse` after `read_timeout`.
    async fn with_read_timeout<T>(&self, read: impl Future<Output = T>) -> Result<T, Error> {
        let result = tokio::time::timeout(self.read_timeout, read).await;
        result.map_err(|_| no_data(self.read_timeout))
    }
}

type BoxError = Box<dyn StdError + Send + Sync>;

/// Returns the error of a response that does not fit into the memory budget.
pub(crate) fn not_delivered(exhausted: Exhausted) -> Error {
    Error::ResponseNotDelivered {
        code: Code::ResourceExhausted,
        problem: exhausted.to_string(),
        retry_after: Some(memory::RETRY_AFTER),
    }
}

/// Returns the error of an upstream that sends nothing of a body for so long. What frames the
/// body, such as the length of a chunk, does not count.
fn no_data(timeout: Duration) -> Error {
    Error::NoResponse(format!("no data for {timeout:?} (setting read_timeout)"))
}

/// Completes a request: an empty body becomes none.
fn prepared(mut request: HttpRequest) -> HttpRequest {
    request.body = request.body.filter(|body| !body.is_empty());
    // The clients set the length of a body, but not `Content-Length: 0` for a method
    // that normally has one; some servers respond 411 without it.
    // Source: RFC 9110, section 8.6.
    let expected = matches!(request.verb, Method::POST | Method::PUT | Method::PATCH);
    if request.body.is_none() && expected {
        let zero = HeaderValue::from_static("0");
        request.headers.insert(CONTENT_LENGTH, zero);
    }
    let gzip = HeaderValue::from_static("gzip");
    request.headers.entry(ACCEPT_ENCODING).or_insert(gzip);
    request
}

/// Returns whether anything may have been sent; true if that is not known.
fn may_be_sent(begun: Option<&Begun>) -> bool {
    begun.is_none_or(Begun::is_set)
}

/// Corrects the error of a request that was not begun.
fn not_begun(error: Error, begun: Option<&Begun>) -> Error {
    match error {
        Error::NoResponse(cause) if !may_be_sent(begun) => Error::Connect(cause),
        error => error,
    }
}

/// Returns the error of a connection that could not be opened, with its address, which most
/// causes lack.
fn connect_error(origin: &str, error: &(dyn StdError + 'static)) -> Error {
    match tls::certificate_problem(error) {
        Some(problem) => Error::Certificate(problem),
        None => {
            let problem = tls::handshake_problem(error).unwrap_or_else(|| cause(error));
            Error::Connect(format!("{origin}: {problem}"))
        }
    }
}

/// Returns the error of a request on an open connection that got no response.
fn exchange_error(error: &(dyn StdError + 'static)) -> Error {
    if let Some(problem) = tls::find_cause::<connector::SpeaksTls>(error) {
        return Error::Connect(problem.to_string());
    }
    match tls::missing_client_certificate(error) {
        Some(problem) => Error::Connect(problem),
        None => Error::NoResponse(cause(error)),
    }
}

/// Returns the error of a body that was not read to its end. One that has arrived, and cannot
/// be decoded, is a response.
fn body_error(error: &(dyn StdError + 'static)) -> Error {
    match error.downcast_ref::<CodingError>() {
        Some(problem) => Error::not_the_resource(format!("Content-Encoding: {problem}")),
        None => Error::NoResponse(cause(error)),
    }
}

/// Returns the chain of causes as one text. The messages of `reqwest` and of hyper's client are
/// omitted: they are generic, and `reqwest`'s may contain the URL with its query.
fn cause(error: &(dyn StdError + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let line = error.to_string();
        // Wrappers often repeat the text of their source.
        let is_generic = error.is::<reqwest::Error>() || line.starts_with("client error (");
        if !is_generic && !line.is_empty() && !text.contains(&line) {
            let separator = if text.is_empty() { "" } else { ": " };
            let _ = write!(text, "{separator}{line}");
        }
        next = error.source();
    }
    if text.is_empty() {
        text.push_str("the request failed");
    }
    while text.len() > MAX_CAUSE_BYTES {
        text.pop();
    }
    text
}
