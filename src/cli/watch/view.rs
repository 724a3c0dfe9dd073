//! From the messages of streams to lines: pure, so that tables test it.

use std::collections::HashMap;

use serde_json::Value;

use super::options::Source;

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// It is done as it should be.
    Good,
    /// It has failed.
    Bad,
    /// It goes on.
    Busy,
    /// A remark.
    Note,
}

/// One line of the view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// `12:00:01`, or empty.
    pub(super) time: String,
    pub(super) mark: Mark,
    pub(super) what: String,
    pub(super) state: String,
    pub(super) why: String,
}

/// The bottom line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) what: String,
    pub(super) state: String,
    pub(super) mark: Mark,
    /// How many parts are done, of how many.
    pub(super) parts: Option<(u64, u64)>,
    /// The state could not be confirmed since.
    pub(super) unconfirmed: Option<String>,
}

/// What was told so far.
#[derive(Debug)]
pub(super) struct View {
    title: String,
    state: String,
    parts: Option<(u64, u64)>,
    /// The states of steps, by name.
    steps: HashMap<String, String>,
    outputs: Vec<(String, String)>,
    /// What it asks.
    asks: Vec<String>,
    outcome: Option<bool>,
    unconfirmed: Option<String>,
}

/// Where the state stands in the messages, by family.
const STATES: [&str; 6] = [
    "/stack/stack_status",
    "/software_deployment/status",
    "/snapshot/job/execution_status",
    "/task/status",
    "/history/status",
    "/snapshot/status",
];
const REASONS: [&str; 2] = [
    "/stack/stack_status_reason",
    "/software_deployment/status_reason",
];
/// Where the steps stand.
const STEPS: [&str; 3] = ["/snapshot/tasks", "/steps", "/task_steps"];

impl View {
    pub(super) fn new(title: String) -> Self {
        Self {
            title: clean(&title),
            state: String::new(),
            parts: None,
            steps: HashMap::new(),
            outputs: Vec::new(),
            asks: Vec::new(),
            outcome: None,
            unconfirmed: None,
        }
    }

    /// Whether it has settled, and well.
    pub(super) fn outcome(&self) -> Option<bool> {
        self.outcome
    }

