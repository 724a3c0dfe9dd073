//! Where one stands in a log: what was read, and what is new.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use drawbridge_transcoder::contract::{Entry, Order};

/// Keys of entries that were told, as a position remembers them: as many as an
/// upstream can repeat when it has forgotten the marker.
const REMEMBERED: usize = 4_096;

/// Where the next read begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct At {
    /// The key of the last entry read, or the offset of a text; none at the start.
    pub(super) marker: Option<Box<str>>,
    /// The text read last had no line end, so the next one may begin with it.
    pub(super) open: bool,
    /// Texts: the end of what was read; empty where nothing was.
    pub(super) anchor: Box<str>,
}

/// What one read brought, oldest first.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) entries: Vec<Entry>,
    /// Nothing is behind it by now.
    pub(super) last: bool,
    /// It is the whole list, whatever was asked for.
    pub(super) whole: bool,
    /// Texts: where the next read begins.
    pub(super) next: Option<At>,
}

/// What of a page is new.
#[derive(Debug, Default)]
pub(super) struct New {
    /// Entries that stand before what was read already.
    pub(super) late: Vec<Entry>,
    /// All others, in order.
    pub(super) entries: Vec<Entry>,
}

impl New {
    pub(super) fn is_empty(&self) -> bool {
        self.late.is_empty() && self.entries.is_empty()
    }
}

/// How far a log was read.
#[derive(Debug)]
pub(in crate::watch) struct Position {
    at: At,
    text: bool,
    /// Where it began: the last entry that is not to be told.
    start: Option<Box<str>>,
    seen: Seen,
    /// What was seen before was given back.
    forgot: bool,
    /// Entries that stand before this were told, or are not to be.
    floor: Option<Order>,
    /// Nothing was read yet.
    fresh: bool,
}

impl Position {
    /// At this marker or offset; none is the start.
    pub(super) fn new(marker: Option<Box<str>>, text: bool) -> Self {
        Self {
            start: marker.clone(),
            at: At {
                marker,
                ..At::default()
            },
            text,
            seen: Seen::default(),
            forgot: false,
            floor: None,
            fresh: true,
        }
    }

    /// Behind all of the newest page: none of it is new.
    pub(super) fn behind(page: Page) -> Self {
        let mut position = Self::new(None, false);
        position.fresh = false;
        if !page.last {
            position.floor = page.entries.first().and_then(|entry| entry.order.clone());
        }
        for entry in &page.entries {
            position.seen.insert(entry);
        }
        position.at.marker = page.entries.into_iter().next_back().map(|entry| entry.key);
        position
    }

    pub(super) fn at(&self) -> At {
        self.at.clone()
    }

    /// The marker to resume from; empty at the start.
    pub(super) fn marker(&self) -> &str {
        self.at.marker.as_deref().unwrap_or_default()
    }

    /// The offset of a text.
    pub(super) fn offset(&self) -> u64 {
        offset(self.marker())
    }

    /// What sets its tail apart: that of a text begins where its first reader does,
    /// perhaps far behind the end, where it has nothing for those before.
    pub(super) fn discriminator(&self) -> Vec<u8> {
        match self.text && self.offset() > 0 {
            true => self.marker().into(),
            false => Vec::new(),
        }
    }

    /// Goes behind the page: what of it is new.
    pub(super) fn take(&mut self, mut page: Page) -> New {
        if self.text {
            let from = self.offset();
            page.entries.retain(|entry| offset(&entry.key) > from);
            if let Some(next) = page.next {
                self.at = next;
            }
            return New {
                late: Vec::new(),
                entries: page.entries,
            };
        }
        let fresh = std::mem::replace(&mut self.fresh, false);
        let mut late = 0;
        if page.whole {
            // It comes again with every read.
            self.seen.room = self.seen.room.max(REMEMBERED + page.entries.len());
            let is_marker = |entry: &Entry| Some(&entry.key) == self.at.marker.as_ref();
            late = page
                .entries
                .iter()
                .position(is_marker)
                .map_or(0, |at| at + 1);
            if self.forgot {
                // Told, or the tail tells it as late.
                page.entries.drain(..std::mem::take(&mut late));
            }
        }
        if fresh {
            for entry in page.entries.drain(..std::mem::take(&mut late)) {
                self.seen.insert(&entry);
            }
            if self.at.marker.is_some() {
                // What an upstream repeats from before the marker is not wanted.
                self.floor = page.entries.first().and_then(|entry| entry.order.clone());
            }
        }
        if let Some(last) = page.entries.last() {
            self.at.marker = Some(last.key.clone());
        }
        let mut new = New::default();
        for (number, entry) in page.entries.into_iter().enumerate() {
            let told = entry.order.is_some() && entry.order < self.floor;
            // A late one stands low and is new all the same.
            if (told && number >= late) || !self.seen.insert(&entry) {
                continue;
            }
            if let Some(forgotten) = self.seen.overflow() {
                self.floor = self.floor.take().max(forgotten);
            }
            match number < late {
                true => new.late.push(entry),
                false => new.entries.push(entry),
            }
        }
        new
    }

    /// What of the newest page is new; the position stays.
    pub(super) fn look_back(&mut self, page: Page) -> Vec<Entry> {
        let mut entries = page.entries;
        entries.retain(|entry| self.seen.insert(entry));
        while let Some(forgotten) = self.seen.overflow() {
            self.floor = self.floor.take().max(forgotten);
        }
        entries
    }

    /// Whether an entry that came by the tail was told from a page.
    pub(super) fn has(&self, entry: &Entry) -> bool {
        if self.text {
            return offset(&entry.key) <= self.offset();
        }
        self.seen.has(entry)
    }

    /// Whether it is the one behind which this began.
    pub(super) fn began_behind(&self, entry: &Entry) -> bool {
        !self.text && self.start.as_ref() == Some(&entry.key)
    }

    /// An entry was told that came by the tail; a late one stands before what was
    /// told already.
    pub(super) fn tell(&mut self, entry: &Entry, late: bool) {
        if late {
            self.seen.insert(entry);
            return;
        }
        self.at.marker = Some(entry.key.clone());
        self.fresh = false;
        if entry.order.is_some() {
            self.floor = self.floor.take().max(entry.order.clone());
        }
    }

    /// Gives back the memory of what was told: the tail does not repeat it.
    pub(super) fn forget(&mut self) {
        self.forgot = true;
        self.seen = Seen::default();
    }
}

/// The offset that a marker of a text stands for.
pub(super) fn offset(marker: &str) -> u64 {
    marker.parse().unwrap_or_default()
}

/// Keys that were told, the oldest forgotten first.
#[derive(Debug)]
struct Seen {
    keys: HashSet<u128>,
    order: VecDeque<(u128, Option<Order>)>,
    /// How many are remembered.
    room: usize,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            keys: HashSet::new(),
            order: VecDeque::new(),
            room: REMEMBERED,
        }
    }
}

impl Seen {
    /// False when it was there.
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

    /// Forgets what is too much: where that stood.
    fn overflow(&mut self) -> Option<Option<Order>> {
        if self.order.len() <= self.room {
            return None;
        }
        let (key, order) = self.order.pop_front()?;
        self.keys.remove(&key);
        Some(order)
    }
}

/// Long enough that two keys never share one.
fn digest(key: &str) -> u128 {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, key).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}
