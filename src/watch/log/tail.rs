//! The shared end of a log: one task polls it for all who have caught up.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;

use super::super::Loops;
use super::super::shared_loop::{
    Intervals, LoopMap, LoopSource, LoopTask, Polled, Round, RoundEnd,
};
use super::position::{At, New, Position, offset};
use super::source::{LogSource, Rules};
use crate::error::Error;
use drawbridge_transcoder::contract::Entry;

/// Entries that stand in a window, and the bytes they take at most.
const WINDOW: usize = 1_000;
const WINDOW_BYTES: usize = 4 << 20;
/// Late entries that are kept for those who fell out of the window.
const LATE: usize = 1_000;
/// Pages in a row that may bring nothing new.
pub(super) const IDLE_PAGES: u32 = 10_000;

/// The source of a loop that follows the end of a log.
pub(in crate::watch) struct Tail {
    pub(super) source: Arc<dyn LogSource>,
    pub(super) rules: Rules,
    /// Where it begins; entries are read from the newest page on instead.
    first: At,
    window: Mutex<Window>,
}

/// The end of the log as a round has found it that began after the subscriber joined:
/// what was there when it joined stands before this.
#[derive(Clone, Debug)]
pub(in crate::watch) struct Mark {
    /// The number behind the newest entry.
    pub(super) head: u64,
    /// The marker to resume there; empty where nothing is.
    pub(super) marker: Box<str>,
    /// When the round has ended.
    pub(super) observed_at: SystemTime,
}

/// Receives the end of the log. Lists: or the error of the round.
pub(super) type MarkReceiver = RoundEnd<Mark>;

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
    pub(super) fn new(source: Arc<dyn LogSource>, first: At) -> Self {
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

    /// The number behind the newest entry.
    pub(super) fn head(&self) -> u64 {
        self.window().head()
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

    /// Adds entries to the window; `marker` is the one to resume behind late ones.
    /// Returns whether there were any.
    fn push(&self, new: New, marker: &str, now: SystemTime) -> bool {
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
            window.push(Told {
                entry: alone(entry),
                late,
                marker,
                observed_at: now,
            });
        }
        true
    }
}

impl LoopSource for Tail {
    /// Entries are read from the window.
    type State = ();
    type Cursor = Option<Position>;
    type Mark = Mark;

    fn map(loops: &mut Loops) -> &mut LoopMap<Self> {
        &mut loops.logs
    }

    fn intervals(&self) -> Intervals {
        Intervals {
            first: self.rules.first_interval,
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
        // For subscribers that wait, too: an entry that is there already is not sent late.
        let due = round.out_of_turn
            || round
                .number
                .is_multiple_of(u64::from(rules.look_back.max(1)));
        let looks_back = rules.look_back > 0 && due;
        let (changed, position) = match cursor {
            Some(position) => (read_on(task, position, looks_back).await?, position),
            // The first read of a text is a page as all others.
            None if rules.text => {
                let position = cursor.insert(Position::new(this.first.marker.clone(), true));
                (read_on(task, position, false).await?, position)
            }
            None => {
                let page = task.read(Arc::clone(&this.source).newest()).await?;
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
            // Entries have been published page by page.
            notify: false,
            reset_backoff: changed,
        })
    }

    /// Subscribers of a text have begun already, and wait for a round that succeeds.
    fn waits_past_failures(&self) -> bool {
        self.rules.text
    }
}

/// Reads page by page to the end; true when there was something new.
async fn read_on(
    task: &LoopTask<Tail>,
    position: &mut Position,
    looks_back: bool,
) -> Result<bool, Error> {
    let this = &task.shared.source;
    // Before the other reads: what is in none of them has come late.
    let newest = match looks_back {
        true => Some(task.read(Arc::clone(&this.source).newest()).await?),
        false => None,
    };
    let mut changed = false;
    let mut idle = 0;
    loop {
        let before = position.at();
        let page = task
            .read(Arc::clone(&this.source).page(before.clone()))
            .await?;
        let now = task.now();
        let (last, came) = (page.last, !page.entries.is_empty());
        let new = position.take(page);
        idle = if new.is_empty() { idle + 1 } else { 0 };
        let marker = before.marker.as_deref().unwrap_or_default();
        let is_new = this.push(new, marker, now);
        task.shared.publish((), now, is_new);
        changed |= is_new;
        if last {
            break;
        }
        if idle > 0 {
            goes_on(idle, came, position.at() != before)?;
        }
    }
    if let Some(page) = newest {
        let late = New {
            late: position.look_back(page),
            entries: Vec::new(),
        };
        let now = task.now();
        if this.push(late, position.marker(), now) {
            task.shared.publish((), now, true);
            changed = true;
        }
    }
    Ok(changed)
}

/// Refuses a list that never ends though it brings nothing new.
pub(super) fn goes_on(idle: u32, came: bool, moved: bool) -> Result<(), Error> {
    if idle < IDLE_PAGES && came && moved {
        return Ok(());
    }
    Err(Error::decode(
        "",
        "the list does not go on behind its marker: does the upstream page it?",
    ))
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
