//! A poll loop: one task per watched thing and credential, whoever watches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::snapshot::{Item, Snapshot};
use super::source::{POLL_TIMEOUT, Read, Rules, Source, is_not_found};
use super::{Key, Registry};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::watch::poll_backoff::{Cadence, Patience};
use drawbridge_transcoder::api::drawbridge::v1::{self, WatchEvent, WatchEventType};
use drawbridge_transcoder::contract::Outcome;

/// What a loop and its watchers share.
pub(super) struct Loop {
    pub(super) source: Arc<dyn Source>,
    pub(super) rules: Rules,
    /// The newest, so that a slow watcher skips and never lags.
    pub(super) news: watch::Sender<News>,
    /// Watchers that go on after settling: with none, settling ends the loop.
    /// Raised under the registry's lock only.
    pub(super) followers: AtomicUsize,
    /// Reads that have begun.
    reads: AtomicU64,
    /// A watcher waits for a read that begins now.
    hurry: Notify,
}

/// What a loop has to tell.
pub(super) struct News {
    pub(super) stage: Stage,
    /// The number of the last read that is over, from 1 on.
    pub(super) read: u64,
    /// Its error, where it has failed and that is tolerated.
    pub(super) failed: Option<Error>,
    /// Watchers wait for the reads up to this one, whatever they bring.
    awaited: u64,
}

/// Where a loop stands.
pub(super) enum Stage {
    /// Nothing was read yet.
    Unread,
    /// The watchers have what was seen or are about to get it; more polls follow.
    Following(Seen),
    /// There are no more polls. What was seen is told first, then the end.
    Ended(Option<Seen>, End),
}

/// What the reads have brought so far.
#[derive(Clone)]
pub(super) struct Seen {
    pub(super) snapshot: Arc<Snapshot>,
    /// The messages that lead from the snapshot before to this one, encoded
    /// once for all whom the one before was told.
    pub(super) step: Arc<[Bytes]>,
    /// The newest snapshot that had settled; not for lists. It is the last one
    /// for most watchers, even when others make the loop go on.
    pub(super) settled: Option<Arc<Snapshot>>,
    /// The last good read.
    pub(super) observed_at: SystemTime,
    /// The last read has failed.
    pub(super) unconfirmed: bool,
    /// When the next read begins.
    pub(super) next_poll: Instant,
}

/// How a loop ends.
#[derive(Clone)]
pub(super) enum End {
    /// With these last messages, and OK.
    Well(Arc<[Bytes]>),
    /// With an error.
    Failed(Error),
}

impl Stage {
    pub(super) fn seen(&self) -> Option<&Seen> {
        match self {
            Self::Unread => None,
            Self::Following(seen) => Some(seen),
            Self::Ended(seen, _) => seen.as_ref(),
        }
    }

    /// Whether a new watcher can be told this at once: it is no older than the
    /// present interval, or known to be unconfirmed, or the end.
    pub(super) fn is_presentable(&self) -> bool {
        match self {
            Self::Unread => false,
            Self::Following(seen) => seen.unconfirmed || Instant::now() < seen.next_poll,
            Self::Ended(..) => true,
        }
    }
}

impl Seen {
    pub(super) fn unconfirmed_since(&self) -> Option<SystemTime> {
        self.unconfirmed.then_some(self.observed_at)
    }
}

impl Loop {
    pub(super) fn new(source: Arc<dyn Source>) -> (Arc<Self>, watch::Receiver<News>) {
        let (news, first) = watch::channel(News {
            stage: Stage::Unread,
            read: 0,
            failed: None,
            awaited: 0,
        });
        let this = Self {
            rules: source.rules(),
            source,
            news,
            followers: AtomicUsize::new(0),
            reads: AtomicU64::new(0),
            hurry: Notify::new(),
        };
        (Arc::new(this), first)
    }

    /// Whether this snapshot is an end for those who do not follow.
    pub(super) fn has_settled(&self, snapshot: &Snapshot) -> bool {
        !self.rules.list && snapshot.outcome() != Outcome::Pending
    }

    /// Whether it is an end for a watcher: who follows goes on where it may move
    /// again.
    pub(super) fn is_end(&self, snapshot: &Snapshot, follows: bool) -> bool {
        let goes_on = |item: &Item| self.source.goes_on_after(item);
        self.has_settled(snapshot) && !(follows && snapshot.items.iter().any(goes_on))
    }

