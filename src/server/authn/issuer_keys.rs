//! The keys of an issuer of JSON Web Tokens: a JWK set, from a file or a URL.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderMap, Method};
use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};
use url::Url;

use crate::config::JwksSource;
use crate::deadline::Deadline;
use crate::http_client::{self, HttpRequest, Transport};
use crate::memory::Memory;

/// How often the keys at a URL are read again.
const REFRESH_INTERVAL: Duration = Duration::from_secs(300);

/// When reading them is tried again after a failure.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// The shortest time between two reads that tokens with unknown keys cause.
const MIN_DEMAND_INTERVAL: Duration = Duration::from_secs(10);

/// How long keys are used that cannot be read again.
const MAX_STALE: Duration = Duration::from_secs(24 * 3_600);

/// How long a read may take.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest JWK set, in bytes, and the most keys in it.
const MAX_BYTES: usize = 1 << 20;
const MAX_KEYS: usize = 1_000;

/// The keys of an issuer, which may change.
#[derive(Debug)]
pub(in crate::server) struct IssuerKeys {
    keys: ArcSwap<Vec<Key>>,
    /// The number of changes.
    generation: AtomicU64,
    remote: Option<Remote>,
}

/// Where keys are read again.
#[derive(Debug)]
struct Remote {
    url: Url,
    transport: Transport,
    state: Mutex<ReadState>,
    /// Reads them at the interval.
    task: std::sync::OnceLock<AbortHandle>,
}

#[derive(Debug, Default)]
struct ReadState {
    /// The last read that has succeeded.
    read_at: Option<Instant>,
    /// The last read because of a token.
    demanded_at: Option<Instant>,
    /// The number of reads, whether or not they have succeeded.
    reads: u64,
    /// Whether the last read has failed, which is logged once.
    has_failed: bool,
}

/// One key.
#[derive(Debug)]
struct Key {
    id: Option<String>,
    /// The only algorithm that it is used with.
    algorithm: Option<Algorithm>,
    key: DecodingKey,
}

/// The key of a token.
pub(super) enum Found {
    Key(DecodingKey),
    /// The token names none, and several could have signed it.
    Several,
    None,
}

impl IssuerKeys {
    /// Reads the keys of a file, or begins to read those at a URL.
    ///
    /// # Errors
    ///
    /// Fails for a file without a usable key, and for a CA that cannot be used.
    pub(super) fn new(source: &JwksSource) -> Result<Arc<Self>, String> {
        let remote = match source {
            JwksSource::File(bytes) => {
                return Ok(Arc::new(Self {
                    keys: ArcSwap::from_pointee(read(bytes)?),
                    generation: AtomicU64::new(1),
                    remote: None,
                }));
            }
            JwksSource::Url(url, ca_file) => Remote {
                url: url.clone(),
                transport: Transport::new(&http_client::Settings {
                    ca_file: ca_file.clone(),
                    connect_timeout: READ_TIMEOUT,
                    read_timeout: READ_TIMEOUT,
                    max_response_bytes: MAX_BYTES,
                    ..http_client::Settings::default()
                })?,
                state: Mutex::default(),
                task: std::sync::OnceLock::new(),
            },
        };
        let keys = Arc::new(Self {
            keys: ArcSwap::default(),
            generation: AtomicU64::new(1),
            remote: Some(remote),
        });
        let weak = Arc::downgrade(&keys);
        let task = tokio::spawn(async move {
            while let Some(keys) = weak.upgrade() {
                let pause = match keys.refresh().await {
                    true => REFRESH_INTERVAL,
                    false => RETRY_INTERVAL,
                };
                drop(keys);
                sleep(pause).await;
            }
        });
        if let Some(remote) = &keys.remote {
            let _ = remote.task.set(task.abort_handle());
        }
        Ok(keys)
    }

    /// Returns the number of changes.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    /// Returns whether there are keys.
    pub(super) fn is_known(&self) -> bool {
        !self.keys.load().is_empty()
    }

