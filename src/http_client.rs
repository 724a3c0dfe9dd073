//! One HTTP exchange. The only place that knows the HTTP clients: `reqwest`, and for
//! clear HTTP without a proxy hyper's own (`direct`).

use std::error::Error as StdError;
use std::fmt;
use std::fmt::Write as _;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, Method, Response};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Code;
use url::Url;

use crate::error::Error;
use drawbridge_transcoder::call::{Reply, Room};

use crate::http_client::hyper_client::Direct;
use crate::http_client::reqwest_client::General;

mod hyper_client;
mod reqwest_client;
#[cfg(test)]
pub(crate) mod test_server;
#[cfg(test)]
mod tests;

/// What an upstream sees us as.
const USER_AGENT: &str = concat!("drawbridge/", env!("CARGO_PKG_VERSION"));

/// How long an idle connection is kept. Shorter than what common servers keep
/// theirs (uWSGI and nginx: 60 s and more), so that few die as they are reused.
const IDLE: Duration = Duration::from_secs(50);

/// How often an idle connection is probed.
const KEEPALIVE: Duration = Duration::from_secs(15);

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
    pub proxy_from_env: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ca_file: None,
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(100),
            max_response_bytes: 16 << 20,
            max_buffered_bytes: 32 << 20,
            proxy_from_env: true,
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
    general: General,
    /// For clear HTTP, unless there is a proxy to go through.
    direct: Option<Direct>,
    read_timeout: Duration,
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
        let proxies = settings.proxy_from_env && proxy_for_http();
        let bytes = settings.max_buffered_bytes;
        let room = bytes.max(settings.max_response_bytes).div_ceil(1024);
        let semaphore = |kib: usize| Arc::new(Semaphore::new(kib.min(Semaphore::MAX_PERMITS)));
        Ok(Self {
            general: General::new(settings)?,
            direct: (!proxies).then(|| Direct::new(settings)),
            read_timeout: settings.read_timeout,
            max_response_bytes: settings.max_response_bytes,
            room: semaphore(room),
            beyond: semaphore(room.saturating_mul(BEYOND)),
        })
    }

    /// Sends the request and reads the whole answer. Dropping the future closes
    /// the upstream request. Fails with `Connect`, `NoAnswer`, `TooLarge` or
    /// `Undelivered`.
    pub async fn exchange(&self, mut exchange: Exchange) -> Result<Reply, Error> {
        exchange.body = exchange.body.filter(|body| !body.is_empty());
        // The clients say the length of a body themselves, but are silent about one
        // that is missing where it is expected; some servers answer that with 411.
        // Source: RFC 9110, section 8.6.
        let expected = matches!(exchange.verb, Method::POST | Method::PUT | Method::PATCH);
        if exchange.body.is_none() && expected {
            let none = HeaderValue::from_static("0");
            exchange.headers.insert(CONTENT_LENGTH, none);
        }
        match &self.direct {
            Some(direct) if exchange.url.scheme() == "http" => {
                self.reply(direct.send(exchange)).await
            }
            // Boxed: it is the larger one, and TLS costs more than an allocation.
            _ => Box::pin(self.reply(self.general.send(exchange))).await,
        }
    }

    async fn reply<B>(
        &self,
        answer: impl Future<Output = Result<Response<B>, Error>>,
    ) -> Result<Reply, Error>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>>,
    {
        let (head, body) = self.unless_silent(answer).await??.into_parts();
        let announced = head.headers.get(CONTENT_LENGTH);
        let announced = announced.and_then(|length| length.to_str().ok()?.parse().ok());
        let (body, room) = self.read(pin!(body), announced.unwrap_or(0)).await?;
        Ok(Reply {
            status: head.status,
            headers: head.headers,
            body,
            room,
        })
    }

    /// Reads the body, decompressed, up to the limit. A body that comes in one
    /// piece is not copied; a long one waits for room before it is read.
    async fn read<B>(&self, mut from: Pin<&mut B>, announced: usize) -> Result<(Bytes, Room), Error>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>>,
    {
        let limit = self.max_response_bytes;
        if announced > limit {
            return Err(Error::ResponseTooLarge { limit });
        }
        let mut shares = Vec::new();
        let mut taken = SHORT;
        if announced > SHORT {
            shares.push(self.room(announced).await?);
            taken = announced;
        }
        let first = self.piece(from.as_mut()).await?.unwrap_or_default();
        if first.len() > limit {
            return Err(Error::ResponseTooLarge { limit });
        }
        let Some(second) = self.piece(from.as_mut()).await? else {
            return Ok((first, Room::of(shares)));
        };
        // An announced length is believed only so far: it costs its sender nothing.
        let reserve = announced.clamp(2 * first.len(), MAX_RESERVE.max(2 * first.len()));
        let mut whole = BytesMut::with_capacity(reserve.min(limit));
        whole.extend_from_slice(&first);
        drop(first);
        let mut next = Some(second);
        while let Some(piece) = next {
            if piece.len() > limit - whole.len() {
                return Err(Error::ResponseTooLarge { limit });
            }
            whole.extend_from_slice(&piece);
            drop(piece);
            // A length that nobody announced is guessed, and again.
            if whole.len() > taken {
                shares.push(match taken {
                    SHORT => self.room(MAX_RESERVE).await?,
                    // It holds room already, for which others wait.
                    _ => self.room_at_once(MAX_RESERVE)?,
                });
                taken = whole.len().max(MAX_RESERVE * shares.len());
            }
            next = self.piece(from.as_mut()).await?;
        }
        Ok((whole.freeze(), Room::of(shares)))
    }

    /// The next piece of a body; None at its end.
    async fn piece<B>(&self, mut from: Pin<&mut B>) -> Result<Option<Bytes>, Error>
    where
        B: Body<Data = Bytes, Error: Into<BoxError>>,
    {
        loop {
            match self.unless_silent(from.frame()).await? {
                None => return Ok(None),
                Some(Err(error)) => return Err(Error::NoResponse(cause(&*error.into()))),
                // What is no data are trailers.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// What comes of `next`, if it comes within `read_timeout`.
    async fn unless_silent<T>(&self, next: impl Future<Output = T>) -> Result<T, Error> {
        let within = tokio::time::timeout(self.read_timeout, next).await;
        within.map_err(|_| {
            let silent = self.read_timeout;
            Error::NoResponse(format!("silent for {silent:?} (setting read_timeout)"))
        })
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
        share.map_err(|_| Error::ResponseNotDelivered {
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

type BoxError = Box<dyn StdError + Send + Sync>;

/// Whether the environment names a proxy for clear HTTP, as `reqwest` reads it.
fn proxy_for_http() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]
        .into_iter()
        .any(set)
}

/// The chain of causes as one text. `reqwest`'s own line is left out: it says
/// little and may hold the address, whose query is nobody else's business.
fn cause(error: &(dyn StdError + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
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
        text.push_str("the request failed");
    }
    while text.len() > MAX_CAUSE {
        text.pop();
    }
    text
}
