//! Reads a list page after page.
//!
//! A [`PageCursor`] says how the next page is requested and does no I/O. The [`Pager`] makes
//! the calls, bounds their number and detects repeated pages: an API that ignores the paging
//! parameters returns its first page again and again. A log reader keeps its position from
//! poll to poll and uses a [`ProgressGuard`] instead.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use tonic::Code;

use super::call_context::CallContext;
use crate::error::Error;
use crate::http_client::not_delivered;
use crate::memory::{Memory, Reservation};
use drawbridge_transcoder::call::Call;
use drawbridge_transcoder::contract::{
    Check, Decoded, MergePages, MergedPages, Method, PageRequest, Paging,
};
use drawbridge_transcoder::json::Notes;

/// Limit of consecutive log pages without new entries.
const MAX_IDLE_PAGES: u32 = 10_000;

/// Decides which page is requested next.
pub trait PageCursor: Send + Sync {
    /// Returns the rpc that reads a page.
    fn method(&self) -> &Method;

    /// Returns the call of the next page; `None` after the last one.
    fn next_call(&mut self, dialect: &str) -> Result<Option<Call>, Error>;

    /// Moves past a page and returns its items.
    fn advance(&mut self, page: &Decoded) -> Result<Vec<Bytes>, Error>;

    /// Returns whether NOT_FOUND in response to the last call is the end of the list.
    fn ends_at_not_found(&self) -> bool {
        false
    }

    /// Returns the list and the request of the first page, until it is read, where the walk
    /// does not begin at the list's first page: whether NOT_FOUND is the end of the list is
    /// then not known.
    fn list_before_first(&self) -> Result<Option<ListPage<'_>>, Error> {
        Ok(None)
    }

    /// Returns the key of an item; `None` where nothing identifies it.
    fn key(&self, _item: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(None)
    }
}

/// A page of a list: the rpc, its paging, what the request asks for, and the request.
pub type ListPage<'a> = (&'a Method, &'a Paging, PageRequest, Bytes);

/// What the pager does with a repeated page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRepeat {
    /// Fails with [`Error::ListRestarted`]. If only some items repeat those of the previous
    /// page, the list has shifted: they are removed.
    Fail,
    /// Ends the walk without the repeated page. An empty page after the first ends it, too.
    /// All items are kept to compare them, so the walk must be bounded.
    End,
    /// Keeps the page: the cursor ends the walk by a count.
    Keep,
}

/// Fetches the pages of a list one at a time.
pub struct Pager<C> {
    cursor: C,
    repeats: Repeats,
    /// The most pages, and the error of a list that has more.
    limit: Option<(u32, Error)>,
    pages: u32,
    ended: bool,
}

/// A page of a list.
pub struct Page {
    /// The response message.
    pub message: Bytes,
    /// Its items, without repeated ones.
    pub items: Vec<Bytes>,
    /// What decoding it has noted.
    pub notes: Notes,
}

/// What is kept of the pages so far, by [`OnRepeat`].
enum Repeats {
    Fail(Box<SeenKeys>),
    End(Vec<Bytes>),
    Keep,
}

impl<C: PageCursor> Pager<C> {
    /// Creates a pager that begins where `cursor` is.
    pub fn new(cursor: C, on_repeat: OnRepeat) -> Self {
        Self {
            cursor,
            repeats: match on_repeat {
                OnRepeat::Fail => Repeats::Fail(Box::default()),
                OnRepeat::End => Repeats::End(Vec::new()),
                OnRepeat::Keep => Repeats::Keep,
            },
            limit: None,
            pages: 0,
            ended: false,
        }
    }

    /// Fails with `error` at the page after `max_pages`.
    #[must_use]
    pub fn with_limit(mut self, max_pages: u32, error: Error) -> Self {
        self.limit = Some((max_pages, error));
        self
    }

