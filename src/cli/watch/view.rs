//! Turns the messages of streams into lines. Pure: no I/O and no clock.

use std::collections::HashMap;
use std::time::Duration;

use drawbridge_transcoder::json::read_timestamp;
use serde_json::Value;

use super::options::{Answer, Source};
use crate::cli::client::text::sanitize;

/// How a line is marked and coloured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mark {
    /// Succeeded.
    Success,
    /// Failed.
    Failure,
    /// In progress.
    Progress,
    /// Neither of these.
    #[default]
    Info,
}

/// One line of the view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    /// `2026-11-21T12:00:01Z`, or empty if the message has no time.
    pub(super) time: String,
    pub(super) mark: Mark,
    pub(super) subject: String,
    pub(super) state: String,
    pub(super) reason: String,
    /// How long the subject was in progress, if its start and its end were reported.
    pub(super) elapsed: Option<Duration>,
}

/// The status line at the bottom of a terminal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) subject: String,
    pub(super) state: String,
    pub(super) mark: Mark,
    /// Number of finished parts, and of all parts.
    pub(super) parts: Option<(u64, u64)>,
    /// Since when the upstream could not be read.
    pub(super) unconfirmed: Option<String>,
}

/// The state of the watched resource, as far as lines show it.
#[derive(Debug)]
pub(super) struct View {
    title: String,
    /// How to respond to the question of a task.
    answer: Option<Answer>,
    /// Whether a stream of events reports the states of the resource itself, too.
    has_events: bool,
    state: String,
    /// The id of the resource, by which its own events are known.
    id: String,
    /// The state of the last line about the resource.
    shown: String,
    /// The line of the present state, until events or the end of all streams show it.
    held: Option<Line>,
    parts: Option<(u64, u64)>,
    /// When subjects began that are in progress, in milliseconds since 1970.
    started: HashMap<String, i64>,
    /// The subjects that have failed, in order.
    failed: Vec<String>,
    /// The states of steps, by name.
    steps: HashMap<String, String>,
    outputs: Vec<(String, String)>,
    /// The possible responses to the question of a task.
    questions: Vec<(String, Value)>,
    outcome: Option<bool>,
    unconfirmed: Option<String>,
}

/// JSON pointers to the state of a resource, in the messages of all families.
const STATES: [&str; 6] = [
    "/stack/stack_status",
    "/software_deployment/status",
    "/snapshot/job/execution_status",
    "/task/status",
    "/history/status",
    "/snapshot/status",
];
/// JSON pointers to the reason of a state.
const REASONS: [&str; 2] = [
    "/stack/stack_status_reason",
    "/software_deployment/status_reason",
];
/// JSON pointers to the steps of a resource.
const STEPS: [&str; 3] = ["/snapshot/tasks", "/steps", "/task_steps"];

impl View {
    pub(super) fn new(title: &str, answer: Option<Answer>, has_events: bool) -> Self {
        Self {
            title: sanitize(title),
            answer,
            has_events,
            state: String::new(),
            id: String::new(),
            shown: String::new(),
            held: None,
            parts: None,
            started: HashMap::new(),
            failed: Vec::new(),
            steps: HashMap::new(),
            outputs: Vec::new(),
            questions: Vec::new(),
            outcome: None,
            unconfirmed: None,
        }
    }

    /// Returns whether the resource has succeeded, once its state is final.
    pub(super) fn outcome(&self) -> Option<bool> {
        self.outcome
    }

    /// Applies a message, and returns a line for each change.
    pub(super) fn apply(&mut self, source: Source, message: &Value) -> Vec<Line> {
        match source {
            Source::State(_) => self.state(message),
            Source::Events(_) => self.event(message).into_iter().collect(),
            Source::Log(_) => log(message).into_iter().collect(),
        }
    }

    /// The events have ended early: the states of the resource are shown instead.
    pub(super) fn events_failed(&mut self) -> Option<Line> {
        self.has_events = false;
        match self.outcome {
            Some(_) => None,
            None => self.release(),
        }
    }

    /// All streams have ended. Returns the line of the final state, unless an event has
    /// shown it.
    pub(super) fn end(&mut self) -> Option<Line> {
        self.release()
    }

