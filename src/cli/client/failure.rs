//! Describes the status of a failed call in lines: code and message, then its details.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::exit_code;
use super::text::sanitize;
use crate::server::TOKEN;

/// Why a command ends.
#[derive(Debug)]
pub(in crate::cli) struct Failure {
    pub(in crate::cli) code: u8,
    pub(in crate::cli) lines: Vec<String>,
}

impl Failure {
    /// Nothing was called, or no response says what happened.
    pub(in crate::cli) fn unknown(problem: impl Into<String>) -> Self {
        Self {
            code: exit_code::UNKNOWN,
            lines: vec![problem.into()],
        }
    }

    /// Prints the lines to standard error, the first with the name of the program.
    pub(in crate::cli) fn print(&self) {
        for (number, line) in self.lines.iter().enumerate() {
            match number {
                0 => crate::cli::print_error(line),
                _ => crate::telemetry::print_line(line),
            }
        }
    }
}

/// Describes a status in one line.
pub(in crate::cli) fn line(status: &Status) -> String {
    let code = crate::telemetry::code_name(status.code());
    match status.message() {
        "" => code.to_owned(),
        message => sanitize(&format!("{code}: {message}")),
    }
}

/// Describes a status: code and message, and an indented line per detail.
pub(super) fn lines(status: &Status) -> Vec<String> {
    let mut lines = vec![line(status)];
    let details = status.get_error_details();
    let mut add = |text: String| lines.push(sanitize(&format!("  {text}")));
    if let Some(request) = details.bad_request() {
        for violation in &request.field_violations {
            add(format!(
                "field {}: {}",
                violation.field, violation.description
            ));
        }
    }
    if let Some(delay) = details.retry_info().and_then(|info| info.retry_delay) {
        add(format!("retry after {}", delay_text(delay)));
    }
    if let Some(info) = details.error_info() {
        let mut text = format!("reason: {}", info.reason);
        if !info.domain.is_empty() {
            text += &format!(" ({})", info.domain);
        }
        let mut metadata: Vec<_> = info.metadata.iter().collect();
        // Whether anything was sent comes first.
        metadata.sort_by_key(|(name, _)| (*name != "sent", *name));
        for (name, value) in metadata {
            // A hint is usually in the message, too.
            if name != "hint" || !status.message().contains(&**value) {
                text += &format!(", {name}: {value}");
            }
        }
        add(text);
    }
    if let Some(request) = details.request_info() {
        let ids = [
            ("", &request.serving_data),
            (" of the upstream", &request.request_id),
        ];
        let ids = ids.iter().filter(|(_, id)| !id.is_empty());
        let ids: Vec<String> = ids
            .map(|(of, id)| format!("request id{of}: {id}"))
            .collect();
        if !ids.is_empty() {
            add(ids.join(", "));
        }
    }
    if let Some(text) = details.localized_message()
        && text.message != status.message()
    {
        add(format!("message ({}): {}", text.locale, text.message));
    }
    lines
}

fn delay_text(delay: Duration) -> String {
    match delay.subsec_millis() {
        0 => format!("{}s", delay.as_secs()),
        _ => format!("{:.1}s", delay.as_secs_f64()),
    }
}

/// Says which token is missing or rejected, where `has` says which metadata was sent.
pub(super) fn token_hint(status: &Status, has: impl Fn(&str) -> bool) -> Option<String> {
    if status.code() != Code::Unauthenticated {
        return None;
    }
    let (variable, name) = match status.message().contains(TOKEN) {
        true => ("DRAWBRIDGE_TOKEN", TOKEN),
        false => ("OS_TOKEN", "x-auth-token"),
    };
    Some(match has(name) {
        true => format!("  check the token in {variable}"),
        false => format!("  set the token in the variable {variable}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    #[test]
    fn details_are_lines() {
        let mut details = ErrorDetails::new();
        let metadata = [("http_status", "409"), ("hint", "busy"), ("sent", "true")];
        let metadata = metadata.map(|(name, value)| (name.to_owned(), value.to_owned()));
        details.set_error_info("HTTP_409", "heat", metadata);
        details.add_bad_request_violation("stack_name", "must not be\nempty");
        details.set_request_info("req-1", "own-1");
        details.set_retry_info(Some(Duration::from_millis(1_500)));
        let status = Status::with_error_details(Code::Aborted, "busy \u{1b}[2J", details);
        assert_eq!(
            lines(&status),
            [
                "ABORTED: busy \u{fffd}[2J",
                "  field stack_name: must not be empty",
                "  retry after 1.5s",
                "  reason: HTTP_409 (heat), sent: true, http_status: 409",
                "  request id: own-1, request id of the upstream: req-1",
            ]
        );
        assert_eq!(lines(&Status::new(Code::Aborted, "")), ["ABORTED"]);
    }

    #[test]
    fn hint_names_the_variable_of_the_token() {
        let missing = Status::unauthenticated("requires metadata `drawbridge-token`");
        let own = Status::unauthenticated("the token is not valid");
        for (status, sent, want) in [
            (
                &missing,
                "",
                "  set the token in the variable DRAWBRIDGE_TOKEN",
            ),
            (&missing, TOKEN, "  check the token in DRAWBRIDGE_TOKEN"),
            (&own, "", "  set the token in the variable OS_TOKEN"),
            (&own, "x-auth-token", "  check the token in OS_TOKEN"),
        ] {
            let hint = token_hint(status, |name| name == sent);
            assert_eq!(hint.as_deref(), Some(want));
        }
        assert!(token_hint(&Status::not_found("x"), |_| false).is_none());
    }
}
