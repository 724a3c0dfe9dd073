//! Arbitrary JSON: `Struct`, `Value`, `ListValue` and `Any`, which need no tables.

use std::borrow::Cow;
use std::collections::HashMap;

use super::super::wire::{self, MAX_DEPTH, Malformed, Value};
use super::super::{any_is_plain, any_type, excerpt, print};
use super::map::{Key, Keys};
use super::{EncodeResult, Writer, fault, prepend_step, room};
use crate::output_limit::SHORT_VALUE;
use crate::schema::{Form, Message};

impl Writer<'_> {
    /// Writes the members of a Struct next to those of the fields.
    pub(super) fn additional_properties(
        &self,
        out: &mut Vec<u8>,
        empty: usize,
        message: &Message,
        wire: &[u8],
        depth: u32,
    ) -> EncodeResult {
        if depth >= MAX_DEPTH {
            return Err(Malformed::Depth.into());
        }
        let wire = last_entries(wire)?;
        let mut fields = wire::fields(&wire);
        while let Some((number, value)) = fields.read()? {
            let (1, Value::Bytes(entry)) = (number, value) else {
                continue;
            };
            let (key, value) = any_entry(entry)?;
            if out.len() > empty {
                out.push(b',');
            }
            let named = match message.names.get(key) {
                Some(_) => fault("has a field of its own: set that"),
                None => self.string(out, key),
            };
            named
                .and_then(|()| {
                    out.push(b':');
                    self.any_json(out, &value, depth + 3)
                })
                .map_err(|e| prepend_step(e, &Key::Text(key).to_string()))?;
        }
        Ok(())
    }

    /// Writes a `google.protobuf.Struct`.
    pub(super) fn structure(&self, out: &mut Vec<u8>, wire: &[u8], depth: u32) -> EncodeResult {
        let wire = last_entries(wire)?;
        out.push(b'{');
        let empty = out.len();
        let mut fields = wire::fields(&wire);
        while let Some((number, value)) = fields.read()? {
            let (1, Value::Bytes(entry)) = (number, value) else {
                continue;
            };
            let (key, value) = any_entry(entry)?;
            if out.len() > empty {
                out.push(b',');
            }
            // The entry is a message, too.
            self.string(out, key)
                .and_then(|()| {
                    out.push(b':');
                    self.any_json(out, &value, depth + 2)
                })
                .map_err(|e| prepend_step(e, &Key::Text(key).to_string()))?;
        }
        out.push(b'}');
        Ok(())
    }

    /// Writes a `google.protobuf.ListValue`.
    pub(super) fn any_list(&self, out: &mut Vec<u8>, wire: &[u8], depth: u32) -> EncodeResult {
        let mut index = 0_usize;
        out.push(b'[');
        let mut fields = wire::fields(wire);
        while let Some((number, value)) = fields.read()? {
            if number != 1 {
                continue;
            }
            if index > 0 {
                out.push(b',');
            }
            match value {
                Value::Bytes(element) => self.any_json(out, element, depth + 1),
                _ => Err(Malformed::Alien.into()),
            }
            .map_err(|e| prepend_step(e, &format!("[{index}]")))?;
            index += 1;
        }
        out.push(b']');
        Ok(())
    }

    /// Writes a `google.protobuf.Value`. An empty one is `null`.
    pub(super) fn any_json(&self, out: &mut Vec<u8>, wire: &[u8], depth: u32) -> EncodeResult {
        if depth > MAX_DEPTH {
            return Err(Malformed::Depth.into());
        }
        room(out, SHORT_VALUE)?;
        let mut fields = wire::fields(wire);
        match fields.read()? {
            Some((kind, value)) if fields.rest().is_empty() => {
                return self.any_kind(out, kind, value, depth);
            }
            Some(_) => {}
            None => {
                out.extend_from_slice(b"null");
                return Ok(());
            }
        }
        // All fields are members of one oneof: the last one counts, and a message joins
        // its parts.
        let mut last = (0, Value::Varint(0));
        let mut parts = Vec::new();
        for field in wire::fields(wire) {
            let (kind, value) = field?;
            if !(1..=6).contains(&kind) {
                continue;
            }
            if !is_any_kind(kind, value) {
                return Err(Malformed::Alien.into());
            }
            if kind != last.0 || kind == 3 {
                parts.clear();
            }
            parts.extend_from_slice(value.bytes());
            last = (kind, value);
        }
        match last {
            (kind, Value::Bytes(_)) => self.any_kind(out, kind, Value::Bytes(&parts), depth),
            (kind, value) => self.any_kind(out, kind, value, depth),
        }
    }

    /// Writes the field of a Value, by its number.
    #[inline]
    fn any_kind(&self, out: &mut Vec<u8>, kind: u32, value: Value<'_>, depth: u32) -> EncodeResult {
        match (kind, value) {
            (1, Value::Varint(_)) => out.extend_from_slice(b"null"),
            (2, Value::Fixed64(bits)) => {
                let value = f64::from_bits(bits);
                if !value.is_finite() {
                    return fault("NaN and infinities are not JSON numbers");
                }
                print::double(out, value);
            }
            (3, Value::Bytes(text)) => return self.string(out, text),
            (4, Value::Varint(value)) => {
                out.extend_from_slice(if value == 0 { b"false" } else { b"true" });
            }
            (5 | 6, Value::Bytes(_)) if depth >= MAX_DEPTH => {
                return Err(Malformed::Depth.into());
            }
            (5, Value::Bytes(wire)) => return self.structure(out, wire, depth + 1),
            (6, Value::Bytes(wire)) => return self.any_list(out, wire, depth + 1),
            (1..=6, _) => return Err(Malformed::Alien.into()),
            // An unknown kind.
            _ => out.extend_from_slice(b"null"),
        }
        Ok(())
    }

    /// Writes a `google.protobuf.Any`.
    pub(super) fn any(&self, out: &mut Vec<u8>, wire: &[u8], depth: u32) -> EncodeResult {
        let url = wire::last(wire, 1)?.map_or(&[][..], |url| url.bytes());
        let value = wire::last(wire, 2)?.map_or(&[][..], |value| value.bytes());
        if url.is_empty() {
            if !value.is_empty() {
                return fault("an Any with a value has no type_url");
            }
            out.extend_from_slice(b"{}");
            return Ok(());
        }
        let Some(id) = any_type(self.schema, url) else {
            return fault(format!("the type `{}` is not known", excerpt(url)));
        };
        out.extend_from_slice(b"{\"@type\":");
        self.string(out, url)?;
        let mark = out.len();
        if any_is_plain(self.schema.message(id)) {
            self.message(out, id, Form::Plain, value, None, depth + 1)?;
            // `{"@type":"…"{"a":1}` or `{"@type":"…"{}`.
            match &out[mark..] {
                b"{}" => drop(out.remove(mark)),
                _ => out[mark] = b',',
            }
        } else {
            out.extend_from_slice(b",\"value\":");
            self.message(out, id, Form::Plain, value, None, depth + 1)?;
            out.push(b'}');
        }
        Ok(())
    }
}

