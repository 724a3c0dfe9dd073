//! `drawbridge watch`: a gRPC client of any running gateway that shows the progress of a
//! resource, and whose exit code is its outcome.
//!
//! In reading order: `options` has the arguments, `client` reads streams and resumes them,
//! `view` turns messages into lines, `render` writes these to a terminal or a pipe.

mod client;
mod options;
mod render;
mod view;

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

use client::{Message, StreamEvent};
use drawbridge_transcoder::contract::Contract;
pub use options::Options;
use options::{Source, StreamRequest};
use render::{Renderer, Style, duration};
use view::View;

use super::client::exit_code::{FAILED, INTERRUPTED, SUCCEEDED, TIMED_OUT, UNKNOWN};
use super::client::gateway::Gateway;
use super::client::text::sanitize;
use super::client::variable;

/// How long the other streams may take to end after that of the state.
const TRAILING_TIMEOUT: Duration = Duration::from_secs(20);
/// Interval at which the status line is redrawn, for the elapsed time in it.
const REDRAW_INTERVAL: Duration = Duration::from_secs(1);

/// Watches a resource until its state is final, and returns the exit code: 0 succeeded, 1
/// failed, 2 unknown, 124 after `--timeout`, 130 interrupted.
pub async fn run(options: &Options, contract: &Contract) -> u8 {
    let out = std::io::stdout();
    let style = Style::of(out.is_terminal(), options.json, &variable);
    let mut renderer = Renderer::new(out, style);
    let stream_requests = options.stream_requests(contract);
    let has_events = stream_requests
        .iter()
        .any(|stream_request| matches!(stream_request.source, Source::Events(_)));
    let mut view = View::new(&options.title(), options.answer(), has_events);
    let started = Instant::now();
    let timeout = async {
        match options.timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    let code = tokio::select! {
        code = follow(options, stream_requests, &mut view, &mut renderer) => code,
        () = timeout => TIMED_OUT,
        _ = tokio::signal::ctrl_c() => INTERRUPTED,
    };
    renderer.clear();
    let elapsed = duration(started.elapsed());
    if !renderer.is_json() {
        let end = match code {
            SUCCEEDED => "succeeded",
            FAILED => "failed",
            UNKNOWN => "has no outcome",
            TIMED_OUT => "timed out",
            _ => "interrupted",
        };
        let outputs = view.output_lines(code == SUCCEEDED);
        // A reader that has closed the pipe needs none of them.
        let _ = (view.end().iter())
            .chain(&outputs)
            .chain(&view.summary(end, &elapsed))
            .all(|line| renderer.line(line));
    }
    if code == TIMED_OUT {
        let last = match view.last_state() {
            Some(state) => format!("the last state is {}", sanitize(state)),
            None => "no state was read".to_owned(),
        };
        let problem = format!("no final state within {elapsed} (--timeout): {last}");
        print_error(&renderer, &problem);
    }
    code
}

async fn follow<W: Write>(
    options: &Options,
    stream_requests: Vec<StreamRequest>,
    view: &mut View,
    renderer: &mut Renderer<W>,
) -> u8 {
    let mut stream_requests = stream_requests.into_iter();
    let Some(main) = stream_requests.next() else {
        print_error(renderer, "the contract has no such watch");
        return UNKNOWN;
    };
    renderer.status(view.status());
    let gateway = match Gateway::connect(&options.connection, &variable).await {
        Ok(gateway) => Arc::new(gateway),
        Err(problem) => {
            print_error(renderer, &problem);
            return UNKNOWN;
        }
    };
    let (sender, mut events) = mpsc::channel(256);
    let start = |stream_request: StreamRequest| {
        let sender = sender.clone();
        tokio::spawn(client::follow(Arc::clone(&gateway), stream_request, sender));
    };
    let main_source = main.source;
    start(main);
    let mut open = 1;
    let mut code = None;
    let mut timeout_at = None;
    let mut last_problem = None;
    let mut frames = tokio::time::interval(REDRAW_INTERVAL);
    frames.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut sizes = TerminalSizes::new();
    loop {
        let timeout = async {
            match timeout_at {
                Some(timeout_at) => tokio::time::sleep_until(timeout_at).await,
                None => std::future::pending().await,
            }
        };
        let item = tokio::select! {
            item = events.recv() => item,
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
        let Some((source, item)) = item else { break };
        let is_main = source == main_source;
        let is_open = match item {
            StreamEvent::Message(message) => {
                last_problem = None;
                // The resource exists. The other streams begin now: what is wrong with all of
                // them is reported once.
                for stream_request in stream_requests.by_ref() {
                    open += 1;
                    start(stream_request);
                }
                show(view, source, &message, renderer)
            }
            StreamEvent::Retry(problem) => {
                // All streams break with their connection.
                if last_problem.as_ref() != Some(&problem) {
                    let text = format!("{}: {problem}; retrying", source.name());
                    print_error(renderer, &text);
                    last_problem = Some(problem);
                }
                true
            }
            StreamEvent::End(Ok(())) => {
                open -= 1;
                if is_main {
                    code = Some(view.outcome().map_or(UNKNOWN, |succeeded| {
                        if succeeded { SUCCEEDED } else { FAILED }
                    }));
                }
                true
            }
            StreamEvent::End(Err(problem)) => {
                open -= 1;
                if is_main {
                    print_lines(renderer, &problem);
                    return UNKNOWN;
                }
                // The view continues without this stream.
                let problem = problem.first().map_or("", |line| line);
                print_error(renderer, &format!("{}: {problem}", source.name()));
                let line = match source {
                    Source::Events(_) => view.events_failed(),
                    _ => None,
                };
                renderer.is_json() || line.is_none_or(|line| renderer.line(&line))
            }
        };
        if !is_open {
            return UNKNOWN;
        }
        if code.is_some() {
            if open == 0 {
                break;
            }
            timeout_at.get_or_insert_with(|| Instant::now() + TRAILING_TIMEOUT);
        }
    }
    let code = code.unwrap_or(UNKNOWN);
    if code == UNKNOWN {
        print_error(renderer, "the stream ended without an outcome");
    }
    code
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
    view: &mut View,
    source: Source,
    message: &Message,
    renderer: &mut Renderer<W>,
) -> bool {
    let lines = view.apply(source, &message.json);
    if let Some(message) = &message.proto_json {
        let line = json!({ "stream": source.name(), "message": message });
        return renderer.text(&line.to_string());
    }
    let is_open = lines.iter().all(|line| renderer.line(line));
    renderer.status(view.status());
    is_open
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
