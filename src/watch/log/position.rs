//! How far a log was read, and which entries of a page are new.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::memory::Reservation;
use drawbridge_transcoder::contract::{Entry, Order};

/// How many keys of sent entries a position remembers: as many as an upstream can repeat
/// when it no longer knows the marker.
const MAX_SENT_KEYS: usize = 4_096;

/// The memory of a key of a sent entry.
pub(super) const SENT_KEY_BYTES: usize = 128;

/// Where the next read begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ReadPosition {
    /// The key of the last entry read, or the offset of a text; none at the start.
    pub(super) marker: Option<Box<str>>,
    /// The text read last did not end with a line break, so the next read may begin with
    /// one.
    pub(super) open: bool,
    /// Texts: the last bytes that were read; empty before the first read.
    pub(super) anchor: Box<str>,
}

/// The result of one read, oldest entry first.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) entries: Vec<Entry>,
    /// No entry follows.
    pub(super) last: bool,
    /// The page is the complete list, regardless of the marker.
    pub(super) whole: bool,
    /// Texts: where the next read begins.
    pub(super) next: Option<ReadPosition>,
    /// The memory of the entries, besides bytes that are a part of a response.
    pub(super) reservation: Reservation,
}

/// The new entries of a page.
#[derive(Debug, Default)]
pub(super) struct NewEntries {
    /// Entries that precede entries that were read before.
    pub(super) late: Vec<Entry>,
    /// All other entries, in order.
    pub(super) entries: Vec<Entry>,
}

impl NewEntries {
    pub(super) fn is_empty(&self) -> bool {
        self.late.is_empty() && self.entries.is_empty()
    }
}

/// How far a log was read.
#[derive(Debug)]
pub(in crate::watch) struct Position {
    at: ReadPosition,
    text: bool,
    /// The marker at which the log was opened: the last entry that is not sent.
    started_behind: Option<Box<str>>,
    sent: SentKeys,
    /// `forget` was called.
    forgot_sent: bool,
    /// Entries below this order were sent, or are never sent.
    floor: Option<Order>,
    /// No page was read yet.
    is_unread: bool,
}

impl Position {
    /// Starts after this marker or offset; none is the start of the log.
    pub(super) fn new(marker: Option<Box<str>>, text: bool) -> Self {
        Self {
            started_behind: marker.clone(),
            at: ReadPosition {
                marker,
                ..ReadPosition::default()
            },
            text,
            sent: SentKeys::default(),
            forgot_sent: false,
            floor: None,
            is_unread: true,
        }
    }

    /// Starts after all entries of the newest page.
    pub(super) fn behind(page: Page) -> Self {
        let mut position = Self::new(None, false);
        position.is_unread = false;
        if !page.last {
            position.floor = page.entries.first().and_then(|entry| entry.order.clone());
        }
        for entry in &page.entries {
            position.sent.insert(entry);
        }
        position.at.marker = page.entries.into_iter().next_back().map(|entry| entry.key);
        position
    }

    pub(super) fn at(&self) -> ReadPosition {
        self.at.clone()
    }

    /// Returns how many keys of sent entries are remembered.
    pub(super) fn remembered(&self) -> usize {
        self.sent.order.len()
    }

    /// Returns the marker to resume from; empty at the start.
    pub(super) fn marker(&self) -> &str {
        self.at.marker.as_deref().unwrap_or_default()
    }

    /// Returns the offset of a text.
    pub(super) fn offset(&self) -> u64 {
        offset(self.marker())
    }

    /// Returns the part of the loop's key that depends on the position. The window of a
    /// text starts at the position of its first reader, perhaps after the end of the
    /// text, and has no lines for readers that start before.
    pub(super) fn discriminator(&self) -> Vec<u8> {
        match self.text && self.offset() > 0 {
            true => self.marker().into(),
            false => Vec::new(),
        }
    }

