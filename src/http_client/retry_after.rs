//! When to send again: `Retry-After`, and the headers of rate limits. Nothing here fails: a
//! header that cannot be parsed is ignored.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, StatusCode, header};

use drawbridge_transcoder::call::Reply;

/// Upper bound of a wait.
pub(crate) const MAX_RETRY_AFTER: Duration = Duration::from_secs(86_400);

/// The wait for a rate limit that names no time. Windows are minutes or hours.
const DEFAULT_RATE_LIMIT_WAIT: Duration = Duration::from_secs(60);

/// A larger number of seconds is a Unix time, not a duration.
const MIN_UNIX_SECS: f64 = 1e9;
/// A larger number is a Unix time in milliseconds.
const MIN_UNIX_MILLIS: f64 = 1e12;

/// Returns when to send again after this error reply: by `Retry-After`, else when the rate
/// limit that the reply names is reset. At most a day.
pub(crate) fn retry_after(reply: &Reply, now: SystemTime) -> Option<Duration> {
    retry_after_header(&reply.headers, now).or_else(|| {
        // Other errors may have rate limit headers as well, which are not their cause.
        let is_limit = matches!(reply.status.as_u16(), 403 | 429 | 503);
        is_limit.then(|| rate_limit_reset(&reply.headers, now))?
    })
}

/// Returns whether a 403 is a rate limit and no missing permission: it says when to send
/// again, or that nothing remains of the limit.
/// Source: "Rate limits for the REST API" of GitHub, which responds with 403 or 429.
pub(crate) fn is_rate_limit(reply: &Reply) -> bool {
    reply.status == StatusCode::FORBIDDEN
        && (reply.headers.contains_key(header::RETRY_AFTER) || is_exhausted(&reply.headers))
}

/// Returns when to send again after a rate limit.
pub(crate) fn rate_limit_wait(reply: &Reply, now: SystemTime) -> Duration {
    retry_after(reply, now).unwrap_or(DEFAULT_RATE_LIMIT_WAIT)
}

/// The longest `Retry-After` of successful replies: an API may say with a resource when it is
/// worth reading it again.
#[derive(Debug, Default)]
pub(crate) struct LongestWait(AtomicU64);

impl LongestWait {
    /// Records the `Retry-After` of a reply.
    pub(crate) fn observe(&self, headers: &HeaderMap) {
        if let Some(wait) = retry_after_header(headers, SystemTime::now()) {
            self.0.fetch_max(wait.as_millis() as u64, Relaxed);
        }
    }

    /// Returns the longest wait since the last call; zero if there was none.
    pub(crate) fn take(&self) -> Duration {
        Duration::from_millis(self.0.swap(0, Relaxed))
    }
}

/// Headers with milliseconds, which are more exact than `Retry-After` next to them. Sources:
/// Azure SDK for .NET, `DelayStrategy`; OpenAI's Python library, `_parse_retry_after_header`.
const MILLISECONDS: [&str; 2] = ["retry-after-ms", "x-ms-retry-after-ms"];

/// Parses `Retry-After`: seconds, also with a fraction, or an HTTP date relative to `now`.
/// A number that is too large means a day; a negative one and a date in the past are invalid,
/// since "at once" is what no server means with them. The longest of several values counts.
/// Source: RFC 9110, section 10.2.3.
pub(crate) fn retry_after_header(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let millis = MILLISECONDS.iter().find_map(|name| {
        let millis = number(headers.get(*name)?.to_str().ok()?)?;
        (millis >= 0.0).then(|| bounded(millis / 1_000.0))
    });
    if millis.is_some() {
        return millis;
    }
    headers
        .get_all(header::RETRY_AFTER)
        .iter()
        .filter_map(|value| {
            let text = value.to_str().ok()?.trim();
            match number(text) {
                Some(secs) => (secs >= 0.0).then(|| bounded(secs)),
                None => date(text, now).filter(|wait| !wait.is_zero()),
            }
        })
        .max()
}

/// Returns whether a header says that nothing remains of a rate limit.
fn is_exhausted(headers: &HeaderMap) -> bool {
    headers.iter().any(|(name, value)| {
        let Ok(text) = value.to_str() else {
            return false;
        };
        match name.as_str() {
            // `limit=100, remaining=0, reset=50`, later `"default";r=0;t=50`.
            // Source: draft-ietf-httpapi-ratelimit-headers, versions 07 and 08.
            "ratelimit" => parameters(text)
                .any(|(key, value)| matches!(key, "remaining" | "r") && value == 0.0),
            name => is_remaining(name) && number(text) == Some(0.0),
        }
    })
}

