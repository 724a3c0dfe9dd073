//! Software configs: docs/apis/heat.md, "Software configs";
//! tests/real-heat/OBSERVED.md, "Software configs".

use http::StatusCode;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::super::message::Response;
use super::{
    Context, Heat, MAX_CONFIGS_OR_DEPLOYMENTS, boolean_parameter, column, fault, forbidden, limit,
    limit_exceeded, malformed, not_found, value_error,
};
use crate::CONFIG_ID;

#[derive(Clone)]
pub(super) struct Config {
    pub id: String,
    pub project: String,
    /// As in reads: text or null.
    pub name: Value,
    group: Value,
    creation_time: String,
    /// Any JSON; usually a script.
    pub config: Value,
    pub inputs: Vec<Value>,
    pub outputs: Vec<Value>,
    options: Value,
}

impl Config {
    /// Builds the config of the preloaded deployment.
    pub fn preloaded(project: &str, made: &str) -> Self {
        Self {
            id: CONFIG_ID.to_owned(),
            project: project.to_owned(),
            name: json!("write-a-file"),
            group: json!("script"),
            creation_time: made.to_owned(),
            config: json!(
                "#!/bin/sh\necho Writing to /tmp/$bar\necho $foo > /tmp/$bar\n\
                 echo -n The file /tmp/$bar contains $foo > $heat_outputs_path.result\n"
            ),
            inputs: vec![
                json!({"name": "foo", "type": "String"}),
                json!({"name": "bar", "type": "String"}),
            ],
            outputs: vec![json!({"name": "result", "type": "String", "error_output": false})],
            options: json!({}),
        }
    }

    /// Builds the config for a stack's resource; every input has a default.
    pub fn of_stack(
        project: &str,
        name: &str,
        properties: &Map<String, Value>,
        made: &str,
    ) -> Self {
        let entries = |from: &str, defaulted: bool| -> Vec<Value> {
            let given = properties.get(from).and_then(Value::as_array);
            given
                .into_iter()
                .flatten()
                .map(|entry| {
                    let text = |name: &str| entry[name].as_str().unwrap_or_default();
                    let kind = entry["type"].as_str().unwrap_or("String");
                    let mut made = json!({"name": text("name"), "description": text("description"), "type": kind});
                    match defaulted {
                        true => {
                            let none = entry["default"].is_null() && kind == "String";
                            made["default"] = if none { json!("") } else { entry["default"].clone() };
                        }
                        false => made["error_output"] = json!(entry["error_output"] == json!(true)),
                    }
                    made
                })
                .collect()
        };
        let property = |name: &str| properties.get(name).cloned().unwrap_or_default();
        Self {
            id: Uuid::new_v4().to_string(),
            project: project.to_owned(),
            name: json!(name),
            group: match property("group") {
                Value::Null => json!("Heat::Ungrouped"),
                group => group,
            },
            creation_time: made.to_owned(),
            config: match property("config") {
                Value::Null => json!(""),
                config => config,
            },
            inputs: entries("inputs", true),
            outputs: entries("outputs", false),
            options: match property("options") {
                Value::Null => json!({}),
                options => options,
            },
        }
    }

    /// Turns a copy into the config of one deployment: sets the inputs' values and adds
    /// the inputs `more`.
    pub fn derive(&mut self, values: &Value, more: &[(&str, &str, &str)], made: &str) {
        self.id = Uuid::new_v4().to_string();
        self.creation_time = made.to_owned();
        for input in &mut self.inputs {
            let given = input["name"].as_str().and_then(|name| values.get(name));
            input["value"] = given.unwrap_or(&input["default"]).clone();
        }
        for (name, description, value) in more {
            self.inputs.push(json!({
                "name": name, "description": description, "type": "String", "value": value,
            }));
        }
    }

    pub fn show(&self) -> Value {
        json!({
            "id": self.id,
            "name": self.name,
            "group": self.group,
            "creation_time": self.creation_time,
            "config": self.config,
            "inputs": self.inputs,
            "outputs": self.outputs,
            "options": self.options,
        })
    }
}

/// All members are optional. The response repeats name and group as sent; reads return
/// them as text.
pub(super) fn create(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    let body = context.body()?;
    let config = Config {
        id: Uuid::new_v4().to_string(),
        project: context.project.to_owned(),
        name: column(&body["name"])?,
        group: column(&body["group"])?,
        creation_time: context.now.text.clone(),
        config: body["config"].clone(),
        inputs: entries(&body["inputs"])?
            .into_iter()
            .map(input)
            .collect::<Result<_, _>>()?,
        outputs: entries(&body["outputs"])?
            .into_iter()
            .map(output)
            .collect::<Result<_, _>>()?,
        options: match &body["options"] {
            Value::Null => json!({}),
            options => options.clone(),
        },
    };
    if heat
        .configs
        .iter()
        .filter(|config| config.project == context.project)
        .count()
        >= MAX_CONFIGS_OR_DEPLOYMENTS
    {
        return Err(limit_exceeded(&format!(
            "You have reached the maximum software configs per project, {MAX_CONFIGS_OR_DEPLOYMENTS}. Please delete some software configs."
        )));
    }
    let mut shown = config.show();
    shown["name"] = body["name"].clone();
    shown["group"] = body["group"].clone();
    heat.configs.push(config);
    Ok(Response::ok(json!({"software_config": shown})))
}

