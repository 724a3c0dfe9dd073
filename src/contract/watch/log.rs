//! Watches of what only grows: lists of entries and texts, as tables.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;

use super::super::Method;
use super::super::bind::malformed;
use super::super::place::{Place, check_query};
use super::super::schema::{Cardinality, Field, FieldIndex, Kind, MessageId, Schema, Shape};
use super::super::template::encode;
use super::spot::Part;
use super::{EVENT, Rpcs, broken, intervals, is_key, is_one, same_call, unknown};
use crate::api::drawbridge::v1::{self as rules, WatchEvent};
use crate::error::Error;
use crate::rest::Call;
use crate::transcode;
use crate::transcode::wire::{self, Value};

/// The name of the message that holds a line of a text.
const LINE: &str = "drawbridge.v1.LogLine";
/// Numbers of the fields of [`LINE`].
const LINE_TEXT: u32 = 1;
const LINE_OFFSET: u32 = 2;

/// A compiled `drawbridge.v1.Watch` of what only grows.
#[derive(Debug)]
pub struct Log {
    /// The rpc to poll.
    pub poll: Arc<Method>,
    /// What grows.
    pub grows: Grows,
    /// The watch whose end is the end of the log.
    pub ends_with: Option<Arc<Method>>,
    /// The pause after something new.
    pub first_interval: Duration,
    /// The longest pause while nothing comes.
    pub max_interval: Duration,
    tables: Tables,
}

/// What grows, and how it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grows {
    /// A list of entries.
    Entries {
        /// Entries per page.
        page_size: usize,
        /// After so many reads the newest page is read too.
        look_back: u32,
    },
    /// A text, by byte offset.
    Text {
        /// Bytes read at once.
        first_size: u32,
        /// Bytes read when nothing came.
        max_size: u32,
    },
}

/// One entry of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What tells it apart.
    pub key: Box<str>,
    /// Where it stands in the order of the list; none when it does not say.
    pub order: Option<Order>,
    /// Its message, encoded.
    pub bytes: Bytes,
}

/// A value by which a list is ordered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// Seconds and nanoseconds since 1970.
    Time(i64, i64),
    /// A signed or small number.
    Number(i128),
    /// A text.
    Text(Box<str>),
}

/// Which part of a list is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slice<'a> {
    /// Oldest first, from the start.
    Start,
    /// Oldest first, behind the entry of this key.
    After(&'a str),
    /// The newest ones, newest first.
    Newest,
}

#[derive(Debug)]
struct Tables {
    /// The log's own request.
    input: MessageId,
    /// Numbers of the fields of the stream's messages.
    event: u32,
    item: u32,
    marker: u32,
    resume: Option<FieldIndex>,
    from_now: Option<FieldIndex>,
    follow: Option<FieldIndex>,
    until_settled: Option<FieldIndex>,
    /// From the number of a field of this request to that of the end's request.
    ends: HashMap<u32, u32>,
    /// The number of the `WatchEvent` in the messages of `ends_with`.
    ends_event: u32,
    /// The number of the field by which `ends_with` follows, where that has an end.
    ends_follow: Option<u32>,
    read: Read,
}

/// How a reply is read and the next call made.
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
    },
}

/// A query parameter that the engine sets.
#[derive(Debug)]
struct Param {
    name: Box<str>,
    absent_in: Vec<Box<str>>,
}

/// Whether this rule is one of a log.
pub(in super::super) fn is_log(rule: &rules::Watch) -> bool {
    rule.log.is_some() || rule.text_log.is_some()
}

