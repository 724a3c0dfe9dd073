//! Hitachi JP1/AO (Automation Director, Ops Center Automator), the complete API v1.
//!
//! Written from `docs/apis/jp1ao.md`; nothing was recorded from a real server. Numbers
//! such as V12 2.5.9 are sections of the manuals in docs/apis/jp1ao.md, "Editions".
//!
//! A call passes the checks (availability, credentials, version, accepted types), then
//! the state advances to the current time, then the module of the resource answers.
//! Behaviour that only one version or one manual page has is selected by
//! [`Jp1aoOptions`].

mod access;
mod action;
mod errors;
mod histories;
mod hql;
mod info;
mod json_layout;
mod list;
mod multipart_and_zip;
mod options;
mod preload;
mod properties;
mod schedules;
mod services;
mod start_times;
mod task_log;
mod task_run;
mod tasks;
mod templates;
mod time_format;

use std::time::{Duration, SystemTime};

use http::{Method, StatusCode};
use serde_json::{Map, Value};

use super::message::{Request, Response};
use super::{Upstreams, lock};
use access::{Role, Tokens, User};
use errors::ApiError;
use histories::History;
pub use options::{Jp1aoLinks, Jp1aoOptions, Jp1aoSubmitted, Jp1aoVersion};
use properties::Property;
use schedules::Schedule;
use services::Service;
use tasks::Task;
use templates::Template;

/// Host in every link, as in the manual's samples. It differs from the sandbox's own,
/// to detect clients that follow links.
const LINK_HOST: &str = "http://10.196.184.182";

/// Id of the first task that is submitted.
pub(super) const FIRST_TASK_ID: u64 = preload::LAST_ID + 1;

type HandlerResult = Result<Response, ApiError>;

/// State of the product. Lists are sorted by id.
pub(super) struct Jp1ao {
    options: Jp1aoOptions,
    tokens: Tokens,
    templates: Vec<Template>,
    services: Vec<Service>,
    schedules: Vec<Schedule>,
    tasks: Vec<Task>,
    histories: Vec<History>,
    /// Share properties.
    shared: Vec<Property>,
    /// Last id of a task, schedule, service, template or history, which share one
    /// sequence.
    last_id: u64,
    /// Last id of a property, step or definition.
    last_part: u64,
    /// Number of requests that are still answered as if the server were down.
    down: u32,
}

/// A request with the settings that apply to it.
struct Call<'a> {
    request: &'a Request,
    user: &'static User,
    options: Jp1aoOptions,
    now: SystemTime,
}

/// Speed of tasks.
#[derive(Clone, Copy)]
struct TaskTiming {
    /// Duration of a step of a task.
    step: Duration,
    /// Whether tasks progress by themselves.
    play: bool,
}

impl Jp1ao {
    pub fn new(options: Jp1aoOptions, preload: bool, now: SystemTime) -> Self {
        let mut jp1ao = Self {
            options,
            tokens: Tokens::new(),
            templates: Vec::new(),
            services: Vec::new(),
            schedules: Vec::new(),
            tasks: Vec::new(),
            histories: Vec::new(),
            shared: Vec::new(),
            last_id: preload::LAST_ID,
            last_part: preload::LAST_PART,
            down: 0,
        };
        preload::fill(&mut jp1ao, preload, time_format::truncate(now));
        jp1ao
    }

    /// Answers the next `requests` requests with 412.
    pub fn set_unavailable(&mut self, requests: u32) {
        self.down = requests;
    }

    /// Returns the next id of a resource.
    fn id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Returns the next id of a property, step or definition.
    fn part(&mut self) -> u64 {
        self.last_part += 1;
        self.last_part
    }
}

