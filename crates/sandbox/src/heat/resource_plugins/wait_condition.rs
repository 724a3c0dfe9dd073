//! Wait conditions and signals.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::engine::{self, Now};
use super::super::events::Event;
use super::super::stack::{Resource, Stack};
use super::super::{Heat, functions};
use super::{MAX_RESOURCE_DURATION, Started, seconds_of};

/// Waits for signals; some may have arrived already.
pub(super) fn wait_condition(
    heat: &mut Heat,
    serial: u64,
    resource: u64,
    duration: Duration,
) -> Started {
    let Some(stack) = heat.stacks.get(serial) else {
        return Started {
            takes: Some(duration),
            failure: None,
        };
    };
    match result_of_signals(stack, resource) {
        Some(failure) => Started {
            takes: Some(duration),
            failure,
        },
        None => {
            let found = stack
                .resources
                .iter()
                .find(|other| other.serial == resource);
            let timeout = found.and_then(|resource| seconds_of(resource.properties.get("timeout")));
            let timeout = timeout.and_then(|secs| Duration::try_from_secs_f64(secs).ok());
            Started {
                takes: Some(
                    timeout
                        .unwrap_or(MAX_RESOURCE_DURATION)
                        .min(MAX_RESOURCE_DURATION),
                ),
                // Replaced by [`timed_out`] with the count of signals at that time.
                failure: Some(String::new()),
            }
        }
    }
}

/// Returns the result of a wait condition according to its signals; `None` if more are
/// needed.
fn result_of_signals(stack: &Stack, resource: u64) -> Option<Option<String>> {
    let condition = stack
        .resources
        .iter()
        .find(|other| other.serial == resource)?;
    let handle = condition.properties.get("handle");
    let handle = stack
        .resources
        .iter()
        .find(|other| Some(&other.reference()) == handle);
    let signals = handle.and_then(|handle| handle.metadata.as_object());
    let reasons = |status: &str| -> Vec<String> {
        let signals = signals.into_iter().flatten();
        signals
            .filter(|(_, signal)| signal["status"] == status)
            .map(|(_, signal)| functions::text(&signal["reason"]))
            .collect()
    };
    let failures = reasons("FAILURE");
    if !failures.is_empty() {
        let name = &condition.name;
        let why = failures.join(";");
        return Some(Some(format!(
            "WaitConditionFailure: resources.{name}: {why}"
        )));
    }
    (reasons("SUCCESS").len() as u64 >= required_signals(condition)).then_some(None)
}

fn required_signals(condition: &Resource) -> u64 {
    let count = condition.properties.get("count").map(functions::text);
    count.and_then(|text| text.trim().parse().ok()).unwrap_or(1)
}

/// Returns the failure message of a wait condition after its timeout.
pub fn timed_out(heat: &Heat, serial: u64, resource: u64) -> Option<String> {
    let stack = heat.stacks.get(serial)?;
    let running = |other: &Resource| other.running.as_ref().map(|running| running.action);
    let found = stack
        .resources
        .iter()
        .find(|other| other.serial == resource)?;
    if running(found) == Some("DELETE") {
        return None;
    }
    if let Some(ended) = result_of_signals(stack, resource) {
        return ended;
    }
    let condition = stack
        .resources
        .iter()
        .find(|other| other.serial == resource)?;
    let handle = condition.properties.get("handle");
    let handle = stack
        .resources
        .iter()
        .find(|other| Some(&other.reference()) == handle);
    let signals = handle.and_then(|handle| handle.metadata.as_object());
    let reasons: Vec<String> = signals
        .into_iter()
        .flatten()
        .map(|(_, signal)| functions::text(&signal["reason"]))
        .collect();
    let mut message = format!(
        "{} of {} received",
        reasons.len(),
        required_signals(condition)
    );
    if !reasons.is_empty() {
        message = format!("{message} - {}", reasons.join(";"));
    }
    Some(format!(
        "WaitConditionTimeout: resources.{}: {message}",
        condition.name
    ))
}

/// Returns whether resources of this type accept signals.
pub fn takes_signals(kind: &str) -> bool {
    matches!(
        kind,
        "OS::Heat::WaitConditionHandle" | "OS::Heat::SoftwareDeployment"
    )
}

/// Applies a signal to a resource.
pub fn signal(heat: &mut Heat, serial: u64, name: &str, details: Option<&Value>, now: &Now) {
    let Some(stack) = heat.stacks.get_mut(serial) else {
        return;
    };
    let Some(found) = stack.resources.iter_mut().find(|other| other.name == name) else {
        return;
    };
    if found.kind == "OS::Heat::SoftwareDeployment" {
        let (resource, id) = (found.serial, found.physical_id.clone());
        let running = found.running.is_some();
        let details = details.cloned().unwrap_or_else(|| json!({}));
        let deployment = heat.deployments.iter_mut().find(|other| other.id == id);
        let Some(deployment) = deployment.filter(|deployment| deployment.in_progress()) else {
            // Late signals are dropped (docs/apis/heat.md, "Software deployment
            // states").
            return;
        };
        let config = heat
            .configs
            .iter()
            .find(|config| config.id == deployment.config_id);
        let failure = deployment.apply_signal(config, &details, &now.text);
        if running {
            let failure = failure.map(|why| format!("Error: resources.{name}: {why}"));
            engine::end_resource_action(heat, serial, resource, failure, now);
        }
        return;
    }
    let empty = json!({});
    let metadata = found.metadata.as_object().cloned().unwrap_or_default();
    let details = details.unwrap_or(&empty);
    // Heat treats a signal with other members as one without any.
    let known = ["status", "reason", "data", "id"];
    let members = details.as_object().cloned().unwrap_or_default();
    let fine = members.keys().all(|key| known.contains(&key.as_str()));
    let given = |key: &str| members.get(key).filter(|_| fine).cloned();
    let id = given("id").map_or_else(
        || (metadata.len() + 1).to_string(),
        |id| functions::text(&id),
    );
    let status = given("status").map_or_else(|| "SUCCESS".to_owned(), |it| functions::text(&it));
    if !["SUCCESS", "FAILURE"].contains(&status.as_str()) {
        return;
    }
    let reason = given("reason").unwrap_or_else(|| json!(format!("Signal {id} received")));
    let signal = match (fine, members.is_empty()) {
        (true, false) => {
            let mut signal = members.clone();
            signal.shift_remove("id");
            signal.entry("status").or_insert_with(|| json!(status));
            signal.entry("reason").or_insert_with(|| reason.clone());
            signal.entry("data").or_insert(Value::Null);
            Value::Object(signal)
        }
        _ => json!({"reason": reason, "data": null, "status": status}),
    };
    let mut metadata = metadata;
    metadata.insert(id, signal);
    found.metadata = Value::Object(metadata);
    let told = format!(
        "Signal: status:{status} reason:{}",
        functions::text(&reason)
    );
    let event = Event::of(found, "SIGNAL", "COMPLETE", &told, now);
    stack.record_event(event, now);
    let waiting: Vec<u64> = stack
        .resources
        .iter()
        .filter(|other| other.kind == "OS::Heat::WaitCondition" && other.running.is_some())
        .map(|other| other.serial)
        .collect();
    for resource in waiting {
        if let Some(failure) = heat
            .stacks
            .get(serial)
            .and_then(|stack| result_of_signals(stack, resource))
        {
            engine::end_resource_action(heat, serial, resource, failure, now);
        }
    }
}
