//! The protobuf wire format: reads the fields of a message as checked slices, and
//! writes single fields.

use std::borrow::Cow;

use crate::schema::Kind;

/// Deepest nesting of messages: the default limit of other protobuf implementations.
pub const MAX_DEPTH: u32 = 100;

/// Why bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The bytes end within a field.
    #[error("the message is cut off")]
    Truncated,
    /// A number has more than ten bytes or 64 bits.
    #[error("a varint is too long")]
    Varint,
    /// A field number is 0 or too large.
    #[error("a field number is out of range")]
    Number,
    /// Groups, or a wire type that does not exist.
    #[error("wire type {0} is not supported")]
    WireType(u8),
    /// The wire type is not that of the field.
    #[error("the wire type is not that of the field")]
    Alien,
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("nested deeper than {MAX_DEPTH} messages")]
    Depth,
}

/// One value on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Integers, bools and enums.
    Varint(u64),
    /// `fixed64`, `sfixed64` and `double`.
    Fixed64(u64),
    /// Strings, bytes, messages and packed lists.
    Bytes(&'a [u8]),
    /// `fixed32`, `sfixed32` and `float`.
    Fixed32(u32),
}

impl<'a> Value<'a> {
    /// Returns the bytes of a length-delimited value; none for others.
    pub fn bytes(&self) -> &'a [u8] {
        match self {
            Value::Bytes(bytes) => bytes,
            _ => &[],
        }
    }
}

/// Returns the fields of a message, in the order of the wire.
pub fn fields(message: &[u8]) -> Fields<'_> {
    Fields { rest: message }
}

/// Iterator of [`fields`]: field numbers and values. It ends after an error.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Returns the unread rest.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Reads the next field; none at the end.
    #[inline(always)]
    pub(super) fn read(&mut self) -> Result<Option<(u32, Value<'a>)>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = varint(&mut self.rest)?;
        let number = tag >> 3;
        if number == 0 || number > 0x1fff_ffff {
            return Err(Malformed::Number);
        }
        let value = match tag & 7 {
            0 => Value::Varint(varint(&mut self.rest)?),
            1 => Value::Fixed64(u64::from_le_bytes(*chunk(&mut self.rest)?)),
            2 => Value::Bytes(bytes(&mut self.rest)?),
            5 => Value::Fixed32(u32::from_le_bytes(*chunk(&mut self.rest)?)),
            other => return Err(Malformed::WireType(other as u8)),
        };
        Ok(Some((number as u32, value)))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.read().transpose();
        if let Some(Err(_)) = item {
            self.rest = &[];
        }
        item
    }
}

#[inline(always)]
fn varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    match rest.split_first() {
        Some((&byte, after)) if byte < 0x80 => {
            *rest = after;
            Ok(u64::from(byte))
        }
        _ => long_varint(rest),
    }
}

#[inline(never)]
fn long_varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0;
    for (i, &byte) in rest.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            if i == 9 && byte > 1 {
                return Err(Malformed::Varint);
            }
            *rest = &rest[i + 1..];
            return Ok(value);
        }
    }
    Err(if rest.len() < 10 {
        Malformed::Truncated
    } else {
        Malformed::Varint
    })
}

#[inline]
fn chunk<'a, const N: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; N], Malformed> {
    let (chunk, after) = rest.split_first_chunk().ok_or(Malformed::Truncated)?;
    *rest = after;
    Ok(chunk)
}

#[inline]
fn bytes<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let len = usize::try_from(varint(rest)?).map_err(|_| Malformed::Truncated)?;
    let (bytes, after) = rest.split_at_checked(len).ok_or(Malformed::Truncated)?;
    *rest = after;
    Ok(bytes)
}

/// Returns the last value of a field, which is the one that counts; for messages see
/// [`message`]. Checks the complete message.
pub fn last(message: &[u8], number: u32) -> Result<Option<Value<'_>>, Malformed> {
    let mut last = None;
    let mut fields = fields(message);
    while let Some((found, value)) = fields.read()? {
        if found == number {
            last = Some(value);
        }
    }
    Ok(last)
}

/// Returns all occurrences of a length-delimited field, such as the items of a repeated
/// message field, without a copy. Checks the complete message.
pub fn all(message: &[u8], number: u32) -> Result<Vec<&[u8]>, Malformed> {
    let mut all = Vec::new();
    let mut fields = fields(message);
    while let Some((found, value)) = fields.read()? {
        if found == number {
            let Value::Bytes(bytes) = value else {
                return Err(Malformed::Alien);
            };
            all.push(bytes);
        }
    }
    Ok(all)
}

