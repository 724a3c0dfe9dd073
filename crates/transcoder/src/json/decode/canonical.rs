//! What the JSON mapping of protobuf does not allow, in texts of clients: a value that would be
//! lost, rounded or guessed is an error instead. Texts of upstreams are read leniently.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::{BitSet, DecodeResult, Reader};
use crate::schema::{EnumId, Field, FieldIndex, Message};

/// The longest list of names in an error, in bytes.
const MAX_NAMES_BYTES: usize = 600;

/// The keys of a map so far, each of which may be there once. None in texts of upstreams.
#[derive(Default)]
pub(super) struct Keys(Option<HashSet<u128>>);

/// Hashes to 128 bits: collisions are practically impossible.
fn digest(key: &[u8]) -> u128 {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, key).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

impl Reader<'_, '_> {
    /// Fails for a member without a field. `name_at` is the position of its name; the text is
    /// read up to its value.
    #[cold]
    pub(super) fn unknown_member(&self, message: &Message, name_at: usize) -> DecodeResult {
        if self.any_at.is_some() && self.text[name_at..].starts_with(b"\"@type\"") {
            return Ok(());
        }
        let type_name = message.name.rsplit('.').next().unwrap_or_default();
        let names = names(message.fields.iter().map(|field| &*field.name));
        self.fault(match names.is_empty() {
            true => format!("no such field: {type_name} has none"),
            false => format!("no such field: {type_name} has {names}"),
        })
    }

    /// Fails for a field that has a value already, or whose oneof has.
    pub(super) fn check_once(
        &self,
        message: &Message,
        (index, field): (FieldIndex, &Field),
        seen: &BitSet,
    ) -> DecodeResult {
        if seen.contains(index) {
            return self.fault("the field is there twice");
        }
        let Some(oneof) = field.oneof else {
            return Ok(());
        };
        let other = (0..)
            .zip(&message.fields)
            .find(|(other, field)| field.oneof == Some(oneof) && seen.contains(*other));
        match other {
            Some((_, other)) => self.fault(format!("excludes the field {}", other.name)),
            None => Ok(()),
        }
    }

    /// Returns the keys of a map that begins.
    pub(super) fn keys(&self) -> Keys {
        Keys(self.schema.canonical.then(HashSet::new))
    }

    /// Fails for a key that the map has already. It is read, and in the output from here on.
    pub(super) fn check_key(&mut self, start: usize, keys: &mut Keys) -> DecodeResult {
        let Some(seen) = &mut keys.0 else {
            return Ok(());
        };
        match seen.insert(digest(&self.out[start..])) {
            true => Ok(()),
            false => self.fault("the key is there twice"),
        }
    }

    /// Returns the bits of an enum value by its name.
    pub(super) fn enum_bits_by_name(&mut self, id: EnumId, at: usize) -> DecodeResult<u64> {
        let content = self.string()?;
        if let Some(bits) = self.enum_bits(id, &content) {
            return Ok(bits);
        }
        self.pos = at;
        let table = self.schema.enumeration(id);
        let type_name = table.name.rsplit('.').next().unwrap_or_default();
        let names = names(table.values.iter().map(|value| &*value.text));
        self.fault(format!("no such value: {type_name} has {names}"))
    }

    /// Fails for a number that the message would not hold exactly.
    #[cold]
    pub(super) fn inexact_number<T>(&mut self, at: usize) -> DecodeResult<T> {
        self.pos = at;
        self.fault("the number cannot be held exactly by a double: send it as a string if you can")
    }
}

/// Returns the names, separated by commas; not all if there are too many.
fn names<'n>(all: impl Iterator<Item = &'n str>) -> String {
    let mut text = String::new();
    let mut left_out = 0;
    for name in all {
        match text.len() + name.len() > MAX_NAMES_BYTES {
            true => left_out += 1,
            false if text.is_empty() => text.push_str(name),
            false => text.extend([", ", name]),
        }
    }
    match left_out {
        0 => text,
        n => format!("{text} and {n} more"),
    }
}

/// Returns whether a time has all that RFC 3339 requires: `T` and an offset.
pub(super) fn is_complete_time(text: &[u8]) -> bool {
    let has_offset = match text {
        [.., b'Z' | b'z'] => true,
        [.., b'+' | b'-', h1, h2, b':', m1, m2] => {
            [h1, h2, m1, m2].iter().all(|digit| digit.is_ascii_digit())
        }
        _ => false,
    };
    has_offset && matches!(text.get(10), Some(b'T' | b't')) && text.len() >= 20
}
