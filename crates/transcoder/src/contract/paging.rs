//! `paging`: a list in pages, and where the next page starts.

mod compile;

use bytes::Bytes;

pub(super) use self::compile::{compile, is_number, is_text, param};

use super::merge_pages::ends_early;
use crate::Error;
use crate::json::wire::{self, Value};
use crate::schema::{Kind, MessageId, is_in};

pub(super) const PAGE_SIZE: &str = "page_size";
pub(super) const PAGE_TOKEN: &str = "page_token";
const NEXT_PAGE_TOKEN: &str = "next_page_token";

/// Longest accepted page token, in bytes.
const MAX_TOKEN_BYTES: usize = 4_096;

/// Most pages in a row without items, where a total says that more follow.
const MAX_EMPTY_PAGES: u32 = 1_000;

/// A compiled `drawbridge.v1.Paging`.
#[derive(Debug)]
pub struct Paging {
    style: Style,
    size: Param,
    token: Param,
    /// Field numbers in the response.
    pub(super) items: u32,
    next: u32,
    /// Field numbers that lead to the total number of items or pages.
    total: Vec<u32>,
    /// PAGE: the total counts items.
    total_counts_items: bool,
    /// Field numbers of `next_links` and of their `rel`.
    links: Option<(u32, u32)>,
    /// The field that identifies an item.
    key: Option<Key>,
    pub(super) item: MessageId,
    pub(super) default_size: u32,
    /// The rule sets `default_size`.
    has_default_size: bool,
}

/// How the API names the start of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Marker,
    Offset,
    Page { first: u64 },
}

/// A field of the request.
#[derive(Debug)]
pub(super) struct Param {
    pub number: u32,
    /// Dialects that do not have the parameter.
    absent_in: Vec<Box<str>>,
}

#[derive(Clone, Copy, Debug)]
struct Key {
    number: u32,
    kind: Kind,
}

/// What follows a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Following {
    /// The token of the next page; none when this is the last one.
    pub token: Option<String>,
    /// A total in the response says that more items follow.
    pub by_total: bool,
    /// Neither a total nor a full page says that more items follow: the API may have another
    /// page size than the requested one, or not page at all.
    pub is_guess: bool,
}

/// What is known of the pages before one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PagesBefore {
    /// The number of their items, where they are all pages before.
    items: Option<u64>,
    /// All pages are read in a row, this one among them.
    is_walk: bool,
    /// The number of items of the first page of the walk; none at that page.
    first_items: Option<u64>,
    /// The newest total.
    total: Option<u64>,
    /// How many pages in a row, up to the last one, had no items.
    empty: u32,
}

/// The part of a list that a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// Page size. None: the client did not set it, or the dialect does not have it.
    size: Option<u64>,
    /// The client requests no items.
    is_empty: bool,
    /// The dialect has page tokens.
    has_tokens: bool,
    /// OFFSET and PAGE: the page size that the API applies by itself.
    default_size: Option<u64>,
    /// OFFSET and PAGE: where the page starts.
    at: u64,
}

