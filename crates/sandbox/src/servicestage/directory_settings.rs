//! Directory settings of virtual machines. Source: docs/apis/servicestage.md,
//! "DirectorySettingsService".

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::body::{Kind as Type, Member, Object, fill, optional, required};
use super::errors::{resource_not_found, unknown_api};
use super::{Call, Project};
use crate::message::Response;

const DIRECTORY: &[Member] = &[
    required("path", Type::Text(256)),
    required("user", Type::Text(64)),
    required("group", Type::Text(64)),
    required("mode", Type::Text(16)),
];
const SETTINGS: &[Member] = &[
    optional("name", Type::Text(64)),
    required("run_as_user", Type::Text(64)),
    required("app_home", Type::Object(DIRECTORY)),
    required("log_home", Type::Object(DIRECTORY)),
];

pub fn handle(call: &Call<'_>, state: &mut Project, rest: &[&str]) -> Result<Response, Response> {
    let shelf = &mut state.directories;
    let show = |settings: &Object| Ok(Response::ok(Value::Object(settings.clone())));
    match (call.method(), rest) {
        (&Method::POST, []) => {
            let mut body = call.body(SETTINGS)?;
            fill(&mut body, json!({"name": ""}));
            call.stamp(&mut body);
            let response = show(&body);
            shelf.add(body)?;
            response
        }
        (&Method::GET, []) => {
            let all: Vec<&Object> = shelf.iter().collect();
            Ok(Response::ok(
                json!({"vmapp_configs": all, "total": all.len()}),
            ))
        }
        (&Method::GET, [id]) => show(shelf.get(id).ok_or_else(resource_not_found)?),
        (&Method::PUT, [id]) => {
            let settings = shelf.get_mut(id).ok_or_else(resource_not_found)?;
            call.merge_body(settings, call.body(SETTINGS)?);
            show(settings)
        }
        (&Method::DELETE, [id]) => {
            shelf.remove(id).ok_or_else(resource_not_found)?;
            Ok(Response::empty(StatusCode::NO_CONTENT))
        }
        _ => Err(unknown_api()),
    }
}
