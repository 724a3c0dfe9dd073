//! `drawbridge call`: calls any rpc of a running gateway with JSON.
//!
//! `file` sends and receives files.

mod file;

use std::error::Error as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use prost::Message as _;
use prost_reflect::{DynamicMessage, MethodDescriptor};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{KeyAndValueRef, MetadataMap};
use tonic::{Code, Status, Streaming};

use super::client::failure::Failure;
use super::client::gateway::Gateway;
use super::client::options::{ConnectionOptions, UpstreamOption};
use super::client::reflection::Api;
use super::client::text::{escape_json, sanitize};
use super::client::{duration, exit_code, names, proto_json, request, resource_name, variable};
use crate::server::WireCodec;
use file::{Download, Messages, Upload};

/// How long the gateway may take to respond after `--timeout` that the deadline has passed.
const DEADLINE_GRACE: Duration = Duration::from_secs(2);
/// Response metadata with the paths of rounded numbers.
const INEXACT: &str = "drawbridge-inexact";
/// Response metadata with the encoded details of the status, which are printed as lines.
const DETAILS: &str = "grpc-status-details-bin";

/// Arguments of `drawbridge call`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  drawbridge call ListStacks
  drawbridge call StackService/GetStack '{\"stack_name\": \"shop\"}'
  echo '{\"stack_name\": \"shop\"}' | drawbridge call GetStack -d @-
  drawbridge call ListStacks -o name
  drawbridge call ExportServiceTemplate '{\"id\": 3001}' -o template.zip
  drawbridge call ImportServiceTemplate --data-file template.zip

Exit codes: 0 OK, 1 the gateway responded an error, 2 not called or no response, 124 --timeout, \
130 Ctrl-C.")]
pub struct Options {
    /// The rpc; the package, and the service, may be left out where that is unambiguous.
    #[arg(value_name = "SERVICE/METHOD")]
    method: String,
    /// The request as JSON, with names of fields as in the proto or in lowerCamelCase; @FILE
    /// reads a file, @- standard input. Several documents are several calls, or the messages of
    /// a client stream. Default: {}.
    #[arg(value_name = "JSON")]
    requests: Vec<String>,
    /// The same as JSON; may be repeated.
    #[arg(long = "data", short, value_name = "JSON|@FILE")]
    data: Vec<String>,
    /// The file to upload, or - for standard input. The request has its name, unless it names
    /// another one.
    #[arg(long, value_name = "FILE")]
    data_file: Option<String>,
    /// json (default): responses in the JSON mapping of protobuf, streams with one line per
    /// message. name: the identifiers of the resources in them, or else in the request, as the
    /// next command takes them. For a download the file to write, or - for standard output.
    #[arg(long, short, value_name = "json|name|FILE")]
    output: Option<String>,
    /// Deadline: 90 (seconds), 30s, 10m or 1h30m. Default: that of the gateway.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// Print the response metadata to standard error, also of an error.
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    connection: ConnectionOptions,
    #[command(flatten)]
    upstream: UpstreamOption,
}

/// Calls the rpc, and returns the exit code.
pub async fn run(options: &Options) -> u8 {
    let deadline = options.timeout.map(|timeout| Instant::now() + timeout);
    let expired = async {
        match deadline {
            Some(deadline) => tokio::time::sleep_until(deadline + DEADLINE_GRACE).await,
            None => std::future::pending().await,
        }
    };
    let responses = AtomicU64::new(0);
    tokio::select! {
        result = call(options, deadline, &responses) => match result {
            Ok(code) => code,
            Err(failure) => {
                failure.print();
                failure.code
            }
        },
        () = expired => {
            super::print_error(&expired_text(responses.load(Ordering::Relaxed)));
            exit_code::TIMED_OUT
        }
        _ = tokio::signal::ctrl_c() => exit_code::INTERRUPTED,
    }
}

/// Says that the deadline has passed, where the gateway has not said so.
fn expired_text(responses: u64) -> String {
    let responses = match responses {
        0 => "no response".to_owned(),
        1 => "the call has not ended, after one response,".to_owned(),
        count => format!("the call has not ended, after {count} responses,"),
    };
    format!("DEADLINE_EXCEEDED: {responses} within --timeout")
}

/// What the command writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Json,
    Name,
}

