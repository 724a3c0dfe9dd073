//! How a page of a log is read.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::super::source::{POLL_TIMEOUT, Route, repeatable};
use super::position::{At, Page, offset};
use crate::api::drawbridge::v1::WatchEvent;
use crate::contract::{Entry, Grows, Log, Method, Slice};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::rest::Call;

/// A read that is under way.
pub(super) type Reading = Pin<Box<dyn Future<Output = Result<Page, Error>> + Send>>;

/// What is read page by page.
pub(super) trait LogSource: Send + Sync + 'static {
    fn rules(&self) -> Rules;
    /// Reads what stands behind `at`.
    fn page(self: Arc<Self>, at: At) -> Reading;
    /// Reads the newest page; `last` says that there is no more before it.
    fn newest(self: Arc<Self>) -> Reading;
    /// Encodes a message of the stream.
    fn message(&self, event: &WatchEvent, item: Option<&[u8]>, marker: &str) -> Bytes;
}

/// How a log is polled; from `drawbridge.v1.Watch`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) first_interval: Duration,
    pub(super) max_interval: Duration,
    /// After so many rounds the newest page is read too; never for 0.
    pub(super) look_back: u32,
    /// It is a text: markers are offsets.
    pub(super) text: bool,
}

/// A log as a REST API has it.
pub(super) struct RestLog {
    method: Arc<Method>,
    call: Call,
    route: Route,
    max_items: usize,
    /// The last read of the text brought nothing.
    idle: AtomicBool,
}

impl RestLog {
    /// None: the method is not a log.
    pub(super) fn new(
        method: &Arc<Method>,
        call: Call,
        route: Route,
        max_items: usize,
    ) -> Option<Self> {
        method.log.as_ref()?;
        Some(Self {
            method: Arc::clone(method),
            call: repeatable(call),
            route,
            max_items,
            idle: AtomicBool::new(false),
        })
    }

    fn log(&self) -> &Log {
        self.method.log.as_ref().expect("checked by `new`")
    }

    fn dialect(&self) -> &str {
        &self.route.upstream.settings.dialect
    }

    async fn fetch(&self, call: &Call) -> Result<Bytes, Error> {
        let deadline = Deadline::after(POLL_TIMEOUT);
        let read = self.route.fetch(&self.log().poll, call, deadline);
        deadline.bound(read).await?
    }

    async fn entries(&self, slice: Slice<'_>, page_size: usize) -> Result<Page, Error> {
        let log = self.log();
        let call = log.entries_call(&self.call, self.dialect(), slice);
        let mut entries = log.entries(&self.fetch(&call).await?)?;
        if !log.pages(self.dialect()) {
            if entries.len() > self.max_items {
                return Err(Error::Decode {
                    path: String::new(),
                    problem: format!(
                        "it has {} entries, and a watch takes at most {} (setting `max_items`)",
                        entries.len(),
                        self.max_items
                    ),
                });
            }
            oldest_first(&mut entries);
            return Ok(Page {
                entries,
                last: true,
                whole: true,
                next: None,
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
        })
    }

    async fn text(&self, at: At, first_size: u32, max_size: u32) -> Result<Page, Error> {
        let log = self.log();
        let from = at.marker.as_deref().map_or(0, offset);
        let mut size = match self.idle.load(Ordering::Relaxed) {
            false => first_size,
            true => max_size,
        };
        loop {
            let call = log.text_call(&self.call, self.dialect(), from, size);
            let text = log.text(&self.fetch(&call).await?)?;
            self.idle.store(text.is_empty(), Ordering::Relaxed);
            if text.is_empty() && size < max_size {
                // A line longer than what was asked for does not come at all.
                size = max_size;
                continue;
            }
            return Ok(lines(&text, from, at.open));
        }
    }
}

impl LogSource for RestLog {
    fn rules(&self) -> Rules {
        let log = self.log();
        let pages = log.pages(self.dialect());
        Rules {
            first_interval: log.first_interval,
            max_interval: log.max_interval,
            look_back: match log.grows {
                Grows::Entries { look_back, .. } if pages => look_back,
                _ => 0,
            },
            text: matches!(log.grows, Grows::Text { .. }),
        }
    }

    fn page(self: Arc<Self>, at: At) -> Reading {
        Box::pin(async move {
            match self.log().grows {
                Grows::Entries { page_size, .. } => {
                    let slice = at.marker.as_deref().map_or(Slice::Start, Slice::After);
                    self.entries(slice, page_size).await
                }
                Grows::Text {
                    first_size,
                    max_size,
                } => self.text(at, first_size, max_size).await,
            }
        })
    }

    fn newest(self: Arc<Self>) -> Reading {
        Box::pin(async move {
            match self.log().grows {
                Grows::Entries { page_size, .. } => self.entries(Slice::Newest, page_size).await,
                Grows::Text { .. } => Ok(Page::default()),
            }
        })
    }

    fn message(&self, event: &WatchEvent, item: Option<&[u8]>, marker: &str) -> Bytes {
        self.log().message(event, item, marker)
    }
}

/// Puts a list in order that came in one of its own: by time, and among equal
/// times as it came, turned where it was newest first.
fn oldest_first(entries: &mut [Entry]) {
    let (first, last) = (entries.first(), entries.last());
    if first.map(|entry| &entry.order) > last.map(|entry| &entry.order) {
        entries.reverse();
    }
    entries.sort_by(|a, b| a.order.cmp(&b.order));
}

/// The lines of a text that begins at `from`; each has the offset behind it as its
/// key.
fn lines(text: &str, from: u64, open: bool) -> Page {
    let mut page = Page {
        last: text.is_empty(),
        ..Page::default()
    };
    let mut rest = text;
    let mut at = from;
    if open {
        // The end of the line before.
        let end = ["\r\n", "\n"].iter().find(|end| rest.starts_with(**end));
        let end = end.map_or(0, |end| end.len());
        rest = &rest[end..];
        at += end as u64;
    }
    for line in rest.split_inclusive('\n') {
        let begin = at;
        at += line.len() as u64;
        let line = line.strip_suffix('\n').unwrap_or(line);
        let line = line.strip_suffix('\r').unwrap_or(line);
        page.entries.push(Entry {
            key: at.to_string().into(),
            order: None,
            bytes: Log::line(line, begin),
        });
    }
    page.next = Some(At {
        marker: Some(at.to_string().into()),
        open: match text.is_empty() {
            true => open,
            false => !text.ends_with('\n'),
        },
    });
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Order;

    #[test]
    fn texts_become_lines() {
        let told = |text, from, open| {
            let page = lines(text, from, open);
            let keys: Vec<String> = page.entries.iter().map(|e| e.key.to_string()).collect();
            let next = page.next.unwrap();
            (keys.join(" "), next.marker.unwrap().to_string(), next.open)
        };
        for (text, from, open, keys, next, still_open) in [
            ("", 7, false, "", "7", false),
            ("", 7, true, "", "7", true),
            ("a\nbc\n", 0, false, "2 5", "5", false),
            ("a\r\n\r\nb", 10, false, "13 15 16", "16", true),
            ("\nb\n", 16, true, "19", "19", false),
            ("\nb\n", 16, false, "17 19", "19", false),
            ("日本\n", 3, false, "10", "10", false),
        ] {
            let want = (keys.to_owned(), next.to_owned(), still_open);
            assert_eq!(told(text, from, open), want, "{text:?}");
        }
    }

    #[test]
    fn lists_in_no_known_order_are_sorted() {
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
