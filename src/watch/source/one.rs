//! The read of one thing: lightly while it is open, with what is told beside it,
//! and elsewhere when it is not there.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tonic::Code;

use super::aim::{Aim, Instead, Target};
use super::{Item, POLL_TIMEOUT, Read, RestSource, is_not_found, repeatable};
use crate::deadline::Deadline;
use crate::engine::pager::{OnRepeat, Pager, TokenCursor};
use crate::error::Error;
use drawbridge_transcoder::call::Call;
use drawbridge_transcoder::contract::{Fallback, Found, Held, Outcome, SideRead};

/// What is kept of [`POLL_TIMEOUT`] for the reads beside.
const BESIDE: Duration = Duration::from_secs(10);
/// So many reads in a row may find another thing in its place.
const MAY_BE_OTHER: u32 = 10;

/// What reads have left behind.
#[derive(Default)]
pub(super) struct Memory {
    /// There was a good read.
    pub seen: bool,
    /// Reads in a row that found nothing.
    pub missing: u32,
    /// The thing as it was read last.
    item: Option<Bytes>,
    /// The state that is an end only when it lasts.
    lasting: Option<Lasting>,
    /// The last light read that had settled, and all of it as it was read then.
    whole: Option<(Bytes, Bytes)>,
    /// What was told beside last, by side read.
    beside: Vec<Bytes>,
    /// What the fallback told last.
    instead: Option<Bytes>,
    /// After that it is a good end that it finds nothing.
    leaving: bool,
    /// The fallback was about the very thing.
    was_same: bool,
    /// Reads in a row in which it was not.
    other: u32,
}

/// A state that was read again and again.
struct Lasting {
    held: Held,
    since: Instant,
    polls: u32,
}

impl RestSource {
    /// Reads the thing that is watched alone.
    pub(super) async fn read_one(&self) -> Result<Read, Error> {
        let watch = self.watch();
        // Ends a little before the loop gives the read up as a whole.
        let by = Deadline::after(POLL_TIMEOUT - Duration::from_secs(1));
        if let Aim::Instead(instead) = self.aim() {
            return match &watch.fallback {
                Some(fallback) => self.read_instead(fallback, instead, by).await,
                None => Err(instead.cause.clone()),
            };
        }
        let Some(target) = self.target(by).await? else {
            return Ok(Read::Nothing);
        };
        let main_by = if watch.side.is_empty() {
            by
        } else {
            Deadline::after(POLL_TIMEOUT - BESIDE)
        };
        let (item, outcome, restless) = match self.read_item(&target, main_by).await {
            Err(error) if is_not_found(&error) => return self.missing(error, &target, by).await,
            read => read?,
        };
        let beside = self.beside(&item, outcome, &target, by).await;
        let mut memory = self.memory();
        memory.seen = true;
        memory.missing = 0;
        memory.item = Some(item.clone());
        Ok(Read::Items(vec![Item {
            key: "".into(),
            bytes: Some(item),
            beside,
            outcome,
            restless,
        }]))
    }

    /// The thing, its outcome, and whether its state is about to move.
    async fn read_item(
        &self,
        target: &Target,
        by: Deadline,
    ) -> Result<(Bytes, Outcome, bool), Error> {
        let watch = self.watch();
        let call = target.light.as_ref().unwrap_or(&target.full);
        let light = self.only(self.context.fetch(&watch.poll, call, by).await?)?;
        let (outcome, restless) = self.outcome(&light);
        if target.light.is_none() || outcome == Outcome::Pending {
            self.memory().whole = None;
            return Ok((light, outcome, restless));
        }
        let known = self.memory().whole.clone();
        let whole = match known {
            Some((before, whole)) if before == light => whole,
            _ => self.only(self.context.fetch(&watch.poll, &target.full, by).await?)?,
        };
        if watch.state_text(&whole) == watch.state_text(&light) {
            self.memory().whole = Some((light, whole.clone()));
            return Ok((whole, outcome, false));
        }
        // It has moved on between the two.
        self.memory().lasting = None;
        Ok((whole, Outcome::Pending, true))
    }

