//! `side_read`: a further read with each poll.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use super::call_compiler::CallCompiler;
use super::field_path::{FieldPath, Part};
use super::fields::bool_field;
use super::request_template::{RequestTemplate, Sources};
use super::state::{State, States};
use crate::Error;
use crate::api::drawbridge::v1 as rules;
use crate::contract::Method;
use crate::contract::diagnostics::Diagnostics;
use crate::json::wire::{self, Value};
use crate::schema::{Cardinality, Field, Kind, MessageId, Schema};

/// A compiled `drawbridge.v1.SideRead`.
#[derive(Debug)]
pub struct SideRead {
    /// The rpc that is called.
    pub rpc: Arc<Method>,
    request: RequestTemplate,
    item: Part,
    /// The field by whose values the items are counted.
    count_by: Option<FieldPath>,
    /// Number of the field of the stream's messages.
    number: u32,
    /// Number of the bool of the watch's request that enables it.
    when: Option<u32>,
    states: States,
}

impl CallCompiler<'_> {
    pub fn side(
        &self,
        rule: &rules::SideRead,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<SideRead> {
        const OPTION: &str = "watch.side_read";
        let rpc = self.read(&rule.call, OPTION, diagnostics)?;
        let request = RequestTemplate::compile(&rule.bind, &rpc, self.types(), OPTION, diagnostics);
        let (item, id) = Part::find(self.schema, rpc.output, &rule.item)
            .map_err(|problem| diagnostics.report_rule("watch.side_read.item", problem))
            .ok()?;
        let count_by = if rule.count_by.is_empty() {
            None
        } else {
            Some(self.count_by(&rule.count_by, item, id, diagnostics)?)
        };
        let number = if count_by.is_some() {
            let counts = |field: &Field| self.is_counts(field);
            self.stream_field(
                &rule.field,
                counts,
                "a map<string, int32>, for `count_by`",
                OPTION,
                diagnostics,
            )?
        } else {
            let what = format!("of the type of `{}`", rule.item);
            self.stream_field(
                &rule.field,
                Self::fits(item, id),
                &what,
                OPTION,
                diagnostics,
            )?
        };
        let when = if rule.when.is_empty() {
            None
        } else {
            let option = "watch.side_read.when";
            bool_field(
                &rule.when,
                self.schema,
                self.method.input,
                option,
                diagnostics,
            )
            .map(|(_, field)| field.number)
        };
        let states = match (self.state, rule.states.is_empty()) {
            (Some(state), _) => state.states(
                self.schema,
                &rule.states,
                "watch.side_read.states",
                diagnostics,
            ),
            (None, true) => States::default(),
            (None, false) => {
                diagnostics
                    .report_rule("watch.side_read.states", "the watch has no `state`: set it");
                States::default()
            }
        };
        Some(SideRead {
            rpc,
            request,
            item,
            count_by,
            number,
            when,
            states,
        })
    }

    fn count_by(
        &self,
        name: &str,
        part: Part,
        item: MessageId,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<FieldPath> {
        if !matches!(part, Part::List(_)) {
            diagnostics.report_rule(
                "watch.side_read.count_by",
                "is for lists: name one in `item`",
            );
            return None;
        }
        match FieldPath::find(self.schema, item, name) {
            Ok(field_path)
                if field_path.field(self.schema).is_single()
                    && matches!(
                        field_path.field(self.schema).kind,
                        Kind::String | Kind::Enum(_) | Kind::Bool
                    ) =>
            {
                Some(field_path)
            }
            Ok(_) => {
                let problem = format!("`{name}` must be a single string, enum or bool");
                diagnostics.report_rule("watch.side_read.count_by", problem);
                None
            }
            Err(problem) => {
                diagnostics.report_rule("watch.side_read.count_by", problem);
                None
            }
        }
    }

    fn is_counts(&self, field: &Field) -> bool {
        let Kind::Message(entry) = field.kind else {
            return false;
        };
        let entry = self.schema.message(entry);
        let kind = |number| entry.by_number(number).map(|(_, field)| field.kind);
        field.cardinality == Cardinality::Map
            && (kind(1), kind(2)) == (Some(Kind::String), Some(Kind::Int32))
    }
}

impl SideRead {
    /// Returns whether the watch's request enables it.
    pub fn is_enabled(&self, request: &[u8]) -> bool {
        self.when.is_none_or(|number| {
            matches!(wire::last(request, number), Ok(Some(Value::Varint(set))) if set != 0)
        })
    }

    /// Returns its request; none when a bound value is missing.
    pub fn request(&self, item: &[u8], poll: &[u8], request: &[u8]) -> Option<Vec<u8>> {
        let sources = Sources {
            item,
            poll,
            request,
        };
        let schema = &self.rpc.schema;
        self.request.fill(schema, poll, sources, false)
    }

    /// Returns the number of items in the response.
    pub fn item_count(&self, response: &[u8]) -> u64 {
        let schema = &*self.rpc.schema;
        self.item.count(schema, self.rpc.output, response)
    }

    /// Encodes its result as fields of the stream's messages.
    pub fn stream_fields(&self, response: &Bytes) -> Result<Bytes, Error> {
        let schema = &*self.rpc.schema;
        let items = self.item.items(schema, self.rpc.output, response)?;
        let items = items.unwrap_or_default();
        let mut out = Vec::with_capacity(items.iter().map(|item| item.len() + 8).sum());
        let Some(count_by) = &self.count_by else {
            for item in &items {
                wire::write_bytes(&mut out, self.number, item);
            }
            return Ok(out.into());
        };
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for item in &items {
            if let Some(text) = count_by.text(schema, item) {
                *counts.entry(text).or_default() += 1;
            }
        }
        out.clear();
        for (text, count) in counts {
            let mut entry = Vec::with_capacity(text.len() + 8);
            wire::write_bytes(&mut entry, 1, text.as_bytes());
            wire::write_uint(&mut entry, 2, count);
            wire::write_bytes(&mut out, self.number, &entry);
        }
        Ok(out.into())
    }

    pub(super) fn add_request_fields(&self, into: &mut HashSet<u32>) {
        self.request.add_request_fields(into);
        into.extend(self.when);
    }

    /// Returns whether it is made in the state of this item.
    pub(super) fn is_read_in(&self, state: Option<&State>, schema: &Schema, item: &[u8]) -> bool {
        self.states.is_empty() || state.is_some_and(|state| state.is_in(schema, item, &self.states))
    }
}