impl Paging {
    /// Reads the paging fields of a request. A negative page size, or a page token that no
    /// response contained, is `Error::Binding`.
    pub fn page_request(&self, request: &[u8], dialect: &str) -> Result<PageRequest, Error> {
        let fault = |problem: &str| Error::Binding {
            field: PAGE_TOKEN.into(),
            problem: problem.into(),
        };
        let token = wire::last(request, self.token.number).map_err(Error::malformed)?;
        let token = token.map(|value| value.bytes()).unwrap_or_default();
        if token.len() > MAX_TOKEN_BYTES {
            return Err(fault("is too long for a page token"));
        }
        let at = match (self.style, token) {
            (Style::Marker | Style::Offset, b"") => 0,
            (Style::Marker, _) => 0,
            (Style::Page { first }, b"") => first,
            (Style::Offset | Style::Page { .. }, digits) => std::str::from_utf8(digits)
                .ok()
                .filter(|text| text.bytes().all(|b| b.is_ascii_digit()))
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| fault("must be the `next_page_token` of an earlier response"))?,
        };
        let sent = is_in(&self.size.absent_in, dialect);
        let requested = match wire::last(request, self.size.number).map_err(Error::malformed)? {
            Some(Value::Varint(size)) if size > i64::MAX as u64 => {
                return Err(Error::Binding {
                    field: PAGE_SIZE.into(),
                    problem: "must not be negative".into(),
                });
            }
            Some(Value::Varint(size)) if sent => Some(size),
            _ => None,
        };
        let size = requested.filter(|size| *size > 0);
        let default_size = u64::from(self.default_size);
        let applies =
            sent && self.style != Style::Marker && size.is_none_or(|size| default_size < size);
        Ok(PageRequest {
            size,
            is_empty: requested == Some(0),
            has_tokens: is_in(&self.token.absent_in, dialect),
            default_size: applies.then_some(default_size),
            at,
        })
    }

    /// Returns what is known of the pages before the requested one, where none of them was
    /// read.
    pub fn before(&self, request: PageRequest) -> PagesBefore {
        let first = match self.style {
            Style::Page { first } => first,
            Style::Marker | Style::Offset => 0,
        };
        PagesBefore {
            items: (request.at == first).then_some(0),
            ..PagesBefore::default()
        }
    }

    /// Returns what is known of the pages before the requested one, the first of a walk that
    /// reads a page after the other.
    pub fn begin_walk(&self, request: PageRequest) -> PagesBefore {
        PagesBefore {
            is_walk: true,
            ..self.before(request)
        }
    }

    /// Adds a page to those before the next one.
    pub fn add(&self, before: &mut PagesBefore, page: &[u8]) -> Result<(), Error> {
        let count = self.count(page)?;
        before.items = before.items.map(|items| items.saturating_add(count));
        before.first_items = before.first_items.or(Some(count));
        before.total = self.total(page, count)?.or(before.total);
        before.empty = match count {
            0 => before.empty.saturating_add(1),
            _ => 0,
        };
        Ok(())
    }

    /// Returns what follows a page. An error: the page has no items, although more follow by
    /// the total or a link, and the next page cannot be requested.
    pub fn following(
        &self,
        request: PageRequest,
        page: &[u8],
        before: &PagesBefore,
    ) -> Result<Following, Error> {
        if !request.has_tokens {
            return Ok(Following::default());
        }
        let (count, last) = wire::count(page, self.items).map_err(Error::malformed)?;
        let total = self.total(page, count)?.or(before.total);
        let (more, is_guess) = match total {
            None => self.more_without_total(request, count, before),
            Some(total) => (self.more_by_total(request, count, total, before)?, false),
        };
        let token = match (self.style, last) {
            (Style::Marker, None) if !request.is_empty && self.has_next_link(page)? => {
                let problem = "the page has no items, but a link to a next one";
                return Err(Error::not_the_resource(problem));
            }
            (Style::Marker, None) => None,
            (Style::Marker, Some(last)) => match more || self.has_next_link(page)? {
                true => Some(self.marker(last, count)?),
                false => None,
            },
            (Style::Offset, _) => more.then(|| request.at.saturating_add(count).to_string()),
            (Style::Page { .. }, _) => more.then(|| request.at.saturating_add(1).to_string()),
        };
        Ok(Following {
            by_total: token.is_some()
                && total.is_some()
                && (before.items.is_some() || self.has_known_pages(request)),
            is_guess: token.is_some() && is_guess,
            token,
        })
    }

    /// Returns whether a page may follow one with `count` items, where no total says so, and
    /// whether that is a guess: the API seems to have another page size than the requested
    /// one, which the first page shows.
    fn more_without_total(
        &self,
        request: PageRequest,
        count: u64,
        before: &PagesBefore,
    ) -> (bool, bool) {
        if count == 0 {
            return (false, false);
        }
        if [request.size, request.default_size].contains(&Some(count)) {
            return (true, false);
        }
        let is_shorter = before.first_items.is_some_and(|first| count < first);
        let exceeds = request.size.is_some_and(|size| count > size);
        let may_have_limit = request.size.is_some()
            && before.is_walk
            && !self.has_default_size
            && self.style != Style::Marker;
        let more = !is_shorter && (exceeds || may_have_limit);
        (more, more)
    }

    /// Returns whether a page follows one with `count` items, by the total.
    fn more_by_total(
        &self,
        request: PageRequest,
        count: u64,
        total: u64,
        before: &PagesBefore,
    ) -> Result<bool, Error> {
        let Style::Page { first } = self.style else {
            let have = request.at.saturating_add(count);
            return match have < total && count == 0 && !request.is_empty {
                true => Err(ends_early(have, total)),
                false => Ok(have < total && count > 0),
            };
        };
        // A page of a list that is filtered later can be empty.
        if count == 0 && before.empty >= MAX_EMPTY_PAGES {
            let problem = format!("the list has more than {MAX_EMPTY_PAGES} empty pages in a row");
            return Err(Error::not_the_resource(problem));
        }
        let read = request.at.saturating_add(1).saturating_sub(first);
        if !self.total_counts_items {
            return Ok(read < total);
        }
        if count > 0 {
            return Ok(match before.items {
                Some(items) => items.saturating_add(count) < total,
                None => self.more_items(request, read, count, total),
            });
        }
        if request.is_empty {
            return Ok(false);
        }
        // One page beyond the last one by the total is read, too: a page before had no items.
        let size = request.size.unwrap_or(u64::from(self.default_size));
        let is_known = self.has_known_pages(request);
        let is_before_end = is_known && read.saturating_sub(1).saturating_mul(size) < total;
        match before.items {
            Some(have) if have >= total => Ok(false),
            _ if is_before_end => Ok(true),
            Some(_) if !is_known && before.empty == 0 => Ok(true),
            Some(have) => Err(ends_early(have, total)),
            None if before.is_walk && before.empty > 0 => {
                let problem = format!("the last pages of a list of {total} items have none");
                Err(Error::not_the_resource(problem))
            }
            None => Ok(false),
        }
    }

    /// Returns whether more of `total` items follow page number `read`, from 1, which has
    /// `count` of them.
    fn more_items(&self, request: PageRequest, read: u64, count: u64, total: u64) -> bool {
        if read.saturating_mul(count) >= total {
            return false;
        }
        // A short page is the last one, where its items complete the total.
        let size = request.size.unwrap_or(u64::from(self.default_size));
        let is_last = self.has_known_pages(request)
            && count < size
            && (read - 1).saturating_mul(size).saturating_add(count) == total;
        !is_last
    }

    /// Returns whether the total says how many pages there are. One of items does if the
    /// pages have the requested size: an API may have a smaller limit, but not a smaller
    /// one than its default. Without a requested size it does if the rule names the default.
    fn has_known_pages(&self, request: PageRequest) -> bool {
        let default_size = u64::from(self.default_size);
        let has_known_size = match request.size {
            Some(size) => size <= default_size,
            None => self.has_default_size,
        };
        !self.total_counts_items || has_known_size
    }

    /// Returns the request of the page before this one, from that of this page; none unless
    /// the API numbers its pages and this is not the first one. Its response shows whether
    /// NOT_FOUND in response to this request is the end of the list.
    pub fn page_before(&self, request: &[u8], page: PageRequest) -> Option<Bytes> {
        match self.style {
            Style::Page { first } if page.at > first => {
                Some(self.at(request, &(page.at - 1).to_string()))
            }
            _ => None,
        }
    }

    /// Returns whether NOT_FOUND in response to this request means that the list ended with the
    /// page before: where the API numbers its pages, or counts items and the request was a
    /// guess. `following` is what the page before said; none if that page is not known.
    pub fn ends_before(&self, request: PageRequest, following: Option<&Following>) -> bool {
        let is_behind_first = match self.style {
            Style::Page { first } => request.at > first,
            Style::Offset => following.is_some_and(|following| following.is_guess),
            Style::Marker => false,
        };
        let by_total = match following {
            Some(following) => following.by_total,
            None => !self.total.is_empty() && self.has_known_pages(request),
        };
        is_behind_first && !by_total
    }

    /// Returns the request of a page that this one repeats if the API ignores page tokens:
    /// the page before, or the first one. None for the first page, and where that page is
    /// not needed, because the key of the last item shows it.
    pub fn repeated_page(&self, request: &[u8], page: PageRequest) -> Option<Bytes> {
        match self.style {
            Style::Offset if page.at > 0 => Some(self.at(request, "0")),
            _ => self.page_before(request, page),
        }
    }

    /// Returns whether the page ends with the item after which it was to start: the API
    /// ignores page tokens.
    pub fn ends_at_its_token(&self, request: &[u8], page: &[u8]) -> Result<bool, Error> {
        if self.style != Style::Marker {
            return Ok(false);
        }
        let token = wire::last(request, self.token.number).map_err(Error::malformed)?;
        let token = token.map(|value| value.bytes()).unwrap_or_default();
        let (_, last) = wire::count(page, self.items).map_err(Error::malformed)?;
        let key = match last {
            Some(last) if !token.is_empty() => self.key(last)?,
            _ => None,
        };
        Ok(key.is_some_and(|key| key == token))
    }

    /// Returns the page with this `next_page_token`.
    pub fn with_token(&self, page: Bytes, token: Option<&str>) -> Bytes {
        let Some(token) = token else {
            return page;
        };
        let mut out = Vec::with_capacity(page.len() + token.len() + 8);
        out.extend_from_slice(&page);
        wire::write_bytes(&mut out, self.next, token.as_bytes());
        out.into()
    }

    /// Returns the request of the page that starts at `token`, from that of any other
    /// page.
    pub fn at(&self, request: &[u8], token: &str) -> Bytes {
        with_token(request, self.token.number, token)
    }

    /// Returns the items of a page, without a copy.
    pub fn items(&self, page: &Bytes) -> Result<Vec<Bytes>, Error> {
        let items = wire::all(page, self.items).map_err(Error::malformed)?;
        Ok(items.into_iter().map(|item| page.slice_ref(item)).collect())
    }

    /// Returns the key of an item as bytes; none where it has no key.
    pub fn key(&self, item: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let Some(key) = self.key else {
            return Ok(None);
        };
        Ok(
            match wire::last(item, key.number).map_err(Error::malformed)? {
                Some(Value::Bytes(text)) if !text.is_empty() => Some(text.to_vec()),
                Some(Value::Varint(number)) => Some(print(key.kind, number).into_bytes()),
                _ => None,
            },
        )
    }

    /// Returns the marker after this item: its key.
    fn marker(&self, last: &[u8], count: u64) -> Result<String, Error> {
        self.key(last)?
            .and_then(|key| String::from_utf8(key).ok())
            .ok_or_else(|| {
                Error::decode(
                    format!("[{}]", count - 1),
                    "the last item has no key, so the next page cannot be requested",
                )
            })
    }

    /// Returns the number of items of a page.
    pub fn count(&self, page: &[u8]) -> Result<u64, Error> {
        let (count, _) = wire::count(page, self.items).map_err(Error::malformed)?;
        Ok(count)
    }

    /// Returns the total of a page with `count` items.
    fn total(&self, page: &[u8], count: u64) -> Result<Option<u64>, Error> {
        let Some((number, steps)) = self.total.split_last() else {
            return Ok(None);
        };
        let mut at = std::borrow::Cow::Borrowed(page);
        for step in steps {
            let below = wire::message(&at, *step).map_err(Error::malformed)?;
            let Some(below) = below.map(std::borrow::Cow::into_owned) else {
                return Ok(None);
            };
            at = below.into();
        }
        // A total of 0 on a page with items means that the API does not set it.
        Ok(match wire::last(&at, *number).map_err(Error::malformed)? {
            Some(Value::Varint(total)) if total <= i64::MAX as u64 => {
                Some(total).filter(|total| *total > 0 || count == 0)
            }
            _ => None,
        })
    }

    fn has_next_link(&self, page: &[u8]) -> Result<bool, Error> {
        let Some((links, rel)) = self.links else {
            return Ok(false);
        };
        for link in wire::all(page, links).map_err(Error::malformed)? {
            let rel = wire::last(link, rel).map_err(Error::malformed)?;
            if rel.is_some_and(|rel| rel.bytes() == b"next") {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Returns a request with its page token replaced.
pub(super) fn with_token(request: &[u8], field: u32, token: &str) -> Bytes {
    let mut next = Vec::with_capacity(request.len() + token.len() + 8);
    next.extend_from_slice(request);
    // The last occurrence of a field wins.
    wire::write_bytes(&mut next, field, token.as_bytes());
    next.into()
}

fn print(kind: Kind, number: u64) -> String {
    match kind {
        Kind::Uint32 | Kind::Uint64 => number.to_string(),
        // Negative numbers are two's complement on the wire.
        _ => (number as i64).to_string(),
    }
}
