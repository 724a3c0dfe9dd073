//! Turns the messages of streams into lines. Pure: no I/O and no clock.

use std::collections::HashMap;

use serde_json::Value;

use super::options::Source;

/// How a line is marked and coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// Succeeded.
    Success,
    /// Failed.
    Failure,
    /// In progress.
    Progress,
    /// Neither of these.
    Info,
}

/// One line of the view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// `12:00:01`, or empty if the message has no time.
    pub(super) time: String,
    pub(super) mark: Mark,
    pub(super) subject: String,
    pub(super) state: String,
    pub(super) reason: String,
}

/// The status line at the bottom of a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    state: String,
    parts: Option<(u64, u64)>,
    /// The states of steps, by name.
    steps: HashMap<String, String>,
    outputs: Vec<(String, String)>,
    /// The possible responses to the question of a task.
    questions: Vec<String>,
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
    pub(super) fn new(title: String) -> Self {
        Self {
            title: sanitize(&title),
            state: String::new(),
            parts: None,
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
            Source::Events(_) => event(message).into_iter().collect(),
            Source::Log(_) => log(message).into_iter().collect(),
        }
    }

    fn state(&mut self, message: &Value) -> Vec<Line> {
        let time = clock(message.pointer("/event/observed_at"));
        self.unconfirmed = message
            .pointer("/event/unconfirmed_since")
            .map(|since| clock(Some(since)));
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
                    lines.push(Line {
                        time: time.clone(),
                        mark,
                        subject,
                        state,
                        reason: first(&["messages", "error_msg", "comment"]),
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
            lines.push(Line {
                time: time.clone(),
                mark: self.mark_of(&state),
                subject: self.title.clone(),
                state: state.clone(),
                reason: text(REASONS.iter().find_map(|at| message.pointer(at))),
            });
            self.state = state;
        }
        if !is_bookmark {
            let questions = message
                .get("respondAction")
                .map(responses)
                .unwrap_or_default();
            if questions != self.questions {
                lines.extend(questions.iter().map(|response| Line {
                    time: time.clone(),
                    mark: Mark::Progress,
                    subject: "responses".to_owned(),
                    state: String::new(),
                    reason: response.clone(),
                }));
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
            time: String::new(),
            mark,
            subject: format!("output {name}"),
            state: String::new(),
            reason: value.clone(),
        });
        outputs.collect()
    }
}

/// Returns the line of an event of a stack or of one of its resources.
fn event(message: &Value) -> Option<Line> {
    let event = message.get("stack_event")?;
    let state = text(event.get("resource_status"));
    let reason = text(event.get("resource_status_reason"));
    Some(Line {
        time: clock(event.get("event_time")),
        mark: mark(&state),
        subject: text(event.get("resource_name")),
        // Heat's reason of every event without one.
        reason: if reason == "state changed" {
            String::new()
        } else {
            reason
        },
        state,
    })
}

/// Returns the line of a log entry.
fn log(message: &Value) -> Option<Line> {
    let is_gap = message.pointer("/event/type") == Some(&Value::from("GAP"));
    let reason = match is_gap {
        true => "... lines are missing: the log has dropped its oldest lines".to_owned(),
        false => text(message.get("line")?.get("text")),
    };
    Some(Line {
        time: String::new(),
        mark: Mark::Info,
        subject: String::new(),
        state: String::new(),
        reason,
    })
}

