//! Bodies that are the bytes of one field, not JSON.

use http::HeaderValue;
use http::header::CONTENT_TYPE;

use super::view::View;
use crate::Error;
use crate::api::drawbridge::v1::MethodRules;
use crate::call::Reply;
use crate::json::wire::{self, Malformed, Value};
use crate::schema::{Cardinality, FieldIndex, Kind, MessageId, Schema, Shape};

/// The media type of bytes for which neither the rpc nor the request names one. Source:
/// RFC 9110, section 8.3.
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// The field that is the body, and its media type.
#[derive(Debug)]
pub(super) struct RawBody {
    /// The field. None: the request itself is a `google.api.HttpBody`.
    pub field: Option<FieldIndex>,
    content: Content,
    /// Whether the bytes must be UTF-8.
    pub is_text: bool,
    media_type: HeaderValue,
}

/// Where the bytes are.
#[derive(Clone, Copy, Debug)]
enum Content {
    /// The value of the field.
    Value,
    /// A member of a message: a wrapper, or `google.api.HttpBody`.
    Member {
        data: u32,
        /// The member with the media type.
        media_type: Option<u32>,
    },
}

/// The bytes and their media type.
pub(super) struct Raw<'v> {
    pub bytes: &'v [u8],
    pub media_type: HeaderValue,
}

impl RawBody {
    /// Returns the body of a field that is sent as bytes; none for one that is sent as JSON.
    pub fn of_field(
        schema: &Schema,
        input: MessageId,
        index: FieldIndex,
        rules: &MethodRules,
    ) -> Option<Self> {
        let field = &schema.message(input).fields[usize::from(index)];
        if !field.is_single() {
            return None;
        }
        let (content, is_text) = match field.kind {
            Kind::Bytes => (Content::Value, false),
            Kind::String => (Content::Value, true),
            Kind::Message(id) => content(schema, id)?,
            _ => return None,
        };
        Self::new(Some(index), content, is_text, rules)
    }

    /// Returns the body `*` of a request that is a `google.api.HttpBody`.
    pub fn of_request(schema: &Schema, input: MessageId, rules: &MethodRules) -> Option<Self> {
        Self::new(None, http_body(schema, input)?, false, rules)
    }

    fn new(
        field: Option<FieldIndex>,
        content: Content,
        is_text: bool,
        rules: &MethodRules,
    ) -> Option<Self> {
        let media_type = match &*rules.body_media_type {
            // Without a media type, a string is JSON.
            "" if is_text => return None,
            "" => OCTETS,
            // `check` reports an invalid one.
            text => media_type(text).unwrap_or(OCTETS),
        };
        Some(Self {
            field,
            content,
            is_text,
            media_type,
        })
    }

    /// Returns what is sent; none where the field is unset. `view` and `request` are the
    /// same message.
    pub fn read<'v>(
        &self,
        view: &'v View<'_>,
        request: &'v [u8],
    ) -> Result<Option<Raw<'v>>, Error> {
        let name = |member: &str| match self.field {
            Some(index) => format!("{}{member}", view.field(index).name),
            None => member.trim_start_matches('.').to_owned(),
        };
        let mut media_type = self.media_type.clone();
        let bytes = match (self.content, self.field) {
            (Content::Value, Some(index)) => match view.value(index) {
                Some(Value::Bytes(bytes)) => bytes,
                // A field without presence: empty.
                None if view.field(index).cardinality == Cardinality::Implicit => &[],
                _ => return Ok(None),
            },
            (Content::Value, None) => return Ok(None),
            (
                Content::Member {
                    data,
                    media_type: of,
                },
                index,
            ) => {
                let message = match index {
                    None => request,
                    Some(index) => match view.message(index) {
                        Some(message) => message,
                        None => return Ok(None),
                    },
                };
                let given = of.map(|number| last(message, number)).transpose()?;
                if let Some(given) = given.filter(|given| !given.is_empty()) {
                    let text = std::str::from_utf8(given).ok();
                    let Some(given) = text.and_then(self::media_type) else {
                        return Err(Error::Binding {
                            field: name(".content_type"),
                            problem: "is not a media type such as image/png".into(),
                        });
                    };
                    media_type = given;
                }
                last(message, data)?
            }
        };
        if self.is_text && std::str::from_utf8(bytes).is_err() {
            return Err(Error::Binding {
                field: name(""),
                problem: "is not UTF-8".into(),
            });
        }
        Ok(Some(Raw { bytes, media_type }))
    }
}

