//! The REST calls that read a log page by page.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::super::poll_target::repeatable;
use super::super::source::POLL_TIMEOUT;
use super::position::{Page, ReadPosition};
use super::text::{self, TextProgress};
use crate::deadline::Deadline;
use crate::engine::call_context::StreamContext;
use crate::error::Error;
use crate::http_client::not_delivered;
use crate::memory::Memory;
use crate::upstream::Upstream;
use drawbridge_transcoder::api::drawbridge::v1::WatchEvent;
use drawbridge_transcoder::call::Call;
use drawbridge_transcoder::contract::{Entry, Log, LogKind, Method, Slice};

/// A read in progress.
pub(super) type PageFuture = Pin<Box<dyn Future<Output = Result<Page, Error>> + Send>>;

/// What the poll loop of a log reads.
pub(super) trait LogSource: Send + Sync + 'static {
    fn rules(&self) -> LogRules;
    /// Returns the upstream; none in tests.
    fn upstream(&self) -> Option<&Arc<Upstream>> {
        None
    }
    /// Reads the entries after `at`.
    fn page(self: Arc<Self>, at: ReadPosition) -> PageFuture;
    /// Reads the newest page; `last` means that no page precedes it.
    fn newest(self: Arc<Self>) -> PageFuture;
    /// Returns the longest `Retry-After` of the successful reads since the last call.
    fn take_retry_after(&self) -> Duration;
    /// Encodes a message of the stream.
    fn message(&self, event: &WatchEvent, item: Option<&[u8]>, marker: &str) -> Bytes;
    /// Returns what the entries draw from.
    fn memory(&self) -> Memory;
}

/// The memory of an entry besides its bytes.
const ENTRY_BYTES: usize = 192;

/// How a log is polled; from `drawbridge.v1.Watch`.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogRules {
    pub(super) initial_interval: Duration,
    pub(super) max_interval: Duration,
    /// Every so many rounds read the newest page too; 0 means never.
    pub(super) look_back: u32,
    /// The log is a text: markers are offsets.
    pub(super) text: bool,
}

/// Reads a log from a REST API.
pub(super) struct RestLogSource {
    method: Arc<Method>,
    call: Call,
    context: StreamContext,
    max_items: usize,
    text: TextProgress,
}

impl RestLogSource {
    /// Returns none if the method is not a log.
    pub(super) fn new(
        method: &Arc<Method>,
        call: Call,
        context: StreamContext,
        max_items: usize,
    ) -> Option<Self> {
        method.log.as_ref()?;
        Some(Self {
            method: Arc::clone(method),
            call: repeatable(call),
            context,
            max_items,
            text: TextProgress::default(),
        })
    }

    #[expect(clippy::expect_used, reason = "checked by `new`")]
    fn log(&self) -> &Log {
        self.method.log.as_ref().expect("checked by `new`")
    }

    fn dialect(&self) -> &str {
        &self.context.upstream.settings.dialect
    }

    async fn fetch(&self, call: &Call) -> Result<Bytes, Error> {
        let deadline = Deadline::after(POLL_TIMEOUT);
        let read = self.context.fetch(&self.log().poll, call, deadline);
        deadline.bound(read).await?
    }

    async fn entries(&self, slice: Slice<'_>, page_size: usize) -> Result<Page, Error> {
        let log = self.log();
        let call = log.entries_call(&self.call, self.dialect(), slice);
        let response = self.fetch(&call).await?;
        let pages = log.pages(self.dialect());
        let count = usize::try_from(log.entry_count(&response)).unwrap_or(usize::MAX);
        if !pages && count > self.max_items {
            return Err(Error::decode(
                "",
                format!(
                    "the list has {count} entries, more than the {} of the setting `watch.max_items`",
                    self.max_items
                ),
            ));
        }
        let reserved = self
            .memory()
            .reserve_long(count.saturating_mul(ENTRY_BYTES));
        let reservation = reserved.map_err(not_delivered)?;
        let mut entries = log.entries(&response)?;
        if !pages {
            oldest_first(&mut entries);
            return Ok(Page {
                entries,
                last: true,
                whole: true,
                next: None,
                reservation,
            });
        }
        if slice == Slice::Newest {
            entries.reverse();
        }
        Ok(Page {
            last: entries.len() < page_size,
            entries,
            whole: false,
            next: None,
            reservation,
        })
    }
}

