//! The streams of a watch.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use prost_reflect::MessageDescriptor;
use serde_json::Value;

use super::options::Subject;
use crate::cli::client::proto_json;
use drawbridge_transcoder::contract::{Contract, Method};
use drawbridge_transcoder::json::{self, wire};
use drawbridge_transcoder::schema::Kind;

/// What a stream reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The states of the resource. The view ends when this stream ends.
    State,
    /// The items of a list. The stream usually does not end.
    Items,
    /// Events of the resource.
    Events,
    /// Lines of a log.
    Log,
}

/// A stream to open.
#[derive(Clone, Debug)]
pub(super) struct StreamRequest {
    pub(super) source: Source,
    /// The name of the rpc.
    pub(super) name: String,
    /// The gRPC path.
    pub(super) path: String,
    pub(super) request: Bytes,
    /// For events and logs: the request field to resume at, and the message member that has
    /// its value.
    pub(super) resume: Option<(u32, Box<str>)>,
    /// Whether the stream can be opened again: it does not begin with a call.
    pub(super) is_repeatable: bool,
    pub(super) decoder: Arc<dyn Decode>,
}

/// A message in the two forms that are printed.
#[derive(Debug)]
pub(super) struct Message {
    /// JSON as a view reads it: as upstreams have it, with short names of enum values.
    pub(super) json: Value,
    /// The JSON mapping of protobuf, if it is printed.
    pub(super) proto_json: Option<Value>,
}

/// Reads the messages of a stream.
pub(super) trait Decode: fmt::Debug + Send + Sync {
    /// Reads a message. None if the bytes are not such a message.
    fn decode(&self, message: &[u8]) -> Option<Message>;
}

/// Reads messages by the built-in contract, which knows the resource.
#[derive(Debug)]
struct BuiltIn {
    method: Arc<Method>,
    /// The response message, if it is printed in the JSON mapping of protobuf.
    descriptor: Option<MessageDescriptor>,
}

/// Reads a message of a built-in rpc as its REST API has it.
pub(super) fn rest_json(method: &Method, message: &[u8]) -> Option<Value> {
    let mut text = Vec::with_capacity(message.len() * 2);
    let (schema, output) = (&method.schema, method.output);
    json::to_json(schema, output, message, &|_| false, &mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

impl Decode for BuiltIn {
    fn decode(&self, message: &[u8]) -> Option<Message> {
        let proto_json = match &self.descriptor {
            Some(descriptor) => Some(proto_json::of(descriptor, message)?),
            None => None,
        };
        Some(Message {
            json: rest_json(&self.method, message)?,
            proto_json,
        })
    }
}

const HEAT: &str = "openstack.orchestration.v1";
const SERVICESTAGE: &str = "huaweicloud.servicestage.v3";
const JP1AO: &str = "hitachi.automation.v1";

/// Returns the streams of one of the subjects, beginning with that of the state. Without that one
/// in the contract there are none; others may be missing.
pub(super) fn built_in(
    contract: &Contract,
    subject: &Subject,
    name: &str,
    project: Option<&str>,
    has_proto_json: bool,
) -> Vec<StreamRequest> {
    let stream = |package: &str, service: &str, rpc: &str, source, fields: &[(&str, &str)]| {
        let path = format!("/{package}.{service}/{rpc}");
        let method = contract.method(&path)?;
        let input = method.schema.message(method.input);
        let output = method.schema.message(method.output);
        let resume = match source {
            Source::State | Source::Items => None,
            Source::Events => Some(("marker", "marker")),
            Source::Log => Some(("offset", "next_offset")),
        };
        let resume = match resume {
            Some((field, member)) => {
                let member = output.field(member)?.1.wire_name.clone();
                Some((input.field(field)?.1.number, member))
            }
            None => None,
        };
        let mut request = Vec::new();
        let project = project.map(|project| ("project_id", project));
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
        let descriptor = match has_proto_json {
            true => Some(proto_json::response(contract, &path)?),
            false => None,
        };
        Some(StreamRequest {
            source,
            name: rpc.to_owned(),
            request: request.into(),
            resume,
            is_repeatable: true,
            decoder: Arc::new(BuiltIn {
                method: method.clone(),
                descriptor,
            }),
            path,
        })
    };
    let (state, more) = match subject {
        Subject::Stack { .. } => (
            stream(
                HEAT,
                "StackService",
                "WatchStack",
                Source::State,
                &[("stack_name", name)],
            ),
            stream(
                HEAT,
                "StackEventService",
                "WatchStackEvents",
                Source::Events,
                &[("stack_name", name), ("until_final", "1")],
            ),
        ),
        Subject::Deployment { .. } => (
            stream(
                HEAT,
                "SoftwareDeploymentService",
                "WatchSoftwareDeployment",
                Source::State,
                &[("deployment_id", name)],
            ),
            None,
        ),
        Subject::Job { .. } => (
            stream(
                SERVICESTAGE,
                "JobService",
                "WatchJob",
                Source::State,
                &[("job_id", name)],
            ),
            None,
        ),
        Subject::Task { .. } => (
            stream(
                JP1AO,
                "TaskService",
                "WatchTask",
                Source::State,
                &[("id", name), ("steps", "1")],
            ),
            stream(
                JP1AO,
                "TaskService",
                "WatchTaskLog",
                Source::Log,
                &[("task_id", name)],
            ),
        ),
    };
    match state {
        None => Vec::new(),
        Some(state) => std::iter::once(state).chain(more).collect(),
    }
}
