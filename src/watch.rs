//! Watches: server-streaming rpcs that send a message per change of a REST resource.
//!
//! One task polls for all streams that watch the same resource with the same credentials.
//! In the order in which a watch passes through them:
//!
//! 1. [`Watches::watch`] binds the request, or makes the call that the watch begins with.
//! 2. `key`: streams with equal keys share a poll loop.
//! 3. `shared_loop`: joins or starts the loop; rounds, pauses (`poll_backoff`), the end.
//! 4. `snapshot_loop`: what a round of a resource or a list publishes.
//! 5. `source`: the REST calls of a round. `list` reads a list and `object` one resource,
//!    which `find` finds after a start and `fallback` reads elsewhere after NOT_FOUND;
//!    `poll_target` is what is polled, `read_history` what earlier reads have found.
//! 6. `snapshot`: the items of a round, and the difference between two rounds.
//! 7. `stream`: turns the newest snapshot into events for one client.
//!
//! `log` is the same from step 3 on for append-only data, where each entry counts.

mod fallback;
mod find;
mod key;
mod list;
mod log;
mod object;
mod open_watches;
mod poll_backoff;
mod poll_target;
mod read_history;
mod shared_loop;
mod snapshot;
mod snapshot_loop;
mod source;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::deadline::Deadline;
use crate::downstream::{Client, ClientShares};
use crate::engine::call_context::{CallContext, StreamContext};
use crate::engine::stream_limiter::StreamLimiter;
use crate::engine::unary;
use crate::error::Error;
use drawbridge_transcoder::api::drawbridge::v1::{WatchEvent, WatchEventType};
use drawbridge_transcoder::contract::{Method, Start, Watch};
use key::Key;
pub use open_watches::{ObservedWatch, OpenWatch};
use poll_target::{PollTarget, ResourceCalls};
use shared_loop::LoopMap;
pub use shared_loop::Progress;
use snapshot_loop::SnapshotLoop;
use source::{RestSnapshotSource, SnapshotSource};
pub use stream::WatchStream;

/// The limits of watches.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The largest number of open streams, of watches, lists and downloads. Default: 50,000.
    pub max_streams: usize,
    /// The largest number of poll loops. Default: 10,000.
    pub max_poll_loops: usize,
    /// After this time without a message a stream sends a bookmark. From 1 s to 1 day;
    /// default: 30 s.
    pub bookmark_interval: Duration,
    /// For how long transient failures of an upstream are tolerated. Default: 5 min.
    pub failure_tolerance: Duration,
    /// The largest number of items of a watched list. Default: 100,000.
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

/// Current numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Open streams of watches, lists and downloads, including those that wait for their first
    /// message.
    pub open_streams: usize,
    /// Running poll loops.
    pub loops: usize,
    /// Reads of watched resources and of log pages since the start, without refreshes of
    /// single items.
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

