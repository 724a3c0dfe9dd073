//! Protobuf bytes to JSON text.
//!
//! A message is written in the order of its wire. That holds as long as each
//! field stands there once, in one piece, which is what every encoder makes. A
//! message that is not so is put in order first, and then written. Which it is,
//! is seen before the first of its parts is written: nothing is written twice,
//! however deep it stands.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;

use super::wire::{self, Fields, MAX_DEPTH, Malformed, Value};
use super::{Problem, excerpt, print, text};
use crate::contract::schema::{
    Cardinality, Field, FieldIndex, Form, Kind, Message, MessageId, Schema, Shape,
};

/// Boxed, so that success is told in a register.
pub(super) type Outcome<T = ()> = Result<T, Box<Problem>>;

fn fault<T>(problem: impl Into<String>) -> Outcome<T> {
    Err(Box::new(Problem {
        path: String::new(),
        problem: problem.into(),
    }))
}

impl From<Malformed> for Box<Problem> {
    #[cold]
    fn from(malformed: Malformed) -> Self {
        Box::new(Problem {
            path: String::new(),
            problem: malformed.to_string(),
        })
    }
}

/// Puts a step before the path of a problem.
#[cold]
fn within(mut problem: Box<Problem>, step: &str) -> Box<Problem> {
    let join = match problem.path.as_bytes().first() {
        None | Some(b'[') => "",
        Some(_) => ".",
    };
    problem.path = format!("{step}{join}{}", problem.path);
    problem
}

/// Writes messages as JSON.
#[derive(Clone, Copy)]
pub(super) struct Writer<'s> {
    pub schema: &'s Schema,
    /// Fields absent in this dialect are left out, at every level.
    pub dialect: Option<&'s str>,
}

/// Which fields to leave out.
pub(super) type Skip<'f> = Option<&'f dyn Fn(FieldIndex) -> bool>;

/// A field number and a value behind what was written last.
type Next<'a> = Option<(u32, Value<'a>)>;

