//! Watches: what to look at in the replies of the polled rpc, as tables.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;

use super::bind::malformed;
use super::compile::Place;
use super::schema::{Cardinality, EnumId, Field, FieldIndex, Kind, Message, MessageId, Schema};
use super::view::{View, descend};
use super::{Method, Outcome, Watch};
use crate::api::drawbridge::v1::{self as rules, WatchEvent};
use crate::error::Error;
use crate::rest::Call;
use crate::transcode;
use crate::transcode::wire::{self, Malformed, Value};

/// The name of the message that every message of a watch has.
const EVENT: &str = "drawbridge.v1.WatchEvent";

/// Where things stand in the messages of a watch.
#[derive(Debug)]
pub(super) struct Tables {
    /// The watch's own request.
    input: MessageId,
    follow: Option<FieldIndex>,
    item: Item,
    /// The type of what is watched.
    item_type: MessageId,
    key: Option<FieldIndex>,
    state: Option<State>,
    /// Numbers of the fields of the stream's messages.
    event_number: u32,
    item_number: u32,
    refresh: Option<Refresh>,
}

/// What is watched, in the reply of the polled rpc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    /// All of it.
    Whole,
    /// The message in this field.
    Field(FieldIndex),
    /// Each message of this list.
    List(FieldIndex),
}

/// The state of an item and what it means.
#[derive(Debug)]
struct State {
    /// The messages to step into, and then the field.
    steps: Vec<FieldIndex>,
    message: MessageId,
    index: FieldIndex,
    well: Vec<Ended>,
    badly: Vec<Ended>,
}

/// A state at which an item has settled.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Text(Box<str>),
    Number(i32),
}

/// How the request for one item is made of the request for the list.
#[derive(Debug)]
struct Refresh {
    /// Fields that stand in both paths: number in the list's request, and in the
    /// item's.
    copied: Vec<(u32, u32)>,
    /// The field that takes the key.
    number: u32,
    kind: Kind,
    /// The field of the response that holds the item; none when it is the item.
    item: Option<u32>,
}

/// Compiles the watch of `method`, whose rpcs are among `methods`.
pub(super) fn compile(
    rule: &rules::Watch,
    method: &Method,
    methods: &[Arc<Method>],
    place: &mut Place<'_>,
) -> Option<Watch> {
    let schema = &*method.schema;
    let Some(poll) = find(&rule.poll, methods) else {
        place.refuse_rule("watch.poll", unknown("poll", &rule.poll));
        return None;
    };
    if method.action.is_some() || poll.action.is_some() {
        place.refuse_rule(
            "watch",
            "an action cannot be watched: it is not to be done twice",
        );
    }
    same_call(method, poll, place);

    let (item, item_type) = item(rule, schema, poll, place)?;
    let list = matches!(item, Item::List(_));
    let message = schema.message(item_type);
    let key = key(rule, list, message, place);
    let state = state(rule, schema, item_type, place);
    let (event_number, item_number) = stream_fields(method, item_type, place)?;
    let follow = follow(rule, method, place);
    let refresh = refresh(rule, list.then_some(item_type), method, methods, place);
    if let (Some((_, table)), Some(key)) = (&refresh, key)
        && message.fields[usize::from(key)].kind != table.kind
    {
        place.refuse_rule(
            "watch.refresh",
            format!(
                "`{}` takes a key of another type than `{}`",
                rule.refresh, rule.key
            ),
        );
    }
    if rules::Gone::try_from(rule.gone).is_err() {
        place.refuse_rule("watch.gone", "is not a value that is known");
    }
    let first_interval = interval(rule.first_interval.as_ref(), "first_interval", place);
    let max_interval = interval(rule.max_interval.as_ref(), "max_interval", place);
    let first = first_interval.unwrap_or(Duration::from_secs(1));
    let max = max_interval.unwrap_or(Duration::from_secs(10).max(first));
    // A longest pause that is given bounds the default of the first one, too.
    let first = if first_interval.is_none() {
        first.min(max)
    } else {
        first
    };
    if first > max {
        place.refuse_rule("watch.max_interval", "is shorter than first_interval");
    }
    let (refresh_rpc, refresh) = refresh.unzip();
    Some(Watch {
        poll: poll.clone(),
        refresh: refresh_rpc,
        list,
        first_interval: first,
        max_interval: max,
        gone_ends_well: rule.gone() == rules::Gone::EndsWell,
        tables: Tables {
            input: method.input,
            follow,
            item,
            item_type,
            key,
            state,
            event_number,
            item_number,
            refresh,
        },
    })
}

