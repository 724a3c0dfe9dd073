//! OpenStack Heat: routing of a request to the module of its resource.
//!
//! Recorded from Heat 27.0.1: `tests/fixtures/heat/` and `tests/real-heat/OBSERVED.md`.
//! "Observed" in comments below refers to these.

mod engine;
mod events;
mod functions;
mod meta;
mod parameters;
mod pattern;
mod resource_plugins;
mod resource_types;
mod resources;
mod snapshots;
mod software_configs;
mod software_deployments;
mod stack;
mod stack_request;
mod stacks;
mod template;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::message::{Request, Response, seconds};
use super::{
    Clock, PROJECT_ID, SERVER_ID, Settings, USERNAME, Upstreams, keystone, lock, python_json,
};
use engine::Now;
use software_configs::Config;
use software_deployments::Deployment;
use stack::{Stack, Stacks};

/// `max_json_body_size`; larger bodies are 400, never 413 (observed).
const MAX_JSON_BYTES: usize = 1 << 20;
/// Maximum number of software configs, and of deployments, of a project
/// (docs/apis/heat.md, "Software configs": Heat >= 22).
const MAX_CONFIGS_OR_DEPLOYMENTS: usize = 4096;

const MALFORMED: &str = "The server could not comply with the request since it is either malformed or otherwise incorrect.";

/// State of Heat. Lists are oldest first.
pub(super) struct Heat {
    configs: Vec<Config>,
    deployments: Vec<Deployment>,
    stacks: Stacks,
}

impl Heat {
    pub fn new(preload: bool, clock: &Clock) -> Self {
        let mut heat = Self {
            configs: Vec::new(),
            deployments: Vec::new(),
            stacks: Stacks::default(),
        };
        if preload {
            let made = seconds(clock.now());
            heat.configs.push(Config::preloaded(PROJECT_ID, &made));
            heat.deployments
                .push(Deployment::preloaded(PROJECT_ID, SERVER_ID, &made));
        }
        heat
    }
}

impl Heat {
    /// Adds complete stacks without resources.
    pub fn seed(&mut self, stacks: usize, events: usize, clock: &Clock, settings: &Settings) {
        let now = Now::new(clock.instant(), clock, settings);
        let seeded = |stack: &&Stack| stack.name.starts_with("seeded-");
        let first = self.stacks.all().filter(seeded).count();
        for index in first..first + stacks {
            let mut stack = Stack::new(PROJECT_ID, &format!("seeded-{index}"), USERNAME, &now);
            stack.seed(events.min(settings.events_kept), &now);
            self.stacks.add(stack);
        }
    }
}

/// Returns the endpoint of a project, as in the catalog.
pub(super) fn endpoint(base: &str, project: &str) -> String {
    format!("{base}/v1/{project}")
}

pub(super) fn handle(upstreams: &Upstreams, request: &Request) -> Response {
    let response = match request.segments()[..] {
        ["healthcheck"] => Response::ok(json!({"detailed": false, "reasons": []})),
        ["v1" | "v1.0", ref rest @ ..] => {
            authenticated(upstreams, request, rest).unwrap_or_else(|refused| refused)
        }
        // Observed: `/` and any unknown version, without a token.
        _ => versions(upstreams),
    };
    response.with_header("x-openstack-request-id", format!("req-{}", Uuid::new_v4()))
}

fn versions(upstreams: &Upstreams) -> Response {
    let links = json!([{"rel": "self", "href": format!("{}/v1/", upstreams.base)}]);
    let versions = json!({"versions": [{"id": "v1.0", "status": "CURRENT", "links": links}]});
    Response::json(StatusCode::MULTIPLE_CHOICES, versions)
}

/// Arguments of an operation.
struct Context<'a> {
    project: &'a str,
    /// Name of the user.
    user: &'a str,
    /// Whether the user's role permits writing.
    may_write: bool,
    /// Path segments after the resource name.
    rest: &'a [&'a str],
    /// `http://host:port`.
    base: &'a str,
    request: &'a Request,
    body: Option<Value>,
    settings: &'a Settings,
    now: Now<'a>,
}

