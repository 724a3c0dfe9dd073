//! Stack events: docs/apis/heat.md, "Stack events"; tests/real-heat/OBSERVED.md,
//! "Events, resources, signals, snapshots".

use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::message::Response;
use super::engine::Now;
use super::stack::{Resource, Stack};
use super::{Context, Heat, direction, fault, limit, nested_depth, stacks};

#[derive(Clone)]
pub(super) struct Event {
    pub id: String,
    /// Increases with every event of any stack. Timestamps cannot order events within
    /// one second.
    pub order: u64,
    pub time: String,
    pub resource: String,
    pub kind: String,
    pub physical: String,
    pub action: &'static str,
    pub status: &'static str,
    pub reason: String,
    pub properties: Value,
}

/// Returns the next order number.
pub(super) fn next() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed)
}

impl Event {
    pub fn of(
        resource: &Resource,
        action: &'static str,
        status: &'static str,
        reason: &str,
        now: &Now,
    ) -> Self {
        Self {
            id: Uuid::new_v4().to_string(),
            order: next(),
            time: now.text.clone(),
            resource: resource.name.clone(),
            kind: resource.kind.clone(),
            physical: match resource.physical_id.is_empty() {
                true => resource.physical_name.clone(),
                false => resource.physical_id.clone(),
            },
            action,
            status,
            reason: reason.to_owned(),
            properties: Value::Object(resource.properties.clone()),
        }
    }

    fn show(&self, stack: &Stack, root: Option<&Stack>, base: &str) -> Value {
        let of_stack = stack.href(base);
        let resource = format!("{of_stack}/resources/{}", self.resource);
        let mut links = vec![
            json!({"href": format!("{resource}/events/{}", self.id), "rel": "self"}),
            json!({"href": resource, "rel": "resource"}),
            json!({"href": of_stack, "rel": "stack"}),
        ];
        if let Some(root) = root {
            links.push(json!({"href": root.href(base), "rel": "root_stack"}));
        }
        json!({
            "id": self.id,
            "links": links,
            "event_time": self.time,
            "logical_resource_id": self.resource,
            "resource_name": self.resource,
            "physical_resource_id": self.physical,
            "resource_status": format!("{}_{}", self.action, self.status),
            "resource_status_reason": self.reason,
        })
    }
}

/// Newest first by default. An unknown marker is ignored.
pub(super) fn list(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    let stack = stacks::find_any(heat, context)?;
    let of_resource = (context.rest.len() > 3).then(|| context.segment(3));
    let request = context.request;
    let limit = request
        .parameter("limit")
        .map(|text| limit(text, "limit"))
        .transpose()?;
    let depth = nested_depth(context)?;
    // Any known sort key reverses the order; other keys are ignored (observed).
    let keyed = request.query.iter().any(|(name, key)| {
        name == "sort_keys" && ["event_time", "resource_type"].contains(&key.as_str())
    });
    let descending = direction(context)?.unwrap_or(!keyed);
    let filters: Vec<(&str, Vec<&str>)> = [
        "resource_action",
        "resource_status",
        "resource_name",
        "resource_type",
    ]
    .into_iter()
    .map(|name| (name, context.all(name)))
    .filter(|(_, wanted)| !wanted.is_empty())
    .collect();
    let wanted = |event: &Event| {
        filters.iter().all(|(name, wanted)| {
            wanted.contains(&match *name {
                "resource_action" => event.action,
                "resource_status" => event.status,
                "resource_name" => event.resource.as_str(),
                _ => event.kind.as_str(),
            })
        }) && of_resource.is_none_or(|name| event.resource == name)
    };
    let mut of: Vec<(&Stack, &Event)> = Vec::new();
    for stack in stacks::with_nested(heat, stack, depth) {
        of.extend(stack.events.iter().map(|event| (stack, event)));
    }
    if depth > 0 {
        of.sort_by_key(|(_, event)| event.order);
    }
    if request
        .query
        .iter()
        .any(|(name, key)| name == "sort_keys" && key == "resource_type")
    {
        of.sort_by(|(_, a), (_, b)| a.kind.cmp(&b.kind));
    }
    if descending {
        of.reverse();
    }
    if let Some(marker) = request.parameter("marker")
        && let Some(at) = of.iter().position(|(_, event)| event.id == marker)
    {
        of.drain(..=at);
    }
    of.retain(|(_, event)| wanted(event));
    if let Some(name) = of_resource
        && of.is_empty()
    {
        return Err(no_events(&format!("No events found for resource {name}")));
    }
    let root = (depth > 0).then_some(stack);
    let shown: Vec<Value> = of
        .into_iter()
        .take(limit.unwrap_or(usize::MAX))
        .map(|(stack, event)| event.show(stack, root, context.base))
        .collect();
    Ok(Response::ok(json!({"events": shown})))
}

fn no_events(message: &str) -> Response {
    fault(StatusCode::NOT_FOUND, "HTTPNotFound", Some(message))
}

pub(super) fn show(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    let stack = stacks::find_any(heat, context)?;
    let (resource, id) = (context.segment(3), context.segment(5));
    let found = stack
        .events
        .iter()
        .find(|event| event.id == id && event.resource == resource)
        .ok_or_else(|| no_events(&format!("No event {id} found")))?;
    let mut shown = found.show(stack, None, context.base);
    shown["resource_type"] = json!(found.kind);
    shown["resource_properties"] = found.properties.clone();
    Ok(Response::ok(json!({"event": shown})))
}
