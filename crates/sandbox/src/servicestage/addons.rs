//! Add-ons of an environment. Source: docs/apis/servicestage.md, "AddonService";
//! example of the action: `tests/seeds/4-servicestage-addon-action.json`.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::body::{Kind as Type, Member, optional, required, text};
use super::errors::{invalid, object_not_found, refusal, unknown_action, unknown_api};
use super::jobs::{Job, Kind, Status};
use super::store::Resource;
use super::{Call, Project};
use crate::Upstreams;
use crate::message::Response;

const ADDON: &[Member] = &[
    required("name", Type::Text(64)),
    required("cce_id", Type::Text(64)),
    optional("cse_id", Type::Text(64)),
];
const ACTION: &[Member] = &[required("action", Type::Text(64))];

/// The only documented name.
const INJECTOR_NAME: &str = "sermantInjector";

pub struct Addon {
    id: String,
    environment_id: String,
    name: String,
    cce_id: String,
    cse_id: Option<String>,
    /// Last job, which determines the status.
    job: Job,
}

impl Resource for Addon {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Addon {
    /// Builds the add-on that exists at the start.
    pub fn preloaded(id: &str, environment_id: &str) -> Self {
        Self {
            id: id.to_owned(),
            environment_id: environment_id.to_owned(),
            name: INJECTOR_NAME.to_owned(),
            cce_id: "5e0a1c7b-3d94-11ee-8f26-0255ac100b0a".to_owned(),
            cse_id: Some("a7c2e4f6-1b3d-4a5c-8e9f-0d2b4c6e8a1f".to_owned()),
            job: Job::finished("JOB7e9317bb-a63a-46f4-a026-244de2f6eac3", Kind::Operation),
        }
    }

    pub fn job(&self) -> &Job {
        &self.job
    }

    pub fn is_deleted(&self, upstreams: &Upstreams) -> bool {
        self.job.kind() == Kind::Removal && self.job.status(upstreams) == Status::Succeeded
    }

    pub fn is_in(&self, environment_id: &str) -> bool {
        self.environment_id == environment_id
    }

    fn fails(&self) -> bool {
        self.name.contains("fail")
    }

    fn view(&self, upstreams: &Upstreams) -> Value {
        let status = match (self.job.status(upstreams), self.job.kind()) {
            (Status::Succeeded, _) => "SUCCEEDED",
            (Status::Failed, _) => "FAILED",
            (_, Kind::Provision | Kind::Build) => "INITIALIZING",
            (_, Kind::Operation) => "UPGRADING",
            (_, Kind::Removal) => "DELETING",
        };
        json!({
            "id": self.id,
            "name": self.name,
            "version": "1.3.1.0",
            "cce_id": self.cce_id,
            "cse_id": self.cse_id,
            "environment_id": self.environment_id,
            "job_id": self.job.id(),
            "status": status,
        })
    }
}

pub fn handle(
    call: &Call<'_>,
    state: &mut Project,
    environment: &str,
    rest: &[&str],
) -> Result<Response, Response> {
    if state.environments.get(environment).is_none() {
        // As in the fixture `ExecuteAddonAction.json`.
        return Err(refusal(
            StatusCode::NOT_FOUND,
            "00100411",
            "The environment does not exist.",
        ));
    }
    let Project { addons, jobs, .. } = state;
    let addon = |id: &&str| {
        let found = addons.get(id).filter(|addon| addon.is_in(environment));
        found.ok_or_else(object_not_found)
    };
    match (call.method(), rest) {
        (&Method::GET, ["addons-metadata"]) => Ok(Response::ok(
            json!({"addons": [{"name": INJECTOR_NAME, "latest_version": "1.3.1.0"}]}),
        )),
        (&Method::GET, ["addons"]) => {
            let here = addons.iter().filter(|addon| addon.is_in(environment));
            let views: Vec<Value> = here.map(|addon| addon.view(call.upstreams)).collect();
            Ok(Response::ok(json!({"addons": views})))
        }
        (&Method::POST, ["addons"]) => {
            let body = call.body(ADDON)?;
            let (name, cse_id) = (text(&body, "name"), text(&body, "cse_id"));
            if name == INJECTOR_NAME && cse_id.is_empty() {
                return Err(invalid("cse_id is missing."));
            }
            addons.check_capacity()?;
            let job = jobs.submit(Kind::Provision, name.contains("fail"));
            let addon = Addon {
                id: Uuid::new_v4().to_string(),
                environment_id: environment.to_owned(),
                name: name.to_owned(),
                cce_id: text(&body, "cce_id").to_owned(),
                cse_id: (!cse_id.is_empty()).then(|| cse_id.to_owned()),
                job,
            };
            let response = Response::ok(json!({"job_id": addon.job.id(), "id": addon.id}));
            addons.add(addon)?;
            Ok(response)
        }
        (&Method::GET, ["addons", id]) => Ok(Response::ok(addon(id)?.view(call.upstreams))),
        (&Method::POST, ["addons", id, "action"]) => {
            let body = call.body(ACTION)?;
            if !matches!(text(&body, "action"), "restart" | "redeploy") {
                return Err(unknown_action());
            }
            let fails = addon(id)?.fails();
            start(state, id, Kind::Operation, fails)
        }
        (&Method::DELETE, ["addons", id]) => {
            addon(id)?;
            // 200 with a job, not 204.
            start(state, id, Kind::Removal, false)
        }
        _ => Err(unknown_api()),
    }
}

/// Starts a job in place of the last one, even if that has not ended.
fn start(state: &mut Project, id: &str, kind: Kind, fails: bool) -> Result<Response, Response> {
    let job = state.jobs.submit(kind, fails);
    let response = Response::ok(json!({"job_id": job.id()}));
    state.addons.get_mut(id).ok_or_else(object_not_found)?.job = job;
    Ok(response)
}