/// Compiles the log of `method`; the watches among `rpcs` are compiled.
pub(in super::super) fn compile(
    rule: &rules::Watch,
    method: &Method,
    rpcs: &Rpcs<'_>,
    place: &mut Place<'_>,
) -> Option<Log> {
    let schema = &*method.schema;
    let Some(poll) = rpcs.find(&rule.poll) else {
        place.refuse_rule("watch.poll", unknown("poll", &rule.poll));
        return None;
    };
    if method.action.is_some() || poll.action.is_some() {
        place.refuse_rule(
            "watch",
            "an action cannot be watched: it is not to be done twice",
        );
    }
    for (set, option) in [
        (!rule.state.is_empty(), "state"),
        (!rule.ended_well.is_empty(), "ended_well"),
        (!rule.ended_badly.is_empty(), "ended_badly"),
        (!rule.refresh.is_empty(), "refresh"),
        (rule.gone != 0 || !rule.gone_well.is_empty(), "gone"),
        (rule.start.is_some(), "start"),
        (!rule.side.is_empty(), "side"),
        (!rule.hold.is_empty(), "hold"),
        (!rule.follow_after.is_empty(), "follow_after"),
        (rule.unknown.is_some(), "unknown"),
        (rule.fallback.is_some(), "fallback"),
        (!rule.light.is_empty(), "light"),
        (!rule.pin.is_empty(), "pin"),
    ] {
        if set {
            let option = format!("watch.{option}");
            place.refuse_rule(&option, "is not for logs: name a watch in `ends_with`");
        }
    }
    same_call(method, poll, "watch.poll", place);
    let (first, max) = intervals(rule, place);

    let (read, grows, item, marker_kind) = match (&rule.log, &rule.text_log) {
        (Some(log), None) => entries(rule, log, method, poll, place)?,
        (None, Some(log)) => text(rule, log, method, poll, place)?,
        _ => {
            place.refuse_rule("watch.text_log", "stands beside `log`: leave out one");
            return None;
        }
    };
    let (event, item, marker) = stream_fields(method, item, marker_kind, place)?;
    let mut flag = |name: &str, option: &str| {
        let field = local(name, option, method, place)?;
        let table = &schema.message(method.input).fields[usize::from(field)];
        if table.kind != Kind::Bool || !is_one(table) {
            place.refuse_rule(option, format!("`{name}` must be one bool"));
            return None;
        }
        Some(field)
    };
    let follow = flag(&rule.follow, "watch.follow");
    let until_settled = flag(&rule.until_settled, "watch.until_settled");
    let from_now = flag(&rule.from_now, "watch.from_now");
    if from_now.is_some() && matches!(grows, Grows::Text { .. }) {
        place.refuse_rule("watch.from_now", "is for entries: a text has its offsets");
    }
    let resume = resume(rule, method, marker_kind, place);
    let ends = ends(rule, method, rpcs, place);
    let (ends_with, ends, ends_event) = match ends {
        Some((watch, fields, event)) => (Some(watch), fields, event),
        None => (None, HashMap::new(), 0),
    };
    match (&ends_with, follow, until_settled) {
        (None, None, None) | (Some(_), Some(_), None) | (Some(_), None, Some(_)) => {}
        (Some(_), _, _) => place.refuse_rule(
            "watch.ends_with",
            "needs one of `follow` and `until_settled`, which lets a caller choose",
        ),
        (None, _, _) if rule.ends_with.is_empty() => place.refuse_rule(
            "watch.ends_with",
            "is missing: `follow` and `until_settled` speak of the end",
        ),
        (None, _, _) => {}
    }
    let ends_follow = ends_with
        .as_ref()
        .and_then(|ends| ends.watch.as_ref()?.follow_number());
    Some(Log {
        poll: poll.clone(),
        grows,
        ends_with,
        first_interval: first,
        max_interval: max,
        tables: Tables {
            input: method.input,
            event,
            item,
            marker,
            resume,
            from_now,
            follow,
            until_settled,
            ends,
            ends_event,
            ends_follow,
            read,
        },
    })
}

type Compiled = (Read, Grows, MessageId, Kind);

