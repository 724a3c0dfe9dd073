//! Bodies of gRPC-Web and Connect: trailers are the last message, and text is in base64.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes};
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};

use super::connect;
use crate::error::{Error, StatusContext};

/// The flag of a frame with trailers. Source: gRPC-Web, "Message framing".
const TRAILERS: u8 = 0x80;

/// How a response ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndForm {
    GrpcWeb { text: bool },
    Connect,
}

/// A response body that has its trailers in its data.
pub(super) struct TrailersInBody {
    body: Body,
    form: EndForm,
    is_ended: bool,
}

impl TrailersInBody {
    pub(super) fn new(body: Body, form: EndForm) -> Self {
        Self {
            body,
            form,
            is_ended: false,
        }
    }

    fn data(&self, data: Bytes) -> Bytes {
        match self.form {
            // Each part has its own padding: a client may see it in any part.
            EndForm::GrpcWeb { text: true } => STANDARD.encode(data).into(),
            EndForm::GrpcWeb { text: false } | EndForm::Connect => data,
        }
    }

    fn end(&self, trailers: &HeaderMap) -> Bytes {
        match self.form {
            EndForm::Connect => connect::end_of_stream(trailers),
            EndForm::GrpcWeb { .. } => self.data(grpc_web_trailers(trailers)),
        }
    }
}

/// Returns the frame with these trailers.
fn grpc_web_trailers(trailers: &HeaderMap) -> Bytes {
    let mut block = Vec::new();
    for (name, value) in trailers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            block.put_slice(part);
        }
    }
    let mut frame = Vec::with_capacity(5 + block.len());
    frame.put_u8(TRAILERS);
    frame.put_u32(u32::try_from(block.len()).unwrap_or_default());
    frame.put_slice(&block);
    frame.into()
}

impl http_body::Body for TrailersInBody {
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
        let frame = match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
            Some(Err(status)) => return Poll::Ready(Some(Err(status))),
            Some(Ok(frame)) => Some(frame.into_data()),
            None => None,
        };
        let data = match frame {
            Some(Ok(data)) => this.data(data),
            Some(Err(trailers)) => {
                this.is_ended = true;
                this.end(&trailers.into_trailers().unwrap_or_default())
            }
            None => {
                this.is_ended = true;
                this.end(&HeaderMap::new())
            }
        };
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_ended
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// A request body in base64. Padding may be anywhere, as clients encode parts on their own.
pub(super) struct Base64Body {
    body: Body,
    /// Of a group that has not arrived completely.
    rest: Vec<u8>,
}

impl Base64Body {
    pub(super) fn new(body: Body) -> Self {
        Self {
            body,
            rest: Vec::new(),
        }
    }

    /// Decodes the complete groups.
    fn decode(&mut self, data: &[u8]) -> Result<Bytes, Status> {
        let joined;
        let text = match self.rest.is_empty() {
            true => data,
            false => {
                joined = [&self.rest, data].concat();
                &joined
            }
        };
        let (mut groups, rest) = text.split_at(text.len() / 4 * 4);
        let mut decoded = Vec::with_capacity(groups.len() / 4 * 3);
        while !groups.is_empty() {
            let padded = groups.iter().position(|byte| *byte == b'=');
            let end = padded.map_or(groups.len(), |at| at / 4 * 4 + 4);
            let (part, after) = groups.split_at(end);
            STANDARD
                .decode_vec(part, &mut decoded)
                .map_err(|_| invalid())?;
            groups = after;
        }
        self.rest = rest.to_vec();
        Ok(decoded.into())
    }
}

fn invalid() -> Status {
    let error = Error::RequestNotReceived {
        code: Code::InvalidArgument,
        problem: "the request is not base64, as application/grpc-web-text is".to_owned(),
    };
    error.status(&StatusContext::default())
}

impl http_body::Body for Base64Body {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let frame = match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            None if this.body.is_end_stream() && !this.rest.is_empty() => {
                this.rest = Vec::new();
                return Poll::Ready(Some(Err(invalid())));
            }
            end => return Poll::Ready(end),
        };
        Poll::Ready(Some(match frame.into_data() {
            Ok(data) => this.decode(&data).map(Frame::data),
            Err(trailers) => Ok(trailers),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    fn body(parts: Vec<&'static [u8]>) -> Body {
        let frames = parts
            .into_iter()
            .map(|part| Ok::<_, Status>(Frame::data(part.into())));
        Body::new(StreamBody::new(tokio_stream::iter(
            frames.collect::<Vec<_>>(),
        )))
    }

    #[tokio::test]
    async fn base64_is_read_wherever_its_parts_end() {
        for (parts, want) in [
            (vec![&b"AAAAAAA="[..]], Some(&[0; 5][..])),
            (vec![b"A", b"AAAA", b"AA=", b""], Some(&[0; 5])),
            // Two parts, each with padding.
            (vec![b"AQ==Ag==AwQF"], Some(&[1, 2, 3, 4, 5])),
            (vec![b"AQ=", b"=A", b"g=="], Some(&[1, 2])),
            (vec![], Some(&[])),
            (vec![b"A?=="], None),
            (vec![b"=AAA"], None),
            (vec![b"AQ=B"], None),
        ] {
            let read = Base64Body::new(body(parts.clone())).collect().await;
            let read = read.ok().map(|read| read.to_bytes());
            assert_eq!(read.as_deref(), want, "{parts:?}");
        }
    }

    #[tokio::test]
    async fn incomplete_base64_is_an_error() {
        let full = http_body_util::Full::from(&b"AAA"[..]);
        let read = Base64Body::new(Body::new(full)).collect().await;
        assert_eq!(read.unwrap_err().code(), Code::InvalidArgument);
    }

    #[tokio::test]
    async fn trailers_are_the_last_frame() {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "5".parse().unwrap());
        trailers.insert("x-a", "b".parse().unwrap());
        let frames = || {
            let data = Frame::data(Bytes::from_static(b"\0\0\0\0\x01x"));
            let frames = vec![Ok::<_, Status>(data), Ok(Frame::trailers(trailers.clone()))];
            Body::new(StreamBody::new(tokio_stream::iter(frames)))
        };
        let want = b"\0\0\0\0\x01x\x80\0\0\0\x18grpc-status: 5\r\nx-a: b\r\n";
        let read = async |form| {
            let body = TrailersInBody::new(frames(), form);
            body.collect().await.unwrap().to_bytes()
        };
        assert_eq!(read(EndForm::GrpcWeb { text: false }).await, &want[..]);
        let text = read(EndForm::GrpcWeb { text: true }).await;
        let decoded = Base64Body::new(Body::new(http_body_util::Full::from(text)));
        assert_eq!(decoded.collect().await.unwrap().to_bytes(), &want[..]);
        let connect = read(EndForm::Connect).await;
        assert_eq!(connect[..7], b"\0\0\0\0\x01x\x02"[..]);
        assert!(connect.ends_with(br#"{"error":{"code":"not_found"},"metadata":{"x-a":["b"]}}"#));
    }
}
