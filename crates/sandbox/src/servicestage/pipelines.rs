//! Pipelines, the new release management. Source: docs/apis/servicestage.md,
//! "PipelineService".

use std::collections::VecDeque;

use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::body::{Kind as Type, Member, Object, fill, member, optional, required, text};
use super::components::{TEMPLATE_SOURCE, template};
use super::errors::{invalid, resource_not_found, unknown_action, unknown_api};
use super::jobs::steps;
use super::store::{Resource, page};
use super::{Call, Project};
use crate::Upstreams;
use crate::message::Response;

const SOURCES: Type = Type::List(&[
    required("template_source", TEMPLATE_SOURCE),
    optional("input_values", Type::Object(&[])),
]);
const PIPELINE: &[Member] = &[
    required("name", Type::Text(64)),
    required("model_version", Type::Integer),
    required("config_mode", Type::OneOf(&["ui", "template"])),
    optional("description", Type::Text(128)),
    optional("enterprise_project_id", Type::Text(64)),
    optional("fail_mode", Type::OneOf(&["stop", "continue"])),
    optional("sources", SOURCES),
    optional("stages", Type::List(&[])),
];
const TASKS: Type = Type::List(&[
    required("stage_name", Type::Text(64)),
    required("tasks", Type::Texts),
]);
const ACTION: &[Member] = &[
    optional("selected_tasks", TASKS),
    optional("task_name", Type::Text(64)),
    optional("approval_type", Type::OneOf(&["agree", "refuse"])),
    optional("message", Type::Text(1024)),
];
const HOOKS: &[Member] = &[
    required("strategy_type", Type::Integer),
    optional("selected_tasks", TASKS),
    optional(
        "hooks",
        Type::List(&[
            required("schedule", Type::Text(64)),
            required("timezone_operator", Type::OneOf(&["+", "-"])),
            required("timezone_hour", Type::Integer),
        ]),
    ),
];
const PARSE: &[Member] = &[required("sources", SOURCES)];

/// Maximum number of runs of a pipeline; the sandbox's own limit.
const MAX_RUNS: usize = 100;

/// Values of `status` (docs/apis/servicestage.md, "PipelineService").
const READY: i32 = 1;
const RELEASED: i32 = 2;
const FAILED: i32 = 3;
const RELEASING: i32 = 4;
const AWAITING: i32 = 5;
const PAUSED: i32 = 7;
const ROLLING_BACK: i32 = 10;
const ROLLED_BACK: i32 = 11;
const STOPPING: i32 = 13;
const RESTARTING: i32 = 14;

/// A pipeline. If its name contains `fail` it fails, with `approval` it waits for
/// approval.
pub struct Pipeline {
    view: Object,
    hooks: Option<Object>,
    version: i32,
    triggered: i64,
    /// One status per step; the last one stays.
    path: &'static [i32],
    since: Instant,
    runs: VecDeque<Value>,
}

impl Resource for Pipeline {
    fn id(&self) -> &str {
        self.view.id()
    }
}

impl Pipeline {
    fn status(&self, upstreams: &Upstreams) -> i32 {
        let last = self.path.len().saturating_sub(1);
        let at = steps(upstreams, self.since).min(last);
        self.path.get(at).copied().unwrap_or(READY)
    }

    fn go(&mut self, path: &'static [i32], now: Instant) {
        self.path = path;
        self.since = now;
    }

    /// Returns the statuses of a release, which depend on the pipeline's name.
    fn release(&self) -> &'static [i32] {
        let name = text(&self.view, "name");
        match () {
            () if name.contains("approval") => &[RELEASING, AWAITING],
            () if name.contains("fail") => &[RELEASING, RELEASING, FAILED],
            () => &[RELEASING, RELEASING, RELEASED],
        }
    }

    fn item(&self, upstreams: &Upstreams) -> Value {
        let of = |name: &str| member(&self.view, name);
        json!({
            "id": self.id(),
            "name": of("name"),
            "description": of("description"),
            "create_time": of("create_time"),
            "update_time": of("update_time"),
            "version": self.version,
            "model_version": of("model_version"),
            "config_mode": of("config_mode"),
            "status": self.status(upstreams),
            "creator": of("creator"),
            "last_trigger_at": self.triggered,
            "enterprise_project_id": of("enterprise_project_id"),
        })
    }

    fn detail(&self) -> Value {
        let of = |name: &str| member(&self.view, name);
        json!({
            "id": self.id(),
            "name": of("name"),
            "description": of("description"),
            "model_version": of("model_version"),
            "config_mode": of("config_mode"),
            "fail_mode": of("fail_mode"),
            "enterprise_project_id": of("enterprise_project_id"),
            "pipeline_declaration": {"sources": of("sources"), "stages": of("stages")},
        })
    }
}

