//! Fields with the URLs of another field: `FieldRules.urls_of`.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::super::wire::{self, Value};
use super::{DecodeResult, Reader};
use crate::schema::{Field, Message, Segment, UrlPattern};

impl<'t> Reader<'t, '_> {
    /// Reads a text, or the member `href` of an object; none for other values.
    fn url(&mut self) -> DecodeResult<Option<Cow<'t, [u8]>>> {
        if self.peek() == b'"' {
            return self.string().map(Some);
        }
        if self.peek() != b'{' {
            return self.skip().map(|()| None);
        }
        let ([at], end) = self.find([b"href"])?;
        let url = match at.filter(|at| self.text[*at] == b'"') {
            Some(at) => {
                self.pos = at;
                Some(self.string()?)
            }
            None => None,
        };
        self.pos = end;
        Ok(url)
    }

    /// Writes the URLs in the value at `at` to the fields that have them.
    pub(super) fn urls(&mut self, message: &Message, field: &Field, at: usize) -> DecodeResult {
        let end = std::mem::replace(&mut self.pos, at);
        let mut urls = Vec::new();
        if self.peek() != b'[' {
            urls.extend(self.url()?);
        } else if !self.opened(b']') {
            loop {
                urls.extend(self.url()?);
                if !self.more(b']')? {
                    break;
                }
            }
        }
        self.pos = end;
        for index in &field.url_fields {
            let of = &message.fields[usize::from(*index)];
            for url in &urls {
                self.room(url.len())?;
                match &of.url_pattern {
                    None => wire::write_bytes(self.out, of.number, url),
                    Some(pattern) => {
                        let url = str::from_utf8(url).unwrap_or_default();
                        if let Some(found) = segments(pattern, url) {
                            wire::write_bytes(self.out, of.number, &found);
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// Returns the message of a URL; none for a URL of another form.
fn segments(pattern: &UrlPattern, url: &str) -> Option<Vec<u8>> {
    let path = &url[..url.find(['?', '#']).unwrap_or(url.len())];
    let mut found = path.trim().trim_end_matches('/').rsplit('/');
    let mut message = Vec::new();
    for segment in pattern.0.iter().rev() {
        let text = percent_decode_str(found.next()?).decode_utf8().ok()?;
        match segment {
            Segment::Literal(literal) if **literal == *text => {}
            Segment::Text(number) if !text.is_empty() => {
                wire::write_bytes(&mut message, *number, text.as_bytes());
            }
            Segment::Integer(number) => {
                let value = text.parse::<i64>().ok()?;
                wire::write_value(&mut message, *number, Value::Varint(value as u64));
            }
            _ => return None,
        }
    }
    Some(message)
}
