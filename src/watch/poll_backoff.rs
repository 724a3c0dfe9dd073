//! When to poll again, and how long failures are tolerated: two policies.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::Error;

/// The shortest pause, whatever an annotation says.
const MIN_PAUSE: Duration = Duration::from_millis(10);
/// The longest pause, whatever an annotation says.
const MAX_PAUSE: Duration = Duration::from_secs(3_600);
/// How much longer each pause is than the previous one while nothing changes.
const GROWTH_FACTOR: f64 = 1.5;
/// The largest random change of a pause, as a share of it, so that loops do not poll in
/// step.
const JITTER_SHARE: f64 = 0.1;

/// Computes the pauses between polls: short after a change, longer while nothing changes.
#[derive(Debug)]
pub(super) struct PollBackoff {
    first: Duration,
    max: Duration,
    pause: Duration,
    /// No pause is shorter.
    min: Duration,
    /// A random number from 0 to 1; a parameter for tests.
    random: fn() -> f64,
}

impl PollBackoff {
    pub(super) fn new(first: Duration, max: Duration, random: fn() -> f64) -> Self {
        let max = max.clamp(MIN_PAUSE, MAX_PAUSE);
        let first = first.clamp(MIN_PAUSE, max);
        Self {
            first,
            max,
            pause: first,
            min: Duration::ZERO,
            random,
        }
    }

    /// Sets the shortest pause, by `Retry-After` of the last poll. It may exceed the longest.
    pub(super) fn set_min(&mut self, min: Duration) {
        self.min = min;
    }

    /// Returns the pause after a poll that has found a change, such as the first one.
    pub(super) fn reset(&mut self) -> Duration {
        self.pause = self.first;
        self.jittered()
    }

    /// Returns the pause after a poll that has found no change.
    pub(super) fn grow(&mut self) -> Duration {
        self.pause = self.pause.mul_f64(GROWTH_FACTOR).min(self.max);
        self.jittered()
    }

    /// Returns the pause after a poll out of turn that has found no change.
    pub(super) fn keep(&self) -> Duration {
        self.jittered()
    }

    fn jittered(&self) -> Duration {
        let jitter = 2.0 * JITTER_SHARE * (self.random)().clamp(0.0, 1.0);
        let pause = self.pause.mul_f64(1.0 - JITTER_SHARE + jitter);
        pause.max(self.min)
    }
}

/// Limits how long consecutive failures are tolerated.
#[derive(Debug)]
pub(super) struct FailureTolerance {
    limit: Duration,
    /// When the first of the consecutive failures happened.
    since: Option<Instant>,
}

impl FailureTolerance {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, since: None }
    }

    /// Records a success. Returns whether failures preceded it.
    pub(super) fn recovered(&mut self) -> bool {
        self.since.take().is_some()
    }

    /// Records a failure and returns the pause before the next poll, which is `pause` or
    /// longer if the upstream requests that. Returns none if the error is not tolerated,
    /// the limit is reached, or the upstream requests a pause beyond the limit.
    pub(super) fn tolerate(&mut self, error: &Error, pause: Duration) -> Option<Duration> {
        if !error.is_tolerated_in_watch() {
            return None;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        let left = self.limit.saturating_sub(since.elapsed());
        let wanted = error.retry_after().unwrap_or_default();
        (!left.is_zero() && wanted <= left).then(|| pause.min(left).max(wanted))
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;
    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn pauses_grow_until_a_change() {
        let mut backoff = PollBackoff::new(S(1), S(3), || 0.5);
        assert_eq!(backoff.reset(), S(1));
        assert_eq!(backoff.grow(), MS(1_500));
        assert_eq!(backoff.keep(), MS(1_500));
        assert_eq!(backoff.grow(), MS(2_250));
        assert_eq!(backoff.grow(), S(3));
        assert_eq!(backoff.grow(), S(3));
        assert_eq!(backoff.reset(), S(1));
        backoff.set_min(S(9));
        assert_eq!((backoff.reset(), backoff.grow()), (S(9), S(9)));
        backoff.set_min(S(0));
        assert_eq!(backoff.grow(), MS(2_250));
    }

    #[test]
    fn jitter_is_at_most_a_tenth() {
        for (random, want) in [
            ((|| 0.0) as fn() -> f64, MS(900)),
            (|| 1.0, MS(1_100)),
            (|| 7.0, MS(1_100)),
        ] {
            assert_eq!(PollBackoff::new(S(1), S(3), random).reset(), want);
        }
    }

    #[test]
    fn extreme_intervals_are_clamped() {
        for (first, max, shortest, second) in [
            (S(0), S(0), MIN_PAUSE, MIN_PAUSE),
            (S(5), S(2), S(2), S(2)),
            (Duration::MAX, Duration::MAX, MAX_PAUSE, MAX_PAUSE),
        ] {
            let mut backoff = PollBackoff::new(first, max, || 0.5);
            assert_eq!((backoff.reset(), backoff.grow()), (shortest, second));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_tolerated_up_to_the_limit() {
        let down = Error::Connect("refused".to_owned());
        let mut tolerance = FailureTolerance::new(S(10));
        assert_eq!(tolerance.tolerate(&down, S(4)), Some(S(4)));
        tokio::time::advance(S(8)).await;
        assert_eq!(
            tolerance.tolerate(&down, S(4)),
            Some(S(2)),
            "one more poll at the limit"
        );
        tokio::time::advance(S(2)).await;
        assert_eq!(tolerance.tolerate(&down, S(4)), None);
        assert!(tolerance.recovered());
        assert!(!tolerance.recovered());
        assert_eq!(tolerance.tolerate(&down, S(4)), Some(S(4)), "a new row");
    }

    #[tokio::test(start_paused = true)]
    async fn retry_after_extends_the_pause() {
        let busy = |seconds| Error::Overload {
            code: Code::ResourceExhausted,
            problem: "full".to_owned(),
            retry_after: S(seconds),
        };
        let mut tolerance = FailureTolerance::new(S(60));
        assert_eq!(tolerance.tolerate(&busy(20), S(1)), Some(S(20)));
        assert_eq!(tolerance.tolerate(&busy(0), S(1)), Some(S(1)));
        assert_eq!(
            tolerance.tolerate(&busy(61), S(1)),
            None,
            "beyond the limit"
        );
    }

    #[test]
    fn server_errors_are_tolerated_except_those_that_last() {
        for (status, want) in [
            (499, false),
            (500, true),
            (501, false),
            (502, true),
            (504, true),
            (505, false),
            (507, true),
            (511, false),
            (520, true),
            (599, true),
        ] {
            let mut fault = crate::upstream::tests::fault(status);
            (fault.code, fault.transient) = (Code::Internal, false);
            let error = Error::Upstream(Box::new(fault));
            let tolerated = FailureTolerance::new(S(60)).tolerate(&error, S(1));
            assert_eq!(tolerated.is_some(), want, "{status}");
        }
    }

    #[test]
    fn permanent_failures_are_not_tolerated() {
        for error in [
            Error::Credential {
                code: Code::Unauthenticated,
                problem: "no token".to_owned(),
            },
            Error::decode("status", "a number"),
            Error::ResponseTooLarge { limit: 1 },
        ] {
            assert_eq!(
                FailureTolerance::new(S(60)).tolerate(&error, S(1)),
                None,
                "{error}"
            );
        }
    }
}
