//! Protobuf bytes to JSON text and JSON text to protobuf bytes, in one pass
//! each, driven by the contract's tables. Pure: no I/O, no clock, no message
//! structs in between.

mod print;
mod scan;
mod text;
mod time;
pub mod wire;

use std::fmt;

use crate::contract::schema::{FieldIndex, MessageId, Schema};
pub use text::{text, texts};

/// Why bytes or text could not be read. Becomes `Error::Malformed` or `Error::Decode`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field or member: `software_deployments[3].status`.
    pub path: String,
    /// What was found and what was expected.
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

/// What reading JSON has to tell beside the message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Paths of integers in arbitrary JSON that a double cannot hold, at most 16:
    /// told to the caller, since the number in the message is rounded.
    pub inexact: Vec<String>,
}

/// Writes the message in `wire` as a JSON object behind `out`, without the
/// top-level fields for which `skip` says true.
pub fn to_json(
    _schema: &Schema,
    _message: MessageId,
    _wire: &[u8],
    _skip: &dyn Fn(FieldIndex) -> bool,
    _out: &mut Vec<u8>,
) -> Result<(), Problem> {
    todo!()
}

/// Reads JSON `text` as the message and writes its protobuf bytes behind `out`.
/// Empty text and `null` are an empty message.
pub fn to_wire(
    _schema: &Schema,
    _message: MessageId,
    _text: &[u8],
    _out: &mut Vec<u8>,
) -> Result<Notes, Problem> {
    todo!()
}

/// The beginning of a text for a message to people: short, on one line.
fn excerpt(text: &[u8]) -> String {
    const LONGEST: usize = 40;
    let cut = &text[..text.len().min(LONGEST)];
    let mut shown: String = String::from_utf8_lossy(cut)
        .trim_end_matches(char::REPLACEMENT_CHARACTER)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.len() > LONGEST {
        shown.push('…');
    }
    shown
}
