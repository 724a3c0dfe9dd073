//! OpenStack Heat: the way of a request down to its noun.
//!
//! Recorded from Heat 27.0.1: `fixtures/heat/`, and `OBSERVED.md`, which is meant
//! by "observed" below.

mod configs;
mod deployments;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::plain::{Answer, Ask, seconds};
use super::{Clock, PROJECT_ID, SERVER_ID, Settings, World, keystone, lock, python};
use configs::Config;
use deployments::Deployment;

/// `max_json_body_size`; longer bodies are 400, never 413 (observed).
const MAX_JSON: usize = 1 << 20;
/// Configs, and deployments, of one project (heat.md 2.10: Heat >= 22).
const QUOTA: usize = 4096;

const MALFORMED: &str = "The server could not comply with the request since it is either malformed or otherwise incorrect.";

/// What Heat keeps. Oldest first.
pub(super) struct Heat {
    configs: Vec<Config>,
    deployments: Vec<Deployment>,
}

impl Heat {
    pub fn new(preload: bool, clock: &Clock) -> Self {
        let mut heat = Self {
            configs: Vec::new(),
            deployments: Vec::new(),
        };
        if preload {
            let made = seconds(clock.now());
            heat.configs.push(Config::sample(PROJECT_ID, &made));
            heat.deployments
                .push(Deployment::sample(PROJECT_ID, SERVER_ID, &made));
        }
        heat
    }
}

/// The endpoint of a project, as in the catalog.
pub(super) fn endpoint(base: &str, project: &str) -> String {
    format!("{base}/v1/{project}")
}

pub(super) fn answer(world: &World, ask: &Ask) -> Answer {
    let answer = match ask.segments()[..] {
        ["healthcheck"] => Answer::ok(json!({"detailed": false, "reasons": []})),
        ["v1" | "v1.0", ref rest @ ..] => {
            authenticated(world, ask, rest).unwrap_or_else(|refused| refused)
        }
        // Observed: `/` and any unknown version, without a token.
        _ => versions(world),
    };
    answer.with("x-openstack-request-id", format!("req-{}", Uuid::new_v4()))
}

fn versions(world: &World) -> Answer {
    let links = json!([{"rel": "self", "href": format!("{}/v1/", world.base)}]);
    let versions = json!({"versions": [{"id": "v1.0", "status": "CURRENT", "links": links}]});
    Answer::json(StatusCode::MULTIPLE_CHOICES, versions)
}

/// What an operation gets to work on.
struct Context<'a> {
    project: &'a str,
    /// The id at the end of the path; empty for a collection.
    id: &'a str,
    ask: &'a Ask,
    body: Option<Value>,
    settings: &'a Settings,
    /// The time of the request, as Heat prints it.
    now: String,
    elapsed: Instant,
}

impl Context<'_> {
    /// The body; without one Heat answers the generic sentence (observed).
    fn body(&self) -> Result<&Value, Answer> {
        self.body.as_ref().ok_or_else(malformed)
    }
}

/// An operation: its name in Heat's policy, whether a reader may do it, its code.
struct Operation {
    policy: &'static str,
    read: bool,
    run: fn(&mut Heat, &Context) -> Result<Answer, Answer>,
}

const fn read(
    policy: &'static str,
    run: fn(&mut Heat, &Context) -> Result<Answer, Answer>,
) -> Operation {
    Operation {
        policy,
        read: true,
        run,
    }
}

const fn write(
    policy: &'static str,
    run: fn(&mut Heat, &Context) -> Result<Answer, Answer>,
) -> Operation {
    Operation {
        policy,
        read: false,
        run,
    }
}

/// The order of the checks is Heat's: token, route, body, project, policy.
fn authenticated(world: &World, ask: &Ask, rest: &[&str]) -> Result<Answer, Answer> {
    let token = keystone::token(world, ask).ok_or_else(|| keystone::middleware_refusal(world))?;
    let &[project, noun, ref rest @ ..] = rest else {
        return Err(no_route());
    };
    let operation = route(&ask.method, noun, rest)?;
    let body = json_body(ask)?;
    // Observed: another project in the path is 403, never 404; unscoped tokens too.
    if token.project.is_none_or(|own| own.id != project) {
        return Err(fault(
            StatusCode::FORBIDDEN,
            "HTTPForbidden",
            Some(ACCESS_DENIED),
        ));
    }
    if !operation.read && !token.may_write() {
        return Err(forbidden(operation.policy));
    }
    if noun == "stacks" && !operation.read && token.by_application_credential() {
        // Observed: Heat makes a trust for a stack, which such tokens may not.
        return Err(fault(
            StatusCode::INTERNAL_SERVER_ERROR,
            "RemoteError",
            None,
        ));
    }
    let context = Context {
        project,
        id: rest.last().copied().unwrap_or_default(),
        ask,
        body,
        settings: &world.settings,
        now: seconds(world.clock.now()),
        elapsed: Instant::now(),
    };
    (operation.run)(&mut lock(&world.heat), &context)
}

