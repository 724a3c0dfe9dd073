//! Converts protobuf bytes to JSON text and back, in one pass each, by the tables of
//! the contract. Pure: no I/O, no clock, no intermediate message structs.

mod bit_set;
mod decode;
mod encode;
mod print;
mod scan;
#[cfg(test)]
pub(crate) mod tests;
mod text;
mod time;
mod token;
pub mod wire;

use std::borrow::Cow;
use std::fmt;

use crate::schema::{FieldIndex, Form, Message, MessageId, Schema, Shape};
pub(crate) use decode::Found;
pub use text::{text, texts};
pub use time::read_timestamp;

/// Why bytes or text could not be read. Becomes `Error::Malformed` or `Error::Decode`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field or member: `software_deployments[3].status`.
    pub path: String,
    /// The value found and the value expected.
    pub problem: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.problem)
    }
}

/// Observations of decoding JSON, in addition to the message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Paths of numbers that the message does not hold exactly, at most 16: integers that a
    /// double cannot hold, and those that are not JSON or too large for a double: `NaN`,
    /// `1e400`. `.` is the message itself. The client is informed.
    pub inexact: Vec<String>,
}

impl Notes {
    /// Adds the notes of another part of the same message.
    pub fn add(&mut self, inexact: impl IntoIterator<Item = String>) {
        let room = decode::MAX_NOTES.saturating_sub(self.inexact.len());
        self.inexact.extend(inexact.into_iter().take(room));
    }
}

/// Appends the message in `wire` to `out` as JSON, without the top-level fields for
/// which `skip` is true. After an error `out` contains a part of it.
pub fn to_json(
    schema: &Schema,
    message: MessageId,
    wire: &[u8],
    skip: &dyn Fn(FieldIndex) -> bool,
    out: &mut Vec<u8>,
) -> Result<(), Problem> {
    write_json(schema, message, wire, None, skip, out)
}

/// Like [`to_json`], for an upstream of this dialect: fields that are absent in it are
/// left out at every level.
pub fn to_json_in(
    schema: &Schema,
    message: MessageId,
    wire: &[u8],
    dialect: &str,
    skip: &dyn Fn(FieldIndex) -> bool,
    out: &mut Vec<u8>,
) -> Result<(), Problem> {
    write_json(schema, message, wire, Some(dialect), skip, out)
}

/// Appends the value of one field, for a body that is a field: an object, a list or a
/// bare value. Returns false, and appends nothing, when the field is unset.
pub fn field_to_json(
    schema: &Schema,
    message: MessageId,
    field: FieldIndex,
    wire: &[u8],
    dialect: &str,
    out: &mut Vec<u8>,
) -> Result<bool, Problem> {
    let start = out.len();
    let others = |index| index != field;
    write_json(schema, message, wire, Some(dialect), &others, out)?;
    if out[start..] == *b"{}" {
        out.truncate(start);
        return Ok(false);
    }
    // `{"name":value}`
    let member = &schema.message(message).fields[usize::from(field)].member;
    out.drain(start..=start + member.len());
    out.pop();
    Ok(true)
}

fn write_json(
    schema: &Schema,
    message: MessageId,
    wire: &[u8],
    dialect: Option<&str>,
    skip: &dyn Fn(FieldIndex) -> bool,
    out: &mut Vec<u8>,
) -> Result<(), Problem> {
    out.reserve(wire.len() + wire.len() / 4);
    encode::Writer { schema, dialect }
        .message(out, message, Form::Plain, wire, Some(skip), 0)
        .map_err(|problem| *problem)
}

/// Decodes JSON `text` as the message and appends its protobuf bytes to `out`. Empty
/// text and `null` are an empty message. After an error `out` is unchanged.
pub fn to_wire(
    schema: &Schema,
    message: MessageId,
    text: &[u8],
    out: &mut Vec<u8>,
) -> Result<Notes, Problem> {
    to_wire_with_found(schema, message, text, out).map(|(notes, _)| notes)
}

