//! Service templates, which services are created from, with import and export as files
//! (V12 2.4).

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::access::Role;
use super::errors::ApiError;
use super::list::{self, Kind, ListSchema, csv};
use super::properties::Definition;
use super::task_run::StepKind;
use super::{
    Call, HandlerResult, Jp1ao, Jp1aoVersion, action, id, multipart_and_zip, no_function, ok,
};
use crate::message::Response;

/// Maximum number of templates.
const MAX_TEMPLATES: usize = 100;
/// Maximum size of all imported files.
const MAX_IMPORTED_BYTES: usize = 64 << 20;
/// Maximum number of steps, and of properties, of an imported template.
const MAX_STEPS_AND_PROPERTIES: usize = 100;
/// Name of the JSON file in an exported archive.
const TEMPLATE_FILE_NAME: &str = "template.json";

const ACTIONS: &[&str] = &["delete", "export", "detailhelp", "bind"];

#[derive(Clone)]
pub struct Template {
    pub id: u64,
    pub key: String,
    pub display: String,
    pub vendor_id: String,
    pub vendor: String,
    pub version: String,
    pub tags: String,
    pub description: String,
    pub made: SystemTime,
    /// `debug` or `release`.
    pub state: &'static str,
    pub schedule_types: String,
    pub definitions: Vec<Arc<Definition>>,
    /// Steps of the tasks.
    pub flow: Vec<(String, StepKind)>,
    /// Templates that it includes.
    pub components: Vec<u64>,
    /// Imported file.
    pub file: Option<Bytes>,
}

pub const LIST_SCHEMA: ListSchema = ListSchema {
    members: &[
        ("instanceID", Kind::Long),
        ("keyName", Kind::Text),
        ("displayName", Kind::Text),
        ("iconURL", Kind::Other),
        ("vendorID", Kind::Text),
        ("version", Kind::Text),
        ("vendorName", Kind::Text),
        ("tags", Kind::Other),
        ("serviceSpecificationVersion", Kind::Other),
        ("createTime", Kind::Time),
        ("modifyTime", Kind::Time),
        ("description", Kind::Text),
        ("releaseState", Kind::Enum),
        ("latest", Kind::Bool),
        ("imageURL", Kind::Other),
        ("supportedScheduleType", Kind::Enum),
        ("needVUP", Kind::Bool),
        ("componentOutdated", Kind::Bool),
        ("usedServices", Kind::Long),
        ("usedTemplates", Kind::Long),
        ("disableFeatures", Kind::Other),
        ("supportedActionType", Kind::Other),
    ],
    searched: &[
        "keyName",
        "displayName",
        "vendorID",
        "vendorName",
        "tags",
        "description",
    ],
    equal: &["vendorID", "keyName", "version"],
};

impl Template {
    fn show(&self, jp1ao: &Jp1ao, call: &Call<'_>) -> Value {
        let host = call.link("").replace("v1/", "");
        let latest = jp1ao.is_latest(self);
        let outdated = |id: &u64| {
            let mut all = jp1ao.templates.iter();
            all.find(|one| one.id == *id)
                .is_some_and(|component| !jp1ao.is_latest(component))
        };
        let mut shown = json!({
            "instanceID": self.id,
            "keyName": self.key,
            "displayName": self.display,
            "iconURL": format!("{host}icon/templates/{}", self.id),
            "vendorID": self.vendor_id,
            "version": self.version,
            "vendorName": self.vendor,
            "tags": self.tags,
        });
        if call.options.version == Jp1aoVersion::V12 {
            shown["serviceSpecificationVersion"] = "1.0".into();
        }
        for (name, value) in [
            ("createTime", Value::from(call.time(self.made))),
            ("modifyTime", call.time(self.made).into()),
            ("description", self.description.as_str().into()),
            ("releaseState", self.state.into()),
            ("latest", latest.into()),
            (
                "imageURL",
                format!("{host}image/templates/{}", self.id).into(),
            ),
            ("supportedScheduleType", self.schedule_types.as_str().into()),
            ("needVUP", false.into()),
            (
                "componentOutdated",
                self.components.iter().any(outdated).into(),
            ),
            (
                "usedServices",
                jp1ao
                    .services
                    .iter()
                    .filter(|one| one.template == self.id)
                    .count()
                    .into(),
            ),
            ("usedTemplates", jp1ao.users(self.id).into()),
            ("disableFeatures", "".into()),
            ("supportedActionType", "forceStop,forceRetry".into()),
        ] {
            shown[name] = value;
        }
        shown
    }