/// Counts the occurrences of a field, and returns the last one of a length-delimited field.
/// Checks the complete message. [`all`] takes many times the memory of short items.
pub fn count(message: &[u8], number: u32) -> Result<(u64, Option<&[u8]>), Malformed> {
    let (mut count, mut last) = (0, None);
    let mut fields = fields(message);
    while let Some((found, value)) = fields.read()? {
        if found == number {
            let Value::Bytes(bytes) = value else {
                return Err(Malformed::Alien);
            };
            count += 1;
            last = Some(bytes);
        }
    }
    Ok((count, last))
}

/// Returns the value of a single message field. Parts are joined: protobuf merges them.
pub fn message(message: &[u8], number: u32) -> Result<Option<Cow<'_, [u8]>>, Malformed> {
    let parts = all(message, number)?;
    Ok(match parts.as_slice() {
        [] => None,
        [one] => Some(Cow::Borrowed(*one)),
        many => Some(Cow::Owned(many.concat())),
    })
}

/// Returns the values of one occurrence of a field: one, or those of a packed list. A
/// value with another wire type than that of `kind` is an error.
pub fn values(kind: Kind, value: Value<'_>) -> Values<'_> {
    match value {
        Value::Bytes(packed) if kind.is_packable() => Values {
            kind,
            single: None,
            packed,
        },
        single => Values {
            kind,
            single: Some(single),
            packed: &[],
        },
    }
}

/// Iterator of [`values`]. It ends after an error.
#[derive(Clone, Debug)]
pub struct Values<'a> {
    kind: Kind,
    single: Option<Value<'a>>,
    packed: &'a [u8],
}

impl<'a> Iterator for Values<'a> {
    type Item = Result<Value<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(single) = self.single.take() {
            return Some(of_kind(self.kind, single));
        }
        if self.packed.is_empty() {
            return None;
        }
        let value = match self.kind {
            Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => {
                chunk(&mut self.packed).map(|c| Value::Fixed64(u64::from_le_bytes(*c)))
            }
            Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => {
                chunk(&mut self.packed).map(|c| Value::Fixed32(u32::from_le_bytes(*c)))
            }
            _ => varint(&mut self.packed).map(Value::Varint),
        };
        if value.is_err() {
            self.packed = &[];
        }
        Some(value)
    }
}

/// Checks that the value has the wire type of the kind.
#[inline]
pub(super) fn of_kind(kind: Kind, value: Value<'_>) -> Result<Value<'_>, Malformed> {
    let fits = match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => matches!(value, Value::Fixed64(_)),
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => matches!(value, Value::Fixed32(_)),
        Kind::String | Kind::Bytes | Kind::Message(_) => matches!(value, Value::Bytes(_)),
        _ => matches!(value, Value::Varint(_)),
    };
    if fits {
        Ok(value)
    } else {
        Err(Malformed::Alien)
    }
}

/// Returns the number in a value of an integer field; none for other kinds.
pub fn integer(kind: Kind, value: Value<'_>) -> Option<i128> {
    let zigzag = |n: u64| ((n >> 1) as i64) ^ -((n & 1) as i64);
    Some(match (kind, value) {
        // A negative int32 has ten bytes, too; further bits are dropped.
        (Kind::Int32, Value::Varint(n)) => i128::from(n as i32),
        (Kind::Int64, Value::Varint(n)) => i128::from(n as i64),
        (Kind::Uint32, Value::Varint(n)) => i128::from(n as u32),
        (Kind::Uint64, Value::Varint(n)) | (Kind::Fixed64, Value::Fixed64(n)) => i128::from(n),
        (Kind::Sint32 | Kind::Sint64, Value::Varint(n)) => i128::from(zigzag(n)),
        (Kind::Fixed32, Value::Fixed32(n)) => i128::from(n),
        (Kind::Sfixed32, Value::Fixed32(n)) => i128::from(n as i32),
        (Kind::Sfixed64, Value::Fixed64(n)) => i128::from(n as i64),
        _ => return None,
    })
}

/// Writes a number as a varint.
#[inline]
pub fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Writes a field with an integer, a bool or an enum.
pub fn write_uint(out: &mut Vec<u8>, number: u32, value: u64) {
    write_varint(out, u64::from(number) << 3);
    write_varint(out, value);
}

