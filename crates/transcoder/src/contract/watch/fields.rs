//! Finds fields at start, and reads their values.

use std::borrow::Cow;

use bytes::Bytes;

use crate::Error;
use crate::contract::diagnostics::Diagnostics;
use crate::json;
use crate::json::wire::{self, Malformed};
use crate::schema::{Field, FieldIndex, Kind, MessageId, Schema};

/// Returns the single bool of this name in a message, or reports that there is none.
pub(super) fn bool_field<'s>(
    name: &str,
    schema: &'s Schema,
    message: MessageId,
    option: &str,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<(FieldIndex, &'s Field)> {
    let message = schema.message(message);
    let Some((index, field)) = message.field(name) else {
        let problem = format!("{} has no field `{name}`", message.name);
        diagnostics.report_rule(option, problem);
        return None;
    };
    if field.kind != Kind::Bool || !field.is_single() {
        diagnostics.report_rule(option, format!("`{name}` must be a single bool"));
    }
    Some((index, field))
}

/// Returns the fields that two messages have alike, as the number in `from` and the
/// number in `to`.
pub(in crate::contract) fn shared_fields(
    schema: &Schema,
    from: MessageId,
    to: MessageId,
) -> Vec<(u32, u32)> {
    let theirs = schema.message(to);
    schema
        .message(from)
        .fields
        .iter()
        .filter(|field| !field.gateway_only)
        .filter_map(|field| {
            let (_, known) = theirs.field(&field.name)?;
            schema
                .alike(known, field)
                .then_some((field.number, known.number))
        })
        .collect()
}

/// Encodes a message as another one by such pairs of numbers; other fields are left
/// out.
pub(in crate::contract) fn translated(
    message: &[u8],
    fields: &[(u32, u32)],
) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(message.len());
    for field in wire::fields(message) {
        let (number, value) = field.map_err(Error::malformed)?;
        if let Some((_, to)) = fields.iter().find(|(from, _)| *from == number) {
            wire::write_value(&mut out, *to, value);
        }
    }
    Ok(out)
}

/// Returns the identity of an item. An item without one is `Error::Decode`.
pub(super) fn key_text(schema: &Schema, field: &Field, item: &[u8]) -> Result<Box<str>, Error> {
    let fault = |problem: String| Error::decode(&*field.name, problem);
    let value = wire::last(item, field.number).map_err(|p| broken(field, p))?;
    let text = match value {
        Some(value) => {
            json::text(schema, field, value).map_err(|problem| fault(problem.problem))?
        }
        None => String::new(),
    };
    if text.is_empty() {
        return Err(fault("is missing: it identifies the item".into()));
    }
    Ok(text.into())
}

/// Returns the message in a field of `response` as a slice of it, copied only when it
/// is encoded in parts; none when it is not set.
pub(super) fn member(response: &Bytes, field: &Field) -> Result<Option<Bytes>, Error> {
    let member = wire::message(response, field.number).map_err(|p| broken(field, p))?;
    Ok(member.map(|member| match member {
        Cow::Borrowed(item) => response.slice_ref(item),
        Cow::Owned(item) => item.into(),
    }))
}

pub(super) fn missing(field: &Field) -> Error {
    Error::decode(
        "",
        format!("`{}` is missing: it is the watched resource", field.name),
    )
}

pub(super) fn broken(field: &Field, problem: Malformed) -> Error {
    Error::decode(&*field.name, problem.to_string())
}
