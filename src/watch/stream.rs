//! What one watcher is told: a future that is polled, never a task.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_stream::Stream;

use super::log::LogStream;
use super::shared_loop::{End, Phase, Subscription};
use super::snapshot::Snapshot;
use super::snapshot_loop::SnapshotLoop;
use crate::deadline::Deadline;
use crate::error::Error;
use drawbridge_transcoder::api::drawbridge::v1::WatchEventType;

/// The messages of one watch, encoded. Ends with OK when what is watched has
/// settled or is gone as it should, else with the error that says why.
pub struct WatchStream(State);

impl fmt::Debug for WatchStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WatchStream")
    }
}

/// Where a stream stands.
enum State {
    /// There may be something to tell at once.
    Telling(Reader),
    /// All is told; the future ends when there may be more.
    Waiting(Pin<Box<dyn Future<Output = Reader> + Send>>),
    /// A message, and an error behind it.
    Last(Option<Bytes>, Option<Error>),
    /// What is told is a log.
    Log(Box<LogStream>),
    /// The end was told.
    Over,
}

/// What a reader has to say.
enum Tell {
    Message(Bytes),
    NothingYet,
    Over(Result<(), Error>),
}

/// One watcher of a loop.
struct Reader {
    subscription: Subscription<SnapshotLoop>,
    telling: Telling,
    /// What was told last, or is being told.
    told: Arc<Snapshot>,
    /// The `unconfirmed_since` that was told last.
    unconfirmed_since: Option<SystemTime>,
    /// When a bookmark is due.
    silent_until: Instant,
    /// When the stream ends itself: `grpc-timeout` does not reach its body.
    deadline: Option<Instant>,
}

/// What a reader is in the middle of telling.
enum Telling {
    /// That the call was made with which the watch begins.
    Started(Bytes),
    /// Nothing was read yet; `told` is empty.
    Unread,
    /// All items of `told` from `at` on, then for a list that these were all.
    Present {
        at: usize,
        observed_at: SystemTime,
        unconfirmed_since: Option<SystemTime>,
    },
    /// The messages from `at` on that the loop made for all.
    Step { messages: Arc<[Bytes]>, at: usize },
    /// How `told` differs, from `place` on, from what this slow reader had
    /// been told before.
    Difference { before: Arc<Snapshot>, place: usize },
    /// The loop's last messages from `at` on; then the end.
    Farewell { messages: Arc<[Bytes]>, at: usize },
    /// `told` is told.
    Nothing,
}

impl WatchStream {
    /// The stream of a log.
    pub(super) fn log(stream: LogStream) -> Self {
        Self(State::Log(Box::new(stream)))
    }

    /// Waits until there is something to tell. An error here is the answer to
    /// the rpc, not the end of a stream.
    ///
    /// An end that a read has brought which had begun when the watcher joined may be
    /// older than its call, and what is watched may have begun to move since: the
    /// watcher waits for a later read. None: that was the end of the loop, and the
    /// watcher needs another one.
    pub(super) async fn open(
        mut subscription: Subscription<SnapshotLoop>,
        deadline: Option<Deadline>,
    ) -> Result<Option<Self>, Error> {
        let shared = Arc::clone(&subscription.shared);
        let (joined_after, follow) = (subscription.joined_after, subscription.follow);
        loop {
            // The round to wait for, and whether it begins at once.
            let (round, at_once) = {
                let published = subscription.published.borrow_and_update();
                let next = published.finished + 1;
                match &published.phase {
                    phase if phase.is_draining() => return Err(Error::Draining),
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
            // Whatever comes of the round, the published value says it.
            let _ = shared.round_end(round, at_once).await;
        }
        let mut reader = Reader::new(Telling::Unread, subscription, deadline);
        // What is there now is told first, whatever comes until it is read.
        reader.begin();
        Ok(Some(Self(State::Telling(reader))))
    }

    /// Tells at once that the call was made with which the watch begins; the
    /// first read comes behind it.
    pub(super) fn started(
        message: Bytes,
        subscription: Subscription<SnapshotLoop>,
        deadline: Option<Deadline>,
    ) -> Self {
        let telling = Telling::Started(message);
        Self(State::Telling(Reader::new(telling, subscription, deadline)))
    }

    /// Tells one message, and then that this was all, or what is wrong.
    pub(super) fn last(message: Bytes, end: Result<(), Error>) -> Self {
        Self(State::Last(Some(message), end.err()))
    }
}

impl Stream for WatchStream {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match &mut self.0 {
                State::Over => return Poll::Ready(None),
                State::Last(message, error) => {
                    let next = message.take().map(Ok);
                    let next = next.or_else(|| error.take().map(Err));
                    return Poll::Ready(next);
                }
                State::Log(log) => return Pin::new(log).poll_next(cx),
                State::Waiting(wait) => match wait.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(reader) => self.0 = State::Telling(reader),
                },
                State::Telling(reader) => match reader.tell() {
                    Tell::Message(message) => return Poll::Ready(Some(Ok(message))),
                    Tell::NothingYet => {
                        let State::Telling(reader) = std::mem::replace(&mut self.0, State::Over)
                        else {
                            return Poll::Ready(None);
                        };
                        self.0 = State::Waiting(Box::pin(reader.wait()));
                    }
                    Tell::Over(end) => {
                        self.0 = State::Over;
                        return Poll::Ready(end.err().map(Err));
                    }
                },
            }
        }
    }
}

