//! The well-known types. Their field numbers are written as encoded tags.

use super::super::token::{self, Number};
use super::super::wire::{self, MAX_DEPTH};
use super::super::{any_is_plain, any_type, time};
use super::canonical::{Keys, is_complete_time};
use super::numbers::write_bits;
use super::{DecodeResult, Reader};
use crate::schema::{Field, Form, Kind, MaskNames, Shape};

impl Reader<'_, '_> {
    pub(super) fn structure(&mut self, depth: u32) -> DecodeResult {
        if self.peek() != b'{' {
            return self.expected("an object");
        }
        if self.opened(b'}') {
            return Ok(());
        }
        let mut keys = self.keys();
        loop {
            self.structure_entry(depth, &mut keys)?;
            if !self.more(b'}')? {
                return Ok(());
            }
        }
    }

    /// Decodes one member of a Struct.
    pub(super) fn structure_entry(&mut self, depth: u32, keys: &mut Keys) -> DecodeResult {
        self.room(0)?;
        // The tags of Struct.fields, and of key and value of an entry.
        self.out.push(0x0a);
        let entry = wire::open(self.out);
        self.out.push(0x0a);
        if self.peek() != b'"' {
            return self.expected("a member name in quotes");
        }
        let key_start = self.out.len();
        self.string_out()?;
        self.colon()?;
        self.check_key(key_start, keys)?;
        self.out.push(0x12);
        let value = wire::open(self.out);
        self.any_json(depth + 2)?;
        wire::close(self.out, value);
        wire::close(self.out, entry);
        Ok(())
    }

    pub(super) fn any_list(&mut self, depth: u32) -> DecodeResult {
        if self.peek() != b'[' {
            return self.expected("an array");
        }
        if self.opened(b']') {
            return Ok(());
        }
        loop {
            self.out.push(0x0a);
            let value = wire::open(self.out);
            self.any_json(depth + 1)?;
            wire::close(self.out, value);
            if !self.more(b']')? {
                return Ok(());
            }
        }
    }

    pub(super) fn any_json(&mut self, depth: u32) -> DecodeResult {
        if depth > MAX_DEPTH || (depth == MAX_DEPTH && matches!(self.peek(), b'{' | b'[')) {
            return self.fault(format!("nested deeper than {MAX_DEPTH} messages"));
        }
        self.room(0)?;
        match self.peek() {
            b'"' => {
                self.out.push(0x1a);
                self.string_out()
            }
            b'{' => {
                self.out.push(0x2a);
                let start = wire::open(self.out);
                self.structure(depth + 1)?;
                wire::close(self.out, start);
                Ok(())
            }
            b'[' => {
                self.out.push(0x32);
                let start = wire::open(self.out);
                self.any_list(depth + 1)?;
                wire::close(self.out, start);
                Ok(())
            }
            b't' | b'f' => {
                let value = self.boolean()?;
                self.out.extend_from_slice(&[0x20, value.into()]);
                Ok(())
            }
            b'n' => {
                self.null()?;
                self.out.extend_from_slice(&[0x08, 0]);
                Ok(())
            }
            b'N' | b'I' if self.schema.canonical => self.expected("a JSON value"),
            b'-' | b'0'..=b'9' | b'N' | b'I' => {
                let at = self.pos;
                let number = self.any_number()?;
                let is_special = token::special_value(number).is_some();
                let (value, exact) = match token::double(number) {
                    Ok(read) if !is_special => read,
                    // A Value has no such number: its text says what it is.
                    _ if self.schema.canonical => return self.inexact_number(at),
                    _ => {
                        self.is_inexact(at);
                        self.room(number.len())?;
                        wire::write_bytes(self.out, 3, number);
                        return Ok(());
                    }
                };
                if !exact {
                    if self.schema.canonical {
                        return self.inexact_number(at);
                    }
                    self.is_inexact(at);
                }
                self.out.push(0x11);
                self.out.extend_from_slice(&value.to_le_bytes());
                Ok(())
            }
            _ => self.expected("a JSON value"),
        }
    }