/// The running loops, and what all of them use.
struct Registry {
    settings: Settings,
    /// Locked whenever a stream joins a loop or a loop ends.
    loops: Mutex<Loops>,
    streams: StreamLimiter,
    polls: AtomicU64,
    /// Watches that began with a call.
    started: AtomicU64,
    /// The wall clock; a parameter for tests.
    clock: fn() -> SystemTime,
    /// Returns a random number from 0 to 1; a parameter for tests.
    random: fn() -> f64,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Loops> {
        // No panic leaves it inconsistent.
        self.loops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The running loops, by what they poll.
struct Loops {
    /// How many of them each client has started.
    shares: ClientShares,
    snapshots: LoopMap<SnapshotLoop>,
    logs: LoopMap<log::Tail>,
}

impl Loops {
    fn len(&self) -> usize {
        self.snapshots.len() + self.logs.len()
    }
}

/// A watch rpc as the client has called it.
struct WatchRequest {
    request: Bytes,
    context: StreamContext,
    /// The stream goes on after a final state.
    follow: bool,
    deadline: Option<Deadline>,
}

impl Watches {
    /// Creates a registry without loops.
    pub fn new(settings: Settings) -> Self {
        Self::with(settings, SystemTime::now, fastrand::f64)
    }

    fn with(mut settings: Settings, clock: fn() -> SystemTime, random: fn() -> f64) -> Self {
        let (shortest, longest) = (Duration::from_secs(1), Duration::from_secs(86_400));
        settings.bookmark_interval = settings.bookmark_interval.clamp(shortest, longest);
        Self(Arc::new(Registry {
            streams: StreamLimiter::new(settings.max_streams),
            loops: Mutex::new(Loops {
                shares: ClientShares::new(settings.max_poll_loops),
                snapshots: HashMap::new(),
                logs: HashMap::new(),
            }),
            settings,
            polls: AtomicU64::new(0),
            started: AtomicU64::new(0),
            clock,
            random,
        }))
    }

    /// Opens the stream of a watch, which ends at `deadline` at the latest. Returns when it
    /// has a first message. A call that the watch begins with is made once, with the
    /// deadline of `call_context`.
    ///
    /// Fails with the error of the first poll, or of the call that the watch begins with;
    /// with [`Error::Overload`] when a limit of [`Settings`] is reached; with
    /// [`Error::Draining`] after [`Watches::drain`].
    pub async fn watch(
        &self,
        method: &Arc<Method>,
        request: Bytes,
        call_context: CallContext<'_>,
        deadline: Option<Deadline>,
    ) -> Result<WatchStream, Error> {
        let context = call_context.to_stream();
        if method.log.is_some() {
            return self.watch_log(method, request, context, deadline).await;
        }
        let not_a_watch = || Error::Malformed(format!("{} is not a watch", method.path));
        let watch = method.watch.as_ref().ok_or_else(not_a_watch)?;
        let client = context.limited_client();
        let follow = watch.follows(&request);
        if let Some(start) = &watch.start {
            let started = self.make_call(start, &request, call_context).await?;
            let request = WatchRequest {
                request,
                context,
                follow,
                deadline,
            };
            return Ok(self.watch_started(method, watch, &started, request));
        }
        let turn = call_context.turn(request.len()).await?;
        let call = turn.run(|| method.bind(&request, context.dialect()))?;
        let key = Key::new(
            method,
            &call,
            &context,
            watch.further_call_fields(&request)?,
        );
        let max_items = self.0.settings.max_items;
        let poll = watch.poll_request(&request)?;
        let calls = || ResourceCalls::new(watch, poll, Some(call), context.dialect());
        let calls = turn.run(calls)?;
        drop(turn);
        let reservation = calls.reserve(&context.client.memory)?;
        let target = PollTarget::resource(calls);
        let source = RestSnapshotSource::new(method, request, target, context, max_items)
            .ok_or_else(not_a_watch)?
            .with_memory(reservation);
        let source: Arc<dyn SnapshotSource> = Arc::new(source);
        self.open(client, key, follow, deadline, || Arc::clone(&source))
            .await
    }

    /// Makes the call that a watch begins with and returns its response. It is
    /// retried as any call, and not made at all when a limit is reached.
    async fn make_call(
        &self,
        start: &Start,
        request: &Bytes,
        call_context: CallContext<'_>,
    ) -> Result<Bytes, Error> {
        let client = call_context.upstream.client(call_context.client);
        self.0.check_limits(client)?;
        let call = Bytes::from(start.request(request)?);
        let response = unary::call(call_context, &start.rpc, &call).await?;
        Ok(response.decoded.message)
    }

    /// Opens the stream after that call. Its first message is STARTED, even if the poll
    /// loop cannot start.
    fn watch_started(
        &self,
        method: &Arc<Method>,
        watch: &Watch,
        started: &Bytes,
        request: WatchRequest,
    ) -> WatchStream {
        let WatchRequest {
            request,
            context,
            follow,
            deadline,
        } = request;
        let event = WatchEvent {
            r#type: WatchEventType::Started.into(),
            observed_at: Some((self.0.clock)().into()),
            ..WatchEvent::default()
        };
        let message = watch.started_message(&event, started);
        let target = match PollTarget::of_started(watch, &request, started, &context) {
            Ok(Some(target)) => target,
            Ok(None) if watch.start.as_ref().is_some_and(|s| s.may_start_nothing) => {
                return WatchStream::last(message, Ok(()));
            }
            Ok(None) => {
                let problem = "it names no resource that can be watched: the call has succeeded, \
                               but what it started cannot be followed";
                return WatchStream::last(message, Err(Error::decode("", problem)));
            }
            Err(error) => return WatchStream::last(message, Err(error)),
        };
        // Polls before the call do not show its result, so the loop is not shared.
        let number = self.0.started.fetch_add(1, Ordering::Relaxed);
        let discriminator = number.to_be_bytes().into();
        let key = Key::new(method, target.call(), &context, discriminator);
        let client = context.limited_client();
        let max_items = self.0.settings.max_items;
        let source = RestSnapshotSource::new(method, request, target, context, max_items);
        let Some(source) = source else {
            return WatchStream::last(message, Ok(()));
        };
        let source = || SnapshotLoop::new(Arc::new(source));
        match self.0.subscribe(client, &Arc::new(key), follow, source) {
            Ok(subscription) => WatchStream::started(message, subscription, deadline),
            Err(error) => WatchStream::last(message, Err(error)),
        }
    }

    /// Joins the loop of this key, or starts it with `source`, and opens a stream.
    async fn open(
        &self,
        client: Client,
        key: Key,
        follow: bool,
        deadline: Option<Deadline>,
        source: impl Fn() -> Arc<dyn SnapshotSource>,
    ) -> Result<WatchStream, Error> {
        let key = Arc::new(key);
        let stream = async {
            let source = || SnapshotLoop::new(source());
            let subscription = self.0.subscribe(client, &key, follow, source)?;
            if let Some(stream) = WatchStream::open(subscription, deadline).await? {
                return Ok(stream);
            }
            // That loop has ended: all rounds of another one begin after this call.
            let mut subscription = self.0.subscribe(client, &key, follow, source)?;
            subscription.joined_after = 0;
            let stopped = || Error::NoResponse("the poll loop has stopped".to_owned());
            let stream = WatchStream::open(subscription, deadline).await?;
            stream.ok_or_else(stopped)
        };
        match deadline {
            Some(deadline) => deadline.bound(stream).await?,
            None => stream.await,
        }
    }

    /// Returns the limiter of open streams, which list streams use too.
    pub fn streams(&self) -> &StreamLimiter {
        &self.0.streams
    }

    /// Ends all streams with [`Error::Draining`], and rejects new ones with it.
    pub fn drain(&self) {
        self.0.streams.drain();
    }

    /// Returns the current numbers.
    pub fn stats(&self) -> Stats {
        Stats {
            open_streams: self.0.streams.open(),
            loops: self.0.lock().len(),
            polls_total: self.0.polls.load(Ordering::Relaxed),
        }
    }
}
