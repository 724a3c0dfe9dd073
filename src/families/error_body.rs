//! Reads error replies: shared by the error mappings of all families. Nothing here fails: a
//! body that cannot be parsed has no message.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header};
use serde_json::Value;

use crate::error::{cut, head};
use crate::families::error_text;
use drawbridge_transcoder::call::Reply;
use drawbridge_transcoder::json::without_special_numbers;

/// Limit of an error body that is parsed as JSON.
pub(crate) const MAX_JSON_BYTES: usize = 256 * 1024;
/// How much of a text or HTML body is searched for a message.
const MAX_PAGE_BYTES: usize = 16 * 1024;
/// Limit of an upstream's message.
const MAX_MESSAGE_BYTES: usize = 1024;
/// Difference of clocks from which a hint is added. Servers reject signatures and tokens
/// beyond about 15 minutes.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(600);

/// Parses the body as JSON, if it is an object or array and not too large, or as XML. Invalid
/// UTF-8 is read as the charset of the content type or replaced, so that the other members can
/// be read.
pub(crate) fn json(reply: &Reply) -> Option<Value> {
    if reply.body.len() > MAX_JSON_BYTES {
        return None;
    }
    let text = error_text::text(reply, MAX_JSON_BYTES);
    if text.starts_with('<') {
        return error_text::xml(reply);
    }
    let value = parse(text.as_bytes())?;
    (value.is_object() || value.is_array()).then_some(value)
}

/// Parses JSON; numbers that serde_json rejects, such as `NaN`, are read as `null`.
pub(crate) fn parse(text: &[u8]) -> Option<Value> {
    let read = serde_json::from_slice(text);
    read.or_else(|_| serde_json::from_slice(&without_special_numbers(text)))
        .ok()
}

/// Returns the first of these members that is a non-empty string or a number, as text.
pub(crate) fn member(value: &Value, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| match value.get(*name)? {
        Value::String(text) if !text.trim().is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    })
}

/// Returns the message of an upstream that writes no HTML: `<` stays. Without traceback, at
/// most 1 KiB.
pub(crate) fn plain_message(text: &str) -> String {
    cut(without_traceback(text).trim(), MAX_MESSAGE_BYTES)
}

fn without_traceback(text: &str) -> &str {
    text.find("Traceback (most recent call last)")
        .map_or(text, |at| &text[..at])
}

/// Returns the message of an upstream without tags and traceback, at most 1 KiB.
pub(crate) fn message(text: &str) -> String {
    let text = without_traceback(text);
    let text = if text.contains('<') && text.contains('>') {
        strip_tags(head(text, MAX_PAGE_BYTES))
    } else {
        text.trim().to_owned()
    };
    cut(&text, MAX_MESSAGE_BYTES)
}

/// Returns the text of a body that is not JSON: plain text, or HTML without tags.
pub(crate) fn page_text(reply: &Reply) -> String {
    if let Some(problem) = reply.unsupported_encoding() {
        return problem;
    }
    if let Some(name) = reply.wide_encoding() {
        return format!("the message is in {name}, which is not supported");
    }
    if let Some(what) = error_text::binary(reply) {
        return what;
    }
    let text = error_text::text(reply, MAX_PAGE_BYTES);
    let trimmed = text.trim();
    // Truncated or unknown JSON is not for people.
    if trimmed == "null" || trimmed.starts_with(['{', '[']) {
        return String::new();
    }
    // A multi-byte character may have been truncated at the limit.
    message(trimmed.trim_end_matches('\u{fffd}'))
}

/// Returns the text without tags, scripts and styles, with white space folded.
fn strip_tags(html: &str) -> String {
    let mut text = String::with_capacity(html.len().min(MAX_MESSAGE_BYTES));
    let mut rest = html;
    while let Some(open) = rest.find('<') {
        text.push_str(&rest[..open]);
        rest = &rest[open..];
        // Not in `a < b`.
        let is_tag = rest[1..].starts_with(|c: char| c.is_ascii_alphabetic() || "/!?".contains(c));
        if !is_tag {
            text.push('<');
            rest = &rest[1..];
            continue;
        }
        text.push(' ');
        let end = ["script", "style", "head"]
            .into_iter()
            .find(|name| starts_with_tag(rest, name))
            .and_then(|name| find_end_of_element(rest, name));
        rest = match end.or_else(|| rest.find('>')) {
            Some(end) => &rest[end + 1..],
            None => "",
        };
    }
    text.push_str(rest);
    let mut folded = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !folded.is_empty() {
            folded.push(' ');
        }
        folded.push_str(word);
    }
    for (entity, c) in [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&#39;", "'"),
        ("&nbsp;", " "),
        ("&amp;", "&"),
    ] {
        if folded.contains(entity) {
            folded = folded.replace(entity, c);
        }
    }
    folded
}