fn entries(
    rule: &rules::Watch,
    log: &rules::EntryLog,
    method: &Method,
    poll: &Method,
    place: &mut Place<'_>,
) -> Option<Compiled> {
    let schema = &*method.schema;
    let (list, item) = match Part::find(schema, poll.output, &rule.item) {
        Ok((Part::List(list), item)) => (list, item),
        Ok(_) => {
            place.refuse_rule("watch.item", "must be a list: its entries are told");
            return None;
        }
        Err(problem) => {
            place.refuse_rule("watch.item", problem);
            return None;
        }
    };
    let message = schema.message(item);
    let key = super::key(rule, true, message, place)?;
    let mut order = None;
    if !log.order.is_empty() {
        match message.field(&log.order) {
            Some((index, field)) if is_order(schema, field) => order = Some(index),
            Some(_) => {
                let problem = format!("`{}` must be a Timestamp, integer or string", log.order);
                place.refuse_rule("watch.log.order", problem);
            }
            None => {
                let problem = format!("{} has no field `{}`", message.name, log.order);
                place.refuse_rule("watch.log.order", problem);
            }
        }
    }
    let marker = param(&log.marker, "watch.log.marker", method, poll, false, place)?;
    let limit = param(&log.limit, "watch.log.limit", method, poll, false, place)?;
    if !marker.absent_in.is_empty() && order.is_none() {
        place.refuse_rule(
            "watch.log.order",
            "is missing: dialects without a marker give the list in no known order",
        );
    }
    for (query, option) in [(&log.ascending, "ascending"), (&log.newest, "newest")] {
        if let Err(problem) = check_query(query) {
            place.refuse_rule(&format!("watch.log.{option}"), problem);
        }
    }
    let page_size = bounded(log.page_size, 100, 1_000, "watch.log.page_size", place);
    let look_back = bounded(log.look_back, 5, 1_000, "watch.log.look_back", place);
    let grows = Grows::Entries {
        page_size: page_size as usize,
        look_back,
    };
    let read = Read::Entries {
        list: schema.message(poll.output).fields[usize::from(list)].number,
        item,
        key,
        order,
        marker,
        limit,
        ascending: log.ascending.as_str().into(),
        newest: log.newest.as_str().into(),
        page_size: page_size as usize,
    };
    Some((read, grows, item, Kind::String))
}

fn text(
    rule: &rules::Watch,
    log: &rules::TextLog,
    method: &Method,
    poll: &Method,
    place: &mut Place<'_>,
) -> Option<Compiled> {
    let schema = &*method.schema;
    if !rule.item.is_empty() || !rule.key.is_empty() {
        place.refuse_rule(
            "watch.item",
            "is not for texts: `text_log.text` says where it is",
        );
    }
    let offset = param(
        &log.offset,
        "watch.text_log.offset",
        method,
        poll,
        true,
        place,
    )?;
    let size = param(&log.size, "watch.text_log.size", method, poll, true, place)?;
    let mut at = poll.output;
    let mut steps = Vec::new();
    let mut names = log.text.split('.').peekable();
    while let Some(name) = names.next() {
        let table = schema.message(at);
        let Some((_, field)) = table.field(name) else {
            let problem = format!("`{}`: {} has no field `{name}`", log.text, table.name);
            place.refuse_rule("watch.text_log.text", problem);
            return None;
        };
        steps.push(field.number);
        match (field.kind, names.peek()) {
            (Kind::Message(below), Some(_)) if field.cardinality != Cardinality::Map => at = below,
            (Kind::String, None) => {}
            _ => {
                let problem = format!("`{}` must lead to a string", log.text);
                place.refuse_rule("watch.text_log.text", problem);
                return None;
            }
        }
    }
    let Some(item) = schema.message_id(LINE) else {
        place.refuse_rule(
            "watch.text_log",
            format!("the stream's messages must have a field of type {LINE}"),
        );
        return None;
    };
    const MOST: u32 = 64 << 20;
    let first_size = bounded(
        log.first_size,
        65_536,
        MOST,
        "watch.text_log.first_size",
        place,
    );
    let max_size = bounded(
        log.max_size,
        4_194_304.max(first_size),
        MOST,
        "watch.text_log.max_size",
        place,
    );
    if first_size > max_size {
        place.refuse_rule("watch.text_log.max_size", "is less than first_size");
    }
    let grows = Grows::Text {
        first_size,
        max_size,
    };
    let read = Read::Text {
        offset,
        size,
        steps,
    };
    Some((read, grows, item, Kind::Int64))
}

fn bounded(given: i32, default: u32, most: u32, option: &str, place: &mut Place<'_>) -> u32 {
    match u32::try_from(given) {
        Ok(0) => default,
        Ok(given) if given <= most => given,
        _ => {
            place.refuse_rule(option, format!("must be 1 to {most}"));
            default
        }
    }
}

fn is_order(schema: &Schema, field: &Field) -> bool {
    let kind = match field.kind {
        Kind::Message(id) => schema.message(id).shape == Shape::Timestamp,
        _ => return is_key(field),
    };
    kind && is_one(field)
}

