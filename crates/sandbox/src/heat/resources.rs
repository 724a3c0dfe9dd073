//! Stack resources: docs/apis/heat.md, "Stack resources"; tests/real-heat/OBSERVED.md,
//! "Events, resources, signals, snapshots".

use http::StatusCode;
use serde_json::{Value, json};

use super::super::message::Response;
use super::stack::{Resource, Stack};
use super::{
    Context, Heat, bad_request, boolean_of, boolean_parameter, fault, forbidden, malformed,
    nested_depth, not_supported, resource_plugins, stacks,
};

impl Resource {
    fn show(&self, heat: &Heat, stack: &Stack, base: &str) -> Value {
        let of_stack = stack.href(base);
        let mut links = vec![
            json!({"href": format!("{of_stack}/resources/{}", self.name), "rel": "self"}),
            json!({"href": of_stack, "rel": "stack"}),
        ];
        if self.kind != "OS::Heat::Stack"
            && let Some(inner) = self.nested.and_then(|serial| heat.stacks.get(serial))
        {
            links.push(json!({"href": inner.href(base), "rel": "nested"}));
        }
        let mut shown = json!({
            "updated_time": self.updated,
            "creation_time": self.created,
            "logical_resource_id": self.name,
            "resource_name": self.name,
            "physical_resource_id": self.physical_id,
            "resource_status": self.state(),
            "resource_status_reason": self.reason,
            "resource_type": self.kind,
            "links": links,
            "required_by": stack.required_by(&self.name),
        });
        let parent = stack.parent.as_ref().filter(|parent| parent.nested);
        let outer = parent.and_then(|parent| {
            let outer = heat.stacks.get(parent.stack)?;
            let mut resources = outer.resources.iter().chain(&outer.leftovers);
            resources.find(|resource| resource.serial == parent.resource)
        });
        if let Some(outer) = outer {
            shown["parent_resource"] = json!(outer.name);
        }
        shown
    }

    fn show_all(&self, heat: &Heat, stack: &Stack, base: &str, more: &[&str]) -> Value {
        let mut shown = self.show(heat, stack, base);
        shown["description"] = json!(self.definition["description"].as_str().unwrap_or_default());
        shown["attributes"] = self.attributes(heat, stack, base, more);
        shown
    }
}

const FILTERS: [&str; 6] = [
    "type",
    "status",
    "name",
    "action",
    "id",
    "physical_resource_id",
];

/// Unlike other lists, rejects unknown filters.
pub(super) fn list(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    let stack = stacks::find_any(heat, context)?;
    let depth = nested_depth(context)?;
    let detailed = boolean_parameter(context, "with_detail", ".")?.unwrap_or(false);
    let unknown = context
        .request
        .query
        .iter()
        .map(|(name, _)| name.as_str())
        .find(|name| !FILTERS.contains(name) && !["nested_depth", "with_detail"].contains(name));
    if let Some(unknown) = unknown {
        return Err(bad_request(&format!(
            "Invalid filter parameters ['{unknown}']"
        )));
    }
    if context.all("type").len() > 1 {
        return Err(malformed());
    }
    let wanted = |resource: &Resource| {
        FILTERS.into_iter().all(|filter| {
            let wanted = context.all(filter);
            wanted.is_empty()
                || wanted.into_iter().any(|wanted| match filter {
                    "type" => resource.kind.contains(wanted),
                    "status" => resource.status == wanted || resource.state() == wanted,
                    "name" => resource.name == wanted,
                    "action" => resource.action == wanted,
                    "physical_resource_id" => resource.physical_id == wanted,
                    // The id of a row in Heat's database, which the sandbox does not
                    // have.
                    _ => false,
                })
        })
    };
    let mut shown = Vec::new();
    for stack in stacks::with_nested(heat, stack, depth) {
        for resource in stack.resources.iter().filter(|resource| wanted(resource)) {
            shown.push(match detailed {
                true => resource.show_all(heat, stack, context.base, &[]),
                false => resource.show(heat, stack, context.base),
            });
        }
    }
    Ok(Response::ok(json!({"resources": shown})))
}

