//! Reads the parts of messages that lines show. Pure: no I/O and no clock.

use std::time::Duration;

use drawbridge_transcoder::json::read_timestamp;
use serde_json::Value;

use super::line::Line;
use crate::cli::client::text::sanitize;

/// Returns the line of a log entry.
pub(super) fn log(message: &Value) -> Option<Line> {
    let is_gap = message.pointer("/event/type") == Some(&Value::from("GAP"));
    let reason = match is_gap {
        true => "... lines are missing: the log has dropped its oldest lines".to_owned(),
        false => text(message.get("line")?.get("text")),
    };
    Some(Line {
        reason,
        ..Line::default()
    })
}

/// Returns the possible responses to the question of a task, for example `labelbutton1` and
/// `Continue`. They are members of objects in lists, which may be nested.
pub(super) fn responses(document: &Value) -> Vec<(String, String)> {
    fn collect(value: &Value, into: &mut Vec<(String, String)>) {
        match value {
            Value::Array(values) => values.iter().for_each(|value| collect(value, into)),
            Value::Object(members) => into.extend(
                members
                    .iter()
                    .filter(|(name, _)| name.starts_with("label"))
                    .map(|(name, value)| (name.clone(), truncated(value))),
            ),
            _ => {}
        }
    }
    let mut responses = Vec::new();
    if let Some(parameters) = document.get("parameters") {
        collect(parameters, &mut responses);
    }
    responses
}

/// Returns the number of resources that have completed the current action of the stack, and
/// of all resources.
pub(super) fn progress(counts: &serde_json::Map<String, Value>, state: &str) -> Option<(u64, u64)> {
    let action = state.split('_').next().unwrap_or_default();
    let of_action = matches!(
        action,
        "DELETE" | "SUSPEND" | "RESUME" | "SNAPSHOT" | "CHECK"
    );
    let (mut done, mut all) = (0, 0);
    for (status, count) in counts {
        let count = count.as_u64().unwrap_or_default();
        all += count;
        let complete = status.ends_with("_COMPLETE") && !status.starts_with("INIT");
        if complete && (!of_action || status.starts_with(action)) {
            done += count;
        }
    }
    (all > 0).then_some((done, all))
}

pub(super) fn outputs(message: &Value) -> Option<Vec<(String, String)>> {
    if let Some(values) = message.pointer("/software_deployment/output_values") {
        let values = values.as_object()?;
        let pairs = values.iter().filter(|(_, value)| !value.is_null());
        return Some(
            pairs
                .map(|(name, value)| (sanitize(name), truncated(value)))
                .collect(),
        );
    }
    let outputs = message.pointer("/stack/outputs")?.as_array()?;
    let pairs = outputs.iter().map(|output| {
        let value = output.get("output_value").unwrap_or(&Value::Null);
        (text(output.get("output_key")), truncated(value))
    });
    Some(pairs.collect())
}

/// Returns the names of the resources that the call of a watch has started.
pub(super) fn names(message: &Value) -> String {
    let names = message.pointer("/watched/names").and_then(Value::as_array);
    let names = names.into_iter().flatten().map(|name| text(Some(name)));
    names.collect::<Vec<_>>().join(", ")
}

/// Returns how long a step took by the upstream's clock, if it reports the start and the end.
pub(super) fn step_duration(step: &Value) -> Option<Duration> {
    let at = |name: &str| Some(read_timestamp(step.get(name)?.as_str()?)?.millis());
    let millis = at("endTime")? - at("startTime")?;
    Some(Duration::from_millis(millis.try_into().ok()?))
}

/// Returns the members that differ, each with its new value.
pub(super) fn changes(before: &Value, after: &Value) -> String {
    let members = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let (before, after) = (members(before), members(after));
    let changed = after
        .iter()
        .filter(|(name, value)| before.get(*name) != Some(value))
        .map(|(name, value)| format!("{name}: {value}"));
    let removed = before.keys().filter(|name| !after.contains_key(*name));
    let removed = removed.map(|name| format!("{name}: none"));
    let all: Vec<String> = changed.chain(removed).collect();
    truncated(&Value::from(all.join(", ")))
}

/// Returns a time without its fraction: `2026-11-21T12:00:01Z`. A time without a zone is UTC,
/// as Heat's are.
pub(super) fn time(time: Option<&Value>) -> String {
    let text = text(time);
    match (text.get(..19), text.get(19..)) {
        (Some(time), Some(rest)) => {
            let zone = rest.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
            format!("{time}{}", if zone.is_empty() { "Z" } else { zone })
        }
        _ => String::new(),
    }
}

/// Returns the text of a reason. `None` is how Python writes that there is none.
pub(super) fn reason(value: Option<&Value>) -> Option<String> {
    let text = text(value).trim().to_owned();
    (!text.is_empty() && text != "None").then_some(text)
}

pub(super) fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => sanitize(text),
        Some(other) => sanitize(&other.to_string()),
    }
}

/// Returns a value on one line of at most 200 characters.
pub(super) fn truncated(value: &Value) -> String {
    // The output of a command ends with a newline.
    let text = text(Some(value));
    let text = text.trim_end();
    match text.char_indices().nth(200) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}