    fn release(&mut self) -> Option<Line> {
        let line = self.held.take()?;
        let is_shown = line.state == self.shown;
        self.shown.clone_from(&line.state);
        (!is_shown).then_some(line)
    }

    /// Returns the line of an event of a stack or of one of its resources.
    fn event(&mut self, message: &Value) -> Option<Line> {
        let event = message.get("stack_event")?;
        let state = text(event.get("resource_status"));
        let id = text(event.get("physical_resource_id"));
        let is_own = !id.is_empty() && id == self.id;
        let mut subject = text(event.get("resource_name"));
        if is_own {
            subject.clone_from(&self.title);
            self.shown.clone_from(&state);
        }
        let time = time(event.get("event_time"));
        let mark = mark(&state);
        let elapsed = self.progress_of(&subject, mark, &time, true);
        if !is_own {
            self.note_failure(&subject, mark);
        }
        Some(Line {
            time,
            mark,
            subject,
            state,
            // `state changed` is Heat's reason of every event without one.
            reason: reason(event.get("resource_status_reason"))
                .filter(|reason| reason != "state changed")
                .unwrap_or_default(),
            elapsed,
        })
    }

    /// Notes when a subject begins, if that is known, and returns the time it took when it
    /// ends.
    fn progress_of(
        &mut self,
        subject: &str,
        mark: Mark,
        time: &str,
        begins: bool,
    ) -> Option<Duration> {
        let at = read_timestamp(time)?.millis();
        match mark {
            Mark::Progress if begins => {
                self.started.entry(subject.to_owned()).or_insert(at);
                None
            }
            Mark::Progress | Mark::Info => None,
            Mark::Success | Mark::Failure => {
                let millis = at - self.started.remove(subject)?;
                Some(Duration::from_millis(millis.try_into().ok()?))
            }
        }
    }

    fn note_failure(&mut self, subject: &str, mark: Mark) {
        if mark != Mark::Info {
            self.failed.retain(|failed| failed != subject);
        }
        if mark == Mark::Failure {
            self.failed.push(subject.to_owned());
        }
    }

    fn state(&mut self, message: &Value) -> Vec<Line> {
        let time = time(message.pointer("/event/observed_at"));
        self.unconfirmed = message
            .pointer("/event/unconfirmed_since")
            .map(|since| self::time(Some(since)));
        if let Some(id) = message.pointer("/stack/id") {
            self.id = text(Some(id));
        }
        let is_initial = message.pointer("/event/type") == Some(&Value::from("INITIAL"));
        let is_bookmark = message.pointer("/event/type") == Some(&Value::from("BOOKMARK"));
        let outcome = text(message.pointer("/event/outcome"));
        match outcome.as_str() {
            "SUCCEEDED" => self.outcome = Some(true),
            "FAILED" => self.outcome = Some(false),
            _ if !is_bookmark => self.outcome = None,
            _ => {}
        }
        let mut lines = Vec::new();
        let steps = STEPS.iter().find_map(|at| message.pointer(at)?.as_array());
        if let Some(steps) = steps {
            let mut done = 0;
            for (number, step) in steps.iter().enumerate() {
                let first = |names: &[&str]| {
                    let found = names.iter().find_map(|name| step.get(name));
                    text(found)
                };
                let state = first(&["task_status", "status", "step_status"]);
                let mut subject = first(&["task_name", "name", "step_name"]);
                if subject.is_empty() {
                    subject = format!("step {}", number + 1);
                }
                let mark = mark(&state);
                done += u64::from(mark == Mark::Success);
                let key = format!("{number} {subject}");
                if !state.is_empty()
                    && self.steps.insert(key, state.clone()).as_ref() != Some(&state)
                {
                    let names = ["messages", "error_msg", "comment"];
                    let found = names.iter().find_map(|name| reason(step.get(name)));
                    // A step that runs at first has begun at a time that is not known.
                    let elapsed = self.progress_of(&subject, mark, &time, !is_initial);
                    self.note_failure(&subject, mark);
                    lines.push(Line {
                        time: time.clone(),
                        mark,
                        subject,
                        state,
                        reason: found.unwrap_or_default(),
                        elapsed,
                    });
                }
            }
            self.parts = (!steps.is_empty()).then_some((done, steps.len() as u64));
        }
        let state = text(STATES.iter().find_map(|at| message.pointer(at)));
        if let Some(counts) = message.pointer("/progress").and_then(Value::as_object) {
            self.parts = progress(counts, &state);
        }
        if let Some(outputs) = outputs(message) {
            self.outputs = outputs;
        }
        let is_deleted = message.pointer("/event/type") == Some(&Value::from("DELETED"));
        let state = if is_deleted && state.is_empty() {
            "DELETED".to_owned()
        } else {
            state
        };
        if !state.is_empty() && state != self.state {
            let found = REASONS.iter().find_map(|at| reason(message.pointer(at)));
            self.held = Some(Line {
                time: time.clone(),
                mark: self.mark_of(&state),
                subject: self.title.clone(),
                state: state.clone(),
                reason: found.unwrap_or_default(),
                elapsed: None,
            });
            self.state = state;
        } else if let Some(held) = &self.held {
            // The outcome can follow in a message of its own.
            let mark = self.mark_of(&held.state);
            self.held = self.held.take().map(|held| Line { mark, ..held });
        }
        // Before the line of the final state come events and lines of logs that are still to
        // be read. Events show the other states in order.
        if self.outcome.is_none() && !self.has_events {
            lines.extend(self.release());
        }
        if !is_bookmark {
            let questions = message
                .get("respondAction")
                .map(responses)
                .unwrap_or_default();
            if questions != self.questions {
                for (label, text) in &questions {
                    lines.push(Line {
                        time: time.clone(),
                        mark: Mark::Progress,
                        subject: "responses".to_owned(),
                        reason: format!("{}: {}", sanitize(label), truncated(text)),
                        ..Line::default()
                    });
                    lines.extend(self.answer.as_ref().map(|answer| Line {
                        reason: answer.command(label),
                        ..Line::default()
                    }));
                }
                self.questions = questions;
            }
        }
        lines
    }

