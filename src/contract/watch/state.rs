//! The state of a watched thing, and what it means.

use std::time::Duration;

use super::spot::{Spot, is_one};
use crate::api::drawbridge::v1 as rules;
use crate::contract::Outcome;
use crate::contract::compile::Place;
use crate::contract::schema::{EnumId, Field, Kind, MessageId, Schema};
use crate::contract::view::{View, descend};
use crate::transcode;
use crate::transcode::wire::Value;

/// Where the state stands and which values are an end.
#[derive(Debug)]
pub(super) struct State {
    spot: Spot,
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
    unless: Option<(Spot, Box<str>)>,
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

impl State {
    pub fn compile(
        written: &Written<'_>,
        schema: &Schema,
        item: MessageId,
        place: &mut Place<'_>,
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
                place.refuse_rule(
                    &at("state"),
                    "is missing: name the field that ended_well and ended_badly speak of",
                );
            }
            return None;
        }
        let spot = match Spot::find(schema, item, state) {
            Ok(spot) => spot,
            Err(problem) => {
                place.refuse_rule(&at("state"), problem);
                return None;
            }
        };
        let field = spot.field(schema);
        if !is_one(field) || !matches!(field.kind, Kind::String | Kind::Enum(_)) {
            place.refuse_rule(
                &at("state"),
                format!("`{state}` must be one string or enum"),
            );
            return None;
        }
        if let Some(both) = badly.iter().find(|text| well.contains(text)) {
            let problem = format!("`{both}` stands in ended_well, too");
            place.refuse_rule(&at("ended_badly"), problem);
        }
        let mut this = Self {
            spot,
            well: States::default(),
            badly: States::default(),
        };
        this.well = this.states(schema, well, &at("ended_well"), place);
        this.badly = this.states(schema, badly, &at("ended_badly"), place);
        Some(this)
    }

    /// Further values of this state.
    pub fn states(
        &self,
        schema: &Schema,
        texts: &[String],
        option: &str,
        place: &mut Place<'_>,
    ) -> States {
        let kind = self.spot.field(schema).kind;
        let mut states = States::default();
        for text in texts {
            match one(schema, kind, text) {
                Ok(state) => states.0.push(state),
                Err(problem) => place.refuse_rule(option, problem),
            }
        }
        states
    }

    /// Compiles states of this one that are an end only when they last.
    pub fn hold(
        &self,
        rule: &rules::Hold,
        schema: &Schema,
        item: MessageId,
        place: &mut Place<'_>,
    ) -> Option<Hold> {
        let states = self.states(schema, &rule.states, "watch.hold.states", place);
        let is_end = |state: &One| self.well.0.contains(state) || self.badly.0.contains(state);
        if states.0.is_empty() || !states.0.iter().all(is_end) {
            place.refuse_rule(
                "watch.hold.states",
                "must name states that stand in ended_well or ended_badly",
            );
        }
        let unless = if rule.field.is_empty() {
            if !rule.value.is_empty() {
                place.refuse_rule("watch.hold.field", "is missing: value is what it must be");
            }
            None
        } else {
            match Spot::find(schema, item, &rule.field) {
                Ok(spot) if is_one(spot.field(schema)) => Some((spot, rule.value.as_str().into())),
                Ok(_) => {
                    let problem = format!("`{}` must be one value", rule.field);
                    place.refuse_rule("watch.hold.field", problem);
                    None
                }
                Err(problem) => {
                    place.refuse_rule("watch.hold.field", problem);
                    None
                }
            }
        };
        let time = match rule.time.map(Duration::try_from) {
            None => Duration::ZERO,
            Some(Ok(time)) if time <= Duration::from_secs(86_400) => time,
            Some(_) => {
                place.refuse_rule("watch.hold.time", "must be 0 to 1 day");
                return None;
            }
        };
        let polls = match u32::try_from(rule.polls) {
            Ok(polls @ 0..=1_000) => polls.max(1),
            _ => {
                place.refuse_rule("watch.hold.polls", "must be 1 to 1000");
                return None;
            }
        };
        if time.is_zero() && polls == 1 {
            place.refuse_rule("watch.hold", "holds nothing: give a time or polls");
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
                Outcome::EndedWell
            } else if self.is(schema, &self.badly, field, value) {
                Outcome::EndedBadly
            } else {
                Outcome::Open
            }
        })
        .unwrap_or(Outcome::Open)
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
            let text = transcode::text(schema, field, value).ok()?;
            Some(text.chars().take(100).collect())
        })?
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
                    match (self.spot.field(schema).kind, known) {
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
        let (id, wire) = descend(schema, self.spot.root, item, &self.spot.steps).ok()??;
        let view = View::of(schema, id, &wire).ok()?;
        let index = self.spot.index;
        let unset = matches!(view.value(index), None | Some(Value::Varint(0)));
        let index = match view.field(index).raw {
            Some(raw) if unset => raw,
            _ => index,
        };
        let value = view.value(index)?;
        Some(read(view.field(index), value))
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
        let unless = self.unless.as_ref().is_none_or(|(spot, want)| {
            let text = spot.text(schema, item);
            let text = text.or_else(|| {
                let is_bool = spot.field(schema).kind == Kind::Bool;
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
