//! Decodes JSON text to protobuf bytes.
//!
//! An error is kept as a position in the text. Its path is computed afterwards by
//! reading the text again, so that paths cost nothing without an error.

mod canonical;
mod cursor;
mod duplicate_names;
mod enums;
mod error_path;
mod lists;
mod maps;
mod numbers;
mod urls;
mod well_known_types;

use self::canonical::Keys;
use self::duplicate_names::Segments;
pub(super) use self::error_path::{join, path_at, path_of};
use self::numbers::{bits, bits_of_text, write_bits};
use super::bit_set::BitSet;
use super::print;
use super::token;
use super::wire::{self, MAX_DEPTH};
use crate::schema::{
    Cardinality, Field, FieldIndex, Form, Kind, Message, MessageId, Schema, Shape,
};

/// Most paths in `Notes::inexact`.
pub(super) const MAX_NOTES: usize = 16;

/// How many members without a field are kept. Error bodies have fewer.
const MAX_SPANS: usize = 16;

/// Limit of the length of one that can be an error.
const MAX_UNKNOWN_BYTES: usize = 16 << 10;

/// An error at a position in the text. Boxed, so that a success fits into a register.
#[derive(Debug)]
pub(super) struct DecodeFailure {
    pub at: usize,
    /// The path within JSON that is in a string.
    pub inner: String,
    pub problem: String,
}

pub(super) type DecodeResult<T = ()> = Result<T, Box<DecodeFailure>>;

/// Decodes one text.
pub(super) struct Reader<'t, 'o> {
    schema: &'o Schema,
    text: &'t [u8],
    pos: usize,
    out: &'o mut Vec<u8>,
    /// While an Any is read, the position of its object.
    any_at: Option<usize>,
    /// Numbers that the message does not hold exactly: position, and path within JSON that
    /// is in a string there.
    pub inexact: Vec<(usize, String)>,
    /// The members of the outermost object.
    pub found: Found,
}

/// Which members the outermost object has, after `unwrap`.
#[derive(Default)]
pub(crate) struct Found {
    /// Fields with a value.
    values: BitSet,
    /// Fields that are `null`.
    nulls: BitSet,
    /// Members without a field.
    pub unknown: Unknown,
    /// Whether a list of objects has `null` in place of one.
    pub has_null_item: bool,
}

/// The members of an object that have no field.
#[derive(Default)]
pub(crate) struct Unknown {
    /// Where the first ones are, with their names.
    spans: [(usize, usize); MAX_SPANS],
    count: usize,
}

impl Unknown {
    /// Returns whether there is one.
    pub fn any(&self) -> bool {
        self.count > 0
    }

    fn add(&mut self, start: usize, end: usize) {
        if let Some(span) = self.spans.get_mut(self.count) {
            *span = (start, end);
        }
        self.count += 1;
    }

    /// Returns an object with the first ones of at most [`MAX_UNKNOWN_BYTES`] each.
    pub fn object(&self, text: &[u8]) -> Vec<u8> {
        let mut object = vec![b'{'];
        for (start, end) in &self.spans[..self.count.min(MAX_SPANS)] {
            let member = text.get(*start..*end).unwrap_or_default().trim_ascii_end();
            if member.is_empty() || member.len() > MAX_UNKNOWN_BYTES {
                continue;
            }
            if object.len() > 1 {
                object.push(b',');
            }
            object.extend_from_slice(member);
        }
        object.push(b'}');
        object
    }
}

impl Found {
    /// Returns whether the field has a value.
    pub fn has_value(&self, index: FieldIndex) -> bool {
        self.values.contains(index)
    }

    /// Returns whether the field has a value other than `null`.
    pub fn has_content(&self, index: FieldIndex) -> bool {
        self.has_value(index) && !self.nulls.contains(index)
    }

    /// Returns whether the field is there, as a value or as `null`.
    pub fn has(&self, index: FieldIndex) -> bool {
        self.values.contains(index) || self.nulls.contains(index)
    }
}

impl<'t, 'o> Reader<'t, 'o> {
    pub fn new(schema: &'o Schema, text: &'t [u8], out: &'o mut Vec<u8>) -> Self {
        Self {
            schema,
            text,
            pos: 0,
            out,
            any_at: None,
            inexact: Vec::new(),
            found: Found::default(),
        }
    }

