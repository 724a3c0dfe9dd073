//! `drawbridge watch`: a gRPC client of any running gateway that shows the progress of
//! resources, and whose exit code is their outcome.
//!
//! In reading order: `options` has the arguments, `stream_request` the streams of a resource of
//! the built-in families and `reflected` that of any watch rpc, `client` reads streams and resumes
//! them, `view` turns messages into lines, `render` writes these to a terminal or a pipe.

mod client;
mod options;
mod reflected;
mod render;
mod stream_request;
mod view;

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

use client::StreamEvent;
use drawbridge_transcoder::contract::Contract;
use options::Format;
pub use options::Options;
use render::{Renderer, Style, duration};
use stream_request::{Message, Source, StreamRequest};
use view::{Line, Mark, Status, View};

use super::client::exit_code::{self, FAILED, INTERRUPTED, SUCCEEDED, TIMED_OUT, UNKNOWN};
use super::client::failure::Failure;
use super::client::gateway::Gateway;
use super::client::reflection::Api;
use super::client::text::{escape_json, sanitize};
use super::client::{names, request, variable};

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
    let mut subjects = built_in(options, contract);
    let started = Instant::now();
    let timeout = async {
        match options.timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    let code = tokio::select! {
        code = follow(options, &mut subjects, started, &mut renderer) => code,
        () = timeout => TIMED_OUT,
        _ = tokio::signal::ctrl_c() => INTERRUPTED,
    };
    renderer.clear();
    for subject in subjects.iter_mut().filter(|subject| subject.code.is_none()) {
        subject.finish(code, started, &mut renderer);
    }
    if code == TIMED_OUT {
        let elapsed = duration(started.elapsed());
        let unfinished = subjects.iter().filter(|subject| subject.code == Some(code));
        let last: Vec<String> = unfinished
            .map(|subject| match subject.view.last_state() {
                Some(state) if subjects.len() == 1 => format!("the last state is {state}"),
                Some(state) => format!("{} is {state}", subject.view.title()),
                None if subjects.len() == 1 => "no state was read".to_owned(),
                None => format!("of {} no state was read", subject.view.title()),
            })
            .collect();
        let last = match last.is_empty() {
            true => "no state was read".to_owned(),
            false => last.join(", "),
        };
        let problem = format!("no final state within {elapsed} (--timeout): {last}");
        print_error(&renderer, &problem);
    }
    code
}

/// A resource that is watched, or the stream of an rpc.
struct Subject {
    /// The name that `-o name` prints.
    name: String,
    /// Whether lines about parts of it have its name, because there are several subjects.
    is_named: bool,
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
fn built_in(options: &Options, contract: &Contract) -> Vec<Subject> {
    let Some(subject) = &options.subject else {
        return Vec::new();
    };
    let names = subject.names().into_iter().map(|name| {
        let has_json = options.format() == Some(Format::Json);
        let project = options.project.as_deref();
        let streams = stream_request::built_in(contract, subject, &name, project, has_json);
        let has_events = streams.iter().any(|stream| stream.source == Source::Events);
        let title = format!("{} {name}", subject.kind());
        let view = View::new(&title, options.answer(&name), has_events);
        Subject::new(name, view, streams)
    });
    names.collect()
}

/// Returns the watches of an rpc, one per request.
async fn of_rpc(options: &Options, rpc: &str, gateway: &Gateway) -> Result<Vec<Subject>, Failure> {
    let api = Api::load(gateway, Some(rpc)).await?;
    let method = names::method(&api, rpc)?;
    let short = names::short_name(&method);
    let has_json = options.format() == Some(Format::Json);
    let requests = request::all(&method.input(), &options.requests, &options.data).await?;
    let subjects = requests.iter().map(|request| {
        let stream = reflected::stream_request(&method, request, has_json);
        let stream = stream.ok_or_else(|| {
            let problem = format!("{short} is no watch: use `drawbridge call {short}`");
            Failure::unknown(problem)
        })?;
        let name = reflected::name(&method, request);
        let title = match name == method.name() {
            true => name.clone(),
            false => format!("{} {name}", method.name()),
        };
        let view = View::new(&title, None, false);
        Ok(Subject::new(name, view, vec![stream]))
    });
    subjects.collect()
}

/// Opens the streams of all subjects, and shows their messages until all have ended.
async fn follow<W: Write>(
    options: &Options,
    subjects: &mut Vec<Subject>,
    started: Instant,
    renderer: &mut Renderer<W>,
) -> u8 {
    renderer.status(status(subjects));
    let gateway = match Gateway::connect(&options.connection, &variable).await {
        Ok(gateway) => Arc::new(gateway),
        Err(problem) => {
            print_error(renderer, &problem);
            return UNKNOWN;
        }
    };
    if let Some(rpc) = &options.method {
        match of_rpc(options, rpc, &gateway).await {
            Ok(found) => *subjects = found,
            Err(failure) => {
                print_lines(renderer, &failure.lines);
                return failure.code;
            }
        }
    }
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
    show_all(subjects, streams, events, started, renderer).await
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
        let event = tokio::select! {
            event = events.recv() => event,
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
fn print_lines<W: Write>(renderer: &Renderer<W>, lines: &[String]) {
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
fn print_error<W: Write>(renderer: &Renderer<W>, text: &str) {
    renderer.suspend(|| {
        super::print_error(&sanitize(text));
        // The status line returns below it.
        crate::telemetry::flush(super::MAX_FLUSH_TIME);
    });
}
