//! A long answer on its way to a caller, who takes it piece by piece, or loses it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tonic::Code;

use crate::error::Error;
use crate::rest::Room;

/// How long a caller may take nothing. A connection that is alive says little of
/// one who reads, and what is kept for him is kept from others.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes that are taken in pieces. Where none is taken for 30 s, the rest is
/// dropped, and the room that it takes is given back.
#[derive(Debug)]
pub struct Parcel {
    left: Arc<Mutex<Left>>,
    looking: AbortHandle,
}

#[derive(Debug)]
struct Left {
    bytes: Bytes,
    /// What the bytes take; they may keep it themselves.
    room: Room,
    moved: Instant,
    lost: bool,
}

impl Parcel {
    /// All of it is still to be taken.
    pub fn new(bytes: Bytes, room: Room) -> Self {
        let left = Arc::new(Mutex::new(Left {
            bytes,
            room,
            moved: Instant::now(),
            lost: false,
        }));
        let looking = tokio::spawn(look(left.clone())).abort_handle();
        Self { left, looking }
    }

    /// The next piece, of at most `most` bytes, as `read` takes it in: a copy, lest a
    /// piece that lies about keep the whole. None when all was taken;
    /// [`Error::Undelivered`] when the rest was dropped.
    pub fn next<T>(&self, most: usize, read: impl FnOnce(&[u8]) -> T) -> Result<Option<T>, Error> {
        let mut left = lock(&self.left);
        if left.lost {
            return Err(Error::Undelivered {
                code: Code::DeadlineExceeded,
                problem: format!(
                    "nothing of the answer was taken for {} s",
                    PATIENCE.as_secs()
                ),
            });
        }
        if left.bytes.is_empty() {
            return Ok(None);
        }
        let length = left.bytes.len().min(most);
        let piece = read(&left.bytes[..length]);
        left.moved = Instant::now();
        left.bytes.advance(length);
        if left.bytes.is_empty() {
            left.drop_all();
        }
        Ok(Some(piece))
    }

    /// The bytes that are still to be taken.
    pub fn remaining(&self) -> usize {
        lock(&self.left).bytes.len()
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

impl Left {
    fn drop_all(&mut self) {
        self.bytes = Bytes::new();
        self.room = Room::default();
    }
}

/// Drops what nobody takes.
async fn look(left: Arc<Mutex<Left>>) {
    loop {
        let due = {
            let mut left = lock(&left);
            let due = left.moved + PATIENCE;
            if left.bytes.is_empty() {
                return;
            }
            if due <= Instant::now() {
                tracing::debug!(bytes = left.bytes.len(), "nobody takes an answer");
                left.lost = true;
                left.drop_all();
                return;
            }
            due
        };
        tokio::time::sleep_until(due).await;
    }
}

fn lock(left: &Mutex<Left>) -> MutexGuard<'_, Left> {
    // Nothing is left half done under this lock.
    left.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_nobody_takes_is_dropped() {
        let share = Arc::new(());
        let room = || Room(Some(share.clone()));
        let message = room().keep(Bytes::from_static(b"0123456789"));
        let parcel = Parcel::new(message, room());
        let next = || parcel.next(4, Bytes::copy_from_slice);
        assert_eq!(next().unwrap().unwrap(), "0123");
        // He is slow, but he reads.
        tokio::time::sleep(PATIENCE - Duration::from_secs(1)).await;
        assert_eq!(next().unwrap().unwrap(), "4567");
        tokio::time::sleep(PATIENCE - Duration::from_secs(1)).await;
        assert_eq!((parcel.remaining(), Arc::strong_count(&share)), (2, 3));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!((parcel.remaining(), Arc::strong_count(&share)), (0, 1));
        assert_eq!(next().unwrap_err().code(), Code::DeadlineExceeded);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_taken_takes_no_room() {
        let share = Arc::new(());
        let parcel = Parcel::new(Bytes::from_static(b"0123"), Room(Some(share.clone())));
        assert_eq!(parcel.next(9, <[u8]>::len).unwrap(), Some(4));
        assert_eq!(Arc::strong_count(&share), 1);
        tokio::time::sleep(2 * PATIENCE).await;
        assert_eq!(parcel.next(9, <[u8]>::len).unwrap(), None);
    }
}
