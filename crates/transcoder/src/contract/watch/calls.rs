//! The further calls of a watch: one that begins what is watched, reads beside
//! the polls, and where to look for what the poll does not find.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use super::field_path::{FieldPath, Part, is_one};
use super::request_template::{RequestTemplate, Sources, Types};
use super::state::{State, States, Written};
use super::{Rpcs, Tables};
use crate::Error;
use crate::api::drawbridge::v1 as rules;
use crate::contract::diagnostics::Diagnostics;
use crate::contract::{Method, Outcome};
use crate::json::wire::{self, Value};
use crate::schema::{Cardinality, Field, FieldIndex, Kind, MessageId, Schema};

/// A call made once, before the first poll.
#[derive(Debug)]
pub struct Start {
    /// The rpc that is called.
    pub rpc: Arc<Method>,
    /// How the poll's request is made of the response, path fields from the
    /// watch's request.
    pub(super) poll: RequestTemplate,
    /// The watch's request as that of the call: numbers here and there.
    pub(super) fields: Vec<(u32, u32)>,
    /// Where the list is read in which the thing appears.
    pub find: Option<Find>,
    /// Number of the field of the stream's messages that holds the response.
    pub(super) number: u32,
}

/// A list that is read until it has an item.
#[derive(Debug)]
pub struct Find {
    /// The rpc that reads the list.
    pub rpc: Arc<Method>,
    request: RequestTemplate,
    item: Part,
    then: RequestTemplate,
}

/// A read beside each poll.
#[derive(Debug)]
pub struct SideRead {
    /// The rpc that is called.
    pub rpc: Arc<Method>,
    request: RequestTemplate,
    item: Part,
    /// The field whose values are counted, in the list's items.
    tally: Option<FieldPath>,
    /// Number of the field of the stream's messages.
    number: u32,
    /// Number of the bool of the watch's request that asks for it.
    when: Option<u32>,
    states: States,
}

/// Where to look for what the poll does not find.
#[derive(Debug)]
pub struct Fallback {
    /// The rpc that is called.
    pub rpc: Arc<Method>,
    /// After so many polls in a row that found nothing.
    pub after: u32,
    /// What is found is the last there is of the thing.
    pub last: bool,
    /// It is a good end that it finds nothing.
    pub gone_ends_well: bool,
    request: RequestTemplate,
    item: Part,
    number: u32,
    state: Option<State>,
    gone_well: States,
    same: Option<Same>,
}

/// A field of the item, and its like in the poll's request.
#[derive(Debug)]
struct Same {
    item: FieldPath,
    poll: FieldPath,
}

/// What a fallback has found.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// The item, as a slice of the response.
    pub item: Bytes,
    /// Whether it is about the very thing that is watched.
    pub same: bool,
    /// Whether it has settled.
    pub outcome: Outcome,
    /// Whether it is a good end when it is gone next.
    pub leaving: bool,
}

/// What compiling a further call needs to know.
pub(super) struct Around<'a> {
    pub schema: &'a Schema,
    pub rpcs: &'a Rpcs<'a>,
    pub method: &'a Method,
    pub poll: &'a Method,
    pub item: MessageId,
    pub state: Option<&'a State>,
}

