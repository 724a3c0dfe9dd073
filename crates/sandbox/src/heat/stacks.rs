//! Stacks: create, find, list, show, update and delete (docs/apis/heat.md, "Stacks",
//! "Stack outputs" and "Stack actions"; tests/real-heat/OBSERVED.md, "Stacks").

mod list;
mod preview;

use http::StatusCode;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::super::message::Response;
use super::engine::{self, Now};
use super::stack::{Resource, Stack, StackDefinition};
use super::stack_request::{RequestKind, StackRequest};
use super::{
    Context, Heat, boolean_parameter, entity_not_found, fault, forbidden, limit_exceeded,
    malformed, not_supported, resource_types,
};
pub(super) use list::{detail, list};
pub(super) use preview::{preview, preview_patch, preview_update};

impl Stack {
    /// Builds an empty stack with this name.
    pub fn new(project: &str, name: &str, owner: &str, now: &Now) -> Self {
        Self {
            serial: 0,
            id: Uuid::new_v4().to_string(),
            project: project.to_owned(),
            name: name.to_owned(),
            owner: owner.to_owned(),
            parent: None,
            depth: 0,
            action: "CREATE",
            status: "IN_PROGRESS",
            reason: String::new(),
            created: now.text.clone(),
            updated: None,
            deleted: false,
            deleted_at: None,
            plan: StackDefinition::default(),
            previous: None,
            disable_rollback: true,
            timeout_mins: None,
            tags: Vec::new(),
            user_project: Uuid::new_v4().simple().to_string(),
            resources: Vec::new(),
            leftovers: Vec::new(),
            events: Default::default(),
            snapshots: Vec::new(),
            adopted: Value::Null,
            work: None,
        }
    }
}

/// Finds the stack with the name and id of the path, deleted ones included.
pub(super) fn find_any<'a>(heat: &'a Heat, context: &Context) -> Result<&'a Stack, Response> {
    let (name, id) = (context.segment(0), context.segment(1));
    heat.stacks
        .find(id)
        .and_then(|serial| heat.stacks.get(serial))
        .filter(|stack| stack.name == name && stack.project == context.project)
        .ok_or_else(|| entity_not_found("Stack", name))
}

/// Like [`find_any`], but fails for deleted stacks.
fn find_existing<'a>(heat: &'a Heat, context: &Context) -> Result<&'a Stack, Response> {
    find_any(heat, context).and_then(|stack| match stack.deleted {
        true => Err(entity_not_found("Stack", context.segment(0))),
        false => Ok(stack),
    })
}

pub(super) fn at(heat: &mut Heat, serial: u64) -> Result<&mut Stack, Response> {
    heat.stacks.get_mut(serial).ok_or_else(malformed)
}

/// Returns a stack and its nested stacks down to a depth.
pub(super) fn with_nested<'a>(heat: &'a Heat, stack: &'a Stack, depth: usize) -> Vec<&'a Stack> {
    let mut found = vec![stack];
    if depth > 0 {
        let inner = stack
            .resources
            .iter()
            .filter(|resource| resource.kind != "OS::Heat::Stack");
        for resource in inner {
            if let Some(inner) = resource.nested.and_then(|serial| heat.stacks.get(serial)) {
                found.extend(with_nested(heat, inner, depth - 1));
            }
        }
    }
    found
}

/// The 202 of an asynchronous operation: the third of tests/real-heat/OBSERVED.md,
/// "Error bodies: three shapes".
pub(super) fn accepted() -> Response {
    Response::json(
        StatusCode::ACCEPTED,
        json!({
            "message": "The request is accepted for processing.<br /><br />\n\n\n",
            "code": "202 Accepted",
            "title": "Accepted",
        }),
    )
}

fn exists(name: &str) -> Response {
    let message = format!("The Stack ({name}) already exists.");
    fault(StatusCode::CONFLICT, "StackExists", Some(&message))
}

/// Builds the requested stack after all checks; no resource is created yet.
fn build_requested(
    heat: &Heat,
    context: &Context,
    given: &StackRequest,
) -> Result<Stack, Response> {
    let name = given.name()?;
    let mut find_existing = heat
        .stacks
        .all()
        .filter(|stack| !stack.deleted && !stack.is_nested());
    if find_existing.any(|stack| stack.project == context.project && stack.name == name) {
        return Err(exists(name));
    }
    let mut stack = Stack::new(context.project, name, context.user, &context.now);
    given.apply_settings(&mut stack);
    stack.plan = given.plan(RequestKind::Create)?;
    add_pending_resources(heat, &mut stack, &context.now);
    check_properties(heat, &stack)?;
    Ok(stack)
}

/// Adds a resource in state INIT for each resource of the template.
fn add_pending_resources(heat: &Heat, stack: &mut Stack, now: &Now) {
    let template = stack.plan.template.clone();
    for (name, definition) in template.resources() {
        let requires = template.requires(name);
        let mut resource =
            Resource::not_created(&stack.name, name, definition.clone(), requires, &now.text);
        resource.properties = stack.properties(heat, definition);
        stack.resources.push(resource);
    }
}

