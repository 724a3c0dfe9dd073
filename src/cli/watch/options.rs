//! What the user wants to see, and the streams that show it.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use clap::{Args, Subcommand};

use drawbridge_transcoder::contract::{Contract, Method};
use drawbridge_transcoder::json::wire;
use drawbridge_transcoder::schema::Kind;

/// What `drawbridge watch` was asked for.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// What to watch.
    #[command(subcommand)]
    pub subject: Subject,
    /// The gateway; `https://` needs --ca.
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:50051",
        global = true
    )]
    pub gateway: String,
    /// The upstream, by its name at the gateway. Default: the family's default.
    #[arg(long, value_name = "NAME", global = true)]
    pub upstream: Option<String>,
    /// The project. Default: the upstream's own.
    #[arg(long, value_name = "ID", global = true)]
    pub project: Option<String>,
    /// One JSON object per line and message, for programs.
    #[arg(long, global = true)]
    pub json: bool,
    /// Further request metadata, NAME=VALUE. Secrets are better in the environment:
    /// DRAWBRIDGE_TOKEN for the gateway's own callers' tokens, OS_TOKEN for
    /// upstreams that take the caller's `x-auth-token`.
    #[arg(long, value_name = "NAME=VALUE", global = true)]
    pub metadata: Vec<String>,
    /// The certificate authority of the gateway, PEM.
    #[arg(long, value_name = "FILE", global = true)]
    pub ca: Option<PathBuf>,
    /// The client's certificate, PEM.
    #[arg(long, value_name = "FILE", requires = "key", global = true)]
    pub cert: Option<PathBuf>,
    /// The client's key, PEM.
    #[arg(long, value_name = "FILE", requires = "cert", global = true)]
    pub key: Option<PathBuf>,
}

/// What is watched.
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

/// One stream of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The state of the subject: its end is the end of the view.
    State(&'static str),
    /// Entries, each told once.
    Events(&'static str),
    /// Lines of a text.
    Log(&'static str),
}

impl Source {
    /// The name of the rpc.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::State(name) | Self::Events(name) | Self::Log(name) => name,
        }
    }
}

/// One stream to open.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) source: Source,
    pub(super) method: Arc<Method>,
    pub(super) request: Bytes,
    /// Logs: the field of the request to resume by, and the member of the
    /// messages that it takes.
    pub(super) resume: Option<(u32, Box<str>)>,
}

const HEAT: &str = "openstack.orchestration.v1";
const STAGE: &str = "huaweicloud.servicestage.v3";
const AO: &str = "hitachi.automation.v1";

impl Options {
    /// What stands at the head of the view.
    pub(super) fn title(&self) -> String {
        match &self.subject {
            Subject::Stack { name } => format!("stack {name}"),
            Subject::Deployment { id } => format!("deployment {id}"),
            Subject::Job { id } => format!("job {id}"),
            Subject::Task { id } => format!("task {id}"),
        }
    }

    /// The streams of the view, the one of the state first. None, where the
    /// contract lacks that; others are left out.
    pub(super) fn plans(&self, contract: &Contract) -> Vec<Plan> {
        let plan = |package: &str, service: &str, source: Source, fields: &[(&str, &str)]| {
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
            Some(Plan {
                source,
                method: method.clone(),
                request: request.into(),
                resume,
            })
        };
        let plans = match &self.subject {
            Subject::Stack { name } => [
                plan(
                    HEAT,
                    "StackService",
                    Source::State("WatchStack"),
                    &[("stack_name", name)],
                ),
                plan(
                    HEAT,
                    "StackEventService",
                    Source::Events("WatchStackEvents"),
                    &[("stack_name", name), ("until_final", "1")],
                ),
            ],
            Subject::Deployment { id } => [
                plan(
                    HEAT,
                    "SoftwareDeploymentService",
                    Source::State("WatchSoftwareDeployment"),
                    &[("deployment_id", id)],
                ),
                None,
            ],
            Subject::Job { id } => [
                plan(
                    STAGE,
                    "JobService",
                    Source::State("WatchJob"),
                    &[("job_id", id)],
                ),
                None,
            ],
            Subject::Task { id } => {
                let id = id.to_string();
                [
                    plan(
                        AO,
                        "TaskService",
                        Source::State("WatchTask"),
                        &[("id", &id), ("steps", "1")],
                    ),
                    plan(
                        AO,
                        "TaskService",
                        Source::Log("WatchTaskLog"),
                        &[("task_id", &id)],
                    ),
                ]
            }
        };
        match plans {
            [None, _] => Vec::new(),
            plans => plans.into_iter().flatten().collect(),
        }
    }
}
