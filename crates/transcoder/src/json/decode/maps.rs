//! Map fields.

use super::super::token;
use super::super::wire::{self, MAX_DEPTH};
use super::numbers::{bits_of_text, write_bits};
use super::{DecodeResult, Reader};
use crate::schema::{Field, Kind};

impl Reader<'_, '_> {
    pub(super) fn map(&mut self, field: &Field, depth: u32) -> DecodeResult {
        if self.peek() != b'{' {
            return self.expected("an object");
        }
        let Kind::Message(entry) = field.kind else {
            return self.fault("the map has no entry type");
        };
        let [key, value] = &self.schema.message(entry).fields[..] else {
            return self.fault("the map has no keys and values");
        };
        if depth >= MAX_DEPTH {
            return self.fault(format!("nested deeper than {MAX_DEPTH} messages"));
        }
        if self.opened(b'}') {
            return Ok(());
        }
        let mut keys = self.keys();
        loop {
            self.room(0)?;
            let entry_start = self.out.len();
            field.tag.write(self.out);
            let entry = wire::open(self.out);
            let key_start = self.out.len();
            self.map_key(key)?;
            self.colon()?;
            self.check_key(key_start, &mut keys)?;
            let start = self.out.len();
            let mut is_overflow = false;
            if self.is_null() && !self.is_any_json(value) {
                if self.schema.canonical {
                    return self.expected("a value");
                }
                self.null()?;
            } else {
                let at = self.pos;
                let set = match value.kind {
                    Kind::Message(id) => {
                        value.tag.write(self.out);
                        let content = wire::open(self.out);
                        let set = match &field.mask_names {
                            Some(names) => self.mask(names).map(|()| true)?,
                            None => self.message(id, field.form, depth + 2)?,
                        };
                        wire::close(self.out, content);
                        set
                    }
                    _ => self.element(value, false, depth + 1)?,
                };
                if !set {
                    self.out.truncate(start);
                    is_overflow = self.overflow(value.kind, at).is_some();
                }
            }
            match is_overflow {
                // As a field, which is unset: an entry without a value would be zero.
                true => self.out.truncate(entry_start),
                false => wire::close(self.out, entry),
            }
            if !self.more(b'}')? {
                return Ok(());
            }
        }
    }

    fn map_key(&mut self, key: &Field) -> DecodeResult {
        key.tag.write(self.out);
        if self.peek() != b'"' {
            return self.expected("a member name in quotes");
        }
        if key.kind == Kind::String {
            return self.string_out();
        }
        let at = self.pos;
        let content = self.string()?;
        let bits = match key.kind {
            Kind::Bool => token::boolean(&content).map(u64::from),
            kind => bits_of_text(kind, &content),
        };
        match bits {
            Ok(bits) => write_bits(self.out, key.kind, bits),
            Err(_) => {
                self.pos = at;
                return self.expected(match key.kind {
                    Kind::Bool => "true or false as a name",
                    _ => "an integer as a name",
                });
            }
        }
        Ok(())
    }
}
