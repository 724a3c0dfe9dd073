//! The canonical encoding of messages: equal messages have equal bytes.

use crate::json::wire::{self, Value};
use crate::schema::{Cardinality, Kind, MessageId, Schema};

/// Encodes a message with its fields in the order of their numbers and its maps sorted;
/// none when it cannot be read.
pub(super) fn canonical(
    schema: &Schema,
    id: MessageId,
    wire: &[u8],
    depth: u32,
) -> Option<Vec<u8>> {
    if depth > wire::MAX_DEPTH {
        return None;
    }
    let message = schema.message(id);
    let mut fields = Vec::new();
    for field in wire::fields(wire) {
        let (number, value) = field.ok()?;
        let known = message.by_number(number).map(|(_, field)| field);
        let mut out = Vec::with_capacity(16);
        match (known.map(|field| field.kind), value) {
            (Some(Kind::Message(below)), Value::Bytes(bytes)) => {
                let inner = canonical(schema, below, bytes, depth + 1)?;
                wire::write_bytes(&mut out, number, &inner);
            }
            (_, value) => wire::write_value(&mut out, number, value),
        }
        let is_entry = known.is_some_and(|field| field.cardinality == Cardinality::Map);
        fields.push((number, is_entry, out));
    }
    // The sort is stable: elements of a list keep their order.
    fields.sort_by(|(a, _, one), (b, is_entry, other)| {
        a.cmp(b).then_with(|| match is_entry {
            true => one.cmp(other),
            false => std::cmp::Ordering::Equal,
        })
    });
    Some(fields.into_iter().flat_map(|(_, _, field)| field).collect())
}