/// Writes a field with a string, bytes or a message.
pub fn write_bytes(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    write_varint(out, u64::from(number) << 3 | 2);
    write_varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// Writes a field with any value.
pub fn write_value(out: &mut Vec<u8>, number: u32, value: Value<'_>) {
    match value {
        Value::Varint(value) => write_uint(out, number, value),
        Value::Bytes(value) => write_bytes(out, number, value),
        Value::Fixed64(value) => {
            write_varint(out, u64::from(number) << 3 | 1);
            out.extend_from_slice(&value.to_le_bytes());
        }
        Value::Fixed32(value) => {
            write_varint(out, u64::from(number) << 3 | 5);
            out.extend_from_slice(&value.to_le_bytes());
        }
    }
}

/// Reserves a byte for a length; [`close`] writes the length of all that follows.
#[inline]
pub(super) fn open(out: &mut Vec<u8>) -> usize {
    out.push(0);
    out.len()
}

/// Writes the length of all bytes after [`open`]. A length from 128 on needs more than
/// the reserved byte: then the content moves.
#[inline]
pub(super) fn close(out: &mut Vec<u8>, start: usize) {
    let len = out.len() - start;
    if len < 0x80 {
        out[start - 1] = len as u8;
    } else {
        close_long(out, start, len);
    }
}

fn close_long(out: &mut Vec<u8>, start: usize, len: usize) {
    let mut prefix = [0; 10];
    let mut size = 0;
    let mut rest = len;
    while rest >= 0x80 {
        prefix[size] = rest as u8 | 0x80;
        rest >>= 7;
        size += 1;
    }
    prefix[size] = rest as u8;
    let end = out.len();
    out.extend_from_slice(&prefix[..size]);
    out.copy_within(start..end, start + size);
    out[start - 1..start + size].copy_from_slice(&prefix[..=size]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_in_order() {
        let wire =
            b"\x08\x96\x01\x12\x02hi\x1d\x01\x00\x00\x00\x21\x02\x00\x00\x00\x00\x00\x00\x00";
        let read: Result<Vec<_>, _> = fields(wire).collect();
        let want = vec![
            (1, Value::Varint(150)),
            (2, Value::Bytes(b"hi")),
            (3, Value::Fixed32(1)),
            (4, Value::Fixed64(2)),
        ];
        assert_eq!(read, Ok(want));
    }

    #[test]
    fn invalid_wire_data_is_an_error() {
        for (wire, want) in [
            (&b"\x08"[..], Malformed::Truncated),
            (b"\x80", Malformed::Truncated),
            (b"\x12\x05abc", Malformed::Truncated),
            (
                b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
                Malformed::Truncated,
            ),
            (b"\x1d\x00", Malformed::Truncated),
            (b"\x21\x00\x00", Malformed::Truncated),
            (b"\x00\x00", Malformed::Number),
            (b"\x80\x80\x80\x80\x10\x00", Malformed::Number),
            (b"\x0b\x0c", Malformed::WireType(3)),
            (b"\x0c", Malformed::WireType(4)),
            (b"\x0e", Malformed::WireType(6)),
            (b"\x0f", Malformed::WireType(7)),
            (
                b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
                Malformed::Varint,
            ),
            (
                b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
                Malformed::Varint,
            ),
        ] {
            let mut read = fields(wire);
            assert_eq!(read.find_map(Result::err), Some(want), "{wire:?}");
            assert_eq!(read.next(), None, "ends after an error: {wire:?}");
        }
    }

    #[test]
    fn last_value_wins_and_messages_merge() {
        let wire = b"\x08\x01\x12\x01a\x08\x02\x12\x01b";
        assert_eq!(last(wire, 1), Ok(Some(Value::Varint(2))));
        assert_eq!(last(wire, 3), Ok(None));
        assert_eq!(message(wire, 2), Ok(Some(Cow::Owned(b"ab".to_vec()))));
        assert_eq!(all(wire, 2), Ok(vec![&b"a"[..], b"b"]));
        assert_eq!(all(wire, 1), Err(Malformed::Alien));
        assert_eq!(last(b"\x08\x01\x08", 1), Err(Malformed::Truncated));
    }

    #[test]
    fn single_and_packed_values_are_read() {
        let read = |kind, value| values(kind, value).collect::<Result<Vec<_>, _>>();
        let ones = Ok(vec![Value::Varint(1), Value::Varint(300)]);
        assert_eq!(read(Kind::Int32, Value::Bytes(b"\x01\xac\x02")), ones);
        assert_eq!(
            read(Kind::Int32, Value::Varint(1)),
            Ok(vec![Value::Varint(1)])
        );
        assert_eq!(read(Kind::Int32, Value::Fixed32(1)), Err(Malformed::Alien));
        assert_eq!(read(Kind::String, Value::Varint(1)), Err(Malformed::Alien));
        assert_eq!(
            read(Kind::String, Value::Bytes(b"")),
            Ok(vec![Value::Bytes(b"")])
        );
        assert_eq!(
            read(Kind::Float, Value::Bytes(b"\0\0\0")),
            Err(Malformed::Truncated)
        );
    }

    #[test]
    fn length_prefix_grows_with_its_content() {
        for len in [0, 1, 127, 128, 16_383, 16_384, 3_000_000] {
            let mut out = b"x\x0a".to_vec();
            let start = open(&mut out);
            out.extend(std::iter::repeat_n(b'y', len));
            close(&mut out, start);
            let mut want = b"x".to_vec();
            write_bytes(&mut want, 1, &vec![b'y'; len]);
            assert!(out == want, "{len}");
        }
    }
}
