//! The text of an error body: its charset, whether it is text at all, and XML.

use std::borrow::Cow;

use http::header::CONTENT_TYPE;
use serde_json::{Map, Value};

use drawbridge_transcoder::call::Reply;

/// Limit of an XML body that is read.
const MAX_XML_BYTES: usize = 64 << 10;
const MAX_XML_DEPTH: usize = 8;

/// Of how many characters one may be unreadable in a text.
const READABLE_SHARE: usize = 10;

/// The characters of windows-1252 from 0x80 to 0x9f, which ISO 8859-1 is read as, too. Source:
/// WHATWG, "Encoding", index windows-1252.
const WINDOWS_1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}',
    '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

/// Returns the body as text, at most the first `max` bytes: UTF-8, else the charset that the
/// content type names if it has one byte per character. Invalid bytes are replaced.
pub(crate) fn text(reply: &Reply, max: usize) -> Cow<'_, str> {
    let bytes = reply.text();
    let bytes = &bytes[..bytes.len().min(max)];
    let is_utf8 = match std::str::from_utf8(bytes) {
        Ok(text) => return Cow::Borrowed(text),
        // A character that is cut at the limit.
        Err(error) => error.error_len().is_none(),
    };
    if is_utf8 || !has_single_bytes(reply) {
        return String::from_utf8_lossy(bytes);
    }
    let character = |byte: &u8| match byte {
        0x80..=0x9f => WINDOWS_1252[usize::from(byte - 0x80)],
        byte => char::from(*byte),
    };
    Cow::Owned(bytes.iter().map(character).collect())
}

/// Returns whether the content type names a charset of Western Europe, or is a text without
/// charset, whose default that was. Source: RFC 2616, section 3.7.1.
fn has_single_bytes(reply: &Reply) -> bool {
    match charset(reply) {
        Some(charset) => matches!(
            &*charset,
            "iso-8859-1"
                | "iso-8859-15"
                | "iso8859-1"
                | "latin1"
                | "latin-1"
                | "l1"
                | "windows-1252"
                | "cp1252"
                | "us-ascii"
                | "ascii"
        ),
        None => reply.media_type().to_ascii_lowercase().starts_with("text/"),
    }
}

fn charset(reply: &Reply) -> Option<String> {
    let value = reply.headers.get(CONTENT_TYPE)?.to_str().ok()?;
    value.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let value = value.trim().trim_matches('"');
        (name.trim().eq_ignore_ascii_case("charset")).then(|| value.to_ascii_lowercase())
    })
}

/// Describes a body without text: `4 bytes of image/png`. None for a text.
pub(crate) fn binary(reply: &Reply) -> Option<String> {
    let body = &*reply.body;
    let media_type = reply.media_type().to_ascii_lowercase();
    let (kind, subtype) = media_type.split_once('/').unwrap_or((&media_type, ""));
    let is_declared = match kind {
        "image" | "audio" | "video" | "font" => !subtype.ends_with("+xml"),
        "application" => {
            matches!(
                subtype,
                "octet-stream"
                    | "pdf"
                    | "zip"
                    | "gzip"
                    | "x-gzip"
                    | "x-tar"
                    | "protobuf"
                    | "x-protobuf"
                    | "grpc"
                    | "cbor"
                    | "msgpack"
                    | "x-msgpack"
                    | "wasm"
                    | "java-archive"
            ) || subtype.starts_with("vnd.ms-")
                || subtype.starts_with("grpc+")
        }
        _ => false,
    };
    if body.is_empty()
        || !is_declared && is_readable(&text(reply, 1024), readable_share(&media_type))
    {
        return None;
    }
    let what = match &*media_type {
        "" => String::new(),
        media_type => format!(" of {}", media_type.chars().take(60).collect::<String>()),
    };
    Some(format!(
        "the response has {} bytes{what}, which are not shown",
        body.len()
    ))
}

/// Returns how many characters there must be for each one that cannot be read. A text by its
/// media type is one, also with some bytes that are not in its charset.
fn readable_share(media_type: &str) -> usize {
    let is_text = media_type.starts_with("text/")
        || ["json", "xml"].iter().any(|kind| {
            let subtype = media_type.strip_suffix(kind);
            subtype.is_some_and(|rest| rest.ends_with(['/', '+']))
        });
    match is_text {
        true => 2,
        false => READABLE_SHARE,
    }
}

/// Returns whether most of the characters can be read.
fn is_readable(text: &str, share: usize) -> bool {
    let is_bad =
        |c: &char| *c == '\u{fffd}' || (c.is_control() && !c.is_whitespace() && *c != '\u{1b}');
    let bad = text.chars().filter(is_bad).count();
    !text.contains('\0') && bad * share <= text.chars().count()
}

/// Reads an XML body as if it were JSON: an element is its text, or an object of its
/// attributes and children; repeated children are a list. None for other text, and for HTML.
///
/// No parser of a document: it ignores what it does not understand, and reads no entities of
/// a DTD.
pub(crate) fn xml(reply: &Reply) -> Option<Value> {
    let text = text(reply, MAX_XML_BYTES);
    let media_type = reply.media_type().to_ascii_lowercase();
    let is_xml = media_type.ends_with("/xml") || media_type.ends_with("+xml");
    let begins = |begin: &str| {
        text.get(..begin.len())
            .is_some_and(|head| head.eq_ignore_ascii_case(begin))
    };
    if !text.starts_with('<') || !(is_xml || begins("<?xml") || begins("<error")) {
        return None;
    }
    let mut reader = XmlReader { rest: &text };
    let (name, root) = reader.element(MAX_XML_DEPTH)?;
    if name.eq_ignore_ascii_case("html") {
        return None;
    }
    let mut error = error_node(&root)?;
    let has_id = error.keys().any(|key| is_one_of(key, REQUEST_IDS));
    if let Some(id) = find(&root, &|members| member(members, REQUEST_IDS))
        && !has_id
    {
        error.insert("requestId".to_owned(), Value::from(id));
    }
    Some(Value::Object(error))
}

