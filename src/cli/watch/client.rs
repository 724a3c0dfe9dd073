//! Reads streams of a gateway as JSON, and resumes them when the connection breaks.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::mpsc;
use tonic::client::Grpc;
use tonic::codegen::http::uri::{PathAndQuery, Uri};
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};

use super::options::{Options, Source, StreamRequest};
use super::{diagnosis, proto_json};
use crate::server::{TOKEN, WireCodec};
use drawbridge_transcoder::json::{self, wire};

/// Maximum number of attempts in a row without a message.
const MAX_ATTEMPTS: u32 = 6;
/// Backoff before the second attempt. It doubles with each further attempt.
const INITIAL_BACKOFF: Duration = Duration::from_millis(250);
/// Maximum size of a message.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// What happens on a stream.
#[derive(Debug)]
pub(super) enum StreamEvent {
    /// A message.
    Message(Message),
    /// The stream broke and is resumed. The text describes the status.
    Retry(String),
    /// The stream has ended, or cannot be resumed.
    End(Result<(), String>),
}

/// A message in the two forms that are printed.
#[derive(Debug)]
pub(super) struct Message {
    /// JSON as upstreams have it.
    pub(super) json: Value,
    /// The JSON mapping of protobuf, if it is printed.
    pub(super) proto_json: Option<Value>,
}

/// A connection to a gateway, and the metadata of each call.
pub(super) struct Gateway {
    channel: Channel,
    metadata: MetadataMap,
    uri: Uri,
    has_ca: bool,
    /// Whether any stream has had a message: the port is that of a gateway.
    is_established: AtomicBool,
}

impl Gateway {
    /// Connects.
    pub(super) async fn connect(
        options: &Options,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let url = &options.gateway;
        let bad = |problem: &dyn std::fmt::Display| format!("--gateway {url}: {problem}");
        let mut endpoint = Endpoint::from_shared(url.clone())
            .map_err(|e| bad(&e))?
            .connect_timeout(Duration::from_secs(10))
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(20));
        match (endpoint.uri().scheme_str(), &options.ca) {
            (Some("http"), None) if options.cert.is_none() => {}
            (Some("http"), _) => return Err(bad(&"--ca, --cert and --key are for https://")),
            (Some("https"), ca) => {
                let mut tls = ClientTlsConfig::new();
                tls = match ca {
                    Some(ca) => tls.ca_certificate(Certificate::from_pem(read(ca)?)),
                    None => tls.with_native_roots(),
                };
                if let (Some(cert), Some(key)) = (&options.cert, &options.key) {
                    tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?));
                }
                endpoint = endpoint.tls_config(tls).map_err(|e| {
                    let problem = diagnosis::last_cause(&e);
                    match ca {
                        Some(_) => bad(&problem),
                        None => bad(&format!(
                            "{problem}; or give the gateway's CA with --ca FILE"
                        )),
                    }
                })?;
            }
            _ => return Err(bad(&"must be http://HOST:PORT or https://HOST:PORT")),
        }
        let metadata = metadata(options, env)?;
        let uri = endpoint.uri().clone();
        let has_ca = options.ca.is_some();
        match endpoint.connect().await {
            Ok(channel) => Ok(Self {
                channel,
                metadata,
                uri,
                has_ca,
                is_established: AtomicBool::new(false),
            }),
            Err(e) => Err(diagnosis::of_connection(&uri, has_ca, e).await),
        }
    }

    /// Describes the end of a stream that is not worth another attempt.
    async fn permanent_problem(&self, status: &Status) -> Option<String> {
        // The gateway's own statuses have no source.
        let cause = status.source()?;
        let probes = !self.is_established.load(Ordering::Relaxed);
        diagnosis::permanent(&self.uri, self.has_ca, cause, probes).await
    }
}

fn read(path: &std::path::Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))
}

