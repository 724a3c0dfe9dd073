//! Execution of stack actions. An action is a graph of operations on resources, each of
//! which takes some time.
//!
//! Nothing runs in the background. Timers are kept sorted by time; each request first
//! fires all timers that are due, each at its own time. The order of operations is that
//! of Heat's convergence engine, as observed.

mod resource_actions;

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::super::message::{Response, seconds};
use super::super::{Clock, Settings};
use super::events::Event;
use super::stack::{Resource, ResourceAction, Stack, StackDefinition};
use super::{Heat, fault, resource_plugins};
pub(super) use resource_actions::end_resource_action;
use resource_actions::{converge_resource, start_resource_action};

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
    StartAction { stack: u64, action_id: u64 },
    /// Completes the action of a resource.
    ResourceDone {
        stack: u64,
        resource: u64,
        timer_id: u64,
    },
    /// Fails a stack's action with a timeout.
    ActionTimeout { stack: u64, action_id: u64 },
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
    action: NodeAction,
    /// Nodes that must be done before this one.
    predecessors: Vec<usize>,
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
            Timer::StartAction { stack, action_id } => {
                if heat
                    .stacks
                    .get(stack)
                    .is_some_and(|stack| stack.is_running_action(action_id))
                {
                    start_ready_nodes(heat, stack, &now);
                }
            }
            Timer::ResourceDone {
                stack,
                resource,
                timer_id,
            } => {
                let Some(found) = heat
                    .stacks
                    .get_mut(stack)
                    .and_then(|stack| stack.resource_mut(resource))
                else {
                    continue;
                };
                let Some(running) = found
                    .running
                    .as_ref()
                    .filter(|it| it.timer_id == Some(timer_id))
                else {
                    continue;
                };
                let failure = match found.kind.as_str() {
                    "OS::Heat::WaitCondition" => resource_plugins::timed_out(heat, stack, resource),
                    _ => running.failure.clone(),
                };
                end_resource_action(heat, stack, resource, failure, &now);
            }
            Timer::ActionTimeout { stack, action_id } => {
                if heat
                    .stacks
                    .get(stack)
                    .is_some_and(|stack| stack.is_running_action(action_id))
                {
                    end_stack_action(heat, stack, Some("Timed out".to_owned()), &now);
                }
            }
        }
    }
}

impl Stack {
    fn is_running_action(&self, id: u64) -> bool {
        self.running_action
            .as_ref()
            .is_some_and(|running_action| running_action.id == id)
    }
}

fn schedule(heat: &mut Heat, at: Instant, timer: impl FnOnce(u64) -> Timer) -> u64 {
    let number = heat.stacks.next_timer_id();
    heat.stacks.due.insert((at, number), timer(number));
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
        let predecessors = requires
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
            action: NodeAction::Converge(name.clone()),
            predecessors,
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
            action: NodeAction::Act(leftover.serial, "DELETE"),
            predecessors: needing.chain(changing).collect(),
            state: State::Waiting,
        });
    }
    start_stack_action(heat, serial, action, nodes, now);
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
                action: NodeAction::Act(resource.serial, action),
                predecessors: (0..resources.len())
                    .filter(|i| comes_first(resources[*i]))
                    .collect(),
                state: State::Waiting,
            }
        })
        .collect();
    start_stack_action(heat, serial, action, nodes, now);
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