    fn only(&self, response: Bytes) -> Result<Bytes, Error> {
        let mut items = self.watch().items(&response)?;
        items
            .pop()
            .ok_or_else(|| Error::decode("", "the watched resource is missing"))
    }

    /// Whether the thing has settled, and whether its state is about to move.
    fn outcome(&self, item: &[u8]) -> (Outcome, bool) {
        let watch = self.watch();
        let mut memory = self.memory();
        let Some(held) = watch.held(item) else {
            memory.lasting = None;
            return (watch.outcome(item), false);
        };
        let lasting = match memory.lasting.take() {
            Some(lasting) if lasting.held == held => Lasting {
                polls: lasting.polls.saturating_add(1),
                ..lasting
            },
            _ => Lasting {
                held,
                since: Instant::now(),
                polls: 1,
            },
        };
        let held = &lasting.held;
        let is_over = lasting.since.elapsed() >= held.time && lasting.polls >= held.polls;
        let outcome = held.outcome;
        memory.lasting = Some(lasting);
        if is_over {
            (outcome, false)
        } else {
            (Outcome::Pending, true)
        }
    }

    /// What is told beside the thing.
    async fn beside(&self, item: &Bytes, outcome: Outcome, target: &Target, by: Deadline) -> Bytes {
        let watch = self.watch();
        if watch.side.is_empty() {
            return Bytes::new();
        }
        let mut kept = {
            let memory = self.memory();
            let settled = outcome != Outcome::Pending && memory.item.as_ref() == Some(item);
            if settled && memory.beside.len() == watch.side.len() {
                return memory.beside.concat().into();
            }
            memory.beside.clone()
        };
        kept.resize(watch.side.len(), Bytes::new());
        for (side, kept) in watch.side.iter().zip(&mut kept) {
            *kept = self
                .read_beside(side, item, target, std::mem::take(kept), by)
                .await;
        }
        let told = kept.concat().into();
        self.memory().beside = kept;
        told
    }

    async fn read_beside(
        &self,
        side: &SideRead,
        item: &Bytes,
        target: &Target,
        kept: Bytes,
        by: Deadline,
    ) -> Bytes {
        let watch = self.watch();
        if !side.is_asked(&self.request) || !watch.reads_beside(side, item) {
            return Bytes::new();
        }
        let request = side.request(item, &target.request, &self.request);
        let called = request.and_then(|request| {
            let call = self.context.bind(&side.rpc, &request)?;
            Some((request, call))
        });
        let Some((request, call)) = called else {
            return Bytes::new();
        };
        let response = self.whole_beside(side, &request, &call, by).await;
        match response.and_then(|response| Ok(side.told(&response)?)) {
            Ok(told) => told,
            Err(error) => {
                tracing::debug!(
                    operation = &*side.rpc.path,
                    upstream = &*self.context.upstream.settings.name,
                    reason = error.log_text(),
                    "what is told beside a watched state cannot be read"
                );
                if error.is_transient() {
                    kept
                } else {
                    Bytes::new()
                }
            }
        }
    }

    /// The response of a read beside, with all pages of its list.
    async fn whole_beside(
        &self,
        side: &SideRead,
        request: &[u8],
        call: &Call,
        by: Deadline,
    ) -> Result<Bytes, Error> {
        let rpc = &side.rpc;
        if rpc.paging.is_none() {
            return self.context.fetch(rpc, call, by).await;
        }
        let request = Bytes::copy_from_slice(request);
        let cursor = TokenCursor::new(Arc::clone(rpc), request)?.with_prepare(repeatable);
        let mut pager = Pager::new(cursor, OnRepeat::End);
        let mut whole = Vec::new();
        let mut items = 0;
        while let Some(page) = pager.next(self.context.until(by)).await? {
            items += page.items.len();
            // A list of one page is bounded by its bytes alone.
            if !whole.is_empty() && items > self.max_items {
                let problem = format!(
                    "it has more than {} items (setting `max_items`)",
                    self.max_items
                );
                return Err(Error::decode("", problem));
            }
            // Messages are joined by joining their bytes.
            whole.extend_from_slice(&page.message);
        }
        Ok(whole.into())
    }

