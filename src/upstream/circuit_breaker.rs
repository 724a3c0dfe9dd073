//! Rejects calls to an upstream that does not respond, and keeps its health.
//!
//! linkerd's sense of the word: it opens after consecutive failures. Envoy calls this
//! outlier detection; its circuit breakers are our `concurrency_limit`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use super::Health;

/// Consecutive failures after which an upstream is unhealthy: a single one can be an idle
/// connection that the upstream closed.
const UNHEALTHY_AFTER_FAILURES: u32 = 3;

/// Half-open: minimum time between probes, in case a probe hangs.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Counts consecutive failures.
///
/// - Closed: all attempts pass. `max_failures` consecutive failures open it.
/// - Open: attempts fail at once for `open_for`. It is then half-open.
/// - Half-open: one attempt per [`PROBE_INTERVAL`] passes as a probe. A success closes the
///   circuit breaker, a failure of the probe opens it again.
#[derive(Debug)]
pub(super) struct CircuitBreaker {
    /// 0: never opens.
    max_failures: u32,
    open_for: Duration,
    /// Consecutive failures. While they are below `max_failures`, no lock is taken.
    failures: AtomicU32,
    open: Mutex<Option<Open>>,
    health: AtomicU8,
}

/// An open or half-open circuit breaker.
#[derive(Clone, Copy, Debug)]
struct Open {
    /// When the next probe may pass.
    until: Instant,
}

/// The permission to make one attempt. Dropping it without a result, as a cancelled call
/// does, changes nothing.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    circuit_breaker: &'a CircuitBreaker,
    is_probe: bool,
}

impl CircuitBreaker {
    pub(super) fn new(max_failures: u32, open_for: Duration) -> Self {
        Self {
            max_failures,
            open_for,
            failures: AtomicU32::new(0),
            open: Mutex::new(None),
            health: AtomicU8::new(Health::Unknown as u8),
        }
    }

    /// Returns whether an attempt would pass now; if not, when to try again.
    pub(super) fn check(&self) -> Result<(), Duration> {
        match self.opened() {
            Some(open) => open.remaining(Instant::now()).map_or(Ok(()), Err),
            None => Ok(()),
        }
    }