    /// Encodes what is told of an item.
    pub(super) fn told(
        &self,
        kind: WatchEventType,
        item: &Item,
        observed_at: SystemTime,
        unconfirmed_since: Option<SystemTime>,
    ) -> Bytes {
        let outcome = match item.outcome {
            Outcome::Pending => v1::Outcome::Unspecified,
            Outcome::Succeeded => v1::Outcome::Succeeded,
            Outcome::Failed => v1::Outcome::Failed,
        };
        let event = WatchEvent {
            r#type: kind.into(),
            observed_at: Some(observed_at.into()),
            outcome: outcome.into(),
            unconfirmed_since: unconfirmed_since.map(Into::into),
        };
        self.source.message(&event, Some(item))
    }

    /// Encodes a sign of life.
    pub(super) fn bookmark(
        &self,
        observed_at: SystemTime,
        unconfirmed_since: Option<SystemTime>,
    ) -> Bytes {
        let event = WatchEvent {
            r#type: WatchEventType::Bookmark.into(),
            observed_at: Some(observed_at.into()),
            outcome: v1::Outcome::Unspecified.into(),
            unconfirmed_since: unconfirmed_since.map(Into::into),
        };
        self.source.message(&event, None)
    }

    /// The number of reads that have begun: all later ones begin after this call.
    pub(super) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Acquire)
    }

    /// Makes each read up to this one wake the watchers. False when it is over.
    pub(super) fn awaits(&self, read: u64) -> bool {
        let mut waits = false;
        self.news.send_if_modified(|news| {
            waits = news.read < read;
            news.awaited = news.awaited.max(read);
            false
        });
        waits
    }

    /// Ends the pause before the next read, which somebody awaits; where a read is
    /// under way, omits the pause behind it.
    pub(super) fn hurry(&self) {
        self.hurry.notify_one();
    }

    /// Returns when the next read is to come at once.
    async fn hurried(&self) {
        loop {
            self.hurry.notified().await;
            let news = self.news.borrow();
            // A permit may be left that was for the last read.
            if news.awaited > news.read {
                return;
            }
        }
    }

    /// Publishes the last read that has begun. Wakes the watchers only when there is
    /// something to tell.
    fn publish(&self, seen: Seen, failed: Option<Error>, tell: bool) {
        let read = self.reads();
        self.news.send_if_modified(|news| {
            news.stage = Stage::Following(seen);
            news.read = read;
            news.failed = failed;
            read <= news.awaited || tell
        });
    }
}

/// Runs a loop to its end: settled, failed, drained, or left by its last watcher.
pub(super) async fn run(registry: Arc<Registry>, key: Arc<Key>, this: Arc<Loop>) {
    let mut farewell = Farewell {
        registry: &registry,
        key: &key,
        this: &this,
        end: None,
    };
    // What is not chosen is dropped: a poll under way is broken off.
    farewell.end = tokio::select! {
        biased;
        () = registry.streams.drained() => Some(End::Failed(Error::Draining)),
        () = unwatched(&registry, &key, &this) => None,
        end = follow(&registry, &key, &this) => Some(end),
    };
}

/// Takes the loop out of the registry and tells its end, whatever ended it; a
/// panic too, so that no watcher waits for ever and the next one starts anew.
struct Farewell<'a> {
    registry: &'a Registry,
    key: &'a Key,
    this: &'a Arc<Loop>,
    end: Option<End>,
}

impl Drop for Farewell<'_> {
    fn drop(&mut self) {
        // First out of the registry: who comes now gets a new loop.
        self.registry.remove(self.key, self.this);
        let end = self.end.take().unwrap_or_else(|| {
            End::Failed(Error::NoResponse("the poll loop has stopped".to_owned()))
        });
        self.this.news.send_modify(|news| {
            let stage = std::mem::replace(&mut news.stage, Stage::Unread);
            news.stage = Stage::Ended(stage.seen().cloned(), end);
        });
    }
}

/// Returns when the last watcher has left and no new one can come.
async fn unwatched(registry: &Registry, key: &Key, this: &Arc<Loop>) {
    loop {
        this.news.closed().await;
        if leave(registry, key, this) {
            return;
        }
    }
}

/// Takes an unwatched loop out. Watchers join under the same lock: either one
/// has come meanwhile, and the loop stays, or none will.
pub(super) fn leave(registry: &Registry, key: &Key, this: &Arc<Loop>) -> bool {
    registry.remove_if(key, this, || this.news.receiver_count() == 0)
}