pub(super) fn handle(upstreams: &Upstreams, request: &Request) -> Response {
    let mut jp1ao = lock(&upstreams.jp1ao);
    let segments = request.segments();
    let ["Automation", "v1", rest @ ..] = &segments[..] else {
        return errors::not_of_the_product(&request.method);
    };
    let now = time_format::truncate(upstreams.clock.now());
    let user = jp1ao.tokens.user(request.header("authorization"), now);
    let call = Call {
        request,
        user: user.unwrap_or(access::placeholder_user()),
        options: jp1ao.options,
        now,
    };
    if jp1ao.down > 0 {
        jp1ao.down -= 1;
        return ApiError::Down
            .to_response(&call)
            .with_header("cache-control", "no-cache");
    }
    if user.is_none() {
        return ApiError::Login
            .to_response(&call)
            .with_header("cache-control", "no-cache");
    }
    jp1ao.advance(
        now,
        TaskTiming {
            step: upstreams.settings.step,
            play: upstreams.settings.play,
        },
    );
    let response = route(&mut jp1ao, &call, rest)
        .unwrap_or_else(|problem| problem.to_response(&call))
        .with_header("server", "Cosminexus HTTP Server")
        .with_header("access-control-expose-headers", "WWW-Authenticate")
        .with_header("access-control-allow-origin", "*")
        .with_header(
            "access-control-allow-methods",
            "GET, POST, DELETE, PUT, HEAD, OPTIONS",
        )
        .with_header("access-control-allow-credentials", "true")
        .with_header(
            "cache-control",
            if *rest == ["user"] {
                "no-store, no-transform"
            } else {
                "no-cache"
            },
        );
    // Not a challenge: the next token, in successful and failed responses
    // (docs/apis/jp1ao.md, "Authentication and transport").
    match jp1ao.tokens.issue(call.user, now) {
        Some(token) => response.with_header("www-authenticate", format!("HSSO {token}")),
        None => response,
    }
}

fn route(jp1ao: &mut Jp1ao, call: &Call<'_>, rest: &[&str]) -> HandlerResult {
    if call.options.version == Jp1aoVersion::V10 && !exists_in_v10(call, rest) {
        // Version 10 lacks these functions (docs/apis/jp1ao.md, "Version differences").
        return Err(ApiError::NoFunction);
    }
    let binary = matches!(rest, [.., "export", "invoke"]) || matches!(rest, [.., "import"]);
    if !binary
        && (!call.accepts("application/json") || call.request.parameter("alt") == Some("xml"))
    {
        return Err(ApiError::NotAcceptable);
    }
    if call.user.sees_nothing() && !matches!(rest, ["user"] | ["configuration", ..]) {
        return Err(ApiError::NoGroup);
    }
    match rest {
        ["user"] => info::user(call),
        ["configuration", "version"] => info::version(call),
        [
            "services",
            "ServiceTemplates",
            "actions",
            "import",
            rest @ ..,
        ] => templates::import(jp1ao, call, rest),
        ["objects", resource, rest @ ..] => match *resource {
            "ServiceTemplates" => templates::handle(jp1ao, call, rest),
            "Services" => services::handle(jp1ao, call, rest),
            "Schedules" => schedules::handle(jp1ao, call, rest),
            "Tasks" => tasks::handle(jp1ao, call, rest),
            "FlowSteps" => tasks::steps(jp1ao, call, rest),
            "TaskLogs" => tasks::logs(jp1ao, call, rest),
            "TaskHistories" => histories::handle(jp1ao, call, rest),
            "PropertyDefinitions" => properties::definitions(jp1ao, call, rest),
            "PropertyInformations" => properties::informations(jp1ao, call, rest),
            "PropertyValues" => properties::values(jp1ao, call, rest),
            "PropertyGroups" => properties::groups(jp1ao, call, rest),
            "ServiceGroups" => info::service_groups(call, rest),
            "TagGroups" => info::tag_groups(call, rest),
            "Tags" => info::tags(jp1ao, call, rest),
            _ => Err(ApiError::NoFunction),
        },
        _ => Err(ApiError::NoFunction),
    }
}

/// Returns whether version 10 has the function (docs/apis/jp1ao.md, "Functions").
fn exists_in_v10(call: &Call<'_>, rest: &[&str]) -> bool {
    let get = call.request.method == Method::GET;
    match rest {
        ["user"] | ["configuration", "version"] => true,
        ["objects", "FlowSteps" | "TaskLogs"] => true,
        ["objects", "PropertyDefinitions" | "PropertyValues"] => get,
        ["objects", "PropertyDefinitions" | "PropertyValues", _] => get,
        // Inferred: without these two there are 33 functions instead of 35.
        [
            "objects",
            "PropertyDefinitions" | "PropertyValues",
            _,
            "actions",
        ] => get,
        ["objects", "Services" | "Schedules" | "Tasks"] => true,
        ["objects", "Services" | "Schedules" | "Tasks", _] => get,
        ["objects", "Services" | "Schedules" | "Tasks", _, "actions"] => get,
        ["objects", "Services", _, "actions", action, ..] => *action == "submit",
        ["objects", "Schedules", _, "actions", ..] => true,
        ["objects", "Tasks", _, "actions", action, ..] => {
            ["stop", "resubmit", "rerunStart", "rerunStepStart"].contains(action)
        }
        _ => false,
    }
}

