//! Reads one resource: light reads, debounced final states, side reads.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::poll_target::{PollTarget, ResourceCalls, repeatable};
use super::read_history::Debounce;
use super::snapshot::Item;
use super::source::{POLL_TIMEOUT, RestSnapshotSource, SnapshotRead, is_not_found};
use crate::deadline::Deadline;
use crate::engine::pager::{OnRepeat, Pager, TokenCursor};
use crate::error::Error;
use drawbridge_transcoder::call::Call;
use drawbridge_transcoder::contract::{Outcome, SideRead};

/// How much of [`POLL_TIMEOUT`] is reserved for side reads.
const SIDE_READS_TIMEOUT: Duration = Duration::from_secs(10);

impl RestSnapshotSource {
    /// Reads the resource and its side reads.
    pub(super) async fn read_object(&self) -> Result<SnapshotRead, Error> {
        let watch = self.watch();
        // A little before the loop cancels the poll.
        let deadline = Deadline::after(POLL_TIMEOUT - Duration::from_secs(1));
        if let PollTarget::Fallback(call) = self.target() {
            return match &watch.fallback {
                Some(fallback) => self.read_fallback(fallback, call, deadline).await,
                None => Err(call.cause.clone()),
            };
        }
        let Some(calls) = self.resolve_target(deadline).await? else {
            return Ok(SnapshotRead::NotFound);
        };
        let item_deadline = if watch.side_reads.is_empty() {
            deadline
        } else {
            Deadline::after(POLL_TIMEOUT - SIDE_READS_TIMEOUT)
        };
        let (item, outcome, poll_soon) = match self.read_item(&calls, item_deadline).await {
            Err(error) if is_not_found(&error) => {
                return self.handle_not_found(error, &calls, deadline).await;
            }
            read => read?,
        };
        let side = self.side_reads(&item, outcome, &calls, deadline).await;
        let mut history = self.history();
        history.was_read = true;
        history.misses = 0;
        history.item = Some(item.clone());
        Ok(SnapshotRead::Items(vec![Item {
            key: "".into(),
            bytes: Some(item),
            side,
            outcome,
            poll_soon,
        }]))
    }

    /// Returns the resource, its outcome, and whether to poll soon again.
    async fn read_item(
        &self,
        calls: &ResourceCalls,
        deadline: Deadline,
    ) -> Result<(Bytes, Outcome, bool), Error> {
        let watch = self.watch();
        let call = calls.light.as_ref().unwrap_or(&calls.full);
        let light = self.single_item(self.context.fetch(&watch.poll, call, deadline).await?)?;
        let (outcome, poll_soon) = self.outcome(&light);
        if calls.light.is_none() || outcome == Outcome::Pending {
            self.history().full = None;
            return Ok((light, outcome, poll_soon));
        }
        let known = self.history().full.clone();
        let full = match known {
            Some((before, full)) if before == light => full,
            _ => {
                let response = self
                    .context
                    .fetch(&watch.poll, &calls.full, deadline)
                    .await?;
                self.single_item(response)?
            }
        };
        if watch.state_text(&full) == watch.state_text(&light) {
            self.history().full = Some((light, full.clone()));
            return Ok((full, outcome, false));
        }
        // The state has changed between the light and the full read.
        self.history().debounce = None;
        Ok((full, Outcome::Pending, true))
    }

    fn single_item(&self, response: Bytes) -> Result<Bytes, Error> {
        let mut items = self.watch().items(&response)?;
        items
            .pop()
            .ok_or_else(|| Error::decode("", "the watched resource is missing"))
    }

    /// Returns the outcome of the resource, and whether to poll soon again.
    fn outcome(&self, item: &[u8]) -> (Outcome, bool) {
        let watch = self.watch();
        let mut history = self.history();
        let Some(rule) = watch.debounce_rule(item) else {
            history.debounce = None;
            return (watch.outcome(item), false);
        };
        let debounce = Debounce::count(history.debounce.take(), rule);
        let debounced = match debounce.is_over() {
            true => (debounce.rule.outcome, false),
            false => (Outcome::Pending, true),
        };
        history.debounce = Some(debounce);
        debounced
    }

    /// Returns the parts of the message that the side reads find.
    async fn side_reads(
        &self,
        item: &Bytes,
        outcome: Outcome,
        calls: &ResourceCalls,
        deadline: Deadline,
    ) -> Bytes {
        let watch = self.watch();
        if watch.side_reads.is_empty() {
            return Bytes::new();
        }
        let mut parts = {
            let history = self.history();
            let is_unchanged = history.item.as_ref() == Some(item);
            let is_complete = history.side_parts.len() == watch.side_reads.len();
            if outcome != Outcome::Pending && is_unchanged && is_complete {
                return history.side_parts.concat().into();
            }
            history.side_parts.clone()
        };
        parts.resize(watch.side_reads.len(), Bytes::new());
        for (side, part) in watch.side_reads.iter().zip(&mut parts) {
            let last = std::mem::take(part);
            *part = self.side_read(side, item, calls, last, deadline).await;
        }
        let concatenated = parts.concat().into();
        self.history().side_parts = parts;
        concatenated
    }

    /// Returns the part of the message that one side read finds. After a transient failure
    /// that is `last`, after any other one it is empty.
    async fn side_read(
        &self,
        side: &SideRead,
        item: &Bytes,
        calls: &ResourceCalls,
        last: Bytes,
        deadline: Deadline,
    ) -> Bytes {
        let watch = self.watch();
        if !side.is_enabled(&self.request) || !watch.makes_side_read(side, item) {
            return Bytes::new();
        }
        let request = side.request(item, &calls.request, &self.request);
        let bound = request.and_then(|request| {
            let call = self.context.bind(&side.rpc, &request)?;
            Some((request, call))
        });
        let Some((request, call)) = bound else {
            return Bytes::new();
        };
        let response = self.fetch_side(side, &request, &call, deadline).await;
        match response.and_then(|response| Ok(side.stream_fields(&response)?)) {
            Ok(part) => part,
            Err(error) => {
                tracing::debug!(
                    operation = &side.rpc.path[1..],
                    upstream = &*self.context.upstream.settings.name,
                    reason = error.log_text(),
                    "a side read of a watch has failed"
                );
                match error.is_transient() || error.is_wrong_success() {
                    true => last,
                    false => Bytes::new(),
                }
            }
        }
    }

    /// Returns the response of a side read, with all pages of its list.
    async fn fetch_side(
        &self,
        side: &SideRead,
        request: &[u8],
        call: &Call,
        deadline: Deadline,
    ) -> Result<Bytes, Error> {
        let rpc = &side.rpc;
        if rpc.paging.is_none() {
            return self.context.fetch(rpc, call, deadline).await;
        }
        let request = Bytes::copy_from_slice(request);
        let cursor = TokenCursor::new(Arc::clone(rpc), request)?.with_prepare(repeatable);
        let mut pager = Pager::new(cursor, OnRepeat::End);
        let mut merged = Vec::new();
        let mut items = 0;
        while let Some(page) = pager.next(self.context.until(deadline)).await? {
            items += page.items.len();
            // A list of one page is bounded by its bytes alone.
            if !merged.is_empty() && items > self.max_items {
                let problem = format!(
                    "the list has more items than the {} of the setting `watch.max_items`",
                    self.max_items
                );
                return Err(Error::decode("", problem));
            }
            // Messages are merged by concatenating their bytes.
            merged.extend_from_slice(&page.message);
        }
        Ok(merged.into())
    }
}