    /// The poll has found nothing.
    async fn missing(&self, error: Error, target: &Target, by: Deadline) -> Result<Read, Error> {
        let watch = self.watch();
        let may_come = self.may_come();
        let (missing, last, beside) = {
            let mut memory = self.memory();
            if watch.start.is_none() || memory.seen {
                memory.missing += 1;
            }
            memory.lasting = None;
            let beside = Bytes::from(memory.beside.concat());
            (memory.missing, memory.item.clone(), beside)
        };
        if let Some(fallback) = &watch.fallback {
            let known = last.as_deref().unwrap_or_default();
            let request = fallback.request(known, &target.request, &self.request);
            let call = request.and_then(|request| self.context.bind(&fallback.rpc, &request));
            if let Some(call) = call {
                if missing < fallback.after {
                    return Ok(Read::Nothing);
                }
                let instead = Arc::new(Instead {
                    call,
                    request: target.request.clone(),
                    cause: error,
                });
                return self.read_instead(fallback, instead, by).await;
            }
        }
        match last {
            Some(item) if watch.is_gone_well(&item) => Ok(Read::Gone(last_of(Some(item), beside))),
            None if watch.start.is_some() && watch.gone_ends_well => {
                Ok(Read::Gone(last_of(None, Bytes::new())))
            }
            None if may_come => Ok(Read::Nothing),
            _ => Err(error),
        }
    }

    /// Looks where the thing is when the poll does not find it.
    async fn read_instead(
        &self,
        fallback: &Fallback,
        instead: Arc<Instead>,
        by: Deadline,
    ) -> Result<Read, Error> {
        let watch = self.watch();
        let found = match self.context.fetch(&fallback.rpc, &instead.call, by).await {
            Ok(response) => fallback.found(&response, &instead.request)?,
            Err(error) if is_not_found(&error) => None,
            Err(error) => return Err(error),
        };
        let Some(found) = found else {
            let memory = self.memory();
            let (told, item) = (memory.instead.clone(), memory.item.clone());
            let was_there = told.is_some() || watch.start.is_some();
            if memory.leaving || (fallback.gone_ends_well && was_there) {
                return Ok(Read::Gone(last_of(None, told.unwrap_or_default())));
            }
            return match item {
                Some(item) if watch.is_gone_well(&item) => {
                    let beside = memory.beside.concat().into();
                    Ok(Read::Gone(last_of(Some(item), beside)))
                }
                _ => Err(instead.cause.clone()),
            };
        };
        let told = fallback.told(&found.item);
        if fallback.last {
            return Ok(Read::Gone(Item {
                outcome: found.outcome,
                ..last_of(None, told)
            }));
        }
        let outcome = self.replaced(&found, &instead)?;
        {
            let mut memory = self.memory();
            memory.instead = Some(told.clone());
            memory.leaving = found.leaving;
            memory.seen = true;
        }
        self.aim_at(Aim::Instead(instead));
        Ok(Read::Items(vec![Item {
            key: "".into(),
            bytes: None,
            beside: told,
            outcome,
            restless: !found.same,
        }]))
    }

    /// The outcome of what was found, as long as it is about the watched thing.
    fn replaced(&self, found: &Found, instead: &Instead) -> Result<Outcome, Error> {
        let mut memory = self.memory();
        if found.same {
            (memory.was_same, memory.other) = (true, 0);
            return Ok(found.outcome);
        }
        memory.other += 1;
        if !memory.was_same && memory.other < MAY_BE_OTHER {
            return Ok(Outcome::Pending);
        }
        Err(match instead.cause.clone() {
            Error::Upstream(mut fault) => {
                fault.code = Code::Aborted;
                fault.reason = "REPLACED".into();
                fault.message = "something else has taken the place of what is watched".into();
                Error::Upstream(fault)
            }
            other => other,
        })
    }
}

/// What is told last of a thing that is gone as it should.
fn last_of(bytes: Option<Bytes>, beside: Bytes) -> Item {
    Item {
        key: "".into(),
        bytes,
        beside,
        outcome: Outcome::Succeeded,
        restless: false,
    }
}
