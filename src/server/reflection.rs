//! `grpc.reflection.v1.ServerReflection`, which is also served as v1alpha: lists the services
//! and returns their files. Serves the encoded files of the descriptor sets, which keep the
//! options.
//!
//! An unknown name is an error response, and the stream continues. A file is sent with its
//! dependencies, each once per stream, as grpc-go does.
//! Source: reflection/v1/reflection.proto of gRPC; reflection/internal of grpc-go.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::server_reflection_server::ServerReflection;
use tonic_reflection::pb::v1::{
    ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse,
    ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
};

use super::connection_end::{self, ConnectionEnd};
use super::visibility::Visibility;
use crate::engine::stream_limiter::StreamLimiter;
use crate::error::{Error, StatusContext, cut};
use crate::memory::Memory;

/// The size of a response from which on further dependencies are left out: common clients
/// accept 4 MiB. They request what is missing by its name.
const MAX_RESPONSE_BYTES: usize = 2 << 20;

/// The most bytes of the requests of a stream that wait until the client reads.
const MAX_WAITING_BYTES: usize = 64 << 10;

/// `RetryInfo` of a stream with too many of them.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The longest name that an error repeats, in bytes.
const MAX_QUOTED_BYTES: usize = 200;

/// The descriptor sets of gRPC's own services, and of the details of statuses, which clients
/// print.
const GRPC_SETS: [&[u8]; 4] = [
    tonic_health::pb::FILE_DESCRIPTOR_SET,
    tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
    tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    tonic_types::pb::FILE_DESCRIPTOR_SET,
];

/// Names of files in [`GRPC_SETS`], and the names by which all others import them.
const CANONICAL_NAMES: [(&str, &str); 5] = [
    ("health.proto", "grpc/health/v1/health.proto"),
    ("reflection_v1.proto", "grpc/reflection/v1/reflection.proto"),
    (
        "reflection_v1alpha.proto",
        "grpc/reflection/v1alpha/reflection.proto",
    ),
    ("error_details.proto", "google/rpc/error_details.proto"),
    ("status.proto", "google/rpc/status.proto"),
];

/// A descriptor set whose files stay encoded.
#[derive(Clone, PartialEq, prost::Message)]
struct EncodedSet {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    files: Vec<Bytes>,
}

/// The files that reflection serves, by name, symbol and extension.
#[derive(Debug, Default)]
pub(super) struct Files {
    files: Vec<File>,
    by_name: HashMap<String, usize>,
    /// Of top-level messages, enums and their values, services and extensions. What is nested
    /// is found in the file of its parent.
    by_symbol: HashMap<String, usize>,
    /// By extended message and number.
    extensions: BTreeMap<String, BTreeMap<i32, usize>>,
}

#[derive(Debug)]
struct File {
    encoded: Bytes,
    dependencies: Vec<String>,
}

/// Serves the files.
#[derive(Debug)]
pub(super) struct Reflection {
    /// The names of the services, sorted.
    services: Vec<String>,
    files: Arc<Files>,
    /// Ends the streams when the gateway drains.
    limiter: StreamLimiter,
    max_request_bytes: usize,
}

/// What reflection could not find.
#[derive(Debug, PartialEq, Eq)]
struct NotFound(String);

impl Files {
    /// Indexes the files of encoded descriptor sets, and those of gRPC itself. The first file
    /// of a name, and the first symbol, counts.
    pub(super) fn new(sets: impl IntoIterator<Item = Bytes>) -> Result<Self, String> {
        let mut files = Self::default();
        for set in sets {
            for encoded in decode_set(set)? {
                let file = decode_file(encoded.clone())?;
                files.add(encoded, file);
            }
        }
        for set in GRPC_SETS {
            for encoded in decode_set(Bytes::from_static(set))? {
                let mut file = decode_file(encoded)?;
                for name in file.name.iter_mut().chain(&mut file.dependency) {
                    let mut names = CANONICAL_NAMES.iter();
                    if let Some((_, canonical)) = names.find(|(own, _)| own == name) {
                        *name = (*canonical).to_owned();
                    }
                }
                // These files have no options that decoding would lose.
                files.add(file.encode_to_vec().into(), file);
            }
        }
        Ok(files)
    }

