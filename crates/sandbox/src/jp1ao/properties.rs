//! Properties: definitions, values, informations (both together) and groups (V12 2.9).

use std::sync::Arc;

use http::Method;
use serde_json::{Map, Value, json};

use super::access::Role;
use super::errors::ApiError;
use super::list::{self, Kind, ListSchema, csv};
use super::{Call, HandlerResult, Jp1ao, action, boolean, id, no_function, ok, text};

/// Maximum length of a value.
const MAX_VALUE_CHARS: usize = 4096;
/// Text shown for a password. Writing it has no effect.
const PASSWORD_MASK: &str = "********";

/// Definition of a property of a service, schedule or task.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    pub id: u64,
    pub key: String,
    pub display: String,
    pub description: String,
    /// `string`, `password`, `boolean`, `integer`, `list`; the sandbox's own names.
    pub kind: String,
    /// `in` or `out`.
    pub mode: String,
    /// `exec`: set at a submit. `config`: set on the service.
    pub visibility: String,
    /// `local`, or `shared` for all services.
    pub scope: String,
    pub required: bool,
    pub default: String,
    /// Range of an integer.
    pub range: Option<(i64, i64)>,
    /// Maximum number of characters.
    pub length: u32,
    /// Values of a `list`, comma-separated.
    pub choices: String,
    pub group: String,
    pub read_only: bool,
    pub hidden: bool,
    /// `None` for a share property.
    pub template: Option<u64>,
}

/// Value of a definition for one owner.
#[derive(Clone, Debug)]
pub struct Property {
    pub id: u64,
    pub definition: Arc<Definition>,
    pub value: String,
    pub read_only: bool,
    pub hidden: bool,
}

/// Owner of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Shared,
    Service(u64),
    Schedule(u64),
    Task(u64),
}

const DEFINITION: ListSchema = ListSchema {
    members: &[
        ("instanceID", Kind::Long),
        ("keyName", Kind::Text),
        ("displayName", Kind::Text),
        ("defaultValue", Kind::Text),
        ("type", Kind::Enum),
        ("visibility", Kind::Enum),
        ("scope", Kind::Enum),
        ("description", Kind::Text),
        ("mode", Kind::Enum),
        ("pattern", Kind::Other),
        ("valueList", Kind::Other),
        ("propertyGroupName", Kind::Text),
        ("validationScript", Kind::Other),
        ("required", Kind::Bool),
        ("readOnly", Kind::Bool),
        ("hidden", Kind::Bool),
        ("reference", Kind::Bool),
        ("maxLength", Kind::Other),
        ("minLength", Kind::Other),
        ("minValue", Kind::Other),
        ("maxValue", Kind::Other),
        ("serviceTemplateID", Kind::Long),
    ],
    searched: &[],
    equal: &[],
};

const VALUE: ListSchema = ListSchema {
    members: &[
        ("instanceID", Kind::Long),
        ("type", Kind::Enum),
        ("keyName", Kind::Text),
        ("value", Kind::Text),
        ("readOnly", Kind::Bool),
        ("hidden", Kind::Bool),
        ("serviceID", Kind::Long),
        ("scheduleID", Kind::Long),
        ("taskID", Kind::Long),
    ],
    searched: &[],
    equal: &[],
};

const INFORMATION: ListSchema = ListSchema {
    members: &[
        ("instanceID", Kind::Long),
        ("keyName", Kind::Text),
        ("displayName", Kind::Text),
        ("defaultValue", Kind::Text),
        ("type", Kind::Enum),
        ("visibility", Kind::Enum),
        ("scope", Kind::Enum),
        ("description", Kind::Text),
        ("mode", Kind::Enum),
        ("pattern", Kind::Other),
        ("valueList", Kind::Other),
        ("propertyGroupName", Kind::Text),
        ("validationScript", Kind::Other),
        ("required", Kind::Bool),
        ("readOnly", Kind::Bool),
        ("hidden", Kind::Bool),
        ("reference", Kind::Bool),
        ("maxLength", Kind::Other),
        ("minLength", Kind::Other),
        ("minValue", Kind::Other),
        ("maxValue", Kind::Other),
        ("serviceTemplateID", Kind::Long),
        ("value", Kind::Text),
        ("serviceID", Kind::Long),
        ("scheduleID", Kind::Long),
        ("taskID", Kind::Long),
    ],
    searched: &[],
    equal: &[],
};

const GROUP: ListSchema = ListSchema {
    members: &[
        ("instanceID", Kind::Long),
        ("keyName", Kind::Text),
        ("displayName", Kind::Text),
        ("description", Kind::Text),
    ],
    searched: &[],
    equal: &[],
};

