//! Reads a list page after page.
//!
//! A [`PageCursor`] says how the next page is requested and does no I/O. The [`Pager`] makes
//! the calls, bounds their number and detects repeated pages: an API that ignores the paging
//! parameters returns its first page again and again. A log reader keeps its position from
//! poll to poll and uses a [`ProgressGuard`] instead.

mod repeats;

use std::sync::Arc;

use bytes::Bytes;
use tonic::Code;

pub use self::repeats::{PageProgress, ProgressGuard};

use self::repeats::SeenKeys;
use super::call_context::CallContext;
use crate::error::Error;
use crate::http_client::not_delivered;
use crate::memory::{Memory, Reservation};
use drawbridge_transcoder::call::Call;
use drawbridge_transcoder::contract::{
    Check, Decoded, Following, MergePages, MergedPages, Method, PageRequest, PagesBefore, Paging,
};
use drawbridge_transcoder::json::Notes;

/// Decides which page is requested next.
pub trait PageCursor: Send + Sync {
    /// Returns the rpc that reads a page.
    fn method(&self) -> &Method;

    /// Returns how long the request of a page is, which becomes its call.
    fn request_bytes(&self) -> usize {
        0
    }

    /// Returns the call of the next page; `None` after the last one.
    fn next_call(&mut self, dialect: &str) -> Result<Option<Call>, Error>;

    /// Returns the number of items that [`Self::advance`] returns for a page.
    fn item_count(&self, _page: &Bytes) -> Result<u64, Error> {
        Ok(0)
    }

    /// Moves past a page and returns its items.
    fn advance(&mut self, page: &Decoded) -> Result<Vec<Bytes>, Error>;

    /// Returns whether NOT_FOUND in response to the last call is the end of the list.
    fn ends_at_not_found(&self) -> bool {
        false
    }

