//! Decodes a reply into the response message.

use http::Method as Verb;
use http::header::CONTENT_TYPE;

use super::required_member::Required;
use super::{Decoded, Method, page};
use crate::Error;
use crate::call::Reply;
use crate::family::Evidence;
use crate::json::{self, Found, Notes, Problem, wire};
use crate::output_limit::{SHORT_VALUE, finished, has_room};
use crate::schema::{Cardinality, Field, Kind};

/// What to do about a response of something else than the API.
const CHECK_ENDPOINT: &str = "check the upstream's endpoint";

/// Decodes the reply to a call with this verb; see [`Method::decode_reply_to`].
pub(super) fn decode(method: &Method, verb: &Verb, reply: &Reply) -> Result<Decoded, Error> {
    let Some(location) = &method.location else {
        return decode_body(method, verb, reply);
    };
    // A response with a `Location` needs no body: that of a redirect is for people,
    // and that of a 201 may be, too.
    let has_object = reply.text().starts_with(b"{");
    if reply.status.is_redirection() || !has_object {
        return Ok(Decoded::of(location.read(reply)?));
    }
    match decode_body(method, verb, reply) {
        Ok(Decoded { message, notes }) => Ok(Decoded {
            message: location.complete(reply, message)?,
            notes,
        }),
        // An object that is not the resource, as `{"message": "created"}`.
        Err(error @ Error::NotTheResource { .. }) => match location.read(reply) {
            Ok(message) => Ok(Decoded::of(message)),
            Err(_) => Err(error),
        },
        Err(error) => Err(error),
    }
}

impl Decoded {
    fn of(message: Vec<u8>) -> Self {
        Self {
            message: message.into(),
            notes: Notes::default(),
        }
    }
}

/// Decodes the body of a reply.
fn decode_body(method: &Method, verb: &Verb, reply: &Reply) -> Result<Decoded, Error> {
    let body = reply.text();
    let response = method.schema.message(method.output);
    let error_body = |status, missing| Error::ErrorBody {
        status,
        missing,
        request_id: None,
    };
    if response.text_is_error
        && let Ok(text) = serde_json::from_slice::<String>(body)
    {
        return Err(Error::ErrorInSuccess {
            problem: text,
            request_id: None,
        });
    }
    if page::is_problem(reply) {
        let status = method.error_status(body, Evidence::NotTheResource);
        return Err(error_body(status.unwrap_or(500), String::new()));
    }
    if let Some(raw) = &method.raw_response {
        let may_be = Evidence::MayBeTheResource(&[]);
        if page::is_json_type(reply)
            && let Some(status) = method.error_status(body, may_be)
        {
            return Err(error_body(status, String::new()));
        }
        return Ok(Decoded::of(raw.message(reply)));
    }
    if response.fields.iter().all(|field| field.gateway_only) {
        // There is nothing to read: whatever the body says, the call has succeeded, unless
        // it says the contrary.
        return match method.error_status(body, Evidence::NotTheResource) {
            Some(status) => Err(error_body(status, String::new())),
            None if page::is_html(reply) && !page::repeats_accepted(reply) => {
                let found = content_type(reply);
                let problem = format!("expected no web page, found {found}: {CHECK_ENDPOINT}");
                Err(Error::not_the_resource(problem))
            }
            None => Ok(Decoded::of(Vec::new())),
        };
    }
    let no_content = reply.status == http::StatusCode::NO_CONTENT;
    if no_content || body.is_empty() || body == b"null" {
        if let Some(missing) = Required::of(method, None).missing_in_empty(verb, body) {
            return Err(missing);
        }
        return Ok(Decoded::of(Vec::new()));
    }
    if let Some(problem) = reply.unsupported_encoding() {
        return Err(Error::not_the_resource(format!(
            "Content-Encoding: {problem}"
        )));
    }
    if !begins_as_json(body) || reply.wide_encoding().is_some() {
        return Err(Error::not_the_resource(unexpected(reply)));
    }
    let mut message = Vec::with_capacity(body.len());
    let chosen = method
        .response_choices
        .iter()
        .find(|(member, _)| json::has_member(body, member))
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
                        .inspect(|_| {
                            if has_room(&mut message, inner.len() + SHORT_VALUE) {
                                wire::write_bytes(&mut message, field.number, &inner);
                            }
                        })
                        .map(|(notes, found)| (notes, Some(found)))
                }
                (_, Cardinality::Repeated) => as_member(method, field, body, &mut message)
                    .map(|(notes, found)| (notes, Some(found))),
                _ => as_member(method, field, body, &mut message).map(|(notes, _)| (notes, None)),
            }
        }
    };
    let (notes, found) = match read {
        Ok(read) => read,
        Err(problem) => {
            let error = unreadable(problem, reply);
            return Err(match method.error_status(body, Evidence::NotTheResource) {
                Some(status) => error_body(status, String::new()),
                None => error,
            });
        }
    };
    let required = Required::of(method, chosen);
    let decoded = Decoded {
        message: finished(message),
        notes,
    };
    let Some(missing) = required.missing(found.as_ref(), body, &decoded.message) else {
        return match required.error_status(method, found.as_ref(), body, &decoded.message) {
            Some(status) => Err(error_body(status, String::new())),
            None => Ok(decoded),
        };
    };
    match method.error_status(body, Evidence::NotTheResource) {
        Some(status) => Err(error_body(status, missing)),
        // The resource is gone, whatever the object says.
        None if *verb == Verb::DELETE => Ok(decoded),
        None => {
            let problem = format!("not the requested resource: {missing}");
            Err(Error::not_the_resource(problem))
        }
    }
}