/// A field of the polled rpc's request that the engine sets in the query.
fn param(
    name: &str,
    option: &str,
    method: &Method,
    poll: &Method,
    number: bool,
    place: &mut Place<'_>,
) -> Option<Param> {
    let schema = &*method.schema;
    let request = schema.message(poll.input);
    let Some((_, field)) = request.field(name) else {
        let problem = match name {
            "" => format!("is missing: name the field of {}", request.name),
            _ => format!("{} has no field `{name}`", request.name),
        };
        place.refuse_rule(option, problem);
        return None;
    };
    let in_path = poll
        .binding
        .path_fields()
        .any(|(_, other)| other.number == field.number && other.name == field.name);
    let fits = match field.kind {
        Kind::String => !number,
        Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64 => true,
        _ => false,
    };
    if !fits || !is_one(field) || in_path || field.local || poll.verb != http::Method::GET {
        let problem = format!("`{name}` must be one query parameter of `{}`", poll.name);
        place.refuse_rule(option, problem);
        return None;
    }
    let own = schema.message(method.input).field(name);
    if own.is_some_and(|(_, own)| !own.local) {
        let problem = format!("`{name}` is set by the watch: take it out of its request");
        place.refuse_rule(option, problem);
    }
    let mut quoted = String::new();
    encode(&field.wire_name, &mut quoted);
    Some(Param {
        name: quoted.into(),
        absent_in: field.absent_in.clone(),
    })
}

/// A field of the log's own request, which must be local; none for no name.
fn local(name: &str, option: &str, method: &Method, place: &mut Place<'_>) -> Option<FieldIndex> {
    if name.is_empty() {
        return None;
    }
    let request = method.schema.message(method.input);
    match request.field(name) {
        Some((index, field)) if field.local => Some(index),
        Some(_) => {
            place.refuse_rule(option, format!("`{name}` must be marked `local`"));
            None
        }
        None => {
            let problem = format!("{} has no field `{name}`", request.name);
            place.refuse_rule(option, problem);
            None
        }
    }
}

fn resume(
    rule: &rules::Watch,
    method: &Method,
    kind: Kind,
    place: &mut Place<'_>,
) -> Option<FieldIndex> {
    let index = local(&rule.resume, "watch.resume", method, place)?;
    let field = &method.schema.message(method.input).fields[usize::from(index)];
    if field.kind != kind || !is_one(field) {
        let problem = format!("`{}` must be one {}", rule.resume, kind_name(kind));
        place.refuse_rule("watch.resume", problem);
        return None;
    }
    Some(index)
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::String => "string",
        _ => "int64",
    }
}

/// The numbers of the event, the item and the marker in the stream's messages.
fn stream_fields(
    method: &Method,
    item: MessageId,
    marker: Kind,
    place: &mut Place<'_>,
) -> Option<(u32, u32, u32)> {
    let schema = &*method.schema;
    let message = schema.message(method.output);
    let event = event_number(schema, method.output);
    let of = |kind: Kind| {
        let mut fields = message
            .fields
            .iter()
            .filter(move |field| field.kind == kind && is_one(field));
        fields.next().filter(|_| fields.next().is_none())
    };
    if let (Some(event), Some(item), Some(marker), 3) = (
        event,
        of(Kind::Message(item)),
        of(marker),
        message.fields.len(),
    ) {
        return Some((event, item.number, marker.number));
    }
    let problem = format!(
        "{} must have three fields: one {EVENT}, one {} and one {} that takes the marker",
        message.name,
        schema.message(item).name,
        kind_name(marker)
    );
    place.refuse_rule("watch", problem);
    None
}

/// The number of the one field that holds a [`WatchEvent`].
fn event_number(schema: &Schema, message: MessageId) -> Option<u32> {
    let is_event = |field: &&Field| match field.kind {
        Kind::Message(id) => &*schema.message(id).name == EVENT && is_one(field),
        _ => false,
    };
    let mut events = schema.message(message).fields.iter().filter(is_event);
    let event = events.next()?.number;
    events.next().is_none().then_some(event)
}

type Ends = (Arc<Method>, HashMap<u32, u32>, u32);

