//! Limits of one client: concurrent calls, open streams, a rate of calls. They count for its
//! identity, however many connections it has; without one, for its address.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::time::Instant;
use tonic::Code;

use crate::config::ClientLimitSettings;
use crate::downstream::ClientKey;
use crate::error::Error;

/// `RetryInfo` of a client that has too many calls or streams open.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Number of clients from which on those that are idle are forgotten, and how often.
const MAX_IDLE_CLIENTS: usize = 10_000;
const FORGET_INTERVAL: Duration = Duration::from_secs(1);

/// The limits of all clients.
#[derive(Debug)]
pub(super) struct ClientLimits {
    settings: ClientLimitSettings,
    clock: TokioClock,
    clients: Mutex<Clients>,
    rejections: [AtomicU64; 3],
}

#[derive(Debug, Default)]
struct Clients {
    usage: HashMap<ClientKey, Usage>,
    /// When idle ones were forgotten last.
    forgotten_at: Option<Instant>,
}

/// What one client uses.
#[derive(Debug)]
struct Usage {
    calls: u32,
    streams: u32,
    rate: Option<Rate>,
    used_at: Instant,
}

/// A rate, with its burst.
type Rate = RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Duration>>;

/// Tokio's clock, which tests can stop.
#[derive(Clone, Copy, Debug)]
struct TokioClock(Instant);

impl Clock for TokioClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Holds a call or a stream of a client until it is dropped.
#[derive(Debug)]
pub(super) struct ClientSlot {
    limits: Arc<ClientLimits>,
    client: ClientKey,
    is_stream: bool,
}

