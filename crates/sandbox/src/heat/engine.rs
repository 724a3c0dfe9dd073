//! Execution of stack actions. An action is a graph of operations on resources, each of
//! which takes some time.
//!
//! Nothing runs in the background. Timers are kept sorted by time; each request first
//! fires all timers that are due, each at its own time. The order of operations is that
//! of Heat's convergence engine, as observed.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::super::message::{Answer, seconds};
use super::super::{Clock, Settings};
use super::events::Event;
use super::stack::{Plan, Resource, Running, Stack};
use super::{Heat, fault, resource_plugins};

/// `stack_action_timeout` of Heat's configuration.
const ACTION_TIMEOUT: Duration = Duration::from_secs(3600);

/// Time at which a timer fires or a request arrives.
pub(super) struct Now<'a> {
    pub at: Instant,
    /// As Heat formats it.
    pub text: String,
    pub settings: &'a Settings,
}

impl<'a> Now<'a> {
    pub fn new(at: Instant, clock: &'a Clock, settings: &'a Settings) -> Self {
        let text = seconds(clock.wall(at));
        Self { at, text, settings }
    }

    /// Returns the duration of an action on a resource: one step if the sandbox
    /// simulates progress, otherwise zero, which is close to real Heat.
    pub fn pause(&self) -> Duration {
        match self.settings.play {
            true => self.settings.step,
            false => Duration::ZERO,
        }
    }
}

/// A timer.
pub(super) enum Tick {
    /// Starts the first resources of a stack's action.
    Begin { stack: u64, work: u64 },
    /// Completes the action of a resource.
    Over {
        stack: u64,
        resource: u64,
        tick: u64,
    },
    /// Fails a stack's action with a timeout.
    Expired { stack: u64, work: u64 },
}

/// A running action of a stack.
pub(super) struct Work {
    id: u64,
    action: &'static str,
    nodes: Vec<Node>,
    /// First failure; only a check continues after one.
    failure: Option<String>,
}

struct Node {
    what: What,
    /// Nodes that must be done before this one.
    waits: Vec<usize>,
    state: State,
}

