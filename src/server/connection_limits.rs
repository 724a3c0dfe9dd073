//! Limits the connections of a listener, in all and per address. At a limit, one that has no
//! call makes room for a new one: first those that never had one, then by the time since their
//! last call. A new one is refused only where each connection has a call.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

/// One of so many connections may be closing in addition to those that are open, and at least
/// [`MIN_CLOSING`]: time for their clients to see GOAWAY.
pub(super) const CLOSING_DIVISOR: usize = 8;
const MIN_CLOSING: usize = 4;

/// The connections of a listener.
#[derive(Debug)]
pub(super) struct ConnectionLimits {
    max: usize,
    max_per_address: usize,
    open: Gauge,
    epoch: Instant,
    state: Mutex<State>,
    /// Fires when a connection has ended.
    released: Notify,
}

#[derive(Debug, Default)]
struct State {
    by_address: HashMap<IpAddr, HashMap<u64, Arc<Activity>>>,
    /// How many connections are in `by_address`.
    count: usize,
    /// How many evicted connections have not ended yet.
    closing: usize,
    next_id: u64,
}

/// The calls of a connection.
#[derive(Debug)]
pub(super) struct Activity {
    epoch: Instant,
    calls: AtomicUsize,
    /// When it was accepted or its last call ended, in milliseconds since the epoch.
    idle_since_ms: AtomicU64,
    /// How many calls it has had.
    begun: AtomicU64,
    evicted: Notify,
    /// Whether it is closed at once, without GOAWAY.
    is_closed_at_once: AtomicBool,
}

/// The place of one connection; released when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    limits: Arc<ConnectionLimits>,
    address: IpAddr,
    id: u64,
    activity: Arc<Activity>,
}

/// A call of a connection, until it is dropped.
#[derive(Debug)]
pub(super) struct ActiveCall(Arc<Activity>);

/// The limit that refuses a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReachedLimit {
    Total,
    PerAddress,
}

impl ConnectionLimits {
    /// Limits connections to `max` in all and to `max_per_address`. `open` is set to their
    /// number.
    pub(super) fn new(max: usize, max_per_address: usize, open: Gauge) -> Arc<Self> {
        Arc::new(Self {
            max: max.max(1),
            max_per_address: max_per_address.clamp(1, max.max(1)),
            open,
            epoch: Instant::now(),
            state: Mutex::default(),
            released: Notify::new(),
        })
    }

    /// Admits a connection, and evicts another one where a limit is reached.
    ///
    /// # Errors
    ///
    /// Fails where each connection that could be evicted has a call.
    pub(super) fn admit(self: &Arc<Self>, peer: IpAddr) -> Result<Slot, ReachedLimit> {
        let address = client_address(peer);
        let mut state = self.lock();
        let of_address = state.by_address.get(&address).map_or(0, HashMap::len);
        if of_address >= self.max_per_address {
            let evicted = self.evict(&mut state, Some(address));
            evicted.then_some(()).ok_or(ReachedLimit::PerAddress)?;
        } else if state.count >= self.max {
            let evicted = self.evict(&mut state, None);
            evicted.then_some(()).ok_or(ReachedLimit::Total)?;
        }
        let id = state.next_id;
        state.next_id += 1;
        let activity = Arc::new(Activity::new(self.epoch));
        let connections = state.by_address.entry(address).or_default();
        connections.insert(id, activity.clone());
        state.count += 1;
        drop(state);
        self.open.inc();
        Ok(Slot {
            limits: self.clone(),
            address,
            id,
            activity,
        })
    }

    /// Evicts the connection that has been idle for the longest time, because the process is
    /// short of descriptors. Returns whether there is one.
    pub(super) fn evict_one(&self) -> bool {
        self.evict(&mut self.lock(), None)
    }

    /// Waits until no more evicted connections are closing than there may be. Those that exceed
    /// it are closed at once.
    pub(super) async fn evictions_complete(&self) {
        loop {
            let released = self.released.notified();
            if self.lock().closing <= self.max_closing() {
                return;
            }
            released.await;
        }
    }

