//! Watches of data that only grows: `log` for lists of entries, `text_log` for texts.

mod compile;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;

use super::super::Method;
use super::super::path_template::encode;
use super::fields::{broken, key_text};
use crate::Error;
use crate::api::drawbridge::v1::WatchEvent;
use crate::call::Call;
use crate::json;
use crate::json::wire::{self, Value};
use crate::schema::{Field, FieldIndex, Kind, MessageId, Schema, is_in};
pub(in crate::contract) use compile::{compile, is_log};

/// The message with a line of a text.
const LINE: &str = "drawbridge.v1.LogLine";
/// Numbers of the fields of [`LINE`].
const LINE_TEXT: u32 = 1;
const LINE_OFFSET: u32 = 2;

/// A compiled `drawbridge.v1.Watch` with `log` or `text_log`.
#[derive(Debug)]
pub struct Log {
    /// The rpc to poll.
    pub poll: Arc<Method>,
    /// The kind of the log.
    pub kind: LogKind,
    /// The watch that ends the log, by `ends_with`.
    pub ends_with: Option<Arc<Method>>,
    /// Pause after new data.
    pub initial_interval: Duration,
    /// Longest pause without new data.
    pub max_interval: Duration,
    tables: Tables,
}

/// The kind of a log, and how it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogKind {
    /// A list of entries.
    Entries {
        /// Entries per page.
        page_size: usize,
        /// Number of reads after which the newest page is read too.
        look_back: u32,
    },
    /// A text, by byte offset.
    Text {
        /// Bytes per read.
        first_size: u32,
        /// Bytes per read after one without a line end.
        max_size: u32,
    },
}

/// One entry of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its identity.
    pub key: Box<str>,
    /// Its position in the list; none when it is unset.
    pub order: Option<Order>,
    /// The encoded entry. Empty for a gap: see [`Entry::gap`].
    pub bytes: Bytes,
}

impl Entry {
    /// Returns a mark: entries before the next one may be missing, because the upstream
    /// removed them before they were read.
    pub fn gap(key: Box<str>) -> Self {
        Self {
            key,
            order: None,
            bytes: Bytes::new(),
        }
    }

    /// Returns whether this is such a mark.
    pub fn is_gap(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// The value that sorts a list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// Seconds and nanoseconds since 1970.
    Time(i64, i64),
    /// A signed or small number.
    Number(i128),
    /// A text.
    Text(Box<str>),
}

/// The part of a list to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slice<'a> {
    /// Oldest first, from the start.
    Start,
    /// Oldest first, after the entry of this key.
    After(&'a str),
    /// The newest ones, newest first.
    Newest,
}

#[derive(Debug)]
struct Tables {
    /// The request of the log.
    input: MessageId,
    /// Field numbers in the stream's messages.
    event: u32,
    item: u32,
    marker: u32,
    resume: Option<FieldIndex>,
    from_now: Option<FieldIndex>,
    follow: Option<FieldIndex>,
    until_final: Option<FieldIndex>,
    /// Field numbers of the log's request, to those of the request of `ends_with`.
    ends: HashMap<u32, u32>,
    /// Number of the `WatchEvent` field in the messages of `ends_with`.
    ends_event: u32,
    /// Number of the `follow` field of `ends_with`, if that has `follow_after`.
    ends_follow: Option<u32>,
    read: Read,
}

/// How to build calls and read replies.
#[derive(Debug)]
enum Read {
    Entries {
        list: u32,
        item: MessageId,
        key: FieldIndex,
        order: Option<FieldIndex>,
        marker: Param,
        limit: Param,
        ascending: Box<str>,
        newest: Box<str>,
        page_size: usize,
    },
    Text {
        offset: Param,
        size: Param,
        steps: Vec<u32>,
        /// Number of the field with additional properties, where the text's message has
        /// one.
        additional_properties: Option<u32>,
        elements: Elements,
    },
}

/// What the texts of one response are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Elements {
    /// No list leads to the text: it is one text.
    None,
    /// Elements of a list, where an empty text and an absent one are the same.
    Lines,
    /// Elements of a list; one without the text has no line.
    OptionalLines,
}