impl Writer<'_> {
    /// Writes a message in the form of its type. `depth` is how many messages
    /// it stands in.
    pub fn message(
        &self,
        out: &mut Vec<u8>,
        id: MessageId,
        form: Form,
        wire: &[u8],
        skip: Skip<'_>,
        depth: u32,
    ) -> Outcome {
        if depth > MAX_DEPTH {
            return Err(Malformed::Depth.into());
        }
        if form == Form::JsonText {
            let start = out.len();
            self.message(out, id, Form::Plain, wire, skip, depth)?;
            let json = out.split_off(start);
            return self.string(out, &json);
        }
        let message = self.schema.message(id);
        match message.shape {
            Shape::Object => self.object(out, message, wire, skip, depth),
            Shape::Struct => self.structure(out, wire, depth),
            Shape::Value => self.any_json(out, wire, depth),
            Shape::ListValue => self.any_list(out, wire, depth),
            Shape::Timestamp => {
                let time = text::seconds(wire)?;
                let quote = form != Form::EpochMillis;
                quoted(out, quote, |out| {
                    text::write_time(out, form, time).or_else(fault)
                })
            }
            Shape::Duration => {
                let duration = text::seconds(wire)?;
                quoted(out, true, |out| {
                    text::write_duration(out, duration).or_else(fault)
                })
            }
            Shape::FieldMask => {
                let start = out.len();
                text::write_mask(out, wire).or_else(fault)?;
                let mask = out.split_off(start);
                self.string(out, &mask)
            }
            Shape::Wrapper => {
                let kind = message.fields[0].kind;
                let value = wire::last(wire, 1)?.unwrap_or(text::zero(kind));
                self.value(out, kind, form, value, depth)
            }
            Shape::Any => self.any(out, wire, depth),
        }
    }

    fn object(
        &self,
        out: &mut Vec<u8>,
        message: &Message,
        wire: &[u8],
        skip: Skip<'_>,
        depth: u32,
    ) -> Outcome {
        match message.bare_array.filter(|_| message.as_array) {
            Some(index) => self.array(out, message, index, wire, skip, depth),
            None => self.members(out, message, wire, skip, depth),
        }
    }

    /// A message that stands as the array of one of its fields, unless another
    /// one is set.
    fn array(
        &self,
        out: &mut Vec<u8>,
        message: &Message,
        array: FieldIndex,
        wire: &[u8],
        skip: Skip<'_>,
        depth: u32,
    ) -> Outcome {
        let start = out.len();
        let skipped = |index| skip.is_some_and(|skip| skip(index));
        let others = |index| index == array || skipped(index);
        self.members(out, message, wire, Some(&others), depth)?;
        let end = out.len();
        let alone = |index| index != array || skipped(index);
        self.members(out, message, wire, Some(&alone), depth)?;
        match (&out[start..end], &out[end..]) {
            (b"{}", b"{}") => {
                out.truncate(start);
                out.extend_from_slice(b"[]");
            }
            // `{}{"name":[...]}`
            (b"{}", _) => {
                let member = &message.fields[usize::from(array)].member;
                out.drain(start..=end + member.len());
                out.pop();
            }
            (_, b"{}") => out.truncate(end),
            // `{...}{"name":[...]}`
            _ => {
                out[end] = b',';
                out.remove(end - 1);
            }
        }
        Ok(())
    }

    fn members(
        &self,
        out: &mut Vec<u8>,
        message: &Message,
        wire: &[u8],
        skip: Skip<'_>,
        depth: u32,
    ) -> Outcome {
        if is_in_order(message, wire)? {
            self.in_turn(out, message, wire, skip, depth)
        } else {
            self.in_turn(out, message, &in_order(message, wire)?, skip, depth)
        }
    }

    /// Writes an object whose fields stand on the wire once each.
    fn in_turn(
        &self,
        out: &mut Vec<u8>,
        message: &Message,
        wire: &[u8],
        skip: Skip<'_>,
        depth: u32,
    ) -> Outcome {
        let hidden = |index: FieldIndex, field: &Field| {
            field.local
                || skip.is_some_and(|skip| skip(index))
                || (!field.absent_in.is_empty()
                    && self
                        .dialect
                        .is_some_and(|d| field.absent_in.iter().any(|a| **a == *d)))
        };
        let mut seen = Bits::default();
        // What is written counts only where it decides on something.
        let tracked = !message.always.is_empty() || !message.raws.is_empty();
        let mut written = Bits::default();
        out.push(b'{');
        let empty = out.len();
        let mut fields = wire::fields(wire);
        let mut next = fields.read()?;
        while let Some((number, value)) = next {
            let Some((index, field)) = message.by_number(number) else {
                next = fields.read()?;
                continue;
            };
            seen.insert(index);
            if hidden(index, field) || field.raw_of.is_some() {
                next = past(&mut fields, number)?;
                continue;
            }
            if field.extras {
                let Value::Bytes(extras) = value else {
                    return Err(within(Malformed::Alien.into(), &field.name));
                };
                self.extras(out, empty, message, extras, depth)
                    .map_err(|e| within(e, &field.name))?;
                next = fields.read()?;
                continue;
            }
            let start = out.len();
            begin(out, empty, field);
            let value_start = out.len();
            let after = match field.cardinality {
                Cardinality::Implicit | Cardinality::Explicit => {
                    let zero = text::is_zero(value)
                        && match field.kind {
                            Kind::Message(_) => false,
                            _ => field.cardinality == Cardinality::Implicit || text::yields(field),
                        };
                    if zero {
                        wire::of_kind(field.kind, value)
                            .map_err(|e| within(e.into(), &field.name))?;
                    } else {
                        self.value(out, field.kind, field.form, value, depth)
                            .map_err(|e| within(e, &field.name))?;
                    }
                    fields.read()?
                }
                Cardinality::Repeated => self
                    .list(out, field, value, &mut fields, depth)
                    .map_err(|e| within(e, &field.name))?,
                Cardinality::Map => self
                    .map(out, field, value, &mut fields, depth)
                    .map_err(|e| within(e, &field.name))?,
            };
            next = after;
            if out.len() == value_start {
                out.truncate(start);
            } else if tracked {
                written.insert(index);
            }
        }
        for &index in &message.always {
            let field = &message.fields[usize::from(index)];
            if !written.contains(index) && !hidden(index, field) && field.raw.is_none() {
                begin(out, empty, field);
                out.extend_from_slice(blank(field));
                written.insert(index);
            }
        }
        for &index in &message.raws {
            let raw = &message.fields[usize::from(index)];
            let Some(of) = raw.raw_of else { continue };
            let field = &message.fields[usize::from(of)];
            if !written.contains(of) && !hidden(of, field) {
                self.raw(out, empty, field, raw, wire, seen.contains(of))
                    .map_err(|e| within(e, &raw.name))?;
            }
        }
        out.push(b'}');
        Ok(())
    }

    /// Writes the members of a Struct beside those of the fields.
    fn extras(
        &self,
        out: &mut Vec<u8>,
        empty: usize,
        message: &Message,
        wire: &[u8],
        depth: u32,
    ) -> Outcome {
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
                .map_err(|e| within(e, &Key::Text(key).to_string()))?;
        }
        Ok(())
    }

    /// Writes a field that is unset from its raw companion, if that has a text.
    /// `zero` says that the field stands on the wire as its zero.
    fn raw(
        &self,
        out: &mut Vec<u8>,
        empty: usize,
        field: &Field,
        raw: &Field,
        wire: &[u8],
        zero: bool,
    ) -> Outcome {
        let texts = wire::all(wire, raw.number)?;
        if field.cardinality == Cardinality::Repeated {
            if !texts.is_empty() {
                begin(out, empty, field);
                self.texts(out, field.form, &texts)?;
            } else if field.always {
                begin(out, empty, field);
                out.extend_from_slice(blank(field));
            }
            return Ok(());
        }
        match texts.last() {
            Some(text) if !text.is_empty() => {
                begin(out, empty, field);
                self.string(out, text)
            }
            _ if zero && field.cardinality == Cardinality::Explicit => {
                begin(out, empty, field);
                self.value(out, field.kind, field.form, text::zero(field.kind), 0)
            }
            _ => Ok(()),
        }
    }

    fn texts(&self, out: &mut Vec<u8>, form: Form, texts: &[&[u8]]) -> Outcome {
        if form == Form::CommaList {
            return self.string(out, &texts.join(&b','));
        }
        out.push(b'[');
        for (i, text) in texts.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            self.string(out, text)?;
        }
        out.push(b']');
        Ok(())
    }

    /// Writes the elements of a list, as far as they stand together. Nothing for
    /// an empty list.
    fn list<'a>(
        &self,
        out: &mut Vec<u8>,
        field: &Field,
        first: Value<'a>,
        fields: &mut Fields<'a>,
        depth: u32,
    ) -> Outcome<Next<'a>> {
        let comma_list = field.form == Form::CommaList;
        let start = out.len();
        out.push(b'[');
        let mut index = 0_usize;
        let mut occurrence = first;
        let next = loop {
            for value in wire::values(field.kind, occurrence) {
                if index > 0 {
                    out.push(b',');
                }
                let element = out.len();
                let result = match value {
                    Err(malformed) => Err(malformed.into()),
                    Ok(value) if comma_list => self.comma_element(out, field.kind, value, element),
                    Ok(value) => self.value(out, field.kind, field.form, value, depth),
                };
                result.map_err(|e| within(e, &format!("[{index}]")))?;
                index += 1;
            }
            match fields.read()? {
                Some((number, value)) if number == field.number => occurrence = value,
                next => break next,
            }
        };
        if index == 0 {
            out.truncate(start);
        } else if comma_list {
            let list = out.split_off(start);
            self.string(out, &list[1..])?;
        } else {
            out.push(b']');
        }
        Ok(next)
    }

    fn comma_element(
        &self,
        out: &mut Vec<u8>,
        kind: Kind,
        value: Value<'_>,
        start: usize,
    ) -> Outcome {
        text::write(out, self.schema, kind, Form::Plain, value).or_else(fault)?;
        match out[start..].contains(&b',') {
            true => fault(format!("`{}` has a comma", excerpt(&out[start..]))),
            false => Ok(()),
        }
    }

    /// Writes the entries of a map; else as [`Self::list`].
    fn map<'a>(
        &self,
        out: &mut Vec<u8>,
        field: &Field,
        first: Value<'a>,
        fields: &mut Fields<'a>,
        depth: u32,
    ) -> Outcome<Next<'a>> {
        let Kind::Message(entry) = field.kind else {
            return fault("the map has no entries");
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
        // Where a key comes twice, only its last entry counts.
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
                    .map_err(|e| within(e, &key.to_string()))?;
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

    fn entry(&self, out: &mut Vec<u8>, map: &Map<'_>, entry: &Entry<'_>, depth: u32) -> Outcome {
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

    // Arbitrary JSON is written without tables: its types are always the same.

    /// `google.protobuf.Struct`.
    fn structure(&self, out: &mut Vec<u8>, wire: &[u8], depth: u32) -> Outcome {
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
            // The entry is a message as well.
            self.string(out, key)
                .and_then(|()| {
                    out.push(b':');
                    self.any_json(out, &value, depth + 2)
                })
                .map_err(|e| within(e, &Key::Text(key).to_string()))?;
        }
        out.push(b'}');
        Ok(())
    }

    /// `google.protobuf.ListValue`.
    fn any_list(&self, out: &mut Vec<u8>, wire: &[u8], depth: u32) -> Outcome {
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
            .map_err(|e| within(e, &format!("[{index}]")))?;
            index += 1;
        }
        out.push(b']');
        Ok(())
    }

    /// `google.protobuf.Value`. One that holds nothing is `null`.
    fn any_json(&self, out: &mut Vec<u8>, wire: &[u8], depth: u32) -> Outcome {
        if depth > MAX_DEPTH {
            return Err(Malformed::Depth.into());
        }
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
        // All fields are members of one oneof: the last one counts, and a message
        // takes in the parts that stand before it.
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

    /// The one field of a Value, by its number.
    #[inline]
    fn any_kind(&self, out: &mut Vec<u8>, kind: u32, value: Value<'_>, depth: u32) -> Outcome {
        match (kind, value) {
            (1, Value::Varint(_)) => out.extend_from_slice(b"null"),
            (2, Value::Fixed64(bits)) => {
                let value = f64::from_bits(bits);
                if !value.is_finite() {
                    return fault("NaN and infinities are no JSON numbers");
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
            // A kind that is not known.
            _ => out.extend_from_slice(b"null"),
        }
        Ok(())
    }

    /// `google.protobuf.Any`.
    fn any(&self, out: &mut Vec<u8>, wire: &[u8], depth: u32) -> Outcome {
        let url = wire::last(wire, 1)?.map_or(&[][..], |url| url.bytes());
        let value = wire::last(wire, 2)?.map_or(&[][..], |value| value.bytes());
        if url.is_empty() {
            if !value.is_empty() {
                return fault("an Any with a value has no type_url");
            }
            out.extend_from_slice(b"{}");
            return Ok(());
        }
        let Some(id) = super::any_type(self.schema, url) else {
            return fault(format!("the type `{}` is not known", excerpt(url)));
        };
        out.extend_from_slice(b"{\"@type\":");
        self.string(out, url)?;
        let mark = out.len();
        if super::any_is_plain(self.schema.message(id)) {
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

    #[inline]
    fn value(
        &self,
        out: &mut Vec<u8>,
        kind: Kind,
        form: Form,
        value: Value<'_>,
        depth: u32,
    ) -> Outcome {
        match (kind, wire::of_kind(kind, value)?) {
            (Kind::String, Value::Bytes(text)) => self.string(out, text),
            (Kind::Message(id), Value::Bytes(wire)) => {
                self.message(out, id, form, wire, None, depth + 1)
            }
            (Kind::Bytes, Value::Bytes(bytes)) => {
                out.push(b'"');
                print::base64(out, bytes);
                out.push(b'"');
                Ok(())
            }
            (Kind::Enum(id), Value::Varint(number)) => {
                let of = self.schema.enumeration(id);
                match of.text(number as i32) {
                    _ if of.null => out.extend_from_slice(b"null"),
                    Some(text) => return self.string(out, text.as_bytes()),
                    None => print::signed(out, i64::from(number as i32)),
                }
                Ok(())
            }
            (_, value) => {
                let quote = form == Form::String || text::is_infinite(kind, value);
                quoted(out, quote, |out| {
                    text::write_number(out, kind, value);
                    Ok(())
                })
            }
        }
    }

    #[inline]
    fn string(&self, out: &mut Vec<u8>, text: &[u8]) -> Outcome {
        match print::string(out, text) {
            Ok(()) => Ok(()),
            Err(print::NotUtf8) => fault("the string is not UTF-8"),
        }
    }
}

/// Whether the value has the wire type of this kind of a Value.
fn is_any_kind(kind: u32, value: Value<'_>) -> bool {
    match kind {
        1 | 4 => matches!(value, Value::Varint(_)),
        2 => matches!(value, Value::Fixed64(_)),
        _ => matches!(value, Value::Bytes(_)),
    }
}

/// The key of an entry of a Struct.
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

/// Key and value of an entry of a Struct.
#[inline]
fn any_entry(wire: &[u8]) -> Result<(&[u8], Cow<'_, [u8]>), Malformed> {
    let mut key: &[u8] = &[];
    let mut value: Option<Cow<'_, [u8]>> = None;
    let mut fields = wire::fields(wire);
    while let Some((number, found)) = fields.read()? {
        match (number, found, &mut value) {
            (1, Value::Bytes(text), _) => key = text,
            (2, Value::Bytes(whole), None) => value = Some(Cow::Borrowed(whole)),
            (2, Value::Bytes(part), Some(parts)) => parts.to_mut().extend_from_slice(part),
            (1 | 2, ..) => return Err(Malformed::Alien),
            _ => {}
        }
    }
    Ok((key, value.unwrap_or_default()))
}

/// A Struct with only the last entry of each key; as it is, if no key comes twice.
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

#[inline]
fn quoted(out: &mut Vec<u8>, quote: bool, write: impl FnOnce(&mut Vec<u8>) -> Outcome) -> Outcome {
    if !quote {
        return write(out);
    }
    out.push(b'"');
    write(out)?;
    out.push(b'"');
    Ok(())
}

/// Writes a member's name; `empty` is where the object's first one stands.
#[inline]
fn begin(out: &mut Vec<u8>, empty: usize, field: &Field) {
    out.extend_from_slice(match out.len() > empty {
        true => field.next_member.as_bytes(),
        false => field.member.as_bytes(),
    });
}

/// An empty list or map.
fn blank(field: &Field) -> &'static [u8] {
    match (field.cardinality, field.form) {
        (Cardinality::Map, _) => b"{}",
        (_, Form::CommaList) => b"\"\"",
        _ => b"[]",
    }
}

/// The next field of another number.
fn past<'a>(fields: &mut Fields<'a>, number: u32) -> Outcome<Next<'a>> {
    loop {
        match fields.read()? {
            Some((same, _)) if same == number => {}
            next => return Ok(next),
        }
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
    /// Which entry of each key is its last; None if no key comes twice.
    fn last_entries<'a>(
        &self,
        first: Value<'a>,
        fields: Fields<'a>,
    ) -> Outcome<Option<HashMap<Key<'a>, usize>>> {
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
    ) -> Outcome {
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

/// One entry of a map; `merged` instead of `value` where that stands in parts.
struct Entry<'a> {
    key: Value<'a>,
    value: Value<'a>,
    merged: Option<Vec<u8>>,
}

/// What tells two keys of a map apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key<'a> {
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

/// The keys of a map so far: few are compared one by one, without allocation.
struct Keys<'a> {
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
    /// False if the key is there already.
    fn insert(&mut self, key: Key<'a>) -> bool {
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

/// A set of small numbers; those below 256 take no allocation.
#[derive(Default)]
pub(super) struct Bits {
    low: [u64; 4],
    high: Vec<u64>,
}

impl Bits {
    /// False if it is there already.
    #[inline]
    pub fn insert(&mut self, bit: u16) -> bool {
        let word = match self.low.get_mut(usize::from(bit >> 6)) {
            Some(word) => word,
            None => self.high(bit),
        };
        let mask = 1 << (bit & 63);
        let new = *word & mask == 0;
        *word |= mask;
        new
    }

    #[cold]
    fn high(&mut self, bit: u16) -> &mut u64 {
        let word = usize::from(bit >> 6) - self.low.len();
        if word >= self.high.len() {
            self.high.resize(word + 1, 0);
        }
        &mut self.high[word]
    }

    #[inline]
    pub fn contains(&self, bit: u16) -> bool {
        let word = usize::from(bit >> 6);
        let word = match self.low.get(word) {
            Some(word) => *word,
            None => self.high.get(word - self.low.len()).copied().unwrap_or(0),
        };
        word & 1 << (bit & 63) != 0
    }
}

/// Whether each field stands there once and in one piece, and of a oneof one
/// member.
fn is_in_order(message: &Message, wire: &[u8]) -> Result<bool, Malformed> {
    let mut seen = Bits::default();
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
        // Oneofs are counted behind the fields.
        let of_oneof = |oneof| message.fields.len() as u16 + oneof;
        if !seen.insert(index) || field.oneof.is_some_and(|o| !seen.insert(of_oneof(o))) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The message with each field once and in one piece: of single values the last,
/// of messages all parts as one, of a oneof the last member.
fn in_order(message: &Message, wire: &[u8]) -> Result<Vec<u8>, Malformed> {
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
    // From the end: the first member of a oneof that is met is the one that
    // counts, back to where another one stands.
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
                    write_field(&mut out, field.number, *value);
                }
            }
            (_, Kind::Message(_)) => {
                let parts: Vec<_> = group.iter().map(|(_, _, part)| part.bytes()).collect();
                wire::write_bytes(&mut out, field.number, &parts.concat());
            }
            _ => write_field(&mut out, field.number, last),
        }
    }
    Ok(out)
}

fn write_field(out: &mut Vec<u8>, number: u32, value: Value<'_>) {
    let number = u64::from(number) << 3;
    match value {
        Value::Varint(value) => {
            wire::write_varint(out, number);
            wire::write_varint(out, value);
        }
        Value::Fixed64(value) => {
            wire::write_varint(out, number | 1);
            out.extend_from_slice(&value.to_le_bytes());
        }
        Value::Bytes(bytes) => wire::write_bytes(out, (number >> 3) as u32, bytes),
        Value::Fixed32(value) => {
            wire::write_varint(out, number | 5);
            out.extend_from_slice(&value.to_le_bytes());
        }
    }
}