    /// Returns the mark of a state: by the outcome, or before that by the text.
    fn mark_of(&self, state: &str) -> Mark {
        match self.outcome {
            Some(true) => Mark::Success,
            Some(false) => Mark::Failure,
            None => match mark(state) {
                Mark::Success => Mark::Progress,
                mark => mark,
            },
        }
    }

    /// Returns the status line.
    pub(super) fn status(&self) -> Status {
        Status {
            subject: self.title.clone(),
            state: match &*self.state {
                "" => "waiting".to_owned(),
                state => state.to_owned(),
            },
            mark: self.mark_of(&self.state),
            parts: self.parts,
            unconfirmed: self.unconfirmed.clone(),
        }
    }

    /// Returns a line for each output, to be printed at the end.
    pub(super) fn output_lines(&self, succeeded: bool) -> Vec<Line> {
        let mark = if succeeded { Mark::Success } else { Mark::Info };
        let outputs = self.outputs.iter().map(|(name, value)| Line {
            mark,
            subject: format!("output {name}"),
            reason: value.clone(),
            ..Line::default()
        });
        outputs.collect()
    }

    /// Returns the last line: how it ended, and for how long it was watched, which is not the time
    /// that the resource took. None if no state was read.
    pub(super) fn summary(&self, end: &str, watched_for: &str) -> Option<Line> {
        if self.state.is_empty() {
            return None;
        }
        let mut reason = self.state.clone();
        if let Some((done, all)) = self.parts {
            reason += &format!(", {done} of {all} complete");
        }
        if let Some((last, others)) = self.failed.split_last() {
            reason += &format!(", failed: {last}");
            if !others.is_empty() {
                reason += &format!(" and {} more", others.len());
            }
        }
        reason += &format!(" (watched for {watched_for})");
        Some(Line {
            mark: self.mark_of(&self.state),
            subject: self.title.clone(),
            state: end.to_owned(),
            reason,
            ..Line::default()
        })
    }

    /// Returns the last state that was read.
    pub(super) fn last_state(&self) -> Option<&str> {
        (!self.state.is_empty()).then_some(&*self.state)
    }
}

/// Returns the line of a log entry.
fn log(message: &Value) -> Option<Line> {
    let is_gap = message.pointer("/event/type") == Some(&Value::from("GAP"));
    let reason = match is_gap {
        true => "... lines are missing: the log has dropped its oldest lines".to_owned(),
        false => text(message.get("line")?.get("text")),
    };
    Some(Line {
        reason,
        ..Line::default()
    })
}