    fn max_closing(&self) -> usize {
        (self.max / CLOSING_DIVISOR).max(MIN_CLOSING)
    }

    /// Completes when a connection has ended, from now on.
    pub(super) fn released(&self) -> Notified<'_> {
        self.released.notified()
    }

    /// Evicts an idle connection, of this address if there is one: the oldest of those that
    /// have never had a call, else the one whose last call is the longest ago.
    fn evict(&self, state: &mut State, address: Option<IpAddr>) -> bool {
        let candidates = state
            .by_address
            .iter()
            .filter(|(of, _)| address.is_none_or(|address| address == **of))
            .flat_map(|(address, connections)| {
                connections
                    .iter()
                    .map(move |(id, activity)| (*address, *id, activity))
            });
        let first = candidates
            .filter(|(_, _, activity)| activity.is_idle())
            .min_by_key(|(_, id, activity)| (activity.is_used(), activity.idle_since(), *id));
        let Some((address, id, _)) = first else {
            return false;
        };
        let Some(activity) = state.remove(address, id) else {
            return false;
        };
        let at_once = state.closing >= self.max_closing() || !activity.is_used();
        activity.is_closed_at_once.store(at_once, Ordering::Relaxed);
        state.closing += 1;
        activity.evicted.notify_one();
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn remove(&mut self, address: IpAddr, id: u64) -> Option<Arc<Activity>> {
        let connections = self.by_address.get_mut(&address)?;
        let removed = connections.remove(&id)?;
        if connections.is_empty() {
            self.by_address.remove(&address);
        }
        self.count -= 1;
        Some(removed)
    }
}

impl Slot {
    /// Returns the calls of the connection.
    pub(super) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// Waits until the connection is evicted. Returns whether it is closed at once, because it
    /// has had no call or too many others are closing.
    pub(super) async fn evicted(&self) -> bool {
        self.activity.evicted.notified().await;
        self.activity.is_closed_at_once.load(Ordering::Relaxed)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.limits.lock();
        if state.remove(self.address, self.id).is_none() {
            state.closing -= 1;
        }
        drop(state);
        self.limits.open.dec();
        self.limits.released.notify_waiters();
    }
}

impl Activity {
    fn new(epoch: Instant) -> Self {
        let activity = Self {
            epoch,
            calls: AtomicUsize::new(0),
            idle_since_ms: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            evicted: Notify::new(),
            is_closed_at_once: AtomicBool::new(false),
        };
        activity.touch();
        activity
    }

    /// Counts a call until the result is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> ActiveCall {
        self.calls.fetch_add(1, Ordering::AcqRel);
        self.begun.fetch_add(1, Ordering::Relaxed);
        ActiveCall(self.clone())
    }

    /// Returns whether it has no call.
    pub(super) fn is_idle(&self) -> bool {
        self.calls.load(Ordering::Acquire) == 0
    }

    /// Returns whether it has ever had a call.
    pub(super) fn is_used(&self) -> bool {
        self.begun() > 0
    }

    /// Returns how many calls it has had.
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Returns when it will have had no call for `timeout`, at the earliest.
    pub(super) fn idle_deadline(&self, timeout: Duration) -> Instant {
        match self.is_idle() {
            true => self.idle_since() + timeout,
            false => Instant::now() + timeout,
        }
    }

    /// Returns when it was accepted or its last call ended.
    fn idle_since(&self) -> Instant {
        self.epoch + Duration::from_millis(self.idle_since_ms.load(Ordering::Acquire))
    }

    /// Sets the end of the last call to now.
    pub(super) fn touch(&self) {
        let now = self.epoch.elapsed().as_millis() as u64;
        self.idle_since_ms.store(now, Ordering::Release);
    }
}

