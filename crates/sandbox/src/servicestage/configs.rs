//! Config groups, configs and config histories. Source: docs/apis/servicestage.md,
//! "ConfigurationService".

use std::collections::VecDeque;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::body::{Kind as Is, Member, Object, fill, may, member, must, text};
use super::errors::{absent, invalid, no_api};
use super::store::{Thing, matches, page};
use super::{Call, Project};
use crate::message::Answer;

const GROUP: &[Member] = &[
    must("name", Is::Text(64)),
    may("description", Is::Text(256)),
    may("enterprise_project_id", Is::Text(64)),
    may("labels", Is::Labels),
];
const ENCRYPTION: &[Member] = &[must("key_id", Is::Text(64))];
const TYPES: Is = Is::OneOf(&["yaml", "properties"]);
const NEW: &[Member] = &[
    must("config_group_id", Is::Text(64)),
    must("name", Is::Text(64)),
    must("content", Is::Text(usize::MAX)),
    must("type", TYPES),
    must("sensitive", Is::Flag),
    may("description", Is::Text(128)),
    may("config_encryption", Is::Object(ENCRYPTION)),
];
const CHANGED: &[Member] = &[
    must("config_group_id", Is::Text(64)),
    may("name", Is::Text(64)),
    must("content", Is::Text(usize::MAX)),
    must("type", TYPES),
    may("sensitive", Is::Flag),
    may("description", Is::Text(128)),
    may("config_encryption", Is::Object(ENCRYPTION)),
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

impl Thing for Config {
    fn id(&self) -> &str {
        self.view.id()
    }
}

pub fn answer(call: &Call<'_>, state: &mut Project, rest: &[&str]) -> Result<Answer, Answer> {
    match rest {
        ["config-groups", rest @ ..] => groups(call, state, rest),
        ["configs", rest @ ..] => configs(call, state, rest),
        _ => Err(no_api()),
    }
}

fn groups(call: &Call<'_>, state: &mut Project, rest: &[&str]) -> Result<Answer, Answer> {
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
            Ok(Answer::ok(Value::Object(short)))
        }
        (&Method::GET, []) => {
            let wanted = groups
                .iter()
                .filter(|group| matches(call.ask, "name", text(group, "name")));
            page(call.ask, "config_groups", wanted.map(object).collect())
        }
        (&Method::GET, [id]) => Ok(Answer::ok(object(groups.get(id).ok_or_else(absent)?))),
        (&Method::DELETE, [id]) => {
            groups.remove(id);
            let within = |config: &Config| text(&config.view, "config_group_id") == *id;
            state.configs.retain(|config| !within(config));
            // As observed, even for a missing group; the documentation says 204.
            Ok(Answer::empty(StatusCode::OK))
        }
        _ => Err(no_api()),
    }
}

fn configs(call: &Call<'_>, state: &mut Project, rest: &[&str]) -> Result<Answer, Answer> {
    match (call.method(), rest) {
        (&Method::POST, []) => {
            let mut body = call.body(NEW)?;
            in_group(state, &body)?;
            fill(
                &mut body,
                json!({"description": "", "components": [], "version": "v1"}),
            );
            body.remove("config_encryption");
            call.stamp(&mut body);
            let answer = Answer::ok(Value::Object(body.clone()));
            state.configs.add(Config {
                view: body,
                version: 1,
                histories: VecDeque::new(),
            })?;
            Ok(answer)
        }
        (&Method::GET, []) => {
            let group = call.ask.parameter("config_group_id");
            // Configs are never bound to a component, because no call does that.
            let bound = call.ask.parameter("component_id").is_none();
            let wanted = |config: &&Config| {
                bound
                    && matches(call.ask, "name", text(&config.view, "name"))
                    && group.is_none_or(|group| group == text(&config.view, "config_group_id"))
            };
            let configs = state.configs.iter().filter(wanted);
            let views = configs.map(|config| object(&config.view)).collect();
            page(call.ask, "configs", views)
        }
        (&Method::GET, [id]) => {
            let config = state.configs.get(id).ok_or_else(absent)?;
            Ok(Answer::ok(object(&config.view)))
        }
        (&Method::PUT, [id]) => {
            state.configs.get(id).ok_or_else(absent)?;
            let mut body = call.body(CHANGED)?;
            in_group(state, &body)?;
            body.remove("config_encryption");
            let config = state.configs.get_mut(id).ok_or_else(absent)?;
            config.remember();
            config.version = config.version.saturating_add(1);
            body.insert("version".into(), json!(format!("v{}", config.version)));
            call.change(&mut config.view, body);
            Ok(Answer::ok(object(&config.view)))
        }
        (&Method::DELETE, [id]) => {
            state.configs.remove(id).ok_or_else(absent)?;
            Ok(Answer::empty(StatusCode::NO_CONTENT))
        }
        (&Method::GET, [id, "histories"]) => {
            let histories = &state.configs.get(id).ok_or_else(absent)?.histories;
            let newest_first: Vec<&Object> = histories.iter().rev().collect();
            Ok(Answer::ok(
                json!({"count": histories.len(), "histories": newest_first}),
            ))
        }
        (&Method::GET, [id, "histories", history]) => {
            let config = state.configs.get(id).ok_or_else(absent)?;
            let at = config.find(history).ok_or_else(absent)?;
            Ok(Answer::ok(object(&config.histories[at])))
        }
        (&Method::DELETE, [id, "histories", history]) => {
            let config = state.configs.get_mut(id).ok_or_else(absent)?;
            let at = config.find(history).ok_or_else(absent)?;
            config.histories.remove(at);
            Ok(Answer::empty(StatusCode::NO_CONTENT))
        }
        _ => Err(no_api()),
    }
}

impl Config {
    /// Adds the current version to the history. Drops the oldest version if there are
    /// too many.
    fn remember(&mut self) {
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

fn in_group(state: &Project, body: &Object) -> Result<(), Answer> {
    match state.config_groups.get(text(body, "config_group_id")) {
        Some(_) => Ok(()),
        None => Err(invalid("config_group_id is not that of a config group.")),
    }
}

fn object(view: &Object) -> Value {
    Value::Object(view.clone())
}
