//! Finds the end of the part of a string without escapes.

/// Returns whether a JSON string must escape the byte.
#[inline]
fn is_special(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// Returns the index of the first `"`, `\` or control character, or the length; and
/// whether no byte before it (and some after it) has its high bit set.
#[inline]
pub fn plain(bytes: &[u8]) -> (usize, bool) {
    #[cfg(target_arch = "x86_64")]
    {
        sse2(bytes)
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        portable(bytes)
    }
}

#[cfg(any(test, not(target_arch = "x86_64")))]
fn portable(bytes: &[u8]) -> (usize, bool) {
    let mut high = 0;
    let mut at = 0;
    while let Some(chunk) = bytes[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        if has_special(word) {
            let (rest, ascii) = bytewise(&bytes[at..]);
            return (at + rest, ascii && high == 0);
        }
        high |= word & HIGH;
        at += 8;
    }
    let (rest, ascii) = tail(&bytes[at..]);
    (at + rest, ascii && high == 0)
}

/// Scans less than a chunk: both ends at once, which can overlap, and single bytes only
/// if one of them is special.
#[inline(never)]
fn tail(bytes: &[u8]) -> (usize, bool) {
    let (first, last) = match (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
            (Some(first), Some(last)) => {
                let halves = [u32::from_le_bytes(*first), u32::from_le_bytes(*last)];
                let both = u64::from(halves[0]) | u64::from(halves[1]) << 32;
                (both, both)
            }
            _ => return bytewise(bytes),
        },
    };
    debug_assert!(bytes.len() <= 16, "the ends leave nothing out");
    if has_special(first) || has_special(last) {
        return bytewise(bytes);
    }
    (bytes.len(), (first | last) & HIGH == 0)
}

const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Returns whether one of eight bytes is special. A byte above 0x7f after a special one
/// can count as special, which does not change the result.
#[inline]
fn has_special(word: u64) -> bool {
    let below = |word: u64, limit: u64| word.wrapping_sub(LOW * limit) & !word & HIGH;
    let equal = |byte: u8| below(word ^ (LOW * u64::from(byte)), 1);
    below(word, 0x20) | equal(b'"') | equal(b'\\') != 0
}

fn bytewise(bytes: &[u8]) -> (usize, bool) {
    let mut high = 0;
    for (i, &byte) in bytes.iter().enumerate() {
        if is_special(byte) {
            return (i, high < 0x80);
        }
        high |= byte;
    }
    (bytes.len(), high < 0x80)
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[expect(unsafe_code, reason = "the intrinsics are")]
fn sse2(bytes: &[u8]) -> (usize, bool) {
    use std::arch::x86_64::{
        _mm_cmpeq_epi8, _mm_loadu_si128, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128,
        _mm_set1_epi8,
    };
    let mut high = 0;
    let mut at = 0;
    while let Some(chunk) = bytes[at..].first_chunk::<16>() {
        // SAFETY: the load reads the 16 bytes of `chunk` and needs no alignment;
        // SSE2 is part of x86_64.
        let (special, top) = unsafe {
            let v = _mm_loadu_si128(chunk.as_ptr().cast());
            let quote = _mm_cmpeq_epi8(v, _mm_set1_epi8(b'"' as i8));
            let backslash = _mm_cmpeq_epi8(v, _mm_set1_epi8(b'\\' as i8));
            // Unsigned: at most 0x1f.
            let control = _mm_cmpeq_epi8(_mm_min_epu8(v, _mm_set1_epi8(0x1f)), v);
            let any = _mm_or_si128(_mm_or_si128(quote, backslash), control);
            (_mm_movemask_epi8(any) as u32, _mm_movemask_epi8(v) as u32)
        };
        high |= top;
        if special != 0 {
            return (at + special.trailing_zeros() as usize, high == 0);
        }
        at += 16;
    }
    let (rest, ascii) = tail(&bytes[at..]);
    (at + rest, ascii && high == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_bytes_are_found_at_every_position() {
        for len in 0..40 {
            let text = vec![b'a'; len];
            assert_eq!(plain(&text), (len, true));
            for at in 0..len {
                for byte in 0..=u8::MAX {
                    let mut text = text.clone();
                    text[at] = byte;
                    let want = if is_special(byte) { at } else { len };
                    for (found, ascii) in [plain(&text), portable(&text)] {
                        assert_eq!(found, want, "{byte} at {at} of {len}");
                        assert_eq!(ascii, byte < 0x80, "{byte} at {at} of {len}");
                    }
                }
            }
        }
    }
}