    /// Fetches the next page; `None` after the last one. A walk does not continue after an
    /// error.
    pub async fn next(&mut self, context: CallContext<'_>) -> Result<Option<Page>, Error> {
        if self.ended {
            return Ok(None);
        }
        let Some(call) = self.cursor.next_call(context.dialect())? else {
            return Ok(None);
        };
        if let Some((max_pages, error)) = &self.limit
            && self.pages >= *max_pages
        {
            return Err(error.clone());
        }
        let method = self.cursor.method();
        let reply = match context.call(method, &call).await {
            Err(error) if is_no_page(&error) => {
                let ends = match self.cursor.list_before_first()? {
                    None => self.cursor.ends_at_not_found(),
                    Some((method, paging, requested, request)) => {
                        is_behind_the_last(context, method, paging, requested, &request).await?
                    }
                };
                if !ends {
                    return Err(error);
                }
                self.ended = true;
                return Ok(None);
            }
            reply => reply?,
        };
        let page = context.decode(method, (&call.verb, call.effect()), &reply)?;
        let items = self.cursor.advance(&page)?;
        let items = match &mut self.repeats {
            Repeats::Fail(seen) => seen.filter(items, |item| self.cursor.key(item))?,
            Repeats::End(seen) if self.pages > 0 && seen.ends_with(&items) => {
                self.ended = true;
                return Ok(None);
            }
            Repeats::End(seen) => {
                seen.extend_from_slice(&items);
                items
            }
            Repeats::Keep => items,
        };
        self.pages = self.pages.saturating_add(1);
        Ok(Some(Page {
            message: page.message,
            items,
            notes: page.notes,
        }))
    }

    /// Whether there are no more pages.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Returns the cursor.
    pub fn cursor(&self) -> &C {
        &self.cursor
    }

    /// Returns the cursor, with what it has collected.
    pub fn into_cursor(self) -> C {
        self.cursor
    }
}

/// Whether the upstream says that the page does not exist.
pub(super) fn is_no_page(error: &Error) -> bool {
    matches!(error, Error::Upstream(fault)
        if fault.code == Code::NotFound && fault.http_status == 404)
}

/// Whether a page that does not exist follows the last one, which did not show that it is the
/// last one. Reads the page before: whether it has a total is not known here.
pub(super) async fn is_behind_the_last(
    context: CallContext<'_>,
    method: &Method,
    paging: &Paging,
    requested: PageRequest,
    request: &Bytes,
) -> Result<bool, Error> {
    let dialect = context.dialect();
    let Some(before) = paging.page_before(request, requested) else {
        return Ok(false);
    };
    let requested = paging.page_request(&before, dialect)?;
    let call = method.bind(&before, dialect)?;
    let (verb, effect) = (call.verb.clone(), call.effect());
    let reply = match context.call(method, &call).await {
        Err(error) if is_no_page(&error) => return Ok(false),
        reply => reply?,
    };
    let page = context.decode(method, (&verb, effect), &reply)?.message;
    let following = paging.following(requested, &page, None)?;
    Ok(following.token.is_some() && !following.by_total)
}

/// The keys that reveal that a list has started over: those of three pages, however long the
/// list is.
#[derive(Default)]
struct SeenKeys {
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
    /// Removes the items of the previous page. Fails with [`Error::ListRestarted`] if nothing
    /// is left, if an item of an older page is among them, or if a page of items without keys
    /// equals the previous one.
    fn filter(
        &mut self,
        items: Vec<Bytes>,
        key: impl Fn(&[u8]) -> Result<Option<Vec<u8>>, Error>,
    ) -> Result<Vec<Bytes>, Error> {
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
            return Err(Error::ListRestarted);
        }
        self.pages += 1;
        match self.pages {
            1 => self.first.clone_from(&keys),
            pages if pages.is_power_of_two() => self.checkpoint.clone_from(&keys),
            _ => {}
        }
        self.previous = keys;
        self.previous_digest = digest;
        Ok(new)
    }
}

/// Walks a list by `drawbridge.v1.Paging`: the token of a page is in its request.
pub struct TokenCursor {
    method: Arc<Method>,
    /// The request of the first page.
    request: Bytes,
    /// What the page that is being read was requested with.
    requested: Option<PageRequest>,
    /// Items of the pages so far, where the walk began at the first one.
    before: Option<u64>,
    /// The last page had a total by which more items follow.
    by_total: Option<bool>,
    next: Next,
    prepare: fn(Call) -> Call,
}

