//! Tasks, their steps and logs (V12 2.7).

use std::time::SystemTime;

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::access::Role;
use super::errors::ApiError;
use super::histories::History;
use super::list::{self, Kind, ListSchema};
use super::properties::{self, Property};
use super::schedules::Schedule;
use super::services::Service;
use super::start_times::{self, StartTimes};
use super::task_run::{Run, RunEvent, Status, Step};
use super::{
    Call, HandlerResult, Jp1ao, Jp1aoVersion, TaskTiming, action, boolean, id, no_function, ok,
    text,
};
use crate::message::Response;

/// Maximum number of tasks; beyond it the oldest finished one is archived, as the
/// product does once a day (AG11 1.6.5).
const MAX_TASKS: usize = 1000;
/// Maximum length of notes.
const MAX_NOTES_CHARS: usize = 1024;
/// Default number of bytes read from a log.
const DEFAULT_READ_BYTES: usize = 64 << 10;
/// Maximum number of bytes read from a log.
const MAX_READ_BYTES: usize = 4 << 20;

const ACTIONS: &[&str] = &[
    "update",
    "delete",
    "stop",
    "forceStop",
    "resubmit",
    "archive",
    "response",
    "rerunStart",
    "rerunStepStart",
];

/// A task, with a copy of its service's members at the submit.
pub struct Task {
    pub id: u64,
    pub name: String,
    pub description: String,
    pub tags: String,
    pub notes: String,
    pub todo: bool,
    pub submitter: &'static str,
    pub submitted: SystemTime,
    pub modified: SystemTime,
    pub service: u64,
    pub service_name: String,
    pub service_state: &'static str,
    pub group: u64,
    pub group_name: &'static str,
    pub template: u64,
    pub schedule: u64,
    pub start_times: StartTimes,
    pub run: Run,
    pub properties: Vec<Property>,
}

pub const LIST_SCHEMA: ListSchema = ListSchema {
    members: &[
        ("instanceID", Kind::Long),
        ("name", Kind::Text),
        ("status", Kind::Enum),
        ("startTime", Kind::Time),
        ("completionTime", Kind::Time),
        ("scheduledStartTime", Kind::Time),
        ("submitter", Kind::Text),
        ("submitTime", Kind::Time),
        ("modifyTime", Kind::Time),
        ("serviceState", Kind::Enum),
        ("scheduleType", Kind::Enum),
        ("description", Kind::Text),
        ("serviceName", Kind::Text),
        ("serviceGroupName", Kind::Text),
        ("tags", Kind::Other),
        ("recurrenceInterval", Kind::Enum),
        ("recurrenceTime", Kind::Text),
        ("recurrenceStartDate", Kind::Text),
        ("toDo", Kind::Bool),
        ("notes", Kind::Text),
        ("stepTime", Kind::Time),
        ("serviceTemplateID", Kind::Long),
        ("scheduleID", Kind::Long),
        ("serviceGroupID", Kind::Long),
        ("serviceID", Kind::Long),
        ("supportedActionType", Kind::Other),
    ],
    searched: &[
        "name",
        "submitter",
        "description",
        "serviceName",
        "tags",
        "notes",
    ],
    equal: &[
        "serviceID",
        "scheduleID",
        "serviceGroupID",
        "serviceTemplateID",
    ],
};

impl Task {
    /// Builds a task without steps.
    pub fn new(id: u64, schedule: &Schedule, service: &Service, now: SystemTime) -> Self {
        Self {
            id,
            name: schedule.name.clone(),
            description: schedule.description.clone(),
            tags: service.tags.clone(),
            notes: String::new(),
            todo: false,
            submitter: schedule.submitter,
            submitted: schedule.made,
            modified: now,
            service: service.id,
            service_name: service.name.clone(),
            service_state: schedule.service_state,
            group: service.group,
            group_name: super::preload::group_name(service.group),
            template: schedule.template,
            schedule: schedule.id,
            start_times: schedule.start_times.clone(),
            run: Run::new(schedule.scheduled, Vec::new()),
            properties: Vec::new(),
        }
    }

