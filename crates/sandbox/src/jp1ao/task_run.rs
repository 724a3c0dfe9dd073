//! Execution of a task: its status, its steps and their timing (docs/apis/jp1ao.md,
//! "Task status" and "Step status").
//!
//! ```text
//! waiting -> inProgress -> completed
//!   |  ^         | ^ \-> longRunning -> (as inProgress)
//!   v  |         v |  \-> inProgressWithError -> failed -> inProgress (rerun)
//! suspended   waitingForInput
//!   \-> canceled     every running status -> inProgressTerminating -> failed, or completed
//! ```
//!
//! Nothing here reads a clock: `advance` receives the time and applies all transitions
//! that are due, each at its own time.

use std::time::{Duration, SystemTime};

use super::Jp1aoVersion;
use super::errors::ApiError;
use super::task_log::Log;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Waiting,
    Suspended,
    InProgress,
    WaitingForInput,
    /// A step has failed, the task has not yet.
    WithError,
    Terminating,
    LongRunning,
    Completed,
    Failed,
    Canceled,
}

impl Status {
    /// Text of the status in REST responses. No source has them: these are the manuals'
    /// names.
    pub fn text(self, version: Jp1aoVersion) -> &'static str {
        let (old, new) = match self {
            Self::Waiting => ("waiting", "waiting"),
            Self::Suspended => ("holding", "suspended"),
            Self::InProgress => ("running", "inProgress"),
            Self::WaitingForInput => ("waitingResponse", "waitingForInput"),
            Self::WithError => ("abnormalDetection", "inProgressWithError"),
            Self::Terminating => ("stopped", "inProgressTerminating"),
            // Version 10 does not have this status.
            Self::LongRunning => ("running", "longRunning"),
            Self::Completed => ("completed", "completed"),
            Self::Failed => ("failed", "failed"),
            Self::Canceled => ("canceled", "canceled"),
        };
        if version == Jp1aoVersion::V10 {
            old
        } else {
            new
        }
    }

    pub fn is_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Canceled)
    }

    /// Actions that this status permits.
    pub fn actions(self) -> &'static [&'static str] {
        match self {
            Self::InProgress | Self::WithError => &["stop", "forceStop"],
            Self::WaitingForInput => &["stop", "forceStop", "response"],
            Self::Failed => &["resubmit", "archive", "rerunStart", "rerunStepStart"],
            Self::Completed | Self::Canceled => &["resubmit", "archive"],
            Self::Waiting | Self::Suspended | Self::Terminating | Self::LongRunning => &[],
        }
    }

    /// Error for an action that the status does not permit.
    fn refuses(self) -> ApiError {
        ApiError::State(self.text(Jp1aoVersion::V12))
    }
}

/// Behaviour of a step.
#[derive(Clone, Debug, PartialEq)]
pub enum StepKind {
    /// Takes the duration of one step.
    Plain,
    /// Takes two durations; the second is longer than expected.
    Long,
    /// Waits for a response; all buttons but the last continue the task.
    WaitForInput {
        question: String,
        buttons: Vec<String>,
    },
}

#[derive(Clone, Debug)]
pub struct Step {
    pub id: u64,
    pub name: String,
    pub work: StepKind,
    /// Whether the step fails the next time it runs.
    pub fails: bool,
    pub status: &'static str,
    pub code: Option<i32>,
    pub started: Option<SystemTime>,
    pub ended: Option<SystemTime>,
    pub comment: String,
}

impl Step {
    pub fn new(id: u64, name: &str, work: StepKind) -> Self {
        Self {
            id,
            name: name.to_owned(),
            work,
            fails: false,
            status: "waiting",
            code: None,
            started: None,
            ended: None,
            comment: String::new(),
        }
    }

    fn end(&mut self, at: SystemTime, status: &'static str, code: i32) {
        (self.status, self.code, self.ended) = (status, Some(code), Some(at));
    }
}

/// An event that services and schedules react to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunEvent {
    Started,
    Completed,
    Failed,
}

