//! Repeated fields: arrays, and lists in one string, separated by commas.

use super::super::{print, token, wire};
use super::numbers::{bits_of_text, write_bits};
use super::{DecodeResult, Reader};
use crate::schema::{Field, Form, Kind, Message, Shape};

impl Reader<'_, '_> {
    pub(super) fn list(&mut self, message: &Message, field: &Field, depth: u32) -> DecodeResult {
        if field.form == Form::CommaList && self.peek() == b'"' {
            return self.comma_list(message, field);
        }
        if self.peek() != b'[' {
            return self.expected("an array");
        }
        let start = self.out.len();
        let packed = field.kind.is_packable();
        let mut content = 0;
        if packed {
            field.packed_tag.write(self.out);
            content = wire::open(self.out);
        }
        // Positions of the elements, for a raw field.
        let mut places = Vec::new();
        if !self.opened(b']') {
            loop {
                let at = self.pos;
                if packed {
                    self.room(0)?;
                    let bits = match self.scalar(field.kind)? {
                        Some(bits) => bits,
                        None => self.overflow(field.kind, at).unwrap_or(0),
                    };
                    write_bits(self.out, field.kind, bits);
                } else if self.is_null() && self.is_object(field) && !self.schema.canonical {
                    // No item: an empty one would be invented.
                    self.null()?;
                    self.found.has_null_item |= depth == 0;
                } else {
                    self.list_element(field, depth)?;
                }
                if field.raw.is_some() {
                    places.push((at, self.pos));
                }
                if !self.more(b']')? {
                    break;
                }
            }
        }
        if packed {
            if self.out.len() == content {
                self.out.truncate(start);
            } else {
                wire::close(self.out, content);
            }
        }
        if let Some(raw) = field.raw {
            let end = self.pos;
            for (at, end) in places {
                self.raw(&message.fields[usize::from(raw)], at, end)?;
            }
            self.pos = end;
        }
        Ok(())
    }

    /// Decodes an element that is not packed; an unset one becomes the default.
    pub(super) fn list_element(&mut self, field: &Field, depth: u32) -> DecodeResult {
        let start = self.out.len();
        let set = if self.is_null() && !self.is_any_json(field) {
            if self.schema.canonical {
                return self.expected("an element");
            }
            self.null()?;
            false
        } else {
            self.element(field, true, depth)?
        };
        if !set {
            self.out.truncate(start);
            field.tag.write(self.out);
            self.out.push(0);
        }
        Ok(())
    }

    pub(super) fn is_any_json(&self, field: &Field) -> bool {
        match field.kind {
            Kind::Message(id) => self.schema.message(id).shape == Shape::Value,
            _ => false,
        }
    }

    fn is_object(&self, field: &Field) -> bool {
        match field.kind {
            Kind::Message(id) => self.schema.message(id).shape == Shape::Object,
            _ => false,
        }
    }

    /// Decodes a list in one string; an empty string has no elements.
    pub(super) fn comma_list(&mut self, message: &Message, field: &Field) -> DecodeResult {
        let at = self.pos;
        let content = self.string()?;
        let end = self.pos;
        let texts = || content.split(|&b| b == b',').map(<[u8]>::trim_ascii);
        if content.trim_ascii().is_empty() {
            return Ok(());
        }
        for text in texts() {
            self.room(text.len())?;
            field.tag.write(self.out);
            let read = match field.kind {
                Kind::String => {
                    wire::write_varint(self.out, text.len() as u64);
                    self.out.extend_from_slice(text);
                    continue;
                }
                Kind::Enum(id) => Ok(self.enum_bits(id, text).unwrap_or(0)),
                Kind::Bool => token::boolean(text).map(u64::from),
                Kind::Bytes => {
                    let start = wire::open(self.out);
                    if print::read_base64(self.out, text) {
                        wire::close(self.out, start);
                        continue;
                    }
                    Err("")
                }
                kind => bits_of_text(kind, text),
            };
            match read {
                Ok(bits) => write_bits(self.out, field.kind, bits),
                Err(_) => {
                    self.pos = at;
                    return self.fault("an element of the comma list cannot be read");
                }
            }
        }
        if let Some(raw) = field.raw {
            for text in texts() {
                self.room(text.len())?;
                message.fields[usize::from(raw)].tag.write(self.out);
                wire::write_varint(self.out, text.len() as u64);
                self.out.extend_from_slice(text);
            }
        }
        self.pos = end;
        Ok(())
    }
}