/// Like [`to_wire`]; also returns which members the text has.
pub(crate) fn to_wire_with_found(
    schema: &Schema,
    message: MessageId,
    text: &[u8],
    out: &mut Vec<u8>,
) -> Result<(Notes, Found), Problem> {
    let start = out.len();
    out.reserve(text.len());
    let mut reader = decode::Reader::new(schema, text, out);
    let result = reader.document(message, 0);
    let (inexact, found) = (reader.inexact, reader.found);
    match result {
        Ok(set) => {
            if !set {
                out.truncate(start);
            }
            let paths = inexact
                .into_iter()
                .map(|(at, inner)| decode::join(decode::path_at(text, at), &inner))
                // A response that is itself a number has no path.
                .map(|path| match path.is_empty() {
                    true => ".".to_owned(),
                    false => path,
                });
            let notes = Notes {
                inexact: paths.collect(),
            };
            Ok((notes, found))
        }
        Err(fault) => {
            out.truncate(start);
            Err(Problem {
                path: decode::path_of(text, &fault),
                problem: fault.problem,
            })
        }
    }
}

/// Checks that the text is one JSON value.
pub(crate) fn check(text: &[u8]) -> Result<(), Problem> {
    let end = token::skip(text, 0).map_err(|(at, problem)| (at, problem.to_owned()));
    let fault = match end {
        Ok(end) if text[end..].trim_ascii().is_empty() => return Ok(()),
        Ok(end) => (end, "unexpected data after the JSON value".to_owned()),
        Err(fault) => fault,
    };
    let line = 1 + text[..fault.0].iter().filter(|b| **b == b'\n').count();
    Err(Problem {
        path: String::new(),
        problem: format!("broken JSON at line {line}: {}", fault.1),
    })
}

/// Returns the text with `null` in place of numbers that JSON does not have or that are too
/// large for a double, for a reader that rejects them. The text need not be valid.
pub fn without_special_numbers(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let end = match text[at] {
            b'"' => token::skip(text, at).unwrap_or(text.len()),
            b'-' | b'0'..=b'9' | b'N' | b'I' => {
                let special = token::special(text, at);
                let end = special.or_else(|| token::number(text, at).ok());
                let end = end.unwrap_or(at + 1);
                if special.is_some() || token::double(&text[at..end]) == Err(token::OVERFLOW) {
                    out.extend_from_slice(b"null");
                    at = end;
                    continue;
                }
                end
            }
            _ => at + 1,
        };
        out.extend_from_slice(&text[at..end]);
        at = end;
    }
    out
}

/// Returns whether the text is an object with this member.
pub(crate) fn has_member(text: &[u8], name: &str) -> bool {
    token::members(text).is_some_and(|mut all| all.any(|(member, _)| *member == *name.as_bytes()))
}

/// Returns the members of the object that is the text, with their values as text.
pub(crate) fn members(text: &[u8]) -> impl Iterator<Item = (Cow<'_, [u8]>, &[u8])> {
    token::members(text).into_iter().flatten()
}

/// Returns the beginning of a text for an error message: short, on one line.
fn excerpt(text: &[u8]) -> String {
    const MAX_EXCERPT_BYTES: usize = 40;
    let cut = &text[..text.len().min(MAX_EXCERPT_BYTES)];
    let mut shown: String = String::from_utf8_lossy(cut)
        .trim_end_matches(char::REPLACEMENT_CHARACTER)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.len() > MAX_EXCERPT_BYTES {
        shown.push('…');
    }
    shown
}

/// Returns the type in the URL of an Any: the name after the last `/`.
fn any_type(schema: &Schema, url: &[u8]) -> Option<MessageId> {
    let url = str::from_utf8(url).ok()?;
    schema.message_id(url.rsplit_once('/')?.1)
}

/// Returns whether the fields of such a message are next to `@type` in an Any. A
/// message with a special JSON form is in the member `value`.
fn any_is_plain(message: &Message) -> bool {
    message.shape == Shape::Object && &*message.name != "google.protobuf.Empty"
}
