//! Passes a file on from the upstream to the client as it arrives.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_DISPOSITION;
use percent_encoding::percent_decode_str;
use tokio::time::{Sleep, sleep_until};
use tokio_stream::Stream;

use super::action;
use super::call_context::CallContext;
use super::stream_limiter::{StreamLimiter, StreamPermit};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::http_client::ResponseBody;
use crate::upstream::{self, DownloadPermit, Upstream};
use drawbridge_transcoder::call::Idempotency;
use drawbridge_transcoder::contract::{Download, MAX_START_BYTES, Method, ObjectScan};

/// The longest chunk, in bytes.
const MAX_CHUNK_BYTES: usize = 64 << 10;
/// The longest name of a file, in characters; longer ones are cut.
const MAX_FILE_NAME_CHARS: usize = 255;

/// Streams the name of a file and then its chunks, as they arrive from the upstream. The next
/// chunk is read when the client has room for it: one is in memory, however long the file is.
pub struct FileStream {
    method: Arc<Method>,
    idempotency: Idempotency,
    /// The deadline of the stream, if the client has set one: `grpc-timeout` does not reach
    /// the body of a stream.
    deadline: Option<Pin<Box<Sleep>>>,
    /// The message with the file's name, until it is sent.
    first: Option<Bytes>,
    /// The part of the last chunk that is not sent yet.
    rest: Bytes,
    /// The file; none after its end or an error.
    body: Option<ResponseBody>,
    _permit: StreamPermit,
    _download: DownloadPermit,
}

impl fmt::Debug for FileStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileStream")
    }
}

impl FileStream {
    /// Makes the call and returns when its response is known to be the file: by its head, or
    /// by the start of its body. An error is the status of the rpc: [`Error::Overload`] where
    /// no more streams or downloads may be open. `deadline` is that of the stream.
    pub async fn open(
        context: CallContext<'_>,
        method: &Arc<Method>,
        request: &Bytes,
        deadline: Option<Deadline>,
        limiter: &StreamLimiter,
    ) -> Result<Self, Error> {
        let permit = limiter.acquire(context.upstream.client(context.client))?;
        let download_permit = context.upstream.download_permit(context.client)?;
        let download = download(method)?;
        let mut call = context.bind(method, request).await?;
        call.media.accept = Some(download.accept.clone());
        if let Some(action) = &method.action {
            call.body = Some(action::document(context, method, action, request).await?);
        }
        let (mut reply, mut body) = context.open(method, &call).await?;
        if let Some(problem) = reply.unsupported_encoding() {
            return Err(Error::decode("Content-Encoding", problem));
        }
        if let Some(arriving) = &mut body
            && download.needs_start(&reply)
        {
            let start = context.deadline.bound(start(arriving)).await;
            let start = start.unwrap_or(Err(Error::Deadline { sent: true }));
            let (start, is_all) =
                start.map_err(|error| upstream::not_read(call.idempotency, error))?;
            reply.body = start;
            body = body.filter(|_| !is_all);
        }
        context.check_file(method, call.effect(), &reply)?;
        Ok(Self {
            method: method.clone(),
            idempotency: call.idempotency,
            deadline: deadline.map(|deadline| Box::pin(sleep_until(deadline.instant()))),
            first: Some(download.named(&file_name(&reply.headers)).into()),
            rest: reply.body,
            body,
            _permit: permit,
            _download: download_permit,
        })
    }

    /// Returns the next message, or none after the last one.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        if self.rest.is_empty() {
            let Some(body) = &mut self.body else {
                return Poll::Ready(None);
            };
            self.rest = match ready!(body.poll_chunk(cx)).transpose() {
                Ok(chunk) => chunk.unwrap_or_default(),
                // The rest of the file is missing: the stream must not end with OK.
                Err(error) => {
                    return Poll::Ready(Some(Err(upstream::not_read(self.idempotency, error))));
                }
            };
        }
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.rest.len().min(MAX_CHUNK_BYTES);
        let message = download(&self.method).map(|download| {
            let message = download.piece(&self.rest[..length]);
            self.rest.advance(length);
            message.into()
        });
        Poll::Ready(Some(message))
    }

    /// Returns the error of a file that ends before its end, since its upstream is cut off.
    pub fn cut_off(&self, upstream: &Upstream) -> Error {
        upstream::no_response(self.idempotency, upstream.cut_off_text())
    }

    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let deadline = self.deadline.as_mut();
        deadline.is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready())
    }
}

