//! When to poll again, and how long failures are borne: two policies.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::Error;

/// No pause is shorter, whatever an annotation says.
const SHORTEST: Duration = Duration::from_millis(10);
/// No pause is longer, whatever an annotation says.
const LONGEST: Duration = Duration::from_secs(3_600);
/// How much longer each pause is than the one before while nothing changes.
const GROWTH: f64 = 1.5;
/// How far a pause is moved at random, so that loops do not march in step.
const JITTER: f64 = 0.1;

/// How fast to poll: fast after a change, slower while nothing moves.
#[derive(Debug)]
pub(super) struct Cadence {
    first: Duration,
    max: Duration,
    pause: Duration,
    /// A random number from 0 to 1; a parameter for tests.
    random: fn() -> f64,
}

impl Cadence {
    pub(super) fn new(first: Duration, max: Duration, random: fn() -> f64) -> Self {
        let max = max.clamp(SHORTEST, LONGEST);
        let first = first.clamp(SHORTEST, max);
        Self {
            first,
            max,
            pause: first,
            random,
        }
    }

    /// The pause after a read that brought something new; the first read does.
    pub(super) fn changed(&mut self) -> Duration {
        self.pause = self.first;
        self.jittered()
    }

    /// The pause after a read that brought nothing new.
    pub(super) fn unchanged(&mut self) -> Duration {
        self.pause = self.pause.mul_f64(GROWTH).min(self.max);
        self.jittered()
    }

    /// The pause after a read out of turn that brought nothing new.
    pub(super) fn same(&self) -> Duration {
        self.jittered()
    }

    fn jittered(&self) -> Duration {
        self.pause
            .mul_f64(1.0 - JITTER + 2.0 * JITTER * (self.random)().clamp(0.0, 1.0))
    }
}

/// How long failures in a row are borne.
#[derive(Debug)]
pub(super) struct Patience {
    limit: Duration,
    /// The first failure of the row.
    since: Option<Instant>,
}

impl Patience {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, since: None }
    }

    /// A read has succeeded. True when it ends a row of failures.
    pub(super) fn recovered(&mut self) -> bool {
        self.since.take().is_some()
    }

    /// A read has failed, and the cadence asks for `pause`: how long to wait
    /// before the next one. None when that has no use: the error lasts, the
    /// limit is reached, or the upstream wants to be left alone for longer.
    pub(super) fn bear(&mut self, error: &Error, pause: Duration) -> Option<Duration> {
        if !error.is_transient() {
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
    fn pauses_grow_until_something_changes() {
        let mut cadence = Cadence::new(S(1), S(3), || 0.5);
        assert_eq!(cadence.changed(), S(1));
        assert_eq!(cadence.unchanged(), MS(1_500));
        assert_eq!(cadence.same(), MS(1_500));
        assert_eq!(cadence.unchanged(), MS(2_250));
        assert_eq!(cadence.unchanged(), S(3));
        assert_eq!(cadence.unchanged(), S(3));
        assert_eq!(cadence.changed(), S(1));
    }

    #[test]
    fn jitter_is_a_tenth_either_way() {
        for (random, want) in [
            ((|| 0.0) as fn() -> f64, MS(900)),
            (|| 1.0, MS(1_100)),
            (|| 7.0, MS(1_100)),
        ] {
            assert_eq!(Cadence::new(S(1), S(3), random).changed(), want);
        }
    }

    #[test]
    fn odd_intervals_neither_spin_nor_panic() {
        for (first, max, changed, unchanged) in [
            (S(0), S(0), SHORTEST, SHORTEST),
            (S(5), S(2), S(2), S(2)),
            (Duration::MAX, Duration::MAX, LONGEST, LONGEST),
        ] {
            let mut cadence = Cadence::new(first, max, || 0.5);
            assert_eq!(
                (cadence.changed(), cadence.unchanged()),
                (changed, unchanged)
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_borne_up_to_the_limit() {
        let down = Error::Connect("refused".to_owned());
        let mut patience = Patience::new(S(10));
        assert_eq!(patience.bear(&down, S(4)), Some(S(4)));
        tokio::time::advance(S(8)).await;
        assert_eq!(
            patience.bear(&down, S(4)),
            Some(S(2)),
            "a last try at the limit"
        );
        tokio::time::advance(S(2)).await;
        assert_eq!(patience.bear(&down, S(4)), None);
        assert!(patience.recovered());
        assert!(!patience.recovered());
        assert_eq!(patience.bear(&down, S(4)), Some(S(4)), "a new row");
    }

    #[tokio::test(start_paused = true)]
    async fn retry_after_is_kept() {
        let busy = |seconds| Error::Overload {
            code: Code::ResourceExhausted,
            problem: "full".to_owned(),
            retry_after: S(seconds),
        };
        let mut patience = Patience::new(S(60));
        assert_eq!(patience.bear(&busy(20), S(1)), Some(S(20)));
        assert_eq!(patience.bear(&busy(0), S(1)), Some(S(1)));
        assert_eq!(patience.bear(&busy(61), S(1)), None, "longer than is borne");
    }

    #[test]
    fn what_lasts_is_not_borne() {
        for error in [
            Error::Credential {
                code: Code::Unauthenticated,
                problem: "no token".to_owned(),
            },
            Error::decode("", "HTML"),
            Error::ResponseTooLarge { limit: 1 },
        ] {
            assert_eq!(Patience::new(S(60)).bear(&error, S(1)), None, "{error}");
        }
    }
}