/// A query parameter that the watch sets.
#[derive(Debug)]
struct Param {
    name: Box<str>,
    absent_in: Vec<Box<str>>,
}

impl Log {
    /// Returns where the client wants to resume: the key of the last known entry, or
    /// the offset as text. None: at the start.
    pub fn resume(&self, request: &[u8]) -> Result<Option<Box<str>>, Error> {
        let Some(index) = self.tables.resume else {
            return Ok(None);
        };
        let field = &self.input().fields[usize::from(index)];
        let fault = |problem: &str| Error::Binding {
            field: field.name.to_string(),
            problem: problem.to_owned(),
        };
        Ok(
            match wire::last(request, field.number).map_err(Error::malformed)? {
                Some(Value::Bytes(text)) => {
                    let text = std::str::from_utf8(text).map_err(|_| fault("is not UTF-8"))?;
                    (!text.is_empty()).then(|| text.into())
                }
                Some(Value::Varint(number)) => match i64::try_from(number) {
                    Ok(number) => Some(number.to_string().into()),
                    Err(_) => return Err(fault("must not be negative")),
                },
                _ => None,
            },
        )
    }

    /// Returns the name of the field with the position to resume at.
    pub fn resume_name(&self) -> &str {
        let name = |index| &*self.input().fields[usize::from(index)].name;
        self.tables.resume.map_or("", name)
    }

    /// Returns whether the client wants new data only.
    pub fn from_now(&self, request: &[u8]) -> bool {
        self.flag(self.tables.from_now, request)
    }

    /// Returns whether the log ends when the watch of `ends_with` does.
    pub fn ends_with_watch(&self, request: &[u8]) -> bool {
        match (&self.ends_with, self.tables.until_final) {
            (None, _) => false,
            (Some(_), Some(flag)) => self.flag(Some(flag), request),
            (Some(_), None) => {
                self.tables.ends_follow.is_some() || !self.flag(self.tables.follow, request)
            }
        }
    }

    /// Returns the request of the watch of `ends_with`, from the log's own.
    pub fn ends_request(&self, request: &[u8]) -> Result<Bytes, Error> {
        let mut out = Vec::with_capacity(request.len());
        for item in wire::fields(request) {
            let (number, value) = item.map_err(Error::malformed)?;
            let Some(&number) = self.tables.ends.get(&number) else {
                continue;
            };
            wire::write_value(&mut out, number, value);
        }
        if let Some(number) = self.tables.ends_follow
            && self.flag(self.tables.follow, request)
        {
            wire::write_uint(&mut out, number, 1);
        }
        Ok(out.into())
    }

    /// Returns the event in a message of the watch of `ends_with`.
    pub fn ends_event(&self, message: &[u8]) -> Option<WatchEvent> {
        let event = wire::message(message, self.tables.ends_event).ok()??;
        WatchEvent::decode(&*event).ok()
    }

    /// Returns whether the list has pages in the dialect.
    pub fn pages(&self, dialect: &str) -> bool {
        match &self.tables.read {
            Read::Entries { marker, .. } => marker.is_in(dialect),
            Read::Text { .. } => true,
        }
    }

    /// Entries only: returns the call that reads this slice; `call` is the bound
    /// request.
    pub fn entries_call(&self, call: &Call, dialect: &str, slice: Slice<'_>) -> Call {
        let mut call = call.clone();
        let Read::Entries {
            marker,
            limit,
            ascending,
            newest,
            page_size,
            ..
        } = &self.tables.read
        else {
            return call;
        };
        if !marker.is_in(dialect) {
            return call;
        }
        let query = &mut call.query;
        let sorted = match slice {
            Slice::Newest => newest,
            _ => ascending,
        };
        remove(query, names(sorted));
        add(query, sorted);
        limit.add(query, dialect, &page_size.to_string());
        if let Slice::After(key) = slice {
            marker.add(query, dialect, key);
        }
        call
    }

