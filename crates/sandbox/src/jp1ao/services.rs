//! Services: configured service templates that can be submitted (V12 2.5).

use std::time::SystemTime;

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::access::Role;
use super::errors::ApiError;
use super::list::{self, Kind, ListSchema, csv};
use super::properties::Property;
use super::start_times;
use super::task_run::RunEvent;
use super::templates::Template;
use super::{Call, HandlerResult, Jp1ao, Jp1aoVersion, action, boolean, id, no_function, ok, text};
use crate::message::Response;

/// Maximum number of services.
const MAX_SERVICES: usize = 500;

const ACTIONS: &[&str] = &[
    "update",
    "submit",
    "detailhelp",
    "delete",
    "reset",
    "release",
    "maintenance",
    "disable",
    "applyTemplate",
];

pub struct Service {
    pub id: u64,
    pub name: String,
    pub description: String,
    pub tags: String,
    pub template: u64,
    pub group: u64,
    pub favorite: bool,
    /// `test`, `release`, `maintenance`, `disabled` or `debug`.
    pub state: &'static str,
    pub schedule_types: String,
    pub made: SystemTime,
    pub modified: SystemTime,
    pub properties: Vec<Property>,
    /// Number of submits since the last `reset`.
    pub submits: u64,
    pub submitted: Option<SystemTime>,
    pub executed: u64,
    pub completed: u64,
    pub failed: u64,
    pub last_failed: Option<SystemTime>,
    pub reset: Option<SystemTime>,
}

pub const LIST_SCHEMA: ListSchema = ListSchema {
    members: &[
        ("instanceID", Kind::Long),
        ("name", Kind::Text),
        ("description", Kind::Text),
        ("tags", Kind::Other),
        ("serviceTemplateName", Kind::Text),
        ("createTime", Kind::Time),
        ("modifyTime", Kind::Time),
        ("serviceState", Kind::Enum),
        ("serviceGroupName", Kind::Text),
        ("iconURL", Kind::Other),
        ("imageURL", Kind::Other),
        ("vendorName", Kind::Text),
        ("version", Kind::Text),
        ("lastSubmitTime", Kind::Time),
        ("favorite", Kind::Bool),
        ("failedCount", Kind::Long),
        ("completedCount", Kind::Long),
        ("executedCount", Kind::Long),
        ("submitCount", Kind::Long),
        ("lastFailedTime", Kind::Time),
        ("resetTime", Kind::Time),
        ("latest", Kind::Bool),
        ("supportedScheduleType", Kind::Other),
        ("serviceTemplateID", Kind::Long),
        ("serviceGroupID", Kind::Long),
        ("supportedActionType", Kind::Other),
    ],
    searched: &[
        "name",
        "description",
        "tags",
        "serviceTemplateName",
        "vendorName",
    ],
    equal: &["serviceGroupID", "serviceTemplateID", "favorite"],
};

/// Members in version 10 (V10 9.4.2).
const V10_MEMBERS: [&str; 10] = [
    "instanceID",
    "name",
    "description",
    "tags",
    "serviceTemplateName",
    "createTime",
    "modifyTime",
    "serviceState",
    "serviceGroupName",
    "serviceGroupID",
];

impl Service {
    pub fn new(id: u64, name: &str, template: &Template, now: SystemTime) -> Self {
        Self {
            id,
            name: name.to_owned(),
            description: String::new(),
            tags: template.tags.clone(),
            template: template.id,
            group: super::preload::DEFAULT_GROUP,
            favorite: false,
            state: "test",
            schedule_types: template.schedule_types.clone(),
            made: now,
            modified: now,
            properties: Vec::new(),
            submits: 0,
            submitted: None,
            executed: 0,
            completed: 0,
            failed: 0,
            last_failed: None,
            reset: None,
        }
    }

    fn show(&self, jp1ao: &Jp1ao, call: &Call<'_>) -> Value {
        let template = jp1ao.templates.iter().find(|one| one.id == self.template);
        let of = |get: fn(&Template) -> &String| template.map(get).cloned().unwrap_or_default();
        let latest = template.is_some_and(|template| jp1ao.is_latest(template));
        let host = call.link("").replace("v1/", "");
        let mut shown = json!({
            "instanceID": self.id,
            "name": self.name,
            "description": self.description,
            "tags": self.tags,
            "serviceTemplateName": of(|template| &template.display),
            "createTime": call.time(self.made),
            "modifyTime": call.time(self.modified),
            "serviceState": self.state,
            "serviceGroupName": super::preload::group_name(self.group),
            "iconURL": format!("{host}icon/services/{}", self.id),
            "imageURL": format!("{host}image/services/{}", self.id),
            "vendorName": of(|template| &template.vendor),
            "version": of(|template| &template.version),
            "lastSubmitTime": call.time_or_null(self.submitted),
            "favorite": self.favorite,
            "failedCount": self.failed,
            "completedCount": self.completed,
            "executedCount": self.executed,
            "submitCount": self.submits,
            "lastFailedTime": call.time_or_null(self.last_failed),
            "resetTime": call.time_or_null(self.reset),
            "latest": latest,
            "supportedScheduleType": self.schedule_types,
            "serviceTemplateID": self.template,
            "serviceGroupID": self.group,
            "supportedActionType": "forceStop,forceRetry",
        });
        if call.options.version == Jp1aoVersion::V10
            && let Some(members) = shown.as_object_mut()
        {
            members.retain(|name, _| V10_MEMBERS.contains(&name.as_str()));
        }
        shown
    }

