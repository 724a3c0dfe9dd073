//! The identifiers of the resources in a response.

use bytes::Bytes;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _, Value,
};

/// Returns an identifier per resource of a response: those of its list, or its own.
pub(super) fn of(descriptor: &MessageDescriptor, message: &Bytes) -> Vec<String> {
    let Ok(message) = DynamicMessage::decode(descriptor.clone(), message.clone()) else {
        return Vec::new();
    };
    let lists = descriptor.fields().filter(|field| field.is_list());
    let is_resource = |field: &FieldDescriptor| match field.kind() {
        Kind::String => true,
        _ => has_identifier(field),
    };
    // The list of resources has precedence over a list of texts, such as warnings.
    let mut lists: Vec<_> = lists.filter(is_resource).collect();
    lists.sort_by_key(|field| matches!(field.kind(), Kind::String));
    if let Some(list) = lists.first()
        && identifier(descriptor, "").is_none()
    {
        let values = message.get_field(list);
        let values = values.as_list().unwrap_or_default();
        return values
            .iter()
            .filter_map(|value| of_value(value, list.name()))
            .collect();
    }
    let singular = descriptor
        .fields()
        .find(|field| !field.is_list() && !field.is_map() && has_identifier(field));
    match singular {
        Some(field) if message.has_field(&field) => {
            of_value(&message.get_field(&field), field.name())
                .into_iter()
                .collect()
        }
        _ => of_message(&message, "").into_iter().collect(),
    }
}

fn has_identifier(field: &FieldDescriptor) -> bool {
    match field.kind() {
        Kind::Message(kind) => identifier(&kind, field.name()).is_some(),
        _ => false,
    }
}

/// Returns the identifier in the value of a field.
fn of_value(value: &Value, field: &str) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Message(message) => of_message(message, field),
        _ => None,
    }
}

fn of_message(message: &DynamicMessage, field: &str) -> Option<String> {
    let field = identifier(&message.descriptor(), field)?;
    match &*message.get_field(&field) {
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Value::I32(number) => Some(number.to_string()),
        Value::I64(number) => Some(number.to_string()),
        Value::U32(number) => Some(number.to_string()),
        Value::U64(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Returns the field that identifies a resource: of a `Stack`, or of one in a field `stacks`,
/// `stack_name` or `stack_id`, otherwise `id`, one that ends in `_id`, or `name`.
fn identifier(descriptor: &MessageDescriptor, within: &str) -> Option<FieldDescriptor> {
    let kind = snake_case(descriptor.name());
    let singular = within.strip_suffix('s').unwrap_or(within);
    let is_simple = |field: &FieldDescriptor| {
        !field.is_list()
            && matches!(
                field.kind(),
                Kind::String | Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64
            )
    };
    let named = |name: &str| descriptor.get_field_by_name(name).filter(is_simple);
    let by_end = |end: &str| {
        let mut fields = descriptor.fields();
        fields.find(|field| field.name().ends_with(end) && is_simple(field))
    };
    [
        format!("{kind}_name"),
        format!("{singular}_name"),
        format!("{kind}_id"),
        format!("{singular}_id"),
        "id".to_owned(),
        "instance_id".to_owned(),
        "name".to_owned(),
    ]
    .iter()
    .find_map(|name| named(name))
    .or_else(|| by_end("_id"))
    .or_else(|| by_end("_name"))
}

/// Returns `software_config` for `SoftwareConfig`.
fn snake_case(name: &str) -> String {
    let mut text = String::new();
    for (at, c) in name.char_indices() {
        if c.is_uppercase() && at > 0 {
            text.push('_');
        }
        text.extend(c.to_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;
    use prost_reflect::DescriptorPool;
    use serde_json::json;

    #[test]
    fn resources_have_their_identifiers() {
        let pool = DescriptorPool::decode(crate::contract::BUILT_IN).unwrap();
        for (name, value, want) in [
            (
                "openstack.orchestration.v1.ListStacksResponse",
                json!({"stacks": [{"id": "1", "stackName": "a"}, {"id": "2", "stackName": "b"}]}),
                &["a", "b"][..],
            ),
            (
                "openstack.orchestration.v1.GetStackResponse",
                json!({"stack": {"id": "1", "stackName": "a"}}),
                &["a"],
            ),
            (
                "openstack.orchestration.v1.ListSoftwareDeploymentsResponse",
                json!({"softwareDeployments": [{"id": "d1"}]}),
                &["d1"],
            ),
            (
                "hitachi.automation.v1.GetTaskResponse",
                json!({"task": {"instanceId": "10001", "name": "night shift"}}),
                &["10001"],
            ),
            (
                "huaweicloud.servicestage.v3.ExecuteAddonActionResponse",
                json!({"jobId": "J"}),
                &["J"],
            ),
            (
                "openstack.orchestration.v1.ListStacksResponse",
                json!({}),
                &[],
            ),
        ] {
            let descriptor = pool.get_message_by_name(name).unwrap();
            let message = DynamicMessage::deserialize(descriptor.clone(), value).unwrap();
            let names = of(&descriptor, &message.encode_to_vec().into());
            assert_eq!(names, want, "{name}");
        }
    }
}
