//! Places for streams, of watches and of lists: so many at once, and none once the
//! gateway stops.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tonic::Code;

use crate::error::Error;

/// When to try again where all places are taken.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// The places. Clones share them.
#[derive(Clone, Debug)]
pub struct Streams(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    max: usize,
    open: AtomicUsize,
    /// Set once.
    drain: watch::Sender<bool>,
}

/// A place, given back when dropped.
pub struct Place(Arc<Shared>);

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Place")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Release);
    }
}

impl Streams {
    /// As many places as this, all free.
    pub fn new(max: usize) -> Self {
        Self(Arc::new(Shared {
            max,
            open: AtomicUsize::new(0),
            drain: watch::Sender::new(false),
        }))
    }

    /// A place. Fails with [`Error::Overload`] where all are taken, and with
    /// [`Error::Draining`] when the gateway stops.
    pub fn place(&self) -> Result<Place, Error> {
        if self.is_draining() {
            return Err(Error::Draining);
        }
        let one_more = |open| (open < self.0.max).then_some(open + 1);
        let update = (self.0.open).fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more);
        match update {
            Ok(_) => Ok(Place(Arc::clone(&self.0))),
            Err(_) => Err(full("streams", "watch.max_streams")),
        }
    }

    /// Places that are taken.
    pub fn open(&self) -> usize {
        self.0.open.load(Ordering::Acquire)
    }

    /// Tells every stream to end, and gives no place from now on.
    pub fn drain(&self) {
        self.0.drain.send_replace(true);
    }

    /// Whether [`Streams::drain`] was called.
    pub fn is_draining(&self) -> bool {
        *self.0.drain.borrow()
    }

    /// Returns when [`Streams::drain`] is called.
    pub async fn drained(&self) {
        // The sender is here as long as this.
        let _ = self.0.drain.subscribe().wait_for(|drained| *drained).await;
    }
}

/// The error where `setting` allows no more.
pub(crate) fn full(what: &str, setting: &str) -> Error {
    Error::Overload {
        code: Code::ResourceExhausted,
        problem: format!("too many {what} at once (setting `{setting}`)"),
        retry_after: RETRY_AFTER,
    }
}
