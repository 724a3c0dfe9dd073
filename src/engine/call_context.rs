//! What each step of a call needs: the upstream, the client, the deadline.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use drawbridge_transcoder::call::{Call, Idempotency, Reply};
use drawbridge_transcoder::contract::{Decoded, Method};
use drawbridge_transcoder::family::Evidence;

use crate::deadline::Deadline;
use crate::downstream::{self, Downstream};
use crate::error::Error;
use crate::http_client::retry_after::LongestWait;
use crate::http_client::{ResponseBody, not_delivered};
use crate::memory::{LONG_BYTES, Turn};
use crate::upstream::{BodySlot, CallPermit, MethodProperties, RequestContext, Upstream};

/// The context of one call.
#[derive(Clone, Copy)]
pub struct CallContext<'a> {
    /// The upstream that serves the call.
    pub upstream: &'a Arc<Upstream>,
    /// The client, whose credentials or headers may be forwarded.
    pub client: &'a Downstream,
    /// When the call must be complete.
    pub deadline: Deadline,
    /// The permit that all REST calls of the rpc share; none: each waits for its own.
    pub permit: Option<&'a CallPermit<'a>>,
    /// Of a poll: records when it is worth reading again.
    pub(crate) retry_after: Option<&'a LongestWait>,
}

/// The context of a stream, which makes calls while it is open.
#[derive(Clone)]
pub struct StreamContext {
    /// The upstream that serves the stream.
    pub upstream: Arc<Upstream>,
    /// The client; of a shared poll loop, the one that started it: all of its clients
    /// have the same credentials.
    pub client: Downstream,
    /// When it is worth reading again, by the calls of the stream.
    pub(crate) retry_after: Arc<LongestWait>,
}