    /// Entries only: returns the number of entries in a response.
    pub fn entry_count(&self, response: &[u8]) -> u64 {
        match &self.tables.read {
            Read::Entries { list, .. } => {
                wire::count(response, *list).map_or(0, |(count, _)| count)
            }
            Read::Text { .. } => 0,
        }
    }

    /// Entries only: returns the entries in a response, in its order.
    pub fn entries(&self, response: &Bytes) -> Result<Vec<Entry>, Error> {
        let Read::Entries {
            list,
            item,
            key,
            order,
            ..
        } = &self.tables.read
        else {
            return Ok(Vec::new());
        };
        let schema = &*self.poll.schema;
        let message = schema.message(*item);
        let key = &message.fields[usize::from(*key)];
        let order = order.map(|index| &message.fields[usize::from(index)]);
        let items =
            wire::all(response, *list).map_err(|problem| Error::decode("", problem.to_string()))?;
        items
            .into_iter()
            .map(|item| {
                Ok(Entry {
                    key: key_text(schema, key, item)?,
                    order: order
                        .map(|field| order_of(schema, field, item))
                        .transpose()?
                        .flatten(),
                    bytes: response.slice_ref(item),
                })
            })
            .collect()
    }

    /// Texts only: returns the call that reads at most `bytes` bytes at offset `from`.
    pub fn text_call(&self, call: &Call, dialect: &str, from: u64, bytes: u32) -> Call {
        let mut call = call.clone();
        if let Read::Text { offset, size, .. } = &self.tables.read {
            offset.add(&mut call.query, dialect, &from.to_string());
            size.add(&mut call.query, dialect, &bytes.to_string());
        }
        call
    }

    /// Texts only: returns the text in a response; empty for none. Each element of a list
    /// ends its line, whether or not its text does. A single element without text is an
    /// empty text, not an empty line: some upstreams respond so when nothing is new.
    pub fn text(&self, response: &[u8]) -> Result<String, Error> {
        let Read::Text {
            steps,
            additional_properties,
            elements,
            ..
        } = &self.tables.read
        else {
            return Ok(String::new());
        };
        let fault = |problem: String| Error::decode("", problem);
        let mut parts = vec![response];
        for (at, step) in steps.iter().enumerate() {
            let last = at + 1 == steps.len();
            let mut below = Vec::new();
            for part in parts {
                let found = wire::all(part, *step).map_err(|p| fault(p.to_string()))?;
                match additional_properties {
                    _ if !last || !found.is_empty() => below.extend(found),
                    Some(additional_properties) => {
                        let text = only_text(part, *additional_properties);
                        below.extend(text.map_err(|p| fault(p.to_string()))?);
                    }
                    None if *elements == Elements::Lines => below.push(b""),
                    None => {}
                }
            }
            parts = below;
        }
        let text = match (elements, &parts[..]) {
            (Elements::None, _) | (_, [b""]) => parts.concat(),
            _ => lines(&parts),
        };
        String::from_utf8(text).map_err(|_| fault("the text is not UTF-8".into()))
    }

    /// Encodes a line of a text as an item.
    pub fn line(text: &str, offset: u64) -> Bytes {
        let mut line = Vec::with_capacity(text.len() + 16);
        wire::write_bytes(&mut line, LINE_TEXT, text.as_bytes());
        if offset > 0 {
            wire::write_uint(&mut line, LINE_OFFSET, offset);
        }
        line.into()
    }

    /// Encodes a message of the stream; `marker` is where to resume after it.
    pub fn message(&self, event: &WatchEvent, item: Option<&[u8]>, marker: &str) -> Bytes {
        let tables = &self.tables;
        let event = event.encode_to_vec();
        let length = event.len() + item.map_or(0, <[u8]>::len) + marker.len() + 32;
        let mut message = Vec::with_capacity(length);
        wire::write_bytes(&mut message, tables.event, &event);
        if let Some(item) = item {
            wire::write_bytes(&mut message, tables.item, item);
        }
        match (&self.kind, marker.parse()) {
            (LogKind::Text { .. }, Ok(0)) => {}
            (LogKind::Text { .. }, Ok(offset)) => {
                wire::write_uint(&mut message, tables.marker, offset);
            }
            _ if marker.is_empty() => {}
            _ => wire::write_bytes(&mut message, tables.marker, marker.as_bytes()),
        }
        message.into()
    }

