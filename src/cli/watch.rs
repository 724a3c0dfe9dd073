//! `drawbridge watch`: a gRPC client of any running gateway that shows the progress of
//! resources, and whose exit code is their outcome.
//!
//! In reading order: `options` has the arguments, `stream_request` the streams of a resource of
//! the built-in families and `reflected` that of any watch rpc, `client` reads streams and resumes
//! them, `view` turns messages into lines, `render` writes these to a terminal or a pipe, and
//! `prompt` prompts for the response to the question of a task.

mod client;
mod options;
mod prompt;
mod reflected;
mod render;
mod stream_request;
mod view;

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use prost_reflect::{DynamicMessage, Kind, ReflectMessage as _, Value};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

use client::StreamEvent;
use drawbridge_transcoder::contract::Contract;
use options::Format;
pub use options::Options;
use prompt::Prompt;
use render::{Renderer, Style, duration};
use stream_request::{Message, Source, StreamRequest};
use view::{Line, Mark, Status, View};

use super::client::exit_code::{self, FAILED, INTERRUPTED, SUCCEEDED, TIMED_OUT, UNKNOWN};
use super::client::failure::Failure;
use super::client::gateway::Gateway;
use super::client::reflection::Api;
use super::client::text::{escape_json, sanitize};
use super::client::{names, request, rules, variable};

/// How long the other streams may take to end after that of the state.
const TRAILING_TIMEOUT: Duration = Duration::from_secs(20);
/// Interval at which the status line is redrawn, for the elapsed time in it.
const REDRAW_INTERVAL: Duration = Duration::from_secs(1);