#[derive(Clone, Debug)]
pub struct Run {
    pub status: Status,
    /// Time of the start.
    pub scheduled: SystemTime,
    /// Time at which the status or the step was entered.
    since: SystemTime,
    pub started: Option<SystemTime>,
    pub completed: Option<SystemTime>,
    /// Time of the last change of a step.
    pub step_changed_at: Option<SystemTime>,
    pub steps: Vec<Step>,
    /// The running step, or the last one that ran.
    current: usize,
    pub log: Log,
    event: Vec<RunEvent>,
}

impl Run {
    pub fn new(scheduled: SystemTime, steps: Vec<Step>) -> Self {
        Self {
            status: Status::Waiting,
            scheduled,
            since: scheduled,
            started: None,
            completed: None,
            step_changed_at: None,
            steps,
            current: 0,
            log: Log::default(),
            event: Vec::new(),
        }
    }

    pub fn take_events(&mut self) -> Vec<RunEvent> {
        std::mem::take(&mut self.event)
    }

    /// Returns the time of the last change.
    pub fn changed(&self) -> SystemTime {
        self.since
    }

    /// Applies all transitions that are due by `now`.
    pub fn advance(&mut self, now: SystemTime, step: Duration) {
        // Without a minimum duration the loop would not end.
        let step = step.max(Duration::from_millis(1));
        while let Some(due) = self.due(step).filter(|due| *due <= now) {
            self.apply_transition(due);
        }
    }

    /// Returns the time of the next automatic transition.
    fn due(&self, step: Duration) -> Option<SystemTime> {
        match self.status {
            Status::Waiting => Some(self.scheduled),
            Status::InProgress | Status::LongRunning | Status::WithError | Status::Terminating => {
                self.since.checked_add(step)
            }
            Status::Suspended
            | Status::WaitingForInput
            | Status::Completed
            | Status::Failed
            | Status::Canceled => None,
        }
    }

    fn apply_transition(&mut self, at: SystemTime) {
        match self.status {
            Status::Waiting => {
                self.started = Some(at);
                self.event.push(RunEvent::Started);
                self.log.line(at, "KNAE08001-I The task started.");
                self.begin(0, at);
            }
            Status::InProgress => self.end_step_duration(at),
            Status::LongRunning => self.end_step(at, "completed", 0),
            Status::WithError => self.end(at, Status::Failed),
            Status::Terminating => {
                // A task stopped during its last step ends normally (AG10 1.6.12).
                let last = self.current + 1 >= self.steps.len();
                let asked = self
                    .step()
                    .is_none_or(|step| matches!(step.work, StepKind::WaitForInput { .. }));
                if last && !asked {
                    self.end_step(at, "completed", 0);
                } else {
                    self.interrupt(at);
                }
            }
            Status::Suspended
            | Status::WaitingForInput
            | Status::Completed
            | Status::Failed
            | Status::Canceled => {}
        }
    }

    fn step(&mut self) -> Option<&mut Step> {
        self.steps.get_mut(self.current)
    }

    fn enter(&mut self, at: SystemTime, status: Status) {
        (self.status, self.since) = (status, at);
    }

    /// Starts a step; after the last one the task is completed.
    fn begin(&mut self, index: usize, at: SystemTime) {
        self.current = index;
        let Some(step) = self.steps.get_mut(index) else {
            return self.end(at, Status::Completed);
        };
        (step.status, step.started, step.ended, step.code) = ("inProgress", Some(at), None, None);
        self.log.line(
            at,
            &format!("KNAE08002-I Step {} {} started.", index + 1, step.name),
        );
        self.step_changed_at = Some(at);
        self.enter(at, Status::InProgress);
    }

    /// Handles the end of a step's duration: it completes, fails, waits for a response
    /// or continues.
    fn end_step_duration(&mut self, at: SystemTime) {
        let Some(step) = self.steps.get_mut(self.current) else {
            return self.end(at, Status::Completed);
        };
        if std::mem::take(&mut step.fails) {
            let name = step.name.clone();
            return self.fail_step(at, &format!("KNAE08004-E Step {name} failed."));
        }
        match &step.work {
            StepKind::Plain => self.end_step(at, "completed", 0),
            StepKind::Long => {
                self.log
                    .line(at, "KNAE08005-W The step takes longer than was expected.");
                self.enter(at, Status::LongRunning);
            }
            StepKind::WaitForInput { question, buttons } => {
                (step.status, step.comment) = ("waitingForInput", question.clone());
                self.log.line(
                    at,
                    &format!("KNAE08006-I {question} [{}]", buttons.join("] [")),
                );
                self.step_changed_at = Some(at);
                self.enter(at, Status::WaitingForInput);
            }
        }
    }