fn metadata(
    options: &Options,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<MetadataMap, String> {
    let mut metadata = MetadataMap::new();
    let mut add = |name: &str, value: &str, secret: bool| {
        let key = MetadataKey::from_bytes(name.as_bytes());
        let value = MetadataValue::try_from(value);
        let (Ok(key), Ok(mut value)) = (key, value) else {
            return Err(format!(
                "the name or the value of the metadata `{name}` is invalid in gRPC"
            ));
        };
        value.set_sensitive(secret);
        metadata.insert(key, value);
        Ok(())
    };
    for (name, variable) in [(TOKEN, "DRAWBRIDGE_TOKEN"), ("x-auth-token", "OS_TOKEN")] {
        if let Some(token) = env(variable) {
            add(name, &token, true)?;
        }
    }
    if let Some(upstream) = &options.upstream {
        add("drawbridge-upstream", upstream, false)?;
    }
    for text in &options.metadata {
        match text.split_once('=') {
            Some((name, value)) => add(&name.to_ascii_lowercase(), value, true)?,
            None => return Err("--metadata: write NAME=VALUE".to_owned()),
        }
    }
    Ok(metadata)
}

/// Reads a stream until it ends, and sends what happens to `events`.
pub(super) async fn follow(
    gateway: Arc<Gateway>,
    stream_request: StreamRequest,
    events: mpsc::Sender<(Source, StreamEvent)>,
) {
    let source = stream_request.source;
    let mut request = stream_request.request.clone();
    let mut attempts = 0;
    loop {
        let mut received = false;
        let end = stream(
            &gateway,
            &stream_request,
            &mut request,
            &events,
            &mut received,
        )
        .await;
        if received {
            attempts = 0;
        }
        let Some(end) = end else {
            return;
        };
        let problem = match &end {
            Err(status) => gateway.permanent_problem(status).await,
            Ok(()) => None,
        };
        let end = match end {
            Ok(()) => Ok(()),
            Err(_) if problem.is_some() => Err(problem.unwrap_or_default()),
            Err(status) if is_retryable(&status) && attempts + 1 < MAX_ATTEMPTS => {
                attempts += 1;
                let retry = StreamEvent::Retry(describe(&status));
                // Only the first attempt of a row is reported.
                if attempts == 1 && events.send((source, retry)).await.is_err() {
                    return;
                }
                tokio::time::sleep(INITIAL_BACKOFF * (1 << (attempts - 1))).await;
                continue;
            }
            Err(status) => Err(describe(&status)),
        };
        let _ = events.send((source, StreamEvent::End(end))).await;
        return;
    }
}

/// Reads one stream until it ends. Returns none if the receiver of `events` is gone.
async fn stream(
    gateway: &Gateway,
    stream_request: &StreamRequest,
    request: &mut Bytes,
    events: &mpsc::Sender<(Source, StreamEvent)>,
    received: &mut bool,
) -> Option<Result<(), Status>> {
    let method = &stream_request.method;
    let mut grpc = Grpc::new(gateway.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
    if let Err(e) = grpc.ready().await {
        let mut status = Status::unavailable(diagnosis::last_cause(&e));
        status.set_source(Arc::new(e));
        return Some(Err(status));
    }
    let Ok(path) = PathAndQuery::try_from(&*method.path) else {
        return Some(Err(Status::internal("the rpc has no path")));
    };
    let mut call = Request::new(request.clone());
    *call.metadata_mut() = gateway.metadata.clone();
    let response = grpc.server_streaming(call, path, WireCodec::stream()).await;
    let mut messages = match response {
        Ok(response) => response.into_inner(),
        Err(status) => return Some(Err(status)),
    };
    loop {
        let message = match messages.message().await {
            Ok(Some(message)) => message,
            Ok(None) => return Some(Ok(())),
            Err(status) => return Some(Err(status)),
        };
        *received = true;
        gateway.is_established.store(true, Ordering::Relaxed);
        let mut json = Vec::with_capacity(message.len() * 2);
        let written = json::to_json(
            &method.schema,
            method.output,
            &message,
            &|_| false,
            &mut json,
        );
        let value = written
            .ok()
            .and_then(|()| serde_json::from_slice(&json).ok());
        let proto_json = match &stream_request.descriptor {
            Some(descriptor) => proto_json::of(descriptor, &message).map(Some),
            None => Some(None),
        };
        let (Some(json), Some(proto_json)) = (value, proto_json) else {
            return Some(Err(Status::internal(
                "a message does not match the contract",
            )));
        };
        if let Some(next) = resumed_request(stream_request, &json) {
            *request = next;
        }
        let message = StreamEvent::Message(Message { json, proto_json });
        if events.send((stream_request.source, message)).await.is_err() {
            return None;
        }
    }
}

/// Returns the request that resumes the stream after this message.
fn resumed_request(stream_request: &StreamRequest, message: &Value) -> Option<Bytes> {
    let (field, member) = stream_request.resume.as_ref()?;
    let field = *field;
    let mut request = stream_request.request.to_vec();
    match message.get(&**member)? {
        Value::String(marker) => wire::write_bytes(&mut request, field, marker.as_bytes()),
        Value::Number(offset) => wire::write_uint(&mut request, field, offset.as_u64()?),
        _ => return None,
    }
    Some(request.into())
}

/// Returns whether the stream can be resumed: the gateway or the connection is unavailable.
fn is_retryable(status: &Status) -> bool {
    status.code() == Code::Unavailable
        || (status.source().is_some()
            && matches!(
                status.code(),
                Code::Unknown | Code::Cancelled | Code::Internal
            ))
}

fn describe(status: &Status) -> String {
    let code = crate::telemetry::code_name(status.code());
    match status.message() {
        "" => code.to_owned(),
        message => format!("{code}: {message}"),
    }
}