impl Reader {
    fn new(
        telling: Telling,
        subscription: Subscription<SnapshotLoop>,
        deadline: Option<Deadline>,
    ) -> Self {
        let registry = &subscription.registry;
        let now = (registry.clock)();
        Self {
            telling,
            unconfirmed_since: None,
            told: Arc::new(Snapshot::new(0, Vec::new(), now)),
            silent_until: Instant::now() + registry.settings.bookmark_interval,
            deadline: deadline.map(Deadline::instant),
            subscription,
        }
    }

    /// Waits for news, a due bookmark or the deadline.
    async fn wait(mut self) -> Self {
        let until = self.deadline.map_or(self.silent_until, |deadline| {
            deadline.min(self.silent_until)
        });
        tokio::select! {
            // The sender lives as long as this subscription.
            Ok(()) = self.subscription.published.changed() => {}
            () = tokio::time::sleep_until(until) => {}
        }
        self
    }

    /// The next message, if there is one by now.
    fn tell(&mut self) -> Tell {
        // Who is not told what the call made cannot look for it.
        if let Telling::Started(_) = self.telling {
            return self.next();
        }
        let now = Instant::now();
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            return Tell::Over(Err(match self.subscription.shared.source.rules.begun {
                true => Error::Deadline { sent: true },
                false => Error::StreamDeadline,
            }));
        }
        if self.subscription.published.borrow().phase.is_draining() {
            return Tell::Over(Err(Error::Draining));
        }
        let tell = match self.next() {
            Tell::NothingYet if self.silent_until <= now => Tell::Message(self.bookmark()),
            tell => tell,
        };
        if let Tell::Message(_) = tell {
            self.silent_until = now + self.subscription.registry.settings.bookmark_interval;
        }
        tell
    }

    fn next(&mut self) -> Tell {
        let shared = Arc::clone(&self.subscription.shared);
        let source = &shared.source;
        loop {
            match &mut self.telling {
                Telling::Started(message) => {
                    let message = std::mem::take(message);
                    self.telling = Telling::Unread;
                    return Tell::Message(message);
                }
                Telling::Unread => {
                    if let Some(tell) = self.begin() {
                        return tell;
                    }
                }
                Telling::Present {
                    at,
                    observed_at,
                    unconfirmed_since,
                } => {
                    let (observed_at, unconfirmed_since) = (*observed_at, *unconfirmed_since);
                    if let Some(item) = self.told.items.get(*at) {
                        *at += 1;
                        return Tell::Message(source.item_message(
                            WatchEventType::Initial,
                            item,
                            observed_at,
                            unconfirmed_since,
                        ));
                    }
                    self.telling = Telling::Nothing;
                    if source.rules.list {
                        return Tell::Message(source.bookmark(observed_at, unconfirmed_since));
                    }
                }
                Telling::Step { messages, at } => match messages.get(*at) {
                    Some(message) => {
                        *at += 1;
                        self.unconfirmed_since = None;
                        return Tell::Message(message.clone());
                    }
                    None => self.telling = Telling::Nothing,
                },
                Telling::Difference { before, place } => {
                    if *place >= self.told.places(before) {
                        self.telling = Telling::Nothing;
                        continue;
                    }
                    let difference = self.told.difference(before, *place);
                    *place += 1;
                    if let Some((kind, item)) = difference {
                        self.unconfirmed_since = None;
                        let message = source.item_message(kind, item, self.told.observed_at, None);
                        return Tell::Message(message);
                    }
                }
                Telling::Farewell { messages, at } => match messages.get(*at) {
                    Some(message) => {
                        *at += 1;
                        return Tell::Message(message.clone());
                    }
                    None => return Tell::Over(Ok(())),
                },
                Telling::Nothing if source.is_end(&self.told, self.subscription.follow) => {
                    return Tell::Over(Ok(()));
                }
                Telling::Nothing => {
                    if let Some(tell) = self.look() {
                        return tell;
                    }
                }
            }
        }
    }

    /// Looks for the first read. None: there is something, and `telling` says what.
    fn begin(&mut self) -> Option<Tell> {
        let published = self.subscription.published.borrow_and_update();
        if let Some(observed) = published.phase.observed() {
            self.unconfirmed_since = observed.unconfirmed_since();
            self.told = Arc::clone(&observed.state.snapshot);
            self.telling = Telling::Present {
                at: 0,
                observed_at: observed.observed_at,
                unconfirmed_since: self.unconfirmed_since,
            };
            return None;
        }
        let Phase::Ended(_, end) = &published.phase else {
            return Some(Tell::NothingYet);
        };
        match end {
            End::Failed(error) => Some(Tell::Over(Err(error.clone()))),
            End::Completed(messages) => {
                let messages = Arc::clone(messages);
                self.telling = Telling::Farewell { messages, at: 0 };
                None
            }
        }
    }

    /// Looks at the news. None: there is something, and `telling` says what.
    fn look(&mut self) -> Option<Tell> {
        let published = self.subscription.published.borrow_and_update();
        let Some(observed) = published.phase.observed() else {
            return Some(Tell::NothingYet);
        };
        let state = &observed.state;
        let target = match &state.last_final {
            // The loop may have gone on for others.
            Some(last) if !self.subscription.follow && last.seq > self.told.seq => last,
            _ => &state.snapshot,
        };
        if target.seq > self.told.seq {
            let before = std::mem::replace(&mut self.told, Arc::clone(target));
            let made_for_all = target.seq == state.snapshot.seq && before.seq + 1 == target.seq;
            self.telling = if made_for_all {
                let messages = Arc::clone(&state.step);
                Telling::Step { messages, at: 0 }
            } else {
                Telling::Difference { before, place: 0 }
            };
            return None;
        }
        if let Phase::Ended(_, end) = &published.phase {
            match end {
                End::Failed(error) => return Some(Tell::Over(Err(error.clone()))),
                End::Completed(messages) => {
                    let messages = Arc::clone(messages);
                    self.telling = Telling::Farewell { messages, at: 0 };
                    return None;
                }
            }
        }
        let changed = observed.unconfirmed_since() != self.unconfirmed_since;
        drop(published);
        Some(if changed {
            Tell::Message(self.bookmark())
        } else {
            Tell::NothingYet
        })
    }

    /// A sign of life, and whether the state is confirmed.
    fn bookmark(&mut self) -> Bytes {
        let published = self.subscription.published.borrow();
        let (observed_at, unconfirmed_since) = match published.phase.observed() {
            Some(observed) => (observed.observed_at, observed.unconfirmed_since()),
            None => (self.told.observed_at, None),
        };
        self.unconfirmed_since = unconfirmed_since;
        let source = &self.subscription.shared.source;
        source.bookmark(observed_at, unconfirmed_since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_small() {
        // The future that waits holds the reader, a timer and a place in a list.
        fn future_of<F: Future>(_: fn(Reader) -> F) -> usize {
            size_of::<F>()
        }
        let waiting = future_of(Reader::wait);
        assert!(
            size_of::<WatchStream>() <= 256,
            "{}",
            size_of::<WatchStream>()
        );
        assert!(waiting <= 1024, "{waiting}");
    }
}
