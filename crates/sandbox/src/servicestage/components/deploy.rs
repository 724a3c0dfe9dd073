//! Calls that create, change and delete components.

use serde_json::json;
use uuid::Uuid;

use super::super::body::{Object, fill, is_component_name_char, member, text};
use super::super::errors::{bad_value, busy, invalid, object_not_found, unknown_action};
use super::super::jobs::{Job, Jobs, Kind};
use super::super::store::Resource;
use super::super::{Call, Project};
use super::lifecycle::{Component, RunningJob};
use super::{check_parents, spec};
use crate::message::Response;

/// `POST /applications/{application_id}/components`, imports included.
pub fn create(
    call: &Call<'_>,
    state: &mut Project,
    application: &str,
) -> Result<Response, Response> {
    let mut body = call.body(spec::SPEC)?;
    spec::check(&body, true)?;
    let environment = text(&body, "environment_id").to_owned();
    fill(
        &mut body,
        json!({"description": "", "labels": [], "refer_resources": [], "replica": 1}),
    );
    make(call, state, [application, &environment], body)
}

/// `POST /components`: the spec is that of the template.
pub fn create_from_template(call: &Call<'_>, state: &mut Project) -> Result<Response, Response> {
    let body = call.body(spec::FROM_TEMPLATE)?;
    let [application, environment] =
        ["application_id", "environment_id"].map(|name| text(&body, name).to_owned());
    let inputs = member(&body, "input_values");
    let name = match inputs["name"].as_str() {
        Some(name) => name.to_owned(),
        None => format!("template-{}", Uuid::new_v4()),
    };
    if name.len() > 64 || !name.chars().all(is_component_name_char) {
        return Err(invalid("input_values.name must be a component's name."));
    }
    let mut spec = Object::new();
    fill(&mut spec, spec::of_template(&name, inputs));
    make(call, state, [&application, &environment], spec)
}

fn make(
    call: &Call<'_>,
    state: &mut Project,
    [application, environment]: [&str; 2],
    spec: Object,
) -> Result<Response, Response> {
    check_parents(state, application, environment)?;
    state.components.check_capacity()?;
    let name = text(&spec, "name");
    let taken = |c: &Component| c.application_id() == application && text(&c.spec, "name") == name;
    if state.components.iter().any(taken) {
        return Err(invalid("The component name is in use."));
    }
    let kind = match member(&spec, "source")["kind"].as_str() {
        Some("code") => Kind::Build,
        _ => Kind::Provision,
    };
    let job = state.jobs.submit(kind, name.contains("fail"));
    let id = Uuid::new_v4().to_string();
    let response = Response::ok(json!({"component_id": id, "job_id": job.id()}));
    let check_parents = [application, environment];
    let component = Component::new(id, check_parents, call.user, call.now(), spec, job);
    state.components.add(component)?;
    Ok(response)
}

/// `PUT .../{component_id}` and `PUT .../redeployment`: deploys the body.
pub fn update(call: &Call<'_>, state: &mut Project, id: &str) -> Result<Response, Response> {
    let body = call.body(spec::SPEC)?;
    spec::check(&body, false)?;
    let job = redeploy(state, id, body, call.now())?;
    Ok(Response::ok(json!({"job_id": job.id()})))
}

/// Deploys a component again, with `body` merged into its spec.
pub fn redeploy(
    state: &mut Project,
    id: &str,
    mut body: Object,
    now: i64,
) -> Result<Job, Response> {
    let Project {
        components, jobs, ..
    } = state;
    let component = idle_component(components.get_mut(id))?;
    if text(&body, "name") != text(&component.spec, "name") {
        return Err(invalid(
            "name must be the component's: it cannot be changed.",
        ));
    }
    body.remove("environment_id");
    component.spec.extend(body);
    let is_gray = member(&component.spec, "deploy_strategy")["type"] == "GrayRelease";
    let (deploy_type, then) = match is_gray {
        true => ("gray_release", "GRAYING"),
        false => ("update", "RUNNING"),
    };
    let job = start(jobs, component, "UPGRADING", then, now);
    component.record_deployment(deploy_type, &job);
    Ok(job)
}

/// Deploys the version before the last deployment.
pub fn roll_back(state: &mut Project, id: &str, now: i64) -> Result<Job, Response> {
    let Project {
        components, jobs, ..
    } = state;
    let component = idle_component(components.get_mut(id))?;
    let before = component.spec_before().cloned();
    let before = before.ok_or_else(|| bad_value("00100436", "The snapshot does not exist."))?;
    Ok(deploy_again(jobs, component, before, now))
}

/// `DELETE .../{component_id}`: asynchronous; aborts a running job.
pub fn delete(call: &Call<'_>, state: &mut Project, id: &str) -> Result<Response, Response> {
    let Project {
        components, jobs, ..
    } = state;
    let component = components.get_mut(id).ok_or_else(object_not_found)?;
    component.begin(RunningJob {
        job: jobs.submit(Kind::Removal, false),
        meanwhile: "DELETING",
        then: None,
    });
    component.set_update_time(call.now());
    // As observed; the published response is empty.
    Ok(Response::ok(json!({"component_id": id})))
}

