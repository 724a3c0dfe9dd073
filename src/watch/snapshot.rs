//! What one read brought, and how two reads differ.

use std::time::SystemTime;

use bytes::Bytes;

use drawbridge_transcoder::api::drawbridge::v1::WatchEventType;
use drawbridge_transcoder::contract::Outcome;

/// A watched thing as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// What identifies it in a list; empty where one thing alone is watched.
    pub(super) key: Box<str>,
    /// Its message, encoded; none where something else is told in its place.
    pub(super) bytes: Option<Bytes>,
    /// What is told together with it: further fields of the stream's message.
    pub(super) beside: Bytes,
    /// Whether it has settled.
    pub(super) outcome: Outcome,
    /// Its state is about to move: look again soon.
    pub(super) restless: bool,
}

impl Item {
    /// Whether both are told alike.
    fn is_told_as(&self, other: &Self) -> bool {
        (&self.bytes, &self.beside, self.outcome) == (&other.bytes, &other.beside, other.outcome)
    }
}

/// All items of one read, each key once.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// Counts the differing snapshots of a loop.
    pub(super) seq: u64,
    /// The items, in the upstream's order.
    pub(super) items: Vec<Item>,
    /// When this state was first read.
    pub(super) observed_at: SystemTime,
    /// Positions in `items`, sorted by key.
    by_key: Vec<u32>,
}

impl Snapshot {
    /// Of several items with the same key the last one counts.
    pub(super) fn new(seq: u64, mut items: Vec<Item>, observed_at: SystemTime) -> Self {
        let key = |at: u32| &*items[at as usize].key;
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
            };
        }
        let mut keep = vec![true; items.len()];
        for at in shadowed {
            keep[at as usize] = false;
        }
        let mut keep = keep.into_iter();
        items.retain(|_| keep.next().unwrap_or(true));
        Self::new(seq, items, observed_at)
    }

    /// Whether a read brought the very same items; a cheap look, before a
    /// snapshot is made of them.
    pub(super) fn is(&self, items: &[Item]) -> bool {
        self.items == items
    }

    /// Gives items that are told like before the very bytes they had, so that what
    /// comes in another order, as members of JSON may, is no change.
    pub(super) fn keep(&self, items: &mut [Item], alike: impl Fn(&Item, &Item) -> bool) {
        for (place, item) in items.iter_mut().enumerate() {
            if let Some(old) = self.find(&item.key, place)
                && !old.is_told_as(item)
                && alike(old, item)
            {
                item.bytes.clone_from(&old.bytes);
                item.beside.clone_from(&old.beside);
            }
        }
    }

    /// How the thing watched alone stands; lists do not settle.
    pub(super) fn outcome(&self) -> Outcome {
        match &self.items[..] {
            [item] => item.outcome,
            _ => Outcome::Pending,
        }
    }

    /// The number of places in which `self` may differ from `before`.
    pub(super) fn places(&self, before: &Self) -> usize {
        self.items.len() + before.items.len()
    }

    /// How `self` differs from `before` in one of its places: first the items
    /// that are there, in order, then those that are gone. Order is no difference.
    pub(super) fn difference<'a>(
        &'a self,
        before: &'a Self,
        place: usize,
    ) -> Option<(WatchEventType, &'a Item)> {
        if let Some(item) = self.items.get(place) {
            return match before.find(&item.key, place) {
                None => Some((WatchEventType::Added, item)),
                Some(old) if !old.is_told_as(item) => Some((WatchEventType::Modified, item)),
                Some(_) => None,
            };
        }
        let place = place - self.items.len();
        let item = before.items.get(place)?;
        match self.find(&item.key, place) {
            None => Some((WatchEventType::Deleted, item)),
            Some(_) => None,
        }
    }

    /// The item of this key; looked for at `near` first, where it mostly is.
    fn find(&self, key: &str, near: usize) -> Option<&Item> {
        if let Some(item) = self.items.get(near).filter(|item| &*item.key == key) {
            return Some(item);
        }
        let at = self
            .by_key
            .binary_search_by(|&at| (*self.items[at as usize].key).cmp(key))
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
                beside: Bytes::new(),
                outcome: Outcome::Pending,
                restless: false,
            })
            .collect();
        Snapshot::new(0, items, SystemTime::UNIX_EPOCH)
    }

    fn text(item: &Item) -> &str {
        std::str::from_utf8(item.bytes.as_ref().unwrap()).unwrap()
    }

    #[test]
    fn differences() {
        let old = [("a", "1"), ("b", "1"), ("c", "1")];
        for (name, new, want) in [
            ("the same", &old[..], vec![]),
            ("other order", &[("c", "1"), ("a", "1"), ("b", "1")], vec![]),
            (
                "one of each",
                &[("d", "1"), ("c", "1"), ("b", "2")],
                vec![(Added, "d", "1"), (Modified, "b", "2"), (Deleted, "a", "1")],
            ),
            (
                "all gone",
                &[],
                vec![
                    (Deleted, "a", "1"),
                    (Deleted, "b", "1"),
                    (Deleted, "c", "1"),
                ],
            ),
            (
                "twice the same key",
                &[("a", "7"), ("b", "1"), ("a", "1"), ("c", "1")],
                vec![],
            ),
            (
                "twice the same key, the last one new",
                &[("a", "1"), ("b", "1"), ("c", "1"), ("a", "8"), ("a", "9")],
                vec![(Modified, "a", "9")],
            ),
        ] {
            let (before, after) = (snapshot(&old), snapshot(new));
            let got: Vec<_> = (0..after.places(&before))
                .filter_map(|place| after.difference(&before, place))
                .map(|(kind, item)| (kind, &*item.key, text(item)))
                .collect();
            assert_eq!(got, want, "{name}");
        }
    }

    #[test]
    fn the_last_of_a_key_keeps_its_place() {
        let got = snapshot(&[("a", "1"), ("b", "1"), ("a", "2"), ("c", "1")]);
        let keys: Vec<_> = got.items.iter().map(|item| &*item.key).collect();
        assert_eq!(keys, ["b", "a", "c"]);
        assert_eq!(text(got.find("a", 9).unwrap()), "2");
        assert!(got.find("d", 0).is_none());
    }

    #[test]
    fn what_is_told_beside_and_the_outcome_differ_too() {
        let before = snapshot(&[("a", "1")]);
        let changes: [fn(&mut Item); 3] = [
            |item| item.beside = Bytes::from_static(b"x"),
            |item| item.outcome = Outcome::Succeeded,
            |item| item.bytes = None,
        ];
        for change in changes {
            let mut after = snapshot(&[("a", "1")]);
            change(&mut after.items[0]);
            let (kind, _) = after.difference(&before, 0).unwrap();
            assert_eq!(kind, Modified);
        }
        let mut restless = snapshot(&[("a", "1")]);
        restless.items[0].restless = true;
        assert!(restless.difference(&before, 0).is_none());
    }

    #[test]
    fn what_is_alike_keeps_its_bytes() {
        let before = snapshot(&[("a", "1 2"), ("b", "1 2")]);
        let mut after = snapshot(&[("b", "2 1"), ("a", "2 2"), ("c", "1 2")]).items;
        let sorted = |item: &Item| {
            let mut words: Vec<_> = text(item).split(' ').collect();
            words.sort_unstable();
            words.join(" ")
        };
        before.keep(&mut after, |old, new| sorted(old) == sorted(new));
        let texts: Vec<_> = after.iter().map(text).collect();
        assert_eq!(texts, ["1 2", "2 2", "1 2"]);
    }
}
