use http::{HeaderName, HeaderValue};
use tonic::Code;

use super::*;
use crate::config::ClientToken;
use crate::downstream::Identity;

fn headers(values: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in values {
        let name = HeaderName::from_static(name);
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

#[test]
fn tokens_are_read_from_both_places_and_must_agree() {
    let token = |name, token: &str| ClientToken::named(name, &token.into());
    let mut config = Config::sandbox();
    config.client_tokens = vec![token("ci", "old"), token("ci", "new"), token("ops", "o")];
    let access = Access::new(&config, None, None).unwrap();
    const AUTH: &str = "authorization";
    for (metadata, want) in [
        (vec![(TOKEN, "old")], Ok(("token:ci", false))),
        (vec![(TOKEN, "new")], Ok(("token:ci", false))),
        (vec![(AUTH, "Bearer o")], Ok(("token:ops", true))),
        (vec![(AUTH, "bEARER   o ")], Ok(("token:ops", true))),
        (vec![(AUTH, "Bearer\to")], Ok(("token:ops", true))),
        // Another name for the same client.
        (
            vec![(TOKEN, "old"), (AUTH, "Bearer new")],
            Ok(("token:ci", true)),
        ),
        // The credentials of an upstream.
        (
            vec![(TOKEN, "o"), (AUTH, "Bearer x")],
            Ok(("token:ops", false)),
        ),
        (
            vec![(TOKEN, "o"), (AUTH, "Basic eDp5")],
            Ok(("token:ops", false)),
        ),
        (
            vec![(TOKEN, "o"), (AUTH, "Bearero")],
            Ok(("token:ops", false)),
        ),
        (vec![(TOKEN, "o"), (AUTH, "")], Ok(("token:ops", false))),
        (
            vec![(TOKEN, "o"), (AUTH, "Bearer new")],
            Err("different clients"),
        ),
        (vec![(TOKEN, "x"), (AUTH, "Bearer o")], Err("not a valid")),
        (
            vec![(TOKEN, "o"), (TOKEN, "o")],
            Err("several `drawbridge-token`"),
        ),
        (
            vec![(AUTH, "Bearer o"), (AUTH, "Bearer x")],
            Err("several `authorization`"),
        ),
        (vec![(AUTH, "Bearer x")], Err("not a valid")),
        (vec![(AUTH, "Basic eDp5")], Err("requires a client token")),
        (vec![(TOKEN, "")], Err("not a valid")),
        (vec![], Err("requires a client token")),
    ] {
        let got = access.authenticate(&headers(&metadata), &Peer::default());
        match (got, want) {
            (Ok(caller), Ok((identity, by_bearer))) => {
                assert_eq!(caller.peer.identity(), Some(identity), "{metadata:?}");
                assert_eq!(caller.by_bearer, by_bearer, "{metadata:?}");
            }
            (Err(refusal), Err(text)) => {
                let error = refusal.into_error();
                assert_eq!(error.code(), Code::Unauthenticated);
                assert!(error.to_string().contains(text), "{metadata:?}: {error}");
                assert!(!error.to_string().contains("new"), "{error}");
            }
            (got, want) => panic!("{metadata:?}: {got:?}, not {want:?}"),
        }
    }
}

#[test]
fn without_tokens_the_identity_is_that_of_the_connection() {
    let access = Access::default();
    let identity = Arc::new(Identity::parse("certificate:a").unwrap());
    for peer in [Peer::from(identity), Peer::default()] {
        // Its metadata belongs to an upstream.
        let metadata = headers(&[("authorization", "Bearer x")]);
        let caller = access.authenticate(&metadata, &peer).unwrap();
        assert_eq!((caller.peer, caller.by_bearer), (peer, false));
    }
}
