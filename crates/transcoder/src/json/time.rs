//! Times, durations and field masks as text.

use super::print::int;
use crate::schema::snake_case;

/// 0001-01-01T00:00:00Z, the first time of a Timestamp, in seconds since 1970.
const MIN_TIMESTAMP_SECONDS: i64 = -62_135_596_800;
/// 9999-12-31T23:59:59Z, the last time of a Timestamp, in seconds since 1970.
const MAX_TIMESTAMP_SECONDS: i64 = 253_402_300_799;
/// The longest Duration in seconds, about 10,000 years.
const MAX_DURATION_SECONDS: i64 = 315_576_000_000;

/// A Timestamp or a Duration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seconds {
    pub seconds: i64,
    pub nanos: i32,
}

impl Seconds {
    pub fn of_millis(millis: i64) -> Option<Self> {
        let time = Self {
            seconds: millis.div_euclid(1_000),
            nanos: millis.rem_euclid(1_000) as i32 * 1_000_000,
        };
        time.is_timestamp().then_some(time)
    }

    /// Returns milliseconds since 1970, rounded down.
    pub fn millis(self) -> i64 {
        self.seconds * 1_000 + i64::from(self.nanos / 1_000_000)
    }

    pub fn is_timestamp(self) -> bool {
        (MIN_TIMESTAMP_SECONDS..=MAX_TIMESTAMP_SECONDS).contains(&self.seconds)
            && (0..1_000_000_000).contains(&self.nanos)
    }

    pub fn is_duration(self) -> bool {
        (-MAX_DURATION_SECONDS..=MAX_DURATION_SECONDS).contains(&self.seconds)
            && (-999_999_999..=999_999_999).contains(&self.nanos)
            && (self.seconds == 0 || self.nanos == 0 || (self.seconds < 0) == (self.nanos < 0))
    }
}

/// Writes `2015-01-31T15:12:36Z`, with 3, 6 or 9 fractional digits if needed. The time
/// must be in range.
pub fn write_timestamp(out: &mut Vec<u8>, time: Seconds) {
    let (year, month, day) = date(time.seconds.div_euclid(86_400));
    let second = time.seconds.rem_euclid(86_400) as u32;
    let mut text = *b"0000-00-00T00:00:00";
    let mut put = |at: usize, value: u32| {
        text[at] = b'0' + (value / 10) as u8;
        text[at + 1] = b'0' + (value % 10) as u8;
    };
    put(0, year / 100);
    put(2, year % 100);
    put(5, month);
    put(8, day);
    put(11, second / 3_600);
    put(14, second / 60 % 60);
    put(17, second % 60);
    out.extend_from_slice(&text);
    write_fraction(out, time.nanos.unsigned_abs());
    out.push(b'Z');
}

/// Writes `2015-01-31T15:12:36.000+00:00`: always milliseconds, rounded down, and a
/// numeric offset. The time must be in range.
pub fn write_offset_time(out: &mut Vec<u8>, time: Seconds) {
    let seconds = Seconds { nanos: 0, ..time };
    write_timestamp(out, seconds);
    // The `Z`.
    out.pop();
    let millis = time.nanos.unsigned_abs() / 1_000_000;
    let digit = |value: u32| b'0' + (value % 10) as u8;
    out.extend_from_slice(&[b'.', digit(millis / 100), digit(millis / 10), digit(millis)]);
    out.extend_from_slice(b"+00:00");
}

/// Writes `3.500s`. The duration must be in range.
pub fn write_duration(out: &mut Vec<u8>, duration: Seconds) {
    if duration.seconds < 0 || duration.nanos < 0 {
        out.push(b'-');
    }
    int(out, duration.seconds.unsigned_abs());
    write_fraction(out, duration.nanos.unsigned_abs());
    out.push(b's');
}

