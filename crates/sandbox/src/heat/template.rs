//! Templates (HOT, as YAML or JSON) and environments: parsing and checks.
//!
//! Messages are as observed. `/validate` and create report some errors differently;
//! [`Fault`] holds the exception's type for this.

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::super::message::Response;
use super::{bad_request, fault, functions, limit_exceeded, malformed, resource_types};

/// `max_template_size`.
const MAX_TEMPLATE_BYTES: usize = 512 << 10;
/// Versions of HOT that Heat 27 reads, with their aliases.
pub(super) const VERSIONS: [(&str, Option<&str>); 11] = [
    ("2013-05-23", None),
    ("2014-10-16", None),
    ("2015-04-30", None),
    ("2015-10-15", None),
    ("2016-04-08", None),
    ("2016-10-14", Some("newton")),
    ("2017-02-24", Some("ocata")),
    ("2017-09-01", Some("pike")),
    ("2018-03-02", Some("queens")),
    ("2018-08-31", Some("rocky")),
    ("2021-04-16", Some("wallaby")),
];

/// Reason why a template is invalid: type and message of the exception.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fault {
    pub kind: &'static str,
    pub message: String,
}

impl Fault {
    pub fn new(kind: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { kind, message }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::new("StackValidationFailed", message)
    }

    pub fn to_response(&self) -> Response {
        fault(StatusCode::BAD_REQUEST, self.kind, Some(&self.message))
    }

    /// `/validate` reports most of them as a bad request (observed).
    pub fn to_validate_response(&self) -> Response {
        match self.kind {
            "StackValidationFailed" | "EntityNotFound" | "UserParameterMissing" => {
                bad_request(&self.message)
            }
            _ => self.to_response(),
        }
    }
}

/// A template with checked sections.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Template {
    /// As sent.
    pub raw: Map<String, Value>,
}

static NULL: Value = Value::Null;

impl Template {
    fn section(&self, name: &str) -> impl Iterator<Item = (&String, &Value)> {
        self.raw
            .get(name)
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
    }

    pub fn resources(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.section("resources")
    }

    pub fn resource(&self, name: &str) -> Option<&Value> {
        self.raw.get("resources")?.get(name)
    }

    pub fn parameters(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.section("parameters")
    }

    pub fn outputs(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.section("outputs")
    }

    pub fn output(&self, name: &str) -> &Value {
        let outputs = self.raw.get("outputs").unwrap_or(&NULL);
        outputs.get(name).unwrap_or(&NULL)
    }

    pub fn description(&self) -> &str {
        self.raw
            .get("description")
            .and_then(Value::as_str)
            .unwrap_or("No description")
    }

    /// Returns the names of the resources that `name` depends on.
    pub fn requires(&self, name: &str) -> Vec<String> {
        let Some(definition) = self.resource(name) else {
            return Vec::new();
        };
        let mut found: Vec<String> = depends_on(definition);
        let mut references = Vec::new();
        functions::references(&definition["properties"], "", &mut references, 0);
        functions::references(&definition["metadata"], "", &mut references, 0);
        found.extend(references.into_iter().map(|(name, _)| name));
        found.sort();
        found.dedup();
        found
    }

    /// Returns an empty template, which a rollback of a creation restores.
    pub fn empty_template(&self) -> Self {
        let version = "heat_template_version";
        let version_of_it = self.raw.get(version).cloned().unwrap_or_default();
        Self {
            raw: Map::from_iter([(version.to_owned(), version_of_it)]),
        }
    }

    /// Returns the template without resources, as a deleted stack keeps it.
    pub fn without_resources(&self) -> Self {
        let mut raw = self.raw.clone();
        raw.insert("resources".to_owned(), json!({}));
        Self { raw }
    }

    /// Parses a template from a string or an object of a request.
    pub fn read(value: &Value) -> Result<Self, Response> {
        let raw = match value {
            Value::String(text) => {
                if text.len() > MAX_TEMPLATE_BYTES {
                    return Err(too_long(text.len()));
                }
                parse(text).map_err(|problem| {
                    bad_request(&format!("Template not in valid format: {problem}"))
                })?
            }
            Value::Object(members) => members.clone(),
            _ => return Err(malformed()),
        };
        let size = Value::Object(raw.clone()).to_string().len();
        if size > MAX_TEMPLATE_BYTES {
            return Err(too_long(size));
        }
        Ok(Self { raw })
    }

