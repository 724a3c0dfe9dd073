//! The memory budget of the process: everything large that a call holds draws from it before
//! it is allocated, by its size.
//!
//! ```text
//! budget ── the process: `server.max_memory_bytes`
//!   └─ client ── no more than what is free: one client alone at most half of the budget,
//!        │        and three quarters with short calls on many connections
//!        └─ account ── one client on one connection
//!             └─ reservation ── what one call, message or frame holds
//! ```
//!
//! An account draws from its client in blocks, so that most reservations are one atomic
//! operation on memory that no other connection uses. The less an account holds, the more may
//! its client hold in all ([`share`]): short calls on a connection of their own are served
//! even while other connections of the same client hold its half.
//!
//! A reservation mostly travels with the bytes that it is for: [`Reservation::attach`].

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::AcqRel, Ordering::Acquire};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tonic::Code;

use self::conversion::Turns;
use crate::error::Error;

mod conversion;
mod system;
#[cfg(test)]
mod tests;

pub use conversion::{LONG_BYTES, Turn};
pub use system::default_budget;

/// What a call counts for besides its long parts: its tasks, its metadata, short messages.
pub const CALL_BYTES: usize = 16 << 10;

/// What an open stream counts for while it has no message to send.
pub const STREAM_BYTES: usize = 8 << 10;

/// What a download counts for in addition: the buffers of its connection to the upstream, and a
/// decoder.
pub const DOWNLOAD_BYTES: usize = 96 << 10;

/// Messages, bodies and frames up to this length are covered by [`CALL_BYTES`].
pub const SHORT_BYTES: usize = 4 << 10;

/// The unit of all counters.
const UNIT_BYTES: usize = 1 << 10;

/// How much an account draws from its client at once, and keeps when it is idle.
const BLOCK_UNITS: u32 = 32;

/// An account that holds no more draws for short calls.
const SHORT_CALLS_UNITS: u32 = (256 << 10) / UNIT_BYTES as u32;

/// `RetryInfo` of a call that does not fit into the budget.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The number of registered clients at which those that have left are removed.
const MIN_CLIENTS_TO_CLEAN: usize = 1_024;

/// The memory budget of the process. Clones share it.
#[derive(Clone, Debug)]
pub struct MemoryBudget(Arc<Budget>);

#[derive(Debug)]
struct Budget {
    /// In units.
    limit: usize,
    /// In units; at most `limit`.
    used: AtomicUsize,
    /// By the digest of the client's key.
    clients: Mutex<HashMap<u64, Weak<Client>>>,
    /// Reservations that failed: by the budget, by the share of a client.
    rejected: [AtomicU64; 2],
    /// For long conversions.
    turns: Turns,
}

/// The share of one client, which is not fixed; see [`share`].
#[derive(Debug)]
struct Client {
    budget: Arc<Budget>,
    /// In units.
    used: AtomicUsize,
    /// For its long conversions, before those of all.
    turns: Turns,
}

/// The memory of one client on one connection. Without an account, in tests and for calls of
/// the gateway itself, nothing is counted.
#[derive(Clone, Debug, Default)]
pub struct Memory(Option<Arc<Account>>);

#[derive(Debug)]
struct Account {
    client: Arc<Client>,
    /// [`Drawn`], in one word.
    drawn: AtomicU64,
}

/// The state of an account, in units.
#[derive(Clone, Copy)]
struct Drawn {
    /// What reservations hold. At most `granted`.
    used: u32,
    /// What the account has drawn from its client.
    granted: u32,
}

/// Memory that is set aside; returned when dropped.
#[derive(Debug, Default)]
pub struct Reservation {
    account: Option<Arc<Account>>,
    units: u32,
}

/// Which bound a reservation has met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exhausted {
    /// The budget of the process.
    Budget = 0,
    /// The share of the client.
    Client = 1,
}

/// The figures for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetStats {
    /// The budget, in bytes.
    pub limit: u64,
    /// What is reserved, in bytes.
    pub used: u64,
    /// Reservations that failed because of the budget.
    pub rejected_by_budget: u64,
    /// Reservations that failed because of a client's share.
    pub rejected_by_client: u64,
}