/// Returns whether `html` begins with the start tag of this element.
fn starts_with_tag(html: &str, name: &str) -> bool {
    let Some(tag) = html.get(1..1 + name.len()) else {
        return false;
    };
    tag.eq_ignore_ascii_case(name) && html[1 + name.len()..].starts_with(['>', ' ', '\n', '\t'])
}

/// Returns the position after the end tag of this element.
fn find_end_of_element(html: &str, name: &str) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = html[from..].find("</") {
        let tag = from + at + 2;
        let found = html.get(tag..tag + name.len());
        if found.is_some_and(|t| t.eq_ignore_ascii_case(name)) {
            return html[tag..].find('>').map(|end| tag + end);
        }
        from = tag;
    }
    None
}

/// Returns a hint if the reply's `Date` shows that the gateway's clock is wrong, which makes
/// servers reject signatures and tokens.
pub(crate) fn clock_hint(headers: &HeaderMap, now: SystemTime) -> Option<String> {
    let date = headers.get(header::DATE)?.to_str().ok()?;
    let theirs = httpdate::parse_http_date(date).ok()?;
    let (difference, which) = match now.duration_since(theirs) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    (difference > CLOCK_TOLERANCE).then(|| {
        format!(
            "the gateway's clock is {} s {which} the upstream's: set the clock",
            difference.as_secs()
        )
    })
}

/// Returns the reason of an error without one: `HTTP_404`.
pub(crate) fn http_reason(status: StatusCode) -> String {
    format!("HTTP_{}", status.as_u16())
}

/// Returns the metadata of a fault without empty values.
pub(crate) fn metadata(
    entries: impl IntoIterator<Item = (&'static str, Option<String>)>,
) -> Vec<(&'static str, String)> {
    entries
        .into_iter()
        .filter_map(|(key, value)| Some((key, value.filter(|value| !value.is_empty())?)))
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use bytes::Bytes;

    use super::*;

    /// Returns a reply for tests.
    pub(crate) fn reply(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = http::HeaderName::from_bytes(name.as_bytes()).expect("a header name");
            map.append(name, value.parse().expect("a header value"));
        }
        Reply {
            status: StatusCode::from_u16(status).expect("a status"),
            headers: map,
            body: body.into(),
        }
    }

    /// Returns the response of a recorded exchange, or one of its variants.
    pub(crate) fn recorded(response: &Value) -> Reply {
        let headers: Vec<(&str, &str)> = response["headers"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.as_str(), value.as_str().expect("a text")))
            .collect();
        let status = response["status"].as_u64().expect("a status");
        let body = match &response["body"] {
            Value::String(text) => text.clone(),
            value => value.to_string(),
        };
        reply(status as u16, &headers, body)
    }

    #[test]
    fn page_text_has_no_tags_and_no_traceback() {
        for (body, want) in [
            ("", ""),
            ("null", ""),
            ("{\"cut", ""),
            ("Authentication required", "Authentication required"),
            ("a < b and c > d", "a < b and c > d"),
            (
                "<html><head><title>x</title></head><body>\n<h1>502 Bad Gateway</h1>\n<hr>nginx</body></html>",
                "502 Bad Gateway nginx",
            ),
            (
                "<p>a &lt;b&gt; &amp;lt;</p><SCRIPT>if (1<2) {}</script >c",
                "a <b> &lt; c",
            ),
            ("<p>open <b", "open"),
            (
                "boom\nTraceback (most recent call last):\n  File secret.py",
                "boom",
            ),
            ("<é>", "<é>"),
            ("\0{\0}", "the message is in UTF-16, which is not supported"),
        ] {
            assert_eq!(page_text(&reply(500, &[], body)), want, "{body}");
        }
        let long = page_text(&reply(500, &[], "é".repeat(100_000)));
        assert!(
            long.len() <= 1_100 && long.ends_with("bytes more)"),
            "{long}"
        );
        let bytes: Vec<u8> = (0..=255).cycle().take(70_000).collect();
        assert!(page_text(&reply(500, &[], bytes)).len() <= 1_100);
    }

    #[test]
    fn clock_difference_has_a_hint() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        let theirs = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let reply = reply(401, &[("date", date)], "");
        let far = Duration::from_secs(900);
        let hint = |now| clock_hint(&reply.headers, now);
        assert_eq!(hint(theirs), None);
        assert_eq!(hint(theirs + Duration::from_secs(600)), None);
        assert_eq!(
            hint(theirs + far).as_deref(),
            Some("the gateway's clock is 900 s ahead of the upstream's: set the clock")
        );
        assert_eq!(
            hint(theirs - far).as_deref(),
            Some("the gateway's clock is 900 s behind the upstream's: set the clock")
        );
    }
}