/// Checks all properties whose values are known before any resource is created.
fn check_properties(heat: &Heat, stack: &Stack) -> Result<(), Response> {
    for resource in &stack.resources {
        if !resource_types::exists(&resource.kind) {
            continue;
        }
        let given = &resource.definition["properties"];
        let mut known = Map::new();
        for (name, value) in given.as_object().into_iter().flatten() {
            let mut references = Vec::new();
            super::functions::references(value, "", &mut references, 0);
            match stack.resolve(heat, value) {
                Ok(value) if references.is_empty() => {
                    known.insert(name.clone(), value);
                }
                Ok(_) => {}
                Err(problem) => {
                    let place = format!("resources.{}.properties.{name}", resource.name);
                    let message = format!("Property error: : {place}: : {problem}");
                    return Err(fault(
                        StatusCode::BAD_REQUEST,
                        "StackValidationFailed",
                        Some(&message),
                    ));
                }
            }
        }
        resource_types::check(&resource.name, &resource.kind, given, &known)
            .map_err(|fault| fault.to_response())?;
    }
    Ok(())
}

/// Returns immediately; the resources are created afterwards.
pub(super) fn create(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    let given = StackRequest::read(context, RequestKind::Create)?;
    let mut stack = build_requested(heat, context, &given)?;
    let own = heat
        .stacks
        .all()
        .filter(|other| !other.deleted && !other.is_nested() && other.project == context.project);
    let quota = context.settings.stack_quota;
    if own.count() >= quota {
        return Err(limit_exceeded(&format!(
            "You have reached the maximum stacks per tenant, {quota}. Please delete some stacks."
        )));
    }
    stack.resources.clear();
    let plan = std::mem::take(&mut stack.plan);
    let response = json!({"stack": {"id": stack.id, "links": stack.links(context.base)}});
    let location = stack.href(context.base);
    let adopted = given.adopted.clone();
    let serial = heat.stacks.add(stack);
    match adopted {
        None => engine::converge(heat, serial, "CREATE", plan, &context.now),
        Some(data) => {
            at(heat, serial)?.adopted = data;
            engine::converge(heat, serial, "ADOPT", plan, &context.now);
        }
    }
    Ok(Response::json(StatusCode::CREATED, response).with_header("location", location))
}

pub(super) fn update(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    update_by(heat, context, RequestKind::Put)
}

pub(super) fn patch(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    update_by(heat, context, RequestKind::Patch)
}

/// Updates a stack. An update supersedes a running action.
fn update_by(heat: &mut Heat, context: &Context, place: RequestKind) -> Result<Response, Response> {
    let given = StackRequest::read(context, place)?;
    // Deviation: real Heat accepts an update of a deleted stack and creates it again.
    // Here it is not found.
    let stack = find_existing(heat, context)?;
    if stack.action == "SUSPEND" {
        return Err(not_supported("Updating a stack when it is suspended"));
    }
    if stack.action == "DELETE" {
        return Err(not_supported("Updating a stack when it is deleting"));
    }
    let plan = given.plan_over(&stack.plan, place)?;
    let mut after = Stack::new(&stack.project, &stack.name, &stack.owner, &context.now);
    after.id = stack.id.clone();
    after.plan = plan;
    add_pending_resources(heat, &mut after, &context.now);
    check_properties(heat, &after)?;
    let serial = stack.serial;
    let stack = at(heat, serial)?;
    if place == RequestKind::Put {
        stack.tags.clear();
    }
    given.apply_settings(stack);
    engine::converge(heat, serial, "UPDATE", after.plan, &context.now);
    Ok(accepted())
}

pub(super) fn delete(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    let serial = find_existing(heat, context)?.serial;
    engine::act_on_all(heat, serial, "DELETE", &context.now);
    Ok(Response::empty(StatusCode::NO_CONTENT))
}

