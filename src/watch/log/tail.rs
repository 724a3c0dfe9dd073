//! The shared end of a log: one task polls it for all who have caught up.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot, watch};

use super::super::source::POLL_TIMEOUT;
use super::super::{Key, Registry};
use super::position::{At, Position, offset};
use super::source::{LogSource, Reading, Rules};
use crate::deadline::Deadline;
use crate::engine::pager::{Progress, ProgressGuard};
use crate::error::Error;
use crate::watch::poll_backoff::{Cadence, Patience};
use drawbridge_transcoder::contract::Entry;

/// Entries that stand in a window, and the bytes they take at most.
const WINDOW: usize = 1_000;
const WINDOW_BYTES: usize = 4 << 20;
/// Late entries that are kept for those who fell out of the window.
const LATE: usize = 1_000;

/// What a tail and its readers share.
pub(super) struct Tail {
    pub(super) source: Arc<dyn LogSource>,
    pub(super) rules: Rules,
    /// Where it begins; entries are read from the newest page on instead.
    first: At,
    window: Mutex<Window>,
    pub(super) news: watch::Sender<News>,
    /// Somebody waits until there were so many rounds.
    awaited: AtomicU64,
    hurry: Notify,
    /// Readers that wait for a round that begins after they have joined.
    joining: Mutex<Vec<Joining>>,
    joined: Notify,
}

/// The end of the log as a round has found it that began after the receiver joined:
/// what was there when it joined stands before this.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    /// The number behind the newest entry.
    pub(super) head: u64,
    /// The marker to resume there; empty where nothing is.
    pub(super) marker: Box<str>,
    /// When the round has ended.
    pub(super) observed_at: SystemTime,
}

/// A reader that joins. Lists: it gets an error when the round fails. Dropped when the
/// tail ends.
type Joining = oneshot::Sender<Result<Mark, Error>>;
pub(super) type Joined = oneshot::Receiver<Result<Mark, Error>>;

/// What a tail has to tell, beside its window.
#[derive(Clone, Debug)]
pub(super) struct News {
    pub(super) stage: Stage,
    /// The number of entries so far.
    pub(super) head: u64,
    /// The number of good reads to the end.
    pub(super) rounds: u64,
    /// The last good read.
    pub(super) observed_at: SystemTime,
    /// The last read has failed.
    pub(super) unconfirmed: bool,
}

/// Where a tail stands.
#[derive(Clone, Debug)]
pub(super) enum Stage {
    /// Nothing was read yet.
    Unread,
    /// It follows the log.
    Following,
    /// There are no more reads.
    Ended(Error),
}

/// An entry in the window.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) entry: Entry,
    /// It stands in the list before what was told already.
    pub(super) late: bool,
    /// The marker to resume behind it.
    pub(super) marker: Box<str>,
    /// When it was read.
    pub(super) observed_at: SystemTime,
}

/// The newest entries.
#[derive(Default)]
struct Window {
    /// The number of the first entry.
    first: u64,
    entries: VecDeque<Told>,
    bytes: usize,
    /// Texts: the offset at which the window begins.
    offset: u64,
    /// Late entries with their numbers, some of them out of the window.
    late: VecDeque<(u64, Told)>,
    /// The number behind the last late entry that was dropped.
    late_from: u64,
}

