//! Limits the calls that an upstream serves at once, and those that wait in a queue.
//! Envoy calls this circuit breaking (`max_requests`, `max_pending_requests`).
//!
//! No client can take what others need: one gets at most three quarters of the permits, and
//! the clients that wait get permits in turn. If the queue is full, a call takes the place of
//! one of the client that has the most. The clients at an address whose credentials the
//! upstream has not accepted get at most seven eighths of the permits together: they may all be
//! one.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::oneshot;
use tonic::Code;

use crate::downstream::{Client, ClientKey, may_take, may_take_together};
use crate::error::Error;

/// `RetryInfo` of a call that the full queue rejects.
const RETRY_AFTER_FULL_QUEUE: Duration = Duration::from_secs(1);

/// Permits for calls, and a bounded queue per client.
#[derive(Debug)]
pub(super) struct ConcurrencyLimit {
    max_concurrent: usize,
    max_queued: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    in_flight: usize,
    queued: usize,
    /// The clients that have a permit or wait for one.
    clients: HashMap<ClientKey, Usage>,
    /// The permits of clients whose credentials are not accepted, by address.
    groups: HashMap<ClientKey, usize>,
    /// The clients that wait, the next first.
    turns: VecDeque<ClientKey>,
    next_id: u64,
}

#[derive(Debug, Default)]
struct Usage {
    permits: usize,
    /// Its calls in the queue, in their order.
    waiting: VecDeque<Waiting>,
}

/// A call in the queue.
#[derive(Debug)]
struct Waiting {
    id: u64,
    group: Option<ClientKey>,
    /// Whether it gets a permit; otherwise it leaves the queue for another client's call.
    decided: oneshot::Sender<bool>,
}

/// The permission to make one call, until dropped.
#[derive(Debug)]
pub(super) struct CallPermit<'a> {
    limit: &'a ConcurrencyLimit,
    client: Client,
}

impl ConcurrencyLimit {
    pub(super) fn new(max_concurrent: usize, max_queued: usize) -> Self {
        Self {
            max_concurrent,
            max_queued,
            state: Mutex::default(),
        }
    }

