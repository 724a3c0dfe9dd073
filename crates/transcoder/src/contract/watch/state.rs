//! `state`, `succeeded`, `failed`: the state of a watched resource, and its outcome.

use super::field_path::FieldPath;
use crate::contract::Outcome;
use crate::contract::diagnostics::Diagnostics;
use crate::contract::view::{View, descend};
use crate::json;
use crate::json::wire::Value;
use crate::schema::{EnumId, Field, Kind, MessageId, Schema};

/// The field with the state, and its final values.
#[derive(Debug)]
pub(super) struct State {
    pub field_path: FieldPath,
    succeeded: States,
    failed: States,
}

/// A set of values of a state.
#[derive(Debug, Default)]
pub(super) struct States(Vec<StateValue>);

#[derive(Debug, PartialEq, Eq)]
enum StateValue {
    Text(Box<str>),
    Number(i32),
}

/// The options that define a state.
pub(super) struct StateOptions<'a> {
    pub state: &'a str,
    pub succeeded: &'a [String],
    pub failed: &'a [String],
    /// The option that contains them: `watch` or `watch.fallback`.
    pub option: &'a str,
}

impl State {
    pub fn compile(
        options: &StateOptions<'_>,
        schema: &Schema,
        item: MessageId,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<Self> {
        let StateOptions {
            state,
            succeeded,
            failed,
            option,
        } = options;
        let at = |what: &str| format!("{option}.{what}");
        if state.is_empty() {
            if !succeeded.is_empty() || !failed.is_empty() {
                diagnostics.report_rule(
                    &at("state"),
                    "is missing: name the field of `succeeded` and `failed`",
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
                format!("`{state}` must be a single string or enum"),
            );
            return None;
        }
        if let Some(both) = failed.iter().find(|text| succeeded.contains(text)) {
            let problem = format!("`{both}` is also in `succeeded`");
            diagnostics.report_rule(&at("failed"), problem);
        }
        let mut this = Self {
            field_path,
            succeeded: States::default(),
            failed: States::default(),
        };
        this.succeeded = this.states(schema, succeeded, &at("succeeded"), diagnostics);
        this.failed = this.states(schema, failed, &at("failed"), diagnostics);
        Some(this)
    }

    /// Compiles further values of this state.
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
            match state_value(schema, kind, text) {
                Ok(state) => states.0.push(state),
                Err(problem) => diagnostics.report_rule(option, problem),
            }
        }
        states
    }

    /// Compiles values that must be final.
    pub fn ends(
        &self,
        schema: &Schema,
        texts: &[String],
        option: &str,
        diagnostics: &mut Diagnostics<'_>,
    ) -> States {
        let states = self.states(schema, texts, option, diagnostics);
        let is_end =
            |state: &StateValue| self.succeeded.0.contains(state) || self.failed.0.contains(state);
        if !states.0.iter().all(is_end) {
            diagnostics.report_rule(option, "must name states of `succeeded` or `failed`");
        }
        states
    }

    /// Returns the outcome of the item. A state that is unset or unknown is not final.
    pub fn outcome(&self, schema: &Schema, item: &[u8]) -> Outcome {
        self.read(schema, item, |field, value| {
            if self.is(schema, &self.succeeded, field, value) {
                Outcome::Succeeded
            } else if self.is(schema, &self.failed, field, value) {
                Outcome::Failed
            } else {
                Outcome::Pending
            }
        })
        .unwrap_or(Outcome::Pending)
    }

    /// Returns whether the item is in one of these states.
    pub fn is_in(&self, schema: &Schema, item: &[u8], states: &States) -> bool {
        self.read(schema, item, |field, value| {
            self.is(schema, states, field, value)
        })
        .unwrap_or(false)
    }

    /// Returns the state as the REST API names it, at most 100 characters.
    pub fn text(&self, schema: &Schema, item: &[u8]) -> Option<String> {
        self.read(schema, item, |field, value| {
            let text = json::text(schema, field, value).ok()?;
            Some(text.chars().take(100).collect())
        })?
    }

    /// Returns whether the state of the item is a value of the enum.
    pub fn is_known(&self, schema: &Schema, item: &[u8]) -> bool {
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
                (StateValue::Text(text), Kind::String, Value::Bytes(value)) => {
                    text.as_bytes() == value
                }
                // Enums are sign-extended to 64 bits on the wire.
                (StateValue::Number(number), Kind::Enum(_), Value::Varint(value)) => {
                    *number == value as i32
                }
                // The raw field has the text of an unknown enum value.
                (StateValue::Number(number), Kind::String, Value::Bytes(value)) => {
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

    /// Calls `read` with the state of the item, or with its raw field where that is
    /// unset.
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

impl States {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn state_value(schema: &Schema, kind: Kind, text: &str) -> Result<StateValue, String> {
    let Kind::Enum(EnumId(id)) = kind else {
        return Ok(StateValue::Text(text.into()));
    };
    let table = &schema.enums[id as usize];
    match table.number(text) {
        Some(number) => Ok(StateValue::Number(number)),
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
