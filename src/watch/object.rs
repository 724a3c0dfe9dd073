//! The read of one thing: lightly while it is open, with what is told beside it,
//! and elsewhere when it is not there.

#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::poll_target::{Aim, Target};
use super::snapshot::Item;
use super::source::{POLL_TIMEOUT, Read, RestSource, is_not_found, repeatable};
use crate::deadline::Deadline;
use crate::error::Error;
use drawbridge_transcoder::call::Call;
use drawbridge_transcoder::contract::{Held, Outcome, SideRead};

/// What is kept of [`POLL_TIMEOUT`] for the reads beside.
const BESIDE: Duration = Duration::from_secs(10);

/// What reads have left behind.
#[derive(Default)]
pub(super) struct Memory {
    /// There was a good read.
    pub(super) seen: bool,
    /// Reads in a row that found nothing.
    pub(super) missing: u32,
    /// The thing as it was read last.
    pub(super) item: Option<Bytes>,
    /// The state that is an end only when it lasts.
    pub(super) lasting: Option<Lasting>,
    /// The last light read that had settled, and all of it as it was read then.
    pub(super) whole: Option<(Bytes, Bytes)>,
    /// What was told beside last, by side read.
    pub(super) beside: Vec<Bytes>,
    /// What the fallback told last.
    pub(super) instead: Option<Bytes>,
    /// After that it is a good end that it finds nothing.
    pub(super) leaving: bool,
    /// The fallback was about the very thing.
    pub(super) was_same: bool,
    /// Reads in a row in which it was not.
    pub(super) other: u32,
}

/// A state that was read again and again.
pub(super) struct Lasting {
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
            .ok_or_else(|| Error::decode("", "what is watched is missing"))
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
        let mut page = self.context.fetch(rpc, call, by).await?;
        let Some(paging) = &rpc.paging else {
            return Ok(page);
        };
        let dialect = &self.context.upstream.settings.dialect;
        let mut asked = paging.asked(request, dialect)?;
        let mut items = paging.items(&page)?;
        let mut whole = page.to_vec();
        while let Some(token) = paging.next(asked, &page)? {
            let request = paging.at(request, &token);
            asked = paging.asked(&request, dialect)?;
            let call = repeatable(rpc.bind(&request, dialect)?);
            page = self.context.fetch(rpc, &call, by).await?;
            let more = paging.items(&page)?;
            // An API that does not page gives the first one for ever.
            if more.is_empty() || items.ends_with(&more) {
                break;
            }
            items.extend(more);
            if items.len() > self.max_items {
                let problem = format!(
                    "it has more than {} items (setting `max_items`)",
                    self.max_items
                );
                return Err(Error::decode("", problem));
            }
            // Messages are joined by joining their bytes.
            whole.extend_from_slice(&page);
        }
        Ok(whole.into())
    }
}
