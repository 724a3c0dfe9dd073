//! What each step of a call needs: the upstream, the client, the deadline.

use std::sync::Arc;

use drawbridge_transcoder::call::{Call, Idempotency, Reply};
use drawbridge_transcoder::contract::{Decoded, Method};

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
            is_probe: false,
        };
        self.upstream.call(&context, call).await
    }

    /// Decodes the reply to a call of `method`. An error body in a success becomes the
    /// fault that the family's error mapping reads from it.
    pub fn decode(&self, method: &Method, reply: &Reply) -> Result<Decoded, Error> {
        let error = match method.decode(reply) {
            Ok(decoded) => return Ok(decoded),
            Err(error) => error,
        };
        let idempotency = match method.verb {
            http::Method::GET => Idempotency::NoSideEffects,
            _ => method.idempotency,
        };
        let advice = match idempotency {
            Idempotency::NonIdempotent => {
                "; the upstream may have acted: check before you repeat the call"
            }
            _ => "",
        };
        Err(match error {
            drawbridge_transcoder::Error::ErrorBody {
                status, missing, ..
            } => {
                let what = match &*missing {
                    "" => String::new(),
                    missing => format!(", {missing}"),
                };
                self.fault_in_success(method, idempotency, reply, status, &(what + advice))
            }
            drawbridge_transcoder::Error::Decode {
                path,
                problem,
                request_id,
            } => Error::Decode {
                path,
                problem: problem + advice,
                request_id,
            },
            other => other.into(),
        })
    }

    /// Fails if the reply to the first call of an action is an error body of the family.
    pub fn check_no_error(&self, method: &Method, reply: &Reply) -> Result<(), Error> {
        let error_status = method.family_rules.error_status;
        match error_status.and_then(|status| status(reply.body.trim_ascii())) {
            None => Ok(()),
            Some(status) => Err(self.fault_in_success(
                method,
                Idempotency::NoSideEffects,
                reply,
                status,
                ": the document of the action cannot be read; nothing was changed",
            )),
        }
    }

    fn fault_in_success(
        &self,
        method: &Method,
        idempotency: Idempotency,
        reply: &Reply,
        status: u16,
        what: &str,
    ) -> Error {
        let context = RequestContext {
            method: MethodProperties::of(method),
            client: self.client,
            deadline: self.deadline,
            is_probe: false,
        };
        let hint = format!("HTTP {} with an error{what}", reply.status.as_u16());
        Error::Upstream(
            self.upstream
                .fault_in_success(&context, idempotency, reply, status, hint),
        )
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
