//! What is polled: it may have to be found first, and may be replaced.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;

use super::source::{RestSource, is_not_found, repeatable};
use crate::deadline::Deadline;
use crate::engine::call_context::StreamContext;
use crate::error::Error;
use drawbridge_transcoder::call::Call;
use drawbridge_transcoder::contract::{Find, Watch};

/// So many polls may find nothing before what a call has started is there.
const MAY_BE_MISSING: u32 = 3;

/// What is polled.
#[derive(Clone)]
pub(in crate::watch) enum Aim {
    /// The watched thing.
    Poll(Arc<Target>),
    /// The list in which it is to appear.
    Find(Box<Call>),
    /// What is looked at in its place.
    Instead(Arc<Instead>),
}

/// Calls that read the watched thing.
pub(in crate::watch) struct Target {
    /// The poll's request.
    pub request: Vec<u8>,
    /// Reads all of it.
    pub full: Call,
    /// Reads what is needed until it has settled.
    pub light: Option<Call>,
}

/// A fallback in use.
pub(in crate::watch) struct Instead {
    pub call: Call,
    /// The poll's request.
    pub request: Vec<u8>,
    /// What the poll has said.
    pub cause: Error,
}

impl Target {
    /// The target of a poll's request; `full` is its call, where that is bound
    /// already.
    pub(in crate::watch) fn new(
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

impl Aim {
    pub(in crate::watch) fn poll(target: Target) -> Self {
        Self::Poll(Arc::new(target))
    }

    /// What the response of a started call leads to; none when it names nothing.
    pub(in crate::watch) fn of_started(
        watch: &Watch,
        request: &[u8],
        started: &[u8],
        context: &StreamContext,
    ) -> Result<Option<Self>, Error> {
        let Some(start) = &watch.start else {
            return Ok(None);
        };
        if let Some(poll) = start.poll_request(request, started) {
            return found(watch, poll, context).map(|target| Some(Self::Poll(target)));
        }
        let find = start.find.as_ref();
        let list = find.and_then(|find| Some((find, find.request(request, started)?)));
        Ok(list.and_then(|(find, list)| {
            context
                .bind(&find.rpc, &list)
                .map(|call| Self::Find(Box::new(call)))
        }))
    }

    /// The call that is made next.
    pub(in crate::watch) fn call(&self) -> &Call {
        match self {
            Self::Poll(target) => &target.full,
            Self::Find(call) => call,
            Self::Instead(instead) => &instead.call,
        }
    }
}

/// The target of a request that an answer has named.
fn found(watch: &Watch, poll: Vec<u8>, context: &StreamContext) -> Result<Arc<Target>, Error> {
    Target::new(watch, poll, None, &context.upstream.settings.dialect)
        .map(Arc::new)
        .map_err(|error| {
            Error::decode("", format!("it names nothing that can be watched: {error}"))
        })
}

impl RestSource {
    pub(super) fn aim(&self) -> Aim {
        self.aim
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn aim_at(&self, aim: Aim) {
        *self.aim.lock().unwrap_or_else(PoisonError::into_inner) = aim;
    }

    /// What is to be polled, found out if need be; none when it is not there yet.
    pub(super) async fn target(&self, by: Deadline) -> Result<Option<Arc<Target>>, Error> {
        let call = match self.aim() {
            Aim::Poll(target) => return Ok(Some(target)),
            Aim::Find(call) => call,
            Aim::Instead(_) => return Ok(None),
        };
        let watch = self.watch();
        let Some(find) = watch.start.as_ref().and_then(|start| start.find.as_ref()) else {
            return Ok(None);
        };
        self.look(find, &call, by).await
    }

    async fn look(
        &self,
        find: &Find,
        call: &Call,
        by: Deadline,
    ) -> Result<Option<Arc<Target>>, Error> {
        let list: Bytes = match self.context.fetch(&find.rpc, call, by).await {
            Err(error) if is_not_found(&error) && self.may_come() => return Ok(None),
            list => list?,
        };
        let Some(poll) = find.poll_request(&self.request, &list)? else {
            return Ok(None);
        };
        let target = found(self.watch(), poll, &self.context)?;
        self.memory().missing = 0;
        self.aim_at(Aim::Poll(Arc::clone(&target)));
        Ok(Some(target))
    }

    /// Whether what a call has started, and a read did not find, may still come.
    pub(super) fn may_come(&self) -> bool {
        let mut memory = self.memory();
        if self.watch().start.is_none() || memory.seen {
            return false;
        }
        memory.missing += 1;
        memory.missing <= MAY_BE_MISSING
    }
}
