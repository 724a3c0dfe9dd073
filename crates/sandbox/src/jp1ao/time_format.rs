//! Time formats of JP1/AO, in the time zone of Japan (V12 2.2.12).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost_types::Timestamp;

use crate::message::seconds;

const DAY: u64 = 24 * 3600;
/// Time zone of the server.
const ZONE: Duration = Duration::from_secs(9 * 3600);

/// Truncates to the precision of the format, so that a parsed time equals the stored
/// one.
pub fn truncate(at: SystemTime) -> SystemTime {
    let fine = at
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .subsec_nanos()
        % 1_000_000;
    at - Duration::from_nanos(u64::from(fine))
}

/// Formats as `2026-11-21T11:31:11.457+09:00`, or with `+0900`.
pub fn format(at: SystemTime, compact: bool) -> String {
    let local = at + ZONE;
    let millis = Timestamp::from(local).nanos / 1_000_000;
    let zone = if compact { "+0900" } else { "+09:00" };
    seconds(local).replace('Z', &format!(".{millis:03}{zone}"))
}

/// Parses a time between 1970 and 2200. Missing parts after the year default to their
/// minimum, a missing zone to the server's; in a filter nothing may be missing. An
/// offset without a colon is rejected, although the server itself may write one.
pub fn parse(text: &str, complete: bool) -> Option<SystemTime> {
    let (local, offset) = zone(text)?;
    if complete && offset.is_none() {
        return None;
    }
    let (date, time) = match local.split_once('T') {
        Some((date, time)) => (date, Some(time)),
        None => (local, None),
    };
    let mut date = date.split('-');
    let year = number(date.next()?, 4)?;
    let [month, day] = [date.next(), date.next()].map(|part| part.map(|part| number(part, 2)));
    let mut time = time.map(|time| time.split(':'));
    let mut next = || Some(time.as_mut()?.next()).flatten();
    let [hour, minute, second] = [next(), next(), next()];
    if date.next().is_some() || next().is_some() {
        return None;
    }
    let (second, fraction) =
        match second.map(|second| second.split_once('.').unwrap_or((second, "0"))) {
            Some((second, fraction)) => (Some(second), fraction),
            None => (None, "0"),
        };
    let parts = [month, day, hour.map(two), minute.map(two), second.map(two)];
    if complete && parts.iter().any(Option::is_none) {
        return None;
    }
    // After a missing part all following ones must be missing.
    if parts
        .iter()
        .skip_while(|part| part.is_some())
        .any(Option::is_some)
    {
        return None;
    }
    let mut values = [1u8, 1, 0, 0, 0];
    for (value, part) in values.iter_mut().zip(parts) {
        if let Some(part) = part {
            *value = u8::try_from(part?).ok()?;
        }
    }
    let [month, day, hour, minute, second] = values;
    if !(1..=9).contains(&fraction.len()) || !(1970..=2200).contains(&year) {
        return None;
    }
    let nanos = number(&format!("{fraction:0<9}"), 9)?;
    let timestamp =
        Timestamp::date_time_nanos(i64::from(year), month, day, hour, minute, second, nanos)
            .ok()?;
    let at = SystemTime::try_from(timestamp).ok()?;
    match offset.unwrap_or((true, ZONE)) {
        (true, offset) => at.checked_sub(offset),
        (false, offset) => at.checked_add(offset),
    }
}

/// Splits off the zone: whether it is east of Greenwich, and the offset.
fn zone(text: &str) -> Option<(&str, Option<(bool, Duration)>)> {
    let Some(at) = text.find('T') else {
        return Some((text, None));
    };
    if let Some(local) = text.strip_suffix('Z') {
        return Some((local, Some((true, Duration::ZERO))));
    }
    let Some(sign) = text.get(at..)?.find(['+', '-']).map(|found| found + at) else {
        return Some((text, None));
    };
    let (hours, minutes) = text.get(sign + 1..)?.split_once(':')?;
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    if hours > 14 || minutes > 59 {
        return None;
    }
    let offset = Duration::from_secs(u64::from(hours) * 3600 + u64::from(minutes) * 60);
    Some((
        text.get(..sign)?,
        Some((text.as_bytes().get(sign) == Some(&b'+'), offset)),
    ))
}

fn two(text: &str) -> Option<u32> {
    number(text, 2)
}