/// Decodes `body` as the value of one member of the response.
fn as_member(
    method: &Method,
    field: &Field,
    body: &[u8],
    message: &mut Vec<u8>,
) -> Result<(Notes, Found), Problem> {
    // A single value, so that `1,"other":2` is not decoded as two members.
    json::check(body)?;
    let object = [b"{", field.member.as_bytes(), body, b"}"].concat();
    let read = json::to_wire_with_found(&method.schema, method.output, &object, message);
    read.map_err(|mut problem| {
        if *problem.path == *field.wire_name {
            // The body itself.
            problem.path.clear();
        }
        problem
    })
}

/// Returns whether the body can be JSON, or one of the numbers that are not JSON: `NaN`,
/// `Infinity`. HTML, for example, cannot.
fn begins_as_json(body: &[u8]) -> bool {
    matches!(
        body.first(),
        Some(b'{' | b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n' | b'N' | b'I')
    )
}

/// Says what a body is that is not JSON.
fn unexpected(reply: &Reply) -> String {
    let found = content_type(reply);
    if let Some(name) = reply.wide_encoding() {
        return format!("expected JSON in UTF-8, found {name} ({found})");
    }
    match found.contains("json") {
        true => format!("expected JSON, found another text, although it is {found}"),
        false => format!("expected JSON, found {found}: {CHECK_ENDPOINT}"),
    }
}

fn unreadable(problem: Problem, reply: &Reply) -> Error {
    let Problem { path, problem } = problem;
    if !path.is_empty() {
        return match json::check(reply.text()) {
            Ok(()) => Error::decode(path, problem),
            // The path is where it ends: it says nothing about the contract.
            Err(_) => Error::not_the_resource(format!("{path}: {problem}")),
        };
    }
    let found = content_type(reply);
    Error::not_the_resource(match found.contains("json") {
        true => problem,
        false => format!("{problem} (the response is {found})"),
    })
}

/// Returns the reply's content type for errors, at most 100 characters of it.
fn content_type(reply: &Reply) -> String {
    match reply.headers.get(CONTENT_TYPE).map(|value| value.to_str()) {
        Some(Ok(text)) => text.chars().take(100).collect(),
        Some(Err(_)) => "an invalid content type".into(),
        None => "a response without a content type".into(),
    }
}
