//! What one watcher is told: a future that is polled, never a task.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_stream::Stream;

use super::snapshot::Snapshot;
use super::{Joins, Registry};
use crate::deadline::Deadline;
use crate::engine::stream_limiter::StreamPermit;
use crate::error::Error;
use crate::watch::shared_loop::{End, Loop, News, Stage};
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
    /// The stream of a log.
    Log(Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>),
    /// The end was told.
    Over,
}

/// What a reader has to say.
enum Tell {
    Message(Bytes),
    NothingYet,
    Over(Result<(), Error>),
}

/// A place among the watchers, given back when dropped.
pub(super) struct Seat {
    pub(super) _place: StreamPermit,
    pub(super) registry: Arc<Registry>,
    pub(super) shared: Arc<Loop>,
    pub(super) follow: bool,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.follow {
            self.shared.followers.fetch_sub(1, Ordering::Release);
        }
    }
}

/// One watcher of a loop.
struct Reader {
    news: watch::Receiver<News>,
    seat: Seat,
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
    /// Wraps the stream of a log. Any stream: `log` itself reads a `WatchStream`.
    pub(super) fn log(stream: impl Stream<Item = Result<Bytes, Error>> + Send + 'static) -> Self {
        Self(State::Log(Box::pin(stream)))
    }

    /// Waits until there is something to tell. An error here is the answer to
    /// the rpc, not the end of a stream.
    ///
    /// An end that a read has brought which had begun when the watcher joined may be
    /// older than its call, and what is watched may have begun to move since: the
    /// watcher waits for a later read. None: that was the end of the loop, and the
    /// watcher needs another one.
    pub(super) async fn open(
        joins: Joins,
        deadline: Option<Deadline>,
    ) -> Result<Option<Self>, Error> {
        let Joins {
            mut news,
            seat,
            reads: joined,
        } = joins;
        let shared = &seat.shared;
        loop {
            // The read to wait for, and whether it comes sooner for it.
            let (read, hurry) = {
                let news = news.borrow_and_update();
                match &news.stage {
                    Stage::Ended(_, End::Failed(Error::Draining)) => return Err(Error::Draining),
                    Stage::Ended(..) if shared.reads() <= joined => return Ok(None),
                    Stage::Ended(_, End::Failed(error)) => return Err(error.clone()),
                    Stage::Ended(..) => break,
                    Stage::Following(seen) if shared.is_end(&seen.snapshot, seat.follow) => {
                        match &news.failed {
                            _ if news.read <= joined => (joined + 1, shared.reads() == joined),
                            Some(error) => return Err(error.clone()),
                            None => break,
                        }
                    }
                    stage if stage.is_presentable() => break,
                    Stage::Following(_) | Stage::Unread => (news.read + 1, false),
                }
            };
            if !shared.awaits(read) {
                continue;
            }
            if hurry {
                shared.hurry();
            }
            // The sender lives as long as the seat.
            news.changed().await.map_err(|_| Error::Draining)?;
        }
        let mut reader = Reader::new(Telling::Unread, news, seat, deadline);
        // What is there now is told first, whatever comes until it is read.
        reader.begin();
        Ok(Some(Self(State::Telling(reader))))
    }

    /// Tells at once that the call was made with which the watch begins; the
    /// first read comes behind it.
    pub(super) fn started(message: Bytes, joins: Joins, deadline: Option<Deadline>) -> Self {
        let Joins { news, seat, .. } = joins;
        let telling = Telling::Started(message);
        Self(State::Telling(Reader::new(telling, news, seat, deadline)))
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
                State::Log(log) => return log.as_mut().poll_next(cx),
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
        news: watch::Receiver<News>,
        seat: Seat,
        deadline: Option<Deadline>,
    ) -> Self {
        let now = (seat.registry.clock)();
        Self {
            telling,
            unconfirmed_since: None,
            told: Arc::new(Snapshot::new(0, Vec::new(), now)),
            silent_until: Instant::now() + seat.registry.settings.bookmark_interval,
            deadline: deadline.map(Deadline::instant),
            news,
            seat,
        }
    }

