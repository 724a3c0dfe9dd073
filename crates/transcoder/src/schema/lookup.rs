//! Lookup of fields by number and by name.

use super::{FieldIndex, Kind};

const NONE: u16 = u16::MAX;

/// Numbers up to this one are looked up by index, higher ones by search.
const MAX_DENSE_NUMBER: u32 = 1_024;

/// Fields by number.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    dense: Box<[u16]>,
    sparse: Box<[(u32, u16)]>,
}

impl Numbers {
    pub fn new(numbers: impl Iterator<Item = u32>) -> Self {
        let mut sparse: Vec<(u32, u16)> = numbers.zip(0..).collect();
        sparse.sort_unstable();
        let low = sparse.partition_point(|(number, _)| *number < MAX_DENSE_NUMBER);
        let size = low.checked_sub(1).map_or(0, |i| sparse[i].0 as usize + 1);
        let mut dense = vec![NONE; size];
        for (number, index) in sparse.drain(..low) {
            dense[number as usize] = index;
        }
        Self {
            dense: dense.into(),
            sparse: sparse.into(),
        }
    }

    #[inline]
    pub fn get(&self, number: u32) -> Option<FieldIndex> {
        match self.dense.get(number as usize) {
            Some(&NONE) => None,
            Some(&index) => Some(index),
            None => self.sparse(number),
        }
    }

    fn sparse(&self, number: u32) -> Option<FieldIndex> {
        let at = self.sparse.binary_search_by_key(&number, |e| e.0).ok()?;
        Some(self.sparse[at].1)
    }
}

/// Indices by name: an open-addressing hash table, at most half full.
#[derive(Debug, Default)]
pub(crate) struct Names {
    slots: Box<[u16]>,
    names: Box<[(Box<[u8]>, u16)]>,
}

impl Names {
    /// Builds the table. The first of two equal names wins.
    pub fn new(names: Vec<(&str, u16)>) -> Self {
        let size = (names.len() * 2).next_power_of_two().max(2);
        let mut slots = vec![NONE; size];
        for (entry, (name, _)) in names.iter().enumerate() {
            let mut slot = hash(name.as_bytes()) & (size - 1);
            while slots[slot] != NONE {
                slot = (slot + 1) & (size - 1);
            }
            slots[slot] = entry as u16;
        }
        let names = names
            .into_iter()
            .map(|(name, i)| (name.as_bytes().into(), i));
        Self {
            slots: slots.into(),
            names: names.collect(),
        }
    }

    #[inline]
    pub fn get(&self, name: &[u8]) -> Option<u16> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut slot = hash(name) & mask;
        loop {
            let (known, index) = self.names.get(usize::from(self.slots[slot]))?;
            if **known == *name {
                return Some(*index);
            }
            slot = (slot + 1) & mask;
        }
    }
}

/// Hashes the length and the first and last eight bytes. Names that differ only in the
/// middle are rare, and only slower to find.
#[inline]
fn hash(name: &[u8]) -> usize {
    let (first, last) = match (name.first_chunk::<8>(), name.last_chunk::<8>()) {
        (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => match (name.first_chunk::<4>(), name.last_chunk::<4>()) {
            (Some(first), Some(last)) => (
                u64::from(u32::from_le_bytes(*first)),
                u64::from(u32::from_le_bytes(*last)),
            ),
            _ => (
                name.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte)),
                0,
            ),
        },
    };
    let mixed = (first ^ last.rotate_left(29) ^ (name.len() as u64) << 56)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 40) as usize
}

/// An encoded tag.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tag {
    bytes: [u8; 5],
    len: u8,
}

impl Tag {
    pub fn new(number: u32, wire_type: u32) -> Self {
        let mut rest = number << 3 | wire_type;
        let mut bytes = [0; 5];
        let mut len = 0;
        while rest >= 0x80 {
            bytes[len] = rest as u8 | 0x80;
            rest >>= 7;
            len += 1;
        }
        bytes[len] = rest as u8;
        Self {
            bytes,
            len: len as u8 + 1,
        }
    }

    /// Returns the wire type of one value of this kind.
    pub fn wire_type(kind: Kind) -> u32 {
        match kind {
            Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => 1,
            Kind::String | Kind::Bytes | Kind::Message(_) => 2,
            Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => 5,
            _ => 0,
        }
    }

    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    #[inline]
    pub fn write(&self, out: &mut Vec<u8>) {
        if self.len == 1 {
            out.push(self.bytes[0]);
        } else {
            out.extend_from_slice(self.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_field_numbers_are_found() {
        let numbers = Numbers::new([3, 1, 1_023, 1_024, 536_870_911].into_iter());
        for (number, want) in [
            (0, None),
            (1, Some(1)),
            (2, None),
            (3, Some(0)),
            (1_023, Some(2)),
            (1_024, Some(3)),
            (1_025, None),
            (536_870_911, Some(4)),
        ] {
            assert_eq!(numbers.get(number), want, "{number}");
        }
        assert_eq!(Numbers::new([].into_iter()).get(1), None);
    }

    #[test]
    fn names_of_any_length_are_found() {
        let names: Vec<String> = (0..300)
            .map(|i| "x".repeat(i % 20) + &i.to_string())
            .collect();
        let table = Names::new(names.iter().map(String::as_str).zip(0..).collect());
        for (i, name) in names.iter().enumerate() {
            assert_eq!(table.get(name.as_bytes()), Some(i as u16), "{name}");
        }
        assert_eq!(table.get(b""), None);
        assert_eq!(table.get(b"unknown"), None);
        assert_eq!(Names::new(Vec::new()).get(b"any"), None);
    }

    #[test]
    fn tags_are_varints() {
        assert_eq!(Tag::new(1, 2).as_bytes(), [10]);
        assert_eq!(Tag::new(16, 0).as_bytes(), [0x80, 1]);
        assert_eq!(
            Tag::new(536_870_911, 7).as_bytes(),
            [0xff, 0xff, 0xff, 0xff, 0x0f]
        );
    }
}
