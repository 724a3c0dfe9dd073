//! Bounds the open streams, of watches, lists and downloads together, and ends those of watches
//! and lists on drain.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tonic::Code;

use crate::error::Error;

/// `RetryInfo` when no permit is left.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// Issues a permit per open stream. Clones share the permits.
#[derive(Clone, Debug)]
pub struct StreamLimiter(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    max: usize,
    open: AtomicUsize,
    /// Set once.
    drain: watch::Sender<bool>,
}

/// The right to hold one stream open; returned when dropped.
pub struct StreamPermit(Arc<Shared>);

impl fmt::Debug for StreamPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamPermit")
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Release);
    }
}

impl StreamLimiter {
    /// Creates a limiter of `max` streams.
    pub fn new(max: usize) -> Self {
        Self(Arc::new(Shared {
            max,
            open: AtomicUsize::new(0),
            drain: watch::Sender::new(false),
        }))
    }

    /// Returns a permit without waiting. Fails with [`Error::Overload`] where none is
    /// left, and with [`Error::Draining`] after [`StreamLimiter::drain`].
    pub fn acquire(&self) -> Result<StreamPermit, Error> {
        if self.is_draining() {
            return Err(Error::Draining);
        }
        let one_more = |open| (open < self.0.max).then_some(open + 1);
        let update = (self.0.open).fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more);
        match update {
            Ok(_) => Ok(StreamPermit(Arc::clone(&self.0))),
            Err(_) => Err(limit_reached("streams", "watch.max_streams")),
        }
    }

    /// Returns the number of open streams.
    pub fn open(&self) -> usize {
        self.0.open.load(Ordering::Acquire)
    }

    /// Ends all watches and lists, and rejects new streams.
    pub fn drain(&self) {
        self.0.drain.send_replace(true);
    }

    /// Returns whether [`StreamLimiter::drain`] was called.
    pub fn is_draining(&self) -> bool {
        *self.0.drain.borrow()
    }

    /// Returns when [`StreamLimiter::drain`] is called.
    pub async fn drain_begun(&self) {
        // Cannot fail: `self` keeps the sender.
        let _ = self.0.drain.subscribe().wait_for(|drained| *drained).await;
    }
}

/// Returns the error of a limit: `setting` allows no more of `what`.
pub(crate) fn limit_reached(what: &str, setting: &str) -> Error {
    Error::Overload {
        code: Code::ResourceExhausted,
        problem: format!("too many {what} at once (setting `{setting}`)"),
        retry_after: RETRY_AFTER,
    }
}
