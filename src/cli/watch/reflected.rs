//! The stream of any watch rpc, read by the descriptors and annotations of the gateway.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor, Value,
};
use serde_json::{Map, json};

use super::stream_request::{Decode, Message, Source, StreamRequest};
use crate::cli::client::names::full_name;
use crate::cli::client::{proto_json, rules};

/// The message of a line of a text.
const LOG_LINE: &str = "drawbridge.v1.LogLine";

/// How the messages of a watch rpc are read.
#[derive(Debug)]
struct Reflected {
    output: MessageDescriptor,
    event: FieldDescriptor,
    /// The field of the watched resource, of an item or of an entry.
    item: Option<FieldDescriptor>,
    source: Source,
    /// Paths in the resource.
    state: Option<String>,
    key: Option<String>,
    /// The field that resumes a log.
    marker: Option<FieldDescriptor>,
    has_proto_json: bool,
}

/// Returns the stream of a watch rpc, and none for any other rpc.
pub(super) fn stream_request(
    method: &MethodDescriptor,
    request: &DynamicMessage,
    has_proto_json: bool,
) -> Option<StreamRequest> {
    let output = method.output();
    let event = rules::event_field(&output).filter(|_| method.is_server_streaming())?;
    let watch = rules::rule(method, "watch");
    let text = |name| watch.as_ref().and_then(|watch| rules::text(watch, name));
    let has = |name| {
        watch
            .as_ref()
            .is_some_and(|watch| watch.has_field_by_name(name))
    };
    let source = match (has("log") || has("text_log"), text("key")) {
        (true, _) => Source::Log,
        (false, Some(_)) => Source::Items,
        (false, None) => Source::State,
    };
    let named = |name| output.get_field_by_name(name);
    let marker = match source {
        Source::Log if has("text_log") => named("next_offset"),
        Source::Log => named("marker"),
        _ => None,
    };
    let resume = text("resume").and_then(|name| method.input().get_field_by_name(&name));
    let resume = resume.zip(marker.as_ref());
    let resume = resume.map(|(field, marker)| (field.number(), marker.name().into()));
    // A log without a marker would begin again.
    let is_repeatable = !has("start") && (source != Source::Log || resume.is_some());
    let reflected = Reflected {
        item: item_field(method, &event, text("poll"), text("item")),
        event,
        source,
        state: text("state"),
        key: text("key"),
        marker,
        has_proto_json,
        output,
    };
    Some(StreamRequest {
        source,
        name: method.name().to_owned(),
        path: format!("/{}", full_name(method)),
        request: Bytes::from(request.encode_to_vec()),
        resume,
        is_repeatable,
        decoder: Arc::new(reflected),
    })
}

/// Finds the field of the type that the polled rpc returns, or else the first message.
fn item_field(
    method: &MethodDescriptor,
    event: &FieldDescriptor,
    poll: Option<String>,
    item: Option<String>,
) -> Option<FieldDescriptor> {
    let polled = poll.and_then(|poll| {
        let service = method.parent_service();
        match poll.rsplit_once('.') {
            None => service.methods().find(|method| method.name() == poll),
            Some((of, name)) => {
                let full = format!("{}.{of}", service.package_name());
                let other = method.parent_pool().get_service_by_name(&full)?;
                other.methods().find(|method| method.name() == name)
            }
        }
    });
    let kind = polled.and_then(|polled| match item {
        None => Some(polled.output()),
        Some(item) => match polled.output().get_field_by_name(&item)?.kind() {
            Kind::Message(message) => Some(message),
            _ => None,
        },
    });
    let output = method.output();
    let is_message =
        |field: &FieldDescriptor, wanted: Option<&MessageDescriptor>| match field.kind() {
            Kind::Message(message) => {
                !field.is_list()
                    && !field.is_map()
                    && field != event
                    && wanted.is_none_or(|wanted| message == *wanted)
            }
            _ => false,
        };
    let exact = output
        .fields()
        .find(|field| is_message(field, kind.as_ref()));
    exact.or_else(|| output.fields().find(|field| is_message(field, None)))
}

impl Decode for Reflected {
    fn decode(&self, bytes: &[u8]) -> Option<Message> {
        let message = DynamicMessage::decode(self.output.clone(), bytes).ok()?;
        let proto_json = proto_json::of(&self.output, bytes)?;
        Some(Message {
            json: self.view(&message, &proto_json),
            proto_json: self.has_proto_json.then_some(proto_json),
        })
    }
}