    fn end_step(&mut self, at: SystemTime, status: &'static str, code: i32) {
        let next = self.current + 1;
        if let Some(step) = self.step() {
            step.end(at, status, code);
            let line = format!("KNAE08003-I Step {next} {} ended with {code}.", step.name);
            self.log.line(at, &line);
        }
        self.step_changed_at = Some(at);
        self.begin(next, at);
    }

    fn fail_step(&mut self, at: SystemTime, line: &str) {
        if let Some(step) = self.step() {
            step.end(at, "failed", 1);
        }
        self.log.line(at, line);
        self.step_changed_at = Some(at);
        self.enter(at, Status::WithError);
    }

    fn interrupt(&mut self, at: SystemTime) {
        if let Some(step) = self.step() {
            step.end(at, "interrupted", 1);
        }
        self.step_changed_at = Some(at);
        self.end(at, Status::Failed);
    }

    fn end(&mut self, at: SystemTime, status: Status) {
        self.completed = Some(at);
        self.enter(at, status);
        let (event, line) = match status {
            Status::Completed => (Some(RunEvent::Completed), "KNAE08007-I The task completed."),
            Status::Canceled => (None, "KNAE08009-I The task was canceled."),
            _ => (Some(RunEvent::Failed), "KNAE08008-E The task failed."),
        };
        self.event.extend(event);
        self.log.line(at, line);
    }

    /// Returns whether an action is permitted now; the error says why not.
    pub fn allows(&self, action: &str) -> Result<(), ApiError> {
        // The conditions of resubmit are undocumented: always permitted.
        let allowed = action == "resubmit" || self.status.actions().contains(&action);
        allowed.then_some(()).ok_or_else(|| self.status.refuses())
    }

    /// Stops after the running step, or at once if forced.
    pub fn stop(&mut self, at: SystemTime, forced: bool) -> Result<(), ApiError> {
        self.allows(if forced { "forceStop" } else { "stop" })?;
        self.log.line(at, "KNAE08010-W The task is being stopped.");
        match forced {
            true => self.interrupt(at),
            false => self.enter(at, Status::Terminating),
        }
        Ok(())
    }

    /// Returns the step that waits for a response, with its buttons.
    pub fn question(&self) -> Result<(&Step, &[String]), ApiError> {
        self.allows("response")?;
        match self.steps.get(self.current) {
            Some(step) => match &step.work {
                StepKind::WaitForInput { buttons, .. } => Ok((step, buttons)),
                _ => Err(self.status.refuses()),
            },
            None => Err(self.status.refuses()),
        }
    }

    /// Responds with a button, by its index. The last of several fails the step.
    pub fn respond(&mut self, at: SystemTime, button: usize) -> Result<(), ApiError> {
        let (_, buttons) = self.question()?;
        let fails = buttons.len() > 1 && button + 1 == buttons.len();
        let label = buttons.get(button).cloned().unwrap_or_default();
        let line = format!("KNAE08011-I The response was {label}.");
        self.log.line(at, &line);
        match fails {
            true => self.fail_step(at, "KNAE08004-E The step ended with the response."),
            false => self.end_step(at, "completed", 0),
        }
        Ok(())
    }

    /// Reruns from the failed step, or from the one after it.
    pub fn rerun(&mut self, at: SystemTime, after: bool) -> Result<(), ApiError> {
        self.allows(if after {
            "rerunStepStart"
        } else {
            "rerunStart"
        })?;
        self.completed = None;
        self.log.line(at, "KNAE08012-I The task was started again.");
        self.begin(self.current + usize::from(after), at);
        Ok(())
    }

    pub fn cancel(&mut self, at: SystemTime) -> Result<(), ApiError> {
        match self.status {
            Status::Waiting | Status::Suspended => {
                self.end(at, Status::Canceled);
                Ok(())
            }
            other => Err(other.refuses()),
        }
    }

