//! A credential and its lifetime.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use tokio::time::Instant;
use url::Url;

use crate::credentials::aksk::Keys;

/// A token is refreshed this long before it expires, but at most a fifth of its lifetime
/// before.
const REFRESH_MARGIN: Duration = Duration::from_secs(60);

/// Lower bound of a token's lifetime, so that a wrong clock does not cause a login for each
/// call.
const MIN_LIFETIME: Duration = Duration::from_secs(1);

/// What authorizes a call towards an upstream.
#[derive(Debug)]
pub struct Credential {
    /// The endpoint of the service, from the login's catalog.
    pub endpoint: Option<Url>,
    /// The project id, from the login.
    pub project_id: Option<String>,
    /// What else the login says of where its token is valid.
    pub scope: Scope,
    pub(super) authorization: Authorization,
    /// When its login started.
    pub(super) requested_at: Instant,
    /// Whether the credential before was rejected.
    pub(super) follows_rejection: bool,
    /// None: valid until it is rejected.
    expiry: Option<Expiry>,
}

/// Where a token is valid, by its login. For people: no call uses it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The name of the project.
    pub project: Option<String>,
    /// The region of the endpoint in the catalog.
    pub region: Option<String>,
}

/// How a request is authorized.
#[derive(Clone, Debug)]
pub(super) enum Authorization {
    None,
    Headers(Vec<(HeaderName, HeaderValue)>),
    Signature(Box<Keys>),
}

/// The result of a login.
#[derive(Debug)]
pub(super) struct IssuedToken {
    pub authorization: Authorization,
    /// From the start of the login on. None: valid until it is rejected.
    pub lifetime: Option<Duration>,
    pub endpoint: Option<Url>,
    pub project_id: Option<String>,
    pub scope: Scope,
}

#[derive(Clone, Copy, Debug)]
struct Expiry {
    refresh_at: Instant,
    expires_at: Instant,
    /// Somewhat before the token expires, since a request takes time to reach the upstream.
    usable_until: Instant,
}

/// Whether a credential can be used now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Validity {
    /// It can be used.
    Valid,
    /// It can be used, and must be refreshed in the background.
    ExpiresSoon,
    /// It cannot be used.
    Expired,
}

impl Credential {
    /// Returns one that never expires.
    pub(super) fn fixed(authorization: Authorization) -> Arc<Self> {
        let token = IssuedToken {
            authorization,
            lifetime: None,
            endpoint: None,
            project_id: None,
            scope: Scope::default(),
        };
        Arc::new(Self::new(token, Instant::now(), false))
    }

    pub(super) fn new(token: IssuedToken, requested_at: Instant, follows_rejection: bool) -> Self {
        let expiry = token.lifetime.map(|lifetime| {
            let lifetime = lifetime.clamp(MIN_LIFETIME, Duration::from_secs(365 * 86_400));
            let margin = REFRESH_MARGIN.min(lifetime / 5);
            Expiry {
                refresh_at: requested_at + lifetime - margin,
                expires_at: requested_at + lifetime,
                usable_until: requested_at + lifetime - margin / 4,
            }
        });
        Self {
            endpoint: token.endpoint,
            project_id: token.project_id,
            scope: token.scope,
            authorization: token.authorization,
            requested_at,
            follows_rejection,
            expiry,
        }
    }

    /// Returns when it expires; none if it never does.
    pub(super) fn expires_at(&self) -> Option<Instant> {
        self.expiry.map(|expiry| expiry.expires_at)
    }

    pub(super) fn validity(&self, now: Instant) -> Validity {
        match self.expiry {
            Some(expiry) if now >= expiry.usable_until => Validity::Expired,
            Some(expiry) if now >= expiry.refresh_at => Validity::ExpiresSoon,
            _ => Validity::Valid,
        }
    }
}

/// Returns the lifetime of a token, from the request on. It is the difference of two times
/// of the server's clock (`expires` and `issued`, else the reply's `Date`), so that the
/// gateway's clock may be wrong. None if `expires` is invalid.
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
    let lifetime = expires
        .duration_since(issued.unwrap_or(now))
        .unwrap_or_default();
    // Keystone truncates times to seconds: a token issued late in a second expires up
    // to a second earlier than the difference says. Observed on Keystone 30.
    let truncated = if issued.is_some() { 1 } else { 0 };
    Some(lifetime.saturating_sub(Duration::from_secs(truncated)))
}

/// Parses an RFC 3339 time; without a time zone it is UTC.
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
    fn times_without_zone_are_utc() {
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
    fn lifetime_is_the_difference_of_server_times() {
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
    async fn credential_is_refreshed_before_it_expires() {
        for (lifetime, soon, expired) in [
            (Some(86_400.0), 86_340.0, 86_385.0),
            (Some(5.0), 4.0, 4.75),
            (Some(0.0), 0.8, 0.95),
        ] {
            let requested_at = Instant::now();
            let token = IssuedToken {
                authorization: Authorization::None,
                lifetime: lifetime.map(Duration::from_secs_f64),
                endpoint: None,
                project_id: None,
                scope: Scope::default(),
            };
            let credential = Credential::new(token, requested_at, false);
            let at = |secs: f64| credential.validity(requested_at + Duration::from_secs_f64(secs));
            assert_eq!(at(0.0), Validity::Valid);
            assert_eq!(at(soon - 0.01), Validity::Valid);
            assert_eq!(at(soon), Validity::ExpiresSoon);
            assert_eq!(at(expired - 0.01), Validity::ExpiresSoon);
            assert_eq!(at(expired), Validity::Expired);
        }
        let credential = Credential::fixed(Authorization::None);
        let hundred_years = Duration::from_secs(100 * 365 * 86_400);
        assert_eq!(
            credential.validity(Instant::now() + hundred_years),
            Validity::Valid
        );
    }
}
