//! What the resource types do: how a change of each is carried out, how long it
//! takes, what can go wrong.

use std::time::Duration;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::configs::Config;
use super::deployments::Deployment;
use super::engine::{self, Now};
use super::events::Event;
use super::parameters::Parameters;
use super::stack::{Parent, Plan, Resource, Stack};
use super::template::{self, Environment, Template};
use super::{Heat, functions, types};

/// `max_nested_stack_depth` of Heat's configuration.
const MAX_DEPTH: usize = 5;
/// `max_resources_per_stack` of Heat's configuration: all levels together.
pub(super) const MAX_RESOURCES: usize = 1000;
/// The longest that a resource takes by its own wish.
const MAX_WAIT: Duration = Duration::from_secs(86_400 * 365);

/// An action that was begun.
pub(super) struct Started {
    /// How long it takes; none: until something else ends it.
    pub takes: Option<Duration>,
    /// Why it will fail, without the place.
    pub failure: Option<String>,
}

/// What has to be done to make a resource as it should be.
#[derive(Debug, PartialEq)]
pub(super) enum Change {
    None,
    Create,
    Update,
    Replace,
}

/// Twelve of Heat's characters for random names.
pub(super) fn tail() -> String {
    let alphabet = b"abcdefghijklmnopqrstuvwxyz234567";
    (0..12)
        .map(|_| alphabet[fastrand::usize(..alphabet.len())] as char)
        .collect()
}

/// Whether a check of a stack looks at resources of this type.
pub(super) fn can_check(kind: &str) -> bool {
    matches!(
        kind,
        "OS::Heat::TestResource" | "OS::Heat::ResourceGroup" | "OS::Heat::Stack"
    ) || !types::exists(kind)
}

fn takes_stack(kind: &str) -> bool {
    matches!(kind, "OS::Heat::ResourceGroup" | "OS::Heat::Stack") || !types::exists(kind)
}

/// What the difference between a resource and its new definition asks for.
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
    let nested = takes_stack(kind);
    if kind != existing.kind || (existing.status == "FAILED" && !nested) {
        return Change::Replace;
    }
    let mut names: Vec<&String> = properties
        .keys()
        .chain(existing.properties.keys())
        .collect();
    names.sort();
    names.dedup();
    let schema = types::properties(kind);
    let value = |from: &Map<String, Value>, name: &str| {
        let value = from.get(name).or_else(|| schema.get(name)?.get("default"));
        value.cloned().unwrap_or_default()
    };
    let changed: Vec<&String> = names
        .into_iter()
        .filter(|name| value(properties, name) != value(&existing.properties, name))
        .collect();
    if changed.iter().any(|name| types::replaces(kind, name)) {
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

/// Begins an action of a resource, which is already in progress.
pub(super) fn start(
    heat: &mut Heat,
    serial: u64,
    part: u64,
    action: &'static str,
    before: Option<&Map<String, Value>>,
    now: &Now,
) -> Started {
    let pause = now.pause();
    let quick = Started {
        takes: Some(pause),
        failure: None,
    };
    let Some(stack) = heat.stacks.get_mut(serial) else {
        return quick;
    };
    let Some(found) = stack.part(part) else {
        return quick;
    };
    let kind = found.kind.clone();
    if action == "ADOPT" {
        return adopt(stack, part, pause);
    }
    if takes_stack(&kind) {
        return inner(heat, serial, part, action, now);
    }
    match (kind.as_str(), action) {
        ("OS::Heat::TestResource", _) => test_resource(found, action, before, pause),
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
            wait_condition(heat, serial, part, pause)
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
            if let Some(found) = stack.part(part) {
                let config =
                    Config::of_stack(&project, &found.physical_name, &found.properties, &now.text);
                found.physical_id = config.id.clone();
                heat.configs.push(config);
            }
            quick
        }
        ("OS::Heat::SoftwareConfig", "DELETE") => {
            let id = found.physical_id.clone();
            // One that is referenced still stays, as it must.
            if heat.deployments.iter().all(|other| other.config_id != id) {
                heat.configs.retain(|config| config.id != id);
            }
            quick
        }
        ("OS::Heat::SoftwareDeployment", _) => deployment(heat, serial, part, action, now),
        _ => quick,
    }
}

