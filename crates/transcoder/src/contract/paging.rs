//! Lists in pages: where the next one starts, and streams that walk them all.

use bytes::Bytes;

use super::diagnostics::Diagnostics;
use super::rpc_lookup::{RpcLookup, check_same_call};
use super::{Method, Pages};
use crate::Error;
use crate::api::drawbridge::v1::{self as rules, PagingStyle};
use crate::json::wire::{self, Value};
use crate::schema::{Cardinality, Field, Kind, Message, MessageId, Schema, is_in};

const SIZE: &str = "page_size";
const TOKEN: &str = "page_token";
const NEXT: &str = "next_page_token";

/// The longest token, in bytes.
const LONGEST: usize = 4_096;

/// The most items a stream of pages asks for at a time.
const MOST: u64 = 1_000;

/// A compiled `drawbridge.v1.Paging`.
#[derive(Debug)]
pub struct Paging {
    style: Style,
    size: Param,
    token: Param,
    /// Numbers of fields of the response.
    items: u32,
    next: u32,
    /// Steps to the number that tells how much there is in all.
    total: Vec<u32>,
    /// The links of the response, and what they lead to.
    links: Option<(u32, u32)>,
    /// The key of an item.
    key: Option<Key>,
    item: MessageId,
    default_size: u32,
}

/// How the API says where a page starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Marker,
    Offset,
    Page { first: u64 },
}

/// A field of the request.
#[derive(Debug)]
struct Param {
    number: u32,
    /// Dialects to which it is not sent.
    absent_in: Vec<Box<str>>,
}

#[derive(Clone, Copy, Debug)]
struct Key {
    number: u32,
    kind: Kind,
}

/// What was asked of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The most items it may have. None: the caller did not say, or the dialect
    /// does not take it.
    size: Option<u64>,
    /// OFFSET and PAGE: where the API is taken to cut a page by itself.
    cut: Option<u64>,
    /// OFFSET and PAGE: where it starts.
    at: u64,
}