    /// What is new in a message.
    pub(super) fn tell(&mut self, source: Source, message: &Value) -> Vec<Line> {
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
        let told = text(message.pointer("/event/outcome"));
        match told.as_str() {
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
                let mut what = first(&["task_name", "name", "step_name"]);
                if what.is_empty() {
                    what = format!("step {}", number + 1);
                }
                let mark = mark(&state);
                done += u64::from(mark == Mark::Good);
                let key = format!("{number} {what}");
                if !state.is_empty()
                    && self.steps.insert(key, state.clone()).as_ref() != Some(&state)
                {
                    lines.push(Line {
                        time: time.clone(),
                        mark,
                        what,
                        state,
                        why: first(&["messages", "error_msg", "comment"]),
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
        let gone = message.pointer("/event/type") == Some(&Value::from("DELETED"));
        let state = if gone && state.is_empty() {
            "GONE".to_owned()
        } else {
            state
        };
        if !state.is_empty() && state != self.state {
            lines.push(Line {
                time: time.clone(),
                mark: self.mark_of(&state),
                what: self.title.clone(),
                state: state.clone(),
                why: text(REASONS.iter().find_map(|at| message.pointer(at))),
            });
            self.state = state;
        }
        if !is_bookmark {
            let asks = message.get("asks").map(asks).unwrap_or_default();
            if asks != self.asks {
                lines.extend(asks.iter().map(|answer| Line {
                    time: time.clone(),
                    mark: Mark::Busy,
                    what: "asks".to_owned(),
                    state: String::new(),
                    why: answer.clone(),
                }));
                self.asks = asks;
            }
        }
        lines
    }

    /// As the watch says, or as the text looks.
    fn mark_of(&self, state: &str) -> Mark {
        match self.outcome {
            Some(true) => Mark::Good,
            Some(false) => Mark::Bad,
            None => match mark(state) {
                Mark::Good => Mark::Busy,
                mark => mark,
            },
        }
    }

    /// The bottom line.
    pub(super) fn status(&self) -> Status {
        Status {
            what: self.title.clone(),
            state: match &*self.state {
                "" => "waiting".to_owned(),
                state => state.to_owned(),
            },
            mark: self.mark_of(&self.state),
            parts: self.parts,
            unconfirmed: self.unconfirmed.clone(),
        }
    }

    /// What is said at the end: the outputs.
    pub(super) fn farewell(&self, well: bool) -> Vec<Line> {
        let mark = if well { Mark::Good } else { Mark::Note };
        let outputs = self.outputs.iter().map(|(name, value)| Line {
            time: String::new(),
            mark,
            what: format!("output {name}"),
            state: String::new(),
            why: value.clone(),
        });
        outputs.collect()
    }
}

/// A line for an event of a stack or one of its resources.
fn event(message: &Value) -> Option<Line> {
    let event = message.get("stack_event")?;
    let state = text(event.get("resource_status"));
    let why = text(event.get("resource_status_reason"));
    Some(Line {
        time: clock(event.get("event_time")),
        mark: mark(&state),
        what: text(event.get("resource_name")),
        // What Heat says of every one.
        why: if why == "state changed" {
            String::new()
        } else {
            why
        },
        state,
    })
}

/// A line of a log.
fn log(message: &Value) -> Option<Line> {
    let lost = message.pointer("/event/type") == Some(&Value::from("GAP"));
    let why = match lost {
        true => "... lines are missing: the log is bounded and has dropped them".to_owned(),
        false => text(message.get("line")?.get("text")),
    };
    Some(Line {
        time: String::new(),
        mark: Mark::Note,
        what: String::new(),
        state: String::new(),
        why,
    })
}

/// What a task asks, one text for each possible answer: `labelbutton1: Continue`.
/// The arguments stand in lists, nested or not.
fn asks(document: &Value) -> Vec<String> {
    fn collect(value: &Value, into: &mut Vec<String>) {
        match value {
            Value::Array(values) => values.iter().for_each(|value| collect(value, into)),
            Value::Object(members) => into.extend(
                members
                    .iter()
                    .filter(|(name, _)| name.starts_with("label"))
                    .map(|(name, value)| format!("{}: {}", clean(name), short(value))),
            ),
            _ => {}
        }
    }
    let mut answers = Vec::new();
    if let Some(parameters) = document.get("parameters") {
        collect(parameters, &mut answers);
    }
    answers
}

/// How many resources are done with what the stack does now.
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
                .map(|(name, value)| (clean(name), short(value)))
                .collect(),
        );
    }
    let outputs = message.pointer("/stack/outputs")?.as_array()?;
    let pairs = outputs.iter().map(|output| {
        let value = output.get("output_value").unwrap_or(&Value::Null);
        (text(output.get("output_key")), short(value))
    });
    Some(pairs.collect())
}

/// How a state looks, for families that say it in words of their own.
pub(super) fn mark(state: &str) -> Mark {
    let state = state.to_ascii_uppercase();
    let has = |words: &[&str]| words.iter().any(|word| state.contains(word));
    if has(&["FAIL", "ERROR", "ABORT", "CANCEL", "ABNORMAL"]) {
        Mark::Bad
    } else if state.starts_with("INIT_") {
        Mark::Note
    } else if has(&["COMPLETE", "SUCCE", "NORMAL"]) {
        Mark::Good
    } else {
        Mark::Busy
    }
}

/// `12:00:01` of `2026-11-21T12:00:01.5Z`.
fn clock(time: Option<&Value>) -> String {
    let text = text(time);
    text.get(11..19).unwrap_or_default().to_owned()
}

/// A text on one line, without what a terminal would obey.
pub(super) fn clean(text: &str) -> String {
    let show = |c: char| match c {
        '\t' | '\n' | '\r' => ' ',
        c if c.is_control() => '\u{fffd}',
        // Marks that turn the direction of what follows.
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c => c,
    };
    text.chars().map(show).collect()
}

fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => clean(text),
        Some(other) => clean(&other.to_string()),
    }
}

