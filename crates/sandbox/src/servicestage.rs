//! Huawei Cloud ServiceStage v3 ("cas") and its release management ("pipeline").
//!
//! Operations, errors, jobs and signatures are those of `docs/apis/servicestage.md`;
//! bodies are as in `tests/fixtures/servicestage/`. Nothing was recorded from the real
//! service: error texts and timing are the sandbox's own.
//!
//! A request passes `access`, then the module of its resource. Resources without a
//! lifecycle are JSON objects in a [`Store`]; the state of components and add-ons
//! follows their last job (`jobs`).

mod access;
mod addons;
mod applications;
mod body;
mod components;
mod configs;
mod directory_settings;
mod environments;
mod errors;
mod jobs;
mod lanes;
mod pipelines;
mod release_plans;
mod runtime_stacks;
mod store;

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use self::body::{Member, Object};
use self::errors::unknown_api;
use self::store::Store;
use super::message::{Request, Response};
use super::{ADDON_ID, ENVIRONMENT_ID, PROJECT_ID, Upstreams, lock};

pub(super) use access::signed;

/// State of the service, by project. No project can access another one's resources.
pub(super) struct ServiceStage {
    /// By project id. [`access`] only lets Keystone's projects through.
    projects: BTreeMap<String, Project>,
}

/// Resources of one project.
struct Project {
    environments: Store<Object>,
    addons: Store<addons::Addon>,
    applications: Store<Object>,
    /// By application and environment.
    configurations: BTreeMap<(String, String), Value>,
    components: Store<components::Component>,
    jobs: jobs::Jobs,
    /// The project's own runtime stacks; those of the system are constants.
    stacks: Store<Object>,
    config_groups: Store<Object>,
    configs: Store<configs::Config>,
    directories: Store<Object>,
    plans: Store<release_plans::ReleasePlan>,
    pipelines: Store<pipelines::Pipeline>,
    lane_groups: Store<Object>,
    lanes: Store<Object>,
}

impl Default for Project {
    fn default() -> Self {
        // The capacities are the sandbox's own, to bound its memory, except for 300
        // lane groups a project (docs/apis/servicestage.md, "LaneGroupService and
        // LaneService").
        Self {
            environments: Store::new("environments", 1000),
            addons: Store::new("add-ons", 1000),
            applications: Store::new("applications", 1000),
            configurations: BTreeMap::new(),
            components: Store::new("components", 1000),
            jobs: jobs::Jobs::default(),
            stacks: Store::new("runtime stacks", 200),
            config_groups: Store::new("config groups", 200),
            configs: Store::new("configs", 500),
            directories: Store::new("directory settings", 200),
            plans: Store::new("release plans", 200),
            pipelines: Store::new("pipelines", 200),
            lane_groups: Store::new("lane groups", 300),
            lanes: Store::new("lanes", 1000),
        }
    }
}

impl ServiceStage {
    /// Creates the environment and the add-on that the printed example commands use;
    /// with `preload` also an application and a running component.
    pub fn new(preload: bool, now: SystemTime) -> Self {
        let mut project = Project::default();
        let now = millis(now);
        project
            .environments
            .preload(environments::preloaded(ENVIRONMENT_ID, PROJECT_ID, now));
        let addon = addons::Addon::preloaded(ADDON_ID, ENVIRONMENT_ID);
        project.jobs.add(addon.job().clone());
        project.addons.preload(addon);
        if preload {
            project
                .applications
                .preload(applications::preloaded(PROJECT_ID, now));
            let component = components::Component::preloaded(now);
            component
                .jobs()
                .for_each(|job| project.jobs.add(job.clone()));
            project.components.preload(component);
        }
        Self {
            projects: BTreeMap::from([(PROJECT_ID.to_owned(), project)]),
        }
    }
}

/// An authenticated request.
struct Call<'a> {
    upstreams: &'a Upstreams,
    request: &'a Request,
    /// Project of the user and of the path.
    project: &'a str,
    /// Name of the user.
    user: &'static str,
}

