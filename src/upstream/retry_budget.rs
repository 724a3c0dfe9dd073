//! Limits the retries to an upstream, so that they do not multiply an outage: to a tenth
//! of its calls, with a burst of twenty, and those of each client to a tenth of its calls, with
//! a burst of ten. tower calls this a retry budget.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::downstream::ClientKey;

/// Deposit of a call, in thousandths of a retry.
const DEPOSIT_PER_CALL: u32 = 100;
/// Cost of a retry, in thousandths.
const COST_PER_RETRY: u32 = 1_000;
/// Limit and initial value of a client's balance, in thousandths of a retry.
const MAX_CLIENT_BALANCE: u32 = 10_000;
/// The same for all clients: more, so that one client cannot use it up.
const MAX_BALANCE: u32 = 20_000;

/// Balances of clients. Clients in the same slot share one.
const SLOTS: usize = 256;

/// The balances, in thousandths of a retry.
#[derive(Debug)]
pub(super) struct RetryBudget {
    all: Balance<MAX_BALANCE>,
    clients: Box<[Balance<MAX_CLIENT_BALANCE>]>,
}

#[derive(Debug)]
struct Balance<const MAX: u32>(AtomicU32);

impl RetryBudget {
    pub(super) fn new() -> Self {
        Self {
            all: Balance::full(),
            clients: (0..SLOTS).map(|_| Balance::full()).collect(),
        }
    }

    /// Adds the deposit of a client's call.
    pub(super) fn deposit(&self, client: ClientKey) {
        self.all.add(DEPOSIT_PER_CALL);
        self.client(client).add(DEPOSIT_PER_CALL);
    }

    /// Withdraws the cost of a retry. Returns false if the balance of the client or of all is
    /// too low.
    pub(super) fn withdraw(&self, client: ClientKey) -> bool {
        let own = self.client(client);
        if !own.subtract(COST_PER_RETRY) {
            return false;
        }
        let is_left = self.all.subtract(COST_PER_RETRY);
        if !is_left {
            own.add(COST_PER_RETRY);
        }
        is_left
    }

    fn client(&self, client: ClientKey) -> &Balance<MAX_CLIENT_BALANCE> {
        // A constant number of slots: the index is in range.
        &self.clients[client.digest() as usize % SLOTS]
    }
}

impl<const MAX: u32> Balance<MAX> {
    fn full() -> Self {
        Self(AtomicU32::new(MAX))
    }

    fn add(&self, amount: u32) {
        // Written only below the limit, because every write takes the cache line from other
        // cores.
        if self.0.load(Relaxed) < MAX {
            let _ = (self.0).fetch_update(Relaxed, Relaxed, |balance| {
                Some((balance + amount).min(MAX))
            });
        }
    }

    fn subtract(&self, amount: u32) -> bool {
        (self.0)
            .fetch_update(Relaxed, Relaxed, |balance| balance.checked_sub(amount))
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: ClientKey = ClientKey::test(1);

    #[test]
    fn allows_a_burst_of_ten_then_a_tenth_of_the_calls() {
        let budget = RetryBudget::new();
        let withdrawn = |n: usize| (0..n).filter(|_| budget.withdraw(ONE)).count();
        assert_eq!(withdrawn(100), 10);
        for _ in 0..9 {
            budget.deposit(ONE);
        }
        assert_eq!(withdrawn(1), 0);
        budget.deposit(ONE);
        assert_eq!(withdrawn(2), 1);
        for _ in 0..1_000 {
            budget.deposit(ONE);
        }
        assert_eq!(withdrawn(100), 10);
        let retries = (0..1_000).filter(|_| {
            budget.deposit(ONE);
            budget.withdraw(ONE)
        });
        assert_eq!(retries.count(), 100);
    }

    #[test]
    fn one_client_does_not_use_up_the_retries_of_others() {
        let budget = RetryBudget::new();
        let two = ClientKey::test(2);
        let retries = |client| {
            let calls = 0..1_000;
            let retried = calls.filter(|_| {
                budget.deposit(client);
                budget.withdraw(client)
            });
            retried.count()
        };
        assert_eq!(retries(ONE), 109);
        assert_eq!(retries(two), 109);
        // All clients together: a tenth of the calls, and the burst.
        let budget = RetryBudget::new();
        let all = (0..100)
            .map(ClientKey::test)
            .filter(|client| budget.withdraw(*client));
        assert_eq!(all.count(), 20);
    }
}