impl Reflected {
    /// Returns what a view shows of a message.
    fn view(&self, message: &DynamicMessage, all: &serde_json::Value) -> serde_json::Value {
        let event = all.get(self.event.json_name());
        let text = |name: &str| event.and_then(|event| event.get(name)?.as_str());
        let short = |name: &str, prefix: &str| {
            let value = text(name).unwrap_or_default();
            value.strip_prefix(prefix).unwrap_or(value).to_owned()
        };
        let kind = short("type", "WATCH_EVENT_TYPE_");
        let mut members = Map::new();
        let mut view_event = json!({"type": kind, "outcome": short("outcome", "OUTCOME_")});
        for (to, from) in [
            ("observed_at", "observedAt"),
            ("unconfirmed_since", "unconfirmedSince"),
        ] {
            if let Some(time) = text(from) {
                view_event[to] = json!(time);
            }
        }
        members.insert("event".to_owned(), view_event);
        let item = self.item.as_ref().filter(|item| message.has_field(item));
        let value = item.map(|item| message.get_field(item));
        let item_message = value.as_ref().and_then(|value| value.as_message());
        let at = |path: &Option<String>| {
            let found = path.as_ref().zip(item_message);
            found
                .and_then(|(path, item)| text_at(item, path))
                .unwrap_or_default()
        };
        let member = |field: &FieldDescriptor| all.get(field.json_name()).cloned();
        match self.source {
            _ if kind == "STARTED" => {
                let mut rest = all.clone();
                if let Some(rest) = rest.as_object_mut() {
                    rest.remove(self.event.json_name());
                }
                // The response of the call is usually in one field.
                let inner = match rest.as_object() {
                    Some(members) if members.len() == 1 => members.values().next().cloned(),
                    _ => None,
                };
                let response = inner.filter(serde_json::Value::is_object).unwrap_or(rest);
                members.insert("started".to_owned(), response);
            }
            Source::State | Source::Events => {
                members.insert("task".to_owned(), json!({"status": at(&self.state)}));
            }
            Source::Items => {
                let item = json!({"key": at(&self.key), "state": at(&self.state)});
                members.insert("item".to_owned(), item);
            }
            Source::Log => {
                let entry = item.and_then(member);
                let is_line = item.is_some_and(|item| match item.kind() {
                    Kind::Message(kind) => kind.full_name() == LOG_LINE,
                    _ => false,
                });
                let line = entry.map(|entry| match is_line {
                    true => entry.get("text").cloned().unwrap_or_default(),
                    false => json!(entry.to_string()),
                });
                if let Some(line) = line {
                    members.insert("line".to_owned(), json!({"text": line}));
                }
                if let Some(marker) = &self.marker {
                    let value = match &*message.get_field(marker) {
                        Value::String(text) => json!(text),
                        Value::I64(number) => json!(number),
                        _ => json!(null),
                    };
                    members.insert(marker.name().to_owned(), value);
                }
            }
        }
        serde_json::Value::Object(members)
    }
}

