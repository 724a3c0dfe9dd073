//! Limits the retries to an upstream, so that they do not multiply an outage: to a tenth
//! of its calls, with a burst of ten. tower calls this a retry budget.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Deposit of a call, in thousandths of a retry.
const DEPOSIT_PER_CALL: u32 = 100;
/// Cost of a retry, in thousandths.
const COST_PER_RETRY: u32 = 1_000;
/// Limit and initial value, in thousandths of a retry.
const MAX_BALANCE: u32 = 10_000;

/// The balance, in thousandths of a retry.
#[derive(Debug)]
pub(super) struct RetryBudget(AtomicU32);

impl RetryBudget {
    pub(super) fn new() -> Self {
        Self(AtomicU32::new(MAX_BALANCE))
    }

    /// Adds the deposit of a call.
    pub(super) fn deposit(&self) {
        // Written only below the limit, because every write takes the cache line from other
        // cores.
        if self.0.load(Relaxed) < MAX_BALANCE {
            let _ = self.0.fetch_update(Relaxed, Relaxed, |balance| {
                Some((balance + DEPOSIT_PER_CALL).min(MAX_BALANCE))
            });
        }
    }

    /// Withdraws the cost of a retry. Returns false if the balance is too low.
    pub(super) fn withdraw(&self) -> bool {
        self.0
            .fetch_update(Relaxed, Relaxed, |balance| {
                balance.checked_sub(COST_PER_RETRY)
            })
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allows_a_burst_of_ten_then_a_tenth_of_the_calls() {
        let budget = RetryBudget::new();
        let withdrawn = |n: usize| (0..n).filter(|_| budget.withdraw()).count();
        assert_eq!(withdrawn(100), 10);
        for _ in 0..9 {
            budget.deposit();
        }
        assert_eq!(withdrawn(1), 0);
        budget.deposit();
        assert_eq!(withdrawn(2), 1);
        for _ in 0..1_000 {
            budget.deposit();
        }
        assert_eq!(withdrawn(100), 10);
        let retries = (0..1_000).filter(|_| {
            budget.deposit();
            budget.withdraw()
        });
        assert_eq!(retries.count(), 100);
    }
}
