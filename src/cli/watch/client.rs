//! Streams of a gateway, as JSON, resumed when they break.

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

use super::options::{Options, Plan, Source};
use crate::server::{TOKEN, WireCodec};
use drawbridge_transcoder::json::{self, wire};

/// Tries in a row before a stream is given up.
const TRIES: u32 = 6;
/// The pause before the second try; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The largest message taken.
const MAX_MESSAGE: usize = 64 << 20;

/// What a stream brings.
#[derive(Debug)]
pub(super) enum News {
    /// A message, as JSON.
    Message(Value),
    /// It broke and is tried again.
    Trouble(String),
    /// It has ended, or cannot go on.
    Over(Result<(), String>),
}

/// A gateway, and as whom it is spoken to.
pub(super) struct Gateway {
    channel: Channel,
    metadata: MetadataMap,
}

impl Gateway {
    /// Connects with the first call.
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
            return Err(format!("the metadata `{name}` is not what gRPC can send"));
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

/// Follows a stream to its end; what it brings goes to `news`.
pub(super) async fn follow(gateway: Arc<Gateway>, plan: Plan, news: mpsc::Sender<(Source, News)>) {
    let source = plan.source;
    let mut request = plan.request.clone();
    let mut tries = 0;
    loop {
        let mut brought = false;
        let end = stream(&gateway, &plan, &mut request, &news, &mut brought).await;
        if brought {
            tries = 0;
        }
        let Some(end) = end else {
            return;
        };
        let over = match end {
            Ok(()) => Ok(()),
            Err(status) if passes(&status) && tries + 1 < TRIES => {
                tries += 1;
                let trouble = News::Trouble(told(&status));
                // Once is enough.
                if tries == 1 && news.send((source, trouble)).await.is_err() {
                    return;
                }
                tokio::time::sleep(FIRST_PAUSE * (1 << (tries - 1))).await;
                continue;
            }
            Err(status) => Err(told(&status)),
        };
        let _ = news.send((source, News::Over(over))).await;
        return;
    }
}

/// One stream until it ends. None when nobody listens any more.
async fn stream(
    gateway: &Gateway,
    plan: &Plan,
    request: &mut Bytes,
    news: &mpsc::Sender<(Source, News)>,
    brought: &mut bool,
) -> Option<Result<(), Status>> {
    let method = &plan.method;
    let mut grpc = Grpc::new(gateway.channel.clone()).max_decoding_message_size(MAX_MESSAGE);
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
        *brought = true;
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
                    "a message is not what the contract says",
                )));
            }
        };
        if let Some(next) = resumed(plan, &value) {
            *request = next;
        }
        if news
            .send((plan.source, News::Message(value)))
            .await
            .is_err()
        {
            return None;
        }
    }
}

/// The request that goes on behind this message.
fn resumed(plan: &Plan, message: &Value) -> Option<Bytes> {
    let (field, member) = plan.resume.as_ref()?;
    let field = *field;
    let mut request = plan.request.to_vec();
    match message.get(&**member)? {
        Value::String(marker) => wire::write_bytes(&mut request, field, marker.as_bytes()),
        Value::Number(offset) => wire::write_uint(&mut request, field, offset.as_u64()?),
        _ => return None,
    }
    Some(request.into())
}

/// Whether the same stream may go on a little later.
fn passes(status: &Status) -> bool {
    status.code() == Code::Unavailable
        || (status.source().is_some()
            && matches!(
                status.code(),
                Code::Unknown | Code::Cancelled | Code::Internal
            ))
}

fn told(status: &Status) -> String {
    let code = crate::telemetry::code_name(status.code());
    match status.message() {
        "" => code.to_owned(),
        message => format!("{code}: {message}"),
    }
}

/// An error with its causes, of which the last one says most.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
