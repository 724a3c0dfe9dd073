//! Huawei Cloud ServiceStage v3 ("cas"): add-ons and their jobs.
//!
//! `servicestage.md` 3.2, 3.5, (a) to (c); bodies as in `fixtures/servicestage/`.
//! No answer here was recorded from the real service: texts are ours.

use std::collections::VecDeque;

use http::{Method, StatusCode};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::plain::{Answer, Ask, spaced};
use super::{ACCESS_KEY, ADDON_ID, ENVIRONMENT_ID, PROJECT_ID, SECRET_KEY, World, keystone, lock};
use crate::auth::sign;

/// Jobs beyond this many are forgotten, the oldest first.
const MAX_JOBS: usize = 4096;
/// Add-ons in the environment.
const MAX_ADDONS: usize = 1000;

/// What a job does, one after the other; a step each.
const TASKS: [&str; 2] = ["InitializeTask", "DeployTask"];

pub(super) struct ServiceStage {
    /// The add-ons of the one environment, [`ENVIRONMENT_ID`].
    addons: Vec<Addon>,
    jobs: VecDeque<Job>,
}

struct Addon {
    id: String,
    name: String,
    cce_id: String,
    cse_id: Option<String>,
    /// Its last job, which its status follows.
    job_id: String,
}

#[derive(Clone)]
struct Job {
    id: String,
    kind: Kind,
    /// Whether its last task fails.
    fails: bool,
    /// None: it was over before the sandbox started.
    started: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Create,
    Action,
    Delete,
}

#[derive(Clone, Copy, PartialEq)]
enum Status {
    Submitted,
    Running,
    Succeeded,
    Failed,
}

impl Status {
    fn text(self) -> &'static str {
        match self {
            Self::Submitted => "SUBMITTED",
            Self::Running => "RUNNING",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
        }
    }
}

impl Job {
    /// How many steps it has had. 0: submitted. n: task n runs.
    fn steps(&self, world: &World) -> usize {
        match self.started {
            None => TASKS.len() + 1,
            Some(_) if !world.settings.play => 0,
            Some(started) => {
                let step = world.settings.step.as_millis().max(1);
                usize::try_from(started.elapsed().as_millis() / step).unwrap_or(usize::MAX)
            }
        }
    }

    fn status(&self, world: &World) -> Status {
        match self.steps(world) {
            0 => Status::Submitted,
            n if n <= TASKS.len() => Status::Running,
            _ if self.fails => Status::Failed,
            _ => Status::Succeeded,
        }
    }

    fn task(&self, index: usize, world: &World) -> Value {
        let steps = self.steps(world);
        let last = index + 1 == TASKS.len();
        let status = match steps.checked_sub(index + 1) {
            None => Status::Submitted,
            Some(0) => Status::Running,
            Some(_) if self.fails && last => Status::Failed,
            Some(_) => Status::Succeeded,
        };
        let begun = self.started.unwrap_or(world.clock.started);
        let step = |n: usize| {
            let moved = u32::try_from(n).unwrap_or(u32::MAX);
            spaced(
                world
                    .clock
                    .wall(begun + world.settings.step.saturating_mul(moved)),
            )
        };
        json!({
            "created_at": step(0),
            "update_at": step(steps.min(index + 2)),
            "messages": if status == Status::Failed { "the sandbox failed it" } else { "" },
            // The same in each answer.
            "task_id": format!("TASK{}-{index}", self.id.trim_start_matches("JOB")),
            "task_name": TASKS[index],
            "task_status": status.text(),
            "task_type": "invokation",
            "task_index": index,
        })
    }
}

impl ServiceStage {
    pub fn new() -> Self {
        let job = Job {
            id: "JOB7e9317bb-a63a-46f4-a026-244de2f6eac3".to_owned(),
            kind: Kind::Action,
            fails: false,
            started: None,
        };
        let addon = Addon {
            id: ADDON_ID.to_owned(),
            name: "sermantInjector".to_owned(),
            cce_id: "5e0a1c7b-3d94-11ee-8f26-0255ac100b0a".to_owned(),
            cse_id: Some("a7c2e4f6-1b3d-4a5c-8e9f-0d2b4c6e8a1f".to_owned()),
            job_id: job.id.clone(),
        };
        Self {
            addons: vec![addon],
            jobs: VecDeque::from([job]),
        }
    }

    fn job(&self, id: &str) -> Option<&Job> {
        self.jobs.iter().find(|job| job.id == id)
    }

    /// Starts a job and gives its id.
    fn submit(&mut self, kind: Kind, fails: bool) -> String {
        let id = format!("JOB{}", Uuid::new_v4());
        if self.jobs.len() == MAX_JOBS {
            self.jobs.pop_front();
        }
        self.jobs.push_back(Job {
            id: id.clone(),
            kind,
            fails,
            started: Some(Instant::now()),
        });
        id
    }

