//! Rejects calls to an upstream that does not respond, and keeps its health.
//!
//! linkerd's sense of the word: it opens after consecutive failures. Envoy calls this
//! outlier detection; its circuit breakers are our `concurrency_limit`.
//!
//! A client can make its own calls fail, for example by an id so long that the upstream closes
//! the connection. So failures show that the upstream does not respond only if other evidence
//! does: a failed probe of the gateway, or failures of several clients where nothing probes.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use super::Health;
use crate::downstream::ClientKey;

/// Consecutive failures after which an upstream is unhealthy: a single one can be an idle
/// connection that the upstream closed.
const UNHEALTHY_AFTER_FAILURES: u32 = 3;

/// Clients whose failures are those of the upstream.
const MIN_CLIENTS: usize = 3;

/// Half-open: minimum time between the attempts that pass, in case one hangs.
const HALF_OPEN_INTERVAL: Duration = Duration::from_secs(1);

/// How long a probe with a response shows that the upstream responds, whatever calls show.
/// Failures request another probe: it is repeated much sooner.
const PROBE_VALIDITY: Duration = Duration::from_secs(30);

/// Counts consecutive failures, and knows the latest probe.
///
/// - Closed: all attempts pass. It opens after `max_failures` consecutive failures, unless the
///   latest probe got a response: then the next one decides, which the failures request.
/// - Open: attempts fail at once for `open_for`, and each of them requests a probe. It is then
///   half-open. Without a failed probe, and with failures of fewer than [`MIN_CLIENTS`]
///   clients, it is open for these clients only.
/// - Half-open: one attempt per [`HALF_OPEN_INTERVAL`] passes. A success closes the circuit
///   breaker. A failure opens it again; if others have waited, it passes no other attempt of
///   this client before one of theirs.
///
/// A probe with a response closes it at any time.
#[derive(Debug)]
pub(super) struct CircuitBreaker {
    /// 0: never opens.
    max_failures: u32,
    open_for: Duration,
    /// Whether `state` has failures. While it has none, no lock is taken.
    has_failures: AtomicBool,
    state: Mutex<State>,
    health: AtomicU8,
}

#[derive(Debug, Default)]
struct State {
    /// Consecutive failures.
    failures: u32,
    /// The clients of these failures.
    clients: FewClients,
    open: Option<Open>,
    /// The latest probe, unless a call had a response since.
    probe: Option<Probe>,
}

/// An open or half-open circuit breaker.
#[derive(Debug)]
struct Open {
    /// When the next attempt may pass.
    until: Instant,
    /// Whether it is open for the clients of the failures only.
    is_partial: bool,
    /// Clients whose attempts have failed since it is half-open.
    failed: FewClients,
    /// Clients whose attempts were rejected.
    rejected: FewClients,
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    at: Instant,
    has_response: bool,
}

/// The first [`MIN_CLIENTS`] different clients.
#[derive(Clone, Copy, Debug, Default)]
struct FewClients {
    keys: [ClientKey; MIN_CLIENTS],
    len: usize,
}

impl FewClients {
    fn add(&mut self, client: ClientKey) {
        if !self.is_full() && !self.contains(client) {
            self.keys[self.len] = client;
            self.len += 1;
        }
    }

    fn contains(&self, client: ClientKey) -> bool {
        self.keys[..self.len].contains(&client)
    }

    fn contains_all(&self, others: &Self) -> bool {
        (others.keys[..others.len].iter()).all(|other| self.contains(*other))
    }

    fn is_full(&self) -> bool {
        self.len == MIN_CLIENTS
    }
}

/// The permission to make one attempt. Dropping it without a result, as a cancelled call
/// does, changes nothing.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    circuit_breaker: &'a CircuitBreaker,
    client: ClientKey,
    is_half_open: bool,
}
impl CircuitBreaker {
    pub(super) fn new(max_failures: u32, open_for: Duration) -> Self {
        Self {
            max_failures,
            open_for,
            has_failures: AtomicBool::new(false),
            state: Mutex::default(),
            health: AtomicU8::new(Health::Unknown as u8),
        }
    }