/// Where the next page starts.
enum Next {
    First,
    At(String),
    End,
}

impl TokenCursor {
    /// Creates a cursor at the first page of `request`. The method has `paging`, or names
    /// in `pages` a list that has it.
    pub fn new(method: Arc<Method>, request: Bytes) -> Result<Self, Error> {
        let request = match &method.pages {
            Some(pages) => pages.first(&request)?,
            None => request,
        };
        let cursor = Self {
            method,
            request,
            requested: None,
            before: None,
            by_total: None,
            next: Next::First,
            prepare: |call| call,
        };
        cursor.paging()?;
        Ok(cursor)
    }

    /// Changes each call by `prepare` before it is made.
    #[must_use]
    pub fn with_prepare(self, prepare: fn(Call) -> Call) -> Self {
        Self { prepare, ..self }
    }

    /// Whether the last page was read.
    pub fn is_at_end(&self) -> bool {
        matches!(self.next, Next::End)
    }

    fn paging(&self) -> Result<&Paging, Error> {
        let paging = match &self.method.pages {
            Some(pages) => pages.list.paging.as_ref(),
            None => self.method.paging.as_ref(),
        };
        paging.ok_or_else(|| Error::Malformed(format!("{} has no pages", self.method.path)))
    }

    fn request_at(&self, token: &str) -> Result<Bytes, Error> {
        Ok(match &self.method.pages {
            Some(pages) => pages.at(&self.request, token),
            None => self.paging()?.at(&self.request, token),
        })
    }
}

impl PageCursor for TokenCursor {
    fn method(&self) -> &Method {
        &self.method
    }

    fn next_call(&mut self, dialect: &str) -> Result<Option<Call>, Error> {
        let request = match &self.next {
            Next::First => self.request.clone(),
            Next::At(token) => self.request_at(token)?,
            Next::End => return Ok(None),
        };
        let listed = self.method.polled_request(&request)?;
        let listed = listed.as_ref().unwrap_or(&request);
        let requested = self.paging()?.page_request(listed, dialect)?;
        if matches!(self.next, Next::First) {
            self.before = self.paging()?.items_before(requested);
        }
        self.requested = Some(requested);
        let call = self.method.bind(&request, dialect)?;
        Ok(Some((self.prepare)(call)))
    }

    fn advance(&mut self, page: &Decoded) -> Result<Vec<Bytes>, Error> {
        let paging = self.paging()?;
        let following = match self.requested {
            Some(requested) => Some(paging.following(requested, &page.message, self.before)?),
            None => None,
        };
        let items = paging.items(&page.message)?;
        self.before = self.before.map(|before| before + items.len() as u64);
        self.by_total = following.as_ref().map(|following| following.by_total);
        let token = following.and_then(|following| following.token);
        self.next = token.map_or(Next::End, Next::At);
        Ok(items)
    }

    fn ends_at_not_found(&self) -> bool {
        let paging = self.paging();
        matches!((paging, self.requested), (Ok(paging), Some(requested))
            if paging.ends_before(requested, self.by_total))
    }

    fn list_before_first(&self) -> Result<Option<ListPage<'_>>, Error> {
        let (Some(requested), None) = (self.requested, self.by_total) else {
            return Ok(None);
        };
        let listed = self.method.polled_request(&self.request)?;
        let request = listed.unwrap_or_else(|| self.request.clone());
        let list = match &self.method.pages {
            Some(pages) => &*pages.list,
            None => &*self.method,
        };
        Ok(Some((list, self.paging()?, requested, request)))
    }

    fn key(&self, item: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.paging()?.key(item)?)
    }
}

/// Walks the definitions of a [`Check`] by page number: a short page is the last.
pub struct NumberCursor<'a> {
    check: &'a Check,
    definitions: &'a Method,
    /// The request whose values are checked.
    request: &'a [u8],
    /// The page that is read next, from 1.
    page: u32,
    is_at_end: bool,
}

impl<'a> NumberCursor<'a> {
    /// Creates a cursor at page 1.
    pub fn new(check: &'a Check, definitions: &'a Method, request: &'a [u8]) -> Self {
        Self {
            check,
            definitions,
            request,
            page: 1,
            is_at_end: false,
        }
    }
}