impl Window {
    fn head(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn push(&mut self, told: Told) {
        if told.late {
            if self.late.len() == LATE
                && let Some((number, _)) = self.late.pop_front()
            {
                self.late_from = number + 1;
            }
            self.late.push_back((self.head(), told.clone()));
        }
        self.bytes += told.entry.bytes.len();
        self.entries.push_back(told);
        while self.entries.len() > WINDOW || (self.bytes > WINDOW_BYTES && self.entries.len() > 1) {
            if let Some(gone) = self.entries.pop_front() {
                self.bytes -= gone.entry.bytes.len();
                self.first += 1;
                self.offset = offset(&gone.marker);
            }
        }
    }
}

/// What the window has for a reader.
pub(super) enum Share {
    /// These; empty when there is nothing more.
    Some(Vec<Told>),
    /// The reader has fallen out: these late ones, which no page brings, and the
    /// number from which on to take part again.
    Gap(Vec<Told>, u64),
    /// It has fallen so far behind that late ones are gone.
    Lost,
}

impl Tail {
    /// Begins at `first`, where it is one of a text.
    pub(super) fn new(source: Arc<dyn LogSource>, first: At) -> (Arc<Self>, watch::Receiver<News>) {
        let (news, receiver) = watch::channel(News {
            stage: Stage::Unread,
            head: 0,
            rounds: 0,
            observed_at: SystemTime::UNIX_EPOCH,
            unconfirmed: false,
        });
        let window = Window {
            offset: first.marker.as_deref().map_or(0, offset),
            ..Window::default()
        };
        let tail = Self {
            rules: source.rules(),
            source,
            first,
            window: Mutex::new(window),
            news,
            awaited: AtomicU64::new(0),
            hurry: Notify::new(),
            joining: Mutex::default(),
            joined: Notify::new(),
        };
        (Arc::new(tail), receiver)
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number behind the newest entry.
    pub(super) fn head(&self) -> u64 {
        self.window().head()
    }

    /// Requests a round that begins after this call. Readers that join while a round
    /// is under way share the next one: there is never more than one at a time.
    ///
    /// Called under the registry's lock, under which an ending tail leaves first.
    pub(super) fn join(&self) -> Joined {
        let (joining, joined) = oneshot::channel();
        self.joining().push(joining);
        self.joined.notify_one();
        joined
    }

    fn joining(&self) -> MutexGuard<'_, Vec<Joining>> {
        self.joining.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when a reader waits that has joined since the last round began.
    async fn has_joining(&self) {
        // A permit may be left from a reader that has its mark.
        while self.joining().iter().all(Joining::is_closed) {
            self.joined.notified().await;
        }
    }

    /// Texts: the number of the first entry in the window, when that reaches back
    /// to this offset.
    pub(super) fn covers(&self, offset: u64) -> Option<u64> {
        let window = self.window();
        (self.rules.text && window.offset <= offset).then_some(window.first)
    }

    /// At most `most` entries from this number on.
    pub(super) fn share(&self, from: u64, most: usize) -> Share {
        let window = self.window();
        if from >= window.first {
            let skip = usize::try_from(from - window.first).unwrap_or(usize::MAX);
            return Share::Some(
                window
                    .entries
                    .iter()
                    .skip(skip)
                    .take(most)
                    .cloned()
                    .collect(),
            );
        }
        if from < window.late_from {
            return Share::Lost;
        }
        let late = window.late.iter().filter(|(number, _)| *number >= from);
        Share::Gap(late.map(|(_, told)| told.clone()).collect(), window.head())
    }

    /// Asks for reads soon, and to be woken by them, until there were so many.
    pub(super) fn hurry(&self, rounds: u64) {
        self.awaited.fetch_max(rounds, Ordering::AcqRel);
        self.hurry.notify_one();
    }

    fn publish(&self, entries: Vec<Entry>, late: bool, marker: &str, now: SystemTime) {
        if entries.is_empty() {
            return;
        }
        let head = {
            let mut window = self.window();
            for entry in entries {
                let marker = match late {
                    true => marker.into(),
                    false => entry.key.clone(),
                };
                window.push(Told {
                    entry: alone(entry),
                    late,
                    marker,
                    observed_at: now,
                });
            }
            window.head()
        };
        self.news.send_modify(|news| {
            news.head = head;
            news.observed_at = now;
            news.unconfirmed = false;
        });
    }
}

/// Runs a tail to its end: failed, drained, or left by its last reader.
pub(super) async fn run(registry: Arc<Registry>, key: Arc<Key>, this: Arc<Tail>) {
    let mut farewell = Farewell {
        registry: &registry,
        key: &key,
        this: &this,
        end: Error::NoResponse("the poll loop has stopped".to_owned()),
    };
    // What is not chosen is dropped: a read under way is broken off.
    tokio::select! {
        biased;
        () = registry.streams.drained() => farewell.end = Error::Draining,
        () = unread(&registry, &key, &this) => {}
        end = follow(&registry, &key, &this) => farewell.end = end,
    }
}

/// Takes the tail out of the registry and tells its end, whatever ended it.
struct Farewell<'a> {
    registry: &'a Registry,
    key: &'a Key,
    this: &'a Arc<Tail>,
    end: Error,
}

impl Drop for Farewell<'_> {
    fn drop(&mut self) {
        // First out of the registry: who comes now gets a new tail.
        self.registry.tails.remove_if(self.key, self.this, || true);
        let end = self.end.clone();
        self.this
            .news
            .send_modify(|news| news.stage = Stage::Ended(end));
        self.this.joining().clear();
    }
}

/// Returns when the last reader has left and no new one can come.
async fn unread(registry: &Registry, key: &Key, this: &Arc<Tail>) {
    loop {
        this.news.closed().await;
        let is_left = || this.news.receiver_count() == 0;
        if registry.tails.remove_if(key, this, is_left) {
            return;
        }
    }
}

