//! `paging`: a list in pages, and where the next page starts.

use bytes::Bytes;

use super::diagnostics::Diagnostics;
use crate::Error;
use crate::api::drawbridge::v1::{self as rules, PagingStyle};
use crate::json::wire::{self, Value};
use crate::schema::{Cardinality, Field, Kind, Message, MessageId, Schema, is_in};

pub(super) const PAGE_SIZE: &str = "page_size";
pub(super) const PAGE_TOKEN: &str = "page_token";
const NEXT_PAGE_TOKEN: &str = "next_page_token";

/// Longest accepted page token, in bytes.
const MAX_TOKEN_BYTES: usize = 4_096;

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Following {
    /// The token of the next page; none when this is the last one.
    pub token: Option<String>,
    /// A total in the response says that more items follow.
    pub by_total: bool,
}

/// The part of a list that a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// Page size. None: the client did not set it, or the dialect does not have it.
    size: Option<u64>,
    /// OFFSET and PAGE: the page size that the API applies by itself.
    default_size: Option<u64>,
    /// OFFSET and PAGE: where the page starts.
    at: u64,
}

impl Paging {
    /// Reads the paging fields of a request. A page token that no response contained is
    /// `Error::Binding`.
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
        let size = match wire::last(request, self.size.number).map_err(Error::malformed)? {
            Some(Value::Varint(size)) if sent && size > 0 => Some(size),
            _ => None,
        };
        let default_size = u64::from(self.default_size);
        let applies =
            sent && self.style != Style::Marker && size.is_none_or(|size| default_size < size);
        Ok(PageRequest {
            size,
            default_size: applies.then_some(default_size),
            at,
        })
    }

    /// Returns the token of the next page; none when this is the last one. A page with
    /// more items than requested means that the API does not page: the list is
    /// complete.
    pub fn next(&self, request: PageRequest, page: &[u8]) -> Result<Option<String>, Error> {
        Ok(self.following(request, page, None)?.token)
    }

    /// Returns what follows a page; see [`Paging::next`]. `before` is the number of items
    /// of all pages before it, where it is known.
    pub fn following(
        &self,
        request: PageRequest,
        page: &[u8],
        before: Option<u64>,
    ) -> Result<Following, Error> {
        let items = wire::all(page, self.items).map_err(Error::malformed)?;
        let count = items.len() as u64;
        let full = count > 0 && [request.size, request.default_size].contains(&Some(count));
        let total = self.total(page)?;
        let token = match (self.style, items.last()) {
            (Style::Marker, Some(last)) if full || self.has_next_link(page)? => {
                Some(self.marker(last, count)?)
            }
            (Style::Marker, _) | (Style::Offset, None) => None,
            (Style::Offset, Some(_)) => {
                let next = request.at.saturating_add(count);
                total
                    .map_or(full, |total| next < total)
                    .then(|| next.to_string())
            }
            (Style::Page { first }, last) => {
                let next = request.at.saturating_add(1);
                let read = next.saturating_sub(first);
                let more = match total {
                    None => full,
                    // A page of a list that is filtered later can be empty.
                    Some(items) if self.total_counts_items && last.is_none() => {
                        let size = request.size.unwrap_or(u64::from(self.default_size));
                        self.has_known_pages(request) && read.saturating_mul(size) < items
                    }
                    Some(items) if self.total_counts_items => match before {
                        Some(before) => before.saturating_add(count) < items,
                        None => self.more_items(request, read, count, items),
                    },
                    Some(pages) => read < pages,
                };
                more.then(|| next.to_string())
            }
        };
        Ok(Following {
            by_total: token.is_some()
                && total.is_some()
                && (before.is_some() || self.has_known_pages(request)),
            token,
        })
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

    /// Returns whether NOT_FOUND in response to this request, of an API that numbers its
    /// pages, means that the list ended with the page before. `by_total` says whether the
    /// response with that page had a total by which more follow; none if that response is
    /// not known.
    pub fn ends_before(&self, request: PageRequest, by_total: Option<bool>) -> bool {
        let has_total = !self.total.is_empty();
        let by_total = by_total.unwrap_or(has_total && self.has_known_pages(request));
        matches!(self.style, Style::Page { first } if request.at > first) && !by_total
    }

    /// Returns the number of items before this page, if it is the first one.
    pub fn items_before(&self, request: PageRequest) -> Option<u64> {
        let first = match self.style {
            Style::Page { first } => first,
            Style::Marker | Style::Offset => 0,
        };
        (request.at == first).then_some(0)
    }

    /// Returns the page with `next_page_token` set.
    pub fn with_next(&self, request: PageRequest, page: Bytes) -> Result<Bytes, Error> {
        let Some(token) = self.next(request, &page)? else {
            return Ok(page);
        };
        let mut out = Vec::with_capacity(page.len() + token.len() + 8);
        out.extend_from_slice(&page);
        wire::write_bytes(&mut out, self.next, token.as_bytes());
        Ok(out.into())
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

    fn total(&self, page: &[u8]) -> Result<Option<u64>, Error> {
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
            Some(Value::Varint(total)) if total > 0 && total <= i64::MAX as u64 => Some(total),
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

/// Compiles the `paging` of an rpc.
pub(super) fn compile(
    rule: &rules::Paging,
    schema: &Schema,
    (input, output): (MessageId, MessageId),
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Paging> {
    let request = schema.message(input);
    let response = schema.message(output);
    let style = match rule.style() {
        PagingStyle::Marker => Style::Marker,
        PagingStyle::Offset => Style::Offset,
        PagingStyle::Page => Style::Page {
            first: u64::try_from(rule.first_page.unwrap_or(1)).unwrap_or_default(),
        },
        PagingStyle::Unspecified => {
            diagnostics.report_rule("paging.style", "is missing: set MARKER, OFFSET or PAGE");
            return None;
        }
    };
    if rule.first_page.is_some_and(|first| first < 0) {
        diagnostics.report_rule("paging.first_page", "must not be negative");
    }
    if rule.first_page.is_some() && !matches!(style, Style::Page { .. }) {
        diagnostics.report_rule("paging.first_page", "is for the style PAGE");
    }
    if rule.default_size < 0 {
        diagnostics.report_rule("paging.default_size", "must not be negative");
    }
    let size = param(request, PAGE_SIZE, is_number, diagnostics);
    let token = param(request, PAGE_TOKEN, is_text, diagnostics);
    let next = match response.field(NEXT_PAGE_TOKEN) {
        Some((_, field)) if is_text(field) && field.gateway_only => Some(field.number),
        _ => {
            let problem = format!(
                "{} needs `string {NEXT_PAGE_TOKEN}`, marked `gateway_only`: the gateway sets it",
                response.name
            );
            diagnostics.report_rule("paging", problem);
            None
        }
    };
    let Some((items, item)) = messages(response, &rule.items) else {
        let problem = format!(
            "`{}` is not a repeated message field of {}",
            rule.items, response.name
        );
        diagnostics.report_rule("paging.items", problem);
        return None;
    };
    let key = key(rule, schema.message(item), style, diagnostics);
    let total = total(rule, schema, output, style, diagnostics);
    if rule.total_counts_items && (rule.total.is_empty() || !matches!(style, Style::Page { .. })) {
        let problem = "is for the style PAGE with a `total`";
        diagnostics.report_rule("paging.total_counts_items", problem);
    }
    let links = links(rule, schema, response, style, diagnostics);
    Some(Paging {
        style,
        size: size?,
        token: token?,
        items: items.number,
        next: next?,
        total,
        total_counts_items: rule.total_counts_items,
        links,
        key,
        item,
        default_size: match u32::try_from(rule.default_size) {
            Ok(size) if size > 0 => size,
            _ => 100,
        },
        has_default_size: rule.default_size > 0,
    })
}

pub(super) fn param(
    request: &Message,
    name: &str,
    fits: fn(&Field) -> bool,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Param> {
    match request.field(name) {
        Some((_, field)) if fits(field) && !field.gateway_only && !field.output_only => {
            Some(Param {
                number: field.number,
                absent_in: field.absent_in.clone(),
            })
        }
        _ => {
            let what = if name == PAGE_SIZE { "int32" } else { "string" };
            let problem = format!(
                "{} needs `{what} {name}`, with its REST name as `name`",
                request.name
            );
            diagnostics.report_rule("paging", problem);
            None
        }
    }
}

fn key(
    rule: &rules::Paging,
    item: &Message,
    style: Style,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Key> {
    if rule.key.is_empty() {
        if style == Style::Marker {
            diagnostics.report_rule(
                "paging.key",
                "is missing: the next page starts after the key of the last item",
            );
        }
        return None;
    }
    match item.field(&rule.key) {
        Some((_, field)) if field.is_key() => Some(Key {
            number: field.number,
            kind: field.kind,
        }),
        _ => {
            let problem = format!(
                "`{}` is not a single string or integer field of {}",
                rule.key, item.name
            );
            diagnostics.report_rule("paging.key", problem);
            None
        }
    }
}

fn total(
    rule: &rules::Paging,
    schema: &Schema,
    output: MessageId,
    style: Style,
    diagnostics: &mut Diagnostics<'_>,
) -> Vec<u32> {
    let mut steps = Vec::new();
    if rule.total.is_empty() {
        return steps;
    }
    if style == Style::Marker {
        diagnostics.report_rule("paging.total", "is for the styles OFFSET and PAGE");
        return steps;
    }
    let mut message = schema.message(output);
    let mut names = rule.total.split('.').peekable();
    while let Some(name) = names.next() {
        match message.field(name).map(|(_, field)| field) {
            Some(field) if names.peek().is_none() && is_number(field) => {
                steps.push(field.number);
                return steps;
            }
            Some(Field {
                number,
                kind: Kind::Message(below),
                cardinality: Cardinality::Explicit,
                ..
            }) if names.peek().is_some() => {
                steps.push(*number);
                message = schema.message(*below);
            }
            _ => {
                let problem = format!("`{name}` is not a single integer field of {}", message.name);
                diagnostics.report_rule("paging.total", problem);
                return Vec::new();
            }
        }
    }
    steps
}

fn links(
    rule: &rules::Paging,
    schema: &Schema,
    response: &Message,
    style: Style,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<(u32, u32)> {
    if rule.next_links.is_empty() {
        return None;
    }
    if style != Style::Marker {
        diagnostics.report_rule("paging.next_links", "is for the style MARKER");
        return None;
    }
    let found = messages(response, &rule.next_links).and_then(|(field, link)| {
        let (_, rel) = schema.message(link).field("rel")?;
        is_text(rel).then_some((field.number, rel.number))
    });
    if found.is_none() {
        let problem = format!(
            "`{}` is not a repeated message field of {} with a string `rel`",
            rule.next_links, response.name
        );
        diagnostics.report_rule("paging.next_links", problem);
    }
    found
}

fn messages<'a>(message: &'a Message, name: &str) -> Option<(&'a Field, MessageId)> {
    let (_, field) = message.field(name)?;
    match (field.kind, field.cardinality) {
        (Kind::Message(id), Cardinality::Repeated) => Some((field, id)),
        _ => None,
    }
}

pub(super) fn is_text(field: &Field) -> bool {
    field.is_single() && field.kind == Kind::String
}

pub(super) fn is_number(field: &Field) -> bool {
    field.is_single()
        && matches!(
            field.kind,
            Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64
        )
}

fn print(kind: Kind, number: u64) -> String {
    match kind {
        Kind::Uint32 | Kind::Uint64 => number.to_string(),
        // Negative numbers are two's complement on the wire.
        _ => (number as i64).to_string(),
    }
}