fn start_stack_action(
    heat: &mut Heat,
    serial: u64,
    action: &'static str,
    nodes: Vec<Node>,
    now: &Now,
) {
    let id = heat.stacks.next_timer_id();
    let Some(stack) = heat.stacks.get_mut(serial) else {
        return;
    };
    if action != "CREATE" {
        stack.updated = Some(now.text.clone());
    }
    let reason = format!("Stack {action} started");
    stack.set_state(action, "IN_PROGRESS", reason, now);
    stack.running_action = Some(StackAction {
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
        action_id: id,
    });
    schedule(heat, now.at + timeout, |_| Timer::ActionTimeout {
        stack: serial,
        action_id: id,
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
        self.running_action = None;
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
        let Some(running_action) = &mut stack.running_action else {
            return;
        };
        let checks = running_action.action == "CHECK";
        let skipped = checks && running_action.failure.is_some();
        let (progress, resource) = match &running_action.nodes[index].action {
            _ if skipped => (Progress::Done, 0),
            NodeAction::Act(resource, action) => {
                let (resource, action) = (*resource, *action);
                (
                    start_resource_action(heat, serial, resource, action, None, now),
                    resource,
                )
            }
            NodeAction::Converge(name) => {
                let name = name.clone();
                converge_resource(heat, serial, &name, now)
            }
        };
        let Some(running_action) = heat
            .stacks
            .get_mut(serial)
            .and_then(|stack| stack.running_action.as_mut())
        else {
            return;
        };
        match progress {
            Progress::Done => running_action.nodes[index].state = State::Done,
            Progress::Running => running_action.nodes[index].state = State::Running(resource),
            Progress::Failed(reason) => {
                running_action.nodes[index].state = State::Done;
                if !record_failure(heat, serial, reason, now) {
                    return;
                }
            }
        }
    }
    let finished = |stack: &Stack| {
        let running_action = stack.running_action.as_ref()?;
        let done = running_action
            .nodes
            .iter()
            .all(|node| node.state == State::Done);
        done.then(|| running_action.failure.clone())
    };
    if let Some(failure) = heat.stacks.get(serial).and_then(finished) {
        end_stack_action(heat, serial, failure, now);
    }
}

/// Returns a node whose predecessors are done and whose resource is idle.
fn ready_node(stack: &Stack) -> Option<usize> {
    let running_action = stack.running_action.as_ref()?;
    let busy = |action: &NodeAction| {
        let mut resources = stack.resources.iter().chain(&stack.leftovers);
        resources.any(|resource| {
            resource.running.is_some()
                && match action {
                    NodeAction::Converge(name) => resource.name == *name,
                    NodeAction::Act(serial, _) => resource.serial == *serial,
                }
        })
    };
    running_action.nodes.iter().position(|node| {
        node.state == State::Waiting
            && node
                .predecessors
                .iter()
                .all(|predecessor| running_action.nodes[*predecessor].state == State::Done)
            && !busy(&node.action)
    })
}

/// Records a failed node. Returns whether the action continues.
fn record_failure(heat: &mut Heat, serial: u64, reason: String, now: &Now) -> bool {
    if let Some(running_action) = heat
        .stacks
        .get_mut(serial)
        .and_then(|stack| stack.running_action.as_mut())
        && running_action.action == "CHECK"
    {
        running_action.failure.get_or_insert(reason);
        return true;
    }
    end_stack_action(heat, serial, Some(reason), now);
    false
}

/// Ends the stack's action. Starts a rollback if it failed and the stack allows one.
fn end_stack_action(heat: &mut Heat, serial: u64, failure: Option<String>, now: &Now) {
    let Some(stack) = heat.stacks.get_mut(serial) else {
        return;
    };
    let Some(running_action) = stack.running_action.take() else {
        return;
    };
    let action = running_action.action;
    let unchecked = stack
        .resources
        .iter()
        .any(|resource| !resource_plugins::can_check(&resource.kind));
    let partly = match action == "CHECK" && unchecked {
        true => ". 'CHECK' not fully supported (see resources)",
        false => "",
    };
    let succeeded = failure.is_none();
    let (status, reason) = match failure {
        None => ("COMPLETE", format!("Stack {action} completed successfully")),
        Some(failure) => ("FAILED", failure),
    };
    stack.set_state(action, status, reason + partly, now);
    if action == "DELETE" && succeeded {
        stack.end(now);
    }
    if action == "SNAPSHOT" {
        stack.end_snapshot(succeeded);
    }
    if !succeeded
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
    let Some(running_action) = stack.running_action.take() else {
        return;
    };
    let reason = format!("Stack {} cancelled", running_action.action);
    stack.set_state(running_action.action, "FAILED", reason, now);
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
        .is_none_or(|running| running.timer_id.is_some())
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
