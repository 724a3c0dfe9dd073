//! A JSON document that is edited in place: members keep their order, numbers their
//! digits.

use std::collections::HashMap;
use std::fmt;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::error::Category;
use serde_json::value::RawValue;

use crate::error::Error;
use drawbridge_transcoder::json::read_timestamp;

/// How deep nested arrays are searched.
const MAX_ARRAY_DEPTH: usize = 16;

/// A document, which is a JSON object.
pub struct Document(Object);

impl Document {
    /// Parses a document. Anything else than a JSON object is `Error::Decode`.
    pub fn read(json: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(json).map(Self).map_err(unreadable)
    }

    /// Returns the document as JSON.
    pub fn write(&self) -> Result<Bytes, Error> {
        write(&self.0)
    }

    /// Calls `change` with each object in the member `within`, also in nested arrays; with
    /// the document itself where no member is named.
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

/// Returns the value with all objects in it changed.
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
        Some(b'[') if depth < MAX_ARRAY_DEPTH => {
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

/// Returns an object as JSON.
pub fn write(object: &Object) -> Result<Bytes, Error> {
    serde_json::to_vec(object)
        .map(Bytes::from)
        .map_err(unreadable)
}

/// Adds a colon to the offset of each string that is a time without one:
/// `2015-01-31T15:12:36.000+0900`. Everything else is kept to the byte.
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

/// Returns where the minutes begin in a time whose offset has no colon.
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

/// Converts a JSON error, without serde's text, which may quote the document.
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

/// The members of a JSON object, in order, with their values as JSON text. Of duplicate
/// members, the first position and the last value count, as in most parsers.
#[derive(Default)]
pub struct Object {
    members: Vec<(String, Box<RawValue>)>,
    /// The index in `members` by name: a document of a client may have very many.
    index: HashMap<String, usize>,
}

impl Object {
    /// Returns the names of the members.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|(name, _)| &**name)
    }

    /// Returns the value of a member.
    pub fn get(&self, name: &str) -> Option<&RawValue> {
        let at = *self.index.get(name)?;
        Some(&self.members[at].1)
    }

    /// Sets a member in its position, or appends it.
    pub fn set(&mut self, name: &str, value: Box<RawValue>) {
        match self.index.get(name) {
            Some(&at) => self.members[at].1 = value,
            None => {
                self.index.insert(name.to_owned(), self.members.len());
                self.members.push((name.to_owned(), value));
            }
        }
    }

    /// Inserts a member that is missing before all others.
    pub fn set_first(&mut self, name: &str, value: Box<RawValue>) {
        self.index.values_mut().for_each(|at| *at += 1);
        self.index.insert(name.to_owned(), 0);
        self.members.insert(0, (name.to_owned(), value));
    }

    /// Returns the members.
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
