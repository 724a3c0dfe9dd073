//! Content codings of responses: gzip and deflate are decoded, also with names in other
//! cases and next to `identity`. Any other coding stays in the header, and whoever reads the
//! body names it ([`Reply::unsupported_encoding`]).
//!
//! [`Reply::unsupported_encoding`]: drawbridge_transcoder::call::Reply::unsupported_encoding

use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use flate2::write::GzDecoder;
use flate2::{Decompress, FlushDecompress, Status};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http::{HeaderMap, Response};
use http_body::{Body, Frame};

use super::BoxError;

/// Size of the chunks of an inflated body.
const CHUNK_BYTES: usize = 32 << 10;

/// How a member of gzip begins. Source: RFC 1952, section 2.3.1.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The coding of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Identity,
    Gzip,
    Deflate,
    /// Not supported, or more than one.
    Other,
}

/// Decodes the body of a response, and removes the header of its coding.
pub(super) fn decode<B>(mut response: Response<B>) -> Response<DecodedBody<B>>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    let is_empty = response.body().is_end_stream();
    let coding = match is_empty {
        true => Coding::Identity,
        false => coding(response.headers()),
    };
    let decoder = match coding {
        Coding::Identity | Coding::Other => None,
        Coding::Gzip => Some(Decoder::Gzip(Gunzip::default())),
        Coding::Deflate => Some(Decoder::Deflate(Inflate::default())),
    };
    let headers = response.headers_mut();
    if coding != Coding::Other {
        headers.remove(CONTENT_ENCODING);
    }
    if decoder.is_some() {
        headers.remove(CONTENT_LENGTH);
    }
    response.map(|body| DecodedBody { body, decoder })
}

/// Reads `Content-Encoding`. Source: RFC 9110, section 8.4.
fn coding(headers: &HeaderMap) -> Coding {
    let mut found = Coding::Identity;
    for value in headers.get_all(CONTENT_ENCODING) {
        for name in value.as_bytes().split(|byte| *byte == b',') {
            let name = name.trim_ascii();
            let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
            let coding = if name.is_empty() || is("identity") {
                continue;
            } else if is("gzip") || is("x-gzip") {
                Coding::Gzip
            } else if is("deflate") || is("x-deflate") {
                Coding::Deflate
            } else {
                return Coding::Other;
            };
            if found != Coding::Identity {
                return Coding::Other;
            }
            found = coding;
        }
    }
    found
}

/// Why a body that has arrived cannot be decoded.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct CodingError(BoxError);

fn coding_error(error: BoxError) -> BoxError {
    CodingError(error).into()
}

/// The body of a response, decoded.
pub(super) struct DecodedBody<B> {
    body: B,
    decoder: Option<Decoder>,
}

/// Decodes a body, of which the parts are pushed as they arrive.
enum Decoder {
    Gzip(Gunzip),
    Deflate(Inflate),
}

impl Decoder {
    fn push(&mut self, data: Bytes) {
        let input = match self {
            Self::Gzip(gunzip) => &mut gunzip.input,
            Self::Deflate(inflate) => &mut inflate.input,
        };
        *input = match input.is_empty() {
            true => data,
            false => [&**input, &*data].concat().into(),
        };
    }

    /// Returns the next chunk; none if it needs more input.
    fn next(&mut self) -> Result<Option<Bytes>, BoxError> {
        match self {
            Self::Gzip(gunzip) => gunzip.next(),
            Self::Deflate(inflate) => inflate.next(),
        }
    }

    /// Checks that nothing is missing at the end of the body.
    fn end(&mut self) -> Result<(), BoxError> {
        match self {
            Self::Gzip(gunzip) => gunzip.end(),
            Self::Deflate(inflate) => inflate.end(),
        }
    }
}

/// The state of decoding gzip: members, one after the other. Files that were compressed in
/// parts and joined have several. Source: RFC 1952, section 2.2.
#[derive(Default)]
struct Gunzip {
    /// The member that is being decoded; none before it has begun.
    member: Option<GzDecoder<Vec<u8>>>,
    /// Received bytes that are not decoded yet.
    input: Bytes,
    /// Whether the decoder may hold output of the input so far.
    may_hold_output: bool,
    has_member: bool,
    is_complete: bool,
}

impl Gunzip {
    fn next(&mut self) -> Result<Option<Bytes>, BoxError> {
        loop {
            let Some(member) = &mut self.member else {
                if self.is_complete || GZIP_MAGIC.starts_with(&self.input) && !self.is_at_magic() {
                    return Ok(None);
                }
                if self.is_at_magic() {
                    self.member = Some(GzDecoder::new(Vec::with_capacity(CHUNK_BYTES)));
                    continue;
                }
                if !self.has_member {
                    return Err("the gzip coding is invalid".into());
                }
                // What follows the end is ignored.
                self.is_complete = true;
                return Ok(None);
            };
            let mut is_at_end = false;
            if !self.input.is_empty() {
                let read = member.write(&self.input)?;
                is_at_end = read == 0;
                self.input.advance(read);
                self.may_hold_output = true;
            } else if self.may_hold_output {
                member.flush()?;
                self.may_hold_output = false;
            } else {
                return Ok(None);
            }
            if is_at_end {
                member.try_finish()?;
            }
            let output = std::mem::take(member.get_mut());
            if is_at_end {
                self.member = None;
                self.has_member = true;
            }
            if !output.is_empty() {
                return Ok(Some(output.into()));
            }
        }
    }

