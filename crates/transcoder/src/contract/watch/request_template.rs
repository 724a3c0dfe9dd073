//! `bind`: builds the request of a further call from messages that were read before.

use std::borrow::Cow;
use std::collections::HashSet;

use percent_encoding::percent_decode_str;

use super::field_path::FieldPath;
use crate::api::drawbridge::v1 as rules;
use crate::contract::Method;
use crate::contract::diagnostics::Diagnostics;
use crate::json::wire::{self, Value};
use crate::schema::{EnumId, Field, Kind, MessageId, Schema};

/// The request of a further call: bound values, and path fields copied from another
/// request.
#[derive(Debug, Default)]
pub(super) struct RequestTemplate {
    /// Field numbers in the request that is copied from, and in this one.
    copied: Vec<(u32, u32)>,
    bindings: Vec<FieldBinding>,
}

#[derive(Debug)]
struct FieldBinding {
    /// Numbers of the messages that contain the field, and its own.
    to: Vec<u32>,
    kind: Kind,
    what: Source,
}

#[derive(Debug)]
enum Source {
    /// The text of a field of the item.
    From(FieldPath),
    /// The text between a prefix and a suffix, in a string of the item.
    Within(FieldPath, Box<str>, Box<str>),
    /// A field of the poll's request, by number.
    Poll(u32),
    /// A field of the watch's request, by number.
    Request(u32),
    /// A constant.
    Text(Box<str>),
}

/// The messages that a request is built from.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sources<'a> {
    /// The message that `from` refers to.
    pub item: &'a [u8],
    /// The poll's request.
    pub poll: &'a [u8],
    /// The request of the watch.
    pub request: &'a [u8],
}

/// The types of [`Sources`].
#[derive(Clone, Copy)]
pub(super) struct Types {
    pub item: Option<MessageId>,
    pub poll: Option<MessageId>,
    pub request: MessageId,
    /// The request that path fields are copied from, by name.
    pub copied: MessageId,
}

impl RequestTemplate {
    /// Compiles the bindings of one call; `option` is the option that contains them.
    pub fn compile(
        bindings: &[rules::FieldBinding],
        rpc: &Method,
        types: Types,
        option: &str,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Self {
        let schema = &*rpc.schema;
        let mut template = Self::default();
        for binding in bindings {
            match FieldBinding::compile(binding, schema, rpc.input, types) {
                Ok(binding) => template.bindings.push(binding),
                Err(problem) => {
                    diagnostics.report_rule(&format!("{option}.bind"), problem);
                    return template;
                }
            }
        }
        let theirs = schema.message(types.copied);
        for (steps, field) in rpc.binding.path_fields() {
            let known = theirs.field(&field.name).filter(|(_, known)| {
                (known.kind, known.cardinality) == (field.kind, field.cardinality)
            });
            match known {
                Some((_, known)) if steps.is_empty() => {
                    template.copied.push((known.number, field.number));
                }
                _ => {}
            }
        }
        for field in rpc.must_be_filled() {
            if !template.fills(field.number) {
                let problem = format!("`{}`: nothing sets its field `{}`", rpc.name, field.name);
                diagnostics.report_rule(&format!("{option}.bind"), problem);
            }
        }
        template
    }

    fn fills(&self, number: u32) -> bool {
        self.copied.iter().any(|(_, to)| *to == number)
            || self.bindings.iter().any(|binding| binding.to[0] == number)
    }

    pub fn is_empty(&self) -> bool {
        self.bindings.is_empty()
    }

    /// Adds the numbers of the fields of the watch's request that are bound.
    pub fn add_request_fields(&self, into: &mut HashSet<u32>) {
        for binding in &self.bindings {
            if let Source::Request(number) = binding.what {
                into.insert(number);
            }
        }
    }

    /// Builds the request, with fields copied from `base`; none when `all` bindings are
    /// needed and one has no value.
    pub fn fill(
        &self,
        schema: &Schema,
        base: &[u8],
        sources: Sources<'_>,
        all: bool,
    ) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(64);
        for (from, to) in &self.copied {
            copy(base, *from, &[*to], &mut out);
        }
        for binding in &self.bindings {
            if !binding.fill(schema, sources, &mut out) && all {
                return None;
            }
        }
        Some(out)
    }
}

