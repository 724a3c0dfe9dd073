//! The items that one poll has read, and the difference between two polls.

use std::collections::HashSet;
use std::time::SystemTime;

use bytes::Bytes;

use crate::memory::Reservation;
use drawbridge_transcoder::api::drawbridge::v1::WatchEventType;
use drawbridge_transcoder::contract::Outcome;

/// The memory of an item besides its bytes and those of its key.
pub(super) const ITEM_BYTES: usize = 256;

/// A watched resource as a poll has read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// Identifies the item in a list; empty when one resource is watched.
    pub(super) key: Box<str>,
    /// The encoded message; none if only `side` describes the resource.
    pub(super) bytes: Option<Bytes>,
    /// Further encoded fields of the stream's message, from side reads or the fallback.
    pub(super) side: Bytes,
    /// SUCCEEDED or FAILED once the item is final.
    pub(super) outcome: Outcome,
    /// The state is about to change: the next poll comes after the shortest pause.
    pub(super) poll_soon: bool,
    /// The item is final, but its further fields could not be read.
    pub(super) incomplete: bool,
}

impl Item {
    /// Returns the length of what a message has of it.
    pub(super) fn bytes_len(&self) -> usize {
        self.bytes.as_ref().map_or(0, Bytes::len) + self.side.len()
    }

    /// Whether both are sent alike.
    fn is_sent_as(&self, other: &Self) -> bool {
        let state = |item: &Self| (item.outcome, item.incomplete);
        (&self.bytes, &self.side, state(self)) == (&other.bytes, &other.side, state(other))
    }
}

/// All items of one poll, with distinct keys.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// Counts the snapshots of a loop that differ.
    pub(super) seq: u64,
    /// The items, in the upstream's order.
    pub(super) items: Vec<Item>,
    /// When a poll has read this state first.
    pub(super) observed_at: SystemTime,
    /// Indices of `items`, sorted by key.
    by_key: Vec<u32>,
    /// The memory of the items, besides their bytes.
    reservation: Reservation,
}

impl Snapshot {
    /// Keeps the last one of several items with the same key.
    pub(super) fn new(seq: u64, mut items: Vec<Item>, observed_at: SystemTime) -> Self {
        let key = |index: u32| &*items[index as usize].key;
        let mut by_key: Vec<u32> = (0..items.len() as u32).collect();
        by_key.sort_unstable_by(|&a, &b| key(a).cmp(key(b)).then(a.cmp(&b)));
        let shadowed: Vec<u32> = by_key
            .windows(2)
            .filter(|pair| key(pair[0]) == key(pair[1]))
            .map(|pair| pair[0])
            .collect();
        if shadowed.is_empty() {
            return Self {
                seq,
                items,
                observed_at,
                by_key,
                reservation: Reservation::default(),
            };
        }
        let mut keep = vec![true; items.len()];
        for index in shadowed {
            keep[index as usize] = false;
        }
        let mut keep = keep.into_iter();
        items.retain(|_| keep.next().unwrap_or(true));
        Self::new(seq, items, observed_at)
    }

    /// Keeps the memory of its items, so many times [`ITEM_BYTES`].
    pub(super) fn with_memory(mut self, reservation: Reservation) -> Self {
        self.reservation = reservation;
        self
    }

    /// Whether a poll has read these very items. Cheaper than a difference, which needs a
    /// snapshot of them first.
    pub(super) fn has_items(&self, items: &[Item]) -> bool {
        self.items == items
    }

    /// Replaces the bytes of items that are equivalent to the old ones by the old bytes,
    /// so that another order, such as that of JSON members, is not a change.
    pub(super) fn reuse_bytes(
        &self,
        items: &mut [Item],
        is_equivalent: impl Fn(&Item, &Item) -> bool,
    ) {
        for (index, item) in items.iter_mut().enumerate() {
            if let Some(old) = self.find(&item.key, index)
                && !old.is_sent_as(item)
                && is_equivalent(old, item)
            {
                item.bytes.clone_from(&old.bytes);
                item.side.clone_from(&old.side);
            }
        }
    }

