//! The terminal view, `drawbridge watch`: a gRPC client of any running gateway
//! that shows how something goes on, and says by its exit code how it ended.
//!
//! In reading order: `options` is what the user asks for, `client` brings the
//! messages of a stream and resumes it, `view` makes lines of them, `paint` puts
//! those on a terminal or into a pipe.

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

use client::{Gateway, News};
use drawbridge_transcoder::contract::Contract;
pub use options::Options;
use options::Source;
use render::{Look, Paint};
use view::View;

/// It settled as it should.
const WELL: u8 = 0;
/// It settled, and not as it should.
const BADLY: u8 = 1;
/// There is no telling: the stream broke, or the thing is not there.
const UNTOLD: u8 = 2;
/// Ctrl-C, as shells have it.
const INTERRUPTED: u8 = 130;
/// How long the rest of a log is waited for when its subject has settled.
const REST: Duration = Duration::from_secs(20);
/// How often the bottom line is drawn anew.
const FRAME: Duration = Duration::from_millis(200);

/// Watches what the options name, and returns the exit code: 0 it settled well, 1
/// it settled badly, 2 it could not be told, 130 interrupted.
pub async fn run(options: &Options, contract: &Contract) -> u8 {
    let out = std::io::stdout();
    let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let look = Look::of(out.is_terminal(), options.json, &env);
    let mut paint = Paint::new(out, look);
    let code = tokio::select! {
        code = follow(options, contract, &env, &mut paint) => code,
        _ = tokio::signal::ctrl_c() => INTERRUPTED,
    };
    paint.clear();
    code
}

async fn follow<W: Write>(
    options: &Options,
    contract: &Contract,
    env: &dyn Fn(&str) -> Option<String>,
    paint: &mut Paint<W>,
) -> u8 {
    let plans = options.plans(contract);
    let Some(main) = plans.first() else {
        complain(paint, "this gateway's contract has no such watch");
        return UNTOLD;
    };
    let gateway = match Gateway::new(options, env) {
        Ok(gateway) => Arc::new(gateway),
        Err(problem) => {
            complain(paint, &problem);
            return UNTOLD;
        }
    };
    let (news, mut told) = mpsc::channel(256);
    let mut view = View::new(options.title());
    for plan in plans.iter().cloned() {
        tokio::spawn(client::follow(Arc::clone(&gateway), plan, news.clone()));
    }
    drop(news);
    let mut open = plans.len();
    let mut code = None;
    let mut until = None;
    let mut frames = tokio::time::interval(FRAME);
    frames.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        let rest = async {
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        let item = tokio::select! {
            item = told.recv() => item,
            _ = frames.tick(), if paint.is_live() => {
                paint.status(&view.status());
                continue;
            }
            () = rest => None,
        };
        let Some((source, item)) = item else { break };
        let is_main = source == main.source;
        let kept = match item {
            News::Message(message) => tell(&mut view, source, &message, paint),
            News::Trouble(problem) => {
                eprint_over(
                    paint,
                    &format!("{}: {problem}; trying again", source.name()),
                );
                true
            }
            News::Over(Ok(())) => {
                open -= 1;
                if is_main {
                    code = Some(
                        view.outcome()
                            .map_or(UNTOLD, |well| if well { WELL } else { BADLY }),
                    );
                }
                true
            }
            News::Over(Err(problem)) => {
                open -= 1;
                if is_main {
                    complain(paint, &problem);
                    return UNTOLD;
                }
                // The rest of the view goes on without it.
                eprint_over(paint, &format!("{}: {problem}", source.name()));
                true
            }
        };
        if !kept {
            return UNTOLD;
        }
        if code.is_some() {
            if open == 0 {
                break;
            }
            until.get_or_insert_with(|| Instant::now() + REST);
        }
    }
    let code = code.unwrap_or(UNTOLD);
    if !options.json {
        for line in view.farewell(code == WELL) {
            paint.line(&line);
        }
    }
    if code == UNTOLD {
        complain(paint, "the stream ended without telling how it ended");
    }
    code
}

/// Shows a message. False when nobody reads any more.
fn tell<W: Write>(view: &mut View, source: Source, message: &Value, paint: &mut Paint<W>) -> bool {
    let lines = view.tell(source, message);
    if paint.is_json() {
        let told = json!({ "stream": source.name(), "message": message });
        return paint.text(&told.to_string());
    }
    let kept = lines.iter().all(|line| paint.line(line));
    paint.status(&view.status());
    kept
}

fn complain<W: Write>(paint: &mut Paint<W>, problem: &str) {
    eprint_over(paint, problem);
}

/// To standard error, without the bottom line in between.
fn eprint_over<W: Write>(paint: &mut Paint<W>, text: &str) {
    paint.clear();
    eprintln!("drawbridge: {}", view::clean(text));
}