    /// Add-ons whose deletion is over are gone.
    fn sweep(&mut self, world: &World) {
        let Self { addons, jobs } = self;
        addons.retain(|addon| {
            let job = jobs.iter().find(|job| job.id == addon.job_id);
            !job.is_some_and(|job| {
                job.kind == Kind::Delete && job.status(world) == Status::Succeeded
            })
        });
    }

    fn show(&self, addon: &Addon, world: &World) -> Value {
        let status = match self
            .job(&addon.job_id)
            .map(|job| (job.kind, job.status(world)))
        {
            None | Some((_, Status::Succeeded)) => "SUCCEEDED",
            Some((_, Status::Failed)) => "FAILED",
            Some((Kind::Create, _)) => "INITIALIZING",
            Some((Kind::Action, _)) => "UPGRADING",
            Some((Kind::Delete, _)) => "DELETING",
        };
        json!({
            "id": addon.id,
            "name": addon.name,
            "version": "1.3.1.0",
            "cce_id": addon.cce_id,
            "cse_id": addon.cse_id,
            "environment_id": ENVIRONMENT_ID,
            "job_id": addon.job_id,
            "status": status,
        })
    }

    fn addon(&mut self, id: &str) -> Result<&mut Addon, Answer> {
        // 401, and not 404, for an object that is not there: (a), seen by another
        // official client.
        self.addons
            .iter_mut()
            .find(|addon| addon.id == id)
            .ok_or_else(|| {
                refusal(
                    StatusCode::UNAUTHORIZED,
                    "SVCSTG.00100401",
                    "The object does not exist.",
                )
            })
    }
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
    let ["v3", project, "cas", ref rest @ ..] = segments[..] else {
        return Err(no_api());
    };
    let own = match keystone::token(world, ask) {
        Some(token) => token.project.map_or("", |project| project.id),
        None => {
            verify(world, ask)?;
            PROJECT_ID
        }
    };
    if own != project {
        return Err(gateway(
            StatusCode::FORBIDDEN,
            "APIGW.0302",
            "The project is not yours.",
        ));
    }
    let mut state = lock(&world.servicestage);
    state.sweep(world);
    let state = &mut *state;
    match (&ask.method, rest) {
        (&Method::GET, ["jobs", id]) => job(state, world, ask, id),
        (_, ["environments", environment, ..]) if *environment != ENVIRONMENT_ID => Err(refusal(
            StatusCode::NOT_FOUND,
            "SVCSTG.00100411",
            "The environment does not exist.",
        )),
        (&Method::GET, ["environments", _, "addons-metadata"]) => Ok(Answer::ok(
            json!({"addons": [{"name": "sermantInjector", "latest_version": "1.3.1.0"}]}),
        )),
        (&Method::GET, ["environments", _, "addons"]) => {
            let addons: Vec<Value> = state
                .addons
                .iter()
                .map(|addon| state.show(addon, world))
                .collect();
            Ok(Answer::ok(json!({"addons": addons})))
        }
        (&Method::POST, ["environments", _, "addons"]) => create(state, ask),
        (&Method::GET, ["environments", _, "addons", id]) => {
            state.addon(id)?;
            let found = state.addons.iter().find(|addon| addon.id == *id);
            Ok(Answer::ok(
                found.map_or(Value::Null, |addon| state.show(addon, world)),
            ))
        }
        (&Method::POST, ["environments", _, "addons", id, "action"]) => act(state, ask, id),
        (&Method::DELETE, ["environments", _, "addons", id]) => {
            state.addon(id)?;
            let job_id = state.submit(Kind::Delete, false);
            state.addon(id)?.job_id = job_id.clone();
            // 200 with a job, not 204.
            Ok(Answer::ok(json!({"job_id": job_id})))
        }
        _ => Err(no_api()),
    }
}

fn create(state: &mut ServiceStage, ask: &Ask) -> Result<Answer, Answer> {
    let body = ask
        .object()
        .ok_or_else(|| invalid("The body is not a JSON object."))?;
    let text = |name: &str| {
        body.get(name)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    };
    let name = text("name").ok_or_else(|| invalid("name is missing."))?;
    let cce_id = text("cce_id").ok_or_else(|| invalid("cce_id is missing."))?;
    let cse_id = text("cse_id");
    if name == "sermantInjector" && cse_id.is_none() {
        return Err(invalid("cse_id is missing."));
    }
    if state.addons.len() >= MAX_ADDONS {
        return Err(invalid("There are too many add-ons."));
    }
    let job_id = state.submit(Kind::Create, name.contains("fail"));
    let id = Uuid::new_v4().to_string();
    state.addons.push(Addon {
        id: id.clone(),
        name: name.to_owned(),
        cce_id: cce_id.to_owned(),
        cse_id: cse_id.map(str::to_owned),
        job_id: job_id.clone(),
    });
    Ok(Answer::ok(json!({"job_id": job_id, "id": id})))
}

