//! A poll loop and its subscribers: one task polls for all streams with equal keys.
//!
//! [`Registry::subscribe`] joins the loop of a key or starts it. [`LoopTask::poll_to_end`]
//! then runs one round after another: [`LoopSource::poll`] reads, `finish_read` or
//! `finish_unread` publishes the result, and `pause` waits. Subscribers read the newest
//! [`Published`] value from a watch channel: a slow one skips states, and nothing is
//! queued for it. The loop ends with a final state or an error, when the gateway drains,
//! or when the last [`Subscription`] is dropped. One NOT_FOUND after a state was read may come
//! from an older replica: it counts if the next read confirms it.
//!
//! A [`LoopSource`] defines what a round reads and what a state is: a snapshot of one
//! resource or of a list (`snapshot_loop`), or the end of a log (`log::tail`).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use super::key::Key;
use super::poll_backoff::{FailureTolerance, PollBackoff};
use super::source::{POLL_TIMEOUT, is_not_found};
use super::{Loops, Registry};
use crate::deadline::Deadline;
use crate::downstream::{Client, NoShare};
use crate::engine::stream_limiter::{StreamPermit, limit_reached};
use crate::error::Error;
use crate::upstream::Upstream;
use drawbridge_transcoder::contract::Outcome;

/// The running loops of one kind.
pub(super) type LoopMap<S> = HashMap<Arc<Key>, Arc<SharedLoop<S>>>;

/// What a loop polls, and what it publishes.
pub(super) trait LoopSource: Sized + Send + Sync + 'static {
    /// The state that subscribers read; cheap to clone.
    type State: Clone + Send + Sync;
    /// What the source keeps from one round to the next.
    type Cursor: Default + Send;
    /// What a round reports to the subscribers that waited for it.
    type Mark: Clone + Send;

    /// Returns the map of the loops of this kind.
    fn map(loops: &mut Loops) -> &mut LoopMap<Self>;

    /// Returns the upstream that is polled; none in tests.
    fn upstream(&self) -> Option<&Arc<Upstream>>;

    /// Returns the first and the longest pause between two rounds.
    fn intervals(&self) -> Intervals;

    /// Runs one round.
    fn poll(
        task: &LoopTask<Self>,
        cursor: &mut Self::Cursor,
        round: Round,
    ) -> impl Future<Output = Result<Polled<Self>, Error>> + Send;

    /// Returns the longest `Retry-After` of the successful reads since the last call.
    fn take_retry_after(&self) -> Duration;

    /// Returns how far the watched resource is.
    fn progress(&self, state: &Self::State) -> Progress;

    /// Whether the state is the last one, for subscribers that follow or for those
    /// that do not.
    fn is_final(&self, _state: &Self::State, _follow: bool) -> bool {
        false
    }

    /// Returns the end of the loop if a failure ends it, even if it is transient.
    fn ended_by(&self, _error: &Error, _last: &Self::State, _now: SystemTime) -> Option<End> {
        None
    }

    /// Whether failures are tolerated before the first state is published.
    fn tolerates_first_failure(&self) -> bool {
        false
    }

    /// Whether subscribers keep waiting when the round they wait for fails.
    fn waits_past_failures(&self) -> bool {
        false
    }
}

/// The pauses between two rounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Intervals {
    pub(super) first: Duration,
    pub(super) max: Duration,
}

/// How far a watched resource, list or log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A resource: the text of its state, if it has one, and its outcome.
    Resource(Option<String>, Outcome),
    /// A list: the number of its items.
    List(usize),
    /// A log.
    Log,
}

/// A round that begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    /// The number of the round, from 1.
    pub(super) number: u64,
    /// A subscriber has requested the round, so the pause before it may have been skipped.
    pub(super) requested: bool,
}