    /// Returns the key with this id, for this algorithm.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Found {
        let keys = self.keys.load();
        let mut fitting = keys.iter().filter(|key| {
            id.is_none_or(|id| key.id.as_deref() == Some(id))
                && key.key.family() == algorithm.family()
                && key.algorithm.is_none_or(|only| only == algorithm)
        });
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Found::Key(key.key.clone()),
            (Some(_), Some(_)) => Found::Several,
            (None, _) => Found::None,
        }
    }

    /// Reads the keys again because of a token whose key is not known, unless they have just
    /// been read for another one.
    pub(in crate::server) async fn refresh_on_demand(&self) {
        let Some(remote) = &self.remote else { return };
        let Ok(before) = remote.state.try_lock().map(|state| state.reads) else {
            // They are being read.
            drop(remote.state.lock().await);
            return;
        };
        let mut state = remote.state.lock().await;
        let now = Instant::now();
        let is_recent = |at: Instant| now < at + MIN_DEMAND_INTERVAL;
        if state.reads != before || state.demanded_at.is_some_and(is_recent) {
            return;
        }
        state.demanded_at = Some(now);
        self.read_remote(remote, &mut state).await;
    }

    /// Reads the keys at a URL. Returns whether that has succeeded.
    async fn refresh(&self) -> bool {
        let Some(remote) = &self.remote else {
            return true;
        };
        let mut state = remote.state.lock().await;
        self.read_remote(remote, &mut state).await
    }

    async fn read_remote(&self, remote: &Remote, state: &mut ReadState) -> bool {
        let result = remote.read().await;
        state.reads += 1;
        let now = Instant::now();
        match result {
            Ok(keys) => {
                state.read_at = Some(now);
                state.has_failed = false;
                self.replace(keys);
                true
            }
            Err(problem) => {
                if !std::mem::replace(&mut state.has_failed, true) {
                    tracing::warn!(
                        url = remote.url.as_str(),
                        problem,
                        "cannot read the keys of listen.clients.jwt: the last ones are used"
                    );
                }
                let is_stale = |at: Instant| now > at + MAX_STALE;
                if state.read_at.is_some_and(is_stale) {
                    self.replace(Vec::new());
                }
                false
            }
        }
    }

    fn replace(&self, keys: Vec<Key>) {
        self.keys.store(Arc::new(keys));
        self.generation.fetch_add(1, Relaxed);
    }
}

impl Drop for IssuerKeys {
    fn drop(&mut self) {
        if let Some(task) = self.remote.as_ref().and_then(|remote| remote.task.get()) {
            task.abort();
        }
    }
}

impl Remote {
    async fn read(&self) -> Result<Vec<Key>, String> {
        let request = HttpRequest {
            verb: Method::GET,
            url: self.url.clone(),
            headers: HeaderMap::new(),
            body: None,
            memory: Memory::default(),
        };
        let exchange = self
            .transport
            .exchange_until(request, Deadline::after(READ_TIMEOUT));
        let reply = exchange.await.map_err(|error| error.to_string())?;
        match reply.status.is_success() {
            true => read(&reply.body),
            false => Err(format!("the response is HTTP {}", reply.status.as_u16())),
        }
    }
}

/// Reads the keys of a JWK set. Those of other uses and of unknown kinds are left out, as RFC
/// 7517, "JWK Set Format", requires.
fn read(json: &[u8]) -> Result<Vec<Key>, String> {
    let set: Value = serde_json::from_slice(json).map_err(|_| "is not JSON".to_owned())?;
    let keys = set.get("keys").and_then(Value::as_array);
    let keys = keys.ok_or_else(|| "is no JWK set: it has no list `keys`".to_owned())?;
    if keys.len() > MAX_KEYS {
        return Err(format!("has more than {MAX_KEYS} keys"));
    }
    let usable = keys.iter().filter_map(|key| {
        let jwk: Jwk = serde_json::from_value(key.clone()).ok()?;
        let common = &jwk.common;
        if !matches!(common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return None;
        }
        let algorithm = match common.key_algorithm {
            // One that is not known is not used at all.
            Some(algorithm) => Some(algorithm.to_string().parse().ok()?),
            None => None,
        };
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        // A shared secret is published by mistake.
        (key.family() != jsonwebtoken::AlgorithmFamily::Hmac).then(|| Key {
            id: jwk.common.key_id.clone(),
            algorithm,
            key,
        })
    });
    let usable: Vec<Key> = usable.collect();
    match usable.is_empty() {
        true => Err("has no public key for signatures".to_owned()),
        false => Ok(usable),
    }
}
