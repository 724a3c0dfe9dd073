//! Holds calls back from an upstream that does not answer, and knows whether it
//! does.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use super::State;

/// Failures in a row after which an upstream counts as not answering: one alone
/// may be a connection that died idle.
const UNHEALTHY_AFTER: u32 = 3;

/// How long one call has to itself that looks whether the upstream is back; then
/// another may. It may be one that takes long, or hangs.
const LOOKING: Duration = Duration::from_secs(1);

/// Counts failures in a row. At so many it opens: calls fail at once. After a
/// while one is let through; its answer closes it, its failure opens it again.
#[derive(Debug)]
pub(super) struct Breaker {
    /// 0: never opens.
    max_failures: u32,
    open_for: Duration,
    /// Failures in a row. Below `max_failures` this is all that is looked at.
    failures: AtomicU32,
    open: Mutex<Option<Open>>,
    state: AtomicU8,
}

/// An open breaker.
#[derive(Clone, Copy, Debug)]
struct Open {
    /// Until then nothing goes through; then one call.
    until: Instant,
}

/// The right to send one attempt. Dropped without a word, when the caller has
/// left, it leaves things as they were.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    breaker: &'a Breaker,
    /// It is a call that looks.
    looks: bool,
}

impl Breaker {
    pub(super) fn new(max_failures: u32, open_for: Duration) -> Self {
        Self {
            max_failures,
            open_for,
            failures: AtomicU32::new(0),
            open: Mutex::new(None),
            state: AtomicU8::new(State::Unknown as u8),
        }
    }

    /// Whether a call would get through now; else when to try again.
    pub(super) fn check(&self) -> Result<(), Duration> {
        match self.opened() {
            Some(open) => open.held(Instant::now()).map_or(Ok(()), Err),
            None => Ok(()),
        }
    }

    /// Lets an attempt through; else says when to try again.
    pub(super) fn pass(&self) -> Result<Pass<'_>, Duration> {
        let mut looks = false;
        if self.tripped() {
            let mut open = self.lock();
            if let Some(open) = &mut *open {
                if let Some(wait) = open.held(Instant::now()) {
                    return Err(wait);
                }
                open.until = Instant::now() + LOOKING;
                looks = true;
            }
        }
        Ok(Pass {
            breaker: self,
            looks,
        })
    }

    /// Whether it holds calls back.
    pub(super) fn is_open(&self) -> bool {
        self.check().is_err()
    }

    /// Whether the upstream answers, as last seen.
    pub(super) fn state(&self) -> State {
        match self.state.load(Relaxed) {
            1 => State::Healthy,
            2 => State::Unhealthy,
            _ => State::Unknown,
        }
    }

    /// What somebody else has seen, who looked on purpose.
    pub(super) fn saw(&self, state: State) {
        // Mostly it is so already; then nothing is written, and no cores compete.
        if self.state.load(Relaxed) != state as u8 {
            self.state.store(state as u8, Relaxed);
        }
    }

    fn tripped(&self) -> bool {
        self.max_failures > 0 && self.failures.load(Relaxed) >= self.max_failures
    }

    fn opened(&self) -> Option<Open> {
        if self.tripped() { *self.lock() } else { None }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Open>> {
        // Nothing under it panics; were it so, the value would still be whole.
        self.open.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Open {
    fn held(&self, now: Instant) -> Option<Duration> {
        let wait = self.until.saturating_duration_since(now);
        (!wait.is_zero()).then_some(wait)
    }
}

impl Pass<'_> {
    /// The upstream answered, whatever it said.
    pub(super) fn answered(self) {
        let breaker = self.breaker;
        if breaker.failures.load(Relaxed) != 0 {
            let mut open = breaker.lock();
            *open = None;
            breaker.failures.store(0, Relaxed);
        }
        breaker.saw(State::Healthy);
    }

    /// No answer came, or one that says that nobody is there.
    pub(super) fn failed(self) {
        let breaker = self.breaker;
        let mut open = breaker.lock();
        let failures = breaker.failures.load(Relaxed).saturating_add(1);
        breaker.failures.store(failures, Relaxed);
        if breaker.max_failures > 0
            && failures >= breaker.max_failures
            && (self.looks || open.is_none())
        {
            let until = Instant::now() + breaker.open_for;
            *open = Some(Open { until });
        }
        if failures >= UNHEALTHY_AFTER || open.is_some() {
            breaker.saw(State::Unhealthy);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Duration = Duration::from_secs(5);

    fn fail(breaker: &Breaker, times: usize) {
        for _ in 0..times {
            breaker.pass().unwrap().failed();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn opens_looks_and_closes() {
        let breaker = Breaker::new(3, OPEN);
        fail(&breaker, 2);
        breaker.pass().unwrap().answered();
        fail(&breaker, 2);
        assert!(!breaker.is_open());
        let late = breaker.pass().unwrap();
        fail(&breaker, 1);
        assert_eq!(breaker.check(), Err(OPEN));
        assert_eq!(breaker.pass().unwrap_err(), OPEN);

        // One that was on its way changes nothing by failing.
        tokio::time::advance(OPEN / 2).await;
        late.failed();
        assert_eq!(breaker.check(), Err(OPEN / 2));

        tokio::time::advance(OPEN / 2).await;
        assert_eq!(breaker.check(), Ok(()));
        let look = breaker.pass().unwrap();
        assert_eq!(breaker.pass().unwrap_err(), LOOKING);
        look.failed();
        assert_eq!(breaker.check(), Err(OPEN));

        // One that leaves, or takes long, lets another look.
        tokio::time::advance(OPEN).await;
        let _left = breaker.pass().unwrap();
        assert_eq!(breaker.pass().unwrap_err(), LOOKING);
        tokio::time::advance(LOOKING).await;
        let _slow = breaker.pass().unwrap();
        tokio::time::advance(LOOKING).await;
        let look = breaker.pass().unwrap();
        assert!(breaker.is_open());
        look.answered();
        assert!(!breaker.is_open());
        fail(&breaker, 2);
        assert!(!breaker.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_on_its_way_closes() {
        let breaker = Breaker::new(1, OPEN);
        let late = breaker.pass().unwrap();
        fail(&breaker, 1);
        assert!(breaker.is_open());
        late.answered();
        assert!(!breaker.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn none() {
        let breaker = Breaker::new(0, OPEN);
        fail(&breaker, 100);
        assert!(!breaker.is_open());
        assert_eq!(breaker.state(), State::Unhealthy);
    }

    #[tokio::test(start_paused = true)]
    async fn whether_it_answers() {
        let breaker = Breaker::new(20, OPEN);
        assert_eq!(breaker.state(), State::Unknown);
        breaker.pass().unwrap().answered();
        assert_eq!(breaker.state(), State::Healthy);
        fail(&breaker, 2);
        assert_eq!(breaker.state(), State::Healthy);
        fail(&breaker, 1);
        assert_eq!(breaker.state(), State::Unhealthy);
        breaker.pass().unwrap().answered();
        assert_eq!(breaker.state(), State::Healthy);
        breaker.saw(State::Unhealthy);
        assert_eq!(breaker.state(), State::Unhealthy);
    }
}
