//! Decodes a reply into the response message.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use serde::de::IgnoredAny;

use super::required_member::Required;
use super::{Decoded, Method};
use crate::Error;
use crate::call::Reply;
use crate::json::{self, Notes, Problem, wire};
use crate::schema::{Cardinality, Kind};

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
    match decode_body(method, reply) {
        Ok(Decoded { message, notes }) => Ok(Decoded {
            message: location.complete(reply, message)?,
            notes,
        }),
        // An object that is not the resource, as `{"message": "created"}`.
        Err(error @ Error::Decode { .. }) => match location.read(reply) {
            Ok(message) if error.is_about_the_body() => Ok(Decoded {
                message: message.into(),
                notes: Notes::default(),
            }),
            _ => Err(error),
        },
        Err(error) => Err(error),
    }
}

/// Decodes the body of a reply.
fn decode_body(method: &Method, reply: &Reply) -> Result<Decoded, Error> {
    if let Some(raw) = &method.raw_response {
        return Ok(Decoded {
            message: raw.message(reply).into(),
            notes: Notes::default(),
        });
    }
    let body = reply.body.trim_ascii();
    let response = method.schema.message(method.output);
    // The body of a 202 only repeats "accepted", in JSON, HTML or plain text.
    let is_accepted = reply.status == http::StatusCode::ACCEPTED && response.fields.is_empty();
    let no_content = reply.status == http::StatusCode::NO_CONTENT || is_accepted;
    if no_content || body.is_empty() || body == b"null" {
        if let Some(missing) = Required::of(method, None).missing_in_empty(method, body) {
            return Err(missing);
        }
        return Ok(Decoded {
            message: Bytes::new(),
            notes: Notes::default(),
        });
    }
    if response.text_is_error
        && let Ok(text) = serde_json::from_slice::<String>(body)
    {
        return Err(Error::ErrorInSuccess {
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
    let chosen = chosen.or(method.response_body);
    let read = match chosen {
        None => json::to_wire_with_found(&method.schema, method.output, body, &mut message)
            .map(|(notes, found)| (notes, Some(found))),
        Some(index) => {
            let field = &response.fields[usize::from(index)];
            match (field.kind, field.cardinality) {
                (Kind::Message(id), Cardinality::Explicit) => {
                    let mut inner = Vec::with_capacity(body.len());
                    json::to_wire_with_found(&method.schema, id, body, &mut inner)
                        .inspect(|_| wire::write_bytes(&mut message, field.number, &inner))
                        .map(|(notes, found)| (notes, Some(found)))
                }
                _ => {
                    as_member(method, &field.member, body, &mut message).map(|notes| (notes, None))
                }
            }
        }
    };
    let error_status = || (method.family_rules.error_status?)(body);
    let error_body = |status, missing: String| Error::ErrorBody {
        status,
        missing,
        request_id: None,
    };
    let (notes, found) = match read {
        Ok(read) => read,
        Err(problem) => {
            let error = unreadable(problem, reply);
            return Err(match error_status() {
                Some(status) => error_body(status, String::new()),
                None => error,
            });
        }
    };
    if let Some(found) = found
        && let Some(missing) = Required::of(method, chosen).missing(&found)
    {
        match error_status() {
            Some(status) => return Err(error_body(status, missing)),
            // The resource is gone, whatever the object says.
            None if method.verb == http::Method::DELETE => {}
            None => {
                let problem = format!("not the requested resource: {missing}");
                return Err(Error::decode("", problem));
            }
        }
    }
    Ok(Decoded {
        message: message.into(),
        notes,
    })
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
