//! Long lists as streams: page after page, one at a time.

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio_stream::Stream;

use super::call_context::StreamContext;
use crate::deadline::Deadline;
use crate::engine::stream_limiter::{Place, Streams};
use crate::error::Error;
use drawbridge_transcoder::call::Room;
use drawbridge_transcoder::contract::{Decoded, Method, Pages, Paging};
use drawbridge_transcoder::json::Notes;

/// The items of all pages, each as a message of the stream. Of the list, one page
/// is in memory: the next is read when the last item of it has been taken.
pub struct PageStream {
    state: State,
    /// See [`PageStream::notes`].
    notes: Notes,
}

impl fmt::Debug for PageStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PageStream")
    }
}

/// Where a stream stands.
enum State {
    /// Items of the page are told.
    Telling(Box<Walk>),
    /// The next page is read.
    Reading(Pin<Box<dyn Future<Output = Result<Box<Walk>, Error>> + Send>>),
    /// The end was told.
    Over,
}

/// For whom a list is walked.
pub struct Route {
    /// The rpc of the stream.
    pub method: Arc<Method>,
    /// Where the list is, and with whose credentials it is read.
    pub context: StreamContext,
    /// When the stream ends, where the caller said so.
    pub deadline: Option<Deadline>,
    /// How long the reading of one page may take.
    pub page_timeout: Duration,
    /// Where it takes its place.
    pub streams: Streams,
}

/// How far a list was walked.
struct Walk {
    route: Route,
    /// Streams of lists are bounded together with watches.
    _place: Place,
    /// The request of the first page.
    request: Bytes,
    /// The items that are still to be told.
    items: std::vec::IntoIter<Bytes>,
    /// What a long page takes up until all of it was told.
    room: Room,
    /// Where the next page starts.
    next: Option<String>,
    seen: Seen,
}

/// Keys that would show that the list has begun anew: as many as three pages have,
/// however long it is.
#[derive(Default)]
struct Seen {
    /// Those of the first page.
    first: HashSet<Vec<u8>>,
    /// Those of the page before.
    last: HashSet<Vec<u8>>,
    /// Those of the second page, then the fourth, the eighth... A list that goes
    /// round in circles comes by one of them.
    mark: HashSet<Vec<u8>>,
    /// A digest of the page before, where its items have no keys.
    alike: Option<u64>,
    pages: u64,
}

impl PageStream {
    /// Reads the first page. An error here is the answer to the rpc:
    /// [`Error::Overload`] where as many streams are open as may be.
    pub async fn open(route: Route, request: &Bytes) -> Result<Self, Error> {
        let request = pages(&route.method)?.0.first(request)?;
        let walk = Box::new(Walk {
            _place: route.streams.place()?,
            route,
            items: Vec::new().into_iter(),
            room: Room::default(),
            next: None,
            seen: Seen::default(),
            request: request.clone(),
        });
        let (walk, notes) = walk.read(request).await?;
        Ok(Self {
            state: State::Telling(walk),
            notes,
        })
    }

    /// What there is to say of the first page.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }
}

impl Stream for PageStream {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match &mut self.state {
                State::Over => return Poll::Ready(None),
                State::Reading(reading) => match reading.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(walk)) => self.state = State::Telling(walk),
                    Poll::Ready(Err(error)) => {
                        self.state = State::Over;
                        return Poll::Ready(Some(Err(error)));
                    }
                },
                State::Telling(walk) => {
                    // `grpc-timeout` does not reach the body of a stream.
                    let over = walk.route.deadline.is_some_and(|d| d.remaining().is_zero());
                    if over {
                        self.state = State::Over;
                        return Poll::Ready(Some(Err(Error::StreamDeadline)));
                    }
                    if let Some(message) = walk.tell() {
                        return Poll::Ready(Some(message));
                    }
                    let State::Telling(walk) = std::mem::replace(&mut self.state, State::Over)
                    else {
                        return Poll::Ready(None);
                    };
                    if walk.next.is_some() {
                        self.state = State::Reading(Box::pin(walk.go_on()));
                    }
                }
            }
        }
    }
}

impl Walk {
    /// The next message; none when the page has been told.
    fn tell(&mut self) -> Option<Result<Bytes, Error>> {
        let item = self.items.next()?;
        Some(pages(&self.route.method).map(|(pages, _)| pages.message(&item)))
    }