/// Returns the possible responses to the question of a task, for example `labelbutton1` and
/// `Continue`. They are members of objects in lists, which may be nested.
fn responses(document: &Value) -> Vec<(String, Value)> {
    fn collect(value: &Value, into: &mut Vec<(String, Value)>) {
        match value {
            Value::Array(values) => values.iter().for_each(|value| collect(value, into)),
            Value::Object(members) => into.extend(
                members
                    .iter()
                    .filter(|(name, _)| name.starts_with("label"))
                    .map(|(name, value)| (name.clone(), value.clone())),
            ),
            _ => {}
        }
    }
    let mut responses = Vec::new();
    if let Some(parameters) = document.get("parameters") {
        collect(parameters, &mut responses);
    }
    responses
}

/// Returns the number of resources that have completed the current action of the stack, and
/// of all resources.
fn progress(counts: &serde_json::Map<String, Value>, state: &str) -> Option<(u64, u64)> {
    let action = state.split('_').next().unwrap_or_default();
    let of_action = matches!(
        action,
        "DELETE" | "SUSPEND" | "RESUME" | "SNAPSHOT" | "CHECK"
    );
    let (mut done, mut all) = (0, 0);
    for (status, count) in counts {
        let count = count.as_u64().unwrap_or_default();
        all += count;
        let complete = status.ends_with("_COMPLETE") && !status.starts_with("INIT");
        if complete && (!of_action || status.starts_with(action)) {
            done += count;
        }
    }
    (all > 0).then_some((done, all))
}

fn outputs(message: &Value) -> Option<Vec<(String, String)>> {
    if let Some(values) = message.pointer("/software_deployment/output_values") {
        let values = values.as_object()?;
        let pairs = values.iter().filter(|(_, value)| !value.is_null());
        return Some(
            pairs
                .map(|(name, value)| (sanitize(name), truncated(value)))
                .collect(),
        );
    }
    let outputs = message.pointer("/stack/outputs")?.as_array()?;
    let pairs = outputs.iter().map(|output| {
        let value = output.get("output_value").unwrap_or(&Value::Null);
        (text(output.get("output_key")), truncated(value))
    });
    Some(pairs.collect())
}

/// Returns the mark of a state by its text, whose words differ between the families.
pub(super) fn mark(state: &str) -> Mark {
    let state = state.to_ascii_uppercase();
    let has = |words: &[&str]| words.iter().any(|word| state.contains(word));
    // A rollback that has completed is the end of a create or update that failed.
    let is_rolled_back = state == "ROLLBACK_COMPLETE";
    if is_rolled_back || has(&["FAIL", "ERROR", "ABORT", "CANCEL", "ABNORMAL"]) {
        Mark::Failure
    } else if state.starts_with("INIT_") {
        Mark::Info
    } else if has(&["COMPLETE", "SUCCE", "NORMAL"]) {
        Mark::Success
    } else {
        Mark::Progress
    }
}

/// Returns a time without its fraction: `2026-11-21T12:00:01Z`. A time without a zone is UTC,
/// as Heat's are.
fn time(time: Option<&Value>) -> String {
    let text = text(time);
    match (text.get(..19), text.get(19..)) {
        (Some(time), Some(rest)) => {
            let zone = rest.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
            format!("{time}{}", if zone.is_empty() { "Z" } else { zone })
        }
        _ => String::new(),
    }
}

/// Returns the text of a reason. `None` is how Python writes that there is none.
fn reason(value: Option<&Value>) -> Option<String> {
    let text = text(value).trim().to_owned();
    (!text.is_empty() && text != "None").then_some(text)
}

fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => sanitize(text),
        Some(other) => sanitize(&other.to_string()),
    }
}

