//! Watches of append-only data: each entry of a log is sent once, in order.
//!
//! The loop of a log (`tail`) polls its end, once per interval for all streams with equal
//! keys, and publishes new entries in a small window. A stream (`reader`) that starts
//! earlier in the log first reads pages of its own, as fast as its client reads them, so
//! memory does not grow with the log; then it reads the window. A stream that falls behind
//! the window reads pages again. `position` says how far a log was read and which entries
//! of a page are new, `source` makes the REST calls, and `text` splits a text into lines.

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
use crate::downstream::Client;
use crate::engine::call_context::StreamContext;
use crate::error::Error;
use drawbridge_transcoder::contract::{LogKind, Method};
use position::Position;
pub(super) use reader::LogStream;
use reader::{EndWatch, StartAt};
use source::{LogSource, RestLogSource};
pub(super) use tail::Tail;

impl Watches {
    /// Opens the stream of a log; see [`Watches::watch`].
    pub(super) async fn watch_log(
        &self,
        method: &Arc<Method>,
        request: Bytes,
        context: StreamContext,
        deadline: Option<Deadline>,
    ) -> Result<WatchStream, Error> {
        let not_a_log = || Error::Malformed(format!("{} is not a watch", method.path));
        let log = method.log.as_ref().ok_or_else(not_a_log)?;
        let call = {
            let context = context.until(Deadline::after(POLL_TIMEOUT));
            let turn = context.turn(request.len()).await?;
            turn.run(|| method.bind(&request, context.dialect()))?
        };
        let text = matches!(log.kind, LogKind::Text { .. });
        let start = match (log.resume(&request)?, log.from_now(&request)) {
            (Some(_), true) => {
                return Err(Error::Binding {
                    field: log.resume_name().to_owned(),
                    problem: "excludes the field that starts the log at now: set one of them"
                        .to_owned(),
                });
            }
            (None, true) => StartAt::Now,
            (marker, false) => StartAt::Position(Position::new(marker, text)),
        };
        let end = match (&log.ends_with, log.ends_with_watch(&request)) {
            (Some(watch), true) => {
                let request = log.ends_request(&request)?;
                // Recurses at most once: the option names a watch that is not a log.
                let end_watch = self.watch(
                    watch,
                    request,
                    context.until(Deadline::after(POLL_TIMEOUT)),
                    deadline,
                );
                Some(Box::new(Box::pin(end_watch).await?))
            }
            _ => None,
        };
        let key = Key::new(method, &call, &context, Vec::new());
        let client = context.limited_client();
        let max_items = self.0.settings.max_items;
        let source = RestLogSource::new(method, call, context, max_items).ok_or_else(not_a_log)?;
        let end = end.map(|stream| EndWatch::new(stream, Arc::clone(method)));
        self.open_log(client, key, start, end, deadline, || Arc::new(source))
            .await
    }

    /// Joins the loop of this key, or starts it with `source`, and opens a stream.
    async fn open_log(
        &self,
        client: Client,
        mut key: Key,
        start: StartAt,
        end: Option<EndWatch>,
        deadline: Option<Deadline>,
        source: impl FnOnce() -> Arc<dyn LogSource>,
    ) -> Result<WatchStream, Error> {
        if let StartAt::Position(position) = &start {
            key.discriminator = position.discriminator();
        }
        let first = match &start {
            StartAt::Position(position) => position.at(),
            StartAt::Now => position::ReadPosition::default(),
        };
        let tail = || Tail::new(source(), first);
        // `follow` does not apply: a log is never final.
        let subscription = self.0.subscribe(client, &Arc::new(key), false, tail)?;
        let stream = LogStream::open(subscription, start, end, deadline);
        let stream = match deadline {
            Some(deadline) => deadline.bound(stream).await??,
            None => stream.await?,
        };
        Ok(WatchStream::log(stream))
    }
}
