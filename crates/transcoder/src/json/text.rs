//! Values as plain text, for paths, queries and map keys.

use super::wire::{self, Malformed, Value};
use super::{Problem, excerpt, print, time};
use crate::schema::{
    Cardinality, Enum, Field, FieldIndex, Form, Kind, Message, MessageId, Schema, Shape,
};

/// Returns the text of one value, as in JSON but without quotes: numbers, `true` and
/// `false`, REST texts of enums, RFC 3339 times (milliseconds since 1970 for
/// EPOCH_MILLIS), durations, field masks, unpadded base64url of bytes, the value of a
/// wrapper, and the JSON of a JSON_TEXT field. Fails for other messages, and for a
/// value that is not of the field's type.
pub fn text(schema: &Schema, field: &Field, value: Value<'_>) -> Result<String, Problem> {
    let mut out = Vec::new();
    write(&mut out, schema, field.kind, field.form, value)
        .and_then(|()| String::from_utf8(out).map_err(|_| "is not UTF-8".into()))
        .map_err(|problem| at(field, problem))
}

/// Returns the texts of a field: none when it is unset (or zero, without presence), one
/// for a single value or a COMMA_LIST, one per element of a list. An unset field has
/// the text of its raw field. Fails for maps.
pub fn texts(
    schema: &Schema,
    message: MessageId,
    index: FieldIndex,
    wire: &[u8],
) -> Result<Vec<String>, Problem> {
    let message = schema.message(message);
    let field = &message.fields[usize::from(index)];
    let mut texts = own_texts(schema, message, field, wire)?;
    if texts.is_empty()
        && let Some(raw) = field.raw
    {
        texts = own_texts(schema, message, &message.fields[usize::from(raw)], wire)?;
    }
    if texts.is_empty() && field.raw.is_some() && is_explicit(field) {
        // A zero, where the raw field has no text.
        texts = values_of(message, field, wire)?
            .last()
            .map(|value| text(schema, field, *value))
            .transpose()?
            .into_iter()
            .collect();
    }
    if field.form == Form::CommaList && !texts.is_empty() {
        if let Some(bad) = texts.iter().find(|text| text.contains(',')) {
            let problem = format!("the element `{}` has a comma", excerpt(bad.as_bytes()));
            return Err(at(field, problem));
        }
        texts = vec![texts.join(",")];
    }
    Ok(texts)
}

/// Like [`texts`], without the raw field.
fn own_texts(
    schema: &Schema,
    message: &Message,
    field: &Field,
    wire: &[u8],
) -> Result<Vec<String>, Problem> {
    let values = values_of(message, field, wire)?;
    match field.cardinality {
        Cardinality::Map => Err(at(field, "a map cannot be a single text".into())),
        Cardinality::Repeated => values.iter().map(|v| text(schema, field, *v)).collect(),
        Cardinality::Implicit | Cardinality::Explicit => {
            let Some(last) = values.last() else {
                return Ok(Vec::new());
            };
            let text = if let (Kind::Message(_), [_, _, ..]) = (field.kind, &values[..]) {
                let parts: Vec<u8> = values.iter().flat_map(|v| v.bytes()).copied().collect();
                text(schema, field, Value::Bytes(&parts))?
            } else if is_zero(*last) && (!is_explicit(field) || raw_replaces_zero(field)) {
                return Ok(Vec::new());
            } else {
                text(schema, field, *last)?
            };
            Ok(vec![text])
        }
    }
}

fn is_explicit(field: &Field) -> bool {
    field.cardinality == Cardinality::Explicit
}

/// Returns whether a zero of the field is replaced by its raw field.
pub(super) fn raw_replaces_zero(field: &Field) -> bool {
    field.raw.is_some() && matches!(field.kind, Kind::Enum(_))
}

/// Returns whether a value is the default of its type, which means unset for messages
/// without presence.
#[inline]
pub(super) fn is_zero(value: Value<'_>) -> bool {
    match value {
        Value::Varint(value) | Value::Fixed64(value) => value == 0,
        Value::Fixed32(value) => value == 0,
        Value::Bytes(bytes) => bytes.is_empty(),
    }
}

