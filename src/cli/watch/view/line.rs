//! The lines of a view.

use std::time::Duration;

/// How a line is marked and coloured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::cli::watch) enum Mark {
    /// Succeeded.
    Success,
    /// Failed.
    Failure,
    /// In progress.
    Progress,
    /// Neither of these.
    #[default]
    Info,
}

/// One line of the view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cli::watch) struct Line {
    /// `2026-11-21T12:00:01Z`, or empty if the message has no time.
    pub(in crate::cli::watch) time: String,
    pub(in crate::cli::watch) mark: Mark,
    pub(in crate::cli::watch) subject: String,
    pub(in crate::cli::watch) state: String,
    pub(in crate::cli::watch) reason: String,
    /// How long the subject was in progress, if its start and its end were reported.
    pub(in crate::cli::watch) elapsed: Option<Duration>,
}

/// The status line at the bottom of a terminal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cli::watch) struct Status {
    pub(in crate::cli::watch) subject: String,
    pub(in crate::cli::watch) state: String,
    pub(in crate::cli::watch) mark: Mark,
    /// Number of finished parts, and of all parts.
    pub(in crate::cli::watch) parts: Option<(u64, u64)>,
    /// Since when the upstream could not be read.
    pub(in crate::cli::watch) unconfirmed: Option<String>,
}

/// Returns the mark of a state by its text, whose words differ between the families.
pub(in crate::cli::watch) fn mark(state: &str) -> Mark {
    let state = state.to_ascii_uppercase();
    let has = |words: &[&str]| words.iter().any(|word| state.contains(word));
    // A rollback that has completed is the end of a create or update that failed.
    let is_rolled_back = state == "ROLLBACK_COMPLETE";
    if is_rolled_back || has(&["FAIL", "ERROR", "ABORT", "CANCEL", "ABNORMAL"]) {
        Mark::Failure
    } else if state.starts_with("INIT_") {
        Mark::Info
    } else if has(&["COMPLETE", "SUCCE", "NORMAL"]) {
        Mark::Success
    } else {
        Mark::Progress
    }
}
