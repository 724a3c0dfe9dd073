//! Jobs, which progress one task at a time. Source: docs/apis/servicestage.md,
//! "JobService" and "Jobs".

use std::collections::VecDeque;

use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::errors::{bad_value, invalid, unknown_api};
use super::{Call, Project, millis};
use crate::Upstreams;
use crate::message::{Response, space_separated_seconds};

/// Maximum number of jobs; beyond it the oldest can no longer be read. Their resources
/// are not affected, because they hold a copy.
const MAX_JOBS: usize = 4096;

/// Jobs that clients can read.
pub struct Jobs {
    kept: VecDeque<Job>,
    /// Arrival time of the current request, at which new jobs start.
    now: Instant,
}

/// A job: one step in SUBMITTED, then one step for each task.
#[derive(Clone)]
pub struct Job {
    id: String,
    kind: Kind,
    /// Whether the last task fails.
    fails: bool,
    /// `None` for a job that ended before the sandbox started.
    started: Option<Instant>,
}

/// Type of a job.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    /// Creates a resource.
    Provision,
    /// Creates a resource from source code.
    Build,
    /// Changes a resource.
    Operation,
    /// Deletes a resource.
    Removal,
}

impl Kind {
    fn tasks(self) -> &'static [&'static str] {
        match self {
            Self::Provision | Self::Operation => &["InitializeTask", "DeployTask"],
            Self::Build => &["InitializeTask", "BuildTask", "DeployTask"],
            Self::Removal => &["InitializeTask", "UndeployTask"],
        }
    }

    /// Returns `job_type` (docs/apis/servicestage.md, "JobService").
    fn text(self) -> &'static str {
        match self {
            Self::Provision | Self::Build => "PROVISION",
            Self::Operation => "DAILY_OPERATION",
            Self::Removal => "DEPROVISION",
        }
    }
}

/// Status of a job or a task; the subset of docs/apis/servicestage.md, "Jobs" that
/// occurs here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Status {
    Submitted,
    Running,
    Succeeded,
    Failed,
}

impl Status {
    pub fn text(self) -> &'static str {
        match self {
            Self::Submitted => "SUBMITTED",
            Self::Running => "RUNNING",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
        }
    }

    pub fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// Returns the number of steps since `started`; zero if nothing progresses by itself.
pub fn steps(upstreams: &Upstreams, started: Instant) -> usize {
    if !upstreams.settings.play {
        return 0;
    }
    let step = upstreams.settings.step.as_millis().max(1);
    let passed = upstreams.clock.instant().saturating_duration_since(started);
    usize::try_from(passed.as_millis() / step).unwrap_or(usize::MAX)
}

impl Job {
    fn new(kind: Kind, fails: bool, now: Instant) -> Self {
        Self {
            id: format!("JOB{}", Uuid::new_v4()),
            kind,
            fails,
            started: Some(now),
        }
    }

    /// Builds a successful job that ended before the sandbox started.
    pub fn finished(id: &str, kind: Kind) -> Self {
        Self {
            id: id.to_owned(),
            kind,
            fails: false,
            started: None,
        }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the number of elapsed steps: 0 is SUBMITTED, n means that task n runs.
    fn steps(&self, upstreams: &Upstreams) -> usize {
        match self.started {
            None => usize::MAX,
            Some(started) => steps(upstreams, started),
        }
    }

    pub fn status(&self, upstreams: &Upstreams) -> Status {
        match self.steps(upstreams) {
            0 => Status::Submitted,
            n if n <= self.kind.tasks().len() => Status::Running,
            _ if self.fails => Status::Failed,
            _ => Status::Succeeded,
        }
    }

    /// Returns the time of a step, at most that of the last one.
    fn at(&self, steps: usize, upstreams: &Upstreams) -> std::time::SystemTime {
        let steps = steps.min(self.kind.tasks().len() + 1);
        let start_time = self.started.unwrap_or(upstreams.clock.started);
        let passed = u32::try_from(steps).unwrap_or(u32::MAX);
        upstreams
            .clock
            .wall(start_time + upstreams.settings.step.saturating_mul(passed))
    }

    pub fn start_time(&self, upstreams: &Upstreams) -> i64 {
        millis(self.at(0, upstreams))
    }

    /// Returns the time of the end; `None` while the job runs.
    pub fn end_time(&self, upstreams: &Upstreams) -> Option<i64> {
        let over = self.status(upstreams).is_over();
        over.then(|| millis(self.at(usize::MAX, upstreams)))
    }

    fn task(&self, index: usize, upstreams: &Upstreams) -> Value {
        let steps = self.steps(upstreams);
        let names = self.kind.tasks();
        let last = index + 1 == names.len();
        let status = match steps.checked_sub(index + 1) {
            None => Status::Submitted,
            Some(0) => Status::Running,
            Some(_) if self.fails && last => Status::Failed,
            Some(_) => Status::Succeeded,
        };
        json!({
            "created_at": space_separated_seconds(self.at(0, upstreams)),
            "update_at": space_separated_seconds(self.at(steps.min(index + 2), upstreams)),
            "messages": if status == Status::Failed { "the sandbox failed it" } else { "" },
            // Equal in each response.
            "task_id": format!("TASK{}-{index}", self.id.trim_start_matches("JOB")),
            "task_name": names[index],
            "task_status": status.text(),
            "task_type": "invokation",
            "task_index": index,
        })
    }
}

impl Default for Jobs {
    fn default() -> Self {
        Self {
            kept: VecDeque::new(),
            now: Instant::now(),
        }
    }
}

impl Jobs {
    /// Sets the current time.
    pub fn at(&mut self, now: Instant) {
        self.now = now;
    }

    /// Makes a job readable.
    pub fn add(&mut self, job: Job) {
        if self.kept.len() == MAX_JOBS {
            self.kept.pop_front();
        }
        self.kept.push_back(job);
    }

    /// Starts a job.
    pub fn submit(&mut self, kind: Kind, fails: bool) -> Job {
        let job = Job::new(kind, fails, self.now);
        self.add(job.clone());
        job
    }
}

/// `GET /jobs/{job_id}`. `limit`, `offset` and `desc` page and order the tasks.
pub fn handle(call: &Call<'_>, state: &Project, id: &str) -> Result<Response, Response> {
    let (upstreams, request) = (call.upstreams, call.request);
    if call.method() != Method::GET {
        return Err(unknown_api());
    }
    if id.is_empty() {
        return Err(bad_value("00100414", "The job ID is empty."));
    }
    let number = |name: &str, default: usize| match request.parameter(name).map(str::parse) {
        None => Ok(default),
        Some(Ok(number)) => Ok(number),
        Some(Err(_)) => Err(invalid(format!("{name} is not a number."))),
    };
    let (limit, offset) = (number("limit", 20)?, number("offset", 0)?);
    let desc = match request.parameter("desc") {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(invalid("desc is neither true nor false.")),
    };
    let job = (state.jobs.kept.iter().find(|job| job.id == id))
        .ok_or_else(|| bad_value("00100429", "The job does not exist."))?;
    let count = job.kind.tasks().len();
    let mut tasks: Vec<Value> = (0..count).map(|index| job.task(index, upstreams)).collect();
    if desc {
        tasks.reverse();
    }
    let tasks: Vec<Value> = tasks.into_iter().skip(offset).take(limit).collect();
    Ok(Response::ok(json!({
        "task_count": count,
        "job": {
            "execution_status": job.status(upstreams).text(),
            "job_id": job.id,
            "job_type": job.kind.text(),
            "rollback_enabled": false,
        },
        "tasks": tasks,
    })))
}