impl Definition {
    pub fn show(&self) -> Value {
        json!({
            "instanceID": self.id,
            "keyName": self.key,
            "displayName": self.display,
            "defaultValue": self.default,
            "type": self.kind,
            "visibility": self.visibility,
            "scope": self.scope,
            "description": self.description,
            "mode": self.mode,
            "pattern": "",
            "valueList": self.choices,
            "propertyGroupName": self.group,
            "validationScript": "",
            "required": self.required,
            "readOnly": self.read_only,
            "hidden": self.hidden,
            "reference": false,
            "maxLength": self.length,
            "minLength": u32::from(self.required),
            "minValue": self.range.map(|(least, _)| least),
            "maxValue": self.range.map(|(_, most)| most),
            "serviceTemplateID": self.template,
        })
    }

    /// Parses the output of `show`, for imported templates.
    pub fn read(shown: &Value) -> Option<Self> {
        let text = |name: &str| {
            Some(
                shown[name]
                    .as_str()?
                    .chars()
                    .take(MAX_VALUE_CHARS)
                    .collect::<String>(),
            )
        };
        Some(Self {
            id: 0,
            key: text("keyName").filter(|key| !key.is_empty())?,
            display: text("displayName")?,
            description: text("description")?,
            kind: text("type").filter(|kind| {
                ["string", "password", "boolean", "integer", "list"].contains(&kind.as_str())
            })?,
            mode: text("mode")?,
            visibility: text("visibility")?,
            scope: "local".to_owned(),
            required: shown["required"].as_bool()?,
            default: text("defaultValue")?,
            range: shown["minValue"].as_i64().zip(shown["maxValue"].as_i64()),
            length: u32::try_from(shown["maxLength"].as_u64()?).ok()?,
            choices: text("valueList")?,
            group: text("propertyGroupName")?,
            read_only: shown["readOnly"].as_bool()?,
            hidden: shown["hidden"].as_bool()?,
            template: None,
        })
    }

    /// Returns the reason why a value is invalid, if it is.
    pub fn refuses(&self, value: &str) -> Option<String> {
        let most = usize::try_from(self.length)
            .unwrap_or(MAX_VALUE_CHARS)
            .min(MAX_VALUE_CHARS);
        let error = if value.is_empty() {
            if !self.required {
                return None;
            }
            "a value is required".to_owned()
        } else if value.chars().count() > most {
            format!("longer than {most} characters")
        } else if self.kind == "boolean" && !["true", "false"].contains(&value) {
            "neither true nor false".to_owned()
        } else if self.kind == "list" && !csv(&self.choices).contains(&value) {
            format!("none of {}", self.choices)
        } else if self.kind == "integer" {
            let (least, most) = self.range.unwrap_or((i64::MIN, i64::MAX));
            match value.parse::<i64>() {
                Ok(number) if (least..=most).contains(&number) => return None,
                _ => format!("no whole number from {least} to {most}"),
            }
        } else {
            return None;
        };
        Some(format!("{}: {error}", self.key))
    }
}

impl Property {
    pub fn new(id: u64, definition: &Arc<Definition>) -> Self {
        Self {
            id,
            value: definition.default.clone(),
            read_only: definition.read_only,
            hidden: definition.hidden,
            definition: definition.clone(),
        }
    }

    /// Returns the visible value; a password is masked.
    fn visible_value(&self) -> &str {
        match self.definition.kind.as_str() {
            "password" if !self.value.is_empty() => PASSWORD_MASK,
            _ => &self.value,
        }
    }

    fn show(&self, owner: Owner) -> Value {
        let mut shown = json!({
            "instanceID": self.id,
            "type": self.definition.kind,
            "keyName": self.definition.key,
            "value": self.visible_value(),
            "readOnly": self.read_only,
            "hidden": self.hidden,
        });
        owner.write(&mut shown);
        shown
    }

    fn show_information(&self, owner: Owner) -> Value {
        let mut shown = self.definition.show();
        shown["instanceID"] = self.id.into();
        shown["value"] = self.visible_value().into();
        shown["readOnly"] = self.read_only.into();
        shown["hidden"] = self.hidden.into();
        owner.write(&mut shown);
        shown
    }

    /// Returns whether a submit sets this property.
    pub fn is_set_at_submit(&self) -> bool {
        self.definition.visibility == "exec" && self.definition.mode == "in" && !self.hidden
    }

