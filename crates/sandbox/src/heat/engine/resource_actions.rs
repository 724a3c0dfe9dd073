//! Actions of resources: how one is created, updated, replaced or deleted by its plugin.

use serde_json::{Map, Value};

use super::*;

/// Creates, updates or replaces one resource according to the template.
pub(super) fn converge_resource(
    heat: &mut Heat,
    serial: u64,
    name: &str,
    now: &Now,
) -> (Progress, u64) {
    let Some((existing, stack)) = heat
        .stacks
        .get(serial)
        .and_then(|stack| Some((stack.resource(name)?, stack)))
    else {
        return (Progress::Done, 0);
    };
    let resource = existing.serial;
    let definition = stack
        .plan
        .template
        .resource(name)
        .cloned()
        .unwrap_or_default();
    let requires = stack.plan.template.requires(name);
    let mut properties = Map::new();
    for (property, value) in definition["properties"].as_object().into_iter().flatten() {
        match stack.resolve(heat, value) {
            Ok(value) => properties.insert(property.clone(), value),
            Err(problem) => {
                let reason = format!("StackValidationFailed: resources.{name}: {problem}");
                return (
                    Progress::Failed(format!("Resource CREATE failed: {reason}")),
                    resource,
                );
            }
        };
    }
    let change = resource_plugins::change(existing, &definition, &properties, &stack.plan.files);
    let Some(stack) = heat.stacks.get_mut(serial) else {
        return (Progress::Done, 0);
    };
    let settle = |stack: &mut Stack| {
        if let Some(resource) = stack.resource_mut(resource) {
            resource.requires = requires.clone();
        }
    };
    match change {
        resource_plugins::Change::None => {
            settle(stack);
            if let Some(resource) = stack.resource_mut(resource) {
                resource.definition = definition;
            }
            (Progress::Done, resource)
        }
        resource_plugins::Change::Create => {
            settle(stack);
            if let Some(resource) = stack.resource_mut(resource) {
                resource.kind = definition["type"].as_str().unwrap_or_default().to_owned();
                resource.definition = definition;
                resource.properties = properties;
            }
            let adopts = stack.action == "ADOPT" && stack.adopted[name].is_object();
            let action = if adopts { "ADOPT" } else { "CREATE" };
            (
                start_resource_action(heat, serial, resource, action, None, now),
                resource,
            )
        }
        resource_plugins::Change::Update => {
            settle(stack);
            let before = stack.resource_mut(resource).map(|resource| {
                resource.definition = definition;
                std::mem::replace(&mut resource.properties, properties)
            });
            (
                start_resource_action(heat, serial, resource, "UPDATE", before, now),
                resource,
            )
        }
        resource_plugins::Change::Replace => {
            let mut new_resource =
                Resource::not_created(&stack.name, name, definition, requires, &now.text);
            new_resource.properties = properties;
            let new = new_resource.serial;
            if let Some(at) = stack
                .resources
                .iter()
                .position(|other| other.serial == resource)
            {
                let old = std::mem::replace(&mut stack.resources[at], new_resource);
                stack.leftovers.push(old);
            }
            // The old resource is deleted after all its dependents use the new one.
            if let Some(running_action) = &mut stack.running_action {
                let needing = &stack.plan.template;
                let predecessors = running_action
                    .nodes
                    .iter()
                    .enumerate()
                    .filter(|(_, node)| match &node.action {
                        NodeAction::Converge(other) => {
                            other == name || needing.requires(other).iter().any(|it| it == name)
                        }
                        NodeAction::Act(..) => false,
                    })
                    .map(|(index, _)| index)
                    .collect();
                running_action.nodes.push(Node {
                    action: NodeAction::Act(resource, "DELETE"),
                    predecessors,
                    state: State::Waiting,
                });
            }
            (
                start_resource_action(heat, serial, new, "CREATE", None, now),
                new,
            )
        }
    }
}

/// Starts an action on one resource. `before` holds the previous properties for an
/// update.
pub(super) fn start_resource_action(
    heat: &mut Heat,
    serial: u64,
    resource: u64,
    action: &'static str,
    before: Option<Map<String, Value>>,
    now: &Now,
) -> Progress {
    let Some(stack) = heat.stacks.get_mut(serial) else {
        return Progress::Done;
    };
    let Some(found) = stack.resource_mut(resource) else {
        return Progress::Done;
    };
    // A resource that was never created needs no work.
    if found.action == "INIT" && !matches!(action, "CREATE" | "ADOPT") {
        if action == "DELETE" {
            stack.remove_resource(resource);
        }
        return Progress::Done;
    }
    if action == "CHECK" && !resource_plugins::can_check(&found.kind) {
        let reason = format!("CHECK not supported for {}", found.kind);
        stack.set_resource_state(resource, "CHECK", "COMPLETE", &reason, now);
        return Progress::Done;
    }
    stack.set_resource_state(resource, action, "IN_PROGRESS", "state changed", now);
    let started = resource_plugins::start(heat, serial, resource, action, before.as_ref(), now);
    let timer_id = started.duration.map(|duration| {
        schedule(heat, now.at + duration, |timer_id| Timer::ResourceDone {
            stack: serial,
            resource,
            timer_id,
        })
    });
    if let Some(resource) = heat
        .stacks
        .get_mut(serial)
        .and_then(|stack| stack.resource_mut(resource))
    {
        resource.running = Some(ResourceAction {
            action,
            before,
            failure: started.failure,
            timer_id,
        });
    }
    Progress::Running
}

/// Ends a resource's action. `failure` is Heat's message without the resource's path.
pub(in crate::heat) fn end_resource_action(
    heat: &mut Heat,
    serial: u64,
    resource: u64,
    failure: Option<String>,
    now: &Now,
) {
    let Some(stack) = heat.stacks.get_mut(serial) else {
        return;
    };
    let Some(running) = stack
        .resource_mut(resource)
        .and_then(|resource| resource.running.take())
    else {
        return;
    };
    let action = running.action;
    match &failure {
        None => stack.set_resource_state(resource, action, "COMPLETE", "state changed", now),
        Some(reason) => stack.set_resource_state(resource, action, "FAILED", reason, now),
    }
    resource_plugins::after_action(heat, serial, resource, action, failure.is_none(), now);
    let Some(stack) = heat.stacks.get_mut(serial) else {
        return;
    };
    let name = stack
        .resource_mut(resource)
        .map(|resource| resource.name.clone())
        .unwrap_or_default();
    if action == "DELETE" && failure.is_none() {
        stack.remove_resource(resource);
    }
    let Some(running_action) = &mut stack.running_action else {
        return;
    };
    let checks = running_action.action == "CHECK";
    let node = running_action
        .nodes
        .iter_mut()
        .find(|node| node.state == State::Running(resource));
    if let Some(node) = node {
        node.state = State::Done;
        if let Some(reason) = failure {
            let reason = match checks {
                true => {
                    format!("Resource CHECK failed: {name}: Resource {action} failed: {reason}")
                }
                false => format!("Resource {action} failed: {reason}"),
            };
            if !record_failure(heat, serial, reason, now) {
                return;
            }
        }
    }
    start_ready_nodes(heat, serial, now);
}

impl Stack {
    fn remove_resource(&mut self, serial: u64) {
        self.resources.retain(|resource| resource.serial != serial);
        self.leftovers.retain(|resource| resource.serial != serial);
    }
}