fn find<'m>(name: &str, methods: &'m [Arc<Method>]) -> Option<&'m Arc<Method>> {
    methods
        .iter()
        .find(|method| *method.name == *name && method.watch.is_none())
}

fn unknown(rule: &str, name: &str) -> String {
    if name.is_empty() {
        return format!("is missing: name the rpc to {rule}");
    }
    format!("`{name}` is not a unary rpc of this service that can be served")
}

/// The watch's own request makes the polls, so its route and fields must be those
/// of the polled rpc.
fn same_call(method: &Method, poll: &Method, place: &mut Place<'_>) {
    if (&method.verb, &method.template) != (&poll.verb, &poll.template) {
        let problem = format!(
            "`{}` is {} {}, the watch is {} {}: the routes must be the same",
            poll.name, poll.verb, poll.template, method.verb, method.template
        );
        place.refuse_rule("watch.poll", problem);
        return;
    }
    let schema = &*method.schema;
    let (ours, theirs) = (schema.message(method.input), schema.message(poll.input));
    for field in ours.fields.iter().filter(|field| !field.local) {
        let same = theirs.field(&field.name).is_some_and(|(_, known)| {
            (known.kind, known.cardinality, &known.wire_name)
                == (field.kind, field.cardinality, &field.wire_name)
        });
        if !same {
            let problem = format!(
                "the field `{}` of {} is not one of {}: name it alike, or mark it `local`",
                field.name, ours.name, theirs.name
            );
            place.refuse_rule("watch.poll", problem);
        }
    }
    for field in theirs.fields.iter().filter(|field| field.required) {
        if ours
            .field(&field.name)
            .is_none_or(|(_, known)| !known.required)
        {
            let problem = format!(
                "the field `{}` is REQUIRED in {} and must be so in {}",
                field.name, theirs.name, ours.name
            );
            place.refuse_rule("watch.poll", problem);
        }
    }
}

fn item(
    rule: &rules::Watch,
    schema: &Schema,
    poll: &Method,
    place: &mut Place<'_>,
) -> Option<(Item, MessageId)> {
    if rule.item.is_empty() {
        return Some((Item::Whole, poll.output));
    }
    let output = schema.message(poll.output);
    let Some((index, field)) = output.field(&rule.item) else {
        let problem = format!("{} has no field `{}`", output.name, rule.item);
        place.refuse_rule("watch.item", problem);
        return None;
    };
    match (field.kind, field.cardinality) {
        (Kind::Message(id), Cardinality::Repeated) => Some((Item::List(index), id)),
        (Kind::Message(id), Cardinality::Explicit) => Some((Item::Field(index), id)),
        _ => {
            let problem = format!("`{}` must be a message or a list of messages", rule.item);
            place.refuse_rule("watch.item", problem);
            None
        }
    }
}

fn key(
    rule: &rules::Watch,
    list: bool,
    item: &Message,
    place: &mut Place<'_>,
) -> Option<FieldIndex> {
    match (list, rule.key.is_empty()) {
        (false, true) => return None,
        (false, false) => {
            place.refuse_rule("watch.key", "is for lists; what is watched is one thing");
            return None;
        }
        (true, true) => {
            place.refuse_rule(
                "watch.key",
                "is missing: name the field that tells the items of the list apart",
            );
            return None;
        }
        (true, false) => {}
    }
    let Some((index, field)) = item.field(&rule.key) else {
        let problem = format!("{} has no field `{}`", item.name, rule.key);
        place.refuse_rule("watch.key", problem);
        return None;
    };
    if !is_key(field) {
        let problem = format!("`{}` must be one string or integer", rule.key);
        place.refuse_rule("watch.key", problem);
    }
    Some(index)
}

