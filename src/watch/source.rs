//! What a snapshot loop polls: a trait, and its implementation over a REST API.
//!
//! [`RestSnapshotSource::read`] reads a list (`list`) or one resource (`object`); the
//! resource may have to be found first (`find`) or be read elsewhere (`fallback`).

#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tonic::Code;

use super::poll_target::{PollTarget, repeatable};
use super::read_history::ReadHistory;
use super::snapshot::Item;
use crate::deadline::Deadline;
use crate::engine::call_context::StreamContext;
use crate::engine::unary;
use crate::error::Error;
use crate::memory::{Memory, Reservation};
use crate::upstream::Upstream;
use drawbridge_transcoder::api::drawbridge::v1::WatchEvent;
use drawbridge_transcoder::call::Call;
use drawbridge_transcoder::contract::{Method, Watch};

/// The longest time of one poll, including its refreshes and side reads.
pub(super) const POLL_TIMEOUT: Duration = Duration::from_secs(30);

/// A read in progress.
pub(super) type ReadFuture<'a> =
    Pin<Box<dyn Future<Output = Result<SnapshotRead, Error>> + Send + 'a>>;

/// The result of one read.
#[derive(Debug)]
pub(super) enum SnapshotRead {
    /// The items of a list, or the one resource.
    Items(Vec<Item>),
    /// The resource was not found, or not read completely, which is not a failure yet.
    NotFound,
    /// The resource was deleted, as expected. The watch sends this item last.
    Deleted(Item),
}

/// What a snapshot loop polls.
pub(super) trait SnapshotSource: Send + Sync + 'static {
    /// Returns how to poll.
    fn rules(&self) -> PollRules;
    /// Returns the upstream; none in tests.
    fn upstream(&self) -> Option<&Arc<Upstream>> {
        None
    }
    /// Reads once. For a single resource the result has exactly one item.
    fn read(&self) -> ReadFuture<'_>;
    /// Returns the longest `Retry-After` of the successful reads since the last call.
    fn take_retry_after(&self) -> Duration;
    /// Encodes a message of the stream.
    fn message(&self, event: &WatchEvent, item: Option<&Item>) -> Bytes;
    /// Whether two items with different bytes have equal contents.
    fn is_equivalent(&self, old: &Item, new: &Item) -> bool;
    /// Returns the text of the item's state, if it has one.
    fn state_text(&self, item: &Item) -> Option<String>;
    /// Whether a watch with `follow` continues after this final item.
    fn continues_after(&self, item: &Item) -> bool;
    /// Returns what snapshots draw from.
    fn memory(&self) -> Memory;
}

/// How a source is polled; from `drawbridge.v1.Watch`.
#[derive(Clone, Copy, Debug)]
pub(super) struct PollRules {
    pub(super) list: bool,
    pub(super) initial_interval: Duration,
    pub(super) max_interval: Duration,
    /// NOT_FOUND ends the watch with OK.
    pub(super) not_found_succeeds: bool,
    /// The watch began with a call: failures before the first read are tolerated.
    pub(super) started_by_call: bool,
}

/// Whether the upstream reports that the resource does not exist. An error body in a
/// success is not such a report: it may be of a proxy or a server that is starting. Nor is a path
/// that does not exist.
pub(super) fn is_not_found(error: &Error) -> bool {
    matches!(error, Error::Upstream(fault)
        if fault.code == Code::NotFound && !fault.is_unrelated && !error.is_wrong_success())
}

/// Polls a REST API for one watch request.
pub(super) struct RestSnapshotSource {
    pub(super) method: Arc<Method>,
    /// The request of the watch.
    pub(super) request: Bytes,
    pub(super) context: StreamContext,
    pub(super) max_items: usize,
    pub(super) target: Mutex<PollTarget>,
    /// What earlier reads have found. Reads never overlap.
    pub(super) history: Mutex<ReadHistory>,
    /// The memory of the calls.
    reservation: Reservation,
}

