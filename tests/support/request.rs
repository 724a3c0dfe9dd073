//! Makes request messages of REST requests: path values by the template of the rpc, query and
//! body by name.

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor};
use serde_json::{Map, Value, json};

use super::compare::{message_rule, rest_names, rule};

/// Returns the message that is bound to a REST request, as JSON with proto names, and enums by
/// their text. Fails where a member has no field.
pub fn of(
    method: &MethodDescriptor,
    path: &str,
    query: &[(String, String)],
    body: &Value,
) -> Result<Value, String> {
    let http = http(method);
    let mut request = Map::new();
    let template = template(&http);
    for (part, value) in template.split('/').zip(path.split('/')) {
        if let Some(name) = part.strip_prefix('{').and_then(|p| p.strip_suffix('}')) {
            request.insert(name.to_owned(), json!(value));
        }
    }
    let input = method.input();
    for (name, value) in query {
        let value = match value.as_str() {
            "true" => json!(true),
            "false" => json!(false),
            text => json!(text),
        };
        put(&input, &mut request, name, &value)?;
    }
    let body_field = http.get_field_by_name("body").unwrap();
    match (body, body_field.as_str().unwrap()) {
        (Value::Null, _) => {}
        (Value::Object(members), "*") => {
            for (name, value) in members {
                put(&input, &mut request, name, value)?;
            }
        }
        (_, "" | "*") => return Err(format!("the body {body} has no place")),
        (_, field) => {
            let field = input.get_field_by_name(field).unwrap();
            request.insert(field.name().to_owned(), value(&field, body)?);
        }
    }
    Ok(Value::Object(request))
}

/// Returns the field of the response that has the complete body, if any.
pub fn response_body(method: &MethodDescriptor) -> Option<FieldDescriptor> {
    let name = http(method)
        .get_field_by_name("response_body")?
        .into_owned();
    method.output().get_field_by_name(name.as_str()?)
}

fn put(
    message: &MessageDescriptor,
    into: &mut Map<String, Value>,
    name: &str,
    member: &Value,
) -> Result<(), String> {
    let field = message.fields().find(|f| {
        rule(f, "raw_of").is_none()
            && rule(f, "additional_properties").is_none()
            && rest_names(f)[0] == name
    });
    let Some(field) = field else {
        let extras = message
            .fields()
            .find(|f| rule(f, "additional_properties").is_some());
        let extras = extras.ok_or_else(|| format!("{} has no {name}", message.name()))?;
        let extras = into.entry(extras.name()).or_insert_with(|| json!({}));
        extras[name] = member.clone();
        return Ok(());
    };
    let raw = format!("{}_raw", field.name());
    let is_text = matches!(field.kind(), Kind::Enum(_));
    if is_text && message.get_field_by_name(&raw).is_some() {
        into.insert(raw, member.clone());
    } else {
        into.insert(field.name().to_owned(), value(&field, member)?);
    }
    Ok(())
}

fn value(field: &FieldDescriptor, rest: &Value) -> Result<Value, String> {
    let Kind::Message(message) = field.kind() else {
        return Ok(rest.clone());
    };
    if message.full_name().starts_with("google.protobuf.") || field.is_map() {
        return Ok(rest.clone());
    }
    match rest {
        Value::Array(items) if field.is_list() => {
            let items: Result<_, _> = items.iter().map(|item| object(&message, item)).collect();
            Ok(Value::Array(items?))
        }
        rest => object(&message, rest),
    }
}

fn object(message: &MessageDescriptor, rest: &Value) -> Result<Value, String> {
    let mut into = Map::new();
    match rest {
        Value::Object(members) => {
            for (name, member) in members {
                put(message, &mut into, name, member)?;
            }
        }
        Value::Array(_) => {
            let list = message_rule(message, "as_array")
                .ok_or_else(|| format!("{} is no array", message.name()))?;
            let field = message.get_field_by_name(list.as_str().unwrap()).unwrap();
            into.insert(field.name().to_owned(), value(&field, rest)?);
        }
        other => return Err(format!("{other} is no {}", message.name())),
    }
    Ok(Value::Object(into))
}

/// Returns the path of the rpc's REST call, with the names of variables.
pub fn route(method: &MethodDescriptor) -> String {
    template(&http(method))
}

fn http(method: &MethodDescriptor) -> DynamicMessage {
    let extension = method
        .parent_pool()
        .get_extension_by_name("google.api.http")
        .expect("annotations");
    let rule = method.options().get_extension(&extension).into_owned();
    rule.as_message().unwrap().clone()
}

fn template(http: &DynamicMessage) -> String {
    ["get", "put", "post", "delete", "patch"]
        .iter()
        .filter_map(|verb| Some(http.get_field_by_name(verb)?.as_str()?.to_owned()))
        .find(|template| !template.is_empty())
        .expect("a path")
}
