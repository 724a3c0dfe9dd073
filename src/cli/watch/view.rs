//! Turns the messages of streams into lines. Pure: no I/O and no clock.
//!
//! `line` has the lines, `message` reads the parts of a message.

mod line;
mod message;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use drawbridge_transcoder::json::read_timestamp;
use serde_json::Value;

use super::options::Answer;
use super::stream_request::Source;
use crate::cli::client::text::sanitize;
use line::mark;
pub(super) use line::{Line, Mark, Status};
use message::{
    changes, log, names, outputs, progress, reason, responses, step_duration, text, time, truncated,
};

/// The state of the watched resource, as far as lines show it.
#[derive(Debug)]
pub(super) struct View {
    title: String,
    /// The command that responds to the question of a task, if it is printed.
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
    /// The question of a task.
    question: Question,
    /// The items of a list, by key; of a resource the one without a key. None is compared until
    /// it was read.
    items: BTreeMap<String, Item>,
    outcome: Option<bool>,
    unconfirmed: Option<String>,
}

/// The question of a task, and the possible responses to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Question {
    /// The id of the task.
    pub(super) task: u64,
    /// Labels and texts of the buttons.
    pub(super) responses: Vec<(String, String)>,
}

/// What is compared of an item.
#[derive(Debug, Default)]
struct Item {
    state: String,
    fields: Value,
}

