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

use super::super::message::{Response, seconds};
use super::super::{Clock, Settings};
use super::events::Event;
use super::stack::{Resource, ResourceAction, Stack, StackDefinition};
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
    pub fn resource_duration(&self) -> Duration {
        match self.settings.play {
            true => self.settings.step,
            false => Duration::ZERO,
        }
    }
}

/// A timer.
pub(super) enum Timer {
    /// Starts the first resources of a stack's action.
    StartAction { stack: u64, work: u64 },
    /// Completes the action of a resource.
    ResourceDone {
        stack: u64,
        resource: u64,
        tick: u64,
    },
    /// Fails a stack's action with a timeout.
    ActionTimeout { stack: u64, work: u64 },
}

/// A running action of a stack.
pub(super) struct StackAction {
    id: u64,
    action: &'static str,
    nodes: Vec<Node>,
    /// First failure; only a check continues after one.
    failure: Option<String>,
}

struct Node {
    what: NodeAction,
    /// Nodes that must be done before this one.
    waits: Vec<usize>,
    state: State,
}

enum NodeAction {
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
            Timer::StartAction { stack, work } => {
                if heat
                    .stacks
                    .get(stack)
                    .is_some_and(|stack| stack.is_running_action(work))
                {
                    start_ready_nodes(heat, stack, &now);
                }
            }
            Timer::ResourceDone {
                stack,
                resource,
                tick,
            } => {
                let Some(found) = heat
                    .stacks
                    .get_mut(stack)
                    .and_then(|stack| stack.resource_mut(resource))
                else {
                    continue;
                };
                let Some(running) = found.running.as_ref().filter(|it| it.tick == Some(tick))
                else {
                    continue;
                };
                let failure = match found.kind.as_str() {
                    "OS::Heat::WaitCondition" => resource_plugins::timed_out(heat, stack, resource),
                    _ => running.failure.clone(),
                };
                end_resource_action(heat, stack, resource, failure, &now);
            }
            Timer::ActionTimeout { stack, work } => {
                if heat
                    .stacks
                    .get(stack)
                    .is_some_and(|stack| stack.is_running_action(work))
                {
                    end_stack_action(heat, stack, Some("Timed out".to_owned()), &now);
                }
            }
        }
    }
}

impl Stack {
    fn is_running_action(&self, id: u64) -> bool {
        self.work.as_ref().is_some_and(|work| work.id == id)
    }
}

fn schedule(heat: &mut Heat, at: Instant, tick: impl FnOnce(u64) -> Timer) -> u64 {
    let number = heat.stacks.next_timer_id();
    heat.stacks.due.insert((at, number), tick(number));
    number
}