impl<'a> Context<'a> {
    /// Returns the body; without one Heat returns the generic message (observed).
    fn body(&self) -> Result<&Value, Response> {
        self.body.as_ref().ok_or_else(malformed)
    }

    /// Returns a path segment after the resource name, or an empty string.
    fn segment(&self, index: usize) -> &'a str {
        self.rest.get(index).copied().unwrap_or_default()
    }

    /// Returns the last path segment; empty for a collection.
    fn id(&self) -> &'a str {
        self.rest.last().copied().unwrap_or_default()
    }

    /// Returns all non-empty values of a query parameter.
    fn all(&self, name: &str) -> Vec<&'a str> {
        let found = self.request.query.iter().filter(|(key, _)| key == name);
        found
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
            .collect()
    }
}

/// An operation: its name in Heat's policy, whether a reader may call it, its handler.
struct Operation {
    policy: &'static str,
    read: bool,
    run: fn(&mut Heat, &Context) -> Result<Response, Response>,
}

const fn read(
    policy: &'static str,
    run: fn(&mut Heat, &Context) -> Result<Response, Response>,
) -> Operation {
    Operation {
        policy,
        read: true,
        run,
    }
}

const fn write(
    policy: &'static str,
    run: fn(&mut Heat, &Context) -> Result<Response, Response>,
) -> Operation {
    Operation {
        policy,
        read: false,
        run,
    }
}

/// Checks in the order of Heat: token, route, body, project, policy.
fn authenticated(
    upstreams: &Upstreams,
    request: &Request,
    rest: &[&str],
) -> Result<Response, Response> {
    let token = keystone::token(upstreams, request)
        .ok_or_else(|| keystone::invalid_token_response(upstreams))?;
    let &[project, noun, ref rest @ ..] = rest else {
        return Err(no_route());
    };
    let operation = route(&request.method, noun, rest)?;
    let body = json_body(request)?;
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
        // Observed: Heat creates a trust for a stack, which these tokens do not permit.
        return Err(fault(
            StatusCode::INTERNAL_SERVER_ERROR,
            "RemoteError",
            None,
        ));
    }
    let context = Context {
        project,
        user: token.user.name,
        may_write: token.may_write(),
        rest,
        base: &upstreams.base,
        request,
        body,
        settings: &upstreams.settings,
        now: Now::new(
            upstreams.clock.instant(),
            &upstreams.clock,
            &upstreams.settings,
        ),
    };
    let mut heat = lock(&upstreams.heat);
    engine::advance(
        &mut heat,
        context.now.at,
        &upstreams.clock,
        &upstreams.settings,
    );
    (operation.run)(&mut heat, &context)
}

/// Returns the operations of a path, in the order of `Allow`.
fn operations(noun: &str, rest: &[&str]) -> Vec<(Method, Operation)> {
    const GET: Method = Method::GET;
    const POST: Method = Method::POST;
    const PUT: Method = Method::PUT;
    const DELETE: Method = Method::DELETE;
    match (noun, rest) {
        ("build_info", []) => vec![(GET, read("build_info:build_info", meta::build_info))],
        ("services", []) => vec![(GET, read("service:index", meta::services))],
        ("template_versions", []) => {
            vec![(GET, read("stacks:list_template_versions", meta::versions))]
        }
        ("template_versions", [_, "functions"]) => {
            vec![(GET, read("stacks:list_template_functions", meta::functions))]
        }
        ("resource_types", []) => vec![(
            GET,
            read("stacks:list_resource_types", resource_types::list),
        )],
        ("resource_types", [_]) => {
            vec![(GET, read("stacks:resource_schema", resource_types::show))]
        }
        ("resource_types", [_, "template"]) => {
            vec![(
                GET,
                write("stacks:generate_template", resource_types::template),
            )]
        }
        ("validate", []) => vec![(
            POST,
            write("stacks:validate_template", stack_request::validate),
        )],
        ("software_configs", []) => vec![
            (GET, read("software_configs:index", software_configs::list)),
            (
                POST,
                write("software_configs:create", software_configs::create),
            ),
        ],
        ("software_configs", [_]) => vec![
            (GET, read("software_configs:show", software_configs::show)),
            (
                DELETE,
                write("software_configs:delete", software_configs::delete),
            ),
        ],
        ("software_deployments", []) => vec![
            (
                GET,
                read("software_deployments:index", software_deployments::list),
            ),
            (
                POST,
                write("software_deployments:create", software_deployments::create),
            ),
        ],
        ("software_deployments", ["metadata", _]) => {
            vec![(
                GET,
                read(
                    "software_deployments:metadata",
                    software_deployments::metadata,
                ),
            )]
        }
        ("software_deployments", [_]) => vec![
            (
                GET,
                read("software_deployments:show", software_deployments::show),
            ),
            (
                PUT,
                write("software_deployments:update", software_deployments::update),
            ),
            (
                DELETE,
                write("software_deployments:delete", software_deployments::delete),
            ),
        ],
        ("stacks", rest) => stack_operations(rest),
        _ => Vec::new(),
    }
}