fn ends(
    rule: &rules::Watch,
    method: &Method,
    rpcs: &Rpcs<'_>,
    place: &mut Place<'_>,
) -> Option<Ends> {
    const OPTION: &str = "watch.ends_with";
    let name = &*rule.ends_with;
    if name.is_empty() {
        return None;
    }
    let found = rpcs.watch(name).filter(|other| {
        other.family == method.family
            && other
                .watch
                .as_ref()
                .is_some_and(|watch| !watch.list && watch.start.is_none())
    });
    let Some(watch) = found else {
        let problem = format!("`{name}` is not a watch of one thing in this family");
        place.refuse_rule(OPTION, problem);
        return None;
    };
    let schema = &*method.schema;
    let ours = schema.message(method.input);
    let theirs = schema.message(watch.input);
    let mut fields = HashMap::new();
    for field in &theirs.fields {
        let named = rule.ends_fields.get(&*field.name);
        let named = named.map_or(&*field.name, String::as_str);
        let same = ours.field(named).filter(|(_, own)| {
            (own.kind, own.cardinality) == (field.kind, field.cardinality)
                && !own.local
                && !field.local
        });
        match same {
            Some((_, own)) => {
                fields.insert(own.number, field.number);
            }
            None if field.required => {
                let problem = format!(
                    "`{name}`: nothing fills its REQUIRED field `{}`",
                    field.name
                );
                place.refuse_rule(OPTION, problem);
            }
            None => {}
        }
    }
    for (theirs_name, own) in &rule.ends_fields {
        let there = theirs.field(theirs_name);
        let fills = there.is_some_and(|(_, field)| fields.values().any(|n| *n == field.number));
        if !fills {
            let problem = format!("`{own}` cannot fill `{theirs_name}` of `{name}`");
            place.refuse_rule("watch.ends_fields", problem);
        }
    }
    let event = event_number(schema, watch.output)?;
    Some((Arc::clone(watch), fields, event))
}

impl Log {
    /// Where the caller wants to begin: the key of the last entry not to be told,
    /// or the offset as text. None: at the start.
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
            match wire::last(request, field.number).map_err(malformed)? {
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

    /// The name of the field that says where to begin.
    pub fn resume_name(&self) -> &str {
        let name = |index| &*self.input().fields[usize::from(index)].name;
        self.tables.resume.map_or("", name)
    }

    /// Whether the caller wants to leave out what is there already.
    pub fn from_now(&self, request: &[u8]) -> bool {
        self.flag(self.tables.from_now, request)
    }

    /// Whether the log is to end with the watch that `ends_with` names.
    pub fn settles(&self, request: &[u8]) -> bool {
        match (&self.ends_with, self.tables.until_settled) {
            (None, _) => false,
            (Some(_), Some(flag)) => self.flag(Some(flag), request),
            (Some(_), None) => {
                self.tables.ends_follow.is_some() || !self.flag(self.tables.follow, request)
            }
        }
    }

    /// The request of the watch that `ends_with` names, of the log's own.
    pub fn ends_request(&self, request: &[u8]) -> Result<Bytes, Error> {
        let mut out = Vec::with_capacity(request.len());
        for item in wire::fields(request) {
            let (number, value) = item.map_err(malformed)?;
            let Some(&number) = self.tables.ends.get(&number) else {
                continue;
            };
            match value {
                Value::Bytes(bytes) => wire::write_bytes(&mut out, number, bytes),
                Value::Varint(value) => wire::write_uint(&mut out, number, value),
                Value::Fixed64(value) => {
                    wire::write_varint(&mut out, u64::from(number) << 3 | 1);
                    out.extend_from_slice(&value.to_le_bytes());
                }
                Value::Fixed32(value) => {
                    wire::write_varint(&mut out, u64::from(number) << 3 | 5);
                    out.extend_from_slice(&value.to_le_bytes());
                }
            }
        }
        if let Some(number) = self.tables.ends_follow
            && self.flag(self.tables.follow, request)
        {
            wire::write_uint(&mut out, number, 1);
        }
        Ok(out.into())
    }

    /// The event in a message of the watch that `ends_with` names.
    pub fn ends_event(&self, message: &[u8]) -> Option<WatchEvent> {
        let event = wire::message(message, self.tables.ends_event).ok()??;
        WatchEvent::decode(&*event).ok()
    }

    /// Whether the dialect reads the list in pages.
    pub fn pages(&self, dialect: &str) -> bool {
        match &self.tables.read {
            Read::Entries { marker, .. } => marker.is_in(dialect),
            Read::Text { .. } => true,
        }
    }

    /// Entries only: the call that reads this slice; `call` is the bound request.
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
        add(
            query,
            if slice == Slice::Newest {
                newest
            } else {
                ascending
            },
        );
        limit.add(query, dialect, &page_size.to_string());
        if let Slice::After(key) = slice {
            marker.add(query, dialect, key);
        }
        call
    }

