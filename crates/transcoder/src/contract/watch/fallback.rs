//! `fallback`: the rpc to read when the poll does not find the resource.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;

use super::call_compiler::CallCompiler;
use super::field_path::{FieldPath, Part};
use super::request_template::{RequestTemplate, Sources};
use super::state::{State, StateOptions, States};
use crate::Error;
use crate::api::drawbridge::v1 as rules;
use crate::contract::diagnostics::Diagnostics;
use crate::contract::{Method, Outcome};
use crate::json::wire;
use crate::schema::MessageId;

/// A compiled `drawbridge.v1.Fallback`.
#[derive(Debug)]
pub struct Fallback {
    /// The rpc that is called.
    pub rpc: Arc<Method>,
    /// Number of polls in a row that must find nothing.
    pub after: u32,
    /// Whether its result is the final state of the resource.
    pub last: bool,
    /// Whether the watch ends with SUCCEEDED when the fallback finds nothing.
    pub gone_ends_well: bool,
    request: RequestTemplate,
    item: Part,
    number: u32,
    state: Option<State>,
    not_found_succeeds_after: States,
    same: Option<Same>,
}

/// A field of the item and the field of the poll's request that it must equal.
#[derive(Debug)]
struct Same {
    item: FieldPath,
    poll: FieldPath,
}

/// The result of a fallback.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// The item, as a slice of the response.
    pub item: Bytes,
    /// Whether the item is the watched resource, by `must_match`.
    pub same: bool,
    /// The outcome of the item.
    pub outcome: Outcome,
    /// Whether "not found" is SUCCEEDED after this item.
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
            Self::fits(Part::Response, id),
            &format!("a single {name}"),
            OPTION,
            diagnostics,
        )?;
        let options = StateOptions {
            state: &rule.state,
            succeeded: &rule.succeeded,
            failed: &rule.failed,
            option: OPTION,
        };
        let state = State::compile(&options, self.schema, id, diagnostics);
        let not_found_succeeds_after = match &state {
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
            false if state.is_none() => Some("the fallback has no `state`: set it"),
            false if rule.is_final => Some("has no effect with `is_final`: remove one of them"),
            false if rule.on_not_found() == rules::OnNotFound::Succeed => {
                Some("has no effect with ON_NOT_FOUND_SUCCEED: remove one of them")
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
            diagnostics.report_rule("watch.fallback.on_not_found", "is not a known value");
        }
        if rule.is_final && rule.on_not_found() == rules::OnNotFound::Succeed {
            let problem = "has no effect with `is_final`: remove one of them";
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
            not_found_succeeds_after,
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
                let problem = format!("`{name}` must be a single value");
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
    /// Returns its request; none when a bound value is missing. `item` is the last item
    /// of the poll, empty before the first.
    pub fn request(&self, item: &[u8], poll: &[u8], request: &[u8]) -> Option<Vec<u8>> {
        let sources = Sources {
            item,
            poll,
            request,
        };
        self.request.fill(&self.rpc.schema, poll, sources, true)
    }

    /// Returns the resource in a response; none when it is not in it.
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
            // Another element of a list is not the resource.
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
                .is_some_and(|state| state.is_in(schema, item, &self.not_found_succeeds_after)),
            item: item.clone(),
        }))
    }

    /// Encodes the item as a field of the stream's messages.
    pub fn told(&self, item: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(item.len() + 8);
        wire::write_bytes(&mut out, self.number, item);
        out.into()
    }

    pub(super) fn add_request_fields(&self, into: &mut HashSet<u32>) {
        self.request.add_request_fields(into);
    }
}
