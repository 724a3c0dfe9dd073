//! An error as a `tonic::Status` with `google.rpc` details.
//!
//! - `ErrorInfo`: always. `domain` is `drawbridge` for the gateway's own errors
//!   and the family's for an upstream's; `metadata` says `sent` (whether the call
//!   had gone out), and `operation`, `upstream`, `http_status` where there is one.
//! - `RequestInfo`: `request_id` is the upstream's id of the request, empty when
//!   it gave none; `serving_data` is the gateway's id of it, as in its log.
//! - `RetryInfo`: when it is known when to try again; not in a stream that began
//!   with a call, since that would be made again.
//! - `BadRequest`: the fields at fault.
//! - `LocalizedMessage`: when the upstream answered in the caller's language.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use super::{Context, Error, Fault, HINT};

/// Bytes of metadata that the text and the details take at most. Clients give up
/// on more than 8 KiB of trailers, in which other entries want room too.
/// Source: `GRPC_ARG_MAX_METADATA_SIZE` of gRPC's C core.
const MAX_BYTES: usize = 7 * 1024;
/// What of it the status text may take, with its copies in the details.
const MAX_TEXT_BYTES: usize = 4 * 1024;
/// The longest value in the details: of metadata, of an id, of a violation.
const MAX_VALUE: usize = 200;
/// What a detail costs beside its texts: the type's URL and the lengths.
const DETAIL: usize = 60;

pub(super) fn status(error: &Error, context: &Context<'_>) -> Status {
    let fault = match error {
        Error::Upstream(fault) => Some(&**fault),
        _ => None,
    };
    let locale = fault.and_then(|fault| fault.locale.as_deref());
    let copies = if locale.is_some() { 2 } else { 1 };
    let text = cut_text(&text(error, context), copies);
    let mut room = Room::after(&text, copies);
    let mut details = ErrorDetails::new();

    room.detail();
    let reason = room.value(&reason(error));
    let domain = room.value(fault.map_or("drawbridge", |fault| fault.domain));
    let mut metadata = HashMap::new();
    let mut note = |room: &mut Room, key: &str, value: &str| {
        if !value.is_empty() && !metadata.contains_key(key) && room.has(key.len(), value) {
            room.left -= key.len();
            metadata.insert(key.to_owned(), room.value(value));
        }
    };
    note(
        &mut room,
        "sent",
        if context.begun || sent(error) {
            "true"
        } else {
            "false"
        },
    );
    note(&mut room, "operation", context.operation);
    note(&mut room, "upstream", context.upstream);
    if let Some(fault) = fault {
        note(&mut room, "http_status", &fault.http_status.to_string());
    }

    room.detail();
    let request_id = room.value(error.request_id().unwrap_or_default());
    let serving_data = room.value(context.request_id);
    if !request_id.is_empty() || !serving_data.is_empty() {
        details.set_request_info(request_id, serving_data);
    }
    // What was begun must not be begun again.
    if !context.begun
        && let Some(delay) = error.retry_after()
    {
        room.detail();
        details.set_retry_info(Some(delay));
    }
    if let Some(locale) = locale {
        room.detail();
        details.set_localized_message(room.value(locale), text.clone());
    }
    for (key, value) in fault.map_or(&[][..], |fault| &fault.metadata) {
        note(&mut room, key, value);
    }
    details.set_error_info(reason, domain, metadata);

    let violations = violations(error, &mut room);
    if !violations.is_empty() {
        details.set_bad_request(violations);
    }
    let code = match error.code() {
        // An error is never told as a success.
        Code::Ok => Code::Unknown,
        code => code,
    };
    Status::with_error_details(code, text, details)
}