enum What {
    /// Create or update the resource according to the template.
    Converge(String),
    /// Run this action on the resource with this serial number.
    Act(u64, &'static str),
}

#[derive(PartialEq)]
enum State {
    Waiting,
    /// Executing on the resource with this serial number.
    Running(u64),
    Done,
}

/// State of an action right after its start.
pub(super) enum Progress {
    Done,
    Running,
    Failed(String),
}

/// Fires all timers that are due by `until`.
pub(super) fn advance(heat: &mut Heat, until: Instant, clock: &Clock, settings: &Settings) {
    while let Some(entry) = heat.stacks.due.first_entry() {
        let at = entry.key().0;
        if at > until {
            return;
        }
        let now = Now::new(at, clock, settings);
        match entry.remove() {
            Tick::Begin { stack, work } => {
                if heat
                    .stacks
                    .get(stack)
                    .is_some_and(|stack| stack.works(work))
                {
                    proceed(heat, stack, &now);
                }
            }
            Tick::Over {
                stack,
                resource,
                tick,
            } => {
                let Some(part) = heat
                    .stacks
                    .get_mut(stack)
                    .and_then(|stack| stack.part(resource))
                else {
                    continue;
                };
                let Some(running) = part.running.as_ref().filter(|it| it.tick == Some(tick)) else {
                    continue;
                };
                let failure = match part.kind.as_str() {
                    "OS::Heat::WaitCondition" => resource_plugins::timed_out(heat, stack, resource),
                    _ => running.failure.clone(),
                };
                over(heat, stack, resource, failure, &now);
            }
            Tick::Expired { stack, work } => {
                if heat
                    .stacks
                    .get(stack)
                    .is_some_and(|stack| stack.works(work))
                {
                    finish(heat, stack, Some("Timed out".to_owned()), &now);
                }
            }
        }
    }
}

impl Stack {
    fn works(&self, id: u64) -> bool {
        self.work.as_ref().is_some_and(|work| work.id == id)
    }
}

fn schedule(heat: &mut Heat, at: Instant, tick: impl FnOnce(u64) -> Tick) -> u64 {
    let number = heat.stacks.next_tick();
    heat.stacks.due.insert((at, number), tick(number));
    number
}

/// Starts an action that changes the stack to match `plan`.
pub(super) fn converge(heat: &mut Heat, serial: u64, action: &'static str, plan: Plan, now: &Now) {
    let Some(stack) = heat.stacks.get_mut(serial) else {
        return;
    };
    if action == "ROLLBACK" {
        stack.previous = None;
    } else if action != "CREATE" && action != "ADOPT" && stack.status == "COMPLETE" {
        stack.previous = Some(stack.plan.clone());
    }
    stack.plan = plan;
    let names: Vec<String> = stack
        .plan
        .template
        .resources()
        .map(|(name, _)| name.clone())
        .collect();
    // Resources that the template no longer has become leftovers to delete; new ones
    // are listed at once, in state INIT.
    let (kept, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut stack.resources)
        .into_iter()
        .partition(|resource| names.contains(&resource.name));
    stack.resources = kept;
    stack.leftovers.extend(gone);
    let mut nodes: Vec<Node> = Vec::new();
    for name in &names {
        let requires = stack.plan.template.requires(name);
        let waits = requires
            .iter()
            .filter_map(|other| names.iter().position(|name| name == other))
            .collect();
        if stack.resource(name).is_none() {
            let definition = stack
                .plan
                .template
                .resource(name)
                .cloned()
                .unwrap_or_default();
            let fresh = Resource::fresh(&stack.name, name, definition, requires, &now.text);
            stack.resources.push(fresh);
        }
        nodes.push(Node {
            what: What::Converge(name.clone()),
            waits,
            state: State::Waiting,
        });
    }
    let first = nodes.len();
    for (index, leftover) in stack.leftovers.iter().enumerate() {
        let needing = stack
            .leftovers
            .iter()
            .enumerate()
            .filter(|(_, other)| other.requires.contains(&leftover.name))
            .map(|(other, _)| first + other)
            .filter(|other| *other != first + index);
        let changing = stack
            .resources
            .iter()
            .filter(|other| other.requires.contains(&leftover.name))
            .filter_map(|other| names.iter().position(|name| *name == other.name));
        nodes.push(Node {
            what: What::Act(leftover.serial, "DELETE"),
            waits: needing.chain(changing).collect(),
            state: State::Waiting,
        });
    }
    begin(heat, serial, action, nodes, now);
}

/// Starts an action on every resource: suspend, resume, check, snapshot or delete.
pub(super) fn act_on_all(heat: &mut Heat, serial: u64, action: &'static str, now: &Now) {
    let Some(stack) = heat.stacks.get(serial) else {
        return;
    };
    let parts: Vec<&Resource> = match action {
        "DELETE" => stack.resources.iter().chain(&stack.leftovers).collect(),
        _ => stack.resources.iter().collect(),
    };
    let forward = matches!(action, "RESUME" | "CHECK" | "SNAPSHOT");
    let nodes = parts
        .iter()
        .map(|part| {
            let comes_first = |other: &Resource| match forward {
                true => part.requires.contains(&other.name),
                false => other.requires.contains(&part.name) && other.serial != part.serial,
            };
            Node {
                what: What::Act(part.serial, action),
                waits: (0..parts.len())
                    .filter(|i| comes_first(parts[*i]))
                    .collect(),
                state: State::Waiting,
            }
        })
        .collect();
    begin(heat, serial, action, nodes, now);
    if action == "DELETE" {
        give_up(heat, serial, now);
    }
}

/// Aborts all running actions of the stack's resources, for a deletion.
fn give_up(heat: &mut Heat, serial: u64, now: &Now) {
    let Some(stack) = heat.stacks.get_mut(serial) else {
        return;
    };
    let parts = stack.resources.iter_mut().chain(&mut stack.leftovers);
    let mut given_up = Vec::new();
    for part in parts {
        if let Some(running) = part.running.take() {
            // An aborted update has no effect (observed: the old `wait_secs` remains).
            if let Some(before) = running.before {
                part.properties = before;
            }
            given_up.push((part.serial, running.action));
        }
    }
    for (part, action) in given_up {
        let reason = format!("{action} aborted (user triggered cancel)");
        stack.enter_part(part, action, "FAILED", &reason, now);
    }
}

fn begin(heat: &mut Heat, serial: u64, action: &'static str, nodes: Vec<Node>, now: &Now) {
    let id = heat.stacks.next_tick();
    let Some(stack) = heat.stacks.get_mut(serial) else {
        return;
    };
    if action != "CREATE" {
        stack.updated = Some(now.text.clone());
    }
    let reason = format!("Stack {action} started");
    stack.enter(action, "IN_PROGRESS", reason, now);
    stack.work = Some(Work {
        id,
        action,
        nodes,
        failure: None,
    });
    let minutes = stack
        .timeout_mins
        .and_then(|minutes| u64::try_from(minutes).ok());
    let timeout = minutes.map_or(ACTION_TIMEOUT, |minutes| {
        Duration::from_secs(minutes.saturating_mul(60).min(86_400 * 365))
    });
    schedule(heat, now.at, |_| Tick::Begin {
        stack: serial,
        work: id,
    });
    schedule(heat, now.at + timeout, |_| Tick::Expired {
        stack: serial,
        work: id,
    });
}

impl Stack {
    fn enter(&mut self, action: &'static str, status: &'static str, reason: String, now: &Now) {
        self.action = action;
        self.status = status;
        self.reason = reason;
        let event = Event {
            id: Uuid::new_v4().to_string(),
            order: super::events::next(),
            time: now.text.clone(),
            resource: self.name.clone(),
            kind: "OS::Heat::Stack".to_owned(),
            physical: self.id.clone(),
            action,
            status,
            reason: self.reason.clone(),
            properties: Value::Null,
        };
        self.note(event, now);
    }