/// Returns the values of a field: packed lists unpacked, and of a oneof only those
/// after the other members.
fn values_of<'a>(
    message: &Message,
    field: &Field,
    wire: &'a [u8],
) -> Result<Vec<Value<'a>>, Problem> {
    let malformed = |e: Malformed| at(field, e.to_string());
    let mut all = Vec::new();
    for occurrence in wire::fields(wire) {
        let (number, value) = occurrence.map_err(malformed)?;
        if number == field.number {
            if field.cardinality == Cardinality::Repeated {
                for value in wire::values(field.kind, value) {
                    all.push(value.map_err(malformed)?);
                }
            } else {
                all.push(wire::of_kind(field.kind, value).map_err(malformed)?);
            }
        } else if field.oneof.is_some()
            && message.by_number(number).and_then(|(_, f)| f.oneof) == field.oneof
        {
            all.clear();
        }
    }
    Ok(all)
}

fn at(field: &Field, problem: String) -> Problem {
    Problem {
        path: field.name.to_string(),
        problem,
    }
}

/// Writes the text of one value.
pub(super) fn write(
    out: &mut Vec<u8>,
    schema: &Schema,
    kind: Kind,
    form: Form,
    value: Value<'_>,
) -> Result<(), String> {
    let value = wire::of_kind(kind, value).map_err(|e| e.to_string())?;
    match (kind, value) {
        (Kind::String, Value::Bytes(bytes)) => out.extend_from_slice(bytes),
        (Kind::Bytes, Value::Bytes(bytes)) => out.extend(print::base64url(bytes).into_bytes()),
        (Kind::Enum(id), Value::Varint(number)) => {
            write_enum(out, schema.enumeration(id), number as i32);
        }
        (Kind::Message(id), Value::Bytes(bytes)) => {
            return message(out, schema, id, form, bytes);
        }
        _ => write_number(out, kind, value),
    }
    Ok(())
}

fn message(
    out: &mut Vec<u8>,
    schema: &Schema,
    id: MessageId,
    form: Form,
    wire: &[u8],
) -> Result<(), String> {
    let message = schema.message(id);
    if form == Form::JsonText {
        return super::to_json(schema, id, wire, &|_| false, out).map_err(|e| e.to_string());
    }
    match message.shape {
        Shape::Timestamp => {
            let time = seconds(wire).map_err(|e| e.to_string())?;
            write_time(out, form, time)
        }
        Shape::Duration => {
            let duration = seconds(wire).map_err(|e| e.to_string())?;
            write_duration(out, duration)
        }
        Shape::FieldMask => write_mask(out, schema, form, wire),
        Shape::Wrapper => {
            let kind = message.fields[0].kind;
            let value = wire::last(wire, 1).map_err(|e| e.to_string())?;
            write(out, schema, kind, form, value.unwrap_or(zero(kind)))
        }
        _ => Err(format!("a {} has no text", message.name)),
    }
}

/// Returns the default of a kind.
pub(super) fn zero(kind: Kind) -> Value<'static> {
    match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => Value::Fixed64(0),
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => Value::Fixed32(0),
        Kind::String | Kind::Bytes | Kind::Message(_) => Value::Bytes(&[]),
        _ => Value::Varint(0),
    }
}

/// Writes a number or a bool, whose value has the wire type of the kind.
#[inline]
pub(super) fn write_number(out: &mut Vec<u8>, kind: Kind, value: Value<'_>) {
    match (kind, value) {
        (Kind::Int64, Value::Varint(v)) => print::signed(out, v as i64),
        (Kind::Int32 | Kind::Enum(_), Value::Varint(v)) => print::signed(out, i64::from(v as i32)),
        (Kind::Uint64, Value::Varint(v)) | (Kind::Fixed64, Value::Fixed64(v)) => print::int(out, v),
        (Kind::Uint32, Value::Varint(v)) => print::int(out, u64::from(v as u32)),
        (Kind::Sint64, Value::Varint(v)) => print::signed(out, zigzag(v)),
        (Kind::Sint32, Value::Varint(v)) => {
            print::signed(out, i64::from(zigzag(u64::from(v as u32)) as i32));
        }
        (Kind::Sfixed64, Value::Fixed64(v)) => print::signed(out, v as i64),
        (Kind::Fixed32, Value::Fixed32(v)) => print::int(out, u64::from(v)),
        (Kind::Sfixed32, Value::Fixed32(v)) => print::signed(out, i64::from(v as i32)),
        (Kind::Bool, Value::Varint(v)) => {
            out.extend_from_slice(if v == 0 { b"false" } else { b"true" });
        }
        (Kind::Double, Value::Fixed64(v)) => {
            let value = f64::from_bits(v);
            match infinite(value) {
                Some(name) => out.extend_from_slice(name),
                None => print::double(out, value),
            }
        }
        (Kind::Float, Value::Fixed32(v)) => {
            let value = f32::from_bits(v);
            match infinite(f64::from(value)) {
                Some(name) => out.extend_from_slice(name),
                None => print::float(out, value),
            }
        }
        _ => {}
    }
}

