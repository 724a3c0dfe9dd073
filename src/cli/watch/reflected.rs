//! The stream of any watch rpc, read by the descriptors and annotations of the gateway.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor, Value,
};
use serde_json::{Map, json};

use super::stream_request::{Decode, Message, Source, StreamRequest, rest_json};
use crate::cli::client::names::full_name;
use crate::cli::client::{proto_json, resource_name, rules};
use drawbridge_transcoder::contract::{Contract, Method};

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
    /// Whether the annotations name the state, which says how the watch ends. Otherwise its field
    /// is guessed, and changes of other fields are shown, too.
    has_outcome: bool,
    /// The list of the resource's parts, such as the steps of a rollout.
    parts: Option<Parts>,
    /// The field that resumes a log.
    marker: Option<FieldDescriptor>,
    /// The rpc of the built-in contract.
    built_in: Option<Arc<Method>>,
    has_proto_json: bool,
}

/// A list of parts, each with a state.
#[derive(Debug)]
struct Parts {
    /// Whether the list is a field of the resource, not of the message.
    is_in_item: bool,
    list: FieldDescriptor,
    state: String,
}

/// Returns the stream of a watch rpc, and none for any other rpc.
pub(super) fn stream_request(
    method: &MethodDescriptor,
    request: &DynamicMessage,
    contract: &Contract,
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
    let path = format!("/{}", full_name(method));
    let item = item_field(method, &event, text("poll"), text("item"));
    let item_kind = item.as_ref().and_then(message_of);
    let reflected = Reflected {
        state: text("state").or_else(|| state_field(item_kind.as_ref()?)),
        has_outcome: text("state").is_some(),
        parts: parts(&output, item_kind.as_ref()),
        item,
        event,
        source,
        key: text("key"),
        marker,
        built_in: contract.method(&path).cloned(),
        has_proto_json,
        output,
    };
    Some(StreamRequest {
        source,
        name: method.name().to_owned(),
        path,
        request: Bytes::from(request.encode_to_vec()),
        resume,
        is_repeatable,
        decoder: Arc::new(reflected),
    })
}

fn message_of(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match field.kind() {
        Kind::Message(message) => Some(message),
        _ => None,
    }
}

/// Returns the field that has the state of a resource by its name: `status`, `state`, `phase`, or
/// one that ends so.
fn state_field(resource: &MessageDescriptor) -> Option<String> {
    let is_text = |field: &FieldDescriptor| {
        !field.is_list() && matches!(field.kind(), Kind::Enum(_) | Kind::String)
    };
    let names = ["status", "state", "phase"];
    let exact = names.iter().find_map(|name| {
        let field = resource.get_field_by_name(name);
        field.filter(is_text)
    });
    let by_end = || {
        resource.fields().find(|field| {
            let end = field.name().rsplit_once('_').map(|(_, end)| end);
            end.is_some_and(|end| names.contains(&end)) && is_text(field)
        })
    };
    let field = exact.or_else(by_end)?;
    Some(field.name().to_owned())
}

/// Finds the list of parts: messages with a name and a state, next to the resource or in it.
fn parts(output: &MessageDescriptor, item: Option<&MessageDescriptor>) -> Option<Parts> {
    let messages = [Some(output), item].into_iter().flatten();
    let lists = messages.enumerate().flat_map(|(number, message)| {
        let lists = message
            .fields()
            .filter(|field| field.is_list() && !field.is_map());
        let lists: Vec<_> = lists.map(|list| (number > 0, list)).collect();
        lists
    });
    let mut parts = lists.filter_map(|(is_in_item, list)| {
        let part = message_of(&list)?;
        resource_name::identifier(&part, list.name())?;
        Some(Parts {
            is_in_item,
            state: state_field(&part)?,
            list,
        })
    });
    parts.next()
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
        let built_in = self.built_in.as_deref();
        let rest = built_in.and_then(|method| rest_json(method, bytes));
        Some(Message {
            json: self.view(&message, &proto_json, rest),
            proto_json: self.has_proto_json.then_some(proto_json),
        })
    }
}

