//! Makes the gRPC status of an error, with `google.rpc` details. Every status that the
//! gateway itself makes for a call is made here; tonic makes those of invalid gRPC frames,
//! of health checks and of reflection.
//!
//! - `ErrorInfo`: always. `domain` is `drawbridge` for the gateway's own errors and the
//!   family's for an upstream's; `metadata` has `sent` (whether the upstream may have
//!   received the call), and `operation`, `upstream`, `http_status` if known.
//! - `RequestInfo`: `request_id` is the upstream's id of the request, empty if it sent
//!   none; `serving_data` is the gateway's id, as in its log.
//! - `RetryInfo`: if it is known when to try again; never in a watch that began with a
//!   call (`start`) that succeeded, since repeating the rpc would repeat that call.
//! - `BadRequest`: the invalid fields.
//! - `LocalizedMessage`: if the upstream's message is in the client's language.

use std::borrow::Cow;
use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use super::table::Audience;
use super::{Error, Fault, HINT, LoginFailure, StatusContext};

/// Limit of the text and the details as metadata, in bytes. Clients reject more than
/// 8 KiB of trailers, which have other entries too.
/// Source: `GRPC_ARG_MAX_METADATA_SIZE` of gRPC's C core.
const MAX_STATUS_BYTES: usize = 7 * 1024;
/// Share of the status text, including its copies in the details.
const MAX_TEXT_BYTES: usize = 4 * 1024;
/// Limit of a value in the details: of metadata, of an id, of a violation.
const MAX_VALUE_BYTES: usize = 200;
/// Size of a detail without its texts: the type's URL and the lengths.
const DETAIL_OVERHEAD_BYTES: usize = 60;

pub(super) fn status(error: &Error, context: &StatusContext<'_>) -> Status {
    let row = error.row();
    let fault = match error {
        Error::Upstream(fault) => Some(&**fault),
        _ => None,
    };
    let locale = fault.and_then(|fault| fault.locale.as_deref());
    let copies = if locale.is_some() { 2 } else { 1 };
    let text = cut_text(&visible(&text(error, context)), copies);
    let mut budget = ByteBudget::after(&text, copies);
    let mut details = ErrorDetails::new();

    budget.reserve_detail();
    let reason = budget.value(&row.reason);
    let domain = budget.value(fault.map_or("drawbridge", |fault| fault.domain));
    let mut metadata = HashMap::new();
    let mut add = |budget: &mut ByteBudget, key: &str, value: &str| {
        if !value.is_empty() && !metadata.contains_key(key) && budget.fits(key.len(), value) {
            budget.left -= key.len();
            metadata.insert(key.to_owned(), budget.value(value));
        }
    };
    let sent = context.start_succeeded || row.sent;
    add(&mut budget, "sent", if sent { "true" } else { "false" });
    add(&mut budget, "operation", context.operation);
    add(&mut budget, "upstream", context.upstream);
    if let Some(fault) = fault {
        add(&mut budget, "http_status", &fault.http_status.to_string());
    }

    budget.reserve_detail();
    let request_id = budget.value(error.request_id().unwrap_or_default());
    let serving_data = budget.value(context.request_id);
    if !request_id.is_empty() || !serving_data.is_empty() {
        details.set_request_info(request_id, serving_data);
    }
    if !context.start_succeeded
        && let Some(delay) = error.retry_after()
    {
        budget.reserve_detail();
        details.set_retry_info(Some(delay));
    }
    if let Some(locale) = locale {
        budget.reserve_detail();
        details.set_localized_message(budget.value(locale), text.clone());
    }
    for (key, value) in fault.map_or(&[][..], |fault| &fault.metadata) {
        add(&mut budget, key, value);
    }
    if let Error::PermissionDenied(denial) = error {
        add(&mut budget, "identity", &denial.identity);
        if let Some((rule, _)) = &denial.rule {
            add(&mut budget, "rule", rule);
        }
    }
    details.set_error_info(reason, domain, metadata);

    let violations = violations(error, &mut budget);
    if !violations.is_empty() {
        details.set_bad_request(violations);
    }
    let code = match row.code {
        // Clients take OK for a success.
        Code::Ok => Code::Unknown,
        code => code,
    };
    Status::with_error_details(code, text, details)
}

/// Returns the text for the client: what happened, where, what to do.
fn text(error: &Error, context: &StatusContext<'_>) -> String {
    let row = error.row();
    let text = match error {
        Error::Upstream(fault) => return upstream_text(fault, row.names_upstream, context),
        Error::Login {
            failure: LoginFailure::Deadline,
            ..
        } => "the deadline passed while the gateway waited for its login; its log has the cause"
            .to_owned(),
        _ if row.audience == Audience::Operators => {
            let what = match error {
                Error::Login { failure, .. } => match failure {
                    LoginFailure::Rejected => {
                        "was rejected at login: its operator must check \
                         its credentials"
                    }
                    LoginFailure::NotPossible => "cannot log in as configured",
                    LoginFailure::Deadline | LoginFailure::Unavailable | LoginFailure::Failed => {
                        "cannot log in at the moment"
                    }
                },
                _ => "failed",
            };
            format!("the gateway {what}; its log has the cause")
        }
        _ => error.to_string(),
    };
    match context.upstream {
        upstream if row.names_upstream && !upstream.is_empty() => {
            format!("upstream {upstream}: {text}")
        }
        _ => text,
    }
}

