//! What the audit log says about the REST call of a call.

use std::sync::{Mutex, PoisonError};

/// The last REST call of an rpc that can change something.
#[derive(Debug, Default)]
pub struct Trail(Mutex<Option<RestCall>>);

/// A REST call that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestCall {
    /// The HTTP method.
    pub verb: http::Method,
    /// The path, without the query.
    pub path: Box<str>,
    /// The upstream's id of the request, if its response had one.
    pub upstream_request_id: Option<String>,
}

impl Trail {
    /// Keeps a call instead of the last one.
    pub fn record(&self, call: RestCall) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(call);
    }

    /// Returns the last call, and removes it.
    pub fn take(&self) -> Option<RestCall> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