impl ClientLimits {
    /// As [`Self::rejections`], where nothing is limited.
    pub(super) const NO_REJECTIONS: [(&'static str, u64); 3] =
        [("calls", 0), ("streams", 0), ("rate", 0)];

    /// Returns the limits; none if nothing is limited.
    pub(super) fn new(settings: ClientLimitSettings) -> Option<Arc<Self>> {
        let is_limited = settings != ClientLimitSettings::default();
        is_limited.then(|| {
            Arc::new(Self {
                settings,
                clock: TokioClock(Instant::now()),
                clients: Mutex::default(),
                rejections: Default::default(),
            })
        })
    }

    /// Returns whether the limits are those of these settings.
    pub(super) fn has(&self, settings: &ClientLimitSettings) -> bool {
        self.settings == *settings
    }

    /// Counts a call or a stream of a client.
    ///
    /// # Errors
    ///
    /// Fails if the client has reached a limit.
    pub(super) fn acquire(
        self: &Arc<Self>,
        client: ClientKey,
        is_stream: bool,
    ) -> Result<ClientSlot, Error> {
        let now = Instant::now();
        let mut clients = self.lock();
        self.forget_idle(&mut clients, now);
        let usage = clients
            .usage
            .entry(client)
            .or_insert_with(|| self.unused(now));
        usage.used_at = now;
        let (open, max, key) = match is_stream {
            true => (usage.streams, self.settings.max_streams, "max_streams"),
            false => (usage.calls, self.settings.max_calls, "max_calls"),
        };
        if max > 0 && open >= max {
            let what = if is_stream {
                "open streams"
            } else {
                "concurrent calls"
            };
            let problem = format!("this client has {open} {what} (setting `listen.limits.{key}`)");
            self.rejections[usize::from(is_stream)].fetch_add(1, Relaxed);
            return Err(exceeded(problem, RETRY_AFTER));
        }
        if let Some(rate) = &usage.rate
            && let Err(early) = rate.check()
        {
            self.rejections[2].fetch_add(1, Relaxed);
            let problem = format!(
                "this client makes more than {} calls per second (setting \
                 `listen.limits.calls_per_sec`)",
                self.settings.calls_per_sec
            );
            return Err(exceeded(problem, early.wait_time_from(self.clock.now())));
        }
        match is_stream {
            true => usage.streams += 1,
            false => usage.calls += 1,
        }
        Ok(ClientSlot {
            limits: self.clone(),
            client,
            is_stream,
        })
    }

    /// Returns how many calls were rejected, by limit.
    pub(super) fn rejections(&self) -> [(&'static str, u64); 3] {
        let [calls, streams, rate] = &self.rejections;
        [("calls", calls), ("streams", streams), ("rate", rate)]
            .map(|(reason, count)| (reason, count.load(Relaxed)))
    }

    fn unused(&self, now: Instant) -> Usage {
        let rate = NonZeroU32::new(self.settings.calls_per_sec).map(|rate| {
            let burst = NonZeroU32::new(self.settings.burst).unwrap_or(rate);
            RateLimiter::direct_with_clock(Quota::per_second(rate).allow_burst(burst), self.clock)
        });
        Usage {
            calls: 0,
            streams: 0,
            rate,
            used_at: now,
        }
    }

    /// Forgets clients without a call whose burst is complete again.
    fn forget_idle(&self, clients: &mut Clients, now: Instant) {
        let is_early = (clients.forgotten_at).is_some_and(|at| now < at + FORGET_INTERVAL);
        if clients.usage.len() < MAX_IDLE_CLIENTS || is_early {
            return;
        }
        clients.forgotten_at = Some(now);
        let refill = match self.settings.calls_per_sec {
            0 => Duration::ZERO,
            rate => {
                Duration::from_secs_f64(f64::from(self.settings.burst.max(rate)) / f64::from(rate))
            }
        };
        clients.usage.retain(|_, usage| {
            usage.calls > 0 || usage.streams > 0 || now < usage.used_at + refill
        });
    }

    fn lock(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ClientSlot {
    fn drop(&mut self) {
        let mut clients = self.limits.lock();
        if let Some(usage) = clients.usage.get_mut(&self.client) {
            match self.is_stream {
                true => usage.streams -= 1,
                false => usage.calls -= 1,
            }
        }
    }
}

fn exceeded(problem: String, retry_after: Duration) -> Error {
    Error::Overload {
        code: Code::ResourceExhausted,
        problem,
        retry_after,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: ClientKey = ClientKey::test(1);
    const TWO: ClientKey = ClientKey::test(2);

    fn limits(
        max_calls: u32,
        max_streams: u32,
        calls_per_sec: u32,
        burst: u32,
    ) -> Arc<ClientLimits> {
        ClientLimits::new(ClientLimitSettings {
            max_calls,
            max_streams,
            calls_per_sec,
            burst,
        })
        .unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn each_client_has_its_own_calls_and_streams() {
        let limits = limits(2, 1, 0, 0);
        let held = [limits.acquire(ONE, false), limits.acquire(ONE, false)];
        assert!(held.iter().all(Result::is_ok));
        let error = limits.acquire(ONE, false).unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted);
        assert_eq!(error.retry_after(), Some(RETRY_AFTER));
        assert!(error.to_string().contains("2 concurrent calls"), "{error}");
        let stream = limits.acquire(ONE, true).unwrap();
        assert!(limits.acquire(ONE, true).is_err());
        assert!(limits.acquire(TWO, false).is_ok());
        drop(held);
        drop(stream);
        assert!(limits.acquire(ONE, false).is_ok());
        assert!(limits.acquire(ONE, true).is_ok());
        assert_eq!(
            limits.rejections(),
            [("calls", 1), ("streams", 1), ("rate", 0)]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn rate_allows_a_burst_and_says_when_to_try_again() {
        let limits = limits(0, 0, 10, 3);
        let succeeded = (0..5).filter(|_| limits.acquire(ONE, false).is_ok());
        assert_eq!(succeeded.count(), 3);
        assert!(limits.acquire(TWO, false).is_ok());
        let error = limits.acquire(ONE, true).unwrap_err();
        let wait = error.retry_after().unwrap();
        assert!(wait <= Duration::from_millis(100), "{wait:?}");
        tokio::time::sleep(wait + Duration::from_millis(1)).await;
        assert!(limits.acquire(ONE, false).is_ok());
        assert!(limits.acquire(ONE, false).is_err());
        assert_eq!(limits.rejections()[2], ("rate", 4));
    }

    #[tokio::test(start_paused = true)]
    async fn idle_clients_are_forgotten() {
        let limits = limits(1, 0, 10, 10);
        let held = limits.acquire(ONE, false).unwrap();
        for number in 0..MAX_IDLE_CLIENTS as u64 {
            drop(limits.acquire(ClientKey::test(1_000 + number), false));
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(limits.acquire(TWO, false).is_ok());
        assert_eq!(limits.lock().usage.len(), 2);
        assert!(
            limits.acquire(ONE, false).is_err(),
            "its call is not forgotten"
        );
        drop(held);
        assert!(limits.acquire(ONE, false).is_ok());
    }

    #[test]
    fn nothing_is_counted_without_a_limit() {
        assert!(ClientLimits::new(ClientLimitSettings::default()).is_none());
    }
}
