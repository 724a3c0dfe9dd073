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

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use client::{Gateway, StreamEvent};
use drawbridge_transcoder::contract::Contract;
pub use options::Options;
use options::Source;
use render::{Renderer, Style};
use view::View;

/// Exit code of a resource that succeeded.
const SUCCEEDED: u8 = 0;
/// Exit code of a resource that failed.
const FAILED: u8 = 1;
/// Exit code without an outcome: the stream broke, or the resource does not exist.
const UNKNOWN: u8 = 2;
/// Exit code after Ctrl-C, as in shells.
const INTERRUPTED: u8 = 130;
/// How long the other streams may take to end after that of the state.
const TRAILING_TIMEOUT: Duration = Duration::from_secs(20);
/// Interval at which the status line is redrawn.
const REDRAW_INTERVAL: Duration = Duration::from_millis(200);

/// Watches a resource until its state is final, and returns the exit code: 0 succeeded, 1
/// failed, 2 unknown, 130 interrupted.
pub async fn run(options: &Options, contract: &Contract) -> u8 {
    let out = std::io::stdout();
    let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let style = Style::of(out.is_terminal(), options.json, &env);
    let mut renderer = Renderer::new(out, style);
    let code = tokio::select! {
        code = follow(options, contract, &env, &mut renderer) => code,
        _ = tokio::signal::ctrl_c() => INTERRUPTED,
    };
    renderer.clear();
    code
}

async fn follow<W: Write>(
    options: &Options,
    contract: &Contract,
    env: &dyn Fn(&str) -> Option<String>,
    renderer: &mut Renderer<W>,
) -> u8 {
    let stream_requests = options.stream_requests(contract);
    let Some(main) = stream_requests.first() else {
        print_error(renderer, "the contract has no such watch");
        return UNKNOWN;
    };
    let gateway = match Gateway::new(options, env) {
        Ok(gateway) => Arc::new(gateway),
        Err(problem) => {
            print_error(renderer, &problem);
            return UNKNOWN;
        }
    };
    let (sender, mut events) = mpsc::channel(256);
    let mut view = View::new(options.title());
    for stream_request in stream_requests.iter().cloned() {
        tokio::spawn(client::follow(
            Arc::clone(&gateway),
            stream_request,
            sender.clone(),
        ));
    }
    drop(sender);
    let mut open = stream_requests.len();
    let mut code = None;
    let mut timeout_at = None;
    let mut frames = tokio::time::interval(REDRAW_INTERVAL);
    frames.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
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
                renderer.status(&view.status());
                continue;
            }
            () = timeout => None,
        };
        let Some((source, item)) = item else { break };
        let is_main = source == main.source;
        let is_open = match item {
            StreamEvent::Message(message) => show(&mut view, source, &message, renderer),
            StreamEvent::Retry(problem) => {
                print_error(renderer, &format!("{}: {problem}; retrying", source.name()));
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
                    print_error(renderer, &problem);
                    return UNKNOWN;
                }
                // The view continues without this stream.
                print_error(renderer, &format!("{}: {problem}", source.name()));
                true
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
    if !options.json {
        for line in view.output_lines(code == SUCCEEDED) {
            renderer.line(&line);
        }
    }
    if code == UNKNOWN {
        print_error(renderer, "the stream ended without an outcome");
    }
    code
}

/// Shows a message. Returns false if the reader has closed the pipe.
fn show<W: Write>(
    view: &mut View,
    source: Source,
    message: &Value,
    renderer: &mut Renderer<W>,
) -> bool {
    let lines = view.apply(source, message);
    if renderer.is_json() {
        let line = json!({ "stream": source.name(), "message": message });
        return renderer.text(&line.to_string());
    }
    let is_open = lines.iter().all(|line| renderer.line(line));
    renderer.status(&view.status());
    is_open
}

/// Writes to standard error, after erasing the status line.
fn print_error<W: Write>(renderer: &mut Renderer<W>, text: &str) {
    renderer.clear();
    super::print_error(&view::sanitize(text));
}