/// The result of a round.
pub(super) enum Polled<S: LoopSource> {
    /// The round has read a state.
    Read {
        state: S::State,
        mark: S::Mark,
        observed_at: SystemTime,
        /// Wakes the subscribers.
        notify: bool,
        /// Makes the next pause the shortest one.
        reset_backoff: bool,
    },
    /// The round has read no state, and has not failed: the resource does not exist yet, or
    /// was not read completely. The last state becomes unconfirmed.
    Missing,
    /// The loop ends.
    Ended(End),
}

/// The newest value of a loop.
pub(super) struct Published<S: LoopSource> {
    pub(super) phase: Phase<S::State>,
    /// Rounds that have begun.
    begun: u64,
    /// Rounds that are over.
    pub(super) finished: u64,
    /// Rounds that have read a state.
    pub(super) succeeded: u64,
    /// The error of the last round, if it has failed and is tolerated.
    pub(super) failed: Option<Error>,
    /// Pauses stay short until `succeeded` reaches this number.
    short_pauses_until: u64,
    /// Subscribers that wait for a round.
    waiting: Vec<Waiting<S::Mark>>,
}

/// The phases of a loop, in order.
#[derive(Clone)]
pub(super) enum Phase<T> {
    /// No state was read yet. `Following` or `Ended` comes next.
    Unread,
    /// More rounds follow. `Ended` comes last.
    Following(Observed<T>),
    /// There are no more rounds. Subscribers send the last state first, then the end.
    Ended(Option<Observed<T>>, End),
}

/// A state and when it was read.
#[derive(Clone)]
pub(super) struct Observed<T> {
    pub(super) state: T,
    /// When a round has last read it.
    pub(super) observed_at: SystemTime,
    /// The last round has not read it.
    pub(super) unconfirmed: bool,
    /// When the next round begins.
    next_poll: Instant,
}

/// How a loop ends.
#[derive(Clone)]
pub(super) enum End {
    /// With these last messages, and OK.
    Completed(Arc<[Bytes]>),
    /// With an error.
    Failed(Error),
}

/// A subscriber that waits for the end of a round.
struct Waiting<M> {
    /// The number of the round; a later one is accepted too.
    round: u64,
    /// Omits the pause before the round.
    at_once: bool,
    sender: oneshot::Sender<Result<M, Error>>,
}

impl<M> Waiting<M> {
    fn is_urgent(&self) -> bool {
        self.at_once && !self.sender.is_closed()
    }
}

/// Receives the mark of a round, or its error. Closed if the round is over already, has
/// read no state, or the loop has ended, which the published value shows.
pub(super) type RoundEnd<M> = oneshot::Receiver<Result<M, Error>>;

impl<T> Phase<T> {
    pub(super) fn observed(&self) -> Option<&Observed<T>> {
        match self {
            Self::Unread => None,
            Self::Following(observed) => Some(observed),
            Self::Ended(observed, _) => observed.as_ref(),
        }
    }

    pub(super) fn is_unread(&self) -> bool {
        matches!(self, Self::Unread)
    }

    /// Returns the error that ends streams before their next message: the gateway stops, or the
    /// configuration of the upstream has changed.
    pub(super) fn planned_end(&self) -> Option<Error> {
        match self {
            Self::Ended(_, End::Failed(error @ (Error::Draining | Error::UpstreamChanged))) => {
                Some(error.clone())
            }
            _ => None,
        }
    }
}

impl<T> Observed<T> {
    /// Whether a new subscriber can use it without another round: it was read before the
    /// current pause, or is known to be unconfirmed.
    pub(super) fn is_current(&self) -> bool {
        self.unconfirmed || Instant::now() < self.next_poll
    }

    pub(super) fn unconfirmed_since(&self) -> Option<SystemTime> {
        self.unconfirmed.then_some(self.observed_at)
    }
}

impl<S: LoopSource> Published<S> {
    /// Returns the number of rounds that have begun.
    pub(super) fn begun(&self) -> u64 {
        self.begun
    }

    /// Ends the round that has begun last.
    fn finish_round(&mut self, failed: Option<Error>) {
        self.finished = self.begun;
        self.failed = failed;
    }

