//! Encodes protobuf bytes as JSON text.
//!
//! The members are written in the order of the wire. This needs each field once and in
//! one piece, as every encoder writes it. Any other message is reordered first. This is
//! checked before anything of the message is written, so that nothing is written twice
//! at any depth.

mod field_order;
mod json;
mod map;

use self::field_order::{in_order, is_in_order};
use super::bit_set::BitSet;
use super::wire::{self, Fields, MAX_DEPTH, Malformed, Value};
use super::{Problem, excerpt, print, text};
use crate::output_limit::{SHORT_VALUE, has_room};
use crate::schema::{
    Cardinality, Field, FieldIndex, Form, Kind, Message, MessageId, Schema, Shape,
};

/// Boxed, so that a success fits into a register.
pub(super) type EncodeResult<T = ()> = Result<T, Box<Problem>>;

fn fault<T>(problem: impl Into<String>) -> EncodeResult<T> {
    Err(Box::new(Problem {
        path: String::new(),
        problem: problem.into(),
    }))
}

/// Makes room for so many bytes, or fails because of the limit of the conversion.
#[inline]
fn room(out: &mut Vec<u8>, bytes: usize) -> EncodeResult {
    match has_room(out, bytes) {
        true => Ok(()),
        false => fault("the JSON is too long"),
    }
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

/// Prepends a step to the path of a problem.
#[cold]
fn prepend_step(mut problem: Box<Problem>, step: &str) -> Box<Problem> {
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

/// The field number and value that follow.
type Next<'a> = Option<(u32, Value<'a>)>;

impl Writer<'_> {
    /// Writes a message in the form of its type. `depth` is the number of messages
    /// around it.
    pub fn message(
        &self,
        out: &mut Vec<u8>,
        id: MessageId,
        form: Form,
        wire: &[u8],
        skip: Skip<'_>,
        depth: u32,
    ) -> EncodeResult {
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
                text::write_mask(out, self.schema, form, wire).or_else(fault)?;
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
    ) -> EncodeResult {
        match message.bare_array.filter(|_| message.as_array) {
            Some(index) => self.array(out, message, index, wire, skip, depth),
            None => self.members(out, message, wire, skip, depth),
        }
    }

    /// Writes a message as the array of one of its fields, unless another field is set.
    fn array(
        &self,
        out: &mut Vec<u8>,
        message: &Message,
        array: FieldIndex,
        wire: &[u8],
        skip: Skip<'_>,
        depth: u32,
    ) -> EncodeResult {
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
    ) -> EncodeResult {
        if is_in_order(message, wire)? {
            self.members_in_order(out, message, wire, skip, depth)
        } else {
            self.members_in_order(out, message, &in_order(message, wire)?, skip, depth)
        }
    }

    /// Writes an object whose fields are on the wire once each.
    fn members_in_order(
        &self,
        out: &mut Vec<u8>,
        message: &Message,
        wire: &[u8],
        skip: Skip<'_>,
        depth: u32,
    ) -> EncodeResult {
        let hidden = |index: FieldIndex, field: &Field| {
            field.gateway_only
                || skip.is_some_and(|skip| skip(index))
                || self.dialect.is_some_and(|dialect| !field.is_in(dialect))
        };
        let mut seen = BitSet::default();
        // Written fields are tracked only where it matters later.
        let tracked = !message.emit_empty.is_empty() || !message.raws.is_empty();
        let mut written = BitSet::default();
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
            if hidden(index, field) || field.raw_of.is_some() || field.urls_of.is_some() {
                next = skip_occurrences(&mut fields, number)?;
                continue;
            }
            if field.additional_properties {
                let Value::Bytes(additional_properties) = value else {
                    return Err(prepend_step(Malformed::Alien.into(), &field.name));
                };
                self.additional_properties(out, empty, message, additional_properties, depth)
                    .map_err(|e| prepend_step(e, &field.name))?;
                next = fields.read()?;
                continue;
            }
            let start = out.len();
            room(out, field.next_member.len() + SHORT_VALUE)?;
            begin_member(out, empty, field);
            let value_start = out.len();
            let after = match field.cardinality {
                Cardinality::Implicit | Cardinality::Explicit => {
                    let zero = text::is_zero(value)
                        && match field.kind {
                            Kind::Message(_) => false,
                            _ => {
                                field.cardinality == Cardinality::Implicit
                                    || text::raw_replaces_zero(field)
                            }
                        };
                    if zero {
                        wire::of_kind(field.kind, value)
                            .map_err(|e| prepend_step(e.into(), &field.name))?;
                    } else {
                        self.value(out, field.kind, field.form, value, depth)
                            .map_err(|e| prepend_step(e, &field.name))?;
                    }
                    fields.read()?
                }
                Cardinality::Repeated => self
                    .list(out, field, value, &mut fields, depth)
                    .map_err(|e| prepend_step(e, &field.name))?,
                Cardinality::Map => self
                    .map(out, field, value, &mut fields, depth)
                    .map_err(|e| prepend_step(e, &field.name))?,
            };
            next = after;
            if out.len() == value_start {
                out.truncate(start);
            } else if tracked {
                written.insert(index);
            }
        }
        for &index in &message.emit_empty {
            let field = &message.fields[usize::from(index)];
            if !written.contains(index) && !hidden(index, field) && field.raw.is_none() {
                room(out, field.next_member.len() + SHORT_VALUE)?;
                begin_member(out, empty, field);
                out.extend_from_slice(empty_value(field));
                written.insert(index);
            }
        }
        for &index in &message.raws {
            let raw = &message.fields[usize::from(index)];
            let Some(of) = raw.raw_of else { continue };
            let field = &message.fields[usize::from(of)];
            if !written.contains(of) && !hidden(of, field) {
                self.raw(out, empty, field, raw, wire, seen.contains(of))
                    .map_err(|e| prepend_step(e, &raw.name))?;
            }
        }
        out.push(b'}');
        Ok(())
    }

    /// Writes an unset field from its raw field, if that has a text. `zero` says that
    /// the field is on the wire with its zero value.
    fn raw(
        &self,
        out: &mut Vec<u8>,
        empty: usize,
        field: &Field,
        raw: &Field,
        wire: &[u8],
        zero: bool,
    ) -> EncodeResult {
        let texts = wire::all(wire, raw.number)?;
        if field.cardinality == Cardinality::Repeated {
            if !texts.is_empty() {
                begin_member(out, empty, field);
                self.texts(out, field.form, &texts)?;
            } else if field.emit_empty {
                begin_member(out, empty, field);
                out.extend_from_slice(empty_value(field));
            }
            return Ok(());
        }
        match texts.last() {
            Some(text) if !text.is_empty() => {
                begin_member(out, empty, field);
                self.string(out, text)
            }
            _ if zero && field.cardinality == Cardinality::Explicit => {
                begin_member(out, empty, field);
                self.value(out, field.kind, field.form, text::zero(field.kind), 0)
            }
            _ => Ok(()),
        }
    }

    fn texts(&self, out: &mut Vec<u8>, form: Form, texts: &[&[u8]]) -> EncodeResult {
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

    /// Writes consecutive elements of a list; nothing for an empty list.
    fn list<'a>(
        &self,
        out: &mut Vec<u8>,
        field: &Field,
        first: Value<'a>,
        fields: &mut Fields<'a>,
        depth: u32,
    ) -> EncodeResult<Next<'a>> {
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
                result.map_err(|e| prepend_step(e, &format!("[{index}]")))?;
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
    ) -> EncodeResult {
        room(out, value.bytes().len() + SHORT_VALUE)?;
        text::write(out, self.schema, kind, Form::Plain, value).or_else(fault)?;
        match out[start..].contains(&b',') {
            true => fault(format!("`{}` has a comma", excerpt(&out[start..]))),
            false => Ok(()),
        }
    }

    #[inline]
    fn value(
        &self,
        out: &mut Vec<u8>,
        kind: Kind,
        form: Form,
        value: Value<'_>,
        depth: u32,
    ) -> EncodeResult {
        room(out, SHORT_VALUE)?;
        match (kind, wire::of_kind(kind, value)?) {
            (Kind::String, Value::Bytes(text)) => self.string(out, text),
            (Kind::Message(id), Value::Bytes(wire)) => {
                self.message(out, id, form, wire, None, depth + 1)
            }
            (Kind::Bytes, Value::Bytes(bytes)) => {
                room(out, bytes.len().div_ceil(3) * 4 + 2)?;
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
                let quote = form == Form::String
                    || text::is_infinite(kind, value)
                    || (self.schema.canonical && kind.is_64_bit_integer());
                quoted(out, quote, |out| {
                    text::write_number(out, kind, value);
                    Ok(())
                })
            }
        }
    }

    #[inline]
    fn string(&self, out: &mut Vec<u8>, text: &[u8]) -> EncodeResult {
        match print::string(out, text) {
            Ok(()) => Ok(()),
            Err(print::StringFailure::NotUtf8) => fault("the string is not UTF-8"),
            Err(print::StringFailure::NoRoom) => fault("the JSON is too long"),
        }
    }
}

#[inline]
fn quoted(
    out: &mut Vec<u8>,
    quote: bool,
    write: impl FnOnce(&mut Vec<u8>) -> EncodeResult,
) -> EncodeResult {
    if !quote {
        return write(out);
    }
    out.push(b'"');
    write(out)?;
    out.push(b'"');
    Ok(())
}

/// Writes a member's name; `empty` is the position of the object's first member.
#[inline]
fn begin_member(out: &mut Vec<u8>, empty: usize, field: &Field) {
    out.extend_from_slice(match out.len() > empty {
        true => field.next_member.as_bytes(),
        false => field.member.as_bytes(),
    });
}

/// Returns an empty list or map.
fn empty_value(field: &Field) -> &'static [u8] {
    match (field.cardinality, field.form) {
        (Cardinality::Map, _) => b"{}",
        (_, Form::CommaList) => b"\"\"",
        _ => b"[]",
    }
}

/// Returns the next field with another number.
fn skip_occurrences<'a>(fields: &mut Fields<'a>, number: u32) -> EncodeResult<Next<'a>> {
    loop {
        match fields.read()? {
            Some((same, _)) if same == number => {}
            next => return Ok(next),
        }
    }
}
