//! Model of stacks and resources: their members, attributes and JSON representations.

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::engine::{Now, StackAction};
use super::events::Event;
use super::functions::{self, Scope};
use super::parameters::Parameters;
use super::template::{Environment, Template};
use super::{Heat, resource_types};

/// Maximum number of deleted stacks kept for reads by id.
const MAX_DELETED_STACKS: usize = 200;

/// All stacks, oldest first, and the pending timers.
#[derive(Default)]
pub(super) struct Stacks {
    by_serial: BTreeMap<u64, Stack>,
    serials: HashMap<String, u64>,
    last: u64,
    /// Pending timers by time; the sequence number orders timers of the same time.
    pub due: BTreeMap<(Instant, u64), super::engine::Timer>,
    ticks: u64,
}

impl Stacks {
    pub fn get(&self, serial: u64) -> Option<&Stack> {
        self.by_serial.get(&serial)
    }

    pub fn get_mut(&mut self, serial: u64) -> Option<&mut Stack> {
        self.by_serial.get_mut(&serial)
    }

    pub fn find(&self, id: &str) -> Option<u64> {
        self.serials.get(id).copied()
    }

    /// Oldest first.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = &Stack> {
        self.by_serial.values()
    }

    pub fn add(&mut self, mut stack: Stack) -> u64 {
        let gone = self.by_serial.values().filter(|stack| stack.deleted);
        if gone.clone().count() >= MAX_DELETED_STACKS
            && let Some(oldest) = gone.map(|stack| stack.serial).next()
            && let Some(oldest) = self.by_serial.remove(&oldest)
        {
            self.serials.remove(&oldest.id);
        }
        self.last += 1;
        stack.serial = self.last;
        self.serials.insert(stack.id.clone(), stack.serial);
        self.by_serial.insert(stack.serial, stack);
        self.last
    }

    /// Returns the number of resources in the tree that this stack belongs to.
    pub fn size(&self, stack: &Stack) -> usize {
        let mut root = stack;
        while let Some(outer) = root
            .parent
            .as_ref()
            .and_then(|parent| self.get(parent.stack))
        {
            root = outer;
        }
        let mut count = 0;
        let mut left = vec![root];
        while let Some(stack) = left.pop() {
            count += stack.resources.len();
            let inner = stack
                .resources
                .iter()
                .filter_map(|resource| resource.nested);
            left.extend(inner.filter_map(|serial| self.get(serial)));
        }
        count
    }

    pub fn next_timer_id(&mut self) -> u64 {
        self.ticks += 1;
        self.ticks
    }
}

/// Content of a stack, to which it can be rolled back.
#[derive(Clone, Default)]
pub(super) struct StackDefinition {
    pub template: Template,
    pub environment: Environment,
    pub files: Map<String, Value>,
    pub parameters: Parameters,
}

/// The resource of another stack that this stack belongs to.
#[derive(Clone)]
pub(super) struct Parent {
    pub stack: u64,
    pub resource: u64,
    /// Whether lists and depths count it as nested. A stack made by `OS::Heat::Stack`
    /// does not.
    pub nested: bool,
}

pub(super) struct Stack {
    /// Increases with every stack.
    pub serial: u64,
    pub id: String,
    pub project: String,
    pub name: String,
    pub owner: String,
    pub parent: Option<Parent>,
    pub depth: usize,
    pub action: &'static str,
    pub status: &'static str,
    pub reason: String,
    pub created: String,
    pub updated: Option<String>,
    pub deleted: bool,
    /// Time of the deletion; shown in lists only (observed).
    pub deleted_at: Option<String>,
    pub plan: StackDefinition,
    /// Plan that a rollback of the current action restores.
    pub previous: Option<StackDefinition>,
    pub disable_rollback: bool,
    pub timeout_mins: Option<i64>,
    pub tags: Vec<String>,
    pub user_project: String,
    pub resources: Vec<Resource>,
    /// Replaced and removed resources that still have to be deleted.
    pub leftovers: Vec<Resource>,
    pub events: VecDeque<Event>,
    pub snapshots: Vec<super::snapshots::Snapshot>,
    /// Resources of an adopted stack.
    pub adopted: Value,
    /// Running action.
    pub work: Option<StackAction>,
}