/// A resource that is there already: it only has to be known.
fn adopt(stack: &mut Stack, part: u64, pause: Duration) -> Started {
    let adopted = std::mem::take(&mut stack.adopted);
    if let Some(found) = stack.part(part) {
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
        takes: Some(pause),
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
    pause: Duration,
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
            pause
                + Duration::try_from_secs_f64(wait)
                    .unwrap_or(MAX_WAIT)
                    .min(MAX_WAIT),
        ),
        false => Some(pause),
    };
    Started { takes, failure }
}

/// Waits for signals; some may have come already.
fn wait_condition(heat: &mut Heat, serial: u64, part: u64, pause: Duration) -> Started {
    let Some(stack) = heat.stacks.get(serial) else {
        return Started {
            takes: Some(pause),
            failure: None,
        };
    };
    match verdict(stack, part) {
        Some(failure) => Started {
            takes: Some(pause),
            failure,
        },
        None => {
            let found = stack.resources.iter().find(|other| other.serial == part);
            let timeout = found.and_then(|part| seconds_of(part.properties.get("timeout")));
            let timeout = timeout.and_then(|secs| Duration::try_from_secs_f64(secs).ok());
            Started {
                takes: Some(timeout.unwrap_or(MAX_WAIT).min(MAX_WAIT)),
                // Replaced by what has come by then: `timed_out`.
                failure: Some(String::new()),
            }
        }
    }
}

/// How a wait condition ends by the signals that have come; none: not yet.
fn verdict(stack: &Stack, part: u64) -> Option<Option<String>> {
    let condition = stack.resources.iter().find(|other| other.serial == part)?;
    let handle = condition.properties.get("handle");
    let handle = stack
        .resources
        .iter()
        .find(|other| Some(&other.reference()) == handle);
    let signals = handle.and_then(|handle| handle.metadata.as_object());
    let reasons = |status: &str| -> Vec<String> {
        let signals = signals.into_iter().flatten();
        signals
            .filter(|(_, signal)| signal["status"] == status)
            .map(|(_, signal)| functions::text(&signal["reason"]))
            .collect()
    };
    let failures = reasons("FAILURE");
    if !failures.is_empty() {
        let name = &condition.name;
        let why = failures.join(";");
        return Some(Some(format!(
            "WaitConditionFailure: resources.{name}: {why}"
        )));
    }
    (reasons("SUCCESS").len() as u64 >= wanted(condition)).then_some(None)
}

fn wanted(condition: &Resource) -> u64 {
    let count = condition.properties.get("count").map(functions::text);
    count.and_then(|text| text.trim().parse().ok()).unwrap_or(1)
}

/// What a wait condition says whose time is over.
pub(super) fn timed_out(heat: &Heat, serial: u64, part: u64) -> Option<String> {
    let stack = heat.stacks.get(serial)?;
    let running = |other: &Resource| other.running.as_ref().map(|running| running.action);
    let found = stack.resources.iter().find(|other| other.serial == part)?;
    if running(found) == Some("DELETE") {
        return None;
    }
    if let Some(ended) = verdict(stack, part) {
        return ended;
    }
    let condition = stack.resources.iter().find(|other| other.serial == part)?;
    let handle = condition.properties.get("handle");
    let handle = stack
        .resources
        .iter()
        .find(|other| Some(&other.reference()) == handle);
    let signals = handle.and_then(|handle| handle.metadata.as_object());
    let reasons: Vec<String> = signals
        .into_iter()
        .flatten()
        .map(|(_, signal)| functions::text(&signal["reason"]))
        .collect();
    let mut message = format!("{} of {} received", reasons.len(), wanted(condition));
    if !reasons.is_empty() {
        message = format!("{message} - {}", reasons.join(";"));
    }
    Some(format!(
        "WaitConditionTimeout: resources.{}: {message}",
        condition.name
    ))
}

/// Whether signals go to resources of this type.
pub(super) fn takes_signals(kind: &str) -> bool {
    matches!(
        kind,
        "OS::Heat::WaitConditionHandle" | "OS::Heat::SoftwareDeployment"
    )
}