/// Watches resources until their states are final, and returns the exit code: 0 succeeded, 1
/// failed, 2 unknown, 124 after `--timeout`, 130 interrupted.
pub async fn run(options: &Options, contract: &Contract) -> u8 {
    let out = std::io::stdout();
    let style = Style::of(out.is_terminal(), options.format(), &variable);
    let mut renderer = Renderer::new(out, style);
    if let Some(problem) = options.problem() {
        super::print_error(&sanitize(&problem));
        return UNKNOWN;
    }
    let mut prompt = Prompt::new(style, options);
    let mut subjects = built_in(options, contract, &prompt);
    let started = Instant::now();
    let timeout = async {
        match options.timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    let code = tokio::select! {
        code = follow(options, contract, &mut subjects, started, &mut renderer, &mut prompt) => code,
        () = timeout => TIMED_OUT,
        _ = tokio::signal::ctrl_c() => INTERRUPTED,
    };
    renderer.clear();
    let code = finish_all(&mut subjects, code, started, &mut renderer);
    if code == TIMED_OUT {
        let problem = timeout_text(&subjects, &duration(started.elapsed()));
        print_error(&mut renderer, &problem);
    }
    code
}

/// Finishes the subjects that have no exit code yet. Returns that of the command, which ends with
/// this one.
fn finish_all<W: Write>(
    subjects: &mut [Subject],
    code: u8,
    started: Instant,
    renderer: &mut Renderer<W>,
) -> u8 {
    let mut is_unfinished = subjects.is_empty();
    for subject in subjects.iter_mut().filter(|subject| subject.code.is_none()) {
        // Its state is final, and only its events or its log have not ended.
        let outcome = subject.outcome.filter(|_| code == TIMED_OUT);
        is_unfinished |= outcome.is_none();
        subject.finish(outcome.unwrap_or(code), started, renderer);
    }
    match code == TIMED_OUT && !is_unfinished {
        true => exit_code::of_all(subjects.iter().filter_map(|subject| subject.code)),
        false => code,
    }
}

/// Says that `--timeout` has ended the watch, with the last state of each subject without an
/// outcome.
fn timeout_text(subjects: &[Subject], elapsed: &str) -> String {
    let unfinished = || {
        let subjects = subjects.iter();
        subjects.filter(|subject| subject.code == Some(TIMED_OUT))
    };
    let states: Vec<String> = unfinished()
        .map(|subject| match subject.view.last_state() {
            Some(state) if subjects.len() == 1 => format!("the last state is {state}"),
            Some(state) => format!("{} is {state}", subject.view.title()),
            None if subjects.len() == 1 => "no state was read".to_owned(),
            None => format!("of {} no state was read", subject.view.title()),
        })
        .collect();
    let states = match states.is_empty() {
        true => "no state was read".to_owned(),
        false => states.join(", "),
    };
    // A watch without a final state cannot miss it.
    match unfinished().count() > 0 && unfinished().all(|subject| subject.is_endless) {
        true => format!("watched for {elapsed} (--timeout): {states}"),
        false => format!("no final state within {elapsed} (--timeout): {states}"),
    }
}

/// A resource that is watched, or the stream of an rpc.
struct Subject {
    /// The name that `-o name` prints.
    name: String,
    /// Whether lines about parts of it have its name, because there are several subjects.
    is_named: bool,
    /// The watch does not end by itself.
    is_endless: bool,
    view: View,
    /// The streams that are not open yet.
    streams: VecDeque<StreamRequest>,
    /// The number of open streams.
    open: usize,
    /// The outcome, until the other streams have ended.
    outcome: Option<u8>,
    /// When the other streams are no longer waited for.
    trailing_end: Option<Instant>,
    /// The exit code, once it is finished.
    code: Option<u8>,
}

impl Subject {
    fn new(name: String, view: View, streams: Vec<StreamRequest>) -> Self {
        Self {
            name,
            is_named: false,
            is_endless: false,
            view,
            streams: streams.into(),
            open: 0,
            outcome: None,
            trailing_end: None,
            code: None,
        }
    }

    /// Writes a line. Returns false if the reader has closed the pipe.
    fn line<W: Write>(&self, line: &Line, renderer: &mut Renderer<W>) -> bool {
        if !self.is_named || line.subject == self.view.title() {
            return renderer.line(line);
        }
        let mut line = line.clone();
        let part = match line.subject.is_empty() {
            true => &mut line.reason,
            false => &mut line.subject,
        };
        part.insert_str(0, &sanitize(&format!("{}: ", self.name)));
        renderer.line(&line)
    }

    /// Prints what follows the last stream: the final state, outputs and a summary.
    fn finish<W: Write>(&mut self, code: u8, started: Instant, renderer: &mut Renderer<W>) {
        self.code = Some(code);
        let end = match code {
            SUCCEEDED => "succeeded",
            FAILED => "failed",
            UNKNOWN => "has no outcome",
            TIMED_OUT => "timed out",
            _ => "interrupted",
        };
        match renderer.format() {
            Some(Format::Json) => {}
            Some(Format::Name) if code == SUCCEEDED => {
                renderer.text(&sanitize(&self.name));
            }
            Some(Format::Name) => {}
            None => {
                let elapsed = duration(started.elapsed());
                let last = self.view.end();
                let outputs = self.view.output_lines(code == SUCCEEDED);
                // A reader that has closed the pipe needs none of them.
                let _ = (last.iter())
                    .chain(&outputs)
                    .chain(&self.view.summary(end, &elapsed))
                    .all(|line| self.line(line, renderer));
            }
        }
    }
}

/// Returns the resources of the built-in families that are to be watched.
fn built_in(options: &Options, contract: &Contract, prompt: &Prompt) -> Vec<Subject> {
    let Some(subject) = &options.subject else {
        return Vec::new();
    };
    let names = subject.names().into_iter().map(|name| {
        let has_json = options.format() == Some(Format::Json);
        let project = options.project.as_deref();
        let streams = stream_request::built_in(contract, subject, &name, project, has_json);
        let has_events = streams.iter().any(|stream| stream.source == Source::Events);
        let title = format!("{} {name}", subject.kind());
        let view = View::new(&title, prompt.answer(), has_events);
        Subject::new(name, view, streams)
    });
    names.collect()
}

/// Returns the watches of an rpc, one per request.
async fn of_rpc(
    options: &Options,
    rpc: &str,
    contract: &Contract,
    gateway: &mut Gateway,
    prompt: &Prompt,
) -> Result<Vec<Subject>, Failure> {
    let api = Api::load(gateway, Some(rpc)).await?;
    let method = names::method(&api, rpc)?;
    gateway.set_upstream(options.upstream.of(&method)?)?;
    let short = names::short_name(&method);
    let has_json = options.format() == Some(Format::Json);
    let mut requests = request::all(&method.input(), &options.requests, &options.data).await?;
    if let Some(project) = &options.project {
        for request in &mut requests {
            set_project(request, project).map_err(Failure::unknown)?;
        }
    }
    // A second watch of the same shows the same. One that begins with a call makes it again.
    let watch = rules::rule(&method, "watch");
    let begins_with_call = watch.is_some_and(|watch| watch.has_field_by_name("start"));
    let mut unique: Vec<DynamicMessage> = Vec::new();
    for request in requests {
        if begins_with_call || !unique.contains(&request) {
            unique.push(request);
        }
    }
    let subjects = unique.iter().map(|request| {
        let stream = reflected::stream_request(&method, request, contract, has_json);
        let stream = stream.ok_or_else(|| {
            let problem = format!("{short} is no watch: use `drawbridge call {short}`");
            Failure::unknown(problem)
        })?;
        let name = reflected::name(&method, request);
        let title = match name == method.name() {
            true => name.clone(),
            false => format!("{} {name}", method.name()),
        };
        let view = View::new(&title, prompt.answer(), false);
        Ok(Subject {
            is_endless: !rules::ends(&method),
            ..Subject::new(name, view, vec![stream])
        })
    });
    subjects.collect()
}

/// Sets the field `project_id` of a request.
fn set_project(request: &mut DynamicMessage, project: &str) -> Result<(), String> {
    let descriptor = request.descriptor();
    let field = descriptor.get_field_by_name("project_id");
    let field = field.filter(|field| !field.is_list() && field.kind() == Kind::String);
    let Some(field) = field else {
        let name = descriptor.name();
        return Err(format!("--project: {name} has no field project_id"));
    };
    if request.has_field(&field) {
        return Err("--project: the request has a project_id already".to_owned());
    }
    request.set_field(&field, Value::String(project.to_owned()));
    Ok(())
}

/// Connects, and finds the watches of an rpc.
async fn connect(
    options: &Options,
    contract: &Contract,
    subjects: &mut Vec<Subject>,
    prompt: &Prompt,
) -> Result<Gateway, Failure> {
    let gateway = Gateway::connect(&options.connection, &variable).await;
    let mut gateway = gateway.map_err(Failure::unknown)?;
    match &options.method {
        Some(rpc) => *subjects = of_rpc(options, rpc, contract, &mut gateway, prompt).await?,
        None => gateway.set_upstream(options.upstream.upstream.as_deref())?,
    }
    Ok(gateway)
}

/// Opens the streams of all subjects, and shows their messages until all have ended.
async fn follow<W: Write>(
    options: &Options,
    contract: &Contract,
    subjects: &mut Vec<Subject>,
    started: Instant,
    renderer: &mut Renderer<W>,
    prompt: &mut Prompt,
) -> u8 {
    renderer.status(status(subjects));
    let gateway = match connect(options, contract, subjects, prompt).await {
        Ok(gateway) => Arc::new(gateway),
        Err(failure) => {
            print_lines(renderer, &failure.lines);
            return failure.code;
        }
    };
    prompt.connect(&gateway);
    let (sender, events) = mpsc::channel(256);
    let mut streams = Streams {
        gateway,
        sender,
        opened: Vec::new(),
    };
    let is_named = subjects.len() > 1;
    for (index, subject) in subjects.iter_mut().enumerate() {
        subject.is_named = is_named;
        match subject.streams.pop_front() {
            Some(stream) => streams.open(index, subject, stream),
            None => {
                print_error(renderer, "the contract has no such watch");
                return UNKNOWN;
            }
        }
    }
    show_all(subjects, streams, events, started, renderer, prompt).await
}

/// The opened streams. Their index identifies their messages.
struct Streams {
    gateway: Arc<Gateway>,
    sender: mpsc::Sender<(usize, StreamEvent)>,
    opened: Vec<Stream>,
}

#[derive(Clone)]
struct Stream {
    /// The index of the subject.
    subject: usize,
    source: Source,
    name: String,
    /// Whether the subject ends with this stream.
    is_main: bool,
}

impl Streams {
    fn open(&mut self, index: usize, subject: &mut Subject, request: StreamRequest) {
        let id = self.opened.len();
        let is_first = |stream: &Stream| stream.subject == index;
        self.opened.push(Stream {
            subject: index,
            source: request.source,
            name: request.name.clone(),
            is_main: !self.opened.iter().any(is_first),
        });
        subject.open += 1;
        let (gateway, sender) = (Arc::clone(&self.gateway), self.sender.clone());
        tokio::spawn(client::follow(gateway, request, id, sender));
    }
}

/// Shows the messages of all streams. Returns the exit code once all have ended.
async fn show_all<W: Write>(
    subjects: &mut [Subject],
    mut streams: Streams,
    mut events: mpsc::Receiver<(usize, StreamEvent)>,
    started: Instant,
    renderer: &mut Renderer<W>,
    prompt: &mut Prompt,
) -> u8 {
    let is_one = subjects.len() == 1;
    let mut last_problem = None;
    let mut frames = tokio::time::interval(REDRAW_INTERVAL);
    frames.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut sizes = TerminalSizes::new();
    while subjects.iter().any(|subject| subject.code.is_none()) {
        let unfinished = subjects.iter().filter(|subject| subject.code.is_none());
        let trailing_end = unfinished.filter_map(|subject| subject.trailing_end).min();
        let timeout = async {
            match trailing_end {
                Some(end) => tokio::time::sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        let unfinished = subjects.iter().filter(|subject| subject.code.is_none());
        prompt.update(unfinished.filter_map(|subject| subject.view.question()));
        renderer.prompt(prompt.text());
        let event = tokio::select! {
            event = events.recv() => event,
            input = prompt.next() => {
                renderer.prompt(None);
                let lines = prompt.handle(input);
                print_lines(renderer, &lines);
                continue;
            }
            _ = frames.tick(), if renderer.has_status_line() => {
                renderer.redraw();
                continue;
            }
            () = sizes.changed(), if renderer.has_status_line() => {
                renderer.redraw();
                continue;
            }
            () = timeout => None,
        };
        let Some((id, event)) = event else {
            // The other streams of a subject take too long.
            let now = Instant::now();
            for subject in subjects.iter_mut() {
                if subject.code.is_none() && subject.trailing_end.is_some_and(|end| end <= now) {
                    let code = subject.outcome.unwrap_or(UNKNOWN);
                    subject.finish(code, started, renderer);
                }
            }
            continue;
        };
        let stream = streams.opened[id].clone();
        let Some(subject) = subjects.get_mut(stream.subject) else {
            continue;
        };
        if subject.code.is_some() {
            continue;
        }
        let title = match is_one {
            true => String::new(),
            false => format!("{}: ", subject.view.title()),
        };
        let mut is_open = true;
        match event {
            StreamEvent::Message(message) => {
                last_problem = None;
                // The resource exists. The other streams begin now: what is wrong with all of
                // them is reported once.
                while let Some(next) = subject.streams.pop_front() {
                    streams.open(stream.subject, subject, next);
                }
                is_open = show(subject, &stream, &message, is_one, renderer);
            }
            StreamEvent::Retry(problem) => {
                // All streams break with their connection.
                if last_problem.as_ref() != Some(&problem) {
                    let text = format!("{title}{}: {problem}; retrying", stream.name);
                    print_error(renderer, &text);
                    last_problem = Some(problem);
                }
            }
            StreamEvent::End(Ok(())) => {
                subject.open -= 1;
                if stream.is_main {
                    let code = match (subject.view.outcome(), stream.source) {
                        (Some(true), _) => SUCCEEDED,
                        (Some(false), _) => FAILED,
                        // These end by themselves, and need not have an outcome.
                        (None, Source::Items | Source::Log) => SUCCEEDED,
                        (None, _) => UNKNOWN,
                    };
                    if code == UNKNOWN {
                        let problem = "the stream ended without an outcome";
                        print_error(renderer, &format!("{title}{problem}"));
                    }
                    subject.outcome = Some(code);
                }
            }
            StreamEvent::End(Err(mut lines)) => {
                subject.open -= 1;
                if stream.is_main {
                    if let Some(first) = lines.first_mut() {
                        first.insert_str(0, &title);
                    }
                    print_lines(renderer, &lines);
                    subject.finish(UNKNOWN, started, renderer);
                } else {
                    // The view continues without this stream.
                    let problem = lines.first().map_or("", |line| line);
                    print_error(renderer, &format!("{title}{}: {problem}", stream.name));
                    if stream.source == Source::Events
                        && let Some(line) = subject.view.events_failed()
                        && renderer.format().is_none()
                    {
                        is_open = subject.line(&line, renderer);
                    }
                }
            }
        }
        if !is_open {
            return UNKNOWN;
        }
        if let Some(code) = subject.outcome
            && subject.code.is_none()
        {
            match subject.open {
                0 => subject.finish(code, started, renderer),
                _ => {
                    let end = Instant::now() + TRAILING_TIMEOUT;
                    subject.trailing_end.get_or_insert(end);
                }
            }
        }
        renderer.status(status(subjects));
    }
    exit_code::of_all(subjects.iter().filter_map(|subject| subject.code))
}

/// Returns the status line: that of the resource, or how many of several are final.
fn status(subjects: &[Subject]) -> Status {
    match subjects {
        [] => Status {
            state: "waiting".to_owned(),
            mark: Mark::Progress,
            ..Status::default()
        },
        [one] => one.view.status(),
        several => {
            let unfinished = several.iter().filter(|subject| subject.code.is_none());
            let states: Vec<String> = unfinished
                .map(|subject| format!("{} {}", subject.name, subject.view.status().state))
                .collect();
            let done = several.len() - states.len();
            Status {
                subject: "watched".to_owned(),
                state: states.join(", "),
                mark: Mark::Progress,
                parts: Some((done as u64, several.len() as u64)),
                unconfirmed: None,
            }
        }
    }
}

/// Signals that the terminal has another size.
struct TerminalSizes {
    #[cfg(unix)]
    signals: Option<tokio::signal::unix::Signal>,
}

impl TerminalSizes {
    fn new() -> Self {
        Self {
            #[cfg(unix)]
            signals: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::window_change())
                .ok(),
        }
    }

    /// Completes at the next change. Without such signals it never does: the next redraw
    /// uses the new size.
    async fn changed(&mut self) {
        #[cfg(unix)]
        if let Some(signals) = &mut self.signals
            && signals.recv().await.is_some()
        {
            return;
        }
        std::future::pending().await
    }
}

/// Shows a message. Returns false if the reader has closed the pipe.
fn show<W: Write>(
    subject: &mut Subject,
    stream: &Stream,
    message: &Message,
    is_one: bool,
    renderer: &mut Renderer<W>,
) -> bool {
    let lines = subject.view.apply(stream.source, &message.json);
    if stream.is_main && stream.source == Source::Log {
        subject.view.note_outcome(&message.json);
    }
    match (renderer.format(), &message.proto_json) {
        (Some(Format::Json), Some(message)) => {
            let line = match is_one {
                true => json!({ "stream": stream.name, "message": message }),
                false => json!({ "subject": subject.view.title(), "stream": stream.name,
                    "message": message }),
            };
            renderer.text(&escape_json(&line.to_string()))
        }
        (Some(_), _) => true,
        (None, _) => lines.iter().all(|line| subject.line(line, renderer)),
    }
}

/// Writes lines to standard error, the first with the name of the program.
fn print_lines<W: Write>(renderer: &mut Renderer<W>, lines: &[String]) {
    let Some((first, details)) = lines.split_first() else {
        return;
    };
    print_error(renderer, first);
    renderer.suspend(|| {
        for line in details {
            crate::telemetry::print_line(&sanitize(line));
        }
        crate::telemetry::flush(super::MAX_FLUSH_TIME);
    });
}

/// Writes to standard error, which can be the terminal of the status line.
fn print_error<W: Write>(renderer: &mut Renderer<W>, text: &str) {
    renderer.suspend(|| {
        super::print_error(&sanitize(text));
        // The status line returns below it.
        crate::telemetry::flush(super::MAX_FLUSH_TIME);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A final state that was read in time counts, although its events or its log have not ended.
    #[test]
    fn timeout_is_for_states_that_are_not_final() {
        let subject = |outcome: Option<u8>, state: &str| {
            let mut view = View::new("stack s", None, true);
            let state = json!({"event": {"type": "INITIAL"}, "stack": {"stack_status": state}});
            view.apply(Source::State, &state);
            Subject {
                outcome,
                ..Subject::new("s".to_owned(), view, Vec::new())
            }
        };
        let done = || subject(Some(SUCCEEDED), "CREATE_COMPLETE");
        let failed = || subject(Some(FAILED), "CREATE_FAILED");
        let busy = || subject(None, "CREATE_IN_PROGRESS");
        for (mut subjects, code, want) in [
            (vec![done()], TIMED_OUT, SUCCEEDED),
            (vec![done(), failed()], TIMED_OUT, FAILED),
            (vec![done(), busy()], TIMED_OUT, TIMED_OUT),
            (vec![busy()], TIMED_OUT, TIMED_OUT),
            (vec![], TIMED_OUT, TIMED_OUT),
            (vec![done()], INTERRUPTED, INTERRUPTED),
            (vec![], UNKNOWN, UNKNOWN),
        ] {
            let style = Style::of(false, None, &|_| None);
            let mut renderer = Renderer::new(Vec::new(), style);
            let got = finish_all(&mut subjects, code, Instant::now(), &mut renderer);
            assert_eq!(got, want);
            assert!(subjects.iter().all(|subject| subject.code.is_some()));
        }
        let text = |endless: bool| {
            let mut subjects = [busy(), done()];
            subjects[0].is_endless = endless;
            let style = Style::of(false, None, &|_| None);
            let mut renderer = Renderer::new(Vec::new(), style);
            finish_all(&mut subjects, TIMED_OUT, Instant::now(), &mut renderer);
            timeout_text(&subjects, "2s")
        };
        let state = "(--timeout): stack s is CREATE_IN_PROGRESS";
        assert_eq!(text(false), format!("no final state within 2s {state}"));
        assert_eq!(text(true), format!("watched for 2s {state}"));
    }

    #[test]
    fn project_is_set_where_the_request_has_the_field() {
        let pool = prost_reflect::DescriptorPool::decode(crate::contract::BUILT_IN).unwrap();
        let request = |name: &str| DynamicMessage::new(pool.get_message_by_name(name).unwrap());
        let mut stack = request("openstack.orchestration.v1.WatchStackRequest");
        set_project(&mut stack, "p").unwrap();
        let value = stack.get_field_by_name("project_id").unwrap().into_owned();
        assert_eq!(value, Value::String("p".into()));
        let problem = set_project(&mut stack, "p").unwrap_err();
        assert_eq!(problem, "--project: the request has a project_id already");
        let mut task = request("hitachi.automation.v1.WatchTaskRequest");
        let problem = set_project(&mut task, "p").unwrap_err();
        let want = "--project: WatchTaskRequest has no field project_id";
        assert_eq!(problem, want);
    }
}
