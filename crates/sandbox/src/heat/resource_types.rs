//! Resource types: their schemas and the checks of properties.
//!
//! `types.json` holds the schemas as Heat 27.0.1 returns them, with reworded
//! descriptions.

use std::sync::LazyLock;

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::super::message::Response;
use super::template::Fault;
use super::{Context, Heat, bad_request, boolean_parameter, entity_not_found, fault, functions};

/// A resource type.
pub(super) struct Type {
    name: String,
    /// Class name in Heat, which occurs in generated templates.
    class: String,
    about: String,
    schema: Value,
}

static TYPES: LazyLock<Vec<Type>> = LazyLock::new(|| {
    let text = include_str!("types.json");
    let read: Vec<Value> = serde_json::from_str(text).unwrap_or_default();
    read.into_iter()
        .map(|mut read| Type {
            name: functions::text(&read["schema"]["resource_type"]),
            class: functions::text(&read["class"]),
            about: functions::text(&read["about"]),
            schema: read["schema"].take(),
        })
        .collect()
});

fn find(name: &str) -> Option<&'static Type> {
    TYPES.iter().find(|kind| kind.name == name)
}

pub(super) fn exists(name: &str) -> bool {
    find(name).is_some()
}

/// Returns Heat's class name of a type; a file is a template resource.
pub(super) fn class(name: &str) -> &'static str {
    find(name).map_or("TemplateResource", |kind| &kind.class)
}

/// Returns the schema of a type's properties; empty for a file.
pub(super) fn properties(name: &str) -> &'static Map<String, Value> {
    static NONE: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
    find(name)
        .and_then(|kind| kind.schema["properties"].as_object())
        .unwrap_or(&NONE)
}

/// Returns the names of a type's attributes without `show`.
pub(super) fn attributes(name: &str) -> Vec<&'static str> {
    let attributes = find(name).and_then(|kind| kind.schema["attributes"].as_object());
    attributes
        .into_iter()
        .flatten()
        .map(|(name, _)| name.as_str())
        .filter(|name| *name != "show")
        .collect()
}

/// Returns whether a type has this attribute. Some types accept any name.
pub(super) fn has_attribute(kind: &str, attribute: &str) -> bool {
    let any = [
        "OS::Heat::None",
        "OS::Heat::SoftwareDeployment",
        "OS::Heat::ResourceGroup",
    ];
    any.contains(&kind)
        || !exists(kind)
        || attribute == "show"
        || attributes(kind).contains(&attribute)
}

/// Returns whether a change of this property replaces the resource.
pub(super) fn replaces(kind: &str, property: &str) -> bool {
    properties(kind)
        .get(property)
        .is_some_and(|schema| schema["update_allowed"] == json!(false))
}

/// Checks the properties of one resource. `resolved` holds the properties with known
/// values; the others are only checked for existence.
pub(super) fn check(
    resource: &str,
    kind: &str,
    given: &Value,
    resolved: &Map<String, Value>,
) -> Result<(), Fault> {
    // Accepts any properties.
    if kind == "OS::Heat::None" {
        return Ok(());
    }
    let place = format!("Property error: : resources.{resource}.properties");
    let wrong = |problem: String| Err(Fault::new("StackValidationFailed", problem));
    let schema = properties(kind);
    for name in given
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name)
    {
        if !schema.contains_key(name) {
            return wrong(format!("{place}: : Unknown Property {name}"));
        }
    }
    for (name, schema) in schema {
        match resolved.get(name) {
            Some(value) if !value.is_null() => {
                if let Err(problem) = conforms(value, schema, 0) {
                    return wrong(format!("{place}.{name}: : {problem}"));
                }
            }
            _ if schema["required"] == json!(true)
                && given.get(name).is_none_or(Value::is_null) =>
            {
                return wrong(format!("{place}: : Property {name} not assigned"));
            }
            _ => {}
        }
    }
    Ok(())
}

fn conforms(value: &Value, schema: &Value, depth: usize) -> Result<(), String> {
    if depth > 8 {
        return Ok(());
    }
    let shown = repr(value);
    match schema["type"].as_str() {
        Some("integer") => {
            let whole = match value {
                Value::Number(number) => number.as_f64().is_some_and(|n| n.fract() == 0.0),
                Value::String(text) => text.trim().parse::<i64>().is_ok(),
                _ => false,
            };
            if !whole {
                return Err(format!("Value {shown} is not an integer"));
            }
        }
        Some("number") if number(value).is_none() => {
            return Err(format!("could not convert string to float: {shown}"));
        }
        Some("string") if value.is_object() || value.is_array() => {
            return Err("Value must be a string".to_owned());
        }
        Some("boolean") => {
            let text = functions::text(value).to_lowercase();
            if !["true", "false"].contains(&text.as_str()) {
                return Err(format!("{shown} is not a valid boolean"));
            }
        }
        Some("map") => {
            let Some(members) = value.as_object() else {
                return Err(format!("{shown} is not a map"));
            };
            if let Some(schema) = schema["schema"].as_object() {
                if let Some(unknown) = members.keys().find(|name| !schema.contains_key(*name)) {
                    return Err(format!("Unknown Property {unknown}"));
                }
                for (name, schema) in schema {
                    match members.get(name) {
                        Some(value) if !value.is_null() => conforms(value, schema, depth + 1)
                            .map_err(|problem| format!("{name}: {problem}"))?,
                        _ if schema["required"] == json!(true) => {
                            return Err(format!("Property {name} not assigned"));
                        }
                        _ => {}
                    }
                }
            }
        }
        Some("list") => {
            let Some(items) = value.as_array() else {
                return Err(format!("{shown} is not a list"));
            };
            let item = &schema["schema"]["*"];
            for value in items.iter().filter(|_| !item.is_null()) {
                conforms(value, item, depth + 1)?;
            }
        }
        _ => {}
    }
    for constraint in schema["constraints"].as_array().into_iter().flatten() {
        constrained(value, constraint)?;
    }
    Ok(())
}