fn write_fraction(out: &mut Vec<u8>, nanos: u32) {
    if nanos == 0 {
        return;
    }
    let (mut rest, digits) = if nanos.is_multiple_of(1_000_000) {
        (nanos / 1_000_000, 3)
    } else if nanos.is_multiple_of(1_000) {
        (nanos / 1_000, 6)
    } else {
        (nanos, 9)
    };
    let mut text = *b".000000000";
    for digit in text[1..=digits].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&text[..=digits]);
}

/// Returns year, month and day of a number of days since 1970-01-01. Years begin in
/// March here, so that the leap day is the last day of a year.
fn date(days: i64) -> (u32, u32, u32) {
    // Days since 0000-03-01; positive, since timestamps begin in year 1.
    let days = (days + 719_468) as u64;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let january = month >= 10;
    let year = era * 400 + year_of_era + u64::from(january);
    let month = if january { month - 9 } else { month + 3 };
    (year as u32, month as u32, day as u32)
}

/// Returns days since 1970-01-01.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year.div_euclid(400) * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Reads a time: RFC 3339, or a variant that upstreams send: no zone (UTC), `+0900`
/// without colon, a space instead of the `T` or before the zone, no seconds, a date
/// only. Fractions are truncated to nanoseconds.
pub fn read_timestamp(text: &str) -> Option<Seconds> {
    let mut rest = text.trim().as_bytes();
    let year = digits(&mut rest, 4)?;
    expect(&mut rest, b"-")?;
    let month = digits(&mut rest, 2)?;
    expect(&mut rest, b"-")?;
    let day = digits(&mut rest, 2)?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if !(1..=12).contains(&month) || !(1..=length).contains(&day) {
        return None;
    }
    let mut seconds = days(year, month, day) * 86_400;
    let mut nanos = 0;
    if expect(&mut rest, b"Tt ").is_some() {
        let hour = digits(&mut rest, 2)?;
        expect(&mut rest, b":")?;
        let minute = digits(&mut rest, 2)?;
        let mut second = 0;
        if expect(&mut rest, b":").is_some() {
            second = digits(&mut rest, 2)?;
            if expect(&mut rest, b".").is_some() {
                nanos = fraction(&mut rest)?;
            }
        }
        // A leap second becomes the first second of the next minute.
        if hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        seconds += hour * 3_600 + minute * 60 + second - zone(&mut rest)?;
    }
    let time = Seconds { seconds, nanos };
    (rest.is_empty() && time.is_timestamp()).then_some(time)
}

/// Reads the offset from UTC, in seconds.
fn zone(rest: &mut &[u8]) -> Option<i64> {
    let _ = expect(rest, b" ");
    let Some((&sign, after)) = rest.split_first() else {
        return Some(0);
    };
    *rest = after;
    let sign = match sign {
        b'Z' | b'z' => return Some(0),
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let hours = digits(rest, 2)?;
    let mut minutes = 0;
    if !rest.is_empty() {
        let _ = expect(rest, b":");
        minutes = digits(rest, 2)?;
    }
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 3_600 + minutes * 60))
}

fn digits(rest: &mut &[u8], count: usize) -> Option<i64> {
    let (digits, after) = rest.split_at_checked(count)?;
    let mut value = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value * 10 + i64::from(digit - b'0');
    }
    *rest = after;
    Some(value)
}

fn expect(rest: &mut &[u8], any: &[u8]) -> Option<()> {
    let (first, after) = rest.split_first()?;
    any.contains(first).then(|| *rest = after)
}

fn fraction(rest: &mut &[u8]) -> Option<i32> {
    let count = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    let (digits, after) = rest.split_at(count);
    *rest = after;
    let nanos = digits.iter().chain(std::iter::repeat(&b'0')).take(9);
    (count > 0).then(|| nanos.fold(0, |sum, digit| sum * 10 + i32::from(digit - b'0')))
}