fn stack_operations(rest: &[&str]) -> Vec<(Method, Operation)> {
    const GET: Method = Method::GET;
    const POST: Method = Method::POST;
    const PUT: Method = Method::PUT;
    const PATCH: Method = Method::PATCH;
    const DELETE: Method = Method::DELETE;
    let lookup = |methods: &[Method]| -> Vec<(Method, Operation)> {
        let find = |method: &Method| (method.clone(), read("stacks:lookup", stacks::find));
        methods.iter().map(find).collect()
    };
    match rest {
        [] => vec![
            (GET, read("stacks:index", stacks::list)),
            (POST, write("stacks:create", stacks::create)),
        ],
        ["preview"] => {
            let mut all = vec![(POST, read("stacks:preview", stacks::preview))];
            all.extend(lookup(&[GET, PUT, PATCH, DELETE]));
            all
        }
        ["detail"] => vec![(GET, read("stacks:detail", stacks::detail))],
        [_] => lookup(&[GET, POST, PUT, PATCH, DELETE]),
        [arn, _, _, ..] if arn.starts_with("arn:") => lookup(&[GET, POST, PUT, PATCH, DELETE]),
        [_, "resources" | "events" | "template" | "actions"] => lookup(&[GET, POST]),
        [_, "environment" | "files"] => lookup(&[GET]),
        [_, _] => vec![
            (GET, read("stacks:show", stacks::show)),
            (PUT, write("stacks:update", stacks::update)),
            (PATCH, write("stacks:update_patch", stacks::patch)),
            (DELETE, write("stacks:delete", stacks::delete)),
        ],
        [_, _, "preview"] => vec![
            (PUT, write("stacks:preview_update", stacks::preview_update)),
            (
                PATCH,
                write("stacks:preview_update_patch", stacks::preview_patch),
            ),
        ],
        [_, _, "abandon"] => vec![(DELETE, write("stacks:abandon", snapshots::abandon))],
        [_, _, "export"] => vec![(GET, write("stacks:export", snapshots::export))],
        [_, _, "template"] => vec![(GET, read("stacks:template", stacks::template))],
        [_, _, "environment"] => vec![(GET, read("stacks:environment", stacks::environment))],
        [_, _, "files"] => vec![(GET, read("stacks:files", stacks::files))],
        [_, _, "outputs"] => vec![(GET, read("stacks:list_outputs", stacks::outputs))],
        [_, _, "outputs", _] => vec![(GET, read("stacks:show_output", stacks::output))],
        // The required permission depends on the body.
        [_, _, "actions"] => vec![(POST, read("actions:action", stacks::action))],
        [_, _, "snapshots"] => vec![
            (GET, read("stacks:list_snapshots", snapshots::list)),
            (POST, write("stacks:snapshot", snapshots::create)),
        ],
        [_, _, "snapshots", _] => vec![
            (GET, read("stacks:show_snapshot", snapshots::show)),
            (DELETE, write("stacks:delete_snapshot", snapshots::delete)),
        ],
        [_, _, "snapshots", _, "restore"] => {
            vec![(POST, write("stacks:restore_snapshot", snapshots::restore))]
        }
        [_, _, "events"] | [_, _, "resources", _, "events"] => {
            vec![(GET, read("events:index", events::list))]
        }
        [_, _, "resources", _, "events", _] => vec![(GET, read("events:show", events::show))],
        [_, _, "resources"] => vec![(GET, read("resource:index", resources::list))],
        [_, _, "resources", _] => vec![
            (GET, read("resource:show", resources::show)),
            (PATCH, write("resource:mark_unhealthy", resources::mark)),
        ],
        [_, _, "resources", _, "metadata"] => {
            vec![(GET, read("resource:metadata", resources::metadata))]
        }
        [_, _, "resources", _, "signal"] => {
            vec![(POST, read("resource:signal", resources::signal))]
        }
        _ => Vec::new(),
    }
}

