//! Enum reading: the number of a REST text, from the table of [`Enum::number`]. A JSON
//! number is read like that of an integer field, by `Reader::scalar`.
//!
//! [`Enum::number`]: crate::schema::Enum::number

use super::Reader;
use crate::schema::EnumId;

impl Reader<'_, '_> {
    /// Returns the wire bits of the enum value of this REST text or alias; none when
    /// the enum has no such value.
    pub(super) fn enum_bits(&self, id: EnumId, text: &[u8]) -> Option<u64> {
        let text = str::from_utf8(text).ok()?;
        let number = self.schema.enumeration(id).number(text)?;
        // Negative numbers are sign-extended to 64 bits.
        Some(i64::from(number) as u64)
    }

    /// Like [`Self::enum_bits`], for a JSON number. It counts only as the REST text or an
    /// alias of a value: the proto's own numbers mean nothing to the upstream.
    pub(super) fn enum_bits_of_number(&self, id: EnumId, number: &[u8]) -> Option<u64> {
        let table = self.schema.enumeration(id);
        let index = table.texts.get(number)?;
        Some(i64::from(table.values[usize::from(index)].number) as u64)
    }
}
