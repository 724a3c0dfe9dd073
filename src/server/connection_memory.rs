//! The memory accounts of one connection: one for each client that calls on it.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::header_blocks::HeaderBlocks;
use crate::downstream::{ClientKey, Peer};
use crate::memory::{Memory, MemoryBudget};

/// The client of a connection, and the accounts on it.
#[derive(Debug)]
pub(super) struct ConnectionMemory {
    budget: MemoryBudget,
    /// The client of calls without a token: by its certificate or its address.
    peer: Peer,
    /// That of the first call: most connections have one client.
    first: OnceLock<(ClientKey, Memory)>,
    /// Those of further clients, whose tokens a proxy sends on one connection.
    others: Mutex<Vec<(ClientKey, Memory)>>,
}

impl ConnectionMemory {
    pub(super) fn new(budget: MemoryBudget, peer: Peer) -> Self {
        Self {
            budget,
            peer,
            first: OnceLock::new(),
            others: Mutex::default(),
        }
    }

    /// Returns the client of the connection.
    pub(super) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Returns what follows the header blocks of the connection, of at most `max_bytes` each.
    pub(super) fn header_blocks(&self, max_bytes: usize, timeout: Duration) -> HeaderBlocks {
        let client = self.peer.key.digest();
        HeaderBlocks::new(self.budget.clone(), client, max_bytes, timeout)
    }

    /// Returns what the calls of a client draw from.
    pub(super) fn of(&self, peer: &Peer) -> Memory {
        let key = peer.key;
        let open = || (key, self.budget.open(key.digest()));
        let (first, memory) = self.first.get_or_init(open);
        if *first == key {
            return memory.clone();
        }
        let mut others = (self.others.lock()).unwrap_or_else(PoisonError::into_inner);
        if let Some((_, memory)) = others.iter().find(|(other, _)| *other == key) {
            return memory.clone();
        }
        let opened = open();
        others.push(opened.clone());
        opened.1
    }
}
