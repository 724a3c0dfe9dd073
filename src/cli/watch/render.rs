//! Lines on a terminal, in a pipe, or for programs.

use std::io::Write;

use super::view::{Line, Mark, Status};

/// Columns that the bar takes.
const BAR: u64 = 24;
/// Columns of a terminal that does not say.
const COLUMNS: usize = 80;

/// How the view looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// There is a bottom line that is drawn anew.
    live: bool,
    colour: bool,
    json: bool,
    columns: usize,
}

impl Look {
    /// As terminal and environment say: `NO_COLOR` (<https://no-color.org>), `TERM`,
    /// `COLUMNS`.
    pub(super) fn of(terminal: bool, json: bool, env: &dyn Fn(&str) -> Option<String>) -> Self {
        let live = terminal && !json && env("TERM").as_deref() != Some("dumb");
        Self {
            live,
            colour: live && env("NO_COLOR").is_none(),
            json,
            columns: env("COLUMNS")
                .and_then(|columns| columns.parse().ok())
                .unwrap_or(COLUMNS)
                .clamp(20, 500),
        }
    }
}

/// Where lines go.
pub(super) struct Paint<W: Write> {
    out: W,
    look: Look,
    /// The bottom line stands there.
    drawn: bool,
}

impl<W: Write> Paint<W> {
    pub(super) fn new(out: W, look: Look) -> Self {
        Self {
            out,
            look,
            drawn: false,
        }
    }

    pub(super) fn is_json(&self) -> bool {
        self.look.json
    }

    pub(super) fn is_live(&self) -> bool {
        self.look.live
    }

    /// Takes the bottom line away.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            let _ = self.out.write_all(b"\r\x1b[2K");
            let _ = self.out.flush();
        }
    }

    /// A line that stays. False when nobody reads any more.
    pub(super) fn line(&mut self, line: &Line) -> bool {
        let text = render(line, self.look);
        self.text(&text)
    }

    /// A text that stays, as it is.
    pub(super) fn text(&mut self, text: &str) -> bool {
        self.clear();
        writeln!(self.out, "{text}")
            .and_then(|()| self.out.flush())
            .is_ok()
    }

    /// Draws the bottom line, where there is one.
    pub(super) fn status(&mut self, status: &Status) {
        if self.look.live {
            let text = bottom(status, self.look);
            let _ = write!(self.out, "\r\x1b[2K{text}");
            let _ = self.out.flush();
            self.drawn = true;
        }
    }
}

fn colour(mark: Mark, look: Look) -> (&'static str, &'static str) {
    if !look.colour {
        return ("", "");
    }
    let on = match mark {
        Mark::Good => "\x1b[32m",
        Mark::Bad => "\x1b[31m",
        Mark::Busy => "\x1b[33m",
        Mark::Note => "\x1b[2m",
    };
    (on, "\x1b[0m")
}

fn sign(mark: Mark, look: Look) -> &'static str {
    match (mark, look.live) {
        (Mark::Good, true) => "✔",
        (Mark::Bad, true) => "✘",
        (Mark::Busy, true) => "…",
        (Mark::Good, false) => "+",
        (Mark::Bad, false) => "!",
        (Mark::Busy, false) => "~",
        (Mark::Note, _) => " ",
    }
}

/// `12:00:01 + web CREATE_COMPLETE reason`, in colour on a terminal.
pub(super) fn render(line: &Line, look: Look) -> String {
    let (on, off) = colour(line.mark, look);
    // A line of a log has its own time, and needs the room.
    if line.time.is_empty() && line.what.is_empty() && line.state.is_empty() {
        return format!("{on}  {}{off}", line.why);
    }
    let head = format!("{:8} {on}{}{off}", line.time, sign(line.mark, look));
    let state = match &*line.state {
        "" => String::new(),
        state => format!("{on}{state}{off}"),
    };
    let parts = [&head, &line.what, &state, &line.why];
    let parts: Vec<&str> = parts
        .into_iter()
        .map(|part| &**part)
        .filter(|part| !part.is_empty())
        .collect();
    parts.join(" ").trim_end().to_owned()
}