    /// Reads the page behind this one.
    async fn go_on(mut self: Box<Self>) -> Result<Box<Self>, Error> {
        if self.route.streams.is_draining() {
            return Err(Error::Draining);
        }
        let request = match self.next.take() {
            Some(token) => pages(&self.route.method)?.0.at(&self.request, &token),
            None => return Ok(self),
        };
        // Those who hold room must not wait for more.
        self.room = Room::default();
        Ok(self.read(request).await?.0)
    }

    async fn read(mut self: Box<Self>, request: Bytes) -> Result<(Box<Self>, Notes), Error> {
        let Route {
            method, context, ..
        } = &self.route;
        let (_, paging) = pages(method)?;
        let dialect = &context.upstream.settings.dialect;
        let asked = paging.asked(&request, dialect)?;
        let call = method.bind(&request, dialect)?;
        let timeout = Deadline::after(self.route.page_timeout);
        let deadline = self.route.deadline.map_or(timeout, |d| d.min(timeout));
        let reply = context.until(deadline).call(method, &call).await?;
        let Decoded {
            message: page,
            notes,
        } = method.decode(&reply)?;
        self.room = reply.room;
        let next = paging.next(asked, &page)?;
        let items = self.seen.sift(paging, paging.items(&page)?)?;
        self.items = items.into_iter();
        self.next = next;
        Ok((self, notes))
    }
}

impl Seen {
    /// The items of the next page, without those of the page before, which come
    /// again when the list has shifted. [`Error::ListRestarted`] when nothing else
    /// comes, or what came long ago; so, too, when items without keys come again as
    /// a whole page: the API does not page as the contract says.
    fn sift(&mut self, paging: &Paging, items: Vec<Bytes>) -> Result<Vec<Bytes>, Error> {
        let mut keys = HashSet::with_capacity(items.len());
        let mut new = Vec::with_capacity(items.len());
        let came = items.len();
        let mut plain = DefaultHasher::new();
        let mut any_plain = false;
        for item in items {
            let Some(key) = paging.key(&item)? else {
                item.hash(&mut plain);
                any_plain = true;
                new.push(item);
                continue;
            };
            let again = self.last.contains(&key) || keys.contains(&key);
            if !again && (self.first.contains(&key) || self.mark.contains(&key)) {
                return Err(Error::ListRestarted);
            }
            if !again {
                new.push(item);
            }
            keys.insert(key);
        }
        let alike = any_plain.then(|| plain.finish());
        if came > 0 && (new.is_empty() || any_plain && alike == self.alike) {
            return Err(Error::ListRestarted);
        }
        self.pages += 1;
        match self.pages {
            1 => self.first.clone_from(&keys),
            pages if pages.is_power_of_two() => self.mark.clone_from(&keys),
            _ => {}
        }
        self.last = keys;
        self.alike = alike;
        Ok(new)
    }
}

/// The tables of a stream of pages.
fn pages(method: &Method) -> Result<(&Pages, &Paging), Error> {
    let pages = method.pages.as_ref();
    pages
        .and_then(|pages| Some((pages, pages.list.paging.as_ref()?)))
        .ok_or_else(|| Error::Malformed(format!("{} is no stream of pages", method.path)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{World, proto};

    /// An API that does not look at the offset gives its first page for ever.
    #[test]
    fn a_page_without_keys_that_comes_again() {
        let world = World::new(&proto(
            r#"service S {
              rpc List(ListRequest) returns (ListResponse) {
                option (google.api.http) = {get: "/v1/things"};
                option (drawbridge.v1.method).paging = {
                  style: PAGING_STYLE_OFFSET items: "things"
                };
                option idempotency_level = NO_SIDE_EFFECTS;
              }
            }
            message ListRequest {
              int32 page_size = 2 [(drawbridge.v1.field).name = "limit"];
              string page_token = 3 [(drawbridge.v1.field).name = "start"];
            }
            message ListResponse {
              repeated Thing things = 1;
              string next_page_token = 9 [(drawbridge.v1.field).gateway_only = true];
            }
            message Thing { string id = 1; }"#,
        ));
        let paging = world.rpc("List").paging.as_ref().unwrap();
        let page = |ids: &[&'static str]| ids.iter().map(|id| Bytes::from(*id)).collect();
        let mut seen = Seen::default();
        for ids in [&["a", "b"][..], &["b", "a"], &["b", "b"], &[], &["b", "b"]] {
            let told = seen.sift(paging, page(ids)).unwrap();
            assert_eq!(told.len(), ids.len(), "what has no key may come again");
        }
        let error = seen.sift(paging, page(&["b", "b"])).unwrap_err();
        assert!(matches!(error, Error::ListRestarted), "{error:?}");
    }
}