    /// Checks everything that depends neither on parameters nor on resource types.
    pub fn check(&self, known: &dyn Fn(&str) -> bool) -> Result<(), Fault> {
        self.check_version()?;
        for (section, value) in &self.raw {
            match section.as_str() {
                "heat_template_version" | "description" | "parameter_groups" | "conditions" => {}
                "parameters" | "resources" | "outputs" => check_section(section, value)?,
                other => {
                    return Err(Fault::invalid(format!(
                        "The template section is invalid: {other}"
                    )));
                }
            }
        }
        for (name, parameter) in self.parameters() {
            match parameter["type"].as_str() {
                Some("string" | "number" | "comma_delimited_list" | "json" | "boolean") => {}
                Some(other) => {
                    let message = format!("Invalid type ({other})");
                    return Err(Fault::new("InvalidSchemaError", message));
                }
                None => {
                    let message = format!("Missing parameter type for parameter: {name}");
                    return Err(Fault::new("InvalidSchemaError", message));
                }
            }
        }
        self.check_resources(known)?;
        for (name, output) in self.outputs() {
            if output.get("value").is_none() {
                return Err(Fault::invalid(format!(
                    "Output validation error: outputs.{name}: Each output definition must contain a value key."
                )));
            }
        }
        Ok(())
    }

    fn check_version(&self) -> Result<(), Fault> {
        let message = match self.raw.get("heat_template_version") {
            Some(Value::String(version)) => {
                let known = VERSIONS
                    .iter()
                    .any(|(date, name)| version == date || *name == Some(version));
                if known {
                    return Ok(());
                }
                let dates = VERSIONS.iter().map(|(date, _)| *date);
                let names = VERSIONS.iter().filter_map(|(_, name)| *name);
                let all: Vec<&str> = dates.chain(names).collect();
                format!(
                    "\"heat_template_version: {version}\". \"heat_template_version\" should be one of: {}",
                    all.join(", ")
                )
            }
            // CloudFormation's templates are not supported.
            _ => "Template version was not provided".to_owned(),
        };
        Err(Fault::new(
            "InvalidTemplateVersion",
            format!("The template version is invalid: {message}"),
        ))
    }

    fn check_resources(&self, known: &dyn Fn(&str) -> bool) -> Result<(), Fault> {
        for (_, definition) in self.resources() {
            let Some(members) = definition.as_object() else {
                return Err(Fault::invalid(format!(
                    "\"resources\" must contain a map of resource maps. Found a [<class '{}'>] instead",
                    python_class(definition)
                )));
            };
            if !members.get("type").is_some_and(Value::is_string) {
                let message = "Each resource must contain a type key.";
                return Err(Fault::invalid(message));
            }
            let fine = [
                "type",
                "properties",
                "metadata",
                "depends_on",
                "deletion_policy",
                "update_policy",
                "description",
                "external_id",
                "condition",
            ];
            if let Some(key) = members.keys().find(|key| !fine.contains(&key.as_str())) {
                return Err(Fault::invalid(format!(
                    "\"{key}\" is not a valid keyword inside a resource definition"
                )));
            }
        }
        for (_, definition) in self.resources() {
            let kind = definition["type"].as_str().unwrap_or_default();
            let file = [".yaml", ".yml", ".template"]
                .iter()
                .any(|end| kind.ends_with(end));
            if file && !known(kind) {
                return Err(Fault::invalid(format!(
                    "Could not fetch remote template \"{kind}\": Invalid URL scheme "
                )));
            }
            if !resource_types::exists(kind) && !known(kind) {
                return Err(Fault::invalid(format!(
                    "The Resource Type ({kind}) could not be found."
                )));
            }
        }
        for (name, definition) in self.resources() {
            let mut references: Vec<(String, String)> = depends_on(definition)
                .into_iter()
                .map(|other| (other, name.clone()))
                .collect();
            let path = format!("{name}.Properties");
            functions::references(&definition["properties"], &path, &mut references, 0);
            for (other, path) in references {
                if self.resource(&other).is_none() {
                    let message =
                        format!("The specified reference \"{other}\" (in {path}) is incorrect.");
                    return Err(Fault::new("InvalidTemplateReference", message));
                }
            }
        }
        self.check_attributes()?;
        self.check_dependency_cycles()
    }

