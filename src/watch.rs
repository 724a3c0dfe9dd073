//! Poll loops, shared by all who watch the same thing with the same eyes, and
//! the streams they feed.
//!
//! One task polls per watched thing and credential; it ends with its last
//! watcher. A watcher is no task but a future that reads the loop's newest
//! snapshot: a slow one skips states and never makes anything grow. In reading
//! order: `source` is what is polled, `snapshot` what a read brings,
//! `cadence` when the next read comes, `poller` the loop, `stream` what a
//! watcher is told.

mod log;
mod poll_backoff;
mod shared_loop;
mod snapshot;
mod source;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::HeaderValue;
use tokio::sync::watch;

use crate::credentials::CredentialId;
use crate::deadline::Deadline;
use crate::engine::call_context::{CallContext, StreamContext};
use crate::engine::stream_limiter::{StreamLimiter, limit_reached};
use crate::engine::unary;
use crate::error::Error;
use crate::watch::shared_loop::Loop;
use drawbridge_transcoder::api::drawbridge::v1::{WatchEvent, WatchEventType};
use drawbridge_transcoder::call::Call;
use drawbridge_transcoder::contract::{Method, Start, Watch};
use source::{Aim, RestSource, Source, Target};
use stream::Seat;
pub use stream::WatchStream;

/// Bounds of watching.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Streams at once, of watches and of lists. Default: 50,000.
    pub max_streams: usize,
    /// Poll loops at once. Default: 10,000.
    pub max_poll_loops: usize,
    /// The longest silence of a stream, from 1 s to 1 day. Default: 30 s.
    pub bookmark_interval: Duration,
    /// How long an upstream that cannot be read is borne. Default: 5 min.
    pub failure_tolerance: Duration,
    /// Items of a watched list. Default: 100,000.
    pub max_items: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_streams: 50_000,
            max_poll_loops: 10_000,
            bookmark_interval: Duration::from_secs(30),
            failure_tolerance: Duration::from_secs(300),
            max_items: 100_000,
        }
    }
}

/// What goes on now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Open streams of watches and of lists, those included that wait for their
    /// first message.
    pub watchers: usize,
    /// Running poll loops.
    pub loops: usize,
    /// Polls since the start; refreshes of single items are not counted.
    pub polls_total: u64,
}

/// All watches of the gateway. Clones share them.
#[derive(Clone)]
pub struct Watches(Arc<Registry>);

impl fmt::Debug for Watches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watches").field(&self.stats()).finish()
    }
}

/// The running loops.
struct Registry {
    settings: Settings,
    /// Watchers join, and loops leave, under this lock alone.
    loops: Mutex<HashMap<Arc<Key>, Arc<Loop>>>,
    /// The shared ends of logs; locked after `loops`, where both are.
    tails: log::Tails,
    streams: StreamLimiter,
    polls: AtomicU64,
    /// Watches that began with a call.
    begun: AtomicU64,
    /// The wall clock; a parameter for tests.
    clock: fn() -> SystemTime,
    /// A random number from 0 to 1; a parameter for tests.
    random: fn() -> f64,
}

/// Who asked for a watch, and how.
struct Asked {
    request: Bytes,
    context: StreamContext,
    follow: bool,
    deadline: Option<Deadline>,
}

/// What is watched, and with whose eyes. Watchers with equal keys share a loop.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    upstream: Box<str>,
    /// The gRPC path of the watch: it implies what is polled and how it is told.
    rpc: Box<str>,
    /// The call as it is bound: verb, path, place of the project, query, body.
    verb: http::Method,
    path: String,
    project: Option<Range<usize>>,
    query: String,
    body: Option<Bytes>,
    /// Nobody sees through another's eyes.
    viewer: CredentialId,
    /// Where the family passes it on: nobody reads another's language.
    language: Option<HeaderValue>,
    /// What else of the request decides on what is told. For a watch that begins
    /// with a call, a number of its own: what was read before that call is not
    /// what it leads to.
    aside: Vec<u8>,
}

impl Key {
    fn new(method: &Method, call: &Call, context: &StreamContext, aside: Vec<u8>) -> Self {
        let StreamContext { upstream, client } = context;
        Self {
            upstream: upstream.settings.name.as_str().into(),
            rpc: method.path.clone(),
            verb: call.verb.clone(),
            path: call.path.clone(),
            project: call.project.clone(),
            query: call.query.clone(),
            body: call.body.clone(),
            viewer: upstream.credentials.credential_id(client),
            language: upstream
                .family
                .accept_language
                .and_then(|_| client.accept_language.clone()),
            aside,
        }
    }
}