/// JSON pointers to the state of a resource, in the messages of all families.
const STATES: [&str; 7] = [
    "/watched/state",
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
const STEPS: [&str; 4] = ["/watched/parts", "/snapshot/tasks", "/steps", "/task_steps"];

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
            question: Question::default(),
            items: BTreeMap::new(),
            outcome: None,
            unconfirmed: None,
        }
    }

    /// Returns what is watched.
    pub(super) fn title(&self) -> &str {
        &self.title
    }

    /// Returns whether the resource has succeeded, once its state is final.
    pub(super) fn outcome(&self) -> Option<bool> {
        self.outcome
    }

    /// Applies a message, and returns a line for each change.
    pub(super) fn apply(&mut self, source: Source, message: &Value) -> Vec<Line> {
        match source {
            Source::State => self.state(message),
            Source::Items => self.item(message).into_iter().collect(),
            Source::Events => self.event(message).into_iter().collect(),
            Source::Log => self.log(message),
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

    /// Returns the line of an entry, or of the start of a log.
    fn log(&mut self, message: &Value) -> Vec<Line> {
        let lines = self.started(message).into_iter();
        let entry = match message.get("stack_event") {
            Some(_) => self.event(message),
            None => log(message),
        };
        lines.chain(entry).collect()
    }

    /// Returns the question that waits for a response.
    pub(super) fn question(&self) -> Option<&Question> {
        (!self.question.responses.is_empty()).then_some(&self.question)
    }

    /// Reads the outcome of a log that is watched by itself: that of the watch that ends it.
    pub(super) fn note_outcome(&mut self, message: &Value) {
        match message.pointer("/event/outcome").and_then(Value::as_str) {
            Some("SUCCEEDED") => self.outcome = Some(true),
            Some("FAILED") => self.outcome = Some(false),
            _ => {}
        }
    }

    /// Returns the line of the response of the call that a watch begins with.
    fn started(&self, message: &Value) -> Option<Line> {
        let response = message.get("started")?;
        Some(Line {
            time: time(message.pointer("/event/observed_at")),
            mark: Mark::Progress,
            subject: self.title.clone(),
            state: "STARTED".to_owned(),
            reason: match names(message) {
                names if names.is_empty() => truncated(response),
                names => names,
            },
            elapsed: None,
        })
    }

    /// Returns the line of an item of a list that has changed.
    fn item(&mut self, message: &Value) -> Option<Line> {
        let kind = text(message.pointer("/event/type"));
        let key = text(message.pointer("/watched/key"));
        if key.is_empty() || kind == "BOOKMARK" {
            return None;
        }
        let line = self.changed(&kind, &key, message);
        if kind == "DELETED" {
            self.items.remove(&key);
        }
        self.state = match self.items.len() {
            1 => "1 item".to_owned(),
            count => format!("{count} items"),
        };
        Some(Line {
            subject: key,
            ..line
        })
    }

    /// Returns the line of a watch whose resource has no final state, with the changes.
    fn change(&mut self, kind: &str, message: &Value) -> Option<Line> {
        if kind == "BOOKMARK" || kind == "STARTED" {
            return None;
        }
        let line = Line {
            subject: self.title.clone(),
            ..self.changed(kind, "", message)
        };
        self.state.clone_from(&line.state);
        Some(line)
    }

    /// Compares an item with its previous value. The line has its state, or else the type
    /// of the event, and the fields that have changed.
    fn changed(&mut self, kind: &str, key: &str, message: &Value) -> Line {
        let state = text(message.pointer("/watched/state"));
        let fields = message.pointer("/watched/item").cloned();
        let fields = fields.unwrap_or_default();
        let has_outcome = message.pointer("/watched/has_outcome") == Some(&Value::Bool(true));
        let is_deleted = kind == "DELETED";
        let before = self.items.get(key);
        let has_new_state = before.is_none_or(|before| before.state != state);
        let reason = match before {
            Some(before) if !is_deleted => changes(&before.fields, &fields),
            _ => String::new(),
        };
        let outcome = message.pointer("/event/outcome").and_then(Value::as_str);
        let line = Line {
            time: time(message.pointer("/event/observed_at")),
            mark: match outcome {
                Some("SUCCEEDED") => Mark::Success,
                Some("FAILED") => Mark::Failure,
                _ if is_deleted || state.is_empty() => Mark::Info,
                _ if has_outcome => Mark::Progress,
                _ => mark(&state),
            },
            state: match is_deleted || state.is_empty() {
                true => kind.to_owned(),
                false => state.clone(),
            },
            // A new state says more than times and the like that change with it.
            reason: match has_new_state && !state.is_empty() {
                true => String::new(),
                false => reason,
            },
            ..Line::default()
        };
        self.items.insert(key.to_owned(), Item { state, fields });
        line
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
        let elapsed = self.progress_of(&subject, mark, &time);
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

    /// Notes when a subject of an event begins, and returns the time it took when it ends. Times
    /// of events are the upstream's.
    fn progress_of(&mut self, subject: &str, mark: Mark, time: &str) -> Option<Duration> {
        let at = read_timestamp(time)?.millis();
        match mark {
            Mark::Progress => {
                self.started.entry(subject.to_owned()).or_insert(at);
                None
            }
            Mark::Info => None,
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
        let kind = text(message.pointer("/event/type"));
        let is_bookmark = kind == "BOOKMARK";
        let outcome = text(message.pointer("/event/outcome"));
        match outcome.as_str() {
            "SUCCEEDED" => self.outcome = Some(true),
            "FAILED" => self.outcome = Some(false),
            _ if !is_bookmark => self.outcome = None,
            _ => {}
        }
        let mut lines: Vec<Line> = self.started(message).into_iter().collect();
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
                    let elapsed = match mark {
                        Mark::Success | Mark::Failure => step_duration(step),
                        Mark::Progress | Mark::Info => None,
                    };
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
        let is_deleted = kind == "DELETED";
        if message.pointer("/watched/has_outcome") == Some(&Value::Bool(false)) {
            lines.extend(self.change(&kind, message));
            return lines;
        }
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
            lines.extend(self.note_question(message, &time));
        }
        lines
    }

    /// Returns the lines of a question that is new.
    fn note_question(&mut self, message: &Value, time: &str) -> Vec<Line> {
        let responses = message.get("respondAction").map(responses);
        let question = Question {
            task: message
                .pointer("/task/instanceID")
                .and_then(Value::as_u64)
                .unwrap_or_default(),
            responses: responses.unwrap_or_default(),
        };
        let mut lines = Vec::new();
        if question == self.question {
            return lines;
        }
        for (number, (label, text)) in question.responses.iter().enumerate() {
            let reason = match self.answer {
                Some(_) => format!("{}: {text}", sanitize(label)),
                None => format!("{}: {text}", number + 1),
            };
            lines.push(Line {
                time: time.to_owned(),
                mark: Mark::Progress,
                subject: "responses".to_owned(),
                reason,
                ..Line::default()
            });
            lines.extend(self.answer.as_ref().map(|answer| Line {
                reason: answer.command(question.task, label),
                ..Line::default()
            }));
        }
        self.question = question;
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
