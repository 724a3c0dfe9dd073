//! Checks the messages of a request by the rules of their fields.

use std::fmt;

use super::super::plan::{Node, Plan};
use super::super::view::View;
use super::Binding;
use crate::Error;
use crate::json::wire::{self, MAX_DEPTH, Malformed, Value};
use crate::schema::{Cardinality, Field, FieldIndex, Kind, MessageId};

/// Checks all messages of a request for missing fields and for fields that must not be
/// sent.
pub(super) struct Checker<'a> {
    pub binding: &'a Binding,
    pub plan: &'a Plan,
    pub dialect: &'a str,
    /// Whether a field below the outermost level is set that must not be sent.
    pub has_unsent: bool,
}

impl Checker<'_> {
    pub fn check(&mut self, node: &Node, view: &View<'_>, trail: &Trail<'_>) -> Result<(), Error> {
        for rule in &node.rules {
            let field = view.field(rule.index);
            if let Some(minimum) = rule.minimum {
                check_minimum(field, view, rule.index, minimum, trail)?;
            }
            if rule.unsent {
                self.has_unsent |= view.is_set(rule.index);
                continue;
            }
            if rule.required
                && !view.is_filled(rule.index)
                && !field.raw.is_some_and(|raw| view.is_filled(raw))
                && !view.is_other_filled(field)
            {
                let by_dialect = field.required_in.iter().any(|d| **d == *self.dialect);
                let problem = if by_dialect && !field.required {
                    format!("is required by the dialect {}", self.dialect)
                } else {
                    "is required".to_owned()
                };
                return Err(Error::Binding {
                    field: trail.below(&field.name, None).to_string(),
                    problem,
                });
            }
            let (Some(below), Kind::Message(id)) = (rule.below, field.kind) else {
                continue;
            };
            if let Cardinality::Repeated | Cardinality::Map = field.cardinality {
                for (at, element) in view.elements(rule.index).enumerate() {
                    if let Value::Bytes(bytes) = element.map_err(Error::malformed)? {
                        let trail = trail.below(&field.name, Some(at));
                        self.descend(below, id, bytes, &trail)?;
                    }
                }
            } else if let Some(bytes) = view.message(rule.index) {
                self.descend(below, id, bytes, &trail.below(&field.name, None))?;
            }
        }
        Ok(())
    }

    fn descend(
        &mut self,
        node: usize,
        id: MessageId,
        wire: &[u8],
        trail: &Trail<'_>,
    ) -> Result<(), Error> {
        let fault = |malformed: Malformed| Error::Malformed(format!("{trail}: {malformed}"));
        if trail.depth > MAX_DEPTH {
            return Err(fault(Malformed::Depth));
        }
        let view = View::of(&self.binding.schema, id, wire).map_err(fault)?;
        self.check(&self.plan.nodes[node], &view, trail)
    }
}

/// Fails when a value of the integer field is below the minimum.
fn check_minimum(
    field: &Field,
    view: &View<'_>,
    index: FieldIndex,
    minimum: i64,
    trail: &Trail<'_>,
) -> Result<(), Error> {
    let below = |value| wire::integer(field.kind, value).is_some_and(|n| n < i128::from(minimum));
    let fault = |at| Error::Binding {
        field: trail.below(&field.name, at).to_string(),
        problem: format!("must be at least {minimum}"),
    };
    if field.is_single() {
        return match view.value(index) {
            Some(value) if below(value) => Err(fault(None)),
            _ => Ok(()),
        };
    }
    for (at, element) in view.elements(index).enumerate() {
        if below(element.map_err(Error::malformed)?) {
            return Err(fault(Some(at)));
        }
    }
    Ok(())
}

/// The path to a field; formatted only for an error.
pub(super) struct Trail<'a> {
    above: Option<&'a Trail<'a>>,
    name: &'a str,
    element: Option<usize>,
    depth: u32,
}

impl Trail<'_> {
    pub const ROOT: Trail<'static> = Trail {
        above: None,
        name: "",
        element: None,
        depth: 0,
    };

    fn below<'b>(&'b self, name: &'b str, element: Option<usize>) -> Trail<'b> {
        Trail {
            above: Some(self),
            name,
            element,
            depth: self.depth + 1,
        }
    }
}

impl fmt::Display for Trail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(above) = self.above.filter(|above| above.above.is_some()) {
            write!(f, "{above}.")?;
        }
        f.write_str(self.name)?;
        match self.element {
            Some(at) => write!(f, "[{at}]"),
            None => Ok(()),
        }
    }
}
