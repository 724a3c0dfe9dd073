//! Directory settings of virtual machines. Source: docs/apis/servicestage.md,
//! "DirectorySettingsService".

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::body::{Kind as Is, Member, Object, fill, may, must};
use super::errors::{absent, no_api};
use super::{Call, Project};
use crate::message::Answer;

const DIRECTORY: &[Member] = &[
    must("path", Is::Text(256)),
    must("user", Is::Text(64)),
    must("group", Is::Text(64)),
    must("mode", Is::Text(16)),
];
const SETTINGS: &[Member] = &[
    may("name", Is::Text(64)),
    must("run_as_user", Is::Text(64)),
    must("app_home", Is::Object(DIRECTORY)),
    must("log_home", Is::Object(DIRECTORY)),
];

pub fn answer(call: &Call<'_>, state: &mut Project, rest: &[&str]) -> Result<Answer, Answer> {
    let shelf = &mut state.directories;
    let show = |settings: &Object| Ok(Answer::ok(Value::Object(settings.clone())));
    match (call.method(), rest) {
        (&Method::POST, []) => {
            let mut body = call.body(SETTINGS)?;
            fill(&mut body, json!({"name": ""}));
            call.stamp(&mut body);
            let answer = show(&body);
            shelf.add(body)?;
            answer
        }
        (&Method::GET, []) => {
            let all: Vec<&Object> = shelf.iter().collect();
            Ok(Answer::ok(
                json!({"vmapp_configs": all, "total": all.len()}),
            ))
        }
        (&Method::GET, [id]) => show(shelf.get(id).ok_or_else(absent)?),
        (&Method::PUT, [id]) => {
            let settings = shelf.get_mut(id).ok_or_else(absent)?;
            call.change(settings, call.body(SETTINGS)?);
            show(settings)
        }
        (&Method::DELETE, [id]) => {
            shelf.remove(id).ok_or_else(absent)?;
            Ok(Answer::empty(StatusCode::NO_CONTENT))
        }
        _ => Err(no_api()),
    }
}