    fn input(&self) -> &crate::schema::Message {
        self.poll.schema.message(self.tables.input)
    }

    fn flag(&self, index: Option<FieldIndex>, request: &[u8]) -> bool {
        let Some(index) = index else {
            return false;
        };
        let field = &self.input().fields[usize::from(index)];
        matches!(wire::last(request, field.number), Ok(Some(Value::Varint(set))) if set != 0)
    }
}

impl Param {
    fn is_in(&self, dialect: &str) -> bool {
        is_in(&self.absent_in, dialect)
    }

    fn add(&self, query: &mut String, dialect: &str, value: &str) {
        if self.is_in(dialect) {
            remove(query, [&*self.name]);
            add(query, &self.name);
            query.push('=');
            encode(value, query);
        }
    }
}

/// Joins texts, each with a line break at its end.
fn lines(texts: &[&[u8]]) -> Vec<u8> {
    let length = texts.iter().map(|text| text.len() + 1).sum();
    let mut joined = Vec::with_capacity(length);
    for text in texts {
        joined.extend_from_slice(text);
        if !text.ends_with(b"\n") {
            joined.push(b'\n');
        }
    }
    joined
}

/// Returns the text among the additional properties, if there is exactly one.
fn only_text(message: &[u8], additional_properties: u32) -> Result<Option<&[u8]>, wire::Malformed> {
    // Field numbers of google.protobuf.Struct, of an entry of its map, and of Value.
    const MEMBERS: u32 = 1;
    const VALUE: u32 = 2;
    const TEXT: u32 = 3;
    let mut texts = Vec::new();
    for members in wire::all(message, additional_properties)? {
        for entry in wire::all(members, MEMBERS)? {
            for value in wire::all(entry, VALUE)? {
                texts.extend(wire::all(value, TEXT)?);
            }
        }
    }
    Ok(match texts[..] {
        [text] => Some(text),
        _ => None,
    })
}

/// Returns the names of the parameters of a query.
fn names(query: &str) -> impl Iterator<Item = &str> + Clone {
    let parameters = query.split('&');
    parameters.map(|parameter| parameter.split('=').next().unwrap_or_default())
}

/// Removes the parameters of these names: the log sets them. A `constant_query` of the
/// polled rpc may contain another order or limit.
fn remove<'n>(query: &mut String, removed: impl IntoIterator<Item = &'n str, IntoIter: Clone>) {
    let removed = removed.into_iter();
    let is_removed = |name| removed.clone().any(|other| other == name);
    if !names(query).any(is_removed) {
        return;
    }
    let kept = query
        .split('&')
        .filter(|parameter| !names(parameter).any(is_removed));
    *query = kept.collect::<Vec<_>>().join("&");
}

fn add(query: &mut String, text: &str) {
    if !query.is_empty() && !text.is_empty() {
        query.push('&');
    }
    query.push_str(text);
}

/// Returns the position of an entry in its list; none when it is unset.
fn order_of(schema: &Schema, field: &Field, item: &[u8]) -> Result<Option<Order>, Error> {
    if let Kind::Message(_) = field.kind {
        let time = wire::message(item, field.number).map_err(|p| broken(field, p))?;
        let Some(time) = time else {
            return Ok(None);
        };
        let part = |number| match wire::last(&time, number) {
            Ok(Some(Value::Varint(part))) => part as i64,
            _ => 0,
        };
        return Ok(Some(Order::Time(part(1), part(2))));
    }
    let value = wire::last(item, field.number).map_err(|p| broken(field, p))?;
    let Some(value) = value else {
        return Ok(None);
    };
    let text = json::text(schema, field, value)
        .map_err(|problem| Error::decode(&*field.name, problem.problem))?;
    Ok(Some(match (field.kind, text.parse()) {
        (Kind::String, _) | (_, Err(_)) => Order::Text(text.into()),
        (_, Ok(number)) => Order::Number(number),
    }))
}
