//! The retry policy: whether a failed attempt is retried, and after which backoff.

use std::time::Duration;

use crate::error::{Error, Retry};
use drawbridge_transcoder::call::Idempotency;

/// Upper bound of the backoff before the first retry; it doubles with each retry.
const INITIAL_BACKOFF: Duration = Duration::from_millis(100);

/// The limits of retries.
#[derive(Clone, Copy, Debug)]
pub(super) struct RetryPolicy {
    /// Attempts of one call, the first included.
    pub(super) max_attempts: u32,
    /// The longest pause, `Retry-After` included.
    pub(super) max_backoff: Duration,
}

impl RetryPolicy {
    /// Returns the pause after attempt `number` (1 is the first) failed with `error`, or
    /// None if it is not retried. `random` is from 0 to 1; `remaining` is the time until
    /// the deadline. A `Retry-After` longer than `max_backoff` or `remaining` is not waited
    /// for: the client gets it with the error.
    pub(super) fn pause(
        &self,
        error: &Error,
        idempotency: Idempotency,
        number: u32,
        remaining: Duration,
        random: f64,
    ) -> Option<Duration> {
        if number >= self.max_attempts || !may_retry(error, idempotency) {
            return None;
        }
        let retry_after = match error {
            Error::Upstream(fault) => fault.retry_after.unwrap_or_default(),
            _ => Duration::ZERO,
        };
        if retry_after > self.max_backoff {
            return None;
        }
        // Full jitter, so that calls that failed together are not retried together.
        let doublings = (number - 1).min(16);
        let backoff = (INITIAL_BACKOFF * (1 << doublings)).min(self.max_backoff);
        let pause = (retry_after + backoff.mul_f64(random)).min(self.max_backoff);
        (pause < remaining).then_some(pause)
    }
}

/// Returns whether the call may be retried after this error.
fn may_retry(error: &Error, idempotency: Idempotency) -> bool {
    match error.retry() {
        Retry::Never => false,
        Retry::IfIdempotent => idempotency != Idempotency::NonIdempotent,
        Retry::Always => true,
    }
}

#[cfg(test)]
mod tests {
    use super::Idempotency::{Idempotent, NoSideEffects, NonIdempotent};
    use super::*;
    use crate::upstream::tests::fault;

    const POLICY: RetryPolicy = RetryPolicy {
        max_attempts: 4,
        max_backoff: Duration::from_secs(5),
    };
    const LONG: Duration = Duration::from_secs(60);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn idempotency_and_error_decide_whether_to_retry() {
        let upstream = |not_processed, transient| {
            Error::Upstream(Box::new(crate::error::Fault {
                not_processed,
                transient,
                ..fault(503)
            }))
        };
        for (error, no_side_effects, idempotent, non_idempotent) in [
            (Error::Connect("x".into()), true, true, true),
            (Error::NoResponse("x".into()), true, true, false),
            (upstream(true, true), true, true, true),
            (upstream(true, false), true, true, true),
            (upstream(false, true), true, true, false),
            (upstream(false, false), false, false, false),
            (Error::ResponseTooLarge { limit: 1 }, false, false, false),
            (Error::Deadline { sent: false }, false, false, false),
            (Error::Draining, false, false, false),
        ] {
            for (idempotency, want) in [
                (NoSideEffects, no_side_effects),
                (Idempotent, idempotent),
                (NonIdempotent, non_idempotent),
            ] {
                let pause = POLICY.pause(&error, idempotency, 1, LONG, 0.5);
                assert_eq!(pause.is_some(), want, "{error:?} {idempotency:?}");
            }
        }
    }

    #[test]
    fn backoff_doubles_up_to_the_limit_and_the_deadline() {
        let error = Error::Connect("x".into());
        for (number, random, remaining, want) in [
            (1, 0.0, LONG, Some(ms(0))),
            (1, 1.0, LONG, Some(ms(100))),
            (2, 1.0, LONG, Some(ms(200))),
            (3, 0.5, LONG, Some(ms(200))),
            (4, 0.5, LONG, None),
            (1, 1.0, ms(100), None),
            (1, 1.0, ms(101), Some(ms(100))),
            (1, 0.0, ms(0), None),
        ] {
            let pause = POLICY.pause(&error, NonIdempotent, number, remaining, random);
            assert_eq!(pause, want, "{number} {random} {remaining:?}");
        }
        let unlimited = RetryPolicy {
            max_attempts: u32::MAX,
            ..POLICY
        };
        for number in [7, 20, 1_000, u32::MAX - 1] {
            let pause = unlimited.pause(&error, NonIdempotent, number, LONG, 1.0);
            assert_eq!(pause, Some(unlimited.max_backoff));
        }
    }

    #[test]
    fn retry_after_is_waited_for_up_to_the_limit() {
        for (retry_after, random, remaining, want) in [
            (0, 1.0, LONG, Some(ms(100))),
            (1, 0.0, LONG, Some(ms(1_000))),
            (1, 1.0, LONG, Some(ms(1_100))),
            (5, 1.0, LONG, Some(ms(5_000))),
            (6, 0.0, LONG, None),
            (3, 0.0, ms(2_000), None),
        ] {
            let error = Error::Upstream(Box::new(crate::error::Fault {
                not_processed: true,
                retry_after: Some(Duration::from_secs(retry_after)),
                ..fault(429)
            }));
            let pause = POLICY.pause(&error, NonIdempotent, 1, remaining, random);
            assert_eq!(pause, want, "{retry_after} {random} {remaining:?}");
        }
    }
}
