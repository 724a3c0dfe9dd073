//! `refresh`: the rpc that reads one item of a watched list by its key.

use std::sync::Arc;

use bytes::Bytes;

use super::fields::{member, missing};
use crate::Error;
use crate::api::drawbridge::v1 as rules;
use crate::call::Call;
use crate::contract::diagnostics::Diagnostics;
use crate::contract::rpc_lookup::RpcLookup;
use crate::contract::{Method, Watch};
use crate::json::wire::{self, Value};
use crate::schema::{Cardinality, Field, Kind, MessageId};

/// How to build the request for one item from the request for the list.
#[derive(Debug)]
pub(super) struct Refresh {
    /// Path fields of both rpcs: number in the list's request, and in the item's.
    copied: Vec<(u32, u32)>,
    /// Number of the field for the key.
    number: u32,
    pub kind: Kind,
    /// Number of the response's field with the item; none when the response is the
    /// item.
    item: Option<u32>,
}

impl Watch {
    /// Lists with `refresh` only: returns the call that reads the item of this key,
    /// from the list's request. Path fields of both rpcs are copied.
    pub fn refresh_call(&self, request: &[u8], key: &str, dialect: &str) -> Result<Call, Error> {
        let (Some(rpc), Some(table)) = (&self.refresh, &self.tables.refresh) else {
            return Err(Error::Malformed("the watch has no refresh".into()));
        };
        let mut wire = Vec::with_capacity(64 + key.len());
        for (from, to) in &table.copied {
            match wire::last(request, *from).map_err(Error::malformed)? {
                Some(Value::Bytes(bytes)) => wire::write_bytes(&mut wire, *to, bytes),
                Some(Value::Varint(number)) => wire::write_uint(&mut wire, *to, number),
                _ => {}
            }
        }
        match table.kind {
            Kind::String => wire::write_bytes(&mut wire, table.number, key.as_bytes()),
            _ => {
                // Protobuf encodes negative numbers as 64-bit two's complement.
                let number = key
                    .parse::<i64>()
                    .map(|number| number as u64)
                    .or_else(|_| key.parse::<u64>())
                    .map_err(|_| Error::Malformed(format!("`{key}` is not a number")))?;
                wire::write_uint(&mut wire, table.number, number);
            }
        }
        rpc.bind(&wire, dialect)
    }

    /// Lists with `refresh` only: returns the item in a response of the `refresh` rpc,
    /// as a slice without a copy. A missing item is `Error::Decode`.
    pub fn refreshed(&self, response: &Bytes) -> Result<Bytes, Error> {
        let Some(number) = self.tables.refresh.as_ref().and_then(|table| table.item) else {
            return Ok(response.clone());
        };
        let output = self.refresh.as_ref().unwrap_or(&self.poll).output;
        match self.schema().message(output).by_number(number) {
            Some((_, field)) => member(response, field)?.ok_or_else(|| missing(field)),
            None => Ok(response.clone()),
        }
    }
}

/// Compiles the `refresh` of `method`.
pub(super) fn compile(
    rule: &rules::Watch,
    item: Option<MessageId>,
    method: &Method,
    rpcs: &RpcLookup<'_>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<(Arc<Method>, Refresh)> {
    if rule.refresh.is_empty() {
        return None;
    }
    let Some(item) = item else {
        diagnostics.report_rule(
            "watch.refresh",
            "is for lists, but `item` is a single resource",
        );
        return None;
    };
    let Some(rpc) = rpcs.find(&rule.refresh) else {
        diagnostics.report_rule("watch.refresh", rpcs.unknown("refresh", &rule.refresh));
        return None;
    };
    let schema = &*method.schema;
    let ours = schema.message(method.input);
    let mut copied = Vec::new();
    let mut keys = Vec::new();
    for (steps, field) in rpc.binding.path_fields() {
        let known = ours.field(&field.name).filter(|(index, known)| {
            known.kind == field.kind
                && method.binding.path_fields().any(|(s, f)| {
                    s.is_empty() && f.number == ours.fields[usize::from(*index)].number
                })
        });
        match known {
            Some((_, known)) if steps.is_empty() => copied.push((known.number, field.number)),
            // The upstream has a project id of its own.
            None if field.project_id => {}
            _ => keys.push((steps, field)),
        }
    }
    let [(steps, key)] = &*keys else {
        let problem = format!(
            "`{}` must have exactly one path field more than the watch, for the key: it has {}",
            rule.refresh,
            keys.len()
        );
        diagnostics.report_rule("watch.refresh", problem);
        return None;
    };
    if !steps.is_empty() || !key.is_key() {
        let problem = format!(
            "`{}`: the path field must be a string or integer",
            rule.refresh
        );
        diagnostics.report_rule("watch.refresh", problem);
        return None;
    }
    let theirs = schema.message(rpc.input);
    for field in theirs.fields.iter().filter(|field| field.required) {
        let filled = field.number == key.number
            || field.project_id
            || copied.iter().any(|(_, number)| *number == field.number);
        if !filled {
            let problem = format!(
                "`{}`: nothing sets its REQUIRED field `{}`",
                rule.refresh, field.name
            );
            diagnostics.report_rule("watch.refresh", problem);
        }
    }
    let response = schema.message(rpc.output);
    let holds = |field: &&Field| {
        (field.kind, field.cardinality) == (Kind::Message(item), Cardinality::Explicit)
    };
    let mut holders = response.fields.iter().filter(holds);
    let item = match (rpc.output == item, holders.next(), holders.next()) {
        (true, _, _) => None,
        (false, Some(holder), None) => Some(holder.number),
        _ => {
            let problem = format!(
                "{} must have one field of type {}",
                response.name,
                schema.message(item).name
            );
            diagnostics.report_rule("watch.refresh", problem);
            return None;
        }
    };
    let table = Refresh {
        copied,
        number: key.number,
        kind: key.kind,
        item,
    };
    Some((rpc.clone(), table))
}
