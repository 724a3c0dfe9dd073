//! Writes lines to a terminal, with colours and a status line, or to a pipe.

use std::io::Write;

use super::view::{Line, Mark, Status};

/// Width of the progress bar, in columns.
const BAR_COLUMNS: u64 = 24;
/// Width of a terminal without `COLUMNS`.
const DEFAULT_COLUMNS: usize = 80;

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Style {
    /// Whether there is a status line.
    has_status_line: bool,
    colour: bool,
    json: bool,
    columns: usize,
}

impl Style {
    /// Determines the style from the terminal and the environment: `NO_COLOR` (<https://no-color.org>), `TERM`,
    /// `COLUMNS`.
    pub(super) fn of(terminal: bool, json: bool, env: &dyn Fn(&str) -> Option<String>) -> Self {
        let has_status_line = terminal && !json && env("TERM").as_deref() != Some("dumb");
        Self {
            has_status_line,
            colour: has_status_line && env("NO_COLOR").is_none(),
            json,
            columns: env("COLUMNS")
                .and_then(|columns| columns.parse().ok())
                .unwrap_or(DEFAULT_COLUMNS)
                .clamp(20, 500),
        }
    }
}

/// Writes lines, and redraws the status line below them.
pub(super) struct Renderer<W: Write> {
    out: W,
    style: Style,
    /// Whether the status line is on the screen.
    drawn: bool,
}

impl<W: Write> Renderer<W> {
    pub(super) fn new(out: W, style: Style) -> Self {
        Self {
            out,
            style,
            drawn: false,
        }
    }

    pub(super) fn is_json(&self) -> bool {
        self.style.json
    }

    pub(super) fn has_status_line(&self) -> bool {
        self.style.has_status_line
    }

    /// Erases the status line.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            let _ = self.out.write_all(b"\r\x1b[2K");
            let _ = self.out.flush();
        }
    }

    /// Writes a line. Returns false if the reader has closed the pipe.
    pub(super) fn line(&mut self, line: &Line) -> bool {
        let text = render(line, self.style);
        self.text(&text)
    }

    /// Writes a text as a line. Returns false if the reader has closed the pipe.
    pub(super) fn text(&mut self, text: &str) -> bool {
        self.clear();
        writeln!(self.out, "{text}")
            .and_then(|()| self.out.flush())
            .is_ok()
    }

    /// Draws the status line, if there is one.
    pub(super) fn status(&mut self, status: &Status) {
        if self.style.has_status_line {
            let text = status_line(status, self.style);
            let _ = write!(self.out, "\r\x1b[2K{text}");
            let _ = self.out.flush();
            self.drawn = true;
        }
    }
}

fn colour(mark: Mark, style: Style) -> (&'static str, &'static str) {
    if !style.colour {
        return ("", "");
    }
    let on = match mark {
        Mark::Success => "\x1b[32m",
        Mark::Failure => "\x1b[31m",
        Mark::Progress => "\x1b[33m",
        Mark::Info => "\x1b[2m",
    };
    (on, "\x1b[0m")
}

fn sign(mark: Mark, style: Style) -> &'static str {
    match (mark, style.has_status_line) {
        (Mark::Success, true) => "✔",
        (Mark::Failure, true) => "✘",
        (Mark::Progress, true) => "…",
        (Mark::Success, false) => "+",
        (Mark::Failure, false) => "!",
        (Mark::Progress, false) => "~",
        (Mark::Info, _) => " ",
    }
}

/// Formats a line, for example `12:00:01 + web CREATE_COMPLETE reason`, in colour on a terminal.
pub(super) fn render(line: &Line, style: Style) -> String {
    let (on, off) = colour(line.mark, style);
    // The text of a log entry usually has a time of its own.
    if line.time.is_empty() && line.subject.is_empty() && line.state.is_empty() {
        return format!("{on}  {}{off}", line.reason);
    }
    let head = format!("{:8} {on}{}{off}", line.time, sign(line.mark, style));
    let state = match &*line.state {
        "" => String::new(),
        state => format!("{on}{state}{off}"),
    };
    let parts = [&head, &line.subject, &state, &line.reason];
    let parts: Vec<&str> = parts
        .into_iter()
        .map(|part| &**part)
        .filter(|part| !part.is_empty())
        .collect();
    parts.join(" ").trim_end().to_owned()
}

