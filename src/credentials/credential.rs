//! What a login brings, and how long it holds.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use tokio::time::Instant;
use url::Url;

use crate::credentials::aksk::Keys;

/// A lease is renewed this long before it ends, or a fifth of its life before.
const MARGIN: Duration = Duration::from_secs(60);

/// Nothing is believed to live shorter, so that a wrong clock does not make each
/// call log in.
const SHORTEST: Duration = Duration::from_secs(1);

/// The right to call, for a time.
#[derive(Debug)]
pub struct Lease {
    /// Where the service is, when the login said so.
    pub endpoint: Option<Url>,
    /// The project, when the login said so.
    pub project_id: Option<String>,
    pub(super) authorization: Authorization,
    /// When it was asked for.
    pub(super) since: Instant,
    /// Asked for because the one before was refused.
    pub(super) follows_refusal: bool,
    /// None: it holds until it is refused.
    life: Option<Life>,
}

/// How requests show the right.
#[derive(Clone, Debug)]
pub(super) enum Authorization {
    None,
    Headers(Vec<(HeaderName, HeaderValue)>),
    Signature(Box<Keys>),
}

/// What a login brought.
#[derive(Debug)]
pub(super) struct Grant {
    pub authorization: Authorization,
    /// From the request on. None: it holds until it is refused.
    pub lifetime: Option<Duration>,
    pub endpoint: Option<Url>,
    pub project_id: Option<String>,
}

#[derive(Clone, Copy, Debug)]
struct Life {
    renew_at: Instant,
    /// A little before it ends, since a request takes a while to be judged.
    usable_until: Instant,
}

/// Where a lease stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Good for now.
    Fresh,
    /// Good still; its successor should be asked for.
    Aging,
    /// No longer to be used.
    Spent,
}

impl Lease {
    /// One that never changes.
    pub(super) fn fixed(authorization: Authorization) -> Arc<Self> {
        let grant = Grant {
            authorization,
            lifetime: None,
            endpoint: None,
            project_id: None,
        };
        Arc::new(Self::new(grant, Instant::now(), false))
    }

    pub(super) fn new(grant: Grant, since: Instant, follows_refusal: bool) -> Self {
        let life = grant.lifetime.map(|lifetime| {
            let lifetime = lifetime.clamp(SHORTEST, Duration::from_secs(365 * 86_400));
            let margin = MARGIN.min(lifetime / 5);
            Life {
                renew_at: since + lifetime - margin,
                usable_until: since + lifetime - margin / 4,
            }
        });
        Self {
            endpoint: grant.endpoint,
            project_id: grant.project_id,
            authorization: grant.authorization,
            since,
            follows_refusal,
            life,
        }
    }

    pub(super) fn phase(&self, now: Instant) -> Phase {
        match self.life {
            Some(life) if now >= life.usable_until => Phase::Spent,
            Some(life) if now >= life.renew_at => Phase::Aging,
            _ => Phase::Fresh,
        }
    }
}

/// How long a token lives, from the request on. Counted on the server's own
/// clock where it tells one (`issued`, else the reply's `Date`), so that ours may
/// be wrong. None where `expires` cannot be read.
pub(super) fn lifetime(
    issued: Option<&str>,
    expires: &str,
    reply: &HeaderMap,
    now: SystemTime,
) -> Option<Duration> {
    let expires = time(expires)?;
    let issued = issued.and_then(time).or_else(|| {
        let date = reply.get(header::DATE)?.to_str().ok()?;
        httpdate::parse_http_date(date).ok()
    });
    let life = expires
        .duration_since(issued.unwrap_or(now))
        .unwrap_or_default();
    // Keystone cuts times to whole seconds, so that a token made late in a second
    // ends up to a second earlier than the difference says. Seen: Keystone 30.
    let cut = if issued.is_some() { 1 } else { 0 };
    Some(life.saturating_sub(Duration::from_secs(cut)))
}

/// Reads an RFC 3339 time; without a zone it is UTC.
fn time(text: &str) -> Option<SystemTime> {
    let read = |text: &str| -> Option<SystemTime> {
        text.parse::<prost_types::Timestamp>().ok()?.try_into().ok()
    };
    let text = text.trim();
    let zoned = text.ends_with(['Z', 'z'])
        || text
            .rfind(['+', '-'])
            .is_some_and(|sign| text.find('T').is_some_and(|t| sign > t));
    if zoned {
        read(text)
    } else {
        read(&format!("{text}Z"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let want = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_231_866);
        for (text, want) in [
            ("2026-11-21T03:31:06.000000Z", Some(want)),
            ("2026-11-21T03:31:06Z", Some(want)),
            ("2026-11-21T03:31:06", Some(want)),
            ("2026-11-20T22:31:06.000-05:00", Some(want)),
            ("2026-11-21T04:31:06+01:00", Some(want)),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(time(text), want, "{text}");
        }
    }

    #[test]
    fn lifetimes() {
        let now = time("2026-11-21T02:00:00Z").unwrap();
        let dated = HeaderMap::from_iter([(
            header::DATE,
            HeaderValue::from_static("Sat, 21 Nov 2026 02:59:00 GMT"),
        )]);
        let expires = "2026-11-21T03:00:00.000000Z";
        for (issued, reply, want) in [
            (Some("2026-11-21T02:59:55.000000Z"), &dated, Some(4)),
            (None, &dated, Some(59)),
            (None, &HeaderMap::new(), Some(3600)),
            (Some("2026-11-21T04:00:00Z"), &dated, Some(0)),
        ] {
            assert_eq!(
                lifetime(issued, expires, reply, now).map(|d| d.as_secs()),
                want,
                "{issued:?}"
            );
        }
        assert_eq!(lifetime(None, "never", &dated, now), None);
    }

    #[tokio::test(start_paused = true)]
    async fn phases() {
        for (lifetime, aging, spent) in [
            (Some(86_400.0), 86_340.0, 86_385.0),
            (Some(5.0), 4.0, 4.75),
            (Some(0.0), 0.8, 0.95),
        ] {
            let since = Instant::now();
            let grant = Grant {
                authorization: Authorization::None,
                lifetime: lifetime.map(Duration::from_secs_f64),
                endpoint: None,
                project_id: None,
            };
            let lease = Lease::new(grant, since, false);
            let at = |secs: f64| lease.phase(since + Duration::from_secs_f64(secs));
            assert_eq!(at(0.0), Phase::Fresh);
            assert_eq!(at(aging - 0.01), Phase::Fresh);
            assert_eq!(at(aging), Phase::Aging);
            assert_eq!(at(spent - 0.01), Phase::Aging);
            assert_eq!(at(spent), Phase::Spent);
        }
        let lease = Lease::fixed(Authorization::None);
        let ages = Duration::from_secs(100 * 365 * 86_400);
        assert_eq!(lease.phase(Instant::now() + ages), Phase::Fresh);
    }
}