/// Returns the possible responses to the question of a task, for example
/// `labelbutton1: Continue`. They are members of objects in lists, which may be nested.
fn responses(document: &Value) -> Vec<String> {
    fn collect(value: &Value, into: &mut Vec<String>) {
        match value {
            Value::Array(values) => values.iter().for_each(|value| collect(value, into)),
            Value::Object(members) => into.extend(
                members
                    .iter()
                    .filter(|(name, _)| name.starts_with("label"))
                    .map(|(name, value)| format!("{}: {}", sanitize(name), truncated(value))),
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
    if has(&["FAIL", "ERROR", "ABORT", "CANCEL", "ABNORMAL"]) {
        Mark::Failure
    } else if state.starts_with("INIT_") {
        Mark::Info
    } else if has(&["COMPLETE", "SUCCE", "NORMAL"]) {
        Mark::Success
    } else {
        Mark::Progress
    }
}

/// Returns `12:00:01` for `2026-11-21T12:00:01.5Z`.
fn clock(time: Option<&Value>) -> String {
    let text = text(time);
    text.get(11..19).unwrap_or_default().to_owned()
}

/// Returns the text on one line, with control characters and bidirectional marks replaced: a
/// terminal would interpret them.
pub(super) fn sanitize(text: &str) -> String {
    let show = |c: char| match c {
        '\t' | '\n' | '\r' => ' ',
        c if c.is_control() => '\u{fffd}',
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c => c,
    };
    text.chars().map(show).collect()
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
        let mut view = View::new("stack web".into());
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
            ["12:00:01|Progress|stack web|CREATE_IN_PROGRESS|because"]
        );
        assert_eq!(view.status().parts, Some((1, 4)));
        // A resumed stream begins with the state that is already known.
        assert!(apply(&mut view, STATE, initial).is_empty());
        let event = json!({"event": {"type": "ADDED"}, "stack_event": {
            "event_time": "2026-11-21T12:00:07Z", "resource_name": "db\u{1b}[2J",
            "resource_status": "CREATE_FAILED", "resource_status_reason": "no room"}});
        assert_eq!(
            apply(&mut view, Source::Events("WatchStackEvents"), event),
            ["12:00:07|Failure|db\u{fffd}[2J|CREATE_FAILED|no room"]
        );
        let failed = of(
            "MODIFIED",
            "CREATE_FAILED",
            json!({"CREATE_COMPLETE": 3, "CREATE_FAILED": 1}),
            "",
        );
        assert_eq!(
            apply(&mut view, STATE, failed),
            ["12:00:01|Failure|stack web|CREATE_FAILED|because"]
        );
        assert_eq!(view.outcome(), None, "a rollback may follow");
        let rolled_back = of("MODIFIED", "ROLLBACK_COMPLETE", json!({}), "FAILED");
        assert_eq!(
            apply(&mut view, STATE, rolled_back),
            ["12:00:01|Failure|stack web|ROLLBACK_COMPLETE|because"]
        );
        assert_eq!(view.outcome(), Some(false));
        let bookmark = json!({"event": {"type": "BOOKMARK", "unconfirmed_since": at}});
        assert!(apply(&mut view, STATE, bookmark).is_empty());
        assert_eq!(view.outcome(), Some(false));
        assert_eq!(view.status().unconfirmed.as_deref(), Some("12:00:01"));
    }

    #[test]
    fn jobs_and_tasks_have_a_line_per_step() {
        let mut view = View::new("job J".into());
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
        let mut view = View::new("task 7".into());
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
        // The task is archived.
        let archived = json!({"event": {"type": "DELETED", "outcome": "FAILED"},
            "history": {"status": "failed"}});
        assert_eq!(
            apply(&mut view, STATE, archived),
            ["|Failure|task 7|failed|"]
        );
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
        let mut view = View::new("deployment d".into());
        let message = json!({"event": {"type": "MODIFIED", "outcome": "SUCCEEDED"},
            "software_deployment": {"status": "COMPLETE",
                "output_values": {"deploy_status_code": 0, "deploy_stdout": "one\ntwo\u{1b}\r\n",
                    "nothing": null, "long": "x".repeat(300)}}});
        assert_eq!(
            apply(&mut view, STATE, message),
            ["|Success|deployment d|COMPLETE|"]
        );
        let lines = view.output_lines(true);
        assert_eq!(
            (lines.len(), &*lines[0].subject, &*lines[0].reason),
            (3, "output deploy_status_code", "0")
        );
        assert_eq!(lines[1].reason, "one two\u{fffd}");
        assert_eq!(lines[2].reason.len(), 203);
    }
}