/// Returns whether a number has no JSON literal and is a string instead: NaN, Infinity.
#[inline]
pub(super) fn is_infinite(kind: Kind, value: Value<'_>) -> bool {
    match (kind, value) {
        (Kind::Double, Value::Fixed64(v)) => !f64::from_bits(v).is_finite(),
        (Kind::Float, Value::Fixed32(v)) => !f32::from_bits(v).is_finite(),
        _ => false,
    }
}

fn infinite(value: f64) -> Option<&'static [u8]> {
    if value.is_nan() {
        Some(b"NaN")
    } else if value.is_infinite() {
        Some(if value > 0.0 {
            b"Infinity"
        } else {
            b"-Infinity"
        })
    } else {
        None
    }
}

fn zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Writes the REST text of an enum, or the number if it is unknown.
pub(super) fn write_enum(out: &mut Vec<u8>, of: &Enum, number: i32) {
    match of.text(number) {
        Some(text) => out.extend_from_slice(text.as_bytes()),
        None => print::signed(out, i64::from(number)),
    }
}

/// Reads a Timestamp or a Duration from the wire.
pub(super) fn seconds(wire: &[u8]) -> Result<time::Seconds, Malformed> {
    let mut read = time::Seconds::default();
    for field in wire::fields(wire) {
        match field? {
            (1, Value::Varint(seconds)) => read.seconds = seconds as i64,
            (2, Value::Varint(nanos)) => read.nanos = nanos as i32,
            (1 | 2, _) => return Err(Malformed::Alien),
            _ => {}
        }
    }
    Ok(read)
}

/// Writes a time, as RFC 3339 or in milliseconds since 1970.
pub(super) fn write_time(out: &mut Vec<u8>, form: Form, time: time::Seconds) -> Result<(), String> {
    if !time.is_timestamp() {
        return Err("the time is out of range: years 1 to 9999 are possible".into());
    }
    match form {
        Form::EpochMillis => print::signed(out, time.millis()),
        Form::OffsetTime => time::write_offset_time(out, time),
        _ => time::write_timestamp(out, time),
    }
    Ok(())
}

/// Writes a duration.
pub(super) fn write_duration(out: &mut Vec<u8>, duration: time::Seconds) -> Result<(), String> {
    if !duration.is_duration() {
        return Err("the duration is out of range".into());
    }
    time::write_duration(out, duration);
    Ok(())
}

/// Writes the paths of a field mask, separated by commas.
pub(super) fn write_mask(
    out: &mut Vec<u8>,
    schema: &Schema,
    form: Form,
    wire: &[u8],
) -> Result<(), String> {
    let is_field = |name: &str| schema.mask_names.has(name);
    let mut first = true;
    for field in wire::fields(wire) {
        let (number, value) = field.map_err(|e| e.to_string())?;
        if number != 1 {
            continue;
        }
        let Value::Bytes(path) = value else {
            return Err(Malformed::Alien.to_string());
        };
        let path = str::from_utf8(path).map_err(|_| "a path is not UTF-8")?;
        if !first {
            out.push(b',');
        }
        first = false;
        let problem = if form == Form::CamelMask {
            (!time::write_mask_path(out, path, is_field))
                .then_some("cannot be written in lowerCamel")
        } else {
            out.extend_from_slice(path.as_bytes());
            path.contains(',').then_some("must not contain a comma")
        };
        if let Some(problem) = problem {
            let path = excerpt(path.as_bytes());
            return Err(format!("the path `{path}` {problem}"));
        }
    }
    Ok(())
}