/// Carries a signal out.
pub(super) fn signal(heat: &mut Heat, serial: u64, name: &str, details: Option<&Value>, now: &Now) {
    let Some(stack) = heat.stacks.get_mut(serial) else {
        return;
    };
    let Some(found) = stack.resources.iter_mut().find(|other| other.name == name) else {
        return;
    };
    if found.kind == "OS::Heat::SoftwareDeployment" {
        let (part, id) = (found.serial, found.physical_id.clone());
        let running = found.running.is_some();
        let details = details.cloned().unwrap_or_else(|| json!({}));
        let deployment = heat.deployments.iter_mut().find(|other| other.id == id);
        let Some(deployment) = deployment.filter(|deployment| deployment.in_progress()) else {
            // Late signals are dropped (heat.md 5.1).
            return;
        };
        let config = heat
            .configs
            .iter()
            .find(|config| config.id == deployment.config_id);
        let failure = deployment.signalled(config, &details, &now.text);
        if running {
            let failure = failure.map(|why| format!("Error: resources.{name}: {why}"));
            engine::over(heat, serial, part, failure, now);
        }
        return;
    }
    let empty = json!({});
    let metadata = found.metadata.as_object().cloned().unwrap_or_default();
    let details = details.unwrap_or(&empty);
    // What has other members than these, Heat takes for a signal without any.
    let known = ["status", "reason", "data", "id"];
    let members = details.as_object().cloned().unwrap_or_default();
    let fine = members.keys().all(|key| known.contains(&key.as_str()));
    let given = |key: &str| members.get(key).filter(|_| fine).cloned();
    let id = given("id").map_or_else(
        || (metadata.len() + 1).to_string(),
        |id| functions::text(&id),
    );
    let status = given("status").map_or_else(|| "SUCCESS".to_owned(), |it| functions::text(&it));
    if !["SUCCESS", "FAILURE"].contains(&status.as_str()) {
        return;
    }
    let reason = given("reason").unwrap_or_else(|| json!(format!("Signal {id} received")));
    let signal = match (fine, members.is_empty()) {
        (true, false) => {
            let mut signal = members.clone();
            signal.shift_remove("id");
            signal.entry("status").or_insert_with(|| json!(status));
            signal.entry("reason").or_insert_with(|| reason.clone());
            signal.entry("data").or_insert(Value::Null);
            Value::Object(signal)
        }
        _ => json!({"reason": reason, "data": null, "status": status}),
    };
    let mut metadata = metadata;
    metadata.insert(id, signal);
    found.metadata = Value::Object(metadata);
    let told = format!(
        "Signal: status:{status} reason:{}",
        functions::text(&reason)
    );
    let event = Event::of(found, "SIGNAL", "COMPLETE", &told, now);
    stack.note(event, now);
    let waiting: Vec<u64> = stack
        .resources
        .iter()
        .filter(|other| other.kind == "OS::Heat::WaitCondition" && other.running.is_some())
        .map(|other| other.serial)
        .collect();
    for part in waiting {
        if let Some(failure) = heat
            .stacks
            .get(serial)
            .and_then(|stack| verdict(stack, part))
        {
            engine::over(heat, serial, part, failure, now);
        }
    }
}

fn deployment(heat: &mut Heat, serial: u64, part: u64, action: &'static str, now: &Now) -> Started {
    let quick = Started {
        takes: Some(now.pause()),
        failure: None,
    };
    let Some(stack) = heat.stacks.get_mut(serial) else {
        return quick;
    };
    let (project, stack_id, stack_name) =
        (stack.project.clone(), stack.id.clone(), stack.name.clone());
    let Some(found) = stack.part(part) else {
        return quick;
    };
    let property = |name: &str| found.properties.get(name).cloned().unwrap_or_default();
    let transport = match property("signal_transport") {
        Value::String(transport) => transport,
        _ => "CFN_SIGNAL".to_owned(),
    };
    let old = found.physical_id.clone();
    match action {
        "CREATE" | "UPDATE" => {
            let wanted = property("config");
            let config = heat
                .configs
                .iter()
                .find(|config| json!(config.id) == wanted);
            let mut derived = match config {
                Some(config) => config.clone(),
                None => Config::of_stack(&project, &found.physical_name, &Map::new(), &now.text),
            };
            let server = functions::text(&property("server"));
            derived.derive(
                &property("input_values"),
                &[
                    (
                        "deploy_server_id",
                        "ID of the server being deployed to",
                        &server,
                    ),
                    (
                        "deploy_action",
                        "Name of the current action being deployed",
                        action,
                    ),
                    (
                        "deploy_stack_id",
                        "ID of the stack this deployment belongs to",
                        &format!("{stack_name}/{stack_id}"),
                    ),
                    (
                        "deploy_resource_name",
                        "Name of this deployment resource in the stack",
                        &found.name,
                    ),
                    (
                        "deploy_signal_transport",
                        "How the server should signal to heat with the deployment output values.",
                        &transport,
                    ),
                ],
                &now.text,
            );
            let waits = transport != "NO_SIGNAL";
            let derived_id = derived.id.clone();
            heat.configs.push(derived);
            let made = Deployment::of_stack(
                &project,
                &server,
                &derived_id,
                action,
                waits,
                &property("input_values"),
                &now.text,
            );
            if action == "CREATE" {
                found.physical_id = made.id.clone();
                heat.deployments.push(made);
            } else if let Some(there) = heat.deployments.iter_mut().find(|other| other.id == old) {
                let before = there.config_id.clone();
                there.renew(made, &now.text);
                heat.configs.retain(|config| config.id != before);
            }
            // Where the sandbox plays, it is the server's agent as well.
            match waits && !now.settings.play {
                true => Started {
                    takes: None,
                    failure: None,
                },
                false => quick,
            }
        }
        "DELETE" => {
            let gone = heat.deployments.iter().find(|other| other.id == old);
            let derived = gone.map(|gone| gone.config_id.clone());
            heat.deployments.retain(|other| other.id != old);
            heat.configs
                .retain(|config| Some(&config.id) != derived.as_ref());
            quick
        }
        _ => quick,
    }
}

