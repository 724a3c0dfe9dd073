//! Watches: what to look at in the replies of the polled rpc, as tables.
//!
//! `spot` is a field somewhere in a message, `state` what its value means,
//! `take` how the request of a further call is made, `calls` those calls.

mod calls;
mod spot;
mod state;
mod take;

pub(super) mod log;

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;

use super::bind::malformed;
use super::place::Place;
use super::schema::{Cardinality, Field, FieldIndex, Kind, Message, MessageId, Schema};
use super::{Method, Outcome, Watch};
use crate::api::drawbridge::v1::{self as rules, WatchEvent};
use crate::error::Error;
use crate::rest::Call;
use crate::transcode;
use crate::transcode::wire::{self, Malformed, Value};
use calls::Around;
pub use calls::{Fallback, Find, Found, SideRead, Start};
use spot::{Part, Spot, is_one};
pub use state::{Held, Hold};
use state::{State, States, Unknown, Written};
use take::{Filling, Sources, Types};

/// The name of the message that every message of a watch has.
const EVENT: &str = "drawbridge.v1.WatchEvent";

/// Where things stand in the messages of a watch.
#[derive(Debug)]
pub(super) struct Tables {
    /// The watch's own request.
    input: MessageId,
    /// The messages of its stream.
    output: MessageId,
    follow: Option<FieldIndex>,
    item: Part,
    /// The type of what is watched.
    item_type: MessageId,
    key: Option<FieldIndex>,
    /// What identifies an item together with its key.
    key_with: Vec<Spot>,
    state: Option<State>,
    /// Numbers of the fields of the stream's messages.
    event_number: u32,
    item_number: u32,
    refresh: Option<Refresh>,
    /// States after which it is a good end that the thing is gone.
    gone_well: States,
    /// Settled states after which those who follow go on; all, where there is none.
    follow_after: States,
    unknown: Option<Unknown>,
    /// Number of the field of the poll's request that makes it cheaper when false.
    light: Option<u32>,
    pin: Filling,
    /// The watch's request as that of the poll: numbers here and there.
    fields: Vec<(u32, u32)>,
    /// Numbers of the fields of the watch's request that further calls look at.
    aside: BTreeSet<u32>,
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

/// The rpcs that a watch can name.
pub(super) struct Rpcs<'a> {
    /// The full name of its own service.
    pub service: &'a str,
    /// All that are unary, by gRPC path.
    pub methods: &'a HashMap<Box<str>, Arc<Method>>,
    /// Those of its own descriptor set count.
    pub schema: &'a Arc<Schema>,
}

impl Rpcs<'_> {
    /// The rpc `GetJob` of the same service, or `JobService.GetJob` of the package.
    pub fn find(&self, name: &str) -> Option<&Arc<Method>> {
        self.named(name)
            .filter(|rpc| !rpc.is_stream() && rpc.upload.is_none())
    }

    /// As [`Rpcs::find`], for a watch.
    pub fn watch(&self, name: &str) -> Option<&Arc<Method>> {
        self.named(name).filter(|rpc| rpc.watch.is_some())
    }

    fn named(&self, name: &str) -> Option<&Arc<Method>> {
        let path = match name.split_once('.') {
            None => format!("/{}/{name}", self.service),
            Some((service, name)) => match self.service.rsplit_once('.') {
                Some((package, _)) => format!("/{package}.{service}/{name}"),
                None => format!("/{service}/{name}"),
            },
        };
        let rpc = self.methods.get(&*path)?;
        Arc::ptr_eq(&rpc.schema, self.schema).then_some(rpc)
    }
}

