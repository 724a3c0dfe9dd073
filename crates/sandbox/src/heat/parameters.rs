//! A stack's parameters: values converted to their types, checked against their
//! constraints, and formatted for responses.

use serde_json::{Map, Value, json};

use super::super::python_json;
use super::functions::text;
use super::resource_types;
use super::template::{Environment, Fault, Template};

/// Values of a template's parameters, in the template's order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Parameters(pub Vec<Parameter>);

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Parameter {
    pub name: String,
    kind: String,
    hidden: bool,
    /// Converted to the type: numbers as numbers, lists as lists.
    pub value: Value,
}

impl Parameters {
    /// Values of the request take precedence over the environment's defaults, and these
    /// over the template's.
    pub fn read(template: &Template, environment: &Environment) -> Result<Self, Fault> {
        for name in environment.parameters.keys() {
            if !template.parameters().any(|(known, _)| known == name) {
                return Err(Fault::new(
                    "UnknownUserParameter",
                    format!("The Parameter ({name}) was not defined in template."),
                ));
            }
        }
        let mut read = Vec::new();
        for (name, schema) in template.parameters() {
            let given = [
                environment.parameters.get(name),
                environment.parameter_defaults.get(name),
                schema.get("default"),
            ];
            let Some(value) = given.into_iter().flatten().next() else {
                return Err(Fault::new(
                    "UserParameterMissing",
                    format!("The Parameter ({name}) was not provided."),
                ));
            };
            let kind = schema["type"].as_str().unwrap_or_default();
            let invalid = |problem: String| {
                Fault::new(
                    "StackValidationFailed",
                    format!("Parameter '{name}' is invalid: {problem}"),
                )
            };
            let value = typed(kind, value).map_err(invalid)?;
            for constraint in constraints(schema) {
                resource_types::constrained(&value, constraint).map_err(invalid)?;
            }
            read.push(Parameter {
                name: name.clone(),
                kind: kind.to_owned(),
                hidden: schema["hidden"] == json!(true),
                value,
            });
        }
        Ok(Self(read))
    }

    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0
            .iter()
            .find(|parameter| parameter.name == name)
            .map(|parameter| &parameter.value)
    }

    /// Formats all values as text, as in a stack.
    pub fn show(&self, stack: &str, project: &str, name: &str) -> Value {
        let mut shown = Map::new();
        shown.insert("OS::stack_id".to_owned(), json!(stack));
        shown.insert("OS::project_id".to_owned(), json!(project));
        shown.insert("OS::stack_name".to_owned(), json!(name));
        for parameter in &self.0 {
            let value = match (parameter.hidden, parameter.kind.as_str(), &parameter.value) {
                (true, _, _) => "******".to_owned(),
                (_, "comma_delimited_list", Value::Array(items)) => {
                    items.iter().map(text).collect::<Vec<_>>().join(",")
                }
                (_, "json", value) => python_json::dumps(value),
                (_, _, value) => text(value),
            };
            shown.insert(parameter.name.clone(), json!(value));
        }
        Value::Object(shown)
    }
}

fn constraints(schema: &Value) -> impl Iterator<Item = &Value> {
    schema["constraints"].as_array().into_iter().flatten()
}

/// Converts a value to the parameter's type. Fails with Heat's message.
fn typed(kind: &str, value: &Value) -> Result<Value, String> {
    match kind {
        "number" => match value {
            Value::Number(_) => Ok(value.clone()),
            other => {
                let given = text(other);
                let trimmed = given.trim();
                if let Ok(number) = trimmed.parse::<i64>() {
                    return Ok(json!(number));
                }
                match trimmed.parse::<f64>() {
                    Ok(number) if number.is_finite() => Ok(json!(number)),
                    _ => Err(format!(
                        "could not convert string to float: {}",
                        resource_types::repr(&json!(given))
                    )),
                }
            }
        },
        "boolean" => match text(value).to_lowercase().as_str() {
            "1" | "t" | "true" | "on" | "y" | "yes" => Ok(json!(true)),
            "0" | "f" | "false" | "off" | "n" | "no" => Ok(json!(false)),
            _ => Err(format!(
                "Unrecognized value '{}', acceptable values are: '0', '1', 'f', 'false', 'n', 'no', 'off', 'on', 't', 'true', 'y', 'yes'",
                text(value)
            )),
        },
        "comma_delimited_list" => match value {
            Value::Array(items) => Ok(items.iter().map(|item| json!(text(item))).collect()),
            other => {
                let given = text(other);
                if given.is_empty() {
                    return Ok(json!([]));
                }
                Ok(given.split(',').map(|item| json!(item.trim())).collect())
            }
        },
        "json" => match value {
            Value::Array(_) | Value::Object(_) => Ok(value.clone()),
            other => {
                let given = text(other);
                if given.is_empty() {
                    return Ok(json!({}));
                }
                serde_json::from_str(&given).map_err(|_| {
                    let why = python_json::json_error(&given).unwrap_or_default();
                    format!("Value must be valid JSON: {why}")
                })
            }
        },
        _ => match value {
            Value::Array(_) | Value::Object(_) => Ok(json!(python_json::dumps(value))),
            other => Ok(json!(text(other))),
        },
    }
}

/// Builds the parameters of a response of `/validate`.
pub(super) fn describe(template: &Template, environment: &Environment) -> Value {
    let mut shown = Map::new();
    for (name, schema) in template.parameters() {
        let kind = match schema["type"].as_str() {
            Some("number") => "Number",
            Some("comma_delimited_list") => "CommaDelimitedList",
            Some("json") => "Json",
            Some("boolean") => "Boolean",
            _ => "String",
        };
        let mut one = json!({
            "Type": kind,
            "Description": schema["description"].as_str().unwrap_or_default(),
            "NoEcho": if schema["hidden"] == json!(true) { "true" } else { "false" },
            "Label": schema["label"].as_str().unwrap_or(name),
        });
        let defaults = [
            environment.parameter_defaults.get(name),
            schema.get("default"),
        ];
        if let Some(default) = defaults.into_iter().flatten().next() {
            one["Default"] = default.clone();
        }
        if let Some(value) = environment.parameters.get(name) {
            one["Value"] = value.clone();
        }
        for constraint in constraints(schema) {
            resource_types::constraint_members(constraint, &mut one);
        }
        shown.insert(name.clone(), one);
    }
    Value::Object(shown)
}
