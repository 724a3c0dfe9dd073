//! Reads single fields of an encoded message without decoding it.

use std::borrow::Cow;

use crate::json::wire::{self, Malformed, Value};
use crate::schema::{Cardinality, Field, FieldIndex, Kind, Message, MessageId, Schema};

/// The fields of a message as protobuf merges them: the last value of a field wins,
/// parts of a message are joined, one member of a oneof is set.
pub(super) struct View<'a> {
    message: &'a Message,
    wire: &'a [u8],
    slots: Vec<Slot<'a>>,
}

/// The value of a field.
enum Slot<'a> {
    Unset,
    /// The value; of a list or map, an occurrence that is not empty.
    Set(Value<'a>),
    /// A message that is encoded in parts, joined.
    Merged(Vec<u8>),
}

impl<'a> View<'a> {
    /// Reads the outermost level of `wire`, and checks all of it.
    pub fn of(schema: &'a Schema, id: MessageId, wire: &'a [u8]) -> Result<Self, Malformed> {
        let message = schema.message(id);
        let mut slots: Vec<Slot<'a>> = message.fields.iter().map(|_| Slot::Unset).collect();
        for item in wire::fields(wire) {
            let (number, value) = item?;
            let Some((index, field)) = message.by_number(number) else {
                continue;
            };
            let at = usize::from(index);
            match (field.cardinality, field.kind, value) {
                (Cardinality::Repeated, kind, value) => {
                    for element in wire::values(kind, value) {
                        element?;
                        slots[at] = Slot::Set(value);
                    }
                    continue;
                }
                (_, Kind::Message(_), Value::Bytes(part)) => {
                    slots[at].merge(part);
                }
                // A single value is never packed.
                (_, kind, Value::Bytes(_)) if !matches!(kind, Kind::String | Kind::Bytes) => {
                    return Err(Malformed::Alien);
                }
                (_, kind, value) => {
                    if let Some(value) = wire::values(kind, value).next().transpose()? {
                        slots[at] = Slot::Set(value);
                    }
                }
            }
            if let Some(oneof) = field.oneof {
                for (other, slot) in slots.iter_mut().enumerate() {
                    if other != at && message.fields[other].oneof == Some(oneof) {
                        *slot = Slot::Unset;
                    }
                }
            }
        }
        Ok(Self {
            message,
            wire,
            slots,
        })
    }

    /// Returns the table of the field.
    pub fn field(&self, index: FieldIndex) -> &'a Field {
        &self.message.fields[usize::from(index)]
    }

    /// Returns whether the field has anything to send: an element, an entry, or a value
    /// that is not the default of a field without presence.
    pub fn is_set(&self, index: FieldIndex) -> bool {
        match &self.slots[usize::from(index)] {
            Slot::Unset => false,
            Slot::Merged(_) => true,
            Slot::Set(value) => match self.field(index).cardinality {
                Cardinality::Implicit => !is_zero(*value),
                _ => true,
            },
        }
    }

    /// Returns whether a required field is set, and neither to an empty string nor to the
    /// zero value of an enum.
    pub fn is_filled(&self, index: FieldIndex) -> bool {
        let field = self.field(index);
        let can_be_empty = matches!(field.kind, Kind::String | Kind::Bytes | Kind::Enum(_))
            && field.cardinality == Cardinality::Explicit;
        self.is_set(index) && !(can_be_empty && self.value(index).is_some_and(is_zero))
    }

    /// Returns whether another member of the field's oneof is set.
    pub fn is_other_filled(&self, field: &Field) -> bool {
        let members = self.message.fields.iter();
        field.oneof.is_some()
            && (0..)
                .zip(members)
                .any(|(index, other)| other.oneof == field.oneof && self.is_filled(index))
    }

    /// Returns the value of a field that is set; none for lists and maps.
    pub fn value(&self, index: FieldIndex) -> Option<Value<'_>> {
        match &self.slots[usize::from(index)] {
            Slot::Set(value) if self.is_set(index) => Some(*value),
            Slot::Merged(bytes) => Some(Value::Bytes(bytes)),
            _ => None,
        }
    }

    /// Returns the bytes of a message field that is set.
    pub fn message(&self, index: FieldIndex) -> Option<&[u8]> {
        match self.value(index)? {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Returns the elements of a list, or the entries of a map.
    pub fn elements(
        &self,
        index: FieldIndex,
    ) -> impl Iterator<Item = Result<Value<'a>, Malformed>> + use<'a> {
        let field = self.field(index);
        let number = field.number;
        let kind = field.kind;
        let set = !matches!(self.slots[usize::from(index)], Slot::Unset);
        // `of` has read all fields without an error.
        wire::fields(if set { self.wire } else { &[] })
            .filter_map(Result::ok)
            .filter(move |(found, _)| *found == number)
            .flat_map(move |(_, value)| wire::values(kind, value))
    }
}

impl<'a> Slot<'a> {
    fn merge(&mut self, part: &'a [u8]) {
        match self {
            Slot::Unset => *self = Slot::Set(Value::Bytes(part)),
            Slot::Set(Value::Bytes(first)) => *self = Slot::Merged([*first, part].concat()),
            Slot::Set(_) => {}
            Slot::Merged(bytes) => bytes.extend_from_slice(part),
        }
    }
}

/// The type of a message and its bytes.
pub(super) type Typed<'a> = (MessageId, Cow<'a, [u8]>);

/// Returns the message that `steps` lead to from `wire`; without steps, `wire` itself.
/// None when a message in between is unset.
pub(super) fn descend<'a>(
    schema: &Schema,
    mut id: MessageId,
    wire: &'a [u8],
    steps: &[FieldIndex],
) -> Result<Option<Typed<'a>>, Malformed> {
    let mut at = Cow::Borrowed(wire);
    for step in steps {
        let field = &schema.message(id).fields[usize::from(*step)];
        let Kind::Message(below) = field.kind else {
            return Ok(None);
        };
        let inner = match &at {
            Cow::Borrowed(wire) => wire::message(wire, field.number)?,
            Cow::Owned(wire) => {
                wire::message(wire, field.number)?.map(|m| Cow::Owned(m.into_owned()))
            }
        };
        let Some(inner) = inner else {
            return Ok(None);
        };
        (id, at) = (below, inner);
    }
    Ok(Some((id, at)))
}

fn is_zero(value: Value<'_>) -> bool {
    match value {
        Value::Varint(number) | Value::Fixed64(number) => number == 0,
        Value::Fixed32(number) => number == 0,
        Value::Bytes(bytes) => bytes.is_empty(),
    }
}