    fn is_at_magic(&self) -> bool {
        self.input.starts_with(&GZIP_MAGIC)
    }

    fn end(&mut self) -> Result<(), BoxError> {
        let is_complete = match &mut self.member {
            Some(member) => member.try_finish().is_ok(),
            None => self.has_member || self.input.is_empty(),
        };
        match is_complete {
            true => Ok(()),
            false => Err("the body ends within its gzip coding".into()),
        }
    }
}

/// The state of inflating a body.
#[derive(Default)]
struct Inflate {
    /// None until the first two bytes have arrived.
    decompress: Option<Decompress>,
    /// Received bytes that are not inflated yet.
    input: Bytes,
    /// Whether there may be output without further input.
    has_more: bool,
    is_complete: bool,
}

impl Inflate {
    fn next(&mut self) -> Result<Option<Bytes>, BoxError> {
        if self.is_complete || !self.has_more && self.input.is_empty() {
            return Ok(None);
        }
        let decompress = match (&mut self.decompress, &*self.input) {
            (Some(decompress), _) => decompress,
            (empty, [first, second, ..]) => {
                // "deflate" means zlib, but some servers send the format without its header.
                // Source: RFC 9110, section 8.4.1.2; RFC 1950, section 2.2.
                let is_method = first & 0x0f == 8;
                let is_zlib = is_method && u16::from_be_bytes([*first, *second]) % 31 == 0;
                empty.insert(Decompress::new(is_zlib))
            }
            _ => return Ok(None),
        };
        let mut output = Vec::with_capacity(CHUNK_BYTES);
        let before = decompress.total_in();
        let status = decompress.decompress_vec(&self.input, &mut output, FlushDecompress::None)?;
        let read = usize::try_from(decompress.total_in() - before)?;
        self.input.advance(read);
        // What follows the end is ignored.
        self.is_complete = status == Status::StreamEnd;
        self.has_more = output.len() == output.capacity();
        match (output.is_empty(), read) {
            (false, _) => Ok(Some(output.into())),
            (true, 0) if !self.input.is_empty() => Err("the deflate coding is invalid".into()),
            (true, _) => self.next(),
        }
    }

    fn end(&self) -> Result<(), BoxError> {
        let has_begun = self.decompress.is_some() || !self.input.is_empty();
        match has_begun && !self.is_complete {
            true => Err("the body ends within its deflate coding".into()),
            false => Ok(()),
        }
    }
}