impl Stream for FileStream {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let is_ended = this.first.is_none() && this.rest.is_empty() && this.body.is_none();
        let next = match !is_ended && this.is_late(cx) {
            true => Some(Err(Error::StreamDeadline)),
            false => ready!(this.poll_message(cx)),
        };
        if !matches!(next, Some(Ok(_))) {
            // Closes the upstream request.
            (this.first, this.rest, this.body) = (None, Bytes::new(), None);
        }
        Poll::Ready(next)
    }
}

/// Reads the start of a body that may be an error: until the end of the JSON object that it
/// begins with, if it begins with one, and at most [`MAX_START_BYTES`] and a chunk. Returns
/// whether that is all of the body.
async fn start(body: &mut ResponseBody) -> Result<(Bytes, bool), Error> {
    let mut start = BytesMut::new();
    let mut scan = ObjectScan::default();
    let mut scanned = 0;
    while start.len() < MAX_START_BYTES && scan.needs_more(&start, scanned) {
        scanned = start.len();
        match poll_fn(|cx| body.poll_chunk(cx)).await.transpose()? {
            Some(chunk) => start.extend_from_slice(&chunk),
            None => return Ok((start.freeze(), true)),
        }
    }
    Ok((start.freeze(), false))
}

/// Returns the `download` of a method.
fn download(method: &Method) -> Result<&Download, Error> {
    let download = method.download.as_ref();
    download.ok_or_else(|| Error::Malformed(format!("{} is not a download", method.path)))
}

/// Reads the file name in `Content-Disposition`, without a path; empty where there is none.
/// Source: RFC 6266, section 4.3.
fn file_name(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_DISPOSITION).map(|v| v.as_bytes());
    let text = String::from_utf8_lossy(value.unwrap_or_default());
    let parameters = parameters(&text);
    let get = |wanted: &str| {
        let found = parameters.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.as_str())
    };
    let extended = get("filename*").and_then(|value| {
        let (charset, rest) = value.split_once('\'')?;
        let (_, encoded) = rest.split_once('\'')?;
        let utf8 = charset.eq_ignore_ascii_case("utf-8");
        let name = percent_decode_str(encoded).decode_utf8().ok()?;
        utf8.then(|| name.into_owned())
    });
    let name = extended.or_else(|| get("filename").map(str::to_owned));
    let name = name.unwrap_or_default();
    // A client that writes the file under its name must not leave the directory.
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let plain = last.chars().filter(|c| !c.is_control());
    let plain: String = plain.take(MAX_FILE_NAME_CHARS).collect();
    match plain.trim() {
        "." | ".." => String::new(),
        plain => plain.to_owned(),
    }
}

/// Returns the parameters of a header's value, with names in lower case and without
/// quotes.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut parameters = Vec::new();
    let mut rest = match text.split_once(';') {
        Some((_, rest)) => rest,
        None => return parameters,
    };
    while let Some((name, after)) = rest.split_once('=') {
        let after = after.trim_start();
        let mut value = String::new();
        let mut end = after.len();
        let mut quoted = false;
        let mut escaped = false;
        for (at, c) in after.char_indices() {
            match c {
                _ if escaped => {
                    value.push(c);
                    escaped = false;
                }
                '\\' if quoted => escaped = true,
                '"' => quoted = !quoted,
                ';' if !quoted => {
                    end = at;
                    break;
                }
                c => value.push(c),
            }
        }
        parameters.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        rest = after.get(end + 1..).unwrap_or_default();
    }
    parameters
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn file_name_is_read_without_its_path() {
        for (value, want) in [
            ("attachment; filename=\"a b.st\"", "a b.st"),
            ("attachment; filename=a.st", "a.st"),
            ("attachment;FileName=a.st; size=3", "a.st"),
            ("attachment; x=\"a;filename=no\"; filename=yes", "yes"),
            (r#"attachment; filename="a\"b;c.st""#, "a\"b;c.st"),
            (
                "attachment; filename=x; filename*=UTF-8''%e6%97%a5.st",
                "日.st",
            ),
            ("attachment; filename=x; filename*=UTF-8''%ff", "x"),
            ("attachment; filename=x; filename*=latin1''%e9", "x"),
            ("attachment; filename=\"../../etc/passwd\"", "passwd"),
            ("attachment; filename*=utf-8''..%2F..", ""),
            ("attachment; filename*=utf-8''C:%5Ca%0A.st", "a.st"),
            ("attachment; filename=\"open", "open"),
            ("attachment; filename", ""),
            ("attachment", ""),
            ("", ""),
        ] {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            let headers = HeaderMap::from_iter([(CONTENT_DISPOSITION, value.clone())]);
            assert_eq!(file_name(&headers), want, "{value:?}");
        }
        assert_eq!(file_name(&HeaderMap::new()), "");
    }
}