/// Whether a field can hold the identity of an item.
fn is_key(field: &Field) -> bool {
    let kind = matches!(
        field.kind,
        Kind::String | Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64
    );
    kind && matches!(
        field.cardinality,
        Cardinality::Implicit | Cardinality::Explicit
    )
}

fn state(
    rule: &rules::Watch,
    schema: &Schema,
    item: MessageId,
    place: &mut Place<'_>,
) -> Option<State> {
    if rule.state.is_empty() {
        if !rule.ended_well.is_empty() || !rule.ended_badly.is_empty() {
            place.refuse_rule(
                "watch.state",
                "is missing: name the field that ended_well and ended_badly speak of",
            );
        }
        return None;
    }
    let mut message = item;
    let mut steps = Vec::new();
    let mut names = rule.state.split('.').peekable();
    let index = loop {
        let name = names.next()?;
        let table = schema.message(message);
        let Some((index, field)) = table.field(name) else {
            let problem = format!("`{}`: {} has no field `{name}`", rule.state, table.name);
            place.refuse_rule("watch.state", problem);
            return None;
        };
        let one = matches!(
            field.cardinality,
            Cardinality::Implicit | Cardinality::Explicit
        );
        match (field.kind, names.peek()) {
            (Kind::Message(below), Some(_)) if one => {
                steps.push(index);
                message = below;
            }
            (Kind::String | Kind::Enum(_), None) if one => break index,
            (_, Some(_)) => {
                let problem = format!("`{}`: `{name}` is not one message", rule.state);
                place.refuse_rule("watch.state", problem);
                return None;
            }
            (_, None) => {
                let problem = format!("`{}` must be one string or enum", rule.state);
                place.refuse_rule("watch.state", problem);
                return None;
            }
        }
    };
    let kind = schema.message(message).fields[usize::from(index)].kind;
    let mut read = |texts: &[String], option: &str| {
        let mut ended = Vec::new();
        for text in texts {
            match ended_at(schema, kind, text) {
                Ok(state) => ended.push(state),
                Err(problem) => place.refuse_rule(option, problem),
            }
        }
        ended
    };
    let well = read(&rule.ended_well, "watch.ended_well");
    let badly = read(&rule.ended_badly, "watch.ended_badly");
    if let Some(both) = rule
        .ended_badly
        .iter()
        .find(|t| rule.ended_well.contains(t))
    {
        let problem = format!("`{both}` stands in ended_well, too");
        place.refuse_rule("watch.ended_badly", problem);
    }
    Some(State {
        steps,
        message,
        index,
        well,
        badly,
    })
}

fn ended_at(schema: &Schema, kind: Kind, text: &str) -> Result<Ended, String> {
    let Kind::Enum(EnumId(id)) = kind else {
        return Ok(Ended::Text(text.into()));
    };
    let table = &schema.enums[id as usize];
    match table.number(text) {
        Some(number) => Ok(Ended::Number(number)),
        None => {
            let known: Vec<&str> = table.values.iter().map(|value| &*value.text).collect();
            Err(format!(
                "`{text}` is not a REST text of {}: it has {}",
                table.name,
                known.join(", ")
            ))
        }
    }
}

/// The numbers of the fields of the stream's messages: the event's, the item's.
fn stream_fields(method: &Method, item: MessageId, place: &mut Place<'_>) -> Option<(u32, u32)> {
    let schema = &*method.schema;
    let message = schema.message(method.output);
    let is_event = |field: &&Field| match field.kind {
        Kind::Message(id) => &*schema.message(id).name == EVENT,
        _ => false,
    };
    let events: Vec<&Field> = message.fields.iter().filter(is_event).collect();
    let others: Vec<&Field> = message.fields.iter().filter(|f| !is_event(f)).collect();
    if let ([event], [other]) = (&*events, &*others)
        && event.cardinality == Cardinality::Explicit
        && (other.kind, other.cardinality) == (Kind::Message(item), Cardinality::Explicit)
    {
        return Some((event.number, other.number));
    }
    let problem = format!(
        "{} must have two fields: one {EVENT} and one {}",
        message.name,
        schema.message(item).name
    );
    place.refuse_rule("watch", problem);
    None
}

