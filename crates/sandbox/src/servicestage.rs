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
use self::errors::no_api;
use self::store::Shelf;
use super::message::{Answer, Ask};
use super::{ADDON_ID, ENVIRONMENT_ID, PROJECT_ID, World, lock};

pub(super) use access::signed;

/// State of the service, by project. No project can access another one's resources.
pub(super) struct ServiceStage {
    /// By project id. [`access`] only lets Keystone's projects through.
    projects: BTreeMap<String, Project>,
}

/// Resources of one project.
struct Project {
    environments: Shelf<Object>,
    addons: Shelf<addons::Addon>,
    applications: Shelf<Object>,
    /// By application and environment.
    configurations: BTreeMap<(String, String), Value>,
    components: Shelf<components::Component>,
    jobs: jobs::Jobs,
    /// The project's own runtime stacks; those of the system are constants.
    stacks: Shelf<Object>,
    config_groups: Shelf<Object>,
    configs: Shelf<configs::Config>,
    directories: Shelf<Object>,
    plans: Shelf<release_plans::Plan>,
    pipelines: Shelf<pipelines::Pipeline>,
    lane_groups: Shelf<Object>,
    lanes: Shelf<Object>,
}

impl Default for Project {
    fn default() -> Self {
        // The capacities are the sandbox's own, to bound its memory, except for 300
        // lane groups a project (docs/apis/servicestage.md, "LaneGroupService and
        // LaneService").
        Self {
            environments: Shelf::new("environments", 1000),
            addons: Shelf::new("add-ons", 1000),
            applications: Shelf::new("applications", 1000),
            configurations: BTreeMap::new(),
            components: Shelf::new("components", 1000),
            jobs: jobs::Jobs::default(),
            stacks: Shelf::new("runtime stacks", 200),
            config_groups: Shelf::new("config groups", 200),
            configs: Shelf::new("configs", 500),
            directories: Shelf::new("directory settings", 200),
            plans: Shelf::new("release plans", 200),
            pipelines: Shelf::new("pipelines", 200),
            lane_groups: Shelf::new("lane groups", 300),
            lanes: Shelf::new("lanes", 1000),
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
            .preload(environments::first(ENVIRONMENT_ID, PROJECT_ID, now));
        let addon = addons::Addon::first(ADDON_ID, ENVIRONMENT_ID);
        project.jobs.keep(addon.job().clone());
        project.addons.preload(addon);
        if preload {
            project
                .applications
                .preload(applications::first(PROJECT_ID, now));
            let component = components::Component::first(now);
            component
                .jobs()
                .for_each(|job| project.jobs.keep(job.clone()));
            project.components.preload(component);
        }
        Self {
            projects: BTreeMap::from([(PROJECT_ID.to_owned(), project)]),
        }
    }
}

/// An authenticated request.
struct Call<'a> {
    world: &'a World,
    ask: &'a Ask,
    /// Project of the user and of the path.
    project: &'a str,
    /// Name of the user.
    user: &'static str,
}

impl Call<'_> {
    fn method(&self) -> &Method {
        &self.ask.method
    }

    /// Parses the body and keeps the known members.
    fn body(&self, members: &[Member]) -> Result<Object, Answer> {
        body::read(&self.ask.body, members)
    }

    /// Returns the current time in epoch milliseconds, the API's most common form.
    fn now(&self) -> i64 {
        millis(self.world.clock.now())
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
    fn change(&self, thing: &mut Object, body: Object) {
        thing.extend(body);
        thing.insert("update_time".into(), json!(self.now()));
    }
}

fn millis(at: SystemTime) -> i64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn answer(world: &World, ask: &Ask) -> Answer {
    let request_id = Uuid::new_v4().simple().to_string();
    let mut answer = route(world, ask).unwrap_or_else(|refused| refused);
    // The API gateway in front repeats its request id in the body
    // (docs/apis/servicestage.md, "Body shapes").
    if let Some(body) = answer
        .body
        .as_mut()
        .filter(|body| body.get("error_msg").is_some())
    {
        body["request_id"] = json!(request_id);
    }
    answer
        .with("x-request-id", request_id)
        .with("content-type", "application/json;charset=UTF-8")
}

fn route(world: &World, ask: &Ask) -> Result<Answer, Answer> {
    let segments = ask.segments();
    let ["v3", project, area, ref rest @ ..] = segments[..] else {
        return Err(no_api());
    };
    let user = access::caller(world, ask, project)?;
    let call = Call {
        world,
        ask,
        project,
        user,
    };
    let mut state = lock(&world.servicestage);
    let state = state.projects.entry(project.to_owned()).or_default();
    state.settle(world);
    match (area, rest) {
        ("pipeline", ["pipelines", rest @ ..]) => pipelines::answer(&call, state, rest),
        ("cas", ["jobs", id]) => jobs::answer(&call, state, id),
        (
            "cas",
            [
                "environments",
                environment,
                "addons" | "addons-metadata",
                ..,
            ],
        ) => addons::answer(&call, state, environment, &rest[2..]),
        ("cas", ["environments", rest @ ..]) => environments::answer(&call, state, rest),
        ("cas", ["applications", _, "components", ..] | ["components", ..]) => {
            components::answer(&call, state, rest)
        }
        ("cas", ["applications", rest @ ..]) => applications::answer(&call, state, rest),
        ("cas", ["runtimestacks" | "innerimages", ..]) => {
            runtime_stacks::answer(&call, state, rest)
        }
        ("cas", ["config-groups" | "configs", ..]) => configs::answer(&call, state, rest),
        ("cas", ["vmapp-configs", rest @ ..]) => directory_settings::answer(&call, state, rest),
        ("cas", ["release-plans", rest @ ..]) => release_plans::answer(&call, state, rest),
        ("cas", ["swimlane-group" | "swimlane", ..]) => lanes::answer(&call, state, rest),
        _ => Err(no_api()),
    }
}

impl Project {
    /// Applies the results of all jobs that have ended by now.
    fn settle(&mut self, world: &World) {
        self.jobs.at(world.clock.instant());
        self.addons.retain(|addon| !addon.is_gone(world));
        self.components.retain(|component| component.settle(world));
    }
}
