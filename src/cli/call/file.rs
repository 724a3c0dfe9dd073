//! Files that an rpc uploads or downloads in chunks.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;

use bytes::Bytes;
use prost::Message as _;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor, Value,
};
use tokio::io::AsyncReadExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;

use crate::cli::client::rules::{self, HTTP_BODY};

/// The encoded messages of a request.
pub(super) type Messages = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

/// Size of a chunk.
const CHUNK_BYTES: usize = 256 << 10;

/// The field of a message that holds a part of a file.
#[derive(Clone, Debug)]
enum ChunkField {
    /// A field of type bytes.
    Bytes(FieldDescriptor),
    /// The message, or the field of it, is a `google.api.HttpBody`.
    Body(Option<FieldDescriptor>),
}

impl ChunkField {
    /// Finds the field that the option of the rpc names, or else the only field that can hold a
    /// file.
    fn of(message: &MessageDescriptor, named: Option<String>) -> Option<Self> {
        if let Some(name) = named {
            return message.get_field_by_name(&name).map(Self::Bytes);
        }
        if message.full_name() == HTTP_BODY {
            return Some(Self::Body(None));
        }
        let mut found = message.fields().filter_map(|field| match field.kind() {
            _ if field.is_list() || field.is_map() => None,
            Kind::Message(kind) if kind.full_name() == HTTP_BODY => Some(Self::Body(Some(field))),
            Kind::Bytes => Some(Self::Bytes(field)),
            _ => None,
        });
        let field = found.next()?;
        found.next().is_none().then_some(field)
    }

    fn set(&self, message: &mut DynamicMessage, chunk: Bytes) {
        match self {
            Self::Bytes(field) => message.set_field(field, Value::Bytes(chunk)),
            Self::Body(None) => message.set_field_by_name("data", Value::Bytes(chunk)),
            Self::Body(Some(field)) => {
                if let Some(body) = message.get_field_mut(field).as_message_mut() {
                    body.set_field_by_name("data", Value::Bytes(chunk));
                }
            }
        }
    }

    fn get(&self, message: &DynamicMessage) -> Bytes {
        let data = |body: &DynamicMessage| {
            let data = body.get_field_by_name("data");
            data.and_then(|data| data.as_bytes().cloned())
                .unwrap_or_default()
        };
        match self {
            Self::Bytes(field) => message
                .get_field(field)
                .as_bytes()
                .cloned()
                .unwrap_or_default(),
            Self::Body(None) => data(message),
            Self::Body(Some(field)) => {
                let field = message.get_field(field);
                field.as_message().map(data).unwrap_or_default()
            }
        }
    }
}

/// A file to send.
pub(super) struct Upload {
    reader: Box<dyn tokio::io::AsyncRead + Send + Unpin>,
    chunk: ChunkField,
    /// The field of the file's name, and the name.
    name: Option<(FieldDescriptor, String)>,
    path: String,
    is_stream: bool,
}

impl Upload {
    /// Opens the file, which the rpc uploads with this request.
    pub(super) async fn open(
        method: &MethodDescriptor,
        path: &str,
        request: Option<&DynamicMessage>,
    ) -> Result<Self, String> {
        let input = method.input();
        let rule = rules::rule(method, "upload");
        let member = |name| rule.as_ref().and_then(|rule| rules::text(rule, name));
        let chunk = ChunkField::of(&input, member("chunk")).ok_or_else(|| {
            format!(
                "--data-file: {} has no field that holds a file",
                input.name()
            )
        })?;
        let base = Path::new(path)
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let field = member("file_name").and_then(|name| input.get_field_by_name(&name));
        if path == "-"
            && let Some(field) = &field
            && request.is_none_or(|request| !request.has_field(field))
        {
            let field = field.name();
            return Err(format!(
                "--data-file -: give the name of the file in the request, as in \
                 '{{\"{field}\": \"NAME\"}}'"
            ));
        }
        let name = field.zip(base.filter(|_| path != "-"));
        let reader: Box<dyn tokio::io::AsyncRead + Send + Unpin> = match path {
            "-" => Box::new(tokio::io::stdin()),
            path => {
                let file = tokio::fs::File::open(path).await;
                Box::new(file.map_err(|e| format!("--data-file {path}: {e}"))?)
            }
        };
        Ok(Self {
            reader,
            chunk,
            name,
            path: path.to_owned(),
            is_stream: method.is_client_streaming(),
        })
    }

    /// Returns the messages of the call: the file in chunks, the first together with the
    /// request. The file of a unary rpc is one chunk. If the file cannot be read, `failed` gets
    /// the reason, and the messages do not end: a part is never sent as the complete file.
    pub(super) fn messages(
        self,
        mut requests: Vec<DynamicMessage>,
        failed: oneshot::Sender<String>,
    ) -> Messages {
        let (sender, receiver) = mpsc::channel(2);
        tokio::spawn(async move {
            let Self {
                mut reader,
                chunk,
                name,
                path,
                is_stream,
            } = self;
            let Some(first) = requests.first_mut() else {
                return;
            };
            if let Some((field, name)) = name
                && !first.has_field(&field)
            {
                first.set_field(&field, Value::String(name));
            }
            let mut next = Some(first.clone());
            let empty = DynamicMessage::new(prost_reflect::ReflectMessage::descriptor(first));
            loop {
                let limit = if is_stream { CHUNK_BYTES } else { usize::MAX };
                let mut part = Vec::new();
                let read = (&mut reader)
                    .take(limit as u64)
                    .read_to_end(&mut part)
                    .await;
                if let Err(e) = read {
                    // The call may have ended.
                    let _ = failed.send(format!("--data-file {path}: {e}"));
                    return sender.closed().await;
                }
                let is_end = part.len() < limit;
                if part.is_empty() && next.is_none() {
                    return;
                }
                let mut message = next.take().unwrap_or_else(|| empty.clone());
                chunk.set(&mut message, part.into());
                if sender.send(message.encode_to_vec().into()).await.is_err() || is_end {
                    return;
                }
            }
        });
        Box::pin(ReceiverStream::new(receiver))
    }
}