    /// Builds an action's argument.
    pub fn argument(&self) -> Value {
        json!({"keyName": self.definition.key, "value": self.visible_value()})
    }

    /// Sets a value. Fails with the reason if it is invalid.
    pub fn set(&mut self, value: &str) -> Result<(), ApiError> {
        if value == self.visible_value() {
            return Ok(());
        }
        if self.read_only {
            return Err(ApiError::body(format!(
                "{} is read-only",
                self.definition.key
            )));
        }
        match self.definition.refuses(value) {
            Some(error) => Err(ApiError::Body(error)),
            None => {
                self.value = value.to_owned();
                Ok(())
            }
        }
    }
}

impl Owner {
    fn write(self, shown: &mut Value) {
        match self {
            Self::Shared => {}
            Self::Service(id) => shown["serviceID"] = id.into(),
            Self::Schedule(id) => shown["scheduleID"] = id.into(),
            Self::Task(id) => shown["taskID"] = id.into(),
        }
    }
}

/// Sets the values in an action's arguments (`keyName`, `value`).
pub fn fill(properties: &mut [Property], arguments: &[Map<String, Value>]) -> Result<(), ApiError> {
    for argument in arguments {
        let key = text(argument, "keyName", MAX_VALUE_CHARS)?
            .ok_or_else(|| ApiError::body("keyName is missing"))?;
        let value = text(argument, "value", MAX_VALUE_CHARS)?.unwrap_or_default();
        let found = properties
            .iter_mut()
            .find(|property| property.definition.key == key);
        found
            .ok_or_else(|| ApiError::body(format!("there is no property {key}")))?
            .set(&value)?;
    }
    let missing = properties
        .iter()
        .find_map(|property| property.definition.refuses(&property.value));
    missing.map_or(Ok(()), |error| Err(ApiError::Body(error)))
}

impl Jp1ao {
    /// Returns the values of an owner, if the user may see it.
    fn owned(&self, call: &Call<'_>, owner: Owner) -> Option<&[Property]> {
        match owner {
            Owner::Shared => Some(&self.shared),
            Owner::Service(id) => {
                let service = self.services.iter().find(|service| service.id == id)?;
                call.user
                    .sees(service.group)
                    .then_some(&service.properties[..])
            }
            Owner::Schedule(id) => {
                let schedule = self.schedules.iter().find(|schedule| schedule.id == id)?;
                call.user
                    .sees(schedule.group)
                    .then_some(&schedule.properties[..])
            }
            Owner::Task(id) => {
                let task = self.tasks.iter().find(|task| task.id == id)?;
                call.user.sees(task.group).then_some(&task.properties[..])
            }
        }
    }

    /// Returns the owner of a value.
    fn owner_of(&self, call: &Call<'_>, id: u64) -> Option<Owner> {
        let services = self
            .services
            .iter()
            .map(|service| Owner::Service(service.id));
        let schedules = self
            .schedules
            .iter()
            .map(|schedule| Owner::Schedule(schedule.id));
        let tasks = self.tasks.iter().map(|task| Owner::Task(task.id));
        std::iter::once(Owner::Shared)
            .chain(services)
            .chain(schedules)
            .chain(tasks)
            .find(|owner| {
                let owned = self.owned(call, *owner).unwrap_or_default();
                owned.iter().any(|property| property.id == id)
            })
    }

    /// Returns an editable value: one of a service, or a shared one.
    fn editable(&mut self, owner: Owner, id: u64) -> Option<&mut Property> {
        let properties = match owner {
            Owner::Shared => &mut self.shared,
            Owner::Service(service) => {
                &mut self
                    .services
                    .iter_mut()
                    .find(|one| one.id == service)?
                    .properties
            }
            Owner::Schedule(_) | Owner::Task(_) => return None,
        };
        properties.iter_mut().find(|property| property.id == id)
    }

    /// Returns the templates of the objects that the query names, or all templates if
    /// it names none.
    fn templates_of(&self, call: &Call<'_>) -> Result<Vec<u64>, ApiError> {
        let mut wanted: Vec<Option<u64>> = Vec::new();
        if let Some(id) = call.number("serviceTemplateID")? {
            wanted.push(
                self.templates
                    .iter()
                    .find(|one| one.id == id)
                    .map(|one| one.id),
            );
        }
        if let Some(id) = call.number("serviceID")? {
            let found = self
                .services
                .iter()
                .find(|one| one.id == id && call.user.sees(one.group));
            wanted.push(found.map(|one| one.template));
        }
        if let Some(id) = call.number("taskID")? {
            let found = self
                .tasks
                .iter()
                .find(|one| one.id == id && call.user.sees(one.group));
            wanted.push(found.map(|one| one.template));
        }
        let all = self.templates.iter().map(|template| template.id);
        Ok(all
            .filter(|id| wanted.iter().all(|wanted| *wanted == Some(*id)))
            .collect())
    }

