//! Makes a call at the gRPC listener and returns what happens as lines of JSON: the metadata, a
//! line per message, and the status last.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Response, StatusCode, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bytes::{Buf as _, BufMut as _, Bytes};
use drawbridge_transcoder::contract::CanonicalJson;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor, MethodDescriptor, SerializeOptions};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{KeyAndValueRef, MetadataKey, MetadataMap, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use super::{CallPermit, Connection, Pools};
use crate::admin::response::respond;
use crate::error::{Error, StatusContext};
use crate::http_client::own_listener;
use crate::memory::{Memory, Reservation};
use crate::telemetry::code_name;

/// The largest message of a response. A browser shows no larger one.
const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// How much memory a message takes in proportion to its length while it becomes JSON: its bytes,
/// its fields, their values as JSON, and the text.
const MESSAGE_FACTOR: usize = 8;

/// The time in which a connection to the listener of the same process must be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest deadline of a call. gRPC has at most eight digits of a unit.
const MAX_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);

/// A call as the visitor has typed it.
#[derive(Deserialize)]
pub(super) struct CallRequest {
    /// `package.Service/Method`.
    pub(super) method: String,
    /// The messages, in the JSON mapping of protobuf: one, unless the client streams.
    messages: Vec<Box<RawValue>>,
    /// Names and values.
    #[serde(default)]
    metadata: Vec<(String, String)>,
    timeout_ms: Option<u64>,
}

/// A call that can be made.
pub(super) struct PreparedCall {
    method: MethodDescriptor,
    messages: Vec<Bytes>,
    metadata: MetadataMap,
    timeout: Option<Duration>,
}

impl CallRequest {
    /// Reads messages and metadata. Fails with a text for the visitor.
    pub(super) fn prepare(
        self,
        method: &MethodDescriptor,
        json: &CanonicalJson,
    ) -> Result<PreparedCall, String> {
        if method.is_client_streaming() && method.is_server_streaming() {
            return Err("this page makes no bidirectional calls".to_owned());
        }
        if !method.is_client_streaming() && self.messages.len() != 1 {
            return Err("send one message".to_owned());
        }
        let messages = self.messages.iter().enumerate().map(|(number, text)| {
            message(&method.input(), text, json).map_err(|error| match self.messages.len() {
                1 => error,
                _ => format!("message {}: {error}", number + 1),
            })
        });
        let timeout = self.timeout_ms.map(Duration::from_millis);
        if timeout.is_some_and(|timeout| timeout > MAX_TIMEOUT) {
            return Err("the deadline is more than a year ahead".to_owned());
        }
        Ok(PreparedCall {
            method: method.clone(),
            messages: messages.collect::<Result<_, _>>()?,
            metadata: metadata(&self.metadata)?,
            timeout,
        })
    }
}

fn message(
    descriptor: &MessageDescriptor,
    text: &RawValue,
    json: &CanonicalJson,
) -> Result<Bytes, String> {
    let message = json
        .message(descriptor.full_name())
        .ok_or("the descriptors have no such message")?;
    let read = json.to_wire(message, text.get().as_bytes());
    read.map_err(|problem| problem.to_string())
}

/// Reads metadata. Values are secret, whatever their names.
fn metadata(pairs: &[(String, String)]) -> Result<MetadataMap, String> {
    let mut metadata = MetadataMap::new();
    for (name, value) in pairs {
        let name = name.trim().to_ascii_lowercase();
        let invalid = || format!("the metadata {name} is invalid in gRPC");
        if name.starts_with("grpc-") {
            return Err(invalid());
        }
        if name.ends_with("-bin") {
            let key = MetadataKey::from_bytes(name.as_bytes()).map_err(|_| invalid())?;
            let bytes = STANDARD
                .decode(value)
                .or_else(|_| STANDARD_NO_PAD.decode(value));
            let bytes = bytes.map_err(|_| format!("the metadata {name} is not base64"))?;
            let mut value = MetadataValue::from_bytes(&bytes);
            value.set_sensitive(true);
            metadata.append_bin(key, value);
        } else {
            let key = MetadataKey::from_bytes(name.as_bytes()).map_err(|_| invalid())?;
            let mut value: MetadataValue<_> = value.trim().parse().map_err(|_| invalid())?;
            value.set_sensitive(true);
            metadata.append(key, value);
        }
    }
    Ok(metadata)
}

