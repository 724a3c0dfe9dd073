//! Writes lines to a terminal, with colours and a status line, or to a pipe.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use console::{Term, measure_text_width, truncate_str};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle, TermLike};

use super::options::Format;
use super::view::{Line, Mark, Status};

/// Maximum width of the progress bar, in columns.
const MAX_BAR_COLUMNS: usize = 24;
/// A narrower bar shows nothing.
const MIN_BAR_COLUMNS: usize = 4;
/// A shorter part of a subject identifies nothing.
const MIN_SUBJECT_COLUMNS: usize = 6;
/// Narrower terminals show times without the date.
const MIN_DATE_COLUMNS: usize = 60;
/// Width of `^C`.
const ECHO_COLUMNS: usize = 2;
/// Maximum number of redraws per second.
const MAX_REDRAWS_PER_SECOND: u8 = 10;

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Style {
    /// Whether there is a status line.
    has_status_line: bool,
    colour: bool,
    format: Option<Format>,
}

impl Style {
    /// Determines the style from the terminal and the environment: `NO_COLOR`
    /// (<https://no-color.org>) and `TERM`.
    pub(super) fn of(
        terminal: bool,
        format: Option<Format>,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Self {
        let has_status_line =
            terminal && format.is_none() && env("TERM").as_deref() != Some("dumb");
        Self {
            has_status_line,
            colour: has_status_line && env("NO_COLOR").is_none(),
            format,
        }
    }
}

impl Style {
    /// Whether lines are written for people, not for programs.
    pub(super) fn is_for_people(self) -> bool {
        self.format.is_none()
    }
}

/// Writes lines, and redraws the status line below them.
pub(super) struct Renderer<W: Write> {
    out: W,
    style: Style,
    bar: Option<StatusLine>,
    /// The prompt on the last row, in place of the status line.
    prompt: Option<String>,
}

/// Erases the row of the prompt, with the typed text.
const ERASE_ROW: &str = "\r\x1b[J";

impl<W: Write> Renderer<W> {
    pub(super) fn new(out: W, style: Style) -> Self {
        Self {
            out,
            style,
            bar: style.has_status_line.then(|| StatusLine::new(style)),
            prompt: None,
        }
    }

    /// Shows a prompt in place of the status line, or none. What is typed stays in the buffer of
    /// the terminal when other lines are written above it.
    pub(super) fn prompt(&mut self, text: Option<String>) {
        if text == self.prompt {
            return;
        }
        let is_open = self.prompt.is_some();
        self.prompt = text;
        if is_open {
            self.write(ERASE_ROW);
        }
        if let Some(bar) = &self.bar {
            bar.is_hidden
                .store(self.prompt.is_some(), Ordering::Relaxed);
            bar.bar.tick();
        }
        self.write_prompt();
    }

    fn write_prompt(&mut self) {
        if let Some(prompt) = &self.prompt {
            let text = format!("{ERASE_ROW}{prompt} ");
            self.write(&text);
        }
    }

    /// Writes to a terminal that may have been closed.
    fn write(&mut self, text: &str) {
        let out = &mut self.out;
        let _ = write!(out, "{text}").and_then(|()| out.flush());
    }

    /// Returns the format for programs; none for lines.
    pub(super) fn format(&self) -> Option<Format> {
        self.style.format
    }

    pub(super) fn has_status_line(&self) -> bool {
        self.bar.is_some()
    }

    /// Erases the status line and the prompt for good.
    pub(super) fn clear(&mut self) {
        self.prompt(None);
        if let Some(bar) = self.bar.take() {
            bar.bar.finish_and_clear();
        }
    }

    /// Writes a line. Returns false if the reader has closed the pipe.
    pub(super) fn line(&mut self, line: &Line) -> bool {
        let has_dates = !self.style.has_status_line || columns() >= MIN_DATE_COLUMNS;
        let text = render(line, self.style, has_dates);
        self.text(&text)
    }

    /// Writes a text as a line. Returns false if the reader has closed the pipe.
    pub(super) fn text(&mut self, text: &str) -> bool {
        if self.prompt.is_some() {
            self.write(ERASE_ROW);
            let is_written = writeln!(self.out, "{text}").is_ok();
            self.write_prompt();
            return is_written;
        }
        let out = &mut self.out;
        let mut write = || writeln!(out, "{text}").and_then(|()| out.flush()).is_ok();
        match &self.bar {
            Some(bar) => bar.bar.suspend(write),
            None => write(),
        }
    }

