//! Stack snapshots: docs/apis/heat.md, "Stack snapshots".

use http::StatusCode;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::super::message::Response;
use super::stack::{Stack, StackDefinition};
use super::{
    Context, Heat, engine, entity_not_found, limit_exceeded, not_found, not_supported, stacks,
};

/// `max_snapshots_per_stack` of Heat's configuration.
const MAX_SNAPSHOTS: usize = 32;

pub(super) struct Snapshot {
    id: String,
    name: Value,
    status: &'static str,
    reason: Value,
    data: Value,
    created: String,
    plan: StackDefinition,
}

impl Snapshot {
    fn show(&self) -> Value {
        json!({
            "id": self.id,
            "name": self.name,
            "action": "CREATE",
            "status": self.status,
            "status_reason": self.reason,
            "data": self.data,
            "creation_time": self.created,
        })
    }
}

impl Stack {
    /// Builds the data of a snapshot or an export.
    fn data(&self, with_resources: bool) -> Value {
        let mut resources = Map::new();
        for resource in self.resources.iter().filter(|_| with_resources) {
            let data = match resource.nested {
                Some(_) => json!({}),
                None => json!(resource.data),
            };
            let one = json!({
                "name": resource.name,
                "resource_id": resource.physical_id,
                "type": resource.kind,
                "action": resource.action,
                "status": resource.status,
                "metadata": resource.metadata,
                "resource_data": data,
            });
            resources.insert(resource.name.clone(), one);
        }
        json!({
            "name": self.name,
            "id": self.id,
            "action": self.action,
            "environment": self.plan.environment.show(),
            "files": self.plan.files,
            "status": self.status,
            "template": self.plan.template.raw,
            "resources": resources,
            "project_id": self.project,
            "stack_user_project_id": self.user_project,
            "tags": self.tags,
        })
    }

    /// Stores the current state of the stack in the snapshot in progress.
    pub fn end_snapshot(&mut self, well: bool) {
        let data = self.data(true);
        let reason = json!(self.reason);
        let mut snapshots = self.snapshots.iter_mut();
        if let Some(snapshot) = snapshots.find(|snapshot| snapshot.status == "IN_PROGRESS") {
            snapshot.status = if well { "COMPLETE" } else { "FAILED" };
            snapshot.reason = reason;
            snapshot.data = data;
        }
    }
}

pub(super) fn list(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    let stack = stacks::find_any(heat, context)?;
    let shown: Vec<Value> = stack.snapshots.iter().map(Snapshot::show).collect();
    Ok(Response::ok(json!({"snapshots": shown})))
}

/// Returns the snapshot without a wrapper (observed).
pub(super) fn create(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    let serial = stacks::find_any(heat, context)?.serial;
    let body = context.body()?;
    let stack = stacks::at(heat, serial)?;
    if stack.busy() {
        return Err(engine::in_progress(stack));
    }
    if stack.snapshots.len() >= MAX_SNAPSHOTS {
        return Err(limit_exceeded(&format!(
            "You have reached the maximum snapshots per stack, {MAX_SNAPSHOTS}. Please delete some snapshots."
        )));
    }
    let snapshot = Snapshot {
        id: Uuid::new_v4().to_string(),
        name: body["name"].clone(),
        status: "IN_PROGRESS",
        reason: Value::Null,
        data: stack.data(false),
        created: context.now.text.clone(),
        plan: stack.plan.clone(),
    };
    let shown = snapshot.show();
    stack.snapshots.push(snapshot);
    engine::act_on_all(heat, serial, "SNAPSHOT", &context.now);
    Ok(Response::ok(shown))
}

fn snapshot_index(stack: &Stack, context: &Context) -> Result<usize, Response> {
    let id = context.segment(3);
    let mut all = stack.snapshots.iter();
    all.position(|snapshot| snapshot.id == id)
        .ok_or_else(|| not_found("Snapshot", id))
}

pub(super) fn show(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    let stack = stacks::find_any(heat, context)?;
    let snapshot = &stack.snapshots[snapshot_index(stack, context)?];
    Ok(Response::ok(json!({"snapshot": snapshot.show()})))
}

pub(super) fn delete(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    let stack = stacks::find_any(heat, context)?;
    let place = snapshot_index(stack, context)?;
    if stack.snapshots[place].status == "IN_PROGRESS" {
        return Err(not_supported("Deleting in-progress snapshot"));
    }
    let serial = stack.serial;
    stacks::at(heat, serial)?.snapshots.remove(place);
    Ok(Response::empty(StatusCode::NO_CONTENT))
}

/// Does not restore tags and timeout (observed).
pub(super) fn restore(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    let stack = stacks::find_any(heat, context)?;
    let place = snapshot_index(stack, context)?;
    let snapshot = &stack.snapshots[place];
    if snapshot.status != "COMPLETE" {
        let message = format!("Restore from {} snapshot", snapshot.status);
        return Err(not_supported(&message));
    }
    let (plan, serial) = (snapshot.plan.clone(), stack.serial);
    stacks::at(heat, serial)?.tags.clear();
    engine::converge(heat, serial, "RESTORE", plan, &context.now);
    Ok(stacks::accepted())
}

/// Deletes the stack without touching its resources.
pub(super) fn abandon(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    let shown = export(heat, context)?;
    let serial = stacks::find_any(heat, context)?.serial;
    if let Some(stack) = heat.stacks.get_mut(serial) {
        stack.mark_deleted(&context.now);
    }
    Ok(shown)
}

/// Returns the same data as abandon, without effect. Heat disables both by default.
pub(super) fn export(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    let stack = stacks::find_any(heat, context)?;
    if !context.settings.adopt_and_abandon {
        return Err(not_supported("Stack Abandon"));
    }
    if stack.deleted {
        return Err(entity_not_found("Stack", context.segment(0)));
    }
    Ok(Response::ok(stack.data(true)))
}