/// Compiles the watch of `method`.
pub(super) fn compile(
    rule: &rules::Watch,
    method: &Method,
    rpcs: &Rpcs<'_>,
    place: &mut Place<'_>,
) -> Option<Watch> {
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
    if rule.start.is_none() {
        same_call(method, poll, "watch.poll", place);
    }

    let (item, item_type) = Part::find(schema, poll.output, &rule.item)
        .map_err(|problem| place.refuse_rule("watch.item", problem))
        .ok()?;
    let list = matches!(item, Part::List(_));
    let message = schema.message(item_type);
    let key = key(rule, list, message, place);
    let key_with = key_with(rule, list, schema, item_type, place);
    let written = Written {
        state: &rule.state,
        well: &rule.ended_well,
        badly: &rule.ended_badly,
        option: "watch",
    };
    let state = State::compile(&written, schema, item_type, place);
    let (event_number, item_number) = stream_fields(rule, method, item_type, place)?;
    let follow = if rule.follow.is_empty() {
        None
    } else {
        bool_field(&rule.follow, schema, method.input, "watch.follow", place)
            .map(|(index, _)| index)
    };
    let refresh = refresh(rule, list.then_some(item_type), method, rpcs, place);
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
    let (first_interval, max_interval) = intervals(rule, place);

    if list {
        for (given, option) in [
            (!rule.side.is_empty(), "side"),
            (!rule.hold.is_empty(), "hold"),
            (!rule.gone_well.is_empty(), "gone_well"),
            (!rule.follow_after.is_empty(), "follow_after"),
            (rule.unknown.is_some(), "unknown"),
            (rule.fallback.is_some(), "fallback"),
            (!rule.light.is_empty(), "light"),
            (!rule.pin.is_empty(), "pin"),
        ] {
            if given {
                let problem = "is for one thing; what is watched is a list";
                place.refuse_rule(&format!("watch.{option}"), problem);
            }
        }
    }
    if state.is_none() {
        for (given, option) in [
            (!rule.hold.is_empty(), "hold"),
            (!rule.gone_well.is_empty(), "gone_well"),
            (!rule.follow_after.is_empty(), "follow_after"),
            (rule.unknown.is_some(), "unknown"),
        ] {
            if given {
                let problem = "the watch has no `state`: name it";
                place.refuse_rule(&format!("watch.{option}"), problem);
            }
        }
    }
    if !rule.gone_well.is_empty() && rule.gone() == rules::Gone::EndsWell {
        let problem = "says nothing beside GONE_ENDS_WELL: leave out one of them";
        place.refuse_rule("watch.gone_well", problem);
    }
    let around = Around {
        schema,
        rpcs,
        method,
        poll,
        item: item_type,
        state: state.as_ref(),
    };
    let start = match &rule.start {
        Some(start) => Some(around.start(start, place)?),
        None => None,
    };
    let side: Vec<SideRead> = rule
        .side
        .iter()
        .filter_map(|side| around.side(side, place))
        .collect();
    let fallback = match &rule.fallback {
        Some(fallback) => Some(around.fallback(fallback, place)?),
        None => None,
    };
    let (mut hold, mut gone_well) = (Vec::new(), States::default());
    let (mut follow_after, mut unknown) = (States::default(), None);
    if let Some(state) = &state {
        follow_after = state.ends(schema, &rule.follow_after, "watch.follow_after", place);
        if !rule.follow_after.is_empty() && rule.follow.is_empty() {
            let problem = "says after what to go on: name the field of `follow`";
            place.refuse_rule("watch.follow_after", problem);
        }
        if let Some(rule) = &rule.unknown {
            unknown = state.unknown(rule, schema, item_type, place);
        }
        hold = rule
            .hold
            .iter()
            .filter_map(|hold| state.hold(hold, schema, item_type, place))
            .collect();
        gone_well = state.states(schema, &rule.gone_well, "watch.gone_well", place);
    }
    let light = if rule.light.is_empty() {
        None
    } else {
        let index = calls::light(&rule.light, schema, poll, place)?;
        Some(schema.message(poll.input).fields[usize::from(index)].number)
    };
    let types = Types {
        item: Some(item_type),
        poll: Some(poll.input),
        request: method.input,
        copied: poll.input,
    };
    let pin = Filling::changes(&rule.pin, poll, types, "watch.pin", place);
    let mut aside = HashSet::new();
    side.iter().for_each(|side| side.asked(&mut aside));
    fallback
        .iter()
        .for_each(|fallback| fallback.asked(&mut aside));
    pin.asked(&mut aside);

    let (refresh_rpc, refresh) = refresh.unzip();
    Some(Watch {
        poll: poll.clone(),
        refresh: refresh_rpc,
        list,
        first_interval,
        max_interval,
        gone_ends_well: rule.gone() == rules::Gone::EndsWell,
        start,
        side,
        hold,
        fallback,
        tables: Tables {
            input: method.input,
            output: method.output,
            follow,
            item,
            item_type,
            key,
            key_with,
            state,
            event_number,
            item_number,
            refresh,
            gone_well,
            follow_after,
            unknown,
            light,
            pin,
            fields: shared_fields(schema, method.input, poll.input),
            aside: aside.into_iter().collect(),
        },
    })
}

