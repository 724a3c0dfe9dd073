//! JP1/AO: HTTP Basic at first, then the token that came with the last answer.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderValue, header};
use tokio::time::Instant;

use super::header_value;
use crate::credentials::credential::{Authorization, Grant, Lease, Phase};

/// A token is no longer used at this age; the server ends it at 1,000 s.
/// Source: JP1/AO Command and API Reference 12, 2.2.2.
const LIFETIME: Duration = Duration::from_secs(800);

/// The credentials of one user.
#[derive(Debug)]
pub(super) struct Session {
    basic: Arc<Lease>,
    current: ArcSwap<Lease>,
}

impl Session {
    pub(super) fn new(basic: Arc<Lease>) -> Self {
        Self {
            current: ArcSwap::new(basic.clone()),
            basic,
        }
    }

    pub(super) fn lease(&self) -> Arc<Lease> {
        let lease = self.current.load_full();
        if lease.phase(Instant::now()) == Phase::Fresh {
            return lease;
        }
        self.current.compare_and_swap(&lease, self.basic.clone());
        self.basic.clone()
    }

    /// A refused token falls back to Basic; a refused password is final.
    pub(super) fn refuse(&self, lease: &Arc<Lease>) -> bool {
        if Arc::ptr_eq(lease, &self.basic) {
            return false;
        }
        self.current.compare_and_swap(lease, self.basic.clone());
        true
    }

    /// Takes the token of an answer. The same one again keeps its age.
    pub(super) fn observe(&self, headers: &HeaderMap) {
        let Some(value) = next(headers) else { return };
        let current = self.current.load();
        let same = matches!(&current.authorization, Authorization::Headers(present)
            if present.iter().any(|(_, present)| *present == value));
        if same && current.phase(Instant::now()) == Phase::Fresh {
            return;
        }
        let grant = Grant {
            authorization: Authorization::Headers(vec![(header::AUTHORIZATION, value)]),
            // `Lease` keeps a margin of 60 s from lives that long.
            lifetime: Some(LIFETIME + Duration::from_secs(60)),
            endpoint: None,
            project_id: None,
        };
        self.current
            .store(Arc::new(Lease::new(grant, Instant::now(), false)));
    }
}

/// The `authorization` that an answer's `www-authenticate` brings. On success it
/// is no challenge but the next token. Source: as above, 2.2.13.
fn next(headers: &HeaderMap) -> Option<HeaderValue> {
    headers
        .get_all(header::WWW_AUTHENTICATE)
        .iter()
        .find_map(|value| {
            let (scheme, token) = value.to_str().ok()?.trim().split_once(' ')?;
            let token = token.trim();
            if !scheme.eq_ignore_ascii_case("HSSO") || token.is_empty() || token.contains(' ') {
                return None;
            }
            header_value("token", &format!("HSSO {token}")).ok()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::WWW_AUTHENTICATE, value.parse().unwrap())])
    }

    fn shown(lease: &Lease) -> &str {
        match &lease.authorization {
            Authorization::Headers(headers) => headers[0].1.to_str().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn session() -> Session {
        let basic = header_value("password", "Basic dTpw").unwrap();
        Session::new(Lease::fixed(Authorization::Headers(vec![(
            header::AUTHORIZATION,
            basic,
        )])))
    }

    #[test]
    fn tokens() {
        for (value, want) in [
            ("HSSO 0123=_V0300", Some("HSSO 0123=_V0300")),
            ("hsso  abc ", Some("HSSO abc")),
            ("HSSO", None),
            ("HSSO ", None),
            ("HSSO realm a", None),
            ("Basic realm=\"x\"", None),
        ] {
            let next = next(&answer(value));
            assert_eq!(next.as_ref().map(|v| v.to_str().unwrap()), want, "{value}");
            assert!(next.is_none_or(|v| v.is_sensitive()), "{value}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_session() {
        let session = session();
        let basic = session.lease();
        assert_eq!(shown(&basic), "Basic dTpw");

        session.observe(&answer("HSSO one"));
        let one = session.lease();
        assert_eq!(shown(&one), "HSSO one");

        // The same token again is not younger for it.
        tokio::time::advance(Duration::from_secs(799)).await;
        session.observe(&answer("HSSO one"));
        assert!(Arc::ptr_eq(&session.lease(), &one));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(Arc::ptr_eq(&session.lease(), &basic));

        session.observe(&answer("HSSO two"));
        let two = session.lease();
        session.observe(&answer("HSSO three"));
        assert!(session.refuse(&two), "there is a newer one");
        assert_eq!(shown(&session.lease()), "HSSO three");
        assert!(session.refuse(&session.lease()), "Basic again");
        assert!(Arc::ptr_eq(&session.lease(), &basic));
        assert!(!session.refuse(&basic), "a wrong password stays wrong");
    }
}
