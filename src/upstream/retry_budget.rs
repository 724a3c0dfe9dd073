//! How many retries an upstream gets in all, so that retries cannot multiply an
//! outage: a tenth of its calls, and a few at once.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// What a call brings in, in thousandths of a retry.
const DEPOSIT: u32 = 100;
/// What a retry costs.
const RETRY: u32 = 1_000;
/// The most there can be, and what there is at first.
const FULL: u32 = 10_000;

/// Retries that may still be made, in thousandths.
#[derive(Debug)]
pub(super) struct Budget(AtomicU32);

impl Budget {
    pub(super) fn new() -> Self {
        Self(AtomicU32::new(FULL))
    }

    /// A call begins.
    pub(super) fn deposit(&self) {
        // Mostly it is full; then nothing is written, and no cores compete.
        if self.0.load(Relaxed) < FULL {
            let _ = self
                .0
                .fetch_update(Relaxed, Relaxed, |left| Some((left + DEPOSIT).min(FULL)));
        }
    }

    /// Whether a retry may be made; if so, it is paid.
    pub(super) fn withdraw(&self) -> bool {
        self.0
            .fetch_update(Relaxed, Relaxed, |left| left.checked_sub(RETRY))
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_at_once_then_a_tenth() {
        let budget = Budget::new();
        let paid = |n: usize| (0..n).filter(|_| budget.withdraw()).count();
        assert_eq!(paid(100), 10);
        for _ in 0..9 {
            budget.deposit();
        }
        assert_eq!(paid(1), 0);
        budget.deposit();
        assert_eq!(paid(2), 1);
        for _ in 0..1_000 {
            budget.deposit();
        }
        assert_eq!(paid(100), 10);
        let sent = (0..1_000).filter(|_| {
            budget.deposit();
            budget.withdraw()
        });
        assert_eq!(sent.count(), 100);
    }
}