/// The pauses: the first one, and the longest.
fn intervals(rule: &rules::Watch, place: &mut Place<'_>) -> (Duration, Duration) {
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
    (first, max)
}

fn unknown(rule: &str, name: &str) -> String {
    if name.is_empty() {
        return format!("is missing: name the rpc to {rule}");
    }
    format!("`{name}` is not a unary rpc of this service or package that can be served")
}

/// A stream's own request makes the calls of `other`, so its route and fields
/// must be those of it.
pub(super) fn same_call(method: &Method, other: &Method, option: &str, place: &mut Place<'_>) {
    if (&method.verb, &method.template) != (&other.verb, &other.template) {
        let problem = format!(
            "`{}` is {} {}, the stream is {} {}: the routes must be the same",
            other.name, other.verb, other.template, method.verb, method.template
        );
        place.refuse_rule(option, problem);
        return;
    }
    let schema = &*method.schema;
    let (ours, theirs) = (schema.message(method.input), schema.message(other.input));
    for field in ours.fields.iter().filter(|field| !field.local) {
        let same = theirs.field(&field.name).is_some_and(|(_, known)| {
            schema.alike(known, field) && known.wire_name == field.wire_name
        });
        if !same {
            let problem = format!(
                "the field `{}` of {} is not one of {}: name it alike, or mark it `local`",
                field.name, ours.name, theirs.name
            );
            place.refuse_rule(option, problem);
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
            place.refuse_rule(option, problem);
        }
    }
}

/// The fields that two messages have alike: numbers in the one and in the other.
fn shared_fields(schema: &Schema, from: MessageId, to: MessageId) -> Vec<(u32, u32)> {
    let theirs = schema.message(to);
    schema
        .message(from)
        .fields
        .iter()
        .filter(|field| !field.local)
        .filter_map(|field| {
            let (_, known) = theirs.field(&field.name)?;
            schema
                .alike(known, field)
                .then_some((field.number, known.number))
        })
        .collect()
}

/// A message as another one that has these fields, too; the others are left out.
fn translated(message: &[u8], fields: &[(u32, u32)]) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(message.len());
    for field in wire::fields(message) {
        let (number, value) = field.map_err(malformed)?;
        if let Some((_, to)) = fields.iter().find(|(from, _)| *from == number) {
            wire::write_value(&mut out, *to, value);
        }
    }
    Ok(out)
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

fn key_with(
    rule: &rules::Watch,
    list: bool,
    schema: &Schema,
    item: MessageId,
    place: &mut Place<'_>,
) -> Vec<Spot> {
    let fits = rule.key_with.is_empty() || (list && rule.refresh.is_empty());
    if !fits {
        let problem = "is for lists whose items are not read by their key (`refresh`)";
        place.refuse_rule("watch.key_with", problem);
    }
    let mut spots = Vec::new();
    for name in &rule.key_with {
        match Spot::find(schema, item, name) {
            Ok(spot) => spots.push(spot),
            Err(problem) => place.refuse_rule("watch.key_with", problem),
        }
    }
    spots
}