impl Watches {
    /// No loop runs yet.
    pub fn new(settings: Settings) -> Self {
        Self::with(settings, SystemTime::now, fastrand::f64)
    }

    fn with(mut settings: Settings, clock: fn() -> SystemTime, random: fn() -> f64) -> Self {
        let (shortest, longest) = (Duration::from_secs(1), Duration::from_secs(86_400));
        settings.bookmark_interval = settings.bookmark_interval.clamp(shortest, longest);
        Self(Arc::new(Registry {
            streams: StreamLimiter::new(settings.max_streams),
            settings,
            loops: Mutex::default(),
            tails: log::Tails::default(),
            polls: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            clock,
            random,
        }))
    }

    /// Watches what `request` names, as `caller` sees it, until `deadline`, where
    /// there is one. Returns when the first message is there. A watch that begins
    /// with a call makes that, once, until `call_by`.
    ///
    /// Fails as the first poll does, so that a wrong name is the rpc's own error,
    /// or as the call that it begins with; with [`Error::Overload`] when the bounds
    /// of [`Settings`] are reached; with [`Error::Draining`] after
    /// [`Watches::drain`].
    pub async fn watch(
        &self,
        method: &Arc<Method>,
        request: Bytes,
        call: CallContext<'_>,
        deadline: Option<Deadline>,
    ) -> Result<WatchStream, Error> {
        let context = call.to_stream();
        if method.log.is_some() {
            return self.follow_log(method, request, context, deadline).await;
        }
        let not_a_watch = || Error::Malformed(format!("{} is not a watch", method.path));
        let watch = method.watch.as_ref().ok_or_else(not_a_watch)?;
        let follow = watch.follows(&request);
        if let Some(start) = &watch.start {
            let started = self.begin(start, &request, call).await?;
            let asked = Asked {
                request,
                context,
                follow,
                deadline,
            };
            return Ok(self.follow_up(method, watch, &started, asked));
        }
        let call = method.bind(&request, context.dialect())?;
        let key = Key::new(method, &call, &context, watch.aside(&request)?);
        let max_items = self.0.settings.max_items;
        let poll = watch.poll_request(&request)?;
        let target = Target::new(watch, poll, Some(call), context.dialect())?;
        let source = RestSource::new(method, request, Aim::poll(target), context, max_items)
            .ok_or_else(not_a_watch)?;
        let source: Arc<dyn Source> = Arc::new(source);
        self.open(key, follow, deadline, || Arc::clone(&source))
            .await
    }

    /// Makes the call that a watch begins with: its response. Never twice, and not
    /// at all where there is no place for the watch.
    async fn begin(
        &self,
        start: &Start,
        request: &Bytes,
        context: CallContext<'_>,
    ) -> Result<Bytes, Error> {
        self.0.has_room()?;
        let call = Bytes::from(start.request(request)?);
        let answered = unary::call(context, &start.rpc, &call).await?;
        Ok(answered.decoded.message)
    }

    /// The stream behind that call: what it started is told first, whatever comes.
    fn follow_up(
        &self,
        method: &Arc<Method>,
        watch: &Watch,
        started: &Bytes,
        asked: Asked,
    ) -> WatchStream {
        let Asked {
            request,
            context,
            follow,
            deadline,
        } = asked;
        let event = WatchEvent {
            r#type: WatchEventType::Started.into(),
            observed_at: Some((self.0.clock)().into()),
            ..WatchEvent::default()
        };
        let message = watch.started_message(&event, started);
        let aim = match Aim::of_started(watch, &request, started, &context) {
            Ok(Some(aim)) => aim,
            Ok(None) => return WatchStream::last(message, Ok(())),
            Err(error) => return WatchStream::last(message, Err(error)),
        };
        let number = self.0.begun.fetch_add(1, Ordering::Relaxed);
        let key = Key::new(method, aim.call(), &context, number.to_be_bytes().into());
        let max_items = self.0.settings.max_items;
        let Some(source) = RestSource::new(method, request, aim, context, max_items) else {
            return WatchStream::last(message, Ok(()));
        };
        match self.join(&Arc::new(key), follow, || Arc::new(source)) {
            Ok(joins) => WatchStream::started(message, joins, deadline),
            Err(error) => WatchStream::last(message, Err(error)),
        }
    }