    /// Waits for a permit, in the order of the client's calls. Fails at once if the queue is
    /// full, and when another client needs the place.
    pub(super) async fn acquire(
        &self,
        client: Client,
        upstream: &str,
    ) -> Result<CallPermit<'_>, Error> {
        let mut queued = {
            let mut state = self.lock();
            if state.may_have(client, self.max_concurrent) {
                state.grant(client);
                return Ok(CallPermit {
                    limit: self,
                    client,
                });
            }
            if state.queued >= self.max_queued && !state.make_room(client) {
                return Err(self.overload(upstream, state.queued));
            }
            let (id, decision) = state.enqueue(client);
            QueueEntry {
                limit: self,
                client,
                id: Some(id),
                decision,
            }
        };
        // Its sender is not dropped without a decision.
        let is_granted = (&mut queued.decision).await.unwrap_or_default();
        queued.id = None;
        match is_granted {
            true => Ok(CallPermit {
                limit: self,
                client,
            }),
            false => Err(self.overload(upstream, self.max_queued)),
        }
    }

    fn overload(&self, upstream: &str, queued: usize) -> Error {
        Error::Overload {
            code: Code::ResourceExhausted,
            problem: format!(
                "upstream {upstream}: {} calls are in flight and {queued} wait (settings `max_concurrent_calls`, `max_queued_calls`)",
                self.max_concurrent
            ),
            retry_after: RETRY_AFTER_FULL_QUEUE,
        }
    }

    /// Returns how many calls have a permit.
    pub(super) fn in_flight(&self) -> usize {
        self.lock().in_flight
    }

    /// Returns how many calls wait for a permit.
    pub(super) fn queued(&self) -> usize {
        self.lock().queued
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is locked.
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl State {
    fn may_have(&self, client: Client, max_concurrent: usize) -> bool {
        let free = max_concurrent.saturating_sub(self.in_flight);
        let own = self.clients.get(&client.key).map_or(0, |c| c.permits);
        let of_group = |group| self.groups.get(&group).copied().unwrap_or_default();
        let group_may = |group| may_take_together(of_group(group), free);
        may_take(own, free) && client.group.is_none_or(group_may)
    }

    fn grant(&mut self, client: Client) {
        self.in_flight += 1;
        self.clients.entry(client.key).or_default().permits += 1;
        if let Some(group) = client.group {
            *self.groups.entry(group).or_default() += 1;
        }
    }

    /// Returns a permit, and gives free ones to the clients that wait.
    fn release(&mut self, client: Client, max_concurrent: usize) {
        self.in_flight -= 1;
        if let Some(known) = self.clients.get_mut(&client.key) {
            known.permits -= 1;
        }
        if let Some(group) = client.group
            && let Entry::Occupied(mut permits) = self.groups.entry(group)
        {
            *permits.get_mut() -= 1;
            if *permits.get() == 0 {
                permits.remove();
            }
        }
        self.forget_idle(client.key);
        let mut skipped = 0;
        while skipped < self.turns.len()
            && self.in_flight < max_concurrent
            && let Some(key) = self.turns.pop_front()
        {
            self.turns.push_back(key);
            let first = self.clients.get(&key).and_then(|c| c.waiting.front());
            let Some(group) = first.map(|first| first.group) else {
                self.forget_idle(key);
                continue;
            };
            let next = Client { key, group };
            if !self.may_have(next, max_concurrent) {
                skipped += 1;
                continue;
            }
            skipped = 0;
            let waiting = self.clients.get_mut(&key).map(|c| &mut c.waiting);
            let Some(first) = waiting.and_then(VecDeque::pop_front) else {
                continue;
            };
            self.queued -= 1;
            self.grant(next);
            // A call that is dropped meanwhile returns the permit by its `QueueEntry`.
            let _ = first.decided.send(true);
            self.forget_idle(key);
        }
    }

    fn enqueue(&mut self, client: Client) -> (u64, oneshot::Receiver<bool>) {
        let (decided, decision) = oneshot::channel();
        let id = self.next_id;
        self.next_id += 1;
        let waiting = &mut self.clients.entry(client.key).or_default().waiting;
        let group = client.group;
        waiting.push_back(Waiting { id, group, decided });
        if waiting.len() == 1 {
            self.turns.push_back(client.key);
        }
        self.queued += 1;
        (id, decision)
    }

    /// Removes a call from the queue for one of `client`: the latest of the client that has the
    /// most, if that has more than `client` then has. Otherwise the latest of a client whose
    /// credential is not accepted, if that of `client` is. Returns false if there is none.
    fn make_room(&mut self, client: Client) -> bool {
        let waiting = |key: &ClientKey| self.clients.get(key).map_or(0, |c| c.waiting.len());
        let mut largest = self.turns.iter().copied().max_by_key(waiting);
        largest = largest.filter(|key| waiting(key) > waiting(&client.key) + 1);
        if largest.is_none() && client.group.is_none() {
            let is_of_group = |key: &ClientKey| {
                let last = self.clients.get(key).and_then(|c| c.waiting.back());
                last.is_some_and(|last| last.group.is_some())
            };
            largest = self.turns.iter().rev().copied().find(is_of_group);
        }
        let waiting = largest.and_then(|key| Some(&mut self.clients.get_mut(&key)?.waiting));
        let (Some(key), Some(last)) = (largest, waiting.and_then(VecDeque::pop_back)) else {
            return false;
        };
        self.queued -= 1;
        let _ = last.decided.send(false);
        self.forget_idle(key);
        true
    }

    /// Removes a call from the queue. Returns false if it has a decision.
    fn leave(&mut self, client: ClientKey, id: u64) -> bool {
        let Some(known) = self.clients.get_mut(&client) else {
            return false;
        };
        let Some(at) = known.waiting.iter().position(|waiting| waiting.id == id) else {
            return false;
        };
        known.waiting.remove(at);
        self.queued -= 1;
        self.forget_idle(client);
        true
    }

    /// Removes a client from those that wait, and from all, if it does not or has nothing.
    fn forget_idle(&mut self, client: ClientKey) {
        let Some(known) = self.clients.get(&client) else {
            return;
        };
        if known.waiting.is_empty() {
            let is_idle = known.permits == 0;
            if !self.turns.is_empty() {
                self.turns.retain(|waiting| *waiting != client);
            }
            if is_idle {
                self.clients.remove(&client);
            }
        }
    }
}

impl Drop for CallPermit<'_> {
    fn drop(&mut self) {
        let limit = self.limit;
        limit.lock().release(self.client, limit.max_concurrent);
    }
}

