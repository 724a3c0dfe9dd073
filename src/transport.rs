//! One HTTP exchange. The only place that knows the HTTP client.

use std::error::Error as StdError;
use std::fmt;
use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, Method};
use reqwest::{Certificate, ClientBuilder, redirect, retry};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Code;
use url::Url;

use crate::error::Error;
use crate::rest::{Reply, Room};

#[cfg(test)]
pub(crate) mod script;
#[cfg(test)]
mod tests;

/// What an upstream sees us as.
const USER_AGENT: &str = concat!("drawbridge/", env!("CARGO_PKG_VERSION"));

/// How long an idle connection is kept. Shorter than what common servers keep
/// theirs (uWSGI and nginx: 60 s and more), so that few die as they are reused.
const IDLE: Duration = Duration::from_secs(50);

/// The most that is reserved on the word of a `Content-Length` alone.
const MAX_RESERVE: usize = 1 << 20;

/// Answers up to this length, in bytes, need no room of their own.
const SHORT: usize = 64 << 10;

/// How long an answer waits for room.
const PATIENCE: Duration = Duration::from_secs(1);

/// How much more room than that there is for answers that have waited in vain.
const BEYOND: usize = 7;

/// The longest cause told of a failure, in bytes.
const MAX_CAUSE: usize = 300;

/// How to reach an upstream.
#[derive(Clone, Debug)]
pub struct Settings {
    /// PEM file with certificate authorities to trust besides the system's.
    pub ca_file: Option<std::path::PathBuf>,
    /// How long connecting may last. Default: 10 s.
    pub connect_timeout: std::time::Duration,
    /// How long the upstream may be silent. Default: 100 s (Heat waits 60 s for its engine).
    pub read_timeout: std::time::Duration,
    /// Longest body read, in bytes. Default: 16 MiB.
    pub max_response_bytes: usize,
    /// Bytes of long answers (over 64 KiB) held at once, from when they are read
    /// until the caller has taken them; those that come later wait to be read,
    /// at most 1 s. There are never more than eight times as many; what would be is
    /// not passed on. At least `max_response_bytes`. Default: 32 MiB.
    pub max_buffered_bytes: usize,
    /// Use the `HTTP_PROXY` family of variables. Default: true.
    pub proxy_from_environment: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ca_file: None,
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(100),
            max_response_bytes: 16 << 20,
            max_buffered_bytes: 32 << 20,
            proxy_from_environment: true,
        }
    }
}

/// A request as it goes out.
#[derive(Clone)]
pub struct Exchange {
    /// The HTTP method.
    pub verb: Method,
    /// The whole address, encoded exactly as it is sent.
    pub url: Url,
    /// The headers; secret values are marked sensitive.
    pub headers: HeaderMap,
    /// The body, or none.
    pub body: Option<Bytes>,
}

/// Without the body, which may be a login.
impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("verb", &self.verb)
            .field("url", &self.url.as_str())
            .field("headers", &self.headers)
            .field("body_bytes", &self.body.as_ref().map(Bytes::len))
            .finish()
    }
}

/// A pool of connections to one upstream. Never follows redirects, never sends
/// anything twice. Clones share the pool.
#[derive(Clone, Debug)]
pub struct Transport {
    client: reqwest::Client,
    max_response_bytes: usize,
    /// Room for long answers, in KiB.
    room: Arc<Semaphore>,
    /// Room for those that have waited for it long enough.
    beyond: Arc<Semaphore>,
}