    /// The places that watches take, for streams that are none.
    pub fn streams(&self) -> &StreamLimiter {
        &self.0.streams
    }

    /// Ends every stream with [`Error::Draining`] and refuses new ones with it.
    pub fn drain(&self) {
        self.0.streams.drain();
    }

    /// What goes on now.
    pub fn stats(&self) -> Stats {
        Stats {
            watchers: self.0.streams.open(),
            loops: self.0.lock().len() + self.0.tails.len(),
            polls_total: self.0.polls.load(Ordering::Relaxed),
        }
    }

    /// Joins the loop of this key, or begins it with `source`.
    async fn open(
        &self,
        key: Key,
        follow: bool,
        deadline: Option<Deadline>,
        source: impl Fn() -> Arc<dyn Source>,
    ) -> Result<WatchStream, Error> {
        let key = Arc::new(key);
        let stream = async {
            let joins = self.join(&key, follow, &source)?;
            if let Some(stream) = WatchStream::open(joins, deadline).await? {
                return Ok(stream);
            }
            // Another loop was begun since: all its reads are later than the call.
            let mut joins = self.join(&key, follow, &source)?;
            joins.reads = 0;
            let stopped = || Error::NoResponse("the poll loop has stopped".to_owned());
            let stream = WatchStream::open(joins, deadline).await?;
            stream.ok_or_else(stopped)
        };
        match deadline {
            Some(deadline) => deadline.bound(stream).await?,
            None => stream.await,
        }
    }

    fn join(
        &self,
        key: &Arc<Key>,
        follow: bool,
        source: impl FnOnce() -> Arc<dyn Source>,
    ) -> Result<Joins, Error> {
        let registry = &self.0;
        let place = registry.streams.acquire()?;
        let mut loops = registry.lock();
        let running = loops.len() + registry.tails.len();
        let (news, shared) = match loops.entry(Arc::clone(key)) {
            Entry::Occupied(entry) => {
                let shared = Arc::clone(entry.get());
                (shared.news.subscribe(), shared)
            }
            Entry::Vacant(_) if running >= registry.settings.max_poll_loops => {
                return Err(limit_reached("poll loops", "watch.max_poll_loops"));
            }
            Entry::Vacant(entry) => {
                let key = Arc::clone(key);
                let (shared, news) = Loop::new(source());
                entry.insert(Arc::clone(&shared));
                tokio::spawn(shared_loop::run(
                    Arc::clone(registry),
                    key,
                    Arc::clone(&shared),
                ));
                (news, shared)
            }
        };
        let reads = shared.reads();
        if follow {
            shared.followers.fetch_add(1, Ordering::Release);
        }
        let seat = Seat {
            _place: place,
            registry: Arc::clone(registry),
            shared,
            follow,
        };
        Ok(Joins { reads, news, seat })
    }
}

/// A watcher that joins a loop.
struct Joins {
    news: watch::Receiver<shared_loop::News>,
    seat: Seat,
    /// How many reads of the loop had begun.
    reads: u64,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<Key>, Arc<Loop>>> {
        // Nothing is left half done under this lock.
        self.loops.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more watch of one more thing would be taken now.
    fn has_room(&self) -> Result<(), Error> {
        let _place = self.streams.acquire()?;
        let loops = self.lock();
        if loops.len() + self.tails.len() >= self.settings.max_poll_loops {
            return Err(limit_reached("poll loops", "watch.max_poll_loops"));
        }
        Ok(())
    }

    /// Takes out this very loop, if it is there still.
    fn remove(&self, key: &Key, this: &Arc<Loop>) {
        self.remove_if(key, this, || true);
    }

    /// Takes out this very loop if `end` says so while nobody can join it.
    /// True when it is out.
    fn remove_if(&self, key: &Key, this: &Arc<Loop>, end: impl FnOnce() -> bool) -> bool {
        let mut loops = self.lock();
        match loops.get(key) {
            Some(there) if Arc::ptr_eq(there, this) => {
                let ends = end();
                if ends {
                    loops.remove(key);
                }
                ends
            }
            _ => true,
        }
    }
}
