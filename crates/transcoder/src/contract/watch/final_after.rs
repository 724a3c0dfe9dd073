//! `final_after`: states that are final only when they last.

use std::time::Duration;

use super::field_path::FieldPath;
use super::state::{State, States};
use crate::api::drawbridge::v1 as rules;
use crate::contract::Outcome;
use crate::contract::diagnostics::Diagnostics;
use crate::schema::{Kind, MessageId, Schema};

/// A compiled `drawbridge.v1.FinalAfter`.
#[derive(Debug)]
pub struct Hold {
    states: States,
    /// The rule applies only while this field has this text.
    unless: Option<(FieldPath, Box<str>)>,
    /// For how long the state must last.
    pub time: Duration,
    /// In how many consecutive polls it must be read.
    pub polls: u32,
}

/// A state that is final only when it lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Index of the rule in `final_after`; none where the state is unknown.
    pub rule: Option<usize>,
    /// The value that must stay the same.
    pub mark: String,
    /// The outcome once it has lasted.
    pub outcome: Outcome,
    /// For how long it must last.
    pub time: Duration,
    /// In how many consecutive polls it must be read.
    pub polls: u32,
}

impl Hold {
    /// Returns whether the rule applies to the item.
    pub(super) fn holds(&self, schema: &Schema, state: &State, item: &[u8]) -> bool {
        let unless = self.unless.as_ref().is_none_or(|(field_path, want)| {
            let text = field_path.text(schema, item);
            let text = text.or_else(|| {
                let is_bool = field_path.field(schema).kind == Kind::Bool;
                is_bool.then(|| "false".to_owned())
            });
            text.as_deref().unwrap_or_default() == &**want
        });
        unless && state.is_in(schema, item, &self.states)
    }
}

/// Compiles a rule of `final_after`.
pub(super) fn compile(
    state: &State,
    rule: &rules::FinalAfter,
    schema: &Schema,
    item: MessageId,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Hold> {
    let states = state.ends(
        schema,
        &rule.states,
        "watch.final_after.states",
        diagnostics,
    );
    if rule.states.is_empty() {
        diagnostics.report_rule("watch.final_after.states", "is missing: name the states");
    }
    let unless = if rule.field.is_empty() {
        if !rule.value.is_empty() {
            diagnostics.report_rule(
                "watch.final_after.field",
                "is missing: name the field of `value`",
            );
        }
        None
    } else {
        match FieldPath::find(schema, item, &rule.field) {
            Ok(field_path) if field_path.field(schema).is_single() => {
                Some((field_path, rule.value.as_str().into()))
            }
            Ok(_) => {
                let problem = format!("`{}` must be a single value", rule.field);
                diagnostics.report_rule("watch.final_after.field", problem);
                None
            }
            Err(problem) => {
                diagnostics.report_rule("watch.final_after.field", problem);
                None
            }
        }
    };
    let time = match rule.duration.map(Duration::try_from) {
        None => Duration::ZERO,
        Some(Ok(time)) if time <= Duration::from_secs(86_400) => time,
        Some(_) => {
            diagnostics.report_rule("watch.final_after.duration", "must be 0 to 1 day");
            return None;
        }
    };
    let polls = match u32::try_from(rule.polls) {
        Ok(polls @ 0..=1_000) => polls.max(1),
        _ => {
            diagnostics.report_rule("watch.final_after.polls", "must be 1 to 1000");
            return None;
        }
    };
    if time.is_zero() && polls == 1 {
        diagnostics.report_rule(
            "watch.final_after",
            "has no effect: set `duration` or `polls`",
        );
    }
    Some(Hold {
        states,
        unless,
        time,
        polls,
    })
}
