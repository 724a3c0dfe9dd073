//! Path fields that the caller left empty, found out by another rpc, and answers
//! that stand in the `Location` of a redirect.

use std::sync::Arc;

use bytes::Bytes;
use http::header::LOCATION;
use percent_encoding::percent_decode_str;

use super::Method;
use super::diagnostics::Diagnostics;
use super::template::Template;
use crate::Error;
use crate::call::Reply;
use crate::json::wire;
use crate::schema::{Field, Kind, Message, MessageId, Schema};

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

/// A compiled `MethodRules.location`.
#[derive(Debug)]
pub(super) struct Location {
    pattern: Box<str>,
    segments: Vec<Segment>,
}

#[derive(Debug)]
enum Segment {
    Literal(Box<str>),
    /// A string field of the response, by name and number.
    Field(Box<str>, u32),
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

impl Location {
    /// Reads the answer from a redirect; nothing else of it is looked at.
    pub fn read(&self, reply: &Reply) -> Result<Vec<u8>, Error> {
        let fault = |problem: String| Error::decode("Location", problem);
        let location = match reply.headers.get(LOCATION).map(|value| value.to_str()) {
            Some(Ok(location)) => location,
            Some(Err(_)) => return Err(fault("is no text".into())),
            None => return Err(fault("the redirect has none".into())),
        };
        let path = path(location);
        let other = || {
            let shown: String = path.chars().take(200).collect();
            fault(format!("expected `{}`, found `{shown}`", self.pattern))
        };
        let mut found = path.rsplit('/');
        let mut values = Vec::with_capacity(self.segments.len());
        for segment in self.segments.iter().rev() {
            let text = found.next().ok_or_else(other)?;
            let value = percent_decode_str(text)
                .decode_utf8()
                .map_err(|_| fault("is not UTF-8".into()))?;
            match segment {
                Segment::Literal(literal) if **literal == *value => {}
                Segment::Field(_, number) if !value.is_empty() => values.push((*number, value)),
                _ => return Err(other()),
            }
        }
        // The pattern begins with a slash.
        if found.next().is_none() {
            return Err(other());
        }
        let mut message = Vec::new();
        for (number, value) in values.into_iter().rev() {
            wire::write_bytes(&mut message, number, value.as_bytes());
        }
        Ok(message)
    }
}

/// The path of a URL or a path, without query and fragment.
fn path(location: &str) -> &str {
    let end = location.find(['?', '#']).unwrap_or(location.len());
    let location = &location[..end];
    match location.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("", |at| &rest[at..]),
        None => location,
    }
}

/// A string field that is set and not empty.
fn text(message: &[u8], number: u32) -> Result<Option<&[u8]>, Error> {
    let value = wire::last(message, number).map_err(Error::malformed)?;
    Ok(value
        .map(|value| value.bytes())
        .filter(|text| !text.is_empty()))
}

/// Compiles a `location` of an rpc with this response.
pub(super) fn location(
    pattern: &str,
    schema: &Schema,
    output: MessageId,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Location> {
    let mut segments = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    let message = schema.message(output);
    let rest = match pattern.strip_prefix('/') {
        // It is read as a path template is, so that both look alike.
        Some(rest) if Template::parse(pattern).is_ok() => rest,
        _ => {
            diagnostics.report_rule("location", "is not a path, as `/things/{thing_id}`");
            return None;
        }
    };
    for segment in rest.split('/') {
        let Some(name) = segment
            .strip_prefix('{')
            .and_then(|segment| segment.strip_suffix('}'))
        else {
            segments.push(Segment::Literal(segment.into()));
            continue;
        };
        match message.field(name) {
            Some((_, field)) if is_text(field) && !names.contains(&name) => {
                names.push(name);
                segments.push(Segment::Field(name.into(), field.number));
            }
            _ => {
                let problem = format!("`{name}` is no single string of {}", message.name);
                diagnostics.report_rule("location", problem);
                return None;
            }
        }
    }
    if names.is_empty() {
        diagnostics.report_rule("location", "has no variable: nothing would be read");
        return None;
    }
    Some(Location {
        pattern: pattern.into(),
        segments,
    })
}

/// Compiles a `resolve` by `finder` for an rpc with this request, whose path has
/// the fields `in_path`.
pub(super) fn resolve(
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

fn is_text(field: &Field) -> bool {
    field.kind == Kind::String && field.is_single()
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, StatusCode};

    use super::*;

    fn stack() -> Location {
        Location {
            pattern: "/stacks/{stack_name}/{stack_id}".into(),
            segments: vec![
                Segment::Literal("stacks".into()),
                Segment::Field("stack_name".into(), 1),
                Segment::Field("stack_id".into(), 2),
            ],
        }
    }

    fn redirect(location: &str) -> Reply {
        let value = HeaderValue::from_str(location).unwrap();
        Reply {
            status: StatusCode::FOUND,
            headers: HeaderMap::from_iter([(LOCATION, value)]),
            body: Bytes::new(),
            room: Default::default(),
        }
    }

    #[test]
    fn locations_are_read_from_their_end() {
        let id = "495c3572-4b1b-4703-8214-f509041aeb6d";
        for (location, want) in [
            ("http://h:8004/v1/p/stacks/web/17", Some(("web", "17"))),
            (
                "https://h/heat-api/v1/p/stacks/web/17?q=/stacks/a/b#c",
                Some(("web", "17")),
            ),
            ("/v1/p/stacks/web/17", Some(("web", "17"))),
            ("/stacks/w%65b%20%2F%C3%A9/17", Some(("web /é", "17"))),
            (
                "http://stacks/stacks/stacks/stacks",
                Some(("stacks", "stacks")),
            ),
            (
                &format!("/v1/stacks/stacks/x.json/{id}"),
                Some(("x.json", id)),
            ),
            ("/v1/p/stacks/web", None),
            ("/v1/p/stacks/web/", None),
            ("/v1/p/stacks/web/17/", None),
            ("/v1/p/stacks//17", None),
            ("/v1/p/stax/web/17", None),
            ("stacks/web/17", None),
            ("http://stacks/web/17", None),
            ("http://h", None),
            ("", None),
            ("/stacks/%FF/17", None),
        ] {
            let read = stack().read(&redirect(location));
            let Some((name, id)) = want else {
                assert!(
                    matches!(read, Err(Error::Decode { .. })),
                    "{location}: {read:?}"
                );
                continue;
            };
            let mut message = Vec::new();
            wire::write_bytes(&mut message, 1, name.as_bytes());
            wire::write_bytes(&mut message, 2, id.as_bytes());
            assert_eq!(read.unwrap(), message, "{location}");
        }
        let mut none = redirect("x");
        none.headers.clear();
        assert!(matches!(stack().read(&none), Err(Error::Decode { .. })));
    }
}
