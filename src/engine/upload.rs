//! Collects a file from a client stream, to send it in one REST call. An incomplete file
//! is never sent.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Status};

use crate::error::Error;
use drawbridge_transcoder::call::Call;
use drawbridge_transcoder::contract::{Method, Upload};

/// How many files of the maximum size are buffered at once.
const MAX_BUFFERED_FILES: usize = 4;
/// The longest name of a file, in bytes: the limit of common file systems.
const MAX_FILE_NAME_BYTES: usize = 255;
/// `RetryInfo` when the buffer is full.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Buffers the files that clients upload, in bounded memory.
#[derive(Debug)]
pub struct Uploads {
    max_bytes: usize,
    /// Maximum size of one message of the stream.
    max_message_bytes: usize,
    /// One permit per KiB.
    buffer: Arc<Semaphore>,
}

/// A complete file as a REST call. Occupies the buffer until it is dropped.
#[derive(Debug)]
pub struct UploadedFile {
    /// The call, with the file in its body.
    pub call: Call,
    _share: BufferShare,
}

/// The part of the buffer that a file occupies.
#[derive(Debug, Default)]
struct BufferShare {
    kib: usize,
    permits: Option<OwnedSemaphorePermit>,
}

impl Uploads {
    /// Creates a buffer for files of at most `max_bytes` each, in messages of at most
    /// `max_message_bytes`.
    pub fn new(max_bytes: usize, max_message_bytes: usize) -> Self {
        let kib = MAX_BUFFERED_FILES.saturating_mul(max_bytes.div_ceil(1024));
        Self {
            max_bytes,
            max_message_bytes,
            buffer: Arc::new(Semaphore::new(kib.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// Reads the messages of a stream to the end and makes the call that sends the file.
    /// Sends nothing itself.
    pub async fn receive(
        &self,
        method: &Method,
        upload: &Upload,
        dialect: &str,
        messages: &mut (impl Stream<Item = Result<Bytes, Status>> + Unpin),
    ) -> Result<UploadedFile, Error> {
        let Some(first) = next(messages, self.max_message_bytes).await? else {
            return Err(Error::Malformed("the stream has no message".into()));
        };
        let mut call = method.bind(&first, dialect)?;
        let file_name = upload.file_name(&first)?;
        let boundary = boundary();
        let mut body = head(upload, file_name, &boundary)?.into_bytes();
        let head_len = body.len();
        let mut share = BufferShare::default();
        self.append(&mut body, head_len, &mut share, upload.piece(&first)?)?;
        drop(first);
        while let Some(message) = next(messages, self.max_message_bytes).await? {
            if !upload.file_name(&message)?.is_empty() {
                return Err(Error::Binding {
                    field: upload.name_field.to_string(),
                    problem: "may only be set in the first message: one call sends one file".into(),
                });
            }
            self.append(&mut body, head_len, &mut share, upload.piece(&message)?)?;
        }
        if body.len() == head_len {
            return Err(Error::Binding {
                field: upload.chunk_field.to_string(),
                problem: "the file is empty".into(),
            });
        }
        body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        call.body = Some(body.into());
        let content_type = format!("multipart/form-data; boundary={boundary}");
        call.media.content_type = HeaderValue::try_from(content_type).ok();
        Ok(UploadedFile {
            call,
            _share: share,
        })
    }

    /// Appends a chunk of the file, which begins at `head_len` of the body.
    fn append(
        &self,
        body: &mut Vec<u8>,
        head_len: usize,
        share: &mut BufferShare,
        chunk: &[u8],
    ) -> Result<(), Error> {
        let length = body.len() - head_len + chunk.len();
        if length > self.max_bytes {
            return Err(Error::RequestStream {
                code: Code::ResourceExhausted,
                problem: format!(
                    "the file is longer than {} bytes (setting max_upload_bytes)",
                    self.max_bytes
                ),
            });
        }
        share.grow(&self.buffer, length.div_ceil(1024))?;
        body.extend_from_slice(chunk);
        Ok(())
    }
}

impl BufferShare {
    /// Acquires as many permits as make `kib` in total.
    fn grow(&mut self, buffer: &Arc<Semaphore>, kib: usize) -> Result<(), Error> {
        let more = kib.saturating_sub(self.kib);
        let count = u32::try_from(more).unwrap_or(u32::MAX);
        let Ok(more_permits) = buffer.clone().try_acquire_many_owned(count) else {
            return Err(Error::Overload {
                code: Code::ResourceExhausted,
                problem: "too many files are being uploaded at once".into(),
                retry_after: RETRY_AFTER,
            });
        };
        match &mut self.permits {
            Some(permits) => permits.merge(more_permits),
            None => self.permits = Some(more_permits),
        }
        self.kib += more;
        Ok(())
    }
}

/// Returns the part header before the file. Source: RFC 7578; quotes are escaped as in the
/// HTML standard, "multipart form data".
fn head(upload: &Upload, file_name: &str, boundary: &str) -> Result<String, Error> {
    let invalid = |problem: &str| {
        Err(Error::Binding {
            field: upload.name_field.to_string(),
            problem: problem.to_owned(),
        })
    };
    if file_name.is_empty() {
        return invalid("the first message must name the file");
    }
    if file_name.len() > MAX_FILE_NAME_BYTES {
        return invalid("a file's name has at most 255 bytes");
    }
    if file_name.contains(|c: char| c.is_control() || matches!(c, '/' | '\\')) {
        return invalid("a file's name has no path and no control characters");
    }
    Ok(format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"{}\"; filename=\"{}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n",
        upload.part,
        file_name.replace('"', "%22"),
    ))
}

/// Returns a boundary that no file contains: 128 random bits.
fn boundary() -> String {
    format!("drawbridge-{:032x}", fastrand::u128(..))
}

/// Returns the next message, of at most `max_bytes`. A stream that fails otherwise was
/// cancelled by the client, or its connection was lost.
async fn next(
    messages: &mut (impl Stream<Item = Result<Bytes, Status>> + Unpin),
    max_bytes: usize,
) -> Result<Option<Bytes>, Error> {
    let message = messages.next().await.transpose();
    message.map_err(
        |status| match Error::request_not_received(&status, max_bytes) {
            too_large @ Error::RequestTooLarge { .. } => too_large,
            _ => Error::RequestStream {
                code: status.code(),
                problem: format!("the request stream failed: {}", status.message()),
            },
        },
    )
}