    /// Entries only: those in a response of the polled rpc, in its order.
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
        let items = wire::all(response, *list).map_err(|problem| Error::Decode {
            path: String::new(),
            problem: problem.to_string(),
        })?;
        items
            .into_iter()
            .map(|item| {
                Ok(Entry {
                    key: super::key_text(schema, key, item)?,
                    order: order
                        .map(|field| order_of(schema, field, item))
                        .transpose()?
                        .flatten(),
                    bytes: response.slice_ref(item),
                })
            })
            .collect()
    }

    /// Texts only: the call that reads at most `size` bytes from `offset` on.
    pub fn text_call(&self, call: &Call, dialect: &str, from: u64, bytes: u32) -> Call {
        let mut call = call.clone();
        if let Read::Text { offset, size, .. } = &self.tables.read {
            offset.add(&mut call.query, dialect, &from.to_string());
            size.add(&mut call.query, dialect, &bytes.to_string());
        }
        call
    }

    /// Texts only: the text in a response of the polled rpc; empty where there is
    /// none.
    pub fn text(&self, response: &[u8]) -> Result<String, Error> {
        let Read::Text { steps, .. } = &self.tables.read else {
            return Ok(String::new());
        };
        let fault = |problem: String| Error::Decode {
            path: String::new(),
            problem,
        };
        let mut parts = vec![response];
        for step in steps {
            let mut below = Vec::new();
            for part in parts {
                below.extend(wire::all(part, *step).map_err(|p| fault(p.to_string()))?);
            }
            parts = below;
        }
        String::from_utf8(parts.concat()).map_err(|_| fault("the text is not UTF-8".into()))
    }

    /// Encodes a line of a text as the item of a message.
    pub fn line(text: &str, offset: u64) -> Bytes {
        let mut line = Vec::with_capacity(text.len() + 16);
        wire::write_bytes(&mut line, LINE_TEXT, text.as_bytes());
        if offset > 0 {
            wire::write_uint(&mut line, LINE_OFFSET, offset);
        }
        line.into()
    }

    /// Encodes a message of the stream; `marker` is where to resume behind it.
    pub fn message(&self, event: &WatchEvent, item: Option<&[u8]>, marker: &str) -> Bytes {
        let tables = &self.tables;
        let event = event.encode_to_vec();
        let length = event.len() + item.map_or(0, <[u8]>::len) + marker.len() + 32;
        let mut message = Vec::with_capacity(length);
        wire::write_bytes(&mut message, tables.event, &event);
        if let Some(item) = item {
            wire::write_bytes(&mut message, tables.item, item);
        }
        match (&self.grows, marker.parse()) {
            (Grows::Text { .. }, Ok(0)) => {}
            (Grows::Text { .. }, Ok(offset)) => {
                wire::write_uint(&mut message, tables.marker, offset);
            }
            _ if marker.is_empty() => {}
            _ => wire::write_bytes(&mut message, tables.marker, marker.as_bytes()),
        }
        message.into()
    }

    fn input(&self) -> &super::super::schema::Message {
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
        !self.absent_in.iter().any(|absent| **absent == *dialect)
    }

    fn add(&self, query: &mut String, dialect: &str, value: &str) {
        if self.is_in(dialect) {
            add(query, &self.name);
            query.push('=');
            encode(value, query);
        }
    }
}

fn add(query: &mut String, text: &str) {
    if !query.is_empty() && !text.is_empty() {
        query.push('&');
    }
    query.push_str(text);
}

/// Where an entry stands in the order of its list; none when it does not say.
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
    let text = transcode::text(schema, field, value).map_err(|problem| Error::Decode {
        path: field.name.to_string(),
        problem: problem.problem,
    })?;
    Ok(Some(match (field.kind, text.parse()) {
        (Kind::String, _) | (_, Err(_)) => Order::Text(text.into()),
        (_, Ok(number)) => Order::Number(number),
    }))
}
