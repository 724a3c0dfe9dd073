//! Writes numbers and strings as JSON text.

use std::io::Write;

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::scan;
use crate::output_limit::{SHORT_VALUE, has_room};

const DIGIT_PAIRS: &[u8; 200] = b"0001020304050607080910111213141516171819\
    2021222324252627282930313233343536373839\
    4041424344454647484950515253545556575859\
    6061626364656667686970717273747576777879\
    8081828384858687888990919293949596979899";

/// Writes an unsigned integer.
#[inline]
pub fn int(out: &mut Vec<u8>, mut value: u64) {
    if value < 10 {
        out.push(b'0' + value as u8);
        return;
    }
    let mut text = [0; 20];
    let mut at = text.len();
    while value >= 10 {
        let pair = (value % 100) as usize * 2;
        value /= 100;
        at -= 2;
        text[at..at + 2].copy_from_slice(&DIGIT_PAIRS[pair..pair + 2]);
    }
    if value > 0 {
        at -= 1;
        text[at] = b'0' + value as u8;
    }
    // An odd number of digits in ten pairs has no leading zero.
    out.extend_from_slice(&text[at..]);
}

/// Writes a signed integer.
#[inline]
pub fn signed(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    int(out, value.unsigned_abs());
}

/// Writes a finite double: the shortest text that reads as the same value. Integers
/// below 2^64 have all their digits and no `.0`.
pub fn double(out: &mut Vec<u8>, value: f64) {
    const TWO_TO_64: f64 = 18_446_744_073_709_551_616.0;
    let size = value.abs();
    if size < TWO_TO_64 && value.fract() == 0.0 {
        if value.is_sign_negative() {
            out.push(b'-');
        }
        int(out, size as u64);
    } else if (1e-6..1e21).contains(&size) {
        // Writing to memory cannot fail.
        let _ = write!(out, "{value}");
    } else {
        let _ = write!(out, "{value:e}");
    }
}

/// Writes a finite float, as [`double`] does.
pub fn float(out: &mut Vec<u8>, value: f32) {
    let size = value.abs();
    if size < 16_777_216.0 && value.fract() == 0.0 {
        double(out, f64::from(value));
    } else if (1e-6..1e21).contains(&size) {
        let _ = write!(out, "{value}");
    } else {
        let _ = write!(out, "{value:e}");
    }
}

/// Why a string cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StringFailure {
    /// The text is not UTF-8.
    NotUtf8,
    /// The output is longer than its limit.
    NoRoom,
}

/// Makes room for a text and what surrounds it.
#[inline]
fn room(out: &mut Vec<u8>, bytes: usize) -> Result<(), StringFailure> {
    match has_room(out, bytes + SHORT_VALUE) {
        true => Ok(()),
        false => Err(StringFailure::NoRoom),
    }
}

/// Writes a string with its quotes. After an error `out` contains a part of it.
#[inline]
pub fn string(out: &mut Vec<u8>, text: &[u8]) -> Result<(), StringFailure> {
    room(out, text.len())?;
    out.push(b'"');
    let (end, ascii) = scan::plain(text);
    out.extend_from_slice(&text[..end]);
    if end < text.len() {
        escape(out, text, end)?;
    } else if !ascii && str::from_utf8(text).is_err() {
        return Err(StringFailure::NotUtf8);
    }
    out.push(b'"');
    Ok(())
}

fn escape(out: &mut Vec<u8>, text: &[u8], mut at: usize) -> Result<(), StringFailure> {
    str::from_utf8(text).map_err(|_| StringFailure::NotUtf8)?;
    while at < text.len() {
        room(out, text.len() - at)?;
        let byte = text[at];
        let short = match byte {
            b'"' => b'"',
            b'\\' => b'\\',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x08 => b'b',
            0x0c => b'f',
            _ => 0,
        };
        if short != 0 {
            out.extend_from_slice(&[b'\\', short]);
        } else {
            let hex = |digit: u8| b"0123456789abcdef"[usize::from(digit)];
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[hex(byte >> 4), hex(byte & 15)]);
        }
        at += 1;
        let (end, _) = scan::plain(&text[at..]);
        out.extend_from_slice(&text[at..at + end]);
        at += end;
    }
    Ok(())
}

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::URL_SAFE, LENIENT);