    /// Adds to `items` those of this snapshot that they lack and the read before did not:
    /// one read of a list may come from an older replica, so an item is deleted only when two
    /// reads in a row lack it. `lacked` has the keys of the added items, from read to read.
    /// Returns whether there are any.
    pub(super) fn keep_unconfirmed(
        &self,
        items: &mut Vec<Item>,
        lacked: &mut HashSet<Box<str>>,
    ) -> bool {
        let before = std::mem::take(lacked);
        let mut hints = items.iter();
        let is_complete = self.items.iter().all(|item| {
            let hint = hints.next();
            hint.is_some_and(|hint| hint.key == item.key)
        });
        if is_complete {
            return false;
        }
        let present: HashSet<&str> = items.iter().map(|item| &*item.key).collect();
        let lacking = self
            .items
            .iter()
            .filter(|item| !present.contains(&*item.key));
        let kept = lacking.filter(|item| !before.contains(&item.key));
        let kept: Vec<Item> = kept.cloned().collect();
        lacked.extend(kept.iter().map(|item| item.key.clone()));
        items.extend(kept);
        !lacked.is_empty()
    }

    /// Returns the outcome of a single watched resource. Lists are never final.
    pub(super) fn outcome(&self) -> Outcome {
        match &self.items[..] {
            [item] => item.outcome,
            _ => Outcome::Pending,
        }
    }

    /// Returns the number of steps of the difference between `before` and `self`.
    pub(super) fn diff_len(&self, before: &Self) -> usize {
        self.items.len() + before.items.len()
    }