fn route(method: &Method, noun: &str, rest: &[&str]) -> Result<Operation, Answer> {
    // A slash at the end is no route (observed).
    if rest.contains(&"") {
        return Err(no_route());
    }
    let (operation, allowed) = match (noun, rest) {
        ("software_configs", []) => (
            match *method {
                Method::GET => Some(read("software_configs:index", configs::list)),
                Method::POST => Some(write("software_configs:create", configs::create)),
                _ => None,
            },
            "GET,POST",
        ),
        ("software_configs", [_]) => (
            match *method {
                Method::GET => Some(read("software_configs:show", configs::show)),
                Method::DELETE => Some(write("software_configs:delete", configs::delete)),
                _ => None,
            },
            "GET,DELETE",
        ),
        ("software_deployments", []) => (
            match *method {
                Method::GET => Some(read("software_deployments:index", deployments::list)),
                Method::POST => Some(write("software_deployments:create", deployments::create)),
                _ => None,
            },
            "GET,POST",
        ),
        ("software_deployments", ["metadata", _]) => (
            match *method {
                Method::GET => Some(read("software_deployments:metadata", deployments::metadata)),
                _ => None,
            },
            "GET",
        ),
        ("software_deployments", [_]) => (
            match *method {
                Method::GET => Some(read("software_deployments:show", deployments::show)),
                Method::PUT => Some(write("software_deployments:update", deployments::update)),
                Method::DELETE => Some(write("software_deployments:delete", deployments::delete)),
                _ => None,
            },
            "GET,PUT,DELETE",
        ),
        // There are no stacks in the sandbox yet: none to list, and none to make.
        ("stacks", []) => (
            match *method {
                Method::GET => Some(read("stacks:index", |_, _| {
                    Ok(Answer::ok(json!({"stacks": []})))
                })),
                Method::POST => Some(write("stacks:create", |_, _| Err(no_route()))),
                _ => None,
            },
            "GET,POST",
        ),
        _ => return Err(no_route()),
    };
    match (operation, method) {
        (Some(operation), _) => Ok(operation),
        (None, &Method::OPTIONS) => {
            Err(Answer::empty(StatusCode::NO_CONTENT).with("allow", allowed))
        }
        // Without `Allow`; HEAD as well (observed).
        (None, _) => Err(fault(
            StatusCode::METHOD_NOT_ALLOWED,
            "HTTPMethodNotAllowed",
            Some(MALFORMED),
        )),
    }
}

/// The body, whatever its Content-Type (observed). What does not begin with `{`,
/// or came without a Content-Length, is no body at all for Heat.
fn json_body(ask: &Ask) -> Result<Option<Value>, Answer> {
    if !ask.headers.contains_key("content-length") || !ask.body.starts_with(b"{") {
        return Ok(None);
    }
    if ask.body.len() > MAX_JSON {
        return Err(limit_exceeded(&format!(
            "JSON body size ({} bytes) exceeds maximum allowed size ({MAX_JSON} bytes).",
            ask.body.len()
        )));
    }
    serde_json::from_slice(&ask.body).map(Some).map_err(|_| {
        let text = String::from_utf8_lossy(&ask.body);
        let message = python::complaint(&text);
        bad_request(message.as_deref().unwrap_or(MALFORMED))
    })
}

const ACCESS_DENIED: &str = "Access was denied to this resource.";

/// Heat's own errors: shape 1 of OBSERVED.md. No message: the exception is not
/// one that Heat deems safe to show.
fn fault(status: StatusCode, kind: &str, message: Option<&str>) -> Answer {
    let explanation = match status.as_u16() {
        403 => ACCESS_DENIED,
        404 => "The resource could not be found.",
        500 => "The server has either erred or is incapable of performing the requested operation.",
        _ => MALFORMED,
    };
    let mut error = json!({"type": kind, "traceback": null});
    if let Some(message) = message {
        error["message"] = json!(message);
    }
    let title = status.canonical_reason().unwrap_or_default();
    Answer::json(
        status,
        json!({"code": status.as_u16(), "title": title, "explanation": explanation, "error": error}),
    )
}

fn malformed() -> Answer {
    bad_request(MALFORMED)
}

fn bad_request(message: &str) -> Answer {
    fault(StatusCode::BAD_REQUEST, "HTTPBadRequest", Some(message))
}

fn limit_exceeded(message: &str) -> Answer {
    let message = format!("Request limit exceeded: {message}");
    fault(
        StatusCode::BAD_REQUEST,
        "RequestLimitExceeded",
        Some(&message),
    )
}

/// Python's `ValueError`, never shown.
fn value_error() -> Answer {
    fault(StatusCode::BAD_REQUEST, "ValueError", None)
}

/// An engine's failure that Heat does not show.
fn remote_error() -> Answer {
    fault(StatusCode::INTERNAL_SERVER_ERROR, "RemoteError", None)
}

fn not_found(what: &str, id: &str) -> Answer {
    let message = format!("{what} with id {id} not found");
    fault(StatusCode::NOT_FOUND, "NotFound", Some(&message))
}

fn forbidden(policy: &str) -> Answer {
    let message = format!("You are not authorized to use {policy}.");
    fault(StatusCode::FORBIDDEN, "Forbidden", Some(&message))
}

/// The router's 404: shape 3 of OBSERVED.md.
fn no_route() -> Answer {
    Answer::json(
        StatusCode::NOT_FOUND,
        json!({
            "message": "The resource could not be found.<br /><br />\n\n\n",
            "code": "404 Not Found",
            "title": "Not Found",
        }),
    )
}

/// Whether Python holds this value for false: Heat skips such members.
fn falsy(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
    }
}

/// A value in a text column, as it is read back: 5 becomes "5" (observed for a
/// config's name). The database refuses lists and objects.
fn column(value: &Value) -> Result<Value, Answer> {
    match value {
        Value::Null | Value::String(_) => Ok(value.clone()),
        Value::Bool(value) => Ok(json!(u8::from(*value).to_string())),
        Value::Number(number) => Ok(json!(number.to_string())),
        Value::Array(_) | Value::Object(_) => Err(remote_error()),
    }
}
