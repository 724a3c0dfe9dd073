//! A JSON document that is changed here and there: all else keeps its order, and
//! numbers their digits.

use std::collections::HashMap;
use std::fmt;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::error::Category;
use serde_json::value::RawValue;

use crate::error::Error;
use drawbridge_transcoder::json::read_timestamp;

/// How deep arrays are looked into.
const MAX_DEPTH: usize = 16;

/// A document: an object.
pub struct Document(Object);

impl Document {
    /// Reads it; what is no JSON object is `Error::Decode`.
    pub fn read(json: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(json).map(Self).map_err(unreadable)
    }

    /// Its JSON.
    pub fn write(&self) -> Result<Bytes, Error> {
        write(&self.0)
    }

    /// Shows all objects that stand in this member, also in arrays in arrays, or the
    /// document itself where none is named.
    pub fn objects(
        &mut self,
        within: Option<&str>,
        change: &mut dyn FnMut(&mut Object) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Some(member) = within else {
            return change(&mut self.0);
        };
        if let Some(value) = self.0.get(member) {
            let changed = objects_in(value, change, 0)?;
            self.0.set(member, changed);
        }
        Ok(())
    }
}

/// The value with all objects in it changed.
fn objects_in(
    value: &RawValue,
    change: &mut dyn FnMut(&mut Object) -> Result<(), Error>,
    depth: usize,
) -> Result<Box<RawValue>, Error> {
    match value.get().as_bytes().first() {
        Some(b'{') => {
            let mut object: Object = serde_json::from_str(value.get()).map_err(unreadable)?;
            change(&mut object)?;
            serde_json::value::to_raw_value(&object).map_err(unreadable)
        }
        Some(b'[') if depth < MAX_DEPTH => {
            let items: Vec<&RawValue> = serde_json::from_str(value.get()).map_err(unreadable)?;
            let mut changed = Vec::with_capacity(items.len());
            for item in items {
                changed.push(objects_in(item, change, depth + 1)?);
            }
            serde_json::value::to_raw_value(&changed).map_err(unreadable)
        }
        _ => Ok(value.to_owned()),
    }
}

/// The JSON of an object.
pub fn write(object: &Object) -> Result<Bytes, Error> {
    serde_json::to_vec(object)
        .map(Bytes::from)
        .map_err(unreadable)
}

/// The JSON, with a colon in the offset of every text that is a time without one:
/// `2015-01-31T15:12:36.000+0900`. All else stays to the byte.
pub fn with_colons(json: &[u8]) -> Bytes {
    let mut whole = Vec::with_capacity(json.len() + 16);
    let mut rest = json;
    while let Some(open) = rest.iter().position(|byte| *byte == b'"') {
        let (before, inside) = rest.split_at(open + 1);
        let mut end = 0;
        while let Some(byte) = inside.get(end).filter(|byte| **byte != b'"') {
            end += 1 + usize::from(*byte == b'\\');
        }
        let (text, after) = inside.split_at(end.min(inside.len()));
        whole.extend_from_slice(before);
        match minutes_at(text) {
            Some(at) => {
                whole.extend_from_slice(&text[..at]);
                whole.push(b':');
                whole.extend_from_slice(&text[at..]);
            }
            None => whole.extend_from_slice(text),
        }
        // The closing quote.
        let (quote, after) = after.split_at(after.len().min(1));
        whole.extend_from_slice(quote);
        rest = after;
    }
    whole.extend_from_slice(rest);
    whole.into()
}

/// Where the minutes of an offset without a colon begin, if the text is a time
/// with one.
fn minutes_at(text: &[u8]) -> Option<usize> {
    let at = text.len().checked_sub(2)?;
    let [sign, hours @ ..] = text.get(at.checked_sub(3)?..at)? else {
        return None;
    };
    let compact = matches!(sign, b'+' | b'-') && hours.iter().all(u8::is_ascii_digit);
    let local = text.get(10) == Some(&b'T') && text.get(13) == Some(&b':');
    let is_time = compact && local && read_timestamp(std::str::from_utf8(text).ok()?).is_some();
    is_time.then_some(at)
}

/// The error without serde's own words, which may quote the document.
pub fn unreadable(error: serde_json::Error) -> Error {
    let problem = match error.classify() {
        Category::Data => "expected the document of the action, a JSON object".to_owned(),
        _ => format!(
            "expected the document of the action, found broken JSON at line {} column {}",
            error.line(),
            error.column()
        ),
    };
    Error::decode("", problem)
}

/// The members of a JSON object, in order, their values as text. Of a name given
/// twice, the first place and the last value count, as for most readers.
#[derive(Default)]
pub struct Object {
    members: Vec<(String, Box<RawValue>)>,
    /// Where each name stands in `members`: a caller's document may have very many.
    places: HashMap<String, usize>,
}

impl Object {
    /// The members' names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|(name, _)| &**name)
    }

    /// The value of a member.
    pub fn get(&self, name: &str) -> Option<&RawValue> {
        let at = *self.places.get(name)?;
        Some(&self.members[at].1)
    }

    /// Sets a member: in its place, or behind all others.
    pub fn set(&mut self, name: &str, value: Box<RawValue>) {
        match self.places.get(name) {
            Some(&at) => self.members[at].1 = value,
            None => {
                self.places.insert(name.to_owned(), self.members.len());
                self.members.push((name.to_owned(), value));
            }
        }
    }

    /// Adds a member that is not there yet before all others.
    pub fn set_first(&mut self, name: &str, value: Box<RawValue>) {
        self.places.values_mut().for_each(|at| *at += 1);
        self.places.insert(name.to_owned(), 0);
        self.members.insert(0, (name.to_owned(), value));
    }

    /// The members themselves.
    pub fn into_members(self) -> Vec<(String, Box<RawValue>)> {
        self.members
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut object = Object::default();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    object.set(&name, value);
                }
                Ok(object)
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.members.iter().map(|(name, value)| (name, value)))
    }
}