impl Around<'_> {
    fn rpc(
        &self,
        name: &str,
        option: &str,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<Arc<Method>> {
        let found = self.rpcs.find(name);
        if found.is_none() {
            diagnostics.report_rule(
                &format!("{option}.call"),
                super::compile::unknown("call", name),
            );
        }
        found.cloned()
    }

    /// As `rpc`, for one that is called again and again.
    fn read(
        &self,
        name: &str,
        option: &str,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<Arc<Method>> {
        let rpc = self.rpc(name, option, diagnostics)?;
        if rpc.action.is_some() {
            let problem = format!("`{name}` is an action: it is not to be done again and again");
            diagnostics.report_rule(&format!("{option}.call"), problem);
        }
        Some(rpc)
    }

    /// The field of the stream's messages of this name, for values of a type.
    fn told(
        &self,
        name: &str,
        fits: impl Fn(&Field) -> bool,
        what: &str,
        option: &str,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<u32> {
        let message = self.schema.message(self.method.output);
        match message.field(name) {
            Some((_, field)) if fits(field) => Some(field.number),
            Some(_) => {
                let problem = format!("`{name}` of {} must be {what}", message.name);
                diagnostics.report_rule(&format!("{option}.field"), problem);
                None
            }
            None => {
                let problem = format!("{} has no field `{name}`", message.name);
                diagnostics.report_rule(&format!("{option}.field"), problem);
                None
            }
        }
    }

    /// The type of the part as a field of the stream's messages has it.
    fn fits(part: Part, item: MessageId) -> impl Fn(&Field) -> bool {
        let cardinality = match part {
            Part::List(_) => Cardinality::Repeated,
            _ => Cardinality::Explicit,
        };
        move |field| (field.kind, field.cardinality) == (Kind::Message(item), cardinality)
    }

    fn types(&self) -> Types {
        Types {
            item: Some(self.item),
            poll: Some(self.poll.input),
            request: self.method.input,
            copied: self.poll.input,
        }
    }

    pub fn start(&self, rule: &rules::Start, diagnostics: &mut Diagnostics<'_>) -> Option<Start> {
        let rpc = self.rpc(&rule.call, "watch.start", diagnostics)?;
        super::same_call(self.method, &rpc, "watch.start.call", diagnostics);
        let types = Types {
            item: Some(rpc.output),
            poll: None,
            request: self.method.input,
            copied: self.method.input,
        };
        let poll =
            RequestTemplate::compile(&rule.bind, self.poll, types, "watch.start", diagnostics);
        let find = match &rule.find {
            Some(find) => Some(self.find(find, types, diagnostics)?),
            None => None,
        };
        let name = field_name(&rule.field);
        let response = self.schema.message(rpc.output);
        let number = self.told(
            name,
            Self::fits(Part::Whole, rpc.output),
            &format!("one {}", response.name),
            "watch.start",
            diagnostics,
        )?;
        Some(Start {
            fields: super::compile::shared_fields(self.schema, self.method.input, rpc.input),
            rpc,
            poll,
            find,
            number,
        })
    }

    fn find(
        &self,
        rule: &rules::Find,
        types: Types,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<Find> {
        const OPTION: &str = "watch.start.find";
        let rpc = self.read(&rule.call, OPTION, diagnostics)?;
        let request = RequestTemplate::compile(&rule.bind, &rpc, types, OPTION, diagnostics);
        let (item, id) = match Part::find(self.schema, rpc.output, &rule.item) {
            Ok((part @ Part::List(_), id)) => (part, id),
            Ok(_) => {
                diagnostics.report_rule("watch.start.find.item", "must name a list of messages");
                return None;
            }
            Err(problem) => {
                diagnostics.report_rule("watch.start.find.item", problem);
                return None;
            }
        };
        let types = Types {
            item: Some(id),
            ..types
        };
        let then = "watch.start.find.bind_poll";
        let then = RequestTemplate::compile(&rule.bind_poll, self.poll, types, then, diagnostics);
        Some(Find {
            rpc,
            request,
            item,
            then,
        })
    }

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
        let tally = if rule.count_by.is_empty() {
            None
        } else {
            Some(self.tally(&rule.count_by, item, id, diagnostics)?)
        };
        let number = if tally.is_some() {
            let counts = |field: &Field| self.is_counts(field);
            self.told(
                &rule.field,
                counts,
                "a map<string, int32>, for `count_by`",
                OPTION,
                diagnostics,
            )?
        } else {
            let what = format!("of the type of `{}`", rule.item);
            self.told(
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
            super::compile::bool_field(
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
                diagnostics.report_rule(
                    "watch.side_read.states",
                    "the watch has no `state`: name it",
                );
                States::default()
            }
        };
        Some(SideRead {
            rpc,
            request,
            item,
            tally,
            number,
            when,
            states,
        })
    }

    fn tally(
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
                if is_one(field_path.field(self.schema))
                    && matches!(
                        field_path.field(self.schema).kind,
                        Kind::String | Kind::Enum(_) | Kind::Bool
                    ) =>
            {
                Some(field_path)
            }
            Ok(_) => {
                let problem = format!("`{name}` must be one string, enum or bool");
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

    pub fn fallback(
        &self,
        rule: &rules::Fallback,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<Fallback> {
        const OPTION: &str = "watch.fallback";
        let rpc = self.read(&rule.call, OPTION, diagnostics)?;
        let request = RequestTemplate::compile(&rule.bind, &rpc, self.types(), OPTION, diagnostics);
        let (item, id) = Part::find(self.schema, rpc.output, &rule.item)
            .map_err(|problem| diagnostics.report_rule("watch.fallback.item", problem))
            .ok()?;
        let name = self.schema.message(id).name.clone();
        let number = self.told(
            &rule.field,
            Self::fits(Part::Whole, id),
            &format!("one {name}"),
            OPTION,
            diagnostics,
        )?;
        let written = Written {
            state: &rule.state,
            well: &rule.succeeded,
            badly: &rule.failed,
            option: OPTION,
        };
        let state = State::compile(&written, self.schema, id, diagnostics);
        let gone_well = match &state {
            Some(state) => {
                let option = "watch.fallback.not_found_succeeds_after";
                state.states(
                    self.schema,
                    &rule.not_found_succeeds_after,
                    option,
                    diagnostics,
                )
            }
            None => States::default(),
        };
        let problem = match rule.not_found_succeeds_after.is_empty() {
            true => None,
            false if state.is_none() => Some("the fallback has no `state`: name it"),
            false if rule.is_final => {
                Some("is for a fallback that is polled: leave out one of them")
            }
            false if rule.on_not_found() == rules::OnNotFound::Succeed => {
                Some("says nothing beside ON_NOT_FOUND_SUCCEED: leave out one of them")
            }
            false => None,
        };
        if let Some(problem) = problem {
            diagnostics.report_rule("watch.fallback.not_found_succeeds_after", problem);
        }
        let same = match &rule.must_match {
            Some(same) => Some(self.same(same, id, diagnostics)?),
            None => None,
        };
        let after = match u32::try_from(rule.after) {
            Ok(after @ 0..=100) => after.max(1),
            _ => {
                diagnostics.report_rule("watch.fallback.after", "must be 1 to 100");
                return None;
            }
        };
        if rules::OnNotFound::try_from(rule.on_not_found).is_err() {
            diagnostics.report_rule(
                "watch.fallback.on_not_found",
                "is not a value that is known",
            );
        }
        if rule.is_final && rule.on_not_found() == rules::OnNotFound::Succeed {
            let problem =
                "is for a fallback that is polled: leave out `on_not_found` or `is_final`";
            diagnostics.report_rule("watch.fallback.on_not_found", problem);
        }
        Some(Fallback {
            gone_ends_well: rule.on_not_found() == rules::OnNotFound::Succeed,
            rpc,
            after,
            last: rule.is_final,
            request,
            item,
            number,
            state,
            gone_well,
            same,
        })
    }

    fn same(
        &self,
        rule: &rules::FieldMatch,
        item: MessageId,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<Same> {
        let poll = if rule.poll.is_empty() {
            &rule.item
        } else {
            &rule.poll
        };
        let mut find = |id, name: &str| match FieldPath::find(self.schema, id, name) {
            Ok(field_path) if is_one(field_path.field(self.schema)) => Some(field_path),
            Ok(_) => {
                let problem = format!("`{name}` must be one value");
                diagnostics.report_rule("watch.fallback.must_match", problem);
                None
            }
            Err(problem) => {
                diagnostics.report_rule("watch.fallback.must_match", problem);
                None
            }
        };
        Some(Same {
            item: find(item, &rule.item)?,
            poll: find(self.poll.input, poll)?,
        })
    }
}

/// The name of the field that holds the response of the started call.
pub(super) fn field_name(given: &str) -> &str {
    if given.is_empty() { "started" } else { given }
}

impl Start {
    /// The request of the call, from that of the watch.
    pub fn request(&self, request: &[u8]) -> Result<Vec<u8>, Error> {
        super::translated(request, &self.fields)
    }

    /// The poll's request, from the watch's own and the response; none when the
    /// response names nothing to poll.
    pub fn poll_request(&self, request: &[u8], response: &[u8]) -> Option<Vec<u8>> {
        let sources = Sources {
            item: response,
            poll: &[],
            request,
        };
        if self.poll.is_empty() && self.find.is_some() {
            return None;
        }
        self.poll.fill(&self.rpc.schema, request, sources, true)
    }
}

impl Find {
    /// The request for the list, from the watch's own and the response of the
    /// started call; none when the response does not name what it needs.
    pub fn request(&self, request: &[u8], started: &[u8]) -> Option<Vec<u8>> {
        let sources = Sources {
            item: started,
            poll: &[],
            request,
        };
        let schema = &self.rpc.schema;
        self.request.fill(schema, request, sources, true)
    }

    /// The poll's request, once the list has an item that says what it needs.
    pub fn poll_request(&self, request: &[u8], list: &Bytes) -> Result<Option<Vec<u8>>, Error> {
        let schema = &*self.rpc.schema;
        let items = self.item.items(schema, self.rpc.output, list)?;
        Ok(items.unwrap_or_default().iter().find_map(|item| {
            let sources = Sources {
                item,
                poll: &[],
                request,
            };
            self.then.fill(schema, request, sources, true)
        }))
    }
}

impl SideRead {
    /// Whether the watch's request asks for it.
    pub fn is_asked(&self, request: &[u8]) -> bool {
        self.when.is_none_or(|number| {
            matches!(wire::last(request, number), Ok(Some(Value::Varint(set))) if set != 0)
        })
    }

    /// Its request; none when something is missing for it.
    pub fn request(&self, item: &[u8], poll: &[u8], request: &[u8]) -> Option<Vec<u8>> {
        let sources = Sources {
            item,
            poll,
            request,
        };
        let schema = &self.rpc.schema;
        self.request.fill(schema, poll, sources, false)
    }

    /// What it tells, as fields of the stream's messages.
    pub fn told(&self, response: &Bytes) -> Result<Bytes, Error> {
        let schema = &*self.rpc.schema;
        let items = self.item.items(schema, self.rpc.output, response)?;
        let items = items.unwrap_or_default();
        let mut out = Vec::with_capacity(items.iter().map(|item| item.len() + 8).sum());
        let Some(tally) = &self.tally else {
            for item in &items {
                wire::write_bytes(&mut out, self.number, item);
            }
            return Ok(out.into());
        };
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for item in &items {
            if let Some(text) = tally.text(schema, item) {
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

    pub(super) fn asked(&self, into: &mut HashSet<u32>) {
        self.request.asked(into);
        into.extend(self.when);
    }

    /// Whether it is read in the state of this item.
    pub(super) fn is_read_in(&self, tables: &Tables, schema: &Schema, item: &[u8]) -> bool {
        self.states.is_empty()
            || tables
                .state
                .as_ref()
                .is_some_and(|state| state.is_in(schema, item, &self.states))
    }
}

impl Fallback {
    /// Its request; none when something is missing for it. `item` is what was read
    /// last, empty before the first read.
    pub fn request(&self, item: &[u8], poll: &[u8], request: &[u8]) -> Option<Vec<u8>> {
        let sources = Sources {
            item,
            poll,
            request,
        };
        self.request.fill(&self.rpc.schema, poll, sources, true)
    }

    /// What a response says of the thing; none when it is not there.
    pub fn found(&self, response: &Bytes, poll: &[u8]) -> Result<Option<Found>, Error> {
        let schema = &*self.rpc.schema;
        let items = self.item.items(schema, self.rpc.output, response)?;
        let want = self
            .same
            .as_ref()
            .map(|same| (same, same.poll.text(schema, poll)));
        let is_same = |item: &Bytes| {
            want.as_ref()
                .is_none_or(|(same, want)| want.is_some() && same.item.text(schema, item) == *want)
        };
        let items = items.unwrap_or_default();
        let found = items.iter().find(|item| is_same(item));
        let found = match (self.item, found) {
            // Of a list, another one is none.
            (Part::List(_), found) => found,
            (_, found) => found.or(items.first()),
        };
        Ok(found.map(|item| Found {
            same: is_same(item),
            outcome: match &self.state {
                Some(state) => state.outcome(schema, item),
                None => Outcome::Pending,
            },
            leaving: (self.state.as_ref())
                .is_some_and(|state| state.is_in(schema, item, &self.gone_well)),
            item: item.clone(),
        }))
    }

    /// What it tells, as a field of the stream's messages.
    pub fn told(&self, item: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(item.len() + 8);
        wire::write_bytes(&mut out, self.number, item);
        out.into()
    }

    pub(super) fn asked(&self, into: &mut HashSet<u32>) {
        self.request.asked(into);
    }
}

/// The bool of the poll's request that makes it cheaper when false.
pub(super) fn light(
    name: &str,
    schema: &Schema,
    poll: &Method,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<FieldIndex> {
    let (index, field) = super::compile::bool_field(
        name,
        schema,
        poll.input,
        "watch.set_when_final",
        diagnostics,
    )?;
    if field.cardinality != Cardinality::Explicit {
        let problem = format!("`{name}` must be `optional`: else its false is not sent");
        diagnostics.report_rule("watch.set_when_final", problem);
    }
    Some(index)
}
