//! Finds path fields that the client left empty, such as the id of a stack that is given
//! by name: calls another rpc and caches the result for a few seconds.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::call_context::CallContext;
use crate::credentials::CredentialId;
use crate::error::Error;
use drawbridge_transcoder::contract::{Method, Resolve};

/// How long a result is cached. A name can be reused without the gateway's notice (a stack
/// is deleted, another one gets its name), and Heat still serves the deleted stack.
const CACHE_TTL: Duration = Duration::from_secs(5);

/// The most results that are cached.
const MAX_CACHED: usize = 10_000;

/// Looks up path fields and caches the results.
#[derive(Default)]
pub struct NameLookup(Mutex<Cache>);

impl NameLookup {
    /// Drops the results of an upstream, also those of lookups in flight.
    pub fn forget(&self, upstream: &str) {
        let mut cache = self.lock();
        cache.results.retain(|key, _| *key.upstream != *upstream);
        cache.invalidations += 1;
    }
}

impl fmt::Debug for NameLookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NameLookup")
            .field("cached", &self.lock().results.len())
            .finish()
    }
}

#[derive(Default)]
struct Cache {
    results: HashMap<Arc<Key>, Cached>,
    /// The number of invalidations. A result that was requested before one and arrives after
    /// it may be stale; it is not cached.
    invalidations: u64,
}

/// A lookup and the credential that it is made with.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    upstream: Box<str>,
    rpc: Box<str>,
    request: Bytes,
    credential: CredentialId,
}

struct Cached {
    message: Bytes,
    expires: Instant,
}

/// Guard: invalidates cached lookups of an upstream when a mutating call ends, even if it
/// was cancelled: it may have freed or assigned a name.
#[must_use]
struct InvalidateOnDrop<'a> {
    lookup: &'a NameLookup,
    /// The upstream of a mutating call.
    upstream: Option<&'a str>,
}

impl Drop for InvalidateOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(upstream) = self.upstream {
            self.lookup.forget(upstream);
        }
    }
}

/// A request whose empty path fields are filled in. Must live until its call ends: dropping
/// it after a mutating call drops the cached lookups of the upstream.
pub struct Resolved<'a> {
    /// The request to send.
    pub request: Bytes,
    context: CallContext<'a>,
    resolve: Option<&'a Resolve>,
    /// The cached result, if one was used.
    cached: Option<(Arc<Key>, Bytes)>,
    invalidate: InvalidateOnDrop<'a>,
}

impl Resolved<'_> {
    /// Returns whether to retry the call with the new `request`: the upstream responded 404
    /// to a call with a cached result, and the name now belongs to another resource. A call
    /// that found nothing has changed nothing, so calls that are not idempotent are retried,
    /// too.
    pub async fn retry(&mut self, error: Option<&Error>) -> Result<bool, Error> {
        let not_found = matches!(error, Some(Error::Upstream(fault)) if fault.http_status == 404);
        if !not_found {
            return Ok(false);
        }
        let (Some((key, cached)), Some(resolve)) = (self.cached.take(), self.resolve) else {
            return Ok(false);
        };
        let lookup = self.invalidate.lookup;
        lookup.lock().results.remove(&key);
        let found = lookup.find(self.context, resolve, key).await?;
        if found == cached {
            return Ok(false);
        }
        self.request = with_lookup(self.context, resolve, &self.request, &found)?;
        Ok(true)
    }
}

/// Returns the request with what a lookup has found.
fn with_lookup(
    context: CallContext<'_>,
    resolve: &Resolve,
    request: &Bytes,
    found: &[u8],
) -> Result<Bytes, Error> {
    let reservation = (context.client.memory).reserve_long(request.len() + found.len())?;
    Ok(reservation.attach(resolve.with_lookup(request, found)?))
}

impl NameLookup {
    /// Looks up the empty path fields of a request, if its rpc has any.
    pub async fn resolve<'a>(
        &'a self,
        context: CallContext<'a>,
        method: &'a Method,
        request: &Bytes,
    ) -> Result<Resolved<'a>, Error> {
        let mut resolved = Resolved {
            request: request.clone(),
            context,
            resolve: method.resolve.as_ref(),
            cached: None,
            invalidate: self.invalidate_after(context, method),
        };
        let Some(resolve) = &method.resolve else {
            return Ok(resolved);
        };
        let Some(lookup_request) = resolve.lookup_request(request)? else {
            return Ok(resolved);
        };
        let key = Arc::new(Key {
            upstream: context.upstream.settings.name.as_str().into(),
            rpc: resolve.rpc.path.clone(),
            request: lookup_request,
            credential: context.upstream.credentials.credential_id(context.client),
        });
        if let Some(message) = self.cached(&key) {
            resolved.request = with_lookup(context, resolve, request, &message)?;
            resolved.cached = Some((key, message));
            return Ok(resolved);
        }
        let found = self.find(context, resolve, key).await;
        let message = found.map_err(|error| match error {
            Error::Binding { field, problem } => Error::Binding {
                field: resolve.client_field(request, field),
                problem,
            },
            other => other,
        })?;
        resolved.request = with_lookup(context, resolve, request, &message)?;
        Ok(resolved)
    }

    fn invalidate_after<'a>(
        &'a self,
        context: CallContext<'a>,
        method: &Method,
    ) -> InvalidateOnDrop<'a> {
        InvalidateOnDrop {
            lookup: self,
            upstream: method
                .may_change()
                .then_some(&*context.upstream.settings.name),
        }
    }

    /// Makes the lookup and caches its result.
    async fn find(
        &self,
        context: CallContext<'_>,
        resolve: &Resolve,
        key: Arc<Key>,
    ) -> Result<Bytes, Error> {
        let rpc = &resolve.rpc;
        let invalidations = self.lock().invalidations;
        let call = context.bind(rpc, &key.request).await?;
        let reply = context.call(rpc, &call).await?;
        let message = context
            .decode(rpc, (&call.verb, call.effect()), &reply)
            .await?
            .message;
        let cached = Cached {
            message: message.clone(),
            expires: Instant::now() + CACHE_TTL,
        };
        let mut cache = self.lock();
        if cache.invalidations != invalidations {
            return Ok(message);
        }
        let results = &mut cache.results;
        if results.len() >= MAX_CACHED {
            let now = Instant::now();
            results.retain(|_, cached| cached.expires > now);
            if results.len() >= MAX_CACHED {
                results.clear();
            }
        }
        results.insert(key, cached);
        Ok(message)
    }

    fn cached(&self, key: &Arc<Key>) -> Option<Bytes> {
        let cache = self.lock();
        let cached = cache.results.get(key)?;
        (cached.expires > Instant::now()).then(|| cached.message.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Cache> {
        // No code under this lock can panic halfway through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
