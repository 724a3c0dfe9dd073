//! Reads of a list.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::poll_target::repeatable;
use super::snapshot::{ITEM_BYTES, Item};
use super::source::{POLL_TIMEOUT, RestSnapshotSource, SnapshotRead, SnapshotSource, is_not_found};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::http_client::not_delivered;
use drawbridge_transcoder::contract::{Method, Outcome};

/// How many items of a list are refreshed concurrently.
pub(super) const REFRESH_CONCURRENCY: usize = 8;

impl RestSnapshotSource {
    /// Reads all items of the list.
    pub(super) async fn read_list(&self) -> Result<SnapshotRead, Error> {
        let watch = self.watch();
        let deadline = Deadline::after(POLL_TIMEOUT);
        let Some(calls) = self.resolve_target(deadline).await? else {
            return Ok(SnapshotRead::NotFound);
        };
        let response = match self.context.fetch(&watch.poll, &calls.full, deadline).await {
            Err(error) if is_not_found(&error) && self.may_still_appear() => {
                return Ok(SnapshotRead::NotFound);
            }
            response => response?,
        };
        self.history().was_read = true;
        let count = usize::try_from(watch.item_count(&response)).unwrap_or(usize::MAX);
        if count > self.max_items {
            return Err(Error::decode(
                "",
                format!(
                    "the list has {count} items, more than the {} of the setting `watch.max_items`",
                    self.max_items
                ),
            ));
        }
        // Until the snapshot keeps the items.
        let reserved = self.memory().reserve_long(count.saturating_mul(ITEM_BYTES));
        let _reservation = reserved.map_err(not_delivered)?;
        let found = watch.items(&response)?;
        let items = found
            .into_iter()
            .map(|bytes| {
                Ok(Item {
                    key: watch.key(&bytes)?,
                    outcome: watch.outcome(&bytes),
                    bytes: Some(bytes),
                    side: Bytes::new(),
                    poll_soon: false,
                    incomplete: false,
                })
            })
            .collect::<Result<Vec<_>, Error>>()?;
        match &watch.refresh {
            Some(refresh) if self.context.offers(refresh) => self
                .refresh(refresh, items, deadline)
                .await
                .map(SnapshotRead::Items),
            _ => Ok(SnapshotRead::Items(items)),
        }
    }

    /// Reads each item that is not final by its key: some upstreams update a state only
    /// then. Omits items that are not found.
    async fn refresh(
        &self,
        refresh: &Arc<Method>,
        items: Vec<Item>,
        deadline: Deadline,
    ) -> Result<Vec<Item>, Error> {
        let watch = self.watch();
        let dialect = &self.context.upstream.settings.dialect;
        let mut calls = Vec::new();
        for (index, item) in items.iter().enumerate() {
            if item.outcome == Outcome::Pending {
                let call = watch.refresh_call(&self.request, &item.key, dialect)?;
                calls.push((index, repeatable(call)));
            }
        }
        let mut calls = calls.into_iter();
        let mut items: Vec<_> = items.into_iter().map(Some).collect();
        let mut reads = JoinSet::new();
        loop {
            while reads.len() < REFRESH_CONCURRENCY
                && let Some((index, call)) = calls.next()
            {
                let (context, refresh) = (self.context.clone(), Arc::clone(refresh));
                reads.spawn(async move { (index, context.fetch(&refresh, &call, deadline).await) });
            }
            let Some(read) = reads.join_next().await else {
                return Ok(items.into_iter().flatten().collect());
            };
            let (index, response) =
                read.map_err(|_| Error::NoResponse("a refresh was aborted".to_owned()))?;
            match response {
                Ok(response) => {
                    let bytes = watch.refreshed(&response)?;
                    if let Some(item) = &mut items[index] {
                        item.outcome = watch.outcome(&bytes);
                        item.bytes = Some(bytes);
                    }
                }
                Err(error) if is_not_found(&error) => items[index] = None,
                Err(error) => return Err(error),
            }
        }
    }
}