/// Reads `3.5s`.
pub fn read_duration(text: &str) -> Option<Seconds> {
    let text = text.trim().strip_suffix('s')?;
    let (negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let mut rest = text.as_bytes();
    let count = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    // More digits than any duration in range.
    if count == 0 || count > 15 {
        return None;
    }
    let mut seconds = digits(&mut rest, count)?;
    let mut nanos = 0;
    if expect(&mut rest, b".").is_some() {
        if rest.len() > 9 {
            return None;
        }
        nanos = fraction(&mut rest)?;
    }
    if negative {
        (seconds, nanos) = (-seconds, -nanos);
    }
    let duration = Seconds { seconds, nanos };
    (rest.is_empty() && duration.is_duration()).then_some(duration)
}

/// Writes one path of a field mask in lowerCamel; false where the letters would not
/// convert back to those of the path. A name that `is_field` says to be the exact name of a
/// field is its own JSON name.
pub fn write_mask_path(out: &mut Vec<u8>, path: &str, is_field: impl Fn(&str) -> bool) -> bool {
    for (at, name) in path.split('.').enumerate() {
        if at > 0 {
            out.push(b'.');
        }
        let has_upper = name.bytes().any(|byte| byte.is_ascii_uppercase());
        if has_upper && is_field(name) {
            out.extend_from_slice(name.as_bytes());
        } else if !write_mask_name(out, name) {
            return false;
        }
    }
    true
}

fn write_mask_name(out: &mut Vec<u8>, name: &str) -> bool {
    let mut bytes = name.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'_' => match bytes.next() {
                Some(letter) if letter.is_ascii_lowercase() => {
                    out.push(letter.to_ascii_uppercase())
                }
                // A digit has no upper case: the JSON name of `foo_1` is `foo1`.
                Some(digit) if digit.is_ascii_digit() => out.push(digit),
                _ => return false,
            },
            b'A'..=b'Z' | b',' => return false,
            _ => out.push(byte),
        }
    }
    true
}

