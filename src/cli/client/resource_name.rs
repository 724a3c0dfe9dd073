//! The identifiers of the resources in a response: what the next command takes.

use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
    ReflectMessage as _, Value,
};

use super::rules;

/// Where a response has the identifiers of its resources.
#[derive(Debug)]
enum Source {
    /// In the references to the resources that an action has created or changed, of which the
    /// first one counts, and those to resources of its kind. The first field is the message that
    /// has the list, if it is not the response itself.
    References(Option<FieldDescriptor>, FieldDescriptor),
    /// In each element of a list.
    List(FieldDescriptor),
    /// In the first of these messages that is set.
    Fields(Vec<FieldDescriptor>),
    /// In the response itself.
    Own,
    /// Nowhere.
    Nowhere,
}

/// How many messages around a resource are looked through: the response, and the snapshot in it.
const MAX_DEPTH: u32 = 2;

impl Source {
    fn of(response: &MessageDescriptor) -> Self {
        Self::within(response, 0)
    }

    fn within(response: &MessageDescriptor, depth: u32) -> Self {
        if let Some(list) = references(response) {
            return Self::References(None, list);
        }
        let fields = || response.fields().filter(|field| !field.is_map());
        let within = fields().filter(|field| !field.is_list()).find_map(|field| {
            let list = references(&message_of(&field)?)?;
            Some(Self::References(Some(field), list))
        });
        if let Some(within) = within {
            return within;
        }
        let is_list = response.name().starts_with("List");
        // A list of texts can be one of warnings and the like.
        let is_text = |field: &FieldDescriptor| is_list && matches!(field.kind(), Kind::String);
        let lists = || fields().filter(|field| field.is_list());
        let list = lists()
            .find(has_identifier)
            .or_else(|| lists().find(is_text));
        let singular = fields().filter(|field| !field.is_list() && has_resource(field, depth));
        let singular: Vec<_> = singular.collect();
        match list {
            Some(list) if is_list => Self::List(list),
            _ if identifier(response, "").is_some() => Self::Own,
            // A job next to its tasks.
            _ if !singular.is_empty() => Self::Fields(singular),
            Some(list) => Self::List(list),
            None => Self::Nowhere,
        }
    }
}

/// Returns the identifiers of the resources in the response of an rpc: those that it has created
/// or changed, those of its list, or its own. Without any, that of the resource that the request
/// names, and also instead of a mere name if requests take an id.
pub(in crate::cli) fn of_call(
    method: &MethodDescriptor,
    request: Option<&DynamicMessage>,
    response: &DynamicMessage,
) -> Vec<String> {
    let source = Source::of(&method.output());
    let names = of(response);
    let is_list = matches!(source, Source::List(_));
    let named = request
        .filter(|_| !is_list)
        .and_then(|request| of_request(method, request));
    match named {
        Some((_, name)) if names.is_empty() => vec![name],
        Some((variable, name)) if is_id(&variable) && source.is_name(&method.output()) => {
            vec![name]
        }
        _ => names,
    }
}

/// Returns whether the calls of an rpc can have identifiers, in requests or in responses.
pub(in crate::cli) fn has_names(method: &MethodDescriptor) -> bool {
    !variables(method).is_empty() || !matches!(Source::of(&method.output()), Source::Nowhere)
}

fn is_id(variable: &str) -> bool {
    variable == "id" || variable.ends_with("_id")
}

impl Source {
    /// Whether the identifier is a mere `name`, which may not be unique, or that of something else.
    fn is_name(&self, response: &MessageDescriptor) -> bool {
        let is_name = |kind: &MessageDescriptor, within: &str| {
            identifier(kind, within).is_some_and(|field| field.name() == "name")
        };
        match self {
            Self::Own => is_name(response, ""),
            Self::Fields(fields) => fields
                .iter()
                .all(|field| message_of(field).is_some_and(|kind| is_name(&kind, field.name()))),
            _ => false,
        }
    }
}