#[derive(Clone, Default)]
pub(super) struct Resource {
    /// Unique among all resources.
    pub serial: u64,
    pub name: String,
    pub kind: String,
    /// As in the template.
    pub definition: Value,
    /// Resolved properties of the last action.
    pub properties: Map<String, Value>,
    pub requires: Vec<String>,
    /// Unique name; also the id for many types.
    pub physical_name: String,
    /// Empty until known.
    pub physical_id: String,
    pub action: &'static str,
    pub status: &'static str,
    pub reason: String,
    pub created: String,
    pub updated: String,
    pub metadata: Value,
    /// Data of the resource plug-in: `resource_data`.
    pub data: Map<String, Value>,
    /// Nested stack of the resource.
    pub nested: Option<u64>,
    /// Running action.
    pub running: Option<ResourceAction>,
}

/// A running action of a resource.
#[derive(Clone)]
pub(super) struct ResourceAction {
    pub action: &'static str,
    /// Previous properties, for an update.
    pub before: Option<Map<String, Value>>,
    /// Reason, if the action will fail.
    pub failure: Option<String>,
    /// Timer that ends the action; `None` if a signal or a nested stack does.
    pub tick: Option<u64>,
}

impl Stack {
    /// `CREATE_COMPLETE` and the like.
    pub fn state(&self) -> String {
        format!("{}_{}", self.action, self.status)
    }

    pub fn busy(&self) -> bool {
        self.status == "IN_PROGRESS"
    }

    pub fn is_nested(&self) -> bool {
        self.parent.as_ref().is_some_and(|parent| parent.nested)
    }

    pub fn resource(&self, name: &str) -> Option<&Resource> {
        self.resources.iter().find(|resource| resource.name == name)
    }

    /// Finds a resource by its serial number, leftovers included.
    pub fn resource_mut(&mut self, serial: u64) -> Option<&mut Resource> {
        self.resources
            .iter_mut()
            .chain(&mut self.leftovers)
            .find(|resource| resource.serial == serial)
    }

    /// Records an event. Deletes the oldest events if there are too many.
    pub fn record_event(&mut self, event: Event, now: &Now) {
        let max_events = now.settings.events_kept;
        if self.events.len() >= max_events {
            let removed = max_events.div_ceil(5).min(self.events.len());
            self.events.drain(..removed);
        }
        self.events.push_back(event);
    }

    /// Returns the names of the resources that depend on this one.
    pub fn required_by(&self, name: &str) -> Vec<&str> {
        self.resources
            .iter()
            .filter(|resource| resource.requires.iter().any(|other| other == name))
            .map(|resource| resource.name.as_str())
            .collect()
    }

    pub fn href(&self, base: &str) -> String {
        format!(
            "{base}/v1/{}/stacks/{}/{}",
            self.project, self.name, self.id
        )
    }

    pub fn links(&self, base: &str) -> Value {
        json!([{"href": self.href(base), "rel": "self"}])
    }

    /// Builds the representation without status and outputs.
    pub fn show(&self, base: &str) -> Value {
        let description = self.plan.template.description();
        json!({
            "stack_name": self.name,
            "id": self.id,
            "links": self.links(base),
            "creation_time": self.created,
            "updated_time": self.updated,
            "deletion_time": null,
            "notification_topics": [],
            "parameters": self.plan.parameters.show(&self.id, &self.project, &self.name),
            "description": description,
            "template_description": description,
            "capabilities": [],
            "disable_rollback": self.disable_rollback,
            "timeout_mins": self.timeout_mins,
            "stack_owner": self.owner,
            "parent": null,
            "stack_user_project_id": self.user_project,
            "tags": self.tags,
        })
    }

