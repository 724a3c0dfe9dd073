//! Watches of what only grows: each entry told once, in order, to everybody.
//!
//! A reader catches up by reads of its own, page by page as its caller takes
//! them, from where the caller wants to begin; memory stays flat however long
//! the list is. Caught up, it follows a tail that all readers of the same thing
//! with the same eyes share: one poll per interval, whose news stand in a small
//! window. A reader that falls out of the window catches up again. In reading
//! order: `position` is where one stands in a log, `source` how a page is read, of a
//! text by `text`, `tail` the shared loop, `reader` what a caller is told.

mod position;
mod reader;
mod source;
mod tail;
#[cfg(test)]
mod tests;
mod text;

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use super::source::POLL_TIMEOUT;
use super::stream::WatchStream;
use super::{Key, Registry, Watches};
use crate::deadline::Deadline;
use crate::engine::call_context::StreamContext;
use crate::engine::stream_limiter::{StreamPermit, limit_reached};
use crate::error::Error;
use drawbridge_transcoder::contract::{Grows, Method};
use position::Position;
pub(super) use reader::LogStream;
use reader::{Begin, End};
use source::{LogSource, RestLog};
use tail::{Joined, News, Tail};

/// The running tails.
#[derive(Default)]
pub(super) struct Tails(Mutex<HashMap<Arc<Key>, Arc<Tail>>>);

impl Tails {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<Key>, Arc<Tail>>> {
        // Nothing is left half done under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Takes out this very tail if `end` says so while nobody can join it. True
    /// when it is out.
    fn remove_if(&self, key: &Key, this: &Arc<Tail>, end: impl FnOnce() -> bool) -> bool {
        let mut tails = self.lock();
        match tails.get(key) {
            Some(there) if Arc::ptr_eq(there, this) => {
                let ends = end();
                if ends {
                    tails.remove(key);
                }
                ends
            }
            _ => true,
        }
    }
}

/// A place among the watchers, given back when dropped.
struct Seat {
    _place: StreamPermit,
    registry: Arc<Registry>,
    tail: Arc<Tail>,
}

/// A reader that joins a tail.
struct Joins {
    news: watch::Receiver<News>,
    seat: Seat,
    /// Where the log ends now; none for a reader that reads to the end by itself.
    joined: Option<Joined>,
}

impl Watches {
    /// Follows the log that `request` names; see [`Watches::watch`].
    pub(super) async fn follow_log(
        &self,
        method: &Arc<Method>,
        request: Bytes,
        context: StreamContext,
        deadline: Option<Deadline>,
    ) -> Result<WatchStream, Error> {
        let not_a_log = || Error::Malformed(format!("{} is not a watch", method.path));
        let log = method.log.as_ref().ok_or_else(not_a_log)?;
        let call = method.bind(&request, &context.upstream.settings.dialect)?;
        let text = matches!(log.grows, Grows::Text { .. });
        let begin = match (log.resume(&request)?, log.from_now(&request)) {
            (Some(_), true) => {
                return Err(Error::Binding {
                    field: log.resume_name().to_owned(),
                    problem: "says where to begin, and so does the field for now: set one"
                        .to_owned(),
                });
            }
            (None, true) => Begin::Now,
            (marker, false) => Begin::At(Position::new(marker, text)),
        };
        let end = match (&log.ends_with, log.settles(&request)) {
            (Some(watch), true) => {
                let request = log.ends_request(&request)?;
                // A log is no watch, so this goes no deeper.
                let settles = self.watch(
                    watch,
                    request,
                    context.until(Deadline::after(POLL_TIMEOUT)),
                    deadline,
                );
                Some(Box::new(Box::pin(settles).await?))
            }
            _ => None,
        };
        let key = Key::new(method, &call, &context, Vec::new());
        let max_items = self.0.settings.max_items;
        let source = RestLog::new(method, call, context, max_items).ok_or_else(not_a_log)?;
        let end = end.map(|stream| End::new(stream, Arc::clone(method)));
        self.open_log(key, begin, end, deadline, || Arc::new(source))
            .await
    }

    /// Joins the tail of this key, or begins it with `source`.
    async fn open_log(
        &self,
        mut key: Key,
        begin: Begin,
        end: Option<End>,
        deadline: Option<Deadline>,
        source: impl FnOnce() -> Arc<dyn LogSource>,
    ) -> Result<WatchStream, Error> {
        if let Begin::At(position) = &begin {
            key.aside = position.aside();
        }
        let joins = self.join_tail(key, &begin, source)?;
        let stream = LogStream::open(joins, begin, end, deadline);
        let stream = match deadline {
            Some(deadline) => deadline.bound(stream).await??,
            None => stream.await?,
        };
        Ok(WatchStream::log(stream))
    }

    fn join_tail(
        &self,
        key: Key,
        begin: &Begin,
        source: impl FnOnce() -> Arc<dyn LogSource>,
    ) -> Result<Joins, Error> {
        let registry = &self.0;
        let place = registry.streams.acquire()?;
        let loops = registry.lock();
        let mut tails = registry.tails.lock();
        let running = loops.len() + tails.len();
        let (news, tail) = match tails.entry(Arc::new(key)) {
            Slot::Occupied(entry) => {
                let tail = Arc::clone(entry.get());
                (tail.news.subscribe(), tail)
            }
            Slot::Vacant(_) if running >= registry.settings.max_poll_loops => {
                return Err(limit_reached("poll loops", "watch.max_poll_loops"));
            }
            Slot::Vacant(entry) => {
                let key = Arc::clone(entry.key());
                let first = match begin {
                    Begin::At(position) => position.at(),
                    Begin::Now => position::At::default(),
                };
                let (tail, news) = Tail::new(source(), first);
                entry.insert(Arc::clone(&tail));
                tokio::spawn(tail::run(Arc::clone(registry), key, Arc::clone(&tail)));
                (news, tail)
            }
        };
        let joined = match begin {
            Begin::Now => Some(tail.join()),
            // One that begins before the window catches up by reads of its own.
            Begin::At(position) => tail.covers(position.offset()).map(|_| tail.join()),
        };
        let seat = Seat {
            _place: place,
            registry: Arc::clone(registry),
            tail,
        };
        Ok(Joins { news, seat, joined })
    }
}