impl Transport {
    /// Makes the client; connects nowhere. Fails when `ca_file` cannot be read
    /// or holds no certificate.
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
                .read_timeout(settings.read_timeout)
                .tcp_nodelay(true)
                .pool_idle_timeout(IDLE);
            if settings.proxy_from_environment {
                builder
            } else {
                builder.no_proxy()
            }
        };
        let client = match builder().tls_certs_merge(authorities.clone()).build() {
            Ok(client) => client,
            // A machine without any certificate authority can still speak clear HTTP.
            Err(error) if authorities.is_empty() => {
                tracing::warn!(
                    error = cause(&error),
                    "no certificate authorities: https upstreams will not be trusted"
                );
                builder()
                    .tls_certs_only([])
                    .build()
                    .map_err(|e| cause(&e))?
            }
            Err(error) => return Err(cause(&error)),
        };
        let bytes = settings.max_buffered_bytes;
        let room = bytes.max(settings.max_response_bytes).div_ceil(1024);
        let semaphore = |kib: usize| Arc::new(Semaphore::new(kib.min(Semaphore::MAX_PERMITS)));
        Ok(Self {
            client,
            max_response_bytes: settings.max_response_bytes,
            room: semaphore(room),
            beyond: semaphore(room.saturating_mul(BEYOND)),
        })
    }

    /// Sends the request and reads the whole answer. Dropping the future closes
    /// the upstream request. Fails with `Connect`, `NoAnswer`, `TooLarge` or
    /// `Undelivered`.
    pub async fn exchange(&self, exchange: Exchange) -> Result<Reply, Error> {
        let mut response = self
            .client
            .execute(request(exchange))
            .await
            .map_err(failure)?;
        let (body, room) = self.read(&mut response).await?;
        Ok(Reply {
            status: response.status(),
            headers: std::mem::take(response.headers_mut()),
            body,
            room,
        })
    }

    /// Reads the body, decompressed, up to the limit. A body that comes in one
    /// piece is not copied; a long one waits for room before it is read.
    async fn read(&self, response: &mut reqwest::Response) -> Result<(Bytes, Room), Error> {
        let limit = self.max_response_bytes;
        let announced = response.content_length().unwrap_or(0);
        if announced > limit as u64 {
            return Err(Error::TooLarge { limit });
        }
        let announced = announced as usize;
        let mut shares = Vec::new();
        let mut taken = SHORT;
        if announced > SHORT {
            shares.push(self.room(announced).await?);
            taken = announced;
        }
        let first = response.chunk().await.map_err(failure)?.unwrap_or_default();
        if first.len() > limit {
            return Err(Error::TooLarge { limit });
        }
        let Some(second) = response.chunk().await.map_err(failure)? else {
            return Ok((first, Room::of(shares)));
        };
        // An announced length is believed only so far: it costs its sender nothing.
        let reserve = announced.clamp(2 * first.len(), MAX_RESERVE.max(2 * first.len()));
        let mut whole = BytesMut::with_capacity(reserve.min(limit));
        whole.extend_from_slice(&first);
        drop(first);
        let mut next = Some(second);
        while let Some(chunk) = next {
            if chunk.len() > limit - whole.len() {
                return Err(Error::TooLarge { limit });
            }
            whole.extend_from_slice(&chunk);
            drop(chunk);
            // A length that nobody announced is guessed, and again.
            if whole.len() > taken {
                shares.push(match taken {
                    SHORT => self.room(MAX_RESERVE).await?,
                    // It holds room already, for which others wait.
                    _ => self.room_at_once(MAX_RESERVE)?,
                });
                taken = whole.len().max(MAX_RESERVE * shares.len());
            }
            next = response.chunk().await.map_err(failure)?;
        }
        Ok((whole.freeze(), Room::of(shares)))
    }

    /// Waits until there is room for so many bytes, first come, first served; but
    /// not for ever: callers who do not take their answers shall not stop others.
    async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Error> {
        let wait = self.room.clone().acquire_many_owned(self.kib(bytes));
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(Ok(share)) => Ok(share),
            _ => self.room_at_once(bytes),
        }
    }

    /// Room for so many bytes, if there is any.
    fn room_at_once(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Error> {
        let take = |room: &Arc<Semaphore>| room.clone().try_acquire_many_owned(self.kib(bytes));
        let share = take(&self.room).or_else(|_| take(&self.beyond));
        share.map_err(|_| Error::Undelivered {
            code: Code::ResourceExhausted,
            problem: "too many long answers wait for their callers to take them \
                      (setting max_buffered_bytes)"
                .into(),
        })
    }

    fn kib(&self, bytes: usize) -> u32 {
        let kib = bytes.min(self.max_response_bytes).div_ceil(1024);
        u32::try_from(kib).unwrap_or(u32::MAX)
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

fn request(exchange: Exchange) -> reqwest::Request {
    let Exchange {
        verb,
        url,
        mut headers,
        body,
    } = exchange;
    let body = body.filter(|body| !body.is_empty());
    // The client says the length of a body itself, but is silent about one that
    // is missing where it is expected; some servers answer that with 411.
    // Source: RFC 9110, section 8.6.
    if body.is_none() && matches!(verb, Method::POST | Method::PUT | Method::PATCH) {
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    let mut request = reqwest::Request::new(verb, url);
    *request.headers_mut() = headers;
    *request.body_mut() = body.map(Into::into);
    request
}

/// What a failure of the client means: whether anything can have been sent.
fn failure(error: reqwest::Error) -> Error {
    // A builder's error is about an address that no request can be made of.
    if error.is_connect() || error.is_builder() {
        Error::Connect(cause(&error))
    } else {
        Error::NoAnswer(cause(&error))
    }
}

/// The chain of causes as one text. The client's own line is left out: it says
/// little and may hold the address, whose query is nobody else's business.
fn cause(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut next = error.source();
    while let Some(error) = next {
        let line = error.to_string();
        // Wrappers often repeat what they wrap.
        if !error.is::<reqwest::Error>() && !line.is_empty() && !text.contains(&line) {
            let separator = if text.is_empty() { "" } else { ": " };
            let _ = write!(text, "{separator}{line}");
        }
        next = error.source();
    }
    if text.is_empty() {
        text.push_str(if error.is_builder() {
            "the address cannot be used"
        } else {
            "the request failed"
        });
    }
    while text.len() > MAX_CAUSE {
        text.pop();
    }
    text
}
