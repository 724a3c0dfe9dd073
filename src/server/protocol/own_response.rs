//! Messages of the rpcs that tonic serves, which reads and writes gRPC only.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body::Frame;
use http_body_util::Full;
use tonic::Status;
use tonic::body::Body;

use crate::deadline::Deadline;
use crate::engine::RequestMessages as _;
use crate::error::{Error, StatusContext};
use crate::memory::Memory;
use crate::server::message_format::MessageFormat;
use crate::server::request_body_timeout::TimeoutBody;
use crate::server::request_message::MessageReader;

/// The longest response that is read: they are short, or have a limit of their own.
const MAX_RESPONSE_BYTES: usize = 64 << 20;

/// Reads the next message of a body, and returns the reader with it.
type Reading<B> = Pin<Box<dyn Future<Output = (MessageReader<B>, NextMessage)> + Send>>;

type NextMessage = Result<Option<Bytes>, Error>;

/// The messages of a body, one after the other.
struct Messages<B> {
    /// None after the end.
    reading: Option<Reading<B>>,
    trailers: Option<HeaderMap>,
}

impl<B> Messages<B>
where
    B: http_body::Body<Data = Bytes, Error = Status> + Unpin + Send + 'static,
{
    fn new(reader: MessageReader<B>) -> Self {
        Self {
            reading: Some(Self::read(reader)),
            trailers: None,
        }
    }

    fn read(mut reader: MessageReader<B>) -> Reading<B> {
        Box::pin(async move {
            let message = reader.next().await;
            (reader, message)
        })
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let Some(reading) = &mut self.reading else {
            return Poll::Ready(None);
        };
        let (mut reader, message) = ready!(reading.as_mut().poll(cx));
        self.reading = None;
        match &message {
            Ok(Some(_)) => self.reading = Some(Self::read(reader)),
            Ok(None) => self.trailers = reader.take_trailers(),
            Err(_) => {}
        }
        Poll::Ready(message.transpose())
    }
}

/// A request of another protocol as a body of gRPC.
pub(in super::super) struct OwnRequest(Messages<TimeoutBody>);

impl OwnRequest {
    /// Frames the messages of a request.
    pub(in super::super) fn new(reader: MessageReader) -> Self {
        Self(Messages::new(reader))
    }
}

/// The messages of a stream in the format of the protocol, and its trailers.
struct OwnMessages {
    messages: Messages<Body>,
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
        let message = ready!(self.0.poll_next(cx));
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
        let message = ready!(this.messages.poll_next(cx));
        let encoded = message.map(|message| {
            let (message, is_compressed) = this.format.encode_now(message?, &this.memory)?;
            Ok(framed(&message, is_compressed))
        });
        Poll::Ready(Some(Ok(match encoded {
            Some(Ok(frame)) => Frame::data(frame),
            Some(Err(error)) => {
                this.is_ended = true;
                let error: Error = error;
                let mut trailers = HeaderMap::new();
                if let Err(status) = status(&error).add_header(&mut trailers) {
                    return Poll::Ready(Some(Err(status)));
                }
                Frame::trailers(trailers)
            }
            None => {
                this.is_ended = true;
                Frame::trailers(this.messages.trailers.take().unwrap_or_default())
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
    deadline: Deadline,
) -> Response<Body> {
    if response.headers().contains_key("grpc-status") {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let max_bytes = MAX_RESPONSE_BYTES;
    let mut reader = MessageReader::new(body, max_bytes, false, memory.clone(), deadline);
    let name = HeaderName::from_static("grpc-encoding");
    let gzip = HeaderValue::from_static("gzip");
    if !format.is_bare {
        if format.may_compress() {
            parts.headers.insert(name, gzip);
        }
        let messages = OwnMessages {
            messages: Messages::new(reader),
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
    let encoded = async {
        let mut message = read?.decode(deadline).await?;
        let is_compressed = format.encode(&mut message, &memory, deadline).await?;
        Ok::<_, Error>((message, is_compressed))
    };
    match encoded.await {
        Ok((message, is_compressed)) => {
            if is_compressed {
                parts.headers.insert(name, gzip);
            }
            Response::from_parts(parts, Body::new(Full::new(message)))
        }
        Err(error) => status(&error).into_http(),
    }
}