    /// Waits for news, a due bookmark or the deadline.
    async fn wait(mut self) -> Self {
        let until = self.deadline.map_or(self.silent_until, |deadline| {
            deadline.min(self.silent_until)
        });
        tokio::select! {
            // The sender lives as long as this reader's seat.
            Ok(()) = self.news.changed() => {}
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
            return Tell::Over(Err(match self.seat.shared.rules.begun {
                true => Error::Deadline { sent: true },
                false => Error::StreamDeadline,
            }));
        }
        if let Stage::Ended(_, End::Failed(Error::Draining)) = &self.news.borrow().stage {
            return Tell::Over(Err(Error::Draining));
        }
        let tell = match self.next() {
            Tell::NothingYet if self.silent_until <= now => Tell::Message(self.bookmark()),
            tell => tell,
        };
        if let Tell::Message(_) = tell {
            self.silent_until = now + self.seat.registry.settings.bookmark_interval;
        }
        tell
    }

    fn next(&mut self) -> Tell {
        let shared = Arc::clone(&self.seat.shared);
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
                        return Tell::Message(shared.told(
                            WatchEventType::Initial,
                            item,
                            observed_at,
                            unconfirmed_since,
                        ));
                    }
                    self.telling = Telling::Nothing;
                    if shared.rules.list {
                        return Tell::Message(shared.bookmark(observed_at, unconfirmed_since));
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
                        let message = shared.told(kind, item, self.told.observed_at, None);
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
                Telling::Nothing if shared.is_end(&self.told, self.seat.follow) => {
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
        let news = self.news.borrow_and_update();
        if let Some(seen) = news.stage.seen() {
            self.unconfirmed_since = seen.unconfirmed_since();
            self.told = Arc::clone(&seen.snapshot);
            self.telling = Telling::Present {
                at: 0,
                observed_at: seen.observed_at,
                unconfirmed_since: self.unconfirmed_since,
            };
            return None;
        }
        let Stage::Ended(_, end) = &news.stage else {
            return Some(Tell::NothingYet);
        };
        match end {
            End::Failed(error) => Some(Tell::Over(Err(error.clone()))),
            End::Well(messages) => {
                let messages = Arc::clone(messages);
                self.telling = Telling::Farewell { messages, at: 0 };
                None
            }
        }
    }

    /// Looks at the news. None: there is something, and `telling` says what.
    fn look(&mut self) -> Option<Tell> {
        let news = self.news.borrow_and_update();
        let Some(seen) = news.stage.seen() else {
            return Some(Tell::NothingYet);
        };
        let target = match &seen.settled {
            // The loop may have gone on for others.
            Some(settled) if !self.seat.follow && settled.seq > self.told.seq => settled,
            _ => &seen.snapshot,
        };
        if target.seq > self.told.seq {
            let before = std::mem::replace(&mut self.told, Arc::clone(target));
            let made_for_all = target.seq == seen.snapshot.seq && before.seq + 1 == target.seq;
            self.telling = if made_for_all {
                let messages = Arc::clone(&seen.step);
                Telling::Step { messages, at: 0 }
            } else {
                Telling::Difference { before, place: 0 }
            };
            return None;
        }
        if let Stage::Ended(_, end) = &news.stage {
            match end {
                End::Failed(error) => return Some(Tell::Over(Err(error.clone()))),
                End::Well(messages) => {
                    let messages = Arc::clone(messages);
                    self.telling = Telling::Farewell { messages, at: 0 };
                    return None;
                }
            }
        }
        let changed = seen.unconfirmed_since() != self.unconfirmed_since;
        drop(news);
        Some(if changed {
            Tell::Message(self.bookmark())
        } else {
            Tell::NothingYet
        })
    }

    /// A sign of life, and whether the state is confirmed.
    fn bookmark(&mut self) -> Bytes {
        let news = self.news.borrow();
        let (observed_at, unconfirmed_since) = match news.stage.seen() {
            Some(seen) => (seen.observed_at, seen.unconfirmed_since()),
            None => (self.told.observed_at, None),
        };
        self.unconfirmed_since = unconfirmed_since;
        self.seat.shared.bookmark(observed_at, unconfirmed_since)
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
