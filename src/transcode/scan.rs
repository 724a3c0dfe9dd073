//! Finding where a string's plain part ends.

/// Whether a byte cannot stand as it is in a JSON string.
#[inline]
fn is_special(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// Index of the first `"`, `\` or control character, or the length; and whether
/// no byte before it (and some behind it) has its high bit set.
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
        if chunk.iter().fold(false, |any, &b| any | is_special(b)) {
            break;
        }
        high |= u64::from_le_bytes(*chunk) & 0x8080_8080_8080_8080;
        at += 8;
    }
    let (rest, ascii) = tail(&bytes[at..]);
    (at + rest, ascii && high == 0)
}

#[inline]
fn tail(bytes: &[u8]) -> (usize, bool) {
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
    fn every_byte_at_every_place() {
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
