//! `fallback`: where to look for what the poll does not find.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;

use super::call_compiler::CallCompiler;
use super::field_path::{FieldPath, Part};
use super::request_template::{RequestTemplate, Sources};
use super::state::{State, States, Written};
use crate::Error;
use crate::api::drawbridge::v1 as rules;
use crate::contract::diagnostics::Diagnostics;
use crate::contract::{Method, Outcome};
use crate::json::wire;
use crate::schema::MessageId;

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

impl CallCompiler<'_> {
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
        let number = self.stream_field(
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
            Ok(field_path) if field_path.field(self.schema).is_single() => Some(field_path),
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
