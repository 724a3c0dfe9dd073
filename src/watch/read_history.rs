//! What a source remembers of its earlier reads, and the debounce of states that are final
//! only when they last.

use bytes::Bytes;
use tokio::time::Instant;

use drawbridge_transcoder::contract::{DebounceRule, Outcome};

/// What earlier reads have found.
#[derive(Default)]
pub(super) struct ReadHistory {
    /// A read has found the resource.
    pub(super) was_read: bool,
    /// Consecutive reads that have not found it.
    pub(super) misses: u32,
    /// The resource as the last read has found it.
    pub(super) item: Option<Bytes>,
    pub(super) debounce: Option<Debounce>,
    /// The last light read with a final state, and the full read after it.
    pub(super) full: Option<(Bytes, Bytes)>,
    /// The last light read with a final state, and its outcome, until it is sent.
    pub(super) known_final: Option<(Bytes, Outcome)>,
    /// Polls in a row that have failed since: their light read, or the full one.
    pub(super) failed_full_reads: u32,
    /// The parts of the message that the side reads have found last, one per side read.
    pub(super) side_parts: Vec<Bytes>,
    /// The part of the message that the fallback has found last.
    pub(super) fallback_part: Option<Bytes>,
    /// Consecutive reads of the fallback that have not found it.
    pub(super) fallback_misses: u32,
    /// The fallback reports a deletion, so NOT_FOUND is SUCCEEDED.
    pub(super) is_deleting: bool,
    /// The fallback has described the watched resource.
    pub(super) has_matched: bool,
    /// Consecutive reads in which the fallback described another resource.
    pub(super) mismatches: u32,
}

/// Counts how long a state lasts that is final only when it lasts (`final_after`).
pub(super) struct Debounce {
    pub(super) rule: DebounceRule,
    since: Instant,
    polls: u32,
}

impl Debounce {
    /// Counts one more read of the state, or starts anew when the state differs.
    pub(super) fn count(last: Option<Self>, rule: DebounceRule) -> Self {
        match last {
            Some(last) if last.rule == rule => Self {
                polls: last.polls.saturating_add(1),
                ..last
            },
            _ => Self {
                rule,
                since: Instant::now(),
                polls: 1,
            },
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.since.elapsed() >= self.rule.time && self.polls >= self.rule.polls
    }
}
