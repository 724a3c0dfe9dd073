//! What each step of a call needs: the upstream, the client, the deadline.

use std::sync::Arc;

use drawbridge_transcoder::call::{Call, Reply};
use drawbridge_transcoder::contract::Method;

use crate::deadline::Deadline;
use crate::downstream::Downstream;
use crate::error::Error;
use crate::upstream::{MethodProperties, RequestContext, Upstream};

/// The context of one call.
#[derive(Clone, Copy)]
pub struct CallContext<'a> {
    /// The upstream that serves the call.
    pub upstream: &'a Arc<Upstream>,
    /// The client, whose credentials or headers may be forwarded.
    pub client: &'a Downstream,
    /// When the call must be complete.
    pub deadline: Deadline,
}

/// The context of a stream, which makes calls while it is open.
#[derive(Clone)]
pub struct StreamContext {
    /// The upstream that serves the stream.
    pub upstream: Arc<Upstream>,
    /// The client; of a shared poll loop, the one that started it: all of its clients
    /// have the same credentials.
    pub client: Downstream,
}

impl CallContext<'_> {
    /// Makes one REST call.
    pub async fn call(&self, method: &Method, call: &Call) -> Result<Reply, Error> {
        let context = RequestContext {
            method: MethodProperties::of(method),
            client: self.client,
            deadline: self.deadline,
        };
        self.upstream.call(&context, call).await
    }

    /// Returns the dialect of the upstream.
    pub fn dialect(&self) -> &str {
        &self.upstream.settings.dialect
    }

    /// Returns the context of a stream that this call opens.
    pub fn to_stream(self) -> StreamContext {
        StreamContext {
            upstream: Arc::clone(self.upstream),
            client: self.client.clone(),
        }
    }
}

impl StreamContext {
    /// Returns the dialect of the upstream.
    pub fn dialect(&self) -> &str {
        &self.upstream.settings.dialect
    }

    /// Returns the context of one of the stream's calls.
    pub fn until(&self, deadline: Deadline) -> CallContext<'_> {
        CallContext {
            upstream: &self.upstream,
            client: &self.client,
            deadline,
        }
    }
}