    /// Returns the owners that the query names, in this order; an unknown one has no
    /// values.
    fn owners(&self, call: &Call<'_>) -> Result<Vec<Owner>, ApiError> {
        let mut owners = Vec::new();
        owners.extend(call.number("serviceID")?.map(Owner::Service));
        owners.extend(call.number("scheduleID")?.map(Owner::Schedule));
        owners.extend(call.number("taskID")?.map(Owner::Task));
        Ok(owners)
    }

    fn listed(
        &self,
        call: &Call<'_>,
        owners: &[Owner],
        show: fn(&Property, Owner) -> Value,
    ) -> Vec<Value> {
        let of = |owner: &Owner| {
            let owner = *owner;
            self.owned(call, owner)
                .unwrap_or_default()
                .iter()
                .map(move |property| show(property, owner))
        };
        owners.iter().flat_map(of).collect()
    }
}

/// `PropertyDefinitions`: input, output and share properties.
pub fn definitions(jp1ao: &mut Jp1ao, call: &Call<'_>, rest: &[&str]) -> HandlerResult {
    const FILTERS: &[&str] = &["serviceID", "taskID", "serviceTemplateID"];
    let all = || {
        let shared = jp1ao.shared.iter().map(|property| &property.definition);
        jp1ao
            .templates
            .iter()
            .flat_map(|template| &template.definitions)
            .chain(shared)
    };
    match (&call.request.method, rest) {
        (&Method::GET, []) => {
            let templates = jp1ao.templates_of(call)?;
            let named = FILTERS.iter().any(|name| call.request.has(name));
            let found = all().filter(|definition| match definition.template {
                Some(template) => templates.contains(&template),
                None => !named,
            });
            list::handle(
                call,
                found.map(|definition| definition.show()).collect(),
                &DEFINITION,
                FILTERS,
            )
        }
        (&Method::GET, [wanted, rest @ ..]) if rest.is_empty() || *rest == ["actions"] => {
            let wanted = id(wanted)?;
            let found = all()
                .find(|definition| definition.id == wanted)
                .ok_or(ApiError::Absent)?;
            match rest {
                [] => {
                    call.reject_other_parameters(&[&["alt"]])?;
                    Ok(ok(&found.show()))
                }
                _ => list::unpaged(call, Vec::new()),
            }
        }
        _ => Err(no_function(rest, &[])),
    }
}

/// `PropertyInformations`: definition and value together. Requires a filter.
pub fn informations(jp1ao: &mut Jp1ao, call: &Call<'_>, rest: &[&str]) -> HandlerResult {
    match (&call.request.method, rest) {
        (&Method::GET, []) => {
            let mut owners = jp1ao.owners(call)?;
            if call.request.has("shared") {
                owners.push(Owner::Shared);
            }
            if owners.is_empty() {
                return Err(ApiError::Query(
                    "one of serviceID, taskID, scheduleID, shared is required".to_owned(),
                ));
            }
            let found = jp1ao.listed(call, &owners, Property::show_information);
            list::handle(
                call,
                found,
                &INFORMATION,
                &["serviceID", "taskID", "scheduleID", "shared"],
            )
        }
        (_, []) => Err(ApiError::Method),
        _ => Err(ApiError::NoFunction),
    }
}

/// `PropertyValues`, one by one or all those of a service.
pub fn values(jp1ao: &mut Jp1ao, call: &Call<'_>, rest: &[&str]) -> HandlerResult {
    match (&call.request.method, rest) {
        (&Method::GET, []) => {
            let mut owners = jp1ao.owners(call)?;
            if owners.is_empty() {
                owners.push(Owner::Shared);
            }
            let found = jp1ao.listed(call, &owners, Property::show);
            list::handle(call, found, &VALUE, &["serviceID", "scheduleID", "taskID"])
        }
        (&Method::PUT, []) => update_all(jp1ao, call),
        (&Method::GET, [wanted]) => {
            call.reject_other_parameters(&[&["alt"]])?;
            let (owner, property) = jp1ao.value(call, id(wanted)?)?;
            Ok(ok(&property.show(owner)))
        }
        (&Method::PUT, [wanted]) => {
            call.reject_other_parameters(&[&["alt"]])?;
            call.require_role(Role::Modify)?;
            let wanted = id(wanted)?;
            let (owner, _) = jp1ao.value(call, wanted)?;
            let body = call.body()?;
            if body
                .get("instanceID")
                .is_some_and(|given| given.as_u64() != Some(wanted))
            {
                return Err(ApiError::body("instanceID is that of another"));
            }
            let value = text(&body, "value", MAX_VALUE_CHARS)?
                .ok_or_else(|| ApiError::body("value is missing"))?;
            let not_editable = || ApiError::body("it is not editable");
            let property = jp1ao.editable(owner, wanted).ok_or_else(not_editable)?;
            property.set(&value)?;
            Ok(ok(&property.show(owner)))
        }
        (&Method::GET, [wanted, "actions"]) => {
            let wanted = id(wanted)?;
            jp1ao.value(call, wanted)?;
            action::listed(
                call,
                &format!("objects/PropertyValues/{wanted}"),
                &["update"],
            )
        }
        _ => Err(no_function(rest, &[])),
    }
}

