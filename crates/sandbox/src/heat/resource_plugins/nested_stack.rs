//! Resources that are stacks: groups, `OS::Heat::Stack`, template resources.

use serde_json::{Map, Value, json};

use super::super::engine::{self, Now};
use super::super::parameters::Parameters;
use super::super::stack::{Parent, Resource, Stack, StackDefinition};
use super::super::template::{self, Environment, Template};
use super::super::{Heat, functions, resource_types};
use super::Started;

/// `max_nested_stack_depth` of Heat's configuration.
const MAX_DEPTH: usize = 5;

/// `max_resources_per_stack` of Heat's configuration, for all levels together.
pub const MAX_RESOURCES: usize = 1000;

pub(super) fn is_nested_stack(kind: &str) -> bool {
    matches!(kind, "OS::Heat::ResourceGroup" | "OS::Heat::Stack") || !resource_types::exists(kind)
}

/// Returns Heat's message for a resource whose nested stack failed.
pub fn inner_failure(resource: &str, reason: &str) -> String {
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

/// Builds the plan of a resource's nested stack.
fn inner_plan(stack: &Stack, found: &Resource) -> Result<StackDefinition, String> {
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
    Ok(StackDefinition {
        template,
        environment,
        files: files.clone(),
        parameters,
    })
}

/// Builds the template of a group, with its definition once for each index.
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

/// Builds the plan that a preview shows in place of a resource.
pub fn preview(stack: &Stack, found: &Resource) -> Option<StackDefinition> {
    let nested = is_nested_stack(&found.kind) && found.kind != "OS::Heat::Stack";
    inner_plan(stack, found).ok().filter(|_| nested)
}

/// Starts the same action on the nested stack of a resource.
pub(super) fn inner(
    heat: &mut Heat,
    serial: u64,
    resource: u64,
    action: &'static str,
    now: &Now,
) -> Started {
    let waits = Started {
        takes: None,
        failure: None,
    };
    let quick = Started {
        takes: Some(now.resource_duration()),
        failure: None,
    };
    let Some(stack) = heat.stacks.get(serial) else {
        return quick;
    };
    let mut resources = stack.resources.iter().chain(&stack.leftovers);
    let Some(found) = resources.find(|other| other.serial == resource) else {
        return quick;
    };
    let plan = match action {
        "CREATE" | "UPDATE" => match inner_plan(stack, found) {
            Ok(plan) => Some(plan),
            Err(problem) => {
                let failure = format!("StackValidationFailed: resources.{}: {problem}", found.name);
                return Started {
                    takes: Some(now.resource_duration()),
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
            takes: Some(now.resource_duration()),
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
                    takes: Some(now.resource_duration()),
                    failure: Some(failure),
                };
            }
            let nested = found.kind != "OS::Heat::Stack";
            let child = Stack {
                parent: Some(Parent {
                    stack: serial,
                    resource: resource,
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
        .and_then(|stack| stack.resource_mut(resource))
    {
        found.nested = Some(inner);
        found.physical_id = id;
        if let Some(file) = file {
            found.data.insert("file".to_owned(), file);
        }
    }
    waits
}
