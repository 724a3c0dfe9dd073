//! Bounds the open streams, of watches, lists and downloads together and per client, and ends
//! those of watches and lists on drain.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tonic::Code;

use crate::downstream::{Client, ClientShares, NoShare};
use crate::error::Error;

/// `RetryInfo` when no permit is left.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// Issues a permit per open stream. Clones share the permits.
#[derive(Clone, Debug)]
pub struct StreamLimiter(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    open: Mutex<ClientShares>,
    /// Set once.
    drain: watch::Sender<bool>,
}

/// The right to hold one stream open; returned when dropped.
pub struct StreamPermit(Arc<Shared>, Client);

impl fmt::Debug for StreamPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamPermit")
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.0.lock().put_back(self.1);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, ClientShares> {
        // Nothing panics while it is locked.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StreamLimiter {
    /// Creates a limiter of `max` streams.
    pub fn new(max: usize) -> Self {
        Self(Arc::new(Shared {
            open: Mutex::new(ClientShares::new(max)),
            drain: watch::Sender::new(false),
        }))
    }

    /// Returns a permit without waiting. Fails with [`Error::Overload`] where none is
    /// left or the client has its share, and with [`Error::Draining`] after
    /// [`StreamLimiter::drain`].
    pub fn acquire(&self, client: Client) -> Result<StreamPermit, Error> {
        if self.is_draining() {
            return Err(Error::Draining);
        }
        let taken = self.0.lock().take(client);
        taken.map_err(|why| limit_reached(why, "streams", "watch.max_streams"))?;
        Ok(StreamPermit(Arc::clone(&self.0), client))
    }

    /// Returns the number of open streams.
    pub fn open(&self) -> usize {
        self.0.lock().taken()
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

/// Returns the error of a limit: `setting` allows no more of `what`, for any client or for this
/// one.
pub(crate) fn limit_reached(why: NoShare, what: &str, setting: &str) -> Error {
    let of_whom = match why {
        NoShare::All => "",
        NoShare::Client => " of this client",
    };
    Error::Overload {
        code: Code::ResourceExhausted,
        problem: format!("too many {what}{of_whom} at once (setting `{setting}`)"),
        retry_after: RETRY_AFTER,
    }
}
