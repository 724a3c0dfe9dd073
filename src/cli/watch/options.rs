//! Arguments of `drawbridge watch`, and the streams to open for them.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use clap::{Args, Subcommand};

use drawbridge_transcoder::contract::{Contract, Method};
use drawbridge_transcoder::json::wire;
use drawbridge_transcoder::schema::Kind;

/// Arguments of `drawbridge watch`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The resource to watch.
    #[command(subcommand)]
    pub subject: Subject,
    /// URL of the gateway. https:// needs --ca.
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:50051",
        global = true
    )]
    pub gateway: String,
    /// Name of the upstream. Default: the default upstream of the family.
    #[arg(long, value_name = "NAME", global = true)]
    pub upstream: Option<String>,
    /// Project id. Default: that of the upstream.
    #[arg(long, value_name = "ID", global = true)]
    pub project: Option<String>,
    /// Print each message as one line of JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// Further request metadata; may be repeated. Set secrets in the environment instead:
    /// DRAWBRIDGE_TOKEN is sent as `drawbridge-token`, which authenticates clients of the
    /// gateway, OS_TOKEN as `x-auth-token`, for upstreams of the kind passthrough.
    #[arg(long, value_name = "NAME=VALUE", global = true)]
    pub metadata: Vec<String>,
    /// CA certificate of the gateway, PEM.
    #[arg(long, value_name = "FILE", global = true)]
    pub ca: Option<PathBuf>,
    /// Client certificate, PEM.
    #[arg(long, value_name = "FILE", requires = "key", global = true)]
    pub cert: Option<PathBuf>,
    /// Private key of the client certificate, PEM.
    #[arg(long, value_name = "FILE", requires = "cert", global = true)]
    pub key: Option<PathBuf>,
}

/// The resource to watch.
#[derive(Clone, Debug, Subcommand)]
pub enum Subject {
    /// An OpenStack stack: its state, resources and events.
    Stack {
        /// Name, UUID or ARN.
        name: String,
    },
    /// An OpenStack software deployment.
    Deployment {
        /// UUID.
        id: String,
    },
    /// A ServiceStage job and its tasks.
    Job {
        /// Id.
        id: String,
    },
    /// A JP1/AO task, its steps and its log.
    Task {
        /// Number.
        id: u64,
    },
}

/// One stream of a view, with the name of its rpc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The states of the resource. The view ends when this stream ends.
    State(&'static str),
    /// Events of the resource.
    Events(&'static str),
    /// Lines of a log.
    Log(&'static str),
}

impl Source {
    /// Returns the name of the rpc.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::State(name) | Self::Events(name) | Self::Log(name) => name,
        }
    }
}

/// A stream to open.
#[derive(Clone, Debug)]
pub(super) struct StreamRequest {
    pub(super) source: Source,
    pub(super) method: Arc<Method>,
    pub(super) request: Bytes,
    /// For events and logs: the request field to resume at, and the message member that has
    /// its value.
    pub(super) resume: Option<(u32, Box<str>)>,
}

const HEAT: &str = "openstack.orchestration.v1";
const SERVICESTAGE: &str = "huaweicloud.servicestage.v3";
const JP1AO: &str = "hitachi.automation.v1";

impl Options {
    /// Returns the title of the view.
    pub(super) fn title(&self) -> String {
        match &self.subject {
            Subject::Stack { name } => format!("stack {name}"),
            Subject::Deployment { id } => format!("deployment {id}"),
            Subject::Job { id } => format!("job {id}"),
            Subject::Task { id } => format!("task {id}"),
        }
    }

    /// Returns the streams of the view, beginning with that of the state. Without that one
    /// in the contract there are none; others may be missing.
    pub(super) fn stream_requests(&self, contract: &Contract) -> Vec<StreamRequest> {
        let stream_request =
            |package: &str, service: &str, source: Source, fields: &[(&str, &str)]| {
                let path = format!("/{package}.{service}/{}", source.name());
                let method = contract.method(&path)?;
                let resume = match source {
                    Source::State(_) => None,
                    Source::Events(_) => Some(("marker", "marker")),
                    Source::Log(_) => Some(("offset", "next_offset")),
                };
                let input = method.schema.message(method.input);
                let resume = match resume {
                    Some((field, member)) => {
                        let output = method.schema.message(method.output);
                        let member = output.field(member)?.1.wire_name.clone();
                        Some((input.field(field)?.1.number, member))
                    }
                    None => None,
                };
                let mut request = Vec::new();
                let project = self
                    .project
                    .as_deref()
                    .map(|project| ("project_id", project));
                for (name, value) in fields.iter().copied().chain(project) {
                    let Some((_, field)) = input.field(name) else {
                        continue;
                    };
                    match (field.kind, value.parse()) {
                        (Kind::String, _) => {
                            wire::write_bytes(&mut request, field.number, value.as_bytes());
                        }
                        (_, Ok(number)) => wire::write_uint(&mut request, field.number, number),
                        _ => {}
                    }
                }
                Some(StreamRequest {
                    source,
                    method: method.clone(),
                    request: request.into(),
                    resume,
                })
            };
        let stream_requests = match &self.subject {
            Subject::Stack { name } => [
                stream_request(
                    HEAT,
                    "StackService",
                    Source::State("WatchStack"),
                    &[("stack_name", name)],
                ),
                stream_request(
                    HEAT,
                    "StackEventService",
                    Source::Events("WatchStackEvents"),
                    &[("stack_name", name), ("until_final", "1")],
                ),
            ],
            Subject::Deployment { id } => [
                stream_request(
                    HEAT,
                    "SoftwareDeploymentService",
                    Source::State("WatchSoftwareDeployment"),
                    &[("deployment_id", id)],
                ),
                None,
            ],
            Subject::Job { id } => [
                stream_request(
                    SERVICESTAGE,
                    "JobService",
                    Source::State("WatchJob"),
                    &[("job_id", id)],
                ),
                None,
            ],
            Subject::Task { id } => {
                let id = id.to_string();
                [
                    stream_request(
                        JP1AO,
                        "TaskService",
                        Source::State("WatchTask"),
                        &[("id", &id), ("steps", "1")],
                    ),
                    stream_request(
                        JP1AO,
                        "TaskService",
                        Source::Log("WatchTaskLog"),
                        &[("task_id", &id)],
                    ),
                ]
            }
        };
        match stream_requests {
            [None, _] => Vec::new(),
            stream_requests => stream_requests.into_iter().flatten().collect(),
        }
    }
}