/// Writes padded base64 in the standard alphabet.
pub fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    // The slice has exactly the length of the encoding.
    let written = STANDARD.encode_slice(bytes, &mut out[start..]);
    out.truncate(start + written.unwrap_or(0));
}

/// Returns base64 in the URL-safe alphabet, without padding, for paths and queries.
pub fn base64url(bytes: &[u8]) -> String {
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads base64 of either alphabet, padded or not, and writes the bytes.
pub fn read_base64(out: &mut Vec<u8>, text: &[u8]) -> bool {
    let url = text.iter().any(|b| matches!(b, b'-' | b'_'));
    let engine = if url { &URL_SAFE } else { &STANDARD };
    engine.decode_vec(text, out).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn integers_print_as_decimals() {
        for value in [0, 1, 9, 10, 99, 100, 101, 1_000, 12_345, u64::MAX, 1 << 53] {
            assert_eq!(text(|out| int(out, value)), value.to_string());
        }
        for value in [0, -1, i64::MIN, i64::MAX] {
            assert_eq!(text(|out| signed(out, value)), value.to_string());
        }
    }

    #[test]
    fn doubles_print_shortest_and_round_trip() {
        for (value, want) in [
            (5.0, "5"),
            (-5.0, "-5"),
            (0.0, "0"),
            (-0.0, "-0"),
            (1.5, "1.5"),
            (0.1, "0.1"),
            (9_007_199_254_740_992.0, "9007199254740992"),
            (1152921504606846976.0, "1152921504606846976"),
            (1e300, "1e300"),
            (1.5e-10, "1.5e-10"),
            (f64::MAX, "1.7976931348623157e308"),
            (5e-324, "5e-324"),
        ] {
            let written = text(|out| double(out, value));
            assert_eq!(written, want);
            assert_eq!(written.parse::<f64>().unwrap().to_bits(), value.to_bits());
        }
        for (value, want) in [
            (0.1, "0.1"),
            (f32::MAX, "3.4028235e38"),
            (16_777_216.0, "16777216"),
        ] {
            assert_eq!(text(|out| float(out, value)), want);
        }
    }

    #[test]
    fn strings_escape_only_what_json_requires() {
        for (value, want) in [
            ("", r#""""#),
            ("plain", r#""plain""#),
            ("a\"b\\c/d", r#""a\"b\\c/d""#),
            (
                "\n\r\t\u{8}\u{c}\u{0}\u{1f}\u{7f}",
                "\"\\n\\r\\t\\b\\f\\u0000\\u001f\u{7f}\"",
            ),
            (
                "é, 日本, 🦀 and more than sixteen",
                "\"é, 日本, 🦀 and more than sixteen\"",
            ),
        ] {
            assert_eq!(text(|out| string(out, value.as_bytes()).unwrap()), want);
        }
        for bad in [
            &b"\xff"[..],
            b"plain for sixteen bytes \xc3",
            b"\"\xed\xa0\x80",
        ] {
            assert_eq!(
                string(&mut Vec::new(), bad),
                Err(StringFailure::NotUtf8),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn base64_is_read_in_every_spelling() {
        for text in ["+/8=", "+/8", "-_8=", "-_8"] {
            let mut out = Vec::new();
            assert!(read_base64(&mut out, text.as_bytes()), "{text}");
            assert_eq!(out, [0xfb, 0xff], "{text}");
        }
        for text in ["+_8=", "a", "a b=", "=", "ab=c"] {
            assert!(!read_base64(&mut Vec::new(), text.as_bytes()), "{text}");
        }
        assert_eq!(text(|out| base64(out, &[0xfb, 0xff])), "+/8=");
        assert_eq!(base64url(&[0xfb, 0xff]), "-_8");
    }
}