/// The text for the caller: what happened, where, what to do.
fn text(error: &Error, context: &Context<'_>) -> String {
    match error {
        Error::Binding { .. }
        | Error::Violations(_)
        | Error::Stream { .. }
        | Error::Unreceived { .. }
        | Error::Malformed(_)
        | Error::NoUpstream(_)
        | Error::NotConfigured(_)
        | Error::Refused { .. }
        | Error::Draining => error.to_string(),
        Error::Unsupported { .. }
        | Error::Overload { .. }
        | Error::Credential { .. }
        | Error::Deadline { .. }
        | Error::StreamDeadline
        | Error::Connect(_)
        | Error::NoAnswer(_)
        | Error::OutcomeUnknown(_)
        | Error::TooLarge { .. }
        | Error::Undelivered { .. }
        | Error::Restarted
        | Error::Decode { .. } => match context.upstream {
            "" => error.to_string(),
            upstream => format!("upstream {upstream}: {error}"),
        },
        Error::Login { code, .. } => {
            let what = match code {
                Code::Unavailable => "cannot log in just now",
                Code::FailedPrecondition => "cannot log in as it is configured",
                _ => "was refused when it logged in",
            };
            let upstream = context.upstream;
            format!("upstream {upstream}: the gateway {what}; its log says more")
        }
        Error::Upstream(fault) => upstream_text(fault, context),
    }
}