impl Reflected {
    /// Returns what a view shows of a message: as its REST API has it, if the built-in contract
    /// has the rpc, and in the member `watched` what descriptors and annotations say.
    fn view(
        &self,
        message: &DynamicMessage,
        all: &serde_json::Value,
        rest: Option<serde_json::Value>,
    ) -> serde_json::Value {
        let is_built_in = rest.is_some();
        let mut members = match rest {
            Some(serde_json::Value::Object(members)) => members,
            _ => Map::from_iter([("event".to_owned(), self.event(all))]),
        };
        let is_started = message
            .get_field(&self.event)
            .as_message()
            .is_some_and(is_started);
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
        let mut watched = json!({
            "state": at(&self.state),
            "key": at(&self.key),
            "has_outcome": self.has_outcome,
        });
        match self.source {
            _ if is_started => {
                let (started, response) = self.started(message, all);
                watched["names"] = json!(started);
                members.insert("started".to_owned(), response);
            }
            Source::State | Source::Events | Source::Items => {
                // What the view compares, without the state, which it shows anyway.
                let mut fields = item.and_then(member).unwrap_or_default();
                if let (Some(fields), Some(state)) = (fields.as_object_mut(), &self.state) {
                    let state = lower_camel_case(state.split('.').next().unwrap_or_default());
                    fields.retain(|name, _| *name != state && *name != format!("{state}Raw"));
                }
                watched["item"] = fields;
                if !is_built_in && let Some(parts) = &self.parts {
                    watched["parts"] = parts.of(message, item_message);
                }
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
        members.insert("watched".to_owned(), watched);
        serde_json::Value::Object(members)
    }

    /// Returns the event of a message, with short names of enum values.
    fn event(&self, all: &serde_json::Value) -> serde_json::Value {
        let event = all.get(self.event.json_name());
        let text = |name: &str| event.and_then(|event| event.get(name)?.as_str());
        let short = |name: &str, prefix: &str| {
            let value = text(name).unwrap_or_default();
            value.strip_prefix(prefix).unwrap_or(value).to_owned()
        };
        let mut view = json!({
            "type": short("type", "WATCH_EVENT_TYPE_"),
            "outcome": short("outcome", "OUTCOME_"),
        });
        for (to, from) in [
            ("observed_at", "observedAt"),
            ("unconfirmed_since", "unconfirmedSince"),
        ] {
            if let Some(time) = text(from) {
                view[to] = json!(time);
            }
        }
        view
    }

    /// Returns the response of the call that a watch begins with, and the names of the resources
    /// in it.
    fn started(
        &self,
        message: &DynamicMessage,
        all: &serde_json::Value,
    ) -> (Vec<String>, serde_json::Value) {
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
        let fields = message.fields().filter(|(field, _)| *field != self.event);
        let names = fields.filter_map(|(_, value)| value.as_message().map(resource_name::of));
        (names.flatten().collect(), response)
    }
}

/// Returns whether a `drawbridge.v1.WatchEvent` has the response of a call.
fn is_started(event: &DynamicMessage) -> bool {
    text_at(event, "type")
        .is_some_and(|kind| kind == "WATCH_EVENT_TYPE_STARTED" || kind == "STARTED")
}

impl Parts {
    /// Returns the name and the state of each part.
    fn of(&self, message: &DynamicMessage, item: Option<&DynamicMessage>) -> serde_json::Value {
        let Some(within) = (if self.is_in_item { item } else { Some(message) }) else {
            return json!([]);
        };
        let list = within.get_field(&self.list);
        let parts = list.as_list().unwrap_or_default().iter();
        let parts = parts.filter_map(Value::as_message).map(|part| {
            json!({
                "name": resource_name::of_message(part, self.list.name()),
                "status": text_at(part, &self.state),
            })
        });
        parts.collect()
    }
}

/// Returns `stackStatus` for `stack_status`.
fn lower_camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| {
        let mut chars = word.chars();
        let start = chars.next().map(|c| c.to_ascii_uppercase());
        name + &start.into_iter().chain(chars).collect::<String>()
    })
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
    use crate::cli::watch::view::{Line, View};
    use prost_reflect::{DescriptorPool, ReflectMessage as _};

    fn stream(pool: &DescriptorPool, service: &str, rpc: &str) -> Option<StreamRequest> {
        let service = pool.get_service_by_name(service).unwrap();
        let method = service
            .methods()
            .find(|method| method.name() == rpc)
            .unwrap();
        let contract = crate::contract::with_built_in(&[]).unwrap();
        let request = DynamicMessage::new(method.input());
        stream_request(&method, &request, &contract, false)
    }

