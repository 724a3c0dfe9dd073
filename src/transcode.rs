//! Protobuf bytes to JSON text and JSON text to protobuf bytes, in one pass
//! each, driven by the contract's tables. Pure: no I/O, no clock, no message
//! structs in between.

use crate::contract::schema::{FieldIndex, MessageId, Schema};

/// Why bytes or text could not be read. Becomes `Error::Malformed` or `Error::Decode`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field or member: `software_deployments[3].status`.
    pub path: String,
    /// What was found and what was expected.
    pub problem: String,
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