/// A value on one line, cut to what one can read.
fn short(value: &Value) -> String {
    // What commands print ends with a line's end.
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

    fn told(view: &mut View, source: Source, message: Value) -> Vec<String> {
        let lines = view.tell(source, &message);
        let told = lines.iter().map(|l| {
            let mark = format!("{:?}", l.mark);
            [&l.time, &mark, &l.what, &l.state, &l.why]
                .map(String::as_str)
                .join("|")
        });
        told.collect()
    }

    const STATE: Source = Source::State("WatchStack");

    #[test]
    fn the_life_of_a_stack() {
        let mut view = View::new("stack web".into());
        let at = "2026-11-21T12:00:01Z";
        let of = |kind: &str, state: &str, progress: Value, outcome: &str| {
            json!({"event": {"type": kind, "observed_at": at, "outcome": outcome},
                "stack": {"stack_status": state, "stack_status_reason": "because"},
                "progress": progress})
        };
        let begun = of(
            "INITIAL",
            "CREATE_IN_PROGRESS",
            json!({"INIT_COMPLETE": 3, "CREATE_COMPLETE": 1}),
            "",
        );
        assert_eq!(
            told(&mut view, STATE, begun.clone()),
            ["12:00:01|Busy|stack web|CREATE_IN_PROGRESS|because"]
        );
        assert_eq!(view.status().parts, Some((1, 4)));
        // A stream that was resumed says nothing new.
        assert!(told(&mut view, STATE, begun).is_empty());
        let event = json!({"event": {"type": "ADDED"}, "stack_event": {
            "event_time": "2026-11-21T12:00:07Z", "resource_name": "db\u{1b}[2J",
            "resource_status": "CREATE_FAILED", "resource_status_reason": "no room"}});
        assert_eq!(
            told(&mut view, Source::Events("WatchStackEvents"), event),
            ["12:00:07|Bad|db\u{fffd}[2J|CREATE_FAILED|no room"]
        );
        let failed = of(
            "MODIFIED",
            "CREATE_FAILED",
            json!({"CREATE_COMPLETE": 3, "CREATE_FAILED": 1}),
            "",
        );
        assert_eq!(
            told(&mut view, STATE, failed),
            ["12:00:01|Bad|stack web|CREATE_FAILED|because"]
        );
        assert_eq!(view.outcome(), None, "a rollback may follow");
        let over = of("MODIFIED", "ROLLBACK_COMPLETE", json!({}), "FAILED");
        assert_eq!(
            told(&mut view, STATE, over),
            ["12:00:01|Bad|stack web|ROLLBACK_COMPLETE|because"]
        );
        assert_eq!(view.outcome(), Some(false));
        let bookmark = json!({"event": {"type": "BOOKMARK", "unconfirmed_since": at}});
        assert!(told(&mut view, STATE, bookmark).is_empty());
        assert_eq!(view.outcome(), Some(false));
        assert_eq!(view.status().unconfirmed.as_deref(), Some("12:00:01"));
    }

    #[test]
    fn jobs_and_tasks_have_steps() {
        let mut view = View::new("job J".into());
        let of = |one: &str, two: &str, job: &str| {
            json!({"event": {"type": "MODIFIED"}, "snapshot": {"job": {"execution_status": job},
                "tasks": [{"task_name": "pull", "task_status": one},
                    {"task_status": two, "messages": "m"}]}})
        };
        assert_eq!(
            told(&mut view, STATE, of("SUCCEEDED", "RUNNING", "RUNNING")),
            [
                "|Good|pull|SUCCEEDED|",
                "|Busy|step 2|RUNNING|m",
                "|Busy|job J|RUNNING|"
            ]
        );
        assert_eq!(view.status().parts, Some((1, 2)));
        assert_eq!(
            told(&mut view, STATE, of("SUCCEEDED", "FAILED", "FAILED")),
            ["|Bad|step 2|FAILED|m", "|Bad|job J|FAILED|"]
        );
        let line = json!({"event": {}, "line": {"text": "a\tb"}, "next_offset": 4});
        assert_eq!(
            told(&mut view, Source::Log("WatchTaskLog"), line),
            ["|Note|||a b"]
        );
        let lost = json!({"event": {"type": "GAP"}, "next_offset": 5});
        let told = told(&mut view, Source::Log("WatchTaskLog"), lost);
        assert!(told[0].contains("lines are missing"), "{told:?}");
    }

    #[test]
    fn what_a_task_asks_is_shown_once() {
        let mut view = View::new("task 7".into());
        let of = |kind: &str, status: &str, parameters: Value| {
            let asks = match parameters {
                Value::Null => json!({}),
                parameters => json!({"name": "response", "parameters": parameters}),
            };
            json!({"event": {"type": kind}, "task": {"status": status}, "asks": asks})
        };
        let question = json!([[{"instanceId": 1, "taskId": 7, "labelbutton1": "Go\u{1b}[2J",
            "labelbutton2": "Stop"}]]);
        let asking = of("MODIFIED", "waitingForInput", question);
        let said = [
            "|Busy|asks||labelbutton1: Go\u{fffd}[2J",
            "|Busy|asks||labelbutton2: Stop",
        ];
        let told_now = told(&mut view, STATE, asking.clone());
        assert_eq!(told_now[0], "|Busy|task 7|waitingForInput|");
        assert_eq!(told_now[1..], said);
        assert!(told(&mut view, STATE, asking.clone()).is_empty());
        let bookmark = json!({"event": {"type": "BOOKMARK"}});
        assert!(told(&mut view, STATE, bookmark).is_empty());
        assert!(told(&mut view, STATE, asking.clone()).is_empty());
        // Answered, and asked anew.
        let goes_on = of("MODIFIED", "inProgress", Value::Null);
        assert_eq!(
            told(&mut view, STATE, goes_on),
            ["|Busy|task 7|inProgress|"]
        );
        assert_eq!(told(&mut view, STATE, asking).len(), 3);
        // Archived meanwhile.
        let gone = json!({"event": {"type": "DELETED", "outcome": "FAILED"},
            "history": {"status": "failed"}});
        assert_eq!(told(&mut view, STATE, gone), ["|Bad|task 7|failed|"]);
        assert_eq!(view.outcome(), Some(false));
    }

    #[test]
    fn progress_is_of_the_action() {
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
    fn outputs_are_said_at_the_end() {
        let mut view = View::new("deployment d".into());
        let message = json!({"event": {"type": "MODIFIED", "outcome": "SUCCEEDED"},
            "software_deployment": {"status": "COMPLETE",
                "output_values": {"deploy_status_code": 0, "deploy_stdout": "one\ntwo\u{1b}\r\n",
                    "nothing": null, "long": "x".repeat(300)}}});
        assert_eq!(
            told(&mut view, STATE, message),
            ["|Good|deployment d|COMPLETE|"]
        );
        let lines = view.farewell(true);
        assert_eq!(
            (lines.len(), &*lines[0].what, &*lines[0].why),
            (3, "output deploy_status_code", "0")
        );
        assert_eq!(lines[1].why, "one two\u{fffd}");
        assert_eq!(lines[2].why.len(), 203);
    }
}
