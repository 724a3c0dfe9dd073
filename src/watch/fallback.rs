//! Reads elsewhere, when the poll does not find what is watched.

use std::sync::Arc;

use bytes::Bytes;
use tonic::Code;

use super::poll_target::{Aim, Instead, Target};
use super::snapshot::Item;
use super::source::{Read, RestSource, is_not_found};
use crate::deadline::Deadline;
use crate::error::Error;
use drawbridge_transcoder::contract::{Fallback, Found, Outcome};

/// So many reads in a row may find another thing in its place.
const MAY_BE_OTHER: u32 = 10;

impl RestSource {
    /// The poll has found nothing.
    pub(super) async fn missing(
        &self,
        error: Error,
        target: &Target,
        by: Deadline,
    ) -> Result<Read, Error> {
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
    pub(super) async fn read_instead(
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
