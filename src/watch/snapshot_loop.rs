//! The poll loop of a snapshot: of one resource, or of a list.
//!
//! Implements [`LoopSource`] over a [`SnapshotSource`], which makes the REST calls, and encodes
//! the messages that all subscribers send alike.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use bytes::Bytes;

use super::Loops;
use super::shared_loop::{End, Intervals, LoopMap, LoopSource, LoopTask, Polled, Progress, Round};
use super::snapshot::{Item, Snapshot};
use super::source::{PollRules, SnapshotRead, SnapshotSource, is_not_found};
use crate::error::Error;
use crate::upstream::Upstream;
use drawbridge_transcoder::api::drawbridge::v1::{self, WatchEvent, WatchEventType};
use drawbridge_transcoder::contract::Outcome;

/// The source of a loop that compares snapshots.
pub(super) struct SnapshotLoop {
    source: Arc<dyn SnapshotSource>,
    pub(super) rules: PollRules,
}

/// What the rounds have read so far.
#[derive(Clone)]
pub(super) struct SnapshotState {
    pub(super) snapshot: Arc<Snapshot>,
    /// The messages that lead from the previous snapshot to this one, encoded once for
    /// all subscribers that have sent the previous one.
    pub(super) step: Arc<[Bytes]>,
    /// The newest final snapshot; none for lists. It is the last one for subscribers
    /// that do not follow, even when others keep the loop running.
    pub(super) last_final: Option<Arc<Snapshot>>,
}

impl LoopSource for SnapshotLoop {
    type State = SnapshotState;
    /// Keys that the last read of a list has lacked, and the reads before it have not.
    type Cursor = HashSet<Box<str>>;
    type Mark = ();

    fn map(loops: &mut Loops) -> &mut LoopMap<Self> {
        &mut loops.snapshots
    }

    fn upstream(&self) -> Option<&Arc<Upstream>> {
        self.source.upstream()
    }

    fn take_retry_after(&self) -> Duration {
        self.source.take_retry_after()
    }

    fn intervals(&self) -> Intervals {
        Intervals {
            first: self.rules.initial_interval,
            max: self.rules.max_interval,
        }
    }

    async fn poll(
        task: &LoopTask<Self>,
        lacked: &mut HashSet<Box<str>>,
        _round: Round,
    ) -> Result<Polled<Self>, Error> {
        let this = &task.shared.source;
        let read = task.read(this.source.read()).await?;
        let now = task.now();
        Ok(match read {
            SnapshotRead::Deleted(item) => {
                let deleted = this.item_message(WatchEventType::Deleted, &item, now, None);
                Polled::Ended(End::Completed(Arc::from([deleted])))
            }
            SnapshotRead::NotFound => Polled::Missing,
            SnapshotRead::Items(mut items) => {
                let last = task.shared.state();
                let poll_soon = match (&last, this.rules.list) {
                    (_, false) => items.iter().any(|item| item.poll_soon),
                    (Some(last), true) => last.snapshot.keep_unconfirmed(&mut items, lacked),
                    (None, true) => false,
                };
                let (state, changed) = this.advance(last, items, now);
                Polled::Read {
                    state,
                    mark: (),
                    observed_at: now,
                    notify: changed,
                    reset_backoff: changed || poll_soon,
                }
            }
        })
    }

    fn progress(&self, state: &SnapshotState) -> Progress {
        match &state.snapshot.items[..] {
            [item] if !self.rules.list => {
                Progress::Resource(self.source.state_text(item), item.outcome)
            }
            items => Progress::List(items.len()),
        }
    }

    fn is_final(&self, state: &SnapshotState, follow: bool) -> bool {
        self.is_end(&state.snapshot, follow)
    }

    /// Ends the loop when the resource does not exist any more.
    fn ended_by(&self, error: &Error, last: &SnapshotState, now: SystemTime) -> Option<End> {
        if !is_not_found(error) {
            return None;
        }
        if !self.rules.not_found_succeeds {
            return Some(End::Failed(match error.clone() {
                Error::Upstream(mut fault) => {
                    fault.message = format!("deleted since it was last read: {}", fault.message);
                    Error::Upstream(fault)
                }
                other => other,
            }));
        }
        let deleted = |item: &Item| {
            let mut item = item.clone();
            if !self.rules.list {
                item.outcome = Outcome::Succeeded;
            }
            self.item_message(WatchEventType::Deleted, &item, now, None)
        };
        let messages = last.snapshot.items.iter().map(deleted).collect();
        Some(End::Completed(messages))
    }

    /// A watch that began with a call has answered its rpc already.
    fn tolerates_first_failure(&self) -> bool {
        self.rules.started_by_call
    }
}

impl SnapshotLoop {
    pub(super) fn new(source: Arc<dyn SnapshotSource>) -> Self {
        Self {
            rules: source.rules(),
            source,
        }
    }

    /// Whether the snapshot is final; lists never are.
    fn is_final_state(&self, snapshot: &Snapshot) -> bool {
        !self.rules.list && snapshot.outcome() != Outcome::Pending
    }

    /// Whether a subscriber ends after this snapshot. One that follows goes on where the
    /// state may change again.
    pub(super) fn is_end(&self, snapshot: &Snapshot, follow: bool) -> bool {
        let continues = |item: &Item| self.source.continues_after(item);
        self.is_final_state(snapshot) && !(follow && snapshot.items.iter().any(continues))
    }

    /// Encodes an event of an item.
    pub(super) fn item_message(
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
            incomplete: item.incomplete,
        };
        self.source.message(&event, Some(item))
    }

    /// Encodes a bookmark.
    pub(super) fn bookmark(
        &self,
        observed_at: SystemTime,
        unconfirmed_since: Option<SystemTime>,
    ) -> Bytes {
        let event = WatchEvent {
            r#type: WatchEventType::Bookmark.into(),
            observed_at: Some(observed_at.into()),
            unconfirmed_since: unconfirmed_since.map(Into::into),
            ..WatchEvent::default()
        };
        self.source.message(&event, None)
    }

    /// Returns the state after these items were read, and whether it has changed.
    fn advance(
        &self,
        before: Option<SnapshotState>,
        mut items: Vec<Item>,
        now: SystemTime,
    ) -> (SnapshotState, bool) {
        let Some(mut state) = before else {
            let snapshot = Arc::new(Snapshot::new(0, items, now));
            let state = SnapshotState {
                last_final: self
                    .is_final_state(&snapshot)
                    .then(|| Arc::clone(&snapshot)),
                snapshot,
                step: Arc::from([]),
            };
            return (state, true);
        };
        if state.snapshot.has_items(&items) {
            return (state, false);
        }
        let is_equivalent = |old: &Item, new: &Item| self.source.is_equivalent(old, new);
        state.snapshot.reuse_bytes(&mut items, is_equivalent);
        let next = Snapshot::new(state.snapshot.seq + 1, items, now);
        let step: Arc<[Bytes]> = (0..next.diff_len(&state.snapshot))
            .filter_map(|step| next.diff_at(&state.snapshot, step))
            .map(|(kind, item)| self.item_message(kind, item, now, None))
            .collect();
        if step.is_empty() {
            return (state, false);
        }
        state.snapshot = Arc::new(next);
        state.step = step;
        if self.is_final_state(&state.snapshot) {
            state.last_final = Some(Arc::clone(&state.snapshot));
        }
        (state, true)
    }
}
