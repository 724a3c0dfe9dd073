//! Config groups, configs and config histories. Source: docs/apis/servicestage.md,
//! "ConfigurationService".

use std::collections::VecDeque;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::body::{Kind as Type, Member, Object, fill, member, optional, required, text};
use super::errors::{invalid, resource_not_found, unknown_api};
use super::store::{Resource, matches, page};
use super::{Call, Project};
use crate::message::Response;

const GROUP: &[Member] = &[
    required("name", Type::Text(64)),
    optional("description", Type::Text(256)),
    optional("enterprise_project_id", Type::Text(64)),
    optional("labels", Type::Labels),
];
const ENCRYPTION: &[Member] = &[required("key_id", Type::Text(64))];
const TYPES: Type = Type::OneOf(&["yaml", "properties"]);
const CREATE_BODY: &[Member] = &[
    required("config_group_id", Type::Text(64)),
    required("name", Type::Text(64)),
    required("content", Type::Text(usize::MAX)),
    required("type", TYPES),
    required("sensitive", Type::Flag),
    optional("description", Type::Text(128)),
    optional("config_encryption", Type::Object(ENCRYPTION)),
];
const UPDATE_BODY: &[Member] = &[
    required("config_group_id", Type::Text(64)),
    optional("name", Type::Text(64)),
    required("content", Type::Text(usize::MAX)),
    required("type", TYPES),
    optional("sensitive", Type::Flag),
    optional("description", Type::Text(128)),
    optional("config_encryption", Type::Object(ENCRYPTION)),
];

/// Maximum number of earlier versions of a config; the sandbox's own limit.
const MAX_HISTORIES: usize = 20;

pub struct Config {
    view: Object,
    /// Number of changes plus one.
    version: u32,
    /// Oldest first.
    histories: VecDeque<Object>,
}

impl Resource for Config {
    fn id(&self) -> &str {
        self.view.id()
    }
}

pub fn handle(call: &Call<'_>, state: &mut Project, rest: &[&str]) -> Result<Response, Response> {
    match rest {
        ["config-groups", rest @ ..] => groups(call, state, rest),
        ["configs", rest @ ..] => configs(call, state, rest),
        _ => Err(unknown_api()),
    }
}

fn groups(call: &Call<'_>, state: &mut Project, rest: &[&str]) -> Result<Response, Response> {
    let groups = &mut state.config_groups;
    match (call.method(), rest) {
        (&Method::POST, []) => {
            let mut body = call.body(GROUP)?;
            fill(
                &mut body,
                json!({"description": "", "enterprise_project_id": "0", "labels": []}),
            );
            call.stamp(&mut body);
            body.remove("update_time");
            // The response to a creation has fewer members than a read.
            let mut short = body.clone();
            short.remove("enterprise_project_id");
            short.remove("labels");
            groups.add(body)?;
            Ok(Response::ok(Value::Object(short)))
        }
        (&Method::GET, []) => {
            let wanted = groups
                .iter()
                .filter(|group| matches(call.request, "name", text(group, "name")));
            page(call.request, "config_groups", wanted.map(object).collect())
        }
        (&Method::GET, [id]) => Ok(Response::ok(object(
            groups.get(id).ok_or_else(resource_not_found)?,
        ))),
        (&Method::DELETE, [id]) => {
            groups.remove(id);
            let handle_application = |config: &Config| text(&config.view, "config_group_id") == *id;
            state.configs.retain(|config| !handle_application(config));
            // As observed, even for a missing group; the documentation says 204.
            Ok(Response::empty(StatusCode::OK))
        }
        _ => Err(unknown_api()),
    }
}