impl FieldBinding {
    fn compile(
        rule: &rules::FieldBinding,
        schema: &Schema,
        input: MessageId,
        types: Types,
    ) -> Result<Self, String> {
        let target = FieldPath::find(schema, input, &rule.to)?;
        let field = target.field(schema);
        let one_of = [&rule.from, &rule.poll, &rule.request, &rule.value];
        if one_of.iter().filter(|given| !given.is_empty()).count() != 1 {
            return Err(format!(
                "`{}` needs exactly one of from, poll, request and value",
                rule.to
            ));
        }
        if !rule.pattern.is_empty() && rule.from.is_empty() {
            return Err(format!("`{}`: a pattern needs `from`", rule.to));
        }
        let what = if !rule.from.is_empty() {
            let item = types
                .item
                .ok_or_else(|| format!("`{}`: there is no message to read it from", rule.from))?;
            let field_path = FieldPath::find(schema, item, &rule.from)?;
            if rule.pattern.is_empty() {
                let source = field_path.field(schema);
                if !source.is_single() || !is_text(source.kind) {
                    return Err(format!(
                        "`{}` must be a single string, number, bool or enum; set `pattern` to \
                         extract it from texts",
                        rule.from
                    ));
                }
                Source::From(field_path)
            } else {
                match rule.pattern.split_once("{}") {
                    Some((before, after)) if !before.is_empty() && !after.contains("{}") => {
                        Source::Within(field_path, before.into(), after.into())
                    }
                    _ => {
                        return Err(format!(
                            "pattern `{}` must have one `{{}}` after other text, as in \
                             `/objects/Tasks/{{}}`",
                            rule.pattern
                        ));
                    }
                }
            }
        } else if !rule.value.is_empty() {
            let mut probe = Vec::new();
            if !write(schema, field.kind, &[field.number], &rule.value, &mut probe) {
                return Err(format!("`{}` is not a value of `{}`", rule.value, rule.to));
            }
            Source::Text(rule.value.as_str().into())
        } else {
            let (name, id) = if rule.poll.is_empty() {
                (&rule.request, types.request)
            } else {
                let none = || format!("`{}`: the poll has no request yet", rule.poll);
                (&rule.poll, types.poll.ok_or_else(none)?)
            };
            let message = schema.message(id);
            let Some((_, source)) = message.field(name) else {
                return Err(format!("{} has no field `{name}`", message.name));
            };
            if (source.kind, source.is_single()) != (field.kind, field.is_single()) {
                return Err(format!("`{name}` is of another type than `{}`", rule.to));
            }
            if rule.poll.is_empty() {
                Source::Request(source.number)
            } else {
                Source::Poll(source.number)
            }
        };
        let copied = matches!(what, Source::Poll(_) | Source::Request(_));
        let fits = copied || (field.is_single() && is_text(field.kind));
        if !fits {
            return Err(format!(
                "`{}` must be a single string, number, bool or enum",
                rule.to
            ));
        }
        Ok(Self {
            to: target.numbers(schema),
            kind: field.kind,
            what,
        })
    }

    /// Writes the value; returns whether there is one.
    fn fill(&self, schema: &Schema, sources: Sources<'_>, out: &mut Vec<u8>) -> bool {
        let text = match &self.what {
            Source::Poll(number) => return copy(sources.poll, *number, &self.to, out),
            Source::Request(number) => return copy(sources.request, *number, &self.to, out),
            Source::Text(text) => Some(Cow::Borrowed(&**text)),
            Source::From(field_path) => field_path.text(schema, sources.item).map(Cow::Owned),
            Source::Within(field_path, before, after) => field_path
                .texts(schema, sources.item)
                .iter()
                .find_map(|text| within(text, before, after))
                .map(Cow::Owned),
        };
        text.is_some_and(|text| write(schema, self.kind, &self.to, &text, out))
    }
}

/// Returns the text between `before` and `after`, within one segment of a URL's path.
fn within(text: &str, before: &str, after: &str) -> Option<String> {
    let (_, rest) = text.split_once(before)?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (segment, behind) = rest.split_at(end);
    let found = percent_decode_str(segment).decode_utf8().ok()?;
    (!found.is_empty() && behind.starts_with(after)).then(|| found.into_owned())
}