/// Whether a field can hold the identity of an item.
pub(super) fn is_key(field: &Field) -> bool {
    let kind = matches!(
        field.kind,
        Kind::String | Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64
    );
    kind && is_one(field)
}

/// The numbers of the fields of the stream's messages: the event's, the item's.
fn stream_fields(
    rule: &rules::Watch,
    method: &Method,
    item: MessageId,
    place: &mut Place<'_>,
) -> Option<(u32, u32)> {
    let schema = &*method.schema;
    let message = schema.message(method.output);
    let started = rule
        .start
        .as_ref()
        .map(|start| calls::field_name(&start.field));
    let mut named = HashSet::new();
    let sides = rule.side.iter().map(|side| &*side.field);
    let fallback = rule.fallback.as_ref().map(|fallback| &*fallback.field);
    for name in started.into_iter().chain(sides).chain(fallback) {
        if !named.insert(name) {
            let problem = format!("the field `{name}` of {} is named twice", message.name);
            place.refuse_rule("watch", problem);
        }
    }
    let is_event = |field: &&Field| match field.kind {
        Kind::Message(id) => &*schema.message(id).name == EVENT,
        _ => false,
    };
    let (events, others): (Vec<&Field>, Vec<&Field>) = message
        .fields
        .iter()
        .filter(|field| !named.contains(&*field.name))
        .partition(|field| is_event(field));
    if let ([event], [other]) = (&*events, &*others)
        && event.cardinality == Cardinality::Explicit
        && (other.kind, other.cardinality) == (Kind::Message(item), Cardinality::Explicit)
    {
        return Some((event.number, other.number));
    }
    let problem = format!(
        "{} must have two fields{}: one {EVENT} and one {}",
        message.name,
        if named.is_empty() {
            ""
        } else {
            " beside those that are named"
        },
        schema.message(item).name
    );
    place.refuse_rule("watch", problem);
    None
}

/// The single bool of this name in a message.
fn bool_field<'s>(
    name: &str,
    schema: &'s Schema,
    message: MessageId,
    option: &str,
    place: &mut Place<'_>,
) -> Option<(FieldIndex, &'s Field)> {
    let message = schema.message(message);
    let Some((index, field)) = message.field(name) else {
        let problem = format!("{} has no field `{name}`", message.name);
        place.refuse_rule(option, problem);
        return None;
    };
    if field.kind != Kind::Bool || !is_one(field) {
        place.refuse_rule(option, format!("`{name}` must be one bool"));
    }
    Some((index, field))
}

