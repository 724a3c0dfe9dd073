//! Service templates, which services are created from, with import and export as files
//! (V12 2.4).

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::access::Role;
use super::errors::Problem;
use super::list::{self, Kind, Shape, csv};
use super::properties::Definition;
use super::task_run::Work;
use super::{Call, Jp1ao, Jp1aoVersion, Outcome, action, id, multipart_and_zip, no_function, ok};
use crate::message::Answer;

/// Maximum number of templates.
const MAX_TEMPLATES: usize = 100;
/// Maximum size of all imported files.
const MAX_FILES: usize = 64 << 20;
/// Maximum number of steps, and of properties, of an imported template.
const MAX_PARTS: usize = 100;
/// Name of the JSON file in an exported archive.
const INNER: &str = "template.json";

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
    pub flow: Vec<(String, Work)>,
    /// Templates that it includes.
    pub components: Vec<u64>,
    /// Imported file.
    pub file: Option<Bytes>,
}

pub const SHAPE: Shape = Shape {
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
        if call.rules.version == Jp1aoVersion::V12 {
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
        let step = |(name, work): &(String, Work)| match work {
            Work::Plain => json!({"name": name, "work": "plain"}),
            Work::Long => json!({"name": name, "work": "long"}),
            Work::Ask { question, buttons } => {
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
        multipart_and_zip::zip(INNER, content.to_string().as_bytes()).map(Bytes::from)
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
                "plain" => Work::Plain,
                "long" => Work::Long,
                "ask" => Work::Ask {
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
                .filter(|parts| parts.len() <= MAX_PARTS)
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
            flow: vec![("Run".to_owned(), Work::Plain)],
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

    fn template(&self, wanted: &str) -> Result<usize, Problem> {
        let wanted = id(wanted)?;
        self.templates
            .iter()
            .position(|one| one.id == wanted)
            .ok_or(Problem::Absent)
    }
}

pub fn all(jp1ao: &Jp1ao, call: &Call<'_>) -> Vec<Value> {
    jp1ao
        .templates
        .iter()
        .map(|template| template.show(jp1ao, call))
        .collect()
}

pub fn answer(jp1ao: &mut Jp1ao, call: &Call<'_>, rest: &[&str]) -> Outcome {
    // Not permitted to the Submit role. The page of the list documents no 403, so the
    // list is empty for that role (V12 2.4).
    if call.user.role < Role::Modify {
        return match (&call.ask.method, rest) {
            (&Method::GET, []) => {
                list::answer(call, Vec::new(), &SHAPE, &["usingServiceTemplateID"])
            }
            (&Method::GET, [_]) | (&Method::DELETE, [_]) => Err(Problem::Forbidden),
            _ => Err(Problem::Absent),
        };
    }
    match (&call.ask.method, rest) {
        (&Method::GET, []) => {
            let component = call.number("usingServiceTemplateID")?;
            let wanted = |one: &&Template| component.is_none_or(|id| one.components.contains(&id));
            let shown = jp1ao
                .templates
                .iter()
                .filter(wanted)
                .map(|one| one.show(jp1ao, call))
                .collect();
            list::answer(call, shown, &SHAPE, &["usingServiceTemplateID"])
        }
        (&Method::GET, [wanted]) => {
            call.only(&[&["alt"]])?;
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
                call.needs_or_absent(Role::Develop)?;
            }
            action::shown(call, &template.path(), action, arguments)
        }
        (&Method::POST, [wanted, "actions", "bind", "invoke"]) => {
            let at = jp1ao.template(wanted)?;
            let arguments = action::arguments(call, "bind")?;
            jp1ao.bind(call, at, &arguments)
        }
        (&Method::POST, [wanted, "actions", "export", "invoke"]) => {
            call.needs_or_absent(Role::Develop)?;
            if !call.accepts("application/octet-stream") {
                return Err(Problem::NotAcceptable);
            }
            let template = &jp1ao.templates[jp1ao.template(wanted)?];
            action::no_arguments(call, "export")?;
            let file = template.file().ok_or(Problem::Limit)?;
            let disposition = format!("attachment; filename=\"{}\"", template.file_name());
            let answer = Answer::raw(StatusCode::OK, "application/octet-stream", file);
            Ok(answer.with("content-disposition", disposition))
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
fn delete(jp1ao: &mut Jp1ao, call: &Call<'_>, wanted: &str) -> Outcome {
    call.only(&[&["alt"]])?;
    call.needs(Role::Develop)?;
    if let Ok(at) = jp1ao.template(wanted) {
        let id = jp1ao.templates[at].id;
        if jp1ao.users(id) > 0 || jp1ao.services.iter().any(|one| one.template == id) {
            return Err(Problem::InUse);
        }
        jp1ao.templates.remove(at);
    }
    Ok(Answer::empty(StatusCode::NO_CONTENT).with("content-type", "application/json"))
}

/// Serves the form and the upload (V12 2.4.5, 2.4.6).
pub fn import(jp1ao: &mut Jp1ao, call: &Call<'_>, rest: &[&str]) -> Outcome {
    const FORM: &str = "<html><body><form method=\"post\" enctype=\"multipart/form-data\" action=\"import/invoke\">\
        <input type=\"file\" name=\"file\"/><input type=\"submit\"/></form></body></html>";
    call.only(&[&["alt"]])?;
    call.needs(Role::Develop)?;
    match (&call.ask.method, rest) {
        (&Method::GET, []) if !call.accepts("text/html") => Err(Problem::NotAcceptable),
        (&Method::GET, []) => Ok(Answer::raw(StatusCode::OK, "text/html", FORM)),
        (&Method::POST, ["invoke"]) => {
            let boundary = call
                .ask
                .header("content-type")
                .and_then(multipart_and_zip::boundary);
            let boundary = boundary.ok_or(Problem::MediaType)?;
            let file = multipart_and_zip::file(&call.ask.body, boundary, "file");
            let file = file.ok_or_else(|| Problem::body("there is no part `file` with a file"))?;
            if !(file.name.ends_with(".st") || file.name.ends_with(".zip"))
                || !multipart_and_zip::is_zip(file.bytes)
            {
                return Err(Problem::body("the file is no .st or .zip, or is corrupt"));
            }
            let mut template = match multipart_and_zip::unzip(file.bytes, INNER) {
                Some(content) => Template::read(content, call.now)
                    .ok_or_else(|| Problem::body("the file is corrupt"))?,
                None => Template::unread(&file.name, call.now),
            };
            template.file = Some(Bytes::copy_from_slice(file.bytes));
            let id = jp1ao.import(template)?;
            action::done(call, &[format!("objects/ServiceTemplates/{id}")])
        }
        (_, [] | ["invoke"]) => Err(Problem::Method),
        _ => Err(Problem::NoFunction),
    }
}

impl Jp1ao {
    /// Adds a template, replacing one of the same version.
    fn import(&mut self, mut template: Template) -> Result<u64, Problem> {
        let same = |one: &Template| {
            one.key == template.key
                && one.vendor_id == template.vendor_id
                && one.version == template.version
        };
        let at = self.templates.iter().position(same);
        let length = |one: &Template| one.file.as_ref().map_or(0, Bytes::len);
        let kept: usize = self.templates.iter().map(length).sum();
        let full = self.templates.len() >= MAX_TEMPLATES && at.is_none();
        if full || kept + length(&template) > MAX_FILES {
            return Err(Problem::Limit);
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