/// Copies all values of a field; returns whether there are any.
fn copy(from: &[u8], number: u32, to: &[u32], out: &mut Vec<u8>) -> bool {
    let mut inner = Vec::new();
    let (last, above) = match to.split_last() {
        Some(split) => split,
        None => return false,
    };
    for field in wire::fields(from) {
        let Ok((found, value)) = field else {
            return false;
        };
        if found != number {
            continue;
        }
        // An empty string counts as unset.
        if value != Value::Bytes(&[]) {
            wire::write_value(&mut inner, *last, value);
        }
    }
    !inner.is_empty() && wrap(above, inner, out)
}

/// Writes a field from its text; returns whether the text is a value of the field.
fn write(schema: &Schema, kind: Kind, to: &[u32], text: &str, out: &mut Vec<u8>) -> bool {
    let Some((last, above)) = to.split_last() else {
        return false;
    };
    let number = match kind {
        Kind::String => {
            let mut inner = Vec::with_capacity(text.len() + 4);
            wire::write_bytes(&mut inner, *last, text.as_bytes());
            return wrap(above, inner, out);
        }
        Kind::Int32 => text.parse::<i32>().ok().map(|n| i64::from(n) as u64),
        Kind::Int64 => text.parse::<i64>().ok().map(|n| n as u64),
        Kind::Uint32 => text.parse::<u32>().ok().map(u64::from),
        Kind::Uint64 => text.parse::<u64>().ok(),
        Kind::Bool => text.parse::<bool>().ok().map(u64::from),
        Kind::Enum(id) => enum_number(schema, id, text).map(|n| i64::from(n) as u64),
        _ => None,
    };
    number.is_some_and(|number| {
        let mut inner = Vec::with_capacity(12);
        wire::write_uint(&mut inner, *last, number);
        wrap(above, inner, out)
    })
}

fn enum_number(schema: &Schema, id: EnumId, text: &str) -> Option<i32> {
    schema.enumeration(id).number(text)
}

/// Wraps a field in the messages that contain it.
fn wrap(above: &[u32], inner: Vec<u8>, out: &mut Vec<u8>) -> bool {
    let mut inner = inner;
    for number in above.iter().rev() {
        let mut outer = Vec::with_capacity(inner.len() + 4);
        wire::write_bytes(&mut outer, *number, &inner);
        inner = outer;
    }
    out.extend_from_slice(&inner);
    true
}

/// Returns whether values of this kind have a text.
fn is_text(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::String
            | Kind::Int32
            | Kind::Int64
            | Kind::Uint32
            | Kind::Uint64
            | Kind::Bool
            | Kind::Enum(_)
    )
}

impl Method {
    /// Returns the fields that a call needs: those REQUIRED, and those of the path
    /// without a default.
    pub(super) fn must_be_filled(&self) -> impl Iterator<Item = &Field> {
        let fields = &self.schema.message(self.input).fields;
        let in_path = |field: &Field| {
            self.binding
                .path_fields()
                .any(|(steps, known)| steps.is_empty() && known.number == field.number)
        };
        fields
            .iter()
            .filter(move |field| !field.project_id && (field.required || in_path(field)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_reads_a_segment_of_a_url() {
        for (text, before, after, want) in [
            (
                "http://ao:22015/Automation/v1/objects/Tasks/17",
                "/objects/Tasks/",
                "",
                Some("17"),
            ),
            ("/objects/Tasks/17/", "/objects/Tasks/", "", Some("17")),
            ("/objects/Tasks/17?x=1", "/objects/Tasks/", "", Some("17")),
            ("/objects/Tasks/17#x", "/objects/Tasks/", "", Some("17")),
            ("/objects/Tasks/a%2Fb", "/objects/Tasks/", "", Some("a/b")),
            ("/objects/Tasks/17/steps", "/Tasks/", "/steps", Some("17")),
            ("/objects/Tasks/17/logs", "/Tasks/", "/steps", None),
            ("/objects/Tasks/", "/objects/Tasks/", "", None),
            ("/objects/Schedules/3", "/objects/Tasks/", "", None),
            ("/objects/Tasks/%ff", "/objects/Tasks/", "", None),
        ] {
            assert_eq!(within(text, before, after).as_deref(), want, "{text}");
        }
    }
}
