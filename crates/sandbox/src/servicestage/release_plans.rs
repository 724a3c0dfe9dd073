//! Release plans, the old release management. Source: docs/apis/servicestage.md,
//! "ReleasePlanService".

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::body::{Kind as Type, Member, Object, fill, member, optional, required, text};
use super::errors::{bad_value, busy, invalid, resource_not_found, unknown_api};
use super::jobs::{Job, Status};
use super::store::{Resource, page};
use super::{Call, Project, components};
use crate::Upstreams;
use crate::message::Response;

const COMPONENTS: Type = Type::List(&[
    required("seq", Type::Integer),
    required("component_id", Type::Text(64)),
    required("name", Type::Text(64)),
]);
const STRATEGY: Type = Type::OneOf(&["continue", "stop"]);
const CREATE_BODY: &[Member] = &[
    required("name", Type::Text(64)),
    required("action", Type::OneOf(&["clone", "upgrade", "create"])),
    optional("swimlane_id", Type::Text(64)),
    optional("desc", Type::Text(128)),
    optional("fail_strategy", STRATEGY),
    required("components", COMPONENTS),
];
const UPDATE_BODY: &[Member] = &[
    required("name", Type::Text(64)),
    optional("desc", Type::Text(128)),
    optional("fail_strategy", STRATEGY),
    required("components", COMPONENTS),
];

/// A plan, whose execution redeploys its components, all at once.
pub struct ReleasePlan {
    view: Object,
    /// Time of the execution in epoch milliseconds; 0 before it.
    executed: i64,
    /// By component id.
    jobs: Vec<(String, Job)>,
    rollback_jobs: Vec<(String, Job)>,
    is_aborted: bool,
}

impl Resource for ReleasePlan {
    fn id(&self) -> &str {
        self.view.id()
    }
}

impl ReleasePlan {
    /// Only SUCCESS is documented; the other values are the sandbox's own.
    fn status(&self, upstreams: &Upstreams) -> &'static str {
        let of = |jobs: &[(String, Job)]| -> Vec<Status> {
            jobs.iter().map(|(_, job)| job.status(upstreams)).collect()
        };
        let (jobs, rollback) = (of(&self.jobs), of(&self.rollback_jobs));
        let all_over = |all: &[Status]| all.iter().all(|status| status.is_over());
        match () {
            () if !rollback.is_empty() && all_over(&rollback) => "ROLLBACKED",
            () if !rollback.is_empty() => "ROLLBACKING",
            () if self.is_aborted => "ABORTED",
            () if jobs.is_empty() => "READY",
            () if !all_over(&jobs) => "RUNNING",
            () if jobs.contains(&Status::Failed) => "FAILED",
            () => "SUCCESS",
        }
    }

    fn view(&self, upstreams: &Upstreams) -> Value {
        let mut view = self.view.clone();
        view.insert("status".into(), json!(self.status(upstreams)));
        view.insert("execute_time".into(), json!(self.executed));
        Value::Object(view)
    }

    fn components(&self) -> impl Iterator<Item = &Value> {
        let list = member(&self.view, "components").as_array();
        list.into_iter().flatten()
    }

    fn deploy_info(&self, upstreams: &Upstreams) -> Value {
        let components: Vec<Value> = (self.components())
            .map(|component| {
                let id = component["component_id"].as_str().unwrap_or_default();
                let of = |jobs: &[(String, Job)]| {
                    let found = jobs.iter().find(|(component, _)| component == id);
                    found.map(|(_, job)| job.clone())
                };
                let (job, rollback) = (of(&self.jobs), of(&self.rollback_jobs));
                let status = |job: &Option<Job>| job.as_ref().map(|job| job.status(upstreams));
                let word = |job| status(job).map_or("", Status::text);
                let name = |job: &Option<Job>| job.as_ref().map_or("", Job::id).to_owned();
                let start_time =
                    |job: &Option<Job>| job.as_ref().map_or(0, |job| job.start_time(upstreams));
                let end_time =
                    |job: &Option<Job>| job.as_ref().and_then(|job| job.end_time(upstreams));
                let fault = |job| match status(job) {
                    Some(Status::Failed) => "the sandbox failed it",
                    _ => "",
                };
                json!({
                    "id": id,
                    "name": component["name"],
                    // Text here, an integer in the plan.
                    "seq": component["seq"].to_string(),
                    "version": component["version"].as_str().unwrap_or_default(),
                    "status": word(&job),
                    "job_id": name(&job),
                    "job_status": word(&job),
                    "start_time": start_time(&job),
                    "end_time": end_time(&job).unwrap_or_default(),
                    "fail_message": fault(&job),
                    "rollback_job_id": name(&rollback),
                    "rollback_job_status": word(&rollback),
                    "rollback_start_time": start_time(&rollback),
                    "rollback_end_time": end_time(&rollback).unwrap_or_default(),
                    "rollback_fail_message": fault(&rollback),
                })
            })
            .collect();
        json!({"id": self.id(), "components": components})
    }
}

