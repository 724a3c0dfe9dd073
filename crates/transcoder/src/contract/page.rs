//! Recognizes bodies that are written for people or about problems, by media type or text.

use crate::call::Reply;

/// How HTML begins, in lower case.
const HTML_STARTS: &[&[u8]] = &[b"<!doctype html", b"<html", b"<head", b"<body", b"<title"];

/// How many bytes of a page are searched.
const MAX_SEARCHED_BYTES: usize = 4 << 10;

/// Returns whether the body is an error by its media type. Source: RFC 9457, section 3.
pub(super) fn is_problem(reply: &Reply) -> bool {
    let media_type = reply.media_type();
    let is = |name| media_type.eq_ignore_ascii_case(name);
    is("application/problem+json") || is("application/problem+xml")
}

/// Returns whether the body is a web page: HTML by its media type, unless it is a JSON
/// object or empty, or by its text.
pub(super) fn is_html(reply: &Reply) -> bool {
    let text = reply.text();
    if is_html_type(reply) {
        return !text.is_empty() && !text.starts_with(b"{");
    }
    let mut rest = text;
    // The XML declaration of XHTML, and comments.
    while let Some(after) = skip(rest, b"<?", b"?>").or_else(|| skip(rest, b"<!--", b"-->")) {
        rest = after.trim_ascii_start();
    }
    HTML_STARTS.iter().any(|start| {
        let head = rest.get(..start.len());
        head.is_some_and(|head| head.eq_ignore_ascii_case(start))
    })
}

/// Returns whether the media type is that of a web page.
pub(super) fn is_html_type(reply: &Reply) -> bool {
    reply.is_media_type("text/html") || reply.is_media_type("application/xhtml+xml")
}

/// Returns whether the media type is that of JSON. Source: RFC 6839, section 3.1.
pub(super) fn is_json_type(reply: &Reply) -> bool {
    let lower = reply.media_type().to_ascii_lowercase();
    lower.ends_with("/json") || lower.ends_with("+json")
}

/// Returns the text after a part with this beginning and this end.
fn skip<'a>(text: &'a [u8], start: &[u8], end: &[u8]) -> Option<&'a [u8]> {
    let rest = text.strip_prefix(start)?;
    let at = rest.windows(end.len()).position(|part| part == end)?;
    Some(&rest[at + end.len()..])
}

/// Returns whether the page of a 202 only repeats its status. Source: docs/apis/heat.md,
/// "Body shapes": the web framework of OpenStack writes HTML for some clients.
pub(super) fn repeats_accepted(reply: &Reply) -> bool {
    let page = &reply.body[..reply.body.len().min(MAX_SEARCHED_BYTES)];
    let text = b"202 Accepted";
    reply.status == http::StatusCode::ACCEPTED && page.windows(text.len()).any(|part| part == text)
}
