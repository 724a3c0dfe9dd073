//! Watches, compiled: which rpc to poll, and what its replies mean.
//!
//! Each further call has the module of its option: `start`, `side_read`, `fallback`.
//! `request_template` builds their requests, `state` reads the state of an item,
//! `field_path` finds a field in a message, `log` is for data that only grows.
//! `compile` reads the annotations.

mod call_compiler;
mod canonical;
mod compile;
mod fallback;
mod field_path;
mod fields;
mod request_template;
mod side_read;
mod start;
mod state;

pub(super) mod log;

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message as _;

use super::{Outcome, Watch};
use crate::Error;
use crate::api::drawbridge::v1::WatchEvent;
use crate::call::Call;
use crate::json::wire::{self, Value};
use crate::schema::{FieldIndex, Kind, MessageId, Schema};
use canonical::canonical;
pub(super) use compile::compile;
pub use fallback::{Fallback, Found};
use field_path::{FieldPath, Part};
use fields::{key_text, member, missing, translated};
pub use side_read::SideRead;
pub use start::{Find, Start};
pub use state::{Held, Hold};
use state::{State, States, Unknown};

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
    additional_keys: Vec<FieldPath>,
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
            Part::Whole | Part::List(_) => Error::decode("", "what is watched is missing"),
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
        if self.tables.additional_keys.is_empty() {
            return Ok(key);
        }
        let mut key = key.into_string();
        for field_path in &self.tables.additional_keys {
            key.push('\0');
            if let Some(text) = field_path.texts(schema, item).first() {
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
            match wire::last(request, *from).map_err(Error::malformed)? {
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
            None => Outcome::Pending,
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
        side.is_read_in(self.tables.state.as_ref(), self.schema(), item)
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

    /// What of the watch's request decides on what is told beside the polls: equal
    /// for watches that are told the same.
    pub fn aside(&self, request: &[u8]) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        for number in &self.tables.aside {
            for field in wire::fields(request) {
                let (found, value) = field.map_err(Error::malformed)?;
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
