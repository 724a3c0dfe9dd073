//! JP1/AO: HTTP Basic first, then the HSSO token of the latest response.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderValue, header};
use tokio::time::Instant;

use super::header_value;
use crate::credentials::credential::{Authorization, Credential, IssuedToken, Scope, Validity};

/// Age until which a token is used; the server expires it at 1,000 s.
/// Source: docs/apis/jp1ao.md, "Authentication and transport".
const MAX_TOKEN_AGE: Duration = Duration::from_secs(800);

/// The credentials of one user.
#[derive(Debug)]
pub(super) struct HssoSession {
    basic: Arc<Credential>,
    current: ArcSwap<Credential>,
}

impl HssoSession {
    pub(super) fn new(basic: Arc<Credential>) -> Self {
        Self {
            current: ArcSwap::new(basic.clone()),
            basic,
        }
    }

    pub(super) fn get(&self) -> Arc<Credential> {
        let credential = self.current.load_full();
        if credential.validity(Instant::now()) == Validity::Valid {
            return credential;
        }
        self.current
            .compare_and_swap(&credential, self.basic.clone());
        self.basic.clone()
    }

    /// Falls back from a rejected token to Basic. Returns false for a rejected password.
    pub(super) fn invalidate(&self, credential: &Arc<Credential>) -> bool {
        if Arc::ptr_eq(credential, &self.basic) {
            return false;
        }
        self.current
            .compare_and_swap(credential, self.basic.clone());
        true
    }

    /// Stores the token of a response. The same token again keeps its age.
    pub(super) fn observe(&self, headers: &HeaderMap) {
        let Some(value) = next_token(headers) else {
            return;
        };
        let current = self.current.load();
        let same = matches!(&current.authorization, Authorization::Headers(present)
            if present.iter().any(|(_, present)| *present == value));
        if same && current.validity(Instant::now()) == Validity::Valid {
            return;
        }
        let token = IssuedToken {
            authorization: Authorization::Headers(vec![(header::AUTHORIZATION, value)]),
            // A `Credential` with such a lifetime is valid until 60 s before its end.
            lifetime: Some(MAX_TOKEN_AGE + Duration::from_secs(60)),
            endpoint: None,
            project_id: None,
            scope: Scope::default(),
        };
        self.current
            .store(Arc::new(Credential::new(token, Instant::now(), false)));
    }
}

/// Returns the next `authorization`, from a response's `www-authenticate`: in a success it
/// is a token, not a challenge. Source: docs/apis/jp1ao.md, "Response headers".
fn next_token(headers: &HeaderMap) -> Option<HeaderValue> {
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

    fn response(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::WWW_AUTHENTICATE, value.parse().unwrap())])
    }

    fn authorization(credential: &Credential) -> &str {
        match &credential.authorization {
            Authorization::Headers(headers) => headers[0].1.to_str().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn session() -> HssoSession {
        let basic = header_value("password", "Basic dTpw").unwrap();
        HssoSession::new(Credential::fixed(Authorization::Headers(vec![(
            header::AUTHORIZATION,
            basic,
        )])))
    }

    #[test]
    fn token_is_read_from_www_authenticate() {
        for (value, want) in [
            ("HSSO 0123=_V0300", Some("HSSO 0123=_V0300")),
            ("hsso  abc ", Some("HSSO abc")),
            ("HSSO", None),
            ("HSSO ", None),
            ("HSSO realm a", None),
            ("Basic realm=\"x\"", None),
        ] {
            let next = next_token(&response(value));
            assert_eq!(next.as_ref().map(|v| v.to_str().unwrap()), want, "{value}");
            assert!(next.is_none_or(|v| v.is_sensitive()), "{value}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn latest_token_is_used_until_it_is_old_or_rejected() {
        let session = session();
        let basic = session.get();
        assert_eq!(authorization(&basic), "Basic dTpw");

        session.observe(&response("HSSO one"));
        let one = session.get();
        assert_eq!(authorization(&one), "HSSO one");

        // The same token again keeps its age.
        tokio::time::advance(Duration::from_secs(799)).await;
        session.observe(&response("HSSO one"));
        assert!(Arc::ptr_eq(&session.get(), &one));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(Arc::ptr_eq(&session.get(), &basic));

        session.observe(&response("HSSO two"));
        let two = session.get();
        session.observe(&response("HSSO three"));
        assert!(session.invalidate(&two), "another one is current");
        assert_eq!(authorization(&session.get()), "HSSO three");
        assert!(session.invalidate(&session.get()), "falls back to Basic");
        assert!(Arc::ptr_eq(&session.get(), &basic));
        assert!(!session.invalidate(&basic), "a rejected password is final");
    }
}