fn refresh(
    rule: &rules::Watch,
    item: Option<MessageId>,
    method: &Method,
    rpcs: &Rpcs<'_>,
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
    let Some(rpc) = rpcs.find(&rule.refresh) else {
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
        let output = self.poll.output;
        let items = self.tables.item.items(self.schema(), output, response)?;
        items.ok_or_else(|| match self.tables.item {
            Part::One(index) => missing(&self.schema().message(output).fields[usize::from(index)]),
            Part::Whole | Part::List(_) => Error::Decode {
                path: String::new(),
                problem: "what is watched is missing".into(),
            },
        })
    }

    /// Lists only: the identity of an item. One without is `Error::Decode`.
    pub fn key(&self, item: &[u8]) -> Result<Box<str>, Error> {
        let schema = self.schema();
        let Some(index) = self.tables.key else {
            return Ok("".into());
        };
        let field = &schema.message(self.tables.item_type).fields[usize::from(index)];
        let key = key_text(schema, field, item)?;
        if self.tables.key_with.is_empty() {
            return Ok(key);
        }
        let mut key = key.into_string();
        for spot in &self.tables.key_with {
            key.push('\0');
            if let Some(text) = spot.texts(schema, item).first() {
                key.push_str(text);
            }
        }
        Ok(key.into())
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
            Some((_, field)) => member(response, field)?.ok_or_else(|| missing(field)),
            None => Ok(response.clone()),
        }
    }

    /// Whether the item has settled. A state that is not told or not known has not.
    pub fn outcome(&self, item: &[u8]) -> Outcome {
        match &self.tables.state {
            Some(state) => state.outcome(self.schema(), item),
            None => Outcome::Open,
        }
    }

    /// The state of the item as the REST API has it, for logs; none when it is not
    /// told. At most 100 characters.
    pub fn state_text(&self, item: &[u8]) -> Option<String> {
        self.tables.state.as_ref()?.text(self.schema(), item)
    }

    /// The rule by which the state of the item is an end only when it lasts.
    pub fn held(&self, item: &[u8]) -> Option<Held> {
        let (schema, state) = (self.schema(), self.tables.state.as_ref()?);
        if let Some(unknown) = &self.tables.unknown
            && let Some(held) = unknown.held(schema, state, item)
        {
            return Some(held);
        }
        let mut holds = self.hold.iter().enumerate();
        let (rule, hold) = holds.find(|(_, hold)| hold.holds(schema, state, item))?;
        Some(Held {
            rule: Some(rule),
            mark: state.text(schema, item).unwrap_or_default(),
            outcome: state.outcome(schema, item),
            time: hold.time,
            polls: hold.polls,
        })
    }

    /// Whether those who follow go on after this item, which has settled.
    pub fn goes_on_after(&self, item: &[u8]) -> bool {
        let after = &self.tables.follow_after;
        after.is_empty()
            || self
                .tables
                .state
                .as_ref()
                .is_some_and(|state| state.is_in(self.schema(), item, after))
    }

    /// The number of the request's field to follow by, where following has an end.
    pub(super) fn follow_number(&self) -> Option<u32> {
        let index = self
            .tables
            .follow
            .filter(|_| !self.tables.follow_after.is_empty())?;
        Some(self.schema().message(self.tables.input).fields[usize::from(index)].number)
    }

    /// Whether it is a good end that the thing is gone after this.
    pub fn is_gone_well(&self, item: &[u8]) -> bool {
        self.gone_ends_well
            || self
                .tables
                .state
                .as_ref()
                .is_some_and(|state| state.is_in(self.schema(), item, &self.tables.gone_well))
    }

    /// Whether this side read is made in the state of the item.
    pub fn reads_beside(&self, side: &SideRead, item: &[u8]) -> bool {
        side.is_read_in(&self.tables, self.schema(), item)
    }

    /// The poll's request, of a watch that begins with no call.
    pub fn poll_request(&self, request: &[u8]) -> Result<Vec<u8>, Error> {
        translated(request, &self.tables.fields)
    }

    /// The poll's request made cheaper; none when there is no such.
    pub fn light_request(&self, poll: &[u8]) -> Option<Vec<u8>> {
        let number = self.tables.light?;
        let mut out = Vec::with_capacity(poll.len() + 4);
        out.extend_from_slice(poll);
        // The last value counts.
        wire::write_uint(&mut out, number, 0);
        Some(out)
    }

    /// The request of further polls, after the item was read; none when it stays as
    /// it is.
    pub fn pinned_request(&self, item: &[u8], poll: &[u8], request: &[u8]) -> Option<Vec<u8>> {
        if self.tables.pin.is_empty() {
            return None;
        }
        let sources = Sources {
            item,
            poll,
            request,
        };
        let pinned = self.tables.pin.fill(self.schema(), &[], sources, true)?;
        Some([poll, &pinned].concat())
    }

    /// What of the watch's request decides on what is told beside the polls: equal
    /// for watches that are told the same.
    pub fn aside(&self, request: &[u8]) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        for number in &self.tables.aside {
            for field in wire::fields(request) {
                let (found, value) = field.map_err(malformed)?;
                let unset = matches!(value, Value::Varint(0) | Value::Bytes([]));
                if found == *number && !unset {
                    wire::write_value(&mut out, found, value);
                }
            }
        }
        Ok(out)
    }

    /// Encodes a message of the stream. `beside` are further fields of it.
    pub fn message(&self, event: &WatchEvent, item: Option<&[u8]>, beside: &[u8]) -> Bytes {
        let item_len = item.map_or(0, <[u8]>::len);
        let event = event.encode_to_vec();
        let mut message = Vec::with_capacity(event.len() + item_len + beside.len() + 24);
        wire::write_bytes(&mut message, self.tables.event_number, &event);
        if let Some(item) = item {
            wire::write_bytes(&mut message, self.tables.item_number, item);
        }
        message.extend_from_slice(beside);
        message.into()
    }

    /// What a message of the stream says, whatever the order in which its fields
    /// and the members of its maps came: equal for those that say the same.
    pub fn canonical(&self, item: Option<&[u8]>, beside: &[u8]) -> Bytes {
        let message = self.message(&WatchEvent::default(), item, beside);
        canonical(self.schema(), self.tables.output, &message, 0).map_or(message, Bytes::from)
    }

    /// Encodes the message that tells the response of the call that began it.
    pub fn started_message(&self, event: &WatchEvent, response: &[u8]) -> Bytes {
        let mut beside = Vec::with_capacity(response.len() + 8);
        if let Some(start) = &self.start {
            wire::write_bytes(&mut beside, start.number, response);
        }
        self.message(event, None, &beside)
    }

    fn schema(&self) -> &Schema {
        &self.poll.schema
    }
}