/// Returns the upstream's message, followed by the gateway's hint.
fn upstream_text(fault: &Fault, names_upstream: bool, context: &StatusContext<'_>) -> String {
    let mut text = if fault.message.trim().is_empty() {
        format!(
            "upstream {} responded HTTP {} without a message",
            context.upstream, fault.http_status
        )
    } else if names_upstream {
        format!("upstream {}: {}", context.upstream, fault.message)
    } else {
        fault.message.clone()
    };
    if let Some((_, hint)) = fault.metadata.iter().find(|(key, _)| *key == HINT) {
        text.push_str(" (");
        text.push_str(hint);
        text.push(')');
    }
    text
}

/// Returns the invalid fields that fit into the budget; the last entry counts the others.
fn violations(error: &Error, budget: &mut ByteBudget) -> Vec<FieldViolation> {
    let one;
    let fields = match error {
        Error::Binding { field, problem } => {
            one = [(field.clone(), problem.clone())];
            &one[..]
        }
        Error::FieldViolations(all) => all,
        Error::Upstream(fault) => &fault.fields,
        _ => &[],
    };
    let mut violations = Vec::new();
    // Once for `BadRequest`, once for the entry that counts the others.
    budget.reserve_detail();
    budget.reserve_detail();
    for (n, (field, problem)) in fields.iter().enumerate() {
        if !budget.fits(field.len().min(MAX_VALUE_BYTES), problem) {
            let rest = format!("{} more fields are invalid", fields.len() - n);
            violations.push(FieldViolation::new("", rest));
            break;
        }
        let field = budget.value(field);
        violations.push(FieldViolation::new(field, budget.value(problem)));
    }
    violations
}

/// Bytes left for the details, before base64.
struct ByteBudget {
    left: usize,
}

impl ByteBudget {
    /// Returns what the text and its copies in the details leave.
    fn after(text: &str, copies: usize) -> Self {
        let encoded = text.chars().map(percent_encoded_len).sum::<usize>();
        let bytes = (MAX_STATUS_BYTES.saturating_sub(encoded)) / 4 * 3;
        Self {
            left: bytes.saturating_sub(text.len() * copies + 16),
        }
    }

    /// Subtracts the size of a detail without its texts.
    fn reserve_detail(&mut self) {
        self.left = self.left.saturating_sub(DETAIL_OVERHEAD_BYTES);
    }

    /// Returns whether a key of this length and a value fit, truncated if necessary.
    fn fits(&self, key_len: usize, value: &str) -> bool {
        self.left > key_len + value.len().min(MAX_VALUE_BYTES) + DETAIL_OVERHEAD_BYTES
    }

    /// Returns the value, truncated if necessary, and subtracts its size.
    fn value(&mut self, value: &str) -> String {
        let value = cut(&visible(value), MAX_VALUE_BYTES.min(self.left));
        self.left = self.left.saturating_sub(value.len() + 12);
        value
    }
}

/// Truncates the text to its share, copies in the details included.
fn cut_text(text: &str, copies: usize) -> String {
    let mut cost = 0;
    for (at, c) in text.char_indices() {
        // In thirds of a byte, since base64 turns three bytes into four.
        cost += 3 * percent_encoded_len(c) + 4 * c.len_utf8() * copies;
        if cost > 3 * MAX_TEXT_BYTES {
            return truncated(text, at);
        }
    }
    text.to_owned()
}

/// Replaces characters that change how a terminal or a log shows the others: white space other
/// than a blank by a blank, other control characters and those of bidirectional text by U+FFFD.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    let is_space = |c: char| matches!(c, '\t'..='\r' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let is_hidden = |c: char| {
        c.is_control()
            || matches!(c,
                '\u{61c}' | '\u{200e}' | '\u{200f}'
                | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    if !text.contains(|c| is_space(c) || is_hidden(c)) {
        return Cow::Borrowed(text);
    }
    let text = text.replace("\r\n", " ");
    let replaced = text.chars().map(|c| match c {
        c if is_space(c) => ' ',
        c if is_hidden(c) => '\u{fffd}',
        c => c,
    });
    Cow::Owned(replaced.collect())
}

/// Truncates the text to about `max` bytes and appends how many are missing.
pub(crate) fn cut(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    // 24 bytes for the suffix.
    truncated(text, max.saturating_sub(24))
}

fn truncated(text: &str, end: usize) -> String {
    let kept = head(text, end);
    format!("{kept}... ({} bytes more)", text.len() - kept.len())
}

/// Returns at most the first `max` bytes of the text, up to a character boundary.
pub(crate) fn head(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Returns the largest size of a character in `grpc-message`.
fn percent_encoded_len(c: char) -> usize {
    if c.is_ascii_alphanumeric() {
        1
    } else {
        3 * c.len_utf8()
    }
}

#[cfg(test)]
mod tests;
