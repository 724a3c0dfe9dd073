//! Huawei Cloud ServiceStage v3 ("cas"), with the release management beside it
//! ("pipeline").
//!
//! `servicestage.md`, section 3 for the operations, (a) to (c) for errors, jobs
//! and signatures; bodies as in `fixtures/servicestage/`. No answer here was
//! recorded from the real service: texts are ours, and so is what moves when.
//!
//! A request goes through `access`, then to its noun's file. Nouns without a life
//! of their own are JSON objects on a [`Shelf`]; components and add-ons follow
//! their last job (`jobs`).

mod access;
mod addons;
mod applications;
mod body;
mod components;
mod configs;
mod directories;
mod environments;
mod jobs;
mod lanes;
mod pipelines;
mod plans;
mod refusal;
mod shelf;
mod stacks;

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use self::body::{Member, Object};
use self::refusal::no_api;
use self::shelf::Shelf;
use super::plain::{Answer, Ask};
use super::{ADDON_ID, ENVIRONMENT_ID, PROJECT_ID, World, lock};

pub(super) use access::signed;

/// The service, a project at a time: no project sees another's things.
pub(super) struct ServiceStage {
    /// By project id. As many as [`access`] lets through: Keystone's.
    projects: BTreeMap<String, Project>,
}

/// What one project has.
struct Project {
    environments: Shelf<Object>,
    addons: Shelf<addons::Addon>,
    applications: Shelf<Object>,
    /// By application and environment.
    configurations: BTreeMap<(String, String), Value>,
    components: Shelf<components::Component>,
    jobs: jobs::Jobs,
    /// Those that the project made; the system's own are in `stacks.rs`.
    stacks: Shelf<Object>,
    config_groups: Shelf<Object>,
    configs: Shelf<configs::Config>,
    directories: Shelf<Object>,
    plans: Shelf<plans::Plan>,
    pipelines: Shelf<pipelines::Pipeline>,
    lane_groups: Shelf<Object>,
    lanes: Shelf<Object>,
}

impl Default for Project {
    fn default() -> Self {
        // Most are limits of ours, so that the sandbox stays small. 300 lane
        // groups a project is the manual's (3.11).
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
    /// With the environment and the add-on that the lines to paste name; with
    /// `preload` an application and a running component as well.
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

/// A request whose caller is known.
struct Call<'a> {
    world: &'a World,
    ask: &'a Ask,
    /// The caller's project, which is the path's.
    project: &'a str,
    /// The caller's name.
    user: &'static str,
}

impl Call<'_> {
    fn method(&self) -> &Method {
        &self.ask.method
    }

    /// The known members of the body, checked.
    fn body(&self, members: &[Member]) -> Result<Object, Answer> {
        body::read(&self.ask.body, members)
    }

    /// Now, in epoch milliseconds: what most times of the API are.
    fn now(&self) -> i64 {
        millis(self.world.clock.now())
    }

    /// Makes a body a thing: an id, whose it is, and since when.
    fn stamp(&self, body: &mut Object) {
        let now = self.now();
        body.insert("id".into(), json!(Uuid::new_v4().to_string()));
        body.insert("project_id".into(), json!(self.project));
        body.insert("creator".into(), json!(self.user));
        body.insert("create_time".into(), json!(now));
        body.insert("update_time".into(), json!(now));
    }

    /// Puts a body's members over a thing's.
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
    // The API gateway in front repeats its request id in the body: (a).
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
        ("cas", ["runtimestacks" | "innerimages", ..]) => stacks::answer(&call, state, rest),
        ("cas", ["config-groups" | "configs", ..]) => configs::answer(&call, state, rest),
        ("cas", ["vmapp-configs", rest @ ..]) => directories::answer(&call, state, rest),
        ("cas", ["release-plans", rest @ ..]) => plans::answer(&call, state, rest),
        ("cas", ["swimlane-group" | "swimlane", ..]) => lanes::answer(&call, state, rest),
        _ => Err(no_api()),
    }
}

impl Project {
    /// Lets happen what the time has brought: whoever's job is over has its state.
    fn settle(&mut self, world: &World) {
        self.jobs.at(world.clock.instant());
        self.addons.retain(|addon| !addon.is_gone(world));
        self.components.retain(|component| component.settle(world));
    }
}
