//! Objects with duplicate names: the last value counts.

use std::collections::HashSet;

use super::super::wire;
use crate::schema::{FieldIndex, Message};

/// The fields that an object with duplicate names has written, and where the bytes of
/// each begin.
pub(super) struct Segments(pub(super) Vec<(FieldIndex, usize)>);

impl Segments {
    /// Returns the segments of an object without duplicate names so far.
    pub(super) fn of(message: &Message, wire: &[u8]) -> Self {
        let mut segments: Vec<(FieldIndex, usize)> = Vec::new();
        let mut fields = wire::fields(wire);
        let mut at = 0;
        while let Ok(Some((number, _))) = fields.read() {
            if let Some((index, field)) = message.by_number(number) {
                let index = field.raw_of.or(field.urls_of).unwrap_or(index);
                if segments.last().is_none_or(|last| last.0 != index) {
                    segments.push((index, at));
                }
            }
            at = wire.len() - fields.rest().len();
        }
        Self(segments)
    }

    /// Removes all but the last segment of each field; additional properties keep all.
    /// The segments are of `out[start..]`.
    pub(super) fn keep_last(
        self,
        out: &mut Vec<u8>,
        start: usize,
        additional_properties: Option<FieldIndex>,
    ) {
        let wire = out.split_off(start);
        let mut end = wire.len();
        let mut met = HashSet::new();
        let mut kept = Vec::new();
        for (index, at) in self.0.into_iter().rev() {
            if met.insert(index) || Some(index) == additional_properties {
                kept.push(at..end);
            }
            end = at;
        }
        for range in kept.into_iter().rev() {
            out.extend_from_slice(&wire[range]);
        }
    }
}