impl PageCursor for NumberCursor<'_> {
    fn method(&self) -> &Method {
        self.definitions
    }

    fn next_call(&mut self, dialect: &str) -> Result<Option<Call>, Error> {
        if self.is_at_end {
            return Ok(None);
        }
        let definitions = self.definitions;
        let request = self.check.page(definitions, self.request, self.page)?;
        Ok(Some(definitions.bind(&request, dialect)?))
    }

    fn advance(&mut self, page: &Decoded) -> Result<Vec<Bytes>, Error> {
        let items = self.check.items(self.definitions, &page.message)?;
        self.is_at_end = items.len() < Check::PAGE_SIZE;
        self.page += 1;
        Ok(items)
    }
}

/// Walks a list by `drawbridge.v1.MergePages`: by offset, until as many items are merged
/// as the first page has announced. The transcoder bounds pages and bytes.
pub struct MergeCursor<'a> {
    method: &'a Method,
    rule: &'a MergePages,
    /// The call of the first page.
    first: &'a Call,
    merged: MergedPages,
    /// For the merged message, whose buffer may be twice as long.
    reservation: Reservation,
    merged_bytes: usize,
    is_at_end: bool,
}

impl<'a> MergeCursor<'a> {
    /// Creates a cursor after the first page. `None` if it is the only one, or the client
    /// requested a single page.
    pub fn after_first(
        method: &'a Method,
        rule: &'a MergePages,
        first: &'a Call,
        page: &Decoded,
        memory: &Memory,
    ) -> Result<Option<Self>, Error> {
        let merged_bytes = page.message.len();
        let reservation = memory
            .reserve_long(2 * merged_bytes)
            .map_err(not_delivered)?;
        let merged = rule.begin(method, first, page)?;
        Ok(merged.map(|merged| Self {
            method,
            rule,
            first,
            merged,
            reservation,
            merged_bytes,
            is_at_end: false,
        }))
    }

    /// Returns the response with all items.
    pub fn into_merged(self) -> Decoded {
        let mut decoded = self.merged.finish();
        decoded.message = self.reservation.attach(decoded.message);
        decoded
    }
}

impl PageCursor for MergeCursor<'_> {
    fn method(&self) -> &Method {
        self.method
    }

    fn next_call(&mut self, _dialect: &str) -> Result<Option<Call>, Error> {
        if self.is_at_end {
            return Ok(None);
        }
        Ok(Some(self.rule.next(self.first, &self.merged)?))
    }

    fn advance(&mut self, page: &Decoded) -> Result<Vec<Bytes>, Error> {
        self.merged_bytes += page.message.len();
        let resized = self.reservation.resize_long(2 * self.merged_bytes);
        resized.map_err(not_delivered)?;
        let page = Decoded {
            message: page.message.clone(),
            notes: page.notes.clone(),
        };
        self.is_at_end = self.rule.add(self.method, &mut self.merged, page)?;
        // The items are in the merged message.
        Ok(Vec::new())
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
    fn repeated_page_without_keys_is_an_error() {
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
            let new = seen.filter(page(ids), key).unwrap();
            assert_eq!(new.len(), ids.len(), "items without keys may repeat");
        }
        let error = seen.filter(page(&["b", "b"]), key).unwrap_err();
        assert!(matches!(error, Error::ListRestarted), "{error:?}");
    }

    #[test]
    fn items_of_older_pages_are_an_error() {
        let key = |item: &[u8]| Ok(Some(item.to_vec()));
        for (pages, want) in [
            (&[&["a", "b"][..], &["b", "c"], &["d"]][..], Some(vec!["d"])),
            (&[&["a"], &["a"]], None),
            (&[&["a"], &["b"], &["a"]], None),
            (&[&["a"], &["b"], &["c"], &["b"]], None),
            (&[&["a"], &[], &["b"]], Some(vec!["b"])),
        ] {
            let mut seen = SeenKeys::default();
            let last = pages.iter().map(|ids| seen.filter(page(ids), key)).last();
            match (last.unwrap(), &want) {
                (Ok(items), Some(want)) => assert_eq!(&items, want, "{pages:?}"),
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
