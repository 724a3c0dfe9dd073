//! The response stream of a watch: a cursor over the snapshots of a poll loop.
//!
//! A stream is polled by the server, it is not a task. It holds what it has sent last and
//! compares that with the newest snapshot whenever the client can take a message: a slow
//! client skips states and nothing is queued for it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_stream::Stream;

use super::shared_loop::{End, Phase, Subscription};
use super::snapshot::Snapshot;
use super::snapshot_loop::{SnapshotLoop, Step};
use crate::deadline::Deadline;
use crate::error::Error;
use drawbridge_transcoder::api::drawbridge::v1::WatchEventType;

/// The encoded messages of one watch. Ends with OK when the resource is final or deleted
/// as expected, otherwise with an error.
pub struct WatchStream(State);

impl fmt::Debug for WatchStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WatchStream")
    }
}

/// The states of a stream.
enum State {
    /// The cursor may have an event now.
    Ready(Cursor),
    /// Everything was sent. `Ready` comes next, when the future ends.
    Waiting(Pin<Box<dyn Future<Output = Cursor> + Send>>),
    /// A last message, and an error after it.
    Last(Option<Bytes>, Option<Error>),
    /// The stream of a log.
    Log(Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>),
    /// The end was sent.
    Ended,
}

/// What a cursor does next.
enum Event {
    Message(Bytes),
    /// Waits: everything was sent.
    Pending,
    End(Result<(), Error>),
}

/// The position of one stream in the snapshots of its loop.
struct Cursor {
    subscription: Subscription<SnapshotLoop>,
    state: CursorState,
    /// The snapshot that was sent last, or is being sent.
    sent: Arc<Snapshot>,
    /// The `unconfirmed_since` that was sent last.
    sent_unconfirmed_since: Option<SystemTime>,
    /// When a bookmark is due.
    bookmark_at: Instant,
    /// When the stream ends itself: tonic does not apply `grpc-timeout` to a response body.
    deadline: Option<Instant>,
}

/// The states of a cursor.
enum CursorState {
    /// STARTED is next: the response of the call that the watch begins with. `Unread`
    /// comes next.
    Started(Bytes),
    /// No snapshot was read yet; `sent` is empty. `Initial` or `Final` comes next.
    Unread,
    /// Sends the items of `sent` from `next` on as INITIAL, and a bookmark after those of
    /// a list. `UpToDate` comes next.
    Initial {
        next: usize,
        observed_at: SystemTime,
        unconfirmed_since: Option<SystemTime>,
    },
    /// Sends the messages from `next` on, which the loop has encoded for all streams that
    /// have sent the previous snapshot. `UpToDate` comes next.
    Step { step: Arc<Step>, next: usize },
    /// Sends the difference between an older snapshot and `sent`, from `next` on, because
    /// the stream was slow. `UpToDate` comes next.
    Difference { before: Arc<Snapshot>, next: usize },
    /// `sent` was sent. `Step`, `Difference`, `Final` or the end comes next.
    UpToDate,
    /// Sends the last messages of the loop from `next` on. The end comes next.
    Final { messages: Arc<[Bytes]>, next: usize },
}

impl WatchStream {
    /// Wraps the stream of a log. Boxed, since that may itself contain a `WatchStream`.
    pub(super) fn log(stream: impl Stream<Item = Result<Bytes, Error>> + Send + 'static) -> Self {
        Self(State::Log(Box::pin(stream)))
    }

    /// Waits until there is a first event. An error here is the response to the rpc, not
    /// the end of a stream.
    ///
    /// A final state may be older than the rpc if its round had begun when the stream
    /// joined: the resource may have changed since. The stream then waits for a later
    /// round. Returns none if the loop has ended without one: the caller joins another
    /// loop.
    pub(super) async fn open(
        mut subscription: Subscription<SnapshotLoop>,
        deadline: Option<Deadline>,
    ) -> Result<Option<Self>, Error> {
        let shared = Arc::clone(&subscription.shared);
        let (joined_after, follow) = (subscription.joined_after, subscription.follow);
        loop {
            // The round to wait for, and whether to skip the pause before it.
            let (round, at_once) = {
                let published = subscription.published.borrow_and_update();
                let next = published.finished + 1;
                if let Some(error) = published.phase.planned_end() {
                    return Err(error);
                }
                match &published.phase {
                    Phase::Ended(..) if published.begun() <= joined_after => return Ok(None),
                    Phase::Ended(_, End::Failed(error)) => return Err(error.clone()),
                    Phase::Ended(..) => break,
                    Phase::Following(observed)
                        if shared.source.is_end(&observed.state.snapshot, follow) =>
                    {
                        match &published.failed {
                            _ if published.finished <= joined_after => (joined_after + 1, true),
                            Some(error) => return Err(error.clone()),
                            None => break,
                        }
                    }
                    Phase::Following(observed) if observed.is_current() => break,
                    Phase::Following(_) | Phase::Unread => (next, false),
                }
            };
            // The published value has the result, also of a failed round.
            let _ = shared.round_end(round, at_once).await;
        }
        let mut cursor = Cursor::new(CursorState::Unread, subscription, deadline);
        // The present state is sent first, even if it changes before the client reads.
        cursor.read_first();
        Ok(Some(Self(State::Ready(cursor))))
    }