    /// Runs `write`, which writes to the terminal by itself, without the status line.
    pub(super) fn suspend(&mut self, write: impl FnOnce()) {
        if self.prompt.is_some() {
            self.write(ERASE_ROW);
            write();
            return self.write_prompt();
        }
        match &self.bar {
            Some(bar) => bar.bar.suspend(write),
            None => write(),
        }
    }

    /// Draws the status line, if there is one.
    pub(super) fn status(&mut self, status: Status) {
        if let Some(bar) = &self.bar {
            *lock(&bar.status) = status;
        }
        self.redraw();
    }

    /// Draws the status line again: time has passed, or the terminal has another size.
    pub(super) fn redraw(&self) {
        if let Some(bar) = self.bar.as_ref().filter(|_| self.prompt.is_none()) {
            bar.bar.tick();
        }
    }
}

/// The status line of a terminal.
struct StatusLine {
    bar: ProgressBar,
    status: Arc<Mutex<Status>>,
    /// A prompt is in its place.
    is_hidden: Arc<AtomicBool>,
}

impl StatusLine {
    fn new(style: Style) -> Self {
        let status = Arc::new(Mutex::new(Status::default()));
        let started = Instant::now();
        let drawn = Arc::clone(&status);
        let is_hidden = Arc::new(AtomicBool::new(false));
        let hides = Arc::clone(&is_hidden);
        // Called for each draw, with the size that the terminal has then.
        let write = move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
            if hides.load(Ordering::Relaxed) {
                return;
            }
            let elapsed = duration(started.elapsed());
            let columns = columns().saturating_sub(ECHO_COLUMNS);
            let text = status_line(&lock(&drawn), &elapsed, columns, style.colour);
            // The formatter writes to memory.
            let _ = out.write_str(&text);
        };
        let template = ProgressStyle::default_bar().template("{status}");
        let template = template.unwrap_or_else(|_| ProgressStyle::default_bar());
        let screen = Box::new(Screen(Term::buffered_stdout()));
        let target = ProgressDrawTarget::term_like_with_hz(screen, MAX_REDRAWS_PER_SECOND);
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_style(template.with_key("status", write));
        Self {
            bar,
            status,
            is_hidden,
        }
    }
}

/// Standard output without the columns for `^C`: indicatif fills the row, and the terminal would
/// write it in the next one, where it keeps the status line from being erased.
#[derive(Debug)]
struct Screen(Term);

impl TermLike for Screen {
    fn width(&self) -> u16 {
        let columns = self.0.size().1;
        columns.saturating_sub(ECHO_COLUMNS as u16).max(1)
    }

    fn height(&self) -> u16 {
        self.0.size().0
    }

    fn move_cursor_up(&self, rows: usize) -> io::Result<()> {
        self.0.move_cursor_up(rows)
    }

    fn move_cursor_down(&self, rows: usize) -> io::Result<()> {
        self.0.move_cursor_down(rows)
    }

    fn move_cursor_right(&self, columns: usize) -> io::Result<()> {
        self.0.move_cursor_right(columns)
    }