/// Starts an action that changes the stack to match `plan`.
pub(super) fn converge(
    heat: &mut Heat,
    serial: u64,
    action: &'static str,
    plan: StackDefinition,
    now: &Now,
) {
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
            let new_resource =
                Resource::not_created(&stack.name, name, definition, requires, &now.text);
            stack.resources.push(new_resource);
        }
        nodes.push(Node {
            what: NodeAction::Converge(name.clone()),
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
            what: NodeAction::Act(leftover.serial, "DELETE"),
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
    let resources: Vec<&Resource> = match action {
        "DELETE" => stack.resources.iter().chain(&stack.leftovers).collect(),
        _ => stack.resources.iter().collect(),
    };
    let forward = matches!(action, "RESUME" | "CHECK" | "SNAPSHOT");
    let nodes = resources
        .iter()
        .map(|resource| {
            let comes_first = |other: &Resource| match forward {
                true => resource.requires.contains(&other.name),
                false => other.requires.contains(&resource.name) && other.serial != resource.serial,
            };
            Node {
                what: NodeAction::Act(resource.serial, action),
                waits: (0..resources.len())
                    .filter(|i| comes_first(resources[*i]))
                    .collect(),
                state: State::Waiting,
            }
        })
        .collect();
    begin(heat, serial, action, nodes, now);
    if action == "DELETE" {
        abort_resource_actions(heat, serial, now);
    }
}

/// Aborts all running actions of the stack's resources, for a deletion.
fn abort_resource_actions(heat: &mut Heat, serial: u64, now: &Now) {
    let Some(stack) = heat.stacks.get_mut(serial) else {
        return;
    };
    let resources = stack.resources.iter_mut().chain(&mut stack.leftovers);
    let mut aborted = Vec::new();
    for resource in resources {
        if let Some(running) = resource.running.take() {
            // An aborted update has no effect (observed: the old `wait_secs` remains).
            if let Some(before) = running.before {
                resource.properties = before;
            }
            aborted.push((resource.serial, running.action));
        }
    }
    for (resource, action) in aborted {
        let reason = format!("{action} aborted (user triggered cancel)");
        stack.set_resource_state(resource, action, "FAILED", &reason, now);
    }
}

fn begin(heat: &mut Heat, serial: u64, action: &'static str, nodes: Vec<Node>, now: &Now) {
    let id = heat.stacks.next_timer_id();
    let Some(stack) = heat.stacks.get_mut(serial) else {
        return;
    };
    if action != "CREATE" {
        stack.updated = Some(now.text.clone());
    }
    let reason = format!("Stack {action} started");
    stack.set_state(action, "IN_PROGRESS", reason, now);
    stack.work = Some(StackAction {
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
    schedule(heat, now.at, |_| Timer::StartAction {
        stack: serial,
        work: id,
    });
    schedule(heat, now.at + timeout, |_| Timer::ActionTimeout {
        stack: serial,
        work: id,
    });
}

impl Stack {
    fn set_state(&mut self, action: &'static str, status: &'static str, reason: String, now: &Now) {
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
        self.record_event(event, now);
    }

    /// Completes the stack at once with `events` events, for preloading.
    pub fn seed(&mut self, events: usize, now: &Now) {
        for _ in 1..events {
            self.set_state(
                "CREATE",
                "IN_PROGRESS",
                "Stack CREATE started".to_owned(),
                now,
            );
        }
        let reason = "Stack CREATE completed successfully".to_owned();
        self.set_state("CREATE", "COMPLETE", reason, now);
    }

    /// Marks the stack as deleted and leaves its resources alone.
    pub fn mark_deleted(&mut self, now: &Now) {
        self.work = None;
        self.updated = Some(now.text.clone());
        let reason = "Stack DELETE completed successfully".to_owned();
        self.set_state("DELETE", "COMPLETE", reason, now);
        self.end(now);
        self.resources.clear();
    }

    fn end(&mut self, now: &Now) {
        self.deleted = true;
        self.deleted_at = Some(now.text.clone());
        self.plan.template = self.plan.template.without_resources();
        self.snapshots.clear();
        self.leftovers.clear();
    }

    /// Sets the state of a resource and records an event.
    pub fn set_resource_state(
        &mut self,
        serial: u64,
        action: &'static str,
        status: &'static str,
        reason: &str,
        now: &Now,
    ) {
        let Some(resource) = self.resource_mut(serial) else {
            return;
        };
        resource.action = action;
        resource.status = status;
        resource.reason = reason.to_owned();
        resource.updated = now.text.clone();
        let event = Event::of(resource, action, status, reason, now);
        self.record_event(event, now);
    }
}

impl Resource {
    /// Builds a resource that is not created yet.
    pub fn not_created(
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
            physical_name: format!("{stack}-{name}-{}", resource_plugins::random_suffix()),
            action: "INIT",
            status: "COMPLETE",
            created: now.to_owned(),
            updated: now.to_owned(),
            ..Self::default()
        }
    }
}

/// Starts every node that can start; finishes the action when no node is left.
fn start_ready_nodes(heat: &mut Heat, serial: u64, now: &Now) {
    while let Some(index) = heat.stacks.get(serial).and_then(ready_node) {
        let Some(stack) = heat.stacks.get_mut(serial) else {
            return;
        };
        let Some(work) = &mut stack.work else {
            return;
        };
        let checks = work.action == "CHECK";
        let skipped = checks && work.failure.is_some();
        let (progress, resource) = match &work.nodes[index].what {
            _ if skipped => (Progress::Done, 0),
            NodeAction::Act(resource, action) => {
                let (resource, action) = (*resource, *action);
                (act(heat, serial, resource, action, None, now), resource)
            }
            NodeAction::Converge(name) => {
                let name = name.clone();
                converge_resource(heat, serial, &name, now)
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
            Progress::Running => work.nodes[index].state = State::Running(resource),
            Progress::Failed(reason) => {
                work.nodes[index].state = State::Done;
                if !record_failure(heat, serial, reason, now) {
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
        end_stack_action(heat, serial, failure, now);
    }
}

/// Returns a node whose predecessors are done and whose resource is idle.
fn ready_node(stack: &Stack) -> Option<usize> {
    let work = stack.work.as_ref()?;
    let busy = |what: &NodeAction| {
        let mut resources = stack.resources.iter().chain(&stack.leftovers);
        resources.any(|resource| {
            resource.running.is_some()
                && match what {
                    NodeAction::Converge(name) => resource.name == *name,
                    NodeAction::Act(serial, _) => resource.serial == *serial,
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
fn record_failure(heat: &mut Heat, serial: u64, reason: String, now: &Now) -> bool {
    if let Some(work) = heat
        .stacks
        .get_mut(serial)
        .and_then(|stack| stack.work.as_mut())
        && work.action == "CHECK"
    {
        work.failure.get_or_insert(reason);
        return true;
    }
    end_stack_action(heat, serial, Some(reason), now);
    false
}

/// Creates, updates or replaces one resource according to the template.
fn converge_resource(heat: &mut Heat, serial: u64, name: &str, now: &Now) -> (Progress, u64) {
    let Some((existing, stack)) = heat
        .stacks
        .get(serial)
        .and_then(|stack| Some((stack.resource(name)?, stack)))
    else {
        return (Progress::Done, 0);
    };
    let resource = existing.serial;
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
                    resource,
                );
            }
        };
    }
    let change = resource_plugins::change(existing, &definition, &properties, &stack.plan.files);
    let Some(stack) = heat.stacks.get_mut(serial) else {
        return (Progress::Done, 0);
    };
    let settle = |stack: &mut Stack| {
        if let Some(resource) = stack.resource_mut(resource) {
            resource.requires = requires.clone();
        }
    };
    match change {
        resource_plugins::Change::None => {
            settle(stack);
            if let Some(resource) = stack.resource_mut(resource) {
                resource.definition = definition;
            }
            (Progress::Done, resource)
        }
        resource_plugins::Change::Create => {
            settle(stack);
            if let Some(resource) = stack.resource_mut(resource) {
                resource.kind = definition["type"].as_str().unwrap_or_default().to_owned();
                resource.definition = definition;
                resource.properties = properties;
            }
            let adopts = stack.action == "ADOPT" && stack.adopted[name].is_object();
            let action = if adopts { "ADOPT" } else { "CREATE" };
            (act(heat, serial, resource, action, None, now), resource)
        }
        resource_plugins::Change::Update => {
            settle(stack);
            let before = stack.resource_mut(resource).map(|resource| {
                resource.definition = definition;
                std::mem::replace(&mut resource.properties, properties)
            });
            (act(heat, serial, resource, "UPDATE", before, now), resource)
        }
        resource_plugins::Change::Replace => {
            let mut new_resource =
                Resource::not_created(&stack.name, name, definition, requires, &now.text);
            new_resource.properties = properties;
            let new = new_resource.serial;
            if let Some(at) = stack
                .resources
                .iter()
                .position(|other| other.serial == resource)
            {
                let old = std::mem::replace(&mut stack.resources[at], new_resource);
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
                        NodeAction::Converge(other) => {
                            other == name || needing.requires(other).iter().any(|it| it == name)
                        }
                        NodeAction::Act(..) => false,
                    })
                    .map(|(index, _)| index)
                    .collect();
                work.nodes.push(Node {
                    what: NodeAction::Act(resource, "DELETE"),
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
    resource: u64,
    action: &'static str,
    before: Option<Map<String, Value>>,
    now: &Now,
) -> Progress {
    let Some(stack) = heat.stacks.get_mut(serial) else {
        return Progress::Done;
    };
    let Some(found) = stack.resource_mut(resource) else {
        return Progress::Done;
    };
    // A resource that was never created needs no work.
    if found.action == "INIT" && !matches!(action, "CREATE" | "ADOPT") {
        if action == "DELETE" {
            stack.remove_resource(resource);
        }
        return Progress::Done;
    }
    if action == "CHECK" && !resource_plugins::can_check(&found.kind) {
        let reason = format!("CHECK not supported for {}", found.kind);
        stack.set_resource_state(resource, "CHECK", "COMPLETE", &reason, now);
        return Progress::Done;
    }
    stack.set_resource_state(resource, action, "IN_PROGRESS", "state changed", now);
    let started = resource_plugins::start(heat, serial, resource, action, before.as_ref(), now);
    let tick = started.takes.map(|takes| {
        schedule(heat, now.at + takes, |tick| Timer::ResourceDone {
            stack: serial,
            resource: resource,
            tick,
        })
    });
    if let Some(resource) = heat
        .stacks
        .get_mut(serial)
        .and_then(|stack| stack.resource_mut(resource))
    {
        resource.running = Some(ResourceAction {
            action,
            before,
            failure: started.failure,
            tick,
        });
    }
    Progress::Running
}

/// Ends a resource's action. `failure` is Heat's message without the resource's path.
pub(super) fn end_resource_action(
    heat: &mut Heat,
    serial: u64,
    resource: u64,
    failure: Option<String>,
    now: &Now,
) {
    let Some(stack) = heat.stacks.get_mut(serial) else {
        return;
    };
    let Some(running) = stack
        .resource_mut(resource)
        .and_then(|resource| resource.running.take())
    else {
        return;
    };
    let action = running.action;
    match &failure {
        None => stack.set_resource_state(resource, action, "COMPLETE", "state changed", now),
        Some(reason) => stack.set_resource_state(resource, action, "FAILED", reason, now),
    }
    resource_plugins::ended(heat, serial, resource, action, failure.is_none(), now);
    let Some(stack) = heat.stacks.get_mut(serial) else {
        return;
    };
    let name = stack
        .resource_mut(resource)
        .map(|resource| resource.name.clone())
        .unwrap_or_default();
    if action == "DELETE" && failure.is_none() {
        stack.remove_resource(resource);
    }
    let Some(work) = &mut stack.work else {
        return;
    };
    let checks = work.action == "CHECK";
    let node = work
        .nodes
        .iter_mut()
        .find(|node| node.state == State::Running(resource));
    if let Some(node) = node {
        node.state = State::Done;
        if let Some(reason) = failure {
            let reason = match checks {
                true => {
                    format!("Resource CHECK failed: {name}: Resource {action} failed: {reason}")
                }
                false => format!("Resource {action} failed: {reason}"),
            };
            if !record_failure(heat, serial, reason, now) {
                return;
            }
        }
    }
    start_ready_nodes(heat, serial, now);
}

impl Stack {
    fn remove_resource(&mut self, serial: u64) {
        self.resources.retain(|resource| resource.serial != serial);
        self.leftovers.retain(|resource| resource.serial != serial);
    }
}

/// Ends the stack's action. Starts a rollback if it failed and the stack allows one.
fn end_stack_action(heat: &mut Heat, serial: u64, failure: Option<String>, now: &Now) {
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
    stack.set_state(action, status, reason + partly, now);
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
        start_rollback(heat, serial, now);
        return;
    }
    notify_parent(heat, serial, now);
}

/// Starts a rollback to the plan before the current action.
pub(super) fn start_rollback(heat: &mut Heat, serial: u64, now: &Now) {
    let Some(stack) = heat.stacks.get_mut(serial) else {
        return;
    };
    let plan = stack.previous.take().unwrap_or_else(|| StackDefinition {
        template: stack.plan.template.empty_template(),
        ..StackDefinition::default()
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
    stack.set_state(work.action, "FAILED", reason, now);
    notify_parent(heat, serial, now);
}

/// Ends the action of the parent resource if this is a nested stack.
fn notify_parent(heat: &mut Heat, serial: u64, now: &Now) {
    let Some(stack) = heat.stacks.get(serial) else {
        return;
    };
    let Some(parent) = stack.parent.clone() else {
        return;
    };
    let Some(outer) = heat.stacks.get(parent.stack) else {
        return;
    };
    let resources = || outer.resources.iter().chain(&outer.leftovers);
    let Some(resource) = resources().find(|resource| resource.serial == parent.resource) else {
        return;
    };
    if resource
        .running
        .as_ref()
        .is_none_or(|running| running.tick.is_some())
    {
        return;
    }
    let failure = (stack.status == "FAILED")
        .then(|| resource_plugins::inner_failure(&resource.name, &stack.reason));
    end_resource_action(heat, parent.stack, parent.resource, failure, now);
}

/// Error for a request that conflicts with a running action.
pub(super) fn in_progress(stack: &Stack) -> Response {
    let message = format!(
        "Stack {} already has an action ({}) in progress.",
        stack.name, stack.action
    );
    fault(StatusCode::CONFLICT, "ActionInProgress", Some(&message))
}
