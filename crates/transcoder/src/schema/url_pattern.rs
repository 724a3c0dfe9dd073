//! `FieldRules.url_pattern`: fields that are segments of a URL.

use prost_reflect::{Kind as ProtoKind, MessageDescriptor};

/// A compiled pattern for the end of a URL's path.
#[derive(Debug)]
pub struct UrlPattern(pub(crate) Vec<Segment>);

/// A segment of the path.
#[derive(Debug)]
pub(crate) enum Segment {
    Literal(Box<str>),
    /// A string field, by number.
    Text(u32),
    /// An int64 field, by number.
    Integer(u32),
}

impl UrlPattern {
    /// Compiles a pattern such as `/objects/{resource}/{id}`; its variables are strings and
    /// int64 fields of the message.
    pub(super) fn compile(pattern: &str, message: &MessageDescriptor) -> Result<Self, String> {
        let rest = pattern
            .strip_prefix('/')
            .filter(|rest| rest.contains('{'))
            .ok_or("is not a path with variables, as `/things/{id}`")?;
        let segment = |text: &str| {
            let name = text
                .strip_prefix('{')
                .and_then(|text| text.strip_suffix('}'));
            let Some(name) = name else {
                return match text.is_empty() || text.contains(['{', '}']) {
                    true => Err(format!(
                        "the segment `{text}` is neither text nor `{{field}}`"
                    )),
                    false => Ok(Segment::Literal(text.into())),
                };
            };
            let field = message.get_field_by_name(name);
            let field = field.filter(|field| !field.is_list() && !field.is_map());
            match field.as_ref().map(|field| (field.number(), field.kind())) {
                Some((number, ProtoKind::String)) => Ok(Segment::Text(number)),
                Some((number, ProtoKind::Int64)) => Ok(Segment::Integer(number)),
                _ => Err(format!(
                    "`{name}` is not a single string or int64 of {}",
                    message.full_name()
                )),
            }
        };
        rest.split('/')
            .map(segment)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}