    fn path(&self) -> String {
        format!("objects/Services/{}", self.id)
    }

    pub fn count(&mut self, event: RunEvent, at: Option<SystemTime>) {
        match event {
            RunEvent::Started => self.executed += 1,
            RunEvent::Completed => self.completed += 1,
            RunEvent::Failed => {
                self.failed += 1;
                self.last_failed = at;
            }
        }
    }

    /// Applies a status action, if the current state permits it (docs/apis/jp1ao.md,
    /// "Service status").
    fn go(&mut self, action: &str, now: SystemTime) -> Result<(), ApiError> {
        let (to, from): (_, &[&str]) = match action {
            "release" => ("release", &["test", "maintenance", "disabled"]),
            "maintenance" => ("maintenance", &["release"]),
            _ => ("disabled", &["release"]),
        };
        if !from.contains(&self.state) {
            return Err(ApiError::State(self.state));
        }
        (self.state, self.modified) = (to, now);
        Ok(())
    }
}

pub fn all(jp1ao: &Jp1ao, call: &Call<'_>) -> Vec<Value> {
    let seen = jp1ao
        .services
        .iter()
        .filter(|service| call.user.sees(service.group));
    seen.map(|service| service.show(jp1ao, call)).collect()
}

pub fn handle(jp1ao: &mut Jp1ao, call: &Call<'_>, rest: &[&str]) -> HandlerResult {
    match (&call.request.method, rest) {
        (&Method::GET, []) => {
            let key = call.request.parameter("propertyKey").unwrap_or_default();
            let has = |service: &Service| {
                let mut keys = service
                    .properties
                    .iter()
                    .map(|property| &property.definition.key);
                key.is_empty() || keys.any(|one| one.contains(key))
            };
            let seen = jp1ao
                .services
                .iter()
                .filter(|service| call.user.sees(service.group) && has(service));
            let shown = seen.map(|service| service.show(jp1ao, call)).collect();
            if call.options.version == Jp1aoVersion::V10 {
                // Only the HQL filters are documented there.
                const PLAIN: ListSchema = ListSchema {
                    searched: &[],
                    equal: &[],
                    ..LIST_SCHEMA
                };
                return list::handle(call, shown, &PLAIN, &[]);
            }
            list::handle(call, shown, &LIST_SCHEMA, &["propertyKey"])
        }
        (&Method::GET, [wanted]) => {
            call.reject_other_parameters(&[&["alt"]])?;
            let wanted = jp1ao.service(call, wanted)?;
            Ok(ok(&jp1ao.services[wanted].show(jp1ao, call)))
        }
        (&Method::PUT, [wanted]) => {
            call.reject_other_parameters(&[&["alt"]])?;
            let at = jp1ao.service(call, wanted)?;
            update(jp1ao, call, at)?;
            Ok(ok(&jp1ao.services[at].show(jp1ao, call)))
        }
        (&Method::DELETE, [wanted]) => {
            call.reject_other_parameters(&[&["alt"]])?;
            call.require_role(Role::Modify)?;
            if let Ok(at) = jp1ao.service(call, wanted) {
                let id = jp1ao.services[at].id;
                if jp1ao.tasks.iter().any(|task| task.service == id) {
                    return Err(ApiError::InUse);
                }
                jp1ao.services.remove(at);
                jp1ao.schedules.retain(|schedule| schedule.service != id);
            }
            Ok(Response::empty(StatusCode::NO_CONTENT))
        }
        (&Method::GET, [wanted, "actions"]) => {
            let at = jp1ao.service(call, wanted)?;
            action::listed(call, &jp1ao.services[at].path(), ACTIONS)
        }
        (&Method::GET, [wanted, "actions", action]) if is_action(action) => {
            let at = jp1ao.service(call, wanted)?;
            template(jp1ao, call, at, action)
        }
        (&Method::POST, [wanted, "actions", "applyTemplate", "invoke"])
            if call.options.version == Jp1aoVersion::V12 =>
        {
            apply_template(jp1ao, call, wanted, "instanceID")
        }
        // Its own path and spelling (docs/apis/jp1ao.md, "Quirks").
        (&Method::POST, [wanted, "applyTemplate", "invoke"])
            if call.options.version == Jp1aoVersion::V11 =>
        {
            apply_template(jp1ao, call, wanted, "insatnceID")
        }
        (&Method::POST, [wanted, "actions", action, "invoke"])
            if is_action(action) && !["detailhelp", "applyTemplate"].contains(action) =>
        {
            invoke(jp1ao, call, wanted, action)
        }
        (_, [_, "actions", "applyTemplate", "invoke"]) => Err(ApiError::NoFunction),
        _ => Err(no_function(rest, ACTIONS)),
    }
}