/// Returns whether the value has the wire type of this field of a Value.
fn is_any_kind(kind: u32, value: Value<'_>) -> bool {
    match kind {
        1 | 4 => matches!(value, Value::Varint(_)),
        2 => matches!(value, Value::Fixed64(_)),
        _ => matches!(value, Value::Bytes(_)),
    }
}

/// Returns the key of an entry of a Struct.
#[inline]
fn any_key(wire: &[u8]) -> Result<&[u8], Malformed> {
    let mut key: &[u8] = &[];
    let mut fields = wire::fields(wire);
    while let Some((number, found)) = fields.read()? {
        match (number, found) {
            (1, Value::Bytes(text)) => key = text,
            (1, _) => return Err(Malformed::Alien),
            _ => {}
        }
    }
    Ok(key)
}

/// Returns key and value of an entry of a Struct.
#[inline]
fn any_entry(wire: &[u8]) -> Result<(&[u8], Cow<'_, [u8]>), Malformed> {
    let mut key: &[u8] = &[];
    let mut value: Option<Cow<'_, [u8]>> = None;
    let mut fields = wire::fields(wire);
    while let Some((number, found)) = fields.read()? {
        match (number, found, &mut value) {
            (1, Value::Bytes(text), _) => key = text,
            (2, Value::Bytes(first), None) => value = Some(Cow::Borrowed(first)),
            (2, Value::Bytes(part), Some(parts)) => parts.to_mut().extend_from_slice(part),
            (1 | 2, ..) => return Err(Malformed::Alien),
            _ => {}
        }
    }
    Ok((key, value.unwrap_or_default()))
}

/// Returns a Struct with the last entry of each key; unchanged if no key is duplicate.
fn last_entries(wire: &[u8]) -> Result<Cow<'_, [u8]>, Malformed> {
    let mut keys = Keys::default();
    let mut distinct = true;
    let mut fields = wire::fields(wire);
    while let Some((number, value)) = fields.read()? {
        match (number, value) {
            (1, Value::Bytes(entry)) => distinct &= keys.insert(Key::Text(any_key(entry)?)),
            (1, _) => return Err(Malformed::Alien),
            _ => {}
        }
    }
    if distinct {
        return Ok(Cow::Borrowed(wire));
    }
    let entries = wire::all(wire, 1)?;
    let mut last = HashMap::new();
    for (index, entry) in entries.iter().enumerate() {
        last.insert(any_key(entry)?, index);
    }
    let mut out = Vec::with_capacity(wire.len());
    for (index, entry) in entries.iter().enumerate() {
        if last.get(any_key(entry)?) == Some(&index) {
            wire::write_bytes(&mut out, 1, entry);
        }
    }
    Ok(Cow::Owned(out))
}
