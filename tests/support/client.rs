//! A gRPC client that speaks JSON: requests and responses go through
//! prost-reflect, which shares no code with the gateway's transcoder.

use std::net::SocketAddr;
use std::sync::LazyLock;

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor};
use serde_json::Value;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

/// Decoded once for all tests: decoding takes longer than many of them.
static BUILT_IN: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(drawbridge::contract::BUILT_IN).unwrap());

#[derive(Clone)]
pub struct Client {
    pub channel: Channel,
    pools: Vec<DescriptorPool>,
}

impl Client {
    pub async fn connect(address: SocketAddr, sets: &[Vec<u8>]) -> Self {
        let channel = Channel::from_shared(format!("http://{address}"))
            .unwrap()
            .connect()
            .await
            .unwrap();
        let pools = sets
            .iter()
            .map(|set| match set == drawbridge::contract::BUILT_IN {
                true => BUILT_IN.clone(),
                false => DescriptorPool::decode(set.as_slice()).unwrap(),
            })
            .collect();
        Self { channel, pools }
    }

    /// Calls the built-in methods over this channel.
    pub fn over(channel: Channel) -> Self {
        Self {
            channel,
            pools: vec![BUILT_IN.clone()],
        }
    }

    /// Finds a method by name: `SoftwareConfigService/GetSoftwareConfig`, or with
    /// the package where that is not enough.
    pub fn method(&self, name: &str) -> MethodDescriptor {
        let (service, method) = name.split_once('/').unwrap();
        self.pools
            .iter()
            .flat_map(|pool| pool.services())
            .filter(|s| s.full_name() == service || s.name() == service)
            .flat_map(|s| s.methods().collect::<Vec<_>>())
            .find(|m| m.name() == method)
            .unwrap_or_else(|| panic!("no method {name}"))
    }

    /// Lists the services of a package.
    pub fn services(&self, package: &str) -> Vec<prost_reflect::ServiceDescriptor> {
        let services = self.pools.iter().flat_map(|pool| pool.services());
        services.filter(|s| s.package_name() == package).collect()
    }

    /// Lists all methods of a package.
    pub fn methods(&self, package: &str) -> Vec<MethodDescriptor> {
        self.pools
            .iter()
            .flat_map(|pool| pool.services())
            .filter(|s| s.package_name() == package)
            .flat_map(|s| s.methods().collect::<Vec<_>>())
            .collect()
    }

    /// Calls with a JSON request.
    pub async fn call(&self, method: &str, request: Value) -> Result<DynamicMessage, Status> {
        self.call_with(method, request, &[])
            .await
            .map(Response::into_inner)
    }

    /// Calls with metadata; the response has its own.
    pub async fn call_with(
        &self,
        method: &str,
        request: Value,
        metadata: &[(&str, &str)],
    ) -> Result<Response<DynamicMessage>, Status> {
        let method = self.method(method);
        let message = DynamicMessage::deserialize(method.input(), request.clone())
            .unwrap_or_else(|e| panic!("{}: {e}: {request}", method.full_name()));
        let mut request = Request::new(Bytes::from(message.encode_to_vec()));
        add(&mut request, metadata);
        let response = self.raw(&method, request).await?;
        Ok(response.map(|bytes| DynamicMessage::decode(method.output(), bytes).unwrap()))
    }

    /// Calls with the bytes of a message, valid or not.
    pub async fn raw(
        &self,
        method: &MethodDescriptor,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, Status> {
        let mut grpc =
            tonic::client::Grpc::new(self.channel.clone()).max_decoding_message_size(256 << 20);
        grpc.ready()
            .await
            .map_err(|e| Status::unknown(e.to_string()))?;
        grpc.unary(request, path(method), BytesCodec).await
    }

    /// Calls with a stream of messages.
    pub async fn send(
        &self,
        method: &str,
        messages: impl tokio_stream::Stream<Item = DynamicMessage> + Send + 'static,
    ) -> Result<DynamicMessage, Status> {
        use tokio_stream::StreamExt;
        let method = self.method(method);
        let messages = messages.map(|message| Bytes::from(message.encode_to_vec()));
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        grpc.ready()
            .await
            .map_err(|e| Status::unknown(e.to_string()))?;
        let response = grpc
            .client_streaming(Request::new(messages), path(&method), BytesCodec)
            .await?;
        Ok(DynamicMessage::decode(method.output(), response.into_inner()).unwrap())
    }

    /// Opens a stream.
    pub async fn watch(
        &self,
        method: &str,
        request: Value,
        metadata: &[(&str, &str)],
    ) -> Result<Watch, Status> {
        let method = self.method(method);
        let message = DynamicMessage::deserialize(method.input(), request).unwrap();
        let mut request = Request::new(Bytes::from(message.encode_to_vec()));
        add(&mut request, metadata);
        let mut grpc =
            tonic::client::Grpc::new(self.channel.clone()).max_decoding_message_size(256 << 20);
        grpc.ready()
            .await
            .map_err(|e| Status::unknown(e.to_string()))?;
        let response = grpc
            .server_streaming(request, path(&method), BytesCodec)
            .await?;
        Ok(Watch {
            method,
            metadata: response.metadata().clone(),
            stream: response.into_inner(),
        })
    }
}

/// An open stream.
pub struct Watch {
    method: MethodDescriptor,
    /// The metadata before the first message.
    pub metadata: tonic::metadata::MetadataMap,
    stream: Streaming<Bytes>,
}

impl Watch {
    /// Reads the next message; `None` after OK.
    pub async fn next(&mut self) -> Option<Result<DynamicMessage, Status>> {
        let next = self.stream.message().await.transpose()?;
        Some(next.map(|bytes| DynamicMessage::decode(self.method.output(), bytes).unwrap()))
    }

    /// Reads the next message that is not a bookmark, as JSON. Panics at the end.
    pub async fn event(&mut self) -> Value {
        loop {
            let event = json(&self.next().await.expect("a message").expect("no status"));
            if event["event"]["type"] != "WATCH_EVENT_TYPE_BOOKMARK" {
                return event;
            }
        }
    }
}

/// Converts a message to proto3 JSON with proto names, and numbers as numbers.
pub fn json(message: &DynamicMessage) -> Value {
    let options = prost_reflect::SerializeOptions::new()
        .stringify_64_bit_integers(false)
        .use_proto_field_name(true);
    message
        .serialize_with_options(serde_json::value::Serializer, &options)
        .unwrap()
}

fn add(request: &mut Request<Bytes>, metadata: &[(&str, &str)]) {
    for (name, value) in metadata {
        let name: tonic::metadata::AsciiMetadataKey = name.parse().unwrap();
        request.metadata_mut().insert(name, value.parse().unwrap());
    }
}

fn path(method: &MethodDescriptor) -> http::uri::PathAndQuery {
    format!("/{}/{}", method.parent_service().full_name(), method.name())
        .parse()
        .unwrap()
}

#[derive(Clone, Copy)]
pub struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        *self
    }
    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;
    fn encode(&mut self, item: Bytes, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.put(item);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;
    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(src.copy_to_bytes(src.remaining())))
    }
}