    fn path(&self) -> String {
        format!("objects/ServiceTemplates/{}", self.id)
    }

    /// Returns the property groups of its definitions (V12 2.9.10).
    pub fn groups(&self) -> Vec<Value> {
        let mut names: Vec<&str> = self
            .definitions
            .iter()
            .map(|one| one.group.as_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        let show = |(at, name): (usize, &&str)| {
            json!({
                "instanceID": self.id * 100 + at as u64 + 1,
                "keyName": name,
                "displayName": name,
                "description": "",
            })
        };
        names.iter().enumerate().map(show).collect()
    }

    /// Exports the template: a zip archive with one JSON file.
    fn file(&self) -> Option<Bytes> {
        if let Some(file) = &self.file {
            return Some(file.clone());
        }
        let step = |(name, work): &(String, StepKind)| match work {
            StepKind::Plain => json!({"name": name, "work": "plain"}),
            StepKind::Long => json!({"name": name, "work": "long"}),
            StepKind::WaitForInput { question, buttons } => {
                json!({"name": name, "work": "ask", "question": question, "buttons": buttons})
            }
        };
        let content = json!({
            "keyName": self.key,
            "displayName": self.display,
            "vendorID": self.vendor_id,
            "vendorName": self.vendor,
            "version": self.version,
            "tags": self.tags,
            "description": self.description,
            "supportedScheduleType": self.schedule_types,
            "flow": self.flow.iter().map(step).collect::<Vec<_>>(),
            "properties": self.definitions.iter().map(|one| one.show()).collect::<Vec<_>>(),
        });
        multipart_and_zip::zip(TEMPLATE_FILE_NAME, content.to_string().as_bytes()).map(Bytes::from)
    }

    fn file_name(&self) -> String {
        // ASCII letters and digits only, because it is sent in a header.
        let name = format!("{}_{}_{}.st", self.vendor_id, self.key, self.version);
        name.chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || "._-".contains(c) {
                    c
                } else {
                    '_'
                }
            })
            .collect()
    }

    /// Parses the output of `file`.
    fn read(content: &[u8], now: SystemTime) -> Option<Self> {
        let given: Value = serde_json::from_slice(content).ok()?;
        let short =
            |value: &Value| Some(value.as_str().filter(|text| text.len() <= 1024)?.to_owned());
        let text = |name: &str| short(&given[name]);
        let part = |step: &Value| {
            let work = match step["work"].as_str()? {
                "plain" => StepKind::Plain,
                "long" => StepKind::Long,
                "ask" => StepKind::WaitForInput {
                    question: short(&step["question"])?,
                    buttons: step["buttons"]
                        .as_array()
                        .filter(|buttons| (1..=9).contains(&buttons.len()))?
                        .iter()
                        .map(short)
                        .collect::<Option<_>>()?,
                },
                _ => return None,
            };
            Some((short(&step["name"])?, work))
        };
        let parts = |name: &str| {
            given[name]
                .as_array()
                .filter(|parts| parts.len() <= MAX_STEPS_AND_PROPERTIES)
        };
        let kinds = text("supportedScheduleType")?;
        Some(Self {
            id: 0,
            key: text("keyName").filter(|key| !key.is_empty())?,
            display: text("displayName")?,
            vendor_id: text("vendorID")?,
            vendor: text("vendorName")?,
            version: text("version")?,
            tags: csv(&text("tags")?).join(","),
            description: text("description")?,
            made: now,
            state: "release",
            schedule_types: kinds,
            definitions: parts("properties")?
                .iter()
                .map(|one| Definition::read(one).map(Arc::new))
                .collect::<Option<_>>()?,
            flow: parts("flow")?.iter().map(part).collect::<Option<_>>()?,
            components: Vec::new(),
            file: None,
        })
    }

    /// Builds a template of which only the file name is known.
    fn unread(name: &str, now: SystemTime) -> Self {
        let stem: String = name
            .rsplit_once('.')
            .map_or(name, |(stem, _)| stem)
            .chars()
            .take(128)
            .collect();
        Self {
            id: 0,
            key: stem.clone(),
            display: stem,
            vendor_id: "imported".to_owned(),
            vendor: "imported".to_owned(),
            version: "01.00.00".to_owned(),
            tags: String::new(),
            description: "What is in the file is not known to the sandbox".to_owned(),
            made: now,
            state: "release",
            schedule_types: "immediate,schedule,recurrence".to_owned(),
            definitions: Vec::new(),
            flow: vec![("Run".to_owned(), StepKind::Plain)],
            components: Vec::new(),
            file: None,
        }
    }
}

