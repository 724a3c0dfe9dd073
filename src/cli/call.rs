//! `drawbridge call`: calls any rpc of a running gateway with JSON.
//!
//! `file` sends and receives files, `resource_name` finds the names that `-o name` prints.

mod file;
mod resource_name;

use std::error::Error as _;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use prost::Message as _;
use prost_reflect::MethodDescriptor;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{KeyAndValueRef, MetadataMap};
use tonic::{Code, Status, Streaming};

use super::client::failure::Failure;
use super::client::gateway::Gateway;
use super::client::options::ConnectionOptions;
use super::client::reflection::Api;
use super::client::text::{escape_json, sanitize};
use super::client::{duration, exit_code, names, proto_json, request, variable};
use crate::server::WireCodec;
use file::{Download, Messages, Upload};

/// How long the gateway may take to respond after `--timeout` that the deadline has passed.
const DEADLINE_GRACE: Duration = Duration::from_secs(2);
/// The deadline has passed, and the gateway has not said so.
const EXPIRED: &str = "DEADLINE_EXCEEDED: no response within --timeout";
/// Response metadata with the paths of rounded numbers.
const INEXACT: &str = "drawbridge-inexact";

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
    /// The file to upload, or - for standard input.
    #[arg(long, value_name = "FILE")]
    data_file: Option<String>,
    /// json (default): responses in the JSON mapping of protobuf, streams with one line per
    /// message. name: the identifiers of the resources in them. For a download the file to
    /// write, or - for standard output.
    #[arg(long, short, value_name = "json|name|FILE")]
    output: Option<String>,
    /// Deadline: 90 (seconds), 30s, 10m or 1h30m. Default: that of the gateway.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// Print the response metadata to standard error.
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    connection: ConnectionOptions,
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
    tokio::select! {
        result = call(options, deadline) => match result {
            Ok(code) => code,
            Err(failure) => {
                failure.print();
                failure.code
            }
        },
        () = expired => {
            super::print_error(EXPIRED);
            exit_code::TIMED_OUT
        }
        _ = tokio::signal::ctrl_c() => exit_code::INTERRUPTED,
    }
}

/// What the command writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Json,
    Name,
}

async fn call(options: &Options, deadline: Option<Instant>) -> Result<u8, Failure> {
    let gateway = Gateway::connect(&options.connection, &variable).await;
    let gateway = gateway.map_err(Failure::unknown)?;
    let api = Api::load(&gateway, Some(&options.method)).await?;
    let method = names::method(&api, &options.method)?;
    let (format, download) = output(options, &method)?;
    let requests = request::all(&method.input(), &options.requests, &options.data).await?;
    let upload = match &options.data_file {
        Some(path) => Some(
            Upload::open(&method, path)
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
            result = call.run(messages, download) => result,
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
        (Some("name"), _) => Ok((Format::Name, None)),
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
}

impl Call<'_> {
    async fn run(&self, messages: Messages, download: Option<Download>) -> Result<(), Failure> {
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
            return Err(Failure::unknown(format!("UNAVAILABLE: {problem}")));
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
            None => self.show(&mut responses).await?,
        }
        if self.verbose
            && let Ok(Some(trailers)) = responses.trailers().await
        {
            print_metadata(&trailers);
        }
        Ok(())
    }

    /// Prints the messages of the response. A unary response has exactly one.
    async fn show(&self, responses: &mut Streaming<Bytes>) -> Result<(), Failure> {
        let mut count = 0_u64;
        let is_stream = self.method.is_server_streaming();
        while let Some(message) = self.next(responses).await? {
            count += 1;
            let text = self.text(&message, is_stream)?;
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
            Ok(message) => Ok(message),
            Err(status) => Err(self.failure(&status).await),
        }
    }

    fn text(&self, message: &Bytes, is_stream: bool) -> Result<String, Failure> {
        let output = self.method.output();
        let value = proto_json::of(&output, message);
        let value = value.ok_or_else(|| {
            Failure::unknown("the response does not match the descriptors of the gateway")
        })?;
        Ok(match self.format {
            Format::Name => resource_name::of(&output, message)
                .iter()
                .map(|name| sanitize(name) + "\n")
                .collect(),
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
        Failure {
            code: match is_expired && self.has_timeout {
                true => exit_code::TIMED_OUT,
                false => exit_code::of_status(status),
            },
            lines: match is_local {
                true => vec![EXPIRED.to_owned()],
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
            KeyAndValueRef::Binary(key, value) => format!(
                "{key}: {} bytes",
                value.to_bytes().unwrap_or_default().len()
            ),
        };
        crate::telemetry::print_line(&sanitize(&line));
    }
}
