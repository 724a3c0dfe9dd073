//! Applications and their configurations. Source: docs/apis/servicestage.md,
//! "ApplicationService".

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::body::{
    Kind as Type, Member, Object, fill, is_name_char, member, optional, required, text,
};
use super::errors::{
    bad_value, has_components, invalid, object_not_found, refusal, unknown_action, unknown_api,
};
use super::store::page;
use super::{Call, Project, components};
use crate::message::Response;
use crate::{APPLICATION_ID, USERNAME};

const CREATE_BODY: &[Member] = &[
    required("name", Type::Name(is_name_char)),
    optional("description", Type::Text(128)),
    optional("enterprise_project_id", Type::Text(64)),
    optional("labels", Type::Labels),
];
const UPDATE_BODY: &[Member] = &[
    optional("name", Type::Name(is_name_char)),
    optional("description", Type::Text(128)),
    optional("enterprise_project_id", Type::Text(64)),
    optional("labels", Type::Labels),
];
const CONFIGURATION: &[Member] = &[
    required("environment_id", Type::Text(64)),
    required(
        "configuration",
        Type::Object(&[
            required(
                "env",
                Type::List(&[
                    required("name", Type::Text(64)),
                    optional("value", Type::Text(2048)),
                ]),
            ),
            optional("assign_strategy", Type::Flag),
        ]),
    ),
];
const ACTION: &[Member] = &[
    required("action", Type::Text(64)),
    required(
        "parameters",
        Type::Object(&[required(
            "components",
            Type::List(&[required("id", Type::Text(64))]),
        )]),
    ),
];

/// Maximum number of configurations of a project; the sandbox's own limit.
const MAX_CONFIGURATIONS: usize = 1000;

/// Builds the application that exists at the start.
pub fn preloaded(project: &str, now: i64) -> Object {
    let mut first = Object::new();
    fill(
        &mut first,
        json!({
            "id": APPLICATION_ID,
            "name": "order_center",
            "creator": USERNAME,
            "project_id": project,
            "enterprise_project_id": "0",
            "create_time": now,
            "update_time": now,
            "description": "Order processing",
            "labels": [],
        }),
    );
    first
}

pub fn handle(call: &Call<'_>, state: &mut Project, rest: &[&str]) -> Result<Response, Response> {
    if let [id, ..] = rest {
        state.applications.get(id).ok_or_else(object_not_found)?;
    }
    match (call.method(), rest) {
        (&Method::POST, []) => {
            let mut body = call.body(CREATE_BODY)?;
            check_name_unused(state, text(&body, "name"), "")?;
            fill(
                &mut body,
                json!({"description": "", "enterprise_project_id": "0", "labels": []}),
            );
            call.stamp(&mut body);
            // The response to a creation has no `component_count`.
            let response = Response::ok(Value::Object(body.clone()));
            state.applications.add(body)?;
            Ok(response)
        }
        (&Method::GET, []) => {
            let applications = state.applications.iter();
            let views = applications.map(|a| view(state, a)).collect();
            page(call.request, "applications", views)
        }
        (&Method::GET, [id]) => {
            let application = state.applications.get(id).ok_or_else(object_not_found)?;
            Ok(Response::ok(view(state, application)))
        }
        (&Method::PUT, [id]) => {
            let body = call.body(UPDATE_BODY)?;
            check_name_unused(state, text(&body, "name"), id)?;
            let application = state
                .applications
                .get_mut(id)
                .ok_or_else(object_not_found)?;
            call.merge_body(application, body);
            let application = application.clone();
            Ok(Response::ok(view(state, &application)))
        }
        (&Method::DELETE, [id]) => {
            if state.components.iter().any(|c| c.application_id() == *id) {
                return Err(has_components());
            }
            state.applications.remove(id);
            state
                .configurations
                .retain(|(application, _), _| application != id);
            Ok(Response::empty(StatusCode::NO_CONTENT))
        }
        (&Method::GET, [id, "configuration"]) => show_configuration(call, state, id),
        (&Method::PUT, [id, "configuration"]) => {
            let body = call.body(CONFIGURATION)?;
            let environment = text(&body, "environment_id").to_owned();
            if state.environments.get(&environment).is_none() {
                return Err(no_environment());
            }
            let configuration = body.get("configuration").cloned().unwrap_or_default();
            // One object, while GET returns a list (docs/apis/servicestage.md,
            // "Quirks").
            let view = configured(id, &environment, &configuration);
            let key = ((*id).to_owned(), environment);
            let is_new = !state.configurations.contains_key(&key);
            if is_new && state.configurations.len() >= MAX_CONFIGURATIONS {
                return Err(invalid("There are too many configurations."));
            }
            state.configurations.insert(key, configuration);
            Ok(Response::ok(view))
        }
        (&Method::DELETE, [id, "configuration"]) => {
            let environment = call.request.parameter("environment_id");
            let environment = environment.ok_or_else(|| invalid("environment_id is missing."))?;
            let key = ((*id).to_owned(), environment.to_owned());
            state.configurations.remove(&key);
            // As observed, even if nothing was configured.
            Ok(Response::empty(StatusCode::NO_CONTENT))
        }
        (&Method::POST, [id, "action"]) => {
            let body = call.body(ACTION)?;
            let action = text(&body, "action");
            if !matches!(action, "start" | "stop" | "restart") {
                return Err(unknown_action());
            }
            let ids: Vec<&str> = member(&body, "parameters")["components"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|component| component["id"].as_str())
                .collect();
            components::act_on_all(call, state, id, &ids, action)?;
            Ok(Response::empty(StatusCode::NO_CONTENT))
        }
        _ => Err(unknown_api()),
    }
}

/// Returns all configurations of the application, or that of `environment_id`.
fn show_configuration(call: &Call<'_>, state: &Project, id: &str) -> Result<Response, Response> {
    let wanted = call.request.parameter("environment_id");
    if wanted.is_some_and(|wanted| state.environments.get(wanted).is_none()) {
        return Err(no_environment());
    }
    let own = state
        .configurations
        .iter()
        .filter(|((application, environment), _)| {
            application == id && wanted.is_none_or(|wanted| wanted == environment)
        });
    let list: Vec<Value> = own
        .map(|((_, environment), configuration)| configured(id, environment, configuration))
        .collect();
    match list.is_empty() {
        true => Err(refusal(
            StatusCode::NOT_FOUND,
            "00100401",
            "The configuration does not exist.",
        )),
        false => Ok(Response::ok(json!({"configuration": list}))),
    }
}

fn configured(application: &str, environment: &str, configuration: &Value) -> Value {
    json!({
        "application_id": application,
        "environment_id": environment,
        "configuration": configuration,
    })
}

fn view(state: &Project, application: &Object) -> Value {
    let id = text(application, "id");
    let components = state.components.iter().filter(|c| c.application_id() == id);
    let mut view = application.clone();
    view.insert("component_count".into(), json!(components.count()));
    Value::Object(view)
}

/// Fails if an application other than `own` has the name.
fn check_name_unused(state: &Project, name: &str, own: &str) -> Result<(), Response> {
    let named = |application: &Object| text(application, "name") == name;
    let mut others = state.applications.iter().filter(|a| text(a, "id") != own);
    match others.any(named) {
        true => Err(bad_value("00100458", "The application name is in use.")),
        false => Ok(()),
    }
}

/// A missing environment is 404 here, as seen by another official client
/// (docs/apis/servicestage.md, "ApplicationService").
fn no_environment() -> Response {
    refusal(
        StatusCode::NOT_FOUND,
        "00100411",
        "The environment does not exist.",
    )
}