/// Actions with a document that can be invoked.
fn is_action(action: &str) -> bool {
    ACTIONS.contains(&action) && !["update", "delete"].contains(&action)
}

impl Jp1ao {
    /// Returns the index of a service that the user may see.
    fn service(&self, call: &Call<'_>, wanted: &str) -> Result<usize, ApiError> {
        let wanted = id(wanted)?;
        let found = self
            .services
            .iter()
            .position(|one| one.id == wanted && call.user.sees(one.group));
        found.ok_or(ApiError::Absent)
    }

    /// Creates a service from a template (the template's action `bind`).
    pub(super) fn bind(
        &mut self,
        call: &Call<'_>,
        template: usize,
        arguments: &[Map<String, Value>],
    ) -> HandlerResult {
        let (values, rest): (Vec<_>, Vec<_>) = arguments
            .iter()
            .cloned()
            .partition(|argument| argument.contains_key("keyName"));
        let [given] = &rest[..] else {
            return Err(ApiError::body("exactly one Service is required"));
        };
        if self.services.len() >= MAX_SERVICES {
            return Err(ApiError::Limit);
        }
        let name = text(given, "name", 128)?.filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| ApiError::body("name is missing"))?;
        if self.services.iter().any(|service| service.name == name) {
            return Err(ApiError::Taken);
        }
        let group = match text(given, "serviceGroupName", 128)?.filter(|name| !name.is_empty()) {
            None => super::preload::DEFAULT_GROUP,
            Some(name) => super::preload::group_id(&name)
                .filter(|group| call.user.sees(*group))
                .ok_or_else(|| ApiError::body("no permission on serviceGroupName"))?,
        };
        let template = &self.templates[template];
        let mut service = Service::new(0, &name, template, call.now);
        service.group = group;
        service.take(given)?;
        if let Some(state) = text(given, "serviceState", 32)? {
            // A new service is in test, or usable at once.
            service.state = ["test", "release", "debug"]
                .into_iter()
                .find(|known| *known == state)
                .ok_or_else(|| ApiError::body("serviceState is none of test, release, debug"))?;
        }
        service.properties = template
            .definitions
            .iter()
            .map(|one| Property::new(0, one))
            .collect();
        super::properties::fill(&mut service.properties, &values)?;
        service.id = self.id();
        for property in &mut service.properties {
            property.id = self.part();
        }
        let path = service.path();
        self.services.push(service);
        action::done(call, &[path])
    }
}

impl Service {
    /// Sets the members that an update and a bind have in common.
    fn take(&mut self, given: &Map<String, Value>) -> Result<(), ApiError> {
        let description = text(given, "description", 1024)?;
        let tags = text(given, "tags", 1024)?;
        let kinds = text(given, "supportedScheduleType", 200)?;
        let favorite = boolean(given, "favorite")?;
        if let Some(kinds) = &kinds
            && csv(kinds)
                .iter()
                .any(|kind| !["immediate", "schedule", "recurrence"].contains(kind))
        {
            return Err(ApiError::body(
                "supportedScheduleType is none of immediate, schedule, recurrence",
            ));
        }
        if let Some(description) = description {
            self.description = description;
        }
        if let Some(tags) = tags {
            self.tags = csv(&tags).join(",");
        }
        if let Some(kinds) = kinds {
            self.schedule_types = csv(&kinds).join(",");
        }
        self.favorite = favorite.unwrap_or(self.favorite);
        Ok(())
    }
}