    /// Builds the representation with status, as in `GET`.
    pub fn show_all(&self, heat: &Heat, base: &str, outputs: bool) -> Value {
        let mut shown = self.show(base);
        shown["parent"] = self.parent_id(heat);
        shown["stack_status"] = json!(self.state());
        shown["stack_status_reason"] = json!(self.reason);
        if outputs && !self.deleted {
            let outputs: Vec<Value> = self
                .plan
                .template
                .outputs()
                .map(|(name, _)| self.output(heat, name))
                .collect();
            shown["outputs"] = json!(outputs);
        }
        shown
    }

    pub fn parent_id(&self, heat: &Heat) -> Value {
        let parent = self.parent.as_ref().filter(|parent| parent.nested);
        json!(
            parent
                .and_then(|parent| heat.stacks.get(parent.stack))
                .map(|stack| &stack.id)
        )
    }

    /// Builds the representation in lists.
    pub fn summary(&self, heat: &Heat, base: &str) -> Value {
        json!({
            "id": self.id,
            "links": self.links(base),
            "stack_name": self.name,
            "description": "",
            "stack_status": self.state(),
            "stack_status_reason": self.reason,
            "creation_time": self.created,
            "updated_time": self.updated,
            "deletion_time": self.deleted_at,
            "stack_owner": self.owner,
            "parent": self.parent_id(heat),
            "stack_user_project_id": self.user_project,
            "tags": match self.tags.is_empty() {
                true => Value::Null,
                false => json!(self.tags),
            },
        })
    }

    pub fn output(&self, heat: &Heat, name: &str) -> Value {
        let output = self.plan.template.output(name);
        let mut shown = json!({
            "output_key": name,
            "description": output["description"].as_str().unwrap_or("No description given"),
        });
        let value = match self.unknown_reference(&output["value"]) {
            Some(problem) => Err(problem),
            None => self.resolve(heat, &output["value"]),
        };
        match value {
            Ok(value) => shown["output_value"] = value,
            Err(problem) => {
                shown["output_error"] = json!(problem);
                shown["output_value"] = Value::Null;
            }
        }
        shown
    }

    /// Returns Heat's message if a value refers to a resource that the template does
    /// not have.
    fn unknown_reference(&self, value: &Value) -> Option<String> {
        let mut references = Vec::new();
        functions::references(value, "", &mut references, 0);
        let (name, _) = references
            .iter()
            .find(|(name, _)| self.plan.template.resource(name).is_none())?;
        Some(format!(
            "The specified reference \"{name}\" (in unknown) is incorrect."
        ))
    }

    pub fn resolve(&self, heat: &Heat, value: &Value) -> Result<Value, String> {
        functions::resolve(value, &StackScope { heat, stack: self })
    }

    /// Resolves the properties of a resource; omits those whose value is not known yet.
    pub fn properties(&self, heat: &Heat, definition: &Value) -> Map<String, Value> {
        let given = definition["properties"].as_object();
        given
            .into_iter()
            .flatten()
            .filter_map(|(name, value)| {
                let value = self.resolve(heat, value).ok()?;
                Some((name.clone(), value))
            })
            .collect()
    }
}

/// Scope of a stack's own functions.
struct StackScope<'a> {
    heat: &'a Heat,
    stack: &'a Stack,
}

impl Scope for StackScope<'_> {
    fn parameter(&self, name: &str) -> Option<Value> {
        Some(match name {
            "OS::stack_id" => json!(self.stack.id),
            "OS::stack_name" => json!(self.stack.name),
            "OS::project_id" => json!(self.stack.project),
            name => return self.stack.plan.parameters.get(name).cloned(),
        })
    }

    fn reference(&self, name: &str) -> Option<Value> {
        self.stack.resource(name).map(Resource::reference)
    }

    fn attribute(&self, resource: &str, attribute: &str) -> Result<Value, String> {
        match self.stack.resource(resource) {
            Some(resource) => Ok(resource.attribute(self.heat, self.stack, attribute)),
            None => Ok(Value::Null),
        }
    }

    fn file(&self, name: &str) -> Option<&str> {
        self.stack.plan.files.get(name)?.as_str()
    }
}

