//! The position in the text, and the tokens at it.

use std::borrow::Cow;

use super::super::wire;
use super::super::{scan, token};
use super::{DecodeFailure, DecodeResult, Reader};
use crate::output_limit::{SHORT_VALUE, has_room};

impl<'t> Reader<'t, '_> {
    #[cold]
    pub(super) fn fault<T>(&self, problem: impl Into<String>) -> DecodeResult<T> {
        Err(Box::new(DecodeFailure {
            at: self.pos,
            inner: String::new(),
            problem: problem.into(),
        }))
    }

    /// Makes room for so many bytes and a tag, or fails because of the limit of the
    /// conversion.
    #[inline]
    pub(super) fn room(&mut self, bytes: usize) -> DecodeResult {
        match has_room(self.out, bytes + SHORT_VALUE) {
            true => Ok(()),
            false => self.fault("the message is too long"),
        }
    }

    #[cold]
    pub(super) fn expected<T>(&self, what: &str) -> DecodeResult<T> {
        self.fault(format!("expected {what}, found {}", self.found()))
    }

    /// Returns the kind of the next token. Never its text, which can be a secret.
    pub(super) fn found(&self) -> &'static str {
        let Some(byte) = self.text.get(self.pos) else {
            return "the end of the text";
        };
        match byte {
            b'{' => "a JSON object",
            b'[' => "a JSON array",
            b'"' => "a JSON string",
            b'-' | b'0'..=b'9' => "a JSON number",
            b'}' => "`}`",
            b']' => "`]`",
            b',' => "`,`",
            b':' => "`:`",
            b't' | b'f' | b'n' => match &self.text[self.pos..] {
                [b't', b'r', b'u', b'e', ..] => "true",
                [b'f', b'a', b'l', b's', b'e', ..] => "false",
                [b'n', b'u', b'l', b'l', ..] => "null",
                _ => "invalid JSON",
            },
            _ => "invalid JSON",
        }
    }

    #[inline]
    pub(super) fn peek(&self) -> u8 {
        self.text.get(self.pos).copied().unwrap_or(0)
    }

    #[inline]
    pub(super) fn space(&mut self) {
        // Compact JSON has no space, and formatted JSON mostly has one.
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.text.get(self.pos) {
            self.pos += 1;
        }
    }

    #[inline]
    pub(super) fn is_null(&self) -> bool {
        self.peek() == b'n'
    }

    pub(super) fn null(&mut self) -> DecodeResult {
        self.literal(b"null")
    }

    pub(super) fn literal(&mut self, literal: &[u8]) -> DecodeResult {
        if !self.text[self.pos..].starts_with(literal) {
            return self.expected("a JSON value");
        }
        self.pos += literal.len();
        Ok(())
    }

    pub(super) fn boolean(&mut self) -> DecodeResult<bool> {
        let value = self.peek() == b't';
        self.literal(if value { b"true" } else { b"false" })?;
        Ok(value)
    }

    /// After a member or an element: returns whether another one follows.
    #[inline]
    pub(super) fn more(&mut self, close: u8) -> DecodeResult<bool> {
        self.space();
        let byte = self.peek();
        if byte == b',' {
            self.pos += 1;
            self.space();
            Ok(true)
        } else if byte == close {
            self.pos += 1;
            Ok(false)
        } else {
            self.expected(if close == b'}' {
                "`,` or `}`"
            } else {
                "`,` or `]`"
            })
        }
    }

    /// After an opening bracket: returns whether it is closed at once.
    #[inline]
    pub(super) fn opened(&mut self, close: u8) -> bool {
        self.pos += 1;
        self.space();
        let empty = self.peek() == close;
        self.pos += usize::from(empty);
        empty
    }

    #[inline]
    pub(super) fn colon(&mut self) -> DecodeResult {
        self.space();
        if self.peek() != b':' {
            return self.expected("`:`");
        }
        self.pos += 1;
        self.space();
        Ok(())
    }

    /// Reads the content of a string.
    #[inline]
    pub(super) fn string(&mut self) -> DecodeResult<Cow<'t, [u8]>> {
        if self.peek() != b'"' {
            return self.expected("a string");
        }
        let text = self.text;
        let start = self.pos + 1;
        let end = start + scan::plain(&text[start..]).0;
        if text.get(end) == Some(&b'"') {
            self.pos = end + 1;
            return Ok(Cow::Borrowed(&text[start..end]));
        }
        let mut content = Vec::new();
        self.pos = token::unescape(text, start, &mut content).or_else(|e| self.bad(e))?;
        self.check_surrogates(start)?;
        Ok(Cow::Owned(content))
    }

    /// Checks the string between `start` and here: in canonical JSON an unpaired surrogate must
    /// not become another character.
    fn check_surrogates(&mut self, start: usize) -> DecodeResult {
        let content = &self.text[start..self.pos - 1];
        match token::unpaired_surrogate(content) {
            Some(at) if self.schema.canonical => {
                self.bad((start + at, "an unpaired surrogate in a string"))
            }
            _ => Ok(()),
        }
    }

    #[cold]
    pub(super) fn bad<T>(&mut self, (at, problem): (usize, &'static str)) -> DecodeResult<T> {
        self.pos = at;
        self.fault(problem)
    }

    /// Writes the content of a string with its length prefix.
    #[inline]
    pub(super) fn string_out(&mut self) -> DecodeResult {
        let start = self.pos + 1;
        let end = start + scan::plain(&self.text[start..]).0;
        if self.text.get(end) == Some(&b'"') {
            self.room(end - start)?;
            let content = &self.text[start..end];
            wire::write_varint(self.out, content.len() as u64);
            self.out.extend_from_slice(content);
            self.pos = end + 1;
            return Ok(());
        }
        // Unescaped, a text is never longer. Where it ends is not known yet.
        self.room(self.text.len() - start)?;
        let begin = wire::open(self.out);
        self.pos = token::unescape(self.text, start, self.out).or_else(|e| self.bad(e))?;
        self.check_surrogates(start)?;
        wire::close(self.out, begin);
        Ok(())
    }

    pub(super) fn number(&mut self) -> DecodeResult<&'t [u8]> {
        let start = self.pos;
        self.pos = token::number(self.text, start).or_else(|e| self.bad(e))?;
        Ok(&self.text[start..self.pos])
    }

    /// Reads a number, also one that is not JSON: `NaN`, `Infinity`, `-Infinity`.
    pub(super) fn any_number(&mut self) -> DecodeResult<&'t [u8]> {
        match token::special(self.text, self.pos) {
            None => self.number(),
            Some(end) => {
                let start = std::mem::replace(&mut self.pos, end);
                Ok(&self.text[start..end])
            }
        }
    }

    /// Skips a value of any type.
    pub(super) fn skip(&mut self) -> DecodeResult {
        self.pos = token::skip(self.text, self.pos).or_else(|e| self.bad(e))?;
        Ok(())
    }
}