    fn check_attributes(&self) -> Result<(), Fault> {
        for (name, definition) in self.resources() {
            let mut found = Vec::new();
            let path = format!("resources.{name}.properties");
            functions::attributes(&definition["properties"], &path, &mut found, 0);
            for [other, attribute, path] in found {
                let kind = self.resource(&other).map(|other| &other["type"]);
                let kind = kind.and_then(Value::as_str).unwrap_or_default();
                if !resource_types::has_attribute(kind, &attribute) {
                    return Err(Fault::invalid(format!(
                        "{path}: : The Referenced Attribute ({other} {attribute}) is incorrect."
                    )));
                }
            }
        }
        Ok(())
    }

    /// Checks the references of outputs to resources; only create does this.
    pub fn check_outputs(&self) -> Result<(), Fault> {
        for (name, output) in self.outputs() {
            let path = format!("outputs.{name}.value");
            let mut attributes = Vec::new();
            functions::attributes(&output["value"], &path, &mut attributes, 0);
            for [other, _, path] in attributes {
                if self.resource(&other).is_none() {
                    return Err(Fault::invalid(format!(
                        "{path}: : The specified reference \"{other}\" (in unknown) is incorrect."
                    )));
                }
            }
            let mut references = Vec::new();
            functions::references(&output["value"], &path, &mut references, 0);
            for (other, path) in references {
                if self.resource(&other).is_none() {
                    let message =
                        format!("The specified reference \"{other}\" (in {path}) is incorrect.");
                    return Err(Fault::new("InvalidTemplateReference", message));
                }
            }
        }
        Ok(())
    }

    fn check_dependency_cycles(&self) -> Result<(), Fault> {
        let mut left: Vec<(&String, Vec<String>)> = self
            .resources()
            .map(|(name, _)| (name, self.requires(name)))
            .collect();
        loop {
            let names: Vec<&String> = left.iter().map(|(name, _)| *name).collect();
            let stuck: Vec<_> = left
                .iter()
                .filter(|(_, requires)| requires.iter().any(|other| names.contains(&other)))
                .cloned()
                .collect();
            if stuck.is_empty() {
                return Ok(());
            }
            if stuck.len() == left.len() {
                let named = |name: &String| {
                    let kind = self.resource(name).map(|definition| &definition["type"]);
                    let class =
                        resource_types::class(kind.and_then(Value::as_str).unwrap_or_default());
                    format!("{class} \"{name}\"")
                };
                let edges: Vec<String> = stuck
                    .iter()
                    .map(|(name, requires)| {
                        let others: Vec<String> = requires.iter().map(named).collect();
                        format!("{}: {{{}}}", named(name), others.join(", "))
                    })
                    .collect();
                let message = format!("Circular Dependency Found: {{{}}}", edges.join(", "));
                return Err(Fault::new("CircularDependencyException", message));
            }
            left = stuck;
        }
    }
}

/// A missing section and an empty list are valid.
fn check_section(section: &str, value: &Value) -> Result<(), Fault> {
    match value {
        Value::Null | Value::Object(_) => Ok(()),
        Value::Array(items) if items.is_empty() => Ok(()),
        other => Err(Fault::invalid(format!(
            "\"{section}\" must contain a map. Found a [<class '{}'>] instead",
            python_class(other)
        ))),
    }
}

fn depends_on(definition: &Value) -> Vec<String> {
    match &definition["depends_on"] {
        Value::String(name) => vec![name.clone()],
        Value::Array(names) => names
            .iter()
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect(),
        _ => Vec::new(),
    }
}

fn python_class(value: &Value) -> &'static str {
    match value {
        Value::Null => "NoneType",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float",
        Value::Number(_) => "int",
        Value::String(_) => "str",
        Value::Array(_) => "list",
        Value::Object(_) => "dict",
    }
}

fn too_long(length: usize) -> Response {
    limit_exceeded(&format!(
        "Template size ({length} bytes) exceeds maximum allowed size ({MAX_TEMPLATE_BYTES} bytes)."
    ))
}

