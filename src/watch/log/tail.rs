//! The poll loop of a log: reads its end and publishes new entries in a window.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::time::SystemTime;

use super::super::Loops;
use super::super::shared_loop::{
    Intervals, LoopMap, LoopSource, LoopTask, Polled, Progress, Round, RoundEnd,
};
use super::position::{NewEntries, Page, Position, ReadPosition, SENT_KEY_BYTES, offset};
use super::source::{LogRules, LogSource};
use crate::engine::pager::{PageProgress, ProgressGuard};
use crate::error::Error;
use crate::http_client::not_delivered;
use crate::memory::{Memory, Reservation};
use crate::upstream::Upstream;
use drawbridge_transcoder::contract::Entry;

/// The largest number of entries of a window, and of their bytes.
const WINDOW_ENTRIES: usize = 1_000;
const WINDOW_BYTES: usize = 4 << 20;
/// The memory of an entry of the window besides its bytes and two keys.
const WINDOW_ENTRY_BYTES: usize = 256;
/// The largest number of late entries that are kept for readers behind the window.
const MAX_LATE_ENTRIES: usize = 1_000;

/// The source of a loop that follows the end of a log.
pub(in crate::watch) struct Tail {
    pub(super) source: Arc<dyn LogSource>,
    pub(super) rules: LogRules,
    /// Texts: where the first read begins. Lists begin with the newest page.
    first: ReadPosition,
    window: Mutex<Window>,
}

/// The end of the log as a round has found it. If the round began after a stream joined,
/// all that existed when it joined precedes this.
#[derive(Clone, Debug)]
pub(in crate::watch) struct Mark {
    /// The number after the newest entry.
    pub(super) head: u64,
    /// The marker to resume at the end; empty if there are no entries.
    pub(super) marker: Box<str>,
    /// When the round ended.
    pub(super) observed_at: SystemTime,
}

/// Receives the end of the log; for lists, or the error of the round.
pub(super) type MarkReceiver = RoundEnd<Mark>;

/// An entry in the window.
#[derive(Clone, Debug)]
pub(super) struct WindowEntry {
    pub(super) entry: Entry,
    /// The entry precedes entries that were sent before.
    pub(super) late: bool,
    /// The marker to resume after it.
    pub(super) marker: Box<str>,
    /// When it was read.
    pub(super) observed_at: SystemTime,
}

/// The newest entries.
#[derive(Default)]
struct Window {
    /// The number of the first entry.
    first: u64,
    entries: VecDeque<WindowEntry>,
    bytes: usize,
    /// Texts: the offset at which the window begins.
    offset: u64,
    /// Late entries with their numbers, including some that have left the window.
    late: VecDeque<(u64, WindowEntry)>,
    /// The number after the last late entry that was dropped.
    late_lost_before: u64,
    /// The memory of the keys that the position of the loop remembers.
    sent_keys: Reservation,
}