/// Formats the status line, for example `stack web ████░░░░ 3/10 CREATE_IN_PROGRESS`, and
/// truncates it to the width of the terminal.
pub(super) fn status_line(status: &Status, style: Style) -> String {
    let mut plain = format!("{} ", status.subject);
    if let Some((done, all)) = status.parts {
        let full = (BAR_COLUMNS * done / all.max(1)).min(BAR_COLUMNS);
        let bar = "█".repeat(full as usize) + &"░".repeat((BAR_COLUMNS - full) as usize);
        plain += &format!("{bar} {done}/{all} ");
    }
    let at = plain.chars().count();
    plain += &status.state;
    if let Some(since) = &status.unconfirmed {
        plain += &format!(" (not confirmed since {since})");
    }
    // One column stays free, otherwise some terminals wrap the line.
    let plain: String = plain.chars().take(style.columns - 1).collect();
    let (on, off) = colour(status.mark, style);
    match plain.char_indices().nth(at) {
        Some((at, _)) => format!("{}{on}{}{off}", &plain[..at], &plain[at..]),
        None => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIPE: Style = Style {
        has_status_line: false,
        colour: false,
        json: false,
        columns: 80,
    };
    const LIVE: Style = Style {
        has_status_line: true,
        colour: true,
        json: false,
        columns: 60,
    };

    fn line(time: &str, mark: Mark, subject: &str, state: &str, reason: &str) -> Line {
        Line {
            time: time.into(),
            mark,
            subject: subject.into(),
            state: state.into(),
            reason: reason.into(),
        }
    }

    #[test]
    fn lines_are_formatted_for_pipe_and_terminal() {
        for (line, pipe, has_status_line) in [
            (
                line("12:00:01", Mark::Success, "web", "CREATE_COMPLETE", ""),
                "12:00:01 + web CREATE_COMPLETE",
                "12:00:01 \x1b[32m✔\x1b[0m web \x1b[32mCREATE_COMPLETE\x1b[0m",
            ),
            (
                line(
                    "12:00:02",
                    Mark::Failure,
                    "db",
                    "CREATE_FAILED",
                    "disk full",
                ),
                "12:00:02 ! db CREATE_FAILED disk full",
                "12:00:02 \x1b[31m✘\x1b[0m db \x1b[31mCREATE_FAILED\x1b[0m disk full",
            ),
            (
                line("", Mark::Info, "", "", "a log entry"),
                "  a log entry",
                "\x1b[2m  a log entry\x1b[0m",
            ),
        ] {
            assert_eq!(render(&line, PIPE), pipe);
            assert_eq!(render(&line, LIVE), has_status_line);
        }
    }

    #[test]
    fn status_line_is_truncated_to_the_terminal() {
        let mut status = Status {
            subject: "stack web".into(),
            state: "CREATE_IN_PROGRESS".into(),
            mark: Mark::Progress,
            parts: Some((3, 12)),
            unconfirmed: None,
        };
        assert_eq!(
            status_line(&status, LIVE),
            "stack web ██████░░░░░░░░░░░░░░░░░░ 3/12 \x1b[33mCREATE_IN_PROGRESS\x1b[0m"
        );
        status.unconfirmed = Some("12:00:01".into());
        status.subject = "x".repeat(100);
        assert_eq!(status_line(&status, LIVE).chars().count(), 59);
        status.parts = None;
        status.subject = "stack web".into();
        let wide = Style {
            columns: 200,
            colour: false,
            ..LIVE
        };
        assert_eq!(
            status_line(&status, wide),
            "stack web CREATE_IN_PROGRESS (not confirmed since 12:00:01)"
        );
    }

    #[test]
    fn status_line_is_erased_before_a_line() {
        let status = Status {
            subject: "w".into(),
            state: "S".into(),
            mark: Mark::Info,
            parts: None,
            unconfirmed: None,
        };
        let mut out = Vec::new();
        let mut renderer = Renderer::new(
            &mut out,
            Style {
                colour: false,
                ..LIVE
            },
        );
        renderer.status(&status);
        assert!(renderer.text("line"));
        renderer.status(&status);
        renderer.clear();
        renderer.clear();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "\r\x1b[2Kw S\r\x1b[2Kline\n\r\x1b[2Kw S\r\x1b[2K"
        );
        let mut out = Vec::new();
        let mut renderer = Renderer::new(&mut out, PIPE);
        renderer.status(&status);
        renderer.clear();
        assert!(out.is_empty());
    }

    #[test]
    fn style_follows_terminal_and_environment() {
        let of = |terminal, json, set: &'static [(&str, &str)]| {
            let env = move |name: &str| {
                let found = set.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            let style = Style::of(terminal, json, &env);
            (style.has_status_line, style.colour, style.columns)
        };
        assert_eq!(of(true, false, &[]), (true, true, 80));
        assert_eq!(
            of(true, false, &[("NO_COLOR", "1"), ("COLUMNS", "120")]),
            (true, false, 120)
        );
        assert_eq!(
            of(true, false, &[("TERM", "dumb"), ("COLUMNS", "x")]),
            (false, false, 80)
        );
        assert_eq!(of(false, false, &[("COLUMNS", "1")]), (false, false, 20));
        assert_eq!(of(true, true, &[]), (false, false, 80));
    }
}
