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
pub(super) mod fields;
mod final_after;
mod refresh;
mod request_template;
mod side_read;
mod start;
mod state;
mod unknown;

pub(super) mod log;

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message as _;

use super::{Outcome, Watch};
use crate::Error;
use crate::api::drawbridge::v1::WatchEvent;
use crate::json::wire::{self, Value};
use crate::schema::{FieldIndex, MessageId, Schema};
use canonical::canonical;
pub(super) use compile::compile;
pub use fallback::{Fallback, Found};
use field_path::{FieldPath, Part};
use fields::{key_text, missing, translated};
pub use final_after::{DebounceRule, FinalAfter};
use refresh::Refresh;
pub use side_read::SideRead;
pub use start::{Find, Start};
use state::{State, States};
use unknown::Unknown;

/// The message with the event in each message of a stream.
const EVENT: &str = "drawbridge.v1.WatchEvent";

/// The fields that a watch reads and writes.
#[derive(Debug)]
pub(super) struct Tables {
    /// The request of the watch.
    input: MessageId,
    /// The message of its stream.
    output: MessageId,
    follow: Option<FieldIndex>,
    item: Part,
    /// The type of the watched item.
    item_type: MessageId,
    key: Option<FieldIndex>,
    /// Fields that identify an item together with its key.
    additional_keys: Vec<FieldPath>,
    state: Option<State>,
    /// Field numbers in the stream's messages.
    event_number: u32,
    item_number: u32,
    refresh: Option<Refresh>,
    /// States after which "not found" is SUCCEEDED.
    not_found_succeeds_after: States,
    /// Final states after which following clients go on; empty: all.
    follow_after: States,
    unknown: Option<Unknown>,
    /// Number of the bool in the poll's request that makes the poll cheaper when false.
    set_when_final: Option<u32>,
    /// Fields that the watch's request and the poll's have in common: number in each.
    fields: Vec<(u32, u32)>,
    /// Numbers of the fields of the watch's request that further calls read.
    further_call_fields: BTreeSet<u32>,
}

impl Watch {
    /// Returns whether the client wants the watch to go on after a final state.
    pub fn follows(&self, request: &[u8]) -> bool {
        let Some(index) = self.tables.follow else {
            return false;
        };
        let field = &self.schema().message(self.tables.input).fields[usize::from(index)];
        matches!(wire::last(request, field.number), Ok(Some(Value::Varint(set))) if set != 0)
    }

    /// Returns the number of watched items in a response of the polled rpc.
    pub fn item_count(&self, response: &[u8]) -> u64 {
        let output = self.poll.output;
        self.tables.item.count(self.schema(), output, response)
    }

    /// Returns the watched items in a response of the polled rpc, as slices without a
    /// copy: the response, a message in it, or each element of a list. A missing item
    /// is `Error::Decode`.
    pub fn items(&self, response: &Bytes) -> Result<Vec<Bytes>, Error> {
        let output = self.poll.output;
        let items = self.tables.item.items(self.schema(), output, response)?;
        // An object without known members is not the resource.
        let is_empty = |items: &Vec<Bytes>| items.iter().all(Bytes::is_empty);
        let items = match self.tables.item {
            Part::One(_) => items.filter(|items| !is_empty(items)),
            Part::Response | Part::List(_) => items,
        };
        items.ok_or_else(|| match self.tables.item {
            Part::One(index) => missing(&self.schema().message(output).fields[usize::from(index)]),
            Part::Response | Part::List(_) => Error::decode("", "the watched resource is missing"),
        })
    }

    /// Returns the key of an item of a list. An item without one is `Error::Decode`.
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

    /// Returns the outcome of the item. A state that is unset or unknown is not final.
    pub fn outcome(&self, item: &[u8]) -> Outcome {
        match &self.tables.state {
            Some(state) => state.outcome(self.schema(), item),
            None => Outcome::Pending,
        }
    }

    /// Returns the state of the item as the REST API names it, for logs, at most 100
    /// characters; none when it is unset.
    pub fn state_text(&self, item: &[u8]) -> Option<String> {
        self.tables.state.as_ref()?.text(self.schema(), item)
    }