    /// STARTED is sent before anything else: the loop need not have read a state yet.
    pub(super) fn started(
        message: Bytes,
        subscription: Subscription<SnapshotLoop>,
        deadline: Option<Deadline>,
    ) -> Self {
        let state = CursorState::Started(message);
        Self(State::Ready(Cursor::new(state, subscription, deadline)))
    }

    /// Sends one message and ends.
    pub(super) fn last(message: Bytes, end: Result<(), Error>) -> Self {
        Self(State::Last(Some(message), end.err()))
    }
}

impl Stream for WatchStream {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match &mut self.0 {
                State::Ended => return Poll::Ready(None),
                State::Last(message, error) => {
                    let next = message.take().map(Ok);
                    let next = next.or_else(|| error.take().map(Err));
                    return Poll::Ready(next);
                }
                State::Log(log) => return log.as_mut().poll_next(cx),
                State::Waiting(wait) => match wait.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(cursor) => self.0 = State::Ready(cursor),
                },
                State::Ready(cursor) => match cursor.next_event() {
                    Event::Message(message) => return Poll::Ready(Some(Ok(message))),
                    Event::Pending => {
                        let State::Ready(cursor) = std::mem::replace(&mut self.0, State::Ended)
                        else {
                            return Poll::Ready(None);
                        };
                        self.0 = State::Waiting(Box::pin(cursor.wait()));
                    }
                    Event::End(end) => {
                        self.0 = State::Ended;
                        return Poll::Ready(end.err().map(Err));
                    }
                },
            }
        }
    }
}

impl Cursor {
    fn new(
        state: CursorState,
        subscription: Subscription<SnapshotLoop>,
        deadline: Option<Deadline>,
    ) -> Self {
        let registry = &subscription.registry;
        let now = (registry.clock)();
        Self {
            state,
            sent_unconfirmed_since: None,
            sent: Arc::new(Snapshot::new(0, Vec::new(), now)),
            bookmark_at: Instant::now() + registry.settings.bookmark_interval,
            deadline: deadline.map(Deadline::instant),
            subscription,
        }
    }

    /// Waits for a new state, a due bookmark or the deadline.
    async fn wait(mut self) -> Self {
        let until = self
            .deadline
            .map_or(self.bookmark_at, |deadline| deadline.min(self.bookmark_at));
        tokio::select! {
            // The sender lives as long as this subscription.
            Ok(()) = self.subscription.published.changed() => {}
            () = tokio::time::sleep_until(until) => {}
        }
        self
    }

