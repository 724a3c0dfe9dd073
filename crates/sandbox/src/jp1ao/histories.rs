//! Histories, the remains of archived tasks (V12 2.8).

use std::time::SystemTime;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::access::Role;
use super::errors::ApiError;
use super::list::{self, Kind, ListSchema};
use super::tasks::Task;
use super::{Call, HandlerResult, Jp1ao, action, id, no_function, ok, time_format};
use crate::message::Response;

/// Maximum number of histories; the oldest are purged, as in the product.
const MAX_HISTORIES: usize = 2000;

pub struct History {
    pub id: u64,
    task: Task,
    archived: SystemTime,
}

pub const LIST_SCHEMA: ListSchema = ListSchema {
    members: &[
        ("instanceID", Kind::Long),
        ("taskID", Kind::Long),
        ("name", Kind::Text),
        ("submitter", Kind::Text),
        ("serviceName", Kind::Text),
        ("description", Kind::Text),
        ("notes", Kind::Text),
        ("serviceGroupName", Kind::Text),
        ("tags", Kind::Other),
        ("scheduleType", Kind::Enum),
        ("status", Kind::Enum),
        ("serviceState", Kind::Enum),
        ("scheduledStartTime", Kind::Time),
        ("startTime", Kind::Time),
        ("completionTime", Kind::Time),
        ("stepStartTime", Kind::Time),
        ("archiveTime", Kind::Time),
        ("submitTime", Kind::Time),
        ("recurrenceInterval", Kind::Enum),
        ("recurrenceDayOfWeek", Kind::Text),
        ("recurrenceDayOfMonth", Kind::Text),
        ("recurrenceTime", Kind::Text),
        ("recurrenceStartDate", Kind::Text),
        ("recurrenceLastDayOfMonth", Kind::Bool),
        ("toDo", Kind::Bool),
        ("serviceGroupID", Kind::Long),
    ],
    searched: &[
        "name",
        "submitter",
        "serviceName",
        "tags",
        "description",
        "notes",
    ],
    equal: &["serviceGroupID"],
};

impl History {
    pub fn new(id: u64, task: Task, archived: SystemTime) -> Self {
        Self { id, task, archived }
    }

    fn show(&self, call: &Call<'_>) -> Value {
        let task = &self.task;
        let mut when = json!({});
        task.start_times.show(call, &mut when, task.run.scheduled);
        json!({
            "instanceID": self.id,
            "taskID": task.id,
            "name": task.name,
            "submitter": task.submitter,
            "serviceName": task.service_name,
            "description": task.description,
            "notes": task.notes,
            "serviceGroupName": task.group_name,
            "tags": task.tags,
            "scheduleType": task.start_times.kind(),
            "status": task.run.status.text(call.options.version),
            "serviceState": task.service_state,
            "scheduledStartTime": when["scheduledStartTime"],
            "startTime": call.time_or_null(task.run.started),
            "completionTime": call.time_or_null(task.run.completed),
            "stepStartTime": call.time_or_null(task.run.step_changed_at),
            "archiveTime": call.time(self.archived),
            "submitTime": call.time(task.submitted),
            "recurrenceInterval": when["recurrenceInterval"],
            "recurrenceDayOfWeek": when["recurrenceDayOfWeek"],
            "recurrenceDayOfMonth": when["recurrenceDayOfMonth"],
            "recurrenceTime": when["recurrenceTime"],
            "recurrenceStartDate": when["recurrenceStartDate"],
            "recurrenceLastDayOfMonth": when["recurrenceLastDayOfMonth"],
            "toDo": task.todo,
            "serviceGroupID": task.group,
        })
    }

    /// Returns whether the task ran within the span; a time that it does not have is
    /// outside every span.
    fn within(&self, start: Option<SystemTime>, end: Option<SystemTime>) -> bool {
        let run = &self.task.run;
        start.is_none_or(|start| run.started.is_some_and(|at| at >= start))
            && end.is_none_or(|end| run.completed.is_some_and(|at| at <= end))
    }
}

impl Jp1ao {
    pub(super) fn keep(&mut self, mut history: History) {
        // Logs of histories cannot be read.
        history.task.run.log = Default::default();
        history.task.run.steps = Vec::new();
        history.task.properties = Vec::new();
        if self.histories.len() >= MAX_HISTORIES {
            self.histories.remove(0);
        }
        self.histories.push(history);
    }
}

pub fn all(jp1ao: &Jp1ao, call: &Call<'_>) -> Vec<Value> {
    let seen = jp1ao
        .histories
        .iter()
        .filter(|history| call.user.sees(history.task.group));
    seen.map(|history| history.show(call)).collect()
}

/// Parses `start` and `end`, which must be complete times, as in filters.
fn span(call: &Call<'_>) -> Result<(Option<SystemTime>, Option<SystemTime>), ApiError> {
    let time = |name: &str| match call.request.parameter(name) {
        None => Ok(None),
        Some(text) => time_format::parse(text, true)
            .map(Some)
            .ok_or_else(|| ApiError::Query(name.to_owned())),
    };
    Ok((time("start")?, time("end")?))
}

pub fn handle(jp1ao: &mut Jp1ao, call: &Call<'_>, rest: &[&str]) -> HandlerResult {
    let seen = |history: &&History| call.user.sees(history.task.group);
    match (&call.request.method, rest) {
        (&Method::GET, []) => {
            let (start, end) = span(call)?;
            let found = jp1ao
                .histories
                .iter()
                .filter(seen)
                .filter(|history| history.within(start, end));
            list::handle(
                call,
                found.map(|history| history.show(call)).collect(),
                &LIST_SCHEMA,
                &["start", "end"],
            )
        }
        // Undocumented without conditions; assumed to delete everything
        // (docs/apis/jp1ao.md, "Not established").
        (&Method::DELETE, []) => {
            call.reject_other_parameters(&[&["alt", "start", "end", "serviceGroupID"]])?;
            call.require_role(Role::Modify)?;
            let (start, end) = span(call)?;
            let group = call.number("serviceGroupID")?;
            jp1ao.histories.retain(|history| {
                let meant = group.is_none_or(|group| history.task.group == group);
                !(meant && history.within(start, end) && call.user.sees(history.task.group))
            });
            Ok(Response::empty(StatusCode::NO_CONTENT))
        }
        (&Method::GET, [wanted, rest @ ..]) if rest.is_empty() || *rest == ["actions"] => {
            let wanted = id(wanted)?;
            let mut found = jp1ao.histories.iter().filter(seen);
            let found = found
                .find(|history| history.id == wanted)
                .ok_or(ApiError::Absent)?;
            match rest {
                [] => {
                    call.reject_other_parameters(&[&["alt"]])?;
                    Ok(ok(&found.show(call)))
                }
                _ => action::listed(
                    call,
                    &format!("objects/TaskHistories/{wanted}"),
                    &["delete"],
                ),
            }
        }
        (&Method::DELETE, [wanted]) => {
            call.reject_other_parameters(&[&["alt"]])?;
            call.require_role(Role::Modify)?;
            let wanted = id(wanted).unwrap_or(0);
            jp1ao
                .histories
                .retain(|history| history.id != wanted || !call.user.sees(history.task.group));
            Ok(Response::empty(StatusCode::NO_CONTENT))
        }
        _ => Err(no_function(rest, &[])),
    }
}