    /// Completes the stack at once with `events` events, for preloading.
    pub fn seed(&mut self, events: usize, now: &Now) {
        for _ in 1..events {
            self.enter(
                "CREATE",
                "IN_PROGRESS",
                "Stack CREATE started".to_owned(),
                now,
            );
        }
        let reason = "Stack CREATE completed successfully".to_owned();
        self.enter("CREATE", "COMPLETE", reason, now);
    }

    /// Marks the stack as deleted and leaves its resources alone.
    pub fn forsake(&mut self, now: &Now) {
        self.work = None;
        self.updated = Some(now.text.clone());
        let reason = "Stack DELETE completed successfully".to_owned();
        self.enter("DELETE", "COMPLETE", reason, now);
        self.end(now);
        self.resources.clear();
    }

    fn end(&mut self, now: &Now) {
        self.deleted = true;
        self.gone = Some(now.text.clone());
        self.plan.template = self.plan.template.emptied();
        self.snapshots.clear();
        self.leftovers.clear();
    }

    /// Sets the state of a resource and records an event.
    pub fn enter_part(
        &mut self,
        serial: u64,
        action: &'static str,
        status: &'static str,
        reason: &str,
        now: &Now,
    ) {
        let Some(part) = self.part(serial) else {
            return;
        };
        part.action = action;
        part.status = status;
        part.reason = reason.to_owned();
        part.updated = now.text.clone();
        let event = Event::of(part, action, status, reason, now);
        self.note(event, now);
    }
}

impl Resource {
    /// Builds a resource that is not created yet.
    pub fn fresh(
        stack: &str,
        name: &str,
        definition: Value,
        requires: Vec<String>,
        now: &str,
    ) -> Self {
        Self {
            serial: fastrand::u64(..),
            name: name.to_owned(),
            kind: definition["type"].as_str().unwrap_or_default().to_owned(),
            metadata: match &definition["metadata"] {
                Value::Null => json!({}),
                metadata => metadata.clone(),
            },
            definition,
            requires,
            physical_name: format!("{stack}-{name}-{}", resource_plugins::tail()),
            action: "INIT",
            status: "COMPLETE",
            created: now.to_owned(),
            updated: now.to_owned(),
            ..Self::default()
        }
    }
}

/// Starts every node that can start; finishes the action when no node is left.
fn proceed(heat: &mut Heat, serial: u64, now: &Now) {
    while let Some(index) = heat.stacks.get(serial).and_then(ready) {
        let Some(stack) = heat.stacks.get_mut(serial) else {
            return;
        };
        let Some(work) = &mut stack.work else {
            return;
        };
        let checks = work.action == "CHECK";
        let skipped = checks && work.failure.is_some();
        let (progress, part) = match &work.nodes[index].what {
            _ if skipped => (Progress::Done, 0),
            What::Act(part, action) => {
                let (part, action) = (*part, *action);
                (act(heat, serial, part, action, None, now), part)
            }
            What::Converge(name) => {
                let name = name.clone();
                converge_part(heat, serial, &name, now)
            }
        };
        let Some(work) = heat
            .stacks
            .get_mut(serial)
            .and_then(|stack| stack.work.as_mut())
        else {
            return;
        };
        match progress {
            Progress::Done => work.nodes[index].state = State::Done,
            Progress::Running => work.nodes[index].state = State::Running(part),
            Progress::Failed(reason) => {
                work.nodes[index].state = State::Done;
                if !failed(heat, serial, reason, now) {
                    return;
                }
            }
        }
    }
    let over = |stack: &Stack| {
        let work = stack.work.as_ref()?;
        let over = work.nodes.iter().all(|node| node.state == State::Done);
        over.then(|| work.failure.clone())
    };
    if let Some(failure) = heat.stacks.get(serial).and_then(over) {
        finish(heat, serial, failure, now);
    }
}

/// Returns a node whose predecessors are done and whose resource is idle.
fn ready(stack: &Stack) -> Option<usize> {
    let work = stack.work.as_ref()?;
    let busy = |what: &What| {
        let mut parts = stack.resources.iter().chain(&stack.leftovers);
        parts.any(|part| {
            part.running.is_some()
                && match what {
                    What::Converge(name) => part.name == *name,
                    What::Act(serial, _) => part.serial == *serial,
                }
        })
    };
    work.nodes.iter().position(|node| {
        node.state == State::Waiting
            && node
                .waits
                .iter()
                .all(|wait| work.nodes[*wait].state == State::Done)
            && !busy(&node.what)
    })
}

/// Records a failed node. Returns whether the action continues.
fn failed(heat: &mut Heat, serial: u64, reason: String, now: &Now) -> bool {
    if let Some(work) = heat
        .stacks
        .get_mut(serial)
        .and_then(|stack| stack.work.as_mut())
        && work.action == "CHECK"
    {
        work.failure.get_or_insert(reason);
        return true;
    }
    finish(heat, serial, Some(reason), now);
    false
}

/// Creates, updates or replaces one resource according to the template.
fn converge_part(heat: &mut Heat, serial: u64, name: &str, now: &Now) -> (Progress, u64) {
    let Some((existing, stack)) = heat
        .stacks
        .get(serial)
        .and_then(|stack| Some((stack.resource(name)?, stack)))
    else {
        return (Progress::Done, 0);
    };
    let part = existing.serial;
    let definition = stack
        .plan
        .template
        .resource(name)
        .cloned()
        .unwrap_or_default();
    let requires = stack.plan.template.requires(name);
    let mut properties = Map::new();
    for (property, value) in definition["properties"].as_object().into_iter().flatten() {
        match stack.resolve(heat, value) {
            Ok(value) => properties.insert(property.clone(), value),
            Err(problem) => {
                let reason = format!("StackValidationFailed: resources.{name}: {problem}");
                return (
                    Progress::Failed(format!("Resource CREATE failed: {reason}")),
                    part,
                );
            }
        };
    }
    let change = resource_plugins::change(existing, &definition, &properties, &stack.plan.files);
    let Some(stack) = heat.stacks.get_mut(serial) else {
        return (Progress::Done, 0);
    };
    let settle = |stack: &mut Stack| {
        if let Some(part) = stack.part(part) {
            part.requires = requires.clone();
        }
    };
    match change {
        resource_plugins::Change::None => {
            settle(stack);
            if let Some(part) = stack.part(part) {
                part.definition = definition;
            }
            (Progress::Done, part)
        }
        resource_plugins::Change::Create => {
            settle(stack);
            if let Some(part) = stack.part(part) {
                part.kind = definition["type"].as_str().unwrap_or_default().to_owned();
                part.definition = definition;
                part.properties = properties;
            }
            let adopts = stack.action == "ADOPT" && stack.adopted[name].is_object();
            let action = if adopts { "ADOPT" } else { "CREATE" };
            (act(heat, serial, part, action, None, now), part)
        }
        resource_plugins::Change::Update => {
            settle(stack);
            let before = stack.part(part).map(|part| {
                part.definition = definition;
                std::mem::replace(&mut part.properties, properties)
            });
            (act(heat, serial, part, "UPDATE", before, now), part)
        }
        resource_plugins::Change::Replace => {
            let mut fresh = Resource::fresh(&stack.name, name, definition, requires, &now.text);
            fresh.properties = properties;
            let new = fresh.serial;
            if let Some(at) = stack
                .resources
                .iter()
                .position(|other| other.serial == part)
            {
                let old = std::mem::replace(&mut stack.resources[at], fresh);
                stack.leftovers.push(old);
            }
            // The old resource is deleted after all its dependents use the new one.
            if let Some(work) = &mut stack.work {
                let needing = &stack.plan.template;
                let waits = work
                    .nodes
                    .iter()
                    .enumerate()
                    .filter(|(_, node)| match &node.what {
                        What::Converge(other) => {
                            other == name || needing.requires(other).iter().any(|it| it == name)
                        }
                        What::Act(..) => false,
                    })
                    .map(|(index, _)| index)
                    .collect();
                work.nodes.push(Node {
                    what: What::Act(part, "DELETE"),
                    waits,
                    state: State::Waiting,
                });
            }
            (act(heat, serial, new, "CREATE", None, now), new)
        }
    }
}

/// Starts an action on one resource. `before` holds the previous properties for an
/// update.
fn act(
    heat: &mut Heat,
    serial: u64,
    part: u64,
    action: &'static str,
    before: Option<Map<String, Value>>,
    now: &Now,
) -> Progress {
    let Some(stack) = heat.stacks.get_mut(serial) else {
        return Progress::Done;
    };
    let Some(found) = stack.part(part) else {
        return Progress::Done;
    };
    // A resource that was never created needs no work.
    if found.action == "INIT" && !matches!(action, "CREATE" | "ADOPT") {
        if action == "DELETE" {
            stack.forget(part);
        }
        return Progress::Done;
    }
    if action == "CHECK" && !resource_plugins::can_check(&found.kind) {
        let reason = format!("CHECK not supported for {}", found.kind);
        stack.enter_part(part, "CHECK", "COMPLETE", &reason, now);
        return Progress::Done;
    }
    stack.enter_part(part, action, "IN_PROGRESS", "state changed", now);
    let started = resource_plugins::start(heat, serial, part, action, before.as_ref(), now);
    let tick = started.takes.map(|takes| {
        schedule(heat, now.at + takes, |tick| Tick::Over {
            stack: serial,
            resource: part,
            tick,
        })
    });
    if let Some(part) = heat
        .stacks
        .get_mut(serial)
        .and_then(|stack| stack.part(part))
    {
        part.running = Some(Running {
            action,
            before,
            failure: started.failure,
            tick,
        });
    }
    Progress::Running
}

/// Ends a resource's action. `failure` is Heat's message without the resource's path.
pub(super) fn over(heat: &mut Heat, serial: u64, part: u64, failure: Option<String>, now: &Now) {
    let Some(stack) = heat.stacks.get_mut(serial) else {
        return;
    };
    let Some(running) = stack.part(part).and_then(|part| part.running.take()) else {
        return;
    };
    let action = running.action;
    match &failure {
        None => stack.enter_part(part, action, "COMPLETE", "state changed", now),
        Some(reason) => stack.enter_part(part, action, "FAILED", reason, now),
    }
    resource_plugins::ended(heat, serial, part, action, failure.is_none(), now);
    let Some(stack) = heat.stacks.get_mut(serial) else {
        return;
    };
    let name = stack
        .part(part)
        .map(|part| part.name.clone())
        .unwrap_or_default();
    if action == "DELETE" && failure.is_none() {
        stack.forget(part);
    }
    let Some(work) = &mut stack.work else {
        return;
    };
    let checks = work.action == "CHECK";
    let node = work
        .nodes
        .iter_mut()
        .find(|node| node.state == State::Running(part));
    if let Some(node) = node {
        node.state = State::Done;
        if let Some(reason) = failure {
            let reason = match checks {
                true => {
                    format!("Resource CHECK failed: {name}: Resource {action} failed: {reason}")
                }
                false => format!("Resource {action} failed: {reason}"),
            };
            if !failed(heat, serial, reason, now) {
                return;
            }
        }
    }
    proceed(heat, serial, now);
}

impl Stack {
    fn forget(&mut self, part: u64) {
        self.resources.retain(|resource| resource.serial != part);
        self.leftovers.retain(|resource| resource.serial != part);
    }
}

/// Ends the stack's action. Starts a rollback if it failed and the stack allows one.
fn finish(heat: &mut Heat, serial: u64, failure: Option<String>, now: &Now) {
    let Some(stack) = heat.stacks.get_mut(serial) else {
        return;
    };
    let Some(work) = stack.work.take() else {
        return;
    };
    let action = work.action;
    let unchecked = stack
        .resources
        .iter()
        .any(|resource| !resource_plugins::can_check(&resource.kind));
    let partly = match action == "CHECK" && unchecked {
        true => ". 'CHECK' not fully supported (see resources)",
        false => "",
    };
    let well = failure.is_none();
    let (status, reason) = match failure {
        None => ("COMPLETE", format!("Stack {action} completed successfully")),
        Some(failure) => ("FAILED", failure),
    };
    stack.enter(action, status, reason + partly, now);
    if action == "DELETE" && well {
        stack.end(now);
    }
    if action == "SNAPSHOT" {
        stack.end_snapshot(well);
    }
    if !well
        && !stack.disable_rollback
        && matches!(action, "CREATE" | "ADOPT" | "UPDATE" | "RESTORE")
    {
        roll_back(heat, serial, now);
        return;
    }
    tell_parent(heat, serial, now);
}

/// Starts a rollback to the plan before the current action.
pub(super) fn roll_back(heat: &mut Heat, serial: u64, now: &Now) {
    let Some(stack) = heat.stacks.get_mut(serial) else {
        return;
    };
    let plan = stack.previous.take().unwrap_or_else(|| Plan {
        template: stack.plan.template.nothing(),
        ..Plan::default()
    });
    converge(heat, serial, "ROLLBACK", plan, now);
}

/// Ends the current action immediately, as cancelled.
pub(super) fn cancel(heat: &mut Heat, serial: u64, now: &Now) {
    let Some(stack) = heat.stacks.get_mut(serial) else {
        return;
    };
    let Some(work) = stack.work.take() else {
        return;
    };
    let reason = format!("Stack {} cancelled", work.action);
    stack.enter(work.action, "FAILED", reason, now);
    tell_parent(heat, serial, now);
}

/// Ends the action of the parent resource if this is a nested stack.
fn tell_parent(heat: &mut Heat, serial: u64, now: &Now) {
    let Some(stack) = heat.stacks.get(serial) else {
        return;
    };
    let Some(parent) = stack.parent.clone() else {
        return;
    };
    let Some(outer) = heat.stacks.get(parent.stack) else {
        return;
    };
    let parts = || outer.resources.iter().chain(&outer.leftovers);
    let Some(part) = parts().find(|part| part.serial == parent.resource) else {
        return;
    };
    if part
        .running
        .as_ref()
        .is_none_or(|running| running.tick.is_some())
    {
        return;
    }
    let failure = (stack.status == "FAILED")
        .then(|| resource_plugins::inner_failure(&part.name, &stack.reason));
    over(heat, parent.stack, parent.resource, failure, now);
}

/// Error for a request that conflicts with a running action.
pub(super) fn in_progress(stack: &Stack) -> Answer {
    let message = format!(
        "Stack {} already has an action ({}) in progress.",
        stack.name, stack.action
    );
    fault(StatusCode::CONFLICT, "ActionInProgress", Some(&message))
}