/// What is left to do when an action of a resource is over.
pub(super) fn ended(heat: &mut Heat, serial: u64, part: u64, action: &str, well: bool, now: &Now) {
    let Some(found) = heat
        .stacks
        .get_mut(serial)
        .and_then(|stack| stack.part(part))
    else {
        return;
    };
    if found.kind == "OS::Heat::SoftwareDeployment" && well && matches!(action, "CREATE" | "UPDATE")
    {
        let id = found.physical_id.clone();
        let deployment = heat.deployments.iter_mut().find(|other| other.id == id);
        if let Some(deployment) = deployment.filter(|deployment| deployment.in_progress()) {
            let config = heat
                .configs
                .iter()
                .find(|config| config.id == deployment.config_id);
            // Only where the sandbox plays the agent is it still in progress.
            deployment.signalled(config, &json!({"deploy_status_code": 0}), &now.text);
        }
    }
}

/// What a resource that is a stack says when that stack has failed.
pub(super) fn inner_failure(resource: &str, reason: &str) -> String {
    let reason = match reason.strip_prefix("Resource ") {
        Some(rest) => rest
            .split_once(" failed: ")
            .map_or(reason, |(_, reason)| reason),
        None => reason,
    };
    match reason.split_once(": ") {
        Some((kind, rest)) if !kind.contains(' ') => format!("{kind}: resources.{resource}.{rest}"),
        _ => format!("Error: resources.{resource}: {reason}"),
    }
}

/// The plan of the stack that a resource is made of.
fn inner_plan(stack: &Stack, found: &Resource) -> Result<Plan, String> {
    let properties = &found.properties;
    let template = match found.kind.as_str() {
        "OS::Heat::ResourceGroup" => group(properties)?,
        "OS::Heat::Stack" => match properties.get("template") {
            Some(Value::String(text)) => template::nested(text).map_err(|fault| fault.message)?,
            _ => return Err("no template".to_owned()),
        },
        file => match stack.plan.files.get(file) {
            Some(Value::String(text)) => template::nested(text).map_err(|fault| fault.message)?,
            _ => return Err(format!("The Resource Type ({file}) could not be found.")),
        },
    };
    let files = &stack.plan.files;
    template
        .check(&|kind| files.contains_key(kind))
        .map_err(|fault| fault.message)?;
    let given = match found.kind.as_str() {
        "OS::Heat::ResourceGroup" => Map::new(),
        "OS::Heat::Stack" => {
            let given = properties.get("parameters").and_then(Value::as_object);
            given.cloned().unwrap_or_default()
        }
        _ => properties.clone(),
    };
    let environment = Environment {
        parameters: given,
        parameter_defaults: stack.plan.environment.parameter_defaults.clone(),
        ..Environment::default()
    };
    let parameters = Parameters::read(&template, &environment).map_err(|fault| fault.message)?;
    Ok(Plan {
        template,
        environment,
        files: files.clone(),
        parameters,
    })
}