/// Updates the six editable members, all or none. The Submit role can only change
/// `favorite` (V12 2.5.3).
fn update(jp1ao: &mut Jp1ao, call: &Call<'_>, at: usize) -> Result<(), ApiError> {
    let body = call.body()?;
    list::times(&body, &LIST_SCHEMA)?;
    let taken = |name: &str| {
        jp1ao
            .services
            .iter()
            .enumerate()
            .any(|(other, one)| other != at && one.name == name)
    };
    let name = text(&body, "name", 128)?;
    if let Some(name) = &name {
        if name.is_empty() {
            return Err(ApiError::body("name is empty"));
        }
        if taken(name) {
            return Err(ApiError::Taken);
        }
    }
    let service = &mut jp1ao.services[at];
    if body
        .get("instanceID")
        .is_some_and(|given| given.as_u64() != Some(service.id))
    {
        return Err(ApiError::body("instanceID is that of another"));
    }
    let state = text(&body, "serviceState", 32)?;
    if call.user.role == Role::Submit {
        service.favorite = boolean(&body, "favorite")?.unwrap_or(service.favorite);
        return Ok(());
    }
    if let Some(state) = state.filter(|state| state != service.state) {
        let action = match state.as_str() {
            "release" | "maintenance" => state.as_str(),
            "disabled" => "disable",
            _ => return Err(ApiError::body("serviceState cannot be set to this")),
        };
        // Its page documents no 409.
        service
            .go(action, call.now)
            .map_err(|_| ApiError::body("serviceState cannot change to this"))?;
    }
    service.take(&body)?;
    if let Some(name) = name {
        service.name = name;
    }
    service.modified = call.now;
    Ok(())
}

fn template(jp1ao: &Jp1ao, call: &Call<'_>, at: usize, action: &str) -> HandlerResult {
    let service = &jp1ao.services[at];
    let arguments = match action {
        "submit" => {
            let schedule = start_times::argument(&service.name, "", call.options.version);
            let asked = service
                .properties
                .iter()
                .filter(|property| property.is_set_at_submit());
            std::iter::once(schedule)
                .chain(asked.map(Property::argument))
                .collect()
        }
        "applyTemplate" => {
            let latest = jp1ao
                .latest_of(service.template)
                .unwrap_or(service.template);
            let name = match call.options.version {
                Jp1aoVersion::V11 => "insatnceID",
                _ => "instanceID",
            };
            vec![json!({name: latest})]
        }
        _ => Vec::new(),
    };
    action::shown(call, &service.path(), action, arguments)
}

fn invoke(jp1ao: &mut Jp1ao, call: &Call<'_>, wanted: &str, action: &str) -> HandlerResult {
    if action == "reset" {
        call.require_role(Role::Modify)?;
    } else if action != "submit" {
        call.require_role_or_absent(Role::Modify)?;
    }
    let at = jp1ao.service(call, wanted)?;
    if action == "submit" {
        let arguments = action::arguments(call, action)?;
        let service = &jp1ao.services[at];
        let (id, values) = (service.id, service.properties.clone());
        return jp1ao.submit(call, id, values, &arguments);
    }
    action::no_arguments(call, action)?;
    let service = &mut jp1ao.services[at];
    let path = service.path();
    if action != "reset" {
        service.go(action, call.now)?;
        return action::done(call, &[path]);
    }
    (
        service.submits,
        service.executed,
        service.completed,
        service.failed,
    ) = (0, 0, 0, 0);
    (service.last_failed, service.reset) = (None, Some(call.now));
    match call.options.reset_envelope {
        true => action::done(call, &[path]),
        // Response on the page of version 12 (V12 2.5.9).
        false => Ok(ok(&action::document(call, &path, action, Vec::new()))),
    }
}

/// Changes to another version of the same template; properties of both versions keep
/// their values. Not permitted while disabled (AG11 4.9.1).
fn apply_template(jp1ao: &mut Jp1ao, call: &Call<'_>, wanted: &str, member: &str) -> HandlerResult {
    call.require_role_or_absent(Role::Modify)?;
    let at = jp1ao.service(call, wanted)?;
    let arguments = action::arguments(call, "applyTemplate")?;
    let target = match &arguments[..] {
        [one] => one.get(member).and_then(Value::as_u64),
        _ => None,
    };
    let target = target.ok_or_else(|| {
        ApiError::body(format!(
            "exactly one ServiceTemplate with {member} is required"
        ))
    })?;
    let service = &jp1ao.services[at];
    if !["release", "maintenance", "test"].contains(&service.state) {
        return Err(ApiError::State(service.state));
    }
    let key = jp1ao
        .templates
        .iter()
        .find(|one| one.id == service.template)
        .map(|one| one.key.clone());
    let target = jp1ao
        .templates
        .iter()
        .find(|one| one.id == target && Some(&one.key) == key.as_ref());
    let target =
        target.ok_or_else(|| ApiError::body("it is no version of the service's template"))?;
    let (id, definitions) = (target.id, target.definitions.clone());
    let mut properties = Vec::new();
    for definition in &definitions {
        let mut property = Property::new(jp1ao.part(), definition);
        let before = jp1ao.services[at]
            .properties
            .iter()
            .find(|one| one.definition.key == definition.key);
        if let Some(before) = before.filter(|before| definition.refuses(&before.value).is_none()) {
            property.value = before.value.clone();
        }
        properties.push(property);
    }
    let service = &mut jp1ao.services[at];
    (service.template, service.properties, service.modified) = (id, properties, call.now);
    action::done(call, &[service.path()])
}