    fn add(&mut self, encoded: Bytes, file: FileDescriptorProto) {
        let index = self.files.len();
        // Sets of different users may have a file of the same name: its symbols are served, too.
        match self.by_name.get(file.name()) {
            Some(known) if self.files[*known].encoded == encoded => return,
            Some(_) => {}
            None => {
                self.by_name.insert(file.name().to_owned(), index);
            }
        }
        visit_symbols(&file, &mut |symbol, is_nested| {
            if !is_nested {
                self.by_symbol.entry(symbol).or_insert(index);
            }
        });
        visit_extensions(&file, &mut |extended, number| {
            let numbers = self.extensions.entry(extended.to_owned()).or_default();
            numbers.entry(number).or_insert(index);
        });
        self.files.push(File {
            encoded,
            dependencies: file.dependency,
        });
    }

    fn file_of_symbol(&self, symbol: &str) -> Option<usize> {
        if let Some(index) = self.by_symbol.get(symbol) {
            return Some(*index);
        }
        let mut parent = symbol;
        while let Some((shorter, _)) = parent.rsplit_once('.') {
            parent = shorter;
            if let Some(index) = self.by_symbol.get(parent) {
                let encoded = self.files[*index].encoded.clone();
                let file = FileDescriptorProto::decode(encoded).ok()?;
                let mut found = false;
                visit_symbols(&file, &mut |known, _| found |= known == symbol);
                return found.then_some(*index);
            }
        }
        None
    }

    /// Returns a file, and those of its dependencies that were not sent on this stream.
    fn with_dependencies(&self, index: usize, sent: &mut BTreeSet<usize>) -> Vec<Vec<u8>> {
        let mut found: Vec<Vec<u8>> = Vec::new();
        let mut bytes = 0;
        let mut queue = VecDeque::from([index]);
        let mut queued = BTreeSet::from([index]);
        while let Some(next) = queue.pop_front() {
            let file = &self.files[next];
            if found.is_empty() || !sent.contains(&next) {
                bytes += file.encoded.len();
                if !found.is_empty() && bytes > MAX_RESPONSE_BYTES {
                    break;
                }
                sent.insert(next);
                found.push(file.encoded.to_vec());
            }
            let dependencies = file.dependencies.iter();
            let known = dependencies.filter_map(|name| self.by_name.get(name).copied());
            queue.extend(known.filter(|dependency| queued.insert(*dependency)));
        }
        found
    }

    fn extension_numbers(&self, message: &str) -> Result<Vec<i32>, NotFound> {
        match self.extensions.get(message) {
            Some(numbers) => Ok(numbers.keys().copied().collect()),
            None if self.file_of_symbol(message).is_some() => Ok(Vec::new()),
            None => Err(NotFound(format!("no message {}", quoted(message)))),
        }
    }
}

fn decode_set(set: Bytes) -> Result<Vec<Bytes>, String> {
    let set = EncodedSet::decode(set).map_err(|e| format!("reflection: {e}"))?;
    Ok(set.files)
}

fn decode_file(file: Bytes) -> Result<FileDescriptorProto, String> {
    FileDescriptorProto::decode(file).map_err(|e| format!("reflection: {e}"))
}

/// Visits the full names in a file, and whether each belongs to a message, enum or service.
fn visit_symbols(file: &FileDescriptorProto, visit: &mut impl FnMut(String, bool)) {
    let package = file.package();
    for message in &file.message_type {
        visit_message(package, message, false, visit);
    }
    for kind in &file.enum_type {
        visit_enum(package, kind, false, visit);
    }
    for extension in &file.extension {
        visit(join(package, extension.name()), false);
    }
    for service in &file.service {
        let name = join(package, service.name());
        for method in &service.method {
            visit(join(&name, method.name()), true);
        }
        visit(name, false);
    }
}

fn visit_message(
    scope: &str,
    message: &DescriptorProto,
    is_nested: bool,
    visit: &mut impl FnMut(String, bool),
) {
    let name = join(scope, message.name());
    let fields = message.field.iter().map(|field| field.name());
    let oneofs = message.oneof_decl.iter().map(|oneof| oneof.name());
    let extensions = message.extension.iter().map(|extension| extension.name());
    for member in fields.chain(oneofs).chain(extensions) {
        visit(join(&name, member), true);
    }
    for nested in &message.nested_type {
        visit_message(&name, nested, true, visit);
    }
    for nested in &message.enum_type {
        visit_enum(&name, nested, true, visit);
    }
    visit(name, is_nested);
}

