//! Components. Source: docs/apis/servicestage.md, "ComponentService".
//!
//! `components/spec.rs` has their bodies, `components/deploy.rs` the calls that deploy,
//! change and delete them, `components/lifecycle.rs` their state while a job runs.

mod deploy;
mod lifecycle;
mod spec;

use http::Method;
use serde_json::{Value, json};

use super::body::{Kind as Type, Member, Object, member, required, text};
use super::errors::{bad_value, invalid, object_not_found, unknown_action, unknown_api};
use super::store::{Resource, matches, page};
use super::{Call, Project};
use crate::message::Response;

pub use deploy::{act_on_all, redeploy, roll_back};
pub use lifecycle::Component;
pub use spec::{TEMPLATE_SOURCE, template};

const BATCH: &[Member] = &[
    required("action", Type::Text(64)),
    required(
        "components",
        Type::List(&[
            required("id", Type::Text(64)),
            required("application_id", Type::Text(64)),
        ]),
    ),
];

/// Handles paths that begin with `components` or `applications`.
pub fn handle(call: &Call<'_>, state: &mut Project, rest: &[&str]) -> Result<Response, Response> {
    match rest {
        ["components", rest @ ..] => handle_all(call, state, rest),
        ["applications", application, "components", rest @ ..] => {
            state
                .applications
                .get(application)
                .ok_or_else(object_not_found)?;
            handle_application(call, state, application, rest)
        }
        _ => Err(unknown_api()),
    }
}

/// Handles paths that are not below an application.
fn handle_all(call: &Call<'_>, state: &mut Project, rest: &[&str]) -> Result<Response, Response> {
    match (call.method(), rest) {
        (&Method::GET, []) => {
            let views = (state.components.iter().map(|c| item(call, state, c)))
                .filter(|view| {
                    let of = |name: &str| view[name].as_str().unwrap_or_default();
                    matches(call.request, "application_name", of("application_name"))
                        && matches(call.request, "component_name", of("name"))
                })
                .collect();
            page(call.request, "components", views)
        }
        (&Method::POST, []) => deploy::create_from_template(call, state),
        (&Method::GET, ["filterOptions"]) => Ok(Response::ok(filter_options(state))),
        (&Method::POST, ["parse-template-package"]) => {
            call.body(spec::PARSE)?;
            Ok(Response::ok(spec::template()))
        }
        (&Method::POST, ["action"]) => {
            let body = call.body(BATCH)?;
            if !matches!(text(&body, "action"), "query" | "sync_workload") {
                return Err(unknown_action());
            }
            let asked = member(&body, "components").as_array();
            for asked in asked.into_iter().flatten() {
                let id = asked["id"].as_str().unwrap_or_default();
                let application = asked["application_id"].as_str().unwrap_or_default();
                find(state, application, id)?;
            }
            // The only established member of the response.
            Ok(Response::ok(json!({"laneId": ""})))
        }
        _ => Err(unknown_api()),
    }
}

/// Handles paths below an existing application.
fn handle_application(
    call: &Call<'_>,
    state: &mut Project,
    application: &str,
    rest: &[&str],
) -> Result<Response, Response> {
    if let [id, ..] = rest {
        find(state, application, id)?;
    }
    match (call.method(), rest) {
        (&Method::POST, []) => deploy::create(call, state, application),
        (&Method::GET, []) => {
            let own = state.components.iter();
            let own = own.filter(|component| component.application_id() == application);
            let views = own.map(|component| item(call, state, component)).collect();
            page(call.request, "components", views)
        }
        (&Method::GET, [id]) => {
            // `expect_fields` does not select members: the captured response has all of
            // them.
            let component = find(state, application, id)?;
            let spec = match call.request.parameter("version") {
                None => &component.spec,
                Some(version) => component
                    .spec_of(version)
                    .ok_or_else(|| bad_value("00100436", "The snapshot does not exist."))?,
            };
            let mut view = spec.clone();
            view.insert("application_id".into(), json!(application));
            view.insert("environment_id".into(), json!(component.environment_id()));
            view.insert("status".into(), component.status_view(call.upstreams));
            Ok(Response::ok(Value::Object(view)))
        }
        (&Method::PUT, [id] | [id, "redeployment"]) => deploy::update(call, state, id),
        (&Method::DELETE, [id]) => deploy::delete(call, state, id),
        (&Method::PUT, [_, "refresh"]) => Ok(Response::ok(json!({"message": "OK"}))),
        (&Method::POST, [id, "action"]) => deploy::act(call, state, id),
        (&Method::GET, [id, "records"]) => {
            let component = find(state, application, id)?;
            page(
                call.request,
                "records",
                component.record_views(call.upstreams),
            )
        }
        _ => Err(unknown_api()),
    }
}

fn find<'a>(state: &'a Project, application: &str, id: &str) -> Result<&'a Component, Response> {
    let found = state.components.get(id);
    found
        .filter(|component| component.application_id() == application)
        .ok_or_else(object_not_found)
}

/// Builds the representation in lists.
fn item(call: &Call<'_>, state: &Project, component: &Component) -> Value {
    let name_of =
        |object: Option<&Object>| object.map_or("", |object| text(object, "name")).to_owned();
    let of = |name: &str| member(&component.spec, name);
    let mut view = json!({
        "id": component.id(),
        "name": of("name"),
        "labels": of("labels"),
        "runtime_stack": of("runtime_stack"),
        "status": component.status_view(call.upstreams),
        "environment_name": name_of(state.environments.get(component.environment_id())),
        "application_name": name_of(state.applications.get(component.application_id())),
        "environment_id": component.environment_id(),
        "application_id": component.application_id(),
        "creator": component.creator(),
        "source": of("source"),
        "version": of("version"),
        "platform_type": match of("runtime_stack")["deploy_mode"].as_str() {
            Some("virtualmachine") => "vmapp",
            _ => "cce",
        },
        "external_accesses": [],
    });
    for name in ["external_accesses", "refer_resources", "build"] {
        if let Some(value) = component.spec.get(name) {
            view[name] = value.clone();
        }
    }
    view
}

fn filter_options(state: &Project) -> Value {
    let options = |objects: &mut dyn Iterator<Item = &Object>| -> Vec<Value> {
        objects
            .map(|object| json!({"id": object.get("id"), "label": object.get("name")}))
            .collect()
    };
    let mut enterprise: Vec<&str> = (state.applications.iter())
        .map(|application| text(application, "enterprise_project_id"))
        .collect();
    enterprise.sort_unstable();
    enterprise.dedup();
    json!({"filter_options": {
        "applications": options(&mut state.applications.iter()),
        "enterprise_projects": enterprise,
        "environments": options(&mut state.environments.iter()),
    }})
}

/// Checks that the application and the environment of a new component exist.
fn check_parents(state: &Project, application: &str, environment: &str) -> Result<(), Response> {
    state
        .applications
        .get(application)
        .ok_or_else(object_not_found)?;
    match environment {
        "" => Err(invalid("environment_id is missing.")),
        id if state.environments.get(id).is_none() => {
            Err(bad_value("00100411", "The environment does not exist."))
        }
        _ => Ok(()),
    }
}