    fn show(&self, call: &Call<'_>) -> Value {
        let mut when = json!({});
        self.start_times.show(call, &mut when, self.run.scheduled);
        json!({
            "instanceID": self.id,
            "name": self.name,
            "status": self.run.status.text(call.options.version),
            "startTime": call.time_or_null(self.run.started),
            // Null before the start, empty while running: both are documented
            // (docs/apis/jp1ao.md, "Quirks").
            "completionTime": match (self.run.started, self.run.completed) {
                (Some(_), None) => "".into(),
                (_, completed) => call.time_or_null(completed),
            },
            "scheduledStartTime": when["scheduledStartTime"],
            "submitter": self.submitter,
            "submitTime": call.time(self.submitted),
            "modifyTime": call.time(if waits(self) {
                self.modified
            } else {
                self.modified.max(self.run.changed())
            }),
            "serviceState": self.service_state,
            "scheduleType": self.start_times.kind(),
            "description": self.description,
            "serviceName": self.service_name,
            "serviceGroupName": self.group_name,
            "tags": self.tags,
            "recurrenceInterval": when["recurrenceInterval"],
            "recurrenceTime": when["recurrenceTime"],
            "recurrenceStartDate": when["recurrenceStartDate"],
            "toDo": self.todo,
            "notes": self.notes,
            "stepTime": call.time_or_null(self.run.step_changed_at),
            "serviceTemplateID": self.template,
            "scheduleID": self.schedule,
            "serviceGroupID": self.group,
            "serviceID": self.service,
            "supportedActionType": self.run.status.actions().join(","),
        })
    }

    fn path(&self) -> String {
        format!("objects/Tasks/{}", self.id)
    }

    fn is_debug(&self) -> bool {
        self.service_state == "debug"
    }
}

impl Step {
    fn show(&self, call: &Call<'_>, task: u64) -> Value {
        json!({
            "instanceID": self.id,
            "name": self.name,
            "status": self.status,
            "returnCode": self.code,
            "startTime": call.time_or_null(self.started),
            "endTime": call.time_or_null(self.ended),
            "comment": self.comment,
            "taskID": task,
        })
    }
}

pub fn all(jp1ao: &Jp1ao, call: &Call<'_>) -> Vec<Value> {
    let seen = jp1ao.tasks.iter().filter(|task| call.user.sees(task.group));
    seen.map(|task| task.show(call)).collect()
}

pub fn handle(jp1ao: &mut Jp1ao, call: &Call<'_>, rest: &[&str]) -> HandlerResult {
    match (&call.request.method, rest) {
        (&Method::GET, []) => list::handle(call, all(jp1ao, call), &LIST_SCHEMA, &[]),
        (&Method::GET, [wanted]) => {
            call.reject_other_parameters(&[&["alt"]])?;
            Ok(ok(&jp1ao.task(call, wanted)?.show(call)))
        }
        (&Method::PUT, [wanted]) => {
            call.reject_other_parameters(&[&["alt"]])?;
            let task = jp1ao.task(call, wanted)?;
            update(task, call)?;
            Ok(ok(&task.show(call)))
        }
        (&Method::DELETE, [wanted]) => delete(jp1ao, call, wanted),
        (&Method::GET, [wanted, "actions"]) => {
            let path = jp1ao.task(call, wanted)?.path();
            action::listed(call, &path, ACTIONS)
        }
        (&Method::GET, [wanted, "actions", action]) if ACTIONS[2..].contains(action) => {
            template(jp1ao.task(call, wanted)?, call, action)
        }
        (&Method::POST, [wanted, "actions", action, "invoke"]) if ACTIONS[2..].contains(action) => {
            invoke(jp1ao, call, wanted, action)
        }
        _ => Err(no_function(rest, ACTIONS)),
    }
}

/// Updates `notes` and `toDo`; ignores all other members.
fn update(task: &mut Task, call: &Call<'_>) -> Result<(), ApiError> {
    let body = call.body()?;
    list::times(&body, &LIST_SCHEMA)?;
    if body
        .get("instanceID")
        .is_some_and(|given| given.as_u64() != Some(task.id))
    {
        return Err(ApiError::body("instanceID is that of another"));
    }
    let notes = text(&body, "notes", MAX_NOTES_CHARS)?;
    let todo = boolean(&body, "toDo")?;
    task.notes = notes.unwrap_or_else(|| std::mem::take(&mut task.notes));
    task.todo = todo.unwrap_or(task.todo);
    task.modified = call.now;
    Ok(())
}