    pub(super) fn timestamp(&mut self, form: Form) -> DecodeResult<bool> {
        let at = self.pos;
        let millis = |text| match token::integer(text) {
            Number::Integer(value) => i64::try_from(value).ok().and_then(time::Seconds::of_millis),
            _ => None,
        };
        let time = match self.peek() {
            b'"' => {
                let content = self.string()?;
                let text = content.trim_ascii();
                if text.is_empty() && !self.schema.canonical {
                    return Ok(false);
                }
                // A number with more digits than a year.
                let epoch = form == Form::EpochMillis && token::number(text, 0) == Ok(text.len());
                match epoch {
                    true => millis(text),
                    false if self.schema.canonical && !is_complete_time(&content) => None,
                    false => str::from_utf8(text).ok().and_then(time::read_timestamp),
                }
            }
            b'-' | b'0'..=b'9' if form == Form::EpochMillis => millis(self.number()?),
            _ => None,
        };
        let Some(time) = time else {
            self.pos = at;
            return self.expected("a time such as `2015-01-31T15:12:36Z`");
        };
        self.seconds(time);
        Ok(true)
    }

    pub(super) fn duration(&mut self) -> DecodeResult<bool> {
        let at = self.pos;
        let mut duration = None;
        if self.peek() == b'"' {
            let content = self.string()?;
            if content.trim_ascii().is_empty() && !self.schema.canonical {
                return Ok(false);
            }
            duration = str::from_utf8(&content).ok().and_then(time::read_duration);
        }
        let Some(duration) = duration else {
            self.pos = at;
            return self.expected("a duration such as `3.5s`");
        };
        self.seconds(duration);
        Ok(true)
    }

    fn seconds(&mut self, time: time::Seconds) {
        if time.seconds != 0 {
            wire::write_uint(self.out, 1, time.seconds as u64);
        }
        if time.nanos != 0 {
            wire::write_uint(self.out, 2, i64::from(time.nanos) as u64);
        }
    }

    pub(super) fn mask(&mut self, names: &MaskNames) -> DecodeResult {
        let content = self.string()?;
        // The text is UTF-8, and escapes decode to UTF-8.
        let paths = String::from_utf8_lossy(&content);
        for path in paths.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let path = time::read_mask_path(path, |name| names.get(name));
            self.room(path.len())?;
            wire::write_bytes(self.out, 1, path.as_bytes());
        }
        Ok(())
    }

    /// Decodes a wrapper; zero is a value. An empty string is unset for a number.
    pub(super) fn wrapper(&mut self, field: &Field) -> DecodeResult<bool> {
        let start = self.out.len();
        match field.kind {
            Kind::String | Kind::Bytes => {
                if !self.element(field, false, 0)? {
                    self.out.truncate(start);
                }
            }
            kind => match self.scalar(kind)? {
                None => return Ok(false),
                Some(0) => {}
                Some(bits) => {
                    field.tag.write(self.out);
                    write_bits(self.out, kind, bits);
                }
            },
        }
        Ok(true)
    }

    pub(super) fn any(&mut self, depth: u32) -> DecodeResult {
        if self.peek() != b'{' {
            return self.expected("an object");
        }
        let start = self.pos;
        let ([at, value], end) = self.find([b"@type", b"value"])?;
        let Some(at) = at else {
            if self.opened(b'}') {
                return Ok(());
            }
            self.pos = start;
            return self.expected("an object with `@type`");
        };
        self.pos = at;
        let url = self.string()?;
        let Some(id) = any_type(self.schema, &url) else {
            self.pos = at;
            return self.expected("a known type");
        };
        self.room(url.len())?;
        wire::write_bytes(self.out, 1, &url);
        self.out.push(0x12);
        let content = wire::open(self.out);
        if any_is_plain(self.schema.message(id)) {
            self.pos = start;
            self.any_at = Some(start);
            self.message(id, Form::Plain, depth + 1)?;
        } else if let Some(value) = value {
            self.pos = value;
            if !self.is_null() || self.schema.message(id).shape == Shape::Value {
                let length = self.out.len();
                if !self.message(id, Form::Plain, depth + 1)? {
                    self.out.truncate(length);
                }
            }
        }
        wire::close(self.out, content);
        self.pos = end;
        Ok(())
    }
}