    /// Returns what the page that was read last says about the next one; none if it is not
    /// known.
    fn following(&self) -> Option<&Following> {
        None
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

/// The memory of an item of a page, and of its key in [`SeenKeys`], besides its bytes.
const ITEM_BYTES: usize = 32;
const SEEN_KEY_BYTES: usize = 288;

/// A page of a list: the rpc, its paging, what the request asks for, and the request.
pub type ListPage<'a> = (&'a Method, &'a Paging, PageRequest, Bytes);

/// What the pager does with a repeated page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRepeat {
    /// Fails with [`Error::ListRestarted`], or ends the walk where the repeated page was
    /// requested as a guess: the API does not page, and the list is complete. If only some
    /// items repeat those of the previous page, the list has shifted: they are removed.
    Fail,
    /// Ends the walk without the repeated page, unless a total says that more items follow.
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
    /// The number of items, and the memory for them besides their bytes.
    items: u64,
    reservation: Option<Reservation>,
}

/// A page of a list. Its items must not outlive the pager.
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
            items: 0,
            reservation: None,
        }
    }

    /// Reserves the memory of the items of a page, which can be shorter than what it takes to
    /// keep them.
    fn reserve(&mut self, count: u64, memory: &Memory) -> Result<(), Error> {
        let bytes = match self.repeats {
            Repeats::Fail(_) => ITEM_BYTES + SEEN_KEY_BYTES,
            Repeats::End(_) | Repeats::Keep => 2 * ITEM_BYTES,
        };
        self.items = match self.repeats {
            Repeats::Fail(_) | Repeats::Keep => self.items.max(count),
            Repeats::End(_) => self.items + count,
        };
        let items = usize::try_from(self.items).unwrap_or(usize::MAX);
        let reservation = self.reservation.get_or_insert_with(|| memory.empty());
        let reserved = reservation.resize_long(items.saturating_mul(bytes));
        reserved.map_err(not_delivered)
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
        let turn = context.turn(self.cursor.request_bytes()).await?;
        let call = turn.run(|| self.cursor.next_call(context.dialect()))?;
        drop(turn);
        let Some(call) = call else {
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
        let page = context
            .decode(method, (&call.verb, call.effect()), &reply)
            .await?;
        let count = self.cursor.item_count(&page.message)?;
        self.reserve(count, &context.client.memory)?;
        let expected = self.cursor.following().cloned().unwrap_or_default();
        let items = self.cursor.advance(&page)?;
        let new = match &mut self.repeats {
            Repeats::Fail(seen) => seen.filter(items, |item| self.cursor.key(item))?,
            Repeats::End(seen) if self.pages > 0 && !items.is_empty() && seen.ends_with(&items) => {
                None
            }
            Repeats::End(seen) => {
                seen.extend_from_slice(&items);
                Some(items)
            }
            Repeats::Keep => Some(items),
        };
        let Some(items) = new else {
            let ends = match self.repeats {
                Repeats::Fail(_) => expected.is_guess,
                Repeats::End(_) | Repeats::Keep => !expected.by_total,
            };
            if !ends {
                return Err(Error::ListRestarted);
            }
            self.ended = true;
            return Ok(None);
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

/// Whether a page of a list that is read page by page is one that was read before, because
/// the API does not page: it has returned more items than requested, and ignores the token.
/// Fails with [`Error::ListRestarted`] if it has returned as many as requested, so that the
/// list may have more.
pub(super) async fn is_repeated(
    context: CallContext<'_>,
    method: &Method,
    request: &Bytes,
    page: &Decoded,
    following: &Following,
) -> Result<bool, Error> {
    let (Some(paging), Some(_)) = (&method.paging, &following.token) else {
        return Ok(false);
    };
    if paging.ends_at_its_token(request, &page.message)? {
        return match following.is_guess {
            true => Ok(true),
            false => Err(Error::ListRestarted),
        };
    }
    let dialect = context.dialect();
    let requested = paging.page_request(request, dialect)?;
    let Some(before) = paging
        .repeated_page(request, requested)
        .filter(|_| following.is_guess)
    else {
        return Ok(false);
    };
    let call = context.bind(method, &before).await?;
    let reply = context.call(method, &call).await?;
    let before = context
        .decode(method, (&call.verb, call.effect()), &reply)
        .await?;
    Ok(paging.items(&before.message)? == paging.items(&page.message)?)
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
    let call = context.bind(method, &before).await?;
    let (verb, effect) = (call.verb.clone(), call.effect());
    let reply = match context.call(method, &call).await {
        Err(error) if is_no_page(&error) => return Ok(false),
        reply => reply?,
    };
    let page = context
        .decode(method, (&verb, effect), &reply)
        .await?
        .message;
    let following = paging.following(requested, &page, &paging.before(requested))?;
    Ok(following.token.is_some() && !following.by_total)
}

/// Walks a list by `drawbridge.v1.Paging`: the token of a page is in its request.
pub struct TokenCursor {
    method: Arc<Method>,
    /// The request of the first page.
    request: Bytes,
    /// What the page that is being read was requested with.
    requested: Option<PageRequest>,
    before: PagesBefore,
    /// What the last page says about the next one.
    following: Option<Following>,
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
            before: PagesBefore::default(),
            following: None,
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

    fn request_bytes(&self) -> usize {
        self.request.len()
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
            self.before = self.paging()?.begin_walk(requested);
        }
        self.requested = Some(requested);
        let call = self.method.bind(&request, dialect)?;
        Ok(Some((self.prepare)(call)))
    }

    fn item_count(&self, page: &Bytes) -> Result<u64, Error> {
        Ok(self.paging()?.count(page)?)
    }

    fn advance(&mut self, page: &Decoded) -> Result<Vec<Bytes>, Error> {
        let paging = self.paging()?;
        let following = match self.requested {
            Some(requested) => paging.following(requested, &page.message, &self.before)?,
            None => Following::default(),
        };
        let items = paging.items(&page.message)?;
        let mut before = self.before;
        paging.add(&mut before, &page.message)?;
        self.before = before;
        self.next = following.token.clone().map_or(Next::End, Next::At);
        self.following = Some(following);
        Ok(items)
    }

    fn following(&self) -> Option<&Following> {
        self.following.as_ref()
    }

    fn ends_at_not_found(&self) -> bool {
        let paging = self.paging();
        matches!((paging, self.requested), (Ok(paging), Some(requested))
            if paging.ends_before(requested, self.following.as_ref()))
    }

    fn list_before_first(&self) -> Result<Option<ListPage<'_>>, Error> {
        let (Some(requested), None) = (self.requested, &self.following) else {
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

/// Walks the definitions of a [`Check`] by page number, to the end that their `paging` says;
/// without that, a short page is the last.
pub struct NumberCursor<'a> {
    check: &'a Check,
    definitions: &'a Method,
    /// The request whose values are checked.
    request: &'a [u8],
    /// The page that is read next, from 1.
    page: u32,
    /// What the page that is being read was requested with.
    requested: Option<PageRequest>,
    before: PagesBefore,
    following: Option<Following>,
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
            requested: None,
            before: PagesBefore::default(),
            following: None,
            is_at_end: false,
        }
    }
}

impl PageCursor for NumberCursor<'_> {
    fn method(&self) -> &Method {
        self.definitions
    }

    fn request_bytes(&self) -> usize {
        self.request.len()
    }

    fn next_call(&mut self, dialect: &str) -> Result<Option<Call>, Error> {
        if self.is_at_end {
            return Ok(None);
        }
        let definitions = self.definitions;
        let request = self.check.page(definitions, self.request, self.page)?;
        if let Some(paging) = &definitions.paging {
            let requested = paging.page_request(&request, dialect)?;
            if self.requested.is_none() {
                self.before = paging.begin_walk(requested);
            }
            self.requested = Some(requested);
        }
        Ok(Some(definitions.bind(&request, dialect)?))
    }

    fn item_count(&self, page: &Bytes) -> Result<u64, Error> {
        Ok(self.check.count(self.definitions, page))
    }

    fn advance(&mut self, page: &Decoded) -> Result<Vec<Bytes>, Error> {
        let items = self.check.items(self.definitions, &page.message)?;
        self.is_at_end = match (&self.definitions.paging, self.requested) {
            (Some(paging), Some(requested)) => {
                let following = paging.following(requested, &page.message, &self.before)?;
                paging.add(&mut self.before, &page.message)?;
                self.following.insert(following).token.is_none()
            }
            _ => items.len() < Check::PAGE_SIZE,
        };
        self.page += 1;
        Ok(items)
    }

    fn following(&self) -> Option<&Following> {
        self.following.as_ref()
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
        let mut reservation = memory.empty();
        let resized = reservation.resize_long(2 * merged_bytes);
        resized.map_err(not_delivered)?;
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
