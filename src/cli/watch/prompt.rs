//! Prompts for the response to the question of a task, where standard input and output are a
//! terminal.

use std::io::IsTerminal as _;
use std::sync::Arc;

use bytes::Bytes;
use drawbridge_transcoder::contract::Contract;
use drawbridge_transcoder::json;
use tokio::sync::{mpsc, oneshot};
use tonic::codegen::http::uri::PathAndQuery;

use super::options::{Answer, Options, RESPOND};
use super::render::Style;
use super::view::Question;
use crate::cli::client::gateway::Gateway;
use crate::cli::client::text::sanitize;
use crate::server::WireCodec;

/// What a person types, and the ends of calls.
pub(super) struct Prompt {
    /// Whether a person can respond.
    is_interactive: bool,
    /// The command that gives a response elsewhere.
    answer: Answer,
    gateway: Option<Arc<Gateway>>,
    /// The typed lines, from the first question on. Closed at the end of the input.
    lines: Option<mpsc::UnboundedReceiver<String>>,
    state: State,
}

/// The states of a prompt.
enum State {
    /// No question is open. `Asking` comes next.
    Idle,
    /// A question waits for a line. `Sending` comes next, or `Idle` if another client has
    /// responded.
    Asking(Question),
    /// The response is sent. `Sent` comes next, or `Asking` after an error.
    Sending(Question, oneshot::Receiver<Result<(), Vec<String>>>),
    /// A response was sent to the question, or none can be typed. `Idle` comes next, when the
    /// question has gone.
    Sent(Question),
}

/// An event of the prompt.
pub(super) enum Input {
    /// A line; none at the end of the input.
    Line(Option<String>),
    /// The call has ended.
    Sent(Result<(), Vec<String>>),
}

impl Prompt {
    pub(super) fn new(style: Style, options: &Options) -> Self {
        let is_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        Self {
            is_interactive: is_terminal && style.is_for_people() && is_in_foreground(),
            answer: options.answer(),
            gateway: None,
            lines: None,
            state: State::Idle,
        }
    }

    pub(super) fn connect(&mut self, gateway: &Arc<Gateway>) {
        self.gateway = Some(Arc::clone(gateway));
    }

    /// Returns the command to print instead of a prompt.
    pub(super) fn answer(&self) -> Option<Answer> {
        (!self.is_interactive).then(|| self.answer.clone())
    }

    /// Notes the questions that are open now, and prompts for the first one.
    pub(super) fn update<'q>(&mut self, mut open: impl Iterator<Item = &'q Question>) {
        if !self.is_interactive {
            return;
        }
        let question = match &self.state {
            State::Idle => None,
            State::Asking(question) | State::Sending(question, _) | State::Sent(question) => {
                Some(question)
            }
        };
        let mut first = None;
        let is_open = open.any(|one| {
            first.get_or_insert_with(|| one.clone());
            Some(one) == question
        });
        if is_open {
            return;
        }
        self.state = match first {
            None => State::Idle,
            Some(question) => {
                discard_input();
                match &mut self.lines {
                    // They were typed before the question.
                    Some(lines) => while lines.try_recv().is_ok() {},
                    None => self.lines = Some(read_lines()),
                }
                State::Asking(question)
            }
        };
    }

    /// Returns the text of the prompt.
    pub(super) fn text(&self) -> Option<String> {
        match &self.state {
            State::Asking(question) => Some(match question.responses.len() {
                1 => format!("task {}: respond with 1:", question.task),
                count => format!("task {}: respond with 1 to {count}:", question.task),
            }),
            _ => None,
        }
    }

    /// Waits for a line or the end of the call; forever if none is expected.
    pub(super) async fn next(&mut self) -> Input {
        match (&mut self.state, &mut self.lines) {
            (State::Asking(_), Some(lines)) => Input::Line(lines.recv().await),
            (State::Sending(_, sent), _) => {
                let lost = || Err(vec!["the call was not made".to_owned()]);
                Input::Sent(sent.await.unwrap_or_else(|_| lost()))
            }
            _ => std::future::pending().await,
        }
    }

    /// Handles an event. Returns lines to print.
    pub(super) fn handle(&mut self, input: Input) -> Vec<String> {
        let state = std::mem::replace(&mut self.state, State::Idle);
        let (state, lines) = match (state, input) {
            (State::Asking(question), Input::Line(Some(line))) => match find(&question, &line) {
                Found::Label(label) => {
                    let sent = self.respond(question.task, label);
                    (State::Sending(question, sent), Vec::new())
                }
                Found::Nothing => (State::Asking(question), Vec::new()),
                Found::Unknown => {
                    let problem = format!("{} is no response", sanitize(line.trim()));
                    (State::Asking(question), vec![problem])
                }
            },
            (State::Asking(question), Input::Line(None)) => {
                // Ctrl-D: the response can still be given elsewhere.
                let labels = question.responses.iter();
                let commands = labels.map(|(label, _)| self.answer.command(question.task, label));
                let mut lines = vec!["respond with one of these:".to_owned()];
                lines.extend(commands.map(|command| format!("  {command}")));
                (State::Sent(question), lines)
            }
            (State::Sending(question, _), Input::Sent(Ok(()))) => {
                (State::Sent(question), Vec::new())
            }
            (State::Sending(question, _), Input::Sent(Err(lines))) => {
                (State::Asking(question), lines)
            }
            (state, _) => (state, Vec::new()),
        };
        self.state = state;
        lines
    }

    /// Sends a response.
    fn respond(&self, task: u64, label: String) -> oneshot::Receiver<Result<(), Vec<String>>> {
        let (sender, receiver) = oneshot::channel();
        if let Some(gateway) = self.gateway.clone() {
            tokio::spawn(async move {
                // The watch may have ended.
                let _ = sender.send(respond(&gateway, task, &label).await);
            });
        }
        receiver
    }
}

