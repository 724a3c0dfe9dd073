//! Decodes a reply into the response message.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use serde::de::IgnoredAny;

use super::{Decoded, Method};
use crate::Error;
use crate::call::{Idempotency, Reply};
use crate::json::{self, Notes, Problem, wire};
use crate::schema::{Cardinality, Field, Kind, Shape};

/// Decodes a reply; see [`Method::decode`].
pub(super) fn decode(method: &Method, reply: &Reply) -> Result<Decoded, Error> {
    let Some(location) = &method.location else {
        return decode_body(method, reply);
    };
    // Beside its `Location`, a response needs no body: that of a redirect is for people,
    // and that of a 201 may be, too.
    let has_object = reply.body.trim_ascii().starts_with(b"{");
    if reply.status.is_redirection() || !has_object {
        return Ok(Decoded {
            message: location.read(reply)?.into(),
            notes: Notes::default(),
        });
    }
    let Decoded { message, notes } = decode_body(method, reply)?;
    Ok(Decoded {
        message: location.complete(reply, message)?,
        notes,
    })
}

/// Decodes the body of a reply.
fn decode_body(method: &Method, reply: &Reply) -> Result<Decoded, Error> {
    let body = reply.body.trim_ascii();
    let response = method.schema.message(method.output);
    // The body of a 202 only says that it is one, in JSON, HTML or plain text.
    let is_accepted = reply.status == http::StatusCode::ACCEPTED && response.fields.is_empty();
    let no_content = reply.status == http::StatusCode::NO_CONTENT || is_accepted;
    if no_content || body.is_empty() || body == b"null" {
        if !no_content && lacks(method, body) {
            return Err(Error::decode("", "expected a response body, found none"));
        }
        return Ok(Decoded {
            message: Bytes::new(),
            notes: Notes::default(),
        });
    }
    if response.text_is_error
        && let Ok(text) = serde_json::from_slice::<String>(body)
    {
        return Err(Error::Refused {
            problem: text,
            request_id: None,
        });
    }
    if !begins_as_json(body) {
        return Err(Error::decode(
            "",
            format!(
                "expected JSON, found {}: check the upstream's endpoint",
                content_type(reply)
            ),
        ));
    }
    let mut message = Vec::with_capacity(body.len());
    let chosen = method
        .response_choices
        .iter()
        .find(|(member, _)| has_member(body, member))
        .map(|(_, index)| *index);
    let notes = match chosen.or(method.response_body) {
        None => json::to_wire(&method.schema, method.output, body, &mut message),
        Some(index) => {
            let field = &method.schema.message(method.output).fields[usize::from(index)];
            match (field.kind, field.cardinality) {
                (Kind::Message(id), Cardinality::Explicit) => {
                    let mut inner = Vec::with_capacity(body.len());
                    json::to_wire(&method.schema, id, body, &mut inner)
                        .inspect(|_| wire::write_bytes(&mut message, field.number, &inner))
                }
                _ => as_member(method, &field.member, body, &mut message),
            }
        }
    }
    .map_err(|problem| unreadable(problem, reply))?;
    Ok(Decoded {
        message: message.into(),
        notes,
    })
}

/// Returns whether an empty body or `null` is too little: for a read whose response has
/// fields. The reply to a change may be empty, and a list or arbitrary JSON may be
/// `null`.
fn lacks(method: &Method, body: &[u8]) -> bool {
    let response = method.schema.message(method.output);
    let resource = match method.response_body {
        None => Some(response),
        Some(index) => match response.fields[usize::from(index)] {
            Field {
                kind: Kind::Message(id),
                cardinality: Cardinality::Explicit,
                ..
            } => Some(method.schema.message(id)),
            _ => None,
        },
    };
    let is_object = resource
        .is_some_and(|resource| resource.shape == Shape::Object && resource.bare_array.is_none());
    let reads =
        method.verb == http::Method::GET || method.idempotency == Idempotency::NoSideEffects;
    reads && !response.fields.is_empty() && (body.is_empty() || is_object)
}

/// Decodes `body` as the value of one member of the response.
fn as_member(
    method: &Method,
    member: &str,
    body: &[u8],
    message: &mut Vec<u8>,
) -> Result<Notes, Problem> {
    // A single value, so that `1,"other":2` is not decoded as two members.
    if let Err(problem) = serde_json::from_slice::<serde::de::IgnoredAny>(body) {
        return Err(Problem {
            path: String::new(),
            problem: format!(
                "broken JSON at line {} column {}",
                problem.line(),
                problem.column()
            ),
        });
    }
    let object = [b"{", member.as_bytes(), body, b"}"].concat();
    json::to_wire(&method.schema, method.output, &object, message)
}

/// Returns whether the body is an object with this member.
fn has_member(body: &[u8], name: &str) -> bool {
    serde_json::from_slice::<BTreeMap<Cow<'_, str>, IgnoredAny>>(body)
        .is_ok_and(|members| members.contains_key(name))
}

/// Returns whether the body can be JSON. HTML, for example, cannot.
fn begins_as_json(body: &[u8]) -> bool {
    matches!(
        body.first(),
        Some(b'{' | b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n')
    )
}

fn unreadable(problem: Problem, reply: &Reply) -> Error {
    let is_body = problem.path.is_empty();
    let is_json = content_type(reply).contains("json");
    Error::decode(
        problem.path,
        if is_body && !is_json {
            format!(
                "{} (the response is {})",
                problem.problem,
                content_type(reply)
            )
        } else {
            problem.problem
        },
    )
}

/// Returns the reply's content type for errors, at most 100 characters of it.
fn content_type(reply: &Reply) -> String {
    match reply.headers.get(CONTENT_TYPE).map(|value| value.to_str()) {
        Some(Ok(text)) => text.chars().take(100).collect(),
        Some(Err(_)) => "an invalid content type".into(),
        None => "a response without a content type".into(),
    }
}