/// The values of an enum are its siblings; some clients name them as its members.
fn visit_enum(
    scope: &str,
    kind: &EnumDescriptorProto,
    is_nested: bool,
    visit: &mut impl FnMut(String, bool),
) {
    let name = join(scope, kind.name());
    for value in &kind.value {
        visit(join(scope, value.name()), is_nested);
        visit(join(&name, value.name()), true);
    }
    visit(name, is_nested);
}

/// Visits the extended message and the number of each extension.
fn visit_extensions(file: &FileDescriptorProto, visit: &mut impl FnMut(&str, i32)) {
    let mut messages: Vec<&DescriptorProto> = file.message_type.iter().collect();
    let mut extensions: Vec<_> = file.extension.iter().collect();
    while let Some(message) = messages.pop() {
        extensions.extend(&message.extension);
        messages.extend(&message.nested_type);
    }
    for extension in extensions {
        visit(
            extension.extendee().trim_start_matches('.'),
            extension.number(),
        );
    }
}

fn join(scope: &str, name: &str) -> String {
    match scope {
        "" => name.to_owned(),
        scope => format!("{scope}.{name}"),
    }
}

fn quoted(name: &str) -> String {
    cut(name, MAX_QUOTED_BYTES)
}

impl Reflection {
    /// Lists these services.
    pub(super) fn new(
        services: BTreeSet<String>,
        files: Files,
        limiter: StreamLimiter,
        max_request_bytes: usize,
    ) -> Self {
        Self {
            services: services.into_iter().collect(),
            files: Arc::new(files),
            limiter,
            max_request_bytes,
        }
    }
}

/// Answers the requests of one stream, which each get one response.
struct Answers {
    /// What the client sees; none if it may use everything.
    visibility: Option<Visibility>,
    services: Vec<String>,
    files: Arc<Files>,
    /// The files that were sent.
    sent: BTreeSet<usize>,
}

impl Answers {
    fn response(&mut self, request: ServerReflectionRequest) -> ServerReflectionResponse {
        let error = |code: Code, text| {
            MessageResponse::ErrorResponse(ErrorResponse {
                error_code: code.into(),
                error_message: text,
            })
        };
        let message = match &request.message_request {
            Some(message) => self
                .message(message)
                .unwrap_or_else(|NotFound(text)| error(Code::NotFound, text)),
            None => error(
                Code::InvalidArgument,
                "the request is empty, or of a kind that this version does not have".to_owned(),
            ),
        };
        ServerReflectionResponse {
            valid_host: request.host.clone(),
            original_request: Some(request),
            message_response: Some(message),
        }
    }

    fn message(&mut self, request: &MessageRequest) -> Result<MessageResponse, NotFound> {
        let index = match request {
            MessageRequest::FileByFilename(name) => {
                let index = self.files.by_name.get(name).copied();
                index.ok_or_else(|| NotFound(format!("no file {}", quoted(name))))?
            }
            MessageRequest::FileContainingSymbol(symbol) => {
                let is_visible = |see: &Visibility| see.symbol(symbol);
                let index = match self.visibility.as_ref().is_none_or(is_visible) {
                    true => self.files.file_of_symbol(symbol),
                    false => None,
                };
                index.ok_or_else(|| NotFound(format!("no symbol {}", quoted(symbol))))?
            }
            MessageRequest::FileContainingExtension(extension) => {
                let message = &extension.containing_type;
                let number = extension.extension_number;
                let numbers = self.files.extensions.get(message);
                let index = numbers.and_then(|numbers| numbers.get(&number)).copied();
                index.ok_or_else(|| {
                    NotFound(format!("no extension {number} of {}", quoted(message)))
                })?
            }
            MessageRequest::AllExtensionNumbersOfType(message) => {
                let numbers = ExtensionNumberResponse {
                    base_type_name: message.clone(),
                    extension_number: self.files.extension_numbers(message)?,
                };
                return Ok(MessageResponse::AllExtensionNumbersResponse(numbers));
            }
            MessageRequest::ListServices(_) => {
                let services = self.services.iter().filter(|service| {
                    (self.visibility.as_ref()).is_none_or(|see| see.service(service))
                });
                let service = services.map(|name| ServiceResponse { name: name.clone() });
                let list = ListServiceResponse {
                    service: service.collect(),
                };
                return Ok(MessageResponse::ListServicesResponse(list));
            }
        };
        let mut files = self.files.with_dependencies(index, &mut self.sent);
        if let Some(see) = &self.visibility {
            files = files.iter().filter_map(|file| see.file(file)).collect();
        }
        Ok(MessageResponse::FileDescriptorResponse(
            FileDescriptorResponse {
                file_descriptor_proto: files,
            },
        ))
    }