    /// Decodes the text as a message; false if it is empty or `null`.
    pub fn document(&mut self, id: MessageId, depth: u32) -> DecodeResult<bool> {
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
            return match self.schema.canonical {
                true => self.fault("the JSON is empty: the empty message is {}"),
                false => Ok(false),
            };
        }
        let set = if self.is_null()
            && !self.schema.canonical
            && self.schema.message(id).shape != Shape::Value
        {
            self.null()?;
            false
        } else {
            self.message(id, Form::Plain, depth)?
        };
        self.space();
        match self.pos == self.text.len() {
            true => Ok(set),
            false => self.fault("unexpected data after the JSON value"),
        }
    }

    /// Decodes a value as the fields of a message; false for an unset one. `depth` is
    /// the number of messages around it.
    fn message(&mut self, id: MessageId, form: Form, depth: u32) -> DecodeResult<bool> {
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
            Shape::FieldMask => self.mask(&self.schema.mask_names)?,
            Shape::Wrapper => return self.wrapper(&message.fields[0]),
            Shape::Any => self.any(depth)?,
        }
        Ok(true)
    }

    /// Decodes JSON in a string as a message.
    fn json_text(&mut self, id: MessageId, depth: u32) -> DecodeResult<bool> {
        let at = self.pos;
        let content = self.string()?;
        let mut inner = Reader::new(self.schema, &content, self.out);
        let set = inner.document(id, depth).map_err(|fault| {
            Box::new(DecodeFailure {
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

    fn object(&mut self, message: &Message, depth: u32) -> DecodeResult {
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
                if depth == 0 {
                    self.found.values.insert(index);
                }
                self.list(message, &message.fields[usize::from(index)], depth)
            }
            (b'"', _, _) => match message.bare_text {
                Some(index) => {
                    if depth == 0 {
                        self.found.values.insert(index);
                    }
                    self.field(message, &message.fields[usize::from(index)], depth)
                }
                None => self.expected("an object"),
            },
            _ => self.expected("an object"),
        }
    }

    /// Returns the position of an object: the value at `at`, or its first element.
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

    /// Returns the position of the first token after a bracket.
    fn behind_bracket(&self, at: usize) -> usize {
        let rest = self.text[at + 1..].iter();
        at + 1 + rest.take_while(|b| b.is_ascii_whitespace()).count()
    }

    /// Returns the positions of the values of these members (the last ones of duplicate
    /// names), and the end of the object.
    fn find<const N: usize>(
        &mut self,
        names: [&[u8]; N],
    ) -> DecodeResult<([Option<usize>; N], usize)> {
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

    fn members(&mut self, message: &Message, depth: u32) -> DecodeResult {
        let start = self.out.len();
        // Members of the Any, not of messages in it.
        let any_at = self.any_at.take();
        let is_any = any_at == Some(self.pos);
        let mut seen = BitSet::default();
        let mut segments: Option<Segments> = None;
        let mut guess = 0;
        if self.opened(b'}') {
            return Ok(());
        }
        loop {
            let at = self.pos;
            let index = self.key(message, guess)?;
            self.colon()?;
            if self.schema.canonical && index.is_none() {
                self.any_at = any_at.filter(|_| is_any);
                self.unknown_member(message, at)?;
                self.any_at = None;
            }
            match index.map(|index| (index, &message.fields[usize::from(index)])) {
                None => match message.additional_properties {
                    None => {
                        self.skip()?;
                        if depth == 0 {
                            self.found.unknown.add(at, self.pos);
                        }
                    }
                    Some(index) => {
                        self.pos = at;
                        if let Some(segments) = &mut segments {
                            segments.0.push((index, self.out.len() - start));
                        }
                        self.extra(&message.fields[usize::from(index)], depth)?;
                        if depth == 0 {
                            self.found.unknown.add(at, self.pos);
                        }
                    }
                },
                Some((index, field)) => {
                    guess = usize::from(index) + 1;
                    let is_null = self.is_null();
                    if is_null && depth == 0 {
                        self.found.nulls.insert(index);
                    }
                    if is_null && !self.keeps_null(field) {
                        self.null()?;
                    } else {
                        if self.schema.canonical {
                            self.check_once(message, (index, field), &seen)?;
                        }
                        if !seen.insert(index) && segments.is_none() {
                            segments = Some(Segments::of(message, &self.out[start..]));
                        }
                        if let Some(segments) = &mut segments {
                            segments.0.push((index, self.out.len() - start));
                        }
                        let at = self.pos;
                        self.field(message, field, depth)?;
                        if !field.url_fields.is_empty() {
                            self.urls(message, field, at)?;
                        }
                    }
                }
            }
            if !self.more(b'}')? {
                break;
            }
        }
        if let Some(segments) = segments {
            segments.keep_last(self.out, start, message.additional_properties);
        }
        if depth == 0 {
            self.found.values = seen;
        }
        Ok(())
    }

    /// Decodes a member without a field into the field with additional properties. Each
    /// is a part of its own: protobuf merges the parts of a message.
    fn extra(&mut self, field: &Field, depth: u32) -> DecodeResult {
        self.room(0)?;
        field.tag.write(self.out);
        let start = wire::open(self.out);
        self.structure_entry(depth + 1, &mut Keys::default())?;
        wire::close(self.out, start);
        Ok(())
    }

    /// Reads a member's name. It is mostly that of the field after the last one.
    #[inline]
    fn key(&mut self, message: &Message, guess: usize) -> DecodeResult<Option<FieldIndex>> {
        if let Some(field) = message.fields.get(guess) {
            let quoted = field.quoted();
            if field.is_member() && self.text[self.pos..].starts_with(quoted) {
                self.pos += quoted.len();
                return Ok(Some(guess as FieldIndex));
            }
        }
        let name = self.string()?;
        Ok(message.names.get(&name))
    }

    /// Returns whether `null` is a value of the field instead of its absence.
    fn keeps_null(&self, field: &Field) -> bool {
        let single = field.is_single();
        match field.kind {
            Kind::Message(id) => single && self.schema.message(id).shape == Shape::Value,
            kind => single && self.is_null_value(kind),
        }
    }

    fn is_null_value(&self, kind: Kind) -> bool {
        matches!(kind, Kind::Enum(id) if self.schema.enumeration(id).null)
    }

    #[inline]
    fn field(&mut self, message: &Message, field: &Field, depth: u32) -> DecodeResult {
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
            // The raw field keeps a text that is not a time.
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

    /// Writes the text of a value to its raw field.
    fn raw(&mut self, raw: &Field, at: usize, end: usize) -> DecodeResult {
        self.room(end - at)?;
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

    /// Decodes one value and writes it with its tag; false for an unset value, whose
    /// bytes the caller removes. Zero is unset unless `explicit`.
    #[inline]
    fn element(&mut self, field: &Field, explicit: bool, depth: u32) -> DecodeResult<bool> {
        self.room(0)?;
        field.tag.write(self.out);
        match field.kind {
            Kind::String => {
                if self.peek() == b'"' {
                    let start = self.out.len();
                    self.string_out()?;
                    return Ok(explicit || self.out.len() > start + 1);
                }
                if self.schema.canonical {
                    return self.expected("a string");
                }
                self.literal_text()?;
                Ok(true)
            }
            Kind::Message(id) => {
                let start = wire::open(self.out);
                if let Some(names) = &field.mask_names {
                    self.mask(names)?;
                } else if !self.message(id, field.form, depth + 1)? {
                    return Ok(false);
                }
                wire::close(self.out, start);
                Ok(true)
            }
            Kind::Bytes => {
                let start = wire::open(self.out);
                let at = self.pos;
                let content = self.string()?;
                self.room(content.len())?;
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

    /// Writes a number or a bool as its text, for a string field.
    fn literal_text(&mut self) -> DecodeResult {
        let start = self.pos;
        match self.peek() {
            b't' | b'f' => drop(self.boolean()?),
            b'-' | b'0'..=b'9' | b'N' | b'I' => drop(self.any_number()?),
            _ => return self.expected("a string"),
        }
        self.room(self.pos - start)?;
        let literal = &self.text[start..self.pos];
        wire::write_varint(self.out, literal.len() as u64);
        self.out.extend_from_slice(literal);
        Ok(())
    }

    /// Decodes a number, a bool or an enum to its wire bits. None for an empty string, for
    /// an unknown text of an enum, and for a number that is too large for a double or float.
    fn scalar(&mut self, kind: Kind) -> DecodeResult<Option<u64>> {
        let at = self.pos;
        let is_float = matches!(kind, Kind::Double | Kind::Float);
        let read = match self.peek() {
            b'-' | b'N' | b'I' if is_float && token::special(self.text, at).is_some() => {
                self.is_inexact(at);
                if self.schema.canonical {
                    return self.expected("a number, or \"NaN\" and the like as a string");
                }
                let number = self.any_number()?;
                bits_of_text(kind, number)
            }
            b'-' | b'0'..=b'9' if kind != Kind::Bool => {
                let number = self.number()?;
                match kind {
                    // Also one that the enum does not have.
                    Kind::Enum(_) if self.schema.canonical => {
                        return bits(Kind::Int32, number).map(Some).or_else(|_| {
                            self.pos = at;
                            self.expected("an integer of 32 bits")
                        });
                    }
                    Kind::Enum(id) => return Ok(self.enum_bits_of_number(id, number)),
                    _ => {}
                }
                if numbers::is_rounded(kind, number) {
                    self.is_inexact(at);
                }
                bits(kind, number)
            }
            b't' | b'f' if kind == Kind::Bool => return Ok(Some(self.boolean()?.into())),
            b'"' if self.schema.canonical && kind == Kind::Bool => Err(""),
            b'"' => {
                if let Kind::Enum(id) = kind
                    && self.schema.canonical
                {
                    return self.enum_bits_by_name(id, at).map(Some);
                }
                let content = self.string()?;
                if let Kind::Enum(id) = kind {
                    return Ok(self.enum_bits(id, &content));
                }
                match content.trim_ascii() {
                    text if self.schema.canonical && text.len() != content.len() => Err(""),
                    b"" if self.schema.canonical => Err(""),
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
            b'n' if !self.schema.canonical || self.is_null_value(kind) => {
                self.null()?;
                return Ok(Some(0));
            }
            _ => Err(""),
        };
        if self.schema.canonical
            && let Some((inexact, _)) = self.inexact.first()
        {
            return self.inexact_number(*inexact);
        }
        read.map(Some).or_else(|problem| {
            if problem == numbers::OVERFLOW && !self.schema.canonical {
                self.is_inexact(at);
                return Ok(None);
            }
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

    /// Notes that the message does not hold the number at this position exactly.
    fn is_inexact(&mut self, at: usize) {
        if self.inexact.len() < MAX_NOTES {
            self.inexact.push((at, String::new()));
        }
    }
}
