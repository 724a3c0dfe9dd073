//! Numbers and their wire bits.

use super::super::token::{self, Number};
use super::super::wire;
use super::Reader;
use crate::schema::Kind;

impl Reader<'_, '_> {
    /// Returns the bits of the infinity in place of the number that ends here and is too large
    /// for a double or a float.
    #[cold]
    pub(super) fn overflow(&self, kind: Kind, at: usize) -> Option<u64> {
        let text = self.text[at..self.pos].trim_ascii();
        let text = text.strip_prefix(b"\"").unwrap_or(text);
        let text = text.strip_suffix(b"\"").unwrap_or(text).trim_ascii();
        let is_negative = text.starts_with(b"-");
        let infinity = match is_negative {
            true => f64::NEG_INFINITY,
            false => f64::INFINITY,
        };
        match kind {
            Kind::Double if token::double(text) == Err(OVERFLOW) => Some(infinity.to_bits()),
            Kind::Float if token::float(text) == Err(OVERFLOW) => {
                Some(u64::from((infinity as f32).to_bits()))
            }
            _ => None,
        }
    }
}

pub(super) fn write_bits(out: &mut Vec<u8>, kind: Kind, bits: u64) {
    match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => out.extend_from_slice(&bits.to_le_bytes()),
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => {
            out.extend_from_slice(&(bits as u32).to_le_bytes());
        }
        _ => wire::write_varint(out, bits),
    }
}

/// The problem of a number that is too large for a double or a float.
pub(super) const OVERFLOW: &str = token::OVERFLOW;

/// Returns the wire bits of a JSON number.
pub(super) fn bits(kind: Kind, text: &[u8]) -> Result<u64, &'static str> {
    match kind {
        Kind::Double => return token::double(text).map(|(value, _)| value.to_bits()),
        Kind::Float => return token::float(text).map(|value| u64::from(value.to_bits())),
        _ => {}
    }
    let value = match token::integer(text) {
        Number::Integer(value) => value,
        Number::Fraction => return Err(""),
        Number::TooLarge => return Err("out of range"),
    };
    match kind {
        Kind::Int32 => i32::try_from(value).map(|v| i64::from(v) as u64),
        Kind::Sfixed32 => i32::try_from(value).map(|v| u64::from(v as u32)),
        Kind::Sint32 => i32::try_from(value).map(|v| u64::from((v << 1 ^ v >> 31) as u32)),
        Kind::Uint32 | Kind::Fixed32 => u32::try_from(value).map(u64::from),
        Kind::Sint64 => i64::try_from(value).map(|v| (v << 1 ^ v >> 63) as u64),
        Kind::Uint64 | Kind::Fixed64 => u64::try_from(value),
        _ => i64::try_from(value).map(|v| v as u64),
    }
    .map_err(|_| "out of range")
}

/// Returns whether an integer is rounded in a field of this kind.
pub(super) fn is_rounded(kind: Kind, text: &[u8]) -> bool {
    let is_integer = || {
        let digits = text.strip_prefix(b"-").unwrap_or(text);
        digits.iter().all(u8::is_ascii_digit)
    };
    let rounded = |(value, exact): (f64, bool)| match kind {
        Kind::Double => !exact,
        _ => is_integer() && !(exact && f64::from(value as f32) == value),
    };
    matches!(kind, Kind::Double | Kind::Float) && token::double(text).is_ok_and(rounded)
}

/// Like [`bits`], for a number in a string.
pub(super) fn bits_of_text(kind: Kind, text: &[u8]) -> Result<u64, &'static str> {
    if matches!(kind, Kind::Double | Kind::Float) {
        let special = token::special_value(text);
        if let Some(value) = special {
            return Ok(match kind {
                Kind::Float => u64::from((value as f32).to_bits()),
                _ => value.to_bits(),
            });
        }
    }
    match token::number(text, 0) {
        Ok(end) if end == text.len() => bits(kind, text),
        _ => Err(""),
    }
}
