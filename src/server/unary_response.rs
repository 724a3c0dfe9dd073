//! The answer to a unary call, as HTTP frames: the message goes out as it is.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use http_body::{Body, Frame, SizeHint};

use crate::server::response_write_timeout::MAX_CHUNK_BYTES;
use drawbridge_transcoder::json::Notes;

/// The most bytes of metadata that name inexact numbers: clients refuse long ones.
const MAX_INEXACT: usize = 1_000;

/// What is escaped in a list of paths, beside what is no ASCII.
const UNPLAIN: &AsciiSet = &CONTROLS.add(b',').add(b'%');

/// The paths of inexact numbers as metadata, with commas between them, escaped as
/// in URLs; `...` stands for those there is no room for. None where all is exact.
pub fn inexact(notes: &Notes) -> Option<HeaderValue> {
    let mut text = String::new();
    for path in &notes.inexact {
        let path = utf8_percent_encode(path, UNPLAIN).to_string();
        let comma = if text.is_empty() { "" } else { "," };
        if text.len() + path.len() > MAX_INEXACT {
            text.extend([comma, "..."]);
            break;
        }
        text.extend([comma, &*path]);
    }
    if text.is_empty() {
        return None;
    }
    HeaderValue::from_str(&text).ok()
}

/// One uncompressed message and the status OK. Source: gRPC over HTTP/2,
/// "Length-Prefixed-Message" and "Trailers".
#[derive(Debug)]
pub struct Answer {
    /// What is still to be sent: the prefix, with a short message, ...
    prefix: Option<Bytes>,
    /// ... and a long message.
    message: Option<Bytes>,
    trailers: bool,
}

impl Answer {
    /// The answer with this message. None when it is longer than gRPC can say.
    pub fn new(message: Bytes) -> Option<Self> {
        let length = u32::try_from(message.len()).ok()?;
        // One frame costs less than the copy.
        let short = message.len() <= MAX_CHUNK_BYTES;
        let mut prefix = BytesMut::with_capacity(5 + if short { message.len() } else { 0 });
        // Not compressed.
        prefix.put_u8(0);
        prefix.put_u32(length);
        if short {
            prefix.put_slice(&message);
        }
        Some(Self {
            prefix: Some(prefix.freeze()),
            message: (!short).then_some(message),
            trailers: true,
        })
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        if let Some(data) = this.prefix.take().or_else(|| this.message.take()) {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if !std::mem::take(&mut this.trailers) {
            return Poll::Ready(None);
        }
        let ok = HeaderValue::from_static("0");
        let trailers = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), ok)]);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        !self.trailers
    }

    fn size_hint(&self) -> SizeHint {
        let parts = [&self.prefix, &self.message];
        let length: usize = parts.into_iter().flatten().map(Bytes::len).sum();
        SizeHint::with_exact(length as u64)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[test]
    fn inexact_numbers() {
        let long = "x".repeat(600);
        for (paths, want) in [
            (&[][..], None),
            (&["a[0].b", "c"], Some("a[0].b,c".to_owned())),
            (
                &["größe 1,5%\u{1}"],
                Some("gr%C3%B6%C3%9Fe 1%2C5%25%01".to_owned()),
            ),
            (&[&*long, &*long, "c"], Some(format!("{long},..."))),
            (&[&*long.repeat(2)], Some("...".to_owned())),
        ] {
            let notes = Notes {
                inexact: paths.iter().map(|path| path.to_string()).collect(),
            };
            let value = inexact(&notes);
            let text = value.as_ref().map(|value| value.to_str().unwrap());
            assert_eq!(text, want.as_deref());
        }
    }

    #[tokio::test]
    async fn frames() {
        for (length, data_frames) in [
            (0, 1),
            (3, 1),
            (MAX_CHUNK_BYTES, 1),
            (MAX_CHUNK_BYTES + 1, 2),
        ] {
            let message = Bytes::from(vec![7; length]);
            let mut answer = Answer::new(message.clone()).unwrap();
            assert_eq!(answer.size_hint().exact(), Some(5 + length as u64));
            let mut data = Vec::new();
            for _ in 0..data_frames {
                let frame = answer.frame().await.unwrap().unwrap();
                data.extend_from_slice(&frame.into_data().unwrap());
            }
            assert_eq!(data[0], 0);
            assert_eq!(data[1..5], (length as u32).to_be_bytes());
            assert_eq!(data[5..], message);
            assert!(!answer.is_end_stream());
            let trailers = answer.frame().await.unwrap().unwrap();
            assert_eq!(trailers.into_trailers().unwrap()["grpc-status"], "0");
            assert!(answer.is_end_stream() && answer.frame().await.is_none());
        }
    }
}