    /// Sets the field at a path to any value.
    fn set(message: &mut DynamicMessage, path: &str) {
        let (name, rest) = path.split_once('.').unwrap_or((path, ""));
        let field = message.descriptor().get_field_by_name(name).unwrap();
        if !rest.is_empty() {
            let inner = message.get_field_mut(&field).as_message_mut().unwrap();
            return set(inner, rest);
        }
        let value = match field.kind() {
            Kind::Enum(kind) => Value::EnumNumber(kind.values().nth(1).unwrap().number()),
            Kind::String => Value::String("x".into()),
            Kind::Int64 => Value::I64(7),
            Kind::Int32 => Value::I32(7),
            kind => panic!("{path}: {kind:?}"),
        };
        message.set_field(&field, value);
    }

    /// What a watch shows of a first message that has a resource with a state.
    #[test]
    fn each_watch_of_the_contract_shows_its_first_message() {
        let pool = DescriptorPool::decode(crate::contract::BUILT_IN).unwrap();
        let contract = crate::contract::with_built_in(&[]).unwrap();
        let mut count = 0;
        for method in pool.services().flat_map(|service| {
            let methods: Vec<_> = service.methods().collect();
            methods
        }) {
            let request = DynamicMessage::new(method.input());
            let Some(stream) = stream_request(&method, &request, &contract, false) else {
                continue;
            };
            let name = full_name(&method);
            count += 1;
            let output = method.output();
            let mut message = DynamicMessage::new(output.clone());
            let event = rules::event_field(&output).unwrap();
            let inner = message.get_field_mut(&event).as_message_mut().unwrap();
            inner.set_field_by_name("type", Value::EnumNumber(1));
            let watch = rules::rule(&method, "watch").unwrap();
            let poll = rules::text(&watch, "poll");
            let item = item_field(&method, &event, poll, rules::text(&watch, "item"));
            let item = item.unwrap_or_else(|| panic!("{name} has no resource"));
            let kind = message_of(&item).unwrap();
            let paths = [rules::text(&watch, "state"), rules::text(&watch, "key")];
            let mut paths: Vec<String> = paths.into_iter().flatten().collect();
            if stream.source == Source::Log {
                let texts = kind
                    .fields()
                    .filter(|field| !field.is_list() && field.kind() == Kind::String);
                paths = texts.map(|field| field.name().to_owned()).collect();
            }
            // A resource without an annotated state: by its name, if it has one.
            paths.extend(state_field(&kind).filter(|_| paths.is_empty()));
            let resource = message.get_field_mut(&item).as_message_mut().unwrap();
            paths.iter().for_each(|path| set(resource, path));
            let json = stream
                .decoder
                .decode(&message.encode_to_vec())
                .unwrap()
                .json;
            let mut view = View::new("title", None, false);
            let lines = view.apply(stream.source, &json);
            assert_eq!(lines.len(), 1, "{name}: {json}");
            let is_shown = |line: &Line| !line.state.is_empty() || !line.reason.is_empty();
            assert!(lines.iter().all(is_shown), "{name}: {lines:?}");
        }
        assert!(count >= 20, "{count}");
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
                json!({"state": "CREATE_FAILED"}),
            ),
            (
                "huaweicloud.servicestage.v3.JobService",
                "WatchJob",
                json!({"event": event, "snapshot": {"job": {
                    "executionStatus": "EXECUTION_STATUS_FAILED"}}}),
                json!({"state": "FAILED"}),
            ),
            (
                "openstack.orchestration.v1.SoftwareDeploymentService",
                "WatchSoftwareDeployments",
                json!({"event": event, "softwareDeployment": {"id": "d1"}}),
                json!({"key": "d1", "state": ""}),
            ),
            (
                "hitachi.automation.v1.TaskService",
                "WatchTaskLog",
                json!({"event": event, "line": {"text": "first"}, "nextOffset": "6"}),
                json!({}),
            ),
            (
                "huaweicloud.servicestage.v3.AddonService",
                "ExecuteAddonActionAndWatch",
                json!({"event": {"type": "WATCH_EVENT_TYPE_STARTED"},
                    "started": {"jobId": "J"}}),
                json!({"names": ["J"]}),
            ),
            (
                "hitachi.automation.v1.TaskService",
                "SubmitServiceAndWatch",
                json!({"event": {"type": "WATCH_EVENT_TYPE_STARTED"},
                    "started": {"actionResult": {"instanceId": "45b46e24", "affectedRefs": [
                        {"resource": "Tasks", "id": "10001"},
                        {"resource": "Schedules", "id": "10002"}]}}}),
                json!({"names": ["10001"]}),
            ),
            (
                "openstack.orchestration.v1.StackResourceService",
                "WatchStackResources",
                json!({"event": event, "resource": {"resourceName": "web",
                    "resourceStatus": "RESOURCE_STATUS_UPDATE_COMPLETE",
                    "resourceStatusRaw": "UPDATE_COMPLETE"}}),
                json!({"key": "web", "state": "UPDATE_COMPLETE", "has_outcome": false}),
            ),
            (
                "hitachi.automation.v1.AutomationService",
                "WatchService",
                json!({"event": event, "service": {"instanceId": "7", "name": "n",
                    "serviceState": "SERVICE_STATE_TEST"}}),
                json!({"state": "test", "has_outcome": false,
                    "item": {"instanceId": "7", "name": "n"}}),
            ),
        ] {
            let stream = stream(&pool, service, rpc).unwrap();
            let method = pool.get_service_by_name(service).unwrap();
            let method = method
                .methods()
                .find(|method| method.name() == rpc)
                .unwrap();
            let encoded = DynamicMessage::deserialize(method.output(), message).unwrap();
            let got = stream.decoder.decode(&encoded.encode_to_vec()).unwrap();
            let got = got.json;
            for (name, value) in want.as_object().unwrap() {
                assert_eq!(&got["watched"][name], value, "{rpc}: {name}");
            }
            if rpc == "WatchTaskLog" {
                assert_eq!(
                    (&got["line"]["text"], &got["next_offset"]),
                    (&json!("first"), &json!(6))
                );
            }
            if got["event"]["type"] != "STARTED" {
                for (name, want) in [
                    ("type", "MODIFIED"),
                    ("outcome", "FAILED"),
                    ("observed_at", "2026-11-21T12:00:01Z"),
                ] {
                    assert_eq!(got["event"][name], want, "{rpc}");
                }
            }
        }
    }

    #[test]
    fn state_and_parts_of_an_own_api_are_found_by_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let proto = "syntax = 'proto3'; package acme.v1;
            enum Phase { PHASE_UNSPECIFIED = 0; PHASE_BUSY = 1; }
            message Response { Rollout rollout = 1; }
            message Rollout {
              string rollout_id = 1; repeated string states = 2; repeated Label labels = 3;
              repeated Host hosts = 4; int32 state = 5; Phase deploy_status = 6;
            }
            message Label { string name = 1; string text = 2; }
            message Host { string name = 1; Phase phase = 2; string host_state = 3; }";
        std::fs::write(folder.path().join("a.proto"), proto).unwrap();
        let mut compiler = protox::Compiler::new([folder.path()]).unwrap();
        compiler.open_file("a.proto").unwrap();
        let pool = compiler.descriptor_pool();
        let message = |name: &str| {
            pool.get_message_by_name(&format!("acme.v1.{name}"))
                .unwrap()
        };
        for (name, want) in [
            // Neither a list nor a number.
            ("Rollout", Some("deploy_status")),
            ("Host", Some("phase")),
            ("Label", None),
        ] {
            assert_eq!(state_field(&message(name)).as_deref(), want, "{name}");
        }
        let (response, rollout) = (message("Response"), message("Rollout"));
        let found = parts(&response, Some(&rollout)).unwrap();
        assert_eq!((found.list.name(), &*found.state), ("hosts", "phase"));
        let json = serde_json::json!({"hosts": [{"name": "web01", "phase": "PHASE_BUSY"}]});
        let rollout = DynamicMessage::deserialize(rollout, json).unwrap();
        let empty = DynamicMessage::new(response.clone());
        let got = found.of(&empty, Some(&rollout));
        assert_eq!(got, json!([{"name": "web01", "status": "BUSY"}]));
        assert!(parts(&response, Some(&message("Label"))).is_none());
    }
}