impl<B> Body for DecodedBody<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let Some(decoder) = &mut this.decoder else {
            let frame = Pin::new(&mut this.body).poll_frame(cx);
            return frame.map_err(Into::into);
        };
        loop {
            match decoder.next() {
                Ok(None) => {}
                Ok(Some(chunk)) => return Poll::Ready(Some(Ok(Frame::data(chunk)))),
                Err(error) => return Poll::Ready(Some(Err(coding_error(error)))),
            }
            let Some(frame) = ready!(Pin::new(&mut this.body).poll_frame(cx)) else {
                return Poll::Ready(decoder.end().err().map(coding_error).map(Err));
            };
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) => decoder.push(data),
                Ok(Err(trailers)) => return Poll::Ready(Some(Ok(trailers))),
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.decoder.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self.decoder {
            None => self.body.size_hint(),
            Some(_) => http_body::SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use http::HeaderValue;
    use http_body_util::{BodyExt, Full, StreamBody};

    use super::*;

    fn text() -> Vec<u8> {
        let numbers = (0..40_000).map(|n: u32| n.to_string());
        numbers.collect::<Vec<_>>().join(",").into_bytes()
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(text: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn raw_deflate(text: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    async fn decoded(
        encodings: &[&str],
        body: &[u8],
        chunk: usize,
    ) -> (Option<String>, Result<Bytes, String>) {
        let frames: Vec<_> = body
            .chunks(chunk)
            .map(|part| Ok::<_, BoxError>(Frame::data(Bytes::copy_from_slice(part))))
            .collect();
        let mut response = Response::new(StreamBody::new(tokio_stream::iter(frames)));
        for encoding in encodings {
            let value = HeaderValue::from_str(encoding).unwrap();
            response.headers_mut().append(CONTENT_ENCODING, value);
        }
        let response = decode(response);
        let header = response.headers().get(CONTENT_ENCODING);
        let header = header.map(|value| value.to_str().unwrap().to_owned());
        let body = response.into_body().collect().await;
        (
            header,
            body.map(|all| all.to_bytes()).map_err(|e| e.to_string()),
        )
    }

    #[tokio::test]
    async fn supported_codings_are_decoded() {
        let text = text();
        for (encodings, body) in [
            (&[][..], text.clone()),
            (&[""], text.clone()),
            (&["identity"], text.clone()),
            (&["Identity, identity"], text.clone()),
            (&["gzip"], gzip(&text)),
            (&["GZIP"], gzip(&text)),
            (&["x-gzip"], gzip(&text)),
            (&["gzip, identity"], gzip(&text)),
            (&[" ,X-GZip ,"], gzip(&text)),
            (&["identity", "gzip"], gzip(&text)),
            (&["deflate"], zlib(&text)),
            (&["Deflate, identity"], zlib(&text)),
            (&["deflate"], raw_deflate(&text)),
            (&["x-deflate"], raw_deflate(&text)),
            (&["deflate"], [zlib(&text), b"more".to_vec()].concat()),
            // Two members, as of joined files; then padding.
            (
                &["gzip"],
                [gzip(&text[..70]), gzip(b""), gzip(&text[70..])].concat(),
            ),
            (&["gzip"], [gzip(&text), vec![0; 3]].concat()),
            (&["gzip"], [gzip(&text), b"more".to_vec()].concat()),
        ] {
            for chunk in [97, 1_000, 1 << 20] {
                let (header, got) = decoded(encodings, &body, chunk).await;
                assert_eq!(header, None, "{encodings:?}");
                // `assert_eq!` would print all of it.
                assert!(got.unwrap() == text, "{encodings:?} in chunks of {chunk}");
            }
        }
    }

    #[tokio::test]
    async fn codings_are_decoded_byte_by_byte() {
        for (encoding, body) in [
            ("gzip", [gzip(b"ab"), gzip(b""), gzip(b"cd")].concat()),
            ("deflate", zlib(b"abcd")),
            ("deflate", raw_deflate(b"abcd")),
        ] {
            let (_, got) = decoded(&[encoding], &body, 1).await;
            assert_eq!(got.unwrap(), "abcd", "{encoding}");
        }
    }

    #[tokio::test]
    async fn other_codings_stay_in_the_header() {
        for encoding in [
            "br",
            "zstd",
            "gzip, br",
            "gzip, gzip",
            "deflate, gzip",
            "utf-8",
        ] {
            let (header, body) = decoded(&[encoding], b"abc", 2).await;
            assert_eq!(header.as_deref(), Some(encoding));
            assert_eq!(body.unwrap(), "abc");
        }
    }

    #[tokio::test]
    async fn empty_body_has_no_coding() {
        for encoding in ["gzip", "deflate", "br"] {
            let mut response = Response::new(Full::<Bytes>::default());
            let value = HeaderValue::from_static(encoding);
            response.headers_mut().insert(CONTENT_ENCODING, value);
            let response = decode(response);
            assert!(response.headers().is_empty(), "{encoding}");
            let body = response.into_body().collect().await.unwrap();
            assert!(body.to_bytes().is_empty());
        }
    }

    #[tokio::test]
    async fn broken_coding_is_an_error() {
        let text = text();
        let half = |body: Vec<u8>| body[..body.len() / 2].to_vec();
        for (encoding, body) in [
            ("gzip", half(gzip(&text))),
            ("gzip", text.clone()),
            ("gzip", vec![0x1f]),
            ("gzip", [gzip(&text), half(gzip(&text))].concat()),
            ("gzip", {
                let mut body = gzip(&text);
                let crc = body.len() - 8;
                body[crc] ^= 1;
                body
            }),
            ("deflate", half(zlib(&text))),
            ("deflate", half(raw_deflate(&text))),
            ("deflate", b"x".to_vec()),
            ("deflate", vec![0xff; 100]),
        ] {
            let (_, got) = decoded(&[encoding], &body, 1_000).await;
            assert!(got.is_err(), "{encoding} {}", body.len());
        }
    }

    #[tokio::test]
    async fn chunks_of_an_inflated_body_are_short() {
        let zeros = vec![0; 64 << 20];
        // The decoder of gzip has a buffer of its own.
        for (coding, bomb, max) in [
            ("deflate", zlib(&zeros), CHUNK_BYTES),
            ("gzip", gzip(&zeros), 4 * CHUNK_BYTES),
        ] {
            let response = Response::new(Full::new(Bytes::from(bomb)));
            let (mut parts, body) = response.into_parts();
            let value = HeaderValue::from_static(coding);
            parts.headers.insert(CONTENT_ENCODING, value);
            let mut body = decode(Response::from_parts(parts, body)).into_body();
            let mut total = 0;
            while let Some(frame) = body.frame().await {
                let length = frame.unwrap().into_data().unwrap().len();
                assert!(length <= max, "{coding}: {length}");
                total += length;
            }
            assert_eq!(total, 64 << 20);
        }
    }
}
