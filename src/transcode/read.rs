//! JSON text to protobuf bytes.
//!
//! Problems are kept as a place in the text; their path is found by walking the
//! text again, so that nothing is spent on paths while all is well.

use std::borrow::Cow;
use std::collections::HashSet;

use super::bits::Bits;
use super::token::{self, Number};
use super::wire::{self, MAX_DEPTH};
use super::{excerpt, print, scan, time};
use crate::contract::schema::{
    Cardinality, Field, FieldIndex, Form, Kind, Message, MessageId, Schema, Shape,
};

/// The most paths that `Notes::inexact` names.
const MAX_NOTES: usize = 16;

/// A problem at a place in the text. Boxed, so that success is told in a register.
#[derive(Debug)]
pub(super) struct Fault {
    pub at: usize,
    /// The path within a text that stands in a string.
    pub inner: String,
    pub problem: String,
}

pub(super) type Outcome<T = ()> = Result<T, Box<Fault>>;

/// Reads one text.
pub(super) struct Reader<'t, 'o> {
    schema: &'o Schema,
    text: &'t [u8],
    pos: usize,
    out: &'o mut Vec<u8>,
    /// Integers that were rounded: where, and the path within a text there.
    pub inexact: Vec<(usize, String)>,
}

impl<'t, 'o> Reader<'t, 'o> {
    pub fn new(schema: &'o Schema, text: &'t [u8], out: &'o mut Vec<u8>) -> Self {
        Self {
            schema,
            text,
            pos: 0,
            out,
            inexact: Vec::new(),
        }
    }

    /// Reads the whole text as a message; false if it is empty or `null`.
    pub fn document(&mut self, id: MessageId, depth: u32) -> Outcome<bool> {
        self.whole(|reader| {
            if reader.is_null() && reader.schema.message(id).shape != Shape::Value {
                return reader.null().map(|()| false);
            }
            reader.message(id, Form::Plain, depth)
        })
    }

    /// Reads the whole text as the value of one field; false if it is empty or
    /// unset.
    pub fn field_document(&mut self, message: &Message, index: FieldIndex) -> Outcome<bool> {
        self.whole(|reader| {
            let field = &message.fields[usize::from(index)];
            if reader.is_null() && !reader.keeps_null(field) {
                return reader.null().map(|()| false);
            }
            reader.field(message, field, 0).map(|()| true)
        })
    }

    fn whole(&mut self, read: impl FnOnce(&mut Self) -> Outcome<bool>) -> Outcome<bool> {
        if self.text.starts_with(b"\xef\xbb\xbf") {
            self.pos = 3;
        }
        if !self.text.is_ascii()
            && let Err(e) = str::from_utf8(self.text)
        {
            self.pos = e.valid_up_to();
            return self.fault("the text is not UTF-8");
        }
        self.space();
        if self.pos == self.text.len() {
            return Ok(false);
        }
        let set = read(self)?;
        self.space();
        match self.pos == self.text.len() {
            true => Ok(set),
            false => self.fault("there is more behind the end"),
        }
    }

    #[cold]
    fn fault<T>(&self, problem: impl Into<String>) -> Outcome<T> {
        Err(Box::new(Fault {
            at: self.pos,
            inner: String::new(),
            problem: problem.into(),
        }))
    }

    #[cold]
    fn expected<T>(&self, what: &str) -> Outcome<T> {
        self.fault(format!("expected {what}, found {}", self.found()))
    }

