//! Release plans, the old release management. Source: docs/apis/servicestage.md,
//! "ReleasePlanService".

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::body::{Kind as Is, Member, Object, fill, may, member, must, text};
use super::errors::{absent, bad, busy, invalid, no_api};
use super::jobs::{Job, Status};
use super::store::{Thing, page};
use super::{Call, Project, components};
use crate::World;
use crate::message::Answer;

const COMPONENTS: Is = Is::List(&[
    must("seq", Is::Integer),
    must("component_id", Is::Text(64)),
    must("name", Is::Text(64)),
]);
const STRATEGY: Is = Is::OneOf(&["continue", "stop"]);
const NEW: &[Member] = &[
    must("name", Is::Text(64)),
    must("action", Is::OneOf(&["clone", "upgrade", "create"])),
    may("swimlane_id", Is::Text(64)),
    may("desc", Is::Text(128)),
    may("fail_strategy", STRATEGY),
    must("components", COMPONENTS),
];
const CHANGED: &[Member] = &[
    must("name", Is::Text(64)),
    may("desc", Is::Text(128)),
    may("fail_strategy", STRATEGY),
    must("components", COMPONENTS),
];

/// A plan, whose execution redeploys its components, all at once.
pub struct Plan {
    view: Object,
    /// Time of the execution in epoch milliseconds; 0 before it.
    executed: i64,
    /// By component id.
    jobs: Vec<(String, Job)>,
    rollback_jobs: Vec<(String, Job)>,
    is_aborted: bool,
}

impl Thing for Plan {
    fn id(&self) -> &str {
        self.view.id()
    }
}

impl Plan {
    /// Only SUCCESS is documented; the other values are the sandbox's own.
    fn status(&self, world: &World) -> &'static str {
        let of = |jobs: &[(String, Job)]| -> Vec<Status> {
            jobs.iter().map(|(_, job)| job.status(world)).collect()
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

    fn view(&self, world: &World) -> Value {
        let mut view = self.view.clone();
        view.insert("status".into(), json!(self.status(world)));
        view.insert("execute_time".into(), json!(self.executed));
        Value::Object(view)
    }

    fn components(&self) -> impl Iterator<Item = &Value> {
        let list = member(&self.view, "components").as_array();
        list.into_iter().flatten()
    }

    fn deploy_info(&self, world: &World) -> Value {
        let components: Vec<Value> = (self.components())
            .map(|component| {
                let id = component["component_id"].as_str().unwrap_or_default();
                let of = |jobs: &[(String, Job)]| {
                    let found = jobs.iter().find(|(component, _)| component == id);
                    found.map(|(_, job)| job.clone())
                };
                let (job, rollback) = (of(&self.jobs), of(&self.rollback_jobs));
                let status = |job: &Option<Job>| job.as_ref().map(|job| job.status(world));
                let word = |job| status(job).map_or("", Status::text);
                let name = |job: &Option<Job>| job.as_ref().map_or("", Job::id).to_owned();
                let begun = |job: &Option<Job>| job.as_ref().map_or(0, |job| job.begun(world));
                let ended = |job: &Option<Job>| job.as_ref().and_then(|job| job.ended(world));
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
                    "start_time": begun(&job),
                    "end_time": ended(&job).unwrap_or_default(),
                    "fail_message": fault(&job),
                    "rollback_job_id": name(&rollback),
                    "rollback_job_status": word(&rollback),
                    "rollback_start_time": begun(&rollback),
                    "rollback_end_time": ended(&rollback).unwrap_or_default(),
                    "rollback_fail_message": fault(&rollback),
                })
            })
            .collect();
        json!({"id": self.id(), "components": components})
    }
}

pub fn answer(call: &Call<'_>, state: &mut Project, rest: &[&str]) -> Result<Answer, Answer> {
    let world = call.world;
    if let [id, ..] = rest {
        state.plans.get(id).ok_or_else(absent)?;
    }
    match (call.method(), rest) {
        (&Method::POST, []) => {
            let mut body = call.body(NEW)?;
            all_there(state, &body)?;
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
            let plan = Plan {
                view: body,
                executed: 0,
                jobs: Vec::new(),
                rollback_jobs: Vec::new(),
                is_aborted: false,
            };
            let answer = Answer::ok(plan.view(world));
            state.plans.add(plan)?;
            Ok(answer)
        }
        (&Method::GET, []) => {
            let views = (state.plans.iter())
                .map(|plan| {
                    let mut view = plan.view(world);
                    if let Some(view) = view.as_object_mut() {
                        for name in ["swimlane_id", "desc", "fail_strategy", "components"] {
                            view.remove(name);
                        }
                    }
                    view
                })
                .collect();
            page(call.ask, "release_plans", views)
        }
        (&Method::GET, [id]) => {
            let plan = state.plans.get(id).ok_or_else(absent)?;
            Ok(Answer::ok(plan.view(world)))
        }
        (&Method::PUT, [id]) => {
            let body = call.body(CHANGED)?;
            all_there(state, &body)?;
            let plan = state.plans.get_mut(id).ok_or_else(absent)?;
            plan.view.extend(body);
            plan.view.insert("modify_time".into(), json!(call.now()));
            Ok(Answer::ok(plan.view(world)))
        }
        (&Method::DELETE, [id]) => {
            state.plans.remove(id);
            Ok(Answer::empty(StatusCode::OK))
        }
        (&Method::GET, [id, "deploy-info"]) => {
            let plan = state.plans.get(id).ok_or_else(absent)?;
            Ok(Answer::ok(plan.deploy_info(world)))
        }
        (&Method::POST, [id, "execute"]) => execute(call, state, id),
        (&Method::POST, [id, "rollback"]) => roll_back(call, state, id),
        (&Method::POST, [id, "abort"]) => {
            let plan = state.plans.get_mut(id).ok_or_else(absent)?;
            if plan.status(world) != "RUNNING" {
                return Err(invalid("The plan is not being executed."));
            }
            plan.is_aborted = true;
            Ok(Answer::empty(StatusCode::OK))
        }
        _ => Err(no_api()),
    }
}

fn execute(call: &Call<'_>, state: &mut Project, id: &str) -> Result<Answer, Answer> {
    let plan = state.plans.get(id).ok_or_else(absent)?;
    if matches!(plan.status(call.world), "RUNNING" | "ROLLBACKING") {
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
    let plan = state.plans.get_mut(id).ok_or_else(absent)?;
    plan.executed = call.now();
    plan.jobs = jobs;
    plan.rollback_jobs = Vec::new();
    plan.is_aborted = false;
    Ok(Answer::empty(StatusCode::OK))
}

fn roll_back(call: &Call<'_>, state: &mut Project, id: &str) -> Result<Answer, Answer> {
    let plan = state.plans.get(id).ok_or_else(absent)?;
    if plan.jobs.is_empty() {
        return Err(bad("00100433", "The release does not exist."));
    }
    if matches!(plan.status(call.world), "RUNNING" | "ROLLBACKING") {
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
    state.plans.get_mut(id).ok_or_else(absent)?.rollback_jobs = jobs;
    Ok(Answer::empty(StatusCode::OK))
}

/// Checks that the components of a plan's body exist.
fn all_there(state: &Project, body: &Object) -> Result<(), Answer> {
    let components = member(body, "components").as_array();
    let mut ids = (components.into_iter().flatten())
        .map(|component| component["component_id"].as_str().unwrap_or_default());
    match ids.all(|id| state.components.get(id).is_some()) {
        true => Ok(()),
        false => Err(bad("00100404", "The component does not exist.")),
    }
}