impl Jp1ao {
    /// Returns the number of templates that include this one.
    fn users(&self, id: u64) -> usize {
        self.templates
            .iter()
            .filter(|one| one.components.contains(&id))
            .count()
    }

    /// Returns whether no later version of the same vendor and key exists.
    pub(super) fn is_latest(&self, template: &Template) -> bool {
        let same = |one: &&Template| one.key == template.key && one.vendor_id == template.vendor_id;
        !self
            .templates
            .iter()
            .filter(same)
            .any(|one| one.version > template.version)
    }

    /// Returns the latest version of a template.
    pub(super) fn latest_of(&self, id: u64) -> Option<u64> {
        let given = self.templates.iter().find(|one| one.id == id)?;
        let same = self
            .templates
            .iter()
            .filter(|one| one.key == given.key && one.vendor_id == given.vendor_id);
        same.max_by(|a, b| a.version.cmp(&b.version))
            .map(|one| one.id)
    }

    fn template(&self, wanted: &str) -> Result<usize, ApiError> {
        let wanted = id(wanted)?;
        self.templates
            .iter()
            .position(|one| one.id == wanted)
            .ok_or(ApiError::Absent)
    }
}

pub fn all(jp1ao: &Jp1ao, call: &Call<'_>) -> Vec<Value> {
    jp1ao
        .templates
        .iter()
        .map(|template| template.show(jp1ao, call))
        .collect()
}

pub fn handle(jp1ao: &mut Jp1ao, call: &Call<'_>, rest: &[&str]) -> HandlerResult {
    // Not permitted to the Submit role. The page of the list documents no 403, so the
    // list is empty for that role (V12 2.4).
    if call.user.role < Role::Modify {
        return match (&call.request.method, rest) {
            (&Method::GET, []) => {
                list::handle(call, Vec::new(), &LIST_SCHEMA, &["usingServiceTemplateID"])
            }
            (&Method::GET, [_]) | (&Method::DELETE, [_]) => Err(ApiError::Forbidden),
            _ => Err(ApiError::Absent),
        };
    }
    match (&call.request.method, rest) {
        (&Method::GET, []) => {
            let component = call.number("usingServiceTemplateID")?;
            let wanted = |one: &&Template| component.is_none_or(|id| one.components.contains(&id));
            let shown = jp1ao
                .templates
                .iter()
                .filter(wanted)
                .map(|one| one.show(jp1ao, call))
                .collect();
            list::handle(call, shown, &LIST_SCHEMA, &["usingServiceTemplateID"])
        }
        (&Method::GET, [wanted]) => {
            call.reject_other_parameters(&[&["alt"]])?;
            let at = jp1ao.template(wanted)?;
            Ok(ok(&jp1ao.templates[at].show(jp1ao, call)))
        }
        (&Method::DELETE, [wanted]) => delete(jp1ao, call, wanted),
        (&Method::GET, [wanted, "actions"]) => {
            let at = jp1ao.template(wanted)?;
            action::listed(call, &jp1ao.templates[at].path(), ACTIONS)
        }
        (
            &Method::GET,
            [
                wanted,
                "actions",
                action @ ("export" | "detailhelp" | "bind"),
            ],
        ) => {
            let template = &jp1ao.templates[jp1ao.template(wanted)?];
            let arguments = match *action {
                "bind" => bind_arguments(template),
                _ => Vec::new(),
            };
            if *action == "export" {
                call.require_role_or_absent(Role::Develop)?;
            }
            action::shown(call, &template.path(), action, arguments)
        }
        (&Method::POST, [wanted, "actions", "bind", "invoke"]) => {
            let at = jp1ao.template(wanted)?;
            let arguments = action::arguments(call, "bind")?;
            jp1ao.bind(call, at, &arguments)
        }
        (&Method::POST, [wanted, "actions", "export", "invoke"]) => {
            call.require_role_or_absent(Role::Develop)?;
            if !call.accepts("application/octet-stream") {
                return Err(ApiError::NotAcceptable);
            }
            let template = &jp1ao.templates[jp1ao.template(wanted)?];
            action::no_arguments(call, "export")?;
            let file = template.file().ok_or(ApiError::Limit)?;
            let disposition = format!("attachment; filename=\"{}\"", template.file_name());
            let response = Response::raw(StatusCode::OK, "application/octet-stream", file);
            Ok(response.with_header("content-disposition", disposition))
        }
        _ => Err(no_function(rest, ACTIONS)),
    }
}