    /// What kind of thing stands here. Never its text, which may be a secret.
    fn found(&self) -> &'static str {
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
                _ => "no JSON",
            },
            _ => "no JSON",
        }
    }

    #[inline]
    fn peek(&self) -> u8 {
        self.text.get(self.pos).copied().unwrap_or(0)
    }

    #[inline]
    fn space(&mut self) {
        // Compact texts have none, and readable ones have one at most.
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.text.get(self.pos) {
            self.pos += 1;
        }
    }

    #[inline]
    fn is_null(&self) -> bool {
        self.peek() == b'n'
    }

    fn null(&mut self) -> Outcome {
        self.literal(b"null")
    }

    fn literal(&mut self, literal: &[u8]) -> Outcome {
        if !self.text[self.pos..].starts_with(literal) {
            return self.expected("a JSON value");
        }
        self.pos += literal.len();
        Ok(())
    }

    fn boolean(&mut self) -> Outcome<bool> {
        let value = self.peek() == b't';
        self.literal(if value { b"true" } else { b"false" })?;
        Ok(value)
    }

    /// Behind a member or an element: true if there is another one.
    #[inline]
    fn more(&mut self, close: u8) -> Outcome<bool> {
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

    /// Behind an opening bracket: true if it is closed at once.
    #[inline]
    fn opened(&mut self, close: u8) -> bool {
        self.pos += 1;
        self.space();
        let empty = self.peek() == close;
        self.pos += usize::from(empty);
        empty
    }

    #[inline]
    fn colon(&mut self) -> Outcome {
        self.space();
        if self.peek() != b':' {
            return self.expected("`:`");
        }
        self.pos += 1;
        self.space();
        Ok(())
    }

    /// A string's content.
    #[inline]
    fn string(&mut self) -> Outcome<Cow<'t, [u8]>> {
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
        Ok(Cow::Owned(content))
    }

    #[cold]
    fn bad<T>(&mut self, (at, problem): (usize, &'static str)) -> Outcome<T> {
        self.pos = at;
        self.fault(problem)
    }

    /// Writes a string's content with its length in front.
    #[inline]
    fn string_out(&mut self) -> Outcome {
        let start = self.pos + 1;
        let end = start + scan::plain(&self.text[start..]).0;
        if self.text.get(end) == Some(&b'"') {
            let content = &self.text[start..end];
            wire::write_varint(self.out, content.len() as u64);
            self.out.extend_from_slice(content);
            self.pos = end + 1;
            return Ok(());
        }
        let begin = wire::open(self.out);
        self.pos = token::unescape(self.text, start, self.out).or_else(|e| self.bad(e))?;
        wire::close(self.out, begin);
        Ok(())
    }

    fn number(&mut self) -> Outcome<&'t [u8]> {
        let start = self.pos;
        self.pos = token::number(self.text, start).or_else(|e| self.bad(e))?;
        Ok(&self.text[start..self.pos])
    }

    /// Passes over a value of any type.
    fn skip(&mut self) -> Outcome {
        self.pos = token::skip(self.text, self.pos).or_else(|e| self.bad(e))?;
        Ok(())
    }

    /// Reads a value as the fields of a message; false if it says that there is
    /// none. `depth` is how many messages it stands in.
    fn message(&mut self, id: MessageId, form: Form, depth: u32) -> Outcome<bool> {
        if depth > MAX_DEPTH {
            return self.fault(format!("nested deeper than {MAX_DEPTH} messages"));
        }
        if form == Form::JsonText && self.peek() == b'"' {
            return self.json_text(id, depth);
        }
        let message = self.schema.message(id);
        match message.shape {
            Shape::Object => self.object(message, depth)?,
            Shape::Struct => self.structure(depth)?,
            Shape::Value => self.any_json(depth)?,
            Shape::ListValue => self.any_list(depth)?,
            Shape::Timestamp => return self.timestamp(form),
            Shape::Duration => return self.duration(),
            Shape::FieldMask => self.mask()?,
            Shape::Wrapper => return self.wrapper(&message.fields[0]),
            Shape::Any => self.any(depth)?,
        }
        Ok(true)
    }

    /// A message as the JSON in a string.
    fn json_text(&mut self, id: MessageId, depth: u32) -> Outcome<bool> {
        let at = self.pos;
        let content = self.string()?;
        let mut inner = Reader::new(self.schema, &content, self.out);
        let set = inner.document(id, depth).map_err(|fault| {
            Box::new(Fault {
                at,
                inner: path_of(&content, &fault),
                problem: fault.problem,
            })
        })?;
        for (place, deeper) in inner.inexact {
            if self.inexact.len() < MAX_NOTES {
                self.inexact
                    .push((at, join(path_at(&content, place), &deeper)));
            }
        }
        Ok(set)
    }

    fn object(&mut self, message: &Message, depth: u32) -> Outcome {
        match (self.peek(), message.bare_array, &message.unwrap) {
            (b'{', _, None) => self.members(message, depth),
            (b'{', _, Some(member)) => {
                let ([found], end) = self.find([member.as_bytes()])?;
                match found.and_then(|at| self.object_at(at)) {
                    None => self.members(message, depth),
                    Some(at) => {
                        self.pos = at;
                        self.members(message, depth)?;
                        self.pos = end;
                        Ok(())
                    }
                }
            }
            (b'[', Some(index), _) => {
                self.list(message, &message.fields[usize::from(index)], depth)
            }
            (b'"', _, _) => match message.bare_text {
                Some(index) => self.field(message, &message.fields[usize::from(index)], depth),
                None => self.expected("an object"),
            },
            _ => self.expected("an object"),
        }
    }

    /// Where an object stands that is the value here, or its first element.
    fn object_at(&self, mut at: usize) -> Option<usize> {
        if self.text[at] == b'[' {
            at += 1;
            at += self.text[at..]
                .iter()
                .take_while(|b| b.is_ascii_whitespace())
                .count();
        }
        (self.text.get(at) == Some(&b'{')).then_some(at)
    }

    /// Where the values of these members of the object here are (of the last
    /// ones, should a name come twice), and where the object ends.
    fn find<const N: usize>(&mut self, names: [&[u8]; N]) -> Outcome<([Option<usize>; N], usize)> {
        let start = self.pos;
        let mut found = [None; N];
        if !self.opened(b'}') {
            loop {
                let key = self.string()?;
                self.colon()?;
                for (found, name) in found.iter_mut().zip(names) {
                    if *key == *name {
                        *found = Some(self.pos);
                    }
                }
                self.skip()?;
                if !self.more(b'}')? {
                    break;
                }
            }
        }
        let end = self.pos;
        self.pos = start;
        Ok((found, end))
    }

    fn members(&mut self, message: &Message, depth: u32) -> Outcome {
        let start = self.out.len();
        let mut seen = Bits::default();
        let mut segments: Option<Segments> = None;
        let mut guess = 0;
        if self.opened(b'}') {
            return Ok(());
        }
        loop {
            let at = self.pos;
            let index = self.key(message, guess)?;
            self.colon()?;
            match index.map(|index| (index, &message.fields[usize::from(index)])) {
                None => match message.extras {
                    None => self.skip()?,
                    Some(index) => {
                        self.pos = at;
                        if let Some(segments) = &mut segments {
                            segments.0.push((index, self.out.len() - start));
                        }
                        self.extra(&message.fields[usize::from(index)], depth)?;
                    }
                },
                Some((index, field)) => {
                    guess = usize::from(index) + 1;
                    if self.is_null() && !self.keeps_null(field) {
                        self.null()?;
                    } else {
                        if !seen.insert(index) && segments.is_none() {
                            segments = Some(Segments::of(message, &self.out[start..]));
                        }
                        if let Some(segments) = &mut segments {
                            segments.0.push((index, self.out.len() - start));
                        }
                        self.field(message, field, depth)?;
                    }
                }
            }
            if !self.more(b'}')? {
                break;
            }
        }
        if let Some(segments) = segments {
            segments.keep_last(self.out, start, message.extras);
        }
        Ok(())
    }

    /// Reads a member that has no field into the one that takes such: a part of
    /// its own, since the parts of a message are one.
    fn extra(&mut self, field: &Field, depth: u32) -> Outcome {
        field.tag.write(self.out);
        let start = wire::open(self.out);
        self.structure_entry(depth + 1)?;
        wire::close(self.out, start);
        Ok(())
    }

    /// Reads a member's name: mostly that of the field behind the last one.
    #[inline]
    fn key(&mut self, message: &Message, guess: usize) -> Outcome<Option<FieldIndex>> {
        if let Some(field) = message.fields.get(guess) {
            let quoted = field.quoted();
            let named = field.raw_of.is_none() && !field.extras;
            if named && self.text[self.pos..].starts_with(quoted) {
                self.pos += quoted.len();
                return Ok(Some(guess as FieldIndex));
            }
        }
        let name = self.string()?;
        Ok(message.names.get(&name))
    }

    /// Whether `null` is a value of the field and not its absence.
    fn keeps_null(&self, field: &Field) -> bool {
        let single = matches!(
            field.cardinality,
            Cardinality::Implicit | Cardinality::Explicit
        );
        match field.kind {
            Kind::Message(id) => single && self.schema.message(id).shape == Shape::Value,
            Kind::Enum(id) => single && self.schema.enumeration(id).null,
            _ => false,
        }
    }

    #[inline]
    fn field(&mut self, message: &Message, field: &Field, depth: u32) -> Outcome {
        match field.cardinality {
            Cardinality::Repeated => return self.list(message, field, depth),
            Cardinality::Map => return self.map(field, depth),
            Cardinality::Implicit | Cardinality::Explicit => {}
        }
        let at = self.pos;
        let start = self.out.len();
        let explicit = field.cardinality == Cardinality::Explicit;
        let raw = field.raw.map(|raw| &message.fields[usize::from(raw)]);
        let set = match self.element(field, explicit, depth) {
            // The raw companion keeps what cannot be read as a time.
            Err(_) if raw.is_some() && self.is_time(field) && self.text.get(at) == Some(&b'"') => {
                self.pos = at;
                self.skip()?;
                false
            }
            result => result?,
        };
        if !set {
            self.out.truncate(start);
        }
        match raw {
            Some(raw) => self.raw(raw, at, self.pos),
            None => Ok(()),
        }
    }

    fn is_time(&self, field: &Field) -> bool {
        match field.kind {
            Kind::Message(id) => matches!(
                self.schema.message(id).shape,
                Shape::Timestamp | Shape::Duration
            ),
            _ => false,
        }
    }

    /// Writes the text of a value as the value of its raw companion.
    fn raw(&mut self, raw: &Field, at: usize, end: usize) -> Outcome {
        let start = self.out.len();
        raw.tag.write(self.out);
        match self.text[at] {
            b'"' => {
                self.pos = at;
                self.string_out()?;
            }
            b'n' => self.out.push(0),
            _ => {
                let literal = &self.text[at..end];
                wire::write_varint(self.out, literal.len() as u64);
                self.out.extend_from_slice(literal);
            }
        }
        let empty = self.out.len() == start + raw.tag.as_bytes().len() + 1;
        if empty && raw.cardinality == Cardinality::Implicit {
            self.out.truncate(start);
        }
        self.pos = end;
        Ok(())
    }

    /// Reads one value and writes it with its tag; false, and what was written is
    /// to be cut off, if there is none. A zero is none unless `explicit`.
    #[inline]
    fn element(&mut self, field: &Field, explicit: bool, depth: u32) -> Outcome<bool> {
        field.tag.write(self.out);
        match field.kind {
            Kind::String => {
                if self.peek() == b'"' {
                    let start = self.out.len();
                    self.string_out()?;
                    return Ok(explicit || self.out.len() > start + 1);
                }
                self.literal_text()?;
                Ok(true)
            }
            Kind::Message(id) => {
                let start = wire::open(self.out);
                if !self.message(id, field.form, depth + 1)? {
                    return Ok(false);
                }
                wire::close(self.out, start);
                Ok(true)
            }
            Kind::Bytes => {
                let start = wire::open(self.out);
                let at = self.pos;
                let content = self.string()?;
                if !print::read_base64(self.out, &content) {
                    self.pos = at;
                    return self.expected("base64");
                }
                let empty = self.out.len() == start;
                wire::close(self.out, start);
                Ok(explicit || !empty)
            }
            kind => match self.scalar(kind)? {
                Some(bits) if explicit || bits != 0 => {
                    write_bits(self.out, kind, bits);
                    Ok(true)
                }
                _ => Ok(false),
            },
        }
    }

    /// Writes a number or a bool as the text it is, for a string.
    fn literal_text(&mut self) -> Outcome {
        let start = self.pos;
        match self.peek() {
            b't' | b'f' => drop(self.boolean()?),
            b'-' | b'0'..=b'9' => drop(self.number()?),
            _ => return self.expected("a string"),
        }
        let literal = &self.text[start..self.pos];
        wire::write_varint(self.out, literal.len() as u64);
        self.out.extend_from_slice(literal);
        Ok(())
    }

    /// Reads a number, a bool or an enum: the bits it has on the wire. None for
    /// an empty string and for an unknown text of an enum.
    fn scalar(&mut self, kind: Kind) -> Outcome<Option<u64>> {
        let at = self.pos;
        let read = match self.peek() {
            b'-' | b'0'..=b'9' if kind != Kind::Bool => {
                let number = self.number()?;
                bits(kind, number)
            }
            b't' | b'f' if kind == Kind::Bool => return Ok(Some(self.boolean()?.into())),
            b'"' => {
                let content = self.string()?;
                if let Kind::Enum(id) = kind {
                    let number = str::from_utf8(&content)
                        .ok()
                        .and_then(|text| self.schema.enumeration(id).number(text));
                    return Ok(number.map(|number| i64::from(number) as u64));
                }
                match content.trim_ascii() {
                    b"" => return Ok(None),
                    text if kind == Kind::Bool => token::boolean(text).map(u64::from),
                    text => bits_of_text(kind, text),
                }
            }
            b'n' => {
                self.null()?;
                return Ok(Some(0));
            }
            _ => Err(""),
        };
        read.map(Some).or_else(|problem| {
            self.pos = at;
            let what = match kind {
                Kind::Bool => "true or false",
                Kind::Double | Kind::Float => "a number",
                Kind::Enum(_) => "a text or a number",
                _ => "an integer",
            };
            match problem {
                "" => self.expected(what),
                problem => self.fault(problem),
            }
        })
    }

    fn list(&mut self, message: &Message, field: &Field, depth: u32) -> Outcome {
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
        // Where the elements stand, if a raw companion is to have them.
        let mut places = Vec::new();
        if !self.opened(b']') {
            loop {
                let at = self.pos;
                if packed {
                    let bits = self.scalar(field.kind)?.unwrap_or(0);
                    write_bits(self.out, field.kind, bits);
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

    /// An element that is not packed; one that says there is none is a default.
    fn list_element(&mut self, field: &Field, depth: u32) -> Outcome {
        let start = self.out.len();
        let set = if self.is_null() && !self.is_any_json(field) {
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

    fn is_any_json(&self, field: &Field) -> bool {
        match field.kind {
            Kind::Message(id) => self.schema.message(id).shape == Shape::Value,
            _ => false,
        }
    }

    /// A list as one text with commas; an empty one has no elements.
    fn comma_list(&mut self, message: &Message, field: &Field) -> Outcome {
        let at = self.pos;
        let content = self.string()?;
        let end = self.pos;
        let texts = || content.split(|&b| b == b',').map(<[u8]>::trim_ascii);
        if content.trim_ascii().is_empty() {
            return Ok(());
        }
        for text in texts() {
            field.tag.write(self.out);
            let read = match field.kind {
                Kind::String => {
                    wire::write_varint(self.out, text.len() as u64);
                    self.out.extend_from_slice(text);
                    continue;
                }
                Kind::Enum(id) => {
                    let number = str::from_utf8(text).ok();
                    let number = number.and_then(|t| self.schema.enumeration(id).number(t));
                    Ok(i64::from(number.unwrap_or(0)) as u64)
                }
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
                message.fields[usize::from(raw)].tag.write(self.out);
                wire::write_varint(self.out, text.len() as u64);
                self.out.extend_from_slice(text);
            }
        }
        self.pos = end;
        Ok(())
    }

    fn map(&mut self, field: &Field, depth: u32) -> Outcome {
        if self.peek() != b'{' {
            return self.expected("an object");
        }
        let Kind::Message(entry) = field.kind else {
            return self.fault("the map has no entries");
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
        loop {
            field.tag.write(self.out);
            let entry = wire::open(self.out);
            self.map_key(key)?;
            self.colon()?;
            let start = self.out.len();
            if self.is_null() && !self.is_any_json(value) {
                self.null()?;
            } else {
                let set = match value.kind {
                    Kind::Message(id) => {
                        value.tag.write(self.out);
                        let content = wire::open(self.out);
                        let set = self.message(id, field.form, depth + 2)?;
                        wire::close(self.out, content);
                        set
                    }
                    _ => self.element(value, false, depth + 1)?,
                };
                if !set {
                    self.out.truncate(start);
                }
            }
            wire::close(self.out, entry);
            if !self.more(b'}')? {
                return Ok(());
            }
        }
    }

    fn map_key(&mut self, key: &Field) -> Outcome {
        key.tag.write(self.out);
        if self.peek() != b'"' {
            return self.expected("a name in quotes");
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

    // The field numbers of the well-known types stand here as their tags.

    fn structure(&mut self, depth: u32) -> Outcome {
        if self.peek() != b'{' {
            return self.expected("an object");
        }
        if self.opened(b'}') {
            return Ok(());
        }
        loop {
            self.structure_entry(depth)?;
            if !self.more(b'}')? {
                return Ok(());
            }
        }
    }

    /// One member of a Struct.
    fn structure_entry(&mut self, depth: u32) -> Outcome {
        // Struct.fields, then key and value of the entry.
        self.out.push(0x0a);
        let entry = wire::open(self.out);
        self.out.push(0x0a);
        if self.peek() != b'"' {
            return self.expected("a name in quotes");
        }
        self.string_out()?;
        self.colon()?;
        self.out.push(0x12);
        let value = wire::open(self.out);
        self.any_json(depth + 2)?;
        wire::close(self.out, value);
        wire::close(self.out, entry);
        Ok(())
    }

    fn any_list(&mut self, depth: u32) -> Outcome {
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

    fn any_json(&mut self, depth: u32) -> Outcome {
        if depth > MAX_DEPTH || (depth == MAX_DEPTH && matches!(self.peek(), b'{' | b'[')) {
            return self.fault(format!("nested deeper than {MAX_DEPTH} messages"));
        }
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
            b'-' | b'0'..=b'9' => {
                let at = self.pos;
                let number = self.number()?;
                let (value, exact) = match token::double(number) {
                    Ok(read) => read,
                    Err(e) => return self.bad((at, e)),
                };
                if !exact && self.inexact.len() < MAX_NOTES {
                    self.inexact.push((at, String::new()));
                }
                self.out.push(0x11);
                self.out.extend_from_slice(&value.to_le_bytes());
                Ok(())
            }
            _ => self.expected("a JSON value"),
        }
    }

    fn timestamp(&mut self, form: Form) -> Outcome<bool> {
        let at = self.pos;
        let millis = |text| match token::integer(text) {
            Number::Integer(value) => i64::try_from(value).ok().and_then(time::Seconds::of_millis),
            _ => None,
        };
        let time = match self.peek() {
            b'"' => {
                let content = self.string()?;
                let text = content.trim_ascii();
                if text.is_empty() {
                    return Ok(false);
                }
                // More digits than a year has.
                let epoch = form == Form::EpochMillis && token::number(text, 0) == Ok(text.len());
                match epoch {
                    true => millis(text),
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

    fn duration(&mut self) -> Outcome<bool> {
        let at = self.pos;
        let mut duration = None;
        if self.peek() == b'"' {
            let content = self.string()?;
            if content.trim_ascii().is_empty() {
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

    fn mask(&mut self) -> Outcome {
        let content = self.string()?;
        // The document is UTF-8, and escapes make nothing else.
        let paths = String::from_utf8_lossy(&content);
        for path in paths.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            wire::write_bytes(self.out, 1, time::read_mask_path(path).as_bytes());
        }
        Ok(())
    }

    /// A wrapper; its zero is set too. An empty text is none for a number.
    fn wrapper(&mut self, field: &Field) -> Outcome<bool> {
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

    fn any(&mut self, depth: u32) -> Outcome {
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
        let Some(id) = super::any_type(self.schema, &url) else {
            self.pos = at;
            return self.expected("a type that is known");
        };
        wire::write_bytes(self.out, 1, &url);
        self.out.push(0x12);
        let content = wire::open(self.out);
        if super::any_is_plain(self.schema.message(id)) {
            self.pos = start;
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

/// What the members of an object wrote, once a name has come twice: the field and
/// where its bytes begin.
struct Segments(Vec<(FieldIndex, usize)>);

impl Segments {
    /// Of an object in which no name has come twice so far.
    fn of(message: &Message, wire: &[u8]) -> Self {
        let mut segments: Vec<(FieldIndex, usize)> = Vec::new();
        let mut fields = wire::fields(wire);
        let mut at = 0;
        while let Ok(Some((number, _))) = fields.read() {
            if let Some((index, field)) = message.by_number(number) {
                let index = field.raw_of.unwrap_or(index);
                if segments.last().is_none_or(|last| last.0 != index) {
                    segments.push((index, at));
                }
            }
            at = wire.len() - fields.rest().len();
        }
        Self(segments)
    }

    /// Cuts out all but the last segment of each field; of `extras` all stay.
    /// `out[start..]` is what the segments are of.
    fn keep_last(self, out: &mut Vec<u8>, start: usize, extras: Option<FieldIndex>) {
        let wire = out.split_off(start);
        let mut end = wire.len();
        let mut met = HashSet::new();
        let mut kept = Vec::new();
        for (index, at) in self.0.into_iter().rev() {
            if met.insert(index) || Some(index) == extras {
                kept.push(at..end);
            }
            end = at;
        }
        for range in kept.into_iter().rev() {
            out.extend_from_slice(&wire[range]);
        }
    }
}

fn write_bits(out: &mut Vec<u8>, kind: Kind, bits: u64) {
    match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => out.extend_from_slice(&bits.to_le_bytes()),
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => {
            out.extend_from_slice(&(bits as u32).to_le_bytes());
        }
        _ => wire::write_varint(out, bits),
    }
}

/// The bits of a JSON number on the wire.
fn bits(kind: Kind, text: &[u8]) -> Result<u64, &'static str> {
    match kind {
        Kind::Double => return token::double(text).map(|(value, _)| value.to_bits()),
        Kind::Float => return token::float(text).map(|value| u64::from(value.to_bits())),
        _ => {}
    }
    let value = match token::integer(text) {
        Number::Integer(value) => value,
        Number::Fraction => return Err(""),
        Number::TooLarge => return Err("out of range"),
    };
    match kind {
        Kind::Int32 | Kind::Enum(_) => i32::try_from(value).map(|v| i64::from(v) as u64),
        Kind::Sfixed32 => i32::try_from(value).map(|v| u64::from(v as u32)),
        Kind::Sint32 => i32::try_from(value).map(|v| u64::from((v << 1 ^ v >> 31) as u32)),
        Kind::Uint32 | Kind::Fixed32 => u32::try_from(value).map(u64::from),
        Kind::Sint64 => i64::try_from(value).map(|v| (v << 1 ^ v >> 63) as u64),
        Kind::Uint64 | Kind::Fixed64 => u64::try_from(value),
        _ => i64::try_from(value).map(|v| v as u64),
    }
    .map_err(|_| "out of range")
}

/// As [`bits`], of a number in a string.
fn bits_of_text(kind: Kind, text: &[u8]) -> Result<u64, &'static str> {
    if matches!(kind, Kind::Double | Kind::Float) {
        let special = match text {
            b"NaN" => Some(f64::NAN),
            b"Infinity" => Some(f64::INFINITY),
            b"-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        };
        if let Some(value) = special {
            return Ok(match kind {
                Kind::Float => u64::from((value as f32).to_bits()),
                _ => value.to_bits(),
            });
        }
    }
    match token::number(text, 0) {
        Ok(end) if end == text.len() => bits(kind, text),
        _ => Err(""),
    }
}

/// The path of a fault in its text.
pub(super) fn path_of(text: &[u8], fault: &Fault) -> String {
    join(path_at(text, fault.at), &fault.inner)
}

pub(super) fn join(mut path: String, inner: &str) -> String {
    if !path.is_empty() && !inner.is_empty() && !inner.starts_with('[') {
        path.push('.');
    }
    path + inner
}

/// The path of the value at a place in the text, which was read without fault up
/// to there: `software_deployments[3].creation_time`.
pub(super) fn path_at(text: &[u8], at: usize) -> String {
    enum Step<'a> {
        Member(&'a [u8]),
        Element(usize),
    }
    let mut steps = Vec::new();
    let mut name_is_next = false;
    let mut i = 0;
    while i < at {
        match text[i] {
            b'{' => {
                steps.push(Step::Member(b""));
                name_is_next = true;
            }
            b'[' => steps.push(Step::Element(0)),
            b'}' | b']' => drop(steps.pop()),
            b',' => match steps.last_mut() {
                Some(Step::Element(index)) => *index += 1,
                Some(Step::Member(name)) => {
                    *name = b"";
                    name_is_next = true;
                }
                None => {}
            },
            b'"' => {
                let start = i + 1;
                i = start;
                while i < at && text[i] != b'"' {
                    i += if text[i] == b'\\' { 2 } else { 1 };
                }
                if name_is_next && let Some(Step::Member(name)) = steps.last_mut() {
                    *name = &text[start..i.min(at)];
                    name_is_next = false;
                }
            }
            _ => {}
        }
        i += 1;
    }
    let mut path = String::new();
    for step in steps {
        match step {
            Step::Element(index) => path = join(path, &format!("[{index}]")),
            Step::Member(name) => path = join(path, &excerpt(name)),
        }
    }
    path
}