/// A file to receive.
#[derive(Debug)]
pub(super) struct Download {
    message: MessageDescriptor,
    chunk: ChunkField,
    target: Target,
}

#[derive(Debug)]
enum Target {
    /// Standard output; `is_checked` once it is known to be no terminal, or the content text.
    Stdout { is_checked: bool },
    /// A file, written under another name until it is complete.
    File {
        path: PathBuf,
        part: PathBuf,
        file: Option<File>,
    },
}

impl Download {
    /// Returns the download of an rpc whose responses are a file.
    pub(super) fn of(method: &MethodDescriptor) -> Option<Self> {
        let output = method.output();
        let rule = rules::rule(method, "download");
        let is_body = output.full_name() == HTTP_BODY;
        if rule.is_none() && !is_body {
            return None;
        }
        let name = rule.and_then(|rule| rules::text(&rule, "chunk"));
        Some(Self {
            chunk: ChunkField::of(&output, name)?,
            message: output,
            target: Target::Stdout { is_checked: false },
        })
    }

    /// Writes to this file; `-` is standard output, also that of a terminal.
    pub(super) fn to(mut self, path: Option<&str>) -> Self {
        self.target = match path {
            None => Target::Stdout {
                is_checked: !io::stdout().is_terminal(),
            },
            Some("-") => Target::Stdout { is_checked: true },
            Some(path) => {
                let path = PathBuf::from(path);
                // A device or a pipe cannot be renamed to.
                let is_special = path.metadata().is_ok_and(|found| !found.is_file());
                let mut part = path.clone().into_os_string();
                if !is_special {
                    part.push(".part");
                }
                Target::File {
                    path,
                    part: part.into(),
                    file: None,
                }
            }
        };
        self
    }

    /// Writes the part in a message. Returns false if the reader has closed the pipe.
    pub(super) fn write(&mut self, message: &Bytes) -> Result<bool, String> {
        let message = DynamicMessage::decode(self.message.clone(), message.clone())
            .map_err(|e| format!("the response does not match the descriptors: {e}"))?;
        let chunk = self.chunk.get(&message);
        if chunk.is_empty() {
            return Ok(true);
        }
        match &mut self.target {
            Target::Stdout { is_checked } => {
                if !*is_checked && !is_text(&chunk) {
                    return Err("the response is a binary file, and the output a terminal: \
                                write it with -o FILE, or -o - to the terminal"
                        .to_owned());
                }
                let mut out = io::stdout();
                match out.write_all(&chunk).and_then(|()| out.flush()) {
                    Ok(()) => Ok(true),
                    Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
                    Err(e) => Err(format!("cannot write to standard output: {e}")),
                }
            }
            Target::File { part, file, .. } => {
                let describe = |e: io::Error| format!("-o {}: {e}", part.display());
                let file = match file {
                    Some(file) => file,
                    None => file.insert(File::create(&*part).map_err(describe)?),
                };
                file.write_all(&chunk).map_err(describe)?;
                Ok(true)
            }
        }
    }

    /// The file is complete.
    pub(super) fn finish(mut self) -> Result<(), String> {
        if let Target::File { path, part, file } = &mut self.target {
            let describe = |e: io::Error| format!("-o {}: {e}", path.display());
            if file.is_none() {
                // It is empty.
                File::create(&*part).map_err(describe)?;
            }
            *file = None;
            if part != path {
                std::fs::rename(&*part, &*path).map_err(describe)?;
            }
            // Nothing is left to remove.
            *part = PathBuf::new();
        }
        Ok(())
    }
}

/// Removes a file that is not complete.
impl Drop for Download {
    fn drop(&mut self) {
        if let Target::File { path, part, file } = &self.target
            && part != path
            && file.is_some()
        {
            // It may not exist.
            let _ = std::fs::remove_file(part);
        }
    }
}

/// Returns whether a terminal shows these bytes as text.
fn is_text(chunk: &[u8]) -> bool {
    let text = match std::str::from_utf8(chunk) {
        Ok(text) => text,
        // A character can be cut at the end of a chunk.
        Err(e) if e.error_len().is_none() => {
            std::str::from_utf8(&chunk[..e.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return false,
    };
    !text.contains(|c: char| c.is_control() && !"\t\n\r".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_no_control_characters() {
        for (bytes, want) in [
            (&b"plain\ttext\r\n"[..], true),
            ("größe".as_bytes(), true),
            (&"größ".as_bytes()[..3], true),
            (b"PK\x03\x04", false),
            (b"\x1b[2J", false),
            (b"\xff\xfe", false),
        ] {
            assert_eq!(is_text(bytes), want, "{bytes:?}");
        }
    }
}