impl Resource {
    pub fn state(&self) -> String {
        format!("{}_{}", self.action, self.status)
    }

    /// Returns the value of `get_resource`.
    pub fn reference(&self) -> Value {
        if self.kind == "OS::Heat::RandomString"
            && let Some(value) = self.data.get("value")
        {
            return value.clone();
        }
        match self.physical_id.is_empty() {
            true => json!(self.name),
            false => json!(self.physical_id),
        }
    }

    /// Returns an attribute; null if it has no value yet.
    pub fn attribute(&self, heat: &Heat, stack: &Stack, name: &str) -> Value {
        let made = self.action != "INIT";
        match (self.kind.as_str(), name) {
            (_, "show") => Value::Null,
            ("OS::Heat::Value", "value") => {
                match stack.properties(heat, &self.definition).remove("value") {
                    Some(value) if !made => value,
                    _ => self.properties.get("value").cloned().unwrap_or_default(),
                }
            }
            ("OS::Heat::RandomString", "value") | ("OS::Heat::TestResource", "output") => {
                self.data.get("value").cloned().unwrap_or_default()
            }
            ("OS::Heat::SoftwareConfig", "config") if made => {
                self.properties.get("config").cloned().unwrap_or_default()
            }
            ("OS::Heat::SoftwareDeployment", name) => heat
                .deployments
                .iter()
                .find(|deployment| deployment.id == self.physical_id)
                .map(|deployment| deployment.output_values[name].clone())
                .unwrap_or_default(),
            ("OS::Heat::WaitCondition", "data") => json!(self.apply_signal(stack)),
            ("OS::Heat::ResourceGroup", name) => self.group_attribute(heat, name),
            ("OS::Heat::Stack", name) => self.nested_stack_attribute(heat, name),
            (kind, name) if !resource_types::exists(kind) => match self.inner(heat) {
                Some(inner) if inner.plan.template.output(name).is_null() => Value::Null,
                Some(inner) => inner.output(heat, name)["output_value"].take(),
                None => Value::Null,
            },
            _ => Value::Null,
        }
    }