impl Jp1ao {
    fn value(&self, call: &Call<'_>, id: u64) -> Result<(Owner, &Property), ApiError> {
        let owner = self.owner_of(call, id).ok_or(ApiError::Absent)?;
        let owned = self.owned(call, owner).unwrap_or_default();
        let found = owned.iter().find(|property| property.id == id);
        Ok((owner, found.ok_or(ApiError::Absent)?))
    }
}

/// Updates all values of a posted list envelope, or none. Without a service it updates
/// the shared ones; `readOnly` and `hidden` can change only with one.
fn update_all(jp1ao: &mut Jp1ao, call: &Call<'_>) -> HandlerResult {
    call.reject_other_parameters(&[&["alt", "serviceID"]])?;
    call.require_role(Role::Modify)?;
    let owner = call
        .number("serviceID")?
        .map_or(Owner::Shared, Owner::Service);
    let mut changed = jp1ao.owned(call, owner).ok_or(ApiError::Absent)?.to_vec();
    let body = call.body()?;
    let Some(Value::Array(data)) = body.get("data") else {
        return Err(ApiError::body("data is no list"));
    };
    for item in data {
        let item = item
            .as_object()
            .ok_or_else(|| ApiError::body("an element of data is no object"))?;
        let id = item.get("instanceID").and_then(Value::as_u64);
        let property = changed
            .iter_mut()
            .find(|property| Some(property.id) == id)
            .ok_or_else(|| ApiError::body("instanceID is none of theirs"))?;
        let flags = (boolean(item, "readOnly")?, boolean(item, "hidden")?);
        if owner != Owner::Shared {
            property.read_only = flags.0.unwrap_or(property.read_only);
            property.hidden = flags.1.unwrap_or(property.hidden);
        }
        if let Some(value) = text(item, "value", MAX_VALUE_CHARS)? {
            // A call that makes the property read-only may still set its value.
            property.set(&value)?;
        }
    }
    match owner {
        Owner::Service(id) => {
            if let Some(service) = jp1ao.services.iter_mut().find(|service| service.id == id) {
                service.properties = changed;
            }
        }
        _ => jp1ao.shared = changed,
    }
    let data = jp1ao.listed(call, &[owner], Property::show);
    let count = data.len();
    Ok(ok(&json!({"data": data, "count": count})))
}

/// `PropertyGroups` of exactly one object.
pub fn groups(jp1ao: &mut Jp1ao, call: &Call<'_>, rest: &[&str]) -> HandlerResult {
    const ONE: &[&str] = &["serviceTemplateID", "serviceID", "scheduleID", "taskID"];
    match (&call.request.method, rest) {
        (&Method::GET, []) => {
            if ONE.iter().filter(|name| call.request.has(name)).count() != 1 {
                return Err(ApiError::Query(format!(
                    "exactly one of {} is required",
                    ONE.join(", ")
                )));
            }
            let scheduled = call.number("scheduleID")?.and_then(|id| {
                let found = jp1ao
                    .schedules
                    .iter()
                    .find(|one| one.id == id && call.user.sees(one.group));
                found.map(|one| one.template)
            });
            let template = match call.request.has("scheduleID") {
                true => scheduled,
                false => jp1ao.templates_of(call)?.first().copied(),
            };
            let found = jp1ao.templates.iter().find(|one| Some(one.id) == template);
            let groups = found.map(|template| template.groups()).unwrap_or_default();
            list::handle(call, groups, &GROUP, ONE)
        }
        (_, []) => Err(ApiError::Method),
        _ => Err(ApiError::NoFunction),
    }
}