/// The seed's operation (4-servicestage-addon-action.txt).
fn act(state: &mut ServiceStage, ask: &Ask, id: &str) -> Result<Answer, Answer> {
    let body = ask
        .object()
        .ok_or_else(|| invalid("The body is not a JSON object."))?;
    match body.get("action").and_then(Value::as_str) {
        None => return Err(invalid("action is missing.")),
        Some("restart" | "redeploy") => {}
        Some(_) => {
            return Err(refusal(
                StatusCode::BAD_REQUEST,
                "SVCSTG.00100418",
                "The action is not defined.",
            ));
        }
    }
    let fails = state.addon(id)?.name.contains("fail");
    let job_id = state.submit(Kind::Action, fails);
    state.addon(id)?.job_id = job_id.clone();
    Ok(Answer::ok(json!({"job_id": job_id})))
}

/// `limit`, `offset` and `desc` page and order the tasks.
fn job(state: &ServiceStage, world: &World, ask: &Ask, id: &str) -> Result<Answer, Answer> {
    if id.is_empty() {
        return Err(refusal(
            StatusCode::BAD_REQUEST,
            "SVCSTG.00100414",
            "The job ID is empty.",
        ));
    }
    let number = |name: &str, default: usize| match ask.parameter(name).map(str::parse) {
        None => Ok(default),
        Some(Ok(number)) => Ok(number),
        Some(Err(_)) => Err(invalid(&format!("{name} is not a number."))),
    };
    let (limit, offset) = (number("limit", 20)?, number("offset", 0)?);
    let desc = match ask.parameter("desc") {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(invalid("desc is neither true nor false.")),
    };
    let job = state.job(id).ok_or_else(|| {
        refusal(
            StatusCode::BAD_REQUEST,
            "SVCSTG.00100429",
            "The job does not exist.",
        )
    })?;
    let mut tasks: Vec<Value> = (0..TASKS.len())
        .map(|index| job.task(index, world))
        .collect();
    if desc {
        tasks.reverse();
    }
    let tasks: Vec<Value> = tasks.into_iter().skip(offset).take(limit).collect();
    Ok(Answer::ok(json!({
        "task_count": TASKS.len(),
        "job": {
            "execution_status": job.status(world).text(),
            "job_id": job.id,
            "job_type": match job.kind {
                Kind::Create => "PROVISION",
                Kind::Action => "DAILY_OPERATION",
                Kind::Delete => "DEPROVISION",
            },
            "rollback_enabled": false,
        },
        "tasks": tasks,
    })))
}

/// Whether the request is signed with the sandbox's keys; IAM takes that too.
pub(super) fn signed(world: &World, ask: &Ask) -> bool {
    verify(world, ask).is_ok()
}

fn verify(world: &World, ask: &Ask) -> Result<(), Answer> {
    let received = sign::Received {
        verb: &ask.method,
        target: &ask.target,
        headers: &ask.headers,
        body: &ask.body,
    };
    let secret = SecretString::from(SECRET_KEY);
    let known = sign::access_key(&ask.headers) == Some(ACCESS_KEY);
    match sign::verify(received, &secret, Some(world.clock.now())) {
        Ok(()) if known => Ok(()),
        // The fixtures' words; the gateway does not say what exactly was wrong.
        _ => Err(gateway(
            StatusCode::UNAUTHORIZED,
            "APIGW.0301",
            "Incorrect IAM authentication information: verify aksk signature fail",
        )),
    }
}

fn invalid(message: &str) -> Answer {
    refusal(StatusCode::BAD_REQUEST, "SVCSTG.00100400", message)
}

/// ServiceStage's own errors: `error_message`.
fn refusal(status: StatusCode, code: &str, message: &str) -> Answer {
    Answer::json(
        status,
        json!({"error_code": code, "error_message": message}),
    )
}

/// Those of the API gateway in front of it: `error_msg`, and a request id.
fn gateway(status: StatusCode, code: &str, message: &str) -> Answer {
    Answer::json(status, json!({"error_code": code, "error_msg": message}))
}

fn no_api() -> Answer {
    gateway(
        StatusCode::NOT_FOUND,
        "APIGW.0101",
        "The API does not exist or has not been published in the environment.",
    )
}