/// Elements with texts that describe an error. `Text` is that of SOAP 1.2.
const DESCRIPTIONS: &[&str] = &[
    "message",
    "faultstring",
    "errormessage",
    "detail",
    "description",
    "title",
    "text",
    "code",
    "errorcode",
];
const REQUEST_IDS: &[&str] = &["requestid", "traceid"];

/// Returns the first element that describes an error.
fn error_node(root: &Value) -> Option<Map<String, Value>> {
    find(root, &|members| {
        member(members, DESCRIPTIONS)?;
        let mut members = members.clone();
        if let Some(text) = members.shift_remove("Text") {
            members.entry("message").or_insert(text);
        }
        Some(members)
    })
}

/// Returns what `read` finds in the first of the elements, depth first.
fn find<T>(value: &Value, read: &dyn Fn(&Map<String, Value>) -> Option<T>) -> Option<T> {
    match value {
        Value::Object(members) => {
            read(members).or_else(|| members.values().find_map(|value| find(value, read)))
        }
        Value::Array(items) => items.iter().find_map(|item| find(item, read)),
        _ => None,
    }
}

/// Returns the text of the first of these elements.
fn member(members: &Map<String, Value>, names: &[&str]) -> Option<String> {
    members.iter().find_map(|(key, value)| {
        let text = value.as_str().filter(|text| !text.is_empty())?;
        is_one_of(key, names).then(|| text.to_owned())
    })
}

fn is_one_of(key: &str, names: &[&str]) -> bool {
    names.iter().any(|name| key.eq_ignore_ascii_case(name))
}

struct XmlReader<'a> {
    rest: &'a str,
}

impl<'a> XmlReader<'a> {
    /// Reads the next element: its name without prefix, and its content.
    fn element(&mut self, depth: usize) -> Option<(String, Value)> {
        let tag = loop {
            let open = self.rest.find('<')?;
            self.rest = &self.rest[open + 1..];
            if let Some(comment) = self.rest.strip_prefix("!--") {
                self.rest = &comment[comment.find("-->")? + 3..];
                continue;
            }
            let tag = self.until('>')?;
            if !tag.starts_with(['?', '!']) {
                break tag;
            }
        };
        self.content(tag, depth)
    }

    /// Reads the content of the element with this start tag.
    fn content(&mut self, tag: &'a str, depth: usize) -> Option<(String, Value)> {
        let depth = depth.checked_sub(1)?;
        let (tag, is_empty) = match tag.strip_suffix('/') {
            Some(tag) => (tag, true),
            None => (tag, false),
        };
        let (name, attributes) = tag.split_once(char::is_whitespace).unwrap_or((tag, ""));
        let mut members = attributes_of(attributes);
        let mut text = String::new();
        let mut is_open = !is_empty;
        while is_open {
            // A body that ends early, or is cut: the rest counts as empty.
            let Some(open) = self.rest.find('<') else {
                text.push_str(&unescaped(self.rest));
                self.rest = "";
                is_open = false;
                continue;
            };
            text.push_str(&unescaped(&self.rest[..open]));
            self.rest = &self.rest[open + 1..];
            if let Some(data) = self.rest.strip_prefix("![CDATA[") {
                let end = data.find("]]>")?;
                text.push_str(&data[..end]);
                self.rest = &data[end + 3..];
                continue;
            }
            if let Some(comment) = self.rest.strip_prefix("!--") {
                self.rest = &comment[comment.find("-->")? + 3..];
                continue;
            }
            let tag = self.until('>')?;
            if tag.starts_with('/') {
                is_open = false;
            } else if !tag.starts_with('?') {
                let (name, value) = self.content(tag, depth)?;
                add(&mut members, name, value);
            }
        }
        let name = name.rsplit(':').next().unwrap_or(name).to_owned();
        let text = text.trim();
        let value = match members.is_empty() {
            true => Value::from(text),
            false => {
                if !text.is_empty() {
                    add(&mut members, "message".to_owned(), Value::from(text));
                }
                Value::Object(members)
            }
        };
        Some((name, value))
    }

    fn until(&mut self, end: char) -> Option<&'a str> {
        let (before, after) = self.rest.split_once(end)?;
        self.rest = after;
        Some(before)
    }
}

/// Adds a member; the second of a name makes a list.
fn add(members: &mut Map<String, Value>, name: String, value: Value) {
    match members.get_mut(&name) {
        Some(Value::Array(items)) => items.push(value),
        Some(first) => *first = Value::Array(vec![first.take(), value]),
        None => {
            members.insert(name, value);
        }
    }
}

/// Returns the attributes of a start tag, without those of namespaces.
fn attributes_of(mut text: &str) -> Map<String, Value> {
    let mut members = Map::new();
    while let Some((name, after)) = text.split_once('=') {
        let after = after.trim_start();
        let Some(quote) = after.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
            break;
        };
        let Some((value, rest)) = after[1..].split_once(quote) else {
            break;
        };
        let name = name.trim();
        if !name.starts_with("xmlns") && !name.contains(':') {
            members.insert(name.to_owned(), Value::from(unescaped(value)));
        }
        text = rest;
    }
    members
}

/// Replaces the predefined entities.
fn unescaped(text: &str) -> String {
    let mut text = text.to_owned();
    for (entity, c) in [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&apos;", "'"),
        ("&amp;", "&"),
    ] {
        if text.contains(entity) {
            text = text.replace(entity, c);
        }
    }
    text
}

#[cfg(test)]
mod tests;
