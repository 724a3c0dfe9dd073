//! `resolve`: path fields that the client left empty, looked up by another rpc.

use std::sync::Arc;

use bytes::Bytes;

use super::Method;
use super::diagnostics::Diagnostics;
use super::location::{Segment, is_text};
use crate::Error;
use crate::json::wire;
use crate::schema::{Message, MessageId, Schema};

/// The longest text that is looked up.
const LONGEST: usize = 4_096;

/// A compiled `MethodRules.resolve`.
#[derive(Debug)]
pub struct Resolve {
    /// The rpc that finds out.
    pub rpc: Arc<Method>,
    /// What it finds, in the order of its `location`.
    found: Vec<Found>,
    identity: Identity,
    /// Fields that both requests have: number in the caller's, and in its own.
    copied: Vec<(u32, u32)>,
}

/// The field of the finding rpc's request that takes what is known.
#[derive(Debug)]
struct Identity {
    name: Box<str>,
    number: u32,
}

/// A field that can be found out.
#[derive(Debug)]
struct Found {
    name: Box<str>,
    /// Its number in the caller's request.
    request: u32,
    /// Its number in the answer of the finding rpc.
    answer: u32,
}

impl Resolve {
    /// The request of the finding rpc for this one; none where nothing is to be
    /// found out. An error when there is nothing to begin with.
    pub fn question(&self, request: &[u8]) -> Result<Option<Bytes>, Error> {
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
        if known.len() > LONGEST {
            return Err(fault(format!("is longer than {LONGEST} bytes")));
        }
        let mut question = Vec::with_capacity(known.len() + 64);
        for (ours, theirs) in &self.copied {
            if let Some(value) = text(request, *ours)? {
                wire::write_bytes(&mut question, *theirs, value);
            }
        }
        wire::write_bytes(&mut question, self.identity.number, known);
        Ok(Some(question.into()))
    }

    /// An error of the finding rpc, in the words of the request that asked: what it
    /// says of its own field is said of the one that was taken for it.
    pub fn blame(&self, request: &[u8], field: String) -> String {
        if *field != *self.identity.name {
            return field;
        }
        let given = |found: &&Found| matches!(text(request, found.request), Ok(Some(_)));
        match self.found.iter().find(given) {
            Some(found) => found.name.to_string(),
            None => field,
        }
    }

    /// The request with what the finding rpc has answered.
    pub fn answered(&self, request: &[u8], answer: &[u8]) -> Result<Bytes, Error> {
        let mut whole = Vec::with_capacity(request.len() + answer.len());
        whole.extend_from_slice(request);
        for field in &self.found {
            let Some(value) = text(answer, field.answer)? else {
                return Err(Error::decode(
                    &*field.name,
                    format!("{} did not find it out", self.rpc.name),
                ));
            };
            // The last value of a field is the one that counts.
            wire::write_bytes(&mut whole, field.request, value);
        }
        Ok(whole.into())
    }
}

/// A string field that is set and not empty.
fn text(message: &[u8], number: u32) -> Result<Option<&[u8]>, Error> {
    let value = wire::last(message, number).map_err(Error::malformed)?;
    Ok(value
        .map(|value| value.bytes())
        .filter(|text| !text.is_empty()))
}

/// Compiles a `resolve` by `finder` for an rpc with this request, whose path has
/// the fields `in_path`.
pub(super) fn compile(
    finder: Arc<Method>,
    schema: &Schema,
    input: MessageId,
    in_path: &[&str],
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Resolve> {
    let Some(location) = &finder.location else {
        let problem = format!("`{}` has no `location` to read", finder.name);
        diagnostics.report_rule("resolve", problem);
        return None;
    };
    let request = schema.message(input);
    let question = schema.message(finder.input);
    let mut found = Vec::new();
    for segment in &location.segments {
        let Segment::Field(name, answer) = segment else {
            continue;
        };
        match request.field(name) {
            Some((_, field)) if is_text(field) && !field.required && in_path.contains(&&**name) => {
                found.push(Found {
                    name: name.clone(),
                    request: field.number,
                    answer: *answer,
                });
            }
            _ => {
                let problem = format!(
                    "`{}` finds out `{name}`, which must be a string of {} that stands in the \
                     path and is not REQUIRED",
                    finder.name, request.name
                );
                diagnostics.report_rule("resolve", problem);
                return None;
            }
        }
    }
    let (identity, copied) = asked(&finder, question, request, diagnostics)?;
    Some(Resolve {
        rpc: finder,
        found,
        identity,
        copied,
    })
}

/// The field of the finding rpc's request that takes what is known, and those
/// that are copied to it.
fn asked(
    finder: &Method,
    question: &Message,
    request: &Message,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<(Identity, Vec<(u32, u32)>)> {
    let mut identity = None;
    let mut copied = Vec::new();
    for field in &question.fields {
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
                    finder.name, field.name, request.name
                );
                diagnostics.report_rule("resolve", problem);
                return None;
            }
            _ => {}
        }
    }
    if identity.is_none() {
        let problem = format!(
            "`{}` has no REQUIRED string of its own to take what is known",
            finder.name
        );
        diagnostics.report_rule("resolve", problem);
    }
    Some((identity?, copied))
}