/// Checks a constraint of a property or parameter. Fails with Heat's message.
pub(super) fn constrained(value: &Value, constraint: &Value) -> Result<(), String> {
    let own = constraint["description"].as_str();
    let refuse = |message: String| Err(own.map_or(message, str::to_owned));
    let bound = |what: &str, of: &str| constraint[of][what].as_f64();
    let bounds = |of: &str| {
        let shown: Vec<String> = ["min", "max"]
            .into_iter()
            .filter(|what| !constraint[of][*what].is_null())
            .map(|what| format!("{what}: {}", constraint[of][what]))
            .collect();
        shown.join(", ")
    };
    let outside = |number: f64, of: &str| {
        bound("min", of).is_some_and(|min| number < min)
            || bound("max", of).is_some_and(|max| number > max)
    };
    if constraint["range"].is_object()
        && let Some(number) = number(value)
        && outside(number, "range")
    {
        let shown = functions::text(value);
        return refuse(format!("{shown} is out of range ({})", bounds("range")));
    }
    if constraint["length"].is_object() {
        let length = match value {
            Value::String(text) => text.chars().count(),
            Value::Array(items) => items.len(),
            Value::Object(members) => members.len(),
            _ => 0,
        };
        if outside(length as f64, "length") {
            return refuse(format!(
                "length ({length}) is out of range ({})",
                bounds("length")
            ));
        }
    }
    if let Some(allowed) = constraint["allowed_values"].as_array() {
        let fine = |value: &Value| {
            allowed
                .iter()
                .any(|allowed| functions::text(allowed) == functions::text(value))
        };
        let all_fine = match value {
            Value::Array(items) => items.iter().all(fine),
            value => fine(value),
        };
        if !all_fine {
            let shown: Vec<String> = allowed.iter().map(functions::text).collect();
            return refuse(format!(
                "{} is not an allowed value [{}]",
                repr_double(value),
                shown.join(", ")
            ));
        }
    }
    if let Some(pattern) = constraint["allowed_pattern"].as_str() {
        let text = functions::text(value);
        if !super::pattern::matches(pattern, &text, true) {
            return refuse(format!("\"{text}\" does not match pattern \"{pattern}\""));
        }
    }
    Ok(())
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// Formats a value as Python does in messages.
pub(super) fn repr(value: &Value) -> String {
    match value {
        Value::String(text) => format!("'{text}'"),
        other => functions::text(other),
    }
}

fn repr_double(value: &Value) -> String {
    match value {
        Value::String(text) => format!("\"{text}\""),
        other => functions::text(other),
    }
}

const STATUSES: [&str; 5] = [
    "UNKNOWN",
    "SUPPORTED",
    "DEPRECATED",
    "UNSUPPORTED",
    "HIDDEN",
];

/// `name` is a regular expression, matched from the start; an invalid one matches
/// nothing.
pub(super) fn list(_: &mut Heat, context: &Context) -> Result<Response, Response> {
    let described = boolean_parameter(context, "with_description", ".")?.unwrap_or(false);
    let parameter = |name: &str| context.request.parameter(name);
    if let Some(status) = parameter("support_status")
        && !STATUSES.contains(&status)
    {
        let message = "Data supplied was not valid: Invalid support status and should be one of ('UNKNOWN', 'SUPPORTED', 'DEPRECATED', 'UNSUPPORTED', 'HIDDEN')";
        return Err(fault(StatusCode::BAD_REQUEST, "Invalid", Some(message)));
    }
    let wanted = |kind: &&Type| {
        let support = &kind.schema["support_status"];
        parameter("name").is_none_or(|name| super::pattern::matches(name, &kind.name, false))
            && parameter("support_status").is_none_or(|status| support["status"] == status)
            && parameter("version").is_none_or(|version| support["version"] == version)
    };
    let found = TYPES.iter().filter(wanted);
    let found: Vec<Value> = match described {
        true => found
            .map(|kind| json!({"resource_type": kind.name, "description": kind.about}))
            .collect(),
        false => found.map(|kind| json!(kind.name)).collect(),
    };
    Ok(Response::ok(json!({"resource_types": found})))
}

fn found(context: &Context) -> Result<&'static Type, Response> {
    let name = context.segment(0);
    find(name).ok_or_else(|| entity_not_found("Resource Type", name))
}