    /// Answers requests until the stream ends. Returns why it fails, if it does.
    async fn answer(
        &mut self,
        mut requests: Streaming<ServerReflectionRequest>,
        sender: &mpsc::Sender<Result<ServerReflectionResponse, Status>>,
        memory: &Memory,
        max_request_bytes: usize,
    ) -> Option<Error> {
        let mut waiting = VecDeque::new();
        let mut waiting_bytes = 0;
        // For the response that waits in the channel, and the one that tonic has encoded.
        let mut reservation = memory.empty();
        let mut before = 0;
        let mut is_open = true;
        loop {
            tokio::select! {
                biased;
                // Fails only when the client has left, and then this future is dropped.
                Ok(permit) = sender.reserve(), if !waiting.is_empty() => {
                    let Some(request) = waiting.pop_front() else { continue };
                    waiting_bytes -= size(&request);
                    let response = self.response(request);
                    let length = response.encoded_len();
                    if let Err(exhausted) = reservation.resize_long(before + length + waiting_bytes)
                    {
                        return Some(exhausted.into());
                    }
                    before = length;
                    permit.send(Ok(response));
                }
                // Read also while the client reads nothing, so that HTTP/2 does not buffer them.
                request = requests.message(), if is_open => match request {
                    Ok(Some(request)) => {
                        waiting_bytes += size(&request);
                        if waiting_bytes > MAX_WAITING_BYTES {
                            return Some(Error::Overload {
                                code: Code::ResourceExhausted,
                                problem: "the client does not read the responses to its requests"
                                    .to_owned(),
                                retry_after: RETRY_AFTER,
                            });
                        }
                        if let Err(exhausted) = reservation.resize_long(before + waiting_bytes) {
                            return Some(exhausted.into());
                        }
                        waiting.push_back(request);
                    }
                    Ok(None) => is_open = false,
                    Err(status) => {
                        return Some(Error::request_not_received(&status, max_request_bytes));
                    }
                },
                else => return None,
            }
        }
    }
}

/// Returns what a request counts for while it waits.
fn size(request: &ServerReflectionRequest) -> usize {
    size_of::<ServerReflectionRequest>() + request.encoded_len()
}

#[tonic::async_trait]
impl ServerReflection for Reflection {
    type ServerReflectionInfoStream = ReceiverStream<Result<ServerReflectionResponse, Status>>;

    async fn server_reflection_info(
        &self,
        request: Request<Streaming<ServerReflectionRequest>>,
    ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
        let end = ConnectionEnd::of(request.extensions());
        let (limiter, max_request_bytes) = (self.limiter.clone(), self.max_request_bytes);
        let memory = request.extensions().get::<Memory>().cloned();
        let memory = memory.unwrap_or_default();
        let mut answers = Answers {
            visibility: request.extensions().get().cloned(),
            services: self.services.clone(),
            files: self.files.clone(),
            sent: BTreeSet::new(),
        };
        // One response is buffered: a client that does not read is not answered further.
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let requests = request.into_inner();
            let failure = tokio::select! {
                () = sender.closed() => return,
                failure = answers.answer(requests, &sender, &memory, max_request_bytes) => failure,
                () = limiter.drain_begun() => Some(Error::Draining),
                () = connection_end::reached(end) => Some(Error::ConnectionTooOld),
            };
            if let Some(error) = failure {
                let context = StatusContext {
                    operation: "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
                    ..StatusContext::default()
                };
                // The client may have left.
                let _ = sender.send(Err(error.status(&context))).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

#[cfg(test)]
mod tests;