/// Parses YAML, which includes JSON, into an object. Dates and the like stay text, as
/// in Heat's loader.
fn parse(text: &str) -> Result<Map<String, Value>, String> {
    match serde_yaml_ng::from_str::<serde_yaml_ng::Value>(text).map(|value| yaml_to_json(value, 0))
    {
        Ok(Value::Object(members)) if members.is_empty() => {
            Err("Template format version not found.".to_owned())
        }
        Ok(Value::Object(members)) => {
            let versions = [
                "heat_template_version",
                "HeatTemplateFormatVersion",
                "AWSTemplateFormatVersion",
            ];
            match versions.iter().any(|key| members.contains_key(*key)) {
                true => Ok(members),
                false => Err("Template format version not found.".to_owned()),
            }
        }
        Ok(Value::Null) => Err("Template format version not found.".to_owned()),
        Ok(_) => Err("The template is not a JSON object or YAML mapping.".to_owned()),
        Err(error) => Err(format!(
            "Error parsing template [root stack] {}",
            error_position(&error)
        )),
    }
}

/// Position of a YAML error. Heat's parser words the message differently but reports
/// the same position.
fn error_position(error: &serde_yaml_ng::Error) -> String {
    let (line, column) = error
        .location()
        .map_or((1, 1), |at| (at.line(), at.column()));
    format!("while parsing: {error}\n  in \"<unicode string>\", line {line}, column {column}")
}

/// Converts YAML to JSON: keys and unusual scalars become text.
fn yaml_to_json(value: serde_yaml_ng::Value, depth: usize) -> Value {
    use serde_yaml_ng::Value as Yaml;
    if depth > 64 {
        return Value::Null;
    }
    match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(value) => json!(value),
        Yaml::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), _, _) => json!(number),
            (_, Some(number), _) => json!(number),
            (_, _, Some(number)) => json!(number),
            _ => Value::Null,
        },
        Yaml::String(text) => Value::String(text),
        Yaml::Sequence(items) => items
            .into_iter()
            .map(|item| yaml_to_json(item, depth + 1))
            .collect(),
        Yaml::Mapping(members) => members
            .into_iter()
            .map(|(key, member)| {
                let key = functions::text(&yaml_to_json(key, depth + 1));
                (key, yaml_to_json(member, depth + 1))
            })
            .collect(),
        Yaml::Tagged(tagged) => yaml_to_json(tagged.value, depth + 1),
    }
}

/// Parses a nested template from a stack's files.
pub(super) fn nested(text: &str) -> Result<Template, Fault> {
    let raw = parse(text).map_err(Fault::invalid)?;
    Ok(Template { raw })
}

/// Parameter values and the resource registry of an environment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Environment {
    pub parameters: Map<String, Value>,
    pub parameter_defaults: Map<String, Value>,
    /// Aliases of resource types.
    pub registry: Map<String, Value>,
}

impl Environment {
    /// Parses a string or an object; a missing one is empty.
    pub fn read(value: &Value) -> Result<Self, Response> {
        let wrong =
            |problem: &str| bad_request(&format!("Environment not in valid format: {problem}"));
        let members = match value {
            Value::Null => Map::new(),
            Value::Object(members) => members.clone(),
            Value::String(text) => {
                match serde_yaml_ng::from_str(text).map(|value| yaml_to_json(value, 0)) {
                    Ok(Value::Null) => Map::new(),
                    Ok(Value::Object(members)) => members,
                    Ok(_) => {
                        return Err(wrong(
                            "The environment is not a valid YAML mapping data type.",
                        ));
                    }
                    Err(error) => return Err(wrong(&error_position(&error))),
                }
            }
            _ => return Err(malformed()),
        };
        let mut environment = Self::default();
        for (section, value) in members {
            let value = value.as_object().cloned().unwrap_or_default();
            match section.as_str() {
                "parameters" => environment.parameters = value,
                "parameter_defaults" => environment.parameter_defaults = value,
                "resource_registry" => environment.registry = value,
                "encrypted_param_names" | "event_sinks" | "parameter_merge_strategies" => {}
                other => return Err(wrong(&format!("environment has wrong section \"{other}\""))),
            }
        }
        Ok(environment)
    }

    /// Builds the representation in snapshots and responses of `/validate`.
    pub fn show(&self) -> Value {
        let mut registry = self.registry.clone();
        registry.entry("resources").or_insert_with(|| json!({}));
        json!({
            "resource_registry": registry,
            "parameters": self.parameters,
            "parameter_defaults": self.parameter_defaults,
            "event_sinks": [],
        })
    }
}
