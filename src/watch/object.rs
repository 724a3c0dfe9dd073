//! Reads one resource: light reads, debounced final states, side reads.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::poll_target::{ListCall, PollTarget, ResourceCalls, repeatable};
use super::read_history::Debounce;
use super::snapshot::Item;
use super::source::{POLL_TIMEOUT, RestSnapshotSource, SnapshotRead, SnapshotSource, is_not_found};
use crate::deadline::Deadline;
use crate::engine::pager::{OnRepeat, Pager, TokenCursor};
use crate::error::Error;
use crate::http_client::not_delivered;
use drawbridge_transcoder::contract::{Method, Outcome, SideRead};

/// How much of [`POLL_TIMEOUT`] is reserved for side reads.
const SIDE_READS_TIMEOUT: Duration = Duration::from_secs(10);

/// The memory of an item of a side read while its part of the message is made.
const SIDE_ITEM_BYTES: usize = 48;

/// How many polls in a row may fail once a resource is final, before its state is sent
/// without the full read.
const MAX_FAILED_FULL_READS: u32 = 4;

/// The resource as one poll has read it.
struct ItemRead {
    item: Bytes,
    outcome: Outcome,
    poll_soon: bool,
    incomplete: bool,
}

impl ItemRead {
    fn new(item: Bytes, outcome: Outcome, poll_soon: bool) -> Self {
        Self {
            item,
            outcome,
            poll_soon,
            incomplete: false,
        }
    }
}

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
        let read = match self.read_item(&calls, item_deadline).await {
            Err(error) if is_not_found(&error) => {
                return self.handle_not_found(error, &calls, deadline).await;
            }
            read => read?,
        };
        let Some(ItemRead {
            item,
            outcome,
            poll_soon,
            incomplete,
        }) = read
        else {
            return Ok(SnapshotRead::NotFound);
        };
        let side = self.side_reads(&item, outcome, &calls, deadline).await?;
        let mut history = self.history();
        history.was_read = true;
        history.misses = 0;
        history.item = Some(item.clone());
        history.known_final = None;
        Ok(SnapshotRead::Items(vec![Item {
            key: "".into(),
            bytes: Some(item),
            side,
            outcome,
            poll_soon,
            incomplete,
        }]))
    }

    /// Reads the resource. Returns none while its final state is known but further reads
    /// fail.
    async fn read_item(
        &self,
        calls: &ResourceCalls,
        deadline: Deadline,
    ) -> Result<Option<ItemRead>, Error> {
        let watch = self.watch();
        let call = calls.light.as_ref().unwrap_or(&calls.full);
        let response = self.context.fetch(&watch.poll, call, deadline);
        let light = match response.await.and_then(|light| self.single_item(light)) {
            Err(error) if !is_not_found(&error) => {
                let known = self.history().known_final.clone();
                let (light, outcome) = known.ok_or_else(|| error.clone())?;
                return Ok(self.without_full_read(light, outcome, &error));
            }
            light => light?,
        };
        let (outcome, poll_soon) = self.outcome(&light);
        if calls.light.is_none() || outcome == Outcome::Pending {
            let mut history = self.history();
            (history.full, history.failed_full_reads) = (None, 0);
            history.known_final = None;
            return Ok(Some(ItemRead::new(light, outcome, poll_soon)));
        }
        let known = {
            let mut history = self.history();
            history.was_read = true;
            history.known_final = Some((light.clone(), outcome));
            history.full.clone()
        };
        let full = match known {
            Some((before, full)) if before == light => full,
            _ => {
                let response = self.context.fetch(&watch.poll, &calls.full, deadline);
                let full = response.await.and_then(|full| self.single_item(full));
                match full {
                    Err(error) if !is_not_found(&error) => {
                        return Ok(self.without_full_read(light, outcome, &error));
                    }
                    full => full?,
                }
            }
        };
        self.history().failed_full_reads = 0;
        if watch.state_text(&full) == watch.state_text(&light) {
            self.history().full = Some((light, full.clone()));
            return Ok(Some(ItemRead::new(full, outcome, false)));
        }
        // The state has changed between the light and the full read.
        self.history().debounce = None;
        Ok(Some(ItemRead::new(full, Outcome::Pending, true)))
    }

    /// Returns the final state without the fields of the full read, once
    /// [`MAX_FAILED_FULL_READS`] polls in a row have failed: the state is known, and it must
    /// not be lost because it, or further fields, cannot be read again.
    fn without_full_read(&self, light: Bytes, outcome: Outcome, error: &Error) -> Option<ItemRead> {
        let failed = {
            let mut history = self.history();
            (history.was_read, history.misses) = (true, 0);
            history.failed_full_reads = history.failed_full_reads.saturating_add(1);
            history.failed_full_reads
        };
        tracing::debug!(
            operation = &self.watch().poll.path[1..],
            upstream = &*self.context.upstream.settings.name,
            reason = error.log_text(),
            "the final read of a watch has failed"
        );
        (failed >= MAX_FAILED_FULL_READS).then(|| ItemRead {
            incomplete: true,
            ..ItemRead::new(light, outcome, false)
        })
    }

    /// Returns what a poll has found that got NOT_FOUND after a final state that is not sent
    /// yet: nothing once, then that state. Returns none if there is no such state, or if
    /// NOT_FOUND is what follows it.
    pub(super) fn final_before_not_found(&self) -> Option<SnapshotRead> {
        let mut history = self.history();
        let (light, outcome) = history.known_final.clone()?;
        if self.watch().is_deleting(&light) {
            return None;
        }
        (history.misses, history.debounce) = (history.misses + 1, None);
        if history.misses == 1 {
            return Some(SnapshotRead::NotFound);
        }
        history.known_final = None;
        history.item = Some(light.clone());
        Some(SnapshotRead::Items(vec![Item {
            key: "".into(),
            side: history.side_parts.concat().into(),
            outcome,
            poll_soon: false,
            incomplete: true,
            bytes: Some(light),
        }]))
    }

    fn single_item(&self, response: Bytes) -> Result<Bytes, Error> {
        let mut items = self.watch().items(&response)?;
        items
            .pop()
            .ok_or_else(|| Error::not_the_resource("the watched resource is missing"))
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
    ) -> Result<Bytes, Error> {
        let watch = self.watch();
        if watch.side_reads.is_empty() {
            return Ok(Bytes::new());
        }
        let mut parts = {
            let history = self.history();
            let is_unchanged = history.item.as_ref() == Some(item);
            let is_complete = history.side_parts.len() == watch.side_reads.len();
            if outcome != Outcome::Pending && is_unchanged && is_complete {
                return self.concatenated(&history.side_parts);
            }
            history.side_parts.clone()
        };
        parts.resize(watch.side_reads.len(), Bytes::new());
        for (side, part) in watch.side_reads.iter().zip(&mut parts) {
            let last = std::mem::take(part);
            *part = self.side_read(side, item, calls, last, deadline).await;
        }
        let concatenated = self.concatenated(&parts);
        self.history().side_parts = parts;
        concatenated
    }

    /// Concatenates the parts of a message.
    fn concatenated(&self, parts: &[Bytes]) -> Result<Bytes, Error> {
        let length = parts.iter().map(Bytes::len).sum();
        let reservation = self.memory().reserve_long(length).map_err(not_delivered)?;
        Ok(reservation.attach(parts.concat()))
    }

    /// Encodes the response of a side read as a part of the message; a long one after its turn.
    async fn side_part(
        &self,
        side: &SideRead,
        response: &Bytes,
        deadline: Deadline,
    ) -> Result<Bytes, Error> {
        let memory = self.memory();
        let items = usize::try_from(side.item_count(response)).unwrap_or(usize::MAX);
        let needed = items
            .saturating_mul(SIDE_ITEM_BYTES)
            .saturating_add(response.len());
        let turn = deadline.bound(memory.turn(response.len())).await?;
        let mut reservation = memory.reserve_long(needed).map_err(not_delivered)?;
        let part = turn.run(|| side.stream_fields(response))?;
        reservation.resize_long(part.len()).map_err(not_delivered)?;
        Ok(reservation.attach(part))
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
            let request = request.into();
            Some(ListCall { request, call })
        });
        let Some(list) = bound else {
            return Bytes::new();
        };
        let response = self.fetch_list(&side.rpc, &list, deadline).await;
        let part = match response {
            Ok(response) => self.side_part(side, &response, deadline).await,
            Err(error) => Err(error),
        };
        match part {
            Ok(part) => part,
            Err(error) => {
                tracing::debug!(
                    operation = &side.rpc.path[1..],
                    upstream = &*self.context.upstream.settings.name,
                    reason = error.log_text(),
                    "a side read of a watch has failed"
                );
                match error.is_tolerated_in_watch() {
                    true => last,
                    false => Bytes::new(),
                }
            }
        }
    }

    /// Returns the response of a side read, a fallback or `find`, with all pages of its list.
    pub(super) async fn fetch_list(
        &self,
        rpc: &Arc<Method>,
        list: &ListCall,
        deadline: Deadline,
    ) -> Result<Bytes, Error> {
        if rpc.paging.is_none() {
            return self.context.fetch(rpc, &list.call, deadline).await;
        }
        let cursor = TokenCursor::new(Arc::clone(rpc), list.request.clone())?;
        let cursor = cursor.with_prepare(repeatable);
        let mut pager = Pager::new(cursor, OnRepeat::End);
        let mut merged = Vec::new();
        let mut reservation = self.memory().empty();
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
            // Messages are merged by concatenating their bytes. The buffer may grow to twice
            // the length, and is copied then.
            let length = merged.len() + page.message.len();
            reservation.resize_long(3 * length).map_err(not_delivered)?;
            merged.extend_from_slice(&page.message);
        }
        merged.shrink_to_fit();
        reservation
            .resize_long(merged.len())
            .map_err(not_delivered)?;
        Ok(reservation.attach(merged))
    }
}