pub fn handle(call: &Call<'_>, state: &mut Project, rest: &[&str]) -> Result<Response, Response> {
    let pipelines = &mut state.pipelines;
    match (call.method(), rest) {
        (&Method::POST, []) => {
            let mut body = call.body(PIPELINE)?;
            described(&body)?;
            fill(
                &mut body,
                json!({
                    "description": "",
                    "enterprise_project_id": "0",
                    "fail_mode": "stop",
                    "sources": [],
                    "stages": [],
                }),
            );
            call.stamp(&mut body);
            let response = Response::ok(json!({"id": body.id(), "name": member(&body, "name")}));
            pipelines.add(Pipeline {
                view: body,
                hooks: None,
                version: 1,
                triggered: 0,
                path: &[READY],
                since: call.upstreams.clock.instant(),
                runs: VecDeque::new(),
            })?;
            Ok(response)
        }
        (&Method::GET, []) => {
            let newest_first = pipelines.iter().rev();
            let items: Vec<Value> = newest_first.map(|p| p.item(call.upstreams)).collect();
            Ok(Response::ok(json!({"pipelines": items})))
        }
        // A GET with a body and without an id.
        (&Method::GET, ["parse-template-package"]) => {
            call.body(PARSE)?;
            Ok(Response::ok(template()))
        }
        (&Method::GET, [id]) => {
            let pipeline = pipelines.get(id).ok_or_else(resource_not_found)?;
            Ok(Response::ok(pipeline.detail()))
        }
        (&Method::PUT, [id]) => {
            let pipeline = pipelines.get_mut(id).ok_or_else(resource_not_found)?;
            let body = call.body(PIPELINE)?;
            described(&body)?;
            call.merge_body(&mut pipeline.view, body);
            pipeline.version = pipeline.version.saturating_add(1);
            let name = member(&pipeline.view, "name");
            Ok(Response::ok(json!({"id": pipeline.id(), "name": name})))
        }
        (&Method::POST, [id, "action"]) => {
            let pipeline = pipelines.get_mut(id).ok_or_else(resource_not_found)?;
            act(call, pipeline)
        }
        (&Method::GET, [id, "records"]) => {
            let pipeline = pipelines.get(id).ok_or_else(resource_not_found)?;
            page(
                call.request,
                "records",
                pipeline.runs.iter().cloned().collect(),
            )
        }
        (&Method::GET, [id, "hooks"]) => {
            let pipeline = pipelines.get(id).ok_or_else(resource_not_found)?;
            let hooks = pipeline.hooks.clone().ok_or_else(resource_not_found)?;
            Ok(Response::ok(Value::Object(hooks)))
        }
        (&Method::POST | &Method::PUT, [id, "hooks"]) => {
            let pipeline = pipelines.get_mut(id).ok_or_else(resource_not_found)?;
            let mut body = call.body(HOOKS)?;
            fill(&mut body, json!({"selected_tasks": [], "hooks": []}));
            pipeline.hooks = Some(body.clone());
            Ok(Response::ok(Value::Object(body)))
        }
        _ => Err(unknown_api()),
    }
}

/// The action is in the query.
fn act(call: &Call<'_>, pipeline: &mut Pipeline) -> Result<Response, Response> {
    let verb = call.request.parameter("action_id");
    let verb = verb.ok_or_else(|| invalid("action_id is missing."))?;
    let body = match call.request.body.is_empty() {
        true => Object::new(),
        false => call.body(ACTION)?,
    };
    let status = pipeline.status(call.upstreams);
    let path: &[i32] = match (verb, status) {
        ("start", READY | RELEASED | FAILED | PAUSED | ROLLED_BACK) => pipeline.release(),
        ("stop", RELEASING | AWAITING) => &[STOPPING, PAUSED],
        ("retry", FAILED | PAUSED) => &[RESTARTING, RELEASING, RELEASED],
        ("continue", PAUSED) => &[RELEASING, RELEASED],
        ("rollback", RELEASED | FAILED | PAUSED) => &[ROLLING_BACK, ROLLING_BACK, ROLLED_BACK],
        ("approval", AWAITING) => match text(&body, "approval_type") {
            "agree" => &[RELEASING, RELEASED],
            "refuse" => &[FAILED],
            _ => return Err(invalid("approval_type is missing.")),
        },
        ("start" | "stop" | "retry" | "continue" | "rollback" | "approval", _) => {
            return Err(invalid("The pipeline's status does not allow it."));
        }
        _ => return Err(unknown_action()),
    };
    pipeline.go(path, call.upstreams.clock.instant());
    if verb == "start" || pipeline.runs.is_empty() {
        pipeline.triggered = call.now();
        let run = json!({
            // Increases from a number like that of the manual's example.
            "id": pipeline.runs.back().map_or(288_506, |run| run["id"].as_i64().unwrap_or(0) + 1),
            "pipeline_id": pipeline.id(),
            "trigger": {"type": "manual", "user": call.user},
            "version": pipeline.version,
        });
        if pipeline.runs.len() == MAX_RUNS {
            pipeline.runs.pop_front();
        }
        pipeline.runs.push_back(run);
    }
    let run = pipeline.runs.back().map(|run| run["id"].clone());
    Ok(Response::ok(json!({
        "id": run,
        "pipeline_id": pipeline.id(),
        "status": pipeline.status(call.upstreams),
    })))
}

/// A template requires its sources, and `model_version` is always 2.
fn described(body: &Object) -> Result<(), Response> {
    if member(body, "model_version").as_f64() != Some(2.0) {
        return Err(invalid("model_version must be 2."));
    }
    let sources = member(body, "sources").as_array();
    match text(body, "config_mode") == "template" && sources.is_none_or(Vec::is_empty) {
        true => Err(invalid("sources is missing.")),
        false => Ok(()),
    }
}