/// Deletes a task of a debug service; for others the response refers to archiving (V12
/// 2.7.4). Deleting a missing task succeeds.
fn delete(jp1ao: &mut Jp1ao, call: &Call<'_>, wanted: &str) -> HandlerResult {
    call.reject_other_parameters(&[&["alt"]])?;
    call.require_role(Role::Modify)?;
    if let Ok(task) = jp1ao.task(call, wanted) {
        if !task.is_debug() {
            return Err(ApiError::Archive(task.id));
        }
        let gone = task.id;
        jp1ao.tasks.retain(|task| task.id != gone);
    }
    Ok(Response::empty(StatusCode::NO_CONTENT))
}

fn template(task: &Task, call: &Call<'_>, action: &str) -> HandlerResult {
    let arguments = match action {
        "response" => {
            let (step, buttons) = task.run.question()?;
            let mut argument = json!({"instanceId": step.id});
            for (at, label) in buttons.iter().enumerate() {
                argument[format!("labelbutton{}", at + 1)] = label.as_str().into();
            }
            argument["taskId"] = task.id.into();
            vec![argument]
        }
        "resubmit" => {
            let schedule =
                start_times::argument(&task.name, &task.description, call.options.version);
            let asked = task
                .properties
                .iter()
                .filter(|property| property.is_set_at_submit());
            std::iter::once(schedule)
                .chain(asked.map(Property::argument))
                .collect()
        }
        _ => Vec::new(),
    };
    action::shown(call, &task.path(), action, arguments)
}

fn invoke(jp1ao: &mut Jp1ao, call: &Call<'_>, wanted: &str, action: &str) -> HandlerResult {
    if action == "archive" {
        call.require_role_or_absent(Role::Modify)?;
    }
    let task = jp1ao.task(call, wanted)?;
    task.run.allows(action)?;
    let path = task.path();
    match action {
        "response" => {
            let arguments = action::arguments(call, action)?;
            let button = chosen(task, &arguments)?;
            task.run.respond(call.now, button)?;
        }
        "resubmit" => {
            let arguments = action::arguments(call, action)?;
            let (service, properties) = (task.service, task.properties.clone());
            return jp1ao.submit(call, service, properties, &arguments);
        }
        _ => {
            action::no_arguments(call, action)?;
            match action {
                "stop" => task.run.stop(call.now, false)?,
                "forceStop" => task.run.stop(call.now, true)?,
                "rerunStart" => task.run.rerun(call.now, false)?,
                "rerunStepStart" => task.run.rerun(call.now, true)?,
                _ => {
                    let task = task.id;
                    return jp1ao.archive(call, task);
                }
            }
        }
    }
    task.modified = call.now;
    jp1ao.process_run_events(call.now);
    action::done(call, &[path])
}

/// Returns the pressed button. The form is undocumented: accepts the one that is marked
/// (`true`, `selected`...) or the only one left.
fn chosen(task: &Task, arguments: &[Map<String, Value>]) -> Result<usize, ApiError> {
    let (step, buttons) = task.run.question()?;
    let [argument] = arguments else {
        return Err(ApiError::body("exactly one ResponseInput is required"));
    };
    for (name, wanted) in [("instanceId", step.id), ("taskId", task.id)] {
        let given = argument
            .get(name)
            .ok_or_else(|| ApiError::body(format!("{name} is missing")))?;
        if given.as_u64() != Some(wanted) && given.as_str() != Some(&wanted.to_string()) {
            return Err(ApiError::body(format!("{name} is that of another")));
        }
    }
    let (mut marked, mut left) = (Vec::new(), Vec::new());
    for (name, value) in argument
        .iter()
        .filter(|(name, _)| name.starts_with("labelbutton"))
    {
        let number = name.trim_start_matches("labelbutton").parse::<usize>().ok();
        let at = number
            .and_then(|number| number.checked_sub(1))
            .filter(|at| *at < buttons.len());
        let at = at.ok_or_else(|| ApiError::body(format!("there is no {name}")))?;
        match value {
            Value::Bool(true) => marked.push(at),
            Value::String(text) if *text == buttons[at] => left.push(at),
            Value::String(text)
                if ["true", "selected", "on", "pressed"]
                    .contains(&text.to_lowercase().as_str()) =>
            {
                marked.push(at);
            }
            Value::Bool(false) | Value::Null => {}
            Value::String(text) if text.is_empty() || text == "false" => {}
            _ => {
                return Err(ApiError::body(format!(
                    "{name} is neither its label nor a mark"
                )));
            }
        }
    }
    match (&marked[..], &left[..]) {
        ([one], _) | ([], [one]) => Ok(*one),
        _ => Err(ApiError::body("no single button is marked or left")),
    }
}