    /// Sends the result to all subscribers that have waited for the last round.
    fn report(&mut self, result: &Result<S::Mark, Error>) {
        let finished = self.finished;
        for waiting in self.waiting.extract_if(.., |w| w.round <= finished) {
            // The subscriber may have left.
            let _ = waiting.sender.send(result.clone());
        }
    }
}

/// What a loop and its subscribers share.
pub(super) struct SharedLoop<S: LoopSource> {
    pub(super) source: S,
    /// The client that the loop counts for: the one that started it.
    client: Client,
    /// When the first subscriber joined.
    since: SystemTime,
    /// One lock for the rounds and their waiters: when a subscriber sees that a round is
    /// over, its mark was already sent.
    published: watch::Sender<Published<S>>,
    /// Subscribers that go on after a final state. Raised under the lock of the
    /// registry only.
    followers: AtomicUsize,
    /// Notified when a subscriber requests a round at once.
    urgent: Notify,
    /// Notified when shorter pauses are requested.
    shorter: Notify,
}

impl<S: LoopSource> SharedLoop<S> {
    fn new(
        source: S,
        client: Client,
        since: SystemTime,
    ) -> (Arc<Self>, watch::Receiver<Published<S>>) {
        let (published, receiver) = watch::channel(Published {
            phase: Phase::Unread,
            begun: 0,
            finished: 0,
            succeeded: 0,
            failed: None,
            short_pauses_until: 0,
            waiting: Vec::new(),
        });
        let this = Self {
            source,
            client,
            since,
            published,
            followers: AtomicUsize::new(0),
            urgent: Notify::new(),
            shorter: Notify::new(),
        };
        (Arc::new(this), receiver)
    }

    /// Waits for the end of this round or a later one. `at_once` omits the pause before it.
    pub(super) fn round_end(&self, round: u64, at_once: bool) -> RoundEnd<S::Mark> {
        self.wait_for(|_| round, at_once)
    }

    fn wait_for(
        &self,
        round: impl FnOnce(&Published<S>) -> u64,
        at_once: bool,
    ) -> RoundEnd<S::Mark> {
        let (sender, receiver) = oneshot::channel();
        self.published.send_if_modified(|published| {
            let round = round(published);
            let is_over = round <= published.finished;
            if !is_over && !matches!(published.phase, Phase::Ended(..)) {
                published.waiting.push(Waiting {
                    round,
                    at_once,
                    sender,
                });
            }
            false
        });
        if at_once {
            self.urgent.notify_one();
        }
        receiver
    }

    /// Returns the number of rounds that have read a state.
    pub(super) fn succeeded(&self) -> u64 {
        self.published.borrow().succeeded
    }

    /// Makes pauses short, and each round wake the subscribers, until a round has succeeded that
    /// begins after now. Returns how many rounds have succeeded then.
    pub(super) fn shorten_pauses(&self) -> u64 {
        let mut succeeded = 0;
        self.published.send_if_modified(|published| {
            // The round that runs has perhaps read everything already.
            let is_running = published.begun > published.finished;
            succeeded = published.succeeded + 1 + u64::from(is_running);
            published.short_pauses_until = published.short_pauses_until.max(succeeded);
            false
        });
        self.shorter.notify_one();
        succeeded
    }

    /// Waits for the end of a round that begins now, or after the one that runs.
    pub(super) fn request_next_round(&self) -> RoundEnd<S::Mark> {
        self.wait_for(|published| published.begun + 1, true)
    }

    /// Publishes a state during a round. Wakes the subscribers if `notify`, or if it is
    /// the first one.
    pub(super) fn publish(&self, state: S::State, observed_at: SystemTime, notify: bool) {
        self.published.send_if_modified(|published| {
            let is_first = published.phase.is_unread();
            published.phase = Phase::Following(Observed {
                state,
                observed_at,
                unconfirmed: false,
                next_poll: Instant::now(),
            });
            is_first || notify
        });
    }