/// Newest first, summaries only. An unknown marker is ignored: the list then starts at
/// the newest.
pub(super) fn list(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    if boolean_parameter(context, "global_tenant", "")?.unwrap_or(false) {
        return Err(forbidden("software_configs:global_index"));
    }
    let given = context.request.parameter("limit");
    let limit = given.map(|text| limit(text, "limit")).transpose()?;
    let mut found: Vec<&Config> = heat
        .configs
        .iter()
        .rev()
        .filter(|config| config.project == context.project)
        .collect();
    if let Some(marker) = context.request.parameter("marker")
        && let Some(at) = found.iter().position(|config| config.id == marker)
    {
        found.drain(..=at);
    }
    found.truncate(limit.unwrap_or(usize::MAX));
    let summaries: Vec<Value> = found
        .iter()
        .map(|config| {
            json!({
                "id": config.id,
                "name": config.name,
                "group": config.group,
                "creation_time": config.creation_time,
            })
        })
        .collect();
    Ok(Response::ok(json!({"software_configs": summaries})))
}

pub(super) fn show(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    let config = find(heat, context.project, context.id())?;
    Ok(Response::ok(json!({"software_config": config.show()})))
}

pub(super) fn delete(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    let id = find(heat, context.project, context.id())?.id.clone();
    if heat
        .deployments
        .iter()
        .any(|deployment| deployment.config_id == id)
    {
        // A client error, but the status is 500 (observed).
        let message =
            format!("Software config with id {id} can not be deleted as it is referenced.");
        return Err(fault(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InvalidRestrictedAction",
            Some(&message),
        ));
    }
    heat.configs.retain(|config| config.id != id);
    Ok(Response::empty(StatusCode::NO_CONTENT))
}

pub(super) fn find<'a>(heat: &'a Heat, project: &str, id: &str) -> Result<&'a Config, Response> {
    let mut own = heat
        .configs
        .iter()
        .filter(|config| config.project == project);
    own.find(|config| config.id == id)
        .ok_or_else(|| not_found("Software config", id))
}

/// Parses inputs or outputs: a list of objects, or null.
fn entries(value: &Value) -> Result<Vec<&Map<String, Value>>, Response> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => items
            .iter()
            .map(|item| item.as_object().ok_or_else(malformed))
            .collect(),
        _ => Err(malformed()),
    }
}

/// Types of inputs and outputs.
const TYPES: [&str; 5] = ["String", "Number", "CommaDelimitedList", "Json", "Boolean"];

/// Completes an input: `type` defaults to String; `default` is converted to the type if
/// a type is given (`heat/engine/software_config_io.py`).
fn input(given: &Map<String, Value>) -> Result<Value, Response> {
    let mut out = common(
        given,
        &[
            "name",
            "description",
            "type",
            "default",
            "replace_on_change",
            "value",
        ],
    )?;
    match (given.get("default"), given.get("type")) {
        (None | Some(Value::Null), _) => {}
        (Some(default), Some(Value::String(kind))) => {
            out.insert("default".to_owned(), typed(kind, default)?);
        }
        (Some(default), _) => {
            out.insert("default".to_owned(), default.clone());
        }
    }
    if boolean(given.get("replace_on_change"))? {
        out.insert("replace_on_change".to_owned(), json!(true));
    }
    if let Some(value) = given.get("value") {
        out.insert("value".to_owned(), value.clone());
    }
    Ok(Value::Object(out))
}

fn output(given: &Map<String, Value>) -> Result<Value, Response> {
    let mut out = common(given, &["name", "description", "type", "error_output"])?;
    out.insert(
        "error_output".to_owned(),
        json!(boolean(given.get("error_output"))?),
    );
    Ok(Value::Object(out))
}

/// Reads name, description and type, in Heat's order; rejects unknown members.
fn common(given: &Map<String, Value>, known: &[&str]) -> Result<Map<String, Value>, Response> {
    if given.keys().any(|key| !known.contains(&key.as_str())) {
        return Err(value_error());
    }
    let mut out = Map::new();
    let name = given
        .get("name")
        .filter(|name| !name.is_null())
        .ok_or_else(value_error)?;
    out.insert("name".to_owned(), typed("String", name)?);
    if let Some(description) = given.get("description").filter(|text| !text.is_null()) {
        out.insert("description".to_owned(), typed("String", description)?);
    }
    let kind = match given.get("type") {
        None | Some(Value::Null) => "String",
        Some(Value::String(kind)) if TYPES.contains(&kind.as_str()) => kind,
        Some(_) => return Err(value_error()),
    };
    out.insert("type".to_owned(), json!(kind));
    Ok(out)
}

/// Converts a value to the type, like Heat's properties.
fn typed(kind: &str, value: &Value) -> Result<Value, Response> {
    match (kind, value) {
        // Heat keeps an empty default of any other type for compatibility.
        (_, Value::String(text)) if text.is_empty() => Ok(value.clone()),
        ("String", Value::String(_)) => Ok(value.clone()),
        ("String", Value::Bool(value)) => Ok(json!(if *value { "True" } else { "False" })),
        ("String", Value::Number(number)) if !number.is_f64() => Ok(json!(number.to_string())),
        ("Number", Value::Number(_)) => Ok(value.clone()),
        ("Number", Value::String(text)) => {
            match (text.trim().parse::<i64>(), text.trim().parse::<f64>()) {
                (Ok(number), _) => Ok(json!(number)),
                (_, Ok(number)) if number.is_finite() => Ok(json!(number)),
                _ => Err(value_error()),
            }
        }
        ("Boolean", _) => boolean(Some(value)).map(|value| json!(value)),
        ("CommaDelimitedList", Value::Array(_)) => Ok(value.clone()),
        ("CommaDelimitedList", Value::String(text)) => {
            Ok(text.split(',').map(|item| json!(item.trim())).collect())
        }
        ("Json", Value::Object(_) | Value::String(_)) => Ok(value.clone()),
        ("Json", Value::Array(_)) => Ok(json!(value.to_string())),
        _ => Err(value_error()),
    }
}

fn boolean(value: Option<&Value>) -> Result<bool, Response> {
    match value {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(_) => Err(value_error()),
    }
}