/// `POST .../{component_id}/action`.
pub fn act(call: &Call<'_>, state: &mut Project, id: &str) -> Result<Response, Response> {
    let body = call.body(spec::ACTION)?;
    let parameters = member(&body, "parameters");
    let Project {
        components, jobs, ..
    } = state;
    let component = components.get_mut(id).ok_or_else(object_not_found)?;
    let now = call.now();
    let result = |result: &str| Ok(Response::ok(json!({"result": result})));
    let job = match text(&body, "action") {
        // Actions that start no job.
        "sync_workload" | "sync_import" => return result("succeeded"),
        "check_gray_release" => {
            let is_gray = component.state() == "GRAYING" && !component.is_busy();
            return result(if is_gray { "succeeded" } else { "failed" });
        }
        "modify_gray_rule" => {
            check_gray_release(component)?;
            return result("succeeded");
        }
        "scale" => {
            let replica = parameters["replica"].as_i64().filter(|n| *n >= 0);
            let hosts = parameters["hosts"].as_array().map(Vec::len);
            let replica = replica
                .or_else(|| hosts.and_then(|count| i64::try_from(count).ok()))
                .ok_or_else(|| invalid("parameters.replica is missing."))?;
            let component = idle_component(Some(component))?;
            component.spec.insert("replica".into(), json!(replica));
            start(jobs, component, "UPGRADING", "RUNNING", now)
        }
        "rollback" => {
            let version = parameters["version"]
                .as_str()
                .filter(|text| !text.is_empty());
            let version = version.ok_or_else(|| invalid("parameters.version is missing."))?;
            let component = idle_component(Some(component))?;
            let spec = component.spec_of(version).cloned();
            let spec = spec.ok_or_else(|| bad_value("00100433", "The release does not exist."))?;
            deploy_again(jobs, component, spec, now)
        }
        "rollback_current" => {
            check_gray_release(component)?;
            let before = component.spec_before().cloned();
            let before =
                before.ok_or_else(|| bad_value("00100436", "The snapshot does not exist."))?;
            deploy_again(jobs, component, before, now)
        }
        "continue_deploy" => {
            check_gray_release(component)?;
            let job = start(jobs, component, "UPGRADING", "RUNNING", now);
            component.record_continuation("continue_deploy", &job);
            job
        }
        action => {
            let (meanwhile, then) = states_of_action(action).ok_or_else(unknown_action)?;
            start(jobs, idle_component(Some(component))?, meanwhile, then, now)
        }
    };
    Ok(Response::ok(json!({"job_id": job.id()})))
}

/// `POST /applications/{application_id}/action`: all components or none.
pub fn act_on_all(
    call: &Call<'_>,
    state: &mut Project,
    application: &str,
    ids: &[&str],
    action: &str,
) -> Result<(), Response> {
    let (meanwhile, then) = states_of_action(action).ok_or_else(unknown_action)?;
    let Project {
        components, jobs, ..
    } = state;
    for id in ids {
        let component = components.get_mut(id);
        idle_component(component.filter(|component| component.application_id() == application))?;
    }
    for component in components.iter_mut().filter(|c| ids.contains(&c.id())) {
        start(jobs, component, meanwhile, then, call.now());
    }
    Ok(())
}

/// Returns the states during and after an action without a deployment.
fn states_of_action(action: &str) -> Option<(&'static str, &'static str)> {
    match action {
        "start" => Some(("STARTING", "RUNNING")),
        "stop" => Some(("STOPPING", "STOPPED")),
        "restart" => Some(("RESTARTING", "RUNNING")),
        _ => None,
    }
}

fn start(
    jobs: &mut Jobs,
    component: &mut Component,
    meanwhile: &'static str,
    then: &'static str,
    now: i64,
) -> Job {
    let job = jobs.submit(Kind::Operation, component.fails());
    component.begin(RunningJob {
        job: job.clone(),
        meanwhile,
        then: Some(then),
    });
    component.set_update_time(now);
    job
}

fn deploy_again(jobs: &mut Jobs, component: &mut Component, spec: Object, now: i64) -> Job {
    component.spec = spec;
    let job = start(jobs, component, "UPGRADING", "RUNNING", now);
    component.record_deployment("rollback", &job);
    job
}

/// Fails if the component does not exist or has a running job.
fn idle_component(component: Option<&mut Component>) -> Result<&mut Component, Response> {
    let component = component.ok_or_else(object_not_found)?;
    match component.is_busy() {
        true => Err(busy()),
        false => Ok(component),
    }
}

/// Fails if no gray release is waiting.
fn check_gray_release(component: &Component) -> Result<(), Response> {
    match (component.is_busy(), component.state()) {
        (true, _) => Err(busy()),
        (false, "GRAYING") => Ok(()),
        _ => Err(invalid("The component is not in a gray release.")),
    }
}