    /// Returns when the first subscriber joined.
    pub(super) fn since(&self) -> SystemTime {
        self.since
    }

    /// Returns the number of subscribers.
    pub(super) fn streams(&self) -> usize {
        self.published.receiver_count()
    }

    /// Returns whether the newest round has not read the state.
    pub(super) fn is_unconfirmed(&self) -> bool {
        let published = self.published.borrow();
        let observed = published.phase.observed();
        observed.map_or(published.failed.is_some(), |observed| observed.unconfirmed)
    }

    /// Describes the newest state; none before the first one.
    pub(super) fn describe<T>(&self, describe: impl FnOnce(&Observed<S::State>) -> T) -> Option<T> {
        let observed = self.published.borrow().phase.observed().cloned();
        observed.as_ref().map(describe)
    }

    /// Returns the newest state.
    pub(super) fn state(&self) -> Option<S::State> {
        let published = self.published.borrow();
        let observed = published.phase.observed();
        observed.map(|observed| observed.state.clone())
    }

    fn is_unread(&self) -> bool {
        self.published.borrow().phase.is_unread()
    }

    fn is_followed(&self) -> bool {
        self.followers.load(Ordering::Acquire) > 0
    }

    fn has_short_pauses(&self) -> bool {
        let published = self.published.borrow();
        published.succeeded < published.short_pauses_until
    }

    fn begin_round(&self) -> Round {
        let mut round = Round {
            number: 0,
            requested: false,
        };
        self.published.send_if_modified(|published| {
            published.begun += 1;
            published.waiting.retain(|w| !w.sender.is_closed());
            round = Round {
                number: published.begun,
                requested: published.waiting.iter().any(Waiting::is_urgent),
            };
            false
        });
        round
    }

    /// Publishes the state that a round has read. Wakes the subscribers if `notify`, or
    /// if the state is the first one or was unconfirmed.
    fn finish_read(&self, mut observed: Observed<S::State>, mark: S::Mark, notify: bool) {
        observed.unconfirmed = false;
        self.published.send_if_modified(|published| {
            let before = published.phase.observed();
            let notify = notify || before.is_none_or(|before| before.unconfirmed);
            published.phase = Phase::Following(observed);
            published.succeeded += 1;
            published.finish_round(None);
            published.report(&Ok(mark));
            notify
        });
    }

    /// Ends a round with a NOT_FOUND that the next round must confirm. The state does not
    /// change, and no subscriber is woken.
    fn finish_not_found(&self, error: Error, next_poll: Instant) {
        self.published.send_if_modified(|published| {
            published.finish_round(Some(error.clone()));
            if !self.source.waits_past_failures() {
                published.report(&Err(error));
            }
            if let Phase::Following(observed) = &mut published.phase {
                observed.next_poll = next_poll;
            }
            false
        });
    }

    /// Publishes that a round has not read a state. Returns whether the last state was
    /// confirmed until now; the subscribers are woken then.
    fn finish_unread(&self, failed: Option<Error>, next_poll: Instant) -> bool {
        self.published.send_if_modified(|published| {
            published.finish_round(failed);
            match &published.failed {
                Some(_) if self.source.waits_past_failures() => {}
                Some(error) => published.report(&Err(error.clone())),
                None => {
                    let finished = published.finished;
                    published.waiting.retain(|w| w.round > finished);
                }
            }
            match &mut published.phase {
                Phase::Following(observed) => {
                    observed.next_poll = next_poll;
                    !std::mem::replace(&mut observed.unconfirmed, true)
                }
                Phase::Unread | Phase::Ended(..) => false,
            }
        })
    }

    /// Waits until a subscriber requests a round that has not begun.
    async fn requested(&self) {
        let is_requested = || {
            let published = self.published.borrow();
            let begun = published.begun;
            let mut waiting = published.waiting.iter();
            waiting.any(|w| w.round > begun && w.is_urgent())
        };
        // A notification may be left from a request whose round is over.
        while !is_requested() {
            self.urgent.notified().await;
        }
    }