    pub fn suspend(&mut self, at: SystemTime) -> Result<(), ApiError> {
        match self.status {
            Status::Waiting => self.enter(at, Status::Suspended),
            Status::Suspended => {}
            other => return Err(other.refuses()),
        }
        Ok(())
    }

    /// Returns to waiting; an overdue task starts at the next `advance`.
    pub fn resume(&mut self, at: SystemTime) -> Result<(), ApiError> {
        match self.status {
            Status::Suspended => {
                self.scheduled = self.scheduled.max(at);
                self.enter(at, Status::Waiting);
                Ok(())
            }
            other => Err(other.refuses()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    const STEP: Duration = Duration::from_secs(2);

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn wait_for_input() -> StepKind {
        StepKind::WaitForInput {
            question: "Go on?".into(),
            buttons: vec!["Yes".into(), "No".into()],
        }
    }

    fn run(steps: &[StepKind]) -> Run {
        let steps = steps
            .iter()
            .enumerate()
            .map(|(at, work)| Step::new(at as u64, "s", work.clone()));
        Run::new(at(10), steps.collect())
    }

    /// An action on a run at a certain time.
    enum TimedAction {
        Nothing,
        Stop,
        Force,
        Yes,
        No,
        Rerun,
        RerunNext,
        Cancel,
        Suspend,
        Resume,
    }

    fn play(run: &mut Run, script: &[(u64, TimedAction, Status)]) {
        for (line, (time, act, want)) in script.iter().enumerate() {
            let now = at(*time);
            run.advance(now, STEP);
            let done = match act {
                TimedAction::Nothing => Ok(()),
                TimedAction::Stop => run.stop(now, false),
                TimedAction::Force => run.stop(now, true),
                TimedAction::Yes => run.respond(now, 0),
                TimedAction::No => run.respond(now, 1),
                TimedAction::Rerun => run.rerun(now, false),
                TimedAction::RerunNext => run.rerun(now, true),
                TimedAction::Cancel => run.cancel(now),
                TimedAction::Suspend => run.suspend(now),
                TimedAction::Resume => run.resume(now),
            };
            assert_eq!(done, Ok(()), "line {line}");
            assert_eq!(run.status, *want, "line {line}");
        }
    }

    #[test]
    fn status_follows_the_script() {
        use Status as S;
        use TimedAction::*;
        let mut failing = run(&[StepKind::Plain, StepKind::Plain]);
        failing.steps[0].fails = true;
        let mut failing_at_last = run(&[StepKind::Plain]);
        failing_at_last.steps[0].fails = true;
        for (name, mut run, script) in [
            (
                "nothing to do",
                run(&[]),
                vec![(9, Nothing, S::Waiting), (10, Nothing, S::Completed)],
            ),
            (
                "plain",
                run(&[StepKind::Plain, StepKind::Plain]),
                vec![
                    (10, Nothing, S::InProgress),
                    (13, Nothing, S::InProgress),
                    (14, Nothing, S::Completed),
                ],
            ),
            (
                "seen late",
                run(&[StepKind::Plain, StepKind::Plain]),
                vec![(9999, Nothing, S::Completed)],
            ),
            (
                "long",
                run(&[StepKind::Long]),
                vec![
                    (11, Nothing, S::InProgress),
                    (12, Nothing, S::LongRunning),
                    (14, Nothing, S::Completed),
                ],
            ),
            (
                "asks",
                run(&[StepKind::Plain, wait_for_input(), StepKind::Plain]),
                vec![
                    (14, Nothing, S::WaitingForInput),
                    (500, Nothing, S::WaitingForInput),
                    (500, Yes, S::InProgress),
                    (502, Nothing, S::Completed),
                ],
            ),
            (
                "is told no",
                run(&[wait_for_input(), StepKind::Plain]),
                vec![
                    (12, No, S::WithError),
                    (13, Nothing, S::WithError),
                    (14, Nothing, S::Failed),
                ],
            ),
            (
                "fails and is run again",
                failing,
                vec![
                    (12, Nothing, S::WithError),
                    (14, Nothing, S::Failed),
                    (20, Rerun, S::InProgress),
                    (24, Nothing, S::Completed),
                ],
            ),
            (
                "fails at last and is gone over",
                failing_at_last,
                vec![(14, Nothing, S::Failed), (20, RerunNext, S::Completed)],
            ),
            (
                "stopped",
                run(&[StepKind::Plain, StepKind::Plain]),
                vec![
                    (11, Stop, S::Terminating),
                    (12, Nothing, S::Terminating),
                    (13, Nothing, S::Failed),
                ],
            ),
            (
                "stopped at last",
                run(&[StepKind::Plain]),
                vec![(11, Stop, S::Terminating), (13, Nothing, S::Completed)],
            ),
            (
                "stopped while it asks",
                run(&[wait_for_input()]),
                vec![(12, Stop, S::Terminating), (14, Nothing, S::Failed)],
            ),
            (
                "forced",
                run(&[StepKind::Plain]),
                vec![(11, Force, S::Failed)],
            ),
            (
                "suspended",
                run(&[StepKind::Plain]),
                vec![
                    (5, Suspend, S::Suspended),
                    (50, Suspend, S::Suspended),
                    (60, Resume, S::Waiting),
                    (60, Nothing, S::InProgress),
                    (62, Nothing, S::Completed),
                ],
            ),
            (
                "canceled",
                run(&[StepKind::Plain]),
                vec![(5, Suspend, S::Suspended), (6, Cancel, S::Canceled)],
            ),
        ] {
            println!("{name}");
            play(&mut run, &script);
            assert_eq!(run.status.is_ended(), run.completed.is_some(), "{name}");
        }
    }

    /// Each action in each status that does not permit it.
    #[test]
    fn actions_conflict_with_other_statuses() {
        use Status as S;
        let all = [
            S::Waiting,
            S::Suspended,
            S::InProgress,
            S::WaitingForInput,
            S::WithError,
            S::Terminating,
            S::LongRunning,
            S::Completed,
            S::Failed,
            S::Canceled,
        ];
        type Act = fn(&mut Run) -> Result<(), ApiError>;
        let actions: [(&str, Act, &[Status]); 8] = [
            (
                "stop",
                |run| run.stop(at(20), false),
                &[S::InProgress, S::WaitingForInput, S::WithError],
            ),
            (
                "forceStop",
                |run| run.stop(at(20), true),
                &[S::InProgress, S::WaitingForInput, S::WithError],
            ),
            (
                "response",
                |run| run.respond(at(20), 0),
                &[S::WaitingForInput],
            ),
            ("rerunStart", |run| run.rerun(at(20), false), &[S::Failed]),
            (
                "rerunStepStart",
                |run| run.rerun(at(20), true),
                &[S::Failed],
            ),
            (
                "cancel",
                |run| run.cancel(at(20)),
                &[S::Waiting, S::Suspended],
            ),
            (
                "suspend",
                |run| run.suspend(at(20)),
                &[S::Waiting, S::Suspended],
            ),
            ("resume", |run| run.resume(at(20)), &[S::Suspended]),
        ];
        for status in all {
            for (name, act, allowed) in actions {
                let mut run = run(&[wait_for_input()]);
                run.status = status;
                assert_eq!(
                    act(&mut run).is_ok(),
                    allowed.contains(&status),
                    "{name} while {status:?}"
                );
            }
            let archived = [S::Completed, S::Failed, S::Canceled].contains(&status);
            assert_eq!(
                status.actions().contains(&"archive"),
                archived,
                "{status:?}"
            );
        }
    }

    #[test]
    fn each_event_is_reported_once() {
        let mut run = run(&[StepKind::Plain, StepKind::Plain]);
        run.advance(at(9999), STEP);
        assert_eq!(run.take_events(), [RunEvent::Started, RunEvent::Completed]);
        assert_eq!(run.take_events(), []);
        assert_eq!(
            (run.started, run.completed, run.step_changed_at),
            (Some(at(10)), Some(at(14)), Some(at(14)))
        );
        let codes: Vec<_> = run
            .steps
            .iter()
            .map(|step| (step.status, step.code, step.ended))
            .collect();
        assert_eq!(
            codes,
            [
                ("completed", Some(0), Some(at(12))),
                ("completed", Some(0), Some(at(14)))
            ]
        );
        assert_eq!(run.log.read(None, 1 << 20, false).lines().count(), 6);
    }
}
