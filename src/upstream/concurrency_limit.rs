//! Limits the calls that an upstream serves at once, and those that wait in a queue.
//! Envoy calls this circuit breaking (`max_requests`, `max_pending_requests`).

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::Code;

use crate::error::Error;

/// `RetryInfo` of a call that the full queue rejects.
const RETRY_AFTER_FULL_QUEUE: Duration = Duration::from_secs(1);

/// A semaphore with a bounded queue.
#[derive(Debug)]
pub(super) struct ConcurrencyLimit {
    permits: Semaphore,
    max_concurrent: usize,
    queued: AtomicUsize,
    max_queued: usize,
}

impl ConcurrencyLimit {
    pub(super) fn new(max_concurrent: usize, max_queued: usize) -> Self {
        let max_concurrent = max_concurrent.min(Semaphore::MAX_PERMITS);
        Self {
            permits: Semaphore::new(max_concurrent),
            max_concurrent,
            queued: AtomicUsize::new(0),
            max_queued,
        }
    }

    /// Waits for a permit, in the order of the calls. Fails at once if the queue is full.
    pub(super) async fn acquire(&self, upstream: &str) -> Result<SemaphorePermit<'_>, Error> {
        if let Ok(permit) = self.permits.try_acquire() {
            return Ok(permit);
        }
        let _queued = self.enqueue(upstream)?;
        // The semaphore is never closed; the mapped error is never returned.
        self.permits.acquire().await.map_err(|_| Error::Draining)
    }

    fn enqueue(&self, upstream: &str) -> Result<QueueEntry<'_>, Error> {
        self.queued
            .fetch_update(Relaxed, Relaxed, |n| (n < self.max_queued).then_some(n + 1))
            .map(|_| QueueEntry(&self.queued))
            .map_err(|queued| Error::Overload {
                code: Code::ResourceExhausted,
                problem: format!(
                    "upstream {upstream}: {} calls are in flight and {queued} wait (settings `max_concurrent_calls`, `max_queued_calls`)",
                    self.max_concurrent
                ),
                retry_after: RETRY_AFTER_FULL_QUEUE,
            })
    }

    /// Returns how many calls have a permit.
    pub(super) fn in_flight(&self) -> usize {
        self.max_concurrent
            .saturating_sub(self.permits.available_permits())
    }

    /// Returns how many calls wait for a permit.
    pub(super) fn queued(&self) -> usize {
        self.queued.load(Relaxed)
    }
}

/// One queued call; leaves the queue when dropped.
struct QueueEntry<'a>(&'a AtomicUsize);

impl Drop for QueueEntry<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    #[tokio::test]
    async fn calls_beyond_the_limit_wait_and_beyond_the_queue_fail() {
        let limit = ConcurrencyLimit::new(2, 1);
        let first = limit.acquire("u").await.unwrap();
        let _second = limit.acquire("u").await.unwrap();
        assert_eq!((limit.in_flight(), limit.queued()), (2, 0));
        let cx = &mut Context::from_waker(Waker::noop());
        {
            let mut third = pin!(limit.acquire("u"));
            assert!(third.as_mut().poll(cx).is_pending());
            assert_eq!((limit.in_flight(), limit.queued()), (2, 1));
            match limit.acquire("u").await {
                Err(Error::Overload {
                    code,
                    problem,
                    retry_after,
                }) => {
                    assert_eq!(
                        (code, retry_after),
                        (Code::ResourceExhausted, RETRY_AFTER_FULL_QUEUE)
                    );
                    assert!(problem.starts_with("upstream u: 2 calls are in flight and 1 wait"));
                }
                other => panic!("{other:?}"),
            }
        }
        // A cancelled call leaves the queue.
        assert_eq!(limit.queued(), 0);
        let mut fourth = pin!(limit.acquire("u"));
        assert!(fourth.as_mut().poll(cx).is_pending());
        drop(first);
        let fourth = fourth.await.unwrap();
        assert_eq!((limit.in_flight(), limit.queued()), (2, 0));
        drop(fourth);
        assert_eq!(limit.in_flight(), 1);
    }
}