impl Window {
    fn head(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn push(&mut self, item: WindowEntry) {
        if item.late {
            if self.late.len() == MAX_LATE_ENTRIES
                && let Some((number, _)) = self.late.pop_front()
            {
                self.late_lost_before = number + 1;
            }
            self.late.push_back((self.head(), item.clone()));
        }
        self.bytes += item.entry.bytes.len();
        self.entries.push_back(item);
        while self.entries.len() > WINDOW_ENTRIES
            || (self.bytes > WINDOW_BYTES && self.entries.len() > 1)
        {
            self.drop_oldest();
        }
    }

    /// Drops the oldest entry: readers that have not read it read pages. Returns false if there
    /// is none.
    fn drop_oldest(&mut self) -> bool {
        let Some(gone) = self.entries.pop_front() else {
            return false;
        };
        self.bytes -= gone.entry.bytes.len();
        self.first += 1;
        self.offset = offset(&gone.marker);
        true
    }

    /// Reserves memory for the entries of a page that are new after `position`, and for their
    /// keys; older entries make room for them.
    fn reserve(
        &mut self,
        page: &Page,
        position: &Position,
        memory: &Memory,
    ) -> Result<Reservation, Error> {
        let new = page.entries.iter().filter(|entry| !position.has(entry));
        let needed = new.map(reserved_bytes).sum();
        let keys = SENT_KEY_BYTES * (position.remembered() + page.entries.len());
        if self.sent_keys.bytes() == 0 {
            self.sent_keys = memory.empty();
        }
        loop {
            let reserved = (self.sent_keys.resize_long(keys)).and_then(|()| memory.reserve(needed));
            match reserved {
                Ok(reservation) => return Ok(reservation),
                Err(_) if self.drop_oldest() => {}
                Err(exhausted) => return Err(not_delivered(exhausted)),
            }
        }
    }
}

/// Returns how much memory an entry takes in the window.
fn reserved_bytes(entry: &Entry) -> usize {
    let bytes = WINDOW_ENTRY_BYTES + entry.bytes.len() + 2 * entry.key.len();
    // Reservations are rounded up.
    bytes.next_multiple_of(1 << 10)
}

/// What a reader gets from the window.
pub(super) enum WindowRead {
    /// Entries; empty when there are no more.
    Entries(Vec<WindowEntry>),
    /// The reader is behind the window: late entries, which its pages do not have, and
    /// the number from which it reads the window again.
    Gap(Vec<WindowEntry>, u64),
    /// The reader is so far behind that late entries were dropped.
    TooSlow,
}

impl Tail {
    /// Begins at `first` if the log is a text.
    pub(super) fn new(source: Arc<dyn LogSource>, first: ReadPosition) -> Self {
        let window = Window {
            offset: first.marker.as_deref().map_or(0, offset),
            ..Window::default()
        };
        Self {
            rules: source.rules(),
            source,
            first,
            window: Mutex::new(window),
        }
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number after the newest entry.
    pub(super) fn head(&self) -> u64 {
        self.window().head()
    }

    /// Texts: returns the number of the first entry in the window if the window begins at
    /// this offset or before.
    pub(super) fn covers(&self, offset: u64) -> Option<u64> {
        let window = self.window();
        (self.rules.text && window.offset <= offset).then_some(window.first)
    }

    /// Returns at most `most` entries from this number on.
    pub(super) fn read(&self, from: u64, most: usize) -> WindowRead {
        let window = self.window();
        if from >= window.first {
            let skip = usize::try_from(from - window.first).unwrap_or(usize::MAX);
            return WindowRead::Entries(
                window
                    .entries
                    .iter()
                    .skip(skip)
                    .take(most)
                    .cloned()
                    .collect(),
            );
        }
        if from < window.late_lost_before {
            return WindowRead::TooSlow;
        }
        let late = window.late.iter().filter(|(number, _)| *number >= from);
        WindowRead::Gap(late.map(|(_, item)| item.clone()).collect(), window.head())
    }

    /// Adds entries to the window, for which memory is reserved; `marker` is the one to resume
    /// after late entries. Returns whether there were any.
    fn push(
        &self,
        new: NewEntries,
        marker: &str,
        now: SystemTime,
        mut reservation: Reservation,
    ) -> bool {
        if new.is_empty() {
            return false;
        }
        let late = new.late.into_iter().map(|entry| (entry, true));
        let in_order = new.entries.into_iter().map(|entry| (entry, false));
        let mut window = self.window();
        for (entry, late) in late.chain(in_order) {
            let marker = match late {
                true => marker.into(),
                false => entry.key.clone(),
            };
            let own = reservation.split(reserved_bytes(&entry));
            window.push(WindowEntry {
                entry: detached(entry, own),
                late,
                marker,
                observed_at: now,
            });
        }
        true
    }
}

impl LoopSource for Tail {
    /// Readers get entries from the window.
    type State = ();
    type Cursor = Option<Position>;
    type Mark = Mark;

    fn map(loops: &mut Loops) -> &mut LoopMap<Self> {
        &mut loops.logs
    }

    fn progress(&self, (): &()) -> Progress {
        Progress::Log
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
        cursor: &mut Option<Position>,
        round: Round,
    ) -> Result<Polled<Self>, Error> {
        let this = &task.shared.source;
        let rules = this.rules;
        // Also when a stream waits: an entry that exists already is not sent as late
        // then.
        let due = round.requested
            || round
                .number
                .is_multiple_of(u64::from(rules.look_back.max(1)));
        let looks_back = rules.look_back > 0 && due;
        let (changed, position) = match cursor {
            Some(position) => (read_on(task, position, looks_back).await?, position),
            // The first read of a text is a page like all others.
            None if rules.text => {
                let position = cursor.insert(Position::new(this.first.marker.clone(), true));
                (read_on(task, position, false).await?, position)
            }
            None => {
                let page = task.read(Arc::clone(&this.source).newest()).await?;
                let position = Position::new(None, false);
                let memory = this.source.memory();
                // For the keys: no entry is sent.
                this.window().reserve(&page, &position, &memory)?;
                (true, cursor.insert(Position::behind(page)))
            }
        };
        let observed_at = task.now();
        Ok(Polled::Read {
            state: (),
            mark: Mark {
                head: this.head(),
                marker: position.marker().into(),
                observed_at,
            },
            observed_at,
            // Entries were published page by page.
            notify: false,
            reset_backoff: changed,
        })
    }

