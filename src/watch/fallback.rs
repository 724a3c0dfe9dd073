//! Reads by the `fallback` option, when the poll does not find the resource.

use std::sync::Arc;

use bytes::Bytes;
use tonic::Code;

use super::poll_target::{FallbackCall, ListCall, PollTarget, ResourceCalls};
use super::snapshot::Item;
use super::source::{RestSnapshotSource, SnapshotRead, is_not_found};
use crate::deadline::Deadline;
use crate::error::Error;
use drawbridge_transcoder::contract::{Fallback, Found, Outcome};

/// How many consecutive reads may describe another resource before the fallback has described
/// the watched one.
const MAX_MISMATCHES: u32 = 10;

impl RestSnapshotSource {
    /// Handles NOT_FOUND of the poll: the resource may appear later, be described by the
    /// fallback, or be deleted as expected.
    pub(super) async fn handle_not_found(
        &self,
        error: Error,
        calls: &ResourceCalls,
        deadline: Deadline,
    ) -> Result<SnapshotRead, Error> {
        if let Some(read) = self.final_before_not_found() {
            return Ok(read);
        }
        let watch = self.watch();
        let may_still_appear = self.may_still_appear();
        let (misses, last, side) = {
            let mut history = self.history();
            if watch.start.is_none() || history.was_read {
                history.misses += 1;
            }
            history.debounce = None;
            let side = Bytes::from(history.side_parts.concat());
            let known_final = history.known_final.as_ref().map(|(item, _)| item);
            let last = history.item.as_ref().or(known_final).cloned();
            (history.misses, last, side)
        };
        if let Some(fallback) = &watch.fallback {
            let known = last.as_deref().unwrap_or_default();
            let request = fallback.request(known, &calls.request, &self.request);
            let list = request.and_then(|request| {
                let call = self.context.bind(&fallback.rpc, &request)?;
                let request = request.into();
                Some(ListCall { request, call })
            });
            if let Some(list) = list {
                if misses < fallback.after {
                    return Ok(SnapshotRead::NotFound);
                }
                let call = Arc::new(FallbackCall {
                    list,
                    request: calls.request.clone(),
                    cause: error,
                });
                return self.read_fallback(fallback, call, deadline).await;
            }
        }
        match last {
            Some(item) if watch.is_deleting(&item) => Ok(deleted(Some(item), side)),
            Some(item) if misses > 1 && watch.not_found_succeeds => Ok(deleted(Some(item), side)),
            None if watch.start.is_some() && watch.not_found_succeeds => {
                Ok(deleted(None, Bytes::new()))
            }
            None if may_still_appear => Ok(SnapshotRead::NotFound),
            _ => Err(error),
        }
    }

    /// Reads the rpc of the fallback.
    pub(super) async fn read_fallback(
        &self,
        fallback: &Fallback,
        call: Arc<FallbackCall>,
        deadline: Deadline,
    ) -> Result<SnapshotRead, Error> {
        let watch = self.watch();
        let response = self.fetch_list(&fallback.rpc, &call.list, deadline);
        let found = match response.await {
            Ok(response) => fallback.found(&response, &call.request)?,
            Err(error) if is_not_found(&error) => None,
            Err(error) => return Err(error),
        };
        let Some(found) = found else {
            let mut history = self.history();
            history.fallback_misses += 1;
            let (part, item) = (history.fallback_part.clone(), history.item.clone());
            // The first read may come from an older replica; the loop reads again.
            let is_confirmed = part.is_none() || history.fallback_misses > 1;
            let existed = part.is_some() || watch.start.is_some();
            if history.is_deleting || (fallback.not_found_succeeds && existed && is_confirmed) {
                return Ok(deleted(None, part.unwrap_or_default()));
            }
            let is_confirmed = history.misses > 1;
            return match item {
                Some(item)
                    if watch.is_deleting(&item) || is_confirmed && watch.not_found_succeeds =>
                {
                    Ok(deleted(Some(item), history.side_parts.concat().into()))
                }
                _ => Err(call.cause.clone()),
            };
        };
        let part = fallback.stream_fields(&found.item);
        if fallback.is_final {
            return Ok(SnapshotRead::Deleted(Item {
                outcome: found.outcome,
                ..last_item(None, part)
            }));
        }
        let outcome = self.fallback_outcome(&found, &call)?;
        {
            let mut history = self.history();
            history.fallback_part = Some(part.clone());
            history.is_deleting = found.not_found_succeeds;
            history.fallback_misses = 0;
            history.was_read = true;
        }
        self.set_target(PollTarget::Fallback(call));
        Ok(SnapshotRead::Items(vec![Item {
            key: "".into(),
            bytes: None,
            side: part,
            outcome,
            poll_soon: !found.matches,
            incomplete: false,
        }]))
    }

    /// Returns the outcome that the fallback reports. Fails with ABORTED once it describes
    /// something else than the watched resource.
    fn fallback_outcome(&self, found: &Found, call: &FallbackCall) -> Result<Outcome, Error> {
        let mut history = self.history();
        if found.matches {
            (history.has_matched, history.mismatches) = (true, 0);
            return Ok(found.outcome);
        }
        history.mismatches += 1;
        if !history.has_matched && history.mismatches < MAX_MISMATCHES {
            return Ok(Outcome::Pending);
        }
        Err(match call.cause.clone() {
            Error::Upstream(mut fault) => {
                fault.code = Code::Aborted;
                fault.reason = "REPLACED".into();
                fault.message = "the watched resource was replaced by another one".into();
                Error::Upstream(fault)
            }
            other => other,
        })
    }
}

/// The end of a watch whose resource was deleted as expected.
fn deleted(bytes: Option<Bytes>, side: Bytes) -> SnapshotRead {
    SnapshotRead::Deleted(last_item(bytes, side))
}

fn last_item(bytes: Option<Bytes>, side: Bytes) -> Item {
    Item {
        key: "".into(),
        bytes,
        side,
        outcome: Outcome::Succeeded,
        poll_soon: false,
        incomplete: false,
    }
}
