//! Messages of the rpcs that tonic serves, which reads and writes gRPC only.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body::Frame;
use http_body_util::Full;
use tokio_stream::Stream;
use tonic::Status;
use tonic::body::Body;

use crate::error::{Error, StatusContext};
use crate::memory::Memory;
use crate::server::message_format::MessageFormat;
use crate::server::request_message::MessageReader;

/// The longest response that is read: they are short, or have a limit of their own.
const MAX_RESPONSE_BYTES: usize = 64 << 20;

/// A request of another protocol as a body of gRPC.
pub(in super::super) struct OwnRequest(pub(in super::super) MessageReader);

/// The messages of a stream in the format of the protocol, and its trailers.
struct OwnMessages {
    reader: MessageReader<Body>,
    format: MessageFormat,
    memory: Memory,
    is_ended: bool,
}

fn status(error: &Error) -> Status {
    error.status(&StatusContext::default())
}

/// Returns a message with the prefix of gRPC.
fn framed(message: &[u8], is_compressed: bool) -> Bytes {
    let mut frame = Vec::with_capacity(5 + message.len());
    frame.put_u8(is_compressed.into());
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    frame.into()
}

impl http_body::Body for OwnRequest {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let message = ready!(Pin::new(&mut self.0).poll_next(cx));
        Poll::Ready(message.map(|message| match message {
            Ok(message) => Ok(Frame::data(framed(&message, false))),
            Err(error) => Err(status(&error)),
        }))
    }
}

impl http_body::Body for OwnMessages {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.is_ended {
            return Poll::Ready(None);
        }
        let message = ready!(Pin::new(&mut this.reader).poll_next(cx));
        let encoded = message.map(|message| {
            let message = message?;
            let (message, is_compressed) = this.format.encode(message, &this.memory)?;
            Ok(framed(&message, is_compressed))
        });
        Poll::Ready(Some(Ok(match encoded {
            Some(Ok(frame)) => Frame::data(frame),
            Some(Err(error)) => {
                this.is_ended = true;
                let mut trailers = HeaderMap::new();
                let error: Error = error;
                if let Err(status) = status(&error).add_header(&mut trailers) {
                    return Poll::Ready(Some(Err(status)));
                }
                Frame::trailers(trailers)
            }
            None => {
                this.is_ended = true;
                Frame::trailers(this.reader.take_trailers().unwrap_or_default())
            }
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.is_ended
    }
}

/// Writes the messages of a response of tonic in this format. The result is that of a call of
/// the contract.
pub(in super::super) async fn own_response(
    response: Response<Body>,
    format: MessageFormat,
    memory: Memory,
) -> Response<Body> {
    if response.headers().contains_key("grpc-status") {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let mut reader = MessageReader::new(body, MAX_RESPONSE_BYTES, false, memory.clone());
    let name = HeaderName::from_static("grpc-encoding");
    let gzip = HeaderValue::from_static("gzip");
    if !format.is_bare {
        if format.may_compress() {
            parts.headers.insert(name, gzip);
        }
        let messages = OwnMessages {
            reader,
            format,
            memory,
            is_ended: false,
        };
        return Response::from_parts(parts, Body::new(messages));
    }
    let read = reader.only().await;
    let failed = reader.take_trailers();
    let failed = failed.and_then(|trailers| Status::from_header_map(&trailers));
    if let Some(status) = failed.filter(|status| status.code() != tonic::Code::Ok) {
        return status.into_http();
    }
    let encoded = read
        .and_then(|message| message.decode())
        .and_then(|message| format.encode(message, &memory));
    match encoded {
        Ok((message, is_compressed)) => {
            if is_compressed {
                parts.headers.insert(name, gzip);
            }
            Response::from_parts(parts, Body::new(Full::new(message)))
        }
        Err(error) => status(&error).into_http(),
    }
}