/// The field of a response that holds the body of a reply, whatever it is.
#[derive(Debug)]
pub(super) struct RawResponse {
    /// The field. None: the response itself is a `google.api.HttpBody`.
    field: Option<u32>,
    content: Content,
}

impl RawResponse {
    /// Returns the response that is not decoded: a `google.api.HttpBody`, or a
    /// `response_body` of that type or of bytes; none for one that is JSON.
    pub fn of(
        schema: &Schema,
        output: MessageId,
        response_body: Option<FieldIndex>,
    ) -> Option<Self> {
        let (number, content) = match response_body {
            None => (None, http_body(schema, output)?),
            Some(index) => {
                let field = &schema.message(output).fields[usize::from(index)];
                let content = match field.kind {
                    Kind::Bytes if field.is_single() => Content::Value,
                    Kind::Message(id) if field.is_single() => http_body(schema, id)?,
                    _ => return None,
                };
                (Some(field.number), content)
            }
        };
        Some(Self {
            field: number,
            content,
        })
    }

    /// Returns the response with the body of the reply and its media type.
    pub fn message(&self, reply: &Reply) -> Vec<u8> {
        let mut message = Vec::with_capacity(reply.body.len() + 128);
        let (data, of) = match self.content {
            Content::Value => {
                wire::write_bytes(&mut message, self.field.unwrap_or_default(), &reply.body);
                return message;
            }
            Content::Member { data, media_type } => (data, media_type),
        };
        let media_type = reply.headers.get(CONTENT_TYPE);
        if let (Some(number), Some(Ok(text))) = (of, media_type.map(HeaderValue::to_str)) {
            wire::write_bytes(&mut message, number, text.as_bytes());
        }
        if !reply.body.is_empty() {
            wire::write_bytes(&mut message, data, &reply.body);
        }
        match self.field {
            None => message,
            Some(number) => {
                let mut outer = Vec::with_capacity(message.len() + 16);
                wire::write_bytes(&mut outer, number, &message);
                outer
            }
        }
    }
}

/// Returns where the bytes of a `google.api.HttpBody` are; none for other messages.
fn http_body(schema: &Schema, id: MessageId) -> Option<Content> {
    let (content, _) = content(schema, id)?;
    matches!(
        content,
        Content::Member {
            media_type: Some(_),
            ..
        }
    )
    .then_some(content)
}

/// Returns where the bytes of a message are, and whether they are text.
fn content(schema: &Schema, id: MessageId) -> Option<(Content, bool)> {
    let message = schema.message(id);
    let member = |name: &str| message.field(name).map(|(_, field)| field);
    if &*message.name == "google.api.HttpBody" {
        let content = Content::Member {
            data: member("data").filter(|f| f.kind == Kind::Bytes)?.number,
            media_type: Some(member("content_type")?.number),
        };
        return Some((content, false));
    }
    let value = member("value").filter(|_| message.shape == Shape::Wrapper)?;
    let is_text = match value.kind {
        Kind::Bytes => false,
        Kind::String => true,
        _ => return None,
    };
    let content = Content::Member {
        data: value.number,
        media_type: None,
    };
    Some((content, is_text))
}

/// Returns the last value of a string or bytes field; empty where it is unset.
fn last(message: &[u8], number: u32) -> Result<&[u8], Error> {
    match wire::last(message, number) {
        Ok(None) => Ok(&[]),
        Ok(Some(Value::Bytes(bytes))) => Ok(bytes),
        Ok(Some(_)) => Err(Error::malformed(Malformed::Alien)),
        Err(problem) => Err(Error::malformed(problem)),
    }
}

/// Reads `type/subtype`, with or without parameters; none for a wildcard and other texts.
/// Source: RFC 9110, section 8.3.1.
pub(super) fn media_type(text: &str) -> Option<HeaderValue> {
    let token = |part: &str| {
        !part.is_empty()
            && part != "*"
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    let (essence, parameters) = match text.split_once(';') {
        Some((essence, parameters)) => (essence.trim_end(), Some(parameters)),
        None => (text, None),
    };
    let (kind, subtype) = essence.split_once('/')?;
    let has_value = |parameter: &str| match parameter.trim().split_once('=') {
        Some((name, value)) => token(name) && !value.is_empty(),
        None => false,
    };
    let fits = token(kind)
        && token(subtype)
        // The value in quotes can contain a semicolon: then only the first is checked.
        && parameters.is_none_or(|all| all.contains('"') || all.split(';').all(has_value));
    fits.then(|| HeaderValue::from_str(text).ok())?
}