    /// Waits between two rounds, shorter if requested.
    async fn pause(&self, pause: Duration, shortest: Duration) {
        let paused = async {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.shorter.notified() => {
                    tokio::time::sleep(pause.min(shortest)).await;
                }
            }
        };
        tokio::select! {
            () = paused => {}
            () = self.requested() => {}
        }
    }
}

/// A stream's subscription to a loop. The loop ends when the last one is dropped.
pub(super) struct Subscription<S: LoopSource> {
    pub(super) published: watch::Receiver<Published<S>>,
    pub(super) shared: Arc<SharedLoop<S>>,
    pub(super) registry: Arc<Registry>,
    /// The stream goes on after a final state.
    pub(super) follow: bool,
    /// The number of rounds that had begun when the stream joined.
    pub(super) joined_after: u64,
    _permit: StreamPermit,
}

impl<S: LoopSource> Subscription<S> {
    /// Waits for the end of the first round that begins after the stream has joined; it
    /// begins at once. Streams that join during a round share the next one: rounds never
    /// overlap. Closed when the loop ends.
    pub(super) fn request_round(&self) -> RoundEnd<S::Mark> {
        let joined_after = self.joined_after;
        let first = |published: &Published<S>| match published.finished > joined_after {
            false => joined_after + 1,
            // The mark of an earlier round is not kept.
            true => published.begun + 1,
        };
        self.shared.wait_for(first, true)
    }

    /// Waits for the end of the loop and returns its error.
    pub(super) async fn error(&mut self) -> Error {
        let is_ended = |published: &Published<S>| matches!(published.phase, Phase::Ended(..));
        match self.published.wait_for(is_ended).await.as_deref() {
            Ok(Published {
                phase: Phase::Ended(_, End::Failed(error)),
                ..
            }) => error.clone(),
            _ => Error::Draining,
        }
    }
}

impl<S: LoopSource> Drop for Subscription<S> {
    fn drop(&mut self) {
        if self.follow {
            self.shared.followers.fetch_sub(1, Ordering::Release);
        }
    }
}

impl Registry {
    /// Joins the loop of this key, or starts it with `source`. The stream, and a loop that it
    /// starts, count for `client`.
    pub(super) fn subscribe<S: LoopSource>(
        self: &Arc<Self>,
        client: Client,
        key: &Arc<Key>,
        follow: bool,
        source: impl FnOnce() -> S,
    ) -> Result<Subscription<S>, Error> {
        let permit = self.streams.acquire(client)?;
        let mut loops = self.lock();
        let may_start = loops.shares.check(client);
        let mut starts = None;
        let (shared, published) = match S::map(&mut loops).entry(Arc::clone(key)) {
            Entry::Occupied(entry) => {
                let shared = Arc::clone(entry.get());
                let published = shared.published.subscribe();
                (shared, published)
            }
            Entry::Vacant(entry) => {
                may_start.map_err(too_many_loops)?;
                let (shared, published) = SharedLoop::new(source(), client, (self.clock)());
                entry.insert(Arc::clone(&shared));
                starts = Some(LoopTask {
                    registry: Arc::clone(self),
                    key: Arc::clone(key),
                    shared: Arc::clone(&shared),
                    end: None,
                });
                loops.shares.take(client).map_err(too_many_loops)?;
                (shared, published)
            }
        };
        if follow {
            shared.followers.fetch_add(1, Ordering::Release);
        }
        let joined_after = published.borrow().begun;
        // Released first: a runtime that shuts down drops the new task at once, and its
        // `drop` takes this lock.
        drop(loops);
        if let Some(task) = starts {
            tokio::spawn(task.run());
        }
        Ok(Subscription {
            published,
            shared,
            registry: Arc::clone(self),
            follow,
            joined_after,
            _permit: permit,
        })
    }

