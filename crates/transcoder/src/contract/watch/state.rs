//! The state of a watched thing, and what it means.

use std::time::Duration;

use super::field_path::FieldPath;
use crate::api::drawbridge::v1 as rules;
use crate::contract::Outcome;
use crate::contract::diagnostics::Diagnostics;
use crate::contract::view::{View, descend};
use crate::json;
use crate::json::wire::Value;
use crate::schema::{Cardinality, EnumId, Field, Kind, MessageId, Schema};

/// Where the state stands and which values are an end.
#[derive(Debug)]
pub(super) struct State {
    field_path: FieldPath,
    well: States,
    badly: States,
}

/// Some values of a state.
#[derive(Debug, Default)]
pub(super) struct States(Vec<One>);

#[derive(Debug, PartialEq, Eq)]
enum One {
    Text(Box<str>),
    Number(i32),
}

/// States that are an end only when they last.
#[derive(Debug)]
pub struct Hold {
    states: States,
    /// Only while this field has this text.
    unless: Option<(FieldPath, Box<str>)>,
    /// It was read for so long.
    pub time: Duration,
    /// And in so many polls in a row.
    pub polls: u32,
}

/// Where the rules of a state stand.
pub(super) struct Written<'a> {
    pub state: &'a str,
    pub well: &'a [String],
    pub badly: &'a [String],
    /// `watch`, `watch.fallback`.
    pub option: &'a str,
}

/// When an item in a state that is not known has settled.
#[derive(Debug)]
pub(super) struct Unknown {
    set: FieldPath,
    polls: u32,
}

/// What looks like an end and is one only when it lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Which of the watch's holds says so; none: its state is not known.
    pub rule: Option<usize>,
    /// What must stay the same meanwhile.
    pub mark: String,
    /// What it is then.
    pub outcome: Outcome,
    /// For so long it must have been read.
    pub time: Duration,
    /// And in so many polls in a row.
    pub polls: u32,
}

