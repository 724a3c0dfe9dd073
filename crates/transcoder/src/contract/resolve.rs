//! `resolve`: path fields that the client left empty, looked up by another rpc.

use std::sync::Arc;

use bytes::Bytes;

use super::Method;
use super::diagnostics::Diagnostics;
use super::location::{Segment, is_text};
use crate::Error;
use crate::json::wire;
use crate::schema::{Message, MessageId, Schema};

/// Longest value that is looked up, in bytes.
const MAX_IDENTITY_BYTES: usize = 4_096;

/// A compiled `MethodRules.resolve`.
#[derive(Debug)]
pub struct Resolve {
    /// The rpc that looks up.
    pub rpc: Arc<Method>,
    /// The fields that it returns, in the order of its `location`.
    found: Vec<LookedUpField>,
    identity: Identity,
    /// Fields that both requests have: number in the client's request, and in that of
    /// the lookup.
    copied: Vec<(u32, u32)>,
}

/// The field of the lookup's request for the known value.
#[derive(Debug)]
struct Identity {
    name: Box<str>,
    number: u32,
}

/// A field that can be looked up.
#[derive(Debug)]
struct LookedUpField {
    name: Box<str>,
    /// Its number in the client's request.
    request: u32,
    /// Its number in the response of the lookup.
    response: u32,
}

impl Resolve {
    /// Returns the names of the path fields that are looked up.
    pub(super) fn path_fields(&self) -> impl Iterator<Item = &str> {
        self.found.iter().map(|field| &*field.name)
    }

    /// Returns the request of the lookup; none where all path fields are set. Fails
    /// when none is set.
    pub fn lookup_request(&self, request: &[u8]) -> Result<Option<Bytes>, Error> {
        let mut known = None;
        let mut missing = false;
        for field in &self.found {
            match text(request, field.request)? {
                Some(value) => known = known.or(Some(value)),
                None => missing = true,
            }
        }
        if !missing {
            return Ok(None);
        }
        let names: Vec<&str> = self.found.iter().map(|field| &*field.name).collect();
        let fault = |problem: String| Error::Binding {
            field: names[0].to_owned(),
            problem,
        };
        let Some(known) = known else {
            return Err(fault(format!("is required: give {}", names.join(" or "))));
        };
        if known.len() > MAX_IDENTITY_BYTES {
            return Err(fault(format!("is longer than {MAX_IDENTITY_BYTES} bytes")));
        }
        let mut lookup_request = Vec::with_capacity(known.len() + 64);
        for (ours, theirs) in &self.copied {
            if let Some(value) = text(request, *ours)? {
                wire::write_bytes(&mut lookup_request, *theirs, value);
            }
        }
        wire::write_bytes(&mut lookup_request, self.identity.number, known);
        Ok(Some(lookup_request.into()))
    }

    /// Names the field of the client's request in an error of the lookup: its
    /// `identity` is whichever field the client has set.
    pub fn client_field(&self, request: &[u8], field: String) -> String {
        if *field != *self.identity.name {
            return field;
        }
        let given = |found: &&LookedUpField| matches!(text(request, found.request), Ok(Some(_)));
        match self.found.iter().find(given) {
            Some(found) => found.name.to_string(),
            None => field,
        }
    }

    /// Returns the request with the fields of the lookup's response.
    pub fn with_lookup(&self, request: &[u8], response: &[u8]) -> Result<Bytes, Error> {
        let mut out = Vec::with_capacity(request.len() + response.len());
        out.extend_from_slice(request);
        for field in &self.found {
            let Some(value) = text(response, field.response)? else {
                return Err(Error::decode(
                    &*field.name,
                    format!("{} did not return it", self.rpc.name),
                ));
            };
            // The last occurrence of a field wins.
            wire::write_bytes(&mut out, field.request, value);
        }
        Ok(out.into())
    }
}

/// Returns a string field that is set and not empty.
fn text(message: &[u8], number: u32) -> Result<Option<&[u8]>, Error> {
    let value = wire::last(message, number).map_err(Error::malformed)?;
    Ok(value
        .map(|value| value.bytes())
        .filter(|text| !text.is_empty()))
}

/// Compiles a `resolve` by `lookup`, for an rpc with this request, whose path contains
/// the fields `in_path`.
pub(super) fn compile(
    lookup: Arc<Method>,
    schema: &Schema,
    input: MessageId,
    in_path: &[&str],
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Resolve> {
    let Some(location) = &lookup.location else {
        let problem = format!("`{}` has no `location` to read", lookup.name);
        diagnostics.report_rule("resolve", problem);
        return None;
    };
    let request = schema.message(input);
    let lookup_message = schema.message(lookup.input);
    let mut found = Vec::new();
    for segment in &location.segments {
        let Segment::Field(name, response) = segment else {
            continue;
        };
        match request.field(name) {
            Some((_, field)) if is_text(field) && !field.required && in_path.contains(&&**name) => {
                found.push(LookedUpField {
                    name: name.clone(),
                    request: field.number,
                    response: *response,
                });
            }
            _ => {
                let problem = format!(
                    "`{}` returns `{name}`, which must be a string field of {} that is in the \
                     path and is not REQUIRED",
                    lookup.name, request.name
                );
                diagnostics.report_rule("resolve", problem);
                return None;
            }
        }
    }
    let (identity, copied) = identity_and_copied(&lookup, lookup_message, request, diagnostics)?;
    Some(Resolve {
        rpc: lookup,
        found,
        identity,
        copied,
    })
}

/// Finds the field of the lookup's request for the known value, and the fields to copy.
fn identity_and_copied(
    lookup: &Method,
    lookup_message: &Message,
    request: &Message,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<(Identity, Vec<(u32, u32)>)> {
    let mut identity = None;
    let mut copied = Vec::new();
    for field in &lookup_message.fields {
        match request.field(&field.name) {
            Some((_, ours)) if is_text(field) && is_text(ours) => {
                copied.push((ours.number, field.number));
            }
            None if is_text(field) && field.required && identity.is_none() => {
                identity = Some(Identity {
                    name: field.name.clone(),
                    number: field.number,
                });
            }
            _ if field.required => {
                let problem = format!(
                    "`{}` also requires `{}`, which {} does not have",
                    lookup.name, field.name, request.name
                );
                diagnostics.report_rule("resolve", problem);
                return None;
            }
            _ => {}
        }
    }
    if identity.is_none() {
        let problem = format!(
            "`{}` has no REQUIRED string of its own for the known name or id",
            lookup.name
        );
        diagnostics.report_rule("resolve", problem);
    }
    Some((identity?, copied))
}
