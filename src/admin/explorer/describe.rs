//! Describes services and the messages of requests as JSON, with their comments.

use std::collections::{BTreeMap, HashMap};

use prost_reflect::{
    Cardinality, EnumDescriptor, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor,
    MethodDescriptor, Value as ProtoValue,
};
use serde_json::{Map, Value, json};

use super::{Connection, Pools};

/// How many messages of a request are described. A form shows one at a time.
const MAX_MESSAGES: usize = 500;

/// The option with what a field is for, and its numbers for REQUIRED and OUTPUT_ONLY. Source:
/// google/api/field_behavior.proto.
const FIELD_BEHAVIOR: &str = "google.api.field_behavior";
const REQUIRED: i32 = 2;
const OUTPUT_ONLY: i32 = 3;

/// Numbers of fields in descriptor.proto, in the path of a comment.
const SERVICE_METHOD: i32 = 2;

/// Describes the services of these methods.
pub(super) fn services(
    methods: &BTreeMap<String, Vec<String>>,
    pools: &Pools,
    connection: &Connection,
) -> Value {
    let mut comments = Comments::default();
    let mut services: BTreeMap<String, (String, Vec<Value>)> = BTreeMap::new();
    for (name, upstreams) in methods {
        let Some((method, _)) = pools.method(name) else {
            continue;
        };
        let service = method.parent_service();
        let file = service.parent_file();
        let (_, listed) = services
            .entry(service.full_name().to_owned())
            .or_insert_with(|| (comments.of(&file, service.path()), Vec::new()));
        debug_assert_eq!(method.path().get(2), Some(&SERVICE_METHOD));
        listed.push(json!({
            "name": method.name(),
            "comment": comments.of(&file, method.path()),
            "kind": kind(&method),
            "upstreams": upstreams,
        }));
    }
    let services: Vec<Value> = services
        .into_iter()
        .map(|(name, (comment, methods))| {
            json!({"name": name, "comment": comment, "methods": methods})
        })
        .collect();
    json!({"connection": connection, "services": services})
}

/// Returns the kind of a method: which side sends several messages.
fn kind(method: &MethodDescriptor) -> &'static str {
    match (method.is_client_streaming(), method.is_server_streaming()) {
        (false, false) => "unary",
        (false, true) => "server_streaming",
        (true, false) => "client_streaming",
        (true, true) => "bidirectional",
    }
}

/// Describes the request of a method: its message, and all that it refers to.
pub(super) fn request(method: &MethodDescriptor) -> Value {
    let mut comments = Comments::default();
    let (mut messages, mut enums) = (Map::new(), Map::new());
    let mut queue = vec![method.input()];
    while let Some(message) = queue.pop() {
        let name = message.full_name();
        if messages.contains_key(name) || messages.len() == MAX_MESSAGES || is_own_form(name) {
            continue;
        }
        let fields = message
            .fields()
            .filter(|one| !has_behavior(one, OUTPUT_ONLY));
        let fields: Vec<FieldDescriptor> = fields.collect();
        for field in &fields {
            let value = match field.kind() {
                Kind::Message(entry) if field.is_map() => entry.map_entry_value_field().kind(),
                kind => kind,
            };
            match value {
                Kind::Message(next) => queue.push(next),
                Kind::Enum(next) if !enums.contains_key(next.full_name()) => {
                    let described = enumeration(&next, &mut comments);
                    enums.insert(next.full_name().to_owned(), described);
                }
                _ => {}
            }
        }
        let fields: Vec<Value> = fields
            .iter()
            .map(|one| field(one, &message, &mut comments))
            .collect();
        messages.insert(name.to_owned(), fields.into());
    }
    json!({
        "input": method.input().full_name(),
        "output": method.output().full_name(),
        "messages": messages,
        "enums": enums,
    })
}

/// Returns whether JSON has a form of its own for this message.
fn is_own_form(name: &str) -> bool {
    let well_known = [
        "Any",
        "Duration",
        "FieldMask",
        "ListValue",
        "Struct",
        "Timestamp",
        "Value",
        "BoolValue",
        "BytesValue",
        "DoubleValue",
        "FloatValue",
        "Int32Value",
        "Int64Value",
        "StringValue",
        "UInt32Value",
        "UInt64Value",
    ];
    name.strip_prefix("google.protobuf.")
        .is_some_and(|name| well_known.contains(&name))
}

fn field(field: &FieldDescriptor, message: &MessageDescriptor, comments: &mut Comments) -> Value {
    let mut described = Map::new();
    let mut set = |key: &str, value: Value| described.insert(key.to_owned(), value);
    set("name", field.json_name().into());
    set("proto", field.name().into());
    set(
        "comment",
        comments.of(&message.parent_file(), field.path()).into(),
    );
    match field.kind() {
        Kind::Message(entry) if field.is_map() => {
            set("label", "map".into());
            set("key", type_of(&entry.map_entry_key_field().kind()));
            set("type", type_of(&entry.map_entry_value_field().kind()));
        }
        kind => {
            if field.cardinality() == Cardinality::Repeated {
                set("label", "repeated".into());
            } else if field.supports_presence() {
                set("label", "optional".into());
            }
            set("type", type_of(&kind));
        }
    }
    if let Some(oneof) = field
        .containing_oneof()
        .filter(|oneof| !oneof.is_synthetic())
    {
        set("oneof", oneof.name().into());
    }
    if has_behavior(field, REQUIRED) {
        set("required", true.into());
    }
    let is_deprecated = field.field_descriptor_proto().options.as_ref();
    if is_deprecated.is_some_and(|options| options.deprecated()) {
        set("deprecated", true.into());
    }
    described.into()
}

/// Returns the name of a scalar type, `{"message": NAME}` or `{"enum": NAME}`.
fn type_of(kind: &Kind) -> Value {
    match kind {
        Kind::Message(message) => json!({"message": message.full_name()}),
        Kind::Enum(one) => json!({"enum": one.full_name()}),
        scalar => format!("{scalar:?}").into(),
    }
}

fn enumeration(one: &EnumDescriptor, comments: &mut Comments) -> Value {
    let file = one.parent_file();
    let values = one.values().map(|value| {
        json!({
            "name": value.name(),
            "number": value.number(),
            "comment": comments.of(&file, value.path()),
        })
    });
    values.collect()
}

fn has_behavior(field: &FieldDescriptor, wanted: i32) -> bool {
    let pool = field.parent_message().parent_pool().clone();
    let Some(option) = pool.get_extension_by_name(FIELD_BEHAVIOR) else {
        return false;
    };
    let options = field.options();
    let value = options.get_extension(&option);
    let all = value.as_list().unwrap_or_default();
    all.iter().any(|one| *one == ProtoValue::EnumNumber(wanted))
}

/// The comments of files, by path.
#[derive(Default)]
struct Comments(HashMap<String, HashMap<Vec<i32>, String>>);

impl Comments {
    fn of(&mut self, file: &FileDescriptor, path: &[i32]) -> String {
        let of_file = self.0.entry(file.name().to_owned()).or_insert_with(|| {
            let info = file.file_descriptor_proto().source_code_info.as_ref();
            let locations = info.map_or(&[][..], |info| &info.location).iter();
            let commented = locations.filter_map(|location| {
                let comments = [location.leading_comments(), location.trailing_comments()];
                let text = comments.map(str::trim).join("\n\n");
                let text = text.trim().replace("\n ", "\n");
                (!text.is_empty()).then(|| (location.path.clone(), text))
            });
            commented.collect()
        });
        of_file.get(path).cloned().unwrap_or_default()
    }
}