/// Builds the arguments of `bind`: six members of a service, and the properties.
fn bind_arguments(template: &Template) -> Vec<Value> {
    let service = json!({
        "name": "",
        "description": template.description,
        "tags": template.tags,
        "supportedScheduleType": template.schedule_types,
        "serviceState": "test",
        "serviceGroupName": super::preload::group_name(super::preload::DEFAULT_GROUP),
    });
    let properties = template
        .definitions
        .iter()
        .filter(|one| one.mode == "in" && !one.hidden);
    let properties = properties.map(|one| json!({"keyName": one.key, "value": one.default}));
    std::iter::once(service).chain(properties).collect()
}

/// The 204 has a JSON content type (docs/apis/jp1ao.md, "Quirks").
fn delete(jp1ao: &mut Jp1ao, call: &Call<'_>, wanted: &str) -> HandlerResult {
    call.reject_other_parameters(&[&["alt"]])?;
    call.require_role(Role::Develop)?;
    if let Ok(at) = jp1ao.template(wanted) {
        let id = jp1ao.templates[at].id;
        if jp1ao.users(id) > 0 || jp1ao.services.iter().any(|one| one.template == id) {
            return Err(ApiError::InUse);
        }
        jp1ao.templates.remove(at);
    }
    Ok(Response::empty(StatusCode::NO_CONTENT).with_header("content-type", "application/json"))
}

/// Serves the form and the upload (V12 2.4.5, 2.4.6).
pub fn import(jp1ao: &mut Jp1ao, call: &Call<'_>, rest: &[&str]) -> HandlerResult {
    const IMPORT_FORM: &str = "<html><body><form method=\"post\" enctype=\"multipart/form-data\" action=\"import/invoke\">\
        <input type=\"file\" name=\"file\"/><input type=\"submit\"/></form></body></html>";
    call.reject_other_parameters(&[&["alt"]])?;
    call.require_role(Role::Develop)?;
    match (&call.request.method, rest) {
        (&Method::GET, []) if !call.accepts("text/html") => Err(ApiError::NotAcceptable),
        (&Method::GET, []) => Ok(Response::raw(StatusCode::OK, "text/html", IMPORT_FORM)),
        (&Method::POST, ["invoke"]) => {
            let boundary = call
                .request
                .header("content-type")
                .and_then(multipart_and_zip::boundary);
            let boundary = boundary.ok_or(ApiError::MediaType)?;
            let file = multipart_and_zip::file(&call.request.body, boundary, "file");
            let file = file.ok_or_else(|| ApiError::body("there is no part `file` with a file"))?;
            if !(file.name.ends_with(".st") || file.name.ends_with(".zip"))
                || !multipart_and_zip::is_zip(file.bytes)
            {
                return Err(ApiError::body("the file is no .st or .zip, or is corrupt"));
            }
            let mut template = match multipart_and_zip::unzip(file.bytes, TEMPLATE_FILE_NAME) {
                Some(content) => Template::read(content, call.now)
                    .ok_or_else(|| ApiError::body("the file is corrupt"))?,
                None => Template::unread(&file.name, call.now),
            };
            template.file = Some(Bytes::copy_from_slice(file.bytes));
            let id = jp1ao.import(template)?;
            action::done(call, &[format!("objects/ServiceTemplates/{id}")])
        }
        (_, [] | ["invoke"]) => Err(ApiError::Method),
        _ => Err(ApiError::NoFunction),
    }
}

impl Jp1ao {
    /// Adds a template, replacing one of the same version.
    fn import(&mut self, mut template: Template) -> Result<u64, ApiError> {
        let same = |one: &Template| {
            one.key == template.key
                && one.vendor_id == template.vendor_id
                && one.version == template.version
        };
        let at = self.templates.iter().position(same);
        let length = |one: &Template| one.file.as_ref().map_or(0, Bytes::len);
        let kept: usize = self.templates.iter().map(length).sum();
        let full = self.templates.len() >= MAX_TEMPLATES && at.is_none();
        if full || kept + length(&template) > MAX_IMPORTED_BYTES {
            return Err(ApiError::Limit);
        }
        template.id = match at {
            Some(at) => self.templates[at].id,
            None => self.id(),
        };
        let id = template.id;
        let mut definitions = Vec::new();
        for definition in &template.definitions {
            let definition = Definition {
                id: self.part(),
                template: Some(id),
                ..(**definition).clone()
            };
            definitions.push(Arc::new(definition));
        }
        template.definitions = definitions;
        match at {
            Some(at) => self.templates[at] = template,
            None => self.templates.push(template),
        }
        Ok(id)
    }
}