fn number(text: &str, digits: usize) -> Option<u32> {
    let plain = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// A day of the server's calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(u64);

impl Day {
    pub fn of(at: SystemTime) -> Self {
        let local = at.duration_since(UNIX_EPOCH).unwrap_or_default() + ZONE;
        Self(local.as_secs() / DAY)
    }

    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// 0 is Sunday: 1970 began on a Thursday.
    pub fn weekday(self) -> u64 {
        (self.0 + 4) % 7
    }

    /// From 1.
    pub fn day_of_month(self) -> u32 {
        let text = seconds(UNIX_EPOCH + Duration::from_secs(self.0 * DAY));
        text.get(8..10)
            .and_then(|day| day.parse().ok())
            .unwrap_or(1)
    }

    pub fn is_last_of_month(self) -> bool {
        self.next().day_of_month() == 1
    }

    /// Returns a time on this day.
    pub fn at(self, time: Duration) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.0 * DAY) + time - ZONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formatted_time_can_be_parsed() {
        let at = UNIX_EPOCH + Duration::from_millis(1_438_232_139_457);
        // From `tests/seeds/5-jp1ao-service-release.json`.
        assert_eq!(format(at, false), "2015-07-30T13:55:39.457+09:00");
        assert_eq!(format(at, true), "2015-07-30T13:55:39.457+0900");
        assert_eq!(parse(&format(at, false), true), Some(at));
        assert_eq!(parse(&format(at, true), false), None, "not taken back");
    }

    #[test]
    fn parts() {
        for (text, complete, want) in [
            (
                "2015-07-30T13:55:39.457+09:00",
                true,
                Some("2015-07-30T13:55:39.457+09:00"),
            ),
            (
                "2015-07-30T04:55:39.457Z",
                true,
                Some("2015-07-30T13:55:39.457+09:00"),
            ),
            (
                "2015-07-29T23:25:39.5-05:30",
                true,
                Some("2015-07-30T13:55:39.500+09:00"),
            ),
            (
                "2015-07-30T13:55:39",
                false,
                Some("2015-07-30T13:55:39.000+09:00"),
            ),
            (
                "2015-07-30T13:55",
                false,
                Some("2015-07-30T13:55:00.000+09:00"),
            ),
            (
                "2015-07-30T13",
                false,
                Some("2015-07-30T13:00:00.000+09:00"),
            ),
            ("2015-07-30", false, Some("2015-07-30T00:00:00.000+09:00")),
            ("2015-07", false, Some("2015-07-01T00:00:00.000+09:00")),
            ("2015", false, Some("2015-01-01T00:00:00.000+09:00")),
            ("2015", true, None),
            ("2015-07-30T13:55:39", true, None),
            ("2015-07-30T13:55+09:00", true, None),
            ("2015-07-30T13:55:39+0900", false, None),
            ("2015-02-30", false, None),
            ("2015-7-30", false, None),
            ("2015-07-30T25:00:00Z", false, None),
            ("2015-07-30-01", false, None),
            ("2015-07-30T13:55:39:01Z", false, None),
            ("2015T10:00:00Z", false, None),
            ("2015-07-30T13:55:39.1234567890Z", false, None),
            ("2015-07-30T13:55:39.Z", false, None),
            ("2015-07-30T13:55:39+99:00", false, None),
            ("9999", false, None),
            ("T", false, None),
            ("Z", false, None),
            ("", false, None),
            ("日本", false, None),
            ("2015-07-30T日+09:00", false, None),
        ] {
            let got = parse(text, complete).map(|at| format(at, false));
            assert_eq!(got.as_deref(), want, "{text}");
        }
    }

    #[test]
    fn days() {
        let at = |text: &str| Day::of(parse(text, false).unwrap());
        for (text, weekday, day_of_month, last) in [
            ("2026-11-21", 6, 21, false),
            ("2024-02-28", 3, 28, false),
            ("2024-02-29", 4, 29, true),
            ("2026-12-31", 4, 31, true),
        ] {
            let day = at(text);
            assert_eq!(
                (day.weekday(), day.day_of_month(), day.is_last_of_month()),
                (weekday, day_of_month, last),
                "{text}"
            );
        }
        // Midnight in Japan is the previous afternoon in Greenwich.
        assert_eq!(at("2026-11-20T15:00:00Z"), at("2026-11-21"));
        assert_eq!(
            format(at("2026-11-21").at(Duration::from_secs(3600)), false),
            "2026-11-21T01:00:00.000+09:00"
        );
    }
}