pub(super) fn show(_: &mut Heat, context: &Context) -> Result<Response, Response> {
    Ok(Response::ok(found(context)?.schema.clone()))
}

/// Builds a template that creates one resource of the type.
pub(super) fn template(_: &mut Heat, context: &Context) -> Result<Response, Response> {
    let hot = match context.request.parameter("template_type") {
        None | Some("cfn") => false,
        Some("hot") => true,
        Some(other) => {
            return Err(bad_request(&format!(
                "Template type is not supported: Invalid template type \"{other}\", valid types are: cfn, hot."
            )));
        }
    };
    let kind = found(context)?;
    let class = &kind.class;
    let mut parameters = Map::new();
    let mut properties = Map::new();
    for (name, schema) in self::properties(&kind.name) {
        // Observed: a type with a property of any type results in a `KeyError`.
        let Some((cfn, plain)) = parameter_type(&schema["type"]) else {
            return Err(fault(StatusCode::INTERNAL_SERVER_ERROR, "KeyError", None));
        };
        let parameter = match hot {
            true => hot_parameter(plain, schema),
            false => cfn_parameter(cfn, schema),
        };
        parameters.insert(name.clone(), parameter);
        let reference = if hot { "get_param" } else { "Ref" };
        properties.insert(name.clone(), json!({reference: name}));
    }
    let mut outputs = Map::new();
    for (name, schema) in kind.schema["attributes"].as_object().into_iter().flatten() {
        let output = match hot {
            true => {
                json!({"value": {"get_attr": [class, name]}, "description": schema["description"]})
            }
            false => {
                json!({"Value": {"Fn::GetAtt": [class, name]}, "Description": schema["description"]})
            }
        };
        outputs.insert(name.clone(), output);
    }
    let reference = match hot {
        true => json!({"value": {"get_resource": class}}),
        false => json!({"Value": {"Ref": class}}),
    };
    outputs.insert("OS::stack_id".to_owned(), reference);
    let about = format!("Initial template of {class}");
    Ok(Response::ok(match hot {
        true => json!({
            "heat_template_version": "2016-10-14",
            "description": about,
            "parameters": parameters,
            "outputs": outputs,
            "resources": {class: {"type": kind.name, "properties": properties}},
        }),
        false => json!({
            "HeatTemplateFormatVersion": "2012-12-12",
            "Description": about,
            "Parameters": parameters,
            "Resources": {class: {"Type": kind.name, "Properties": properties}},
            "Outputs": outputs,
        }),
    }))
}

/// Returns the parameter type for a property in CloudFormation and HOT.
fn parameter_type(property: &Value) -> Option<(&'static str, &'static str)> {
    Some(match property.as_str()? {
        "string" => ("String", "string"),
        "number" | "integer" => ("Number", "number"),
        "boolean" => ("Boolean", "boolean"),
        "map" => ("Json", "json"),
        "list" => ("CommaDelimitedList", "comma_delimited_list"),
        _ => return None,
    })
}

fn hot_parameter(kind: &str, schema: &Value) -> Value {
    let mut parameter = json!({"type": kind, "description": schema["description"]});
    if let Some(default) = schema.get("default") {
        parameter["default"] = default.clone();
    }
    if let Some(constraints) = schema["constraints"].as_array() {
        // Observed: a custom constraint is empty here.
        parameter["constraints"] = constraints
            .iter()
            .map(|constraint| match constraint.get("custom_constraint") {
                Some(_) => json!({}),
                None => constraint.clone(),
            })
            .collect();
    }
    parameter
}

fn cfn_parameter(kind: &str, schema: &Value) -> Value {
    let mut parameter = json!({"Type": kind, "Description": schema["description"]});
    if let Some(default) = schema.get("default") {
        parameter["Default"] = default.clone();
    }
    for constraint in schema["constraints"].as_array().into_iter().flatten() {
        constraint_members(constraint, &mut parameter);
    }
    parameter
}

/// Adds a constraint with CloudFormation's member names, which `/validate` uses as
/// well.
pub(super) fn constraint_members(constraint: &Value, into: &mut Value) {
    for (group, bound, name) in [
        ("length", "min", "MinLength"),
        ("length", "max", "MaxLength"),
        ("range", "min", "MinValue"),
        ("range", "max", "MaxValue"),
        ("modulo", "step", "Step"),
        ("modulo", "offset", "Offset"),
    ] {
        if let Some(value) = constraint[group].get(bound) {
            into[name] = value.clone();
        }
    }
    for (from, name) in [
        ("allowed_values", "AllowedValues"),
        ("allowed_pattern", "AllowedPattern"),
        ("custom_constraint", "CustomConstraint"),
        ("description", "ConstraintDescription"),
    ] {
        if let Some(value) = constraint.get(from) {
            into[name] = value.clone();
        }
    }
}