/// Returns a value on one line of at most 200 characters.
fn truncated(value: &Value) -> String {
    // The output of a command ends with a newline.
    let text = text(Some(value));
    let text = text.trim_end();
    match text.char_indices().nth(200) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn apply(view: &mut View, source: Source, message: Value) -> Vec<String> {
        let lines = view.apply(source, &message);
        let lines = lines.iter().map(|l| {
            let mark = format!("{:?}", l.mark);
            [&l.time, &mark, &l.subject, &l.state, &l.reason]
                .map(String::as_str)
                .join("|")
        });
        lines.collect()
    }

    const STATE: Source = Source::State("WatchStack");

    #[test]
    fn stack_has_a_line_per_change() {
        let mut view = View::new("stack web", None, false);
        let at = "2026-11-21T12:00:01Z";
        let of = |kind: &str, state: &str, progress: Value, outcome: &str| {
            json!({"event": {"type": kind, "observed_at": at, "outcome": outcome},
                "stack": {"stack_status": state, "stack_status_reason": "because"},
                "progress": progress})
        };
        let initial = of(
            "INITIAL",
            "CREATE_IN_PROGRESS",
            json!({"INIT_COMPLETE": 3, "CREATE_COMPLETE": 1}),
            "",
        );
        assert_eq!(
            apply(&mut view, STATE, initial.clone()),
            ["2026-11-21T12:00:01Z|Progress|stack web|CREATE_IN_PROGRESS|because"]
        );
        assert_eq!(view.status().parts, Some((1, 4)));
        // A resumed stream begins with the state that is already known.
        assert!(apply(&mut view, STATE, initial).is_empty());
        let event = json!({"event": {"type": "ADDED"}, "stack_event": {
            "event_time": "2026-11-21T12:00:07Z", "resource_name": "db\u{1b}[2J",
            "resource_status": "CREATE_FAILED", "resource_status_reason": "no room"}});
        assert_eq!(
            apply(&mut view, Source::Events("WatchStackEvents"), event),
            ["2026-11-21T12:00:07Z|Failure|db\u{fffd}[2J|CREATE_FAILED|no room"]
        );
        let failed = of(
            "MODIFIED",
            "CREATE_FAILED",
            json!({"CREATE_COMPLETE": 3, "CREATE_FAILED": 1}),
            "",
        );
        assert_eq!(
            apply(&mut view, STATE, failed),
            ["2026-11-21T12:00:01Z|Failure|stack web|CREATE_FAILED|because"]
        );
        assert_eq!(view.outcome(), None, "a rollback may follow");
        let rolled_back = of("MODIFIED", "ROLLBACK_COMPLETE", json!({}), "FAILED");
        assert!(apply(&mut view, STATE, rolled_back).is_empty());
        assert_eq!(view.outcome(), Some(false));
        let bookmark = json!({"event": {"type": "BOOKMARK", "unconfirmed_since": at}});
        assert!(apply(&mut view, STATE, bookmark).is_empty());
        assert_eq!(view.outcome(), Some(false));
        assert_eq!(
            view.status().unconfirmed.as_deref(),
            Some("2026-11-21T12:00:01Z")
        );
    }

    fn own_event(state: &str, time: &str, reason: &str) -> Value {
        json!({"event": {"type": "ADDED"}, "stack_event": {
            "event_time": time, "resource_name": "web", "physical_resource_id": "S",
            "resource_status": state, "resource_status_reason": reason}})
    }

    fn stack_state(kind: &str, state: &str, outcome: &str) -> Value {
        json!({"event": {"type": kind, "observed_at": "2026-11-21T12:00:09Z", "outcome": outcome},
            "stack": {"id": "S", "stack_status": state, "stack_status_reason": "from the state"}})
    }

    const EVENTS: Source = Source::Events("WatchStackEvents");

    #[test]
    fn final_state_is_one_line_after_late_events() {
        let mut view = View::new("stack web", None, true);
        let initial = stack_state("INITIAL", "CREATE_IN_PROGRESS", "");
        assert!(apply(&mut view, STATE, initial).is_empty());
        assert_eq!(view.status().state, "CREATE_IN_PROGRESS");
        // The state is final before its events are read.
        let end = stack_state("MODIFIED", "ROLLBACK_COMPLETE", "FAILED");
        assert!(apply(&mut view, STATE, end).is_empty());
        let events = [
            ("CREATE_IN_PROGRESS", "2026-11-21T12:00:01.25Z", "started"),
            ("CREATE_FAILED", "2026-11-21T12:00:03Z", "None"),
            ("ROLLBACK_IN_PROGRESS", "2026-11-21T12:00:03+00:00", "back"),
            ("ROLLBACK_COMPLETE", "2026-11-21T12:01:08", "state changed"),
        ];
        let lines = events.map(|(state, time, reason)| {
            apply(&mut view, EVENTS, own_event(state, time, reason)).remove(0)
        });
        let want = [
            "2026-11-21T12:00:01Z|Progress|stack web|CREATE_IN_PROGRESS|started",
            "2026-11-21T12:00:03Z|Failure|stack web|CREATE_FAILED|",
            "2026-11-21T12:00:03+00:00|Progress|stack web|ROLLBACK_IN_PROGRESS|back",
            "2026-11-21T12:01:08Z|Failure|stack web|ROLLBACK_COMPLETE|",
        ];
        assert_eq!(lines, want);
        assert_eq!(view.end(), None, "an event has shown it");
        let summary = view.summary("failed", "5s").unwrap();
        assert_eq!(summary.reason, "ROLLBACK_COMPLETE (watched for 5s)");
        assert_eq!(summary.mark, Mark::Failure);
    }

    #[test]
    fn final_state_without_an_event_is_the_last_line() {
        let mut view = View::new("stack web", None, true);
        apply(
            &mut view,
            STATE,
            stack_state("INITIAL", "CREATE_IN_PROGRESS", ""),
        );
        let event = own_event("CREATE_IN_PROGRESS", "2026-11-21T12:00:01Z", "");
        assert_eq!(apply(&mut view, EVENTS, event).len(), 1);
        apply(
            &mut view,
            STATE,
            stack_state("MODIFIED", "CREATE_COMPLETE", "SUCCEEDED"),
        );
        let end = view.end().unwrap();
        assert_eq!((&*end.state, end.mark), ("CREATE_COMPLETE", Mark::Success));
        assert_eq!(end.reason, "from the state");
        assert_eq!(view.end(), None);
    }

    #[test]
    fn states_are_shown_once_events_have_failed() {
        let mut view = View::new("stack web", None, true);
        apply(
            &mut view,
            STATE,
            stack_state("INITIAL", "CREATE_IN_PROGRESS", ""),
        );
        let line = view.events_failed().unwrap();
        assert_eq!(line.state, "CREATE_IN_PROGRESS");
        let next = stack_state("MODIFIED", "CREATE_FAILED", "");
        assert_eq!(apply(&mut view, STATE, next).len(), 1);
        assert_eq!(view.end(), None);
    }

    #[test]
    fn resource_of_the_name_of_the_stack_is_not_the_stack() {
        let mut view = View::new("stack web", None, true);
        apply(
            &mut view,
            STATE,
            stack_state("INITIAL", "CREATE_IN_PROGRESS", ""),
        );
        let mut event = own_event("CREATE_COMPLETE", "2026-11-21T12:00:01Z", "");
        event["stack_event"]["physical_resource_id"] = json!("another");
        let line = view.apply(EVENTS, &event).remove(0);
        assert_eq!(line.subject, "web");
        let mut event = own_event("CREATE_COMPLETE", "2026-11-21T12:00:01Z", "");
        event["stack_event"]["physical_resource_id"] = Value::Null;
        assert_eq!(view.apply(EVENTS, &event)[0].subject, "web");
    }

    #[test]
    fn elapsed_time_is_that_between_reported_times() {
        let mut view = View::new("stack web", None, true);
        let mut elapsed = |name: &str, state: &str, time: &str| {
            let event = json!({"stack_event": {"resource_name": name, "event_time": time,
                "resource_status": state}});
            let line = view.apply(EVENTS, &event).remove(0);
            line.elapsed.map(|elapsed| elapsed.as_secs())
        };
        assert_eq!(
            elapsed("db", "CREATE_IN_PROGRESS", "2026-11-21T23:59:50Z"),
            None
        );
        assert_eq!(
            elapsed("net", "CREATE_COMPLETE", "2026-11-21T23:59:55Z"),
            None
        );
        assert_eq!(
            elapsed("db", "CREATE_COMPLETE", "2026-11-22T00:01:00Z"),
            Some(70)
        );
        // Each action anew; a clock that went back says nothing.
        assert_eq!(
            elapsed("db", "UPDATE_IN_PROGRESS", "2026-11-22T00:02:00Z"),
            None
        );
        assert_eq!(elapsed("db", "UPDATE_FAILED", "2026-11-22T00:01:00Z"), None);

        let mut view = View::new("job J", None, false);
        let mut elapsed = |kind: &str, one: &str, two: &str, second: u32| {
            let message = json!({
                "event": {"type": kind, "observed_at": format!("2026-11-21T12:00:{second:02}Z")},
                "snapshot": {"tasks": [{"task_name": "one", "task_status": one},
                    {"task_name": "two", "task_status": two}]}});
            let lines = view.apply(STATE, &message).into_iter();
            lines
                .filter_map(|line| Some((line.subject, line.elapsed?.as_secs())))
                .collect::<Vec<_>>()
        };
        assert!(elapsed("INITIAL", "RUNNING", "WAITING", 1).is_empty());
        // The first began before the watch.
        assert!(elapsed("MODIFIED", "SUCCEEDED", "RUNNING", 11).is_empty());
        let want = [("two".to_owned(), 21)];
        assert_eq!(elapsed("MODIFIED", "SUCCEEDED", "FAILED", 32), want);
    }

    #[test]
    fn summary_counts_and_names_failures() {
        let mut view = View::new("stack web", None, true);
        assert_eq!(view.summary("timed out", "5s"), None);
        let state = json!({"event": {"type": "INITIAL"}, "progress": {"CREATE_COMPLETE": 3,
            "CREATE_FAILED": 2}, "stack": {"stack_status": "CREATE_IN_PROGRESS"}});
        view.apply(STATE, &state);
        let mut event = |name: &str, state: &str| {
            let event = json!({"stack_event": {"resource_name": name, "resource_status": state}});
            view.apply(EVENTS, &event);
        };
        event("retried", "CREATE_FAILED");
        event("db", "CREATE_FAILED");
        event("net", "CREATE_FAILED");
        event("retried", "CREATE_COMPLETE");
        let summary = view.summary("timed out", "1m05s").unwrap();
        assert_eq!(
            (&*summary.subject, &*summary.state),
            ("stack web", "timed out")
        );
        assert_eq!(
            summary.reason,
            "CREATE_IN_PROGRESS, 3 of 5 complete, failed: net and 1 more (watched for 1m05s)"
        );
        assert_eq!(summary.mark, Mark::Progress);
    }

    #[test]
    fn times_have_their_zone() {
        for (text, want) in [
            ("2026-11-21T12:00:01Z", "2026-11-21T12:00:01Z"),
            ("2026-11-21T12:00:01.123456789Z", "2026-11-21T12:00:01Z"),
            ("2026-11-21T12:00:01.5+09:00", "2026-11-21T12:00:01+09:00"),
            ("2026-11-21T12:00:01", "2026-11-21T12:00:01Z"),
            ("2026-11-21T12:00:01.5", "2026-11-21T12:00:01Z"),
            ("12:00", ""),
            ("", ""),
        ] {
            assert_eq!(time(Some(&Value::from(text))), want);
        }
        assert_eq!(time(None), "");
    }

    #[test]
    fn jobs_and_tasks_have_a_line_per_step() {
        let mut view = View::new("job J", None, false);
        let of = |one: &str, two: &str, job: &str| {
            json!({"event": {"type": "MODIFIED"}, "snapshot": {"job": {"execution_status": job},
                "tasks": [{"task_name": "pull", "task_status": one},
                    {"task_status": two, "messages": "m"}]}})
        };
        assert_eq!(
            apply(&mut view, STATE, of("SUCCEEDED", "RUNNING", "RUNNING")),
            [
                "|Success|pull|SUCCEEDED|",
                "|Progress|step 2|RUNNING|m",
                "|Progress|job J|RUNNING|"
            ]
        );
        assert_eq!(view.status().parts, Some((1, 2)));
        assert_eq!(
            apply(&mut view, STATE, of("SUCCEEDED", "FAILED", "FAILED")),
            ["|Failure|step 2|FAILED|m", "|Failure|job J|FAILED|"]
        );
        let line = json!({"event": {}, "line": {"text": "a\tb"}, "next_offset": 4});
        assert_eq!(
            apply(&mut view, Source::Log("WatchTaskLog"), line),
            ["|Info|||a b"]
        );
        let gap = json!({"event": {"type": "GAP"}, "next_offset": 5});
        let lines = apply(&mut view, Source::Log("WatchTaskLog"), gap);
        assert!(lines[0].contains("lines are missing"), "{lines:?}");
    }

    #[test]
    fn question_of_a_task_is_shown_once() {
        let mut view = View::new("task 7", None, false);
        let of = |kind: &str, status: &str, parameters: Value| {
            let respond_action = match parameters {
                Value::Null => json!({}),
                parameters => json!({"name": "response", "parameters": parameters}),
            };
            json!({"event": {"type": kind}, "task": {"status": status}, "respondAction": respond_action})
        };
        let question = json!([[{"instanceId": 1, "taskId": 7, "labelbutton1": "Go\u{1b}[2J",
            "labelbutton2": "Stop"}]]);
        let asking = of("MODIFIED", "waitingForInput", question);
        let questions = [
            "|Progress|responses||labelbutton1: Go\u{fffd}[2J",
            "|Progress|responses||labelbutton2: Stop",
        ];
        let lines = apply(&mut view, STATE, asking.clone());
        assert_eq!(lines[0], "|Progress|task 7|waitingForInput|");
        assert_eq!(lines[1..], questions);
        assert!(apply(&mut view, STATE, asking.clone()).is_empty());
        let bookmark = json!({"event": {"type": "BOOKMARK"}});
        assert!(apply(&mut view, STATE, bookmark).is_empty());
        assert!(apply(&mut view, STATE, asking.clone()).is_empty());
        // The task gets a response, and waits for the next.
        let continued = of("MODIFIED", "inProgress", Value::Null);
        assert_eq!(
            apply(&mut view, STATE, continued),
            ["|Progress|task 7|inProgress|"]
        );
        assert_eq!(apply(&mut view, STATE, asking).len(), 3);
        // The task is archived. Its final state is the last line.
        let archived = json!({"event": {"type": "DELETED", "outcome": "FAILED"},
            "history": {"status": "failed"}});
        assert!(apply(&mut view, STATE, archived).is_empty());
        let end = view.end().unwrap();
        assert_eq!((&*end.subject, &*end.state), ("task 7", "failed"));
        assert_eq!(end.mark, Mark::Failure);
        assert_eq!(view.outcome(), Some(false));
    }

    #[test]
    fn progress_counts_resources_of_the_current_action() {
        for (state, counts, want) in [
            (
                "CREATE_IN_PROGRESS",
                json!({"INIT_COMPLETE": 2, "CREATE_COMPLETE": 1}),
                Some((1, 3)),
            ),
            (
                "UPDATE_IN_PROGRESS",
                json!({"CREATE_COMPLETE": 2, "UPDATE_IN_PROGRESS": 1}),
                Some((2, 3)),
            ),
            (
                "DELETE_IN_PROGRESS",
                json!({"CREATE_COMPLETE": 2, "DELETE_COMPLETE": 1}),
                Some((1, 3)),
            ),
            (
                "SUSPEND_IN_PROGRESS",
                json!({"CREATE_COMPLETE": 2, "SUSPEND_COMPLETE": 2}),
                Some((2, 4)),
            ),
            ("CREATE_COMPLETE", json!({}), None),
        ] {
            assert_eq!(
                progress(counts.as_object().unwrap(), state),
                want,
                "{state} {counts}"
            );
        }
    }

    #[test]
    fn outputs_are_sanitized_and_truncated() {
        let mut view = View::new("deployment d", None, false);
        let message = json!({"event": {"type": "MODIFIED", "outcome": "SUCCEEDED"},
            "software_deployment": {"status": "COMPLETE",
                "output_values": {"deploy_status_code": 0, "deploy_stdout": "one\ntwo\u{1b}\r\n",
                    "nothing": null, "long": "x".repeat(300)}}});
        assert!(apply(&mut view, STATE, message).is_empty());
        assert_eq!(view.end().unwrap().mark, Mark::Success);
        let lines = view.output_lines(true);
        assert_eq!(
            (lines.len(), &*lines[0].subject, &*lines[0].reason),
            (3, "output deploy_status_code", "0")
        );
        assert_eq!(lines[1].reason, "one two\u{fffd}");
        assert_eq!(lines[2].reason.len(), 203);
    }
}