/// Returns the identifiers of the resources in a response.
pub(in crate::cli) fn of(response: &DynamicMessage) -> Vec<String> {
    match Source::of(&response.descriptor()) {
        Source::References(None, list) => of_references(response, &list),
        Source::References(Some(within), list) => {
            let within = response.get_field(&within);
            let within = within.as_message();
            within.map_or(Vec::new(), |within| of_references(within, &list))
        }
        Source::List(list) => {
            let values = response.get_field(&list);
            let values = values.as_list().unwrap_or_default().iter();
            values
                .filter_map(|value| of_value(value, list.name()))
                .collect()
        }
        Source::Fields(fields) => {
            let fields = fields.iter().filter(|field| response.has_field(field));
            let mut names = fields.map(|field| {
                let value = response.get_field(field);
                match value.as_message() {
                    Some(inner) if !has_identifier(field) => of(inner),
                    _ => of_value(&value, field.name()).into_iter().collect(),
                }
            });
            names.find(|names| !names.is_empty()).unwrap_or_default()
        }
        Source::Own => of_message(response, "").into_iter().collect(),
        Source::Nowhere => Vec::new(),
    }
}

/// Returns the variables of the REST path of an rpc, without that of the project.
fn variables(method: &MethodDescriptor) -> Vec<String> {
    let route = rules::route(method).unwrap_or_default();
    let variables = route.split('{').skip(1);
    let variables = variables.filter_map(|rest| rest.split(['=', '}']).next());
    let variables = variables.filter(|name| *name != "project_id");
    variables.map(str::to_owned).collect()
}

/// Returns the identifier in a request: the last variable of the REST path that is set, and its
/// value.
fn of_request(method: &MethodDescriptor, request: &DynamicMessage) -> Option<(String, String)> {
    let mut variables = variables(method);
    variables.reverse();
    variables.into_iter().find_map(|path| {
        let mut message = request.clone();
        let mut names = path.split('.').peekable();
        while let Some(name) = names.next() {
            let field = message.descriptor().get_field_by_name(name)?;
            if !message.has_field(&field) {
                return None;
            }
            let value = message.get_field(&field).into_owned();
            match value {
                Value::Message(inner) if names.peek().is_some() => message = inner,
                value => return Some((path.clone(), simple(&value)?)),
            }
        }
        None
    })
}

fn message_of(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match field.kind() {
        Kind::Message(message) => Some(message),
        _ => None,
    }
}

/// Whether the message of a field has an identifier: of JSON of any form only if it is all that the
/// response has.
fn has_identifier(field: &FieldDescriptor) -> bool {
    message_of(field).is_some_and(|kind| match is_struct(&kind) {
        true => field.parent_message().fields().len() == 1,
        false => identifier(&kind, field.name()).is_some(),
    })
}

/// Whether the message of a field has an identifier, or has a resource in it.
fn has_resource(field: &FieldDescriptor, depth: u32) -> bool {
    has_identifier(field)
        || message_of(field).is_some_and(|kind| {
            let is_other = !kind.full_name().starts_with("google.") && !rules::is_event(&kind);
            let has_one = |source| !matches!(source, Source::Nowhere | Source::List(_));
            is_other && depth + 1 < MAX_DEPTH && has_one(Source::within(&kind, depth + 1))
        })
}

/// Whether a message is JSON of any form.
fn is_struct(message: &MessageDescriptor) -> bool {
    message.full_name() == "google.protobuf.Struct"
}

/// Returns the list of the message that the gateway fills with the segments of URLs.
fn references(message: &MessageDescriptor) -> Option<FieldDescriptor> {
    let mut lists = message.fields().filter(FieldDescriptor::is_list);
    lists.find(|list| has_identifier(list) && rules::has_url_pattern(list))
}

/// Returns the identifiers of the first reference, and of those that are equal but for it.
fn of_references(message: &DynamicMessage, list: &FieldDescriptor) -> Vec<String> {
    let values = message.get_field(list);
    let references = values.as_list().unwrap_or_default().iter();
    let references = references.filter_map(Value::as_message);
    let kind = |reference: &DynamicMessage| {
        let mut reference = reference.clone();
        if let Some(field) = identifier(&reference.descriptor(), "") {
            reference.clear_field(&field);
        }
        reference
    };
    let mut references = references.peekable();
    let first = references.peek().map(|first| kind(first));
    references
        .filter(|reference| Some(kind(reference)) == first)
        .filter_map(|reference| of_message(reference, ""))
        .collect()
}