/// The template of a group: its definition for each index.
fn group(properties: &Map<String, Value>) -> Result<Template, String> {
    let count = properties.get("count").map(functions::text);
    let count = match count {
        Some(text) => text
            .trim()
            .parse::<u64>()
            .map_err(|error| error.to_string())?,
        None => 1,
    };
    if count > MAX_RESOURCES as u64 {
        return Err("Maximum resources per stack exceeded.".to_owned());
    }
    let definition = properties.get("resource_def").cloned().unwrap_or_default();
    let index_var = properties
        .get("index_var")
        .and_then(Value::as_str)
        .unwrap_or("%index%");
    let members: Map<String, Value> = (0..count)
        .map(|index| {
            let index = index.to_string();
            let member = functions::replaced(&definition, index_var, &json!(index), 0);
            (index, member)
        })
        .collect();
    let raw = json!({"heat_template_version": "2015-04-30", "resources": members});
    Ok(Template {
        raw: raw.as_object().cloned().unwrap_or_default(),
    })
}

/// The members that a preview shows in place of a resource.
pub(super) fn preview(stack: &Stack, found: &Resource) -> Option<Plan> {
    let nested = takes_stack(&found.kind) && found.kind != "OS::Heat::Stack";
    inner_plan(stack, found).ok().filter(|_| nested)
}

/// An action of a resource that is a stack is the same action of that stack.
fn inner(heat: &mut Heat, serial: u64, part: u64, action: &'static str, now: &Now) -> Started {
    let waits = Started {
        takes: None,
        failure: None,
    };
    let quick = Started {
        takes: Some(now.pause()),
        failure: None,
    };
    let Some(stack) = heat.stacks.get(serial) else {
        return quick;
    };
    let mut parts = stack.resources.iter().chain(&stack.leftovers);
    let Some(found) = parts.find(|other| other.serial == part) else {
        return quick;
    };
    let plan = match action {
        "CREATE" | "UPDATE" => match inner_plan(stack, found) {
            Ok(plan) => Some(plan),
            Err(problem) => {
                let failure = format!("StackValidationFailed: resources.{}: {problem}", found.name);
                return Started {
                    takes: Some(now.pause()),
                    failure: Some(failure),
                };
            }
        },
        _ => None,
    };
    let more = plan
        .as_ref()
        .map_or(0, |plan| plan.template.resources().count());
    if more > 0 && heat.stacks.size(stack) + more > MAX_RESOURCES {
        let problem = "Request limit exceeded: Maximum resources per stack exceeded.";
        let failure = format!("RequestLimitExceeded: resources.{}: {problem}", found.name);
        return Started {
            takes: Some(now.pause()),
            failure: Some(failure),
        };
    }
    let file = stack.plan.files.get(&found.kind).cloned();
    let existing = found
        .nested
        .filter(|inner| heat.stacks.get(*inner).is_some_and(|it| !it.deleted));
    let inner = match (existing, plan) {
        (Some(inner), Some(plan)) => {
            engine::converge(heat, inner, "UPDATE", plan, now);
            inner
        }
        (None, Some(plan)) => {
            if stack.depth >= MAX_DEPTH {
                let failure = format!(
                    "RequestLimitExceeded: resources.{}: Recursion depth exceeds {MAX_DEPTH}.",
                    found.name
                );
                return Started {
                    takes: Some(now.pause()),
                    failure: Some(failure),
                };
            }
            let nested = found.kind != "OS::Heat::Stack";
            let child = Stack {
                parent: Some(Parent {
                    stack: serial,
                    resource: part,
                    nested,
                }),
                depth: stack.depth + 1,
                ..Stack::new(&stack.project, &found.physical_name, &stack.owner, now)
            };
            let inner = heat.stacks.add(child);
            engine::converge(heat, inner, "CREATE", plan, now);
            inner
        }
        (Some(inner), None) => {
            engine::act_on_all(heat, inner, action, now);
            inner
        }
        (None, None) => return quick,
    };
    let id = heat
        .stacks
        .get(inner)
        .map(|inner| inner.id.clone())
        .unwrap_or_default();
    if let Some(found) = heat
        .stacks
        .get_mut(serial)
        .and_then(|stack| stack.part(part))
    {
        found.nested = Some(inner);
        found.physical_id = id;
        if let Some(file) = file {
            found.data.insert("file".to_owned(), file);
        }
    }
    waits
}
