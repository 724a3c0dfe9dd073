//! `location`: fields of a response that are read from the `Location` header.

use bytes::Bytes;
use http::header::LOCATION;
use percent_encoding::percent_decode_str;

use super::diagnostics::Diagnostics;
use super::path_template::Template;
use crate::Error;
use crate::call::Reply;
use crate::json::wire;
use crate::schema::{Field, Kind, MessageId, Schema};

/// A compiled `MethodRules.location`.
#[derive(Debug)]
pub(super) struct Location {
    pattern: Box<str>,
    pub segments: Vec<Segment>,
}

#[derive(Debug)]
pub(super) enum Segment {
    Literal(Box<str>),
    /// A string field of the response, by name and number.
    Field(Box<str>, u32),
}

impl Location {
    /// Adds the fields of `Location` that are not in the body to the message that was
    /// decoded from it. A reply without a suitable header must have all of them in its
    /// body.
    pub fn complete(&self, reply: &Reply, message: Bytes) -> Result<Bytes, Error> {
        if self.is_in(&message)? {
            return Ok(message);
        }
        let mut complete = self.read(reply)?;
        // The last occurrence of a field wins: that of the body.
        complete.extend_from_slice(&message);
        Ok(complete.into())
    }

    /// Returns whether a message has all of the fields.
    fn is_in(&self, message: &[u8]) -> Result<bool, Error> {
        for segment in &self.segments {
            if let Segment::Field(_, number) = segment {
                let value = wire::last(message, *number).map_err(Error::malformed)?;
                if value.is_none_or(|value| value.bytes().is_empty()) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Reads the fields from `Location`, and nothing else.
    pub fn read(&self, reply: &Reply) -> Result<Vec<u8>, Error> {
        let fault = |problem: String| Error::decode("Location", problem);
        let location = match reply.headers.get(LOCATION).map(|value| value.to_str()) {
            Some(Ok(location)) => location,
            Some(Err(_)) => return Err(fault("is no text".into())),
            None => return Err(fault("is missing in the response".into())),
        };
        let path = path(location);
        // Jenkins' `Location` of a queue item ends in a slash.
        let path = path.strip_suffix('/').unwrap_or(path);
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
        // The pattern begins with a slash: the path goes on before it, unless it is relative
        // to that of the request. Source: RFC 9110, section 10.2.2.
        if path.is_empty() || location.contains("://") && found.next().is_none() {
            return Err(other());
        }
        let mut message = Vec::new();
        for (number, value) in values.into_iter().rev() {
            wire::write_bytes(&mut message, number, value.as_bytes());
        }
        Ok(message)
    }
}

/// Returns the path of a URL or a path, without query and fragment.
fn path(location: &str) -> &str {
    let end = location.find(['?', '#']).unwrap_or(location.len());
    let location = &location[..end];
    match location.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("", |at| &rest[at..]),
        None => location,
    }
}

/// Compiles a `location` of an rpc with this response.
pub(super) fn compile(
    pattern: &str,
    schema: &Schema,
    output: MessageId,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Location> {
    let mut segments = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    let message = schema.message(output);
    let rest = match pattern.strip_prefix('/') {
        // Checked as a path template, so that both have the same syntax.
        Some(rest) if Template::parse(pattern).is_ok() => rest,
        _ => {
            diagnostics.report_rule("location", "is not a path, as `/things/{thing_id}`");
            return None;
        }
    };
    for segment in rest.strip_suffix('/').unwrap_or(rest).split('/') {
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
                let problem = format!("`{name}` is not a single string field of {}", message.name);
                diagnostics.report_rule("location", problem);
                return None;
            }
        }
    }
    if names.is_empty() {
        diagnostics.report_rule("location", "has no variable: the response would be empty");
        return None;
    }
    Some(Location {
        pattern: pattern.into(),
        segments,
    })
}

pub(super) fn is_text(field: &Field) -> bool {
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
        }
    }

    #[test]
    fn locations_are_matched_from_their_end() {
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
            ("/v1/p/stacks/web/17/", Some(("web", "17"))),
            ("/v1/p/stacks/web/17//", None),
            ("/v1/p/stacks//17", None),
            ("/v1/p/stax/web/17", None),
            ("stacks/web/17", Some(("web", "17"))),
            ("stacks/web/17/?a=/b#c", Some(("web", "17"))),
            ("web/17", None),
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