fn route(method: &Method, noun: &str, rest: &[&str]) -> Result<Operation, Response> {
    // Observed: a trailing slash is an unknown route.
    if rest.contains(&"") {
        return Err(no_route());
    }
    let operations = operations(noun, rest);
    if operations.is_empty() {
        return Err(no_route());
    }
    if method == Method::OPTIONS {
        let allowed: Vec<&str> = operations
            .iter()
            .map(|(method, _)| method.as_str())
            .collect();
        return Err(Response::empty(StatusCode::NO_CONTENT).with_header("allow", allowed.join(",")));
    }
    let mut operations = operations.into_iter();
    // Observed: without `Allow`; the same for HEAD.
    operations
        .find(|(known, _)| known == method)
        .map(|(_, operation)| operation)
        .ok_or_else(|| {
            let status = StatusCode::METHOD_NOT_ALLOWED;
            fault(status, "HTTPMethodNotAllowed", Some(MALFORMED))
        })
}

/// Parses the body, whatever its Content-Type (observed). Heat ignores a body that does
/// not begin with `{` or has no Content-Length.
fn json_body(request: &Request) -> Result<Option<Value>, Response> {
    if !request.headers.contains_key("content-length") || !request.body.starts_with(b"{") {
        return Ok(None);
    }
    if request.body.len() > MAX_JSON_BYTES {
        return Err(limit_exceeded(&format!(
            "JSON body size ({} bytes) exceeds maximum allowed size ({MAX_JSON_BYTES} bytes).",
            request.body.len()
        )));
    }
    serde_json::from_slice(&request.body)
        .map(Some)
        .map_err(|_| {
            let text = String::from_utf8_lossy(&request.body);
            let message = python_json::json_error(&text);
            bad_request(message.as_deref().unwrap_or(MALFORMED))
        })
}

const ACCESS_DENIED: &str = "Access was denied to this resource.";

/// Heat's own errors: the first of tests/real-heat/OBSERVED.md, "Error bodies: three
/// shapes". The message is missing if Heat does not consider the exception safe to
/// show.
fn fault(status: StatusCode, kind: &str, message: Option<&str>) -> Response {
    let explanation = match status.as_u16() {
        403 => ACCESS_DENIED,
        409 => "There was a conflict when trying to complete your request.",
        404 => "The resource could not be found.",
        500 => "The server has either erred or is incapable of performing the requested operation.",
        _ => MALFORMED,
    };
    let mut error = json!({"type": kind, "traceback": null});
    if let Some(message) = message {
        error["message"] = json!(message);
    }
    let title = status.canonical_reason().unwrap_or_default();
    Response::json(
        status,
        json!({"code": status.as_u16(), "title": title, "explanation": explanation, "error": error}),
    )
}

fn malformed() -> Response {
    bad_request(MALFORMED)
}

fn bad_request(message: &str) -> Response {
    fault(StatusCode::BAD_REQUEST, "HTTPBadRequest", Some(message))
}

fn limit_exceeded(message: &str) -> Response {
    let message = format!("Request limit exceeded: {message}");
    fault(
        StatusCode::BAD_REQUEST,
        "RequestLimitExceeded",
        Some(&message),
    )
}