impl Jp1ao {
    /// Returns a task that the user may see.
    fn task(&mut self, call: &Call<'_>, wanted: &str) -> Result<&mut Task, ApiError> {
        let wanted = id(wanted)?;
        let found = self
            .tasks
            .iter_mut()
            .find(|task| task.id == wanted && call.user.sees(task.group));
        found.ok_or(ApiError::Absent)
    }

    /// Advances all tasks to `now`.
    pub(super) fn advance(&mut self, now: SystemTime, timing: TaskTiming) {
        if !timing.play {
            return;
        }
        for task in &mut self.tasks {
            task.run.advance(now, timing.step);
        }
        self.process_run_events(now);
    }

    /// Passes the events of tasks to services and schedules. A recurrence gets its next
    /// task as soon as the last one has started; starts missed in between are skipped.
    pub(super) fn process_run_events(&mut self, now: SystemTime) {
        let mut recurring = Vec::new();
        for task in &mut self.tasks {
            for event in task.run.take_events() {
                let service = self
                    .services
                    .iter_mut()
                    .find(|service| service.id == task.service);
                if let Some(service) = service {
                    service.count(event, task.run.completed);
                }
                if event == RunEvent::Started
                    && matches!(task.start_times, StartTimes::Recurring(_))
                {
                    recurring.push(task.schedule);
                }
            }
        }
        for schedule in recurring {
            self.schedule_next_task(schedule, now);
        }
    }

    /// Archives a finished task if the maximum number is reached.
    pub(super) fn ensure_task_capacity(&mut self, now: SystemTime) -> Result<(), ApiError> {
        if self.tasks.len() < MAX_TASKS {
            return Ok(());
        }
        let ended = self
            .tasks
            .iter()
            .find(|task| task.run.status.is_ended())
            .map(|task| task.id);
        let task = self
            .take(ended.ok_or(ApiError::Limit)?)
            .ok_or(ApiError::Limit)?;
        self.remember(task, now);
        Ok(())
    }

    fn take(&mut self, id: u64) -> Option<Task> {
        let at = self.tasks.iter().position(|task| task.id == id)?;
        Some(self.tasks.remove(at))
    }

    /// Drops a debug task; turns any other into a history.
    fn remember(&mut self, task: Task, now: SystemTime) {
        if !task.is_debug() {
            let id = self.id();
            self.keep(History::new(id, task, now));
        }
    }

    fn archive(&mut self, call: &Call<'_>, task: u64) -> HandlerResult {
        let task = self.take(task).ok_or(ApiError::Absent)?;
        self.remember(task, call.now);
        let histories = match self.histories.last() {
            Some(history) => vec![format!("objects/TaskHistories/{}", history.id)],
            None => Vec::new(),
        };
        action::done(call, &histories)
    }