/// The response that a line selects.
enum Found {
    Label(String),
    /// The line is empty.
    Nothing,
    Unknown,
}

/// Finds a response by its number, its text or its label.
fn find(question: &Question, line: &str) -> Found {
    let line = line.trim();
    if line.is_empty() {
        return Found::Nothing;
    }
    let is_meant = |(number, (label, text)): &(usize, &(String, String))| {
        line == (number + 1).to_string() || line.eq_ignore_ascii_case(text) || line == label
    };
    match question.responses.iter().enumerate().find(is_meant) {
        Some((_, (label, _))) => Found::Label(label.clone()),
        None => Found::Unknown,
    }
}

/// Selects a button of a task. Fails with lines that say why.
async fn respond(gateway: &Gateway, task: u64, label: &str) -> Result<(), Vec<String>> {
    let one = |problem: String| vec![problem];
    let contract: Contract = crate::contract::with_built_in(&[])?;
    let path = format!("/{RESPOND}");
    let method = contract.method(&path);
    let method = method.ok_or_else(|| one("the contract has no such rpc".to_owned()))?;
    // Names of the REST API.
    let document = serde_json::json!({"id": task, "labels": {label: "true"}});
    let mut request = Vec::new();
    let text = document.to_string();
    json::to_wire(&method.schema, method.input, text.as_bytes(), &mut request)
        .map_err(|problem| one(problem.to_string()))?;
    let path = PathAndQuery::try_from(path).map_err(|e| one(e.to_string()))?;
    let mut grpc = gateway.grpc();
    grpc.ready().await.map_err(|e| one(e.to_string()))?;
    let request = gateway.request(Bytes::from(request));
    match grpc.unary(request, path, WireCodec::stream()).await {
        Ok(_) => Ok(()),
        Err(status) => Err(gateway.describe(&status).await),
    }
}

/// Discards the input that was typed before a question: it does not respond to it.
fn discard_input() {
    #[cfg(unix)]
    {
        use rustix::termios::{QueueSelector, tcflush};
        // A terminal that was closed has none.
        let _ = tcflush(std::io::stdin(), QueueSelector::IFlush);
    }
}

/// Reads the lines of standard input from now on. The thread ends with the process.
fn read_lines() -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            let Ok(line) = line else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Returns whether the process may read the terminal: one in the background would be stopped.
fn is_in_foreground() -> bool {
    #[cfg(unix)]
    {
        let foreground = rustix::termios::tcgetpgrp(std::io::stdin());
        // None of a terminal that is not that of the session.
        foreground.map_or(true, |group| group == rustix::process::getpgrp())
    }
    #[cfg(not(unix))]
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn response_is_selected_by_number_text_or_label() {
        let responses = [("labelbutton1", "Continue"), ("labelbutton2", "Cancel")];
        let question = Question {
            task: 7,
            responses: responses
                .map(|(label, text)| (label.into(), text.into()))
                .into(),
        };
        for (line, want) in [
            ("1", Some("labelbutton1")),
            (" 2 ", Some("labelbutton2")),
            ("cancel", Some("labelbutton2")),
            ("labelbutton1", Some("labelbutton1")),
            ("", Some("")),
            ("3", None),
            ("0", None),
            ("yes", None),
        ] {
            let found = match find(&question, line) {
                Found::Label(label) => Some(label),
                Found::Nothing => Some(String::new()),
                Found::Unknown => None,
            };
            assert_eq!(found.as_deref(), want, "{line}");
        }
    }
}
