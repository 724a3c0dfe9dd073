//! `FORM_EXPRESSION`: a message as one expression, for query parameters with a small
//! language such as Hitachi's HQL and OData's `$filter`. Members and operators come
//! from the annotations, and values are quoted, so that no value can become syntax.

use std::fmt::Write as _;

use super::view::View;
use crate::Error;
use crate::json::{self, wire::Value};
use crate::schema::{Cardinality, Field, Kind, MessageId, Schema, Shape};

/// Longest expression, in bytes before percent-encoding. It is part of the URL, of
/// which servers commonly accept 8 KiB.
const MAX_BYTES: usize = 4_096;

/// Deepest nesting of expressions.
const MAX_DEPTH: usize = 8;

/// Returns the expression of the message in `wire`: `(a eq 'x') and (b in [1, 2])`.
/// Empty when nothing is set. `path` is that of the field in the request.
pub(super) fn expression(
    schema: &Schema,
    id: MessageId,
    wire: &[u8],
    path: &str,
) -> Result<String, Error> {
    let mut text = String::new();
    write(schema, id, wire, path, 0, &mut text)?;
    Ok(text)
}

/// Checks at start that the message can be an expression; the error names the field.
pub(super) fn check(schema: &Schema, id: MessageId) -> Result<(), String> {
    let mut seen = vec![id];
    let mut at = 0;
    while let Some(id) = seen.get(at).copied() {
        for field in &schema.message(id).fields {
            match (field.kind, &field.condition) {
                (_, Some(_)) => {}
                (Kind::Message(below), None)
                    if field.cardinality != Cardinality::Map
                        && schema.message(below).shape == Shape::Object =>
                {
                    if !seen.contains(&below) {
                        seen.push(below);
                    }
                }
                _ => {
                    return Err(format!(
                        "`{}` of {} has no `condition`",
                        field.name,
                        schema.message(id).name
                    ));
                }
            }
        }
        at += 1;
    }
    Ok(())
}

fn write(
    schema: &Schema,
    id: MessageId,
    wire: &[u8],
    path: &str,
    depth: usize,
    out: &mut String,
) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(fault(path, "is nested too deep"));
    }
    let view = View::of(schema, id, wire).map_err(Error::malformed)?;
    let start = out.len();
    for (index, field) in (0..).zip(&schema.message(id).fields) {
        let path = format!("{path}.{}", field.name);
        let term = out.len();
        if term > start {
            out.push_str(" and ");
        }
        let begun = out.len();
        match (&field.condition, field.kind, field.cardinality) {
            (Some(condition), _, Cardinality::Repeated) => {
                let mut opened = false;
                for (at, value) in view.elements(index).enumerate() {
                    let value = value.map_err(Error::malformed)?;
                    if opened {
                        out.push_str(", ");
                    } else {
                        let _ = write!(out, "({} {} [", condition.member, condition.operator);
                        opened = true;
                    }
                    literal(schema, field, value, &format!("{path}[{at}]"), out)?;
                }
                if opened {
                    out.push_str("])");
                }
            }
            (Some(condition), ..) => {
                if let Some(value) = view.value(index) {
                    let _ = write!(out, "({} {} ", condition.member, condition.operator);
                    literal(schema, field, value, &path, out)?;
                    out.push(')');
                }
            }
            (None, Kind::Message(below), Cardinality::Repeated) => {
                let mut opened = false;
                for (at, value) in view.elements(index).enumerate() {
                    let Value::Bytes(wire) = value.map_err(Error::malformed)? else {
                        continue;
                    };
                    out.push_str(if opened { " or " } else { "(" });
                    opened = true;
                    let path = format!("{path}[{at}]");
                    group(schema, below, wire, &path, depth, out)?;
                }
                if opened {
                    out.push(')');
                }
            }
            (None, Kind::Message(below), _) => {
                if let Some(wire) = view.message(index) {
                    group(schema, below, wire, &path, depth, out)?;
                }
            }
            // Rejected at start.
            (None, ..) => {}
        }
        if out.len() == begun {
            out.truncate(term);
        }
        if out.len() > MAX_BYTES {
            let problem = format!("makes the expression longer than {MAX_BYTES} bytes");
            return Err(fault(&path, &problem));
        }
    }
    Ok(())
}

/// Writes a nested expression in parentheses.
fn group(
    schema: &Schema,
    id: MessageId,
    wire: &[u8],
    path: &str,
    depth: usize,
    out: &mut String,
) -> Result<(), Error> {
    out.push('(');
    let start = out.len();
    write(schema, id, wire, path, depth + 1, out)?;
    if out.len() == start {
        // An empty group would match everything, or be a syntax error.
        return Err(fault(path, "has no condition"));
    }
    out.push(')');
    Ok(())
}

/// Writes one value as a literal.
fn literal(
    schema: &Schema,
    field: &Field,
    value: Value<'_>,
    path: &str,
    out: &mut String,
) -> Result<(), Error> {
    if value.bytes().len() > MAX_BYTES {
        let problem = format!("makes the expression longer than {MAX_BYTES} bytes");
        return Err(fault(path, &problem));
    }
    let text = match (field.kind, value) {
        (Kind::String, Value::Bytes(bytes)) => str::from_utf8(bytes)
            .map_err(|_| fault(path, "is not UTF-8"))?
            .to_owned(),
        _ => json::text(schema, field, value).map_err(|p| fault(path, &p.problem))?,
    };
    match field.kind {
        Kind::Bool => out.push_str(&text),
        Kind::String | Kind::Enum(_) | Kind::Message(_) => {
            out.push('\'');
            for part in text.split_inclusive('\'') {
                out.push_str(part);
                if part.ends_with('\'') {
                    out.push('\'');
                }
            }
            out.push('\'');
        }
        _ if text.bytes().all(|b| b.is_ascii_digit()) => out.push_str(&text),
        _ => {
            return Err(fault(
                path,
                "must not be negative: an expression has digits only",
            ));
        }
    }
    Ok(())
}

fn fault(path: &str, problem: &str) -> Error {
    Error::Binding {
        field: path.to_owned(),
        problem: problem.to_owned(),
    }
}
