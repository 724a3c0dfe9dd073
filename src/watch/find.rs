//! Finds the resource that a call has started (`start.find`), before it can be polled.

use std::sync::Arc;

use bytes::Bytes;

use super::poll_target::{ListCall, PollTarget, ResourceCalls, bind_found};
use super::source::{RestSnapshotSource, is_not_found};
use crate::deadline::Deadline;
use crate::error::Error;
use drawbridge_transcoder::contract::Find;

/// How many polls may find nothing before the resource of a started call appears.
const MAX_MISSES_AT_START: u32 = 3;

impl RestSnapshotSource {
    /// Returns the calls of the watched resource, and searches for it if necessary.
    /// Returns none if it has not appeared yet.
    pub(super) async fn resolve_target(
        &self,
        deadline: Deadline,
    ) -> Result<Option<Arc<ResourceCalls>>, Error> {
        let list = match self.target() {
            PollTarget::Resource(calls) => return Ok(Some(calls)),
            PollTarget::Search(list) => list,
            PollTarget::Fallback(_) => return Ok(None),
        };
        let start = self.watch().start.as_ref();
        match start.and_then(|start| start.find.as_ref()) {
            Some(find) => self.search(find, &list, deadline).await,
            None => Ok(None),
        }
    }

    async fn search(
        &self,
        find: &Find,
        list: &ListCall,
        deadline: Deadline,
    ) -> Result<Option<Arc<ResourceCalls>>, Error> {
        let list: Bytes = match self.fetch_list(&find.rpc, list, deadline).await {
            Err(error) if is_not_found(&error) && self.may_still_appear() => return Ok(None),
            list => list?,
        };
        let Some(poll) = find.poll_request(&self.request, &list)? else {
            return Ok(None);
        };
        let calls = bind_found(self.watch(), poll, &self.context)?;
        self.history().misses = 0;
        self.set_target(PollTarget::Resource(Arc::clone(&calls)));
        Ok(Some(calls))
    }

    /// Counts a read that has not found the resource of a started call. Returns whether
    /// the resource may still appear.
    pub(super) fn may_still_appear(&self) -> bool {
        let mut history = self.history();
        if self.watch().start.is_none() || history.was_read {
            return false;
        }
        history.misses += 1;
        history.misses <= MAX_MISSES_AT_START
    }
}
