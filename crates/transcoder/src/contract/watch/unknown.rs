//! `unknown`: when an item with a state that the enum does not have is final.

use std::time::Duration;

use super::field_path::FieldPath;
use super::final_after::Held;
use super::state::State;
use crate::api::drawbridge::v1 as rules;
use crate::contract::Outcome;
use crate::contract::diagnostics::Diagnostics;
use crate::schema::{Cardinality, Kind, MessageId, Schema};

/// A compiled `drawbridge.v1.Unknown`.
#[derive(Debug)]
pub(super) struct Unknown {
    set: FieldPath,
    polls: u32,
}

impl Unknown {
    /// Returns the state that must last, where the item's state is unknown and
    /// `final_when_set` is set.
    pub(super) fn held(&self, schema: &Schema, state: &State, item: &[u8]) -> Option<Held> {
        if state.is_known(schema, item) {
            return None;
        }
        let since = self.set.texts(schema, item);
        if since.iter().all(String::is_empty) {
            return None;
        }
        let state = state.text(schema, item).unwrap_or_default();
        Some(Held {
            rule: None,
            mark: format!("{state}\0{}", since.join("\0")),
            outcome: Outcome::Failed,
            time: Duration::ZERO,
            polls: self.polls,
        })
    }
}

/// Compiles the `unknown` of a watch.
pub(super) fn compile(
    state: &State,
    rule: &rules::Unknown,
    schema: &Schema,
    item: MessageId,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Unknown> {
    if !matches!(state.field_path.field(schema).kind, Kind::Enum(_)) {
        let problem = "needs an enum as `state`: a string has no unknown values";
        diagnostics.report_rule("watch.unknown", problem);
    }
    let set = match FieldPath::find(schema, item, &rule.final_when_set) {
        Ok(field_path) if field_path.field(schema).cardinality == Cardinality::Explicit => {
            field_path
        }
        Ok(_) => {
            let problem = format!(
                "`{}` must be a single `optional` value or message",
                rule.final_when_set
            );
            diagnostics.report_rule("watch.unknown.final_when_set", problem);
            return None;
        }
        Err(problem) => {
            diagnostics.report_rule("watch.unknown.final_when_set", problem);
            return None;
        }
    };
    let polls = match u32::try_from(rule.polls) {
        Ok(0) => 2,
        Ok(polls @ 1..=1_000) => polls,
        _ => {
            diagnostics.report_rule("watch.unknown.polls", "must be 1 to 1000");
            return None;
        }
    };
    Some(Unknown { set, polls })
}