impl MemoryBudget {
    /// Creates a budget of so many bytes.
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Budget {
            limit: limit / UNIT_BYTES,
            used: AtomicUsize::new(0),
            clients: Mutex::default(),
            rejected: Default::default(),
            turns: Turns::default(),
        }))
    }

    /// Opens an account of the client with this key, for one connection.
    pub fn open(&self, key: u64) -> Memory {
        let mut clients = (self.0.clients.lock()).unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= MIN_CLIENTS_TO_CLEAN && clients.len() == clients.capacity() {
            clients.retain(|_, client| client.strong_count() > 0);
        }
        let slot = clients.entry(key).or_default();
        let client = slot.upgrade().unwrap_or_else(|| {
            let client = Arc::new(Client {
                budget: self.0.clone(),
                used: AtomicUsize::new(0),
                turns: Turns::default(),
            });
            *slot = Arc::downgrade(&client);
            client
        });
        Memory(Some(Arc::new(Account {
            client,
            drawn: AtomicU64::new(0),
        })))
    }

    /// Returns the figures for the metrics.
    pub fn stats(&self) -> BudgetStats {
        let bytes = |units: usize| (units * UNIT_BYTES) as u64;
        let rejected = |by: Exhausted| self.0.rejected[by as usize].load(Acquire);
        BudgetStats {
            limit: bytes(self.0.limit),
            used: bytes(self.0.used.load(Acquire)),
            rejected_by_budget: rejected(Exhausted::Budget),
            rejected_by_client: rejected(Exhausted::Client),
        }
    }
}

/// Adds to a counter, unless the limit is met. Returns its new value.
fn add(counter: &AtomicUsize, units: u32, limit: usize) -> Option<usize> {
    let units = units as usize;
    let fits = |used: usize| (used + units <= limit).then_some(used + units);
    let before = counter.fetch_update(AcqRel, Acquire, fits).ok()?;
    Some(before + units)
}

impl Client {
    /// Draws what raises the grant of an account `from` so many units `to` so many.
    fn raise(&self, from: u32, to: u32) -> Result<(), Exhausted> {
        let budget = &self.budget;
        let exhausted = match add(&budget.used, to - from, budget.limit) {
            None => Exhausted::Budget,
            Some(used) => {
                if add(&self.used, to - from, share(to, budget.limit - used)).is_some() {
                    return Ok(());
                }
                budget.used.fetch_sub((to - from) as usize, AcqRel);
                Exhausted::Client
            }
        };
        budget.rejected[exhausted as usize].fetch_add(1, AcqRel);
        Err(exhausted)
    }

    /// Returns what lowers the grant of an account.
    fn lower(&self, from: u32, to: u32) {
        let units = (from - to) as usize;
        self.used.fetch_sub(units, AcqRel);
        self.budget.used.fetch_sub(units, AcqRel);
    }
}

/// Returns how much a client may hold whose account draws up to `granted`, while so much is
/// free.
///
/// A client draws only as long as it then holds no more than what is free. One client alone
/// gets half of the budget, two get a third each, and a part is always free for the next one.
/// Source: Choudhury and Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet
/// Switches". Their factor is 1; for an account that holds little it is higher, so that one
/// client alone gets five eighths, and three quarters for the first block of each account.
fn share(granted: u32, free: usize) -> usize {
    match granted {
        ..=BLOCK_UNITS => 3 * free,
        ..=SHORT_CALLS_UNITS => free + 2 * free / 3,
        _ => free,
    }
}

impl Account {
    /// Takes units of the account, which draws more from its client if it must.
    fn take(&self, units: u32) -> Result<(), Exhausted> {
        let mut word = self.drawn.load(Acquire);
        loop {
            let drawn = Drawn::of(word);
            let used = drawn.used.saturating_add(units);
            let granted = match used <= drawn.granted {
                true => drawn.granted,
                false => used.div_ceil(BLOCK_UNITS).saturating_mul(BLOCK_UNITS),
            };
            if granted != drawn.granted {
                self.client.raise(drawn.granted, granted)?;
            }
            let next = Drawn { used, granted }.word();
            match self
                .drawn
                .compare_exchange_weak(word, next, AcqRel, Acquire)
            {
                Ok(_) => return Ok(()),
                Err(now) => word = now,
            }
            if granted != drawn.granted {
                self.client.lower(granted, drawn.granted);
            }
        }
    }