    fn move_cursor_left(&self, columns: usize) -> io::Result<()> {
        self.0.move_cursor_left(columns)
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.0.write_line(text)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.0.write_str(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.0.clear_line()
    }

    fn flush(&self) -> io::Result<()> {
        self.0.flush()
    }
}

fn lock(status: &Mutex<Status>) -> std::sync::MutexGuard<'_, Status> {
    status.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the width of the terminal.
fn columns() -> usize {
    usize::from(Term::stdout().size().1)
}

fn colour(mark: Mark, colour: bool) -> (&'static str, &'static str) {
    if !colour {
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

/// Formats a line, for example `2026-11-21T12:00:01Z + web CREATE_COMPLETE reason`, in colour
/// on a terminal.
pub(super) fn render(line: &Line, style: Style, has_dates: bool) -> String {
    let (on, off) = colour(line.mark, style.colour);
    // The text of a log entry usually has a time of its own.
    if line.time.is_empty() && line.subject.is_empty() && line.state.is_empty() {
        return format!("{on}  {}{off}", line.reason);
    }
    let (time, time_columns) = match has_dates {
        true => (&*line.time, 20),
        false => (line.time.get(11..).unwrap_or_default(), 9),
    };
    let sign = sign(line.mark, style);
    let head = format!("{time:time_columns$} {on}{sign}{off}");
    let state = match &*line.state {
        "" => String::new(),
        state => format!("{on}{state}{off}"),
    };
    let elapsed = match line.elapsed {
        Some(elapsed) => format!("({})", duration(elapsed)),
        None => String::new(),
    };
    let parts = [&head, &line.subject, &state, &line.reason, &elapsed];
    let parts: Vec<&str> = parts
        .into_iter()
        .map(|part| &**part)
        .filter(|part| !part.is_empty())
        .collect();
    parts.join(" ").trim_end().to_owned()
}

/// Formats a duration: `5s`, `1m05s`, `2h03m`, `3d04h`.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours) = (seconds / 60, seconds / 3_600);
    match (minutes, hours) {
        (0, _) => format!("{seconds}s"),
        (_, 0) => format!("{minutes}m{:02}s", seconds % 60),
        (_, ..48) => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{}d{:02}h", hours / 24, hours % 24),
    }
}

/// Formats the status line, for example `stack web ████░░░░ 3/10 CREATE_IN_PROGRESS 5s`, in
/// fewer columns than the terminal has. In a narrow terminal the bar is shortened first, then
/// the elapsed time, the subject, the counts and last the state.
pub(super) fn status_line(status: &Status, elapsed: &str, columns: usize, colours: bool) -> String {
    // One column stays free, otherwise some terminals wrap the line.
    let mut room = Room {
        columns: columns.saturating_sub(1),
        is_empty: true,
    };
    // What is most important gets its columns first.
    let state = room.part(&status.state, 1);
    let unconfirmed = status.unconfirmed.as_ref().and_then(|since| {
        let long = format!("(not confirmed since {since})");
        room.whole(&long).or_else(|| room.whole("(unconfirmed)"))
    });
    let counts = status.parts.map(|(done, all)| format!("{done}/{all}"));
    let counts = counts.and_then(|counts| room.whole(&counts));
    let subject = room.part(&status.subject, MIN_SUBJECT_COLUMNS);
    let elapsed = room.whole(elapsed);
    let bar = status.parts.and_then(|(done, all)| {
        let columns = room.columns.saturating_sub(1).min(MAX_BAR_COLUMNS);
        let full = (columns as u64).saturating_mul(done.min(all)) / all.max(1);
        let full = full as usize;
        let bar = "█".repeat(full) + &"░".repeat(columns - full);
        (columns >= MIN_BAR_COLUMNS).then_some(bar)
    });
    let (on, off) = colour(status.mark, colours);
    let state = state.map(|state| format!("{on}{state}{off}"));
    let parts = [subject, bar, counts, state, unconfirmed, elapsed];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    parts.join(" ")
}

/// The columns of the status line that are left.
struct Room {
    columns: usize,
    is_empty: bool,
}

impl Room {
    /// Returns the text, truncated to what is left; none if that is less than `min` columns.
    fn part(&mut self, text: &str, min: usize) -> Option<String> {
        let separator = usize::from(!self.is_empty);
        let columns = self.columns.saturating_sub(separator);
        if text.is_empty() || columns < min.min(measure_text_width(text)) {
            return None;
        }
        let part = truncate_str(text, columns, "…").into_owned();
        self.columns = columns.saturating_sub(measure_text_width(&part));
        self.is_empty = false;
        Some(part)
    }

    /// Returns the text if there is room for all of it.
    fn whole(&mut self, text: &str) -> Option<String> {
        self.part(text, usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIPE: Style = Style {
        has_status_line: false,
        colour: false,
        format: None,
    };
    const LIVE: Style = Style {
        has_status_line: true,
        colour: true,
        format: None,
    };

    #[test]
    fn lines_are_formatted_for_pipe_and_terminal() {
        let line = |time: &str, mark, subject: &str, state: &str, reason: &str| Line {
            time: time.into(),
            mark,
            subject: subject.into(),
            state: state.into(),
            reason: reason.into(),
            elapsed: (mark == Mark::Success).then_some(Duration::from_secs(65)),
        };
        let at = "2026-11-21T12:00:01Z";
        for (line, pipe, narrow) in [
            (
                line(at, Mark::Success, "web", "CREATE_COMPLETE", ""),
                "2026-11-21T12:00:01Z + web CREATE_COMPLETE (1m05s)",
                "12:00:01Z \x1b[32m✔\x1b[0m web \x1b[32mCREATE_COMPLETE\x1b[0m (1m05s)",
            ),
            (
                line(at, Mark::Failure, "db", "CREATE_FAILED", "disk full"),
                "2026-11-21T12:00:01Z ! db CREATE_FAILED disk full",
                "12:00:01Z \x1b[31m✘\x1b[0m db \x1b[31mCREATE_FAILED\x1b[0m disk full",
            ),
            (
                line("", Mark::Info, "output x", "", "5"),
                "                       output x 5",
                "          \x1b[2m \x1b[0m output x 5",
            ),
            (
                line("", Mark::Info, "", "", "a log entry"),
                "  a log entry",
                "\x1b[2m  a log entry\x1b[0m",
            ),
        ] {
            assert_eq!(render(&line, PIPE, true), pipe);
            assert_eq!(render(&line, LIVE, false), narrow);
        }
    }

    #[test]
    fn durations_are_short() {
        for (seconds, want) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m00s"),
            (3_599, "59m59s"),
            (3_600, "1h00m"),
            (172_799, "47h59m"),
            (172_800, "2d00h"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), want);
        }
    }

    fn status(subject: &str) -> Status {
        Status {
            subject: subject.into(),
            state: "CREATE_IN_PROGRESS".into(),
            mark: Mark::Progress,
            parts: Some((3, 12)),
            unconfirmed: None,
        }
    }

    #[test]
    fn bar_is_shortened_before_the_state() {
        let web = status("stack web");
        let unconfirmed = Status {
            unconfirmed: Some("2026-11-21T12:00:01Z".into()),
            ..status("stack web")
        };
        let long = status(&"x".repeat(300));
        let wide = status("stack 日本語のスタック");
        for (status, columns, want) in [
            (
                &web,
                200,
                "stack web ██████░░░░░░░░░░░░░░░░░░ 3/12 CREATE_IN_PROGRESS 5s",
            ),
            (
                &web,
                80,
                "stack web ██████░░░░░░░░░░░░░░░░░░ 3/12 CREATE_IN_PROGRESS 5s",
            ),
            (&web, 46, "stack web ██░░░░░░ 3/12 CREATE_IN_PROGRESS 5s"),
            (&web, 40, "stack web 3/12 CREATE_IN_PROGRESS 5s"),
            (&web, 35, "stack web 3/12 CREATE_IN_PROGRESS"),
            (&web, 32, "stack … 3/12 CREATE_IN_PROGRESS"),
            (&web, 25, "3/12 CREATE_IN_PROGRESS"),
            (&web, 20, "CREATE_IN_PROGRESS"),
            (&web, 10, "CREATE_I…"),
            (&web, 2, "…"),
            (&web, 1, ""),
            (&web, 0, ""),
            (
                &unconfirmed,
                80,
                "stack web 3/12 CREATE_IN_PROGRESS (not confirmed since 2026-11-21T12:00:01Z) 5s",
            ),
            (&unconfirmed, 40, "3/12 CREATE_IN_PROGRESS (unconfirmed)"),
            (&long, 40, "xxxxxxxxxxxxxx… 3/12 CREATE_IN_PROGRESS"),
            (&wide, 40, "stack 日本語の… 3/12 CREATE_IN_PROGRESS"),
        ] {
            let line = status_line(status, "5s", columns, false);
            assert_eq!(line, want, "{columns}");
            assert!(measure_text_width(&line) < columns.max(1), "{columns}");
        }
        for columns in 0..250 {
            for status in [&web, &unconfirmed, &long, &wide] {
                let line = status_line(status, "2h03m", columns, true);
                assert!(
                    measure_text_width(&line) < columns.max(1),
                    "{columns} {line}"
                );
            }
        }
    }

    #[test]
    fn bar_is_within_its_columns_for_all_counts() {
        for (done, all) in [(0, 0), (5, 0), (7, 3), (u64::MAX, u64::MAX), (0, u64::MAX)] {
            let status = Status {
                parts: Some((done, all)),
                ..status("s")
            };
            let line = status_line(&status, "5s", 200, false);
            let is_bar = |c: &char| matches!(c, '█' | '░');
            assert_eq!(
                line.chars().filter(is_bar).count(),
                MAX_BAR_COLUMNS,
                "{line}"
            );
        }
    }

    #[test]
    fn style_follows_terminal_and_environment() {
        let of = |terminal, format, set: &'static [(&str, &str)]| {
            let env = move |name: &str| {
                let found = set.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            let style = Style::of(terminal, format, &env);
            (style.has_status_line, style.colour)
        };
        assert_eq!(of(true, None, &[]), (true, true));
        assert_eq!(of(true, None, &[("NO_COLOR", "1")]), (true, false));
        assert_eq!(of(true, None, &[("TERM", "dumb")]), (false, false));
        assert_eq!(of(false, None, &[]), (false, false));
        assert_eq!(of(true, Some(Format::Json), &[]), (false, false));
    }
}