/// Python's `ValueError`, whose message is never shown.
fn value_error() -> Response {
    fault(StatusCode::BAD_REQUEST, "ValueError", None)
}

/// An error of the engine whose message Heat does not show.
fn remote_error() -> Response {
    fault(StatusCode::INTERNAL_SERVER_ERROR, "RemoteError", None)
}

fn not_found(what: &str, id: &str) -> Response {
    let message = format!("{what} with id {id} not found");
    fault(StatusCode::NOT_FOUND, "NotFound", Some(&message))
}

fn forbidden(policy: &str) -> Response {
    let message = format!("You are not authorized to use {policy}.");
    fault(StatusCode::FORBIDDEN, "Forbidden", Some(&message))
}

/// The router's 404: the third of tests/real-heat/OBSERVED.md, "Error bodies: three
/// shapes".
fn no_route() -> Response {
    Response::json(
        StatusCode::NOT_FOUND,
        json!({
            "message": "The resource could not be found.<br /><br />\n\n\n",
            "code": "404 Not Found",
            "title": "Not Found",
        }),
    )
}

/// The state does not permit the action, or the feature is disabled.
fn not_supported(what: &str) -> Response {
    let message = format!("{what} is not supported.");
    fault(StatusCode::BAD_REQUEST, "NotSupported", Some(&message))
}

fn entity_not_found(what: &str, name: &str) -> Response {
    let message = format!("The {what} ({name}) could not be found.");
    fault(StatusCode::NOT_FOUND, "EntityNotFound", Some(&message))
}

/// Python's `AttributeError`, whose message is never shown.
fn attribute_error() -> Response {
    fault(StatusCode::BAD_REQUEST, "AttributeError", None)
}

/// Parses a non-negative number in its canonical form.
fn limit(text: &str, name: &str) -> Result<usize, Response> {
    match text.parse::<i64>() {
        Ok(number) if number.to_string() == text => usize::try_from(number).map_err(|_| {
            bad_request(&format!(
                "Value '{text}' is invalid for '{name}' which only accepts non-negative integer."
            ))
        }),
        _ => Err(bad_request(&format!(
            "Only integer is acceptable by '{name}'."
        ))),
    }
}

/// Parses `sort_dir`; true if descending.
fn direction(context: &Context) -> Result<Option<bool>, Response> {
    match context.request.parameter("sort_dir") {
        None => Ok(None),
        Some("asc") => Ok(Some(false)),
        Some("desc") => Ok(Some(true)),
        Some(_) => Err(value_error()),
    }
}

/// Parses the depth of nested stacks, capped at `max_nested_stack_depth`.
fn nested_depth(context: &Context) -> Result<usize, Response> {
    let given = context.request.parameter("nested_depth");
    let depth = given.map(|text| limit(text, "nested_depth")).transpose()?;
    Ok(depth.unwrap_or(0).min(5))
}

/// Accepts `true` and `false` in any case, as text or JSON booleans.
fn boolean_of(value: &Value) -> Option<bool> {
    match functions::text(value).to_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// Parses a boolean query parameter; `end` is the end of Heat's error message for it.
fn boolean_parameter(context: &Context, name: &str, end: &str) -> Result<Option<bool>, Response> {
    let Some(given) = context.request.parameter(name) else {
        return Ok(None);
    };
    boolean_of(&json!(given)).map(Some).ok_or_else(|| {
        bad_request(&format!(
            "Unrecognized value \"{given}\" for \"{name}\", acceptable values are: true, false{end}"
        ))
    })
}

/// Returns whether Python treats the value as false: Heat ignores such members.
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

/// Converts a value as Heat's text columns do: 5 becomes "5" (observed for the name of
/// a config). The database rejects lists and objects.
fn column(value: &Value) -> Result<Value, Response> {
    match value {
        Value::Null | Value::String(_) => Ok(value.clone()),
        Value::Bool(value) => Ok(json!(u8::from(*value).to_string())),
        Value::Number(number) => Ok(json!(number.to_string())),
        Value::Array(_) | Value::Object(_) => Err(remote_error()),
    }
}
