//! Resource plug-ins: how each type creates, updates and deletes its resources, how
//! long that takes and how it can fail.

mod nested_stack;
mod software_deployment;
mod wait_condition;

use std::time::Duration;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::engine::Now;
use super::software_configs::Config;
use super::stack::{Resource, Stack};
use super::{Heat, functions, resource_types};
pub(super) use nested_stack::{MAX_RESOURCES, inner_failure, preview};
use nested_stack::{inner, is_nested_stack};
use software_deployment::deployment;
pub(super) use software_deployment::ended;
use wait_condition::wait_condition;
pub(super) use wait_condition::{signal, takes_signals, timed_out};

/// Maximum time that a resource's own properties can request.
const MAX_RESOURCE_DURATION: Duration = Duration::from_secs(86_400 * 365);

/// A started action of a resource.
pub(super) struct Started {
    /// Duration; `None` if a signal or a nested stack ends the action.
    pub takes: Option<Duration>,
    /// Failure message without the resource's path; `None` if the action succeeds.
    pub failure: Option<String>,
}

/// How to make a resource match its definition.
#[derive(Debug, PartialEq)]
pub(super) enum Change {
    None,
    Create,
    Update,
    Replace,
}

/// Returns twelve random characters from Heat's alphabet for names.
pub(super) fn random_suffix() -> String {
    let alphabet = b"abcdefghijklmnopqrstuvwxyz234567";
    (0..12)
        .map(|_| alphabet[fastrand::usize(..alphabet.len())] as char)
        .collect()
}

/// Returns whether a stack check includes resources of this type.
pub(super) fn can_check(kind: &str) -> bool {
    matches!(
        kind,
        "OS::Heat::TestResource" | "OS::Heat::ResourceGroup" | "OS::Heat::Stack"
    ) || !resource_types::exists(kind)
}

/// Determines how a resource changes to its new definition.
pub(super) fn change(
    existing: &Resource,
    definition: &Value,
    properties: &Map<String, Value>,
    files: &Map<String, Value>,
) -> Change {
    if existing.action == "INIT" {
        return Change::Create;
    }
    let kind = definition["type"].as_str().unwrap_or_default();
    let nested = is_nested_stack(kind);
    if kind != existing.kind || (existing.status == "FAILED" && !nested) {
        return Change::Replace;
    }
    let mut names: Vec<&String> = properties
        .keys()
        .chain(existing.properties.keys())
        .collect();
    names.sort();
    names.dedup();
    let schema = resource_types::properties(kind);
    let value = |from: &Map<String, Value>, name: &str| {
        let value = from.get(name).or_else(|| schema.get(name)?.get("default"));
        value.cloned().unwrap_or_default()
    };
    let changed: Vec<&String> = names
        .into_iter()
        .filter(|name| value(properties, name) != value(&existing.properties, name))
        .collect();
    if changed
        .iter()
        .any(|name| resource_types::replaces(kind, name))
    {
        return Change::Replace;
    }
    if kind == "OS::Heat::TestResource"
        && changed.iter().any(|name| *name == "value")
        && properties.get("update_replace") == Some(&json!(true))
    {
        return Change::Replace;
    }
    let file = |of: &Map<String, Value>| of.get(kind).cloned().unwrap_or_default();
    let refiled = existing
        .data
        .get("file")
        .is_some_and(|old| *old != file(files));
    let described = definition["metadata"] != existing.definition["metadata"];
    match changed.is_empty() && !described && !refiled && existing.status != "FAILED" {
        true => Change::None,
        false => Change::Update,
    }
}

