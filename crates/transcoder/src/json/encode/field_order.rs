//! Messages whose fields are not on the wire once each, in one piece.

use std::collections::HashMap;

use super::super::bit_set::BitSet;
use super::super::wire::{self, Malformed};
use crate::schema::{Cardinality, FieldIndex, Kind, Message};

/// Returns whether each field is there once and in one piece, and one member of each
/// oneof.
pub(super) fn is_in_order(message: &Message, wire: &[u8]) -> Result<bool, Malformed> {
    let mut seen = BitSet::default();
    let mut before = 0;
    let mut fields = wire::fields(wire);
    while let Some((number, _)) = fields.read()? {
        let again = number == before;
        before = number;
        let Some((index, field)) = message.by_number(number) else {
            continue;
        };
        if again && matches!(field.cardinality, Cardinality::Repeated | Cardinality::Map) {
            continue;
        }
        // Oneofs are numbered after the fields.
        let of_oneof = |oneof| message.fields.len() as u16 + oneof;
        if !seen.insert(index) || field.oneof.is_some_and(|o| !seen.insert(of_oneof(o))) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns the message with each field once and in one piece: the last of single
/// values, all parts of a message joined, the last member of a oneof.
pub(super) fn in_order(message: &Message, wire: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut found = Vec::new();
    for field in wire::fields(wire) {
        let (number, value) = field?;
        if let Some((index, field)) = message.by_number(number) {
            if field.cardinality != Cardinality::Repeated {
                wire::of_kind(field.kind, value)?;
            }
            found.push((index, field, value));
        }
    }
    // From the end: the last member of a oneof counts, with its values back to where
    // another member is set.
    let mut members: HashMap<u16, (FieldIndex, bool)> = HashMap::new();
    let mut kept: Vec<_> = found
        .into_iter()
        .rev()
        .filter(|(index, field, _)| {
            let Some(oneof) = field.oneof else {
                return true;
            };
            let (member, open) = members.entry(oneof).or_insert((*index, true));
            *open &= member == index;
            *open
        })
        .collect();
    kept.reverse();
    kept.sort_by_key(|(index, ..)| *index);
    let mut out = Vec::with_capacity(wire.len());
    for group in kept.chunk_by(|a, b| a.0 == b.0) {
        let (_, field, last) = group[group.len() - 1];
        match (field.cardinality, field.kind) {
            (Cardinality::Repeated | Cardinality::Map, _) => {
                for (_, _, value) in group {
                    wire::write_value(&mut out, field.number, *value);
                }
            }
            (_, Kind::Message(_)) => {
                let parts: Vec<_> = group.iter().map(|(_, _, part)| part.bytes()).collect();
                wire::write_bytes(&mut out, field.number, &parts.concat());
            }
            _ => wire::write_value(&mut out, field.number, last),
        }
    }
    Ok(out)
}
