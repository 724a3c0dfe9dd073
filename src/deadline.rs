//! The deadline of a call, and the end of all calls when a drain takes too long.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tonic::Code;

use crate::error::Error;

/// Subtracted from the client's deadline, so that the client receives the gateway's
/// DEADLINE_EXCEEDED and not tonic's CANCELLED. At most a tenth of the timeout.
const CLIENT_MARGIN: Duration = Duration::from_millis(50);

/// When a call must be over, including login, attempts and backoff.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// Returns the deadline of a client's `grpc-timeout`, less a margin, or of `default`. It
    /// counts from now, when the headers have arrived. Fails for an invalid timeout.
    pub fn from_metadata(metadata: &http::HeaderMap, default: Duration) -> Result<Self, Error> {
        let timeout = match metadata.get("grpc-timeout") {
            None => default,
            Some(value) => {
                let timeout = value.to_str().ok().and_then(parse);
                let timeout = timeout.ok_or_else(|| Error::RequestNotReceived {
                    code: Code::InvalidArgument,
                    problem: "the metadata `grpc-timeout` is not valid: it has 1 to 8 digits and \
                              a unit (H, M, S, m, u or n)"
                        .to_owned(),
                })?;
                timeout.saturating_sub(CLIENT_MARGIN.min(timeout / 10))
            }
        };
        Ok(Self::after(timeout))
    }

    /// Returns the deadline `timeout` from now, at most a year.
    pub fn after(timeout: Duration) -> Self {
        Self(Instant::now() + timeout.min(Duration::from_secs(365 * 86_400)))
    }

    /// Returns the instant.
    pub fn instant(self) -> Instant {
        self.0
    }

    /// Returns the time until the deadline; zero after it.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Returns the earlier of the two.
    pub fn min(self, other: Self) -> Self {
        Self(self.0.min(other.0))
    }

    /// Runs `work`; fails with [`Error::Deadline`] at the deadline.
    pub async fn bound<T>(self, work: impl Future<Output = T>) -> Result<T, Error> {
        tokio::time::timeout_at(self.0, work)
            .await
            .map_err(|_| Error::Deadline { sent: false })
    }
}

/// The end of all calls, which a drain begins when its timeout has passed. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct CutOff(Arc<CutOffState>);

#[derive(Debug, Default)]
struct CutOffState {
    has_begun: AtomicBool,
    waiting: Notify,
}

impl CutOff {
    /// Ends all calls, for good.
    pub fn begin(&self) {
        self.0.has_begun.store(true, Ordering::Release);
        self.0.waiting.notify_waiters();
    }

    /// Returns whether [`Self::begin`] was called.
    pub fn has_begun(&self) -> bool {
        self.0.has_begun.load(Ordering::Acquire)
    }

    /// Completes when [`Self::begin`] is called.
    pub async fn begun(&self) {
        // Created first: it is notified from here on.
        let notified = self.0.waiting.notified();
        if !self.has_begun() {
            notified.await;
        }
    }

    /// Runs `work`; None if it is not complete when its task is polled after the cut-off. One
    /// future of the task has to wait for [`Self::begun`], since this one does not: the inner
    /// parts of a call, which know most about its state, cost no registration each.
    /// Takes a reference: a future that contains another one is twice as large.
    pub async fn bound<T>(&self, mut work: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Pending if self.has_begun() => Poll::Ready(None),
            polled => polled.map(Some),
        })
        .await
    }
}

/// Parses a `grpc-timeout`: at most 8 digits and a unit.
/// Source: gRPC over HTTP/2, "Timeout".
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(n * 3600),
        "M" => Duration::from_secs(n * 60),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn margin_is_subtracted_from_the_timeout() {
        let deadline = |headers: &[(&'static str, &'static str)]| {
            let headers = headers.iter().map(|(name, value)| {
                let name = http::HeaderName::from_static(name);
                (name, http::HeaderValue::from_static(value))
            });
            Deadline::from_metadata(&headers.collect(), Duration::from_secs(7))
        };
        for (text, want) in [("10S", 9_950), ("300m", 270), ("0n", 0)] {
            let deadline = deadline(&[("grpc-timeout", text)]).unwrap();
            assert_eq!(deadline.remaining().as_millis(), want, "{text}");
        }
        assert_eq!(deadline(&[]).unwrap().remaining().as_millis(), 7_000);
        for text in ["nonsense", "", "1", "-1S", "123456789S"] {
            let error = deadline(&[("grpc-timeout", text)]).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{text}");
        }
    }

    #[test]
    fn grpc_timeout_is_parsed() {
        for (text, want) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("99999999m", Some(Duration::from_millis(99_999_999))),
            ("5u", Some(Duration::from_micros(5))),
            ("7n", Some(Duration::from_nanos(7))),
            ("", None),
            ("S", None),
            ("123456789S", None),
            ("+1S", None),
            ("1s", None),
            ("1µ", None),
        ] {
            assert_eq!(parse(text), want, "{text}");
        }
    }
}
