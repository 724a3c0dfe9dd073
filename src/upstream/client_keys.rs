//! Which client a call counts for, in the limits that the clients of an upstream share.
//!
//! A client that has authenticated itself to the gateway counts for itself. Where clients send
//! their own credentials to the upstream, the gateway cannot verify them: a client that invents
//! another token for each call would be a thousand clients. So such a credential counts for
//! its address, too, until the upstream has accepted it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::downstream::{Client, ClientKey, Downstream};

/// Slots for accepted credentials. Of two in the same slot the latest counts.
const SLOTS: usize = 4_096;

/// The credentials of clients that the upstream has accepted, by their digests.
#[derive(Debug)]
pub(super) struct AcceptedCredentials(Option<Box<[AtomicU64]>>);

impl AcceptedCredentials {
    /// Remembers nothing unless the upstream receives the credentials of clients.
    pub(super) fn new(is_passthrough: bool) -> Self {
        Self(is_passthrough.then(|| (0..SLOTS).map(|_| AtomicU64::new(0)).collect()))
    }

    /// Returns which client a call counts for.
    pub(super) fn client(&self, client: &Downstream) -> Client {
        let peer = client.peer.key;
        match self.credential(client) {
            Some((key, slot)) => Client {
                key,
                group: (slot.load(Relaxed) != key.digest()).then_some(peer),
            },
            None => Client::from(peer),
        }
    }

    /// Remembers that the upstream has accepted the credentials of a client.
    pub(super) fn accept(&self, client: &Downstream) {
        if let Some((key, slot)) = self.credential(client)
            // Every write takes the cache line from other cores.
            && slot.load(Relaxed) != key.digest()
        {
            slot.store(key.digest(), Relaxed);
        }
    }

    /// Returns the credential that identifies a client at the upstream, and its slot.
    fn credential(&self, client: &Downstream) -> Option<(ClientKey, &AtomicU64)> {
        let slots = self.0.as_deref()?;
        if client.peer.is_authenticated() {
            return None;
        }
        let credential = client.token.as_ref().or(client.authorization.as_ref())?;
        let key = ClientKey::of_token(credential);
        let slot = slots.get(key.digest() as usize % slots.len())?;
        Some((key, slot))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::downstream::{Identity, Peer};

    #[test]
    fn credential_counts_for_its_address_until_it_is_accepted() {
        let client = |peer: Peer, token: Option<&'static str>| Downstream {
            peer,
            token: token.map(HeaderValue::from_static),
            ..Downstream::default()
        };
        let address = Peer::at([192, 0, 2, 1].into());
        let identity = Identity::parse("certificate:a").unwrap();
        let authenticated = Peer::from(std::sync::Arc::new(identity));
        let token = |text| ClientKey::of_token(&HeaderValue::from_static(text));
        let (a, b) = (token("a"), token("b"));
        let (by_address, by_certificate) = (address.key, authenticated.key);
        for (is_passthrough, peer, token, key, before, after) in [
            (true, address.clone(), Some("a"), a, by_address, a),
            (
                true,
                address.clone(),
                None,
                by_address,
                by_address,
                by_address,
            ),
            (
                true,
                authenticated,
                Some("a"),
                by_certificate,
                by_certificate,
                by_certificate,
            ),
            (
                false,
                address.clone(),
                Some("a"),
                by_address,
                by_address,
                by_address,
            ),
        ] {
            let accepted = AcceptedCredentials::new(is_passthrough);
            let downstream = client(peer, token);
            let client = accepted.client(&downstream);
            assert_eq!((client.key, client.verified()), (key, before), "{token:?}");
            accepted.accept(&downstream);
            let client = accepted.client(&downstream);
            assert_eq!((client.key, client.verified()), (key, after), "{token:?}");
        }
        let accepted = AcceptedCredentials::new(true);
        accepted.accept(&client(address.clone(), Some("a")));
        let other = accepted.client(&client(address, Some("b")));
        assert_eq!((other.key, other.verified()), (b, by_address));
    }
}
