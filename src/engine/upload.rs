//! A file from the caller, gathered until it is whole.

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

/// How many files of the longest kind are held at once.
const AT_ONCE: usize = 4;
/// The longest name of a file, in bytes. Common file systems have the same.
const MAX_NAME: usize = 255;
/// When to try again where there was no room.
const AFTER_FULL: Duration = Duration::from_secs(1);

/// The room for files that callers send.
#[derive(Debug)]
pub struct Uploads {
    max_bytes: usize,
    /// In KiB.
    room: Arc<Semaphore>,
}

/// A file that came whole, as the call that sends it on. It takes room until it is
/// dropped.
#[derive(Debug)]
pub struct Received {
    /// The call, with the file as its body.
    pub call: Call,
    _room: Room,
}

/// What a file takes of the room.
#[derive(Debug, Default)]
struct Room {
    kib: usize,
    share: Option<OwnedSemaphorePermit>,
}

impl Uploads {
    /// Room for files of at most `max_bytes`.
    pub fn new(max_bytes: usize) -> Self {
        let kib = AT_ONCE.saturating_mul(max_bytes.div_ceil(1024));
        Self {
            max_bytes,
            room: Arc::new(Semaphore::new(kib.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// Gathers the file of `method` from its messages, to their end. Nothing is sent
    /// yet, and nothing will be when this fails.
    pub async fn receive(
        &self,
        method: &Method,
        upload: &Upload,
        dialect: &str,
        messages: &mut (impl Stream<Item = Result<Bytes, Status>> + Unpin),
    ) -> Result<Received, Error> {
        let Some(first) = next(messages).await? else {
            return Err(Error::Malformed("the stream has no message".into()));
        };
        let mut call = method.bind(&first, dialect)?;
        let file_name = upload.file_name(&first)?;
        let boundary = boundary();
        let mut body = head(upload, file_name, &boundary)?.into_bytes();
        let before = body.len();
        let mut room = Room::default();
        self.add(&mut body, before, &mut room, upload.piece(&first)?)?;
        drop(first);
        while let Some(message) = next(messages).await? {
            if !upload.file_name(&message)?.is_empty() {
                return Err(Error::Binding {
                    field: upload.name_field.to_string(),
                    problem: "stands in the first message alone: one call sends one file".into(),
                });
            }
            self.add(&mut body, before, &mut room, upload.piece(&message)?)?;
        }
        if body.len() == before {
            return Err(Error::Binding {
                field: upload.chunk_field.to_string(),
                problem: "the file is empty".into(),
            });
        }
        body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        call.body = Some(body.into());
        let content_type = format!("multipart/form-data; boundary={boundary}");
        call.media.content_type = HeaderValue::try_from(content_type).ok();
        Ok(Received { call, _room: room })
    }

    /// Adds a piece to a body whose file begins at `before`.
    fn add(
        &self,
        body: &mut Vec<u8>,
        before: usize,
        room: &mut Room,
        piece: &[u8],
    ) -> Result<(), Error> {
        let length = body.len() - before + piece.len();
        if length > self.max_bytes {
            return Err(Error::RequestStream {
                code: Code::ResourceExhausted,
                problem: format!(
                    "the file is longer than {} bytes (setting max_upload_bytes)",
                    self.max_bytes
                ),
            });
        }
        room.grow(&self.room, length.div_ceil(1024))?;
        body.extend_from_slice(piece);
        Ok(())
    }
}

impl Room {
    /// Takes as much of the room as makes `kib` in all.
    fn grow(&mut self, of: &Arc<Semaphore>, kib: usize) -> Result<(), Error> {
        let more = kib.saturating_sub(self.kib);
        let more_permits = u32::try_from(more).unwrap_or(u32::MAX);
        let Ok(more_share) = of.clone().try_acquire_many_owned(more_permits) else {
            return Err(Error::Overload {
                code: Code::ResourceExhausted,
                problem: "too many files are being sent at once".into(),
                retry_after: AFTER_FULL,
            });
        };
        match &mut self.share {
            Some(share) => share.merge(more_share),
            None => self.share = Some(more_share),
        }
        self.kib += more;
        Ok(())
    }
}

/// What stands before the file. Source: RFC 7578; quotes as the HTML standard
/// writes them, "multipart form data".
fn head(upload: &Upload, file_name: &str, boundary: &str) -> Result<String, Error> {
    let wrong = |problem: &str| {
        Err(Error::Binding {
            field: upload.name_field.to_string(),
            problem: problem.to_owned(),
        })
    };
    if file_name.is_empty() {
        return wrong("the first message must name the file");
    }
    if file_name.len() > MAX_NAME {
        return wrong("a file's name has at most 255 bytes");
    }
    if file_name.contains(|c: char| c.is_control() || matches!(c, '/' | '\\')) {
        return wrong("a file's name has no path and no control characters");
    }
    Ok(format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"{}\"; filename=\"{}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n",
        upload.part,
        file_name.replace('"', "%22"),
    ))
}

/// A line that no file has: 128 bits of chance.
fn boundary() -> String {
    format!("drawbridge-{:032x}", fastrand::u128(..))
}

/// The next message. A stream that ends before its time ends by its caller, or on the
/// way to him.
async fn next(
    messages: &mut (impl Stream<Item = Result<Bytes, Status>> + Unpin),
) -> Result<Option<Bytes>, Error> {
    let message = messages.next().await.transpose();
    message.map_err(|status| Error::RequestStream {
        code: status.code(),
        problem: format!("the stream broke off: {}", status.message()),
    })
}