impl fmt::Debug for RestSnapshotSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RestSnapshotSource")
            .field("method", &self.method.path)
            .field("upstream", &self.context.upstream.settings.name)
            .finish_non_exhaustive()
    }
}

impl RestSnapshotSource {
    pub(super) fn target(&self) -> PollTarget {
        self.target
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn set_target(&self, target: PollTarget) {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = target;
    }

    /// Returns none if the method is not a watch.
    pub(super) fn new(
        method: &Arc<Method>,
        request: Bytes,
        target: PollTarget,
        context: StreamContext,
        max_items: usize,
    ) -> Option<Self> {
        method.watch.as_ref()?;
        Some(Self {
            method: Arc::clone(method),
            request,
            context,
            max_items,
            target: Mutex::new(target),
            history: Mutex::default(),
            reservation: Reservation::default(),
        })
    }

    /// Keeps the memory of its calls.
    pub(super) fn with_memory(mut self, reservation: Reservation) -> Self {
        self.reservation = reservation;
        self
    }

    #[expect(clippy::expect_used, reason = "checked by `new`")]
    pub(super) fn watch(&self) -> &Watch {
        self.method.watch.as_ref().expect("checked by `new`")
    }

    pub(super) fn history(&self) -> MutexGuard<'_, ReadHistory> {
        // No panic leaves it inconsistent.
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SnapshotSource for RestSnapshotSource {
    fn upstream(&self) -> Option<&Arc<Upstream>> {
        Some(&self.context.upstream)
    }

    fn rules(&self) -> PollRules {
        let watch = self.watch();
        PollRules {
            list: watch.list,
            initial_interval: watch.initial_interval,
            max_interval: watch.max_interval,
            not_found_succeeds: watch.not_found_succeeds,
            started_by_call: watch.start.is_some(),
        }
    }

    fn read(&self) -> ReadFuture<'_> {
        if self.watch().list {
            Box::pin(self.read_list())
        } else {
            Box::pin(self.read_object())
        }
    }

    fn take_retry_after(&self) -> Duration {
        self.context.retry_after.take()
    }

    fn message(&self, event: &WatchEvent, item: Option<&Item>) -> Bytes {
        let bytes = item.and_then(|item| item.bytes.as_deref());
        let side = item.map_or(&[][..], |item| &item.side);
        self.watch().message(event, bytes, side)
    }

    fn is_equivalent(&self, old: &Item, new: &Item) -> bool {
        let watch = self.watch();
        let canonical = |item: &Item| watch.canonical(item.bytes.as_deref(), &item.side);
        canonical(old) == canonical(new)
    }

    fn state_text(&self, item: &Item) -> Option<String> {
        self.watch().state_text(item.bytes.as_deref()?)
    }

    fn continues_after(&self, item: &Item) -> bool {
        let watch = self.watch();
        let item = item.bytes.as_deref();
        item.is_none_or(|item| watch.follows_after(item))
    }

    fn memory(&self) -> Memory {
        self.context.client.memory.clone()
    }
}

impl StreamContext {
    /// Whether the upstream's dialect has the operation.
    pub(super) fn offers(&self, rpc: &Method) -> bool {
        rpc.is_in(&self.upstream.settings.dialect)
    }

    /// Binds a request of another rpc. Returns none if the request cannot be bound, or the
    /// dialect does not have the operation.
    pub(super) fn bind(&self, rpc: &Method, request: &[u8]) -> Option<Call> {
        let call = rpc.bind(request, &self.upstream.settings.dialect).ok()?;
        self.offers(rpc).then(|| repeatable(call))
    }

    /// Makes a call and returns the response message of `method`, all pages of it.
    pub(super) async fn fetch(
        &self,
        method: &Method,
        call: &Call,
        deadline: Deadline,
    ) -> Result<Bytes, Error> {
        let context = self.until(deadline);
        let reply = context.call(method, call).await?;
        let first = context
            .decode(method, (&call.verb, call.effect()), &reply)
            .await?;
        let whole = unary::merge_pages(context, method, call, first);
        Ok(whole.await?.message)
    }
}