impl Drop for ActiveCall {
    fn drop(&mut self) {
        self.0.touch();
        self.0.calls.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Returns the address that counts for the limit: of IPv6, the network of 64 bits, which one
/// client usually has.
fn client_address(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn limits(max: usize, max_per_address: usize) -> Arc<ConnectionLimits> {
        ConnectionLimits::new(max, max_per_address, Gauge::default())
    }

    /// Returns whether a slot was evicted, and if so whether it is closed at once.
    async fn eviction(slot: &Slot) -> Option<bool> {
        tokio::select! {
            biased;
            at_once = slot.evicted() => Some(at_once),
            () = std::future::ready(()) => None,
        }
    }

    async fn tick() {
        tokio::time::advance(Duration::from_secs(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn longest_idle_connection_makes_room() {
        let limits = limits(3, 3);
        let mut slots = Vec::new();
        for _ in 0..3 {
            slots.push(limits.admit(ip("10.0.0.1")).unwrap());
            tick().await;
        }
        // The first has a call, the second had one, the third had none.
        let call = slots[0].activity().begin();
        drop(slots[1].activity().begin());
        tick().await;
        slots.push(limits.admit(ip("10.0.0.2")).unwrap());
        drop(slots[3].activity().begin());
        let evictions = [
            eviction(&slots[0]).await,
            eviction(&slots[1]).await,
            eviction(&slots[2]).await,
        ];
        assert_eq!(evictions, [None, None, Some(true)]);
        // A connection that had calls gets GOAWAY first.
        slots.push(limits.admit(ip("10.0.0.2")).unwrap());
        assert_eq!(eviction(&slots[1]).await, Some(false));
        assert_eq!(eviction(&slots[3]).await, None);
        let calls = [slots[3].activity().begin(), slots[4].activity().begin()];
        assert_eq!(
            limits.admit(ip("10.0.0.3")).unwrap_err(),
            ReachedLimit::Total
        );
        drop(calls);
        drop(call);
        assert!(limits.admit(ip("10.0.0.3")).is_ok());
        assert_eq!(limits.open.get(), 5);
        drop(slots);
        assert_eq!(limits.open.get(), 0);
        let state = limits.lock();
        assert_eq!((state.count, state.closing), (0, 0));
        assert!(state.by_address.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn address_at_its_limit_makes_room_itself() {
        let limits = limits(8, 2);
        let lone = limits.admit(ip("10.0.0.1")).unwrap();
        tick().await;
        let mut slots = Vec::new();
        for _ in 0..3 {
            slots.push(limits.admit(ip("10.0.0.2")).unwrap());
            tick().await;
        }
        assert_eq!(eviction(&slots[0]).await, Some(true));
        assert_eq!(eviction(&lone).await, None);
        let _calls: Vec<_> = slots.iter().map(|slot| slot.activity().begin()).collect();
        assert_eq!(
            limits.admit(ip("10.0.0.2")).unwrap_err(),
            ReachedLimit::PerAddress
        );
        assert!(limits.admit(ip("10.0.0.3")).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn at_most_an_eighth_is_closing_in_order() {
        let limits = limits(64, 64);
        let slots: Vec<_> = (0..64)
            .map(|_| limits.admit(ip("10.0.0.1")).unwrap())
            .collect();
        for slot in &slots {
            drop(slot.activity().begin());
        }
        let mut new = Vec::new();
        for _ in 0..20 {
            tick().await;
            let slot = limits.admit(ip("10.0.0.1")).unwrap();
            drop(slot.activity().begin());
            new.push(slot);
        }
        let mut at_once = Vec::new();
        for slot in &slots[..20] {
            at_once.push(eviction(slot).await.unwrap());
        }
        let in_order = at_once.iter().filter(|at_once| !**at_once).count();
        assert_eq!(in_order, 64 / CLOSING_DIVISOR);
    }

    #[test]
    fn addresses_of_one_client_count_together() {
        for (a, b, same) in [
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("::ffff:10.0.0.1", "10.0.0.1", true),
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", true),
            ("2001:db8:1:2::1", "2001:db8:1:3::1", false),
        ] {
            let is_same = client_address(ip(a)) == client_address(ip(b));
            assert_eq!(is_same, same, "{a} {b}");
        }
    }
}