    /// Readers of a text have begun already, and wait for a round that succeeds.
    fn waits_past_failures(&self) -> bool {
        self.rules.text
    }
}

/// Reads page by page to the end. Returns whether there were new entries.
async fn read_on(
    task: &LoopTask<Tail>,
    position: &mut Position,
    looks_back: bool,
) -> Result<bool, Error> {
    let this = &task.shared.source;
    // Before the other reads: an entry that none of them has is late.
    let newest = match looks_back {
        true => Some(task.read(Arc::clone(&this.source).newest()).await?),
        false => None,
    };
    let mut changed = false;
    let mut guard = ProgressGuard::default();
    loop {
        let before = position.at();
        let page = task
            .read(Arc::clone(&this.source).page(before.clone()))
            .await?;
        let now = task.now();
        let (last, is_empty) = (page.last, page.entries.is_empty());
        // Before the position moves: what does not fit is read again.
        let memory = this.source.memory();
        let reservation = this.window().reserve(&page, position, &memory)?;
        let new = position.advance(page);
        let progress = PageProgress {
            is_last: last,
            is_empty,
            has_new: !new.is_empty(),
            has_moved: position.at() != before,
        };
        let marker = before.marker.as_deref().unwrap_or_default();
        let is_new = this.push(new, marker, now, reservation);
        task.shared.publish((), now, is_new);
        changed |= is_new;
        if last {
            break;
        }
        guard.check(progress)?;
    }
    if let Some(page) = newest {
        let memory = this.source.memory();
        let reservation = this.window().reserve(&page, position, &memory)?;
        let late = NewEntries {
            late: position.look_back(page),
            entries: Vec::new(),
        };
        let now = task.now();
        if this.push(late, position.marker(), now, reservation) {
            task.shared.publish((), now, true);
            changed = true;
        }
    }
    Ok(changed)
}

/// Copies an entry out of its page, so that the window does not keep the page in memory.
fn detached(entry: Entry, reservation: Reservation) -> Entry {
    let bytes = reservation.attach(entry.bytes.to_vec());
    Entry { bytes, ..entry }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::memory::MemoryBudget;

    #[test]
    fn window_entry_does_not_keep_its_page() {
        let page = Bytes::from(vec![b'x'; 1_000]);
        let entry = Entry {
            key: "1".into(),
            order: None,
            bytes: page.slice(3..4),
        };
        let kept = detached(entry, Reservation::default());
        assert!(kept.bytes.is_unique() && page.is_unique());
        assert_eq!(kept.bytes, "x");
    }

    /// Entries that do not fit make older ones leave the window; a page that does not fit at
    /// all is read again.
    #[test]
    fn window_draws_from_the_budget() {
        let entry = |number: usize, length: usize| Entry {
            key: number.to_string().into(),
            order: None,
            bytes: vec![b'x'; length].into(),
        };
        let page = |numbers: std::ops::Range<usize>, length| Page {
            entries: numbers.map(|number| entry(number, length)).collect(),
            ..Page::default()
        };
        let budget = MemoryBudget::new(1 << 20);
        let memory = budget.open(1);
        let mut window = Window::default();
        let mut position = Position::new(None, false);
        let mut push = |page: Page| {
            let mut reservation = window.reserve(&page, &position, &memory)?;
            for entry in position.advance(page).entries {
                let own = reservation.split(reserved_bytes(&entry));
                window.push(WindowEntry {
                    marker: entry.key.clone(),
                    entry: detached(entry, own),
                    late: false,
                    observed_at: SystemTime::UNIX_EPOCH,
                });
            }
            Ok::<_, Error>((window.first, window.entries.len()))
        };
        assert_eq!(push(page(0..10, 30_000)).unwrap(), (0, 10));
        assert!(budget.stats().used >= 300_000);
        let (first, count) = push(page(10..20, 30_000)).unwrap();
        assert!(first > 0 && first + count as u64 == 20, "{first}");
        assert!(budget.stats().used <= (1 << 20) / 2);
        assert!(push(page(20..21, 600_000)).is_err());
        assert_eq!(push(page(20..21, 30_000)).unwrap(), (20, 1));
    }
}