/// Redirects a path with only a name or an id to the path with both, keeping sub-path
/// and query. Has no other effect.
pub(super) fn find(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    let (wanted, suffix) = context.rest.split_first().ok_or_else(malformed)?;
    let mut suffix = suffix.to_vec();
    let own = |stack: &&Stack| stack.project == context.project;
    let (name, id) = match wanted.strip_prefix("arn:openstack:heat::") {
        // A stack that is given by ARN is not looked up (observed). The decoded path is
        // split at slashes.
        Some(rest) => match (rest.strip_suffix(":stacks"), &suffix[..]) {
            (Some(_), [name, id, ..]) => ((*name).to_owned(), (*id).to_owned()),
            _ => return Err(entity_not_found("Stack", wanted)),
        },
        None => {
            let by_id = heat
                .stacks
                .find(wanted)
                .and_then(|serial| heat.stacks.get(serial));
            let by_name = |deleted: bool| {
                let mut newest = heat.stacks.all().rev().filter(own);
                newest.find(|stack| stack.name == *wanted && stack.deleted == deleted)
            };
            let found = by_id
                .filter(own)
                .or_else(|| by_name(false))
                .or_else(|| by_name(true))
                .ok_or_else(|| entity_not_found("Stack", wanted))?;
            (found.name.clone(), found.id.clone())
        }
    };
    if wanted.starts_with("arn:") {
        suffix.drain(..2);
    }
    let mut location = format!("{}/v1/{}/stacks/{name}/{id}", context.base, context.project);
    for segment in suffix {
        location.push('/');
        location.push_str(segment);
    }
    if let Some((_, query)) = context.request.target.split_once('?') {
        location.push('?');
        location.push_str(query);
    }
    let message = format!(
        "The resource was found at <a href=\"{location}\">{location}</a>;\nyou should be redirected automatically.\n\n"
    );
    let body = json!({"message": message, "code": "302 Found", "title": "Found"});
    Ok(Response::json(StatusCode::FOUND, body).with_header("location", location))
}

pub(super) fn show(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    let outputs = boolean_parameter(context, "resolve_outputs", ".")?.unwrap_or(true);
    let stack = find_any(heat, context)?;
    Ok(Response::ok(
        json!({"stack": stack.show_all(heat, context.base, outputs)}),
    ))
}

pub(super) fn template(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    Ok(Response::ok(json!(
        find_any(heat, context)?.plan.template.raw
    )))
}

pub(super) fn environment(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    let stack = find_any(heat, context)?;
    let mut shown = stack.plan.environment.show();
    // Hidden values stay hidden.
    let values = stack
        .plan
        .parameters
        .show(&stack.id, &stack.project, &stack.name);
    if let Some(given) = shown["parameters"].as_object_mut() {
        for (name, value) in given {
            if values[name.as_str()] == "******" {
                *value = json!("******");
            }
        }
    }
    shown["encrypted_param_names"] = json!([]);
    Ok(Response::ok(shown))
}

pub(super) fn files(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    Ok(Response::ok(json!(find_any(heat, context)?.plan.files)))
}

pub(super) fn outputs(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    let stack = find_any(heat, context)?;
    let shown: Vec<Value> = stack
        .plan
        .template
        .outputs()
        .map(|(name, output)| {
            let description = output["description"].as_str();
            json!({
                "output_key": name,
                "description": description.unwrap_or("No description given"),
            })
        })
        .collect();
    Ok(Response::ok(json!({"outputs": shown})))
}

pub(super) fn output(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    let stack = find_any(heat, context)?;
    let name = context.segment(3);
    if stack.plan.template.output(name).is_null() {
        let message = format!("Specified output key {name} not found.");
        return Err(fault(StatusCode::NOT_FOUND, "NotFound", Some(&message)));
    }
    Ok(Response::ok(json!({"output": stack.output(heat, name)})))
}

const ACTIONS: [&str; 5] = [
    "suspend",
    "resume",
    "check",
    "cancel_update",
    "cancel_without_rollback",
];

/// The single key of the body is the action.
pub(super) fn action(heat: &mut Heat, context: &Context) -> Result<Response, Response> {
    let empty = json!({});
    let body = context.body.as_ref().unwrap_or(&empty);
    let keys: Vec<&String> = body
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| key)
        .collect();
    let action = match keys[..] {
        [] => return Err(super::bad_request("No action specified")),
        [one] => one.as_str(),
        _ => return Err(super::bad_request("Multiple actions specified")),
    };
    if !ACTIONS.contains(&action) {
        return Err(super::bad_request(&format!(
            "Invalid action {action} specified"
        )));
    }
    if !context.may_write && action != "check" {
        return Err(forbidden(&format!("actions:{action}")));
    }
    let stack = find_existing(heat, context)?;
    let (serial, state) = (stack.serial, stack.state());
    let done = (stack.action, stack.status);
    let unfit = || not_supported(&format!("Cancelling update when stack is {state}"));
    let now = &context.now;
    match action {
        // A repeated suspend has no effect (observed).
        "suspend" if done == ("SUSPEND", "COMPLETE") => {}
        "resume" if done == ("RESUME", "COMPLETE") => {}
        "suspend" => engine::act_on_all(heat, serial, "SUSPEND", now),
        "resume" => engine::act_on_all(heat, serial, "RESUME", now),
        "check" => engine::act_on_all(heat, serial, "CHECK", now),
        "cancel_update" if done == ("UPDATE", "IN_PROGRESS") => {
            engine::start_rollback(heat, serial, now)
        }
        "cancel_without_rollback"
            if ["UPDATE", "CREATE"].contains(&done.0) && done.1 == "IN_PROGRESS" =>
        {
            engine::cancel(heat, serial, now);
        }
        _ => return Err(unfit()),
    }
    Ok(Response::ok(Value::Null))
}