/// The identity of an item. One without is `Error::Decode`.
fn key_text(schema: &Schema, field: &Field, item: &[u8]) -> Result<Box<str>, Error> {
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

/// The message in a field of `response`, as a slice of it; copied only when it
/// stands in parts. None when it is not set.
fn member(response: &Bytes, field: &Field) -> Result<Option<Bytes>, Error> {
    let member = wire::message(response, field.number).map_err(|p| broken(field, p))?;
    Ok(member.map(|member| match member {
        Cow::Borrowed(item) => response.slice_ref(item),
        Cow::Owned(item) => item.into(),
    }))
}

/// A message with its fields in the order of their numbers and its maps sorted;
/// none when it cannot be read.
fn canonical(schema: &Schema, id: MessageId, wire: &[u8], depth: u32) -> Option<Vec<u8>> {
    if depth > wire::MAX_DEPTH {
        return None;
    }
    let message = schema.message(id);
    let mut fields = Vec::new();
    for field in wire::fields(wire) {
        let (number, value) = field.ok()?;
        let known = message.by_number(number).map(|(_, field)| field);
        let mut out = Vec::with_capacity(16);
        match (known.map(|field| field.kind), value) {
            (Some(Kind::Message(below)), Value::Bytes(bytes)) => {
                let inner = canonical(schema, below, bytes, depth + 1)?;
                wire::write_bytes(&mut out, number, &inner);
            }
            (_, value) => wire::write_value(&mut out, number, value),
        }
        let is_entry = known.is_some_and(|field| field.cardinality == Cardinality::Map);
        fields.push((number, is_entry, out));
    }
    // Stable: the elements of a list keep their order.
    fields.sort_by(|(a, _, one), (b, is_entry, other)| {
        a.cmp(b).then_with(|| match is_entry {
            true => one.cmp(other),
            false => std::cmp::Ordering::Equal,
        })
    });
    Some(fields.into_iter().flat_map(|(_, _, field)| field).collect())
}

fn missing(field: &Field) -> Error {
    Error::Decode {
        path: field.name.to_string(),
        problem: "is missing, and is what is watched".into(),
    }
}

fn broken(field: &Field, problem: Malformed) -> Error {
    Error::Decode {
        path: field.name.to_string(),
        problem: problem.to_string(),
    }
}