    /// Returns the rule by which the state of the item is final only when it lasts.
    pub fn debounce_rule(&self, item: &[u8]) -> Option<DebounceRule> {
        let (schema, state) = (self.schema(), self.tables.state.as_ref()?);
        if let Some(unknown) = &self.tables.unknown
            && let Some(held) = unknown.debounce_rule(schema, state, item)
        {
            return Some(held);
        }
        let mut holds = self.final_after.iter().enumerate();
        let (rule, hold) = holds.find(|(_, hold)| hold.holds(schema, state, item))?;
        Some(DebounceRule {
            rule: Some(rule),
            mark: state.text(schema, item).unwrap_or_default(),
            outcome: state.outcome(schema, item),
            time: hold.time,
            polls: hold.polls,
        })
    }

    /// Returns whether following clients go on after this item, whose state is final.
    pub fn follows_after(&self, item: &[u8]) -> bool {
        let after = &self.tables.follow_after;
        after.is_empty()
            || self
                .tables
                .state
                .as_ref()
                .is_some_and(|state| state.is_in(self.schema(), item, after))
    }

    /// Returns the number of the request's `follow` field, for a watch with
    /// `follow_after`.
    pub(super) fn follow_number(&self) -> Option<u32> {
        let index = self
            .tables
            .follow
            .filter(|_| !self.tables.follow_after.is_empty())?;
        Some(self.schema().message(self.tables.input).fields[usize::from(index)].number)
    }

    /// Returns whether "not found" is SUCCEEDED after this item.
    pub fn not_found_succeeds_after(&self, item: &[u8]) -> bool {
        self.not_found_succeeds || self.is_deleting(item)
    }

    /// Returns whether the item's state announces its deletion.
    pub fn is_deleting(&self, item: &[u8]) -> bool {
        let state = self.tables.state.as_ref();
        state.is_some_and(|state| {
            state.is_in(self.schema(), item, &self.tables.not_found_succeeds_after)
        })
    }

    /// Returns whether this side read is made in the state of the item.
    pub fn makes_side_read(&self, side: &SideRead, item: &[u8]) -> bool {
        side.is_read_in(self.tables.state.as_ref(), self.schema(), item)
    }

    /// Returns the poll's request, for a watch without `start`.
    pub fn poll_request(&self, request: &[u8]) -> Result<Vec<u8>, Error> {
        translated(request, &self.tables.fields)
    }

    /// Returns the poll's request with the field of `set_when_final` false; none
    /// without such a field.
    pub fn light_request(&self, poll: &[u8]) -> Option<Vec<u8>> {
        let number = self.tables.set_when_final?;
        let mut out = Vec::with_capacity(poll.len() + 4);
        out.extend_from_slice(poll);
        // The last occurrence of a field wins.
        wire::write_uint(&mut out, number, 0);
        Some(out)
    }

    /// Returns the fields of the watch's request that further calls read. Watches share
    /// a poll loop only where these are equal.
    pub fn further_call_fields(&self, request: &[u8]) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        for number in &self.tables.further_call_fields {
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

    /// Encodes a message of the stream. `more` are further encoded fields.
    pub fn message(&self, event: &WatchEvent, item: Option<&[u8]>, more: &[u8]) -> Bytes {
        let item_len = item.map_or(0, <[u8]>::len);
        let event = event.encode_to_vec();
        let mut message = Vec::with_capacity(event.len() + item_len + more.len() + 24);
        wire::write_bytes(&mut message, self.tables.event_number, &event);
        if let Some(item) = item {
            wire::write_bytes(&mut message, self.tables.item_number, item);
        }
        message.extend_from_slice(more);
        message.into()
    }

    /// Encodes a message of the stream without its event, in a form that is equal for
    /// equal messages, in whatever order their fields and map entries were.
    pub fn canonical(&self, item: Option<&[u8]>, more: &[u8]) -> Bytes {
        let message = self.message(&WatchEvent::default(), item, more);
        canonical(self.schema(), self.tables.output, &message, 0).map_or(message, Bytes::from)
    }

    /// Encodes the message with the response of the call of `start`.
    pub fn started_message(&self, event: &WatchEvent, response: &[u8]) -> Bytes {
        let mut more = Vec::with_capacity(response.len() + 8);
        if let Some(start) = &self.start {
            wire::write_bytes(&mut more, start.number, response);
        }
        self.message(event, None, &more)
    }

    fn schema(&self) -> &Schema {
        &self.poll.schema
    }
}
