//! Reads streams of a gateway as JSON, and resumes them when the connection breaks.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::mpsc;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};

use super::options::{Options, Source, StreamRequest};
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
    /// A message, as JSON.
    Message(Value),
    /// The stream broke and is resumed. The text describes the status.
    Retry(String),
    /// The stream has ended, or cannot be resumed.
    End(Result<(), String>),
}

/// A connection to a gateway, and the metadata of each call.
pub(super) struct Gateway {
    channel: Channel,
    metadata: MetadataMap,
}

impl Gateway {
    /// Creates a connection, which the first call opens.
    pub(super) fn new(
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
            (Some("https"), Some(ca)) => {
                let mut tls =
                    ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(ca)?));
                if let (Some(cert), Some(key)) = (&options.cert, &options.key) {
                    tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?));
                }
                endpoint = endpoint.tls_config(tls).map_err(|e| bad(&e))?;
            }
            (Some("https"), None) => return Err(bad(&"https:// needs --ca FILE")),
            _ => return Err(bad(&"must be http://HOST:PORT or https://HOST:PORT")),
        }
        Ok(Self {
            channel: endpoint.connect_lazy(),
            metadata: metadata(options, env)?,
        })
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
        let end = match end {
            Ok(()) => Ok(()),
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
        return Some(Err(Status::unavailable(causes(&e))));
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
        let mut json = Vec::with_capacity(message.len() * 2);
        let written = json::to_json(
            &method.schema,
            method.output,
            &message,
            &|_| false,
            &mut json,
        );
        let value = match written.map(|()| serde_json::from_slice(&json)) {
            Ok(Ok(value)) => value,
            _ => {
                return Some(Err(Status::internal(
                    "a message does not match the contract",
                )));
            }
        };
        if let Some(next) = resumed_request(stream_request, &value) {
            *request = next;
        }
        if events
            .send((stream_request.source, StreamEvent::Message(value)))
            .await
            .is_err()
        {
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

/// Returns an error and its sources; the last is usually the most specific.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