impl PreparedCall {
    /// Makes the call. It ends when the browser no longer reads.
    pub(super) fn run(
        self,
        connection: Connection,
        pools: Arc<Pools>,
        permit: CallPermit,
        memory: Memory,
    ) -> Response<Body> {
        let (lines, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let lines = Lines(lines);
            tokio::select! {
                () = lines.0.closed() => {}
                () = self.send(&connection, &pools, &lines, memory) => {}
            }
            drop(permit);
        });
        let body = Body::from_stream(ReceiverStream::new(receiver));
        respond(StatusCode::OK, "application/x-ndjson", body)
    }

    async fn send(self, connection: &Connection, pools: &Pools, lines: &Lines, memory: Memory) {
        let start = Instant::now();
        let result = self.call(connection, lines, memory).await;
        let (status, trailers) = match result {
            Ok(trailers) => (Status::ok(""), trailers),
            Err(status) => {
                let trailers = status.metadata().clone();
                (status, trailers)
            }
        };
        let elapsed_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let line = json!({
            "status": {
                "code": code_name(status.code()),
                "number": status.code() as i32,
                "message": status.message(),
                "details": details(status.details(), pools),
                "metadata": pairs(&trailers),
            },
            "elapsed_ms": elapsed_ms,
        });
        lines.send(&line).await;
    }

    /// Makes the call, and returns its trailers.
    async fn call(
        self,
        connection: &Connection,
        lines: &Lines,
        memory: Memory,
    ) -> Result<MetadataMap, Status> {
        let channel = connect(connection).await?;
        let codec = DynamicCodec(self.method.output(), memory);
        let mut grpc = Grpc::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        grpc.ready().await.map_err(unreachable)?;
        let path = format!(
            "/{}/{}",
            self.method.parent_service().full_name(),
            self.method.name()
        );
        let path = PathAndQuery::try_from(path).map_err(|e| Status::internal(e.to_string()))?;
        let mut request = Request::new(tokio_stream::iter(self.messages));
        *request.metadata_mut() = self.metadata;
        if let Some(timeout) = self.timeout {
            request.set_timeout(timeout);
        }
        let timeout = self.timeout;
        let response = grpc.streaming(request, path, codec).await;
        let response = response.map_err(|status| match status.code() {
            // tonic ends a call by its own timer, too, and calls it so.
            Code::Cancelled if timeout.is_some() => {
                Status::deadline_exceeded("the deadline has passed")
            }
            _ => status,
        })?;
        let head = json!({"metadata": pairs(response.metadata())});
        lines.send(&head).await;
        let mut messages = response.into_inner();
        while let Some((message, held)) = messages.message().await? {
            let options = SerializeOptions::new();
            let value = message
                .serialize_with_options(serde_json::value::Serializer, &options)
                .map_err(|error| Status::internal(error.to_string()))?;
            lines.send_held(&json!({"message": value}), held).await;
        }
        Ok(messages.trailers().await?.unwrap_or_default())
    }
}

/// Connects to the listener of this process.
async fn connect(connection: &Connection) -> Result<Channel, Status> {
    let target = connection.target;
    let invalid = |error: &dyn std::error::Error| Status::internal(error.to_string());
    let mut endpoint = Endpoint::from_shared(format!("http://{target}"))
        .and_then(|endpoint| endpoint.user_agent("drawbridge-page"))
        .map_err(|error| invalid(&error))?
        .connect_timeout(CONNECT_TIMEOUT);
    let has_tls = connection.has_tls;
    if has_tls {
        let origin = Uri::try_from(format!("https://{target}"));
        endpoint = endpoint.origin(origin.map_err(|error| invalid(&error))?);
    }
    let connector = tower::service_fn(move |_: Uri| async move {
        let stream = TcpStream::connect(target).await?;
        stream.set_nodelay(true)?;
        own_listener::secure(stream, has_tls)
            .await
            .map(TokioIo::new)
    });
    let connected = endpoint.connect_with_connector(connector).await;
    connected.map_err(unreachable)
}