impl CallContext<'_> {
    /// Makes one REST call.
    pub async fn call(&self, method: &Method, call: &Call) -> Result<Reply, Error> {
        self.upstream
            .call(&self.request_context(method), call)
            .await
    }

    /// Makes one REST call. The body of its response is read as it arrives; the reply has
    /// none.
    pub async fn open(
        &self,
        method: &Method,
        call: &Call,
    ) -> Result<(Reply, Option<ResponseBody>), Error> {
        let body = BodySlot::default();
        let context = RequestContext {
            body_slot: Some(&body),
            ..self.request_context(method)
        };
        let reply = self.upstream.call(&context, call).await?;
        let body = body.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok((reply, body))
    }

    fn request_context<'a>(&'a self, method: &'a Method) -> RequestContext<'a> {
        RequestContext {
            method: MethodProperties::of(method),
            client: self.client,
            deadline: self.deadline,
            permit: self.permit,
            body_slot: None,
            retry_after: self.retry_after,
            is_probe: false,
        }
    }

    /// Binds a request to a REST call, whose body draws from the memory of the client. A long
    /// request waits for its turn.
    pub async fn bind(&self, method: &Method, request: &Bytes) -> Result<Call, Error> {
        let memory = &self.client.memory;
        let turn = self.turn(request.len()).await?;
        let bind = || method.bind_shared(request, self.dialect());
        let (call, reservation) = turn.run(|| memory.convert(request.len(), bind))?;
        let mut call = call?;
        if let Some(body) = call.body.take() {
            call.body = Some(memory.keep(reservation, body.len())?.attach(body));
        }
        Ok(call)
    }

    /// Waits for the turn of a conversion of `bytes`, at most until the deadline.
    pub(crate) async fn turn(&self, bytes: usize) -> Result<Turn<'_>, Error> {
        match bytes {
            ..=LONG_BYTES => Ok(Turn::default()),
            _ => self.deadline.bound(self.client.memory.turn(bytes)).await,
        }
    }

    /// Makes a message of `length` bytes from another one, which draws from the memory of the
    /// client unless it is still that one.
    pub fn copy(
        &self,
        from: &Bytes,
        length: usize,
        make: impl FnOnce() -> Bytes,
    ) -> Result<Bytes, Error> {
        let reservation = (self.client.memory).reserve_long(length);
        let reservation = reservation.map_err(not_delivered)?;
        let made = make();
        Ok(match made.as_ptr() == from.as_ptr() {
            true => made,
            false => reservation.attach(made),
        })
    }

    /// Decodes the reply to a call of `method` with this verb and [`Call::effect`]. The message
    /// draws from the memory of the client; a long reply waits for its turn. An error body in a
    /// success becomes the fault that the family's error mapping reads from it.
    pub async fn decode(
        &self,
        method: &Method,
        (verb, effect): (&http::Method, Idempotency),
        reply: &Reply,
    ) -> Result<Decoded, Error> {
        let memory = &self.client.memory;
        let length = reply.body.len();
        let turn = self.turn(length).await;
        let turn = turn.map_err(|_| Error::Deadline { sent: true })?;
        let decode = || method.decode_reply_to(verb, reply);
        let converted = turn.run(|| memory.convert(length, decode));
        drop(turn);
        let not_delivered = |exhausted| match (not_delivered(exhausted), effect) {
            (Error::ResponseNotDelivered { code, problem, .. }, Idempotency::NonIdempotent) => {
                Error::ResponseNotDelivered {
                    code,
                    problem,
                    retry_after: None,
                }
            }
            (error, _) => error,
        };
        let (decoded, reservation) = converted.map_err(not_delivered)?;
        let error = match decoded {
            Ok(mut decoded) => {
                let kept = memory.keep(reservation, decoded.message.len());
                decoded.message = kept.map_err(not_delivered)?.attach(decoded.message);
                return Ok(decoded);
            }
            Err(error) => error,
        };
        Err(self.error(method, effect, reply, error, advice(effect)))
    }

    /// Fails if the response to a download is not the file; see [`Method::check_file`].
    pub fn check_file(
        &self,
        method: &Method,
        effect: Idempotency,
        reply: &Reply,
    ) -> Result<(), Error> {
        let checked = method.check_file(reply);
        checked.map_err(|error| self.error(method, effect, reply, error, advice(effect)))
    }

    /// Fails if the reply to the first call of an action is not its document: if it is not
    /// a response of the rpc that reads the document or, without such an rpc, is nothing
    /// but an error.
    pub async fn check_document(&self, method: &Method, reply: &Reply) -> Result<(), Error> {
        const UNCHANGED: &str = "; nothing was changed";
        let error_status = method.family_rules.error_status;
        let may_be = Evidence::MayBeTheResource(&[]);
        let error = match method.document_read() {
            Some(read) => {
                let (memory, length) = (&self.client.memory, reply.body.len());
                let turn = self.turn(length).await?;
                let decoded = turn.run(|| memory.convert(length, || read.decode(reply).map(drop)));
                match decoded.map_err(not_delivered)? {
                    (Ok(()), _) => return Ok(()),
                    (Err(error), _) => error,
                }
            }
            None => match error_status.and_then(|status| status(reply.text(), may_be)) {
                None => return Ok(()),
                Some(status) => drawbridge_transcoder::Error::ErrorBody {
                    status,
                    missing: String::new(),
                    request_id: None,
                },
            },
        };
        let effect = Idempotency::NoSideEffects;
        Err(self.error(method, effect, reply, error, UNCHANGED))
    }

    /// Converts an error of decoding the reply, and adds `advice`. An error body becomes
    /// the fault that the family's error mapping reads from it.
    fn error(
        &self,
        method: &Method,
        effect: Idempotency,
        reply: &Reply,
        error: drawbridge_transcoder::Error,
        advice: &str,
    ) -> Error {
        use drawbridge_transcoder::Error as Transcoding;
        match error {
            Transcoding::ErrorBody {
                status, missing, ..
            } => {
                let what = match &*missing {
                    "" => String::new(),
                    missing => format!(", {missing}"),
                };
                self.fault_in_success(method, effect, reply, status, &(what + advice))
            }
            Transcoding::NotTheResource {
                problem,
                request_id,
            } => Error::NotTheResource {
                problem: problem + advice,
                request_id,
            },
            Transcoding::Decode {
                path,
                problem,
                request_id,
            } => Error::Decode {
                path,
                problem: problem + advice,
                request_id,
            },
            other => other.into(),
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
        let context = self.request_context(method);
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
            client: self.client.to_stream(),
            retry_after: Arc::default(),
        }
    }
}

/// Returns what the error of a response says in addition.
fn advice(effect: Idempotency) -> &'static str {
    match effect {
        Idempotency::NonIdempotent => {
            "; the upstream may have acted: check before you repeat the call"
        }
        _ => "",
    }
}

impl StreamContext {
    /// Returns which client the stream counts for, in limits that clients share.
    pub fn limited_client(&self) -> downstream::Client {
        self.upstream.client(&self.client)
    }

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
            permit: None,
            retry_after: Some(&self.retry_after),
        }
    }
}