    fn inner<'a>(&self, heat: &'a Heat) -> Option<&'a Stack> {
        heat.stacks.get(self.nested?)
    }

    /// Returns the data of all signals as JSON text.
    fn apply_signal(&self, stack: &Stack) -> String {
        let handle = self.properties.get("handle");
        let found = stack
            .resources
            .iter()
            .find(|resource| Some(&resource.reference()) == handle);
        let data: Map<String, Value> = found
            .and_then(|handle| handle.metadata.as_object())
            .into_iter()
            .flatten()
            .map(|(id, signal)| (id.clone(), signal["data"].clone()))
            .collect();
        super::super::python_json::dumps(&Value::Object(data))
    }

    fn group_attribute(&self, heat: &Heat, name: &str) -> Value {
        let Some(inner) = self.inner(heat) else {
            return Value::Null;
        };
        let members = || inner.resources.iter();
        match name {
            "refs" => members().map(Resource::reference).collect(),
            "refs_map" => members()
                .map(|member| (member.name.clone(), member.reference()))
                .collect(),
            "removed_rsrc_list" => json!([]),
            "attributes" => Value::Null,
            name => match name.strip_prefix("resource.") {
                Some(path) => {
                    let (member, attribute) = path.split_once('.').unwrap_or((path, ""));
                    match (inner.resource(member), attribute) {
                        (Some(member), "") => member.reference(),
                        (Some(member), attribute) => member.attribute(heat, inner, attribute),
                        (None, _) => Value::Null,
                    }
                }
                None => members()
                    .map(|member| member.attribute(heat, inner, name))
                    .collect(),
            },
        }
    }

    fn nested_stack_attribute(&self, heat: &Heat, name: &str) -> Value {
        let Some(inner) = self.inner(heat) else {
            return Value::Null;
        };
        match name {
            "stack_name" => json!(inner.name),
            "outputs" => inner
                .plan
                .template
                .outputs()
                .map(|(name, _)| {
                    (
                        name.clone(),
                        inner.output(heat, name)["output_value"].take(),
                    )
                })
                .collect(),
            _ => Value::Null,
        }
    }

    /// Returns the attributes in a detailed representation.
    pub fn attributes(&self, heat: &Heat, stack: &Stack, base: &str, more: &[&str]) -> Value {
        let mut shown = Map::new();
        match self.kind.as_str() {
            "OS::Heat::SoftwareConfig" if !self.physical_id.is_empty() => {
                let config = heat
                    .configs
                    .iter()
                    .find(|config| config.id == self.physical_id);
                if let Some(Value::Object(members)) = config.map(|config| config.show()) {
                    shown = members;
                }
            }
            "OS::Heat::SoftwareDeployment" if !self.physical_id.is_empty() => {
                let mut deployments = heat.deployments.iter();
                let deployment = deployments.find(|deployment| deployment.id == self.physical_id);
                if let Some(Value::Object(members)) = deployment.map(|deployment| deployment.show())
                {
                    shown = members;
                }
            }
            "OS::Heat::Stack" => {
                if let Some(inner) = self.inner(heat)
                    && let Value::Object(members) = inner.show_all(heat, base, true)
                {
                    shown = members;
                }
            }
            "OS::Heat::ResourceGroup" => {
                // Observed: only removed resources are listed.
                shown.insert("removed_rsrc_list".to_owned(), json!([]));
                for name in ["attributes", "refs_map", "refs"] {
                    shown.insert(name.to_owned(), Value::Null);
                }
            }
            kind if !resource_types::exists(kind) => {
                if let Some(inner) = self.inner(heat) {
                    for (name, _) in inner.plan.template.outputs() {
                        shown.insert(name.clone(), self.attribute(heat, stack, name));
                    }
                }
            }
            kind => {
                for name in resource_types::attributes(kind) {
                    shown.insert(name.to_owned(), self.attribute(heat, stack, name));
                }
            }
        }
        for name in more {
            if !shown.contains_key(*name) {
                shown.insert((*name).to_owned(), self.attribute(heat, stack, name));
            }
        }
        Value::Object(shown)
    }

    /// Builds the representation in previews.
    pub fn raw(&self, heat: &Heat, stack: &Stack, base: &str, properties: bool) -> Value {
        let not_created = self.action == "INIT";
        let time = |text: &String| {
            if not_created {
                Value::Null
            } else {
                json!(text)
            }
        };
        let identity = |path: String| json!({"tenant": stack.project, "stack_name": stack.name, "stack_id": stack.id, "path": path});
        let mut shown = json!({
            "updated_time": time(&self.updated),
            "creation_time": time(&self.created),
            "resource_name": self.name,
            "physical_resource_id": self.physical_id,
            "resource_action": self.action,
            "resource_status": self.status,
            "resource_status_reason": self.reason,
            "resource_type": self.kind,
            "resource_identity": identity(format!("/resources/{}", self.name)),
            "stack_identity": identity(String::new()),
            "stack_name": stack.name,
            "required_by": stack.required_by(&self.name),
            "description": self.definition["description"].as_str().unwrap_or_default(),
            "metadata": match &self.metadata {
                Value::Null => json!({}),
                metadata => metadata.clone(),
            },
            "attributes": self.attributes(heat, stack, base, &[]),
        });
        if properties {
            let mut all = Map::new();
            for (name, schema) in resource_types::properties(&self.kind) {
                let known = self.properties.get(name).filter(|value| !value.is_null());
                let value = known.or(schema.get("default"));
                all.insert(name.clone(), value.cloned().unwrap_or_default());
            }
            if self.kind == "OS::Heat::RandomString" {
                // A legacy property that the type's schema no longer contains.
                all.entry("sequence").or_insert(Value::Null);
            }
            shown["properties"] = Value::Object(all);
        }
        shown
    }
}
