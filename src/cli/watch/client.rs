//! Reads streams of a gateway as JSON, and resumes them when the connection breaks.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::mpsc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Status};

use super::stream_request::{Message, StreamRequest};
use crate::cli::client::gateway::{Gateway, last_cause};
use crate::server::WireCodec;
use drawbridge_transcoder::json::wire;

/// Maximum number of attempts in a row without a message.
const MAX_ATTEMPTS: u32 = 6;
/// Backoff before the second attempt. It doubles with each further attempt.
const INITIAL_BACKOFF: Duration = Duration::from_millis(250);

/// What happens on a stream.
#[derive(Debug)]
pub(super) enum StreamEvent {
    /// A message.
    Message(Message),
    /// The stream broke and is resumed. The text describes the status.
    Retry(String),
    /// The stream has ended, or cannot be resumed, which the lines describe.
    End(Result<(), Vec<String>>),
}

/// Reads a stream until it ends, and sends what happens to `events`.
pub(super) async fn follow(
    gateway: Arc<Gateway>,
    stream_request: StreamRequest,
    id: usize,
    events: mpsc::Sender<(usize, StreamEvent)>,
) {
    let mut request = stream_request.request.clone();
    let mut attempts = 0;
    loop {
        let mut received = false;
        let end = stream(
            &gateway,
            &stream_request,
            &mut request,
            (id, &events),
            &mut received,
        )
        .await;
        if received {
            attempts = 0;
        }
        let Some(end) = end else {
            return;
        };
        let problem = match &end {
            Err(status) => gateway.permanent_problem(status).await,
            Ok(()) => None,
        };
        let end = match end {
            Ok(()) => Ok(()),
            Err(_) if problem.is_some() => Err(problem.into_iter().collect()),
            Err(status)
                if stream_request.is_repeatable
                    && is_retryable(&status)
                    && attempts + 1 < MAX_ATTEMPTS =>
            {
                attempts += 1;
                let retry = StreamEvent::Retry(gateway.line(&status));
                // Only the first attempt of a row is reported.
                if attempts == 1 && events.send((id, retry)).await.is_err() {
                    return;
                }
                tokio::time::sleep(INITIAL_BACKOFF * (1 << (attempts - 1))).await;
                continue;
            }
            Err(status) => Err(gateway.details(&status)),
        };
        let _ = events.send((id, StreamEvent::End(end))).await;
        return;
    }
}

/// Reads one stream until it ends. Returns none if the receiver of `events` is gone.
async fn stream(
    gateway: &Gateway,
    stream_request: &StreamRequest,
    request: &mut Bytes,
    (id, events): (usize, &mpsc::Sender<(usize, StreamEvent)>),
    received: &mut bool,
) -> Option<Result<(), Status>> {
    let mut grpc = gateway.grpc();
    if let Err(e) = grpc.ready().await {
        let mut status = Status::unavailable(last_cause(&e));
        status.set_source(Arc::new(e));
        return Some(Err(status));
    }
    let Ok(path) = PathAndQuery::try_from(&*stream_request.path) else {
        return Some(Err(Status::internal("the rpc has no path")));
    };
    let call = gateway.request(request.clone());
    let response = grpc.server_streaming(call, path, WireCodec::stream()).await;
    let mut messages = match response {
        Ok(response) => response.into_inner(),
        Err(status) => return Some(Err(status)),
    };
    loop {
        let message = match messages.message().await {
            Ok(Some(message)) => message,
            Ok(None) => return Some(Ok(())),
            Err(status) => return Some(Err(status)),
        };
        *received = true;
        gateway.set_established();
        let Some(message) = stream_request.decoder.decode(&message) else {
            return Some(Err(Status::internal(
                "a message does not match the contract",
            )));
        };
        if let Some(next) = resumed_request(stream_request, &message.json) {
            *request = next;
        }
        let message = StreamEvent::Message(message);
        if events.send((id, message)).await.is_err() {
            return None;
        }
    }
}

/// Returns the request that resumes the stream after this message.
fn resumed_request(stream_request: &StreamRequest, message: &Value) -> Option<Bytes> {
    let (field, member) = stream_request.resume.as_ref()?;
    let field = *field;
    let mut request = stream_request.request.to_vec();
    match message.get(&**member)? {
        Value::String(marker) => wire::write_bytes(&mut request, field, marker.as_bytes()),
        Value::Number(offset) => wire::write_uint(&mut request, field, offset.as_u64()?),
        _ => return None,
    }
    Some(request.into())
}

/// Returns whether the stream can be resumed: the gateway or the connection is unavailable.
fn is_retryable(status: &Status) -> bool {
    status.code() == Code::Unavailable
        || (status.source().is_some()
            && matches!(
                status.code(),
                Code::Unknown | Code::Cancelled | Code::Internal
            ))
}
