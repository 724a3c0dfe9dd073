//! Environments and their resources. Source: docs/apis/servicestage.md,
//! "EnvironmentService".

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::body::{
    Kind as Type, Member, Object, fill, is_environment_name_char, member, optional, required, text,
};
use super::errors::{bad_value, has_components, invalid, object_not_found, unknown_api};
use super::jobs::Kind;
use super::store::{matches, page};
use super::{Call, Project};
use crate::message::Response;

const CREATE_BODY: &[Member] = &[
    required("name", Type::Name(is_environment_name_char)),
    optional("description", Type::Text(128)),
    optional("enterprise_project_id", Type::Text(64)),
    required("vpc_id", Type::Text(64)),
    optional(
        "deploy_mode",
        Type::OneOf(&["container", "virtualmachine", "mixed"]),
    ),
    optional("labels", Type::Labels),
];
const UPDATE_BODY: &[Member] = &[
    required("name", Type::Name(is_environment_name_char)),
    optional("description", Type::Text(128)),
    optional("labels", Type::Labels),
];
const RESOURCES: &[Member] = &[required(
    "resources",
    Type::List(&[
        required("id", Type::Text(64)),
        required("type", Type::Text(64)),
        optional("name", Type::Text(64)),
    ]),
)];

/// Cloud resources outside ServiceStage: type, id, name. As in the fixtures.
const CLOUD_RESOURCES: [(&str, &str, &str); 6] = [
    ("vpc", VPC_ID, "vpc-prod"),
    ("cce", "5e0a1c7b-3d94-11ee-8f26-0255ac100b0a", "cce-prod"),
    ("cse", "a7c2e4f6-1b3d-4a5c-8e9f-0d2b4c6e8a1f", "cse-prod"),
    ("elb", "f4b3a2c1-9d8e-4f7a-b6c5-1e2d3f4a5b6c", "elb-public"),
    ("rds", "8d7c6b5a4f3e2d1c0b9a8f7e6d5c4b3ain01", "rds-orders"),
    ("ecs", "e2c4a6b8-7d9f-4b1a-83c5-6f8e0d2b4a7c", "ecs-build"),
];
const VPC_ID: &str = "081c539d-ed09-43b0-9d2b-6f7a8c1e2d34";

/// Builds the environment that exists at the start.
pub fn preloaded(id: &str, project: &str, now: i64) -> Object {
    let resources: Vec<Value> = cloud(|kind| matches!(kind, "vpc" | "cce" | "cse"));
    let mut first = Object::new();
    fill(
        &mut first,
        json!({
            "id": id,
            "project_id": project,
            "name": "env-prod-1",
            "description": "production environment",
            "enterprise_project_id": "0",
            "vpc_id": VPC_ID,
            "creator": crate::USERNAME,
            "create_time": now,
            "update_time": now,
            "deploy_mode": "mixed",
            "labels": [],
            "resources": resources,
        }),
    );
    first
}

pub fn handle(call: &Call<'_>, state: &mut Project, rest: &[&str]) -> Result<Response, Response> {
    let Project { environments, .. } = state;
    match (call.method(), rest) {
        (&Method::POST, []) => create(call, state),
        (&Method::GET, []) => {
            let wanted = |environment: &&Object| {
                let is = |filter: &str, member: &str| {
                    let want = call.request.parameter(filter);
                    want.is_none_or(|want| want == text(environment, member))
                };
                matches(call.request, "name", text(environment, "name"))
                    && is("environment_id", "id")
                    && is("enterprise_project_id", "enterprise_project_id")
            };
            let views = environments.iter().filter(wanted).map(plain).collect();
            page(call.request, "environments", views)
        }
        // Matched before the check of ids, because `resources` is not one
        // (docs/apis/servicestage.md, "Quirks").
        (&Method::GET, ["resources"]) => {
            let wanted = call.request.parameter("resource_type");
            let wanted = wanted.ok_or_else(|| invalid("resource_type is missing."))?;
            let resources = cloud(|kind| kind == wanted);
            Ok(Response::ok(json!({"resources": resources})))
        }
        (&Method::GET, [id]) => {
            let environment = environments.get(id).ok_or_else(object_not_found)?;
            Ok(Response::ok(Value::Object(environment.clone())))
        }
        (&Method::PUT, [id]) => {
            environments.get(id).ok_or_else(object_not_found)?;
            let body = call.body(UPDATE_BODY)?;
            check_name_unused(state, text(&body, "name"), id)?;
            let environment = state
                .environments
                .get_mut(id)
                .ok_or_else(object_not_found)?;
            call.merge_body(environment, body);
            Ok(Response::ok(Value::Object(environment.clone())))
        }
        (&Method::DELETE, [id]) => {
            environments.get(id).ok_or_else(object_not_found)?;
            if state.components.iter().any(|c| c.environment_id() == *id) {
                return Err(has_components());
            }
            state.environments.remove(id);
            state.addons.retain(|addon| !addon.is_in(id));
            state
                .configurations
                .retain(|(_, environment), _| environment != id);
            Ok(Response::empty(StatusCode::NO_CONTENT))
        }
        (&Method::GET, [id, "resources"]) => {
            let environment = environments.get(id).ok_or_else(object_not_found)?;
            Ok(Response::ok(
                json!({"resources": member(environment, "resources")}),
            ))
        }
        (&Method::PUT, [id, "resources"]) => {
            let environment = environments.get_mut(id).ok_or_else(object_not_found)?;
            // An empty list is valid: it dissociates all resources.
            let body = call.body(RESOURCES)?;
            call.merge_body(environment, body);
            Ok(Response::ok(
                json!({"resources": member(environment, "resources")}),
            ))
        }
        (&Method::POST, [id, "refresh"]) => {
            environments.get(id).ok_or_else(object_not_found)?;
            let job = state.jobs.submit(Kind::Operation, false);
            Ok(Response::ok(
                json!({"job_id": job.id(), "environment_id": id}),
            ))
        }
        _ => Err(unknown_api()),
    }
}

fn create(call: &Call<'_>, state: &mut Project) -> Result<Response, Response> {
    let mut body = call.body(CREATE_BODY)?;
    check_name_unused(state, text(&body, "name"), "")?;
    fill(
        &mut body,
        json!({
            "description": "",
            "enterprise_project_id": "0",
            "deploy_mode": "container",
            "labels": [],
            "resources": [],
        }),
    );
    call.stamp(&mut body);
    let response = Response::ok(plain(&body));
    state.environments.add(body)?;
    Ok(response)
}

/// Fails if an environment other than `own` has the name.
fn check_name_unused(state: &Project, name: &str, own: &str) -> Result<(), Response> {
    let named = |environment: &Object| text(environment, "name") == name;
    let mut others = state.environments.iter().filter(|e| text(e, "id") != own);
    match others.any(named) {
        true => Err(bad_value("00100449", "The environment name is in use.")),
        false => Ok(()),
    }
}

/// Representation in creations and lists: without resources.
fn plain(environment: &Object) -> Value {
    let mut view = environment.clone();
    view.remove("resources");
    Value::Object(view)
}

fn cloud(wanted: impl Fn(&str) -> bool) -> Vec<Value> {
    let wanted = CLOUD_RESOURCES.iter().filter(|(kind, ..)| wanted(kind));
    wanted
        .map(|(kind, id, name)| json!({"id": id, "name": name, "type": kind}))
        .collect()
}