/// Whether the header has the rest of a limit: `RateLimit-Remaining`,
/// `X-RateLimit-Remaining`, `X-Rate-Limit-Remaining`, `X-RateLimit-Remaining-Minute`,
/// `Anthropic-RateLimit-Requests-Remaining`.
fn is_remaining(name: &str) -> bool {
    is_of_limit(name) && name.contains("remaining")
}

fn is_of_limit(name: &str) -> bool {
    name.contains("ratelimit") || name.contains("rate-limit")
}

/// Returns when an exhausted rate limit is reset; the last one if there are several.
fn rate_limit_reset(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    if !is_exhausted(headers) {
        return None;
    }
    // `X-RateLimit-Remaining-Requests: 0` is that of `X-RateLimit-Reset-Requests`.
    let of_exhausted = headers.iter().filter_map(|(name, value)| {
        let is_exhausted = is_remaining(name.as_str()) && number(value.to_str().ok()?) == Some(0.0);
        let reset = name.as_str().replacen("remaining", "reset", 1);
        let value = headers.get(&*reset).filter(|_| is_exhausted)?;
        reset_of(&reset, value.to_str().ok()?.trim(), now)
    });
    let all = headers
        .iter()
        .filter_map(|(name, value)| reset_of(name.as_str(), value.to_str().ok()?.trim(), now));
    of_exhausted.max().or_else(|| all.max())
}

/// Returns the time until the reset that a header names.
fn reset_of(name: &str, text: &str, now: SystemTime) -> Option<Duration> {
    if name == "ratelimit" {
        let resets = parameters(text).filter(|(key, _)| matches!(*key, "reset" | "t"));
        return resets.map(|(_, secs)| since(secs, now)).max();
    }
    // `RateLimit-Reset`, `X-RateLimit-Reset`, `X-Rate-Limit-Reset`, `X-RateLimit-Reset-After`,
    // `X-Rate-Limit-Retry-After-Seconds`.
    let is_reset = is_of_limit(name) && (name.contains("reset") || name.contains("retry-after"));
    if !is_reset {
        return None;
    }
    number(text)
        .map(|secs| since(secs, now))
        .or_else(|| date(text, now))
        .or_else(|| timestamp(text, now))
        .or_else(|| duration(text))
}

/// Parses a time like `2026-11-30T12:00:00Z`.
fn timestamp(text: &str, now: SystemTime) -> Option<Duration> {
    let at: prost_types::Timestamp = text.parse().ok()?;
    let at = SystemTime::try_from(at).ok()?;
    Some(
        at.duration_since(now)
            .unwrap_or_default()
            .min(MAX_RETRY_AFTER),
    )
}

/// Parses a duration as Go writes it: `6m0s`, `1.5s`, `20ms`. Source: `time.Duration.String`.
fn duration(text: &str) -> Option<Duration> {
    let mut secs = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (amount, after) = rest.split_at(digits);
        let amount: f64 = amount.parse().ok()?;
        let end = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        secs += amount
            * match unit {
                "h" => 3_600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = after;
    }
    (!text.is_empty()).then(|| bounded(secs))
}

/// Returns the wait until a reset, which is a number of seconds or a Unix time.
fn since(number: f64, now: SystemTime) -> Duration {
    if number < MIN_UNIX_SECS {
        return bounded(number);
    }
    let secs = match number < MIN_UNIX_MILLIS {
        true => number,
        false => number / 1_000.0,
    };
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    bounded(secs - now.as_secs_f64())
}

/// Returns the names and numbers of a structured header: `a=1, b;c=2`.
fn parameters(text: &str) -> impl Iterator<Item = (&str, f64)> {
    text.split([',', ';']).filter_map(|part| {
        let (key, value) = part.split_once('=')?;
        Some((key.trim(), number(value)?))
    })
}

/// Parses a decimal number, which may be quoted, or the first of a list.
fn number(text: &str) -> Option<f64> {
    let text = text.split([',', ';']).next()?.trim().trim_matches('"');
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    plain.then(|| text.parse().ok())?
}

fn date(text: &str, now: SystemTime) -> Option<Duration> {
    let at = httpdate::parse_http_date(text).ok()?;
    Some(
        at.duration_since(now)
            .unwrap_or_default()
            .min(MAX_RETRY_AFTER),
    )
}