    /// Returns units to the account, which keeps at most a block that is not used.
    fn put_back(&self, units: u32) {
        let mut word = self.drawn.load(Acquire);
        loop {
            let drawn = Drawn::of(word);
            let used = drawn.used - units;
            let kept = (used.div_ceil(BLOCK_UNITS) + 1) * BLOCK_UNITS;
            let granted = drawn.granted.min(kept);
            let next = Drawn { used, granted }.word();
            match self
                .drawn
                .compare_exchange_weak(word, next, AcqRel, Acquire)
            {
                Ok(_) => {
                    if granted != drawn.granted {
                        self.client.lower(drawn.granted, granted);
                    }
                    return;
                }
                Err(now) => word = now,
            }
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let granted = Drawn::of(*self.drawn.get_mut()).granted;
        self.client.lower(granted, 0);
    }
}

impl Drawn {
    fn of(word: u64) -> Self {
        Self {
            used: word as u32,
            granted: (word >> 32) as u32,
        }
    }

    fn word(self) -> u64 {
        u64::from(self.granted) << 32 | u64::from(self.used)
    }
}

impl Memory {
    /// Sets memory aside.
    pub fn reserve(&self, bytes: usize) -> Result<Reservation, Exhausted> {
        let mut reservation = self.empty();
        reservation.resize(bytes)?;
        Ok(reservation)
    }

    /// As [`Self::reserve`]; nothing for what [`CALL_BYTES`] covers.
    pub fn reserve_long(&self, bytes: usize) -> Result<Reservation, Exhausted> {
        match bytes <= SHORT_BYTES {
            true => Ok(Reservation::default()),
            false => self.reserve(bytes),
        }
    }

    /// Returns a reservation of nothing, which can grow.
    pub fn empty(&self) -> Reservation {
        Reservation {
            account: self.0.clone(),
            units: 0,
        }
    }
}

impl Reservation {
    /// Returns how much is set aside, in bytes.
    pub fn bytes(&self) -> usize {
        self.units as usize * UNIT_BYTES
    }

    /// Grows or shrinks to so many bytes. Unchanged after an error.
    pub fn resize(&mut self, bytes: usize) -> Result<(), Exhausted> {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        if let Some(account) = &self.account {
            match units.checked_sub(self.units) {
                Some(0) => {}
                Some(more) => account.take(more)?,
                None => account.put_back(self.units - units),
            }
        }
        self.units = units;
        Ok(())
    }

    /// As [`Self::resize`]; to nothing for what [`CALL_BYTES`] covers.
    pub fn resize_long(&mut self, bytes: usize) -> Result<(), Exhausted> {
        self.resize(if bytes <= SHORT_BYTES { 0 } else { bytes })
    }

    /// Reserves `capacity` for a buffer that replaces one of `bytes()`: until the content is
    /// copied, both exist. The caller then calls [`Self::resize`].
    pub fn replace(&mut self, capacity: usize) -> Result<(), Exhausted> {
        self.resize(self.bytes().saturating_add(capacity))
    }

    /// Takes a part of so many bytes out, at most all.
    #[must_use]
    pub fn split(&mut self, bytes: usize) -> Self {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        let units = units.min(self.units);
        self.units -= units;
        Self {
            account: self.account.clone(),
            units,
        }
    }

    /// Returns the bytes in a form that keeps the reservation until the last reference to
    /// them is dropped, of a part or of all.
    pub fn attach<T>(self, bytes: T) -> Bytes
    where
        T: AsRef<[u8]> + Into<Bytes> + Send + 'static,
    {
        match self.units {
            0 => bytes.into(),
            _ => Bytes::from_owner(Attached {
                bytes,
                _reservation: self,
            }),
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(account) = &self.account
            && self.units > 0
        {
            account.put_back(self.units);
        }
    }
}

/// Bytes with their reservation.
struct Attached<T> {
    bytes: T,
    _reservation: Reservation,
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Attached<T> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Budget => {
                "the memory of the gateway for calls is used up (setting `server.max_memory_bytes`)"
            }
            Self::Client => {
                "the calls of this client hold as much of the gateway's memory as one client may \
                 (setting `server.max_memory_bytes`)"
            }
        })
    }
}

impl From<Exhausted> for Error {
    fn from(exhausted: Exhausted) -> Self {
        Self::Overload {
            code: Code::ResourceExhausted,
            problem: exhausted.to_string(),
            retry_after: RETRY_AFTER,
        }
    }
}
