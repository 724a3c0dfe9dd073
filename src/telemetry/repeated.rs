//! Sums up lines of the log that clients can cause at will: of each kind so many per second are
//! written, and then one with the number of the others.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// The time that one line sums up.
const WINDOW: Duration = Duration::from_secs(1);

/// Lines of one kind that are written per [`WINDOW`].
const MAX_LINES: u64 = 10;

/// Limit of the kinds that are counted one by one. There are fewer, unless upstreams invent
/// HTTP statuses.
const MAX_KINDS: usize = 512;

static REPEATED: LazyLock<Mutex<Windows>> = LazyLock::new(Mutex::default);

/// What lines have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LineKind {
    /// The message of the line.
    pub message: &'static str,
    /// The gRPC code.
    pub code: &'static str,
    /// The reason, from a closed set.
    pub reason: String,
    /// Whether its level is WARN, otherwise INFO.
    pub is_warning: bool,
}

/// Counts a line.
pub(super) fn count(kind: LineKind) -> Counted {
    lock().count(kind, Instant::now())
}

/// Returns when the next sum is to be written; none if there is none.
pub(super) fn next_report() -> Option<Instant> {
    lock().next_report()
}

/// Writes all sums.
pub(super) fn report_all() {
    report(Instant::now() + WINDOW);
}

/// Writes the sums whose time has passed.
pub(super) fn report(now: Instant) {
    let sums = lock().take(now);
    for (kind, lines) in sums {
        let (message, code, reason) = (kind.message, kind.code, &*kind.reason);
        // The level of an event is a constant.
        if kind.is_warning {
            tracing::warn!(code, reason, repeated = lines, "{message}: repeated");
        } else {
            tracing::info!(code, reason, repeated = lines, "{message}: repeated");
        }
    }
}

fn lock() -> MutexGuard<'static, Windows> {
    REPEATED.lock().unwrap_or_else(|e| e.into_inner())
}

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    Written,
    /// It is the first one that its sum counts.
    FirstSummed,
    Summed,
}

/// The lines of the current second by kind.
#[derive(Debug, Default)]
struct Windows(HashMap<LineKind, Window>);

#[derive(Clone, Copy, Debug)]
struct Window {
    since: Instant,
    lines: u64,
}

impl Window {
    fn summed(self) -> u64 {
        self.lines.saturating_sub(MAX_LINES)
    }

    fn end(self) -> Instant {
        self.since + WINDOW
    }
}

impl Windows {
    fn count(&mut self, mut kind: LineKind, now: Instant) -> Counted {
        if self.0.len() >= MAX_KINDS && !self.0.contains_key(&kind) {
            self.0
                .retain(|_, window| now < window.end() || window.summed() > 0);
            if self.0.len() >= MAX_KINDS {
                kind.reason = "OTHER".to_owned();
            }
        }
        let new = Window {
            since: now,
            lines: 0,
        };
        let window = self.0.entry(kind).or_insert(new);
        if now >= window.end() && window.summed() == 0 {
            *window = new;
        }
        window.lines += 1;
        match window.summed() {
            0 => Counted::Written,
            1 => Counted::FirstSummed,
            _ => Counted::Summed,
        }
    }

    fn next_report(&self) -> Option<Instant> {
        let with_sum = self.0.values().filter(|window| window.summed() > 0);
        with_sum.map(|window| window.end()).min()
    }

    /// Removes the sums of windows that have ended.
    fn take(&mut self, now: Instant) -> Vec<(LineKind, u64)> {
        let mut sums = Vec::new();
        self.0.retain(|kind, window| {
            let is_over = now >= window.end();
            if is_over && window.summed() > 0 {
                sums.push((kind.clone(), window.summed()));
            }
            !is_over
        });
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(reason: &'static str) -> LineKind {
        LineKind {
            message: "call failed",
            code: "NOT_FOUND",
            reason: reason.to_owned(),
            is_warning: false,
        }
    }

    #[test]
    fn lines_beyond_the_limit_are_summed_per_second_and_kind() {
        let (mut windows, start) = (Windows::default(), Instant::now());
        let mut count = |reason, lines: u64, at_ms| {
            let now = start + Duration::from_millis(at_ms);
            let counted: Vec<_> = (0..lines)
                .map(|_| windows.count(kind(reason), now))
                .collect();
            let written = |c: &&Counted| **c == Counted::Written;
            let written = counted.iter().filter(written).count() as u64;
            let report = windows.next_report().map(|at| at.duration_since(start));
            (
                written,
                report.map(|after| after.as_millis()),
                windows.take(now),
            )
        };
        let sum = |reason, lines| vec![(kind(reason), lines)];
        for (reason, lines, at_ms, written, report, sums) in [
            ("A", 10, 0, 10, None, vec![]),
            // Another kind, for itself.
            ("B", 12, 500, 10, Some(1_500), vec![]),
            ("A", 5, 900, 0, Some(1_000), vec![]),
            ("A", 2, 999, 0, Some(1_000), vec![]),
            // Counts for the sum that is not yet written.
            ("A", 1, 1_000, 0, Some(1_000), sum("A", 8)),
            ("A", 1, 1_001, 1, Some(1_500), vec![]),
            ("B", 0, 1_500, 0, Some(1_500), sum("B", 2)),
            // A window without a sum ends silently.
            ("A", 11, 5_000, 10, Some(6_000), vec![]),
        ] {
            let case = format!("{reason} at {at_ms} ms");
            assert_eq!(
                count(reason, lines, at_ms),
                (written, report, sums),
                "{case}"
            );
        }
    }

    #[test]
    fn kinds_are_bounded() {
        let (mut windows, start) = (Windows::default(), Instant::now());
        for number in 0..5_000 {
            let reason = format!("HTTP_{number}");
            windows.count(LineKind { reason, ..kind("") }, start);
        }
        assert!(windows.0.len() <= MAX_KINDS + 1, "{}", windows.0.len());
        assert_eq!(
            windows.take(start + WINDOW),
            [(kind("OTHER"), 5_000 - 512 - 10)]
        );
        assert!(windows.0.is_empty());
    }
}