pub fn handle(call: &Call<'_>, state: &mut Project, rest: &[&str]) -> Result<Response, Response> {
    let upstreams = call.upstreams;
    if let [id, ..] = rest {
        state.plans.get(id).ok_or_else(resource_not_found)?;
    }
    match (call.method(), rest) {
        (&Method::POST, []) => {
            let mut body = call.body(CREATE_BODY)?;
            check_components_exist(state, &body)?;
            fill(
                &mut body,
                json!({"swimlane_id": "", "desc": "", "fail_strategy": "stop"}),
            );
            call.stamp(&mut body);
            body.remove("project_id");
            // The time of a change has another name here.
            if let Some(time) = body.remove("update_time") {
                body.insert("modify_time".into(), time);
            }
            let plan = ReleasePlan {
                view: body,
                executed: 0,
                jobs: Vec::new(),
                rollback_jobs: Vec::new(),
                is_aborted: false,
            };
            let response = Response::ok(plan.view(upstreams));
            state.plans.add(plan)?;
            Ok(response)
        }
        (&Method::GET, []) => {
            let views = (state.plans.iter())
                .map(|plan| {
                    let mut view = plan.view(upstreams);
                    if let Some(view) = view.as_object_mut() {
                        for name in ["swimlane_id", "desc", "fail_strategy", "components"] {
                            view.remove(name);
                        }
                    }
                    view
                })
                .collect();
            page(call.request, "release_plans", views)
        }
        (&Method::GET, [id]) => {
            let plan = state.plans.get(id).ok_or_else(resource_not_found)?;
            Ok(Response::ok(plan.view(upstreams)))
        }
        (&Method::PUT, [id]) => {
            let body = call.body(UPDATE_BODY)?;
            check_components_exist(state, &body)?;
            let plan = state.plans.get_mut(id).ok_or_else(resource_not_found)?;
            plan.view.extend(body);
            plan.view.insert("modify_time".into(), json!(call.now()));
            Ok(Response::ok(plan.view(upstreams)))
        }
        (&Method::DELETE, [id]) => {
            state.plans.remove(id);
            Ok(Response::empty(StatusCode::OK))
        }
        (&Method::GET, [id, "deploy-info"]) => {
            let plan = state.plans.get(id).ok_or_else(resource_not_found)?;
            Ok(Response::ok(plan.deploy_info(upstreams)))
        }
        (&Method::POST, [id, "execute"]) => execute(call, state, id),
        (&Method::POST, [id, "rollback"]) => roll_back(call, state, id),
        (&Method::POST, [id, "abort"]) => {
            let plan = state.plans.get_mut(id).ok_or_else(resource_not_found)?;
            if plan.status(upstreams) != "RUNNING" {
                return Err(invalid("The plan is not being executed."));
            }
            plan.is_aborted = true;
            Ok(Response::empty(StatusCode::OK))
        }
        _ => Err(unknown_api()),
    }
}

fn execute(call: &Call<'_>, state: &mut Project, id: &str) -> Result<Response, Response> {
    let plan = state.plans.get(id).ok_or_else(resource_not_found)?;
    if matches!(plan.status(call.upstreams), "RUNNING" | "ROLLBACKING") {
        return Err(busy());
    }
    let wanted: Vec<Object> = plan
        .components()
        .filter_map(|c| c.as_object().cloned())
        .collect();
    let mut jobs = Vec::new();
    // A busy or deleted component cannot be deployed and has no job.
    for mut body in wanted {
        let component = text(&body, "component_id").to_owned();
        body.remove("component_id");
        body.remove("seq");
        if let Ok(job) = components::redeploy(state, &component, body, call.now()) {
            jobs.push((component, job));
        }
    }
    if jobs.is_empty() {
        return Err(busy());
    }
    let plan = state.plans.get_mut(id).ok_or_else(resource_not_found)?;
    plan.executed = call.now();
    plan.jobs = jobs;
    plan.rollback_jobs = Vec::new();
    plan.is_aborted = false;
    Ok(Response::empty(StatusCode::OK))
}

fn roll_back(call: &Call<'_>, state: &mut Project, id: &str) -> Result<Response, Response> {
    let plan = state.plans.get(id).ok_or_else(resource_not_found)?;
    if plan.jobs.is_empty() {
        return Err(bad_value("00100433", "The release does not exist."));
    }
    if matches!(plan.status(call.upstreams), "RUNNING" | "ROLLBACKING") {
        return Err(busy());
    }
    let deployed: Vec<String> = plan.jobs.iter().map(|(id, _)| id.clone()).collect();
    let mut jobs = Vec::new();
    for component in deployed {
        if let Ok(job) = components::roll_back(state, &component, call.now()) {
            jobs.push((component, job));
        }
    }
    if jobs.is_empty() {
        return Err(busy());
    }
    state
        .plans
        .get_mut(id)
        .ok_or_else(resource_not_found)?
        .rollback_jobs = jobs;
    Ok(Response::empty(StatusCode::OK))
}

/// Checks that the components of a plan's body exist.
fn check_components_exist(state: &Project, body: &Object) -> Result<(), Response> {
    let components = member(body, "components").as_array();
    let mut ids = (components.into_iter().flatten())
        .map(|component| component["component_id"].as_str().unwrap_or_default());
    match ids.all(|id| state.components.get(id).is_some()) {
        true => Ok(()),
        false => Err(bad_value("00100404", "The component does not exist.")),
    }
}