impl Call<'_> {
    fn method(&self) -> &Method {
        &self.request.method
    }

    /// Parses the body and keeps the known members.
    fn body(&self, members: &[Member]) -> Result<Object, Response> {
        body::read(&self.request.body, members)
    }

    /// Returns the current time in epoch milliseconds, the API's most common form.
    fn now(&self) -> i64 {
        millis(self.upstreams.clock.now())
    }

    /// Adds id, project, creator and times to a new resource.
    fn stamp(&self, body: &mut Object) {
        let now = self.now();
        body.insert("id".into(), json!(Uuid::new_v4().to_string()));
        body.insert("project_id".into(), json!(self.project));
        body.insert("creator".into(), json!(self.user));
        body.insert("create_time".into(), json!(now));
        body.insert("update_time".into(), json!(now));
    }

    /// Merges a body into a resource.
    fn merge_body(&self, resource: &mut Object, body: Object) {
        resource.extend(body);
        resource.insert("update_time".into(), json!(self.now()));
    }
}

fn millis(at: SystemTime) -> i64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn handle(upstreams: &Upstreams, request: &Request) -> Response {
    let request_id = Uuid::new_v4().simple().to_string();
    let mut response = route(upstreams, request).unwrap_or_else(|unauthorized| unauthorized);
    // The API gateway in front repeats its request id in the body
    // (docs/apis/servicestage.md, "Body shapes").
    if let Some(body) = response
        .body
        .as_mut()
        .filter(|body| body.get("error_msg").is_some())
    {
        body["request_id"] = json!(request_id);
    }
    response
        .with_header("x-request-id", request_id)
        .with_header("content-type", "application/json;charset=UTF-8")
}

fn route(upstreams: &Upstreams, request: &Request) -> Result<Response, Response> {
    let segments = request.segments();
    let ["v3", project, area, ref rest @ ..] = segments[..] else {
        return Err(unknown_api());
    };
    let user = access::authorize(upstreams, request, project)?;
    let call = Call {
        upstreams,
        request,
        project,
        user,
    };
    let mut state = lock(&upstreams.servicestage);
    let state = state.projects.entry(project.to_owned()).or_default();
    state.apply_finished_jobs(upstreams);
    match (area, rest) {
        ("pipeline", ["pipelines", rest @ ..]) => pipelines::handle(&call, state, rest),
        ("cas", ["jobs", id]) => jobs::handle(&call, state, id),
        (
            "cas",
            [
                "environments",
                environment,
                "addons" | "addons-metadata",
                ..,
            ],
        ) => addons::handle(&call, state, environment, &rest[2..]),
        ("cas", ["environments", rest @ ..]) => environments::handle(&call, state, rest),
        ("cas", ["applications", _, "components", ..] | ["components", ..]) => {
            components::handle(&call, state, rest)
        }
        ("cas", ["applications", rest @ ..]) => applications::handle(&call, state, rest),
        ("cas", ["runtimestacks" | "innerimages", ..]) => {
            runtime_stacks::handle(&call, state, rest)
        }
        ("cas", ["config-groups" | "configs", ..]) => configs::handle(&call, state, rest),
        ("cas", ["vmapp-configs", rest @ ..]) => directory_settings::handle(&call, state, rest),
        ("cas", ["release-plans", rest @ ..]) => release_plans::handle(&call, state, rest),
        ("cas", ["swimlane-group" | "swimlane", ..]) => lanes::handle(&call, state, rest),
        _ => Err(unknown_api()),
    }
}

impl Project {
    /// Applies the results of all jobs that have ended by now.
    fn apply_finished_jobs(&mut self, upstreams: &Upstreams) {
        self.jobs.at(upstreams.clock.instant());
        self.addons.retain(|addon| !addon.is_deleted(upstreams));
        self.components
            .retain(|component| component.apply_finished_jobs(upstreams));
    }
}
