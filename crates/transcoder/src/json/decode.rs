//! JSON text to protobuf bytes.
//!
//! Problems are kept as a place in the text; their path is found by walking the
//! text again, so that nothing is spent on paths while all is well.

mod cursor;
mod known;
mod numbers;
mod path;
mod segments;

use self::numbers::{bits, bits_of_text, write_bits};
pub(super) use self::path::{join, path_at, path_of};
use self::segments::Segments;
use super::bits::Bits;
use super::print;
use super::token;
use super::wire::{self, MAX_DEPTH};
use crate::schema::{
    Cardinality, Field, FieldIndex, Form, Kind, Message, MessageId, Schema, Shape,
};

/// The most paths that `Notes::inexact` names.
pub(super) const MAX_NOTES: usize = 16;

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
        let set = if self.is_null() && self.schema.message(id).shape != Shape::Value {
            self.null()?;
            false
        } else {
            self.message(id, Form::Plain, depth)?
        };
        self.space();
        match self.pos == self.text.len() {
            true => Ok(set),
            false => self.fault("there is more behind the end"),
        }
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
                if let Some(at) = found.filter(|at| self.is_empty_array(*at)) {
                    self.pos = at;
                    return self.fault("expected an object in the array, found none");
                }
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
    fn object_at(&self, at: usize) -> Option<usize> {
        let at = match self.text[at] {
            b'[' => self.behind_bracket(at),
            _ => at,
        };
        (self.text.get(at) == Some(&b'{')).then_some(at)
    }

    fn is_empty_array(&self, at: usize) -> bool {
        self.text[at] == b'[' && self.text.get(self.behind_bracket(at)) == Some(&b']')
    }

    /// Where what follows the bracket here begins.
    fn behind_bracket(&self, at: usize) -> usize {
        let rest = self.text[at + 1..].iter();
        at + 1 + rest.take_while(|b| b.is_ascii_whitespace()).count()
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
        let single = field.is_single();
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
                if numbers::is_rounded(kind, number) {
                    self.is_inexact(at);
                }
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
                    text => {
                        if numbers::is_rounded(kind, text) {
                            self.is_inexact(at);
                        }
                        bits_of_text(kind, text)
                    }
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

    /// Notes that the number at this place was rounded.
    fn is_inexact(&mut self, at: usize) {
        if self.inexact.len() < MAX_NOTES {
            self.inexact.push((at, String::new()));
        }
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
}