/// The upstream's own words, and behind them the gateway's.
fn upstream_text(fault: &Fault, context: &Context<'_>) -> String {
    let mut text = if fault.message.trim().is_empty() {
        format!(
            "upstream {} answered HTTP {} without saying why",
            context.upstream, fault.http_status
        )
    } else if matches!(fault.http_status, 502..=504) {
        // Often the words of a proxy, which do not say whose they are.
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

/// `ErrorInfo.reason`: stable, for programs.
/// Form of our own: <https://google.aip.dev/193>.
fn reason(error: &Error) -> String {
    match error {
        Error::Binding { .. } | Error::Violations(_) => "INVALID_FIELD",
        Error::Stream {
            code: Code::ResourceExhausted,
            ..
        } => "FILE_TOO_LARGE",
        Error::Stream { .. } => "STREAM_BROKEN",
        Error::Unreceived { .. } => "REQUEST_NOT_RECEIVED",
        Error::Malformed(_) => "MALFORMED_REQUEST",
        Error::Unsupported { .. } => "DIALECT_LACKS_OPERATION",
        Error::NoUpstream(_) => "UNKNOWN_UPSTREAM",
        Error::NotConfigured(_) => "NOT_CONFIGURED",
        Error::Overload {
            code: Code::Unavailable,
            ..
        } => "UPSTREAM_DOWN",
        Error::Overload { .. } => "OVERLOADED",
        Error::Credential { code, .. } | Error::Login { code, .. } => match code {
            Code::PermissionDenied => "LOGIN_FORBIDDEN",
            Code::FailedPrecondition => "LOGIN_NOT_POSSIBLE",
            Code::Unavailable => "LOGIN_UNAVAILABLE",
            _ => "CREDENTIALS_REFUSED",
        },
        Error::Deadline { .. } | Error::StreamDeadline => "DEADLINE_PASSED",
        Error::Connect(_) => "CANNOT_CONNECT",
        Error::NoAnswer(_) => "NO_ANSWER",
        Error::OutcomeUnknown(_) => "OUTCOME_UNKNOWN",
        Error::TooLarge { .. } => "ANSWER_TOO_LARGE",
        Error::Undelivered { .. } => "ANSWER_NOT_DELIVERED",
        Error::Upstream(fault) if fault.reason.is_empty() => {
            return format!("HTTP_{}", fault.http_status);
        }
        Error::Upstream(fault) => &fault.reason,
        Error::Decode { .. } => "UNREADABLE_ANSWER",
        Error::Refused { .. } => "REFUSED_IN_SUCCESS",
        Error::Restarted => "LIST_RESTARTED",
        Error::Draining => "STOPPING",
    }
    .to_owned()
}

/// Whether the call had gone out, so that the upstream may have acted.
fn sent(error: &Error) -> bool {
    match error {
        Error::Deadline { sent } => *sent,
        Error::Upstream(fault) => !fault.not_processed,
        Error::StreamDeadline
        | Error::NoAnswer(_)
        | Error::OutcomeUnknown(_)
        | Error::TooLarge { .. }
        | Error::Undelivered { .. }
        | Error::Refused { .. }
        | Error::Restarted
        | Error::Decode { .. } => true,
        Error::Binding { .. }
        | Error::Violations(_)
        | Error::Stream { .. }
        | Error::Unreceived { .. }
        | Error::Malformed(_)
        | Error::Unsupported { .. }
        | Error::NoUpstream(_)
        | Error::NotConfigured(_)
        | Error::Overload { .. }
        | Error::Credential { .. }
        | Error::Login { .. }
        | Error::Connect(_)
        | Error::Draining => false,
    }
}

/// The fields at fault, as many as there is room for; the last says how many more.
fn violations(error: &Error, room: &mut Room) -> Vec<FieldViolation> {
    let one;
    let fields = match error {
        Error::Binding { field, problem } => {
            one = [(field.clone(), problem.clone())];
            &one[..]
        }
        Error::Violations(all) => all,
        Error::Upstream(fault) => &fault.fields,
        _ => &[],
    };
    let mut told = Vec::new();
    // The word on the rest is reserved in advance.
    room.detail();
    room.detail();
    for (n, (field, problem)) in fields.iter().enumerate() {
        if !room.has(field.len().min(MAX_VALUE), problem) {
            let rest = format!("{} more fields are at fault", fields.len() - n);
            told.push(FieldViolation::new("", rest));
            break;
        }
        let field = room.value(field);
        told.push(FieldViolation::new(field, room.value(problem)));
    }
    told
}

/// The bytes that are left for details, before base64.
struct Room {
    left: usize,
}

impl Room {
    /// What the text and its copies in the details leave.
    fn after(text: &str, copies: usize) -> Self {
        let encoded = text.chars().map(percent_encoded).sum::<usize>();
        let bytes = (MAX_BYTES.saturating_sub(encoded)) / 4 * 3;
        Self {
            left: bytes.saturating_sub(text.len() * copies + 16),
        }
    }

    /// Takes what a detail costs beside its texts.
    fn detail(&mut self) {
        self.left = self.left.saturating_sub(DETAIL);
    }

    /// Whether a key and a value would fit, cut or not.
    fn has(&self, key: usize, value: &str) -> bool {
        self.left > key + value.len().min(MAX_VALUE) + DETAIL
    }

    /// The value as it fits, paid for.
    fn value(&mut self, value: &str) -> String {
        let value = cut(value, MAX_VALUE.min(self.left));
        self.left = self.left.saturating_sub(value.len() + 12);
        value
    }
}

/// The text, cut so that with its copies in the details it keeps to its share.
fn cut_text(text: &str, copies: usize) -> String {
    let mut cost = 0;
    for (at, c) in text.char_indices() {
        // In thirds of a byte, since base64 makes four of three.
        cost += 3 * percent_encoded(c) + 4 * c.len_utf8() * copies;
        if cost > 3 * MAX_TEXT_BYTES {
            return shortened(text, at);
        }
    }
    text.to_owned()
}

/// The text, cut to about `max` bytes.
pub(crate) fn cut(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    // Room for the word on the rest.
    shortened(text, max.saturating_sub(24))
}

fn shortened(text: &str, end: usize) -> String {
    let kept = head(text, end);
    format!("{kept}... ({} bytes more)", text.len() - kept.len())
}

/// The first `max` bytes of the text, or a few less at a character's boundary.
pub(crate) fn head(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// What a character costs in `grpc-message`, at most.
fn percent_encoded(c: char) -> usize {
    if c.is_ascii_alphanumeric() {
        1
    } else {
        3 * c.len_utf8()
    }
}

#[cfg(test)]
mod tests;
