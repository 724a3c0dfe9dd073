//! Divides a limited number of units among clients, without waiting: streams, poll loops.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::{Client, ClientKey, may_take, may_take_together};

/// The units that are taken, by client. One client gets at most three quarters of them, the
/// clients at an address whose credentials the upstream has not accepted at most seven eighths
/// together.
#[derive(Debug)]
pub struct ClientShares {
    max: usize,
    taken: usize,
    clients: HashMap<ClientKey, usize>,
    groups: HashMap<ClientKey, usize>,
}

/// Why a client gets no unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoShare {
    /// None is left.
    All,
    /// The others are for other clients.
    Client,
}

impl ClientShares {
    /// Divides `max` units.
    pub fn new(max: usize) -> Self {
        Self {
            max,
            taken: 0,
            clients: HashMap::new(),
            groups: HashMap::new(),
        }
    }

    /// Returns the number of units that are taken.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// Fails if the client may not take another unit.
    pub fn check(&self, client: Client) -> Result<(), NoShare> {
        let free = self.max.saturating_sub(self.taken);
        let units = |of: &HashMap<_, usize>, key| of.get(&key).copied().unwrap_or_default();
        let own = units(&self.clients, client.key);
        let group_may = |key| may_take_together(units(&self.groups, key), free);
        match may_take(own, free) && client.group.is_none_or(group_may) {
            true => Ok(()),
            false if free == 0 => Err(NoShare::All),
            false => Err(NoShare::Client),
        }
    }

    /// Takes a unit.
    pub fn take(&mut self, client: Client) -> Result<(), NoShare> {
        self.check(client)?;
        self.taken += 1;
        *self.clients.entry(client.key).or_default() += 1;
        if let Some(group) = client.group {
            *self.groups.entry(group).or_default() += 1;
        }
        Ok(())
    }

    /// Returns a unit that [`Self::take`] has taken for the same client.
    pub fn put_back(&mut self, client: Client) {
        self.taken -= 1;
        put_back(&mut self.clients, client.key);
        if let Some(group) = client.group {
            put_back(&mut self.groups, group);
        }
    }
}

fn put_back(units: &mut HashMap<ClientKey, usize>, key: ClientKey) {
    if let Entry::Occupied(mut own) = units.entry(key) {
        *own.get_mut() -= 1;
        if *own.get() == 0 {
            own.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes units until there is none for the client. Returns how many it got, and why no more.
    fn take_all(shares: &mut ClientShares, client: Client) -> (usize, NoShare) {
        let mut count = 0;
        loop {
            match shares.take(client) {
                Ok(()) => count += 1,
                Err(why) => return (count, why),
            }
        }
    }

    #[test]
    fn each_client_leaves_units_for_the_next_one() {
        let client = |number| Client::from(ClientKey::test(number));
        let mut shares = ClientShares::new(100);
        let got: Vec<_> = (1..6).map(|n| take_all(&mut shares, client(n))).collect();
        let counts: Vec<_> = got.iter().map(|(count, _)| *count).collect();
        assert_eq!(counts, [75, 19, 5, 1, 0]);
        let reasons: Vec<_> = got.iter().map(|(_, why)| *why).collect();
        assert_eq!(reasons[..3], [NoShare::Client; 3]);
        assert_eq!(reasons[3..], [NoShare::All; 2]);
        for _ in 0..75 {
            shares.put_back(client(1));
        }
        assert_eq!(shares.taken(), 25);
        assert_eq!(shares.clients.len(), 3);
        assert_eq!(take_all(&mut shares, client(6)), (57, NoShare::Client));
    }

    #[test]
    fn credentials_that_are_not_accepted_share_what_one_address_gets() {
        let address = ClientKey::test(1_000);
        let invented = |number| Client {
            key: ClientKey::test(number),
            group: Some(address),
        };
        let mut shares = ClientShares::new(80);
        // Another credential with each unit.
        let got = (0..80).take_while(|n| shares.take(invented(*n)).is_ok());
        assert_eq!(got.count(), 70);
        let other = Client::from(ClientKey::test(2_000));
        assert_eq!(take_all(&mut shares, other), (8, NoShare::Client));
        (0..70).for_each(|n| shares.put_back(invented(n)));
        assert!(shares.groups.is_empty());
        assert_eq!(shares.clients.len(), 1);
    }

    #[test]
    fn few_units_are_for_the_first_client() {
        for max in 1..4 {
            let mut shares = ClientShares::new(max);
            let client = Client::from(ClientKey::default());
            assert_eq!(take_all(&mut shares, client), (max, NoShare::All));
        }
    }
}