impl text::Parts for RestLogSource {
    async fn part(&self, from: u64, size: u32) -> Result<String, Error> {
        let log = self.log();
        let call = log.text_call(&self.call, self.dialect(), from, size);
        let response = self.fetch(&call).await?;
        let mut reservation = self.memory().empty();
        let mut reserve = |bytes| reservation.resize_long(bytes).map_err(not_delivered);
        reserve(2 * response.len())?;
        let text = log.text(&response)?;
        // For the lines that the caller makes of it at once.
        let lines = text.bytes().filter(|byte| *byte == b'\n').count();
        reserve(2 * text.len() + ENTRY_BYTES * lines)?;
        Ok(text)
    }
}

impl LogSource for RestLogSource {
    fn upstream(&self) -> Option<&Arc<Upstream>> {
        Some(&self.context.upstream)
    }

    fn rules(&self) -> LogRules {
        let log = self.log();
        let pages = log.pages(self.dialect());
        LogRules {
            initial_interval: log.initial_interval,
            max_interval: log.max_interval,
            look_back: match log.kind {
                LogKind::Entries { look_back, .. } if pages => look_back,
                _ => 0,
            },
            text: matches!(log.kind, LogKind::Text { .. }),
        }
    }

    fn page(self: Arc<Self>, at: ReadPosition) -> PageFuture {
        Box::pin(async move {
            match self.log().kind {
                LogKind::Entries { page_size, .. } => {
                    let slice = at.marker.as_deref().map_or(Slice::Start, Slice::After);
                    self.entries(slice, page_size).await
                }
                LogKind::Text {
                    first_size,
                    max_size,
                } => {
                    let mut page =
                        text::page(&*self, &self.text, at, (first_size, max_size)).await?;
                    let bytes = page.entries.iter().map(|entry| entry.bytes.len());
                    let bytes = bytes.sum::<usize>() + ENTRY_BYTES * page.entries.len();
                    let reserved = self.memory().reserve_long(bytes);
                    page.reservation = reserved.map_err(not_delivered)?;
                    Ok(page)
                }
            }
        })
    }

    fn newest(self: Arc<Self>) -> PageFuture {
        Box::pin(async move {
            match self.log().kind {
                LogKind::Entries { page_size, .. } => self.entries(Slice::Newest, page_size).await,
                LogKind::Text { .. } => Ok(Page::default()),
            }
        })
    }

    fn take_retry_after(&self) -> Duration {
        self.context.retry_after.take()
    }

    fn message(&self, event: &WatchEvent, item: Option<&[u8]>, marker: &str) -> Bytes {
        self.log().message(event, item, marker)
    }

    fn memory(&self) -> Memory {
        self.context.client.memory.clone()
    }
}

/// Sorts a complete list by time. Entries of equal time keep their order, reversed if the
/// list is newest first.
fn oldest_first(entries: &mut [Entry]) {
    let (first, last) = (entries.first(), entries.last());
    if first.map(|entry| &entry.order) > last.map(|entry| &entry.order) {
        entries.reverse();
    }
    entries.sort_by(|a, b| a.order.cmp(&b.order));
}

#[cfg(test)]
mod tests {
    use super::*;
    use drawbridge_transcoder::contract::Order;

    #[test]
    fn lists_in_any_order_are_sorted_oldest_first() {
        let entry = |text: &str| Entry {
            key: text.into(),
            order: Some(Order::Number(text[..1].parse().unwrap())),
            bytes: Bytes::new(),
        };
        for (came, want) in [
            ("1a 1b 2a 3a", "1a 1b 2a 3a"),
            ("3a 2a 1b 1a", "1a 1b 2a 3a"),
            ("1a 3a 2a 2b", "1a 2a 2b 3a"),
            ("", ""),
        ] {
            let mut entries: Vec<Entry> = came.split_whitespace().map(entry).collect();
            oldest_first(&mut entries);
            let got: Vec<_> = entries.iter().map(|entry| &*entry.key).collect();
            assert_eq!(got.join(" "), want, "{came}");
        }
    }
}
