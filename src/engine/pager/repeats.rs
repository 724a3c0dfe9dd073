//! Detects lists and logs that do not continue: an API that ignores the paging parameters
//! returns its first page again and again.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;

use crate::error::Error;

/// Limit of consecutive log pages without new entries.
const MAX_IDLE_PAGES: u32 = 10_000;

/// The keys that reveal that a list has started over: those of three pages, however long the
/// list is.
#[derive(Default)]
pub(super) struct SeenKeys {
    /// Those of the first page.
    first: HashSet<Vec<u8>>,
    /// Those of the previous page.
    previous: HashSet<Vec<u8>>,
    /// Those of page 2, then 4, 8, ... (Brent's cycle detection): a list that cycles returns
    /// to one of them.
    checkpoint: HashSet<Vec<u8>>,
    /// A digest of the previous page, if its items have no keys.
    previous_digest: Option<u64>,
    pages: u64,
}

impl SeenKeys {
    /// Removes the items of the previous page. None: nothing is left, or a page of items
    /// without keys equals the previous one. Fails with [`Error::ListRestarted`] if an item
    /// of an older page is among them.
    pub(super) fn filter(
        &mut self,
        items: Vec<Bytes>,
        key: impl Fn(&[u8]) -> Result<Option<Vec<u8>>, Error>,
    ) -> Result<Option<Vec<Bytes>>, Error> {
        let count = items.len();
        let mut keys = HashSet::with_capacity(count);
        let mut new = Vec::with_capacity(count);
        let mut hasher = DefaultHasher::new();
        let mut any_without_key = false;
        for item in items {
            let Some(key) = key(&item)? else {
                item.hash(&mut hasher);
                any_without_key = true;
                new.push(item);
                continue;
            };
            let shifted = self.previous.contains(&key) || keys.contains(&key);
            if !shifted && (self.first.contains(&key) || self.checkpoint.contains(&key)) {
                return Err(Error::ListRestarted);
            }
            if !shifted {
                new.push(item);
            }
            keys.insert(key);
        }
        let digest = any_without_key.then(|| hasher.finish());
        let is_repeated = new.is_empty() || any_without_key && digest == self.previous_digest;
        if count > 0 && is_repeated {
            return Ok(None);
        }
        self.pages += 1;
        match self.pages {
            1 => self.first.clone_from(&keys),
            pages if pages.is_power_of_two() => self.checkpoint.clone_from(&keys),
            _ => {}
        }
        self.previous = keys;
        self.previous_digest = digest;
        Ok(Some(new))
    }
}

/// Detects a log that does not continue after its marker.
#[derive(Debug, Default)]
pub struct ProgressGuard {
    /// Pages in a row without new entries.
    idle_pages: u32,
}

/// What one page of a log has brought.
#[derive(Clone, Copy, Debug)]
pub struct PageProgress {
    /// The log ends with the page.
    pub is_last: bool,
    /// The page has no entries.
    pub is_empty: bool,
    /// The page has entries that no page before had.
    pub has_new: bool,
    /// The next page starts elsewhere than this one.
    pub has_moved: bool,
}

impl ProgressGuard {
    /// Counts a page. Fails where another page without new entries follows and the marker
    /// has not moved, or has moved too often without them.
    pub fn check(&mut self, page: PageProgress) -> Result<(), Error> {
        self.idle_pages = match page.has_new {
            true => 0,
            false => self.idle_pages + 1,
        };
        let continues = self.idle_pages < MAX_IDLE_PAGES && !page.is_empty && page.has_moved;
        if page.is_last || page.has_new || continues {
            return Ok(());
        }
        Err(Error::decode(
            "",
            "the list does not continue after its marker: the upstream may ignore paging",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_contract::{TestContract, proto};

    fn page(ids: &[&'static str]) -> Vec<Bytes> {
        ids.iter().map(|id| Bytes::from(*id)).collect()
    }

    #[test]
    fn repeated_page_without_keys_is_detected() {
        let test = TestContract::new(&proto(
            r#"service S {
              rpc List(ListRequest) returns (ListResponse) {
                option (google.api.http) = {get: "/v1/things"};
                option (drawbridge.v1.method).paging = {
                  style: PAGING_STYLE_OFFSET items: "things"
                };
                option idempotency_level = NO_SIDE_EFFECTS;
              }
            }
            message ListRequest {
              int32 page_size = 2 [(drawbridge.v1.field).name = "limit"];
              string page_token = 3 [(drawbridge.v1.field).name = "start"];
            }
            message ListResponse {
              repeated Thing things = 1;
              string next_page_token = 9 [(drawbridge.v1.field).gateway_only = true];
            }
            message Thing { string id = 1; }"#,
        ));
        let paging = test.rpc("List").paging.as_ref().unwrap();
        let key = |item: &[u8]| Ok(paging.key(item)?);
        let mut seen = SeenKeys::default();
        for ids in [&["a", "b"][..], &["b", "a"], &["b", "b"], &[], &["b", "b"]] {
            let new = seen.filter(page(ids), key).unwrap().unwrap();
            assert_eq!(new.len(), ids.len(), "items without keys may repeat");
        }
        assert_eq!(seen.filter(page(&["b", "b"]), key).unwrap(), None);
    }

    #[test]
    fn items_of_older_pages_are_an_error() {
        let key = |item: &[u8]| Ok(Some(item.to_vec()));
        for (pages, want) in [
            (
                &[&["a", "b"][..], &["b", "c"], &["d"]][..],
                Some(Some(vec!["d"])),
            ),
            (&[&["a"], &["a"]], Some(None)),
            (&[&["a"], &["b"], &["a"]], None),
            (&[&["a"], &["b"], &["c"], &["b"]], None),
            (&[&["a"], &[], &["b"]], Some(Some(vec!["b"]))),
        ] {
            let mut seen = SeenKeys::default();
            let last = pages.iter().map(|ids| seen.filter(page(ids), key)).last();
            match (last.unwrap(), &want) {
                (Ok(None), Some(None)) => {}
                (Ok(Some(items)), Some(Some(want))) => assert_eq!(&items, want, "{pages:?}"),
                (Err(Error::ListRestarted), None) => {}
                (got, _) => panic!("{pages:?}: {got:?}"),
            }
        }
    }

    #[test]
    fn log_without_progress_is_an_error() {
        let idle = PageProgress {
            is_last: false,
            is_empty: false,
            has_new: false,
            has_moved: true,
        };
        let mut guard = ProgressGuard::default();
        for _ in 1..MAX_IDLE_PAGES {
            guard.check(idle).unwrap();
        }
        guard.check(idle).unwrap_err();
        for (page, ok) in [
            (
                PageProgress {
                    is_last: true,
                    is_empty: true,
                    ..idle
                },
                true,
            ),
            (
                PageProgress {
                    has_new: true,
                    has_moved: false,
                    ..idle
                },
                true,
            ),
            (
                PageProgress {
                    is_empty: true,
                    ..idle
                },
                false,
            ),
            (
                PageProgress {
                    has_moved: false,
                    ..idle
                },
                false,
            ),
        ] {
            assert_eq!(ProgressGuard::default().check(page).is_ok(), ok, "{page:?}");
        }
    }
}