    /// Returns the next message, or the end. The deadline and a drain end the stream
    /// before the next message.
    fn next_event(&mut self) -> Event {
        // STARTED comes before all: the client needs the id of what it has started.
        if let CursorState::Started(_) = self.state {
            return self.advance();
        }
        let now = Instant::now();
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            let rules = self.subscription.shared.source.rules;
            return Event::End(Err(match rules.started_by_call {
                true => Error::Deadline { sent: true },
                false => Error::StreamDeadline,
            }));
        }
        let planned_end = self.subscription.published.borrow().phase.planned_end();
        if let Some(error) = planned_end {
            return Event::End(Err(error));
        }
        let event = match self.advance() {
            Event::Pending if self.bookmark_at <= now => Event::Message(self.bookmark()),
            event => event,
        };
        if let Event::Message(_) = event {
            self.bookmark_at = now + self.subscription.registry.settings.bookmark_interval;
        }
        event
    }

    fn advance(&mut self) -> Event {
        let shared = Arc::clone(&self.subscription.shared);
        let source = &shared.source;
        loop {
            match &mut self.state {
                CursorState::Started(message) => {
                    let message = std::mem::take(message);
                    self.state = CursorState::Unread;
                    return Event::Message(message);
                }
                CursorState::Unread => {
                    if let Some(event) = self.read_first() {
                        return event;
                    }
                }
                CursorState::Initial {
                    next,
                    observed_at,
                    unconfirmed_since,
                } => {
                    let (observed_at, unconfirmed_since) = (*observed_at, *unconfirmed_since);
                    if let Some(item) = self.sent.items.get(*next) {
                        *next += 1;
                        return Event::Message(source.item_message(
                            WatchEventType::Initial,
                            item,
                            observed_at,
                            unconfirmed_since,
                        ));
                    }
                    self.state = CursorState::UpToDate;
                    if source.rules.list {
                        return Event::Message(source.bookmark(observed_at, unconfirmed_since));
                    }
                }
                CursorState::Step { step, next } => match step.messages.get(*next) {
                    Some(message) => {
                        *next += 1;
                        self.sent_unconfirmed_since = None;
                        return Event::Message(message.clone());
                    }
                    None => self.state = CursorState::UpToDate,
                },
                CursorState::Difference { before, next } => {
                    if *next >= self.sent.diff_len(before) {
                        self.state = CursorState::UpToDate;
                        continue;
                    }
                    let change = self.sent.diff_at(before, *next);
                    *next += 1;
                    if let Some((kind, item)) = change {
                        self.sent_unconfirmed_since = None;
                        let observed_at = self.sent.observed_at;
                        let message = source.item_message(kind, item, observed_at, None);
                        return Event::Message(message);
                    }
                }
                CursorState::Final { messages, next } => match messages.get(*next) {
                    Some(message) => {
                        *next += 1;
                        return Event::Message(message.clone());
                    }
                    None => return Event::End(Ok(())),
                },
                CursorState::UpToDate if source.is_end(&self.sent, self.subscription.follow) => {
                    return Event::End(Ok(()));
                }
                CursorState::UpToDate => {
                    if let Some(event) = self.read_newest() {
                        return event;
                    }
                }
            }
        }
    }

    /// Reads the first state. Returns none if `state` has changed.
    fn read_first(&mut self) -> Option<Event> {
        let published = self.subscription.published.borrow_and_update();
        if let Some(observed) = published.phase.observed() {
            self.sent_unconfirmed_since = observed.unconfirmed_since();
            self.sent = Arc::clone(&observed.state.snapshot);
            self.state = CursorState::Initial {
                next: 0,
                observed_at: observed.observed_at,
                unconfirmed_since: self.sent_unconfirmed_since,
            };
            return None;
        }
        let Phase::Ended(_, end) = &published.phase else {
            return Some(Event::Pending);
        };
        match end {
            End::Failed(error) => Some(Event::End(Err(error.clone()))),
            End::Completed(messages) => {
                let messages = Arc::clone(messages);
                self.state = CursorState::Final { messages, next: 0 };
                None
            }
        }
    }

    /// Compares the newest state with `sent`. Returns none if `state` has changed.
    fn read_newest(&mut self) -> Option<Event> {
        let published = self.subscription.published.borrow_and_update();
        let Some(observed) = published.phase.observed() else {
            return Some(Event::Pending);
        };
        let state = &observed.state;
        let target = match &state.last_final {
            // A stream that does not follow ends there, even if the loop has continued.
            Some(last) if !self.subscription.follow && last.seq > self.sent.seq => last,
            _ => &state.snapshot,
        };
        if target.seq > self.sent.seq {
            let before = std::mem::replace(&mut self.sent, Arc::clone(target));
            let is_one_step = target.seq == state.snapshot.seq && before.seq + 1 == target.seq;
            self.state = match state.step.clone().filter(|_| is_one_step) {
                Some(step) => CursorState::Step { step, next: 0 },
                None => CursorState::Difference { before, next: 0 },
            };
            return None;
        }
        if let Phase::Ended(_, end) = &published.phase {
            match end {
                End::Failed(error) => return Some(Event::End(Err(error.clone()))),
                End::Completed(messages) => {
                    let messages = Arc::clone(messages);
                    self.state = CursorState::Final { messages, next: 0 };
                    return None;
                }
            }
        }
        let changed = observed.unconfirmed_since() != self.sent_unconfirmed_since;
        drop(published);
        Some(if changed {
            Event::Message(self.bookmark())
        } else {
            Event::Pending
        })
    }

    /// Encodes a bookmark, which also says whether the state is confirmed.
    fn bookmark(&mut self) -> Bytes {
        let published = self.subscription.published.borrow();
        let (observed_at, unconfirmed_since) = match published.phase.observed() {
            Some(observed) => (observed.observed_at, observed.unconfirmed_since()),
            None => (self.sent.observed_at, None),
        };
        self.sent_unconfirmed_since = unconfirmed_since;
        let source = &self.subscription.shared.source;
        source.bookmark(observed_at, unconfirmed_since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_of_a_stream_is_bounded() {
        // The waiting future holds the cursor, a timer and an entry of a waiter list.
        fn future_of<F: Future>(_: fn(Cursor) -> F) -> usize {
            size_of::<F>()
        }
        let waiting = future_of(Cursor::wait);
        assert!(
            size_of::<WatchStream>() <= 256,
            "{}",
            size_of::<WatchStream>()
        );
        assert!(waiting <= 1024, "{waiting}");
    }
}
