//! Collects a file from a client stream, to send it in one REST call. An incomplete file
//! is never sent.

use bytes::Bytes;
use http::HeaderValue;
use tonic::Code;

use crate::deadline::Deadline;
use crate::error::Error;
use crate::memory::{Memory, Reservation};
use drawbridge_transcoder::call::Call;
use drawbridge_transcoder::contract::{Method, Upload};

/// The longest name of a file, in bytes: the limit of common file systems.
const MAX_FILE_NAME_BYTES: usize = 255;
/// The longest end of a body: a boundary and its lines.
const MAX_END_BYTES: usize = 64;

/// The first capacity of the buffer of a file.
const FIRST_CAPACITY: usize = 64 << 10;

/// Collects the files that clients upload. Each draws from the memory of its client.
#[derive(Debug)]
pub struct Uploads {
    max_bytes: usize,
}

/// The messages of a request.
pub trait RequestMessages {
    /// Returns the next one, decompressed; none at the end of the request.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, Error>> + Send;
}

/// A part of a request body, with its memory.
struct Buffer {
    bytes: Vec<u8>,
    reservation: Reservation,
}

impl Uploads {
    /// Collects files of at most `max_bytes` each.
    pub fn new(max_bytes: usize) -> Self {
        Self { max_bytes }
    }

    /// Reads the messages of a stream to the end and makes the call that sends the file.
    /// Sends nothing itself. `check` may reject the first message, which has all fields but the
    /// chunks.
    pub async fn receive(
        &self,
        (method, upload, dialect): (&Method, &Upload, &str),
        (memory, deadline): (&Memory, Deadline),
        messages: &mut impl RequestMessages,
        check: impl FnOnce(&Bytes) -> Result<(), Error>,
    ) -> Result<Call, Error> {
        let Some(first) = next(messages).await? else {
            return Err(Error::Malformed("the stream has no message".into()));
        };
        check(&first)?;
        let turn = deadline.bound(memory.turn(first.len())).await?;
        let mut call = turn.run(|| method.bind(&first, dialect))?;
        drop(turn);
        let file_name = upload.file_name(&first)?;
        let boundary = boundary();
        let mut body = Buffer {
            bytes: head(upload, file_name, &boundary)?.into_bytes(),
            reservation: memory.empty(),
        };
        let head_len = body.bytes.len();
        self.append(&mut body, head_len, upload.piece(&first)?)?;
        drop(first);
        while let Some(message) = next(messages).await? {
            if !upload.file_name(&message)?.is_empty() {
                return Err(Error::Binding {
                    field: upload.name_field.to_string(),
                    problem: "may only be set in the first message: one call sends one file".into(),
                });
            }
            self.append(&mut body, head_len, upload.piece(&message)?)?;
        }
        if body.bytes.len() == head_len {
            return Err(Error::Binding {
                field: upload.chunk_field.to_string(),
                problem: "the file is empty".into(),
            });
        }
        body.append(format!("\r\n--{boundary}--\r\n").as_bytes(), usize::MAX)?;
        call.body = Some(body.reservation.attach(body.bytes));
        let content_type = format!("multipart/form-data; boundary={boundary}");
        call.media.content_type = HeaderValue::try_from(content_type).ok();
        Ok(call)
    }

    /// Appends a chunk of the file, which begins at `head_len` of the body.
    fn append(&self, body: &mut Buffer, head_len: usize, chunk: &[u8]) -> Result<(), Error> {
        let length = body.bytes.len() - head_len + chunk.len();
        if length > self.max_bytes {
            return Err(Error::RequestStream {
                code: Code::ResourceExhausted,
                problem: format!(
                    "the file is longer than {} bytes (setting max_upload_bytes)",
                    self.max_bytes
                ),
            });
        }
        body.append(chunk, self.max_bytes + head_len + MAX_END_BYTES)
    }
}

impl Buffer {
    /// Appends a chunk; reserves the memory before the buffer grows. No more than
    /// `max_capacity` is reserved in advance.
    fn append(&mut self, chunk: &[u8], max_capacity: usize) -> Result<(), Error> {
        let length = self.bytes.len() + chunk.len();
        if length > self.bytes.capacity() {
            // Files are long: a half more, not double, is the price of the next growth.
            let grown = self.bytes.capacity() + self.bytes.capacity() / 2;
            let capacity = grown.max(FIRST_CAPACITY).min(max_capacity).max(length);
            self.reservation.replace(capacity)?;
            let mut larger = Vec::with_capacity(capacity);
            larger.extend_from_slice(&self.bytes);
            self.bytes = larger;
            self.reservation.resize(capacity)?;
        }
        self.bytes.extend_from_slice(chunk);
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

/// Returns the next message. A stream that fails otherwise than by a limit was cancelled by
/// the client, or its connection was lost.
async fn next(messages: &mut impl RequestMessages) -> Result<Option<Bytes>, Error> {
    messages.next().await.map_err(|error| match error {
        Error::RequestNotReceived { code, problem } => Error::RequestStream {
            code,
            problem: format!("the request stream failed: {problem}"),
        },
        error => error,
    })
}