impl State {
    pub fn compile(
        written: &Written<'_>,
        schema: &Schema,
        item: MessageId,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<Self> {
        let Written {
            state,
            well,
            badly,
            option,
        } = written;
        let at = |what: &str| format!("{option}.{what}");
        if state.is_empty() {
            if !well.is_empty() || !badly.is_empty() {
                diagnostics.report_rule(
                    &at("state"),
                    "is missing: name the field that succeeded and failed speak of",
                );
            }
            return None;
        }
        let field_path = match FieldPath::find(schema, item, state) {
            Ok(field_path) => field_path,
            Err(problem) => {
                diagnostics.report_rule(&at("state"), problem);
                return None;
            }
        };
        let field = field_path.field(schema);
        if !field.is_single() || !matches!(field.kind, Kind::String | Kind::Enum(_)) {
            diagnostics.report_rule(
                &at("state"),
                format!("`{state}` must be one string or enum"),
            );
            return None;
        }
        if let Some(both) = badly.iter().find(|text| well.contains(text)) {
            let problem = format!("`{both}` stands in succeeded, too");
            diagnostics.report_rule(&at("failed"), problem);
        }
        let mut this = Self {
            field_path,
            well: States::default(),
            badly: States::default(),
        };
        this.well = this.states(schema, well, &at("succeeded"), diagnostics);
        this.badly = this.states(schema, badly, &at("failed"), diagnostics);
        Some(this)
    }

    /// Further values of this state.
    pub fn states(
        &self,
        schema: &Schema,
        texts: &[String],
        option: &str,
        diagnostics: &mut Diagnostics<'_>,
    ) -> States {
        let kind = self.field_path.field(schema).kind;
        let mut states = States::default();
        for text in texts {
            match one(schema, kind, text) {
                Ok(state) => states.0.push(state),
                Err(problem) => diagnostics.report_rule(option, problem),
            }
        }
        states
    }

    /// Values that must be an end.
    pub fn ends(
        &self,
        schema: &Schema,
        texts: &[String],
        option: &str,
        diagnostics: &mut Diagnostics<'_>,
    ) -> States {
        let states = self.states(schema, texts, option, diagnostics);
        let is_end = |state: &One| self.well.0.contains(state) || self.badly.0.contains(state);
        if !states.0.iter().all(is_end) {
            diagnostics.report_rule(option, "must name states that stand in succeeded or failed");
        }
        states
    }

    /// Compiles what settles an item whose state is not known.
    pub fn unknown(
        &self,
        rule: &rules::Unknown,
        schema: &Schema,
        item: MessageId,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<Unknown> {
        if !matches!(self.field_path.field(schema).kind, Kind::Enum(_)) {
            let problem = "is for a state that is an enum: of a text every value is known";
            diagnostics.report_rule("watch.unknown", problem);
        }
        let set = match FieldPath::find(schema, item, &rule.final_when_set) {
            Ok(field_path) if field_path.field(schema).cardinality == Cardinality::Explicit => {
                field_path
            }
            Ok(_) => {
                let problem = format!(
                    "`{}` must be one value that may be unset",
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

    /// Compiles states of this one that are an end only when they last.
    pub fn hold(
        &self,
        rule: &rules::FinalAfter,
        schema: &Schema,
        item: MessageId,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<Hold> {
        let states = self.ends(
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
                    "is missing: value is what it must be",
                );
            }
            None
        } else {
            match FieldPath::find(schema, item, &rule.field) {
                Ok(field_path) if field_path.field(schema).is_single() => {
                    Some((field_path, rule.value.as_str().into()))
                }
                Ok(_) => {
                    let problem = format!("`{}` must be one value", rule.field);
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
            diagnostics.report_rule("watch.final_after", "holds nothing: give a time or polls");
        }
        Some(Hold {
            states,
            unless,
            time,
            polls,
        })
    }

    /// Whether the item has settled. A state that is not told or not known has not.
    pub fn outcome(&self, schema: &Schema, item: &[u8]) -> Outcome {
        self.read(schema, item, |field, value| {
            if self.is(schema, &self.well, field, value) {
                Outcome::Succeeded
            } else if self.is(schema, &self.badly, field, value) {
                Outcome::Failed
            } else {
                Outcome::Pending
            }
        })
        .unwrap_or(Outcome::Pending)
    }

    /// Whether the item is in one of these states.
    pub fn is_in(&self, schema: &Schema, item: &[u8], states: &States) -> bool {
        self.read(schema, item, |field, value| {
            self.is(schema, states, field, value)
        })
        .unwrap_or(false)
    }

    /// The state as the REST API has it; at most 100 characters.
    pub fn text(&self, schema: &Schema, item: &[u8]) -> Option<String> {
        self.read(schema, item, |field, value| {
            let text = json::text(schema, field, value).ok()?;
            Some(text.chars().take(100).collect())
        })?
    }

    /// Whether the state of the item is one of the enum's values.
    fn is_known(&self, schema: &Schema, item: &[u8]) -> bool {
        let Kind::Enum(id) = self.field_path.field(schema).kind else {
            return true;
        };
        let known = self.read(schema, item, |_, value| match value {
            // Enums are sign-extended to 64 bits on the wire.
            Value::Varint(number) => {
                let mut values = schema.enumeration(id).values.iter();
                number != 0 && values.any(|value| value.number == number as i32)
            }
            Value::Bytes(text) => std::str::from_utf8(text)
                .is_ok_and(|text| schema.enumeration(id).number(text).is_some()),
            _ => false,
        });
        known.unwrap_or(false)
    }

    fn is(&self, schema: &Schema, states: &States, field: &Field, value: Value<'_>) -> bool {
        states
            .0
            .iter()
            .any(|state| match (state, field.kind, value) {
                (One::Text(text), Kind::String, Value::Bytes(value)) => text.as_bytes() == value,
                // Enums are sign-extended to 64 bits on the wire.
                (One::Number(number), Kind::Enum(_), Value::Varint(value)) => {
                    *number == value as i32
                }
                // The raw text of an enum, where that is not set.
                (One::Number(number), Kind::String, Value::Bytes(value)) => {
                    let known = std::str::from_utf8(value).ok();
                    match (self.field_path.field(schema).kind, known) {
                        (Kind::Enum(id), Some(text)) => {
                            schema.enumeration(id).number(text) == Some(*number)
                        }
                        _ => false,
                    }
                }
                _ => false,
            })
    }

    /// Calls `read` with the state of the item, or with the raw text kept beside it.
    fn read<T>(
        &self,
        schema: &Schema,
        item: &[u8],
        read: impl FnOnce(&Field, Value<'_>) -> T,
    ) -> Option<T> {
        let (id, wire) =
            descend(schema, self.field_path.root, item, &self.field_path.steps).ok()??;
        let view = View::of(schema, id, &wire).ok()?;
        let index = self.field_path.index;
        let unset = matches!(view.value(index), None | Some(Value::Varint(0)));
        let index = match view.field(index).raw {
            Some(raw) if unset => raw,
            _ => index,
        };
        let value = view.value(index)?;
        Some(read(view.field(index), value))
    }
}

impl Unknown {
    /// What lasts, where the item's state is not known and it is said to be over.
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

impl States {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Hold {
    /// Whether the item is in such a state, as `state` tells.
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

fn one(schema: &Schema, kind: Kind, text: &str) -> Result<One, String> {
    let Kind::Enum(EnumId(id)) = kind else {
        return Ok(One::Text(text.into()));
    };
    let table = &schema.enums[id as usize];
    match table.number(text) {
        Some(number) => Ok(One::Number(number)),
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
