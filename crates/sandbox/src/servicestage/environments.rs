//! Environments and their resources. Source: docs/apis/servicestage.md,
//! "EnvironmentService".

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::body::{Kind as Is, Member, Object, fill, in_environment_name, may, member, must, text};
use super::errors::{bad, deployed, invalid, missing, no_api};
use super::jobs::Kind;
use super::store::{matches, page};
use super::{Call, Project};
use crate::message::Answer;

const NEW: &[Member] = &[
    must("name", Is::Name(in_environment_name)),
    may("description", Is::Text(128)),
    may("enterprise_project_id", Is::Text(64)),
    must("vpc_id", Is::Text(64)),
    may(
        "deploy_mode",
        Is::OneOf(&["container", "virtualmachine", "mixed"]),
    ),
    may("labels", Is::Labels),
];
const CHANGED: &[Member] = &[
    must("name", Is::Name(in_environment_name)),
    may("description", Is::Text(128)),
    may("labels", Is::Labels),
];
const RESOURCES: &[Member] = &[must(
    "resources",
    Is::List(&[
        must("id", Is::Text(64)),
        must("type", Is::Text(64)),
        may("name", Is::Text(64)),
    ]),
)];

/// Cloud resources outside ServiceStage: type, id, name. As in the fixtures.
const CLOUD: [(&str, &str, &str); 6] = [
    ("vpc", VPC_ID, "vpc-prod"),
    ("cce", "5e0a1c7b-3d94-11ee-8f26-0255ac100b0a", "cce-prod"),
    ("cse", "a7c2e4f6-1b3d-4a5c-8e9f-0d2b4c6e8a1f", "cse-prod"),
    ("elb", "f4b3a2c1-9d8e-4f7a-b6c5-1e2d3f4a5b6c", "elb-public"),
    ("rds", "8d7c6b5a4f3e2d1c0b9a8f7e6d5c4b3ain01", "rds-orders"),
    ("ecs", "e2c4a6b8-7d9f-4b1a-83c5-6f8e0d2b4a7c", "ecs-build"),
];
const VPC_ID: &str = "081c539d-ed09-43b0-9d2b-6f7a8c1e2d34";

/// Builds the environment that exists at the start.
pub fn first(id: &str, project: &str, now: i64) -> Object {
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

pub fn answer(call: &Call<'_>, state: &mut Project, rest: &[&str]) -> Result<Answer, Answer> {
    let Project { environments, .. } = state;
    match (call.method(), rest) {
        (&Method::POST, []) => create(call, state),
        (&Method::GET, []) => {
            let wanted = |environment: &&Object| {
                let is = |filter: &str, member: &str| {
                    let want = call.ask.parameter(filter);
                    want.is_none_or(|want| want == text(environment, member))
                };
                matches(call.ask, "name", text(environment, "name"))
                    && is("environment_id", "id")
                    && is("enterprise_project_id", "enterprise_project_id")
            };
            let views = environments.iter().filter(wanted).map(plain).collect();
            page(call.ask, "environments", views)
        }
        // Matched before the check of ids, because `resources` is not one
        // (docs/apis/servicestage.md, "Quirks").
        (&Method::GET, ["resources"]) => {
            let wanted = call.ask.parameter("resource_type");
            let wanted = wanted.ok_or_else(|| invalid("resource_type is missing."))?;
            let resources = cloud(|kind| kind == wanted);
            Ok(Answer::ok(json!({"resources": resources})))
        }
        (&Method::GET, [id]) => {
            let environment = environments.get(id).ok_or_else(missing)?;
            Ok(Answer::ok(Value::Object(environment.clone())))
        }
        (&Method::PUT, [id]) => {
            environments.get(id).ok_or_else(missing)?;
            let body = call.body(CHANGED)?;
            unused(state, text(&body, "name"), id)?;
            let environment = state.environments.get_mut(id).ok_or_else(missing)?;
            call.change(environment, body);
            Ok(Answer::ok(Value::Object(environment.clone())))
        }
        (&Method::DELETE, [id]) => {
            environments.get(id).ok_or_else(missing)?;
            if state.components.iter().any(|c| c.environment_id() == *id) {
                return Err(deployed());
            }
            state.environments.remove(id);
            state.addons.retain(|addon| !addon.is_in(id));
            state
                .configurations
                .retain(|(_, environment), _| environment != id);
            Ok(Answer::empty(StatusCode::NO_CONTENT))
        }
        (&Method::GET, [id, "resources"]) => {
            let environment = environments.get(id).ok_or_else(missing)?;
            Ok(Answer::ok(
                json!({"resources": member(environment, "resources")}),
            ))
        }
        (&Method::PUT, [id, "resources"]) => {
            let environment = environments.get_mut(id).ok_or_else(missing)?;
            // An empty list is valid: it dissociates all resources.
            let body = call.body(RESOURCES)?;
            call.change(environment, body);
            Ok(Answer::ok(
                json!({"resources": member(environment, "resources")}),
            ))
        }
        (&Method::POST, [id, "refresh"]) => {
            environments.get(id).ok_or_else(missing)?;
            let job = state.jobs.submit(Kind::Operation, false);
            Ok(Answer::ok(
                json!({"job_id": job.id(), "environment_id": id}),
            ))
        }
        _ => Err(no_api()),
    }
}

fn create(call: &Call<'_>, state: &mut Project) -> Result<Answer, Answer> {
    let mut body = call.body(NEW)?;
    unused(state, text(&body, "name"), "")?;
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
    let answer = Answer::ok(plain(&body));
    state.environments.add(body)?;
    Ok(answer)
}

/// Fails if an environment other than `own` has the name.
fn unused(state: &Project, name: &str, own: &str) -> Result<(), Answer> {
    let named = |environment: &Object| text(environment, "name") == name;
    let mut others = state.environments.iter().filter(|e| text(e, "id") != own);
    match others.any(named) {
        true => Err(bad("00100449", "The environment name is in use.")),
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
    let wanted = CLOUD.iter().filter(|(kind, ..)| wanted(kind));
    wanted
        .map(|(kind, id, name)| json!({"id": id, "name": name, "type": kind}))
        .collect()
}
