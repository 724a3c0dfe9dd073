//! The memory accounts of one connection: one for each client that calls on it.

use std::net::IpAddr;
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::memory::{ClientKey, Memory, MemoryBudget};

/// Opens the accounts of a connection.
#[derive(Debug)]
pub(super) struct ConnectionMemory {
    budget: MemoryBudget,
    /// The client of calls without a token: by its certificate or its address.
    peer: ClientKey,
    of_peer: OnceLock<Memory>,
    /// That of the first token: most connections have one.
    of_token: OnceLock<([u8; 32], Memory)>,
    /// Those of further tokens, which a proxy sends on one connection.
    of_other_tokens: Mutex<Vec<([u8; 32], Memory)>>,
}

impl ConnectionMemory {
    pub(super) fn new(
        budget: MemoryBudget,
        address: IpAddr,
        certificate: Option<[u8; 32]>,
    ) -> Self {
        Self {
            budget,
            peer: match certificate {
                Some(digest) => ClientKey::Certificate(digest),
                None => ClientKey::of_address(address),
            },
            of_peer: OnceLock::new(),
            of_token: OnceLock::new(),
            of_other_tokens: Mutex::default(),
        }
    }

    /// Returns what a call with this token, whose digest it is, draws from. `None` for a call
    /// without a token that the gateway has checked.
    pub(super) fn of(&self, token: Option<[u8; 32]>) -> Memory {
        let Some(token) = token else {
            return (self.of_peer)
                .get_or_init(|| self.budget.open(self.peer))
                .clone();
        };
        let open = || (token, self.budget.open(ClientKey::Token(token)));
        let (first, memory) = self.of_token.get_or_init(open);
        if *first == token {
            return memory.clone();
        }
        let mut others = (self.of_other_tokens.lock()).unwrap_or_else(PoisonError::into_inner);
        match others.iter().find(|(other, _)| *other == token) {
            Some((_, memory)) => memory.clone(),
            None => {
                others.push(open());
                others[others.len() - 1].1.clone()
            }
        }
    }
}