/// Polls until there is an end.
async fn follow(registry: &Registry, key: &Key, this: &Arc<Loop>) -> End {
    let rules = this.rules;
    let mut cadence = Cadence::new(rules.first_interval, rules.max_interval, registry.random);
    let mut patience = Patience::new(registry.settings.failure_tolerance);
    let mut seen: Option<Seen> = None;
    loop {
        registry.polls.fetch_add(1, Ordering::Relaxed);
        this.reads.fetch_add(1, Ordering::AcqRel);
        let read = Deadline::after(POLL_TIMEOUT)
            .bound(this.source.read())
            .await
            .and_then(|read| read);
        let now = (registry.clock)();
        let pause = match (read, seen.take()) {
            (Ok(Read::Gone(item)), _) => {
                let removed = this.told(WatchEventType::Deleted, &item, now, None);
                return End::Well(Arc::from([removed]));
            }
            (Ok(Read::Nothing), before) => {
                // The upstream has answered.
                patience.recovered();
                let pause = cadence.unchanged();
                if let Some(mut last) = before {
                    let first = !std::mem::replace(&mut last.unconfirmed, true);
                    last.next_poll = Instant::now() + pause;
                    seen = Some(last.clone());
                    this.publish(last, None, first);
                }
                pause
            }
            (Ok(Read::Items(items)), before) => {
                let restless = !rules.list && items.iter().any(|item| item.restless);
                let recovered = patience.recovered();
                if recovered {
                    tracing::info!(
                        operation = &*key.rpc,
                        upstream = &*key.upstream,
                        "a watched state can be read again"
                    );
                }
                let confirmed = before.as_ref().is_some_and(|before| before.unconfirmed);
                let (mut next, changed) = this.advance(before, items, now);
                let pause = if changed || restless {
                    cadence.changed()
                } else {
                    cadence.unchanged()
                };
                next.next_poll = Instant::now() + pause;
                seen = Some(next.clone());
                let settled = this.has_settled(&next.snapshot);
                let last = this.is_end(&next.snapshot, true);
                this.publish(next, None, changed || recovered || confirmed);
                if settled && registry.remove_if(key, this, || last || !this.is_followed()) {
                    return End::Well(Arc::from([]));
                }
                pause
            }
            (Err(error), None) => match patience.bear(&error, cadence.unchanged()) {
                // The answer to the rpc was given when the call was made.
                Some(pause) if rules.begun => pause,
                _ => return End::Failed(error),
            },
            (Err(error), Some(last)) if is_not_found(&error) => {
                return this.gone(error, &last, now);
            }
            (Err(error), Some(mut last)) => {
                let Some(pause) = patience.bear(&error, cadence.unchanged()) else {
                    return End::Failed(error);
                };
                let first = !std::mem::replace(&mut last.unconfirmed, true);
                if first {
                    tracing::warn!(
                        operation = &*key.rpc,
                        upstream = &*key.upstream,
                        reason = error.log_text(),
                        "a watched state cannot be read and is unconfirmed"
                    );
                }
                last.next_poll = Instant::now() + pause;
                seen = Some(last.clone());
                this.publish(last, Some(error), first);
                pause
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = this.hurried() => {}
        }
    }
}

impl Loop {
    fn is_followed(&self) -> bool {
        self.followers.load(Ordering::Acquire) > 0
    }

    /// What is seen after a good read, and whether it is something new.
    fn advance(&self, before: Option<Seen>, mut items: Vec<Item>, now: SystemTime) -> (Seen, bool) {
        let Some(mut seen) = before else {
            let snapshot = Arc::new(Snapshot::new(0, items, now));
            let seen = Seen {
                settled: self.has_settled(&snapshot).then(|| Arc::clone(&snapshot)),
                snapshot,
                step: Arc::from([]),
                observed_at: now,
                unconfirmed: false,
                next_poll: Instant::now(),
            };
            return (seen, true);
        };
        seen.observed_at = now;
        seen.unconfirmed = false;
        if seen.snapshot.is(&items) {
            return (seen, false);
        }
        seen.snapshot
            .keep(&mut items, |old, new| self.source.alike(old, new));
        let next = Snapshot::new(seen.snapshot.seq + 1, items, now);
        let step: Arc<[Bytes]> = (0..next.places(&seen.snapshot))
            .filter_map(|place| next.difference(&seen.snapshot, place))
            .map(|(kind, item)| self.told(kind, item, now, None))
            .collect();
        if step.is_empty() {
            return (seen, false);
        }
        seen.snapshot = Arc::new(next);
        seen.step = step;
        if self.has_settled(&seen.snapshot) {
            seen.settled = Some(Arc::clone(&seen.snapshot));
        }
        (seen, true)
    }

    /// The end of what was there and is no more.
    fn gone(&self, error: Error, last: &Seen, now: SystemTime) -> End {
        if !self.rules.gone_ends_well {
            return End::Failed(match error {
                Error::Upstream(mut fault) => {
                    fault.message = format!("gone since it was last read: {}", fault.message);
                    Error::Upstream(fault)
                }
                other => other,
            });
        }
        let removed = |item: &Item| {
            let mut item = item.clone();
            if !self.rules.list {
                item.outcome = Outcome::Succeeded;
            }
            self.told(WatchEventType::Deleted, &item, now, None)
        };
        End::Well(last.snapshot.items.iter().map(removed).collect())
    }
}