async fn call(
    options: &Options,
    deadline: Option<Instant>,
    responses: &AtomicU64,
) -> Result<u8, Failure> {
    names::check(&options.method)?;
    let gateway = Gateway::connect(&options.connection, &variable).await;
    let mut gateway = gateway.map_err(Failure::unknown)?;
    let api = Api::load(&gateway, Some(&options.method)).await?;
    let method = names::method(&api, &options.method)?;
    gateway.set_upstream(options.upstream.of(&method)?)?;
    let (format, download) = output(options, &method)?;
    let requests = request::all(&method.input(), &options.requests, &options.data).await?;
    let upload = match &options.data_file {
        Some(path) => Some(
            Upload::open(&method, path, requests.first())
                .await
                .map_err(Failure::unknown)?,
        ),
        None => None,
    };
    let call = Call {
        gateway: &gateway,
        method: &method,
        deadline,
        has_timeout: options.timeout.is_some(),
        verbose: options.verbose,
        format,
        responses,
    };
    // The messages of one call, or a call each.
    let calls: Vec<Vec<_>> = match method.is_client_streaming() {
        true => vec![requests],
        false => requests.into_iter().map(|request| vec![request]).collect(),
    };
    if calls.len() > 1 && (upload.is_some() || download.is_some()) {
        return Err(Failure::unknown("give one request for one file"));
    }
    let mut codes = Vec::new();
    let mut files = Some((upload, download));
    for messages in calls {
        let (upload, download) = files.take().unwrap_or_default();
        let (failed, failure) = oneshot::channel();
        let request = messages.first().cloned();
        responses.store(0, Ordering::Relaxed);
        let messages: Messages = match upload {
            Some(upload) => upload.messages(messages, failed),
            None => {
                let messages = messages
                    .iter()
                    .map(|message| message.encode_to_vec().into());
                Box::pin(tokio_stream::iter(messages.collect::<Vec<Bytes>>()))
            }
        };
        let result = tokio::select! {
            result = call.run(messages, request, download) => result,
            Ok(problem) = failure => Err(Failure::unknown(problem)),
        };
        codes.push(match result {
            Ok(()) => exit_code::SUCCEEDED,
            Err(failure) => {
                failure.print();
                failure.code
            }
        });
    }
    Ok(exit_code::of_all(codes))
}

/// Returns the format, and the file of a download unless its messages are printed.
fn output(
    options: &Options,
    method: &MethodDescriptor,
) -> Result<(Format, Option<Download>), Failure> {
    let output = options.output.as_deref();
    match (output, Download::of(method)) {
        (Some("json"), _) => Ok((Format::Json, None)),
        (Some("name"), Some(_)) => Err(Failure::unknown(format!(
            "-o name: {} is a download, without names; write a file called name as ./name",
            names::short_name(method)
        ))),
        (Some("name"), None) if !resource_name::has_names(method) => {
            Err(Failure::unknown(format!(
                "-o name: {} has no resource with a name: write json",
                names::short_name(method)
            )))
        }
        (Some("name"), None) => Ok((Format::Name, None)),
        (path, Some(download)) => Ok((Format::Json, Some(download.to(path)))),
        (None, None) => Ok((Format::Json, None)),
        (Some(other), None) => Err(Failure::unknown(format!(
            "-o {}: {} is no download; write json or name",
            sanitize(other),
            names::short_name(method)
        ))),
    }
}

/// How each call of the command is made.
struct Call<'c> {
    gateway: &'c Gateway,
    method: &'c MethodDescriptor,
    deadline: Option<Instant>,
    has_timeout: bool,
    verbose: bool,
    format: Format,
    /// How many messages of the response have arrived.
    responses: &'c AtomicU64,
}