    /// Admits an attempt, or returns when to try again.
    pub(super) fn acquire(&self) -> Result<Permit<'_>, Duration> {
        let mut is_probe = false;
        if self.tripped() {
            let mut open = self.lock();
            if let Some(open) = &mut *open {
                if let Some(remaining) = open.remaining(Instant::now()) {
                    return Err(remaining);
                }
                open.until = Instant::now() + PROBE_INTERVAL;
                is_probe = true;
            }
        }
        Ok(Permit {
            circuit_breaker: self,
            is_probe,
        })
    }

    /// Returns whether it rejects attempts.
    pub(super) fn is_open(&self) -> bool {
        self.check().is_err()
    }

    /// Returns whether the upstream responded to the latest attempts and probes.
    pub(super) fn health(&self) -> Health {
        Health::of(self.health.load(Relaxed))
    }

    /// Stores the result of a health probe.
    pub(super) fn set_health(&self, health: Health) {
        // Written only on a change, because every write takes the cache line from other cores.
        if self.health.load(Relaxed) != health as u8 {
            self.health.store(health as u8, Relaxed);
        }
    }

    fn tripped(&self) -> bool {
        self.max_failures > 0 && self.failures.load(Relaxed) >= self.max_failures
    }

    fn opened(&self) -> Option<Open> {
        if self.tripped() { *self.lock() } else { None }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Open>> {
        // Poisoning is ignored: each write is a single assignment.
        self.open.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Open {
    fn remaining(&self, now: Instant) -> Option<Duration> {
        let remaining = self.until.saturating_duration_since(now);
        (!remaining.is_zero()).then_some(remaining)
    }
}

impl Permit<'_> {
    /// Records a response of any status: closes the circuit breaker.
    pub(super) fn record_success(self) {
        let circuit_breaker = self.circuit_breaker;
        if circuit_breaker.failures.load(Relaxed) != 0 {
            let mut open = circuit_breaker.lock();
            *open = None;
            circuit_breaker.failures.store(0, Relaxed);
        }
        circuit_breaker.set_health(Health::Healthy);
    }

    /// Records that no response arrived, or one that says that no backend serves.
    pub(super) fn record_failure(self) {
        let circuit_breaker = self.circuit_breaker;
        let mut open = circuit_breaker.lock();
        let failures = circuit_breaker.failures.load(Relaxed).saturating_add(1);
        circuit_breaker.failures.store(failures, Relaxed);
        if circuit_breaker.max_failures > 0
            && failures >= circuit_breaker.max_failures
            && (self.is_probe || open.is_none())
        {
            let until = Instant::now() + circuit_breaker.open_for;
            *open = Some(Open { until });
        }
        if failures >= UNHEALTHY_AFTER_FAILURES || open.is_some() {
            circuit_breaker.set_health(Health::Unhealthy);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Duration = Duration::from_secs(5);

    fn fail(circuit_breaker: &CircuitBreaker, times: usize) {
        for _ in 0..times {
            circuit_breaker.acquire().unwrap().record_failure();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn opens_after_consecutive_failures_probes_and_closes() {
        let circuit_breaker = CircuitBreaker::new(3, OPEN);
        fail(&circuit_breaker, 2);
        circuit_breaker.acquire().unwrap().record_success();
        fail(&circuit_breaker, 2);
        assert!(!circuit_breaker.is_open());
        let late = circuit_breaker.acquire().unwrap();
        fail(&circuit_breaker, 1);
        assert_eq!(circuit_breaker.check(), Err(OPEN));
        assert_eq!(circuit_breaker.acquire().unwrap_err(), OPEN);

        // The failure of an attempt from before it opened does not extend it.
        tokio::time::advance(OPEN / 2).await;
        late.record_failure();
        assert_eq!(circuit_breaker.check(), Err(OPEN / 2));

        tokio::time::advance(OPEN / 2).await;
        assert_eq!(circuit_breaker.check(), Ok(()));
        let probe = circuit_breaker.acquire().unwrap();
        assert_eq!(circuit_breaker.acquire().unwrap_err(), PROBE_INTERVAL);
        probe.record_failure();
        assert_eq!(circuit_breaker.check(), Err(OPEN));

        // A probe that is cancelled or hangs does not prevent the next one.
        tokio::time::advance(OPEN).await;
        let _cancelled = circuit_breaker.acquire().unwrap();
        assert_eq!(circuit_breaker.acquire().unwrap_err(), PROBE_INTERVAL);
        tokio::time::advance(PROBE_INTERVAL).await;
        let _hanging = circuit_breaker.acquire().unwrap();
        tokio::time::advance(PROBE_INTERVAL).await;
        let probe = circuit_breaker.acquire().unwrap();
        assert!(circuit_breaker.is_open());
        probe.record_success();
        assert!(!circuit_breaker.is_open());
        fail(&circuit_breaker, 2);
        assert!(!circuit_breaker.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn success_of_an_earlier_attempt_closes() {
        let circuit_breaker = CircuitBreaker::new(1, OPEN);
        let late = circuit_breaker.acquire().unwrap();
        fail(&circuit_breaker, 1);
        assert!(circuit_breaker.is_open());
        late.record_success();
        assert!(!circuit_breaker.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn never_opens_with_zero_failures_configured() {
        let circuit_breaker = CircuitBreaker::new(0, OPEN);
        fail(&circuit_breaker, 100);
        assert!(!circuit_breaker.is_open());
        assert_eq!(circuit_breaker.health(), Health::Unhealthy);
    }

    #[tokio::test(start_paused = true)]
    async fn health_follows_results() {
        let circuit_breaker = CircuitBreaker::new(20, OPEN);
        assert_eq!(circuit_breaker.health(), Health::Unknown);
        circuit_breaker.acquire().unwrap().record_success();
        assert_eq!(circuit_breaker.health(), Health::Healthy);
        fail(&circuit_breaker, 2);
        assert_eq!(circuit_breaker.health(), Health::Healthy);
        fail(&circuit_breaker, 1);
        assert_eq!(circuit_breaker.health(), Health::Unhealthy);
        circuit_breaker.acquire().unwrap().record_success();
        assert_eq!(circuit_breaker.health(), Health::Healthy);
        circuit_breaker.set_health(Health::Unhealthy);
        assert_eq!(circuit_breaker.health(), Health::Unhealthy);
    }
}
