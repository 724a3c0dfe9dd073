//! Maps and their keys.

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::super::wire::{self, Fields, MAX_DEPTH, Malformed, Value};
use super::super::{excerpt, text};
use super::{EncodeResult, Next, Writer, fault, prepend_step};
use crate::schema::{Field, Form, Kind};

impl Writer<'_> {
    /// Writes the consecutive entries of a map; see [`Self::list`].
    pub(super) fn map<'a>(
        &self,
        out: &mut Vec<u8>,
        field: &Field,
        first: Value<'a>,
        fields: &mut Fields<'a>,
        depth: u32,
    ) -> EncodeResult<Next<'a>> {
        let Kind::Message(entry) = field.kind else {
            return fault("the map has no entry type");
        };
        if depth >= MAX_DEPTH {
            return Err(Malformed::Depth.into());
        }
        let [key, value] = &self.schema.message(entry).fields[..] else {
            return fault("the map has no keys and values");
        };
        let map = Map {
            number: field.number,
            key,
            value,
            form: field.form,
        };
        // Of duplicate keys, the last entry counts.
        let last = map.last_entries(first, fields.clone())?;
        out.push(b'{');
        let empty = out.len();
        let mut occurrence = first;
        let mut index = 0_usize;
        loop {
            let entry = map.entry(occurrence)?;
            let key = Key::of(map.key.kind, entry.key);
            if last.as_ref().is_none_or(|l| l.get(&key) == Some(&index)) {
                if out.len() > empty {
                    out.push(b',');
                }
                self.entry(out, &map, &entry, depth)
                    .map_err(|e| prepend_step(e, &key.to_string()))?;
            }
            index += 1;
            match fields.read()? {
                Some((number, value)) if number == map.number => occurrence = value,
                next => {
                    out.push(b'}');
                    return Ok(next);
                }
            }
        }
    }

    fn entry(
        &self,
        out: &mut Vec<u8>,
        map: &Map<'_>,
        entry: &Entry<'_>,
        depth: u32,
    ) -> EncodeResult {
        match entry.key {
            Value::Bytes(text) => self.string(out, text)?,
            number => {
                out.push(b'"');
                text::write_number(out, map.key.kind, number);
                out.push(b'"');
            }
        }
        out.push(b':');
        let value = match &entry.merged {
            Some(merged) => Value::Bytes(merged),
            None => entry.value,
        };
        self.value(out, map.value.kind, map.form, value, depth + 1)
    }
}

/// The entries of a map.
struct Map<'f> {
    number: u32,
    key: &'f Field,
    value: &'f Field,
    form: Form,
}

impl Map<'_> {
    /// Returns the index of the last entry of each key; none without duplicates.
    fn last_entries<'a>(
        &self,
        first: Value<'a>,
        fields: Fields<'a>,
    ) -> EncodeResult<Option<HashMap<Key<'a>, usize>>> {
        let mut keys = Keys::default();
        let mut distinct = true;
        self.each_key(first, fields.clone(), |key| distinct &= keys.insert(key))?;
        if distinct {
            return Ok(None);
        }
        let mut last = HashMap::new();
        let mut index = 0;
        self.each_key(first, fields, |key| {
            last.insert(key, index);
            index += 1;
        })?;
        Ok(Some(last))
    }

    fn each_key<'a>(
        &self,
        first: Value<'a>,
        mut fields: Fields<'a>,
        mut seen: impl FnMut(Key<'a>),
    ) -> EncodeResult {
        let mut next = Some((self.number, first));
        while let Some((number, value)) = next
            && number == self.number
        {
            let Value::Bytes(entry) = value else {
                return Err(Malformed::Alien.into());
            };
            let key = wire::last(entry, 1)?.unwrap_or(text::zero(self.key.kind));
            seen(Key::of(self.key.kind, wire::of_kind(self.key.kind, key)?));
            next = fields.read()?;
        }
        Ok(())
    }

    fn entry<'a>(&self, entry: Value<'a>) -> Result<Entry<'a>, Malformed> {
        let Value::Bytes(wire) = entry else {
            return Err(Malformed::Alien);
        };
        let mut entry = Entry {
            key: text::zero(self.key.kind),
            value: text::zero(self.value.kind),
            merged: None,
        };
        let mut has_value = false;
        let mut fields = wire::fields(wire);
        while let Some((number, value)) = fields.read()? {
            match number {
                1 => entry.key = wire::of_kind(self.key.kind, value)?,
                2 => {
                    let value = wire::of_kind(self.value.kind, value)?;
                    if has_value && matches!(self.value.kind, Kind::Message(_)) {
                        let merged = entry.merged.get_or_insert(entry.value.bytes().to_vec());
                        merged.extend_from_slice(value.bytes());
                    }
                    entry.value = value;
                    has_value = true;
                }
                _ => {}
            }
        }
        Ok(entry)
    }
}

/// One entry of a map; `merged` replaces a `value` that is encoded in parts.
struct Entry<'a> {
    key: Value<'a>,
    value: Value<'a>,
    merged: Option<Vec<u8>>,
}

/// The identity of a map key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key<'a> {
    Text(&'a [u8]),
    Number(u64),
}

impl<'a> Key<'a> {
    fn of(kind: Kind, value: Value<'a>) -> Self {
        match value {
            Value::Bytes(text) => Key::Text(text),
            Value::Fixed32(number) => Key::Number(number.into()),
            Value::Fixed64(number) => Key::Number(number),
            Value::Varint(number) => Key::Number(match kind {
                Kind::Bool => (number != 0).into(),
                Kind::Int32 | Kind::Uint32 | Kind::Sint32 => u64::from(number as u32),
                _ => number,
            }),
        }
    }
}

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Text(text) => f.write_str(&excerpt(text)),
            Key::Number(number) => number.fmt(f),
        }
    }
}

/// The keys of a map so far. The first few are compared one by one, without allocation.
pub(super) struct Keys<'a> {
    few: [Key<'a>; 8],
    count: usize,
    many: Option<HashSet<Key<'a>>>,
}

impl Default for Keys<'_> {
    fn default() -> Self {
        Self {
            few: [Key::Number(0); 8],
            count: 0,
            many: None,
        }
    }
}

impl<'a> Keys<'a> {
    /// Adds a key; returns whether it is new.
    pub(super) fn insert(&mut self, key: Key<'a>) -> bool {
        if self.few[..self.count].contains(&key) {
            return false;
        }
        if self.count < self.few.len() {
            self.few[self.count] = key;
            self.count += 1;
            return true;
        }
        self.many.get_or_insert_default().insert(key)
    }
}
