//! Components. Source: docs/apis/servicestage.md, "ComponentService".
//!
//! `components/spec.rs` has their bodies, `components/deploy.rs` the calls that deploy,
//! change and delete them, `components/lifecycle.rs` their state while a job runs.

mod deploy;
mod lifecycle;
mod spec;

use http::Method;
use serde_json::{Value, json};

use super::body::{Kind as Is, Member, Object, member, must, text};
use super::errors::{bad, invalid, missing, no_action, no_api};
use super::store::{Thing, matches, page};
use super::{Call, Project};
use crate::message::Answer;

pub use deploy::{act_on_all, redeploy, roll_back};
pub use lifecycle::Component;
pub use spec::{TEMPLATE_SOURCE, template};

const BATCH: &[Member] = &[
    must("action", Is::Text(64)),
    must(
        "components",
        Is::List(&[
            must("id", Is::Text(64)),
            must("application_id", Is::Text(64)),
        ]),
    ),
];

/// Handles paths that begin with `components` or `applications`.
pub fn answer(call: &Call<'_>, state: &mut Project, rest: &[&str]) -> Result<Answer, Answer> {
    match rest {
        ["components", rest @ ..] => anywhere(call, state, rest),
        ["applications", application, "components", rest @ ..] => {
            state.applications.get(application).ok_or_else(missing)?;
            within(call, state, application, rest)
        }
        _ => Err(no_api()),
    }
}

/// Handles paths that are not below an application.
fn anywhere(call: &Call<'_>, state: &mut Project, rest: &[&str]) -> Result<Answer, Answer> {
    match (call.method(), rest) {
        (&Method::GET, []) => {
            let views = (state.components.iter().map(|c| item(call, state, c)))
                .filter(|view| {
                    let of = |name: &str| view[name].as_str().unwrap_or_default();
                    matches(call.ask, "application_name", of("application_name"))
                        && matches(call.ask, "component_name", of("name"))
                })
                .collect();
            page(call.ask, "components", views)
        }
        (&Method::POST, []) => deploy::create_from_template(call, state),
        (&Method::GET, ["filterOptions"]) => Ok(Answer::ok(filter_options(state))),
        (&Method::POST, ["parse-template-package"]) => {
            call.body(spec::PARSE)?;
            Ok(Answer::ok(spec::template()))
        }
        (&Method::POST, ["action"]) => {
            let body = call.body(BATCH)?;
            if !matches!(text(&body, "action"), "query" | "sync_workload") {
                return Err(no_action());
            }
            let asked = member(&body, "components").as_array();
            for asked in asked.into_iter().flatten() {
                let id = asked["id"].as_str().unwrap_or_default();
                let application = asked["application_id"].as_str().unwrap_or_default();
                find(state, application, id)?;
            }
            // The only established member of the response.
            Ok(Answer::ok(json!({"laneId": ""})))
        }
        _ => Err(no_api()),
    }
}

/// Handles paths below an existing application.
fn within(
    call: &Call<'_>,
    state: &mut Project,
    application: &str,
    rest: &[&str],
) -> Result<Answer, Answer> {
    if let [id, ..] = rest {
        find(state, application, id)?;
    }
    match (call.method(), rest) {
        (&Method::POST, []) => deploy::create(call, state, application),
        (&Method::GET, []) => {
            let own = state.components.iter();
            let own = own.filter(|component| component.application_id() == application);
            let views = own.map(|component| item(call, state, component)).collect();
            page(call.ask, "components", views)
        }
        (&Method::GET, [id]) => {
            // `expect_fields` does not select members: the captured response has all of
            // them.
            let component = find(state, application, id)?;
            let spec = match call.ask.parameter("version") {
                None => &component.spec,
                Some(version) => component
                    .spec_of(version)
                    .ok_or_else(|| bad("00100436", "The snapshot does not exist."))?,
            };
            let mut view = spec.clone();
            view.insert("application_id".into(), json!(application));
            view.insert("environment_id".into(), json!(component.environment_id()));
            view.insert("status".into(), component.status_view(call.world));
            Ok(Answer::ok(Value::Object(view)))
        }
        (&Method::PUT, [id] | [id, "redeployment"]) => deploy::update(call, state, id),
        (&Method::DELETE, [id]) => deploy::delete(call, state, id),
        (&Method::PUT, [_, "refresh"]) => Ok(Answer::ok(json!({"message": "OK"}))),
        (&Method::POST, [id, "action"]) => deploy::act(call, state, id),
        (&Method::GET, [id, "records"]) => {
            let component = find(state, application, id)?;
            page(call.ask, "records", component.record_views(call.world))
        }
        _ => Err(no_api()),
    }
}

fn find<'a>(state: &'a Project, application: &str, id: &str) -> Result<&'a Component, Answer> {
    let found = state.components.get(id);
    found
        .filter(|component| component.application_id() == application)
        .ok_or_else(missing)
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
        "status": component.status_view(call.world),
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
fn places(state: &Project, application: &str, environment: &str) -> Result<(), Answer> {
    state.applications.get(application).ok_or_else(missing)?;
    match environment {
        "" => Err(invalid("environment_id is missing.")),
        id if state.environments.get(id).is_none() => {
            Err(bad("00100411", "The environment does not exist."))
        }
        _ => Ok(()),
    }
}
