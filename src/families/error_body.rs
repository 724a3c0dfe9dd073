//! Reading error replies: what the fault readers of all families share. Nothing
//! here fails: a body that cannot be read is one without words.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header};
use serde_json::Value;

use crate::error::{cut, head};
use drawbridge_transcoder::call::Reply;

/// The longest error body that is read as JSON, in bytes.
const MAX_JSON: usize = 256 * 1024;
/// How much of a body that is not JSON is looked at for words, in bytes.
const MAX_PAGE: usize = 16 * 1024;
/// The longest message kept of an upstream's words, in bytes.
const MAX_MESSAGE: usize = 1024;
/// The longest `Retry-After` that is believed.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(86_400);
/// The difference of clocks from which on it is worth a word. Signed requests
/// and tokens are refused beyond about 15 minutes.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(600);

/// The body as JSON, if it is an object or an array of a sensible size. Words that
/// are not UTF-8 do not hide what stands beside them: a code, an id.
pub(crate) fn json(reply: &Reply) -> Option<Value> {
    if reply.body.len() > MAX_JSON {
        return None;
    }
    let value: Value = serde_json::from_str(&String::from_utf8_lossy(&reply.body)).ok()?;
    (value.is_object() || value.is_array()).then_some(value)
}

/// The first of these members that is text or a number, as text. Empty texts do
/// not count.
pub(crate) fn member(value: &Value, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| match value.get(*name)? {
        Value::String(text) if !text.trim().is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    })
}

/// Words of an upstream that writes no HTML, as a message: `<` is a `<`. No
/// traceback, at most 1 KiB.
pub(crate) fn verbatim(text: &str) -> String {
    cut(untraced(text).trim(), MAX_MESSAGE)
}

fn untraced(text: &str) -> &str {
    text.find("Traceback (most recent call last)")
        .map_or(text, |at| &text[..at])
}

/// Words of the upstream as a message: no tags, no traceback, at most 1 KiB.
pub(crate) fn message(text: &str) -> String {
    let text = untraced(text);
    let text = if text.contains('<') && text.contains('>') {
        plain(head(text, MAX_PAGE))
    } else {
        text.trim().to_owned()
    };
    cut(&text, MAX_MESSAGE)
}

/// The words of a body that is not the JSON it should be: text, or a page of HTML
/// without its tags.
pub(crate) fn page(reply: &Reply) -> String {
    let body = &reply.body[..reply.body.len().min(MAX_PAGE)];
    let text = String::from_utf8_lossy(body);
    let trimmed = text.trim();
    // Cut-off or alien JSON is for programs; `null` and `{}` say nothing.
    if trimmed == "null" || trimmed.starts_with(['{', '[']) {
        return String::new();
    }
    // A body in the middle of which a multi-byte character was cut.
    message(trimmed.trim_end_matches('\u{fffd}'))
}

/// Text without tags, scripts and styles; white space folded.
fn plain(html: &str) -> String {
    let mut text = String::with_capacity(html.len().min(MAX_MESSAGE));
    let mut rest = html;
    while let Some(open) = rest.find('<') {
        text.push_str(&rest[..open]);
        rest = &rest[open..];
        // `a < b` is no tag.
        let is_tag = rest[1..].starts_with(|c: char| c.is_ascii_alphabetic() || "/!?".contains(c));
        if !is_tag {
            text.push('<');
            rest = &rest[1..];
            continue;
        }
        text.push(' ');
        let end = ["script", "style", "head"]
            .into_iter()
            .find(|name| opens(rest, name))
            .and_then(|name| find_close(rest, name));
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

/// Whether `html` begins with the start tag of this element.
fn opens(html: &str, name: &str) -> bool {
    let Some(tag) = html.get(1..1 + name.len()) else {
        return false;
    };
    tag.eq_ignore_ascii_case(name) && html[1 + name.len()..].starts_with(['>', ' ', '\n', '\t'])
}

/// Where the end tag of this element ends.
fn find_close(html: &str, name: &str) -> Option<usize> {
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

/// `Retry-After`: seconds, or an HTTP date seen from `now`. At most a day.
/// Source: RFC 9110, section 10.2.3.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if text.bytes().all(|b| b.is_ascii_digit()) {
        Duration::from_secs(text.parse().ok()?)
    } else {
        let at = httpdate::parse_http_date(text).ok()?;
        at.duration_since(now).unwrap_or_default()
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

/// What to say when the reply's `Date` shows that our clock is far off, which
/// makes signatures and tokens be refused.
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

/// `HTTP_404`: the reason where the upstream gives none.
pub(crate) fn http_reason(status: StatusCode) -> String {
    format!("HTTP_{}", status.as_u16())
}

/// The metadata of a fault, less what is empty.
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

    /// A reply for tests.
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
            room: Default::default(),
        }
    }

    /// A recorded exchange's response, or one of its variants.
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
    fn words_of_a_page() {
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
        ] {
            assert_eq!(page(&reply(500, &[], body)), want, "{body}");
        }
        let long = page(&reply(500, &[], "é".repeat(100_000)));
        assert!(
            long.len() <= 1_100 && long.ends_with("bytes more)"),
            "{long}"
        );
        let bytes: Vec<u8> = (0..=255).cycle().take(70_000).collect();
        assert!(page(&reply(500, &[], bytes)).len() <= 1_100);
    }

    #[test]
    fn when_to_try_again() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770);
        for (text, want) in [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("99999999999", Some(86_400)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(7)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("", None),
            ("soon", None),
            ("-1", None),
            ("+5", None),
            ("1.5", None),
            ("99999999999999999999999", None),
        ] {
            let reply = reply(503, &[("retry-after", text)], "");
            let want = want.map(Duration::from_secs);
            assert_eq!(retry_after(&reply.headers, now), want, "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn clocks() {
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
