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

use std::sync::Arc;

use bytes::Bytes;

use super::Watches;
use super::key::Key;
use super::source::POLL_TIMEOUT;
use super::stream::WatchStream;
use crate::deadline::Deadline;
use crate::engine::call_context::StreamContext;
use crate::error::Error;
use drawbridge_transcoder::contract::{Grows, Method};
use position::Position;
pub(super) use reader::LogStream;
use reader::{Begin, End};
use source::{LogSource, RestLog};
pub(super) use tail::Tail;

impl Watches {
    /// Follows the log that `request` names; see [`Watches::watch`].
    pub(super) async fn watch_log(
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
            key.discriminator = position.discriminator();
        }
        let first = match &begin {
            Begin::At(position) => position.at(),
            Begin::Now => position::At::default(),
        };
        let tail = || Tail::new(source(), first);
        // Nobody follows a log: it never is final.
        let subscription = self.0.subscribe(&Arc::new(key), false, tail)?;
        let stream = LogStream::open(subscription, begin, end, deadline);
        let stream = match deadline {
            Some(deadline) => deadline.bound(stream).await??,
            None => stream.await?,
        };
        Ok(WatchStream::log(stream))
    }
}