    /// Moves to the end of the page and returns its new entries.
    pub(super) fn advance(&mut self, mut page: Page) -> NewEntries {
        if self.text {
            let from = self.offset();
            page.entries.retain(|entry| offset(&entry.key) > from);
            if let Some(next) = page.next {
                self.at = next;
            }
            return NewEntries {
                late: Vec::new(),
                entries: page.entries,
            };
        }
        let is_unread = std::mem::replace(&mut self.is_unread, false);
        let mut late = 0;
        if page.whole {
            // The list is repeated by every read.
            self.sent.capacity = self.sent.capacity.max(MAX_SENT_KEYS + page.entries.len());
            let is_marker = |entry: &Entry| Some(&entry.key) == self.at.marker.as_ref();
            late = page
                .entries
                .iter()
                .position(is_marker)
                .map_or(0, |at| at + 1);
            if self.forgot_sent {
                // They were sent, or the tail sends them as late entries.
                page.entries.drain(..std::mem::take(&mut late));
            }
        }
        if is_unread {
            for entry in page.entries.drain(..std::mem::take(&mut late)) {
                self.sent.insert(&entry);
            }
            if self.at.marker.is_some() {
                // The upstream may repeat entries from before the marker.
                self.floor = page.entries.first().and_then(|entry| entry.order.clone());
            }
        }
        if let Some(last) = page.entries.last() {
            self.at.marker = Some(last.key.clone());
        }
        let mut new = NewEntries::default();
        for (number, entry) in page.entries.into_iter().enumerate() {
            let is_below = entry.order.is_some() && entry.order < self.floor;
            // Late entries are new although their order is low.
            if (is_below && number >= late) || !self.sent.insert(&entry) {
                continue;
            }
            if let Some(forgotten) = self.sent.overflow() {
                self.floor = self.floor.take().max(forgotten);
            }
            match number < late {
                true => new.late.push(entry),
                false => new.entries.push(entry),
            }
        }
        new
    }

    /// Returns the new entries of the newest page without moving.
    pub(super) fn look_back(&mut self, page: Page) -> Vec<Entry> {
        let mut entries = page.entries;
        entries.retain(|entry| self.sent.insert(entry));
        while let Some(forgotten) = self.sent.overflow() {
            self.floor = self.floor.take().max(forgotten);
        }
        entries
    }

    /// Whether an entry of the window was sent from a page already.
    pub(super) fn has(&self, entry: &Entry) -> bool {
        if self.text {
            return offset(&entry.key) <= self.offset();
        }
        self.sent.has(entry)
    }

    /// Whether the log was opened at this entry.
    pub(super) fn started_behind(&self, entry: &Entry) -> bool {
        !self.text && self.started_behind.as_ref() == Some(&entry.key)
    }

    /// Records that an entry of the window was sent. A late entry precedes entries that
    /// were sent before.
    pub(super) fn mark_sent(&mut self, entry: &Entry, late: bool) {
        if late {
            self.sent.insert(entry);
            return;
        }
        self.at.marker = Some(entry.key.clone());
        self.is_unread = false;
        if entry.order.is_some() {
            self.floor = self.floor.take().max(entry.order.clone());
        }
    }

    /// Releases the memory of sent keys: from now on the tail repeats none of them.
    pub(super) fn forget(&mut self) {
        self.forgot_sent = true;
        self.sent = SentKeys::default();
    }
}

/// Returns the offset in a marker of a text.
pub(super) fn offset(marker: &str) -> u64 {
    marker.parse().unwrap_or_default()
}

/// Keys of sent entries; the oldest are dropped first.
#[derive(Debug)]
struct SentKeys {
    keys: HashSet<u128>,
    order: VecDeque<(u128, Option<Order>)>,
    /// How many keys are remembered.
    capacity: usize,
}

impl Default for SentKeys {
    fn default() -> Self {
        Self {
            keys: HashSet::new(),
            order: VecDeque::new(),
            capacity: MAX_SENT_KEYS,
        }
    }
}

impl SentKeys {
    /// Returns whether the key is new.
    fn insert(&mut self, entry: &Entry) -> bool {
        let key = digest(&entry.key);
        let new = self.keys.insert(key);
        if new {
            self.order.push_back((key, entry.order.clone()));
        }
        new
    }

    fn has(&self, entry: &Entry) -> bool {
        self.keys.contains(&digest(&entry.key))
    }

    /// Drops the oldest key when there are too many, and returns its order.
    fn overflow(&mut self) -> Option<Option<Order>> {
        if self.order.len() <= self.capacity {
            return None;
        }
        let (key, order) = self.order.pop_front()?;
        self.keys.remove(&key);
        Some(order)
    }
}

/// Hashes to 128 bits: collisions are practically impossible.
fn digest(key: &str) -> u128 {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, key).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}