fn configs(call: &Call<'_>, state: &mut Project, rest: &[&str]) -> Result<Response, Response> {
    match (call.method(), rest) {
        (&Method::POST, []) => {
            let mut body = call.body(CREATE_BODY)?;
            in_group(state, &body)?;
            fill(
                &mut body,
                json!({"description": "", "components": [], "version": "v1"}),
            );
            body.remove("config_encryption");
            call.stamp(&mut body);
            let response = Response::ok(Value::Object(body.clone()));
            state.configs.add(Config {
                view: body,
                version: 1,
                histories: VecDeque::new(),
            })?;
            Ok(response)
        }
        (&Method::GET, []) => {
            let group = call.request.parameter("config_group_id");
            // Configs are never bound to a component, because no call does that.
            let bound = call.request.parameter("component_id").is_none();
            let wanted = |config: &&Config| {
                bound
                    && matches(call.request, "name", text(&config.view, "name"))
                    && group.is_none_or(|group| group == text(&config.view, "config_group_id"))
            };
            let configs = state.configs.iter().filter(wanted);
            let views = configs.map(|config| object(&config.view)).collect();
            page(call.request, "configs", views)
        }
        (&Method::GET, [id]) => {
            let config = state.configs.get(id).ok_or_else(resource_not_found)?;
            Ok(Response::ok(object(&config.view)))
        }
        (&Method::PUT, [id]) => {
            state.configs.get(id).ok_or_else(resource_not_found)?;
            let mut body = call.body(UPDATE_BODY)?;
            in_group(state, &body)?;
            body.remove("config_encryption");
            let config = state.configs.get_mut(id).ok_or_else(resource_not_found)?;
            config.save_history();
            config.version = config.version.saturating_add(1);
            body.insert("version".into(), json!(format!("v{}", config.version)));
            call.merge_body(&mut config.view, body);
            Ok(Response::ok(object(&config.view)))
        }
        (&Method::DELETE, [id]) => {
            state.configs.remove(id).ok_or_else(resource_not_found)?;
            Ok(Response::empty(StatusCode::NO_CONTENT))
        }
        (&Method::GET, [id, "histories"]) => {
            let histories = &state
                .configs
                .get(id)
                .ok_or_else(resource_not_found)?
                .histories;
            let newest_first: Vec<&Object> = histories.iter().rev().collect();
            Ok(Response::ok(
                json!({"count": histories.len(), "histories": newest_first}),
            ))
        }
        (&Method::GET, [id, "histories", history]) => {
            let config = state.configs.get(id).ok_or_else(resource_not_found)?;
            let at = config.find(history).ok_or_else(resource_not_found)?;
            Ok(Response::ok(object(&config.histories[at])))
        }
        (&Method::DELETE, [id, "histories", history]) => {
            let config = state.configs.get_mut(id).ok_or_else(resource_not_found)?;
            let at = config.find(history).ok_or_else(resource_not_found)?;
            config.histories.remove(at);
            Ok(Response::empty(StatusCode::NO_CONTENT))
        }
        _ => Err(unknown_api()),
    }
}

impl Config {
    /// Adds the current version to the history. Drops the oldest version if there are
    /// too many.
    fn save_history(&mut self) {
        // The group is called `group_id` here.
        let of = |name: &str| member(&self.view, name);
        let mut past = Object::new();
        fill(
            &mut past,
            json!({
                "config_history_id": Uuid::new_v4().to_string(),
                "config_id": of("id"),
                "content": of("content"),
                "version": of("version"),
                "type": of("type"),
                "create_time": of("update_time"),
                "components": of("components"),
                "creator": of("creator"),
                "group_id": of("config_group_id"),
                "config_name": of("name"),
                "description": of("description"),
                "sensitive": of("sensitive"),
            }),
        );
        if self.histories.len() == MAX_HISTORIES {
            self.histories.pop_front();
        }
        self.histories.push_back(past);
    }

    fn find(&self, history: &str) -> Option<usize> {
        let mut all = self.histories.iter();
        all.position(|past| text(past, "config_history_id") == history)
    }
}

fn in_group(state: &Project, body: &Object) -> Result<(), Response> {
    match state.config_groups.get(text(body, "config_group_id")) {
        Some(_) => Ok(()),
        None => Err(invalid("config_group_id is not that of a config group.")),
    }
}

fn object(view: &Object) -> Value {
    Value::Object(view.clone())
}