    /// Fails if one more stream or loop would exceed a limit of the settings.
    pub(super) fn check_limits(&self, client: Client) -> Result<(), Error> {
        let _permit = self.streams.acquire(client)?;
        self.lock().shares.check(client).map_err(too_many_loops)
    }

    /// Removes this loop if `end` returns true. Holds the registry's lock, so that no stream
    /// joins in between. Returns whether the loop is removed.
    pub(super) fn remove_if<S: LoopSource>(
        &self,
        key: &Key,
        shared: &Arc<SharedLoop<S>>,
        end: impl FnOnce() -> bool,
    ) -> bool {
        let mut loops = self.lock();
        let map = S::map(&mut loops);
        match map.get(key) {
            Some(there) if Arc::ptr_eq(there, shared) => {
                let ends = end();
                if ends {
                    map.remove(key);
                    loops.shares.put_back(shared.client);
                }
                ends
            }
            _ => true,
        }
    }

    /// Removes this loop if it has no subscribers. If a stream has joined in the meantime,
    /// the loop stays.
    pub(super) fn remove_if_unused<S: LoopSource>(
        &self,
        key: &Key,
        shared: &Arc<SharedLoop<S>>,
    ) -> bool {
        self.remove_if(key, shared, || shared.published.receiver_count() == 0)
    }
}

fn too_many_loops(why: NoShare) -> Error {
    limit_reached(why, "poll loops", "watch.max_poll_loops")
}

/// The task of a loop. Dropping it removes the loop from the registry and publishes
/// the end, also after a panic: no subscriber waits forever, and the next one starts a
/// new loop.
pub(super) struct LoopTask<S: LoopSource> {
    registry: Arc<Registry>,
    key: Arc<Key>,
    pub(super) shared: Arc<SharedLoop<S>>,
    end: Option<End>,
}

impl<S: LoopSource> Drop for LoopTask<S> {
    fn drop(&mut self) {
        // Removed before the end is published: streams that join from now on get a new loop.
        self.registry.remove_if(&self.key, &self.shared, || true);
        let end = self.end.take().unwrap_or_else(|| {
            End::Failed(Error::NoResponse("the poll loop has stopped".to_owned()))
        });
        self.shared.published.send_modify(|published| {
            let last = published.phase.observed().cloned();
            published.phase = Phase::Ended(last, end);
            published.waiting.clear();
        });
    }
}

impl<S: LoopSource> LoopTask<S> {
    async fn run(mut self) {
        // The other branches are dropped, which cancels a poll in progress.
        let end = tokio::select! {
            biased;
            () = self.registry.streams.drain_begun() => Some(End::Failed(Error::Draining)),
            () = self.upstream_replaced() => Some(End::Failed(Error::UpstreamChanged)),
            () = self.all_left() => None,
            end = self.poll_to_end() => Some(end),
        };
        self.end = end;
    }

    /// Returns when the configuration of the upstream has changed.
    async fn upstream_replaced(&self) {
        match self.shared.source.upstream() {
            Some(upstream) => upstream.replaced().begun().await,
            None => std::future::pending().await,
        }
    }

    /// Returns when the last subscriber has left and none can join any more.
    async fn all_left(&self) {
        loop {
            self.shared.published.closed().await;
            if self.registry.remove_if_unused(&self.key, &self.shared) {
                return;
            }
        }
    }

    /// Returns the wall-clock time.
    pub(super) fn now(&self) -> SystemTime {
        (self.registry.clock)()
    }

    /// Runs one read of a round, within [`POLL_TIMEOUT`].
    pub(super) async fn read<T>(
        &self,
        read: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        self.registry.polls.fetch_add(1, Ordering::Relaxed);
        Deadline::after(POLL_TIMEOUT).bound(read).await?
    }

