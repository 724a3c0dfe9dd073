//! What is polled, and how what comes is told: a list here, one thing in `one`.

#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tonic::Code;

use super::object::Memory;
use super::poll_target::Aim;
use super::snapshot::Item;
use crate::deadline::Deadline;
use crate::engine::call_context::StreamContext;
use crate::engine::unary;
use crate::error::Error;
use drawbridge_transcoder::api::drawbridge::v1::WatchEvent;
use drawbridge_transcoder::call::{Call, Idempotency};
use drawbridge_transcoder::contract::{Method, Watch};

/// The longest that one poll may take, its refreshes included.
pub(super) const POLL_TIMEOUT: Duration = Duration::from_secs(30);

/// A read that is under way.
pub(super) type Reading<'a> = Pin<Box<dyn Future<Output = Result<Read, Error>> + Send + 'a>>;

/// What one read brings.
#[derive(Debug)]
pub(super) enum Read {
    /// The items of a list, or the one thing.
    Items(Vec<Item>),
    /// It is not there, which is no failure so far.
    Nothing,
    /// It is gone as it should; this is the last to be told.
    Gone(Item),
}

/// What a loop polls.
pub(super) trait Source: Send + Sync + 'static {
    /// How it is to be polled.
    fn rules(&self) -> Rules;
    /// Reads it once. Of a thing watched alone exactly one item comes.
    fn read(&self) -> Reading<'_>;
    /// Encodes a message of the stream.
    fn message(&self, event: &WatchEvent, item: Option<&Item>) -> Bytes;
    /// Whether two items that differ in their bytes say the same.
    fn alike(&self, old: &Item, new: &Item) -> bool;
    /// Whether those who follow go on after this item, which has settled.
    fn goes_on_after(&self, item: &Item) -> bool;
}

/// How a source is polled; from `drawbridge.v1.Watch`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) list: bool,
    pub(super) first_interval: Duration,
    pub(super) max_interval: Duration,
    pub(super) gone_ends_well: bool,
    /// It began with a call: failures before the first good read are borne.
    pub(super) begun: bool,
}

/// Whether the upstream says that there is no such thing.
pub(super) fn is_not_found(error: &Error) -> bool {
    matches!(error, Error::Upstream(fault) if fault.code == Code::NotFound)
}

/// A poll is sent again and again: a watch says that it may be, even where the
/// polled rpc has no `idempotency_level`.
pub(super) fn repeatable(mut call: Call) -> Call {
    if call.idempotency == Idempotency::Unsafe {
        call.idempotency = Idempotency::Idempotent;
    }
    call
}

/// A watch rpc as a caller asked for it.
pub(super) struct RestSource {
    pub(super) method: Arc<Method>,
    /// The watch's own request.
    pub(super) request: Bytes,
    pub(super) context: StreamContext,
    pub(super) max_items: usize,
    /// What is polled now.
    pub(super) aim: Mutex<Aim>,
    /// What the reads so far have left; reads come one after the other.
    pub(super) memory: Mutex<Memory>,
}

impl fmt::Debug for RestSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RestSource")
            .field("method", &self.method.path)
            .field("upstream", &self.context.upstream.settings.name)
            .finish_non_exhaustive()
    }
}

impl RestSource {
    /// None: the method is not a watch.
    pub(super) fn new(
        method: &Arc<Method>,
        request: Bytes,
        aim: Aim,
        context: StreamContext,
        max_items: usize,
    ) -> Option<Self> {
        method.watch.as_ref()?;
        Some(Self {
            method: Arc::clone(method),
            request,
            context,
            max_items,
            aim: Mutex::new(aim),
            memory: Mutex::default(),
        })
    }

    pub(super) fn watch(&self) -> &Watch {
        self.method.watch.as_ref().expect("checked by `new`")
    }

    pub(super) fn memory(&self) -> MutexGuard<'_, Memory> {
        // Nothing is left half done under this lock.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for RestSource {
    fn rules(&self) -> Rules {
        let watch = self.watch();
        Rules {
            list: watch.list,
            first_interval: watch.first_interval,
            max_interval: watch.max_interval,
            gone_ends_well: watch.gone_ends_well,
            begun: watch.start.is_some(),
        }
    }

    fn read(&self) -> Reading<'_> {
        if self.watch().list {
            Box::pin(self.read_list())
        } else {
            Box::pin(self.read_one())
        }
    }

    fn message(&self, event: &WatchEvent, item: Option<&Item>) -> Bytes {
        let bytes = item.and_then(|item| item.bytes.as_deref());
        let beside = item.map_or(&[][..], |item| &item.beside);
        self.watch().message(event, bytes, beside)
    }

    fn alike(&self, old: &Item, new: &Item) -> bool {
        let watch = self.watch();
        let told = |item: &Item| watch.canonical(item.bytes.as_deref(), &item.beside);
        told(old) == told(new)
    }

    fn goes_on_after(&self, item: &Item) -> bool {
        let watch = self.watch();
        let item = item.bytes.as_deref();
        item.is_none_or(|item| watch.goes_on_after(item))
    }
}

impl StreamContext {
    /// Whether the upstream's dialect has the operation.
    pub(super) fn offers(&self, rpc: &Method) -> bool {
        rpc.is_in(&self.upstream.settings.dialect)
    }

    /// The call of a further rpc; none where it cannot be made of this request.
    pub(super) fn bind(&self, rpc: &Method, request: &[u8]) -> Option<Call> {
        let call = rpc.bind(request, &self.upstream.settings.dialect).ok()?;
        self.offers(rpc).then(|| repeatable(call))
    }

    /// One call from end to end: the response message of `method`.
    pub(super) async fn fetch(
        &self,
        method: &Method,
        call: &Call,
        deadline: Deadline,
    ) -> Result<Bytes, Error> {
        let context = self.until(deadline);
        let reply = context.call(method, call).await?;
        let first = method.decode(&reply)?;
        let whole = unary::whole(context, method, call, first);
        Ok(whole.await?.message)
    }
}
