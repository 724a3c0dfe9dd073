//! Previews of create, update and patch.

use serde_json::{Map, Value, json};

use super::super::super::message::Response;
use super::super::stack::{Resource, Stack};
use super::super::stack_request::{RequestKind, StackRequest};
use super::super::{Context, Heat, boolean_parameter, functions, resource_plugins};
use super::{add_pending_resources, build_requested, check_properties, find_existing};

/// Previews a new stack.
pub fn preview(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    let given = StackRequest::read(context, RequestKind::Create)?;
    let mut stack = build_requested(heat, context, &given)?;
    stack.id = "None".to_owned();
    let mut shown = stack.show(context.base);
    shown["stack_user_project_id"] = Value::Null;
    shown["outputs"] = json!([]);
    shown["resources"] = previewed(heat, context, &stack, 0);
    Ok(Response::ok(json!({"stack": shown})))
}

/// Lists the resources of a previewed stack; nested stacks are lists.
fn previewed(heat: &Heat, context: &Context, stack: &Stack, depth: usize) -> Value {
    let one = |resource: &Resource| match resource_plugins::preview(stack, resource) {
        Some(plan) if depth < 5 => {
            let name = format!("{}-{}", stack.name, resource.name);
            let mut inner = Stack::new(&stack.project, &name, &stack.owner, &context.now);
            inner.id = "None".to_owned();
            inner.plan = plan;
            add_pending_resources(heat, &mut inner, &context.now);
            let mut shown = previewed(heat, context, &inner, depth + 1);
            for nested in shown.as_array_mut().into_iter().flatten() {
                if nested.is_object() {
                    nested["parent_resource"] = json!(resource.name);
                }
            }
            shown
        }
        _ => resource.raw(heat, stack, context.base, true),
    };
    stack.resources.iter().map(one).collect()
}

/// Previews an update.
pub fn preview_update(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    preview_of(heat, context, RequestKind::Put)
}

/// Previews a patch.
pub fn preview_patch(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    preview_of(heat, context, RequestKind::Patch)
}

fn preview_of(
    heat: &mut Heat,
    context: &Context,
    place: RequestKind,
) -> Result<Response, Response> {
    let given = StackRequest::read(context, place)?;
    boolean_parameter(context, "show_nested", ".")?;
    let stack = find_existing(heat, context)?;
    let plan = given.plan_over(&stack.plan, place)?;
    let mut after = Stack::new(&stack.project, &stack.name, &stack.owner, &context.now);
    after.id = stack.id.clone();
    after.plan = plan;
    add_pending_resources(heat, &mut after, &context.now);
    check_properties(heat, &after)?;
    let mut changes: [(&str, Vec<Value>); 5] = [
        ("unchanged", Vec::new()),
        ("updated", Vec::new()),
        ("replaced", Vec::new()),
        ("added", Vec::new()),
        ("deleted", Vec::new()),
    ];
    for resource in &after.resources {
        let shown_new = || resource.raw(heat, &after, context.base, false);
        let (which, shown) = match stack.resource(&resource.name) {
            None => (3, shown_new()),
            Some(old) => {
                // Unresolved properties keep their current values.
                let mut properties = old.properties.clone();
                properties.retain(|name, _| resource.definition["properties"].get(name).is_some());
                for (name, value) in stack_properties(heat, stack, &after, resource) {
                    properties.insert(name, value);
                }
                match resource_plugins::change(
                    old,
                    &resource.definition,
                    &properties,
                    &after.plan.files,
                ) {
                    resource_plugins::Change::None => (0, shown_new()),
                    resource_plugins::Change::Update => {
                        (1, old.raw(heat, stack, context.base, false))
                    }
                    resource_plugins::Change::Replace => (2, shown_new()),
                    resource_plugins::Change::Create => (3, shown_new()),
                }
            }
        };
        changes[which].1.push(shown);
    }
    for resource in &stack.resources {
        if after.resource(&resource.name).is_none() {
            changes[4]
                .1
                .push(resource.raw(heat, stack, context.base, false));
        }
    }
    let changes: Map<String, Value> = changes
        .into_iter()
        .map(|(name, found)| (name.to_owned(), json!(found)))
        .collect();
    Ok(Response::ok(json!({"resource_changes": changes})))
}

/// Resolves a resource's properties with the future parameters and the current
/// attributes of other resources.
fn stack_properties(
    heat: &Heat,
    stack: &Stack,
    after: &Stack,
    resource: &Resource,
) -> Map<String, Value> {
    let given = resource.definition["properties"].as_object();
    let mut found = Map::new();
    for (name, value) in given.into_iter().flatten() {
        let mut references = Vec::new();
        functions::references(value, "", &mut references, 0);
        let from = if references.is_empty() { after } else { stack };
        if let Ok(value) = from.resolve(heat, value) {
            found.insert(name.clone(), value);
        }
    }
    found
}
