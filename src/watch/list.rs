//! Reads of a list.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::snapshot::Item;
use super::source::{POLL_TIMEOUT, Read, RestSource, is_not_found, repeatable};
use crate::deadline::Deadline;
use crate::error::Error;
use drawbridge_transcoder::contract::{Method, Outcome};

/// Items of a list that are refreshed at once.
pub(super) const REFRESHES_AT_ONCE: usize = 8;

impl RestSource {
    pub(super) async fn read_list(&self) -> Result<Read, Error> {
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
                read.map_err(|_| Error::NoAnswer("a refresh was broken off".to_owned()))?;
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
