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
use super::snapshot::{ITEM_BYTES, Item, Snapshot};
use super::source::{POLL_TIMEOUT, PollRules, SnapshotRead, SnapshotSource, is_not_found};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::http_client::not_delivered;
use crate::memory::{Memory, Reservation};
use crate::upstream::Upstream;
use drawbridge_transcoder::api::drawbridge::v1::{self, WatchEvent, WatchEventType};
use drawbridge_transcoder::contract::Outcome;

/// The memory of an encoded message besides the bytes of its item.
const MESSAGE_BYTES: usize = 128;

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
    /// None where the memory of their client has no room for them: subscribers then compare
    /// the snapshots.
    pub(super) step: Option<Arc<Step>>,
    /// The newest final snapshot; none for lists. It is the last one for subscribers
    /// that do not follow, even when others keep the loop running.
    pub(super) last_final: Option<Arc<Snapshot>>,
}

/// Encoded messages, and their memory.
pub(super) struct Step {
    pub(super) messages: Box<[Bytes]>,
    _reservation: Reservation,
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
                let memory = this.source.memory();
                let keys = items.iter().map(|item| ITEM_BYTES + item.key.len());
                let reserved = memory.reserve_long(keys.sum());
                let reservation = reserved.map_err(not_delivered)?;
                let (state, changed) = match last {
                    // Most polls find no change.
                    Some(last) if last.snapshot.has_items(&items) => (last, false),
                    last => {
                        let bytes = items.iter().map(Item::bytes_len).sum();
                        let turn = Deadline::after(POLL_TIMEOUT).bound(memory.turn(bytes));
                        let items = (items, reservation);
                        turn.await?.run(|| this.advance(last, items, now, &memory))
                    }
                };
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
        (mut items, reservation): (Vec<Item>, Reservation),
        now: SystemTime,
        memory: &Memory,
    ) -> (SnapshotState, bool) {
        let Some(mut state) = before else {
            let snapshot = Snapshot::new(0, items, now).with_memory(reservation);
            let snapshot = Arc::new(snapshot);
            let state = SnapshotState {
                last_final: self
                    .is_final_state(&snapshot)
                    .then(|| Arc::clone(&snapshot)),
                snapshot,
                step: None,
            };
            return (state, true);
        };
        let is_equivalent = |old: &Item, new: &Item| self.source.is_equivalent(old, new);
        state.snapshot.reuse_bytes(&mut items, is_equivalent);
        let next = Snapshot::new(state.snapshot.seq + 1, items, now).with_memory(reservation);
        let changes = || {
            let steps = 0..next.diff_len(&state.snapshot);
            steps.filter_map(|step| next.diff_at(&state.snapshot, step))
        };
        if changes().next().is_none() {
            return (state, false);
        }
        let bytes = changes().map(|(_, item)| MESSAGE_BYTES + item.bytes_len());
        let step = memory.reserve_long(bytes.sum()).ok().map(|reservation| {
            let messages = changes().map(|(kind, item)| self.item_message(kind, item, now, None));
            Arc::new(Step {
                messages: messages.collect(),
                _reservation: reservation,
            })
        });
        state.snapshot = Arc::new(next);
        state.step = step;
        if self.is_final_state(&state.snapshot) {
            state.last_final = Some(Arc::clone(&state.snapshot));
        }
        (state, true)
    }
}
