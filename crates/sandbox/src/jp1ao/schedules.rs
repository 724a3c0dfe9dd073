//! Schedules, each created by a submit and with its own tasks (V12 2.6).

use std::time::SystemTime;

use http::Method;
use serde_json::{Value, json};

use super::errors::ApiError;
use super::list::{self, Kind, ListSchema};
use super::properties::Property;
use super::start_times::StartTimes;
use super::task_run::{Run, Status, Step};
use super::tasks::{Task, waits};
use super::{Call, HandlerResult, Jp1ao, action, id, no_function, ok};

/// Maximum number of schedules; beyond it the oldest without a task is deleted.
const MAX_SCHEDULES: usize = 2000;
const ACTIONS: &[&str] = &["cancel", "suspend", "resume"];

#[derive(Clone)]
pub struct Schedule {
    pub id: u64,
    pub name: String,
    pub description: String,
    pub submitter: &'static str,
    pub made: SystemTime,
    pub modified: SystemTime,
    pub start_times: StartTimes,
    /// Start time of the last task.
    pub scheduled: SystemTime,
    pub service: u64,
    pub service_state: &'static str,
    pub group: u64,
    pub template: u64,
    pub properties: Vec<Property>,
    pub canceled: bool,
}

const LIST_SCHEMA: ListSchema = ListSchema {
    members: &[
        ("instanceID", Kind::Long),
        ("name", Kind::Text),
        ("submitter", Kind::Text),
        ("status", Kind::Enum),
        ("scheduleType", Kind::Enum),
        ("createTime", Kind::Time),
        ("modifyTime", Kind::Time),
        ("description", Kind::Text),
        ("scheduledStartTime", Kind::Time),
        ("recurrenceInterval", Kind::Enum),
        ("recurrenceMinutes", Kind::Text),
        ("recurrenceDayOfWeek", Kind::Text),
        ("recurrenceDayOfMonth", Kind::Text),
        ("recurrenceLastDayOfMonth", Kind::Bool),
        ("recurrenceStartDate", Kind::Text),
        ("recurrenceTime", Kind::Text),
        ("serviceState", Kind::Enum),
        ("serviceID", Kind::Long),
        ("serviceGroupID", Kind::Long),
        ("serviceTemplateID", Kind::Long),
    ],
    searched: &[],
    equal: &["serviceID", "serviceGroupID", "serviceTemplateID"],
};

impl Schedule {
    /// `running` is the only documented status: some task was not executed yet.
    fn status(&self, jp1ao: &Jp1ao) -> &'static str {
        let task = jp1ao
            .tasks
            .iter()
            .rev()
            .find(|task| task.schedule == self.id);
        match task.map(|task| task.run.status) {
            _ if self.canceled => "canceled",
            Some(Status::Suspended) => "suspended",
            Some(Status::Waiting) => "running",
            _ => "completed",
        }
    }

    fn show(&self, jp1ao: &Jp1ao, call: &Call<'_>) -> Value {
        let mut shown = json!({
            "instanceID": self.id,
            "name": self.name,
            "submitter": self.submitter,
            "status": self.status(jp1ao),
            "scheduleType": null,
            "createTime": call.time(self.made),
            "modifyTime": call.time(self.modified),
            "description": self.description,
        });
        self.start_times.show(call, &mut shown, self.scheduled);
        shown["serviceState"] = self.service_state.into();
        shown["serviceID"] = self.service.into();
        shown["serviceGroupID"] = self.group.into();
        shown["serviceTemplateID"] = self.template.into();
        shown
    }

    fn path(&self) -> String {
        format!("objects/Schedules/{}", self.id)
    }
}

pub fn handle(jp1ao: &mut Jp1ao, call: &Call<'_>, rest: &[&str]) -> HandlerResult {
    match (&call.request.method, rest) {
        (&Method::GET, []) => {
            let running = match call.request.parameter("scheduleStatus") {
                None => false,
                Some("running") => true,
                Some(_) => return Err(ApiError::Query("scheduleStatus".to_owned())),
            };
            let seen = jp1ao
                .schedules
                .iter()
                .filter(|schedule| call.user.sees(schedule.group));
            let wanted = seen.filter(|schedule| !running || schedule.status(jp1ao) == "running");
            let shown = wanted.map(|schedule| schedule.show(jp1ao, call)).collect();
            list::handle(call, shown, &LIST_SCHEMA, &["scheduleStatus"])
        }
        (&Method::GET, [wanted]) => {
            call.reject_other_parameters(&[&["alt"]])?;
            let schedule = jp1ao.schedule(call, wanted)?.clone();
            Ok(ok(&schedule.show(jp1ao, call)))
        }
        (&Method::GET, [wanted, "actions"]) => {
            let path = jp1ao.schedule(call, wanted)?.path();
            action::listed(call, &path, ACTIONS)
        }
        (&Method::GET, [wanted, "actions", action]) if ACTIONS.contains(action) => {
            let path = jp1ao.schedule(call, wanted)?.path();
            action::shown(call, &path, action, Vec::new())
        }
        (&Method::POST, [wanted, "actions", action, "invoke"]) if ACTIONS.contains(action) => {
            action::no_arguments(call, action)?;
            invoke(jp1ao, call, wanted, action)
        }
        _ => Err(no_function(rest, ACTIONS)),
    }
}

