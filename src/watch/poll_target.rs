//! What a watch polls: it may have to be found first, and may be replaced by the fallback.

use std::sync::Arc;

use bytes::Bytes;

use crate::engine::call_context::StreamContext;
use crate::error::Error;
use crate::memory::{Memory, Reservation};
use drawbridge_transcoder::call::{Call, Idempotency};
use drawbridge_transcoder::contract::Watch;

/// What the next read calls.
#[derive(Clone)]
pub(super) enum PollTarget {
    /// The list in which the resource is to appear. `Resource` comes next.
    Search(Box<ListCall>),
    /// The watched resource. `Fallback` may come next.
    Resource(Arc<ResourceCalls>),
    /// The rpc of the `fallback` option, from now on.
    Fallback(Arc<FallbackCall>),
}

/// A call that may read a list in pages.
#[derive(Clone)]
pub(super) struct ListCall {
    /// The request, from which those of further pages are made.
    pub request: Bytes,
    pub call: Call,
}

/// The calls that read the watched resource.
pub(super) struct ResourceCalls {
    /// The request of the polled rpc.
    pub request: Vec<u8>,
    /// Reads the complete resource.
    pub full: Call,
    /// Reads only what is needed before the resource is final.
    pub light: Option<Call>,
}

/// The call of a fallback.
pub(super) struct FallbackCall {
    pub list: ListCall,
    /// The request of the polled rpc.
    pub request: Vec<u8>,
    /// The error of the poll.
    pub cause: Error,
}

impl ResourceCalls {
    /// Binds a request of the polled rpc; `full` is its call if that is bound already.
    pub(super) fn new(
        watch: &Watch,
        request: Vec<u8>,
        full: Option<Call>,
        dialect: &str,
    ) -> Result<Self, Error> {
        let full = match full {
            Some(call) => call,
            None => watch.poll.bind(&request, dialect)?,
        };
        let light = watch
            .light_request(&request)
            .map(|light| watch.poll.bind(&light, dialect))
            .transpose()?;
        Ok(Self {
            request,
            full: repeatable(full),
            light: light.map(repeatable),
        })
    }
}

impl ResourceCalls {
    /// Reserves the memory of the calls, and of the key of their poll loop.
    pub(super) fn reserve(&self, memory: &Memory) -> Result<Reservation, Error> {
        let calls = std::iter::once(&self.full).chain(&self.light);
        let urls: usize = calls.map(|call| call.path.len() + call.query.len()).sum();
        Ok(memory.reserve_long(self.request.len() + 2 * urls)?)
    }
}

impl PollTarget {
    pub(super) fn resource(calls: ResourceCalls) -> Self {
        Self::Resource(Arc::new(calls))
    }

    /// Reads the target from the response of a started call. Returns none if the response
    /// names no resource.
    pub(super) fn of_started(
        watch: &Watch,
        request: &[u8],
        started: &[u8],
        context: &StreamContext,
    ) -> Result<Option<Self>, Error> {
        let Some(start) = &watch.start else {
            return Ok(None);
        };
        if let Some(poll) = start.poll_request(request, started) {
            return bind_found(watch, poll, context).map(|calls| Some(Self::Resource(calls)));
        }
        let find = start.find.as_ref();
        let list = find.and_then(|find| Some((find, find.request(request, started)?)));
        Ok(list.and_then(|(find, list)| {
            context
                .bind(&find.rpc, &list)
                .map(|call| ListCall {
                    request: list.into(),
                    call,
                })
                .map(|list| Self::Search(Box::new(list)))
        }))
    }

    /// Returns the call of the next read.
    pub(super) fn call(&self) -> &Call {
        match self {
            Self::Search(list) => &list.call,
            Self::Resource(calls) => &calls.full,
            Self::Fallback(fallback) => &fallback.list.call,
        }
    }
}

/// Binds a request of the polled rpc that was read from a response.
pub(super) fn bind_found(
    watch: &Watch,
    poll: Vec<u8>,
    context: &StreamContext,
) -> Result<Arc<ResourceCalls>, Error> {
    ResourceCalls::new(watch, poll, None, context.dialect())
        .map(Arc::new)
        .map_err(|error| {
            Error::decode(
                "",
                format!("it names no resource that can be watched: {error}"),
            )
        })
}

/// Marks a poll as idempotent where the polled rpc has no `idempotency_level`: the `watch`
/// option implies it. An explicit IDEMPOTENCY_UNKNOWN is never retried.
pub(super) fn repeatable(mut call: Call) -> Call {
    if call.idempotency == Idempotency::NonIdempotent && !call.declares_idempotency {
        call.idempotency = Idempotency::Idempotent;
    }
    call
}