fn bounded(secs: f64) -> Duration {
    Duration::from_secs_f64(secs.clamp(0.0, MAX_RETRY_AFTER.as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, headers: &[(&str, &str)]) -> Reply {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = http::HeaderName::from_bytes(name.as_bytes()).expect("a header name");
            map.append(name, value.parse().expect("a header value"));
        }
        Reply {
            status: StatusCode::from_u16(status).expect("a status"),
            headers: map,
            body: bytes::Bytes::new(),
        }
    }

    /// 1994-11-06 08:49:30 UTC.
    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(784_111_770)
    }

    #[test]
    fn retry_after_is_parsed() {
        for (text, want) in [
            ("7", Some(7_000)),
            (" 0 ", Some(0)),
            ("  7\t", Some(7_000)),
            ("1.5", Some(1_500)),
            ("0.25", Some(250)),
            ("\"3\"", Some(3_000)),
            ("5, 10", Some(5_000)),
            ("-1", None),
            ("-1.5", None),
            ("99999999999", Some(86_400_000)),
            ("99999999999999999999", Some(86_400_000)),
            ("99999999999999999999.9", Some(86_400_000)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(7_000)),
            (" Sunday, 06-Nov-94 08:49:37 GMT ", Some(7_000)),
            ("Sun Nov  6 08:49:37 1994", Some(7_000)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", None),
            ("Sunday, 06-Nov-94 08:00:00 GMT", None),
            ("Sun Nov  6 08:00:00 1994", None),
            ("Thu, 01 Jan 1970 00:00:00 GMT", None),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(86_400_000)),
            ("Sat, 06 Nov 2094 08:00:00 GMT", Some(86_400_000)),
            ("", None),
            (" ", None),
            ("\t", None),
            (",", None),
            (", 5", None),
            ("\"\"", None),
            ("0", Some(0)),
            ("00000000000000000000007", Some(7_000)),
            ("0.0000000000000000001", Some(0)),
            ("5.", Some(5_000)),
            ("18446744073709551616", Some(86_400_000)),
            ("-99999999999999999999", None),
            // Times that do not exist, and other formats than those of HTTP.
            ("Sun, 32 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 25:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08:49:37", None),
            ("06 Nov 1994 08:49:37 GMT", None),
            ("1994-11-06T08:49:37Z", None),
            ("5 seconds", None),
            ("0x10", None),
            ("\u{663}", None),
            ("--5", None),
            ("soon", None),
            ("+5", None),
            (".5", None),
            ("1.2.3", None),
            ("1e3", None),
            ("NaN", None),
            ("inf", None),
            ("5s", None),
            ("-", None),
        ] {
            let reply = reply(503, &[("retry-after", text)]);
            let want = want.map(Duration::from_millis);
            assert_eq!(retry_after(&reply, now()), want, "{text}");
        }
        assert_eq!(retry_after(&reply(503, &[]), now()), None);
        let two = reply(503, &[("retry-after", "3"), ("retry-after", "9")]);
        assert_eq!(retry_after(&two, now()), Some(Duration::from_secs(9)));
        for (values, want) in [
            (&["", "9"][..], Some(9)),
            (&["soon", "3", "-1"], Some(3)),
            (&["3", "Sun, 06 Nov 1994 08:49:37 GMT"], Some(7)),
            (&["3", "Sun, 06 Nov 1994 08:00:00 GMT"], Some(3)),
            (&["3", "99999999999999999999"], Some(86_400)),
            (&["", " "], None),
        ] {
            let headers: Vec<_> = values.iter().map(|text| ("retry-after", *text)).collect();
            let wait = retry_after(&reply(503, &headers), now());
            assert_eq!(wait, want.map(Duration::from_secs), "{values:?}");
        }
        for (headers, want) in [
            (&[("retry-after-ms", "1500")][..], Some(1_500)),
            (
                &[("retry-after", "2"), ("retry-after-ms", "1500")],
                Some(1_500),
            ),
            (&[("x-ms-retry-after-ms", "20")], Some(20)),
            (
                &[("retry-after", "2"), ("retry-after-ms", "soon")],
                Some(2_000),
            ),
            (
                &[("retry-after", "2"), ("retry-after-ms", "-5")],
                Some(2_000),
            ),
        ] {
            let wait = retry_after(&reply(503, headers), now());
            assert_eq!(wait, want.map(Duration::from_millis), "{headers:?}");
        }
        // A clock before 1970.
        let early = UNIX_EPOCH - Duration::from_secs(10);
        let date = reply(503, &[("retry-after", "Thu, 01 Jan 1970 00:00:05 GMT")]);
        assert_eq!(retry_after(&date, early), Some(Duration::from_secs(15)));
        // Digits beyond what a float can hold.
        let long = "9".repeat(1_000);
        let long = reply(503, &[("retry-after", &long)]);
        assert_eq!(retry_after(&long, now()), Some(MAX_RETRY_AFTER));
    }

    #[test]
    fn exhausted_rate_limits_are_recognized() {
        for (headers, want) in [
            (&[("retry-after", "3")][..], Some(3)),
            (&[("retry-after", "soon")], Some(60)),
            (&[("x-ratelimit-remaining", "0")], Some(60)),
            (&[("x-ratelimit-remaining", " 0 ")], Some(60)),
            (
                &[("x-rate-limit-remaining", "0"), ("x-rate-limit-reset", "9")],
                Some(9),
            ),
            (
                &[
                    ("x-ratelimit-remaining", "0"),
                    ("x-ratelimit-reset", "1784111770"),
                ],
                Some(86_400),
            ),
            (
                &[
                    ("x-ratelimit-remaining", "0"),
                    ("retry-after", "5"),
                    ("x-ratelimit-reset", "9"),
                ],
                Some(5),
            ),
            (
                &[
                    ("x-ratelimit-remaining-minute", "0"),
                    ("ratelimit-reset", "12"),
                ],
                Some(12),
            ),
            (
                &[("ratelimit-remaining", "0"), ("ratelimit-reset", "50")],
                Some(50),
            ),
            // OpenAI's: of two limits, only that which is exhausted counts.
            (
                &[
                    ("x-ratelimit-remaining-requests", "0"),
                    ("x-ratelimit-reset-requests", "1m30s"),
                    ("x-ratelimit-remaining-tokens", "5"),
                    ("x-ratelimit-reset-tokens", "6m0s"),
                ],
                Some(90),
            ),
            (
                &[
                    ("x-ratelimit-remaining", "0"),
                    ("x-ratelimit-reset", "2000ms"),
                ],
                Some(2),
            ),
            (
                &[
                    ("x-ratelimit-remaining", "0"),
                    ("x-ratelimit-reset", "9 apples"),
                ],
                Some(60),
            ),
            (
                &[
                    ("anthropic-ratelimit-requests-remaining", "0"),
                    ("anthropic-ratelimit-requests-reset", "1994-11-06T08:49:37Z"),
                ],
                Some(7),
            ),
            (
                &[
                    ("x-rate-limit-remaining", "0"),
                    ("x-rate-limit-retry-after-seconds", "13"),
                ],
                Some(13),
            ),
            (&[("ratelimit", "limit=100, remaining=0, reset=7")], Some(7)),
            (&[("ratelimit", "\"default\";r=0;t=8")], Some(8)),
            (&[("ratelimit", "\"a\";r=5;t=1, \"b\";r=0;t=20")], Some(20)),
            (&[("ratelimit", "\"default\";r=0")], Some(60)),
            (&[("ratelimit", "\"default\";r=1;t=8")], None),
            (&[("ratelimit", "limit=100, remaining=10, reset=7")], None),
            (
                &[("ratelimit-remaining", "1"), ("ratelimit-reset", "50")],
                None,
            ),
            (&[("x-ratelimit-remaining", "-1")], None),
            (&[("x-ratelimit-remaining", "")], None),
            (&[("x-ratelimit-limit", "0")], None),
            (&[], None),
        ] {
            let denied = reply(403, headers);
            let wait = is_rate_limit(&denied).then(|| rate_limit_wait(&denied, now()));
            assert_eq!(wait, want.map(Duration::from_secs), "{headers:?}");
            assert!(!is_rate_limit(&reply(404, headers)), "{headers:?}");
        }
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        for reset in [
            "1800000030",
            "1800000030000",
            "30",
            "Fri, 15 Jan 2027 08:00:30 GMT",
        ] {
            let limited = reply(
                429,
                &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", reset)],
            );
            let wait = retry_after(&limited, now);
            assert_eq!(wait, Some(Duration::from_secs(30)), "{reset}");
            let other = Reply {
                status: StatusCode::NOT_FOUND,
                ..limited
            };
            assert_eq!(retry_after(&other, now), None, "{reset}");
        }
    }
}