impl Paging {
    /// What a request asks. A token that is none is `Error::Binding`.
    pub fn asked(&self, request: &[u8], dialect: &str) -> Result<Asked, Error> {
        let fault = |problem: &str| Error::Binding {
            field: TOKEN.into(),
            problem: problem.into(),
        };
        let token = wire::last(request, self.token.number).map_err(Error::malformed)?;
        let token = token.map(|value| value.bytes()).unwrap_or_default();
        if token.len() > LONGEST {
            return Err(fault("is no token: it is too long"));
        }
        let at = match (self.style, token) {
            (Style::Marker | Style::Offset, b"") => 0,
            (Style::Marker, _) => 0,
            (Style::Page { first }, b"") => first,
            (Style::Offset | Style::Page { .. }, digits) => std::str::from_utf8(digits)
                .ok()
                .filter(|text| text.bytes().all(|b| b.is_ascii_digit()))
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| fault("must be a next_page_token as it came"))?,
        };
        let sent = is_in(&self.size.absent_in, dialect);
        let size = match wire::last(request, self.size.number).map_err(Error::malformed)? {
            Some(Value::Varint(size)) if sent && size > 0 => Some(size),
            _ => None,
        };
        let cut = u64::from(self.default_size);
        let cuts = sent && self.style != Style::Marker && size.is_none_or(|size| cut < size);
        Ok(Asked {
            size,
            cut: cuts.then_some(cut),
            at,
        })
    }

    /// Where the page behind this one starts; none when this is the last. A page
    /// with more items than asked for is one of an API that does not page: it is
    /// the whole list.
    pub fn next(&self, asked: Asked, page: &[u8]) -> Result<Option<String>, Error> {
        let items = wire::all(page, self.items).map_err(Error::malformed)?;
        let Some(last) = items.last() else {
            return Ok(None);
        };
        let count = items.len() as u64;
        let full = [asked.size, asked.cut].contains(&Some(count));
        let total = self.total(page)?;
        Ok(match self.style {
            Style::Marker if full || self.has_next_link(page)? => Some(self.marker(last, count)?),
            Style::Marker => None,
            Style::Offset => {
                let next = asked.at.saturating_add(count);
                total
                    .map_or(full, |total| next < total)
                    .then(|| next.to_string())
            }
            Style::Page { first } => {
                let next = asked.at.saturating_add(1);
                total
                    .map_or(full, |pages| next.saturating_sub(first) < pages)
                    .then(|| next.to_string())
            }
        })
    }

    /// The page with the token of the next one in it.
    pub fn with_next(&self, asked: Asked, page: Bytes) -> Result<Bytes, Error> {
        let Some(token) = self.next(asked, &page)? else {
            return Ok(page);
        };
        let mut whole = Vec::with_capacity(page.len() + token.len() + 8);
        whole.extend_from_slice(&page);
        wire::write_bytes(&mut whole, self.next, token.as_bytes());
        Ok(whole.into())
    }

    /// The request of the page that starts at `token`, after that of any other.
    pub fn at(&self, request: &[u8], token: &str) -> Bytes {
        starting(request, self.token.number, token)
    }

    /// The items of a page, without a copy.
    pub fn items(&self, page: &Bytes) -> Result<Vec<Bytes>, Error> {
        let items = wire::all(page, self.items).map_err(Error::malformed)?;
        Ok(items.into_iter().map(|item| page.slice_ref(item)).collect())
    }

    /// What identifies an item, as bytes; none where nothing does.
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

    /// The text of the marker behind this item.
    fn marker(&self, last: &[u8], count: u64) -> Result<String, Error> {
        self.key(last)?
            .and_then(|key| String::from_utf8(key).ok())
            .ok_or_else(|| {
                Error::decode(
                    format!("[{}]", count - 1),
                    "the last item has no key, so that the next page cannot be asked for",
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
        // None at all, with items on the page, is a total that is not there.
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

/// The request of the page that starts at `token`, after that of any other.
fn starting(request: &[u8], field: u32, token: &str) -> Bytes {
    let mut next = Vec::with_capacity(request.len() + token.len() + 8);
    next.extend_from_slice(request);
    // The last value of a field is the one that counts.
    wire::write_bytes(&mut next, field, token.as_bytes());
    next.into()
}

impl Pages {
    /// The request of the first page: it has a size whatever the caller says, and
    /// one of at most [`MOST`].
    pub fn first(&self, request: &[u8]) -> Result<Bytes, Error> {
        let size = wire::last(request, self.size).map_err(Error::malformed)?;
        if let Some(Value::Varint(size)) = size
            && (size == 0 || size > i32::MAX as u64)
        {
            return Err(Error::Binding {
                field: SIZE.into(),
                problem: "must be at least 1".into(),
            });
        }
        let asked = match size {
            Some(Value::Varint(size)) if size <= MOST => {
                return Ok(Bytes::copy_from_slice(request));
            }
            Some(_) => MOST,
            None => u64::from(self.default_size).min(MOST),
        };
        let mut first = request.to_vec();
        // The last value of a field is the one that counts.
        wire::write_uint(&mut first, self.size, asked);
        Ok(first.into())
    }

    /// The request of the page that starts at `token`, after that of any other.
    pub fn at(&self, request: &[u8], token: &str) -> Bytes {
        starting(request, self.token, token)
    }

    /// A message of the stream.
    pub fn message(&self, item: &[u8]) -> Bytes {
        let mut message = Vec::with_capacity(item.len() + 8);
        wire::write_bytes(&mut message, self.item, item);
        message.into()
    }
}

/// Compiles the `paging` of an rpc.
pub(super) fn paging(
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
            diagnostics.report_rule("paging.style", "is missing: MARKER, OFFSET or PAGE");
            return None;
        }
    };
    if rule.first_page.is_some_and(|first| first < 0) {
        diagnostics.report_rule("paging.first_page", "must not be negative");
    }
    if rule.first_page.is_some() && !matches!(style, Style::Page { .. }) {
        diagnostics.report_rule("paging.first_page", "is for PAGE");
    }
    if rule.default_size < 0 {
        diagnostics.report_rule("paging.default_size", "must not be negative");
    }
    let size = param(request, SIZE, is_number, diagnostics);
    let token = param(request, TOKEN, is_text, diagnostics);
    let next = match response.field(NEXT) {
        Some((_, field)) if is_text(field) && field.gateway_only => Some(field.number),
        _ => {
            let problem = format!(
                "{} needs `string {NEXT}`, marked `gateway_only`: the gateway fills it in",
                response.name
            );
            diagnostics.report_rule("paging", problem);
            None
        }
    };
    let Some((items, item)) = messages(response, &rule.items) else {
        let problem = format!(
            "`{}` is no repeated message of {}",
            rule.items, response.name
        );
        diagnostics.report_rule("paging.items", problem);
        return None;
    };
    let key = key(rule, schema.message(item), style, diagnostics);
    let total = total(rule, schema, output, style, diagnostics);
    let links = links(rule, schema, response, style, diagnostics);
    Some(Paging {
        style,
        size: size?,
        token: token?,
        items: items.number,
        next: next?,
        total,
        links,
        key,
        item,
        default_size: match u32::try_from(rule.default_size) {
            Ok(size) if size > 0 => size,
            _ => 100,
        },
    })
}

fn param(
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
            let what = if name == SIZE { "int32" } else { "string" };
            let problem = format!(
                "{} needs `{what} {name}`, with the REST name that it is sent by",
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
                "is missing: the last item's is where the next page starts",
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
                "`{}` is no single string or integer of {}",
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
        diagnostics.report_rule("paging.total", "is for OFFSET and PAGE");
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
                let problem = format!("`{name}` is no single integer of {}", message.name);
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
        diagnostics.report_rule("paging.next_links", "is for MARKER");
        return None;
    }
    let found = messages(response, &rule.next_links).and_then(|(field, link)| {
        let (_, rel) = schema.message(link).field("rel")?;
        is_text(rel).then_some((field.number, rel.number))
    });
    if found.is_none() {
        let problem = format!(
            "`{}` is no repeated message of {} with a string `rel`",
            rule.next_links, response.name
        );
        diagnostics.report_rule("paging.next_links", problem);
    }
    found
}

/// Compiles the `pages` of `method`, whose service has `methods`.
pub(super) fn pages(
    list: &str,
    method: &Method,
    rpcs: &RpcLookup<'_>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Pages> {
    let Some(list) = rpcs.find(list).filter(|list| list.paging.is_some()) else {
        let problem =
            format!("`{list}` is not a unary rpc of this service or package with `paging`");
        diagnostics.report_rule("pages", problem);
        return None;
    };
    let paging = list.paging.as_ref()?;
    check_same_call(method, list, "pages", diagnostics);
    let schema = &*method.schema;
    let request = schema.message(method.input);
    let size = param(request, SIZE, is_number, diagnostics);
    let token = param(request, TOKEN, is_text, diagnostics);
    let response = schema.message(method.output);
    let item = match &response.fields[..] {
        [field]
            if field.kind == Kind::Message(paging.item)
                && field.cardinality == Cardinality::Explicit =>
        {
            Some(field.number)
        }
        _ => {
            let problem = format!(
                "{} must have one field, of the type {}",
                response.name,
                schema.message(paging.item).name
            );
            diagnostics.report_rule("pages", problem);
            None
        }
    };
    Some(Pages {
        list: list.clone(),
        size: size?.number,
        token: token?.number,
        item: item?,
        default_size: paging.default_size,
    })
}

fn messages<'a>(message: &'a Message, name: &str) -> Option<(&'a Field, MessageId)> {
    let (_, field) = message.field(name)?;
    match (field.kind, field.cardinality) {
        (Kind::Message(id), Cardinality::Repeated) => Some((field, id)),
        _ => None,
    }
}

fn is_text(field: &Field) -> bool {
    field.is_single() && field.kind == Kind::String
}

fn is_number(field: &Field) -> bool {
    field.is_single()
        && matches!(
            field.kind,
            Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64
        )
}

fn print(kind: Kind, number: u64) -> String {
    match kind {
        Kind::Uint32 | Kind::Uint64 => number.to_string(),
        // Two's complement.
        _ => (number as i64).to_string(),
    }
}