/// Starts an action of a resource, which is already IN_PROGRESS.
pub(super) fn start(
    heat: &mut Heat,
    serial: u64,
    resource: u64,
    action: &'static str,
    before: Option<&Map<String, Value>>,
    now: &Now,
) -> Started {
    let duration = now.resource_duration();
    let quick = Started {
        takes: Some(duration),
        failure: None,
    };
    let Some(stack) = heat.stacks.get_mut(serial) else {
        return quick;
    };
    let Some(found) = stack.resource_mut(resource) else {
        return quick;
    };
    let kind = found.kind.clone();
    if action == "ADOPT" {
        return adopt(stack, resource, duration);
    }
    if is_nested_stack(&kind) {
        return inner(heat, serial, resource, action, now);
    }
    match (kind.as_str(), action) {
        ("OS::Heat::TestResource", _) => test_resource(found, action, before, duration),
        ("OS::Heat::Value", "CREATE") => {
            found.physical_id = found.physical_name.clone();
            quick
        }
        ("OS::Heat::RandomString", "CREATE") => {
            found.physical_id = found.physical_name.clone();
            let length = found.properties.get("length").map(functions::text);
            let length = length.and_then(|text| text.trim().parse::<usize>().ok());
            let length = length.unwrap_or(32).min(512);
            let value: String = (0..length).map(|_| fastrand::alphanumeric()).collect();
            found.data.insert("value".to_owned(), json!(value));
            quick
        }
        ("OS::Heat::None", "CREATE") => {
            found.physical_id = Uuid::new_v4().to_string();
            // Observed, in an export.
            found
                .data
                .insert("is_placeholder".to_owned(), json!("True"));
            quick
        }
        ("OS::Heat::WaitConditionHandle", "CREATE") => {
            found.physical_id = Uuid::new_v4().simple().to_string();
            quick
        }
        ("OS::Heat::WaitCondition", "CREATE" | "UPDATE") => {
            wait_condition(heat, serial, resource, duration)
        }
        ("OS::Heat::WaitCondition", "DELETE") => {
            let handle = found.properties.get("handle").cloned();
            let mut handles = stack.resources.iter_mut();
            if let Some(handle) = handles.find(|other| Some(other.reference()) == handle) {
                handle.metadata = json!({});
            }
            quick
        }
        ("OS::Heat::SoftwareConfig", "CREATE") => {
            let project = stack.project.clone();
            if let Some(found) = stack.resource_mut(resource) {
                let config =
                    Config::of_stack(&project, &found.physical_name, &found.properties, &now.text);
                found.physical_id = config.id.clone();
                heat.configs.push(config);
            }
            quick
        }
        ("OS::Heat::SoftwareConfig", "DELETE") => {
            let id = found.physical_id.clone();
            // A referenced config cannot be deleted.
            if heat.deployments.iter().all(|other| other.config_id != id) {
                heat.configs.retain(|config| config.id != id);
            }
            quick
        }
        ("OS::Heat::SoftwareDeployment", _) => deployment(heat, serial, resource, action, now),
        _ => quick,
    }
}

/// Adopts an existing resource.
fn adopt(stack: &mut Stack, resource: u64, duration: Duration) -> Started {
    let adopted = std::mem::take(&mut stack.adopted);
    if let Some(found) = stack.resource_mut(resource) {
        let known = &adopted[found.name.as_str()];
        found.physical_id = functions::text(&known["resource_id"]);
        if let Value::Object(data) = &known["resource_data"] {
            found.data = data.clone();
        }
        if let Value::Object(_) = &known["metadata"] {
            found.metadata = known["metadata"].clone();
        }
    }
    stack.adopted = adopted;
    Started {
        takes: Some(duration),
        failure: None,
    }
}

fn seconds_of(value: Option<&Value>) -> Option<f64> {
    let value = value.filter(|value| !value.is_null())?;
    functions::text(value).trim().parse().ok()
}

fn test_resource(
    found: &mut Resource,
    action: &'static str,
    before: Option<&Map<String, Value>>,
    duration: Duration,
) -> Started {
    let properties = &found.properties;
    let fails = properties
        .get("fail")
        .is_some_and(|value| functions::text(value).eq_ignore_ascii_case("true"));
    let value = |of: &Map<String, Value>| {
        let value = of.get("value").filter(|value| !value.is_null());
        value.cloned().unwrap_or_else(|| json!("test_string"))
    };
    let own = properties
        .get("action_wait_secs")
        .and_then(|waits| seconds_of(waits.get(action.to_lowercase())));
    let wait = own
        .or_else(|| seconds_of(properties.get("wait_secs")))
        .unwrap_or(0.0);
    let new = value(properties);
    let changed = before.is_some_and(|before| value(before) != new);
    let acts = match action {
        "CREATE" | "DELETE" => true,
        "UPDATE" => changed,
        _ => false,
    };
    let failure = match action {
        "CREATE" | "UPDATE" if fails => Some(format!(
            "ValueError: resources.{}: Test Resource failed {}",
            found.name, found.name
        )),
        "CHECK" if found.physical_id.is_empty() => Some(format!(
            "Exception: resources.{}: Resource not created",
            found.name
        )),
        _ => None,
    };
    if acts && !fails && action != "DELETE" {
        found.data.insert("value".to_owned(), new);
        found.physical_id = found.physical_name.clone();
    }
    let takes = match acts {
        true if wait < 0.0 => None,
        true => Some(
            duration
                + Duration::try_from_secs_f64(wait)
                    .unwrap_or(MAX_RESOURCE_DURATION)
                    .min(MAX_RESOURCE_DURATION),
        ),
        false => Some(duration),
    };
    Started { takes, failure }
}