fn found<'a>(stack: &'a Stack, name: &str) -> Result<&'a Resource, Response> {
    stack.resource(name).ok_or_else(|| {
        let message = format!(
            "The Resource ({name}) could not be found in Stack {}.",
            stack.name
        );
        fault(StatusCode::NOT_FOUND, "ResourceNotFound", Some(&message))
    })
}

pub(super) fn show(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    let stack = stacks::find_any(heat, context)?;
    let resource = found(stack, context.segment(3))?;
    let more = context.all("with_attr");
    let shown = resource.show_all(heat, stack, context.base, &more);
    Ok(Response::ok(json!({"resource": shown})))
}

pub(super) fn metadata(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    let stack = stacks::find_any(heat, context)?;
    let resource = found(stack, context.segment(3))?;
    Ok(Response::ok(json!({"metadata": resource.metadata})))
}

/// Always accepts a signal, whatever its effect.
pub(super) fn signal(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    let stack = stacks::find_any(heat, context)?;
    let name = context.segment(3);
    let resource = found(stack, name)?;
    if matches!(stack.action, "SUSPEND" | "DELETE") {
        return Err(not_supported(&format!(
            "Signal resource during {}",
            stack.action
        )));
    }
    if !resource_plugins::takes_signals(&resource.kind) {
        let message = "signal is not supported for resource.";
        return Err(fault(
            StatusCode::BAD_REQUEST,
            "ResourceActionNotSupported",
            Some(message),
        ));
    }
    if resource.action == "INIT" {
        let message = format!("The Resource ({name}) is not available.");
        return Err(fault(
            StatusCode::NOT_FOUND,
            "ResourceNotAvailable",
            Some(&message),
        ));
    }
    let serial = stack.serial;
    // A list has no effect (observed).
    if !context.request.body.starts_with(b"[") {
        resource_plugins::signal(heat, serial, name, context.body.as_ref(), &context.now);
    }
    Ok(Response::ok(Value::Null))
}

const MARK_UNHEALTHY_REASON: &str = "state changed by resource_mark_unhealthy api";

/// Marks a resource, found by its name or physical id, as unhealthy or healthy.
pub(super) fn mark(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    if !context.may_write {
        return Err(forbidden("resource:mark_unhealthy"));
    }
    let body = context.body()?.as_object().ok_or_else(malformed)?;
    let known = ["mark_unhealthy", "resource_status_reason"];
    let unknown: Vec<String> = body
        .keys()
        .filter(|key| !known.contains(&key.as_str()))
        .map(|key| format!("'{key}'"))
        .collect();
    if !unknown.is_empty() {
        let unknown = unknown.join(", ");
        return Err(bad_request(&format!(
            "Invalid keys in resource mark unhealthy {{{unknown}}}"
        )));
    }
    let marked = body.get("mark_unhealthy").ok_or_else(|| {
        bad_request("Missing mandatory (mark_unhealthy) key from mark unhealthy request")
    })?;
    let unhealthy = boolean_of(marked).ok_or_else(|| {
        let given = super::functions::text(marked);
        bad_request(&format!(
            "Unrecognized value \"{given}\" for \"mark_unhealthy\", acceptable values are: true, false."
        ))
    })?;
    let stack = stacks::find_any(heat, context)?;
    let name = context.segment(3);
    let by_id = stack
        .resources
        .iter()
        .find(|resource| resource.physical_id == name);
    let resource = match found(stack, name) {
        Ok(resource) => resource,
        Err(missing) => by_id.filter(|_| !name.is_empty()).ok_or(missing)?,
    };
    let (serial, resource_serial) = (stack.serial, resource.serial);
    let action = match unhealthy {
        true if resource.action != "DELETE" => Some("FAILED"),
        false if resource.state() == "CHECK_FAILED" => Some("COMPLETE"),
        _ => None,
    };
    let reason = body
        .get("resource_status_reason")
        .and_then(Value::as_str)
        .unwrap_or(MARK_UNHEALTHY_REASON)
        .to_owned();
    if let Some(status) = action {
        let stack = stacks::at(heat, serial)?;
        stack.set_resource_state(resource_serial, "CHECK", status, &reason, &context.now);
    }
    Ok(Response::ok(Value::Null))
}