/// Returns the text at a field path: of an enum the text of the REST API, which is in a field of
/// its own, or else the name of the value without its prefix.
fn text_at(message: &DynamicMessage, path: &str) -> Option<String> {
    let (name, rest) = match path.split_once('.') {
        Some((name, rest)) => (name, Some(rest)),
        None => (path, None),
    };
    let value = message.get_field_by_name(name)?;
    if let Some(rest) = rest {
        return text_at(value.as_message()?, rest);
    }
    match &*value {
        Value::String(text) => Some(text.clone()),
        Value::I32(number) => Some(number.to_string()),
        Value::I64(number) => Some(number.to_string()),
        Value::U32(number) => Some(number.to_string()),
        Value::U64(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        Value::EnumNumber(number) => {
            if let Some(Value::String(raw)) =
                message.get_field_by_name(&format!("{name}_raw")).as_deref()
                && !raw.is_empty()
            {
                return Some(raw.clone());
            }
            let descriptor = prost_reflect::ReflectMessage::descriptor(message);
            let Kind::Enum(kind) = descriptor.get_field_by_name(name)?.kind() else {
                return None;
            };
            let value = kind.get_value(*number)?;
            if let Some(text) = rules::enum_text(&value) {
                return Some(text);
            }
            // `PHASE_BUSY` of an enum whose first value is `PHASE_UNSPECIFIED`.
            let first = kind.default_value();
            let prefix = first.name().strip_suffix("UNSPECIFIED").unwrap_or_default();
            let text = value.name().strip_prefix(prefix).unwrap_or(value.name());
            (value.number() != 0).then(|| text.to_owned())
        }
        _ => None,
    }
}

/// Returns the name of a watch: the values of the fields of its request, or that of the rpc.
pub(super) fn name(method: &MethodDescriptor, request: &DynamicMessage) -> String {
    let values = request.fields().filter_map(|(field, value)| match value {
        _ if field.name() == "project_id" => None,
        Value::String(text) => Some(text.clone()),
        Value::I32(number) => Some(number.to_string()),
        Value::I64(number) => Some(number.to_string()),
        Value::U32(number) => Some(number.to_string()),
        Value::U64(number) => Some(number.to_string()),
        _ => None,
    });
    let values: Vec<String> = values.collect();
    match values.is_empty() {
        true => method.name().to_owned(),
        false => values.join("/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost_reflect::DescriptorPool;

    fn stream(pool: &DescriptorPool, service: &str, rpc: &str) -> Option<StreamRequest> {
        let service = pool.get_service_by_name(service).unwrap();
        let method = service
            .methods()
            .find(|method| method.name() == rpc)
            .unwrap();
        stream_request(&method, &DynamicMessage::new(method.input()), false)
    }

    /// What begins with a call is never sent again: it would take effect twice.
    #[test]
    fn annotations_say_what_is_read_and_whether_it_is_repeated() {
        let pool = DescriptorPool::decode(crate::contract::BUILT_IN).unwrap();
        let heat = "openstack.orchestration.v1";
        let (ao, stage) = ("hitachi.automation.v1", "huaweicloud.servicestage.v3");
        for (package, service, rpc, source, repeatable, resume) in [
            (
                heat,
                "StackService",
                "WatchStack",
                Source::State,
                true,
                None,
            ),
            (
                heat,
                "StackEventService",
                "WatchStackEvents",
                Source::Log,
                true,
                Some("marker"),
            ),
            (
                heat,
                "SoftwareDeploymentService",
                "WatchSoftwareDeployments",
                Source::Items,
                true,
                None,
            ),
            (ao, "TaskService", "WatchTask", Source::State, true, None),
            (
                ao,
                "TaskService",
                "WatchTaskLog",
                Source::Log,
                true,
                Some("next_offset"),
            ),
            (
                ao,
                "TaskService",
                "SubmitServiceAndWatch",
                Source::State,
                false,
                None,
            ),
            (
                stage,
                "AddonService",
                "ExecuteAddonActionAndWatch",
                Source::State,
                false,
                None,
            ),
        ] {
            let stream = stream(&pool, &format!("{package}.{service}"), rpc).unwrap();
            assert_eq!(
                (stream.source, stream.is_repeatable),
                (source, repeatable),
                "{rpc}"
            );
            let member = stream.resume.as_ref().map(|(_, member)| &**member);
            assert_eq!(member, resume, "{rpc}");
            assert_eq!(stream.path, format!("/{package}.{service}/{rpc}"));
        }
        assert!(
            stream(
                &pool,
                "openstack.orchestration.v1.StackService",
                "StreamStacks"
            )
            .is_none()
        );
    }

    #[test]
    fn state_and_key_are_those_of_the_rest_api() {
        let pool = DescriptorPool::decode(crate::contract::BUILT_IN).unwrap();
        let event = json!({"type": "WATCH_EVENT_TYPE_MODIFIED", "outcome": "OUTCOME_FAILED",
            "observedAt": "2026-11-21T12:00:01Z"});
        for (service, rpc, message, want) in [
            (
                "openstack.orchestration.v1.StackService",
                "WatchStack",
                json!({"event": event, "stack": {"stackStatus": "STACK_STATUS_CREATE_FAILED",
                    "stackStatusRaw": "CREATE_FAILED"}}),
                json!({"task": {"status": "CREATE_FAILED"}}),
            ),
            (
                "huaweicloud.servicestage.v3.JobService",
                "WatchJob",
                json!({"event": event, "snapshot": {"job": {
                    "executionStatus": "EXECUTION_STATUS_FAILED"}}}),
                json!({"task": {"status": "FAILED"}}),
            ),
            (
                "openstack.orchestration.v1.SoftwareDeploymentService",
                "WatchSoftwareDeployments",
                json!({"event": event, "softwareDeployment": {"id": "d1"}}),
                json!({"item": {"key": "d1", "state": ""}}),
            ),
            (
                "hitachi.automation.v1.TaskService",
                "WatchTaskLog",
                json!({"event": event, "line": {"text": "first"}, "nextOffset": "6"}),
                json!({"line": {"text": "first"}, "next_offset": 6}),
            ),
            (
                "huaweicloud.servicestage.v3.AddonService",
                "ExecuteAddonActionAndWatch",
                json!({"event": {"type": "WATCH_EVENT_TYPE_STARTED"},
                    "started": {"jobId": "J"}}),
                json!({"started": {"jobId": "J"}}),
            ),
        ] {
            let stream = stream(&pool, service, rpc).unwrap();
            let method = pool.get_service_by_name(service).unwrap();
            let method = method
                .methods()
                .find(|method| method.name() == rpc)
                .unwrap();
            let encoded = DynamicMessage::deserialize(method.output(), message).unwrap();
            let mut got = stream
                .decoder
                .decode(&encoded.encode_to_vec())
                .unwrap()
                .json;
            let event = got.as_object_mut().unwrap().remove("event").unwrap();
            assert_eq!(got, want, "{rpc}");
            if event["type"] != "STARTED" {
                let want = json!({"type": "MODIFIED", "outcome": "FAILED",
                    "observed_at": "2026-11-21T12:00:01Z"});
                assert_eq!(event, want);
            }
        }
    }
}
