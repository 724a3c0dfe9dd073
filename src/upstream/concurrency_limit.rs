//! How many calls an upstream gets at once, and how many wait for a place.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::Code;

use crate::error::Error;

/// When to try again after the queue was full.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Places and a bounded queue.
#[derive(Debug)]
pub(super) struct Limit {
    places: Semaphore,
    max_concurrent: usize,
    queued: AtomicUsize,
    max_queued: usize,
}

impl Limit {
    pub(super) fn new(max_concurrent: usize, max_queued: usize) -> Self {
        let max_concurrent = max_concurrent.min(Semaphore::MAX_PERMITS);
        Self {
            places: Semaphore::new(max_concurrent),
            max_concurrent,
            queued: AtomicUsize::new(0),
            max_queued,
        }
    }

    /// Waits for a place, which is held until the permit is dropped. First come,
    /// first served. Fails at once when the queue is full.
    pub(super) async fn admit(&self, upstream: &str) -> Result<SemaphorePermit<'_>, Error> {
        if let Ok(permit) = self.places.try_acquire() {
            return Ok(permit);
        }
        let _waiting = self.queue(upstream)?;
        // Never closed; were it, nobody would get in.
        self.places.acquire().await.map_err(|_| Error::Draining)
    }

    fn queue(&self, upstream: &str) -> Result<Waiting<'_>, Error> {
        self.queued
            .fetch_update(Relaxed, Relaxed, |n| (n < self.max_queued).then_some(n + 1))
            .map(|_| Waiting(&self.queued))
            .map_err(|queued| Error::Overload {
                code: Code::ResourceExhausted,
                problem: format!(
                    "upstream {upstream}: {} calls are under way and {queued} wait (settings `max_concurrent_calls`, `max_queued_calls`)",
                    self.max_concurrent
                ),
                retry_after: RETRY_AFTER,
            })
    }

    /// Calls that hold a place.
    pub(super) fn in_flight(&self) -> usize {
        self.max_concurrent
            .saturating_sub(self.places.available_permits())
    }

    /// Calls that wait for a place.
    pub(super) fn queued(&self) -> usize {
        self.queued.load(Relaxed)
    }
}

/// A place in the queue, left when dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
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
    async fn places_and_queue() {
        let limit = Limit::new(2, 1);
        let first = limit.admit("u").await.unwrap();
        let _second = limit.admit("u").await.unwrap();
        assert_eq!((limit.in_flight(), limit.queued()), (2, 0));
        let cx = &mut Context::from_waker(Waker::noop());
        {
            let mut third = pin!(limit.admit("u"));
            assert!(third.as_mut().poll(cx).is_pending());
            assert_eq!((limit.in_flight(), limit.queued()), (2, 1));
            match limit.admit("u").await {
                Err(Error::Overload {
                    code,
                    problem,
                    retry_after,
                }) => {
                    assert_eq!((code, retry_after), (Code::ResourceExhausted, RETRY_AFTER));
                    assert!(problem.starts_with("upstream u: 2 calls are under way and 1 wait"));
                }
                other => panic!("{other:?}"),
            }
        }
        // Who waited has left.
        assert_eq!(limit.queued(), 0);
        let mut fourth = pin!(limit.admit("u"));
        assert!(fourth.as_mut().poll(cx).is_pending());
        drop(first);
        let fourth = fourth.await.unwrap();
        assert_eq!((limit.in_flight(), limit.queued()), (2, 0));
        drop(fourth);
        assert_eq!(limit.in_flight(), 1);
    }
}
