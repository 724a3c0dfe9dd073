//! Runtime stacks of the system and of the project. Source: docs/apis/servicestage.md,
//! "RuntimeStackService".

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::body::{Kind as Type, Member, Object, fill, member, optional, required, text};
use super::errors::{invalid, refusal, resource_not_found, unknown_api};
use super::{Call, Project};
use crate::message::Response;

const STACK: &[Member] = &[
    // Can contain a slash.
    required("name", Type::Text(64)),
    required("deploy_mode", Type::OneOf(&["virtualmachine"])),
    required("type", Type::OneOf(&["Java", "Tomcat"])),
    required("version", Type::Text(64)),
    optional("spec", Type::Object(&[])),
    optional("description", Type::Text(512)),
];
const ACTION: &[Member] = &[
    required("action", Type::OneOf(&["Supported", "Disable"])),
    required(
        "parameters",
        Type::Object(&[required(
            "runtimestacks",
            Type::List(&[required("id", Type::Text(64))]),
        )]),
    ),
];

/// Types of runtime stacks.
pub const TYPES: [&str; 6] = ["Nodejs", "Java", "Tomcat", "Python", "Php", "Docker"];

/// Runtime stacks of the system: id, name, type, version, status, image.
const SYSTEM: [(&str, &str, &str, &str, &str, &str); 4] = [
    (
        "b3c5d7e9-2f4a-46b8-9d0c-1e3f5a7b9c2d",
        "OpenJDK8",
        "Java",
        "1.3.0",
        "Supported",
        "java8:1.3.0",
    ),
    (
        "6e1f3a5c-8b7d-4c29-9e40-2d4f6a8c0b1e",
        "Tomcat9/OpenJDK8",
        "Tomcat",
        "1.1.1",
        "Supported",
        "tomcat9:1.1.1",
    ),
    (
        "a9d8c7b6-5e4f-4a3b-8c2d-1f0e9d8c7b6a",
        "Php7",
        "Php",
        "1.1.0",
        "Deprecated",
        "php7:1.1.0",
    ),
    (
        "0c2e4a6b-9d8f-47e1-b3a5-7c9d1e3f5b70",
        "Docker",
        "Docker",
        "1.0.0",
        "Supported",
        "",
    ),
];

pub fn handle(call: &Call<'_>, state: &mut Project, rest: &[&str]) -> Result<Response, Response> {
    match (call.method(), rest) {
        (&Method::GET, ["innerimages"]) => {
            let images = SYSTEM.iter().filter(|(.., image)| !image.is_empty());
            let images: Vec<Value> = images
                .map(|(_, _, kind, .., image)| json!({"type": kind, "url": url(image)}))
                .collect();
            Ok(Response::ok(json!({"runtime_stacks": images})))
        }
        (&Method::GET, ["runtimestacks"]) => {
            let all: Vec<Value> = system(call)
                .iter()
                .chain(state.stacks.iter())
                .map(|stack| view(state, stack))
                .collect();
            // The SDK expects `runtimestacks` and finds nothing
            // (docs/apis/servicestage.md, "Quirks").
            Ok(Response::ok(
                json!({"total": all.len(), "runtime_stacks": all}),
            ))
        }
        (&Method::POST, ["runtimestacks"]) => {
            let mut body = call.body(STACK)?;
            fill(
                &mut body,
                json!({"spec": {}, "description": "", "system": 0, "status": "Disable", "url": ""}),
            );
            call.stamp(&mut body);
            let response = Response::ok(view(state, &body));
            state.stacks.add(body)?;
            Ok(response)
        }
        (&Method::POST, ["runtimestacks", "action"]) => {
            let body = call.body(ACTION)?;
            let ids = member(&body, "parameters")["runtimestacks"].as_array();
            let ids: Vec<&str> = ids
                .into_iter()
                .flatten()
                .filter_map(|stack| stack["id"].as_str())
                .collect();
            // All or none.
            for id in &ids {
                project_stack(call, state, id)?;
            }
            for id in ids {
                let status =
                    Object::from_iter([("status".to_owned(), member(&body, "action").clone())]);
                call.merge_body(project_stack(call, state, id)?, status);
            }
            Ok(Response::empty(StatusCode::NO_CONTENT))
        }
        (&Method::GET, ["runtimestacks", id]) => {
            let system = system(call);
            let mut all = system.iter().chain(state.stacks.iter());
            let stack = all.find(|stack| text(stack, "id") == *id);
            Ok(Response::ok(view(
                state,
                stack.ok_or_else(resource_not_found)?,
            )))
        }
        (&Method::PUT, ["runtimestacks", id]) => {
            project_stack(call, state, id)?;
            let body = call.body(STACK)?;
            let stack = project_stack(call, state, id)?;
            call.merge_body(stack, body);
            let stack = stack.clone();
            Ok(Response::ok(view(state, &stack)))
        }
        (&Method::DELETE, ["runtimestacks", id]) => {
            let stack = project_stack(call, state, id)?.clone();
            if users(state, &stack) > 0 {
                // As in the fixture.
                return Err(refusal(
                    StatusCode::CONFLICT,
                    "00100400",
                    "The runtime stack is in use.",
                ));
            }
            state.stacks.remove(id);
            Ok(Response::empty(StatusCode::NO_CONTENT))
        }
        _ => Err(unknown_api()),
    }
}

/// Finds a stack that the project may change.
fn project_stack<'a>(
    call: &Call<'_>,
    state: &'a mut Project,
    id: &str,
) -> Result<&'a mut Object, Response> {
    if system(call).iter().any(|stack| text(stack, "id") == id) {
        return Err(invalid("The runtime stack is the system's."));
    }
    state.stacks.get_mut(id).ok_or_else(resource_not_found)
}

fn system(call: &Call<'_>) -> Vec<Object> {
    let made = super::millis(call.upstreams.clock.at_start);
    let object =
        |(id, name, kind, version, status, image): &(&str, &str, &str, &str, &str, &str)| {
            let mut stack = Object::new();
            fill(
                &mut stack,
                json!({
                    "id": id,
                    "name": name,
                    "project_id": call.project,
                    "deploy_mode": "container",
                    "type": kind,
                    "version": version,
                    "spec": {},
                    "system": 1,
                    "status": status,
                    "url": url(image),
                    "description": "",
                    "creator": "system",
                    "create_time": made,
                    "update_time": made,
                }),
            );
            stack
        };
    SYSTEM.iter().map(object).collect()
}

fn url(image: &str) -> String {
    match image {
        "" => String::new(),
        image => format!("swr.example.com/op_svc_servicestage/{image}"),
    }
}

/// Returns the number of components that run on the stack.
fn users(state: &Project, stack: &Object) -> usize {
    let name = text(stack, "name");
    let components = state.components.iter();
    components.filter(|c| c.stack_name() == name).count()
}

fn view(state: &Project, stack: &Object) -> Value {
    let mut view = stack.clone();
    view.insert("component_count".into(), json!(users(state, stack)));
    Value::Object(view)
}
