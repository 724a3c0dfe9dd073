//! Reads JSON tokens: numbers, strings with escapes, and values to skip. An error is a
//! position and what is wrong there.

use std::borrow::Cow;

use super::scan;

type Fault = (usize, &'static str);

/// Deepest nesting of objects and arrays in a skipped value.
const MAX_SKIPPED: usize = 100;

/// Returns the end of the number that begins at `at`.
pub fn number(text: &[u8], at: usize) -> Result<usize, Fault> {
    let digits = |from: usize| {
        let rest = text.get(from..).unwrap_or_default();
        from + rest.iter().take_while(|b| b.is_ascii_digit()).count()
    };
    let start = at + usize::from(text.get(at) == Some(&b'-'));
    let mut end = digits(start);
    if end == start || (text[start] == b'0' && end > start + 1) {
        return Err((at, "not a number"));
    }
    if text.get(end) == Some(&b'.') {
        let fraction = end + 1;
        end = digits(fraction);
        if end == fraction {
            return Err((at, "not a number"));
        }
    }
    if let Some(b'e' | b'E') = text.get(end) {
        let sign = matches!(text.get(end + 1), Some(b'+' | b'-'));
        let exponent = end + 1 + usize::from(sign);
        end = digits(exponent);
        if end == exponent {
            return Err((at, "not a number"));
        }
    }
    Ok(end)
}

/// The problem of a number that is too large for a double or a float.
pub const OVERFLOW: &str = "the number is too large";

/// Numbers that are not JSON, but that some writers write, such as Python's `json`.
const SPECIAL: [&[u8]; 3] = [b"NaN", b"Infinity", b"-Infinity"];

/// Returns the end of the number at `at` that is not JSON: `NaN`, `Infinity`, `-Infinity`.
pub fn special(text: &[u8], at: usize) -> Option<usize> {
    let rest = text.get(at..)?;
    let found = SPECIAL.iter().find(|special| rest.starts_with(special))?;
    Some(at + found.len())
}

/// Returns the value of a number that is not JSON.
pub fn special_value(text: &[u8]) -> Option<f64> {
    match text {
        b"NaN" => Some(f64::NAN),
        b"Infinity" => Some(f64::INFINITY),
        b"-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

/// A number as an integer.
#[derive(Debug, PartialEq, Eq)]
pub enum Number {
    Integer(i128),
    /// It has a fraction.
    Fraction,
    /// It has more than 38 digits.
    TooLarge,
}

/// Reads a JSON number as an integer: `5`, `5.0`, `1e3`.
pub fn integer(text: &[u8]) -> Number {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let sign = |value: i128| if negative { -value } else { value };
    if digits.len() <= 18 && digits.iter().all(u8::is_ascii_digit) {
        let value = digits
            .iter()
            .fold(0_i64, |sum, digit| sum * 10 + i64::from(digit - b'0'));
        return Number::Integer(sign(value.into()));
    }
    let at = digits.iter().position(|b| matches!(b, b'e' | b'E'));
    let (mantissa, exponent) = digits.split_at(at.unwrap_or(digits.len()));
    // A longer exponent counts as the largest one.
    let exponent = exponent.get(1..).map_or(0, |text| {
        let (negative, text) = match text {
            [b'-', text @ ..] => (true, text),
            [b'+', text @ ..] | text => (false, text),
        };
        let size = text.iter().fold(0_i64, |sum, digit| {
            sum.saturating_mul(10)
                .saturating_add(i64::from(digit - b'0'))
        });
        if negative { -size } else { size }
    });
    let point = mantissa.iter().position(|&b| b == b'.');
    let fraction = point.map_or(0, |point| mantissa.len() - point - 1);
    let all = || mantissa.iter().filter(|&&b| b != b'.');
    let zeros = all().rev().take_while(|&&b| b == b'0').count();
    let count = all().count();
    if zeros == count {
        return Number::Integer(0);
    }
    let leading = all().take_while(|&&b| b == b'0').count();
    let significant = count - zeros - leading;
    // The value is the significant digits times ten to this power.
    let power = exponent
        .saturating_sub(fraction as i64)
        .saturating_add(zeros as i64);
    if power < 0 {
        return Number::Fraction;
    }
    if power.saturating_add(significant as i64) > 38 {
        return Number::TooLarge;
    }
    let value = all()
        .skip(leading)
        .take(significant)
        .fold(0_i128, |sum, digit| sum * 10 + i128::from(digit - b'0'));
    Number::Integer(sign(value * 10_i128.pow(power as u32)))
}

/// Reads a JSON number as a double, and whether an integer is exact. A number that is
/// too large for a double is an error.
pub fn double(text: &[u8]) -> Result<(f64, bool), &'static str> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let is_integer = digits.iter().all(u8::is_ascii_digit);
    if is_integer && digits.len() <= 15 {
        let value = digits
            .iter()
            .fold(0_u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        let value = value as f64;
        return Ok((
            if digits.len() < text.len() {
                -value
            } else {
                value
            },
            true,
        ));
    }
    let text = str::from_utf8(text).map_err(|_| "not a number")?;
    let value: f64 = text.parse().map_err(|_| "not a number")?;
    if value.is_infinite() {
        return Err(OVERFLOW);
    }
    let exact = match digits.len() {
        _ if !is_integer => true,
        // Less than 2^64, so that the conversion back is exact.
        0..=19 => text.trim_start_matches('-').parse() == Ok(value.abs() as u64),
        // `{:.0}` prints all digits of a double.
        _ => format!("{:.0}", value.abs()).as_bytes() == digits,
    };
    Ok((value, exact))
}

/// Reads a JSON number as a float.
pub fn float(text: &[u8]) -> Result<f32, &'static str> {
    let text = str::from_utf8(text).map_err(|_| "not a number")?;
    let value: f32 = text.parse().map_err(|_| "not a number")?;
    if value.is_infinite() {
        return Err(OVERFLOW);
    }
    Ok(value)
}

/// Reads `true`, `True`, `false`...
pub fn boolean(text: &[u8]) -> Result<bool, &'static str> {
    if text.eq_ignore_ascii_case(b"true") {
        Ok(true)
    } else if text.eq_ignore_ascii_case(b"false") {
        Ok(false)
    } else {
        Err("")
    }
}

/// Writes the content of the string that begins at `at`, after its quote; returns the
/// position after the closing quote. An unpaired surrogate becomes U+FFFD.
pub fn unescape(text: &[u8], mut at: usize, out: &mut Vec<u8>) -> Result<usize, Fault> {
    loop {
        let end = at + scan::plain(&text[at..]).0;
        out.extend_from_slice(&text[at..end]);
        at = end;
        match text.get(at) {
            Some(b'"') => return Ok(at + 1),
            Some(b'\\') => {}
            Some(_) => return Err((at, "a control character in a string")),
            None => return Err((at, "the string is not terminated")),
        }
        let plain = match text.get(at + 1) {
            Some(byte @ (b'"' | b'\\' | b'/')) => *byte,
            Some(b'b') => 0x08,
            Some(b'f') => 0x0c,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => {
                let mut code = hex(text, at + 2)?;
                at += 6;
                if (0xd800..0xdc00).contains(&code)
                    && text[at..].starts_with(b"\\u")
                    && let low = hex(text, at + 2)?
                    && (0xdc00..0xe000).contains(&low)
                {
                    code = 0x1_0000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                    at += 6;
                }
                let c = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            _ => return Err((at, "not a JSON escape sequence")),
        };
        out.push(plain);
        at += 2;
    }
}

/// Returns where the content of a string, which [`unescape`] accepts, has an unpaired surrogate.
pub fn unpaired_surrogate(content: &[u8]) -> Option<usize> {
    let code = |at: usize| match content.get(at..at + 2) {
        Some(b"\\u") => hex(content, at + 2).ok(),
        _ => None,
    };
    let mut at = 0;
    loop {
        at += content.get(at..)?.iter().position(|&byte| byte == b'\\')?;
        at += match (code(at), code(at + 6)) {
            (Some(0xd800..0xdc00), Some(0xdc00..0xe000)) => 12,
            (Some(0xd800..0xe000), _) => return Some(at),
            (Some(_), _) => 6,
            (None, _) => 2,
        };
    }
}

fn hex(text: &[u8], at: usize) -> Result<u32, Fault> {
    let digits = text.get(at..at + 4).unwrap_or_default();
    let mut code = 0;
    for &digit in digits {
        let value = char::from(digit).to_digit(16);
        code = code << 4 | value.ok_or((at, "not four hexadecimal digits"))?;
    }
    match digits {
        [] => Err((at.min(text.len()), "the string is not terminated")),
        _ => Ok(code),
    }
}

/// Skips the value at `at` and checks its syntax; returns the position after it.
pub fn skip(text: &[u8], mut at: usize) -> Result<usize, Fault> {
    // One bit per open bracket: 1 for an object.
    let mut open = 0_u128;
    let mut depth = 0;
    loop {
        // At the beginning of a value.
        match text.get(at) {
            Some(b'"') => at = skip_string(text, at + 1)?,
            Some(b'-' | b'0'..=b'9' | b'N' | b'I') => {
                at = match special(text, at) {
                    Some(end) => end,
                    None => number(text, at)?,
                };
            }
            Some(&bracket @ (b'{' | b'[')) => {
                if depth == MAX_SKIPPED {
                    return Err((at, "nested too deep"));
                }
                at = space(text, at + 1);
                let object = bracket == b'{';
                if text.get(at) == Some(&(bracket + 2)) {
                    at += 1;
                } else {
                    depth += 1;
                    open = open << 1 | u128::from(object);
                    if object {
                        at = skip_name(text, at)?;
                    }
                    continue;
                }
            }
            _ => {
                let rest = text.get(at..).unwrap_or_default();
                let literals: [&[u8]; 3] = [b"null", b"true", b"false"];
                let Some(literal) = literals.into_iter().find(|l| rest.starts_with(l)) else {
                    return Err((at, "not a JSON value"));
                };
                at += literal.len();
            }
        }
        // At the end of a value.
        loop {
            if depth == 0 {
                return Ok(at);
            }
            at = space(text, at);
            let object = open & 1 == 1;
            match text.get(at) {
                Some(b',') => {
                    at = space(text, at + 1);
                    if object {
                        at = skip_name(text, at)?;
                    }
                    break;
                }
                Some(b'}') if object => {}
                Some(b']') if !object => {}
                _ => return Err((at, "expected `,` or the end of the object or array")),
            }
            at += 1;
            depth -= 1;
            open >>= 1;
        }
    }
}

/// Returns the members of the object that is the text, names unescaped and values as text;
/// none for another value. Ends at invalid JSON.
pub fn members(text: &[u8]) -> Option<impl Iterator<Item = (Cow<'_, [u8]>, &[u8])>> {
    let text = text.trim_ascii_start();
    if text.first() != Some(&b'{') {
        return None;
    }
    let mut next = Some(space(text, 1));
    Some(std::iter::from_fn(move || {
        let at = next.take()?;
        let start = skip_name(text, at).ok()?;
        let end = skip(text, start).ok()?;
        let after = space(text, end);
        next = (text.get(after) == Some(&b',')).then(|| space(text, after + 1));
        let plain = at + 1 + scan::plain(&text[at + 1..]).0;
        let name = match text.get(plain) {
            Some(b'"') => Cow::Borrowed(&text[at + 1..plain]),
            _ => {
                let mut name = Vec::new();
                unescape(text, at + 1, &mut name).ok()?;
                Cow::Owned(name)
            }
        };
        Some((name, &text[start..end]))
    }))
}

fn space(text: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = text.get(at) {
        at += 1;
    }
    at
}

/// Skips `"name" : `.
fn skip_name(text: &[u8], at: usize) -> Result<usize, Fault> {
    if text.get(at) != Some(&b'"') {
        return Err((at, "expected a member name in quotes"));
    }
    let at = space(text, skip_string(text, at + 1)?);
    match text.get(at) {
        Some(b':') => Ok(space(text, at + 1)),
        _ => Err((at, "expected `:`")),
    }
}

fn skip_string(text: &[u8], start: usize) -> Result<usize, Fault> {
    let end = start + scan::plain(&text[start..]).0;
    match text.get(end) {
        Some(b'"') => Ok(end + 1),
        // Rare: the unescaped content is dropped.
        _ => unescape(text, start, &mut Vec::new()),
    }
}