impl Call<'_> {
    /// Returns the URL in responses for a path of the API.
    fn link(&self, path: &str) -> String {
        let port = match self.options.links {
            Jp1aoLinks::Portless => ":",
            Jp1aoLinks::Spaced | Jp1aoLinks::Plain => ":22015",
        };
        format!("{LINK_HOST}{port}/Automation/v1/{path}")
    }

    fn time(&self, at: SystemTime) -> String {
        time_format::format(at, self.options.compact_offsets)
    }

    /// Formats a time, or null.
    fn time_or_null(&self, at: Option<SystemTime>) -> Value {
        at.map_or(Value::Null, |at| self.time(at).into())
    }

    fn japanese(&self) -> bool {
        let wanted = self.request.header("accept-language").unwrap_or_default();
        wanted
            .trim_start()
            .get(..2)
            .is_some_and(|tag| tag.eq_ignore_ascii_case("ja"))
    }

    /// Returns whether the `accept` header permits this type; it does if missing.
    fn accepts(&self, kind: &str) -> bool {
        let Some(accept) = self.request.header("accept") else {
            return true;
        };
        let family = kind.split('/').next().unwrap_or_default();
        accept
            .split(',')
            .map(|part| part.split(';').next().unwrap_or_default().trim())
            .any(|part| part == kind || part == "*/*" || part.strip_suffix("/*") == Some(family))
    }

    /// Rejects all other query parameters.
    fn reject_other_parameters(&self, allowed: &[&[&str]]) -> Result<(), ApiError> {
        let known = |name: &str| allowed.iter().any(|names| names.contains(&name));
        match self.request.query.iter().find(|(name, _)| !known(name)) {
            Some((name, _)) => Err(ApiError::Query(name.clone())),
            None => Ok(()),
        }
    }

    /// Parses a numeric query parameter.
    fn number(&self, name: &str) -> Result<Option<u64>, ApiError> {
        let given = self.request.parameter(name).map(str::parse);
        given
            .transpose()
            .map_err(|_| ApiError::Query(name.to_owned()))
    }

    /// Parses the body as a JSON object.
    fn body(&self) -> Result<Map<String, Value>, ApiError> {
        let kind = self.request.header("content-type").unwrap_or_default();
        if kind.contains("xml") {
            return Err(ApiError::Xml);
        }
        self.request
            .object()
            .ok_or_else(|| ApiError::body("it is no JSON object"))
    }

    /// Rejects users below this role.
    fn require_role(&self, role: Role) -> Result<(), ApiError> {
        (self.user.role >= role)
            .then_some(())
            .ok_or(ApiError::Forbidden)
    }

    /// Like `needs`, for functions whose pages document no 403: they return 404
    /// (docs/apis/jp1ao.md, "Error codes").
    fn require_role_or_absent(&self, role: Role) -> Result<(), ApiError> {
        self.require_role(role).map_err(|_| ApiError::Absent)
    }
}

/// Parses the id in a path.
fn id(text: &str) -> Result<u64, ApiError> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain
        .then(|| text.parse().ok())
        .flatten()
        .ok_or(ApiError::Absent)
}

/// Error for a path of no function.
fn no_function(rest: &[&str], actions: &[&str]) -> ApiError {
    match rest {
        [] | [_] | [_, "actions"] => ApiError::Method,
        [_, "actions", action] | [_, "actions", action, "invoke"] if actions.contains(action) => {
            ApiError::Method
        }
        _ => ApiError::NoFunction,
    }
}

fn ok(body: &Value) -> Response {
    json(StatusCode::OK, body)
}

fn json(status: StatusCode, body: &Value) -> Response {
    Response::raw(status, "application/json", json_layout::print(body))
}

/// Reads an optional text member of a body, with at most `most` characters.
fn text(body: &Map<String, Value>, name: &str, most: usize) -> Result<Option<String>, ApiError> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.chars().count() <= most => Ok(Some(text.clone())),
        Some(Value::String(_)) => Err(ApiError::body(format!(
            "{name} has more than {most} characters"
        ))),
        Some(_) => Err(ApiError::body(format!("{name} is no text"))),
    }
}

/// Reads an optional boolean member of a body.
fn boolean(body: &Map<String, Value>, name: &str) -> Result<Option<bool>, ApiError> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(given)) => Ok(Some(*given)),
        Some(_) => Err(ApiError::body(format!("{name} is not true or false"))),
    }
}

#[cfg(test)]
mod tests;
