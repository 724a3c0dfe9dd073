//! The last failed calls, for the page of the admin listener: what the access log says of them,
//! without texts, which may hold values of requests.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// How many failed calls are kept.
pub const MAX_FAILED_CALLS: usize = 100;

/// A call that has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedCall {
    /// When it ended.
    pub at: SystemTime,
    /// The name of the gRPC code.
    pub code: &'static str,
    /// The kind of the failure: `reason` of `ErrorInfo`, or `HTTP_503`.
    pub kind: String,
    /// `package.Service/Method`; empty if the request named none.
    pub operation: Box<str>,
    /// Empty if it failed before one was selected.
    pub upstream: Box<str>,
    /// The gateway's id of the request.
    pub request_id: Box<str>,
    /// How long it took; none for a request that was rejected at once.
    pub elapsed: Option<Duration>,
    /// How many requests in a row were rejected like this one, which is the last of them.
    pub count: u64,
}

/// The last [`MAX_FAILED_CALLS`] failed calls. Clones share them.
#[derive(Clone, Default)]
pub struct FailedCalls(Arc<Mutex<VecDeque<FailedCall>>>);

impl fmt::Debug for FailedCalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FailedCalls").finish_non_exhaustive()
    }
}

impl FailedCalls {
    /// Adds a call. Rejected requests in a row are one entry: anybody can cause as many as they
    /// like.
    pub fn add(&self, call: FailedCall) {
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = calls.back_mut()
            && call.elapsed.is_none()
            && last.elapsed.is_none()
            && (last.code, &last.kind, &last.operation) == (call.code, &call.kind, &call.operation)
        {
            let count = last.count + call.count;
            *last = FailedCall { count, ..call };
            return;
        }
        if calls.len() == MAX_FAILED_CALLS {
            calls.pop_front();
        }
        calls.push_back(call);
    }

    /// Returns the calls, the newest first.
    pub fn newest_first(&self) -> Vec<FailedCall> {
        let calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        calls.iter().rev().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(number: u64, elapsed: Option<Duration>) -> FailedCall {
        FailedCall {
            at: SystemTime::UNIX_EPOCH,
            code: "UNAUTHENTICATED",
            kind: "CLIENT_TOKEN".to_owned(),
            operation: "a.B/C".into(),
            upstream: "".into(),
            request_id: number.to_string().into(),
            elapsed,
            count: 1,
        }
    }

    #[test]
    fn newest_calls_are_kept() {
        let calls = FailedCalls::default();
        for number in 0..150 {
            calls.add(call(number, Some(Duration::ZERO)));
        }
        let kept = calls.newest_first();
        assert_eq!(kept.len(), MAX_FAILED_CALLS);
        assert_eq!((&*kept[0].request_id, &*kept[99].request_id), ("149", "50"));
    }

    #[test]
    fn rejected_requests_in_a_row_are_one_entry() {
        let calls = FailedCalls::default();
        calls.add(call(0, Some(Duration::ZERO)));
        for number in 1..1_000 {
            calls.add(call(number, None));
        }
        let other = FailedCall {
            operation: "a.B/D".into(),
            ..call(1_000, None)
        };
        calls.add(other.clone());
        let kept = calls.newest_first();
        assert_eq!(kept.len(), 3);
        assert_eq!(kept[0], other);
        assert_eq!((kept[1].count, &*kept[1].request_id), (999, "999"));
    }
}
