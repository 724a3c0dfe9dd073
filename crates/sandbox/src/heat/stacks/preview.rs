//! Previews of create, update and patch.

use serde_json::{Map, Value, json};

use super::super::super::message::Answer;
use super::super::stack::{Resource, Stack};
use super::super::stack_request::{Given, Place};
use super::super::{Context, Heat, boolean_parameter, functions, resource_plugins};
use super::{checked, living, unmade, wanted};

/// Previews a new stack.
pub fn preview(heat: &mut Heat, context: &Context) -> Result<Answer, Answer> {
    let given = Given::read(context, Place::Create)?;
    let mut stack = wanted(heat, context, &given)?;
    stack.id = "None".to_owned();
    let mut shown = stack.show(context.base);
    shown["stack_user_project_id"] = Value::Null;
    shown["outputs"] = json!([]);
    shown["resources"] = previewed(heat, context, &stack, 0);
    Ok(Answer::ok(json!({"stack": shown})))
}

/// Lists the resources of a previewed stack; nested stacks are lists.
fn previewed(heat: &Heat, context: &Context, stack: &Stack, depth: usize) -> Value {
    let one = |part: &Resource| match resource_plugins::preview(stack, part) {
        Some(plan) if depth < 5 => {
            let name = format!("{}-{}", stack.name, part.name);
            let mut inner = Stack::new(&stack.project, &name, &stack.owner, &context.now);
            inner.id = "None".to_owned();
            inner.plan = plan;
            unmade(heat, &mut inner, &context.now);
            let mut shown = previewed(heat, context, &inner, depth + 1);
            for resource in shown.as_array_mut().into_iter().flatten() {
                if resource.is_object() {
                    resource["parent_resource"] = json!(part.name);
                }
            }
            shown
        }
        _ => part.raw(heat, stack, context.base, true),
    };
    stack.resources.iter().map(one).collect()
}

/// Previews an update.
pub fn preview_update(heat: &mut Heat, context: &Context) -> Result<Answer, Answer> {
    preview_of(heat, context, Place::Put)
}

/// Previews a patch.
pub fn preview_patch(heat: &mut Heat, context: &Context) -> Result<Answer, Answer> {
    preview_of(heat, context, Place::Patch)
}

fn preview_of(heat: &mut Heat, context: &Context, place: Place) -> Result<Answer, Answer> {
    let given = Given::read(context, place)?;
    boolean_parameter(context, "show_nested", ".")?;
    let stack = living(heat, context)?;
    let plan = given.plan_over(&stack.plan, place)?;
    let mut after = Stack::new(&stack.project, &stack.name, &stack.owner, &context.now);
    after.id = stack.id.clone();
    after.plan = plan;
    unmade(heat, &mut after, &context.now);
    checked(heat, &after)?;
    let mut changes: [(&str, Vec<Value>); 5] = [
        ("unchanged", Vec::new()),
        ("updated", Vec::new()),
        ("replaced", Vec::new()),
        ("added", Vec::new()),
        ("deleted", Vec::new()),
    ];
    for part in &after.resources {
        let fresh = || part.raw(heat, &after, context.base, false);
        let (which, shown) = match stack.resource(&part.name) {
            None => (3, fresh()),
            Some(old) => {
                // Unresolved properties keep their current values.
                let mut properties = old.properties.clone();
                properties.retain(|name, _| part.definition["properties"].get(name).is_some());
                for (name, value) in stack_properties(heat, stack, &after, part) {
                    properties.insert(name, value);
                }
                match resource_plugins::change(
                    old,
                    &part.definition,
                    &properties,
                    &after.plan.files,
                ) {
                    resource_plugins::Change::None => (0, fresh()),
                    resource_plugins::Change::Update => {
                        (1, old.raw(heat, stack, context.base, false))
                    }
                    resource_plugins::Change::Replace => (2, fresh()),
                    resource_plugins::Change::Create => (3, fresh()),
                }
            }
        };
        changes[which].1.push(shown);
    }
    for part in &stack.resources {
        if after.resource(&part.name).is_none() {
            changes[4]
                .1
                .push(part.raw(heat, stack, context.base, false));
        }
    }
    let changes: Map<String, Value> = changes
        .into_iter()
        .map(|(name, found)| (name.to_owned(), json!(found)))
        .collect();
    Ok(Answer::ok(json!({"resource_changes": changes})))
}

/// Resolves a resource's properties with the future parameters and the current
/// attributes of other resources.
fn stack_properties(
    heat: &Heat,
    stack: &Stack,
    after: &Stack,
    part: &Resource,
) -> Map<String, Value> {
    let given = part.definition["properties"].as_object();
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
