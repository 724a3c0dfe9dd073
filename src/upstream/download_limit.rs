//! Limits the open downloads of an upstream. Each has a connection of its own for as long as the
//! file arrives, after its permit for a call is returned: without a limit they take the
//! descriptors that calls need.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tonic::Code;

use crate::downstream::{Client, ClientShares, NoShare};
use crate::error::Error;

/// How many concurrent calls of an upstream one download is for.
const CALLS_PER_DOWNLOAD: usize = 4;

/// `RetryInfo` when no permit is left.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// Returns how many downloads an upstream of so many concurrent calls may have open, unless
/// its settings say so.
pub fn default_downloads(max_concurrent_calls: usize) -> usize {
    max_concurrent_calls.div_ceil(CALLS_PER_DOWNLOAD)
}

/// Issues a permit per open download.
#[derive(Debug)]
pub(super) struct DownloadLimit(Arc<Mutex<ClientShares>>);

/// The right to hold one download open; returned when dropped.
#[derive(Debug)]
pub struct DownloadPermit {
    shares: Arc<Mutex<ClientShares>>,
    client: Client,
}

impl DownloadLimit {
    /// Creates the limit of an upstream of so many open downloads.
    pub(super) fn new(max_downloads: usize) -> Self {
        Self(Arc::new(Mutex::new(ClientShares::new(max_downloads))))
    }

    /// Returns a permit without waiting. Fails where none is left, or the client has its share.
    pub(super) fn acquire(&self, client: Client, upstream: &str) -> Result<DownloadPermit, Error> {
        let taken = lock(&self.0).take(client);
        taken.map_err(|why| overload(why, upstream))?;
        Ok(DownloadPermit {
            shares: self.0.clone(),
            client,
        })
    }
}

impl Drop for DownloadPermit {
    fn drop(&mut self) {
        lock(&self.shares).put_back(self.client);
    }
}

fn lock(shares: &Mutex<ClientShares>) -> MutexGuard<'_, ClientShares> {
    // Nothing panics while it is locked.
    shares.lock().unwrap_or_else(PoisonError::into_inner)
}

fn overload(why: NoShare, upstream: &str) -> Error {
    let of_whom = match why {
        NoShare::All => "",
        NoShare::Client => " of this client",
    };
    Error::Overload {
        code: Code::ResourceExhausted,
        problem: format!(
            "upstream {upstream}: too many downloads{of_whom} at once (setting \
             `max_downloads`)"
        ),
        retry_after: RETRY_AFTER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::downstream::ClientKey;

    #[test]
    fn downloads_of_one_client_leave_some_to_others() {
        let limit = DownloadLimit::new(8);
        let client = |number| Client::from(ClientKey::test(number));
        let open: Vec<_> = (0..6)
            .map(|_| limit.acquire(client(1), "a").unwrap())
            .collect();
        let error = limit.acquire(client(1), "a").unwrap_err().to_string();
        assert!(
            error.contains("too many downloads of this client"),
            "{error}"
        );
        let other = limit.acquire(client(2), "a").unwrap();
        drop((open, other));
        assert_eq!(lock(&limit.0).taken(), 0);
        // An upstream of one call at a time has a download.
        let limit = DownloadLimit::new(default_downloads(1));
        limit.acquire(client(1), "a").unwrap();
    }
}