/// `stack web [######      ] 3/10 CREATE_IN_PROGRESS`, cut to the terminal.
pub(super) fn bottom(status: &Status, look: Look) -> String {
    let mut plain = format!("{} ", status.what);
    if let Some((done, all)) = status.parts {
        let full = (BAR * done / all.max(1)).min(BAR);
        let bar = "█".repeat(full as usize) + &"░".repeat((BAR - full) as usize);
        plain += &format!("{bar} {done}/{all} ");
    }
    let at = plain.chars().count();
    plain += &status.state;
    if let Some(since) = &status.unconfirmed {
        plain += &format!(" (not confirmed since {since})");
    }
    // One column is left free, lest the line wraps.
    let plain: String = plain.chars().take(look.columns - 1).collect();
    let (on, off) = colour(status.mark, look);
    match plain.char_indices().nth(at) {
        Some((at, _)) => format!("{}{on}{}{off}", &plain[..at], &plain[at..]),
        None => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIPE: Look = Look {
        live: false,
        colour: false,
        json: false,
        columns: 80,
    };
    const LIVE: Look = Look {
        live: true,
        colour: true,
        json: false,
        columns: 60,
    };

    fn line(time: &str, mark: Mark, what: &str, state: &str, why: &str) -> Line {
        Line {
            time: time.into(),
            mark,
            what: what.into(),
            state: state.into(),
            why: why.into(),
        }
    }

    #[test]
    fn golden_lines() {
        for (line, pipe, live) in [
            (
                line("12:00:01", Mark::Good, "web", "CREATE_COMPLETE", ""),
                "12:00:01 + web CREATE_COMPLETE",
                "12:00:01 \x1b[32m✔\x1b[0m web \x1b[32mCREATE_COMPLETE\x1b[0m",
            ),
            (
                line("12:00:02", Mark::Bad, "db", "CREATE_FAILED", "no room"),
                "12:00:02 ! db CREATE_FAILED no room",
                "12:00:02 \x1b[31m✘\x1b[0m db \x1b[31mCREATE_FAILED\x1b[0m no room",
            ),
            (
                line("", Mark::Note, "", "", "a line of a log"),
                "  a line of a log",
                "\x1b[2m  a line of a log\x1b[0m",
            ),
        ] {
            assert_eq!(render(&line, PIPE), pipe);
            assert_eq!(render(&line, LIVE), live);
        }
    }

    #[test]
    fn the_bottom_line() {
        let mut status = Status {
            what: "stack web".into(),
            state: "CREATE_IN_PROGRESS".into(),
            mark: Mark::Busy,
            parts: Some((3, 12)),
            unconfirmed: None,
        };
        assert_eq!(
            bottom(&status, LIVE),
            "stack web ██████░░░░░░░░░░░░░░░░░░ 3/12 \x1b[33mCREATE_IN_PROGRESS\x1b[0m"
        );
        status.unconfirmed = Some("12:00:01".into());
        status.what = "x".repeat(100);
        assert_eq!(bottom(&status, LIVE).chars().count(), 59);
        status.parts = None;
        status.what = "stack web".into();
        let wide = Look {
            columns: 200,
            colour: false,
            ..LIVE
        };
        assert_eq!(
            bottom(&status, wide),
            "stack web CREATE_IN_PROGRESS (not confirmed since 12:00:01)"
        );
    }

    #[test]
    fn the_bottom_line_goes_away() {
        let status = Status {
            what: "w".into(),
            state: "S".into(),
            mark: Mark::Note,
            parts: None,
            unconfirmed: None,
        };
        let mut out = Vec::new();
        let mut paint = Paint::new(
            &mut out,
            Look {
                colour: false,
                ..LIVE
            },
        );
        paint.status(&status);
        assert!(paint.text("line"));
        paint.status(&status);
        paint.clear();
        paint.clear();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "\r\x1b[2Kw S\r\x1b[2Kline\n\r\x1b[2Kw S\r\x1b[2K"
        );
        let mut out = Vec::new();
        let mut paint = Paint::new(&mut out, PIPE);
        paint.status(&status);
        paint.clear();
        assert!(out.is_empty());
    }

    #[test]
    fn what_the_environment_says() {
        let of = |terminal, json, set: &'static [(&str, &str)]| {
            let env = move |name: &str| {
                let found = set.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            let look = Look::of(terminal, json, &env);
            (look.live, look.colour, look.columns)
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