/// A call in the queue; leaves it when dropped.
struct QueueEntry<'a> {
    limit: &'a ConcurrencyLimit,
    client: Client,
    /// None once its decision was received.
    id: Option<u64>,
    decision: oneshot::Receiver<bool>,
}

impl Drop for QueueEntry<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id else {
            return;
        };
        let limit = self.limit;
        let mut state = limit.lock();
        if !state.leave(self.client.key, id) && self.decision.try_recv() == Ok(true) {
            state.release(self.client, limit.max_concurrent);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use super::*;

    const ONE: Client = client(1, None);
    const TWO: Client = client(2, None);
    const THREE: Client = client(3, None);

    const fn client(number: u64, group: Option<u64>) -> Client {
        Client {
            key: ClientKey::test(number),
            group: match group {
                Some(group) => Some(ClientKey::test(group)),
                None => None,
            },
        }
    }

    type Waits<'a> = Pin<Box<dyn Future<Output = Result<CallPermit<'a>, Error>> + 'a>>;

    /// Starts to wait for a permit.
    fn wait(limit: &ConcurrencyLimit, client: Client) -> Waits<'_> {
        let mut waits: Waits<'_> = Box::pin(limit.acquire(client, "u"));
        assert!(poll(&mut waits).is_none(), "{client:?} waits");
        waits
    }

    fn poll<'a>(waits: &mut Waits<'a>) -> Option<Result<CallPermit<'a>, Error>> {
        match waits.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        }
    }

    /// Takes as many permits as the client gets at once.
    fn take_all(limit: &ConcurrencyLimit, client: Client) -> Vec<CallPermit<'_>> {
        let mut permits = Vec::new();
        loop {
            let mut next: Waits<'_> = Box::pin(limit.acquire(client, "u"));
            match poll(&mut next) {
                Some(permit) => permits.push(permit.unwrap()),
                None => return permits,
            }
        }
    }

    #[tokio::test]
    async fn calls_beyond_the_limit_wait_and_beyond_the_queue_fail() {
        let limit = ConcurrencyLimit::new(2, 1);
        let first = limit.acquire(ONE, "u").await.unwrap();
        let _second = limit.acquire(ONE, "u").await.unwrap();
        assert_eq!((limit.in_flight(), limit.queued()), (2, 0));
        let cx = &mut Context::from_waker(Waker::noop());
        {
            let mut third = pin!(limit.acquire(ONE, "u"));
            assert!(third.as_mut().poll(cx).is_pending());
            assert_eq!((limit.in_flight(), limit.queued()), (2, 1));
            match limit.acquire(ONE, "u").await {
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
        let mut fourth = pin!(limit.acquire(ONE, "u"));
        assert!(fourth.as_mut().poll(cx).is_pending());
        drop(first);
        let fourth = fourth.await.unwrap();
        assert_eq!((limit.in_flight(), limit.queued()), (2, 0));
        drop(fourth);
        assert_eq!(limit.in_flight(), 1);
    }

    #[tokio::test]
    async fn each_client_leaves_permits_for_others() {
        for (max, want) in [
            (1, vec![1, 0]),
            (2, vec![2, 0]),
            (4, vec![3, 1]),
            (256, vec![192, 48, 12, 3, 1, 0]),
        ] {
            let limit = ConcurrencyLimit::new(max, 10);
            let mut held = Vec::new();
            for (client, want) in (1..).zip(want) {
                held.push(take_all(&limit, self::client(client, None)));
                assert_eq!(held.last().unwrap().len(), want, "{max}: client {client}");
            }
            drop(held);
            let state = limit.lock();
            assert_eq!((state.in_flight, state.queued), (0, 0));
            assert!(state.clients.is_empty() && state.turns.is_empty());
        }
    }

    #[tokio::test]
    async fn clients_that_wait_get_permits_in_turn() {
        let limit = ConcurrencyLimit::new(1, 10);
        let held = limit.acquire(ONE, "u").await.unwrap();
        let mut of_one: Vec<_> = (0..3).map(|_| wait(&limit, ONE)).collect();
        let mut of_two: Vec<_> = (0..2).map(|_| wait(&limit, TWO)).collect();
        drop(held);
        let first = poll(&mut of_one[0]).unwrap().unwrap();
        assert!(poll(&mut of_one[1]).is_none() && poll(&mut of_two[0]).is_none());
        drop(first);
        let second = poll(&mut of_two[0]).unwrap().unwrap();
        assert!(poll(&mut of_one[1]).is_none() && poll(&mut of_two[1]).is_none());
        // A cancelled call loses no turn of its client, nor does one that has a permit already.
        drop(of_one.remove(1));
        drop(second);
        let third = of_one.pop().unwrap();
        drop(third);
        let fourth = poll(&mut of_two[1]).unwrap().unwrap();
        drop(fourth);
        assert_eq!((limit.in_flight(), limit.queued()), (0, 0));
        assert!(limit.lock().clients.is_empty());
    }

    #[tokio::test]
    async fn full_queue_makes_room_for_a_client_with_fewer_calls() {
        let limit = ConcurrencyLimit::new(1, 4);
        let held = limit.acquire(ONE, "u").await.unwrap();
        let mut of_one: Vec<_> = (0..4).map(|_| wait(&limit, ONE)).collect();
        let _two = wait(&limit, TWO);
        let _three = wait(&limit, THREE);
        // The latest calls of the client with most of them are rejected.
        for mut call in of_one.drain(2..) {
            assert!(matches!(poll(&mut call), Some(Err(Error::Overload { .. }))));
        }
        assert_eq!(limit.queued(), 4);
        // One more of a client would be as many as those of the other.
        for client in [ONE, TWO, THREE] {
            let rejected = limit.acquire(client, "u").await;
            assert!(
                matches!(rejected, Err(Error::Overload { .. })),
                "{client:?}"
            );
        }
        // A call that was removed and then cancelled returns no permit.
        let four = client(4, None);
        let _four = wait(&limit, four);
        drop(of_one.pop());
        assert_eq!((limit.in_flight(), limit.queued()), (1, 4));
        drop(held);
        assert_eq!((limit.in_flight(), limit.queued()), (1, 3));
    }

    /// A client that invents another token for each call.
    #[tokio::test]
    async fn credentials_that_are_not_accepted_are_limited_together() {
        let limit = ConcurrencyLimit::new(256, 4);
        let mut held = Vec::new();
        for number in 1_000..1_300 {
            let mut next: Waits<'_> = Box::pin(limit.acquire(client(number, Some(9)), "u"));
            held.extend(poll(&mut next).map(Result::unwrap));
        }
        assert_eq!(held.len(), 224);
        let waiting: Vec<_> = (2_000..2_004)
            .map(|number| wait(&limit, client(number, Some(9))))
            .collect();
        // One of many at the address is rejected; a known client has permits, and a place.
        let another = limit.acquire(client(3_000, Some(9)), "u").await;
        assert!(matches!(another, Err(Error::Overload { .. })));
        assert_eq!(take_all(&limit, ONE).len(), 24);
        assert_eq!(limit.queued(), 3);
        drop((waiting, held));
        let state = limit.lock();
        assert!(
            state.groups.is_empty() && state.clients.is_empty(),
            "{state:?}"
        );
    }
}