    /// Returns one step of the difference between `before` and `self`, if it is a change:
    /// first the items of `self`, in order, then those that only `before` has. The order
    /// of items is not a difference.
    pub(super) fn diff_at<'a>(
        &'a self,
        before: &'a Self,
        step: usize,
    ) -> Option<(WatchEventType, &'a Item)> {
        if let Some(item) = self.items.get(step) {
            return match before.find(&item.key, step) {
                None => Some((WatchEventType::Added, item)),
                Some(old) if !old.is_sent_as(item) => Some((WatchEventType::Modified, item)),
                Some(_) => None,
            };
        }
        let index = step - self.items.len();
        let item = before.items.get(index)?;
        match self.find(&item.key, index) {
            None => Some((WatchEventType::Deleted, item)),
            Some(_) => None,
        }
    }

    /// Returns the item of this key. Tries the index `hint` first, which is mostly right.
    fn find(&self, key: &str, hint: usize) -> Option<&Item> {
        if let Some(item) = self.items.get(hint).filter(|item| &*item.key == key) {
            return Some(item);
        }
        let at = self
            .by_key
            .binary_search_by(|&index| (*self.items[index as usize].key).cmp(key))
            .ok()?;
        Some(&self.items[self.by_key[at] as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::WatchEventType::{Added, Deleted, Modified};
    use super::*;

    fn snapshot(items: &[(&str, &'static str)]) -> Snapshot {
        let items = items
            .iter()
            .map(|&(key, text)| Item {
                key: key.into(),
                bytes: Some(Bytes::from_static(text.as_bytes())),
                side: Bytes::new(),
                outcome: Outcome::Pending,
                poll_soon: false,
                incomplete: false,
            })
            .collect();
        Snapshot::new(0, items, SystemTime::UNIX_EPOCH)
    }

    fn text(item: &Item) -> &str {
        std::str::from_utf8(item.bytes.as_ref().unwrap()).unwrap()
    }

    #[test]
    fn differences_are_added_modified_and_deleted_items() {
        let old = [("a", "1"), ("b", "1"), ("c", "1")];
        for (name, new, want) in [
            ("unchanged", &old[..], vec![]),
            (
                "another order",
                &[("c", "1"), ("a", "1"), ("b", "1")],
                vec![],
            ),
            (
                "one change of each kind",
                &[("d", "1"), ("c", "1"), ("b", "2")],
                vec![(Added, "d", "1"), (Modified, "b", "2"), (Deleted, "a", "1")],
            ),
            (
                "all deleted",
                &[],
                vec![
                    (Deleted, "a", "1"),
                    (Deleted, "b", "1"),
                    (Deleted, "c", "1"),
                ],
            ),
            (
                "a duplicate key",
                &[("a", "7"), ("b", "1"), ("a", "1"), ("c", "1")],
                vec![],
            ),
            (
                "a duplicate key, the last one modified",
                &[("a", "1"), ("b", "1"), ("c", "1"), ("a", "8"), ("a", "9")],
                vec![(Modified, "a", "9")],
            ),
        ] {
            let (before, after) = (snapshot(&old), snapshot(new));
            let got: Vec<_> = (0..after.diff_len(&before))
                .filter_map(|step| after.diff_at(&before, step))
                .map(|(kind, item)| (kind, &*item.key, text(item)))
                .collect();
            assert_eq!(got, want, "{name}");
        }
    }

    #[test]
    fn item_is_deleted_when_two_reads_in_a_row_lack_it() {
        let mut lacked = HashSet::new();
        let mut last = snapshot(&[("a", "1"), ("b", "1"), ("c", "1")]);
        for (read, want, unconfirmed) in [
            (&["b", "a", "c"][..], "b a c", false),
            (&["b", "c"], "b c a", true),
            (&["b", "c", "a"], "b c a", false),
            (&["c"], "c b a", true),
            // `b` is back and is lacked again; `a` is deleted.
            (&["c", "b"], "c b", false),
            (&["c"], "c b", true),
            (&["d", "c"], "d c", false),
            (&[], "d c", true),
            (&[], "", false),
        ] {
            let items: Vec<_> = read.iter().map(|key| (*key, "1")).collect();
            let mut items = snapshot(&items).items;
            let kept = last.keep_unconfirmed(&mut items, &mut lacked);
            let keys: Vec<_> = items.iter().map(|item| &*item.key).collect();
            assert_eq!((&*keys.join(" "), kept), (want, unconfirmed), "{read:?}");
            last = Snapshot::new(0, items, SystemTime::UNIX_EPOCH);
        }
    }

    #[test]
    fn last_item_of_a_key_is_kept_at_its_index() {
        let got = snapshot(&[("a", "1"), ("b", "1"), ("a", "2"), ("c", "1")]);
        let keys: Vec<_> = got.items.iter().map(|item| &*item.key).collect();
        assert_eq!(keys, ["b", "a", "c"]);
        assert_eq!(text(got.find("a", 9).unwrap()), "2");
        assert!(got.find("d", 0).is_none());
    }

    #[test]
    fn side_reads_and_outcome_are_part_of_the_difference() {
        let before = snapshot(&[("a", "1")]);
        let changes: [fn(&mut Item); 3] = [
            |item| item.side = Bytes::from_static(b"x"),
            |item| item.outcome = Outcome::Succeeded,
            |item| item.bytes = None,
        ];
        for change in changes {
            let mut after = snapshot(&[("a", "1")]);
            change(&mut after.items[0]);
            let (kind, _) = after.diff_at(&before, 0).unwrap();
            assert_eq!(kind, Modified);
        }
        let mut poll_soon = snapshot(&[("a", "1")]);
        poll_soon.items[0].poll_soon = true;
        assert!(poll_soon.diff_at(&before, 0).is_none());
    }

    #[test]
    fn equivalent_item_keeps_its_bytes() {
        let before = snapshot(&[("a", "1 2"), ("b", "1 2")]);
        let mut after = snapshot(&[("b", "2 1"), ("a", "2 2"), ("c", "1 2")]).items;
        let sorted = |item: &Item| {
            let mut words: Vec<_> = text(item).split(' ').collect();
            words.sort_unstable();
            words.join(" ")
        };
        before.reuse_bytes(&mut after, |old, new| sorted(old) == sorted(new));
        let texts: Vec<_> = after.iter().map(text).collect();
        assert_eq!(texts, ["1 2", "2 2", "1 2"]);
    }
}