/// Applies an action to the schedule's last task. Canceling a canceled schedule or
/// suspending a suspended one succeeds.
fn invoke(jp1ao: &mut Jp1ao, call: &Call<'_>, wanted: &str, action: &str) -> HandlerResult {
    let schedule = jp1ao.schedule(call, wanted)?;
    let (path, wanted) = (schedule.path(), schedule.id);
    if schedule.canceled {
        return match action {
            "cancel" => action::done(call, &[path]),
            _ => Err(ApiError::State("canceled")),
        };
    }
    let task = jp1ao
        .tasks
        .iter_mut()
        .rev()
        .find(|task| task.schedule == wanted && waits(task));
    let task = task.ok_or(ApiError::State("completed"))?;
    match action {
        "cancel" => task.run.cancel(call.now)?,
        "suspend" => task.run.suspend(call.now)?,
        _ => task.run.resume(call.now)?,
    }
    task.modified = call.now;
    let scheduled = task.run.scheduled;
    let schedule = jp1ao.schedule(call, &wanted.to_string())?;
    schedule.canceled = action == "cancel";
    (schedule.modified, schedule.scheduled) = (call.now, scheduled);
    action::done(call, &[path])
}

impl Jp1ao {
    fn schedule(&mut self, call: &Call<'_>, wanted: &str) -> Result<&mut Schedule, ApiError> {
        let wanted = id(wanted)?;
        let found = self
            .schedules
            .iter_mut()
            .find(|one| one.id == wanted && call.user.sees(one.group));
        found.ok_or(ApiError::Absent)
    }

    /// Creates a schedule of a service and its first task. Returns their ids.
    pub(super) fn create_schedule(
        &mut self,
        call: &Call<'_>,
        service: u64,
        start_times: StartTimes,
        name: String,
        description: String,
        properties: Vec<Property>,
    ) -> Result<(u64, u64), ApiError> {
        let found = self
            .services
            .iter_mut()
            .find(|one| one.id == service && call.user.sees(one.group));
        let service = found.ok_or(ApiError::Absent)?;
        if service.state == "disabled" {
            return Err(ApiError::State(service.state));
        }
        if !service
            .schedule_types
            .split(',')
            .any(|kind| kind == start_times.kind())
        {
            return Err(ApiError::body(
                "the service does not support this scheduleType",
            ));
        }
        let scheduled = start_times
            .next(call.now)
            .ok_or_else(|| ApiError::body("it never starts"))?;
        let mut schedule = Schedule {
            id: 0,
            name,
            description,
            submitter: call.user.name,
            made: call.now,
            modified: call.now,
            start_times,
            scheduled,
            service: service.id,
            service_state: service.state,
            group: service.group,
            template: service.template,
            properties,
            canceled: false,
        };
        self.ensure_task_capacity(call.now)?;
        if let Some(service) = self
            .services
            .iter_mut()
            .find(|one| one.id == schedule.service)
        {
            service.submits += 1;
            service.submitted = Some(call.now);
        }
        let task = self.id();
        schedule.id = self.id();
        for property in &mut schedule.properties {
            property.id = self.part();
        }
        self.start(&schedule, task, call.now)
            .ok_or(ApiError::Absent)?;
        if self.schedules.len() >= MAX_SCHEDULES {
            let idle =
                |schedule: &Schedule| !self.tasks.iter().any(|task| task.schedule == schedule.id);
            if let Some(at) = self.schedules.iter().position(idle) {
                self.schedules.remove(at);
            }
        }
        let id = schedule.id;
        self.schedules.push(schedule);
        Ok((id, task))
    }

    /// Creates the next task of a recurring schedule, unless there are too many tasks
    /// or the service is deleted.
    pub(super) fn schedule_next_task(&mut self, schedule: u64, now: SystemTime) {
        let Some(at) = self
            .schedules
            .iter()
            .position(|one| one.id == schedule && !one.canceled)
        else {
            return;
        };
        let mut schedule = self.schedules[at].clone();
        // Excludes the task that has just started.
        let Some(next) = schedule
            .start_times
            .next(now + std::time::Duration::from_millis(1))
        else {
            return;
        };
        if self.ensure_task_capacity(now).is_err() {
            return;
        }
        schedule.scheduled = next;
        let task = self.id();
        if self.start(&schedule, task, now).is_some() {
            self.schedules[at].scheduled = next;
        }
    }

    /// Creates a task of a schedule, unless its service is deleted.
    fn start(&mut self, schedule: &Schedule, id: u64, now: SystemTime) -> Option<()> {
        let mut properties = schedule.properties.clone();
        for property in &mut properties {
            property.id = self.part();
        }
        let flow = self
            .templates
            .iter()
            .find(|one| one.id == schedule.template)
            .map(|one| one.flow.clone());
        let mut steps = Vec::new();
        for (name, work) in flow.unwrap_or_default() {
            steps.push(Step::new(self.part(), &name, work));
        }
        let fails_at = properties
            .iter()
            .find(|property| property.definition.key == super::preload::FAIL_AT_PROPERTY)
            .and_then(|property| property.value.parse::<usize>().ok()?.checked_sub(1));
        if let Some(step) = fails_at.and_then(|at| steps.get_mut(at)) {
            step.fails = true;
        }
        let service = self
            .services
            .iter()
            .find(|one| one.id == schedule.service)?;
        let run = Run::new(schedule.scheduled, steps);
        let task = Task {
            run,
            properties,
            ..Task::new(id, schedule, service, now)
        };
        self.tasks.push(task);
        Some(())
    }
}