fn follow(rule: &rules::Watch, method: &Method, place: &mut Place<'_>) -> Option<FieldIndex> {
    if rule.follow.is_empty() {
        return None;
    }
    let request = method.schema.message(method.input);
    let Some((index, field)) = request.field(&rule.follow) else {
        let problem = format!("{} has no field `{}`", request.name, rule.follow);
        place.refuse_rule("watch.follow", problem);
        return None;
    };
    let one = matches!(
        field.cardinality,
        Cardinality::Implicit | Cardinality::Explicit
    );
    if field.kind != Kind::Bool || !one {
        place.refuse_rule(
            "watch.follow",
            format!("`{}` must be one bool", rule.follow),
        );
    }
    Some(index)
}

fn refresh(
    rule: &rules::Watch,
    item: Option<MessageId>,
    method: &Method,
    methods: &[Arc<Method>],
    place: &mut Place<'_>,
) -> Option<(Arc<Method>, Refresh)> {
    if rule.refresh.is_empty() {
        return None;
    }
    let Some(item) = item else {
        place.refuse_rule(
            "watch.refresh",
            "is for lists; what is watched is one thing",
        );
        return None;
    };
    let Some(rpc) = find(&rule.refresh, methods) else {
        place.refuse_rule("watch.refresh", unknown("refresh", &rule.refresh));
        return None;
    };
    let schema = &*method.schema;
    let ours = schema.message(method.input);
    let mut copied = Vec::new();
    let mut keys = Vec::new();
    for (steps, field) in rpc.binding.path_fields() {
        let known = ours.field(&field.name).filter(|(index, known)| {
            known.kind == field.kind
                && method.binding.path_fields().any(|(s, f)| {
                    s.is_empty() && f.number == ours.fields[usize::from(*index)].number
                })
        });
        match known {
            Some((_, known)) if steps.is_empty() => copied.push((known.number, field.number)),
            // The upstream's own stands in.
            None if field.project_id => {}
            _ => keys.push((steps, field)),
        }
    }
    let [(steps, key)] = &*keys else {
        let problem = format!(
            "`{}` must have one path field beside those of the watch, for the key: it has {}",
            rule.refresh,
            keys.len()
        );
        place.refuse_rule("watch.refresh", problem);
        return None;
    };
    if !steps.is_empty() || !is_key(key) {
        let problem = format!(
            "`{}`: the path field must be a string or integer",
            rule.refresh
        );
        place.refuse_rule("watch.refresh", problem);
        return None;
    }
    let theirs = schema.message(rpc.input);
    for field in theirs.fields.iter().filter(|field| field.required) {
        let filled = field.number == key.number
            || field.project_id
            || copied.iter().any(|(_, number)| *number == field.number);
        if !filled {
            let problem = format!(
                "`{}`: nothing fills its REQUIRED field `{}`",
                rule.refresh, field.name
            );
            place.refuse_rule("watch.refresh", problem);
        }
    }
    let response = schema.message(rpc.output);
    let holds = |field: &&Field| {
        (field.kind, field.cardinality) == (Kind::Message(item), Cardinality::Explicit)
    };
    let mut holders = response.fields.iter().filter(holds);
    let item = match (rpc.output == item, holders.next(), holders.next()) {
        (true, _, _) => None,
        (false, Some(holder), None) => Some(holder.number),
        _ => {
            let problem = format!(
                "{} must have one field of type {}",
                response.name,
                schema.message(item).name
            );
            place.refuse_rule("watch.refresh", problem);
            return None;
        }
    };
    let table = Refresh {
        copied,
        number: key.number,
        kind: key.kind,
        item,
    };
    Some((rpc.clone(), table))
}

