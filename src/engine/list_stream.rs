//! Long lists as streams: one message per item, one page in memory.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio_stream::Stream;

use super::call_context::StreamContext;
use super::pager::{OnRepeat, Page, Pager, TokenCursor};
use super::stream_limiter::{StreamLimiter, StreamPermit};
use crate::deadline::Deadline;
use crate::error::Error;
use drawbridge_transcoder::contract::{Method, Pages};
use drawbridge_transcoder::json::Notes;

/// Streams the items of all pages, each as a message. The next page is read when the
/// client has read the last item of the previous page.
pub struct ListStream {
    state: State,
    /// See [`ListStream::notes`].
    notes: Notes,
}

impl fmt::Debug for ListStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ListStream")
    }
}

/// The state of a stream.
enum State {
    /// Items of the page are sent; then comes `Reading`, or `Ended` after the last page.
    Sending(Box<Walk>),
    /// The next page is read; then comes `Sending`, or `Ended` on an error.
    Reading(Pin<Box<dyn Future<Output = Result<Box<Walk>, Error>> + Send>>),
    /// The end of the list or an error was sent.
    Ended,
}

/// What a list stream is opened with.
pub struct Settings {
    /// The rpc of the stream.
    pub method: Arc<Method>,
    /// The upstream of the list, and the client that reads it.
    pub context: StreamContext,
    /// The deadline of the stream, if the client has set one.
    pub deadline: Option<Deadline>,
    /// Timeout of reading one page.
    pub page_timeout: Duration,
    /// Bounds the open streams of lists and watches together.
    pub limiter: StreamLimiter,
}

/// A list that is read page by page, as its stream is read.
struct Walk {
    settings: Settings,
    _permit: StreamPermit,
    pager: Pager<TokenCursor>,
    /// Items of the page that are not sent yet.
    items: std::vec::IntoIter<Bytes>,
}

impl ListStream {
    /// Reads the first page. An error is the status of the rpc: [`Error::Overload`] where
    /// no more streams may be open.
    pub async fn open(settings: Settings, request: &Bytes) -> Result<Self, Error> {
        let method = Arc::clone(&settings.method);
        pages(&method)?;
        let cursor = TokenCursor::new(method, request.clone())?;
        let client = settings.context.limited_client();
        let mut walk = Box::new(Walk {
            _permit: settings.limiter.acquire(client)?,
            settings,
            pager: Pager::new(cursor, OnRepeat::Fail),
            items: Vec::new().into_iter(),
        });
        let notes = walk.read().await?;
        Ok(Self {
            state: State::Sending(walk),
            notes,
        })
    }

    /// Returns what decoding the first page has noted.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }
}

impl Stream for ListStream {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match &mut self.state {
                State::Ended => return Poll::Ready(None),
                State::Reading(reading) => match reading.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(walk)) => self.state = State::Sending(walk),
                    Poll::Ready(Err(error)) => {
                        self.state = State::Ended;
                        return Poll::Ready(Some(Err(error)));
                    }
                },
                State::Sending(walk) => {
                    // `grpc-timeout` does not reach the body of a stream.
                    let deadline = walk.settings.deadline;
                    if deadline.is_some_and(|d| d.remaining().is_zero()) {
                        self.state = State::Ended;
                        return Poll::Ready(Some(Err(Error::StreamDeadline)));
                    }
                    if let Some(message) = walk.next_message() {
                        return Poll::Ready(Some(message));
                    }
                    let State::Sending(walk) = std::mem::replace(&mut self.state, State::Ended)
                    else {
                        return Poll::Ready(None);
                    };
                    if !walk.pager.cursor().is_at_end() && !walk.pager.is_ended() {
                        self.state = State::Reading(Box::pin(walk.read_next()));
                    }
                }
            }
        }
    }
}

impl Walk {
    /// Returns the message of the next item of the page.
    fn next_message(&mut self) -> Option<Result<Bytes, Error>> {
        let item = self.items.next()?;
        Some(pages(&self.settings.method).map(|pages| pages.message(&item)))
    }

    /// Reads the next page.
    async fn read_next(mut self: Box<Self>) -> Result<Box<Self>, Error> {
        if self.settings.limiter.is_draining() {
            return Err(Error::Draining);
        }
        let upstream = &self.settings.context.upstream;
        if upstream.replaced().has_begun() {
            return Err(upstream.end());
        }
        self.read().await?;
        Ok(self)
    }

    async fn read(&mut self) -> Result<Notes, Error> {
        let timeout = Deadline::after(self.settings.page_timeout);
        let deadline = self.settings.deadline.map_or(timeout, |d| d.min(timeout));
        let context = self.settings.context.until(deadline);
        let Some(page) = self.pager.next(context).await? else {
            return Ok(Notes::default());
        };
        let Page { items, notes, .. } = page;
        self.items = items.into_iter();
        Ok(notes)
    }
}

/// Returns the `pages` of a list stream.
fn pages(method: &Method) -> Result<&Pages, Error> {
    let pages = method.pages.as_ref();
    pages.ok_or_else(|| Error::Malformed(format!("{} is not a list stream", method.path)))
}