impl Call<'_> {
    async fn run(
        &self,
        messages: Messages,
        request_message: Option<DynamicMessage>,
        download: Option<Download>,
    ) -> Result<(), Failure> {
        let mut request = self.gateway.request(messages);
        if let Some(deadline) = self.deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            request.set_timeout(left.max(Duration::from_millis(1)));
        }
        let path = format!("/{}", names::full_name(self.method));
        let path = PathAndQuery::try_from(path).map_err(|e| Failure::unknown(e.to_string()))?;
        let mut grpc = self.gateway.grpc();
        if let Err(e) = grpc.ready().await {
            let problem = super::client::gateway::last_cause(&e);
            let problem = format!("the connection to the gateway has failed: {problem}");
            return Err(Failure::unknown(problem));
        }
        let response = grpc.streaming(request, path, WireCodec::stream()).await;
        let response = match response {
            Ok(response) => response,
            Err(status) => return Err(self.failure(&status).await),
        };
        self.gateway.set_established();
        self.show_metadata(response.metadata());
        let mut responses = response.into_inner();
        match download {
            Some(download) => self.save(download, &mut responses).await?,
            None => {
                let request = request_message.as_ref();
                self.show(&mut responses, request).await?;
            }
        }
        if self.verbose
            && let Ok(Some(trailers)) = responses.trailers().await
        {
            print_metadata(&trailers);
        }
        Ok(())
    }

    /// Prints the messages of the response. A unary response has exactly one.
    async fn show(
        &self,
        responses: &mut Streaming<Bytes>,
        request: Option<&DynamicMessage>,
    ) -> Result<(), Failure> {
        let mut count = 0_u64;
        let is_stream = self.method.is_server_streaming();
        while let Some(message) = self.next(responses).await? {
            count += 1;
            let text = self.text(&message, request, is_stream)?;
            if !super::print_text(&text) {
                // A reader such as `head` has seen enough.
                return Ok(());
            }
        }
        match is_stream || count == 1 {
            true => Ok(()),
            false => Err(Failure::unknown(format!(
                "the response has {count} messages instead of one"
            ))),
        }
    }

    async fn next(&self, responses: &mut Streaming<Bytes>) -> Result<Option<Bytes>, Failure> {
        match responses.message().await {
            Ok(message) => {
                self.responses.fetch_add(1, Ordering::Relaxed);
                Ok(message)
            }
            Err(status) => Err(self.failure(&status).await),
        }
    }

    fn text(
        &self,
        message: &Bytes,
        request: Option<&DynamicMessage>,
        is_stream: bool,
    ) -> Result<String, Failure> {
        let output = self.method.output();
        let mismatch =
            || Failure::unknown("the response does not match the descriptors of the gateway");
        let value = proto_json::of(&output, message).ok_or_else(mismatch)?;
        Ok(match self.format {
            Format::Name => {
                let response = DynamicMessage::decode(output, message.clone());
                let response = response.map_err(|_| mismatch())?;
                let names = resource_name::of_call(self.method, request, &response);
                names.iter().map(|name| sanitize(name) + "\n").collect()
            }
            Format::Json if is_stream => escape_json(&value.to_string()) + "\n",
            Format::Json => escape_json(&format!("{value:#}")) + "\n",
        })
    }

    /// Writes a downloaded file.
    async fn save(
        &self,
        mut download: Download,
        responses: &mut Streaming<Bytes>,
    ) -> Result<(), Failure> {
        while let Some(message) = self.next(responses).await? {
            match download.write(&message) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(problem) => return Err(Failure::unknown(problem)),
            }
        }
        download.finish().map_err(Failure::unknown)
    }

    async fn failure(&self, status: &Status) -> Failure {
        // tonic's own timer can be faster than the gateway's response.
        let mut cause = status.source();
        let mut is_local = false;
        while let Some(error) = cause {
            is_local |= error.is::<tonic::TimeoutExpired>();
            cause = error.source();
        }
        let is_expired = is_local || status.code() == Code::DeadlineExceeded;
        if self.verbose {
            print_metadata(status.metadata());
        }
        Failure {
            code: match is_expired && self.has_timeout {
                true => exit_code::TIMED_OUT,
                false => exit_code::of_status(status),
            },
            lines: match is_local {
                true => vec![expired_text(self.responses.load(Ordering::Relaxed))],
                false => self.gateway.describe(status).await,
            },
        }
    }

    fn show_metadata(&self, metadata: &MetadataMap) {
        if self.verbose {
            print_metadata(metadata);
        } else if let Some(paths) = metadata.get(INEXACT).and_then(|paths| paths.to_str().ok()) {
            super::print_error(&format!(
                "numbers that the message does not hold exactly: {}",
                sanitize(paths)
            ));
        }
    }
}

fn print_metadata(metadata: &MetadataMap) {
    for entry in metadata.iter() {
        let line = match entry {
            KeyAndValueRef::Ascii(key, value) => {
                format!("{key}: {}", value.to_str().unwrap_or_default())
            }
            KeyAndValueRef::Binary(key, _) if key == DETAILS => continue,
            KeyAndValueRef::Binary(key, value) => format!(
                "{key}: {} bytes",
                value.to_bytes().unwrap_or_default().len()
            ),
        };
        crate::telemetry::print_line(&sanitize(&line));
    }
}