fn interval(
    given: Option<&prost_types::Duration>,
    option: &str,
    place: &mut Place<'_>,
) -> Option<Duration> {
    match Duration::try_from(*given?) {
        Ok(pause) if (Duration::from_millis(10)..=Duration::from_secs(86_400)).contains(&pause) => {
            Some(pause)
        }
        _ => {
            place.refuse_rule(&format!("watch.{option}"), "must be 10 ms to 1 day");
            None
        }
    }
}

impl Watch {
    /// Whether the request asks to go on after settling.
    pub fn follows(&self, request: &[u8]) -> bool {
        let Some(index) = self.tables.follow else {
            return false;
        };
        let field = &self.schema().message(self.tables.input).fields[usize::from(index)];
        matches!(wire::last(request, field.number), Ok(Some(Value::Varint(set))) if set != 0)
    }

    /// What is watched, in a response message of the polled rpc: the item, the
    /// whole, or each item of the list, as slices of `response` without a copy. An
    /// item that is not there is `Error::Decode`.
    pub fn items(&self, response: &Bytes) -> Result<Vec<Bytes>, Error> {
        let output = self.schema().message(self.poll.output);
        match self.tables.item {
            Item::Whole => Ok(vec![response.clone()]),
            Item::List(index) => {
                let field = &output.fields[usize::from(index)];
                let items = wire::all(response, field.number).map_err(|p| broken(field, p))?;
                Ok(items
                    .into_iter()
                    .map(|item| response.slice_ref(item))
                    .collect())
            }
            Item::Field(index) => {
                let field = &output.fields[usize::from(index)];
                member(response, field).map(|item| vec![item])
            }
        }
    }

    /// Lists only: the identity of an item. One without is `Error::Decode`.
    pub fn key(&self, item: &[u8]) -> Result<Box<str>, Error> {
        let schema = self.schema();
        let Some(index) = self.tables.key else {
            return Ok("".into());
        };
        let field = &schema.message(self.tables.item_type).fields[usize::from(index)];
        let fault = |problem: String| Error::Decode {
            path: field.name.to_string(),
            problem,
        };
        let value = wire::last(item, field.number).map_err(|p| broken(field, p))?;
        let text = match value {
            Some(value) => {
                transcode::text(schema, field, value).map_err(|problem| fault(problem.problem))?
            }
            None => String::new(),
        };
        if text.is_empty() {
            return Err(fault(
                "is missing, and is what tells the items apart".into(),
            ));
        }
        Ok(text.into())
    }

    /// Lists with `refresh` only: the call that reads the item of this key, from
    /// the list's own request. Fields that both paths have are taken over.
    pub fn refresh_call(&self, request: &[u8], key: &str, dialect: &str) -> Result<Call, Error> {
        let (Some(rpc), Some(table)) = (&self.refresh, &self.tables.refresh) else {
            return Err(Error::Malformed("the watch has no refresh".into()));
        };
        let mut wire = Vec::with_capacity(64 + key.len());
        for (from, to) in &table.copied {
            match wire::last(request, *from).map_err(malformed)? {
                Some(Value::Bytes(bytes)) => wire::write_bytes(&mut wire, *to, bytes),
                Some(Value::Varint(number)) => wire::write_uint(&mut wire, *to, number),
                _ => {}
            }
        }
        match table.kind {
            Kind::String => wire::write_bytes(&mut wire, table.number, key.as_bytes()),
            _ => {
                // Negative numbers stand as their 64-bit complement, as protobuf has them.
                let number = key
                    .parse::<i64>()
                    .map(|number| number as u64)
                    .or_else(|_| key.parse::<u64>())
                    .map_err(|_| Error::Malformed(format!("`{key}` is not a number")))?;
                wire::write_uint(&mut wire, table.number, number);
            }
        }
        rpc.bind(&wire, dialect)
    }

