//! Path fields that the caller left empty: found out by another rpc, and kept for
//! a moment.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::credentials::Viewer;
use crate::deadline::Deadline;
use crate::downstream::Caller;
use crate::error::Error;
use crate::upstream::{Operation, Upstream};
use drawbridge_transcoder::call::Idempotency;
use drawbridge_transcoder::contract::{Method, Resolve};

/// How long an answer holds. Names are given anew behind the gateway's back (a
/// stack is deleted, another takes its name), and Heat shows the old one still.
const HOLDS: Duration = Duration::from_secs(5);

/// The most answers that are kept.
const MOST: usize = 10_000;

/// Answers that were found out, and still hold.
#[derive(Default)]
pub struct Names(Mutex<Kept>);

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names")
            .field("kept", &self.lock().answers.len())
            .finish()
    }
}

#[derive(Default)]
struct Kept {
    answers: HashMap<Arc<Key>, Answer>,
    /// How often answers were dropped because something was done: what was asked
    /// before and is answered after may be wrong already.
    dropped: u64,
}

/// What was asked, and with whose eyes.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    upstream: Box<str>,
    rpc: Box<str>,
    question: Bytes,
    viewer: Viewer,
}

struct Answer {
    message: Bytes,
    until: Instant,
}

/// Where a call goes, and for whom.
#[derive(Clone, Copy)]
pub struct Errand<'a> {
    /// The upstream.
    pub upstream: &'a Arc<Upstream>,
    /// The rpc of the call.
    pub method: &'a Arc<Method>,
    /// The caller.
    pub caller: &'a Caller,
    /// Until when.
    pub deadline: Deadline,
}

/// A call that runs; see [`Names::during`].
#[must_use]
pub struct During<'a> {
    names: &'a Names,
    /// Where the call does something.
    upstream: Option<&'a str>,
}

impl Drop for During<'_> {
    fn drop(&mut self) {
        if let Some(upstream) = self.upstream {
            let mut kept = self.names.lock();
            kept.answers.retain(|key, _| *key.upstream != *upstream);
            kept.dropped += 1;
        }
    }
}

/// A request whose path fields are there.
pub struct Resolved {
    /// The request.
    pub request: Bytes,
    /// Set where an answer was used that was kept.
    kept: Option<(Arc<Key>, Bytes)>,
}

impl Names {
    /// The request with its empty path fields found out, if the rpc has such.
    pub async fn resolve(&self, errand: Errand<'_>, request: &Bytes) -> Result<Resolved, Error> {
        let as_it_is = || Resolved {
            request: request.clone(),
            kept: None,
        };
        let Some(resolve) = &errand.method.resolve else {
            return Ok(as_it_is());
        };
        let Some(question) = resolve.question(request)? else {
            return Ok(as_it_is());
        };
        let key = Arc::new(Key {
            upstream: errand.upstream.settings.name.as_str().into(),
            rpc: resolve.rpc.path.clone(),
            question,
            viewer: errand.upstream.credentials.viewer(errand.caller),
        });
        if let Some(answer) = self.kept(&key) {
            return Ok(Resolved {
                request: resolve.answered(request, &answer)?,
                kept: Some((key, answer)),
            });
        }
        let found = self.find(errand, resolve, key).await;
        let answer = found.map_err(|error| match error {
            Error::Binding { field, problem } => Error::Binding {
                field: resolve.blame(request, field),
                problem,
            },
            other => other,
        })?;
        Ok(Resolved {
            request: resolve.answered(request, &answer)?,
            kept: None,
        })
    }

    /// The request to try in place of one that ended in `error`: where nothing was
    /// there (404) and the answer was a kept one, it is found out afresh. None when
    /// that is no other, or there was another error. A call that found nothing has
    /// done nothing, so that any may be sent again.
    pub async fn again(
        &self,
        errand: Errand<'_>,
        resolved: &Resolved,
        error: &Error,
    ) -> Result<Option<Bytes>, Error> {
        let gone = matches!(error, Error::Upstream(fault) if fault.http_status == 404);
        let (Some((key, before)), Some(resolve), true) =
            (&resolved.kept, &errand.method.resolve, gone)
        else {
            return Ok(None);
        };
        self.lock().answers.remove(key);
        let found = self.find(errand, resolve, key.clone()).await?;
        if found == *before {
            return Ok(None);
        }
        Ok(Some(resolve.answered(&resolved.request, &found)?))
    }

    /// To be kept while a call runs. When it ends, well or not or because its caller
    /// has left, what it may have made wrong is dropped: one that does something
    /// may have freed a name, or taken one.
    pub fn during<'a>(&'a self, errand: Errand<'a>) -> During<'a> {
        let method = errand.method;
        let does = method.verb != http::Method::GET && method.idempotency != Idempotency::Safe;
        During {
            names: self,
            upstream: does.then_some(&*errand.upstream.settings.name),
        }
    }

    /// Asks the upstream, and keeps what it answers.
    async fn find(
        &self,
        errand: Errand<'_>,
        resolve: &Resolve,
        key: Arc<Key>,
    ) -> Result<Bytes, Error> {
        let rpc = &resolve.rpc;
        let dropped = self.lock().dropped;
        let call = rpc.bind(&key.question, &errand.upstream.settings.dialect)?;
        let reply = errand
            .upstream
            .call(Operation::of(rpc), &call, errand.caller, errand.deadline)
            .await?;
        let message = rpc.decode(&reply)?.message;
        let answer = Answer {
            message: message.clone(),
            until: Instant::now() + HOLDS,
        };
        let mut kept = self.lock();
        if kept.dropped != dropped {
            return Ok(message);
        }
        let answers = &mut kept.answers;
        if answers.len() >= MOST {
            let now = Instant::now();
            answers.retain(|_, answer| answer.until > now);
            if answers.len() >= MOST {
                answers.clear();
            }
        }
        answers.insert(key, answer);
        Ok(message)
    }

    fn kept(&self, key: &Arc<Key>) -> Option<Bytes> {
        let kept = self.lock();
        let answer = kept.answers.get(key)?;
        (answer.until > Instant::now()).then(|| answer.message.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Nothing is left half done under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
