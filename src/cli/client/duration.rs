//! Durations in arguments.

use std::time::Duration;

/// Parses `90`, `30s`, `10m` or `1h30m`.
pub(in crate::cli) fn parse(text: &str) -> Result<Duration, String> {
    let invalid = || "write seconds, or for example 30s, 10m or 1h30m".to_owned();
    let mut seconds = 0_u64;
    let mut rest = text;
    // Each unit at most once, and the longest first.
    let mut last_unit = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit());
        let (number, unit) = rest.split_at(digits.unwrap_or(rest.len()));
        let (unit_seconds, unit_len) = match unit.as_bytes().first() {
            Some(b's') => (1, 1),
            Some(b'm') => (60, 1),
            Some(b'h') => (3_600, 1),
            // A bare number.
            None if last_unit == u64::MAX => (1, 0),
            _ => return Err(invalid()),
        };
        if unit_seconds >= last_unit {
            return Err(invalid());
        }
        last_unit = unit_seconds;
        let number: u64 = number.parse().map_err(|_| invalid())?;
        let part = number.checked_mul(unit_seconds).ok_or_else(invalid)?;
        seconds = seconds.checked_add(part).ok_or_else(invalid)?;
        rest = unit.get(unit_len..).unwrap_or_default();
    }
    match seconds {
        0 => Err("must be longer than 0".to_owned()),
        // Longer ones overflow a clock.
        _ if seconds > MAX_TIMEOUT_SECONDS => Err("must be at most 10 years".to_owned()),
        seconds => Ok(Duration::from_secs(seconds)),
    }
}

/// Maximum of `--timeout`.
const MAX_TIMEOUT_SECONDS: u64 = 10 * 366 * 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_seconds_or_have_units() {
        for (text, want) in [
            ("90", Some(90)),
            ("1", Some(1)),
            ("30s", Some(30)),
            ("10m", Some(600)),
            ("2h", Some(7_200)),
            ("1h30m", Some(5_400)),
            ("1h0m5s", Some(3_605)),
            ("0", None),
            ("0s", None),
            ("", None),
            ("m", None),
            ("5m5", None),
            ("5m5m", None),
            ("5s1m", None),
            ("-1", None),
            ("1.5", None),
            ("1 m", None),
            ("1d", None),
            ("5é", None),
            ("99999999999999999999", None),
            ("9999999999999999999h", None),
            ("9999999999", None),
        ] {
            let got = parse(text).ok();
            assert_eq!(got, want.map(Duration::from_secs), "{text}");
        }
    }
}