/// Returns the identifier in the value of a field.
fn of_value(value: &Value, field: &str) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Message(message) => of_message(message, field),
        _ => None,
    }
}

/// Returns the identifier of a message, in a field of this name.
pub(in crate::cli) fn of_message(message: &DynamicMessage, field: &str) -> Option<String> {
    let descriptor = message.descriptor();
    if is_struct(&descriptor) {
        let json = serde_json::to_value(message).ok()?;
        return ["id", "name"]
            .iter()
            .find_map(|name| match json.get(name)? {
                serde_json::Value::String(text) => Some(text.clone()),
                serde_json::Value::Number(number) => Some(number.to_string()),
                _ => None,
            });
    }
    simple(&message.get_field(&identifier(&descriptor, field)?))
}

/// Returns the text of an identifier; none for an empty one.
fn simple(value: &Value) -> Option<String> {
    match value {
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
pub(in crate::cli) fn identifier(
    descriptor: &MessageDescriptor,
    within: &str,
) -> Option<FieldDescriptor> {
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
    // A name that can be absent, next to an id that cannot: `job_name` and `job_id`.
    let is_certain = |name: &str| named(name).is_some_and(|field| !field.supports_presence());
    let has_id = is_certain(&format!("{kind}_id")) || is_certain(&format!("{singular}_id"));
    let certain = |name: String| named(&name).filter(|field| !has_id || !field.supports_presence());
    certain(format!("{kind}_name"))
        .or_else(|| certain(format!("{singular}_name")))
        .or_else(|| {
            let names = [
                &*format!("{kind}_id"),
                &*format!("{singular}_id"),
                &*format!("{singular}_key"),
                singular,
                "id",
                "instance_id",
                "name",
            ];
            names.iter().find_map(|name| named(name))
        })
        // `version` of one of the `template_versions`.
        .or_else(|| match within == format!("{kind}s") {
            true => named(kind.rsplit('_').next().unwrap_or_default()),
            false => None,
        })
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
            let names = of(&message);
            assert_eq!(names, want, "{name}");
        }
    }

    /// Describes where the names of a response are.
    fn place(response: &MessageDescriptor) -> String {
        let of_field = |field: &FieldDescriptor| {
            let Some(message) = message_of(field) else {
                return field.name().to_owned();
            };
            match identifier(&message, field.name()) {
                Some(identifier) => format!("{}.{}", field.name(), identifier.name()),
                None if is_struct(&message) => format!("{}.id", field.name()),
                None => format!("{}.{}", field.name(), place(&message)),
            }
        };
        match Source::of(response) {
            Source::References(within, list) => {
                let within = within.map(|field| field.name().to_owned() + ".");
                within.unwrap_or_default() + &of_field(&list)
            }
            Source::List(list) => format!("each {}", of_field(&list)),
            Source::Fields(fields) => {
                let places: Vec<String> = fields.iter().map(of_field).collect();
                places.join(" or ")
            }
            Source::Own => identifier(response, "").unwrap().name().to_owned(),
            Source::Nowhere => "nowhere".to_owned(),
        }
    }

    #[test]
    fn names_are_those_that_the_next_command_takes() {
        let pool = DescriptorPool::decode(crate::contract::BUILT_IN).unwrap();
        let mut places = std::collections::BTreeMap::new();
        for service in pool.services() {
            for method in service.methods() {
                let response = method.output();
                let source = Source::of(&response);
                let last = variables(&method).pop().unwrap_or_default();
                let takes_id = is_id(&last) && source.is_name(&response);
                let place = match source {
                    Source::Nowhere if last.is_empty() => "nowhere".to_owned(),
                    Source::Nowhere => format!("request: {last}"),
                    _ if takes_id => format!("request: {last}"),
                    _ => place(&response),
                };
                let name = format!("{}/{}", service.name(), method.name());
                places.insert(name, place);
            }
        }
        for (method, want) in [
            ("StackService/CreateStack", "stack.id"),
            ("StackService/GetStack", "stack.stack_name"),
            ("StackService/ListStacks", "each stacks.stack_name"),
            ("StackService/WatchStack", "stack.stack_name"),
            ("StackService/DeleteStack", "request: stack_id"),
            ("StackService/GetStackEnvironment", "request: stack_id"),
            ("StackActionService/SuspendStack", "request: stack_id"),
            (
                "StackResourceService/WatchStackResources",
                "resource.resource_name",
            ),
            (
                "StackResourceService/SignalStackResource",
                "request: resource_name",
            ),
            (
                "StackOutputService/ListStackOutputs",
                "each outputs.output_key",
            ),
            (
                "TemplateService/ListTemplateVersions",
                "each template_versions.version",
            ),
            ("TemplateService/ValidateTemplate", "nowhere"),
            (
                "ResourceTypeService/ListResourceTypes",
                "each resource_types.resource_type",
            ),
            (
                "ResourceTypeService/GetResourceTypeSchema",
                "request: type_name",
            ),
            (
                "AutomationService/SubmitService",
                "action_result.affected_refs.id",
            ),
            ("AutomationService/GetSubmitServiceAction", "request: id"),
            ("TaskService/RespondTask", "action_result.affected_refs.id"),
            ("TaskService/GetTask", "task.instance_id"),
            (
                "TaskService/WatchTask",
                "task.instance_id or respond_action.name or history.instance_id",
            ),
            ("JobService/GetJob", "job.job_id"),
            ("JobService/WatchJob", "snapshot.job.job_id or addon.id"),
            ("AddonService/CreateAddon", "id"),
            ("AddonService/ExecuteAddonAction", "job_id"),
            ("ComponentService/CreateComponent", "component_id"),
            ("ComponentService/GetComponent", "request: component_id"),
            ("PipelineService/CreatePipeline", "pipeline.id"),
            (
                "ReleasePlanService/ExecuteReleasePlan",
                "request: release_plan_id",
            ),
        ] {
            assert_eq!(places[method], want, "{method}");
        }
    }

    #[test]
    fn request_names_what_the_response_does_not() {
        let pool = DescriptorPool::decode(crate::contract::BUILT_IN).unwrap();
        let heat = "openstack.orchestration.v1.StackService";
        let jp1ao = "hitachi.automation.v1.TaskService";
        for (service, rpc, request, response, want) in [
            (
                heat,
                "DeleteStack",
                json!({"stackName": "a"}),
                json!({}),
                &["a"][..],
            ),
            (
                heat,
                "DeleteStack",
                json!({"stackName": "a", "stackId": "1"}),
                json!({}),
                &["1"],
            ),
            (
                heat,
                "GetStack",
                json!({"stackName": "a", "stackId": "1"}),
                json!({"stack": {"id": "1", "stackName": "a"}}),
                &["a"],
            ),
            (heat, "ListStacks", json!({}), json!({}), &[]),
            // The action has changed nothing that it names.
            (
                jp1ao,
                "RespondTask",
                json!({"id": "7"}),
                json!({"actionResult": {"instanceId": "45b46e24"}}),
                &["7"],
            ),
            // The task comes first; its schedule is left out.
            (
                jp1ao,
                "ResubmitTask",
                json!({"id": "7"}),
                json!({"actionResult": {"instanceId": "45b46e24", "affectedRefs": [
                    {"resource": "Tasks", "id": "8"}, {"resource": "Schedules", "id": "9"},
                    {"resource": "Tasks", "id": "10"}]}}),
                &["8", "10"],
            ),
        ] {
            let service = pool.get_service_by_name(service).unwrap();
            let mut methods = service.methods();
            let method = methods.find(|method| method.name() == rpc).unwrap();
            let request = DynamicMessage::deserialize(method.input(), request).unwrap();
            let response = DynamicMessage::deserialize(method.output(), response).unwrap();
            let names = of_call(&method, Some(&request), &response);
            assert_eq!(names, want, "{rpc}");
        }
    }
}