    /// Creates a task and its schedule for a service (submit, resubmit).
    pub(super) fn submit(
        &mut self,
        call: &Call<'_>,
        service: u64,
        mut values: Vec<Property>,
        arguments: &[Map<String, Value>],
    ) -> HandlerResult {
        let (schedules, rest): (Vec<_>, Vec<_>) = arguments
            .iter()
            .cloned()
            .partition(|argument| argument.contains_key("scheduleType"));
        let [given] = &schedules[..] else {
            return Err(ApiError::body("exactly one Schedule is required"));
        };
        let name = text(given, "name", 128)?.filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| ApiError::body("name is missing"))?;
        let description = text(given, "description", 1024)?.unwrap_or_default();
        let start_times = StartTimes::read(given)?;
        properties::fill(&mut values, &rest)?;
        let (schedule, task) =
            self.create_schedule(call, service, start_times, name, description, values)?;
        let (schedule, task) = (
            format!("objects/Schedules/{schedule}"),
            format!("objects/Tasks/{task}"),
        );
        let affected = match call.options.submitted {
            super::Jp1aoSubmitted::TaskAndSchedule => vec![task, schedule],
            super::Jp1aoSubmitted::Task => vec![task],
            super::Jp1aoSubmitted::Schedule => vec![schedule],
        };
        let status = match call.options.version {
            Jp1aoVersion::V10 => StatusCode::CREATED,
            Jp1aoVersion::V11 | Jp1aoVersion::V12 => StatusCode::OK,
        };
        Ok(super::json(status, &action::envelope(call, &affected)))
    }
}

/// `FlowSteps` of one task, whose id must be the only parameter.
pub fn steps(jp1ao: &mut Jp1ao, call: &Call<'_>, rest: &[&str]) -> HandlerResult {
    get(call, rest)?;
    let wanted = required_parameter(call, "taskID")?;
    if call
        .request
        .query
        .iter()
        .any(|(name, _)| !["taskID", "alt", "page", "pageSize"].contains(&&**name))
    {
        return Err(ApiError::Query("taskID must be the only one".to_owned()));
    }
    let task = jp1ao.task(call, &wanted)?;
    let steps: Vec<Value> = task
        .run
        .steps
        .iter()
        .map(|step| step.show(call, task.id))
        .collect();
    list::page(call, steps)
}

/// `TaskLogs`: a part of a task's log, in complete lines.
pub fn logs(jp1ao: &mut Jp1ao, call: &Call<'_>, rest: &[&str]) -> HandlerResult {
    get(call, rest)?;
    call.reject_other_parameters(&[&["alt", "taskID", "offset", "readSize", "reverse"]])?;
    let wanted = required_parameter(call, "taskID")?;
    let size = |name: &str| match call.number(name)?.map(usize::try_from) {
        None => Ok(None),
        Some(Ok(number)) => Ok(Some(number)),
        Some(Err(_)) => Err(ApiError::Query(name.to_owned())),
    };
    let offset = size("offset")?;
    let read_size = size("readSize")?.unwrap_or(DEFAULT_READ_BYTES);
    if !(1..=MAX_READ_BYTES).contains(&read_size) {
        return Err(ApiError::Query("readSize".to_owned()));
    }
    // A flag without a value (docs/apis/jp1ao.md, "Quirks").
    if call.request.parameter("reverse").is_some() {
        return Err(ApiError::Query("reverse takes no value".to_owned()));
    }
    let task = jp1ao.task(call, &wanted)?;
    let part = task
        .run
        .log
        .read(offset, read_size, call.request.has("reverse"));
    Ok(ok(
        &json!({"data": [{"taskID": task.id, "taskLog": part}], "count": 1}),
    ))
}

fn get(call: &Call<'_>, rest: &[&str]) -> Result<(), ApiError> {
    match (&call.request.method, rest) {
        (&Method::GET, []) => Ok(()),
        (_, []) => Err(ApiError::Method),
        _ => Err(ApiError::NoFunction),
    }
}

/// Returns a required numeric parameter that must be the only one.
fn required_parameter(call: &Call<'_>, name: &str) -> Result<String, ApiError> {
    let mut given = call.request.query.iter().filter(|(key, _)| key == name);
    match (given.next(), given.next()) {
        (Some((_, value)), None) if value.parse::<u64>().is_ok() => Ok(value.clone()),
        _ => Err(ApiError::Query(format!("exactly one {name} is required"))),
    }
}

/// Returns whether the task waits for its start time.
pub fn waits(task: &Task) -> bool {
    matches!(task.run.status, Status::Waiting | Status::Suspended)
}