fn unreachable(error: impl std::error::Error) -> Status {
    let mut cause: &dyn std::error::Error = &error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    Status::unavailable(format!("cannot connect to the gRPC listener: {cause}"))
}

/// Sends lines while the browser reads.
struct Lines(mpsc::Sender<Result<Bytes, std::convert::Infallible>>);

impl Lines {
    async fn send(&self, value: &Value) {
        self.send_held(value, Reservation::default()).await;
    }

    /// Sends a line, whose memory is held until it is written.
    async fn send_held(&self, value: &Value, mut held: Reservation) {
        let mut line = value.to_string();
        line.push('\n');
        if held.bytes() > line.len() {
            // Less is never an error.
            let _ = held.resize(line.len());
        }
        let line = held.attach(line.into_bytes());
        // The browser may have stopped reading, which ends the call.
        let _ = self.0.send(Ok(line)).await;
    }
}

/// Returns metadata as JSON, without the details of the status.
fn pairs(metadata: &MetadataMap) -> Value {
    let pairs = metadata.iter().filter_map(|pair| match pair {
        KeyAndValueRef::Ascii(name, value) => {
            let value = String::from_utf8_lossy(value.as_encoded_bytes()).into_owned();
            Some(json!([name.as_str(), value]))
        }
        KeyAndValueRef::Binary(name, _) if name == "grpc-status-details-bin" => None,
        KeyAndValueRef::Binary(name, value) => {
            let bytes = value.to_bytes().unwrap_or_default();
            Some(json!([name.as_str(), STANDARD.encode(bytes)]))
        }
    });
    pairs.collect()
}

/// Returns the details of a status as JSON, each with its type.
fn details(details: &[u8], pools: &Pools) -> Value {
    let status = tonic_types::pb::Status::decode(details).unwrap_or_default();
    let details = status.details.iter().map(|detail| {
        let name = detail.type_url.rsplit('/').next().unwrap_or_default();
        let mut described = Map::new();
        described.insert("@type".to_owned(), detail.type_url.as_str().into());
        let decoded = pools.message(name).and_then(|message| {
            let message = DynamicMessage::decode(message, &*detail.value).ok()?;
            serde_json::to_value(&message).ok()
        });
        match decoded {
            Some(Value::Object(members)) => described.extend(members),
            Some(value) => drop(described.insert("value".to_owned(), value)),
            None => {
                let value = STANDARD.encode(&detail.value);
                described.insert("value".to_owned(), value.into());
            }
        }
        Value::Object(described)
    });
    details.collect()
}

/// Sends messages that are encoded, and decodes those of one type with memory for them.
struct DynamicCodec(MessageDescriptor, Memory);

impl Codec for DynamicCodec {
    type Encode = Bytes;
    type Decode = (DynamicMessage, Reservation);
    type Encoder = WireEncoder;
    type Decoder = DynamicDecoder;

    fn encoder(&mut self) -> WireEncoder {
        WireEncoder
    }

    fn decoder(&mut self) -> DynamicDecoder {
        DynamicDecoder(self.0.clone(), self.1.clone())
    }
}

struct WireEncoder;

impl Encoder for WireEncoder {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

struct DynamicDecoder(MessageDescriptor, Memory);

impl Decoder for DynamicDecoder {
    type Item = (DynamicMessage, Reservation);
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        let held = self.1.reserve_long(MESSAGE_FACTOR * from.remaining());
        let held = held.map_err(|e| Error::from(e).status(&StatusContext::default()))?;
        let decoded = DynamicMessage::decode(self.0.clone(), from);
        decoded
            .map(|message| Some((message, held)))
            .map_err(|error| Status::internal(error.to_string()))
    }
}