    /// Returns whether an attempt of a client would pass now; if not, when to try again.
    pub(super) fn check(&self, client: ClientKey) -> Result<(), Duration> {
        if !self.has_failures.load(Relaxed) {
            return Ok(());
        }
        let now = Instant::now();
        self.lock().admit(client, now, self.open_for).map(drop)
    }

    /// Admits an attempt of a client, or returns when to try again.
    pub(super) fn acquire(&self, client: ClientKey) -> Result<Permit<'_>, Duration> {
        let mut is_half_open = false;
        if self.has_failures.load(Relaxed) {
            let now = Instant::now();
            let mut state = self.lock();
            if let Some(open) = state.admit(client, now, self.open_for)? {
                open.until = now + HALF_OPEN_INTERVAL;
                is_half_open = true;
            }
        }
        Ok(Permit {
            circuit_breaker: self,
            client,
            is_half_open,
        })
    }

    /// Returns whether it rejects attempts.
    pub(super) fn is_open(&self) -> bool {
        let is_open = |open: &Open| open.remaining(Instant::now()).is_some();
        self.has_failures.load(Relaxed) && self.lock().open.as_ref().is_some_and(is_open)
    }

    /// Returns whether the upstream responded to the latest attempts and probes.
    pub(super) fn health(&self) -> Health {
        Health::of(self.health.load(Relaxed))
    }

    /// Records a probe of the gateway. With a response it closes the circuit breaker; without,
    /// opens it if calls have failed, too.
    pub(super) fn record_probe(&self, has_response: bool) {
        let now = Instant::now();
        let mut state = self.lock();
        let open = state.open.take();
        state.probe = Some(Probe {
            at: now,
            has_response,
        });
        if has_response {
            state.failures = 0;
            state.clients = FewClients::default();
        } else if self.max_failures > 0 && state.failures >= self.max_failures {
            state.open = Some(Open {
                is_partial: false,
                ..open.unwrap_or_else(|| Open::new(now + self.open_for))
            });
        }
        self.has_failures.store(!has_response, Relaxed);
        self.set_health(match has_response {
            true => Health::Healthy,
            false => Health::Unhealthy,
        });
    }

    fn set_health(&self, health: Health) {
        // Written only on a change, because every write takes the cache line from other cores.
        if self.health.load(Relaxed) != health as u8 {
            self.health.store(health as u8, Relaxed);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Poisoning is ignored: a counter that is off by one does not matter.
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl State {
    /// Admits an attempt of a client, or returns when to try again. Returns the circuit
    /// breaker if it is half-open.
    fn admit(
        &mut self,
        client: ClientKey,
        now: Instant,
        open_for: Duration,
    ) -> Result<Option<&mut Open>, Duration> {
        let Some(open) = &mut self.open else {
            return Ok(None);
        };
        if open.is_partial && !self.clients.contains(client) {
            return Ok(None);
        }
        if let Some(remaining) = open.remaining(now) {
            open.rejected.add(client);
            return Err(remaining);
        }
        if now > open.until + open_for {
            // Those that have waited do not try again.
            *open = Open {
                is_partial: open.is_partial,
                ..Open::new(now)
            };
        }
        if open.failed.contains(client) && open.others_wait() {
            return Err(HALF_OPEN_INTERVAL);
        }
        Ok(Some(open))
    }

    /// Returns whether a probe has shown that the upstream responds.
    fn responds(&self, now: Instant) -> bool {
        self.probe.is_some_and(|probe| {
            probe.has_response && now.saturating_duration_since(probe.at) < PROBE_VALIDITY
        })
    }

    /// Returns whether the failures are those of the upstream, not of a few clients.
    fn is_certain(&self) -> bool {
        self.clients.is_full() || self.probe.is_some_and(|probe| !probe.has_response)
    }
}

impl Open {
    fn new(until: Instant) -> Self {
        Self {
            until,
            is_partial: false,
            failed: FewClients::default(),
            rejected: FewClients::default(),
        }
    }

    fn remaining(&self, now: Instant) -> Option<Duration> {
        let remaining = self.until.saturating_duration_since(now);
        (!remaining.is_zero()).then_some(remaining)
    }

    /// Returns whether clients were rejected whose attempts have not failed.
    fn others_wait(&self) -> bool {
        !self.failed.contains_all(&self.rejected)
    }
}

impl Permit<'_> {
    /// Records a response of any status: closes the circuit breaker.
    pub(super) fn record_success(self) {
        let circuit_breaker = self.circuit_breaker;
        if circuit_breaker.has_failures.load(Relaxed) {
            let mut state = circuit_breaker.lock();
            let probe = state.probe.filter(|probe| probe.has_response);
            *state = State {
                probe,
                ..State::default()
            };
            circuit_breaker.has_failures.store(false, Relaxed);
        }
        circuit_breaker.set_health(Health::Healthy);
    }

    /// Records that no response arrived, or one that says that no backend serves. Returns
    /// whether a probe is to show whether that is so for others.
    pub(super) fn record_failure(self) -> bool {
        let circuit_breaker = self.circuit_breaker;
        let (max_failures, open_for) = (circuit_breaker.max_failures, circuit_breaker.open_for);
        let now = Instant::now();
        let mut state = circuit_breaker.lock();
        circuit_breaker.has_failures.store(true, Relaxed);
        state.failures = state.failures.saturating_add(1);
        state.clients.add(self.client);
        let responds = state.responds(now);
        let is_certain = state.is_certain();
        if max_failures > 0 && state.failures >= max_failures {
            match &mut state.open {
                Some(open) if self.is_half_open => {
                    open.failed.add(self.client);
                    if open.others_wait() && !open.failed.is_full() {
                        open.until = now + HALF_OPEN_INTERVAL;
                    } else {
                        let is_partial = open.is_partial && !is_certain;
                        *open = Open {
                            is_partial,
                            ..Open::new(now + open_for)
                        };
                    }
                }
                Some(open) if open.is_partial && is_certain => *open = Open::new(now + open_for),
                None if !responds => {
                    state.open = Some(Open {
                        is_partial: !is_certain,
                        ..Open::new(now + open_for)
                    });
                }
                Some(_) | None => {}
            }
        }
        let is_unhealthy = state.failures >= UNHEALTHY_AFTER_FAILURES;
        if (is_unhealthy && !responds) || state.open.is_some() {
            circuit_breaker.set_health(Health::Unhealthy);
        }
        is_unhealthy || state.open.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Duration = Duration::from_secs(5);

    const ONE: ClientKey = ClientKey::test(1);
    const TWO: ClientKey = ClientKey::test(2);
    const THREE: ClientKey = ClientKey::test(3);
    const FOUR: ClientKey = ClientKey::test(4);

    fn fail(circuit_breaker: &CircuitBreaker, times: usize) {
        fail_of(circuit_breaker, &[ONE], times);
    }

    /// Fails once per client in turn, `times` in all. Returns whether a probe is requested.
    fn fail_of(circuit_breaker: &CircuitBreaker, clients: &[ClientKey], times: usize) -> bool {
        let mut wants_probe = false;
        for client in clients.iter().cycle().take(times) {
            wants_probe = circuit_breaker.acquire(*client).unwrap().record_failure();
        }
        wants_probe
    }

    #[tokio::test(start_paused = true)]
    async fn opens_after_consecutive_failures_probes_and_closes() {
        let circuit_breaker = CircuitBreaker::new(3, OPEN);
        fail(&circuit_breaker, 2);
        circuit_breaker.acquire(ONE).unwrap().record_success();
        fail(&circuit_breaker, 2);
        assert!(!circuit_breaker.is_open());
        let late = circuit_breaker.acquire(ONE).unwrap();
        fail(&circuit_breaker, 1);
        assert_eq!(circuit_breaker.check(ONE), Err(OPEN));
        assert_eq!(circuit_breaker.acquire(ONE).unwrap_err(), OPEN);

        // The failure of an attempt from before it opened does not extend it.
        tokio::time::advance(OPEN / 2).await;
        late.record_failure();
        assert_eq!(circuit_breaker.check(ONE), Err(OPEN / 2));

        tokio::time::advance(OPEN / 2).await;
        assert_eq!(circuit_breaker.check(ONE), Ok(()));
        let probe = circuit_breaker.acquire(ONE).unwrap();
        assert_eq!(
            circuit_breaker.acquire(ONE).unwrap_err(),
            HALF_OPEN_INTERVAL
        );
        probe.record_failure();
        assert_eq!(circuit_breaker.check(ONE), Err(OPEN));

        // A probe that is cancelled or hangs does not prevent the next one.
        tokio::time::advance(OPEN).await;
        let _cancelled = circuit_breaker.acquire(ONE).unwrap();
        assert_eq!(
            circuit_breaker.acquire(ONE).unwrap_err(),
            HALF_OPEN_INTERVAL
        );
        tokio::time::advance(HALF_OPEN_INTERVAL).await;
        let _hanging = circuit_breaker.acquire(ONE).unwrap();
        tokio::time::advance(HALF_OPEN_INTERVAL).await;
        let probe = circuit_breaker.acquire(ONE).unwrap();
        assert!(circuit_breaker.is_open());
        probe.record_success();
        assert!(!circuit_breaker.is_open());
        fail(&circuit_breaker, 2);
        assert!(!circuit_breaker.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn success_of_an_earlier_attempt_closes() {
        let circuit_breaker = CircuitBreaker::new(1, OPEN);
        let late = circuit_breaker.acquire(ONE).unwrap();
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
        circuit_breaker.acquire(ONE).unwrap().record_success();
        assert_eq!(circuit_breaker.health(), Health::Healthy);
        fail(&circuit_breaker, 2);
        assert_eq!(circuit_breaker.health(), Health::Healthy);
        fail(&circuit_breaker, 1);
        assert_eq!(circuit_breaker.health(), Health::Unhealthy);
        circuit_breaker.acquire(ONE).unwrap().record_success();
        assert_eq!(circuit_breaker.health(), Health::Healthy);
        circuit_breaker.record_probe(false);
        assert_eq!(circuit_breaker.health(), Health::Unhealthy);
    }

    /// A few clients: open for them; several: for all. Then probes, which take precedence.
    #[tokio::test(start_paused = true)]
    async fn opens_for_others_only_with_evidence_of_others() {
        let (few, three) = (&[ONE, TWO][..], &[ONE, TWO, THREE][..]);
        for (probe, clients, for_one, for_others) in [
            (None, &few[..1], true, false),
            (None, few, true, false),
            (None, three, true, true),
            (Some(true), &few[..1], false, false),
            (Some(true), three, false, false),
            (Some(false), &few[..1], true, true),
        ] {
            let circuit_breaker = CircuitBreaker::new(20, OPEN);
            if let Some(has_response) = probe {
                circuit_breaker.record_probe(has_response);
            }
            assert!(fail_of(&circuit_breaker, clients, 20), "{probe:?}");
            let case = format!("{probe:?} {clients:?}");
            let opened = |client| circuit_breaker.check(client).is_err();
            assert_eq!((opened(ONE), opened(FOUR)), (for_one, for_others), "{case}");
            let unhealthy = circuit_breaker.health() == Health::Unhealthy;
            assert_eq!(unhealthy, probe != Some(true), "{case}");
            // The next probe decides.
            circuit_breaker.record_probe(true);
            assert!(!opened(ONE) && !opened(FOUR), "{case}");
            assert_eq!(circuit_breaker.health(), Health::Healthy);
            fail_of(&circuit_breaker, clients, 20);
            circuit_breaker.record_probe(false);
            assert!(opened(ONE) && opened(FOUR), "{case}");
            assert_eq!(circuit_breaker.health(), Health::Unhealthy);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failed_probe_alone_rejects_nothing() {
        let circuit_breaker = CircuitBreaker::new(2, OPEN);
        circuit_breaker.record_probe(false);
        assert_eq!(circuit_breaker.check(ONE), Ok(()));
        // Calls say more than the probe: its path may be that of something else.
        circuit_breaker.acquire(TWO).unwrap().record_success();
        fail(&circuit_breaker, 2);
        assert_eq!(circuit_breaker.check(TWO), Ok(()));
        assert_eq!(circuit_breaker.check(ONE), Err(OPEN));
    }

    #[tokio::test(start_paused = true)]
    async fn old_probe_shows_nothing() {
        let circuit_breaker = CircuitBreaker::new(2, OPEN);
        circuit_breaker.record_probe(true);
        tokio::time::advance(PROBE_VALIDITY).await;
        fail_of(&circuit_breaker, &[ONE, TWO], 2);
        assert_eq!(circuit_breaker.check(THREE), Ok(()));
        // A third client whose calls fail: now it is the upstream.
        fail_of(&circuit_breaker, &[THREE], 1);
        assert_eq!(circuit_breaker.check(FOUR), Err(OPEN));
    }

    #[tokio::test(start_paused = true)]
    async fn half_open_attempts_go_to_clients_in_turn() {
        let circuit_breaker = CircuitBreaker::new(3, OPEN);
        fail_of(&circuit_breaker, &[ONE, TWO, THREE], 3);
        for client in [ONE, FOUR] {
            assert_eq!(circuit_breaker.acquire(client).unwrap_err(), OPEN);
        }
        tokio::time::advance(OPEN).await;
        fail_of(&circuit_breaker, &[ONE], 1);
        // Another one has waited: it is next, and soon.
        assert_eq!(circuit_breaker.check(FOUR), Err(HALF_OPEN_INTERVAL));
        tokio::time::advance(HALF_OPEN_INTERVAL).await;
        assert_eq!(
            circuit_breaker.acquire(ONE).unwrap_err(),
            HALF_OPEN_INTERVAL
        );
        circuit_breaker.acquire(FOUR).unwrap().record_success();
        assert_eq!(circuit_breaker.check(ONE), Ok(()));

        // If three of them fail, all wait.
        fail_of(&circuit_breaker, &[ONE, TWO, THREE], 3);
        for client in [ONE, TWO, THREE, FOUR] {
            circuit_breaker.acquire(client).unwrap_err();
        }
        tokio::time::advance(OPEN).await;
        fail_of(&circuit_breaker, &[ONE], 1);
        tokio::time::advance(HALF_OPEN_INTERVAL).await;
        fail_of(&circuit_breaker, &[TWO], 1);
        tokio::time::advance(HALF_OPEN_INTERVAL).await;
        fail_of(&circuit_breaker, &[THREE], 1);
        assert_eq!(circuit_breaker.check(FOUR), Err(OPEN));
        // Those that have waited do not return: the first client does not wait for them.
        circuit_breaker.acquire(TWO).unwrap_err();
        tokio::time::advance(OPEN).await;
        fail_of(&circuit_breaker, &[ONE], 1);
        tokio::time::advance(HALF_OPEN_INTERVAL).await;
        circuit_breaker.acquire(ONE).unwrap_err();
        tokio::time::advance(OPEN + HALF_OPEN_INTERVAL).await;
        circuit_breaker.acquire(ONE).unwrap().record_success();
    }

    /// One client whose calls fail, many of whose succeed, and no probe.
    #[tokio::test(start_paused = true)]
    async fn client_whose_calls_fail_does_not_stop_others() {
        let circuit_breaker = CircuitBreaker::new(20, OPEN);
        fail(&circuit_breaker, 20);
        let mut passed = 0;
        for _ in 0..200 {
            tokio::time::advance(Duration::from_millis(100)).await;
            if let Ok(permit) = circuit_breaker.acquire(ONE) {
                permit.record_failure();
            }
            // The permit reports no success, which would close it.
            if circuit_breaker.acquire(TWO).is_ok() {
                passed += 1;
            }
        }
        assert_eq!(passed, 200);
    }
}