/// Returns the proto path of a JSON path of a field mask. A path with an underscore is
/// not lowerCamel: it is a proto path already. Each other name is the field that `field`
/// returns for it, or its form in snake_case.
pub fn read_mask_path<'n>(path: &str, field: impl Fn(&str) -> Option<&'n str>) -> String {
    if path.contains('_') {
        return path.to_owned();
    }
    let names = path.split('.').map(|name| match field(name) {
        Some(field) => field.to_owned(),
        None => snake_case(name),
    });
    names.collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: i64, nanos: i32) -> Option<Seconds> {
        Some(Seconds { seconds, nanos })
    }

    #[test]
    fn timestamps_are_read_in_all_upstream_formats() {
        for (text, want) in [
            ("2015-01-31T15:12:36Z", at(1_422_717_156, 0)),
            ("2015-01-31t15:12:36z", at(1_422_717_156, 0)),
            ("2015-01-31T15:12:36", at(1_422_717_156, 0)),
            ("2015-01-31 15:12:36", at(1_422_717_156, 0)),
            (" 2015-01-31T15:12:36 +00:00 ", at(1_422_717_156, 0)),
            ("2019-03-04T06:36:45.455761", at(1_551_681_405, 455_761_000)),
            ("2015-02-01T00:12:36+0900", at(1_422_717_156, 0)),
            ("2015-02-01T00:12:36+09:00", at(1_422_717_156, 0)),
            ("2015-02-01T00:12:36+09", at(1_422_717_156, 0)),
            (
                "2015-01-31T09:12:36.653-06:00",
                at(1_422_717_156, 653_000_000),
            ),
            ("2015-01-31T15:12", at(1_422_717_120, 0)),
            ("2015-01-31", at(1_422_662_400, 0)),
            ("2016-12-31T23:59:60Z", at(1_483_228_800, 0)),
            ("1969-12-31T23:59:59.9999999999Z", at(-1, 999_999_999)),
            ("0001-01-01T00:00:00Z", at(MIN_TIMESTAMP_SECONDS, 0)),
            (
                "9999-12-31T23:59:59.999999999Z",
                at(MAX_TIMESTAMP_SECONDS, 999_999_999),
            ),
            ("2000-02-29T00:00:00Z", at(951_782_400, 0)),
            ("1900-02-29T00:00:00Z", None),
            ("2015-13-01T00:00:00Z", None),
            ("2015-00-01T00:00:00Z", None),
            ("2015-04-31T00:00:00Z", None),
            ("2015-01-31T24:00:00Z", None),
            ("2015-01-31T15:60:00Z", None),
            ("2015-01-31T15:12:36.Z", None),
            ("2015-01-31T15:12:36Zx", None),
            ("2015-01-31T15:12:36+9", None),
            ("2015-01-31T15:12:36+24:00", None),
            ("0001-01-01T00:00:00+01:00", None),
            ("9999-12-31T23:59:59-01:00", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(read_timestamp(text), want, "{text}");
        }
    }

    #[test]
    fn timestamps_print_the_digits_they_need() {
        for (time, want) in [
            (at(0, 0), "1970-01-01T00:00:00Z"),
            (at(-1, 1), "1969-12-31T23:59:59.000000001Z"),
            (at(1_422_717_156, 500_000_000), "2015-01-31T15:12:36.500Z"),
            (
                at(1_422_717_156, 455_761_000),
                "2015-01-31T15:12:36.455761Z",
            ),
            (at(MIN_TIMESTAMP_SECONDS, 0), "0001-01-01T00:00:00Z"),
            (at(MAX_TIMESTAMP_SECONDS, 0), "9999-12-31T23:59:59Z"),
            (at(951_782_400, 0), "2000-02-29T00:00:00Z"),
        ] {
            let mut out = Vec::new();
            write_timestamp(&mut out, time.unwrap());
            assert_eq!(String::from_utf8(out).unwrap(), want);
        }
    }

    #[test]
    fn every_calendar_day_round_trips() {
        for seconds in (MIN_TIMESTAMP_SECONDS..=MAX_TIMESTAMP_SECONDS).step_by(86_400 * 13 + 3_601)
        {
            let time = Seconds { seconds, nanos: 0 };
            let mut out = Vec::new();
            write_timestamp(&mut out, time);
            assert_eq!(read_timestamp(str::from_utf8(&out).unwrap()), Some(time));
        }
    }

    #[test]
    fn durations_are_read_and_written() {
        for (text, want) in [
            ("0s", at(0, 0)),
            ("3.500s", at(3, 500_000_000)),
            ("-3.500s", at(-3, -500_000_000)),
            ("-0.000000001s", at(0, -1)),
            ("315576000000s", at(MAX_DURATION_SECONDS, 0)),
        ] {
            assert_eq!(read_duration(text), want, "{text}");
            let mut out = Vec::new();
            write_duration(&mut out, want.unwrap());
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
        for text in [
            "",
            "s",
            "3",
            "3.s",
            ".5s",
            "--3s",
            "3.0000000001s",
            "315576000001s",
            "1h",
        ] {
            assert_eq!(read_duration(text), None, "{text}");
        }
    }

    #[test]
    fn mask_paths_round_trip_between_cases() {
        for (snake, camel) in [("foo_bar.baz", "fooBar.baz"), ("a", "a"), ("a_b_c", "aBC")] {
            let mut out = Vec::new();
            assert!(write_mask_path(&mut out, snake, |_| false));
            assert_eq!(out, camel.as_bytes());
            assert_eq!(read_mask_path(camel, |_| None), snake);
        }
        let mut out = Vec::new();
        assert!(write_mask_path(&mut out, "foo_1.bar_2_baz", |_| false));
        assert_eq!(out, b"foo1.bar2Baz");
        for proto in ["foo_1", "foo_bar.baz_2", "labels_of.Some_Key"] {
            assert_eq!(read_mask_path(proto, |_| None), proto);
        }
        for path in ["fooBar", "foo_", "foo__bar", "_", "a,b"] {
            assert!(!write_mask_path(&mut Vec::new(), path, |_| false), "{path}");
        }
    }
}
