//! What is polled, and how what comes is told: a list here, one thing in `one`.

mod aim;
#[cfg(test)]
mod following;
mod one;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;
use tonic::Code;

use super::snapshot::Item;
use crate::deadline::Deadline;
use crate::engine::call_context::StreamContext;
use crate::engine::unary;
use crate::error::Error;
pub(super) use aim::{Aim, Target};
use drawbridge_transcoder::api::drawbridge::v1::WatchEvent;
use drawbridge_transcoder::call::{Call, Idempotency};
use drawbridge_transcoder::contract::{Method, Outcome, Watch};
use one::Memory;

/// The longest that one poll may take, its refreshes included.
pub(super) const POLL_TIMEOUT: Duration = Duration::from_secs(30);
/// Items of a list that are refreshed at once.
const REFRESHES_AT_ONCE: usize = 8;

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
    if call.idempotency == Idempotency::NonIdempotent {
        call.idempotency = Idempotency::Idempotent;
    }
    call
}

/// A watch rpc as a caller asked for it.
pub(super) struct RestSource {
    method: Arc<Method>,
    /// The watch's own request.
    request: Bytes,
    context: StreamContext,
    max_items: usize,
    /// What is polled now.
    aim: Mutex<Aim>,
    /// What the reads so far have left; reads come one after the other.
    memory: Mutex<Memory>,
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

    #[expect(clippy::expect_used, reason = "checked by `new`")]
    fn watch(&self) -> &Watch {
        self.method.watch.as_ref().expect("checked by `new`")
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Nothing is left half done under this lock.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read_list(&self) -> Result<Read, Error> {
        let watch = self.watch();
        let deadline = Deadline::after(POLL_TIMEOUT);
        let Some(target) = self.target(deadline).await? else {
            return Ok(Read::Nothing);
        };
        let call = &target.full;
        let response = match self.context.fetch(&watch.poll, call, deadline).await {
            Err(error) if is_not_found(&error) && self.may_come() => return Ok(Read::Nothing),
            response => response?,
        };
        self.memory().seen = true;
        let found = watch.items(&response)?;
        if found.len() > self.max_items {
            return Err(Error::decode(
                "",
                format!(
                    "it has {} items, and a watch takes at most {} (setting `max_items`)",
                    found.len(),
                    self.max_items
                ),
            ));
        }
        let items = found
            .into_iter()
            .map(|bytes| {
                Ok(Item {
                    key: watch.key(&bytes)?,
                    outcome: watch.outcome(&bytes),
                    bytes: Some(bytes),
                    beside: Bytes::new(),
                    restless: false,
                })
            })
            .collect::<Result<Vec<_>, Error>>()?;
        match &watch.refresh {
            Some(refresh) if self.context.offers(refresh) => self
                .refresh(refresh, items, deadline)
                .await
                .map(Read::Items),
            _ => Ok(Read::Items(items)),
        }
    }

    /// Reads by key each item that has not settled: some upstreams move a
    /// state on only then. An item not found is gone.
    async fn refresh(
        &self,
        refresh: &Arc<Method>,
        items: Vec<Item>,
        deadline: Deadline,
    ) -> Result<Vec<Item>, Error> {
        let watch = self.watch();
        let dialect = &self.context.upstream.settings.dialect;
        let mut open = Vec::new();
        for (at, item) in items.iter().enumerate() {
            if item.outcome == Outcome::Pending {
                let call = watch.refresh_call(&self.request, &item.key, dialect)?;
                open.push((at, repeatable(call)));
            }
        }
        let mut open = open.into_iter();
        let mut items: Vec<_> = items.into_iter().map(Some).collect();
        let mut reads = JoinSet::new();
        loop {
            while reads.len() < REFRESHES_AT_ONCE
                && let Some((at, call)) = open.next()
            {
                let (context, refresh) = (self.context.clone(), Arc::clone(refresh));
                reads.spawn(async move { (at, context.fetch(&refresh, &call, deadline).await) });
            }
            let Some(read) = reads.join_next().await else {
                return Ok(items.into_iter().flatten().collect());
            };
            let (at, response) =
                read.map_err(|_| Error::NoResponse("a refresh was broken off".to_owned()))?;
            match response {
                Ok(response) => {
                    let bytes = watch.refreshed(&response)?;
                    if let Some(item) = &mut items[at] {
                        item.outcome = watch.outcome(&bytes);
                        item.bytes = Some(bytes);
                    }
                }
                Err(error) if is_not_found(&error) => items[at] = None,
                Err(error) => return Err(error),
            }
        }
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
    fn offers(&self, rpc: &Method) -> bool {
        rpc.is_in(&self.upstream.settings.dialect)
    }

    /// The call of a further rpc; none where it cannot be made of this request.
    fn bind(&self, rpc: &Method, request: &[u8]) -> Option<Call> {
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
        let whole = unary::merge_pages(context, method, call, first);
        Ok(whole.await?.message)
    }
}