/// Polls until there is an end.
async fn follow(registry: &Registry, key: &Key, this: &Arc<Tail>) -> Error {
    let rules = this.rules;
    let mut cadence = Cadence::new(rules.first_interval, rules.max_interval, registry.random);
    let mut patience = Patience::new(registry.settings.failure_tolerance);
    let mut position = None;
    let mut round = 0u32;
    let mut joining: Vec<Joining> = Vec::new();
    loop {
        round = round.wrapping_add(1);
        joining.append(&mut this.joining());
        joining.retain(|joining| !joining.is_closed());
        let out_of_turn = !joining.is_empty();
        // For readers that join, too: an entry that is there already is not sent late.
        let due = out_of_turn || round.is_multiple_of(rules.look_back.max(1));
        let back = rules.look_back > 0 && due;
        let read = match &mut position {
            Some(position) => read_on(registry, this, position, back).await,
            // The first read of a text is a page as all others.
            None if rules.text => {
                let position = position.insert(Position::new(this.first.marker.clone(), true));
                read_on(registry, this, position, false).await
            }
            None => {
                let newest = bounded(registry, Arc::clone(&this.source).newest()).await;
                newest.map(|page| {
                    position = Some(Position::behind(page));
                    true
                })
            }
        };
        let pause = match read {
            Ok(changed) => {
                let recovered = patience.recovered();
                if recovered {
                    tracing::info!(
                        operation = &*key.rpc,
                        upstream = &*key.upstream,
                        "a watched log can be read again"
                    );
                }
                let mark = Mark {
                    head: this.head(),
                    marker: position.as_ref().map_or("", Position::marker).into(),
                    observed_at: (registry.clock)(),
                };
                // Before the round is counted: a reader that sees the count has its mark.
                for joining in joining.drain(..) {
                    // A reader that has left needs none.
                    let _ = joining.send(Ok(mark.clone()));
                }
                let awaited = this.news.borrow().rounds < this.awaited.load(Ordering::Acquire);
                this.news.send_if_modified(|news| {
                    let first = matches!(news.stage, Stage::Unread);
                    news.stage = Stage::Following;
                    news.rounds += 1;
                    news.observed_at = mark.observed_at;
                    first || recovered || awaited
                });
                if changed || awaited {
                    cadence.changed()
                } else if out_of_turn {
                    cadence.same()
                } else {
                    cadence.unchanged()
                }
            }
            Err(error) => {
                // Readers of a text have begun already, and wait for a good round.
                if !rules.text {
                    for joining in joining.drain(..) {
                        let _ = joining.send(Err(error.clone()));
                    }
                }
                let unread = matches!(this.news.borrow().stage, Stage::Unread);
                let pause = match out_of_turn {
                    true => cadence.same(),
                    false => cadence.unchanged(),
                };
                let pause = match patience.bear(&error, pause) {
                    Some(pause) if !unread => pause,
                    _ => return error,
                };
                let first = this
                    .news
                    .send_if_modified(|news| !std::mem::replace(&mut news.unconfirmed, true));
                if first {
                    tracing::warn!(
                        operation = &*key.rpc,
                        upstream = &*key.upstream,
                        reason = error.log_text(),
                        "a watched log cannot be read and is unconfirmed"
                    );
                }
                pause
            }
        };
        let hurried = pause.min(rules.first_interval);
        let pause = async {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = this.hurry.notified() => tokio::time::sleep(hurried).await,
            }
        };
        tokio::select! {
            () = pause => {}
            () = this.has_joining() => {}
        }
    }
}

/// Reads page by page to the end; true when there was something new.
async fn read_on(
    registry: &Registry,
    this: &Arc<Tail>,
    position: &mut Position,
    back: bool,
) -> Result<bool, Error> {
    // Before the other reads: what is in none of them has come late.
    let newest = match back {
        true => Some(bounded(registry, Arc::clone(&this.source).newest()).await?),
        false => None,
    };
    let mut changed = false;
    let mut guard = ProgressGuard::default();
    loop {
        let before = position.at();
        let page = bounded(registry, Arc::clone(&this.source).page(before.clone())).await?;
        let now = (registry.clock)();
        let (last, is_empty) = (page.last, page.entries.is_empty());
        let new = position.take(page);
        let progress = Progress {
            is_last: last,
            is_empty,
            has_new: !new.is_empty(),
            has_moved: position.at() != before,
        };
        changed |= progress.has_new;
        let marker = before.marker.as_deref().unwrap_or_default();
        this.publish(new.late, true, marker, now);
        this.publish(new.entries, false, "", now);
        this.news.send_if_modified(|news| {
            let first = matches!(news.stage, Stage::Unread);
            news.stage = Stage::Following;
            news.observed_at = now;
            news.unconfirmed = false;
            first
        });
        if last {
            break;
        }
        guard.check(progress)?;
    }
    if let Some(page) = newest {
        let late = position.look_back(page);
        changed |= !late.is_empty();
        this.publish(late, true, position.marker(), (registry.clock)());
    }
    Ok(changed)
}

async fn bounded(registry: &Registry, reading: Reading) -> Result<super::position::Page, Error> {
    registry.polls.fetch_add(1, Ordering::Relaxed);
    Deadline::after(POLL_TIMEOUT).bound(reading).await?
}

/// One entry shall not keep the whole page that it came in.
fn alone(entry: Entry) -> Entry {
    let bytes = Bytes::copy_from_slice(&entry.bytes);
    Entry { bytes, ..entry }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_keeps_no_page() {
        let page = Bytes::from(vec![b'x'; 1_000]);
        let kept = alone(Entry {
            key: "1".into(),
            order: None,
            bytes: page.slice(3..4),
        });
        assert!(kept.bytes.is_unique() && page.is_unique());
        assert_eq!(kept.bytes, "x");
    }
}