    /// Lists with `refresh` only: the item in a response of the refresh rpc, as a
    /// slice without a copy. One that is not there is `Error::Decode`.
    pub fn refreshed(&self, response: &Bytes) -> Result<Bytes, Error> {
        let Some(number) = self.tables.refresh.as_ref().and_then(|table| table.item) else {
            return Ok(response.clone());
        };
        let output = self.refresh.as_ref().unwrap_or(&self.poll).output;
        match self.schema().message(output).by_number(number) {
            Some((_, field)) => member(response, field),
            None => Ok(response.clone()),
        }
    }

    /// Whether the item has settled. A state that is not told or not known has not.
    pub fn outcome(&self, item: &[u8]) -> Outcome {
        let Some(state) = &self.tables.state else {
            return Outcome::Open;
        };
        self.with_state(item, state, |schema, field, value| {
            let is = |ended: &Ended| match (ended, field.kind, value) {
                (Ended::Text(text), Kind::String, Value::Bytes(value)) => text.as_bytes() == value,
                // Enums are sign-extended to 64 bits on the wire.
                (Ended::Number(number), Kind::Enum(_), Value::Varint(value)) => {
                    *number == value as i32
                }
                // The raw text of an enum, where that is not set.
                (Ended::Number(number), Kind::String, Value::Bytes(value)) => {
                    let known = std::str::from_utf8(value).ok();
                    let states = &schema.message(state.message).fields[usize::from(state.index)];
                    match (states.kind, known) {
                        (Kind::Enum(id), Some(text)) => {
                            schema.enumeration(id).number(text) == Some(*number)
                        }
                        _ => false,
                    }
                }
                _ => false,
            };
            if state.well.iter().any(is) {
                Outcome::EndedWell
            } else if state.badly.iter().any(is) {
                Outcome::EndedBadly
            } else {
                Outcome::Open
            }
        })
        .unwrap_or(Outcome::Open)
    }

    /// The state of the item as the REST API has it, for logs; none when it is not
    /// told. At most 100 characters.
    pub fn state_text(&self, item: &[u8]) -> Option<String> {
        let state = self.tables.state.as_ref()?;
        self.with_state(item, state, |schema, field, value| {
            let text = transcode::text(schema, field, value).ok()?;
            Some(text.chars().take(100).collect())
        })?
    }

    /// Encodes a message of the stream.
    pub fn message(&self, event: &WatchEvent, item: Option<&[u8]>) -> Bytes {
        let event = event.encode_to_vec();
        let mut message = Vec::with_capacity(event.len() + item.map_or(0, <[u8]>::len) + 24);
        wire::write_bytes(&mut message, self.tables.event_number, &event);
        if let Some(item) = item {
            wire::write_bytes(&mut message, self.tables.item_number, item);
        }
        message.into()
    }

    /// Calls `read` with the state of the item, or with the raw text kept beside it.
    fn with_state<T>(
        &self,
        item: &[u8],
        state: &State,
        read: impl FnOnce(&Schema, &Field, Value<'_>) -> T,
    ) -> Option<T> {
        let schema = self.schema();
        let (id, wire) = descend(schema, self.tables.item_type, item, &state.steps).ok()??;
        let view = View::of(schema, id, &wire).ok()?;
        let field = view.field(state.index);
        let unset = matches!(view.value(state.index), None | Some(Value::Varint(0)));
        let index = match field.raw {
            Some(raw) if unset => raw,
            _ => state.index,
        };
        let value = view.value(index)?;
        Some(read(schema, view.field(index), value))
    }

    fn schema(&self) -> &Schema {
        &self.poll.schema
    }
}

/// The message in a field of `response`, as a slice of it; copied only when it
/// stands in parts.
fn member(response: &Bytes, field: &Field) -> Result<Bytes, Error> {
    match wire::message(response, field.number).map_err(|p| broken(field, p))? {
        Some(Cow::Borrowed(item)) => Ok(response.slice_ref(item)),
        Some(Cow::Owned(item)) => Ok(item.into()),
        None => Err(Error::Decode {
            path: field.name.to_string(),
            problem: "is missing, and is what is watched".into(),
        }),
    }
}

fn broken(field: &Field, problem: Malformed) -> Error {
    Error::Decode {
        path: field.name.to_string(),
        problem: problem.to_string(),
    }
}