    async fn poll_to_end(&self) -> End {
        let shared = &self.shared;
        let source = &shared.source;
        let settings = &self.registry.settings;
        let intervals = source.intervals();
        let mut backoff = PollBackoff::new(intervals.first, intervals.max, self.registry.random);
        let mut tolerance = FailureTolerance::new(settings.failure_tolerance);
        let mut cursor = S::Cursor::default();
        let mut not_found = false;
        let mut outage = Outage {
            task: self,
            is_logged: false,
        };
        loop {
            let round = shared.begin_round();
            let polled = S::poll(self, &mut cursor, round).await;
            let retry_after = source.take_retry_after();
            backoff.set_min(retry_after);
            let pause = match polled {
                Ok(Polled::Ended(end)) => return end,
                Ok(Polled::Missing) => {
                    tolerance.recovered();
                    let pause = backoff.grow();
                    if shared.finish_unread(None, Instant::now() + pause) {
                        outage.begin(None);
                    }
                    pause
                }
                Ok(Polled::Read {
                    state,
                    mark,
                    observed_at,
                    notify,
                    reset_backoff,
                }) => {
                    let recovered = tolerance.recovered();
                    not_found = false;
                    outage.end();
                    let has_short_pauses = shared.has_short_pauses();
                    let pause = if reset_backoff || has_short_pauses {
                        backoff.reset()
                    } else if round.requested {
                        backoff.keep()
                    } else {
                        backoff.grow()
                    };
                    let is_final = source.is_final(&state, false);
                    let is_last = source.is_final(&state, true);
                    let observed = Observed {
                        state,
                        observed_at,
                        unconfirmed: false,
                        next_poll: Instant::now() + pause,
                    };
                    shared.finish_read(observed, mark, notify || recovered || has_short_pauses);
                    let ends = || is_last || !shared.is_followed();
                    if is_final && self.registry.remove_if(&self.key, shared, ends) {
                        return End::Completed(Arc::from([]));
                    }
                    pause
                }
                Err(error) if is_not_found(&error) && !not_found && !shared.is_unread() => {
                    not_found = true;
                    tolerance.recovered();
                    let pause = backoff.reset();
                    shared.finish_not_found(error, Instant::now() + pause);
                    pause
                }
                Err(error) => {
                    let last = shared.state();
                    let ended = last
                        .as_ref()
                        .and_then(|last| source.ended_by(&error, last, self.now()));
                    if let Some(end) = ended {
                        return end;
                    }
                    let pause = match round.requested {
                        true => backoff.keep(),
                        false => backoff.grow(),
                    };
                    let is_tolerated = last.is_some() || source.tolerates_first_failure();
                    let pause = match tolerance.tolerate(&error, pause) {
                        Some(pause) if is_tolerated => pause,
                        _ => return End::Failed(error),
                    };
                    outage.begin(Some(&error));
                    shared.finish_unread(Some(error), Instant::now() + pause);
                    pause
                }
            };
            // Also for subscribers that request a round.
            tokio::time::sleep(retry_after.min(pause)).await;
            shared
                .pause(pause.saturating_sub(retry_after), intervals.first)
                .await;
        }
    }
}

/// Logs when a state can no longer be read, and when it can be read again: one line each.
struct Outage<'a, S: LoopSource> {
    task: &'a LoopTask<S>,
    is_logged: bool,
}

impl<S: LoopSource> Outage<'_, S> {
    /// Begins with a failed read, or one that has found nothing.
    fn begin(&mut self, error: Option<&Error>) {
        if std::mem::replace(&mut self.is_logged, true) {
            return;
        }
        let reason = error.map(Error::log_text);
        tracing::warn!(
            operation = &*self.task.key.operation,
            upstream = &*self.task.key.upstream,
            reason = reason
                .as_deref()
                .unwrap_or("it was not found, or not completely"),
            "the watched resource cannot be read; its last state is unconfirmed"
        );
    }

    fn end(&mut self) {
        if !std::mem::replace(&mut self.is_logged, false) {
            return;
        }
        tracing::info!(
            operation = &*self.task.key.operation,
            upstream = &*self.task.key.upstream,
            "the watched resource can be read again"
        );
    }
}
